"""What was found in a guest's disk, as far as it decides on which hypervisor the guest starts.

Plain values: a driver reads them off the disk, `decide/crossing` judges them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# How a kernel can be started: by a PC's boot loader, or by Xen in the one or the other way.
Entry = Literal["bare", "pv", "pvh"]
# Where a kernel has a driver. "module": only on its root file system.
Has = Literal["builtin", "initramfs", "module", "no", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """One that is there, or the whole disk as number 0 where it has no partition table."""

    number: int
    start_bytes: int
    size_bytes: int
    # What it holds: ext4, vfat, swap, xfs, btrfs, lvm, luks …; "" for what nobody knows.
    holds: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    path: str
    version: str
    # None: it could not be found out, for the reason `unread`.
    entries: frozenset[Entry] | None
    drivers: dict[str, Has]
    # Where its initramfs is; "": nobody names one.
    initramfs: str = ""
    # What of this could not be looked into, and why.
    unread: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Boot:
    """What one boot loader's configuration starts first."""

    # The file, as pygrub or the guest itself would find it.
    file: str
    kernel: str
    command_line: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A line of /etc/fstab."""

    device: str
    where: str
    options: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Inside:
    table: Literal["gpt", "mbr", "none"]
    # Its first sector has a boot loader for a BIOS.
    bios_starts: bool
    partitions: tuple[Partition, ...]
    kernels: tuple[Kernel, ...] = ()
    boots: tuple[Boot, ...] = ()
    mounts: tuple[Mount, ...] = ()
    # File systems that were not unmounted: what was written last may stand in their journals only.
    in_use: tuple[str, ...] = ()
    # What could not be looked into, and why.
    unread: tuple[str, ...] = ()
