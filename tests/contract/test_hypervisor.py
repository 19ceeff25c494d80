"""What every driver of the Hypervisor port does alike."""

from __future__ import annotations

import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import pytest

from tests.contract.hypervisors import HOSTS, MIB, PAIRS, PARAMETERS, Host, a_disk, a_drive
from tests.rfb import Viewer
from vorch.availability import Ending
from vorch.errors import (
    Cancelled,
    Conflict,
    Invalid,
    NotFound,
    TimedOut,
    Unreachable,
    Unsupported,
    VorchError,
)
from vorch.model import Address, Cpu, DiskBus, Network, Nic, Power, Source, Vm, Volume
from vorch.ports import Console, HostSecret, Hypervisor, Progress, no_progress

# A guest may take longer to boot than a test otherwise has.
pytestmark = pytest.mark.timeout(600)

TELLING_TIMEOUT_S = 20.0


@pytest.fixture(scope="module", params=PARAMETERS)
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    made = HOSTS[request.param](request)
    yield made
    made.close()


@pytest.fixture(scope="module")
def idle(host: Host) -> tuple[Vm, dict[str, Source]]:
    """A running VM without a system, for all tests that leave it as it is."""
    vm = host.vm("idle", generation=7, disks=(a_disk("root"), a_drive()))
    sources = {"root": host.volume("root")}
    host.hypervisor.start(vm, sources, {})
    return vm, sources


@contextmanager
def running(host: Host, vm: Vm, sources: dict[str, Source]) -> Iterator[Vm]:
    host.hypervisor.start(vm, sources, {host.network.name: host.network})
    try:
        yield vm
    finally:
        host.hypervisor.cut(vm.id)


# -- the host


def test_its_clock_is_compared_with_ours(host: Host) -> None:
    ahead_s, within_s = host.hypervisor.clock()
    assert abs(ahead_s) <= 1.0 + within_s


def test_what_trials_leave_is_cleared_away(host: Host, idle: tuple[Vm, dict[str, Source]]) -> None:
    """And nothing else is."""
    for _ in range(2):
        host.hypervisor.sweep()
    seen = host.hypervisor.domain(idle[0].id)
    assert seen is not None


def test_a_key_that_it_was_never_given_is_forgotten(host: Host) -> None:
    secret = HostSecret(str(uuid.uuid4()), f"client.{uuid.uuid4()}", "a2V5")
    host.hypervisor.forget_secret(secret)
    host.hypervisor.ensure_secret(secret)
    for _ in range(2):
        host.hypervisor.forget_secret(secret)
    # It can be given again, which a driver that remembers too much would leave out.
    host.hypervisor.ensure_secret(secret)
    host.hypervisor.forget_secret(secret)


def test_hosts_find_the_cpu_that_they_have_in_common(host: Host) -> None:
    more = Cpu(model="Nehalem", vendor="Intel", features={"x2apic": True, "xsave": True})
    less = Cpu(model="Nehalem", vendor="Intel", features={"x2apic": True})
    assert host.hypervisor.common_cpu([more, more]).required >= {"x2apic", "xsave"}
    common = host.hypervisor.common_cpu([more, less])
    assert common.model == "Nehalem"
    assert "x2apic" in common.required
    assert "xsave" not in common.required


def test_what_tries_a_volume_can_be_watched_while_it_is_open(host: Host) -> None:
    source, called = host.volume("watched"), []
    host.hypervisor.try_source("vorch-trial-watched", source, lambda: called.append(1))
    assert called == [1]
    with pytest.raises(NotFound, match="meanwhile"):
        host.hypervisor.try_source("vorch-trial-watched", source, meanwhile)
    # Nothing of it is left.
    names = [domain.name for domain in host.hypervisor.domains()]
    assert "vorch-trial-watched" not in names


def meanwhile() -> None:
    raise NotFound("cannot go on: it has gone meanwhile")


def test_a_host_says_what_it_is(host: Host) -> None:
    facts = host.hypervisor.facts()
    assert facts.cpus >= 1
    assert facts.memory_mib >= 256
    assert facts.architecture
    assert facts.accelerator in ("", "kvm", "tcg", "xen")
    assert host.hypervisor.facts() == facts


def test_findings_have_a_remedy_where_something_is_wrong(host: Host) -> None:
    for check in host.hypervisor.checks():
        assert check.name
        assert check.level == "ok" or check.remedy


def test_subnets_in_use_are_networks(host: Host) -> None:
    import ipaddress

    for subnet in host.hypervisor.used_subnets():
        ipaddress.IPv4Network(subnet)


