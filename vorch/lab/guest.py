"""Builds small bootable guest disks from Debian packages: `tiny` (busybox), `debian` (a real one).

A third kind, `writer`, is `tiny` with a service that writes numbered records to a partition of its
own, for proofs that a disk had one writer only (see writer_log.py and verify.py).

All images start from the disk itself, by BIOS and by UEFI, and talk on the serial console. Nothing
is installed on the machine that builds them, and only `debian` needs root: packages are downloaded
and unpacked in a temporary folder, file systems are written into the image file by mtools and
mke2fs, never mounted.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import fcntl
import gzip
import hashlib
import importlib.resources
import json
import lzma
import os
import re
import shutil
import stat
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Literal, get_args

from vorch.lab import fast_kernel, writer_log

Kind = Literal["tiny", "debian", "writer"]
Report = Callable[[str], None]


class GuestBuildError(Exception):
    """A guest image cannot be built; the message says what is missing and what to do."""


@dataclass(frozen=True)
class GuestImage:
    """One finished image. `path` is the qcow2 file, `raw_path` the same disk as a sparse raw file.

    Neither may be written to: run a guest on a copy or on an overlay.
    """

    path: Path
    raw_path: Path
    kind: Kind
    size_bytes: int
    virtual_size_bytes: int
    kernel: str
    hostname: str
    login: str
    password: str
    memory_mib: int


# Every program the build runs, and the Debian package that brings it.
PROGRAMS: Mapping[str, str] = {
    "apt-cache": "apt",
    "apt-get": "apt",
    "dpkg-deb": "dpkg",
    "mformat": "mtools",
    "mmd": "mtools",
    "mcopy": "mtools",
    "lz4": "lz4",
    "syslinux": "syslinux",
    "mke2fs": "e2fsprogs",
    "qemu-img": "qemu-utils",
}
PROGRAMS_FOR_DEBIAN: Mapping[str, str] = {
    **PROGRAMS,
    "debootstrap": "debootstrap",
    "chroot": "coreutils",
    "unshare": "util-linux",
}

# The general kernel, not the smaller -cloud- flavour, which has no AHCI: a CD on SATA stays unseen.
KERNEL = "linux-image-amd64"
# Packages both guests are made of, besides the kernel; and two files out of them.
COMMON_PACKAGES = ("busybox-static", "syslinux-common", "systemd-boot-efi")
BIOS_BOOT_RECORD = "usr/lib/syslinux/mbr/mbr.bin"
UEFI_LOADER = "usr/lib/systemd/boot/efi/systemd-bootx64.efi"
# The programs of the tiny guest that are not in busybox: package → where it stands → where it goes.
TINY_PROGRAMS: Mapping[str, tuple[str, str]] = {
    "qemu-guest-agent": ("usr/sbin/qemu-ga", "sbin/qemu-ga"),
    "dropbear-bin": ("usr/sbin/dropbear", "sbin/dropbear"),
}
# What turns a page of kernel messages on the console into silence, and saves time under emulation.
COMMAND_LINE = (
    "console=tty0 console=ttyS0,115200 quiet loglevel=3 mitigations=off panic=5 "
    "cryptomgr.notests rcupdate.rcu_expedited=1 memhp_default_state=online net.ifnames=0"
)


def xen_command_line(line: str) -> str:
    """The same for a guest of Xen's, which has neither a screen nor a serial port."""
    words = [word for word in line.split() if not word.startswith("console=")]
    return " ".join(["console=hvc0", *words])


# Modules of the initramfs; what they depend on is added. Drivers are loaded for devices found.
MODULES = (
    *("virtio_pci", "virtio_blk", "virtio_scsi", "virtio_net", "virtio_console"),
    *("virtio_balloon", "virtio_rng", "virtio_mem", "virtio_input"),
    *("ahci", "ata_piix", "sd_mod", "sr_mod", "isofs", "vfat", "nls_cp437", "nls_ascii"),
    *("ext4", "crc32c_generic", "button", "evdev"),
    *("e1000", "e1000e", "8139cp", "xen_blkfront", "xen_netfront", "i6300esb", "pvpanic_pci"),
)
# The parts of the kernel's modules a virtual machine may come to use; all of them would be 400 MB.
DEBIAN_MODULE_FOLDERS = (
    *("arch", "block", "crypto", "fs", "lib", "mm", "net", "virt"),
    *(
        "drivers/acpi",
        "drivers/ata",
        "drivers/block",
        "drivers/cdrom",
        "drivers/char",
        "drivers/firmware",
    ),
    *(
        "drivers/gpu/drm/tiny",
        "drivers/gpu/drm/virtio",
        "drivers/input",
        "drivers/md",
        "drivers/virtio",
    ),
    *("drivers/net/ethernet/intel/e1000", "drivers/net/ethernet/intel/e1000e"),
    *("drivers/net/ethernet/realtek", "drivers/vhost", "drivers/watchdog", "drivers/misc/pvpanic"),
)
DEBIAN_PACKAGES = (
    *("systemd-sysv", "systemd-resolved", "dbus", "udev", "kmod", "iproute2", "iputils-ping"),
    *("cloud-init", "qemu-guest-agent", "openssh-server", "sudo", "ca-certificates", "e2fsprogs"),
    # python3-cryptography asks for this one by virtual packages, which debootstrap does not follow.
    "python3-cffi-backend",
)
# Services that cost a machine under emulation seconds and give a test guest nothing.
DEBIAN_MASKED = (
    *("systemd-networkd-wait-online.service", "apt-daily.timer", "apt-daily-upgrade.timer"),
    *("dpkg-db-backup.timer", "e2scrub_all.timer", "e2scrub_reap.service", "fstrim.timer"),
    *("systemd-timesyncd.service", "systemd-pstore.service", "modprobe@drm.service"),
    *("systemd-hwdb-update.service", "systemd-journal-catalog-update.service"),
)

