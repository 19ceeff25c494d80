"""What is in Ceph and belongs to nothing: a lab's pool against the cluster's documents.

`leaks` asks through vorch's own port. This looks past it, at all that RBD keeps.
"""

from __future__ import annotations

import time
from typing import Any

import rbd

from tests.execute.scenarios import leaks
from tests.lab import bare
from vorch import Orchestrator
from vorch.lab import Lab
from vorch.model import Cluster

# Objects of one image bear its id behind these.
OF_AN_IMAGE = ("rbd_header.", "rbd_object_map.", "rbd_data.")


# Ceph misses a client that was killed after 30 s, and trims what only a snapshot held when it has
# time for that.
CEPH_NOTICES_S = 60


def remains(lab: Lab, cluster: Orchestrator) -> list[str]:
    """Every leak that can be seen and stays; [] when all is in order."""
    deadline = time.monotonic() + CEPH_NOTICES_S
    while found := _seen(lab, cluster):
        if time.monotonic() >= deadline:
            break
        time.sleep(0.5)
    return found


def _seen(lab: Lab, cluster: Orchestrator) -> list[str]:
    found = leaks(cluster)
    with bare.pool_of(lab) as pool:
        found += _in_pool(pool, cluster.look())
    return found


def _in_pool(pool: Any, look: Cluster) -> list[str]:
    found: list[str] = []
    wanted = {disk.volume.name for vm in look.vms.values() for disk in vm.disks if disk.volume}
    wanted |= {disk.volume.name for image in look.images.values() for disk in image.disks}
    thrown = {volume.name for one in look.trash.values() for volume in one.volumes}
    images = {one["name"]: one["id"] for one in rbd.RBD().list2(pool)}
    trash = {one["name"]: one["id"] for one in rbd.RBD().trash_list(pool)}
    found += [f"image {name}" for name in sorted(images.keys() - wanted)]
    found += [f"disk {name} is not there" for name in sorted(wanted - images.keys())]
    # A base that was deleted stays for the clones that stand on it.
    bases = {name for name in trash if name.startswith(".hidden~")}
    found += [f"image {name} in the trash" for name in sorted(trash.keys() - thrown - bases)]
    groups = set(rbd.RBD().group_list(pool))
    of_snapshots: set[str] = set()
    recorded = _recorded_snapshots(look)
    for name, image_id in (images | trash).items():
        with rbd.Image(pool, image_id=image_id, read_only=True) as image:
            if image.group()["name"]:
                found.append(f"image {name} is still in group {image.group()['name']}")
            if name in bases and not list(image.list_children2()):
                found.append(f"base {name} without a clone")
            snapshots = set()
            for one in image.list_snaps():
                if one["namespace"] == rbd.RBD_SNAP_NAMESPACE_TYPE_GROUP:
                    of_snapshots.add(one["group"]["name"])
                    snapshots.add(one["group"]["snap_name"])
                elif one["namespace"] == rbd.RBD_SNAP_NAMESPACE_TYPE_USER:
                    snapshots.add(one["name"])
            snapshots.discard(".base")
            if snapshots != recorded.get(name, set()):
                found.append(f"image {name} has snapshots {sorted(snapshots)}")
    found += [f"group {name}" for name in sorted(groups - of_snapshots)]
    found += _objects(pool, {*images.values(), *trash.values()}, set(images), len(groups))
    return found


def _recorded_snapshots(look: Cluster) -> dict[str, set[str]]:
    recorded: dict[str, set[str]] = {}
    for vm in look.vms.values():
        for snapshot in vm.snapshots:
            for disk in vm.data_disks:
                if disk.name in snapshot.disks and disk.volume is not None:
                    recorded.setdefault(disk.volume.name, set()).add(snapshot.name)
    return recorded


def _objects(pool: Any, ids: set[str], names: set[str], groups: int) -> list[str]:
    """RADOS objects of images and groups that are no more, which no command of RBD shows."""
    lost: dict[str, int] = {}
    for one in pool.list_objects():
        groups -= one.key.startswith("rbd_group_header.")
        for prefix in OF_AN_IMAGE:
            if one.key.startswith(prefix):
                image_id = one.key.removeprefix(prefix).partition(".")[0]
                if image_id not in ids:
                    lost[f"{prefix}{image_id}"] = lost.get(f"{prefix}{image_id}", 0) + 1
        if one.key.startswith("rbd_id.") and one.key.removeprefix("rbd_id.") not in names:
            lost[one.key] = 1
    if groups < 0:
        lost["rbd_group_header."] = -groups
    return [f"{count} objects {name}" for name, count in sorted(lost.items())]
