"""The writer guest for real: power cuts, two machines on one disk, failing writes, networks."""

from __future__ import annotations

import shutil
import socket
import struct
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.guest.serial import ANSWER_TIMEOUT_S, BOOT_TIMEOUT_S, SerialConsole
from vorch.lab import guest, writer_log
from vorch.lab.verify import verify_disk
from vorch.lab.writer_log import BLOCK, SECTOR, Ack, Header, parse_acks

# Several boots under emulation, on cores that others use too.
pytestmark = pytest.mark.timeout(900)
START = r"writer start epoch=(\d+) number=(\d+) boot=(\S+) slots=(\d+) rate=(\d+)\n"


class Machine:
    """One QEMU on a disk that it may share with others."""

    def __init__(self, image: guest.GuestImage, disk: str, serial: Path, *more: str) -> None:
        self.process = subprocess.Popen(
            [
                *("qemu-system-x86_64", "-nodefaults", "-accel", "tcg", "-machine", "pc"),
                *("-m", str(image.memory_mib), "-display", "none"),
                *("-blockdev", disk, "-device", "virtio-blk-pci,drive=disk,werror=report"),
                *("-serial", f"unix:{serial},server=on,wait=off", *more),
            ],
            stdin=subprocess.DEVNULL,
        )
        try:
            self.console = SerialConsole.connect(serial)
        except BaseException:
            self.cut()
            raise

    def wait_for_number(self, number: int) -> None:
        """Until that number or a higher one is acknowledged."""
        deadline = time.monotonic() + ANSWER_TIMEOUT_S
        while True:
            line = self.console.expect(r"(writer ack .*)\n", ANSWER_TIMEOUT_S)[1]
            if any(ack.number >= number for ack in parse_acks(line)):
                return
            assert time.monotonic() < deadline, f"no number {number}, the latest is: {line}"

    def cut(self) -> None:
        self.process.kill()
        self.process.wait()

    def acks(self) -> list[Ack]:
        """All acknowledgements of a machine that was cut off, to its last breath."""
        with pytest.raises(AssertionError, match="before the console was closed"):
            self.console.expect("no such text", ANSWER_TIMEOUT_S)
        return list(parse_acks(self.console.transcript))


Start = Callable[..., Machine]


@pytest.fixture
def start(writer: guest.GuestImage, tmp_path: Path) -> Iterator[Start]:
    machines: list[Machine] = []

    def run(disk: str, *more: str) -> Machine:
        machines.append(Machine(writer, disk, tmp_path / f"serial-{len(machines)}", *more))
        return machines[-1]

    yield run
    for machine in machines:
        machine.cut()
        machine.console.close()


@pytest.fixture(scope="module")
def writer() -> guest.GuestImage:
    missing = guest.missing_programs("writer")
    if missing:
        pytest.skip(
            f"building 'writer' needs {', '.join(missing)}: "
            f"install {' '.join(sorted(set(missing.values())))}"
        )
    if not shutil.which("qemu-system-x86_64"):
        pytest.skip("no qemu-system-x86_64: install qemu-system-x86")
    return guest.build("writer")


@pytest.fixture
def disk(writer: guest.GuestImage, tmp_path: Path) -> Path:
    target = tmp_path / "disk.raw"
    subprocess.run(["cp", "--sparse=always", str(writer.raw_path), str(target)], check=True)
    target.chmod(0o644)
    return target


def raw(disk: Path) -> str:
    return f"driver=raw,node-name=disk,file.driver=file,file.filename={disk},file.locking=off"


def arm(disk: Path, *, rate: int, slots: int | None = None, port: int = 5140) -> Header:
    with disk.open("r+b", buffering=0) as file:
        return writer_log.arm(writer_log.FileDisk(file), rate=rate, slots=slots, port=port)


@pytest.mark.real
def test_the_image_is_armed_and_its_log_a_hole(writer: guest.GuestImage) -> None:
    verdict = verify_disk(str(writer.path))
    assert (verdict.ok, verdict.records, verdict.slots) == (True, 0, 64 * 256 - 1)
    assert verify_disk(str(writer.raw_path)) == verdict
    # What stands in the raw file is the header.
    assert writer.raw_path.stat().st_blocks * SECTOR < writer.virtual_size_bytes - (60 << 20)


