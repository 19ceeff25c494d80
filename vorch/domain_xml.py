"""Vm ⇄ libvirt domain XML: what a VM looks like to libvirt, and back. Pure; knows no libvirt.

Every attribute has one place here where it is written, and `read_domain` is the one place where it
is read back. Elements are built with lxml, so names, paths and descriptions need no escaping.

vorch's own mark stands in `<metadata>`, in a namespace of its own: by it a host's domain can be
recognised as vorch's, with the generation of the definition that it was started from. Devices carry
user aliases (`ua-disk-root`, `ua-nic-lan`), by which they are found again in a running domain.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

from lxml import etree

from vorch.errors import Invalid, NotFound, Unsupported
from vorch.model import (
    INITRD_SOURCE,
    KERNEL_SOURCE,
    MIB,
    Cpu,
    Disk,
    DiskBus,
    FileSource,
    Firmware,
    HostFacts,
    IoLimits,
    Network,
    Nic,
    NicModel,
    NumaCell,
    RbdSource,
    Source,
    Vm,
    Volume,
    Watchdog,
    subnet_layout,
)

# lxml carries no types; this is what its functions return.
Element: TypeAlias = Any

NAMESPACE = "urn:vorch:domain:1"
NETWORK_NAMESPACE = "urn:vorch:network:1"
PREFIX = "vorch"
# The port that IANA gave to VXLAN.
VXLAN_PORT = 4789
# What the names of port groups that are meant for vorch's hook begin with.
MARK = "vorch/"

# Free slots for devices that are plugged in later; without them q35 can take none at all. What they
# cost at boot could not be measured.
SPARE_PCIE_PORTS = 8
# The only one that Linux and Windows find on every machine type, wherever it is plugged in.
WATCHDOG_MODEL = "i6300esb"
BALLOON_STATS_PERIOD_S = 5
DISPLAY_CHANNEL = "org.vorch.display"
# One folder in two spellings: libvirt turns screens whose socket's path begins with the name of its
# own folder into ports, as very old ones wrote such paths by themselves.
_CHANNEL_FOLDER = "/var/lib/libvirt/qemu"
_DISPLAY_FOLDER = "/var/lib/libvirt/./qemu"
# virtio-blk and ATA cut serial numbers here.
SERIAL_LIMIT = 20
# Of a machine on trial: what a BIOS starts in.
PROBE_MEMORY_MIB = 32

_DISK_ALIAS = "ua-disk-"
_NIC_ALIAS = "ua-nic-"
_UNITS = {
    "b": 1,
    "bytes": 1,
    "KB": 1000,
    "k": 1024,
    "KiB": 1024,
    "MB": 1000**2,
    "M": 1024**2,
    "MiB": 1024**2,
    "GB": 1000**3,
    "G": 1024**3,
    "GiB": 1024**3,
    "TiB": 1024**4,
}


def add(parent: Element, tag: str, text: str | None = None, **attributes: object) -> Element:
    """A new child. Attributes that are None are left away."""
    child = etree.SubElement(parent, tag)
    _fill(child, text, attributes)
    return child


def new(tag: str, **attributes: object) -> Element:
    element = etree.Element(tag)
    _fill(element, None, attributes)
    return element


def _fill(element: Element, text: str | None, attributes: Mapping[str, object]) -> None:
    try:
        if text is not None:
            element.text = text
        for key, value in attributes.items():
            if value is not None:
                element.set(key, str(value))
    except ValueError as exc:
        raise Invalid(
            f"cannot describe <{element.tag}> to libvirt: a name or path in it has characters that"
            " XML cannot carry (control characters); rename it"
        ) from exc


def bare(vm: Vm) -> Vm:
    """The VM without its devices: enough for libvirt to find what it keeps of it."""
    return replace(vm, disks=(), nics=(), direct_boot=None, numa_cell=None)


def to_text(element: Element) -> str:
    return str(etree.tostring(element, pretty_print=True, encoding="unicode"))


def parse(xml: str) -> Element:
    """XML from libvirt as an element. No entities, no network: it is another program's text."""
    parser = etree.XMLParser(resolve_entities=False, no_network=True, remove_blank_text=True)
    try:
        return etree.fromstring(xml.encode(), parser)
    except etree.XMLSyntaxError as exc:
        raise Invalid(f"cannot read a domain's XML: {exc}; it is not libvirt's") from exc


# ---------------------------------------------------------------------------------------------
# Aliases: a name may hold dots, an alias may not.


def _escape(name: str) -> str:
    return name.replace("_", "__").replace(".", "_d")


def _unescape(alias: str) -> str:
    parts = alias.split("__")
    return "_".join(part.replace("_d", ".") for part in parts)


def disk_alias(name: str) -> str:
    return _DISK_ALIAS + _escape(name)


def nic_alias(name: str) -> str:
    return _NIC_ALIAS + _escape(name)


def _name_of(alias: str, prefix: str) -> str:
    return _unescape(alias.removeprefix(prefix)) if alias.startswith(prefix) else ""


# ---------------------------------------------------------------------------------------------
# Decisions about a VM's hardware that more than one element depends on


def is_q35(machine: str) -> bool:
    return "q35" in machine


