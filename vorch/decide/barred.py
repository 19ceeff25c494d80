"""Which hosts rules and settings keep a VM off, and which they prefer, when a person moves it.

The rules that the loop of high availability obeys (`rules.resolve`), put into a `Cluster`, where
`place` finds them. Pure.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from vorch.availability import Availability, Requested, Rule
from vorch.decide import racks
from vorch.decide.place import refusal
from vorch.decide.records import is_on
from vorch.decide.rules import Placement, resolve
from vorch.model import Cluster, Vm

OVERRULE = "--force overrules that"


def ruled(
    cluster: Cluster,
    ha: Availability,
    name: str,
    *,
    overhead_mib: int = 0,
    leaving: str = "",
    force: bool = False,
) -> Cluster:
    """The cluster with what holds for this VM.

    `leaving`: the host that is being emptied, where nobody has to be followed. `force`: nothing
    bars, and what is preferred is preferred all the same.
    """
    vm = cluster.vms.get(name)
    if vm is None or not (ha.rules or name in ha.vms):
        return cluster
    placement = resolve(ha.vms, ha.rules, cluster.nodes)
    leaning = _leaning(cluster, placement, vm, leaving)
    barred: dict[str, str] = {}
    if not force:
        off = _off_racks(cluster, placement, vm, leaving)
        for node in cluster.nodes:
            why = _why_not(cluster, ha, placement, vm, node, leaving) or off.get(node)
            if why is not None:
                barred[node] = f"{why}; {OVERRULE}"
        barred |= _falls_back(cluster, ha, placement, vm, barred, overhead_mib)
    return dataclasses.replace(
        cluster,
        barred={**cluster.barred, name: barred},
        leaning={**cluster.leaning, name: leaning},
    )


def _why_not(
    cluster: Cluster, ha: Availability, placement: Placement, vm: Vm, node: str, leaving: str
) -> str | None:
    hosts = placement.hosts.get(vm.name)
    if hosts is not None and hosts.strict and node not in hosts.priority:
        return f"{_whose(ha, placement, vm.name)} does not name it"
    for rival in sorted(placement.rivals.get(vm.name, ())):
        if node in _where(cluster, rival):
            rule = _between(ha, placement, vm.name, rival, "apart")
            return f"{rule} keeps it apart from {rival!r}, which is there"
    mates = {
        mate: where
        for mate in sorted(placement.mates.get(vm.name, ()))
        if (where := _where(cluster, mate) - {leaving})
    }
    if mates and not any(node in where for where in mates.values()):
        mate, where = next(iter(mates.items()))
        rule = _between(ha, placement, vm.name, mate, "together")
        return f"{rule} keeps it together with {mate!r}, which is on {', '.join(sorted(where))}"
    return None


def _off_racks(cluster: Cluster, placement: Placement, vm: Vm, leaving: str) -> dict[str, str]:
    """What strict rules over racks and other domains say."""
    found: dict[str, str] = {}
    for rule in placement.over.get(vm.name, ()):
        if rule.strict:
            found |= racks.barred(
                rule,
                vm.name,
                cluster.nodes,
                lambda other: _where(cluster, other) - {leaving},
                _taking(cluster, leaving),
            )
    return found


def _taking(cluster: Cluster, leaving: str) -> list[str]:
    """Hosts that take VMs, as far as the cluster tells."""
    return [
        name
        for name, node in cluster.nodes.items()
        if not node.cordoned and name not in cluster.silent and name != leaving
    ]


def _where(cluster: Cluster, name: str) -> set[str]:
    """Where a VM is, or may be at any moment."""
    vm = cluster.vms.get(name)
    if vm is None:
        return set()
    domain = cluster.domain(vm)
    if domain is not None and is_on(domain.power):
        return {domain.node}
    return {vm.node} if vm.wanted == "running" else set()


def _whose(ha: Availability, placement: Placement, vm: str) -> str:
    """Who says which hosts a VM may be on. Of a set that is together, one says it for all."""
    group = {vm, *placement.mates.get(vm, ())}
    for rule in ha.rules.values():
        if rule.kind == "nodes" and rule.name not in placement.dropped and group & set(rule.vms):
            return f"rule {rule.name!r}"
    owner = vm if vm in ha.vms and ha.vms[vm].nodes else min(group & ha.vms.keys())
    return f"the list of hosts of {owner!r} (vorch ha set {owner} --nodes)"


def _between(ha: Availability, placement: Placement, one: str, other: str, kind: str) -> str:
    """The rule that says it; one of those that say it together, where several do."""
    mine = {one, *placement.mates.get(one, ())}
    theirs = {other, *placement.mates.get(other, ())}
    names = [
        rule.name
        for _, rule in sorted(ha.rules.items())
        if rule.kind == kind and rule.strict and rule.name not in placement.dropped
        if mine & set(rule.vms) and theirs & set(rule.vms)
    ]
    return f"rule {' and '.join(map(repr, names))}"


def _falls_back(
    cluster: Cluster,
    ha: Availability,
    placement: Placement,
    vm: Vm,
    barred: Mapping[str, str],
    overhead_mib: int,
) -> dict[str, str]:
    """Hosts from which high availability would take it to a better one at once."""
    settings, hosts = ha.vms.get(vm.name), placement.hosts.get(vm.name)
    if settings is None or hosts is None or not settings.failback:
        return {}
    if settings.requested is not Requested.STARTED:
        return {}
    classes = hosts.classes(cluster.nodes)
    for number, names in enumerate(classes):
        better = [one for one in names if _may_go(cluster, vm, one, barred, overhead_mib)]
        if better:
            why = f"it would go back to {' or '.join(better)} at once"
            return {
                name: f"{why} (vorch ha set {vm.name} --no-failback); {OVERRULE}"
                for worse in classes[number + 1 :]
                for name in worse
            }
    return {}


def _may_go(
    cluster: Cluster, vm: Vm, name: str, barred: Mapping[str, str], overhead_mib: int
) -> bool:
    node = cluster.nodes[name]
    if name in barred or node.cordoned or name in cluster.silent:
        return False
    # Where it runs it has its room already.
    domain = cluster.domain(vm)
    here = domain is not None and is_on(domain.power) and domain.node == name
    return here or refusal(cluster, node, vm, overhead_mib) is None


def _leaning(cluster: Cluster, placement: Placement, vm: Vm, leaving: str) -> dict[str, int]:
    """Its list of hosts first, then wishes; 0 is best."""
    hosts = placement.hosts.get(vm.name)
    classes = [sorted(cluster.nodes)] if hosts is None else hosts.classes(cluster.nodes)
    near, far = placement.near.get(vm.name, ()), placement.far.get(vm.name, ())
    wishes = [rule for rule in placement.over.get(vm.name, ()) if not rule.strict]
    if wishes:
        return _with_racks(cluster, placement, vm, classes, wishes, leaving)
    most = len(near) + len(far) + 1
    found = {}
    for number, names in enumerate(classes):
        for name in names:
            with_far = sum(name in _where(cluster, other) for other in far)
            with_near = sum(name in _where(cluster, other) for other in near)
            found[name] = number * 2 * most + len(near) + with_far - with_near
    return found


def _with_racks(
    cluster: Cluster,
    placement: Placement,
    vm: Vm,
    classes: Sequence[Sequence[str]],
    wishes: Sequence[Rule],
    leaving: str,
) -> dict[str, int]:
    """The same where some wishes have weights: hosts by class and by what speaks against them."""
    near, far = placement.near.get(vm.name, ()), placement.far.get(vm.name, ())
    taking = _taking(cluster, leaving)
    against: dict[str, tuple[int, float]] = {}
    for number, names in enumerate(classes):
        for name in names:
            total: float = sum(name in _where(cluster, other) for other in far)
            total -= sum(name in _where(cluster, other) for other in near)
            for rule in wishes:
                total += racks.disliked(
                    rule,
                    vm.name,
                    cluster.nodes[name],
                    cluster.nodes,
                    lambda other: _where(cluster, other) - {leaving},
                    taking,
                )
            against[name] = (number, round(total, 9))
    ranks = sorted(set(against.values()))
    return {name: ranks.index(one) for name, one in against.items()}
