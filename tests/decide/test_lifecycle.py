"""Create, start, stop, change, delete: values in, plan out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from tests.decide.worlds import FRESH, GIB, OVERHEAD, cluster, kinds, node, vm
from vorch import errors
from vorch.decide import lifecycle
from vorch.decide.lifecycle import Changes, NewVm
from vorch.model import CloudInit, Firmware, Power, Trashed, Vm
from vorch.plan import Plan, Save, SetMemory, SetVcpus, StartDomain


def create(**options: Any) -> Plan:
    new = NewVm(name="web", **options)
    return lifecycle.create(cluster(), new, FRESH, overhead_mib=OVERHEAD)


def saved(plan: Plan, key: str) -> dict[str, Any]:
    found = [s for s in plan.steps if isinstance(s, Save) and s.key == key]
    assert len(found) == 1
    assert found[0].after is not None
    return found[0].after


def test_create_from_an_image_is_a_linked_clone_with_the_images_size() -> None:
    plan = create(image="debian")
    assert kinds(plan) == ["clone-volume", "save"]
    body = saved(plan, "vm/web")
    assert body["vcpus"] == 2
    assert body["memory_mib"] == 512
    assert body["node"] == "h1"
    assert body["wanted"] == "stopped"


def test_create_with_a_larger_disk_and_start() -> None:
    plan = create(image="debian", disk_gib=20, start=True)
    assert kinds(plan) == ["clone-volume", "ensure-network", "start-domain", "save", "save"]
    assert saved(plan, "vm/web")["disks"][0]["size_bytes"] == 20 * GIB


def test_create_full_grows_after_the_copy() -> None:
    assert kinds(create(image="debian", disk_gib=20, linked=False)) == [
        "copy-volume",
        "grow-volume",
        "save",
    ]


def test_create_without_an_image_has_an_empty_disk() -> None:
    plan = create(iso="cd")
    assert kinds(plan) == ["create-volume", "save"]
    cd = saved(plan, "vm/web")["disks"][1]
    assert (cd["device"], cd["target"], cd["owned"]) == ("cdrom", "sda", False)


def test_create_with_cloud_init_writes_a_seed_that_goes_with_the_vm() -> None:
    plan = create(image="debian", cloud_init=CloudInit(hostname="web"))
    assert kinds(plan) == ["clone-volume", "write-iso", "save"]
    assert saved(plan, "vm/web")["disks"][1]["owned"] is True


def test_create_claims_the_name_and_rests_on_what_it_read() -> None:
    plan = create(image="debian")
    assert plan.claims == ("vm/web",)
    assert plan.reads == {"vm/web": 0, "image/debian": 0, "network/default": 0}


def test_the_same_question_has_the_same_answer() -> None:
    assert create(image="debian", start=True) == create(image="debian", start=True)


def test_macs_do_not_collide() -> None:
    first = vm("one", 1)
    plan = lifecycle.create(
        cluster(first), NewVm(name="web", networks=("default",) * 3), FRESH, overhead_mib=OVERHEAD
    )
    macs = [nic["mac"] for nic in saved(plan, "vm/web")["nics"]]
    assert len({*macs, first.nics[0].mac}) == 4


def test_a_disk_smaller_than_the_image_is_refused() -> None:
    with pytest.raises(errors.Invalid, match="needs 2 GiB"):
        create(image="debian", disk_gib=1)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"image": "cd"}, errors.Invalid),
        ({"iso": "debian"}, errors.Invalid),
        ({"image": "none"}, errors.NotFound),
        ({"networks": ("none",)}, errors.NotFound),
        ({"node": "none", "start": True}, errors.NotFound),
        ({"tpm": True}, errors.Unsupported),
        ({"firmware": Firmware.UEFI}, errors.Unsupported),
        ({"machine": "s390"}, errors.Unsupported),
        ({"cpu": "cray"}, errors.Unsupported),
        ({"memory_mib": 100_000, "start": True}, errors.NoRoom),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        create(**options)


def test_memory_that_others_use_counts() -> None:
    others = [vm(f"v{number}", number, memory_mib=1024) for number in range(1, 8)]
    full = cluster(*others, power=Power.RUNNING)
    with pytest.raises(errors.NoRoom, match="MiB of memory are short"):
        lifecycle.create(full, NewVm(name="web", start=True), FRESH, overhead_mib=OVERHEAD)


def test_start_goes_to_the_host_with_the_most_room() -> None:
    two = cluster(nodes=(node("h1", 4096), node("h2", 8192)))
    plan = lifecycle.create(two, NewVm(name="web", start=True), FRESH, overhead_mib=OVERHEAD)
    assert saved(plan, "vm/web")["node"] == "h2"
    assert "MiB free" in plan.why


# ---------------------------------------------------------------------------------------------


def test_start() -> None:
    plan = lifecycle.start(cluster(vm()), "web", overhead_mib=OVERHEAD)
    assert kinds(plan) == ["ensure-network", "start-domain", "save", "save"]
    assert plan.reads == {"vm/web": 7, f"clients/{vm().id}": 0}
    start = plan.steps[1]
    assert isinstance(start, StartDomain)
    assert start.vm.wanted == "running"


def test_start_of_what_runs_does_nothing() -> None:
    running = cluster(vm(wanted="running"), power=Power.RUNNING)
    assert lifecycle.start(running, "web", overhead_mib=OVERHEAD).empty


def test_start_of_what_is_paused_says_resume() -> None:
    with pytest.raises(errors.Conflict, match="resume"):
        lifecycle.start(cluster(vm(), power=Power.PAUSED), "web", overhead_mib=OVERHEAD)


def test_nothing_is_decided_about_a_vm_on_a_silent_host() -> None:
    dark = cluster(vm(), silent={"h1": "no route"})
    acts: tuple[Callable[[], Plan], ...] = (
        lambda: lifecycle.start(dark, "web", overhead_mib=OVERHEAD),
        lambda: lifecycle.stop(dark, "web", timeout_s=1, force=True),
        lambda: lifecycle.delete(dark, "web", FRESH, force=True, purge=True, keep_s=1),
    )
    for act in acts:
        with pytest.raises(errors.Unreachable, match="no route"):
            act()


def test_stop_asks_and_force_cuts() -> None:
    running = cluster(vm(wanted="running"), power=Power.RUNNING)
    asked = lifecycle.stop(running, "web", timeout_s=5, force=False)
    cut = lifecycle.stop(running, "web", timeout_s=5, force=True)
    assert kinds(asked) == ["ask-to-stop", "save"]
    assert kinds(cut) == ["cut-domain", "save"]


def test_stop_of_what_is_off_only_sets_the_record_right() -> None:
    assert lifecycle.stop(cluster(vm()), "web", timeout_s=5, force=False).empty
    off = cluster(vm(wanted="running"))
    assert kinds(lifecycle.stop(off, "web", timeout_s=5, force=False)) == ["save"]


def test_a_paused_guest_hears_nothing() -> None:
    paused = cluster(vm(), power=Power.PAUSED)
    with pytest.raises(errors.Conflict, match="--force"):
        lifecycle.stop(paused, "web", timeout_s=5, force=False)


def test_restart_takes_up_the_definition_as_it_is_now() -> None:
    running = cluster(vm(wanted="running"), power=Power.RUNNING)
    plan = lifecycle.restart(running, "web", timeout_s=5, force=False, overhead_mib=OVERHEAD)
    assert kinds(plan) == ["ask-to-stop", "ensure-network", "start-domain", "save", "save"]


def test_rename_moves_the_record_only() -> None:
    plan = lifecycle.rename(cluster(vm()), "web", "www")
    assert kinds(plan) == ["save", "save"]
    assert set(plan.claims) == {"vm/web", "vm/www"}
    with pytest.raises(errors.Conflict):
        lifecycle.rename(cluster(vm(), vm("www", 2)), "web", "www")


# ---------------------------------------------------------------------------------------------


def test_change_of_a_running_vm_within_its_limits_is_live() -> None:
    running = cluster(vm(memory_mib=512, memory_max_mib=1024), power=Power.RUNNING)
    plan = lifecycle.change(running, "web", Changes(vcpus=4, memory_mib=1024), live=True)
    assert kinds(plan) == ["set-vcpus", "set-memory", "save"]
    assert plan.why == "memory, vcpus: at once"
    vcpus, memory = plan.steps[:2]
    assert isinstance(vcpus, SetVcpus)
    assert isinstance(memory, SetMemory)
    assert (vcpus.vcpus, vcpus.before, memory.memory_mib) == (4, 1, 1024)


def test_change_beyond_the_limits_waits_and_says_so() -> None:
    running = cluster(vm(), power=Power.RUNNING)
    plan = lifecycle.change(running, "web", Changes(vcpus=16, memory_mib=4096), live=True)
    assert kinds(plan) == ["save"]
    assert "at the next start" in plan.why
    body = saved(plan, "vm/web")
    assert (body["vcpus_max"], body["memory_max_mib"], body["generation"]) == (16, 4096, 2)


def test_change_when_live_was_refused_waits_as_a_whole() -> None:
    running = cluster(vm(), power=Power.RUNNING)
    assert kinds(lifecycle.change(running, "web", Changes(vcpus=4), live=False)) == ["save"]


def test_change_to_what_it_is_does_nothing() -> None:
    assert lifecycle.change(cluster(vm()), "web", Changes(vcpus=1), live=True).empty


def test_change_to_what_the_host_has_not_is_refused() -> None:
    with pytest.raises(errors.Unsupported, match="swtpm"):
        lifecycle.change(cluster(vm()), "web", Changes(tpm=True), live=True)


# ---------------------------------------------------------------------------------------------


def test_delete_keeps_the_disks_and_the_definition() -> None:
    plan = lifecycle.delete(cluster(vm()), "web", FRESH, force=False, purge=False, keep_s=3600)
    assert kinds(plan) == ["trash-volume", "save", "save"]
    trashed = saved(plan, "trash/web.00ff00aa")
    assert trashed["purge_at"] == FRESH.now + 3600


def test_delete_of_what_runs_wants_force() -> None:
    running = cluster(vm(), power=Power.RUNNING)
    with pytest.raises(errors.Conflict, match="--force"):
        lifecycle.delete(running, "web", FRESH, force=False, purge=False, keep_s=1)
    plan = lifecycle.delete(running, "web", FRESH, force=True, purge=True, keep_s=1)
    assert kinds(plan) == ["cut-domain", "save", "purge-volume"]


def test_purge_takes_along_what_the_host_keeps() -> None:
    uefi = vm(firmware=Firmware.UEFI, tpm=True)
    plan = lifecycle.delete(cluster(uefi), "web", FRESH, force=False, purge=True, keep_s=1)
    assert kinds(plan) == ["save", "forget-domain", "purge-volume"]


def trashed(name: str, at: float, one: Vm) -> Trashed:
    return Trashed(
        key=f"{name}.{at}",
        name=name,
        volumes=one.volumes,
        vm=one,
        deleted_at=at,
        purge_at=at + 10,
    )


def test_undelete_takes_the_last_one_of_that_name() -> None:
    old, new = vm(description="old"), vm(number=2, description="new")
    trash = {one.key: one for one in (trashed("web", 1.0, old), trashed("web", 2.0, new))}
    plan = lifecycle.undelete(cluster(trash=trash), "web", None)
    assert kinds(plan) == ["restore-volume", "save", "save"]
    assert saved(plan, "vm/web")["description"] == "new"


def test_undelete_beside_one_of_the_same_name_needs_another() -> None:
    gone = vm(number=2)
    world = cluster(vm(), trash={"web.1": trashed("web", 1.0, gone)})
    with pytest.raises(errors.Conflict):
        lifecycle.undelete(world, "web", None)
    assert "vm/old" in lifecycle.undelete(world, "web", "old").claims


def test_undelete_does_not_double_a_mac_address() -> None:
    gone = dataclasses.replace(vm(number=2), nics=vm().nics)
    world = cluster(vm(), trash={"web.1": trashed("web", 1.0, gone)})
    with pytest.raises(errors.Conflict, match="MAC"):
        lifecycle.undelete(world, "web", "old")
