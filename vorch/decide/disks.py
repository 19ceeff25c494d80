"""What can be done with a VM's disks as a whole: move, flatten, sparsify, export, limit."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from vorch.decide.at_once import check_arrived
from vorch.decide.clients import save_clients
from vorch.decide.fresh import Fresh
from vorch.decide.records import is_on, known_power, reads, save_trashed, save_vm
from vorch.errors import Conflict, Invalid, Unsupported
from vorch.model import Cluster, Disk, ImageDisk, IoLimits, Pool, Power, Vm, Volume
from vorch.plan import (
    ChangeMedia,
    CopyVolume,
    CreateVolume,
    DropSnapshot,
    ExportFormat,
    ExportVolume,
    FlattenVolume,
    LimitDisk,
    MoveDisk,
    PlaceFile,
    Plan,
    ResumeDomain,
    SnapshotDisks,
    SparsifyVolume,
    Step,
    TrashVolume,
)

FORMATS: tuple[ExportFormat, ...] = ("qcow2", "raw", "vmdk")


def _volume(vm: Vm, disk: Disk, verb: str) -> Volume:
    """Of a disk that is the VM's own."""
    if disk.volume is None:
        raise Invalid(f"cannot {verb} disk {disk.name!r} of VM {vm.name!r}: the drive is empty")
    if not disk.owned:
        raise Invalid(
            f"cannot {verb} disk {disk.name!r} of VM {vm.name!r}: what is in it belongs to the"
            " image store"
        )
    return disk.volume


def _writable(vm: Vm, disk: Disk, verb: str) -> Volume:
    if disk.device != "disk" or disk.read_only:
        raise Invalid(f"cannot {verb} disk {disk.name!r} of VM {vm.name!r}: it is only read")
    return _volume(vm, disk, verb)


def _holders(vm: Vm, disk: Disk) -> list[str]:
    return [one.name for one in vm.snapshots if disk.name in one.disks]


def _is_folder(pool: Pool) -> bool:
    return pool.url.startswith("dir:")


def _snapshots_inside(cluster: Cluster, vm: Vm, disk: Disk, volume: Volume, verb: str) -> None:
    """Snapshots inside a qcow2 file would lose what they show."""
    held = _holders(vm, disk)
    if held and _is_folder(cluster.pool(volume.pool)):
        raise Conflict(
            f"cannot {verb} disk {disk.name!r} of VM {vm.name!r}: snapshot {held[0]!r} is inside"
            " its file; delete it first",
            vm=vm.name,
            snapshots=held,
        )


# ---------------------------------------------------------------------------------------------
# Move


def movable(vm: Vm) -> tuple[str, ...]:
    """The disks that `disk move` without a name is about: all that are the VM's own."""
    return tuple(disk.name for disk in vm.disks if disk.owned and disk.volume is not None)


def disk_move(
    cluster: Cluster, name: str, disk_name: str, pool_name: str, fresh: Fresh, *, keep_s: float
) -> Plan:
    """To another pool: of a VM that is off by a copy, of a running one while it goes on.

    The old volume goes to the trash. What was a linked clone stands on nothing afterwards.
    """
    vm = cluster.vm(name)
    disk = vm.disk(disk_name)
    old, pool = _volume(vm, disk, "move"), cluster.pool(pool_name)
    power = known_power(cluster, vm, "move a disk of")
    held = _holders(vm, disk)
    if held:
        raise Conflict(
            f"cannot move disk {disk_name!r} of VM {name!r}: snapshot {held[0]!r} holds it, and"
            " snapshots cannot come along; delete them first, or make a full clone there"
            f" (vorch clone {name} NEW --pool {pool_name})",
            vm=name,
            snapshots=held,
        )
    if pool.node not in ("", vm.node):
        raise Unsupported(
            f"cannot move disk {disk_name!r} of VM {name!r} to pool {pool_name!r}: only"
            f" {pool.node!r} reaches that, and the VM is on {vm.node!r}; choose another pool, or"
            " move its disks to one that all hosts reach, and then the VM",
            vm=name,
            pool=pool_name,
        )
    if power is Power.STOPPING:
        raise Conflict(
            f"cannot move disk {disk_name!r} of VM {name!r}: it is stopping; wait until it is off",
            vm=name,
        )
    volume = Volume(pool=pool_name, name=fresh.volume(name, disk_name))
    moved = dataclasses.replace(disk, volume=volume)
    after = dataclasses.replace(vm, disks=tuple(moved if d is disk else d for d in vm.disks))
    key = f"{name}.{disk_name}.{fresh.token[:8]}"
    trashed = save_trashed(key, name, (old,), fresh, keep_s, vm=None)
    steps: list[Step]
    if disk.device == "cdrom":
        steps = [CopyVolume(source=old, snapshot=None, volume=volume, content="file")]
        if is_on(power):
            steps.append(ChangeMedia(vm=vm, disk=moved, before=disk))
        steps.append(save_vm(vm, after))
    elif is_on(power):
        paused = power is Power.PAUSED
        steps = [
            CreateVolume(volume=volume, size_bytes=disk.size_bytes),
            MoveDisk(vm=vm, disk=disk, volume=volume, paused=paused),
            save_vm(vm, after),
            save_clients(cluster, after),
        ]
        if not paused:
            steps.append(ResumeDomain(vm=after))
    else:
        copied = CopyVolume(source=old, snapshot=None, volume=volume)
        steps = [copied, save_vm(vm, after)]
    steps += [TrashVolume(volume=old), trashed]
    same = old.pool == pool_name
    how = "while it runs" if is_on(power) else "it is off"
    return Plan(
        verb="disk move",
        subject=name,
        why=f"disk {disk_name!r} is in pool {pool_name!r} already"
        if same
        else f"disk {disk_name!r} to pool {pool_name!r}, {how}",
        steps=() if same else tuple(steps),
        claims=(f"vm/{name}", f"trash/{key}"),
        reads=reads(cluster, f"vm/{name}", f"clients/{vm.id}", f"pool/{pool_name}"),
    )


