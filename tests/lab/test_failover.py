"""Hosts that are lost, and all that only looks like it, on real parts: `vorch serve` sees to it.

One cluster goes through all of it, one story after the other, as a cluster does in its life: two
guests write all the while, and two vorch processes watch. At the end the guests' disks tell whether
anything that was confirmed was lost, or two ever wrote at once.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.test_nodes import redfish
from tests.lab.watched import Watched, watched_on
from vorch.availability import HaVm, HostOrder, NodeState, VmState
from vorch.lab import Lab
from vorch.lab.spec import BMC_PASSWORD

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(900)]

VMS = ("w1", "w2")


@pytest.fixture(scope="module")
def watched(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    lab.reset()
    with watched_on(lab, tmp_path_factory.mktemp("watched")) as found:
        found.create(VMS, "h1")
        found.serve()
        found.serve()
        found.leader()
        found.await_running(VMS)
        yield found
        found.stop_watching()
        found.check_disks(VMS)


@pytest.fixture(autouse=True)
def healed(watched: Watched) -> Iterator[None]:
    """Before each story all is well, and afterwards vorch itself brings it there again."""
    watched.await_all_online()
    watched.await_running(VMS)
    yield
    watched.lab.heal()
    watched.await_all_online()
    watched.await_running(VMS)


def home_of(watched: Watched, vm: str) -> str:
    return watched.cluster.look().vm(vm).node


def loses(watched: Watched, host: str) -> None:
    """The host is fenced, what was there writes elsewhere, and nothing else has moved."""
    before = watched.boots()
    lost = [vm for vm in VMS if home_of(watched, vm) == host]
    stays = {vm: home_of(watched, vm) for vm in VMS if vm not in lost}
    watched.await_state(host, NodeState.FENCED, NodeState.RETURNING, NodeState.ONLINE)
    watched.await_running(VMS, off=(host,))
    watched.await_new(before, len(lost))
    assert {vm: home_of(watched, vm) for vm in stays} == stays


def keeps(watched: Watched, host: str, seconds: float, said: str) -> None:
    """The host is left alone for that long, and what runs there goes on."""
    boots, homes = watched.boots(), {vm: home_of(watched, vm) for vm in VMS}
    watched.eventually(
        lambda: said in watched.leader().said().rpartition(f"node {host}: ")[2], f"said: {said}"
    )
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        assert watched.state_of(host) in (NodeState.ONLINE, NodeState.SUSPECT)
        time.sleep(0.5)
    assert {vm: home_of(watched, vm) for vm in VMS} == homes
    assert watched.boots() == boots


def test_a_host_loses_its_power(watched: Watched) -> None:
    host = home_of(watched, "w1")
    watched.lab.power_off(host)
    loses(watched, host)


def test_a_qemu_that_dies_is_started_again_where_it_was(watched: Watched) -> None:
    host, before = home_of(watched, "w1"), watched.boots()
    watched.lab.kill_qemu(host, "w1")
    watched.await_new(before, 1)
    watched.await_running(VMS)
    assert home_of(watched, "w1") == host
    assert watched.state_of(host) is NodeState.ONLINE


@pytest.mark.parametrize("how", ["hung", "dead"])
def test_a_libvirtd_that_is_silent_is_no_reason_to_fence(watched: Watched, how: str) -> None:
    host = home_of(watched, "w1")
    if how == "hung":
        watched.lab.hang(host)
    else:
        kill = ["sh", "-c", "kill -9 $(cat /run/libvirtd.pid)"]
        subprocess.run(watched.lab.command(host, kill), check=True)
    more = len(watched.acks.all())
    keeps(watched, host, 15, "its VMs go on there, so it is left alone")
    assert len(watched.acks.all()) > more


def test_a_host_without_its_management_cable_is_left_alone(watched: Watched) -> None:
    host = home_of(watched, "w1")
    watched.lab.cut(host, "management")
    keeps(watched, host, 15, "its VMs go on there, so it is left alone")


def test_unless_one_of_its_vms_wants_it_fenced(watched: Watched) -> None:
    """It writes all the while until the fence stops it."""
    host = home_of(watched, "w1")
    watched.look_after(HaVm(vm="w1", isolation="fence", isolation_after_s=3.0))
    watched.lab.cut(host, "management")
    loses(watched, host)
    watched.look_after(HaVm(vm="w1"))


def test_a_host_without_any_cable_has_its_writers_stopped(watched: Watched) -> None:
    host = home_of(watched, "w1")
    watched.lab.cut(host, "both")
    loses(watched, host)
    # It runs there to this moment, and is ended when the host is back.
    assert "w1" in next(one for one in watched.lab.status().hosts if one.name == host).vms


def test_a_host_without_its_storage_cable(watched: Watched) -> None:
    host = home_of(watched, "w1")
    watched.lab.cut(host, "storage")
    loses(watched, host)


def test_a_host_that_stands_still(watched: Watched) -> None:
    """Its kernel answers for it; that its VMs have let go of their disks tells."""
    host = home_of(watched, "w1")
    watched.lab.freeze(host)
    loses(watched, host)


@contextlib.contextmanager
def with_bmc(watched: Watched, host: str) -> Iterator[None]:
    bmc = redfish(watched.lab, host)
    watched.cluster.node_change(host, bmc=bmc, bmc_password=BMC_PASSWORD)
    yield
    watched.cluster.node_change(host, bmc="")


@pytest.mark.parametrize("how", ["stuck", pytest.param("silent", marks=pytest.mark.thorough)])
def test_a_bmc_that_lies_or_hangs_is_no_proof_and_no_hindrance(watched: Watched, how: str) -> None:
    host, lab = home_of(watched, "w1"), watched.lab
    with with_bmc(watched, host):
        lab.bmc_break(host, how)
        lab.cut(host, "both")
        loses(watched, host)
        why = watched.nodes()[host].why
        assert why.startswith("storage: ")
        assert "power: " not in why


def test_a_bmc_that_works_ends_the_host_as_well(watched: Watched) -> None:
    host, lab = home_of(watched, "w1"), watched.lab
    with with_bmc(watched, host):
        lab.cut(host, "both")
        loses(watched, host)
        watched.eventually(
            lambda: not next(one for one in lab.status().hosts if one.name == host).power,
            "its power is off",
        )


@pytest.mark.thorough
def test_a_host_is_lost_while_another_one_is_kept_empty(watched: Watched) -> None:
    lost = home_of(watched, "w1")
    kept = next(host for host in watched.lab.spec.host_names if host != lost)
    watched.order(HostOrder(node=kept, maintenance=True))
    watched.await_state(kept, NodeState.MAINTENANCE)
    watched.await_running(VMS, off=(kept,))
    watched.lab.power_off(lost)
    watched.await_running(VMS, off=(kept, lost))
    watched.order(HostOrder(node=kept))


def test_a_host_is_lost_in_the_middle_of_a_migration(watched: Watched, tmp_path: Path) -> None:
    """Whichever of the two it is, the VM runs in the end, and once."""
    for end in ("target", "source"):
        source = home_of(watched, "w1")
        target = next(host for host in watched.lab.spec.host_names if host != source)
        config = tmp_path / "slow.toml"
        config.write_text("migration_bandwidth_mib_s = 4\n")
        words = watched.vorch("migrate", "w1", target)
        with subprocess.Popen(
            words, env=watched.environment(config), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as mover:
            watched.await_way("w1", source)
            lost = target if end == "target" else source
            watched.lab.power_off(lost)
            watched.await_state(lost, NodeState.FENCED, NodeState.SUSPECT)
            mover.communicate(timeout=200)
        watched.await_running(VMS, off=(lost,))
        watched.lab.heal()
        watched.await_all_online()
        watched.await_running(VMS)
        assert [len(hosts) for hosts in watched.on_hosts().values()] == [1, 1]


def test_the_host_of_the_leader_is_lost(watched: Watched) -> None:
    host = home_of(watched, "w1")
    watched.stop_watching()
    watched.serve(home=host, name="inside")
    assert watched.leader().home == host
    watched.serve()
    watched.serve()
    watched.lab.power_off(host)
    loses(watched, host)
    watched.reap()
    assert watched.leader().home == ""


def test_a_leader_that_sleeps_through_its_own_failover_does_no_harm(watched: Watched) -> None:
    host = home_of(watched, "w1")
    sleeper = watched.leader()
    before = watched.boots()
    watched.lab.power_off(host)
    watched.eventually(lambda: "w1: waiting for fence" in sleeper.said(), "it is about to fence")
    sleeper.pause()
    watched.eventually(
        lambda: any(one is not sleeper and one.leads for one in watched.watchers), "another leads"
    )
    watched.await_running(VMS, off=(host,))
    sleeper.go_on()
    watched.eventually(lambda: not sleeper.leads, "it finds that it does not lead")
    watched.await_new(before, 1)
    assert sorted(map(len, watched.on_hosts().values())) == [1, 1]


def test_ceph_has_no_quorum_for_a_while(watched: Watched) -> None:
    """Nothing is decided, nothing is lost, and afterwards all goes on."""
    boots = watched.boots()
    watched.lab.mon_kill("a")
    time.sleep(40)
    watched.lab.heal()
    watched.await_all_online()
    watched.await_running(VMS)
    assert watched.boots() == boots
    assert {record.state for record in watched.vms().values()} == {VmState.RUNNING}


def test_whoever_ends_in_good_order_leaves_the_lead_to_another_at_once(watched: Watched) -> None:
    leader = watched.leader()
    assert leader.end() == 0
    watched.reap()
    assert watched.leader() is not leader
    assert "nobody leads" not in watched.leader().said().rpartition("as number")[2]
