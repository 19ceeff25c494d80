"""The debootstrap-style installer: what it runs in the new system is that system's own."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from vorch_install_time.media import own_files

BUSYBOX = shutil.which("busybox") or ""


@pytest.mark.real
@pytest.mark.parametrize("ours", [True, False], ids=["ours", "busybox's"])
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may enter another root folder")
@pytest.mark.skipif(not BUSYBOX, reason="busybox-static is not installed")
def test_debootstrap_runs_the_targets_own_dpkg(tmp_path: Path, ours: bool) -> None:
    """busybox, which runs debootstrap in the installer, has a dpkg itself.

    It finds itself by /proc, so it is tried with that mounted in the target, as debootstrap does.
    """
    target, scripts = tmp_path / "target", tmp_path / "scripts"
    for folder in (target / "bin", target / "proc", scripts):
        folder.mkdir(parents=True)
    shutil.copy(BUSYBOX, target / "bin/sh")
    dpkg = target / "bin/dpkg"
    dpkg.write_text('#!/bin/sh\necho "of the target: $*"\n')
    dpkg.chmod(0o755)
    (scripts / "bookworm").write_text("suites_own=1\n")
    (tmp_path / "chroot").write_bytes(own_files()["chroot"])
    (tmp_path / "chroot").chmod(0o755)
    script = tmp_path / "minbase"
    script.write_text(
        own_files()["minbase"]
        .decode()
        .replace("/usr/sbin/chroot", str(tmp_path / "chroot"))
        .replace("/usr/share/debootstrap/scripts", str(scripts))
    )
    # As debootstrap does: what enters the target, then the suite's script, then words with blanks.
    debootstrap = f"""
        mount --bind /proc {target}/proc
        TARGET={target} SUITE=bookworm
        CHROOT_CMD="{BUSYBOX} chroot \\"$TARGET\\""
        . {script if ours else scripts / "bookworm"}
        in_target() {{ PATH=/sbin:/usr/sbin:/bin:/usr/bin eval "$CHROOT_CMD \\"\\$@\\""; }}
        in_target dpkg --install "a b" && echo "suite's own: $suites_own"
    """
    done = subprocess.run(
        ["unshare", "--mount", BUSYBOX, "sh", "-eu", "-c", debootstrap],
        capture_output=True,
        text=True,
    )
    targets_own = "of the target: --install a b\nsuite's own: 1\n"
    assert (done.stdout == targets_own) == ours, done
    assert (done.returncode == 0) == ours, done
