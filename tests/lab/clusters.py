"""A vorch cluster on a lab: its state in RADOS, its disks in RBD, every host taken in."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager

import vorch
from vorch import Orchestrator
from vorch.lab import CEPH_USER, Lab, guest
from vorch.lab.spec import POOL

# Each cluster on the same lab has a store of its own.
_numbers = itertools.count()


def ceph_url(lab: Lab, scheme: str, namespace: str = "") -> str:
    place = f"{POOL}/{namespace}" if namespace else POOL
    return f"{scheme}://{place}?conf={lab.spec.ceph_conf}&id={CEPH_USER}"


@contextmanager
def cluster_on(lab: Lab, hosts: tuple[str, ...] | None = None) -> Iterator[Orchestrator]:
    uri = ceph_url(lab, "rados", f"state{next(_numbers)}")
    with vorch.connect(settings=vorch.Settings(uri=uri, ceph_timeout_s=20)) as cluster:
        for host in lab.spec.host_names if hosts is None else hosts:
            cluster.node_add(host, lab.spec.uri(host))
        cluster.pool_add("fast", ceph_url(lab, "rbd"))
        cluster.network_create("lan", kind="bridge", bridge="br0")
        yield cluster


def import_writer(cluster: Orchestrator) -> int:
    """The guest that proves things, as image `writer`; the MiB of memory that it wants."""
    image = guest.build("writer")
    cluster.image_import("writer", str(image.path), pool="fast")
    return image.memory_mib


def start_writer(cluster: Orchestrator, name: str, memory_mib: int, node: str) -> None:
    cluster.create(
        name, image="writer", memory_mib=memory_mib, networks=("lan",), node=node, start=True
    )


def disk_of(cluster: Orchestrator, name: str) -> str:
    """A VM's first disk, as the checker takes it."""
    volume = cluster.show(name).vm.disk("root").volume
    assert volume is not None
    return f"rbd:{POOL}/{volume.name}"
