"""A cluster in memory to look at the page with: `python -m tests.page.world [--vms 40]`.

Serves it until Ctrl-C, with users admin, oper, user and viewer, who have one password
(PASSWORD below). `--fresh-files`: the page's files are read anew with each load.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import signal
import uuid
from collections.abc import Iterator
from typing import Literal

from fastapi import Request, Response
from starlette.middleware.base import RequestResponseEndpoint

from vorch import Orchestrator, connect
from vorch.codec import encode
from vorch.drivers import memory
from vorch.model import (
    Consistency,
    Disk,
    DiskBus,
    Image,
    ImageDisk,
    Nic,
    Node,
    Snapshot,
    Vm,
    Volume,
)
from vorch.ports import Change
from vorch_api import Service
from vorch_api.routes import page

USERS = {"admin": "admin", "oper": "operator", "user": "user", "viewer": "viewer"}
KINDS = ("web", "db", "mail", "build", "cache", "desk")


# Of all four.
PASSWORD = "correct-horse-7-battery"


@contextlib.contextmanager
def seeded(name: str, *, vms: int = 40, hosts: int = 6) -> Iterator[Orchestrator]:
    """A world whose time runs; two thirds of its VMs run."""
    memory.forget(name)
    world = memory.world_named(f"{name}?clock=system")
    for number in range(2, hosts + 1):
        world.add_host(f"h{number}")
    with connect(f"memory:{name}") as cluster:
        _hosts(cluster, name, hosts)
        _images(cluster)
        _vms(cluster, vms)
        for user, role in USERS.items():
            cluster.user_add(user, role=role, password=PASSWORD)
        if vms >= 12:
            cluster.rule_add("webs-apart", "apart", ["web-001", "web-007"])
            for one in ("web-001", "db-002", "mail-003"):
                cluster.ha_set(one)
        yield cluster
    memory.forget(name)


def _hosts(cluster: Orchestrator, world: str, hosts: int) -> None:
    # What the first is and can is found out by trying; the others are the same.
    first = next(iter(cluster.look().nodes))
    cluster.node_probe(first)
    found = cluster.look().nodes
    template = found[first]
    names = [f"h{number}" for number in range(1, hosts + 1)]
    cluster.world.state.commit(
        [
            Change(
                f"node/{name}",
                None,
                encode(Node(name=name, uri=f"memory:{name}", facts=template.facts)),
            )
            for name in names
            if name != first
        ]
    )


def _images(cluster: Orchestrator) -> None:
    pool = next(iter(cluster.look().pools))
    wanted: tuple[tuple[str, Literal["disk", "template", "iso"], int], ...] = (
        ("debian-13", "disk", 8),
        ("shop", "template", 20),
        ("rescue", "iso", 1),
    )
    for name, kind, gib in wanted:
        volume = Volume(pool=pool, name=f"image.{name}")
        # The bytes are there: VMs can be made of it.
        cluster.world.images(pool).create(volume.name, gib * 2**30)
        disk = ImageDisk(name="root", volume=volume, size_bytes=gib * 2**30)
        image = Image(name=name, kind=kind, disks=(disk,), created_at=1_785_000_000.0)
        cluster.world.state.commit([Change(f"image/{name}", 0, encode(image))])


def _vms(cluster: Orchestrator, vms: int) -> None:
    look = cluster.look()
    pool, names = next(iter(look.pools)), sorted(look.nodes)
    made = []
    for number in range(1, vms + 1):
        kind = KINDS[(number - 1) % len(KINDS)]
        name = f"{kind}-{number:03}"
        size = 2**30 * (10 + 10 * (number % 5))
        snapshots: tuple[Snapshot, ...] = ()
        if number % 7 == 1:
            snapshots = (
                Snapshot(
                    name="before-update",
                    taken_at=1_790_000_000.0 + number,
                    consistency=Consistency.FROZEN,
                    disks={"root": size},
                ),
            )
        made.append(
            Vm(
                name=name,
                id=str(uuid.UUID(int=number + 1, version=4)),
                node=names[number % len(names)],
                wanted="stopped" if number % 3 == 0 else "running",
                vcpus=1 + number % 4,
                memory_mib=256 * (1 + number % 4),
                memory_max_mib=4096,
                disks=(
                    Disk(
                        name="root",
                        target="vda",
                        size_bytes=size,
                        volume=Volume(pool=pool, name=f"{name}.root.{number:08x}"),
                        boot=1,
                    ),
                    Disk(name="cd0", target="sda", volume=None, bus=DiskBus.SATA, device="cdrom"),
                ),
                nics=(
                    Nic(
                        name="nic0",
                        network="default",
                        mac=f"52:54:00:{number >> 16 & 255:02x}:{number >> 8 & 255:02x}"
                        f":{number & 255:02x}",
                    ),
                ),
                tags=(kind, "owner:user") if number % 5 == 0 else (kind,),
                snapshots=snapshots,
                description="Serves the shop" if kind == "web" else "",
                created_at=1_780_000_000.0 + number * 3600,
            )
        )
    for begin in range(0, len(made), 1000):
        part = made[begin : begin + 1000]
        cluster.world.state.commit([Change(f"vm/{vm.name}", 0, encode(vm)) for vm in part])
    images = cluster.world.images(pool)
    for vm in made:
        for disk in vm.disks:
            if disk.volume is not None:
                images.create(disk.volume.name, disk.size_bytes)
        if vm.wanted == "running":
            bare = dataclasses.replace(vm, disks=(), nics=())
            cluster.world.hypervisor(vm.node).start(bare, {}, {})


def _read_each_time(service: Service) -> None:
    """For whoever works on the page: what is on the disk is what is shown."""
    app = service._app

    @app.middleware("http")
    async def fresh(request: Request, go_on: RequestResponseEndpoint) -> Response:
        if request.url.path == "/":
            app.state.page = page.page_of(oidc=app.state.oidc is not None)
        return await go_on(request)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--vms", type=int, default=40)
    parser.add_argument("--hosts", type=int, default=6)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--fresh-files", action="store_true")
    asked = parser.parse_args()
    with seeded("page", vms=asked.vms, hosts=asked.hosts) as cluster:
        service = Service(cluster, port=asked.port)
        if asked.fresh_files:
            _read_each_time(service)
        signal.signal(signal.SIGTERM, lambda *_: service.end())
        print(f"{service.address} token {service.token}", flush=True)
        service.run()


if __name__ == "__main__":
    main()
