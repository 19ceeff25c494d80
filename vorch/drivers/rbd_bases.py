"""Linked clones and what they stand on: bases made, taken back, and kept while they are needed.

A clone stands on the snapshot `.base` of its base, which is taken when the first clone is made and
anew when the base has changed since. A base that is deleted meanwhile is hidden in the trash, and
removed with its last clone.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from vorch.drivers.rbd_pool import (
    BASE_SNAPSHOT,
    HIDDEN,
    RbdPool,
    checked,
    extents,
    features,
    librbd,
    parent_id,
    volume_name,
)
from vorch.drivers.rbd_snapshots import snapshots_of
from vorch.errors import Conflict, Invalid, NotFound, Unreachable

# What vorch notes on an image begins so.
NOTE = "vorch."
_SWEEP_EVERY_S = 600.0


@dataclass(frozen=True, slots=True)
class _Base:
    """What linked clones are made from."""

    id: str
    size_bytes: int
    noted: bool


class RbdBases:
    def __init__(self, pool: RbdPool) -> None:
        self._pool = pool
        # Bases that were seen to be as their snapshot shows them, and what they looked like then.
        self._known: dict[str, tuple[bytes, _Base]] = {}
        self._swept_at = float("-inf")

    def clone(self, base: str, volume: str, size: int, what: str) -> None:
        below = self.ready(base, what)
        if size < below.size_bytes:
            raise Invalid(
                f"cannot {what} with {size} bytes: the base has {below.size_bytes}; give"
                " the clone as many or more",
                volume=volume,
            )
        self._pool.check_name_free(volume, what)
        self._pool.check_room(0, what)
        rbd = librbd()
        try:
            self._clone(base, checked(volume))
        except rbd.ImageExists:
            if self._is_same_clone(below, volume, size, what):
                return
            self._clone(base, volume)
        except rbd.ImageNotFound:
            # Somebody took the snapshot away.
            self._known.pop(base, None)
            below = self.ready(base, what)
            self._clone(base, volume)
        self._finish_clone(below, volume, size, what)

    def _clone(self, base: str, volume: str) -> None:
        ioctx = self._pool.ioctx()
        librbd().RBD().clone(ioctx, base, BASE_SNAPSHOT, ioctx, volume, features=features())

    def _finish_clone(self, below: _Base, volume: str, size: int, what: str) -> None:
        if size > below.size_bytes or below.noted:
            with self._pool.opened(volume, what, read_only=False) as image:
                # RBD gives a clone its base's notes, which tell of another VM.
                for key in note_keys(image):
                    image.metadata_remove(key)
                if image.size() < size:
                    image.resize(size)

    def _is_same_clone(self, below: _Base, volume: str, size: int, what: str) -> bool:
        """The clone is there already. What a crash left of one is finished, or cleared away."""
        if self._pool.clear_stump(volume, what):
            return False
        taken = self._pool.taken(volume, what, "there is another volume of that name")
        with self._pool.opened(volume, what) as image:
            above, now = parent_id(image), image.size()
            written = bool(list(image.list_snaps()) or extents(image, None, parents=False))
            own = str(image.id())
            if above == below.id:
                with self._pool.opened("", what, image_id=below.id) as base_image:
                    known = any(one["id"] == own for one in base_image.list_children2())
                if known and now == size:
                    return True
                if known and now == below.size_bytes and not written:
                    self._pool.check_unused(image, volume, what)
                    self._finish_clone(below, volume, size, what)
                    return True
                if known:
                    raise taken
            elif above is not None or now != below.size_bytes:
                raise taken
            # A clone that was not tied to its base yet: nothing is lost with it.
            if written:
                raise taken
            self._pool.check_unused(image, volume, what)
        self._pool.remove(volume)
        return False

    def ready(self, base: str, what: str) -> _Base:
        """See to the snapshot that clones stand on: it shows what the base holds now."""
        rbd = librbd()
        look = self._pool.fingerprint(checked(base))
        known = self._known.get(base)
        if known is not None and known[0] == look:
            return known[1]
        with self._pool.opened(base, what) as image:
            found = _Base(str(image.id()), int(image.size()), bool(note_keys(image)))
            linked = image.features() & librbd().RBD_FEATURE_MIGRATING
            if linked and not any(one["name"] == BASE_SNAPSHOT for one in image.list_snaps()):
                raise Conflict(
                    f"cannot {what}: its data are still coming in, and nothing more is made of it"
                    " until they are there; see `vorch task list`",
                    volume=base,
                )
            if linked:
                return found
            if _base_is_current(image):
                # With an object map that is not in order, a look at it tells nothing.
                if look is not None and not image.flags():
                    self._known[base] = (look, found)
                return found
            self._pool.check_unused(image, base, what, may_read=True)
        with self._pool.opened(base, what, read_only=False) as image:
            # Somebody else may have been faster.
            if not _base_is_current(image):
                with suppress(rbd.ImageNotFound):
                    image.remove_snap(BASE_SNAPSHOT)
                with suppress(rbd.ImageExists):
                    image.create_snap(BASE_SNAPSHOT)
        return found

    # -- making and unmaking

    def make(self, volume: str, base: str, what: str) -> None:
        self._pool.settle(checked(volume), checked(base))
        base_id = self._pool.id_of(base, what)
        if base_id is not None and self._was_volume(base, volume, what):
            # A crash came after the first of the two names.
            self._finish_base(volume, base, what)
            return
        with self._pool.opened(volume, "make a base of") as image:
            if base_id is not None and parent_id(image) == base_id:
                with self._pool.opened(base, what, read_only=False) as below:
                    _forget_notes(below)
                return
            taken = [one.name for one in snapshots_of(image)]
            if taken:
                raise Conflict(
                    f"cannot {what}: it has snapshots; delete them first",
                    volume=volume,
                    snapshots=taken,
                )
            self._pool.check_unused(image, volume, what)
        self._pool.check_name_free(base, what)
        if base_id is not None:
            raise self._pool.taken(base, what, "there is another volume of that name")
        # The slow part first, so that the volume is without a name for a moment only.
        self.ready(volume, what)
        with self._pool.opened(volume, what, read_only=False) as image:
            image.metadata_set(NOTE + "base-of", volume)
        self._pool.rename(volume, base, what)
        self._finish_base(volume, base, what)

    def _was_volume(self, base: str, volume: str, what: str) -> bool:
        with self._pool.opened(base, what) as image:
            return dict(image.metadata_list()).get(NOTE + "base-of") == volume

    def _finish_base(self, volume: str, base: str, what: str) -> None:
        below = self.ready(base, what)
        # The clone takes the notes along, and they are its own.
        try:
            self._clone(base, volume)
        except librbd().ImageExists:
            if not self._is_same_clone(below, volume, below.size_bytes, what):
                self._clone(base, volume)
        with self._pool.opened(base, what) as image:
            notes = {key: text for key, text in image.metadata_list() if key.startswith(NOTE)}
        with self._pool.opened(volume, what, read_only=False) as image:
            # A clone that was cut off stands on its base already, but has no notes yet.
            own = note_keys(image)
            for key in notes.keys() - {*own, NOTE + "base-of"}:
                image.metadata_set(key, notes[key])
            if NOTE + "base-of" in own:
                image.metadata_remove(NOTE + "base-of")
        with self._pool.opened(base, what, read_only=False) as image:
            _forget_notes(image)

    def unmake(self, volume: str, base: str, what: str) -> None:
        self._pool.settle(checked(volume), checked(base))
        base_id = self._pool.id_of(base, what)
        if base_id is None:
            with self._pool.opened(volume, "take back the base of") as image:
                begun = NOTE + "base-of" in note_keys(image)
            if begun:
                self._back_to_volume(volume, what)
            return
        if self._pool.id_of(volume, what) is None:
            # Of a clone that was removed half-way, or that was only begun.
            self._pool.clear_stump(volume, what)
        elif not self._take_clone_away(volume, base, base_id, what):
            return
        with self._pool.opened(base, what, read_only=False) as image:
            # Whoever comes after a rename that was all knows by this that something is left to do.
            image.metadata_set(NOTE + "base-of", volume)
        self._pool.rename(base, volume, what)
        self._back_to_volume(volume, what)

    def _back_to_volume(self, volume: str, what: str) -> None:
        with self._pool.opened(volume, what, read_only=False) as image:
            if not list(image.list_children2()):
                with suppress(librbd().ImageNotFound):
                    image.remove_snap(BASE_SNAPSHOT)
            with suppress(KeyError):
                image.metadata_remove(NOTE + "base-of")

    def _take_clone_away(self, volume: str, base: str, base_id: str, what: str) -> bool:
        """What has the volume's name while its image is the base. False: that base is another's."""
        with self._pool.opened(volume, what) as image:
            above, own = parent_id(image), str(image.id())
            if above != base_id and not self._was_volume(base, volume, what):
                return False
            self._pool.check_unused(image, volume, what)
            written = bool(list(image.list_snaps()) or extents(image, None, parents=False))
            notes = {key: text for key, text in image.metadata_list() if key.startswith(NOTE)}
        with self._pool.opened(base, what) as below:
            others = [
                volume_name(one["image"]) for one in below.list_children2() if one["id"] != own
            ]
        # A clone that is not tied to its base yet is as empty as it was made.
        strange = above is not None and above != base_id
        if others or written or strange:
            why = f"{', '.join(others)} stand on it" if others else "it was written since"
            raise Conflict(f"cannot {what}: {why}; keep it", volume=volume, base=base)
        with self._pool.opened(base, what, read_only=False) as below:
            for key, text in notes.items():
                below.metadata_set(key, text)
        self._pool.remove(volume)
        return True

    # -- hidden bases

    def hide(self, volume: str, image_id: str) -> None:
        """Out of the volume's name; it stays for the clones that stand on it."""
        # One name for one image: whoever does it again finds what he had begun.
        hidden = f"{HIDDEN}{volume}~{image_id}"
        if image_id in self._pool.trash_names():
            self._pool.settle(hidden)
            librbd().RBD().trash_restore(self._pool.ioctx(), image_id, hidden)
        else:
            self._pool.rename(volume, hidden, f"delete volume {volume!r}")
        # In the trash `rbd trash purge` takes it as well, once the last clone is gone.
        self._pool.move_to_trash(hidden)

    def sweep_hidden(self, image_id: str | None, *, thorough: bool = False) -> None:
        """Remove a hidden base that nothing stands on any more, and those that it stood on.

        All are looked at now and then, since a crash may have come in between, and when it has.
        """
        now = time.monotonic()
        if thorough or now - self._swept_at > _SWEEP_EVERY_S:
            self._swept_at = now
            hidden = [
                key for key, name in self._pool.trash_names().items() if name.startswith(HIDDEN)
            ]
            for name, key in self._pool.names().items():
                if name.startswith(HIDDEN):
                    self._pool.move_to_trash(name)
                    hidden.append(key)
            for key in hidden:
                self._remove_idle_chain(key)
            self._pool.sweep_work(None, wait=False)
        self._remove_idle_chain(image_id)

    def _remove_idle_chain(self, image_id: str | None) -> None:
        rbd = librbd()
        while image_id is not None:
            name = self._pool.trash_names().get(image_id, "")
            if not name.startswith(HIDDEN):
                return
            above = None
            # Of one whose removal was cut off only the entry in the trash may be left.
            with suppress(NotFound), self._pool.opened(name, "look at", image_id=image_id) as image:
                if list(image.list_snaps()) and not self._forget_snapshots(image, name):
                    return
                above = parent_id(image)
            with suppress(rbd.ImageHasSnapshots, Unreachable):
                self._pool.remove_from_trash(image_id)
            image_id = above

    def _forget_snapshots(self, image: Any, name: str) -> bool:
        """Of a hidden base whose clones are all gone. True when it has none any more.

        RBD itself removes the last one together with the last clone, unless the monitor that this
        takes was silent just then.
        """
        rbd = librbd()
        trashed = [
            one["id"]
            for one in image.list_snaps()
            if one["namespace"] == rbd.RBD_SNAP_NAMESPACE_TYPE_TRASH
        ]
        if list(image.list_children2()) or len(trashed) < len(list(image.list_snaps())):
            return False
        image_id = str(image.id())
        with self._pool.opened(name, "tidy", image_id=image_id, read_only=False) as writable:
            for snapshot_id in trashed:
                with suppress(rbd.ImageNotFound):
                    writable.remove_snap_by_id(snapshot_id)
        return True


def note_keys(image: Any) -> list[str]:
    return [key for key, _ in image.metadata_list() if key.startswith(NOTE)]


def _forget_notes(image: Any) -> None:
    for key in note_keys(image):
        image.metadata_remove(key)


def _base_is_current(image: Any) -> bool:
    for one in image.list_snaps():
        if one["name"] == BASE_SNAPSHOT:
            return one["size"] == image.size() and not extents(image, BASE_SNAPSHOT, parents=False)
    return False
