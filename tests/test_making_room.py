"""Hosts that are emptied though nothing fits at once, and how room could be made, in memory."""

from __future__ import annotations

import contextlib
import itertools
from typing import Any

import pytest

from tests.execute.scenarios import leaks
from vorch.config import Settings
from vorch.drivers.memory import MemoryWorld
from vorch.drivers.memory_time import ProcessDied
from vorch.errors import Conflict, NoRoom
from vorch.orchestrator import Orchestrator
from vorch.plan import Journal
from vorch.watch import Watch

SETTINGS = Settings(uri="memory:", node_reserve_mib=0, vm_overhead_mib=0)
GIB = 1024


@pytest.fixture
def world() -> MemoryWorld:
    found = MemoryWorld(hosts=())
    for name in ("h1", "h2", "h3"):
        found.add_host(name, cpus=8, memory_mib=8 * GIB)
    return found


@pytest.fixture
def cluster(world: MemoryWorld) -> Orchestrator:
    """Of 8 GiB each 4, 5 and 5 are in use. A VM of 4 fits nowhere, but 3 and 3 are free."""
    made = Orchestrator(world.connect(), SETTINGS)
    for name in ("h1", "h2", "h3"):
        made.node_add(name, f"memory:{name}")
    made.pool_add("fast", "memory:fast")
    for name, node, gib in (
        ("large", "h1", 4),
        ("mid2", "h2", 4),
        ("small2", "h2", 1),
        ("mid3", "h3", 4),
        ("small3", "h3", 1),
    ):
        made.create(name, disk_gib=1, memory_mib=gib * GIB, networks=(), node=node, start=True)
    return made


def homes(world: MemoryWorld) -> dict[str, str]:
    return {
        guest.vm.name: name
        for name, machine in world.machines.items()
        for guest in machine.settled().values()
    }


def test_a_host_is_emptied_though_another_one_has_to_make_way(
    world: MemoryWorld, cluster: Orchestrator
) -> None:
    done = cluster.node_maintenance("h1", True)
    where = homes(world)
    assert where["large"] in ("h2", "h3")
    assert sum(where[name] != f"h{name[-1]}" for name in where if name != "large") == 1
    assert [one.plan.verb for one in done].count("migrate") == 2
    vm = cluster.look().vm("large")
    assert (vm.node, vm.home) == (where["large"], "h1")
    cluster.node_maintenance("h1", False)
    assert homes(world)["large"] == "h1"
    assert leaks(cluster) == []


def test_rules_are_kept_by_those_that_make_way(world: MemoryWorld, cluster: Orchestrator) -> None:
    cluster.rule_add("pair", "apart", ["small2", "small3"])
    with pytest.raises(Conflict, match="cannot empty host 'h1'") as caught:
        cluster.node_maintenance("h1", True)
    assert list(caught.value.fields["stayed"]) == ["large"]
    assert homes(world)["large"] == "h1"


def test_what_cannot_go_is_said_as_before(world: MemoryWorld, cluster: Orchestrator) -> None:
    cluster.create("huge", disk_gib=1, memory_mib=4 * GIB, networks=(), node="h1", start=True)
    with pytest.raises(Conflict, match="MiB of memory are short") as caught:
        cluster.node_maintenance("h1", True)
    assert len(caught.value.fields["stayed"]) == 1


def test_who_finds_no_room_is_told_how_it_could_be_made(
    world: MemoryWorld, cluster: Orchestrator
) -> None:
    before = homes(world)
    with pytest.raises(NoRoom) as caught:
        cluster.migrate("large", "h2")
    assert "it would have room after vorch migrate small2 h3" in caught.value.message
    assert caught.value.fields["moves"] == [["small2", "h2", "h3"]]
    with pytest.raises(NoRoom, match=r"after vorch migrate small\d h\d"):
        cluster.migrate("large")
    cluster.create("late", disk_gib=1, memory_mib=4 * GIB, networks=(), node="h2")
    with pytest.raises(NoRoom, match=r"after vorch migrate small2 h[13]"):
        cluster.start("late")
    # It is only said.
    assert homes(world) == before
    cluster.migrate("small2", "h3")
    cluster.migrate("large", "h2")


