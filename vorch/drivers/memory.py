"""A whole world in memory, with faults: hosts, pools, store, clock, processes. No libvirt, no Ceph.

    world = MemoryWorld(hosts=2)
    world.faults.fail("host:h1", "start", times=1)
    ports = world.connect()

It does the same every time: nothing is random, no real time passes, no thread is needed. Given
another clock it runs in real time, for a service that one tries out. Nothing is kept on disk.
"""

from __future__ import annotations

import json
import threading
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from typing import Any, BinaryIO, Protocol

from vorch.drivers import documents
from vorch.drivers.memory_ceph import MemoryCeph
from vorch.drivers.memory_faults import CALL_TIMEOUT_S, TRACE_LIMIT, Call, Fault, Faults, Gate
from vorch.drivers.memory_fence import MemoryPowerFencer, MemoryStorageFencer, MemoryWitness
from vorch.drivers.memory_guests import Behaviour, MemoryConsole, MemoryGuest
from vorch.drivers.memory_host import MemoryHost, MemorySwitch
from vorch.drivers.memory_images import MemoryImages
from vorch.drivers.memory_machine import MemoryMachine
from vorch.drivers.memory_pool import CAPACITY_BYTES, MemoryPool, Stored
from vorch.drivers.memory_sources import Files
from vorch.drivers.memory_state import MemoryState, MemoryStore
from vorch.drivers.memory_time import (
    MemoryClock,
    MemoryProcess,
    ProcessDied,
    ProcessTable,
    memory_chance,
)
from vorch.drivers.own_files import OwnFiles
from vorch.drivers.process import SystemClock
from vorch.errors import BadConfig, Invalid, NotFound
from vorch.inside import Inside
from vorch.model import Node, Source, Vm
from vorch.ports import Chance, Clock, Content, Hypervisor, Images, Media, PowerSwitch, World

__all__ = [
    "Behaviour",
    "Call",
    "Fault",
    "Faults",
    "MemoryClock",
    "MemoryConsole",
    "MemoryGuest",
    "MemoryHost",
    "MemoryImages",
    "MemoryMachine",
    "MemoryMedia",
    "MemoryPool",
    "MemoryProcess",
    "MemoryState",
    "MemoryWorld",
    "ProcessDied",
    "forget",
    "memory_chance",
    "world_named",
]


class Starter(Protocol):
    """What makes an embedded cluster in an empty store: the orchestrator."""

    def init(self, *, node: str, hypervisor_uri: str, pool_url: str) -> object: ...


