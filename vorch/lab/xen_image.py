"""Builds what the lab's Xen hosts start from: Xen, Linux, a disk, and a saved state of the whole.

    image = build(report=print)

All of it is the distribution's: its Xen, its kernel, its libvirt. It is built once, takes some
minutes and 1.5 GB, and lies in the cache beside the guests. The saved state is that of a machine
that has started and belongs to nobody yet; a host that is resumed from it answers in seconds.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import importlib.resources
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vorch.lab import guest, processes, xen_machine
from vorch.lab.fast_kernel import plain_kernel
from vorch.lab.guest import Archive, GuestBuildError, Report, Workshop

# Every program that the build and the hosts run, besides those of a guest's build.
PROGRAMS = {
    "debootstrap": "debootstrap",
    "qemu-system-x86_64": "qemu-system-x86",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
}
# In the initramfs: what leads to the disk. All others come from there.
MODULES = ("virtio_pci", "virtio_blk", "ext4", "crc32c_generic")
# Kinds of drivers that an emulated machine never has; they are most of the kernel's modules.
NEVER_USED = (
    *("drivers/gpu", "drivers/media", "drivers/infiniband", "drivers/iio", "drivers/isdn"),
    *("drivers/staging", "drivers/usb", "drivers/hid", "drivers/scsi", "drivers/ata"),
    *("drivers/mmc", "drivers/mtd", "drivers/nvme", "drivers/platform", "drivers/hwmon"),
    *("drivers/edac", "drivers/thunderbolt", "drivers/bluetooth", "drivers/firewire"),
    *("drivers/crypto", "drivers/tty", "drivers/comedi", "drivers/target", "drivers/input"),
    *("drivers/net/ethernet", "drivers/net/wireless", "drivers/net/usb", "drivers/net/can"),
    *("net/wireless", "net/mac80211", "net/bluetooth", "net/can", "sound"),
    *("fs/btrfs", "fs/xfs", "fs/ocfs2", "fs/gfs2", "fs/nfs", "fs/nfsd", "fs/smb", "fs/f2fs"),
)
# libvirt's drivers of other things than Xen: whoever asks for QEMU here shall get no answer.
OTHER_DRIVERS = ("qemu", "lxc", "vbox", "interface")
SPARE_MIB = 256
BOOT_TIMEOUT_S = 600.0
SAVE_TIMEOUT_S = 300.0


@dataclass(frozen=True)
class XenImage:
    """One finished image; nothing in its folder may be written to."""

    folder: Path
    # Whether a machine of this QEMU can be resumed, and need not boot.
    saved: bool

    @property
    def disk(self) -> Path:
        """What a machine's overlay stands on: after a boot, or beside the saved state."""
        return self.folder / ("saved.qcow2" if self.saved else "dom0.raw")

    @property
    def state(self) -> Path | None:
        return self.folder / "state" if self.saved else None

    @property
    def kernel(self) -> Path:
        """Linux as a plain ELF file, for guests as well: Xen's tools take minutes to unpack one."""
        return self.folder / "vmlinux"

    @property
    def key(self) -> Path:
        return self.folder / "key"


def build(*, cache: Path | None = None, report: Report | None = None) -> XenImage:
    """The image out of the cache, or built now and put there. Needs root, and Debian's archives."""
    folder = (cache or guest.default_cache()) / "xen"
    say = report or (lambda _: None)
    _check_machine()
    kernel, version = guest.kernel_package(say)

    def make(scratch: Path) -> Path:
        packages = folder / "packages"
        packages.mkdir(exist_ok=True)
        return _Yard(scratch, packages, kernel, say).build()

    # The images with another hypervisor, `live-*`, are xen_live's.
    return kept(folder / _name(kernel, version), "xen-*", make, say)


