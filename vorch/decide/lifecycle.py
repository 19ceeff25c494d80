"""From birth to the grave: create, start, stop, restart, pause, rename, change, delete, undelete.

Pure functions: a look at the cluster and what was asked for in, a `Plan` out. Nothing is touched
here, so everything that can be refused is refused here, before anything happens.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from vorch.decide.at_once import check_arrived
from vorch.decide.baseline import for_vm
from vorch.decide.clients import drop_clients, save_clients
from vorch.decide.forwards import without
from vorch.decide.fresh import Fresh
from vorch.decide.place import (
    NOTHING_KEPT,
    Keeping,
    home,
    is_short,
    lack,
    place,
    put_into_cell,
    refusal,
    spoiled,
    without_tags,
)
from vorch.decide.records import (
    cd_bus,
    ensure_networks,
    is_on,
    known_power,
    need_running,
    networks_of,
    new_vm_name,
    next_target,
    reads,
    save,
    save_trashed,
    save_vm,
)
from vorch.decide.seed import seed_files
from vorch.errors import Conflict, Invalid, NoRoom, NotFound, Unsupported
from vorch.model import (
    GIB,
    TARGET_PREFIX,
    CloudInit,
    Cluster,
    Disk,
    DiskBus,
    Firmware,
    Hypervisors,
    Image,
    IoLimits,
    Nic,
    NicModel,
    Power,
    Vm,
    Volume,
    Watchdog,
    XenKind,
    XenLoader,
    check_mac,
    check_range,
    check_vm_name,
)
from vorch.plan import (
    AskToStop,
    CloneVolume,
    CopyVolume,
    CreateVolume,
    CutDomain,
    ForgetDomain,
    GrowVolume,
    PauseDomain,
    Plan,
    PurgeVolume,
    ResetDomain,
    RestoreVolume,
    ResumeDomain,
    Save,
    SetMemory,
    SetVcpus,
    StartDomain,
    Step,
    TrashVolume,
    WriteIso,
)

SEED_DISK = "seed"
CD_DISK = "cd"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewVm:
    """What a person asks for. None: take it from the image, else the default."""

    name: str
    image: str | None = None
    iso: str | None = None
    vcpus: int | None = None
    vcpus_max: int | None = None
    memory_mib: int | None = None
    memory_max_mib: int | None = None
    disk_gib: int | None = None
    pool: str | None = None
    networks: tuple[str, ...] = ("default",)
    macs: tuple[str, ...] = ()
    nic_model: NicModel = NicModel.VIRTIO
    disk_bus: DiskBus | None = None
    firmware: Firmware | None = None
    secure_boot: bool = False
    tpm: bool = False
    hypervisor: Hypervisors | None = None
    xen_kind: XenKind | None = None
    xen_loader: XenLoader | None = None
    machine: str = "q35"
    cpu: str = "default"
    graphics: bool = True
    agent: bool = True
    watchdog: Watchdog = Watchdog.NONE
    tags: tuple[str, ...] = ()
    require_tags: tuple[str, ...] = ()
    huge_pages: Literal["", "2M", "1G"] = ""
    one_numa_cell: bool = False
    linked: bool = True
    limits: IoLimits = field(default_factory=IoLimits)
    node: str | None = None
    cloud_init: CloudInit | None = None
    description: str = ""
    start: bool = False


def create(
    cluster: Cluster,
    new: NewVm,
    fresh: Fresh,
    *,
    overhead_mib: int,
    keeping: Keeping = NOTHING_KEPT,
) -> Plan:
    """A VM from an image, a template or nothing, with its disks, NICs and cloud-init seed."""
    new_vm_name(cluster, new.name, "create")
    image = _bootable(cluster, new.image)
    vm, steps = drawn_up(cluster, new, fresh, image)
    if new.start:
        choice = place(cluster, vm, overhead_mib=overhead_mib, only=new.node, keeping=keeping)
    else:
        choice = home(cluster, vm, new.node, overhead_mib=overhead_mib)
    vm = dataclasses.replace(vm, node=choice.node, wanted="running" if new.start else "stopped")
    if new.start:
        vm = put_into_cell(cluster, vm)
        steps += [
            *ensure_networks(cluster, vm),
            StartDomain(vm=vm, networks=networks_of(cluster, vm), cpu=for_vm(cluster, vm)),
            save_clients(cluster, vm),
        ]
    steps.append(save_vm(None, vm))
    origin = f"from image {new.image!r}" if image else "with an empty disk"
    if any(isinstance(step, CopyVolume) and step.source.pool != step.volume.pool for step in steps):
        origin += f", copied to pool {new.pool!r}"
    return Plan(
        verb="create",
        subject=new.name,
        why=f"{origin}, on {choice.node} because {choice.why}",
        steps=tuple(steps),
        claims=(f"vm/{vm.name}",),
        reads=reads(
            cluster,
            f"vm/{vm.name}",
            *([f"image/{new.image}"] if new.image else []),
            *([f"image/{new.iso}"] if new.iso else []),
            *dict.fromkeys(f"network/{name}" for name in new.networks),
        ),
    )


def newcomer(cluster: Cluster, new: NewVm, fresh: Fresh) -> Vm:
    """What it would be, wherever it goes."""
    return drawn_up(cluster, new, fresh, _bootable(cluster, new.image))[0]


def _bootable(cluster: Cluster, name: str | None) -> Image | None:
    if name is None:
        return None
    image = cluster.image(name)
    if image.kind == "iso":
        raise Invalid(
            f"cannot create a VM from image {name!r}: it is a CD, not a disk; give it as --iso, or"
            " use `vorch install`",
            image=name,
        )
    return image


def default_pool(cluster: Cluster) -> str:
    if not cluster.pools:
        raise NotFound("cannot find a pool for the disk: the cluster has none; run `vorch init`")
    return "local" if "local" in cluster.pools else sorted(cluster.pools)[0]


def drawn_up(
    cluster: Cluster, new: NewVm, fresh: Fresh, image: Image | None
) -> tuple[Vm, list[Step]]:
    """The definition, and the steps that make its volumes."""
    steps: list[Step] = []
    disks = _first_disks(cluster, new, fresh, image, steps)
    nics = _nics(cluster, new, fresh)
    firmware = new.firmware or (image.firmware if image else Firmware.BIOS)
    bus = cd_bus(new.machine)
    if new.iso is not None:
        iso = cluster.image(new.iso)
        if iso.kind != "iso":
            raise Invalid(
                f"cannot put image {new.iso!r} into the CD drive: it is a disk image; give it as"
                " --image",
                image=new.iso,
            )
        disks.append(
            Disk(
                name=CD_DISK,
                target=next_target([d.target for d in disks], TARGET_PREFIX[bus]),
                volume=iso.disks[0].volume,
                size_bytes=iso.size_bytes,
                bus=bus,
                device="cdrom",
                boot=2,
                owned=False,
                read_only=True,
            )
        )
    if new.cloud_init is not None:
        seed, step = seed_disk(new.name, fresh, nics, new.cloud_init, disks[0].volume, disks, bus)
        disks.append(seed)
        steps.append(step)
    vcpus = new.vcpus if new.vcpus is not None else (image.vcpus if image else 1)
    memory = new.memory_mib if new.memory_mib is not None else (image.memory_mib if image else 1024)
    check_range(vcpus, 1, 512, "number of vCPUs")
    check_range(memory, 16, 16 * 1024**2, "memory", "MiB")
    vm = Vm(
        name=new.name,
        id=fresh.uuid,
        node="unplaced",
        vcpus=vcpus,
        vcpus_max=new.vcpus_max if new.vcpus_max is not None else min(max(8, 2 * vcpus), 512),
        memory_mib=memory,
        memory_max_mib=new.memory_max_mib if new.memory_max_mib is not None else memory,
        cpu=new.cpu,
        hypervisor=new.hypervisor or usual_hypervisor(cluster, image, new.node),
        xen_kind=new.xen_kind or (image.xen_kind if image else "pv"),
        xen_loader=new.xen_loader or (image.xen_loader if image else "pygrub"),
        machine=new.machine,
        firmware=firmware,
        secure_boot=new.secure_boot,
        tpm=new.tpm,
        graphics=new.graphics,
        agent=new.agent,
        watchdog=new.watchdog,
        tags=new.tags,
        require_tags=new.require_tags,
        huge_pages=new.huge_pages,
        one_numa_cell=new.one_numa_cell,
        disks=tuple(disks),
        nics=nics,
        description=new.description,
        created_at=fresh.now,
    )
    return vm, steps


def usual_hypervisor(cluster: Cluster, image: Image | None, node: str | None) -> Hypervisors:
    """Of a VM of which nobody said it: its image's, else that of the host that was named.

    Where nobody named one, KVM, unless all hosts run Xen: elsewhere it could not be at all.
    """
    if image is not None and image.hypervisor:
        return image.hypervisor
    named = [cluster.nodes[node]] if node in cluster.nodes else cluster.nodes.values()
    known = {one.facts.runs for one in named if one.facts is not None}
    return "xen" if known == {"xen"} else "kvm"


def _first_disks(
    cluster: Cluster, new: NewVm, fresh: Fresh, image: Image | None, steps: list[Step]
) -> list[Disk]:
    wanted = None
    if new.disk_gib is not None:
        wanted = check_range(new.disk_gib, 1, 65536, "size of the disk", "GiB") * GIB
    if image is None:
        bus = new.disk_bus or DiskBus.VIRTIO
        pool = cluster.pool(new.pool).name if new.pool else default_pool(cluster)
        volume = Volume(pool=pool, name=fresh.volume(new.name, "root"))
        size = wanted or 10 * GIB
        steps.append(CreateVolume(volume=volume, size_bytes=size))
        target = next_target([], TARGET_PREFIX[bus])
        return [
            Disk(
                name="root",
                target=target,
                volume=volume,
                size_bytes=size,
                bus=bus,
                boot=1,
                limits=new.limits,
            )
        ]
    disks: list[Disk] = []
    for number, part in enumerate(image.disks):
        size = part.size_bytes
        if number == 0 and wanted is not None:
            if wanted < size:
                raise Invalid(
                    f"cannot create VM {new.name!r} with a disk of {new.disk_gib} GiB: image"
                    f" {image.name!r} needs {-(-size // GIB)} GiB; ask for at least that",
                    image=image.name,
                )
            size = wanted
        pool = cluster.pool(new.pool).name if new.pool else part.volume.pool
        volume = Volume(pool=pool, name=fresh.volume(new.name, part.name))
        bus = new.disk_bus or part.bus
        target = next_target([disk.target for disk in disks], TARGET_PREFIX[bus])
        disks.append(
            Disk(
                name=part.name,
                target=target,
                volume=volume,
                size_bytes=size,
                bus=bus,
                boot=part.boot,
                limits=new.limits,
            )
        )
        # What stands on an image is in its pool; elsewhere it has to be whole.
        if new.linked and pool == part.volume.pool:
            steps.append(CloneVolume(base=part.volume, volume=volume, size_bytes=size))
        else:
            check_arrived(image, f"copy image {image.name!r} for VM {new.name!r}")
            steps.append(CopyVolume(source=part.volume, snapshot=None, volume=volume))
            if size > part.size_bytes:
                steps.append(GrowVolume(volume=volume, size_bytes=size))
    return disks


def _nics(cluster: Cluster, new: NewVm, fresh: Fresh) -> tuple[Nic, ...]:
    if len(new.macs) > len(new.networks):
        raise Invalid("cannot use that MAC address: there are more addresses than networks")
    given = [mac.lower() for mac in new.macs]
    for mac in given:
        check_mac(mac)
        for vm in cluster.vms.values():
            if mac in [nic.mac for nic in vm.nics]:
                raise Conflict(f"cannot use MAC address {mac}: VM {vm.name!r} has it", vm=vm.name)
    for name in new.networks:
        cluster.network(name)
    made = fresh.macs(len(new.networks) - len(given), cluster, taken=given)
    return tuple(
        Nic(name=f"nic{number}", mac=mac, network=network, model=new.nic_model)
        for number, (network, mac) in enumerate(zip(new.networks, [*given, *made], strict=True))
    )


def seed_disk(
    name: str,
    fresh: Fresh,
    nics: tuple[Nic, ...],
    cloud_init: CloudInit,
    beside: Volume | None,
    disks: list[Disk],
    bus: DiskBus,
) -> tuple[Disk, Step]:
    """The CD that tells the guest who it is, in the pool of its first disk."""
    assert beside is not None
    if len(cloud_init.addresses) > len(nics):
        raise Invalid(
            f"cannot give VM {name!r} {len(cloud_init.addresses)} addresses: it has {len(nics)}"
            " NICs; give one address per NIC at the most"
        )
    volume = Volume(pool=beside.pool, name=fresh.volume(name, SEED_DISK))
    files = seed_files(name, fresh.uuid, nics, cloud_init)
    disk = Disk(
        name=SEED_DISK,
        target=next_target([d.target for d in disks], TARGET_PREFIX[bus]),
        volume=volume,
        bus=bus,
        device="cdrom",
        read_only=True,
    )
    return disk, WriteIso(volume=volume, label="cidata", files=files)


# ---------------------------------------------------------------------------------------------
# Power


def start(
    cluster: Cluster, name: str, *, overhead_mib: int, keeping: Keeping = NOTHING_KEPT
) -> Plan:
    vm = cluster.vm(name)
    power = known_power(cluster, vm, "start")
    common = _on_vm("start", cluster, vm)
    if power is Power.RUNNING and vm.wanted == "running":
        return dataclasses.replace(common, why="it is running already")
    if power is Power.PAUSED:
        raise Conflict(f"cannot start VM {name!r}: it is paused; resume it (vorch resume {name})")
    wanted = dataclasses.replace(vm, wanted="running")
    if power is Power.RUNNING:
        return dataclasses.replace(
            common,
            why="it is running already, though not recorded so",
            steps=(save_vm(vm, wanted),),
        )
    node = cluster.node(vm.node)
    why_not = refusal(cluster, node, vm, overhead_mib)
    if why_not is not None:
        ruled = vm.node in cluster.barred.get(name, {})
        short = is_short(why_not) and not ruled
        kind = Conflict if ruled else NoRoom if short else Unsupported
        raise kind(
            f"cannot start VM {name!r} on {vm.node!r}: {why_not}"
            + ("; stop something else, or make the VM smaller (vorch change)" if short else ""),
            vm=name,
            node=vm.node,
        )
    spare, told = spoiled(cluster, vm, vm.node, overhead_mib, keeping)
    if spare:
        raise NoRoom(
            f"cannot start VM {name!r} on {vm.node!r}: {spare}; stop something else, or have it"
            f" start elsewhere (vorch relocate {name} NODE)",
            vm=name,
            node=vm.node,
            refused={vm.node: spare},
        )
    wanted = put_into_cell(cluster, wanted)
    return dataclasses.replace(
        common,
        why=f"on {vm.node}, where its disks are" + (f"; {told}" if told else ""),
        steps=(
            *ensure_networks(cluster, vm),
            StartDomain(vm=wanted, networks=networks_of(cluster, vm), cpu=for_vm(cluster, vm)),
            save_vm(vm, wanted),
            save_clients(cluster, vm),
        ),
    )


def stop(cluster: Cluster, name: str, *, timeout_s: float, force: bool) -> Plan:
    vm = cluster.vm(name)
    power = known_power(cluster, vm, "stop")
    wanted = dataclasses.replace(vm, wanted="stopped")
    recorded: tuple[Step, ...] = (save_vm(vm, wanted),) if vm.wanted != "stopped" else ()
    recorded += drop_clients(cluster, vm)
    common = _on_vm("stop", cluster, vm)
    if not is_on(power):
        return dataclasses.replace(common, why=f"it is {power.value} already", steps=recorded)
    if force:
        why = "its power is cut, as was asked for"
        return dataclasses.replace(common, why=why, steps=(CutDomain(vm=vm), *recorded))
    if power is Power.PAUSED:
        raise Conflict(
            f"cannot stop VM {name!r}: it is paused, so its guest hears nothing; resume it first,"
            " or cut it (--force)",
            vm=name,
        )
    return dataclasses.replace(
        common,
        why="the guest is asked to shut down",
        steps=(AskToStop(vm=vm, timeout_s=timeout_s), *recorded),
    )


def restart(
    cluster: Cluster, name: str, *, timeout_s: float, force: bool, overhead_mib: int
) -> Plan:
    """Stop and start as a new domain, so that every change of the definition takes effect."""
    vm = cluster.vm(name)
    power = known_power(cluster, vm, "restart")
    if not is_on(power):
        raise Conflict(
            f"cannot restart VM {name!r}: it is {power.value}; start it (vorch start {name})",
            vm=name,
        )
    down = stop(cluster, name, timeout_s=timeout_s, force=force)
    after = dataclasses.replace(
        cluster, domains={i: d for i, d in cluster.domains.items() if i != vm.id}
    )
    up = start(after, name, overhead_mib=overhead_mib)
    steps = tuple(step for step in down.steps if not isinstance(step, Save))
    return dataclasses.replace(
        _on_vm("restart", cluster, vm),
        why="it is stopped and started with its definition as it is now",
        steps=(*steps, *up.steps),
    )


def pause(cluster: Cluster, name: str) -> Plan:
    vm = cluster.vm(name)
    common = _on_vm("pause", cluster, vm)
    if known_power(cluster, vm, "pause") is Power.PAUSED:
        return dataclasses.replace(common, why="it is paused already")
    need_running(cluster, vm, "pause")
    return dataclasses.replace(common, why="as was asked for", steps=(PauseDomain(vm=vm),))


def resume(cluster: Cluster, name: str) -> Plan:
    vm = cluster.vm(name)
    common = _on_vm("resume", cluster, vm)
    power = known_power(cluster, vm, "resume")
    if power is Power.RUNNING:
        return dataclasses.replace(common, why="it is running already")
    if power is not Power.PAUSED:
        raise Conflict(
            f"cannot resume VM {name!r}: it is {power.value}, not paused; start it", vm=name
        )
    return dataclasses.replace(common, why="as was asked for", steps=(ResumeDomain(vm=vm),))


def reset(cluster: Cluster, name: str) -> Plan:
    vm = cluster.vm(name)
    need_running(cluster, vm, "reset")
    return dataclasses.replace(
        _on_vm("reset", cluster, vm), why="as was asked for", steps=(ResetDomain(vm=vm),)
    )


def _on_vm(verb: str, cluster: Cluster, vm: Vm) -> Plan:
    key = f"vm/{vm.name}"
    # What is recorded of its clients is read, too, since its claim guards that as well.
    rest = reads(cluster, key, f"clients/{vm.id}")
    return Plan(verb=verb, subject=vm.name, why="", claims=(key,), reads=rest)


# ---------------------------------------------------------------------------------------------
# The definition


def rename(cluster: Cluster, name: str, new_name: str) -> Plan:
    vm = cluster.vm(name)
    new_vm_name(cluster, new_name, "rename to")
    renamed = dataclasses.replace(vm, name=new_name)
    running = is_on(known_power(cluster, vm, "rename"))
    why = "its host goes on showing the old name until its next start" if running else "it is off"
    return Plan(
        verb="rename",
        subject=name,
        why=f"to {new_name!r}; {why}",
        steps=(save_vm(vm, None), save_vm(None, renamed)),
        claims=(f"vm/{name}", f"vm/{new_name}"),
        reads=reads(cluster, f"vm/{name}", f"vm/{new_name}"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What is to be different. None: as it is."""

    vcpus: int | None = None
    vcpus_max: int | None = None
    memory_mib: int | None = None
    memory_max_mib: int | None = None
    cpu: str | None = None
    hypervisor: Hypervisors | None = None
    xen_kind: XenKind | None = None
    xen_loader: XenLoader | None = None
    machine: str | None = None
    firmware: Firmware | None = None
    secure_boot: bool | None = None
    tpm: bool | None = None
    graphics: bool | None = None
    agent: bool | None = None
    watchdog: Watchdog | None = None
    tags: tuple[str, ...] | None = None
    require_tags: tuple[str, ...] | None = None
    huge_pages: Literal["", "2M", "1G"] | None = None
    one_numa_cell: bool | None = None
    description: str | None = None


