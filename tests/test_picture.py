"""A picture of the cluster that keeps itself fresh: by the store's changes and the hosts' events.

In a world in memory that runs on a real clock. Nothing here polls a host: looks at intervals are an
hour apart, so what is seen was told.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

import vorch
from vorch import Orchestrator, Picture, Settings, Unsupported
from vorch.codec import encode
from vorch.drivers import memory
from vorch.drivers.memory import MemoryWorld
from vorch.drivers.process import SystemClock
from vorch.model import Cluster, Node, Power
from vorch.ports import Change

PATIENCE_S = 30.0
NEVER_S = 3600.0


@pytest.fixture
def world() -> MemoryWorld:
    return MemoryWorld(hosts=2, clock=SystemClock(), call_timeout_s=0.2)


def connected(world: MemoryWorld) -> Orchestrator:
    return Orchestrator(world.connect(), Settings(uri="memory:", host_timeout_s=5.0))


@pytest.fixture
def other(world: MemoryWorld) -> Iterator[Orchestrator]:
    """Another process, which does things."""
    with connected(world) as cluster:
        cluster.init(node="h1", hypervisor_uri="memory:", pool_url="memory:")
        yield cluster


@pytest.fixture
def picture(world: MemoryWorld, other: Orchestrator) -> Iterator[Picture]:
    with connected(world) as cluster, cluster.picture(refresh_s=NEVER_S) as made:
        yield made


def see(picture: Picture, what: Callable[[Cluster], bool]) -> None:
    """Returns when the picture shows it."""
    while True:
        known = picture.changes
        if what(picture.look()):
            return
        assert picture.wait(known, PATIENCE_S) != known, picture.look()


def powered(name: str, power: Power) -> Callable[[Cluster], bool]:
    return lambda cluster: name in cluster.vms and cluster.power(cluster.vm(name)) is power


def make(cluster: Orchestrator, name: str) -> None:
    cluster.create(name, disk_gib=1, memory_mib=64, networks=(), start=True)


def test_what_another_process_does_is_seen(picture: Picture, other: Orchestrator) -> None:
    assert picture.list() == ()
    make(other, "web")
    see(picture, powered("web", Power.RUNNING))
    other.pause("web")
    see(picture, powered("web", Power.PAUSED))
    other.resume("web")
    see(picture, powered("web", Power.RUNNING))
    other.delete("web", force=True, purge=True)
    see(picture, lambda cluster: "web" not in cluster.vms)


def test_what_a_guest_does_by_itself_is_seen(
    picture: Picture, other: Orchestrator, world: MemoryWorld
) -> None:
    make(other, "web")
    see(picture, powered("web", Power.RUNNING))
    world.guest("web").shut_down_by_itself()
    see(picture, powered("web", Power.STOPPED))
    assert ["is off although it should run" in note for one in picture.list() for note in one.notes]


def test_it_shows_what_a_list_shows(picture: Picture, other: Orchestrator) -> None:
    make(other, "web")
    see(picture, powered("web", Power.RUNNING))
    (shown,), (listed,) = picture.list(), other.list()
    assert shown.domain is not None
    assert listed.domain is not None
    assert (shown.vm, shown.power, shown.notes) == (listed.vm, listed.power, listed.notes)


def test_looking_at_it_asks_no_host(
    picture: Picture, other: Orchestrator, world: MemoryWorld
) -> None:
    make(other, "web")
    see(picture, powered("web", Power.RUNNING))
    # Whatever was still told of the start has been looked at then.
    picture.look(0.0)
    world.faults.trace.clear()
    for _ in range(20):
        picture.list()
    assert len(world.faults.calls("host:h1", "domains")) <= 1
    assert world.faults.calls("state", "read") == []


def test_an_age_can_be_asked_for(picture: Picture, other: Orchestrator, world: MemoryWorld) -> None:
    picture.look()
    world.faults.trace.clear()
    picture.look(0.0)
    assert len(world.faults.calls("host:h1", "domains")) == 1
    picture.look(NEVER_S)
    assert len(world.faults.calls("host:h1", "domains")) == 1


def test_a_silent_host_is_shown_with_since_when_and_noted(
    picture: Picture, other: Orchestrator, world: MemoryWorld
) -> None:
    make(other, "web")
    see(picture, powered("web", Power.RUNNING))
    before = other.world.clock.now()
    world.machines["h1"].power_off()
    see(picture, powered("web", Power.UNKNOWN))
    (shown,) = picture.list()
    assert shown.silent_since is not None
    assert before <= shown.silent_since <= other.world.clock.now()
    world.machines["h1"].power_on()
    picture.look(0.0)
    see(picture, powered("web", Power.STOPPED))
    # It is heard again as well: of one whose disk no client of before the power cut has open.
    make(other, "mail")
    see(picture, powered("mail", Power.RUNNING))


def test_hosts_come_and_go(picture: Picture, other: Orchestrator) -> None:
    node = Node(name="h2", uri="memory:h2")
    other.world.state.commit([Change("node/h2", 0, encode(node))])
    see(picture, lambda cluster: "h2" in cluster.nodes)
    other.world.state.commit([Change("node/h2", None, None)])
    see(picture, lambda cluster: "h2" not in cluster.nodes)


def test_after_a_gap_everything_is_read_anew(
    picture: Picture, other: Orchestrator, world: MemoryWorld
) -> None:
    """As after a store that was put back: what it said before counts no more."""
    make(other, "web")
    see(picture, powered("web", Power.RUNNING))
    with world.faults.lock:
        world.store.put_back("vm/web")
    see(picture, lambda cluster: "web" not in cluster.vms)


def test_a_store_that_fails_for_a_while_is_followed_again(
    picture: Picture, other: Orchestrator, world: MemoryWorld
) -> None:
    fault = world.faults.fail("state", "changes")
    with pytest.raises(vorch.Unreachable):
        picture.look()
    world.faults.lift(fault)
    make(other, "web")
    see(picture, powered("web", Power.RUNNING))


def test_its_threads_end_with_it(world: MemoryWorld, other: Orchestrator) -> None:
    before = set(threading.enumerate())
    with connected(world) as cluster:
        made = cluster.picture(refresh_s=NEVER_S)
        made.look()
        made.close()
        made.close()
    for thread in set(threading.enumerate()) - before:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def test_where_time_stands_still_it_is_a_look_like_any() -> None:
    with vorch.connect("memory:still-picture") as cluster, cluster.picture() as made:
        make(cluster, "web")
        assert powered("web", Power.RUNNING)(made.look())
        with pytest.raises(Unsupported, match="clock=system"):
            made.wait(0, 1.0)
    memory.forget("still-picture")
