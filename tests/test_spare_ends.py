"""What takes the room for the loss of a host away though it places nothing, in memory."""

from __future__ import annotations

import threading
from typing import cast

import pytest

from tests.execute.scenarios import leaks
from vorch.availability import Availability, NodeChoice
from vorch.config import Settings
from vorch.decide.spared import GONE, HELD
from vorch.drivers.memory import MemoryWorld
from vorch.drivers.process import SystemClock
from vorch.errors import NoRoom
from vorch.orchestrator import Orchestrator, kept
from vorch.sparewatch import SpareWatch
from vorch.watch import Watch

SETTINGS = Settings(uri="memory:", node_reserve_mib=0, vm_overhead_mib=0)
GIB = 1024
NAMES = ("a", "b", "c")


@pytest.fixture
def world() -> MemoryWorld:
    found = MemoryWorld(hosts=())
    for name in ("h1", "h2", "h3"):
        found.add_host(name, cpus=8, memory_mib=8 * GIB)
    return found


@pytest.fixture
def cluster(world: MemoryWorld) -> Orchestrator:
    """3 of 8 GiB on each of three hosts: each may be lost. A fourth, of 6, is not looked after."""
    made = Orchestrator(world.connect(), SETTINGS)
    for name in ("h1", "h2", "h3"):
        made.node_add(name, f"memory:{name}")
    made.pool_add("fast", "memory:fast")
    for number, name in enumerate(NAMES, 1):
        node, size = f"h{number}", 3 * GIB
        made.create(name, disk_gib=1, memory_mib=size, networks=(), node=node, start=True)
        made.ha_set(name)
    made.create("big", disk_gib=1, memory_mib=4 * GIB, networks=(), node="h1", start=True)
    return made


GONE_BY = "the room for the loss of a host is gone by that"


def test_it_is_said_who_could_not_be_lost_any_more(cluster: Orchestrator) -> None:
    """7 GiB are on h1, and two times 5 are free elsewhere: all fit, if they may go anywhere."""
    assert GONE_BY not in cluster.ha_set("big", dry_run=True).plan.why
    here = [NodeChoice(node="h1")]
    for dry_run in (True, False):
        why = cluster.ha_set("big", nodes=here, restricted=True, dry_run=dry_run).plan.why
        assert f"{GONE_BY}: h1 could not be lost any more" in why
    # It is done all the same: who is not looked after has no room either.
    assert "big" in {one.settings.vm for one in cluster.ha_list()}
    # What was gone before is not said again.
    there = [NodeChoice(node="h3")]
    assert GONE_BY not in cluster.ha_set("c", nodes=there, restricted=True).plan.why
    assert leaks(cluster) == []


def test_a_rule_a_cordon_and_tags_are_said(cluster: Orchestrator) -> None:
    cluster.node_change("h3", tags=["ssd"])
    cluster.node_change("h2", tags=["ssd"])
    cluster.change("b", require_tags=["ssd"])
    why = cluster.rule_add("alone", "apart", list(NAMES), strict=True, dry_run=True).plan.why
    assert GONE_BY in why
    assert GONE_BY not in cluster.rule_add("wish", "apart", list(NAMES), strict=False).plan.why
    assert GONE_BY in cluster.node_change("h3", tags=(), dry_run=True).plan.why
    assert GONE_BY in cluster.node_change("h3", reserve_mib=4 * GIB, dry_run=True).plan.why
    assert GONE_BY in cluster.node_cordon("h3").plan.why
    assert cluster.look().nodes["h3"].cordoned
    assert GONE_BY not in cluster.node_uncordon("h3").plan.why


