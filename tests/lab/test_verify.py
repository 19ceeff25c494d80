"""The checker of the writer's disk: innocent histories pass, every kind of guilt is found."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.lab.writer_model import LOG_START, ModelDisk, ModelWriter, boot_id
from vorch.errors import Invalid, NotFound
from vorch.lab import writer_log
from vorch.lab.verify import TOLD_OF_A_KIND, Ack, Verdict, parse_acks, verify, verify_disk
from vorch.lab.writer_log import BLOCK, Record, sum_of

SECTORS = 8


def kinds(disk: ModelDisk, acks: Iterable[Ack] = ()) -> set[str]:
    return {finding.kind for finding in verify(disk.read, acks).findings}


def two_boots(slots: int = 16, first: int = 4, second: int = 4) -> tuple[ModelDisk, list[Ack]]:
    disk = ModelDisk(slots)
    return disk, [*ModelWriter(disk, 1, "a").write(first), *ModelWriter(disk, 2, "b").write(second)]


# --- histories with one writer at a time ---------------------------------------------------------


@dataclass(frozen=True)
class Life:
    """One boot: how many records it writes, and which sectors of one more land when it is cut off.

    None: it is cut off before it begins the next one. `failures` are attempts at each record that
    end in an error after a part of them has landed.
    """

    records: int
    torn: frozenset[int] | None
    failures: tuple[frozenset[int], ...]


SECTOR_SETS = st.frozensets(st.integers(0, SECTORS - 1))
LIVES = st.builds(
    Life,
    records=st.integers(0, 9),
    torn=st.none() | SECTOR_SETS | st.just(frozenset(range(SECTORS))),
    failures=st.lists(SECTOR_SETS, max_size=2).map(tuple),
)


def live(disk: ModelDisk, boot: int, life: Life) -> list[Ack]:
    writer = ModelWriter(disk, boot, f"host{boot}")
    for _ in range(life.records):
        writer.look()
        for sectors in life.failures:
            writer.put(sectors)
        writer.put()
        writer.acknowledge()
    if life.torn is not None:
        writer.look()
        writer.put(life.torn)
    return writer.acks


@given(slots=st.integers(3, 9), lives=st.lists(LIVES, max_size=6), data=st.data())
@settings(max_examples=300, deadline=None)
def test_one_writer_at_a_time_is_innocent_whatever_cuts_it_off(
    slots: int, lives: list[Life], data: st.DataObject
) -> None:
    disk = ModelDisk(slots)
    acks = [ack for boot, life in enumerate(lives, 1) for ack in live(disk, boot, life)]
    verdict = verify(disk.read, acks)
    assert verdict.findings == ()
    assert verdict.acks == len(acks)
    assert verdict.records <= slots
    some = data.draw(st.lists(st.sampled_from(acks)) if acks else st.just([]))
    assert verify(disk.read, some).ok


def test_the_verdict_says_what_is_there() -> None:
    disk, acks = two_boots(slots=6)
    verdict = verify(disk.read, [*acks, *acks])
    assert (verdict.ok, verdict.two_writers, verdict.torn) == (True, False, False)
    assert (verdict.records, verdict.first, verdict.last, verdict.slots) == (6, 3, 8, 6)
    assert (verdict.acks, verdict.acks_gone) == (8, 2)
    told = [(each.epoch, each.boot, each.host, each.first, each.last) for each in verdict.epochs]
    assert told == [(1, boot_id(1), "a", 3, 4), (2, boot_id(2), "b", 5, 8)]
    assert [each.count for each in verdict.epochs] == [2, 4]


def test_a_torn_last_record_is_told_but_no_offence() -> None:
    disk, acks = two_boots(slots=6)
    writer = ModelWriter(disk, 3)
    writer.look()
    writer.put({0, 1, 2})
    verdict = verify(disk.read, acks)
    # It tore what was the lowest number of the ring.
    assert (verdict.ok, verdict.torn, verdict.first, verdict.acks_gone) == (True, True, 4, 3)
    assert "lost-ack" in kinds(disk, [*acks, Ack(3, 9, boot_id(3))])


# --- histories with two writers ------------------------------------------------------------------


@dataclass
class Guest:
    """A writer that goes on by one step each time it is asked to."""

    disk: ModelDisk
    boot: int
    blind: bool = False
    writer: ModelWriter | None = None
    started: int = -1
    wrote: int = -1
    acknowledged: int = -1

    def step(self, now: int) -> None:
        if self.writer is None:
            self.writer = ModelWriter(self.disk, self.boot, blind=self.blind)
            self.started = now
        elif self.writer.pending is None:
            self.writer.look()
        elif self.wrote <= self.acknowledged:
            self.writer.put()
            self.wrote = now
        else:
            self.writer.acknowledge()
            self.acknowledged = self.wrote

    def whole_step(self, now: int) -> None:
        """Without anything of the other's between the look and the acknowledgement."""
        self.step(now)
        if self.writer and self.writer.pending:
            self.step(now)
            self.step(now)


