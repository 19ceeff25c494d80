"""Adding and removing hosts and pools on a world in memory, faults included."""

from __future__ import annotations

import dataclasses
import itertools

import pytest

import vorch
from tests.execute.scenarios import leaks
from vorch import Orchestrator
from vorch.drivers.memory import MemoryWorld, ProcessDied
from vorch.errors import Conflict, Unreachable, Unsupported
from vorch.model import Cpu, Node

_numbers = itertools.count()


@pytest.fixture
def world() -> MemoryWorld:
    return MemoryWorld(f"hosts-{next(_numbers)}")


@pytest.fixture
def cluster(world: MemoryWorld) -> Orchestrator:
    ports, prepare = world.connection()
    found = Orchestrator(ports, vorch.Settings(uri="memory:"))
    prepare(found)
    return found


def test_a_host_joins_and_is_used(world: MemoryWorld, cluster: Orchestrator) -> None:
    world.add_host("h2", memory_mib=1 << 20)
    done = cluster.node_add("h2", "memory:h2")
    assert done.task is not None
    assert [node.name for node in cluster.node_list()] == ["h1", "h2"]
    facts = cluster.node_list()[1].facts
    assert facts is not None
    assert facts.accelerator
    cluster.create("web", disk_gib=1, networks=(), start=True)
    # It has more room.
    assert cluster.show("web").vm.node == "h2"
    with pytest.raises(Conflict, match="'web'"):
        cluster.node_remove("h2")
    cluster.delete("web", force=True, purge=True)
    cluster.node_remove("h2")
    assert [node.name for node in cluster.node_list()] == ["h1"]


def test_a_dry_run_tries_the_host_and_takes_nothing_in(
    world: MemoryWorld, cluster: Orchestrator
) -> None:
    world.add_host("h2")
    assert cluster.node_add("h2", "memory:h2", dry_run=True).task is None
    assert len(cluster.node_list()) == 1


def test_a_host_that_does_not_answer_stays_out(world: MemoryWorld, cluster: Orchestrator) -> None:
    world.add_host("h2").power_off()
    with pytest.raises(Unsupported, match="cannot add host 'h2': libvirt:"):
        cluster.node_add("h2", "memory:h2")
    assert len(cluster.node_list()) == 1


def test_a_host_that_opens_no_disk_stays_out_and_nothing_is_left(
    world: MemoryWorld, cluster: Orchestrator
) -> None:
    world.add_host("h2")
    world.faults.fail("host:h2", "try_source", error=Unsupported("it has no rbd"))
    with pytest.raises(Unsupported, match="it has no rbd"):
        cluster.node_add("h2", "memory:h2")
    assert cluster.volume_list("local") == ()
    assert len(cluster.node_list()) == 1


def test_a_host_is_checked_again_later(world: MemoryWorld, cluster: Orchestrator) -> None:
    assert {check.level for check in cluster.node_check("h1")} == {"ok"}
    world.faults.fail("host:h1", "try_source", error=Unreachable("no monitor"))
    assert [check.level for check in cluster.node_check("h1")].count("error") == 1


def test_pools_come_and_go(cluster: Orchestrator) -> None:
    cluster.pool_add("bulk", "memory:bulk")
    assert [pool.name for pool, _ in cluster.pool_list()] == ["bulk", "local"]
    # Trying it out has left nothing in it.
    assert cluster.volume_list("bulk") == ()
    cluster.create("web", disk_gib=1, pool="bulk", networks=())
    with pytest.raises(Conflict, match="VM 'web'"):
        cluster.pool_remove("bulk")
    cluster.delete("web", purge=True)
    cluster.pool_remove("bulk")
    assert [pool.name for pool, _ in cluster.pool_list()] == ["local"]


def test_a_cordoned_host_starts_nothing(world: MemoryWorld, cluster: Orchestrator) -> None:
    world.add_host("h2", memory_mib=1024)
    cluster.node_add("h2", "memory:h2")
    cluster.node_cordon("h1")
    cluster.create("web", disk_gib=1, networks=(), memory_mib=64, start=True)
    assert cluster.show("web").vm.node == "h2"
    cluster.node_uncordon("h1")
    cluster.create("db", disk_gib=1, networks=(), memory_mib=64, start=True)
    assert cluster.show("db").vm.node == "h1"


def test_a_host_is_emptied_and_filled_again(world: MemoryWorld, cluster: Orchestrator) -> None:
    world.add_host("h2")
    world.add_host("h3")
    for host in ("h2", "h3"):
        cluster.node_add(host, f"memory:{host}")
    for name in ("a", "b", "off"):
        cluster.create(name, disk_gib=1, networks=(), memory_mib=64, node="h1", start=name != "off")
    cluster.create("c", disk_gib=1, networks=(), memory_mib=64, node="h2", start=True)
    cluster.node_maintenance("h1", True)
    seen = {one.name: (one.vm.node, one.vm.home, one.power.value) for one in cluster.list()}
    assert all(node != "h1" and home == "h1" for node, home, _ in (seen["a"], seen["b"]))
    assert {seen["a"][2], seen["b"][2]} == {"running"}
    assert (seen["off"][0] != "h1", seen["off"][2]) == (True, "stopped")
    assert seen["c"] == ("h2", "", "running")
    # Again is no work; and what has been moved by hand since stays where it is.
    assert all(done.task is None for done in cluster.node_maintenance("h1", True))
    other = "h2" if seen["a"][0] == "h3" else "h3"
    cluster.migrate("a", other)
    cluster.node_maintenance("h1", False)
    assert {one.name: one.vm.node for one in cluster.list()} == {
        "a": other,
        "b": "h1",
        "off": "h1",
        "c": "h2",
    }
    assert all(one.vm.home == "" for one in cluster.list())


