"""Looking at many hosts: one call each, and a silent one costs its time once. No test judges times.

Whoever waits for a host here waits on a clock that the test holds.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator

import pytest

from vorch import Orchestrator, Settings
from vorch.codec import encode
from vorch.drivers.memory import MemoryWorld
from vorch.drivers.process import SystemClock
from vorch.errors import Unreachable
from vorch.model import Node, Power, Vm
from vorch.orchestrator import silence
from vorch.ports import Change

HOSTS = 5
VMS = 20
# What a silent host costs here; far more than the others need on a machine that is busy.
SHORT_S = 1.5


class HeldClock(SystemClock):
    """Real time, but who sleeps on it sleeps until the test is over."""

    def __init__(self) -> None:
        self.over = threading.Event()

    def sleep(self, seconds: float) -> None:
        self.over.wait()


@pytest.fixture
def clock() -> Iterator[HeldClock]:
    made = HeldClock()
    yield made
    made.over.set()


@pytest.fixture
def world(clock: HeldClock) -> MemoryWorld:
    world = MemoryWorld(hosts=HOSTS, clock=clock)
    with connected(world) as cluster:
        cluster.world.state.commit(
            [
                *(Change(f"node/{h}", 0, encode(Node(name=h, uri="memory:"))) for h in names()),
                *(Change(f"vm/{vm.name}", 0, encode(vm)) for vm in vms()),
            ]
        )
    return world


def names() -> list[str]:
    return [f"h{number}" for number in range(1, HOSTS + 1)]


def vms() -> list[Vm]:
    return [
        Vm(name=f"vm{number}", id=str(uuid.UUID(int=number + 1)), node=f"h{number % HOSTS + 1}")
        for number in range(VMS)
    ]


def connected(world: MemoryWorld, host_timeout_s: float = SHORT_S) -> Orchestrator:
    settings = Settings(uri="memory:", host_timeout_s=host_timeout_s)
    return Orchestrator(world.connect(), settings)


def asked(world: MemoryWorld, host: str) -> int:
    return len(world.faults.calls(f"host:{host}"))


def test_a_list_is_one_call_for_each_host_and_one_for_the_store(world: MemoryWorld) -> None:
    with connected(world, 10.0) as cluster:
        world.faults.trace.clear()
        assert len(cluster.list()) == VMS
    assert [asked(world, host) for host in names()] == [1] * HOSTS
    assert len(world.faults.calls("state")) == 1


def test_a_silent_host_takes_nothing_from_the_others(world: MemoryWorld) -> None:
    world.faults.silence("host:h2")
    with connected(world) as cluster:
        power = {one.vm.node: one.power for one in cluster.list()}
    assert power == dict.fromkeys(names(), Power.STOPPED) | {"h2": Power.UNKNOWN}


def test_a_host_that_has_not_answered_yet_is_not_asked_again(world: MemoryWorld) -> None:
    world.faults.silence("host:h2")
    with connected(world) as cluster:
        first = cluster.look(None)
        threads = threading.active_count()
        looks = [first, *(cluster.look(None) for _ in range(3))]
        assert threading.active_count() == threads
    assert [list(one.silent) for one in looks] == [["h2"]] * 4
    assert asked(world, "h1") == 4
    # The trace has calls that have ended, and none to h2 has.
    assert asked(world, "h2") == 0


def test_a_verb_on_one_vm_is_not_held_up_either(world: MemoryWorld) -> None:
    world.faults.silence("host:h2")
    with connected(world) as cluster:
        assert cluster.show("vm1").power is Power.UNKNOWN
        with pytest.raises(Unreachable, match="'h2'"):
            cluster.start("vm1")


def test_a_host_that_is_back_is_seen_again(world: MemoryWorld, clock: HeldClock) -> None:
    fault = world.faults.fail("host:h2")
    with connected(world, 10.0) as cluster:
        lost = cluster.list()
        world.faults.lift(fault)
        back = cluster.list()
    assert {one.vm.node for one in lost if one.power is Power.UNKNOWN} == {"h2"}
    assert {one.power for one in back} == {Power.STOPPED}


def test_silence_is_noted_for_other_processes_and_taken_back(world: MemoryWorld) -> None:
    fault = world.faults.fail("host:h2")
    with connected(world, 10.0) as first, connected(world, 10.0) as second:
        first.look(None)
        noted = second.look().silences
        assert list(noted) == ["h2"]
        assert silence.brief(noted, noted["h2"].waited_at + 1) == {"h2"}
        # Now and then it is given all its time, as it may be slow and not silent.
        assert not silence.brief(noted, noted["h2"].waited_at + silence.PATIENT_EVERY_S)
        since = {one.silent_since for one in second.list() if one.vm.node == "h2"}
        assert since == {noted["h2"].since}
        world.faults.lift(fault)
        second.look(None)
        assert not first.look().silences


def test_silence_is_noted_once(world: MemoryWorld) -> None:
    world.faults.fail("host:h2")
    with connected(world, 10.0) as cluster:
        for _ in range(3):
            cluster.look(None)
    # One for the world itself.
    assert len(world.faults.calls("state", "commit")) == 2


def test_a_look_does_not_fail_for_a_note(world: MemoryWorld) -> None:
    world.faults.fail("host:h2")
    with connected(world, 10.0) as cluster:
        world.faults.fail("state", "commit")
        assert list(cluster.look(None).silent) == ["h2"]


def test_what_is_known_of_a_document_goes_with_it(world: MemoryWorld) -> None:
    """Values are kept between looks, and never longer than their documents."""
    with connected(world, 10.0) as cluster:
        before = cluster.look()
        assert cluster.look().vm("vm3") is before.vm("vm3")
        cluster.world.state.commit(
            [Change("vm/vm2", None, None), Change("vm/vm3", None, encode(vms()[3]))]
        )
        after = cluster.look()
    assert "vm2" not in after.vms
    assert after.versions["vm/vm3"] > before.versions["vm/vm3"]
    assert after.vm("vm4") is before.vm("vm4")


def test_doctor_goes_on_past_a_silent_host(world: MemoryWorld) -> None:
    world.faults.fail("host:h2")
    with connected(world, 10.0) as cluster:
        wrong = {check.name for check in cluster.doctor() if check.level == "error"}
        assert len([check for check in cluster.doctor() if check.level == "ok"]) == HOSTS - 1
    assert "h2: libvirt" in wrong
