"""Volumes that can be cloned while their data still come in from a URL: one contract for all pools.

Pools that cannot do it say so, and make nothing.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.contract import ceph_images
from tests.contract.imagestores import FOLDER_STORES, LAB_STORES, ImageStore
from tests.lab import bare
from tests.range_server import RangeServer
from tests.thorough import much
from vorch.errors import Cancelled, Conflict, Invalid, Unsupported, VorchError
from vorch.lab.lab import Lab
from vorch.ports import no_progress

ROOT = Path(__file__).parents[2]
MIB = 1024**2
SIZE = 24 * MIB


@pytest.fixture(
    params=["memory", pytest.param("rbd", marks=[pytest.mark.lab, pytest.mark.timeout(300)])]
)
def linking(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ImageStore]:
    if request.param in FOLDER_STORES:
        yield from FOLDER_STORES[request.param](tmp_path)
    else:
        yield from LAB_STORES[request.param](request.getfixturevalue("lab"))


@pytest.fixture
def data() -> bytes:
    whole = bytearray(SIZE)
    for at in range(0, SIZE, 3 * MIB):
        whole[at : at + MIB] = os.urandom(MIB)
    return bytes(whole)


@pytest.fixture
def server(tmp_path: Path, data: bytes) -> Iterator[RangeServer]:
    folder = tmp_path / "web"
    folder.mkdir()
    (folder / "disk.raw").write_bytes(data)
    server = RangeServer(folder)
    yield server
    if not server.silent:
        server.stop()


def qcow2(server: RangeServer, name: str, *options: str) -> Path:
    path = server.folder / name
    raw = server.folder / "disk.raw"
    subprocess.run(
        ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", *options, str(raw), str(path)],
        check=True,
    )
    return path


def names(store: ImageStore) -> set[str]:
    return {one.name for one in store.images.list()}


@pytest.mark.real
def test_where_it_cannot_be_done_nothing_is_made(server: RangeServer, tmp_path: Path) -> None:
    for store in FOLDER_STORES["local"](tmp_path):
        with pytest.raises(Unsupported, match="only Ceph"):
            store.images.link(server.url("disk.raw"), "one", no_progress)
        assert names(store) == set()


@pytest.mark.parametrize("name", ["disk.raw", "disk.qcow2"])
def test_a_clone_shows_all_before_and_after(
    linking: ImageStore, server: RangeServer, data: bytes, name: str
) -> None:
    images = linking.images
    if name != "disk.raw":
        qcow2(server, name)
    found = images.link(server.url(name), "one", no_progress)
    assert (found.size_bytes, found.format, found.sha256) == (SIZE, name.partition(".")[2], "")
    images.clone("one", "early", SIZE)
    assert linking.read("early", 5 * MIB, 2 * MIB) == data[5 * MIB : 7 * MIB]
    linking.write("early", 100, b"mine")
    seen: list[float] = []
    images.fill("one", "", lambda percent=None, line=None: seen.append(percent or 0))
    assert seen[-1] == 100
    assert seen == sorted(seen)
    images.fill("one", "", no_progress)
    server.stop()
    images.clone("one", "late", SIZE)
    own = data[:100] + b"mine" + data[104:]
    assert linking.read("early", 0, SIZE) == own
    assert linking.read("late", 0, SIZE) == data
    assert not images.notes("late")
    # From now on it is as any other.
    images.copy("early", None, "whole", no_progress)
    assert linking.read("whole", 0, SIZE) == own
    for volume in ("early", "late", "whole", "one"):
        images.purge(volume)
    assert names(linking) == set()


def test_it_can_be_taken_back_until_something_stands_on_it(
    linking: ImageStore, server: RangeServer, data: bytes
) -> None:
    images = linking.images
    images.link(server.url("disk.raw"), "one", no_progress)
    images.clone("one", "clone", SIZE)
    for act in (images.withdraw, images.purge):
        with pytest.raises(Conflict, match="VMs were made of it"):
            act("one")
    assert linking.read("clone", 0, SIZE) == data
    images.purge("clone")
    images.withdraw("one")
    images.withdraw("one")
    with pytest.raises(Conflict, match="still coming"):
        images.clone("one", "clone", SIZE)
    images.purge("one")
    images.purge("one")
    images.withdraw("one")
    assert names(linking) == set()
    # A later one of the name finds nothing of the first.
    images.link(server.url("disk.raw"), "one", no_progress)
    images.link(server.url("disk.raw"), "one", no_progress)
    images.clone("one", "clone", SIZE)
    images.fill("one", "", no_progress)
    assert linking.read("clone", 0, SIZE) == data


def test_copies_wait_for_the_data(linking: ImageStore, server: RangeServer, tmp_path: Path) -> None:
    images = linking.images
    images.link(server.url("disk.raw"), "one", no_progress)
    images.clone("one", "clone", SIZE)
    images.clone("clone", "second", SIZE)
    acts: list[Callable[[str], object]] = [
        lambda name: images.copy(name, None, "copy", no_progress),
        lambda name: images.export(name, None, str(tmp_path / "out"), "raw", no_progress),
    ]
    for name in ("one", "clone", "second"):
        for act in acts:
            with pytest.raises(Conflict, match="still coming in"):
                act(name)
    with pytest.raises(Conflict, match="still coming in"):
        images.flatten("clone", no_progress)
    images.fill("one", "", no_progress)
    images.copy("second", None, "copy", no_progress)


def test_who_is_cancelled_goes_on_later(
    linking: ImageStore, server: RangeServer, data: bytes
) -> None:
    images = linking.images
    images.link(server.url("disk.raw"), "one", no_progress)

    def stop(percent: float | None = None, line: str | None = None) -> None:
        raise Cancelled("cannot go on: that was enough")

    with pytest.raises(Cancelled):
        images.fill("one", "", stop)
    images.clone("one", "clone", SIZE)
    images.fill("one", "", no_progress)
    assert linking.read("clone", 0, SIZE) == data


@pytest.mark.parametrize("name", ["disk.raw", "disk.qcow2"])
def test_the_sum_is_checked_at_the_end(linking: ImageStore, server: RangeServer, name: str) -> None:
    images = linking.images
    path = server.folder / name
    if name != "disk.raw":
        qcow2(server, name)
    right = hashlib.sha256(path.read_bytes()).hexdigest()
    images.link(server.url(name), "one", no_progress)
    for _ in range(2):
        with pytest.raises(Invalid, match=right):
            images.fill("one", "0" * 64, no_progress)
    with pytest.raises(Conflict, match="still coming"):
        images.clone("one", "clone", SIZE)
    images.fill("one", right.upper(), no_progress)
    images.clone("one", "clone", SIZE)


def test_a_source_that_changes_is_noticed(
    linking: ImageStore, server: RangeServer, data: bytes
) -> None:
    images = linking.images
    images.link(server.url("disk.raw"), "one", no_progress)
    (server.folder / "disk.raw").write_bytes(data[:-1] + b"!")
    with pytest.raises(Invalid, match="changed"):
        images.fill("one", "", no_progress)
    images.withdraw("one")
    images.purge("one")
    assert names(linking) == set()


def test_a_silent_source_is_waited_for(
    linking: ImageStore, server: RangeServer, data: bytes
) -> None:
    images = linking.images
    for volume in ("one", "two"):
        images.link(server.url("disk.raw"), volume, no_progress)
        images.clone(volume, f"clone-{volume}", SIZE)
    images.link(server.url("disk.raw"), "three", no_progress)
    server.stop()
    with pytest.raises(VorchError, match="refused") as failed:
        images.fill("one", "", no_progress)
    assert failed.value.code == "unreachable"
    # What is no longer wanted can go, and nothing else does.
    with pytest.raises(Conflict):
        images.withdraw("one")
    with pytest.raises(Conflict):
        images.purge("one")
    assert {"one", "two", "three", "clone-one", "clone-two"} <= names(linking)
    images.purge("clone-two")
    for volume in ("two", "three"):
        images.withdraw(volume)
        images.purge(volume)
    assert names(linking) == {"one", "clone-one"}
    server.start()
    images.fill("one", "", no_progress)
    assert linking.read("clone-one", 0, SIZE) == data


def compressed(server: RangeServer) -> None:
    (server.folder / "disk.raw").write_bytes(b"text" * (SIZE // 4))
    qcow2(server, "odd", "-c")


def marked_as_zeros(server: RangeServer) -> None:
    path = qcow2(server, "odd", "-S", "0")
    subprocess.run(["qemu-io", "-c", "write -z 0 1M", str(path)], check=True, capture_output=True)


def with_a_snapshot(server: RangeServer) -> None:
    subprocess.run(["qemu-img", "snapshot", "-c", "x", str(qcow2(server, "odd"))], check=True)


def with_wide_tables(server: RangeServer) -> None:
    qcow2(server, "odd", "-o", "extended_l2=on")


def cut_off(server: RangeServer) -> None:
    path = qcow2(server, "odd")
    os.truncate(path, path.stat().st_size - MIB)


def with_a_base(server: RangeServer) -> None:
    command = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", "disk.raw", "-F", "raw", "odd"]
    subprocess.run(command, check=True, cwd=server.folder)


def no_whole_sector(server: RangeServer) -> None:
    (server.folder / "odd").write_bytes(bytes(SIZE + 1))


def as_vmdk(server: RangeServer) -> None:
    raw = str(server.folder / "disk.raw")
    command = ["qemu-img", "convert", "-f", "raw", "-O", "vmdk", raw, str(server.folder / "odd")]
    subprocess.run(command, check=True)


def without_parts(server: RangeServer) -> None:
    (server.folder / "disk.raw").rename(server.folder / "odd")
    server.ranges = False


@pytest.mark.lab
@pytest.mark.parametrize(
    ("make", "kind", "words"),
    [
        (compressed, Unsupported, "compressed"),
        (marked_as_zeros, Unsupported, "zeros"),
        (with_a_snapshot, Unsupported, "snapshots inside"),
        (with_wide_tables, Unsupported, "kind that librbd"),
        (cut_off, Invalid, "cut off"),
        (with_a_base, Invalid, "backing file"),
        (no_whole_sector, Unsupported, "whole number of sectors"),
        (as_vmdk, Unsupported, "vmdk"),
        (without_parts, Unsupported, "parts of a file"),
    ],
)
def test_what_librbd_would_read_wrongly_is_refused(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    server: RangeServer,
    make: Callable[[RangeServer], None],
    kind: type[VorchError],
    words: str,
) -> None:
    make(server)
    for store in LAB_STORES["rbd"](request.getfixturevalue("lab")):
        with pytest.raises(kind, match=words):
            store.images.link(server.url("odd"), "one", no_progress)
        with pytest.raises(Unsupported, match=r"sends us on|parts of a file"):
            store.images.link(server.url("elsewhere"), "one", no_progress)
        assert names(store) == set()


@pytest.mark.lab
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_who_is_killed_in_the_middle_leaves_what_can_be_finished_or_undone(
    lab: Lab, server: RangeServer, data: bytes
) -> None:
    """At moments that are spread over the whole of each call."""
    import rbd

    with ceph_images.connected(lab) as cluster, ceph_images.namespace(cluster) as name:
        images = ceph_images.images(lab, name)
        pool = ceph_images.pool_url(lab, name)

        def die(verb: str, volume: str, after_s: float) -> None:
            words = [sys.executable, "-m", "tests.contract.link_worker", pool, verb, volume]
            with subprocess.Popen(
                [*words, server.url("disk.raw")], cwd=ROOT, stdout=subprocess.PIPE
            ) as victim:
                assert victim.stdout is not None
                assert victim.stdout.readline() == b"begun\n"
                time.sleep(after_s)
                victim.kill()

        links = [f"link{number}" for number in range(much(8, 4))]
        fills = [f"fill{number}" for number in range(much(6, 3))]
        for volume in fills:
            images.link(server.url("disk.raw"), volume, no_progress)
            images.clone(volume, f"clone-{volume}", SIZE)
        for number, volume in enumerate(links):
            die("link", volume, number * 0.05)
        for number, volume in enumerate(fills):
            die("fill", volume, number * 0.2)
        with ThreadPoolExecutor(7) as executor:
            list(executor.map(images.purge, links))
            list(executor.map(lambda volume: images.fill(volume, "", no_progress), fills))
        assert {one.name for one in images.list()} == {*fills, *(f"clone-{one}" for one in fills)}
        with cluster.open_ioctx(ceph_images.POOL) as ioctx:
            ioctx.set_namespace(name)
            for volume in fills:
                with rbd.Image(ioctx, f"clone-{volume}", read_only=True) as image:
                    assert image.read(0, SIZE) == data
                images.purge(f"clone-{volume}")
                images.purge(volume)

            def left() -> list[str]:
                lists = ("rbd_directory", "rbd_children", "rbd_info", "rbd_trash")
                keys = [one.key for one in ioctx.list_objects()]
                return [key for key in keys if not key.startswith(lists)]

            # What only a snapshot held, OSDs take away in their own time.
            bare.eventually(lambda: left() == [], "nothing is left in the pool", 180)
        images.close()
