"""What the `writer` guest leaves behind: its log on the disk, and the lines that acknowledge it.

The log is the disk's third partition. Its first 4 KiB are the header, which arms the writer; a ring
of slots follows, each a record of 4 KiB of text: record N stands in slot (N - 1) mod slots.

    bytes 0..511     vorch-writer record 1 number=17 epoch=3 boot=UUID time=1795281421.749223
                     surprises=0 previous=SHA256 host=NAME      one line, filled up with spaces
    bytes 512..4023  "17.3.UUID " again and again, so that every sector tells whose it is
    bytes 4024..4095 sha256=SHA256                              of bytes 0..4023

`previous` is the sha256 of record N - 1, and zeros in record 1. `surprises` counts how often this
boot has found a record that was not as it left it, or a slot ahead of it already taken.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from vorch.errors import Invalid

Read = Callable[[int, int], bytes]

BLOCK = 4096
SECTOR = 512
PARTITION_KIND = 0xDA
PARTITION_NUMBER = 3
DEFAULT_RATE = 10
DEFAULT_PORT = 5140
ZERO_SUM = "0" * 64

_HEADER_MAGIC = "vorch-writer log 1\n"
_HEAD_SIZE = 512
_HASHED_SIZE = BLOCK - len("sha256=") - 64 - 1
_UUID = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_HEAD = re.compile(
    rf"vorch-writer record 1 number=(\d+) epoch=(\d+) boot=({_UUID}) time=([0-9.]+) "
    r"surprises=(\d+) previous=([0-9a-f]{64}) host=(\S*) *\n"
)
# The number is said twice: of two lines that lost their middle, no third one is made.
_ACK = re.compile(
    rf"writer ack epoch=(\d+) number=(\d+) boot=({_UUID})(?: sum=([0-9a-f]{{16}}) end=(\d+)(?!\d))?"
)
_ESCAPES = re.compile(r"\x1b(?:\[[0-9;?=]*[A-Za-z]|[()][A-Za-z0-9]|[c78=>])|\r")


class Disk(Protocol):
    """Anything that reads and writes at an offset: a raw file, an RBD image, a model in a test."""

    def read(self, offset: int, length: int, /) -> bytes: ...

    def write(self, offset: int, data: bytes, /) -> object: ...


class FileDisk:
    """A raw image file, opened for reading and writing without a buffer."""

    def __init__(self, file: io.RawIOBase) -> None:
        self._file = file

    def read(self, offset: int, length: int, /) -> bytes:
        return os.pread(self._file.fileno(), length, offset)

    def write(self, offset: int, data: bytes, /) -> int:
        return os.pwrite(self._file.fileno(), data, offset)


@dataclass(frozen=True)
class Header:
    """What the writer is told: `rate` records in so many `seconds`. `send` is an IPv4 address for
    the acknowledgements; without one they go to the guest's default gateway."""

    slots: int
    rate: int = DEFAULT_RATE
    send: str = ""
    port: int = DEFAULT_PORT
    seconds: int = 1


