"""What a silent OSD or a kill leaves in the middle of one call into librbd, made by hand.

librbd keeps an image's name in several places and changes them one after the other. Here each state
in between is made, and what vorch does next must come out as if the call had been whole.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from tests.contract import ceph_images
from tests.contract.ceph import the_lab
from vorch.drivers.rbd_images import RbdImages
from vorch.errors import Conflict, NotFound
from vorch.lab.lab import Lab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

SIZE = 8 * 1024**2
ONES = b"\x11" * 65536
OF_AN_IMAGE = ("rbd_header.", "rbd_id.", "rbd_data.", "rbd_object_map.")


def packed(*words: str) -> bytes:
    return b"".join(struct.pack("<I", len(word)) + word.encode() for word in words)


class Halves:
    """A namespace with volume `a`, which holds something, and the parts of RBD's calls."""

    def __init__(self, ioctx: Any, images: RbdImages) -> None:
        self.ioctx, self.images = ioctx, images
        images.create("a", SIZE)
        with self.opened("a") as image:
            image.write(ONES, 0)
        images.note("a", "vm", "text")

    def opened(self, name: str, *, read_only: bool = False) -> Any:
        import rbd

        return rbd.Image(self.ioctx, name, read_only=read_only)

    def id_of(self, name: str) -> str:
        return str(self.ioctx.read(f"rbd_id.{name}", 256)[4:].decode())

    def call(self, key: str, method: str, *words: str) -> None:
        self.ioctx.execute(key, "rbd", method, packed(*words))

    def half_renamed(self, old: str, new: str, *, listed: bool) -> None:
        """Both names open it; the directory has the old one, or already the new one."""
        image_id = self.id_of(old)
        self.ioctx.write_full(f"rbd_id.{new}", packed(image_id))
        if listed:
            self.call("rbd_directory", "dir_rename_image", old, new, image_id)

    def half_trashed(self, name: str, *, opens: bool) -> None:
        """In the trash and in the directory; it opens by its name, or does not any more."""
        import rbd

        image_id = self.id_of(name)
        rbd.RBD().trash_move(self.ioctx, name, 0)
        self.call("rbd_directory", "dir_add_image", name, image_id)
        if opens:
            self.ioctx.write_full(f"rbd_id.{name}", packed(image_id))

    def half_restored(self, name: str, *, listed: bool) -> None:
        import rbd

        image_id = self.id_of(name)
        rbd.RBD().trash_move(self.ioctx, name, 0)
        self.ioctx.write_full(f"rbd_id.{name}", packed(image_id))
        if listed:
            self.call("rbd_directory", "dir_add_image", name, image_id)

    def noted(self) -> None:
        """As `make_base` does before it renames."""
        with self.opened("a") as image:
            image.create_snap(".base")
            image.metadata_set("vorch.base-of", "a")

    def names(self) -> list[str]:
        import rbd

        return sorted(
            [
                *rbd.RBD().list(self.ioctx),
                *(one["name"] for one in rbd.RBD().trash_list(self.ioctx)),
            ]
        )

    def check_as_before(self) -> None:
        """Volume `a` is there with what it held, and nothing else is, down to objects."""
        assert self.names() == ["a"]
        with self.opened("a", read_only=True) as image:
            assert bytes(image.read(0, len(ONES))) == ONES
            assert list(image.list_snaps()) == []
            assert dict(image.metadata_list()) == {"vorch.vm": "text"}
        assert self.images.info("a").base is None
        assert self.objects() == {self.id_of("a"), "a"}

    def objects(self) -> set[str]:
        """Whose objects there are: ids of images, and names."""
        return {
            one.key.removeprefix(prefix).rsplit(".0000", 1)[0]
            for one in self.ioctx.list_objects()
            for prefix in OF_AN_IMAGE
            if one.key.startswith(prefix)
        }

    def check_empty(self) -> None:
        self.images.purge("a")
        assert self.names() == []
        assert self.objects() == set()