# ---------------------------------------------------------------------------------------------
# What a disk takes up


def disk_flatten(cluster: Cluster, name: str, disk_name: str) -> Plan:
    """A linked clone stands on nothing afterwards, and takes as much room as what it shows."""
    vm = cluster.vm(name)
    disk = vm.disk(disk_name)
    volume = _writable(vm, disk, "flatten")
    known_power(cluster, vm, "flatten a disk of")
    _snapshots_inside(cluster, vm, disk, volume, "flatten")
    return Plan(
        verb="disk flatten",
        subject=name,
        why=f"{volume} gets all that it shows",
        steps=(FlattenVolume(vm=vm, disk=disk, volume=volume),),
        claims=(f"vm/{name}",),
        reads=reads(cluster, f"vm/{name}"),
    )


def disk_sparsify(cluster: Cluster, name: str, disk_name: str) -> Plan:
    vm = cluster.vm(name)
    disk = vm.disk(disk_name)
    volume = _writable(vm, disk, "sparsify")
    on = is_on(known_power(cluster, vm, "sparsify a disk of"))
    _snapshots_inside(cluster, vm, disk, volume, "sparsify")
    if on and _is_folder(cluster.pool(volume.pool)):
        raise Unsupported(
            f"cannot sparsify disk {disk_name!r} of VM {name!r} while it runs: its QEMU has the"
            " file; let the guest trim its file systems (fstrim), or stop it first",
            vm=name,
        )
    return Plan(
        verb="disk sparsify",
        subject=name,
        why=f"what holds only zeros in {volume} is given back",
        steps=(SparsifyVolume(vm=vm, volume=volume),),
        claims=(f"vm/{name}",),
        reads=reads(cluster, f"vm/{name}"),
    )


# ---------------------------------------------------------------------------------------------
# Export


def _checked_format(format_: str) -> ExportFormat:
    for one in FORMATS:
        if one == format_:
            return one
    raise Invalid(f"cannot export as {format_!r}: it is one of {', '.join(FORMATS)}")


def _written(
    volume: Volume, snapshot: str | None, path: str, format_: str, fresh: Fresh
) -> tuple[Step, Step]:
    folder, _, name = path.rpartition("/")
    partial = f"{folder}/.{name[:200]}.{fresh.token[:8]}.part"
    return (
        ExportVolume(
            volume=volume, snapshot=snapshot, path=partial, format=_checked_format(format_)
        ),
        PlaceFile(source=partial, path=path),
    )


