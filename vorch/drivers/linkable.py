"""Which images at a URL librbd shows rightly before they are there, judged by parts of them.

librbd 16.2 reads raw files and qcow2 by itself, in every process that opens the image or a clone.
It takes much of qcow2 that it then cannot read: a compressed cluster is an error when a guest gets
there, and one that is marked as zeros shows what lies under the mark, which is wrong data without
any error. So all tables of a qcow2 are looked through first, and what has such a cluster is not
linked. What is dangerous is refused for every import, and by the same judge.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from vorch.drivers.disk_formats import (
    SECTOR,
    Damaged,
    Judged,
    Qcow2,
    judge_disk,
    read_qcow2,
)
from vorch.drivers.http_ranges import HttpRanges, Mark
from vorch.errors import Invalid, Unsupported
from vorch.ports import Progress

MIB = 1024**2
# All that a header says is within this, whatever the size of its clusters; and what a CD begins
# with.
_HEAD_BYTES = 4 * MIB
# What some formats have at their end.
_TAIL_BYTES = 64 * 1024
# Asking for more tables takes longer than it is worth.
_MOST_TABLE_BYTES = 64 * MIB
_MOST_TABLES = 4096
_PLACE = 0x00FFFFFFFFFFFE00
_COMPRESSED = 1 << 62
_ZERO = 1
_REMEDY = "import it without --at-once, or offer it as raw (`qemu-img convert -O raw`)"


def judge_at(url: str, what: str, progress: Progress) -> tuple[Judged, Mark]:
    """What is there, and its mark, if it can be linked."""
    with HttpRanges(url, what) as ranges:
        mark = ranges.mark()
        with _likeness(ranges, mark.size_bytes) as file:
            judged = judge_disk(file, what)
            if judged.format not in ("raw", "qcow2"):
                raise Unsupported(
                    f"cannot {what}: librbd does not read {judged.format} images; {_REMEDY}"
                )
            if judged.format == "qcow2":
                try:
                    header = read_qcow2(file)
                    _check_header(file, header, what)
                    _check_tables(ranges, header, mark.size_bytes, what, progress)
                except Damaged as exc:
                    raise Invalid(
                        f"cannot {what}: it is damaged: {exc}; fetch or make it anew"
                    ) from exc
                size = header.size_bytes
            else:
                size = mark.size_bytes
        if size % SECTOR:
            raise Unsupported(
                f"cannot {what}: its {size} bytes are no whole number of sectors of {SECTOR};"
                " import it without --at-once, which fills the last one"
            )
        return judged, mark


def check_same(url: str, mark: Mark, what: str) -> None:
    """`Invalid` when it is not what it was."""
    with HttpRanges(url, what) as ranges:
        if ranges.mark() != mark:
            raise Invalid(
                f"cannot {what}: it was changed on its server while its data came in, so that they"
                " do not fit together; delete what was made of it, and import it anew"
            )


@contextmanager
def _likeness(ranges: HttpRanges, size_bytes: int) -> Iterator[int]:
    """A file of the same length of which only what judges look at is there."""
    file = os.memfd_create("vorch")
    try:
        os.truncate(file, size_bytes)
        head = min(_HEAD_BYTES, size_bytes)
        tail = max(head, size_bytes - _TAIL_BYTES)
        for start, end in ((0, head), (tail, size_bytes)):
            if end > start:
                _place(file, start, ranges.read(start, end - start))
        yield file
    finally:
        os.close(file)


def _place(file: int, offset: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(file, view, offset)
        view, offset = view[written:], offset + written


def _check_header(file: int, header: Qcow2, what: str) -> None:
    features = struct.unpack(">Q", os.pread(file, 8, 72))[0] if header.version == 3 else 0
    if header.snapshots or struct.unpack(">I", os.pread(file, 4, 60))[0]:
        raise Unsupported(f"cannot {what}: it has snapshots inside; {_REMEDY}")
    # Dirty counts of clusters are no matter to who only reads.
    if features & ~1:
        raise Unsupported(
            f"cannot {what}: it is a qcow2 image of a kind that librbd does not read; {_REMEDY}"
        )


def _check_tables(
    ranges: HttpRanges, header: Qcow2, length: int, what: str, progress: Progress
) -> None:
    """Every cluster is there as it is, or is not there at all."""
    cluster = header.cluster_bytes
    per_table = cluster // 8
    needed = -(-header.size_bytes // (cluster * per_table))
    if needed > header.l1_entries:
        raise Damaged("its first table is too short for its size")
    first = _entries(ranges.read(header.l1_offset, needed * 8)) if needed else ()
    places = [entry & _PLACE for entry in first]
    tables = sorted({place for place in places if place})
    if len(tables) > _MOST_TABLES or len(tables) * cluster > _MOST_TABLE_BYTES:
        raise Unsupported(
            f"cannot {what}: it has too many tables to look them all through; {_REMEDY}"
        )
    for number, place in enumerate(tables):
        if place % cluster or place + cluster > length:
            raise Damaged("it ends before its tables: it was cut off")
        for entry in _entries(ranges.read(place, cluster)):
            if entry & _COMPRESSED:
                raise Unsupported(
                    f"cannot {what}: it is compressed inside, which librbd cannot read; {_REMEDY}"
                )
            if entry & _ZERO:
                raise Unsupported(
                    f"cannot {what}: it has clusters marked as zeros, which librbd reads wrongly;"
                    f" {_REMEDY}"
                )
            at = entry & _PLACE
            if at % cluster or at + cluster > length:
                raise Damaged("a part of it lies behind its end: it was cut off")
        progress(100 * (number + 1) / len(tables))


def _entries(table: bytes) -> tuple[int, ...]:
    return struct.unpack(f">{len(table) // 8}Q", table)
