"""From one hypervisor to the other, on the same disks: what stands against it, and the plan. Pure.

The definition is converted, never the data. What was found in the VM's disk (`Inside`) is judged
here, each finding with its level and the exact reason.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import Literal

from vorch import xen_guests
from vorch.decide.baseline import for_vm
from vorch.decide.clients import save_clients
from vorch.decide.move import moved_to, need_free_to_move
from vorch.decide.place import NOTHING_KEPT, Keeping, home, place, put_into_cell
from vorch.decide.records import ensure_networks, networks_of, reads, save_vm
from vorch.errors import Unsupported
from vorch.inside import Boot, Inside, Kernel
from vorch.model import Cluster, Disk, DiskBus, NicModel, Vm
from vorch.plan import AwaitGuest, Plan, StartDomain, Step
from vorch.xen_guests import NAMES

# "unread": it could not be looked into, so nobody knows. "error": it would not start there.
Level = Literal["note", "warning", "unread", "error"]
Runs = Literal["kvm", "xen"]
# Configurations that each boot loader of Xen reads.
_READ_BY = {
    "pygrub": "grub.cfg, menu.lst, extlinux.conf",
    "pvgrub": "/boot/grub/grub.cfg, /grub/grub.cfg",
}
# Options of a mount without which a system waits for the device, or does not start.
_MAY_BE_MISSING = {"nofail", "noauto"}
_DRIVERS_OF_BUS: dict[DiskBus, tuple[str, ...]] = {
    DiskBus.VIRTIO: ("virtio_pci", "virtio_blk"),
    DiskBus.SCSI: ("virtio_pci", "virtio_scsi", "sd_mod"),
    DiskBus.SATA: ("ahci", "sd_mod"),
    DiskBus.IDE: ("ata_piix", "sd_mod"),
}
_DRIVERS_OF_NIC: dict[NicModel, tuple[str, ...]] = {
    NicModel.VIRTIO: ("virtio_pci", "virtio_net"),
    NicModel.E1000E: ("e1000e",),
    NicModel.E1000: ("e1000",),
    NicModel.RTL8139: ("8139cp",),
}
_DEVICE = re.compile(r"/dev/((?:vd|sd|xvd|hd)[a-z])\d*$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    level: Level
    why: str

    def __str__(self) -> str:
        word = "could not look into" if self.level == "unread" else self.level
        return f"{word}: {self.why}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """How it is seen that the guest has come up there."""

    timeout_s: float
    # Text on its console; "": a login prompt, its agent or an address will do.
    expect: str = ""


def crosses(cluster: Cluster, name: str, target: str) -> tuple[Runs, Runs] | None:
    """From which hypervisor to which other one it would go; None where both hosts are alike."""
    source, there = cluster.nodes.get(cluster.vm(name).node), cluster.node(target)
    if source is None or source.facts is None or there.facts is None:
        return None
    one, other = source.facts.runs, there.facts.runs
    return None if one == other else (one, other)


def boot_disk(vm: Vm) -> Disk | None:
    """The disk that its system is started from."""
    disks = [disk for disk in vm.disks if disk.device == "disk" and disk.volume is not None]
    return min(disks, key=lambda one: (one.boot is None, one.boot or 0), default=None)


def converted(vm: Vm, target: str, runs: Runs) -> Vm:
    """The definition that starts there. One that may run on both stays so."""
    moved = moved_to(vm, target, away=False)
    if vm.hypervisor in ("any", runs):
        return moved
    return dataclasses.replace(moved, hypervisor=runs, generation=vm.generation + 1)


# ---------------------------------------------------------------------------------------------
# What stands against it


def findings(inside: Inside | None, vm: Vm, runs: Runs) -> tuple[Finding, ...]:
    """Of a VM that is to start under that hypervisor with what was found in its disk."""
    if inside is None:
        return (Finding(level="unread", why="it has no disk to start from"),)
    found = [Finding(level="unread", why=why) for why in inside.unread]
    found += [
        Finding(
            level="warning",
            why=f"{where} was not unmounted, so what was written to it last may not have been seen;"
            " shut the guest down properly before it goes",
        )
        for where in inside.in_use
    ]
    boot = _boot(inside, vm, runs)
    kernel = _kernel(inside, boot)
    found += _loader(inside, vm, runs, boot)
    if kernel is None:
        if not inside.unread:
            found.append(Finding(level="unread", why="no kernel of Linux is to be seen in it"))
    else:
        found += _of_kernel(kernel, vm, runs)
    found += _names(inside, vm, runs)
    if boot is not None:
        found += _console(boot, vm, runs)
    return tuple(dict.fromkeys(found))


def _by_bios(vm: Vm, runs: Runs) -> bool:
    """The first sector of its disk starts it there; else a boot loader of Xen looks into it."""
    return runs == "kvm" or vm.xen_kind == "hvm"


def _boot(inside: Inside, vm: Vm, runs: Runs) -> Boot | None:
    """What is started first there, by whatever reads it: not each loader reads all of them."""
    plain = [one for one in inside.boots if one.file.endswith("syslinux.cfg")]
    readable = [one for one in inside.boots if one not in plain]
    if _by_bios(vm, runs):
        choice = [*plain, *readable]
    elif vm.xen_loader == "pvgrub":
        choice = [one for one in readable if one.file.endswith("/grub/grub.cfg")]
    else:
        choice = readable
    return choice[0] if choice else None


def _kernel(inside: Inside, boot: Boot | None) -> Kernel | None:
    named = "" if boot is None else boot.kernel.removeprefix("/boot")
    for one in inside.kernels:
        if one.path.removeprefix("/boot") == named:
            return one
    return inside.kernels[0] if inside.kernels else None


def _loader(inside: Inside, vm: Vm, runs: Runs, boot: Boot | None) -> list[Finding]:
    by_bios = _by_bios(vm, runs)
    if by_bios and not inside.bios_starts:
        return [
            Finding(
                level="error",
                why="its disk has no boot loader in the first sector, where a BIOS would find one;"
                " install one in the guest (grub-install)",
            )
        ]
    if not by_bios and boot is None:
        level: Level = "unread" if inside.unread else "error"
        return [
            Finding(
                level=level,
                why=f"{vm.xen_loader} finds no configuration of a boot loader in it"
                f" ({_READ_BY[vm.xen_loader]}), so it would not know which kernel to start;"
                " install GRUB in the guest, or make it an HVM guest (--xen-kind hvm)",
            )
        ]
    return []


def _of_kernel(kernel: Kernel, vm: Vm, runs: Runs) -> list[Finding]:
    found = []
    whose = f"its kernel {kernel.version or kernel.path}"
    entries = kernel.entries
    if not _by_bios(vm, runs) and entries is not None and vm.xen_kind not in entries:
        option = "CONFIG_XEN_PV" if vm.xen_kind == "pv" else "CONFIG_XEN_PVH"
        kind = vm.xen_kind.upper()
        why = f"{whose} cannot be started as a {kind} guest: it was built without {option}"
        found.append(Finding(level="error", why=why))
    for driver, need in _needed(vm, runs).items():
        found += _of_driver(kernel, driver, need, whose, runs)
    # Where all that is needed was found without it, nobody has to know that it was not read.
    missed = any(one.level == "unread" for one in found)
    if kernel.unread and (missed or (entries is None and not _by_bios(vm, runs))):
        found.insert(0, Finding(level="unread", why=kernel.unread))
    return found


def _needed(vm: Vm, runs: Runs) -> dict[str, Literal["disk", "card"]]:
    """Each driver, and what for."""
    first, needed = boot_disk(vm), dict[str, Literal["disk", "card"]]()
    if runs == "xen":
        needed |= {} if vm.xen_kind == "hvm" else {"xen_blkfront": "disk"}
        if vm.nics and vm.xen_kind != "hvm":
            needed["xen_netfront"] = "card"
        return needed
    for nic in vm.nics:
        needed |= dict.fromkeys(_DRIVERS_OF_NIC[nic.model], "card")
    if first is not None:
        needed |= dict.fromkeys(_DRIVERS_OF_BUS[first.bus], "disk")
    return needed


def _of_driver(
    kernel: Kernel, driver: str, need: Literal["disk", "card"], whose: str, runs: Runs
) -> list[Finding]:
    has = kernel.drivers.get(driver, "unknown")
    enough = ("builtin", "initramfs") if need == "disk" else ("builtin", "initramfs", "module")
    if has in enough:
        return []
    what = "its disk" if need == "disk" else "its network cards"
    if has == "unknown" or (kernel.unread and has == "module"):
        return [
            Finding(level="unread", why=f"whether {whose} has {driver}, for {what}, is not known")
        ]
    if has == "module" and kernel.initramfs:
        why = (
            f"{whose} has {driver}, but its initramfs {kernel.initramfs} has not, so that it would"
            f" not find {what} under {NAMES[runs]}; add it there (update-initramfs, dracut)"
        )
    else:
        where = f" nor has its initramfs {kernel.initramfs}" if kernel.initramfs else ""
        why = (
            f"{whose} has no {driver}{where}, so that it would not find {what} under {NAMES[runs]}"
        )
    return [Finding(level="error", why=why)]


def _names(inside: Inside, vm: Vm, runs: Runs) -> list[Finding]:
    """Devices that are called otherwise there, in fstab and on the kernel's command line."""
    other, now = xen_guests.targets(vm), {disk.name: disk.target for disk in vm.disks}
    before, after = (now, other) if runs == "xen" else (other, now)
    found = []
    for boot in inside.boots:
        root = next((w for w in boot.command_line.split() if w.startswith("root=")), "")
        told = _renamed(root.removeprefix("root="), before, after)
        if told:
            why = f"{boot.file} starts it with {root}, {told}; use root=UUID=…"
            found.append(Finding(level="error", why=why))
    for mount in inside.mounts:
        told = _renamed(mount.device, before, after)
        if not told:
            continue
        lenient = _MAY_BE_MISSING & set(mount.options.split(",")) or mount.where in ("none", "swap")
        found.append(
            Finding(
                level="warning" if lenient else "error",
                why=f"/etc/fstab mounts {mount.device} at {mount.where}, {told}; use UUID=…",
            )
        )
    return found


