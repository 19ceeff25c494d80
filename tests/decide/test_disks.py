"""What becomes of disks: moved, flattened, thinned out, exported, limited."""

from __future__ import annotations

import dataclasses

import pytest

from tests.decide.worlds import FRESH, GIB, cluster, kinds, vm
from vorch.decide import copies, disks, lifecycle
from vorch.decide.lifecycle import NewVm
from vorch.errors import Conflict, Invalid, NotFound, Unsupported
from vorch.model import (
    Cluster,
    Consistency,
    Disk,
    DiskBus,
    IoLimits,
    Pool,
    Power,
    Snapshot,
    Vm,
    Volume,
)
from vorch.plan import CopyVolume, ExportVolume, MoveDisk, PlaceFile, Plan, SnapshotDisks

SEED = Disk(
    name="seed",
    target="sda",
    volume=Volume(pool="local", name="web.seed.1"),
    bus=DiskBus.SATA,
    device="cdrom",
    read_only=True,
)
CD = dataclasses.replace(SEED, name="cd", target="sdb", owned=False)
POINT = Snapshot(name="one", taken_at=1.0, consistency=Consistency.STOPPED, disks={"root": 4 * GIB})
POOLS = {
    "local": Pool(name="local", url="dir:///pool", node="h1"),
    "fast": Pool(name="fast", url="rbd://fast"),
    "bulk": Pool(name="bulk", url="rbd://bulk"),
    "far": Pool(name="far", url="dir:///far", node="h2"),
}


def world(one: Vm | None = None, power: Power | None = None) -> Cluster:
    return cluster(one or vm(), power=power, pools=POOLS)


def move(one: Vm | None = None, power: Power | None = None, *, to: str = "fast") -> Plan:
    return disks.disk_move(world(one, power), "web", "root", to, FRESH, keep_s=3600.0)


# -- move


def test_a_vm_that_is_off_is_copied() -> None:
    plan = move()
    assert kinds(plan) == ["copy-volume", "save", "trash-volume", "save"]
    after = plan.steps[1]
    assert after.kind == "save"
    assert after.after is not None
    assert after.after["disks"][0]["volume"]["pool"] == "fast"


def test_a_running_vm_stands_still_until_the_record_is_written() -> None:
    plan = move(power=Power.RUNNING)
    assert kinds(plan) == [
        "create-volume",
        "move-disk",
        "save",
        "save",
        "resume-domain",
        "trash-volume",
        "save",
    ]


def test_a_paused_vm_stays_paused() -> None:
    plan = move(power=Power.PAUSED)
    assert "resume-domain" not in kinds(plan)
    (step,) = [step for step in plan.steps if isinstance(step, MoveDisk)]
    assert step.paused


def test_a_seed_goes_along_as_it_is() -> None:
    one = vm(disks=(*vm().disks, SEED, CD))
    assert disks.movable(one) == ("root", "seed")
    for power, expected in (
        (None, ["copy-volume", "save", "trash-volume", "save"]),
        (Power.RUNNING, ["copy-volume", "change-media", "save", "trash-volume", "save"]),
    ):
        plan = disks.disk_move(world(one, power), "web", "seed", "fast", FRESH, keep_s=1.0)
        assert kinds(plan) == expected
        (copy,) = [step for step in plan.steps if isinstance(step, CopyVolume)]
        assert copy.content == "file"
    with pytest.raises(Invalid, match="image store"):
        disks.disk_move(world(one), "web", "cd", "fast", FRESH, keep_s=1.0)


def test_there_already_is_nothing_to_do() -> None:
    assert move(to="local").empty


def test_what_cannot_move_says_what_to_do() -> None:
    with pytest.raises(Conflict, match="vorch clone web NEW --pool fast"):
        move(vm(snapshots=(POINT,)))
    with pytest.raises(Unsupported, match="only 'h2' reaches"):
        move(to="far")
    with pytest.raises(NotFound):
        move(to="nowhere")
    with pytest.raises(Conflict, match="stopping"):
        move(power=Power.STOPPING)


# -- flatten, sparsify


def test_snapshots_inside_a_file_stop_what_would_spoil_them() -> None:
    held = vm(snapshots=(POINT,))
    for verb in (disks.disk_flatten, disks.disk_sparsify):
        with pytest.raises(Conflict, match="inside its file"):
            verb(world(held), "web", "root")
        with pytest.raises(Invalid, match="only read"):
            verb(world(vm(disks=(*vm().disks, SEED))), "web", "seed")
    in_rbd = dataclasses.replace(
        held,
        disks=(dataclasses.replace(held.disks[0], volume=Volume(pool="fast", name="web.root.1")),),
    )
    assert kinds(disks.disk_flatten(world(in_rbd), "web", "root")) == ["flatten-volume"]
    assert kinds(disks.disk_sparsify(world(in_rbd, Power.RUNNING), "web", "root")) == [
        "sparsify-volume"
    ]


def test_a_file_that_is_open_is_not_sparsified() -> None:
    with pytest.raises(Unsupported, match="fstrim"):
        disks.disk_sparsify(world(power=Power.RUNNING), "web", "root")


# -- export


def export(one: Vm | None = None, power: Power | None = None, **more: str | None) -> Plan:
    words = {"format_": "qcow2", "snapshot": None, **more}
    return disks.disk_export(world(one, power), "web", "root", "/out/x", FRESH, **words)  # type: ignore[arg-type]


