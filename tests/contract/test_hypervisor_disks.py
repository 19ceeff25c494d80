"""The contract of the Hypervisor port, continued: work on disks while their VM runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace

import pytest

from tests.contract.hypervisors import HOSTS, MIB, PARAMETERS, Host, a_disk
from tests.contract.test_hypervisor import running
from vorch.errors import Cancelled, Conflict, NotFound
from vorch.model import IoLimits, Source, Vm
from vorch.ports import Hypervisor, no_progress

LIMITS = IoLimits(iops=500, read_mib_s=20, write_mib_s=10, burst_mib_s=40, burst_s=5)


@pytest.fixture(scope="module", params=PARAMETERS)
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    made = HOSTS[request.param](request)
    yield made
    made.close()


def cancelled(percent: float | None = None, line: str | None = None) -> None:
    raise Cancelled("cannot go on: somebody cancelled")


# -- moving


def test_a_disk_moves_while_its_vm_runs(host: Host) -> None:
    vm = host.vm("moves", disks=(a_disk("root"),))
    disk, old, new = vm.disk("root"), host.volume("root"), host.volume("new")
    seen: list[float] = []
    with running(host, vm, {"root": old}):
        assert host.hypervisor.has_disk_at(vm, disk, old)
        # Once more is no other copy.
        for _ in range(2):
            host.hypervisor.copy_disk(
                vm, disk, new, lambda percent=None, line=None: seen.append(percent or 0.0)
            )
        assert not host.hypervisor.has_disk_at(vm, disk, new)
        host.hypervisor.pause(vm.id)
        for _ in range(2):
            host.hypervisor.switch_disk(vm, disk, new)
        host.hypervisor.resume(vm.id)
        assert host.hypervisor.has_disk_at(vm, disk, new)
        assert not host.hypervisor.has_disk_at(vm, disk, old)
        assert all(0 <= one <= 100 for one in seen)
        host.hypervisor.grow_disk(vm, disk, 32 * MIB)
    assert (host.size_of(old), host.size_of(new)) == (16 * MIB, 32 * MIB)


def test_a_copy_that_is_cancelled_goes_on_until_it_is_ended(host: Host) -> None:
    vm = host.vm("cancels", disks=(a_disk("root"),))
    disk, old, new, third = vm.disk("root"), *(host.volume(name) for name in "abc")
    with running(host, vm, {"root": old}):
        # One that is quicker than the first look is ended all the same.
        with suppress(Cancelled):
            host.hypervisor.copy_disk(vm, disk, new, cancelled)
        with pytest.raises(Conflict):
            host.hypervisor.copy_disk(vm, disk, third, no_progress)
        for _ in range(2):
            host.hypervisor.end_disk_job(vm, disk)
        assert host.hypervisor.has_disk_at(vm, disk, old)
        host.hypervisor.copy_disk(vm, disk, third, no_progress)
        host.hypervisor.end_disk_job(vm, disk)
        assert host.hypervisor.has_disk_at(vm, disk, old)


def test_a_switch_needs_a_copy(host: Host) -> None:
    vm = host.vm("bare", disks=(a_disk("root"),))
    disk, old = vm.disk("root"), host.volume("root")
    with running(host, vm, {"root": old}):
        host.hypervisor.pause(vm.id)
        with pytest.raises(Conflict):
            host.hypervisor.switch_disk(vm, disk, host.volume("new"))
        assert host.hypervisor.has_disk_at(vm, disk, old)


# -- flattening


def test_a_linked_disk_is_flattened_while_its_vm_runs(host: Host) -> None:
    vm = host.vm("flat", disks=(a_disk("root"),))
    disk, base = vm.disk("root"), host.volume("base")
    source = host.linked(base)
    assert host.stands_on_another(source)
    with running(host, vm, {"root": source}):
        for _ in range(2):
            host.hypervisor.flatten_disk(vm, disk, no_progress)
    assert not host.stands_on_another(source)


# -- limits


def test_limits_are_set_and_lifted(host: Host) -> None:
    vm = host.vm("limits", disks=(a_disk("root", limits=LIMITS), a_disk("more", "vdb")))
    disk = vm.disk("root")
    with running(host, vm, {"root": host.volume("root"), "more": host.volume("more")}):
        assert host.limits_of(vm, "root") == LIMITS
        together = replace(disk, limits=IoLimits(mib_s=30, burst_mib_s=60, iops=100))
        for _ in range(2):
            host.hypervisor.limit_disk(vm, together)
        assert host.limits_of(vm, "root") == replace(together.limits, burst_s=1)
        host.hypervisor.limit_disk(vm, replace(disk, limits=IoLimits()))
        assert host.limits_of(vm, "root").none
        assert host.limits_of(vm, "more").none


# -- what is not there

NEEDS_A_RUNNING_VM: dict[str, Callable[[Hypervisor, Vm, Source], object]] = {
    "copy": lambda host, vm, at: host.copy_disk(vm, vm.disks[0], at, no_progress),
    "switch": lambda host, vm, at: host.switch_disk(vm, vm.disks[0], at),
    "look": lambda host, vm, at: host.has_disk_at(vm, vm.disks[0], at),
    "flatten": lambda host, vm, at: host.flatten_disk(vm, vm.disks[0], no_progress),
    "limit": lambda host, vm, at: host.limit_disk(vm, vm.disks[0]),
}


@pytest.mark.parametrize("name", NEEDS_A_RUNNING_VM)
def test_a_vm_or_disk_that_is_not_there(host: Host, name: str) -> None:
    act, there = NEEDS_A_RUNNING_VM[name], host.vm("there", disks=(a_disk("root"),))
    source = host.volume("root")
    absent = host.vm("absent", disks=(a_disk("root"),))
    with pytest.raises(NotFound, match="cannot "):
        act(host.hypervisor, absent, source)
    host.hypervisor.end_disk_job(absent, absent.disks[0])
    with running(host, there, {"root": source}), pytest.raises(NotFound, match="cannot "):
        act(host.hypervisor, replace(there, disks=(a_disk("other", "vdx"),)), source)