# -- being told


class Told:
    """Whatever a host tells, in order."""

    def __init__(self) -> None:
        self._all: list[str] = []
        self._news = threading.Condition()

    def __call__(self, vm_id: str) -> None:
        with self._news:
            self._all.append(vm_id)
            self._news.notify_all()

    def forget(self) -> None:
        with self._news:
            self._all.clear()

    def hears_of(self, vm_id: str) -> bool:
        with self._news:
            return self._news.wait_for(lambda: vm_id in self._all, TELLING_TIMEOUT_S)


def test_what_happens_to_domains_is_told(host: Host) -> None:
    vm = host.vm("told")
    told = Told()
    listening = host.hypervisor.events(told)
    try:
        acts: tuple[Callable[[], None], ...] = (
            lambda: host.hypervisor.start(vm, {}, {}),
            lambda: host.hypervisor.pause(vm.id),
            lambda: host.hypervisor.resume(vm.id),
            lambda: host.hypervisor.cut(vm.id),
        )
        for act in acts:
            told.forget()
            act()
            assert told.hears_of(vm.id)
    finally:
        listening.close()
        host.hypervisor.cut(vm.id)


def test_several_are_told_and_each_until_it_has_enough(host: Host) -> None:
    vm = host.vm("told-twice")
    first, second = Told(), Told()
    listening = host.hypervisor.events(first), host.hypervisor.events(second)
    try:
        host.hypervisor.start(vm, {}, {})
        assert first.hears_of(vm.id)
        assert second.hears_of(vm.id)
        listening[0].close()
        listening[0].close()
        first.forget()
        second.forget()
        host.hypervisor.cut(vm.id)
        assert second.hears_of(vm.id)
        assert first._all == []
    finally:
        for one in listening:
            one.close()
        host.hypervisor.cut(vm.id)


def test_who_listens_is_told_that_the_host_was_lost(host: Host) -> None:
    told = Told()
    listening = host.hypervisor.events(told)
    host.lose()
    try:
        assert told.hears_of("")
    finally:
        listening.close()
    # Whoever comes next finds it again.
    host.hypervisor.events(told).close()


# -- how domains end


def ending_of(host: Host, vm: Vm) -> Ending | None:
    """Told a moment after it has ended."""
    for _ in range(100):
        gone = host.hypervisor.domain(vm.id) is None
        ending = host.hypervisor.endings().get(vm.id)
        if gone and ending is not None:
            return ending
        host.let_time_pass(0.1)
    return None


def test_a_domain_that_was_cut_did_not_end_itself(host: Host) -> None:
    vm = host.vm("cut-short")
    assert vm.id not in host.hypervisor.endings()
    with running(host, vm, {}):
        assert vm.id not in host.hypervisor.endings()
        host.hypervisor.cut(vm.id)
        ending = ending_of(host, vm)
        assert ending is not None
        assert not ending.by_guest
        # Of one that runs again nothing is left to be said.
        host.hypervisor.start(vm, {}, {})
        for _ in range(100):
            if vm.id not in host.hypervisor.endings():
                break
            host.let_time_pass(0.1)
        assert vm.id not in host.hypervisor.endings()


def test_a_domain_that_its_host_ends_did_not_end_itself(host: Host) -> None:
    """QEMU ends in good order then, as when its guest powers itself off."""
    vm = host.vm("told-to-end")
    host.hypervisor.endings()
    with running(host, vm, {}):
        host.tell_to_end(vm)
        ending = ending_of(host, vm)
        assert ending is not None
        assert not ending.by_guest


def test_what_nobody_heard_is_not_known(host: Host) -> None:
    vm = host.vm("unheard")
    host.hypervisor.endings()
    with running(host, vm, {}):
        host.hypervisor.cut(vm.id)
        assert ending_of(host, vm) is not None
        host.lose()
        assert vm.id not in host.hypervisor.endings()


# -- starting and ending


def test_a_started_vm_is_seen_as_what_it_is(host: Host, idle: tuple[Vm, dict[str, Source]]) -> None:
    vm, _ = idle
    seen = host.hypervisor.domain(vm.id)
    assert seen is not None
    assert (seen.id, seen.name, seen.node) == (vm.id, vm.name, host.node)
    assert seen.power is Power.RUNNING
    assert (seen.generation, seen.ours) == (7, True)
    assert (seen.vcpus, seen.memory_mib) == (vm.vcpus, vm.memory_mib)
    listed = [one for one in host.hypervisor.domains() if one.id == vm.id]
    assert [replace(one, cpu_time_ns=0) for one in listed] == [replace(seen, cpu_time_ns=0)]


