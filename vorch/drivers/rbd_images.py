"""Volumes as RBD images in a Ceph pool (`rbd://POOL[/NAMESPACE]?conf=…&id=…`), through librbd.

Every volume is a raw image of the volume's own name. Linked clones are RBD clones (version 2) of
the snapshot `.base` of their base. A volume that is being written has another name until it is
whole, so a crash leaves either what was there or the new one. How images are opened and removed,
and who may have them open meanwhile, is `rbd_pool`'s part.
"""

from __future__ import annotations

import io
import re
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Literal

from vorch.drivers import image_export, rbd_import, rbd_link
from vorch.drivers.ceph_health import read_status
from vorch.drivers.disk_formats import LARGEST_BYTES, SECTOR
from vorch.drivers.image_import import check_sha256
from vorch.drivers.rados_connection import TIMEOUT_S
from vorch.drivers.rbd_bases import NOTE, RbdBases
from vorch.drivers.rbd_content import ImageReader, content_of, copy_content, flatten
from vorch.drivers.rbd_pool import (
    HIDDEN,
    RESERVE_BYTES,
    WORK,
    RbdPool,
    checked,
    extents,
    librbd,
    parent_id,
    rbd_address,
    volume_name,
)
from vorch.drivers.rbd_snapshots import RbdSnapshots, snapshots_of
from vorch.errors import BadConfig, Invalid, NotFound
from vorch.model import Holder, PoolUsage, RbdSource, Room, Source, StorageHealth
from vorch.plan import ExportFormat
from vorch.ports import (
    Content,
    HostSecret,
    Imported,
    Progress,
    VolumeInfo,
    no_progress,
)

# Secrets of libvirt get their identifier from cluster and user, so it is the same on every host.
_SECRET_ROOT = uuid.UUID("1c0c0e0a-5f0e-5c1b-9d55-6d9b7f1f0a44")
_LOOKS_AT_ONCE = 8
SPARSE_BYTES = 4096
_MONITORS_AGE_S = 60.0
_OWN_NOTES = ("base-of", rbd_link.LINK, rbd_link.SUM)


