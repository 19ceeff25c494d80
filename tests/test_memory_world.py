"""The world in memory: its clock, faults, guests and volumes. The same every time."""

from __future__ import annotations

import functools
import itertools
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from tests.rfb import Viewer
from vorch.drivers.memory import (
    MemoryClock,
    MemoryMedia,
    MemoryWorld,
    ProcessDied,
    forget,
    memory_chance,
    world_named,
)
from vorch.drivers.memory_pool import BLOCK_BYTES
from vorch.drivers.memory_screen import STRIPES
from vorch.drivers.process import SystemClock
from vorch.errors import (
    BadConfig,
    Cancelled,
    Conflict,
    Invalid,
    NoRoom,
    NotFound,
    TimedOut,
    Unreachable,
    Unsupported,
)
from vorch.model import Disk, DiskBus, Network, Nic, Power, Vm, Volume
from vorch.ports import Change, Hypervisor, Images, World, no_progress

MIB = 1024**2
SIZE = 4 * MIB
NAT = Network(name="default", kind="nat", bridge="virbr9", subnet="10.80.0.0/24")
LAN = Network(name="lan", kind="bridge", bridge="br0")


@pytest.fixture
def world() -> MemoryWorld:
    return MemoryWorld(hosts=2)


@pytest.fixture
def ports(world: MemoryWorld) -> World:
    return world.connect("test")


@pytest.fixture
def images(ports: World) -> Images:
    return ports.images("local")


@pytest.fixture
def host(ports: World) -> Hypervisor:
    return ports.hypervisor("h1")


def identifier(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012d}"


def machine(name: str = "web", number: int = 1, **options: Any) -> Vm:
    disk = Disk(
        name="root",
        target="vda",
        volume=Volume(pool="local", name=f"{name}.root"),
        size_bytes=SIZE,
        boot=1,
    )
    return Vm(
        **{
            "name": name,
            "id": identifier(number),
            "node": "h1",
            "memory_mib": 512,
            "memory_max_mib": 2048,
            "disks": (disk,),
            **options,
        }
    )


def start(ports: World, vm: Vm, node: str = "h1", *networks: Network) -> Vm:
    """Run it, with a volume made for each disk that has none yet."""
    host = ports.hypervisor(node)
    sources = {}
    for disk in vm.disks:
        if disk.volume is not None:
            pool = ports.images(disk.volume.pool)
            if disk.volume.name not in {one.name for one in pool.list()}:
                pool.create(disk.volume.name, disk.size_bytes)
            sources[disk.name] = pool.locate(disk.volume.name)
    for network in networks:
        host.ensure_network(network)
    host.start(vm, sources, {network.name: network for network in networks})
    return vm


def power(host: Hypervisor, vm: Vm) -> Power | None:
    domain = host.domain(vm.id)
    return None if domain is None else domain.power


# ---------------------------------------------------------------------------------------------
# Time and chance


def test_the_clock_moves_only_when_somebody_sleeps() -> None:
    clock = MemoryClock(1000.0)
    assert clock.now() == 1000.0
    clock.sleep(5)
    clock.sleep(-3)
    clock.advance(0.5)
    assert clock.now() == 1005.5


def test_events_happen_on_the_way_and_in_order() -> None:
    clock = MemoryClock(0.0)
    seen: list[tuple[str, float]] = []

    def note(name: str) -> None:
        seen.append((name, clock.now()))

    for name, when in (("c", 3.0), ("a", 1.0), ("b", 1.0), ("late", 9.0)):
        clock.at(when, functools.partial(note, name))
    clock.sleep(5)
    assert seen == [("a", 1.0), ("b", 1.0), ("c", 3.0)]
    assert clock.now() == 5.0
    clock.sleep(10)
    assert seen[-1] == ("late", 9.0)


def test_an_event_may_sleep_and_make_events() -> None:
    clock = MemoryClock(0.0)
    seen = []

    def busy() -> None:
        clock.sleep(3)
        clock.at(5.0, lambda: seen.append(clock.now()))

    clock.at(1.0, busy)
    clock.at(2.0, lambda: seen.append(clock.now()))
    clock.sleep(10)
    assert seen == [2.0, 5.0]
    assert clock.now() == 10.0


def test_waiting_ends_at_the_event_that_was_waited_for() -> None:
    clock = MemoryClock(0.0)
    seen: list[int] = []
    clock.at(2.0, lambda: seen.append(1))
    assert clock.wait(60, lambda: bool(seen)) is True
    assert clock.now() == 2.0
    assert clock.wait(3, lambda: False) is False
    assert clock.now() == 5.0


def test_chance_repeats_itself_for_a_seed() -> None:
    one, two, other = memory_chance(1), memory_chance(1), memory_chance(2)
    first = [one.uuid(), one.take(6).hex(), one.uuid()]
    assert first == [two.uuid(), two.take(6).hex(), two.uuid()]
    assert len(set(first)) == 3
    assert other.uuid() != first[0]
    Vm(name="a", id=first[0], node="h1")
    assert one.take(0) == b""


# ---------------------------------------------------------------------------------------------
# Faults


def test_a_call_fails_as_often_as_was_said(world: MemoryWorld, host: Hypervisor) -> None:
    world.faults.fail("host:h1", "domains", NoRoom("cannot: no", why=1), skip=1, times=2)
    host.domains()
    for _ in range(2):
        with pytest.raises(NoRoom) as caught:
            host.domains()
        assert caught.value.fields == {"why": 1}
    host.domains()
    host.facts()


def test_faults_are_for_their_target_call_and_caller(world: MemoryWorld, ports: World) -> None:
    other = world.connect("other")
    fault = world.faults.fail("host:*", "dom*", who="other")
    ports.hypervisor("h1").domains()
    other.hypervisor("h1").facts()
    other.state.read(["vm"])
    for node in ("h1", "h2"):
        with pytest.raises(Unreachable):
            other.hypervisor(node).domains()
    world.faults.lift(fault)
    world.faults.lift(fault)
    other.hypervisor("h1").domains()
    assert fault.met == 2


