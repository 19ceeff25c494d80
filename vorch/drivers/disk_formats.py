"""What a disk image is, judged by its bytes, and what a qcow2 header says.

Two callers: the local pool reads the headers of its own qcow2 files (size, base, snapshots), which
is a thousand times faster than a process for each; and every import is judged here before qemu-img
opens it. That judgement is a matter of security. Several formats can name other files of the host,
and whoever opens such an image reads those files: so anything that refers to another file, that is
not fully understood, or that has been tampered with is refused by name. The result of an import is
always a qcow2 that we wrote ourselves, so nothing is ever guessed a second time.
"""

from __future__ import annotations

import os
import re
import struct
from dataclasses import dataclass
from typing import Literal

from vorch.errors import Invalid

MIB = 1024**2
LARGEST_BYTES = 64 * 1024**4
SMALLEST_RAW_BYTES = MIB
SECTOR = 512

DiskFormat = Literal["qcow2", "raw", "vmdk", "vdi"]


@dataclass(frozen=True, slots=True)
class Qcow2Snapshot:
    id: str
    name: str
    # What the disk's size was; None in images of version 2, whose size cannot have changed.
    size_bytes: int | None


@dataclass(frozen=True, slots=True)
class Qcow2:
    """What the header of a qcow2 file and its snapshot table say."""

    version: int
    size_bytes: int
    cluster_bytes: int
    backing: str | None
    backing_format: str | None
    snapshots: tuple[Qcow2Snapshot, ...]
    encrypted: bool
    data_file: bool
    corrupt: bool
    unknown_features: int
    l1_offset: int
    l1_entries: int

    def snapshot(self, name: str) -> Qcow2Snapshot | None:
        return next((one for one in self.snapshots if one.name == name), None)


@dataclass(frozen=True, slots=True)
class Judged:
    """A disk image that is safe to convert: its format, and the size that a guest would see."""

    format: DiskFormat
    size_bytes: int


class Damaged(Exception):
    """The bytes are not what the format demands. Says why; callers know which file it was."""


# ---------------------------------------------------------------------------------------------
# qcow2

QCOW_MAGIC = b"QFI\xfb"
_DIRTY, _CORRUPT, _DATA_FILE, _COMPRESSION, _WIDE_L2 = 1, 2, 4, 8, 16
_KNOWN_FEATURES = _DIRTY | _CORRUPT | _DATA_FILE | _COMPRESSION | _WIDE_L2
_END, _BACKING_FORMAT, _ENCRYPTION, _DATA_FILE_NAME = 0, 0xE2792ACA, 0x0537BE77, 0x44415441
# qemu's own limits: nothing that it writes is beyond them.
_LARGEST_L1_ENTRIES = 32 * MIB // 8
_MOST_SNAPSHOTS = 65536
_LARGEST_SNAPSHOT_TABLE = 64 * MIB


def _read(file: int, count: int, offset: int) -> bytes:
    """Exactly that many bytes; `Damaged` when the file ends before."""
    if offset + count >= 2**63:
        raise Damaged("it points to places that no file has")
    parts = []
    while count > 0:
        part = os.pread(file, min(count, 8 * MIB), offset)
        if not part:
            raise Damaged("it ends in the middle: it was cut off")
        parts.append(part)
        count -= len(part)
        offset += len(part)
    return b"".join(parts)


def read_qcow2(file: int) -> Qcow2:
    """Read the header through an open file descriptor. `Damaged` when it is not a sound one.

    A guest may be running on the image: its snapshot table can move while we look, so the header
    is read again afterwards, and everything anew when it has changed.
    """
    for _ in range(5):
        before = os.pread(file, 4096, 0)
        try:
            header = _parse_qcow2(file, before)
        except Damaged:
            if os.pread(file, 4096, 0) == before:
                raise
            continue
        if os.pread(file, 4096, 0) == before:
            return header
    raise Damaged("its header changes all the time")