# What no guest ever sees: it is asked of the next host.
_AT_ONCE = {"description", "tags", "require_tags"}


def change(cluster: Cluster, name: str, changes: Changes, *, live: bool) -> Plan:
    """Live where that can be; the rest takes effect at the next start, and the plan says so.

    `live` False after the host or guest refused: then all of it waits for the next start.
    """
    vm = cluster.vm(name)
    wanted = {
        field.name: getattr(changes, field.name)
        for field in dataclasses.fields(changes)
        if getattr(changes, field.name) is not None
    }
    # More than the limit raises the limit, which a running VM sees at its next start only.
    if changes.vcpus is not None and changes.vcpus_max is None and changes.vcpus > vm.vcpus_max:
        wanted["vcpus_max"] = changes.vcpus
    if changes.memory_mib is not None and changes.memory_max_mib is None:
        grown = vm.memory_max_mib == vm.memory_mib or changes.memory_mib > vm.memory_max_mib
        if changes.memory_mib > vm.memory_max_mib or (grown and not is_on(cluster.power(vm))):
            wanted["memory_max_mib"] = changes.memory_mib
    after = dataclasses.replace(vm, **wanted)
    common = _on_vm("change", cluster, vm)
    if after == vm:
        return dataclasses.replace(common, why="it is so already")
    if not is_on(known_power(cluster, vm, "change")):
        why_not = _lack_anywhere(cluster, after)
        if why_not:
            raise Unsupported(f"cannot change VM {name!r}: {why_not}", vm=name)
        after = dataclasses.replace(after, generation=vm.generation + 1)
        return dataclasses.replace(common, why="it is off", steps=(save_vm(vm, after),))
    steps: list[Step] = []
    waiting = sorted(set(wanted) - _AT_ONCE - {"vcpus", "memory_mib"})
    if after.vcpus != vm.vcpus:
        if live and after.vcpus <= vm.vcpus_max and cluster.power(vm) is Power.RUNNING:
            steps.append(SetVcpus(vm=vm, vcpus=after.vcpus, before=vm.vcpus))
        else:
            waiting.append("vcpus")
    if after.memory_mib != vm.memory_mib:
        if live and after.memory_mib <= vm.memory_max_mib and cluster.power(vm) is Power.RUNNING:
            steps.append(SetMemory(vm=vm, memory_mib=after.memory_mib, before_mib=vm.memory_mib))
        else:
            waiting.append("memory_mib")
    if waiting:
        after = dataclasses.replace(after, generation=vm.generation + 1)
    later = f"{_words(waiting)}: at the next start" if waiting else ""
    at_once = f"{_words(set(wanted) - set(waiting))}: at once"
    why = "; ".join(part for part in (at_once if set(wanted) - set(waiting) else "", later) if part)
    return dataclasses.replace(common, why=why, steps=(*steps, save_vm(vm, after)))


