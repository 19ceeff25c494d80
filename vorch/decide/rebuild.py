"""What a pool tells of the VMs and images in it, and what a store that lacks them gets of that."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vorch.codec import decode
from vorch.decide.records import reads, save
from vorch.errors import Conflict, VorchError
from vorch.model import Cluster, Image, Network, Vm, Volume
from vorch.plan import Plan, Save

VM_NOTE = "vm"
IMAGE_NOTE = "image."
# Of documents that say that something is still to be noted.
MARKER = "note"
FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a pool tells: definitions, and the volumes that are there."""

    vms: tuple[Vm, ...]
    images: tuple[Image, ...]
    networks: tuple[Network, ...]
    volumes: tuple[str, ...]
    # A sentence for each note that could not be read.
    unread: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuilding:
    """The plan, and what it leaves as it is."""

    plan: Plan
    vms: tuple[str, ...]
    images: tuple[str, ...]
    networks: tuple[str, ...]
    # Volumes that nothing tells of.
    unknown: tuple[str, ...]
    # A sentence for each thing that a person should know.
    notes: tuple[str, ...]


def marker(kind: str, name: str, pools: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """The document that says that a definition is still to be noted, by its key."""
    return f"{MARKER}/{kind}.{name}", {"key": f"{kind}/{name}", "pools": list(pools)}


def vm_note(vm: dict[str, Any], networks: Sequence[dict[str, Any]], pool: str) -> str:
    return _text({"format": FORMAT, "pool": pool, "vm": vm, "networks": list(networks)})


def image_note(image: dict[str, Any], pool: str) -> str:
    return _text({"format": FORMAT, "pool": pool, "image": image})


def _text(body: dict[str, Any]) -> str:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"))


def read_notes(
    pool: str, volumes: Mapping[str, Mapping[str, str]], own: Mapping[str, str]
) -> Found:
    """`volumes`: the notes on each volume; `own`: those on the pool itself."""
    vms: dict[str, Vm] = {}
    networks: dict[str, Network] = {}
    images: list[Image] = []
    unread: list[str] = []
    for volume, notes in sorted(volumes.items()):
        if VM_NOTE not in notes:
            continue
        try:
            body = _body(notes[VM_NOTE])
            vm = _moved(decode(Vm, body["vm"]), str(body["pool"]), pool)
            noted = [decode(Network, one) for one in body["networks"]]
        except (VorchError, ValueError, KeyError, TypeError) as exc:
            unread.append(f"volume {volume!r}: its note cannot be read: {exc}")
            continue
        if Volume(pool=pool, name=volume) not in vm.volumes:
            # It was a disk of that VM once.
            continue
        if vm.id not in vms or vms[vm.id].generation < vm.generation:
            vms[vm.id] = vm
        networks.update({one.name: one for one in noted})
    for key, text in sorted(own.items()):
        if not key.startswith(IMAGE_NOTE):
            continue
        try:
            body = _body(text)
            images.append(_image_moved(decode(Image, body["image"]), str(body["pool"]), pool))
        except (VorchError, ValueError, KeyError, TypeError) as exc:
            unread.append(f"image {key.removeprefix(IMAGE_NOTE)!r}: cannot be read: {exc}")
    return Found(
        vms=tuple(sorted(vms.values(), key=lambda vm: vm.name)),
        images=tuple(images),
        networks=tuple(networks.values()),
        volumes=tuple(sorted(volumes)),
        unread=tuple(unread),
    )


def _body(text: str) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(text)
    if body["format"] != FORMAT:
        raise ValueError(f"it is of format {body['format']}, and this vorch knows {FORMAT}")
    return body


def _moved(vm: Vm, before: str, pool: str) -> Vm:
    """The pool may have another name now."""
    return dataclasses.replace(
        vm,
        disks=tuple(
            dataclasses.replace(disk, volume=Volume(pool=pool, name=disk.volume.name))
            if disk.volume is not None and disk.volume.pool == before
            else disk
            for disk in vm.disks
        ),
    )


def _image_moved(image: Image, before: str, pool: str) -> Image:
    return dataclasses.replace(
        image,
        disks=tuple(
            dataclasses.replace(disk, volume=Volume(pool=pool, name=disk.volume.name))
            if disk.volume.pool == before
            else disk
            for disk in image.disks
        ),
    )


def rebuild(cluster: Cluster, pool: str, found: Found) -> Rebuilding:
    """Bring back what is missing. Nothing that the store has is touched."""
    cluster.pool(pool)
    if not cluster.nodes:
        raise Conflict(
            f"cannot rebuild from pool {pool!r}: the store knows no host, and every VM belongs to"
            " one; take them in first (vorch node add)"
        )
    notes = list(found.unread)
    ids = {vm.id for vm in cluster.vms.values()}
    ids |= {one.vm.id for one in cluster.trash.values() if one.vm is not None}
    vms: list[Vm] = []
    for vm in found.vms:
        if vm.id in ids:
            continue
        if vm.name in cluster.vms or any(one.name == vm.name for one in vms):
            notes.append(
                f"VM {vm.name!r} ({vm.id}) is left out: there is another of that name; rename"
                " that one and do this again"
            )
            continue
        vms.append(_placed(cluster, vm, notes))
        missing = [
            disk.volume.name
            for disk in vm.disks
            if disk.volume is not None
            and disk.volume.pool == pool
            and disk.volume.name not in found.volumes
        ]
        if missing:
            notes.append(f"VM {vm.name!r} lacks {', '.join(missing)}: the pool has none of these")
    images = [
        image
        for image in found.images
        if image.name not in cluster.images
        and all(
            disk.volume.pool != pool or disk.volume.name in found.volumes for disk in image.disks
        )
    ]
    used = {nic.network for vm in vms for nic in vm.nics} - cluster.networks.keys()
    networks = [one for one in found.networks if one.name in used]
    notes += [
        f"network {name!r} is not known: make it (vorch network create)"
        for name in sorted(used - {one.name for one in networks})
    ]
    return Rebuilding(
        plan=_plan(cluster, pool, vms, images, networks),
        vms=tuple(vm.name for vm in vms),
        images=tuple(image.name for image in images),
        networks=tuple(one.name for one in networks),
        unknown=_unknown(cluster, pool, found, vms, images),
        notes=tuple(notes),
    )


def _placed(cluster: Cluster, vm: Vm, notes: list[str]) -> Vm:
    """On the host where it is seen to run; else where it was, if that is known."""
    domain = cluster.domains.get(vm.id)
    home = vm.home if vm.home in cluster.nodes else ""
    if domain is not None:
        node = domain.node
        notes.append(f"VM {vm.name!r} is {domain.power.value} on {node!r}, and is left so")
    elif vm.node in cluster.nodes:
        node = vm.node
    else:
        node = min(cluster.nodes)
        notes.append(f"VM {vm.name!r} belonged to {vm.node!r}, which is not known: now to {node!r}")
    return dataclasses.replace(vm, node=node, home=home)


def _unknown(
    cluster: Cluster, pool: str, found: Found, vms: Sequence[Vm], images: Sequence[Image]
) -> tuple[str, ...]:
    known = {
        disk.volume for vm in (*cluster.vms.values(), *vms) for disk in vm.disks if disk.volume
    }
    for vm in (*cluster.vms.values(), *vms):
        if vm.direct_boot is not None:
            known |= {vm.direct_boot.kernel, vm.direct_boot.initrd or vm.direct_boot.kernel}
    known |= {disk.volume for one in (*cluster.images.values(), *images) for disk in one.disks}
    known |= {volume for one in cluster.trash.values() for volume in one.volumes}
    return tuple(name for name in found.volumes if Volume(pool=pool, name=name) not in known)


def _plan(
    cluster: Cluster,
    pool: str,
    vms: Sequence[Vm],
    images: Sequence[Image],
    networks: Sequence[Network],
) -> Plan:
    steps: list[Save] = [save("network", one.name, None, one) for one in networks]
    steps += [save("image", one.name, None, one) for one in images]
    steps += [save("vm", one.name, None, one) for one in vms]
    keys = [step.key for step in steps]
    counts = ", ".join(
        f"{len(found)} {word}{'' if len(found) == 1 else 's'}"
        for word, found in (("VM", vms), ("image", images), ("network", networks))
        if found
    )
    return Plan(
        verb="state rebuild",
        subject=pool,
        why=f"the store lacks {counts} that the pool tells of"
        if steps
        else "the store knows all that the pool tells of",
        steps=tuple(steps),
        claims=tuple(keys),
        reads=reads(cluster, f"pool/{pool}", *keys),
    )
