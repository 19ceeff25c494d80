"""The folder of a local pool: which file is which volume, and changes that a crash cannot halve.

    NAME.qcow2, NAME.raw    the volumes; the ending says the format, and nothing else is asked
    NAME~2.qcow2            a volume whose name was taken by a hidden base when it was made
    .trash/FILE             an empty mark: the volume in FILE is in the trash
    .hidden/FILE            an empty mark: deleted, but clones still stand on it
    .work/                  what is being written, by whom
    .lock                   held for the moment in which names change

A volume never moves while it exists, since the clones that stand on a file name it. So trash and
hiding are marks beside it. New volumes are written under `.work`, brought to the disk, and renamed.

Leftovers of a process that died are told from work under way by a lock that each process holds as
long as it lives (flock, which the kernel gives back even after kill -9).
"""

from __future__ import annotations

import fcntl
import itertools
import os
import re
import secrets
import signal
import stat
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vorch.drivers.disk_formats import Damaged, Qcow2, read_qcow2
from vorch.errors import Conflict, Invalid, NoRoom, NotFound

# The user that QEMU runs as walks through; what is there, only the owner may list.
FOLDER_MODE = 0o711
# libvirt gives a volume to that user for as long as the VM runs.
FILE_MODE = 0o600
# A full file system stops every VM in the pool, so the last part is never given out.
RESERVE_BYTES = 32 * 1024**2

VolumeFormat = Literal["qcow2", "raw"]

_FILE = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)(?:~([1-9][0-9]*))?\.(qcow2|raw)")
_WORK = re.compile(r"([0-9a-f]{16})\.(lock|[0-9]+)")


@dataclass(frozen=True, slots=True)
class VolumeFile:
    """A volume as it lies in the folder."""

    name: str
    path: Path
    format: VolumeFormat
    trashed: bool = False
    hidden: bool = False


@contextmanager
def opened(path: Path) -> Iterator[int]:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        yield file
    finally:
        os.close(file)


def read_header(path: Path) -> Qcow2:
    """Of a qcow2 in the pool, whether a guest runs on it or not."""
    with opened(path) as file:
        return read_qcow2(file)