def overlapped(one: Guest, other: Guest) -> bool:
    """Each confirmed a write that it made after the other had looked where to begin.

    A write that nobody was told of binds nobody; and a boot that has looked and never wrote is none
    that a disk could know.
    """
    return (
        min(one.started, other.started) >= 0
        and one.acknowledged > other.started
        and other.acknowledged > one.started
    )


@given(
    slots=st.integers(3, 12),
    before=st.integers(0, 14),
    turns=st.lists(st.booleans(), min_size=4, max_size=60),
    after=st.integers(0, 14),
    blind=st.booleans(),
)
@settings(max_examples=500, deadline=None)
def test_every_overlap_is_found_when_all_acknowledgements_were_seen(
    slots: int, before: int, turns: list[bool], after: int, blind: bool
) -> None:
    # The acknowledgements are enough, whether or not the writers look at one another's traces.
    disk = ModelDisk(slots)
    acks = ModelWriter(disk, 1).write(before)
    guests = (Guest(disk, 2, blind), Guest(disk, 3, blind))
    for now, turn in enumerate(turns):
        guests[turn].step(now)
    acks += [ack for guest in guests if guest.writer for ack in guest.writer.acks]
    if overlapped(*guests):
        assert verify(disk.read, acks).two_writers
        # However long a third goes on and wipes the traces.
        acks += ModelWriter(disk, 4).write(after)
        assert verify(disk.read, acks).two_writers


@given(
    before=st.integers(0, 5),
    turns=st.lists(st.booleans(), min_size=2, max_size=24),
    after=st.integers(0, 5),
)
@settings(max_examples=500, deadline=None)
def test_an_overlap_is_found_without_acknowledgements_unless_it_fell_into_the_gap(
    before: int, turns: list[bool], after: int
) -> None:
    disk = ModelDisk(40)
    ModelWriter(disk, 1).write(before)
    guests = (Guest(disk, 2), Guest(disk, 3))
    for now, turn in enumerate(turns):
        guests[turn].whole_step(now)
    ModelWriter(disk, 4).write(after)
    # Steps that do not mix are a history, whose truth is told both ways.
    assert verify(disk.read).two_writers == overlapped(*guests)