def kept(finished: Path, earlier: str, make: Callable[[Path], Path], say: Report) -> XenImage:
    """What lies there, or what `make` makes in a folder to work in, put there now.

    `earlier`: how the folders are called that it takes the place of.
    """
    found = load(finished)
    if found:
        return found
    folder = finished.parent
    folder.mkdir(parents=True, exist_ok=True)
    # The key to every dom0 made of it lies there.
    folder.chmod(0o700)
    with guest.locked(folder / "lock", say):
        # Another process may have built it while this one waited.
        found = load(finished)
        if found:
            return found
        with tempfile.TemporaryDirectory(prefix=".build-", dir=folder) as scratch:
            shelf = make(Path(scratch))
            for other in folder.glob(earlier):
                # Of an earlier release or recipe; a lab that stands holds its files open.
                shutil.rmtree(other, ignore_errors=True)
            shelf.rename(finished)
    found = load(finished)
    if found is None:
        raise GuestBuildError(
            f"cannot build a Xen host: {finished} is incomplete; delete it and try again"
        )
    return found


def missing_programs() -> dict[str, str]:
    """The programs this needs and this machine lacks, each with the package that brings it."""
    wanted = {**guest.PROGRAMS_FOR_DEBIAN, **PROGRAMS}
    # A host has no boot loader and no FAT.
    unused = ("mformat", "mmd", "mcopy", "syslinux")
    path = f"{os.environ.get('PATH', '/usr/bin:/bin')}:/usr/local/sbin:/usr/sbin:/sbin"
    return {
        name: package
        for name, package in wanted.items()
        if name not in unused and shutil.which(name, path=path) is None
    }


def _check_machine() -> None:
    if os.uname().machine != "x86_64":
        raise GuestBuildError(
            f"cannot build a Xen host: Xen's dom0 is built for x86_64 and this machine is"
            f" {os.uname().machine}; use an x86_64 machine, or a lab without --xen"
        )
    if os.geteuid() != 0:
        raise GuestBuildError(
            "cannot build a Xen host: debootstrap works as root only; run it again with sudo"
        )
    missing = missing_programs()
    if missing:
        raise GuestBuildError(
            f"cannot build a Xen host: {', '.join(missing)} not found; apt-get install"
            f" {' '.join(sorted(set(missing.values())))}"
        )


def _files() -> Iterator[tuple[str, bytes]]:
    folder = importlib.resources.files("vorch.lab").joinpath("xen_files")
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if file.is_file():
            yield file.name, file.read_bytes()


def archives(codename: str, kind: Literal["deb", "deb-src"] = "deb") -> str:
    """The lines of a sources.list: what this machine's apt has of its own release."""
    listing = guest.run(
        [
            *("apt-get", "indextargets", "--format"),
            "$(CREATED_BY) $(CODENAME) $(COMPONENT) $(SITE)",
        ]
    )
    return "".join(
        f"{kind} {site} {suite} main\n"
        for creator, suite, component, site in (
            line.split(" ", 3) for line in sorted(set(listing.splitlines()))
        )
        if creator == "Packages" and component == "main" and suite.startswith(codename)
    )


def _name(kernel: str, version: str) -> str:
    """By everything that goes into it: recipe, kernel, and the QEMU that its state is one of."""
    emulator = guest.run(["qemu-system-x86_64", "--version"]).splitlines()[0]
    words = (kernel, version, emulator, *xen_machine.hardware())
    digest = hashlib.sha256(" ".join(words).encode())
    for module in (__file__, xen_machine.__file__):
        digest.update(Path(module).read_bytes())
    for name, content in _files():
        digest.update(f"\n{name} {len(content)}\n".encode() + content)
    return f"xen-{digest.hexdigest()[:12]}"


def load(folder: Path) -> XenImage | None:
    if not (folder / "dom0.raw").exists():
        return None
    return XenImage(folder, saved=(folder / "state").exists())


