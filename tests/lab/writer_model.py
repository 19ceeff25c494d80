"""The writer guest as a model: a disk in memory, and boots that stop between any two steps."""

from __future__ import annotations

import copy
import itertools
import struct
import uuid
from collections.abc import Iterable

from vorch.lab import writer_log
from vorch.lab.writer_log import BLOCK, SECTOR, ZERO_SUM, Ack, Record

LOG_START = 8 * BLOCK


class ModelDisk:
    """A disk with nothing but a log of a few slots."""

    def __init__(self, slots: int) -> None:
        self.content = bytearray(LOG_START + (slots + 1) * BLOCK)
        self.slots = slots
        entry = struct.pack(
            "<B3sB3sII",
            *(0, bytes(3), writer_log.PARTITION_KIND, bytes(3)),
            *(LOG_START // SECTOR, (slots + 1) * BLOCK // SECTOR),
        )
        at = 446 + 16 * (writer_log.PARTITION_NUMBER - 1)
        self.content[at : at + 16] = entry
        self.content[510:512] = b"\x55\xaa"
        writer_log.arm(self)

    def read(self, offset: int, length: int, /) -> bytes:
        return bytes(self.content[offset : offset + length])

    def write(self, offset: int, data: bytes, /) -> None:
        self.content[offset : offset + len(data)] = data

    def slot(self, number: int) -> int:
        return (number - 1) % self.slots

    def block(self, slot: int) -> bytes:
        return self.read(LOG_START + (slot + 1) * BLOCK, BLOCK)

    def put(self, slot: int, block: bytes, sectors: Iterable[int] = range(BLOCK // SECTOR)) -> None:
        """Writes the block, or of a torn write only those sectors."""
        for sector in sectors:
            part = block[sector * SECTOR : (sector + 1) * SECTOR]
            self.write(LOG_START + (slot + 1) * BLOCK + sector * SECTOR, part)


def boot_id(seed: int) -> str:
    return str(uuid.UUID(int=seed * 0x9E3779B97F4A7C15F39CC0605CEDC835 % (1 << 128)))


class ModelWriter:
    """One boot, step for step what the script vorch/lab/guest_files/writer does.

    Each look takes a time of its own, as the microseconds of a real clock do.
    A blind one does not tell of what it meets, for tests of what the rest of the checker sees.
    """

    _clock = itertools.count(1)

    def __init__(
        self, disk: ModelDisk, boot: int, host: str = "writer", *, blind: bool = False
    ) -> None:
        self.disk = disk
        self.blind = blind
        self.boot = boot_id(boot)
        self.host = host
        self.surprises = 0
        self.acks: list[Ack] = []
        self.pending: Record | None = None
        found = self._find_last()
        self.number = found.number if found else 0
        self.epoch = (found.epoch if found else 0) + 1
        self.last = found.encode() if found else b""

    def copy(self) -> ModelWriter:
        """The same boot a second time, as a migration leaves it whose source wakes up again."""
        twin = copy.copy(self)
        twin.acks = []
        return twin

    def _record(self, slot: int) -> Record | None:
        return writer_log.decode_record(self.disk.block(slot))

    def _find_last(self) -> Record | None:
        first = self._record(0)
        if first is None:
            return self._record(self.disk.slots - 1)
        low, high = 0, self.disk.slots
        while high - low > 1:
            middle = (low + high) // 2
            record = self._record(middle)
            if record and record.number == first.number + middle:
                low = middle
            else:
                high = middle
        return self._record(low)

    def look(self) -> None:
        number = self.number + 1
        if (
            not self.blind
            and self.last
            and self.disk.block(self.disk.slot(self.number)) != self.last
        ):
            self.surprises += 1
        ahead = self._record(self.disk.slot(number))
        if not self.blind and ahead and ahead.number != number - self.disk.slots:
            self.surprises += 1
        previous = writer_log.sum_of(self.last) if self.last else ZERO_SUM
        now = f"{next(self._clock)}.000000"
        self.pending = Record(
            number, self.epoch, self.boot, self.host, now, self.surprises, previous
        )

    def put(self, sectors: Iterable[int] = range(BLOCK // SECTOR)) -> None:
        assert self.pending
        self.disk.put(self.disk.slot(self.pending.number), self.pending.encode(), sectors)

    def acknowledge(self) -> Ack:
        assert self.pending
        self.last = self.pending.encode()
        self.number = self.pending.number
        self.pending = None
        sum_ = writer_log.sum_of(self.last)[:16]
        self.acks.append(Ack(self.epoch, self.number, self.boot, sum_))
        return self.acks[-1]

    def write(self, count: int = 1) -> list[Ack]:
        """As many records, each with all its steps; the acknowledgements."""
        for _ in range(count):
            self.look()
            self.put()
            self.acknowledge()
        return self.acks[len(self.acks) - count :]
