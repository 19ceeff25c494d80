"""The kernel of the lab's guests that starts sooner; tests/guest boots it."""

from __future__ import annotations

import lzma
import random
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.assembler import assembled
from vorch.lab import fast_kernel
from vorch.lab.fast_kernel import END_OF_KERNEL, KERNEL, LOADED, PAGE, START

SETUP = 4 * 512


def test_its_bytes_are_its_source() -> None:
    assert assembled(Path(fast_kernel.__file__).with_name("fast_kernel.S"), at=LOADED) == START
    assert len(START) < PAGE


def vmlinux(parts: dict[int, bytes], *, entry: int = KERNEL) -> bytes:
    """An ELF file with these bytes at these physical addresses."""
    table, contents, at = b"", b"", 64 + 56 * len(parts)
    for address, content in parts.items():
        # Type 1: to be loaded. Linux's virtual addresses are others.
        table += struct.pack(
            "<IIQQQQQQ", 1, 5, at, address + (1 << 40), address, len(content), len(content), PAGE
        )
        contents += content
        at += len(content)
    head = b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + struct.pack(
        "<HHIQQQIHHHHHH", 2, 62, 1, entry, 64, 0, 0, 64, 56, len(parts), 0, 0, 0
    )
    return head + table + contents


def bzimage(payload: bytes) -> bytes:
    setup = bytearray(random.Random(7).randbytes(SETUP))
    setup[0x1F1] = SETUP // 512 - 1
    setup[0x202:0x206] = b"HdrS"
    struct.pack_into("<II", setup, 0x248, 0x40, len(payload))
    return bytes(setup) + bytes(0x40) + payload + b"behind it"


def unpacked(image: bytes, folder: Path) -> bytes:
    """What the start makes of it, by LZ4's own program."""
    body = image[SETUP:]
    blocks = body[PAGE:].rstrip(b"\0")
    packed = folder / "blocks.lz4"
    packed.write_bytes(b"\x02\x21\x4c\x18" + blocks)
    done = subprocess.run(["lz4", "-q", "-d", "-c", str(packed)], capture_output=True, check=True)
    (end,) = struct.unpack_from("<I", body, END_OF_KERNEL)
    return done.stdout.ljust(end - KERNEL, b"\0")


def test_what_it_unpacks_is_the_kernel(tmp_path: Path) -> None:
    text = random.Random(1).randbytes(10_000) + b"again and again " * 700_000
    data = random.Random(2).randbytes(5000) + bytes(70_000)
    elf = vmlinux({KERNEL: text, KERNEL + 0xC00000: data})
    plain = bzimage(lzma.compress(elf))
    image = fast_kernel.fast_kernel(plain)
    assert image is not None
    memory = text.ljust(0xC00000, b"\0") + data
    assert unpacked(image, tmp_path) == memory
    # The 16-bit part is as it was, but for what it says of the rest.
    changed = {n for n in range(SETUP) if image[n] != plain[n]}
    said = {0x1F4: 4, 0x214: 4, 0x234: 1, 0x236: 2, 0x248: 8, 0x264: 4}
    assert changed <= {at + n for at, size in said.items() for n in range(size)}
    (size,) = struct.unpack_from("<I", image, 0x1F4)
    assert 16 * size == len(image) - SETUP
    assert struct.unpack_from("<I", image, 0x214) == (LOADED,)


@pytest.mark.parametrize(
    "payload",
    [
        lambda: b"\x28\xb5\x2f\xfd packed by zstd",
        lambda: lzma.compress(b"no ELF"),
        lambda: lzma.compress(vmlinux({KERNEL: b"text"}, entry=KERNEL + 16)),
        lambda: lzma.compress(vmlinux({2 * KERNEL: b"text"}, entry=2 * KERNEL)),
        # It would unpack itself over itself.
        lambda: lzma.compress(vmlinux({KERNEL: random.Random(3).randbytes(KERNEL)}), preset=0),
    ],
    ids=["packed otherwise", "no ELF", "begins elsewhere", "lies elsewhere", "no room"],
)
def test_another_kernel_is_left_as_it_is(payload: Callable[[], bytes]) -> None:
    assert fast_kernel.fast_kernel(bzimage(payload())) is None
