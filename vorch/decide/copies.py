"""Copies and points in time: clone, template, snapshots."""

from __future__ import annotations

import dataclasses

from vorch.decide.baseline import for_vm
from vorch.decide.clients import save_clients
from vorch.decide.fresh import Fresh
from vorch.decide.lifecycle import seed_disk
from vorch.decide.place import NOTHING_KEPT, Choice, Keeping, home, place, put_into_cell
from vorch.decide.records import (
    cd_bus,
    ensure_networks,
    is_on,
    known_power,
    need_stopped,
    networks_of,
    new_name,
    new_vm_name,
    reads,
    save,
    save_vm,
)
from vorch.errors import Conflict, Invalid, NotFound
from vorch.model import (
    CloudInit,
    Cluster,
    Consistency,
    Disk,
    Hypervisors,
    Image,
    ImageDisk,
    Nic,
    Snapshot,
    Vm,
    Volume,
    XenKind,
    XenLoader,
)
from vorch.plan import (
    BaseVolume,
    CloneVolume,
    CopyVolume,
    DropSnapshot,
    Plan,
    PurgeVolume,
    RollbackDisks,
    SnapshotDisks,
    StartDomain,
    Step,
)


def clone(
    cluster: Cluster,
    name: str,
    new_vm: str,
    fresh: Fresh,
    *,
    linked: bool,
    cloud_init: CloudInit | None,
    start: bool,
    overhead_mib: int,
    pool: str | None = None,
    hypervisor: Hypervisors | None = None,
    xen_kind: XenKind | None = None,
    xen_loader: XenLoader | None = None,
    keeping: Keeping = NOTHING_KEPT,
) -> Plan:
    """A second VM like the first, with an identity of its own.

    A full clone copies a snapshot, so the source may go on running. A linked clone makes what the
    source's disks hold now the common base of both, for which the source must be off.
    """
    if name not in cluster.vms and name in cluster.images:
        raise NotFound(
            f"cannot clone VM {name!r}: that is an image; make a VM of it with"
            f" `vorch create {new_vm} --image {name}`",
            image=name,
        )
    vm = cluster.vm(name)
    new_vm_name(cluster, new_vm, "clone as")
    power = known_power(cluster, vm, "clone")
    if linked:
        need_stopped(
            cluster,
            vm,
            "make a linked clone of",
            "what its disks hold must stand still to be shared (a full clone can be made now)",
        )
        if vm.snapshots:
            raise Conflict(
                f"cannot make a linked clone of VM {name!r}: it has snapshots; delete them first,"
                " or make a full clone",
                vm=name,
            )
    to = None if pool is None else cluster.pool(pool)
    if linked and any(disk.volume and disk.volume.pool != pool for disk in vm.data_disks if to):
        raise Invalid(
            f"cannot make a linked clone of VM {name!r} in pool {pool!r}: its disks are in another"
            " one, and a linked clone stands on them; make a full clone, or leave the pool away"
        )
    new, steps, last = _drawn_up(
        cluster, vm, new_vm, fresh, linked=linked, cloud_init=cloud_init, pool=pool
    )
    new = dataclasses.replace(
        new,
        hypervisor=hypervisor or vm.hypervisor,
        xen_kind=xen_kind or vm.xen_kind,
        xen_loader=xen_loader or vm.xen_loader,
    )
    new = dataclasses.replace(new, wanted="running" if start else "stopped")
    choice: Choice
    node = to.node if to is not None and to.node else vm.node
    if start:
        # Where every host reaches its disks it goes where it fits best.
        only = None if _everywhere(cluster, new) else node
        choice = place(cluster, new, overhead_mib=overhead_mib, only=only, keeping=keeping)
    else:
        # Beside the first one, unless that is for the other hypervisor.
        choice = home(cluster, new, node if new.hypervisor in ("any", vm.hypervisor) else None)
    new = dataclasses.replace(new, node=choice.node, numa_cell=None)
    if start:
        new = put_into_cell(cluster, new)
        steps += [
            *ensure_networks(cluster, new),
            StartDomain(vm=new, networks=networks_of(cluster, new), cpu=for_vm(cluster, new)),
            save_clients(cluster, new),
        ]
    kind = "linked" if linked else "full"
    where = "" if pool is None else f" in pool {pool!r}"
    return Plan(
        verb="clone",
        subject=new_vm,
        why=f"a {kind} clone{where} of {name!r}, which is {power.value}",
        steps=(*steps, save_vm(None, new), *last),
        claims=(f"vm/{name}", f"vm/{new_vm}"),
        reads=reads(cluster, f"vm/{name}", f"vm/{new_vm}"),
    )