def _parse_qcow2(file: int, head: bytes) -> Qcow2:
    if head[:4] != QCOW_MAGIC:
        raise Damaged("it does not begin as a qcow2 image does")
    if len(head) < 72:
        raise Damaged("it ends in the middle of its header")
    (
        version,
        backing_offset,
        backing_length,
        cluster_bits,
        size_bytes,
        encryption,
        l1_entries,
        l1_offset,
        _refcounts_offset,
        _refcounts_clusters,
        snapshot_count,
        snapshots_offset,
    ) = struct.unpack_from(">IQIIQIIQQIIQ", head, 4)
    if version not in (2, 3):
        raise Damaged(f"it is version {version} of the format, which is not known here")
    if not 9 <= cluster_bits <= 21:
        raise Damaged(f"its cluster size of 2^{cluster_bits} bytes is not possible")
    cluster_bytes = 1 << cluster_bits
    features, header_length = 0, 72
    if version == 3:
        if len(head) < 104:
            raise Damaged("it ends in the middle of its header")
        features = struct.unpack_from(">Q", head, 72)[0]
        header_length = struct.unpack_from(">I", head, 100)[0]
        if not 104 <= header_length <= cluster_bytes:
            raise Damaged(f"its header length of {header_length} bytes is not possible")
    if l1_entries > _LARGEST_L1_ENTRIES or snapshot_count > _MOST_SNAPSHOTS:
        raise Damaged("its tables are larger than the format allows")
    backing = None
    if backing_offset:
        if backing_length > 1023 or backing_offset > cluster_bytes:
            raise Damaged("the name of its backing file is not where it can be")
        # An empty name still counts: the header says that there is one.
        backing = _read(file, backing_length, backing_offset).decode("utf-8", "surrogateescape")
    extensions = _qcow2_extensions(file, header_length, backing_offset or cluster_bytes)
    backing_format = extensions.get(_BACKING_FORMAT)
    return Qcow2(
        version=version,
        size_bytes=size_bytes,
        cluster_bytes=cluster_bytes,
        backing=backing,
        backing_format=backing_format.decode("ascii", "replace") if backing_format else None,
        snapshots=_qcow2_snapshots(file, snapshots_offset, snapshot_count),
        encrypted=encryption != 0 or _ENCRYPTION in extensions,
        data_file=bool(features & _DATA_FILE) or _DATA_FILE_NAME in extensions,
        corrupt=bool(features & _CORRUPT),
        unknown_features=features & ~_KNOWN_FEATURES,
        l1_offset=l1_offset,
        l1_entries=l1_entries,
    )


def _qcow2_extensions(file: int, offset: int, end: int) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    while offset + 8 <= end:
        head = os.pread(file, 8, offset)
        # A file that ends here holds no further extension, just as zeros would say.
        kind, length = struct.unpack(">II", head) if len(head) == 8 else (_END, 0)
        if kind == _END:
            break
        if offset + 8 + length > end:
            raise Damaged("a header extension is longer than its room")
        # A name is enough to know about; tables of bitmaps and features are not read.
        found[kind] = _read(file, min(length, 1024), offset + 8)
        offset += 8 + (length + 7) // 8 * 8
    return found


def _qcow2_snapshots(file: int, offset: int, count: int) -> tuple[Qcow2Snapshot, ...]:
    found = []
    start = offset
    for _ in range(count):
        fixed = _read(file, 40, offset)
        id_length, name_length = struct.unpack_from(">HH", fixed, 12)
        extra_length = struct.unpack_from(">I", fixed, 36)[0]
        if extra_length > 1024:
            raise Damaged("its snapshot table is not sound")
        rest = _read(file, extra_length + id_length + name_length, offset + 40)
        size = struct.unpack_from(">Q", rest, 8)[0] if extra_length >= 16 else None
        identifier = rest[extra_length : extra_length + id_length]
        name = rest[extra_length + id_length :]
        found.append(
            Qcow2Snapshot(
                identifier.decode("utf-8", "replace"), name.decode("utf-8", "replace"), size
            )
        )
        offset += (40 + len(rest) + 7) // 8 * 8
        if offset - start > _LARGEST_SNAPSHOT_TABLE:
            raise Damaged("its snapshot table is larger than the format allows")
    return tuple(found)


