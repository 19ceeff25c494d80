"""What installs are started from: the debootstrap-style installer, made here, and Debian's own.

Both are a kernel and an initrd for a direct boot, the same bytes on every hypervisor. They are made
of packages that apt brings from this machine's own archive, once, and lie in vorch's cache.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from vorch import Invalid, Unsupported
from vorch.lab import guest

Say = Callable[[str], None]

# A kernel for virtual machines alone: small, and with the drivers for KVM's devices and for Xen's.
KERNEL = "linux-image-cloud-amd64"
# Packages whose programs and libraries are in the installer's initrd, beside busybox.
PROGRAMS = (
    *("debootstrap", "perl-base", "e2fsprogs", "fdisk", "extlinux", "syslinux-common"),
    *("libc6", "libcrypt1", "libext2fs2", "libcom-err2", "libss2", "libblkid1", "libuuid1"),
    *("libfdisk1", "libsmartcols1", "libreadline8", "libtinfo6"),
)
# What of those packages no installer needs.
LEFT_AWAY = re.compile(
    r"(usr/share/(doc|man|locale|lintian|bash-completion|bug)/|.*/gconv/|usr/lib/syslinux/(?!mbr/mbr\.bin)"
    r"|usr/share/syslinux|usr/lib/EXTLINUX|etc/|.*/perl-base/unicore/|usr/bin/perl\d|.*/libmvec)"
)
# The base of the short set; no more than has to be there for a system that starts and can be
# looked into. None of their scripts is run.
SHORT_BASE = (
    *("base-files", "base-passwd", "busybox-static", "libc6", "libcrypt1", "libgcc-s1"),
    *("gcc-12-base", "zlib1g", "dash", "debianutils", "libselinux1", "libpcre2-8-0", "sed"),
)
# Beside the kernel; minbase has neither an init nor an initrd's tools.
MINBASE_MORE = (
    *(KERNEL, "initramfs-tools", "systemd-sysv", "udev", "kmod", "iproute2", "ifupdown"),
    "openssh-server",
)
SETS = ("short", "minbase")
DI_SUITE = "bookworm"
DI_PACKAGE = "debian-installer-12-netboot-amd64"
DI_FOLDER = "usr/lib/debian-installer/images/12/amd64/text/debian-installer/amd64"
# Of a network boot: as they are named in that folder, and on every mirror.
DI_FILES = ("linux", "initrd.gz")
PARTS = ("kernel", "installer", "partitioning", "base", "packages")


@dataclass(frozen=True, slots=True, kw_only=True)
class Medium:
    """A kernel and an initrd, and the packages that they were made of."""

    kernel: Path
    initrd: Path
    release: str
    # Package → version.
    packages: Mapping[str, str]

    @property
    def digest(self) -> str:
        """Of both files: what is the same installs alike."""
        digest = hashlib.sha256()
        for file in (self.kernel, self.initrd):
            digest.update(file.read_bytes())
        return digest.hexdigest()[:16]


def own_files() -> dict[str, bytes]:
    folder = importlib.resources.files(__package__).joinpath("guest_files")
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


def kernel_package(say: Say) -> tuple[str, str]:
    """The package behind the metapackage, and its version."""
    try:
        return guest.kernel_package(say, KERNEL)
    except guest.GuestBuildError as exc:
        raise Unsupported(str(exc)) from exc


def debootstrap_medium(cache: Path, say: Say) -> Medium:
    """The debootstrap-style installer, out of the cache or made now."""
    kernel, version = kernel_package(say)
    # boot.sh and its like are the lab's: a change there is a change here.
    packages = guest.versions_of(("busybox-static", *PROGRAMS)) | {kernel: version}
    digest = hashlib.sha256(repr(sorted(packages.items())).encode())
    for module in (__file__, guest.__file__):
        digest.update(Path(module).read_bytes())
    for name, content in sorted(own_files().items()):
        digest.update(name.encode() + content)
    release = kernel.removeprefix("linux-image-")
    finished = cache / f"installer-{digest.hexdigest()[:12]}"
    if not finished.exists():
        with _workshop(cache, kernel, say) as work:
            say("making the debootstrap-style installer")
            shelf = work.scratch / "shelf"
            shelf.mkdir()
            work.fetch([kernel, "busybox-static", *PROGRAMS])
            shutil.copy(work.unpacked / "boot" / f"vmlinuz-{release}", shelf / "kernel")
            (shelf / "initrd").write_bytes(_initrd(work).compressed())
            _settle(shelf, finished)
    return Medium(
        kernel=finished / "kernel", initrd=finished / "initrd", release=release, packages=packages
    )


def _workshop(cache: Path, kernel: str, say: Say) -> _Opened:
    return _Opened(cache, kernel, say)


class _Opened:
    """A folder to work in, alone, that goes away with whoever works there."""

    def __init__(self, cache: Path, kernel: str, say: Say) -> None:
        cache.mkdir(parents=True, exist_ok=True)
        self._packages = cache / "packages"
        self._packages.mkdir(exist_ok=True)
        self._lock = guest.locked(cache / "lock", say)
        self._folder = tempfile.TemporaryDirectory(prefix=".build-", dir=cache)
        self._kernel, self._say = kernel, say

    def __enter__(self) -> guest.Workshop:
        self._lock.__enter__()
        return guest.Workshop(Path(self._folder.name), self._packages, self._kernel, self._say)

    def __exit__(self, *raised: object) -> None:
        self._folder.cleanup()
        self._lock.__exit__(None, None, None)


def _settle(shelf: Path, finished: Path) -> None:
    if finished.exists():
        return
    for other in finished.parent.glob(f"{finished.name.rpartition('-')[0]}-*"):
        # Of earlier packages: nothing would ever use it again.
        shutil.rmtree(other, ignore_errors=True)
    shelf.rename(finished)


def _initrd(work: guest.Workshop) -> guest.Archive:
    archive = work.start_archive("tiny-start")
    for name in ("usr/bin", "usr/sbin", "usr/lib", "target"):
        archive.folder(name)
    for path, target in _tree(work.unpacked):
        # All in /usr but for what busybox and the scripts have in /bin and /lib already.
        name = re.sub(r"^(bin|sbin|lib|lib64)/", r"usr/\1/", path)
        archive.folder(name.rpartition("/")[0])
        if target.is_symlink():
            archive.link(name, str(target.readlink()))
        else:
            archive.file(name, target.read_bytes(), 0o755 if os.access(target, os.X_OK) else 0o644)
    # The path of the loader that is written into each program, and its own search path.
    archive.link("lib64", "usr/lib64")
    archive.link("lib/x86_64-linux-gnu", "../usr/lib/x86_64-linux-gnu")
    own = own_files()
    archive.file("init", own["init"], 0o755)
    for name in ("short", "minbase", "finish-short", "finish-minbase", "first", "up", "up.service"):
        archive.file(f"lib/{name}", own[name], 0o755)
    archive.file("usr/sbin/chroot", own["chroot"], 0o755)
    archive.file("lib/net-event", own["net-event"], 0o755)
    archive.file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
    archive.file("etc/group", "root:x:0:\n")
    archive.file("etc/mke2fs.conf", own["mke2fs.conf"])
    return archive


def _tree(root: Path) -> Iterator[tuple[str, Path]]:
    """The programs' files, without the kernel's, busybox, and what only people read."""
    for folder, _, names in os.walk(root):
        for name in sorted(names):
            file = Path(folder, name)
            path = str(file.relative_to(root))
            if path.startswith(("boot/", "lib/modules/", "usr/lib/modules/")) or name == "busybox":
                continue
            if LEFT_AWAY.match(path):
                continue
            yield path, file


def installer_medium(cache: Path, say: Say, own: Path | None = None) -> Medium:
    """The distribution's installer, as its package for network boots has it, or as in `own`."""
    files = () if own is None else _netboot(own)
    packages = guest.versions_of((DI_PACKAGE,)) if own is None else {}
    if own is None and DI_PACKAGE not in packages:
        raise Unsupported(
            f"cannot install by Debian's installer: this machine's apt knows no {DI_PACKAGE!r};"
            " it has to have Debian 12's archive, and its lists (apt-get update), or name a folder"
            " with an installer (--installer)"
        )
    digest = hashlib.sha256(repr([*packages.items(), *sorted(own_files().items())]).encode())
    for file in files:
        digest.update(file)
    finished = cache / f"debian-installer-{digest.hexdigest()[:12]}"
    if not finished.exists():
        kernel = kernel_package(say)[0] if own is None else ""
        with _workshop(cache, kernel, say) as work:
            if own is None:
                say("fetching the distribution's installer")
                work.fetch([DI_PACKAGE])
                files = _netboot(work.unpacked / DI_FOLDER)
            shelf = work.scratch / "shelf"
            shelf.mkdir()
            linux, packed = files
            _linux_release(linux)
            (shelf / "kernel").write_bytes(linux)
            # Linux unpacks several archives, one after the other, each from a multiple of four.
            packed += bytes(-len(packed) % 4) + _hooks().compressed()
            (shelf / "initrd").write_bytes(packed)
            _settle(shelf, finished)
    return Medium(
        kernel=finished / "kernel",
        initrd=finished / "initrd",
        release=_linux_release((finished / "kernel").read_bytes()),
        packages=packages,
    )


