"""Scenarios of another product's tests, where somebody has put them: vorch comes to the same."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vorch import simulate

# They are not vorch's to ship; see docs/ha.md.
BESIDE = Path(__file__).parents[3] / "shared" / "data" / "ha"
FOLDER = Path(os.environ.get("VORCH_SCENARIOS") or BESIDE)
FILES = sorted((FOLDER / "scenarios").glob("*.json"))


@pytest.fixture(scope="module")
def judge() -> Callable[..., list[str]]:
    spec = importlib.util.spec_from_file_location("compare", FOLDER / "compare.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: Callable[..., list[str]] = module.judge
    return found


@pytest.mark.skipif(not FILES, reason=f"no scenarios in {FOLDER}; VORCH_SCENARIOS names another")
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_it_ends_as_it_should(file: Path, judge: Callable[..., list[str]]) -> None:
    body: dict[str, Any] = json.loads(file.read_text())
    played = simulate.play(simulate.read_scenario(file))
    assert judge(body, played.result) == []
