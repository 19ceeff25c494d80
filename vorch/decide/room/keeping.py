"""Balance without giving up the room for the loss of a host: what may die before may die after.

The plan is made first, for evenness alone, and looked at as a whole. Where it would take away what
a host needs to be lost, the moves that do so are found one after the other, and another plan is
made without them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from vorch.decide.room.balance import (
    MOST_RUNS,
    BalancePlan,
    Limits,
    Metric,
    joined,
    towards,
)
from vorch.decide.room.balance import balance as balance_alone
from vorch.decide.room.fleet import Fleet, Guest, Needs
from vorch.decide.room.spare import Spare
from vorch.decide.room.table import Bools, Table

# How often another plan is tried without the moves that were refused.
_OTHERS = 2


def balance(fleet: Fleet, limits: Limits | None = None, *, metric: Metric = "vorch") -> BalancePlan:
    """The plan after which every host may die that may now, where the fleet's policy keeps that."""
    if fleet.policy.spare != "keep" or len(fleet.hosts) < 2:
        return balance_alone(fleet, limits, metric=metric)
    holds = _holding(Table(fleet))
    asked = limits or Limits()
    plan = _kept(fleet, asked, metric, holds)
    if (asked.moves, asked.memory_mib, asked.seconds) != (None, None, None):
        return plan
    # As in `balance`: what another run would find belongs to this one.
    for _ in range(MOST_RUNS):
        if not plan.moves:
            break
        more = _kept(moved(fleet, plan), asked, metric, holds)
        if not more.moves:
            break
        plan = joined(plan, more)
    return plan


def moved(fleet: Fleet, plan: BalancePlan) -> Fleet:
    """The fleet when the plan is done."""
    where = {move.guest: move.target for move in plan.moves}
    guests = (
        dataclasses.replace(one, host=where[one.name]) if one.name in where else one
        for one in fleet.guests
    )
    return dataclasses.replace(fleet, guests=tuple(guests))


def _holding(table: Table) -> Bools:
    return Spare(table).holds.copy()


def _kept(fleet: Fleet, limits: Limits, metric: Metric, holds: Bools) -> BalancePlan:
    plan = balance_alone(fleet, limits, metric=metric)
    refused = spoiling(fleet, plan, holds)
    if not refused:
        return plan
    found = []
    for _ in range(_OTHERS):
        part = _part(fleet, plan, limits, metric, holds)
        found += [] if spoiling(fleet, part, holds) else [part]
        plan = balance_alone(without(fleet, refused), limits, metric=metric)
        wrong = spoiling(fleet, plan, holds)
        if not wrong:
            found.append(plan)
            break
        for name, hosts in wrong.items():
            refused.setdefault(name, {}).update(hosts)
    nothing = balance_alone(
        without(fleet, {}, stay=[one.name for one in fleet.guests]), metric=metric
    )
    best = min([nothing, *found], key=_standing)
    why = next(iter(next(iter(refused.values())).values()))
    note = f"{len(refused)} VMs would be better elsewhere, but then {why}"
    return dataclasses.replace(best, notes=(*best.notes, note))


def _standing(plan: BalancePlan) -> tuple[int, int, float]:
    return plan.after.broken, plan.after.overfull, plan.after.figure


def _part(
    fleet: Fleet, plan: BalancePlan, limits: Limits, metric: Metric, holds: Bools
) -> BalancePlan:
    """As much of a plan as leaves every host that may be lost so, what gains most first."""
    table = Table(fleet)
    spare = Spare(table)
    targets = {table.guest(one.guest): table.host(one.target) for one in plan.moves}
    taken: dict[str, str] = {}
    for row, host in targets.items():
        source = int(table.at[row])
        off = table.barred(row)
        if (
            table.free_mib[host] < table.memory[row]
            or table.free_vcpus[host] < table.vcpus[row]
            or (off is not None and off[host])
        ):
            continue
        _go(table, spare, row, host)
        if (holds & ~spare.holds).any():
            _go(table, spare, row, source)
        else:
            taken[table.guest_names[row]] = table.host_names[host]
    return towards(fleet, taken, limits, metric=metric)


def _go(table: Table, spare: Spare, row: int, host: int) -> None:
    source = int(table.at[row])
    table.move(row, host)
    spare.moved(row, source, host)
    spare.settle()


def kept_off(needs: Needs, more: Mapping[str, str]) -> Needs:
    """These needs, and hosts that it may not go to, each with the reason."""
    return dataclasses.replace(needs, barred=tuple(sorted({**more, **dict(needs.barred)}.items())))


def without(
    fleet: Fleet, refused: Mapping[str, Mapping[str, str]], *, stay: Iterable[str] = ()
) -> Fleet:
    """The fleet with hosts that guests may not go to, and guests that may go nowhere."""
    fixed = frozenset(stay)

    def changed(guest: Guest) -> Guest:
        if guest.name in fixed:
            return dataclasses.replace(guest, moves="pinned")
        if guest.name in refused:
            return dataclasses.replace(guest, needs=kept_off(guest.needs, refused[guest.name]))
        return guest

    return dataclasses.replace(fleet, guests=tuple(changed(guest) for guest in fleet.guests))


def spoiling(
    fleet: Fleet, plan: BalancePlan, holds: Bools | None = None
) -> dict[str, dict[str, str]]:
    """Moves that take away the room for the loss of a host, where the plan as a whole does so.

    `holds`: by rows of the fleet's hosts, which may be lost before.
    """
    if not plan.moves or not any(guest.ha for guest in fleet.guests):
        return {}
    table = Table(fleet)
    before = _holding(table) if holds is None else holds
    if not before.any():
        return {}
    steps = [(table.guest(one.guest), table.host(one.target)) for one in plan.moves]
    start = table.at.copy()
    for row, host in steps:
        table.move(row, host)
    if not (before & ~Spare(table).holds).any():
        return {}
    for row in {row for row, _ in steps}:
        table.move(row, int(start[row]))
    spare = Spare(table)
    wrong: dict[str, dict[str, str]] = {}

    for row, host in steps:
        source = int(table.at[row])
        _go(table, spare, row, host)
        lost = (before & ~spare.holds).nonzero()[0]
        if len(lost):
            name = table.host_names[int(lost[0])]
            why = f"{name!r} could not be lost any more"
            wrong.setdefault(table.guest_names[row], {})[table.host_names[host]] = why
            _go(table, spare, row, source)
    return wrong