class _Yard:
    """One build, and the folder it happens in."""

    def __init__(self, scratch: Path, packages: Path, kernel: str, say: Report) -> None:
        self.scratch = scratch
        self.work = Workshop(scratch, packages, kernel, say)
        self.root = scratch / "root"
        self.shelf = scratch / "shelf"
        self.say = say

    def build(self) -> Path:
        self.shelf.mkdir()
        self.work.fetch([self.work.kernel, "busybox-static"])
        self._install()
        self._settle()
        self._write_kernels()
        self._write_disk()
        save_state(self.shelf, self.scratch, self.say)
        return self.shelf

    def _install(self) -> None:
        site, codename = guest.own_archive()
        self.say(f"Xen host: debootstrap of {codename} from {site}, and Xen (a few minutes)")
        sources = self.scratch / "sources"
        sources.write_text(archives(codename))
        script = self.scratch / "install"
        script.write_bytes(dict(_files())["install"])
        script.chmod(0o755)
        guest.run(
            [
                *("unshare", "--mount", str(script)),
                *(str(self.root), codename, site, str(sources)),
            ]
        )

    def _settle(self) -> None:
        """Kernel modules, the start script, a key for the lab, certificates that nobody trusts."""
        import trustme

        root, release = self.root, self.work.release
        modules = root / "usr/lib/modules" / release
        shutil.copytree(self.work.module_folder, modules, symlinks=True)
        for name in NEVER_USED:
            shutil.rmtree(modules / "kernel" / name, ignore_errors=True)
        guest.run(["chroot", str(root), "depmod", release])
        lab = root / "lab"
        lab.mkdir()
        for name, content in _files():
            if name in ("start", "adopt"):
                (lab / name).write_bytes(content)
                (lab / name).chmod(0o755)
            elif name == "inittab":
                (root / "etc/inittab").write_bytes(content)
        guest.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.shelf / "key")])
        ssh = root / "root/.ssh"
        ssh.mkdir(mode=0o700)
        shutil.copy(self.shelf / "key.pub", ssh / "authorized_keys")
        (ssh / "authorized_keys").chmod(0o600)
        drivers = root / "usr/lib/x86_64-linux-gnu/libvirt/connection-driver"
        for name in OTHER_DRIVERS:
            (drivers / f"libvirt_driver_{name}.so").unlink(missing_ok=True)
        (root / "var/lib/libvirt/images").mkdir(parents=True, exist_ok=True)
        settings = root / "etc/libvirt/libvirtd.conf"
        settings.parent.mkdir(parents=True, exist_ok=True)
        settings.write_text(
            "listen_tls = 1\nlisten_tcp = 0\n"
            # No password beside the certificate, which has to be one of the lab's CA.
            'auth_tls = "none"\nauth_unix_ro = "none"\nauth_unix_rw = "none"\n'
            'log_outputs = "3:file:/var/log/libvirt/libvirtd.log"\n'
        )
        (root / "var/log/libvirt").mkdir(parents=True, exist_ok=True)
        authority = trustme.CA(organization_name="nobody's")
        leaf = authority.issue_cert("nobody", common_name="nobody")
        for name, blob in {
            "CA/cacert.pem": authority.cert_pem,
            "libvirt/servercert.pem": leaf.cert_chain_pems[0],
            "libvirt/private/serverkey.pem": leaf.private_key_pem,
        }.items():
            path = root / "etc/pki" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(blob.bytes())

    def _write_kernels(self) -> None:
        """As plain ELF files: to unpack them is this machine's work, not an emulated one's."""
        boot = self.root / "boot"
        packed = next(iter(sorted(boot.glob("xen-*amd64.gz"))), None)
        if packed is None:
            raise GuestBuildError(
                "cannot build a Xen host: Debian's package of Xen has no /boot/xen-*-amd64.gz; the"
                " recipe does not fit this release"
            )
        (self.shelf / "xen").write_bytes(gzip.decompress(packed.read_bytes()))
        linux = self.work.unpacked / "boot" / f"vmlinuz-{self.work.release}"
        plain = plain_kernel(linux.read_bytes())
        if plain is None:
            raise GuestBuildError(
                "cannot build a Xen host: the kernel is not packed with xz; the recipe does not fit"
                " this release of Debian"
            )
        (self.shelf / "vmlinux").write_bytes(plain)
        archive = Archive()
        for folder in ("bin", "dev", "disk", "lib/modules", "proc", "sys"):
            archive.folder(folder)
        archive.device("dev/console", 5, 1)
        busybox = self.root / "bin/busybox"
        archive.file("bin/busybox", busybox.read_bytes(), 0o755)
        modules = guest.modules_of(self.work.module_folder, MODULES)
        for module in modules.values():
            archive.file(f"lib/modules/{module.name}.ko", module.content)
        archive.file("lib/modules/order", "".join(f"{name}\n" for name in modules))
        archive.file("init", dict(_files())["init"], 0o755)
        (self.shelf / "initrd.gz").write_bytes(archive.compressed())
        shutil.rmtree(boot)
        boot.mkdir()

    def _write_disk(self) -> None:
        self.say("Xen host: writing its disk")
        size_mib = guest.size_of_tree(self.root) // guest.MIB * 9 // 8 + SPARE_MIB
        guest.run(
            [
                *("mke2fs", "-q", "-F", "-t", "ext4", "-L", "dom0", "-d", str(self.root)),
                *("-E", "lazy_itable_init=0,lazy_journal_init=0"),
                *(str(self.shelf / "dom0.raw"), f"{size_mib}M"),
            ]
        )
        shutil.rmtree(self.root)


