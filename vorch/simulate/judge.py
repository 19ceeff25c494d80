"""Looks on while a simulation runs, and ends it when something happens that never may."""

from __future__ import annotations

from vorch.availability import NodeRecord, NodeState
from vorch.codec import decode
from vorch.drivers.memory import MemoryWorld
from vorch.errors import StepFailed
from vorch.model import Power
from vorch.plan import FenceNode, Journal, StartDomain

ON = (Power.RUNNING, Power.STOPPING)


class Violation(StepFailed):
    """Something happened that never may: two copies, a start without proof, a needless fence."""


class Judge:
    """Knows the world itself, not what vorch believes of it."""

    def __init__(self, world: MemoryWorld) -> None:
        self.world = world
        # Since when each fenced host is so.
        self._fenced: dict[str, float] = {}
        # VMs that ran on a host when it was lost.
        self._lost: dict[str, str] = {}

    def _say(self, what: str) -> Violation:
        return Violation(f"{what} (at {self.world.clock.now():.1f})")

    # -- the world, at any moment

    def look(self) -> None:
        """No disk has two writers, and no VM runs twice."""
        for pair in self.world.double_writers():
            raise self._say(f"two can write to one disk: {pair}")
        seen: dict[str, str] = {}
        for machine in self.world.machines.values():
            for guest in machine.guests.values():
                if guest.power not in ON or guest.client.learn():
                    continue
                other = seen.setdefault(guest.vm.id, machine.name)
                if other != machine.name:
                    raise self._say(f"{guest.vm.name} runs on {other} and on {machine.name}")

    def switched(self, host: str, on: bool) -> None:
        """A host was lost, by its power or its cables, or is there again."""
        if on:
            self._lost = {vm: one for vm, one in self._lost.items() if one != host}
            return
        for guest in self.world.host(host).guests.values():
            self._lost[guest.vm.name] = host

    # -- what vorch is about to do

    def hook(self, point: str, journal: Journal) -> None:
        if point != "before" or journal.direction != "forward":
            return
        step = journal.plan.steps[journal.position]
        if isinstance(step, StartDomain):
            self._starts(step)
        elif isinstance(step, FenceNode):
            machine = self.world.host(step.node.name)
            if machine.answers(None) and all(machine.cables.values()):
                raise self._say(f"{machine.name} is well, and is to be fenced")

    def _starts(self, step: StartDomain) -> None:
        """What ran on a lost host starts elsewhere only when that is proven cut off."""
        host = self._lost.get(step.vm.name)
        if host is not None and host != step.vm.node and not self._proven(host):
            raise self._say(f"{step.vm.name} starts on {step.vm.node} before {host} is cut off")
        self._lost.pop(step.vm.name, None)

    def _proven(self, host: str) -> bool:
        record = self._record(host)
        return record is not None and (
            record.proven or record.state in (NodeState.FENCED, NodeState.DOWN)
        )

    def _record(self, host: str) -> NodeRecord | None:
        if f"hanode/{host}" not in self.world.store.texts:
            return None
        return decode(NodeRecord, self.world.store.document(f"hanode/{host}").body)

    def fence_is_new(self, host: str) -> bool:
        """Whether that host's present fencing was not asked about before."""
        record = self._record(host)
        assert record is not None
        new = self._fenced.get(host) != record.since
        self._fenced[host] = record.since
        return new