@pytest.mark.parametrize(
    "call",
    [
        lambda ports: ports.state.get("vm/a"),
        lambda ports: ports.hypervisor("h1").domains(),
        lambda ports: ports.images("local").list(),
    ],
)
def test_what_hangs_costs_its_time_or_the_callers_patience(
    world: MemoryWorld, ports: World, call: Callable[[World], object]
) -> None:
    world.faults.hang("*", 4, times=1)
    before = world.clock.now()
    call(ports)
    assert world.clock.now() - before == 4
    world.faults.hang("*", 60, times=1)
    with pytest.raises(Unreachable, match="10 s"):
        call(ports)
    assert world.clock.now() - before == 14
    call(ports)


def test_what_hung_was_not_done_unless_it_comes_late(world: MemoryWorld, images: Images) -> None:
    world.faults.hang("pool:local", 60, "create", times=1)
    with pytest.raises(Unreachable):
        images.create("a", SIZE)
    world.clock.sleep(100)
    assert images.list() == ()
    world.faults.hang("pool:local", 60, "create", late=True, times=1)
    with pytest.raises(Unreachable):
        images.create("a", SIZE)
    world.clock.sleep(49)
    assert images.list() == ()
    world.clock.sleep(2)
    assert [one.name for one in images.list()] == ["a"]


def test_what_comes_late_and_cannot_be_done_any_more_is_lost(
    world: MemoryWorld, images: Images
) -> None:
    world.faults.hang("pool:local", 60, "create", late=True, times=1)
    with pytest.raises(Unreachable):
        images.create("a", SIZE)
    images.create("a", 2 * SIZE)
    world.clock.sleep(100)
    assert images.info("a").size_bytes == 2 * SIZE


def test_an_answer_can_be_lost(world: MemoryWorld, ports: World) -> None:
    world.faults.lose_answer("state", "commit", times=1)
    with pytest.raises(Unreachable):
        ports.state.commit([Change("vm/a", 0, {})])
    assert ports.state.get("vm/a") is not None
    with pytest.raises(Conflict):
        ports.state.commit([Change("vm/a", 0, {})])


def test_a_call_that_fails_after_it_acted(world: MemoryWorld, images: Images) -> None:
    world.faults.fail("pool:local", "create", NoRoom("cannot: no"), when="after", times=1)
    with pytest.raises(NoRoom):
        images.create("a", SIZE)
    images.create("a", SIZE)


def test_a_silent_host_goes_on_running_its_vms(
    world: MemoryWorld, ports: World, host: Hypervisor
) -> None:
    world.behaviour.writes_per_s = 10
    vm = start(ports, machine())
    silence = world.faults.silence("host:h1")
    with pytest.raises(Unreachable):
        host.domains()
    world.clock.sleep(100)
    assert power(ports.hypervisor("h2"), vm) is None
    world.faults.lift(silence)
    assert power(host, vm) is Power.RUNNING
    assert host.figures(vm, now=world.clock.now()).disks[0].writes == 1100


def test_a_snapshot_of_several_volumes_can_fail_in_the_middle(
    world: MemoryWorld, images: Images
) -> None:
    for volume in ("a", "b", "c"):
        images.create(volume, SIZE)
    world.faults.fail("pool:local", "snapshot", when="midway", skip=1, times=1)
    with pytest.raises(Unreachable):
        images.snapshot(["a", "b", "c"], "s")
    assert [one.snapshots for one in images.list()] == [("s",), ("s",), ()]
    images.snapshot(["a", "b", "c"], "s")
    assert [one.snapshots for one in images.list()] == [("s",)] * 3
    world.faults.fail("pool:local", "drop_snapshot", when="midway", times=1)
    with pytest.raises(Unreachable):
        images.drop_snapshot(["a", "b", "c"], "s")
    images.drop_snapshot(["a", "b", "c"], "s")
    assert [one.snapshots for one in images.list()] == [()] * 3


def test_a_killed_process_does_nothing_more(world: MemoryWorld, ports: World) -> None:
    other = world.connect("other")
    me = ports.processes.me()
    assert other.processes.alive(me) is True
    world.faults.crash("state", "commit", skip=1, who="test")
    ports.state.commit([Change("vm/a", 0, {})])
    with pytest.raises(ProcessDied):
        ports.state.commit([Change("vm/b", 0, {})])
    # Nor does it clean up after itself, on its way out.
    with pytest.raises(ProcessDied):
        ports.images("local").create("a", SIZE)
    with pytest.raises(ProcessDied):
        ports.hypervisor("h1").domains()
    assert other.processes.alive(me) is False
    assert list(other.state.read(["vm"])) == ["vm/a"]
    assert other.images("local").list() == ()
    assert not isinstance(ProcessDied("x"), Exception)


@pytest.mark.parametrize(("when", "done"), [("before", set()), ("after", {"vm/a"})])
def test_a_process_dies_before_or_after_it_acted(
    world: MemoryWorld, ports: World, when: Any, done: set[str]
) -> None:
    world.faults.crash("state", "commit", when=when)
    with pytest.raises(ProcessDied):
        ports.state.commit([Change("vm/a", 0, {})])
    assert set(world.connect().state.read(["vm"])) == done


def test_a_process_that_dies_in_a_copy_leaves_part_of_it(
    world: MemoryWorld, ports: World, images: Images
) -> None:
    images.create("a", SIZE)
    world.pool("local")["a"].write(0, b"x" * SIZE)
    world.faults.crash("pool:local", "copy", when="midway")
    with pytest.raises(ProcessDied):
        images.copy("a", None, "b", no_progress)
    pool = world.pool("local")
    partial = pool["b"]
    assert not partial.whole
    assert partial.digest() != pool["a"].digest()
    again = world.connect().images("local")
    again.copy("a", None, "b", no_progress)
    assert pool["b"].whole
    assert pool["b"].digest() == pool["a"].digest()


def test_processes_can_be_declared_dead_or_hidden(world: MemoryWorld, ports: World) -> None:
    one, two = world.connect(), world.connect()
    assert one.processes.me() != two.processes.me()
    world.processes.hide(one.processes.me())
    assert two.processes.alive(one.processes.me()) is None
    world.processes.hide(one.processes.me(), False)
    world.kill(one)
    assert two.processes.alive(one.processes.me()) is False
    assert two.processes.alive({"kind": "linux"}) is None
    assert two.processes.alive({"kind": "memory", "world": "other", "process": 1}) is None
    two.close()
    assert ports.processes.alive(two.processes.me()) is False


