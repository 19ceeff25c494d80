"""The vorch that leads dies at every point of a failover: another goes on, and nothing is lost."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from tests.simulate.judging import deviations
from vorch import simulate
from vorch.drivers.memory_time import MemoryProcess, ProcessDied
from vorch.plan import Journal
from vorch.ports import World

SCENARIOS = Path(__file__).parent / "scenarios"
STORIES = (
    "leader-lost",
    "two-of-five",
    "maintenance-and-home",
    "returns-to-its-node-when-that-returns",
    "failover-after-shutdown",
    "together-follow",
)


class Death:
    """Kills the process at the given point, counted over all plans of all processes."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.points = itertools.count()
        self.where = ""

    def __call__(self, point: str, journal: Journal, ports: World) -> None:
        if next(self.points) == self.number:
            self.where = f"{point} {journal.plan.verb} {journal.plan.subject}"
            process = ports.processes
            assert isinstance(process, MemoryProcess)
            process.die()
            raise ProcessDied


@pytest.mark.parametrize("story", STORIES)
def test_a_death_at_any_point_is_made_good(story: str) -> None:
    body: dict[str, Any] = json.loads((SCENARIOS / f"{story}.json").read_text())
    scenario = simulate.read_scenario(SCENARIOS / f"{story}.json")
    for number in itertools.count():
        death = Death(number)
        played = simulate.play(scenario, onlooker=death)
        log = "\n".join(f"{at:7.1f} {line}" for at, line in played.log)
        assert deviations(body, played.result) == [], f"died at {death.where}:\n{log}"
        if not death.where:
            assert number > 10
            return
