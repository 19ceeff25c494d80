"""Live migrations of the world in memory: a VM on its way from one machine to another.

Like libvirt's own they go on by themselves when whoever asked for them has died, and when one of
the machines dies the other clears its half away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vorch.drivers.memory_guests import MemoryGuest
from vorch.drivers.memory_time import wake
from vorch.model import Power

if TYPE_CHECKING:
    from vorch.drivers.memory_machine import MemoryMachine

# What a domain that is still arriving shows.
ARRIVING = "it is being migrated"


class MemoryMove:
    """One VM on its way. Over at its end, or when it is broken off."""

    def __init__(self, guest: MemoryGuest, source: MemoryMachine, target: MemoryMachine) -> None:
        self.guest = guest
        self.source = source
        self.target = target
        self.over = False
        self.began_at = source.clock.now()
        self.ends_at = self.began_at + source.behaviour(guest.vm).migrate_s
        client = target.ceph.client(target)
        self.incoming = MemoryGuest(guest.vm, target.name, target.clock, guest.behaviour, client)
        self.incoming.hold(ARRIVING)
        for disk in guest.disks.values():
            found = None if disk.pool is None or disk.stored is None else (disk.pool, disk.stored)
            self.incoming.open(disk.disk, disk.source, found, handed_over=True)
        self.incoming.nics = dict(guest.nics)
        source.moves[guest.vm.id] = target.moves[guest.vm.id] = self
        target.add(self.incoming)
        wake(source.clock, self.ends_at, self.settle)

    @property
    def percent(self) -> float:
        whole = self.ends_at - self.began_at
        return 100.0 * (self.source.clock.now() - self.began_at) / whole if whole else 100.0

    def settle(self) -> None:
        """Catch up with the clock."""
        if self.over:
            return
        self.guest.settle()
        if self.guest.ended or self.incoming.ended:
            self.break_off()
        elif self.source.clock.now() >= self.ends_at:
            self._arrive()

    def break_off(self) -> None:
        """The VM stays where it is, if it still is. Safe to repeat."""
        if self.over:
            return
        self._close()
        self.incoming.end()
        self.target.guests.pop(self.guest.vm.id, None)
        self.target.announce()

    def _arrive(self) -> None:
        self._close()
        client = self.incoming.client
        self.incoming.end()
        # What has opened its disks there goes on with them.
        client.died_at = None
        self.source.guests.pop(self.guest.vm.id, None)
        self.guest.arrive(self.target.name, client)
        if self.guest.display_port:
            self.guest.display_port = self.target.free_display_port()
        self.target.add(self.guest)
        self.source.announce()

    def _close(self) -> None:
        self.over = True
        for machine in (self.source, self.target):
            machine.moves.pop(self.guest.vm.id, None)

    @property
    def stays(self) -> bool:
        """It is over and the VM has not gone."""
        return (
            self.over
            and self.guest.host == self.source.name
            and self.guest.power is not (Power.STOPPED)
        )