@pytest.mark.real
@pytest.mark.slow
def test_every_acknowledged_record_outlives_the_power_cut(start: Start, disk: Path) -> None:
    first = start(raw(disk))
    assert first.console.expect(START, BOOT_TIMEOUT_S).group(1, 2, 4, 5) == (
        *("1", "1", "16383", "10"),
    )
    first.wait_for_number(5)
    # The console stays one to log in at, with the lines of the writer in between.
    first.console.send("")
    first.console.expect(r"login: ")
    first.console.send("root")
    first.console.expect(r"assword: ")
    first.console.send("vorch")
    first.console.expect(r"# ")
    # In the guest's own words, so that the echo does not look like the answer.
    first.console.send("echo host=$(hostname)")
    first.console.expect(r"host=writer\n")
    first.console.send("exit")
    first.wait_for_number(20)
    first.cut()
    acks = first.acks()
    verdict = verify_disk(str(disk), acks=acks)
    assert verdict.findings == ()
    assert [each.epoch for each in verdict.epochs] == [1]

    second = start(raw(disk))
    begun = second.console.expect(START, BOOT_TIMEOUT_S)
    assert (begun[1], int(begun[2])) == ("2", (verdict.last or 0) + 1)
    second.wait_for_number(int(begun[2]) + 10)
    second.cut()
    acks += second.acks()
    verdict = verify_disk(str(disk), acks=acks)
    assert verdict.findings == ()
    assert verdict.acks == len(acks) > 30
    assert verdict.acks_gone == 0
    assert [(each.epoch, each.host) for each in verdict.epochs] == [(1, "writer"), (2, "writer")]
    assert verdict.epochs[1].boot == begun[3]


@pytest.mark.real
@pytest.mark.slow
def test_the_ring_goes_round_over_power_cuts_on_qcow2(
    start: Start, disk: Path, tmp_path: Path
) -> None:
    arm(disk, rate=1000, slots=13)
    overlay = tmp_path / "overlay.qcow2"
    subprocess.run(
        [
            *("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw"),
            *("-b", str(disk), str(overlay)),
        ],
        check=True,
    )
    acks: list[Ack] = []
    for epoch in (1, 2, 3):
        machine = start(f"driver=qcow2,node-name=disk,file.driver=file,file.filename={overlay}")
        begun = machine.console.expect(START, BOOT_TIMEOUT_S)
        assert begun[1] == str(epoch)
        machine.wait_for_number(int(begun[2]) + 30)
        machine.cut()
        acks += machine.acks()
        verdict = verify_disk(str(overlay), acks=acks)
        assert verdict.findings == ()
        assert "writer surprise" not in machine.console.transcript
        assert (verdict.last or 0) > 30 * epoch
        assert verdict.acks_gone > 30 * epoch - 14


