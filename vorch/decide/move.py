"""From one host to another: migrate (it runs on) and relocate (it is off). Pure.

All that can be refused is refused here, before anything is touched.
"""

from __future__ import annotations

import dataclasses

from vorch.decide.abilities import no_live
from vorch.decide.carry import Carried, carried
from vorch.decide.clients import left_behind, save_clients
from vorch.decide.fresh import Fresh
from vorch.decide.place import NOTHING_KEPT, Keeping, cell_of, home, place, put_into_cell
from vorch.decide.records import (
    ensure_networks,
    known_power,
    need_stopped,
    networks_of,
    reads,
    save_vm,
)
from vorch.errors import Conflict, NoRoom, Unreachable, Unsupported
from vorch.model import Cluster, Firmware, Node, Power, Vm
from vorch.plan import ForgetDomain, MigrateDomain, Plan, SeeClients


def migrate(
    cluster: Cluster,
    name: str,
    target: str | None,
    *,
    overhead_mib: int,
    pause_limit_ms: int,
    bandwidth_mib_s: int,
    away: bool = False,
    postcopy_after_s: float | None = None,
    pool: str | None = None,
    fresh: Fresh | None = None,
    keep_s: float = 0.0,
    keeping: Keeping = NOTHING_KEPT,
    still: bool = False,
) -> Plan:
    """Live, to the host that was named or to the one with the most free memory.

    `away`: for the time of a maintenance; where it belongs is remembered. `postcopy_after_s`: when
    it may go over though not all of its memory is there (None: never). `pool`: where disks go that
    the other host does not reach; the old ones can be had back for `keep_s`. `keeping`: room for
    the loss of a host, which no move may take away. `still`: it may stand still while its memory
    is sent; for a maintenance it always may, where it cannot go otherwise.
    """
    vm = cluster.vm(name)
    if target is not None and cluster.node(target).name == vm.node:
        return Plan(verb="migrate", subject=name, why=f"it is on {target} already")
    power = known_power(cluster, vm, "migrate")
    if power not in (Power.RUNNING, Power.PAUSED):
        raise Conflict(
            f"cannot migrate VM {name!r}: it is {power.value}; start it, or have it start elsewhere"
            f" (vorch relocate {name} NODE)",
            vm=name,
        )
    seen = cluster.domains[vm.id].node
    if seen != vm.node:
        return _found_elsewhere(cluster, vm, seen, target)
    if pool is None:
        _need_shared_disks(cluster, vm, "migrate", "only disks that every host reaches stay there")
    source = cluster.node(vm.node)
    named = [cluster.node(target)] if target is not None else list(cluster.nodes.values())
    others = [node for node in named if node.name != vm.node]
    if not others:
        raise NoRoom(
            f"cannot migrate VM {name!r}: the cluster has no host but {vm.node!r}; add one (vorch"
            " node add)",
            vm=name,
        )
    unlike = {node.name: why for node in others if (why := _unlike(source, node, vm)) is not None}
    fit = {node.name: node for node in others if node.name not in unlike}
    if not fit:
        raise Unsupported(
            f"cannot migrate VM {name!r}: "
            + "; ".join(f"{node}: {why}" for node, why in sorted(unlike.items())),
            vm=name,
            refused=unlike,
        )
    stands = no_live(source.facts, vm)
    if stands and power is Power.RUNNING and not (still or away):
        raise Unsupported(
            f"cannot migrate VM {name!r} while it goes on: {stands}; let it stand still while its"
            f" memory is sent (vorch migrate {name} --still), or stop it and have it start"
            f" elsewhere (vorch relocate {name} NODE)",
            vm=name,
            node=vm.node,
        )
    load = Carried(vm=vm)
    if pool is not None and fresh is not None:
        load = carried(cluster, vm, list(fit), pool, fresh, keep_s, target=target)
        if postcopy_after_s is not None:
            raise Unsupported(
                f"cannot migrate VM {name!r} with its disks by post-copy: their copies must be"
                " whole before it goes over; leave post-copy out (--no-postcopy)",
                vm=name,
            )
    choice = place(
        cluster,
        load.vm,
        overhead_mib=overhead_mib,
        only=target,
        among=list(fit),
        keeping=keeping,
    )
    moved = put_into_cell(cluster, moved_to(load.vm, choice.node, away))
    keys = (f"vm/{name}", *load.claims)
    return Plan(
        verb="migrate",
        subject=name,
        why=f"to {choice.node} because {choice.why}{_of_networks(cluster, vm)}{load.why}",
        steps=(
            *load.before,
            *ensure_networks(cluster, moved),
            MigrateDomain(
                vm=vm,
                target=choice.node,
                uri=fit[choice.node].peer_uri,
                pause_limit_ms=pause_limit_ms,
                bandwidth_mib_s=bandwidth_mib_s,
                paused=power is Power.PAUSED,
                live=not (still or stands),
                postcopy_after_s=postcopy_after_s,
                disks=load.vm.disks if load.before else (),
                left=left_behind(cluster, vm),
                bridges=_other_bridges(cluster, vm, choice.node),
                cell=cell_of(cluster, moved),
            ),
            save_vm(vm, moved),
            save_clients(cluster, moved),
            *load.after,
            *_left_behind(vm),
        ),
        claims=keys,
        reads=reads(
            cluster,
            *keys,
            f"clients/{vm.id}",
            f"node/{choice.node}",
            *((f"pool/{pool}",) if pool else ()),
            *dict.fromkeys(f"network/{nic.network}" for nic in vm.nics),
        ),
    )