class PoolFolder:
    def __init__(self, pool: str, path: Path, reserve_bytes: int) -> None:
        self.pool = pool
        self.path = path
        self._reserve_bytes = reserve_bytes
        self._trash = path / ".trash"
        self._hidden = path / ".hidden"
        self._work = path / ".work"
        self._numbers = itertools.count(1)
        self._token = ""
        for folder in (path, self._trash, self._hidden, self._work):
            _make_folder(folder)

    # -- looking

    def scan(self) -> list[VolumeFile]:
        """Everything, in one look at three folders. Links and devices are not volumes."""
        trashed, hidden = _names(self._trash), _names(self._hidden)
        found = []
        with os.scandir(self.path) as entries:
            for entry in entries:
                parts = _FILE.fullmatch(entry.name)
                if parts and entry.is_file(follow_symlinks=False):
                    found.append(
                        VolumeFile(
                            parts[1],
                            self.path / entry.name,
                            "qcow2" if parts[3] == "qcow2" else "raw",
                            trashed=entry.name in trashed and entry.name not in hidden,
                            hidden=entry.name in hidden,
                        )
                    )
        return sorted(found, key=lambda one: one.path.name)

    def find(self, name: str) -> VolumeFile | None:
        """The volume of that name, in the trash or not; hidden ones have lost their name."""
        if not _FILE.fullmatch(f"{name}.raw") or "~" in name or len(name) > 200:
            raise Invalid(f"cannot use {name!r} as volume name: letters, digits, '.', '_', '-'")
        # Nearly always the plain name is it, and no folder needs to be read.
        for format_ in ("qcow2", "raw"):
            path = self.path / f"{name}.{format_}"
            with suppress(FileNotFoundError):
                if stat.S_ISREG(path.lstat().st_mode) and not (self._hidden / path.name).exists():
                    trashed = (self._trash / path.name).exists()
                    return VolumeFile(
                        name, path, "qcow2" if format_ == "qcow2" else "raw", trashed=trashed
                    )
        if not any(self.path.glob(f"{name}~*")):
            return None
        return next((one for one in self.scan() if one.name == name and not one.hidden), None)

    def get(self, name: str, what: str) -> VolumeFile:
        """The volume of that name, which must be there and not in the trash."""
        found = self.find(name)
        if found is None or found.trashed:
            where = "it is not there" if found is None else "it is in the trash; restore it"
            raise NotFound(
                f"cannot {what} volume {name!r} in pool {self.pool!r}: {where}",
                pool=self.pool,
                volume=name,
            )
        return found

    def standing_on(self) -> dict[str, list[str]]:
        """File name of each base → names of the volumes that stand on it, in the trash or not."""
        found: dict[str, list[str]] = {}
        for one in self.scan():
            if one.format != "qcow2":
                continue
            # What cannot be read as qcow2 cannot stand on anything; what we may not read raises.
            with suppress(Damaged, FileNotFoundError):
                backing = read_header(one.path).backing
                if backing is not None:
                    found.setdefault(self.base_file(backing), []).append(one.name)
        return found

    def base_file(self, backing: str) -> str:
        """The name of the pool's file that a qcow2 header means."""
        return Path(backing).name if Path(backing).parent in (Path(), self.path) else ""

    def base_name(self, backing: str) -> str:
        parts = _FILE.fullmatch(self.base_file(backing))
        return parts[1] if parts else backing

    def free_path(self, name: str, format_: VolumeFormat) -> Path:
        """Where a new volume of that name goes. A hidden base keeps its file, so count on."""
        for number in itertools.count(1):
            stem = name if number == 1 else f"{name}~{number}"
            if not any(os.path.lexists(self.path / f"{stem}.{one}") for one in ("qcow2", "raw")):
                return self.path / f"{stem}.{format_}"
        raise AssertionError("counting ended")

    def check_room(self, needed_bytes: int, what: str) -> None:
        room = os.statvfs(self.path)
        free = room.f_bavail * room.f_frsize
        if needed_bytes + self._reserve_bytes > free:
            raise NoRoom(
                f"cannot {what}: it needs {_mib(needed_bytes)} in pool {self.pool!r}, where"
                f" {_mib(max(0, free - self._reserve_bytes))} are free (besides"
                f" {_mib(self._reserve_bytes)} kept back); delete something or use another pool",
                pool=self.pool,
                needed_bytes=needed_bytes,
                free_bytes=free,
            )

    def room_for(self, what: str) -> Callable[[int], None]:
        """The same for what grows as it comes: to be asked again and again."""

        def check(needed_bytes: int) -> None:
            self.check_room(needed_bytes, what)

        return check

    # -- changing

    @contextmanager
    def locked(self) -> Iterator[None]:
        """For the moment in which names change, and what they rest on is looked at."""
        file = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
        finally:
            os.close(file)

    def check_replaceable(self, old: VolumeFile, what: str) -> None:
        """A volume may be written anew only if nothing else rests on it."""
        why = ""
        if old.trashed:
            why = "one of that name is in the trash"
        elif old.path.name in self.standing_on():
            why = "clones stand on the one that is there"
        elif old.format == "qcow2":
            with suppress(Damaged):
                if read_header(old.path).snapshots:
                    why = "the one that is there has snapshots"
        if why:
            raise Conflict(
                f"cannot {what}: {why}; choose another name, or delete that one for good",
                pool=self.pool,
                volume=old.name,
            )

    def place_new(self, work: Path, name: str, format_: VolumeFormat, what: str) -> None:
        """Under the lock: what was written becomes the volume, whose name must be free."""
        if self.find(name) is not None:
            raise Conflict(
                f"cannot {what}: pool {self.pool!r} has another volume {name!r} (perhaps in the"
                " trash); choose another name, or delete that one for good",
                pool=self.pool,
                volume=name,
            )
        self._rename(work, self.free_path(name, format_))

    def _rename(self, work: Path, path: Path) -> None:
        # A mark without a file, left by a crash, must not fall on the new volume.
        _unmark(self._trash / path.name)
        _unmark(self._hidden / path.name)
        work.rename(path)
        sync_folder(self.path)

    def place(self, work: Path, name: str, format_: VolumeFormat, what: str) -> None:
        """What was written becomes the volume, in the place of an earlier one."""
        with self.locked():
            old = self.find(name)
            if old is None:
                self.place_new(work, name, format_, what)
                return
            self.check_replaceable(old, what)
            if old.format == format_:
                self._rename(work, old.path)
            else:
                old.path.unlink()
                self._rename(work, self.free_path(name, format_))

    def replace(self, work: Path, one: VolumeFile) -> None:
        """Another file with the same content takes the place of a volume's."""
        with self.locked():
            if self.find(one.name) != one:
                raise Conflict(
                    f"cannot write volume {one.name!r} of pool {self.pool!r} anew: it was deleted"
                    " meanwhile",
                    volume=one.name,
                )
            work.rename(one.path)
            sync_folder(self.path)

    def trash(self, one: VolumeFile) -> None:
        _mark(self._trash / one.path.name)

    def restore(self, one: VolumeFile) -> None:
        _unmark(self._trash / one.path.name)

    def remove(self, name: str) -> None:
        """Under the lock: delete a volume, or hide it while others stand on it; then tidy up."""
        found = self.find(name)
        if found is not None:
            self._remove(found)
        self.tidy()

    def tidy(self) -> None:
        """Under the lock: remove hidden bases that nothing stands on any more, and lost marks."""
        # A crash may have come between the last clone's end and its base's.
        while True:
            standing = self.standing_on()
            idle = [one for one in self.scan() if one.hidden and one.path.name not in standing]
            if not idle:
                break
            for one in idle:
                self._remove(one)
        for folder in (self._hidden, self._trash):
            for mark in _names(folder):
                if not os.path.lexists(self.path / mark):
                    _unmark(folder / mark)

    def _remove(self, one: VolumeFile) -> None:
        if one.path.name in self.standing_on():
            _mark(self._hidden / one.path.name)
        else:
            # The marks go last: a mark without a file is tidied up, a file without its mark would
            # be back.
            one.path.unlink()
            sync_folder(self.path)
            _unmark(self._hidden / one.path.name)
        _unmark(self._trash / one.path.name)

    # -- work under way

    @contextmanager
    def work_file(self) -> Iterator[Path]:
        """An empty file to write a new volume to. What is still there at the end is removed."""
        self.sweep()
        token = self._own_token()
        while True:
            path = self._work / f"{token}.{next(self._numbers)}"
            with suppress(FileExistsError):
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE))
                break
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def _own_token(self) -> str:
        while not self._token:
            token = secrets.token_hex(8)
            path = self._work / f"{token}.lock"
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
            # Another's sweep may see the file in the moment before it is locked, and take it away.
            if _try_lock(file) and _is_at(file, path):
                weakref.finalize(self, _give_back, os.getpid(), file, path)
                self._token = token
            else:
                os.close(file)
        return self._token

    def sweep(self) -> None:
        """Remove what processes that have died left behind. Never touches work under way."""
        found: dict[str, list[Path]] = {}
        for name in _names(self._work):
            parts = _WORK.fullmatch(name)
            if parts and parts[1] != self._token:
                found.setdefault(parts[1], []).append(self._work / name)
        for token, paths in found.items():
            lock = self._work / f"{token}.lock"
            try:
                file = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                file = -1
            try:
                if file >= 0 and not _try_lock(file):
                    continue
                left = [path for path in paths if path != lock]
                if left:
                    _end_orphans(token)
                for path in left:
                    path.unlink(missing_ok=True)
                lock.unlink(missing_ok=True)
            finally:
                if file >= 0:
                    os.close(file)


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def _make_folder(path: Path) -> None:
    missing = []
    while not path.is_dir():
        missing.append(path)
        path = path.parent
    for folder in reversed(missing):
        with suppress(FileExistsError):
            folder.mkdir()
            # Not left to mkdir, whose mode the umask cuts down.
            folder.chmod(FOLDER_MODE)


