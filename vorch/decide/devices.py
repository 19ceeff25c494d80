"""What can be plugged in and out: disks, NICs, CDs. Live where the VM runs, else recorded."""

from __future__ import annotations

import dataclasses

from vorch.decide.clients import drop_client, save_clients
from vorch.decide.fresh import Fresh
from vorch.decide.lifecycle import default_pool
from vorch.decide.records import (
    cd_bus,
    hosts_of,
    is_on,
    known_power,
    next_target,
    reads,
    save,
    save_trashed,
    save_vm,
)
from vorch.errors import Conflict, Invalid, NotFound, Unsupported
from vorch.model import (
    GIB,
    TARGET_PREFIX,
    Cluster,
    Disk,
    DiskBus,
    IoLimits,
    Nic,
    NicModel,
    Vm,
    Volume,
    check_mac,
    check_name,
    check_range,
)
from vorch.plan import (
    AttachDisk,
    AttachNic,
    ChangeMedia,
    CreateVolume,
    DetachDisk,
    DetachNic,
    EnsureNetwork,
    GrowVolume,
    Plan,
    RestoreVolume,
    Step,
    TrashVolume,
)

PLUGGABLE = (DiskBus.VIRTIO, DiskBus.SCSI, DiskBus.XEN)


def disk_attach(
    cluster: Cluster,
    name: str,
    fresh: Fresh,
    *,
    disk: str | None = None,
    size_gib: int | None = None,
    volume: Volume | None = None,
    volume_size_bytes: int = 0,
    pool: str | None = None,
    bus: DiskBus = DiskBus.VIRTIO,
    limits: IoLimits | None = None,
) -> Plan:
    """A new, empty disk of a size, or a volume that is there and belongs to nobody."""
    vm = cluster.vm(name)
    if (size_gib is None) == (volume is None):
        raise Invalid("cannot attach a disk: give either the size of a new one or a volume")
    running = is_on(known_power(cluster, vm, "attach a disk to"))
    if running and bus not in PLUGGABLE:
        raise Unsupported(
            f"cannot attach a disk to VM {name!r}: {bus.value} disks cannot be plugged into a"
            " running VM; use virtio or scsi, or stop it first",
            vm=name,
        )
    label = (
        check_name(disk, "disk name") if disk else _free_name("data", [d.name for d in vm.disks])
    )
    if label in [d.name for d in vm.disks]:
        raise Conflict(
            f"cannot attach disk {label!r}: VM {name!r} has a disk of that name", vm=name
        )
    steps: list[Step] = []
    claims = [f"vm/{name}"]
    trash_steps: list[Step] = []
    rests_on: list[str] = []
    if volume is None:
        assert size_gib is not None
        size = check_range(size_gib, 1, 65536, "size of the disk", "GiB") * GIB
        where = cluster.pool(pool).name if pool else default_pool(cluster)
        volume = Volume(pool=where, name=fresh.volume(name, label))
        steps.append(CreateVolume(volume=volume, size_bytes=size))
    else:
        size = volume_size_bytes
        _nobodys(cluster, volume)
        # Nobody else attaches it meanwhile, and nobody has since this look.
        claims.append(f"volume/{volume.pool}.{volume.name}")
        rests_on = [
            *(f"vm/{one}" for one in cluster.vms),
            *(f"trash/{one}" for one in cluster.trash),
        ]
        for trashed in cluster.trash.values():
            if volume in trashed.volumes:
                if trashed.vm is not None:
                    raise Conflict(
                        f"cannot attach {volume}: it belongs to the deleted VM {trashed.name!r};"
                        f" have that back first (vorch undelete {trashed.name})"
                    )
                steps.append(RestoreVolume(volume=volume))
                trash_steps.append(save("trash", trashed.key, trashed, None))
                claims.append(f"trash/{trashed.key}")
    new = Disk(
        name=label,
        target=next_target([d.target for d in vm.disks], TARGET_PREFIX[bus]),
        volume=volume,
        size_bytes=size,
        bus=bus,
        limits=limits or IoLimits(),
    )
    after = dataclasses.replace(vm, disks=(*vm.disks, new))
    if running:
        steps += [AttachDisk(vm=vm, disk=new), save_clients(cluster, vm)]
    steps += [save_vm(vm, after), *trash_steps]
    return Plan(
        verb="disk attach",
        subject=name,
        why=f"{volume} as {new.target}, " + ("at once" if running else "at the next start"),
        steps=tuple(steps),
        claims=tuple(claims),
        reads=reads(cluster, *dict.fromkeys([f"vm/{name}", f"clients/{vm.id}", *rests_on])),
    )


def _nobodys(cluster: Cluster, volume: Volume) -> None:
    cluster.pool(volume.pool)
    for vm in cluster.vms.values():
        for disk in vm.disks:
            if disk.volume == volume:
                raise Conflict(
                    f"cannot attach {volume}: it is disk {disk.name!r} of VM {vm.name!r}"
                )
    for image in cluster.images.values():
        if volume in [disk.volume for disk in image.disks]:
            raise Conflict(
                f"cannot attach {volume}: it is part of image {image.name!r}, which is only read;"
                " clone it instead"
            )


