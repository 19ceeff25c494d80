"""Adding and removing hosts and pools on a world in memory, faults included."""

from __future__ import annotations

import itertools

import pytest

import vorch
from tests.execute.scenarios import leaks
from vorch import Orchestrator
from vorch.drivers.memory import MemoryWorld, ProcessDied
from vorch.errors import Conflict, Unreachable, Unsupported

_numbers = itertools.count()


@pytest.fixture
def world() -> MemoryWorld:
    return MemoryWorld(f"hosts-{next(_numbers)}")


@pytest.fixture
def cluster(world: MemoryWorld) -> Orchestrator:
    ports, prepare = world.connection()
    found = Orchestrator(ports, vorch.Settings(uri="memory:"))
    prepare(found)
    return found


def test_a_host_joins_and_is_used(world: MemoryWorld, cluster: Orchestrator) -> None:
    world.add_host("h2", memory_mib=1 << 20)
    done = cluster.node_add("h2", "memory:h2")
    assert done.task is not None
    assert [node.name for node in cluster.node_list()] == ["h1", "h2"]
    facts = cluster.node_list()[1].facts
    assert facts is not None
    assert facts.accelerator
    cluster.create("web", disk_gib=1, networks=(), start=True)
    # It has more room.
    assert cluster.show("web").vm.node == "h2"
    with pytest.raises(Conflict, match="'web'"):
        cluster.node_remove("h2")
    cluster.delete("web", force=True, purge=True)
    cluster.node_remove("h2")
    assert [node.name for node in cluster.node_list()] == ["h1"]


def test_a_dry_run_tries_the_host_and_takes_nothing_in(
    world: MemoryWorld, cluster: Orchestrator
) -> None:
    world.add_host("h2")
    assert cluster.node_add("h2", "memory:h2", dry_run=True).task is None
    assert len(cluster.node_list()) == 1


def test_a_host_that_does_not_answer_stays_out(world: MemoryWorld, cluster: Orchestrator) -> None:
    world.add_host("h2").power_off()
    with pytest.raises(Unsupported, match="cannot add host 'h2': libvirt:"):
        cluster.node_add("h2", "memory:h2")
    assert len(cluster.node_list()) == 1


def test_a_host_that_opens_no_disk_stays_out_and_nothing_is_left(
    world: MemoryWorld, cluster: Orchestrator
) -> None:
    world.add_host("h2")
    world.faults.fail("host:h2", "try_source", error=Unsupported("it has no rbd"))
    with pytest.raises(Unsupported, match="it has no rbd"):
        cluster.node_add("h2", "memory:h2")
    assert cluster.volume_list("local") == ()
    assert len(cluster.node_list()) == 1


def test_a_host_is_checked_again_later(world: MemoryWorld, cluster: Orchestrator) -> None:
    assert {check.level for check in cluster.node_check("h1")} == {"ok"}
    world.faults.fail("host:h1", "try_source", error=Unreachable("no monitor"))
    assert [check.level for check in cluster.node_check("h1")].count("error") == 1


def test_pools_come_and_go(cluster: Orchestrator) -> None:
    cluster.pool_add("bulk", "memory:bulk")
    assert [pool.name for pool, _ in cluster.pool_list()] == ["bulk", "local"]
    # Trying it out has left nothing in it.
    assert cluster.volume_list("bulk") == ()
    cluster.create("web", disk_gib=1, pool="bulk", networks=())
    with pytest.raises(Conflict, match="VM 'web'"):
        cluster.pool_remove("bulk")
    cluster.delete("web", purge=True)
    cluster.pool_remove("bulk")
    assert [pool.name for pool, _ in cluster.pool_list()] == ["local"]


def test_a_cordoned_host_starts_nothing(world: MemoryWorld, cluster: Orchestrator) -> None:
    world.add_host("h2", memory_mib=1024)
    cluster.node_add("h2", "memory:h2")
    cluster.node_cordon("h1")
    cluster.create("web", disk_gib=1, networks=(), memory_mib=64, start=True)
    assert cluster.show("web").vm.node == "h2"
    cluster.node_uncordon("h1")
    cluster.create("db", disk_gib=1, networks=(), memory_mib=64, start=True)
    assert cluster.show("db").vm.node == "h1"


def test_a_host_is_emptied_and_filled_again(world: MemoryWorld, cluster: Orchestrator) -> None:
    world.add_host("h2")
    world.add_host("h3")
    for host in ("h2", "h3"):
        cluster.node_add(host, f"memory:{host}")
    for name in ("a", "b", "off"):
        cluster.create(name, disk_gib=1, networks=(), memory_mib=64, node="h1", start=name != "off")
    cluster.create("c", disk_gib=1, networks=(), memory_mib=64, node="h2", start=True)
    cluster.node_maintenance("h1", True)
    seen = {one.name: (one.vm.node, one.vm.home, one.power.value) for one in cluster.list()}
    assert all(node != "h1" and home == "h1" for node, home, _ in (seen["a"], seen["b"]))
    assert {seen["a"][2], seen["b"][2]} == {"running"}
    assert (seen["off"][0] != "h1", seen["off"][2]) == (True, "stopped")
    assert seen["c"] == ("h2", "", "running")
    # Again is no work; and what has been moved by hand since stays where it is.
    assert all(done.task is None for done in cluster.node_maintenance("h1", True))
    other = "h2" if seen["a"][0] == "h3" else "h3"
    cluster.migrate("a", other)
    cluster.node_maintenance("h1", False)
    assert {one.name: one.vm.node for one in cluster.list()} == {
        "a": other,
        "b": "h1",
        "off": "h1",
        "c": "h2",
    }
    assert all(one.vm.home == "" for one in cluster.list())


def test_what_cannot_leave_is_said_when_the_others_have(
    world: MemoryWorld, cluster: Orchestrator
) -> None:
    world.add_host("h2", memory_mib=1024)
    cluster.node_add("h2", "memory:h2")
    cluster.create("big", disk_gib=1, networks=(), memory_mib=4096, start=True)
    cluster.create("small", disk_gib=1, networks=(), memory_mib=64, node="h1", start=True)
    with pytest.raises(Conflict, match=r"cannot empty host 'h1': .*'big'.*short"):
        cluster.node_maintenance("h1", True)
    assert {one.name: one.vm.node for one in cluster.list()} == {"big": "h1", "small": "h2"}


def test_a_drain_that_was_killed_is_taken_up_again(
    world: MemoryWorld, cluster: Orchestrator
) -> None:
    world.add_host("h2")
    cluster.node_add("h2", "memory:h2")
    for name in ("a", "b", "c"):
        cluster.create(name, disk_gib=1, networks=(), memory_mib=64, node="h1", start=True)
    world.faults.crash("host:h1", "migrate", when="after", skip=1)
    with pytest.raises(ProcessDied):
        cluster.node_maintenance("h1", True)
    world.faults.clear()
    ports, _ = world.connection()
    heir = Orchestrator(ports, vorch.Settings(uri="memory:"))
    heir.recover()
    heir.node_maintenance("h1", True)
    seen = {one.name: (one.vm.node, one.vm.home, one.power.value) for one in heir.list()}
    assert seen == dict.fromkeys(("a", "b", "c"), ("h2", "h1", "running"))
    assert leaks(heir) == []
