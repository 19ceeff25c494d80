"""What the world must offer to vorch, as Protocols. `drivers/` has what fulfils them.

Every driver of a port passes the same contract suite (tests/contract). All calls block; all raise
`VorchError`s only. "Safe to repeat" means: when what is asked for is so already, the call returns
quietly, because a plan may be carried on after a crash at any point.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from contextvars import copy_context
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, BinaryIO, Literal, Protocol, TypeVar

from vorch.aside import side_by_side
from vorch.availability import Ending, Knock
from vorch.codec import Coded, decode
from vorch.frozen import quick
from vorch.inside import Inside
from vorch.model import (
    Address,
    Check,
    Cluster,
    Cpu,
    CrushTree,
    Disk,
    Domain,
    Figures,
    History,
    HistoryPoint,
    Holder,
    HostFacts,
    HostFigures,
    MoveFigures,
    Network,
    Nic,
    Node,
    NumaCell,
    Pool,
    PoolUsage,
    Rates,
    Room,
    Source,
    StorageHealth,
    StorageStatus,
    Upload,
    Vm,
    Volume,
)
from vorch.plan import ExportFormat
from vorch.rights import AuditEntry

T = TypeVar("T")

# ---------------------------------------------------------------------------------------------
# State


class Document:
    """One JSON document. `version` is the store's revision at which it was last written.

    A store that has its text at hand may leave it to who asks for the body to have it read.
    """

    __slots__ = ("_body", "key", "version")

    def __init__(self, key: str, version: int, body: dict[str, Any]) -> None:
        self.key = key
        self.version = version
        self._body = body

    @property
    def body(self) -> dict[str, Any]:
        return self._body

    def read(self, kind: type[T]) -> T:
        """What `decode` makes of its body."""
        return decode(kind, self.body)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Document):
            return NotImplemented
        return (self.key, self.version, self.body) == (other.key, other.version, other.body)

    # It is mutable inside, by its body.
    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Document({self.key!r}, {self.version}, {self.body!r})"

    @property
    def name(self) -> str:
        return self.key.partition("/")[2]


@quick
@dataclass(frozen=True, slots=True)
class Change:
    """One part of a commit: the document must be at `version` (0: absent; None: no matter).

    `body` None deletes it. `check_only` leaves it as it is and only asks for the version.
    """

    key: str
    version: int | None
    body: dict[str, Any] | Coded | None = None
    check_only: bool = False


# A lease that was given back ends at this time, which no clock shows.
GIVEN_BACK = 0.0


@quick
@dataclass(frozen=True, slots=True)
class Lease:
    """A claim on a name for a time. A newer holder has a greater epoch, for ever."""

    name: str
    holder: str
    epoch: int
    # By its holder's clock, and another one with each renewal.
    expires_at: float

    @property
    def given_back(self) -> bool:
        return self.expires_at == GIVEN_BACK


class State(Protocol):
    """A small transactional store of JSON documents, keyed "kind/name"."""

    def get(self, key: str) -> Document | None: ...

    def read(self, kinds: Sequence[str]) -> dict[str, Document]:
        """All documents of these kinds, by key, as they were at one moment."""
        ...

    def commit(self, changes: Sequence[Change], *, lease: Lease | None = None) -> int:
        """All or nothing; the new revision (the old one when nothing was to be written).

        A key may stand in it once (`Invalid`).
        Raises `Conflict` (field `key`) if a version differs, or if `lease` is given and a newer
        epoch of it exists.
        """
        ...

    def acquire(
        self, name: str, holder: str, ttl_s: float, *, now: float, over: Lease | None = None
    ) -> Lease | None:
        """The lease, if nobody has it, or it is this holder's own already; else None.

        Whoever has seen somebody else's unrenewed for its whole time takes it `over`: when it is
        still the very same. The store judges no times, since clocks may be wrong (ADR 0021).
        A fresh acquisition has a greater epoch than all before it; the holder's own, still valid
        lease keeps its epoch.
        """
        ...

    def renew(self, lease: Lease, ttl_s: float, *, now: float) -> Lease | None:
        """The lease with another end; None if somebody else has had it since."""
        ...

    def release(self, lease: Lease) -> None:
        """Safe to repeat."""
        ...

    def lease(self, name: str) -> Lease | None:
        """Who had it last, whether expired or not."""
        ...

    def changes(self, since: int, timeout_s: float) -> tuple[int, tuple[str, ...]]:
        """(revision now, keys written or deleted after `since`), waiting for one up to the time.

        With "*" among the keys, `since` is too long ago to know what was deleted: read all again.
        """
        ...

    def close(self) -> None: ...


# ---------------------------------------------------------------------------------------------
# Progress


class Progress(Protocol):
    """How a long act says how far it is. Raises `Cancelled` when the task was cancelled."""

    def __call__(self, percent: float | None = None, line: str | None = None) -> None: ...


def no_progress(percent: float | None = None, line: str | None = None) -> None:
    """For callers who do not want to know."""


# ---------------------------------------------------------------------------------------------
# Images


@dataclass(frozen=True, slots=True)
class VolumeInfo:
    name: str
    size_bytes: int
    # What it takes up in the pool now.
    used_bytes: int
    format: str
    base: str | None = None
    snapshots: tuple[str, ...] = ()
    trashed: bool = False


@dataclass(frozen=True, slots=True)
class HostSecret:
    """What a host has to know to open the volumes of a pool. The same on every host."""

    id: str
    usage: str
    # In base64, as Ceph writes its keys.
    key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import found out."""

    size_bytes: int
    format: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Content:
    """What a volume holds at one point, for the driver of another pool to take in."""

    size_bytes: int
    # (offset, length) of what may be other than zeros, in order.
    extents: Sequence[tuple[int, int]]
    read: Callable[[int, int], bytes]
    # The same as an open file, where it is one.
    file: int | None = None