def _free_name(stem: str, taken: list[str]) -> str:
    number = 1
    while f"{stem}{number}" in taken:
        number += 1
    return f"{stem}{number}"


def disk_detach(
    cluster: Cluster,
    name: str,
    disk_name: str,
    fresh: Fresh,
    *,
    keep: bool,
    keep_s: float,
    timeout_s: float,
) -> Plan:
    """The volume goes to the trash, or stays in the pool for another VM (`keep`)."""
    vm = cluster.vm(name)
    disk = vm.disk(disk_name)
    running = is_on(known_power(cluster, vm, "detach a disk from"))
    held = [one.name for one in vm.snapshots if disk_name in one.disks]
    if held:
        raise Conflict(
            f"cannot detach disk {disk_name!r} of VM {name!r}: snapshot {held[0]!r} holds it;"
            " delete the snapshot first",
            vm=name,
            snapshots=held,
        )
    if running and (disk.bus not in PLUGGABLE or disk.device == "cdrom"):
        raise Unsupported(
            f"cannot detach disk {disk_name!r} of VM {name!r}: a {disk.bus.value} {disk.device}"
            " cannot be unplugged from a running VM; stop it first",
            vm=name,
        )
    after = dataclasses.replace(vm, disks=tuple(d for d in vm.disks if d is not disk))
    steps: list[Step] = []
    if running:
        steps += drop_client(cluster, vm, disk_name)
        steps.append(DetachDisk(vm=vm, disk=disk, timeout_s=timeout_s))
    claims = [f"vm/{name}"]
    if disk.owned and disk.volume is not None and not keep:
        key = f"{name}.{disk_name}.{fresh.token[:8]}"
        trashed = save_trashed(key, name, (disk.volume,), fresh, keep_s, vm=None)
        steps += [TrashVolume(volume=disk.volume), save_vm(vm, after)]
        steps.append(trashed)
        claims.append(f"trash/{key}")
        why = (
            f"it can be had back for {keep_s / 3600:g} h (vorch disk attach --volume {disk.volume})"
        )
    else:
        steps.append(save_vm(vm, after))
        why = f"{disk.volume} stays in the pool" if disk.volume else "the drive is empty"
    return Plan(
        verb="disk detach",
        subject=name,
        why=why,
        steps=tuple(steps),
        claims=tuple(claims),
        reads=reads(cluster, f"vm/{name}", f"clients/{vm.id}"),
    )


def disk_grow(cluster: Cluster, name: str, disk_name: str, size_gib: int) -> Plan:
    vm = cluster.vm(name)
    disk = vm.disk(disk_name)
    running = is_on(known_power(cluster, vm, "grow a disk of"))
    size = check_range(size_gib, 1, 65536, "size of the disk", "GiB") * GIB
    if disk.device == "cdrom" or disk.read_only or disk.volume is None or not disk.owned:
        raise Invalid(f"cannot grow disk {disk_name!r} of VM {name!r}: it is only read")
    if size < disk.size_bytes:
        raise Invalid(
            f"cannot grow disk {disk_name!r} of VM {name!r} to {size_gib} GiB: it has"
            f" {disk.size_bytes / GIB:.4g} GiB already, and a disk is never made smaller",
            vm=name,
            disk=disk_name,
        )
    grown = dataclasses.replace(disk, size_bytes=size)
    after = dataclasses.replace(vm, disks=tuple(grown if d is disk else d for d in vm.disks))
    step = GrowVolume(
        volume=disk.volume, size_bytes=size, vm=vm if running else None, disk=disk_name
    )
    same = size == disk.size_bytes
    return Plan(
        verb="disk grow",
        subject=name,
        why="it has that size already" if same else f"disk {disk_name!r}, to {size_gib} GiB",
        steps=() if same else (step, save_vm(vm, after)),
        claims=(f"vm/{name}",),
        reads=reads(cluster, f"vm/{name}"),
    )


def nic_attach(
    cluster: Cluster,
    name: str,
    fresh: Fresh,
    *,
    network: str,
    mac: str | None = None,
    model: NicModel = NicModel.VIRTIO,
) -> Plan:
    vm = cluster.vm(name)
    on = cluster.network(network)
    running = is_on(known_power(cluster, vm, "attach a NIC to"))
    if mac is not None:
        mac = check_mac(mac.lower())
        for other in cluster.vms.values():
            if mac in [nic.mac for nic in other.nics]:
                raise Conflict(f"cannot use MAC address {mac}: VM {other.name!r} has it")
    else:
        mac = fresh.macs(1, cluster)[0]
    lack = cluster.lacks.get(vm.node, {}).get(network)
    if lack is not None:
        raise Unsupported(
            f"cannot attach a NIC to VM {name!r}: {vm.node!r} cannot have network {network!r}:"
            f" {lack}",
            vm=name,
            node=vm.node,
        )
    nic = Nic(
        name=_free_name("nic", [n.name for n in vm.nics]), mac=mac, network=network, model=model
    )
    after = dataclasses.replace(vm, nics=(*vm.nics, nic))
    steps: list[Step] = []
    if running:
        steps = [
            EnsureNetwork(node=vm.node, network=on, hosts=hosts_of(cluster, on)),
            AttachNic(vm=vm, nic=nic, network=on),
        ]
    return Plan(
        verb="nic attach",
        subject=name,
        why=f"{nic.name} on {network!r}, " + ("at once" if running else "at the next start"),
        steps=(*steps, save_vm(vm, after)),
        claims=(f"vm/{name}",),
        reads=reads(cluster, f"vm/{name}", f"network/{network}"),
    )


