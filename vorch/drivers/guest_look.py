"""Looks into a guest's disk that nobody has mounted, read-only: kernels, boot loader, fstab.

What it cannot read it names, with the reason; it never guesses. Nothing on the disk is trusted.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import Protocol

from vorch.drivers import guest_kernel
from vorch.drivers.ext4_files import Ext4Files
from vorch.drivers.fat_files import FatFiles
from vorch.drivers.guest_kernel import NotUnpacked
from vorch.drivers.partitions import Read, table_of
from vorch.errors import Invalid
from vorch.inside import Boot, Inside, Kernel, Mount, Partition

TEXT_LIMIT_BYTES = 4 * 1024**2
MOST_KERNELS = 4
# A place for a boot loader, as disks with a GPT have it for a BIOS.
SMALL_BYTES = 8 * 1024**2
# Where pygrub looks for the configuration of a boot loader, and in which order.
LOADERS = (
    *("boot/grub/menu.lst", "boot/grub/grub.conf", "boot/grub2/grub.cfg", "boot/grub/grub.cfg"),
    *("grub/menu.lst", "grub/grub.conf", "grub2/grub.cfg", "grub/grub.cfg"),
    *("boot/isolinux/isolinux.cfg", "boot/extlinux/extlinux.conf", "boot/extlinux.conf"),
    *("extlinux/extlinux.conf", "extlinux.conf"),
)
# What else says which kernel is started, though pygrub does not read it.
OTHERS = ("syslinux.cfg", "boot/syslinux/syslinux.cfg", "syslinux/syslinux.cfg")
# Kinds that are no place for a kernel.
_NO_FILES = ("swap",)
_NAMES = {
    "xfs": "XFS",
    "btrfs": "Btrfs",
    "lvm": "LVM",
    "luks": "an encrypted volume (LUKS)",
    "ntfs": "NTFS",
    "bitlocker": "an encrypted volume (BitLocker)",
    "raid": "a part of a RAID",
    "f2fs": "F2FS",
    "squashfs": "SquashFS",
}


class Files(Protocol):
    """A file system that nobody has mounted."""

    def read(self, path: str, limit_bytes: int) -> bytes | None: ...

    def names(self, folder: str) -> list[str]: ...


def look_into(read: Read, size_bytes: int) -> Inside:
    table, bios_starts, partitions = table_of(read, size_bytes)
    unread: list[str] = []
    in_use: list[str] = []
    systems: list[tuple[Partition, Files]] = []
    for one in partitions:
        where = f"partition {one.number}" if one.number else "the disk"
        if one.holds in _NO_FILES:
            continue
        if one.holds not in ("ext4", "vfat"):
            if one.holds:
                unread.append(f"{where} holds {_NAMES.get(one.holds, one.holds)}")
            continue
        try:
            kind = Ext4Files if one.holds == "ext4" else FatFiles
            files = kind(read, one.start_bytes)
            systems.append((one, files))
            if isinstance(files, Ext4Files) and files.needs_recovery:
                in_use.append(where)
        except (Invalid, struct.error) as exc:
            unread.append(f"{where}: {_why(exc)}")
    found = _Found(systems, unread)
    boots = tuple(found.boots())
    kernels = tuple(found.kernels(boots))
    if not kernels:
        # With a kernel somewhere else, such a place is one for data.
        strange = [one for one in partitions if not one.holds and one.size_bytes > SMALL_BYTES]
        names = [f"partition {one.number}" if one.number else "the disk" for one in strange]
        unread += [f"{name} holds something that is not known here" for name in names]
    return Inside(
        table=table,
        bios_starts=bios_starts,
        partitions=tuple(partitions),
        boots=boots,
        kernels=kernels,
        mounts=tuple(found.mounts()),
        in_use=tuple(in_use),
        unread=tuple(dict.fromkeys(unread)),
    )


def _why(exc: Exception) -> str:
    return exc.message if isinstance(exc, Invalid) else "what stands there makes no sense"


class _Found:
    def __init__(self, systems: list[tuple[Partition, Files]], unread: list[str]) -> None:
        self._systems = systems
        self._unread = unread

    def _read(self, files: Files, path: str, limit: int = TEXT_LIMIT_BYTES) -> bytes | None:
        try:
            return files.read(path, limit)
        except (Invalid, struct.error) as exc:
            self._unread.append(f"/{path.lstrip('/')}: {_why(exc)}")
            return None

    def _names(self, files: Files, folder: str) -> list[str]:
        try:
            return files.names(folder)
        except (Invalid, struct.error) as exc:
            self._unread.append(f"/{folder.lstrip('/')}: {_why(exc)}")
            return []

    def mounts(self) -> Iterator[Mount]:
        for _, files in self._systems:
            data = self._read(files, "etc/fstab")
            for line in (data or b"").decode("utf-8", "replace").splitlines():
                words = line.split("#")[0].split()
                if len(words) >= 3:
                    options = words[3] if len(words) > 3 else "defaults"
                    yield Mount(device=words[0], where=words[1], options=options)

    def boots(self) -> Iterator[Boot]:
        for _, files in self._systems:
            for path in (*LOADERS, *OTHERS):
                data = self._read(files, path)
                if data is not None:
                    first = first_entry(data.decode("utf-8", "replace"), path)
                    if first is not None:
                        yield first

    def kernels(self, boots: tuple[Boot, ...]) -> Iterator[Kernel]:
        """Those that a boot loader starts first, or else the newest that there are."""
        named = list(dict.fromkeys(boot.kernel for boot in boots))
        seen: set[str] = set()
        for path in [*named, *self._others()][: MOST_KERNELS + len(named)]:
            if seen and path not in named:
                break
            for _, files in self._systems:
                kernel = self._kernel(files, path)
                if kernel is not None and kernel.path not in seen:
                    seen.add(kernel.path)
                    yield kernel
                    break

    def _others(self) -> list[str]:
        found = []
        for _, files in self._systems:
            for folder in ("boot", ""):
                names = [one for one in self._names(files, folder) if re.match(r"vmlinu[xz]-", one)]
                found += [
                    f"/{folder}/{one}".replace("//", "/") for one in sorted(names, reverse=True)
                ]
        return found

    def _kernel(self, files: Files, path: str) -> Kernel | None:
        # On a partition of its own the same file is at its root.
        for candidate in dict.fromkeys((path, path.removeprefix("/boot"))):
            data = self._read(files, candidate, guest_kernel.KERNEL_LIMIT_BYTES)
            if data is not None:
                return self._described(files, candidate, data)
        return None

    def _described(self, files: Files, path: str, data: bytes) -> Kernel:
        release = guest_kernel.release_of(data) or path.rpartition("-")[0]
        folder = path.rpartition("/")[0]
        unread = []
        config = self._text_anywhere(f"{folder}/config-{release}", f"/boot/config-{release}")
        listed = self._text_anywhere(
            f"/lib/modules/{release}/modules.builtin", f"/usr/lib/modules/{release}/modules.builtin"
        )
        builtin = {guest_kernel.module_of(line) for line in listed.splitlines()} or None
        entries = guest_kernel.entries_of_config(config) if config else None
        if entries is None or (builtin is None and not config):
            try:
                image = guest_kernel.image_of(data)
                entries = guest_kernel.entries_of_image(data, image)
                builtin = builtin or set(guest_kernel.builtin_in(image))
            except (NotUnpacked, struct.error) as exc:
                unread.append(f"the kernel {path}: {exc}")
        initramfs, packed, why = self._initramfs(path, release)
        if why:
            unread.append(why)
        return Kernel(
            path=path,
            version=release,
            entries=entries,
            drivers=guest_kernel.where_drivers_are(config, builtin, packed, self._modules(release)),
            initramfs=initramfs,
            unread="; ".join(unread),
        )

    def _text_anywhere(self, *paths: str) -> str:
        for _, files in self._systems:
            for path in paths:
                data = self._read(files, path)
                if data is not None:
                    return data.decode("utf-8", "replace")
        return ""

    def _modules(self, release: str) -> set[str]:
        for folder in ("lib", "usr/lib"):
            text = self._text_anywhere(f"/{folder}/modules/{release}/modules.dep")
            if text:
                return {
                    guest_kernel.module_of(line.partition(":")[0]) for line in text.splitlines()
                }
        return set()

    def _initramfs(self, kernel: str, release: str) -> tuple[str, set[str] | None, str]:
        """(its path, the modules in it, why that is not known)."""
        folder = kernel.rpartition("/")[0]
        names = (f"initrd.img-{release}", f"initramfs-{release}.img", f"initrd-{release}", "initrd")
        for _, files in self._systems:
            for name in names:
                path = f"{folder}/{name}"
                data = self._read(files, path, guest_kernel.INITRAMFS_LIMIT_BYTES)
                if data is None:
                    continue
                try:
                    found = {guest_kernel.module_of(one) for one in guest_kernel.names_in(data)}
                except (NotUnpacked, struct.error) as exc:
                    return path, None, f"the initramfs {path}: {exc}"
                return path, found - {""}, ""
        return "", set(), ""


# ---------------------------------------------------------------------------------------------
# Boot loaders


def first_entry(text: str, file: str) -> Boot | None:
    """The kernel that a configuration starts when nobody chooses, with its command line."""
    default, entries = 0, list[tuple[str, str]]()
    labels: list[str] = []
    wanted = ""
    for line in text.splitlines():
        words = line.strip().split(None, 1)
        if not words or words[0].startswith("#"):
            continue
        word, rest = words[0].lower(), words[1].strip() if len(words) > 1 else ""
        if word in ("set", "default"):
            found = re.match(r"(?:default\s*=?\s*)?[\"']?(\d+)[\"']?$", rest)
            if found and (word == "default" or rest.startswith("default")):
                default = int(found[1])
            elif word == "default":
                wanted = rest
        elif word == "label":
            labels.append(rest)
        elif word in ("linux", "linux16", "linuxefi", "kernel"):
            path, _, line_of = rest.partition(" ")
            entries.append((_plain(path), line_of.strip()))
        elif word == "append" and entries:
            entries[-1] = (entries[-1][0], rest)
    if not entries:
        return None
    if wanted in labels and labels.index(wanted) < len(entries):
        default = labels.index(wanted)
    path, command_line = entries[default if default < len(entries) else 0]
    return Boot(file="/" + file, kernel=path, command_line=command_line)


def _plain(path: str) -> str:
    """Without the device that GRUB may name before it."""
    path = re.sub(r"^\([^)]*\)", "", path.strip("\"'"))
    return path if path.startswith("/") else f"/{path}"