class Images(Protocol):
    """The volumes of one pool. Names come from vorch and have been checked."""

    # A volume can be snapshotted here while a guest writes to it. Where not, the hypervisor does.
    live_snapshots: bool
    # Small texts can be kept beside the bytes, so that a lost store can be rebuilt from the pool.
    keeps_notes: bool

    def create(self, volume: str, size_bytes: int) -> None:
        """Safe to repeat while nothing has been written. NoRoom if the pool is full."""
        ...

    def clone(self, base: str, volume: str, size_bytes: int) -> None:
        """A linked clone, at least as large as its base. Safe to repeat."""
        ...

    def copy(self, source: str, snapshot: str | None, volume: str, progress: Progress) -> None:
        """A full, independent copy. A partial earlier one is replaced. Sparse stays sparse."""
        ...

    def content(
        self, volume: str, snapshot: str | None, progress: Progress
    ) -> AbstractContextManager[Content]:
        """What it holds, its base included, while nobody writes it, or at a snapshot.

        `progress` is of the work that is needed first, if any is.
        """
        ...

    def take_in(
        self, volume: str, content: Content, kind: Literal["disk", "file"], progress: Progress
    ) -> None:
        """A new volume with that content: a disk, or a file with just these bytes.

        A partial earlier one is replaced. Sparse stays sparse.
        """
        ...

    def export(
        self,
        volume: str,
        snapshot: str | None,
        path: str,
        format_: ExportFormat,
        progress: Progress,
    ) -> None:
        """Write what it holds to a file of this machine that is not there yet, or is replaced.

        Nobody writes the volume, or it is of a snapshot. When it fails, or `progress` raises, a
        part of the file may be left.
        """
        ...

    def flatten(self, volume: str, progress: Progress) -> None:
        """A linked clone gets all that it shows and stands on nothing any more.

        Nobody has it open, unless `live_snapshots`. Safe to repeat, and of what stands on nothing.
        """
        ...

    def sparsify(self, volume: str) -> None:
        """Give back what holds only zeros. Nobody has it open, unless `live_snapshots`."""
        ...

    def import_file(
        self,
        location: str,
        volume: str,
        content: Literal["disk", "iso", "file"],
        sha256: str,
        progress: Progress,
    ) -> Imported:
        """From a path, file: or http(s): URL. Format by content, never by name.

        `Invalid` for a checksum that differs, a format that is not known, and anything that refers
        to other files. A partial earlier import is replaced.
        """
        ...

    def link(self, location: str, volume: str, progress: Progress) -> Imported:
        """A volume that shows the disk image at a URL at once, and reads it there until `fill`.

        Clones can be made of it; nothing else is done with it but `fill`, `withdraw` and `purge`.
        Who opens it or a clone reads the URL by itself. `Unsupported` where pools cannot do it;
        `Invalid`, before anything is made, for what cannot be read rightly in this way. The sum is
        not known ("").  A partial earlier one is replaced.
        """
        ...

    def fill(self, volume: str, sha256: str, progress: Progress) -> None:
        """Bring all data of a linked volume in. Safe to repeat, and of one that has them all.

        `Invalid` when the source was changed, or the sum differs; then it stays linked. Ends soon
        when `progress` raises, and goes on from there the next time.
        """
        ...

    def withdraw(self, volume: str) -> None:
        """No clone can be made of a linked volume any more until it is filled. Safe to repeat.

        `Conflict` when clones stand on it, or it is filled.
        """
        ...

    def write_file(self, volume: str, data: bytes) -> None:
        """A small raw volume with exactly these bytes. Replaces an earlier one."""
        ...

    def read_file(self, volume: str, limit_bytes: int) -> bytes:
        """The bytes of a raw volume. Invalid if there are more than the limit."""
        ...

    def open_read(self, volume: str) -> BinaryIO:
        """A raw volume as a file, to take things off a CD without copying it."""
        ...

    def grow(self, volume: str, size_bytes: int) -> None:
        """Of a volume that nobody has open. Safe to repeat; Invalid for a smaller size."""
        ...

    def make_base(self, volume: str, base: str) -> None:
        """`base` holds what `volume` held and is never written again; `volume` is its clone.

        Nobody has it open. Safe to repeat. Refused (`Conflict`) while it has snapshots.
        """
        ...

    def unmake_base(self, volume: str, base: str) -> None:
        """Undo `make_base`: nothing was written since and no other clone stands on it."""
        ...

    def snapshot(self, volumes: Sequence[str], snapshot: str) -> None:
        """All of them at one point. Nobody has them open, unless `live_snapshots`.

        An earlier, partial one of the same name is replaced.
        """
        ...

    def rollback(self, volumes: Sequence[str], snapshot: str) -> None:
        """Nobody has them open. Size as well as content. Safe to repeat."""
        ...

    def drop_snapshot(self, volumes: Sequence[str], snapshot: str) -> None:
        """Safe to repeat. Nobody has them open, unless `live_snapshots`."""
        ...

    def trash(self, volume: str) -> None:
        """Out of sight, recoverable. Safe to repeat; NotFound if it is in neither place."""
        ...

    def restore(self, volume: str) -> None:
        """Back from the trash. Safe to repeat."""
        ...

    def purge(self, volume: str) -> None:
        """Delete for good, trashed or not. Safe to repeat.

        A base that clones still stand on is kept, hidden, until the last of them is gone.
        """
        ...

    def locate(self, volume: str) -> Source:
        """Where a host finds it. NotFound if it is not there."""
        ...

    def ensure_unused(self, volume: str) -> None:
        """Returns when nobody has it open for writing; `Conflict` while somebody does.

        Who died with it open is waited for, as long as the storage takes to notice. Where storage
        cannot tell, the host's own locks have to do.
        """
        ...

    def holders(self, volume: str) -> tuple[Holder, ...] | None:
        """Everybody who has it open for writing, and whose the lock is; None: storage cannot tell.

        A client's lock comes with its first write. Who died is shown for as long as the storage
        takes to notice. NotFound if the volume is not there.
        """
        ...

    def secret(self) -> HostSecret | None:
        """What hosts must be told before they can open volumes; None where they need nothing."""
        ...

    def note(self, volume: str, key: str, text: str) -> None:
        """Keep a text on a volume ("" removes it), whoever has it open; for volume "", on the pool.

        Clones and copies do not inherit it. Unsupported where no notes are kept.
        """
        ...

    def notes(self, volume: str) -> dict[str, str]:
        """All notes by their keys; none where none are kept."""
        ...

    def info(self, volume: str) -> VolumeInfo: ...

    def list(self) -> tuple[VolumeInfo, ...]:
        """Every volume, trashed and hidden ones included: nothing is ever out of view."""
        ...

    def usage(self) -> PoolUsage: ...

    def health(self) -> StorageHealth | None:
        """What the cluster that it is in says of itself. None: it is in none.

        `Denied` where this user may not ask.
        """
        ...

    def room(self) -> Room:
        """The part of `usage` that can be had without looking at each volume."""
        ...

    def close(self) -> None:
        """Safe to repeat."""
        ...