def save_state(shelf: Path, scratch: Path, say: Report) -> None:
    """Boots it once and keeps what it is then. Where that cannot be, hosts boot each time."""
    say("Xen host: booting it once, to save its state (a minute or two)")
    place = xen_machine.Place(
        image=shelf,
        folder=scratch / "machine",
        console=scratch / "console.log",
        shared=scratch / "shared",
    )
    xen_machine.fresh_disk(place, shelf / "dom0.raw")
    # The port of the way in is everybody's on this machine: it gets a network of its own.
    with subprocess.Popen(
        ["unshare", "--net", *xen_machine.command_line(place, (), None)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as machine:
        try:
            processes.wait_for(
                lambda: machine.poll() is not None or xen_machine.is_ready(place.console, 0),
                timeout_s=BOOT_TIMEOUT_S,
                pause_s=0.2,
            )
            if machine.poll() is not None or not xen_machine.is_ready(place.console, 0):
                raise GuestBuildError(
                    "cannot build a Xen host: it does not start; the last of its console: "
                    + _last_words(place.console)
                )
            # The start script has a moment to end.
            time.sleep(1)
            _freeze(place, shelf / "state")
        finally:
            machine.kill()
    guest.run(
        [
            *("qemu-img", "rebase", "-u", "-F", "raw", "-b", "dom0.raw"),
            str(place.disk),
        ]
    )
    shutil.move(place.disk, shelf / "saved.qcow2")


def _freeze(place: xen_machine.Place, state: Path) -> None:
    xen_machine.orders(
        place.monitor,
        ("stop", {}),
        ("migrate-set-parameters", {"max-bandwidth": 10 << 30}),
        ("migrate", {"uri": f"exec:cat > {state}"}),
    )
    deadline = time.monotonic() + SAVE_TIMEOUT_S
    while True:
        (seen,) = xen_machine.orders(place.monitor, ("query-migrate", {}))
        if seen.get("status") == "completed":
            break
        if seen.get("status") == "failed" or time.monotonic() > deadline:
            raise GuestBuildError(
                f"cannot build a Xen host: QEMU does not save its state ({seen}); see whether"
                " there is room in the cache"
            )
        time.sleep(0.2)
    xen_machine.orders(place.monitor, ("quit", {}))


def _last_words(log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").strip().splitlines()
    except OSError:
        return "(nothing)"
    return " / ".join(lines[-6:]) or "(nothing)"


def main(build: Callable[..., XenImage], program: str, description: str) -> int:
    parser = argparse.ArgumentParser(prog=program, description=description)
    parser.add_argument("--cache", type=Path, help="where images are kept")
    chosen = parser.parse_args()
    try:
        image = build(cache=chosen.cache, report=lambda text: print(text, file=sys.stderr))
    except GuestBuildError as error:
        print(f"vorch: {error}", file=sys.stderr)
        return 1
    print(image.folder)
    return 0


if __name__ == "__main__":
    sys.exit(
        main(build, "python -m vorch.lab.xen_image", "Builds the image of the lab's Xen hosts.")
    )
