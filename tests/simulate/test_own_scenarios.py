"""vorch's own scenarios: what the format says and no shared scenario shows."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from tests.simulate.judging import deviations
from vorch import simulate

FILES = sorted((Path(__file__).parent / "scenarios").glob("*.json"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_it_ends_as_it_should(file: Path) -> None:
    body: dict[str, Any] = json.loads(file.read_text())
    played = simulate.play(simulate.read_scenario(file))
    assert deviations(body, played.result) == [], "\n".join(
        f"{at} {line}" for at, line in played.log
    )


def test_the_judge_sees_what_is_wrong() -> None:
    file = next(one for one in FILES if one.stem == "leader-lost")
    body: dict[str, Any] = json.loads(file.read_text())
    result = simulate.play(simulate.read_scenario(file)).result
    for service, change in (
        ("vm:1", {"state": "error"}),
        ("vm:1", {"node": "node1"}),
        ("vm:2", {"running_on": None}),
        ("vm:2", {"running_on": "node3"}),
    ):
        wrong = copy.deepcopy(result)
        wrong["services"][service].update(change)
        assert deviations(body, wrong)
    assert deviations(body, {**result, "fenced": []})
    assert deviations(body, {**result, "fenced": ["node1", "node2"]})


def test_it_is_the_same_every_time() -> None:
    file = next(one for one in FILES if one.stem == "two-of-five")
    scenario = simulate.read_scenario(file)
    assert simulate.play(scenario).log == simulate.play(scenario).log
