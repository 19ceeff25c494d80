"""What lies at the top of the tree is what belongs there."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOP = {
    *(".ci", ".gitignore", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md"),
    *("api", "benchmarks", "cli", "docs", "packaging", "tests", "vorch"),
    *("pyproject.toml", "setup.cfg"),
}


def test_nothing_else_is_in_the_repository() -> None:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("this tree is no clone")
    done = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    assert {name.partition("/")[0] for name in done.stdout.split("\0") if name} == TOP
