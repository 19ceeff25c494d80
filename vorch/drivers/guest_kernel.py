"""What starts a kernel and which drivers it has: by its file, its config and its initramfs."""

from __future__ import annotations

import bz2
import lzma
import re
import struct
import zlib
from collections.abc import Collection, Iterator

from vorch.inside import Entry, Has

KERNEL_LIMIT_BYTES = 128 * 1024**2
INITRAMFS_LIMIT_BYTES = 512 * 1024**2
# What a kernel or initramfs may come to when unpacked: a small file can be made to be endless.
UNPACKED_LIMIT_BYTES = 512 * 1024**2

# Driver → how a kernel's configuration calls it.
DRIVERS = {
    "xen_blkfront": "CONFIG_XEN_BLKDEV_FRONTEND",
    "xen_netfront": "CONFIG_XEN_NETDEV_FRONTEND",
    "virtio_pci": "CONFIG_VIRTIO_PCI",
    "virtio_blk": "CONFIG_VIRTIO_BLK",
    "virtio_scsi": "CONFIG_SCSI_VIRTIO",
    "virtio_net": "CONFIG_VIRTIO_NET",
    "sd_mod": "CONFIG_BLK_DEV_SD",
    "ahci": "CONFIG_SATA_AHCI",
    "ata_piix": "CONFIG_ATA_PIIX",
    "e1000": "CONFIG_E1000",
    "e1000e": "CONFIG_E1000E",
    "8139cp": "CONFIG_8139CP",
}
_MODULE = re.compile(r"([A-Za-z0-9_-]+)\.ko(?:\.(?:xz|gz|zst))?$")


_SOMETHING = re.compile(rb"[^\0]")
_ENTRY, _PHYS32_ENTRY = 1, 18


class NotUnpacked(Exception):
    """Its compression is one that is not known here."""


# ---------------------------------------------------------------------------------------------
# Compression


def unpacked(data: bytes, most: int = UNPACKED_LIMIT_BYTES) -> bytes:
    """Of whatever compression it is, by its first bytes; what follows it is left away."""
    if data[:2] == b"\x1f\x8b":
        return _bounded(zlib.decompressobj(wbits=31), data, most)
    if data[:6] == b"\xfd7zXZ\0":
        return _bounded(lzma.LZMADecompressor(), data, most)
    if data[:3] == b"BZh":
        return _bounded(bz2.BZ2Decompressor(), data, most)
    if data[:3] == b"\x5d\0\0":
        return _bounded(lzma.LZMADecompressor(format=lzma.FORMAT_ALONE), data, most)
    if data[:4] == b"\x28\xb5\x2f\xfd":
        return _zstandard(data, most)
    for mark, name in (
        (b"\x02\x21\x4c\x18", "LZ4"),
        (b"\x04\x22\x4d\x18", "LZ4"),
        (b"\x89LZO", "LZO"),
    ):
        if data.startswith(mark):
            raise NotUnpacked(f"it is compressed by {name}, which is not read here")
    raise NotUnpacked("it is compressed in a way that is not known here")


def _bounded(unpacker: object, data: bytes, most: int) -> bytes:
    try:
        return bytes(unpacker.decompress(data, most))  # type: ignore[attr-defined]
    except (OSError, EOFError, zlib.error, lzma.LZMAError, ValueError) as exc:
        raise NotUnpacked(f"it cannot be unpacked: {exc}") from exc


def _zstandard(data: bytes, most: int) -> bytes:
    try:
        import zstandard
    except ImportError as exc:
        raise NotUnpacked(
            "it is compressed by Zstandard; install vorch with the extra 'inside' to look into it"
        ) from exc
    found, unpacker = bytearray(), zstandard.ZstdDecompressor().decompressobj()
    try:
        for at in range(0, len(data), 1024**2):
            found += unpacker.decompress(data[at : at + 1024**2])
            if unpacker.eof or len(found) > most:
                break
    except zstandard.ZstdError as exc:
        raise NotUnpacked(f"it cannot be unpacked: {exc}") from exc
    return bytes(found)


# ---------------------------------------------------------------------------------------------
# The kernel


def release_of(kernel: bytes) -> str:
    """The version that a bzImage says it is; "" where it is none."""
    if kernel[0x202:0x206] != b"HdrS":
        return ""
    (at,) = struct.unpack_from("<H", kernel, 0x20E)
    text = kernel[at + 0x200 : at + 0x200 + 200].split(b"\0")[0]
    return text.decode("ascii", "replace").split(" ")[0] if at else ""


def entries_of_config(config: str) -> frozenset[Entry]:
    options = set(config.splitlines())
    found: set[Entry] = {"bare"}
    if "CONFIG_XEN_PV=y" in options:
        found.add("pv")
    if "CONFIG_XEN_PVH=y" in options or "CONFIG_PVH=y" in options:
        found.add("pvh")
    return frozenset(found)


def image_of(kernel: bytes) -> bytes:
    """What a kernel is when it is unpacked."""
    if kernel[0x202:0x206] != b"HdrS":
        return kernel
    return unpacked(payload_of(kernel))


def setup_bytes(bzimage: bytes) -> int:
    """How long its 16-bit part is; the rest stands behind it."""
    return ((bzimage[0x1F1] or 4) + 1) * 512


