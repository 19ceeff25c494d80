"""When whoever watches evens hosts out by itself: what a person sets of that. Pure.

It is off until somebody switches it on. A setting is a document, `balance/policy`.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import Any

from vorch.availability import check_seconds
from vorch.decide.records import save
from vorch.errors import Invalid
from vorch.model import check_range
from vorch.plan import Plan

POLICY = "balance/policy"
DAY_S = 24 * 3600
# Not more often: what is measured has to become something new first.
LEAST_EVERY_S = 60.0
_SPAN = re.compile(r"([01]?[0-9]|2[0-3]):([0-5][0-9])-([01]?[0-9]|2[0-3]):([0-5][0-9])")


@dataclass(frozen=True, slots=True, kw_only=True)
class BalancePolicy:
    """How hosts are evened out by whoever watches. There is one, `balance/policy`."""

    auto: bool = False
    every_s: float = 900.0
    # What a plan has to gain beside what chance alone may bring: 0.05 is 5 % of a host. Broken
    # rules and overfull hosts are put right in any case.
    least_gain: float = 0.0
    # Moves of one time; None: as many as are worth it.
    moves_max: int | None = 10
    memory_max_mib: int | None = None
    # Times of the day at which nothing is begun, as in 22:00-06:00, by the clocks of `zone`.
    quiet: tuple[str, ...] = ()
    # As in Europe/Vienna.
    zone: str = "UTC"

    def __post_init__(self) -> None:
        check_seconds(self.every_s, "time between two of them")
        if self.every_s < LEAST_EVERY_S:
            raise Invalid(
                f"cannot balance every {self.every_s:g} s: loads are measured over minutes; choose"
                f" {LEAST_EVERY_S:g} s or more"
            )
        if not 0 <= self.least_gain <= 1000:
            raise Invalid(
                f"cannot use {self.least_gain!r} as the least gain: it must be from 0 to 1000, as"
                " in 0.05"
            )
        if self.moves_max is not None:
            check_range(self.moves_max, 1, 10**6, "number of moves of one time")
        if self.memory_max_mib is not None:
            check_range(self.memory_max_mib, 1, 10**9, "memory of one time", "MiB")
        for one in self.quiet:
            quiet_span(one)


@dataclass(frozen=True, slots=True, kw_only=True)
class LastBalance:
    """When it was thought about last, `balanced/auto`: whoever leads next goes on from there."""

    at: float
    # So many moves were begun with.
    moves: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BalanceChanges:
    """What is to be different. None: as it is; 0 takes a limit away."""

    auto: bool | None = None
    every_s: float | None = None
    least_gain: float | None = None
    moves_max: int | None = None
    memory_max_mib: int | None = None
    quiet: tuple[str, ...] | None = None
    zone: str | None = None


def quiet_span(text: str) -> tuple[int, int]:
    """ "22:00-06:00" → seconds of the day at which it begins and ends."""
    found = _SPAN.fullmatch(text)
    if found is None:
        raise Invalid(
            f"cannot use {text!r} as quiet hours: write two times of the day, as in 22:00-06:00"
        )
    hours = [int(part) for part in found.groups()]
    begin, end = hours[0] * 3600 + hours[1] * 60, hours[2] * 3600 + hours[3] * 60
    if begin == end:
        raise Invalid(
            f"cannot use {text!r} as quiet hours: it begins when it ends; write two times, or"
            " switch it off (vorch ha balance --no-auto)"
        )
    return begin, end


def quiet_for(policy: BalancePolicy, now: float, offset_s: float) -> tuple[float, str] | None:
    """For how many seconds from `now` it is quiet, and until what time of the day; None: it is not.

    `offset_s`: by how much the clocks on the wall are ahead of UTC.
    """
    of_day = (now + offset_s) % DAY_S
    left: list[tuple[float, str]] = []
    for text in policy.quiet:
        begin, end = quiet_span(text)
        inside = begin <= of_day < end if begin < end else of_day >= begin or of_day < end
        if inside:
            left.append(((end - of_day) % DAY_S, text.partition("-")[2]))
    return max(left) if left else None


def ha_balance(before: BalancePolicy | None, version: int, changes: BalanceChanges) -> Plan:
    wanted: dict[str, Any] = {
        one.name: value
        for one in dataclasses.fields(changes)
        if (value := getattr(changes, one.name)) is not None
    }
    for limit in ("moves_max", "memory_max_mib"):
        if wanted.get(limit) == 0:
            wanted[limit] = None
    after = dataclasses.replace(before or BalancePolicy(), **wanted)
    same = after == (before or BalancePolicy())
    return Plan(
        verb="ha balance",
        subject="cluster",
        why=f"it is so already: {words(after)}" if same else f"from now on: {words(after)}",
        steps=() if same else (save("balance", "policy", before, after),),
        claims=(POLICY,),
        reads={POLICY: version},
    )


def words(policy: BalancePolicy) -> str:
    if not policy.auto:
        return "hosts are evened out by `vorch balance` alone"
    limits = [] if policy.moves_max is None else [f"{policy.moves_max} moves"]
    if policy.memory_max_mib is not None:
        limits.append(f"{policy.memory_max_mib} MiB of memory")
    parts = [f"whoever watches evens hosts out every {policy.every_s / 60:g} min"]
    if limits:
        parts.append(f"with {' and '.join(limits)} at most")
    if policy.least_gain:
        parts.append(f"for a gain of {policy.least_gain:g} or more")
    if policy.quiet:
        parts.append(f"not at {', '.join(policy.quiet)} ({policy.zone})")
    return ", ".join(parts)
