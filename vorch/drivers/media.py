"""The Media port: CDs and initrd archives, made and read, and a look into guests' disks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import BinaryIO

from vorch.inside import Inside
from vorch.ports import Content


class IsoMedia:
    """Imports pycdlib only when a CD is made or read."""

    def iso(self, label: str, files: Mapping[str, str]) -> bytes:
        from vorch.drivers.iso import make_iso

        return make_iso(label, dict(files))

    def extract(self, iso: BinaryIO, path: str) -> bytes:
        from vorch.drivers.iso import read_from_iso

        return read_from_iso(iso, path)

    def find(self, iso: BinaryIO, candidates: Sequence[str]) -> str | None:
        from vorch.drivers.iso import find_in_iso

        return find_in_iso(iso, candidates)

    def look_into(self, content: Content) -> Inside:
        from vorch.drivers.guest_look import look_into

        def read(offset: int, length: int) -> bytes:
            left = max(0, content.size_bytes - offset)
            return content.read(offset, min(length, left)) if left else b""

        return look_into(read, content.size_bytes)

    def initrd_archive(self, files: Mapping[str, str]) -> bytes:
        from vorch.drivers.initrd import newc_archive

        return newc_archive(dict(files))
