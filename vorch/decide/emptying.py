"""Empty a host of the living cluster, or make room on one: the plans of `room.empty`. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping

from vorch.availability import Availability
from vorch.decide.records import is_on
from vorch.decide.room.balance import Move
from vorch.decide.room.empty import Emptying, evacuate, make_room
from vorch.decide.room.fleet import Fleet, Guest
from vorch.decide.room.live import POLICY, fleet_of
from vorch.model import Cluster, Vm

# Moves that are named where somebody is told how room could be made.
TOLD = 4


def way_out(
    cluster: Cluster,
    ha: Availability,
    hosts: Iterable[str],
    *,
    overhead_mib: int,
    busy: Collection[str],
    per_host: int,
    link_mib_s: float,
    writes: Mapping[str, float] | None = None,
) -> Emptying:
    """Where all that runs on these hosts goes, and who has to make way for that."""
    policy = dataclasses.replace(POLICY, link_mib_s=link_mib_s or POLICY.link_mib_s)
    fleet = fleet_of(cluster, ha, overhead_mib=overhead_mib, writes=writes, policy=policy)
    return evacuate(_movable(fleet, cluster, busy), hosts, per_host=per_host)


def room_for(
    cluster: Cluster,
    ha: Availability,
    vm: Vm,
    *,
    overhead_mib: int,
    hosts: Iterable[str],
    busy: Collection[str],
) -> tuple[Move, ...]:
    """Who has to move so that it has room on one of these hosts; nobody where that is of no use."""
    fleet = _movable(fleet_of(cluster, ha, overhead_mib=overhead_mib, more=[vm]), cluster, busy)
    wanted = frozenset(hosts)

    def placed(guest: Guest) -> Guest:
        if guest.name != vm.name:
            return guest
        allowed = wanted if guest.needs.hosts is None else wanted & set(guest.needs.hosts)
        needs = dataclasses.replace(guest.needs, hosts=tuple(sorted(allowed)))
        return dataclasses.replace(guest, needs=needs)

    fleet = dataclasses.replace(fleet, guests=tuple(placed(guest) for guest in fleet.guests))
    found = make_room(fleet, vm.name)
    if not found.complete:
        return ()
    return tuple(move for move in found.moves if move.guest != vm.name)


def _movable(fleet: Fleet, cluster: Cluster, busy: Collection[str]) -> Fleet:
    """What runs moves while it runs. What is off, or is being worked on, stays."""

    def changed(guest: Guest) -> Guest:
        vm = cluster.vms.get(guest.name)
        if vm is None:
            # It is only to be.
            return guest
        domain = cluster.domain(vm)
        on = domain is not None and is_on(domain.power)
        if guest.name in busy or (guest.host and not on):
            return dataclasses.replace(guest, moves="pinned")
        return dataclasses.replace(guest, moves="live") if guest.moves == "cold" else guest

    return dataclasses.replace(fleet, guests=tuple(changed(guest) for guest in fleet.guests))


def words(moves: tuple[Move, ...]) -> str:
    """How room is made, as it would be typed."""
    told = ", ".join(f"vorch migrate {one.guest} {one.target}" for one in moves[:TOLD])
    more = f" and {len(moves) - TOLD} more" if len(moves) > TOLD else ""
    return f"it would have room after {told}{more}"
