"""kill -9 between any two calls of a verb, disks and state in Ceph: finished or undone, no remains.

Of each verb many copies are killed, each at another point and on disks of its own, then one process
finds what all of them have left. What a dead client had open in Ceph stays so for half a minute,
which is waited for once so. In the middle of librbd's calls they die in tests/contract/test_rbd.py,
and at each step of all verbs in tests/execute and tests/real.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import libvirt
import libvirt_qemu
import pytest

from tests.boot_sector import SLEEPS
from tests.lab import bare
from tests.lab.acks import Acks
from tests.lab.clusters import cluster_on, import_writer, start_writer, verdict
from tests.lab.remains import remains
from tests.thorough import much
from vorch import Orchestrator
from vorch.lab import Lab, guest

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
MIB = 1024**2
# So many die of each verb, their points spread over all that there are.
LOTS = much(12, 5)
# As many as the machine bears at once.
AT_ONCE = 4
# What librados 16.2 ends its process with, about once in 600 of these (a thread of its own meets a
# lock that is gone, while the process waits in librbd's opening of an image).
LIBRADOS_GAVE_UP = "what():  Invalid argument"
# Drains of a guest that writes, which go one after the other.
DRAINS = 9


def die(cluster: Orchestrator, story: str, point: int, *words: str) -> int | None:
    """None when it was killed there; else how many points there are."""
    settings = json.dumps(dataclasses.asdict(cluster.settings))
    done = subprocess.run(
        [sys.executable, "-m", "tests.lab.victim", settings, story, str(point), *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    if done.returncode == -signal.SIGKILL:
        return None
    if done.returncode == -signal.SIGABRT and LIBRADOS_GAVE_UP in done.stderr:
        # Dead as well, at a point of librados' own; and nothing may be left of it, either.
        warnings.warn(f"librados ended the process of {story} {words}", stacklevel=1)
        return None
    assert done.returncode == 0, done.stderr[-3000:]
    return int(done.stdout)


def die_all_over(
    cluster: Orchestrator, story: str, first: tuple[str, ...], words: Callable[[int], list[str]]
) -> int:
    """One runs through, with the words `first`; the others die. How many those were."""
    count = die(cluster, story, 10**6, *first)
    assert count is not None
    assert count > 4, "it was never asked whether it should die"
    lots = min(LOTS, count)
    points = sorted({round(lot * (count - 1) / (lots - 1)) for lot in range(lots)})
    with ThreadPoolExecutor(AT_ONCE) as pool:
        ends = list(
            pool.map(lambda lot: die(cluster, story, points[lot], *words(lot)), range(len(points)))
        )
    # One that found less to do than the first one came through; that is none of the dead.
    assert ends.count(None) >= len(points) - 2, ends
    return len(points)


def heir(cluster: Orchestrator) -> None:
    """Another process finds what is left of the dead."""
    done = subprocess.run(
        [sys.executable, "-m", "vorch_cli", "--uri", cluster.settings.uri, "recover"],
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def cluster(fresh_lab: Lab) -> Iterator[Orchestrator]:
    with cluster_on(fresh_lab, ("h1", "h2")) as made:
        yield made


@pytest.mark.thorough
def test_imports_that_are_killed(fresh_lab: Lab, cluster: Orchestrator, tmp_path: Path) -> None:
    for number, format_ in enumerate(("raw", "qcow2")):
        disk = tmp_path / f"disk.{format_}"
        raw = tmp_path / "raw"
        raw.write_bytes(SLEEPS + os.urandom(9 * MIB) + bytes(MIB))
        convert = ["qemu-img", "convert", "-f", "raw", "-O", format_, str(raw), str(disk)]
        subprocess.run(convert, check=True)
        names = [f"{format_}{lot}" for lot in range(LOTS)]
        die_all_over(
            cluster,
            "import",
            (f"{format_}-all", str(disk)),
            lambda lot, names=names, disk=disk: [names[lot], str(disk)],  # type: ignore[misc]
        )
        heir(cluster)
        assert remains(fresh_lab, cluster) == []
        there = {image.name for image in cluster.image_list()}
        assert f"{format_}-all" in there
        # Who is asked again does it.
        for name in names:
            if name not in there:
                cluster.image_import(name, str(disk), pool="fast")
        assert len(cluster.image_list()) == (number + 1) * (LOTS + 1)
        assert remains(fresh_lab, cluster) == []


def two_disks(cluster: Orchestrator, name: str) -> None:
    cluster.create(name, image="disk", memory_mib=64, networks=(), agent=False, graphics=False)
    cluster.disk_attach(name, disk="data", size_gib=1)


def import_disk(cluster: Orchestrator, folder: Path) -> None:
    disk = folder / "disk.raw"
    disk.write_bytes(SLEEPS + os.urandom(5 * MIB) + bytes(MIB))
    cluster.image_import("disk", str(disk), pool="fast")


@pytest.mark.parametrize(
    "live",
    [pytest.param(False, id="off", marks=pytest.mark.thorough), pytest.param(True, id="running")],
)
def test_full_clones_that_are_killed(
    fresh_lab: Lab, cluster: Orchestrator, tmp_path: Path, live: bool
) -> None:
    """Of a running VM it is a snapshot of its two disks, two copies and the snapshot's end."""
    import_disk(cluster, tmp_path)
    sources = [f"vm{lot}" for lot in range(LOTS)]
    for name in ("all", *sources):
        two_disks(cluster, name)
    # What needs no guest runs in none: this one waits for its boot disk for ever.
    running = ("all", *sources) if live else ()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(cluster.start, running))
    die_all_over(cluster, "clone", ("all", "copy-all"), lambda lot: [sources[lot], f"copy{lot}"])
    heir(cluster)
    assert remains(fresh_lab, cluster) == []
    there = set(cluster.look().vms)
    assert {"all", "copy-all", *sources} <= there
    for lot, name in enumerate(sources):
        assert cluster.show(name).power.value == ("running" if live else "stopped")
        if f"copy{lot}" in there:
            cluster.delete(f"copy{lot}", purge=True)
        else:
            cluster.delete(name, force=True, purge=True)
    assert remains(fresh_lab, cluster) == []


