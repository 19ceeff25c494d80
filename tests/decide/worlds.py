"""Small clusters as plain values, for tests of decisions."""

from __future__ import annotations

from vorch.decide.fresh import Fresh
from vorch.model import (
    Cluster,
    Disk,
    DiskBus,
    Domain,
    HostFacts,
    Image,
    ImageDisk,
    Network,
    Nic,
    Node,
    Pool,
    Power,
    Vm,
    Volume,
)
from vorch.plan import Plan

GIB = 1024**3
FRESH = Fresh(uuid="0b0b0b0b-0000-4000-8000-000000000001", token="00ff00aa11bb22cc", now=1000.0)
OVERHEAD = 64


def node(name: str = "h1", memory_mib: int = 8192, **facts: object) -> Node:
    known = HostFacts(
        hypervisor="kvm",
        cpus=8,
        memory_mib=memory_mib,
        accelerator="kvm",
        machines=("q35", "pc"),
        cpu_models=("qemu64",),
        **facts,  # type: ignore[arg-type]
    )
    return Node(name=name, uri="qemu:///system", facts=known)


def vm(name: str = "web", number: int = 1, **other: object) -> Vm:
    fields: dict[str, object] = {
        "name": name,
        "id": f"aaaaaaaa-0000-4000-8000-{number:012}",
        "node": "h1",
        "disks": (
            Disk(
                name="root",
                target="vda",
                volume=Volume(pool="local", name=f"{name}.root.1"),
                size_bytes=4 * GIB,
            ),
        ),
        "nics": (Nic(name="nic0", mac=f"52:54:00:00:01:{number:02x}", network="default"),),
        **other,
    }
    return Vm(**fields)  # type: ignore[arg-type]


IMAGE = Image(
    name="debian",
    kind="disk",
    disks=(
        ImageDisk(
            name="root", volume=Volume(pool="local", name="image.debian.1"), size_bytes=2 * GIB
        ),
    ),
    vcpus=2,
    memory_mib=512,
)
CD = Image(
    name="cd",
    kind="iso",
    disks=(
        ImageDisk(
            name="root",
            volume=Volume(pool="local", name="image.cd.1"),
            size_bytes=700_000_000,
            bus=DiskBus.SATA,
        ),
    ),
)


def cluster(
    *vms: Vm, power: Power | None = None, nodes: tuple[Node, ...] = (), **other: object
) -> Cluster:
    """A cluster of these VMs, all of them with this power (None: they are off)."""
    fields: dict[str, object] = {
        "vms": {one.name: one for one in vms},
        "nodes": {one.name: one for one in nodes or (node(),)},
        "pools": {"local": Pool(name="local", url="dir:///pool")},
        "images": {"debian": IMAGE, "cd": CD},
        "networks": {
            "default": Network(
                name="default", kind="nat", bridge="vo-defaul-1", subnet="10.80.0.0/24"
            ),
            "lan": Network(name="lan", kind="bridge", bridge="br0"),
        },
        "versions": {f"vm/{one.name}": 7 for one in vms},
        "domains": {}
        if power is None
        else {
            one.id: Domain(
                id=one.id,
                name=one.name,
                node=one.node,
                power=power,
                vcpus=one.vcpus,
                memory_mib=one.memory_mib,
                generation=one.generation,
            )
            for one in vms
        },
        **other,
    }
    return Cluster(**fields)  # type: ignore[arg-type]


def kinds(plan: Plan) -> list[str]:
    return [step.kind for step in plan.steps]
