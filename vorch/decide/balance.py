"""Which VMs of the living cluster should be elsewhere: a plan of `room.balance` that holds. Pure.

The engine knows hosts and guests. Here it is told what else counts when somebody moves VMs that run
(how they move, when they did so last, where they would be taken back to), and each move is tried
against what the verb `migrate` would say before anybody sees the plan.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from vorch.availability import Availability, Requested, VmState
from vorch.availability import Limits as Settled
from vorch.decide import agree
from vorch.decide.barred import ruled
from vorch.decide.estimate import LEAST_SENT_MIB
from vorch.decide.move import migrate
from vorch.decide.records import is_on
from vorch.decide.room.balance import BalancePlan, Limits, Metric, Move
from vorch.decide.room.fleet import Fleet, Guest, Needs
from vorch.decide.room.keeping import balance, kept_off, without
from vorch.decide.room.live import POLICY, fleet_of, judged
from vorch.decide.rules import resolve
from vorch.errors import Conflict, VorchError
from vorch.model import Cluster, Domain, Task, TaskState, Vm
from vorch.plan import Plan

# How often a plan is made anew without the moves that were refused.
TRIES = 4
# Whether a move can be made on a cluster; raises why not.
Check = Callable[[Cluster, Move], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is known beside a look: what was measured, what was done lately, how links are."""

    now: float
    overhead_mib: int
    # Cores in use by the name of the VM.
    loads: Mapping[str, float] = field(default_factory=dict)
    # How fast VMs write to their memory, in MiB/s, of those that were measured.
    writes: Mapping[str, float] = field(default_factory=dict)
    # When each VM was moved last.
    moved_at: Mapping[str, float] = field(default_factory=dict)
    # VMs that somebody is at.
    busy: frozenset[str] = frozenset()
    # What goes over a link; 0: nobody knows.
    link_mib_s: float = 0.0


def moved_at(tasks: Iterable[Task]) -> dict[str, float]:
    """When each VM changed its host last, as far as tasks are kept."""
    found: dict[str, float] = {}
    for task in tasks:
        if task.verb in ("migrate", "relocate") and task.state is TaskState.DONE:
            at = task.finished_at or task.started_at
            found[task.subject] = max(at, found.get(task.subject, at))
    return found


def failed_at(tasks: Iterable[Task]) -> dict[str, float]:
    """When the last move of each VM failed, of those with which that was so."""
    last: dict[str, Task] = {}
    for task in tasks:
        if task.verb == "migrate" and task.over:
            known = last.get(task.subject)
            if known is None or known.started_at < task.started_at:
                last[task.subject] = task
    return {
        name: task.finished_at or task.started_at
        for name, task in last.items()
        if task.state in (TaskState.FAILED, TaskState.UNDONE, TaskState.STUCK)
    }


