"""A host of the world in memory, and what is on it, whoever looks at it.

Tests may look and reach in here; callers of vorch go through the Hypervisor port.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import math
from collections.abc import Callable

from vorch.availability import Ending
from vorch.drivers.memory_ceph import MemoryCeph
from vorch.drivers.memory_faults import Faults
from vorch.drivers.memory_guests import Behaviour, MemoryGuest
from vorch.drivers.memory_moves import MemoryMove
from vorch.drivers.memory_pool import MemoryPool, Stored
from vorch.errors import Unreachable
from vorch.model import (
    Check,
    HostFacts,
    HugePages,
    MoveFigures,
    Network,
    NumaCell,
    Power,
    Source,
    Vm,
    subnet_layout,
)
from vorch.ports import HostSecret

STOPPED = Power.STOPPED

Find = Callable[[Source], tuple[MemoryPool, Stored]]


class MemoryMachine:
    """One host and what is on it, shared by all connections. Tests may look and reach in here."""

    def __init__(
        self,
        name: str,
        *,
        cpus: int,
        memory_mib: int,
        faults: Faults,
        find: Find,
        behaviour: Callable[[Vm], Behaviour],
        peer: Callable[[str], MemoryMachine],
        ceph: MemoryCeph,
        number: int,
    ) -> None:
        self.name = name
        self.ceph = ceph
        self.faults = faults
        self.clock = faults.clock
        self._find = find
        # What is offered by HTTP.
        self.reaches_web = True
        self.behaviour = behaviour
        # Other machines, by name, as this one reaches them.
        self.peer = peer
        self.facts = HostFacts(
            hypervisor="memory",
            cpus=cpus,
            memory_mib=memory_mib,
            accelerator="",
            accelerator_why="nothing was booted yet",
            hypervisor_version="1.0.0",
            cpu_model="memory",
            machines=("q35", "pc"),
            cpu_models=("memory", "qemu64"),
            uefi=True,
            secure_boot=True,
            tpm=True,
            bridge_vlans=True,
        )
        self.bridges = {"br0"}
        self.subnets: tuple[str, ...] = ("192.0.2.0/24",)
        self.findings: tuple[Check, ...] = (
            Check(name="memory", level="ok", detail="a host in memory lacks nothing"),
        )
        self.guests: dict[str, MemoryGuest] = {}
        # VMs of which it keeps the UEFI's variables or the TPM's secrets, running or not.
        self.kept: set[str] = set()
        # How much its clock is ahead of everybody else's.
        self.clock_ahead_s = 0.0
        # Other machines, by name, that it does not reach.
        self.out_of_reach: set[str] = set()
        # VMs on their way here or away from here.
        self.moves: dict[str, MemoryMove] = {}
        # How those came that have come here while they ran.
        self.arrivals: dict[str, MoveFigures] = {}
        self.networks: dict[str, Network] = {}
        # Where an overlay's hosts are, as this one was told last.
        self.overlays: dict[str, dict[str, str]] = {}
        # vorch's network hook is installed; and what listens on ports of the host's own.
        self.hook = True
        self.busy_ports: set[tuple[str, int]] = set()
        self.secrets: dict[str, HostSecret] = {}
        # Address by network and MAC. A guest that comes back gets the one it had.
        self.leases: dict[str, dict[str, str]] = {}
        # Who is told of what happens here, and what they have been told.
        self.tells: list[Callable[[str], None]] = []
        self._told: dict[str, Power] = {}
        # How guests ended, as those heard it who listened then.
        self.endings: dict[str, Ending] = {}
        # From the range for benchmarks of networks, which is on no real one.
        self.storage_address = f"198.18.{number // 256}.{number % 256}"
        self.off = False
        # Everything on it stands still, while its kernel goes on refusing connections.
        self.hung = False
        # Its libvirt does not answer; what it started runs on.
        self.daemon_hung = False
        # Cables: those that are out carry nothing, in neither direction.
        self.cables_in()
        # When it was cut off from its disks, or fell still, last.
        self.lost_at = -math.inf
        # How its BMC is: "well", "hangs", "fails", "lies" (says that it has done it); "" for none.
        self.bmc = ""
        # Told when it loses its power: processes that run on it die with it.
        self.on_power_off: list[Callable[[], None]] = []

    # -- what happens to hosts, for tests

    def run_xen(self) -> None:
        """From now on it is a host with Xen, as far as placement and definitions go."""
        self.facts = dataclasses.replace(
            self.facts,
            hypervisor="xen",
            machines=(),
            xen_kinds=("pv", "pvh", "hvm"),
            cpu_models=(),
            uefi=False,
            secure_boot=False,
            tpm=False,
        )

    def find(self, source: Source) -> tuple[MemoryPool, Stored]:
        """What it opens there, if it can."""
        pool, stored = self._find(source)
        if stored.awaits and not self.reaches_web:
            raise Unreachable(
                f"cannot open {source.path} on {self.name!r}: {stored.awaits} does not answer"
            )
        return pool, stored

    @property
    def target(self) -> str:
        return f"host:{self.name}"

    def lay_out(self, cells: int, *, pages_mib: int = 0, size_kib: int = 2048) -> None:
        """So many NUMA cells, each with its part of the host and so many MiB as huge pages."""
        pages = (HugePages(size_kib=size_kib, memory_mib=pages_mib),) if pages_mib else ()
        self.facts = dataclasses.replace(
            self.facts,
            cells=tuple(
                NumaCell(
                    number=number,
                    cpus=self.facts.cpus // cells,
                    memory_mib=self.facts.memory_mib // cells,
                    pages=pages,
                    cpu_set=_cpu_set(number, self.facts.cpus // cells),
                )
                for number in range(cells)
            ),
        )

    def power_off(self) -> None:
        """All domains are gone, and nothing answers."""
        with self.faults.lock:
            self._end_all()
            self.off = True
            self._reach_changes()
            self.lose_connections()
            for told in self.on_power_off:
                told()

    def power_on(self) -> None:
        """It comes back as transient domains leave it: knowing nothing."""
        self.off = self.hung = self.daemon_hung = False
        self._reach_changes()

    def _reach_changes(self) -> None:
        self.ceph.reach_changes += 1
        self.ceph.writer_changes += 1

    def restart(self) -> None:
        with self.faults.lock:
            self._end_all()
            self.lose_connections()
        self.power_on()

    def add_foreign(self, vm: Vm) -> MemoryGuest:
        """A domain that somebody else made on this host."""
        client = self.ceph.client(self)
        guest = MemoryGuest(vm, self.name, self.clock, lambda: Behaviour(), client)
        guest.ours = False
        self.add(guest)
        return guest

    def add(self, guest: MemoryGuest) -> None:
        self.guests[guest.vm.id] = guest
        self.ceph.writer_changes += 1
        self.endings.pop(guest.vm.id, None)
        guest.on_change = self.announce
        self.announce()

    # -- who is told

    def announce(self) -> None:
        """Tell what has changed. A silent host tells it when it is heard again."""
        if not self.tells or self.faults.silenced(self.target) or not self.answers(None):
            return
        now = {vm_id: guest.power for vm_id, guest in list(self.guests.items())}
        before, self._told = self._told, now
        for vm_id in before.keys() | now.keys():
            if before.get(vm_id) != now.get(vm_id):
                for tell in list(self.tells):
                    tell(vm_id)

    def tell_of_changes(self, tell: Callable[[str], None]) -> None:
        """From now on. What was before is nothing new."""
        self.announce()
        if not self.tells:
            self._told = {vm_id: guest.power for vm_id, guest in self.guests.items()}
        self.tells.append(tell)

    def lose_connections(self) -> None:
        """All that listen have to come again."""
        self.endings.clear()
        tells, self.tells = self.tells, []
        for tell in tells:
            tell("")

    def cut(self, network: str) -> None:
        """Pull its cable out of a network: "management" or "storage"."""
        if network == "storage" and self.cables["storage"] and self.runs:
            self.lost_at = self.clock.now()
        self.cables[network] = False
        self._reach_changes()

    def mend(self, network: str) -> None:
        self.cables[network] = True
        self._reach_changes()
        self.ceph.spread()

    def cables_in(self) -> None:
        self.cables = {"management": True, "storage": True}
        self._reach_changes()

    def hang(self, hung: bool = True) -> None:
        """Let everything on it stand still, or go on."""
        if hung and self.runs and self.cables["storage"]:
            self.lost_at = self.clock.now()
        self.hung = hung
        self._reach_changes()
        if not hung:
            self.ceph.spread()

    @property
    def runs(self) -> bool:
        """What is on it goes on by itself."""
        return not (self.off or self.hung)

    def connected(self, home: MemoryMachine | None, network: str) -> bool:
        """Whether packets come here from there (None: from outside, where all is well)."""
        if home is self:
            return True
        return self.cables[network] and (home is None or home.cables[network])

    def answers(self, home: MemoryMachine | None) -> bool:
        """Whether its libvirt answers somebody there."""
        if self.off or self.hung or self.daemon_hung:
            return False
        return self.connected(home, "management")

    def _end_all(self) -> None:
        for move in list(self.moves.values()):
            move.settle()
            if move.gone_over:
                move.lose(self)
            else:
                move.break_off()
        for guest in self.guests.values():
            guest.settle()
            guest.end(cleanly=False)
        self.guests.clear()

    def settled(self) -> dict[str, MemoryGuest]:
        """The guests as they are now; those that have ended are gone."""
        for move in list(self.moves.values()):
            move.settle()
        for guest in list(self.guests.values()):
            guest.settle()
            if guest.power is STOPPED:
                self.guests.pop(guest.vm.id, None)
                if guest.ending is not None:
                    self.endings[guest.vm.id] = guest.ending
        self.announce()
        return self.guests

    @property
    def memory_used_mib(self) -> int:
        return sum(guest.memory_mib for guest in self.settled().values())

    def lack(self, network: Network) -> str:
        """Why it cannot have the network; "" when it can."""
        bridge = network.bridge_on(self.name)
        if network.kind == "bridge":
            there = ", ".join(sorted(self.bridges)) or "none"
            return (
                ""
                if bridge in self.bridges
                else f"there is no bridge {bridge!r}; make it, or name one of {there}"
            )
        if not self.facts.networks:
            return "this host cannot make networks; use a bridge"
        if (network.kind == "overlay" or network.forwards) and not self.hook:
            return "vorch's network hook is not there; install it there (vorch node hook)"
        for one in network.forwards:
            if (one.protocol, one.host_port) in self.busy_ports:
                return (
                    f"port {one.host_port}/{one.protocol} is in use on it by a program of its own"
                )
        return ""

    def forwarded(self) -> set[tuple[str, int]]:
        """The ports that lead to guests that are here now."""
        here = {nic.mac for guest in self.settled().values() for nic, _ in guest.nics.values()}
        return {
            (one.protocol, one.host_port)
            for network in self.networks.values()
            for one in network.forwards
            if self.hook and one.mac in here
        }

    def lease(self, network: Network, mac: str) -> str | None:
        known = self.networks.get(network.name, network)
        if mac in known.reserved:
            return known.reserved[mac]
        if network.subnet is None or not network.dhcp:
            return None
        given = self.leases.setdefault(network.name, {})
        if mac not in given:
            _, _, first, last = subnet_layout(network.subnet)
            address = ipaddress.IPv4Address(first)
            while str(address) in given.values():
                address += 1
            if address > ipaddress.IPv4Address(last):
                return None
            given[mac] = str(address)
        return given[mac]


def _cpu_set(number: int, cpus: int) -> str:
    """The processors of one cell, where each has as many."""
    return f"{number * cpus}-{(number + 1) * cpus - 1}"
