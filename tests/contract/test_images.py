"""The contract of the Images port, for every driver of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.ceph import the_lab
from tests.contract.imagestores import FOLDER_STORES, LAB_STORES, ImageStore
from vorch.errors import Cancelled, Conflict, Invalid, NoRoom, NotFound, Unsupported, VorchError
from vorch.ports import Images, VolumeInfo, no_progress

MIB = 1024**2
SIZE = 8 * MIB
ONES = b"\x11" * 65536
TWOS = b"\x22" * 65536
ZEROS = bytes(65536)


@pytest.fixture(
    params=[*FOLDER_STORES, *(pytest.param(name, marks=pytest.mark.lab) for name in LAB_STORES)]
)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ImageStore]:
    if request.param in LAB_STORES:
        # Asked for here only, so that nobody makes a lab who needs none.
        yield from LAB_STORES[request.param](the_lab(request))
    else:
        yield from FOLDER_STORES[request.param](tmp_path)


@pytest.fixture
def images(store: ImageStore) -> Images:
    return store.images


@pytest.fixture
def raw_image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(ONES + bytes(SIZE - 2 * 65536) + TWOS)
    return path


def named(images: Images, name: str) -> list[VolumeInfo]:
    return [one for one in images.list() if one.name == name]


class Steps:
    """Hears progress; can cancel."""

    def __init__(self, cancel_after: int | None = None) -> None:
        self.percents: list[float] = []
        self.calls = 0
        self.cancel_after = cancel_after

    def __call__(self, percent: float | None = None, line: str | None = None) -> None:
        self.calls += 1
        if percent is not None:
            self.percents.append(percent)
        if self.cancel_after is not None and self.calls >= self.cancel_after:
            raise Cancelled("cannot go on: somebody cancelled")


# -- create


def test_a_new_volume_has_its_size_and_only_zeros(images: Images, store: ImageStore) -> None:
    images.create("a", SIZE)
    info = images.info("a")
    assert (info.name, info.size_bytes, info.base) == ("a", SIZE, None)
    assert (info.snapshots, info.trashed) == ((), False)
    assert info.used_bytes < MIB
    assert store.read("a", 0, 65536) == ZEROS


def test_create_can_be_repeated_until_something_is_written(
    images: Images, store: ImageStore
) -> None:
    images.create("a", SIZE)
    images.create("a", SIZE)
    store.write("a", 0, ONES)
    with pytest.raises(Conflict):
        images.create("a", SIZE)
    assert store.read("a", 0, 65536) == ONES


def test_create_does_not_take_a_name_of_another_size_or_in_the_trash(images: Images) -> None:
    images.create("a", SIZE)
    with pytest.raises(Conflict):
        images.create("a", 2 * SIZE)
    images.trash("a")
    with pytest.raises(Conflict):
        images.create("a", SIZE)


def test_a_full_pool_says_so(store: ImageStore, raw_image: Path) -> None:
    store.images.create("a", SIZE)
    images = store.full()
    with pytest.raises(NoRoom):
        images.create("b", SIZE)
    with pytest.raises(NoRoom):
        images.clone("a", "b", SIZE)
    with pytest.raises(NoRoom):
        images.import_file(str(raw_image), "b", "disk", "", no_progress)
    with pytest.raises(NoRoom):
        images.write_file("b", b"text")
    assert named(images, "b") == []


# -- clone


def test_a_linked_clone_shows_its_base_and_keeps_its_own_changes(
    images: Images, store: ImageStore
) -> None:
    images.create("base", SIZE)
    store.write("base", 0, ONES)
    images.clone("base", "a", 2 * SIZE)
    images.clone("base", "b", SIZE)
    assert images.info("a").base == "base"
    assert images.info("a").size_bytes == 2 * SIZE
    assert images.info("a").used_bytes < MIB
    store.write("a", 65536, TWOS)
    assert store.read("a", 0, 3 * 65536) == ONES + TWOS + ZEROS
    assert store.read("a", SIZE, 65536) == ZEROS
    assert store.read("b", 0, 3 * 65536) == ONES + ZEROS + ZEROS


def test_clone_can_be_repeated(images: Images, store: ImageStore) -> None:
    images.create("base", SIZE)
    images.clone("base", "a", SIZE)
    images.clone("base", "a", SIZE)
    images.create("other", SIZE)
    with pytest.raises(Conflict):
        images.clone("other", "a", SIZE)
    # While nothing is written, a driver may take it for one that a crash kept from its full size.
    store.write("a", 0, ONES)
    with pytest.raises(Conflict):
        images.clone("base", "a", 2 * SIZE)
    images.clone("base", "a", SIZE)
    assert store.read("a", 0, 65536) == ONES


def test_a_clone_is_never_smaller_than_its_base(images: Images) -> None:
    images.create("base", SIZE)
    with pytest.raises(Invalid):
        images.clone("base", "a", SIZE - 512)
    assert named(images, "a") == []


def test_what_is_not_there_cannot_be_worked_on(images: Images) -> None:
    images.create("there", SIZE)
    images.create("trashed", SIZE)
    images.trash("trashed")
    for name in ("never", "trashed"):
        for act in (
            lambda name=name: images.clone(name, "new", SIZE),
            lambda name=name: images.copy(name, None, "new", no_progress),
            lambda name=name: images.grow(name, 2 * SIZE),
            lambda name=name: images.make_base(name, "new"),
            lambda name=name: images.snapshot(["there", name], "s"),
            lambda name=name: images.rollback([name], "s"),
            lambda name=name: images.drop_snapshot([name], "s"),
            lambda name=name: images.locate(name),
            lambda name=name: images.info(name),
            lambda name=name: images.read_file(name, 100),
            lambda name=name: images.open_read(name),
        ):
            with pytest.raises(NotFound):
                act()
    assert {one.name for one in images.list()} == {"there", "trashed"}
    assert images.info("there").snapshots == ()
    with pytest.raises(NotFound):
        images.trash("never")
    with pytest.raises(NotFound):
        images.restore("never")
    images.purge("never")


# -- copy


def test_a_copy_stands_on_its_own(images: Images, store: ImageStore) -> None:
    images.create("base", SIZE)
    store.write("base", 0, ONES)
    images.clone("base", "a", SIZE)
    store.write("a", 65536, TWOS)
    steps = Steps()
    images.copy("a", None, "b", steps)
    assert steps.percents[-1] == 100.0
    assert steps.percents == sorted(steps.percents)
    assert images.info("b").base is None
    assert images.info("b").used_bytes < max(2 * MIB, 2 * store.grain_bytes)
    images.purge("a")
    images.purge("base")
    assert [one.name for one in images.list()] == ["b"]
    assert store.read("b", 0, 3 * 65536) == ONES + TWOS + ZEROS


def test_a_copy_of_a_snapshot_has_its_content_and_size(images: Images, store: ImageStore) -> None:
    images.create("a", SIZE)
    store.write("a", 0, ONES)
    images.snapshot(["a"], "s")
    store.write("a", 0, TWOS)
    images.grow("a", 2 * SIZE)
    images.copy("a", "s", "b", no_progress)
    assert store.read("b", 0, 65536) == ONES
    assert images.info("b").size_bytes == SIZE
    assert images.info("b").snapshots == ()
    with pytest.raises(NotFound):
        images.copy("a", "other", "c", no_progress)


def test_a_copy_replaces_an_earlier_one(images: Images, store: ImageStore) -> None:
    images.create("a", SIZE)
    images.copy("a", None, "b", no_progress)
    store.write("a", 0, ONES)
    images.copy("a", None, "b", no_progress)
    assert store.read("b", 0, 65536) == ONES
    with pytest.raises(Invalid):
        images.copy("a", None, "a", no_progress)


def test_what_clones_stand_on_is_never_replaced(
    images: Images, store: ImageStore, raw_image: Path
) -> None:
    images.create("base", SIZE)
    store.write("base", 0, ONES)
    images.clone("base", "a", SIZE)
    images.create("other", SIZE)
    with pytest.raises(Conflict):
        images.copy("other", None, "base", no_progress)
    with pytest.raises(Conflict):
        images.import_file(str(raw_image), "base", "disk", "", no_progress)
    assert store.read("a", 0, 65536) == ONES


def test_cancelling_a_copy_leaves_no_volume(images: Images, store: ImageStore) -> None:
    images.create("a", 64 * MIB)
    for number in range(32):
        store.write("a", number * 2 * MIB, b"\x33" * MIB)
    with pytest.raises(Cancelled):
        images.copy("a", None, "b", Steps(cancel_after=2))
    # Some drivers keep what was done, hidden or not, until it is purged: as `undo` does.
    images.purge("b")
    assert named(images, "b") == []


# -- import


def test_an_imported_disk_has_the_content(
    images: Images, store: ImageStore, raw_image: Path
) -> None:
    digest = hashlib.sha256(raw_image.read_bytes()).hexdigest()
    steps = Steps()
    found = images.import_file(str(raw_image), "a", "disk", digest.upper(), steps)
    assert (found.size_bytes, found.format, found.sha256) == (SIZE, "raw", digest)
    assert steps.percents[-1] == 100.0
    assert store.read("a", 0, 2 * 65536) == ONES + ZEROS
    assert store.read("a", SIZE - 65536, 65536) == TWOS
    again = images.import_file(raw_image.as_uri(), "a", "disk", "", no_progress)
    assert again == found


def test_a_checksum_that_differs_leaves_nothing(images: Images, raw_image: Path) -> None:
    for content in ("disk", "file"):
        with pytest.raises(Invalid, match="SHA-256"):
            images.import_file(str(raw_image), "a", content, "0" * 64, no_progress)
    assert images.list() == ()


def test_a_source_that_is_not_there(images: Images, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        images.import_file(str(tmp_path / "none"), "a", "disk", "", no_progress)
    for location in ("ftp://example.org/a", "json:{}", "nbd:localhost:1", str(tmp_path), ""):
        with pytest.raises(Invalid):
            images.import_file(location, "a", "disk", "", no_progress)
    assert images.list() == ()


def test_a_file_is_kept_as_it_is(images: Images, tmp_path: Path) -> None:
    path = tmp_path / "kernel"
    path.write_bytes(b"kernel" * 1001)
    found = images.import_file(str(path), "k", "file", "", no_progress)
    assert (found.size_bytes, found.format) == (6006, "raw")
    assert images.read_file("k", 10_000) == path.read_bytes()
    assert images.locate("k").format == "raw"
    with images.open_read("k") as file:
        file.seek(6)
        assert file.read(6) == b"kernel"


def test_a_cd_must_be_one(images: Images, tmp_path: Path) -> None:
    path = tmp_path / "cd.iso"
    path.write_bytes(bytes(32768) + b"\x01CD001\x01" + bytes(8192))
    found = images.import_file(str(path), "cd", "iso", "", no_progress)
    assert found.size_bytes == path.stat().st_size
    with pytest.raises(Invalid):
        images.import_file(str(path), "disk", "disk", "", no_progress)
    path.write_bytes(bytes(MIB))
    with pytest.raises(Invalid):
        images.import_file(str(path), "other", "iso", "", no_progress)
    assert [one.name for one in images.list()] == ["cd"]


def test_cancelling_an_import_leaves_no_volume(images: Images, raw_image: Path) -> None:
    with pytest.raises(Cancelled):
        images.import_file(str(raw_image), "a", "disk", "", Steps(cancel_after=2))
    images.purge("a")
    assert images.list() == ()


# -- small files


def test_written_files_are_read_back_exactly(images: Images) -> None:
    images.write_file("f", b"one")
    assert images.read_file("f", 3) == b"one"
    images.write_file("f", b"three")
    assert images.read_file("f", 100) == b"three"
    with pytest.raises(Invalid):
        images.read_file("f", 4)
    images.write_file("f", b"")
    assert images.read_file("f", 0) == b""
    assert images.info("f").size_bytes == 0


# -- grow


def test_growing_keeps_the_content(images: Images, store: ImageStore) -> None:
    images.create("a", SIZE)
    store.write("a", 0, ONES)
    images.grow("a", 2 * SIZE)
    images.grow("a", 2 * SIZE)
    assert images.info("a").size_bytes == 2 * SIZE
    assert store.read("a", 0, 65536) == ONES
    with pytest.raises(Invalid):
        images.grow("a", SIZE)


# -- bases


def test_make_base_and_back(images: Images, store: ImageStore) -> None:
    images.create("a", SIZE)
    store.write("a", 0, ONES)
    images.make_base("a", "b")
    images.make_base("a", "b")
    assert images.info("a").base == "b"
    assert images.info("b").base is None
    assert images.info("a").size_bytes == images.info("b").size_bytes == SIZE
    images.unmake_base("a", "b")
    images.unmake_base("a", "b")
    assert images.info("a").base is None
    assert [one.name for one in images.list()] == ["a"]
    assert store.read("a", 0, 65536) == ONES


def test_a_base_keeps_what_was_there(images: Images, store: ImageStore) -> None:
    images.create("a", SIZE)
    store.write("a", 0, ONES)
    images.make_base("a", "b")
    images.clone("b", "c", SIZE)
    store.write("a", 0, TWOS)
    assert store.read("b", 0, 65536) == ONES
    assert store.read("c", 0, 65536) == ONES
    assert store.read("a", 0, 65536) == TWOS
    with pytest.raises(Conflict):
        images.unmake_base("a", "b")
    images.purge("c")
    with pytest.raises(Conflict):
        images.unmake_base("a", "b")
    assert store.read("a", 0, 65536) == TWOS


def test_a_volume_with_snapshots_becomes_no_base(images: Images) -> None:
    images.create("a", SIZE)
    images.snapshot(["a"], "s")
    with pytest.raises(Conflict):
        images.make_base("a", "b")
    images.drop_snapshot(["a"], "s")
    images.create("b", SIZE)
    with pytest.raises(Conflict):
        images.make_base("a", "b")


# -- snapshots


def test_snapshots_of_several_volumes(images: Images, store: ImageStore) -> None:
    images.create("a", SIZE)
    images.create("b", SIZE)
    store.write("a", 0, ONES)
    images.snapshot(["a", "b"], "one")
    store.write("a", 0, TWOS)
    store.write("b", 0, TWOS)
    images.snapshot(["a", "b"], "two")
    assert images.info("a").snapshots == ("one", "two")
    store.write("a", 65536, TWOS)
    images.rollback(["a", "b"], "one")
    images.rollback(["a", "b"], "one")
    assert store.read("a", 0, 2 * 65536) == ONES + ZEROS
    assert store.read("b", 0, 65536) == ZEROS
    images.rollback(["a", "b"], "two")
    assert store.read("a", 0, 2 * 65536) == TWOS + ZEROS
    images.drop_snapshot(["a", "b"], "one")
    images.drop_snapshot(["a", "b"], "one")
    assert images.info("b").snapshots == ("two",)
    with pytest.raises(NotFound):
        images.rollback(["a", "b"], "one")


def test_a_snapshot_of_the_same_name_is_replaced(images: Images, store: ImageStore) -> None:
    images.create("a", SIZE)
    images.create("b", SIZE)
    images.snapshot(["a"], "s")
    store.write("a", 0, ONES)
    images.snapshot(["a", "b"], "s")
    store.write("a", 0, TWOS)
    images.rollback(["a", "b"], "s")
    assert images.info("a").snapshots == ("s",)
    assert store.read("a", 0, 65536) == ONES


def test_rollback_brings_the_size_back(images: Images, store: ImageStore) -> None:
    images.create("a", SIZE)
    images.snapshot(["a"], "small")
    images.grow("a", 2 * SIZE)
    store.write("a", SIZE, ONES)
    images.snapshot(["a"], "large")
    images.rollback(["a"], "small")
    assert images.info("a").size_bytes == SIZE
    images.rollback(["a"], "large")
    assert images.info("a").size_bytes == 2 * SIZE
    assert store.read("a", SIZE, 65536) == ONES


def test_names_of_snapshots_that_look_like_numbers(images: Images, store: ImageStore) -> None:
    images.create("a", SIZE)
    store.write("a", 0, ONES)
    images.snapshot(["a"], "2")
    store.write("a", 0, TWOS)
    images.snapshot(["a"], "1")
    store.write("a", 0, ZEROS)
    images.rollback(["a"], "1")
    assert store.read("a", 0, 65536) == TWOS
    images.rollback(["a"], "2")
    assert store.read("a", 0, 65536) == ONES
    images.drop_snapshot(["a"], "1")
    assert images.info("a").snapshots == ("2",)


def test_a_missing_snapshot_stops_before_anything_is_touched(
    images: Images, store: ImageStore
) -> None:
    images.create("a", SIZE)
    images.create("b", SIZE)
    images.snapshot(["a"], "s")
    store.write("a", 0, ONES)
    with pytest.raises(NotFound):
        images.rollback(["a", "b"], "s")
    assert store.read("a", 0, 65536) == ONES


# -- trash


def test_trash_and_restore(images: Images, store: ImageStore) -> None:
    images.create("a", SIZE)
    store.write("a", 0, ONES)
    images.trash("a")
    images.trash("a")
    with pytest.raises(NotFound):
        images.locate("a")
    assert [(one.name, one.trashed) for one in images.list()] == [("a", True)]
    images.restore("a")
    images.restore("a")
    assert store.read("a", 0, 65536) == ONES
    assert not images.info("a").trashed


def test_purge_takes_it_from_wherever_it_is(images: Images) -> None:
    images.create("a", SIZE)
    images.write_file("b", b"text")
    images.trash("a")
    images.purge("a")
    images.purge("a")
    images.purge("b")
    assert images.list() == ()
    images.create("a", 2 * SIZE)
    assert images.info("a").size_bytes == 2 * SIZE


def test_a_base_in_the_trash_still_carries_its_clones(images: Images, store: ImageStore) -> None:
    images.create("base", SIZE)
    store.write("base", 0, ONES)
    images.clone("base", "a", SIZE)
    images.trash("base")
    assert store.read("a", 0, 65536) == ONES
    images.restore("base")
    assert store.read("a", 0, 65536) == ONES


def test_a_purged_base_lives_until_its_last_clone(images: Images, store: ImageStore) -> None:
    images.create("base", SIZE)
    store.write("base", 0, ONES)
    images.clone("base", "a", SIZE)
    images.clone("base", "b", SIZE)
    images.trash("base")
    images.purge("base")
    images.purge("base")
    with pytest.raises(NotFound):
        images.locate("base")
    with pytest.raises(NotFound):
        images.restore("base")
    assert [one.trashed for one in named(images, "base")] == [True]
    images.purge("a")
    assert store.read("b", 0, 65536) == ONES
    images.trash("b")
    assert len(images.list()) == 2
    images.purge("b")
    assert images.list() == ()


def test_the_name_of_a_hidden_base_is_free(images: Images, store: ImageStore) -> None:
    images.create("base", SIZE)
    store.write("base", 0, ONES)
    images.clone("base", "a", SIZE)
    images.purge("base")
    images.create("base", SIZE)
    store.write("base", 0, TWOS)
    images.clone("base", "b", SIZE)
    assert store.read("a", 0, 65536) == ONES
    assert store.read("b", 0, 65536) == TWOS
    images.purge("base")
    images.create("base", 2 * SIZE)
    images.purge("a")
    assert store.read("b", 0, 65536) == TWOS
    images.purge("b")
    assert [(one.name, one.size_bytes) for one in images.list()] == [("base", 2 * SIZE)]


def test_a_chain_of_hidden_bases_goes_with_the_last(images: Images, store: ImageStore) -> None:
    images.create("a", SIZE)
    store.write("a", 0, ONES)
    images.make_base("a", "one")
    store.write("a", 65536, TWOS)
    images.make_base("a", "two")
    images.purge("one")
    images.purge("two")
    assert store.read("a", 0, 2 * 65536) == ONES + TWOS
    assert len(images.list()) == 3
    images.purge("a")
    assert images.list() == ()


# -- looking


def test_usage_counts_what_is_promised(images: Images, store: ImageStore) -> None:
    images.create("a", SIZE)
    store.write("a", 0, ONES)
    usage = images.usage()
    assert usage.provisioned_bytes == SIZE
    assert 65536 <= usage.used_bytes < SIZE
    assert 0 < usage.free_bytes <= usage.capacity_bytes


def test_the_cluster_that_it_is_in_says_how_it_is(images: Images, store: ImageStore) -> None:
    found = images.health()
    assert (found is not None) == (store.name == "rbd")
    if found is not None:
        assert found.status.startswith("HEALTH_")
        assert 0 < found.monitors_in_quorum <= found.monitors
        assert 0 < found.osds_up <= found.osds
        assert 0 < found.free_bytes <= found.capacity_bytes


def test_notes_are_kept_or_refused(images: Images) -> None:
    images.create("a", SIZE)
    if not images.keeps_notes:
        with pytest.raises(Unsupported):
            images.note("a", "vm", "text")
        assert (images.notes("a"), images.notes("")) == ({}, {})
        return
    images.note("a", "vm", "first")
    images.note("a", "vm", "ünïcode")
    images.note("", "image.b", "on the pool")
    assert (images.notes("a"), images.notes("")) == ({"vm": "ünïcode"}, {"image.b": "on the pool"})
    images.clone("a", "b", SIZE)
    images.copy("a", None, "c", no_progress)
    assert (images.notes("b"), images.notes("c")) == ({}, {})
    for volume, key in (("a", "vm"), ("", "image.b")):
        images.note(volume, key, "")
        images.note(volume, key, "")
    assert (images.notes("a"), images.notes("")) == ({}, {})
    with pytest.raises(NotFound):
        images.note("nowhere", "vm", "text")


def test_every_error_is_a_vorch_error_and_says_what_to_do(images: Images) -> None:
    images.create("a", SIZE)
    for act in (
        lambda: images.info("none"),
        lambda: images.create("a", 2 * SIZE),
        lambda: images.grow("a", 512),
        lambda: images.import_file("/nowhere/at/all", "b", "disk", "", no_progress),
    ):
        with pytest.raises(VorchError, match=r"^cannot .+: .+"):
            act()


def test_it_says_who_has_a_volume_open(store: ImageStore) -> None:
    """Nobody, or that it cannot tell; never a guess. Who has it open is each driver's own test."""
    store.images.write_file("a", ONES)
    expected = None if store.name == "local" else ()
    assert store.images.holders("a") == expected
    store.images.info("a")
    with store.images.open_read("a"):
        # Reading leaves no trace.
        assert store.images.holders("a") == expected
    with pytest.raises(NotFound):
        store.images.holders("b")
