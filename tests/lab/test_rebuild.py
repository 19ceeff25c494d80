"""A state that was lost is rebuilt from the pool, while VMs run."""

from __future__ import annotations

import json
import time

import pytest

from tests.lab.clusters import ceph_url, cluster_on
from vorch import Orchestrator, Vm
from vorch.lab import Lab, guest
from vorch.model import Power
from vorch.ports import Change

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(300)]
PATIENCE_S = 120.0


def noted(cluster: Orchestrator, vm: Vm) -> bool:
    """Whether its first disk tells of it as it is now."""
    volume = vm.disks[0].volume
    assert volume is not None
    notes = cluster.world.images("fast").notes(volume.name)
    return "vm" in notes and json.loads(notes["vm"])["vm"]["generation"] == vm.generation


def await_notes(cluster: Orchestrator) -> None:
    give_up = time.monotonic() + PATIENCE_S
    while cluster.world.state.read(["note"]):
        assert time.monotonic() < give_up
        time.sleep(0.05)


def lose_the_state(cluster: Orchestrator) -> None:
    state = cluster.world.state
    _, keys = state.changes(0, 0)
    kinds = sorted({key.partition("/")[0] for key in keys if key != "*"})
    state.commit([Change(key, None, None) for key in state.read(kinds)])
    assert cluster.list() == ()


@pytest.mark.thorough
def test_a_lost_state_is_rebuilt_while_vms_run(fresh_lab: Lab) -> None:
    lab, image = fresh_lab, guest.build("tiny")
    with cluster_on(lab) as cluster:
        cluster.image_import("tiny", str(image.path), pool="fast")
        for name, node in (("runs", "h2"), ("off", "h1"), ("gone", "h1")):
            cluster.create(
                name,
                image="tiny",
                memory_mib=image.memory_mib,
                networks=("lan",),
                node=node,
                start=name == "runs",
            )
        cluster.disk_attach("off", size_gib=1)
        cluster.change("runs", description="keep me")
        cluster.delete("gone")
        cluster.world.images("fast").create("stranger", 1024**2)
        await_notes(cluster)
        before = cluster.look().vms
        assert all(noted(cluster, vm) for vm in before.values())
        image_before = cluster.look().images["tiny"]
        running = cluster.show("runs").domain

        lose_the_state(cluster)
        for host in lab.spec.host_names:
            cluster.node_add(host, lab.spec.uri(host))
        cluster.pool_add("fast", ceph_url(lab, "rbd"))
        dry = cluster.state_rebuild("fast", dry_run=True)
        assert (dry.vms, cluster.list()) == (("off", "runs"), ())
        done = cluster.state_rebuild(ceph_url(lab, "rbd"))
        assert (done.vms, done.images, done.networks) == (("off", "runs"), ("tiny",), ("lan",))
        assert done.unknown == ("stranger",)

        assert cluster.look().vms == before
        assert cluster.look().images["tiny"] == image_before
        shown = cluster.show("runs")
        assert shown.power is Power.RUNNING
        assert shown.domain is not None
        assert running is not None
        assert shown.domain.id == running.id
        # It is not started a second time, here or elsewhere.
        cluster.start("runs")
        assert [host.name for host in lab.status().hosts for _ in host.vms] == ["h2"]
        # And everything goes on: it moves, the other one starts, new ones are cloned.
        cluster.migrate("runs", "h3")
        cluster.start("off")
        cluster.create("new", image="tiny", memory_mib=64, networks=())
        again = cluster.state_rebuild("fast")
        assert (again.task, again.vms) == (None, ())
        for name in ("runs", "off", "new"):
            cluster.delete(name, force=True, purge=True)
        cluster.image_delete("tiny")
        cluster.world.images("fast").purge("stranger")
        await_notes(cluster)
        assert cluster.world.images("fast").notes("") == {}
