"""What the store keeps of high availability, for the verbs that have to agree with it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from vorch.availability import (
    Availability,
    Drill,
    HaPolicy,
    HaStatus,
    HaVm,
    HostOrder,
    MoveOrder,
    NodeRecord,
    Report,
    Rule,
    VmRecord,
)
from vorch.codec import decode
from vorch.decide import ha_status
from vorch.decide.place import NOTHING_KEPT, Keeping
from vorch.model import Cluster
from vorch.plan import Journal, Plan
from vorch.ports import Lease, State

# Who has this lease leads.
LEASE = "ha"
# What the leader has to say.
REPORT = "report/ha"
# What came of the last drill of the fences.
DRILL = "drill/fencing"
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


def report(state: State) -> Report | None:
    """What the leader has to say."""
    document = state.get(REPORT)
    return None if document is None else decode(Report, document.body)


def last_drill(state: State) -> Drill | None:
    document = state.get(DRILL)
    return None if document is None else decode(Drill, document.body)


def status_of(state: State, cluster: Cluster, now: float) -> HaStatus:
    """All of high availability; no host is asked."""
    lease = state.lease(LEASE)
    return ha_status.status(
        cluster,
        availability(state),
        report(state),
        last_drill(state),
        lease=None if lease is None else (lease.holder, lease.epoch, lease.expires_at),
        now=now,
    )


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
