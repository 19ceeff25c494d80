"""Rules over racks and other failure domains: which hosts they leave to a VM. Pure.

A host's domain of a key is the tag KEY:VALUE that it has ("rack:r1"); of the key "host" it is the
host itself. What is said here holds where a VM goes to. Nobody is moved for it: that is for a
rebalance to do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping

from vorch.availability import Rule
from vorch.model import Node

HOST = "host"
# Hosts on which a VM counts now.
Where = Callable[[str], Collection[str]]


def is_over(rule: Rule) -> bool:
    """It is about domains of several hosts, or about how evenly they are used."""
    return rule.kind == "spread" or (rule.kind != "nodes" and rule.over not in ("", HOST))


def domain(node: Node, key: str) -> str | None:
    """Of several tags of one key the first by name, as everywhere."""
    if key in ("", HOST):
        return node.name
    found = sorted(tag for tag in node.all_tags if tag.startswith(f"{key}:"))
    return found[0].partition(":")[2] if found else None


def _spot(node: Node, key: str) -> str:
    """Its domain; one that is in none is a place of its own. No name has a space in it."""
    return domain(node, key) or f"host {node.name}"


def domains(nodes: Iterable[Node], key: str) -> frozenset[str]:
    """All that are there."""
    return frozenset(name for node in nodes if (name := domain(node, key)) is not None)


def barred(
    rule: Rule, vm: str, nodes: Mapping[str, Node], where: Where, taking: Collection[str]
) -> dict[str, str]:
    """The hosts that a rule keeps a VM off, each with the reason. `taking`: hosts that take VMs."""
    counts = _counts(rule, vm, nodes, where)
    if rule.kind == "spread":
        return _too_many(rule, nodes, counts, taking)
    if not counts:
        return {}
    found = {}
    key = rule.over
    for name, node in nodes.items():
        here = _spot(node, key)
        if rule.kind == "apart" and here in counts:
            found[name] = f"rule {rule.name!r} keeps it apart from VMs in {key} {here!r}"
        elif rule.kind == "together" and here not in counts:
            known = ", ".join(sorted(counts))
            found[name] = f"rule {rule.name!r} keeps it together with VMs in {key} {known}"
    return found


def disliked(
    rule: Rule,
    vm: str,
    node: Node,
    nodes: Mapping[str, Node],
    where: Where,
    taking: Collection[str],
) -> float:
    """How much a wish speaks against a host: its weight for each VM that it is otherwise with."""
    counts = _counts(rule, vm, nodes, where)
    here = domain(node, rule.over)
    held = counts.get(_spot(node, rule.over), 0)
    if rule.kind == "apart":
        return rule.weight * held
    if rule.kind == "together":
        return rule.weight * (sum(counts.values()) - held)
    used = domains((nodes[name] for name in taking if name in nodes), rule.over)
    lowest = min((counts.get(name, 0) for name in used), default=0)
    return rule.weight * (1.0 if here is None else max(0, held + 1 - lowest - rule.max_skew))


def _counts(rule: Rule, vm: str, nodes: Mapping[str, Node], where: Where) -> Counter[str]:
    """How many of the others each domain holds."""
    counts: Counter[str] = Counter()
    for other in rule.vms:
        if other == vm:
            continue
        counts.update({_spot(nodes[name], rule.over) for name in where(other) if name in nodes})
    return counts


def _too_many(
    rule: Rule, nodes: Mapping[str, Node], counts: Mapping[str, int], taking: Collection[str]
) -> dict[str, str]:
    key, found = rule.over, {}
    used = sorted(domains((nodes[name] for name in taking if name in nodes), key))
    ordered = sorted(counts.get(name, 0) for name in used)
    # Where no domain takes VMs there is nothing to be even with but an empty one.
    lowest = min(ordered, default=0)
    for name, node in nodes.items():
        here = domain(node, key)
        if here is None:
            found[name] = f"rule {rule.name!r}: it has no tag '{key}:…'"
            continue
        held = counts.get(here, 0)
        # A domain that alone holds the fewest rises with what lands in it.
        alone = ordered[:1] == [held] and (len(ordered) < 2 or ordered[1] > held) and here in used
        if alone or held + 1 - lowest <= rule.max_skew:
            continue
        found[name] = (
            f"rule {rule.name!r}: {key} {here!r} holds {held} of them already, and no {key} may"
            f" hold over {rule.max_skew} more than another"
        )
    return found


def broken(rule: Rule, nodes: Mapping[str, Node], where: Where) -> str:
    """How the VMs that run now are otherwise than it says; "" when they are not."""
    held: dict[str, list[str]] = {}
    outside = []
    for vm in rule.vms:
        for name in where(vm):
            here = domain(nodes[name], rule.over) if name in nodes else None
            if here is None:
                outside.append(vm)
            else:
                held.setdefault(here, []).append(vm)
    if rule.kind == "together":
        wrong = held if len(held) > 1 else {}
    elif rule.kind == "apart":
        wrong = {name: vms for name, vms in held.items() if len(vms) > 1}
    else:
        counts = [len(held.get(name, ())) for name in domains(nodes.values(), rule.over)]
        even = not counts or max(counts) - min(counts) <= rule.max_skew
        wrong = {} if even else held
        if outside:
            wrong = {**wrong, "none": outside}
    return "; ".join(
        f"{', '.join(sorted(vms))} in {rule.over} {name}" for name, vms in sorted(wrong.items())
    )
