"""What VMs and hosts did of late: rates, the file they are kept in, and the verbs that show it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from vorch import Invalid, NotFound, Orchestrator, Recorder, Unreachable, Unsupported, connect
from vorch.decide.rates import rates
from vorch.drivers import memory
from vorch.drivers.history import FileHistory
from vorch.model import DiskFigures, Figures, HostFigures, NicFigures, Power, Rates

# A round hour, so that stretches begin where they are expected.
T = 1_000_000 * 3600.0


def of_vm(at: float, cpu_s: float, read: int = 0, sent: int = 0, used: int | None = 100) -> Figures:
    return Figures(
        at=at,
        power=Power.RUNNING,
        vcpus=1,
        cpu_time_ns=int(cpu_s * 1e9),
        memory_mib=512,
        memory_used_mib=used,
        disks=(DiskFigures(name="vda", read_bytes=read),),
        nics=(NicFigures(name="vnet0", sent_bytes=sent),),
    )


def of_host(at: float, cpu_s: float, **vms: Figures) -> HostFigures:
    return HostFigures(
        at=at,
        cpus=4,
        cpu_time_ns=int(cpu_s * 1e9),
        memory_mib=8192,
        memory_used_mib=1024,
        vms=vms,
    )


# ---------------------------------------------------------------------------------------------
# Rates


def test_rates_are_what_happened_in_between() -> None:
    before = {"h1": of_host(0.0, 100.0, web=of_vm(0.0, 10.0, read=1000, sent=5))}
    after = {"h1": of_host(10.0, 120.0, web=of_vm(10.0, 15.0, read=21000, sent=105))}
    vms, hosts = rates(before, after)
    assert vms == {
        "web": Rates(0.5, 100, disk_read_bytes_s=2000.0, sent_bytes_s=10.0),
    }
    assert hosts == {"h1": Rates(2.0, 1024, disk_read_bytes_s=2000.0, sent_bytes_s=10.0)}


def test_what_the_guest_does_not_say_is_what_it_has() -> None:
    before = {"h1": of_host(0.0, 0.0, web=of_vm(0.0, 0.0, used=None))}
    after = {"h1": of_host(10.0, 0.0, web=of_vm(10.0, 0.0, used=None))}
    assert rates(before, after)[0]["web"].memory_mib == 512


@pytest.mark.parametrize(
    "after",
    [
        {"h2": of_host(10.0, 1.0, web=of_vm(10.0, 11.0))},  # it has moved
        {"h1": of_host(10.0, 101.0, web=of_vm(10.0, 1.0))},  # it was started anew
        {"h1": of_host(0.1, 101.0, web=of_vm(0.1, 10.0))},  # too soon
        {"h1": of_host(10.0, 101.0)},  # it is off
        {},  # its host is silent
    ],
)
def test_what_cannot_be_compared_is_left_out(after: dict[str, HostFigures]) -> None:
    before = {"h1": of_host(0.0, 100.0, web=of_vm(0.0, 10.0))}
    assert rates(before, after)[0] == {}


def test_a_disk_that_was_plugged_in_adds_nothing_of_before() -> None:
    first, second = of_vm(0.0, 0.0, read=10), of_vm(10.0, 0.0, read=20)
    new = DiskFigures(name="vdb", read_bytes=10**9)
    second = dataclasses.replace(second, disks=(*second.disks, new))
    vms, _ = rates({"h1": of_host(0.0, 0.0, web=first)}, {"h1": of_host(10.0, 0.0, web=second)})
    assert vms["web"].disk_read_bytes_s == 1.0


# ---------------------------------------------------------------------------------------------
# The file


@pytest.fixture
def past(tmp_path: Path) -> Iterator[FileHistory]:
    made = FileHistory(tmp_path / "there" / "history.db")
    yield made
    made.close()


def fill(past: FileHistory, start: float, rounds: int, names: tuple[str, ...] = ("web",)) -> None:
    """A round every 15 s; each does what the number of the round says."""
    for number in range(rounds):
        vms = {name: Rates(float(number), 1.0) for name in names}
        past.write(start + number * 15, vms, {"h1": Rates(1.0, 2.0)})


def test_the_last_hour_is_there_as_it_was_measured(past: FileHistory) -> None:
    fill(past, T, 8)
    found = past.read("vm", "web", now=T + 7 * 15, for_s=3600.0)
    assert found.step_s == 15
    assert [one.at for one in found.points] == [T + number * 15 for number in range(8)]
    assert [one.rates.cpu for one in found.points] == [float(number) for number in range(8)]
    assert [one.rates for one in past.read("node", "h1", now=T, for_s=60.0).points] == [
        Rates(1.0, 2.0)
    ]


def test_it_shows_as_much_as_was_asked_for(past: FileHistory) -> None:
    fill(past, T, 40)
    assert len(past.read("vm", "web", now=T + 39 * 15, for_s=60.0).points) == 4


def test_the_day_is_there_in_means(past: FileHistory) -> None:
    fill(past, T, 41)
    found = past.read("vm", "web", now=T + 600, for_s=86400.0)
    assert found.step_s == 300
    assert [(one.at, one.rates.cpu) for one in found.points] == [(T, 9.5), (T + 300, 29.5)]


def test_what_all_did_last_is_had_at_once(past: FileHistory) -> None:
    fill(past, T, 4, ("web", "db"))
    past.write(T + 45, {"web": Rates(2.0, 1.0)}, {"h1": Rates(3.0, 4.0)})
    found = past.latest("vm", now=T + 50)
    assert {name: (one.at, one.rates.cpu) for name, one in found.items()}["web"] == (T + 45, 2.0)
    assert set(found) == {"web", "db"}
    assert set(past.latest("node", now=T + 50)) >= {"h1"}
    # What is older than a minute is not so any more.
    assert past.latest("vm", now=T + 120) == {}


def test_of_whom_nobody_knows_there_is_nothing(past: FileHistory) -> None:
    fill(past, T, 1)
    assert past.read("vm", "nosuch", now=T, for_s=3600.0).points == ()
    assert past.read("node", "web", now=T, for_s=3600.0).points == ()


def test_it_stays_small(past: FileHistory, tmp_path: Path) -> None:
    names = tuple(f"vm{number}" for number in range(100))
    sizes = []
    for hour in range(30):
        # One round in five minutes is enough to have all the means.
        for step in range(12):
            at = T + hour * 3600 + step * 300
            past.write(at, dict.fromkeys(names, Rates(1.0, 1.0)), {})
        sizes.append((tmp_path / "there" / "history.db").stat().st_size)
    now = T + 30 * 3600
    assert len(past.read("vm", "vm7", now=now, for_s=86400.0).points) <= 288
    assert past.read("vm", "vm7", now=T + 3600, for_s=3600.0).points == ()
    # Fuller it does not get.
    assert sizes[-1] <= sizes[25] * 1.1


def test_a_vm_that_is_gone_is_forgotten_and_its_number_is_nobody_elses(past: FileHistory) -> None:
    fill(past, T, 41, ("old",))
    later = T + 2 * 86400
    fill(past, later, 41, ("new",))
    assert past.read("vm", "old", now=later + 600, for_s=86400.0).points == ()
    assert len(past.read("vm", "new", now=later + 600, for_s=3600.0).points) == 41


def test_it_outlives_the_process(past: FileHistory, tmp_path: Path) -> None:
    fill(past, T, 3)
    past.close()
    other = FileHistory(tmp_path / "there" / "history.db")
    fill(other, T + 45, 2)
    assert len(other.read("vm", "web", now=T + 60, for_s=3600.0).points) == 5
    # And a second one reads what the first writes.
    assert len(past.read("vm", "web", now=T + 60, for_s=3600.0).points) == 5
    other.close()


def test_one_that_was_removed_is_begun_anew(past: FileHistory, tmp_path: Path) -> None:
    fill(past, T, 3)
    (tmp_path / "there" / "history.db").unlink()
    fill(past, T + 45, 2)
    other = FileHistory(tmp_path / "there" / "history.db")
    assert len(other.read("vm", "web", now=T + 60, for_s=3600.0).points) == 2
    other.close()


def test_nobody_else_may_read_it(past: FileHistory, tmp_path: Path) -> None:
    fill(past, T, 1)
    assert (tmp_path / "there" / "history.db").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("content", [b"no such format" * 100, b"\0" * 5000])
def test_what_is_no_history_is_begun_anew(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "history.db"
    file.write_bytes(content)
    past = FileHistory(file)
    with pytest.raises(Unreachable, match="cannot use the history"):
        fill(past, T, 1)
    fill(past, T, 1)
    assert len(past.read("vm", "web", now=T, for_s=60.0).points) == 1
    past.close()


def test_where_nobody_measured_that_is_told(past: FileHistory) -> None:
    with pytest.raises(Unsupported, match="no service measures on this machine"):
        past.read("vm", "web", now=T, for_s=60.0)


def test_ten_thousand_are_written_and_read_in_no_time(past: FileHistory) -> None:
    """Figures on a machine of two busy cores: 0.1 s and 5 ms."""
    many = {f"vm{number}": Rates(1.0, 1.0) for number in range(10_000)}
    past.write(T, many, {})
    began = time.process_time()
    past.write(T + 15, many, {})
    wrote = time.process_time()
    assert len(past.read("vm", "vm77", now=T + 15, for_s=3600.0).points) == 2
    assert wrote - began < 2.0
    assert time.process_time() - wrote < 0.5


# ---------------------------------------------------------------------------------------------
# The verbs


@pytest.fixture
def cluster() -> Iterator[Orchestrator]:
    with connect("memory:history") as found:
        found.create("web", disk_gib=1, start=True, vcpus=2)
        found.create("off", disk_gib=1)
        yield found
    memory.forget("history")


def test_what_is_measured_is_shown(cluster: Orchestrator) -> None:
    world = memory.world_named("history")
    world.behave("web", cpu_load=0.5)
    recorder = Recorder(cluster)
    with cluster.picture() as picture:
        for _ in range(4):
            recorder.take(picture.figures())
            world.clock.sleep(15)
    found = cluster.history("web")
    assert len(found.points) == 3
    assert found.points[-1].rates.cpu == pytest.approx(1.0, rel=0.1)
    assert found.points[-1].rates.disk_read_bytes_s > 0
    (host,) = cluster.look().nodes
    assert cluster.node_history(host).points[-1].rates.cpu == pytest.approx(1.0, rel=0.1)
    assert cluster.history("off").points == ()
    for wrong in (0.0, -1.0, 86401.0, float("nan")):
        with pytest.raises(Invalid):
            cluster.history("web", for_s=wrong)
    with pytest.raises(NotFound):
        cluster.history("nosuch")
