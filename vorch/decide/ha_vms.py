"""One round about the VMs that are looked after: what each is now, and what is done for it. Pure.

What counts is what is seen, not what was done last: each round decides anew from the record of the
VM, its host's state and whether it runs. So any process can go on with what another one began.
"""

from __future__ import annotations

from collections.abc import Mapping

from vorch.availability import (
    Availability,
    HaVm,
    Limits,
    MoveOrder,
    NodeRecord,
    NodeState,
    Requested,
    VmRecord,
    VmState,
)
from vorch.decide import clients
from vorch.decide.choose import Board, Pick, Scene, choose, may_be
from vorch.decide.errands import Errand, Purpose, Timers
from vorch.decide.lifecycle import start, stop
from vorch.decide.move import migrate
from vorch.decide.records import failed_disks, is_on, reads, save_vm
from vorch.decide.rules import Placement
from vorch.errors import NoRoom, VorchError
from vorch.frozen import replace
from vorch.model import Cluster, Domain, Power, Vm
from vorch.plan import Plan, Save

# Hosts that are there: what runs on them can be seen.
PRESENT = (NodeState.ONLINE, NodeState.MAINTENANCE, NodeState.LEAVING)
# VMs that take up room on a host that is there, even while they are off for a moment.
TAKING_ROOM = (VmState.STARTING, VmState.RUNNING)
# libvirt tells how a domain ended a moment after it is gone.
HEARD_WITHIN_S = 2.0
# A VM in one of these does not hold up those that come after it in the start order.
NOT_COMING = (VmState.ERROR, VmState.AWAITING_ROOM, VmState.FROZEN, VmState.IGNORED)


