"""The command line inside this process, on a world in memory of its own."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from vorch.drivers import memory
from vorch_cli.main import main


class Typed(io.StringIO):
    """A stdin at which somebody sits."""

    def isatty(self) -> bool:
        return True


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> Any:
        return json.loads(self.err)


class Vorch:
    """`vorch("create", "web")`, as if it had been typed."""

    def __init__(
        self, uri: str, capture: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch
    ) -> None:
        self.uri = uri
        self._capture = capture
        self._patch = patch

    @property
    def world(self) -> memory.MemoryWorld:
        return memory.world_named(self.uri.partition(":")[2])

    def __call__(self, *words: str, typed: str | None = None, piped: str = "") -> Ended:
        self._patch.setattr("sys.stdin", io.StringIO(piped) if typed is None else Typed(typed))
        self._capture.readouterr()
        code = main(["--uri", self.uri, *words])
        captured = self._capture.readouterr()
        return Ended(code, captured.out, captured.err)

    def well(self, *words: str) -> Ended:
        ended = self(*words)
        assert ended.code == 0, ended.err
        return ended


@pytest.fixture
def vorch(
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Iterator[Vorch]:
    # What this machine or its user has set has no say here.
    monkeypatch.setenv("VORCH_CONFIG", str(tmp_path / "vorch.toml"))
    (tmp_path / "vorch.toml").touch()
    monkeypatch.delenv("VORCH_URI", raising=False)
    name = re.sub(r"\W+", "-", f"cli-{request.node.name}")
    yield Vorch(f"memory:{name}", capsys, monkeypatch)
    memory.forget(name)


@pytest.fixture
def disk_image(tmp_path: Path) -> str:
    """A raw image of 1 MiB."""
    file = tmp_path / "debian.raw"
    file.write_bytes(bytes(1024 * 1024))
    return str(file)


@pytest.fixture
def web(vorch: Vorch, disk_image: str) -> Vorch:
    """A world in which VM `web` runs from image `debian`."""
    vorch.well("image", "import", "debian", disk_image)
    vorch.well("create", "web", "--image", "debian")
    return vorch
