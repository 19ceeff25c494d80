"""Disks, NICs, CDs, clones, templates, snapshots, images, networks: values in, plan out."""

from __future__ import annotations

import dataclasses
import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.decide.worlds import FRESH, GIB, OVERHEAD, cluster, kinds, vm
from vorch import errors
from vorch.decide import catalog, copies, devices
from vorch.decide.records import next_target
from vorch.decide.status import status
from vorch.model import (
    Cluster,
    Consistency,
    Disk,
    DiskBus,
    Domain,
    Network,
    Power,
    Snapshot,
    Trashed,
    Volume,
)
from vorch.plan import Plan, Save

POINT = Snapshot(name="one", taken_at=1.0, consistency=Consistency.STOPPED, disks={"root": 4 * GIB})


def saved(plan: Plan) -> dict[str, Any]:
    """The last document but those of clients."""
    last = [
        step.after
        for step in plan.steps
        if isinstance(step, Save) and step.after is not None and not step.key.startswith("clients/")
    ][-1]
    assert last is not None
    return last


def attach(world: Cluster, **options: Any) -> Plan:
    return devices.disk_attach(world, "web", FRESH, **options)


def test_a_disk_is_plugged_in_where_the_vm_runs() -> None:
    assert kinds(attach(cluster(vm()), size_gib=1)) == ["create-volume", "save"]
    running = attach(cluster(vm(), power=Power.RUNNING), size_gib=1)
    assert kinds(running) == ["create-volume", "attach-disk", "save", "save"]
    assert saved(running)["disks"][1]["target"] == "vdb"


def test_what_cannot_be_plugged_is_refused() -> None:
    running = cluster(vm(), power=Power.RUNNING)
    with pytest.raises(errors.Unsupported):
        attach(running, size_gib=1, bus=DiskBus.SATA)
    with pytest.raises(errors.Conflict):
        attach(running, size_gib=1, disk="root")
    with pytest.raises(errors.Invalid):
        attach(running)


def test_a_volume_of_somebody_is_never_attached() -> None:
    other = vm("other", 2)
    world = cluster(vm(), other)
    with pytest.raises(errors.Conflict, match="other"):
        attach(world, volume=other.disks[0].volume)
    with pytest.raises(errors.Conflict, match="only read"):
        attach(world, volume=Volume(pool="local", name="image.debian.1"))
    gone = Trashed(
        key="x.1", name="x", volumes=vm("x", 3).volumes, vm=vm("x", 3), deleted_at=1, purge_at=2
    )
    with pytest.raises(errors.Conflict, match="undelete"):
        attach(cluster(vm(), trash={"x.1": gone}), volume=gone.volumes[0])


def test_a_detached_disk_comes_back_out_of_the_trash() -> None:
    volume = Volume(pool="local", name="web.data.1")
    gone = Trashed(
        key="web.data.1", name="web", volumes=(volume,), vm=None, deleted_at=1, purge_at=2
    )
    plan = attach(cluster(vm(), trash={"web.data.1": gone}), volume=volume)
    assert kinds(plan) == ["restore-volume", "save", "save"]
    assert "trash/web.data.1" in plan.claims


def test_two_cannot_take_the_same_volume() -> None:
    """The volume is claimed, and the decision holds only while no VM has changed."""
    volume = Volume(pool="local", name="kept.1")
    plan = attach(cluster(vm(), vm("other", 2)), volume=volume)
    assert "volume/local.kept.1" in plan.claims
    assert plan.reads == {"vm/web": 7, "vm/other": 7, f"clients/{vm().id}": 0}


def test_detach_trashes_unless_it_is_kept() -> None:
    world = cluster(vm())
    gone = devices.disk_detach(world, "web", "root", FRESH, keep=False, keep_s=1, timeout_s=5)
    kept = devices.disk_detach(world, "web", "root", FRESH, keep=True, keep_s=1, timeout_s=5)
    assert kinds(gone) == ["trash-volume", "save", "save"]
    assert kinds(kept) == ["save"]


def test_a_disk_that_a_snapshot_holds_stays() -> None:
    with pytest.raises(errors.Conflict, match="snapshot 'one'"):
        devices.disk_detach(
            cluster(vm(snapshots=(POINT,))), "web", "root", FRESH, keep=True, keep_s=1, timeout_s=5
        )


