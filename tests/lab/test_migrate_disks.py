"""Disks that go along with a VM that writes, on real hosts; and what UEFI and a TPM keep."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import vorch
from tests.execute.scenarios import leaks
from tests.lab.clusters import cluster_on, import_writer
from tests.lab.places import Place, place_on
from vorch.lab import Lab

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
def place(fresh_lab: Lab, tmp_path: Path) -> Iterator[Place]:
    with place_on(fresh_lab, tmp_path, apart=True) as found:
        yield found


def pool_of(place: Place) -> str:
    volume = place.cluster.look().vm("writer").disk("root").volume
    assert volume is not None
    return volume.pool


def check_there(place: Place, host: str, pool: str, said: str = "") -> None:
    place.check_on(host)
    assert pool_of(place) == pool
    assert leaks(place.cluster) == [], said


def test_from_folder_to_folder_to_ceph(place: Place) -> None:
    with pytest.raises(vorch.Unsupported, match="--pool"):
        place.cluster.migrate("writer", "h2")
    done = place.cluster.migrate("writer", "h2", pool="h2")
    assert done.task is not None
    assert done.task.result["copied_mib"] in range(1, 1000)
    check_there(place, "h2", "h2")
    place.cluster.migrate("writer", "h3", pool="fast")
    check_there(place, "h3", "fast")
    with pytest.raises(vorch.Invalid, match="leave the pool out"):
        place.cluster.migrate("writer", "h1", pool="fast")
    place.cluster.migrate("writer", "h1")
    place.check_on("h1")
    # All that was confirmed on the way is on the last of its disks, written by one at a time.
    place.cluster.stop("writer", force=True)
    place.verify()


def test_ended_on_its_way(place: Place) -> None:
    """By Ctrl-C, by the death of vorch, and by that of the target, in the middle of the copies."""
    for delay_s in (0.5, 3.0):
        process = place.run("migrate", "writer", "h2", "--pool", "fast")
        place.await_copies("h1")
        time.sleep(delay_s)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 130, (process.returncode, output)
        check_there(place, "h1", "h1", output)
    process = place.run("migrate", "writer", "h2", "--pool", "fast")
    place.await_copies("h1")
    place.lab.power_off("h2")
    process.communicate(timeout=120)
    place.check_on("h1")
    place.lab.heal()
    place.cluster.recover(force=True)
    check_there(place, "h1", "h1")
    for delay_s in (0.0, 2.0, 6.0):
        process = place.run("migrate", "writer", "h2", "--pool", "fast")
        time.sleep(1.0 + delay_s)
        process.kill()
        process.communicate()
        heir = place.run("recover")
        output, _ = heir.communicate(timeout=120)
        assert heir.returncode == 0, output
        there = place.recorded()
        check_there(place, there, "fast" if there == "h2" else "h1")
        if there == "h2":
            break
    assert all(task.over for task in place.cluster.task_list())


def kept(lab: Lab, host: str) -> list[str]:
    """What the host keeps of its VMs' UEFI and TPM."""
    folder = lab.spec.host_folder(host) / "disk/var/lib/libvirt"
    files = [*folder.glob("qemu/nvram/*.fd"), *folder.glob("swtpm/*/tpm2/*.permall")]
    return sorted(path.name for path in files)


def test_uefi_and_tpm_go_along_and_leave_nothing(fresh_lab: Lab) -> None:
    with cluster_on(fresh_lab, ("h1", "h2")) as cluster:
        facts = cluster.node_show("h1").facts
        assert facts is not None
        if not (facts.uefi and facts.tpm):
            pytest.skip("no UEFI firmware or no swtpm is installed")
        import_writer(cluster)
        cluster.create(
            "safe",
            image="writer",
            memory_mib=256,
            networks=("lan",),
            node="h1",
            firmware="uefi",
            tpm=True,
            start=True,
        )
        before = kept(fresh_lab, "h1")
        assert len(before) == 2
        cluster.migrate("safe", "h2")
        assert (kept(fresh_lab, "h1"), kept(fresh_lab, "h2")) == ([], before)
        with pytest.raises(vorch.Conflict):
            cluster.relocate("safe", "h1")
        cluster.stop("safe", force=True)
        # It finds on the host where it is now what it had on the other one.
        cluster.start("safe")
        assert kept(fresh_lab, "h2") == before
        cluster.stop("safe", force=True)
        with pytest.raises(vorch.Unsupported, match="UEFI"):
            cluster.relocate("safe", "h1")
        cluster.delete("safe", purge=True)
        assert (kept(fresh_lab, "h1"), kept(fresh_lab, "h2")) == ([], [])
