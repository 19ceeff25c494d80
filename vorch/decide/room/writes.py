"""How fast guests write to their memory, as far as that was measured lately. Pure.

To measure it costs the guest a little, so only those are measured that a plan would move, for a
second each, and what came of it is kept for an hour.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from vorch.model import check_vm_name

# What was measured counts for so long.
FRESH_S = 3600.0
# How often a plan is made anew because of what was measured, and guests of one host for each time.
TIMES = 3
MOST_PER_HOST = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    mib_s: float
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Writes:
    """By the name of the VM, `writes/vms`: whoever has measured it writes it, for all others."""

    rates: dict[str, Rate] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.rates:
            check_vm_name(name)


def known(written: Writes | None, now: float) -> dict[str, float]:
    """MiB/s, of those that were measured lately."""
    if written is None:
        return {}
    return {name: one.mib_s for name, one in written.rates.items() if now - one.at <= FRESH_S}


def with_new(written: Writes | None, found: Mapping[str, float], now: float) -> Writes:
    """With what was measured now, and without what is too old."""
    before = {} if written is None else written.rates
    fresh = {name: one for name, one in before.items() if now - one.at <= FRESH_S}
    new = {name: Rate(mib_s=round(value, 1), at=now) for name, value in found.items()}
    return Writes(rates=dict(sorted({**fresh, **new}.items())))


def to_measure(
    moves: Iterable[tuple[str, str]], rates: Mapping[str, float]
) -> dict[str, tuple[str, ...]]:
    """Of (VM, host) those of which nothing is known, by host; of each host no more than a few."""
    found: dict[str, list[str]] = {}
    for name, host in moves:
        here = found.setdefault(host, [])
        if name not in rates and name not in here and len(here) < MOST_PER_HOST:
            here.append(name)
    return {host: tuple(names) for host, names in sorted(found.items()) if names}
