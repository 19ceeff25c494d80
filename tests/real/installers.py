"""Installers of our own: the tiny guest's kernel and initramfs with another `init`."""

from __future__ import annotations

import subprocess
from pathlib import Path

from vorch.lab.guest import GuestImage

# One that does all there is to do at once: write the disk, and reboot.
QUICK = """#!/bin/sh
export PATH=/sbin:/bin
. /lib/boot.sh
mount_kernel_filesystems
start_drivers
echo installed | dd of=/dev/vda bs=1M conv=fsync 2>/dev/null
sync
echo b >/proc/sysrq-trigger
sleep 100
"""


def newc(path: str, data: bytes, mode: int) -> bytes:
    """An archive with one file, in the form that the kernel unpacks."""

    def entry(name: str, mode: int, data: bytes) -> bytes:
        numbers = (1, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
        head = b"070701" + b"".join(b"%08x" % one for one in numbers) + name.encode() + b"\0"
        return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)

    return entry(path, mode, data) + entry("TRAILER!!!", 0, b"")


def write_installer(image: GuestImage, init: str, folder: Path) -> tuple[Path, Path]:
    """Its kernel and its initrd, which begins with this script."""
    kernel, initrd = folder / "vmlinuz", folder / "initrd.gz"
    for name, target in (("vmlinuz", kernel), ("initrd", initrd)):
        # The boot partition begins at the first MiB.
        command = ["mcopy", "-n", "-i", f"{image.raw_path}@@1M", f"::/{name}", str(target)]
        subprocess.run(command, check=True)
    packed = initrd.read_bytes()
    initrd.write_bytes(packed + bytes(-len(packed) % 4) + newc("init", init.encode(), 0o100755))
    return kernel, initrd
