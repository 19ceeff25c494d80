"""Vm → libvirt domain XML for Xen's libxl driver, as `domain_xml` is for QEMU. Pure.

The VM says what kind of guest it is (`Vm.xen_kind`). PV and PVH guests get their kernel from their
first disk, read by pygrub on the host or by GRUB as the guest (`Vm.xen_loader`), or by a direct
boot; an HVM guest starts as any PC does. What becomes of the rest of a definition, and what is
refused, is `xen_guests`' matter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from vorch import domain_xml, xen_guests
from vorch.domain_xml import Element, add, new
from vorch.errors import Invalid, Unsupported
from vorch.model import (
    INITRD_SOURCE,
    KERNEL_SOURCE,
    Disk,
    FileSource,
    HostFacts,
    Network,
    Nic,
    RbdSource,
    Source,
    Vm,
    XenKind,
)

# What libvirt calls the kinds of guests.
MACHINES: Mapping[XenKind, str] = {"pv": "xenpv", "pvh": "xenpvh", "hvm": "xenfv"}
_TYPES: Mapping[XenKind, str] = {"pv": "linux", "pvh": "xenpvh", "hvm": "hvm"}
# libxl looks for a plain name among the programs of the Xen that runs, whichever version that is.
BOOT_LOADER = "pygrub"
# Debian's. What its libvirt takes by itself (/usr/lib/xen/bin/qemu-system-i386) is not there.
EMULATOR = "/usr/libexec/xen-qemu-system-i386"
# Where the hook puts the images that the host's kernel has mapped.
LINKS = "/dev/vorch"
# No image is there; the hook says so.
REFUSED = "/vorch/is/it/you"
_IMAGE = f"{{{domain_xml.NAMESPACE}}}rbd"


def xen_domain_xml(
    vm: Vm,
    *,
    name: str,
    sources: Mapping[str, Source],
    networks: Mapping[str, Network],
    facts: HostFacts,
) -> str:
    """The XML that starts this VM on a Xen host; `name` is what libvirt is to call it."""
    _check(vm)
    domain = new("domain", type="xen")
    add(domain, "name", name)
    add(domain, "uuid", vm.id)
    if vm.description:
        add(domain, "description", vm.description)
    _mark(domain, vm, sources)
    add(domain, "memory", str(vm.memory_max_mib), unit="MiB")
    add(domain, "currentMemory", str(vm.memory_mib), unit="MiB")
    add(domain, "vcpu", str(vm.vcpus_max), placement="static", current=vm.vcpus)
    _operating_system(domain, vm, sources, facts)
    hvm = vm.xen_kind == "hvm"
    if hvm:
        features = add(domain, "features")
        add(features, "acpi")
        add(features, "apic")
    add(domain, "clock", offset="utc")
    add(domain, "on_poweroff", "destroy")
    # As with QEMU: an installer that reboots has done its work, and what crashed holds no disks.
    add(domain, "on_reboot", "destroy" if vm.direct_boot is not None else "restart")
    add(domain, "on_crash", "destroy")
    devices = add(domain, "devices")
    if hvm:
        add(devices, "emulator", EMULATOR)
    # The boot loader looks into the first one.
    for disk in sorted(xen_guests.plugged(vm), key=_order):
        devices.append(_disk(vm, disk, sources.get(disk.name)))
    for nic in vm.nics:
        devices.append(_nic(vm, nic, networks))
    if hvm:
        add(add(devices, "serial", type="pty"), "target", port=0)
    console = add(devices, "console", type="pty")
    add(console, "target", type="serial" if hvm else "xen", port=0)
    return domain_xml.to_text(domain)


def device_of(source: RbdSource) -> str:
    """Where the hook puts an image that the host's kernel has mapped.

    Whose Ceph it is in is told by the secret: two may have pools and images of the same names.
    """
    return f"{LINKS}/{source.secret[:8]}/{source.name}"


def place_of(source: Source) -> str:
    """What libvirt shows as the place of a disk there."""
    return device_of(source) if isinstance(source, RbdSource) else source.path


def image_of(source: RbdSource, *, read_only: bool) -> dict[str, str]:
    """What the hook has to know to map an image. The key is not in it: the host keeps that."""
    return {
        "path": device_of(source),
        "pool": source.pool,
        "namespace": source.namespace,
        "image": source.image,
        "user": source.user,
        "secret": source.secret,
        "monitors": ",".join(source.monitors),
        "readonly": "yes" if read_only else "no",
    }


def add_image(mark: Element, disk: Disk, source: RbdSource) -> None:
    """What the hook is to map when the guest starts, as it does anew when it reboots."""
    drop_image(mark, device_of(source))
    add(mark, _image_tag(mark), **image_of(source, read_only=disk.read_only))


def drop_image(mark: Element, place: str) -> None:
    for one in mark.findall(_image_tag(mark)):
        if one.get("path") == place:
            mark.remove(one)


def _image_tag(mark: Element) -> str:
    """Alone, as libvirt hands it out and takes it back, a mark is without its namespace."""
    return _IMAGE if str(mark.tag).startswith("{") else "rbd"


def _mark(domain: Element, vm: Vm, sources: Mapping[str, Source]) -> None:
    mark = domain_xml.add_mark(domain, vm)
    for disk in vm.disks:
        source = sources.get(disk.name)
        if isinstance(source, RbdSource):
            add_image(mark, disk, source)


def refused_xml(name: str) -> str:
    """A guest that the hook refuses to let start, where libvirt asks it at all."""
    domain = new("domain", type="xen")
    add(domain, "name", name)
    mark = add(add(domain, "metadata"), f"{{{domain_xml.NAMESPACE}}}vm")
    add(mark, _IMAGE, path=REFUSED, pool="none", image="none")
    add(domain, "memory", "4", unit="MiB")
    add(domain, "vcpu", "1")
    system = add(domain, "os")
    add(system, "type", "linux", machine=MACHINES["pv"])
    add(system, "kernel", "/nonexistent")
    return domain_xml.to_text(domain)


def _check(vm: Vm) -> None:
    why = xen_guests.lacks(vm)
    if why:
        raise Unsupported(
            f"cannot start VM {vm.name!r} on this host: {why}; take that away from it, or run it on"
            " a KVM host",
            vm=vm.name,
        )


def _order(disk: Disk) -> tuple[bool, int]:
    return (disk.boot is None, disk.boot or 0)


def _operating_system(
    domain: Element, vm: Vm, sources: Mapping[str, Source], facts: HostFacts
) -> None:
    hvm = vm.xen_kind == "hvm"
    own_grub = xen_guests.loader(vm) != ""
    if vm.direct_boot is None and not hvm and not own_grub:
        add(domain, "bootloader", BOOT_LOADER)
    system = add(domain, "os")
    kind = vm.xen_kind
    add(system, "type", _TYPES[kind], arch=facts.architecture, machine=MACHINES[kind])
    if own_grub:
        add(system, "kernel", xen_guests.GRUBS[kind])
        return
    if vm.direct_boot is None:
        orders = [disk for disk in sorted(xen_guests.plugged(vm), key=_order) if disk.boot]
        drives = ["cdrom" if disk.device == "cdrom" else "hd" for disk in orders]
        for device in dict.fromkeys(drives if hvm else ()):
            add(system, "boot", dev=device)
        return
    add(system, "kernel", _file(vm, "kernel", sources.get(KERNEL_SOURCE)))
    if vm.direct_boot.initrd is not None:
        add(system, "initrd", _file(vm, "initrd", sources.get(INITRD_SOURCE)))
    if vm.direct_boot.command_line:
        add(system, "cmdline", vm.direct_boot.command_line)


def _file(vm: Vm, what: str, source: Source | None) -> str:
    if source is None:
        raise Invalid(
            f"cannot start VM {vm.name!r} by its {what}: nobody said where it is; look at its pool",
            vm=vm.name,
        )
    if not isinstance(source, FileSource):
        raise Unsupported(
            f"cannot start VM {vm.name!r} by its {what}: Xen reads that from a file of the host;"
            f" {source.name!r} is an RBD image; keep it in a pool of files",
            vm=vm.name,
        )
    return source.path


def disk_xml(vm: Vm, disk: Disk, source: Source | None) -> str:
    """For a guest that runs; the VM may not have the disk yet."""
    others = tuple(one for one in vm.disks if one.name != disk.name)
    return domain_xml.to_text(_disk(replace(vm, disks=(*others, disk)), disk, source))


def _disk(vm: Vm, disk: Disk, source: Source | None) -> Element:
    if source is None:
        raise Invalid(
            f"cannot plug in disk {disk.name!r} of VM {vm.name!r}: nobody said where it is; look at"
            " its pool",
            vm=vm.name,
            disk=disk.name,
        )
    mapped = isinstance(source, RbdSource)
    drive = xen_guests.has_drive(vm, disk)
    kind = "cdrom" if drive else "disk"
    element = new("disk", type="block" if mapped else "file", device=kind)
    # The host's kernel serves what has no format; what has one needs a QEMU beside the guest.
    served = "phy" if source.format == "raw" and not drive else "qemu"
    add(element, "driver", name=served, type=source.format)
    # libxl's own way to RBD even says that it had worked, and the guest waits for ever.
    add(element, "source", **{"dev" if mapped else "file": place_of(source)})
    target = xen_guests.targets(vm)[disk.name]
    add(element, "target", dev=target, bus="ide" if drive else "xen")
    if disk.read_only or disk.device == "cdrom":
        add(element, "readonly")
    add(element, "alias", name=domain_xml.disk_alias(disk.name))
    return element


def nic_xml(vm: Vm, nic: Nic, network: Network) -> str:
    """For a guest that runs. Of a card that got its name from Xen libvirt has no figures then."""
    element = _nic(vm, nic, {network.name: network})
    # A name has 15 letters at the most, and Xen may append four.
    add(element, "target", dev="vx" + nic.mac.replace(":", "")[-8:])
    return domain_xml.to_text(element)


def _nic(vm: Vm, nic: Nic, networks: Mapping[str, Network]) -> Element:
    network = networks.get(nic.network)
    if network is None:
        raise Invalid(
            f"cannot plug in NIC {nic.name!r} of VM {vm.name!r}: nobody said what network"
            f" {nic.network!r} is; `vorch network list` shows all",
            vm=vm.name,
            network=nic.network,
        )
    if network.kind != "bridge" or network.vlan is not None:
        raise Unsupported(
            f"cannot put NIC {nic.name!r} of VM {vm.name!r} on network {network.name!r}: on a Xen"
            " host vorch uses bridges that are there, without VLAN tags; use a network of kind"
            " 'bridge'",
            vm=vm.name,
            network=network.name,
        )
    element = new("interface", type="bridge")
    add(element, "mac", address=nic.mac)
    add(element, "source", bridge=network.bridge_on(vm.node))
    add(element, "alias", name=domain_xml.nic_alias(nic.name))
    return element
