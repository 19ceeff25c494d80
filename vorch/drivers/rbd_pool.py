"""One RBD pool through librbd: its images by name, who else has them open, and taking them away.

    NAME                  a volume
    .work~NAME~TOKEN      what is being written; it gets its name when it is whole
    .hidden~NAME~ID       deleted, but clones still stand on it; in the trash, as deleted ones are

    snapshot .base        what linked clones stand on; a person's snapshots never begin with a dot

RBD hands its exclusive lock over between live clients, so the lock keeps nobody out. What does is
asking first: an open image has a watcher, and nothing is taken from under one. A client that was
killed leaves its watcher behind for some 30 s, which are waited for when nobody answers there.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from vorch.drivers.rados_connection import (
    TIMEOUT_S,
    CephAddress,
    RadosCluster,
    abandon,
    ceph_address,
    kept_cluster,
    translate,
)
from vorch.drivers.rbd_names import packed, settle
from vorch.errors import BadConfig, Conflict, Invalid, NoRoom, NotFound, Unreachable, VorchError
from vorch.model import Holder, Room

BASE_SNAPSHOT = ".base"
WORK = ".work~"
HIDDEN = ".hidden~"
# `rbd trash purge` of an administrator leaves alone what vorch deleted less than a day ago.
TRASH_DELAY_S = 24 * 3600
# A full Ceph stops every VM in the pool, so the last part is never given out.
RESERVE_BYTES = 32 * 1024**2
# Taking a snapshot or reading a header takes another process a moment: that is no conflict.
GRACE_S = 1.0
# An OSD drops the watch of a dead client after 30 s, a busy one later.
LAPSE_S = 60.0
ANSWER_MS = 2000
# How long the figures of a new pool may be missing.
NEW_POOL_TIMEOUT_S = 15.0
ROOM_AGE_S = 2.0
_MAP_PIECE_BYTES = 1024**2

_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_VOLUME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


def rbd_address(url: str) -> CephAddress:
    """What rbd://POOL[/NAMESPACE]?conf=/path/ceph.conf&id=vorch says."""
    address = ceph_address(url)
    # These go on into the XML of domains, where a slash parts them.
    parts = (address.pool, address.user, *([address.namespace] if address.namespace else []))
    if not url.startswith("rbd:") or not all(map(_PART.fullmatch, parts)):
        raise BadConfig(
            f"cannot use {url!r} as a pool: write it as in"
            " rbd://vms?conf=/etc/ceph/ceph.conf&id=vorch, with letters, digits, '.', '_' and '-'"
            " in its names"
        )
    return address


def librbd() -> Any:
    try:
        import rbd
    except ImportError as exc:
        raise BadConfig(
            "cannot use Ceph: the Python module 'rbd' is not there; install the distribution's"
            " python3-rbd (and python3-rados)"
        ) from exc
    return rbd


def features() -> int:
    rbd = librbd()
    return int(
        rbd.RBD_FEATURE_LAYERING
        | rbd.RBD_FEATURE_EXCLUSIVE_LOCK
        | rbd.RBD_FEATURE_OBJECT_MAP
        | rbd.RBD_FEATURE_FAST_DIFF
        | rbd.RBD_FEATURE_DEEP_FLATTEN
    )


def volume_name(image: str) -> str:
    """The volume that a hidden image was; any other image's own name."""
    return image.removeprefix(HIDDEN).partition("~")[0] if image.startswith(HIDDEN) else image


def extents(image: Any, since: str | None, *, parents: bool) -> list[tuple[int, int]]:
    """(offset, length) of what was written, in whole objects, off the object map alone.

    With `parents`, what shows through from a base counts, too. Parts that were discarded since
    are in the list when `since` is given: they are changes.
    """
    size = image.size()
    found: list[tuple[int, int]] = []
    # librbd ends the whole process when it is asked this of an image without any object.
    if size > 0:

        def see(offset: int, length: int, exists: bool) -> None:
            if exists or since is not None:
                found.append((offset, length))

        image.diff_iterate(0, size, since, see, parents, True)
    return found


