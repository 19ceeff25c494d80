"""Which host a VM goes to. Pure: a look at the cluster in, a node and the reason out.

The door to `room`: what one host has against one VM is said here. Where many hosts are to be put in
order, or room is kept for VMs whose host may die, the engine is asked. It is loaded then only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from vorch import xen_guests
from vorch.availability import Availability, Requested
from vorch.decide.room import cells
from vorch.decide.room.fleet import Guest, Host, Needs
from vorch.decide.room.live import CPU_RATIO, cells_of
from vorch.errors import Conflict, NoRoom, Unsupported
from vorch.model import Cluster, Domain, Firmware, HostFacts, Node, NumaCell, Power, Vm

SPARE_HINT = "--force overrules that (vorch ha policy --spare)"


@dataclass(frozen=True, slots=True)
class Choice:
    node: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeping:
    """What a person's placements keep: room for the VMs that are looked after."""

    ha: Availability
    # A person says: all the same.
    force: bool = False

    def concerns(self, cluster: Cluster) -> bool:
        """There is something to keep. Else the engine is not even loaded for it."""
        return (
            self.ha.policy.spare != "ignore"
            and len(cluster.nodes) > 1
            and any(one.requested is Requested.STARTED for one in self.ha.vms.values())
        )


NOTHING_KEPT = Keeping(ha=Availability())


@dataclass(slots=True)
class Use:
    """What runs on a host now, guests of others included."""

    memory_mib: int = 0
    vcpus: int = 0
    domains: list[Domain] = dataclasses.field(default_factory=list)


def in_use(cluster: Cluster, overhead_mib: int) -> dict[str, Use]:
    """By host. Memory in huge pages is not counted: that is set aside already."""
    paged = {vm.id for vm in cluster.vms.values() if vm.huge_pages}
    found: dict[str, Use] = {}
    for domain in cluster.domains.values():
        if domain.power in (Power.STOPPED, Power.CRASHED):
            continue
        use = found.setdefault(domain.node, Use())
        use.memory_mib += overhead_mib + (0 if domain.id in paged else domain.memory_mib)
        use.vcpus += domain.vcpus
        use.domains.append(domain)
    return found


def memory_used_mib(cluster: Cluster, node: str, overhead_mib: int) -> int:
    """What runs on the node now, guests of others included, and what is set aside for pages."""
    facts = cluster.nodes[node].facts if node in cluster.nodes else None
    return in_use(cluster, overhead_mib).get(node, Use()).memory_mib + pages_mib(facts)


def pages_mib(facts: HostFacts | None) -> int:
    """Memory that only VMs on huge pages can use."""
    if facts is None:
        return 0
    return sum(pages.memory_mib for cell in facts.cells for pages in cell.pages)


# ---------------------------------------------------------------------------------------------
# One host, one VM


def refusal(
    cluster: Cluster,
    node: Node,
    vm: Vm,
    overhead_mib: int,
    use: Mapping[str, Use] | None = None,
) -> str | None:
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
    untagged = without_tags(node, vm)
    if untagged is not None or node.facts is None:
        return untagged
    used = (in_use(cluster, overhead_mib) if use is None else use).get(node.name, Use())
    return (
        _short(node, node.facts, vm, used, overhead_mib)
        or lack(node.facts, vm)
        or (_celled(cluster, node, node.facts, vm, used))
    )


def _short(node: Node, facts: HostFacts, vm: Vm, used: Use, overhead_mib: int) -> str | None:
    free = facts.memory_mib - node.reserve_mib - pages_mib(facts) - used.memory_mib
    wanted = overhead_mib + (0 if vm.huge_pages else vm.memory_max_mib)
    if wanted > free:
        return (
            f"{wanted - max(free, 0)} MiB of memory are short ({wanted} wanted,"
            f" {max(free, 0)} free, {node.reserve_mib} kept for the host)"
        )
    ratio = node.cpu_ratio or CPU_RATIO
    left = max(facts.cpus * ratio - used.vcpus, 0.0)
    if vm.vcpus > left:
        return (
            f"{vm.vcpus - left:g} vCPUs are short ({vm.vcpus} wanted, {left:g} free at {ratio:g}"
            " per CPU)"
        )
    return None


def without_tags(node: Node, vm: Vm) -> str | None:
    missing = sorted(set(vm.require_tags) - set(node.all_tags))
    return f"it has no tag {missing[0]!r}, which the VM asks for" if missing else None


def _celled(cluster: Cluster, node: Node, facts: HostFacts, vm: Vm, used: Use) -> str | None:
    if not (vm.one_numa_cell or vm.huge_pages):
        return None
    known = {one.id: one for one in cluster.vms.values()}
    there = [known[one.id] for one in used.domains if one.id in known]
    return in_cells(node, facts, vm, there)