class Vms:
    """The VMs of one round, one after the other, in the order in which they are to start."""

    def __init__(
        self,
        cluster: Cluster,
        ha: Availability,
        limits: Limits,
        timers: Timers,
        nodes: dict[str, NodeRecord],
        placement: Placement,
        reserved: Mapping[str, str] | None = None,
    ) -> None:
        """`reserved`: hosts for VMs of lost ones, where those were decided on all together."""
        self.cluster = cluster
        self.ha = ha
        self.limits = limits
        self.timers = timers
        self.nodes = nodes
        self.records: dict[str, VmRecord] = {}
        self.errands: list[Errand] = []
        self.dropped_moves: list[str] = []
        # What guests have asked for themselves.
        self.settings: dict[str, HaVm] = {}
        self.sentences: dict[str, str] = {}
        self.order = sorted(ha.vms, key=lambda name: (ha.vms[name].start_order, name))
        # Where VMs are on their way to.
        self.heading = {vm: node for vm, node in ha.busy.items() if node}
        self.reserved = reserved or {}
        # VMs that are to be started elsewhere since their hosts are lost, and the hosts for them.
        self.recovering: dict[str, str | None] = {}
        self.board = self._board()
        self.scene = Scene(
            cluster=cluster,
            placement=placement,
            open=frozenset(
                name
                for name, record in nodes.items()
                if record.state is NodeState.ONLINE and not cluster.nodes[name].cordoned
            ),
            overhead_mib=limits.vm_overhead_mib,
            moving=self.heading,
        )

    def decide(self) -> None:
        # What a person wants comes first: others follow it, or are in its way.
        moves, order = self.ha.moves, self.order
        if moves:
            order = sorted(order, key=lambda name: name not in moves)
        for name in order:
            if name not in self.records:
                self._decide(name)
        for name, move in moves.items():
            if name not in self.ha.vms:
                self.dropped_moves.append(move.vm)

    # -- what there is

    def _board(self) -> Board:
        board = Board()
        overhead = self.limits.vm_overhead_mib
        by_id = {vm.id: vm for vm in self.cluster.vms.values()}
        for domain in self.cluster.domains.values():
            if not is_on(domain.power):
                continue
            vm = by_id.get(domain.id)
            if vm is not None:
                board.put(vm, domain.node, overhead)
            else:
                board.weigh(domain.node, domain.memory_mib + overhead, domain.vcpus)
        for name in self.ha.vms:
            vm, record = self.cluster.vms.get(name), self.ha.vm_records.get(name)
            if vm is None:
                continue
            host = self.nodes.get(vm.node)
            there = host is not None and host.state in PRESENT
            if there and record is not None and record.state in TAKING_ROOM:
                board.put(vm, vm.node, overhead)
            target = self.ha.busy.get(name)
            if target and target != vm.node:
                board.put(vm, target, overhead)
                board.left[name] = vm.node
        for name, target in self.reserved.items():
            board.put(self.cluster.vms[name], target, overhead)
        return board

    def _record(self, name: str) -> VmRecord:
        return (
            self.records.get(name)
            or self.ha.vm_records.get(name)
            or VmRecord(vm=name, since=self.timers.now)
        )

    def _domain(self, vm: Vm) -> Domain | None:
        domain = self.cluster.domains.get(vm.id)
        return domain if domain is not None and is_on(domain.power) else None

    # -- saying and doing

    def _is(self, name: str, state: VmState, why: str, **changes: object) -> None:
        """The record of a VM after this round, and the sentence about it."""
        record = self._record(name)
        if record.state is not state or record.why != why or _differs(record, changes):
            since = record.since if record.state is state else self.timers.now
            record = replace(
                record,
                state=state,
                since=since,
                why=why,
                **changes,
            )
        self.records[name] = record
        self.sentences[name] = f"{state.words}: {why}"

    def _do(self, purpose: Purpose, vm: Vm, plan: Plan, node: str, **more: object) -> None:
        if plan.steps:
            self.errands.append(
                Errand(purpose=purpose, plan=plan, vm=vm.name, node=node, **more)  # type: ignore[arg-type]
            )

    # -- one VM

    def _decide(self, name: str) -> None:
        settings = self.ha.vms[name]
        vm = self.cluster.vms.get(name)
        if vm is None:
            self.sentences[name] = "there is no VM of that name"
            return
        host = self.nodes.get(vm.node)
        if host is not None and self._at_rest(vm, settings, host):
            return
        if name in self.ha.busy:
            self._while_busy(name, settings)
        elif settings.requested is Requested.IGNORED:
            self._is(name, VmState.IGNORED, "it is to be ignored", tries=0, failed=())
        elif self._stays_in_error(settings):
            self._is(name, VmState.ERROR, self._error_words(name))
            self._refuse_move(name)
        elif host is None:
            self._is(name, VmState.UNKNOWN, f"its host {vm.node} is not of this cluster")
        elif host.state in PRESENT:
            self._on_present_host(vm, settings, host)
        else:
            self._refuse_move(name)
            self._on_lost_host(vm, settings, host)

    def _at_rest(self, vm: Vm, settings: HaVm, host: NodeRecord) -> bool:
        """It runs where it belongs, as was recorded: mostly so, and then there is no more to it."""
        name = vm.name
        record, domain = self.ha.vm_records.get(name), self.cluster.domains.get(vm.id)
        if (
            record is None
            or domain is None
            or record.state is not VmState.RUNNING
            or record.tries
            or record.failed
            or record.stop_failed
            or record.home_given_up
            or record.tried_here_again
            or domain.power is not Power.RUNNING
            or domain.node != vm.node
            or host.state is not NodeState.ONLINE
            or settings.requested is not Requested.STARTED
            or vm.home
            or name in self.ha.busy
            or name in self.records
            or self.ha.moves
            or self.scene.placement.binds(name)
            or record.why != f"on {vm.node}"
            or clients.lacking(self.cluster, vm)
        ):
            return False
        self.records[name] = record
        self.sentences[name] = f"running: {record.why}"
        return True

    def _while_busy(self, name: str, settings: HaVm) -> None:
        """A plan is at work, or was left unfinished. To disable the VM clears its error anyway."""
        record = self._record(name)
        if record.state is VmState.ERROR and settings.requested is Requested.DISABLED:
            self._stopped(name, "it is disabled, and a plan about it is not finished yet")
            return
        self.records[name] = record
        self.sentences[name] = f"{record.state.value}: a plan is at work on it"

    def _stays_in_error(self, settings: HaVm) -> bool:
        """Only to be disabled ends it: that is how a person says that it was looked at."""
        record = self._record(settings.vm)
        return record.state is VmState.ERROR and settings.requested is not Requested.DISABLED

    def _error_words(self, name: str) -> str:
        why = self._record(name).why
        hint = "to clear that, have it requested as disabled"
        return why if hint in why else f"{why}; {hint}"

    def _refuse_move(self, name: str) -> None:
        if name in self.ha.moves:
            self.dropped_moves.append(name)

    # -- its host is lost

    def _on_lost_host(self, vm: Vm, settings: HaVm, host: NodeRecord) -> None:
        name = vm.name
        if host.state in (NodeState.FENCED, NodeState.DOWN) and not settings.counts:
            self._stopped(name, f"it is {settings.requested.value}, and {vm.node} is off")
            return
        match host.state:
            case NodeState.FENCING:
                word = f"until {vm.node} is proven cut off"
                self._is(name, VmState.AWAITING_FENCE, word)
            case NodeState.FENCED:
                self._recover(vm, settings, f"{vm.node} is cut off for certain")
            case NodeState.DOWN:
                self._on_host_that_went_down(vm, settings, host)
            case _ if not settings.counts and self._record(name).state is VmState.STOPPED:
                self._stopped(name, f"it is {settings.requested.value}, and was off before")
            case NodeState.RETURNING:
                self._is(name, VmState.UNKNOWN, f"{vm.node} is back and is cleaned up first")
            case _:
                self._is(name, VmState.UNKNOWN, f"{vm.node} is silent, and may go on running it")

    def _on_host_that_went_down(self, vm: Vm, settings: HaVm, host: NodeRecord) -> None:
        name = vm.name
        off = settings.requested is Requested.STOPPED
        if host.left_as == "emptied" and off:
            self._stopped(name, f"{vm.node} went down in good order")
        elif host.left_as == "frozen" and off:
            self._stopped(name, f"{vm.node} is down for a while")
        elif host.left_as == "frozen":
            self._is(name, VmState.FROZEN, f"it starts again when {vm.node} is back")
        elif host.left_as == "released" and not self.timers.due(
            host.since + self.limits.shutdown_grace_s
        ):
            grace = f"{self.limits.shutdown_grace_s:g} s"
            word = f"{vm.node} went down; if it is away for {grace}, it starts elsewhere"
            self._is(name, VmState.FROZEN, word)
        else:
            self._recover(vm, settings, f"{vm.node} went down in good order")

    def _recover(self, vm: Vm, settings: HaVm, why: str) -> None:
        """Move the record to a host that lives. The next round starts it there."""
        pick = self._refuge(vm)
        if settings.requested is Requested.STARTED:
            self.recovering[vm.name] = pick.node
        if pick.node is None:
            self._is(vm.name, VmState.AWAITING_ROOM, f"{why}; {pick.why}")
            return
        to = f"{why}; it goes to {pick.node}, since {pick.why}"
        self._is(vm.name, VmState.RECOVERING, to, tries=0, failed=())
        if settings.requested is Requested.STARTED:
            self.board.put(vm, pick.node, self.limits.vm_overhead_mib)
        self._register(vm, pick.node, "recover", to)

    def _refuge(self, vm: Vm) -> Pick:
        target = self.reserved.get(vm.name)
        if target is not None and may_be(self.scene, self.board, vm, target):
            return Pick(node=target, why="so that more of those that wait find room")
        return choose(self.scene, self.board, vm)

    def left_out(self) -> list[Vm]:
        """All that recover, where some have found no room and others took it: to be decided anew.

        One for whom no host has room is not helped by that, unless others go elsewhere.
        """
        found = [node for node in self.recovering.values() if node is not None]
        if not found or len(found) == len(self.recovering):
            return []
        vms = (self.cluster.vms[name] for name in self.recovering)
        # The cells of hosts are not laid out here.
        return [vm for vm in vms if not (vm.huge_pages or vm.one_numa_cell)]

    # -- its host is there

    def _on_present_host(self, vm: Vm, settings: HaVm, host: NodeRecord) -> None:
        domain = self._domain(vm)
        wanted = settings.requested is Requested.STARTED
        order = self.ha.moves.get(vm.name)
        if wanted and self._is_to_go_down_with(host):
            self._refuse_move(vm.name)
            self._go_down(vm, settings, host, domain)
        elif order is not None and self._ordered(vm, settings, order):
            pass
        elif not wanted:
            self._be_off(vm, settings, domain)
        elif domain is not None and failed_disks(domain, domain.node):
            self._cut(vm, f"its disks have failed: {domain.reason}")
        elif domain is None and self._has_ended(vm, settings):
            pass
        else:
            self._be_on(vm, settings, host, domain)

    def _stopped(self, name: str, why: str) -> None:
        self._is(name, VmState.STOPPED, why, tries=0, failed=(), retry_at=0.0, stop_failed=False)

    def _be_off(self, vm: Vm, settings: HaVm, domain: Domain | None) -> None:
        record = self._record(vm.name)
        word = f"it is to be {settings.requested.value}"
        if domain is None:
            self._stopped(vm.name, word)
            return
        written_off = settings.requested is Requested.DISABLED and (
            record.stop_failed or record.state is VmState.ERROR
        )
        if written_off:
            why = f"{word}, and still runs since it cannot be stopped; that is tried again"
            self._is(vm.name, VmState.STOPPED, why, tries=0, failed=(), stop_failed=True)
        else:
            self._is(vm.name, VmState.STOPPING, word)
        if self.timers.due(record.retry_at):
            self._stop(vm, settings, domain, word)

    def _stop(self, vm: Vm, settings: HaVm, domain: Domain, why: str) -> None:
        """The guest is asked once; after that, or where it hears nothing, its power is cut."""
        deaf = domain.power is Power.PAUSED or self._record(vm.name).tries > 0
        force = deaf or settings.stop_timeout_s == 0
        plan = stop(self.cluster, vm.name, timeout_s=settings.stop_timeout_s, force=force)
        self._do("cut" if force else "stop", vm, replace(plan, why=why), vm.node)

    def _cut(self, vm: Vm, why: str) -> None:
        self._is(vm.name, VmState.STARTING, f"{why}; it is started anew")
        if self.timers.due(self._record(vm.name).retry_at):
            plan = stop(self.cluster, vm.name, timeout_s=0.0, force=True)
            self._do("cut", vm, replace(plan, why=why), vm.node)

    # -- its guest powered itself off

    def _has_ended(self, vm: Vm, settings: HaVm) -> bool:
        """Whether it is not to be started again, or not before it is known how it ended.

        Where nobody listened when it ended, it counts as a crash: it is to run.
        """
        record = self._record(vm.name)
        seen = self.ha.evidence.get(vm.node)
        # One that was moved while it was off has ended by a plan of vorch's own.
        ran_here = record.state is VmState.RUNNING and record.ran_on == vm.node
        if not ran_here or settings.guest_shutdown == "restart":
            return False
        if seen is None or seen.endings is None:
            return False
        ending = seen.endings.get(vm.id)
        # One from before it was seen to run is of an earlier run.
        if ending is not None and ending.at >= record.since:
            if ending.by_guest:
                self._asked_for(vm, settings)
            return ending.by_guest
        gone_at = record.gone_at or self.timers.now
        if self.timers.due(gone_at + HEARD_WITHIN_S):
            return False
        word = f"until just now on {vm.node}; how it ended is still to be heard"
        self._is(vm.name, VmState.RUNNING, word, gone_at=gone_at)
        return True

    def _asked_for(self, vm: Vm, settings: HaVm) -> None:
        """As if a person had stopped it, who would have to start it again, too."""
        self.settings[vm.name] = replace(settings, requested=Requested.STOPPED)
        why = "its guest powered itself off, which counts as asked for"
        self._stopped(vm.name, why)
        plan = stop(self.cluster, vm.name, timeout_s=0.0, force=False)
        self._do("stop", vm, replace(plan, why=why), vm.node)

    # -- it is to run

    def _be_on(self, vm: Vm, settings: HaVm, host: NodeRecord, domain: Domain | None) -> None:
        record = self._record(vm.name)
        home = self._home(vm, record)
        scene = self.scene
        if domain is not None and host.state is NodeState.ONLINE and vm.node not in scene.open:
            # What runs on a cordoned host goes on there.
            scene = replace(scene, open=scene.open | {vm.node})
        pick = choose(
            scene,
            self.board,
            vm,
            avoid=() if domain is not None else record.failed,
            home=home,
            stays=domain is not None or not self._balances(record),
            failback=settings.failback,
        )
        leaving = vm.node not in self.scene.open and host.state is not NodeState.ONLINE
        here_again = domain is None and record.tried_here_again
        if here_again or pick.node == vm.node or pick.node is None:
            if domain is not None:
                self._runs(vm, home, pick, leaving)
            elif pick.node is None and not record.failed:
                self._is(vm.name, VmState.AWAITING_ROOM, pick.why)
            else:
                self._start(vm, settings, pick)
            return
        if domain is None:
            self._be_elsewhere(vm, record, pick, home, leaving)
        else:
            self._go_elsewhere(vm, settings, domain, record, pick, home, leaving)

    def _home(self, vm: Vm, record: VmRecord) -> str:
        """Where it goes back to now: its maintenance is over."""
        ready = vm.home in self.scene.open and vm.home != vm.node
        return vm.home if ready and vm.home != record.home_given_up else ""

    def _balances(self, record: VmRecord) -> bool:
        fresh = record.state in (VmState.STOPPED, VmState.AWAITING_ROOM) and not record.failed
        return self.ha.policy.balance_on_start and fresh

    def _runs(self, vm: Vm, home: str, pick: Pick, leaving: bool) -> None:
        record = self._record(vm.name)
        word = f"on {vm.node}"
        if leaving:
            word += f", though that is to be emptied: {pick.why}"
        elif pick.node is None:
            word += f", though it should not be: {pick.why}"
        given_up = record.home_given_up if record.home_given_up == vm.home else ""
        self._is(
            vm.name,
            VmState.RUNNING,
            word,
            tries=0,
            failed=(),
            home_given_up=given_up,
            stop_failed=False,
            tried_here_again=False,
            ran_on=vm.node,
            gone_at=0.0,
        )
        self.board.put(vm, vm.node, self.limits.vm_overhead_mib)
        if clients.lacking(self.cluster, vm) and self.timers.due(record.retry_at):
            # A fence by storage would not know it.
            self._do("note", vm, clients.record(self.cluster, vm), vm.node)

    def _start(self, vm: Vm, settings: HaVm, pick: Pick) -> None:
        record = self._record(vm.name)
        before = self._comes_before(settings)
        if before is not None:
            self._is(vm.name, VmState.STARTING, f"on {vm.node}, after {before}")
            return
        word = f"on {vm.node}, since {pick.why}"
        if record.tries or record.failed:
            word += f"; tried {record.tries} time(s) here, failed on {len(record.failed)} before"
        self._is(vm.name, VmState.STARTING, word)
        self.board.put(vm, vm.node, self.limits.vm_overhead_mib)
        if not self.timers.due(record.retry_at):
            return
        try:
            plan = start(self.cluster, vm.name, overhead_mib=self.limits.vm_overhead_mib)
        except NoRoom as exc:
            self._is(vm.name, VmState.AWAITING_ROOM, exc.message)
            return
        except VorchError as exc:
            self._is(vm.name, VmState.STARTING, exc.message)
            return
        self._do("start", vm, plan, vm.node)

    def _comes_before(self, settings: HaVm) -> str | None:
        """A VM that has to run first, by the start order."""
        if not settings.start_order:
            return None
        for name in self.order:
            other = self.ha.vms[name]
            if not 0 < other.start_order < settings.start_order:
                continue
            if other.requested is not Requested.STARTED or name not in self.cluster.vms:
                continue
            record = self._record(name)
            if record.state in NOT_COMING:
                continue
            if record.state is not VmState.RUNNING:
                return name
            if not self.timers.due(record.since + other.start_delay_s):
                return name
        return None

    def _be_elsewhere(self, vm: Vm, record: VmRecord, pick: Pick, home: str, leaving: bool) -> None:
        """It is off, so that only its record moves."""
        assert pick.node is not None
        self._is(vm.name, VmState.STARTING, f"on {pick.node}, since {pick.why}")
        self.board.put(vm, pick.node, self.limits.vm_overhead_mib)
        if self.timers.due(record.retry_at):
            why = f"to {pick.node}, since {pick.why}"
            self._register(vm, pick.node, "relocate", why, leaving=leaving)

    def _go_elsewhere(
        self,
        vm: Vm,
        settings: HaVm,
        domain: Domain,
        record: VmRecord,
        pick: Pick,
        home: str,
        leaving: bool,
    ) -> None:
        assert pick.node is not None
        self._is(
            vm.name, VmState.RUNNING, f"on {vm.node}; it goes to {pick.node}, since {pick.why}"
        )
        self.board.put(vm, vm.node, self.limits.vm_overhead_mib)
        if not self.timers.due(record.retry_at):
            return
        self._move(
            vm,
            settings,
            domain,
            pick,
            "return" if home == pick.node else "move",
            leaving=leaving,
        )

    # -- moving

    def _move(
        self,
        vm: Vm,
        settings: HaVm,
        domain: Domain,
        pick: Pick,
        purpose: Purpose,
        *,
        cold: bool = False,
        order: str = "",
        leaving: bool = False,
    ) -> None:
        """`leaving`: for the time of a maintenance, so that its home is remembered."""
        assert pick.node is not None
        target, why = pick.node, f"to {pick.node}, since {pick.why}"
        moved = self._moved(vm, target, leaving)
        try:
            if cold or settings.moves == "cold":
                plan = self._cold(vm, settings, domain, moved)
            else:
                plan = self._live(vm, moved)
        except VorchError as exc:
            self._is(vm.name, VmState.RUNNING, f"on {vm.node}; {exc.message}")
            if order:
                self.dropped_moves.append(order)
            return
        self.board.put(vm, target, self.limits.vm_overhead_mib)
        self.board.left[vm.name] = vm.node
        plan = replace(plan, why=why)
        self._do(purpose, vm, plan, target, order=order)

    @staticmethod
    def _moved(vm: Vm, target: str, leaving: bool) -> Vm:
        """Its record on the other host. A home is kept until it is back there."""
        home = vm.home or (vm.node if leaving else "")
        return replace(vm, node=target, home="" if home == target else home)

    def _live(self, vm: Vm, moved: Vm) -> Plan:
        plan = migrate(
            self.cluster,
            vm.name,
            moved.node,
            overhead_mib=self.limits.vm_overhead_mib,
            pause_limit_ms=self.limits.migration_pause_limit_ms,
            bandwidth_mib_s=self.limits.migration_bandwidth_mib_s,
        )
        key, recorded = f"vm/{vm.name}", save_vm(vm, moved)
        steps = tuple(
            recorded if isinstance(step, Save) and step.key == key else step for step in plan.steps
        )
        return replace(plan, steps=steps)

    def _cold(self, vm: Vm, settings: HaVm, domain: Domain, moved: Vm) -> Plan:
        """Stopped here; the next round starts it there."""
        force = settings.stop_timeout_s == 0 or domain.power is Power.PAUSED
        down = stop(self.cluster, vm.name, timeout_s=settings.stop_timeout_s, force=force)
        key = f"vm/{vm.name}"
        steps = tuple(
            step for step in down.steps if not (isinstance(step, Save) and step.key == key)
        )
        return replace(down, verb="relocate", steps=(*steps, save_vm(vm, moved)))

    def _register(
        self,
        vm: Vm,
        target: str,
        verb: str,
        why: str,
        *,
        leaving: bool = False,
        order: str = "",
    ) -> None:
        key = f"vm/{vm.name}"
        moved = self._moved(vm, target, leaving)
        plan = Plan(
            verb=verb,
            subject=vm.name,
            why=why,
            steps=(save_vm(vm, moved),),
            claims=(key,),
            reads=reads(self.cluster, key),
        )
        self._do("register", vm, plan, target, order=order)

    # -- moving because a person wants it

    def _ordered(self, vm: Vm, settings: HaVm, order: MoveOrder) -> bool:
        """Whether the wish moves this VM now. It lasts until all that belong together are there."""
        refused = self._why_not(vm, settings, order)
        if refused is not None:
            self.dropped_moves.append(vm.name)
            self.sentences[vm.name] = f"it is not moved to {order.target}: {refused}"
            return False
        mates = sorted(self._mates(vm.name, order.target))
        self.heading.update(dict.fromkeys([vm.name, *mates], order.target))
        for name in mates:
            self._obey(self.cluster.vms[name], order)
        if vm.node == order.target:
            return False
        self._obey(vm, order)
        return True

    def _mates(self, name: str, target: str) -> list[str]:
        """Who has to go along."""
        return [
            mate
            for mate in self.scene.placement.mates.get(name, ())
            if mate in self.ha.vms
            and mate in self.cluster.vms
            and mate not in self.ha.busy
            and self.ha.vms[mate].counts
            and self.cluster.vms[mate].node != target
            and self._record(mate).state is not VmState.ERROR
            and self.nodes[self.cluster.vms[mate].node].state in PRESENT
        ]

    def _why_not(self, vm: Vm, settings: HaVm, order: MoveOrder) -> str | None:
        target, placement = order.target, self.scene.placement
        if vm.node == target and not self._mates(vm.name, target):
            return "it is there"
        if target not in self.scene.open:
            return "that host takes no VMs now"
        group = {vm.name} | set(self._mates(vm.name, target))
        rivals = placement.rivals.get(vm.name, frozenset()) - group
        there = self.board.on(target, rivals)
        if there:
            return f"it must be apart from {', '.join(there)}"
        hosts = placement.hosts.get(vm.name)
        if hosts is None or settings.requested is not Requested.STARTED:
            return None
        classes = hosts.classes(self.scene.open)
        if not any(target in names for names in classes):
            return "its rules do not permit that host"
        if target not in classes[0] and settings.failback:
            return f"it would go back to {' or '.join(classes[0])} at once"
        return None

    def _obey(self, vm: Vm, order: MoveOrder) -> None:
        settings, domain = self.ha.vms[vm.name], self._domain(vm)
        led = vm.name == order.vm
        word = "as was asked for" if led else f"along with {order.vm}"
        pick = Pick(node=order.target, why=word)
        if domain is not None and settings.requested is Requested.STARTED:
            self._is(vm.name, VmState.RUNNING, f"on {vm.node}; it goes to {order.target}, {word}")
            self.board.put(vm, vm.node, self.limits.vm_overhead_mib)
            self._move(vm, settings, domain, pick, "move", cold=not order.live, order=order.vm)
        elif domain is not None:
            # It is being stopped, and belongs where it was asked to be after that.
            self._be_off(vm, settings, domain)
        else:
            off = settings.requested is not Requested.STARTED
            state = VmState.STOPPED if off else VmState.STARTING
            self._is(vm.name, state, f"it belongs to {order.target}, {word}")
            why = f"to {order.target}, {word}"
            self._register(vm, order.target, "relocate", why, order=order.vm)

    # -- its host is about to go down

    def _is_to_go_down_with(self, host: NodeRecord) -> bool:
        return host.state is NodeState.LEAVING and host.left_as in ("released", "frozen")

    def _go_down(self, vm: Vm, settings: HaVm, host: NodeRecord, domain: Domain | None) -> None:
        word = f"{vm.node} goes down in good order"
        if domain is None:
            self._is(vm.name, VmState.FROZEN, word)
            return
        record = self._record(vm.name)
        self._is(vm.name, VmState.STOPPING, word)
        if self.timers.due(record.retry_at):
            self._stop(vm, settings, domain, word)


def _differs(record: VmRecord, changes: Mapping[str, object]) -> bool:
    return any(getattr(record, field) != value for field, value in changes.items())


def still_there(vm: Vm, domain: Domain | None, settings: HaVm, record: VmRecord) -> bool:
    """Whether the VM keeps a host that is to go down from doing so."""
    if record.state is VmState.ERROR or not settings.counts:
        return False
    return domain is not None or (
        settings.requested is Requested.STARTED and record.state is not VmState.FROZEN
    )
