"""Balancing on the memory world in real time: rounds side by side, Ctrl-C, a leader's threads."""

from __future__ import annotations

import itertools
import signal
import threading
import time
from collections.abc import Iterator

import pytest

import vorch
from tests.execute.scenarios import leaks
from vorch import Orchestrator
from vorch.codec import encode
from vorch.decide.room.loads import Loads
from vorch.drivers.memory import MemoryWorld
from vorch.drivers.process import SystemClock
from vorch.ports import Change
from vorch.watch import Watch

_numbers = itertools.count()
NAMES = tuple(f"vm{number}" for number in range(6))


class Uneven:
    """Six VMs on the first of three hosts, and how many of them were on their way at once."""

    def __init__(self) -> None:
        self.world = MemoryWorld(f"uneven-{next(_numbers)}", hosts=3, clock=SystemClock())
        self.world.behaviour.migrate_s = 0.3
        self.settings = vorch.Settings(uri="memory:", migrations_per_host=2, migrations_per_link=1)
        ports, prepare = self.world.connection()
        self.cluster = Orchestrator(ports, self.settings)
        prepare(self.cluster)
        for name in NAMES:
            self.cluster.create(name, networks=(), disk_gib=1, node="h1", start=True)
        self.most = 0
        self.begun = threading.Event()
        self.cluster.executor.watch = self._count

    def _count(self, task: vorch.Task) -> None:
        self.most = max(self.most, len(self.world.host("h1").moves))
        if self.most:
            self.begun.set()

    def counts(self) -> list[int]:
        return [len(machine.settled()) for machine in self.world.machines.values()]


@pytest.fixture
def uneven() -> Iterator[Uneven]:
    found = Uneven()
    yield found
    found.cluster.close()


def test_rounds_keep_to_the_limits_of_hosts_and_links(uneven: Uneven) -> None:
    came = uneven.cluster.balance(measure_s=0)
    assert not came.skipped
    assert len(came.done) == len(came.plan.moves) == 4
    assert uneven.counts() == [2, 2, 2]
    assert uneven.most == 2
    assert leaks(uneven.cluster) == []
    assert not uneven.cluster.balance(measure_s=0).plan.moves


def test_ctrl_c_ends_those_under_way_and_begins_no_more(uneven: Uneven) -> None:
    uneven.world.behaviour.migrate_s = 60.0

    def press() -> None:
        assert uneven.begun.wait(30)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        uneven.cluster.balance(measure_s=0)
    thread.join()
    assert uneven.counts() == [6, 0, 0]
    assert all(task.over for task in uneven.cluster.task_list())
    assert leaks(uneven.cluster) == []


def test_a_leader_plans_aside_and_moves_side_by_side(uneven: Uneven) -> None:
    state = uneven.cluster.world.state
    measured = Loads(at=time.time(), cores=dict.fromkeys(NAMES, 0.5))
    state.commit([Change("load/vms", None, encode(measured))])
    uneven.cluster.balance(dry_run=True)
    uneven.cluster.ha_balance(auto=True, every_s=60.0)
    said: list[str] = []
    watch = Watch(
        uneven.world.connect("leader"),
        uneven.settings,
        say=lambda sentences: said.append(sentences.get("balance", "")),
    )
    most = 0
    try:
        end = time.monotonic() + 60
        while uneven.counts() != [2, 2, 2] or "VMs were moved" not in said[-1]:
            pace = watch.step()
            assert not pace.trouble, pace.trouble
            assert time.monotonic() < end, said[-1]
            most = max(most, len(uneven.world.host("h1").moves))
            watch.rest(0.05)
    finally:
        watch.close()
    assert most <= 2
    assert leaks(uneven.cluster) == []