def accelerated(facts: HostFacts) -> bool:
    return facts.accelerator == "kvm"


def disk_bus(disk: Disk, machine: str) -> DiskBus:
    """The bus that a disk is really on: CD drives are on what every installer can boot from."""
    if disk.device == "cdrom" and disk.bus not in (DiskBus.SATA, DiskBus.IDE, DiskBus.SCSI):
        return DiskBus.SATA if is_q35(machine) else DiskBus.IDE
    if disk.bus is DiskBus.IDE and is_q35(machine):
        # q35 has no IDE controller; its SATA controller speaks to the same drivers.
        return DiskBus.SATA
    return disk.bus


def disk_serial(disk: Disk) -> str:
    """A serial number that stays: /dev/disk/by-id/virtio-<serial> in the guest."""
    if len(disk.name) <= SERIAL_LIMIT:
        return disk.name
    # Longer names are cut, so the rest of the name goes in as a few digits of its hash.
    return f"{disk.name[:11]}-{hashlib.sha256(disk.name.encode()).hexdigest()[:8]}"


def network_name(network: Network) -> str:
    """What libvirt calls a network that vorch makes.

    The bridge's name is in it, since several clusters may have a network of one name on one host.
    """
    return f"vorch-{network.name}@{network.bridge}"


def pcie_ports(vm: Vm) -> int:
    """How many root ports a q35 machine gets: one for each device on PCI Express, and spare."""
    buses = [disk_bus(disk, vm.machine) for disk in vm.disks]
    express = [nic for nic in vm.nics if nic.model in (NicModel.VIRTIO, NicModel.E1000E)]
    used = 2  # balloon and random numbers
    used += buses.count(DiskBus.VIRTIO) + (DiskBus.SCSI in buses)
    # The others, and the watchdog, share one PCI bridge.
    old = len(express) < len(vm.nics) or vm.watchdog is not Watchdog.NONE
    used += len(express) + old
    used += (vm.agent or vm.graphics) + vm.graphics  # virtio-serial, USB
    return used + SPARE_PCIE_PORTS


def fill_cpu(element: Element, cpu: Cpu) -> None:
    """A model, and what differs from it."""
    add(element, "model", cpu.model, fallback="forbid")
    if cpu.vendor:
        add(element, "vendor", cpu.vendor)
    for name, there in cpu.features.items():
        add(element, "feature", policy="require" if there else "disable", name=name)


def _cpu(domain: Element, vm: Vm, facts: HostFacts, common: Cpu | None) -> None:
    """The CPU that the guest sees. "default" is decided here and nowhere else.

    Under KVM it is what all hosts of the cluster have in `common`, or, where nobody has found that
    out, the nearest model to the host's own CPU. Without KVM it is everything that the emulator can
    do, since systems of today do not start on the plain qemu64 (no SSE 4.2, no POPCNT) any more;
    five-level paging is left out, as it only makes every emulated page walk longer.
    """
    kvm = accelerated(facts)
    if vm.cpu == "default" and kvm and common is not None:
        # A feature that is missing must stop the start, not turn up in a move.
        cpu = add(domain, "cpu", mode="custom", match="exact", check="partial")
        fill_cpu(cpu, common)
    elif vm.cpu == "default" and kvm:
        cpu = add(domain, "cpu", mode="host-model")
    elif vm.cpu == "default":
        cpu = add(domain, "cpu", mode="maximum")
    elif vm.cpu == "host":
        cpu = add(domain, "cpu", mode="host-passthrough" if kvm else "maximum")
    else:
        # The emulator lacks features of nearly every named model and warns about them; with KVM
        # a missing one must stop the start instead.
        check = "partial" if kvm else "none"
        cpu = add(domain, "cpu", mode="custom", match="exact", check=check)
        add(cpu, "model", vm.cpu, fallback="forbid")
    # Cores, not sockets: desktop editions of Windows use no more than two of those.
    add(cpu, "topology", sockets=1, cores=vm.vcpus_max, threads=1)
    if vm.cpu == "default" and not kvm:
        add(cpu, "feature", policy="disable", name="la57")


# ---------------------------------------------------------------------------------------------
# Devices


def _disk_type(source: Source | None) -> str:
    return "network" if isinstance(source, RbdSource) else "file"


def _source(source: Source) -> Element:
    """Where libvirt finds the bytes. Of an RBD image, through any monitor that is alive."""
    if isinstance(source, FileSource):
        return new("source", file=source.path)
    if source.namespace:
        # QEMU can; libvirt takes the namespace for a part of the image's name.
        raise Unsupported(
            f"cannot plug in RBD image {source.name!r}: libvirt opens no images in a namespace;"
            " keep VMs' disks in a pool without one",
            image=source.name,
        )
    element = new("source", protocol="rbd", name=source.name)
    for monitor in source.monitors:
        host, _, port = monitor.rpartition(":")
        # libvirt puts the brackets round an IPv6 address itself.
        add(element, "host", name=host.strip("[]"), port=port)
    # Inside <source>, so that it goes with the CD when that is changed.
    auth = add(element, "auth", username=source.user)
    add(auth, "secret", type="ceph", uuid=source.secret)
    return element