@given(
    slots=st.integers(3, 12),
    before=st.integers(0, 14),
    steps_before=st.integers(0, 2),
    turns=st.lists(st.booleans(), min_size=4, max_size=40),
    blind=st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_two_copies_of_one_boot_are_found_when_all_acknowledgements_were_seen(
    slots: int, before: int, steps_before: int, turns: list[bool], blind: bool
) -> None:
    disk = ModelDisk(slots)
    original = Guest(disk, 1, blind)
    lived = 1 + 3 * before + steps_before
    for now in range(lived):
        original.step(now)
    assert original.writer
    assert len(original.writer.acks) == before
    twin = replace(original, writer=original.writer.copy())
    for now, turn in enumerate(turns, lived):
        (original, twin)[turn].step(now)
    assert twin.writer
    acks = [*original.writer.acks, *twin.writer.acks]
    # A record begun before the copy was made is the same in both, and so is its checksum.
    shared = 1 if steps_before else 0
    confirmed = (len(original.writer.acks) - before, len(twin.writer.acks))
    if min(confirmed) > shared:
        assert verify(disk.read, acks).two_writers


def test_both_write_the_same_numbers_over_one_another() -> None:
    disk = ModelDisk(16)
    acks = ModelWriter(disk, 1).write(3)
    old, new = ModelWriter(disk, 2), ModelWriter(disk, 3)
    for _ in range(5):
        acks += [*old.write(), *new.write()]
    assert {"same-epoch", "double-ack", "overwritten-ack", "surprise"} <= kinds(disk, acks)
    assert "surprise" in kinds(disk)


def test_the_new_one_overtakes_and_wipes_every_trace_but_the_acknowledgements() -> None:
    disk = ModelDisk(16)
    old = ModelWriter(disk, 1)
    acks = old.write(3)
    new = ModelWriter(disk, 2)
    # In the gap between the new one's look and its write.
    new.look()
    acks += old.write()
    new.put()
    acks += [new.acknowledge(), *new.write(3)]
    assert verify(disk.read).ok
    assert kinds(disk, acks) == {"double-ack", "overwritten-ack"}
    assert kinds(disk, old.acks) == {"overwritten-ack"}


def test_the_old_one_writes_once_more_into_what_the_new_one_wrote() -> None:
    disk = ModelDisk(16)
    old = ModelWriter(disk, 1)
    old.write(3)
    old.look()
    new = ModelWriter(disk, 2)
    new.write(4)
    old.put()
    assert kinds(disk) == {"broken-chain"}
    assert "overwritten-ack" in kinds(disk, new.acks)


def test_the_old_one_goes_on_where_the_new_one_has_ended() -> None:
    disk = ModelDisk(16)
    old = ModelWriter(disk, 1, blind=True)
    old.write(3)
    new = ModelWriter(disk, 2)
    new.write(2)
    old.write(4)
    # All that the new one wrote is gone: had the old one not looked, nothing else would know of it.
    assert kinds(disk) == set()
    assert kinds(disk, new.acks) == {
        *("overwritten-ack", "older-after-newer", "stale-tail", "interleaved"),
    }
    # An acknowledgement without a checksum still names the boot.
    assert "overwritten-ack" in kinds(disk, [replace(ack, sum="") for ack in new.acks])


def test_a_tail_of_the_old_one_behind_the_new_ones_end() -> None:
    disk = ModelDisk(16)
    old = ModelWriter(disk, 1, blind=True)
    old.write(3)
    new = ModelWriter(disk, 2, blind=True)
    old.write(5)
    new.write(2)
    assert kinds(disk) == {"stale-tail", "broken-chain", "interleaved"}


def test_the_old_one_wakes_up_after_laps_of_the_new_one() -> None:
    disk = ModelDisk(6)
    old = ModelWriter(disk, 1)
    acks = old.write(3)
    old.look()
    new = ModelWriter(disk, 2)
    new.write(20)
    old.put()
    assert kinds(disk, acks) == {"hole", "older-after-newer"}
    acks += [old.acknowledge(), *new.acks]
    new.write(6)
    # The ring has passed over it, and the new one had seen it on its way.
    assert kinds(disk) == {"surprise"}
    assert "double-ack" in kinds(disk, acks)


def test_three_boots_and_the_first_again() -> None:
    disk, _ = two_boots()
    third = ModelWriter(disk, 3)
    third.boot = boot_id(1)
    third.write(2)
    assert kinds(disk) == {"interleaved"}
    # A service that was started once more in the same boot is none of these.
    again = ModelWriter(disk, 3)
    again.boot = boot_id(1)
    again.write(2)
    assert kinds(disk) == {"interleaved"}


def test_a_chain_of_acknowledgements_alone_gives_an_older_boot_away() -> None:
    disk, acks = two_boots(slots=4, second=20)
    assert kinds(disk, acks) == set()
    assert kinds(disk, [*acks, Ack(1, 6, boot_id(1))]) >= {"double-ack", "older-after-newer"}
    # Without the other's acknowledgement of the very same number.
    fewer = [ack for ack in acks if ack.number != 6]
    assert kinds(disk, [*fewer, Ack(1, 6, boot_id(1))]) == {"older-after-newer", "interleaved"}
    assert kinds(disk, [*acks, Ack(2, 6, boot_id(9))]) >= {"same-epoch"}


# --- what storage does --------------------------------------------------------------------------


def test_an_acknowledged_record_that_is_gone() -> None:
    disk, acks = two_boots()
    disk.put(7, bytes(BLOCK))
    assert kinds(disk) == set()
    found = verify(disk.read, acks).findings
    assert [(each.kind, each.number) for each in found] == [("lost-ack", 8)]
    assert not verify(disk.read, acks).two_writers


def test_a_record_in_the_middle_that_is_gone() -> None:
    disk, acks = two_boots()
    disk.put(5, bytes(BLOCK))
    assert kinds(disk) == {"hole"}
    assert kinds(disk, acks) == {"hole", "lost-ack"}


def test_a_write_of_a_later_lap_that_was_lost() -> None:
    disk, _ = two_boots(slots=6)
    kept = disk.block(disk.slot(12))
    writer = ModelWriter(disk, 3)
    writer.write(6)
    disk.put(disk.slot(12), kept)
    verdict = verify(disk.read)
    assert {(each.kind, each.number) for each in verdict.findings} == {("hole", 12)}
    assert not verdict.two_writers


@pytest.mark.parametrize("byte", [40, 600, 4000, 4030, 4095])
def test_a_flipped_bit(byte: int) -> None:
    disk, acks = two_boots()
    disk.content[LOG_START + BLOCK * 4 + byte] ^= 1
    assert kinds(disk) == {"damaged"}
    assert kinds(disk, acks) == {"damaged", "lost-ack"}


def test_damage_beyond_the_end_is_no_torn_record() -> None:
    disk, _ = two_boots()
    disk.put(12, b"x" * BLOCK)
    assert kinds(disk) == {"damaged"}
    # Right behind the end it may be one.
    disk.put(12, bytes(BLOCK))
    disk.put(8, b"x" * BLOCK)
    assert kinds(disk) == set()


def test_a_record_in_a_foreign_slot() -> None:
    disk, _ = two_boots()
    disk.put(12, disk.block(3))
    assert kinds(disk) == {"misplaced"}


def test_other_contents_under_the_same_number() -> None:
    disk, acks = two_boots()
    record = writer_log.decode_record(disk.block(7))
    assert record
    disk.put(7, replace(record, time="2.5").encode())
    assert kinds(disk) == set()
    assert kinds(disk, acks) == {"overwritten-ack"}
    other = replace(acks[-1], sum="0" * 16)
    assert "double-ack" in kinds(disk, [*acks, other])


def test_an_epoch_whose_records_are_all_gone() -> None:
    disk, _ = two_boots()
    last = disk.block(7)
    forged = Record(9, 4, boot_id(4), previous=sum_of(last))
    disk.put(8, forged.encode())
    assert kinds(disk) == {"epoch-jump"}
    fresh = ModelDisk(6)
    fresh.put(0, Record(1, 2, boot_id(2)).encode())
    assert kinds(fresh) == {"epoch-jump"}


def test_a_first_record_with_something_before_it() -> None:
    disk = ModelDisk(6)
    disk.put(0, Record(1, 1, boot_id(1), previous="1" * 64).encode())
    assert kinds(disk) == {"broken-chain"}


def test_thousands_of_findings_are_not_all_told() -> None:
    disk = ModelDisk(400)
    number = 400
    disk.put(number - 1, Record(number, 1, boot_id(1)).encode())
    holes = [each for each in verify(disk.read).findings if each.kind == "hole"]
    assert len(holes) == TOLD_OF_A_KIND + 1
    assert holes[-1].message == f"and {399 - TOLD_OF_A_KIND} more of this kind"


# --- lines, headers, readers --------------------------------------------------------------------

BOOT = boot_id(7)
LINE = f"writer ack epoch=3 number=17 boot={BOOT} sum=0123456789abcdef end=17"
ACK = Ack(3, 17, BOOT, "0123456789abcdef")


def test_acknowledgements_are_read_out_of_a_noisy_console() -> None:
    text = (
        f"tiny login: \x1b[6n{LINE}\r\nPassword: {LINE}\r\n"
        f"{LINE[:-1]}\n{LINE[:50]}\nwriter failed epoch=3 number=18 boot={BOOT}: I/O error\n"
        f"{LINE[:28]}\x1b[0m{LINE[28:]}\n"
        # Two lines that have lost a piece between them; a number that is cut; nothing behind it.
        f"{LINE[:28]}{LINE.replace('17', '99')[28:]}\n{LINE}8\n"
        f"writer ack epoch=3 number=17 boot={BOOT}\n{LINE}"
    )
    assert list(parse_acks(text)) == [ACK] * 4
    assert list(parse_acks([f"<13>Nov 21 17:21:29 writer: {LINE}\n", "nothing"])) == [ACK]


@given(st.text(), st.integers(0, len(LINE)))
def test_no_part_of_a_line_makes_an_acknowledgement(noise: str, cut: int) -> None:
    noise = noise.replace("7", "")
    assert set(parse_acks(noise + LINE[:cut] + "\n" + noise)) <= {ACK}
    assert set(parse_acks(LINE[:cut] + noise)) <= {ACK}


def test_arming_keeps_the_slots_and_says_what_is_wrong() -> None:
    disk = ModelDisk(6)
    assert writer_log.arm(disk, slots=4, rate=3) == writer_log.Header(4, 3)
    assert writer_log.arm(disk, rate=50, send="10.0.0.1", port=99).slots == 4
    assert writer_log.read_header(disk.read) == writer_log.Header(4, 50, "10.0.0.1", 99)
    assert writer_log.arm(disk, rate=1, seconds=7) == writer_log.read_header(disk.read)
    for slots, rate, port, seconds in (
        *((7, 1, 1, 1), (1, 1, 1, 1), (6, 0, 1, 1), (6, 1, 0, 1)),
        *((6, 1, 1, 0), (6, 1, 1, 61)),
    ):
        with pytest.raises(Invalid, match=r"cannot arm the writer: .*; give"):
            writer_log.arm(disk, slots=slots, rate=rate, port=port, seconds=seconds)
    with pytest.raises(Invalid, match="no IPv4 address"):
        writer_log.arm(disk, send="host")
    writer_log.disarm(disk)
    with pytest.raises(Invalid, match="never armed"):
        verify(disk.read)
    disk.write(LOG_START, b"vorch-writer log 1\nrate=")
    with pytest.raises(Invalid, match="header is damaged"):
        verify(disk.read)
    disk.content[510] = 0
    with pytest.raises(Invalid, match="no partition table"):
        verify(disk.read)


def test_a_disk_of_another_kind_of_guest() -> None:
    disk = ModelDisk(6)
    disk.content[446:510] = bytes(64)
    with pytest.raises(Invalid, match="third partition"):
        verify(disk.read)


def _in_a_file(tmp_path: Path, form: str) -> tuple[Path, list[Ack], Verdict]:
    disk, acks = two_boots(slots=300, first=200, second=80)
    file = tmp_path / "disk.raw"
    # Longer than its log, and with the log across the border of two pieces.
    file.write_bytes(bytes(disk.content) + random.Random(1).randbytes(5000 * 512))
    if form == "qcow2":
        target = tmp_path / "disk.qcow2"
        subprocess.run(
            ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(file), str(target)], check=True
        )
        file = target
    return file, acks, verify(disk.read, acks)


@pytest.mark.parametrize("form", ["raw", "qcow2"])
def test_a_disk_in_a_file(tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vorch.lab.disk_readers.PIECE", 512 << 10)
    file, acks, expected = _in_a_file(tmp_path, form)
    assert expected.ok
    assert verify_disk(str(file), acks=iter(acks)) == expected


def test_a_disk_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no such file; give a file, or rbd:POOL/IMAGE"):
        verify_disk(str(tmp_path / "none"))
    with pytest.raises(Invalid, match="give rbd:POOL/IMAGE"):
        verify_disk("rbd:pool")
    disk, _ = two_boots()
    part = tmp_path / "part"
    part.write_bytes(disk.content[: LOG_START + 3 * BLOCK])
    with pytest.raises(Invalid, match="it ends within"):
        verify_disk(str(part))


def test_an_image_in_a_cluster_that_nobody_configured(tmp_path: Path) -> None:
    pytest.importorskip("rados", reason="python3-rados is not installed")
    with pytest.raises(Invalid, match=r"give a ceph\.conf that exists"):
        verify_disk("rbd:pool/image", conf=tmp_path / "none.conf")