def holds_nothing(file: int, header: Qcow2) -> bool:
    """No cluster was ever written to this qcow2: all that it shows is its base, or zeros."""
    if header.snapshots:
        return False
    return not any(_read(file, header.l1_entries * 8, header.l1_offset))


# ---------------------------------------------------------------------------------------------
# Judging what is to be imported


def _refuse(what: str, why: str, remedy: str) -> Invalid:
    return Invalid(f"cannot {what}: {why}; {remedy}")


# What a file can begin with that is not a disk we take: (offset, magic, what it is, what to do).
_CONVERT = "convert it first, as in `qemu-img convert -O qcow2 OLD NEW`"
_OTHERS: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"\x1f\x8b", "it is compressed with gzip", "unpack it first, with `gunzip`"),
    (0, b"\xfd7zXZ\x00", "it is compressed with xz", "unpack it first, with `unxz`"),
    (0, b"\x28\xb5\x2f\xfd", "it is compressed with zstd", "unpack it first, with `unzstd`"),
    (0, b"BZh", "it is compressed with bzip2", "unpack it first, with `bunzip2`"),
    (0, b"\x04\x22\x4d\x18", "it is compressed with lz4", "unpack it first, with `unlz4`"),
    (0, b"LZIP", "it is compressed with lzip", "unpack it first, with `lzip -d`"),
    (0, b"PK\x03\x04", "it is a zip archive", "unpack it and import the disk image inside"),
    (0, b"7z\xbc\xaf\x27\x1c", "it is a 7z archive", "unpack it and import the disk image inside"),
    (257, b"ustar", "it is a tar archive (an OVA is one)", "unpack it and import the disk inside"),
    (0, b"vhdxfile", "it is a VHDX image", _CONVERT),
    (0, b"conectix", "it is a VHD image", _CONVERT),
    (0, b"QED\x00", "it is a QED image", _CONVERT),
    (0, b"WithoutFreeSpace", "it is a Parallels image", _CONVERT),
    (0, b"WithouFreSpacExt", "it is a Parallels image", _CONVERT),
    (0, b"Bochs Virtual HD Image", "it is a Bochs image", _CONVERT),
    (0, b"LUKS\xba\xbe", "it is encrypted with LUKS", "decrypt it first"),
    (0, b"COWD", "it is a VMDK of the old ESX kind", _CONVERT),
    (0, b"# Disk DescriptorFile", "it is only the descriptor of a VMDK whose data are in other"
     " files", "convert the whole to one file first: `qemu-img convert -O qcow2 OLD.vmdk NEW`"),
)  # fmt: skip
_MARKUP = re.compile(rb"\s*(<!doctype\s+html|<html|<\?xml)", re.IGNORECASE)


def judge_disk(file: int, what: str) -> Judged:
    """The format of an image by its content. Everything that is not plainly safe is `Invalid`."""
    length = os.fstat(file).st_size
    head = os.pread(file, 4096, 0)
    try:
        if head[:4] == QCOW_MAGIC:
            return _judge_qcow2(file, head, length, what)
        if head[:4] == b"KDMV":
            return _judge_vmdk(file, head, length, what)
        if head[64:68] == b"\x7f\x10\xda\xbe":
            return _judge_vdi(head, length, what)
        _refuse_others(file, head, length, what)
    except Damaged as exc:
        raise _refuse(what, f"it is damaged: {exc}", "fetch or make it anew") from exc
    if length < SMALLEST_RAW_BYTES:
        raise _refuse(
            what,
            f"it has {length} bytes and no known format, which is too short for a disk",
            "see that it is a disk image (raw, qcow2, vmdk or vdi), of at least 1 MiB when raw",
        )
    return Judged("raw", _check_size(length, what))


