"""The contract of the Images port, continued: content that goes out and over to other pools."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.contract.ceph import the_lab
from tests.contract.imagestores import FOLDER_STORES, LAB_STORES, ImageStore
from tests.contract.test_images import MIB, ONES, SIZE, TWOS, ZEROS, Steps, named
from vorch.errors import Cancelled, Conflict, Invalid, NoRoom, NotFound
from vorch.plan import ExportFormat
from vorch.ports import no_progress

STORES = [*FOLDER_STORES, *(pytest.param(name, marks=pytest.mark.lab) for name in LAB_STORES)]


@contextmanager
def opened(name: str, request: pytest.FixtureRequest, folder: Path) -> Iterator[ImageStore]:
    if name in LAB_STORES:
        yield from LAB_STORES[name](the_lab(request))
    else:
        folder.mkdir(exist_ok=True)
        yield from FOLDER_STORES[name](folder)


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ImageStore]:
    with opened(request.param, request, tmp_path / "first") as made:
        yield made


@pytest.fixture(params=STORES)
def other(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ImageStore]:
    with opened(request.param, request, tmp_path / "second") as made:
        yield made


def linked(store: ImageStore) -> None:
    """`a` is a linked clone of `base`, with a part of its own."""
    store.images.create("base", SIZE)
    store.write("base", 0, ONES)
    store.images.clone("base", "a", SIZE)
    store.write("a", MIB, TWOS)


# -- from pool to pool


def test_a_disk_goes_to_another_pool(store: ImageStore, other: ImageStore) -> None:
    linked(store)
    steps = Steps()
    with store.images.content("a", None, no_progress) as content:
        other.images.take_in("b", content, "disk", steps)
    assert other.read("b", 0, 65536) == ONES
    assert other.read("b", MIB, 65536) == TWOS
    assert other.read("b", SIZE - 65536, 65536) == ZEROS
    info = other.images.info("b")
    assert (info.size_bytes, info.base) == (SIZE, None)
    # What is empty takes no room.
    assert info.used_bytes <= 2 * other.grain_bytes + MIB
    assert steps.percents == sorted(steps.percents)
    assert steps.percents[-1] == 100


def test_a_snapshot_goes_to_another_pool(store: ImageStore, other: ImageStore) -> None:
    linked(store)
    store.images.snapshot(["a"], "then")
    store.write("a", MIB, ONES)
    store.images.grow("a", 2 * SIZE)
    with store.images.content("a", "then", no_progress) as content:
        other.images.take_in("b", content, "disk", no_progress)
    assert other.images.info("b").size_bytes == SIZE
    assert other.read("b", MIB, 65536) == TWOS


def test_a_file_goes_to_another_pool_byte_for_byte(store: ImageStore, other: ImageStore) -> None:
    data = b"cloud" * 1001
    store.images.write_file("cd", data)
    with store.images.content("cd", None, no_progress) as content:
        other.images.take_in("cd2", content, "file", no_progress)
    assert other.images.read_file("cd2", MIB) == data


def test_a_cancel_on_the_way_leaves_no_volume(store: ImageStore, other: ImageStore) -> None:
    linked(store)
    with pytest.raises(Cancelled), store.images.content("a", None, no_progress) as content:
        other.images.take_in("b", content, "disk", Steps(cancel_after=1))
    # Some drivers keep what was done until it is purged: as `undo` does.
    other.images.purge("b")
    assert named(other.images, "b") == []


def test_what_has_snapshots_is_not_written_anew(store: ImageStore) -> None:
    linked(store)
    store.images.create("b", SIZE)
    store.images.snapshot(["b"], "then")
    with store.images.content("a", None, no_progress) as content, pytest.raises(Conflict):
        store.images.take_in("b", content, "disk", no_progress)


def test_a_full_pool_takes_nothing_in(store: ImageStore) -> None:
    linked(store)
    with store.images.content("a", None, no_progress) as content, pytest.raises(NoRoom):
        store.full().take_in("b", content, "disk", no_progress)


# -- to files


@pytest.mark.parametrize("format_", ["qcow2", "raw", "vmdk"])
def test_an_export_holds_what_the_volume_shows(
    store: ImageStore, tmp_path: Path, format_: ExportFormat
) -> None:
    linked(store)
    path, steps = tmp_path / "out", Steps()
    store.images.export("a", None, str(path), format_, steps)
    assert steps.percents == sorted(steps.percents)
    told = subprocess.run(
        ["qemu-img", "info", "-f", format_, "--output=json", str(path)],
        capture_output=True,
        check=True,
    )
    info = json.loads(told.stdout)
    assert (info["format"], info["virtual-size"]) == (format_, SIZE)
    assert info["actual-size"] < SIZE // 2
    assert "backing-filename" not in info
    # And it comes back as it was.
    store.images.import_file(str(path), "back", "disk", "", no_progress)
    assert store.read("back", 0, 65536) == ONES
    assert store.read("back", MIB, 65536) == TWOS


def test_an_export_of_a_snapshot(store: ImageStore, tmp_path: Path) -> None:
    linked(store)
    store.images.snapshot(["a"], "then")
    store.write("a", MIB, ONES)
    path = tmp_path / "out"
    store.images.export("a", "then", str(path), "raw", no_progress)
    assert path.stat().st_size == SIZE
    with path.open("rb") as file:
        file.seek(MIB)
        assert file.read(65536) == TWOS
    with pytest.raises(NotFound):
        store.images.export("a", "never", str(tmp_path / "no"), "raw", no_progress)


def test_an_export_can_be_cancelled(store: ImageStore, tmp_path: Path) -> None:
    linked(store)
    with pytest.raises(Cancelled):
        store.images.export("a", None, str(tmp_path / "x"), "qcow2", Steps(cancel_after=1))
    # Nothing but the file that was named.
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} <= {"x"}


def test_an_export_into_nowhere(store: ImageStore, tmp_path: Path) -> None:
    linked(store)
    with pytest.raises(Invalid, match="not a folder"):
        store.images.export("a", None, str(tmp_path / "no" / "x"), "raw", no_progress)


# -- flatten


def test_a_flat_clone_needs_no_base(store: ImageStore) -> None:
    linked(store)
    steps = Steps()
    store.images.flatten("a", steps)
    assert steps.percents == sorted(steps.percents)
    assert store.images.info("a").base is None
    store.images.purge("base")
    assert named(store.images, "base") == []
    assert store.read("a", 0, 65536) == ONES
    assert store.read("a", MIB, 65536) == TWOS
    # Again, and of what never stood on anything.
    store.images.flatten("a", no_progress)
    store.images.create("c", SIZE)
    store.images.flatten("c", no_progress)


def test_a_hidden_base_goes_with_the_last_flatten(store: ImageStore) -> None:
    linked(store)
    store.images.purge("base")
    assert [one.name for one in store.images.list() if one.trashed] == ["base"]
    store.images.flatten("a", no_progress)
    assert [one.name for one in store.images.list()] == ["a"]
    assert store.read("a", 0, 65536) == ONES


def test_a_cancelled_flatten_leaves_the_disk_whole(store: ImageStore) -> None:
    linked(store)
    with pytest.raises(Cancelled):
        store.images.flatten("a", Steps(cancel_after=1))
    assert store.read("a", 0, 65536) == ONES
    assert store.read("a", MIB, 65536) == TWOS
    store.images.flatten("a", no_progress)
    assert store.images.info("a").base is None


def test_a_flatten_loses_no_snapshot(store: ImageStore) -> None:
    """It keeps what they show, or is refused."""
    linked(store)
    store.images.snapshot(["a"], "then")
    store.write("a", 0, TWOS)
    if store.images.live_snapshots:
        store.images.flatten("a", no_progress)
        store.images.purge("base")
    else:
        with pytest.raises(Conflict, match="snapshots"):
            store.images.flatten("a", no_progress)
    store.images.rollback(["a"], "then")
    assert store.read("a", 0, 65536) == ONES


# -- sparsify


def test_zeros_are_given_back(store: ImageStore) -> None:
    store.images.create("a", 8 * SIZE)
    for at in range(0, 8 * SIZE, SIZE):
        store.write("a", at, ONES * 16)
    store.write("a", 0, TWOS)
    full = store.images.info("a").used_bytes
    for at in range(SIZE, 8 * SIZE, SIZE):
        store.write("a", at, ZEROS * 16)
    store.images.sparsify("a")
    assert store.images.info("a").used_bytes < full // 2
    assert store.read("a", 0, 65536) == TWOS
    assert store.read("a", 65536, 65536) == ONES
    assert store.read("a", SIZE, 65536) == ZEROS


def test_a_sparsified_clone_keeps_its_base_and_its_zeros(store: ImageStore) -> None:
    linked(store)
    store.write("a", 0, ZEROS)
    store.images.sparsify("a")
    assert store.images.info("a").base == "base"
    assert store.read("a", 0, 65536) == ZEROS
    assert store.read("a", MIB, 65536) == TWOS
    with pytest.raises(NotFound):
        store.images.sparsify("nobody")


# -- room


def test_room_is_what_usage_says_without_looking_at_volumes(store: ImageStore) -> None:
    room, usage = store.images.room(), store.images.usage()
    assert room.capacity_bytes > 0
    assert abs(room.free_bytes - usage.free_bytes) < 256 * MIB
