"""What a person is told of high availability: settings, records and the leader's words. Pure."""

from __future__ import annotations

from vorch.availability import (
    Availability,
    Drill,
    HaNodeStatus,
    HaStatus,
    HaVmStatus,
    Report,
    Saying,
    VmRecord,
)
from vorch.decide.errands import Round
from vorch.decide.rules import Placement, resolve
from vorch.model import Cluster

# A drill that is older than this does not say much of today.
OLD_DRILL_S = 30 * 24 * 3600.0
# What the leader says of room for losses stands under this word.
SPARE = "spare"
NOBODY = "nobody watches: run `vorch serve` on one machine or on several"


def record_words(record: VmRecord) -> str:
    """The sentence that the record of a VM comes to."""
    return f"{record.state.words}: {record.why}"


def reported(
    before: Report | None, came: Round, ha: Availability, *, holder: str, epoch: int, now: float
) -> Report:
    """What the leader has to say after a round, beside what stands in records.

    The same as before when there is nothing new, so that nothing has to be written.
    """
    records = {**ha.vm_records, **came.vm_records}
    said: dict[str, Saying] = {}
    old = before.said if before is not None else {}
    for key, text in came.sentences.items():
        kind, _, name = key.partition("/")
        record = records.get(name) if kind == "vm" else None
        if record is not None and text == record_words(record):
            continue
        saying = old.get(key)
        said[key] = saying if saying and saying.text == text else Saying(text=text, since=now)
    same_leader = before is not None and (before.holder, before.epoch) == (holder, epoch)
    since = before.since if before is not None and same_leader else now
    return Report(holder=holder, epoch=epoch, since=since, said=said)


def vm_status(
    cluster: Cluster, ha: Availability, report: Report | None, name: str, placement: Placement
) -> HaVmStatus:
    settings = ha.vms[name]
    vm, record = cluster.vms.get(name), ha.vm_records.get(name)
    said = report.said.get(f"vm/{name}") if report is not None else None
    sentence = said.text if said is not None else record_words(record) if record else ""
    hosts = placement.hosts.get(name)
    order = ha.moves.get(name)
    return HaVmStatus(
        settings=settings,
        node=vm.node if vm is not None else "",
        state=record.state if record is not None else None,
        since=record.since if record is not None else None,
        sentence=sentence,
        rules=tuple(sorted(rule.name for rule in ha.rules.values() if name in rule.vms)),
        classes=()
        if hosts is None
        else tuple(tuple(names) for names in hosts.classes(cluster.nodes)),
        together=tuple(sorted(placement.mates.get(name, ()))),
        apart=tuple(sorted(placement.rivals.get(name, ()))),
        target=order.target if order is not None else "",
        notes=_vm_notes(cluster, ha, name, placement),
    )


def _vm_notes(
    cluster: Cluster, ha: Availability, name: str, placement: Placement
) -> tuple[str, ...]:
    notes = []
    vm = cluster.vms.get(name)
    if vm is None:
        return ("there is no VM of that name any more",)
    for disk in vm.disks:
        if disk.volume is not None and disk.volume.pool in cluster.pools:
            pool = cluster.pools[disk.volume.pool]
            if not pool.shared:
                notes.append(f"disk {disk.name!r} is on {vm.node} alone: it starts nowhere else")
    for rule in ha.rules.values():
        if name in rule.vms and rule.name in placement.dropped:
            notes.append(f"rule {rule.name!r} is not in force: {placement.dropped[rule.name]}")
    return tuple(notes)


def node_status(ha: Availability, report: Report | None, name: str) -> HaNodeStatus:
    record = ha.node_records.get(name)
    said = report.said.get(f"node/{name}") if report is not None else None
    return HaNodeStatus(
        node=name,
        state=record.state if record is not None else None,
        sign=record.sign if record is not None else None,
        since=record.since if record is not None else None,
        sentence=said.text if said is not None else "",
        order=ha.orders.get(name),
    )


def status(
    cluster: Cluster,
    ha: Availability,
    report: Report | None,
    drill: Drill | None,
    *,
    lease: tuple[str, int, float] | None,
    now: float,
) -> HaStatus:
    """`lease`: who had it last, its epoch, and until when."""
    placement = resolve(ha.vms, ha.rules, cluster.nodes)
    holder, epoch, until = lease if lease is not None else ("", 0, 0.0)
    watched = until > now
    mine = report is not None and (report.holder, report.epoch) == (holder, epoch)
    disarmed = ha.policy.disarmed_until > now
    return HaStatus(
        at=now,
        watched=watched,
        leader=holder if watched else "",
        epoch=epoch,
        leading_since=report.since if report is not None and mine and watched else None,
        lease_until=until if watched else None,
        policy=ha.policy,
        disarmed=disarmed,
        nodes=tuple(node_status(ha, report, name) for name in sorted(cluster.nodes)),
        vms=tuple(vm_status(cluster, ha, report, name, placement) for name in sorted(ha.vms)),
        dropped_rules=dict(sorted(placement.dropped.items())),
        drill=drill,
        spare=report.said.get(SPARE) if report is not None else None,
        notes=(
            *_notes(ha, drill, watched=watched, disarmed=disarmed, now=now),
            *_of_balance(report),
        ),
    )


def _of_balance(report: Report | None) -> tuple[str, ...]:
    """What whoever watches says of balancing, where it does that by itself."""
    said = report.said.get("balance") if report is not None else None
    return () if said is None else (f"balance: {said.text}",)


def _notes(
    ha: Availability, drill: Drill | None, *, watched: bool, disarmed: bool, now: float
) -> tuple[str, ...]:
    notes = []
    if not watched and ha.vms:
        notes.append(f"{NOBODY}; what is said here is as it was seen last")
    if disarmed:
        left_h = (ha.policy.disarmed_until - now) / 3600
        notes.append(f"it is disarmed ({ha.policy.disarmed_as}) for another {left_h:.1f} h")
    if ha.vms and drill is None:
        notes.append("whether hosts can be fenced was never tried: `vorch doctor --fencing`")
    elif drill is not None and not drill.passed:
        wrong = ", ".join(check.name for check in drill.checks if check.level == "error")
        notes.append(f"the last fencing drill failed: {wrong}")
    elif drill is not None and now - drill.at > OLD_DRILL_S:
        days = (now - drill.at) / 86400
        notes.append(f"the last fencing drill was {days:.0f} days ago: `vorch doctor --fencing`")
    return tuple(notes)
