"""Screens as values, to be compared: out of screenshots of libvirt, and as a viewer has them."""

from __future__ import annotations

import struct
import zlib
from typing import TypeAlias

from tests.rfb import Viewer, until_seen

# Width, height; red, green and blue of each pixel.
Screen: TypeAlias = tuple[int, int, bytes]
# A cursor that blinks, and a line that was written between two looks.
ALIKE = 0.97


def screen_in(told: bytes) -> Screen:
    """A screenshot as libvirt makes it: PPM, or PNG."""
    if told.startswith(b"P6"):
        width, height = map(int, told.split(maxsplit=4)[1:3])
        return width, height, told[-3 * width * height :]
    return unpacked(told)


def unpacked(png: bytes) -> Screen:
    """Of a PNG with eight bits each of red, green and blue, as newer QEMUs make it."""
    width, height, bits, kind = struct.unpack(">IIBB", png[16:26])
    assert (bits, kind) == (8, 2)
    packed, at = b"", 8
    while at < len(png):
        size, what = struct.unpack(">I4s", png[at : at + 8])
        if what == b"IDAT":
            packed += png[at + 8 : at + 8 + size]
        at += size + 12
    raw, row = zlib.decompress(packed), 3 * width
    before, shown = bytes(row), b""
    for line in range(height):
        start = line * (row + 1)
        before = unfiltered(raw[start], raw[start + 1 : start + 1 + row], before)
        shown += before
    return width, height, shown


def unfiltered(way: int, line: bytes, above: bytes) -> bytes:
    """One row, of which only differences were kept: to the left, above, to both, or to the best."""
    found = bytearray(line)
    for at in range(len(line) if way else 0):
        left, over, corner = (
            (found[at - 3], above[at], above[at - 3]) if at > 2 else (0, above[at], 0)
        )
        guess = left + over - corner
        best = min((left, over, corner), key=lambda one: abs(guess - one))
        found[at] = (line[at] + (0, left, over, (left + over) // 2, best)[way]) % 256
    return bytes(found)


def alike(one: Screen, other: Screen) -> float:
    if one[:2] != other[:2]:
        return 0.0
    pixels = zip(struct.iter_unpack("3B", one[2]), struct.iter_unpack("3B", other[2]), strict=True)
    same = sum(a == b for a, b in pixels)
    return same / (one[0] * one[1])


def seen_by(viewer: Viewer) -> Screen:
    pixels = until_seen(viewer, lambda found: len(set(struct.iter_unpack("4B", found))) > 1)
    colours = b"".join(
        bytes((red, green, blue)) for blue, green, red, _ in struct.iter_unpack("4B", pixels)
    )
    return viewer.width, viewer.height, colours
