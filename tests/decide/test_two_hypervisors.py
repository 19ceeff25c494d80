"""One cluster, two hypervisors: which hosts a VM may go to, and why not to the others."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from tests.decide import worlds
from vorch.availability import Availability
from vorch.codec import decode, encode
from vorch.decide import copies, lifecycle, move
from vorch.decide.lifecycle import Changes, NewVm, change, create
from vorch.decide.place import home, place
from vorch.decide.records import written
from vorch.decide.room.live import fleet_of, needs_of
from vorch.decide.room.pick import place as pick
from vorch.decide.room.table import unmet
from vorch.decide.rules import Placement
from vorch.errors import Invalid, Unsupported
from vorch.model import (
    Cluster,
    DirectBoot,
    HostFacts,
    Image,
    Node,
    Pool,
    Power,
    Vm,
    Volume,
    Watchdog,
)
from vorch.xen_guests import LOADERS

OVERHEAD = worlds.OVERHEAD
SHARED = (Pool(name="local", url="rbd://vms"),)


def xen(name: str = "x1", memory_mib: int = 8192, **facts: Any) -> Node:
    settings = {"accelerator": "xen", "xen_kinds": ("pv", "pvh"), **facts}
    known = HostFacts(hypervisor="xen", cpus=8, memory_mib=memory_mib, **settings)
    return Node(name=name, uri=f"xen+tls://{name}/system", facts=known)


def seen(*vms: Vm, nodes: tuple[Node, ...] | None = None, power: Power | None = None) -> Cluster:
    hosts = (worlds.node("h1"), xen()) if nodes is None else nodes
    return worlds.cluster(*vms, nodes=hosts, power=power, pools={one.name: one for one in SHARED})


def where(vm: Vm, cluster: Cluster) -> str:
    """By the two that judge hosts, which have to agree."""
    chosen = place(cluster, vm, overhead_mib=OVERHEAD).node
    fleet = fleet_of(cluster, Availability(), overhead_mib=OVERHEAD, more=[vm])
    needs = needs_of(cluster, Placement(), vm)
    assert unmet(fleet.host(chosen), needs) is None
    return chosen


@pytest.mark.parametrize(
    ("hypervisor", "nodes", "node"),
    [
        ("kvm", (worlds.node("h1"), xen(memory_mib=65536)), "h1"),
        ("xen", (worlds.node("h1", 65536), xen()), "x1"),
        ("any", (worlds.node("h1"), xen(memory_mib=65536)), "x1"),
        ("any", (worlds.node("h1", 65536), xen()), "h1"),
    ],
)
def test_it_goes_to_hosts_of_a_hypervisor_that_it_allows(
    hypervisor: str, nodes: tuple[Node, ...], node: str
) -> None:
    assert where(worlds.vm(hypervisor=hypervisor), seen(nodes=nodes)) == node


@pytest.mark.parametrize(
    ("changes", "node", "why"),
    [
        ({}, "x1", "it runs Xen, and the VM is for KVM alone (--hypervisor any"),
        ({"hypervisor": "xen"}, "h1", "it runs KVM, and the VM is for Xen alone"),
        ({"hypervisor": "xen", "xen_kind": "hvm"}, "x1", "runs no guests of the kind 'hvm'"),
        ({"hypervisor": "any", "tpm": True}, "x1", "the VM asks for a TPM"),
        ({"hypervisor": "any", "watchdog": Watchdog.RESET}, "x1", "the VM asks for a watchdog"),
        ({"hypervisor": "any", "machine": "virt"}, "h1", "knows no machine type 'virt'"),
        ({"hypervisor": "any", "cpu": "EPYC"}, "h1", "knows no CPU model 'EPYC'"),
    ],
)
def test_the_reason_names_what_stands_against_it(
    changes: dict[str, Any], node: str, why: str
) -> None:
    vm, cluster = worlds.vm(**changes), seen()
    with pytest.raises(Unsupported) as caught:
        place(cluster, vm, overhead_mib=OVERHEAD, only=node)
    assert why in caught.value.message
    fleet = fleet_of(cluster, Availability(), overhead_mib=OVERHEAD, more=[vm])
    (guest,) = fleet.guests
    if "alone" in why:
        # The engine also judges what runs, which is bound to its own hypervisor whatever it says.
        why = f"its hypervisor is '{'xen' if node == 'x1' else 'kvm'}', and"
    assert why in str(unmet(fleet.host(node), guest.needs))
    explained = {one.host: one.refused for one in pick(fleet, [vm.name]).explain(vm.name)}
    assert why in str(explained[node])


def test_one_that_reads_its_disk_itself_goes_where_there_is_a_grub_for_it() -> None:
    lacks = {loader: f"it has no {loader}" for loader in LOADERS.values()}
    cluster = seen(nodes=(xen("x1", 65536, lacks=lacks), xen("x2")))
    vm = worlds.vm(hypervisor="xen", xen_loader="pvgrub")
    assert where(vm, cluster) == "x2"
    assert where(dataclasses.replace(vm, xen_loader="pygrub"), cluster) == "x1"
    kernel = DirectBoot(kernel=Volume(pool="local", name="kernel"), command_line="")
    assert where(dataclasses.replace(vm, direct_boot=kernel), cluster) == "x1"
    for kind, loader in LOADERS.items():
        asked = dataclasses.replace(vm, xen_kind=kind)
        with pytest.raises(Unsupported, match=f"it has no {loader}"):
            place(cluster, asked, overhead_mib=OVERHEAD, only="x1")
        fleet = fleet_of(cluster, Availability(), overhead_mib=OVERHEAD, more=[asked])
        assert unmet(fleet.host("x1"), fleet.guests[0].needs) == f"it has no {loader}"


def test_machine_types_and_cpu_models_are_not_asked_of_xen() -> None:
    vm = worlds.vm(hypervisor="any", machine="virt", cpu="EPYC")
    assert where(vm, seen()) == "x1"


def test_the_world_in_memory_counts_as_kvm() -> None:
    facts = HostFacts(hypervisor="memory", cpus=8, memory_mib=8192)
    cluster = seen(nodes=(Node(name="m", uri="memory:m", facts=facts), xen()))
    assert where(worlds.vm(), cluster) == "m"
    assert where(worlds.vm(hypervisor="xen"), cluster) == "x1"


def test_one_that_runs_moves_live_to_its_own_kind_of_host_only() -> None:
    vm = worlds.vm(hypervisor="any")
    cluster = seen(vm, power=Power.RUNNING)
    with pytest.raises(Unsupported, match="its hypervisor is xen, and the VM runs on kvm"):
        move.migrate(
            cluster, vm.name, "x1", overhead_mib=OVERHEAD, pause_limit_ms=300, bandwidth_mib_s=0
        )
    needs = needs_of(cluster, Placement(), vm, cluster.domains[vm.id])
    assert needs.hypervisor == "kvm"


def test_one_whose_host_is_dead_may_start_on_the_other_hypervisor() -> None:
    vm = worlds.vm(hypervisor="any")
    cluster = dataclasses.replace(seen(vm), silent={"h1": "no answer"})
    assert place(cluster, vm, overhead_mib=OVERHEAD).node == "x1"
    alone = dataclasses.replace(vm, hypervisor="kvm")
    with pytest.raises(Unsupported, match="it runs Xen"):
        home(cluster, alone, "x1")


@pytest.mark.parametrize(
    ("nodes", "asked", "image", "hypervisor"),
    [
        ((worlds.node("h1"), xen()), {}, "", "kvm"),
        ((worlds.node("h1"), xen()), {"node": "x1"}, "", "xen"),
        ((worlds.node("h1"), xen()), {}, "any", "any"),
        ((worlds.node("h1"), xen()), {"hypervisor": "xen"}, "any", "xen"),
        ((xen("x1"), xen("x2")), {}, "", "xen"),
        ((xen("x1"), Node(name="new", uri="x")), {}, "", "xen"),
        ((Node(name="new", uri="x"),), {}, "", "kvm"),
    ],
)
def test_what_it_is_when_nobody_says(
    nodes: tuple[Node, ...], asked: dict[str, Any], image: str, hypervisor: str
) -> None:
    known = dataclasses.replace(worlds.IMAGE, hypervisor=image, xen_kind="pvh", xen_loader="pvgrub")  # type: ignore[arg-type]
    cluster = dataclasses.replace(seen(nodes=nodes), images={known.name: known})
    made = lifecycle.newcomer(cluster, NewVm(name="new", image=known.name, **asked), worlds.FRESH)
    assert (made.hypervisor, made.xen_kind) == (hypervisor, "pvh")
    assert made.xen_loader == "pvgrub"


def test_a_vm_is_made_on_the_only_host_that_it_allows() -> None:
    new = NewVm(name="new", hypervisor="xen", xen_kind="pvh", start=True, disk_gib=1)
    plan = create(seen(), new, worlds.FRESH, overhead_mib=OVERHEAD)
    assert " on x1 " in plan.why
    image = worlds.IMAGE
    assert image.hypervisor == ""


def test_a_template_and_a_clone_are_as_their_vm_unless_told() -> None:
    vm = worlds.vm(hypervisor="any", xen_kind="pvh", xen_loader="pvgrub")
    cluster = seen(vm)
    plan = copies.template(cluster, vm.name, "gold", worlds.FRESH, description="")
    made = written(plan, "image", Image)["gold"]
    assert made is not None
    assert (made.hypervisor, made.xen_kind, made.xen_loader) == ("any", "pvh", "pvgrub")
    for told, node in ((None, "h1"), ("xen", "x1")):
        plan = copies.clone(
            cluster,
            vm.name,
            "second",
            worlds.FRESH,
            linked=False,
            cloud_init=None,
            start=False,
            overhead_mib=OVERHEAD,
            hypervisor=told,  # type: ignore[arg-type]
        )
        clone = written(plan, "vm", Vm)["second"]
        assert clone is not None
        assert (clone.node, clone.hypervisor, clone.xen_kind) == (node, told or "any", "pvh")
        assert clone.xen_loader == "pvgrub"


def test_what_is_off_is_not_made_what_its_host_cannot_run() -> None:
    vm = worlds.vm()
    with pytest.raises(Unsupported, match="it runs KVM, and the VM is for Xen alone"):
        change(seen(vm), vm.name, Changes(hypervisor="xen"), live=True)
    plan = change(seen(vm), vm.name, Changes(hypervisor="any", xen_kind="pvh"), live=True)
    assert plan.why == "it is off"


def test_records_of_before_are_read_as_they_were() -> None:
    body = {
        key: value
        for key, value in encode(worlds.vm()).items()
        if key not in ("hypervisor", "xen_kind", "xen_loader")
    }
    assert decode(Vm, body) == worlds.vm()
    assert worlds.vm().hypervisor == "kvm"
    with pytest.raises(Invalid, match="hypervisor"):
        worlds.vm(hypervisor="bhyve")
    with pytest.raises(Invalid, match="boot loader of a Xen guest"):
        worlds.vm(xen_loader="grub")
