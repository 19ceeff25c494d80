"""VMs of lost hosts, placed as one decision where one after the other leaves some without room.

The hosts are as full as the round has them; of what runs there only those are looked at that rules
bind to the VMs that wait. The most important ones come first: of the others as many as there is
room for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from vorch.availability import Availability, HaVm
from vorch.decide.choose import Board, Scene
from vorch.decide.room import packing
from vorch.decide.room.fleet import Fleet, Guest, Host, Policy
from vorch.decide.room.live import host_of, needs_of, rule_of
from vorch.decide.room.pick import Picker
from vorch.decide.room.table import Table
from vorch.model import Vm

# To run is worth more than to run fast: vCPUs keep nobody off.
_POLICY = Policy(cpu_ratio=1e9, spare="ignore")
# How often somebody is given up so that the rest finds room.
_TRIES = 64


def recovered(scene: Scene, board: Board, ha: Availability, vms: Sequence[Vm]) -> dict[str, str]:
    """A host for as many of these VMs as can be, by name. They are on none yet."""
    table = Table(_fleet(scene, board, ha, vms))
    rows = [table.guest(vm.name) for vm in vms]
    spread = Picker(table).batch(rows).hosts
    if len(spread) == len(rows):
        return spread
    for row in rows:
        table.move(row, -1)
    packed = _packed(table, rows)
    return spread if _missed(ha, vms, spread) <= _missed(ha, vms, packed) else packed


def better(
    ha: Availability, vms: Sequence[Vm], hosts: Mapping[str, str], than: Mapping[str, str]
) -> bool:
    """Whether fewer are left out, the most important ones first."""
    return _missed(ha, vms, hosts) < _missed(ha, vms, than)


def _missed(ha: Availability, vms: Sequence[Vm], hosts: Mapping[str, str]) -> list[int]:
    """How many of each place in the start order have no host."""
    orders = sorted({_order(ha.vms, vm.name) for vm in vms})
    return [
        sum(vm.name not in hosts for vm in vms if _order(ha.vms, vm.name) == order)
        for order in orders
    ]


def _order(settings: Mapping[str, HaVm], name: str) -> int:
    return settings[name].start_order if name in settings else 0


def _packed(table: Table, rows: Sequence[int]) -> dict[str, str]:
    """Tightly; whoever matters the least gives way until the rest fits."""
    asked, found = list(rows), packing.Packed()
    for _ in range(_TRIES):
        found = packing.pack(packing.task(table, asked))
        if not found.left:
            break
        left = set(found.left)
        asked.remove(
            min(
                asked,
                key=lambda row: (
                    table.guests[row].priority,
                    row not in left,
                    -int(table.memory[row]),
                    row,
                ),
            )
        )
    names, hosts = table.guest_names, table.host_names
    return {names[row]: hosts[host] for row, host in found.hosts.items()}


def _fleet(scene: Scene, board: Board, ha: Availability, vms: Sequence[Vm]) -> Fleet:
    waiting = {vm.name for vm in vms}
    guests = [_waits(scene, ha, vm) for vm in vms]
    rules = [
        rule
        for _, rule in sorted(ha.rules.items())
        if rule.kind != "nodes" and waiting & set(rule.vms)
    ]
    beside = {name for rule in rules for name in rule.vms} - waiting
    guests += [
        Guest(name=name, memory_mib=0, vcpus=0, host=host, ha=False)
        for name in sorted(beside)
        if (host := _where(scene, board, name)) is not None
    ]
    known = {guest.name for guest in guests}
    found = (rule_of(rule, scene.placement, known) for rule in rules)
    return Fleet(
        hosts=tuple(_host(scene, board, name) for name in scene.cluster.nodes),
        guests=tuple(guests),
        rules=tuple(rule for rule in found if rule is not None),
        policy=_POLICY,
    )


def _waits(scene: Scene, ha: Availability, vm: Vm) -> Guest:
    return Guest(
        name=vm.name,
        memory_mib=vm.memory_max_mib,
        vcpus=vm.vcpus,
        overhead_mib=scene.overhead_mib,
        priority=-_order(ha.vms, vm.name),
        needs=needs_of(scene.cluster, scene.placement, vm),
    )


def _where(scene: Scene, board: Board, name: str) -> str | None:
    """Of one that moves, where it goes to."""
    hosts = board.where.get(name, set())
    target = scene.moving.get(name)
    if target in hosts:
        return target
    return min(hosts, default=None)


def _host(scene: Scene, board: Board, name: str) -> Host:
    node = dataclasses.replace(scene.cluster.nodes[name], cpu_ratio=None)
    return host_of(
        scene.cluster,
        node,
        other_memory_mib=board.memory_mib.get(name, 0),
        other_vcpus=board.vcpus.get(name, 0),
        closed="" if name in scene.open else "it takes no VMs now",
    )