@pytest.fixture
def half(request: pytest.FixtureRequest) -> Iterator[Halves]:
    lab: Lab = the_lab(request)
    with ceph_images.connected(lab) as cluster, ceph_images.namespace(cluster) as name:
        images = ceph_images.images(lab, name)
        with cluster.open_ioctx(ceph_images.POOL) as ioctx:
            ioctx.set_namespace(name)
            yield Halves(ioctx, images)
        images.close()


def blank_clone(half: Halves) -> None:
    """librbd makes a clone as an empty image, and then ties it to its base."""
    import rbd

    half.noted()
    rbd.RBD().rename(half.ioctx, "a", "b")
    rbd.RBD().create(half.ioctx, "a", SIZE, old_format=False)


def clone_without_notes(half: Halves) -> None:
    import rbd

    half.noted()
    rbd.RBD().rename(half.ioctx, "a", "b")
    # On the connection of the driver, where clones are of version 2.
    ioctx = half.images._pool.ioctx()
    rbd.RBD().clone(ioctx, "b", ".base", ioctx, "a", features=1)
    with half.opened("a") as image:
        for key in dict(image.metadata_list()):
            image.metadata_remove(key)


def old_name_stays(half: Halves) -> None:
    """As after a rename that librbd says is done."""
    half.noted()
    half.half_renamed("a", "b", listed=True)


def new_name_first(half: Halves) -> None:
    half.noted()
    half.half_renamed("a", "b", listed=False)


def going_back(*, listed: bool) -> Callable[[Halves], None]:
    """The undo was cut off, too, in its rename."""

    def made(half: Halves) -> None:
        import rbd

        half.images.make_base("a", "b")
        rbd.RBD().remove(half.ioctx, "a")
        with half.opened("b") as image:
            image.metadata_set("vorch.vm", "text")
            image.metadata_set("vorch.base-of", "a")
        half.half_renamed("b", "a", listed=listed)

    return made


def clone_half_gone(half: Halves) -> None:
    """The undo was cut off while it removed the clone: it is on its way into the trash."""
    half.images.make_base("a", "b")
    with half.opened("b") as image:
        image.metadata_set("vorch.vm", "text")
    half.half_trashed("a", opens=False)


MAKING: dict[str, Callable[[Halves], None]] = {
    "new-name-first": new_name_first,
    "old-name-stays": old_name_stays,
    "blank-clone": blank_clone,
    "clone-without-notes": clone_without_notes,
}
UNMAKING: dict[str, Callable[[Halves], None]] = {
    "undo-renames": going_back(listed=False),
    "undo-renamed": going_back(listed=True),
}


@pytest.mark.parametrize("cut", MAKING | UNMAKING)
def test_a_base_that_was_half_made_is_taken_back(half: Halves, cut: str) -> None:
    (MAKING | UNMAKING)[cut](half)
    half.images.unmake_base("a", "b")
    half.check_as_before()
    # And whoever does it again, since its answer was lost.
    half.images.unmake_base("a", "b")
    half.check_as_before()
    half.check_empty()


@pytest.mark.parametrize("cut", MAKING)
def test_a_base_that_was_half_made_is_made(half: Halves, cut: str) -> None:
    MAKING[cut](half)
    half.images.make_base("a", "b")
    assert half.names() == ["a", "b"]
    assert half.images.info("a").base == "b"
    assert (half.images.notes("a"), half.images.notes("b")) == ({"vm": "text"}, {})
    half.images.unmake_base("a", "b")
    half.check_as_before()


def test_a_clone_that_is_half_gone_does_not_keep_its_base(half: Halves) -> None:
    clone_half_gone(half)
    half.images.unmake_base("a", "b")
    with half.opened("a", read_only=True) as image:
        assert bytes(image.read(0, len(ONES))) == ONES
    assert "b" not in half.names()


def test_what_is_another_volume_is_left_alone(half: Halves) -> None:
    """`make_base` was refused since the name is taken; its undo touches neither."""
    half.images.create("b", SIZE)
    with pytest.raises(Conflict):
        half.images.make_base("a", "b")
    half.images.unmake_base("a", "b")
    assert half.names() == ["a", "b"]
    half.images.purge("b")
    half.check_as_before()