def test_all_calls_are_traced(world: MemoryWorld, ports: World) -> None:
    ports.images("local").create("a", SIZE)
    with pytest.raises(NotFound):
        ports.images("local").info("b")
    ports.state.commit([Change("vm/a", 0, {}), Change("vm/b", 0, {})])
    world.faults.crash("host:h1")
    with pytest.raises(ProcessDied):
        ports.hypervisor("h1").domain("x")
    found = [(call.target, call.name, call.about, call.outcome) for call in world.faults.trace]
    assert found == [
        ("pool:local", "create", "a", "ok"),
        ("pool:local", "info", "b", "not-found"),
        ("state", "commit", "vm/a,vm/b", "ok"),
        ("host:h1", "domain", "x", "died"),
    ]
    assert [call.name for call in world.faults.calls("pool:*")] == ["create", "info"]
    assert [call.target for call in world.faults.calls(name="dom*")] == ["host:h1"]


def test_latency_costs_time_on_the_worlds_clock() -> None:
    world = MemoryWorld(latency_s=0.02)
    ports = world.connect()
    before = world.clock.now()
    for _ in range(10):
        ports.hypervisor("h1").domains()
    assert world.clock.now() - before == pytest.approx(0.2)


def test_a_world_can_run_in_real_time() -> None:
    world = MemoryWorld(clock=SystemClock())
    ports = world.connect()
    assert ports.threads
    assert not MemoryWorld().connect().threads
    world.behaviour.shutdown_s = 0.05
    vm = start(ports, machine())
    ports.hypervisor("h1").shut_down(vm.id)
    assert ports.hypervisor("h1").await_end(vm.id, 10, no_progress)
    assert ports.state.changes(0, 0.01) == (0, ())


def test_it_does_the_same_every_time() -> None:
    def live() -> tuple[object, ...]:
        world = MemoryWorld(hosts=3, seed=7, latency_s=0.001)
        world.behaviour.writes_per_s = 7
        ports = world.connect()
        made = []
        for number in range(5):
            vm = machine(f"vm{number}", id=ports.chance.uuid())
            made.append(start(ports, vm, f"h{number % 3 + 1}"))
        world.clock.sleep(33.3)
        ports.images("local").snapshot(["vm0.root", "vm1.root"], "s")
        ports.hypervisor("h1").cut(made[0].id)
        pool = world.pool("local")
        return (
            world.clock.now(),
            list(world.faults.trace),
            [(one.name, one.digest()) for one in pool.everything()],
            [ports.hypervisor(f"h{number}").domains() for number in (1, 2, 3)],
        )

    assert live() == live()


# ---------------------------------------------------------------------------------------------
# Worlds and their names


def test_worlds_of_one_name_are_one() -> None:
    try:
        one, two = world_named("shared?hosts=3&memory_mib=100"), world_named("shared")
        assert one is two
        assert list(one.machines) == ["h1", "h2", "h3"]
        assert one.machines["h3"].facts.memory_mib == 100
        one.connect().state.commit([Change("vm/a", 0, {})])
        assert two.connect().state.get("vm/a") is not None
    finally:
        forget("shared")
        forget("shared")
    assert world_named("") is not world_named("")
    assert isinstance(world_named("?clock=system").clock, SystemClock)


@pytest.mark.parametrize("address", ["x?hosts=many", "x?nonsense=1", "?clock=sun", "x?hosts"])
def test_an_address_that_makes_no_sense(address: str) -> None:
    with pytest.raises(BadConfig):
        world_named(address)


def test_an_empty_store_gets_to_know_the_hosts() -> None:
    world = MemoryWorld(hosts=3)
    ports, prepare = world.connection()
    calls = []

    class Starter:
        def init(self, *, node: str, hypervisor_uri: str, pool_url: str) -> None:
            calls.append((node, hypervisor_uri, pool_url))
            ports.state.commit([Change(f"node/{node}", 0, {"name": node, "uri": hypervisor_uri})])

    prepare(Starter())
    prepare(Starter())
    assert calls == [("h1", "memory:", "memory:")]
    nodes = ports.state.read(["node"])
    assert [nodes[f"node/h{number}"].body["name"] for number in (1, 2, 3)] == ["h1", "h2", "h3"]


