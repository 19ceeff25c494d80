"""Snapshots of several RBD images at one point, and what can be done with them afterwards.

One image alone gets a plain snapshot. Several get a group snapshot, for which librbd holds all
writers off at once, gently: they wait, and no guest sees an error. The group lives for that one
snapshot; its images leave it at once, since an image can be in one group only, but the snapshot
stays. The group's name tells its images, so nothing needs to be looked up:

    .ID.ID.ID~SNAPSHOT

See docs/adr/0007-disks-in-rbd.md for why, and for what librbd 16 cannot do with such snapshots.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

from vorch.drivers.rbd_pool import RbdPool, extents, librbd
from vorch.errors import Conflict, NotFound

OBJECT_BYTES = 4 * 1024**2


@dataclass(frozen=True, slots=True)
class Taken:
    """A snapshot of one image. `group` is the group that it was taken in, or ""."""

    name: str
    id: int
    # What RBD calls it: its name, or for a group's .group.POOL_GROUP_SNAPSHOT, by their ids.
    raw_name: str
    group: str = ""


def snapshots_of(image: Any) -> list[Taken]:
    """What a person took, in the order of taking. vorch's own begin with a dot."""
    rbd = librbd()
    found = []
    for one in image.list_snaps():
        if one["namespace"] == rbd.RBD_SNAP_NAMESPACE_TYPE_USER:
            if not one["name"].startswith("."):
                found.append(Taken(one["name"], one["id"], one["name"]))
        elif one["namespace"] == rbd.RBD_SNAP_NAMESPACE_TYPE_GROUP:
            group = one["group"]
            if group["name"].startswith("."):
                found.append(Taken(group["snap_name"], one["id"], one["name"], group["name"]))
    return sorted(found, key=lambda one: one.id)


