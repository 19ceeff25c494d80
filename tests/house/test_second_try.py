"""What `make test` makes of tests that fail: who gets a second try, and what comes of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]

CONFTEST = """
import os
from pathlib import Path
from tests.conftest import Failures

def pytest_configure(config):
    config.addinivalue_line("markers", "lab: x")
    config.addinivalue_line("markers", "real: x")
    path = os.environ.get("VORCH_FAILED_TESTS")
    if path and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Failures(Path(path)))
"""
# Fails, or ends its process, the first time only.
UNSTEADY = """
@pytest.mark.lab
def test_unsteady_{name}():
    once = pathlib.Path("{name}")
    if not once.exists():
        once.touch()
        {act}
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "packaging").mkdir()
    shutil.copy(ROOT / "packaging" / "test.sh", tmp_path / "packaging")
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    (tmp_path / "conftest.py").write_text(CONFTEST)
    return tmp_path


def run(tree: Path, text: str, parts: str = "labs") -> tuple[int, str]:
    (tree / "test_it.py").write_text(f"import os, pathlib, pytest\n{text}\ndef test_ok(): pass\n")
    done = subprocess.run(
        [tree / "packaging" / "test.sh", "1", "--timeout=60"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "VORCH_PARTS": parts},
        capture_output=True,
        text=True,
        timeout=140,
    )
    return done.returncode, done.stdout + done.stderr


def test_what_passes_alone_is_named(tree: Path) -> None:
    status, said = run(
        tree,
        UNSTEADY.format(name="late", act="assert False")
        + UNSTEADY.format(name="dead", act="os.abort()"),
    )
    assert status == 0, said
    _, _, named = said.partition("unsteady, to be looked into")
    assert "test_unsteady_late" in named
    assert "test_unsteady_dead" in named
    assert "test_ok" not in named


@pytest.mark.parametrize("mark", ["lab", "skipif(False, reason='none')"])
def test_what_fails_twice_or_on_no_real_part_has_failed(tree: Path, mark: str) -> None:
    bad = f"\n@pytest.mark.{mark}\ndef test_bad():\n    assert False\n"
    status, said = run(tree, UNSTEADY.format(name="late", act="assert False") + bad)
    assert status == 1, said
    assert ("once more, alone" in said) == (mark == "lab")
    assert "unsteady, to be looked into" not in said


def test_the_second_try_comes_when_all_parts_are_done(tree: Path) -> None:
    """What failed in one is not tried again beside the next, and is not forgotten by it."""
    text = UNSTEADY.format(name="late", act="assert False")
    status, said = run(tree, text, parts="xen labs")
    assert status == 0, said
    parts, _, again = said.partition("once more, alone")
    assert ("1 failed, 1 passed" in parts, "2 passed" in parts) == (True, True)
    assert "test_unsteady_late" in again.partition("unsteady, to be looked into")[2]


def test_a_run_that_found_no_test_is_no_success(tree: Path) -> None:
    (tree / "conftest.py").write_text(CONFTEST + "\ncollect_ignore = ['test_it.py']\n")
    status, said = run(tree, "")
    assert status == 5, said
