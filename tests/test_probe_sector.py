"""The boot sector of the accelerator probe: its bytes are what its source says."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from vorch.drivers import probe_sector

SOURCE = Path(probe_sector.__file__).with_name("probe_sector.S")


def test_it_is_a_boot_sector() -> None:
    assert len(probe_sector.SECTOR) == 512
    assert probe_sector.SECTOR[-2:] == b"\x55\xaa"
    assert probe_sector.ALL_WELL in probe_sector.SECTOR


def test_its_bytes_are_its_source(tmp_path: Path) -> None:
    for tool in ("as", "ld"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} of binutils is not installed")
    as_help = subprocess.run(["as", "--help"], capture_output=True, text=True, check=False).stdout
    if "--64" not in as_help:
        pytest.skip("this assembler does not speak x86")
    assembled, linked = tmp_path / "probe.o", tmp_path / "probe.bin"
    subprocess.run(["as", "--64", str(SOURCE), "-o", str(assembled)], check=True)
    options = ["-m", "elf_x86_64", "-Ttext", "0x7c00", "--oformat", "binary"]
    subprocess.run(["ld", *options, str(assembled), "-o", str(linked)], check=True)
    assert linked.read_bytes() == probe_sector.SECTOR