def second(
    cluster: Cluster,
    name: str,
    new_vm: str,
    fresh: Fresh,
    *,
    linked: bool,
    cloud_init: CloudInit | None,
    pool: str | None,
) -> Vm:
    """What the clone would be, wherever it goes."""
    vm = cluster.vm(name)
    return _drawn_up(cluster, vm, new_vm, fresh, linked=linked, cloud_init=cloud_init, pool=pool)[0]


def _drawn_up(
    cluster: Cluster,
    vm: Vm,
    new_vm: str,
    fresh: Fresh,
    *,
    linked: bool,
    cloud_init: CloudInit | None,
    pool: str | None,
) -> tuple[Vm, list[Step], list[Step]]:
    """The definition, the steps that make its disks, and those that come last of all."""
    macs = fresh.macs(len(vm.nics), cluster)
    nics = tuple(
        Nic(name=n.name, mac=m, network=n.network, model=n.model, boot=n.boot)
        for n, m in zip(vm.nics, macs, strict=True)
    )
    steps: list[Step] = []
    last: list[Step] = []
    disks: list[Disk] = []
    snapshot = f"clone-{fresh.token[:8]}"
    live = is_on(cluster.power(vm))
    if live:
        steps.append(SnapshotDisks(vm=vm, snapshot=snapshot))
    for disk in vm.disks:
        if disk not in vm.data_disks:
            if disk.device == "cdrom" and not disk.owned:
                disks.append(disk)
            continue
        assert disk.volume is not None
        volume = Volume(pool=pool or disk.volume.pool, name=fresh.volume(new_vm, disk.name))
        disks.append(dataclasses.replace(disk, volume=volume))
        if linked:
            base = Volume(pool=disk.volume.pool, name=fresh.volume(vm.name, f"{disk.name}.base"))
            steps.append(BaseVolume(volume=disk.volume, base=base))
            steps.append(CloneVolume(base=base, volume=volume, size_bytes=disk.size_bytes))
            # The base belongs to nobody: it goes with the last disk that stands on it.
            last.append(PurgeVolume(volume=base))
        else:
            steps.append(
                CopyVolume(source=disk.volume, snapshot=snapshot if live else None, volume=volume)
            )
    if cloud_init is not None:
        bus = cd_bus(vm.machine)
        beside = disks[0].volume if disks else None
        if beside is None:
            raise Invalid(
                f"cannot give the clone of VM {vm.name!r} a cloud-init seed: it has no disk"
            )
        seed, step = seed_disk(new_vm, fresh, nics, cloud_init, beside, disks, bus)
        disks.append(seed)
        steps.append(step)
    if live:
        last.append(DropSnapshot(vm=vm, snapshot=snapshot))
    new = dataclasses.replace(
        vm,
        name=new_vm,
        id=fresh.uuid,
        generation=1,
        wanted="stopped",
        disks=tuple(disks),
        nics=nics,
        snapshots=(),
        created_at=fresh.now,
    )
    return new, steps, last


def _everywhere(cluster: Cluster, vm: Vm) -> bool:
    volumes = [disk.volume for disk in vm.disks if disk.volume is not None]
    return all(cluster.pool(volume.pool).shared for volume in volumes)


def template(
    cluster: Cluster,
    name: str,
    image: str,
    fresh: Fresh,
    *,
    description: str,
    pool: str | None = None,
) -> Plan:
    """An image made of a VM's disks; the VM stays as it is.

    Of a VM that is off, without snapshots, this takes no time: its disks become the image's, and
    it goes on with linked clones of them. Else the disks are copied.
    """
    vm = cluster.vm(name)
    new_name("image", cluster.images, image)
    power = known_power(cluster, vm, "make a template of")
    if not vm.data_disks:
        raise Invalid(f"cannot make a template of VM {name!r}: it has no disk")
    live = is_on(power)
    elsewhere = pool is not None and any(
        disk.volume is not None and disk.volume.pool != cluster.pool(pool).name
        for disk in vm.data_disks
    )
    at_once = not live and not vm.snapshots and not elsewhere
    snapshot = f"template-{fresh.token[:8]}"
    steps: list[Step] = []
    last: list[Step] = []
    parts: list[ImageDisk] = []
    if live:
        steps.append(SnapshotDisks(vm=vm, snapshot=snapshot))
        last.append(DropSnapshot(vm=vm, snapshot=snapshot))
    for disk in vm.data_disks:
        assert disk.volume is not None
        where = pool or disk.volume.pool
        volume = Volume(pool=where, name=fresh.volume(f"image.{image}", disk.name))
        parts.append(
            ImageDisk(
                name=disk.name,
                volume=volume,
                size_bytes=disk.size_bytes,
                bus=disk.bus,
                boot=disk.boot,
            )
        )
        if at_once:
            steps.append(BaseVolume(volume=disk.volume, base=volume))
        else:
            steps.append(
                CopyVolume(source=disk.volume, snapshot=snapshot if live else None, volume=volume)
            )
    made = Image(
        name=image,
        kind="template",
        disks=tuple(parts),
        source=f"VM {name}",
        format="qcow2",
        firmware=vm.firmware,
        hypervisor=vm.hypervisor,
        xen_kind=vm.xen_kind,
        xen_loader=vm.xen_loader,
        vcpus=vm.vcpus,
        memory_mib=vm.memory_mib,
        description=description,
        created_at=fresh.now,
    )
    how = "its disks become the image's" if at_once else f"a copy, as the VM is {power.value}"
    if not at_once and not live:
        how = f"a copy in pool {pool!r}" if elsewhere else "a copy, as the VM has snapshots"
    return Plan(
        verb="template",
        subject=image,
        why=f"of VM {name!r}: {how}",
        steps=(*steps, save("image", image, None, made), *last),
        claims=(f"vm/{name}", f"image/{image}"),
        reads=reads(cluster, f"vm/{name}", f"image/{image}"),
    )