def payload_of(bzimage: bytes) -> bytes:
    """What it unpacks when it is started, as it is packed."""
    offset, length = struct.unpack_from("<II", bzimage, 0x248)
    start = setup_bytes(bzimage) + offset
    return bzimage[start : start + length]


def entries_of_image(kernel: bytes, image: bytes) -> frozenset[Entry]:
    """By the notes that it has for Xen: where it is entered as a PV guest, and as a PVH one."""
    found: set[Entry] = {"bare"} if kernel[0x202:0x206] == b"HdrS" else set()
    for owner, kind in _notes(image):
        if owner == b"Xen\0" and kind == _ENTRY:
            found.add("pv")
        elif owner == b"Xen\0" and kind == _PHYS32_ENTRY:
            found.add("pvh")
    return frozenset(found)


def builtin_in(image: bytes) -> frozenset[str]:
    """Drivers that are a part of it: those name their parameters in it, as `xen_blkfront.…`."""
    return frozenset(one for one in DRIVERS if b"\0" + one.encode() + b"." in image)


def _notes(image: bytes) -> Iterator[tuple[bytes, int]]:
    if image[:5] == b"\x7fELF\x02":
        (table,), (size, count) = (
            struct.unpack_from("<Q", image, 32),
            struct.unpack_from("<HH", image, 54),
        )
        places = "<8xQ16xQ"
    elif image[:5] == b"\x7fELF\x01":
        (table,), (size, count) = (
            struct.unpack_from("<I", image, 28),
            struct.unpack_from("<HH", image, 42),
        )
        places = "<4xI8xI"
    else:
        raise NotUnpacked("it is no kernel of a kind that is known here")
    for number in range(min(count, 64)):
        at = table + number * size
        if at + 56 > len(image):
            return
        (kind,) = struct.unpack_from("<I", image, at)
        if kind != 4:
            continue
        offset, length = struct.unpack_from(places, image, at)
        yield from _notes_in(image[offset : offset + min(length, 1024**2)])


def _notes_in(data: bytes) -> Iterator[tuple[bytes, int]]:
    at = 0
    while at + 12 <= len(data):
        name, described, kind = struct.unpack_from("<III", data, at)
        owner = data[at + 12 : at + 12 + name]
        at += 12 + -(-name // 4) * 4 + -(-described // 4) * 4
        yield owner, kind


# ---------------------------------------------------------------------------------------------
# Drivers


def module_of(path: str) -> str:
    """The module that a path names, as `lsmod` calls it; "" for another file."""
    found = _MODULE.search(path)
    return found[1].replace("-", "_") if found else ""


def names_in(archive: bytes) -> Iterator[str]:
    """Paths in an initramfs: cpio archives one after the other, the last of which is compressed."""
    at = 0
    while at < len(archive):
        if archive[at : at + 1] == b"\0":
            at = _after_zeros(archive, at)
            continue
        if archive[at : at + 6] not in (b"070701", b"070702"):
            yield from names_in_cpio(unpacked(archive[at:]))
            return
        for path, after in members(archive, at):
            at = after
            yield path


def names_in_cpio(archive: bytes) -> Iterator[str]:
    at = 0
    while at < len(archive):
        if archive[at : at + 1] == b"\0":
            at = _after_zeros(archive, at)
            continue
        before = at
        for path, after in members(archive, at):
            at = after
            yield path
        if at == before:
            raise NotUnpacked("it holds something else than a cpio archive")


def _after_zeros(archive: bytes, at: int) -> int:
    found = _SOMETHING.search(archive, at)
    return len(archive) if found is None else found.start()


def members(archive: bytes, at: int) -> Iterator[tuple[str, int]]:
    """(path, where the next one begins) until the archive's end."""
    while archive[at : at + 6] in (b"070701", b"070702") and at + 110 <= len(archive):
        try:
            size = int(archive[at + 54 : at + 62], 16)
            length = int(archive[at + 94 : at + 102], 16)
        except ValueError as exc:
            raise NotUnpacked("an entry of it makes no sense") from exc
        if size < 0 or length < 0:
            raise NotUnpacked("an entry of it makes no sense")
        name = archive[at + 110 : at + 109 + length].decode("utf-8", "replace")
        data = at + -(-(110 + length) // 4) * 4
        at = data + -(-size // 4) * 4
        yield name, at
        if name == "TRAILER!!!":
            return


def where_drivers_are(
    config: str,
    builtin: Collection[str] | None,
    initramfs: Collection[str] | None,
    on_disk: Collection[str],
) -> dict[str, Has]:
    """Of each driver. None: that could not be looked into."""
    lines = [line.split("=", 1) for line in config.splitlines() if line.startswith("CONFIG_")]
    options = {line[0]: line[1] for line in lines if len(line) == 2}

    def where(driver: str) -> Has:
        if options.get(DRIVERS[driver]) == "y" or driver in (builtin or ()):
            return "builtin"
        if driver in (initramfs or ()):
            return "initramfs"
        if driver in on_disk:
            return "module"
        return "no" if options or builtin is not None else "unknown"

    return {driver: where(driver) for driver in DRIVERS}
