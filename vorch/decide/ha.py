"""High availability: one look in, one round of decisions out. Pure.

`decide` says what every host and VM is, and what is to be done; `after` says what a plan's failure
means for the next round. In between, somebody commits the records and carries the plans out.
"""

from __future__ import annotations

from collections.abc import Sequence

from vorch.availability import (
    Availability,
    HaVm,
    HostOrder,
    Limits,
    NodeRecord,
    NodeState,
    Requested,
    VmRecord,
    VmState,
)
from vorch.decide.errands import Errand, Round, Timers
from vorch.decide.ha_hosts import Hosts
from vorch.decide.ha_vms import Vms, still_there
from vorch.decide.records import is_on
from vorch.decide.rules import Placement, resolve
from vorch.errors import VorchError
from vorch.frozen import replace
from vorch.model import Cluster, Vm

# How the VMs of a host that goes down are left, by the policy and by what it goes down for.
LEFT_AS = {
    ("conditional", "shutdown"): "released",
    ("conditional", "reboot"): "frozen",
    ("freeze", "shutdown"): "frozen",
    ("freeze", "reboot"): "frozen",
    ("failover", "shutdown"): "released",
    ("failover", "reboot"): "released",
    ("migrate", "shutdown"): "emptied",
    ("migrate", "reboot"): "emptied",
}


def decide(cluster: Cluster, ha: Availability, limits: Limits, now: float) -> Round:
    """One round."""
    timers = Timers(now)
    if not timers.due(ha.policy.disarmed_until):
        return _disarmed(ha, timers)
    hosts = Hosts(cluster, ha, limits, timers)
    hosts.decide()
    nodes = {
        name: _going_down(record, ha.orders.get(name), ha) for name, record in hosts.records.items()
    }
    placement = resolve(ha.vms, ha.rules, cluster.nodes)
    vms = Vms(cluster, ha, limits, timers, nodes, placement)
    vms.decide()
    waiting = vms.left_out()
    if waiting:
        vms = _all_together(vms, waiting)
    nodes = {name: _ready(record, cluster, ha, vms) for name, record in nodes.items()}
    changed: dict[str, VmRecord | None] = {
        name: record
        for name, record in vms.records.items()
        if (last := ha.vm_records.get(name)) is not record and last != record
    }
    changed |= {name: None for name in ha.vm_records if name not in ha.vms}
    return Round(
        node_records={
            name: record
            for name, record in nodes.items()
            if (last_seen := ha.node_records.get(name)) is not record
            if last_seen != record and name not in ha.busy_nodes
        },
        vm_records=changed,
        orders=hosts.orders,
        settings=vms.settings,
        dropped_moves=tuple(dict.fromkeys(vms.dropped_moves)),
        errands=(*hosts.errands, *vms.errands),
        sentences=_sentences(hosts, vms, placement),
        due_at=timers.first,
    )


def _all_together(vms: Vms, waiting: Sequence[Vm]) -> Vms:
    """The same round with hosts for all that wait in one decision, where that leaves fewer out."""
    from vorch.decide.room import recover

    fresh = Vms(vms.cluster, vms.ha, vms.limits, vms.timers, vms.nodes, vms.scene.placement)
    hosts = recover.recovered(fresh.scene, fresh.board, vms.ha, waiting)
    one_by_one = {name: node for name, node in vms.recovering.items() if node is not None}
    if not recover.better(vms.ha, waiting, hosts, one_by_one):
        return vms
    again = Vms(vms.cluster, vms.ha, vms.limits, vms.timers, vms.nodes, vms.scene.placement, hosts)
    again.decide()
    return again


def _sentences(hosts: Hosts, vms: Vms, placement: Placement) -> dict[str, str]:
    return {
        **{f"node/{name}": text for name, text in hosts.sentences.items()},
        **{f"vm/{name}": text for name, text in vms.sentences.items()},
        **{f"rule/{name}": f"it is dropped: {why}" for name, why in placement.dropped.items()},
    }


# ---------------------------------------------------------------------------------------------
# Hands off


