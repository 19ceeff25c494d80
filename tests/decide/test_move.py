"""From host to host: what is planned, and everything that is refused before it is touched."""

from __future__ import annotations

import dataclasses

import pytest

from tests.decide.worlds import CD, OVERHEAD, cluster, kinds, node, vm
from vorch.decide import move
from vorch.errors import Conflict, NoRoom, NotFound, Unreachable, Unsupported, VorchError
from vorch.model import Cluster, Disk, DiskBus, Firmware, Node, Pool, Power, Vm, XenKind
from vorch.plan import MigrateDomain, Plan, Save

CEPH = {
    "local": Pool(name="local", url="rbd://vms?conf=/etc/ceph/ceph.conf&id=vorch"),
    "folder": Pool(name="folder", url="dir:///pool", node="h1"),
}


def host(name: str, memory_mib: int = 8192, **facts: object) -> Node:
    made = node(name, memory_mib, **facts)
    return dataclasses.replace(made, uri=f"qemu+tls://{name}.example/system?pkipath=/pki")


def three(**changes: Node) -> tuple[Node, ...]:
    known = {"h1": host("h1"), "h2": host("h2", 4096), "h3": host("h3", 16384)}
    return tuple((known | changes).values())


def world(*vms: Vm, power: Power | None = Power.RUNNING, **other: object) -> Cluster:
    return cluster(*vms, power=power, **{"nodes": three(), "pools": CEPH, **other})  # type: ignore[arg-type]


def migrate(look: Cluster, target: str | None = "h2", name: str = "web") -> Plan:
    return move.migrate(
        look, name, target, overhead_mib=OVERHEAD, pause_limit_ms=300, bandwidth_mib_s=0
    )


def test_the_plan_of_a_migration() -> None:
    plan = migrate(world(vm()))
    assert kinds(plan) == ["ensure-network", "migrate-domain", "save", "save"]
    _, step, saved, clients = plan.steps
    assert isinstance(clients, Save)
    assert clients.key == f"clients/{vm().id}"
    assert isinstance(step, MigrateDomain)
    assert (step.vm.node, step.target, step.uri) == ("h1", "h2", "qemu+tls://h2.example/system")
    assert not step.paused
    assert isinstance(saved, Save)
    assert saved.after is not None
    assert saved.after["node"] == "h2"
    assert plan.claims == ("vm/web",)
    assert plan.reads["vm/web"] == 7
    assert "node/h2" in plan.reads


def test_without_a_name_it_goes_where_most_is_free() -> None:
    plan = migrate(world(vm()), None)
    assert "to h3 because" in plan.why


def test_a_paused_vm_moves_too() -> None:
    step = migrate(world(vm(), power=Power.PAUSED)).steps[-3]
    assert isinstance(step, MigrateDomain)
    assert step.paused


def test_one_that_was_moved_past_vorch_is_recorded_where_it_is() -> None:
    seen = world(vm())
    (domain,) = seen.domains.values()
    seen = dataclasses.replace(seen, domains={domain.id: dataclasses.replace(domain, node="h3")})
    for target in (None, "h3"):
        assert kinds(migrate(seen, target)) == ["see-clients", "save", "save"]
    with pytest.raises(Conflict, match="runs on 'h3'"):
        migrate(seen, "h2")


def test_it_says_that_a_network_is_not_the_same_one_there() -> None:
    assert "each host has a network 'default' of its own" in migrate(world(vm())).why


def test_to_where_it_is_there_is_nothing_to_do() -> None:
    assert migrate(world(vm()), "h1").empty
    assert move.relocate(world(vm(), power=None), "web", "h1").empty


def a_cd(pool: str) -> Disk:
    volume = dataclasses.replace(CD.disks[0].volume, pool=pool)
    return Disk(
        name="cd",
        target="sda",
        bus=DiskBus.SATA,
        device="cdrom",
        volume=volume,
        owned=False,
        read_only=True,
    )


def on_disk(pool: str) -> Vm:
    (disk,) = vm().disks
    assert disk.volume is not None
    return vm(
        disks=(dataclasses.replace(disk, volume=dataclasses.replace(disk.volume, pool=pool)),)
    )


def with_cd(pool: str) -> Vm:
    return vm(disks=(*vm().disks, a_cd(pool)))


LOCAL = dataclasses.replace(host("h2"), uri="qemu:///system")
LOCAL_XEN = dataclasses.replace(host("h2"), uri="xen:///system")
OTHER_CPU = host("h2", cpu_model="Skylake")