def _netboot(folder: Path) -> tuple[bytes, ...]:
    """The files of a network boot that are in that folder."""
    found = []
    for name in DI_FILES:
        try:
            found.append((folder / name).read_bytes())
        except OSError as exc:
            raise Invalid(
                f"cannot read {name!r} of the installer in {str(folder)!r}: {exc.strerror}; name"
                " the folder of a network boot's files, with linux and initrd.gz in it"
            ) from exc
    return tuple(found)


def _linux_release(kernel: bytes) -> str:
    """Of a kernel for x86, where its header says that its version stands."""
    if kernel[0x202:0x206] != b"HdrS":
        raise Invalid(
            "cannot install by that installer: its file 'linux' is no Linux kernel for x86; name"
            " the folder of a network boot's files for amd64"
        )
    at = int.from_bytes(kernel[0x20E:0x210], "little") + 0x200
    return kernel[at : kernel.index(b" ", at)].decode()


def _hooks() -> guest.Archive:
    """What has the distribution's installer say how far it is; no file of its own is changed."""
    archive, own = guest.Archive(), own_files()
    archive.folder("vorch-bench")
    for name in ("di-mark", "di-early", "di-late", "up", "up.service"):
        archive.file(f"vorch-bench/{name}", own[name], 0o755)
    return archive


def debootstrap_answers(mirror: str, suite: str, chosen: str, medium: Medium, more: str) -> str:
    """What the debootstrap-style installer is told, in the place where a preseed file would be."""
    if chosen not in SETS:
        raise Invalid(
            f"cannot install the set {chosen!r}: there is no such set; choose {' or '.join(SETS)}"
        )
    told = {
        "mirror": mirror,
        "suite": suite,
        "set": chosen,
        "kernel": medium.release,
        "packages": more,
    }
    return "".join(f"vorch-bench {name} {value}\n" for name, value in told.items())


def preseed(mirror: str, suite: str, disk: str) -> str:
    """What the distribution's installer is told; it says on the console when a part is done."""
    url = urlsplit(mirror)
    if url.scheme != "http" or not url.hostname:
        raise Invalid(
            f"cannot install from {mirror!r}: Debian's installer is told of an http: mirror here;"
            " give one that begins with http://"
        )
    values = {
        "HOST": url.netloc,
        "DIRECTORY": url.path or "/",
        "SUITE": suite,
        "DISK": disk,
        "KERNEL": KERNEL,
    }
    text = own_files()["preseed.cfg"].decode()
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    return text
