"""Writing what a volume holds to a file of this machine, as raw, qcow2 or vmdk.

The file is made before anything is written, and everybody writes to it by its open handle. So when
vorch is killed, a qemu-img that lives on writes to a file that has been removed, and nothing else.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from vorch.drivers.image_import import _span
from vorch.drivers.os_errors import translated
from vorch.drivers.qemu_img import cpu_limit_s, qemu_img
from vorch.errors import Invalid, NoRoom
from vorch.plan import ExportFormat
from vorch.ports import Content, Progress

PIECE_BYTES = 4 * 1024**2
# File systems take no smaller part of a file for a hole.
GRAIN_BYTES = 4096
# What stays free of the file system that is written to.
RESERVE_BYTES = 32 * 1024**2
FILE_MODE = 0o600


def export(
    content: Content, path: str, format_: ExportFormat, what: str, progress: Progress
) -> None:
    """Of any volume, by way of a raw file where another format is wanted."""
    with translated(what), target_file(path, what) as target:
        _check_room(target, sum(length for _, length in content.extents), what)
        if format_ == "raw":
            pour(content, target, progress)
            os.fsync(target)
            return
        if content.file is not None:
            convert("raw", f"/dev/fd/{content.file}", format_, target, content.size_bytes, what,
                    progress, pass_files=(content.file,))  # fmt: skip
            return
        # Without a name, so that nothing of it is left, whatever happens.
        with tempfile.TemporaryFile(dir=Path(path).parent) as flat:
            pour(content, flat.fileno(), _span(progress, 0, 60))
            convert("raw", f"/dev/fd/{flat.fileno()}", format_, target, content.size_bytes, what,
                    _span(progress, 60, 100), pass_files=(flat.fileno(),))  # fmt: skip


def convert(
    from_format: str,
    source: str,
    format_: ExportFormat,
    target: int,
    size_bytes: int,
    what: str,
    progress: Progress,
    *,
    options: Sequence[str] = (),
    pass_files: Sequence[int] = (),
) -> None:
    qemu_img(
        ["convert", "-p", *options, "-f", from_format, "-O", format_, source,
         f"/dev/fd/{target}"],
        what,
        cpu_s=cpu_limit_s(size_bytes),
        progress=progress,
        pass_files=(*pass_files, target),
    )  # fmt: skip
    os.fsync(target)


@contextmanager
def target_file(path: str, what: str) -> Iterator[int]:
    """An empty file to write to, which only this user may read."""
    if not Path(path).parent.is_dir():
        raise Invalid(
            f"cannot {what}: '{Path(path).parent}' is not a folder of this machine; make it first,"
            " or name another"
        )
    flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    file = os.open(path, flags, FILE_MODE)
    try:
        yield file
    finally:
        os.close(file)


def _check_room(file: int, needed_bytes: int, what: str) -> None:
    """What it holds is what it takes at most; holes take nothing."""
    room = os.fstatvfs(file)
    free = room.f_bavail * room.f_frsize
    if needed_bytes + RESERVE_BYTES > free:
        raise NoRoom(
            f"cannot {what}: it needs up to {needed_bytes / 1024**2:,.0f} MiB, and"
            f" {free / 1024**2:,.0f} MiB are free there; free some space, or name another folder",
            needed_bytes=needed_bytes,
            free_bytes=free,
        )


def pour(content: Content, file: int, progress: Progress) -> None:
    """Sparse, and of the content's size."""
    os.ftruncate(file, content.size_bytes)
    for offset, data in pieces(content, progress):
        os.pwrite(file, data, offset)
    progress(100)


def pieces(content: Content, progress: Progress) -> Iterator[tuple[int, bytes]]:
    """(offset, bytes) of what is not zeros."""
    whole = sum(length for _, length in content.extents)
    done = 0
    for start, length in content.extents:
        for offset in range(start, min(start + length, content.size_bytes), PIECE_BYTES):
            count = min(PIECE_BYTES, start + length - offset, content.size_bytes - offset)
            body = content.read(offset, count).rstrip(b"\0")
            if body:
                lead = (len(body) - len(body.lstrip(b"\0"))) // GRAIN_BYTES * GRAIN_BYTES
                yield offset + lead, body[lead:]
            done += count
            progress(min(99.9, 100 * done / max(1, whole)))


def file_content(file: int) -> Content:
    """An open, sparse file as content."""
    size = os.fstat(file).st_size
    extents = tuple((start, end - start) for start, end in data_parts(file, size))
    return Content(size, extents, lambda offset, count: os.pread(file, count, offset), file)


def data_parts(file: int, size: int) -> Iterator[tuple[int, int]]:
    """The parts of a sparse file that are not holes."""
    at = 0
    while at < size:
        try:
            start = os.lseek(file, at, os.SEEK_DATA)
        except OSError:
            # ENXIO: only a hole is left.
            return
        at = os.lseek(file, start, os.SEEK_HOLE)
        yield start, min(at, size)