ROOT_PASSWORD = "vorch"
# crypt(3) of that password; written out because Python's own crypt module is gone since 3.13.
ROOT_PASSWORD_HASH = (
    "$6$vorchguest$iYR8t8B2I9d4qUYDIJ/3XRgxzMklipQcag9n.yaTMyXT"
    "PiQRLtIAPk0QHnKuOB7Q3FKaRz6T9dEE.zsXy6s8g."
)
SECTOR = 512
MIB = 1 << 20
BOOT_OFFSET = MIB
TINY_DATA_MIB = 16
WRITER_LOG_MIB = 64
DEBIAN_SPARE_MIB = 256
# What each needs in either firmware; by BIOS alone the tiny guest runs in 128 MiB.
TINY_MEMORY_MIB = 160
DEBIAN_MEMORY_MIB = 384


def build(kind: Kind, *, cache: Path | None = None, report: Report | None = None) -> GuestImage:
    """The image of that kind, out of the cache, or built now (a minute or two) and put there."""
    if kind not in get_args(Kind):
        raise GuestBuildError(
            f"cannot build guest '{kind}': no such kind; use one of {', '.join(get_args(Kind))}"
        )
    folder = (cache or default_cache()) / "guest"
    say = report or (lambda _: None)
    _check_machine(kind)
    kernel, version = kernel_package(say)
    name = f"{kind}-{_recipe_hash(kind, kernel, version)}"
    finished = folder / name
    found = _load(finished)
    if found:
        return found
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / "lock", say):
        # Another process may have built it while this one waited.
        found = _load(finished)
        if found:
            return found
        if kind == "debian" and os.geteuid() != 0:
            raise GuestBuildError(
                "cannot build guest 'debian': debootstrap works as root only; "
                "build it once as root with the same cache folder, or use the guest 'tiny'"
            )
        packages = folder / "packages"
        packages.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=folder) as scratch:
            work = Workshop(Path(scratch), packages, kernel, say)
            disk = work.debian() if kind == "debian" else work.tiny(kind)
            shelf = Path(scratch) / "finished"
            shelf.mkdir()
            say(f"{kind}: writing the qcow2 file")
            run(
                [
                    "qemu-img",
                    "convert",
                    "-f",
                    "raw",
                    "-O",
                    "qcow2",
                    str(disk),
                    str(shelf / "disk.qcow2"),
                ]
            )
            disk.rename(shelf / "disk.raw")
            (shelf / "image.json").write_text(
                json.dumps({"kind": kind, "kernel": kernel.removeprefix("linux-image-")}) + "\n"
            )
            for file in shelf.iterdir():
                file.chmod(0o444)
            shelf.chmod(0o755)
            if finished.exists():
                shutil.rmtree(finished)
            shelf.rename(finished)
    found = _load(finished)
    if found is None:
        raise GuestBuildError(
            f"cannot build guest '{kind}': {finished} is incomplete; delete it and try again"
        )
    return found


def default_cache() -> Path:
    """$VORCH_CACHE, else /var/cache/vorch for root and ~/.cache/vorch for everyone else."""
    named = os.environ.get("VORCH_CACHE")
    if named:
        return Path(named)
    return Path("/var/cache/vorch") if os.geteuid() == 0 else Path.home() / ".cache" / "vorch"


def missing_programs(kind: Kind) -> dict[str, str]:
    """The programs this kind needs and this machine lacks, each with the package that brings it."""
    wanted = PROGRAMS_FOR_DEBIAN if kind == "debian" else PROGRAMS
    return {name: package for name, package in wanted.items() if not _which(name)}


def _which(program: str) -> str | None:
    # mke2fs and debootstrap stand in sbin, which is not in every user's PATH.
    return shutil.which(program, path=_environment()["PATH"])