def _words(fields: Iterable[str]) -> str:
    """Fields of a definition as a person calls them."""
    plain = {field.removesuffix("_mib").replace("_max", " limit") for field in fields}
    return ", ".join(sorted(plain)).replace("_", " ")


def _lack_anywhere(cluster: Cluster, vm: Vm) -> str | None:
    node = cluster.nodes.get(vm.node)
    if node is None:
        return None
    return without_tags(node, vm) or (lack(node.facts, vm) if node.facts else None)


# ---------------------------------------------------------------------------------------------
# The end, and back from it


def delete(
    cluster: Cluster, name: str, fresh: Fresh, *, force: bool, purge: bool, keep_s: float
) -> Plan:
    """Disks go to the trash, with the definition; `purge` leaves nothing."""
    vm = cluster.vm(name)
    running = is_on(known_power(cluster, vm, "delete"))
    if running and not force:
        raise Conflict(
            f"cannot delete VM {name!r}: it is {cluster.power(vm).value}; stop it first, or delete"
            " it with its power cut (--force)",
            vm=name,
        )
    key = f"{name}.{fresh.token[:8]}"
    forwards, networks = without(cluster, vm, node=vm.node if running else None)
    steps: list[Step] = [CutDomain(vm=vm)] if running else []
    steps += drop_clients(cluster, vm)
    steps += forwards
    claims = [f"vm/{name}", *networks]
    if purge:
        steps.append(save_vm(vm, None))
        steps += [*forgotten(vm), *(PurgeVolume(volume=volume) for volume in vm.volumes)]
        why = "its disks are deleted for good"
    else:
        trashed = save_trashed(
            key, name, vm.volumes, fresh, keep_s, vm=dataclasses.replace(vm, wanted="stopped")
        )
        steps += [TrashVolume(volume=volume) for volume in vm.volumes]
        steps += [save_vm(vm, None), trashed]
        claims.append(f"trash/{key}")
        why = f"it can be had back for {keep_s / 3600:g} h (vorch undelete {name})"
    return Plan(
        verb="delete",
        subject=name,
        why=why,
        steps=tuple(steps),
        claims=tuple(claims),
        reads=reads(cluster, f"vm/{name}", f"clients/{vm.id}", *networks),
    )