def test_nothing_of_libvirt_or_ceph_is_imported() -> None:
    program = (
        "import sys; import vorch.drivers.memory as m; m.MemoryWorld().connect();"
        "print([n for n in ('libvirt', 'rados', 'rbd', 'lxml', 'pycdlib') if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    assert done.stdout.strip() == "[]"


def test_hosts_that_are_not_there(ports: World, world: MemoryWorld) -> None:
    with pytest.raises(NotFound):
        ports.hypervisor("h9")
    with pytest.raises(NotFound):
        world.guest("web")
    with pytest.raises(Invalid):
        world.behave("web", nonsense=True)


# ---------------------------------------------------------------------------------------------
# Guests


def test_what_a_guest_writes_is_in_its_volume_and_in_later_snapshots(
    world: MemoryWorld, ports: World, images: Images
) -> None:
    start(ports, machine())
    guest, volume = world.guest("web"), world.pool("local")["web.root"]
    guest.write("root", 100, b"one")
    images.snapshot(["web.root"], "s")
    guest.write("root", 100, b"two")
    assert guest.read("root", 99, 5) == b"\0two\0"
    assert volume.read(100, 3) == b"two"
    assert volume.read(100, 3, "s") == b"one"
    images.copy("web.root", "s", "copy", no_progress)
    assert world.pool("local")["copy"].read(100, 3) == b"one"


def test_a_busy_guest_writes_as_time_goes_by(world: MemoryWorld, ports: World) -> None:
    world.behave("web", writes_per_s=2.0)
    vm = start(ports, machine())
    world.clock.sleep(10.4)
    images, volume = ports.images("local"), world.pool("local")["web.root"]
    images.snapshot(["web.root"], "s")
    guest = world.guest(vm.id)
    assert volume.read(19 % 16 * BLOCK_BYTES, 50, "s").startswith(guest.mark("root", 19))
    world.clock.sleep(10)
    before = volume.digest("s")
    images.info("web.root")
    assert volume.read(39 % 16 * BLOCK_BYTES, 50).startswith(guest.mark("root", 39))
    assert volume.digest("s") == before != volume.digest()


@pytest.mark.parametrize("step_s", [0.1, 3.7, 60.0])
def test_how_often_one_looks_changes_nothing(step_s: float) -> None:
    world = MemoryWorld()
    world.behaviour.writes_per_s = 2.5
    ports = world.connect()
    start(ports, machine())
    end = world.clock.now() + 60
    while world.clock.now() < end:
        world.clock.sleep(min(step_s, end - world.clock.now()))
        ports.hypervisor("h1").domains()
    volume = world.pool("local")["web.root"]
    written = [volume.read(place * BLOCK_BYTES, 64).split(b";")[0] for place in range(16)]
    numbers = sorted(int(one.rpartition(b":")[2]) for one in written)
    assert numbers in (list(range(133, 149)), list(range(134, 150)))


def test_a_paused_guest_writes_nothing(world: MemoryWorld, ports: World, host: Hypervisor) -> None:
    world.behaviour.writes_per_s = 1.0
    vm = start(ports, machine())
    world.clock.sleep(10)
    host.pause(vm.id)
    host.pause(vm.id)
    before = world.pool("local")["web.root"].digest()
    cpu = host.figures(vm, now=world.clock.now()).cpu_time_ns
    world.clock.sleep(50)
    with pytest.raises(Conflict):
        world.guest("web").write("root", 0, b"x")
    assert power(host, vm) is Power.PAUSED
    assert world.pool("local")["web.root"].digest() == before
    assert host.figures(vm, now=world.clock.now()).cpu_time_ns == cpu
    host.resume(vm.id)
    host.resume(vm.id)
    world.clock.sleep(5)
    ports.images("local").info("web.root")
    assert world.pool("local")["web.root"].digest() != before


def test_a_frozen_guest_holds_its_writes_back(
    world: MemoryWorld, ports: World, host: Hypervisor, images: Images
) -> None:
    vm = start(ports, machine())
    guest = world.guest("web")
    assert host.freeze(vm.id) is False
    world.clock.sleep(5)
    guest.write("root", 0, b"before")
    assert host.freeze(vm.id) is True
    guest.write("root", 0, b"during")
    images.snapshot(["web.root"], "s")
    host.thaw(vm.id)
    host.thaw(vm.id)
    volume = world.pool("local")["web.root"]
    assert volume.read(0, 6, "s") == b"before"
    assert volume.read(0, 6) == b"during"
    host.thaw(identifier(99))


def test_an_agent_answers_or_not(world: MemoryWorld, ports: World, host: Hypervisor) -> None:
    with_one = start(ports, machine())
    without = start(ports, machine("db", 2, agent=False))
    world.clock.sleep(60)
    assert host.freeze(with_one.id) is True
    assert host.freeze(without.id) is False
    world.behave("web", agent_answers=False)
    assert host.freeze(with_one.id) is False


def test_a_guest_shuts_down_when_asked(world: MemoryWorld, ports: World, host: Hypervisor) -> None:
    vm = start(ports, machine())
    host.shut_down(vm.id)
    assert power(host, vm) is Power.STOPPING
    said: list[float | None] = []
    before = world.clock.now()
    assert host.await_end(vm.id, 60, lambda percent=None, line=None: said.append(percent))
    assert world.clock.now() - before == pytest.approx(3.0)
    assert said
    assert host.domains() == ()
    assert not world.pool("local")["web.root"].open_by


def test_a_guest_may_not_obey(world: MemoryWorld, ports: World, host: Hypervisor) -> None:
    world.behave("web", obeys_shutdown=False)
    vm = start(ports, machine())
    host.shut_down(vm.id)
    before = world.clock.now()
    assert host.await_end(vm.id, 60, no_progress) is False
    assert world.clock.now() - before == pytest.approx(60)
    assert power(host, vm) is Power.RUNNING
    host.cut(vm.id)
    host.cut(vm.id)
    assert host.await_end(vm.id, 0, no_progress) is True


def test_waiting_for_the_end_can_be_cancelled(
    world: MemoryWorld, ports: World, host: Hypervisor
) -> None:
    vm = start(ports, machine())

    def cancel(percent: float | None = None, line: str | None = None) -> None:
        raise Cancelled("cannot go on: somebody cancelled")

    before = world.clock.now()
    with pytest.raises(Cancelled):
        host.await_end(vm.id, 600, cancel)
    assert world.clock.now() - before <= 1.0


def test_guests_may_end_by_themselves(world: MemoryWorld, ports: World, host: Hypervisor) -> None:
    vm = start(ports, machine())
    world.guest("web").shut_down_by_itself()
    assert host.domain(vm.id) is None
    start(ports, machine())
    world.guest("web").crash()
    assert host.domain(vm.id) is None
    world.behave("web", powers_off_after_s=30.0)
    start(ports, machine())
    world.clock.sleep(29)
    assert power(host, vm) is Power.RUNNING
    world.clock.sleep(2)
    assert host.domain(vm.id) is None
    with pytest.raises(NotFound):
        host.pause(vm.id)


def test_a_host_without_power_forgets_all(
    world: MemoryWorld, ports: World, host: Hypervisor
) -> None:
    start(ports, machine())
    world.host("h1").power_off()
    world.host("h1").power_off()
    with pytest.raises(Unreachable):
        host.domains()
    # Its disks are free for another host.
    start(ports, machine(), "h2")
    world.host("h1").power_on()
    world.host("h1").power_on()
    assert host.domains() == ()
    world.host("h2").restart()
    assert ports.hypervisor("h2").domains() == ()


def test_two_writers_of_one_volume_are_seen(
    world: MemoryWorld, ports: World, images: Images
) -> None:
    """As in RBD: the lock is handed over, so that nothing but the caller's care keeps one out."""
    start(ports, machine())
    assert world.double_writers() == []
    with pytest.raises(Conflict, match="open at"):
        images.ensure_unused("web.root")
    start(ports, machine(), "h2")
    assert world.double_writers() == ["web.root: web on h1 and web on h2"]
    world.host("h1").power_off()
    assert world.double_writers() == []


def test_a_client_that_died_is_waited_for(world: MemoryWorld, ports: World, images: Images) -> None:
    start(ports, machine())
    world.host("h1").power_off()
    began = world.clock.now()
    images.ensure_unused("web.root")
    assert world.clock.now() - began == pytest.approx(30.0, abs=0.1)


def test_a_blocklisted_client_never_writes_again(world: MemoryWorld, ports: World) -> None:
    start(ports, machine())
    guest, ceph = world.guest("web"), world.ceph
    ceph.block([guest.client.address])
    # It writes until the map is everywhere; what becomes of its entry later is no matter.
    writes = [guest.can_write]
    world.clock.sleep(1.0)
    writes.append(guest.can_write)
    ceph.unblock([guest.client.address])
    writes.append(guest.can_write)
    assert writes == [True, False, False]
    assert power(ports.hypervisor("h1"), machine()) is Power.PAUSED


def test_a_client_that_was_cut_off_meanwhile_hears_of_no_entry(
    world: MemoryWorld, ports: World
) -> None:
    """Why a host is let in again only when nothing is left running on it."""
    start(ports, machine())
    h1, guest = world.host("h1"), world.guest("web")
    h1.cut("storage")
    world.ceph.block([h1.storage_address])
    world.clock.sleep(60.0)
    world.ceph.unblock([h1.storage_address])
    writes = [guest.can_write]
    h1.mend("storage")
    assert [*writes, guest.can_write] == [False, True]


def test_what_clones_stand_on_is_not_written(ports: World, images: Images) -> None:
    images.create("web.root", SIZE)
    images.clone("web.root", "clone", SIZE)
    with pytest.raises(Conflict, match="clones"):
        start(ports, machine())


def test_many_may_read_one_cd(ports: World, host: Hypervisor, images: Images) -> None:
    images.write_file("cd", b"x" * 2048)
    drive = Disk(
        name="cd",
        target="sda",
        bus=DiskBus.SATA,
        device="cdrom",
        volume=Volume(pool="local", name="cd"),
        owned=False,
        read_only=True,
    )
    one = start(ports, machine("one", 1, disks=(drive,)))
    start(ports, machine("two", 2, disks=(drive,)))
    with pytest.raises(Conflict):
        images.purge("cd")
    empty = Disk(**{**{f: getattr(drive, f) for f in drive.__slots__}, "volume": None})
    for vm in (one, machine("two", 2)):
        host.change_media(vm, empty, None)
        host.change_media(vm, empty, None)
    images.purge("cd")
    with pytest.raises(NotFound):
        host.change_media(one, machine().disks[0], None)


@pytest.mark.parametrize(
    "act",
    [
        lambda images: images.rollback(["web.root"], "s"),
        lambda images: images.grow("web.root", 2 * SIZE),
        lambda images: images.trash("web.root"),
        lambda images: images.purge("web.root"),
        lambda images: images.make_base("web.root", "base"),
        lambda images: images.clone("web.root", "clone", SIZE),
        lambda images: images.copy("web.root", None, "copy", no_progress),
        lambda images: images.copy("other", None, "web.root", no_progress),
        lambda images: images.write_file("web.root", b"x"),
    ],
)
def test_what_nobody_may_have_open(
    ports: World, images: Images, act: Callable[[Images], object]
) -> None:
    images.create("other", SIZE)
    vm = start(ports, machine())
    images.snapshot(["web.root"], "s")
    with pytest.raises(Conflict):
        act(images)
    ports.hypervisor("h1").cut(vm.id)
    assert images.info("web.root").snapshots == ("s",)


def test_a_pool_without_live_snapshots_leaves_them_to_the_host() -> None:
    world = MemoryWorld(live_snapshots=False)
    ports = world.connect()
    images, host = ports.images("local"), ports.hypervisor("h1")
    vm = start(ports, machine())
    assert not images.live_snapshots
    with pytest.raises(Conflict):
        images.snapshot(["web.root"], "s")
    world.guest("web").write("root", 0, b"one")
    host.snapshot(vm, vm.disks, "s")
    host.snapshot(vm, vm.disks, "s")
    world.guest("web").write("root", 0, b"two")
    with pytest.raises(Conflict):
        images.drop_snapshot(["web.root"], "s")
    host.cut(vm.id)
    images.rollback(["web.root"], "s")
    assert world.pool("local")["web.root"].read(0, 3) == b"one"
    start(ports, vm)
    host.drop_snapshot(vm, vm.disks, "s")
    host.drop_snapshot(vm, vm.disks, "s")
    assert images.info("web.root").snapshots == ()


def test_a_guest_whose_pool_is_full_is_paused(
    world: MemoryWorld, ports: World, host: Hypervisor
) -> None:
    vm = start(ports, machine())
    world.guest("web").write("root", 0, b"x")
    world.pool("local").full = True
    world.guest("web").write("root", 0, b"y")
    assert power(host, vm) is Power.RUNNING
    world.guest("web").write("root", 3 * BLOCK_BYTES, b"z")
    domain = host.domain(vm.id)
    assert domain is not None
    assert (domain.power, "no space" in domain.reason) == (Power.PAUSED, True)


def test_a_guest_fills_a_small_pool() -> None:
    world = MemoryWorld(capacity_bytes=3 * BLOCK_BYTES)
    ports = world.connect()
    vm = start(ports, machine())
    guest = world.guest("web")
    for place in (0, 1, 1, 0):
        guest.write("root", place * BLOCK_BYTES, b"x")
    # What a snapshot holds stays where it is, so writing over it takes room.
    ports.images("local").snapshot(["web.root"], "s")
    for _ in range(3):
        guest.write("root", 0, b"y")
    assert power(ports.hypervisor("h1"), vm) is Power.RUNNING
    guest.write("root", BLOCK_BYTES, b"z")
    assert power(ports.hypervisor("h1"), vm) is Power.PAUSED
    ports.images("local").drop_snapshot(["web.root"], "s")
    ports.hypervisor("h1").resume(vm.id)
    guest.write("root", BLOCK_BYTES, b"z")
    assert power(ports.hypervisor("h1"), vm) is Power.RUNNING
    assert ports.images("local").usage().free_bytes == BLOCK_BYTES


def test_hot_plugging(world: MemoryWorld, ports: World, host: Hypervisor, images: Images) -> None:
    vm = start(ports, machine())
    disk = Disk(name="data", target="vdb", volume=Volume(pool="local", name="data"))
    images.create("data", SIZE)
    source = images.locate("data")
    host.attach_disk(vm, disk, source)
    host.attach_disk(vm, disk, source)
    clash = Disk(name="more", target="vdb", volume=disk.volume)
    with pytest.raises(Conflict):
        host.attach_disk(vm, clash, source)
    world.guest("web").write("data", 0, b"x")
    host.grow_disk(vm, disk, 2 * SIZE)
    host.grow_disk(vm, disk, 2 * SIZE)
    with pytest.raises(Invalid):
        host.grow_disk(vm, disk, SIZE)
    assert images.info("data").size_bytes == 2 * SIZE
    world.behave("web", lets_go=False)
    before = world.clock.now()
    with pytest.raises(TimedOut):
        host.detach_disk(vm, disk, 20)
    assert world.clock.now() - before == 20
    world.behave("web", lets_go=True)
    host.detach_disk(vm, disk, 20)
    host.detach_disk(vm, disk, 20)
    images.purge("data")
    with pytest.raises(NotFound):
        host.grow_disk(vm, disk, 4 * SIZE)


def test_vcpus_and_memory_while_it_runs(world: MemoryWorld, ports: World, host: Hypervisor) -> None:
    vm = start(ports, machine())
    host.set_vcpus(vm.id, 4)
    host.set_memory(vm.id, 1024)
    domain = host.domain(vm.id)
    assert domain is not None
    assert (domain.vcpus, domain.memory_mib) == (4, 1024)
    for vcpus in (0, 9):
        with pytest.raises(Invalid):
            host.set_vcpus(vm.id, vcpus)
    with pytest.raises(Invalid):
        host.set_memory(vm.id, 4096)
    world.behave("web", takes_more=False)
    with pytest.raises(Unsupported):
        host.set_vcpus(vm.id, 2)


def test_a_host_has_only_so_much_memory() -> None:
    world = MemoryWorld(memory_mib=1024)
    ports = world.connect()
    start(ports, machine("one", 1))
    vm = start(ports, machine("two", 2))
    with pytest.raises(NoRoom) as caught:
        start(ports, machine("three", 3))
    assert caught.value.fields["free_mib"] == 0
    with pytest.raises(NoRoom):
        ports.hypervisor("h1").set_memory(vm.id, 513)
    assert world.host("h1").memory_used_mib == 1024


def test_networks_and_addresses(world: MemoryWorld, ports: World, host: Hypervisor) -> None:
    nics = (
        Nic(name="net0", mac="52:54:00:00:00:01", network="default"),
        Nic(name="net1", mac="52:54:00:00:00:07", network="lan"),
    )
    vm = machine(nics=nics)
    ports.images("local").create("web.root", SIZE)
    sources = {"root": ports.images("local").locate("web.root")}
    with pytest.raises(NotFound, match="default"):
        host.start(vm, sources, {"default": NAT, "lan": LAN})
    assert not world.pool("local")["web.root"].open_by
    with pytest.raises(Invalid, match="br7"):
        host.ensure_network(Network(name="x", kind="bridge", bridge="br7"))
    start(ports, vm, "h1", NAT, LAN)
    host.ensure_network(NAT)
    assert host.addresses(vm) == ()
    world.clock.sleep(10)
    found = {one.mac: (one.ip, one.source) for one in host.addresses(vm)}
    assert found == {
        "52:54:00:00:00:01": ("10.80.0.64", "lease"),
        "52:54:00:00:00:07": ("198.51.100.8", "agent"),
    }
    assert "10.80.0.0/24" in host.used_subnets()
    with pytest.raises(Conflict):
        host.remove_network(NAT)
    host.detach_nic(vm, nics[0], 5)
    host.detach_nic(vm, nics[0], 5)
    host.remove_network(NAT)
    host.remove_network(NAT)
    with pytest.raises(NotFound):
        host.attach_nic(vm, nics[0], NAT)
    host.ensure_network(NAT)
    host.attach_nic(vm, nics[0], NAT)
    host.attach_nic(vm, nics[0], NAT)
    assert len(host.figures(vm, now=0.0).nics) == 2


def test_a_guest_keeps_its_address_and_a_full_network_has_none_left(
    world: MemoryWorld, ports: World, host: Hypervisor
) -> None:
    tiny = Network(name="tiny", kind="nat", bridge="virbr8", subnet="10.90.0.0/29")
    found = []
    for number in range(1, 8):
        nic = Nic(name="net0", mac=f"52:54:00:00:00:{number:02x}", network="tiny")
        start(ports, machine(f"vm{number}", number, nics=(nic,)), "h1", tiny)
    world.clock.sleep(10)
    for number in range(1, 8):
        found.append([one.ip for one in host.addresses(machine(f"vm{number}", number))])
    assert found == [[f"10.90.0.{last}"] for last in (2, 3, 4, 5, 6)] + [[], []]
    assert [one.ip for one in host.addresses(machine("vm2", 2))] == ["10.90.0.3"]


def test_figures_grow_with_the_clock(world: MemoryWorld, ports: World, host: Hypervisor) -> None:
    vm = start(ports, machine())
    world.clock.sleep(10)
    one = host.figures(vm, now=1.0)
    world.clock.sleep(10)
    two = host.figures(vm, now=2.0)
    assert (one.at, two.at) == (1.0, 2.0)
    assert two.cpu_time_ns == 2 * one.cpu_time_ns > 0
    assert two.disks[0].reads > one.disks[0].reads
    assert one.memory_used_mib is not None
    domain = host.domain(vm.id)
    assert domain is not None
    assert domain.cpu_time_ns == two.cpu_time_ns


def test_the_console_shows_a_login_prompt_and_echoes(
    world: MemoryWorld, ports: World, host: Hypervisor
) -> None:
    vm = start(ports, machine())
    console = host.console(vm.id)
    assert console.read(0.5) == b""
    before = world.clock.now()
    assert b"web login: " in console.read(60)
    # It came when the guest had booted, not when the time was over.
    assert world.clock.now() - before < 60
    assert console.read(1) == b""
    console.write(b"root\r")
    assert console.read(1) == b"root\r\nweb login: "
    host.reset(vm.id)
    assert b"login" in console.read(60)
    host.cut(vm.id)
    with pytest.raises(Unreachable):
        console.read(1)
    with pytest.raises(Unreachable):
        console.write(b"x")
    with pytest.raises(NotFound):
        host.console(vm.id)


def test_a_closed_console(ports: World, host: Hypervisor) -> None:
    vm = start(ports, machine())
    console = host.console(vm.id)
    console.close()
    with pytest.raises(Unreachable):
        console.read(1)


def test_a_screen_shows_stripes_and_hears_keys(
    world: MemoryWorld, ports: World, host: Hypervisor
) -> None:
    vm = start(ports, machine())
    screen = host.display(vm.id)
    assert screen is not None
    viewer = Viewer(screen)
    assert (viewer.name, viewer.width, viewer.height) == (vm.name, 160, 100)
    picture = viewer.picture()
    assert [picture[x, 50] for x in (20, 60, 100, 140)] == list(STRIPES)
    viewer.press(0x61, 0xFF0D)
    assert world.guest(vm.id).keys == (0x61, 0xFF0D)
    # What is no RFB ends it, and nothing else.
    screen.write(b"\xff" * 8)
    with pytest.raises(Unreachable, match="not RFB"):
        screen.read(0.1)
    assert host.display(start(ports, machine("dark", 3, graphics=False)).id) is None


def test_other_peoples_domains_are_shown(world: MemoryWorld, host: Hypervisor) -> None:
    world.host("h1").add_foreign(machine("theirs", 9, disks=()))
    (found,) = host.domains()
    assert (found.name, found.ours, found.generation) == ("theirs", False, 0)


def test_the_generation_is_that_of_the_start(ports: World, host: Hypervisor) -> None:
    vm = start(ports, machine(generation=4))
    start(ports, machine(generation=5))
    domain = host.domain(vm.id)
    assert domain is not None
    assert domain.generation == 4


def test_probing(world: MemoryWorld, host: Hypervisor) -> None:
    assert host.facts().accelerator == ""
    before = world.clock.now()
    assert host.probe(no_progress).accelerator == "kvm"
    assert world.clock.now() > before
    assert host.facts().probed_at == world.clock.now()
    assert [check.level for check in host.checks()] == ["ok"]


def test_starting_needs_to_know_where_disks_and_networks_are(
    ports: World, host: Hypervisor, images: Images
) -> None:
    images.create("web.root", SIZE)
    with pytest.raises(Invalid, match="root"):
        host.start(machine(), {}, {})
    nic = Nic(name="net0", mac="52:54:00:00:00:01", network="default")
    with pytest.raises(Invalid, match="default"):
        host.start(machine(nics=(nic,)), {"root": images.locate("web.root")}, {})
    assert host.domains() == ()


def test_simple_media_can_be_read_back(images: Images) -> None:
    media = MemoryMedia()
    images.write_file("cd", media.iso("seed", {"user-data": "x", "meta/data": "ü"}))
    with images.open_read("cd") as cd:
        assert media.extract(cd, "/meta/data") == "ü".encode()
        assert media.find(cd, ["none", "user-data"]) == "user-data"
        with pytest.raises(NotFound):
            media.extract(cd, "none")
    assert media.initrd_archive({"a": "b"})


# ---------------------------------------------------------------------------------------------
# Volumes


@pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is not installed")
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("qcow2", []),
        ("qcow2", ["-o", "compat=0.10"]),
        ("qcow2", ["-o", "cluster_size=4096"]),
        ("qcow2", ["-c"]),
        ("vmdk", []),
        ("vmdk", ["-o", "subformat=streamOptimized"]),
        ("vdi", []),
        ("raw", []),
    ],
)
def test_imported_disks_hold_what_was_in_them(
    world: MemoryWorld, images: Images, tmp_path: Path, kind: str, options: list[str]
) -> None:
    content = bytearray(9 * MIB)
    for number in range(0, 9 * MIB, 700_000):
        content[number : number + 5] = f"{number:05d}".encode()[:5]
    content[3 * MIB : 4 * MIB] = bytes(range(256)) * 4096
    raw, image = tmp_path / "raw", tmp_path / "image"
    raw.write_bytes(content)
    command = ["qemu-img", "convert", "-f", "raw", "-O", kind, *options, str(raw), str(image)]
    subprocess.run(command, check=True)
    found = images.import_file(str(image), "a", "disk", "", no_progress)
    assert (found.format, found.size_bytes) == (kind, len(content))
    assert world.pool("local")["a"].read(0, len(content)) == content


