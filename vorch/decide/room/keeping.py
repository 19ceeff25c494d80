"""Balance without giving up the room for a loss: what may die before may die after.

A host, or what else the policy asks for: a rack, several hosts at once. The plan is made first, for
evenness alone, and looked at as a whole. Where it would take away what a loss needs, the moves that
do so are found one after the other, and another plan is made without them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Set

from vorch.decide.room.balance import (
    MOST_RUNS,
    BalancePlan,
    Limits,
    Metric,
    joined,
    moved,
    towards,
)
from vorch.decide.room.balance import balance as balance_alone
from vorch.decide.room.fleet import Fleet, Guest, Needs
from vorch.decide.room.spare import Spare
from vorch.decide.room.table import Table
from vorch.decide.room.wide import failing, spare_of

# How often another plan is tried without the moves that were refused.
_OTHERS = 2


def balance(fleet: Fleet, limits: Limits | None = None, *, metric: Metric = "vorch") -> BalancePlan:
    """The plan after which all may die that may now, where the fleet's policy keeps that."""
    if fleet.policy.spare != "keep" or len(fleet.hosts) < 2:
        return balance_alone(fleet, limits, metric=metric)
    before = lost_now(fleet)
    asked = limits or Limits()
    plan = _kept(fleet, asked, metric, before)
    if (asked.moves, asked.memory_mib, asked.seconds) != (None, None, None):
        return plan

    def settled(one: BalancePlan) -> bool:
        if spoiling(fleet, one, before):
            return False
        return not _kept(moved(fleet, one), asked, metric, before).moves

    # As in `balance`: what another run would find belongs to this one.
    for _ in range(MOST_RUNS):
        if not plan.moves:
            break
        more = _kept(moved(fleet, plan), asked, metric, before)
        if not more.moves:
            break
        plan = joined(fleet, plan, more, asked, metric, settled)
    return plan


def lost_now(fleet: Fleet) -> frozenset[str]:
    """All whose loss is not survived as it is: nothing more may be like that after a plan."""
    return frozenset(failing(spare_of(Table(fleet))))


def _kept(fleet: Fleet, limits: Limits, metric: Metric, before: Set[str]) -> BalancePlan:
    plan = balance_alone(fleet, limits, metric=metric)
    refused = spoiling(fleet, plan, before)
    if not refused:
        return plan
    found = []
    for _ in range(_OTHERS):
        part = _part(fleet, plan, limits, metric, before)
        found += [] if spoiling(fleet, part, before) else [part]
        plan = balance_alone(without(fleet, refused), limits, metric=metric)
        wrong = spoiling(fleet, plan, before)
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
    fleet: Fleet, plan: BalancePlan, limits: Limits, metric: Metric, before: Set[str]
) -> BalancePlan:
    """As much of a plan as leaves all that may be lost so, what gains most first."""
    table = Table(fleet)
    spare = spare_of(table)
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
        if failing(spare).keys() - before:
            _go(table, spare, row, source)
        else:
            taken[table.guest_names[row]] = table.host_names[host]
    return towards(fleet, taken, limits, metric=metric)


def _go(table: Table, spare: Spare, row: int, host: int) -> None:
    source = int(table.at[row])
    table.move(row, host)
    spare.moved(row, source, host)


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


def spoiling(fleet: Fleet, plan: BalancePlan, before: Set[str]) -> dict[str, dict[str, str]]:
    """Moves that take away the room for a loss, where the plan as a whole does so; and why.

    `before`: whose loss is not survived as it is.
    """
    if not plan.moves or not any(guest.ha for guest in fleet.guests):
        return {}
    table = Table(fleet)
    steps = [(table.guest(one.guest), table.host(one.target)) for one in plan.moves]
    start = table.at.copy()
    for row, host in steps:
        table.move(row, host)
    if not failing(spare_of(table)).keys() - before:
        return {}
    for row in {row for row, _ in steps}:
        table.move(row, int(start[row]))
    spare = spare_of(table)
    wrong: dict[str, dict[str, str]] = {}
    for row, host in steps:
        source = int(table.at[row])
        _go(table, spare, row, host)
        lost = failing(spare).keys() - before
        if lost:
            why = f"{min(lost)!r} could not be lost any more"
            wrong.setdefault(table.guest_names[row], {})[table.host_names[host]] = why
            _go(table, spare, row, source)
    return wrong