def test_starting_again_changes_nothing(host: Host, idle: tuple[Vm, dict[str, Source]]) -> None:
    vm, sources = idle
    host.hypervisor.start(replace(vm, generation=8), sources, {})
    seen = host.hypervisor.domain(vm.id)
    assert seen is not None
    assert seen.generation == 7


def test_what_is_started_paused_executes_nothing_until_it_is_resumed(host: Host) -> None:
    vm = host.vm("held", disks=(a_disk("root"),))
    sources = {"root": host.volume("root")}
    try:
        for _ in range(2):
            host.hypervisor.start(vm, sources, {}, paused=True)
            seen = host.hypervisor.domain(vm.id)
            assert seen is not None
            assert seen.power is Power.PAUSED
        host.hypervisor.resume(vm.id)
        seen = host.hypervisor.domain(vm.id)
        assert seen is not None
        assert seen.power is Power.RUNNING
    finally:
        host.hypervisor.cut(vm.id)


def test_a_cut_vm_is_gone_and_can_be_cut_again(host: Host) -> None:
    vm = host.vm("cut")
    host.hypervisor.start(vm, {}, {})
    host.hypervisor.cut(vm.id)
    assert host.hypervisor.domain(vm.id) is None
    assert vm.id not in [one.id for one in host.hypervisor.domains()]
    host.hypervisor.cut(vm.id)


def test_a_vm_starts_again_after_it_was_cut(host: Host) -> None:
    vm = host.vm("again", disks=(a_disk("root"),))
    sources = {"root": host.volume("root")}
    for generation in (1, 2):
        with running(host, replace(vm, generation=generation), sources):
            seen = host.hypervisor.domain(vm.id)
            assert seen is not None
            assert seen.generation == generation


def test_a_vm_without_a_place_for_its_disk_is_not_started(host: Host) -> None:
    vm = host.vm("nowhere", disks=(a_disk("root"),))
    with pytest.raises(Invalid):
        host.hypervisor.start(vm, {}, {})
    assert host.hypervisor.domain(vm.id) is None


def test_a_vm_on_a_network_that_nobody_described_is_not_started(host: Host) -> None:
    nic = Nic(name="lan", mac="52:54:00:aa:bb:02", network="nothing")
    vm = host.vm("offline", nics=(nic,))
    with pytest.raises(Invalid):
        host.hypervisor.start(vm, {}, {})
    assert host.hypervisor.domain(vm.id) is None


def test_a_vm_on_a_network_that_the_host_lacks_is_not_started(host: Host) -> None:
    network = Network(name="xml-lacking", kind="isolated", bridge="xmlbr9", dhcp=False)
    nic = Nic(name="lan", mac="52:54:00:aa:bb:03", network=network.name)
    vm = host.vm("lacking", nics=(nic,))
    with pytest.raises(NotFound):
        host.hypervisor.start(vm, {}, {network.name: network})
    assert host.hypervisor.domain(vm.id) is None


def test_two_running_vms_do_not_get_the_same_disk(
    host: Host, idle: tuple[Vm, dict[str, Source]]
) -> None:
    _, sources = idle
    second = host.vm("second", disks=(a_disk("root"),))
    with pytest.raises(Conflict):
        host.start(second, sources)
    assert host.hypervisor.domain(second.id) is None


def test_the_end_is_waited_for(host: Host, idle: tuple[Vm, dict[str, Source]]) -> None:
    vm, _ = idle
    assert host.hypervisor.await_end(vm.id, 0.3, no_progress) is False
    assert host.hypervisor.await_end(str(uuid.uuid4()), 0.3, no_progress) is True


def test_waiting_for_the_end_can_be_cancelled(
    host: Host, idle: tuple[Vm, dict[str, Source]]
) -> None:
    def cancelled(percent: float | None = None, line: str | None = None) -> None:
        raise Cancelled("cannot go on: somebody cancelled it; start it again")

    with pytest.raises(Cancelled):
        host.hypervisor.await_end(idle[0].id, 60.0, cancelled)


def test_pausing_and_resuming_can_be_repeated(
    host: Host, idle: tuple[Vm, dict[str, Source]]
) -> None:
    vm, _ = idle
    for act, expected in (
        (host.hypervisor.pause, Power.PAUSED),
        (host.hypervisor.resume, Power.RUNNING),
    ):
        for _ in range(2):
            act(vm.id)
            seen = host.hypervisor.domain(vm.id)
            assert seen is not None
            assert seen.power is expected