class Media(Protocol):
    """Making and reading the small things that guests and installers are told by."""

    def iso(self, label: str, files: Mapping[str, str]) -> bytes:
        """A CD image with these files at its root."""
        ...

    def extract(self, iso: BinaryIO, path: str) -> bytes:
        """One file off a CD image. NotFound if it is not on it."""
        ...

    def find(self, iso: BinaryIO, candidates: Sequence[str]) -> str | None:
        """The first of these paths that is on the CD."""
        ...

    def look_into(self, content: Content) -> Inside:
        """What is in a guest's disk that decides on which hypervisor it starts."""
        ...

    def initrd_archive(self, files: Mapping[str, str]) -> bytes:
        """What is put behind an initrd so that the kernel finds these files at its root."""
        ...


# ---------------------------------------------------------------------------------------------
# Hypervisor


class Console(Protocol):
    """A two-way byte stream to a guest's serial port, or to its screen (VNC, which is RFB)."""

    def read(self, timeout_s: float) -> bytes:
        """What came, at once; b"" when nothing came in that time. Unreachable when it ended."""
        ...

    def write(self, data: bytes) -> None: ...

    def close(self) -> None: ...


# Nothing is copied.
NO_SOURCES: Mapping[str, Source] = MappingProxyType({})


class Subscription(Protocol):
    """What somebody is told of, until they have heard enough."""

    def close(self) -> None:
        """Safe to repeat. Nothing is told any more when it has returned."""
        ...