def test_a_made_up_file_can_be_imported(world: MemoryWorld, images: Images) -> None:
    world.files.made_up["https://example.org/disk"] = b"\1" * MIB
    found = images.import_file("https://example.org/disk", "a", "disk", "", no_progress)
    assert found.size_bytes == MIB
    assert images.info("a").used_bytes == MIB


def test_zeros_take_no_room(world: MemoryWorld, images: Images) -> None:
    world.files.made_up["disk"] = bytes(64 * MIB) + b"\1"
    images.import_file("disk", "a", "file", "", no_progress)
    assert images.info("a").used_bytes == BLOCK_BYTES
    images.snapshot(["a"], "s")
    assert images.info("a").used_bytes == BLOCK_BYTES
    world.pool("local")["a"].write(64 * MIB, b"\2")
    assert images.info("a").used_bytes == 2 * BLOCK_BYTES
    usage = images.usage()
    assert usage.used_bytes + usage.free_bytes == usage.capacity_bytes


def test_a_pool_of_a_certain_size() -> None:
    world = MemoryWorld(capacity_bytes=2 * BLOCK_BYTES)
    images = world.connect().images("local")
    images.write_file("a", b"x" * BLOCK_BYTES)
    with pytest.raises(NoRoom) as caught:
        images.write_file("b", b"x" * 2 * BLOCK_BYTES)
    assert caught.value.fields["free_bytes"] == BLOCK_BYTES
    images.write_file("b", b"x" * BLOCK_BYTES)
    with pytest.raises(NoRoom):
        images.create("c", SIZE)
    images.purge("a")
    images.create("c", SIZE)


