"""A Xen host of the lab: real, on the lab's networks, with the same faults and the same cure."""

from __future__ import annotations

import inspect
import re
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.contract import test_hypervisor as contract
from tests.contract.hypervisors import a_disk
from tests.contract.xen_host import IMAGES, XenUnderTest
from tests.lab import bare
from tests.lab.test_up_down import left, traces
from tests.lab.xen_labs import ready, xen_lab_up
from vorch.drivers.xen import LACKS
from vorch.lab import Lab
from vorch.lab.lab import HostRow
from vorch.model import Source, Vm
from vorch.ports import no_progress

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(900)]

XEN = "x1"
# An emulated guest on an emulated hypervisor, on a machine that may have other things to do.
GUEST_TIMEOUT_S = 180.0


@pytest.fixture(scope="module")
def xen_lab() -> Iterator[Lab]:
    name = ready()
    before = traces(name)
    with xen_lab_up(name) as made:
        yield made
    # Not files: other tests write theirs in the minutes between.
    gone = ("processes", "links", "sockets")
    assert not {kind for kind in left(before, traces(name)) if kind in gone}
    assert not made.spec.folder.exists()


def row(lab: Lab) -> HostRow:
    return next(host for host in lab.status().hosts if host.name == XEN)


def on_it(lab: Lab, *command: str) -> str:
    return subprocess.run(
        lab.command(XEN, command), capture_output=True, text=True, check=True
    ).stdout


def answers(address: str) -> bool:
    ping = ["ping", "-c", "1", "-W", "2", address]
    return subprocess.run(ping, capture_output=True).returncode == 0


def says(lab: Lab, name: str, words: str) -> str:
    """The line of a guest's console that begins with these words, once it is there."""

    def look() -> str:
        log = f"/var/log/xen/console/guest-{name}.log"
        text = on_it(lab, "sh", "-c", f"cat {log} 2>/dev/null || true")
        return next((line for line in text.splitlines() if words in line), "")

    return bare.eventually(look, f"{words!r} of {name}", GUEST_TIMEOUT_S)


def test_it_is_a_host_with_xen_on_the_lab_s_networks(xen_lab: Lab) -> None:
    with bare.connected(xen_lab, XEN) as connection:
        assert connection.getType() == "Xen"
        assert connection.getHostname() == XEN
        assert [one.name() for one in connection.listAllDomains()] == ["Domain-0"]
    for address in (
        xen_lab.spec.management_address(XEN),
        xen_lab.spec.storage_address(XEN),
    ):
        assert answers(address)
    # It stood still since its state was saved; its clock must not have.
    assert abs(float(on_it(xen_lab, "date", "+%s")) - time.time()) < 30
    seen = row(xen_lab)
    assert (seen.power, seen.libvirt, seen.bmc, seen.vms) == (True, "running", "ok", ())


# -- the contract of all hypervisors

