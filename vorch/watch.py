"""The loop that keeps VMs running: lease → look → decide → act. One class, with a `step`.

On as many machines as one likes; the one that has the lease leads. Every write of a leader carries
the lease's epoch, so one that was stopped for a while and wakes up writes nothing any more. The
others look at the hosts that are silent to the leader, and say whether they are so to them.

Nothing here waits for the clock: whoever calls `step` decides when the next one is (`Pace`). So the
simulator plays hours in moments with the very loop that `vorch serve` runs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, TypeVar

from vorch.aside import begin
from vorch.autobalance import Autobalance
from vorch.availability import (
    PROVEN_DEAD,
    Availability,
    Evidence,
    HaPolicy,
    HaVm,
    HostOrder,
    Knock,
    Limits,
    MoveOrder,
    NodeRecord,
    NodeState,
    Report,
    Rule,
    Sign,
    View,
    VmRecord,
    VmState,
)
from vorch.codec import Coded
from vorch.config import Settings
from vorch.decide import ha
from vorch.decide.balance_settings import BalancePolicy, LastBalance
from vorch.decide.errands import Errand, Round
from vorch.decide.ha_status import SPARE, reported
from vorch.decide.room.loads import Loads
from vorch.decide.seen import shown_by
from vorch.errors import Conflict, Unreachable, Unsupported, VorchError
from vorch.execute import Executor, Hook, claim_key
from vorch.frozen import quick, replace
from vorch.model import Clients, Cluster, Domain, Network, Node, Pool, Task, Vm, Volume
from vorch.orchestrator import kept
from vorch.orchestrator.kept import LEASE, REPORT
from vorch.orchestrator.limits import limits_of
from vorch.patience import Patience
from vorch.ports import Change, Document, Lease, State, World
from vorch.questions import Answer, Questions
from vorch.sparewatch import SpareWatch

T = TypeVar("T")
# Key → version and value.
Decoded = dict[str, tuple[int, Any]]
KINDS: dict[str, type[Any]] = {
    "vm": Vm,
    "node": Node,
    "pool": Pool,
    "network": Network,
    "clients": Clients,
    **kept.KINDS,
    "view": View,
    "report": Report,
    "load": Loads,
    "balance": BalancePolicy,
    "balanced": LastBalance,
}
# Of these it matters which there are, not what is in them.
BARE_KINDS = ("claim", "plan")
# What those need to know that do not lead.
STANDING_BY: dict[str, type[Any]] = {"node": Node, "hanode": NodeRecord}
BARE_STANDING_BY = ("plan",)
# A revision that no store is at: whoever asks for changes since then hears which one it is at.
NEVER_SEEN = 2**62
# What one round makes possible, the next one does, without waiting for the next step.
ROUNDS_PER_STEP = 12
WORKERS = 16
# A host that takes longer than this part of its time to answer is knocked at meanwhile.
HESITATION = 4
# What a machine that is busy itself may need to say that nobody has answered.
SPARE_S = 2.0
# What is still under way when the process is to end has so long to come to its own end.
ENDING_S = 5.0


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """What came of a step."""

    leading: bool
    # Nothing was done, and nothing changes until something else does, or `due_at` comes.
    quiet: bool = True
    # No host is half silent: what is seen of those changes by itself, as watchers lapse.
    clear: bool = True
    due_at: float | None = None
    # What there is to say about each host and VM ("node/h1", "vm/web").
    sentences: dict[str, str] = field(default_factory=dict)
    # Why nothing could be done.
    trouble: str = ""


class Watch:
    """One vorch process that watches. Not for several threads at once."""

    # For tests: told of each decision that was not made, with what it came to before.
    skipped: Callable[[Round, Cluster, Availability, Limits, float], bool] | None = None

    def __init__(
        self,
        world: World,
        settings: Settings,
        *,
        hook: Hook | None = None,
        say: Callable[[dict[str, str]], None] = lambda sentences: None,
        decoded: Decoded | None = None,
    ) -> None:
        """`say` is told what there is to say about every host and VM, once a round.

        `decoded` can be shared by several in one process that look at one store.
        """
        if world.witness is None:
            raise Unsupported(
                "cannot watch over this cluster: nothing here can look at hosts but their libvirt;"
                " use a cluster in Ceph"
            )
        self.world = world
        self.settings = settings
        self.limits = limits_of(settings)
        self.lease: Lease | None = None
        self.executor = Executor(
            world, settings, watch=self._beat, hook=hook, lease=lambda: self.lease
        )
        self._say = say
        self._view_key = f"view/{_identity(world)}"
        self.holder = f"{world.who} {_identity(world)}"
        self.sentences: dict[str, str] = {}
        # What documents say, by key and version, so that none is read out twice.
        self._decoded: Decoded = {} if decoded is None else decoded
        self._mirror = _Mirror(world.state, STANDING_BY, self._decoded)
        self._questions = Questions(threads=world.threads)
        # Hosts that were silent in this step, and when they were looked at. One that is, costs its
        # time once in it, unless what was done meanwhile took so long that it may be back.
        self._silent: dict[str, tuple[float, Evidence]] = {}
        self._woken = threading.Event()
        self._hands = _Hands(self)
        self._balance = Autobalance(world, settings, wake=self.wake)
        self._spare = SpareWatch(world, self.limits.vm_overhead_mib, wake=self.wake)
        self._patience = Patience(world.clock, settings.ha_lease_s)
        # By the clock that nobody sets.
        self._renewed_at = self._stands_back_until = float("-inf")
        self._last_view: View | None = None
        self._asked_last: tuple[dict[str, Node], dict[str, NodeRecord], list[str]] | None = None
        self._last_round: tuple[object, Round] | None = None
        # What a report was made of last, and the report.
        self._reported: tuple[dict[str, str], dict[str, VmRecord], Report | None] | None = None
        self._looking_since = float("-inf")
        # Of each other vorch's view, when it was made by its clock, and since when it is known.
        self._views_known: dict[str, tuple[float, float]] = {}

    def step(self) -> Pace:
        """One look and what follows from it. Never raises for what may well happen."""
        self._silent.clear()
        try:
            if not self._lead():
                self._stand_by()
                return Pace(leading=False)
            return self._rounds()
        except VorchError as exc:
            return Pace(leading=False, quiet=False, trouble=exc.message)

    def rest(self, seconds: float) -> None:
        """Until the next step: that long, or until a plan ends that others wait for."""
        self._woken.wait(seconds)
        self._woken.clear()

    @property
    def look_s(self) -> float:
        """How long a look takes now."""
        return self.settings.ha_answer_s if self._silent else 0.0

    @property
    def revision(self) -> int | None:
        """How much of the store it knew at its last look."""
        return self._mirror.revision

    def wake(self) -> None:
        """It is time for the next step. From any thread."""
        self._woken.set()

    def close(self) -> None:
        """End in good order: somebody else can lead at once."""
        try:
            self._hands.close()
        finally:
            if self.lease is not None:
                self.world.state.release(self.lease)
                self.lease = None

    # -- the lease

    def _lead(self) -> bool:
        """Whether this process leads now."""
        clock, ttl_s = self.world.clock, self.settings.ha_lease_s
        began, now = clock.monotonic(), clock.now()
        if self.lease is not None:
            self.lease = self.world.state.renew(self.lease, ttl_s, now=now)
            if self.lease is None:
                self._begin_anew(STANDING_BY)
        if self.lease is None and began >= self._stands_back_until:
            self.lease = self._take_lease(now)
            if self.lease is not None:
                # What it knew may be of long ago.
                self._begin_anew(KINDS)
                self._looking_since = now
                self._views_known = {}
                self._balance.begin_anew()
        self._renewed_at = began
        return self.lease is not None

    def _take_lease(self, now: float) -> Lease | None:
        """When nobody has it, or whoever had it has let go of it."""
        state, ttl_s = self.world.state, self.settings.ha_lease_s
        last = state.lease(LEASE)
        self._patience.look(last)
        if self._patience.left_s > 0.0 and last is not None and last.holder != self.holder:
            return None
        return state.acquire(LEASE, self.holder, ttl_s, now=now, over=last)

    def may_lead_in_s(self, last: Lease | None) -> float:
        """How long until it would take this lease; 0 when it does not know of it yet."""
        return self._patience.left_s if last == self._patience.last else 0.0

    def _begin_anew(self, kinds: dict[str, type[Any]]) -> None:
        """As one who leads now, or does not any more: what was known and asked is of before."""
        self._mirror = _Mirror(self.world.state, kinds, self._decoded)
        self._questions = Questions(threads=self.world.threads)
        self._reported = None

    def _beat(self, task: Task) -> None:
        """During long plans of a world without threads."""
        if self.world.threads or self.lease is None or not self._renewal_is_due:
            return
        self._renewed_at, now = self.world.clock.monotonic(), self.world.clock.now()
        # One that is lost stays here, so that the plan's next commit fails by its epoch.
        self.lease = self.world.state.renew(self.lease, self.settings.ha_lease_s, now=now) or (
            self.lease
        )

    @property
    def _renewal_is_due(self) -> bool:
        return self.world.clock.monotonic() - self._renewed_at > self.settings.ha_lease_s / 3

    # -- those that do not lead

    def _stand_by(self) -> None:
        """Look at the hosts that are silent to the leader."""
        self._mirror.refresh()
        if self._mirror.keys("plan"):
            # What it began when it led and could not finish: nobody else may take that from it yet.
            self.executor.recover()
        nodes, asked = self._asked()
        if not asked:
            if self._last_view is not None:
                self._write({self._view_key: None})
                self._last_view = None
            return
        now = self.world.clock.now()
        managed = tuple(sorted(n for n in asked if self._answers_here(nodes[n], "management")))
        stored = {name for name in asked if self._answers_here(nodes[name], "storage")}
        answering = tuple(sorted({*managed, *stored}))
        last = self._last_view
        stale = last is None or now - last.at > self.settings.ha_view_for_s / 3
        if last is None or stale or (answering, managed) != (last.answering, last.managed):
            view = View(holder=self.holder, at=now, answering=answering, managed=managed)
            self._write({self._view_key: view})
            self._last_view = view

    def _asked(self) -> tuple[dict[str, Node], list[str]]:
        """All hosts, and the names of those that are silent to the leader.

        What the mirror has handed out it never changes, so of the same two it is the same.
        """
        nodes, records = self._mirror.of(Node), self._mirror.of(NodeRecord)
        last = self._asked_last
        if last is not None and last[0] is nodes and last[1] is records:
            return nodes, last[2]
        asked = [
            record.node
            for record in records.values()
            if record.node in nodes and record.state in (NodeState.SUSPECT, NodeState.FENCING)
        ]
        self._asked_last = (nodes, records, asked)
        return nodes, asked

    def _answers_here(self, node: Node, network: Literal["management", "storage"]) -> bool:
        assert self.world.witness is not None
        knock = self.world.witness.knock(node, network, self.settings.ha_answer_s)
        return knock not in (None, Knock.SILENCE)

    def _write(self, values: dict[str, Any]) -> None:
        """Documents that nobody else writes."""
        self.world.state.commit(
            [
                Change(key, None, None if value is None else Coded(value))
                for key, value in values.items()
            ]
        )

    # -- the leader

    def _rounds(self) -> Pace:
        quiet, due_at = True, None
        for _ in range(ROUNDS_PER_STEP):
            if not self._still_leads():
                return Pace(leading=False, quiet=False)
            self._hands.collect()
            recovered = self._recover()
            cluster, seen = self._look()
            came = self._evened(self._decide(cluster, seen), cluster, seen, idle=not recovered)
            came = self._spared(came, cluster, seen)
            self.sentences = came.sentences
            self._say(came.sentences)
            due_at = came.due_at
            self._record(came, seen)
            done = [self._hands.carry_out(errand) for errand in came.errands]
            quiet = quiet and came.quiet and not recovered and not self._hands.busy
            if not any(done) and not recovered:
                break
        # What is half silent may change without anybody doing anything: watchers lapse.
        signs = [record.sign for record in self._mirror.of(NodeRecord).values()]
        if Sign.PARTED in signs:
            self._resign()
            return Pace(leading=False, quiet=False, sentences=self.sentences)
        clear = signs.count(Sign.WELL) + signs.count(Sign.GONE) == len(signs)
        return Pace(leading=True, quiet=quiet, clear=clear, due_at=due_at, sentences=self.sentences)

    def _still_leads(self) -> bool:
        """Rounds may be long: the lease is kept up between them."""
        return self._lead() if self._renewal_is_due else self.lease is not None

    def _decide(self, cluster: Cluster, seen: Availability) -> Round:
        """What came of the same look the last time comes of it again, until something is due."""
        now = self.world.clock.now()
        known = (cluster.vms, cluster.nodes, cluster.pools, cluster.networks, cluster.clients)
        look = (known, seen, _bare(cluster.domains), cluster.silent)
        if self._last_round is not None:
            last, came = self._last_round
            if came.quiet and (came.due_at is None or now < came.due_at) and look == last:
                assert self.skipped is None or self.skipped(came, cluster, seen, self.limits, now)
                return came
        came = ha.decide(cluster, seen, self.limits, now)
        # A sentence about time that is left grows old.
        self._last_round = None if seen.policy.disarmed_until > now else (look, came)
        return came

    def _evened(self, came: Round, cluster: Cluster, seen: Availability, *, idle: bool) -> Round:
        """The same with moves for evenness, where that is set and there is nothing else to do."""
        now, mirror = self.world.clock.now(), self._mirror
        written, last = mirror.of(Loads).get("vms"), mirror.of(LastBalance).get("auto")
        values: dict[str, Any] = {}
        loads = self._balance.look(cluster, written, now)
        if loads is not None:
            values["load/vms"] = loads
        policy = mirror.of(BalancePolicy).get("policy")
        if policy is None or not policy.auto:
            self._balance.stop()
        else:
            idle = idle and came.quiet and not self._hands.busy and not mirror.keys("plan")
            turn = self._balance.decide(policy, last, cluster, seen, now, idle=idle)
            if turn.last is not None:
                values["balanced/auto"] = turn.last
            due = [at for at in (came.due_at, turn.due_at) if at is not None]
            came = replace(
                came,
                errands=(*came.errands, *turn.errands),
                sentences={**came.sentences, "balance": turn.sentence},
                due_at=min(due, default=None),
            )
        self.commit(values)
        return came

    def _spared(self, came: Round, cluster: Cluster, seen: Availability) -> Round:
        """The same with whether there is room for the loss of a host."""
        states = {name: record.state for name, record in seen.node_records.items()}
        settings = (seen.policy, seen.vms, seen.rules, seen.orders, seen.busy, states)
        known = (cluster.vms, cluster.nodes, _bare(cluster.domains), cluster.silent)
        says = self._spare.says(
            (known, settings, seen.vm_records),
            cluster,
            seen,
            self._mirror.of(Report).get("ha"),
            rests=came.quiet,
        )
        if not says:
            return came
        return replace(came, sentences={**came.sentences, SPARE: says})

    def _resign(self) -> None:
        """Others see hosts that this process does not: let one of them lead for a while."""
        if self.lease is not None and not self._hands.busy:
            self.world.state.release(self.lease)
            self.lease = None
            self._begin_anew(STANDING_BY)
            back_s = 2 * self.settings.ha_lease_s
            self._stands_back_until = self.world.clock.monotonic() + back_s

    def _recover(self) -> bool:
        """Finish or undo what other processes have left; at once where a host was just fenced."""
        self._mirror.refresh()
        if not self._mirror.keys("plan"):
            return False
        fenced = any(
            record.state is NodeState.FENCED
            and self.world.clock.now() - record.since <= self.settings.ha_lease_s
            for record in self._mirror.of(NodeRecord).values()
        )
        return bool(self.executor.recover(force=fenced))

    def _record(self, came: Round, seen: Availability) -> None:
        """What was decided, before anything is done: whoever takes over knows how far it is."""
        last = self._mirror.of(Report).get("ha")
        if came.quiet and self._reported is not None:
            sentences, records, report = self._reported
            if report is last and records is seen.vm_records and sentences == came.sentences:
                # It comes to the same, and is written down.
                return
        values: dict[str, Any] = {
            **{f"hanode/{name}": record for name, record in came.node_records.items()},
            **{f"havm/{name}": record for name, record in came.vm_records.items()},
            **{f"order/{name}": order for name, order in came.orders.items()},
            **{f"ha/{name}": settings for name, settings in came.settings.items()},
            **{f"move/{name}": None for name in came.dropped_moves},
        }
        report = self._report(came, seen)
        if report != last:
            values[REPORT] = report
        # Whoever is just changing the settings of a VM comes first.
        checks = [Change(claim_key(f"ha/{name}"), 0, check_only=True) for name in came.settings]
        self.commit(values, checks)
        self._reported = (came.sentences, seen.vm_records, self._mirror.of(Report).get("ha"))

    def _report(self, came: Round, seen: Availability) -> Report:
        """What there is to say, where other processes can read it."""
        assert self.lease is not None
        return reported(
            self._mirror.of(Report).get("ha"),
            came,
            seen,
            holder=self.lease.holder,
            epoch=self.lease.epoch,
            now=self.world.clock.now(),
        )

    def commit(self, values: dict[str, Any], checks: Iterable[Change] = ()) -> None:
        """Write under the lease what rests on what was last read."""
        if not values:
            return
        changes = [
            Change(key, self._mirror.version(key), None if value is None else Coded(value))
            for key, value in values.items()
        ]
        version = self.world.state.commit([*changes, *checks], lease=self.lease)
        for key, value in values.items():
            self._mirror.put(key, version, value)
            if value is not None:
                # Whoever shares what was read out need not read this one either.
                self._decoded[key] = (version, value)

    # -- looking

    def _look(self) -> tuple[Cluster, Availability]:
        mirror = self._mirror
        mirror.refresh()
        nodes = mirror.of(Node)
        names = sorted(nodes)
        answers = self.world.each(self._seen_at, names)
        evidence = {name: found for name, (found, _) in zip(names, answers, strict=True)}
        told = {
            name: shown if found.libvirt else found.libvirt_says
            for name, (found, shown) in zip(names, answers, strict=True)
        }
        domains, silent = shown_by(mirror.of(Vm), told)
        cluster = Cluster(
            vms=mirror.of(Vm),
            nodes=nodes,
            pools=mirror.of(Pool),
            networks=mirror.of(Network),
            clients=mirror.of(Clients),
            domains=domains,
            silent=silent,
            versions=mirror.versions,
        )
        availability = Availability(
            policy=mirror.of(HaPolicy).get("ha") or HaPolicy(),
            vms=mirror.of(HaVm),
            rules=mirror.of(Rule),
            orders=mirror.of(HostOrder),
            moves=mirror.of(MoveOrder),
            node_records=mirror.of(NodeRecord),
            vm_records=mirror.of(VmRecord),
            evidence=evidence,
            busy=self._busy("vm") | self._hands.vms,
            busy_nodes=frozenset(self._busy("hanode")) | self._hands.nodes,
            looking_since=self._looking_since,
        )
        return cluster, availability

    def _busy(self, kind: str) -> dict[str, str]:
        """What a plan has a claim on, whoever runs it."""
        prefix = f"{kind}."
        return {
            name.removeprefix(prefix): ""
            for name in self._mirror.keys("claim")
            if name.startswith(prefix)
        }

    def _seen_at(self, name: str) -> tuple[Evidence, tuple[Domain, ...]]:
        """What there is to see of one host now, without waiting where that is of no use."""
        began = self.world.clock.now()
        looked_at, known = self._silent.get(name, (began, None))
        if known is not None and 0.0 <= began - looked_at < self.settings.ha_gone_after_s:
            return known, ()
        record = self._mirror.of(NodeRecord).get(name)
        about = f"dead {name}"
        if record is None or record.state not in PROVEN_DEAD or not self.world.threads:
            self._questions.forget(about)
            found = self._look_at(name)
        else:
            # Whether it is back is asked beside the rest: its VMs wait for nothing of it.
            found = self._questions.latest(about, lambda: self._look_at(name)) or (
                Evidence(
                    node=name,
                    libvirt=False,
                    libvirt_says="it was cut off",
                    management=Knock.SILENCE,
                    storage=Knock.SILENCE,
                ),
                (),
            )
        self._silent.pop(name, None)
        if not found[0].libvirt:
            self._silent[name] = (self.world.clock.now(), found[0])
        return found

    def _look_at(self, name: str) -> tuple[Evidence, tuple[Domain, ...]]:
        """Everything about one host, within the time that a host has to answer.

        One that was silent is knocked at before it is asked. Else it is asked, and knocked at as
        soon as it hesitates.
        """
        assert self.world.witness is not None
        node, witness = self._mirror.of(Node)[name], self.world.witness
        patience_s = self.settings.ha_answer_s
        begin = self._questions.begin

        def knock(network: Literal["management", "storage"]) -> Answer[Knock | None]:
            about = f"{network} of {name}"
            # It ends by itself after its time, and "silence" is another answer than none.
            limit_s = patience_s + SPARE_S
            return begin(about, lambda: witness.knock(node, network, patience_s), limit_s)

        def read_power() -> Answer[Literal["on", "off"] | None]:
            return begin(f"power of {name}", lambda: witness.power(node, patience_s), patience_s)

        storage_knock = knock("storage")
        record = self._mirror.of(NodeRecord).get(name)
        management_knock = power = None
        says = "it was silent before, and it is silent to a knock"
        if record is not None and record.sign is not Sign.WELL:
            management_knock, power = knock("management"), read_power()
        shown: tuple[Domain, ...] | None = None
        if management_knock is None or management_knock.wait() is not Knock.SILENCE:
            says = f"no answer came in {patience_s:g} s"
            asked = begin(
                f"libvirt of {name}", lambda: self.world.hypervisor(name).domains(), patience_s
            )
            try:
                shown = asked.wait(patience_s / HESITATION)
                if shown is None and management_knock is None:
                    management_knock, power = knock("management"), read_power()
                if shown is None:
                    shown = asked.wait()
            except VorchError as exc:
                says = exc.message
        storage = storage_knock.wait()
        if shown is not None:
            heard = begin(
                f"endings of {name}",
                lambda: dict(self.world.hypervisor(name).endings()),
                patience_s,
            )
            endings = self._quietly(heard.wait)
            return Evidence(node=name, libvirt=True, storage=storage, endings=endings), shown
        if management_knock is None or power is None:
            management_knock, power = knock("management"), read_power()
        management = management_knock.wait()
        disks_open, disks = self._disks_open(name, storage)
        osds, views = self._quietly(lambda: witness.osds(node)), self._views()
        evidence = Evidence(
            node=name,
            libvirt=False,
            libvirt_says=says,
            management=management,
            storage=storage,
            disks_open=disks_open,
            disks=disks,
            osds_up=None if osds is None else osds[0],
            power=power.wait(),
            answers_to=tuple(sorted(one.holder for one in views if name in one.answering)),
            managed_by=tuple(sorted(one.holder for one in views if name in one.managed)),
        )
        return evidence, ()

    def _disks_open(self, name: str, storage: Knock | None) -> tuple[int | None, int]:
        """How many disks of the VMs that should run there somebody has open, and of how many."""
        if storage is Knock.SILENCE or storage is None:
            # What still seems open then says nothing: a watcher outlives its host for a while.
            return None, 0
        volumes = self._volumes_on(name)
        if not volumes:
            return None, 0
        assert self.world.witness is not None
        witness = self.world.witness
        clients = self._quietly(lambda: witness.clients(volumes))
        if clients is None:
            return None, len(volumes)
        return sum(bool(found) for found in clients.values()), len(clients)

    def _volumes_on(self, name: str) -> list[Volume]:
        records = self._mirror.of(VmRecord)
        return [
            disk.volume
            for vm in self._mirror.of(Vm).values()
            if vm.node == name and vm.name in records
            if vm.wanted == "running" and records[vm.name].state is not VmState.ERROR
            for disk in vm.data_disks
            if disk.volume is not None
        ]

    @staticmethod
    def _quietly(ask: Callable[[], T]) -> T | None:
        try:
            return ask()
        except Unreachable:
            return None

    def _views(self) -> list[View]:
        """What the others see, as long as that is fresh: since this process has known it.

        By their clocks, or by ours against theirs, it may look older than it is.
        """
        now = self.world.clock.now()
        views = {
            key: view for key, view in self._mirror.of(View).items() if view.holder != self.holder
        }
        known = self._views_known
        self._views_known = {
            key: known[key] if key in known and known[key][0] == view.at else (view.at, now)
            for key, view in views.items()
        }
        return [
            view
            for key, view in views.items()
            if now - self._views_known[key][1] <= self.settings.ha_view_for_s
        ]

    # -- what came of plans

    def settle(self, errand: Errand, error: VorchError | None) -> None:
        """Write down what a plan's end means for the next round."""
        if errand.purpose == "balance":
            self._balance.ended(error)
            return
        if error is not None:
            self._mirror.refresh()
        now = self.world.clock.now()
        if errand.vm:
            settings = self._mirror.of(HaVm).get(errand.vm)
            record = self._mirror.of(VmRecord).get(errand.vm)
            if settings is None or record is None:
                return
            values: dict[str, Any] = {}
            after = ha.after(errand, error, record, settings, self.limits, now)
            if after != record:
                values[f"havm/{errand.vm}"] = after
            if error is not None and errand.order in self._mirror.of(MoveOrder):
                values[f"move/{errand.order}"] = None
            self.commit(values)
        elif error is not None:
            node = self._mirror.of(NodeRecord).get(errand.node)
            if node is not None:
                retry_at = now + self.limits.fence_retry_after_s
                self.commit({f"hanode/{errand.node}": replace(node, retry_at=retry_at)})


