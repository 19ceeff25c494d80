"""Files of an ext2, ext3 or ext4 file system that nobody has mounted, read off its disk.

Only what looking for a kernel and some texts takes. Nothing of it is trusted: a guest may have
written anything there, so sizes, depths and counts have bounds, and what is odd is `Unreadable`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from vorch.drivers.partitions import Read
from vorch.errors import Invalid

# What may be read of one folder, and how deep an extent tree is at the most (the format's own).
FOLDER_LIMIT_BYTES = 16 * 1024**2
DEPTH_LIMIT = 5
LINKS_LIMIT = 16

_ROOT = 2
_KIND, _FOLDER, _LINK, _FILE = 0xF000, 0x4000, 0xA000, 0x8000
_USES_EXTENTS, _ENCRYPTED = 0x80000, 0x800
_META_BG, _64BIT, _NEEDS_RECOVERY = 0x10, 0x80, 0x4
# Features with which data is where it is looked for: types in folders, a journal, wide groups of
# blocks, extents, checksums and the like. Not so with compression or a journal elsewhere.
_KNOWN = 0x2 | 0x4 | 0x10 | 0x40 | 0x80 | 0x100 | 0x200 | 0x400 | 0x2000 | 0x4000 | 0x30000


class Unreadable(Invalid):
    """It is not what it says, or of a kind that is not read here."""


def unreadable(why: str) -> Unreadable:
    return Unreadable(f"cannot read the file system: {why}; look into it in its guest")


class Ext4Files:
    def __init__(self, read: Read, start: int) -> None:
        self._read = read
        self._start = start
        block = read(start + 1024, 1024)
        if block[56:58] != b"\x53\xef":
            raise unreadable("it has no superblock")
        (log,) = struct.unpack_from("<I", block, 24)
        if log > 6:
            raise unreadable("its blocks are larger than 64 KiB")
        self._block_bytes = 1024 << log
        (self._first_block,) = struct.unpack_from("<I", block, 20)
        (self._per_group,) = struct.unpack_from("<I", block, 40)
        (self._inodes,) = struct.unpack_from("<I", block, 0)
        (revision,) = struct.unpack_from("<I", block, 76)
        self._inode_bytes = struct.unpack_from("<H", block, 88)[0] if revision else 128
        features, self._descriptor_bytes = 0, 32
        if revision:
            (features,) = struct.unpack_from("<I", block, 96)
        if features & ~_KNOWN:
            raise unreadable(f"it uses features that are not known here ({features & ~_KNOWN:#x})")
        self._wide = bool(features & _64BIT)
        if self._wide:
            (self._descriptor_bytes,) = struct.unpack_from("<H", block, 254)
        self._meta_groups = bool(features & _META_BG)
        (self._first_meta,) = struct.unpack_from("<I", block, 260)
        (self._group_blocks,) = struct.unpack_from("<I", block, 32)
        sizes = (self._per_group, self._group_blocks, self._inode_bytes >= 128)
        if not all(sizes) or not 32 <= self._descriptor_bytes <= 1024:
            raise unreadable("its superblock makes no sense")
        # Whether it was in use when its guest ended: the latest may stand in its journal only.
        self.needs_recovery = bool(features & _NEEDS_RECOVERY)

    # -- what others ask for

    def read(self, path: str, limit_bytes: int) -> bytes | None:
        """None: there is no such file. Links are followed within the file system."""
        found = self._find(path)
        if found is None or _kind(found) != _FILE:
            return None
        size = self._size(found)
        if size > limit_bytes:
            raise unreadable(f"{path} has {size} bytes, which is more than is looked into")
        return self._content(found, size)

    def names(self, folder: str) -> list[str]:
        """What is in a folder; [] where there is none."""
        found = self._find(folder)
        if found is None or _kind(found) != _FOLDER:
            return []
        return sorted(name for name, _ in self._entries(found) if name not in (".", ".."))

    # -- paths

    def _find(self, path: str) -> bytes | None:
        parts = [part for part in path.split("/") if part]
        trail, followed = [_ROOT], 0
        while parts:
            part = parts.pop(0)
            if part == ".":
                continue
            if part == "..":
                trail = trail[:-1] or [_ROOT]
                continue
            folder = self._inode(trail[-1])
            if _kind(folder) != _FOLDER:
                return None
            number = next((one for name, one in self._entries(folder) if name == part), None)
            if number is None:
                return None
            inode = self._inode(number)
            if _kind(inode) == _LINK:
                followed += 1
                if followed > LINKS_LIMIT:
                    raise unreadable(f"{path} leads round in circles")
                target = self._link(inode)
                parts = [one for one in target.split("/") if one] + parts
                if target.startswith("/"):
                    trail = [_ROOT]
                continue
            trail.append(number)
        return self._inode(trail[-1])

    def _link(self, inode: bytes) -> str:
        size = self._size(inode)
        if size > 4096:
            raise unreadable("a link in it is longer than a path can be")
        # Short ones stand in the inode itself.
        data = inode[40 : 40 + size] if size < 60 else self._content(inode, size)
        return data.decode("utf-8", "surrogateescape")

    def _entries(self, folder: bytes) -> Iterator[tuple[str, int]]:
        size = self._size(folder)
        if size > FOLDER_LIMIT_BYTES:
            raise unreadable("a folder in it is larger than is looked into")
        data, at = self._content(folder, size), 0
        while at + 8 <= len(data):
            number, length, name_length = struct.unpack_from("<IHB", data, at)
            if length < 8:
                # The rest of this block is of no use.
                at += self._block_bytes - at % self._block_bytes
                continue
            if number and name_length:
                name = data[at + 8 : at + 8 + name_length]
                yield name.decode("utf-8", "surrogateescape"), number
            at += length

    # -- inodes and blocks

    def _at(self, block: int, length: int) -> bytes:
        return self._read(self._start + block * self._block_bytes, length)

    def _inode(self, number: int) -> bytes:
        if not 0 < number <= self._inodes:
            raise unreadable(f"a folder in it names inode {number}, of which there is none")
        group, index = divmod(number - 1, self._per_group)
        descriptor = self._descriptor(group)
        (table,) = struct.unpack_from("<I", descriptor, 8)
        if self._wide and len(descriptor) >= 44:
            table |= struct.unpack_from("<I", descriptor, 40)[0] << 32
        offset = table * self._block_bytes + index * self._inode_bytes
        inode = self._read(self._start + offset, min(self._inode_bytes, 1024))
        if len(inode) < 128:
            raise unreadable("an inode of it is beyond the end of the disk")
        return inode

    def _descriptor(self, group: int) -> bytes:
        per_block = self._block_bytes // self._descriptor_bytes
        block, index = divmod(group, per_block)
        where = self._first_block + 1 + block
        if self._meta_groups and block >= self._first_meta:
            first = block * per_block
            where = self._first_block + first * self._group_blocks + (0 if first else 1)
            # The first group of a meta group may begin with a copy of the superblock.
            where += 1 if first and _has_copy(first) else 0
        start = self._start + where * self._block_bytes + index * self._descriptor_bytes
        found = self._read(start, self._descriptor_bytes)
        if len(found) < 32:
            raise unreadable("a group of it is beyond the end of the disk")
        return found

    def _size(self, inode: bytes) -> int:
        low, high = (int(struct.unpack_from("<I", inode, at)[0]) for at in (4, 108))
        return low | (high << 32 if _kind(inode) in (_FILE, _FOLDER) else 0)

    def _content(self, inode: bytes, size: int) -> bytes:
        (flags,) = struct.unpack_from("<I", inode, 32)
        if flags & _ENCRYPTED:
            raise unreadable("what is looked for in it is encrypted")
        content = bytearray(size)
        places = (
            self._extents(inode[40:100], 0)
            if flags & _USES_EXTENTS
            else self._mapped(inode[40:100], -(-size // self._block_bytes))
        )
        for logical, count, physical in places:
            begin = logical * self._block_bytes
            length = min(count * self._block_bytes, size - begin)
            if length > 0:
                content[begin : begin + length] = self._at(physical, length).ljust(length, b"\0")
        return bytes(content)

    def _extents(self, node: bytes, depth: int) -> Iterator[tuple[int, int, int]]:
        magic, entries, _, level = struct.unpack_from("<HHHH", node, 0)
        if magic != 0xF30A or depth > DEPTH_LIMIT:
            raise unreadable("a file's tree of extents makes no sense")
        for number in range(min(entries, (len(node) - 12) // 12)):
            first, second, third = struct.unpack_from("<III", node, 12 + 12 * number)
            if level:
                child = second | (third & 0xFFFF) << 32
                yield from self._extents(self._at(child, self._block_bytes), depth + 1)
                continue
            length = second & 0xFFFF
            # Longer ones were set aside and never written: zeros.
            if length <= 32768:
                yield first, length, third | (second >> 16) << 32

    def _mapped(self, pointers: bytes, count: int) -> Iterator[tuple[int, int, int]]:
        """As ext2 and ext3 have it: twelve blocks, then blocks of blocks."""
        numbers = struct.unpack("<15I", pointers)
        logical = 0
        for block in numbers[:12]:
            if block:
                yield logical, 1, block
            logical += 1
        for level, block in enumerate(numbers[12:], 1):
            if logical >= count:
                return
            for one in self._indirect(block, level, count - logical):
                if one:
                    yield logical, 1, one
                logical += 1

    def _indirect(self, block: int, level: int, most: int) -> Iterator[int]:
        per_block = self._block_bytes // 4
        if not block:
            yield from (0 for _ in range(min(most, per_block**level)))
            return
        data = self._at(block, self._block_bytes).ljust(self._block_bytes, b"\0")
        for one in struct.unpack(f"<{per_block}I", data):
            if most <= 0:
                return
            if level == 1:
                yield one
                most -= 1
                continue
            for deeper in self._indirect(one, level - 1, most):
                yield deeper
                most -= 1


def _kind(inode: bytes) -> int:
    return int(struct.unpack_from("<H", inode, 0)[0]) & _KIND


def _has_copy(group: int) -> bool:
    """Copies of the superblock are in group 1 and in powers of 3, 5 and 7."""
    for base in (3, 5, 7):
        power = base
        while power < group:
            power *= base
        if power == group:
            return True
    return group <= 1
