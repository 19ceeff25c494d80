"""Definitions are noted on the disks, and a store that lacks them gets them back from there."""

from __future__ import annotations

import json
from typing import Any

import pytest

from vorch import Orchestrator, Settings, Unsupported
from vorch.codec import encode
from vorch.decide import rebuild
from vorch.drivers.memory import MemoryWorld, ProcessDied
from vorch.errors import Conflict, NotFound
from vorch.model import Cluster, Disk, Node, Pool, Power, Vm, Volume
from vorch.ports import Change


def connected(world: MemoryWorld) -> Orchestrator:
    cluster = Orchestrator(world.connect(), Settings(uri="memory:"))
    cluster.recover(force=False)
    if not cluster.look().nodes:
        cluster.init(node="h1", hypervisor_uri="memory:", pool_url="memory:")
    return cluster


@pytest.fixture
def world() -> MemoryWorld:
    return MemoryWorld(hosts=2, keeps_notes=True)


@pytest.fixture
def cluster(world: MemoryWorld) -> Orchestrator:
    return connected(world)


def make(cluster: Orchestrator, name: str, **options: Any) -> Vm:
    cluster.create(name, disk_gib=1, memory_mib=64, **options)
    return cluster.look().vm(name)


def note_of(world: MemoryWorld, vm: Vm) -> dict[str, Any]:
    volume = vm.disks[0].volume
    assert volume is not None
    body: dict[str, Any] = json.loads(world.pool("local").volumes[volume.name].notes["vm"])
    return body


def forget(cluster: Orchestrator, *keys: str) -> None:
    cluster.world.state.commit([Change(key, None, None) for key in keys])


def markers(cluster: Orchestrator) -> list[str]:
    return list(cluster.world.state.read(["note"]))


def test_each_change_of_a_definition_is_noted(world: MemoryWorld, cluster: Orchestrator) -> None:
    vm = make(cluster, "web")
    assert note_of(world, vm)["vm"]["id"] == vm.id
    assert [one["name"] for one in note_of(world, vm)["networks"]] == ["default"]
    cluster.change("web", description="changed")
    assert note_of(world, vm)["vm"]["description"] == "changed"
    assert markers(cluster) == []


def test_no_verb_fails_for_a_note(world: MemoryWorld, cluster: Orchestrator) -> None:
    fault = world.faults.fail("pool:local", "note")
    vm = make(cluster, "web")
    assert markers(cluster) == ["note/vm.web"]
    world.faults.lift(fault)
    connected(world)
    assert markers(cluster) == []
    assert note_of(world, vm)["vm"]["id"] == vm.id


def test_what_a_dead_process_has_not_noted_the_next_one_notes(
    world: MemoryWorld, cluster: Orchestrator
) -> None:
    vm = make(cluster, "web")
    world.faults.crash("pool:local", "note")
    with pytest.raises(ProcessDied):
        cluster.change("web", description="changed")
    assert note_of(world, vm)["vm"]["description"] == ""
    connected(world)
    assert note_of(world, vm)["vm"]["description"] == "changed"