# The tests of it that a Xen host passes, the same code as for KVM hosts.
KEPT = (
    "test_a_host_says_what_it_is",
    "test_findings_have_a_remedy_where_something_is_wrong",
    "test_subnets_in_use_are_networks",
    "test_what_trials_leave_is_cleared_away",
    "test_a_started_vm_is_seen_as_what_it_is",
    "test_starting_again_changes_nothing",
    "test_two_running_vms_do_not_get_the_same_disk",
    "test_the_end_is_waited_for",
    "test_waiting_for_the_end_can_be_cancelled",
    "test_pausing_and_resuming_can_be_repeated",
    "test_a_guest_without_agent_is_not_frozen",
    "test_a_vm_without_a_place_for_its_disk_is_not_started",
    "test_a_vm_on_a_network_that_nobody_described_is_not_started",
    "test_what_happens_to_domains_is_told",
    "test_a_console_is_read_and_written",
    "test_figures_grow_with_time",
    "test_figures_of_the_host_are_those_of_all_on_it",
    "test_a_guest_gives_memory_back",
    "test_a_guest_gets_another_vcpu",
    "test_a_guest_lets_go_of_a_nic",
    "test_vcpus_and_memory_have_their_limits",
    "test_its_clock_is_compared_with_ours",
    "test_a_key_that_it_was_never_given_is_forgotten",
    "test_a_disk_is_plugged_in_once",
    "test_a_disk_that_was_never_there_is_unplugged",
    "test_a_guest_lets_go_of_a_disk",
    # The last one: it ends the guest that the others share.
    "test_a_guest_shuts_down_when_it_is_asked",
)
# Those that need what a Xen host lacks, by the verb of the table that says why.
LACKING = {
    "test_hosts_find_the_cpu_that_they_have_in_common": "common_cpu",
    "test_a_reset_vm_runs_on": "reset",
    "test_how_fast_a_guest_changes_its_memory": "write_rate_mib_s",
    "test_cds_are_changed": "change_media",
    "test_only_cd_drives_take_cds": "change_media",
    "test_a_disk_grows_and_never_shrinks": "grow_disk",
    "test_snapshots_are_inside_all_disks_and_can_be_repeated": "snapshot",
}
# Those that do not fit for another reason, or would take minutes and show little more.
APART = {
    "test_a_vm_that_has_moved_is_on_the_other_host_alone": "two hosts: test_xen_cluster.py",
    "test_a_vm_that_is_not_there_does_not_move": "two hosts: test_xen_cluster.py",
    "test_a_move_that_is_cancelled_leaves_the_vm_where_it_is": "two hosts: test_xen_cluster.py",
    "test_a_move_can_be_ended_from_outside": "two hosts: test_xen_cluster.py",
    "test_both_hosts_know_what_a_move_came_to": "two hosts: test_xen_cluster.py",
    "test_disks_are_copied_along": "two hosts: test_xen_cluster.py",
    "test_what_tries_a_volume_can_be_watched_while_it_is_open": "in RBD alone: test_xen_cluster",
    "test_a_first_scsi_disk_can_be_plugged_in": "there is no SCSI",
    "test_a_guest_that_lets_go_of_nothing_runs_into_the_time_limit": "no guest here is stubborn",
    "test_several_are_told_and_each_until_it_has_enough": "another start, LibvirtHost's code",
    "test_who_listens_is_told_that_the_host_was_lost": "LibvirtHost's code",
    "test_a_domain_that_was_cut_did_not_end_itself": "two more starts",
    "test_a_domain_that_its_host_ends_did_not_end_itself": "another start",
    "test_what_nobody_heard_is_not_known": "another start, LibvirtHost's code",
    "test_what_is_started_paused_executes_nothing_until_it_is_resumed": "another start",
    "test_a_cut_vm_is_gone_and_can_be_cut_again": "another start; each test here ends so",
    "test_a_vm_starts_again_after_it_was_cut": "two more starts",
    "test_a_vm_on_a_network_that_the_host_lacks_is_not_started": "only bridges: Unsupported here",
    "test_what_needs_a_running_vm_says_that_it_is_not_there": "half of its verbs are lacking",
    "test_a_network_is_made_once_and_removed_once": "only bridges that are there",
    "test_a_network_is_not_removed_under_a_vm": "only bridges that are there",
    "test_a_host_says_what_keeps_it_from_a_network": "only bridges that are there",
    "test_a_bridge_that_is_missing_is_refused": "its libvirt tells of no interfaces",
    "test_a_screen_is_there_when_it_was_asked_for": "PV guests have no screen",
    "test_a_silent_console_gives_nothing_and_ends_when_closed": "another start",
    "test_a_console_is_one_s_at_a_time": "another start",
    "test_a_console_ends_with_its_vm": "another start",
    "test_a_guest_is_frozen_and_thawed": "PV guests have no agent",
    "test_the_addresses_of_a_guest_are_found": "libvirt's driver for Xen tells of none",
}


@pytest.fixture(scope="module")
def host(xen_lab: Lab) -> Iterator[XenUnderTest]:
    made = XenUnderTest(xen_lab)
    yield made
    made.close()


@pytest.fixture(scope="module")
def idle(host: XenUnderTest) -> tuple[Vm, dict[str, Source]]:
    vm = host.vm("idle", generation=7, disks=(a_disk("root"),))
    sources = {"root": host.volume("root")}
    host.hypervisor.start(vm, sources, {})
    return vm, sources


@pytest.fixture
def booted(host: XenUnderTest) -> Vm:
    return host.booted()


