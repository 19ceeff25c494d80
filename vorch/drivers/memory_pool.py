"""What a pool of the world in memory holds: volumes with their content, their bases and snapshots.

Tests may look and reach in here; callers of vorch go through the Images port.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vorch.errors import Conflict, Invalid, NoRoom, NotFound
from vorch.model import GIB

if TYPE_CHECKING:
    from vorch.drivers.memory_ceph import MemoryClient

BLOCK_BYTES = 65536
CAPACITY_BYTES = 1024 * GIB


@dataclass(frozen=True, slots=True)
class Opening:
    """A running domain that has a volume open."""

    who: str
    writes: bool
    # Brings what the guest wrote up to now into the volume.
    settle: Callable[[], None] = lambda: None
    # As Ceph shows one that may write.
    client: MemoryClient | None = None


@dataclass(eq=False)
class Stored:
    """One volume. Blocks that are not here are its base's; without a base they are zero."""

    name: str
    size_bytes: int
    base: Stored | None = None
    blocks: dict[int, bytes] = field(default_factory=dict)
    # Size and blocks at that point. Blocks are never changed, only replaced.
    snapshots: dict[str, tuple[int, dict[int, bytes]]] = field(default_factory=dict)
    # A copy or import that has come to its end.
    whole: bool = True
    open_by: dict[str, Opening] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    # Clients that died with it open, and that storage has perhaps not missed yet.
    lingering: list[MemoryClient] = field(default_factory=list)
    # Who holds RBD's exclusive lock. It keeps nobody out: whoever writes asks for it and gets it.
    lock: MemoryClient | None = None

    def break_lock(self) -> None:
        """As `lock.break_lock` does: its owner is told nothing, and asks for it when it writes."""
        self.lock = None

    def relock(self) -> None:
        """Whoever has it open and can write does so, and takes the lock for that."""
        for opening in self.open_by.values():
            client = opening.client
            if self.lock is None and opening.writes and client is not None and client.can_write:
                self.lock = client

    # The URL that it takes its data from, and the sum of what was there.
    linked: str = ""
    link_sum: str = ""
    # Clones can be made of it though it is linked.
    lends: bool = True

    @property
    def awaits(self) -> str:
        """The URL that it, or what it stands on, takes data from yet."""
        return self.linked or ("" if self.base is None else self.base.awaits)

    def watchers(self) -> list[MemoryClient]:
        """Who has it open for writing, as storage sees it."""
        self.lingering = [client for client in self.lingering if client.seen]
        clients = [
            opening.client
            for opening in self.open_by.values()
            if opening.writes and opening.client is not None and opening.client.seen
        ]
        return [*clients, *self.lingering]

    def settle(self) -> None:
        for opening in list(self.open_by.values()):
            opening.settle()

    def at(self, snapshot: str | None) -> tuple[int, dict[int, bytes]]:
        if snapshot is None:
            return self.size_bytes, self.blocks
        return self.snapshots[snapshot]

    def block(self, number: int, snapshot: str | None = None) -> bytes:
        """Without the zeros at its end."""
        blocks = self.at(snapshot)[1]
        if number in blocks:
            return blocks[number]
        if self.base is None or number * BLOCK_BYTES >= self.base.size_bytes:
            return b""
        return self.base.block(number)

    def numbers(self, snapshot: str | None = None) -> set[int]:
        below = self.base.numbers() if self.base is not None else set()
        return below | set(self.at(snapshot)[1])

    def read(self, offset: int, length: int, snapshot: str | None = None) -> bytes:
        end = min(offset + length, self.at(snapshot)[0])
        parts = []
        while offset < end:
            number, start = divmod(offset, BLOCK_BYTES)
            stop = min(BLOCK_BYTES, start + end - offset)
            parts.append(self.block(number, snapshot).ljust(BLOCK_BYTES, b"\0")[start:stop])
            offset += stop - start
        return b"".join(parts)

    def write(self, offset: int, data: bytes) -> None:
        if offset < 0 or offset + len(data) > self.size_bytes:
            raise Invalid(
                f"cannot write to volume {self.name!r}: that is beyond its end; grow it first"
            )
        view = memoryview(data)
        while view:
            number, start = divmod(offset, BLOCK_BYTES)
            part = bytes(view[: BLOCK_BYTES - start])
            block = bytearray(self.block(number).ljust(BLOCK_BYTES, b"\0"))
            block[start : start + len(part)] = part
            self.blocks[number] = bytes(block).rstrip(b"\0")
            offset += len(part)
            view = view[len(part) :]

    def new_blocks(self, offset: int, length: int) -> int:
        """How many blocks more the volume will hold after such a write."""
        numbers = range(offset // BLOCK_BYTES, -(-(offset + length) // BLOCK_BYTES))
        kept = [blocks for _, blocks in self.snapshots.values()]
        return sum(
            not self.blocks.get(number)
            or any(blocks.get(number) is self.blocks[number] for blocks in kept)
            for number in numbers
        )

    def flattened(self, snapshot: str | None = None) -> dict[int, bytes]:
        size = self.at(snapshot)[0]
        whole = {
            number: self.block(number, snapshot)
            for number in sorted(self.numbers(snapshot))
            if number * BLOCK_BYTES < size
        }
        return {number: block for number, block in whole.items() if block}

    def digest(self, snapshot: str | None = None) -> str:
        """The same for the same size and content, however they came about."""
        found = hashlib.sha256(str(self.at(snapshot)[0]).encode())
        for number, block in self.flattened(snapshot).items():
            found.update(b"%d:%d:" % (number, len(block)))
            found.update(block)
        return found.hexdigest()

    @property
    def used_bytes(self) -> int:
        kept = {
            (number, id(block))
            for _, blocks in [(0, self.blocks), *self.snapshots.values()]
            for number, block in blocks.items()
            if block
        }
        return len(kept) * BLOCK_BYTES

    def first_bytes(self, data: bytes) -> None:
        """Make `data` the whole content."""
        self.blocks = {}
        for number in range(-(-len(data) // BLOCK_BYTES)):
            block = data[number * BLOCK_BYTES : (number + 1) * BLOCK_BYTES].rstrip(b"\0")
            if block:
                self.blocks[number] = block


class MemoryPool:
    """What a pool holds, shared by all connections. Tests may look and reach in here."""

    def __init__(
        self,
        name: str,
        *,
        capacity_bytes: int = CAPACITY_BYTES,
        live_snapshots: bool = True,
        keeps_notes: bool = False,
    ) -> None:
        self.name = name
        self.capacity_bytes = capacity_bytes
        self.live_snapshots = live_snapshots
        self.keeps_notes = keeps_notes
        # On the pool itself.
        self.notes: dict[str, str] = {}
        # As if others had filled the rest of the pool.
        self.full = False
        self.volumes: dict[str, Stored] = {}
        self.trashed: dict[str, Stored] = {}
        # (capacity, free bytes that are there at least), to spare counting all volumes.
        self._known_free = (0, 0)
        # Deleted bases that clones still stand on.
        self.hidden: list[Stored] = []

    def __getitem__(self, volume: str) -> Stored:
        return self._get(volume, "look at")

    def everything(self) -> list[Stored]:
        return [*self.volumes.values(), *self.trashed.values(), *self.hidden]

    def clones(self, base: Stored) -> list[Stored]:
        return [one for one in self.everything() if one.base is base]

    @property
    def used_bytes(self) -> int:
        return sum(one.used_bytes for one in self.everything())

    @property
    def free_bytes(self) -> int:
        return 0 if self.full else max(0, self.capacity_bytes - self.used_bytes)

    def take(self, needed_bytes: int) -> bool:
        """Whether there is room for a guest's write. What is free is not counted each time."""
        if self.full:
            return False
        if self._known_free[0] != self.capacity_bytes or self._known_free[1] < needed_bytes:
            self._known_free = (self.capacity_bytes, self.free_bytes)
        capacity, free = self._known_free
        self._known_free = (capacity, free - needed_bytes)
        return free >= needed_bytes

    def _get(self, volume: str, what: str) -> Stored:
        if volume in self.volumes:
            return self.volumes[volume]
        where = "it is in the trash; restore it" if volume in self.trashed else "it is not there"
        raise NotFound(
            f"cannot {what} volume {volume!r} in pool {self.name!r}: {where}",
            pool=self.name,
            volume=volume,
        )

    def find(self, volume: str, what: str) -> Stored:
        stored = self._get(volume, what)
        stored.settle()
        return stored

    def closed(self, volume: str, what: str) -> Stored:
        """The volume, which nobody may have open."""
        stored = self.find(volume, what)
        self.check_closed(stored, what)
        return stored

    def check_closed(self, stored: Stored, what: str) -> None:
        if stored.open_by:
            raise Conflict(
                f"cannot {what} volume {stored.name!r} in pool {self.name!r}:"
                f" {', '.join(sorted(stored.open_by))} has it open; stop that first",
                pool=self.name,
                volume=stored.name,
            )

    def check_arrived(self, stored: Stored, what: str) -> None:
        if stored.awaits:
            raise Conflict(
                f"cannot {what} volume {stored.name!r} in pool {self.name!r}: the data of the image"
                " that it stands on are still coming in; wait until that import has ended (`vorch"
                " task list`)",
                volume=stored.name,
            )

    def check_unlent(self, stored: Stored, what: str) -> None:
        """A linked volume takes its data along when it goes."""
        if stored.linked and self.clones(stored):
            raise Conflict(
                f"cannot {what} volume {stored.name!r}: VMs were made of it, and need its data;"
                " delete those first",
                volume=stored.name,
            )

    def check_room(self, needed_bytes: int, what: str) -> None:
        free = self.free_bytes
        self._known_free = (self.capacity_bytes, free - needed_bytes)
        if free <= 0 or needed_bytes > free:
            raise NoRoom(
                f"cannot {what} in pool {self.name!r}: {needed_bytes} bytes are needed and {free}"
                " are free; delete something or choose another pool",
                pool=self.name,
                needed_bytes=needed_bytes,
                free_bytes=free,
            )

    def check_name_free(self, volume: str, what: str) -> None:
        if volume in self.volumes or volume in self.trashed:
            where = "pool" if volume in self.volumes else "trash of the pool"
            raise Conflict(
                f"cannot {what} volume {volume!r}: the {where} {self.name!r} has another one of"
                " that name; choose another name or delete that one for good",
                pool=self.name,
                volume=volume,
            )

    def replace(self, volume: str, what: str) -> None:
        """Make way for a new volume of that name."""
        if volume in self.trashed:
            self.check_name_free(volume, what)
        old = self.volumes.get(volume)
        if old is None:
            return
        self.check_closed(old, what)
        self.check_unlent(old, what)
        if self.clones(old) or old.snapshots:
            raise Conflict(
                f"cannot {what} volume {volume!r} in pool {self.name!r} anew: the one that is there"
                " has clones or snapshots; choose another name",
                pool=self.name,
                volume=volume,
            )
        self.delete(self.volumes.pop(volume))

    def delete(self, stored: Stored) -> None:
        if self.clones(stored):
            if stored not in self.hidden:
                self.hidden.append(stored)
            return
        if stored in self.hidden:
            self.hidden.remove(stored)
        base = stored.base
        if base is not None and base in self.hidden:
            self.delete(base)


def path_of(pool: str, volume: str) -> str:
    """Where hosts of the world find a volume. No file has this name."""
    return f"/memory/{pool}/{volume}"
