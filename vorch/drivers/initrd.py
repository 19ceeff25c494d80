"""Archives that are put behind an initrd, so that an installer finds files at its root (newc).

The Linux kernel unpacks one archive after the other, compressed or not, each from a multiple of
four bytes; what comes later wins. So nothing has to be unpacked to add a file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from vorch.errors import Invalid

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*")
_FILE, _FOLDER = 0o100644, 0o040755
_END = "TRAILER!!!"


def newc_archive(files: Mapping[str, str]) -> bytes:
    """An archive with these files, by their paths from the root; folders come before them."""
    entries: dict[str, tuple[int, bytes]] = {}
    for path, text in files.items():
        if len(path) > 255 or not _NAME.fullmatch(path) or path == _END:
            raise Invalid(
                f"cannot add {path!r} to an initrd: write its path from the root, without a slash"
                " at the beginning and without '..'"
            )
        parts = path.split("/")
        for depth in range(1, len(parts)):
            entries["/".join(parts[:depth])] = (_FOLDER, b"")
        entries[path] = (_FILE, text.encode())
    archive = b"".join(
        _entry(number, path, mode, data)
        for number, (path, (mode, data)) in enumerate(entries.items(), 1)
    ) + _entry(0, _END, 0, b"")
    return archive + bytes(-len(archive) % 512)


def _entry(number: int, path: str, mode: int, data: bytes) -> bytes:
    name = path.encode() + b"\0"
    links = 2 if mode == _FOLDER else 1
    # inode, mode, owner, group, links, time, size, four device numbers, length of the name, sum
    fields = (number, mode, 0, 0, links, 0, len(data), 0, 0, 0, 0, len(name), 0)
    head = b"070701" + b"".join(b"%08x" % field for field in fields) + name
    return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)