def _disk(vm: Vm, disk: Disk, source: Source | None, cached: bool) -> Element:
    element = new("disk", type=_disk_type(source), device=disk.device)
    cdrom = disk.device == "cdrom"
    if source is None and not cdrom:
        raise Invalid(
            f"cannot plug in disk {disk.name!r} of VM {vm.name!r}: nobody said where it is; look"
            " at its pool",
            vm=vm.name,
            disk=disk.name,
        )
    driver = add(element, "driver", name="qemu", type=source.format if source else "raw")
    if not cdrom:
        # CDs keep the host's cache (many VMs read the same one) and report their scratches;
        # disks bypass it, and stop the guest on an error instead of damaging its file systems.
        # librbd's own cache as well: it loses errors, docs/adr/0029.
        driver.set("cache", "writeback" if cached else "none")
        if not isinstance(source, RbdSource):
            driver.set("io", "threads")
        driver.set("discard", "unmap")
        driver.set("error_policy", "stop")
    if source is not None:
        element.append(_source(source))
    add(element, "target", dev=disk.target, bus=disk_bus(disk, vm.machine).value)
    if not disk.limits.none:
        _limits(element, disk.limits)
    if cdrom or disk.read_only:
        add(element, "readonly")
    add(element, "serial", disk_serial(disk))
    if disk.boot is not None:
        add(element, "boot", order=disk.boot)
    add(element, "alias", name=disk_alias(disk.name))
    return element


def limit_values(limits: IoLimits) -> dict[str, int]:
    """The limits as libvirt calls them, all of them; 0 is none."""
    values: dict[str, int] = {}
    for kind, unit, together, read, write, burst in (
        ("bytes", MIB, limits.mib_s, limits.read_mib_s, limits.write_mib_s, limits.burst_mib_s),
        ("iops", 1, limits.iops, limits.read_iops, limits.write_iops, limits.burst_iops),
    ):
        each = {"total": together, "read": read, "write": write}
        for way, limit in each.items():
            values[f"{way}_{kind}_sec"] = limit * unit
        for way, limit in each.items():
            # libvirt knows a length for a burst that is there only.
            values[f"{way}_{kind}_sec_max"] = burst * unit if limit else 0
        for way, limit in each.items():
            length = limits.burst_s or 1
            values[f"{way}_{kind}_sec_max_length"] = length if limit and burst else 0
    return values


def _limits(element: Element, limits: IoLimits) -> None:
    tune = add(element, "iotune")
    for name, value in limit_values(limits).items():
        if value:
            add(tune, name, str(value))


def _nic(vm: Vm, nic: Nic, network: Network, facts: HostFacts) -> Element:
    if network.kind == "bridge":
        element = new("interface", type="bridge")
        add(element, "mac", address=nic.mac)
        add(element, "source", bridge=network.bridge_on(vm.node))
    elif facts.networks:
        element = new("interface", type="network")
        add(element, "mac", address=nic.mac)
        add(element, "source", network=network_name(network))
    elif network.kind == "nat":
        element = new("interface", type="user")
        add(element, "mac", address=nic.mac)
    else:
        raise Unsupported(
            f"cannot put NIC {nic.name!r} of VM {vm.name!r} on network {network.name!r}: without"
            " root's rights this host offers NAT only; use a 'nat' network or qemu:///system",
            vm=vm.name,
            network=network.name,
        )
    if network.vlan is not None:
        if not facts.bridge_vlans:
            raise Unsupported(
                f"cannot put NIC {nic.name!r} of VM {vm.name!r} on VLAN {network.vlan}: libvirt"
                f" {facts.libvirt_version or 'there'} sets no tags on Linux bridges (11.0 does);"
                " make a bridge on the tagged interface and a network on that",
                vm=vm.name,
                network=network.name,
            )
        add(add(element, "vlan"), "tag", id=network.vlan)
    add(element, "model", type=nic.model.value)
    if network.mtu is not None:
        # A guest with a virtio NIC is told of it, and keeps to it by itself.
        add(element, "mtu", size=network.mtu)
    if nic.boot is not None:
        add(element, "boot", order=nic.boot)
    add(element, "alias", name=nic_alias(nic.name))
    return element


def _display_channel(devices: Element, vm: Vm) -> None:
    """A way for libvirt's streams to the screen's socket, from wherever one asks (ADR 0024).

    Of two that listen at one path the later one has it. libvirt makes this channel's socket before
    QEMU begins, QEMU that of its VNC server after that; so whoever opens the channel comes to the
    screen, and the guest's end of it is never connected to anything.
    """
    channel = add(devices, "channel", type="unix")
    add(channel, "source", mode="bind", path=f"{_CHANNEL_FOLDER}/vorch-{vm.id}.vnc")
    add(channel, "target", type="virtio", name=DISPLAY_CHANNEL)


def _screen(devices: Element, vm: Vm, facts: HostFacts) -> None:
    if not vm.graphics:
        add(devices, "controller", type="usb", model="none")
        add(add(devices, "video"), "model", type="none")
        return
    # A tablet keeps the pointers of viewer and guest together; it needs USB.
    add(devices, "controller", type="usb", model="qemu-xhci", ports=15)
    add(devices, "input", type="tablet", bus="usb")
    graphics = add(devices, "graphics", type="vnc")
    if facts.display_socket:
        add(graphics, "listen", type="socket", socket=f"{_DISPLAY_FOLDER}/vorch-{vm.id}.vnc")
    else:
        add(graphics, "listen", type="none")
    # Plain VGA is what every installer, however old, brings a picture up on.
    add(add(devices, "video"), "model", type="vga", vram=16384)


