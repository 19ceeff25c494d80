"""What vorch knows: frozen, validated values, from a NIC to the whole cluster.

Every value checks itself when it is made, so what exists is sound: a bad name, size or address
raises `Invalid` before anything is touched, whichever door it came through. Nothing here does I/O,
reads a clock or makes up an identifier; those come in as arguments.

Sizes carry their unit in the name. Times are seconds since the epoch (UTC).
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal
from urllib.parse import urlsplit

from vorch.errors import Invalid, NotFound
from vorch.frozen import quick

GIB = 1024**3
MIB = 1024**2

# ---------------------------------------------------------------------------------------------
# Checks. Each says what is wrong with which value and what would be right.

_HOST_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_TARGET = re.compile(r"(vd|sd|hd|xvd)[a-z]{1,2}")
_INTERFACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,14}")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,62}")
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}(:[A-Za-z0-9][A-Za-z0-9._-]{0,62})?")


def check_vm_name(name: str, what: str = "VM name") -> str:
    """A VM's name is also its guest's host name, so it keeps to the rules of one DNS label."""
    if not _HOST_LABEL.fullmatch(name):
        raise Invalid(
            f"cannot use {name!r} as {what}: it must be 1 to 63 of a-z, 0-9 and '-', beginning and"
            " ending with a letter or digit; choose another name",
            name=name,
        )
    return name


def check_name(name: str, what: str = "name") -> str:
    """Names of everything but VMs. No slash and no leading dot: a name is never a path."""
    if not _NAME.fullmatch(name):
        raise Invalid(
            f"cannot use {name!r} as {what}: it must be 1 to 63 of letters, digits, '.', '_' and"
            " '-', beginning with a letter or digit; choose another name",
            name=name,
        )
    return name


def check_text(text: str, what: str, limit: int = 4096) -> str:
    """Free text that goes into XML and onto terminals: no control characters, bounded."""
    bad = [c for c in text if (ord(c) < 32 and c not in "\n\t") or 0x7F <= ord(c) < 0xA0]
    unpaired = any(0xD800 <= ord(c) <= 0xDFFF or ord(c) in (0xFFFE, 0xFFFF) for c in text)
    if bad or unpaired or len(text) > limit:
        raise Invalid(
            f"cannot use that {what}: it must be text of at most {limit} characters without"
            " control characters; shorten or clean it"
        )
    return text


def check_range(value: int, low: int, high: int, what: str, unit: str = "") -> int:
    if type(value) is not int or not low <= value <= high:
        unit = f" {unit}" if unit else ""
        raise Invalid(
            f"cannot use {value!r} as {what}: it must be a whole number from {low} to"
            f" {high}{unit}; choose one in that range"
        )
    return value


def _check_pattern(pattern: re.Pattern[str], value: str, what: str, example: str) -> str:
    if not pattern.fullmatch(value):
        raise Invalid(f"cannot use {value!r} as {what}: it does not look like {example!r}")
    return value


def check_uuid(value: str) -> str:
    return _check_pattern(_UUID, value, "identifier", "6f1c7e0e-5a4f-4a8e-9e55-0f6d9a3b1c2d")


def check_mac(value: str) -> str:
    _check_pattern(_MAC, value, "MAC address", "52:54:00:12:34:56")
    if int(value[:2], 16) & 1:
        raise Invalid(
            f"cannot use {value!r} as MAC address: it is a multicast address; clear the lowest bit"
            " of its first byte (as in 52:54:00:…)"
        )
    return value


def check_interface(value: str, what: str = "bridge name") -> str:
    return _check_pattern(_INTERFACE, value, what, "br0")


def check_ip(value: str, what: str) -> str:
    try:
        return str(ipaddress.ip_address(value))
    except ValueError as exc:
        raise Invalid(f"cannot use {value!r} as {what}: write an address, as in 10.0.0.5") from exc


def check_bmc(url: str) -> str:
    """Where a BMC is and who to be there. Its password never stands in it, nor in any message."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        parts = urlsplit("")
    if parts.password is not None:
        raise Invalid(
            "cannot use that BMC: a password stands in its URL, where everybody sees it; leave it"
            " away there and give it as a file (--bmc-password-file) or in VORCH_BMC_PASSWORD"
        )
    known = parts.scheme in ("redfish+https", "ipmi", "memory")
    if not known or not (parts.hostname and parts.username) or len(url) > 1024:
        raise Invalid(
            f"cannot use {check_text(url, 'BMC', 1024)!r} as BMC: write it as in"
            " redfish+https://USER@10.0.0.5 or ipmi://USER@10.0.0.5"
        )
    return check_text(url, "BMC")


def check_ssh(url: str) -> str:
    """How a host is reached by ssh: root@HOST, or as a URL with a port and files of this machine.

    Files are written as libvirt's URIs have them: ssh://root@HOST:PORT?keyfile=…&known_hosts=….
    """
    try:
        parts = urlsplit(url if "://" in url else f"ssh://{url}")
        _ = parts.port
    except ValueError:
        parts = urlsplit("")
    fine = re.fullmatch(r"[A-Za-z0-9_.][A-Za-z0-9_.-]*", parts.username or "root")
    host = re.fullmatch(r"[A-Za-z0-9_.:][A-Za-z0-9_.:-]*", parts.hostname or "")
    if parts.scheme != "ssh" or not fine or not host or parts.password or parts.path.strip("/"):
        raise Invalid(
            f"cannot use {check_text(url, 'way by ssh', 1024)!r} as a way by ssh: write it as in"
            " root@10.0.0.5 or ssh://root@10.0.0.5:22?keyfile=/etc/vorch/key, without a password"
        )
    return check_text(url, "way by ssh", 1024)


def is_tag(text: str) -> bool:
    return _TAG.fullmatch(text) is not None


def check_tags(tags: tuple[str, ...], whose: str) -> tuple[str, ...]:
    """Words, and domains written as KEY:VALUE. Each once."""
    for tag in tags:
        if not is_tag(tag):
            raise Invalid(
                f"cannot use {tag!r} as a tag of {whose}: it must be a word, or a key and a value,"
                " of letters, digits, '.', '_' and '-', as in gpu or rack:r1"
            )
        if tags.count(tag) > 1:
            raise Invalid(f"cannot use tag {tag!r} twice for {whose}; name it once")
    return tags


# ---------------------------------------------------------------------------------------------
# Disks and volumes


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """Where the bytes of a disk or image are: a name in a pool. Never a path from a user."""

    pool: str
    name: str

    def __post_init__(self) -> None:
        check_name(self.pool, "pool name")
        if len(self.name) > 200 or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.name):
            raise Invalid(
                f"cannot use {self.name!r} as volume name: letters, digits, '.', '_', '-'"
            )

    def __str__(self) -> str:
        return f"{self.pool}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSource:
    """How a host reaches a volume: a file of its own. The format is never guessed."""

    path: str
    format: Literal["qcow2", "raw"]


