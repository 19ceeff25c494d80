"""A look at the living cluster as a fleet: what decisions about room start from. Pure.

Guests are VMs that run, and those that are to run because they are looked after. They count with
the most memory that they may come to have. What runs on a host and is none of them is only counted.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterable, Mapping
from typing import Literal

from vorch.availability import (
    Availability,
    HaPolicy,
    NodeState,
    Requested,
    VmState,
)
from vorch.availability import (
    Rule as Asked,
)
from vorch.decide.abilities import no_live
from vorch.decide.records import is_on
from vorch.decide.room.fleet import (
    HOST,
    Apart,
    Cell,
    Fleet,
    Guest,
    Host,
    Needs,
    Pages,
    Policy,
    Rule,
    Spread,
    Together,
)
from vorch.decide.rules import Placement, resolve
from vorch.model import Cluster, Domain, Firmware, HostFacts, Node, Vm
from vorch.xen_guests import lacks, loader, without_loaders

# vCPUs per processor at most, on hosts that say nothing else: few guests are busy all the time.
CPU_RATIO = 16.0
# How a living cluster is judged where nobody has said more.
POLICY = Policy(cpu_ratio=CPU_RATIO)
# Left alone until a person looks at it, so that no room is kept for it.
_GIVEN_UP = (VmState.ERROR, VmState.IGNORED)


def judged(asked: HaPolicy, policy: Policy = POLICY) -> Policy:
    """With what a person wants to be kept spare."""
    return dataclasses.replace(
        policy,
        spare=asked.spare,
        spare_hosts=asked.spare_hosts,
        spare_over=asked.spare_over,
    )


def fleet_of(
    cluster: Cluster,
    availability: Availability | None = None,
    *,
    overhead_mib: int,
    loads: Mapping[str, float] | None = None,
    writes: Mapping[str, float] | None = None,
    policy: Policy = POLICY,
    more: Iterable[Vm] = (),
    off: bool = False,
) -> Fleet:
    """Hosts, guests and rules as they were seen.

    `loads`: cores in use, by the name of the VM; `writes`: MiB/s that it writes to its memory.
    `more`: VMs that are to be placed; those that are known are taken as if they were nowhere yet,
    and as to be looked after if that is set. `off`: what is off counts where it belongs, as if it
    were on.
    """
    look = _Look(cluster, availability or Availability(), overhead_mib, policy)
    look.loads, look.writes, look.off = loads or {}, writes or {}, off
    return look.fleet({vm.name: vm for vm in more})


class _Look:
    def __init__(
        self,
        cluster: Cluster,
        ha: Availability,
        overhead_mib: int,
        policy: Policy,
    ) -> None:
        self.loads: Mapping[str, float] = {}
        self.writes: Mapping[str, float] = {}
        self.off = False
        self.cluster = cluster
        self.ha = ha
        self.overhead_mib = overhead_mib
        self.policy = policy
        self.placement = (
            resolve(ha.vms, ha.rules, cluster.nodes) if ha.rules or ha.vms else Placement()
        )
        # Equal needs are one value, which is what makes them quick to compare.
        self._needs: dict[Needs, Needs] = {}
        # The same by what they are made of, which most VMs have in common.
        self._made_of: dict[tuple[object, ...], Needs] = {}
        self._by_node: dict[str, list[Domain]] | None = None

    def fleet(self, more: Mapping[str, Vm]) -> Fleet:
        guests = {
            name: guest
            for name, vm in self.cluster.vms.items()
            if name not in more and (guest := self._guest(vm)) is not None
        }
        guests |= {name: self._newcomer(vm) for name, vm in more.items()}
        rules = (rule_of(rule, self.placement, guests) for _, rule in sorted(self.ha.rules.items()))
        return Fleet(
            hosts=tuple(self._host(node, guests) for node in self.cluster.nodes.values()),
            guests=tuple(guests.values()),
            rules=tuple(rule for rule in rules if rule is not None),
            policy=self.policy,
        )

    # -- hosts

    def _host(self, node: Node, guests: Mapping[str, Guest]) -> Host:
        others = self._others(node.name, guests)
        other_memory = sum(domain.memory_mib + self.overhead_mib for domain in others)
        other_vcpus = sum(domain.vcpus for domain in others)
        arriving = [
            guest
            for name, target in self.ha.busy.items()
            if target == node.name
            and (guest := guests.get(name)) is not None
            and guest.host not in ("", node.name)
        ]
        other_memory += sum(guest.takes_mib for guest in arriving)
        other_vcpus += sum(guest.vcpus for guest in arriving)
        here = [
            guest
            for guest in (guests.values() if node.facts is None else ())
            if guest.host == node.name
        ]
        return host_of(
            self.cluster,
            node,
            other_memory_mib=other_memory,
            other_vcpus=other_vcpus,
            other_load=other_vcpus * self.policy.load_per_vcpu,
            closed=self.closed(node),
            at_least_mib=sum(guest.takes_mib for guest in here),
            at_least_cpus=math.ceil(
                (other_vcpus + sum(guest.vcpus for guest in here))
                / (node.cpu_ratio or self.policy.cpu_ratio)
            ),
        )

    def closed(self, node: Node) -> str:
        """Why nothing goes there now; "" when it may."""
        if node.name in self.cluster.silent:
            return f"it does not answer: {self.cluster.silent[node.name]}"
        order = self.ha.orders.get(node.name)
        if order is not None and order.maintenance:
            return f"it is in maintenance; `vorch node maintenance {node.name} --off` ends that"
        if order is not None and order.leaving:
            return "it is about to go down"
        if node.cordoned:
            return "it is cordoned; lift that with `vorch node uncordon`"
        record = self.ha.node_records.get(node.name)
        if record is not None and record.state is not NodeState.ONLINE:
            return f"high availability says that it is {record.state.value}"
        return ""

    def _others(self, node: str, guests: Mapping[str, Guest]) -> list[Domain]:
        """What runs there and is no guest, or a guest that is counted on another host."""
        if self._by_node is None:
            self._by_node = {}
            names = {vm.id: name for name, vm in self.cluster.vms.items()}
            for domain in self.cluster.domains.values():
                name = names.get(domain.id)
                counted = (
                    name is not None and name in guests and guests[name].host in ("", domain.node)
                )
                if is_on(domain.power) and not counted:
                    self._by_node.setdefault(domain.node, []).append(domain)
        return self._by_node.get(node, [])

    # -- guests

    def _guest(self, vm: Vm) -> Guest | None:
        """None: it is off, and is to be so."""
        domain = self.cluster.domain(vm)
        if domain is not None and not is_on(domain.power):
            domain = None
        settings, record = self.ha.vms.get(vm.name), self.ha.vm_records.get(vm.name)
        given_up = record is not None and record.state in _GIVEN_UP
        kept = settings is not None and settings.requested is Requested.STARTED and not given_up
        unseen = vm.node in self.cluster.silent and vm.wanted == "running"
        if domain is None and not (kept or unseen or self.off):
            return None
        waits = domain is None and record is not None and record.state is VmState.AWAITING_ROOM
        host = domain.node if domain is not None else "" if waits else vm.node
        return self._made(
            vm,
            domain,
            host=host if host in self.cluster.nodes else "",
            ha=kept,
            moves=self._moves(vm, domain),
        )

    def _newcomer(self, vm: Vm) -> Guest:
        settings = self.ha.vms.get(vm.name)
        kept = settings is not None and settings.counts
        return self._made(vm, self.cluster.domain(vm), host="", ha=kept, moves="live")

    def _made(
        self,
        vm: Vm,
        domain: Domain | None,
        *,
        host: str,
        ha: bool,
        moves: Literal["live", "cold", "pinned"],
    ) -> Guest:
        settings = self.ha.vms.get(vm.name)
        return Guest(
            name=vm.name,
            memory_mib=max(vm.memory_max_mib, domain.memory_mib if domain is not None else 0),
            vcpus=max(vm.vcpus, domain.vcpus if domain is not None else 0),
            overhead_mib=self.overhead_mib,
            cpu_load=self.loads.get(vm.name),
            dirty_mib_s=self.writes.get(vm.name),
            host=host,
            cell=vm.numa_cell if host == vm.node else None,
            ha=ha,
            priority=-settings.start_order if settings is not None else 0,
            moves=moves,
            needs=self.needs(vm, domain),
        )

    def _moves(self, vm: Vm, domain: Domain | None) -> Literal["live", "cold", "pinned"]:
        volumes = [disk.volume for disk in vm.disks if disk.volume is not None]
        if vm.direct_boot is not None:
            volumes.append(vm.direct_boot.kernel)
        for volume in volumes:
            pool = self.cluster.pools.get(volume.pool)
            if pool is None or not pool.shared:
                return "pinned"
        if vm.node in self.cluster.silent or vm.name in self.ha.busy:
            return "pinned"
        if domain is None:
            # Its UEFI variables and its TPM's memory are kept on its host.
            return "pinned" if vm.firmware is Firmware.UEFI or vm.tpm else "cold"
        settings = self.ha.vms.get(vm.name)
        node = self.cluster.nodes.get(vm.node)
        # What would stand still on its way goes when its host is emptied, not for evenness.
        if node is not None and no_live(node.facts, vm):
            return "cold"
        return "live" if settings is None else settings.moves

    def needs(self, vm: Vm, domain: Domain | None) -> Needs:
        """As `needs_of` has them. In one look they follow from what `made_of` names."""
        if domain is not None and not is_on(domain.power):
            domain = None
        made_of = None
        if vm.name not in self.placement.hosts:
            made_of = (
                domain.node if domain is not None else "",
                vm.cpu,
                vm.machine,
                vm.hypervisor,
                vm.xen_kind,
                loader(vm),
                _not_on_xen(vm),
                vm.firmware,
                vm.secure_boot,
                vm.tpm,
                vm.require_tags,
                vm.one_numa_cell,
                vm.pages_kib,
                *(disk.volume.pool for disk in vm.disks if disk.volume is not None),
                None,
                *(nic.network for nic in vm.nics),
            )
            known = self._made_of.get(made_of)
            if known is not None:
                return known
        found = needs_of(self.cluster, self.placement, vm, domain)
        found = self._needs.setdefault(found, found)
        if made_of is not None:
            self._made_of[made_of] = found
        return found


def host_of(
    cluster: Cluster,
    node: Node,
    *,
    other_memory_mib: int,
    other_vcpus: int,
    other_load: float = 0.0,
    closed: str = "",
    at_least_mib: int = 0,
    at_least_cpus: int = 1,
) -> Host:
    """A host with what runs there and is no guest.

    One that nobody has asked what it is is as large as what is on it (`at_least_…` for its guests),
    and nothing goes there.
    """
    facts = node.facts
    far = {pool.name for pool in cluster.pools.values() if pool.node not in ("", node.name)}
    reach = frozenset(cluster.pools) - far if far else None
    if facts is None:
        return Host(
            name=node.name,
            cpus=max(1, at_least_cpus),
            memory_mib=max(1, at_least_mib + other_memory_mib + node.reserve_mib),
            reserve_mib=node.reserve_mib,
            cpu_ratio=node.cpu_ratio,
            tags=frozenset(node.all_tags),
            pools=reach,
            other_memory_mib=other_memory_mib,
            other_vcpus=other_vcpus,
            other_load=other_load,
            closed=closed
            or f"nobody knows yet how large it is; `vorch node show {node.name}` finds it out",
        )
    return Host(
        name=node.name,
        cpus=max(facts.cpus, 1),
        memory_mib=max(facts.memory_mib, 1),
        reserve_mib=node.reserve_mib,
        cpu_ratio=node.cpu_ratio,
        tags=frozenset(node.all_tags),
        hypervisor=facts.runs,
        architecture=facts.architecture,
        accelerator=facts.accelerator,
        cpu_models=frozenset(facts.cpu_models),
        machines=frozenset(facts.machines),
        xen_kinds=frozenset(facts.xen_kinds),
        no_loaders=without_loaders(facts),
        uefi=facts.uefi,
        secure_boot=facts.secure_boot,
        tpm=facts.tpm,
        pools=reach,
        lacks=cluster.lacks.get(node.name, {}),
        cells=cells_of(facts),
        other_memory_mib=other_memory_mib,
        other_vcpus=other_vcpus,
        other_load=other_load,
        closed=closed,
    )


def rule_of(rule: Asked, placement: Placement, guests: Collection[str]) -> Rule | None:
    """None: it is not in force, or about too few of those that are there."""
    names = tuple(name for name in rule.vms if name in guests)
    if rule.name in placement.dropped or rule.kind == "nodes" or len(names) < 2:
        return None
    over = rule.over or HOST
    if rule.kind == "spread":
        return Spread(
            name=rule.name,
            guests=names,
            over=over,
            max_skew=rule.max_skew,
            hard=rule.strict,
            weight=rule.weight,
        )
    kind = Together if rule.kind == "together" else Apart
    return kind(name=rule.name, guests=names, over=over, hard=rule.strict, weight=rule.weight)


def cells_of(facts: HostFacts) -> tuple[Cell, ...]:
    """As a fleet has them, which does without the model: questions to files load faster so."""
    return tuple(
        Cell(
            number=cell.number,
            cpus=cell.cpus,
            memory_mib=cell.memory_mib,
            pages=tuple(
                Pages(size_kib=one.size_kib, memory_mib=one.memory_mib) for one in cell.pages
            ),
        )
        for cell in facts.cells
    )


def needs_of(cluster: Cluster, placement: Placement, vm: Vm, domain: Domain | None = None) -> Needs:
    """What a VM asks of its host. One that runs can go only to a host that is like its own."""
    source = (
        cluster.nodes[domain.node].facts
        if domain is not None and (domain.node in cluster.nodes)
        else None
    )
    barred: dict[str, str] = {}
    if source is not None and vm.cpu == "host":
        for name, node in cluster.nodes.items():
            if node.facts is not None and node.facts.cpu_model != source.cpu_model:
                barred.setdefault(
                    name,
                    f"the VM has the CPU of its host, {source.cpu_model}, and there it is"
                    f" {node.facts.cpu_model}",
                )
    hosts: tuple[str, ...] | None = None
    preferred: tuple[tuple[str, int], ...] = ()
    if vm.name in placement.hosts:
        own = placement.hosts[vm.name]
        hosts = tuple(sorted(own.priority)) if own.strict else None
        preferred = tuple(sorted(own.priority.items()))
    volumes = [disk.volume for disk in vm.disks if disk.volume is not None]
    return Needs(
        hypervisor=(
            source.runs if source is not None else "" if vm.hypervisor == "any" else vm.hypervisor
        ),
        architecture=source.architecture if source is not None else "",
        accelerator=source.accelerator if source is not None else "",
        cpu_model=vm.cpu if vm.cpu not in ("default", "host") else "",
        machine=vm.machine,
        xen_kind=vm.xen_kind,
        xen_loader=loader(vm),
        not_on_xen=_not_on_xen(vm),
        uefi=vm.firmware is Firmware.UEFI,
        secure_boot=vm.secure_boot,
        tpm=vm.tpm,
        pools=tuple(sorted({volume.pool for volume in volumes if volume.pool in cluster.pools})),
        networks=tuple(sorted({nic.network for nic in vm.nics})),
        tags=tuple(sorted(vm.require_tags)),
        hosts=hosts,
        barred=tuple(sorted(barred.items())),
        preferred=preferred,
        one_cell=vm.one_numa_cell,
        pages_kib=vm.pages_kib,
    )


def _not_on_xen(vm: Vm) -> str:
    """Not asked of VMs that are for KVM alone, which most are."""
    return "" if vm.hypervisor == "kvm" else lacks(vm)