def _left_behind(vm: Vm) -> tuple[ForgetDomain, ...]:
    """UEFI's variables and the TPM's memory went along; their old copies stay on the host."""
    kept = vm.firmware is Firmware.UEFI or vm.tpm
    return (ForgetDomain(vm=vm),) if kept else ()


def _found_elsewhere(cluster: Cluster, vm: Vm, seen: str, target: str | None) -> Plan:
    """Somebody moved it past vorch. Only where it is can be recorded."""
    if target not in (None, seen):
        raise Conflict(
            f"cannot migrate VM {vm.name!r}: it is recorded on {vm.node!r} and runs on {seen!r};"
            f" have that recorded first (vorch migrate {vm.name} {seen})",
            vm=vm.name,
            node=seen,
        )
    moved = dataclasses.replace(vm, node=seen, numa_cell=None)
    return Plan(
        verb="migrate",
        subject=vm.name,
        why=f"it runs on {seen} already, though not recorded so",
        steps=(SeeClients(vm=moved), save_vm(vm, moved), save_clients(cluster, moved)),
        claims=(f"vm/{vm.name}",),
        reads=reads(cluster, f"vm/{vm.name}", f"clients/{vm.id}", f"node/{seen}"),
    )


def _other_bridges(cluster: Cluster, vm: Vm, target: str) -> dict[str, str]:
    """The bridges of the target, by NIC. What it is plugged into now may be from an older day."""
    found = {nic.name: cluster.network(nic.network) for nic in vm.nics}
    return {
        name: network.bridge_on(target)
        for name, network in found.items()
        if network.kind == "bridge"
    }


def _of_networks(cluster: Cluster, vm: Vm) -> str:
    """Networks that are another one on each host, where connections do not go along."""
    apart = [
        network.name for network in networks_of(cluster, vm) if network.kind in ("nat", "isolated")
    ]
    if not apart:
        return ""
    return f"; each host has a network {' and '.join(map(repr, apart))} of its own"


def moved_to(vm: Vm, node: str, away: bool) -> Vm:
    """A person's own choice of a host is not taken back after a maintenance."""
    home = (vm.home or vm.node) if away else ""
    return dataclasses.replace(vm, node=node, home="" if home == node else home, numa_cell=None)


