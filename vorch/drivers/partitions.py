"""Partition tables and what partitions hold. Of a guest's disk nothing is trusted."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Literal

from vorch.inside import Partition

# (offset, length) → so many bytes, or fewer at the end of the disk.
Read = Callable[[int, int], bytes]

SECTOR_BYTES = 512
MOST_PARTITIONS = 128
_EXTENDED = (0x05, 0x0F, 0x85)
_PROTECTIVE = 0xEE


def table_of(
    read: Read, size_bytes: int
) -> tuple[Literal["gpt", "mbr", "none"], bool, list[Partition]]:
    """Its kind, whether a BIOS finds something to start, and the partitions."""
    first = read(0, SECTOR_BYTES).ljust(SECTOR_BYTES, b"\0")
    marked = first[510:512] == b"\x55\xaa"
    if marked and not _is_file_system(read):
        starts = any(first[:440])
        entries = list(_entries(first))
        if any(kind == _PROTECTIVE for kind, _, _ in entries):
            return "gpt", starts, _described(read, size_bytes, _gpt(read))
        if entries:
            return "mbr", starts, _described(read, size_bytes, _mbr(read, entries))
    return "none", marked and any(first[:440]), _described(read, size_bytes, [(0, 0, size_bytes)])


def _is_file_system(read: Read) -> bool:
    """A FAT begins with a boot sector that bears the same mark."""
    return holds(read, 0) != ""


def _entries(sector: bytes) -> list[tuple[int, int, int]]:
    found: list[tuple[int, int, int]] = []
    for number in range(4):
        entry = sector[446 + 16 * number : 462 + 16 * number]
        kind = entry[4]
        start, count = struct.unpack("<II", entry[8:16])
        if kind and count:
            found.append((kind, start, count))
        else:
            found.append((0, 0, 0))
    return found if any(kind for kind, _, _ in found) else []


def _mbr(read: Read, entries: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    found: list[tuple[int, int, int]] = []
    for number, (kind, start, count) in enumerate(entries, 1):
        if kind in _EXTENDED:
            found += _logical(read, start)
        elif kind:
            found.append((number, start * SECTOR_BYTES, count * SECTOR_BYTES))
    return found


def _logical(read: Read, base: int) -> list[tuple[int, int, int]]:
    found: list[tuple[int, int, int]] = []
    at, seen = base, set[int]()
    while at not in seen and len(seen) < MOST_PARTITIONS:
        seen.add(at)
        entries = _entries(read(at * SECTOR_BYTES, SECTOR_BYTES).ljust(SECTOR_BYTES, b"\0"))
        following = 0
        for kind, start, count in entries:
            if kind in _EXTENDED:
                following = base + start
            elif kind:
                number = 5 + len(found)
                found.append((number, (at + start) * SECTOR_BYTES, count * SECTOR_BYTES))
        if not following:
            break
        at = following
    return found


def _gpt(read: Read) -> list[tuple[int, int, int]]:
    header = read(SECTOR_BYTES, SECTOR_BYTES).ljust(SECTOR_BYTES, b"\0")
    if header[:8] != b"EFI PART":
        return []
    at, count, size = struct.unpack("<QII", header[72:88])
    if not 128 <= size <= 4096:
        return []
    entries = read(at * SECTOR_BYTES, min(count, MOST_PARTITIONS) * size)
    found = []
    for number in range(1, len(entries) // size + 1):
        entry = entries[(number - 1) * size : number * size]
        first, last = struct.unpack("<QQ", entry[32:48])
        if any(entry[:16]) and last >= first:
            found.append((number, first * SECTOR_BYTES, (last - first + 1) * SECTOR_BYTES))
    return found


def _described(read: Read, size_bytes: int, places: list[tuple[int, int, int]]) -> list[Partition]:
    return [
        Partition(number=number, start_bytes=start, size_bytes=size, holds=holds(read, start))
        for number, start, size in places
        if 0 <= start < size_bytes
    ]


# (offset, what stands there, what it is)
_MARKS = (
    (0, b"XFSB", "xfs"),
    (0, b"LUKS\xba\xbe", "luks"),
    (0, b"-FVE-FS-", "bitlocker"),
    (3, b"NTFS    ", "ntfs"),
    (65536 + 64, b"_BHRfS_M", "btrfs"),
    (4096 - 10, b"SWAPSPACE2", "swap"),
    (1024, b"\x10\x20\xf5\xf2", "f2fs"),
    (0, b"hsqs", "squashfs"),
    (4096, b"\xfc\x4e\x2b\xa9", "raid"),
)


def holds(read: Read, start: int) -> str:
    """What is there, by its first bytes; "" for what nobody knows."""
    head = read(start, 8192)
    for offset, mark, name in _MARKS:
        piece = head[offset : offset + len(mark)]
        if offset + len(mark) > len(head):
            piece = read(start + offset, len(mark))
        if piece == mark:
            return name
    if any(head[512 * n : 512 * n + 8] == b"LABELONE" for n in range(4)):
        return "lvm"
    if head[1024 + 56 : 1024 + 58] == b"\x53\xef":
        return "ext4"
    if head[510:512] == b"\x55\xaa" and (head[54:57] == b"FAT" or head[82:87] == b"FAT32"):
        return "vfat"
    return ""