def link_mib_s(tasks: Iterable[Task], bandwidth_mib_s: int) -> float:
    """As it is set; else what moves have reached, on the median; 0 when none has told."""
    if bandwidth_mib_s:
        return float(bandwidth_mib_s)
    found = sorted(
        speed
        for task in tasks
        if task.verb == "migrate"
        and task.state is TaskState.DONE
        and (speed := _number(task, "speed_mib_s")) > 0
        and not _number(task, "limit_mib_s")
        and _number(task, "sent_mib") >= LEAST_SENT_MIB
    )
    return found[len(found) // 2] if found else 0.0


def _number(task: Task, name: str) -> float:
    value = task.result.get(name)
    return float(value) if isinstance(value, int | float) else 0.0


# ---------------------------------------------------------------------------------------------
# The plan


def planned(
    cluster: Cluster,
    ha: Availability,
    known: Known,
    check: Check,
    *,
    limits: Limits | None = None,
    metric: Metric = "vorch",
) -> BalancePlan:
    """Moves that each hold when it is their turn, as far as can be known now."""
    fleet = balanced_fleet(cluster, ha, known)
    refused: dict[str, dict[str, str]] = {}
    plan = balance(fleet, limits, metric=metric)
    for turn in range(2 * TRIES):
        wrong = _refused(cluster, ha, plan, check)
        if not wrong:
            break
        for name, hosts in wrong.items():
            refused.setdefault(name, {}).update(hosts)
        # Whoever is refused again and again stays where it is, and in the end everybody does.
        stay: Iterable[str] = refused if turn + 1 >= TRIES else ()
        if turn + 1 == 2 * TRIES:
            stay = [guest.name for guest in fleet.guests]
        plan = balance(without(fleet, refused, stay=stay), limits, metric=metric)
    notes = [
        f"{name!r} cannot go to {host!r}: {why}"
        for name, hosts in sorted(refused.items())
        for host, why in sorted(hosts.items())
    ]
    if not known.link_mib_s and plan.moves:
        notes.append(
            f"times are guessed: nobody has measured a move yet, so {POLICY.link_mib_s:g} MiB/s are"
            " taken"
        )
    return dataclasses.replace(plan, notes=(*plan.notes, *notes))


def balanced_fleet(cluster: Cluster, ha: Availability, known: Known) -> Fleet:
    """The fleet as somebody sees it who moves VMs that run, and stops none for it."""
    policy = dataclasses.replace(
        judged(ha.policy), link_mib_s=known.link_mib_s or POLICY.link_mib_s
    )
    fleet = fleet_of(
        cluster,
        ha,
        overhead_mib=known.overhead_mib,
        loads=known.loads,
        writes=known.writes,
        policy=policy,
    )
    worse = _worse(cluster, ha)
    shared: dict[Needs, Needs] = {}

    def changed(guest: Guest) -> Guest:
        barred = worse.get(guest.name)
        needs = guest.needs if barred is None else kept_off(guest.needs, barred)
        at = known.moved_at.get(guest.name)
        stays = guest.moves == "cold" or guest.name in known.busy or _unsettled(ha, guest.name)
        return dataclasses.replace(
            guest,
            needs=shared.setdefault(needs, needs),
            moved_s_ago=None if at is None else max(0.0, known.now - at),
            moves="pinned" if stays else guest.moves,
        )

    return dataclasses.replace(fleet, guests=tuple(changed(guest) for guest in fleet.guests))


def _unsettled(ha: Availability, name: str) -> bool:
    """High availability is about to do something with it."""
    settings, record = ha.vms.get(name), ha.vm_records.get(name)
    if settings is None or not settings.counts or record is None:
        return False
    return record.state is not VmState.RUNNING or name in ha.moves


def _worse(cluster: Cluster, ha: Availability) -> dict[str, dict[str, str]]:
    """Hosts that VMs like less than the one where they are: nobody is taken there for evenness."""
    if not (ha.rules or ha.vms):
        return {}
    placement = resolve(ha.vms, ha.rules, cluster.nodes)
    found = {}
    for name, hosts in placement.hosts.items():
        vm, settings = cluster.vms.get(name), ha.vms.get(name)
        if vm is None or (settings is not None and settings.requested is Requested.IGNORED):
            continue
        classes = hosts.classes(cluster.nodes)
        number = next((n for n, names in enumerate(classes) if vm.node in names), None)
        if number is not None:
            why = f"it would rather be on {vm.node}"
            found[name] = {host: why for names in classes[number + 1 :] for host in names}
    return found


def _refused(
    cluster: Cluster, ha: Availability, plan: BalancePlan, check: Check
) -> dict[str, dict[str, str]]:
    """What the verb says to each move, those before it having been made.

    It is shown what concerns that move: who is on both hosts, and who stands in rules.
    """
    on: dict[str, dict[str, Domain]] = {}
    for domain in cluster.domains.values():
        on.setdefault(domain.node, {})[domain.id] = domain
    names_on: dict[str, set[str]] = {}
    for vm in cluster.vms.values():
        names_on.setdefault(vm.node, set()).add(vm.name)
    ruled_names = {name for rule in ha.rules.values() for name in rule.vms}
    vms = dict(cluster.vms)
    wrong: dict[str, dict[str, str]] = {}
    for move in plan.moves:
        source, target = move.source, move.target
        here, there = on.setdefault(source, {}), on.setdefault(target, {})
        concerned = ruled_names | {move.guest} | names_on.setdefault(target, set())
        then = dataclasses.replace(
            cluster,
            vms={name: vms[name] for name in sorted(concerned) if name in vms},
            domains={**here, **there},
        )
        try:
            check(then, move)
        except VorchError as exc:
            wrong.setdefault(move.guest, {})[target] = exc.message
        vm = vms[move.guest] = dataclasses.replace(vms[move.guest], node=target)
        names_on.setdefault(source, set()).discard(vm.name)
        names_on[target].add(vm.name)
        if vm.id in here:
            there[vm.id] = dataclasses.replace(here.pop(vm.id), node=target)
    return wrong


# ---------------------------------------------------------------------------------------------
# When it is a move's turn


def could(cluster: Cluster, ha: Availability, step: Move, own: Settled) -> Plan:
    """What the verb `migrate` says to a move. Raises why not."""
    vm = cluster.vm(step.guest)
    return migrate(
        ruled(cluster, ha, vm.name, overhead_mib=own.vm_overhead_mib),
        vm.name,
        step.target,
        overhead_mib=own.vm_overhead_mib,
        pause_limit_ms=own.migration_pause_limit_ms,
        bandwidth_mib_s=own.migration_bandwidth_mib_s,
        # One that is away from its home for the time of a maintenance goes back there after it.
        away=bool(vm.home),
    )


def turn(
    cluster: Cluster, ha: Availability, step: Move, before: Mapping[str, Vm], own: Settled
) -> Plan:
    """The plan of one move, when it is its turn. Raises why it is not right any more."""
    need_same(cluster, ha, step, before)
    return said(could(cluster, ha, step, own), ha, step)


def said(plan: Plan, ha: Availability, step: Move) -> Plan:
    """The same with the reason of the move. A person's wish for that VM is over with it."""
    why = f"to {step.target} because {step.why}"
    return agree.moved(dataclasses.replace(plan, why=why), ha, step.guest)


def need_same(cluster: Cluster, ha: Availability, move: Move, before: Mapping[str, Vm]) -> Vm:
    """The VM, if it is still what the plan was made for and its target still takes guests."""
    vm, then = cluster.vms.get(move.guest), before.get(move.guest)
    if vm is None or then is None:
        raise _over(move, "there is no VM of that name any more")
    if vm.node != move.source:
        raise _over(move, f"it is on {vm.node!r} by now")
    if _size(vm) != _size(then):
        raise _over(move, "it was changed meanwhile")
    domain = cluster.domains.get(vm.id)
    if domain is None or not is_on(domain.power):
        raise _over(move, "it does not run any more")
    if move.target not in cluster.nodes:
        raise _over(move, "that host is not there any more")
    target = fleet_of(cluster, ha, overhead_mib=0).host(move.target)
    if target.closed:
        raise _over(move, f"nothing may go there now: {target.closed}")
    return vm


def _over(move: Move, why: str) -> Conflict:
    return Conflict(
        f"cannot move VM {move.guest!r} to {move.target!r}: {why}; balance again",
        vm=move.guest,
        node=move.target,
    )


def _size(vm: Vm) -> tuple[object, ...]:
    """What a plan about room rests on."""
    return (vm.id, vm.vcpus, vm.memory_mib, vm.memory_max_mib, vm.disks, vm.nics, vm.cpu)