UNIT = BLOCK_BYTES // 2
NAMES = ("a", "b", "c", "d")


class VolumesMachine(RuleBasedStateMachine):
    """Whatever is done to volumes, each holds what plain bytes would hold."""

    def __init__(self) -> None:
        super().__init__()
        self.world = MemoryWorld()
        self.pool = self.world.pool("local")
        self.images = self.world.connect().images("local")
        self.live: dict[str, bytes] = {}
        self.trash: dict[str, bytes] = {}
        self.snapshots: dict[tuple[str, str], bytes] = {}
        # Who stands on whom: such a volume is not written or replaced.
        self.bases: dict[str, str] = {}
        self.numbers = itertools.count()

    def _is_base(self, name: str) -> bool:
        return name in self.bases.values()

    def _check(self) -> None:
        for name, content in self.live.items():
            volume = self.pool[name]
            assert volume.size_bytes == len(content)
            assert volume.read(0, len(content)) == content
        for (name, snapshot), content in self.snapshots.items():
            if name in self.live:
                assert self.pool[name].read(0, len(content) + UNIT, snapshot) == content

    @rule(name=st.sampled_from(NAMES), units=st.integers(1, 4))
    def create(self, name: str, units: int) -> None:
        if name in self.live or name in self.trash:
            return
        self.images.create(name, units * UNIT)
        self.live[name] = bytes(units * UNIT)
        self._check()

    @precondition(lambda self: self.live)
    @rule(data=st.data(), name=st.sampled_from(NAMES), more=st.integers(0, 2))
    def clone(self, data: st.DataObject, name: str, more: int) -> None:
        if name in self.live or name in self.trash:
            return
        base = data.draw(st.sampled_from(sorted(self.live)))
        content = self.live[base] + bytes(more * UNIT)
        self.images.clone(base, name, len(content))
        self.live[name] = content
        self.bases[name] = base
        self._check()

    @precondition(lambda self: self.live)
    @rule(data=st.data(), fill=st.integers(0, 255), start=st.integers(0, 7))
    def write(self, data: st.DataObject, fill: int, start: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.live)))
        if self._is_base(name):
            return
        content = bytearray(self.live[name])
        at = start * (UNIT // 2) % len(content)
        part = bytes([fill]) * min(UNIT + 7, len(content) - at)
        content[at : at + len(part)] = part
        self.pool[name].write(at, part)
        self.live[name] = bytes(content)
        self._check()

    @precondition(lambda self: self.live)
    @rule(data=st.data(), name=st.sampled_from(NAMES), old=st.booleans())
    def copy(self, data: st.DataObject, name: str, old: bool) -> None:
        source = data.draw(st.sampled_from(sorted(self.live)))
        taken = name in self.trash or self._is_base(name) or name == source
        if taken or any(key[0] == name for key in self.snapshots):
            return
        content, snapshot = self.live[source], None
        if old and (source, "s") in self.snapshots:
            content, snapshot = self.snapshots[source, "s"], "s"
        self.images.copy(source, snapshot, name, no_progress)
        self.live[name] = content
        self.bases.pop(name, None)
        self._forget_hidden()
        assert self.pool[name].digest() == self.pool[source].digest(snapshot)
        self._check()

    @precondition(lambda self: self.live)
    @rule(data=st.data(), name=st.sampled_from(["s", "t"]))
    def snapshot(self, data: st.DataObject, name: str) -> None:
        volumes = data.draw(st.lists(st.sampled_from(sorted(self.live)), unique=True))
        self.images.snapshot(volumes, name)
        for volume in volumes:
            self.snapshots[volume, name] = self.live[volume]

    @precondition(lambda self: self.snapshots)
    @rule(data=st.data())
    def rollback(self, data: st.DataObject) -> None:
        volume, name = data.draw(st.sampled_from(sorted(self.snapshots)))
        if volume not in self.live or self._is_base(volume):
            return
        self.images.rollback([volume], name)
        self.live[volume] = self.snapshots[volume, name]
        self._check()

    @precondition(lambda self: self.snapshots)
    @rule(data=st.data())
    def drop_snapshot(self, data: st.DataObject) -> None:
        volume, name = data.draw(st.sampled_from(sorted(self.snapshots)))
        if volume in self.live:
            self.images.drop_snapshot([volume], name)
            del self.snapshots[volume, name]

    @precondition(lambda self: self.live)
    @rule(data=st.data(), more=st.integers(0, 2))
    def grow(self, data: st.DataObject, more: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.live)))
        if self._is_base(name):
            return
        self.live[name] += bytes(more * UNIT)
        self.images.grow(name, len(self.live[name]))
        self._check()

    @precondition(lambda self: self.live)
    @rule(data=st.data(), base=st.sampled_from(NAMES), back=st.booleans())
    def make_base(self, data: st.DataObject, base: str, back: bool) -> None:
        name = data.draw(st.sampled_from(sorted(self.live)))
        taken = base in self.live or base in self.trash
        if taken or any(key[0] == name for key in self.snapshots):
            return
        self.images.make_base(name, base)
        self._check()
        if back:
            clones = [one for one, below in self.bases.items() if below == name]
            if clones:
                with pytest.raises(Conflict):
                    self.images.unmake_base(name, base)
            else:
                self.images.unmake_base(name, base)
                self._check()
                return
        # What stood on the volume stands on the base now.
        for one, below in list(self.bases.items()):
            if below == name:
                self.bases[one] = base
        self.live[base] = self.live[name]
        if name in self.bases:
            self.bases[base] = self.bases[name]
        self.bases[name] = base
        self._check()

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def trash_it(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.live)))
        self.images.trash(name)
        self.trash[name] = self.live.pop(name)
        self._check()

    @precondition(lambda self: self.trash)
    @rule(data=st.data())
    def restore(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.trash)))
        self.images.restore(name)
        self.live[name] = self.trash.pop(name)
        self._check()

    @precondition(lambda self: self.live or self.trash)
    @rule(data=st.data())
    def purge(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted({**self.live, **self.trash})))
        self.images.purge(name)
        self.live.pop(name, None)
        self.trash.pop(name, None)
        self.snapshots = {key: value for key, value in self.snapshots.items() if key[0] != name}
        # Its clones keep their content, and what it stood on; the name is free for another.
        hidden = f"hidden {next(self.numbers)}"
        self.bases = {
            hidden if one == name else one: hidden if below == name else below
            for one, below in self.bases.items()
        }
        self._forget_hidden()
        self._check()

    def _forget_hidden(self) -> None:
        while unused := {one for one in self.bases if "hidden" in one} - set(self.bases.values()):
            for one in unused:
                del self.bases[one]

    def teardown(self) -> None:
        for name in {**self.live, **self.trash}:
            self.images.purge(name)
        assert self.images.list() == ()
        assert self.images.usage().used_bytes == 0


def test_volumes_hold_what_plain_bytes_would_hold() -> None:
    run_state_machine_as_test(
        VolumesMachine,
        settings=settings(
            max_examples=60,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
