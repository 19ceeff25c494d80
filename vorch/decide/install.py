"""Unattended installs: a disk, an installer that is told its answers, and the wait for its end."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from vorch.decide.answers import Answers
from vorch.decide.baseline import for_vm
from vorch.decide.clients import save_clients
from vorch.decide.fresh import Fresh
from vorch.decide.lifecycle import NewVm, drawn_up
from vorch.decide.place import NOTHING_KEPT, Keeping, place, put_into_cell
from vorch.decide.records import (
    cd_bus,
    ensure_networks,
    networks_of,
    new_vm_name,
    next_target,
    reads,
    save_vm,
)
from vorch.errors import Invalid
from vorch.model import (
    TARGET_PREFIX,
    Cluster,
    DirectBoot,
    Disk,
    Volume,
    check_range,
)
from vorch.plan import (
    AwaitEnd,
    ExtendInitrd,
    ExtractFile,
    ImportVolume,
    Plan,
    PurgeVolume,
    StartDomain,
    Step,
    WriteIso,
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Installer:
    """Where the installer is: on a CD of the image store, as a kernel and initrd, or both.

    `kernel` and `initrd` are paths on the CD when there is one and `on_cd` is set, else files or
    URLs to fetch.
    """

    iso: str | None = None
    kernel: str | None = None
    initrd: str | None = None
    on_cd: bool = False


def install(
    cluster: Cluster,
    new: NewVm,
    installer: Installer,
    answers: Answers,
    fresh: Fresh,
    *,
    timeout_s: float,
    overhead_mib: int,
    keeping: Keeping = NOTHING_KEPT,
) -> Plan:
    """The VM appears when its installer starts, so that its console can be watched.

    The installer's kernel, initrd and answers are there only as long as it runs.
    """
    new_vm_name(cluster, new.name, "install")
    if new.image is not None or new.cloud_init is not None:
        raise Invalid(
            f"cannot install VM {new.name!r}: an install begins with an empty disk; make it with"
            " `vorch create` if it comes from an image"
        )
    vm, steps = drawn_up(cluster, dataclasses.replace(new, iso=None), fresh, None)
    disk = vm.disks[0].volume
    assert disk is not None
    temporary: list[Volume] = []

    choice = place(cluster, vm, overhead_mib=overhead_mib, only=new.node, keeping=keeping)

    def scratch(part: str, pool: str = disk.pool) -> Volume:
        volume = Volume(pool=pool, name=fresh.volume(new.name, part))
        temporary.append(volume)
        return volume

    def boot_file(part: str) -> Volume:
        return scratch(part, _pool_of_files(cluster, new.name, disk.pool, choice.node))

    drives = list(vm.disks)
    bus = cd_bus(vm.machine)

    def insert(name: str, volume: Volume, boot: int | None) -> None:
        drives.append(
            Disk(
                name=name,
                target=next_target([d.target for d in drives], TARGET_PREFIX[bus]),
                volume=volume,
                bus=bus,
                device="cdrom",
                boot=boot,
                owned=False,
                read_only=True,
            )
        )

    iso: Volume | None = None
    if installer.iso is not None:
        image = cluster.image(installer.iso)
        if image.kind != "iso":
            raise Invalid(
                f"cannot install from image {installer.iso!r}: it is a disk image, not a CD; import"
                " the installer's CD with `vorch image import --iso`"
            )
        iso = image.disks[0].volume
    boot = _direct_boot(installer, answers, iso, boot_file, steps)
    if iso is not None:
        insert("installer", iso, None if boot else 2)
    if answers.cd_files:
        volume = scratch("answers")
        steps.append(WriteIso(volume=volume, label=answers.cd_label, files=answers.cd_files))
        insert("answers", volume, None)

    vm = put_into_cell(cluster, dataclasses.replace(vm, node=choice.node))
    running = dataclasses.replace(vm, wanted="running")
    final = dataclasses.replace(vm, wanted="running" if new.start else "stopped")
    first = dataclasses.replace(vm, disks=tuple(drives), direct_boot=boot, wanted="running")
    check_range(int(timeout_s), 1, 7 * 24 * 3600, "time for the installer", "seconds")
    networks = networks_of(cluster, vm)
    installing = save_clients(cluster, first)
    steps += [
        *ensure_networks(cluster, vm),
        save_vm(None, running),
        StartDomain(vm=first, networks=networks, cpu=for_vm(cluster, first)),
        installing,
        AwaitEnd(vm=first, timeout_s=timeout_s),
        dataclasses.replace(installing, before=None, after=None, fill={}),
    ]
    if new.start:
        steps += [
            StartDomain(vm=final, networks=networks, cpu=for_vm(cluster, final)),
            save_clients(cluster, final),
        ]
    if final != running:
        steps.append(save_vm(running, final))
    steps += [PurgeVolume(volume=volume) for volume in temporary]
    return Plan(
        verb="install",
        subject=new.name,
        why=f"unattended ({answers.kind}), on {choice.node} because {choice.why}",
        steps=tuple(steps),
        claims=(f"vm/{new.name}",),
        reads=reads(
            cluster,
            f"vm/{new.name}",
            *([f"image/{installer.iso}"] if installer.iso else []),
            *dict.fromkeys(f"network/{name}" for name in new.networks),
        ),
    )


def _pool_of_files(cluster: Cluster, vm: str, pool: str, node: str) -> str:
    """Where a kernel goes: a hypervisor reads it from a file of the host, never from Ceph."""
    if not cluster.pool(pool).url.startswith("rbd:"):
        return pool
    for one in sorted(cluster.pools.values(), key=lambda one: one.name):
        if one.node == node and one.url.startswith("dir:"):
            return one.name
    raise Invalid(
        f"cannot install VM {vm!r} into pool {pool!r}: the installer's kernel has to lie in a file"
        f" of host {node!r}, which has no pool of files; give it one (vorch pool add), or install"
        " from a CD that starts by itself"
    )


def _direct_boot(
    installer: Installer,
    answers: Answers,
    iso: Volume | None,
    scratch: Callable[[str], Volume],
    steps: list[Step],
) -> DirectBoot | None:
    """The installer's own kernel, when it is started with one; its initrd told the answers."""
    if answers.boots == "cd":
        if iso is None:
            raise Invalid(
                f"cannot install by {answers.kind}: it boots the installer's CD, which is missing;"
                " name it (--iso)"
            )
        return None
    if installer.kernel is None or installer.initrd is None:
        raise Invalid(
            f"cannot install by {answers.kind}: the installer's kernel and initrd are missing; name"
            " its CD (--iso), or both of them (--kernel, --initrd)"
        )

    def fetch(what: str, where: str) -> Volume:
        volume = scratch(what)
        if installer.on_cd:
            assert iso is not None
            steps.append(ExtractFile(iso=iso, path=where, volume=volume))
        else:
            steps.append(ImportVolume(location=where, volume=volume, content="file"))
        return volume

    kernel = fetch("kernel", installer.kernel)
    initrd = fetch("initrd", installer.initrd)
    if answers.initrd_files:
        told = scratch("told")
        steps.append(ExtendInitrd(source=initrd, volume=told, files=answers.initrd_files))
        initrd = told
    return DirectBoot(kernel=kernel, initrd=initrd, command_line=answers.command_line)