def put_into_cell(cluster: Cluster, vm: Vm) -> Vm:
    """The VM with the NUMA cell of its host that it starts in, if it asks for one.

    None where no cell is known to hold it: then it is not kept in any.
    """
    number = None
    node = cluster.nodes.get(vm.node)
    if vm.one_numa_cell and node is not None and node.facts is not None:
        known = {one.id: one for one in cluster.vms.values()}
        there = [
            known[one.id]
            for one in cluster.domains.values()
            if one.node == node.name and one.id in known and one.id != vm.id
        ]
        host = _host_of_cells(node, node.facts)
        ratio = node.cpu_ratio or CPU_RATIO
        number = cells.choose(host, ratio, map(_in_cells, there), _in_cells(vm))
    return vm if number == vm.numa_cell else dataclasses.replace(vm, numa_cell=number)


def cell_of(cluster: Cluster, vm: Vm) -> NumaCell | None:
    """What is known of the NUMA cell that it was put into."""
    node = cluster.nodes.get(vm.node)
    facts = node.facts if node is not None else None
    return None if facts is None else facts.cell(vm.numa_cell)


def in_cells(node: Node, facts: HostFacts, vm: Vm, there: Iterable[Vm]) -> str | None:
    """Why its NUMA cells or huge pages cannot take the VM beside those that are there."""
    host = _host_of_cells(node, facts)
    if vm.one_numa_cell and not host.cells:
        return "its NUMA cells are not known; `vorch node probe` asks for them"
    ratio = node.cpu_ratio or CPU_RATIO
    others = [_in_cells(one) for one in there if one.id != vm.id]
    return cells.refusal(host, ratio, others, _in_cells(vm))


def _host_of_cells(node: Node, facts: HostFacts) -> Host:
    return Host(
        name=node.name,
        cpus=max(facts.cpus, 1),
        memory_mib=max(facts.memory_mib, 1),
        cells=cells_of(facts),
    )


def _in_cells(vm: Vm) -> Guest:
    return Guest(
        name=vm.name,
        memory_mib=vm.memory_max_mib,
        vcpus=vm.vcpus,
        host=vm.node,
        cell=vm.numa_cell,
        needs=Needs(one_cell=vm.one_numa_cell, pages_kib=vm.pages_kib),
    )


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
    if vm.hypervisor not in ("any", facts.runs):
        return xen_guests.other_hypervisor(facts.runs, vm.hypervisor)
    if facts.runs == "xen":
        return _xen_lack(facts, vm)
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
    sizes = {pages.size_kib for cell in facts.cells for pages in cell.pages}
    if vm.huge_pages and vm.pages_kib not in sizes:
        return f"it has no huge pages of {vm.huge_pages}; set some aside there (hugepages=)"
    return None


def _xen_lack(facts: HostFacts, vm: Vm) -> str | None:
    """The same of a host with Xen. Machine types and CPU models are QEMU's."""
    if (why := xen_guests.lacks(vm)) != "":
        return why
    if facts.xen_kinds and vm.xen_kind not in facts.xen_kinds:
        return xen_guests.no_such_kind(vm.xen_kind)
    return facts.lacks.get(xen_guests.loader(vm))


# ---------------------------------------------------------------------------------------------
# All hosts


def place(
    cluster: Cluster,
    vm: Vm,
    *,
    overhead_mib: int,
    only: str | None = None,
    among: Iterable[str] | None = None,
    keeping: Keeping = NOTHING_KEPT,
) -> Choice:
    """The host that can run it and is the best for that; ties go by name.

    Those that rules and settings prefer come before that. Refused, or told, is what would take the
    room away that is kept for the loss of a host. `among`: of these hosts only.
    """
    names = list(cluster.nodes if among is None else among)
    if only is not None:
        names = [cluster.node(only).name]
    use = in_use(cluster, overhead_mib)
    refused: dict[str, str] = {}
    fit: list[str] = []
    for name in names:
        why_not = refusal(cluster, cluster.nodes[name], vm, overhead_mib, use)
        if why_not is not None:
            refused[name] = why_not
        else:
            fit.append(name)
    if not fit:
        raise _cannot(cluster, vm, refused)
    ordered, spoils = _ordered(cluster, vm, fit, use), dict[str, str]()
    if keeping.concerns(cluster):
        ordered, spoils = _kept(cluster, vm, fit, overhead_mib, keeping)
    if not ordered:
        raise _cannot(cluster, vm, {**refused, **spoils}, spoils)
    name = ordered[0]
    why = (
        f"{only!r} was asked for"
        if only is not None
        else _because(cluster, vm, name, fit, use, alone=len(names) == 1)
    )
    if name in spoils:
        why = f"{why}; {spoils[name]}"
    elif spoils:
        passed = ", ".join(sorted(spoils))
        why = f"{why}, and on {passed} it would take away the room for the loss of a host"
    return Choice(name, why)


def spoiled(
    cluster: Cluster, vm: Vm, node: str, overhead_mib: int, keeping: Keeping
) -> tuple[str, str]:
    """Why it must not be on that host for the sake of room that is kept; or what is to be said."""
    if not keeping.concerns(cluster):
        return "", ""
    ordered, spoils = _kept(cluster, vm, [node], overhead_mib, keeping)
    why = spoils.get(node, "")
    return ("", why) if ordered else (why, "")


