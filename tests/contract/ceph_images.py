"""An RBD pool on the lab's Ceph for the contract suites: one namespace for each test."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from vorch.drivers.rbd_images import RbdImages
from vorch.lab.lab import Lab

POOL = "vms"
USER = "vorch"


def pool_url(lab: Lab, namespace: str = "") -> str:
    place = f"{POOL}/{namespace}" if namespace else POOL
    return f"rbd://{place}?conf={lab.spec.ceph_conf}&id={USER}"


@contextmanager
def connected(lab: Lab, user: str = USER) -> Iterator[Any]:
    """librados itself, for what a guest or an administrator would do."""
    import rados

    cluster = rados.Rados(conffile=str(lab.spec.ceph_conf), rados_id=user)
    cluster.conf_set("rados_osd_op_timeout", "60")
    cluster.connect()
    try:
        yield cluster
    finally:
        cluster.shutdown()


@contextmanager
def namespace(cluster: Any) -> Iterator[str]:
    """A new, empty RBD namespace, which is emptied and removed again."""
    import rbd

    name = f"t{secrets.token_hex(4)}"
    with cluster.open_ioctx(POOL) as ioctx:
        rbd.RBD().namespace_create(ioctx, name)
        try:
            yield name
        finally:
            with suppress(rbd.Error):
                empty(ioctx, name)
                ioctx.set_namespace("")
                rbd.RBD().namespace_remove(ioctx, name)


def empty(ioctx: Any, name: str) -> None:
    import rbd

    images = rbd.RBD()
    ioctx.set_namespace(name)
    for group in list(images.group_list(ioctx)):
        images.group_remove(ioctx, group)
    # What stands on others goes first, so a few rounds do.
    for _ in range(10):
        ids = [one["id"] for one in images.list2(ioctx)]
        ids += [one["id"] for one in images.trash_list(ioctx)]
        if not ids:
            return
        for image_id in ids:
            with suppress(rbd.Error):
                with rbd.Image(ioctx, image_id=image_id) as image:
                    for one in list(image.list_snaps()):
                        if one["namespace"] != rbd.RBD_SNAP_NAMESPACE_TYPE_TRASH:
                            image.remove_snap_by_id(one["id"])
                    live = image.get_name()
                if image_id in [one["id"] for one in images.trash_list(ioctx)]:
                    images.trash_remove(ioctx, image_id, True)
                else:
                    images.remove(ioctx, live)


def images(lab: Lab, name: str, **options: Any) -> RbdImages:
    return RbdImages("ceph", pool_url(lab, name), **options)
