"""The screen of a guest in memory: a small VNC server (RFB 3.8) with one still picture.

It says what a viewer needs to hear, in the pixels that it asks for, and notes its keys.
"""

from __future__ import annotations

import struct
from collections.abc import Generator
from typing import Literal

from vorch.drivers.memory_guests import MemoryGuest, Said
from vorch.drivers.memory_time import wait
from vorch.errors import Unreachable

WIDTH, HEIGHT = 160, 100
# From left to right, as red, green and blue; tests know the picture by them.
STRIPES = ((32, 64, 160), (240, 240, 240), (200, 48, 32), (16, 16, 16))
# Bits of a pixel, significant ones, byte order, true colour; the highest value of each colour, and
# by how many bits it is shifted.
_OWN_FORMAT = struct.pack(">BBBBHHHBBB3x", 32, 24, 0, 1, 255, 255, 255, 16, 8, 0)
_FIXED_BYTES = {0: 20, 2: 4, 3: 10, 4: 8, 5: 6, 6: 8}
# What a viewer may send at once; more is none.
_LONGEST = 1 << 20


class MemoryDisplay:
    """The Console port, of a screen."""

    def __init__(self, guest: MemoryGuest) -> None:
        self._guest = guest
        self._host = guest.host
        self._heard = b""
        self._output = Said(b"RFB 003.008\n")
        self._closed = ""
        self._format = _OWN_FORMAT
        self._shown = False
        self._talk = self._conversation()
        self._wanted = next(self._talk)

    def read(self, timeout_s: float) -> bytes:
        wait(self._guest.clock, timeout_s, lambda: bool(self._output) or bool(self._over()))
        output = self._output.take()
        if not output:
            self._check()
        return output

    def write(self, data: bytes) -> None:
        self._check()
        self._heard += data
        while len(self._heard) >= self._wanted and not self._closed:
            taken, self._heard = self._heard[: self._wanted], self._heard[self._wanted :]
            try:
                self._wanted = self._talk.send(taken)
            except StopIteration:
                self._closed = "the viewer said what is not RFB"

    def close(self) -> None:
        self._closed = self._closed or "it was closed"

    def _over(self) -> str:
        self._guest.settle()
        gone = self._guest.ended or self._guest.host != self._host
        return self._closed or ("its VM has ended" if gone else "")

    def _check(self) -> None:
        why = self._over()
        if why:
            name = self._guest.vm.name
            raise Unreachable(f"cannot use the screen of VM {name!r}: {why}; open it again")

    def _conversation(self) -> Generator[int, bytes, None]:
        """Yields how many bytes it wants next, and is sent them."""
        if (yield 12)[:8] != b"RFB 003.":
            return
        self._output.add(b"\x01\x01")  # one way to log in: none
        if (yield 1) != b"\x01":
            return
        self._output.add(bytes(4))
        yield 1
        name = self._guest.vm.name.encode()
        self._output.add(struct.pack(">HH", WIDTH, HEIGHT) + _OWN_FORMAT)
        self._output.add(struct.pack(">I", len(name)) + name)
        while True:
            kind = (yield 1)[0]
            if kind not in _FIXED_BYTES:
                return
            body = yield _FIXED_BYTES[kind] - 1
            more = 0
            if kind == 2:
                more = 4 * struct.unpack(">xH", body)[0]
            elif kind == 6:
                more = struct.unpack(">3xI", body)[0]
            if more > _LONGEST:
                return
            if more:
                yield more
            if kind == 0:
                self._format, self._shown = body[3:], False
            elif kind == 3 and not (body[0] and self._shown):
                self._output.add(self._picture())
                self._shown = True
            elif kind == 4 and body[0]:
                self._guest.keys += (struct.unpack(">B2xI", body)[1],)

    def _picture(self) -> bytes:
        """One update of the whole screen, uncompressed."""
        bits, _, big, _, *rest = struct.unpack(">BBBBHHHBBB3x", self._format)
        order: Literal["big", "little"] = "big" if big else "little"
        most: list[int] = rest[:3]
        shifts: list[int] = rest[3:]

        def pixel(colour: tuple[int, int, int]) -> bytes:
            value: int = sum(
                (part * top // 255) << by
                for part, top, by in zip(colour, most, shifts, strict=True)
            )
            size = max(1, bits // 8)
            return int.to_bytes(value % (1 << (8 * size)), size, order)

        row = b"".join(pixel(colour) * (WIDTH // len(STRIPES)) for colour in STRIPES)
        return struct.pack(">BxHHHHHi", 0, 1, 0, 0, WIDTH, HEIGHT, 0) + row * HEIGHT