def nic_detach(cluster: Cluster, name: str, nic_name: str, *, timeout_s: float) -> Plan:
    vm = cluster.vm(name)
    nic = vm.nic(nic_name)
    for one in cluster.network(nic.network).forwards:
        if one.mac == nic.mac:
            raise Conflict(
                f"cannot detach NIC {nic.name!r} from VM {name!r}: port {one} is forwarded to it;"
                f" remove that first (vorch forward remove {name} {one.host_port}/{one.protocol})",
                vm=name,
            )
    running = is_on(known_power(cluster, vm, "detach a NIC from"))
    after = dataclasses.replace(vm, nics=tuple(n for n in vm.nics if n is not nic))
    steps: list[Step] = (
        [DetachNic(vm=vm, nic=nic, network=cluster.network(nic.network), timeout_s=timeout_s)]
        if running
        else []
    )
    return Plan(
        verb="nic detach",
        subject=name,
        why=f"{nic.name} ({nic.mac})",
        steps=(*steps, save_vm(vm, after)),
        claims=(f"vm/{name}",),
        reads=reads(cluster, f"vm/{name}"),
    )


def _drive(vm: Vm, drive: str | None) -> Disk:
    drives = [disk for disk in vm.disks if disk.device == "cdrom"]
    if drive is not None:
        disk = vm.disk(drive)
        if disk.device != "cdrom":
            raise Invalid(f"cannot use disk {drive!r} of VM {vm.name!r}: it is not a CD drive")
        return disk
    for disk in drives:
        if not disk.owned or disk.volume is None:
            return disk
    raise NotFound(
        f"cannot find a CD drive in VM {vm.name!r}: it has none to put a CD in; stop it and give it"
        " one by inserting while it is off",
        vm=vm.name,
    )


def cd_insert(cluster: Cluster, name: str, image: str, *, drive: str | None = None) -> Plan:
    """An ISO into the drive; a VM that is off and has no drive is given one."""
    vm = cluster.vm(name)
    iso = cluster.image(image)
    if iso.kind != "iso":
        raise Invalid(f"cannot insert image {image!r}: it is a disk image, not a CD")
    running = is_on(known_power(cluster, vm, "change the CD of"))
    volume, size = iso.disks[0].volume, iso.size_bytes
    steps: list[Step] = []
    try:
        before = _drive(vm, drive)
    except NotFound:
        if running or drive is not None:
            raise
        bus = cd_bus(vm.machine)
        new = Disk(
            name=_free_name("cd", [d.name for d in vm.disks]),
            target=next_target([d.target for d in vm.disks], TARGET_PREFIX[bus]),
            volume=volume,
            size_bytes=size,
            bus=bus,
            device="cdrom",
            owned=False,
            read_only=True,
        )
        after = dataclasses.replace(vm, disks=(*vm.disks, new))
    else:
        if before.owned and before.volume is not None:
            raise Conflict(
                f"cannot put a CD into drive {before.name!r} of VM {name!r}: its cloud-init seed is"
                " in there; name another drive"
            )
        new = dataclasses.replace(before, volume=volume, size_bytes=size, owned=False)
        after = dataclasses.replace(vm, disks=tuple(new if d is before else d for d in vm.disks))
        if running:
            steps.append(ChangeMedia(vm=vm, disk=new, before=before))
    return Plan(
        verb="cd insert",
        subject=name,
        why=f"{image!r} into drive {new.name!r}",
        steps=(*steps, save_vm(vm, after)),
        claims=(f"vm/{name}",),
        reads=reads(cluster, f"vm/{name}", f"image/{image}"),
    )


def cd_eject(cluster: Cluster, name: str, *, drive: str | None = None) -> Plan:
    vm = cluster.vm(name)
    before = _drive(vm, drive)
    running = is_on(known_power(cluster, vm, "change the CD of"))
    empty = dataclasses.replace(before, volume=None, size_bytes=0, owned=False)
    after = dataclasses.replace(vm, disks=tuple(empty if d is before else d for d in vm.disks))
    steps: list[Step] = []
    if before.volume is not None:
        if running:
            steps.append(ChangeMedia(vm=vm, disk=empty, before=before))
        if before.owned:
            raise Conflict(
                f"cannot eject the CD of drive {before.name!r} of VM {name!r}: it is its cloud-init"
                " seed; detach that disk while the VM is off"
            )
        steps.append(save_vm(vm, after))
    return Plan(
        verb="cd eject",
        subject=name,
        why=f"drive {before.name!r}" + ("" if before.volume else " is empty already"),
        steps=tuple(steps),
        claims=(f"vm/{name}",),
        reads=reads(cluster, f"vm/{name}"),
    )
