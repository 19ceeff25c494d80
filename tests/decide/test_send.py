"""To another cluster: what is planned, and all that is refused before either is touched."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from tests.decide.worlds import CD, FRESH, GIB, cluster, kinds, node, vm
from vorch.decide.send import send
from vorch.errors import Conflict, Invalid, NotFound, Unreachable, Unsupported, VorchError
from vorch.model import (
    Cluster,
    Consistency,
    DirectBoot,
    Disk,
    DiskBus,
    Firmware,
    Forward,
    HostFacts,
    IoLimits,
    Pool,
    Power,
    Snapshot,
    Vm,
    Volume,
)
from vorch.plan import Plan, RecordArrival, Save, SendVolume

OTHER = "rados://elsewhere"


def plan(
    one: Vm | None = None,
    there: Cluster | None = None,
    here: Cluster | None = None,
    **wishes: Any,
) -> Plan:
    one = one or vm()
    return send(
        here or cluster(one),
        one.name,
        OTHER,
        there or cluster(),
        FRESH,
        keep_s=3600.0,
        **wishes,
    )


def arriving(made: Plan) -> Vm:
    (step,) = [step for step in made.steps if isinstance(step, RecordArrival)]
    return step.arriving


def with_cd(volume: str = "image.cd.1") -> Vm:
    one = vm()
    drive = Disk(
        name="cd",
        target="sda",
        volume=Volume(pool="local", name=volume),
        size_bytes=700_000_000,
        bus=DiskBus.SATA,
        device="cdrom",
        owned=False,
        read_only=True,
    )
    return dataclasses.replace(one, disks=(*one.disks, drive))


def test_the_plan() -> None:
    made = plan()
    assert kinds(made) == [
        "see-unused",
        "announce-arrival",
        "send-volume",
        "record-arrival",
        "trash-volume",
        "save",
        "save",
        "forget-arrival",
    ]
    assert made.claims[0] == "vm/web"
    assert made.reads["vm/web"] == 7
    forgotten, trashed = (step for step in made.steps if isinstance(step, Save))
    assert forgotten.after is None
    # A definition in the trash could be brought back, and there would be two.
    assert trashed.after is not None
    assert trashed.after["vm"] is None


def test_it_keeps_what_it_is() -> None:
    limits = IoLimits(iops=100)
    one = vm(description="mine", vcpus=3, home="h2", wanted="running")
    one = dataclasses.replace(one, disks=(dataclasses.replace(one.disks[0], limits=limits),))
    there = arriving(plan(one))
    assert (there.id, there.description, there.vcpus, there.nics) == (one.id, "mine", 3, one.nics)
    assert there.disks[0].limits == limits
    assert there.disks[0].volume != one.disks[0].volume
    # It arrives off, and knows nothing of the hosts here.
    assert (there.home, there.wanted) == ("", "stopped")


def test_a_seed_is_copied_as_the_bytes_that_it_is() -> None:
    one = vm()
    seed = Disk(
        name="seed",
        target="vdb",
        volume=Volume(pool="local", name="web.seed.1"),
        device="cdrom",
        read_only=True,
    )
    made = plan(dataclasses.replace(one, disks=(*one.disks, seed)))
    copies = [step for step in made.steps if isinstance(step, SendVolume)]
    assert [step.content for step in copies] == ["disk", "file"]


def test_a_cd_of_the_image_store_stays_where_that_has_it_too() -> None:
    assert arriving(plan(with_cd())).disk("cd").volume == CD.disks[0].volume
    made = plan(with_cd(), cluster(images={}))
    assert arriving(made).disk("cd").volume is None
    assert "drive 'cd' is empty there" in made.why
    # What no longer is an image here is none there.
    assert arriving(plan(with_cd("gone.1"))).disk("cd").volume is None


def test_a_cd_that_its_host_there_does_not_reach_is_left_out() -> None:
    pools = {
        "local": Pool(name="local", url="dir:///pool", node="h9"),
        "fast": Pool(name="fast", url="rbd://fast"),
    }
    made = plan(with_cd(), cluster(pools=pools), pool="fast")
    assert arriving(made).disk("cd").volume is None


def test_pools_by_name_alone_or_named() -> None:
    fast = Pool(name="fast", url="rbd://fast?conf=/c&id=v")
    bulk = Pool(name="bulk", url="rbd://bulk?conf=/c&id=v")
    local = Pool(name="local", url="dir:///pool")

    def goes(there: dict[str, Pool], **wishes: Any) -> str:
        return arriving(plan(there=cluster(pools=there), **wishes)).volumes[0].pool

    assert goes({"fast": fast, "local": local}) == "local"
    assert goes({"fast": fast, "local": local}, pool="fast") == "fast"
    assert goes({"fast": fast}) == "fast"
    with pytest.raises(Invalid, match=r"'bulk', 'fast' .--pool"):
        goes({"fast": fast, "bulk": bulk})
    with pytest.raises(NotFound, match="has 'fast'"):
        goes({"fast": fast}, pool="slow")


def test_networks_by_name_or_renamed() -> None:
    assert arriving(plan(networks={"default": "lan"})).nics[0].network == "lan"
    with pytest.raises(NotFound, match="--network default=NAME"):
        plan(there=cluster(networks={}))
    with pytest.raises(NotFound, match="no network 'wan'"):
        plan(networks={"default": "wan"})
    with pytest.raises(Invalid, match="it has no NIC on that"):
        plan(networks={"lan": "lan"})


def test_it_goes_to_a_host_that_can_have_it() -> None:
    arm = dataclasses.replace(
        node("a1"), facts=dataclasses.replace(_facts(), architecture="aarch64")
    )
    there = cluster(nodes=(arm, node("b1"), node("b2")), silent={"b1": "no route"})
    assert arriving(plan(there=there)).node == "b2"
    with pytest.raises(Unsupported, match="its architecture is aarch64"):
        plan(there=there, node="a1")
    with pytest.raises(Unreachable, match="no route"):
        plan(there=there, node="b1")
    with pytest.raises(NotFound, match="'a1', 'b1', 'b2'"):
        plan(there=there, node="h1")
    lacking = cluster(nodes=(node("b2"),), lacks={"b2": {"default": "no such bridge"}})
    with pytest.raises(Unsupported, match="no such bridge"):
        plan(there=lacking)


def _facts() -> HostFacts:
    facts = node().facts
    assert facts is not None
    return facts


def _forwarded() -> Cluster:
    forward = Forward(mac=vm().nics[0].mac, address="10.80.0.9", host_port=8080, guest_port=80)
    network = dataclasses.replace(cluster().networks["default"], forwards=(forward,))
    return cluster(vm(), networks={"default": network})


SNAPSHOT = Snapshot(
    name="one", taken_at=1.0, consistency=Consistency.STOPPED, disks={"root": 4 * GIB}
)
SHARED = dataclasses.replace(vm(), disks=(dataclasses.replace(vm().disks[0], owned=False),))
KERNEL = DirectBoot(kernel=Volume(pool="local", name="k.1"))


@pytest.mark.parametrize(
    ("one", "kind", "match"),
    [
        (vm(firmware=Firmware.UEFI), Unsupported, "UEFI's variables"),
        (vm(tpm=True), Unsupported, "TPM's memory"),
        (vm(snapshots=(SNAPSHOT,)), Conflict, "vorch snapshot delete web"),
        (vm(direct_boot=KERNEL), Unsupported, "being installed"),
        (SHARED, Unsupported, "vorch disk detach web root"),
    ],
)
def test_what_cannot_go_along_is_refused(one: Vm, kind: type[VorchError], match: str) -> None:
    with pytest.raises(kind, match=match):
        plan(one)


@pytest.mark.parametrize(
    ("here", "kind", "match"),
    [
        (cluster(vm(), power=Power.RUNNING), Conflict, r"vorch stop web"),
        (cluster(vm(), power=Power.CRASHED), Conflict, "vorch stop --force web"),
        (cluster(vm(), silent={"h1": "gone"}), Unreachable, "does not answer: gone"),
        (_forwarded(), Conflict, "vorch forward remove web 8080"),
    ],
)
def test_one_that_is_in_use_is_refused(here: Cluster, kind: type[VorchError], match: str) -> None:
    with pytest.raises(kind, match=match):
        plan(here=here)


OF_ANOTHER_NAME = vm("wob", 2, nics=vm().nics)


@pytest.mark.parametrize(
    ("there", "kind", "match"),
    [
        (cluster(vm("wob", 1)), Conflict, "this same cluster"),
        (cluster(vm("web", 2)), Conflict, "vorch rename web NEW"),
        (cluster(OF_ANOTHER_NAME), Conflict, "VM 'wob' there has the MAC"),
        (
            dataclasses.replace(cluster(vm(), power=Power.RUNNING), vms={}),
            Conflict,
            "runs a domain of its id",
        ),
        (Cluster(), Invalid, "none"),
    ],
)
def test_where_it_cannot_be_is_refused(there: Cluster, kind: type[VorchError], match: str) -> None:
    with pytest.raises(kind, match=match):
        plan(there=there)


def test_a_cluster_without_a_host_is_no_place() -> None:
    with pytest.raises(NotFound, match="vorch node add"):
        plan(there=dataclasses.replace(cluster(), nodes={}))