def test_what_cannot_leave_is_said_when_the_others_have(
    world: MemoryWorld, cluster: Orchestrator
) -> None:
    world.add_host("h2", memory_mib=1024)
    cluster.node_add("h2", "memory:h2")
    cluster.create("big", disk_gib=1, networks=(), memory_mib=4096, start=True)
    cluster.create("small", disk_gib=1, networks=(), memory_mib=64, node="h1", start=True)
    with pytest.raises(Conflict, match=r"cannot empty host 'h1': .*'big'.*short"):
        cluster.node_maintenance("h1", True)
    assert {one.name: one.vm.node for one in cluster.list()} == {"big": "h1", "small": "h2"}


def test_a_drain_that_was_killed_is_taken_up_again(
    world: MemoryWorld, cluster: Orchestrator
) -> None:
    world.add_host("h2")
    cluster.node_add("h2", "memory:h2")
    for name in ("a", "b", "c"):
        cluster.create(name, disk_gib=1, networks=(), memory_mib=64, node="h1", start=True)
    world.faults.crash("host:h1", "migrate", when="after", skip=1)
    with pytest.raises(ProcessDied):
        cluster.node_maintenance("h1", True)
    world.faults.clear()
    ports, _ = world.connection()
    heir = Orchestrator(ports, vorch.Settings(uri="memory:"))
    heir.recover()
    heir.node_maintenance("h1", True)
    seen = {one.name: (one.vm.node, one.vm.home, one.power.value) for one in heir.list()}
    assert seen == dict.fromkeys(("a", "b", "c"), ("h2", "h1", "running"))
    assert leaks(heir) == []


# --- what is found out about hosts ------------------------------------------------------------

BMC = "memory://admin@h2"


def levels(checks: tuple[vorch.Check, ...]) -> dict[str, str]:
    return {one.name: one.level for one in checks}


def test_a_host_whose_clock_is_wrong_stays_out(world: MemoryWorld, cluster: Orchestrator) -> None:
    world.add_host("h2").clock_ahead_s = -1.5
    with pytest.raises(Unsupported, match=r"clock: it is 1\.500 s behind.*chrony"):
        cluster.node_add("h2", "memory:h2")
    world.host("h2").clock_ahead_s = 0.4
    cluster.node_add("h2", "memory:h2")
    world.host("h2").clock_ahead_s = 3.0
    assert levels(cluster.doctor())["h2: clock"] == "error"


def test_a_host_that_machines_cannot_leave_or_reach_stays_out(
    world: MemoryWorld, cluster: Orchestrator
) -> None:
    world.add_host("h2")
    world.host("h1").out_of_reach.add("h2")
    with pytest.raises(Unsupported, match=r"move from 'h1' to here: .*49152"):
        cluster.node_add("h2", "memory:h2")
    world.host("h1").out_of_reach.clear()
    cluster.node_add("h2", "memory:h2")
    assert levels(cluster.node_check("h2"))["move from here to 'h1'"] == "ok"
    # A partner that is silent is left out, and that nothing was moved is said.
    world.host("h1").power_off()
    assert levels(cluster.node_check("h2"))["moves"] == "warning"


def test_where_its_storage_traffic_comes_from_is_seen(
    world: MemoryWorld, cluster: Orchestrator
) -> None:
    world.add_host("h2")
    with pytest.raises(Unsupported, match=r"comes from 198\.18\.0\.2, and 198\.18\.0\.9 was given"):
        cluster.node_add("h2", "memory:h2", storage_address="198.18.0.9")
    cluster.node_add("h2", "memory:h2")
    assert cluster.node_show("h2").node.storage_address == "198.18.0.2"
    assert cluster.volume_list("local") == ()
    # A pool that comes later tells it of the hosts of which nobody knows yet.
    assert cluster.node_show("h1").node.storage_address == ""
    cluster.pool_add("fast", "memory:fast")
    assert cluster.node_show("h1").node.storage_address == "198.18.0.1"


