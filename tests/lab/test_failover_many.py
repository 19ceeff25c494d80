"""Many VMs at once, many hosts at once, and clusters of two hosts: real failovers, one each."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.watched import Watched, watched_on
from tests.thorough import much
from vorch import lab as labs
from vorch.availability import NodeState
from vorch.lab import Lab

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(1200)]


@contextlib.contextmanager
def watched_alone(
    folder: Path, name: str, *, hosts: int, mons: int = 1, osds: int = 3, on_hosts: bool = False
) -> Iterator[Watched]:
    """On a lab of its own, which two vorch processes watch."""
    made = labs.up(name, hosts=hosts, osds=osds, mons=mons, hyperconverged=on_hosts)
    try:
        with watched_on(made, folder) as found:
            found.serve()
            found.serve()
            found.leader()
            yield found
    finally:
        labs.down(name)


@pytest.mark.thorough
def test_many_writers_on_a_host_that_loses_its_power(fresh_lab: Lab, tmp_path: Path) -> None:
    """How long it takes is measured by benchmarks/bench_failover.py."""
    names = [f"w{number}" for number in range(1, 11)]
    with watched_on(fresh_lab, tmp_path) as watched:
        watched.create(names, "h1")
        watched.serve()
        watched.serve()
        watched.leader()
        watched.await_running(names)
        before, cut = watched.boots(), time.time()
        fresh_lab.power_off("h1")
        watched.await_running(names, off=("h1",))
        assert sorted(watched.requested_at(names, cut)) == sorted(names)
        assert watched.state_of("h1") is NodeState.FENCED
        watched.await_new(before, len(names))
        # It comes back, and has a part in all of it again, without a person.
        fresh_lab.power_on("h1")
        watched.await_all_online()
        assert sorted(map(len, watched.on_hosts().values())) == [1] * len(names)
        watched.stop_watching()
        watched.check_disks(names)


@pytest.mark.thorough
def test_two_of_five_hosts_at_once(tmp_path: Path) -> None:
    with watched_alone(tmp_path, "fiveha", hosts=5) as watched:
        watched.create(["w1"], "h1")
        watched.create(["w2"], "h2")
        watched.await_running(["w1", "w2"])
        before = watched.boots()
        for host in ("h1", "h2"):
            watched.lab.power_off(host)
        watched.await_running(["w1", "w2"], off=("h1", "h2"))
        watched.await_new(before, 2)
        watched.lab.heal()
        watched.await_all_online()
        watched.stop_watching()
        watched.check_disks(["w1", "w2"])


def test_either_of_two_hosts(tmp_path: Path) -> None:
    """Each with a monitor and a copy of all disks; a third monitor is apart. They are alike."""
    options = {"hosts": 2, "mons": 3, "osds": 4}
    with watched_alone(tmp_path, "twoha", **options, on_hosts=True) as watched:
        watched.create(["w1"], "h1")
        watched.create(["w2"], "h2")
        for lost in much(("h1", "h2"), ("h1",)):
            watched.await_running(["w1", "w2"])
            before = watched.boots()
            moved = [vm for vm in ("w1", "w2") if watched.cluster.look().vm(vm).node == lost]
            watched.lab.power_off(lost)
            watched.await_running(["w1", "w2"], off=(lost,))
            watched.await_new(before, len(moved))
            watched.lab.heal()
            watched.await_all_online()
        watched.stop_watching()
        watched.check_disks(["w1", "w2"])
