"""Live migrations of the world in memory: a VM on its way from one machine to another.

Like libvirt's own they go on by themselves when whoever asked for them has died, and when one of
the machines dies the other clears its half away. One that has gone over (post-copy) runs on the
target while the source has memory that it needs: from then on neither can do without the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from vorch.drivers.memory_guests import MemoryGuest
from vorch.drivers.memory_pool import MemoryPool, Stored
from vorch.drivers.memory_time import wake
from vorch.model import MIB, MoveFigures, NumaCell, Power, Source
from vorch.ports import NO_SOURCES

if TYPE_CHECKING:
    from vorch.drivers.memory_machine import MemoryMachine

# What a domain that is still arriving shows.
ARRIVING = "it is being migrated"
SENT = "its memory is being sent"
TORN = "its migration broke off after it had gone over"
PAUSE_MS = 40

Place = tuple[MemoryPool, Stored]


class MemoryMove:
    """One VM on its way. Over at its end, or when it is broken off."""

    def __init__(
        self,
        guest: MemoryGuest,
        source: MemoryMachine,
        target: MemoryMachine,
        *,
        postcopy_after_s: float | None = None,
        copies: Mapping[str, Source] = NO_SOURCES,
        elsewhere: Mapping[str, Source] = NO_SOURCES,
        cell: NumaCell | None = None,
        live: bool = True,
    ) -> None:
        self.guest = guest
        self.source = source
        self.target = target
        self.over = False
        self.torn = False
        self.gone_over = False
        self.began_at = source.clock.now()
        self.ends_at = self.began_at + source.behaviour(guest.vm).migrate_s
        self.goes_over_at: float | None = None
        if postcopy_after_s is not None and self.began_at + postcopy_after_s < self.ends_at:
            self.goes_over_at = self.began_at + postcopy_after_s
        self.copies = {name: (where, target.find(where)) for name, where in copies.items()}
        self.elsewhere = {name: (where, target.find(where)) for name, where in elsewhere.items()}
        client = target.ceph.client(target)
        self.cell = None if cell is None else cell.number
        self.incoming = MemoryGuest(guest.vm, target.name, target.clock, guest.behaviour, client)
        self.incoming.hold(ARRIVING)
        for name, disk in guest.disks.items():
            found = None if disk.pool is None or disk.stored is None else (disk.pool, disk.stored)
            if name in self.copies:
                # Nobody else has it open, and nobody else may.
                self.incoming.open(disk.disk, *self.copies[name])
            elif name in self.elsewhere:
                self.incoming.open(disk.disk, *self.elsewhere[name])
            else:
                self.incoming.open(disk.disk, disk.source, found, handed_over=True)
        self.incoming.nics = dict(guest.nics)
        self._stands = not live and guest.power is Power.RUNNING
        if self._stands:
            guest.hold(SENT)
        source.moves[guest.vm.id] = target.moves[guest.vm.id] = self
        target.add(self.incoming)
        for when in (self.goes_over_at, self.ends_at):
            if when is not None:
                wake(source.clock, when, self.settle)

    @property
    def percent(self) -> float:
        whole = self.ends_at - self.began_at
        done = 100.0 * (self.source.clock.now() - self.began_at) / whole if whole else 100.0
        return min(100.0, done)

    def seen_from(self, machine: MemoryMachine) -> Literal["in", "out", "torn"]:
        if self.torn:
            return "torn"
        return "out" if machine is self.source else "in"

    def settle(self) -> None:
        """Catch up with the clock."""
        if self.over or self.torn:
            return
        self.guest.settle()
        now = self.source.clock.now()
        if self.guest.ended or (self.incoming.ended and not self.gone_over):
            self.break_off()
            return
        if self.goes_over_at is not None and not self.gone_over and now >= self.goes_over_at:
            self._go_over()
        if now >= self.ends_at:
            self._arrive()

    def break_off(self) -> None:
        """The VM stays where it is, if it still is and has not gone over. Safe to repeat."""
        if self.over:
            return
        if self.gone_over:
            self.tear()
            return
        self._close()
        self._go_on()
        self.incoming.end()
        self.target.guests.pop(self.guest.vm.id, None)
        self.target.announce()

    def tear(self) -> None:
        """Neither half can go on: each has memory that the other one lacks."""
        self.torn = True
        if not self.guest.ended:
            self.guest.hold(TORN)

    def lose(self, machine: MemoryMachine) -> None:
        """That machine has lost its half. What the other one has is of no more use."""
        self.tear()
        machine.moves.pop(self.guest.vm.id, None)

    def cut(self, machine: MemoryMachine) -> None:
        """Somebody ends that machine's half."""
        if self.torn:
            self.lose(machine)
        else:
            self.settle()

    def take_up(self) -> bool:
        """Join the halves again, where both are still there."""
        vm_id = self.guest.vm.id
        both = all(machine.moves.get(vm_id) is self for machine in (self.source, self.target))
        if not (self.torn and both and self.source.behaviour(self.guest.vm).joins):
            return False
        self.torn = False
        self.guest.power, self.guest.reason = Power.RUNNING, "migrated"
        return True

    def _go_over(self) -> None:
        self.gone_over = True
        self._swap()
        left = self.incoming
        left.host, left.client = self.source.name, self.source.ceph.client(self.source)
        left.power, left.reason = Power.PAUSED, ARRIVING
        left.disks.clear()
        self.source.add(left)

    def _arrive(self) -> None:
        if not self.gone_over:
            self._swap()
        self._close()
        self._go_on()
        self.source.guests.pop(self.guest.vm.id, None)
        self.target.arrivals[self.guest.vm.id] = self.figures()

    def _swap(self) -> None:
        """From here on it runs on the target."""
        client = self.incoming.client
        self.incoming.end()
        # What has opened its disks there goes on with them.
        client.died_at = None
        for name, (where, place) in {**self.copies, **self.elsewhere}.items():
            held = self.guest.disks[name]
            if held.stored is not None and name in self.copies:
                place[1].blocks = held.stored.flattened()
            self.guest.close(held)
            held.source, (held.pool, held.stored) = where, place
        self.source.guests.pop(self.guest.vm.id, None)
        self.guest.arrive(self.target.name, client)
        self.guest.vm = replace(self.guest.vm, numa_cell=self.cell)
        self.target.add(self.guest)
        self.source.announce()

    def _go_on(self) -> None:
        if self._stands and not self.guest.ended:
            self.guest.power, self.guest.reason = Power.RUNNING, "migrated"

    def figures(self) -> MoveFigures:
        memory = self.guest.memory_mib * MIB
        copied = [stored.used_bytes for _, (_, stored) in self.copies.values()]
        return MoveFigures(
            memory_bytes=memory,
            sent_bytes=memory,
            copied_bytes=sum(copied) if copied else None,
            bytes_per_s=int(memory / (self.ends_at - self.began_at or 1.0)),
            pause_ms=(round(1000 * (self.ends_at - self.began_at)) if self._stands else PAUSE_MS),
            elapsed_s=self.ends_at - self.began_at,
            postcopy=self.gone_over,
        )

    def _close(self) -> None:
        self.over = True
        for machine in (self.source, self.target):
            machine.moves.pop(self.guest.vm.id, None)

    @property
    def ended(self) -> bool:
        """Whichever way, now."""
        self.settle()
        return self.over or self.torn

    @property
    def stays(self) -> bool:
        """It is over and the VM has not gone."""
        return (
            self.over
            and self.guest.host == self.source.name
            and self.guest.power is not (Power.STOPPED)
        )
