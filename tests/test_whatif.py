"""`whatif fail` beside what really comes of it, on the world in memory."""

from __future__ import annotations

import pytest

from tests.test_ha_verbs import Leader
from vorch.availability import NodeChoice
from vorch.config import Settings
from vorch.decide.whatif import WhatIf
from vorch.drivers.memory import MemoryWorld
from vorch.errors import Invalid, NotFound
from vorch.orchestrator import Orchestrator

GIB = 1024


@pytest.fixture
def world() -> MemoryWorld:
    return MemoryWorld(hosts=4, memory_mib=8 * GIB)


@pytest.fixture
def cluster(world: MemoryWorld) -> Orchestrator:
    made = Orchestrator(world.connect(), Settings(uri="memory:"))
    for number in range(1, 5):
        made.node_add(f"h{number}", f"memory:h{number}")
    made.pool_add("fast", "memory:fast")
    for name, node, memory_gib in (
        ("web", "h1", 1),
        ("db", "h1", 2),
        ("app", "h2", 1),
        ("big", "h2", 6),
        ("other", "h1", 1),
    ):
        made.create(
            name, disk_gib=1, networks=(), node=node, memory_mib=memory_gib * GIB, start=True
        )
    for name in ("web", "db", "app", "big"):
        made.ha_set(name)
    made.ha_set("db", start_order=1, start_delay_s=20.0)
    made.ha_set("web", start_order=2)
    return made


@pytest.fixture
def leader(world: MemoryWorld, cluster: Orchestrator) -> Leader:
    made = Leader(world)
    made.on(10.0)
    return made


def targets(answer: WhatIf) -> dict[str, str]:
    return {one.vm: one.target for one in answer.restarts}


@pytest.mark.parametrize("lost", [("h1",), ("h2",), ("h1", "h2")])
def test_what_is_foretold_comes_to_pass(
    world: MemoryWorld, cluster: Orchestrator, leader: Leader, lost: tuple[str, ...]
) -> None:
    answer = cluster.whatif_fail(lost)
    for name in lost:
        world.host(name).power_off()
    leader.on(60.0)
    seen = {one.name: one for one in cluster.list()}
    foretold = targets(answer)
    assert foretold
    for name, target in foretold.items():
        assert (seen[name].vm.node, seen[name].power.value) == (target, "running")
    for one in answer.left:
        assert seen[one.vm].power.value != "running"
    assert set(foretold) | {one.vm for one in answer.left} == {
        name for name in seen if name in ("web", "db", "other") and "h1" in lost
    } | {name for name in seen if name in ("app", "big") and "h2" in lost}


def test_nothing_is_written_by_the_question(
    world: MemoryWorld, cluster: Orchestrator, leader: Leader
) -> None:
    before = world.connect().state.changes(0, 0.0)[0]
    cluster.whatif_fail(["h1"])
    assert world.connect().state.changes(0, 0.0)[0] == before


def test_the_order_and_the_figures_are_told(cluster: Orchestrator, leader: Leader) -> None:
    answer = cluster.whatif_fail(["h1"])
    assert [one.vm for one in answer.restarts] == ["db", "web"]
    first, second = answer.restarts
    assert second.requested_at_s == first.requested_at_s + 20.0
    assert answer.timing.detect_s == 9.0
    assert "ha_gone_after_s 3" in answer.timing.made_of[0]
    assert "assumed" in answer.timing.made_of[1]
    assert answer.all_run_after_s == second.runs_at_s
    assert [one.vm for one in answer.left] == ["other"]
    assert "vorch ha set other" in answer.left[0].why


def test_what_does_not_fit_is_told_with_the_reason(cluster: Orchestrator, leader: Leader) -> None:
    cluster.create("fill", disk_gib=1, networks=(), node="h3", memory_mib=3 * GIB, start=True)
    cluster.create(
        "full", disk_gib=1, networks=(), node="h4", memory_mib=3 * GIB, start=True, force=True
    )
    (big,) = [one for one in cluster.whatif_fail(["h2"]).left if one.vm == "big"]
    assert "MiB of memory are short" in big.why
    cluster.ha_set("app", nodes=[NodeChoice(node="h2")], restricted=True)
    (app,) = [one for one in cluster.whatif_fail(["h2"]).left if one.vm == "app"]
    assert "its rules do not permit it" in app.why


def test_too_many_at_once_are_rather_vorchs_own_trouble(
    cluster: Orchestrator, leader: Leader
) -> None:
    answer = cluster.whatif_fail(["h1", "h2", "h3"])
    assert answer.restarts == ()
    assert "3 of 4 hosts are silent at once" in answer.sentences["h1"]


def test_why_nothing_would_happen_is_said(
    world: MemoryWorld, cluster: Orchestrator, leader: Leader
) -> None:
    cluster.ha_disarm(3600)
    answer = cluster.whatif_fail(["h1"])
    assert answer.restarts == ()
    assert any("disarmed" in note for note in answer.notes)
    cluster.ha_arm()
    leader.watch.close()
    answer = cluster.whatif_fail(["h1"])
    assert answer.restarts
    assert any("nobody watches" in note for note in answer.notes)


def test_only_hosts_that_are_there_can_be_lost(cluster: Orchestrator) -> None:
    with pytest.raises(NotFound):
        cluster.whatif_fail(["h9"])
    with pytest.raises(Invalid):
        cluster.whatif_fail([])


def test_before_anybody_has_watched_what_is_seen_counts(cluster: Orchestrator) -> None:
    assert set(targets(cluster.whatif_fail(["h1"]))) == {"web", "db"}
