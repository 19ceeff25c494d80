"""The Ceph of the world in memory, as far as writing goes: clients, watchers, blocklist.

What real RBD does and a fence has to reckon with: a client that died is still seen for a while; the
exclusive lock is handed over between clients that live, so it keeps nobody out; an entry in the
blocklist is in force when the new OSD map is everywhere; and a client that was cut off for all of
that time never hears of it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from vorch.drivers.memory_time import wake
from vorch.model import CrushTree
from vorch.ports import Clock

if TYPE_CHECKING:
    from vorch.drivers.memory_machine import MemoryMachine

# How long storage takes to notice that a client is gone.
LAPSE_S = 30.0
# How long a new OSD map takes to every OSD.
MAP_S = 0.5


class MemoryClient:
    """A domain as Ceph knows it: one librados client, by its address."""

    def __init__(self, ceph: MemoryCeph, machine: MemoryMachine, address: str) -> None:
        self.ceph = ceph
        self.machine = machine
        self.address = address
        # It has met the blocklist, and will never write again, whatever becomes of its entry.
        self.shut_out = False
        self.died_at: float | None = None

    @property
    def number(self) -> int:
        return int(self.address.rpartition("/")[2])

    @property
    def reaches(self) -> bool:
        """It is there, and the OSDs are in reach."""
        return self.died_at is None and self.machine.runs and self.machine.cables["storage"]

    @property
    def cut_off(self) -> bool:
        """Nothing that it writes reaches a disk."""
        return self.shut_out or self.ceph.blocked(self.address)

    @property
    def can_write(self) -> bool:
        return self.reaches and not self.ceph.stalled and not self.cut_off

    @property
    def seen(self) -> bool:
        """Whether it is among the watchers of what it has open."""
        if self.shut_out or self.ceph.blocked(self.address):
            return False
        if self.reaches:
            return True
        since = self.machine.lost_at if self.died_at is None else self.died_at
        return self.ceph.clock.now() < since + LAPSE_S

    @property
    def unseen_from(self) -> float:
        """When a client that is gone lapses."""
        since = self.machine.lost_at if self.died_at is None else self.died_at
        return since + LAPSE_S

    def learn(self) -> bool:
        """Whether it has met the blocklist by now."""
        if not self.shut_out and self.reaches and self.ceph.blocked(self.address):
            self.shut_out = True
        return self.shut_out


class MemoryCeph:
    """One cluster. `mons`: the machines that have a monitor; none: they are somewhere else."""

    def __init__(self, clock: Clock, machines: Mapping[str, MemoryMachine]) -> None:
        self.clock = clock
        self.machines = machines
        self.mons: tuple[str, ...] = ()
        # Monitors that are down though their machine is well.
        self.mons_down: set[str] = set()
        # Too few OSDs are up: whoever reads or writes waits, and nothing is refused.
        self.stalled = False
        self.epoch = 1
        # What it was told of where disks stand.
        self.crush = CrushTree()
        # Since when an entry is in force.
        self.blocklist: dict[str, float] = {}
        self._numbers = itertools.count(1000)

    def client(self, machine: MemoryMachine) -> MemoryClient:
        return MemoryClient(self, machine, f"{machine.storage_address}:0/{next(self._numbers)}")

    @property
    def quorum(self) -> bool:
        """More than half of all monitors can talk to each other."""
        if not self.mons:
            return True
        up = 0
        for name in self.mons:
            if name in self.mons_down:
                continue
            machine = self.machines.get(name)
            if machine is None or (machine.runs and machine.cables["storage"]):
                up += 1
                if 2 * up > len(self.mons):
                    return True
        return False

    @property
    def serves(self) -> bool:
        return self.quorum and not self.stalled

    def blocked(self, address: str) -> bool:
        listed = self.blocklist
        if not listed:
            return False
        since = min(listed.get(address, math.inf), listed.get(address.partition(":")[0], math.inf))
        return since <= self.clock.now()

    def block(self, entries: Iterable[str]) -> float:
        """A new map with these entries; the time from which it is in force."""
        new = [entry for entry in entries if entry not in self.blocklist]
        if new:
            self.epoch += 1
            in_force = self.clock.now() + MAP_S
            self.blocklist.update(dict.fromkeys(new, in_force))
            wake(self.clock, in_force, self.spread)
        return max(self.blocklist.values(), default=0.0)

    def unblock(self, entries: Iterable[str]) -> None:
        self.spread()
        for entry in entries:
            if self.blocklist.pop(entry, None) is not None:
                self.epoch += 1

    def spread(self) -> None:
        """Every client that is in reach hears of its entry, by its next write."""
        if not self.blocklist:
            return
        for machine in self.machines.values():
            for guest in machine.guests.values():
                guest.hear_of_blocklist()