class Hypervisor(Protocol):
    """One host. VMs are known by their id; `Vm` is what to start, sources are where its disks are.

    `sources` maps disk names to places; an empty CD drive has none.
    """

    @property
    def counts_runs(self) -> bool:
        """A guest that reboots is ended and started anew here, and other clients have its disks."""
        ...

    def facts(self) -> HostFacts:
        """What this host is, quickly: accelerator as last probed, or unknown ("")."""
        ...

    def probe(self, progress: Progress) -> HostFacts:
        """The same, with the accelerator found by really booting something (seconds)."""
        ...

    def domains(self) -> tuple[Domain, ...]:
        """All domains of the host in one bulk call, those that are not vorch's included."""
        ...

    def domain(self, vm_id: str) -> Domain | None: ...

    def events(self, tell: Callable[[str], None]) -> Subscription:
        """Be told the id of every domain that begins, ends, halts or goes on, soon after it did.

        "" says that the host was lost and that this subscription tells no more: look at everything,
        and subscribe anew. `tell` is called by a thread of the driver's and returns at once. What
        happened may be told more than once.
        """
        ...

    def endings(self) -> Mapping[str, Ending]:
        """How domains ended here, by their ids, of those that do not run again.

        Only what ended while this process listened is told; it listens from the first call on, and
        begins anew when the host was lost. A domain may be gone a moment before this says how.
        """
        ...

    def start(
        self,
        vm: Vm,
        sources: Mapping[str, Source],
        networks: Mapping[str, Network],
        *,
        cpu: Cpu | None = None,
        paused: bool = False,
    ) -> None:
        """As a transient domain. Safe to repeat while it is there, running or paused.

        `cpu` is what "default" means for it; without one the host gives what it thinks best. With
        `paused` it has its disks open and executes nothing before it is resumed.
        """
        ...

    def ensure_secret(self, secret: HostSecret) -> None:
        """The host can open what this opens. Safe to repeat, and cheap when it is so already."""
        ...

    def forget_secret(self, secret: HostSecret) -> None:
        """The host is to know it no more. Safe to repeat."""
        ...

    def sweep(self) -> None:
        """End what trials that were killed have left on the host. Safe to repeat."""
        ...

    def hook_lack(self) -> str:
        """What vorch has to put onto the host before VMs there can have shared volumes; or "".

        Raises when nobody can see it.
        """
        ...

    def hook_way(self) -> str:
        """For a person: where that would be put, and as whom. "" for hosts that need none."""
        ...

    def install_hook(self) -> None:
        """Only with a person's consent. Safe to repeat."""
        ...

    def remove_hook(self) -> None:
        """Safe to repeat."""
        ...

    def release_volumes(self) -> tuple[str, ...]:
        """Of a host without any VM of ours: see that nothing there has volumes open any more.

        What the host itself had open still. `Conflict` when it has something open in the end: it
        could write.
        """
        ...

    def try_source(
        self, name: str, source: Source, while_open: Callable[[], None] | None = None
    ) -> None:
        """Really open a volume on the host, by a machine that never runs. Raises if it cannot.

        `name` is what the machine is called for that moment; nothing of it stays. `while_open` is
        called when it has the volume open.
        """
        ...

    def clock(self) -> tuple[float, float]:
        """(how many seconds its clock is ahead of this machine's, how far that may be wrong)."""
        ...

    def try_move(self, identifier: str, uri: str, cpu: Cpu | None = None) -> None:
        """Really move a tiny machine that nobody needs to the host at `uri`. Raises if it cannot.

        It is gone from here then; who asked ends it there (`cut`, by its identifier, a UUID).
        """
        ...

    def common_cpu(self, cpus: Sequence[Cpu]) -> Cpu:
        """The best CPU that hosts with these can all give. Unsupported if there is none."""
        ...

    def shut_down(self, vm_id: str) -> None:
        """Ask the guest (agent if it answers, else power button). Returns at once."""
        ...

    def cut(self, vm_id: str) -> None:
        """End it now. Safe to repeat; returns when it is gone."""
        ...

    def await_end(self, vm_id: str, timeout_s: float, progress: Progress) -> bool:
        """True when the domain is gone or off, False when the time is over."""
        ...

    def migrate(
        self,
        vm: Vm,
        node: str,
        uri: str,
        *,
        pause_limit_ms: int,
        bandwidth_mib_s: int,
        progress: Progress,
        postcopy_after_s: float | None = None,
        copies: Mapping[str, Source] = NO_SOURCES,
        elsewhere: Mapping[str, Source] = NO_SOURCES,
        bridges: Mapping[str, str] = {},
        cell: NumaCell | None = None,
        live: bool = True,
    ) -> MoveFigures:
        """Move the VM to that host, which this one reaches at `uri`, while it runs.

        Returns when it is gone from here, with what is known of it here. One under way already,
        whoever began it, is waited for; one that has broken off after it went over is taken up
        again. When it fails, or `progress` raises, the VM goes on here, unless it has gone over.
        NotFound if it is not here.

        `postcopy_after_s`: so long after its beginning it goes over to the target, and draws its
        memory after it. `copies` says, by the disk's name, into which volumes its disks are copied
        along; `elsewhere`, where what it only reads is there.
        `bridges`: by NIC, the bridge there, where it has another name. `cell`: the NUMA cell there
        that it is put into. Not `live`: it stands still from the beginning to the end.
        """
        ...

    def migration(self, vm_id: str) -> Literal["in", "out", "torn"] | None:
        """Whether the VM is on its way here or away from here at this moment.

        `torn`: it broke off after the VM had gone over, and this is one half of it.
        """
        ...

    def moved_figures(self, vm_id: str) -> MoveFigures | None:
        """Of the migration by which the VM came here; None when nobody knows."""
        ...

    def write_rate_mib_s(self, vm_id: str, for_s: int) -> float:
        """How much of its memory the guest changes, measured for so long. It runs on meanwhile."""
        ...

    def migration_abort(self, vm_id: str) -> None:
        """End one that is on its way away. Returns when there is none: it may have arrived.

        Safe to repeat.
        """
        ...

    def pause(self, vm_id: str) -> None: ...

    def resume(self, vm_id: str) -> None: ...

    def reset(self, vm_id: str) -> None: ...

    def forget(self, vm: Vm) -> None:
        """Remove what the host keeps of a VM that is off: UEFI variables, TPM state.

        Safe to repeat, and when nothing is kept. Conflict while it runs.
        """
        ...

    def attach_disk(self, vm: Vm, disk: Disk, source: Source | None) -> None:
        """Safe to repeat."""
        ...

    def detach_disk(self, vm: Vm, disk: Disk, timeout_s: float) -> None:
        """Returns when the guest has let go. Safe to repeat. TimedOut if it does not."""
        ...

    def attach_nic(self, vm: Vm, nic: Nic, network: Network) -> None: ...

    def detach_nic(self, vm: Vm, nic: Nic, timeout_s: float) -> None: ...

    def change_media(self, vm: Vm, disk: Disk, source: Source | None) -> None: ...

    def grow_disk(self, vm: Vm, disk: Disk, size_bytes: int) -> None:
        """Of a running VM. Safe to repeat."""
        ...

    def copy_disk(self, vm: Vm, disk: Disk, source: Source, progress: Progress) -> None:
        """Copy the disk of a running VM to that place, which is of the same size and empty.

        Returns when both are the same; from then on each write goes to both. One under way
        already, whoever began it, is waited for. It goes on by itself when the caller dies or
        `progress` raises, until `end_disk_job`. `Conflict` when it has broken off.
        """
        ...

    def switch_disk(self, vm: Vm, disk: Disk, source: Source) -> None:
        """Let the VM go on with the copy alone. The copy has come to its end, the VM is paused."""
        ...

    def has_disk_at(self, vm: Vm, disk: Disk, source: Source) -> bool:
        """Whether this is where the running VM has the disk."""
        ...

    def flatten_disk(self, vm: Vm, disk: Disk, progress: Progress) -> None:
        """The same as `Images.flatten`, for a disk that a running VM has open.

        Only asked for pools that have no `live_snapshots`. One under way is waited for.
        """
        ...

    def end_disk_job(self, vm: Vm, disk: Disk) -> None:
        """End what `copy_disk` or `flatten_disk` began; the disk stays where it is.

        Safe to repeat, and when there is none or the VM is off.
        """
        ...

    def limit_disk(self, vm: Vm, disk: Disk) -> None:
        """From now on the disk of a running VM may do so much. Safe to repeat."""
        ...

    def set_vcpus(self, vm_id: str, vcpus: int) -> None:
        """Live. Unsupported when this host or guest cannot."""
        ...

    def set_memory(self, vm_id: str, memory_mib: int) -> None: ...

    def freeze(self, vm_id: str) -> bool:
        """Ask the guest's agent to hold all writes. False when no agent answers."""
        ...

    def thaw(self, vm_id: str) -> None:
        """Safe to repeat, and when nothing was frozen."""
        ...

    def snapshot(self, vm: Vm, disks: Sequence[Disk], snapshot: str) -> None:
        """All these disks of a running VM at one point, inside their volumes.

        Only asked for pools that have no `live_snapshots`. Replaces a partial one of that name.
        """
        ...

    def drop_snapshot(self, vm: Vm, disks: Sequence[Disk], snapshot: str) -> None:
        """Safe to repeat."""
        ...

    def ensure_network(self, network: Network, hosts: Mapping[str, str] = {}) -> None:
        """Safe to repeat. Unsupported when this host cannot; Invalid when the bridge is missing.

        `hosts`: of an overlay, where each host is. What may change while guests are on it (hosts,
        forwarded ports, reserved addresses) is brought up to date; Conflict when the rest differs.
        """
        ...

    def network_lack(self, network: Network, hosts: Mapping[str, str] = {}) -> str:
        """Why this host cannot have that network, found out by trying; "" when it can.

        Nothing is changed. The ports that are forwarded to it are a part of the network.
        """
        ...

    def remove_network(self, network: Network) -> None: ...

    def addresses(self, vm: Vm) -> tuple[Address, ...]:
        """By DHCP lease, agent and ARP table: whatever answers quickly."""
        ...

    def figures(self, vm: Vm, *, now: float) -> Figures: ...

    def host_figures(self, *, now: float) -> HostFigures:
        """Of the host and of all that runs on it, in one go; no guest is waited for.

        Disks and NICs may bear the names that the host has for them.
        """
        ...

    def display(self, vm_id: str, *, force: bool = False) -> Console | None:
        """Its screen; None: it has none. Conflict when somebody else has it and it can only be
        one's, unless `force`, which ends that other one.
        """
        ...

    def console(self, vm_id: str, *, force: bool = False) -> Console:
        """Its serial port, which is one's at a time: Conflict, or `force`, as of its screen."""
        ...

    def checks(self, folders: Sequence[str] = ()) -> tuple[Check, ...]:
        """What is missing on this host and why a VM would not run.

        `folders`: where pools keep their disks on it.
        """
        ...

    def used_subnets(self) -> tuple[str, ...]:
        """IPv4 networks that this host has a route to, so that a new one does not clash."""
        ...

    def close(self) -> None: ...