def _scsi_controller() -> Element:
    return new("controller", type="scsi", index=0, model="virtio-scsi")


def _devices(
    domain: Element,
    vm: Vm,
    sources: Mapping[str, Source],
    networks: Mapping[str, Network],
    facts: HostFacts,
    cached: Collection[str],
) -> None:
    devices = add(domain, "devices")
    for disk in vm.disks:
        devices.append(_disk(vm, disk, sources.get(disk.name), disk.name in cached))
    if is_q35(vm.machine):
        add(devices, "controller", type="pci", index=0, model="pcie-root")
        for index in range(1, pcie_ports(vm) + 1):
            add(devices, "controller", type="pci", index=index, model="pcie-root-port")
    if any(disk_bus(disk, vm.machine) is DiskBus.SCSI for disk in vm.disks):
        devices.append(_scsi_controller())
    for nic in vm.nics:
        if nic.network not in networks:
            raise Invalid(
                f"cannot plug in NIC {nic.name!r} of VM {vm.name!r}: nobody said what network"
                f" {nic.network!r} is; `vorch network list` shows all",
                vm=vm.name,
                network=nic.network,
            )
        devices.append(_nic(vm, nic, networks[nic.network], facts))
    serial = add(devices, "serial", type="pty")
    add(serial, "target", type="isa-serial", port=0)
    console = add(devices, "console", type="pty")
    add(console, "target", type="serial", port=0)
    if vm.agent:
        channel = add(devices, "channel", type="unix")
        add(channel, "target", type="virtio", name="org.qemu.guest_agent.0")
    if vm.graphics and facts.display_socket:
        _display_channel(devices, vm)
    _screen(devices, vm, facts)
    if vm.watchdog is not Watchdog.NONE:
        add(devices, "watchdog", model=WATCHDOG_MODEL, action=vm.watchdog.value)
    balloon = add(devices, "memballoon", model="virtio", freePageReporting="on")
    add(balloon, "stats", period=BALLOON_STATS_PERIOD_S)
    add(add(devices, "rng", model="virtio"), "backend", "/dev/urandom", model="random")
    if vm.tpm:
        tpm = add(devices, "tpm", model="tpm-crb")
        # Without this libvirt throws the TPM's secrets away when a transient domain ends.
        add(tpm, "backend", type="emulator", version="2.0", persistent_state="yes")


# ---------------------------------------------------------------------------------------------
# The whole


def _operating_system(
    domain: Element, vm: Vm, sources: Mapping[str, Source], facts: HostFacts, nvram: str
) -> None:
    system = add(domain, "os")
    if vm.firmware is Firmware.UEFI:
        system.set("firmware", "efi")
    add(system, "type", "hvm", arch=facts.architecture, machine=vm.machine)
    if vm.firmware is Firmware.UEFI:
        firmware = add(system, "firmware")
        secure = "yes" if vm.secure_boot else "no"
        add(firmware, "feature", enabled=secure, name="enrolled-keys")
        add(firmware, "feature", enabled=secure, name="secure-boot")
        if nvram:
            add(system, "nvram", nvram)
    if vm.direct_boot is not None:
        parts = [("kernel", KERNEL_SOURCE)]
        if vm.direct_boot.initrd is not None:
            parts.append(("initrd", INITRD_SOURCE))
        for tag, key in parts:
            if key not in sources:
                raise Invalid(
                    f"cannot start VM {vm.name!r} by its {tag}: nobody said where it is; look at"
                    " its pool",
                    vm=vm.name,
                )
            source = sources[key]
            if not isinstance(source, FileSource):
                raise Unsupported(
                    f"cannot start VM {vm.name!r} by its {tag}: QEMU reads that from a file of the"
                    f" host, and {source.name!r} is an RBD image; keep it in a pool of files",
                    vm=vm.name,
                )
            add(system, tag, source.path)
        if vm.direct_boot.command_line:
            add(system, "cmdline", vm.direct_boot.command_line)


def add_mark(domain: Element, vm: Vm) -> Element:
    metadata = add(domain, "metadata")
    mark = etree.SubElement(metadata, f"{{{NAMESPACE}}}vm", nsmap={PREFIX: NAMESPACE})
    _fill(mark, None, {"name": vm.name, "node": vm.node, "generation": vm.generation})
    return mark