def test_a_change_while_it_is_noted_is_noted_too(
    world: MemoryWorld, cluster: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the older note, written later, would stay."""
    vm = make(cluster, "web")
    other = connected(world)
    images = cluster.world.images("local")
    note = images.note
    overtaken: list[str] = []

    def slowly(volume: str, key: str, text: str) -> None:
        if not overtaken:
            overtaken.append(volume)
            other.change("web", description="second")
        note(volume, key, text)

    monkeypatch.setattr(images, "note", slowly)
    cluster.change("web", description="first")
    assert overtaken
    assert note_of(world, vm)["vm"]["description"] == "second"
    assert markers(cluster) == []


def test_where_no_notes_are_kept_nothing_is_written() -> None:
    world = MemoryWorld()
    cluster = connected(world)
    make(cluster, "web")
    assert markers(cluster) == []
    with pytest.raises(Unsupported, match="keeps no notes"):
        cluster.state_rebuild("local")


def test_what_is_missing_comes_back_and_nothing_else_is_touched(
    world: MemoryWorld, cluster: Orchestrator
) -> None:
    lost, kept = make(cluster, "lost"), make(cluster, "kept")
    cluster.start("lost")
    lost = cluster.look().vm("lost")
    cluster.world.images("local").create("stranger", 1024)
    forget(cluster, "vm/lost", "network/default")
    before = cluster.look().versions["vm/kept"]
    dry = cluster.state_rebuild("local", dry_run=True)
    assert (dry.vms, dry.task, "lost" in cluster.look().vms) == (("lost",), None, False)
    done = cluster.state_rebuild("local")
    assert (done.vms, done.networks, done.unknown) == (("lost",), ("default",), ("stranger",))
    after = cluster.look(None)
    assert after.vm("lost") == lost
    assert after.power(lost) is Power.RUNNING
    assert after.versions["vm/kept"] == before
    assert after.vm("kept") == kept
    assert cluster.state_rebuild("local").task is None


def test_images_come_back(world: MemoryWorld, cluster: Orchestrator) -> None:
    make(cluster, "web")
    cluster.template("web", "golden")
    images = cluster.look().images
    forget(cluster, *(f"image/{name}" for name in images))
    assert cluster.state_rebuild("local").images == tuple(sorted(images))
    assert cluster.look().images == images


def test_a_pool_is_taken_in_before_its_url_is_understood(cluster: Orchestrator) -> None:
    with pytest.raises(NotFound, match="vorch pool add"):
        cluster.state_rebuild("rbd://elsewhere")


# -- decisions


def a_vm(name: str = "web", number: int = 1, **changes: Any) -> Vm:
    disk = Disk(name="root", target="vda", volume=Volume(pool="fast", name=f"{name}.root"))
    settings: dict[str, Any] = {"node": "h1", "disks": (disk,)} | changes
    return Vm(name=name, id=f"00000000-0000-0000-0000-{number:012}", **settings)


def told(*vms: Vm, volumes: tuple[str, ...] = ()) -> rebuild.Found:
    notes: dict[str, dict[str, str]] = {name: {} for name in volumes}
    for vm in vms:
        assert vm.disks[0].volume is not None
        notes[vm.disks[0].volume.name] = {"vm": rebuild.vm_note(encode(vm), [], "fast")}
    return rebuild.read_notes("fast", notes, {})


def a_cluster(*vms: Vm) -> Cluster:
    return Cluster(
        vms={vm.name: vm for vm in vms},
        nodes={"h1": Node(name="h1", uri="x"), "h2": Node(name="h2", uri="x")},
        pools={"fast": Pool(name="fast", url="rbd://vms")},
    )


def test_a_name_that_is_taken_is_left_out_and_said() -> None:
    made = rebuild.rebuild(a_cluster(a_vm(number=2)), "fast", told(a_vm(number=1)))
    assert made.vms == ()
    assert "another of that name" in made.notes[0]


def test_one_that_has_another_name_now_is_there() -> None:
    made = rebuild.rebuild(a_cluster(a_vm("renamed", 1)), "fast", told(a_vm("web", 1)))
    assert (made.vms, made.notes) == ((), ())


def test_a_host_that_is_not_known_is_replaced_and_said() -> None:
    made = rebuild.rebuild(a_cluster(), "fast", told(a_vm(node="h9", home="h8")))
    step = made.plan.steps[0]
    assert step.kind == "save"
    assert step.after is not None
    assert (step.after["node"], step.after["home"]) == ("h1", "")
    assert "'h9', which is not known" in made.notes[0]


def test_the_newest_of_two_notes_counts() -> None:
    old = a_vm()
    new = a_vm(generation=5, description="new")
    assert rebuild.read_notes(
        "fast",
        {
            "web.root": {"vm": rebuild.vm_note(encode(new), [], "fast")},
            # It was moved off this one, which stayed behind.
            "web.before": {"vm": rebuild.vm_note(encode(old), [], "fast")},
        },
        {},
    ).vms == (new,)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 9}', '{"format": 1, "vm": {}}'])
def test_a_note_that_cannot_be_read_is_said(text: str) -> None:
    found = rebuild.read_notes("fast", {"odd": {"vm": text}}, {"image.odd": text})
    assert (found.vms, found.images, len(found.unread)) == ((), (), 2)


def test_a_pool_may_have_another_name_now() -> None:
    text = rebuild.vm_note(encode(a_vm()), [], "fast")
    (vm,) = rebuild.read_notes("bulk", {"web.root": {"vm": text}}, {}).vms
    assert vm.disks[0].volume is not None
    assert vm.disks[0].volume.pool == "bulk"


def test_without_a_host_nothing_is_rebuilt() -> None:
    empty = Cluster(pools={"fast": Pool(name="fast", url="rbd://vms")})
    with pytest.raises(Conflict, match="vorch node add"):
        rebuild.rebuild(empty, "fast", told(a_vm()))


def test_a_disk_that_is_gone_is_said() -> None:
    gone = Disk(name="data", target="vdb", volume=Volume(pool="fast", name="gone"))
    vm = a_vm()
    made = rebuild.rebuild(
        a_cluster(), "fast", told(a_vm(disks=(*vm.disks, gone)), volumes=("stranger",))
    )
    assert made.vms == ("web",)
    assert made.unknown == ("stranger",)
    assert "lacks gone" in made.notes[0]
