"""The clients that write a VM's disks are recorded with what made them, and never guessed later."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import pytest

import vorch
from tests.execute.scenarios import leaks
from vorch import Conflict, Orchestrator, Unreachable
from vorch.decide import clients
from vorch.drivers.memory import MemoryWorld
from vorch.drivers.memory_host import MemoryHost
from vorch.model import Power, Source, Vm

_numbers = itertools.count()
SILENT = vorch.Unreachable("cannot hear its answer: it came too late; look again")


@pytest.fixture
def world() -> MemoryWorld:
    return MemoryWorld(f"clients-{next(_numbers)}", hosts=2)


def recorded(cluster: Orchestrator) -> dict[str, str]:
    look = cluster.look()
    return look.clients[look.vm("web").id].disks


def test_nothing_is_let_go_before_the_storage_says_who_writes(
    world: MemoryWorld, cluster: Orchestrator
) -> None:
    cluster.create("web", disk_gib=1, networks=(), node="h1")
    asked = world.faults.fail("pool:*", "holders")
    with pytest.raises(Unreachable):
        cluster.start("web")
    assert asked.met > 10
    assert cluster.show("web").power is Power.STOPPED
    assert not [call for call in world.faults.trace if call.name == "resume"]
    world.faults.clear()
    # A single answer that is lost stops nothing.
    world.faults.fail("pool:*", "holders", times=1)
    cluster.start("web")
    assert cluster.show("web").power is Power.RUNNING
    assert recorded(cluster)["root"].startswith("198.18.0.1:0/")
    assert leaks(cluster) == []


@pytest.mark.parametrize("paused", [False, True], ids=["running", "held"])
def test_who_is_let_go_was_alone(
    world: MemoryWorld, cluster: Orchestrator, monkeypatch: pytest.MonkeyPatch, paused: bool
) -> None:
    """Another copy comes up just after the look that found nobody: it has been let go, or not."""
    cluster.create("web", disk_gib=1, networks=(), node="h1")
    ports, _ = world.connection()
    start = MemoryHost.start

    def late(
        self: MemoryHost, vm: Vm, sources: Mapping[str, Source], *rest: Any, **more: Any
    ) -> None:
        if not world.host("h2").guests:
            start(ports.hypervisor("h2"), vm, sources, {}, paused=paused)  # type: ignore[arg-type]
        start(self, vm, sources, *rest, **more)

    monkeypatch.setattr(MemoryHost, "start", late)
    with pytest.raises(Conflict, match="may run elsewhere"):
        cluster.start("web")
    assert not world.host("h1").guests
    assert [call.target for call in world.faults.trace if call.name == "resume"] == []
    assert len(world.host("h2").guests) == 1


def test_a_storage_that_does_not_say_who_writes_stops_no_move(
    world: MemoryWorld, cluster: Orchestrator
) -> None:
    cluster.create("web", disk_gib=1, networks=(), node="h2", start=True)
    world.faults.fail("pool:*", "holders", times=1)
    done = cluster.migrate("web", "h1")
    assert done.task is not None
    assert any("client of disk 'root' is not known" in line for line in done.task.log)
    assert recorded(cluster) == {}
    look = cluster.look(None)
    assert "disk 'root'" in clients.lacking(look, look.vm("web"))
    assert any("VM web" in check.name for check in cluster.doctor())
    (task,) = cluster.recover()
    assert task.verb == "clients record"
    assert recorded(cluster)["root"].startswith("198.18.0.1:0/")
    assert cluster.recover() == ()
    assert not any("VM web" in check.name for check in cluster.doctor())
    assert leaks(cluster) == []


def test_each_start_and_each_move_is_another_client(cluster: Orchestrator) -> None:
    cluster.create("web", disk_gib=1, networks=(), node="h1", start=True)
    first = recorded(cluster)["root"]
    cluster.restart("web", force=True)
    second = recorded(cluster)["root"]
    cluster.migrate("web", "h2")
    third = recorded(cluster)["root"]
    assert len({first, second, third}) == 3
    assert [one.partition(":")[0][-1] for one in (first, second, third)] == ["1", "1", "2"]
    assert leaks(cluster) == []
    cluster.stop("web", force=True)
    assert cluster.look().clients == {}


def test_disks_that_come_and_go_while_it_runs(world: MemoryWorld, cluster: Orchestrator) -> None:
    cluster.create("web", disk_gib=1, networks=(), node="h1", start=True)
    root = recorded(cluster)["root"]
    cluster.disk_attach("web", disk="data", size_gib=1)
    assert recorded(cluster)["root"] == root
    assert "data" in recorded(cluster)
    # What is put back is opened anew, and by whom is not known then.
    world.faults.fail("pool:*", "trash", times=1)
    with pytest.raises(vorch.VorchError):
        cluster.disk_detach("web", "data")
    assert "data" not in recorded(cluster)
    cluster.recover()
    assert leaks(cluster) == []
    cluster.disk_detach("web", "data")
    assert recorded(cluster) == {"root": root}


def test_a_renamed_or_deleted_vm_leaves_no_wrong_record(cluster: Orchestrator) -> None:
    cluster.create("web", disk_gib=1, networks=(), node="h1", start=True)
    cluster.rename("web", "copy")
    look = cluster.look(None)
    assert clients.lacking(look, look.vm("copy")) == ""
    cluster.delete("copy", force=True)
    assert cluster.look().clients == {}
    cluster.undelete("copy")
    assert cluster.look().clients == {}


def test_a_guest_that_xen_starts_anew_is_recorded_anew(
    world: MemoryWorld, cluster: Orchestrator
) -> None:
    world.host("h2").run_xen()
    cluster.node_probe("h2")
    cluster.create("web", disk_gib=1, networks=(), hypervisor="any", node="h2", start=True)
    first = recorded(cluster)["root"]
    assert cluster.recover() == ()
    machine = world.host("h2")
    world.guest("web").start_anew(machine.ceph.client(machine))
    assert recorded(cluster)["root"] == first
    assert any("rebooted" in check.detail for check in cluster.doctor() if "VM web" in check.name)
    (task,) = cluster.recover()
    assert task.verb == "clients record"
    assert recorded(cluster)["root"] not in ("", first)
    assert cluster.recover() == ()
    assert leaks(cluster) == []