def domain_xml(
    vm: Vm,
    *,
    name: str,
    sources: Mapping[str, Source],
    networks: Mapping[str, Network],
    facts: HostFacts,
    cached: Collection[str] = (),
    nvram: str = "",
    cpu: Cpu | None = None,
) -> str:
    """The XML that starts this VM on a host like that.

    `name` is what libvirt is to call it. `cached` names the disks whose file system cannot bypass
    the host's cache. `nvram` is the host's file for the variables of UEFI ("": libvirt's choice).
    """
    domain = new("domain", type="kvm" if accelerated(facts) else "qemu")
    add(domain, "name", name)
    add(domain, "uuid", vm.id)
    if vm.description:
        add(domain, "description", vm.description)
    add_mark(domain, vm)
    add(domain, "memory", str(vm.memory_max_mib), unit="MiB")
    add(domain, "currentMemory", str(vm.memory_mib), unit="MiB")
    if vm.huge_pages:
        backing = add(domain, "memoryBacking")
        add(add(backing, "hugepages"), "page", size=str(vm.pages_kib), unit="KiB")
        # Straight from the kernel: no file system of pages has to be mounted on the host for it.
        add(backing, "source", type="memfd")
    add(domain, "vcpu", str(vm.vcpus_max), placement="static", current=vm.vcpus)
    _keep_in(domain, facts.cell(vm.numa_cell))
    _operating_system(domain, vm, sources, facts, nvram)
    features = add(domain, "features")
    add(features, "acpi")
    add(features, "apic")
    if vm.secure_boot:
        add(features, "smm", state="on")
    _cpu(domain, vm, facts, cpu)
    clock = add(domain, "clock", offset="utc")
    add(clock, "timer", name="rtc", tickpolicy="catchup")
    add(clock, "timer", name="pit", tickpolicy="delay")
    add(clock, "timer", name="hpet", present="no")
    add(domain, "on_poweroff", "destroy")
    # An installer that reboots has done its work; the VM goes on without kernel and initrd.
    add(domain, "on_reboot", "destroy" if vm.direct_boot is not None else "restart")
    # A crashed domain that was kept would hold its disks open; whether to start it again is
    # decided where all hosts are in view.
    add(domain, "on_crash", "destroy")
    power = add(domain, "pm")
    add(power, "suspend-to-mem", enabled="no")
    add(power, "suspend-to-disk", enabled="no")
    _devices(domain, vm, sources, networks, facts, cached)
    return to_text(domain)


def _keep_in(domain: Element, cell: NumaCell | None) -> None:
    """Run it on the processors of that cell, with memory from there; None: wherever there is room.

    Memory is preferred from there: guests that ask for no cell may have taken some of it, and a
    strict rule would have the kernel kill this one, rather than give it a page from elsewhere.
    """
    for old in domain.findall("numatune"):
        domain.remove(old)
    vcpu = domain.find("vcpu")
    if vcpu is None:
        raise Invalid("cannot read a domain's XML: it has no <vcpu>; it is no domain of vorch's")
    vcpu.attrib.pop("cpuset", None)
    if cell is None:
        return
    if cell.cpu_set:
        vcpu.set("cpuset", cell.cpu_set)
    tune = new("numatune")
    add(tune, "memory", mode="preferred", nodeset=cell.number)
    vcpu.addnext(tune)


def probe_vm(name: str, identifier: str, cpu: str = "default") -> Vm:
    """The smallest machine that shows what a host can do: for `probe_xml`."""
    disk = Disk(name="trial", target="vda", volume=Volume(pool="trial", name="trial"), boot=1)
    return Vm(
        name=name,
        id=identifier,
        node="trial",
        cpu=cpu,
        vcpus_max=1,
        memory_mib=PROBE_MEMORY_MIB,
        memory_max_mib=PROBE_MEMORY_MIB,
        graphics=False,
        agent=False,
        disks=(disk,),
    )


def probe_xml(vm: Vm, *, name: str, source: Source, facts: HostFacts) -> str:
    """A VM on trial: without vorch's mark, and gone as soon as it resets or crashes."""
    text = domain_xml(vm, name=name, sources={vm.disks[0].name: source}, networks={}, facts=facts)
    domain = parse(text)
    domain.remove(domain.find("metadata"))
    domain.find("on_reboot").text = "destroy"
    return to_text(domain)


def moved_xml(
    text: str,
    node: str,
    *,
    vm: Vm | None = None,
    sources: Mapping[str, Source] | None = None,
    cached: frozenset[str] = frozenset(),
    bridges: Mapping[str, str] = {},
    cell: NumaCell | None = None,
) -> str:
    """A running VM's definition, as libvirt shows it, for the host that it moves to.

    `sources`: by name, disks of the VM that are somewhere else there. All that the guest sees of
    them stays as it is. `bridges`: by NIC, the bridge there, where it has another name. `cell`: the
    NUMA cell there that it is put into.
    """
    domain = parse(text)
    if cell is not None or (vm is not None and vm.numa_cell is not None):
        _keep_in(domain, cell)
    for name, source in (sources or {}).items():
        drive = find_disk(domain, name)
        if drive is None or vm is None:
            raise NotFound(
                f"cannot move disk {name!r}: the running VM has none of that name; it comes with"
                " the next start",
                disk=name,
            )
        made = _disk(vm, vm.disk(name), source, name in cached)
        for tag in ("driver", "auth", "source", "backingStore", "mirror"):
            for old in drive.findall(tag):
                drive.remove(old)
        drive.set("type", _disk_type(source))
        for number, tag in enumerate(("driver", "source")):
            drive.insert(number, made.find(tag))
    for driver in domain.iterfind("devices/disk[@device='disk']/source[@protocol='rbd']/../driver"):
        # Of one that was started by an earlier vorch.
        driver.set("cache", "none")
    for name, bridge in bridges.items():
        nic = find_nic(domain, name)
        wire = None if nic is None or nic.get("type") != "bridge" else nic.find("source")
        if wire is not None:
            wire.set("bridge", bridge)
    mark = domain.find(f"metadata/{{{NAMESPACE}}}vm")
    if mark is not None:
        mark.set("node", node)
    return to_text(domain)


