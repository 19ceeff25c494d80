"""Play a scenario: the watch loop of every host on a world in memory, with the clock moved by hand.

Time in which nothing can happen is skipped: when the leader has nothing to do until a moment that
it names, and no command comes before that. A judge looks on all the while (`Judge`).
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from vorch.availability import (
    HaPolicy,
    HaVm,
    HostOrder,
    MoveOrder,
    NodeRecord,
    NodeState,
    Requested,
    VmRecord,
    VmState,
)
from vorch.codec import Coded
from vorch.config import Settings
from vorch.drivers import documents
from vorch.drivers.memory import MemoryWorld
from vorch.drivers.memory_machine import MemoryMachine
from vorch.drivers.memory_pool import Stored
from vorch.drivers.memory_time import HostClock, MemoryClock, MemoryProcess, ProcessDied
from vorch.errors import VorchError
from vorch.model import MIB, Clients, HostFacts, Node, Pool, Vm
from vorch.orchestrator import Orchestrator
from vorch.orchestrator.kept import LEASE
from vorch.plan import Journal
from vorch.ports import World
from vorch.simulate.doubles import Doubles
from vorch.simulate.judge import Judge, JudgedFencer, Violation
from vorch.simulate.scenario import POOL, Batch, Scenario, Service, sizes, vm_of
from vorch.watch import Decoded, Pace, Watch

__all__ = ["Played", "Violation", "play"]

T = TypeVar("T")

# How long a host of the simulation may take to answer.
ANSWER_S = 2.0
# How long a vorch process that died is away.
RESTART_S = 5.0
# How long before the end hosts are switched on that a fence had switched off.
SETTLE_S = 300.0
# Steps between two commands that lead to nothing new: then something goes round in circles.
STEPS_LIMIT = 20_000

# What a record says, in the words of the format.
STATES = {
    VmState.STOPPED: "stopped",
    VmState.STARTING: "starting",
    VmState.RUNNING: "running",
    VmState.STOPPING: "stopping",
    VmState.UNKNOWN: "unknown",
    VmState.AWAITING_FENCE: "waiting_for_fencing",
    VmState.RECOVERING: "waiting_for_node",
    VmState.AWAITING_ROOM: "waiting_for_node",
    VmState.ERROR: "error",
    VmState.FROZEN: "frozen",
    VmState.IGNORED: "unmanaged",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """What came of it. `result` has the shape that scenarios are judged by."""

    scenario: Scenario
    result: dict[str, Any]
    # (second, sentence)
    log: tuple[tuple[float, str], ...] = ()
    steps: int = 0


# Told at each point of each plan, with the ports of the process that is at it.
Onlooker = Callable[[str, Journal, World], None]


def play(
    scenario: Scenario,
    settings: Settings | None = None,
    *,
    onlooker: Onlooker | None = None,
    mends: bool = False,
) -> Played:
    """All of it, to its end. Raises `Violation` when something happens that never may.

    `mends`: hosts that a fence has switched off at the end are switched on again, once.
    """
    settings = settings or Settings(uri="memory:", ha_answer_s=ANSWER_S)
    return _Player(scenario, settings, onlooker, mends=mends).run()


@dataclass
class _Watcher:
    """The vorch process of one host."""

    watch: Watch
    host: MemoryMachine
    next_at: float
    # In the middle of something.
    stands: bool = False
    pace: Pace = field(default_factory=lambda: Pace(leading=False, quiet=False))


@dataclass
class _Ambush:
    """Something that happens to the process that leads, at the `count`th place of a kind.

    "plan": the points of plans where a crash could fall; "act": each call in the middle of a step;
    "call": each call of all.
    """

    where: str
    count: int
    what: str
    seconds: float = 0.0
    # As with a virtual machine that was stopped: its clock did not go on.
    clock_stands: bool = False


class _Player:
    def __init__(
        self,
        scenario: Scenario,
        settings: Settings,
        onlooker: Onlooker | None = None,
        *,
        mends: bool = False,
    ) -> None:
        self.scenario = scenario
        self.mends = mends
        # What is to happen to the one that leads, and when.
        self.waylaid: list[_Ambush] = []
        # The processes that are in the middle of an act.
        self._acting: set[str] = set()
        self._commands_at: list[float] = []
        self.onlooker = onlooker
        self.settings = settings
        self.clock = MemoryClock()
        self.world = MemoryWorld(
            scenario.name, hosts=(), call_timeout_s=ANSWER_S, trace_limit=0, clock=self.clock
        )
        self.zero = self.clock.now()
        self.watchers: dict[str, _Watcher] = {}
        self.clocks = {name: HostClock(self.clock) for name in scenario.hosts}
        self.log: list[tuple[float, str]] = []
        self.said: dict[str, str] = {}
        self.fenced: list[str] = []
        self.steps = 0
        # What documents say, by their versions: for the watchers, and for what is asked here.
        self._decoded: Decoded = {}
        # The revision of the store at which its records were looked at last.
        self._noted = 0
        self.doubles = Doubles(
            {one.vm: one.faults for one in scenario.services.values()}, self._host_is_lost
        )
        self.judge = Judge(self.world)
        self._set_up()

    # -- the beginning

    def _set_up(self) -> None:
        scenario, world = self.scenario, self.world
        for name, host in scenario.hosts.items():
            machine = world.add_host(name, cpus=host.cpus, memory_mib=host.memory_mib)
            machine.bmc = host.bmc
            facts = HostFacts(
                hypervisor="memory",
                cpus=host.cpus,
                memory_mib=host.memory_mib,
                accelerator="kvm",
            )
            self._put(
                f"node/{name}",
                Node(
                    name=name,
                    uri=f"memory:{name}",
                    facts=facts,
                    cordoned=not host.watches,
                    storage_address=machine.storage_address if host.address_known else "",
                ),
            )
        world.ceph.mons = tuple(scenario.hosts)
        self._put(f"pool/{POOL}", Pool(name=POOL, url="memory:"))
        self._put("policy/ha", scenario.policy)
        for rule in scenario.rules:
            self._put(f"rule/{rule.name}", rule)
        self._numbers = {vm: number for number, vm in enumerate(sorted(scenario.names.values()), 1)}
        for service in scenario.services.values():
            self._make(service)
        self._seed()
        for name, host in scenario.hosts.items():
            if not host.powered:
                world.host(name).power_off()
            else:
                self._boot(name)
            if not host.connected:
                self._cables(name, connected=False)
        if scenario.running:
            self._start_all()

    def _make(self, service: Service) -> None:
        vm = vm_of(
            service.vm,
            service.node,
            self._numbers[service.vm],
            service.memory_mib,
            service.vcpus,
        )
        for volume in vm.volumes:
            self.world.pool(POOL).volumes[volume.name] = Stored(volume.name, MIB)
        self._put(f"vm/{vm.name}", vm)
        self._put(f"ha/{vm.name}", service.settings)

    def _start_all(self) -> None:
        """As if vorch had started them some time ago, and noted by which addresses."""
        ports = self.world.connect("somebody")
        for service in self.scenario.services.values():
            if service.settings.requested is not Requested.STARTED:
                continue
            vm = dataclasses.replace(self._vm(service.vm), wanted="running")
            sources = {
                disk.name: ports.images(POOL).locate(disk.volume.name)
                for disk in vm.disks
                if disk.volume is not None
            }
            ports.hypervisor(vm.node).start(vm, sources, {})
            address = self.world.host(vm.node).guests[vm.id].client.address
            self._put(f"vm/{vm.name}", vm)
            seen = Clients(vm=vm.id, node=vm.node, disks={disk.name: address for disk in vm.disks})
            self._put(f"clients/{vm.id}", seen)

    def _seed(self) -> None:
        """What an earlier leader has left."""
        for name, word in self.scenario.seeded_hosts.items():
            if word == "fence":
                record = NodeRecord(
                    node=name,
                    state=NodeState.FENCING,
                    since=self.zero,
                    sign_since=self.zero,
                    why="an earlier leader was at it",
                    begun=True,
                )
                self._put(f"hanode/{name}", record)
            elif word == "maintenance":
                self._put(f"order/{name}", HostOrder(node=name, maintenance=True))
        for sid, one in self.scenario.seeded_services.items():
            vm = self.scenario.names.get(sid)
            if vm is None:
                continue
            if one.get("node") in self.scenario.hosts:
                at = dataclasses.replace(self._vm(vm), node=one["node"])
                self._put(f"vm/{vm}", at)
            if one.get("state") == "error":
                why = "an earlier leader gave it up"
                record_of_vm = VmRecord(vm=vm, state=VmState.ERROR, since=self.zero, why=why)
                self._put(f"havm/{vm}", record_of_vm)
            target = one.get("target")
            if one.get("state") in ("migrate", "relocate") and target:
                live = one["state"] == "migrate"
                self._put(f"move/{vm}", MoveOrder(vm=vm, target=target, live=live))

    # -- documents, past all faults: a person has written them some time

    def _put(self, key: str, value: Any) -> None:
        text = None if value is None else documents.to_text(key, Coded(value))
        self.world.store.write({key: text})

    def _vm(self, name: str) -> Vm:
        vm = self._read(Vm, f"vm/{name}")
        assert vm is not None
        return vm

    def _ha(self, name: str) -> HaVm | None:
        return self._read(HaVm, f"ha/{name}")

    def _read(self, kind: type[T], key: str) -> T | None:
        """A document, read out once for each of its versions."""
        version = self.world.store.version(key)
        if not version:
            return None
        known = self._decoded.get(key)
        if known is None or known[0] != version:
            value = self.world.store.document(key).read(kind)
            known = self._decoded[key] = (version, value)
        found: T = known[1]
        return found

    def _order(self, name: str) -> HostOrder:
        return self._read(HostOrder, f"order/{name}") or HostOrder(node=name)

    def _set_order(self, order: HostOrder) -> None:
        empty = not order.maintenance and not order.leaving
        self._put(f"order/{order.node}", None if empty else order)

    def _host_record(self, name: str) -> NodeRecord:
        return self._read(NodeRecord, f"hanode/{name}") or NodeRecord(node=name)

    def _host_is_lost(self, name: str) -> bool:
        return self._host_record(name).state in (NodeState.FENCED, NodeState.DOWN)

    # -- time

    def run(self) -> Played:
        ends = self.zero + self.scenario.ends_at
        for batch in self.scenario.steps:
            # Also while somebody waits in the middle of a plan.
            self.clock.at(self.zero + batch.at, functools.partial(self._command, batch))
            self._commands_at.append(self.zero + batch.at)
        if self.mends:
            self._until(ends - SETTLE_S)
            for name in self.scenario.hosts:
                self._op_power({"node": name, "to": "on"})
        self._until(ends)
        return Played(
            scenario=self.scenario, result=self._result(), log=tuple(self.log), steps=self.steps
        )

    def _until(self, end: float) -> None:
        """Let everybody live until then."""
        while self.clock.now() < end:
            name = self._next()
            turn_at = end if name is None else self.watchers[name].next_at
            stop_at, commands = min(turn_at, end, *self._commands_at[:1]), len(self._commands_at)
            self.clock.sleep(max(0.0, stop_at - self.clock.now()))
            if name is None or turn_at >= end or commands != len(self._commands_at):
                continue
            self._step(name)
            self._skip(end)
            if self.steps > STEPS_LIMIT:
                raise Violation(f"{self.scenario.name}: it never comes to rest")

    def _able(self) -> list[str]:
        return [
            name
            for name, watcher in self.watchers.items()
            if not watcher.stands and watcher.host.runs
        ]

    def _next(self) -> str | None:
        """Who is next: at the same moment the leader is, so that a skip takes it no lease."""
        turns = (
            (watcher.next_at, watcher.watch.lease is None, name)
            for name, watcher in self.watchers.items()
            if not (watcher.stands or (host := watcher.host).off or host.hung)
        )
        return min(turns, default=(0.0, False, None))[2]

    def _step(self, name: str) -> None:
        watcher = self.watchers[name]
        self.steps += 1
        try:
            watcher.pace = watcher.watch.step()
        except ProcessDied:
            if self.watchers.get(name) is watcher:
                # Whoever looks after the host's daemons starts it again.
                self.watchers.pop(name)
                if not self.world.host(name).off:
                    self._boot(name)
                    self.watchers[name].next_at += RESTART_S
        watcher.next_at = max(self.clock.now(), watcher.next_at + self.settings.ha_every_s)
        self.judge.look()
        if self.world.store.revision != self._noted:
            self._noted = self.world.store.revision
            self._note_fenced()
            self._hosts_go_down()

    def _skip(self, end: float) -> None:
        """To the next moment at which anything can happen."""
        now, revision = self.clock.now(), self.world.store.revision
        able = []
        for name, watcher in self.watchers.items():
            if watcher.stands or not watcher.host.runs:
                continue
            # It is due now, or does not know yet what another one has written.
            if watcher.next_at <= now or (
                watcher.watch.revision != revision and not watcher.pace.trouble
            ):
                return
            able.append(name)
        leaders = [name for name in able if self.watchers[name].pace.leading]
        if leaders:
            if not all(self.watchers[name].pace.quiet for name in leaders):
                return
            due = min(map(self._due, leaders))
            if not all(self.watchers[name].pace.clear for name in leaders):
                due = min(due, self._nothing_until())
        elif not self.world.ceph.serves and all(self.watchers[n].pace.trouble for n in able):
            due = end
        elif self._nobody_may_lead(able):
            due = min([self.clock.next_event, *map(self._may_lead_at, able)])
        else:
            return
        due = min(due, end, *self._commands_at[:1])
        for name in able:
            self.watchers[name].next_at = max(self.watchers[name].next_at, due)

    def _nobody_may_lead(self, able: list[str]) -> bool:
        """Somebody has the lease who is not there, and the others have looked and gone by."""
        return all(
            not self.watchers[name].pace.trouble and self._may_lead_at(name) > self.clock.now()
            for name in able
        )

    def _may_lead_at(self, name: str) -> float:
        last = self.world.store.leases.get(LEASE)
        left_s = self.watchers[name].watch.may_lead_in_s(last)
        return self.clock.now() + self.clocks[name].lasts_s(left_s)

    def _nothing_until(self) -> float:
        """While a host is half silent: no lease and no view grows old, and no watcher lapses."""
        held_s = min(self.settings.ha_lease_s, self.settings.ha_view_for_s)
        moments = [self.clock.now() + held_s - self.settings.ha_every_s]
        for pool in self.world.pools.values():
            for stored in pool.volumes.values():
                moments += [one.unseen_from for one in stored.lingering if one.seen]
        for machine in self.world.machines.values():
            if not (machine.runs and machine.cables["storage"]):
                moments += [one.client.unseen_from for one in machine.guests.values()]
        now = self.clock.now()
        return min(moment for moment in [*moments, self.clock.next_event] if moment >= now)

    def _due(self, name: str) -> float:
        """When something is due for a leader, which goes by its own clock."""
        due_at = self.watchers[name].pace.due_at
        return math.inf if due_at is None else due_at - self.clocks[name].ahead_s

    def _say(self, sentences: Mapping[str, str]) -> None:
        said = self.said
        new = [one for one in sentences.items() if said.get(one[0]) != one[1]]
        for about, sentence in sorted(new):
            said[about] = sentence
            self._log(f"{about}: {sentence}")

    def _log(self, line: str) -> None:
        self.log.append((round(self.clock.now() - self.zero, 1), line))

    def _note_fenced(self) -> None:
        for name in self.scenario.hosts:
            if self._host_record(name).state is NodeState.FENCED and self.judge.fence_is_new(name):
                self.fenced.append(name)

    # -- hosts

    def _boot(self, name: str) -> None:
        if not self.scenario.hosts[name].watches:
            return
        world = self.world.connect(f"vorch@{name}", home=name)
        judged = tuple(JudgedFencer(fencer, self.judge) for fencer in world.fencers)
        world = dataclasses.replace(world, fencers=judged, clock=self.clocks[name])

        def hook(point: str, journal: Journal) -> None:
            self.judge.hook(point, journal, leads=self._leads(name))
            self.doubles.hook(point, journal)
            if point == "before":
                self._acting.add(name)
            else:
                self._acting.discard(name)
            self._waylay("plan", name)
            if self.onlooker is not None:
                self.onlooker(point, journal, world)

        watch = Watch(world, self.settings, hook=hook, say=self._say, decoded=self._decoded)
        self.watchers[name] = _Watcher(watch, self.world.host(name), self.clock.now())

    def _leads(self, name: str) -> bool:
        """By what the store says, whatever the process itself believes."""
        watcher, last = self.watchers.get(name), self.world.store.leases.get(LEASE)
        lease = watcher.watch.lease if watcher is not None else None
        return lease is not None and last is not None and lease.epoch == last.epoch

    def _lie_in_wait(self, ambush: _Ambush) -> None:
        self.waylaid.append(ambush)
        self.world.faults.passing = self._passes

    def _passes(self, who: str, target: str, call: str) -> None:
        """A call is about to be made."""
        name = who.partition("@")[2]
        watcher = self.watchers.get(name)
        if watcher is None or watcher.stands or watcher.watch.lease is None:
            return
        if name in self._acting:
            self._waylay("act", name)
        self._waylay("call", name)

    def _waylay(self, where: str, name: str) -> None:
        """What was laid for whoever comes by: it dies, or stands still for a while."""
        due = []
        for ambush in [one for one in self.waylaid if one.where == where]:
            ambush.count -= 1
            if ambush.count < 0:
                due.append(ambush)
                self.waylaid.remove(ambush)
        if not self.waylaid:
            self.world.faults.passing = None
        watcher = self.watchers.get(name)
        for ambush in due if watcher is not None else ():
            assert watcher is not None
            self._log(f"vorch on {name}: {ambush.what}")
            if ambush.what == "crash":
                processes = watcher.watch.world.processes
                assert isinstance(processes, MemoryProcess)
                processes.die()
                raise ProcessDied
            watcher.stands = True
            began = self.clock.now()
            self._until(began + ambush.seconds)
            watcher.stands = False
            if ambush.clock_stands:
                self.clocks[name].stood_still(self.clock.now() - began)
            self._log(f"vorch on {name} wakes up")

    def _power(self, name: str, on: bool) -> None:
        machine = self.world.host(name)
        self.judge.switched(name, on)
        if on:
            self._cables(name, connected=True)
            self._set_order(dataclasses.replace(self._order(name), leaving=""))
            if machine.off:
                machine.power_on()
                self._boot(name)
        else:
            self.watchers.pop(name, None)
            machine.power_off()

    def _cables(self, name: str, *, connected: bool) -> None:
        machine = self.world.host(name)
        for network in ("management", "storage"):
            (machine.mend if connected else machine.cut)(network)

    def _hosts_go_down(self) -> None:
        """Hosts that were asked to leave do so when vorch says that they may."""
        if not self.world.store.kinds.get("order"):
            return
        for name in self.scenario.hosts:
            order, machine = self._read(HostOrder, f"order/{name}"), self.world.host(name)
            if order is None or not order.leaving or machine.off:
                continue
            leaving, record = order.leaving, self._host_record(name)
            on_its_way = record.state in (NodeState.LEAVING, NodeState.MAINTENANCE)
            if not (on_its_way and record.ready and record.left_as):
                continue
            self._log(f"node/{name}: nothing keeps it, and it goes down")
            watcher = self.watchers.pop(name, None)
            if watcher is not None:
                self._quietly(watcher.watch.close)
            machine.power_off()
            if leaving == "reboot":
                self._power(name, on=True)

    def _quietly(self, act: Callable[[], object]) -> None:
        try:
            act()
        except VorchError as exc:
            self._log(f"refused: {exc.message}")

    # -- commands

    def _command(self, batch: Batch) -> None:
        self._commands_at.pop(0)
        for op in batch.ops:
            words = " ".join(f"{value}" for value in op.values())
            self._log(f"> {words}")
            getattr(self, f"_op_{op['op']}")(op)
        self._hosts_go_down()
        for watcher in self.watchers.values():
            watcher.next_at = self.clock.now()

    def _op_power(self, op: Mapping[str, Any]) -> None:
        self._power(op["node"], op["to"] == "on")

    def _op_network(self, op: Mapping[str, Any]) -> None:
        on, which = op["to"] == "on", op.get("which", "both")
        machine = self.world.host(op["node"])
        for network in ("management", "storage"):
            if which in ("both", network):
                (machine.mend if on else machine.cut)(network)
        self.judge.switched(op["node"], on)

    # Faults beyond what the format has.

    def _op_hang(self, op: Mapping[str, Any]) -> None:
        machine, hangs = self.world.host(op["node"]), op["to"] == "on"
        if op["what"] == "host":
            machine.hang(hangs)
        else:
            machine.daemon_hung = hangs
        self.judge.switched(op["node"], not hangs)

    def _op_bmc(self, op: Mapping[str, Any]) -> None:
        machine = self.world.host(op["node"])
        machine.bmc = op["to"] if machine.bmc else ""

    def _op_mons(self, op: Mapping[str, Any]) -> None:
        down = self.scenario.hosts if op["to"] == "off" else ()
        self.world.ceph.mons_down = frozenset(down)

    def _op_osds(self, op: Mapping[str, Any]) -> None:
        self.world.ceph.stalled = op["to"] == "off"

    def _op_clock(self, op: Mapping[str, Any]) -> None:
        self.clocks[op["node"]].set(float(op["ahead_s"]), float(op.get("gains", 0.0)))

    def _op_crash(self, op: Mapping[str, Any]) -> None:
        self._lie_in_wait(_Ambush(op.get("where", "plan"), int(op["after"]), "crash"))

    def _op_pause(self, op: Mapping[str, Any]) -> None:
        self._lie_in_wait(
            _Ambush(
                op.get("where", "plan"),
                int(op["after"]),
                "pause",
                float(op["seconds"]),
                bool(op.get("clock_stands")),
            )
        )

    def _op_calls(self, op: Mapping[str, Any]) -> None:
        faults, target, times = self.world.faults, op["target"], int(op["times"])
        match op["how"]:
            case "lost":
                faults.lose_answer(target, times=times)
            case "refused":
                faults.fail(target, times=times)
            case "slow":
                faults.hang(target, ANSWER_S / 2, times=times)
            case _:
                faults.clear()
                faults.passing = None
                self.waylaid.clear()

    def _op_guest_dies(self, op: Mapping[str, Any]) -> None:
        for machine in self.world.machines.values():
            for guest in list(machine.guests.values()):
                if guest.vm.name == self.scenario.names[op["service"]]:
                    guest.crash()

    def _op_shutdown(self, op: Mapping[str, Any]) -> None:
        if not self.world.host(op["node"]).off:
            self._set_order(dataclasses.replace(self._order(op["node"]), leaving="shutdown"))

    def _op_reboot(self, op: Mapping[str, Any]) -> None:
        if not self.world.host(op["node"]).off:
            self._set_order(dataclasses.replace(self._order(op["node"]), leaving="reboot"))

    def _op_maintenance(self, op: Mapping[str, Any]) -> None:
        on, machine = op["to"] == "on", self.world.host(op["node"])
        if on and (machine.off or not machine.cables["management"]):
            self._log(f"refused: {op['node']} is not online")
            return
        self._set_order(dataclasses.replace(self._order(op["node"]), maintenance=on))

    def _op_request(self, op: Mapping[str, Any]) -> None:
        self._change(op["service"], requested=Requested(op["state"]))

    def _change(self, sid: str, **changes: Any) -> None:
        settings = self._ha(self.scenario.names[sid])
        if settings is not None:
            self._put(f"ha/{settings.vm}", dataclasses.replace(settings, **changes))

    def _op_move(self, op: Mapping[str, Any]) -> None:
        name = self.scenario.names[op["service"]]
        order = MoveOrder(vm=name, target=op["to"], live=bool(op.get("live", True)))
        self._put(f"move/{name}", order)

    def _op_stop(self, op: Mapping[str, Any]) -> None:
        settings = self._ha(self.scenario.names[op["service"]])
        if settings is not None and settings.requested is Requested.STARTED:
            timeout_s = float(op.get("timeout") or 0)
            self._change(op["service"], requested=Requested.STOPPED, stop_timeout_s=timeout_s)

    def _op_add(self, op: Mapping[str, Any]) -> None:
        name = self.scenario.names[op["service"]]
        if f"vm/{name}" not in self.world.store.texts:
            requested = Requested(op.get("requested") or "disabled")
            self._make(
                Service(
                    id=op["service"],
                    vm=name,
                    node=op["node"],
                    settings=HaVm(vm=name, requested=requested),
                )
            )
            if op.get("already_running"):
                self._put(f"ha/{name}", None)
                self._quietly(lambda: self._person().start(name))
        settings = HaVm(vm=name, requested=Requested(op.get("requested") or "disabled"))
        self._put(f"ha/{name}", settings)

    def _op_remove(self, op: Mapping[str, Any]) -> None:
        name = self.scenario.names[op["service"]]
        for kind in ("ha", "move"):
            self._put(f"{kind}/{name}", None)

    def _op_lock(self, op: Mapping[str, Any]) -> None:
        name = self.scenario.names[op["service"]]
        self.doubles.lock(name, str(op.get("lock") or "backup"), self._vm(name).node)

    def _op_unlock(self, op: Mapping[str, Any]) -> None:
        self.doubles.unlock(self.scenario.names[op["service"]])

    def _op_move_outside(self, op: Mapping[str, Any]) -> None:
        name, target = self.scenario.names[op["service"]], op["to"]
        running = any(
            guest.vm.name == name
            for machine in self.world.machines.values()
            for guest in machine.guests.values()
        )
        person = self._person()
        self._quietly(
            lambda: person.migrate(name, target) if running else person.relocate(name, target)
        )

    def _person(self) -> Orchestrator:
        return Orchestrator(self.world.connect("somebody"), self.settings)

    def _op_set_load(self, op: Mapping[str, Any]) -> None:
        name = self.scenario.names[op["service"]]
        vm = self._vm(name)
        memory_mib, vcpus = sizes(op, self.scenario.hosts.get(vm.node))
        changed: dict[str, Any] = {"vcpus": vcpus} if {"cpus", "cpu_used"} & set(op) else {}
        if {"memory", "memory_used"} & set(op):
            changed |= {"memory_mib": memory_mib, "memory_max_mib": memory_mib}
        self._put(f"vm/{name}", dataclasses.replace(vm, **changed))

    def _op_stop_manager(self, op: Mapping[str, Any]) -> None:
        watcher = self.watchers.pop(op["node"], None)
        if watcher is not None:
            self._quietly(watcher.watch.close)

    def _op_disarm(self, op: Mapping[str, Any]) -> None:
        until = self.zero + self.scenario.ends_at + 1e6
        mode = "ignore" if op.get("mode") == "ignore" else "freeze"
        self._set_policy(disarmed_until=until, disarmed_as=mode)

    def _op_arm(self, op: Mapping[str, Any]) -> None:
        self._set_policy(disarmed_until=0.0)

    def _set_policy(self, **changes: Any) -> None:
        policy = self._read(HaPolicy, "policy/ha")
        assert policy is not None
        self._put("policy/ha", dataclasses.replace(policy, **changes))

    def _no_matter(self, op: Mapping[str, Any]) -> None:
        """Nothing in vorch answers to that."""

    # Time passes by itself; hosts have no agent, no versions and no rounds of their own.
    _op_wait = _op_restart_agent = _op_set_version = _op_skip_rounds = _op_config_store = _no_matter

    # -- the end

    def _result(self) -> dict[str, Any]:
        services = {}
        leads = any(watcher.pace.leading for watcher in self.watchers.values())
        for sid, name in self.scenario.names.items():
            if f"vm/{name}" not in self.world.store.texts:
                continue
            runs, settings = self._runs_on(name), self._ha(name)
            services[sid] = {
                "state": self._state(name, runs, leads),
                "requested": settings.requested.value if settings is not None else None,
                "node": self._vm(name).node,
                "running_on": runs,
            }
        return {"services": services, "fenced": list(self.fenced)}

    def _runs_on(self, name: str) -> str | None:
        for machine in self.world.machines.values():
            if not machine.off and any(g.vm.name == name for g in machine.settled().values()):
                return machine.name
        return None

    def _state(self, name: str, runs: str | None, leads: bool) -> str:
        settings = self._ha(name)
        if settings is None:
            return "removed"
        if settings.requested is Requested.IGNORED:
            return "unmanaged"
        record = self._read(VmRecord, f"havm/{name}")
        state = VmState.UNKNOWN if record is None else record.state
        if not leads and runs is None and self.world.host(self._vm(name).node).off:
            return "down"
        if not leads and runs is not None:
            return "running"
        return STATES[state]
