"""Clusters in memory for the page to show: small ones with users of each role, and large ones."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from vorch import Node, Orchestrator, Settings, Vm, connect
from vorch.codec import encode
from vorch.drivers import memory
from vorch.drivers.memory import MemoryWorld
from vorch.model import CrushBucket, CrushTree, Disk, Nic, Volume
from vorch.ports import Change

# Of users of every role, who are called like it.
PASSWORD = "correct horse battery"
ROLES = ("admin", "operator", "user", "viewer")


def world_of(cluster: Orchestrator) -> MemoryWorld:
    return memory.world_named(cluster.settings.uri.partition(":")[2])


@contextmanager
def cluster_in(
    name: str, folder: Path, *, hosts: Sequence[str] = ("h1", "h2", "h3")
) -> Iterator[Orchestrator]:
    """A world whose time runs, with these hosts, a shared pool, an image, users and no VM."""
    memory.forget(name)
    world = memory.world_named(f"{name}?clock=system&hosts=0")
    for one in hosts:
        world.add_host(one)
    names = list(hosts)
    world.ceph.crush = CrushTree(
        buckets=(
            CrushBucket(-1, "default", "root", tuple(-2 - n for n in range(len(names)))),
            *(CrushBucket(-2 - n, one, "host", (2 * n, 2 * n + 1)) for n, one in enumerate(names)),
        ),
        addresses={
            number: (world.host(names[number // 2]).storage_address,)
            for number in range(2 * len(names))
        },
    )
    settings = Settings(
        uri=f"memory:{name}",
        upload_path=str(folder / "uploads"),
        password_memory_mib=1,
        password_rounds=1,
        login_tries_per_minute=1000,
        measure_every_s=2.0,
    )
    try:
        with connect(settings=settings) as found:
            for one in set(names) - set(found.look().nodes):
                found.node_add(one, f"memory:{one}")
            if "fast" not in found.look().pools:
                found.pool_add("fast", "memory:fast")
            source = folder / "debian-12.raw"
            source.write_bytes(b"\xeb\x63\x90" + bytes(4 * 1024**2 - 3))
            found.image_import("debian-12", str(source), pool="fast")
            for role in ROLES:
                found.user_add(role, role=role, password=PASSWORD)
            yield found
    finally:
        memory.forget(name)


def add_many(cluster: Orchestrator, vms: int) -> None:
    """VMs as records, half of them running: to make each by its verb would take minutes."""
    state = cluster.world.state
    hosts = sorted(cluster.look().nodes)
    made = []
    for number in range(vms):
        name = f"vm{number:05}"
        mac = f"52:54:00:{number >> 16 & 255:02x}:{number >> 8 & 255:02x}:{number & 255:02x}"
        volume = Volume(pool="fast", name=f"{name}.root.{number:08x}")
        made.append(
            Vm(
                name=name,
                id=str(uuid.UUID(int=number + 1, version=4)),
                node=hosts[number % len(hosts)],
                memory_mib=64 if number % 2 else 128,
                wanted="running" if number % 2 else "stopped",
                tags=("db",) if number % 10 == 0 else ("web", "shop"),
                disks=(Disk(name="root", target="vda", size_bytes=2**34, volume=volume),),
                nics=(Nic(name="nic0", network="default", mac=mac),),
            )
        )
    documents = [Change(f"vm/{vm.name}", 0, encode(vm)) for vm in made]
    for begin in range(0, len(documents), 1000):
        state.commit(documents[begin : begin + 1000])
    for vm in made[1::2]:
        bare = dataclasses.replace(vm, disks=(), nics=())
        cluster.world.hypervisor(vm.node).start(bare, {}, {})


def add_hosts(cluster: Orchestrator, count: int) -> None:
    """Further hosts as records: each would be tried out for a second by its verb."""
    world, facts = world_of(cluster), cluster.look().nodes["h1"].facts
    known = len(cluster.look().nodes)
    changes = []
    for number in range(known + 1, known + count + 1):
        world.add_host(f"h{number}", memory_mib=262144)
        node = Node(name=f"h{number}", uri=f"memory:h{number}", facts=facts)
        changes.append(Change(f"node/h{number}", None, encode(node)))
    cluster.world.state.commit(changes)
