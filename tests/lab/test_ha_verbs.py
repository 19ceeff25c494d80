"""What guests and people do to VMs that are looked after, on real hosts with the real loop."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.lab.clusters import cluster_on
from tests.real.guests import GuestConsole
from vorch import Orchestrator
from vorch.availability import Requested, VmState
from vorch.lab import Lab, guest
from vorch.model import Power
from vorch.watch import Watch

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(900)]

PATIENCE_S = 120.0


class Watching:
    """The loop, moved on by the test."""

    def __init__(self, cluster: Orchestrator) -> None:
        self.cluster = cluster
        self.watch = Watch(cluster.world, cluster.settings)

    def until(self, name: str, state: VmState, power: Power) -> str:
        """Look on until the VM is so; the sentence about it."""
        end = time.monotonic() + PATIENCE_S
        while True:
            pace = self.watch.step()
            told = self.cluster.ha_show(name)
            if told.state is state and self.cluster.show(name).power is power:
                return told.sentence
            assert time.monotonic() < end, (told, pace)
            self.watch.rest(0.5)


def kill(name: str) -> None:
    """The QEMU of a VM, wherever it runs on this machine."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"guest={name}," in (folder / "cmdline").read_text():
                os.kill(int(folder.name), signal.SIGKILL)
        except OSError:
            continue


def test_what_guests_and_people_do_is_told_apart(lab: Lab) -> None:
    image = guest.build("tiny")
    with cluster_on(lab) as cluster:
        cluster.image_import("tiny", str(image.path), pool="fast", memory_mib=image.memory_mib)
        cluster.create("ha-inside", image="tiny", networks=(), node="h1", watchdog="reset")
        cluster.create("ha-beside", image="tiny", networks=(), node="h1", start=True)
        cluster.rule_add("pair", "apart", ["ha-inside", "ha-beside"], strict=False)
        cluster.start("ha-inside")
        with GuestConsole(cluster, "ha-inside") as console:
            cluster.ha_set("ha-inside")
            watching = Watching(cluster)
            try:
                watching.until("ha-inside", VmState.RUNNING, Power.RUNNING)
                # What it said while it booted may have been missed: a new line calls for it again.
                console.send("")
                console.log_in()
                console.port.write(b"poweroff\n")
                said = watching.until("ha-inside", VmState.STOPPED, Power.STOPPED)
            finally:
                watching.watch.close()
        assert cluster.ha_show("ha-inside").settings.requested is Requested.STOPPED
        assert cluster.show("ha-inside").vm.wanted == "stopped", said
        watching = Watching(cluster)
        try:
            # By hand again, and from then on it is looked after as before.
            cluster.start("ha-inside")
            watching.until("ha-inside", VmState.RUNNING, Power.RUNNING)
            kill("ha-inside")
            while cluster.show("ha-inside").power is Power.RUNNING:
                time.sleep(0.1)
            watching.until("ha-inside", VmState.RUNNING, Power.RUNNING)
            assert cluster.ha_show("ha-inside").settings.requested is Requested.STARTED
            status = cluster.ha_status()
            assert status.watched
            assert {one.sentence for one in status.nodes} == {"online: it answers"}
            # What is foretold obeys the wish to be apart, as the loop would.
            answer = cluster.whatif_fail(["h1"])
            assert [(one.vm, one.source) for one in answer.restarts] == [("ha-inside", "h1")]
            assert [one.vm for one in answer.left] == ["ha-beside"]
            cluster.stop("ha-inside", force=True)
            watching.until("ha-inside", VmState.STOPPED, Power.STOPPED)
        finally:
            watching.watch.close()
        for name in ("ha-inside", "ha-beside"):
            cluster.delete(name, force=True, purge=True)
        cluster.image_delete("tiny")
