"""The small parts that decisions have in common: saving documents, refusing unknown power."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from vorch.codec import decode, encode
from vorch.decide.fresh import Fresh
from vorch.errors import Conflict, Invalid, Unreachable
from vorch.model import (
    Cluster,
    DiskBus,
    Domain,
    Network,
    Power,
    Trashed,
    Vm,
    Volume,
    check_name,
    check_vm_name,
)
from vorch.plan import EnsureNetwork, Plan, Save, Step

T = TypeVar("T")
# Named once: each look at a cluster compares with these for every VM.
_ON = (Power.RUNNING, Power.PAUSED, Power.STOPPING)


def save_vm(before: Vm | None, after: Vm | None, fill: dict[str, str] | None = None) -> Save:
    one = after or before
    assert one is not None
    return save("vm", one.name, before, after, fill)


def save(kind: str, name: str, before: Any, after: Any, fill: dict[str, str] | None = None) -> Save:
    return Save(
        key=f"{kind}/{name}",
        before=None if before is None else encode(before),
        after=None if after is None else encode(after),
        fill=fill or {},
    )


def written(plan: Plan, kind: str, made: type[T]) -> dict[str, T | None]:
    """What a plan writes of one kind, by name, as it will be; None: it is gone then."""
    return {
        step.key.partition("/")[2]: None if step.after is None else decode(made, step.after)
        for step in plan.steps
        if isinstance(step, Save) and step.key.startswith(f"{kind}/")
    }


def save_trashed(
    key: str,
    name: str,
    volumes: tuple[Volume, ...],
    fresh: Fresh,
    keep_s: float,
    *,
    vm: Vm | None,
) -> Save:
    """What can be had back for a while: a whole VM, or (None) volumes alone."""
    trashed = Trashed(
        key=key,
        name=name,
        volumes=volumes,
        vm=vm,
        deleted_at=fresh.now,
        purge_at=fresh.now + keep_s,
    )
    return save("trash", key, None, trashed)


def reads(cluster: Cluster, *keys: str) -> dict[str, int]:
    """The versions of documents that a decision rests on; 0 for one that must not be there."""
    return reads_of(cluster.versions, *keys)


def reads_of(versions: Mapping[str, int], *keys: str) -> dict[str, int]:
    return {key: versions.get(key, 0) for key in keys}


def new_vm_name(cluster: Cluster, name: str, verb: str) -> str:
    check_vm_name(name)
    if name in cluster.vms:
        raise Conflict(
            f"cannot {verb} VM {name!r}: there is one of that name; choose another name, or delete"
            " that one first",
            vm=name,
        )
    return name


def new_name(kind: str, existing: object, name: str) -> str:
    check_name(name, f"{kind} name")
    if isinstance(existing, dict) and name in existing:
        raise Conflict(
            f"cannot make {kind} {name!r}: there is one of that name; choose another name, or"
            " delete that one first",
            **{kind: name},
        )
    return name


def known_power(cluster: Cluster, vm: Vm, verb: str) -> Power:
    """What the VM does now; refused when its host does not say."""
    power = cluster.power(vm)
    if power is Power.UNKNOWN:
        raise Unreachable(
            f"cannot {verb} VM {vm.name!r}: its host {vm.node!r} does not answer:"
            f" {cluster.silent.get(vm.node, 'no reason given')}; see `vorch doctor`",
            vm=vm.name,
            node=vm.node,
        )
    return power


def is_on(power: Power) -> bool:
    return power in _ON


def failed_disks(domain: Domain, node: str) -> bool:
    """It is there, and its guest was stopped by an error of a disk.

    Cut off once, it never gets its disks back.
    """
    stopped = domain.node == node and domain.power is Power.PAUSED
    return stopped and "error" in domain.reason.lower()


def need_stopped(cluster: Cluster, vm: Vm, verb: str, why: str) -> None:
    if is_on(known_power(cluster, vm, verb)):
        raise Conflict(
            f"cannot {verb} VM {vm.name!r}: it is {cluster.power(vm).value}, and {why}; stop it"
            f" first (vorch stop {vm.name})",
            vm=vm.name,
        )


def need_running(cluster: Cluster, vm: Vm, verb: str) -> None:
    power = known_power(cluster, vm, verb)
    if power is not Power.RUNNING:
        raise Conflict(
            f"cannot {verb} VM {vm.name!r}: it is {power.value}; it must be running", vm=vm.name
        )


def networks_of(cluster: Cluster, vm: Vm) -> tuple[Network, ...]:
    """The networks that its NICs are on, each once."""
    return tuple(cluster.network(name) for name in dict.fromkeys(nic.network for nic in vm.nics))


def ensure_networks(cluster: Cluster, vm: Vm) -> list[Step]:
    return [
        EnsureNetwork(node=vm.node, network=network, hosts=hosts_of(cluster, network))
        for network in networks_of(cluster, vm)
        if network.kind != "bridge" or network.vlan is not None
    ]


def hosts_of(cluster: Cluster, network: Network) -> dict[str, str]:
    """Where the hosts of an overlay are; other networks do not lead from host to host."""
    if network.kind != "overlay":
        return {}
    return {node.name: node.address for node in cluster.nodes.values()}


def networks_for(cluster: Cluster, vm: Vm) -> tuple[Network, ...]:
    """The networks of a VM as it alone needs them: with the ports that are forwarded to it."""
    macs = [nic.mac for nic in vm.nics]
    return tuple(
        dataclasses.replace(
            network, forwards=tuple(one for one in network.forwards if one.mac in macs)
        )
        for network in networks_of(cluster, vm)
    )


def cd_bus(machine: str) -> DiskBus:
    """What a CD drive hangs on: not every machine has SATA, and virtio has no CDs."""
    return DiskBus.IDE if machine.startswith(("pc", "i440fx")) else DiskBus.SATA


def next_target(vm_targets: list[str], prefix: str) -> str:
    """The first free device name: vda, vdb, … vdz, vdaa …"""
    letters = list("abcdefghijklmnopqrstuvwxyz")
    for tail in [*letters, *(first + second for first in letters for second in letters)]:
        if prefix + tail not in vm_targets:
            return prefix + tail
    raise Invalid(f"cannot add a disk: all device names of the kind {prefix}… are in use")
