"""Which host a VM goes to. Pure: a look at the cluster in, a node and the reason out."""

from __future__ import annotations

from dataclasses import dataclass

from vorch.errors import Conflict, NoRoom, Unsupported
from vorch.model import Cluster, Firmware, HostFacts, Node, Power, Vm


@dataclass(frozen=True, slots=True)
class Choice:
    node: str
    why: str


def memory_used_mib(cluster: Cluster, node: str, overhead_mib: int) -> int:
    """What runs on the node now, guests of others included."""
    return sum(
        domain.memory_mib + overhead_mib
        for domain in cluster.domains.values()
        if domain.node == node and domain.power not in (Power.STOPPED, Power.CRASHED)
    )


def refusal(cluster: Cluster, node: Node, vm: Vm, overhead_mib: int) -> str | None:
    """Why this node cannot run the VM; None when it can."""
    if node.name in cluster.silent:
        return f"it does not answer: {cluster.silent[node.name]}"
    if node.cordoned:
        return "it is cordoned; lift that with `vorch node uncordon`"
    ruled = cluster.barred.get(vm.name, {}).get(node.name)
    if ruled is not None:
        return ruled
    far = out_of_reach(cluster, node, vm)
    if far is not None:
        return far
    unconnected = without_network(cluster, node, vm)
    if unconnected is not None:
        return unconnected
    facts = node.facts
    if facts is None:
        return None
    free = facts.memory_mib - node.reserve_mib - memory_used_mib(cluster, node.name, overhead_mib)
    wanted = vm.memory_max_mib + overhead_mib
    if wanted > free:
        return (
            f"{wanted - max(free, 0)} MiB of memory are short ({wanted} wanted,"
            f" {max(free, 0)} free, {node.reserve_mib} kept for the host)"
        )
    return lack(facts, vm)


def out_of_reach(cluster: Cluster, node: Node, vm: Vm) -> str | None:
    """Which of the VM's volumes this host cannot open."""
    for disk in vm.disks:
        pool = cluster.pools.get(disk.volume.pool) if disk.volume is not None else None
        if pool is not None and pool.node not in ("", node.name):
            return f"disk {disk.name!r} is in pool {pool.name!r}, which only {pool.node!r} reaches"
    return None


def without_network(cluster: Cluster, node: Node, vm: Vm) -> str | None:
    """Why a network of the VM cannot be had on this host, where that was asked."""
    lacks = cluster.lacks.get(node.name, {})
    for nic in vm.nics:
        if nic.network in lacks:
            return (
                f"it cannot have network {nic.network!r} of NIC {nic.name!r}: "
                + (lacks[nic.network])
            )
    return None


def lack(facts: HostFacts, vm: Vm) -> str | None:
    """What the VM asks for and this kind of host has not got."""
    if vm.firmware is Firmware.UEFI and not facts.uefi:
        return "it has no UEFI firmware; install the package ovmf there"
    if vm.secure_boot and not facts.secure_boot:
        return "it has no UEFI firmware for secure boot; install the package ovmf there"
    if vm.tpm and not facts.tpm:
        return "it has no TPM emulator; install the package swtpm there"
    if facts.machines and vm.machine not in facts.machines:
        return f"its hypervisor knows no machine type {vm.machine!r}"
    named = vm.cpu not in ("default", "host")
    if named and facts.cpu_models and vm.cpu not in facts.cpu_models:
        return f"its hypervisor knows no CPU model {vm.cpu!r}"
    return None


def place(cluster: Cluster, vm: Vm, *, overhead_mib: int, only: str | None = None) -> Choice:
    """The node with the most free memory among those that can run it; ties go by name.

    Those that rules and settings prefer come before that.
    """
    if only is not None:
        node = cluster.node(only)
        why_not = refusal(cluster, node, vm, overhead_mib)
        if why_not is not None:
            raise _cannot(cluster, vm, {node.name: why_not})
        return Choice(only, f"{only!r} was asked for")
    refused: dict[str, str] = {}
    fit: list[tuple[int, int, str]] = []
    leaning = cluster.leaning.get(vm.name, {})
    for node in cluster.nodes.values():
        why_not = refusal(cluster, node, vm, overhead_mib)
        if why_not is not None:
            refused[node.name] = why_not
            continue
        total = node.facts.memory_mib if node.facts else 0
        free = total - node.reserve_mib - memory_used_mib(cluster, node.name, overhead_mib)
        fit.append((leaning.get(node.name, 0), -free, node.name))
    if not fit:
        raise _cannot(cluster, vm, refused)
    _, most, name = min(fit)
    reason = "it is the only host" if len(cluster.nodes) == 1 else f"it has {-most} MiB free"
    if len({rank for rank, _, _ in fit}) > 1:
        reason += ", and is where it belongs by its rules"
    return Choice(name, reason)


def home(cluster: Cluster, vm: Vm, only: str | None) -> Choice:
    """Where a VM that is not started yet belongs: what it asks for must exist there."""
    if not cluster.nodes:
        raise NoRoom(f"cannot place VM {vm.name!r}: the cluster has no host; run `vorch init`")
    leaning = cluster.leaning.get(vm.name, {})
    ordered = sorted(cluster.nodes, key=lambda name: (leaning.get(name, 0), name))
    names = [cluster.node(only).name] if only else ordered
    reasons = {}
    for name in names:
        node = cluster.nodes[name]
        ruled = cluster.barred.get(vm.name, {}).get(name)
        why_not = ruled or out_of_reach(cluster, node, vm) or without_network(cluster, node, vm)
        if why_not is None and node.cordoned and only is None:
            why_not = "it is cordoned; lift that with `vorch node uncordon`"
        if why_not is None and node.facts:
            why_not = lack(node.facts, vm)
        if why_not is None:
            only_one = "it was asked for" if only else "it has what the VM needs"
            return Choice(name, "it is the only host" if len(cluster.nodes) == 1 else only_one)
        reasons[name] = why_not
    ruled_out = reasons.keys() & cluster.barred.get(vm.name, {}).keys()
    raise (Conflict if ruled_out else Unsupported)(
        f"cannot place VM {vm.name!r}: " + "; ".join(f"{n}: {w}" for n, w in reasons.items()),
        vm=vm.name,
        refused=reasons,
    )


def _cannot(cluster: Cluster, vm: Vm, refused: dict[str, str]) -> Conflict | NoRoom | Unsupported:
    reasons = "; ".join(f"{name}: {why}" for name, why in sorted(refused.items()))
    if refused.keys() & cluster.barred.get(vm.name, {}).keys():
        return Conflict(f"cannot place VM {vm.name!r}: {reasons}", vm=vm.name, refused=refused)
    short = not refused or any("MiB" in why or "answer" in why for why in refused.values())
    kind = NoRoom if short else Unsupported
    return kind(
        f"cannot place VM {vm.name!r}: {reasons or 'the cluster has no host'}; stop or shrink"
        " something, or ask for less"
        if short
        else f"cannot place VM {vm.name!r}: {reasons}",
        vm=vm.name,
        refused=refused,
    )