def disk_xml(vm: Vm, disk: Disk, source: Source | None, *, cached: bool = False) -> str:
    """One disk, to plug into a running VM."""
    return to_text(_disk(vm, disk, source, cached))


def nic_xml(vm: Vm, nic: Nic, network: Network, facts: HostFacts) -> str:
    """One NIC, to plug into a running VM."""
    return to_text(_nic(vm, nic, network, facts))


def scsi_controller_xml() -> str:
    """What a running VM needs before its first SCSI disk."""
    return to_text(_scsi_controller())


def media_xml(drive: Element, source: Source | None) -> str:
    """A running VM's CD drive, as libvirt shows it, with another CD or none in it."""
    for tag in ("source", "backingStore", "auth"):
        for old in drive.findall(tag):
            drive.remove(old)
    drive.set("type", _disk_type(source))
    if source is not None:
        drive.find("driver").set("type", source.format)
        target = drive.find("target")
        target.addprevious(_source(source))
    return to_text(drive)


def network_marks(network: Network, node: str, hosts: Mapping[str, str]) -> tuple[str, ...]:
    """What vorch's hook on a host is told of a network, and may be told anew while it is in use.

    These are names of port groups, since those are what libvirt lets one add to a network that
    runs (docs/adr/0015).
    """
    marks = []
    if network.kind == "overlay":
        marks.append(f"{MARK}local/{hosts.get(node, '')}")
        others = sorted({hosts[name] for name in hosts if name != node and hosts[name]})
        marks += [f"{MARK}peer/{address}" for address in others]
    for one in network.forwards:
        words = (one.protocol, one.host_port, one.mac, one.address, one.guest_port)
        marks.append(f"{MARK}forward/{'/'.join(map(str, words))}")
    return tuple(marks)


def mark_xml(mark: str) -> str:
    return to_text(new("portgroup", name=mark))


def reservation_xml(mac: str, address: str) -> str:
    """An address that DHCP keeps for a NIC."""
    return to_text(new("host", mac=mac, ip=address))


def _network_metadata(element: Element, network: Network, **more: str) -> None:
    name = f"{{{NETWORK_NAMESPACE}}}network"
    mark = etree.SubElement(add(element, "metadata"), name, nsmap={PREFIX: NETWORK_NAMESPACE})
    if network.kind == "overlay":
        _fill(mark, None, {"vni": network.vni, "port": VXLAN_PORT, "mtu": network.mtu})
    _fill(mark, None, more)


def network_trial_xml(network: Network, node: str, hosts: Mapping[str, str], token: str) -> str:
    """A network that never begins: a host's hook says in its stead what is in the way.

    Where there is no hook it does begin, and consists of nothing.
    """
    element = new("network")
    add(element, "name", f"vorch-trial@{token}")
    _network_metadata(element, network, trial=network.bridge)
    add(element, "forward", mode="bridge")
    add(element, "bridge", name=network.bridge)
    for mark in network_marks(network, node, hosts):
        add(element, "portgroup", name=mark)
    return to_text(element)


def network_xml(network: Network, node: str = "", hosts: Mapping[str, str] = {}) -> str:
    """The libvirt network behind a network that vorch makes, on that host."""
    if network.kind == "bridge":
        raise Invalid(
            f"cannot make network {network.name!r}: it is an existing bridge, which is used as it"
            " is; make it of kind 'nat' or 'isolated'"
        )
    element = new("network")
    add(element, "name", network_name(network))
    if network.kind == "overlay":
        _network_metadata(element, network)
    if network.kind == "nat":
        add(element, "forward", mode="nat")
    # No loop can come of a bridge that leads to no other; with STP each new port would be deaf
    # for its first four seconds, and a guest's first calls for DHCP lost.
    add(element, "bridge", name=network.bridge, stp="off", delay=0)
    if network.mtu is not None:
        add(element, "mtu", size=network.mtu)
    if network.subnet is not None:
        host, prefix, first, last = subnet_layout(network.subnet)
        address = add(element, "ip", address=host, prefix=prefix)
        if network.dhcp:
            dhcp = add(address, "dhcp")
            add(dhcp, "range", start=first, end=last)
            for mac, kept in network.reserved.items():
                add(dhcp, "host", mac=mac, ip=kept)
    for mark in network_marks(network, node, hosts):
        add(element, "portgroup", name=mark)
    return to_text(element)


