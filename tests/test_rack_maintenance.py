"""A whole rack that is emptied by one decision and comes back, on the world in memory."""

from __future__ import annotations

import pytest

from tests.execute.scenarios import leaks
from vorch.config import Settings
from vorch.drivers.memory import MemoryWorld
from vorch.errors import Conflict, Invalid, NotFound
from vorch.orchestrator import Orchestrator
from vorch.watch import Watch

SETTINGS = Settings(uri="memory:", node_reserve_mib=0, vm_overhead_mib=0)
GIB = 1024
RACKS = {"h1": "r1", "h2": "r1", "h3": "r2", "h4": "r2"}


@pytest.fixture
def world() -> MemoryWorld:
    found = MemoryWorld(hosts=())
    for name in RACKS:
        found.add_host(name, cpus=8, memory_mib=8 * GIB)
    return found


@pytest.fixture
def cluster(world: MemoryWorld) -> Orchestrator:
    """On the first rack 5 + 3 GiB and one that is off; on the second 2 and 2 of 8 each."""
    made = Orchestrator(world.connect(), SETTINGS)
    for name, rack in RACKS.items():
        made.node_add(name, f"memory:{name}", tags=[f"rack:{rack}"])
    made.pool_add("fast", "memory:fast")
    for name, node, gib in (("a", "h1", 5), ("b", "h2", 3), ("c", "h3", 2), ("d", "h4", 2)):
        made.create(name, disk_gib=1, memory_mib=gib * GIB, networks=(), node=node, start=True)
    made.create("off", disk_gib=1, memory_mib=GIB, networks=(), node="h2")
    return made


def homes(world: MemoryWorld) -> dict[str, str]:
    return {
        guest.vm.name: name
        for name, machine in world.machines.items()
        for guest in machine.settled().values()
    }


def test_all_of_a_rack_goes_and_comes_back(world: MemoryWorld, cluster: Orchestrator) -> None:
    before = homes(world)
    done = cluster.node_maintenance("rack:r1", True)
    assert done[0].plan.subject == "rack:r1"
    nodes = cluster.look().nodes
    assert {name: node.cordoned for name, node in nodes.items()} == {
        "h1": True,
        "h2": True,
        "h3": False,
        "h4": False,
    }
    vms = cluster.look().vms
    # Nobody went by the other host of the rack.
    assert all(RACKS[vm.node] == "r2" for vm in vms.values())
    moved = [one.plan.subject for one in done[1:]]
    assert sorted(moved) == ["a", "b", "off"]
    assert {name: vm.home for name, vm in vms.items()} == {
        "a": "h1",
        "b": "h2",
        "c": "",
        "d": "",
        "off": "h2",
    }
    assert all(one.task is None for one in cluster.node_maintenance("rack:r1", True))
    cluster.node_maintenance("rack:r1", False)
    assert homes(world) == before
    assert cluster.look().vm("off").node == "h2"
    assert not any(node.cordoned for node in cluster.look().nodes.values())
    assert leaks(cluster) == []


def test_others_make_way_for_a_rack(world: MemoryWorld, cluster: Orchestrator) -> None:
    """4 and 4 are free on the second rack when 5 have to go there: one makes way."""
    cluster.create("e", disk_gib=1, memory_mib=2 * GIB, networks=(), node="h3", start=True)
    cluster.create("f", disk_gib=1, memory_mib=2 * GIB, networks=(), node="h4", start=True)
    cluster.stop("b", force=True)
    done = cluster.node_maintenance("rack:r1", True)
    where = homes(world)
    assert where["a"] in ("h3", "h4")
    assert [one.plan.verb for one in done].count("migrate") == 2
    cluster.node_maintenance("rack:r1", False)
    assert homes(world)["a"] == "h1"
    assert leaks(cluster) == []


def test_who_cannot_go_is_said(world: MemoryWorld, cluster: Orchestrator) -> None:
    cluster.create("huge", disk_gib=1, memory_mib=3 * GIB, networks=(), node="h1", start=True)
    cluster.create("more", disk_gib=1, memory_mib=5 * GIB, networks=(), node="h2", start=True)
    with pytest.raises(Conflict, match="cannot empty the hosts in 'rack:r1'") as caught:
        cluster.node_maintenance("rack:r1", True)
    assert 0 < len(caught.value.fields["stayed"]) <= 2
    stayed = set(caught.value.fields["stayed"])
    assert {name for name, host in homes(world).items() if RACKS[host] == "r1"} == stayed


def test_what_is_off_does_not_all_wait_on_one_host(
    world: MemoryWorld, cluster: Orchestrator
) -> None:
    """4 GiB each, and 6 of 8 are free on both hosts of the other rack."""
    for name in ("w", "x"):
        cluster.create(name, disk_gib=1, memory_mib=4 * GIB, networks=(), node="h1")
    cluster.node_maintenance("rack:r1", True)
    vms = cluster.look().vms
    assert {vms["w"].node, vms["x"].node} == {"h3", "h4"}


def test_new_ones_that_are_not_started_are_spread(cluster: Orchestrator) -> None:
    for name in ("w", "x", "y", "z"):
        done = cluster.create(name, disk_gib=1, memory_mib=GIB, networks=())
        assert "the best of those" in done.plan.why
    vms = cluster.look().vms
    where = [vms[name].node for name in ("w", "x", "y", "z")]
    # 5 and 4 GiB are on the first two (what is off counts), 2 and 2 on the others.
    assert set(where) >= {"h3", "h4"}
    assert max(where.count(name) for name in RACKS) == 2


def test_what_is_no_rack_is_refused(cluster: Orchestrator) -> None:
    with pytest.raises(NotFound, match="none stands there"):
        cluster.node_maintenance("rack:r9", True)
    with pytest.raises(Invalid):
        cluster.node_maintenance("rack:r 9", True)
    with pytest.raises(NotFound):
        cluster.node_maintenance("r1", True)


def test_whoever_watches_agrees(world: MemoryWorld, cluster: Orchestrator) -> None:
    before = homes(world)
    for name in before:
        cluster.ha_set(name)
    watch = Watch(world.connect("leader"), SETTINGS)

    def on(seconds: float) -> None:
        until = world.clock.now() + seconds
        while world.clock.now() < until:
            pace = watch.step()
            assert not pace.trouble, pace.trouble
            world.clock.sleep(2.0)

    on(10)
    cluster.node_maintenance("rack:r1", True)
    on(60)
    assert all(RACKS[host] == "r2" for host in homes(world).values())
    cluster.node_maintenance("rack:r1", False)
    on(60)
    assert homes(world) == before
    assert leaks(cluster) == []
