"""What a VM becomes where Xen runs it, and what it cannot be there. Pure.

A definition is the same for both hypervisors. What a guest of Xen has not and does well without
(a screen, the agent's channel, a CPU model, an empty CD drive) is left away; what would make it
another VM than was asked for is refused, by placement and by the driver alike.
"""

from __future__ import annotations

from collections.abc import Mapping

from vorch.model import Disk, Firmware, HostFacts, Vm, Watchdog, XenKind

# What people call the hypervisors.
NAMES: Mapping[str, str] = {"kvm": "KVM", "xen": "Xen"}
# The first sixteen are the ones that every kernel knows.
_LETTERS = "abcdefghijklmnop"
# Where an emulated machine has drives, in the order in which CDs take them.
_DRIVES = "dcba"


# GRUB as a guest's kernel, where Debian's grub-xen-host puts it. Other places are not tried.
GRUBS: Mapping[XenKind, str] = {
    "pv": "/usr/lib/grub-xen/grub-x86_64-xen.bin",
    "pvh": "/usr/lib/grub-xen/grub-i386-xen_pvh.bin",
}
# What is said to be lacking where one of them is absent.
LOADERS: Mapping[XenKind, str] = {"pv": "pvgrub_pv", "pvh": "pvgrub_pvh"}


def loader(vm: Vm) -> str:
    """What its host has to have for it to start, one of LOADERS; "": nothing beside Xen."""
    if vm.xen_loader != "pvgrub" or vm.direct_boot is not None:
        return ""
    return LOADERS.get(vm.xen_kind, "")


def without_loaders(facts: HostFacts) -> dict[str, str]:
    """Of those, what is known to be absent there, and why."""
    return {name: facts.lacks[name] for name in LOADERS.values() if name in facts.lacks}


def no_grub(kind: XenKind) -> str:
    return f"it has no {GRUBS[kind]}; install the package grub-xen-host there, and probe it again"


def lacks(vm: Vm) -> str:
    """Why no Xen host can run the VM as it was asked for; "" when nothing stands against it."""
    asked = {
        "UEFI": vm.firmware is Firmware.UEFI,
        "secure boot": vm.secure_boot,
        "a TPM": vm.tpm,
        "a watchdog": vm.watchdog is not Watchdog.NONE,
        "huge pages of its own": vm.huge_pages != "",
        "one NUMA cell to be kept in": vm.one_numa_cell or vm.numa_cell is not None,
    }
    for what, wanted in asked.items():
        if wanted:
            return f"it runs Xen, and the VM asks for {what}, which a guest of Xen has not"
    for disk in vm.disks:
        if not disk.limits.none:
            return (
                f"it runs Xen, and disk {disk.name!r} has limits, which libvirt's driver for Xen"
                " does not set"
            )
    if len(plugged(vm)) > len(_LETTERS):
        return f"it runs Xen, and the VM has over {len(_LETTERS)} disks"
    if len({target[-1] for target in targets(vm).values()}) < len(plugged(vm)):
        return f"it runs Xen, and its disks leave no place of {len(_DRIVES)} for a CD drive"
    return ""


def plugged(vm: Vm) -> tuple[Disk, ...]:
    """The disks that it gets there: without CD drives that are empty."""
    return tuple(disk for disk in vm.disks if disk.device == "disk" or disk.volume is not None)


def targets(vm: Vm) -> dict[str, str]:
    """What the guest calls its disks, by their names: vdb and sdb are both xvdb there.

    The second that would have a letter gets the last one that is free, so that none changes when
    another disk is plugged in later.
    """
    found: dict[str, str] = {}
    disks = plugged(vm)
    drives = [disk for disk in disks if has_drive(vm, disk)]
    letters: list[str] = []

    def take(disk: Disk, prefix: str, wanted: str, others: str) -> None:
        free = [one for one in (wanted, *others) if one not in letters]
        letters.append(free[0] if free else wanted)
        found[disk.name] = prefix + letters[-1]

    for disk in disks:
        if disk not in drives:
            take(disk, "xvd", disk.target[2:], _LETTERS[::-1])
    for disk in drives:
        take(disk, "hd", _DRIVES[0], _DRIVES)
    return found


def has_drive(vm: Vm, disk: Disk) -> bool:
    """An emulated machine has CD drives. Other guests see a CD as a disk that is only read."""
    return disk.device == "cdrom" and vm.xen_kind == "hvm"


def other_hypervisor(there: str, asked: str) -> str:
    """Why a host takes no VM that is for the other hypervisor."""
    return (
        f"it runs {NAMES.get(there, there)}, and the VM is for {NAMES.get(asked, asked)} alone"
        " (--hypervisor any lets it run on both)"
    )


def no_such_kind(kind: str) -> str:
    return f"its Xen runs no guests of the kind {kind!r}"