def forgotten(vm: Vm) -> list[Step]:
    """What a host keeps for a VM beside its disks goes with it."""
    return [ForgetDomain(vm=vm)] if vm.firmware is Firmware.UEFI or vm.tpm else []


def undelete(cluster: Cluster, name: str, new_name: str | None) -> Plan:
    """The one of that name that was deleted last, under its old name or a new one."""
    check_vm_name(name)
    found = [one for one in cluster.trash.values() if one.vm is not None and one.name == name]
    if not found:
        raise NotFound(
            f"cannot undelete VM {name!r}: there is none of that name in the trash; `vorch trash"
            " list` shows what is",
            vm=name,
        )
    trashed = max(found, key=lambda one: (one.deleted_at, one.key))
    assert trashed.vm is not None
    target = new_vm_name(cluster, new_name or name, "undelete as")
    vm = dataclasses.replace(trashed.vm, name=target)
    taken = {nic.mac for other in cluster.vms.values() for nic in other.nics}
    clash = [nic.mac for nic in vm.nics if nic.mac in taken]
    if clash:
        raise Conflict(
            f"cannot undelete VM {name!r}: its MAC address {clash[0]} is in use by another VM;"
            " detach that NIC first",
            vm=name,
        )
    return Plan(
        verb="undelete",
        subject=name,
        why=f"as {target!r}, with its disks as they were",
        steps=(
            *(RestoreVolume(volume=volume) for volume in trashed.volumes),
            save_vm(None, vm),
            save("trash", trashed.key, trashed, None),
        ),
        claims=(f"vm/{target}", f"trash/{trashed.key}"),
        reads=reads(cluster, f"vm/{target}", f"trash/{trashed.key}"),
    )


def purge(cluster: Cluster, key: str) -> Plan:
    """Delete for good what is in the trash under this key."""
    if key not in cluster.trash:
        raise NotFound(
            f"cannot purge {key!r}: there is no such thing in the trash; `vorch trash list` shows"
            " what is",
            key=key,
        )
    trashed = cluster.trash[key]
    return Plan(
        verb="purge",
        subject=key,
        why="its time is over, or it was asked for",
        steps=(
            *(forgotten(trashed.vm) if trashed.vm is not None else ()),
            *(PurgeVolume(volume=volume) for volume in trashed.volumes),
            save("trash", key, trashed, None),
        ),
        claims=(f"trash/{key}",),
        reads=reads(cluster, f"trash/{key}"),
    )
