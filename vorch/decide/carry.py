"""Disks that go along with a VM to a host that does not reach them: what is made, kept, put away.

Pure. Disks that the guest writes are copied while it runs, by the hosts themselves; what it only
reads (a cloud-init seed) is copied before. The old ones go to the trash when the VM has arrived.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from vorch.decide.fresh import Fresh
from vorch.decide.records import save_trashed
from vorch.errors import Conflict, Invalid, Unsupported
from vorch.model import Cluster, Disk, Pool, Vm, Volume
from vorch.plan import CarryVolume, CreateVolume, Step, TrashVolume


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """The VM with its new volumes, and the steps before and after its move."""

    vm: Vm
    before: tuple[Step, ...] = ()
    after: tuple[Step, ...] = ()
    claims: tuple[str, ...] = ()
    why: str = ""


def carried(
    cluster: Cluster,
    vm: Vm,
    hosts: Sequence[str],
    pool: str,
    fresh: Fresh,
    keep_s: float,
    *,
    target: str | None = None,
) -> Carried:
    """Every disk that not all of these hosts reach goes into `pool`."""
    goal = _goal(cluster, vm, pool, target)
    wanted = [target] if target is not None else hosts
    going = [disk for disk in vm.disks if not _reached(cluster, disk, wanted)]
    if not going:
        raise Invalid(
            f"cannot copy disks of VM {vm.name!r} along into pool {pool!r}: they are all where"
            f" {' and '.join(map(repr, wanted))} can open them; leave the pool out",
            vm=vm.name,
            pool=pool,
        )
    _check(vm, going)
    new = {disk.name: Volume(pool=pool, name=fresh.volume(vm.name, disk.name)) for disk in going}
    before: list[Step] = []
    for disk in going:
        if _is_read(disk) and disk.volume is not None:
            before.append(CarryVolume(source=disk.volume, volume=new[disk.name]))
        else:
            before.append(CreateVolume(volume=new[disk.name], size_bytes=disk.size_bytes))
    old = tuple(disk.volume for disk in going if disk.volume is not None)
    key = f"{vm.name}.{fresh.token[:8]}"
    trashed = save_trashed(key, vm.name, old, fresh, keep_s, vm=None)
    disks = tuple(
        dataclasses.replace(disk, volume=new[disk.name]) if disk.name in new else disk
        for disk in vm.disks
    )
    return Carried(
        vm=dataclasses.replace(vm, disks=disks),
        before=tuple(before),
        after=(
            trashed,
            *(TrashVolume(volume=volume) for volume in old),
        ),
        claims=(f"trash/{key}",),
        why=f"; {', '.join(disk.name for disk in going)} go along into pool {goal.name!r}",
    )


def _goal(cluster: Cluster, vm: Vm, pool: str, target: str | None) -> Pool:
    goal = cluster.pool(pool)
    if not goal.shared and (not goal.node or goal.node != target):
        host = goal.node or "one host"
        raise Invalid(
            f"cannot migrate VM {vm.name!r} into pool {pool!r}: that one is on {host} alone; move"
            " the VM to that host, or name another pool",
            vm=vm.name,
            pool=pool,
        )
    return goal


def _reached(cluster: Cluster, disk: Disk, hosts: Sequence[str]) -> bool:
    if disk.volume is None:
        return True
    pool = cluster.pool(disk.volume.pool)
    return pool.shared or (bool(pool.node) and all(pool.node == host for host in hosts))


def _is_read(disk: Disk) -> bool:
    return disk.device == "cdrom" or disk.read_only


def _check(vm: Vm, going: Sequence[Disk]) -> None:
    for disk in going:
        if not disk.owned:
            raise Unsupported(
                f"cannot copy disk {disk.name!r} of VM {vm.name!r} along: its volume is not the"
                " VM's own, others may use it as well; "
                + (
                    f"eject it (vorch cd eject {vm.name})"
                    if disk.device == "cdrom"
                    else "detach it first"
                ),
                vm=vm.name,
                disk=disk.name,
            )
    if vm.snapshots and any(not _is_read(disk) for disk in going):
        raise Conflict(
            f"cannot copy the disks of VM {vm.name!r} along: its snapshots would stay behind;"
            f" delete them first (vorch snapshot delete {vm.name} …)",
            vm=vm.name,
        )
    if vm.direct_boot is not None:
        raise Unsupported(
            f"cannot copy the disks of VM {vm.name!r} along: it is being installed; wait until"
            " that is over",
            vm=vm.name,
        )