def _renamed(device: str, before: dict[str, str], after: dict[str, str]) -> str:
    """ "" where the name stands for the same disk there."""
    found = _DEVICE.match(device)
    if found is None:
        return ""
    disk = next((name for name, target in before.items() if target == found[1]), None)
    if disk is None:
        # It was written for the other side already, or means none of these disks.
        return "" if found[1] in after.values() else "which is none of its disks"
    if after.get(disk) == found[1]:
        return ""
    return f"which is called /dev/{after.get(disk, 'nothing')} there"


def _console(boot: Boot, vm: Vm, runs: Runs) -> list[Finding]:
    words = [word for word in boot.command_line.split() if word.startswith("console=")]
    wanted = "hvc0" if runs == "xen" and vm.xen_kind != "hvm" else "ttyS0"
    if not words or any(word.startswith(f"console={wanted}") for word in words):
        return []
    why = (
        f"{boot.file} sends its kernel's messages to {', '.join(words)}; its console under"
        f" {NAMES[runs]} is {wanted}, and may stay silent"
    )
    return [Finding(level="warning", why=why)]


# ---------------------------------------------------------------------------------------------
# The plan


def cross(
    cluster: Cluster,
    name: str,
    target: str,
    found: tuple[Finding, ...],
    *,
    trial: Trial | None,
    overhead_mib: int,
    unchecked: bool = False,
    unread: bool = False,
    keeping: Keeping = NOTHING_KEPT,
) -> Plan:
    """It is recorded there, started and watched. `trial` None: it is only recorded.

    When its guest does not come up, the plan is undone: it is off, and back where it was.
    """
    vm, node = cluster.vm(name), need_free_to_move(cluster, name, target)
    assert node.facts is not None
    runs = node.facts.runs
    _need_consent(vm, target, runs, found, unchecked=unchecked, unread=unread)
    moved = converted(vm, target, runs)
    steps: list[Step] = []
    if trial is None:
        home(cluster, moved, target)
        steps = [save_vm(vm, moved)]
    else:
        place(cluster, moved, overhead_mib=overhead_mib, only=target, keeping=keeping)
        moved = put_into_cell(cluster, dataclasses.replace(moved, wanted="running"))
        steps = [
            *ensure_networks(cluster, moved),
            # Before it is started, so that the record never names another host than it may be on.
            save_vm(vm, moved),
            StartDomain(vm=moved, networks=networks_of(cluster, moved), cpu=for_vm(cluster, moved)),
            save_clients(cluster, moved),
            AwaitGuest(vm=moved, timeout_s=trial.timeout_s, expect=trial.expect),
        ]
    kind = f" as a {moved.xen_kind.upper()} guest" if runs == "xen" else ""
    told = "; ".join(str(one) for one in found)
    return Plan(
        verb="relocate",
        subject=name,
        why=f"to {target} under {NAMES[runs]}{kind}, on the same disks" + (told and f"; {told}"),
        steps=tuple(steps),
        claims=(f"vm/{name}",),
        reads=reads(
            cluster,
            f"vm/{name}",
            f"clients/{vm.id}",
            f"node/{target}",
            *dict.fromkeys(f"network/{nic.network}" for nic in vm.nics),
        ),
    )


def _need_consent(
    vm: Vm,
    target: str,
    runs: Runs,
    found: tuple[Finding, ...],
    *,
    unchecked: bool,
    unread: bool,
) -> None:
    errors = [one.why for one in found if one.level == "error"]
    open_ = [one.why for one in found if one.level == "unread"]
    if errors and not unchecked:
        raise Unsupported(
            f"cannot relocate VM {vm.name!r} to {target!r}: it would not start under"
            f" {NAMES[runs]}: {'; '.join(errors)}; put that right in the guest first, or try it all"
            " the same (--unchecked)",
            vm=vm.name,
            findings=[str(one) for one in found],
        )
    if open_ and not (unread or unchecked):
        raise Unsupported(
            f"cannot relocate VM {vm.name!r} to {target!r}: whether it starts under {NAMES[runs]}"
            f" cannot be told beforehand: could not look into: {'; '.join(open_)}; try it all the"
            " same (--unread)",
            vm=vm.name,
            findings=[str(one) for one in found],
        )
