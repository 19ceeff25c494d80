"""Vm → libvirt domain XML for Xen's libxl driver, as `domain_xml` is for QEMU. Pure.

A VM's machine type says what kind of guest it is: `xenpv` (paravirtualised; its kernel is read
from its first disk by pygrub, or given by a direct boot) or `xenpvh` (without an emulated machine,
but in what processors have for virtualisation; by a direct boot). What a VM asks for and such a
guest cannot have is refused here, before anything was touched. Screen and agent are left away.
"""

from __future__ import annotations

from collections.abc import Mapping

from vorch import domain_xml
from vorch.domain_xml import Element, add, new
from vorch.errors import Invalid, Unsupported
from vorch.model import (
    INITRD_SOURCE,
    KERNEL_SOURCE,
    Disk,
    FileSource,
    Firmware,
    HostFacts,
    Network,
    Nic,
    Source,
    Vm,
    Watchdog,
)

PV, PVH = "xenpv", "xenpvh"
MACHINES = (PV, PVH)
# libxl looks for a plain name among the programs of the Xen that runs, whichever version that is.
BOOT_LOADER = "pygrub"


def target(disk: Disk) -> str:
    """What the guest calls it: vdb and sdb are both xvdb here."""
    return "xvd" + disk.target[2:]


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
    domain_xml.add_mark(domain, vm)
    add(domain, "memory", str(vm.memory_max_mib), unit="MiB")
    add(domain, "currentMemory", str(vm.memory_mib), unit="MiB")
    add(domain, "vcpu", str(vm.vcpus_max), placement="static", current=vm.vcpus)
    _operating_system(domain, vm, sources, facts)
    add(domain, "clock", offset="utc")
    add(domain, "on_poweroff", "destroy")
    # As with QEMU: an installer that reboots has done its work, and what crashed holds no disks.
    add(domain, "on_reboot", "destroy" if vm.direct_boot is not None else "restart")
    add(domain, "on_crash", "destroy")
    devices = add(domain, "devices")
    # The boot loader looks into the first one.
    for disk in sorted(vm.disks, key=lambda one: (one.boot is None, one.boot or 0)):
        devices.append(_disk(vm, disk, sources.get(disk.name)))
    for nic in vm.nics:
        devices.append(nic_element(vm, nic, networks))
    console = add(devices, "console", type="pty")
    add(console, "target", type="xen", port=0)
    return domain_xml.to_text(domain)


def _check(vm: Vm) -> None:
    if vm.machine not in MACHINES:
        raise Unsupported(
            f"cannot start VM {vm.name!r} on Xen: its machine type is {vm.machine!r}, one of"
            f" QEMU's; Xen's are {' and '.join(MACHINES)}",
            vm=vm.name,
        )
    if vm.machine == PVH and vm.direct_boot is None:
        raise Unsupported(
            f"cannot start VM {vm.name!r}: a PVH guest is given its kernel by the host, and this VM"
            f" has none (a direct boot); use the machine type {PV!r}, which reads it from the disk",
            vm=vm.name,
        )
    lacks = {
        "UEFI": vm.firmware is Firmware.UEFI,
        "secure boot": vm.secure_boot,
        "a TPM": vm.tpm,
        "a watchdog": vm.watchdog is not Watchdog.NONE,
        "huge pages of its own": vm.huge_pages,
        "a NUMA cell to be kept in": vm.numa_cell is not None,
    }
    for what, asked in lacks.items():
        if asked:
            raise Unsupported(
                f"cannot start VM {vm.name!r} on Xen: it asks for {what}, which a PV or PVH guest"
                " has not; take that away from it, or run it on a KVM host",
                vm=vm.name,
            )


def _operating_system(
    domain: Element, vm: Vm, sources: Mapping[str, Source], facts: HostFacts
) -> None:
    if vm.direct_boot is None:
        add(domain, "bootloader", BOOT_LOADER)
    system = add(domain, "os")
    kind = "linux" if vm.machine == PV else "xenpvh"
    add(system, "type", kind, arch=facts.architecture, machine=vm.machine)
    if vm.direct_boot is None:
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


def _disk(vm: Vm, disk: Disk, source: Source | None) -> Element:
    if disk.device == "cdrom":
        raise Unsupported(
            f"cannot start VM {vm.name!r} on Xen: it has a CD drive ({disk.name!r}), which a PV or"
            " PVH guest has not; take it away, or give the CD as a read-only disk",
            vm=vm.name,
            disk=disk.name,
        )
    if not disk.limits.none:
        raise Unsupported(
            f"cannot start VM {vm.name!r} on Xen: disk {disk.name!r} has limits, which libvirt's"
            " driver for Xen does not set; lift them, or run it on a KVM host",
            vm=vm.name,
            disk=disk.name,
        )
    if source is None:
        raise Invalid(
            f"cannot plug in disk {disk.name!r} of VM {vm.name!r}: nobody said where it is; look at"
            " its pool",
            vm=vm.name,
            disk=disk.name,
        )
    if not isinstance(source, FileSource):
        # libvirt would even say that it had worked, and the guest wait for its disk for ever.
        raise Unsupported(
            f"cannot start VM {vm.name!r} on Xen: disk {disk.name!r} is an RBD image, which Xen's"
            " device model does not open, and vorch does not map it by the host's kernel yet; keep"
            " it in a pool of files, or run it on a KVM host",
            vm=vm.name,
            disk=disk.name,
        )
    element = new("disk", type="file", device="disk")
    # The host's kernel serves what has no format; what has one needs a QEMU beside the guest.
    served = "phy" if source.format == "raw" else "qemu"
    add(element, "driver", name=served, type=source.format)
    add(element, "source", file=source.path)
    add(element, "target", dev=target(disk), bus="xen")
    if disk.read_only:
        add(element, "readonly")
    add(element, "alias", name=domain_xml.disk_alias(disk.name))
    return element


def nic_element(vm: Vm, nic: Nic, networks: Mapping[str, Network]) -> Element:
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