def relocate(cluster: Cluster, name: str, target: str, *, away: bool = False) -> Plan:
    """A VM that is off starts on another host from now on: only the record changes."""
    vm = cluster.vm(name)
    if cluster.node(target).name == vm.node:
        return Plan(verb="relocate", subject=name, why=f"it belongs to {target} already")
    need_free_to_move(cluster, name, target)
    choice = home(cluster, vm, target)
    return Plan(
        verb="relocate",
        subject=name,
        why=f"it is off, so it starts on {target} from now on",
        steps=(save_vm(vm, moved_to(vm, choice.node, away)),),
        claims=(f"vm/{name}",),
        reads=reads(cluster, f"vm/{name}", f"node/{target}"),
    )


def need_free_to_move(cluster: Cluster, name: str, target: str) -> Node:
    """The host that it may start on from now on: it is off, and nothing ties it to its own."""
    vm, node = cluster.vm(name), cluster.node(target)
    need_stopped(
        cluster, vm, "relocate", f"it moves while it runs by `vorch migrate {name} {target}`"
    )
    if target in cluster.silent:
        raise Unreachable(
            f"cannot relocate VM {name!r} to {target!r}: that host does not answer:"
            f" {cluster.silent[target]}; see `vorch doctor`",
            vm=name,
            node=target,
        )
    if vm.id in cluster.domains:
        raise Conflict(
            f"cannot relocate VM {name!r}: it is {cluster.power(vm).value} on {vm.node!r}, and what"
            f" is left of it there holds its disks; cut it (vorch stop --force {name})",
            vm=name,
        )
    _need_shared_disks(cluster, vm, "relocate", "another host does not reach it")
    kept = "UEFI's variables" if vm.firmware is Firmware.UEFI else "TPM's memory" if vm.tpm else ""
    if kept:
        raise Unsupported(
            f"cannot relocate VM {name!r}: its {kept} are kept on {vm.node!r} and would stay there;"
            " start it and migrate it, which takes them along",
            vm=name,
        )
    return node


def refuge(cluster: Cluster, name: str, *, overhead_mib: int) -> str:
    """The host that a VM that is off goes to when its own one is not to be used."""
    vm = cluster.vm(name)
    others = {
        node.name: node
        for node in cluster.nodes.values()
        if node.name != vm.node and node.name not in cluster.silent
    }
    left = dataclasses.replace(cluster, nodes=others)
    return home(left, vm, None, overhead_mib=overhead_mib).node


def _need_shared_disks(cluster: Cluster, vm: Vm, verb: str, why: str) -> None:
    for disk in vm.disks:
        if disk.volume is None or cluster.pool(disk.volume.pool).shared:
            continue
        cd = disk.device == "cdrom" and not disk.owned
        raise Unsupported(
            f"cannot {verb} VM {vm.name!r}: disk {disk.name!r} is in pool {disk.volume.pool!r},"
            f" which is on one host, and {why}; "
            + (
                f"eject it (vorch cd eject {vm.name})"
                if cd
                else "have it copied along (--pool)"
                if verb == "migrate"
                else "use a pool in Ceph"
            ),
            vm=vm.name,
            disk=disk.name,
            pool=disk.volume.pool,
        )
    if vm.direct_boot is not None and not cluster.pool(vm.direct_boot.kernel.pool).shared:
        raise Unsupported(
            f"cannot {verb} VM {vm.name!r}: its installer's kernel is in pool"
            f" {vm.direct_boot.kernel.pool!r}, which is on one host; wait until it is installed",
            vm=vm.name,
        )


def _unlike(source: Node, target: Node, vm: Vm) -> str | None:
    """Why a VM that runs on the one cannot go on on the other."""
    if target.local:
        return (
            f"its libvirt is known as {target.uri!r}, where no other host reaches it; add it by its"
            " address"
        )
    one, other = source.facts, target.facts
    if one is None or other is None:
        return None
    for what in ("hypervisor", "architecture", "accelerator"):
        here, there = getattr(one, what), getattr(other, what)
        if here and there and here != there:
            return f"its {what} is {there}, and the VM runs on {here}"
    if vm.cpu == "host" and one.cpu_model != other.cpu_model:
        return (
            f"the VM has the CPU of its host, {one.cpu_model}, and there it is {other.cpu_model};"
            " restart it with another CPU model"
        )
    return None