# ---------------------------------------------------------------------------------------------
# The way back


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """vorch's own element in a domain's metadata."""

    vm: str
    node: str
    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenDisk:
    """A disk of a domain. `name` is "" for one that vorch did not plug in."""

    name: str
    target: str
    bus: str
    device: str
    # Of a file; of an RBD image what `RbdSource.path` says.
    path: str | None = None
    rbd: RbdSource | None = None
    format: str = ""
    boot: int | None = None
    read_only: bool = False
    serial: str = ""
    limits: IoLimits = field(default_factory=IoLimits)


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenNic:
    """A NIC of a domain. `host_interface` is its other end, while the domain runs."""

    name: str
    mac: str
    model: str
    kind: str
    # vorch's name of the network; None on a bridge, which only its own name is known of.
    network: str | None = None
    bridge: str | None = None
    vlan: int | None = None
    boot: int | None = None
    host_interface: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenDomain:
    """All that a domain's XML says of the VM in it."""

    name: str
    id: str
    mark: Mark | None
    accelerator: Literal["kvm", "tcg"]
    vcpus: int
    vcpus_max: int
    memory_mib: int
    memory_max_mib: int
    cpu: str
    machine: str
    firmware: Firmware
    secure_boot: bool
    tpm: bool
    graphics: bool
    agent: bool
    watchdog: Watchdog
    # Size of the huge pages that its memory is made of; 0: ordinary memory.
    pages_kib: int
    # The NUMA cells that its memory comes from, as libvirt writes sets; "": any.
    numa_cells: str
    description: str
    disks: tuple[SeenDisk, ...]
    nics: tuple[SeenNic, ...]
    kernel: str | None
    initrd: str | None
    command_line: str
    # libvirt can open a stream to the screen.
    display_channel: bool
    nvram: str | None


def find_disk(domain: Element, name: str) -> Element | None:
    """The disk that vorch knows by this name, in a running domain's XML."""
    return domain.find(f"devices/disk/alias[@name='{disk_alias(name)}']/..")


def place_of(disk: Element) -> str | None:
    """Where a disk of a running domain is, as `path` of its `Source`; None: an empty drive."""
    return _read_disk(disk).path


def copied_to(disk: Element) -> tuple[str | None, bool] | None:
    """Where a disk is being copied to and whether both are the same already; None: it is not."""
    mirror = disk.find("mirror")
    if mirror is None or mirror.get("job", "copy") != "copy":
        return None
    return _read_disk(mirror).path, mirror.get("ready") == "yes"


def stands_on_another(disk: Element) -> bool:
    """A running domain's disk takes a part of what it shows from a backing file."""
    return disk.find("backingStore/source") is not None


def find_nic(domain: Element, name: str) -> Element | None:
    return domain.find(f"devices/interface/alias[@name='{nic_alias(name)}']/..")


def has_scsi_controller(domain: Element) -> bool:
    return domain.find("devices/controller[@type='scsi']") is not None


def attribute_of(element: Element, path: str, attribute: str) -> str | None:
    found = element.find(path)
    value = None if found is None else found.get(attribute)
    return None if value is None else str(value)


def _order(element: Element) -> int | None:
    order = attribute_of(element, "boot", "order")
    return None if order is None else int(order)


def _mib(element: Element | None) -> int:
    if element is None or not element.text:
        return 0
    return int(element.text) * _UNITS.get(element.get("unit", "KiB"), 1024) // 1024**2


def read_mark(element: Element | None) -> Mark | None:
    """From vorch's element itself, as libvirt hands it out alone, or as it stands in a domain."""
    if element is None:
        return None
    try:
        generation = int(element.get("generation", "0"))
    except ValueError:
        generation = 0
    return Mark(vm=element.get("name", ""), node=element.get("node", ""), generation=generation)


def _read_rbd(element: Element) -> RbdSource | None:
    """An RBD image as vorch writes it; None for other places, or one that is not of vorch."""
    source = element.find("source")
    if source is None or source.get("protocol") != "rbd":
        return None
    pool, _, image = source.get("name", "").partition("/")
    auth = source.find("auth")
    if auth is None:
        # Where it stood of old, and where libvirt shows what was given there.
        auth = element.find("auth")
    if auth is None:
        return None
    monitors = []
    for host in source.findall("host"):
        name = host.get("name", "")
        monitors.append(f"{f'[{name}]' if ':' in name else name}:{host.get('port', '6789')}")
    try:
        return RbdSource(
            pool=pool,
            image=image,
            monitors=tuple(monitors),
            user=auth.get("username", ""),
            secret=attribute_of(auth, "secret", "uuid") or "",
        )
    except Invalid:
        return None


def _read_disk(element: Element) -> SeenDisk:
    source = element.find("source")
    rbd = _read_rbd(element)
    path = None if source is None else source.get("file") or source.get("dev")
    return SeenDisk(
        name=_name_of(attribute_of(element, "alias", "name") or "", _DISK_ALIAS),
        target=attribute_of(element, "target", "dev") or "",
        bus=attribute_of(element, "target", "bus") or "",
        device=element.get("device", "disk"),
        path=path if rbd is None else rbd.path,
        rbd=rbd,
        format=attribute_of(element, "driver", "type") or "",
        boot=_order(element),
        read_only=element.find("readonly") is not None,
        serial=element.findtext("serial") or "",
        limits=_read_limits(element.find("iotune")),
    )


