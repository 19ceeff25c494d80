"""Which hosts a VM may be on: its own list and the rules, made one without contradictions. Pure.

VMs that must be together form a set. What holds for one of a set, holds for all of it: its hosts,
and whom it must be apart from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from vorch.availability import HaVm, NodeChoice, Rule
from vorch.decide.racks import is_over


@dataclass(frozen=True, slots=True, kw_only=True)
class Hosts:
    """Hosts by priority. Without `strict` all others form a class below the lowest of them."""

    priority: Mapping[str, int]
    strict: bool

    def classes(self, online: Iterable[str]) -> list[list[str]]:
        """The online hosts that are permitted, best class first."""
        ranks: dict[int, list[str]] = {}
        for node in sorted(online):
            if node in self.priority:
                ranks.setdefault(self.priority[node], []).append(node)
            elif not self.strict:
                ranks.setdefault(-1, []).append(node)
        return [ranks[rank] for rank in sorted(ranks, reverse=True)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """All rules, resolved. `dropped` says of each that was left out why."""

    # Each VM that is in a set, with all others of it.
    mates: dict[str, frozenset[str]] = field(default_factory=dict)
    rivals: dict[str, frozenset[str]] = field(default_factory=dict)
    hosts: dict[str, Hosts] = field(default_factory=dict)
    # Wishes, which only break ties.
    near: dict[str, frozenset[str]] = field(default_factory=dict)
    far: dict[str, frozenset[str]] = field(default_factory=dict)
    # Rules over racks and other domains, about even use, and wishes that have a weight: those that
    # each VM stands in.
    over: dict[str, tuple[Rule, ...]] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)

    def binds(self, vm: str) -> bool:
        """A rule keeps it on some hosts, with others, or away from them."""
        return vm in self.hosts or vm in self.mates or vm in self.rivals


def resolve(vms: Mapping[str, HaVm], rules: Mapping[str, Rule], nodes: Iterable[str]) -> Placement:
    """The rules in force. Those that contradict each other are dropped, and said."""
    if not rules:
        for vm in vms.values():
            if vm.nodes:
                break
        else:
            # Where nobody asks for anything all of it is empty.
            return Placement()
    return _Resolving(vms, rules, frozenset(nodes)).placement()


class _Resolving:
    def __init__(
        self, vms: Mapping[str, HaVm], rules: Mapping[str, Rule], nodes: frozenset[str]
    ) -> None:
        self.vms = vms
        self.nodes = nodes
        self.dropped: dict[str, str] = {}
        ordered = [rules[name] for name in sorted(rules)]
        self.about_hosts = [rule for rule in ordered if rule.kind == "nodes"]
        # Wishes with a weight are counted as those over racks are, each host being one.
        counted = {rule.name for rule in ordered if is_over(rule) or _weighs(rule)}
        plain = [rule for rule in ordered if rule.name not in counted]
        self.together = [rule for rule in plain if rule.kind == "together"]
        self.apart = [rule for rule in plain if rule.kind == "apart"]
        self.over = [rule for rule in ordered if rule.name in counted]

    def placement(self) -> Placement:
        self._drop_double_hosts()
        self._drop_hopeless_apart()
        self._drop_both_ways()
        self._drop_mixed_priorities()
        sets = _sets(self._kept(self.together, strict=True))
        own = self._own_hosts()
        self._drop_confined_apart(own)
        mates = {vm: group - {vm} for group in sets for vm in group}
        hosts = dict(own)
        for group in sets:
            shared = next((own[vm] for vm in sorted(group) if vm in own), None)
            if shared is not None:
                hosts.update({vm: own.get(vm, shared) for vm in group})
        rivals: dict[str, set[str]] = {}
        for rule in self._kept(self.apart, strict=True):
            for one in rule.vms:
                for other in rule.vms:
                    if one != other:
                        for vm in {one} | mates.get(one, frozenset()):
                            rivals.setdefault(vm, set()).update(
                                {other} | mates.get(other, frozenset())
                            )
        return Placement(
            mates=mates,
            # Sets that overlap with both sides of a rule have contradicted it already.
            rivals={vm: frozenset(found - {vm}) for vm, found in rivals.items()},
            hosts=hosts,
            near=_others(self._kept(self.together, strict=False)),
            far=_others(self._kept(self.apart, strict=False)),
            over=_by_vm(self._kept(self.over)),
            dropped=self.dropped,
        )

    def _kept(self, rules: list[Rule], *, strict: bool | None = None) -> list[Rule]:
        return [
            rule
            for rule in rules
            if rule.name not in self.dropped and strict in (None, rule.strict)
        ]

    def _own_hosts(self) -> dict[str, Hosts]:
        found = {
            name: Hosts(priority=_priorities(vm.nodes), strict=vm.restricted)
            for name, vm in self.vms.items()
            if vm.nodes
        }
        for rule in self._kept(self.about_hosts):
            for vm in rule.vms:
                found[vm] = Hosts(priority=_priorities(rule.nodes), strict=rule.strict)
        return found

    # -- contradictions

    def _drop_double_hosts(self) -> None:
        seen: dict[str, list[str]] = {
            vm.vm: ["its own list"] for vm in self.vms.values() if vm.nodes
        }
        for rule in self.about_hosts:
            for vm in rule.vms:
                seen.setdefault(vm, []).append(rule.name)
        for vm, where in seen.items():
            if len(where) > 1:
                for name in where:
                    if name != "its own list":
                        self.dropped[name] = (
                            f"VM {vm!r} has its hosts from {' and '.join(where)}; keep one of them"
                        )

    def _drop_hopeless_apart(self) -> None:
        for rule in self.apart:
            if rule.strict and len(rule.vms) > len(self.nodes):
                self.dropped[rule.name] = (
                    f"{len(rule.vms)} VMs cannot be apart on {len(self.nodes)} hosts; make it"
                    " smaller, or a wish"
                )

    def _drop_both_ways(self) -> None:
        """Who is on one host is in one domain of any key."""
        over = self._kept(self.over, strict=True)
        together = [*self._kept(self.together, strict=True)]
        together += [rule for rule in over if rule.kind == "together"]
        apart = [*self._kept(self.apart, strict=True)]
        apart += [rule for rule in over if rule.kind == "apart"]
        for one in together:
            for other in apart:
                if one.over not in ("", "host", other.over):
                    continue
                both = sorted(set(one.vms) & set(other.vms))
                if len(both) > 1:
                    why = f"{' and '.join(both)} are to be together by {one.name} and apart by"
                    self.dropped[one.name] = self.dropped[other.name] = f"{why} {other.name}"

    def _drop_mixed_priorities(self) -> None:
        """Who must be somewhere for others' sake cannot also rank its hosts."""
        bound = {vm for rule in [*self.together, *self.apart] if rule.strict for vm in rule.vms}
        for rule in self.about_hosts:
            ranks = {choice.priority for choice in rule.nodes}
            if len(ranks) > 1 and bound & set(rule.vms) and rule.name not in self.dropped:
                self.dropped[rule.name] = (
                    f"it ranks hosts, and {', '.join(sorted(bound & set(rule.vms)))} are bound to"
                    " others by another rule; give its hosts one priority"
                )

    def _drop_confined_apart(self, own: Mapping[str, Hosts]) -> None:
        for rule in self._kept(self.apart, strict=True):
            confined = [own[vm] for vm in rule.vms if vm in own and own[vm].strict]
            reach = {node for one in confined for node in one.priority}
            if confined and len(reach) < len(confined):
                self.dropped[rule.name] = (
                    f"{len(confined)} of its VMs are confined to {', '.join(sorted(reach))}; give"
                    " them more hosts"
                )


def _priorities(nodes: Iterable[NodeChoice]) -> dict[str, int]:
    return {choice.node: choice.priority for choice in nodes}


def _sets(rules: Iterable[Rule]) -> list[frozenset[str]]:
    """Sets that overlap are one."""
    sets: list[set[str]] = []
    for rule in rules:
        merged = set(rule.vms)
        apart = []
        for group in sets:
            if group & merged:
                merged |= group
            else:
                apart.append(group)
        sets = [*apart, merged]
    return [frozenset(group) for group in sets]


def _weighs(rule: Rule) -> bool:
    return rule.kind in ("together", "apart") and not rule.strict and rule.weight != 1.0


def _by_vm(rules: Iterable[Rule]) -> dict[str, tuple[Rule, ...]]:
    found: dict[str, tuple[Rule, ...]] = {}
    for rule in rules:
        for vm in rule.vms:
            found[vm] = (*found.get(vm, ()), rule)
    return found


def _others(rules: Iterable[Rule]) -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for rule in rules:
        for vm in rule.vms:
            found.setdefault(vm, set()).update(set(rule.vms) - {vm})
    return {vm: frozenset(names) for vm, names in found.items()}
