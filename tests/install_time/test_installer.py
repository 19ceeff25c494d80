"""Debian's own installer, from a folder that is named."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from vorch import Invalid
from vorch_install_time.media import installer_medium

RELEASE = b"6.12.117+deb13-amd64"
INITRD = gzip.compress(b"what the distribution made", mtime=0) + b"?"


def linux() -> bytes:
    """As much of a kernel as says what version it is."""
    head = bytearray(0x400)
    head[0x202:0x206] = b"HdrS"
    head[0x20E:0x210] = (0x300 - 0x200).to_bytes(2, "little")
    said = RELEASE + b" (who made it) #1 SMP"
    head[0x300 : 0x300 + len(said)] = said
    return bytes(head)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "netboot"
    made.mkdir()
    (made / "linux").write_bytes(linux())
    (made / "initrd.gz").write_bytes(INITRD)
    return made


def test_an_installer_of_ones_own_has_the_marks_put_behind_it(tmp_path: Path, folder: Path) -> None:
    found = installer_medium(tmp_path / "cache", lambda _: None, folder)
    assert found.release == RELEASE.decode()
    assert found.packages == {}
    assert found.kernel.read_bytes() == linux()
    packed = found.initrd.read_bytes()
    assert packed.startswith(INITRD)
    # Linux looks for another archive at multiples of four only.
    at = -(-len(INITRD) // 4) * 4
    assert packed[len(INITRD) : at] == bytes(at - len(INITRD))
    assert b"vorch-bench/di-early" in gzip.decompress(packed[at:])


def test_it_is_made_once_and_anew_when_it_has_changed(tmp_path: Path, folder: Path) -> None:
    cache = tmp_path / "cache"
    first = installer_medium(cache, lambda _: None, folder)
    assert installer_medium(cache, lambda _: None, folder) == first
    (folder / "initrd.gz").write_bytes(INITRD + b"and more")
    assert installer_medium(cache, lambda _: None, folder).initrd != first.initrd


def test_what_is_no_installer_is_refused(tmp_path: Path, folder: Path) -> None:
    cache = tmp_path / "cache"
    (folder / "linux").write_bytes(b"MZ" + bytes(0x400))
    for _ in range(2):
        with pytest.raises(Invalid, match="no Linux kernel"):
            installer_medium(cache, lambda _: None, folder)
    (folder / "linux").unlink()
    with pytest.raises(Invalid, match=r"'linux' .* No such file.*initrd\.gz"):
        installer_medium(cache, lambda _: None, folder)
