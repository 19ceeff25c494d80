"""Running domains of the world in memory, and the guests in them: what they do with time.

Nothing runs by itself. Whoever looks at a guest first brings it up to the present (`settle`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from vorch.availability import Ending
from vorch.drivers.memory_ceph import MemoryClient
from vorch.drivers.memory_pool import BLOCK_BYTES, MemoryPool, Opening, Stored
from vorch.drivers.memory_time import wait, wake
from vorch.errors import Conflict, Invalid, Unreachable
from vorch.model import Cpu, Disk, Network, Nic, Power, Source, Vm
from vorch.ports import Clock

# A busy guest writes into so many places, over and over.
WRITTEN_PLACES = 16
HELD_AT_START = "not let go yet"
# In these its guest does something with time.
ON = (Power.RUNNING, Power.STOPPING)


@dataclass(kw_only=True)
class Behaviour:
    """What a guest does. One for all, others by VM; tests change them, also while a guest runs."""

    # An agent answers; None: if the VM has one.
    agent_answers: bool | None = None
    boot_s: float = 2.0
    obeys_shutdown: bool = True
    shutdown_s: float = 3.0
    # Lets go of disks and NICs that are unplugged.
    lets_go: bool = True
    # Takes vCPUs and memory while it runs.
    takes_more: bool = True
    has_addresses: bool = True
    # Powers off by itself so long after its start. None: only what boots an installer does.
    powers_off_after_s: float | None = None
    install_s: float = 60.0
    # How long it takes to move to another host while it runs.
    migrate_s: float = 2.0
    # How long a disk takes to be copied, or flattened, while it runs.
    copy_disk_s: float = 2.0
    # Of its memory, and whether a migration that broke off late can be taken up again.
    writes_mib_s: float = 0.0
    joins: bool = True
    # Writes of its own to each data disk.
    writes_per_s: float = 0.0
    cpu_load: float = 0.1


@dataclass
class Job:
    """What the hypervisor does with a disk while the guest runs. It outlives who asked for it."""

    began_at: float
    ends_at: float
    # Where the disk is copied to; None: it is flattened.
    source: Source | None = None
    pool: MemoryPool | None = None
    stored: Stored | None = None


@dataclass
class Held:
    """A disk that a running domain has."""

    disk: Disk
    source: Source | None
    pool: MemoryPool | None = None
    stored: Stored | None = None
    read_bytes: int = 0
    written_bytes: int = 0
    reads: int = 0
    writes: int = 0
    # Writes that the agent holds back.
    waiting: list[tuple[int, bytes]] = field(default_factory=list)
    # Of the guest's own writes, how many are due and done.
    due: float = 0.0
    done: int = 0
    job: Job | None = None


class MemoryGuest:
    """One running domain. Tests get it from `MemoryWorld.guest` and act as the guest would."""

    def __init__(
        self,
        vm: Vm,
        host: str,
        clock: Clock,
        behaviour: Callable[[], Behaviour],
        client: MemoryClient,
    ) -> None:
        self.vm = vm
        self.host = host
        # What Ceph knows it by.
        self.client = client
        self.clock = clock
        self._behaviour = behaviour
        # Called when it halts, goes on or ends, for those who are told of that.
        self.on_change: Callable[[], None] = lambda: None
        self._power = Power.RUNNING
        self.reason = "booted"
        self.vcpus = vm.vcpus
        self.memory_mib = vm.memory_mib
        self.disks: dict[str, Held] = {}
        self.nics: dict[str, tuple[Nic, Network]] = {}
        self.started_at = clock.now()
        # Of a foreign domain: one that vorch did not make.
        self.ours = True
        self.screen = vm.graphics
        # Keys that were pressed at its screen, as X11 numbers them.
        self.keys: tuple[int, ...] = ()
        # Whose its serial port is: one's at a time.
        self.console_of: MemoryConsole | None = None
        # What "default" meant when it was started.
        self.cpu: Cpu | None = None
        self.frozen = False
        self.ran_s = 0.0
        self.boots = 1
        self.run = 1
        self.typed = b""
        self._began_to_boot_at = self.started_at
        self._settled_at = self.started_at
        self._ends_at: float | None = None
        # How it ended, when it has.
        self.ending: Ending | None = None
        after_s = behaviour().powers_off_after_s
        if after_s is None and vm.direct_boot is not None:
            after_s = behaviour().install_s
        if after_s is not None:
            self._end_at(self.started_at + after_s)
        self._boot()

    @property
    def power(self) -> Power:
        return self._power

    @power.setter
    def power(self, power: Power) -> None:
        self._power = power
        self.client.ceph.writer_changes += 1
        self.on_change()

    # -- time

    def _boot(self) -> None:
        self._began_to_boot_at = self.clock.now()
        wake(self.clock, self._began_to_boot_at + self._behaviour().boot_s, self.settle)

    def hold_at_start(self) -> None:
        """It has its disks open, and has not executed anything."""
        self._power, self.reason = Power.PAUSED, HELD_AT_START

    def resume(self) -> None:
        if self.power is not Power.PAUSED:
            return
        if self.reason == HELD_AT_START:
            self._boot()
        self.power, self.reason = Power.RUNNING, "resumed"

    def _end_at(self, when: float) -> None:
        self._ends_at = when
        wake(self.clock, when, self.settle)

    def settle(self) -> None:
        """Catch up with the clock."""
        now = present = self.clock.now()
        listed, ends_at = self.client.ceph.blocklist, self._ends_at
        if now == self._settled_at and not listed and (ends_at is None or ends_at > now):
            # No time has passed, nobody is cut off, and its end is still to come.
            return
        if ends_at is not None and ends_at < now:
            now = ends_at
        elapsed = now - self._settled_at
        if elapsed > 0.0:
            self._settled_at = now
        else:
            elapsed = 0.0
        if listed:
            self.hear_of_blocklist()
        if elapsed and self._power in ON:
            self.ran_s += elapsed
            writes_per_s = self._behaviour().writes_per_s
            if writes_per_s and not self.frozen and self.client.can_write:
                self._write_by_itself(elapsed * writes_per_s)
        if self._ends_at is not None and present >= self._ends_at:
            self.end(by_guest=True)

    def _write_by_itself(self, count: float) -> None:
        for held in self.disks.values():
            if held.stored is None or held.disk.device != "disk" or held.disk.read_only:
                continue
            held.due += count
            places = min(WRITTEN_PLACES, held.stored.size_bytes // BLOCK_BYTES)
            last = int(held.due)
            if not places or last == held.done:
                continue
            # What was overwritten since cannot be told apart from what was never written.
            for number in range(max(held.done, last - places), last):
                self._put(held, number % places * BLOCK_BYTES, self.mark(held.disk.name, number))
            held.writes += last - held.done
            held.written_bytes += (last - held.done) * BLOCK_BYTES
            held.done = last

    def mark(self, disk: str, number: int) -> bytes:
        """What the guest's own write of that number looks like."""
        return f"{self.vm.id}:{disk}:{number};".encode()

    def _put(self, held: Held, offset: int, data: bytes) -> None:
        if held.stored is None or held.pool is None:
            return
        new = held.stored.new_blocks(offset, len(data))
        if new and not held.pool.take(new * BLOCK_BYTES):
            # As `error_policy='stop'` has it.
            self.power, self.reason = Power.PAUSED, "I/O error: no space left in the pool"
            return
        held.stored.write(offset, data)

    @property
    def ended(self) -> bool:
        return self._power is Power.STOPPED

    @property
    def ends_at(self) -> float | None:
        return self._ends_at

    @property
    def behaviour(self) -> Callable[[], Behaviour]:
        return self._behaviour

    def hold(self, reason: str) -> None:
        """Stand still, and end by nothing of its own."""
        self.power, self.reason, self._ends_at = Power.PAUSED, reason, None

    def end(self, *, cleanly: bool = True, by_guest: bool = False) -> None:
        """`cleanly`: its disks are let go of. Else storage has to find out that it is gone."""
        if self.ending is None:
            at = self.clock.now() if self._ends_at is None else self._ends_at
            self.ending = Ending(min(at, self.clock.now()), by_guest)
        self.power, self.reason, self._ends_at = Power.STOPPED, "shut off", None
        linger = not cleanly and self.client.reaches and self.client.seen
        if self.client.died_at is None:
            self.client.died_at = self.clock.now()
        for held in self.disks.values():
            if linger and held.stored is not None and held.disk.device == "disk":
                held.stored.lingering.append(self.client)
            elif cleanly and held.stored is not None and held.stored.lock is self.client:
                held.stored.lock = None
            self.close(held)

    def hear_of_blocklist(self) -> None:
        """A write that is refused stops it, for good."""
        if self._power in ON and self.client.learn():
            self.power, self.reason = Power.PAUSED, "I/O error: its client is blocklisted"
            self._ends_at = None

    @property
    def can_write(self) -> bool:
        return self._power in ON and self.client.can_write

    @property
    def booted(self) -> bool:
        return self.clock.now() - self._began_to_boot_at >= self._behaviour().boot_s

    @property
    def agent_answers(self) -> bool:
        answers = self._behaviour().agent_answers
        if answers is None:
            answers = self.vm.agent and self.booted
        return answers and self.power in (Power.RUNNING, Power.STOPPING)

    # -- the virtual machine's buttons

    def press_power(self) -> None:
        if self.power is Power.PAUSED:
            return
        if self._behaviour().obeys_shutdown:
            self.power = Power.STOPPING
            if self._ends_at is None:
                self._end_at(self.clock.now() + self._behaviour().shutdown_s)

    def press_reset(self) -> None:
        self.boots += 1
        self._boot()
        self.typed = b""
        if self.power is Power.STOPPING:
            self.power, self._ends_at = Power.RUNNING, None
        self.frozen = False
        for held in self.disks.values():
            # What the kernel held back is lost.
            held.waiting.clear()

    def freeze(self) -> bool:
        if not self.agent_answers:
            return False
        self.frozen = True
        return True

    def thaw(self) -> None:
        self.frozen = False
        for held in self.disks.values():
            for offset, data in held.waiting:
                self._put(held, offset, data)
            held.waiting.clear()

    # -- disks

    def open(
        self,
        disk: Disk,
        source: Source | None,
        found: tuple[MemoryPool, Stored] | None,
        *,
        handed_over: bool = False,
    ) -> Held:
        """Open a volume, as RBD does it: whoever else has it open, the lock is handed over.

        `handed_over`: by the same VM on the host that it is leaving, which writes until then.
        """
        held = Held(disk, source)
        if found is not None:
            held.pool, held.stored = found
            may_write = disk.device == "disk" and not disk.read_only
            writes = may_write and not handed_over
            if not handed_over:
                self._check_base(held.stored, held.pool, writes)
            held.stored.open_by[self._key(disk.name)] = Opening(
                f"VM {self.vm.name!r} on {self.host}",
                writes,
                self.settle,
                self.client if may_write else None,
            )
            if writes:
                held.stored.lock = self.client
        self.disks[disk.name] = held
        self.client.ceph.writer_changes += 1
        return held

    def _check_base(self, stored: Stored, pool: MemoryPool, writes: bool) -> None:
        """One host's QEMUs keep each other out; who is on another one, has to be kept out."""
        for key, opening in stored.open_by.items():
            here = key.startswith(f"{self.host}/") and not key.startswith(self._key(""))
            if here and (writes or opening.writes):
                raise Conflict(
                    f"cannot open volume {stored.name!r} for VM {self.vm.name!r}: {opening.who} has"
                    " it open, and two writers would destroy it; stop that first",
                    volume=stored.name,
                )
        if writes and pool.clones(stored):
            raise Conflict(
                f"cannot open volume {stored.name!r} for VM {self.vm.name!r}: clones stand on it"
                " and would be damaged; use a clone of it",
                volume=stored.name,
            )

    def close(self, held: Held) -> None:
        self.end_job(held)
        if held.stored is not None:
            held.stored.open_by.pop(self._key(held.disk.name), None)

    def begin_job(
        self, held: Held, source: Source | None, found: tuple[MemoryPool, Stored] | None
    ) -> Job:
        now = self.clock.now()
        held.job = Job(now, now + self._behaviour().copy_disk_s, source)
        if found is not None:
            held.job.pool, held.job.stored = found
            self._check_base(held.job.stored, held.job.pool, writes=True)
            held.job.stored.open_by[self._key(held.disk.name)] = self._opening()
        return held.job

    def end_job(self, held: Held) -> None:
        job, held.job = held.job, None
        if job is not None and job.stored is not None:
            job.stored.open_by.pop(self._key(held.disk.name), None)

    def switch(self, held: Held) -> None:
        """Go on with the copy: it holds now what the disk holds."""
        job = held.job
        if job is None or job.stored is None or job.pool is None or held.stored is None:
            raise Conflict(f"cannot switch disk {held.disk.name!r}: it is not being copied")
        job.stored.blocks = held.stored.flattened()
        self.close(held)
        held.source, held.pool, held.stored = job.source, job.pool, job.stored
        self.client.ceph.writer_changes += 1
        held.stored.open_by[self._key(held.disk.name)] = self._opening()

    def _opening(self) -> Opening:
        return Opening(f"VM {self.vm.name!r} on {self.host}", True, self.settle, self.client)

    def arrive(self, host: str, client: MemoryClient) -> None:
        """It goes on on another host from now on, which has its disks open already."""
        self.settle()
        for held in self.disks.values():
            self.close(held)
        self.host = host
        self.client = client
        self.client.ceph.writer_changes += 1
        for name, held in list(self.disks.items()):
            again = None if held.stored is None or held.pool is None else (held.pool, held.stored)
            taken = self.open(held.disk, held.source, again)
            held.pool, held.stored = taken.pool, taken.stored
            self.disks[name] = held

    def _key(self, disk: str) -> str:
        return f"{self.host}/{self.vm.id}/{disk}"

    def _held(self, disk: str) -> Held:
        self.settle()
        if self.ended or disk not in self.disks:
            raise Unreachable(f"cannot use disk {disk!r} of VM {self.vm.name!r}: it is not there")
        return self.disks[disk]

    # -- what a guest does, for tests

    def start_anew(self, client: MemoryClient) -> None:
        """It reboots on a host that ends it for that and starts it anew, as Xen does."""
        self.arrive(self.host, client)
        self.run += 1
        self.press_reset()

    def write(self, disk: str, offset: int, data: bytes) -> None:
        held = self._held(disk)
        if held.disk.read_only or held.disk.device != "disk":
            raise Invalid(f"cannot write to disk {disk!r} of VM {self.vm.name!r}: it is read-only")
        if self.power is Power.PAUSED:
            raise Conflict(f"cannot write in VM {self.vm.name!r}: it is paused")
        held.writes += 1
        held.written_bytes += len(data)
        if self.frozen:
            held.waiting.append((offset, data))
        else:
            self._put(held, offset, data)

    def read(self, disk: str, offset: int, length: int) -> bytes:
        held = self._held(disk)
        held.reads += 1
        held.read_bytes += length
        return b"" if held.stored is None else held.stored.read(offset, length)

    def shut_down_by_itself(self) -> None:
        self.settle()
        self.end(by_guest=True)

    def crash(self) -> None:
        """The guest or its QEMU dies: the domain is gone, as transient ones are."""
        self.settle()
        self.end()

    # -- the serial console

    @property
    def prompt(self) -> bytes:
        return f"\r\n{self.vm.name} login: ".encode()