def test_a_reset_vm_runs_on(host: Host, idle: tuple[Vm, dict[str, Source]]) -> None:
    host.hypervisor.reset(idle[0].id)
    seen = host.hypervisor.domain(idle[0].id)
    assert seen is not None
    assert seen.power is Power.RUNNING


# -- moving while it runs


# This machine's libvirt is one host; tests/lab/test_migrate.py has more on the real ones.
with_two_hosts = pytest.mark.parametrize("host", PAIRS, indirect=True, scope="module")


@pytest.fixture
def other(host: Host) -> Hypervisor:
    assert host.other is not None
    return host.other


def move(host: Host, vm: Vm, progress: Progress = no_progress, *, bandwidth_mib_s: int = 0) -> None:
    host.hypervisor.migrate(
        vm,
        host.other_node,
        host.other_uri,
        pause_limit_ms=300,
        bandwidth_mib_s=bandwidth_mib_s,
        progress=progress,
    )


@with_two_hosts
def test_a_vm_that_has_moved_is_on_the_other_host_alone(host: Host, other: Hypervisor) -> None:
    vm = host.vm("moves", disks=(a_disk("root"),))
    sources = {"root": host.volume("root")}
    host.hypervisor.start(vm, sources, {})
    move(host, vm)
    try:
        assert host.hypervisor.domain(vm.id) is None
        seen = other.domain(vm.id)
        assert seen is not None
        assert (seen.power, seen.generation, seen.ours) == (Power.RUNNING, vm.generation, True)
        for hypervisor in (host.hypervisor, other):
            assert hypervisor.migration(vm.id) is None
            hypervisor.migration_abort(vm.id)
        assert other.domain(vm.id) is not None
        # Its disk is taken there now.
        with pytest.raises(Conflict):
            host.start(host.vm("thief", disks=(a_disk("root"),)), sources, on=other)
    finally:
        other.cut(vm.id)


@with_two_hosts
def test_a_vm_that_is_not_there_does_not_move(host: Host, other: Hypervisor) -> None:
    vm = host.vm("absent")
    with pytest.raises(NotFound):
        move(host, vm)
    assert host.hypervisor.migration(vm.id) is None
    host.hypervisor.migration_abort(vm.id)


# A guest with a system has memory that takes its time at this rate.
SLOW_MIB_S = 6


@with_two_hosts
def test_a_move_that_is_cancelled_leaves_the_vm_where_it_is(host: Host, other: Hypervisor) -> None:
    vm = host.booted()

    def cancelled(percent: float | None = None, line: str | None = None) -> None:
        if (host.hypervisor.migration(vm.id), other.migration(vm.id)) == ("out", "in"):
            raise Cancelled("cannot go on: somebody cancelled it; start it again")

    with pytest.raises(Cancelled):
        move(host, vm, cancelled, bandwidth_mib_s=SLOW_MIB_S)
    seen = host.hypervisor.domain(vm.id)
    assert seen is not None
    assert seen.power is Power.RUNNING
    assert other.domain(vm.id) is None
    assert host.hypervisor.migration(vm.id) is None


@with_two_hosts
def test_a_move_can_be_ended_from_outside(host: Host, other: Hypervisor) -> None:
    vm = host.booted()

    def end_it(percent: float | None = None, line: str | None = None) -> None:
        host.hypervisor.migration_abort(vm.id)

    with pytest.raises(VorchError):
        move(host, vm, end_it, bandwidth_mib_s=SLOW_MIB_S)
    seen = host.hypervisor.domain(vm.id)
    assert seen is not None
    assert seen.power is Power.RUNNING
    assert other.domain(vm.id) is None


@with_two_hosts
def test_both_hosts_know_what_a_move_came_to(host: Host, other: Hypervisor) -> None:
    vm = host.vm("told", disks=(a_disk("root"),))
    host.hypervisor.start(vm, {"root": host.volume("root")}, {})
    assert host.hypervisor.moved_figures(vm.id) is None
    told = host.hypervisor.migrate(
        vm,
        host.other_node,
        host.other_uri,
        pause_limit_ms=300,
        bandwidth_mib_s=0,
        progress=no_progress,
    )
    try:
        assert not told.postcopy
        assert told.memory_bytes
        assert told.pause_ms is not None
        seen = other.moved_figures(vm.id)
        assert seen is not None
        assert seen.pause_ms == told.pause_ms
        assert host.hypervisor.moved_figures(vm.id) is None
    finally:
        other.cut(vm.id)