_RBD_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_MONITOR = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+):([1-9][0-9]{0,4})")


@dataclass(frozen=True, slots=True, kw_only=True)
class RbdSource:
    """How a host reaches a volume: an RBD image, always raw, with all monitors of its cluster.

    `secret` is the identifier of the libvirt secret that holds the user's key: the same on every
    host, since it is derived from the cluster and the user.
    """

    pool: str
    image: str
    namespace: str = ""
    # host:port of each.
    monitors: tuple[str, ...]
    user: str
    secret: str

    def __post_init__(self) -> None:
        for what, part in (("pool", self.pool), ("image", self.image), ("user", self.user)):
            _check_pattern(_RBD_PART, part, f"name of an RBD {what}", "vms")
        if self.namespace:
            _check_pattern(_RBD_PART, self.namespace, "name of an RBD namespace", "team1")
        if not self.monitors:
            raise Invalid(f"cannot use image {self.image!r}: no monitor of its Ceph is known")
        for monitor in self.monitors:
            _check_pattern(_MONITOR, monitor, "address of a Ceph monitor", "10.0.0.1:3300")
        check_uuid(self.secret)

    @property
    def name(self) -> str:
        """As RBD writes it: pool/image, or pool/namespace/image."""
        return "/".join(part for part in (self.pool, self.namespace, self.image) if part)

    @property
    def path(self) -> str:
        """What to call it beside the paths of files."""
        return f"rbd:{self.name}"

    @property
    def format(self) -> Literal["raw"]:
        return "raw"


# What a pool's driver answers when it is asked where a volume is.
Source = FileSource | RbdSource


class DiskBus(StrEnum):
    VIRTIO = "virtio"
    SCSI = "scsi"
    SATA = "sata"
    IDE = "ide"
    XEN = "xen"