def _mark(path: Path) -> None:
    path.touch(FILE_MODE)
    sync_folder(path.parent)


def _unmark(path: Path) -> None:
    with suppress(FileNotFoundError):
        path.unlink()
        sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Bring names that changed to the disk."""
    sync_file(path)


def sync_file(path: Path) -> None:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _try_lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def _give_back(owner: int, file: int, path: Path) -> None:
    with suppress(OSError):
        # A fork that ends leaves its parent's claim alone.
        if os.getpid() == owner:
            path.unlink(missing_ok=True)
    with suppress(OSError):
        os.close(file)


def _end_orphans(token: str) -> None:
    """End a qemu-img whose vorch died: it would go on writing to a file that has no name.

    It is known by the token in its arguments, which no other process has.
    """
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if not _is_orphan(folder, token):
                continue
            process = os.pidfd_open(int(folder.name))
            try:
                # Once more, now that the number cannot come to mean another process.
                if _is_orphan(folder, token):
                    signal.pidfd_send_signal(process, signal.SIGKILL)
            finally:
                os.close(process)


def _is_orphan(folder: Path, token: str) -> bool:
    arguments = (folder / "cmdline").read_bytes().split(b"\0")
    mark = f"/.work/{token}.".encode()
    return arguments[0] == b"qemu-img" and any(mark in one for one in arguments)


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / 1024**2:,.0f} MiB"
