"""Rules as a person makes them: added, removed, and what is kept of them when a VM or host goes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

from vorch.availability import Availability, NodeChoice, Rule, RuleStatus
from vorch.decide import racks
from vorch.decide.ha_settings import versions
from vorch.decide.records import is_on, new_name, save
from vorch.decide.rules import resolve
from vorch.errors import Conflict, Invalid, NotFound
from vorch.model import Cluster, check_name
from vorch.plan import Plan, Save

WORDS = {
    "together": "together",
    "apart": "apart",
    "nodes": "on their hosts",
    "spread": "spread evenly",
}


def rule_add(
    cluster: Cluster,
    ha: Availability,
    name: str,
    kind: Literal["together", "apart", "nodes", "spread"],
    vms: Sequence[str],
    *,
    nodes: Sequence[NodeChoice] = (),
    strict: bool,
    over: str = "",
    max_skew: int = 1,
    weight: float = 1.0,
) -> Plan:
    """Refused when it contradicts itself or another rule, since it would not be in force."""
    new_name("rule", ha.rules, name)
    for vm in vms:
        cluster.vm(vm)
    for choice in nodes:
        cluster.node(choice.node)
    rule = Rule(
        name=name,
        kind=kind,
        vms=tuple(vms),
        nodes=tuple(nodes),
        strict=strict,
        over=over,
        max_skew=max_skew,
        weight=weight,
    )
    _need_domains(cluster, rule)
    before = resolve(ha.vms, ha.rules, cluster.nodes).dropped
    after = resolve(ha.vms, {**ha.rules, name: rule}, cluster.nodes).dropped
    lost = {one: why for one, why in after.items() if one not in before}
    if lost:
        reasons = "; ".join(dict.fromkeys(lost.values()))
        raise Invalid(
            f"cannot add rule {name!r}: {reasons}; change or remove one of them",
            rule=name,
            dropped=sorted(lost),
        )
    how = "rather than that, a VM stays off" if strict else "a wish, which gives way"
    what = f"{', '.join(rule.vms)} are to be {WORDS[kind]}" + (
        f" ({', '.join(one.node for one in rule.nodes)})" if rule.nodes else ""
    )
    if rule.over:
        what += f" over {rule.over}"
    broken = _broken(cluster, rule)
    return Plan(
        verb="rule add",
        subject=name,
        why=f"{what}: {how}" + (f"; now {broken}" if broken else ""),
        steps=(save("rule", name, None, rule),),
        claims=(f"rule/{name}",),
        reads={
            **versions(ha, f"rule/{name}"),
            **{f"vm/{vm}": cluster.versions.get(f"vm/{vm}", 0) for vm in vms},
            **{f"node/{one.node}": cluster.versions.get(f"node/{one.node}", 0) for one in nodes},
        },
    )


def _need_domains(cluster: Cluster, rule: Rule) -> None:
    """Over racks that nobody has named it would keep its VMs off all hosts, or be about nothing."""
    if not racks.is_over(rule):
        return
    there = racks.domains(cluster.nodes.values(), rule.over)
    if not there:
        raise Invalid(
            f"cannot add rule {rule.name!r}: no host has a tag '{rule.over}:…'; say of each where"
            f" it stands (vorch node change NODE --tag {rule.over}:NAME)",
            rule=rule.name,
        )
    if rule.kind == "apart" and rule.strict and len(rule.vms) > len(there):
        raise Invalid(
            f"cannot add rule {rule.name!r}: {len(rule.vms)} VMs cannot be apart over"
            f" {len(there)} ({rule.over}: {', '.join(sorted(there))}); make it smaller, or a wish",
            rule=rule.name,
        )


def found(ha: Availability, name: str) -> Rule:
    if name in ha.rules:
        return ha.rules[name]
    check_name(name, "name of a rule")
    raise NotFound(
        f"cannot find rule {name!r}: there is none of that name; `vorch rule list` shows all",
        rule=name,
    )


def rule_remove(ha: Availability, name: str) -> Plan:
    return Plan(
        verb="rule remove",
        subject=name,
        why="its VMs stay where they are, and may go anywhere from now on",
        steps=(save("rule", name, found(ha, name), None),),
        claims=(f"rule/{name}",),
        reads=versions(ha, f"rule/{name}"),
    )


def statuses(cluster: Cluster, ha: Availability) -> tuple[RuleStatus, ...]:
    """All rules by name, with what is wrong with them now."""
    dropped = resolve(ha.vms, ha.rules, cluster.nodes).dropped
    return tuple(
        RuleStatus(
            rule=ha.rules[name],
            dropped=dropped.get(name, ""),
            broken=_broken(cluster, ha.rules[name]),
        )
        for name in sorted(ha.rules)
    )


def _broken(cluster: Cluster, rule: Rule) -> str:
    """How the VMs that run now are otherwise than it says."""
    if racks.is_over(rule):
        return racks.broken(rule, cluster.nodes, lambda name: _runs_on(cluster, name))
    where: dict[str, list[str]] = {}
    for name in rule.vms:
        vm = cluster.vms.get(name)
        domain = None if vm is None else cluster.domain(vm)
        if domain is not None and is_on(domain.power):
            where.setdefault(domain.node, []).append(name)
    told = {node: ", ".join(sorted(names)) for node, names in sorted(where.items())}
    if rule.kind == "together":
        wrong = told if len(told) > 1 else {}
    elif rule.kind == "apart":
        wrong = {node: told[node] for node in told if len(where[node]) > 1}
    else:
        allowed = {one.node for one in rule.nodes}
        wrong = {node: names for node, names in told.items() if node not in allowed}
    return "; ".join(f"{names} on {node}" for node, names in wrong.items())


def _runs_on(cluster: Cluster, name: str) -> tuple[str, ...]:
    vm = cluster.vms.get(name)
    domain = None if vm is None else cluster.domain(vm)
    return (domain.node,) if domain is not None and is_on(domain.power) else ()


# ---------------------------------------------------------------------------------------------
# VMs and hosts that go


def without_vm(ha: Availability, name: str) -> list[Save]:
    """Rules go on without it; one that is about too few then goes, too."""
    steps = []
    for rule in _naming(ha, name):
        rest = tuple(vm for vm in rule.vms if vm != name)
        enough = len(rest) >= (1 if rule.kind == "nodes" else 2)
        after = dataclasses.replace(rule, vms=rest) if enough else None
        steps.append(save("rule", rule.name, rule, after))
    return steps


def renamed_vm(ha: Availability, name: str, new: str) -> list[Save]:
    return [
        save(
            "rule",
            rule.name,
            rule,
            dataclasses.replace(rule, vms=tuple(new if vm == name else vm for vm in rule.vms)),
        )
        for rule in _naming(ha, name)
    ]


def _naming(ha: Availability, vm: str) -> list[Rule]:
    return [rule for _, rule in sorted(ha.rules.items()) if vm in rule.vms]


def without_node(ha: Availability, name: str) -> list[Save]:
    """A rule that knows no other host is not changed behind anybody's back."""
    steps = []
    for _, rule in sorted(ha.rules.items()):
        rest = tuple(one for one in rule.nodes if one.node != name)
        if rest == rule.nodes:
            continue
        if not rest:
            raise Conflict(
                f"cannot remove host {name!r}: rule {rule.name!r} names no other; remove the rule"
                f" first (vorch rule remove {rule.name})",
                node=name,
                rule=rule.name,
            )
        steps.append(save("rule", rule.name, rule, dataclasses.replace(rule, nodes=rest)))
    return steps
