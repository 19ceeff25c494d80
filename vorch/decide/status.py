"""What a person should be told about a VM: the record and what is seen, put side by side."""

from __future__ import annotations

from vorch.model import WAITS_FOR_DISK, Address, Cluster, Power, Vm, VmStatus


def status(cluster: Cluster, vm: Vm, addresses: tuple[Address, ...] = ()) -> VmStatus:
    domain = cluster.domain(vm)
    power = cluster.power(vm)
    notes: list[str] = []
    if power is Power.UNKNOWN:
        notes.append(f"host {vm.node!r} does not answer: {cluster.silent.get(vm.node, '')}")
    if domain is not None and power in (Power.RUNNING, Power.PAUSED):
        if domain.generation and domain.generation < vm.generation:
            # Only then: while a balloon moves, the memory is not quite what was asked for, either.
            if domain.vcpus != vm.vcpus:
                notes.append(f"runs with {domain.vcpus} vCPUs, {vm.vcpus} at the next start")
            if domain.memory_mib != vm.memory_mib:
                notes.append(
                    f"runs with {domain.memory_mib} MiB, {vm.memory_mib} at the next start"
                )
            if not notes:
                notes.append("has changes that take effect at the next start (vorch restart)")
        if vm.wanted == "stopped":
            notes.append("runs although it was asked to stop")
    if power is Power.STOPPED and vm.wanted == "running":
        notes.append("is off although it should run: its guest shut down, or its host restarted")
    if power is Power.PAUSED and domain is not None and "error" in domain.reason:
        notes.append(f"is paused by an error: {domain.reason}")
    if power is Power.RUNNING and domain is not None and domain.reason == WAITS_FOR_DISK:
        notes.append("runs, but has read nothing from its disk yet: its guest may wait for it")
    silence = cluster.silences.get(vm.node) if power is Power.UNKNOWN else None
    return VmStatus(
        vm=vm,
        power=power,
        domain=domain,
        addresses=addresses,
        notes=tuple(notes),
        silent_since=None if silence is None else silence.since,
    )
