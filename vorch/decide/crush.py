"""Where hosts stand by Ceph's CRUSH tree: racks and rooms that a host need not be told of. Pure.

Whoever has told Ceph where its disks stand has said it of the hosts they are in. A host is the one
in the tree that has OSDs at its storage address, or the one of its name.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping

from vorch.model import Check, CrushBucket, CrushTree, Node, is_tag

# Ends of the tree, and the host itself: none of them is a domain of several hosts.
_ENDS = ("root", "osd", "host")


def placed(trees: Iterable[CrushTree], node: Node) -> tuple[str, ...]:
    """By the first of several Cephs that knows it."""
    return next((tags for tree in trees if (tags := tags_of(tree, node))), ())


def tags_of(tree: CrushTree, node: Node) -> tuple[str, ...]:
    """What the tree says, as tags ("rack:r1"): of each kind the one next to the host, by name."""
    parents = {child: bucket for bucket in tree.buckets for child in bucket.children}
    at = _at_address(tree, node, parents) or _by_name(tree, node)
    found: dict[str, str] = {}
    seen: set[int] = set()
    while at is not None and at.id not in seen:
        seen.add(at.id)
        tag = f"{at.type}:{at.name}"
        # What is no tag cannot be asked for, either.
        if at.type not in _ENDS and is_tag(tag):
            found.setdefault(at.type, tag)
        at = parents.get(at.id)
    return tuple(sorted(found.values()))


def _at_address(
    tree: CrushTree, node: Node, parents: Mapping[int, CrushBucket]
) -> CrushBucket | None:
    """What its own OSDs are in. Of several the first by name."""
    address = _address(node.storage_address)
    if address is None:
        return None
    found = [
        parents[osd]
        for osd, addresses in tree.addresses.items()
        if osd in parents and any(_address(one) == address for one in addresses)
    ]
    return min(found, key=lambda one: one.name, default=None)


def _by_name(tree: CrushTree, node: Node) -> CrushBucket | None:
    """Ceph calls hosts by the first part of their names."""
    hosts = {one.name: one for one in tree.buckets if one.type == "host"}
    names = [node.name, node.address, node.address.partition(".")[0]]
    return next((hosts[name] for name in names if name in hosts), None)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def check_of(node: Node, found: tuple[str, ...]) -> tuple[Check, ...]:
    """What a trial of the host says of it; nothing where Ceph knows nothing."""
    if not found:
        return ()
    own = {tag.partition(":")[0]: tag for tag in node.tags if ":" in tag}
    taken = [tag for tag in found if tag.partition(":")[0] not in own]
    other = [
        f"{own[key]} is set, and Ceph says {tag}"
        for tag in found
        if (key := tag.partition(":")[0]) in own and tag not in node.tags
    ]
    parts = [f"{', '.join(taken)}, from Ceph's CRUSH tree"] if taken else []
    return (
        Check(
            name="failure domains",
            level="warning" if other else "ok",
            detail="; ".join([*parts, *other]) or "its tags are those of Ceph's CRUSH tree",
            remedy="what is set counts; set it right if it is not (vorch node change --tag)"
            if other
            else "",
        ),
    )
