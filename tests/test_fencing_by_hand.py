"""`node fence`, `node unfence` and the drill, as a person uses them, on the world in memory."""

from __future__ import annotations

import pytest

from vorch.availability import NodeState
from vorch.config import Settings
from vorch.drivers.memory import MemoryWorld
from vorch.errors import Conflict, Unreachable, VorchError
from vorch.orchestrator import Orchestrator


@pytest.fixture
def world() -> MemoryWorld:
    return MemoryWorld(hosts=2)


@pytest.fixture
def cluster(world: MemoryWorld) -> Orchestrator:
    made = Orchestrator(world.connect(), Settings(uri="memory:"))
    for name in ("h1", "h2"):
        made.node_add(name, f"memory:{name}")
    made.pool_add("fast", "memory:fast")
    made.create("web", disk_gib=1, networks=(), node="h1", start=True)
    return made


def state_of(cluster: Orchestrator, name: str) -> NodeState | None:
    record, _ = cluster._node_record(name)
    return None if record is None else record.state


def test_a_host_that_lives_is_fenced_by_force_only(
    world: MemoryWorld, cluster: Orchestrator
) -> None:
    with pytest.raises(Conflict, match="with 1 VM"):
        cluster.node_fence("h1")
    assert (state_of(cluster, "h1"), world.ceph.blocklist) == (None, {})
    assert not cluster.node_fence("h1", force=True, dry_run=True).plan.empty
    assert (state_of(cluster, "h1"), world.ceph.blocklist) == (None, {})
    cluster.node_fence("h1", force=True)
    assert state_of(cluster, "h1") is NodeState.FENCED
    (guest,) = world.host("h1").guests.values()
    assert not guest.can_write
    cluster.node_fence("h1", force=True)
    cluster.node_unfence("h1")
    assert state_of(cluster, "h1") is NodeState.ONLINE
    assert not world.host("h1").guests
    assert not world.ceph.blocklist
    assert cluster.node_unfence("h1").plan.empty


def test_a_dead_host_is_fenced_and_taken_back_when_it_answers(
    world: MemoryWorld, cluster: Orchestrator
) -> None:
    world.host("h1").power_off()
    cluster.node_fence("h1")
    with pytest.raises(Unreachable, match="restart the host"):
        cluster.node_unfence("h1")
    assert state_of(cluster, "h1") is NodeState.FENCED
    world.host("h1").power_on()
    cluster.node_unfence("h1")
    assert state_of(cluster, "h1") is NodeState.ONLINE


def test_what_could_not_be_proven_is_remembered_as_begun(
    world: MemoryWorld, cluster: Orchestrator
) -> None:
    world.host("h1").power_off()
    world.faults.fail("ceph", "fence")
    with pytest.raises(VorchError):
        cluster.node_fence("h1")
    record, _ = cluster._node_record("h1")
    assert record is not None
    assert (record.state, record.begun, record.proven) == (NodeState.FENCING, True, False)


def test_the_drill_is_kept_with_its_time(world: MemoryWorld, cluster: Orchestrator) -> None:
    assert cluster._last_drill() is None
    world.host("h1").bmc = "well"
    world.host("h2").bmc = "hangs"
    checks = cluster.doctor(fencing=True)
    assert {one.name for one in checks if one.level == "error"} == {"BMC of h2"}
    drill = cluster._last_drill()
    assert drill is not None
    assert (drill.at, drill.checks, drill.passed) == (world.clock.now(), checks, False)
