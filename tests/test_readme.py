"""The README's example is run as it stands there: on the memory world, and on real libvirt."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

import pytest

import vorch
from tests.boot_sector import SLEEPS

README = Path(__file__).parents[1] / "README.md"


def example() -> str:
    found = re.search(r"<!-- example -->\n```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert found is not None, "the README has lost its example"
    return found.group(1)


@pytest.fixture
def image(tmp_path: Path) -> str:
    path = tmp_path / "disk.raw"
    path.write_bytes(SLEEPS + bytes(2**20 - 512))
    return str(path)


def run(uri: str, image: str) -> None:
    exec(compile(example(), "README.md", "exec"), {"URI": uri, "IMAGE": image})


def check(printed: str) -> None:
    lines = printed.splitlines()
    assert lines[0] == "copy stopped 256"
    assert lines[1] == "web running 256"
    assert lines[2].startswith("delete web: it can be had back for 24 h")


def test_it_is_ten_lines() -> None:
    assert len([line for line in example().splitlines() if line.startswith("    ")]) <= 10


def test_on_memory(image: str, capsys: pytest.CaptureFixture[str]) -> None:
    run("memory:", image)
    check(capsys.readouterr().out)


@pytest.mark.real
def test_on_libvirt(
    image: str,
    capsys: pytest.CaptureFixture[str],
    libvirt_system: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = Path(tempfile.mkdtemp(prefix="vorch-readme-", dir="/var/tmp"))
    folder.chmod(0o711)
    monkeypatch.delenv("VORCH_URI", raising=False)
    uri = f"sqlite://{folder}/vorch.db"
    try:
        run(uri, image)
        check(capsys.readouterr().out)
    finally:
        with vorch.connect(uri) as cluster:
            for status in cluster.list():
                cluster.delete(status.name, force=True, purge=True)
            for network in cluster.network_list():
                cluster.network_delete(network.name)
        shutil.rmtree(folder)
