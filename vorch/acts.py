"""How each step of a plan is done, and how it is undone: two tables, one function a cell.

Every act is safe to repeat, and every undo is safe when the act was done in part or not at all.
"""

from __future__ import annotations

import dataclasses
import re
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from functools import partial
from typing import Any

from vorch import arrivals
from vorch.aside import begin
from vorch.availability import PROVEN_DEAD, NodeRecord
from vorch.codec import decode
from vorch.decide import clients
from vorch.errors import (
    Cancelled,
    Conflict,
    Denied,
    FenceFailed,
    Invalid,
    NoRoom,
    NotFound,
    StepFailed,
    TimedOut,
    Unreachable,
    Unsupported,
    VorchError,
)
from vorch.model import (
    INITRD_SOURCE,
    KERNEL_SOURCE,
    MIB,
    Disk,
    Domain,
    MoveFigures,
    Node,
    Power,
    Source,
    Vm,
    Volume,
)
from vorch.plan import (
    AnnounceArrival,
    AskToStop,
    AttachDisk,
    AttachNic,
    AwaitEnd,
    AwaitGuest,
    BaseVolume,
    CarryVolume,
    ChangeMedia,
    CloneVolume,
    CopyVolume,
    CreateVolume,
    CutDomain,
    DetachDisk,
    DetachNic,
    DropSnapshot,
    EnsureNetwork,
    ExportVolume,
    ExtendInitrd,
    ExtractFile,
    FenceNode,
    FillVolume,
    FlattenVolume,
    ForgetArrival,
    ForgetDomain,
    GrowVolume,
    ImportVolume,
    LimitDisk,
    LinkVolume,
    MigrateDomain,
    MoveDisk,
    PauseDomain,
    PlaceFile,
    PurgeVolume,
    RecordArrival,
    RemoveNetwork,
    ResetDomain,
    RestoreVolume,
    ResumeDomain,
    RollbackDisks,
    SeeClients,
    SeeReadable,
    SeeUnused,
    SendVolume,
    SetMemory,
    SetVcpus,
    SnapshotDisks,
    SparsifyVolume,
    StartDomain,
    TrashVolume,
    UnfenceNode,
    UpdateNetwork,
    WriteIso,
)
from vorch.ports import Console, Fencer, Hypervisor, Images, Progress, World

Outcome = dict[str, Any]
Act = Callable[[Any, World, Progress], Outcome | None]

# The largest kernel, initrd or answer file that is handled in memory.
BOOT_FILE_LIMIT_BYTES = 512 * 1024**2
# How long others may have a disk open that a VM is being started with.
OTHERS_LEAVE_S = 3.0
# How long a guest may stay deaf before it is asked to shut down once more.
ASK_AGAIN_S = 10.0
# How long a guest may take to let go again of what a failed plan has just plugged in.
UNPLUG_TIMEOUT_S = 20.0
# Once a host is proven cut off one way, the other ways may take so long.
FENCE_SETTLE_S = 2.0
# How long the two hosts of a migration that has ended may take to be of one mind about it.
SETTLE_TIMEOUT_S = 60.0
SETTLE_POLL_S = 0.2
# How often a guest that is to come up is looked at, how much of what it says is kept, and after how
# long a silence it is asked for its prompt.
GUEST_POLL_S = 2.0
GUEST_TEXT_LIMIT = 16384
GUEST_SILENT_S = 20.0
# How long one host must be seen to have nothing of a VM whose other half waits for it: one that has
# just arrived looks so, too.
HALF_S = 5.0
# Why a VM that was just moved may stand still, other than for a fault of its own.
HELD_BY_MOVE = ("", "it is being migrated", "it is starting")


class CameToPass(Exception):
    """Raised by an undo: the step is done for good, so the plan can only go forward."""


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


def _ensure_secrets(vm: Vm, host: Hypervisor, world: World) -> None:
    """The host can open every disk of the VM. One that was installed anew has forgotten it."""
    for pool in dict.fromkeys(disk.volume.pool for disk in vm.disks if disk.volume is not None):
        secret = world.images(pool).secret()
        if secret is not None:
            host.ensure_secret(secret)


def _live(vm: Vm, host: Hypervisor) -> bool:
    domain = host.domain(vm.id)
    return domain is not None and domain.power not in (Power.STOPPED, Power.CRASHED)


def _proven_dead(node: str, world: World) -> bool:
    """Nothing runs there any more, though the host cannot be asked: it was fenced, or went down."""
    document = world.state.get(f"hanode/{node}")
    return document is not None and decode(NodeRecord, document.body).state in PROVEN_DEAD


@contextmanager
def _unless_dead(node: str, world: World) -> Iterator[None]:
    """A host that cannot be asked is let be when nothing runs there any more for certain."""
    try:
        yield
    except Unreachable:
        if not _proven_dead(node, world):
            raise


def _by_pool(disks: tuple[Disk, ...]) -> dict[str, list[Disk]]:
    pools: dict[str, list[Disk]] = {}
    for disk in disks:
        if disk.volume is not None:
            pools.setdefault(disk.volume.pool, []).append(disk)
    return pools


def _volume_names(disks: list[Disk]) -> list[str]:
    return [disk.volume.name for disk in disks if disk.volume is not None]