@with_two_hosts
def test_disks_are_copied_along(host: Host, other: Hypervisor) -> None:
    vm = host.vm("carried", disks=(a_disk("root"),))
    old, new = host.volume("old"), host.volume("new")
    host.hypervisor.start(vm, {"root": old}, {})
    host.hypervisor.migrate(
        vm,
        host.other_node,
        host.other_uri,
        pause_limit_ms=300,
        bandwidth_mib_s=0,
        progress=no_progress,
        copies={"root": new},
    )
    try:
        # The new one is taken now, and the old one is free for others.
        with pytest.raises(Conflict):
            host.start(host.vm("thief", disks=(a_disk("root"),)), {"root": new}, on=other)
        heir = host.vm("heir", disks=(a_disk("root"),))
        try:
            host.start(heir, {"root": old})
        finally:
            host.hypervisor.cut(heir.id)
    finally:
        other.cut(vm.id)


def test_how_fast_a_guest_changes_its_memory(host: Host) -> None:
    with running(host, host.vm("changes"), {}) as vm:
        assert host.hypervisor.write_rate_mib_s(vm.id, 1) >= 0
        # Several may ask at once, as whoever compares hosts does.
        with ThreadPoolExecutor(3) as pool:
            asked = [pool.submit(host.hypervisor.write_rate_mib_s, vm.id, 1) for _ in range(3)]
        assert all(one.result() >= 0 for one in asked)
        seen = host.hypervisor.domain(vm.id)
        assert seen is not None
        assert seen.power is Power.RUNNING


NEEDS_A_RUNNING_VM: dict[str, Callable[[Hypervisor, Vm, Source], object]] = {
    "pause": lambda host, vm, at: host.pause(vm.id),
    "resume": lambda host, vm, at: host.resume(vm.id),
    "reset": lambda host, vm, at: host.reset(vm.id),
    "attach": lambda host, vm, at: host.attach_disk(vm, vm.disks[0], at),
    "media": lambda host, vm, at: host.change_media(vm, vm.disks[1], None),
    "grow": lambda host, vm, at: host.grow_disk(vm, vm.disks[0], 2**30),
    "vcpus": lambda host, vm, at: host.set_vcpus(vm.id, 2),
    "memory": lambda host, vm, at: host.set_memory(vm.id, 32),
    "write rate": lambda host, vm, at: host.write_rate_mib_s(vm.id, 1),
    "freeze": lambda host, vm, at: host.freeze(vm.id),
    "snapshot": lambda host, vm, at: host.snapshot(vm, vm.data_disks, "s"),
    "figures": lambda host, vm, at: host.figures(vm, now=1.0),
    "display": lambda host, vm, at: host.display(vm.id),
    "console": lambda host, vm, at: host.console(vm.id),
}


@pytest.mark.parametrize("name", NEEDS_A_RUNNING_VM)
def test_what_needs_a_running_vm_says_that_it_is_not_there(host: Host, name: str) -> None:
    vm = host.vm("absent", disks=(a_disk("root"), a_drive()))
    with pytest.raises(NotFound, match="cannot "):
        NEEDS_A_RUNNING_VM[name](host.hypervisor, vm, host.volume("root"))


# -- devices


def test_a_disk_is_plugged_in_once(host: Host, idle: tuple[Vm, dict[str, Source]]) -> None:
    vm, _ = idle
    extra = a_disk("extra.one_two", "vdb")
    source = host.volume("extra")
    for _ in range(2):
        host.hypervisor.attach_disk(vm, extra, source)
    names = [one.name for one in host.hypervisor.figures(vm, now=5.0).disks]
    assert names.count("extra.one_two") == 1


def test_a_first_scsi_disk_can_be_plugged_in(
    host: Host, idle: tuple[Vm, dict[str, Source]]
) -> None:
    vm, _ = idle
    disk = a_disk("scsi", "sdb", bus=DiskBus.SCSI)
    host.hypervisor.attach_disk(vm, disk, host.volume("scsi"))
    assert "scsi" in [one.name for one in host.hypervisor.figures(vm, now=5.0).disks]


def test_a_guest_that_lets_go_of_nothing_runs_into_the_time_limit(host: Host) -> None:
    vm = host.vm("stubborn", disks=(a_disk("root"),))
    host.stubborn(vm)
    extra = a_disk("extra", "vdb")
    with running(host, vm, {"root": host.volume("root")}):
        host.hypervisor.attach_disk(vm, extra, host.volume("extra"))
        with pytest.raises(TimedOut):
            host.hypervisor.detach_disk(vm, extra, 0.5)
        assert "extra" in [one.name for one in host.hypervisor.figures(vm, now=1.0).disks]