class PowerSwitch(Protocol):
    """A host's BMC. It answers while its host is off, or else raises `Unreachable`."""

    def is_on(self) -> bool:
        """As read there and then. Whatever is not clear raises: it is neither on nor off."""
        ...

    def off(self) -> None:
        """Cut the power. Safe to repeat. That it is off now, only `is_on` says."""
        ...

    def on(self) -> None:
        """Safe to repeat."""
        ...

    def close(self) -> None: ...


# ---------------------------------------------------------------------------------------------
# High availability: what shows whether a host lives, and what ends it for certain


class Witness(Protocol):
    """What can be seen of a host beside its libvirt. Cheap: it is asked every few seconds.

    No call waits longer than it is told, and none raises for a host that is silent: silence is
    what was to be found out. `Unreachable` says that the witness itself sees nothing (Ceph does
    not answer), so that its silence is no evidence of anything.
    """

    def knock(
        self, node: Node, network: Literal["management", "storage"], timeout_s: float
    ) -> Knock | None:
        """A TCP connection to the host's address there. None when no address of it is known.

        A port that refuses is as good as one that accepts (`RESET`): the host's kernel lives.
        """
        ...

    def clients(self, volumes: Sequence[Volume]) -> dict[Volume, tuple[str, ...]]:
        """Who has these volumes open for writing, as storage knows them ("10.0.0.3:0/1234").

        One that died lingers for up to 30 s. Volumes of pools that cannot tell are left out.
        """
        ...

    def osds(self, node: Node) -> tuple[int, int] | None:
        """(up, all) of the host's OSDs, as the monitors see them; None when it has none."""
        ...

    def crush(self) -> tuple[CrushTree, ...]:
        """What each Ceph that there is was told of where its disks stand. Asked seldom."""
        ...

    def storage(self) -> tuple[StorageStatus, ...]:
        """How each Ceph that there is says that it is, and the tree of its OSDs."""
        ...

    def power(self, node: Node, timeout_s: float) -> Literal["on", "off"] | None:
        """What its BMC says; None when it has none, or that does not answer in time."""
        ...


