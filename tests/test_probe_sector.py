"""The boot sector of the accelerator probe: its bytes are what its source says."""

from __future__ import annotations

from pathlib import Path

from tests.assembler import assembled
from vorch.drivers import probe_sector


def test_it_is_a_boot_sector() -> None:
    assert len(probe_sector.SECTOR) == 512
    assert probe_sector.SECTOR[-2:] == b"\x55\xaa"
    assert probe_sector.ALL_WELL in probe_sector.SECTOR


def test_its_bytes_are_its_source() -> None:
    source = Path(probe_sector.__file__).with_name("probe_sector.S")
    assert assembled(source, at=0x7C00) == probe_sector.SECTOR