@pytest.mark.real
@pytest.mark.slow
def test_a_full_ring_with_a_torn_record_is_searched_quickly(start: Start, disk: Path) -> None:
    last = 20_000
    with disk.open("r+b", buffering=0) as file:
        device = writer_log.FileDisk(file)
        begin, _ = writer_log.find_log(device.read)
        slots = writer_log.arm(device, rate=10).slots
        previous = ""
        for number in range(last - slots + 1, last + 1):
            boot = str(uuid.UUID(int=number // 1000))
            record = writer_log.Record(
                number, number // 1000 + 1, boot, previous=previous or writer_log.ZERO_SUM
            ).encode()
            device.write(begin + BLOCK * (1 + (number - 1) % slots), record)
            previous = writer_log.sum_of(record)
        torn = writer_log.Record(last + 1, last // 1000 + 1, str(uuid.UUID(int=20))).encode()
        device.write(begin + BLOCK * (1 + last % slots), torn[: 3 * SECTOR])
    verdict = verify_disk(str(disk))
    assert (verdict.ok, verdict.torn, verdict.last) == (True, True, last)
    machine = start(raw(disk))
    machine.console.expect("vorch-guest ready", BOOT_TIMEOUT_S)
    ready = time.monotonic()
    begun = machine.console.expect(START, BOOT_TIMEOUT_S)
    print(f"found its place in {time.monotonic() - ready:.2f} s")
    assert begun.group(1, 2) == (str(last // 1000 + 2), str(last + 1))
    assert time.monotonic() - ready < 10
    machine.wait_for_number(last + 5)
    machine.cut()
    verdict = verify_disk(str(disk), acks=machine.acks())
    assert verdict.findings == ()
    assert "writer surprise" not in machine.console.transcript


@pytest.mark.real
@pytest.mark.slow
def test_two_machines_on_one_disk_are_found_out(start: Start, disk: Path) -> None:
    one = start(raw(disk))
    one.console.expect(START, BOOT_TIMEOUT_S)
    one.wait_for_number(5)
    other = start(raw(disk))
    begun = other.console.expect(START, BOOT_TIMEOUT_S)
    other.wait_for_number(int(begun[2]) + 10)
    one.wait_for_number(int(begun[2]) + 10)
    one.cut()
    other.cut()
    acks = [*one.acks(), *other.acks()]
    verdict = verify_disk(str(disk), acks=acks)
    assert verdict.two_writers
    assert {"double-ack", "overwritten-ack", "surprise"} <= {
        finding.kind for finding in verdict.findings
    }
    # They had met each other, so the disk alone knows of it.
    alone = verify_disk(str(disk))
    assert "surprise" in {finding.kind for finding in alone.findings}
    assert "writer surprise" in one.console.transcript + other.console.transcript


@pytest.mark.real
@pytest.mark.slow
def test_a_failed_write_is_said_and_tried_again_and_never_acknowledged(
    start: Start, disk: Path
) -> None:
    start_of_log = struct.unpack_from("<I", disk.read_bytes()[:SECTOR], 446 + 32 + 8)[0] * SECTOR
    sector = (start_of_log + BLOCK * 7) // SECTOR
    fault = "file.inject-error.{}.iotype=write,file.inject-error.{}.event=none"
    fault += ",file.inject-error.{}.errno=5,file.inject-error.{}.once=on"
    fault += f",file.inject-error.{{}}.sector={sector}"
    # Twice: record 7 fails, and so does the next attempt at it.
    faults = ",".join(fault.replace("{}", str(index)) for index in range(2))
    machine = start(
        "driver=raw,node-name=disk,file.driver=blkdebug,file.image.driver=file,"
        f"file.image.filename={disk},{faults}"
    )
    machine.console.expect(START, BOOT_TIMEOUT_S)
    for _ in range(2):
        said = machine.console.expect(r"writer (\S+) epoch=1 number=7 (.*)\n", ANSWER_TIMEOUT_S)
        assert said[1] == "failed"
        assert "Input/output error" in said[2]
    machine.wait_for_number(12)
    machine.cut()
    acks = machine.acks()
    assert [ack.number for ack in acks] == list(range(1, len(acks) + 1))
    assert verify_disk(str(disk), acks=acks).ok


NIC = (
    *("-netdev", "user,id=net", "-device"),
    "virtio-net-pci,netdev=net,mac=52:54:00:aa:bb:01,romfile=",
)
STATIC = """version: 2
ethernets:
  id0:
    match: {macaddress: "52:54:00:aa:bb:01"}
    addresses: [10.0.2.77/24]
    gateway4: 10.0.2.2
"""


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize("network", ["dhcp", "static", "named"])
def test_acknowledgements_come_by_datagram(
    start: Start, disk: Path, tmp_path: Path, network: str
) -> None:
    more: tuple[str, ...] = NIC
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(ANSWER_TIMEOUT_S)
        port = receiver.getsockname()[1]
        if network == "named":
            # No gateway: the address that the header names is on the guest's own network.
            with disk.open("r+b", buffering=0) as file:
                writer_log.arm(writer_log.FileDisk(file), send="10.0.2.2", port=port)
        else:
            arm(disk, rate=10, port=port)
        if network != "dhcp":
            seed = STATIC if network == "static" else STATIC.replace("    gateway4: 10.0.2.2\n", "")
            more += _seed(tmp_path, seed)
        machine = start(raw(disk), *more)
        machine.console.expect(START, BOOT_TIMEOUT_S)
        machine.wait_for_number(20)
        machine.cut()
        said = machine.acks()
        received: list[Ack] = []
        while not received or received[-1].number < 19:
            received += parse_acks([receiver.recv(2048).decode()])
    # Each line is said there and here; the cut may fall between the two.
    assert {ack.number for ack in received} >= set(range(1, 20))
    assert set(received) <= {*said, received[-1]}
    assert verify_disk(str(disk), acks=[*said, *received]).ok
    assert ("10.0.2.77" in machine.console.transcript) == (network != "dhcp")
    host = verify_disk(str(disk)).epochs[0].host
    assert host == ("writer" if network == "dhcp" else "web7")


def _seed(folder: Path, network_config: str) -> tuple[str, ...]:
    if not shutil.which("xorriso"):
        pytest.skip("no xorriso: install xorriso")
    source = folder / "seed"
    source.mkdir()
    (source / "meta-data").write_text("instance-id: i-1\nlocal-hostname: web7\n")
    (source / "user-data").write_text("#cloud-config\n")
    (source / "network-config").write_text(network_config)
    target = folder / "seed.iso"
    subprocess.run(
        [
            *("xorriso", "-as", "genisoimage", "-quiet", "-V", "cidata", "-J", "-r"),
            *("-o", str(target), str(source)),
        ],
        check=True,
        capture_output=True,
    )
    drive = f"file={target},if=none,id=cd,media=cdrom,readonly=on"
    return ("-drive", drive, "-device", "ide-cd,drive=cd")


@pytest.mark.real
@pytest.mark.slow
def test_a_disk_is_armed_while_the_guest_waits(start: Start, disk: Path) -> None:
    with disk.open("r+b", buffering=0) as file:
        writer_log.disarm(writer_log.FileDisk(file))
    machine = start(raw(disk))
    machine.console.expect(r"writer idle: no log partition is armed\n", BOOT_TIMEOUT_S)
    arm(disk, rate=3)
    assert machine.console.expect(START, ANSWER_TIMEOUT_S)[5] == "3"
    machine.wait_for_number(7)
    machine.cut()
    machine.acks()
    # No faster than it was told: the same clock stamps the records that says when they are due.
    times = [float(time) for time in _times(disk)]
    pace = (times[-1] - times[0]) / (len(times) - 1)
    assert 0.3 < pace < 1


def _times(disk: Path) -> Iterator[str]:
    content = disk.read_bytes()
    start, _ = writer_log.find_log(lambda offset, length: content[offset : offset + length])
    for at in range(start + BLOCK, len(content), BLOCK):
        record = writer_log.decode_record(content[at : at + BLOCK])
        if record is None:
            return
        yield record.time