def _check_size(size_bytes: int, what: str) -> int:
    if not 0 < size_bytes <= LARGEST_BYTES:
        raise _refuse(
            what, f"it shows a disk of {size_bytes} bytes", "a disk has from 1 byte to 64 TiB"
        )
    return (size_bytes + SECTOR - 1) // SECTOR * SECTOR


def _judge_qcow2(file: int, head: bytes, length: int, what: str) -> Judged:
    if head[4:8] == b"\x00\x00\x00\x01":
        raise _refuse(what, "it is a qcow image of the old version 1", _CONVERT)
    header = read_qcow2(file)
    if header.backing is not None:
        raise _refuse(
            what,
            "it has a backing file: it is only a part of a disk, and refers to another file on"
            " the host",
            "flatten it first, where its backing file is: `qemu-img convert -O qcow2 OLD NEW`",
        )
    if header.data_file:
        raise _refuse(
            what,
            "it keeps its data in another file",
            "flatten it first, where that file is: `qemu-img convert -O qcow2 OLD NEW`",
        )
    if header.encrypted:
        raise _refuse(what, "it is encrypted", "decrypt it first")
    if header.unknown_features:
        raise _refuse(
            what,
            f"it has features (0x{header.unknown_features:x}) that are not known here",
            _CONVERT,
        )
    if header.corrupt:
        raise _refuse(what, "it is marked as corrupt", "mend it first: `qemu-img check -r all`")
    if header.l1_offset + header.l1_entries * 8 > length:
        raise Damaged("it ends before its tables: it was cut off")
    return Judged("qcow2", _check_size(header.size_bytes, what))


_VMDK_SPARSE = struct.Struct("<4sIIQQQQIQQQB4sH")
_VMDK_FOOTER_AT_END = 2**64 - 1
# qemu looks for a parent in these bytes, wherever the header says that the descriptor is.
_VMDK_PARENT_AREA = (SECTOR, 20 * SECTOR)
_VMDK_EXTENT = re.compile(rb"^\s*(RW|RDONLY|NOACCESS)\s+(\S+)\s+(\S+)(.*)$", re.MULTILINE)


def _judge_vmdk(file: int, head: bytes, length: int, what: str) -> Judged:
    sectors, descriptor_at, descriptor_sectors, directory = _vmdk_header(head, what)
    if directory == _VMDK_FOOTER_AT_END:
        # The header at the end is the one that counts; a different one is a trick or damage.
        at = (length + SECTOR - 1) // SECTOR * SECTOR - 2 * SECTOR
        footer = os.pread(file, SECTOR, at) if at > 0 else b""
        if footer[:4] != b"KDMV":
            raise Damaged("its footer is missing: it was cut off")
        if _vmdk_header(footer, what)[0] != sectors:
            raise Damaged("its header and footer do not agree")
    if sectors == 0 or descriptor_at == 0:
        raise _refuse(
            what,
            "it is one part of a VMDK that is made of several files",
            "convert the whole to one file first: `qemu-img convert -O qcow2 OLD.vmdk NEW`",
        )
    if descriptor_sectors > 2048 or descriptor_at > 2**40:
        raise Damaged("its descriptor is not where it can be")
    start, count = _VMDK_PARENT_AREA
    descriptor = _read(file, descriptor_sectors * SECTOR, descriptor_at * SECTOR)
    for area in (os.pread(file, count, start), descriptor):
        if b"parentfilenamehint" in area.lower():
            raise _refuse(
                what,
                "it has a parent: it is only a part of a disk, and refers to another file on the"
                " host",
                "flatten it first, where its parent is: `qemu-img convert -O qcow2 OLD.vmdk NEW`",
            )
    text = descriptor.split(b"\x00", 1)[0]
    kind = re.search(rb'^\s*createType\s*=\s*"([^"]*)"', text, re.MULTILINE)
    extents = _VMDK_EXTENT.findall(text)
    name = re.fullmatch(rb'\s*"([^"/\\]*)"\s*', extents[0][3]) if len(extents) == 1 else None
    if (
        kind is None
        or kind[1] not in (b"monolithicSparse", b"streamOptimized")
        or name is None
        or extents[0][2] != b"SPARSE"
    ):
        raise _refuse(
            what,
            "it is a VMDK of a kind that refers to other files",
            "convert it to one file first: `qemu-img convert -O qcow2 OLD.vmdk NEW`",
        )
    return Judged("vmdk", _check_size(sectors * SECTOR, what))


