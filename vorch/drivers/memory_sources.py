"""Where the world in memory imports files from, and what disks are in them.

What is safe to import is judged as for the local pool. The rest is small readers of the formats,
so that a world in memory needs no other program.
"""

from __future__ import annotations

import os
import struct
import zlib
from typing import Literal

from vorch.drivers import disk_formats
from vorch.drivers.fetch import CHUNK_BYTES, origin
from vorch.errors import Invalid
from vorch.ports import Progress

# What is imported is held in memory.
LIMIT_BYTES = 2 * 1024**3

SECTOR = 512


class Files:
    """Real files and URLs, and those of the world, which need neither disk nor network."""

    def __init__(self) -> None:
        self.made_up: dict[str, bytes] = {}

    def fetch(self, location: str, progress: Progress) -> bytes:
        if location in self.made_up:
            return self.made_up[location]
        whole = bytearray()
        with origin(location) as source:
            while chunk := source.read(CHUNK_BYTES):
                whole += chunk
                if len(whole) > LIMIT_BYTES:
                    raise Invalid(
                        f"cannot import {location!r}: it is larger than the {LIMIT_BYTES} bytes"
                        " that a world in memory takes; use a real pool"
                    )
                # Half of the way: the other half is writing it.
                share = len(whole) / source.size_bytes if source.size_bytes else None
                progress(None if share is None else min(50.0, 50.0 * share))
        return bytes(whole)


def judge(
    location: str, data: bytes, content: Literal["disk", "iso", "file"]
) -> tuple[str, int, bytes]:
    """(format, size of the disk, its bytes up to where only zeros follow)."""
    if content == "file":
        return "raw", len(data), data
    file = os.memfd_create("vorch")
    try:
        os.truncate(file, len(data))
        view, at = memoryview(data), 0
        while view:
            written = os.pwrite(file, view, at)
            view, at = view[written:], at + written
        if content == "iso":
            if not disk_formats.is_cd(file):
                raise Invalid(
                    f"cannot import {location!r}: it is not a CD image (ISO 9660 or UDF); if it is"
                    " a disk image, import it as one",
                    location=location,
                )
            return "iso", len(data), data
        judged = disk_formats.judge_disk(file, f"import {location!r}")
    finally:
        os.close(file)
    if judged.format == "raw":
        return "raw", judged.size_bytes, data
    reader = {"qcow2": _qcow2, "vmdk": _vmdk, "vdi": _vdi}[judged.format]
    disk = _Sparse(location, judged.size_bytes)
    try:
        reader(data, disk)
    except (struct.error, IndexError, zlib.error, OverflowError, ZeroDivisionError) as exc:
        raise Invalid(
            f"cannot import {location!r}: it is damaged ({exc}); fetch or make it anew",
            location=location,
        ) from exc
    return judged.format, judged.size_bytes, disk.bytes()


class _Sparse:
    """The bytes of a disk while they are put together."""

    def __init__(self, location: str, size_bytes: int) -> None:
        self.location = location
        self.size_bytes = size_bytes
        self._parts: list[tuple[int, bytes]] = []

    def put(self, offset: int, data: bytes) -> None:
        if offset < self.size_bytes and data.strip(b"\0"):
            self._parts.append((offset, data[: self.size_bytes - offset]))

    def bytes(self) -> bytes:
        end = max((offset + len(data) for offset, data in self._parts), default=0)
        if end > LIMIT_BYTES:
            raise Invalid(
                f"cannot import {self.location!r}: its disk is larger than the {LIMIT_BYTES} bytes"
                " that a world in memory takes; use a real pool"
            )
        whole = bytearray(end)
        for offset, data in self._parts:
            whole[offset : offset + len(data)] = data
        return bytes(whole)


def _qcow2(data: bytes, disk: _Sparse) -> None:
    version, _, _, cluster_bits, _, _, l1_entries, l1_at = struct.unpack_from(">IQIIQIIQ", data, 4)
    features = struct.unpack_from(">Q", data, 72)[0] if version == 3 else 0
    # Zstandard, or entries of double width: QEMU writes neither by itself.
    if features & 24:
        raise Invalid(
            f"cannot import {disk.location!r}: it is a qcow2 image of a rare kind; convert it with"
            " `qemu-img convert`"
        )
    cluster = 1 << cluster_bits
    place = 0x00FFFFFFFFFFFE00
    per_table = cluster // 8
    # A compressed cluster's entry holds its place and, above that, how many sectors it reaches.
    bits = 62 - (cluster_bits - 8)
    for first, l1_entry in enumerate(struct.unpack_from(f">{l1_entries}Q", data, l1_at)):
        if not l1_entry & place:
            continue
        table = struct.unpack_from(f">{per_table}Q", data, l1_entry & place)
        for second, entry in enumerate(table):
            offset = (first * per_table + second) * cluster
            if entry >> 62 & 1:
                at = entry & ((1 << bits) - 1)
                sectors = (entry & ((1 << 62) - 1)) >> bits
                packed = data[at : at + (sectors + 1) * SECTOR - at % SECTOR]
                disk.put(offset, zlib.decompressobj(-15).decompress(packed, cluster))
            elif entry & place and not entry & 1:
                disk.put(offset, data[entry & place : (entry & place) + cluster])


def _vdi(data: bytes, disk: _Sparse) -> None:
    map_at, data_at = struct.unpack_from("<II", data, 340)
    _, block_bytes, _, blocks = struct.unpack_from("<QIII", data, 368)
    for number, index in enumerate(struct.unpack_from(f"<{blocks}I", data, map_at)):
        # The two highest numbers mean "never written" and "zeros".
        if index < 0xFFFFFFFE:
            start = data_at + index * block_bytes
            disk.put(number * block_bytes, data[start : start + block_bytes])


def _vmdk(data: bytes, disk: _Sparse) -> None:
    header = data[:SECTOR]
    if struct.unpack_from("<Q", header, 56)[0] == 2**64 - 1:
        # Written as a stream: the directory's place is known only at the end.
        at = -(-len(data) // SECTOR) * SECTOR - 2 * SECTOR
        header = data[at : at + SECTOR]
    flags, sectors, grain, _, _, entries, _, directory = struct.unpack_from("<IQQQQIQQ", header, 8)
    tables = -(-sectors // (grain * entries))
    for first, table_at in enumerate(struct.unpack_from(f"<{tables}I", data, directory * SECTOR)):
        if not table_at:
            continue
        table = struct.unpack_from(f"<{entries}I", data, table_at * SECTOR)
        for second, sector in enumerate(table):
            if sector <= 1:
                continue
            block = data[sector * SECTOR : (sector + grain) * SECTOR]
            if flags & 0x10000:
                # A compressed grain has its number and length before it.
                length = struct.unpack_from("<I", data, sector * SECTOR + 8)[0]
                packed = data[sector * SECTOR + 12 : sector * SECTOR + 12 + length]
                block = zlib.decompressobj().decompress(packed, grain * SECTOR)
            disk.put((first * entries + second) * grain * SECTOR, block)
