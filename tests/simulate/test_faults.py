"""Random schedules of faults: they find nothing, and find it when something is left out."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from vorch import acts, simulate
from vorch.plan import FenceNode
from vorch.simulate import faults

# Hours of trouble that every run of the tests plays; `vorch simulate faults` plays any number.
# The large ones are busy ones.
SEEDS = (*range(5), 8, 24, 34)
# What random schedules came to before vorch was mended, cut down by themselves.
FOUND = sorted((Path(__file__).parent / "scenarios" / "found").glob("*.json"))


@pytest.mark.parametrize("seed", SEEDS)
def test_an_hour_of_trouble_loses_nothing(seed: int) -> None:
    assert faults.trouble_with(simulate.schedule(seed)) is None


@pytest.fixture
def no_fence(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fence that says that it has done it, and does nothing."""
    monkeypatch.setitem(acts.DO, FenceNode, lambda step, world, progress: {"proof": "none"})


@pytest.mark.usefixtures("no_fence")
def test_a_fence_that_does_nothing_is_seen() -> None:
    failure = simulate.play_seed(0)
    assert failure is not None
    # Cut down to what is needed: hardly more than the loss of one host, and the end.
    troubles = [step for step in failure.scenario.steps if step.at < faults.MENDED_AT_S]
    assert 1 <= len(troubles) <= 3


@pytest.mark.usefixtures("no_fence")
def test_what_failed_plays_again_from_its_file(tmp_path: Path) -> None:
    failure = simulate.play_seed(0)
    assert failure is not None
    file = tmp_path / "again.json"
    file.write_text(json.dumps(failure.script))
    with pytest.raises(simulate.Violation):
        simulate.play(simulate.read_scenario(file))


@pytest.mark.parametrize("file", FOUND, ids=lambda file: file.stem)
def test_what_was_found_once_is_mended(file: Path) -> None:
    assert faults.trouble_with(simulate.read_scenario(file)) is None


def test_a_number_is_a_schedule() -> None:
    assert simulate.schedule(7) == simulate.schedule(7)
    assert simulate.schedule(7) != simulate.schedule(8)
    small = simulate.schedule(7, hosts=2, vms=3)
    assert (len(small.hosts), len(small.services)) == (2, 3)


def test_schedules_are_played_side_by_side() -> None:
    """What is found comes back whole from another process."""
    assert simulate.play_seeds(range(3), hosts=3, vms=4, jobs=2) is None
    scenario = simulate.schedule(0, hosts=3, vms=4)
    failure = simulate.Failure(seed=0, what="two writers", scenario=scenario)
    assert pickle.loads(pickle.dumps(failure)) == failure