def _ensure_unused(vm: Vm, world: World) -> None:
    for pool, disks in _by_pool(vm.data_disks).items():
        for name in _volume_names(disks):
            world.images(pool).ensure_unused(name)


def _purge(volume: Volume, world: World) -> None:
    world.images(volume.pool).purge(volume.name)


# ---------------------------------------------------------------------------------------------
# Volumes

NewVolume = (
    CreateVolume
    | CloneVolume
    | CopyVolume
    | CarryVolume
    | ImportVolume
    | LinkVolume
    | WriteIso
    | ExtractFile
    | ExtendInitrd
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
    source, target = world.images(step.source.pool), world.images(step.volume.pool)
    if step.source.pool == step.volume.pool:
        target.copy(step.source.name, step.snapshot, step.volume.name, progress)
        return
    _across(step, step.snapshot, source, target, progress)


def _across(
    step: CopyVolume | SendVolume,
    snapshot: str | None,
    source: Images,
    target: Images,
    progress: Progress,
) -> None:
    halves = _Halves(progress)
    with source.content(step.source.name, snapshot, halves.first) as content:
        target.take_in(step.volume.name, content, step.content, halves.second)


class _Halves:
    """The progress of two acts as one's. A first one that says nothing takes no part of it."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._from = 0.0

    def first(self, percent: float | None = None, line: str | None = None) -> None:
        self._from = 50.0
        self._progress(None if percent is None else percent / 2, line)

    def second(self, percent: float | None = None, line: str | None = None) -> None:
        whole = 100.0 - self._from
        self._progress(None if percent is None else self._from + whole * percent / 100, line)


def carry_volume(step: CarryVolume, world: World, progress: Progress) -> None:
    data = world.images(step.source.pool).read_file(step.source.name, BOOT_FILE_LIMIT_BYTES)
    world.images(step.volume.pool).write_file(step.volume.name, data)


def import_volume(step: ImportVolume, world: World, progress: Progress) -> Outcome:
    images = world.images(step.volume.pool)
    found = images.import_file(step.location, step.volume.name, step.content, step.sha256, progress)
    return {
        f"{step.volume} size_bytes": found.size_bytes,
        f"{step.volume} format": found.format,
        f"{step.volume} sha256": found.sha256,
    }


def link_volume(step: LinkVolume, world: World, progress: Progress) -> Outcome:
    found = world.images(step.volume.pool).link(step.location, step.volume.name, progress)
    return {
        f"{step.volume} size_bytes": found.size_bytes,
        f"{step.volume} format": found.format,
    }


def see_readable(step: SeeReadable, world: World, progress: Progress) -> None:
    """Each host opens it as its VMs will: only that tells whether it reaches the source."""
    images = world.images(step.volume.pool)
    source, secret = images.locate(step.volume.name), images.secret()

    def attempt(node: str) -> str:
        try:
            host = world.hypervisor(node)
            if secret is not None:
                host.ensure_secret(secret)
            host.try_source(step.trial, source)
        except VorchError as exc:
            return f"{node}: {exc.message}"
        return ""

    failed = [text for text in world.each(attempt, step.nodes) if text]
    if failed:
        raise Unsupported(
            f"cannot make VMs of {step.volume} at once: their hosts must be able to read it where"
            f" it is ({'; '.join(failed)}); see that they all reach that address, or import it"
            " without --at-once",
            volume=step.volume.name,
        )


def fill_volume(step: FillVolume, world: World, progress: Progress) -> Outcome:
    progress(0, "VMs can be made of it from here on")
    world.images(step.volume.pool).fill(step.volume.name, step.sha256, progress)
    return {f"{step.volume} sha256": step.sha256}


def undo_fill_volume(step: FillVolume, world: World, progress: Progress) -> None:
    try:
        world.images(step.volume.pool).withdraw(step.volume.name)
    except Conflict as exc:
        progress(None, f"it cannot be undone: {exc.message}")
        raise CameToPass from exc


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


def flatten_volume(step: FlattenVolume, world: World, progress: Progress) -> None:
    host, images = world.hypervisor(step.vm.node), world.images(step.volume.pool)
    if _live(step.vm, host) and not images.live_snapshots:
        host.flatten_disk(step.vm, step.disk, progress)
    else:
        images.flatten(step.volume.name, progress)


def undo_flatten_volume(step: FlattenVolume, world: World, progress: Progress) -> None:
    """What it took from its base already is no loss: the disk shows the same."""
    if not world.images(step.volume.pool).live_snapshots:
        world.hypervisor(step.vm.node).end_disk_job(step.vm, step.disk)


def sparsify_volume(step: SparsifyVolume, world: World, progress: Progress) -> Outcome:
    vm, images = step.vm, world.images(step.volume.pool)
    if not images.live_snapshots and _live(vm, world.hypervisor(vm.node)):
        raise Unsupported(
            f"cannot sparsify {step.volume} while VM {vm.name!r} runs: its QEMU has the file; let"
            " the guest trim its file systems (fstrim), or stop it first",
            vm=vm.name,
        )
    before = images.info(step.volume.name).used_bytes
    images.sparsify(step.volume.name)
    return {"freed_bytes": max(0, before - images.info(step.volume.name).used_bytes)}


def export_volume(step: ExportVolume, world: World, progress: Progress) -> None:
    images = world.images(step.volume.pool)
    images.export(step.volume.name, step.snapshot, step.path, step.format, progress)


def undo_export_volume(step: ExportVolume, world: World, progress: Progress) -> None:
    world.files.remove(step.path)


def place_file(step: PlaceFile, world: World, progress: Progress) -> None:
    world.files.place(step.source, step.path)


def undo_place_file(step: PlaceFile, world: World, progress: Progress) -> None:
    world.files.take_back(step.source, step.path)


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


def start_domain(step: StartDomain, world: World, progress: Progress) -> Outcome:
    """Between a look and a start anything may happen, to a process that stands still most of all.

    So it is started without executing anything, with its disks open where everybody sees that, and
    is let go only when nobody else has them open. Of two that start it at once both see the other.
    """
    vm = step.vm
    host = world.hypervisor(vm.node)
    networks = {network.name: network for network in step.networks}
    _ensure_secrets(vm, host, world)
    sources = _sources(vm, world)
    there = host.domain(vm.id)
    if there is None:
        # The record says that it is off everywhere. Whoever has its disks open knows better, and
        # who died with them open is waited for.
        _ensure_unused(vm, world)
    running = _on(there)
    if running is None:
        # What is left of one that crashed goes then, too.
        host.start(vm, sources, networks, cpu=step.cpu, paused=True)
    elif running.power is not Power.PAUSED:
        return clients_seen(vm, world, progress)
    try:
        seen = _alone(vm, world)
    except Conflict:
        host.cut(vm.id)
        raise
    outcome = {"clients": seen, **_run(vm, world)}
    # Who stood still for long writes to the journal now, and is told if it is not his any more.
    progress(percent=90.0)
    host.resume(vm.id)
    return outcome


def _alone(vm: Vm, world: World) -> dict[str, str]:
    """The client of each disk of a VM that is held at its start; `Conflict` if there are others.

    vorch itself has a disk open for moments, as when it leaves a note on it.
    """
    seen: dict[str, str] = {}
    until = world.clock.now() + OTHERS_LEAVE_S
    for disk in vm.written_disks:
        while disk.volume is not None and disk.name not in seen:
            try:
                seen[disk.name] = _only_client(vm, disk.name, disk.volume, world)
            except (Conflict, Unreachable):
                if world.clock.now() >= until:
                    raise
                world.clock.sleep(0.1)
    return seen


def _only_client(vm: Vm, disk: str, volume: Volume, world: World) -> str:
    holders = world.images(volume.pool).holders(volume.name)
    client = clients.only_client(holders)
    if client is None:
        who = sorted({one.address for one in holders or ()})
        raise Conflict(
            f"cannot start VM {vm.name!r} on {vm.node!r}: its disk {disk!r} is open at"
            f" {', '.join(who) or 'nobody'}, so it may run elsewhere; stop it there",
            vm=vm.name,
            node=vm.node,
            holders=who,
        )
    return client


def see_clients(step: SeeClients, world: World, progress: Progress) -> Outcome:
    if not _live(step.vm, world.hypervisor(step.vm.node)):
        return {"clients": {}}
    return clients_seen(step.vm, world, progress)


def clients_seen(
    vm: Vm, world: World, progress: Progress, *, left: Collection[str] = ()
) -> Outcome:
    """Which client has each disk open, of a VM that has just been started or has moved.

    `left` are those of the host that it came from. What is not certain is left out, and so can be
    told apart from what is known. The VM runs, so that is no reason to fail.
    """
    # First of all: a reboot after that is told by the number.
    run = _run(vm, world)
    seen: dict[str, str] = {}
    for disk in vm.written_disks:
        if disk.volume is None:
            continue
        try:
            found = world.images(disk.volume.pool).holders(disk.volume.name)
        except VorchError as exc:
            progress(line=f"the client of disk {disk.name!r} is not known: {exc.message}")
            continue
        client = clients.only_client(found, left)
        if client is None:
            progress(line=f"the client of disk {disk.name!r} cannot be told from others")
        else:
            seen[disk.name] = client
    return {"clients": seen, **run}


def _run(vm: Vm, world: World) -> Outcome:
    """Which run of it that is, where its host counts them. Unknown, it is seen to later."""
    host = world.hypervisor(vm.node)
    if not host.counts_runs:
        return {}
    try:
        domain = host.domain(vm.id)
    except VorchError:
        return {}
    return {} if domain is None else {"run": domain.run}


def forget_domain(step: ForgetDomain, world: World, progress: Progress) -> None:
    world.hypervisor(step.vm.node).forget(step.vm)


def undo_start_domain(step: StartDomain, world: World, progress: Progress) -> None:
    cut_domain(step, world, progress)
    if world.state.get(f"vm/{step.vm.name}") is not None:
        return
    # It was being made, so nobody would ever take away what the host has begun to keep for it.
    with _unless_dead(step.vm.node, world):
        world.hypervisor(step.vm.node).forget(step.vm)


def cut_domain(step: StartDomain | CutDomain, world: World, progress: Progress) -> None:
    with _unless_dead(step.vm.node, world):
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


def await_guest(step: AwaitGuest, world: World, progress: Progress) -> Outcome:
    """By its console, which is listened to, and else by an address that was not there before."""
    vm, host = step.vm, world.hypervisor(step.vm.node)
    began = world.clock.now()
    before = {one for one in host.addresses(vm) if one.source != "agent"}
    with _Listener(step, host, progress) as listener:
        while True:
            listener.listen(GUEST_POLL_S, world)
            elapsed_s = round(world.clock.now() - began, 1)
            if listener.heard:
                return {"up_by": f"its console showed {listener.heard!r}", "elapsed_s": elapsed_s}
            domain = _on(host.domain(vm.id))
            if domain is None:
                raise StepFailed(
                    f"cannot leave VM {vm.name!r} on {vm.node!r}: its guest ended after"
                    f" {elapsed_s:g} s{listener.last_words()}; look at why it does not start there",
                    vm=vm.name,
                    node=vm.node,
                )
            if not step.expect:
                new = sorted(one.ip for one in host.addresses(vm) if one not in before)
                if new:
                    return {"up_by": f"it has the address {new[0]}", "elapsed_s": elapsed_s}
            if elapsed_s >= step.timeout_s:
                wanted = f"shown {step.expect!r}" if step.expect else "come up"
                raise TimedOut(
                    f"cannot leave VM {vm.name!r} on {vm.node!r}: its guest has not {wanted} within"
                    f" {step.timeout_s:g} s{listener.last_words()}; look at why it does not start"
                    " there, or wait longer (--timeout)",
                    vm=vm.name,
                    node=vm.node,
                    timeout_s=step.timeout_s,
                )
            progress(percent=min(99.0, 100.0 * elapsed_s / max(step.timeout_s, 1.0)))


class _Listener:
    """A guest's console, as far as it can be had: somebody else may be at it."""

    def __init__(self, step: AwaitGuest, host: Hypervisor, progress: Progress) -> None:
        self._step = step
        self._said = ""
        # What was waited for, when it has come.
        self.heard = ""
        self._silent_since: float | None = None
        self._console: Console | None = None
        try:
            self._console = host.console(step.vm.id)
        except (Conflict, NotFound, Unreachable, Unsupported) as exc:
            progress(line=f"its console is not listened to: {exc.message}")

    def __enter__(self) -> _Listener:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._console is not None:
            self._console.close()

    def listen(self, for_s: float, world: World) -> None:
        if self._console is None:
            world.clock.sleep(for_s)
            return
        try:
            data = self._console.read(for_s)
        except Unreachable:
            # It has ended, which its host says in a better way.
            self._console.close()
            self._console = None
            return
        if data:
            self._silent_since = None
            self._said = (self._said + data.decode("utf-8", "replace"))[-GUEST_TEXT_LIMIT:]
            wanted = self._step.expect or "login:"
            if wanted in self._said:
                self.heard = wanted
            return
        now = world.clock.now()
        if self._silent_since is None:
            self._silent_since = now
        elif not self._step.expect and now - self._silent_since >= GUEST_SILENT_S:
            # A prompt may have come before anybody listened: Enter shows it once more.
            self._console.write(b"\r")
            self._silent_since = now

    def last_words(self) -> str:
        """For people: what its console said last."""
        text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|[^\x20-\x7e\n]", "", self._said)
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return f"; its console said last: {' / '.join(lines[-3:])[-300:]!r}" if lines else ""


# ---------------------------------------------------------------------------------------------
# Moving a running VM


def migrate_domain(step: MigrateDomain, world: World, progress: Progress) -> Outcome:
    """Where the VM is counts, not what was done before: a dead process may have left anything.

    libvirt carries a migration from host to host on by itself when the client that asked for it
    dies, so one under way is waited for. When one of the hosts dies, the other one clears its
    half away: the target ends the domain that was to arrive, the source lets its own go on.
    """
    vm = step.vm
    began = world.clock.now()
    figures = MoveFigures()
    where = _whereabouts(step, world, progress)
    if where in ("source", "between"):
        _ensure_secrets(step.moved, world.hypervisor(step.target), world)
        try:
            figures = _send(step, world, progress)
        except Cancelled:
            raise
        except VorchError as exc:
            # What libvirt says of the end may be wrong or lost, so the hosts are asked.
            where = _whereabouts(step, world, progress, settled=True)
            if where == "source":
                raise _stayed(step, exc) from exc
        else:
            where = _whereabouts(step, world, progress, settled=True)
    if where == "nowhere":
        raise NotFound(
            f"cannot move VM {vm.name!r} to {step.target!r}: it runs neither there nor on"
            f" {vm.node!r} any more; it is stopped, start it (vorch start {vm.name})",
            vm=vm.name,
            node=vm.node,
        )
    if where != "target":
        raise _stayed(step, None)
    power = _arrived(step, world, progress)
    elapsed_s = world.clock.now() - began
    return {
        "source": vm.node,
        "node": step.target,
        "power": power,
        "elapsed_s": round(elapsed_s, 2),
        **_told(step, world, figures),
        **clients_seen(step.moved, world, progress, left=step.left),
    }


def _send(step: MigrateDomain, world: World, progress: Progress) -> MoveFigures:
    """Begin it, or wait for the one that is under way."""
    before = {disk.name: disk.volume for disk in step.vm.disks}
    changed = {
        disk.name: source
        for disk in step.disks
        if disk.volume != before[disk.name] and (source := _source(disk, world)) is not None
    }
    written = {disk.name for disk in step.copied}
    return world.hypervisor(step.vm.node).migrate(
        step.vm,
        step.target,
        step.uri,
        pause_limit_ms=step.pause_limit_ms,
        bandwidth_mib_s=step.bandwidth_mib_s,
        progress=progress,
        postcopy_after_s=step.postcopy_after_s,
        copies={name: source for name, source in changed.items() if name in written},
        elsewhere={name: source for name, source in changed.items() if name not in written},
        bridges=step.bridges,
        cell=step.cell,
        live=step.live,
    )


def _told(step: MigrateDomain, world: World, here: MoveFigures) -> Outcome:
    """What it came to. What the source did not live to tell, the target may know."""
    there: MoveFigures | None = None
    if here.pause_ms is None:
        try:
            there = world.hypervisor(step.target).moved_figures(step.vm.id)
        except VorchError:
            there = None
    known = {
        item.name: getattr(here, item.name) or getattr(there, item.name, None)
        for item in dataclasses.fields(MoveFigures)
    }
    speed = known["bytes_per_s"]
    told: Outcome = {
        "memory_mib": _mib(known["memory_bytes"]),
        "sent_mib": _mib(known["sent_bytes"]),
        "copied_mib": _mib(known["copied_bytes"]),
        "pause_ms": known["pause_ms"],
        "slowed_percent": here.slowed_percent,
        "postcopy": bool(known["postcopy"]),
        "speed_mib_s": None if speed is None else round(speed / MIB, 1),
        "limit_mib_s": step.bandwidth_mib_s or None,
    }
    return {name: value for name, value in told.items() if value is not None}


def _mib(size_bytes: int | None) -> int | None:
    return None if size_bytes is None else round(size_bytes / MIB)


def undo_migrate_domain(step: MigrateDomain, world: World, progress: Progress) -> None:
    """End it on its way, so that the VM stays. One that has arrived is never sent back."""
    try:
        world.hypervisor(step.vm.node).migration_abort(step.vm.id)
    except Unreachable as exc:
        progress(line=exc.message)
    where = _whereabouts(step, world, progress, settled=True)
    if where == "target":
        raise CameToPass
    if where == "between":
        raise _stayed(step, None)
    _tidy_target(step, world, progress)


def _tidy_target(step: MigrateDomain, world: World, progress: Progress) -> None:
    """What was made there for its UEFI and TPM. A target that is dead must not hold the VM up."""
    try:
        world.hypervisor(step.target).forget(step.moved)
    except (Conflict, Unreachable) as exc:
        progress(line=exc.message)


def _stayed(step: MigrateDomain, exc: VorchError | None) -> VorchError:
    """It has not moved. Said as a refusal, since nothing has come of it."""
    vm = step.vm
    if exc is None:
        return Unreachable(
            f"cannot move VM {vm.name!r} to {step.target!r}: the hosts are still at it; wait, or"
            " look at both (vorch doctor)",
            vm=vm.name,
        )
    refusals = (Conflict, Denied, Invalid, NoRoom, NotFound, Unsupported)
    kind = type(exc) if isinstance(exc, refusals) else Conflict
    fields = {**exc.fields, "vm": vm.name, "node": vm.node}
    if kind is not type(exc):
        # It is a conflict for what has come of it; what brought it about is told besides.
        fields["cause"] = exc.as_dict()
    return kind(f"{exc.message}; VM {vm.name!r} goes on on {vm.node!r}", **fields)


def _whereabouts(
    step: MigrateDomain, world: World, progress: Progress, *, settled: bool = False
) -> str:
    """On which of the two hosts the VM is: source, target, between, nowhere.

    `settled`: wait for an end of "between". What is then still on its way in without anybody who
    sends it is cleared away. One that broke off after it had gone over is joined again, or ended.
    """
    began = world.clock.now()
    until, half_since = began + SETTLE_TIMEOUT_S, None
    while True:
        where, now = _look_at_both(step, world), world.clock.now()
        half_since = (half_since or now) if where == "half" else None
        if where == "two":
            # The target's was let go first: the source took a lost answer for a failure, and what
            # it has in memory is older than what is on the disks.
            progress(line=f"it ran on both hosts; it is ended on {step.vm.node}")
            world.hypervisor(step.vm.node).cut(step.vm.id)
            continue
        if (half_since is not None and now - half_since >= HALF_S) or (
            where == "torn" and now >= until
        ):
            # Each half has a part of the guest's memory that the other one lacks. Both hosts have
            # answered, so nothing of it is left running anywhere after this.
            progress(line="its memory is in two parts that cannot be joined; both are ended")
            for name in (step.vm.node, step.target):
                if not _proven_dead(name, world):
                    world.hypervisor(name).cut(step.vm.id)
            continue
        if where == "torn":
            _join(step, world, progress)
        if where == "left over" and (not settled or now >= until):
            # A look is two looks: the copy that is kept must still be there after the second.
            if _on(world.hypervisor(step.vm.node).domain(step.vm.id)) is not None:
                progress(line=f"what was to arrive on {step.target} is ended there")
                world.hypervisor(step.target).cut(step.vm.id)
            continue
        passing = ("between", "left over") if settled else ()
        if where not in (*passing, "torn", "half") or (where in passing and now >= until):
            return where
        progress()
        world.clock.sleep(SETTLE_POLL_S)


def _look_at_both(step: MigrateDomain, world: World) -> str:
    """A host that was fenced meanwhile shows nothing, and that is certain."""
    vm_id = step.vm.id
    source, target = world.hypervisor(step.vm.node), world.hypervisor(step.target)
    silent: VorchError | None = None
    here, leaving, torn = None, False, False
    try:
        way = source.migration(vm_id)
        leaving, torn = way == "out", way == "torn"
        here = _on(source.domain(vm_id))
    except Unreachable as exc:
        silent = None if _proven_dead(step.vm.node, world) else exc
    coming, waits, there = False, False, None
    try:
        way = target.migration(vm_id)
        coming, waits = way == "in", way == "torn"
        there = _on(target.domain(vm_id))
    except Unreachable:
        if not _proven_dead(step.target, world):
            if here is None or torn:
                raise
            return "between" if leaving else "source"
    if waits or torn:
        if silent is not None:
            raise silent
        if here is None or there is None:
            return "half"
        # The target may have all of it, and the source not know.
        if torn and not waits and not coming and there.power is Power.RUNNING:
            return "two"
        return "torn" if torn and waits else "between"
    if there is not None and not coming and not leaving and here is None:
        # Without an answer of the source, too: the target lets a VM go only when all of it has
        # arrived and the source has held it still.
        return "target"
    if silent is not None:
        raise silent
    if leaving:
        return "between"
    if here is not None and there is not None:
        return "two" if there.power is Power.RUNNING and not coming else "left over"
    if here is not None:
        return "source"
    return "nowhere" if there is None else "between"


def _join(step: MigrateDomain, world: World, progress: Progress) -> None:
    """Let a migration that broke off after the VM had gone over go on where it was."""
    try:
        _send(step, world, progress)
    except Cancelled:
        raise
    except VorchError as exc:
        progress(line=f"its halves were not joined: {exc.message}")


def _on(domain: Domain | None) -> Domain | None:
    off = (Power.STOPPED, Power.CRASHED)
    return None if domain is None or domain.power in off else domain


def _arrived(step: MigrateDomain, world: World, progress: Progress) -> str:
    """See to it that it runs, unless it was paused on purpose; what it does there now."""
    target = world.hypervisor(step.target)
    there = target.domain(step.vm.id)
    if there is None:
        return Power.STOPPED.value
    if there.power is Power.PAUSED and not step.paused:
        if there.reason not in HELD_BY_MOVE:
            progress(line=f"{step.vm.name} is paused on {step.target}: {there.reason}")
            return there.power.value
        target.resume(step.vm.id)
        return Power.RUNNING.value
    return there.power.value


# ---------------------------------------------------------------------------------------------
# Moving a disk of a running VM


def move_disk(step: MoveDisk, world: World, progress: Progress) -> Outcome:
    """The VM stands still from before the switch until the record says where its disk is.

    So whatever dies in between, what either volume holds is all that was ever written.
    """
    vm, host = step.vm, world.hypervisor(step.vm.node)
    if not _live(vm, host):
        raise Conflict(
            f"cannot move disk {step.disk.name!r} of VM {vm.name!r}: it has stopped meanwhile; move"
            " it again",
            vm=vm.name,
        )
    source = world.images(step.volume.pool).locate(step.volume.name)
    moved = dataclasses.replace(step.disk, volume=step.volume)
    if not host.has_disk_at(vm, step.disk, source):
        _ensure_secrets(dataclasses.replace(vm, disks=(moved,)), host, world)
        host.copy_disk(vm, step.disk, source, progress)
        host.pause(vm.id)
        host.switch_disk(vm, step.disk, source)
    disks = tuple(moved if disk.name == moved.name else disk for disk in vm.disks)
    return clients_seen(dataclasses.replace(vm, disks=disks), world, progress)


def undo_move_disk(step: MoveDisk, world: World, progress: Progress) -> None:
    vm, host = step.vm, world.hypervisor(step.vm.node)
    if not _live(vm, host):
        # Paused or not, what the old volume holds is all there is.
        return
    host.end_disk_job(vm, step.disk)
    if _has_moved(step, host, world):
        raise CameToPass
    if not step.paused:
        host.resume(vm.id)


def _has_moved(step: MoveDisk, host: Hypervisor, world: World) -> bool:
    try:
        source = world.images(step.volume.pool).locate(step.volume.name)
    except NotFound:
        return False
    return host.has_disk_at(step.vm, step.disk, source)


def limit_disk(step: LimitDisk, world: World, progress: Progress) -> None:
    host = world.hypervisor(step.vm.node)
    if _live(step.vm, host):
        host.limit_disk(step.vm, step.disk)


def undo_limit_disk(step: LimitDisk, world: World, progress: Progress) -> None:
    host = world.hypervisor(step.vm.node)
    if _live(step.vm, host):
        host.limit_disk(step.vm, step.before)


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


def attach_disk(step: AttachDisk | DetachDisk, world: World, progress: Progress) -> Outcome:
    host = world.hypervisor(step.vm.node)
    if not _live(step.vm, host):
        return {"clients": {}}
    _ensure_secrets(dataclasses.replace(step.vm, disks=(step.disk,)), host, world)
    host.attach_disk(step.vm, step.disk, _source(step.disk, world))
    others = tuple(disk for disk in step.vm.disks if disk.name != step.disk.name)
    return clients_seen(dataclasses.replace(step.vm, disks=(*others, step.disk)), world, progress)


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
        _ensure_secrets(dataclasses.replace(vm, disks=(disk,)), host, world)
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


def ensure_network(
    step: EnsureNetwork | UpdateNetwork | RemoveNetwork, world: World, progress: Progress
) -> None:
    world.hypervisor(step.node).ensure_network(step.network, step.hosts)


def undo_update_network(step: UpdateNetwork, world: World, progress: Progress) -> None:
    world.hypervisor(step.node).ensure_network(step.before, step.hosts_before)


def undo_ensure_network(step: EnsureNetwork, world: World, progress: Progress) -> None:
    if step.new:
        world.hypervisor(step.node).remove_network(step.network)


def remove_network(step: RemoveNetwork, world: World, progress: Progress) -> None:
    world.hypervisor(step.node).remove_network(step.network)


# ---------------------------------------------------------------------------------------------
# To another cluster


def see_unused(step: SeeUnused, world: World, progress: Progress) -> None:
    _see_unused(step.vm, world)


def _see_unused(vm: Vm, world: World) -> None:
    domain = world.hypervisor(vm.node).domain(vm.id)
    if domain is not None:
        raise Conflict(
            f"cannot send VM {vm.name!r}: it is {domain.power.value} on {vm.node!r}; stop it (vorch"
            f" stop {vm.name})",
            vm=vm.name,
            node=vm.node,
        )
    _ensure_unused(vm, world)


def announce_arrival(step: AnnounceArrival, world: World, progress: Progress) -> None:
    arrivals.announce(world.other(step.other).state, step.arrival, step.vm)


def undo_announce_arrival(step: AnnounceArrival, world: World, progress: Progress) -> None:
    arrivals.withdraw(world.other(step.other).state, step.arrival, step.vm)


def send_volume(step: SendVolume, world: World, progress: Progress) -> None:
    source = world.images(step.source.pool)
    target = world.other(step.other).images(step.volume.pool)
    _across(step, None, source, target, progress)


def undo_send_volume(step: SendVolume, world: World, progress: Progress) -> None:
    _purge(step.volume, world.other(step.other))


def record_arrival(step: RecordArrival, world: World, progress: Progress) -> Outcome:
    there = world.other(step.other)
    if not arrivals.has_arrived(there.state, step.arrival):
        # What came up since the first look, past vorch, is seen now, as late as can be.
        _see_unused(step.vm, world)
        arrivals.record(there, step.arrival, step.arriving)
    return {"cluster": step.other, "node": step.arriving.node}


def undo_record_arrival(step: RecordArrival, world: World, progress: Progress) -> None:
    """Once it is called back, a recording of it that is still on its way is refused there."""
    if arrivals.withdraw(world.other(step.other).state, step.arrival, step.arriving):
        raise CameToPass


def forget_arrival(step: ForgetArrival, world: World, progress: Progress) -> None:
    try:
        arrivals.forget(world.other(step.other).state, step.arrival)
    except VorchError as exc:
        # Never as a refusal: nothing that was done before this may be undone any more.
        raise Unreachable(exc.message, **exc.fields) from exc


# ---------------------------------------------------------------------------------------------
# Hosts


def _fencers(node: Node, world: World) -> tuple[Fencer, ...]:
    return tuple(fencer for fencer in world.fencers if fencer.covers(node))


def fence_node(step: FenceNode, world: World, progress: Progress) -> Outcome:
    """All ways that there are; one proof is enough.

    Storage is cut as well where the power is off already: then nobody has to wait until it has
    noticed that the host's clients are dead.
    """
    ways = _fencers(step.node, world)

    in_the_dark = bool(step.unknown) and not step.node.storage_address

    def attempt(fencer: Fencer, tell: Progress) -> tuple[bool, str]:
        try:
            proof = f"{fencer.name}: {fencer.fence(step.node, step.clients, tell)}"
            if in_the_dark and fencer.by_address:
                lack = f"the addresses of {', '.join(step.unknown)} and of the host are not known"
                return False, f"{proof}, but {lack}"
            return True, proof
        except VorchError as exc:
            return False, f"{fencer.name}: {exc.message}"

    if world.threads and len(ways) > 1:
        came_to = _side_by_side(attempt, ways)
    else:
        came_to = [attempt(fencer, progress) for fencer in ways]
    proofs = [text for proven, text in came_to if proven]
    if not proofs:
        reasons = "; ".join(text for _, text in came_to) or "no way to fence it is set up"
        raise FenceFailed(
            f"cannot fence host {step.node.name!r}: {reasons}; see to it by hand: switch it off",
            node=step.node.name,
        )
    return {"proof": "; ".join(proofs)}


def _side_by_side(
    attempt: Callable[[Fencer, Progress], tuple[bool, str]], ways: Sequence[Fencer]
) -> list[tuple[bool, str]]:
    """What they came to. After the first proof the others have a moment, and VMs wait no longer.

    Those that are still at it then are told to leave off, and end by themselves.
    """
    over = threading.Event()

    def tell(percent: float | None = None, line: str | None = None) -> None:
        if over.is_set():
            raise Cancelled("cannot go on with the fence: another way has proven it")

    pending = {begin(partial(attempt, way, tell), name=f"fence {way.name}") for way in ways}
    done: set[Future[tuple[bool, str]]] = set()
    try:
        while pending and not any(one.result()[0] for one in done):
            ended, pending = wait(pending, return_when=FIRST_COMPLETED)
            done |= ended
        ended, _ = wait(pending, FENCE_SETTLE_S)
        return [one.result() for one in (*done, *ended)]
    finally:
        over.set()


def unfence_node(step: UnfenceNode, world: World, progress: Progress) -> None:
    """Only then may it write again: what it still runs is older than what is on the disks."""
    host = world.hypervisor(step.node.name)
    if not step.keep:
        for domain in host.domains():
            if domain.ours:
                progress(line=f"{domain.name} on {step.node.name} is left over; it is ended")
                host.cut(domain.id)
        left = [domain.name for domain in host.domains() if domain.ours]
        if left:
            raise Conflict(
                f"cannot take host {step.node.name!r} back: {', '.join(left)} cannot be ended"
                " there; restart the host",
                node=step.node.name,
                domains=left,
            )
        # What the host itself has open would write as soon as it may again.
        for volume in host.release_volumes():
            progress(line=f"{volume} was open on {step.node.name} still; it is closed")
    for fencer in _fencers(step.node, world):
        fencer.unfence(step.node, step.clients)


def nothing(step: object, world: World, progress: Progress) -> None:
    """Leaving off is all there is to undo."""


DO: dict[type, Act] = {
    CreateVolume: create_volume,
    CloneVolume: clone_volume,
    CopyVolume: copy_volume,
    CarryVolume: carry_volume,
    ImportVolume: import_volume,
    LinkVolume: link_volume,
    SeeReadable: see_readable,
    FillVolume: fill_volume,
    WriteIso: write_iso,
    ExtractFile: extract_file,
    ExtendInitrd: extend_initrd,
    GrowVolume: grow_volume,
    FlattenVolume: flatten_volume,
    SparsifyVolume: sparsify_volume,
    ExportVolume: export_volume,
    PlaceFile: place_file,
    MoveDisk: move_disk,
    LimitDisk: limit_disk,
    BaseVolume: base_volume,
    TrashVolume: trash_volume,
    RestoreVolume: restore_volume,
    PurgeVolume: purge_volume,
    SnapshotDisks: snapshot_disks,
    RollbackDisks: rollback_disks,
    DropSnapshot: drop_snapshot,
    StartDomain: start_domain,
    SeeClients: see_clients,
    ForgetDomain: forget_domain,
    AskToStop: ask_to_stop,
    CutDomain: cut_domain,
    AwaitEnd: await_end,
    AwaitGuest: await_guest,
    MigrateDomain: migrate_domain,
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
    UpdateNetwork: ensure_network,
    RemoveNetwork: remove_network,
    SeeUnused: see_unused,
    AnnounceArrival: announce_arrival,
    SendVolume: send_volume,
    RecordArrival: record_arrival,
    ForgetArrival: forget_arrival,
    FenceNode: fence_node,
    UnfenceNode: unfence_node,
}

UNDO: dict[type, Act] = {
    CreateVolume: undo_new_volume,
    CloneVolume: undo_new_volume,
    CopyVolume: undo_new_volume,
    CarryVolume: undo_new_volume,
    ImportVolume: undo_new_volume,
    LinkVolume: undo_new_volume,
    SeeReadable: nothing,
    FillVolume: undo_fill_volume,
    WriteIso: undo_new_volume,
    ExtractFile: undo_new_volume,
    ExtendInitrd: undo_new_volume,
    FlattenVolume: undo_flatten_volume,
    SparsifyVolume: nothing,
    ExportVolume: undo_export_volume,
    PlaceFile: undo_place_file,
    MoveDisk: undo_move_disk,
    LimitDisk: undo_limit_disk,
    BaseVolume: undo_base_volume,
    TrashVolume: restore_volume,
    RestoreVolume: trash_volume,
    SnapshotDisks: drop_snapshot,
    StartDomain: undo_start_domain,
    SeeClients: nothing,
    AskToStop: nothing,
    AwaitEnd: nothing,
    AwaitGuest: nothing,
    MigrateDomain: undo_migrate_domain,
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
    UpdateNetwork: undo_update_network,
    RemoveNetwork: ensure_network,
    SeeUnused: nothing,
    AnnounceArrival: undo_announce_arrival,
    SendVolume: undo_send_volume,
    RecordArrival: undo_record_arrival,
    FenceNode: nothing,
    UnfenceNode: nothing,
}