class Fencer(Protocol):
    """One way to end what a host can do to disks. `World.fencers` has those that are set up.

    They are all asked, at the same time where threads are allowed; one proof is enough. Each has
    to end within the time that its own settings give it, since VMs wait for that.
    """

    # In a word, for sentences and settings: "power", "storage", "command".
    name: str
    # It cuts off addresses, so it proves nothing about a host of which not all are known.
    by_address: bool

    def covers(self, node: Node) -> bool:
        """It is set up for this host. Reads nothing but settings."""
        ...

    def fence(self, node: Node, clients: Sequence[str], progress: Progress) -> str:
        """Cut the host off. Returns only with proof: a sentence that says what was read back.

        `clients`: the storage addresses noted when its VMs started, to be cut off beside the
        host's own address. Power: off, and read back as off. Storage: every entry is in the OSD
        map, that map is in force on every OSD that is up, and no volume's lock that one of these
        clients held is left unbroken; entries last until `unfence`. `FenceFailed` in all other
        cases: a lie is worse than a failure. Safe to repeat, also when it was done in part.
        """
        ...

    def unfence(self, node: Node, clients: Sequence[str]) -> None:
        """Let it in again: what was cut off by the same arguments. Safe to repeat.

        Called when nothing is left running on the host. A fencer of power does nothing here: who
        switches a host on is a person or its BMC's own policy.
        """
        ...

    def drill(self, nodes: Sequence[Node], progress: Progress) -> tuple[Check, ...]:
        """Whether it would work for these hosts, tried out. No host notices anything of it."""
        ...


