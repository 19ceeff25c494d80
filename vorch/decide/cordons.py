"""Hosts that nothing is placed on any more, one or a whole failure domain at once. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from vorch.decide.hosts import some
from vorch.decide.racks import domain
from vorch.decide.records import reads, save
from vorch.errors import NotFound
from vorch.model import Cluster, check_tags
from vorch.plan import Plan


def called(cluster: Cluster, name: str) -> tuple[str, ...]:
    """The host of that name; or all of a failure domain, which is named as it is tagged (rack:r1).

    No host's name has a colon in it.
    """
    key, colon, value = name.partition(":")
    if not colon:
        return (cluster.node(name).name,)
    check_tags((name,), "what is to be emptied")
    found = tuple(one for one in sorted(cluster.nodes) if domain(cluster.nodes[one], key) == value)
    if not found:
        raise NotFound(
            f"cannot find hosts in {name!r}: none stands there; `vorch node list` shows their tags",
            domain=name,
        )
    return found


def cordon_all(cluster: Cluster, subject: str, names: Sequence[str], cordoned: bool) -> Plan:
    """Several at once, which are called `subject` together."""
    plans = [cordon(cluster, name, cordoned) for name in names]
    if len(plans) == 1:
        return plans[0]
    word = "cordoned" if cordoned else "not cordoned"
    return Plan(
        verb=plans[0].verb,
        subject=subject,
        why=f"{some('host', names)} are to be {word}",
        steps=tuple(step for plan in plans for step in plan.steps),
        claims=tuple(key for plan in plans for key in plan.claims),
        reads={key: version for plan in plans for key, version in plan.reads.items()},
    )


def cordon(cluster: Cluster, name: str, cordoned: bool) -> Plan:
    node = cluster.node(name)
    done = node.cordoned == cordoned
    word = "cordoned" if cordoned else "not cordoned"
    return Plan(
        verb="node cordon" if cordoned else "node uncordon",
        subject=name,
        why=f"it is {word} already" if done else f"it was asked to be {word}",
        steps=()
        if done
        else (save("node", name, node, dataclasses.replace(node, cordoned=cordoned)),),
        claims=(f"node/{name}",),
        reads=reads(cluster, f"node/{name}"),
    )