def test_no_program_gets_another_one_s_registers(xen_lab: Lab) -> None:
    """Emulated, Xen must not leave them to whoever had them last: docs/adr/0025."""
    said = on_it(xen_lab, "xl", "dmesg")
    for kind in ("PV", "HVM"):
        assert re.search(rf"Support for {kind} VMs:.* EAGER_FPU", said), said


def test_every_test_of_the_contract_is_accounted_for() -> None:
    everything = {name for name in vars(contract) if name.startswith("test_")}
    assert {*KEPT, *LACKING, *APART} == everything
    assert len(KEPT) + len(LACKING) + len(APART) == len(everything)
    assert set(LACKING.values()) <= LACKS.keys()


def test_a_guest_is_on_the_lab_s_network(xen_lab: Lab, host: XenUnderTest) -> None:
    """Its kernel runs, its disk is read and written, its card works: not only has it been made."""
    booted = host.booted()
    said = says(xen_lab, booted.name, "vorch-guest ready")
    address = said.partition("ip=")[2].split()[0]
    assert address.startswith(xen_lab.spec.management.rpartition(".")[0])
    assert answers(address)
    assert "boot=1" in said
    assert booted.name in row(xen_lab).vms


@pytest.mark.parametrize("name", KEPT)
def test_it_keeps_the_contract(name: str, request: pytest.FixtureRequest) -> None:
    test = getattr(contract, name)
    wanted = inspect.signature(test).parameters
    test(**{one: request.getfixturevalue(one) for one in wanted})


# -- faults


def test_what_xen_destroys_is_gone(
    xen_lab: Lab, host: XenUnderTest, idle: tuple[Vm, dict[str, Source]]
) -> None:
    """By Xen's own tools: libvirt hears of it afterwards, and vorch of libvirt."""
    vm, _ = idle
    assert row(xen_lab).vms == (vm.name,)
    # libvirt notes there what it has Xen start.
    assert "==> /var/log/libvirt/libxl/" in xen_lab.own_logs(XEN, 5)
    assert xen_lab.kill_qemu(XEN, vm.name) == (vm.name,)
    assert host.hypervisor.await_end(vm.id, GUEST_TIMEOUT_S, no_progress)
    assert row(xen_lab).vms == ()


def test_its_faults_are_those_of_every_host_and_heal(xen_lab: Lab) -> None:
    address = xen_lab.spec.management_address(XEN)
    xen_lab.hang(XEN)
    assert row(xen_lab).libvirt == "hung"
    # Its machine lives.
    assert answers(address)
    xen_lab.heal()
    assert row(xen_lab).libvirt == "running"

    xen_lab.cut(XEN, "management")
    assert not answers(address)
    assert answers(xen_lab.spec.storage_address(XEN))
    assert row(xen_lab).management == "cut"
    # The card inside has no carrier, either.
    assert on_it(xen_lab, "cat", "/sys/class/net/eth0/carrier").strip() == "0"
    xen_lab.heal()
    assert answers(address)
    assert on_it(xen_lab, "cat", "/sys/class/net/eth0/carrier").strip() == "1"

    xen_lab.freeze(XEN)
    assert not answers(address)
    assert row(xen_lab).libvirt == "hung"
    xen_lab.heal()
    assert row(xen_lab).libvirt == "running"


def test_a_power_cut_ends_it_at_once_and_it_comes_back_in_seconds(xen_lab: Lab) -> None:
    kept = xen_lab.spec.host_folder(XEN) / "disk" / IMAGES.relative_to("/") / "kept"
    kept.write_text("by the host\n")
    address = xen_lab.spec.management_address(XEN)
    xen_lab.power_off(XEN)
    seen = row(xen_lab)
    assert (seen.power, seen.libvirt, seen.management) == (False, "off", "off")
    assert xen_lab.own_logs(XEN, 5) == ""
    assert not answers(address)
    xen_lab.heal()
    assert row(xen_lab).libvirt == "running"
    assert answers(address)
    assert on_it(xen_lab, "cat", str(IMAGES / "kept")) == "by the host\n"
    xen_lab.reset()
    assert not kept.exists()
    assert row(xen_lab).libvirt == "running"