def _disarmed(ha: Availability, timers: Timers) -> Round:
    """Nothing is fenced and nothing is started, until the time is over or somebody arms it."""
    state = VmState.FROZEN if ha.policy.disarmed_as == "freeze" else VmState.IGNORED
    why = "high availability is disarmed"
    records: dict[str, VmRecord | None] = {}
    for name in ha.vms:
        record = ha.vm_records.get(name) or VmRecord(vm=name)
        if record.state not in (state, VmState.ERROR):
            records[name] = replace(record, state=state, since=timers.now, why=why)
    return Round(
        vm_records=records,
        sentences={f"vm/{name}": f"{state.value}: {why}" for name in sorted(ha.vms)},
        due_at=timers.first,
    )


# ---------------------------------------------------------------------------------------------
# Hosts that go down in good order


def _going_down(record: NodeRecord, order: HostOrder | None, ha: Availability) -> NodeRecord:
    """How the VMs of a host are left that is to go down, or to be kept empty."""
    if record.state is NodeState.MAINTENANCE:
        left = "emptied"
    elif record.state is NodeState.LEAVING and order is not None:
        left = LEFT_AS[ha.policy.shutdown, order.leaving]
    else:
        return record
    if record.left_as == left:
        return record
    return replace(record, left_as=left, ready=False)


def _ready(record: NodeRecord, cluster: Cluster, ha: Availability, vms: Vms) -> NodeRecord:
    """Whether all that is to leave the host has left it."""
    if record.state not in (NodeState.LEAVING, NodeState.MAINTENANCE):
        return record
    held = False
    for name, settings in ha.vms.items():
        vm = cluster.vms.get(name)
        if vm is None:
            continue
        domain = cluster.domains.get(vm.id)
        seen = domain if domain is not None and is_on(domain.power) else None
        here = seen.node if seen is not None else vm.node
        if here == record.node:
            held = held or name in ha.busy or still_there(vm, seen, settings, vms.records[name])
    return record if record.ready is not held else replace(record, ready=not held)


# ---------------------------------------------------------------------------------------------
# What came of a plan


def after(
    errand: Errand,
    error: VorchError | None,
    record: VmRecord,
    settings: HaVm,
    limits: Limits,
    now: float,
) -> VmRecord:
    """The record of a VM after a plan about it has ended, well or not."""
    later = now + limits.retry_after_s
    if errand.purpose == "note":
        # Whether it was found out or not, it is not asked for again at once.
        return replace(record, retry_at=later)
    if error is None:
        return _succeeded(errand, record)
    match errand.purpose:
        case "start":
            return _start_failed(errand, error, record, settings, later)
        case "stop":
            # Its guest does not obey; it is not asked again, its power is cut.
            return replace(record, tries=1, why=error.message)
        case "cut":
            return _cut_failed(error, record, settings, later)
        case "return":
            # It is not tried again: where it is, is as good.
            return replace(record, home_given_up=errand.node, why=error.message)
        case "register" if record.failed:
            # Where it is, is all there is for now.
            return replace(record, tried_here_again=True, why=error.message)
        case _:
            return replace(record, retry_at=later, why=error.message)


def _succeeded(errand: Errand, record: VmRecord) -> VmRecord:
    changed = replace(record, retry_at=0.0)
    if errand.purpose in ("stop", "cut"):
        return replace(changed, tries=0)
    if errand.purpose == "register":
        # The tries are per host.
        return replace(changed, tries=0)
    return changed


def _start_failed(
    errand: Errand, error: VorchError, record: VmRecord, settings: HaVm, later: float
) -> VmRecord:
    tries = record.tries + 1
    if tries <= settings.max_restart:
        return replace(record, tries=tries, retry_at=later, why=error.message)
    failed = (*record.failed, errand.node)
    if len(failed) <= settings.max_relocate:
        return replace(
            record,
            tries=0,
            failed=failed,
            tried_here_again=False,
            retry_at=later,
            why=error.message,
        )
    return replace(
        record,
        state=VmState.ERROR,
        tries=0,
        failed=failed,
        tried_here_again=False,
        why=f"it could not be started on {', '.join(dict.fromkeys(failed))}: {error.message}",
    )


def _cut_failed(error: VorchError, record: VmRecord, settings: HaVm, later: float) -> VmRecord:
    changed = replace(record, stop_failed=True, retry_at=later, why=error.message)
    if record.state is VmState.STARTING:
        return changed
    if settings.requested is Requested.DISABLED:
        # Written off, though it still runs: that is what it means to disable it.
        return replace(changed, state=VmState.STOPPED)
    return replace(changed, state=VmState.ERROR, why=f"it could not be stopped: {error.message}")
