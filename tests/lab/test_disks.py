"""Disks of running guests on a real Ceph: moved, flattened, exported, limited; nothing is lost."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import rados
import rbd

import vorch
from tests.execute.scenarios import leaks
from tests.lab import bare
from tests.lab.acks import Acks
from tests.lab.clusters import cluster_on, import_writer, start_writer, verdict
from vorch import Orchestrator
from vorch.domain_xml import find_disk, parse, place_of, read_domain
from vorch.lab import Lab

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(900)]

BULK = "bulk"
# A process that moves a disk and kills itself when the step that does it is over, or before.
VICTIM = """
import json, os, signal, sys, vorch
uri, point, kind, words = json.loads(sys.argv[1])
def hook(here, journal):
    steps = journal.plan.steps
    if here == point and steps[min(journal.position, len(steps) - 1)].kind == kind:
        os.kill(os.getpid(), signal.SIGKILL)
with vorch.connect(settings=vorch.Settings(uri=uri, ceph_timeout_s=20), hook=hook) as cluster:
    cluster.disk_move(*words[0], **words[1])
"""


@contextmanager
def second_ceph_pool(lab: Lab) -> Iterator[str]:
    """Another pool of the lab's Ceph with a user of its own, who may use no other. Its URL."""
    conf = str(lab.spec.ceph_conf)
    admin = rados.Rados(conffile=conf, rados_id="admin")
    admin.connect(timeout=30)

    def order(prefix: str, **words: Any) -> Any:
        text = json.dumps({"prefix": prefix, "format": "json", **words})
        code, answer, said = admin.mon_command(text, b"")
        assert code == 0, said
        return json.loads(answer or b"null")

    with tempfile.TemporaryDirectory(prefix="vorch-bulk-") as folder:
        try:
            order("osd pool create", pool=BULK, pg_num=8)
            order("osd pool application enable", pool=BULK, app="rbd")
            caps = ["mon", "profile rbd", "osd", f"profile rbd pool={BULK}"]
            (user,) = order("auth get-or-create", entity=f"client.{BULK}", caps=caps)
            keyring = Path(folder, "keyring")
            keyring.write_text(f"[client.{BULK}]\n    key = {user['key']}\n")
            own = Path(folder, "ceph.conf")
            own.write_text(Path(conf).read_text() + f"\n[client.{BULK}]\nkeyring = {keyring}\n")
            with admin.open_ioctx(BULK) as ioctx:
                rbd.RBD().pool_init(ioctx, True)
            yield f"rbd://{BULK}?conf={own}&id={BULK}"
        finally:
            words = {"pool2": BULK, "yes_i_really_really_mean_it": True}
            order("osd pool delete", pool=BULK, **words)
            order("auth rm", entity=f"client.{BULK}")
            admin.shutdown()


class Place:
    """One host, three pools (two of Ceph, a folder), and a guest that writes."""

    def __init__(self, lab: Lab, cluster: Orchestrator, acks: Acks) -> None:
        self.lab, self.cluster, self.acks = lab, cluster, acks
        self.memory_mib = import_writer(cluster)
        start_writer(self.cluster, "writer", self.memory_mib, "h1")
        self.acks.await_more(5)

    def text(self) -> str:
        """What libvirt shows of it."""
        with bare.connected(self.lab, "h1") as connection:
            return str(connection.lookupByName("writer").XMLDesc(0))

    def recorded(self) -> str:
        volume = self.cluster.look().vm("writer").disk("root").volume
        assert volume is not None
        return volume.pool

    def check(self) -> None:
        """It runs and writes, on the volume that is recorded, and nothing else is in the pools."""
        volume = self.cluster.look().vm("writer").disk("root").volume
        assert volume is not None
        source = self.cluster.world.images(volume.pool).locate(volume.name)
        disk = find_disk(parse(self.text()), "root")
        assert disk is not None
        assert place_of(disk) == source.path
        assert disk.find("mirror") is None
        self.acks.await_more(3)
        assert leaks(self.cluster) == []

    def recover(self) -> None:
        with vorch.connect(settings=self.cluster.settings) as heir:
            heir.recover()

    def verify(self) -> None:
        """Off, its disk tells that it had one writer at a time and lost nothing confirmed."""
        self.cluster.stop("writer", force=True)
        volume = self.cluster.look().vm("writer").disk("root").volume
        assert volume is not None
        if volume.pool == "folder":
            self.cluster.disk_move("writer", pool="fast")
        seen = verdict(self.lab, self.cluster, "writer", self.acks.all())
        assert seen.ok, seen.findings
        assert seen.acks >= 10