def test_so_is_who_is_new(world: MemoryWorld, cluster: Orchestrator) -> None:
    """5 GiB fit nowhere; once one of 4 has gone to h1 they do."""
    before = homes(world)
    wanted: dict[str, Any] = {"disk_gib": 1, "networks": ()}
    with pytest.raises(NoRoom, match=r"after vorch migrate mid[23] h1$") as caught:
        cluster.create("new", memory_mib=5 * GIB, start=True, **wanted)
    ((vm, source, target),) = caught.value.fields["moves"]
    with pytest.raises(NoRoom, match=r"after vorch migrate mid3 h1$"):
        cluster.create("new", memory_mib=5 * GIB, start=True, node="h3", **wanted)
    with pytest.raises(NoRoom) as hopeless:
        cluster.create("new", memory_mib=9 * GIB, start=True, **wanted)
    assert "would have room" not in hopeless.value.message
    cluster.create("old", memory_mib=5 * GIB, **wanted)
    for linked in (False, True):
        with pytest.raises(NoRoom, match=r"after vorch migrate mid[23] h1$"):
            cluster.clone("old", "new", linked=linked, start=True)
    with pytest.raises(NoRoom, match=r"after vorch migrate mid[23] h1$"):
        cluster.install(
            "new",
            "#cloud-config\nautoinstall: {version: 1}\n",
            kernel="/srv/kernel",
            initrd="/srv/initrd",
            memory_mib=5 * GIB,
            **wanted,
        )
    # It is only said, and nothing of what was refused is there.
    assert homes(world) == before
    assert set(cluster.look().vms) == {*before, "old"}
    assert leaks(cluster) == []
    # And it is true.
    cluster.migrate(vm, target)
    cluster.create("new", memory_mib=5 * GIB, start=True, **wanted)
    assert homes(world)["new"] == source


def test_where_nothing_helps_nothing_is_promised(cluster: Orchestrator) -> None:
    cluster.create("late", disk_gib=1, memory_mib=9 * GIB, networks=(), node="h2")
    with pytest.raises(NoRoom) as caught:
        cluster.start("late")
    assert "would have room" not in caught.value.message


@pytest.mark.parametrize("place", range(3, 14, 2))
def test_a_process_that_dies_on_the_way_is_made_up_for(
    world: MemoryWorld, cluster: Orchestrator, place: int
) -> None:
    ports, seen = world.connect("doomed"), itertools.count()

    def die(point: str, journal: Journal) -> None:
        if next(seen) == place:
            world.kill(ports)
            raise ProcessDied

    doomed = Orchestrator(ports, SETTINGS, hook=die)
    with contextlib.suppress(ProcessDied):
        doomed.node_maintenance("h1", True)
    cluster.recover()
    cluster.node_maintenance("h1", True)
    assert "h1" not in homes(world).values()
    assert {name: vm.node for name, vm in cluster.look().vms.items()} == homes(world)
    assert leaks(cluster) == []


def test_whoever_watches_agrees(world: MemoryWorld, cluster: Orchestrator) -> None:
    """It empties the host, too, and takes nobody back from where others have made way."""
    cluster.ha_policy(spare="ignore")
    for name in homes(world):
        cluster.ha_set(name)
    watch = Watch(world.connect("leader"), SETTINGS)

    def on(seconds: float) -> None:
        until = world.clock.now() + seconds
        while world.clock.now() < until:
            pace = watch.step()
            assert not pace.trouble, pace.trouble
            world.clock.sleep(2.0)

    on(10)
    cluster.node_maintenance("h1", True)
    after = homes(world)
    assert "h1" not in after.values()
    on(60)
    assert homes(world) == after
    cluster.node_maintenance("h1", False)
    on(60)
    assert homes(world) == {**after, "large": "h1"}
    assert leaks(cluster) == []