# ---------------------------------------------------------------------------------------------
# History


class Past(Protocol):
    """What was measured of late on this machine, of bounded size. For plots: it may be lost."""

    def write(self, at: float, vms: Mapping[str, Rates], nodes: Mapping[str, Rates]) -> None:
        """One round: VMs by their ids, hosts by their names."""
        ...

    def read(self, kind: str, name: str, *, now: float, for_s: float) -> History:
        """`kind` is "vm" or "node". Of one that nobody knows it is empty.

        `Unsupported` where nothing was ever measured.
        """
        ...

    def latest(self, kind: str, *, now: float) -> dict[str, HistoryPoint]:
        """What each did in the last stretch of time that is over or under way, by name.

        Of those that nobody has measured for a minute there is nothing.
        """
        ...

    def close(self) -> None:
        """Safe to repeat."""
        ...


# ---------------------------------------------------------------------------------------------
# Uploads


class Appending(Protocol):
    """A piece of an upload, while it comes."""

    @property
    def offset_bytes(self) -> int:
        """How far the upload is now."""
        ...

    def write(self, data: bytes) -> None:
        """`Invalid` when more comes than was said; nothing of that is kept."""
        ...


class Uploads(Protocol):
    """Files that come to this machine in pieces. An id that is none is `NotFound`."""

    @property
    def limit_bytes(self) -> int: ...

    def create(self, *, name: str, size_bytes: int, sha256: str, owner: str) -> Upload:
        """`NoRoom` unless there is room for all of it beside all others."""
        ...

    def find(self, upload_id: str) -> Upload: ...

    def list(self) -> tuple[Upload, ...]: ...

    def append(
        self, upload_id: str, offset_bytes: int, checksum: str = ""
    ) -> AbstractContextManager[Appending]:
        """Write on from there, which must be where it stands, alone (`Conflict`).

        What has come stays, however that ends; with a checksum (SHA-256) all of it or nothing.
        """
        ...

    def path(self, upload_id: str) -> str:
        """Where it is, once all of it is there (`Conflict`)."""
        ...

    def remove(self, upload_id: str) -> None: ...

    def expire(self) -> None:
        """Those go to which nothing has come for too long."""
        ...