@pytest.fixture(scope="module")
def ground(lab: Lab) -> Iterator[tuple[Lab, Orchestrator]]:
    """One host and three pools, for all tests here."""
    lab.reset()
    with (
        tempfile.TemporaryDirectory(prefix="vorch-disks-", dir="/var/tmp") as folder,
        second_ceph_pool(lab) as url,
        cluster_on(lab, ("h1",)) as cluster,
    ):
        Path(folder).chmod(0o711)
        cluster.pool_add("bulk", url)
        cluster.pool_add("folder", f"dir://{folder}/disks", node="h1")
        yield lab, cluster


@pytest.fixture
def place(ground: tuple[Lab, Orchestrator]) -> Iterator[Place]:
    lab, cluster = ground
    acks = Acks(lab.spec.own_management)
    try:
        made = Place(lab, cluster, acks)
        yield made
        for status in cluster.list():
            cluster.delete(status.name, force=True, purge=True)
        for trashed in cluster.trash_list():
            cluster.trash_purge(trashed.key)
        for image in cluster.image_list():
            cluster.image_delete(image.name)
        assert [cluster.volume_list(pool) for pool in ("fast", "bulk", "folder")] == [()] * 3
    finally:
        acks.close()


@pytest.mark.thorough
def test_a_guest_that_writes_moves_and_its_movers_are_killed(place: Place) -> None:
    """From Ceph to Ceph by another user, into a folder, and back; then by processes that die."""
    for pool in ("bulk", "folder", "fast"):
        (done,) = place.cluster.disk_move("writer", "root", pool=pool)
        assert done.task is not None
        assert place.recorded() == pool
        place.check()
    (use,) = place.cluster.disk_list("writer")
    assert use.base is None
    assert 0 < (use.used_bytes or 0) <= use.disk.size_bytes + 4 * 1024**2
    pools = ["bulk", "fast"]
    for moment in ("begun", 0.5, 2.0, 4.0, "moved", "recorded"):
        target = pools[place.recorded() == pools[0]]
        point, kind = {
            "moved": ("after", "move-disk"),
            "recorded": ("before", "resume-domain"),
            "begun": ("before", "move-disk"),
        }.get(str(moment), ("never", ""))
        words = (("writer", "root"), {"pool": target})
        uri = place.cluster.settings.uri
        process = subprocess.Popen(
            [sys.executable, "-c", VICTIM, json.dumps((uri, point, kind, words))],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if isinstance(moment, float):
            bare.eventually(lambda: "<mirror" in place.text(), "copy")
            time.sleep(moment)
            process.kill()
        output, _ = process.communicate(timeout=300)
        assert process.returncode in (0, -signal.SIGKILL), output
        place.recover()
        place.check()
        if moment in ("moved", "recorded"):
            assert place.recorded() == target
    assert all(task.over for task in place.cluster.task_list())
    place.cluster.disk_move("writer", pool="fast")
    place.verify()


def test_a_running_clone_is_flattened_thinned_and_exported(place: Place, tmp_path: Path) -> None:
    cluster = place.cluster
    file = tmp_path / "writer.qcow2"
    done = cluster.disk_export("writer", "root", str(file))
    assert done.task is not None
    # Its agent answers.
    assert done.task.result["consistency"] == "frozen"
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    cluster.disk_flatten("writer", "root")
    cluster.disk_sparsify("writer", "root")
    place.check()
    cluster.image_delete("writer")
    place.check()
    # What was exported starts, from a folder, copied there out of Ceph.
    cluster.image_import("again", str(file), pool="fast")
    place.verify()
    cluster.create("again", image="again", pool="folder", memory_mib=place.memory_mib,
                   networks=("lan",), start=True)  # fmt: skip
    place.acks.await_more(3)
    cluster.stop("again", force=True)
    assert leaks(cluster) == []


def test_limits_limit_and_go_along(place: Place) -> None:
    cluster, limit = place.cluster, 4
    cluster.disk_limit("writer", "root", iops=limit)
    # What had been allowed before is used up first.
    place.acks.await_more(2)

    def done() -> int:
        (disk,) = cluster.figures("writer").disks
        return disk.reads + disk.writes

    began, before = time.monotonic(), done()
    time.sleep(5)
    after = done()
    assert after - before <= limit * (time.monotonic() - began) * 1.25 + 2
    # It is the guest's own limit, wherever its disk is, until it is lifted.
    cluster.disk_move("writer", pool="bulk")
    (seen,) = read_domain(place.text()).disks
    assert seen.limits.iops == limit
    cluster.stop("writer", force=True)
    cluster.start("writer")
    (seen,) = read_domain(place.text()).disks
    assert seen.limits.iops == limit
    cluster.disk_limit("writer", "root", iops=0)
    (seen,) = read_domain(place.text()).disks
    assert seen.limits.none
