"""Proves or disproves from a `writer` guest's disk that one virtual machine alone wrote to it.

What the disk must look like. Each record bears the checksum of the one before it, so a log that
shows nothing is one chain of records without a gap, written by boots of which each began where the
one before it ended. The latest record may be torn, if nobody was told that it was written.

What is proven, given every acknowledgement of every boot: if two boots overlapped (one found its
place on the disk, then the other one still wrote, and both wrote something), it is found out. Both
began at the same number, so that number is acknowledged twice, or its acknowledged record is gone.
Two copies of one boot (a migration whose source woke up again) bear one boot id; their records are
told apart by their times, and so by the checksums in the acknowledgements.
The only way out is a record that was written whole but whose acknowledgement nobody saw, if the
ring has also passed over every record that was chained to it.

What is proven from the disk alone, or with some of the acknowledgements: that what stands there
now is one chain, and that no boot whose records are still there has met another's: before each
record a writer looks whether its last one is as it left it and the next slot is free, and tells in
every later record. What stays hidden is an overlap in which every write of one of the two fell
between the other's look and its write (milliseconds) and was written over; or one that the ring
has passed over altogether, with all records of the boots that saw it.

What is not proven: that nobody wrote elsewhere on the disk; that a boot without a record did not
run. A record that somebody else wrote is told from one that the storage lost only where the
findings say so. Read a disk that stands still (the machine off, or a snapshot), and collect the
acknowledgements before, or what is in flight is taken for lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from vorch.errors import Invalid, NotFound
from vorch.lab.disk_readers import open_disk
from vorch.lab.writer_log import (
    BLOCK,
    ZERO_SUM,
    Ack,
    Read,
    Record,
    decode_record,
    find_log,
    parse_acks,
    read_header,
    sum_of,
)

__all__ = [
    "Ack",
    "Epoch",
    "Finding",
    "Kind",
    "Verdict",
    "acks_in",
    "parse_acks",
    "verify",
    "verify_disk",
]

Kind = Literal[
    "lost-ack",  # acknowledged, and not on the disk
    "overwritten-ack",  # acknowledged, and another record of that number stands there
    "double-ack",  # acknowledged twice, by two boots or with two contents
    "hole",  # a number is missing
    "damaged",  # neither empty nor a whole record, and not the torn last one
    "misplaced",  # a whole record in a slot where its number does not belong
    "broken-chain",  # does not follow from the record before it
    "epoch-jump",  # an epoch is missing between two neighbours
    "same-epoch",  # two boots chose the same epoch
    "older-after-newer",  # an older epoch goes on behind a newer one
    "stale-tail",  # the same, at the end of the log
    "interleaved",  # one boot, another, and the first again
    "surprise",  # a writer has itself met another one's record
]
# Those that no failing storage explains as long as it returns nothing it was not given.
TWO_WRITERS: frozenset[Kind] = frozenset(
    (
        *("overwritten-ack", "double-ack", "broken-chain", "same-epoch"),
        *("older-after-newer", "stale-tail", "interleaved", "surprise"),
    )
)
# A disk that two wrote to in turns has thousands of findings; of each kind, so many are told.
TOLD_OF_A_KIND = 20
CHUNK = 1 << 20


@dataclass(frozen=True)
class Finding:
    kind: Kind
    message: str
    number: int | None = None


@dataclass(frozen=True)
class Epoch:
    """The records of one boot that are still there."""

    epoch: int
    boot: str
    host: str
    first: int
    last: int
    count: int


@dataclass(frozen=True)
class Verdict:
    """`acks_gone` of the `acks` cannot be looked for: the ring has passed over their records."""

    records: int
    first: int | None
    last: int | None
    slots: int
    torn: bool
    epochs: tuple[Epoch, ...]
    acks: int
    acks_gone: int
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        return not self.findings

    @property
    def two_writers(self) -> bool:
        return any(finding.kind in TWO_WRITERS for finding in self.findings)


def verify_disk(
    disk: str,
    *,
    acks: Iterable[Ack] = (),
    conf: str | Path | None = None,
    user: str | None = None,
) -> Verdict:
    """The verdict on a raw file, a qcow2 file or `rbd:POOL/IMAGE[@SNAPSHOT]`."""
    # Taken in before the disk is read: what is acknowledged during the reading would look lost.
    seen = tuple(acks)
    with open_disk(disk, conf=conf, user=user) as read:
        return verify(read, seen)


def acks_in(files: Iterable[Path]) -> tuple[Ack, ...]:
    """What the writer said was confirmed, out of consoles and UDP logs, whatever else is there."""
    found: list[Ack] = []
    for file in files:
        try:
            found += parse_acks(file.read_text(errors="replace"))
        except OSError as exc:
            raise NotFound(
                f"cannot read confirmed writes from '{file}': {exc.strerror}; name a text file with"
                " what the guest's console showed"
            ) from exc
    return tuple(found)


def verify(read: Read, acks: Iterable[Ack] = ()) -> Verdict:
    """The verdict on the disk behind `read(offset, length)`."""
    log = _Log.load(read)
    seen = _Acks.collect(acks)
    findings = [
        *log.missing(),
        *log.chain(),
        *_order(log.order() | seen.order()),
        *log.surprises(),
        *seen.doubled(),
        *seen.lost(log),
    ]
    return Verdict(
        records=len(log.records),
        first=min(log.records, default=None),
        last=max(log.records, default=None),
        slots=log.slots,
        torn=log.torn,
        epochs=log.epochs(),
        acks=len(seen.all),
        acks_gone=sum(1 for ack in seen.all if log.passed_over(ack.number)),
        findings=tuple(_not_too_many(findings)),
    )


def _not_too_many(findings: Iterable[Finding]) -> Iterator[Finding]:
    kinds: dict[Kind, list[Finding]] = {kind: [] for kind in get_args(Kind)}
    for finding in findings:
        kinds[finding.kind].append(finding)
    for kind, found in kinds.items():
        yield from found[:TOLD_OF_A_KIND]
        if len(found) > TOLD_OF_A_KIND:
            yield Finding(kind, f"and {len(found) - TOLD_OF_A_KIND} more of this kind")


# A place in the order of all that was written: number, epoch, boot.
_Place = tuple[int, int, str]


@dataclass
class _Log:
    """What stands in the slots. `strays` are whole records that the ring should not hold any more,
    or not there, by their slots."""

    slots: int
    records: dict[int, Record] = field(default_factory=dict)
    sums: dict[int, str] = field(default_factory=dict)
    strays: dict[int, Record] = field(default_factory=dict)
    damaged: set[int] = field(default_factory=set)

    @classmethod
    def load(cls, read: Read) -> _Log:
        header = read_header(read)
        if header is None:
            raise Invalid(
                "cannot verify the disk: its writer was never armed; arm it and run the guest first"
            )
        log = cls(header.slots)
        start, _ = find_log(read)
        for slot, block in _blocks(read, start + BLOCK, header.slots):
            record = decode_record(block)
            if record is None:
                log.damaged.add(slot)
            elif log.slot(record.number) != slot:
                log.strays[slot] = record
            else:
                log.records[record.number] = record
                log.sums[record.number] = sum_of(block)
        for number in [number for number in log.records if number < log.lowest]:
            log.strays[log.slot(number)] = log.records.pop(number)
        return log

    def slot(self, number: int) -> int:
        return (number - 1) % self.slots

    @property
    def last(self) -> int:
        return max(self.records, default=0)

    @property
    def lowest(self) -> int:
        """The lowest number that the ring still has room for."""
        return max(1, self.last - self.slots + 1)

    @property
    def torn(self) -> bool:
        return self.slot(self.last + 1) in self.damaged

    def passed_over(self, number: int) -> bool:
        # The torn record of a new lap has taken the place of the lowest one.
        torn_over = self.torn and self.last >= self.slots
        return number < self.lowest + (1 if torn_over else 0)

    def missing(self) -> Iterator[Finding]:
        excused = self.slot(self.last + 1)
        for slot in sorted(self.damaged - {excused}):
            yield Finding("damaged", f"slot {slot} holds neither nothing nor a whole record")
        for number in range(self.lowest, self.last + 1):
            slot = self.slot(number)
            if number in self.records or slot in self.damaged or slot in self.strays:
                continue
            yield Finding("hole", f"record {number} is missing, its slot is empty", number)
        for slot, stray in self.strays.items():
            yield from self._stray(slot, stray)

    def _stray(self, slot: int, stray: Record) -> Iterator[Finding]:
        if self.slot(stray.number) != slot:
            yield Finding(
                "misplaced",
                f"record {stray.number} of {_who(stray)} stands in slot {slot}, not in its own",
                stray.number,
            )
            return
        wanted = self.last - (self.last - 1 - slot) % self.slots
        yield Finding(
            "hole",
            f"record {wanted} is missing: record {stray.number} of {_who(stray)} stands there",
            wanted,
        )
        # A write that the storage lost leaves the record of the lap before, an old writer any.
        if stray.number != wanted - self.slots:
            yield Finding(
                "older-after-newer",
                f"record {stray.number} of {_who(stray)} was written after the ring had passed it",
                stray.number,
            )

    def chain(self) -> Iterator[Finding]:
        for number, record in sorted(self.records.items()):
            before = self.records.get(number - 1)
            wanted = ZERO_SUM if number == 1 else self.sums.get(number - 1)
            if wanted is not None and record.previous != wanted:
                yield Finding(
                    "broken-chain",
                    f"record {number} of {_who(record)} does not follow from "
                    + (f"record {number - 1} of {_who(before)}" if before else "nothing"),
                    number,
                )
            epoch_before = before.epoch if before else 0 if number == 1 else record.epoch
            if record.epoch > epoch_before + 1:
                yield Finding(
                    "epoch-jump",
                    f"record {number} is of epoch {record.epoch}, the one before it of "
                    f"{epoch_before}: all records of the epochs between are gone",
                    number,
                )

    def order(self) -> set[_Place]:
        return {(each.number, each.epoch, each.boot) for each in self.records.values()}

    def surprises(self) -> Iterator[Finding]:
        told: set[str] = set()
        for number, record in sorted(self.records.items()):
            if record.surprises and record.boot not in told:
                told.add(record.boot)
                yield Finding(
                    "surprise",
                    f"{_who(record)} had met another writer's record when it wrote {number}",
                    number,
                )

    def epochs(self) -> tuple[Epoch, ...]:
        groups: dict[tuple[int, str], list[Record]] = {}
        for _, record in sorted(self.records.items()):
            groups.setdefault((record.epoch, record.boot), []).append(record)
        return tuple(
            Epoch(epoch, boot, own[0].host, own[0].number, own[-1].number, len(own))
            for (epoch, boot), own in sorted(groups.items(), key=lambda group: group[0][0])
        )


@dataclass(frozen=True)
class _Acks:
    all: tuple[Ack, ...]
    numbers: dict[int, list[Ack]]

    @classmethod
    def collect(cls, acks: Iterable[Ack]) -> _Acks:
        # Many are seen twice, on the console and by datagram.
        unique = tuple(sorted(set(acks), key=lambda ack: (ack.number, ack.epoch, ack.boot)))
        numbers: dict[int, list[Ack]] = {}
        for ack in unique:
            numbers.setdefault(ack.number, []).append(ack)
        return cls(unique, numbers)

    def order(self) -> set[_Place]:
        return {(ack.number, ack.epoch, ack.boot) for ack in self.all}

    def doubled(self) -> Iterator[Finding]:
        for number, acks in self.numbers.items():
            boots = {(ack.epoch, ack.boot) for ack in acks}
            if len(boots) > 1:
                names = " and ".join(f"epoch {epoch} boot {boot}" for epoch, boot in sorted(boots))
                yield Finding("double-ack", f"record {number} was acknowledged by {names}", number)
            elif len({ack.sum for ack in acks if ack.sum}) > 1:
                yield Finding(
                    "double-ack", f"record {number} was acknowledged with two contents", number
                )

    def lost(self, log: _Log) -> Iterator[Finding]:
        for ack in self.all:
            number = ack.number
            if log.passed_over(number):
                continue
            record = log.records.get(number)
            who = f"epoch {ack.epoch} boot {ack.boot}"
            if record is None:
                state = "damaged" if log.slot(number) in log.damaged else "not on the disk"
                yield Finding(
                    "lost-ack", f"record {number}, acknowledged by {who}, is {state}", number
                )
            elif (record.epoch, record.boot) != (ack.epoch, ack.boot):
                yield Finding(
                    "overwritten-ack",
                    f"record {number}, acknowledged by {who}, is now one of {_who(record)}",
                    number,
                )
            elif not log.sums[number].startswith(ack.sum):
                yield Finding(
                    "overwritten-ack",
                    f"record {number}, acknowledged by {who}, has other contents now",
                    number,
                )


@dataclass
class _Run:
    epoch: int
    boot: str
    first: int
    last: int


def _order(places: set[_Place]) -> Iterator[Finding]:
    """What is wrong with the order of epochs and boots, over records and acknowledgements alike."""
    runs: list[_Run] = []
    for number, epoch, boot in sorted(places):
        if runs and (runs[-1].epoch, runs[-1].boot) == (epoch, boot):
            runs[-1].last = number
        else:
            runs.append(_Run(epoch, boot, number, number))
    newest: _Run | None = None
    boots_of: dict[int, str] = {}
    closed: set[str] = set()
    for at, run in enumerate(runs):
        who = f"numbers {run.first} to {run.last} are of epoch {run.epoch} boot {run.boot}"
        if boots_of.setdefault(run.epoch, run.boot) != run.boot:
            yield Finding(
                "same-epoch", f"{who}, and boot {boots_of[run.epoch]} has that epoch", run.first
            )
        if newest is not None and run.epoch < newest.epoch:
            yield Finding(
                "stale-tail" if at == len(runs) - 1 else "older-after-newer",
                f"{who}, behind epoch {newest.epoch} boot {newest.boot}",
                run.first,
            )
        else:
            newest = run
        # A service that was started again in the same boot goes on with a new epoch: no offence.
        if at and runs[at - 1].boot != run.boot:
            closed.add(runs[at - 1].boot)
            if run.boot in closed:
                yield Finding("interleaved", f"{who}, which had been followed by others", run.first)


def _who(record: Record) -> str:
    return f"epoch {record.epoch} boot {record.boot} on {record.host}"


def _blocks(read: Read, start: int, count: int) -> Iterator[tuple[int, bytes]]:
    """The blocks that are not empty, with their numbers."""
    each = CHUNK // BLOCK
    for first in range(0, count, each):
        length = min(each, count - first) * BLOCK
        chunk = read(start + first * BLOCK, length)
        if len(chunk) != length:
            raise Invalid(
                "cannot verify the disk: it ends within the writer's log; "
                "give the whole disk, not a part of it"
            )
        if not any(chunk):
            continue
        for index in range(length // BLOCK):
            block = chunk[index * BLOCK : (index + 1) * BLOCK]
            if any(block):
                yield first + index, block