def _vmdk_header(head: bytes, what: str) -> tuple[int, int, int, int]:
    """(sectors of the disk, descriptor's sector, its sectors, where the directory is)."""
    if len(head) < _VMDK_SPARSE.size:
        raise Damaged("it ends in the middle of its header")
    (
        _magic,
        version,
        _flags,
        sectors,
        grain_sectors,
        descriptor_at,
        descriptor_sectors,
        table_entries,
        _spare_directory,
        directory,
        _overhead,
        _unclean,
        line_ends,
        _compression,
    ) = _VMDK_SPARSE.unpack_from(head)
    if version not in (1, 2, 3):
        raise _refuse(what, f"it is a VMDK of the unknown version {version}", _CONVERT)
    if line_ends != b"\n \r\n":
        raise Damaged("its line ends were changed: it was not copied as binary data")
    if not 1 <= grain_sectors <= 2 * MIB or not 1 <= table_entries <= 512:
        raise Damaged("its tables are larger than the format allows")
    return sectors, descriptor_at, descriptor_sectors, directory


def _judge_vdi(head: bytes, length: int, what: str) -> Judged:
    if len(head) < 512:
        raise Damaged("it ends in the middle of its header")
    version, _header_bytes, kind = struct.unpack_from("<III", head, 68)
    _map_at, data_at = struct.unpack_from("<II", head, 340)
    sector_bytes = struct.unpack_from("<I", head, 360)[0]
    size, block_bytes, _extra, blocks, used = struct.unpack_from("<QIIII", head, 368)
    if version != 0x00010001:
        raise _refuse(what, f"it is a VDI of the unknown version 0x{version:08x}", _CONVERT)
    if kind not in (1, 2) or any(head[424:456]):
        raise _refuse(
            what,
            "it is a VDI that is only a part of a disk: it stands on another file",
            "flatten it first: `VBoxManage clonemedium OLD.vdi NEW.vdi`",
        )
    if sector_bytes != SECTOR or block_bytes != MIB or blocks * MIB < size:
        raise Damaged("its header is not sound")
    if data_at + used * MIB > length:
        raise Damaged("it ends before its last block: it was cut off")
    return Judged("vdi", _check_size(size, what))


def _refuse_others(file: int, head: bytes, length: int, what: str) -> None:
    for offset, magic, meaning, remedy in _OTHERS:
        if head[offset : offset + len(magic)] == magic:
            raise _refuse(what, meaning, remedy)
    # VHD and DMG have their mark in the last sector.
    if length >= SECTOR:
        tail = os.pread(file, SECTOR, length - SECTOR)
        if tail[:8] == b"conectix":
            raise _refuse(what, "it is a VHD image of fixed size", _CONVERT)
        if tail[:4] == b"koly":
            raise _refuse(what, "it is a DMG image", _CONVERT)
    if length < MIB and b"createType" in head:
        raise _refuse(
            what,
            "it is only the descriptor of a VMDK whose data are in other files",
            "convert the whole to one file first: `qemu-img convert -O qcow2 OLD.vmdk NEW`",
        )
    if _MARKUP.match(head):
        raise _refuse(
            what, "it is a web page or XML, not a disk", "look up the address of the image itself"
        )
    if is_cd(file):
        raise _refuse(
            what, "it is a CD image, not a disk", "import it as an ISO: `vorch image import --iso`"
        )


def is_cd(file: int) -> bool:
    """An ISO 9660 or UDF file system: what a CD or DVD image holds, from sector 16 on."""
    for sector in range(16, 20):
        mark = os.pread(file, 5, sector * 2048 + 1)
        if mark in (b"CD001", b"NSR02", b"NSR03"):
            return True
    return False
