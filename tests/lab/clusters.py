"""A vorch cluster on a lab: its state in RADOS, its disks in RBD, every host taken in."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import rbd

import vorch
from tests.lab import bare
from vorch import Orchestrator
from vorch.lab import CEPH_USER, Ack, Lab, guest, verify_disk
from vorch.lab.joining import ceph_uri
from vorch.lab.spec import POOL
from vorch.lab.verify import Verdict
from vorch.lab.writer_log import arm

# Each cluster on the same lab has a store of its own.
_numbers = itertools.count()


def ceph_url(lab: Lab, scheme: str, namespace: str = "") -> str:
    return ceph_uri(lab.spec, scheme, namespace)


@contextmanager
def cluster_on(
    lab: Lab, hosts: tuple[str, ...] | None = None, *, host_timeout_s: float = 10.0
) -> Iterator[Orchestrator]:
    uri = ceph_url(lab, "rados", f"state{next(_numbers)}")
    settings = vorch.Settings(uri=uri, ceph_timeout_s=20, host_timeout_s=host_timeout_s)
    with vorch.connect(settings=settings) as cluster:
        for host in lab.spec.host_names if hosts is None else hosts:
            way = lab.spec.ssh(host)
            cluster.node_add(host, lab.spec.uri(host), ssh=way, install_hook=bool(way))
        cluster.pool_add("fast", ceph_url(lab, "rbd"))
        cluster.network_create("lan", kind="bridge", bridge="br0")
        yield cluster


def import_writer(cluster: Orchestrator) -> int:
    """The guest that proves things, as image `writer`; the MiB of memory that it wants."""
    image = guest.build("writer")
    cluster.image_import("writer", str(image.path), pool="fast")
    return image.memory_mib


def slow_down(lab: Lab, cluster: Orchestrator, seconds: int) -> None:
    """Before the first VM is made from it: image `writer` writes a record in so many seconds."""
    (disk,) = cluster.look().image("writer").disks
    with bare.pool_of(lab) as pool, rbd.Image(pool, disk.volume.name) as image:
        arm(_RbdDisk(image), rate=1, seconds=seconds)


class _RbdDisk:
    def __init__(self, image: Any) -> None:
        self._image = image

    def read(self, offset: int, length: int, /) -> bytes:
        return bytes(self._image.read(offset, length))

    def write(self, offset: int, data: bytes, /) -> object:
        return self._image.write(data, offset)


def start_writer(
    cluster: Orchestrator,
    name: str,
    memory_mib: int,
    node: str,
    *,
    start: bool = True,
    **settings: Any,
) -> None:
    cluster.create(
        name,
        image="writer",
        memory_mib=memory_mib,
        networks=("lan",),
        node=node,
        start=start,
        **settings,
    )


def disk_of(cluster: Orchestrator, name: str) -> str:
    """A VM's first disk, as the checker takes it."""
    volume = cluster.show(name).vm.disk("root").volume
    assert volume is not None
    return f"rbd:{POOL}/{volume.name}"


def verdict(lab: Lab, cluster: Orchestrator, name: str, acks: Iterable[Ack] = ()) -> Verdict:
    """What a writer's disk tells: one writer at a time, and nothing confirmed that is lost."""
    return verify_disk(disk_of(cluster, name), acks=acks, conf=lab.spec.ceph_conf, user=CEPH_USER)