def test_a_disk_that_was_never_there_is_unplugged(
    host: Host, idle: tuple[Vm, dict[str, Source]]
) -> None:
    host.hypervisor.detach_disk(idle[0], a_disk("never", "vdx"), 0.5)
    never = Nic(name="never", mac="52:54:00:aa:bb:04", network=host.network.name)
    host.hypervisor.detach_nic(idle[0], never, 0.5)


def test_cds_are_changed(host: Host, idle: tuple[Vm, dict[str, Source]]) -> None:
    vm, _ = idle
    loaded = a_drive(volume=Volume(pool="p", name="iso"), owned=False)
    first, second = host.volume("first"), host.volume("second")
    for source in (first, first, second):
        host.hypervisor.change_media(vm, loaded, source)
    for _ in range(2):
        host.hypervisor.change_media(vm, a_drive(), None)


def test_only_cd_drives_take_cds(host: Host, idle: tuple[Vm, dict[str, Source]]) -> None:
    vm, _ = idle
    for wrong in (vm.disk("root"), replace(a_drive(), name="other", target="sdc")):
        with pytest.raises(NotFound):
            host.hypervisor.change_media(vm, wrong, host.volume("iso"))


def test_a_disk_grows_and_never_shrinks(host: Host) -> None:
    vm = host.vm("grow", disks=(a_disk("root"),))
    source = host.volume("root")
    with running(host, vm, {"root": source}):
        for _ in range(2):
            host.hypervisor.grow_disk(vm, vm.disk("root"), 32 * MIB)
        with pytest.raises(Invalid):
            host.hypervisor.grow_disk(vm, vm.disk("root"), 16 * MIB)
    assert host.size_of(source) == 32 * MIB


def test_vcpus_and_memory_have_their_limits(host: Host, idle: tuple[Vm, dict[str, Source]]) -> None:
    vm, _ = idle
    for vcpus in (0, vm.vcpus_max + 1):
        with pytest.raises(Invalid):
            host.hypervisor.set_vcpus(vm.id, vcpus)
    for memory_mib in (1, vm.memory_max_mib + 1):
        with pytest.raises(Invalid):
            host.hypervisor.set_memory(vm.id, memory_mib)
    host.hypervisor.set_vcpus(vm.id, vm.vcpus)
    host.hypervisor.set_memory(vm.id, vm.memory_mib)


# -- snapshots


def test_a_guest_without_agent_is_not_frozen(
    host: Host, idle: tuple[Vm, dict[str, Source]]
) -> None:
    assert host.hypervisor.freeze(idle[0].id) is False
    host.hypervisor.thaw(idle[0].id)
    host.hypervisor.thaw(str(uuid.uuid4()))


def test_snapshots_are_inside_all_disks_and_can_be_repeated(host: Host) -> None:
    vm = host.vm("snapshots", disks=(a_disk("root"), a_disk("data", "vdb"), a_drive()))
    sources = {"root": host.file("root"), "data": host.file("data")}
    with running(host, vm, sources):
        # What is left of an attempt that broke off is in one of them only.
        host.hypervisor.snapshot(vm, vm.data_disks[:1], "first")
        for name in ("first", "first", "second"):
            host.hypervisor.snapshot(vm, vm.data_disks, name)
        for _ in range(2):
            host.hypervisor.drop_snapshot(vm, vm.data_disks, "second")
    for source in sources.values():
        assert host.snapshots_of(source) == {"first"}


# -- networks


def test_a_network_is_made_once_and_removed_once(host: Host) -> None:
    network = Network(
        name="xml-made", kind="isolated", bridge="xmlbr1", subnet="10.213.78.0/24", dhcp=True
    )
    for _ in range(2):
        host.hypervisor.ensure_network(network)
    assert "10.213.78.0/24" in host.hypervisor.used_subnets()
    for _ in range(2):
        host.hypervisor.remove_network(network)
    assert "10.213.78.0/24" not in host.hypervisor.used_subnets()


def test_a_network_is_not_removed_under_a_vm(host: Host) -> None:
    network = Network(name="xml-used", kind="isolated", bridge="xmlbr2", dhcp=False)
    host.hypervisor.ensure_network(network)
    nic = Nic(name="lan", mac="52:54:00:aa:bb:05", network=network.name)
    vm = host.vm("user", nics=(nic,))
    try:
        host.hypervisor.start(vm, {}, {network.name: network})
        with pytest.raises(Conflict):
            host.hypervisor.remove_network(network)
    finally:
        host.hypervisor.cut(vm.id)
        host.hypervisor.remove_network(network)