def _read_limits(tune: Element | None) -> IoLimits:
    """As vorch writes them; what somebody else has set in other ways reads as none."""
    if tune is None:
        return IoLimits()

    def of(name: str, unit: int = 1) -> int:
        return int(tune.findtext(name) or 0) // unit

    def most(kind: str, what: str) -> int:
        unit = MIB if kind == "bytes" else 1
        return max(of(f"{way}_{kind}_sec_{what}", unit) for way in ("total", "read", "write"))

    ways = ("total", "read", "write")
    try:
        return IoLimits(
            iops=of("total_iops_sec"),
            read_iops=of("read_iops_sec"),
            write_iops=of("write_iops_sec"),
            mib_s=of("total_bytes_sec", MIB),
            read_mib_s=of("read_bytes_sec", MIB),
            write_mib_s=of("write_bytes_sec", MIB),
            burst_iops=most("iops", "max"),
            burst_mib_s=most("bytes", "max"),
            burst_s=max(
                of(f"{way}_{kind}_sec_max_length") for way in ways for kind in ("iops", "bytes")
            ),
        )
    except Invalid:
        return IoLimits()


def _read_nic(element: Element) -> SeenNic:
    network = attribute_of(element, "source", "network")
    vlan = attribute_of(element, "vlan/tag", "id")
    return SeenNic(
        name=_name_of(attribute_of(element, "alias", "name") or "", _NIC_ALIAS),
        mac=attribute_of(element, "mac", "address") or "",
        model=attribute_of(element, "model", "type") or "",
        kind=element.get("type", ""),
        network=network.removeprefix("vorch-").partition("@")[0] if network else None,
        bridge=attribute_of(element, "source", "bridge"),
        vlan=None if vlan is None else int(vlan),
        boot=_order(element),
        host_interface=attribute_of(element, "target", "dev"),
    )


def _read_cpu(domain: Element) -> str:
    mode = attribute_of(domain, "cpu", "mode")
    if mode == "custom":
        # Only the CPU that all hosts have in common is told by its features.
        common = domain.find("cpu/feature") is not None
        return "default" if common else domain.findtext("cpu/model") or ""
    if mode == "host-model":
        return "default"
    if mode == "maximum" and domain.find("cpu/feature[@name='la57']") is not None:
        return "default"
    return "host" if mode in ("host-passthrough", "maximum") else ""


def read_domain(xml: str) -> SeenDomain:
    """What a domain's XML says, be it vorch's own text or what a running libvirt shows of it."""
    domain = parse(xml)
    vcpu = domain.find("vcpu")
    vcpus_max = int(vcpu.text) if vcpu is not None and vcpu.text else 1
    memory = domain.find("memory")
    current = domain.find("currentMemory")
    secure = domain.find("os/firmware/feature[@name='secure-boot'][@enabled='yes']")
    loader = domain.find("os/loader")
    uefi = domain.find("os").get("firmware") == "efi" or (
        loader is not None and loader.get("type") == "pflash"
    )
    return SeenDomain(
        name=domain.findtext("name") or "",
        id=domain.findtext("uuid") or "",
        mark=read_mark(domain.find(f"metadata/{{{NAMESPACE}}}vm")),
        accelerator="kvm" if domain.get("type") == "kvm" else "tcg",
        vcpus=int(vcpu.get("current", vcpus_max)) if vcpu is not None else 1,
        vcpus_max=vcpus_max,
        memory_mib=_mib(current if current is not None else memory),
        memory_max_mib=_mib(memory),
        cpu=_read_cpu(domain),
        machine=attribute_of(domain, "os/type", "machine") or "",
        firmware=Firmware.UEFI if uefi else Firmware.BIOS,
        secure_boot=secure is not None or (loader is not None and loader.get("secure") == "yes"),
        tpm=domain.find("devices/tpm") is not None,
        graphics=domain.find("devices/graphics") is not None,
        agent=_agent_channel(domain) is not None,
        watchdog=_read_watchdog(domain),
        pages_kib=int(attribute_of(domain, "memoryBacking/hugepages/page", "size") or 0),
        numa_cells=attribute_of(domain, "numatune/memory", "nodeset") or "",
        description=domain.findtext("description") or "",
        disks=tuple(map(_read_disk, domain.findall("devices/disk"))),
        nics=tuple(map(_read_nic, domain.findall("devices/interface"))),
        kernel=domain.findtext("os/kernel"),
        initrd=domain.findtext("os/initrd"),
        command_line=domain.findtext("os/cmdline") or "",
        display_channel=domain.find(f"devices/channel/target[@name='{DISPLAY_CHANNEL}']")
        is not None,
        nvram=domain.findtext("os/nvram"),
    )


def _read_watchdog(domain: Element) -> Watchdog:
    """Newer libvirts give each q35 machine one of the chipset's as well, which is not vorch's."""
    device = domain.find(f"devices/watchdog[@model='{WATCHDOG_MODEL}']")
    action = "none" if device is None else device.get("action", "reset")
    return Watchdog(action) if action in set(Watchdog) else Watchdog.NONE


def _agent_channel(domain: Element) -> Element | None:
    return domain.find("devices/channel/target[@name='org.qemu.guest_agent.0']")


def agent_connected(domain: Element) -> bool:
    """The guest's agent has opened its end of the channel, as far as the host can see."""
    channel = _agent_channel(domain)
    return channel is not None and channel.get("state") == "connected"
