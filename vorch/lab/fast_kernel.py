"""Debian's kernel in a boot image that an emulated processor unpacks in a tenth of the time.

    image = fast_kernel(bzimage)    # None: this kernel is not made as Debian's are; use it as it is

What Debian packs with XZ is packed with LZ4 here, and fast_kernel.S unpacks it. Only for loaders
that use the 16-bit entry (a BIOS's, and QEMU's own): UEFI and Xen want the image as it came.
"""

from __future__ import annotations

import struct
import subprocess

from vorch.drivers import guest_kernel

# Of the boot protocol's header, where they stand: Documentation/arch/x86/boot.rst of Linux.
_SIZE_IN_16 = 0x1F4
_MAGIC = 0x202
_ENTRY_32 = 0x214
_RELOCATABLE = 0x234
_XLOADFLAGS = 0x236
_PAYLOAD = 0x248
_EFI_HANDOVER = 0x264
_XZ = b"\xfd7zXZ\0"

# The same as in fast_kernel.S.
LOADED = 0x100000
PAGE = 0x1000
KERNEL = 0x1000000
END_OF_KERNEL = 4

# fast_kernel.S, assembled.
START = bytes.fromhex(
    "eb06669000000000fafc893548011000be00101000bf00000001ad85c074508d1c060fb6164689d1"
    "c1e90483f90f750d0fb6064601c13dff00000074f3f3a439de73d70fb72e83c60289d183e10f83f9"
    "0f750d0fb6064601c13dff00000074f383c10489f089fe29eef3a489c6ebb38b0d0400100029f931"
    "c0f3aabf00002000b900180000f3abc7050000200003102000b803202000bf00102000b904000000"
    "8907050010000083c708e2f4b883000000bf00202000b9000800008907050000200083c708e2f40f"
    "20e083c8200f22e0b8000020000f22d8b9800000c00f320d000100000f300f0115400110000f20c0"
    "0d010000800f22c0eaff0010001000b8180000008ed88ec08ed031c08ee08ee88b342548011000b8"
    "00000001ffe0669000000000000000000000000000000000ffff0000009aaf00ffff00000092cf00"
    "1f0020011000669000000000"
)


def fast_kernel(bzimage: bytes) -> bytes | None:
    plain = plain_kernel(bzimage)
    memory = None if plain is None else _as_loaded(plain)
    if memory is None:
        return None
    start = bytearray(START.ljust(PAGE, b"\0"))
    struct.pack_into("<I", start, END_OF_KERNEL, KERNEL + len(memory))
    # The rest is written by the start itself.
    body = bytes(start) + _packed(memory.rstrip(b"\0"))
    body += bytes(-len(body) % 16)
    if LOADED + len(body) > KERNEL:
        return None
    header = bytearray(bzimage[: guest_kernel.setup_bytes(bzimage)])
    struct.pack_into("<I", header, _SIZE_IN_16, len(body) // 16)
    struct.pack_into("<I", header, _ENTRY_32, LOADED)
    # There is but one place for it, and neither a 64-bit entry, nor UEFI's, nor what is unpacked by
    # somebody else.
    header[_RELOCATABLE] = 0
    struct.pack_into("<H", header, _XLOADFLAGS, 0)
    struct.pack_into("<II", header, _PAYLOAD, 0, 0)
    struct.pack_into("<I", header, _EFI_HANDOVER, 0)
    return bytes(header) + body


def plain_kernel(bzimage: bytes) -> bytes | None:
    """The ELF file inside of a bzImage of Debian's; None: it is packed in another way."""
    payload = guest_kernel.payload_of(bzimage)
    if bzimage[_MAGIC : _MAGIC + 4] != b"HdrS" or not payload.startswith(_XZ):
        return None
    plain = guest_kernel.unpacked(payload)
    return plain if plain.startswith(b"\x7fELF\x02") else None


def _as_loaded(elf: bytes) -> bytearray | None:
    """The kernel as it stands in memory, from KERNEL on; None: it is linked for another place."""
    (entry,) = struct.unpack_from("<Q", elf, 24)
    (table,) = struct.unpack_from("<Q", elf, 32)
    (count,) = struct.unpack_from("<H", elf, 56)
    headers = [struct.unpack_from("<IIQQQQQQ", elf, table + 56 * number) for number in range(count)]
    # Type 1 is what is loaded: (offset, physical address, length in the file, in memory).
    parts = [(h[2], h[4], h[5], h[6]) for h in headers if h[0] == 1]
    if not parts or entry != KERNEL or min(part[1] for part in parts) != KERNEL:
        return None
    memory = bytearray(max(at + size for _, at, _, size in parts) - KERNEL)
    for offset, at, length, _ in parts:
        memory[at - KERNEL : at - KERNEL + length] = elf[offset : offset + length]
    return memory


def _packed(memory: bytes | bytearray) -> bytes:
    """Blocks of LZ4, each behind its length, and a length of nothing."""
    # The legacy format is that, behind four bytes.
    done = subprocess.run(["lz4", "-q", "-l", "-9", "-c"], input=memory, capture_output=True)
    done.check_returncode()
    return done.stdout[4:] + bytes(4)
