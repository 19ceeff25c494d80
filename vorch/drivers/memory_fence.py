"""What shows and ends hosts of the world in memory: the Witness port and two Fencers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from vorch.availability import Knock
from vorch.drivers.memory_ceph import LAPSE_S, MemoryCeph
from vorch.drivers.memory_faults import Gate, gated, gated_waiting
from vorch.drivers.memory_machine import MemoryMachine
from vorch.drivers.memory_pool import MemoryPool
from vorch.drivers.memory_time import wake
from vorch.errors import FenceFailed, NotFound
from vorch.model import Check, CrushTree, Node, StorageStatus, Volume
from vorch.ports import Progress

Machine = Callable[[str], MemoryMachine]

# How long a fencer waits for a BMC that does not answer.
BMC_PATIENCE_S = 5.0
# How long it waits for placement groups.
OSD_PATIENCE_S = 5.0
# How soon a guest writes again.
WRITES_AGAIN_S = 0.1

__all__ = ["LAPSE_S", "MemoryPowerFencer", "MemoryStorageFencer", "MemoryWitness"]


class MemoryWitness:
    """The Witness port, as one process of the world sees it."""

    def __init__(
        self,
        machine: Machine,
        pool: Callable[[str], MemoryPool],
        home: MemoryMachine | None,
        ceph: MemoryCeph,
        gate: Gate,
    ) -> None:
        self._machine = machine
        self._pool = pool
        self._home = home
        self._ceph = ceph
        # To Ceph.
        self._gate = gate

    def knock(
        self, node: Node, network: Literal["management", "storage"], timeout_s: float
    ) -> Knock | None:
        """Takes no time: real knocks are made side by side."""
        try:
            machine = self._machine(node.name)
        except NotFound:
            return None
        if machine.off or not machine.connected(self._home, network):
            return Knock.SILENCE
        return Knock.RESET if machine.hung else Knock.ANSWER

    @gated
    def clients(self, volumes: Sequence[Volume]) -> dict[Volume, tuple[str, ...]]:
        found = {}
        for volume in volumes:
            stored = self._pool(volume.pool).volumes.get(volume.name)
            if stored is not None:
                found[volume] = tuple(sorted(client.address for client in stored.watchers()))
        return found

    @gated
    def osds(self, node: Node) -> tuple[int, int] | None:
        return None

    @gated
    def crush(self) -> tuple[CrushTree, ...]:
        return (self._ceph.crush,)

    @gated
    def storage(self) -> tuple[StorageStatus, ...]:
        return self._ceph.status()

    def power(self, node: Node, timeout_s: float) -> Literal["on", "off"] | None:
        machine = self._machine(node.name)
        if machine.bmc not in ("well", "lies"):
            return None
        return "off" if machine.off else "on"


class MemoryPowerFencer:
    """Power off by the machine's BMC, read back."""

    name = "power"
    by_address = False

    def __init__(self, machine: Machine, gate: Gate) -> None:
        self._machine = machine
        self._gate = gate

    def covers(self, node: Node) -> bool:
        return bool(self._machine(node.name).bmc)

    @gated_waiting
    def fence(self, node: Node, clients: Sequence[str], progress: Progress) -> str:
        machine = self._machine(node.name)
        if machine.bmc == "hangs":
            machine.clock.sleep(BMC_PATIENCE_S)
            raise FenceFailed(
                f"cannot switch {node.name!r} off: its BMC has not answered for"
                f" {BMC_PATIENCE_S:g} s; see to it"
            )
        if machine.bmc == "fails":
            raise FenceFailed(f"cannot switch {node.name!r} off: its BMC refuses; see to it")
        if machine.bmc != "lies":
            machine.power_off()
        return "its BMC says that it is off"

    def unfence(self, node: Node, clients: Sequence[str]) -> None:
        """Who switches it on is somebody else."""

    @gated
    def drill(self, nodes: Sequence[Node], progress: Progress) -> tuple[Check, ...]:
        return tuple(
            Check(name=f"BMC of {node.name}", level="ok", detail="it lets vorch in")
            if self._machine(node.name).bmc in ("well", "lies")
            else Check(
                name=f"BMC of {node.name}",
                level="error",
                detail="it does not do what it is told",
                remedy="see to it",
            )
            for node in nodes
        )


class MemoryStorageFencer:
    """Entries in the blocklist, and the OSD map waited for."""

    name = "storage"
    by_address = True

    def __init__(
        self, machine: Machine, ceph: MemoryCeph, pools: Mapping[str, MemoryPool], gate: Gate
    ) -> None:
        self._machine = machine
        self._ceph = ceph
        self._pools = pools
        # To the monitors.
        self._gate = gate

    def covers(self, node: Node) -> bool:
        return True

    def _entries(self, node: Node, clients: Sequence[str]) -> list[str]:
        return [*([node.storage_address] if node.storage_address else []), *clients]

    @gated_waiting
    def fence(self, node: Node, clients: Sequence[str], progress: Progress) -> str:
        entries = self._entries(node, clients)
        if not entries:
            raise FenceFailed(
                f"cannot cut {node.name!r} off its disks: no address of it is known; give it one"
            )
        self.cut_off(entries)
        broken = self.break_locks(entries)
        return (
            f"{len(entries)} address(es) of it are in the blocklist, by OSD map"
            f" {self._ceph.epoch}; {broken} lock(s) broken"
        )

    def cut_off(self, entries: Sequence[str]) -> None:
        """In the blocklist, and every OSD known to have the map."""
        in_force = self._ceph.block(entries)
        self._gate.midway()
        self._ceph.clock.sleep(max(0.0, in_force - self._ceph.clock.now()))
        if self._ceph.stalled:
            self._ceph.clock.sleep(OSD_PATIENCE_S)
            raise FenceFailed(
                f"cannot cut off {entries[0]!r}: placement groups did not answer for"
                f" {OSD_PATIENCE_S:g} s, so nobody knows what they serve; look at `ceph status`"
            )

    def break_locks(self, entries: Sequence[str]) -> int:
        """Those that clients at these addresses hold."""
        broken = 0
        for pool in self._pools.values():
            for stored in pool.volumes.values():
                owner = stored.lock.address if stored.lock is not None else ""
                if {owner, owner.partition(":")[0]} & set(entries):
                    stored.break_lock()
                    wake(self._ceph.clock, self._ceph.clock.now() + WRITES_AGAIN_S, stored.relock)
                    broken += 1
        return broken

    @gated
    def unfence(self, node: Node, clients: Sequence[str]) -> None:
        self._ceph.unblock(self._entries(node, clients))

    @gated
    def drill(self, nodes: Sequence[Node], progress: Progress) -> tuple[Check, ...]:
        """A client that was never there is cut off and let in again."""
        entry = "192.0.2.254:0/1"
        self._ceph.block([entry])
        listed = entry in self._ceph.blocklist
        self._ceph.unblock([entry])
        level: Literal["ok", "error"] = "ok" if listed else "error"
        return (Check(name="storage fence", level=level, detail="entries come and go"),)