@dataclass(frozen=True)
class Record:
    number: int
    epoch: int
    boot: str
    host: str = "writer"
    time: str = "0.000000"
    surprises: int = 0
    previous: str = ZERO_SUM

    def encode(self) -> bytes:
        head = (
            f"vorch-writer record 1 number={self.number} epoch={self.epoch} boot={self.boot} "
            f"time={self.time} surprises={self.surprises} previous={self.previous} host={self.host}"
        )
        fill = f"{self.number}.{self.epoch}.{self.boot} ".encode()
        filled = (fill * (BLOCK // len(fill) + 1))[: _HASHED_SIZE - _HEAD_SIZE - 1]
        body = f"{head:<{_HEAD_SIZE - 1}.{_HEAD_SIZE - 1}}\n".encode() + filled + b"\n"
        return body + f"sha256={hashlib.sha256(body).hexdigest()}\n".encode()

    @property
    def sum(self) -> str:
        return sum_of(self.encode())


@dataclass(frozen=True)
class Ack:
    """One acknowledgement that somebody has seen; `sum` is the start of the record's checksum."""

    epoch: int
    number: int
    boot: str
    sum: str = ""


def sum_of(block: bytes) -> str:
    """The checksum that a whole record bears."""
    return block[-65:-1].decode()


def decode_record(block: bytes) -> Record | None:
    """The record in that block, if it is a whole one."""
    hashed, tail = block[:_HASHED_SIZE], block[_HASHED_SIZE:]
    if tail != f"sha256={hashlib.sha256(hashed).hexdigest()}\n".encode():
        return None
    found = _HEAD.fullmatch(hashed[:_HEAD_SIZE].decode(errors="replace"))
    if not found:
        return None
    number, epoch, boot, time, surprises, previous, host = found.groups()
    return Record(int(number), int(epoch), boot, host, time, int(surprises), previous)


def parse_acks(text: str | Iterable[str]) -> Iterator[Ack]:
    """The acknowledgements in a console's text, or in datagrams, whatever stands around them.

    A line that is not complete counts for nothing: it is as if nobody had seen it.
    """
    for line in text.splitlines() if isinstance(text, str) else text:
        for found in _ACK.finditer(_ESCAPES.sub("", line)):
            epoch, number, boot, sum_, end = found.groups()
            if end == number:
                yield Ack(int(epoch), int(number), boot, sum_)


def find_log(read: Read) -> tuple[int, int]:
    """Where the log partition begins on the disk, and how long it is."""
    table = read(0, SECTOR)
    if table[510:512] != b"\x55\xaa":
        raise Invalid(
            "cannot find the writer's log: the disk has no partition table; "
            "give the disk of a guest of the kind 'writer'"
        )
    at = 446 + 16 * (PARTITION_NUMBER - 1)
    kind, start, size = table[at + 4], *struct.unpack_from("<II", table, at + 8)
    if kind != PARTITION_KIND or size * SECTOR < 3 * BLOCK:
        raise Invalid(
            "cannot find the writer's log: the disk's third partition is none; "
            "give the disk of a guest of the kind 'writer'"
        )
    return start * SECTOR, size * SECTOR


def read_header(read: Read) -> Header | None:
    """What the writer of this disk is told; None when it is not armed."""
    start, size = find_log(read)
    block = read(start, BLOCK).rstrip(b"\0").decode(errors="replace")
    if not block.startswith(_HEADER_MAGIC):
        return None
    said = dict(line.partition("=")[::2] for line in block.splitlines()[1:])
    try:
        # Disks that were armed before there was such a thing do not tell the seconds.
        seconds = int(said.get("seconds", 1))
        slots, rate, port = (int(said[name]) for name in ("slots", "rate", "port"))
        header = Header(slots, rate, said["send"], port, seconds)
    except (KeyError, ValueError):
        header = Header(0)
    if not 2 <= header.slots <= size // BLOCK - 1:
        raise Invalid(
            "cannot read the writer's log: its header is damaged; arm the disk anew",
            header=block[:200],
        )
    return header


def arm(
    disk: Disk,
    *,
    rate: int = DEFAULT_RATE,
    slots: int | None = None,
    send: str = "",
    port: int = DEFAULT_PORT,
    seconds: int = 1,
) -> Header:
    """Writes the header, for the guest's next start; one that waits to be armed begins in seconds.

    With another number of slots the records already written no longer stand where they belong, so
    a disk that is armed keeps its own unless one is named.
    """
    start, size = find_log(disk.read)
    room = size // BLOCK - 1
    if slots is None:
        armed = read_header(disk.read)
        slots = armed.slots if armed else room
    in_range = 2 <= slots <= room and 1 <= rate <= 1000 and 0 < port < 65536 and 1 <= seconds <= 60
    if not in_range:
        raise Invalid(
            f"cannot arm the writer: {slots} slots, {rate} records in {seconds} s or port {port} is"
            f" out of range; give 2 to {room} slots, 1 to 1000 records, 1 to 60 seconds and a port"
            " from 1 to 65535"
        )
    if not re.fullmatch(r"(\d{1,3}(\.\d{1,3}){3})?", send):
        raise Invalid(f"cannot arm the writer: '{send}' is no IPv4 address; give one, or none")
    text = f"{_HEADER_MAGIC}rate={rate}\nslots={slots}\nsend={send}\nport={port}\n"
    text += f"seconds={seconds}\n"
    disk.write(start, text.encode().ljust(BLOCK, b"\0"))
    return Header(slots, rate, send, port, seconds)


def disarm(disk: Disk) -> None:
    """Takes the header away; the records stay where they are."""
    disk.write(find_log(disk.read)[0], bytes(BLOCK))