def _kept(
    cluster: Cluster, vm: Vm, names: list[str], overhead_mib: int, keeping: Keeping
) -> tuple[list[str], dict[str, str]]:
    """Hosts that it may go to, the best first; and what is to be said of hosts for that."""
    from vorch.decide.room.asked import Asked

    asked = Asked(cluster, keeping.ha, vm, overhead_mib)
    ordered = asked.ordered(names, cluster.leaning.get(vm.name, {}))
    spoils = asked.spoils(ordered)
    kept = [name for name in ordered if name not in spoils]
    if kept or not spoils:
        return kept, spoils
    if keeping.force or keeping.ha.policy.spare == "warn":
        return ordered, {
            name: f"the room for the loss of a host is gone by that: {why}"
            for name, why in spoils.items()
        }
    return [], {name: f"{why}; {SPARE_HINT}" for name, why in spoils.items()}


def _free_mib(cluster: Cluster, name: str, use: Mapping[str, Use]) -> int:
    node = cluster.nodes[name]
    total = node.facts.memory_mib - pages_mib(node.facts) if node.facts else 0
    return total - node.reserve_mib - use.get(name, Use()).memory_mib


def _ordered(cluster: Cluster, vm: Vm, names: Iterable[str], use: Mapping[str, Use]) -> list[str]:
    """The most free memory first, among those that are alike by rules and settings."""
    leaning = cluster.leaning.get(vm.name, {})
    return sorted(
        names,
        key=lambda name: (leaning.get(name, 0), -_free_mib(cluster, name, use), name),
    )


def _because(
    cluster: Cluster,
    vm: Vm,
    name: str,
    fit: Iterable[str],
    use: Mapping[str, Use],
    *,
    alone: bool,
) -> str:
    if alone:
        return "it is the only host"
    reason = f"it has {_free_mib(cluster, name, use)} MiB free"
    leaning = cluster.leaning.get(vm.name, {})
    if len({leaning.get(one, 0) for one in fit}) > 1:
        reason += ", and is where it belongs by its rules"
    return reason


def home(cluster: Cluster, vm: Vm, only: str | None, *, overhead_mib: int = 0) -> Choice:
    """Where a VM that is not started yet belongs: what it asks for must exist there.

    Of several hosts the best one as if all that is off were on, so that not all wait on one host.
    """
    if not cluster.nodes:
        raise NoRoom(f"cannot place VM {vm.name!r}: the cluster has no host; run `vorch init`")
    names = [cluster.node(only).name] if only else sorted(cluster.nodes)
    reasons = {
        name: why
        for name in names
        if (why := _foreign(cluster, cluster.nodes[name], vm, named=bool(only))) is not None
    }
    fit = [name for name in names if name not in reasons]
    if len(fit) == 1:
        alone = "it is the only host" if len(cluster.nodes) == 1 else "it has what the VM needs"
        return Choice(fit[0], "it was asked for" if only and len(cluster.nodes) > 1 else alone)
    if fit:
        from vorch.decide.room.asked import waiting

        leaning = cluster.leaning.get(vm.name, {})
        name = waiting(cluster, vm, fit, leaning, overhead_mib)[0]
        return Choice(name, "it is the best of those that have what the VM needs")
    ruled_out = reasons.keys() & cluster.barred.get(vm.name, {}).keys()
    raise (Conflict if ruled_out else Unsupported)(
        f"cannot place VM {vm.name!r}: " + "; ".join(f"{n}: {w}" for n, w in reasons.items()),
        vm=vm.name,
        refused=reasons,
    )


def _foreign(cluster: Cluster, node: Node, vm: Vm, *, named: bool) -> str | None:
    """Why a VM that is off cannot belong there, however much room there will be."""
    why_not = (
        cluster.barred.get(vm.name, {}).get(node.name)
        or out_of_reach(cluster, node, vm)
        or without_network(cluster, node, vm)
    )
    if why_not is None and node.cordoned and not named:
        why_not = "it is cordoned; lift that with `vorch node uncordon`"
    if why_not is None:
        why_not = without_tags(node, vm)
    return lack(node.facts, vm) if why_not is None and node.facts else why_not


def is_short(why: str) -> bool:
    """Whether it is for want of room, which comes and goes."""
    return any(word in why for word in ("MiB", "vCPUs are short", "answer"))


def _cannot(
    cluster: Cluster, vm: Vm, refused: dict[str, str], spoils: Iterable[str] = ()
) -> Conflict | NoRoom | Unsupported:
    reasons = "; ".join(f"{name}: {why}" for name, why in sorted(refused.items()))
    if not spoils and refused.keys() & cluster.barred.get(vm.name, {}).keys():
        return Conflict(f"cannot place VM {vm.name!r}: {reasons}", vm=vm.name, refused=refused)
    short = bool(spoils) or not refused or any(is_short(why) for why in refused.values())
    kind = NoRoom if short else Unsupported
    return kind(
        f"cannot place VM {vm.name!r}: {reasons or 'the cluster has no host'}; stop or shrink"
        " something, or ask for less"
        if short
        else f"cannot place VM {vm.name!r}: {reasons}",
        vm=vm.name,
        refused=refused,
    )
