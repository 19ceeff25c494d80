"""What the store keeps of high availability, for the verbs that have to agree with it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from vorch.availability import (
    Availability,
    HaPolicy,
    HaVm,
    HostOrder,
    MoveOrder,
    NodeRecord,
    Rule,
    VmRecord,
)
from vorch.codec import decode
from vorch.decide.place import NOTHING_KEPT, Keeping
from vorch.model import Cluster
from vorch.plan import Journal, Plan
from vorch.ports import Lease, State

# Who has this lease leads.
LEASE = "ha"
# What the leader has to say.
REPORT = "report/ha"
KINDS: dict[str, type[Any]] = {
    "ha": HaVm,
    "rule": Rule,
    "policy": HaPolicy,
    "order": HostOrder,
    "move": MoveOrder,
    "hanode": NodeRecord,
    "havm": VmRecord,
}


def keeping(state: State, cluster: Cluster, *, force: bool = False) -> Keeping:
    """What a person's placements keep room for. Of one host alone there is nothing to read."""
    if len(cluster.nodes) < 2:
        return NOTHING_KEPT
    return Keeping(ha=availability(state), force=force)


def with_spare(state: State, cluster: Cluster, names: Iterable[str]) -> Iterable[str]:
    """These hosts; all of them where it counts what is on the others, too."""
    return cluster.nodes if keeping(state, cluster).concerns(cluster) else names


def with_all(state: State, cluster: Cluster, names: Iterable[str] = ()) -> Iterable[str]:
    """The same where VMs may be looked after that are not yet."""
    if len(cluster.nodes) < 2 or availability(state).policy.spare == "ignore":
        return names
    return cluster.nodes


def leader(state: State, now: float) -> Lease | None:
    """The lease of whoever watches now; None: nobody does."""
    lease = state.lease(LEASE)
    return lease if lease is not None and lease.expires_at > now else None


def plans(state: State) -> list[Plan]:
    """What is being carried out, whoever does it."""
    return [decode(Journal, document.body).plan for document in state.read(["plan"]).values()]


def availability(state: State) -> Availability:
    """As it is now. What is seen of hosts is not in it."""
    parts: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}
    versions = {}
    for key, document in state.read([*KINDS]).items():
        kind, _, name = key.partition("/")
        parts[kind][name] = decode(KINDS[kind], document.body)
        versions[key] = document.version
    return Availability(
        policy=parts["policy"].get("ha") or HaPolicy(),
        vms=parts["ha"],
        rules=parts["rule"],
        orders=parts["order"],
        moves=parts["move"],
        node_records=parts["hanode"],
        vm_records=parts["havm"],
        versions=versions,
    )
