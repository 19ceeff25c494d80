"""Moving bytes into and out of RBD images: from image to image, from files, and to readers.

librbd's own copies can neither be watched nor cancelled from Python (16.2), and its deep copy ends
the whole process on an image that has group snapshots. Objects are independent, so a few threads
that each move whole objects are as fast; where there is nothing, nothing is read or written.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing
from typing import Any, TypeVar

from vorch.drivers.image_export import data_parts
from vorch.drivers.rbd_pool import extents
from vorch.ports import Content, Progress

PIECE_BYTES = 4 * 1024**2
THREADS = 8
LOOK_EVERY_S = 0.2
# Ceph takes no smaller part of a disk for free.
_GRAIN_BYTES = 4096

T = TypeVar("T")


def in_parallel(
    act: Callable[[T], object], items: Iterable[T], threads: int
) -> Generator[T, None, None]:
    """Do it with each, a few at a time; each item again as it is done, in order."""
    with ThreadPoolExecutor(threads, thread_name_prefix="rbd") as executor:
        pending: deque[tuple[T, Future[object]]] = deque()
        try:
            for item in items:
                pending.append((item, executor.submit(act, item)))
                # So many are held in memory at most.
                if len(pending) >= 2 * threads:
                    done, result = pending.popleft()
                    result.result()
                    yield done
            while pending:
                done, result = pending.popleft()
                result.result()
                yield done
        finally:
            for _, left in pending:
                left.cancel()


def content_of(image: Any, translated: Callable[[], Any]) -> Content:
    """All that an open image shows, its base included. `translated` is of the image's own pool."""

    def read(offset: int, count: int) -> bytes:
        with translated():
            return bytes(image.read(offset, count))

    return Content(int(image.size()), tuple(extents(image, None, parents=True)), read)


def copy_content(source: Content, target: Any, progress: Progress) -> None:
    """To an empty image of the same size or a larger one."""
    size = source.size_bytes
    pieces = [
        (start, min(PIECE_BYTES, offset + length - start, size - start))
        for offset, length in source.extents
        for start in range(offset, min(offset + length, size), PIECE_BYTES)
    ]
    progress(0, f"{sum(length for _, length in pieces) / 1024**2:,.0f} MiB to copy")

    def move(piece: tuple[int, int]) -> None:
        _write(target, piece[0], source.read(*piece))

    with closing(in_parallel(move, pieces, THREADS)) as moved:
        for number, _ in enumerate(moved, 1):
            progress(100 * number / (len(pieces) + 1))
    target.flush()
    progress(100)


def flatten(image: Any, progress: Progress) -> None:
    """Let librbd copy into a clone what it still takes from its base.

    Whoever has the exclusive lock does it, a guest's QEMU while that runs. librbd 16 can end what
    this process does; what a QEMU does it cannot, so then the end is waited for.
    """
    seen = [0.0]
    ended = threading.Event()

    def see(done: int, whole: int) -> int:
        seen[0] = 100 * done / max(1, whole)
        return -errno.ECANCELED if ended.is_set() else 0

    with ThreadPoolExecutor(1, thread_name_prefix="rbd") as executor:
        flattened = executor.submit(image.flatten, on_progress=see)
        try:
            while not wait([flattened], LOOK_EVERY_S).done:
                progress(seen[0])
        except BaseException:
            ended.set()
            raise
        flattened.result()
    progress(100)


def upload(file: int, target: Any, progress: Progress, *, digest: bool) -> str:
    """A file's bytes to an empty image; their SHA-256 if it is wanted, else "".

    For the digest every byte is read; without it holes are skipped.
    """
    size = os.fstat(file).st_size
    sha256 = hashlib.sha256()

    def pieces() -> Iterator[tuple[int, bytes]]:
        for start, end in [(0, size)] if digest else data_parts(file, size):
            for offset in range(start, end, PIECE_BYTES):
                data = _read(file, offset, min(PIECE_BYTES, end - offset))
                if digest:
                    sha256.update(data)
                yield offset, data

    def write(piece: tuple[int, bytes]) -> None:
        _write(target, *piece)

    with closing(in_parallel(write, pieces(), THREADS)) as written:
        for offset, data in written:
            progress(min(99.9, 100 * (offset + len(data)) / max(1, size)))
    target.flush()
    progress(100)
    return sha256.hexdigest() if digest else ""


def _read(file: int, offset: int, count: int) -> bytes:
    parts = []
    while count:
        part = os.pread(file, count, offset)
        if not part:
            break
        parts.append(part)
        offset, count = offset + len(part), count - len(part)
    return b"".join(parts)


def _write(target: Any, offset: int, data: bytes) -> None:
    """Without the zeros before and behind: a new image shows zeros everywhere."""
    body = data.rstrip(b"\0")
    if body:
        lead = (len(body) - len(body.lstrip(b"\0"))) // _GRAIN_BYTES * _GRAIN_BYTES
        target.write(body[lead:], offset + lead)


class ImageReader(io.RawIOBase):
    """An image as a file to read. `translated` turns Ceph's errors into vorch's."""

    def __init__(self, image: Any, translated: Callable[[], Any], release: Callable[[], None]):
        self._image = image
        self._translated = translated
        self._release = release
        self._size = int(image.size())
        self._offset = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._offset

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._offset, io.SEEK_END: self._size}[whence]
        self._offset = max(0, start + offset)
        return self._offset

    def readinto(self, buffer: Any) -> int:
        count = max(0, min(len(buffer), PIECE_BYTES, self._size - self._offset))
        if count:
            with self._translated():
                data = self._image.read(self._offset, count)
            count = len(data)
            buffer[:count] = data
            self._offset += count
        return count

    def close(self) -> None:
        if not self.closed:
            self._release()
        super().close()
