"""How each step of a plan is done, and how it is undone: two tables, one function a cell.

Every act is safe to repeat, and every undo is safe when the act was done in part or not at all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vorch.errors import Conflict, TimedOut, Unsupported
from vorch.model import INITRD_SOURCE, KERNEL_SOURCE, Disk, Power, Source, Vm, Volume
from vorch.plan import (
    AskToStop,
    AttachDisk,
    AttachNic,
    AwaitEnd,
    BaseVolume,
    ChangeMedia,
    CloneVolume,
    CopyVolume,
    CreateVolume,
    CutDomain,
    DetachDisk,
    DetachNic,
    DropSnapshot,
    EnsureNetwork,
    ExtendInitrd,
    ExtractFile,
    ForgetDomain,
    GrowVolume,
    ImportVolume,
    PauseDomain,
    PurgeVolume,
    RemoveNetwork,
    ResetDomain,
    RestoreVolume,
    ResumeDomain,
    RollbackDisks,
    SetMemory,
    SetVcpus,
    SnapshotDisks,
    StartDomain,
    TrashVolume,
    WriteIso,
)
from vorch.ports import Hypervisor, Progress, World

Outcome = dict[str, Any]
Act = Callable[[Any, World, Progress], Outcome | None]

# The largest kernel, initrd or answer file that is handled in memory.
BOOT_FILE_LIMIT_BYTES = 512 * 1024**2
# How long a guest may stay deaf before it is asked to shut down once more.
ASK_AGAIN_S = 10.0
# How long a guest may take to let go again of what a failed plan has just plugged in.
UNPLUG_TIMEOUT_S = 20.0


def _sources(vm: Vm, world: World) -> dict[str, Source]:
    sources = {
        disk.name: world.images(disk.volume.pool).locate(disk.volume.name)
        for disk in vm.disks
        if disk.volume is not None
    }
    if vm.direct_boot is not None:
        boot = vm.direct_boot
        sources[KERNEL_SOURCE] = world.images(boot.kernel.pool).locate(boot.kernel.name)
        if boot.initrd is not None:
            sources[INITRD_SOURCE] = world.images(boot.initrd.pool).locate(boot.initrd.name)
    return sources


def _source(disk: Disk, world: World) -> Source | None:
    return None if disk.volume is None else world.images(disk.volume.pool).locate(disk.volume.name)


def _live(vm: Vm, host: Hypervisor) -> bool:
    domain = host.domain(vm.id)
    return domain is not None and domain.power not in (Power.STOPPED, Power.CRASHED)


def _by_pool(disks: tuple[Disk, ...]) -> dict[str, list[Disk]]:
    pools: dict[str, list[Disk]] = {}
    for disk in disks:
        if disk.volume is not None:
            pools.setdefault(disk.volume.pool, []).append(disk)
    return pools


def _volume_names(disks: list[Disk]) -> list[str]:
    return [disk.volume.name for disk in disks if disk.volume is not None]


def _purge(volume: Volume, world: World) -> None:
    world.images(volume.pool).purge(volume.name)


# ---------------------------------------------------------------------------------------------
# Volumes

NewVolume = (
    CreateVolume | CloneVolume | CopyVolume | ImportVolume | WriteIso | ExtractFile | ExtendInitrd
)


def create_volume(step: CreateVolume, world: World, progress: Progress) -> None:
    world.images(step.volume.pool).create(step.volume.name, step.size_bytes)


def clone_volume(step: CloneVolume, world: World, progress: Progress) -> None:
    if step.base.pool != step.volume.pool:
        raise Unsupported(
            f"cannot make {step.volume} a linked clone of {step.base}: they are in different pools;"
            " make a full clone, or use the pool of the image"
        )
    world.images(step.volume.pool).clone(step.base.name, step.volume.name, step.size_bytes)


def copy_volume(step: CopyVolume, world: World, progress: Progress) -> None:
    if step.source.pool != step.volume.pool:
        raise Unsupported(
            f"cannot copy {step.source} to {step.volume}: they are in different pools; use the pool"
            " of the source"
        )
    images = world.images(step.volume.pool)
    images.copy(step.source.name, step.snapshot, step.volume.name, progress)


def import_volume(step: ImportVolume, world: World, progress: Progress) -> Outcome:
    images = world.images(step.volume.pool)
    found = images.import_file(step.location, step.volume.name, step.content, step.sha256, progress)
    return {
        f"{step.volume} size_bytes": found.size_bytes,
        f"{step.volume} format": found.format,
        f"{step.volume} sha256": found.sha256,
    }


def write_iso(step: WriteIso, world: World, progress: Progress) -> None:
    data = world.media.iso(step.label, step.files)
    world.images(step.volume.pool).write_file(step.volume.name, data)


def undo_new_volume(
    step: NewVolume,
    world: World,
    progress: Progress,
) -> None:
    _purge(step.volume, world)


def extract_file(step: ExtractFile, world: World, progress: Progress) -> None:
    with world.images(step.iso.pool).open_read(step.iso.name) as iso:
        data = world.media.extract(iso, step.path)
    world.images(step.volume.pool).write_file(step.volume.name, data)


def extend_initrd(step: ExtendInitrd, world: World, progress: Progress) -> None:
    data = world.images(step.source.pool).read_file(step.source.name, BOOT_FILE_LIMIT_BYTES)
    # The kernel wants each archive to begin at a multiple of four bytes.
    data += b"\0" * (-len(data) % 4) + world.media.initrd_archive(step.files)
    world.images(step.volume.pool).write_file(step.volume.name, data)


def grow_volume(step: GrowVolume, world: World, progress: Progress) -> None:
    if step.vm is not None:
        host = world.hypervisor(step.vm.node)
        if _live(step.vm, host):
            host.grow_disk(step.vm, step.vm.disk(step.disk), step.size_bytes)
            return
    world.images(step.volume.pool).grow(step.volume.name, step.size_bytes)


def base_volume(step: BaseVolume, world: World, progress: Progress) -> None:
    world.images(step.volume.pool).make_base(step.volume.name, step.base.name)


def undo_base_volume(step: BaseVolume, world: World, progress: Progress) -> None:
    world.images(step.volume.pool).unmake_base(step.volume.name, step.base.name)


def trash_volume(step: TrashVolume | RestoreVolume, world: World, progress: Progress) -> None:
    world.images(step.volume.pool).trash(step.volume.name)


def restore_volume(step: TrashVolume | RestoreVolume, world: World, progress: Progress) -> None:
    world.images(step.volume.pool).restore(step.volume.name)


def purge_volume(step: PurgeVolume, world: World, progress: Progress) -> None:
    _purge(step.volume, world)


# ---------------------------------------------------------------------------------------------
# Snapshots


def snapshot_disks(step: SnapshotDisks, world: World, progress: Progress) -> Outcome:
    """Freeze, snapshot all, thaw. The thaw comes whatever happens in between."""
    vm, host = step.vm, world.hypervisor(step.vm.node)
    live = _live(vm, host)
    frozen = live and step.freeze and host.freeze(vm.id)
    try:
        for pool, disks in _by_pool(vm.data_disks).items():
            images = world.images(pool)
            if live and not images.live_snapshots:
                host.snapshot(vm, disks, step.snapshot)
            else:
                images.snapshot(_volume_names(disks), step.snapshot)
    finally:
        if live:
            host.thaw(vm.id)
    return {"consistency": "frozen" if frozen else "crash-consistent" if live else "stopped"}


def drop_snapshot(step: SnapshotDisks | DropSnapshot, world: World, progress: Progress) -> None:
    vm, host = step.vm, world.hypervisor(step.vm.node)
    live = _live(vm, host)
    if live and isinstance(step, SnapshotDisks):
        # A crash between freeze and thaw left the guest holding its writes.
        host.thaw(vm.id)
    for pool, disks in _by_pool(vm.data_disks).items():
        images = world.images(pool)
        if live and not images.live_snapshots:
            host.drop_snapshot(vm, disks, step.snapshot)
        else:
            images.drop_snapshot(_volume_names(disks), step.snapshot)


def rollback_disks(step: RollbackDisks, world: World, progress: Progress) -> None:
    vm = step.vm
    if _live(vm, world.hypervisor(vm.node)):
        raise Conflict(f"cannot roll back VM {vm.name!r}: it is running; stop it first", vm=vm.name)
    for pool, disks in _by_pool(vm.data_disks).items():
        world.images(pool).rollback(_volume_names(disks), step.snapshot)


# ---------------------------------------------------------------------------------------------
# Domains


def start_domain(step: StartDomain, world: World, progress: Progress) -> None:
    vm = step.vm
    networks = {network.name: network for network in step.networks}
    world.hypervisor(vm.node).start(vm, _sources(vm, world), networks)


def forget_domain(step: ForgetDomain, world: World, progress: Progress) -> None:
    world.hypervisor(step.vm.node).forget(step.vm)


def cut_domain(step: StartDomain | CutDomain, world: World, progress: Progress) -> None:
    world.hypervisor(step.vm.node).cut(step.vm.id)


def ask_to_stop(step: AskToStop, world: World, progress: Progress) -> None:
    vm, host = step.vm, world.hypervisor(step.vm.node)
    if not _live(vm, host):
        return
    # A guest that is still booting misses the power button, so it is pressed again now and then.
    until = world.clock.now() + step.timeout_s
    while True:
        host.shut_down(vm.id)
        left = until - world.clock.now()
        if host.await_end(vm.id, max(0.0, min(left, ASK_AGAIN_S)), progress):
            return
        if left <= ASK_AGAIN_S:
            break
    if _live(vm, host):
        raise TimedOut(
            f"cannot stop VM {vm.name!r}: the guest was asked and is still running after"
            f" {step.timeout_s:g} s; look at its console, wait longer (--timeout) or cut it"
            " (--force)",
            vm=vm.name,
            timeout_s=step.timeout_s,
        )


def await_end(step: AwaitEnd, world: World, progress: Progress) -> Outcome:
    vm, host = step.vm, world.hypervisor(step.vm.node)
    began = world.clock.now()
    if not host.await_end(vm.id, step.timeout_s, progress):
        raise TimedOut(
            f"cannot finish the installation of {vm.name!r}: the installer is still at it after"
            f" {step.timeout_s:g} s; look at its console, or give it longer (--timeout)",
            vm=vm.name,
            timeout_s=step.timeout_s,
        )
    return {"elapsed_s": round(world.clock.now() - began, 1)}


def pause_domain(step: PauseDomain | ResumeDomain, world: World, progress: Progress) -> None:
    world.hypervisor(step.vm.node).pause(step.vm.id)


def resume_domain(step: PauseDomain | ResumeDomain, world: World, progress: Progress) -> None:
    world.hypervisor(step.vm.node).resume(step.vm.id)


def reset_domain(step: ResetDomain, world: World, progress: Progress) -> None:
    world.hypervisor(step.vm.node).reset(step.vm.id)


# ---------------------------------------------------------------------------------------------
# Devices of a running VM. When it has stopped meanwhile, the definition alone is enough.


def _patience(step: AttachDisk | DetachDisk | AttachNic | DetachNic) -> float:
    return step.timeout_s if isinstance(step, (DetachDisk, DetachNic)) else UNPLUG_TIMEOUT_S


def attach_disk(step: AttachDisk | DetachDisk, world: World, progress: Progress) -> None:
    host = world.hypervisor(step.vm.node)
    if _live(step.vm, host):
        host.attach_disk(step.vm, step.disk, _source(step.disk, world))


def detach_disk(step: AttachDisk | DetachDisk, world: World, progress: Progress) -> None:
    host = world.hypervisor(step.vm.node)
    if _live(step.vm, host):
        host.detach_disk(step.vm, step.disk, _patience(step))


def attach_nic(step: AttachNic | DetachNic, world: World, progress: Progress) -> None:
    host = world.hypervisor(step.vm.node)
    if _live(step.vm, host):
        host.attach_nic(step.vm, step.nic, step.network)


def detach_nic(step: AttachNic | DetachNic, world: World, progress: Progress) -> None:
    host = world.hypervisor(step.vm.node)
    if _live(step.vm, host):
        host.detach_nic(step.vm, step.nic, _patience(step))


def _insert(vm: Vm, disk: Disk, world: World) -> None:
    host = world.hypervisor(vm.node)
    if _live(vm, host):
        host.change_media(vm, disk, _source(disk, world))


def change_media(step: ChangeMedia, world: World, progress: Progress) -> None:
    _insert(step.vm, step.disk, world)


def undo_change_media(step: ChangeMedia, world: World, progress: Progress) -> None:
    _insert(step.vm, step.before, world)


def set_vcpus(step: SetVcpus, world: World, progress: Progress) -> None:
    host = world.hypervisor(step.vm.node)
    if _live(step.vm, host):
        host.set_vcpus(step.vm.id, step.vcpus)


def undo_set_vcpus(step: SetVcpus, world: World, progress: Progress) -> None:
    host = world.hypervisor(step.vm.node)
    if _live(step.vm, host):
        host.set_vcpus(step.vm.id, step.before)


def set_memory(step: SetMemory, world: World, progress: Progress) -> None:
    host = world.hypervisor(step.vm.node)
    if _live(step.vm, host):
        host.set_memory(step.vm.id, step.memory_mib)


def undo_set_memory(step: SetMemory, world: World, progress: Progress) -> None:
    host = world.hypervisor(step.vm.node)
    if _live(step.vm, host):
        host.set_memory(step.vm.id, step.before_mib)


# ---------------------------------------------------------------------------------------------
# Networks


def ensure_network(step: EnsureNetwork | RemoveNetwork, world: World, progress: Progress) -> None:
    world.hypervisor(step.node).ensure_network(step.network)


def undo_ensure_network(step: EnsureNetwork, world: World, progress: Progress) -> None:
    if step.new:
        world.hypervisor(step.node).remove_network(step.network)


def remove_network(step: RemoveNetwork, world: World, progress: Progress) -> None:
    world.hypervisor(step.node).remove_network(step.network)


def nothing(step: object, world: World, progress: Progress) -> None:
    """Leaving off is all there is to undo."""


DO: dict[type, Act] = {
    CreateVolume: create_volume,
    CloneVolume: clone_volume,
    CopyVolume: copy_volume,
    ImportVolume: import_volume,
    WriteIso: write_iso,
    ExtractFile: extract_file,
    ExtendInitrd: extend_initrd,
    GrowVolume: grow_volume,
    BaseVolume: base_volume,
    TrashVolume: trash_volume,
    RestoreVolume: restore_volume,
    PurgeVolume: purge_volume,
    SnapshotDisks: snapshot_disks,
    RollbackDisks: rollback_disks,
    DropSnapshot: drop_snapshot,
    StartDomain: start_domain,
    ForgetDomain: forget_domain,
    AskToStop: ask_to_stop,
    CutDomain: cut_domain,
    AwaitEnd: await_end,
    PauseDomain: pause_domain,
    ResumeDomain: resume_domain,
    ResetDomain: reset_domain,
    AttachDisk: attach_disk,
    DetachDisk: detach_disk,
    AttachNic: attach_nic,
    DetachNic: detach_nic,
    ChangeMedia: change_media,
    SetVcpus: set_vcpus,
    SetMemory: set_memory,
    EnsureNetwork: ensure_network,
    RemoveNetwork: remove_network,
}

UNDO: dict[type, Act] = {
    CreateVolume: undo_new_volume,
    CloneVolume: undo_new_volume,
    CopyVolume: undo_new_volume,
    ImportVolume: undo_new_volume,
    WriteIso: undo_new_volume,
    ExtractFile: undo_new_volume,
    ExtendInitrd: undo_new_volume,
    BaseVolume: undo_base_volume,
    TrashVolume: restore_volume,
    RestoreVolume: trash_volume,
    SnapshotDisks: drop_snapshot,
    StartDomain: cut_domain,
    AskToStop: nothing,
    AwaitEnd: nothing,
    PauseDomain: resume_domain,
    ResumeDomain: pause_domain,
    AttachDisk: detach_disk,
    DetachDisk: attach_disk,
    AttachNic: detach_nic,
    DetachNic: attach_nic,
    ChangeMedia: undo_change_media,
    SetVcpus: undo_set_vcpus,
    SetMemory: undo_set_memory,
    EnsureNetwork: undo_ensure_network,
    RemoveNetwork: ensure_network,
}
