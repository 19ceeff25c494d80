"""Files that come to this machine in pieces: what has come of each stays, and is gone on from.

Of each there are two files in one folder: `ID.json`, what it is to be, and `ID.data`, what came.
One at a time writes to it, held by a lock on the data, which ends with its process.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from vorch.drivers.os_errors import translated
from vorch.errors import Conflict, Invalid, NoRoom, NotFound
from vorch.model import Upload

# What stays free of the file system that they come to.
RESERVE_BYTES = 256 * 1024**2
# So many may be on their way or lie there at once.
MOST = 200
_ID = re.compile(r"[0-9a-f]{32}")
SHA256 = re.compile(r"[0-9a-f]{64}")


class FolderUploads:
    """The `Uploads` port."""

    def __init__(self, folder: Path, *, limit_bytes: int, keep_s: float) -> None:
        self._folder = folder
        self._keep_s = keep_s
        self.limit_bytes = limit_bytes

    def create(self, *, name: str, size_bytes: int, sha256: str, owner: str) -> Upload:
        self.expire()
        what = f"take the upload {name!r}"
        if not 0 < size_bytes <= self.limit_bytes:
            raise Invalid(
                f"cannot {what}: it is to have {size_bytes} bytes, and an upload may have 1 to"
                f" {self.limit_bytes}; see upload_limit_gib",
                limit_bytes=self.limit_bytes,
            )
        if sha256 and not SHA256.fullmatch(sha256):
            raise Invalid(f"cannot {what}: its SHA-256 must be 64 of 0-9 and a-f")
        with translated(what):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._check_room(size_bytes, what)
            identifier = secrets.token_hex(16)
            self._data(identifier).touch(mode=0o600, exist_ok=False)
            draft = self._folder / f".{identifier}.new"
            about = {"name": name, "size_bytes": size_bytes, "sha256": sha256, "owner": owner}
            draft.touch(mode=0o600)
            draft.write_text(json.dumps(about), encoding="utf-8")
            draft.rename(self._about(identifier))
        return self.find(identifier)

    def _check_room(self, size_bytes: int, what: str) -> None:
        """What is still to come of the others is spoken for."""
        there = self.list()
        if len(there) >= MOST:
            raise NoRoom(f"cannot {what}: {MOST} uploads are there already; delete some")
        room = os.statvfs(self._folder)
        coming = sum(one.size_bytes - one.offset_bytes for one in there)
        free = room.f_bavail * room.f_frsize - RESERVE_BYTES - coming
        if size_bytes > free:
            raise NoRoom(
                f"cannot {what}: it needs {size_bytes / 1024**2:,.0f} MiB, and"
                f" {max(0, free) / 1024**2:,.0f} MiB are free for uploads; free some space, or set"
                " upload_path to another folder",
                needed_bytes=size_bytes,
                free_bytes=max(0, free),
            )

    def find(self, upload_id: str) -> Upload:
        about = self._read(upload_id)
        with self._there(upload_id):
            seen = self._data(upload_id).stat()
        return Upload(
            id=upload_id,
            name=about["name"],
            size_bytes=about["size_bytes"],
            offset_bytes=min(seen.st_size, about["size_bytes"]),
            sha256=about["sha256"],
            owner=about["owner"],
            expires_at=seen.st_mtime + self._keep_s,
        )

    def list(self) -> tuple[Upload, ...]:
        found = []
        with translated("list the uploads"):
            for file in sorted(self._folder.glob("*.json")):
                # One may just be deleted.
                if _ID.fullmatch(file.stem):
                    with suppress(NotFound):
                        found.append(self.find(file.stem))
        return tuple(found)

    @contextmanager
    def append(self, upload_id: str, offset_bytes: int, checksum: str = "") -> Iterator[Appending]:
        """Write on from there. With a checksum it is all of this piece or none of it.

        Without one what has come stays, however it ends.
        """
        before = self.find(upload_id)
        what = f"go on with the upload {upload_id!r}"
        with self._there(upload_id), self._data(upload_id).open("r+b", buffering=0) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Conflict(f"cannot {what}: somebody else is at it; wait for the end") from None
            there = os.fstat(file.fileno()).st_size
            if offset_bytes != there:
                raise Conflict(
                    f"cannot {what} from byte {offset_bytes}: {there} bytes have come; ask where"
                    " it stands, and go on from there",
                    offset_bytes=there,
                )
            appending = Appending(file, what, there, before.size_bytes)
            try:
                with translated(what):
                    yield appending
                    if checksum and appending.sha256 != checksum:
                        raise Invalid(
                            f"cannot {what}: what came has not the checksum that it should have;"
                            " send it again",
                            checksum=appending.sha256,
                        )
                    os.fsync(file.fileno())
            except BaseException:
                if checksum:
                    file.truncate(there)
                raise

    def path(self, upload_id: str) -> str:
        """Where it is, once all of it is there."""
        found = self.find(upload_id)
        if not found.complete:
            raise Conflict(
                f"cannot use the upload {upload_id!r}: {found.offset_bytes} of"
                f" {found.size_bytes} bytes have come; send the rest first",
                offset_bytes=found.offset_bytes,
            )
        return str(self._data(upload_id))

    def remove(self, upload_id: str) -> None:
        self._read(upload_id)
        with translated(f"delete the upload {upload_id!r}"):
            # Without its description there is no such upload any more.
            self._about(upload_id).unlink(missing_ok=True)
            self._data(upload_id).unlink(missing_ok=True)

    def expire(self) -> None:
        """Nobody has written to them for so long. What a killed process left goes as well."""
        if not self._folder.is_dir():
            return
        before = time.time() - self._keep_s
        with translated("clear away old uploads"):
            names: dict[str, list[Path]] = {}
            for file in self._folder.iterdir():
                stem = file.name.lstrip(".").partition(".")[0]
                if _ID.fullmatch(stem):
                    names.setdefault(stem, []).append(file)
            for stem, files in names.items():
                with suppress(FileNotFoundError):
                    data = self._data(stem)
                    newest = (data if data in files else files[0]).stat().st_mtime
                    if newest < before:
                        # The description first: without it there is no such upload any more.
                        for file in sorted(files, key=lambda one: one == data):
                            file.unlink(missing_ok=True)

    def _read(self, upload_id: str) -> dict[str, Any]:
        # Whatever comes from outside is no part of a path before it is seen to be an id.
        if not _ID.fullmatch(upload_id):
            raise _missing(upload_id)
        with self._there(upload_id):
            about: dict[str, Any] = json.loads(self._about(upload_id).read_text(encoding="utf-8"))
        return about

    @contextmanager
    def _there(self, upload_id: str) -> Iterator[None]:
        try:
            with translated(f"find the upload {upload_id!r}"):
                yield
        except NotFound as exc:
            raise _missing(upload_id) from exc

    def _about(self, upload_id: str) -> Path:
        return self._folder / f"{upload_id}.json"

    def _data(self, upload_id: str) -> Path:
        return self._folder / f"{upload_id}.data"


class Appending:
    """A piece of an upload, while it comes."""

    def __init__(self, file: Any, what: str, offset_bytes: int, size_bytes: int) -> None:
        self._file = file
        self._what = what
        self._size_bytes = size_bytes
        self._sum = hashlib.sha256()
        self.offset_bytes = offset_bytes
        self._file.seek(offset_bytes)

    def write(self, data: bytes) -> None:
        if self.offset_bytes + len(data) > self._size_bytes:
            raise TooMuch(
                f"cannot {self._what}: more comes than the {self._size_bytes} bytes that were said"
                " to; make another upload of the right size",
                limit_bytes=self._size_bytes,
            )
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]
        self._sum.update(data)
        self.offset_bytes += len(data)

    @property
    def sha256(self) -> str:
        return self._sum.hexdigest()


class TooMuch(Invalid):
    """More came than was said. It has a kind of its own, as HTTP has a number of its own for it."""

    http_status = 413


def _missing(upload_id: str) -> NotFound:
    return NotFound(
        f"cannot find the upload {upload_id!r}: there is none of that id, or it was too old"
    )
