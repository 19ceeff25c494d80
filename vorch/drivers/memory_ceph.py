"""The Ceph of the world in memory, as far as writing goes: clients, watchers, blocklist.

What real RBD does and a fence has to reckon with: a client that died is still seen for a while; the
exclusive lock is handed over between clients that live, so it keeps nobody out; an entry in the
blocklist is in force when the new OSD map is everywhere; and a client that was cut off for all of
that time never hears of it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from vorch.drivers.memory_time import wake
from vorch.errors import Unreachable
from vorch.model import CrushBucket, CrushTree, StorageHealth, StoragePlace, StorageStatus
from vorch.ports import Clock

if TYPE_CHECKING:
    from vorch.drivers.memory_machine import MemoryMachine

# How long storage takes to notice that a client is gone.
LAPSE_S = 30.0
# How long a new OSD map takes to every OSD.
MAP_S = 0.5
# How large an OSD says that it is.
OSD_BYTES = 1024**4


def _places(
    tree: CrushTree, at: Iterable[CrushBucket], up: Callable[[int], bool], depth: int = 0
) -> Iterator[StoragePlace]:
    by_id = {one.id: one for one in tree.buckets}
    for one in sorted(at, key=lambda one: one.name):
        yield StoragePlace(id=one.id, name=one.name, type=one.type, depth=depth)
        below = [by_id[child] for child in one.children if child in by_id]
        yield from _places(tree, below, up, depth + 1)
        for osd in sorted(child for child in one.children if child in tree.addresses):
            yield StoragePlace(
                id=osd,
                name=f"osd.{osd}",
                type="osd",
                depth=depth + 1,
                up=up(osd),
                inside=True,
                device_class="ssd",
                weight=1.0,
                size_bytes=OSD_BYTES,
                used_bytes=OSD_BYTES * 4 // 10,
            )


class MemoryClient:
    """A domain as Ceph knows it: one librados client, by its address."""

    def __init__(self, ceph: MemoryCeph, machine: MemoryMachine, address: str) -> None:
        self.ceph = ceph
        self.machine = machine
        self.address = address
        # What an entry may name.
        self._names = (address, address.partition(":")[0])
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
    def blocked(self) -> bool:
        """An entry in the blocklist is in force."""
        listed = self.ceph.blocklist
        if not listed:
            return False
        address, host = self._names
        since = min(listed.get(address, math.inf), listed.get(host, math.inf))
        return since != math.inf and since <= self.ceph.clock.now()

    @property
    def cut_off(self) -> bool:
        """Nothing that it writes reaches a disk."""
        return self.shut_out or self.blocked

    @property
    def can_write(self) -> bool:
        return self.reaches and not self.ceph.stalled and not self.cut_off

    @property
    def seen(self) -> bool:
        """Whether it is among the watchers of what it has open."""
        if self.cut_off:
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
        if not self.shut_out and self.blocked and self.reaches:
            self.shut_out = True
        return self.shut_out


class MemoryCeph:
    """One cluster. `mons`: the machines that have a monitor; none: they are somewhere else."""

    def __init__(self, clock: Clock, machines: Mapping[str, MemoryMachine]) -> None:
        self.clock = clock
        self.machines = machines
        # How often it has changed who reaches whom, and who may write: for those who ask again and
        # again, and need not look while these stay as they are.
        self.reach_changes = 0
        self.writer_changes = 0
        self._mons: tuple[str, ...] = ()
        self._mons_down: frozenset[str] = frozenset()
        self._stalled = False
        self.epoch = 1
        # What it was told of where disks stand.
        self.crush = CrushTree()
        # Since when an entry is in force.
        self.blocklist: dict[str, float] = {}
        self._numbers = itertools.count(1000)

    def client(self, machine: MemoryMachine) -> MemoryClient:
        return MemoryClient(self, machine, f"{machine.storage_address}:0/{next(self._numbers)}")

    @property
    def mons(self) -> tuple[str, ...]:
        return self._mons

    @mons.setter
    def mons(self, machines: tuple[str, ...]) -> None:
        self._mons = machines
        self.reach_changes += 1

    @property
    def mons_down(self) -> frozenset[str]:
        """Monitors that are down though their machine is well."""
        return self._mons_down

    @mons_down.setter
    def mons_down(self, machines: frozenset[str]) -> None:
        self._mons_down = machines
        self.reach_changes += 1

    @property
    def stalled(self) -> bool:
        """Too few OSDs are up: whoever reads or writes waits, and nothing is refused."""
        return self._stalled

    @stalled.setter
    def stalled(self, stalled: bool) -> None:
        self._stalled = stalled
        self.reach_changes += 1

    @property
    def quorum(self) -> bool:
        """More than half of all monitors can talk to each other."""
        if not self.mons:
            return True
        machines, down = self.machines, self.mons_down
        missing = len(self.mons) // 2 + 1
        for name in self.mons:
            if name in down:
                continue
            one = machines.get(name)
            if one is None or not (one.off or one.hung or not one.cables["storage"]):
                missing -= 1
                if not missing:
                    return True
        return False

    @property
    def serves(self) -> bool:
        return self.quorum and not self.stalled

    def status(self) -> tuple[StorageStatus, ...]:
        """As a real one would say it. Where nobody has laid out a tree there is nothing to say."""
        if not self.crush.buckets:
            return ()
        if not self.quorum:
            raise Unreachable("cannot ask Ceph how it is: too few of its monitors are up; wait")
        machines = {one.storage_address: one for one in self.machines.values()}

        def up(osd: int) -> bool:
            there = [machines[at] for at in self.crush.addresses[osd] if at in machines]
            return all(one.runs and one.cables["storage"] for one in there)

        children = {child for one in self.crush.buckets for child in one.children}
        found = [*_places(self.crush, [b for b in self.crush.buckets if b.id not in children], up)]
        osds = [one for one in found if one.type == "osd"]
        down = sum(not one.up for one in osds)
        checks = {"OSD_DOWN": f"{down} osds down"} if down else {}
        if self.stalled:
            checks["PG_AVAILABILITY"] = "Reduced data availability: placement groups inactive"
        return (
            StorageStatus(
                health=StorageHealth(
                    cluster="memory",
                    status="HEALTH_ERR" if self.stalled else "HEALTH_WARN" if down else "HEALTH_OK",
                    checks=checks,
                    monitors=max(1, len(self.mons)),
                    monitors_in_quorum=max(1, len(self.mons) - len(self.mons_down)),
                    osds=len(osds),
                    osds_up=len(osds) - down,
                    osds_in=len(osds),
                    capacity_bytes=OSD_BYTES * len(osds),
                    free_bytes=OSD_BYTES * len(osds) * 6 // 10,
                ),
                places=tuple(found),
            ),
        )

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
                self.writer_changes += 1

    def spread(self) -> None:
        """Every client that is in reach hears of its entry, by its next write."""
        if not self.blocklist:
            return
        for machine in self.machines.values():
            for guest in machine.guests.values():
                guest.hear_of_blocklist()
