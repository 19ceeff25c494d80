"""The Media port: CDs and initrd archives, made and read with pycdlib and a few lines of cpio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import BinaryIO


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

    def initrd_archive(self, files: Mapping[str, str]) -> bytes:
        from vorch.drivers.initrd import newc_archive

        return newc_archive(dict(files))