def disk_export(
    cluster: Cluster,
    name: str,
    disk_name: str,
    path: str,
    fresh: Fresh,
    *,
    format_: str,
    snapshot: str | None,
) -> Plan:
    """Of a VM that is off, of a snapshot, or of a running VM by way of a snapshot for that time."""
    vm = cluster.vm(name)
    disk = vm.disk(disk_name)
    volume = _writable(vm, disk, "export")
    on = is_on(known_power(cluster, vm, "export a disk of"))
    steps: list[Step] = []
    last: list[Step] = []
    if snapshot is not None:
        if disk_name not in vm.snapshot(snapshot).disks:
            raise Invalid(
                f"cannot export disk {disk_name!r} of VM {name!r} at snapshot {snapshot!r}: it was"
                " not there then; choose another snapshot"
            )
        why = f"disk {disk_name!r} as it was at snapshot {snapshot!r}"
    elif on:
        snapshot = f"export-{fresh.token[:8]}"
        alone = dataclasses.replace(vm, disks=(disk,))
        steps.append(SnapshotDisks(vm=alone, snapshot=snapshot, freeze=vm.agent))
        last.append(DropSnapshot(vm=alone, snapshot=snapshot))
        why = f"disk {disk_name!r} as it is at this moment (crash-consistent" + (
            ", or frozen if its agent answers)" if vm.agent else ")"
        )
    else:
        why = f"disk {disk_name!r}; the VM is off"
    return Plan(
        verb="disk export",
        subject=name,
        why=why,
        steps=(*steps, *_written(volume, snapshot, path, format_, fresh), *last),
        claims=(f"vm/{name}",),
        reads=reads(cluster, f"vm/{name}"),
    )


def image_export(
    cluster: Cluster, name: str, path: str, fresh: Fresh, *, disk: str | None, format_: str
) -> Plan:
    part = exported_part(cluster, name, disk, format_)
    return Plan(
        verb="image export",
        subject=name,
        why=f"{part.volume} as {format_}",
        steps=_written(part.volume, None, path, format_, fresh),
        claims=(f"image/{name}",),
        reads=reads(cluster, f"image/{name}"),
    )


def exported_part(cluster: Cluster, name: str, disk: str | None, format_: str) -> ImageDisk:
    """The disk of the image that is meant, if it can be had in that form."""
    image = cluster.image(name)
    parts = {part.name: part for part in image.disks}
    if disk is None and len(parts) > 1:
        raise Invalid(
            f"cannot export image {name!r}: it has the disks {', '.join(parts)}; say which (--disk)"
        )
    if disk is not None and disk not in parts:
        raise Invalid(f"cannot export disk {disk!r} of image {name!r}: it has {', '.join(parts)}")
    if image.kind == "iso" and format_ != "raw":
        raise Invalid(f"cannot export image {name!r} as {format_}: it is a CD; export it as raw")
    check_arrived(image, f"export image {name!r}")
    return parts[disk] if disk is not None else image.disks[0]


# ---------------------------------------------------------------------------------------------
# Limits


def disk_limit(cluster: Cluster, name: str, disk_name: str, changes: Mapping[str, int]) -> Plan:
    """What is named in `changes` is set anew, at once where the VM runs; 0 lifts a limit."""
    vm = cluster.vm(name)
    disk = vm.disk(disk_name)
    if not changes:
        raise Invalid(
            f"cannot limit disk {disk_name!r} of VM {name!r}: say how much, as in --iops 500"
        )
    if disk.device != "disk":
        raise Invalid(f"cannot limit disk {disk_name!r} of VM {name!r}: CDs are not limited")
    limits = changed_limits(disk.limits, changes)
    limited = dataclasses.replace(disk, limits=limits)
    after = dataclasses.replace(vm, disks=tuple(limited if d is disk else d for d in vm.disks))
    on = is_on(known_power(cluster, vm, "limit a disk of"))
    steps: list[Step] = [LimitDisk(vm=vm, disk=limited, before=disk)] if on else []
    same = limits == disk.limits
    what = f"disk {disk_name!r}: {str(limits) or 'no limit'}"
    return Plan(
        verb="disk limit",
        subject=name,
        why=f"{what}, as it is already" if same else what,
        steps=() if same else (*steps, save_vm(vm, after)),
        claims=(f"vm/{name}",),
        reads=reads(cluster, f"vm/{name}"),
    )


def changed_limits(before: IoLimits, changes: Mapping[str, int]) -> IoLimits:
    """With the last limit of a kind goes its burst."""
    fields = {**dataclasses.asdict(before), **changes}
    for kind in ("iops", "mib_s"):
        named = (kind, f"read_{kind}", f"write_{kind}")
        if not any(fields[one] for one in named) and f"burst_{kind}" not in changes:
            fields[f"burst_{kind}"] = 0
    if not (fields["burst_iops"] or fields["burst_mib_s"]) and "burst_s" not in changes:
        fields["burst_s"] = 0
    return IoLimits(**fields)
