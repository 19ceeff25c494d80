"""Debian's own installer, from a folder that is named."""

from __future__ import annotations

import gzip
import subprocess
from pathlib import Path

import pytest

from vorch import Invalid
from vorch_install_time.marks import PHASES, UP
from vorch_install_time.media import installer_medium, own_files, preseed

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


def test_every_mark_is_said_at_the_end_of_its_part(tmp_path: Path) -> None:
    """The hooks that the installer is given, run in the order in which it runs them."""
    root, said = tmp_path / "root", tmp_path / "said"
    mark = tmp_path / "mark"
    mark.write_text(f'#!/bin/sh\necho "$1" >>{said}\n')
    mark.chmod(0o755)
    early = own_files()["di-early"].decode().replace("/vorch-bench/di-mark", str(mark))
    for folder in ("/lib/partman", "/usr/lib"):
        early = early.replace(f"hook {folder}", f"hook {root}{folder}")
    # Whoever reads the console has some seconds to do so, which a test need not wait.
    early = early.replace("sleep 4", ":")
    subprocess.run(["sh", "-eu", "-c", early], check=True)

    # Told by the preseed file itself, as partman's first step.
    assert "partman/early_command string /vorch-bench/di-mark installer\n" in preseed(
        "http://m/debian", "trixie", "/dev/vda"
    )
    subprocess.run([mark, "installer"], check=True)
    for steps in ("lib/partman/finish.d", "usr/lib/base-installer.d", "usr/lib/finish-install.d"):
        # The installer's own steps in its last part: late_command, initramfs, what unmounts.
        names = {f"{steps}/07preseed", f"{steps}/10update-initramfs", f"{steps}/95umount"}
        hooks = {str(file.relative_to(root)) for file in (root / steps).iterdir()}
        order = sorted(names | hooks)
        if steps.endswith("finish-install.d"):
            assert [name in hooks for name in order] == [True, False, False, True, False]
        for name in order:
            if name in hooks:
                subprocess.run([root / name], check=True)
    marks = [end for _, end in PHASES["installer"] if end not in ("running", UP)]
    assert said.read_text().split() == marks
