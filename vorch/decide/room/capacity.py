"""How much a fleet can lose and take: may hosts die, which is the worst, how many more fit."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations, islice
from math import comb

import numpy as np

from vorch.decide.room.fleet import Fleet, Guest
from vorch.decide.room.pick import Picker
from vorch.decide.room.spare import Loss, Spare, Verdict, domain_losses, loss
from vorch.decide.room.table import Table
from vorch.errors import Invalid

# Sets of hosts that are looked at one by one, of all that could die at once.
SETS_LIMIT = 5000
# Guests of a size that are counted; more is said as "at least".
COUNT_LIMIT = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """How many more guests of a size fit."""

    guest: Guest
    # Into what is free now.
    fit: int
    # With all that may be lost now still to be lost then. So many were placed; the most that could
    # be is not less.
    with_spare: int
    # There are more than were counted.
    more: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """What a person asks about a cluster's room."""

    # Whether any host, or any so many hosts, may die.
    verdict: Verdict
    hosts_lost: int
    # The worst to lose: with the most memory left out, or the most to be found room for.
    worst: Loss | None
    # By host, unless several are lost at once.
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    # All whose loss is not survived, or not proven to be.
    losses: tuple[Loss, ...] = ()
    # By failure domain, of a key that was asked for.
    domains: dict[str, Loss] = field(default_factory=dict)
    growth: Growth | None = None
    memory_mib: int = 0
    memory_used_mib: int = 0
    vcpus: float = 0.0
    vcpus_used: float = 0.0
    # Since when it is so, where somebody watches and what was asked is what the policy keeps. A
    # file does not know it.
    since: float | None = field(default=None, compare=False)


def capacity(
    fleet: Fleet,
    *,
    size: Guest | None = None,
    domain: str | None = None,
    hosts_lost: int | None = None,
    prove: bool = True,
    count_limit: int = COUNT_LIMIT,
) -> Capacity:
    """Whether the fleet survives losses, the worst of them, and how many guests like `size` fit.

    `prove`: what packing leaves open is decided by the solver, where there is one.
    """
    table = Table(fleet)
    lost = fleet.policy.spare_hosts if hosts_lost is None else hosts_lost
    if lost < 1:
        raise Invalid(f"cannot look at the loss of {lost} hosts: give 1 or more")
    if lost == 1:
        verdicts, losses = _single(table, prove=prove)
        verdict = _overall(list(verdicts.values()))
    else:
        verdicts = {}
        verdict, losses = _several(table, lost, prove=prove)
    return Capacity(
        verdict=verdict,
        hosts_lost=lost,
        worst=_worst(table, losses, lost, prove=prove),
        verdicts=verdicts,
        losses=losses,
        domains={} if domain is None else domain_losses(table, domain, prove=prove),
        growth=None if size is None else growth(fleet, size, count_limit=count_limit),
        memory_mib=int(table.room_mib.sum()),
        memory_used_mib=int(table.used_mib.sum()),
        vcpus=float(table.room_vcpus.sum()),
        vcpus_used=float(table.used_vcpus.sum()),
    )


def _single(table: Table, *, prove: bool) -> tuple[dict[str, Verdict], tuple[Loss, ...]]:
    spare = Spare(table)
    verdicts = spare.verdicts(prove=prove)
    return verdicts, tuple(
        loss(table, [table.host(name)], prove=prove)
        for name, verdict in verdicts.items()
        if verdict is not Verdict.YES
    )


def _several(table: Table, lost: int, *, prove: bool) -> tuple[Verdict, tuple[Loss, ...]]:
    """Any so many hosts: those first that carry the most. Of many sets only a no is proven."""
    there = _carried(table)
    order = sorted(range(len(table.hosts)), key=lambda host: (-there[host], host))
    sets = comb(len(order), lost)
    bad: list[Loss] = []
    for chosen in islice(combinations(order, min(lost, len(order))), SETS_LIMIT):
        found = loss(table, chosen, prove=prove)
        if found.verdict is not Verdict.YES:
            bad.append(found)
            if found.verdict is Verdict.NO:
                return Verdict.NO, (found,)
    verdict = _overall([one.verdict for one in bad])
    return Verdict.UNPROVEN if sets > SETS_LIMIT else verdict, tuple(bad)


def _overall(verdicts: Sequence[Verdict]) -> Verdict:
    for one in (Verdict.NO, Verdict.UNPROVEN):
        if one in verdicts:
            return one
    return Verdict.YES


def _carried(table: Table) -> list[int]:
    """Memory of each host's guests that are looked after."""
    rows = np.flatnonzero(table.ha & (table.at >= 0))
    sums = np.bincount(table.at[rows], table.memory[rows], len(table.hosts))
    return [int(one) for one in sums]


def _worst(table: Table, losses: Sequence[Loss], lost: int, *, prove: bool) -> Loss | None:
    if losses:
        return max(
            losses,
            key=lambda one: (
                one.verdict is Verdict.NO,
                sum(int(table.memory[table.guest_row[name]]) for name in one.left_out),
                # Of equal ones the first by name.
                [-ord(letter) for name in one.hosts for letter in name],
            ),
        )
    there = _carried(table)
    order = sorted(range(len(table.hosts)), key=lambda host: (-there[host], host))
    return loss(table, order[:lost], prove=prove) if order else None


def growth(fleet: Fleet, size: Guest, *, count_limit: int = COUNT_LIMIT) -> Growth:
    """How many more guests like this one fit; its name and host do not matter."""
    if size.takes_mib == 0 and size.vcpus == 0:
        raise Invalid("cannot count guests without size: any number fits; give memory or vCPUs")
    fit = _fit(fleet, size)
    wanted = min(fit, count_limit)
    taken = {guest.name for guest in fleet.guests}
    new: list[Guest] = []
    number = 0
    while len(new) < wanted:
        name = f"new-{number:06}"
        number += 1
        if name not in taken:
            new.append(dataclasses.replace(size, name=name, host=""))
    trial = dataclasses.replace(
        fleet,
        guests=(*fleet.guests, *new),
        policy=dataclasses.replace(fleet.policy, spare="keep"),
    )
    table = Table(trial)
    picker = Picker(table)
    never = np.zeros(len(table.hosts), dtype=np.bool_)
    count = 0
    for guest in new:
        if not picker.take([table.guest(guest.name)], never).host:
            break
        count += 1
    return Growth(guest=size, fit=fit, with_spare=count, more=fit > wanted == count)


def _fit(fleet: Fleet, size: Guest) -> int:
    """How many go into what is free, host by host. Of cells no more than the host's sum is seen."""
    name = next(
        name
        for name in (f"new-{number}" for number in range(len(fleet.guests) + 1))
        if name not in {guest.name for guest in fleet.guests}
    )
    one = dataclasses.replace(size, name=name, host="")
    table = Table(dataclasses.replace(fleet, guests=(*fleet.guests, one)))
    row = table.guest(name)
    mask = table.mask(int(table.kind[row]))
    places = np.full(len(table.hosts), np.inf)
    if table.memory[row]:
        places = np.minimum(places, np.maximum(table.free_mib, 0) // table.memory[row])
    if table.vcpus[row]:
        places = np.minimum(places, np.maximum(table.free_vcpus, 0) // table.vcpus[row])
    return int(places[mask].sum())
