"""What stands against a move between KVM and Xen, by what was found in a VM's disk."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from tests.decide import worlds
from tests.decide.test_two_hypervisors import seen, xen
from vorch.decide.crossing import Finding, Runs, Trial, converted, cross, crosses, findings
from vorch.errors import Conflict, Unsupported
from vorch.inside import Boot, Has, Inside, Kernel, Mount, Partition
from vorch.model import Disk, DiskBus, NicModel, Vm, Volume

ALL = ("xen_blkfront", "xen_netfront", "virtio_pci", "virtio_blk", "virtio_net", "virtio_scsi")
KERNEL = Kernel(
    path="/boot/vmlinuz-6.1",
    version="6.1",
    entries=frozenset(["bare", "pv", "pvh"]),
    drivers=dict.fromkeys((*ALL, "sd_mod", "ahci", "ata_piix", "e1000"), "initramfs"),
    initramfs="/boot/initrd.img-6.1",
)
BOOT = Boot(file="/boot/grub/grub.cfg", kernel="/boot/vmlinuz-6.1", command_line="root=UUID=1 ro")
FIT = Inside(
    table="mbr",
    bios_starts=True,
    partitions=(Partition(number=1, start_bytes=2**20, size_bytes=2**30, holds="ext4"),),
    kernels=(KERNEL,),
    boots=(BOOT,),
    mounts=(Mount(device="UUID=1", where="/", options="defaults"),),
)
WEB = worlds.vm()


def told(inside: Inside | None, runs: Runs, vm: Vm = WEB) -> list[tuple[str, str]]:
    return [(one.level, one.why) for one in findings(inside, vm, runs)]


def kernel(**changes: Any) -> Inside:
    return dataclasses.replace(FIT, kernels=(dataclasses.replace(KERNEL, **changes),))


def drivers(**changes: Has) -> Inside:
    return kernel(drivers={**KERNEL.drivers, **changes})


def line(text: str) -> Inside:
    return dataclasses.replace(FIT, boots=(dataclasses.replace(BOOT, command_line=text),))


def mount(device: str, where: str = "/", options: str = "defaults") -> Inside:
    return dataclasses.replace(FIT, mounts=(Mount(device=device, where=where, options=options),))


@pytest.mark.parametrize("runs", ["kvm", "xen"])
def test_a_system_that_fits_both_is_found_to_do_so(runs: Runs) -> None:
    assert told(FIT, runs) == []


@pytest.mark.parametrize(
    ("inside", "runs", "changes", "level", "why"),
    [
        (drivers(xen_blkfront="no"), "xen", {}, "error", "no xen_blkfront nor has its initramfs"),
        (drivers(xen_blkfront="module"), "xen", {}, "error", "/boot/initrd.img-6.1 has not"),
        (drivers(xen_blkfront="unknown"), "xen", {}, "unread", "xen_blkfront, for its disk"),
        (drivers(xen_netfront="no"), "xen", {}, "error", "not find its network cards under Xen"),
        (drivers(virtio_blk="no"), "kvm", {}, "error", "not find its disk under KVM"),
        (drivers(virtio_pci="no"), "kvm", {}, "error", "has no virtio_pci"),
        (drivers(virtio_net="no"), "kvm", {}, "error", "has no virtio_net"),
        (kernel(entries=frozenset(["bare"])), "xen", {}, "error", "without CONFIG_XEN_PV"),
        (
            kernel(entries=frozenset(["bare", "pv"])),
            "xen",
            {"xen_kind": "pvh"},
            "error",
            "cannot be started as a PVH guest: it was built without CONFIG_XEN_PVH",
        ),
        (kernel(unread="the kernel: LZ4", entries=None), "xen", {}, "unread", "the kernel: LZ4"),
        (dataclasses.replace(FIT, boots=()), "xen", {}, "error", "pygrub finds no configuration"),
        (
            dataclasses.replace(FIT, boots=(dataclasses.replace(BOOT, file="/grub/menu.lst"),)),
            "xen",
            {"xen_loader": "pvgrub"},
            "error",
            "pvgrub finds no configuration of a boot loader in it (/boot/grub/grub.cfg",
        ),
        (
            dataclasses.replace(FIT, boots=(dataclasses.replace(BOOT, file="/syslinux.cfg"),)),
            "xen",
            {},
            "error",
            "pygrub finds no configuration",
        ),
        (
            dataclasses.replace(FIT, boots=(), unread=("partition 2 holds XFS",)),
            "xen",
            {},
            "unread",
            "pygrub finds no configuration",
        ),
        (dataclasses.replace(FIT, bios_starts=False), "kvm", {}, "error", "no boot loader in the"),
        (
            dataclasses.replace(FIT, bios_starts=False),
            "xen",
            {"xen_kind": "hvm"},
            "error",
            "no boot loader in the",
        ),
        (dataclasses.replace(FIT, kernels=()), "kvm", {}, "unread", "no kernel of Linux"),
        (line("root=/dev/vda1"), "xen", {}, "error", "root=/dev/vda1, which is called /dev/xvda"),
        (line("root=/dev/xvda1"), "kvm", {}, "error", "which is called /dev/vda there"),
        (line("root=/dev/sdc1"), "xen", {}, "error", "which is none of its disks"),
        (mount("/dev/vda2"), "xen", {}, "error", "mounts /dev/vda2 at /, which is called"),
        (mount("/dev/vda2", "/d", "nofail"), "xen", {}, "warning", "at /d, which is called"),
        (mount("/dev/vda3", "none", "sw"), "xen", {}, "warning", "at none, which is called"),
        (line("root=UUID=1 console=tty0 console=ttyS0"), "xen", {}, "warning", "is hvc0, and may"),
        (line("root=UUID=1 console=hvc0"), "kvm", {}, "warning", "is ttyS0, and may stay silent"),
        (
            dataclasses.replace(FIT, in_use=("partition 1",)),
            "xen",
            {},
            "warning",
            "partition 1 was not unmounted",
        ),
        (None, "xen", {}, "unread", "it has no disk to start from"),
    ],
)
def test_each_finding_has_its_level_and_the_exact_reason(
    inside: Inside | None, runs: Runs, changes: dict[str, Any], level: str, why: str
) -> None:
    found = told(inside, runs, dataclasses.replace(WEB, **changes))
    assert [one for one, text in found if why in text] == [level], found


@pytest.mark.parametrize(
    ("inside", "runs"),
    [
        (line("root=/dev/xvda1"), "xen"),
        (line("root=/dev/vda1"), "kvm"),
        (mount("/dev/xvda2"), "xen"),
        (drivers(xen_netfront="module"), "xen"),
        (drivers(virtio_blk="no", virtio_net="no", virtio_pci="no"), "xen"),
        (drivers(xen_blkfront="no", xen_netfront="no"), "kvm"),
        (dataclasses.replace(FIT, bios_starts=False), "xen"),
        (line("root=UUID=1 console=ttyS0 console=hvc0"), "xen"),
        # A BIOS starts it, and its drivers are in its initramfs.
        (kernel(unread="the kernel: LZ4", entries=None), "kvm"),
    ],
)
def test_what_is_of_no_matter_there_is_not_found(inside: Inside, runs: Runs) -> None:
    assert told(inside, runs) == []


def test_a_guest_in_an_emulated_machine_needs_no_drivers_of_xen() -> None:
    lacking = drivers(xen_blkfront="no", xen_netfront="no")
    assert told(lacking, "xen", dataclasses.replace(WEB, xen_kind="hvm")) == []


def test_drivers_are_those_of_its_buses_and_cards() -> None:
    root = dataclasses.replace(WEB.disks[0], bus=DiskBus.SATA, target="sda")
    nic = dataclasses.replace(WEB.nics[0], model=NicModel.E1000)
    other = dataclasses.replace(WEB, disks=(root,), nics=(nic,))
    assert told(drivers(virtio_blk="no", virtio_net="no", virtio_pci="no"), "kvm", other) == []
    (level, why) = told(drivers(ahci="no"), "kvm", other)[0]
    assert (level, "has no ahci" in why) == ("error", True)


def test_the_kernel_that_is_started_counts_and_no_other() -> None:
    old = dataclasses.replace(KERNEL, path="/boot/vmlinuz-5", version="5", entries=frozenset())
    assert told(dataclasses.replace(FIT, kernels=(old, KERNEL)), "xen") == []
    # On a partition of its own the kernel has another path than GRUB says.
    short = dataclasses.replace(KERNEL, path="/vmlinuz-6.1")
    assert told(dataclasses.replace(FIT, kernels=(old, short)), "xen") == []


def test_the_disk_that_it_starts_from_is_looked_into() -> None:
    from vorch.decide.crossing import boot_disk

    second = Disk(name="data", target="vdb", volume=Volume(pool="local", name="d"), boot=1)
    assert boot_disk(dataclasses.replace(WEB, disks=(*WEB.disks, second))) == second
    assert boot_disk(dataclasses.replace(WEB, disks=())) is None


# ---------------------------------------------------------------------------------------------
# The plan


def test_it_crosses_only_where_hosts_differ() -> None:
    cluster = seen(WEB, nodes=(worlds.node("h1"), worlds.node("h2"), xen()))
    assert crosses(cluster, "web", "x1") == ("kvm", "xen")
    assert crosses(cluster, "web", "h2") is None


def test_the_definition_is_converted_and_never_the_data() -> None:
    there = converted(WEB, "x1", "xen")
    assert (there.node, there.hypervisor, there.generation) == ("x1", "xen", WEB.generation + 1)
    assert (there.disks, there.nics, there.machine) == (WEB.disks, WEB.nics, WEB.machine)
    both = dataclasses.replace(WEB, hypervisor="any")
    assert converted(both, "x1", "xen") == dataclasses.replace(both, node="x1")


def planned(**options: Any) -> Any:
    found = options.pop("found", ())
    settings = {"trial": Trial(timeout_s=60), "overhead_mib": worlds.OVERHEAD, **options}
    return cross(seen(WEB), "web", "x1", found, **settings)


def test_the_record_names_the_host_before_it_is_started_there() -> None:
    kinds = [step.kind for step in planned().steps]
    assert kinds.index("save") < kinds.index("start-domain") < kinds.index("await-guest")
    assert [step.kind for step in planned(trial=None).steps] == ["save"]


ERROR = Finding(level="error", why="no driver")
UNREAD = Finding(level="unread", why="holds LVM")
WARNING = Finding(level="warning", why="may stay silent")


@pytest.mark.parametrize(
    ("found", "consent", "refused"),
    [
        ((ERROR,), {}, "no driver; put that right in the guest first, .*--unchecked"),
        ((ERROR,), {"unread": True}, "--unchecked"),
        ((ERROR,), {"unchecked": True}, ""),
        ((UNREAD,), {}, "could not look into: holds LVM; .*--unread"),
        ((UNREAD,), {"unread": True}, ""),
        ((UNREAD, ERROR), {"unchecked": True}, ""),
        ((WARNING,), {}, ""),
    ],
)
def test_what_needs_consent(
    found: tuple[Finding, ...], consent: dict[str, bool], refused: str
) -> None:
    if refused:
        with pytest.raises(Unsupported, match=refused):
            planned(found=found, **consent)
    else:
        assert found[0].why in planned(found=found, **consent).why


def test_a_vm_on_a_pool_of_one_host_stays_there() -> None:
    from vorch.model import Pool

    cluster = dataclasses.replace(
        seen(WEB), pools={"local": Pool(name="local", url="dir:///x", node="h1")}
    )
    with pytest.raises((Unsupported, Conflict), match="which is on one host"):
        cross(cluster, "web", "x1", (), trial=None, overhead_mib=0)