def _bare(domains: dict[str, Domain]) -> list[tuple[object, ...]]:
    """Without what always changes: the time that they ran."""
    return [
        (one.id, one.node, one.power, one.reason, one.memory_mib, one.vcpus)
        for one in domains.values()
    ]


def _identity(world: World) -> str:
    """This process, in a word that can be part of a key."""
    return ".".join(str(value) for _, value in sorted(world.processes.me().items()))


# ---------------------------------------------------------------------------------------------


class _Hands:
    """Carries plans out: side by side where threads are allowed, else one after the other."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._under_way: dict[Future[VorchError | None], Errand] = {}
        self._turns = threading.Semaphore(WORKERS)

    @property
    def busy(self) -> bool:
        return bool(self._under_way)

    @property
    def vms(self) -> dict[str, str]:
        return {errand.vm: errand.node for errand in self._under_way.values() if errand.vm}

    @property
    def nodes(self) -> frozenset[str]:
        return frozenset(errand.node for errand in self._under_way.values() if not errand.vm)

    def carry_out(self, errand: Errand) -> bool:
        """Whether it is done; else it is under way."""
        # One that only writes records is done at once, so that what follows from it can be, too.
        if not self._watch.world.threads or errand.purpose == "register":
            self._end(errand, self._run(errand))
            return True
        name = f"vorch-ha {errand.plan.verb} {errand.plan.subject}"
        future = begin(partial(self._in_turn, errand), name=name)
        self._under_way[future] = errand
        future.add_done_callback(lambda _: self._watch.wake())
        return False

    def _in_turn(self, errand: Errand) -> VorchError | None:
        with self._turns:
            return self._run(errand)

    def _run(self, errand: Errand) -> VorchError | None:
        try:
            self._watch.executor.run(errand.plan)
        except VorchError as exc:
            return exc
        return None

    def collect(self) -> None:
        """Note what has ended since."""
        for future in [future for future in self._under_way if future.done()]:
            self._end(self._under_way.pop(future), future.result())

    def _end(self, errand: Errand, error: VorchError | None) -> None:
        if error is not None and _was_overtaken(error):
            # Nothing was tried: what it rested on had changed, or somebody else is at it.
            return
        self._watch.settle(errand, error)

    def close(self) -> None:
        """What does not end in time is left: the next one who leads finds it in the store."""
        wait(self._under_way, ENDING_S)
        self.collect()


def _was_overtaken(error: VorchError) -> bool:
    return isinstance(error, Conflict) and "key" in error.fields


# ---------------------------------------------------------------------------------------------


class _Mirror:
    """The documents as they were last read. Only what has changed is read again."""

    def __init__(self, state: State, kinds: dict[str, type[Any]], decoded: Decoded) -> None:
        self._state = state
        self._kinds = kinds
        self._decoded = decoded
        self.revision: int | None = None
        self._values: dict[type[Any], dict[str, Any]] = {kind: {} for kind in kinds.values()}
        # Those of these that nobody else has in hand.
        self._own = set(self._values)
        # Claims are the leader's business.
        bare = BARE_KINDS if kinds is KINDS else BARE_STANDING_BY
        self._bare: dict[str, set[str]] = {kind: set() for kind in bare}
        self.versions: dict[str, int] = {}

    def of(self, kind: type[T]) -> dict[str, T]:
        self._own.discard(kind)
        return self._values[kind]

    def keys(self, kind: str) -> set[str]:
        return self._bare[kind]

    def version(self, key: str) -> int:
        return self.versions.get(key, 0)

    def put(self, key: str, version: int, value: Any) -> None:
        kind, _, name = key.partition("/")
        kept = self._kinds[kind]
        values = self._values[kept]
        if kept not in self._own:
            # What was handed out stays as it was.
            values = self._values[kept] = dict(values)
            self._own.add(kept)
        if value is None:
            values.pop(name, None)
            self.versions.pop(key, None)
        else:
            values[name] = value
            self.versions[key] = version

    def refresh(self) -> None:
        if self.revision is None:
            revision, _ = self._state.changes(NEVER_SEEN, 0.0)
            self._read(None)
        else:
            revision, keys = self._state.changes(self.revision, 0.0)
            self._read(None if "*" in keys else keys)
        self.revision = revision

    def _read(self, keys: Iterable[str] | None) -> None:
        if keys is None:
            self._read_all()
            return
        for key in keys:
            kind = key.partition("/")[0]
            if kind not in self._kinds and kind not in self._bare:
                continue
            found = self._state.get(key)
            if found is None or self.versions.get(key) != found.version:
                self._take(key, found)

    def _read_all(self) -> None:
        """All of it or nothing: what cannot be read stays as it was known."""
        values: dict[str, dict[str, Any]] = {kind: {} for kind in self._kinds}
        bare: dict[str, set[str]] = {kind: set() for kind in self._bare}
        versions: dict[str, int] = {}
        for key, document in self._state.read([*self._kinds, *self._bare]).items():
            kind, _, name = key.partition("/")
            if kind in bare:
                bare[kind].add(name)
            else:
                values[kind][name] = self._value(key, document)
                versions[key] = document.version
        self._values = {kept: values[kind] for kind, kept in self._kinds.items()}
        self._own = set(self._values)
        self._bare, self.versions = bare, versions

    def _take(self, key: str, found: Document | None) -> None:
        kind, _, name = key.partition("/")
        if kind in self._bare:
            (self._bare[kind].discard if found is None else self._bare[kind].add)(name)
        elif found is None:
            self._decoded.pop(key, None)
            self.put(key, 0, None)
        else:
            self.put(key, found.version, self._value(key, found))

    def _value(self, key: str, found: Document) -> Any:
        known = self._decoded.get(key)
        if known is None or known[0] != found.version:
            value = found.read(self._kinds[key.partition("/")[0]])
            known = self._decoded[key] = (found.version, value)
        return known[1]
