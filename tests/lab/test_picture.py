"""A fresh picture of a real cluster: told by libvirt and Ceph, with hosts that hang or go."""

from __future__ import annotations

import time
from collections.abc import Callable

import libvirt
import pytest

import vorch
from tests.lab import bare
from tests.lab.clusters import cluster_on
from vorch import Orchestrator, Picture
from vorch.lab import Lab
from vorch.model import Cluster, Power

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(300)]
PATIENCE_S = 120.0
# No look at intervals comes to help: what is seen was told.
NEVER_S = 3600.0
HOST_TIMEOUT_S = 2.0


def see(picture: Picture, what: Callable[[Cluster], bool]) -> None:
    give_up = time.monotonic() + PATIENCE_S
    while True:
        known = picture.changes
        if what(picture.look()):
            return
        assert time.monotonic() < give_up, picture.list()
        picture.wait(known, 1.0)


def powered(name: str, power: Power) -> Callable[[Cluster], bool]:
    return lambda cluster: name in cluster.vms and cluster.power(cluster.vm(name)) is power


def another_process(cluster: Orchestrator) -> Orchestrator:
    return vorch.connect(
        settings=vorch.Settings(
            uri=cluster.settings.uri, ceph_timeout_s=20, host_timeout_s=HOST_TIMEOUT_S
        )
    )


def make(cluster: Orchestrator, name: str, node: str) -> None:
    cluster.create(name, disk_gib=1, pool="fast", memory_mib=64, networks=(), node=node, start=True)


def test_a_picture_is_told_of_everything(fresh_lab: Lab) -> None:
    lab = fresh_lab
    with (
        cluster_on(lab) as cluster,
        another_process(cluster) as watching,
        watching.picture(refresh_s=NEVER_S) as picture,
    ):
        make(cluster, "web", "h1")
        see(picture, powered("web", Power.RUNNING))
        cluster.pause("web")
        see(picture, powered("web", Power.PAUSED))
        cluster.resume("web")
        see(picture, powered("web", Power.RUNNING))
        # Past vorch: its QEMU is gone, and nobody wrote anything.
        lab.kill_qemu("h1", "web")
        see(picture, powered("web", Power.STOPPED))
        cluster.start("web")
        see(picture, powered("web", Power.RUNNING))
        # The host goes and comes back: what is told then is heard again.
        lab.power_off("h1")
        picture.look(0.0)
        see(picture, powered("web", Power.UNKNOWN))
        lab.power_on("h1")
        see(picture, powered("web", Power.STOPPED))
        cluster.start("web")
        see(picture, powered("web", Power.RUNNING))
        lab.kill_qemu("h1", "web")
        see(picture, powered("web", Power.STOPPED))
        cluster.delete("web", purge=True)
        see(picture, lambda seen: "web" not in seen.vms)


def test_a_daemon_that_hangs_holds_up_no_look(fresh_lab: Lab) -> None:
    lab = fresh_lab
    with cluster_on(lab) as cluster, another_process(cluster) as looking:
        make(cluster, "near", "h1")
        make(cluster, "far", "h2")
        assert {one.power for one in looking.list()} == {Power.RUNNING}
        lab.hang("h2")
        try:
            seen = {one.name: one for one in looking.list()}
            assert seen["near"].power is Power.RUNNING
            assert seen["far"].power is Power.UNKNOWN
            assert seen["far"].silent_since is not None
            # Who comes next knows already, and the same process does not ask again.
            assert list(cluster.look().silences) == ["h2"]
            assert list(looking.look(None).silent) == ["h2"]
        finally:
            lab.heal()
        give_up = time.monotonic() + PATIENCE_S
        while {one.power for one in looking.list()} != {Power.RUNNING}:
            assert time.monotonic() < give_up, looking.list()
            time.sleep(0.2)
        assert looking.look().silences == {}
        for name in ("near", "far"):
            cluster.delete(name, force=True, purge=True)


def test_a_guest_that_was_ended_past_vorch_is_told(fresh_lab: Lab) -> None:
    """And a subscription that ends leaves libvirt nothing to tell to nobody."""
    lab = fresh_lab
    with cluster_on(lab, ("h1",)) as cluster, cluster.picture(refresh_s=NEVER_S) as picture:
        make(cluster, "web", "h1")
        see(picture, powered("web", Power.RUNNING))
        with bare.connected(lab, "h1") as connection:
            domain: libvirt.virDomain = connection.lookupByName("web")
            domain.suspend()
            see(picture, powered("web", Power.PAUSED))
            domain.destroy()
        see(picture, powered("web", Power.STOPPED))
        cluster.delete("web", purge=True)