def test_a_bmc_is_read_before_it_is_taken(world: MemoryWorld, cluster: Orchestrator) -> None:
    world.add_host("h2")
    world.faults.fail("bmc:h2", "is_on", error=Unreachable("it does not answer"))
    with pytest.raises(Unsupported, match="BMC: it does not answer"):
        cluster.node_add("h2", "memory:h2", bmc=BMC, bmc_password="hush")
    assert cluster.world.state.read(["secret"]) == {}
    world.faults.clear()
    cluster.node_add("h2", "memory:h2", bmc=BMC, bmc_password="hush")
    assert cluster.node_show("h2").node.bmc == BMC
    # It is kept, and nothing that is shown has it.
    assert cluster.world.state.read(["secret"])["secret/bmc.h2"].body == {"password": "hush"}
    shown = repr((cluster.node_list(), cluster.task_list(), cluster.world.state.read(["task"])))
    assert "hush" not in shown
    # It tells a host that is off from one that is cut off.
    world.host("h2").power_off()
    found = {one.name: one for one in cluster.doctor()}
    assert found["h2: libvirt"].level == "error"
    assert "power state: off" in found["h2: BMC"].detail
    world.host("h2").power_on()
    cluster.node_change("h2", bmc="")
    assert cluster.node_show("h2").node.bmc == ""
    assert cluster.world.state.read(["secret"]) == {}


def test_a_password_never_goes_into_the_url(cluster: Orchestrator) -> None:
    with pytest.raises(vorch.Invalid, match="--bmc-password-file") as caught:
        cluster.node_change("h1", bmc="redfish+https://admin:hush@10.0.0.5")
    assert "hush" not in str(caught.value)
    for wrong in ("10.0.0.5", "https://admin@10.0.0.5", "ipmi://10.0.0.5", "ipmi://a@b:x"):
        with pytest.raises(vorch.Invalid):
            cluster.node_change("h1", bmc=wrong)
    with pytest.raises(vorch.Invalid, match="storage address"):
        cluster.node_change("h1", storage_address="h1.example")


def test_what_is_known_of_a_host_is_changed(cluster: Orchestrator) -> None:
    cluster.node_change("h1", reserve_mib=1024, storage_address="10.0.0.5")
    node = cluster.node_show("h1").node
    assert (node.reserve_mib, node.storage_address) == (1024, "10.0.0.5")
    assert cluster.node_change("h1", reserve_mib=1024).plan.empty
    assert cluster.node_change("h1", reserve_mib=1, dry_run=True).task is None


def test_hosts_at_a_glance(world: MemoryWorld, cluster: Orchestrator) -> None:
    world.add_host("h2")
    cluster.node_add("h2", "memory:h2")
    cluster.create("web", disk_gib=1, memory_mib=1000, networks=(), node="h1", start=True)
    cluster.node_cordon("h1")
    world.host("h2").power_off()
    one, two = cluster.node_list()
    assert (one.state, one.running, one.memory_used_mib) == ("cordoned", 1, 1064)
    assert one.memory_free_mib == 65536 - 512 - 1064
    assert two.state == "silent"
    assert "does not answer" in two.notes[0]


def test_hosts_of_one_cluster_give_what_all_of_them_have(
    world: MemoryWorld, cluster: Orchestrator
) -> None:
    """A host that lowers it is told of; a VM has what it was started with until its next start."""
    big = Cpu(model="Skylake", vendor="Intel", features={"avx2": True, "pku": True})
    small = Cpu(model="Haswell", vendor="Intel", features={"avx2": True})
    for name, cpu in (("h1", big), ("h2", big), ("h3", small)):
        machine = world.host("h1") if name == "h1" else world.add_host(name)
        machine.facts = dataclasses.replace(machine.facts, host_cpu=cpu)

    def start(name: str) -> Cpu | None:
        cluster.create(name, disk_gib=1, networks=(), node="h1", start=True)
        return world.guest(name).cpu

    cluster.node_probe("h1")
    # Alone, the host gives all that it has.
    assert start("alone") is None
    cluster.node_add("h2", "memory:h2")
    assert start("two") == big
    (warning,) = [one for one in cluster_checks(cluster, "h3") if one.name == "CPU baseline"]
    assert warning.level == "warning"
    assert "without pku" in warning.detail
    assert warning.remedy
    cluster.node_add("h3", "memory:h3")
    assert start("three") == small
    assert world.guest("two").cpu == big
    cluster.restart("two", force=True)
    assert world.guest("two").cpu == small
    # One with a model of its own keeps it.
    cluster.create("own", disk_gib=1, networks=(), cpu="qemu64", node="h1", start=True)
    assert world.guest("own").cpu is None
    cluster.node_remove("h3")
    assert start("four") == big
    assert cluster.look().baselines["x86_64"].nodes == ("h1", "h2")
    assert leaks(cluster) == []


def cluster_checks(cluster: Orchestrator, name: str) -> tuple[vorch.Check, ...]:
    return cluster._try_host(Node(name=name, uri=f"memory:{name}"), cluster.look(None)).checks


def test_hosts_of_different_makers_have_no_cpu_in_common(
    world: MemoryWorld, cluster: Orchestrator
) -> None:
    for name, vendor in (("h1", "Intel"), ("h2", "AMD")):
        machine = world.host("h1") if name == "h1" else world.add_host(name)
        cpu = Cpu(model=vendor, vendor=vendor)
        machine.facts = dataclasses.replace(machine.facts, host_cpu=cpu)
    cluster.node_probe("h1")
    with pytest.raises(Unsupported, match=r"CPU baseline: .*makers differ"):
        cluster.node_add("h2", "memory:h2")
