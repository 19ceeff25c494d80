"""Fencing a host by hand, and taking it back: what has to be so before, and the plan. Pure."""

from __future__ import annotations

import dataclasses

from vorch.availability import Evidence, Knock, NodeRecord, NodeState, Sign
from vorch.codec import encode
from vorch.decide.records import is_on
from vorch.errors import Conflict, Unreachable
from vorch.model import Cluster
from vorch.plan import FenceNode, Plan, Save, UnfenceNode


def begun(
    cluster: Cluster,
    name: str,
    record: NodeRecord | None,
    evidence: Evidence,
    clients: tuple[str, ...],
    *,
    now: float,
    force: bool,
) -> NodeRecord:
    """What is recorded before anything is done, so that whoever takes over knows how far it is.

    A host of which anything is heard is fenced with `force` only: fencing ends all VMs on it.
    """
    cluster.node(name)
    alive = _signs_of_life(evidence)
    if alive and not force:
        on = sum(one.node == name and is_on(one.power) for one in cluster.domains.values())
        runs = f", with {on} VM(s) on it" if on else ""
        raise Conflict(
            f"cannot fence host {name!r}: {alive}{runs}; empty it (vorch node maintenance {name}"
            " on), or add --force to end everything on it",
            node=name,
        )
    old = record or NodeRecord(node=name, since=now, sign_since=now)
    # Addresses of an earlier fence of the same outage are cut off and must be let in again.
    kept = old.clients if old.begun else ()
    why = "by hand" + (f", though {alive}" if alive else ": it is silent")
    return dataclasses.replace(
        old,
        state=NodeState.FENCING,
        since=now,
        why=why,
        begun=True,
        clients=tuple(dict.fromkeys((*kept, *clients))),
    )


def fence(cluster: Cluster, record: NodeRecord, *, now: float, version: int) -> Plan:
    """`record` is what `begun` made."""
    name = record.node
    fenced = dataclasses.replace(record, state=NodeState.FENCED, since=now, proven=True, why="")
    key = f"hanode/{name}"
    return Plan(
        verb="node fence",
        subject=name,
        why=record.why,
        steps=(
            FenceNode(node=cluster.node(name), clients=record.clients),
            Save(key=key, before=encode(record), after=encode(fenced), fill={"why": "proof"}),
        ),
        claims=(key,),
        reads={key: version},
    )


def unfence(
    cluster: Cluster,
    name: str,
    record: NodeRecord | None,
    clients: tuple[str, ...],
    *,
    now: float,
    version: int,
    force: bool,
) -> Plan:
    """End what is left there, see that it is gone, and let the host at its disks again."""
    node, key = cluster.node(name), f"hanode/{name}"
    plan = Plan(
        verb="node unfence",
        subject=name,
        why="it is not cut off",
        claims=(key,),
        reads={key: version},
    )
    cut_off = record is not None and record.begun
    if not cut_off and not force:
        return plan
    if name in cluster.silent:
        raise Unreachable(
            f"cannot take host {name!r} back: its libvirt does not answer, so nobody can see that"
            f" nothing is left running there ({cluster.silent[name]}); restart the host and its"
            " libvirtd first",
            node=name,
        )
    online = NodeRecord(node=name, since=now, sign=Sign.WELL, sign_since=now)
    # Of one that was never proven cut off nothing was started elsewhere, so what runs may stay.
    keep = record is not None and record.begun and not record.proven
    return dataclasses.replace(
        plan,
        why="what it still runs is older than its disks" if not keep else "it was never cut off",
        steps=(
            UnfenceNode(
                node=node,
                clients=record.clients if record is not None and cut_off else clients,
                keep=keep,
            ),
            Save(
                key=key,
                before=encode(record) if record is not None else None,
                after=encode(online),
            ),
        ),
    )


def _signs_of_life(evidence: Evidence) -> str:
    """What is heard of the host; "" only when it is silent wherever it was asked."""
    home = (Knock.ANSWER, Knock.RESET)
    if evidence.libvirt:
        return "its libvirt answers"
    if evidence.storage in home:
        return "it answers on the storage network"
    if evidence.management in home:
        return "it answers on the management network"
    if evidence.storage is None and evidence.management is None:
        return "no address of it is known to knock on"
    return ""


def recorded_clients(cluster: Cluster, name: str) -> tuple[str, ...]:
    """The addresses by which VMs on the host were seen to have their disks open."""
    found = {
        client
        for one in cluster.clients.values()
        if one.node == name
        for client in one.disks.values()
        if client
    }
    return tuple(sorted(found))
