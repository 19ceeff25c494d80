"""The file from npm is the one that the lock file names, and the lock file names no server."""

from __future__ import annotations

import json
import re
from pathlib import Path

HERE = Path(__file__).parent


def test_axe_is_of_the_version_that_is_pinned() -> None:
    lock = json.loads((HERE / "package-lock.json").read_text(encoding="utf-8"))
    wanted = json.loads((HERE / "package.json").read_text(encoding="utf-8"))["devDependencies"]
    pinned = lock["packages"]["node_modules/axe-core"]
    head = (HERE / "vendor" / "axe.min.js").read_text(encoding="utf-8")[:100]
    found = re.search(r"axe v([0-9.]+)", head)
    assert found is not None
    assert found[1] == pinned["version"] == wanted["axe-core"]
    assert pinned["integrity"].startswith("sha512-")
    assert "resolved" not in json.dumps(lock)