@pytest.mark.parametrize(
    ("look", "kind", "words"),
    [
        (world(vm(), power=None), Conflict, "it is stopped; start it, or .* relocate"),
        (world(vm(), silent={"h1": "no answer"}, power=None), Unreachable, "'h1' does not answer"),
        (world(vm(), silent={"h2": "no answer"}), NoRoom, "h2: it does not answer"),
        (world(vm(memory_mib=6000, memory_max_mib=6000)), NoRoom, "MiB of memory are short"),
        (world(vm(firmware=Firmware.UEFI)), Unsupported, "no UEFI firmware"),
        (world(vm(cpu="Icelake")), Unsupported, "no CPU model 'Icelake'"),
        (world(vm(), nodes=three(h2=LOCAL)), Unsupported, "no other host reaches it"),
        (world(vm(), nodes=three(h2=LOCAL_XEN)), Unsupported, "no other host reaches it"),
        (world(vm(cpu="host"), nodes=three(h2=OTHER_CPU)), Unsupported, "has the CPU of its host"),
        (world(on_disk("folder")), Unsupported, "disk 'root' is in pool 'folder'"),
        (world(with_cd("folder")), Unsupported, "disk 'cd' .* eject it"),
        (world(vm(), nodes=(host("h1"),)), NotFound, "cannot find node 'h2'"),
    ],
)
def test_what_cannot_move_is_refused(look: Cluster, kind: type[VorchError], words: str) -> None:
    with pytest.raises(kind, match=words):
        migrate(look)


def test_a_host_that_emulates_takes_no_vm_from_one_that_does_not() -> None:
    slow = host("h2")
    assert slow.facts is not None
    slow = dataclasses.replace(slow, facts=dataclasses.replace(slow.facts, accelerator="tcg"))
    with pytest.raises(Unsupported, match="accelerator is tcg"):
        migrate(world(vm(), nodes=three(h2=slow)))
    assert "to h3" in migrate(world(vm(), nodes=three(h2=slow)), None).why


def test_alone_there_is_nowhere_to_go() -> None:
    with pytest.raises(NoRoom, match="no host but 'h1'"):
        migrate(world(vm(), nodes=(host("h1"),)), None)


def test_a_cd_in_ceph_goes_along() -> None:
    assert not migrate(world(with_cd("local"))).empty


def test_the_plan_of_a_relocation() -> None:
    plan = move.relocate(world(vm(), power=None), "web", "h2")
    assert kinds(plan) == ["save"]
    (saved,) = plan.steps
    assert isinstance(saved, Save)
    assert saved.after is not None
    assert saved.after["node"] == "h2"


@pytest.mark.parametrize(
    ("look", "kind", "words"),
    [
        (world(vm()), Conflict, "vorch migrate web h2"),
        (world(vm(), power=None, silent={"h1": "no answer"}), Unreachable, "'h1' does not answer"),
        (world(vm(), power=None, silent={"h2": "no answer"}), Unreachable, "that host does not"),
        (world(vm(), power=Power.CRASHED), Conflict, "what is left of it"),
        (world(on_disk("folder"), power=None), Unsupported, "disk 'root' is in pool 'folder'"),
        (world(vm(firmware=Firmware.UEFI), power=None), Unsupported, "UEFI's variables"),
        (world(vm(tpm=True), power=None), Unsupported, "TPM's memory"),
        (world(vm(cpu="Icelake"), power=None), Unsupported, "no CPU model 'Icelake'"),
    ],
)
def test_what_cannot_be_relocated_is_refused(
    look: Cluster, kind: type[VorchError], words: str
) -> None:
    with pytest.raises(kind, match=words):
        move.relocate(look, "web", "h2")


# -- guests of Xen

WHY = "its Xen has no log-dirty mode"


def on_xen(power: Power = Power.RUNNING, *, lacks: bool = True, kind: XenKind = "pv") -> Cluster:
    told = {"live_pv": WHY} if lacks else {}
    hosts = tuple(
        dataclasses.replace(
            one,
            facts=dataclasses.replace(
                one.facts,
                hypervisor="xen",
                accelerator="xen",
                xen_kinds=("pv", "pvh"),
                lacks=told,
            ),
        )
        for one in three()
        if one.facts is not None
    )
    return world(vm(hypervisor="xen", xen_kind=kind), power=power, nodes=hosts)


def moved_live(plan: Plan) -> bool:
    return next(step.live for step in plan.steps if isinstance(step, MigrateDomain))


def test_a_guest_that_cannot_go_live_is_told_what_it_can() -> None:
    with pytest.raises(Unsupported, match=WHY) as caught:
        migrate(on_xen())
    assert "vorch migrate web --still" in caught.value.message
    assert "vorch relocate web" in caught.value.message


def test_it_goes_standing_still_when_it_may_and_for_a_maintenance() -> None:
    given = {"overhead_mib": OVERHEAD, "pause_limit_ms": 300, "bandwidth_mib_s": 0}
    for asked in ({"still": True}, {"away": True}):
        plan = move.migrate(on_xen(), "web", "h2", **given, **asked)  # type: ignore[arg-type]
        assert not moved_live(plan)
        assert "stands still" in str(plan.steps[-3])
    assert not moved_live(migrate(on_xen(Power.PAUSED)))


@pytest.mark.parametrize("seen", [on_xen(lacks=False), on_xen(kind="pvh"), world(vm())])
def test_all_others_go_on_meanwhile(seen: Cluster) -> None:
    assert moved_live(migrate(seen))