class RbdSnapshots:
    def __init__(self, pool: RbdPool) -> None:
        self._pool = pool

    def find(self, image: Any, volume: str, snapshot: str) -> Taken:
        for one in snapshots_of(image):
            if one.name == snapshot:
                return one
        raise NotFound(
            f"cannot find snapshot {snapshot!r} of volume {volume!r} in pool {self._pool.name!r}:"
            " there is none of that name",
            pool=self._pool.name,
            volume=volume,
            snapshot=snapshot,
        )

    # -- taking

    def take(self, volumes: Sequence[str], snapshot: str) -> None:
        what = f"take snapshot {snapshot!r} of"
        with ExitStack() as stack:
            images = {
                volume: stack.enter_context(self._pool.opened(volume, what, read_only=False))
                for volume in volumes
            }
            for image in images.values():
                self._leave_group(image)
                self._drop(image, snapshot)
            if len(images) == 1:
                next(iter(images.values())).create_snap(snapshot)
                return
            ids = {volume: str(image.id()) for volume, image in images.items()}
        self._take_together(ids, snapshot, what)

    def _take_together(self, ids: dict[str, str], snapshot: str, what: str) -> None:
        rbd, ioctx = librbd(), self._pool.ioctx()
        name = _group_name(ids.values(), snapshot)
        # What is left of an earlier try.
        if name in list(rbd.RBD().group_list(ioctx)):
            rbd.RBD().group_remove(ioctx, name)
        rbd.RBD().group_create(ioctx, name)
        group, whole = rbd.Group(ioctx, name), False
        try:
            for volume in ids:
                try:
                    group.add_image(ioctx, volume)
                except rbd.ObjectExists as exc:
                    raise Conflict(
                        f"cannot {what} volume {volume!r} in pool {self._pool.name!r}: it is in an"
                        " RBD group of somebody else's; take it out (`rbd group image rm`)",
                        volume=volume,
                    ) from exc
            group.create_snap(snapshot)
            whole = True
        finally:
            with suppress(rbd.Error):
                if whole:
                    for volume in ids:
                        group.remove_image(ioctx, volume)
                else:
                    rbd.RBD().group_remove(ioctx, name)

    def _leave_group(self, image: Any) -> None:
        """Out of a group of ours that a process died in."""
        rbd, ioctx = librbd(), self._pool.ioctx()
        name = image.group()["name"]
        if name.startswith("."):
            with suppress(rbd.ObjectNotFound):
                rbd.Group(ioctx, name).remove_image(ioctx, image.get_name())

    # -- rolling back

    def rollback(self, volumes: Sequence[str], snapshot: str) -> None:
        what = f"roll back to snapshot {snapshot!r}"
        found: dict[str, Taken] = {}
        ids: dict[str, str] = {}
        for volume in volumes:
            with self._pool.opened(volume, what) as image:
                found[volume] = self.find(image, volume, snapshot)
                ids[volume] = str(image.id())
                self._pool.check_unused(image, volume, what)
        groups = {one.group for one in found.values()}
        if len(groups) == 1 and "" not in groups:
            name = groups.pop()
            self._check_complete(name, snapshot, what)
            # Only when it is all of them: librbd rolls back every image of the group, wherever it
            # is now, and silently passes over those whose snapshot is gone.
            if set(_members(name)) == set(ids.values()):
                # Kept for as long as the call takes: a Group does not keep it.
                ioctx = self._pool.ioctx()
                librbd().Group(ioctx, name).rollback_to_snap(snapshot)
                return
        for volume in volumes:
            with self._pool.claimed(volume, what) as image:
                if found[volume].group:
                    self._rewind(image, found[volume])
                else:
                    image.rollback_to_snap(snapshot)

    def _check_complete(self, group: str, snapshot: str, what: str) -> None:
        rbd, ioctx = librbd(), self._pool.ioctx()
        for one in rbd.Group(ioctx, group).list_snaps():
            if one["name"] == snapshot and one["state"] != rbd.RBD_GROUP_SNAP_STATE_COMPLETE:
                raise Conflict(
                    f"cannot {what}: the snapshot is not complete, as its taking was interrupted;"
                    " delete it",
                    snapshot=snapshot,
                )

    def _rewind(self, image: Any, taken: Taken) -> None:
        """One image of a group to its part of a group snapshot, which librbd 16 has no call for."""
        with self._pool.opened("", "roll back", image_id=str(image.id())) as then:
            then.set_snap_by_id(taken.id)
            size = then.size()
            image.resize(size)
            for offset, length in sorted(
                {*extents(image, None, parents=False), *extents(then, None, parents=True)}
            ):
                for start in range(offset, min(offset + length, size), OBJECT_BYTES):
                    count = min(OBJECT_BYTES, offset + length - start, size - start)
                    wanted = then.read(start, count)
                    if image.read(start, count) != wanted:
                        image.write(wanted, start)
            image.flush()

    # -- removing

    def drop(self, volumes: Sequence[str], snapshot: str) -> None:
        what = f"delete snapshot {snapshot!r} of"
        with ExitStack() as stack:
            images = [
                stack.enter_context(self._pool.opened(volume, what, read_only=False))
                for volume in volumes
            ]
            for image in images:
                # First: a group is not removed from under an image that is open here.
                self._leave_group(image)
                self._drop(image, snapshot)
            ids = [str(image.id()) for image in images]
        if len(ids) > 1:
            # A process that died while it took the snapshot may have left the group alone, with
            # some of the images in it and no snapshot that would tell of it.
            rbd = librbd()
            with suppress(rbd.ObjectNotFound):
                rbd.RBD().group_remove(self._pool.ioctx(), _group_name(ids, snapshot))

    def drop_all(self, image: Any) -> None:
        """Every snapshot, for an image that goes. What clones stand on becomes RBD's own."""
        rbd = librbd()
        self._leave_group(image)
        groups = [one for one in snapshots_of(image) if one.group]
        for one in list(image.list_snaps()):
            if one["namespace"] == rbd.RBD_SNAP_NAMESPACE_TYPE_USER:
                image.remove_snap(one["name"])
            elif one["namespace"] == rbd.RBD_SNAP_NAMESPACE_TYPE_GROUP:
                image.remove_snap_by_id(one["id"])
        for taken in groups:
            self._tidy(taken)

    def _drop(self, image: Any, snapshot: str) -> None:
        rbd = librbd()
        for one in snapshots_of(image):
            if one.name != snapshot:
                continue
            with suppress(rbd.ImageNotFound):
                if one.group:
                    image.remove_snap_by_id(one.id)
                else:
                    image.remove_snap(one.raw_name)
            if one.group:
                self._tidy(one)

    def _tidy(self, taken: Taken) -> None:
        """Remove a group when no image has its snapshot any more."""
        import rados

        rbd, ioctx = librbd(), self._pool.ioctx()
        gone = False
        for image_id in _members(taken.group):
            try:
                with self._pool.opened("", "look at", image_id=image_id) as image:
                    if any(one.group == taken.group for one in snapshots_of(image)):
                        return
            except NotFound:
                gone = True
        if gone:
            # librbd looks for every image of a group's snapshot, and removes neither when one is
            # not there any more. So the record of the snapshot goes first.
            _, group_id, snapshot_id = taken.raw_name.split("_")
            text = snapshot_id.encode()
            with suppress(rados.ObjectNotFound):
                ioctx.execute(
                    f"rbd_group_header.{group_id}",
                    "rbd",
                    "group_snap_remove",
                    struct.pack("<I", len(text)) + text,
                )
        with suppress(rbd.ObjectNotFound):
            rbd.RBD().group_remove(ioctx, taken.group)


def _group_name(ids: Iterable[str], snapshot: str) -> str:
    return "." + ".".join(sorted(ids)) + f"~{snapshot}"


def _members(group: str) -> list[str]:
    """The ids of the images that a group of ours was made for."""
    return group.partition("~")[0].lstrip(".").split(".")