TARGET_PREFIX = {
    DiskBus.VIRTIO: "vd",
    DiskBus.SCSI: "sd",
    DiskBus.SATA: "sd",
    DiskBus.IDE: "hd",
    DiskBus.XEN: "xvd",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class IoLimits:
    """How much I/O a disk may do; 0: as much as it can.

    Reads and writes are limited together, or each for itself. A burst is how much more may go
    through for `burst_s` seconds after a quiet time; it raises each limit of its kind that is set.
    """

    iops: int = 0
    read_iops: int = 0
    write_iops: int = 0
    mib_s: int = 0
    read_mib_s: int = 0
    write_mib_s: int = 0
    burst_iops: int = 0
    burst_mib_s: int = 0
    burst_s: int = 0

    def __post_init__(self) -> None:
        for what, together, *each in (
            ("iops", self.iops, self.read_iops, self.write_iops),
            ("mib_s", self.mib_s, self.read_mib_s, self.write_mib_s),
        ):
            unit = "MiB/s" if what == "mib_s" else "operations per second"
            for limit in (together, *each):
                # What QEMU takes at most is 10^15 in its own units.
                check_range(limit, 0, 100_000_000, f"limit {what}", unit)
            if together and any(each):
                raise Invalid(
                    f"cannot limit {what} together and reads or writes for themselves; give one of"
                    " the two"
                )
            burst = self.burst_mib_s if what == "mib_s" else self.burst_iops
            check_range(burst, 0, 100_000_000, f"limit burst_{what}", unit)
            if burst and burst < max(together, *each, 1):
                raise Invalid(
                    f"cannot use {burst} as burst_{what}: it is below the limit of"
                    f" {max(together, *each)} {unit}; a burst is more than that"
                )
            if burst and not (together or any(each)):
                raise Invalid(
                    f"cannot use burst_{what}: nothing limits {what} otherwise; give a limit, too"
                )
        check_range(self.burst_s, 0, 3600, "length of a burst", "s")
        if self.burst_s and not (self.burst_iops or self.burst_mib_s):
            raise Invalid("cannot use burst_s: there is no burst; give burst_iops or burst_mib_s")

    @property
    def none(self) -> bool:
        return self == IoLimits()

    def __str__(self) -> str:
        parts = [
            f"{value} {name}"
            for value, name in (
                (self.iops, "iops"),
                (self.read_iops, "read iops"),
                (self.write_iops, "write iops"),
                (self.mib_s, "MiB/s"),
                (self.read_mib_s, "read MiB/s"),
                (self.write_mib_s, "write MiB/s"),
            )
            if value
        ]
        bursts = [
            f"{value} {name}"
            for value, name in ((self.burst_iops, "iops"), (self.burst_mib_s, "MiB/s"))
            if value
        ]
        if bursts:
            parts.append(f"bursts of {' and '.join(bursts)} for {self.burst_s or 1} s")
        return ", ".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """A disk or CD drive of a VM. `volume` is None for an empty CD drive only."""

    name: str
    target: str
    volume: Volume | None
    size_bytes: int = 0
    bus: DiskBus = DiskBus.VIRTIO
    device: Literal["disk", "cdrom"] = "disk"
    boot: int | None = None
    # The volume belongs to this VM: it is deleted, cloned and snapshotted with it. A CD that came
    # from the ISO store is not owned; a cloud-init seed is.
    owned: bool = True
    read_only: bool = False
    limits: IoLimits = field(default_factory=IoLimits)

    def __post_init__(self) -> None:
        check_name(self.name, "disk name")
        _check_pattern(_TARGET, self.target, "disk target", "vda")
        if self.volume is None and self.device != "cdrom":
            raise Invalid(f"cannot make disk {self.name!r}: only a CD drive can be empty")
        check_range(self.size_bytes, 0, 2**60, f"size of disk {self.name!r}", "bytes")
        if self.boot is not None:
            check_range(self.boot, 1, 99, "boot order")


class NicModel(StrEnum):
    VIRTIO = "virtio"
    E1000E = "e1000e"
    E1000 = "e1000"
    RTL8139 = "rtl8139"


@dataclass(frozen=True, slots=True, kw_only=True)
class Nic:
    name: str
    mac: str
    network: str
    model: NicModel = NicModel.VIRTIO
    boot: int | None = None

    def __post_init__(self) -> None:
        check_name(self.name, "NIC name")
        check_mac(self.mac)
        check_name(self.network, "network name")
        if self.boot is not None:
            check_range(self.boot, 1, 99, "boot order")


# ---------------------------------------------------------------------------------------------
# Virtual machines


class Firmware(StrEnum):
    BIOS = "bios"
    UEFI = "uefi"


class Consistency(StrEnum):
    """What a snapshot is worth: how still the guest was when it was taken."""

    STOPPED = "stopped"
    FROZEN = "frozen"
    CRASH = "crash-consistent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All disks of a VM at one point. `disks` maps the disk's name to its size at that point."""

    name: str
    taken_at: float
    consistency: Consistency
    disks: dict[str, int]
    description: str = ""

    def __post_init__(self) -> None:
        check_name(self.name, "snapshot name")
        check_text(self.description, "description")


# Beside the disks' names, among the places that a host is told of. No disk can have such a name.
KERNEL_SOURCE = "boot:kernel"
INITRD_SOURCE = "boot:initrd"


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectBoot:
    """A kernel started straight by the hypervisor, as installers are. Volumes hold the files."""

    kernel: Volume
    initrd: Volume | None = None
    command_line: str = ""

    def __post_init__(self) -> None:
        check_text(self.command_line, "kernel command line", 2048)


class Watchdog(StrEnum):
    """What a guest's watchdog does when nobody in it feeds it any more."""

    # There is none.
    NONE = "none"
    RESET = "reset"
    # Its power is cut; one that is looked after starts again by that.
    POWEROFF = "poweroff"
    # It stands still, to be looked into.
    PAUSE = "pause"


# Which hypervisors may run a VM. The world in memory counts as KVM.
Hypervisors = Literal["any", "kvm", "xen"]
# What a VM is where Xen runs it: paravirtualised; without an emulated machine, but in what
# processors have for virtualisation; with an emulated machine, as under QEMU.
XenKind = Literal["pv", "pvh", "hvm"]
# How a PV or PVH guest of Xen gets its kernel: the host reads it from the guest's disk, or GRUB is
# started as the guest and reads the disk itself.
XenLoader = Literal["pygrub", "pvgrub"]
HYPERVISORS: tuple[Hypervisors, ...] = ("any", "kvm", "xen")
XEN_KINDS: tuple[XenKind, ...] = ("pv", "pvh", "hvm")
XEN_LOADERS: tuple[XenLoader, ...] = ("pygrub", "pvgrub")
HUGE_PAGES_KIB = {"2M": 2048, "1G": 1024**2}


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Vm:
    """The definition of a VM. What it does right now is a `Domain`, seen on its node."""

    name: str
    id: str
    # Grows with every change of the definition; a running domain carries the generation that it
    # was started from, so "takes effect at the next start" is something one can see.
    generation: int = 1
    node: str
    # The host that it left for that one's maintenance, and goes back to.
    home: str = ""
    wanted: Literal["running", "stopped"] = "stopped"
    vcpus: int = 1
    vcpus_max: int = 8
    memory_mib: int = 1024
    memory_max_mib: int = 1024
    # "default" (what runs everywhere on this kind of host), "host" (all that this host has) or a
    # model that the hypervisor knows by name.
    cpu: str = "default"
    hypervisor: Hypervisors = "kvm"
    xen_kind: XenKind = "pv"
    xen_loader: XenLoader = "pygrub"
    # QEMU's, where KVM runs it.
    machine: str = "q35"
    firmware: Firmware = Firmware.BIOS
    secure_boot: bool = False
    tpm: bool = False
    graphics: bool = True
    agent: bool = True
    watchdog: Watchdog = Watchdog.NONE
    disks: tuple[Disk, ...] = ()
    nics: tuple[Nic, ...] = ()
    direct_boot: DirectBoot | None = None
    snapshots: tuple[Snapshot, ...] = ()
    # What it is called beside its name: people sort VMs by these, and rights hang on them.
    tags: tuple[str, ...] = ()
    # It runs only on hosts that have all of these tags.
    require_tags: tuple[str, ...] = ()
    # Its memory is huge pages of that size; "": ordinary memory.
    huge_pages: Literal["", "2M", "1G"] = ""
    # It goes only to hosts where one NUMA cell has room for all of it, and is kept in that cell.
    one_numa_cell: bool = False
    # The cell of its host that it was put into when it started there or moved there.
    numa_cell: int | None = None
    description: str = ""
    created_at: float = 0.0

    def __post_init__(self) -> None:
        check_vm_name(self.name)
        check_uuid(self.id)
        check_name(self.node, "node name")
        check_range(self.vcpus_max, 1, 512, "largest number of vCPUs")
        check_range(self.vcpus, 1, self.vcpus_max, "number of vCPUs")
        check_range(self.memory_max_mib, 16, 16 * 1024**2, "largest memory", "MiB")
        check_range(self.memory_mib, 16, self.memory_max_mib, "memory", "MiB")
        _check_pattern(_WORD, self.cpu, "CPU model", "qemu64")
        _check_pattern(_WORD, self.machine, "machine type", "q35")
        for what, word, words in (
            ("hypervisor", self.hypervisor, HYPERVISORS),
            ("kind of Xen guest", self.xen_kind, XEN_KINDS),
            ("boot loader of a Xen guest", self.xen_loader, XEN_LOADERS),
        ):
            if word not in words:
                raise Invalid(f"cannot use {word!r} as {what}: it is one of {', '.join(words)}")
        check_text(self.description, "description")
        check_tags(self.tags, f"VM {self.name!r}")
        check_tags(self.require_tags, f"VM {self.name!r}")
        self._check_pages()
        if self.secure_boot and self.firmware is not Firmware.UEFI:
            raise Invalid("cannot use secure boot with BIOS: it is a part of UEFI; ask for UEFI")
        for what, names in (
            ("disk name", [disk.name for disk in self.disks]),
            ("disk target", [disk.target for disk in self.disks]),
            ("NIC name", [nic.name for nic in self.nics]),
            ("MAC address", [nic.mac for nic in self.nics]),
            ("snapshot name", [snapshot.name for snapshot in self.snapshots]),
        ):
            for name in names:
                if names.count(name) > 1:
                    raise Invalid(f"cannot use {what} {name!r} twice in VM {self.name!r}")

    def _check_pages(self) -> None:
        if self.huge_pages not in ("", *HUGE_PAGES_KIB):
            raise Invalid(
                f"cannot use huge pages of {self.huge_pages!r}: there are those of"
                f" {' and '.join(HUGE_PAGES_KIB)}; choose one of them, or none"
            )
        whole_mib = max(1, self.pages_kib // 1024)
        if self.memory_mib % whole_mib or self.memory_max_mib % whole_mib:
            raise Invalid(
                f"cannot give VM {self.name!r} {self.memory_mib} MiB of memory, at most"
                f" {self.memory_max_mib} MiB, in huge pages of {self.huge_pages}: that is no whole"
                f" number of them; choose multiples of {whole_mib} MiB"
            )

    @property
    def pages_kib(self) -> int:
        """Size of the huge pages that its memory is made of; 0: ordinary memory."""
        return HUGE_PAGES_KIB.get(self.huge_pages, 0)

    def disk(self, name: str) -> Disk:
        for disk in self.disks:
            if disk.name == name:
                return disk
        raise NotFound(
            f"cannot find disk {name!r} of VM {self.name!r}: it has"
            f" {', '.join(repr(disk.name) for disk in self.disks) or 'none'}",
            vm=self.name,
            disk=name,
        )

    def nic(self, name: str) -> Nic:
        for nic in self.nics:
            if name in (nic.name, nic.mac):
                return nic
        raise NotFound(
            f"cannot find NIC {name!r} of VM {self.name!r}: it has"
            f" {', '.join(repr(nic.name) for nic in self.nics) or 'none'}",
            vm=self.name,
            nic=name,
        )

    def snapshot(self, name: str) -> Snapshot:
        for snapshot in self.snapshots:
            if snapshot.name == name:
                return snapshot
        raise NotFound(
            f"cannot find snapshot {name!r} of VM {self.name!r}: it has"
            f" {', '.join(repr(one.name) for one in self.snapshots) or 'none'}",
            vm=self.name,
            snapshot=name,
        )

    @property
    def volumes(self) -> tuple[Volume, ...]:
        """What is deleted with the VM."""
        return tuple(disk.volume for disk in self.disks if disk.owned and disk.volume is not None)

    @property
    def data_disks(self) -> tuple[Disk, ...]:
        """The disks that a snapshot or clone is about: not CDs, not what belongs to others."""
        return tuple(d for d in self.disks if d.device == "disk" and d.owned and not d.read_only)

    @property
    def written_disks(self) -> tuple[Disk, ...]:
        """The disks that its host writes to while it runs."""
        return tuple(disk for disk in self.disks if disk.device == "disk" and not disk.read_only)


class Power(StrEnum):
    """What a domain is seen to do."""

    RUNNING = "running"
    PAUSED = "paused"
    STOPPING = "stopping"
    STOPPED = "stopped"
    CRASHED = "crashed"
    UNKNOWN = "unknown"


# Why a domain that runs does not get on.
WAITS_FOR_DISK = "waits for its disk"


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """A VM as its host shows it. One that no host shows is stopped: domains are transient."""

    id: str
    name: str
    node: str
    power: Power
    reason: str = ""
    vcpus: int = 0
    memory_mib: int = 0
    generation: int = 0
    cpu_time_ns: int = 0
    # Made by vorch (it carries vorch's metadata), as opposed to somebody else's on the same host.
    ours: bool = True
    # Which run of it this is, where the host starts a guest anew that reboots; 0 where it goes on,
    # or nobody knows.
    run: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """An address of a guest, and who says so."""

    mac: str
    ip: str
    source: Literal["lease", "agent", "arp", "config"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskFigures:
    name: str
    read_bytes: int = 0
    written_bytes: int = 0
    reads: int = 0
    writes: int = 0
    allocated_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class NicFigures:
    name: str
    received_bytes: int = 0
    sent_bytes: int = 0
    received_packets: int = 0
    sent_packets: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Counters of a running VM at one moment. Rates are the difference of two of them."""

    at: float
    power: Power
    vcpus: int
    cpu_time_ns: int
    memory_mib: int
    # What the guest itself says that it uses; None without a balloon driver in the guest.
    memory_used_mib: int | None = None
    disks: tuple[DiskFigures, ...] = ()
    nics: tuple[NicFigures, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFigures:
    """Counters of a host and of all that runs on it, at one moment."""

    at: float
    cpus: int
    # Time that its processors were busy, all together.
    cpu_time_ns: int
    memory_mib: int
    # What cannot be given to anybody else: caches can.
    memory_used_mib: int
    # By the VM's id.
    vms: dict[str, Figures] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rates:
    """What a VM or host did between two moments: a mean, per second."""

    # Processors in use.
    cpu: float
    memory_mib: float
    disk_read_bytes_s: float = 0.0
    disk_written_bytes_s: float = 0.0
    received_bytes_s: float = 0.0
    sent_bytes_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryPoint:
    # When the stretch of time began that it is a mean of.
    at: float
    rates: Rates


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What a VM or host did of late, oldest first. Where nobody measured there is no point."""

    step_s: float
    points: tuple[HistoryPoint, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveFigures:
    """What a live migration came to. None is what nobody can say any more."""

    memory_bytes: int | None = None
    # All that went over the wire for its memory, what was sent twice included.
    sent_bytes: int | None = None
    # Of its disks that were copied along.
    copied_bytes: int | None = None
    # How fast its memory went, on average.
    bytes_per_s: int | None = None
    # How long the guest really stood still.
    pause_ms: int | None = None
    elapsed_s: float | None = None
    # How much the guest was slowed down in the end, so that its memory could be caught up with.
    slowed_percent: int = 0
    # It went over first, and drew its memory after it.
    postcopy: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class VmStatus:
    """A VM as a person asks for it: the definition and what is seen of it, side by side."""

    vm: Vm
    power: Power
    domain: Domain | None = None
    addresses: tuple[Address, ...] = ()
    # A sentence for each thing that a person should know ("takes effect at the next start").
    notes: tuple[str, ...] = ()
    # Since when its host has not answered, so that `power` is not known.
    silent_since: float | None = None

    @property
    def name(self) -> str:
        return self.vm.name


# ---------------------------------------------------------------------------------------------
# Images, networks, pools, nodes


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageDisk:
    """One disk of an image: a volume that is only read and that linked clones stand on."""

    name: str
    volume: Volume
    size_bytes: int
    bus: DiskBus = DiskBus.VIRTIO
    boot: int | None = 1

    def __post_init__(self) -> None:
        check_name(self.name, "disk name")


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """Where systems come from: an imported disk image, a template made of a VM, or an ISO."""

    name: str
    kind: Literal["disk", "template", "iso"]
    disks: tuple[ImageDisk, ...]
    source: str = ""
    sha256: str = ""
    format: str = ""
    firmware: Firmware = Firmware.BIOS
    # What VMs made of it are when nobody says; "": as the hosts are.
    hypervisor: Literal["", "any", "kvm", "xen"] = ""
    xen_kind: XenKind = "pv"
    xen_loader: XenLoader = "pygrub"
    vcpus: int = 1
    memory_mib: int = 1024
    description: str = ""
    created_at: float = 0.0
    # VMs can be made from it already, but it still takes data from its source.
    arriving: bool = False

    def __post_init__(self) -> None:
        check_name(self.name, "image name")
        check_text(self.description, "description")
        check_text(self.source, "source")
        check_range(self.vcpus, 1, 512, "number of vCPUs")
        check_range(self.memory_mib, 16, 16 * 1024**2, "memory", "MiB")
        if not self.disks:
            raise Invalid(f"cannot make image {self.name!r}: it has no disk")

    @property
    def size_bytes(self) -> int:
        return sum(disk.size_bytes for disk in self.disks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """A file that somebody sends to the service in pieces, to be imported from there."""

    id: str
    name: str
    size_bytes: int
    # So much has come.
    offset_bytes: int = 0
    # What it is to have, and is refused without; "": nobody said.
    sha256: str = ""
    owner: str = ""
    # It goes then, unless more comes before.
    expires_at: float = 0.0

    @property
    def complete(self) -> bool:
        return self.offset_bytes == self.size_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """A port of the host that a VM runs on, which leads to a port of the VM behind its NAT.

    The VM is known by the MAC address of its NIC, and that NIC is given `address` for good.
    """

    mac: str
    address: str
    host_port: int
    guest_port: int
    protocol: Literal["tcp", "udp"] = "tcp"

    def __post_init__(self) -> None:
        check_mac(self.mac)
        check_range(self.host_port, 1, 65535, "port of the host")
        check_range(self.guest_port, 1, 65535, "port of the guest")
        if self.protocol not in ("tcp", "udp"):
            raise Invalid(f"cannot forward {self.protocol!r}: it is 'tcp' or 'udp'")
        try:
            ipaddress.IPv4Address(self.address)
        except ValueError as exc:
            raise Invalid(f"cannot use {self.address!r} as the address of a guest: {exc}") from exc

    def __str__(self) -> str:
        return f"{self.host_port}:{self.guest_port}/{self.protocol}"


NetworkKind = Literal["bridge", "nat", "isolated", "overlay"]
NETWORK_KINDS: tuple[NetworkKind, ...] = ("bridge", "nat", "isolated", "overlay")
# A VXLAN number has 24 bits; the last one is kept for hosts that are on trial.
VNI_MAX = 2**24 - 2
# What VXLAN puts in front of each packet, on IPv4.
VXLAN_BYTES = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A network by name. `bridge`: onto a bridge that exists; the others are made by vorch.

    `nat` and `isolated` are another one on each host; an `overlay` is one for all of them.
    """

    name: str
    kind: NetworkKind
    # For `bridge` the host's bridge; for the others the name of the one that vorch makes.
    bridge: str
    subnet: str | None = None
    dhcp: bool = True
    vlan: int | None = None
    # Hosts whose bridge has another name than `bridge`.
    bridges: dict[str, str] = field(default_factory=dict)
    # Of an overlay: its number on the wire between the hosts, and the longest packet of its guests.
    vni: int | None = None
    mtu: int | None = None
    forwards: tuple[Forward, ...] = ()

    def __post_init__(self) -> None:
        check_name(self.name, "network name")
        check_interface(self.bridge)
        self._check_bridges()
        self._check_overlay()
        self._check_forwards()
        if self.vlan is not None:
            check_range(self.vlan, 1, 4094, "VLAN tag")
            if self.kind != "bridge":
                raise Invalid(
                    f"cannot put network {self.name!r} on VLAN {self.vlan}: a {self.kind} network"
                    " is not on a wire that has VLANs; make it of kind 'bridge'"
                )
        if self.kind == "bridge":
            if self.subnet is not None:
                raise Invalid(
                    f"cannot give network {self.name!r} the subnet {self.subnet}: addresses on an"
                    " existing bridge are not vorch's to give; leave the subnet away"
                )
            return
        if self.kind == "overlay":
            if self.subnet is not None or self.dhcp:
                raise Invalid(
                    f"cannot give addresses on network {self.name!r}: those on an overlay are its"
                    " guests' own; give them static ones (--address), and leave the subnet away"
                )
            return
        if self.subnet is None:
            if self.kind == "nat" or self.dhcp:
                raise Invalid(f"cannot make network {self.name!r}: a subnet is missing")
            return
        try:
            subnet = ipaddress.IPv4Network(self.subnet)
        except ValueError as exc:
            raise Invalid(
                f"cannot use {self.subnet!r} as subnet: {exc}; write it as in 10.80.0.0/24"
            ) from exc
        if not subnet.is_private or subnet.prefixlen > 29 or subnet.prefixlen < 8:
            raise Invalid(
                f"cannot use {self.subnet!r} as subnet: it must be a private range between /8 and"
                " /29; write it as in 10.80.0.0/24"
            )

    def _check_bridges(self) -> None:
        for node, bridge in self.bridges.items():
            check_name(node, "node name")
            check_interface(bridge)
        if self.bridges and self.kind != "bridge":
            raise Invalid(
                f"cannot name bridges of hosts for network {self.name!r}: a {self.kind} network has"
                " a bridge of its own; make it of kind 'bridge'"
            )

    def _check_overlay(self) -> None:
        if (self.kind == "overlay") != (self.vni is not None):
            raise Invalid(
                f"cannot make network {self.name!r}: an overlay, and nothing else, has a VXLAN"
                " number"
            )
        if self.vni is not None:
            check_range(self.vni, 1, VNI_MAX, "VXLAN number")
        if self.mtu is not None:
            check_range(self.mtu, 576, 65535 - VXLAN_BYTES, "longest packet (MTU)", "bytes")
            if self.kind != "overlay":
                raise Invalid(
                    f"cannot set the longest packet (MTU) of network {self.name!r}: it is not an"
                    " overlay; leave it away"
                )

    def _check_forwards(self) -> None:
        if self.forwards and self.kind != "nat":
            raise Invalid(
                f"cannot forward ports to network {self.name!r}: its guests are not behind NAT;"
                " reach them by their own addresses"
            )
        ports = [(one.protocol, one.host_port) for one in self.forwards]
        if len(set(ports)) < len(ports):
            raise Invalid(f"cannot forward one port twice to network {self.name!r}")
        if len(self.reserved) < len({(one.mac, one.address) for one in self.forwards}):
            raise Invalid(f"cannot give one NIC two addresses on network {self.name!r}")
        if len(set(self.reserved.values())) < len(self.reserved):
            raise Invalid(f"cannot give one address to two NICs on network {self.name!r}")

    @property
    def reserved(self) -> dict[str, str]:
        """The NICs that always get the same address, by MAC."""
        return {one.mac: one.address for one in self.forwards}

    def bridge_on(self, node: str) -> str:
        """What its bridge is called on that host."""
        return self.bridges.get(node, self.bridge)


def subnet_layout(subnet: str) -> tuple[str, int, str, str]:
    """(host's address, prefix length, first and last DHCP address) of a NAT or isolated network.

    The lower quarter is kept for addresses that people give out by hand.
    """
    net = ipaddress.IPv4Network(subnet)
    first = max(2, net.num_addresses // 4)
    return (str(net[1]), net.prefixlen, str(net[first]), str(net[net.num_addresses - 2]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """A place for volumes. `url` says which driver: dir:///path, rbd://POOL, memory:."""

    name: str
    url: str
    # The only host that reaches it; "" where every host does.
    node: str = ""

    def __post_init__(self) -> None:
        check_name(self.name, "pool name")
        check_text(self.url, "pool URL", 1024)
        if self.node:
            check_name(self.node, "node name")

    @property
    def shared(self) -> bool:
        """A VM whose disks are here can run on any host, and move while it runs."""
        return not self.node and not self.url.startswith("dir:")


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageClass:
    """A kind of storage by name: new volumes of it go to the pool of it that has the most room."""

    name: str
    pools: tuple[str, ...]
    # What is used when nobody names a pool or a class.
    default: bool = False
    description: str = ""

    def __post_init__(self) -> None:
        check_name(self.name, "class name")
        check_text(self.description, "description")
        for pool in self.pools:
            check_name(pool, "pool name")
        if not self.pools:
            raise Invalid(f"cannot make class {self.name!r}: it has no pool; name one or several")


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What a pool can hold, and what of that is free."""

    capacity_bytes: int
    free_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageHealth:
    """What a storage cluster says of itself."""

    # Its own name, the same for all pools in it.
    cluster: str
    # As Ceph writes it: HEALTH_OK, HEALTH_WARN, HEALTH_ERR.
    status: str
    # Why it is not well, by the code of each reason.
    checks: dict[str, str] = field(default_factory=dict)
    monitors: int = 0
    monitors_in_quorum: int = 0
    osds: int = 0
    osds_up: int = 0
    osds_in: int = 0
    capacity_bytes: int = 0
    free_bytes: int = 0
    # Copies of objects that should be there and are not.
    degraded_objects: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StoragePlace:
    """A line of a storage cluster's tree: a root, a rack, a host, or an OSD."""

    id: int
    name: str
    # root, rack, host, osd …
    type: str
    # How far down it stands; those below it follow.
    depth: int = 0
    # Of an OSD: whether it runs, and whether data is put on it.
    up: bool | None = None
    inside: bool | None = None
    device_class: str = ""
    weight: float = 0.0
    # None: this user may not ask for it, or nobody could say.
    size_bytes: int | None = None
    used_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageStatus:
    """How a storage cluster is, and what it consists of, from the root down."""

    health: StorageHealth
    places: tuple[StoragePlace, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a host did of late, as it was measured last."""

    node: str
    # When the stretch of time began that it is a mean of.
    at: float
    rates: Rates


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskUse:
    """A disk of a VM, and what its volume takes up. None: its pool could not say."""

    disk: Disk
    used_bytes: int | None
    format: str = ""
    # What it stands on, of a linked clone.
    base: str | None = None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolUsage:
    capacity_bytes: int
    free_bytes: int
    used_bytes: int
    provisioned_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cpu:
    """A CPU as libvirt describes it: a model that it knows, and what differs from that."""

    model: str
    vendor: str = ""
    # Whether a feature is there beside the model's own (True), or left out of them (False).
    features: dict[str, bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for word in (self.model, *([self.vendor] if self.vendor else []), *self.features):
            _check_pattern(_WORD, word, "word of a CPU", "Skylake-Client")

    def __str__(self) -> str:
        more, less = len(self.required), len(self.features) - len(self.required)
        parts = [f"{more} more features"] * bool(more) + [f"without {less} of its own"] * bool(less)
        return self.model + (f" ({', '.join(parts)})" if parts else "")

    @property
    def required(self) -> frozenset[str]:
        return frozenset(name for name, there in self.features.items() if there)


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """The CPU that each of these hosts gives, so that a VM that has it can move among them."""

    architecture: str
    cpu: Cpu
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HugePages:
    """Memory of one NUMA cell that is set aside as pages of one size."""

    size_kib: int
    memory_mib: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NumaCell:
    """Processors of a host and the memory next to them, huge pages included."""

    number: int
    cpus: int
    memory_mib: int
    pages: tuple[HugePages, ...] = ()
    # Which processors, as libvirt writes sets of them ("0-3,8"); "": its hypervisor did not say.
    cpu_set: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """What a host is, found by asking it (and, for the accelerator, by booting something)."""

    hypervisor: Literal["kvm", "xen", "memory"]
    cpus: int
    memory_mib: int
    architecture: str = "x86_64"
    # "kvm" when a guest was seen to run under it, else "tcg"; `accelerator_why` says how we know.
    accelerator: str = "tcg"
    accelerator_why: str = ""
    libvirt_version: str = ""
    hypervisor_version: str = ""
    cpu_model: str = ""
    # What the hypervisor can give a guest here at the most, as a model that other hosts know.
    host_cpu: Cpu | None = None
    machines: tuple[str, ...] = ()
    # Kinds of guests, where it runs Xen.
    xen_kinds: tuple[XenKind, ...] = ()
    cpu_models: tuple[str, ...] = ()
    uefi: bool = False
    secure_boot: bool = False
    tpm: bool = False
    # Networks with DHCP and NAT can be made on this host (not in an unprivileged session).
    networks: bool = True
    # Screens listen where only libvirt leads, from afar as well (not in an unprivileged session).
    display_socket: bool = True
    # VLAN tags can be set on ports of plain Linux bridges.
    bridge_vlans: bool = False
    # () where its hypervisor did not say.
    cells: tuple[NumaCell, ...] = ()
    # What this host cannot that others can: verb of the port → why.
    lacks: dict[str, str] = field(default_factory=dict)
    probed_at: float = 0.0

    @property
    def runs(self) -> Literal["kvm", "xen"]:
        """Which of the two it counts as."""
        return "xen" if self.hypervisor == "xen" else "kvm"

    def cell(self, number: int | None) -> NumaCell | None:
        return next((one for one in self.cells if one.number == number), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ability:
    """One thing that hosts are asked to do, and why this one cannot; "": it can."""

    name: str
    why_not: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    name: str
    uri: str
    facts: HostFacts | None = None
    # Memory that is never given to guests.
    reserve_mib: int = 512
    # No VM is started or moved here; what runs goes on.
    cordoned: bool = False
    # Where its Ceph traffic comes from.
    storage_address: str = ""
    # How its power is switched, without the password: redfish+https://USER@BMC or ipmi://USER@BMC.
    bmc: str = ""
    # Words that VMs can ask for ("gpu"), and where it stands ("rack:r1").
    tags: tuple[str, ...] = ()
    # Where it stands by Ceph's CRUSH tree, when that was asked last. Its own tags come first.
    ceph_tags: tuple[str, ...] = ()
    # vCPUs per processor at most. None: as is usual.
    cpu_ratio: float | None = None
    # How a Xen host is reached by ssh, if not as root at the host of its URI.
    ssh: str = ""

    def __post_init__(self) -> None:
        check_name(self.name, "node name")
        check_tags(self.tags, f"host {self.name!r}")
        check_tags(self.ceph_tags, f"host {self.name!r}")
        if self.cpu_ratio is not None and not 0 < self.cpu_ratio <= 1000:
            raise Invalid(
                f"cannot use {self.cpu_ratio!r} as the number of vCPUs per processor: it must be"
                " above 0 and at most 1000, as in 4"
            )
        check_text(self.uri, "libvirt URI", 1024)
        if self.storage_address:
            check_ip(self.storage_address, "storage address")
        if self.bmc:
            check_bmc(self.bmc)
        if self.ssh:
            check_ssh(self.ssh)

    @property
    def ssh_url(self) -> str:
        """The way by ssh, given or as its URI says; without a host in it: it is this machine."""
        if self.ssh:
            return self.ssh if "://" in self.ssh else f"ssh://{self.ssh}"
        parts = urlsplit(self.uri)
        if not parts.scheme.endswith(("+ssh", "+libssh", "+libssh2")):
            # Its port is libvirt's.
            host = parts.hostname or ""
            return f"ssh://root@[{host}]" if ":" in host else f"ssh://root@{host}" if host else ""
        return parts._replace(scheme="ssh", path="").geturl()

    @property
    def offered_tags(self) -> tuple[str, ...]:
        """What Ceph says of it, of keys for which it has no tag of its own."""
        if not self.ceph_tags:
            return ()
        own = {tag.partition(":")[0] for tag in self.tags if ":" in tag}
        return tuple(tag for tag in self.ceph_tags if tag.partition(":")[0] not in own)

    @property
    def all_tags(self) -> tuple[str, ...]:
        """What counts wherever tags are asked for."""
        return (*self.tags, *self.offered_tags)

    @property
    def address(self) -> str:
        """The address or name by which other hosts reach it; "" when none is known."""
        try:
            return urlsplit(self.uri).hostname or ""
        except ValueError:
            return ""

    @property
    def local(self) -> bool:
        """Its URI says nothing to any other host."""
        return self.uri.startswith(("qemu", "xen")) and ":///" in self.uri

    @property
    def peer_uri(self) -> str:
        """How the other hosts reach it: without what is told to this machine's client alone."""
        return self.uri.partition("?")[0]


@dataclass(frozen=True, slots=True)
class CrushBucket:
    """A place in Ceph's CRUSH tree: a rack with hosts, a host with OSDs. OSDs have no bucket."""

    id: int
    name: str
    type: str
    children: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class CrushTree:
    """What Ceph was told of where its disks stand, and the addresses of its OSDs by number."""

    buckets: tuple[CrushBucket, ...] = ()
    addresses: dict[int, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus:
    """A host as a person asks for it: the record and what is seen of it, side by side."""

    node: Node
    # "silent": it does not answer, and nobody knows what runs there.
    state: Literal["online", "cordoned", "silent"]
    # VMs of this cluster that are on there; of others, too, in the memory that is used.
    running: int = 0
    memory_used_mib: int = 0
    # What is left for guests, what is kept back for the host taken off.
    memory_free_mib: int = 0
    # A sentence for each thing that a person should know.
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.node.name

    @property
    def uri(self) -> str:
        return self.node.uri

    @property
    def facts(self) -> HostFacts | None:
        return self.node.facts


@dataclass(frozen=True, slots=True)
class Holder:
    """Who has an image open for writing. The address is what a blocklist entry names."""

    # As Ceph writes it: address:port/nonce, the port being 0 for clients.
    address: str
    # The client's number in Ceph; None when only its lock is left.
    client: int | None
    owns_lock: bool = False

    def __str__(self) -> str:
        name = "" if self.client is None else f"client.{self.client} at "
        return f"{name}{self.address}"


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Clients:
    """Which clients of which host write the disks of a running VM: what a storage fence cuts off.

    A document of its own, by the VM's id: it is of one run of the VM and no part of its definition.
    It was seen when that run began, never guessed later. A disk that is not in it was not seen.
    """

    vm: str
    node: str
    # The client's address by disk; "" where the storage knows no clients (a folder).
    disks: dict[str, str] = field(default_factory=dict)
    # The domain's, where its host counts runs.
    run: int = 0

    def __post_init__(self) -> None:
        check_uuid(self.vm)
        check_name(self.node, "node name")


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """A host that did not answer, to some process: since when, and when it was last waited for."""

    since: float
    waited_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardStatus:
    """A forwarded port as a person asks for it: whose it is, and on which host it is now."""

    vm: str
    node: str
    network: str
    forward: Forward


@dataclass(frozen=True, slots=True, kw_only=True)
class Trashed:
    """What was deleted and can still be had back until `purge_at`: a whole VM, or one disk."""

    key: str
    name: str
    volumes: tuple[Volume, ...]
    vm: Vm | None
    deleted_at: float
    purge_at: float


# ---------------------------------------------------------------------------------------------
# cloud-init


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticAddress:
    address: str
    gateway: str | None = None
    dns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        try:
            interface = ipaddress.ip_interface(self.address)
            if "/" not in self.address:
                raise ValueError("the prefix length is missing")
            if self.gateway is not None:
                gateway = ipaddress.ip_address(self.gateway)
                if gateway not in interface.network:
                    raise ValueError(f"the gateway {self.gateway} is not in {interface.network}")
            for server in self.dns:
                ipaddress.ip_address(server)
        except ValueError as exc:
            raise Invalid(
                f"cannot use {self.address!r} as a static address: {exc}; write an address with its"
                " prefix length, as in 10.80.0.5/24, and a gateway inside that network"
            ) from exc


_USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_HASH = re.compile(r"\$[0-9a-z]+\$[!-9;-~]{8,512}")
_SSH_KEY = re.compile(
    r"(ssh-(rsa|ed25519|dss)|ecdsa-sha2-[a-z0-9-]+|sk-(ssh|ecdsa)-[a-z0-9@.-]+)"
    r" [A-Za-z0-9+/=]{16,16384}( [^\x00-\x1f]*)?"
)
_PACKAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+:~=_-]{0,127}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudInit:
    """What a guest is told at its first boot (NoCloud). Its secrets are hashes and public keys."""

    hostname: str = ""
    user: str = ""
    ssh_keys: tuple[str, ...] = ()
    password_hash: str = field(default="", repr=False)
    # One per NIC, in order; None means DHCP. Fewer than NICs: the rest get DHCP.
    addresses: tuple[StaticAddress | None, ...] = ()
    packages: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    # Goes in beside vorch's own part, unread, as a MIME part of the user-data.
    user_data: str = ""

    def __post_init__(self) -> None:
        if self.hostname:
            check_vm_name(self.hostname, "host name")
        if self.user:
            _check_pattern(_USER, self.user, "user name", "alice")
        if self.password_hash:
            _check_pattern(
                _HASH, self.password_hash, "password hash", "$6$salt$… (openssl passwd -6)"
            )
        for key in self.ssh_keys:
            _check_pattern(_SSH_KEY, key, "SSH public key", "ssh-ed25519 AAAAC3… you@home")
        for package in self.packages:
            _check_pattern(_PACKAGE, package, "package name", "nginx")
        for command in self.commands:
            check_text(command, "command", 8192)
        if (self.ssh_keys or self.password_hash) and not self.user:
            raise Invalid(
                "cannot set an SSH key or password: the user that they are for is missing; name it"
            )
        if len(self.user_data) > 1024 * 1024:
            raise Invalid("cannot use that user-data: it is larger than 1 MiB; shorten it")


# ---------------------------------------------------------------------------------------------
# Tasks


class TaskState(StrEnum):
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    UNDONE = "undone"
    CANCELLED = "cancelled"
    # Past the point where it could be undone and not finished: `recover` goes on with it.
    STUCK = "stuck"


TASK_LOG_LINES = 50


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """The record of one operation: what, who, when, how far, how it ended."""

    id: str
    verb: str
    subject: str
    why: str
    who: str
    started_at: float
    state: TaskState = TaskState.RUNNING
    finished_at: float | None = None
    percent: float = 0.0
    doing: str = ""
    log: tuple[str, ...] = ()
    error: dict[str, object] | None = None
    result: dict[str, object] = field(default_factory=dict)
    # The job that it is a part of; "" if it was asked for past the service.
    job: str = ""

    @property
    def over(self) -> bool:
        return self.state is not TaskState.RUNNING


class JobState(StrEnum):
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One verb that was asked for through the service: what, by whom, and what came of it.

    It is written down before anything begins. Its plans are tasks, none or several of them.
    """

    id: str
    verb: str
    subject: str
    who: str
    started_at: float
    # Without secrets.
    arguments: dict[str, object] = field(default_factory=dict)
    state: JobState = JobState.RUNNING
    finished_at: float | None = None
    # Ids of its tasks, in the order in which they began.
    tasks: tuple[str, ...] = ()
    # What the verb returned, as it is shown.
    result: object = None
    error: dict[str, object] | None = None
    # Which process is at it, and when that was last heard of.
    runner: dict[str, object] = field(default_factory=dict, repr=False)
    beat_at: float = 0.0
    # Of the Idempotency-Key, if it was given one: its document, and what it was used for.
    key: str = field(default="", repr=False)
    fingerprint: str = field(default="", repr=False)

    @property
    def over(self) -> bool:
        return self.state is not JobState.RUNNING


# ---------------------------------------------------------------------------------------------
# The whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One finding of `doctor`: what was looked at, whether it is well, and what to do."""

    name: str
    level: Literal["ok", "warning", "error"]
    detail: str
    remedy: str = ""


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """One look at everything: what the store says and what the hosts show, at one moment.

    Decisions are functions of this value. `domains` is keyed by VM id; `silent` names the nodes
    that did not answer, whose VMs' power is therefore not known.
    """

    vms: dict[str, Vm] = field(default_factory=dict)
    nodes: dict[str, Node] = field(default_factory=dict)
    pools: dict[str, Pool] = field(default_factory=dict)
    images: dict[str, Image] = field(default_factory=dict)
    networks: dict[str, Network] = field(default_factory=dict)
    classes: dict[str, StorageClass] = field(default_factory=dict)
    trash: dict[str, Trashed] = field(default_factory=dict)
    # By the VM's id.
    clients: dict[str, Clients] = field(default_factory=dict)
    # By the architecture.
    baselines: dict[str, Baseline] = field(default_factory=dict)
    domains: dict[str, Domain] = field(default_factory=dict)
    silent: dict[str, str] = field(default_factory=dict)
    # What is noted of hosts that did not answer lately.
    silences: dict[str, Silence] = field(default_factory=dict)
    # Networks that hosts cannot have, as far as they were asked: node → network → why not.
    lacks: dict[str, dict[str, str]] = field(default_factory=dict)
    # Hosts that rules keep VMs off, of the VMs that this was asked for: VM → node → why not. And
    # how little each host is wished for, where rules or settings prefer some.
    barred: dict[str, dict[str, str]] = field(default_factory=dict)
    leaning: dict[str, dict[str, int]] = field(default_factory=dict)
    # Version of each document as it was read ("vm/web" → 17), for the compare-and-set.
    versions: dict[str, int] = field(default_factory=dict)

    def vm(self, name: str) -> Vm:
        if name in self.vms:
            return self.vms[name]
        check_vm_name(name)
        raise NotFound(
            f"cannot find VM {name!r}: there is none of that name; `vorch list` shows all", vm=name
        )

    def image(self, name: str) -> Image:
        if name in self.images:
            return self.images[name]
        check_name(name, "image name")
        raise NotFound(
            f"cannot find image {name!r}: there is none of that name; `vorch image list` shows all",
            image=name,
        )

    def network(self, name: str) -> Network:
        if name in self.networks:
            return self.networks[name]
        check_name(name, "network name")
        raise NotFound(
            f"cannot find network {name!r}: there is none of that name; `vorch network list` shows"
            " all",
            network=name,
        )

    def node(self, name: str) -> Node:
        if name in self.nodes:
            return self.nodes[name]
        check_name(name, "node name")
        raise NotFound(
            f"cannot find node {name!r}: there is none of that name; `vorch node list` shows all",
            node=name,
        )

    def pool(self, name: str) -> Pool:
        if name in self.pools:
            return self.pools[name]
        check_name(name, "pool name")
        raise NotFound(
            f"cannot find pool {name!r}: it has {', '.join(map(repr, self.pools)) or 'none'}",
            pool=name,
        )

    def storage_class(self, name: str) -> StorageClass:
        if name in self.classes:
            return self.classes[name]
        check_name(name, "class name")
        raise NotFound(
            f"cannot find class {name!r}: there is none of that name; `vorch class list` shows all",
            storage_class=name,
        )

    def power(self, vm: Vm) -> Power:
        if vm.id in self.domains:
            return self.domains[vm.id].power
        return Power.UNKNOWN if vm.node in self.silent else Power.STOPPED

    def domain(self, vm: Vm) -> Domain | None:
        return self.domains.get(vm.id)