class RbdImages:
    """The `Images` port on an RBD pool."""

    # librbd holds all writers off for the moment of a snapshot.
    live_snapshots: bool = True
    keeps_notes: bool = True

    def __init__(
        self,
        pool_name: str,
        url: str,
        *,
        timeout_s: float = TIMEOUT_S,
        reserve_bytes: int = RESERVE_BYTES,
    ) -> None:
        self.pool = pool_name
        self._pool = RbdPool(
            pool_name, rbd_address(url), timeout_s=timeout_s, reserve_bytes=reserve_bytes
        )
        self._snapshots = RbdSnapshots(self._pool)
        self._bases = RbdBases(self._pool)
        self._monitors: tuple[float, tuple[str, ...]] | None = None

    def close(self) -> None:
        self._pool.close()

    # -- making volumes

    def create(self, volume: str, size_bytes: int) -> None:
        what = f"create volume {volume!r}"
        size = _checked_size(size_bytes, what)
        with self._pool.translated(what, volume):
            self._pool.check_name_free(volume, what)
            self._pool.check_room(0, what)
            rbd = librbd()
            try:
                self._pool.make(checked(volume), size)
            except rbd.ImageExists as exc:
                if self._pool.clear_stump(volume, what):
                    self._pool.make(volume, size)
                elif not self._is_blank(volume, size, what):
                    raise self._pool.taken(volume, what, "there is one of that name") from exc

    def _is_blank(self, volume: str, size: int, what: str) -> bool:
        """What `create` would make."""
        with self._pool.opened(volume, what) as image:
            return (
                image.size() == size
                and parent_id(image) is None
                and not list(image.list_snaps())
                and not extents(image, None, parents=False)
            )

    def clone(self, base: str, volume: str, size_bytes: int) -> None:
        what = f"clone volume {base!r} to {volume!r}"
        size = _checked_size(size_bytes, what)
        with self._pool.translated(what, volume):
            self._bases.clone(base, volume, size, what)

    def copy(self, source: str, snapshot: str | None, volume: str, progress: Progress) -> None:
        what = f"copy volume {source!r} to {volume!r}"
        with self._pool.translated(what, volume), self._pool.opened(source, what) as image:
            rbd_link.check_whole(self._pool, source, what)
            if source == volume:
                raise Invalid(f"cannot {what}: they are the same; choose another name")
            if snapshot is not None:
                # By number, since a snapshot of a group has no name here.
                image.set_snap_by_id(self._snapshots.find(image, source, snapshot).id)
            else:
                self._pool.check_unused(image, source, what, may_read=True)
            self._pool.check_replaceable(volume, what)
            content = content_of(image, lambda: self._pool.translated(what, source))
            self._pool.check_room(sum(length for _, length in content.extents), what)
            with self._pool.work_image(volume, content.size_bytes, what) as work:
                copy_content(content, work.image, progress)
                self._pool.place(work, volume, what)

    @contextmanager
    def content(self, volume: str, snapshot: str | None, progress: Progress) -> Iterator[Content]:
        what = f"read volume {volume!r}"
        with ExitStack() as stack:
            with self._pool.translated(what, volume):
                rbd_link.check_whole(self._pool, volume, what)
                image = stack.enter_context(self._pool.opened(volume, what))
                if snapshot is not None:
                    image.set_snap_by_id(self._snapshots.find(image, volume, snapshot).id)
                else:
                    self._pool.check_unused(image, volume, what, may_read=True)
                content = content_of(image, lambda: self._pool.translated(what, volume))
            yield content

    def take_in(
        self, volume: str, content: Content, kind: Literal["disk", "file"], progress: Progress
    ) -> None:
        what = f"write volume {volume!r}"
        size = _rounded(content.size_bytes) if kind == "disk" else content.size_bytes
        with self._pool.translated(what, volume):
            self._pool.check_replaceable(volume, what)
            self._pool.check_room(sum(length for _, length in content.extents), what)
            with self._pool.work_image(volume, size, what) as work:
                copy_content(content, work.image, progress)
                self._pool.place(work, volume, what)

    def export(
        self,
        volume: str,
        snapshot: str | None,
        path: str,
        format_: ExportFormat,
        progress: Progress,
    ) -> None:
        with self.content(volume, snapshot, no_progress) as content:
            image_export.export(content, path, format_, f"export volume {volume!r}", progress)

    # -- what a volume takes

    def flatten(self, volume: str, progress: Progress) -> None:
        what = f"flatten volume {volume!r}"
        with self._pool.translated(what, volume):
            rbd_link.check_whole(self._pool, volume, what)
            with self._pool.opened(volume, what, read_only=False) as image:
                above = parent_id(image)
                if above is not None:
                    taken = sum(length for _, length in extents(image, None, parents=True))
                    self._pool.check_room(taken, what)
                    flatten(image, progress)
            # Of one that is flat already a process may have died before this.
            self._bases.sweep_hidden(above, thorough=above is None)

    def sparsify(self, volume: str) -> None:
        what = f"sparsify volume {volume!r}"
        with (
            self._pool.translated(what, volume),
            self._pool.opened(volume, what, read_only=False) as image,
        ):
            # In whole blocks of the OSDs: each object is seen to by itself, between two writes.
            image.sparsify(SPARSE_BYTES)

    # -- bringing files in and out

    def import_file(
        self,
        location: str,
        volume: str,
        content: Literal["disk", "iso", "file"],
        sha256: str,
        progress: Progress,
    ) -> Imported:
        what = f"import {location!r}"
        check_sha256(sha256, what)
        with self._pool.translated(what, volume):
            # Before anything is fetched, not after hours of it.
            self._pool.check_replaceable(volume, what)
            self._pool.check_room(0, what)
            return rbd_import.import_file(self._pool, location, volume, content, sha256, progress)

    def link(self, location: str, volume: str, progress: Progress) -> Imported:
        with self._pool.translated(f"import {location!r} at once", volume):
            return rbd_link.link(self._pool, location, volume, progress)

    def fill(self, volume: str, sha256: str, progress: Progress) -> None:
        what = f"bring in the data of volume {volume!r}"
        check_sha256(sha256, what)
        with self._pool.translated(what, volume):
            rbd_link.fill(self._pool, volume, sha256, progress)

    def withdraw(self, volume: str) -> None:
        with self._pool.translated(f"take back volume {volume!r}", volume):
            rbd_link.withdraw(self._pool, volume)

    def write_file(self, volume: str, data: bytes) -> None:
        what = f"write volume {volume!r}"
        with self._pool.translated(what, volume):
            self._pool.check_room(len(data), what)
            with self._pool.work_image(volume, len(data), what) as work:
                if data:
                    work.image.write(data, 0)
                self._pool.place(work, volume, what)

    def read_file(self, volume: str, limit_bytes: int) -> bytes:
        with self.open_read(volume) as file:
            data = file.read(limit_bytes + 1)
        if len(data) > limit_bytes:
            raise Invalid(
                f"cannot read volume {volume!r}: it has more than {limit_bytes} bytes; it is not"
                " the small file that was expected",
                volume=volume,
            )
        return data

    def open_read(self, volume: str) -> BinaryIO:
        what = f"read volume {volume!r}"
        with ExitStack() as stack, self._pool.translated(what, volume):
            image = stack.enter_context(self._pool.opened(volume, "read"))
            kept = stack.pop_all()
            reader = ImageReader(image, lambda: self._pool.translated(what, volume), kept.close)
        return io.BufferedReader(reader, 1024**2)

    # -- changing volumes

    def grow(self, volume: str, size_bytes: int) -> None:
        what = f"grow volume {volume!r}"
        size = _checked_size(size_bytes, what)
        with self._pool.translated(what, volume):
            with self._pool.opened(volume, "grow") as image:
                now = int(image.size())
            if size < now:
                raise Invalid(
                    f"cannot {what} to {size_bytes} bytes: it has {now} already, and making it"
                    " smaller would cut data off",
                    volume=volume,
                    size_bytes=now,
                )
            if size > now:
                self._pool.check_room(0, what)
                with self._pool.claimed(volume, what) as image:
                    image.resize(size)

    def make_base(self, volume: str, base: str) -> None:
        what = f"make the base {base!r} of volume {volume!r}"
        with self._pool.translated(what, volume):
            self._bases.make(volume, base, what)

    def unmake_base(self, volume: str, base: str) -> None:
        what = f"take back the base {base!r} of volume {volume!r}"
        with self._pool.translated(what, volume):
            self._bases.unmake(volume, base, what)

    # -- snapshots

    def snapshot(self, volumes: Sequence[str], snapshot: str) -> None:
        what = f"take snapshot {snapshot!r} of {', '.join(volumes)}"
        with self._pool.translated(what):
            self._pool.check_room(0, what)
            self._snapshots.take(volumes, snapshot)

    def rollback(self, volumes: Sequence[str], snapshot: str) -> None:
        with self._pool.translated(f"roll {', '.join(volumes)} back to snapshot {snapshot!r}"):
            self._snapshots.rollback(volumes, snapshot)

    def drop_snapshot(self, volumes: Sequence[str], snapshot: str) -> None:
        with self._pool.translated(f"delete snapshot {snapshot!r} of {', '.join(volumes)}"):
            self._snapshots.drop(volumes, snapshot)

    # -- deleting

    def trash(self, volume: str) -> None:
        what = f"delete volume {volume!r}"
        with self._pool.translated(what, volume):
            self._pool.settle(checked(volume))
            try:
                with self._pool.opened(volume, "delete") as image:
                    self._pool.check_unused(image, volume, what)
            except NotFound:
                if self._pool.in_trash(volume) is None:
                    raise
                return
            except librbd().OSError:
                if not rbd_link.is_shut(self._pool, volume):
                    raise
            self._pool.move_to_trash(volume)

    def restore(self, volume: str) -> None:
        with self._pool.translated(f"restore volume {volume!r}", volume):
            self._pool.settle(checked(volume))
            image_id = self._pool.in_trash(volume)
            if image_id is not None:
                rbd = librbd()
                try:
                    rbd.RBD().trash_restore(self._pool.ioctx(), image_id, volume)
                except rbd.ImageExists as exc:
                    raise self._pool.taken(
                        volume, f"restore volume {volume!r}", "there is a newer one of that name"
                    ) from exc
            else:
                with self._pool.opened(volume, "restore"):
                    pass

    def purge(self, volume: str) -> None:
        what = f"delete volume {volume!r} for good"
        rbd = librbd()
        with self._pool.translated(what, volume):
            above = None
            self._pool.settle(checked(volume))
            rbd_link.discard(self._pool, volume, what)
            try:
                image_id = self._pool.id_of(volume, what) or self._pool.in_trash(volume)
            except rbd.OSError:
                if not rbd_link.is_shut(self._pool, volume):
                    raise
                self._pool.remove(volume)
                image_id = None
            if image_id is None:
                self._pool.clear_stump(volume, what)
            elif self._is_rest(volume, image_id, what):
                self._pool.remove_from_trash(image_id)
                image_id = None
            else:
                with self._pool.opened(volume, what, image_id=image_id) as image:
                    self._pool.check_unused(image, volume, what)
                    above = parent_id(image)
                    bare = not list(image.list_snaps()) and not image.group()["name"]
                standing = False
                if not bare:
                    with self._pool.opened(
                        volume, what, image_id=image_id, read_only=False
                    ) as image:
                        self._snapshots.drop_all(image)
                        # Those that are left are RBD's own, kept for clones.
                        standing = bool(list(image.list_snaps()))
                if standing:
                    self._bases.hide(volume, image_id)
                elif image_id in self._pool.trash_names():
                    self._pool.remove_from_trash(image_id)
                else:
                    self._pool.remove(volume)
            self._pool.sweep_work(volume, wait=True)
            # One that is not there was removed by a process that may have come no further.
            self._bases.sweep_hidden(above, thorough=image_id is None)

    def _is_rest(self, volume: str, image_id: str, what: str) -> bool:
        """All that is left of an image whose removal was cut off is its entry in the trash."""
        with suppress(NotFound), self._pool.opened(volume, what, image_id=image_id):
            return False
        return image_id in self._pool.trash_names()

    # -- looking

    def locate(self, volume: str) -> Source:
        with self._pool.translated(f"locate volume {volume!r}", volume):
            with self._pool.opened(volume, "locate"):
                pass
            address = self._pool.address
            return RbdSource(
                pool=address.pool,
                namespace=address.namespace,
                image=volume,
                monitors=self.monitors(),
                user=address.user,
                secret=self._secret_id(),
            )

    def holders(self, volume: str) -> tuple[Holder, ...]:
        """Everybody who has it open for writing, and whose the lock is."""
        with (
            self._pool.translated(f"see who uses volume {volume!r}", volume),
            self._pool.opened(volume, "see who uses") as image,
        ):
            return self._pool.holders(image)

    def ensure_unused(self, volume: str) -> None:
        what = f"use volume {volume!r}"
        with (
            self._pool.translated(f"see who uses volume {volume!r}", volume),
            self._pool.opened(volume, what) as image,
        ):
            self._pool.check_unused(image, volume, what)

    def secret(self) -> HostSecret:
        with self._pool.translated("read the key of its Ceph user"):
            user = f"client.{self._pool.address.user}"
            return HostSecret(self._secret_id(), f"{user} of {self._pool.fsid()}", self._key())

    def monitors(self) -> tuple[str, ...]:
        """host:port of each, as a client without a configuration file needs them.

        Version 2 of the protocol is spoken at port 3300; a monitor that has it is named by that.
        """
        kept = self._monitors
        if kept is None or time.monotonic() - kept[0] > _MONITORS_AGE_S:
            found = []
            for one in self._pool.ask(prefix="mon dump")["mons"]:
                by_type = {each["type"]: each["addr"] for each in one["public_addrs"]["addrvec"]}
                address = by_type.get("v2") or by_type.get("v1") or by_type.get("any")
                if address:
                    found.append(str(address))
            kept = self._monitors = (time.monotonic(), tuple(found))
        return kept[1]

    def info(self, volume: str) -> VolumeInfo:
        with (
            self._pool.translated(f"look at volume {volume!r}", volume),
            self._pool.opened(volume, "look at") as image,
        ):
            return _info(image, volume, trashed=False)

    def list(self) -> tuple[VolumeInfo, ...]:
        with self._pool.translated("list the volumes"):
            found = [
                (name, key, name.startswith(HIDDEN))
                for name, key in self._pool.names().items()
                if not name.startswith(WORK)
            ]
            found += [(name, key, True) for key, name in self._pool.trash_names().items()]
            # What time goes into is waiting for Ceph.
            with ThreadPoolExecutor(_LOOKS_AT_ONCE, thread_name_prefix="rbd") as executor:
                infos = list(executor.map(lambda one: self._look(*one), found))
        return tuple(sorted((one for one in infos if one is not None), key=lambda one: one.name))

    def _look(self, name: str, image_id: str, trashed: bool) -> VolumeInfo | None:
        rbd = librbd()
        shown = volume_name(name)
        header = rbd_link.header_of(self._pool, name, image_id)
        if header is not None and header.linked and not header.told:
            return VolumeInfo(shown, header.size_bytes, 0, "unreadable", trashed=trashed)
        try:
            image = rbd.Image(self._pool.ioctx(), image_id=image_id, read_only=True)
        except rbd.ImageNotFound:
            # Deleted while we look; or half made, and then it must stay in view.
            if name not in self._pool.names():
                return None
            return VolumeInfo(shown, 0, 0, "unreadable", trashed=trashed)
        except rbd.OSError:
            # What it takes its data from is silent; where Ceph is, this fails as well.
            size = 0 if header is None else header.size_bytes
            return VolumeInfo(shown, size, 0, "unreadable", trashed=trashed)
        with image:
            return _info(image, shown, trashed=trashed)

    def usage(self) -> PoolUsage:
        infos = self.list()
        with self._pool.translated("look at its room"):
            room = self._pool.room()
        return PoolUsage(
            capacity_bytes=room.capacity_bytes,
            free_bytes=room.free_bytes,
            used_bytes=sum(one.used_bytes for one in infos),
            provisioned_bytes=sum(one.size_bytes for one in infos),
        )

    def health(self) -> StorageHealth | None:
        with self._pool.translated("ask Ceph how it is"):
            return read_status(self._pool.ask(prefix="status"))

    def room(self) -> Room:
        with self._pool.translated("look at its room"):
            return self._pool.room()

    # -- beyond the port

    def note(self, volume: str, key: str, text: str) -> None:
        """Keep a text on the image itself ("" removes it), whether a guest runs on it or not."""
        if not re.fullmatch(r"[a-z][A-Za-z0-9._-]{0,126}", key) or key in _OWN_NOTES:
            raise Invalid(f"cannot note {key!r} on volume {volume!r}: use a-z, 0-9, '.' and '-'")
        if not volume:
            self._note_on_pool(key, text)
            return
        with self._pool.translated(f"note {key!r} on volume {volume!r}", volume):
            self._pool.set_metadata(volume, NOTE + key, text)

    def _note_on_pool(self, key: str, text: str) -> None:
        rbd = librbd()
        with self._pool.translated(f"note {key!r} on pool {self.pool!r}"):
            if text:
                rbd.RBD().pool_metadata_set(self._pool.ioctx(), NOTE + key, text)
            else:
                with suppress(KeyError):
                    rbd.RBD().pool_metadata_remove(self._pool.ioctx(), NOTE + key)

    def notes(self, volume: str) -> dict[str, str]:
        if not volume:
            with self._pool.translated(f"read the notes of pool {self.pool!r}"):
                found = dict(librbd().RBD().pool_metadata_list(self._pool.ioctx()))
            return {
                key.removeprefix(NOTE): text
                for key, text in sorted(found.items())
                if key.startswith(NOTE)
            }
        with (
            self._pool.translated(f"read the notes of volume {volume!r}", volume),
            self._pool.opened(volume, "read the notes of") as image,
        ):
            texts = dict(image.metadata_list())
        return {
            key.removeprefix(NOTE): text
            for key, text in sorted(texts.items())
            if key.startswith(NOTE) and key.removeprefix(NOTE) not in _OWN_NOTES
        }

    def secret_of(self) -> tuple[str, str]:
        """(UUID, key) of the libvirt secret by which every host opens this pool's images."""
        secret = self.secret()
        return secret.id, secret.key

    def _secret_id(self) -> str:
        name = f"{self._pool.fsid()}/client.{self._pool.address.user}"
        return str(uuid.uuid5(_SECRET_ROOT, name))

    def _key(self) -> str:
        entity = f"client.{self._pool.address.user}"
        key = self._pool.option("key")
        if key:
            return key
        files = [(self._pool.option("keyfile"), "")]
        files += [(path.strip(), entity) for path in re.split("[,;]", self._pool.option("keyring"))]
        for path, section in files:
            with suppress(OSError):
                found = _key_in(Path(path).read_text(), section) if path else ""
                if found:
                    return found
        raise BadConfig(
            f"cannot read the key of {entity}: no keyring that this user may read has it; see"
            f" `keyring` in {self._pool.address.conf}"
        )


