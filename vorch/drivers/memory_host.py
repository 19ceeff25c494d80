"""Hosts of the world in memory: the Hypervisor port without a hypervisor."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from vorch.availability import Ending
from vorch.drivers.memory_events import MemorySubscription
from vorch.drivers.memory_faults import Gate, gated, gated_waiting
from vorch.drivers.memory_guests import Held, MemoryConsole, MemoryGuest
from vorch.drivers.memory_machine import MemoryMachine
from vorch.drivers.memory_moves import MemoryMove
from vorch.drivers.memory_pool import Opening, Stored
from vorch.drivers.memory_screen import MemoryDisplay
from vorch.drivers.memory_time import wait
from vorch.errors import (
    Conflict,
    Invalid,
    NoRoom,
    NotFound,
    TimedOut,
    Unreachable,
    Unsupported,
)
from vorch.model import (
    INITRD_SOURCE,
    KERNEL_SOURCE,
    Address,
    Check,
    Cpu,
    Disk,
    DiskFigures,
    Domain,
    Figures,
    Firmware,
    HostFacts,
    HostFigures,
    MoveFigures,
    Network,
    Nic,
    NicFigures,
    NumaCell,
    Power,
    Source,
    Vm,
)
from vorch.ports import NO_SOURCES, Console, HostSecret, Progress, Subscription

# How often a long wait says that it is still waiting, so that it can be cancelled.
SAY_EVERY_S = 1.0


class MemoryHost:
    """The Hypervisor port on one machine, as one process of the world sees it."""

    def __init__(self, machine: MemoryMachine, gate: Gate) -> None:
        self._machine = machine
        self._gate = gate
        # Since when this process listens.
        self._listens_since: float | None = None

    # -- the host

    @property
    def counts_runs(self) -> bool:
        return self._machine.facts.hypervisor == "xen"

    @gated
    def facts(self) -> HostFacts:
        return self._machine.facts

    @gated_waiting
    def probe(self, progress: Progress) -> HostFacts:
        machine = self._machine
        progress(0.0, "boot something tiny")
        machine.clock.sleep(1.0)
        with machine.faults.lock:
            machine.facts = replace(
                machine.facts,
                accelerator="kvm",
                accelerator_why="guests in memory run at once",
                probed_at=machine.clock.now(),
            )
        progress(100.0)
        return machine.facts

    @gated
    def checks(self, folders: Sequence[str] = ()) -> tuple[Check, ...]:
        return self._machine.findings

    @gated
    def used_subnets(self) -> tuple[str, ...]:
        made = {network.subnet for network in self._machine.networks.values() if network.subnet}
        return (*self._machine.subnets, *sorted(made))

    def close(self) -> None:
        """Nothing is held open."""

    # -- looking

    @gated
    def domains(self) -> tuple[Domain, ...]:
        return tuple(self._domain(guest) for guest in self._machine.settled().values())

    @gated
    def domain(self, vm_id: str) -> Domain | None:
        guest = self._machine.settled().get(vm_id)
        return None if guest is None else self._domain(guest)

    @gated
    def events(self, tell: Callable[[str], None]) -> Subscription:
        return MemorySubscription(self._machine, tell)

    def endings(self) -> Mapping[str, Ending]:
        """Nothing is asked: it has been told."""
        machine = self._machine
        if self._listens_since is None:
            self._listens_since = machine.clock.now()
        since = self._listens_since
        return {vm_id: one for vm_id, one in list(machine.endings.items()) if one.at >= since}

    def _domain(self, guest: MemoryGuest) -> Domain:
        return Domain(
            id=guest.vm.id,
            name=guest.vm.name,
            node=self._machine.name,
            power=guest.power,
            reason=guest.reason,
            vcpus=guest.vcpus,
            memory_mib=guest.memory_mib,
            generation=guest.vm.generation if guest.ours else 0,
            cpu_time_ns=self._cpu_time_ns(guest),
            ours=guest.ours,
            run=guest.run if self.counts_runs else 0,
        )

    def _cpu_time_ns(self, guest: MemoryGuest) -> int:
        load = self._machine.behaviour(guest.vm).cpu_load
        return int(guest.ran_s * guest.vcpus * load * 1e9)

    def _running(self, vm_id: str, what: str) -> MemoryGuest:
        guest = self._machine.settled().get(vm_id)
        if guest is None:
            raise NotFound(
                f"cannot {what} VM {vm_id}: it does not run on {self._machine.name!r}; start it",
                vm=vm_id,
                node=self._machine.name,
            )
        return guest

    # -- starting and ending

    @gated
    def start(
        self,
        vm: Vm,
        sources: Mapping[str, Source],
        networks: Mapping[str, Network],
        *,
        cpu: Cpu | None = None,
        paused: bool = False,
    ) -> None:
        machine = self._machine
        if vm.id in machine.settled():
            return
        for other in machine.guests.values():
            if other.vm.name == vm.name:
                raise Conflict(
                    f"cannot start VM {vm.name!r} on {machine.name!r}: another domain of that name"
                    " runs there; stop or rename that one",
                    vm=vm.name,
                    node=machine.name,
                )
        free = machine.facts.memory_mib - machine.memory_used_mib
        if vm.memory_mib > free:
            raise NoRoom(
                f"cannot start VM {vm.name!r} on {machine.name!r}: it needs {vm.memory_mib} MiB and"
                f" {free} MiB are free; stop another VM or choose another host",
                vm=vm.name,
                node=machine.name,
                needed_mib=vm.memory_mib,
                free_mib=free,
            )
        for nic in vm.nics:
            self._check_network(networks.get(nic.network), nic)
        for name in (KERNEL_SOURCE, INITRD_SOURCE):
            if name in sources:
                machine.find(sources[name])
        client = machine.ceph.client(machine)
        guest = MemoryGuest(vm, machine.name, machine.clock, lambda: machine.behaviour(vm), client)
        try:
            for disk in vm.disks:
                self._open(guest, disk, sources.get(disk.name))
        except BaseException:
            guest.end()
            raise
        for nic in vm.nics:
            guest.nics[nic.name] = (nic, networks[nic.network])
        guest.cpu = cpu
        if vm.firmware is Firmware.UEFI or vm.tpm:
            machine.kept.add(vm.id)
        if paused:
            guest.hold_at_start()
        machine.add(guest)

    def _open(self, guest: MemoryGuest, disk: Disk, source: Source | None) -> Held:
        if source is None and disk.volume is not None:
            raise Invalid(
                f"cannot open disk {disk.name!r} of VM {guest.vm.name!r}: nobody says where it is",
                disk=disk.name,
            )
        found = None if source is None else self._machine.find(source)
        return guest.open(disk, source, found)

    def _check_network(self, network: Network | None, nic: Nic) -> None:
        machine = self._machine
        if network is None:
            raise Invalid(
                f"cannot plug NIC {nic.name!r} in: nobody says what network {nic.network!r} is",
                nic=nic.name,
            )
        there = (
            network.bridge_on(machine.name) in machine.bridges
            if network.kind == "bridge"
            else network.name in machine.networks
        )
        if not there:
            raise NotFound(
                f"cannot plug NIC {nic.name!r} in: network {network.name!r} is not on"
                f" {machine.name!r}; make it there first",
                network=network.name,
                node=machine.name,
            )

    @gated
    def shut_down(self, vm_id: str) -> None:
        self._running(vm_id, "shut down").press_power()

    @gated
    def cut(self, vm_id: str) -> None:
        machine = self._machine
        guest = machine.settled().pop(vm_id, None)
        if guest is not None:
            guest.end()
            if guest.ending is not None:
                machine.endings[vm_id] = guest.ending
            if vm_id in machine.moves:
                machine.moves[vm_id].cut(machine)
            machine.settled()

    # -- moving

    @gated_waiting
    def migrate(
        self,
        vm: Vm,
        node: str,
        uri: str,
        *,
        pause_limit_ms: int,
        bandwidth_mib_s: int,
        progress: Progress,
        postcopy_after_s: float | None = None,
        copies: Mapping[str, Source] = NO_SOURCES,
        elsewhere: Mapping[str, Source] = NO_SOURCES,
        bridges: Mapping[str, str] = {},
        cell: NumaCell | None = None,
        live: bool = True,
    ) -> MoveFigures:
        machine = self._machine
        with machine.faults.lock:
            guest = self._running(vm.id, "move")
            move = machine.moves.get(vm.id)
            if move is None:
                self._check_can_move(guest, machine.peer(node), bridges)
                move = MemoryMove(
                    guest,
                    machine,
                    machine.peer(node),
                    postcopy_after_s=postcopy_after_s,
                    copies=copies,
                    elsewhere=elsewhere,
                    cell=cell,
                    live=live,
                )
            elif move.torn and not move.take_up():
                raise _torn(vm, node)
        self._gate.midway()

        def over() -> bool:
            with machine.faults.lock:
                move.settle()
                return move.over or move.torn

        try:
            while not over():
                progress(move.percent, f"{move.percent:.0f} % of {vm.name} is on {node}")
                left = max(0.0, move.ends_at - machine.clock.now())
                wait(machine.clock, min(left, SAY_EVERY_S), over)
        except (Exception, KeyboardInterrupt, SystemExit):
            with machine.faults.lock:
                if not move.gone_over:
                    move.break_off()
            raise
        if move.torn:
            raise _torn(vm, node)
        if move.stays:
            raise Conflict(
                f"cannot move VM {vm.name!r} to {node!r}: its migration broke off; see whether that"
                " host is well",
                vm=vm.name,
                node=node,
            )
        return move.figures()

    def _check_can_move(
        self, guest: MemoryGuest, target: MemoryMachine, bridges: Mapping[str, str]
    ) -> None:
        vm, what = guest.vm, f"move VM {guest.vm.name!r} to {target.name!r}"
        if target is self._machine:
            raise Invalid(f"cannot {what}: it is there already; choose another host")
        if not target.answers(self._machine):
            raise Unreachable(f"cannot {what}: that host does not answer", node=target.name)
        free = target.facts.memory_mib - target.memory_used_mib
        if guest.memory_mib > free:
            raise NoRoom(
                f"cannot {what}: it needs {guest.memory_mib} MiB and {free} MiB are free there;"
                " choose another host",
                needed_mib=guest.memory_mib,
                free_mib=free,
            )
        for nic, network in guest.nics.values():
            bridge = bridges.get(nic.name, network.bridge_on(self._machine.name))
            there = (
                bridge in target.bridges
                if network.kind == "bridge"
                else network.name in target.networks
            )
            if not there:
                raise NotFound(
                    f"cannot {what}: network {network.name!r} of its NIC {nic.name!r} is not there;"
                    " make it there first",
                    network=network.name,
                    node=target.name,
                )
        if any(other.vm.name == vm.name for other in target.settled().values()):
            raise Conflict(
                f"cannot {what}: a domain of that name runs there; stop or rename that one",
                vm=vm.name,
            )

    @gated
    def migration(self, vm_id: str) -> Literal["in", "out", "torn"] | None:
        self._machine.settled()
        move = self._machine.moves.get(vm_id)
        return None if move is None else move.seen_from(self._machine)

    @gated
    def moved_figures(self, vm_id: str) -> MoveFigures | None:
        return self._machine.arrivals.get(vm_id) if vm_id in self._machine.settled() else None

    @gated_waiting
    def write_rate_mib_s(self, vm_id: str, for_s: int) -> float:
        machine = self._machine
        with machine.faults.lock:
            guest = self._running(vm_id, "measure")
        machine.clock.sleep(for_s)
        return machine.behaviour(guest.vm).writes_mib_s

    @gated_waiting
    def migration_abort(self, vm_id: str) -> None:
        machine = self._machine
        with machine.faults.lock:
            machine.settled()
            move = machine.moves.get(vm_id)
            if move is None or move.source is not machine:
                return
            if not move.gone_over:
                move.break_off()
                return
        wait(machine.clock, max(0.0, move.ends_at - machine.clock.now()), lambda: move.ended)

    @gated_waiting
    def await_end(self, vm_id: str, timeout_s: float, progress: Progress) -> bool:
        machine = self._machine
        clock = machine.clock
        give_up = clock.now() + timeout_s

        def ended() -> bool:
            with machine.faults.lock:
                return vm_id not in machine.settled()

        while not ended():
            left = give_up - clock.now()
            if left <= 0:
                return False
            with machine.faults.lock:
                guest = machine.guests.get(vm_id)
                ends_at = guest.ends_at if guest is not None else None
            if ends_at is not None:
                left = min(left, max(0.0, ends_at - clock.now()))
            wait(clock, min(left, SAY_EVERY_S), ended)
            progress()
        return True

    @gated
    def ensure_secret(self, secret: HostSecret) -> None:
        self._machine.secrets[secret.id] = secret

    @gated
    def forget_secret(self, secret: HostSecret) -> None:
        self._machine.secrets.pop(secret.id, None)

    @gated
    def sweep(self) -> None:
        """Trials in memory leave nothing."""

    @gated
    def hook_lack(self) -> str:
        return ""

    def hook_way(self) -> str:
        return ""

    @gated
    def install_hook(self) -> None:
        """Nothing is needed."""

    @gated
    def remove_hook(self) -> None:
        """Nothing was installed."""

    @gated
    def release_volumes(self) -> tuple[str, ...]:
        """Volumes are open in guests, and closed with them."""
        return ()

    @gated_waiting
    def try_source(
        self, name: str, source: Source, while_open: Callable[[], None] | None = None
    ) -> None:
        machine = self._machine
        with machine.faults.lock:
            _, stored = machine.find(source)
            key = f"{machine.name}/{name}"
            client = machine.ceph.client(machine)
            stored.open_by[key] = Opening(f"{name} on {machine.name}", True, client=client)
        try:
            if while_open is not None:
                while_open()
        finally:
            with machine.faults.lock:
                stored.open_by.pop(key, None)

    @gated
    def clock(self) -> tuple[float, float]:
        return self._machine.clock_ahead_s, 0.0

    @gated
    def try_move(self, identifier: str, uri: str, cpu: Cpu | None = None) -> None:
        target = self._machine.peer(uri.rpartition(":")[2] or self._machine.name)
        what = f"move a test machine from {self._machine.name!r} to {target.name!r}"
        if target.off or target.name in self._machine.out_of_reach:
            raise Unreachable(f"cannot {what}: that host does not answer; see the network")
        theirs = target.facts.host_cpu
        if cpu is not None and theirs is not None and not cpu.required <= theirs.required:
            raise Unsupported(f"cannot {what}: its CPU has not all of {cpu}; use another model")

    @gated
    def common_cpu(self, cpus: Sequence[Cpu]) -> Cpu:
        """The first one's model, with the features that all have."""
        first, *others = cpus
        if any(one.vendor != first.vendor for one in others):
            raise Unsupported("cannot find a CPU that all hosts have: their makers differ")
        every = frozenset(first.features).intersection(*(one.required for one in others))
        return Cpu(
            model=min(one.model for one in cpus),
            vendor=first.vendor,
            features={name: there for name, there in first.features.items() if name in every},
        )

    @gated
    def pause(self, vm_id: str) -> None:
        guest = self._running(vm_id, "pause")
        if guest.power is not Power.PAUSED:
            guest.power, guest.reason = Power.PAUSED, "asked for"

    @gated
    def resume(self, vm_id: str) -> None:
        guest = self._running(vm_id, "resume")
        guest.resume()

    @gated
    def reset(self, vm_id: str) -> None:
        self._running(vm_id, "reset").press_reset()

    # -- devices

    @gated
    def attach_disk(self, vm: Vm, disk: Disk, source: Source | None) -> None:
        guest = self._running(vm.id, "plug a disk into")
        if disk.name in guest.disks:
            return
        for held in guest.disks.values():
            if held.disk.target == disk.target:
                raise Conflict(
                    f"cannot plug disk {disk.name!r} into VM {vm.name!r}: {disk.target} is taken by"
                    f" disk {held.disk.name!r}; choose another target",
                    vm=vm.name,
                    disk=disk.name,
                )
        self._open(guest, disk, source)

    @gated_waiting
    def detach_disk(self, vm: Vm, disk: Disk, timeout_s: float) -> None:
        machine = self._machine
        with machine.faults.lock:
            guest = self._running(vm.id, "unplug a disk from")
            if disk.name not in guest.disks:
                return
        self._await_letting_go(vm, f"disk {disk.name!r}", timeout_s)
        with machine.faults.lock:
            held = guest.disks.pop(disk.name, None)
            if held is not None:
                guest.settle()
                guest.close(held)

    @gated
    def attach_nic(self, vm: Vm, nic: Nic, network: Network) -> None:
        guest = self._running(vm.id, "plug a NIC into")
        if nic.name in guest.nics:
            return
        self._check_network(network, nic)
        guest.nics[nic.name] = (nic, network)

    @gated_waiting
    def detach_nic(self, vm: Vm, nic: Nic, timeout_s: float) -> None:
        machine = self._machine
        with machine.faults.lock:
            guest = self._running(vm.id, "unplug a NIC from")
            if nic.name not in guest.nics:
                return
        self._await_letting_go(vm, f"NIC {nic.name!r}", timeout_s)
        with machine.faults.lock:
            guest.nics.pop(nic.name, None)

    def _await_letting_go(self, vm: Vm, what: str, timeout_s: float) -> None:
        machine = self._machine
        lets_go = wait(machine.clock, timeout_s, lambda: machine.behaviour(vm).lets_go)
        if not lets_go:
            raise TimedOut(
                f"cannot unplug {what} from VM {vm.name!r}: the guest has not let go of it in"
                f" {timeout_s:g} s; see that it is not in use there, or stop the VM",
                vm=vm.name,
                timeout_s=timeout_s,
            )

    @gated
    def change_media(self, vm: Vm, disk: Disk, source: Source | None) -> None:
        guest = self._running(vm.id, "change the CD of")
        held = guest.disks.get(disk.name)
        if held is None or held.disk.device != "cdrom":
            raise NotFound(
                f"cannot change the CD of VM {vm.name!r}: it has no CD drive {disk.name!r}",
                vm=vm.name,
                disk=disk.name,
            )
        if held.source == source:
            return
        if source is not None:
            self._machine.find(source)
        guest.close(held)
        self._open(guest, disk, source)

    @gated
    def forget(self, vm: Vm) -> None:
        if vm.id in self._machine.settled():
            raise Conflict(f"cannot forget VM {vm.name!r}: it is still there; stop it first")
        self._machine.kept.discard(vm.id)

    @gated
    def grow_disk(self, vm: Vm, disk: Disk, size_bytes: int) -> None:
        guest = self._running(vm.id, "grow a disk of")
        held = guest.disks.get(disk.name)
        if held is None or held.stored is None:
            raise NotFound(
                f"cannot grow disk {disk.name!r} of VM {vm.name!r}: it is not plugged in",
                vm=vm.name,
                disk=disk.name,
            )
        if size_bytes < held.stored.size_bytes:
            raise Invalid(
                f"cannot grow disk {disk.name!r} of VM {vm.name!r} to {size_bytes} bytes: it has"
                f" {held.stored.size_bytes} already, and making it smaller would cut data off",
                vm=vm.name,
                disk=disk.name,
            )
        held.stored.size_bytes = size_bytes

    # -- disks that are worked on while the guest runs

    def _held(self, vm: Vm, disk: Disk, what: str) -> tuple[MemoryGuest, Held]:
        guest = self._running(vm.id, what)
        held = guest.disks.get(disk.name)
        if held is None or held.stored is None:
            raise NotFound(
                f"cannot {what} VM {vm.name!r}: disk {disk.name!r} is not plugged in",
                vm=vm.name,
                disk=disk.name,
            )
        return guest, held

    @gated_waiting
    def copy_disk(self, vm: Vm, disk: Disk, source: Source, progress: Progress) -> None:
        with self._machine.faults.lock:
            guest, held = self._held(vm, disk, "copy a disk of")
            if held.job is None:
                guest.begin_job(held, source, self._machine.find(source))
            if held.job is None or held.job.source != source:
                raise Conflict(f"cannot copy disk {disk.name!r} of VM {vm.name!r}: it is busy")
        self._gate.midway()
        self._await_job(vm, held, progress)

    def _await_job(self, vm: Vm, held: Held, progress: Progress) -> None:
        """Until the work on a disk has come to its end, or has broken off with the domain."""
        machine = self._machine
        while True:
            with machine.faults.lock:
                guest = machine.settled().get(vm.id)
                job = held.job
                if guest is None or job is None:
                    raise Conflict(
                        f"cannot go on with disk {held.disk.name!r} of VM {vm.name!r}: the work"
                        " on it has broken off; see whether the VM still runs",
                        vm=vm.name,
                    )
                left = job.ends_at - machine.clock.now()
                if left <= 0:
                    return
                whole = job.ends_at - job.began_at
            progress(100.0 * (1 - left / whole))
            ended = functools.partial(self._is_over, vm, held)
            wait(machine.clock, min(left, SAY_EVERY_S), ended)

    def _is_over(self, vm: Vm, held: Held) -> bool:
        with self._machine.faults.lock:
            return vm.id not in self._machine.settled() or held.job is None

    @gated
    def switch_disk(self, vm: Vm, disk: Disk, source: Source) -> None:
        guest, held = self._held(vm, disk, "switch a disk of")
        if held.source == source:
            return
        if guest.power is not Power.PAUSED:
            raise Conflict(f"cannot switch a disk of VM {vm.name!r}: it must stand still for it")
        if held.job is None or held.job.source != source:
            raise Conflict(f"cannot switch disk {disk.name!r} of VM {vm.name!r}: it has no copy")
        guest.switch(held)

    @gated
    def has_disk_at(self, vm: Vm, disk: Disk, source: Source) -> bool:
        return self._held(vm, disk, "look at a disk of")[1].source == source

    @gated_waiting
    def flatten_disk(self, vm: Vm, disk: Disk, progress: Progress) -> None:
        with self._machine.faults.lock:
            guest, held = self._held(vm, disk, "flatten a disk of")
            stored = held.stored
            if stored is None or stored.base is None:
                return
            if held.job is None:
                guest.begin_job(held, None, None)
        self._gate.midway()
        self._await_job(vm, held, progress)
        with self._machine.faults.lock:
            guest.settle()
            stored.blocks, stored.base = stored.flattened(), None
            guest.end_job(held)

    @gated
    def end_disk_job(self, vm: Vm, disk: Disk) -> None:
        guest = self._machine.settled().get(vm.id)
        held = None if guest is None else guest.disks.get(disk.name)
        if guest is not None and held is not None:
            guest.end_job(held)

    @gated
    def limit_disk(self, vm: Vm, disk: Disk) -> None:
        _, held = self._held(vm, disk, "limit a disk of")
        held.disk = replace(held.disk, limits=disk.limits)

    @gated
    def set_vcpus(self, vm_id: str, vcpus: int) -> None:
        guest = self._running(vm_id, "change the vCPUs of")
        if not 1 <= vcpus <= guest.vm.vcpus_max:
            raise Invalid(
                f"cannot give VM {guest.vm.name!r} {vcpus} vCPUs: it can have 1 to"
                f" {guest.vm.vcpus_max} while it runs; raise its largest number and restart it"
            )
        self._check_takes_more(guest, "vCPUs")
        guest.vcpus = vcpus

    @gated
    def set_memory(self, vm_id: str, memory_mib: int) -> None:
        guest = self._running(vm_id, "change the memory of")
        machine = self._machine
        if not 16 <= memory_mib <= guest.vm.memory_max_mib:
            raise Invalid(
                f"cannot give VM {guest.vm.name!r} {memory_mib} MiB: it can have 16 to"
                f" {guest.vm.memory_max_mib} MiB while it runs; raise its largest memory and"
                " restart it"
            )
        self._check_takes_more(guest, "memory")
        free = machine.facts.memory_mib - machine.memory_used_mib + guest.memory_mib
        if memory_mib > free:
            raise NoRoom(
                f"cannot give VM {guest.vm.name!r} {memory_mib} MiB: {free} MiB are free on"
                f" {machine.name!r}; stop another VM",
                needed_mib=memory_mib,
                free_mib=free,
            )
        guest.memory_mib = memory_mib

    def _check_takes_more(self, guest: MemoryGuest, what: str) -> None:
        if not self._machine.behaviour(guest.vm).takes_more:
            raise Unsupported(
                f"cannot change the {what} of VM {guest.vm.name!r} while it runs: its guest"
                " does not take part; restart it",
                vm=guest.vm.name,
            )

    # -- snapshots

    @gated
    def freeze(self, vm_id: str) -> bool:
        return self._running(vm_id, "freeze").freeze()

    @gated
    def thaw(self, vm_id: str) -> None:
        guest = self._machine.settled().get(vm_id)
        if guest is not None:
            guest.thaw()

    @gated
    def snapshot(self, vm: Vm, disks: Sequence[Disk], snapshot: str) -> None:
        for stored in self._stored(vm, disks, "take a snapshot of"):
            stored.snapshots[snapshot] = (stored.size_bytes, dict(stored.blocks))

    @gated
    def drop_snapshot(self, vm: Vm, disks: Sequence[Disk], snapshot: str) -> None:
        for stored in self._stored(vm, disks, "delete a snapshot of"):
            stored.snapshots.pop(snapshot, None)

    def _stored(self, vm: Vm, disks: Sequence[Disk], what: str) -> list[Stored]:
        guest = self._running(vm.id, what)
        found = []
        for disk in disks:
            held = guest.disks.get(disk.name)
            if held is None or held.stored is None:
                raise NotFound(
                    f"cannot {what} VM {vm.name!r}: disk {disk.name!r} is not plugged in",
                    vm=vm.name,
                    disk=disk.name,
                )
            found.append(held.stored)
        return found

    # -- networks

    @gated
    def ensure_network(self, network: Network, hosts: Mapping[str, str] = {}) -> None:
        machine = self._machine
        # A host without the hook makes a NAT network all the same, and forwards nothing.
        lack = machine.lack(replace(network, forwards=()))
        if lack:
            kind = Invalid if network.kind == "bridge" else Unsupported
            raise kind(
                f"cannot use network {network.name!r} on {machine.name!r}: {lack}",
                network=network.name,
                node=machine.name,
            )
        if network.kind == "bridge":
            return
        machine.networks[network.name] = network
        if network.kind == "overlay":
            machine.overlays[network.name] = dict(hosts)

    @gated
    def network_lack(self, network: Network, hosts: Mapping[str, str] = {}) -> str:
        return self._machine.lack(network)

    @gated
    def remove_network(self, network: Network) -> None:
        machine = self._machine
        users = [
            guest.vm.name
            for guest in machine.settled().values()
            if any(one.name == network.name for _, one in guest.nics.values())
        ]
        if users and network.kind != "bridge":
            raise Conflict(
                f"cannot take network {network.name!r} off {machine.name!r}: {', '.join(users)} use"
                " it; stop them or unplug their NICs",
                network=network.name,
                node=machine.name,
            )
        machine.networks.pop(network.name, None)
        machine.overlays.pop(network.name, None)
        machine.leases.pop(network.name, None)

    @gated
    def addresses(self, vm: Vm) -> tuple[Address, ...]:
        machine = self._machine
        guest = machine.settled().get(vm.id)
        if guest is None or not guest.booted or not machine.behaviour(vm).has_addresses:
            return ()
        found = []
        for nic, network in guest.nics.values():
            leased = machine.lease(network, nic.mac)
            if leased is not None:
                found.append(Address(mac=nic.mac, ip=leased, source="lease"))
            elif network.kind == "bridge" and guest.agent_answers:
                # From a range for examples, by the last byte of the MAC.
                last = int(nic.mac[-2:], 16) % 254 + 1
                found.append(Address(mac=nic.mac, ip=f"198.51.100.{last}", source="agent"))
        return tuple(found)

    # -- figures, screen, console

    @gated
    def figures(self, vm: Vm, *, now: float) -> Figures:
        return self._figures(self._running(vm.id, "measure"), now)

    def _figures(self, guest: MemoryGuest, now: float) -> Figures:
        ran = int(guest.ran_s)
        return Figures(
            at=now,
            power=guest.power,
            vcpus=guest.vcpus,
            cpu_time_ns=self._cpu_time_ns(guest),
            memory_mib=guest.memory_mib,
            memory_used_mib=guest.memory_mib // 3 if guest.booted else None,
            disks=tuple(
                DiskFigures(
                    name=name,
                    read_bytes=held.read_bytes + ran * 4096,
                    written_bytes=held.written_bytes,
                    reads=held.reads + ran,
                    writes=held.writes,
                    allocated_bytes=0 if held.stored is None else held.stored.used_bytes,
                )
                for name, held in guest.disks.items()
            ),
            nics=tuple(
                NicFigures(
                    name=name,
                    received_bytes=ran * 1500,
                    sent_bytes=ran * 750,
                    received_packets=ran * 2,
                    sent_packets=ran,
                )
                for name in guest.nics
            ),
        )

    @gated
    def host_figures(self, *, now: float) -> HostFigures:
        guests = self._machine.settled()
        facts = self._machine.facts
        return HostFigures(
            at=now,
            cpus=facts.cpus,
            cpu_time_ns=sum(map(self._cpu_time_ns, guests.values())),
            memory_mib=facts.memory_mib,
            memory_used_mib=min(
                facts.memory_mib, sum(guest.memory_mib for guest in guests.values())
            ),
            vms={vm_id: self._figures(guest, now) for vm_id, guest in guests.items()},
        )

    @gated
    def display(self, vm_id: str, *, force: bool = False) -> Console | None:
        guest = self._running(vm_id, "show the screen of")
        return MemoryDisplay(guest) if guest.screen else None

    @gated
    def console(self, vm_id: str, *, force: bool = False) -> Console:
        return MemoryConsole(self._running(vm_id, "open the console of"), force=force)


def _torn(vm: Vm, node: str) -> Conflict:
    return Conflict(
        f"cannot move VM {vm.name!r} to {node!r}: its migration broke off after it had gone over;"
        " see whether both hosts are well",
        vm=vm.name,
        node=node,
    )


class MemorySwitch:
    """The PowerSwitch port of one machine."""

    def __init__(self, machine: MemoryMachine, gate: Gate) -> None:
        self._machine = machine
        self._gate = gate

    @gated
    def is_on(self) -> bool:
        return not self._machine.off

    @gated
    def off(self) -> None:
        self._machine.power_off()

    @gated
    def on(self) -> None:
        self._machine.power_on()

    def close(self) -> None:
        """Nothing is held open."""