def test_a_disk_only_grows() -> None:
    world = cluster(vm())
    assert kinds(devices.disk_grow(world, "web", "root", 5)) == ["grow-volume", "save"]
    assert devices.disk_grow(world, "web", "root", 4).empty
    with pytest.raises(errors.Invalid, match="never made smaller"):
        devices.disk_grow(world, "web", "root", 3)


def test_nics_come_and_go() -> None:
    running = cluster(vm(), power=Power.RUNNING)
    plan = devices.nic_attach(running, "web", FRESH, network="lan")
    assert kinds(plan) == ["ensure-network", "attach-nic", "save"]
    assert kinds(devices.nic_detach(running, "web", "52:54:00:00:01:01", timeout_s=5)) == [
        "detach-nic",
        "save",
    ]
    with pytest.raises(errors.Conflict):
        devices.nic_attach(running, "web", FRESH, network="lan", mac="52:54:00:00:01:01")


def test_a_cd_goes_into_a_drive_or_brings_one_to_a_vm_that_is_off() -> None:
    plan = devices.cd_insert(cluster(vm()), "web", "cd")
    assert kinds(plan) == ["save"]
    with pytest.raises(errors.NotFound, match="drive"):
        devices.cd_insert(cluster(vm(), power=Power.RUNNING), "web", "cd")
    drive = Disk(
        name="cd", target="sda", volume=None, bus=DiskBus.SATA, device="cdrom", owned=False
    )
    with_drive = dataclasses.replace(vm(), disks=(*vm().disks, drive))
    running = cluster(with_drive, power=Power.RUNNING)
    assert kinds(devices.cd_insert(running, "web", "cd")) == ["change-media", "save"]
    assert devices.cd_eject(running, "web").empty


@given(st.integers(0, 120))
def test_device_names_are_never_given_twice(count: int) -> None:
    taken: list[str] = []
    for _ in range(count):
        taken.append(next_target(taken, "vd"))
    assert len(set(taken)) == count


# ---------------------------------------------------------------------------------------------


def clone(world: Cluster, *, linked: bool = False, start: bool = False) -> Plan:
    return copies.clone(
        world,
        "web",
        "copy",
        FRESH,
        linked=linked,
        cloud_init=None,
        start=start,
        overhead_mib=OVERHEAD,
    )


def test_a_clone_of_a_running_vm_copies_a_snapshot_that_goes_at_the_end() -> None:
    plan = clone(cluster(vm(), power=Power.RUNNING))
    assert kinds(plan) == ["snapshot-disks", "copy-volume", "save", "drop-snapshot"]


def test_a_linked_clone_wants_its_source_to_stand_still() -> None:
    assert kinds(clone(cluster(vm()), linked=True)) == [
        "base-volume",
        "clone-volume",
        "save",
        "purge-volume",
    ]
    with pytest.raises(errors.Conflict, match="full clone"):
        clone(cluster(vm(), power=Power.RUNNING), linked=True)
    with pytest.raises(errors.Conflict, match="snapshots"):
        clone(cluster(vm(snapshots=(POINT,))), linked=True)


def test_a_clone_is_somebody_else() -> None:
    body = saved(clone(cluster(vm(snapshots=(POINT,)))))
    assert body["id"] == FRESH.uuid
    assert body["snapshots"] == []
    assert body["nics"][0]["mac"] != vm().nics[0].mac


def test_cloning_an_image_says_create() -> None:
    with pytest.raises(errors.NotFound, match="vorch create"):
        copies.clone(
            cluster(),
            "debian",
            "copy",
            FRESH,
            linked=False,
            cloud_init=None,
            start=False,
            overhead_mib=OVERHEAD,
        )


def test_a_template_of_a_vm_that_is_off_takes_no_copy() -> None:
    at_once = copies.template(cluster(vm()), "web", "golden", FRESH, description="")
    assert kinds(at_once) == ["base-volume", "save"]
    running = cluster(vm(), power=Power.RUNNING)
    assert kinds(copies.template(running, "web", "golden", FRESH, description="")) == [
        "snapshot-disks",
        "copy-volume",
        "save",
        "drop-snapshot",
    ]


def test_a_snapshots_worth_comes_from_what_happened() -> None:
    plan = copies.snapshot_create(cluster(vm()), "web", "one", FRESH, freeze=True, description="")
    save = plan.steps[1]
    assert isinstance(save, Save)
    assert save.fill == {"snapshots.0.consistency": "consistency"}


