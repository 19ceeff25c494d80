"""Volumes in this process's memory, with their content: what clones and snapshots hold is known.

They behave as RBD images do: raw, thin, cloned copy-on-write, snapshotted while a guest writes.
What nobody may have open is refused while a domain has it, so that a caller's mistake shows.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import BinaryIO, Literal

from vorch.drivers import image_export
from vorch.drivers.memory_faults import Gate, gated, gated_waiting
from vorch.drivers.memory_pool import BLOCK_BYTES, MemoryPool, Stored, path_of
from vorch.drivers.memory_sources import Files, judge
from vorch.drivers.memory_time import wait
from vorch.errors import Conflict, Invalid, NotFound, Unsupported
from vorch.model import FileSource, Holder, PoolUsage, Room, Source, StorageHealth
from vorch.plan import ExportFormat
from vorch.ports import Content, HostSecret, Imported, Progress, VolumeInfo, no_progress


class MemoryImages:
    """The Images port on one pool, as one process of the world sees it."""

    def __init__(self, pool: MemoryPool, gate: Gate, files: Files) -> None:
        self._pool = pool
        self._gate = gate
        self._files = files

    @property
    def live_snapshots(self) -> bool:
        return self._pool.live_snapshots

    @live_snapshots.setter
    def live_snapshots(self, value: bool) -> None:
        self._pool.live_snapshots = value

    @property
    def keeps_notes(self) -> bool:
        return self._pool.keeps_notes

    @keeps_notes.setter
    def keeps_notes(self, value: bool) -> None:
        self._pool.keeps_notes = value

    # -- making volumes

    @gated
    def create(self, volume: str, size_bytes: int) -> None:
        pool = self._pool
        if size_bytes < 0:
            raise Invalid(f"cannot create volume {volume!r}: {size_bytes} bytes make no sense")
        old = pool.volumes.get(volume)
        if old is not None:
            old.settle()
            empty = not old.blocks and not old.snapshots and old.base is None
            if empty and old.whole and old.size_bytes == size_bytes:
                return
        pool.check_name_free(volume, "create")
        pool.check_room(0, f"create volume {volume!r}")
        pool.volumes[volume] = Stored(volume, size_bytes)

    @gated
    def clone(self, base: str, volume: str, size_bytes: int) -> None:
        pool = self._pool
        below = pool.find(base, "clone")
        if size_bytes < below.size_bytes:
            raise Invalid(
                f"cannot clone volume {base!r} with {size_bytes} bytes: it has {below.size_bytes};"
                " give the clone as many or more",
                volume=volume,
            )
        if below.linked and not below.lends:
            raise Conflict(
                f"cannot clone volume {base!r}: its data are still coming in, and nothing more is"
                " made of it until they are there; see `vorch task list`",
                volume=base,
            )
        if any(opening.writes for opening in below.open_by.values()) or not below.whole:
            raise Conflict(
                f"cannot clone volume {base!r} in pool {pool.name!r}: it is still being written;"
                " wait until that has ended, or take a snapshot and copy that",
                volume=base,
            )
        old = pool.volumes.get(volume)
        if old is not None and old.base is below and old.size_bytes == size_bytes:
            return
        pool.check_name_free(volume, "clone to")
        pool.check_room(0, f"clone volume {base!r}")
        pool.volumes[volume] = Stored(volume, size_bytes, base=below)

    @gated_waiting
    def copy(self, source: str, snapshot: str | None, volume: str, progress: Progress) -> None:
        pool = self._pool
        with self._gate.faults.lock:
            original = pool.find(source, "copy")
            pool.check_arrived(original, "copy")
            if snapshot is not None and snapshot not in original.snapshots:
                raise self._no_snapshot(source, snapshot)
            if source == volume:
                raise Invalid(f"cannot copy volume {source!r} to itself; choose another name")
            if snapshot is None and any(one.writes for one in original.open_by.values()):
                pool.check_closed(original, "copy")
            size_bytes = original.at(snapshot)[0]
            content = original.flattened(snapshot)
            pool.check_room(len(content) * BLOCK_BYTES, f"copy volume {source!r}")
            pool.replace(volume, "copy to")
            new = pool.volumes[volume] = Stored(volume, size_bytes, whole=False)
        self._fill(new, content, progress)

    @contextmanager
    def content(self, volume: str, snapshot: str | None, progress: Progress) -> Iterator[Content]:
        yield self.read_out(volume, snapshot)

    @gated
    def read_out(self, volume: str, snapshot: str | None) -> Content:
        return self._still(volume, snapshot)

    def _still(self, volume: str, snapshot: str | None) -> Content:
        stored = self._pool.find(volume, "read")
        self._pool.check_arrived(stored, "read")
        if snapshot is not None and snapshot not in stored.snapshots:
            raise self._no_snapshot(volume, snapshot)
        if snapshot is None and any(one.writes for one in stored.open_by.values()):
            self._pool.check_closed(stored, "read")
        size_bytes, blocks = stored.at(snapshot)[0], stored.flattened(snapshot)
        still = Stored(volume, size_bytes, blocks=blocks)
        extents = tuple((number * BLOCK_BYTES, BLOCK_BYTES) for number in blocks)
        return Content(size_bytes, extents, still.read)

    @gated_waiting
    def take_in(
        self, volume: str, content: Content, kind: Literal["disk", "file"], progress: Progress
    ) -> None:
        pool = self._pool
        new = Stored(volume, content.size_bytes)
        for offset, length in content.extents:
            for start in range(offset, min(offset + length, content.size_bytes), BLOCK_BYTES):
                data = content.read(start, min(BLOCK_BYTES, content.size_bytes - start))
                if data.strip(b"\0"):
                    new.write(start, data)
        whole, new.blocks, new.whole = new.blocks, {}, False
        with self._gate.faults.lock:
            pool.check_room(len(whole) * BLOCK_BYTES, f"write volume {volume!r}")
            pool.replace(volume, "write")
            pool.volumes[volume] = new
        self._fill(new, whole, progress)

    @gated_waiting
    def export(
        self,
        volume: str,
        snapshot: str | None,
        path: str,
        format_: ExportFormat,
        progress: Progress,
    ) -> None:
        with self._gate.faults.lock:
            content = self._still(volume, snapshot)
        image_export.export(content, path, format_, f"export volume {volume!r}", progress)

    @gated_waiting
    def flatten(self, volume: str, progress: Progress) -> None:
        with self._gate.faults.lock:
            stored = self._find(volume, "flatten")
            self._pool.check_arrived(stored, "flatten")
            below = stored.base
            if below is None:
                return
            self._pool.check_room(below.used_bytes, f"flatten volume {volume!r}")
        self._gate.midway()
        progress(50.0)
        with self._gate.faults.lock:
            # Snapshots, too, stand on nothing any more, as RBD's deep-flatten has it.
            stored.snapshots = {
                name: (size, stored.flattened(name)) for name, (size, _) in stored.snapshots.items()
            }
            stored.blocks = stored.flattened()
            stored.base = None
            if below in self._pool.hidden:
                self._pool.delete(below)
        progress(100.0)

    @gated
    def sparsify(self, volume: str) -> None:
        stored = self._find(volume, "sparsify")
        stored.blocks = {
            number: block
            for number, block in stored.blocks.items()
            if block or (stored.base is not None and stored.base.block(number))
        }

    def _fill(self, new: Stored, content: Mapping[int, bytes], progress: Progress) -> None:
        """In two halves, so that who is killed or cancelled in between leaves a partial volume."""
        numbers = list(content)
        middle = len(numbers) // 2
        for percent, part in ((75.0, numbers[:middle]), (100.0, numbers[middle:])):
            new.blocks.update({number: content[number] for number in part})
            if percent < 100:
                self._gate.midway()
                progress(percent)
        new.whole = True
        progress(100.0)

    @gated_waiting
    def import_file(
        self,
        location: str,
        volume: str,
        content: Literal["disk", "iso", "file"],
        sha256: str,
        progress: Progress,
    ) -> Imported:
        pool = self._pool
        data = self._files.fetch(location, progress)
        found = hashlib.sha256(data).hexdigest()
        if sha256 and sha256.lower() != found:
            raise Invalid(
                f"cannot import {location!r}: its SHA-256 is {found}, not {sha256.lower()} as it"
                " should be; get it again, or correct the checksum",
                expected=sha256.lower(),
                found=found,
            )
        kind, size_bytes, data = judge(location, data, content)
        new = Stored(volume, size_bytes)
        new.first_bytes(data)
        whole, new.blocks, new.whole = new.blocks, {}, False
        with self._gate.faults.lock:
            pool.check_room(len(whole) * BLOCK_BYTES, f"import {location!r}")
            pool.replace(volume, "import")
            pool.volumes[volume] = new
        self._fill(new, whole, progress)
        return Imported(size_bytes, kind, found)

    @gated_waiting
    def link(self, location: str, volume: str, progress: Progress) -> Imported:
        """What is there is kept; that it is not in the pool yet is only noted."""
        pool, what = self._pool, f"import {location!r} at once"
        if not pool.live_snapshots:
            raise Unsupported(
                f"cannot {what}: only a pool that is like Ceph can show data that are still coming"
                " in; import it without --at-once"
            )
        data = self._files.fetch(location, progress)
        kind, size_bytes, disk = judge(location, data, "disk")
        if kind not in ("raw", "qcow2"):
            raise Unsupported(
                f"cannot {what}: {kind} images are not read in this way; import it without"
                " --at-once"
            )
        new = Stored(volume, size_bytes, linked=location, link_sum=hashlib.sha256(data).hexdigest())
        new.first_bytes(disk)
        with self._gate.faults.lock:
            pool.check_room(0, what)
            pool.replace(volume, "import")
            pool.volumes[volume] = new
        return Imported(size_bytes, kind, "")

    @gated_waiting
    def fill(self, volume: str, sha256: str, progress: Progress) -> None:
        what = f"bring in the data of volume {volume!r}"
        with self._gate.faults.lock:
            stored = self._pool.find(volume, what)
            if not stored.linked:
                return
        found = hashlib.sha256(self._files.fetch(stored.linked, no_progress)).hexdigest()
        progress(50.0)
        self._gate.midway()
        changed = found != stored.link_sum
        if changed or (sha256 and found != sha256.lower()):
            stored.lends = False
            why = "it was changed on its server" if changed else f"its SHA-256 is {found}"
            raise Invalid(
                f"cannot {what}: {why}; delete what was made of it, and import it anew",
                volume=volume,
            )
        with self._gate.faults.lock:
            stored.linked, stored.lends = "", True
        progress(100.0, "all data are there")

    @gated
    def withdraw(self, volume: str) -> None:
        stored = self._pool.volumes.get(volume)
        if stored is None:
            return
        if self._pool.clones(stored):
            raise Conflict(
                f"cannot take back volume {volume!r}: VMs were made of it, and need its data;"
                " delete those first",
                volume=volume,
            )
        stored.lends = False

    @gated
    def write_file(self, volume: str, data: bytes) -> None:
        new = Stored(volume, len(data))
        new.first_bytes(data)
        self._pool.check_room(new.used_bytes, f"write volume {volume!r}")
        self._pool.replace(volume, "write")
        self._pool.volumes[volume] = new

    @gated
    def read_file(self, volume: str, limit_bytes: int) -> bytes:
        stored = self._pool.find(volume, "read")
        if stored.size_bytes > limit_bytes:
            raise Invalid(
                f"cannot read volume {volume!r}: it has {stored.size_bytes} bytes, more than the"
                f" {limit_bytes} that are read at once",
                volume=volume,
            )
        return stored.read(0, stored.size_bytes)

    @gated
    def open_read(self, volume: str) -> BinaryIO:
        return io.BufferedReader(_Reader(self._pool.find(volume, "read")))

    @gated
    def grow(self, volume: str, size_bytes: int) -> None:
        stored = self._pool.find(volume, "grow")
        if size_bytes < stored.size_bytes:
            raise Invalid(
                f"cannot grow volume {volume!r} to {size_bytes} bytes: it has {stored.size_bytes}"
                " already, and making it smaller would cut data off",
                volume=volume,
                size_bytes=stored.size_bytes,
            )
        if size_bytes == stored.size_bytes:
            return
        self._pool.check_closed(stored, "grow")
        stored.size_bytes = size_bytes

    @gated
    def health(self) -> StorageHealth | None:
        """A pool here is in no cluster that has figures."""
        return None

    @gated
    def room(self) -> Room:
        pool = self._pool
        return Room(capacity_bytes=pool.capacity_bytes, free_bytes=pool.free_bytes)

    # -- bases

    @gated
    def make_base(self, volume: str, base: str) -> None:
        pool = self._pool
        stored = pool.closed(volume, "make a base of")
        below = pool.volumes.get(base)
        if below is not None and stored.base is below:
            return
        if stored.snapshots:
            raise Conflict(
                f"cannot make a base of volume {volume!r} in pool {pool.name!r}: it has snapshots;"
                " delete them first",
                volume=volume,
                snapshots=sorted(stored.snapshots),
            )
        pool.check_name_free(base, "make the base")
        # What stands on the volume stands on this content, so the content takes the new name.
        stored.name = base
        pool.volumes[base] = stored
        pool.volumes[volume] = Stored(volume, stored.size_bytes, base=stored)

    @gated
    def unmake_base(self, volume: str, base: str) -> None:
        pool = self._pool
        below = pool.volumes.get(base)
        stored = pool.volumes.get(volume)
        if below is None:
            pool.find(volume, "take back the base of")
            return
        if stored is not None:
            if stored.base is not below:
                return
            pool.closed(volume, "take back the base of")
            others = [one.name for one in pool.clones(below) if one is not stored]
            if others or stored.blocks or stored.snapshots:
                why = f"{', '.join(others)} stand on it" if others else "it was written to since"
                raise Conflict(
                    f"cannot take back the base {base!r} of volume {volume!r}: {why}; keep it",
                    volume=volume,
                    base=base,
                )
        below.name = volume
        pool.volumes[volume] = below
        del pool.volumes[base]

    # -- snapshots

    @gated
    def snapshot(self, volumes: Sequence[str], snapshot: str) -> None:
        found = [self._find(volume, "take a snapshot of") for volume in volumes]
        for stored in self._in_turn(found):
            stored.snapshots[snapshot] = (stored.size_bytes, dict(stored.blocks))

    @gated
    def rollback(self, volumes: Sequence[str], snapshot: str) -> None:
        found = [self._pool.closed(volume, "roll back") for volume in volumes]
        for stored in found:
            if snapshot not in stored.snapshots:
                raise self._no_snapshot(stored.name, snapshot)
        for stored in self._in_turn(found):
            size_bytes, blocks = stored.snapshots[snapshot]
            stored.size_bytes, stored.blocks = size_bytes, dict(blocks)

    @gated
    def drop_snapshot(self, volumes: Sequence[str], snapshot: str) -> None:
        found = [self._find(volume, "delete a snapshot of") for volume in volumes]
        for stored in self._in_turn(found):
            stored.snapshots.pop(snapshot, None)

    def _find(self, volume: str, what: str) -> Stored:
        if self._pool.live_snapshots:
            return self._pool.find(volume, what)
        return self._pool.closed(volume, what)

    def _in_turn(self, volumes: Iterable[Stored]) -> Iterator[Stored]:
        for number, stored in enumerate(volumes):
            if number:
                self._gate.midway()
            yield stored

    def _no_snapshot(self, volume: str, snapshot: str) -> NotFound:
        return NotFound(
            f"cannot find snapshot {snapshot!r} of volume {volume!r} in pool {self._pool.name!r}:"
            " there is none of that name",
            pool=self._pool.name,
            volume=volume,
            snapshot=snapshot,
        )

    # -- deleting

    @gated
    def trash(self, volume: str) -> None:
        pool = self._pool
        if volume not in pool.volumes and volume in pool.trashed:
            return
        stored = pool.closed(volume, "delete")
        pool.trashed[volume] = stored
        del pool.volumes[volume]

    @gated
    def restore(self, volume: str) -> None:
        pool = self._pool
        if volume in pool.trashed:
            pool.volumes[volume] = pool.trashed.pop(volume)
        elif volume not in pool.volumes:
            pool.find(volume, "restore")

    @gated
    def purge(self, volume: str) -> None:
        pool = self._pool
        stored = pool.volumes.get(volume) or pool.trashed.get(volume)
        if stored is None:
            return
        pool.check_closed(stored, "delete")
        pool.check_unlent(stored, "delete")
        pool.volumes.pop(volume, None)
        pool.trashed.pop(volume, None)
        pool.delete(stored)

    # -- looking

    def close(self) -> None:
        """Nothing is held open."""

    @gated_waiting
    def ensure_unused(self, volume: str) -> None:
        """Clients that died are waited for; one that answers is somebody's."""
        clock = self._gate.faults.clock
        stored = self._pool.find(volume, "use")
        while clients := stored.watchers():
            alive = [client.address for client in clients if client.reaches]
            if alive:
                raise Conflict(
                    f"cannot use volume {volume!r} in pool {self._pool.name!r}: it is open at"
                    f" {', '.join(alive)}; stop the VM there first",
                    pool=self._pool.name,
                    volume=volume,
                    holders=alive,
                )
            lapse = min(client.unseen_from for client in clients)
            wait(clock, max(0.01, lapse - clock.now()), lambda: not stored.watchers())

    @gated
    def holders(self, volume: str) -> tuple[Holder, ...] | None:
        stored = self._pool.find(volume, "see who uses")
        watching = stored.watchers()
        found = [
            Holder(one.client.address, one.client.number, one.writes)
            for one in stored.open_by.values()
            if one.client is not None and (one.client.seen or not one.writes)
        ]
        known = {one.address for one in found}
        dead = [one for one in watching if one.address not in known]
        return (*found, *(Holder(one.address, one.number, owns_lock=False) for one in dead))

    def secret(self) -> HostSecret | None:
        return None

    @gated
    def locate(self, volume: str) -> Source:
        self._pool.find(volume, "locate")
        return FileSource(path=path_of(self._pool.name, volume), format="raw")

    @gated
    def info(self, volume: str) -> VolumeInfo:
        return self._info(self._pool.find(volume, "look at"))

    def _info(self, stored: Stored) -> VolumeInfo:
        return VolumeInfo(
            name=stored.name,
            size_bytes=stored.size_bytes,
            used_bytes=stored.used_bytes,
            format="raw",
            base=None if stored.base is None else stored.base.name,
            snapshots=tuple(stored.snapshots),
            trashed=self._pool.volumes.get(stored.name) is not stored,
        )

    @gated
    def list(self) -> tuple[VolumeInfo, ...]:
        return tuple(
            self._info(stored)
            for stored in sorted(self._pool.everything(), key=lambda one: one.name)
        )

    @gated
    def note(self, volume: str, key: str, text: str) -> None:
        if not self._pool.keeps_notes:
            raise Unsupported(f"cannot note {key!r}: pool {self._pool.name!r} keeps no notes")
        notes = self._pool.find(volume, "note something on").notes if volume else self._pool.notes
        if text:
            notes[key] = text
        else:
            notes.pop(key, None)

    @gated
    def notes(self, volume: str) -> dict[str, str]:
        return dict(self._pool.find(volume, "read").notes if volume else self._pool.notes)

    @gated
    def usage(self) -> PoolUsage:
        pool = self._pool
        return PoolUsage(
            capacity_bytes=pool.capacity_bytes,
            free_bytes=pool.free_bytes,
            used_bytes=pool.capacity_bytes if pool.full else pool.used_bytes,
            provisioned_bytes=sum(one.size_bytes for one in pool.everything()),
        )


class _Reader(io.RawIOBase):
    def __init__(self, stored: Stored) -> None:
        self._stored = stored
        self._offset = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._offset, io.SEEK_END: self._stored.size_bytes}
        self._offset = max(0, start[whence] + offset)
        return self._offset

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        data = self._stored.read(self._offset, len(buffer))
        buffer[: len(data)] = data
        self._offset += len(data)
        return len(data)