def test_an_export_is_written_beside_and_named_when_it_is_whole() -> None:
    plan = export()
    assert kinds(plan) == ["export-volume", "place-file"]
    first, second = plan.steps
    assert isinstance(first, ExportVolume)
    assert isinstance(second, PlaceFile)
    assert (first.path, second.source, second.path) == (
        "/out/.x.00ff00aa.part",
        "/out/.x.00ff00aa.part",
        "/out/x",
    )


def test_an_export_of_a_running_vm_is_of_one_moment() -> None:
    second = dataclasses.replace(vm().disks[0], name="data", target="vdb")
    plan = export(vm(disks=(*vm().disks, second)), Power.RUNNING)
    assert kinds(plan) == ["snapshot-disks", "export-volume", "place-file", "drop-snapshot"]
    (step,) = [step for step in plan.steps if isinstance(step, SnapshotDisks)]
    # Of this disk alone.
    assert [disk.name for disk in step.vm.data_disks] == ["root"]
    assert "crash-consistent" in plan.why


def test_an_export_of_a_snapshot_needs_one_that_is_there() -> None:
    held = vm(snapshots=(POINT,))
    assert kinds(export(held, Power.RUNNING, snapshot="one")) == ["export-volume", "place-file"]
    with pytest.raises(NotFound):
        export(held, snapshot="two")
    with pytest.raises(Invalid, match="not there then"):
        export(vm(snapshots=(dataclasses.replace(POINT, disks={}),)), snapshot="one")
    with pytest.raises(Invalid, match="qcow2, raw, vmdk"):
        export(format_="vhd")


def test_an_image_is_exported_and_a_cd_as_it_is() -> None:
    plan = disks.image_export(world(), "debian", "/out/x", FRESH, disk=None, format_="vmdk")
    assert kinds(plan) == ["export-volume", "place-file"]
    with pytest.raises(Invalid, match="as raw"):
        disks.image_export(world(), "cd", "/out/x", FRESH, disk=None, format_="qcow2")
    with pytest.raises(Invalid, match="it has root"):
        disks.image_export(world(), "debian", "/out/x", FRESH, disk="data", format_="raw")


# -- limits


def test_limits_are_changed_one_by_one() -> None:
    limited = dataclasses.replace(
        vm().disks[0], limits=IoLimits(iops=100, mib_s=10, burst_iops=200, burst_s=5)
    )
    one = vm(disks=(limited,))
    plan = disks.disk_limit(world(one, Power.RUNNING), "web", "root", {"mib_s": 20})
    assert kinds(plan) == ["limit-disk", "save"]
    # With the limit goes its burst.
    assert disks.changed_limits(limited.limits, {"iops": 0}) == IoLimits(mib_s=10)
    assert kinds(disks.disk_limit(world(one), "web", "root", {"iops": 0})) == ["save"]
    assert disks.disk_limit(world(one), "web", "root", {"iops": 100}).empty
    with pytest.raises(Invalid, match="--iops 500"):
        disks.disk_limit(world(one), "web", "root", {})
    with pytest.raises(Invalid, match="CDs"):
        disks.disk_limit(world(vm(disks=(SEED,))), "web", "seed", {"iops": 1})


@pytest.mark.parametrize(
    "nonsense",
    [
        {"iops": -1},
        {"iops": 10, "read_iops": 5},
        {"mib_s": 10, "write_mib_s": 5},
        {"burst_iops": 100},
        {"iops": 100, "burst_iops": 50},
        {"iops": 100, "burst_s": 5},
        {"mib_s": 10**9},
    ],
)
def test_limits_that_make_no_sense_are_refused(nonsense: dict[str, int]) -> None:
    with pytest.raises(Invalid, match="cannot "):
        IoLimits(**nonsense)


# -- across pools


def test_a_vm_elsewhere_than_its_image_is_a_copy() -> None:
    new = NewVm(name="new", image="debian", pool="fast", disk_gib=4, networks=())
    plan = lifecycle.create(world(), new, FRESH, overhead_mib=0)
    assert kinds(plan) == ["copy-volume", "grow-volume", "save"]
    assert "copied to pool 'fast'" in plan.why
    beside = dataclasses.replace(new, pool="local")
    assert kinds(lifecycle.create(world(), beside, FRESH, overhead_mib=0)) == [
        "clone-volume",
        "save",
    ]


def test_a_clone_elsewhere_is_a_full_one() -> None:
    def clone(*, linked: bool, pool: str) -> Plan:
        return copies.clone(
            world(),
            "web",
            "second",
            FRESH,
            linked=linked,
            cloud_init=None,
            start=False,
            overhead_mib=0,
            pool=pool,
        )

    plan = clone(linked=False, pool="fast")
    assert kinds(plan) == ["copy-volume", "save"]
    with pytest.raises(Invalid, match="stands on them"):
        clone(linked=True, pool="fast")
    assert "clone-volume" in kinds(clone(linked=True, pool="local"))


def test_a_template_elsewhere_is_a_copy() -> None:
    plan = copies.template(world(), "web", "golden", FRESH, description="", pool="bulk")
    assert kinds(plan) == ["copy-volume", "save"]
    at_once = copies.template(world(), "web", "golden", FRESH, description="", pool="local")
    assert kinds(at_once) == ["base-volume", "save"]
