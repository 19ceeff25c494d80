"""Files of a FAT file system that nobody has mounted, read off its disk. Nothing is trusted."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from vorch.drivers.ext4_files import FOLDER_LIMIT_BYTES, unreadable
from vorch.drivers.partitions import Read

_FOLDER, _LABEL, _LONG_NAME = 0x10, 0x08, 0x0F
_GONE, _END = 0xE5, 0x00
_BITS_OF_LAST = {12: 0xFF8, 16: 0xFFF8, 32: 0x0FFFFFF8}


class FatFiles:
    def __init__(self, read: Read, start: int) -> None:
        self._read = read
        self._start = start
        sector = read(start, 512).ljust(512, b"\0")
        bytes_each, per_cluster, reserved, copies, roots, small = struct.unpack_from(
            "<HBHBHH", sector, 11
        )
        sectors = small or struct.unpack_from("<I", sector, 32)[0]
        per_copy = (
            struct.unpack_from("<H", sector, 22)[0] or struct.unpack_from("<I", sector, 36)[0]
        )
        if bytes_each not in (512, 1024, 2048, 4096) or not per_cluster or not per_copy:
            raise unreadable("its first sector makes no sense")
        root_bytes = -(-roots * 32 // bytes_each) * bytes_each
        self._table = start + reserved * bytes_each
        self._roots = self._table + copies * per_copy * bytes_each
        self._data = self._roots + root_bytes
        self._cluster_bytes = bytes_each * per_cluster
        self._root_bytes = root_bytes
        data_sectors = sectors - (self._data - start) // bytes_each
        self._clusters = max(0, data_sectors // per_cluster)
        self._bits = 12 if self._clusters < 4085 else 16 if self._clusters < 65525 else 32
        self._root_cluster = struct.unpack_from("<I", sector, 44)[0] if self._bits == 32 else 0

    def read(self, path: str, limit_bytes: int) -> bytes | None:
        """None: there is no such file."""
        found = self._find(path)
        if found is None or found[0]:
            return None
        _, cluster, size = found
        if size > limit_bytes:
            raise unreadable(f"{path} has {size} bytes, which is more than is looked into")
        return self._content(cluster, size)[:size]

    def names(self, folder: str) -> list[str]:
        found = self._find(folder)
        if found is None or not found[0]:
            return []
        return sorted(name for name, *_ in self._entries(found[1]) if name not in (".", ".."))

    def _find(self, path: str) -> tuple[bool, int, int] | None:
        """Whether it is a folder, its first cluster and its size."""
        found = (True, self._root_cluster, 0)
        for part in (one for one in path.split("/") if one and one != "."):
            if not found[0]:
                return None
            here = (
                (folder, cluster, size)
                for name, folder, cluster, size in self._entries(found[1])
                if name.lower() == part.lower()
            )
            following = next(here, None)
            if following is None:
                return None
            found = following
        return found

    def _entries(self, cluster: int) -> Iterator[tuple[str, bool, int, int]]:
        if not cluster and self._bits != 32:
            data = self._read(self._roots, min(self._root_bytes, FOLDER_LIMIT_BYTES))
        else:
            data = self._content(cluster or self._root_cluster, FOLDER_LIMIT_BYTES)
        long_name: dict[int, bytes] = {}
        for at in range(0, len(data) - 31, 32):
            entry = data[at : at + 32]
            if entry[0] == _END:
                return
            if entry[0] == _GONE:
                long_name = {}
            elif entry[11] & 0x3F == _LONG_NAME:
                long_name[entry[0] & 0x1F] = entry[1:11] + entry[14:26] + entry[28:32]
            elif entry[11] & _LABEL:
                long_name = {}
            else:
                name = _name(entry, long_name)
                high, low = (
                    struct.unpack_from("<H", entry, 20)[0],
                    struct.unpack_from("<H", entry, 26)[0],
                )
                first = low | (high << 16 if self._bits == 32 else 0)
                (size,) = struct.unpack_from("<I", entry, 28)
                yield name, bool(entry[11] & _FOLDER), first, size
                long_name = {}

    def _content(self, cluster: int, most: int) -> bytes:
        content, seen = bytearray(), 0
        while 2 <= cluster < self._clusters + 2 and len(content) < most:
            seen += 1
            if seen > self._clusters:
                raise unreadable("a file in it leads round in circles")
            place = self._data + (cluster - 2) * self._cluster_bytes
            # What lies next to each other is read at once.
            run, following = 1, self._next(cluster)
            while following == cluster + run and len(content) + run * self._cluster_bytes < most:
                run, following = run + 1, self._next(following)
            content += self._read(place, run * self._cluster_bytes)
            seen += run - 1
            cluster = following
        return bytes(content)

    def _next(self, cluster: int) -> int:
        """The cluster after this one; 0 at the end."""
        offset = cluster * self._bits // 8
        (value,) = struct.unpack("<I", self._fat(offset, 4))
        if self._bits == 12:
            value = value >> 4 if cluster % 2 else value
            value &= 0xFFF
        elif self._bits == 16:
            value &= 0xFFFF
        else:
            value &= 0x0FFFFFFF
        return 0 if value >= _BITS_OF_LAST[self._bits] else int(value)

    def _fat(self, offset: int, length: int) -> bytes:
        piece, within = divmod(offset, 65536)
        known = self._pieces.get(piece)
        if known is None:
            known = self._read(self._table + piece * 65536, 65536 + 4).ljust(65540, b"\0")
            self._pieces = {piece: known}
        return known[within : within + length]

    _pieces: dict[int, bytes] = {}  # noqa: RUF012 replaced, never changed


def _name(entry: bytes, long_name: dict[int, bytes]) -> str:
    if long_name:
        text = b"".join(long_name[number] for number in sorted(long_name))
        return text.decode("utf-16-le", "replace").partition("\0")[0]
    # The two flags say that base and extension are written small.
    base, extension = entry[:8].decode("cp437").rstrip(), entry[8:11].decode("cp437").rstrip()
    base = base.lower() if entry[12] & 0x08 else base
    extension = extension.lower() if entry[12] & 0x10 else extension
    return f"{base}.{extension}" if extension else base