@pytest.mark.thorough
def test_group_snapshots_that_are_killed(
    fresh_lab: Lab, cluster: Orchestrator, tmp_path: Path
) -> None:
    import_disk(cluster, tmp_path)
    names = [f"vm{lot}" for lot in range(LOTS)]
    for name in ("all", *names):
        two_disks(cluster, name)
    die_all_over(cluster, "snapshot", ("all", "one"), lambda lot: [names[lot], "one"])
    heir(cluster)
    assert remains(fresh_lab, cluster) == []
    for name in names:
        if not cluster.look().vm(name).snapshots:
            cluster.snapshot_create(name, "one")
        cluster.snapshot_rollback(name, "one")
    assert remains(fresh_lab, cluster) == []
    for name in names:
        cluster.snapshot_delete(name, "one")
        cluster.delete(name, purge=True)
    assert remains(fresh_lab, cluster) == []


@pytest.mark.thorough
def test_a_frozen_guest_is_thawed_by_the_heir(fresh_lab: Lab, cluster: Orchestrator) -> None:
    image = guest.build("tiny")
    cluster.image_import("tiny", str(image.path), pool="fast")
    cluster.create("web", image="tiny", memory_mib=image.memory_mib, networks=(), node="h1")
    cluster.disk_attach("web", disk="data", size_gib=1)
    cluster.start("web")

    def ask(what: str) -> str | None:
        with bare.connected(fresh_lab, "h1") as connection:
            domain = connection.lookupByName("web")
            order = json.dumps({"execute": what})
            try:
                return str(json.loads(libvirt_qemu.qemuAgentCommand(domain, order, 5, 0))["return"])
            except libvirt.libvirtError:
                return None

    bare.eventually(lambda: ask("guest-ping") is not None, "its agent answers", 300)
    count = die(cluster, "snapshot", 10**6, "web", "all")
    assert count is not None
    thawed = 0
    # From the freeze on; before it nothing has been done.
    for point in range(2, count, max(1, (count - 2) // 4)):
        assert die(cluster, "snapshot", point, "web", f"s{point}") is None
        thawed += ask("guest-fsfreeze-status") == "frozen"
        heir(cluster)
        assert ask("guest-fsfreeze-status") == "thawed"
        assert remains(fresh_lab, cluster) == []
    assert thawed, "none died while the guest was frozen"


@pytest.mark.thorough
def test_a_drain_that_is_killed(fresh_lab: Lab) -> None:
    """A running VM that writes, and one that is off; the next process goes on where it ended."""
    lab = fresh_lab
    acks = Acks(lab.spec.own_management)
    try:
        with cluster_on(lab, ("h1", "h2")) as cluster:
            memory_mib = import_writer(cluster)
            start_writer(cluster, "writer", memory_mib, "h1")
            cluster.create("idle", image="writer", memory_mib=memory_mib, networks=(), node="h1")
            acks.await_more(3)
            count = die(cluster, "drain", 10**6, "h1")
            assert count is not None
            assert count > 6, "there are fewer points than steps"
            for lot in range(DRAINS):
                _all_on(lab, cluster, "h2")
                acks.await_more(2)
                cluster.node_maintenance("h1", False)
                _all_on(lab, cluster, "h1")
                # One call more or less is made from time to time, so not the very last.
                point = round(lot * (count - 3) / (DRAINS - 1))
                assert die(cluster, "drain", point, "h1") is None
                heir(cluster)
                assert remains(lab, cluster) == [], f"killed at point {point}"
                cluster.node_maintenance("h1", True)
            _all_on(lab, cluster, "h2")
            cluster.node_maintenance("h1", False)
            _all_on(lab, cluster, "h1")
            assert remains(lab, cluster) == []
            cluster.stop("writer", force=True)
            seen = verdict(lab, cluster, "writer", acks.all())
            assert seen.ok, seen.findings
    finally:
        acks.close()


def _all_on(lab: Lab, cluster: Orchestrator, host: str) -> None:
    assert {vm.node for vm in cluster.look().vms.values()} == {host}
    assert {one.name: one.vms for one in lab.status().hosts if one.vms} == {host: ("writer",)}


@pytest.mark.thorough
def test_the_look_at_remains_finds_them(fresh_lab: Lab, cluster: Orchestrator) -> None:
    """Else the tests above could not fail."""
    import rbd

    cluster.create("web", disk_gib=1, memory_mib=64, networks=())
    assert remains(fresh_lab, cluster) == []
    (disk,) = cluster.look().vm("web").disks
    assert disk.volume is not None
    with bare.pool_of(fresh_lab) as pool:
        rbd.RBD().create(pool, "stray", MIB)
        rbd.RBD().create(pool, "thrown", MIB)
        rbd.RBD().trash_move(pool, "thrown", 0)
        rbd.RBD().group_create(pool, "crowd")
        rbd.Group(pool, "crowd").add_image(pool, disk.volume.name)
        with rbd.Image(pool, disk.volume.name) as image:
            image.create_snap("forgotten")
        pool.write_full("rbd_data.123.0000000000000000", b"x")
    text = "\n".join(remains(fresh_lab, cluster))
    for word in ("image stray", "thrown in the trash", "group crowd", "forgotten", "rbd_data.123"):
        assert word in text, text
