"""A host of the world in memory, and what is on it, whoever looks at it.

Tests may look and reach in here; callers of vorch go through the Hypervisor port.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

from vorch.drivers.memory_faults import Fault, Faults
from vorch.drivers.memory_guests import Behaviour, MemoryGuest
from vorch.drivers.memory_moves import MemoryMove
from vorch.drivers.memory_pool import MemoryPool, Stored
from vorch.model import Check, HostFacts, Network, Power, Source, Vm, subnet_layout
from vorch.ports import HostSecret

FIRST_DISPLAY_PORT = 5900

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
        address: str,
    ) -> None:
        self.name = name
        # Where its storage traffic comes from.
        self.address = address
        self.faults = faults
        self.clock = faults.clock
        self.find = find
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
        # VMs on their way here or away from here.
        self.moves: dict[str, MemoryMove] = {}
        self.networks: dict[str, Network] = {}
        self.secrets: dict[str, HostSecret] = {}
        # Address by network and MAC. A guest that comes back gets the one it had.
        self.leases: dict[str, dict[str, str]] = {}
        self._off: Fault | None = None
        # Who is told of what happens here, and what they have been told.
        self.tells: list[Callable[[str], None]] = []
        self._told: dict[str, Power] = {}

    # -- what happens to hosts, for tests

    @property
    def target(self) -> str:
        return f"host:{self.name}"

    def power_off(self) -> None:
        """All domains are gone, and nothing answers."""
        with self.faults.lock:
            self._end_all()
            if self._off is None:
                self._off = self.faults.silence(self.target)
            self.lose_connections()

    def power_on(self) -> None:
        """It comes back as transient domains leave it: knowing nothing."""
        if self._off is not None:
            self.faults.lift(self._off)
            self._off = None

    def restart(self) -> None:
        with self.faults.lock:
            self._end_all()
            self.lose_connections()
        self.power_on()

    def add_foreign(self, vm: Vm) -> MemoryGuest:
        """A domain that somebody else made on this host."""
        guest = MemoryGuest(vm, self.name, self.clock, lambda: Behaviour())
        guest.ours = False
        self.add(guest)
        return guest

    def add(self, guest: MemoryGuest) -> None:
        self.guests[guest.vm.id] = guest
        guest.on_change = self.announce
        self.announce()

    # -- who is told

    def announce(self) -> None:
        """Tell what has changed. A silent host tells it when it is heard again."""
        if self.faults.silenced(self.target):
            return
        now = {vm_id: guest.power for vm_id, guest in list(self.guests.items())}
        before, self._told = self._told, now
        for vm_id in before.keys() | now.keys():
            if before.get(vm_id) != now.get(vm_id):
                for tell in list(self.tells):
                    tell(vm_id)

    def lose_connections(self) -> None:
        """All that listen have to come again."""
        tells, self.tells = self.tells, []
        for tell in tells:
            tell("")

    @property
    def off(self) -> bool:
        return self._off is not None

    def _end_all(self) -> None:
        for move in list(self.moves.values()):
            move.settle()
            move.break_off()
        for guest in self.guests.values():
            guest.settle()
            guest.end()
        self.guests.clear()

    def settled(self) -> dict[str, MemoryGuest]:
        """The guests as they are now; those that have ended are gone."""
        for move in list(self.moves.values()):
            move.settle()
        for guest in list(self.guests.values()):
            guest.settle()
            if guest.ended:
                self.guests.pop(guest.vm.id, None)
        self.announce()
        return self.guests

    @property
    def memory_used_mib(self) -> int:
        return sum(guest.memory_mib for guest in self.settled().values())

    def free_display_port(self) -> int:
        taken = {guest.display_port for guest in self.guests.values()}
        return next(port for port in range(FIRST_DISPLAY_PORT, 65536) if port not in taken)

    def lease(self, network: Network, mac: str) -> str | None:
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