# ---------------------------------------------------------------------------------------------
# Files of this machine


class Files(Protocol):
    """Names of files that a person asked for, on the machine where vorch runs."""

    def place(self, source: str, path: str) -> None:
        """A whole file gets its name. `Conflict` if another one has it. Safe to repeat."""
        ...

    def take_back(self, source: str, path: str) -> None:
        """Undo `place`. Safe to repeat, and when nothing was placed."""
        ...

    def remove(self, path: str) -> None:
        """Safe to repeat."""
        ...


# ---------------------------------------------------------------------------------------------
# Time, chance and processes


class Clock(Protocol):
    def now(self) -> float:
        """Seconds since the epoch."""
        ...

    def monotonic(self) -> float:
        """Seconds since some moment of this machine's life: for spans of time. Nobody sets it."""
        ...

    def sleep(self, seconds: float) -> None: ...


@dataclass(frozen=True, slots=True)
class Chance:
    """Where identifiers come from, so that tests and simulations can repeat themselves."""

    uuid: Callable[[], str]
    # n random bytes
    take: Callable[[int], bytes]


class Processes(Protocol):
    """Who runs a plan, and whether that process still lives."""

    def me(self) -> dict[str, Any]:
        """What identifies this process, for good: never the same for two."""
        ...

    def alive(self, identity: Mapping[str, Any]) -> bool | None:
        """False only when it is certain that the process has ended; None when it cannot be seen."""
        ...


class Passwords(Protocol):
    """How passwords are kept: hashed so slowly that a stolen hash is of little use."""

    def hash(self, password: str) -> str: ...

    def matches(self, hashed: str, password: str) -> bool:
        """False, too, for what is no hash."""
        ...

    def outdated(self, hashed: str) -> bool:
        """It was made by weaker settings than those of now."""
        ...


def no_audit(entry: AuditEntry) -> None:
    """The log in the state is all there is."""


@dataclass(frozen=True, slots=True)
class World:
    """All ports in one hand, as `execute` and `orchestrator` take them."""

    state: State
    hypervisor: Callable[[str], Hypervisor]
    images: Callable[[str], Images]
    # Hosts and pools that the store does not know yet, to be looked at before they join.
    new_host: Callable[[Node], Hypervisor]
    new_pool: Callable[[Pool], Images]
    # Of a host that has a BMC; the second is its password.
    power_switch: Callable[[Node, str], PowerSwitch]
    # Told of each look, so that no driver stays at a place where its host or pool is no more.
    seen: Callable[[Cluster], None]
    media: Media
    files: Files
    clock: Clock
    chance: Chance
    processes: Processes
    who: str
    # Long acts keep a sign of life going in a thread of their own; a simulated world has none.
    threads: bool
    close: Callable[[], None]
    # Another cluster, by its URI. It is kept, and closed with this one.
    other: Callable[[str], World]
    # What high availability sees and ends hosts by. None, and none: it cannot be had here.
    witness: Witness | None = None
    fencers: tuple[Fencer, ...] = ()
    # By what whoever acts was recognized: "token ID", "session ID"; "": it acts from this machine.
    known_by: str = ""
    # None: nobody logs in here.
    passwords: Passwords | None = None
    # Where the audit log goes beside the state. Never fails.
    audit: Callable[[AuditEntry], None] = no_audit
    # None: this machine takes none.
    uploads: Uploads | None = None
    # None: nothing is kept here of what was measured.
    past: Past | None = None

    def each(
        self, act: Callable[[str], T], names: Sequence[str], *, most: int = 16
    ) -> tuple[T, ...]:
        """One after the other, or side by side where there are several and threads are allowed."""
        if len(names) < 2 or not self.threads:
            return tuple(act(name) for name in names)
        # Each in a context of its own, which knows on whose behalf it is.
        runs = [(copy_context(), name) for name in names]
        return tuple(side_by_side(lambda one: one[0].run(act, one[1]), runs, most=most))