def test_a_disk_that_was_written_is_not_taken_for_a_blank_one(half: Halves) -> None:
    blank_clone(half)
    with half.opened("a") as image:
        image.write(ONES, 65536)
    with pytest.raises(Conflict, match="written since"):
        half.images.unmake_base("a", "b")
    assert half.names() == ["a", "b"]


def with_clone(half: Halves) -> str:
    """`a` has clone `c` and is about to be hidden: by what name."""
    half.images.clone("a", "c", SIZE)
    with half.opened("a") as image:
        image.remove_snap(".base")
    return f".hidden~a~{half.id_of('a')}"


@pytest.mark.parametrize("listed", [False, True])
def test_a_base_that_was_half_hidden_goes_with_its_last_clone(half: Halves, listed: bool) -> None:
    hidden = with_clone(half)
    half.half_renamed("a", hidden, listed=listed)
    half.images.purge("a")
    assert half.names() == [hidden, "c"]
    with half.opened("c", read_only=True) as image:
        assert bytes(image.read(0, len(ONES))) == ONES
    half.images.purge("c")
    half.check_empty()


@pytest.mark.parametrize("opens", [False, True])
def test_a_hidden_base_that_was_half_thrown_away(half: Halves, opens: bool) -> None:
    import rbd

    hidden = with_clone(half)
    rbd.RBD().rename(half.ioctx, "a", hidden)
    half.half_trashed(hidden, opens=opens)
    half.images.purge("a")
    assert half.names() == [hidden, "c"]
    half.images.purge("c")
    half.check_empty()


HALF_THROWN: dict[str, Callable[[Halves], None]] = {
    "opens": lambda half: half.half_trashed("a", opens=True),
    "listed": lambda half: half.half_trashed("a", opens=False),
    "half-restored": lambda half: half.half_restored("a", listed=False),
    "restored-but-kept": lambda half: half.half_restored("a", listed=True),
}


@pytest.mark.parametrize("cut", HALF_THROWN)
def test_a_volume_that_is_half_in_the_trash_goes_there_or_comes_back(
    half: Halves, cut: str
) -> None:
    HALF_THROWN[cut](half)
    half.images.trash("a")
    assert half.names() == ["a"]
    with pytest.raises(NotFound):
        half.images.locate("a")
    half.images.restore("a")
    half.check_as_before()
    HALF_THROWN[cut](half)
    half.images.restore("a")
    half.check_as_before()
    HALF_THROWN[cut](half)
    half.check_empty()


@pytest.mark.parametrize("listed", [False, True])
def test_a_name_that_another_image_keeps_open(half: Halves, listed: bool) -> None:
    """A copy that was whole got its name half-way; it is made anew."""
    half.images.copy("a", None, "c", lambda *_, **__: None)
    import rbd

    rbd.RBD().rename(half.ioctx, "c", ".work~c~0123456789ab")
    half.half_renamed(".work~c~0123456789ab", "c", listed=listed)
    half.images.copy("a", None, "c", lambda *_, **__: None)
    with half.opened("c", read_only=True) as image:
        assert bytes(image.read(0, len(ONES))) == ONES
    half.images.purge("c")
    with suppress(rbd.ImageNotFound):
        half.images._pool.sweep_work(None, wait=False)
    assert half.names() == ["a"]


def test_a_lock_that_this_client_got_too_late_is_given_back(half: Halves) -> None:
    """It was asked for in an outage, given up, and given all the same: nobody holds it."""
    with half.opened("a", read_only=True) as image:
        header = f"rbd_header.{image.id()}"
    own = half.images._pool.ioctx()
    own.lock_exclusive(header, "rbd_lock", "auto 140000000000000")
    # What came before is what makes this process look.
    half.images._pool._cluster.failed = True
    half.images.clone("a", "c", SIZE)
    half.images.make_base("a", "b")
    half.images.purge("c")
    half.images.unmake_base("a", "b")
    own.lock_exclusive(header, "rbd_lock", "auto 140000000000000")
    half.images.purge("a")
    assert half.names() == []