def _key_in(text: str, section: str) -> str:
    """The key of a keyring's section; with no section, all of a key file."""
    if not section:
        return text.strip()
    here = False
    for line in text.splitlines():
        words = line.strip()
        if words.startswith("["):
            here = words == f"[{section}]"
        elif here and words.partition("=")[0].strip() == "key":
            return words.partition("=")[2].strip()
    return ""


def _info(image: Any, name: str, *, trashed: bool) -> VolumeInfo:
    return VolumeInfo(
        name=name,
        size_bytes=int(image.size()),
        used_bytes=_used_bytes(image),
        format="raw",
        base=_base_name(image),
        snapshots=tuple(dict.fromkeys(one.name for one in snapshots_of(image))),
        trashed=trashed,
    )


def _base_name(image: Any) -> str | None:
    try:
        return volume_name(image.get_parent_image_spec()["image_name"])
    except librbd().ImageNotFound:
        return None


def _used_bytes(image: Any) -> int:
    """In whole objects, as their maps say: no object is looked at.

    What a snapshot alone still holds is counted with it, except for a group's, which librbd 16
    cannot compare with what came after.
    """
    rbd = librbd()
    used = sum(_objects(image, None).values())
    plain = [
        one
        for one in sorted(image.list_snaps(), key=lambda one: int(one["id"]))
        if one["namespace"] == rbd.RBD_SNAP_NAMESPACE_TYPE_USER
    ]
    for number, one in enumerate(plain):
        image.set_snap_by_id(one["id"])
        held = _objects(image, None)
        if number + 1 == len(plain):
            image.set_snap(None)
        else:
            image.set_snap_by_id(plain[number + 1]["id"])
        changed, size = _objects(image, one["name"]), image.size()
        used += sum(held[at] for at in held if at in changed or at >= size)
    return used


def _objects(image: Any, since: str | None) -> dict[int, int]:
    """Offset → length of each object that was written."""
    count = int(image.stat()["obj_size"])
    return {
        start: min(count, offset + length - start)
        for offset, length in extents(image, since, parents=False)
        for start in range(offset, offset + length, count)
    }


def _rounded(size_bytes: int) -> int:
    return (size_bytes + SECTOR - 1) // SECTOR * SECTOR


def _checked_size(size_bytes: int, what: str) -> int:
    if not 0 < size_bytes <= LARGEST_BYTES:
        raise Invalid(
            f"cannot {what} with {size_bytes} bytes: a disk has from 1 byte to 64 TiB; choose a"
            " size in that range"
        )
    return _rounded(size_bytes)