def _environment() -> dict[str, str]:
    path = os.environ.get("PATH", "/usr/bin:/bin")
    return {**os.environ, "PATH": f"{path}:/usr/local/sbin:/usr/sbin:/sbin", "LC_ALL": "C.UTF-8"}


def _check_machine(kind: Kind) -> None:
    if os.uname().machine != "x86_64":
        raise GuestBuildError(
            f"cannot build guest '{kind}': the recipe is for x86_64 and this machine is "
            f"{os.uname().machine}; build it on an x86_64 machine and copy the cache folder"
        )
    missing = missing_programs(kind)
    if missing:
        packages = " ".join(sorted(set(missing.values())))
        raise GuestBuildError(
            f"cannot build guest '{kind}': {', '.join(missing)} not found; "
            f"apt-get install {packages}"
        )


def run(command: Sequence[str], *, cwd: Path | None = None) -> str:
    done = subprocess.run(
        command,
        cwd=cwd,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
    )
    if done.returncode:
        # The last lines carry the reason; debootstrap writes its own to standard output.
        words = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise GuestBuildError(
            f"cannot build a guest: '{' '.join(command[:3])} …' ended with status "
            f"{done.returncode}: {' / '.join(words[-4:])}; mend that and try again"
        )
    return done.stdout


def versions_of(names: Sequence[str]) -> dict[str, str]:
    """Of packages, as apt would fetch them now."""
    records = run(["apt-cache", "--no-all-versions", "show", *names])
    return dict(re.findall(r"^Package: (\S+)\n(?:.+\n)*?Version: (\S+)", records, re.MULTILINE))


def kernel_package(say: Report, wanted: str = KERNEL) -> tuple[str, str]:
    """The kernel package behind the metapackage, and its version, as apt knows it."""
    asked = ["apt-cache", "--no-all-versions", "show", wanted]
    try:
        record = run(asked)
    except GuestBuildError:
        if os.geteuid() != 0:
            raise GuestBuildError(
                f"cannot build a guest: apt knows no package '{wanted}'; "
                "run apt-get update as root (the recipe needs Debian's archive)"
            ) from None
        say("apt's lists are missing: apt-get update")
        run(["apt-get", "update"])
        record = run(asked)
    version = re.search(r"^Version: (\S+)", record, re.MULTILINE)
    package = re.search(r"^Depends:.*?\b(linux-image-[0-9]\S*-amd64)\b", record, re.MULTILINE)
    if not version or not package:
        raise GuestBuildError(
            f"cannot build a guest: the package '{wanted}' of this machine's archive names no "
            "kernel; the recipe needs Debian's archive"
        )
    return package[1], version[1]


def _recipe() -> Iterator[tuple[str, bytes]]:
    for module in (__file__, fast_kernel.__file__, writer_log.__file__):
        yield Path(module).name, Path(module).read_bytes()
    for file in sorted(_recipe_files(), key=lambda file: file.name):
        yield file.name, file.read_bytes()


def _recipe_files() -> list[Traversable]:
    folder = importlib.resources.files("vorch.lab").joinpath("guest_files")
    return [file for file in folder.iterdir() if file.is_file()]


def _recipe_file(name: str) -> bytes:
    return next(file.read_bytes() for file in _recipe_files() if file.name == name)