# ---------------------------------------------------------------------------------------------
# Snapshots


def snapshot_create(
    cluster: Cluster, name: str, snapshot: str, fresh: Fresh, *, freeze: bool, description: str
) -> Plan:
    vm = cluster.vm(name)
    power = known_power(cluster, vm, "snapshot")
    if not vm.data_disks:
        raise Invalid(f"cannot snapshot VM {name!r}: it has no disk of its own")
    if snapshot in [one.name for one in vm.snapshots]:
        raise Conflict(
            f"cannot take snapshot {snapshot!r} of VM {name!r}: it has one of that name; choose"
            " another, or delete that one first",
            vm=name,
            snapshot=snapshot,
        )
    taken = Snapshot(
        name=snapshot,
        taken_at=fresh.now,
        consistency=Consistency.CRASH,
        disks={disk.name: disk.size_bytes for disk in vm.data_disks},
        description=description,
    )
    after = dataclasses.replace(vm, snapshots=(*vm.snapshots, taken))
    fill = {f"snapshots.{len(vm.snapshots)}.consistency": "consistency"}
    if not is_on(power):
        why = "the VM is off"
    elif freeze and vm.agent:
        why = "the guest is frozen through its agent if that answers"
    else:
        why = "as the disks are at that moment (crash-consistent)"
    return Plan(
        verb="snapshot create",
        subject=name,
        why=why,
        steps=(
            SnapshotDisks(vm=vm, snapshot=snapshot, freeze=freeze and vm.agent),
            save_vm(vm, after, fill),
        ),
        claims=(f"vm/{name}",),
        reads=reads(cluster, f"vm/{name}"),
    )


def snapshot_rollback(cluster: Cluster, name: str, snapshot: str) -> Plan:
    """Contents and sizes of the disks as they were; CPUs, memory and NICs stay as they are."""
    vm = cluster.vm(name)
    point = vm.snapshot(snapshot)
    need_stopped(cluster, vm, "roll back", "its disks cannot change under it")
    now = {disk.name for disk in vm.data_disks}
    if now != set(point.disks):
        missing = ", ".join(sorted(set(point.disks) - now)) or "none"
        more = ", ".join(sorted(now - set(point.disks))) or "none"
        raise Conflict(
            f"cannot roll VM {name!r} back to {snapshot!r}: its disks are not the same as then"
            f" (gone since: {missing}; new since: {more}); make them the same first",
            vm=name,
            snapshot=snapshot,
        )
    disks = tuple(
        dataclasses.replace(disk, size_bytes=point.disks[disk.name])
        if disk.name in point.disks
        else disk
        for disk in vm.disks
    )
    after = dataclasses.replace(vm, disks=disks)
    return Plan(
        verb="snapshot rollback",
        subject=name,
        why=f"to {snapshot!r}; what was written since is lost",
        steps=(RollbackDisks(vm=vm, snapshot=snapshot), save_vm(vm, after)),
        claims=(f"vm/{name}",),
        reads=reads(cluster, f"vm/{name}"),
    )


def snapshot_delete(cluster: Cluster, name: str, snapshot: str) -> Plan:
    vm: Vm = cluster.vm(name)
    vm.snapshot(snapshot)
    known_power(cluster, vm, "delete a snapshot of")
    after = dataclasses.replace(
        vm, snapshots=tuple(one for one in vm.snapshots if one.name != snapshot)
    )
    return Plan(
        verb="snapshot delete",
        subject=name,
        why=f"{snapshot!r}; the disks stay as they are",
        steps=(DropSnapshot(vm=vm, snapshot=snapshot), save_vm(vm, after)),
        claims=(f"vm/{name}",),
        reads=reads(cluster, f"vm/{name}"),
    )
