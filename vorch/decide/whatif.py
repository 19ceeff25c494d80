"""What would come of a failure: the loop's own decisions, played through on an imagined cluster.

What is imagined is the hosts' silence, and that each plan that follows succeeds. Everything else is
as it was seen, and decided by `ha.decide`, so that the answer is what would happen. Pure.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from vorch.availability import (
    Availability,
    Evidence,
    HaVm,
    Knock,
    Limits,
    NodeRecord,
    NodeState,
    Requested,
    Sign,
    VmRecord,
    VmState,
)
from vorch.codec import decode
from vorch.decide import ha as decide_ha
from vorch.decide.errands import Errand
from vorch.decide.records import is_on
from vorch.errors import Invalid
from vorch.model import Cluster, Domain, Power, Task, TaskState, Vm
from vorch.plan import MigrateDomain, Save, StartDomain

# Start orders and their delays are waited for so long; what comes later is not of this failure.
HORIZON_S = 24 * 3600.0
# However many rules pull at each other.
MOST_ROUNDS = 1000
# So many are started at the same time.
AT_ONCE = 16
# Where none was measured here.
ASSUMED_FENCE_S = 1.0
ASSUMED_START_S = 2.0
# The newest so many are asked.
MEASURED = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long the parts of a failover take, and where each figure comes from."""

    detect_s: float
    fence_s: float
    start_s: float
    made_of: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Restart:
    """A VM that would start elsewhere: about so long after the failure."""

    vm: str
    source: str
    target: str
    requested_at_s: float
    runs_at_s: float
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """A VM of a lost host that would not run again."""

    vm: str
    node: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatIf:
    """What would come of it."""

    nodes: tuple[str, ...]
    # In the order in which they are requested.
    restarts: tuple[Restart, ...]
    left: tuple[Left, ...]
    # VMs of other hosts that would move because of it, to these hosts.
    moved: dict[str, str]
    # Of the hosts: what each would be, in a sentence.
    sentences: dict[str, str]
    timing: Timing
    notes: tuple[str, ...] = ()

    @property
    def all_run_after_s(self) -> float | None:
        """None: nothing starts."""
        return max((one.runs_at_s for one in self.restarts), default=None)


def timing(tasks: Sequence[Task], *, detect: Mapping[str, float]) -> Timing:
    """`detect`: the settings that make up the time until a silent host is fenced, by name."""
    detect_s = sum(detect.values())
    parts = " + ".join(f"{name} {value:g}" for name, value in detect.items())
    fence_s, fence_words = _measured(tasks, ("fence", "node fence"), ASSUMED_FENCE_S, "fence")
    start_s, start_words = _measured(tasks, ("start",), ASSUMED_START_S, "start")
    return Timing(
        detect_s=detect_s,
        fence_s=fence_s,
        start_s=start_s,
        made_of=(
            f"{detect_s:g} s until it is found out ({parts})",
            fence_words,
            start_words,
        ),
    )


def _measured(
    tasks: Sequence[Task], verbs: Collection[str], assumed: float, what: str
) -> tuple[float, str]:
    took = [
        task.finished_at - task.started_at
        for task in sorted(tasks, key=lambda task: -task.started_at)
        if task.verb in verbs and task.state is TaskState.DONE and task.finished_at is not None
    ][:MEASURED]
    if not took:
        return assumed, f"{assumed:g} s for a {what} (assumed: none was measured here)"
    value = round(median(took), 2)
    return value, f"{value:g} s for a {what} (median of the last {len(took)} here)"


def whatif_fail(
    cluster: Cluster,
    ha: Availability,
    limits: Limits,
    lost: Sequence[str],
    *,
    fenceable: Collection[str],
    timing: Timing,
    now: float,
) -> WhatIf:
    """These hosts fall silent at once, on all networks. `fenceable`: hosts that can be fenced."""
    names = tuple(dict.fromkeys(lost))
    if not names:
        raise Invalid("cannot imagine a failure of no host: name one or several")
    for name in names:
        cluster.node(name)
    return _Imagined(cluster, ha, limits, names, fenceable, timing, now).play()