def test_a_host_says_what_keeps_it_from_a_network(host: Host) -> None:
    lack = host.hypervisor.network_lack
    inner = Network(name="xml-inner", kind="isolated", bridge="xmlbr4", dhcp=False)
    assert lack(inner) == ""
    # Nothing was made by asking.
    host.hypervisor.remove_network(inner)
    wire = Network(name="xml-wire", kind="bridge", bridge="nobridge")
    assert "nobridge" in lack(wire)
    other = replace(wire, bridges={host.node: "nobridge2"})
    assert "nobridge2" in lack(other)
    with pytest.raises(Invalid, match="nobridge2"):
        host.hypervisor.ensure_network(other)


def test_a_bridge_that_is_missing_is_refused(host: Host) -> None:
    network = Network(name="xml-wire", kind="bridge", bridge="nobridge")
    with pytest.raises(Invalid):
        host.hypervisor.ensure_network(network)
    host.hypervisor.remove_network(network)


# -- screen and console


def test_a_screen_is_there_when_it_was_asked_for(
    host: Host, idle: tuple[Vm, dict[str, Source]]
) -> None:
    assert host.hypervisor.display(idle[0].id) is None
    with running(host, host.vm("screen", graphics=True), {}) as vm:
        display = host.hypervisor.display(vm.id)
        assert display is not None
        viewer = Viewer(display)
        assert len(viewer.pixels()) == 4 * viewer.width * viewer.height
        viewer.press(0x20)
        # Where libvirt is on this machine, several may look; elsewhere it is one's at a time.
        other = host.hypervisor.display(vm.id, force=True)
        assert other is not None
        Viewer(other)
        display.close()
        display.close()
        with pytest.raises(Unreachable):
            display.read(0.2)
    read_to_its_end(other)
    other.close()


def read_to_its_end(stream: Console) -> None:
    end = time.monotonic() + 10
    with pytest.raises(Unreachable):
        read_until(stream, end)


def read_until(stream: Console, end: float) -> None:
    while time.monotonic() < end:
        stream.read(1.0)


def test_a_silent_console_gives_nothing_and_ends_when_closed(host: Host) -> None:
    with running(host, host.vm("silent"), {}) as vm:
        host.hypervisor.pause(vm.id)
        console = host.hypervisor.console(vm.id)
        assert console.read(0.2) == b""
        console.close()
        console.close()
        with pytest.raises(Unreachable):
            console.read(0.2)
        # It is free for the next one.
        host.hypervisor.console(vm.id).close()


def test_a_console_is_one_s_at_a_time(host: Host) -> None:
    with running(host, host.vm("one-at-a-time"), {}) as vm:
        console = host.hypervisor.console(vm.id)
        with pytest.raises(Conflict):
            host.hypervisor.console(vm.id)
        taken = host.hypervisor.console(vm.id, force=True)
        read_to_its_end(console)
        console.close()
        assert taken.read(0.2) is not None
        taken.close()


def test_a_console_ends_with_its_vm(host: Host) -> None:
    vm = host.vm("ends")
    host.hypervisor.start(vm, {}, {})
    console = host.hypervisor.console(vm.id)
    host.hypervisor.cut(vm.id)

    def read_to_the_end() -> None:
        for _ in range(50):
            console.read(0.2)

    with pytest.raises(Unreachable):
        read_to_the_end()


# -- with a system in the VM


@pytest.fixture
def booted(host: Host) -> Vm:
    return host.booted()


def test_a_console_is_read_and_written(host: Host, booted: Vm) -> None:
    console = host.hypervisor.console(booted.id)
    said = b""
    try:
        console.write(b"\n")
        for _ in range(100):
            said += console.read(0.2)
            if b"login:" in said:
                break
    finally:
        console.close()
    assert b"login:" in said


def test_a_guest_is_frozen_and_thawed(host: Host, booted: Vm) -> None:
    for _ in range(2):
        assert host.hypervisor.freeze(booted.id) is True
    for _ in range(2):
        host.hypervisor.thaw(booted.id)


def test_the_addresses_of_a_guest_are_found(host: Host, booted: Vm) -> None:
    found: tuple[Address, ...] = ()
    for _ in range(20):
        found = host.hypervisor.addresses(booted)
        if any(one.source == "lease" for one in found):
            break
        host.let_time_pass(0.5)
    mine = [one for one in found if one.ip.startswith("10.213.77.")]
    assert mine
    assert {one.mac for one in mine} == {booted.nics[0].mac}
    assert len({(one.mac, one.ip) for one in found}) == len(found)
    assert mine[0].source == "lease"
    assert host.hypervisor.addresses(host.vm("absent")) == ()