class Said:
    """What a guest has said that nobody has read: one thread takes it while another adds to it."""

    def __init__(self, first: bytes = b"") -> None:
        self._data = first
        self._turn = threading.Lock()

    def __bool__(self) -> bool:
        return bool(self._data)

    def add(self, data: bytes) -> None:
        with self._turn:
            self._data += data

    def take(self) -> bytes:
        with self._turn:
            data, self._data = self._data, b""
        return data


class MemoryConsole:
    """The Console port: a login prompt that echoes what is typed."""

    def __init__(self, guest: MemoryGuest, *, force: bool = False) -> None:
        before = guest.console_of
        if before is not None and before.open and not force:
            raise Conflict(
                f"cannot open the console of VM {guest.vm.name!r}: somebody else has it; close the"
                " other one first"
            )
        guest.console_of = self
        if before is not None:
            before.close()
        self._guest = guest
        self._host = guest.host
        self._boots = 0
        self._output = Said()
        self._closed = False

    def read(self, timeout_s: float) -> bytes:
        wait(self._guest.clock, timeout_s, self._look)
        output = self._output.take()
        if not output:
            self._check()
        return output

    def _look(self) -> bool:
        guest = self._guest
        guest.settle()
        if guest.booted and self._boots < guest.boots and self.open:
            self._boots = guest.boots
            self._output.add(guest.prompt)
        return bool(self._output) or not self.open

    def write(self, data: bytes) -> None:
        self._guest.settle()
        self._check()
        self._look()
        if not self._guest.booted:
            # Nobody is there yet who would hear it.
            return
        for byte in data:
            if byte in b"\r\n":
                self._guest.typed += b"\n"
                self._output.add(self._guest.prompt)
            else:
                self._guest.typed += bytes([byte])
                self._output.add(bytes([byte]))

    def close(self) -> None:
        self._closed = True

    @property
    def open(self) -> bool:
        """A stream ends with its host's part of the VM: with a move, too."""
        return not (self._closed or self._guest.ended or self._guest.host != self._host)

    def _check(self) -> None:
        if not self.open:
            why = "it was closed" if self._closed else "the VM has stopped or moved"
            raise Unreachable(
                f"cannot use the console of VM {self._guest.vm.name!r}: {why}; open it again"
            )
