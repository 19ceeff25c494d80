"""Who writes a VM's disks is recorded as Ceph shows it, through starts, moves and plugged disks."""

from __future__ import annotations

import pytest

from tests.lab import bare
from tests.lab.clusters import cluster_on, import_writer, start_writer
from vorch import Orchestrator
from vorch.decide import clients
from vorch.lab import Lab
from vorch.model import Volume

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(600)]


def seen(cluster: Orchestrator, volume: Volume | None) -> list[str]:
    """Past the record: who has it open now, as Ceph says."""
    assert volume is not None
    found = cluster.world.images(volume.pool).holders(volume.name)
    assert found is not None
    return [one.address for one in found]


def test_the_record_names_the_clients_that_really_write(fresh_lab: Lab) -> None:
    lab = fresh_lab
    with cluster_on(lab, ("h1", "h2")) as cluster:
        start_writer(cluster, "writer", import_writer(cluster), "h1")

        def recorded(host: str, *disks: str) -> dict[str, str]:
            look = cluster.look(None)
            vm = look.vm("writer")
            assert clients.lacking(look, vm) == ""
            one = look.clients[vm.id]
            assert (one.node, sorted(one.disks)) == (host, sorted(disks))
            for name, address in one.disks.items():
                assert seen(cluster, vm.disk(name).volume) == [address]
                assert address.startswith(f"{lab.spec.storage_address(host)}:0/")
            return one.disks

        first = recorded("h1", "root")
        root = cluster.show("writer").vm.disk("root").volume
        assert root is not None
        images, name = cluster.world.images("fast"), root.name
        # Its guest writes, and then the lock is that client's, too.
        bare.eventually(
            lambda: [one.owns_lock for one in images.holders(name) or ()] == [True], "lock"
        )

        cluster.disk_attach("writer", disk="data", size_gib=1)
        two = recorded("h1", "root", "data")
        assert two["root"] == first["root"]
        assert two["data"] != first["root"]

        cluster.migrate("writer", "h2")
        there = recorded("h2", "root", "data")
        assert not set(there.values()) & set(two.values())

        cluster.stop("writer", force=True)
        assert cluster.look().clients == {}
        assert seen(cluster, root) == []