def test_a_guest_lets_go_of_a_disk(host: Host, booted: Vm) -> None:
    extra = a_disk("extra", "vdb")
    source = host.volume("extra")
    host.hypervisor.attach_disk(booted, extra, source)
    assert "extra" in [one.name for one in host.hypervisor.figures(booted, now=1.0).disks]
    for _ in range(2):
        host.hypervisor.detach_disk(booted, extra, 30.0)
    assert "extra" not in [one.name for one in host.hypervisor.figures(booted, now=1.0).disks]
    # Nobody has it open any more.
    assert host.size_of(source) == 16 * MIB


def test_a_guest_lets_go_of_a_nic(host: Host, booted: Vm) -> None:
    extra = Nic(name="extra", mac="52:54:00:aa:bb:06", network=host.network.name)
    for _ in range(2):
        host.hypervisor.attach_nic(booted, extra, host.network)
    names = [one.name for one in host.hypervisor.figures(booted, now=1.0).nics]
    assert names.count("extra") == 1
    for _ in range(2):
        host.hypervisor.detach_nic(booted, extra, 30.0)
    assert "extra" not in [one.name for one in host.hypervisor.figures(booted, now=1.0).nics]


def test_a_guest_gets_another_vcpu(host: Host, booted: Vm) -> None:
    host.hypervisor.set_vcpus(booted.id, 2)
    seen = host.hypervisor.domain(booted.id)
    assert seen is not None
    assert seen.vcpus == 2
    try:
        host.hypervisor.set_vcpus(booted.id, 1)
    except (Unsupported, TimedOut):
        return
    seen = host.hypervisor.domain(booted.id)
    assert seen is not None
    assert seen.vcpus == 1


def test_a_guest_gives_memory_back(host: Host, booted: Vm) -> None:
    less = booted.memory_mib - 32
    host.hypervisor.set_memory(booted.id, less)
    memory_mib = 0
    for _ in range(50):
        seen = host.hypervisor.domain(booted.id)
        assert seen is not None
        memory_mib = seen.memory_mib
        if memory_mib == less:
            break
        host.let_time_pass(0.2)
    assert memory_mib == less
    host.hypervisor.set_memory(booted.id, booted.memory_mib)


def test_figures_grow_with_time(host: Host, booted: Vm) -> None:
    first = host.hypervisor.figures(booted, now=10.0)
    host.let_time_pass(1.0)
    second = host.hypervisor.figures(booted, now=11.0)
    assert (first.at, second.at) == (10.0, 11.0)
    assert second.power is Power.RUNNING
    assert second.cpu_time_ns >= first.cpu_time_ns > 0
    assert [one.name for one in second.disks if one.name == "root"] == ["root"]
    assert next(one for one in second.disks if one.name == "root").read_bytes > 0
    assert [one.name for one in second.nics] == ["lan"]


def test_a_guest_shuts_down_when_it_is_asked(host: Host, booted: Vm) -> None:
    ending = None
    for _ in range(3):
        host.hypervisor.endings()
        host.hypervisor.shut_down(booted.id)
        assert host.hypervisor.await_end(booted.id, 60.0, no_progress) is True
        assert host.hypervisor.domain(booted.id) is None
        ending = ending_of(host, booted)
        if ending is None or ending.told != "QEMU died":
            break
        # QEMU 7.2, emulating on a busy machine, now and then falls over its own heap at this point
        # (the kernel's log tells of a fault in its free()). That is no answer to the question.
        warnings.warn(f"QEMU died of itself: {ending}", stacklevel=1)
        booted = host.booted()
    assert ending is not None
    assert ending.by_guest, ending


def test_figures_of_the_host_are_those_of_all_on_it(host: Host, booted: Vm) -> None:
    alone = host.hypervisor.figures(booted, now=5.0)
    found = host.hypervisor.host_figures(now=6.0)
    mine = found.vms[booted.id]
    assert (found.at, mine.at, mine.power) == (6.0, 6.0, alone.power)
    assert mine.cpu_time_ns >= alone.cpu_time_ns
    assert (mine.vcpus, len(mine.disks), len(mine.nics)) == (
        alone.vcpus,
        len(alone.disks),
        len(alone.nics),
    )
    assert sum(one.read_bytes for one in mine.disks) >= sum(one.read_bytes for one in alone.disks)
    assert found.cpus >= 1
    assert 0 < found.memory_used_mib <= found.memory_mib
    assert found.cpu_time_ns > 0
