"""To another cluster: a VM that is off goes there with its disks, and is no more here. Pure.

Both clusters are looked at first, and all that can be refused is refused then. What a person has to
give up for it (snapshots, forwarded ports, UEFI's variables) is never dropped silently.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from vorch.decide.clients import drop_clients
from vorch.decide.fresh import Fresh
from vorch.decide.place import home, out_of_reach
from vorch.decide.records import need_stopped, reads, save_trashed, save_vm
from vorch.errors import Conflict, Invalid, NotFound, Unreachable, Unsupported
from vorch.model import Cluster, Disk, Firmware, Nic, Vm, Volume
from vorch.plan import (
    AnnounceArrival,
    ForgetArrival,
    Plan,
    RecordArrival,
    SeeUnused,
    SendVolume,
    Step,
    TrashVolume,
)


def send(
    cluster: Cluster,
    name: str,
    other: str,
    there: Cluster,
    fresh: Fresh,
    *,
    node: str | None = None,
    pool: str | None = None,
    networks: Mapping[str, str] | None = None,
    keep_s: float,
) -> Plan:
    """`there`: a look at the cluster at the URI `other`. `networks`: what they are called there.

    Without `pool` each disk goes into the pool of the same name, or into the only one there is.
    """
    vm = cluster.vm(name)
    need_stopped(cluster, vm, "send", "its disks are copied while nobody writes to them")
    if vm.id in cluster.domains:
        raise Conflict(
            f"cannot send VM {name!r}: it is {cluster.power(vm).value} on"
            f" {cluster.domains[vm.id].node!r}, and what is left of it there holds its disks; cut"
            f" it (vorch stop --force {name})",
            vm=name,
        )
    _need_whole(cluster, vm)
    _need_room_for(there, vm)
    going = [disk for disk in vm.disks if disk.owned and disk.volume is not None]
    new = {
        disk.name: Volume(pool=_pool(there, vm, disk, pool), name=fresh.volume(name, disk.name))
        for disk in going
    }
    arriving = dataclasses.replace(
        vm,
        home="",
        wanted="stopped",
        disks=tuple(dataclasses.replace(one, volume=new.get(one.name)) for one in vm.disks),
        nics=_nics(there, vm, networks or {}),
    )
    arriving = _placed(cluster, there, vm, arriving, node)
    arriving, empty = _with_media(cluster, there, vm, arriving)
    key = f"{name}.{fresh.token[:8]}"
    # Its definition is not kept: it must not come to life here as well.
    trashed = save_trashed(key, name, vm.volumes, fresh, keep_s, vm=None)
    return Plan(
        verb="send",
        subject=name,
        why=f"to {other}, where it belongs to {arriving.node}; "
        + _of_disks(new)
        + (f"; drive {' and '.join(map(repr, empty))} is empty there" if empty else ""),
        steps=(
            SeeUnused(vm=vm),
            AnnounceArrival(other=other, arrival=fresh.token, vm=arriving),
            *_copies(going, new, other),
            RecordArrival(other=other, arrival=fresh.token, vm=vm, arriving=arriving),
            *(TrashVolume(volume=volume) for volume in vm.volumes),
            save_vm(vm, None),
            *drop_clients(cluster, vm),
            trashed,
            ForgetArrival(other=other, arrival=fresh.token),
        ),
        claims=(f"vm/{name}", f"trash/{key}"),
        reads=reads(cluster, f"vm/{name}", f"clients/{vm.id}"),
    )


def _copies(going: list[Disk], new: Mapping[str, Volume], other: str) -> list[Step]:
    return [
        SendVolume(
            other=other,
            source=disk.volume,
            volume=new[disk.name],
            content="file" if disk.device == "cdrom" else "disk",
        )
        for disk in going
        if disk.volume is not None
    ]


def _of_disks(new: Mapping[str, Volume]) -> str:
    pools: dict[str, list[str]] = {}
    for name, volume in new.items():
        pools.setdefault(volume.pool, []).append(name)
    told = [f"{', '.join(names)} into its pool {pool!r}" for pool, names in pools.items()]
    return "; ".join(told) or "it has no disks"


def _need_whole(cluster: Cluster, vm: Vm) -> None:
    """All of it can go along."""
    name = vm.name
    kept = "UEFI's variables" if vm.firmware is Firmware.UEFI else "TPM's memory" if vm.tpm else ""
    if kept:
        raise Unsupported(
            f"cannot send VM {name!r}: its {kept} are kept on {vm.node!r} and would stay there;"
            " export its disks (vorch disk export), and make it anew from them there",
            vm=name,
        )
    if vm.direct_boot is not None:
        raise Unsupported(
            f"cannot send VM {name!r}: it is being installed; wait until that is over", vm=name
        )
    if vm.snapshots:
        raise Conflict(
            f"cannot send VM {name!r}: its snapshots would stay behind; delete them first (vorch"
            f" snapshot delete {name} …), or send a full clone (vorch clone {name} NEW)",
            vm=name,
            snapshots=[one.name for one in vm.snapshots],
        )
    for disk in vm.disks:
        if disk.volume is not None and not disk.owned and disk.device != "cdrom":
            raise Unsupported(
                f"cannot send VM {name!r}: the volume of disk {disk.name!r} is not its own, others"
                f" may use it as well; detach it first (vorch disk detach {name} {disk.name})",
                vm=name,
                disk=disk.name,
            )
    macs = [nic.mac for nic in vm.nics]
    for network in cluster.networks.values():
        for forward in network.forwards:
            if forward.mac in macs:
                raise Conflict(
                    f"cannot send VM {name!r}: port {forward.host_port}/{forward.protocol} of the"
                    " hosts here leads to it, and would lead nowhere; remove that first (vorch"
                    f" forward remove {name} {forward.host_port})",
                    vm=name,
                    network=network.name,
                )


def _need_room_for(there: Cluster, vm: Vm) -> None:
    """Nothing there is what it is, or is called so."""
    if any(one.id == vm.id for one in there.vms.values()):
        raise Conflict(
            f"cannot send VM {vm.name!r}: that cluster has it already; if it is this same cluster,"
            " name another one",
            vm=vm.name,
        )
    if vm.id in there.domains:
        raise Conflict(
            f"cannot send VM {vm.name!r}: host {there.domains[vm.id].node!r} there runs a domain of"
            " its id; stop that first",
            vm=vm.name,
        )
    if vm.name in there.vms:
        raise Conflict(
            f"cannot send VM {vm.name!r}: that cluster has another one of that name; rename one of"
            f" the two (vorch rename {vm.name} NEW)",
            vm=vm.name,
        )
    owners = {nic.mac: one.name for one in there.vms.values() for nic in one.nics}
    for nic in vm.nics:
        if nic.mac in owners:
            raise Conflict(
                f"cannot send VM {vm.name!r}: VM {owners[nic.mac]!r} there has the MAC address"
                f" {nic.mac} of its NIC {nic.name!r}; attach another NIC in its place",
                vm=vm.name,
            )


def _pool(there: Cluster, vm: Vm, disk: Disk, named: str | None) -> str:
    if named is not None:
        if named not in there.pools:
            raise NotFound(
                f"cannot send VM {vm.name!r} into pool {named!r}: that cluster has"
                f" {', '.join(map(repr, sorted(there.pools))) or 'none'}",
                vm=vm.name,
                pool=named,
            )
        return named
    assert disk.volume is not None
    if disk.volume.pool in there.pools:
        return disk.volume.pool
    if len(there.pools) == 1:
        return next(iter(there.pools))
    raise Invalid(
        f"cannot send VM {vm.name!r}: its disk {disk.name!r} is in pool {disk.volume.pool!r}, and"
        " that cluster has none of that name; say which of"
        f" {', '.join(map(repr, sorted(there.pools))) or 'none'} (--pool)",
        vm=vm.name,
        disk=disk.name,
    )


def _nics(there: Cluster, vm: Vm, networks: Mapping[str, str]) -> tuple[Nic, ...]:
    used = {nic.network for nic in vm.nics}
    for here in networks:
        if here not in used:
            raise Invalid(
                f"cannot send VM {vm.name!r} with another network for {here!r}: it has no NIC on"
                f" that; it is on {', '.join(map(repr, sorted(used))) or 'none'}",
                vm=vm.name,
                network=here,
            )
    for here in sorted(used):
        name = networks.get(here, here)
        if name not in there.networks:
            raise NotFound(
                f"cannot send VM {vm.name!r}: that cluster has no network {name!r}; say which one"
                f" takes the place of {here!r} there (--network {here}=NAME):"
                f" {', '.join(map(repr, sorted(there.networks))) or 'it has none'}",
                vm=vm.name,
                network=name,
            )
    return tuple(
        dataclasses.replace(nic, network=networks.get(nic.network, nic.network)) for nic in vm.nics
    )


def _placed(cluster: Cluster, there: Cluster, vm: Vm, arriving: Vm, node: str | None) -> Vm:
    """It arrives off, so what it asks for must exist there, and memory is no matter yet."""
    if node is not None and node not in there.nodes:
        raise NotFound(
            f"cannot send VM {vm.name!r} to host {node!r}: that cluster has"
            f" {', '.join(map(repr, sorted(there.nodes))) or 'none'}",
            vm=vm.name,
            node=node,
        )
    if not there.nodes:
        raise NotFound(
            f"cannot send VM {vm.name!r}: that cluster has no host; add one there (vorch node add)",
            vm=vm.name,
        )
    named = there.nodes.values() if node is None else (there.nodes[node],)
    facts = cluster.node(vm.node).facts
    unfit: dict[str, str] = {}
    for one in named:
        if one.name in there.silent:
            unfit[one.name] = f"it does not answer: {there.silent[one.name]}"
        elif facts and one.facts and one.facts.architecture != facts.architecture:
            unfit[one.name] = (
                f"its architecture is {one.facts.architecture}, and the VM is made for"
                f" {facts.architecture}"
            )
    fit = {one.name: one for one in named if one.name not in unfit}
    if not fit:
        silent = all(name in there.silent for name in unfit)
        kind = Unreachable if silent else Unsupported
        raise kind(
            f"cannot send VM {vm.name!r}: no host there can have it: "
            + "; ".join(f"{name}: {why}" for name, why in sorted(unfit.items())),
            vm=vm.name,
            refused=unfit,
        )
    choice = home(dataclasses.replace(there, nodes=fit), arriving, node)
    return dataclasses.replace(arriving, node=choice.node)


def _with_media(
    cluster: Cluster, there: Cluster, vm: Vm, arriving: Vm
) -> tuple[Vm, tuple[str, ...]]:
    """CDs of the image store that are there as well stay in their drives; which ones do not."""
    names = {image.disks[0].volume: image.name for image in cluster.images.values()}
    disks: list[Disk] = []
    empty = []
    for disk, before in zip(arriving.disks, vm.disks, strict=True):
        now = disk
        if before.volume is not None and not before.owned:
            image = there.images.get(names.get(before.volume, ""))
            if image is not None and image.kind == "iso":
                now = dataclasses.replace(
                    disk, volume=image.disks[0].volume, size_bytes=image.size_bytes
                )
            alone = dataclasses.replace(arriving, disks=(now,))
            if out_of_reach(there, there.node(arriving.node), alone) is not None:
                now = disk
            if now.volume is None:
                now = dataclasses.replace(now, size_bytes=0)
                empty.append(disk.name)
        disks.append(now)
    return dataclasses.replace(arriving, disks=tuple(disks)), tuple(empty)