def _recipe_hash(kind: Kind, kernel: str, version: str) -> str:
    digest = hashlib.sha256(f"{kind} {kernel} {version}".encode())
    for name, content in _recipe():
        digest.update(f"\n{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:12]


def _load(folder: Path) -> GuestImage | None:
    try:
        noted = json.loads((folder / "image.json").read_text())
        return GuestImage(
            path=folder / "disk.qcow2",
            raw_path=folder / "disk.raw",
            kind=noted["kind"],
            size_bytes=(folder / "disk.qcow2").stat().st_size,
            virtual_size_bytes=(folder / "disk.raw").stat().st_size,
            kernel=noted["kernel"],
            hostname=noted["kind"],
            login="root",
            password=ROOT_PASSWORD,
            memory_mib=DEBIAN_MEMORY_MIB if noted["kind"] == "debian" else TINY_MEMORY_MIB,
        )
    except (OSError, ValueError, KeyError):
        return None


@contextlib.contextmanager
def locked(file: Path, say: Report) -> Iterator[None]:
    with file.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another process that is building a guest")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


class Workshop:
    """One build: the folder it happens in, and the steps all kinds share."""

    def __init__(self, scratch: Path, packages: Path, kernel: str, say: Report) -> None:
        self.scratch = scratch
        self.packages = packages
        self.kernel = kernel
        self.say = say
        self.unpacked = scratch / "unpacked"
        self.unpacked.mkdir()

    # --- the guests -----------------------------------------------------------------------------

    def tiny(self, kind: Kind) -> Path:
        libraries = _library_packages(list(TINY_PROGRAMS))
        self.fetch([self.kernel, *COMMON_PACKAGES, *TINY_PROGRAMS, *libraries])
        self.say(f"{kind}: writing the initramfs")
        archive = self.start_archive("tiny-start")
        services = _recipe_file("inittab")
        if kind == "writer":
            archive.file("lib/writer", _recipe_file("writer"), 0o755)
            services += b"::once:/lib/writer\n"
        archive.file("etc/inittab", services)
        archive.file("etc/hostname", f"{kind}\n")
        for name in (
            "seed",
            "yaml.awk",
            "net-up",
            "udhcpc-event",
            "port-up",
            "hotplug",
            "power-button",
            "stop-data",
        ):
            archive.file(f"lib/{name}", _recipe_file(name), 0o755)
        archive.file("sbin/shutdown", _recipe_file("shutdown"), 0o755)
        archive.link("init", "bin/busybox")
        archive.file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
        archive.file("etc/group", "root:x:0:\n")
        archive.file("etc/shadow", f"root:{ROOT_PASSWORD_HASH}:19000:0:99999:7:::\n", 0o600)
        archive.file("etc/shells", "/bin/sh\n")
        archive.file("etc/profile", "export PATH=/sbin:/bin PS1='\\u@\\h:\\w\\$ '\n")
        archive.file("etc/issue", "\n")
        archive.file("etc/resolv.conf", "")
        archive.link("etc/dropbear", "/data/.ssh-host")
        programs = []
        for source, target in TINY_PROGRAMS.values():
            programs.append(self.unpacked / source)
            archive.file(target, (self.unpacked / source).read_bytes(), 0o755)
        for name, library in _libraries_of(programs, self.unpacked).items():
            archive.file(f"lib/{name}", library.read_bytes(), 0o755)
        # The path that is written into every dynamically linked program.
        archive.link("lib64", "lib")

        disk = self.scratch / "disk"
        boot_mib = self.write_disk(disk, archive, f"{COMMAND_LINE} rdinit=/init", TINY_DATA_MIB)
        self.say(f"{kind}: writing the data partition")
        self.write_ext4(disk, boot_mib, TINY_DATA_MIB, "vorch-data", ["-b", "1024", "-m", "0"])
        if kind == "writer":
            self.add_log(disk)
        return disk

    def debian(self) -> Path:
        self.fetch([self.kernel, *COMMON_PACKAGES])
        root = self.scratch / "root"
        site, codename = own_archive()
        self.say(f"debian: debootstrap of {codename} from {site}")
        # In a mount namespace of its own: whatever debootstrap mounts is gone with it.
        run(
            [
                *("unshare", "--mount", "debootstrap", "--variant=minbase", "--arch=amd64"),
                *(f"--include={','.join(DEBIAN_PACKAGES)}", codename, str(root), site),
            ]
        )
        self.say("debian: settings")
        self.copy_debian_modules(root)
        self.settle_debian(root)
        used_mib = size_of_tree(root) // MIB
        # Room for inodes and the journal as well as for what a test writes.
        root_mib = used_mib * 9 // 8 + DEBIAN_SPARE_MIB
        self.say("debian: writing the disk")
        archive = self.start_archive("debian-init")
        archive.link("init", "lib/start")
        disk = self.scratch / "disk"
        boot_mib = self.write_disk(disk, archive, COMMAND_LINE, root_mib)
        self.write_ext4(disk, boot_mib, root_mib, "vorch-root", ["-d", str(root)])
        return disk

    # --- packages and kernel --------------------------------------------------------------------

    def fetch(self, names: Sequence[str]) -> None:
        """Downloads the packages, except those in the cache already, and unpacks them all."""
        self.say(f"downloading {len(names)} packages")
        run(["apt-get", "download", *names], cwd=self.packages)
        records = run(["apt-cache", "--no-all-versions", "show", *names])
        versions = dict(
            re.findall(r"^Package: (\S+)\n(?:.+\n)*?Version: (\S+)", records, re.MULTILINE)
        )
        for name in names:
            # apt writes a version's colon as %3a in file names.
            wanted = f"{name}_{versions.get(name, '').replace(':', '%3a')}_"
            chosen: Path | None = None
            for file in self.packages.glob(f"{name}_*.deb"):
                if file.name.startswith(wanted):
                    chosen = file
                else:
                    # Of an earlier release: nothing would ever use it again.
                    file.unlink()
            if chosen is None:
                raise GuestBuildError(
                    f"cannot build a guest: apt-get brought no package '{name}'; "
                    "run apt-get update and try again"
                )
            run(["dpkg-deb", "--extract", str(chosen), str(self.unpacked)])

    @property
    def release(self) -> str:
        return self.kernel.removeprefix("linux-image-")

    @property
    def module_folder(self) -> Path:
        # Debian's packages write to /lib or to /usr/lib, by their age.
        for top in ("usr/lib/modules", "lib/modules"):
            folder = self.unpacked / top / self.release
            if folder.is_dir():
                return folder
        raise GuestBuildError(
            f"cannot build a guest: the package '{self.kernel}' holds no modules; "
            "the recipe does not fit this release of Debian"
        )

    def start_archive(self, first_program: str) -> Archive:
        """What both guests' initramfs share: busybox, modules and the scripts that load them."""
        archive = Archive()
        for folder in (
            "bin",
            "dev",
            "etc",
            "lib/modules",
            "mnt",
            "proc",
            "root",
            "run",
            "sbin",
            "sys",
            "var/log",
        ):
            archive.folder(folder)
        archive.folder("tmp", 0o1777)
        archive.device("dev/console", 5, 1)
        archive.device("dev/null", 1, 3, 0o666)
        busybox = next(
            path
            for path in (self.unpacked / "usr/bin/busybox", self.unpacked / "bin/busybox")
            if path.exists()
        )
        archive.file("bin/busybox", busybox.read_bytes(), 0o755)
        for applet in run([str(busybox), "--list"]).split():
            if applet not in ("busybox", "shutdown"):
                archive.link(f"bin/{applet}", "busybox")
        # The last two are what Linux itself runs when a hypervisor asks it to end.
        for login_program in ("getty", "init", "login", "sh", "poweroff", "reboot"):
            archive.link(f"sbin/{login_program}", "../bin/busybox")
        modules = modules_of(self.module_folder, MODULES)
        for module in modules.values():
            archive.file(f"lib/modules/{module.name}.ko", module.content)
        archive.file("lib/modules.sh", _module_script(modules))
        archive.file("lib/boot.sh", _recipe_file("boot.sh"))
        archive.file("lib/start", _recipe_file(first_program), 0o755)
        return archive

    # --- the disk -------------------------------------------------------------------------------

    def write_disk(self, disk: Path, archive: Archive, command_line: str, second_mib: int) -> int:
        """Partition table, boot partition, boot loaders. Returns the boot partition's MiB."""
        kernel = self.unpacked / "boot" / f"vmlinuz-{self.release}"
        initramfs = self.scratch / "initrd"
        initramfs.write_bytes(archive.compressed())
        fast, plain = self.scratch / "fast", kernel.read_bytes()
        # One that is made in another way starts as it is.
        fast.write_bytes(fast_kernel.fast_kernel(plain) or plain)
        files = {
            "vmlinuz": kernel,
            "fast": fast,
            "initrd": initramfs,
            "EFI/BOOT/BOOTX64.EFI": self.unpacked / UEFI_LOADER,
        }
        boot_mib = sum(file.stat().st_size for file in files.values()) // MIB + 4
        with disk.open("wb") as file:
            file.write((self.unpacked / BIOS_BOOT_RECORD).read_bytes()[:440].ljust(440, b"\0"))
            # Type EF marks the boot partition for UEFI, the flag 80 for the BIOS boot record.
            file.write(struct.pack("<IH", 0x564F5243, 0))
            file.write(_partition_entry(0x80, 0xEF, BOOT_OFFSET, boot_mib * MIB))
            file.write(_partition_entry(0, 0x83, BOOT_OFFSET + boot_mib * MIB, second_mib * MIB))
            file.write(bytes(32) + b"\x55\xaa")
            file.truncate(BOOT_OFFSET + (boot_mib + second_mib) * MIB)
        image = f"{disk}@@{BOOT_OFFSET}"
        hidden = str(BOOT_OFFSET // SECTOR)
        sectors = str(boot_mib * MIB // SECTOR)
        # -H: syslinux finds its own partition by the number of sectors before it.
        run(
            [
                "mformat",
                "-i",
                image,
                "-T",
                sectors,
                "-h",
                "255",
                "-s",
                "63",
                "-H",
                hidden,
                "-v",
                "VORCHBOOT",
                "::",
            ]
        )
        run(["mmd", "-i", image, "::EFI", "::EFI/BOOT", "::grub", "::loader", "::loader/entries"])
        texts = {
            "syslinux.cfg": (
                "DEFAULT vorch\nPROMPT 0\nLABEL vorch\n"
                f"  LINUX fast\n  INITRD initrd\n  APPEND {command_line}\n"
            ),
            # Xen's pygrub reads this one, from outside of the guest; no loader in it does.
            "grub/grub.cfg": (
                'set default=0\nset timeout=0\nmenuentry "vorch" {\n'
                f"  linux /vmlinuz {xen_command_line(command_line)}\n  initrd /initrd\n}}\n"
            ),
            "loader/loader.conf": "timeout 0\ndefault vorch.conf\neditor no\n",
            "loader/entries/vorch.conf": (
                f"title vorch\nlinux /vmlinuz\ninitrd /initrd\noptions {command_line}\n"
            ),
        }
        for name, text in texts.items():
            source = self.scratch / "text"
            source.write_text(text)
            run(["mcopy", "-o", "-i", image, str(source), f"::{name}"])
        for name, source in files.items():
            run(["mcopy", "-o", "-i", image, str(source), f"::{name}"])
        run(["syslinux", "--install", "--offset", str(BOOT_OFFSET), str(disk)])
        return boot_mib

    def write_ext4(
        self, disk: Path, boot_mib: int, size_mib: int, label: str, more: Sequence[str]
    ) -> None:
        offset = BOOT_OFFSET + boot_mib * MIB
        run(
            [
                *("mke2fs", "-q", "-F", "-t", "ext4", "-L", label, *more),
                # Lazy initialisation would have the first boot write inode tables behind its back.
                *("-E", f"offset={offset},lazy_itable_init=0,lazy_journal_init=0"),
                *(str(disk), f"{size_mib}M"),
            ]
        )

    def add_log(self, disk: Path) -> None:
        """The writer's partition at the end of the disk, armed and otherwise a hole in the file."""
        start = disk.stat().st_size
        with disk.open("r+b", buffering=0) as file:
            file.truncate(start + WRITER_LOG_MIB * MIB)
            file.seek(446 + 16 * (writer_log.PARTITION_NUMBER - 1))
            file.write(_partition_entry(0, writer_log.PARTITION_KIND, start, WRITER_LOG_MIB * MIB))
            writer_log.arm(writer_log.FileDisk(file))

    # --- debian only ----------------------------------------------------------------------------

    def copy_debian_modules(self, root: Path) -> None:
        target = root / "lib/modules" / self.release
        for name in DEBIAN_MODULE_FOLDERS:
            if (self.module_folder / "kernel" / name).is_dir():
                shutil.copytree(
                    self.module_folder / "kernel" / name,
                    target / "kernel" / name,
                    dirs_exist_ok=True,
                )
        # What those depend on may stand outside the chosen folders.
        chosen = {_module_name(file): file for file in _module_files(target)}
        everything = {_module_name(file): file for file in _module_files(self.module_folder)}
        pending = list(chosen)
        while pending:
            for needed in _Module.read(everything[pending.pop()]).depends:
                if needed not in chosen and needed in everything:
                    copy = target / everything[needed].relative_to(self.module_folder)
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(everything[needed], copy)
                    chosen[needed] = copy
                    pending.append(needed)
        for listing in self.module_folder.glob("modules.*"):
            shutil.copy2(listing, target)
        run(["chroot", str(root), "depmod", self.release])

    def settle_debian(self, root: Path) -> None:
        def write(name: str, text: str, mode: int = 0o644) -> None:
            file = root / name
            file.parent.mkdir(parents=True, exist_ok=True)
            if file.is_symlink():
                file.unlink()
            file.write_text(text)
            file.chmod(mode)

        write("etc/hostname", "debian\n")
        write("etc/hosts", "127.0.0.1 localhost debian\n::1 localhost ip6-localhost\n")
        write("etc/fstab", "LABEL=vorch-root / ext4 errors=remount-ro,noatime 0 0\n")
        # Empty, not absent: each guest makes its own, without a first boot's questions.
        write("etc/machine-id", "")
        write("etc/cloud/cloud.cfg.d/90_vorch.cfg", _recipe_file("cloud.cfg").decode())
        write("etc/cloud/ds-identify.cfg", "policy: enabled\n")
        write(
            "etc/systemd/journald.conf.d/vorch.conf",
            "[Journal]\nStorage=volatile\nRuntimeMaxUse=4M\n",
        )
        write("etc/systemd/system.conf.d/vorch.conf", "[Manager]\nDefaultTimeoutStopSec=10s\n")
        shadow = (root / "etc/shadow").read_text()
        write(
            "etc/shadow",
            re.sub(r"^root:[^:]*:", lambda _: f"root:{ROOT_PASSWORD_HASH}:", shadow),
            0o640,
        )
        for key in (root / "etc/ssh").glob("ssh_host_*"):
            key.unlink()
        for service in DEBIAN_MASKED:
            link = root / "etc/systemd/system" / service
            link.unlink(missing_ok=True)
            link.symlink_to("/dev/null")
        run(["chroot", str(root), "systemctl", "enable", "systemd-networkd", "systemd-resolved"])
        for name in (
            "var/cache/apt",
            "var/lib/apt/lists",
            "usr/share/doc",
            "usr/share/man",
            "usr/share/locale",
        ):
            shutil.rmtree(root / name, ignore_errors=True)
        (root / "var/cache/apt/archives/partial").mkdir(parents=True)
        (root / "var/lib/apt/lists/partial").mkdir(parents=True)


def _partition_entry(flag: int, kind: int, start: int, size: int) -> bytes:
    # The cylinder numbers of old say "beyond"; every boot loader of today reads the sector numbers.
    beyond = b"\xfe\xff\xff"
    return struct.pack("<B3sB3sII", flag, beyond, kind, beyond, start // SECTOR, size // SECTOR)


def size_of_tree(root: Path) -> int:
    total = 0
    for folder, names, files in os.walk(root):
        for name in (*names, *files):
            # In blocks of the file system to be: small files are counted at their cost.
            total += -(-Path(folder, name).lstat().st_size // 4096) * 4096
    return total


def own_archive() -> tuple[str, str]:
    """The archive this machine's own packages come from, and its release: for debootstrap."""
    with contextlib.suppress(OSError):
        words = dict(
            line.split("=", 1)
            for line in Path("/etc/os-release").read_text().splitlines()
            if "=" in line
        )
        codename = words.get("VERSION_CODENAME", "").strip('"')
        listing = run(
            [
                "apt-get",
                "indextargets",
                "--format",
                "$(CREATED_BY) $(CODENAME) $(COMPONENT) $(SITE)",
            ]
        )
        for line in listing.splitlines():
            creator, suite, component, site = line.split(" ", 3)
            if codename and (creator, suite, component) == ("Packages", codename, "main"):
                return site, codename
    raise GuestBuildError(
        "cannot build guest 'debian': this machine's apt sources name no Debian archive of its own "
        "release; add one and run apt-get update"
    )


def _library_packages(programs: Sequence[str]) -> list[str]:
    """The packages of shared libraries those packages need, directly or through other libraries."""
    without = ["recommends", "suggests", "conflicts", "breaks", "replaces", "enhances"]
    listing = run(
        ["apt-cache", "depends", "--recurse", *(f"--no-{kind}" for kind in without), *programs]
    )
    needs: dict[str, list[str]] = {}
    current: list[str] = []
    for line in listing.splitlines():
        if line and not line[0].isspace():
            current = needs.setdefault(line.strip(), [])
        elif re.match(r"\s*\|?(Pre)?Depends: (lib|zlib)", line):
            current.append(line.split(": ", 1)[1].strip())
    chosen: list[str] = []
    pending = list(programs)
    while pending:
        for name in needs.get(pending.pop(), []):
            if name not in chosen:
                chosen.append(name)
                pending.append(name)
    return sorted(chosen)


# --- kernel modules -----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Module:
    name: str
    content: bytes
    depends: tuple[str, ...]
    aliases: tuple[str, ...]

    @staticmethod
    def read(file: Path) -> _Module:
        content = lzma.decompress(file.read_bytes()) if file.suffix == ".xz" else file.read_bytes()
        # A module says in plain text what it needs and which devices it drives, zeros in between.
        depends = re.search(rb"\0depends=([^\0]*)\0", content)
        return _Module(
            name=_module_name(file),
            content=content,
            depends=tuple(
                name.replace("-", "_")
                for name in (depends[1].decode().split(",") if depends else [])
                if name
            ),
            aliases=tuple(
                alias.decode()
                for alias in re.findall(rb"\0alias=((?:pci|virtio):[^\0]*)(?=\0)", content)
            ),
        )


def _module_files(folder: Path) -> list[Path]:
    return [file for file in folder.rglob("*.ko*") if file.is_file()]


def _module_name(file: Path) -> str:
    # The kernel knows no dash in a module's name, the file's name may have one.
    return file.name.split(".ko")[0].replace("-", "_")


def modules_of(folder: Path, wanted: Sequence[str]) -> dict[str, _Module]:
    """The modules wanted and all they depend on; without what is built in or gone."""
    files = {_module_name(file): file for file in _module_files(folder)}
    found: dict[str, _Module] = {}

    def add(name: str) -> None:
        if name in files and name not in found:
            module = _Module.read(files[name])
            for needed in module.depends:
                add(needed)
            # After those it depends on: the order of the dictionary is an order to load in.
            found[name] = module

    for name in wanted:
        add(name)
    return found


def _module_script(modules: Mapping[str, _Module]) -> str:
    """Shell functions in place of modules.dep and modules.alias: no depmod, no search."""

    def all_below(name: str) -> list[str]:
        needed: set[str] = set()
        pending = [name]
        while pending:
            for other in modules[pending.pop()].depends:
                if other in modules and other not in needed:
                    needed.add(other)
                    pending.append(other)
        return [other for other in modules if other in needed]

    lines = ["# Written when the image was built.", "deps_of() {", "    case $1 in"]
    lines += [
        f'        {name}) DEPS="{" ".join(all_below(name))}" ;;'
        for name in modules
        if all_below(name)
    ]
    lines += ["        *) DEPS= ;;", "    esac", "}", "module_for() {", "    case $1 in"]
    for name, module in modules.items():
        if module.aliases:
            lines.append(f"        {'|'.join(sorted(set(module.aliases)))}) MODULE={name} ;;")
    lines += ["        *) return 1 ;;", "    esac", "}", ""]
    return "\n".join(lines)


# --- shared libraries ---------------------------------------------------------------------------


def _libraries_of(programs: Sequence[Path], tree: Path) -> dict[str, Path]:
    """The shared libraries the programs need, by the names they ask for, out of the tree."""
    folders = [
        tree / name
        for name in ("usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu", "usr/lib64", "lib64")
    ]
    found: dict[str, Path] = {}
    pending = list(programs)
    while pending:
        for name in _needed_by(pending.pop().read_bytes()):
            if name in found:
                continue
            file = next((folder / name for folder in folders if (folder / name).exists()), None)
            if file is None:
                raise GuestBuildError(
                    f"cannot build a guest: no downloaded package holds the library '{name}'; "
                    "the recipe does not fit this release of Debian"
                )
            found[name] = file
            pending.append(file)
    return found


def _needed_by(program: bytes) -> list[str]:
    """The DT_NEEDED entries of a 64-bit ELF file, and its loader."""
    if program[:5] != b"\x7fELF\x02":
        return []
    (table,) = struct.unpack_from("<Q", program, 32)
    entry_size, count = struct.unpack_from("<HH", program, 54)
    segments = [
        struct.unpack_from("<IIQQQQQQ", program, table + i * entry_size) for i in range(count)
    ]
    needed: list[str] = []

    def text_at(offset: int) -> str:
        return program[offset : program.index(b"\0", offset)].decode()

    def file_offset(address: int) -> int:
        for kind, _, offset, start, _, size, _, _ in segments:
            if kind == 1 and start <= address < start + size:
                return int(offset + address - start)
        return int(address)

    for kind, _, offset, _, _, size, _, _ in segments:
        if kind == 3:  # PT_INTERP
            needed.append(text_at(offset).rsplit("/", 1)[-1])
        elif kind == 2:  # PT_DYNAMIC
            pairs = [
                struct.unpack_from("<qQ", program, at) for at in range(offset, offset + size, 16)
            ]
            strings = next((file_offset(value) for tag, value in pairs if tag == 5), 0)
            needed += [text_at(strings + value) for tag, value in pairs if tag == 1]
    return needed


# --- the initramfs ------------------------------------------------------------------------------


class Archive:
    """A cpio archive in the kernel's "newc" form; written here, device nodes need no root."""

    def __init__(self) -> None:
        self._entries: dict[str, tuple[int, bytes, int, int]] = {}

    def folder(self, name: str, mode: int = 0o755) -> None:
        parent = name.rpartition("/")[0]
        if parent and parent not in self._entries:
            self.folder(parent)
        self._entries.setdefault(name, (stat.S_IFDIR | mode, b"", 0, 0))

    def file(self, name: str, content: bytes | str, mode: int = 0o644) -> None:
        data = content.encode() if isinstance(content, str) else content
        self._entries[name] = (stat.S_IFREG | mode, data, 0, 0)

    def link(self, name: str, target: str) -> None:
        self._entries[name] = (stat.S_IFLNK | 0o777, target.encode(), 0, 0)

    def device(self, name: str, major: int, minor: int, mode: int = 0o600) -> None:
        self._entries[name] = (stat.S_IFCHR | mode, b"", major, minor)

    def compressed(self) -> bytes:
        # Measured under emulation: no level and no other method starts a guest noticeably sooner.
        return gzip.compress(b"".join(self._chunks()), compresslevel=6, mtime=0)

    def _chunks(self) -> Iterator[bytes]:
        entries = [*self._entries.items(), ("TRAILER!!!", (0, b"", 0, 0))]
        for number, (name, (mode, data, major, minor)) in enumerate(entries, start=1):
            path = name.encode() + b"\0"
            numbers = (number, mode, 0, 0, 1, 0, len(data), 0, 0, major, minor, len(path), 0)
            header = b"070701" + b"".join(b"%08X" % value for value in numbers)
            yield header + path + bytes(-(len(header) + len(path)) % 4)
            yield data + bytes(-len(data) % 4)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m vorch.lab.guest", description="Builds a guest disk image."
    )
    parser.add_argument("kind", choices=get_args(Kind))
    parser.add_argument(
        "--cache", type=Path, help=f"where images are kept (default: {default_cache()})"
    )
    parser.add_argument(
        "--raw", action="store_true", help="print the path of the raw file, not of the qcow2 one"
    )
    parser.add_argument("--json", action="store_true", help="print all that is known of the image")
    chosen = parser.parse_args(arguments)
    try:
        image = build(
            chosen.kind, cache=chosen.cache, report=lambda text: print(text, file=sys.stderr)
        )
    except GuestBuildError as error:
        print(f"vorch: {error}", file=sys.stderr)
        return 1
    if chosen.json:
        print(json.dumps(dataclasses.asdict(image), default=str, indent=2))
    else:
        print(image.raw_path if chosen.raw else image.path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
