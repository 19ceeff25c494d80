"""RBD pools beyond the contract: other processes, crashes, guests, a Ceph that is full or gone."""

from __future__ import annotations

import base64
import json
import os
import signal
import struct
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.contract import ceph_images
from tests.contract.ceph import the_lab
from tests.thorough import much
from vorch import domain_xml
from vorch.drivers.rbd_images import RbdImages
from vorch.errors import BadConfig, Conflict, Invalid, NoRoom, NotFound, Unreachable
from vorch.lab import guest
from vorch.lab.lab import Lab
from vorch.model import Disk, DiskBus, HostFacts, RbdSource, Vm, Volume
from vorch.ports import no_progress

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

MIB = 1024**2
SIZE = 8 * MIB
ONES = b"\x11" * 65536
TWOS = b"\x22" * 65536
ZEROS = bytes(65536)


@pytest.fixture(name="ceph")
def ceph_fixture(request: pytest.FixtureRequest) -> Lab:
    return the_lab(request)


class Pool:
    """A namespace, the driver on it, and librbd beside it."""

    def __init__(self, lab: Lab, cluster: Any, namespace: str, images: RbdImages) -> None:
        self.lab, self.cluster, self.namespace, self.images = lab, cluster, namespace, images
        self.ioctx = cluster.open_ioctx(ceph_images.POOL)
        self.ioctx.set_namespace(namespace)

    def write(self, volume: str, offset: int, data: bytes) -> None:
        with self.opened(volume) as image:
            image.write(data, offset)

    def read(self, volume: str, offset: int, count: int) -> bytes:
        import rbd

        with rbd.Image(self.ioctx, volume, read_only=True) as image:
            return bytes(image.read(offset, count))

    def opened(self, volume: str) -> Any:
        import rbd

        return rbd.Image(self.ioctx, volume)

    def everything(self) -> list[str]:
        import rbd

        return sorted(
            [
                *rbd.RBD().list(self.ioctx),
                *(one["name"] for one in rbd.RBD().trash_list(self.ioctx)),
                *rbd.RBD().group_list(self.ioctx),
            ]
        )

    @contextmanager
    def worker(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.contract.rbd_worker"),
                *(ceph_images.pool_url(self.lab, self.namespace), *words),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate(timeout=30)


@pytest.fixture
def pool(ceph: Lab) -> Iterator[Pool]:
    with ceph_images.connected(ceph) as cluster, ceph_images.namespace(cluster) as name:
        images = ceph_images.images(ceph, name)
        made = Pool(ceph, cluster, name, images)
        yield made
        made.ioctx.close()
        images.close()


def heard(process: subprocess.Popen[str], word: str) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith(word), line
    return line


# -- several at once


def test_two_processes_clone_one_base_at_once(pool: Pool) -> None:
    pool.images.create("base", SIZE)
    pool.write("base", 0, ONES)
    names = [[f"{letter}{number}" for number in range(6)] for letter in "xy"]
    size = str(2 * SIZE)
    with (
        pool.worker("clone", "base", size, *names[0]) as one,
        pool.worker("clone", "base", size, *names[1]) as other,
    ):
        for process in (one, other):
            heard(process, "ready")
        for process in (one, other):
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in (one, other):
            heard(process, "done")
    for name in [*names[0], *names[1]]:
        info = pool.images.info(name)
        assert (info.base, info.size_bytes) == ("base", 2 * SIZE)
        assert pool.read(name, 0, 65536) == ONES
    with pool.opened("base") as base:
        assert [one["name"] for one in base.list_snaps()] == [".base"]
        assert not base.is_protected_snap(".base")


def test_clones_show_what_their_base_holds_now(pool: Pool) -> None:
    """However well the driver remembers a base."""
    images = pool.images
    images.create("base", SIZE)
    images.create("none", SIZE)

    def clone_shows(data: bytes) -> None:
        for number in range(3):
            images.clone("base", f"c{number}", 2 * SIZE)
            assert pool.read(f"c{number}", 0, 65536) == data
            assert images.notes(f"c{number}") == {}
        for number in range(3):
            images.purge(f"c{number}")

    clone_shows(ZEROS)
    pool.write("base", 0, ONES)
    clone_shows(ONES)
    pool.write("base", 0, TWOS)
    clone_shows(TWOS)
    images.note("base", "vm", "text")
    clone_shows(TWOS)
    with pool.opened("base") as image:
        image.discard(0, SIZE)
    clone_shows(ZEROS)
    with pool.opened("base") as image:
        image.remove_snap(".base")
    clone_shows(ZEROS)
    images.grow("base", SIZE + 512)
    images.clone("base", "c", SIZE + 512)
    images.purge("c")
    # Another image of the same name.
    images.purge("base")
    images.write_file("base", TWOS)
    clone_shows(TWOS)


def test_what_another_has_open_is_not_taken_from_it(pool: Pool) -> None:
    images = pool.images
    images.create("a", SIZE)
    images.snapshot(["a"], "s")
    with pool.opened("a") as image:
        image.write(ONES, 0)
        (holder,) = images.holders("a")
        assert holder.owns_lock
        assert holder.client == pool.cluster.get_instance_id()
        assert holder.address == pool.cluster.get_addrs()
        acts: tuple[Callable[[], object], ...] = (
            lambda: images.purge("a"),
            lambda: images.trash("a"),
            lambda: images.rollback(["a"], "s"),
            lambda: images.grow("a", 2 * SIZE),
            lambda: images.make_base("a", "b"),
            lambda: images.write_file("a", b"text"),
            lambda: images.copy("a", None, "c", no_progress),
            lambda: images.clone("a", "c", SIZE),
        )
        for act in acts:
            with pytest.raises(Conflict) as caught:
                act()
            if "snapshots" not in caught.value.message:
                assert holder.address in caught.value.message
        # These are for running guests.
        images.snapshot(["a"], "t")
        images.drop_snapshot(["a"], "t")
        images.note("a", "vm", '{"name": "web"}')
        image.write(TWOS, 0)
    assert images.holders("a") == ()
    assert pool.everything() == ["a"]
    images.rollback(["a"], "s")
    assert pool.read("a", 0, 65536) == ZEROS
    images.purge("a")


def test_a_cd_in_a_drive_can_be_copied_but_not_deleted(pool: Pool) -> None:
    pool.images.write_file("cd", ONES)
    with pool.opened("cd"):
        pool.images.copy("cd", None, "other", no_progress)
        with pytest.raises(Conflict):
            pool.images.purge("cd")
    assert pool.images.read_file("other", 65536) == ONES


def test_snapshots_of_two_disks_are_of_one_point_while_a_guest_writes(pool: Pool) -> None:
    for name in ("a", "b"):
        pool.images.create(name, SIZE)
    with pool.worker("write", "a", "b") as writer:
        heard(writer, "ready")
        for number in range(8):
            pool.images.snapshot(["a", "b"], f"s{number}")
            time.sleep(0.1)
        assert writer.poll() is None
    seen = []
    for number in range(8):
        for name in ("a", "b"):
            pool.images.copy(name, f"s{number}", f"{name}{number}", no_progress)
        first, second = (
            struct.unpack(">Q", pool.read(f"{name}{number}", 0, 8))[0] for name in ("a", "b")
        )
        assert second <= first <= second + 1
        seen.append(first)
    assert seen == sorted(set(seen)), "the writer went on in between"


# -- snapshots of groups


def test_one_disk_of_a_group_goes_back_alone(pool: Pool) -> None:
    images = pool.images
    for name in ("a", "b"):
        images.create(name, SIZE)
        pool.write(name, 0, ONES)
    images.snapshot(["a", "b"], "s")
    images.grow("a", 2 * SIZE)
    for name in ("a", "b"):
        pool.write(name, 0, TWOS)
        pool.write(name, 4 * MIB, TWOS)
    images.rollback(["a"], "s")
    assert images.info("a").size_bytes == SIZE
    assert pool.read("a", 0, 131072) == ONES + ZEROS
    assert pool.read("a", 4 * MIB, 65536) == ZEROS
    assert pool.read("b", 0, 65536) == TWOS
    images.drop_snapshot(["a"], "s")
    with pytest.raises(NotFound):
        images.rollback(["a", "b"], "s")
    images.rollback(["b"], "s")
    assert pool.read("b", 0, 65536) == ONES
    images.purge("a")
    images.purge("b")
    assert pool.everything() == []


def test_a_disk_that_left_the_vm_is_not_rolled_back_with_it(pool: Pool) -> None:
    for name in ("a", "b"):
        pool.images.create(name, SIZE)
    pool.images.snapshot(["a", "b"], "s")
    for name in ("a", "b"):
        pool.write(name, 0, ONES)
    pool.images.trash("b")
    pool.images.rollback(["a"], "s")
    pool.images.restore("b")
    assert pool.read("a", 0, 65536) == ZEROS
    assert pool.read("b", 0, 65536) == ONES


# -- kill -9


def test_a_killed_copy_is_done_again(pool: Pool) -> None:
    pool.images.create("a", 64 * MIB)
    for number in range(0, 64, 4):
        pool.write("a", number * MIB, ONES)
    with pool.worker("copy", "a", "b", "50") as worker:
        heard(worker, "at")
        worker.kill()
    assert [one.name for one in pool.images.list()] == ["a"]
    with pytest.raises(NotFound):
        pool.images.info("b")
    pool.images.copy("a", None, "b", no_progress)
    assert all(pool.read("b", number * MIB, 65536) == ONES for number in range(0, 64, 4))
    # This waits for the watch of the killed process to lapse, and clears away what it left.
    pool.images.purge("b")
    assert pool.everything() == ["a"]


def test_a_killed_import_is_done_again(pool: Pool, tmp_path: Path) -> None:
    source = tmp_path / "disk.img"
    source.write_bytes((ONES + ZEROS) * 256)
    with pool.worker("import", str(source), "a", "50") as worker:
        heard(worker, "at")
        worker.kill()
    assert pool.images.list() == ()
    pool.images.import_file(str(source), "a", "disk", "", no_progress)
    assert pool.read("a", 0, 131072) == ONES + ZEROS
    pool.images.purge("a")
    assert pool.everything() == []


def test_a_group_snapshot_killed_anywhere_is_done_again(pool: Pool) -> None:
    for name in ("a", "b"):
        pool.images.create(name, SIZE)
    for step in range(much(4, 2)):
        pool.write("a", 0, ONES)
        pool.write("b", 0, ONES)
        with pool.worker("snapshot", "s", "a", "b") as worker:
            heard(worker, "ready")
            time.sleep(0.04 * step)
            os.kill(worker.pid, signal.SIGKILL)
            worker.wait(10)
        pool.images.snapshot(["a", "b"], "s")
        for name in ("a", "b"):
            assert pool.images.info(name).snapshots == ("s",)
            with pool.opened(name) as image:
                assert image.group()["name"] == ""
            pool.write(name, 0, TWOS)
    pool.images.rollback(["a", "b"], "s")
    assert pool.read("a", 0, 65536) == pool.read("b", 0, 65536) == ONES
    pool.images.drop_snapshot(["a", "b"], "s")
    assert pool.everything() == ["a", "b"]


@pytest.mark.parametrize("again", [False, True], ids=["undone", "done-again"])
@pytest.mark.parametrize("left", ["group", "one-in-it", "both-in-it", "snapshot", "one-left-it"])
def test_a_group_snapshot_that_was_cut_short(pool: Pool, left: str, again: bool) -> None:
    """What a death between librbd's calls leaves, made on purpose."""
    import rbd

    ids = []
    for name in ("a", "b"):
        pool.images.create(name, SIZE)
        with pool.opened(name) as image:
            ids.append(str(image.id()))
    name = "." + ".".join(sorted(ids)) + "~s"
    rbd.RBD().group_create(pool.ioctx, name)
    group = rbd.Group(pool.ioctx, name)
    if left != "group":
        group.add_image(pool.ioctx, "a")
    if left in ("both-in-it", "snapshot", "one-left-it"):
        group.add_image(pool.ioctx, "b")
    if left in ("snapshot", "one-left-it"):
        group.create_snap("s")
    if left == "one-left-it":
        group.remove_image(pool.ioctx, "a")
    if again:
        pool.images.snapshot(["a", "b"], "s")
        assert pool.images.info("a").snapshots == pool.images.info("b").snapshots == ("s",)
    pool.images.drop_snapshot(["a", "b"], "s")
    assert pool.everything() == ["a", "b"]
    for name in ("a", "b"):
        assert pool.images.info(name).snapshots == ()
        with pool.opened(name) as image:
            assert image.group()["name"] == ""


@pytest.mark.slow
@pytest.mark.parametrize("after_s", [0.02, 0.06])
def test_changes_of_bases_killed_anywhere_are_done_again(pool: Pool, after_s: float) -> None:
    images = pool.images

    def killed(*words: str) -> None:
        with pool.worker("call", *words) as worker:
            heard(worker, "ready")
            time.sleep(after_s)
            worker.kill()

    images.create("a", SIZE)
    pool.write("a", 0, ONES)
    images.note("a", "vm", "text")
    killed("make_base", "a", "b")
    images.make_base("a", "b")
    assert images.info("a").base == "b"
    assert (images.notes("a"), images.notes("b")) == ({"vm": "text"}, {})
    killed("unmake_base", "a", "b")
    images.unmake_base("a", "b")
    assert (images.info("a").base, images.notes("a")) == (None, {"vm": "text"})
    assert pool.read("a", 0, 65536) == ONES
    images.make_base("a", "b")
    killed("purge", "b")
    images.purge("b")
    assert pool.read("a", 0, 65536) == ONES
    killed("purge", "a")
    images.purge("a")
    # The dead one may have had the hidden base open, which then goes with its watch.
    deadline = time.monotonic() + 90
    while left := pool.everything():
        assert time.monotonic() < deadline, left
        time.sleep(1)
        images.purge("a")


def test_a_dead_holder_is_waited_for(pool: Pool) -> None:
    pool.images.create("a", SIZE)
    pool.images.create("b", SIZE)
    pool.images.snapshot(["a"], "s")
    with pool.worker("write", "a", "b") as writer:
        heard(writer, "ready")
        writer.kill()
    # The lock of the dead one is broken, and it is put on the blocklist, by librbd itself.
    pool.images.rollback(["a"], "s")
    assert pool.read("a", 0, 8) == bytes(8)
    pool.images.purge("b")
    assert pool.everything() == ["a"]


@pytest.mark.parametrize("lost", ["rbd_header.{id}", "rbd_id.a"])
def test_a_name_without_an_image_is_no_obstacle(pool: Pool, lost: str) -> None:
    import rbd

    pool.images.create("base", SIZE)
    acts: tuple[Callable[[], object], ...] = (
        lambda: pool.images.create("a", SIZE),
        lambda: pool.images.clone("base", "a", SIZE),
        lambda: pool.images.write_file("a", b"text"),
    )
    for act in acts:
        # What is left of a process that died while an image was made.
        rbd.RBD().create(pool.ioctx, "a", SIZE, old_format=False)
        with pool.opened("a") as image:
            part = lost.format(id=image.id())
        pool.ioctx.remove_object(part)
        act()
        assert pool.images.info("a").name == "a"
        with pool.opened("a") as image:
            part = lost.format(id=image.id())
        pool.ioctx.remove_object(part)
        pool.images.purge("a")
        assert "a" not in pool.everything()


# -- notes, trash


def test_notes_stay_with_their_volume(pool: Pool) -> None:
    images = pool.images
    images.create("a", SIZE)
    images.note("a", "vm", "first")
    images.note("a", "vm", "ünïcode")
    assert images.notes("a") == {"vm": "ünïcode"}
    images.make_base("a", "base")
    assert (images.notes("a"), images.notes("base")) == ({"vm": "ünïcode"}, {})
    images.unmake_base("a", "base")
    assert images.notes("a") == {"vm": "ünïcode"}
    images.clone("a", "b", SIZE)
    images.copy("a", None, "c", no_progress)
    assert images.notes("b") == images.notes("c") == {}
    images.note("a", "vm", "")
    images.note("a", "vm", "")
    assert images.notes("a") == {}
    with pytest.raises(Invalid):
        images.note("a", "no key", "text")


def test_a_note_on_a_disk_in_use_disturbs_nobody(pool: Pool) -> None:
    """Neither is it opened for that, nor does its lock go round."""
    import rbd

    pool.images.create("a", SIZE)
    pool.write("a", 0, ONES)
    with rbd.Image(pool.ioctx, "a") as image:
        image.lock_acquire(rbd.RBD_LOCK_MODE_EXCLUSIVE)
        before = pool.images.holders("a")
        assert len(before) == 1
        for number in range(20):
            pool.images.note("a", "vm", f"text {number}")
            assert pool.images.holders("a") == before
        assert dict(image.metadata_list())["vorch.vm"] == "text 19"
        pool.images.note("a", "vm", "")
        assert dict(image.metadata_list()) == {}


def test_the_trash_is_rbds_own(pool: Pool) -> None:
    import rbd

    pool.images.create("a", SIZE)
    pool.images.trash("a")
    (entry,) = rbd.RBD().trash_list(pool.ioctx)
    kept = entry["deferment_end_time"] - entry["deletion_time"]
    assert (entry["name"], kept.total_seconds()) == ("a", 24 * 3600)
    with pytest.raises(rbd.PermissionError):
        rbd.RBD().trash_remove(pool.ioctx, entry["id"], False)
    pool.images.purge("a")


@pytest.mark.parametrize("cut", ["renamed", "noted"])
def test_make_base_goes_on_after_a_crash(pool: Pool, cut: str) -> None:
    import rbd

    pool.images.create("a", SIZE)
    pool.write("a", 0, ONES)
    with pool.opened("a") as image:
        image.create_snap(".base")
        image.metadata_set("vorch.base-of", "a")
    if cut == "renamed":
        rbd.RBD().rename(pool.ioctx, "a", "b")
    pool.images.make_base("a", "b")
    assert pool.images.info("a").base == "b"
    assert pool.read("a", 0, 65536) == ONES
    assert pool.images.notes("b") == {}
    pool.images.unmake_base("a", "b")
    assert pool.everything() == ["a"]


# -- errors of Ceph


@pytest.mark.parametrize(
    "url",
    [
        "rbd://",
        "rbd://vms?conf=ceph.conf",
        "rbd://vms?key=secret",
        "rbd://vms/a/b",
        "rbd://v%2Fms",
        "rbd://vms?id=a&id=b",
        "rbd://vms/na%20me",
    ],
)
def test_urls_that_are_not_understood(url: str) -> None:
    with pytest.raises(BadConfig):
        RbdImages("ceph", url)


def test_a_pool_that_is_not_there(ceph: Lab) -> None:
    images = RbdImages("ceph", f"rbd://none?conf={ceph.spec.ceph_conf}&id=vorch")
    with pytest.raises(NotFound, match="none"):
        images.list()
    images.close()
    images.close()


def test_a_full_pool_answers(pool: Pool, tmp_path: Path) -> None:
    source = tmp_path / "disk.img"
    source.write_bytes(b"\x55" * 48 * MIB)
    pool.images.create("a", 64 * MIB)
    with ceph_images.connected(pool.lab, "admin") as admin:

        def quota(limit: int) -> None:
            command = {"prefix": "osd pool set-quota", "pool": "vms", "field": "max_bytes"}
            status, _, words = admin.mon_command(json.dumps({**command, "val": str(limit)}), b"")
            assert status == 0, words

        try:
            quota(64 * MIB)
            images = ceph_images.images(pool.lab, pool.namespace)
            with pytest.raises(NoRoom, match="raise the quota"):
                images.import_file(str(source), "b", "disk", "", no_progress)
            # Without looking at the room first, as when it fills up meanwhile.
            blind = ceph_images.images(pool.lab, pool.namespace, reserve_bytes=-(2**60))
            quota(1)
            number = 0

            def fill() -> None:
                nonlocal number
                deadline = time.monotonic() + 60
                while time.monotonic() < deadline:
                    number += 1
                    blind.create(f"n{number}", SIZE)
                    time.sleep(0.5)

            with pytest.raises(NoRoom):
                fill()
            with pytest.raises(NoRoom):
                blind.import_file(str(source), "b", "disk", "", no_progress)
            # What makes room still works.
            pool.images.purge("a")
            for one in range(1, number + 1):
                pool.images.purge(f"n{one}")
            images.close()
            blind.close()
        finally:
            quota(0)
    # The pool is open again some seconds after the quota is gone.
    again = ceph_images.images(pool.lab, pool.namespace)
    deadline = time.monotonic() + 60
    while True:
        try:
            again.write_file("c", b"text")
            break
        except NoRoom:
            assert time.monotonic() < deadline
            time.sleep(1)
    again.purge("c")
    again.close()
    assert [name for name in pool.everything() if name == "b"] == []


def test_without_any_osd_it_is_unreachable_and_then_goes_on(pool: Pool) -> None:
    pool.images.create("a", SIZE)
    pool.write("a", 0, ONES)
    images = ceph_images.images(pool.lab, pool.namespace, timeout_s=4)
    assert len(images.list()) == 1
    for osd in pool.lab.spec.osd_numbers:
        pool.lab.osd_kill(osd)
    try:
        for act in (
            lambda: images.info("a"),
            lambda: images.create("b", SIZE),
            lambda: images.copy("a", None, "c", no_progress),
        ):
            started = time.monotonic()
            with pytest.raises(Unreachable):
                act()
            assert time.monotonic() - started < 120
    finally:
        pool.lab.heal()
    deadline = time.monotonic() + 60
    while True:
        try:
            images.copy("a", None, "c", no_progress)
            break
        except Unreachable:
            assert time.monotonic() < deadline
    assert pool.read("c", 0, 65536) == ONES
    images.purge("c")
    images.close()


def test_a_base_goes_though_its_last_clone_went_without_a_monitor(pool: Pool) -> None:
    """To remove a snapshot takes one; to remove the clone that stood on it does not."""
    pool.images.create("base", SIZE)
    pool.write("base", 0, ONES)
    pool.images.clone("base", "c", SIZE)
    pool.images.purge("base")
    hidden = pool.everything()
    assert len(hidden) == 2
    images = ceph_images.images(pool.lab, pool.namespace, timeout_s=4)
    assert len(images.list()) == 2
    pool.lab.mon_kill()
    try:
        with suppress(Unreachable):
            images.purge("c")
    finally:
        pool.lab.heal()
    # As the next process does it, which finds the step begun.
    deadline = time.monotonic() + 90
    while left := pool.everything():
        assert time.monotonic() < deadline, left
        pool.images.purge("c")
        time.sleep(1)
    images.close()


# -- a guest


def facts() -> HostFacts:
    return HostFacts(hypervisor="kvm", cpus=1, memory_mib=1024, accelerator="tcg")


def test_a_guest_runs_on_a_clone(ceph: Lab) -> None:
    """With nothing but the XML that vorch writes, and the secret."""
    import libvirt

    tiny = guest.build("tiny")
    images = RbdImages("ceph", ceph_images.pool_url(ceph))
    mark = f"t{os.getpid()}"
    base, root, cd = (f"{mark}-{name}" for name in ("tiny", "root", "cd"))
    connection = libvirt.open(ceph.spec.uri("h1"))
    domain = None
    try:
        found = images.import_file(str(tiny.path), base, "disk", "", no_progress)
        assert (found.format, found.size_bytes) == ("qcow2", tiny.virtual_size_bytes)
        images.clone(base, root, 64 * MIB)
        images.write_file(cd, b"\x01" * 2048 * 32)
        places = {"root": images.locate(root), "cd": images.locate(cd)}
        secret = images.secret()
        assert images.secret_of() == (secret.id, secret.key)
        if secret.id not in connection.listSecrets():
            connection.secretDefineXML(
                f"<secret ephemeral='yes' private='yes'><uuid>{secret.id}</uuid>"
                f"<usage type='ceph'><name>{secret.usage}</name></usage></secret>"
            )
        known = connection.secretLookupByUUIDString(secret.id)
        known.setValue(base64.b64decode(secret.key))
        vm = Vm(
            name=mark,
            id=str(uuid.uuid4()),
            node="h1",
            memory_mib=tiny.memory_mib,
            memory_max_mib=tiny.memory_mib,
            vcpus_max=1,
            disks=(
                Disk(name="root", target="vda", volume=Volume(pool="ceph", name=root), boot=1),
                Disk(
                    name="cd",
                    target="sda",
                    bus=DiskBus.SATA,
                    device="cdrom",
                    volume=Volume(pool="ceph", name=cd),
                ),
            ),
        )
        text = domain_xml.domain_xml(vm, name=mark, sources=places, networks={}, facts=facts())
        domain = connection.createXML(text)
        seen = domain_xml.read_domain(domain.XMLDesc())
        assert {one.name: one.rbd for one in seen.disks} == places
        deadline = time.monotonic() + 90
        # A system that is up has written to its own disk, which takes the lock.
        while not any(one.owns_lock for one in images.holders(root)):
            assert time.monotonic() < deadline
            time.sleep(0.5)
        (holder,) = images.holders(root)
        assert holder.address.startswith(ceph.spec.storage_address("h1") + ":")
        with pytest.raises(Conflict, match="is open at"):
            images.purge(root)
        drive = domain_xml.find_disk(domain_xml.parse(domain.XMLDesc()), "cd")
        domain.updateDeviceFlags(domain_xml.media_xml(drive, None))
        drive = domain_xml.find_disk(domain_xml.parse(domain.XMLDesc()), "cd")
        assert drive is not None
        assert domain_xml.attribute_of(drive, "source", "name") is None
        domain.updateDeviceFlags(domain_xml.media_xml(drive, places["cd"]))
        again = {one.name: one.rbd for one in domain_xml.read_domain(domain.XMLDesc()).disks}
        assert isinstance(places["cd"], RbdSource)
        assert again == places
    finally:
        if domain is not None:
            domain.destroy()
        connection.close()
        for name in (root, cd, base):
            images.purge(name)
        images.close()
