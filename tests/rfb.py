"""A viewer of screens for tests: as much of RFB (VNC) as a picture and some keys take."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable

from vorch import Console

PATIENCE_S = 20.0


class Viewer:
    """Of a `Console` that is a screen; says hello when it is made."""

    def __init__(self, stream: Console) -> None:
        self._stream = stream
        self._heard = b""
        assert self._take(12) == b"RFB 003.008\n"
        stream.write(b"RFB 003.008\n")
        ways = self._take(self._take(1)[0])
        assert 1 in ways, "it wants a password"
        stream.write(b"\x01")
        assert self._take(4) == bytes(4)
        stream.write(b"\x01")  # others may look, too
        self.width, self.height = struct.unpack(">HH", self._take(4))
        self._take(16)
        self.name = self._take(struct.unpack(">I", self._take(4))[0]).decode()
        # Blue, green, red, nothing: as most screens have it.
        stream.write(struct.pack(">B3xBBBBHHHBBB3x", 0, 32, 24, 0, 1, 255, 255, 255, 16, 8, 0))
        # Uncompressed; and a screen may change its size.
        stream.write(struct.pack(">BxHii", 2, 2, 0, -223))

    def picture(self) -> dict[tuple[int, int], tuple[int, int, int]]:
        """The colour of each pixel, as red, green and blue."""
        return {
            (number % self.width, number // self.width): (pixel[2], pixel[1], pixel[0])
            for number, pixel in enumerate(struct.iter_unpack("4B", self.pixels()))
        }

    def pixels(self) -> bytes:
        """The whole screen, four bytes each: blue, green, red, and one without meaning."""
        while True:
            self._stream.write(struct.pack(">BBHHHH", 3, 0, 0, 0, self.width, self.height))
            found = self._update()
            if found is not None:
                return found

    def press(self, *keys: int) -> None:
        for key in keys:
            for down in (1, 0):
                self._stream.write(struct.pack(">BBxxI", 4, down, key))

    def _update(self) -> bytes | None:
        """None: it has another size now, and has to be asked again."""
        screen = bytearray(4 * self.width * self.height)
        left = self.width * self.height
        while left > 0:
            kind = self._take(1)[0]
            if kind == 2:  # a bell
                continue
            if kind == 3:  # text of a clipboard
                self._take(struct.unpack(">3xI", self._take(7))[0])
                continue
            assert kind == 0
            for _ in range(struct.unpack(">xH", self._take(3))[0]):
                x, y, width, height, encoding = struct.unpack(">HHHHi", self._take(12))
                if encoding == -223:
                    self.width, self.height = width, height
                    return None
                assert encoding == 0
                rows = self._take(4 * width * height)
                for row in range(height):
                    at = 4 * ((y + row) * self.width + x)
                    screen[at : at + 4 * width] = rows[4 * width * row : 4 * width * (row + 1)]
                left -= width * height
        return bytes(screen)

    def _take(self, size: int) -> bytes:
        end = time.monotonic() + PATIENCE_S
        while len(self._heard) < size:
            assert time.monotonic() < end, "the screen says nothing"
            self._heard += self._stream.read(0.5)
        taken, self._heard = self._heard[:size], self._heard[size:]
        return taken


def until_seen(viewer: Viewer, seen: Callable[[bytes], bool]) -> bytes:
    """The screen when it is as wanted."""
    end = time.monotonic() + PATIENCE_S
    while True:
        pixels = viewer.pixels()
        if seen(pixels):
            return pixels
        assert time.monotonic() < end, "the screen does not become that"
        time.sleep(0.3)
