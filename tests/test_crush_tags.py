"""Racks that Ceph's CRUSH tree tells of, offered where a host has none, in memory."""

from __future__ import annotations

import pytest

from vorch.config import Settings
from vorch.drivers.memory import MemoryWorld
from vorch.errors import Unreachable
from vorch.model import CrushBucket, CrushTree
from vorch.orchestrator import Orchestrator

SETTINGS = Settings(uri="memory:")


@pytest.fixture
def world() -> MemoryWorld:
    found = MemoryWorld(hosts=3)
    found.ceph.crush = CrushTree(
        buckets=(
            CrushBucket(-1, "default", "root", (-2, -3)),
            CrushBucket(-2, "r1", "rack", (-4, -5)),
            CrushBucket(-3, "r2", "rack", (-6,)),
            *(CrushBucket(-3 - n, f"h{n}", "host", ()) for n in (1, 2, 3)),
        )
    )
    return found


@pytest.fixture
def cluster(world: MemoryWorld) -> Orchestrator:
    made = Orchestrator(world.connect(), SETTINGS)
    made.node_add("h1", "memory:h1")
    made.node_add("h2", "memory:h2", tags=["rack:mine"])
    made.node_add("h3", "memory:h3", tags=["gpu"])
    made.pool_add("fast", "memory:fast")
    return made


def tags(cluster: Orchestrator) -> dict[str, tuple[str, ...]]:
    return {name: node.all_tags for name, node in cluster.look().nodes.items()}


def test_a_host_that_joins_has_what_ceph_says(cluster: Orchestrator) -> None:
    assert tags(cluster) == {"h1": ("rack:r1",), "h2": ("rack:mine",), "h3": ("gpu", "rack:r2")}
    assert cluster.node_show("h3").node.offered_tags == ("rack:r2",)
    # Own tags are what they were.
    assert cluster.look().nodes["h3"].tags == ("gpu",)
    # So rules over racks can be made without any tag that a person has set.
    for name, node in (("a", "h1"), ("b", "h3")):
        cluster.create(name, disk_gib=1, networks=(), node=node, start=True)
    cluster.rule_add("racks", "apart", ["a", "b"], over="rack")
    assert list(cluster.capacity(over="rack").domains) == ["mine", "r1", "r2"]
    cluster.node_change("h2", tags=())
    assert tags(cluster)["h2"] == ("rack:r1",)


def test_a_check_says_it_and_finds_what_is_new(world: MemoryWorld, cluster: Orchestrator) -> None:
    (check,) = [one for one in cluster.node_check("h2") if one.name == "failure domains"]
    assert check.level == "warning"
    assert "rack:mine is set, and Ceph says rack:r1" in check.detail
    world.ceph.crush = CrushTree(
        buckets=(CrushBucket(-2, "r9", "rack", (-4,)), CrushBucket(-4, "h1", "host", ()))
    )
    (check,) = [one for one in cluster.node_check("h1") if one.name == "failure domains"]
    assert check.detail == "rack:r9, from Ceph's CRUSH tree"
    assert tags(cluster)["h1"] == ("rack:r9",)
    # What Ceph does not know any more is forgotten, by a probe as well.
    cluster.node_probe("h3")
    assert tags(cluster)["h3"] == ("gpu",)


def test_with_a_new_pool_all_hosts_are_asked_for(world: MemoryWorld, cluster: Orchestrator) -> None:
    world.ceph.crush = CrushTree(
        buckets=(CrushBucket(-2, "r9", "rack", (-4, -5)), *world.ceph.crush.buckets[3:])
    )
    cluster.pool_add("more", "memory:more", dry_run=True)
    assert tags(cluster)["h1"] == ("rack:r1",)
    cluster.pool_add("more", "memory:more")
    assert tags(cluster) == {"h1": ("rack:r9",), "h2": ("rack:mine",), "h3": ("gpu",)}


def test_where_ceph_is_silent_what_was_known_stays(
    world: MemoryWorld, cluster: Orchestrator
) -> None:
    world.faults.fail("ceph", "crush", error=Unreachable("cannot ask: silent; wait"))
    cluster.node_probe("h1")
    assert not [one for one in cluster.node_check("h1") if one.name == "failure domains"]
    assert tags(cluster)["h1"] == ("rack:r1",)
