"""The power fence: off by the host's BMC, and off when the BMC is asked afterwards.

That an order was accepted proves nothing: BMCs accept orders and do nothing. Nor does "off" while
the host still answers: then the BMC is another host's, or lies. So the state is read back until it
is off, and the host's addresses are knocked on before that counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Literal, TypeVar

from vorch.aside import begin, side_by_side
from vorch.availability import Knock
from vorch.errors import FenceFailed, TimedOut, VorchError
from vorch.model import Check, Node
from vorch.ports import PowerSwitch, Progress

POLL_S = 0.5
# An order that had no effect is given again after this time: BMCs drop orders while they are busy.
AGAIN_AFTER_S = 5.0
# How long a machine without power may still seem to answer (what was on its way).
KNOCK_S = 0.5
# What a call may take beyond its limit before it is left alone.
MARGIN_S = 0.5
NETWORKS: tuple[Literal["management", "storage"], ...] = ("management", "storage")

T = TypeVar("T")
KnockOn = Callable[[Node, Literal["management", "storage"], float], Knock | None]


class PowerFencer:
    """The Fencer port. `switch` is a host's BMC. `knock` asks the host itself."""

    name = "power"
    by_address = False

    def __init__(
        self,
        switch: Callable[[Node], PowerSwitch],
        knock: KnockOn,
        *,
        timeout_s: float,
        call_s: float = 5.0,
    ) -> None:
        self._switch = switch
        self._knock = knock
        self._timeout_s = timeout_s
        # One answer of a BMC may take so long.
        self._call_s = min(call_s, timeout_s)

    def covers(self, node: Node) -> bool:
        return bool(node.bmc)

    def fence(self, node: Node, clients: Sequence[str], progress: Progress) -> str:
        with closing(self._switch(node)) as bmc:
            return self._fence(node, bmc, progress)

    def _fence(self, node: Node, bmc: PowerSwitch, progress: Progress) -> str:
        until = time.monotonic() + self._timeout_s
        ordered_at, orders = float("-inf"), 0
        while True:
            on, problem = False, "its BMC says that it is still on"
            # Ends it when somebody else has proven that the host is cut off.
            progress()
            try:
                on = self._within(bmc.is_on, until)
                if not on:
                    answers = self._answers(node)
                    if not answers:
                        return (
                            "its BMC says that it is off, and it does not answer"
                            if orders
                            else "its BMC says that it is off already, and it does not answer"
                        )
                    problem = f"its BMC says that it is off, and it still answers at {answers}"
            except VorchError as exc:
                problem = exc.message
            # Only to one that answers: another one might carry it out much later, when the host has
            # long been taken back.
            if on and time.monotonic() - ordered_at >= AGAIN_AFTER_S:
                ordered_at, orders = time.monotonic(), orders + 1
                try:
                    self._within(bmc.off, until)
                    progress(line=f"the BMC of {node.name} has taken the order to switch it off")
                    continue
                except VorchError as exc:
                    problem = exc.message
            if time.monotonic() + POLL_S >= until:
                raise FenceFailed(
                    f"cannot switch {node.name!r} off within {self._timeout_s:g} s:"
                    f" {problem}; see to its BMC",
                    node=node.name,
                )
            time.sleep(POLL_S)

    def unfence(self, node: Node, clients: Sequence[str]) -> None:
        """Who switches it on is a person, or the BMC's own policy."""

    def read(self, node: Node, timeout_s: float) -> Literal["on", "off"] | None:
        """What its BMC says; None when it has none, or that does not answer in time."""
        if not node.bmc:
            return None
        try:
            with closing(self._switch(node)) as bmc:
                return "on" if self._within(bmc.is_on, time.monotonic() + timeout_s) else "off"
        except VorchError:
            return None

    def drill(self, nodes: Sequence[Node], progress: Progress) -> tuple[Check, ...]:
        return tuple(check for node in nodes for check in self._drill(node, progress))

    def _drill(self, node: Node, progress: Progress) -> tuple[Check, ...]:
        """Its BMC lets us in, and agrees with what is seen of the host. Nothing is switched."""
        name = f"BMC of {node.name}"
        progress()
        try:
            with closing(self._switch(node)) as bmc:
                on = self._within(bmc.is_on, time.monotonic() + self._call_s)
        except VorchError as exc:
            remedy = "see to its address, user and password (vorch node change)"
            return (Check(name=name, level="error", detail=exc.message, remedy=remedy),)
        answers = self._answers(node)
        if answers and not on:
            return (
                Check(
                    name=name,
                    level="error",
                    detail=f"it says that the host is off, which answers at {answers}",
                    remedy="it is another host's BMC, or broken; see to it",
                ),
            )
        return (
            Check(
                name=name,
                level="ok",
                detail=f"it lets vorch in and says that the host is {'on' if on else 'off'}",
            ),
        )

    def _answers(self, node: Node) -> str:
        """On which networks somebody is at home; "" for none."""
        found = side_by_side(
            lambda one: self._knock(node, one, KNOCK_S), NETWORKS, most=len(NETWORKS)
        )
        home = (Knock.ANSWER, Knock.RESET)
        return " and ".join(n for n, one in zip(NETWORKS, found, strict=True) if one in home)

    def _left(self, until: float) -> float:
        return max(0.1, min(self._call_s, until - time.monotonic()))

    def _within(self, act: Callable[[], T], until: float) -> T:
        """The limit holds even for a BMC that sends a byte now and then."""
        try:
            return begin(act, name="bmc").result(self._left(until) + MARGIN_S)
        except TimeoutError as exc:
            raise TimedOut("its BMC does not answer") from exc