class MemoryWorld:
    """Everything there is. Each `connect` is another process that lives in it."""

    def __init__(
        self,
        name: str = "",
        *,
        hosts: int | Sequence[str] = 1,
        cpus: int = 16,
        memory_mib: int = 65536,
        capacity_bytes: int = CAPACITY_BYTES,
        live_snapshots: bool = True,
        keeps_notes: bool = False,
        latency_s: float = 0.0,
        call_timeout_s: float = CALL_TIMEOUT_S,
        trace_limit: int = TRACE_LIMIT,
        clock: Clock | None = None,
        chance: Chance | None = None,
        seed: object = 0,
    ) -> None:
        self.name = name
        self.clock: Clock = clock or MemoryClock()
        self.chance = chance or memory_chance(seed)
        self.faults = Faults(
            self.clock, latency_s=latency_s, call_timeout_s=call_timeout_s, trace_limit=trace_limit
        )
        self.store = MemoryStore()
        self.processes = ProcessTable(name)
        self.files = Files()
        # What guests do: by VM id or name, and for all others.
        self.behaviour = Behaviour()
        self.behaviours: dict[str, Behaviour] = {}
        self.pools: dict[str, MemoryPool] = {}
        self.machines: dict[str, MemoryMachine] = {}
        self.ceph = MemoryCeph(self.clock, self.machines)
        self._pool_options: dict[str, Any] = {
            "capacity_bytes": capacity_bytes,
            "live_snapshots": live_snapshots,
            "keeps_notes": keeps_notes,
        }
        if isinstance(hosts, int):
            hosts = [f"h{number}" for number in range(1, hosts + 1)]
        for host in hosts:
            self.add_host(host, cpus=cpus, memory_mib=memory_mib)

    # -- what there is

    def add_host(
        self, name: str, *, cpus: int = 16, memory_mib: int = 65536, xen: bool = False
    ) -> MemoryMachine:
        """`xen`: it takes what hosts with Xen take; guests do as everywhere in this world."""
        self.machines[name] = MemoryMachine(
            name,
            cpus=cpus,
            memory_mib=memory_mib,
            faults=self.faults,
            find=self.find,
            behaviour=self.behaviour_of,
            peer=self.host,
            ceph=self.ceph,
            number=len(self.machines) + 1,
        )
        if xen:
            self.machines[name].run_xen()
        return self.machines[name]

    def host(self, name: str) -> MemoryMachine:
        if name not in self.machines:
            raise NotFound(
                f"cannot find host {name!r} in this world in memory: it has"
                f" {', '.join(map(repr, self.machines)) or 'none'}",
                node=name,
            )
        return self.machines[name]

    def pool(self, name: str) -> MemoryPool:
        """The pool, which is there as soon as somebody asks for it."""
        with self.faults.lock:
            if name not in self.pools:
                self.pools[name] = MemoryPool(name, **self._pool_options)
            return self.pools[name]

    def guest(self, vm: str) -> MemoryGuest:
        """The running guest of a VM, by id or name, on whichever host it is."""
        for machine in self.machines.values():
            for guest in machine.settled().values():
                if vm in (guest.vm.id, guest.vm.name):
                    return guest
        raise NotFound(f"cannot find a running guest of VM {vm!r}: no host has it", vm=vm)

    def find(self, source: Source) -> tuple[MemoryPool, Stored]:
        """What a host finds at a place that `locate` named."""
        parts = source.path.split("/")
        if len(parts) != 4 or parts[:2] != ["", "memory"] or parts[2] not in self.pools:
            raise Invalid(f"cannot open {source}: that is no place in this world in memory")
        pool = self.pools[parts[2]]
        return pool, pool.find(parts[3], "open")

    # -- what guests do

    def behave(self, vm: str, **changes: Any) -> Behaviour:
        """Let the guest of a VM (by id or name) do other than all the others."""
        behaviour = self.behaviours.setdefault(vm, Behaviour(**vars(self.behaviour)))
        for name, value in changes.items():
            if name not in vars(behaviour):
                raise Invalid(f"cannot let a guest behave by {name!r}: there is no such choice")
            setattr(behaviour, name, value)
        return behaviour

    def behaviour_of(self, vm: Vm) -> Behaviour:
        if not self.behaviours:
            return self.behaviour
        return self.behaviours.get(vm.id) or self.behaviours.get(vm.name) or self.behaviour

    # -- living in it

    def double_writers(self) -> list[str]:
        """Volumes that two domains can write to at this moment, and which: there must be none."""
        writers: dict[int, list[tuple[Stored, MemoryGuest]]] = {}
        for machine in self.machines.values():
            for guest in machine.guests.values():
                if guest.can_write:
                    for held in guest.disks.values():
                        if held.stored is not None and held.disk.device == "disk":
                            writers.setdefault(id(held.stored), []).append((held.stored, guest))
        return [
            f"{found[0][0].name}: {' and '.join(f'{g.vm.name} on {g.host}' for _, g in found)}"
            for found in writers.values()
            if len(found) > 1
        ]

    def connect(
        self,
        who: str = "somebody",
        *,
        media: Media | None = None,
        home: str = "",
        elsewhere: MemoryProcess | None = None,
    ) -> World:
        """All ports, for one more process; `home`: it runs on that host and dies with it.

        `elsewhere`: it is a process of another world, which comes here as well.
        """
        process = self.processes.begin(home, elsewhere)
        at = self.host(home) if home else None
        if at is not None:
            at.on_power_off.append(process.die)

        ceph = self.ceph
        # As it was found last, of monitors and of OSDs, and after how many changes.
        found_at, mons, osds = -1, False, False

        def look() -> None:
            nonlocal found_at, mons, osds
            mons = ceph.quorum and (at is None or (at.runs and at.cables["storage"]))
            osds = mons and not ceph.stalled
            found_at = ceph.reach_changes

        def mons_answer() -> bool:
            if found_at != ceph.reach_changes:
                look()
            return mons

        def osds_answer() -> bool:
            if found_at != ceph.reach_changes:
                look()
            return osds

        def to_ceph(target: str) -> Gate:
            return Gate(self.faults, target, process, who, reaches=osds_answer)

        def to_host(machine: MemoryMachine) -> Gate:
            return Gate(
                self.faults, machine.target, process, who, reaches=lambda: machine.answers(at)
            )

        state = MemoryState(self.store, to_ceph("state"))
        hosts: dict[str, MemoryHost] = {}
        images: dict[str, MemoryImages] = {}

        def hypervisor(name: str) -> Hypervisor:
            if name not in hosts:
                machine = self.host(name)
                hosts[name] = MemoryHost(machine, to_host(machine))
            return hosts[name]

        def pool(name: str) -> Images:
            if name not in images:
                images[name] = MemoryImages(self.pool(name), to_ceph(f"pool:{name}"), self.files)
            return images[name]

        def switch(node: Node) -> PowerSwitch:
            machine = self.host(node.uri.rpartition(":")[2] or node.name)
            return MemorySwitch(machine, Gate(self.faults, f"bmc:{machine.name}", process, who))

        others: dict[str, World] = {}

        def other(uri: str) -> World:
            if uri not in others:
                world = _world_at(uri)
                others[uri] = world.connect(who, media=media, elsewhere=process)
            return others[uri]

        def close() -> None:
            for one in others.values():
                one.close()
            state.close()
            process.leave()

        return World(
            state=state,
            hypervisor=hypervisor,
            images=pool,
            new_host=lambda node: hypervisor(node.uri.rpartition(":")[2] or node.name),
            new_pool=lambda new: pool(new.name),
            power_switch=lambda node, password: switch(node),
            seen=lambda cluster: None,
            media=media or MemoryMedia(),
            files=OwnFiles(),
            clock=self.clock,
            chance=self.chance,
            processes=process,
            who=who,
            # Where time stands still there is nothing to be done meanwhile.
            threads=not isinstance(self.clock, MemoryClock),
            close=close,
            other=other,
            witness=MemoryWitness(self.host, self.pool, at, self.ceph, to_ceph("ceph")),
            fencers=(
                MemoryPowerFencer(self.host, Gate(self.faults, "power", process, who)),
                MemoryStorageFencer(
                    self.host,
                    self.ceph,
                    self.pools,
                    Gate(self.faults, "ceph", process, who, reaches=mons_answer),
                ),
            ),
        )

    def connection(self) -> tuple[World, Callable[[Starter], None]]:
        """All ports, and what makes an empty store know the hosts of this world."""
        # Imported here: a world for tests and simulations needs no real CDs.
        from vorch.drivers.media import IsoMedia

        return self.connect("you@memory", media=IsoMedia()), self._prepare

    def _prepare(self, starter: Starter) -> None:
        if self.store.texts:
            return
        first, *others = self.machines
        starter.init(node=first, hypervisor_uri="memory:", pool_url="memory:")
        document = self.store.document(f"node/{first}")
        self.store.write(
            {
                f"node/{name}": documents.to_text(f"node/{name}", {**document.body, "name": name})
                for name in others
            }
        )

    def kill(self, world: World) -> None:
        """The process behind that connection is dead: it can do nothing more, and all see it."""
        self.processes.declare_dead(world.processes.me())


