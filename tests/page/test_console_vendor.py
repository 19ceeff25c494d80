"""What the consoles are made of is what packaging/page/package-lock.json pins, unchanged."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parents[2]
VENDOR = HERE / "api" / "page" / "vendor"
PINS = HERE / "packaging" / "page"


def test_each_is_pinned_and_no_server_is_named() -> None:
    lock = json.loads((PINS / "package-lock.json").read_text(encoding="utf-8"))
    wanted = json.loads((PINS / "package.json").read_text(encoding="utf-8"))["dependencies"]
    pinned = {
        name.removeprefix("node_modules/"): about
        for name, about in lock["packages"].items()
        if name
    }
    assert {name: about["version"] for name, about in pinned.items()} == wanted
    assert all(about["integrity"].startswith("sha512-") for about in pinned.values())
    assert "resolved" not in json.dumps(lock)


def test_licences_are_kept() -> None:
    for folder in ("xterm", "addon-fit", "novnc", "novnc/vendor/pako"):
        assert (VENDOR / folder / "LICENSE.txt").stat().st_size > 500
    assert (VENDOR / "novnc" / "LICENSE.MPL-2.0.txt").stat().st_size > 10_000


@pytest.mark.slow
def test_the_files_are_those_of_npm(tmp_path: Path) -> None:
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed: nothing to compare with")
    subprocess.run([HERE / "packaging" / "vendor.sh", tmp_path / "vendor"], check=True, timeout=110)
    assert _all(tmp_path / "vendor") == _all(VENDOR)


def _all(folder: Path) -> dict[str, bytes]:
    return {
        str(one.relative_to(folder)): one.read_bytes() for one in folder.rglob("*") if one.is_file()
    }
