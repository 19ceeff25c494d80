"""The solver leaves Ctrl-C to the process that it is a part of."""

from __future__ import annotations

import subprocess
import sys

import pytest

from vorch.decide.room import solver

PROGRAM = """
import signal
from vorch.decide.room.fleet import Fleet, Guest, Host
from vorch.decide.room.packing import task
from vorch.decide.room.solver import solve
from vorch.decide.room.table import Table

hosts = tuple(Host(name=f"h{n}", cpus=8, memory_mib=100) for n in range(3))
guests = tuple(Guest(name=f"g{n}", memory_mib=40 + n, vcpus=1) for n in range(5))
found = solve(task(Table(Fleet(hosts=hosts, guests=guests)), range(5), []))
print("solved" if found is not None else "left open")
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.skipif(not solver.available(), reason="OR-Tools is not installed")
def test_a_process_that_has_solved_something_can_be_interrupted() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=100, check=False
    )
    assert ended.stdout.split() == ["solved", "interrupted"], ended