class RbdPool:
    def __init__(
        self,
        name: str,
        address: CephAddress,
        *,
        timeout_s: float = TIMEOUT_S,
        reserve_bytes: int = RESERVE_BYTES,
    ) -> None:
        self.name = name
        self.address = address
        self._reserve_bytes = reserve_bytes
        self._cluster = kept_cluster(address.conf, address.user, timeout_s)
        self._lock = threading.Lock()
        self._closed = False
        self._generation = -1
        self._ioctx: Any = None
        self._room: tuple[float, Room] | None = None

    # -- the connection

    @contextmanager
    def translated(self, what: str, volume: str = "") -> Iterator[None]:
        """Within it, Ceph's errors become the `VorchError`s that the table says."""
        rbd = librbd()
        handle = self._cluster.handle
        try:
            import rados
        except ImportError:
            handle()  # says what is missing
            raise
        try:
            yield
        except (rados.Error, rbd.Error) as exc:
            named = {"volume": volume} if volume else {}
            told = translate(f"{what} in pool {self.name!r}", exc, pool=self.name, **named)
            self._cluster.failed |= isinstance(told, Unreachable)
            raise told from exc

    def ioctx(self) -> Any:
        """One of our own: what is set on it must not reach others."""
        with self._lock:
            handle = self._cluster.handle()
            if self._ioctx is None or self._generation != self._cluster.generation:
                if self._ioctx is not None:
                    # Of a connection that is gone, or of the process that this one came from.
                    abandon(self._ioctx)
                # Clones of version 2: no protected snapshots, and a base can be deleted first.
                handle.conf_set("rbd_default_clone_format", "2")
                # The connection may be older than the pool, which was then made anew.
                handle.wait_for_latest_osdmap()
                ioctx = handle.open_ioctx(self.address.pool)
                ioctx.set_namespace(self.address.namespace)
                # A full pool is to answer, not to wait until somebody makes room.
                ioctx.set_osdmap_full_try()
                _make_trash(ioctx)
                self._ioctx, self._generation = ioctx, self._cluster.generation
            return self._ioctx

    @contextmanager
    def apart(self, **options: str) -> Iterator[Any]:
        """The pool by a connection of its own, on which librbd has other settings."""
        cluster = RadosCluster(self.address.conf, self.address.user, self._cluster.timeout_s)
        try:
            # No variable keeps the connection: who still has it is waited for when it is closed.
            for name, value in options.items():
                cluster.handle().conf_set(name, value)
            with cluster.handle().open_ioctx(self.address.pool) as ioctx:
                ioctx.set_namespace(self.address.namespace)
                ioctx.set_osdmap_full_try()
                yield ioctx
        finally:
            cluster.close()

    def ask(self, **command: str) -> Any:
        """A question to the monitors, and their answer."""
        text = json.dumps({**command, "format": "json"})
        handle = self._cluster.handle()
        status, output, words = handle.mon_command(text, b"", timeout=int(self._cluster.timeout_s))
        if status:
            exc = OSError(-status, words)
            exc.errno = abs(status)
            raise translate(f"ask the monitors for {command['prefix']!r}", exc) from exc
        return json.loads(output)

    def client(self) -> int:
        return int(self._cluster.handle().get_instance_id())

    def fsid(self) -> str:
        return str(self._cluster.handle().get_fsid())

    def option(self, name: str) -> str:
        return str(self._cluster.handle().conf_get(name) or "")

    def close(self) -> None:
        with self._lock:
            ioctx, self._ioctx = self._ioctx, None
            closed, self._closed = self._closed, True
        if ioctx is not None:
            ioctx.close()
            del ioctx
        if not closed:
            self._cluster.release()

    # -- room

    def room(self) -> Room:
        with self._lock:
            kept = self._room
        if kept is not None and time.monotonic() - kept[0] < ROOM_AGE_S:
            return kept[1]
        pool = self.address.pool
        # Of one that was just made, Ceph has no figures for some seconds; this one is there.
        self.ioctx()
        until = time.monotonic() + NEW_POOL_TIMEOUT_S
        while True:
            pools = {one["name"]: one["stats"] for one in self.ask(prefix="df")["pools"]}
            stats = pools.get(pool)
            if stats is not None:
                break
            if time.monotonic() > until:
                raise Unreachable(
                    f"cannot look at pool {self.name!r}: Ceph has no figures for its pool"
                    f" {pool!r} yet; see that a manager runs (ceph status) and try again"
                )
            time.sleep(0.2)
        free, stored = int(stats["max_avail"]), int(stats["stored"])
        quota = self.ask(prefix="osd pool get-quota", pool=pool)
        limit = int(quota["quota_max_bytes"])
        if limit:
            free = min(free, max(0, limit - int(quota.get("current_num_bytes", stored))))
        if quota["quota_max_objects"] and (
            int(quota.get("current_num_objects", 0)) >= int(quota["quota_max_objects"])
        ):
            free = 0
        room = Room(capacity_bytes=stored + free, free_bytes=free)
        with self._lock:
            self._room = (time.monotonic(), room)
        return room

    def check_room(self, needed_bytes: int, what: str) -> None:
        free = self.room().free_bytes
        if needed_bytes + self._reserve_bytes > free:
            raise NoRoom(
                f"cannot {what}: it needs {_mib(needed_bytes)} in pool {self.name!r}, where"
                f" {_mib(max(0, free - self._reserve_bytes))} are free (besides"
                f" {_mib(self._reserve_bytes)} kept back); delete something, raise the quota or"
                " use another pool",
                pool=self.name,
                needed_bytes=needed_bytes,
                free_bytes=free,
            )

    # -- images

    @contextmanager
    def opened(
        self, volume: str, what: str, *, read_only: bool = True, image_id: str | None = None
    ) -> Iterator[Any]:
        """A volume that is there, or an image by its id. Reading leaves no trace on the image."""
        rbd = librbd()
        ioctx = self.ioctx()
        if not read_only:
            self._let_go(checked(volume) if image_id is None else None, image_id)
        try:
            if image_id is None:
                image = rbd.Image(ioctx, checked(volume), read_only=read_only)
            else:
                image = rbd.Image(ioctx, image_id=image_id, read_only=read_only)
        except rbd.ImageNotFound as exc:
            raise self.not_found(volume, what) from exc
        try:
            yield image
        finally:
            image.close()

    def _let_go(self, image: str | None, image_id: str | None = None) -> None:
        """Give back a lock that this client got after it had given up waiting for it.

        No opening knows of it, and librbd never breaks a lock that is its own client's: nothing
        that needs the lock would work in this process any more. A lock without a watch is such a
        one, since whoever opens an image watches it before he asks for its lock.
        """
        if not self._cluster.failed:
            return
        import rados

        rbd = librbd()
        own, ioctx = self.client(), self.ioctx()
        with (
            suppress(rbd.ImageNotFound, rados.ObjectNotFound),
            rbd.Image(ioctx, image, image_id=image_id, read_only=True) as opened,
        ):
            lockers = opened.list_lockers()
            for client, cookie, _ in lockers.get("lockers", []) if lockers else []:
                mine = client == f"client.{own}" and cookie.startswith("auto ")
                if mine and all(int(one["id"]) != own for one in opened.watchers_list()):
                    ioctx.unlock(f"rbd_header.{opened.id()}", "rbd_lock", cookie)

    def set_metadata(self, volume: str, key: str, text: str) -> None:
        """Of an image that may be in use ("" removes it), by the same class call as librbd's own.

        librbd does it only on an image that it has opened for writing. Then we would be among those
        that have the disk of a running VM open, and take part in handing its lock round: in the
        middle of a live migration librbd was seen to end the whole process at the close.
        """
        import rados

        ioctx = self.ioctx()
        try:
            header = f"rbd_header.{self.id_past_librbd(checked(volume))}"
            if text:
                # A map of one entry.
                data = struct.pack("<I", 1) + packed(key) + packed(text)
                ioctx.execute(header, "rbd", "metadata_set", data)
            else:
                ioctx.execute(header, "rbd", "metadata_remove", packed(key))
        except rados.ObjectNotFound as exc:
            raise self.not_found(volume, "note something on") from exc

    def id_past_librbd(self, name: str) -> str:
        """Which image has a name, without opening it. rados.ObjectNotFound when none has."""
        # Before the id stands its length.
        return str(self.ioctx().read(f"rbd_id.{name}", 256)[4:].decode("ascii"))

    def not_found(self, volume: str, what: str) -> NotFound:
        trashed = self.in_trash(volume) is not None
        where = "it is in the trash; restore it" if trashed else "it is not there"
        return NotFound(
            f"cannot {what} volume {volume!r} in pool {self.name!r}: {where}",
            pool=self.name,
            volume=volume,
        )

    def names(self) -> dict[str, str]:
        """Image name → id, of all that is not in the trash."""
        return {one["name"]: one["id"] for one in librbd().RBD().list2(self.ioctx())}

    def trash_names(self) -> dict[str, str]:
        """Image id → name, of all that is in the trash."""
        return {one["id"]: one["name"] for one in librbd().RBD().trash_list(self.ioctx())}

    def in_trash(self, volume: str) -> str | None:
        """The id of the volume of that name in the trash."""
        return next((key for key, name in self.trash_names().items() if name == volume), None)

    def check_name_free(self, volume: str, what: str) -> None:
        if self.in_trash(volume) is not None:
            raise self.taken(volume, what, "one of that name is in the trash")

    def taken(self, volume: str, what: str, why: str) -> Conflict:
        return Conflict(
            f"cannot {what}: {why} of pool {self.name!r}; choose another name, or delete that one"
            " for good",
            pool=self.name,
            volume=volume,
        )

    def make(self, image: str, size_bytes: int) -> None:
        """An empty image. `rbd.ImageExists` when there is one, however little of it."""
        librbd().RBD().create(
            self.ioctx(), image, size_bytes, old_format=False, features=features()
        )

    def clear_stump(self, volume: str, what: str) -> bool:
        """Remove an image that is only a name, as a crash in the middle of its making leaves."""
        self.settle(volume)
        with suppress(NotFound), self.opened(volume, what):
            return False
        # A removal that was killed takes more than one try: each does away with another rest.
        for _ in range(5):
            image_id = self.names().get(volume)
            with suppress(NotFound), self.opened(volume, what, image_id=image_id or "-") as image:
                self.check_unused(image, volume, what)
            self.remove(volume)
            if volume not in self.names():
                break
        return True

    def settle(self, *names: str) -> None:
        """Before it is concluded what was done: see `rbd_names`."""
        settle(self.ioctx(), names)

    def rename(self, image: str, volume: str, what: str) -> None:
        rbd = librbd()
        self.settle(volume)
        self._let_go(image)
        try:
            rbd.RBD().rename(self.ioctx(), image, volume)
        except rbd.ImageExists as exc:
            raise self.taken(volume, what, "there is another one of that name") from exc
        # librbd says that it is done, too, when it could not take the old name away.
        self.settle(image)

    def remove(self, image: str) -> None:
        """For good. One whose removal was cut off is not there by name any more, but rests of it
        are, which librbd finds by the same name.
        """
        rbd = librbd()
        self.settle(image)
        self._let_go(image)
        with self._not_in_the_way(f"remove {image!r}", image):
            try:
                rbd.RBD().remove(self.ioctx(), image)
            except rbd.ImageNotFound:
                # It says so, too, when what it asked for has happened before it saw that.
                self.settle(image)
                with suppress(rbd.ImageNotFound):
                    rbd.RBD().remove(self.ioctx(), image)

    def remove_from_trash(self, image_id: str) -> None:
        self._let_go(None, image_id)
        with (
            self._not_in_the_way(f"remove image {image_id} for good", ""),
            suppress(librbd().ImageNotFound),
        ):
            librbd().RBD().trash_remove(self.ioctx(), image_id, True)

    @contextmanager
    def _not_in_the_way(self, what: str, volume: str) -> Iterator[None]:
        """Whoever uses it was asked for before. What librbd calls busy then is a lock that it did
        not get, or an opening that nobody has taken leave of; and part of it may have been done.
        """
        try:
            yield
        except librbd().ImageBusy as exc:
            self._cluster.failed = True
            raise Unreachable(
                f"cannot {what} in pool {self.name!r}: librbd found it in use, though nobody was"
                f" there before; look at `ceph status`, and try again (Ceph: {exc})",
                pool=self.name,
                volume=volume,
            ) from exc

    def move_to_trash(self, image: str) -> None:
        rbd = librbd()
        self.settle(image)
        self._let_go(image)
        try:
            with self._not_in_the_way(f"move {image!r} to the trash", image):
                rbd.RBD().trash_move(self.ioctx(), image, TRASH_DELAY_S)
        except rbd.ImageNotFound:
            # As with `remove`.
            if self.in_trash(image) is None:
                raise
            self.settle(image)

    def fingerprint(self, volume: str) -> bytes | None:
        """Changes whenever the image's content does for the first time since a snapshot.

        It is read past librbd, which takes ten times as long to open an image: which image has the
        name, its size, its notes, and the map in which the first write to each object is marked
        before it is done. Whoever finds it changed, or None, asks librbd.
        """
        import rados

        ioctx = self.ioctx()
        try:
            named = ioctx.read(f"rbd_id.{volume}", 256)
            image_id = named[4:].decode("ascii")
            header: list[tuple[str, bytes]] = []
            with rados.ReadOpCtx() as operation:
                fields, _ = ioctx.get_omap_vals_by_keys(
                    operation, ("size", "snap_seq", "flags", "features")
                )
                notes, _ = ioctx.get_omap_vals(operation, "", "metadata_", 64)
                ioctx.operate_read_op(operation, f"rbd_header.{image_id}")
                header += [*fields, *notes]
            parts = [named, repr(header).encode()]
            while True:
                offset = sum(map(len, parts[2:]))
                parts.append(ioctx.read(f"rbd_object_map.{image_id}", _MAP_PIECE_BYTES, offset))
                if len(parts[-1]) < _MAP_PIECE_BYTES:
                    break
        except (rados.Error, UnicodeDecodeError):
            return None
        return hashlib.sha256(b"".join(parts)).digest()

    def id_of(self, volume: str, what: str) -> str | None:
        with suppress(NotFound), self.opened(volume, what) as image:
            return str(image.id())
        return None

    # -- who else is there

    def holders(self, image: Any) -> tuple[Holder, ...]:
        """Of an image that was opened for reading, so that we are not among them."""
        owner = ""
        lockers = image.list_lockers()
        for _client, cookie, address in lockers.get("lockers", []) if lockers else []:
            # Other locks than librbd's own are advisory and mean nothing to it.
            if cookie.startswith("auto "):
                owner = address
        found = [
            Holder(one["addr"], int(one["id"]), one["addr"] == owner)
            for one in image.watchers_list()
        ]
        if owner and not any(one.owns_lock for one in found):
            found.append(Holder(owner, None, owns_lock=True))
        return tuple(found)

    def check_unused(self, image: Any, volume: str, what: str, *, may_read: bool = False) -> None:
        """`Conflict` while anybody else has it open; `image` was opened for reading.

        QEMU opens its CDs as it does its disks. With `may_read` such openings, which never wrote
        and so have no lock, are no matter.
        """

        def others() -> bool:
            if may_read:
                return any(one.owns_lock and one.client for one in self.holders(image))
            return bool(list(image.watchers_list()))

        deadline, waits_for_lapse, answered = time.monotonic() + GRACE_S, False, False
        while others():
            if time.monotonic() >= deadline:
                if not waits_for_lapse and not self._answers(image):
                    deadline, waits_for_lapse = time.monotonic() + LAPSE_S, True
                elif waits_for_lapse or answered:
                    raise self.in_use(self.holders(image), volume, what)
                else:
                    # On a busy machine one that was just killed was seen to answer.
                    deadline, answered = time.monotonic() + GRACE_S, True
            time.sleep(0.5 if waits_for_lapse else 0.05)

    def in_use(self, holders: tuple[Holder, ...], volume: str, what: str) -> Conflict:
        who = ", ".join(map(str, holders)) or "somebody"
        return Conflict(
            f"cannot {what}: volume {volume!r} in pool {self.name!r} is open at {who}; stop the VM"
            " or the process there first",
            pool=self.name,
            volume=volume,
            holders=[one.address for one in holders],
        )

    def _answers(self, image: Any) -> bool:
        """All that watch it are alive: each must answer a notification."""
        import rados

        try:
            # An empty one says "look at the header again", and does no harm.
            return bool(self.ioctx().notify(f"rbd_header.{image.id()}", "", ANSWER_MS))
        except rados.TimedOut:
            return False

    @contextmanager
    def claimed(self, volume: str, what: str) -> Iterator[Any]:
        """A volume that nobody else has open, nor gets to write to while we have it."""
        rbd = librbd()
        with self.opened(volume, what) as image:
            self.check_unused(image, volume, what)
        with self.opened(volume, what, read_only=False) as image:
            # Held like this it is not handed over, as it would be when we just wrote.
            image.lock_acquire(rbd.RBD_LOCK_MODE_EXCLUSIVE)
            own, others = self.client(), []
            for one in image.watchers_list():
                others.append(Holder(one["addr"], int(one["id"])))
            # One of them is this opening itself.
            for index, holder in enumerate(others):
                if holder.client == own:
                    del others[index]
                    break
            if others:
                raise self.in_use(tuple(others), volume, what)
            yield image

    # -- what is being made

    @contextmanager
    def work_image(self, volume: str, size_bytes: int, what: str) -> Iterator[Any]:
        """A new image to write to, which gets its name by `place`. Else nothing stays of it."""
        rbd = librbd()
        self.sweep_work(volume, wait=False)
        name = f"{WORK}{checked(volume)}~{secrets.token_hex(6)}"
        self.make(name, size_bytes)
        try:
            image = rbd.Image(self.ioctx(), name)
            try:
                yield WorkImage(name, image)
            finally:
                image.close()
        finally:
            # It has its name already, or what ails Ceph now is what we are here for; then a later
            # sweep finds it.
            with suppress(rbd.Error, VorchError):
                self.remove(name)

    def place(self, work: WorkImage, volume: str, what: str) -> None:
        """What was written becomes the volume, in the place of an earlier one."""
        work.image.flush()
        work.image.close()
        old = self.check_replaceable(volume, what)
        if old is not None:
            self.remove(volume)
        self.rename(work.name, volume, what)

    def check_replaceable(self, volume: str, what: str) -> str | None:
        """A volume may be written anew only if nothing rests on it. Its id, if there is one."""
        self.check_name_free(volume, what)
        if self.clear_stump(volume, what):
            return None
        with self.opened(volume, what) as image:
            self.check_unused(image, volume, what)
        with self.opened(volume, what, read_only=False) as image:
            snapshots = {one["name"] for one in image.list_snaps()}
            if BASE_SNAPSHOT in snapshots and not list(image.list_children2()):
                image.remove_snap(BASE_SNAPSHOT)
                snapshots.remove(BASE_SNAPSHOT)
            if list(image.list_children2()):
                raise self.taken(volume, what, "clones stand on the one that is there,")
            if snapshots:
                raise self.taken(volume, what, "the one that is there has snapshots,")
            return str(image.id())

    def sweep_work(self, volume: str | None, *, wait: bool) -> None:
        """Remove what processes that have died left half written, of one volume or of all.

        Whoever is at work has the image open but for moments; so one that nobody has open at two
        looks, a second apart, is nobody's. With `wait` dead watchers are given time to lapse.
        """
        prefix = WORK if volume is None else f"{WORK}{volume}~"
        deadline = time.monotonic() + (LAPSE_S if wait else 0)
        seen: set[str] = set()
        while True:
            names = {name: key for name, key in self.names().items() if name.startswith(prefix)}
            idle = {name for name, key in names.items() if self._is_idle(name, key)}
            for name in idle & seen:
                with suppress(librbd().Error, VorchError):
                    self.remove(name)
            seen = idle
            left = set(names) - idle
            if not idle and (not left or time.monotonic() >= deadline):
                return
            if not idle and all(self._is_alive(names[name]) for name in left):
                return
            time.sleep(1.0)

    def _is_idle(self, name: str, image_id: str) -> bool:
        with suppress(NotFound), self.opened(name, "sweep", image_id=image_id) as image:
            return not list(image.watchers_list())
        return True

    def _is_alive(self, image_id: str) -> bool:
        with suppress(NotFound), self.opened("", "sweep", image_id=image_id) as image:
            return self._answers(image)
        return False


def _make_trash(ioctx: Any) -> None:
    """RBD removes images by way of its trash, and in a full pool it could not make that."""
    import rados

    try:
        ioctx.stat("rbd_trash")
    except rados.ObjectNotFound:
        with suppress(rados.Error), rados.WriteOpCtx() as operation:
            operation.new(0)
            ioctx.operate_write_op(operation, "rbd_trash")


@dataclass(frozen=True, slots=True)
class WorkImage:
    name: str
    image: Any


def parent_id(image: Any) -> str | None:
    """The id of the image that this one is a clone of."""
    try:
        return str(image.parent_id())
    except librbd().ImageNotFound:
        return None


def checked(volume: str) -> str:
    if not _VOLUME.fullmatch(volume):
        raise Invalid(f"cannot use {volume!r} as volume name: letters, digits, '.', '_', '-'")
    return volume


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / 1024**2:,.0f} MiB"
