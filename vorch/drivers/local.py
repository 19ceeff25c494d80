"""Volumes as files in a folder (`dir:///path`): qcow2 disks, and CDs and kernels just as they are.

Disks are qcow2 files that vorch wrote itself; linked clones have a backing file in the same folder,
named without a path, so a pool can be moved as a whole. What qemu-img is good at, qemu-img does;
looking at volumes reads their headers (`disk_formats`), since a process for each of some hundred
would take seconds. Which file is which volume, and crash safety, is `pool_folder`'s part.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, Literal

from vorch.drivers import image_export
from vorch.drivers.disk_formats import (
    LARGEST_BYTES,
    SECTOR,
    Damaged,
    Qcow2,
    holds_nothing,
    read_qcow2,
)
from vorch.drivers.fetch import origin
from vorch.drivers.fetch import pour as pour_origin
from vorch.drivers.image_export import convert, file_content, pour, target_file
from vorch.drivers.image_import import (
    Conversion,
    _span,
    check_sha256,
    import_disk,
    import_plain,
)
from vorch.drivers.os_errors import translated
from vorch.drivers.pool_folder import (
    RESERVE_BYTES,
    PoolFolder,
    VolumeFile,
    opened,
    read_header,
    sync_file,
    sync_folder,
)
from vorch.drivers.qemu_img import cpu_limit_s, qemu_img
from vorch.errors import Conflict, Invalid, NotFound, StepFailed, Unsupported
from vorch.model import FileSource, Holder, PoolUsage, Room, Source, StorageHealth
from vorch.plan import ExportFormat
from vorch.ports import Content, HostSecret, Imported, Progress, VolumeInfo


class LocalImages:
    """The `Images` port on a folder."""

    # While a guest runs, QEMU alone may write to the file: the hypervisor's driver snapshots it.
    live_snapshots: bool = False
    # qcow2 has no place for them, and a file beside each would be one more thing to lose.
    keeps_notes: bool = False

    def __init__(
        self, pool_name: str, path: str | Path, *, reserve_bytes: int = RESERVE_BYTES
    ) -> None:
        self.pool = pool_name
        with translated(f"open pool {pool_name!r}"):
            self._folder = PoolFolder(pool_name, Path(path).absolute(), reserve_bytes)

    # -- making volumes

    def create(self, volume: str, size_bytes: int) -> None:
        what = f"create volume {volume!r}"
        size = _checked_size(size_bytes, what)
        with translated(what):
            old = self._folder.find(volume)
            if old is not None and not old.trashed and _is_blank(old, size):
                return
            self._new_qcow2(volume, size, None, what)

    def clone(self, base: str, volume: str, size_bytes: int) -> None:
        what = f"clone volume {base!r} to {volume!r}"
        size = _checked_size(size_bytes, what)
        with translated(what):
            below = self._folder.get(base, "clone")
            base_size = self._size(below)
            if size < base_size:
                raise Invalid(
                    f"cannot {what} with {size_bytes} bytes: the base has {base_size}; give the"
                    " clone as many or more",
                    volume=volume,
                )
            old = self._folder.find(volume)
            if old is not None and not old.trashed and old.format == "qcow2":
                header = self._header(old)
                if header.size_bytes == size and self._stands_on(header, below):
                    return
            self._new_qcow2(volume, size, below, what)

    def _new_qcow2(self, volume: str, size: int, base: VolumeFile | None, what: str) -> None:
        self._folder.check_room(0, what)
        with self._folder.work_file() as work:
            self._write_qcow2(work, size, base, what)
            with self._folder.locked():
                if base is not None and self._folder.find(base.name) != base:
                    raise Conflict(f"cannot {what}: the base was deleted meanwhile; use another")
                self._folder.place_new(work, volume, "qcow2", what)

    def _write_qcow2(self, work: Path, size: int, base: VolumeFile | None, what: str) -> None:
        # -u: the base is not opened, its size is known already. It is named without a path.
        backing = ["-u", "-b", base.path.name, "-F", base.format] if base is not None else []
        qemu_img(["create", "-q", "-f", "qcow2", *backing, str(work), str(size)], what)
        sync_file(work)

    def copy(self, source: str, snapshot: str | None, volume: str, progress: Progress) -> None:
        what = f"copy volume {source!r} to {volume!r}"
        with translated(what):
            original = self._folder.get(source, "copy")
            if source == volume:
                raise Invalid(f"cannot {what}: they are the same; choose another name")
            if original.format == "raw":
                if snapshot is not None:
                    raise self._no_snapshot(source, snapshot)
                self._copy_raw(original, volume, what, progress)
                return
            size = self._header(original).size_bytes
            wanted = size
            # A running guest may go on writing to the file; what belongs to a snapshot stays.
            options = []
            if snapshot is not None:
                wanted = self._snapshot_size(original, snapshot)
                options = ["-U", "-l", f"snapshot.name={snapshot}"]
            if wanted > size:
                raise self._was_larger(what, str(snapshot))
            with self._folder.work_file() as work:
                conversion = Conversion("qcow2", str(original.path), size, what, tuple(options))
                conversion.check_room(self._folder)
                conversion.run(work, progress)
                if wanted < size:
                    qemu_img(["resize", "-q", "--shrink", "-f", "qcow2", str(work), str(wanted)],
                             what)  # fmt: skip
                sync_file(work)
                self._folder.place(work, volume, "qcow2", what)

    def _copy_raw(self, source: VolumeFile, volume: str, what: str, progress: Progress) -> None:
        with self._folder.work_file() as work, origin(str(source.path)) as stream:
            pour_origin(stream, work, what, progress, self._folder.room_for(what))
            self._folder.place(work, volume, "raw", what)

    @contextmanager
    def content(self, volume: str, snapshot: str | None, progress: Progress) -> Iterator[Content]:
        """Of a disk by way of a raw file, since only qemu-img reads qcow2."""
        what = f"read volume {volume!r}"
        with ExitStack() as stack:
            with translated(what):
                original = self._folder.get(volume, "read")
                if original.format == "raw":
                    if snapshot is not None:
                        raise self._no_snapshot(volume, snapshot)
                    flat = original.path
                else:
                    flat = stack.enter_context(self._folder.work_file())
                    self._flatten_to(original, snapshot, flat, what, progress)
                file = stack.enter_context(opened(flat))
                content = file_content(file)
            yield content

    def _flatten_to(
        self,
        original: VolumeFile,
        snapshot: str | None,
        flat: Path,
        what: str,
        progress: Progress,
    ) -> None:
        """All that a disk shows to a raw file."""
        size = self._header(original).size_bytes
        options: tuple[str, ...] = ()
        wanted = size
        if snapshot is not None:
            wanted = self._snapshot_size(original, snapshot)
            options = ("-U", "-l", f"snapshot.name={snapshot}")
        if wanted > size:
            raise self._was_larger(what, str(snapshot))
        conversion = Conversion(
            "qcow2", str(original.path), size, what, options, target_format="raw"
        )
        conversion.check_room(self._folder)
        conversion.run(flat, progress)
        os.truncate(flat, wanted)

    @staticmethod
    def _was_larger(what: str, snapshot: str) -> Unsupported:
        return Unsupported(
            f"cannot {what}: the disk was larger at snapshot {snapshot!r} than it is now;"
            " roll back to it first, and copy then"
        )

    def take_in(
        self, volume: str, content: Content, kind: Literal["disk", "file"], progress: Progress
    ) -> None:
        what = f"write volume {volume!r}"
        with translated(what), ExitStack() as stack:
            old = self._folder.find(volume)
            if old is not None:
                self._folder.check_replaceable(old, what)
            self._folder.check_room(sum(length for _, length in content.extents), what)
            work = stack.enter_context(self._folder.work_file())
            if kind == "file":
                with work.open("r+b") as file:
                    pour(content, file.fileno(), progress)
                sync_file(work)
                self._folder.place(work, volume, "raw", what)
                return
            source = content.file
            if source is None:
                flat = stack.enter_context(self._folder.work_file())
                file = stack.enter_context(flat.open("r+b"))
                pour(content, file.fileno(), _span(progress, 0, 50))
                source, progress = file.fileno(), _span(progress, 50, 100)
            conversion = Conversion(
                "raw", f"/dev/fd/{source}", content.size_bytes, what, pass_files=(source,)
            )
            conversion.check_room(self._folder)
            conversion.run(work, progress)
            sync_file(work)
            self._folder.place(work, volume, "qcow2", what)

    def export(
        self,
        volume: str,
        snapshot: str | None,
        path: str,
        format_: ExportFormat,
        progress: Progress,
    ) -> None:
        what = f"export volume {volume!r}"
        with translated(what):
            original = self._folder.get(volume, "export")
            size = self._size(original)
            at_once = original.format == "qcow2"
            options: tuple[str, ...] = ()
            if at_once and snapshot is not None:
                at_once = self._snapshot_size(original, snapshot) == size
                options = ("-U", "-l", f"snapshot.name={snapshot}")
            if at_once:
                with target_file(path, what) as target:
                    convert("qcow2", str(original.path), format_, target, size, what, progress,
                            options=options)  # fmt: skip
                return
        with self.content(volume, snapshot, _span(progress, 0, 50)) as content:
            image_export.export(content, path, format_, what, _span(progress, 50, 100))

    # -- what a volume takes

    def flatten(self, volume: str, progress: Progress) -> None:
        what = f"flatten volume {volume!r}"
        with translated(what):
            found = self._disk(volume, "flatten")
            header = self._header(found)
            if header.backing is not None:
                self._check_no_snapshots(header, volume, what)
                self._folder.check_room(self._base_bytes(header), what)
                # The content first and the header last: whenever it ends, the disk is whole.
                qemu_img(
                    ["rebase", "-p", "-f", "qcow2", "-b", "", str(found.path)],
                    what,
                    cpu_s=cpu_limit_s(header.size_bytes),
                    progress=progress,
                )
                sync_file(found.path)
            # A base that was kept for it alone goes with that.
            with self._folder.locked():
                self._folder.tidy()

    def _base_bytes(self, header: Qcow2) -> int:
        """What a clone takes from below at the most."""
        whole, backing = 0, header.backing
        while backing is not None:
            path = self._folder.path / self._folder.base_file(backing)
            whole += path.stat().st_blocks * 512
            backing = read_header(path).backing if path.suffix == ".qcow2" else None
        return min(whole, header.size_bytes)

    def _check_no_snapshots(self, header: Qcow2, volume: str, what: str) -> None:
        if header.snapshots:
            raise Conflict(
                f"cannot {what}: snapshots inside its file would lose what they show; delete them"
                " first",
                volume=volume,
                snapshots=[one.name for one in header.snapshots],
            )

    def sparsify(self, volume: str) -> None:
        what = f"sparsify volume {volume!r}"
        with translated(what):
            found = self._disk(volume, "sparsify")
            header = self._header(found)
            self._check_no_snapshots(header, volume, what)
            self._check_no_base(found, what)
            self._folder.check_room(found.path.stat().st_blocks * 512, what)
            source, backing = str(found.path), header.backing
            with self._folder.work_file() as work:
                arguments = ["convert", "-f", "qcow2", "-O", "qcow2"]
                base: list[str] = []
                if backing is None:
                    arguments += [source, str(work)]
                else:
                    below = self._folder.path / self._folder.base_file(backing)
                    base = ["-F", "raw" if below.suffix == ".raw" else "qcow2"]
                    arguments += ["-B", str(below), *base, source, str(work)]
                qemu_img(arguments, what, cpu_s=cpu_limit_s(header.size_bytes))
                if backing is not None:
                    # By its name alone, as each clone has it; its content is the same.
                    qemu_img(["rebase", "-u", "-f", "qcow2", "-b", backing, *base, str(work)], what)
                sync_file(work)
                self._folder.replace(work, found)

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
        with translated(what):
            old = self._folder.find(volume)
            if old is not None:
                # Before anything is fetched, not after hours of it.
                self._folder.check_replaceable(old, what)
            with origin(location) as source:
                if content == "disk":
                    return import_disk(self._folder, location, source, volume, sha256, progress)
                return import_plain(
                    self._folder, location, source, volume, content, sha256, progress
                )

    def link(self, location: str, volume: str, progress: Progress) -> Imported:
        raise Unsupported(
            f"cannot import {location!r} at once: only Ceph can show data that are still coming in;"
            " import it without --at-once, or into a pool in Ceph",
            volume=volume,
        )

    def fill(self, volume: str, sha256: str, progress: Progress) -> None:
        """Nothing is ever linked here, so all data are there."""
        self.info(volume)

    def withdraw(self, volume: str) -> None:
        """As above."""

    def write_file(self, volume: str, data: bytes) -> None:
        what = f"write volume {volume!r}"
        with translated(what):
            old = self._folder.find(volume)
            if old is not None and old.format != "raw":
                raise Conflict(f"cannot {what}: a disk has that name; choose another name")
            self._folder.check_room(len(data), what)
            with self._folder.work_file() as work:
                work.write_bytes(data)
                sync_file(work)
                self._folder.place(work, volume, "raw", what)

    def read_file(self, volume: str, limit_bytes: int) -> bytes:
        with translated(f"read volume {volume!r}"), self.open_read(volume) as file:
            data = file.read(limit_bytes + 1)
        if len(data) > limit_bytes:
            raise Invalid(
                f"cannot read volume {volume!r}: it has more than {limit_bytes} bytes; it is not"
                " the small file that was expected",
                volume=volume,
            )
        return data

    def open_read(self, volume: str) -> BinaryIO:
        with translated(f"read volume {volume!r}"):
            found = self._folder.get(volume, "read")
            if found.format != "raw":
                raise Invalid(
                    f"cannot read volume {volume!r}: it is a disk, not a plain file; name another"
                )
            return found.path.open("rb")

    # -- changing volumes

    def grow(self, volume: str, size_bytes: int) -> None:
        what = f"grow volume {volume!r}"
        size = _checked_size(size_bytes, what)
        with translated(what):
            found = self._disk(volume, "grow")
            now = self._header(found).size_bytes
            if size < now:
                raise Invalid(
                    f"cannot {what} to {size_bytes} bytes: it has {now} already, and making it"
                    " smaller would cut data off",
                    volume=volume,
                    size_bytes=now,
                )
            if size > now:
                self._check_no_base(found, what)
                self._folder.check_room(0, what)
                qemu_img(["resize", "-q", "-f", "qcow2", str(found.path), str(size)], what)

    def make_base(self, volume: str, base: str) -> None:
        what = f"make the base {base!r} of volume {volume!r}"
        with translated(what):
            found = self._disk(volume, "make a base of")
            header = self._header(found)
            below = self._folder.find(base)
            if below is not None and not below.trashed and self._stands_on(header, below):
                return
            if header.snapshots:
                raise Conflict(
                    f"cannot {what}: it has snapshots; delete them first",
                    volume=volume,
                    snapshots=[one.name for one in header.snapshots],
                )
            self._check_no_base(found, what)
            linked = below is not None and below.path.samefile(found.path)
            if below is not None and not linked:
                raise Conflict(
                    f"cannot {what}: pool {self.pool!r} has another volume of that name; choose"
                    " another name, or delete that one for good",
                    volume=base,
                )
            path = below.path if below is not None else self._folder.free_path(base, "qcow2")
            new_base = VolumeFile(base, path, "qcow2")
            with self._folder.work_file() as work:
                self._write_qcow2(work, header.size_bytes, new_base, what)
                with self._folder.locked():
                    if not linked:
                        # The base gets its name before the volume loses its content: at no moment
                        # is one of them missing.
                        path.hardlink_to(found.path)
                        sync_folder(path.parent)
                    work.rename(found.path)
                    sync_folder(path.parent)

    def unmake_base(self, volume: str, base: str) -> None:
        what = f"take back the base {base!r} of volume {volume!r}"
        with translated(what), self._folder.locked():
            below = self._folder.find(base)
            found = self._folder.find(volume)
            if below is None:
                self._folder.get(volume, "take back the base of")
                return
            if found is None:
                below.path.rename(self._folder.free_path(volume, "qcow2"))
            elif found.path.samefile(below.path):
                # Only the first half of `make_base` was done.
                below.path.unlink()
            elif found.format != "qcow2" or not self._stands_on(self._header(found), below):
                return
            else:
                others = [
                    name
                    for name in self._folder.standing_on().get(below.path.name, [])
                    if name != volume
                ]
                if others or not _is_unwritten(found):
                    why = f"{', '.join(others)} stand on it" if others else "it was written since"
                    raise Conflict(f"cannot {what}: {why}; keep it", volume=volume, base=base)
                below.path.rename(found.path)
            sync_folder(below.path.parent)

    # -- snapshots

    def snapshot(self, volumes: Sequence[str], snapshot: str) -> None:
        what = f"take snapshot {snapshot!r} of"
        with translated(f"{what} {', '.join(volumes)}"):
            found = [self._disk(volume, what) for volume in volumes]
            for one in found:
                self._check_no_base(one, f"{what} volume {one.name!r}")
            for one in found:
                self._folder.check_room(0, f"{what} volume {one.name!r}")
                self._drop_snapshot(one, snapshot)
                self._snapshot_command(one, "-c", snapshot, what)

    def rollback(self, volumes: Sequence[str], snapshot: str) -> None:
        what = f"roll back to snapshot {snapshot!r}"
        with translated(f"{what} {', '.join(volumes)}"):
            found = [self._disk(volume, what) for volume in volumes]
            for one in found:
                if self._header(one).snapshot(snapshot) is None:
                    raise self._no_snapshot(one.name, snapshot)
                self._check_no_base(one, f"{what} volume {one.name!r}")
            for one in found:
                entry = self._header(one).snapshot(snapshot)
                assert entry is not None
                # By number: a snapshot may be named like another's number, which would win.
                self._snapshot_command(one, "-a", entry.id, what)

    def drop_snapshot(self, volumes: Sequence[str], snapshot: str) -> None:
        what = f"delete snapshot {snapshot!r} of"
        with translated(f"{what} {', '.join(volumes)}"):
            for one in [self._disk(volume, what) for volume in volumes]:
                self._drop_snapshot(one, snapshot)

    def _drop_snapshot(self, one: VolumeFile, snapshot: str) -> None:
        while self._header(one).snapshot(snapshot) is not None:
            self._snapshot_command(one, "-d", snapshot, f"delete snapshot {snapshot!r} of")

    def _snapshot_command(self, one: VolumeFile, option: str, argument: str, what: str) -> None:
        # This command has no -f: only so it takes the format as given and does not guess.
        image = "driver=qcow2,file.driver=file,file.filename=" + str(one.path).replace(",", ",,")
        qemu_img(
            ["snapshot", "-q", option, argument, "--image-opts", image],
            f"{what} volume {one.name!r}",
            cpu_s=600,
        )

    # -- deleting

    def trash(self, volume: str) -> None:
        with translated(f"delete volume {volume!r}"), self._folder.locked():
            found = self._folder.find(volume)
            if found is None or not found.trashed:
                self._folder.trash(self._folder.get(volume, "delete"))

    def restore(self, volume: str) -> None:
        with translated(f"restore volume {volume!r}"), self._folder.locked():
            found = self._folder.find(volume)
            if found is not None and found.trashed:
                self._folder.restore(found)
            else:
                self._folder.get(volume, "restore")

    def purge(self, volume: str) -> None:
        with translated(f"delete volume {volume!r} for good"):
            self._folder.sweep()
            with self._folder.locked():
                self._folder.remove(volume)

    # -- looking

    def close(self) -> None:
        """Nothing is held open."""

    def ensure_unused(self, volume: str) -> None:
        """QEMU's own locks on files tell its hosts."""

    def holders(self, volume: str) -> tuple[Holder, ...] | None:
        """A file shows nobody."""
        with translated(f"see who uses volume {volume!r}"):
            self._folder.get(volume, "see who uses")
        return None

    def secret(self) -> HostSecret | None:
        return None

    def locate(self, volume: str) -> Source:
        with translated(f"locate volume {volume!r}"):
            found = self._folder.get(volume, "locate")
        return FileSource(path=str(found.path), format=found.format)

    def info(self, volume: str) -> VolumeInfo:
        with translated(f"look at volume {volume!r}"):
            found = self._folder.get(volume, "look at")
            if found.format == "qcow2":
                self._header(found)
            return self._info(found)

    def list(self) -> tuple[VolumeInfo, ...]:
        with translated(f"list pool {self.pool!r}"):
            found = []
            for one in self._folder.scan():
                # One may be deleted while we look.
                try:
                    found.append(self._info(one))
                except FileNotFoundError:
                    continue
            return tuple(found)

    def note(self, volume: str, key: str, text: str) -> None:
        raise Unsupported(
            f"cannot note {key!r} in pool {self.pool!r}: a folder keeps no notes; back up the state"
            " itself"
        )

    def notes(self, volume: str) -> dict[str, str]:
        return {}

    def usage(self) -> PoolUsage:
        infos = self.list()
        room = self.room()
        return PoolUsage(
            capacity_bytes=room.capacity_bytes,
            free_bytes=room.free_bytes,
            used_bytes=sum(one.used_bytes for one in infos),
            provisioned_bytes=sum(one.size_bytes for one in infos),
        )

    def health(self) -> StorageHealth | None:
        """A folder is in no cluster."""
        return None

    def room(self) -> Room:
        with translated(f"look at pool {self.pool!r}"):
            state = os.statvfs(self._folder.path)
        return Room(
            capacity_bytes=state.f_blocks * state.f_frsize,
            free_bytes=state.f_bavail * state.f_frsize,
        )

    # -- the parts of the above

    def _info(self, one: VolumeFile) -> VolumeInfo:
        state = one.path.stat()
        size, base, format_ = state.st_size, None, str(one.format)
        snapshots: tuple[str, ...] = ()
        if one.format == "qcow2":
            # One bad file must not hide all others, and must itself stay in view.
            try:
                header = read_header(one.path)
            except (Damaged, PermissionError):
                size, format_ = 0, "unreadable"
            else:
                size = header.size_bytes
                base = self._folder.base_name(header.backing) if header.backing else None
                snapshots = tuple(entry.name for entry in header.snapshots)
        return VolumeInfo(
            name=one.name,
            size_bytes=size,
            used_bytes=state.st_blocks * 512,
            format=format_,
            base=base,
            snapshots=snapshots,
            trashed=one.trashed or one.hidden,
        )

    def _header(self, one: VolumeFile) -> Qcow2:
        try:
            return read_header(one.path)
        except Damaged as exc:
            raise StepFailed(
                f"cannot read volume {one.name!r} in pool {self.pool!r}: {exc}; see {one.path},"
                " and restore it from a backup",
                volume=one.name,
            ) from exc

    def _size(self, one: VolumeFile) -> int:
        if one.format == "qcow2":
            return self._header(one).size_bytes
        return _rounded(one.path.stat().st_size)

    def _disk(self, volume: str, what: str) -> VolumeFile:
        found = self._folder.get(volume, what)
        if found.format != "qcow2":
            raise Invalid(
                f"cannot {what} volume {volume!r}: it is a plain file, not a disk; name a disk",
                volume=volume,
            )
        return found

    def _stands_on(self, header: Qcow2, base: VolumeFile) -> bool:
        return (
            header.backing is not None and self._folder.base_file(header.backing) == base.path.name
        )

    def _check_no_base(self, one: VolumeFile, what: str) -> None:
        others = self._folder.standing_on().get(one.path.name)
        if others:
            raise Conflict(
                f"cannot {what}: {', '.join(others)} stand on it, and would be damaged; work on a"
                " clone of it",
                volume=one.name,
                clones=others,
            )

    def _snapshot_size(self, one: VolumeFile, snapshot: str) -> int:
        header = self._header(one)
        entry = header.snapshot(snapshot)
        if entry is None:
            raise self._no_snapshot(one.name, snapshot)
        return header.size_bytes if entry.size_bytes is None else entry.size_bytes

    def _no_snapshot(self, volume: str, snapshot: str) -> NotFound:
        return NotFound(
            f"cannot find snapshot {snapshot!r} of volume {volume!r} in pool {self.pool!r}: there"
            " is none of that name",
            pool=self.pool,
            volume=volume,
            snapshot=snapshot,
        )


def _rounded(size_bytes: int) -> int:
    return (size_bytes + SECTOR - 1) // SECTOR * SECTOR


def _checked_size(size_bytes: int, what: str) -> int:
    if not 0 < size_bytes <= LARGEST_BYTES:
        raise Invalid(
            f"cannot {what} with {size_bytes} bytes: a disk has from 1 byte to 64 TiB; choose a"
            " size in that range"
        )
    return _rounded(size_bytes)


def _is_unwritten(one: VolumeFile) -> bool:
    with opened(one.path) as file:
        return holds_nothing(file, read_qcow2(file))


def _is_blank(one: VolumeFile, size: int) -> bool:
    """What `create` would make."""
    if one.format != "qcow2":
        return False
    try:
        header = read_header(one.path)
        return header.size_bytes == size and header.backing is None and _is_unwritten(one)
    except Damaged:
        return False