class MemoryMedia:
    """The Media port for guests that read nothing: its CDs hold the files' names and text as JSON.

    Where real CDs are imported or looked into, give `connect` the real driver.
    """

    _MARK = b"memory CD\n"

    def iso(self, label: str, files: Mapping[str, str]) -> bytes:
        return self._MARK + json.dumps({"label": label, "files": dict(files)}).encode()

    def _files(self, iso: BinaryIO) -> dict[str, str]:
        iso.seek(0)
        data = iso.read()
        if not data.startswith(self._MARK):
            return {}
        files: dict[str, str] = json.loads(data[len(self._MARK) :])["files"]
        return files

    def extract(self, iso: BinaryIO, path: str) -> bytes:
        files = self._files(iso)
        name = path.lstrip("/")
        if name not in files:
            raise NotFound(f"cannot find {path!r} on the CD: it is not there; name another path")
        return files[name].encode()

    def find(self, iso: BinaryIO, candidates: Sequence[str]) -> str | None:
        files = self._files(iso)
        return next((path for path in candidates if path.lstrip("/") in files), None)

    def look_into(self, content: Content) -> Inside:
        """Of a disk that only a guest in memory has: there is nothing that could be read."""
        return Inside(
            table="none", bios_starts=True, partitions=(), unread=("it is a disk in memory",)
        )

    def initrd_archive(self, files: Mapping[str, str]) -> bytes:
        return b"memory archive\n" + json.dumps(dict(files)).encode()


# ---------------------------------------------------------------------------------------------
# Worlds by name, for those who come by a URI: all connections of this process to memory:NAME meet.

_worlds: dict[str, MemoryWorld] = {}
_worlds_lock = threading.Lock()

# What can be said in a URI, as in memory:test?hosts=3&memory_mib=2048.
_OPTIONS: dict[str, Callable[[str], object]] = {
    "hosts": int,
    "cpus": int,
    "memory_mib": int,
    "capacity_bytes": int,
    "latency_s": float,
    "call_timeout_s": float,
    "seed": str,
    "clock": {"memory": MemoryClock, "system": SystemClock}.__getitem__,
}


def world_named(address: str) -> MemoryWorld:
    """The world of that name; made if it is not there yet. One without a name is nobody else's."""
    name, _, query = address.partition("?")
    options: dict[str, Any] = {}
    for option, value in urllib.parse.parse_qsl(query, keep_blank_values=True):
        try:
            options[option] = _OPTIONS[option](value)
        except (KeyError, ValueError) as exc:
            raise BadConfig(
                f"cannot make the world 'memory:{address}': {option}={value!r} makes no sense; it"
                f" takes {', '.join(_OPTIONS)}"
            ) from exc
    if "clock" in options:
        options["clock"] = options["clock"]()
    with _worlds_lock:
        if not name:
            return MemoryWorld(**options)
        if name not in _worlds:
            _worlds[name] = MemoryWorld(name, **options)
        return _worlds[name]


def _world_at(uri: str) -> MemoryWorld:
    """Another one, that this process has made before, or that is made now."""
    scheme, _, address = uri.partition(":")
    if scheme != "memory" or not address.partition("?")[0]:
        raise BadConfig(
            f"cannot reach {uri!r} from a world in memory: only others that have a name can be"
            " reached, as in memory:other"
        )
    return world_named(address)


def forget(name: str) -> None:
    """Let the world of that name end. Safe to repeat."""
    with _worlds_lock:
        _worlds.pop(name, None)