def test_rollback_wants_the_same_disks_and_a_vm_that_is_off() -> None:
    one = vm(snapshots=(POINT,))
    assert kinds(copies.snapshot_rollback(cluster(one), "web", "one")) == ["rollback-disks", "save"]
    with pytest.raises(errors.Conflict, match="stop it"):
        copies.snapshot_rollback(cluster(one, power=Power.RUNNING), "web", "one")
    more = Disk(name="data", target="vdb", volume=Volume(pool="local", name="d"), size_bytes=1)
    two = dataclasses.replace(one, disks=(*one.disks, more))
    with pytest.raises(errors.Conflict, match="new since: data"):
        copies.snapshot_rollback(cluster(two), "web", "one")


# ---------------------------------------------------------------------------------------------


def test_an_image_in_a_drive_stays() -> None:
    drive = Disk(
        name="cd",
        target="sda",
        volume=Volume(pool="local", name="image.cd.1"),
        bus=DiskBus.SATA,
        device="cdrom",
        owned=False,
        read_only=True,
    )
    world = cluster(dataclasses.replace(vm(), disks=(*vm().disks, drive)))
    with pytest.raises(errors.Conflict, match="eject"):
        catalog.image_delete(world, "cd")
    assert kinds(catalog.image_delete(world, "debian")) == ["save", "purge-volume"]


def network(world: Cluster, used: tuple[str, ...] = (), **options: object) -> Plan:
    given: dict[str, object] = {
        "kind": "nat",
        "bridge": None,
        "subnet": None,
        "dhcp": True,
        "vlan": None,
        **options,
    }
    return catalog.network_create(
        world,
        "new",
        given.pop("kind"),  # type: ignore[arg-type]
        FRESH,
        used_subnets=used,
        **given,  # type: ignore[arg-type]
    )


@given(st.lists(st.integers(0, 255), max_size=40))
def test_a_free_subnet_meets_nothing(taken: list[int]) -> None:
    used = [f"10.80.{number}.0/24" for number in taken if number != 200]
    found = ipaddress.IPv4Network(catalog.free_subnet(used))
    assert not any(found.overlaps(ipaddress.IPv4Network(one)) for one in used)


def test_networks_keep_off_what_is_in_use() -> None:
    assert saved(network(cluster(), used=("10.80.1.0/24",)))["subnet"] == "10.80.2.0/24"
    with pytest.raises(errors.Conflict, match="in use"):
        network(cluster(), used=("10.0.0.0/8",), subnet="10.9.0.0/24")


def test_kinds_of_networks_take_what_is_theirs() -> None:
    with pytest.raises(errors.Invalid, match="bridge"):
        network(cluster(), kind="bridge")
    with pytest.raises(errors.Invalid, match="bridge of its own"):
        network(cluster(), kind="nat", bridge="br0")
    with pytest.raises(errors.Invalid, match="VLAN"):
        network(cluster(), kind="nat", vlan=5)
    assert kinds(network(cluster(), kind="bridge", bridge="br0", vlan=5)) == [
        "ensure-network",
        "save",
    ]


@given(st.text(alphabet="abcXYZ019._-", min_size=1, max_size=60))
def test_bridge_names_fit(name: str) -> None:
    assert len(catalog.bridge_name(name, FRESH.token)) <= 15


def test_a_network_in_use_stays() -> None:
    with pytest.raises(errors.Conflict, match="'web'"):
        catalog.network_delete(cluster(vm()), "default")
    assert kinds(catalog.network_delete(cluster(vm()), "lan")) == ["save"]


# ---------------------------------------------------------------------------------------------


def test_notes_say_what_is_not_as_recorded() -> None:
    one = vm(vcpus=4, generation=3, wanted="stopped")
    domain = Domain(
        id=one.id,
        name="web",
        node="h1",
        power=Power.RUNNING,
        vcpus=2,
        memory_mib=1024,
        generation=2,
    )
    notes = status(cluster(one, domains={one.id: domain}), one).notes
    assert notes == (
        "runs with 2 vCPUs, 4 at the next start",
        "runs although it was asked to stop",
    )
    off = vm(wanted="running")
    assert "should run" in status(cluster(off), off).notes[0]


def test_an_isolated_network_may_have_no_addresses() -> None:
    plan = network(cluster(), kind="isolated", dhcp=False)
    assert saved(plan)["subnet"] is None
    assert Network(name="n", kind="isolated", bridge="b", dhcp=False).subnet is None
