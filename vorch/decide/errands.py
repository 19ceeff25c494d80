"""What one round of high availability decides: records, plans to carry out, and sentences."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from vorch.availability import HaVm, HostOrder, NodeRecord, VmRecord
from vorch.frozen import quick
from vorch.plan import Plan

Purpose = Literal[
    "fence",
    "unfence",
    "start",
    "stop",
    "cut",
    "move",
    "return",
    "register",
    "note",
    # A move for evenness, which high availability has no part in.
    "balance",
]


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """A plan, and what it is for: so that it can be said what follows when it fails."""

    purpose: Purpose
    plan: Plan
    vm: str = ""
    # The host that it is about: the one that is fenced, or the one that the VM will be on.
    node: str = ""
    # The VM that a person wanted elsewhere, when that is why. Such a wish is not repeated.
    order: str = ""


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """All that comes of one look. Records that have not changed are not in it."""

    node_records: dict[str, NodeRecord] = field(default_factory=dict)
    # None: there is nothing to be remembered any more.
    vm_records: dict[str, VmRecord | None] = field(default_factory=dict)
    # Wishes that have been fulfilled or refused; None: gone.
    orders: dict[str, HostOrder | None] = field(default_factory=dict)
    # What guests have asked for by what they did.
    settings: dict[str, HaVm] = field(default_factory=dict)
    dropped_moves: tuple[str, ...] = ()
    errands: tuple[Errand, ...] = ()
    # "node/h1" and "vm/web", a sentence each.
    sentences: dict[str, str] = field(default_factory=dict)
    # When something is due by the clock alone.
    due_at: float | None = None

    @property
    def quiet(self) -> bool:
        """Nothing was decided, so the next look will come to the same."""
        return not (
            self.node_records
            or self.vm_records
            or self.orders
            or self.settings
            or self.dropped_moves
            or self.errands
        )


@dataclass
class Timers:
    """Collects when something is due."""

    now: float
    first: float | None = None

    def due(self, at: float) -> bool:
        """Whether that time has come; else it is remembered."""
        if at <= self.now:
            return True
        self.first = at if self.first is None else min(self.first, at)
        return False


def listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
