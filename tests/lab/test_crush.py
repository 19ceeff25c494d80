"""Racks that a real Ceph was told of, as tags of the hosts whose OSDs stand there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.clusters import cluster_on
from vorch.decide.crush import tags_of
from vorch.drivers.ceph_map import ask, crush_tree
from vorch.drivers.rados_connection import RadosCluster
from vorch.lab import Lab
from vorch.model import Node
from vorch.orchestrator import Orchestrator

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def racks(fresh_lab: Lab) -> Iterator[RadosCluster]:
    """The first host in one rack, the others in another one; afterwards as it was."""
    ceph = RadosCluster(str(fresh_lab.spec.ceph_conf), "admin", 20)
    there = {one.name for one in crush_tree(ceph).buckets}
    made = [name for name in fresh_lab.spec.host_names if name not in there]
    try:
        for rack in ("r1", "r2"):
            ask(ceph, "osd crush add-bucket", name=rack, type="rack", args=["root=default"])
        for host in made:
            ask(ceph, "osd crush add-bucket", name=host, type="host")
        for host in fresh_lab.spec.host_names:
            move(ceph, host, f"rack={'r1' if host == 'h1' else 'r2'}")
        yield ceph
    finally:
        for host in fresh_lab.spec.host_names:
            move(ceph, host, "root=default")
        for name in (*made, "r1", "r2"):
            ask(ceph, "osd crush remove", name=name)
        ceph.close()


def move(ceph: RadosCluster, host: str, place: str) -> None:
    ask(ceph, "osd crush move", name=host, args=[place])


def offered(cluster: Orchestrator) -> dict[str, tuple[str, ...]]:
    return {one.name: one.node.offered_tags for one in cluster.node_list()}


def test_what_ceph_was_told_is_offered(fresh_lab: Lab, racks: RadosCluster) -> None:
    with cluster_on(fresh_lab, ("h1", "h2")) as cluster:
        # With the pool, which came after the hosts, it could be asked.
        assert offered(cluster) == {"h1": ("rack:r1",), "h2": ("rack:r2",)}
        # And with a host that joins then.
        cluster.node_add("h3", fresh_lab.spec.uri("h3"), tags=["rack:mine"])
        (check,) = [one for one in cluster.node_check("h3") if one.name == "failure domains"]
        assert "rack:mine is set, and Ceph says rack:r2" in check.detail
        assert offered(cluster)["h3"] == ()
        assert sorted(cluster.capacity(over="rack").domains) == ["mine", "r1", "r2"]
        move(racks, "h2", "rack=r1")
        cluster.node_probe("h2")
        assert offered(cluster)["h2"] == ("rack:r1",)


def test_a_host_is_where_its_osds_are(fresh_lab: Lab, racks: RadosCluster) -> None:
    tree = crush_tree(racks)
    assert tree.addresses
    osd, (address, *_) = min(tree.addresses.items())
    (bucket,) = [one for one in tree.buckets if osd in one.children]
    move(racks, bucket.name, "rack=r1")
    try:
        node = Node(name="another", uri="qemu+tls://another/system", storage_address=address)
        assert tags_of(crush_tree(racks), node) == ("rack:r1",)
    finally:
        move(racks, bucket.name, "root=default")