class _Imagined:
    def __init__(
        self,
        cluster: Cluster,
        ha: Availability,
        limits: Limits,
        lost: tuple[str, ...],
        fenceable: Collection[str],
        timing: Timing,
        now: float,
    ) -> None:
        self.before = cluster
        self.limits = limits
        self.lost = lost
        self.fenceable = fenceable
        self.timing = timing
        self.began = self.now = now
        self.restarts: list[Restart] = []
        self.sentences: dict[str, str] = {}
        gone = {vm_id: one for vm_id, one in cluster.domains.items() if one.node not in lost}
        self.cluster = dataclasses.replace(cluster, domains=gone, barred={}, leaning={})
        self.ha = dataclasses.replace(
            ha,
            node_records={**ha.node_records, **{one: self._silent(ha, one) for one in lost}},
            vm_records={name: self._record(ha, name) for name in ha.vms},
            evidence={name: self._evidence(ha, name) for name in cluster.nodes},
            moves={},
            busy={},
            busy_nodes=frozenset(),
        )

    # -- what is imagined

    def _silent(self, ha: Availability, name: str) -> NodeRecord:
        """Silent for just so long that something is done about it."""
        record = ha.node_records.get(name) or NodeRecord(node=name, since=self.began)
        since = self.began - self.limits.gone_after_s
        return dataclasses.replace(
            record, sign=Sign.GONE, sign_since=since, storage_answered=True, retry_at=0.0
        )

    def _record(self, ha: Availability, name: str) -> VmRecord:
        """Where nobody has looked yet, what is seen counts."""
        record, vm = ha.vm_records.get(name), self.before.vms.get(name)
        if record is not None and record.state is not VmState.STOPPED:
            return dataclasses.replace(record, retry_at=0.0)
        domain = None if vm is None else self.before.domain(vm)
        on = domain is not None and is_on(domain.power)
        return VmRecord(vm=name, state=VmState.RUNNING if on else VmState.STOPPED, since=self.began)

    def _evidence(self, ha: Availability, name: str) -> Evidence:
        storage = None if not self.before.nodes[name].storage_address else Knock.SILENCE
        record = ha.node_records.get(name)
        if name in self.lost:
            return Evidence(node=name, libvirt=False, management=Knock.SILENCE, storage=storage)
        if name not in self.before.silent:
            return Evidence(node=name, libvirt=True, storage=storage and Knock.ANSWER)
        # Silent already. Unless whoever watches knows better, its VMs go on there.
        dead = record is not None and record.sign is Sign.GONE
        return Evidence(
            node=name,
            libvirt=False,
            libvirt_says=self.before.silent[name],
            management=Knock.SILENCE if dead else Knock.ANSWER,
            storage=storage if dead else storage and Knock.ANSWER,
        )

    # -- what follows

    def play(self) -> WhatIf:
        for _ in range(MOST_ROUNDS):
            came = decide_ha.decide(self.cluster, self.ha, self.limits, self.now)
            self.sentences = came.sentences
            self.ha = dataclasses.replace(
                self.ha,
                node_records={**self.ha.node_records, **came.node_records},
                vm_records={
                    name: record
                    for name, record in {**self.ha.vm_records, **came.vm_records}.items()
                    if record is not None
                },
            )
            for errand in came.errands:
                self._succeeds(errand)
            if came.errands or came.node_records or came.vm_records:
                continue
            if came.due_at is None or self.ha.policy.disarmed_until > self.began:
                break
            if came.due_at - self.began > HORIZON_S:
                break
            self.now = came.due_at
        return self._result()

    def _succeeds(self, errand: Errand) -> None:
        """The cluster as it is when the plan has ended well."""
        if errand.purpose in ("note", "unfence"):
            # Nobody waits for these; not to be asked again.
            self._later(errand)
            return
        if errand.purpose == "fence" and errand.node not in self.fenceable:
            self._later(errand)
            return
        for step in errand.plan.steps:
            if isinstance(step, Save):
                self._saved(step)
            elif isinstance(step, StartDomain):
                self._runs(step.vm, step.vm.node)
                self._restarted(step.vm, errand.plan.why)
            elif isinstance(step, MigrateDomain):
                self._runs(step.vm, step.target)
        if errand.purpose in ("stop", "cut") or errand.plan.verb == "relocate":
            vm = self.cluster.vms[errand.vm]
            rest = {key: one for key, one in self.cluster.domains.items() if key != vm.id}
            self.cluster = dataclasses.replace(self.cluster, domains=rest)

    def _later(self, errand: Errand) -> None:
        never = float("inf")
        if errand.vm:
            record = dataclasses.replace(self.ha.vm_records[errand.vm], retry_at=never)
            self.ha = dataclasses.replace(
                self.ha, vm_records={**self.ha.vm_records, errand.vm: record}
            )
        else:
            host = dataclasses.replace(self.ha.node_records[errand.node], retry_at=never)
            self.ha = dataclasses.replace(
                self.ha, node_records={**self.ha.node_records, errand.node: host}
            )

    def _saved(self, step: Save) -> None:
        kind, _, name = step.key.partition("/")
        if step.after is None:
            return
        if kind == "vm":
            vm = decode(Vm, step.after)
            self.cluster = dataclasses.replace(self.cluster, vms={**self.cluster.vms, name: vm})
        elif kind == "hanode":
            record = decode(NodeRecord, step.after)
            if record.state is NodeState.FENCED:
                record = dataclasses.replace(record, why="its fence would be proven")
            self.ha = dataclasses.replace(
                self.ha, node_records={**self.ha.node_records, name: record}
            )

    def _runs(self, vm: Vm, node: str) -> None:
        domain = Domain(
            id=vm.id,
            name=vm.name,
            node=node,
            power=Power.RUNNING,
            vcpus=vm.vcpus,
            memory_mib=vm.memory_mib,
            generation=vm.generation,
        )
        self.cluster = dataclasses.replace(
            self.cluster, domains={**self.cluster.domains, vm.id: domain}
        )

    def _restarted(self, vm: Vm, why: str) -> None:
        at_s = self.timing.detect_s + self.timing.fence_s + self.now - self.began
        same = sum(one.requested_at_s == at_s for one in self.restarts)
        self.restarts.append(
            Restart(
                vm=vm.name,
                source=self.before.vms[vm.name].node,
                target=vm.node,
                requested_at_s=at_s,
                runs_at_s=at_s + self.timing.start_s * (1 + same // AT_ONCE),
                why=self.ha.vm_records[vm.name].why or why,
            )
        )

    # -- what came of it

    def _result(self) -> WhatIf:
        running = {one.vm for one in self.restarts}
        moved = {
            name: vm.node
            for name, vm in sorted(self.cluster.vms.items())
            if vm.node != (was := self.before.vms[name].node)
            and was not in self.lost
            and vm.id in self.cluster.domains
        }
        return WhatIf(
            nodes=self.lost,
            restarts=tuple(one for one in self.restarts if one.source in self.lost),
            left=tuple(
                Left(vm=name, node=vm.node, why=self._why_left(name, self.ha.vms.get(name)))
                for name, vm in sorted(self.before.vms.items())
                if vm.node in self.lost and name not in running and self._ran(name)
            ),
            moved=moved,
            sentences={
                name: self.sentences.get(f"node/{name}", "nobody looks at it") for name in self.lost
            },
            timing=self.timing,
            notes=self._notes(),
        )

    def _ran(self, name: str) -> bool:
        """It is missed: it ran, or was to."""
        vm, settings = self.before.vms[name], self.ha.vms.get(name)
        domain = self.before.domain(vm)
        wanted = settings is not None and settings.requested is Requested.STARTED
        return wanted or vm.wanted == "running" or (domain is not None and is_on(domain.power))

    def _why_left(self, name: str, settings: HaVm | None) -> str:
        if settings is None:
            return f"it is not looked after (vorch ha set {name})"
        node = self.before.vms[name].node
        if node not in self.fenceable and self.ha.policy.disarmed_until <= self.began:
            return f"no way to fence {node} is set up, so nothing of it starts elsewhere"
        return self.sentences.get(f"vm/{name}", "nobody looks at it")

    def _notes(self) -> tuple[str, ...]:
        notes = []
        if self.ha.policy.disarmed_until > self.began:
            left_h = (self.ha.policy.disarmed_until - self.began) / 3600
            notes.append(f"it is disarmed for another {left_h:.1f} h: until then nothing is done")
        for name in sorted(self.before.silent.keys() - set(self.lost)):
            notes.append(f"host {name} is silent now, and takes nothing")
        return tuple(notes)