def test_who_grows_is_refused_unless_forced(cluster: Orchestrator) -> None:
    cluster.stop("big", force=True)
    with pytest.raises(
        NoRoom, match=r"cannot change VM 'a': .*h1 could not be lost any more; --force"
    ):
        cluster.change("a", memory_max_mib=6 * GIB)
    assert cluster.look().vm("a").memory_max_mib == 3 * GIB
    cluster.change("a", memory_max_mib=5 * GIB)
    cluster.change("a", description="unlike before")
    done = cluster.change("a", memory_max_mib=6 * GIB, force=True)
    assert GONE_BY in done.plan.why
    cluster.change("a", memory_max_mib=5 * GIB)
    cluster.ha_policy(spare="warn")
    assert GONE_BY in cluster.change("a", memory_max_mib=6 * GIB).plan.why
    cluster.change("a", memory_max_mib=5 * GIB)
    cluster.ha_policy(spare="ignore")
    assert GONE_BY not in cluster.change("a", memory_max_mib=6 * GIB).plan.why
    # Off and not to be started it needs no room.
    cluster.ha_policy(spare="keep")
    cluster.change("a", memory_max_mib=5 * GIB)
    cluster.change("big", memory_mib=7 * GIB)


def test_a_host_that_is_needed_is_not_let_go(world: MemoryWorld, cluster: Orchestrator) -> None:
    cluster.stop("big", force=True)
    cluster.migrate("c", "h2")
    # 3 on h1, 6 on h2, none on h3: without it the 6 have 5 GiB.
    with pytest.raises(NoRoom, match=r"cannot remove host 'h3': .*h2 could not be lost any more"):
        cluster.node_remove("h3")
    assert "h3" in cluster.look().nodes
    assert GONE_BY in cluster.node_remove("h3", force=True).plan.why
    assert "h3" not in cluster.look().nodes


def test_whoever_watches_says_since_when(world: MemoryWorld, cluster: Orchestrator) -> None:
    watch = Watch(world.connect("leader"), SETTINGS)

    def on(seconds: float, watch: Watch = watch) -> None:
        until = world.clock.now() + seconds
        while world.clock.now() < until:
            pace = watch.step()
            assert not pace.trouble, pace.trouble
            world.clock.sleep(2.0)

    begun = world.clock.now()
    on(20)
    spare = cluster.ha_status().spare
    assert spare is not None
    assert spare.text == HELD
    assert begun <= spare.since <= begun + 20
    assert cluster.capacity().since == spare.since
    ended = world.clock.now()
    cluster.node_cordon("h3")
    cluster.change("a", memory_max_mib=7 * GIB, force=True)
    on(60)
    spare = cluster.ha_status().spare
    assert spare is not None
    assert spare.text == GONE
    assert ended <= spare.since <= ended + 20
    assert cluster.capacity().since == spare.since
    # Of another question nobody knows since when.
    assert cluster.capacity(hosts_lost=2).since is None
    # Whoever leads next knows it, too.
    watch.close()
    heir = Watch(world.connect("heir"), SETTINGS)
    on(30, heir)
    assert cluster.ha_status().spare == spare
    cluster.node_uncordon("h3")
    cluster.change("a", memory_max_mib=3 * GIB)
    on(30, heir)
    spare = cluster.ha_status().spare
    assert spare is not None
    assert spare.text == HELD
    cluster.ha_policy(spare="ignore")
    on(30, heir)
    assert cluster.ha_status().spare is None


def test_where_threads_are_it_is_looked_at_aside() -> None:
    """No look waits for it, and what goes wrong with it ends the loop like any other mistake."""
    world = MemoryWorld(hosts=3, clock=SystemClock())
    ports, prepare = world.connection()
    cluster = Orchestrator(ports, SETTINGS)
    prepare(cluster)
    try:
        cluster.create("web", disk_gib=1, networks=(), start=True)
        cluster.ha_set("web")
        woken = threading.Event()
        spare = SpareWatch(ports, 0, wake=woken.set)
        look, ha = cluster.look(None), kept.availability(ports.state)
        assert spare.says(1, look, ha, None, rests=False) == ""
        assert spare.says(1, look, ha, None, rests=True) == ""
        assert woken.wait(60)
        assert spare.says(1, look, ha, None, rests=True) == HELD
        broken = SpareWatch(ports, 0, wake=woken.set)
        woken.clear()
        broken.says(1, look, cast(Availability, None), None, rests=True)
        assert woken.wait(60)
        with pytest.raises(AttributeError):
            broken.says(1, look, ha, None, rests=True)
    finally:
        cluster.close()
