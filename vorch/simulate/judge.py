"""Looks on while a simulation runs, and ends it when something happens that never may."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from vorch.availability import NodeRecord, NodeState
from vorch.drivers.memory import MemoryGuest, MemoryWorld
from vorch.drivers.memory_machine import MemoryMachine
from vorch.drivers.memory_pool import Stored
from vorch.errors import StepFailed
from vorch.model import Check, Node, Power
from vorch.plan import FenceNode, Journal, StartDomain
from vorch.ports import Fencer, Progress

# On: named once, since they are compared with hundreds of thousands of times a minute.
ON = RUNNING, STOPPING = Power.RUNNING, Power.STOPPING
# A host that was well again for so short a time may be taken for what it was at the last look.
LATE_S = 10.0


class Violation(StepFailed):
    """Something happened that never may: two copies, a start without proof, a needless fence."""


class JudgedFencer:
    """A fencer, and the judge beside it."""

    def __init__(self, fencer: Fencer, judge: Judge) -> None:
        self._fencer = fencer
        self._judge = judge
        self.name = fencer.name
        self.by_address = fencer.by_address

    def covers(self, node: Node) -> bool:
        return self._fencer.covers(node)

    def fence(self, node: Node, clients: Sequence[str], progress: Progress) -> str:
        self._judge.fences(node.name)
        proof = self._fencer.fence(node, clients, progress)
        if self._fencer.by_address:
            self._judge.left_no_lock(node.name)
        return proof

    def unfence(self, node: Node, clients: Sequence[str]) -> None:
        self._fencer.unfence(node, clients)

    def drill(self, nodes: Sequence[Node], progress: Progress) -> tuple[Check, ...]:
        return self._fencer.drill(nodes, progress)


class Judge:
    """Knows the world itself, not what vorch believes of it."""

    def __init__(self, world: MemoryWorld) -> None:
        self.world = world
        self._found: Violation | None = None
        # After how many changes of who may write it has looked last.
        self._looked_at = -1
        # Since when each fenced host is so.
        self._fenced: dict[str, float] = {}
        # VMs that ran on a host when it was lost.
        self._lost: dict[str, str] = {}
        # Since when each host is well, of those that were not.
        self._well_since: dict[str, float] = {}
        # The records of hosts as they were read last, by their versions.
        self._records: dict[str, tuple[int, NodeRecord]] = {}

    def _say(self, what: str) -> Violation:
        """Kept, since one that is raised within a plan ends only that plan."""
        self._found = self._found or Violation(f"{what} (at {self.world.clock.now():.1f})")
        return self._found

    # -- the world, at any moment

    @property
    def has_nothing_new(self) -> bool:
        """Nobody may write who did not when it looked last: time alone only cuts writers off."""
        return self._looked_at == self.world.ceph.writer_changes

    def look(self) -> None:
        """Nothing was found before; no disk has two writers, and no VM runs twice."""
        if self._found is not None:
            raise self._found
        if self.has_nothing_new:
            return
        self._looked_at = self.world.ceph.writer_changes
        running: list[tuple[MemoryMachine, MemoryGuest]] = []
        writing: list[tuple[Stored, MemoryGuest]] = []
        listed = bool(self.world.ceph.blocklist)
        for machine in self.world.machines.values():
            reached = not (machine.off or machine.hung) and machine.cables["storage"]
            for guest in machine.guests.values():
                power, client = guest.power, guest.client
                if power is not RUNNING and power is not STOPPING:
                    continue
                if client.shut_out or (listed and client.cut_off):
                    # It may believe that it runs; nothing that it does reaches its disks.
                    continue
                running.append((machine, guest))
                if not reached:
                    continue
                for held in guest.disks.values():
                    if held.stored is not None and held.disk.device == "disk":
                        writing.append((held.stored, guest))
        # Who it is that is there twice, is asked when there is one.
        if len({guest.vm.id for _, guest in running}) < len(running):
            self._runs_twice(running)
        if len({id(stored) for stored, _ in writing}) < len(writing):
            self._written_twice(writing)

    def _runs_twice(self, running: Iterable[tuple[MemoryMachine, MemoryGuest]]) -> None:
        seen: dict[str, MemoryMachine] = {}
        for machine, guest in running:
            other = seen.setdefault(guest.vm.id, machine)
            if other is not machine:
                raise self._say(f"{guest.vm.name} runs on {other.name} and on {machine.name}")

    def _written_twice(self, writing: Iterable[tuple[Stored, MemoryGuest]]) -> None:
        seen: dict[int, MemoryGuest] = {}
        for stored, guest in writing:
            first = seen.setdefault(id(stored), guest)
            if first is not guest:
                raise self._say(_two_writers(stored.name, first, guest))

    def switched(self, host: str, on: bool) -> None:
        """A host was lost, by its power or its cables, or is there again."""
        self._well_since[host] = self.world.clock.now() if on else math.inf
        if on:
            self._lost = {vm: one for vm, one in self._lost.items() if one != host}
            return
        for guest in self.world.host(host).guests.values():
            self._lost[guest.vm.name] = host

    # -- what vorch is about to do

    def hook(self, point: str, journal: Journal, *, leads: bool = True) -> None:
        """`leads`: what its process does will count. Else it is refused before it does anything.

        That it is, is seen by what runs: no VM ever runs twice.
        """
        if point not in ("before", "after") or journal.direction != "forward":
            return
        step = journal.plan.steps[journal.position]
        if point == "after":
            self.look()
            if isinstance(step, FenceNode) and leads:
                self._is_fenced(step.node.name)
        elif isinstance(step, StartDomain) and leads:
            self._starts(step)

    def fences(self, host: str) -> None:
        """A host that is well is not to be touched. Asked at the very moment."""
        machine = self.world.host(host)
        # A call that it answered without being heard is a sign of trouble as well.
        unheard = self.world.faults.met_at.get(f"host:{host}", -math.inf)
        since = max(unheard, self._well_since.get(host, -math.inf))
        well = machine.answers(None) and all(machine.cables.values())
        if well and self.world.clock.now() - since > LATE_S:
            raise self._say(f"{host} is well, and is fenced")

    def left_no_lock(self, host: str) -> None:
        """Of those that are cut off none may hold a lock that the next one would have to break."""
        for pool in self.world.pools.values():
            for stored in pool.volumes.values():
                owner = stored.lock
                if owner is not None and owner.machine.name == host and owner.cut_off:
                    raise self._say(f"{host} counts as cut off, and has the lock of {stored.name}")

    def _is_fenced(self, host: str) -> None:
        for guest in self.world.host(host).guests.values():
            if guest.can_write:
                raise self._say(f"{host} counts as cut off, and {guest.vm.name} writes there")

    def _starts(self, step: StartDomain) -> None:
        """What ran on a lost host starts elsewhere only when that is proven cut off."""
        host = self._lost.pop(step.vm.name, None)
        if host is None or host == step.vm.node or self._proven(host):
            return
        machine = self.world.host(host)
        # One that was stopped there in good order is nobody's danger.
        if machine.off or step.vm.id in machine.guests:
            raise self._say(f"{step.vm.name} starts on {step.vm.node} before {host} is cut off")

    def _proven(self, host: str) -> bool:
        record = self._record(host)
        return record is not None and (
            record.proven or record.state in (NodeState.FENCED, NodeState.DOWN)
        )

    def _record(self, host: str) -> NodeRecord | None:
        key = f"hanode/{host}"
        version = self.world.store.version(key)
        if not version:
            return None
        known = self._records.get(host)
        if known is None or known[0] != version:
            record = self.world.store.document(key).read(NodeRecord)
            known = self._records[host] = (version, record)
        return known[1]

    def fence_is_new(self, host: str) -> bool:
        """Whether that host's present fencing was not asked about before."""
        record = self._record(host)
        assert record is not None
        new = self._fenced.get(host) != record.since
        self._fenced[host] = record.since
        return new


def _two_writers(volume: str, one: MemoryGuest, other: MemoryGuest) -> str:
    return (
        f"two can write to one disk: {volume}: {one.vm.name} on {one.host} and {other.vm.name} on"
        f" {other.host}"
    )
