"""Many VMs that move at once, on the memory world in real time: limits, failures, Ctrl-C."""

from __future__ import annotations

import itertools
import signal
import threading
from collections.abc import Iterator

import pytest

import vorch
from tests.execute.scenarios import leaks
from vorch import Orchestrator
from vorch.drivers.memory import MemoryWorld
from vorch.drivers.process import SystemClock

_numbers = itertools.count()
NAMES = tuple(f"vm{number}" for number in range(6))


class Many:
    """Six VMs on the first of three hosts, and how many of them were on their way at once."""

    def __init__(self, **settings: int) -> None:
        name = f"convoy-{next(_numbers)}"
        self.world = MemoryWorld(name, hosts=3, clock=SystemClock())
        self.world.behaviour.migrate_s = 0.3
        self.settings = vorch.Settings(uri="memory:", **settings)  # type: ignore[arg-type]
        self.cluster = self.connect()
        for name in NAMES:
            self.cluster.create(name, networks=(), disk_gib=1, node="h1", start=True)
        self.most = 0
        self.begun = threading.Event()
        self.cluster.executor.watch = self._count

    def connect(self) -> Orchestrator:
        ports, prepare = self.world.connection()
        orchestrator = Orchestrator(ports, self.settings)
        prepare(orchestrator)
        return orchestrator

    def _count(self, task: vorch.Task) -> None:
        self.most = max(self.most, len(self.world.host("h1").moves))
        if self.most:
            self.begun.set()

    def homes(self) -> dict[str, str]:
        """Where each runs; one that ran twice would be missed in the sum."""
        found = [
            (guest.vm.name, name)
            for name, machine in self.world.machines.items()
            for guest in machine.settled().values()
        ]
        assert len(found) == len(dict(found))
        return dict(found)


@pytest.fixture
def many() -> Iterator[Many]:
    found = Many(migrations_per_host=2, migrations_per_link=1)
    yield found
    found.cluster.close()


def test_a_host_is_emptied_within_the_limits(many: Many) -> None:
    many.cluster.node_maintenance("h1", True)
    assert many.most == 2
    homes = many.homes()
    # Not all to the same one.
    assert sorted(homes.values()) == ["h2"] * 3 + ["h3"] * 3
    assert {name: vm.node for name, vm in many.cluster.look().vms.items()} == homes
    many.cluster.node_maintenance("h1", False)
    assert set(many.homes().values()) == {"h1"}
    assert leaks(many.cluster) == []


def test_one_that_fails_stops_no_other(many: Many) -> None:
    many.world.faults.fail("host:h1", "migrate", times=1)
    with pytest.raises(vorch.Conflict, match="cannot empty host 'h1'") as caught:
        many.cluster.node_maintenance("h1", True)
    (stayed,) = caught.value.fields["stayed"]
    assert {name for name, host in many.homes().items() if host == "h1"} == {stayed}
    many.cluster.node_maintenance("h1", True)
    assert "h1" not in many.homes().values()
    assert leaks(many.cluster) == []


def test_ctrl_c_ends_all(many: Many) -> None:
    many.world.behaviour.migrate_s = 60.0

    def press() -> None:
        assert many.begun.wait(30)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        many.cluster.node_maintenance("h1", True)
    thread.join()
    assert set(many.homes().values()) == {"h1"}
    assert all(not machine.moves for machine in many.world.machines.values())
    assert all(task.over for task in many.cluster.task_list())
    assert leaks(many.cluster) == []


def test_what_others_move_counts_as_well(many: Many) -> None:
    many.world.behaviour.migrate_s = 1.0
    other = many.connect()
    first = threading.Thread(target=other.migrate, args=(NAMES[0], "h2"))
    first.start()
    while not many.world.host("h1").moves:
        assert first.is_alive()
    many.cluster.node_maintenance("h1", True, wait_s=30.0)
    first.join()
    assert many.most <= 2
    assert "h1" not in many.homes().values()
