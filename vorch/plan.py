"""What vorch can do: the closed set of steps, and `Plan`, the steps with the reason for them.

A step is data. It says what should become true, not how: `execute` knows how to do and undo each.
Every step can be done twice without harm, and undone when it was done in part or not at all, since
a crash may fall anywhere. Steps that cannot be undone (`undoable = False`) mark the point from
which a plan only goes forward. Where undoing needs a guest that plays along (`undo_needs_guest`), a
plan that a dead process left is rather finished; so is one with a step that goes on by itself
(`goes_on_alone`) when vorch has ended.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from vorch.frozen import quick
from vorch.model import GIB, Cpu, Disk, Network, Nic, Node, NumaCell, Vm, Volume


def _size(size_bytes: int) -> str:
    return f"{size_bytes / GIB:.4g} GiB"


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateVolume:
    """An empty volume."""

    undoable: ClassVar[bool] = True
    volume: Volume
    size_bytes: int
    kind: Literal["create-volume"] = "create-volume"

    def __str__(self) -> str:
        return f"create an empty volume {self.volume} of {_size(self.size_bytes)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CloneVolume:
    """A linked clone: a new volume that stands on `base` and holds only what differs."""

    undoable: ClassVar[bool] = True
    base: Volume
    volume: Volume
    size_bytes: int
    kind: Literal["clone-volume"] = "clone-volume"

    def __str__(self) -> str:
        return f"make {self.volume} ({_size(self.size_bytes)}) as a linked clone of {self.base}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyVolume:
    """A full copy, of a snapshot when `snapshot` is given, else of a volume that nobody writes."""

    undoable: ClassVar[bool] = True
    source: Volume
    snapshot: str | None
    volume: Volume
    # What a pool of another kind is to make of it: a disk in its own format, or the same bytes.
    content: Literal["disk", "file"] = "disk"
    kind: Literal["copy-volume"] = "copy-volume"

    def __str__(self) -> str:
        at = f" at snapshot {self.snapshot!r}" if self.snapshot else ""
        return f"copy {self.source}{at} to {self.volume}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CarryVolume:
    """A copy of a small file (a cloud-init seed, a CD), in another pool too."""

    undoable: ClassVar[bool] = True
    source: Volume
    volume: Volume
    kind: Literal["carry-volume"] = "carry-volume"

    def __str__(self) -> str:
        return f"copy {self.source} to {self.volume}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportVolume:
    """Bring a file or URL into the pool: a disk image (converted), or a file just as it is."""

    undoable: ClassVar[bool] = True
    location: str
    volume: Volume
    content: Literal["disk", "iso", "file"]
    sha256: str = ""
    kind: Literal["import-volume"] = "import-volume"

    def __str__(self) -> str:
        return f"import {self.location} as {self.volume}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkVolume:
    """A volume that shows a disk image at a URL at once, and takes its data from there."""

    undoable: ClassVar[bool] = True
    location: str
    volume: Volume
    kind: Literal["link-volume"] = "link-volume"

    def __str__(self) -> str:
        return f"show {self.location} as {self.volume}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SeeReadable:
    """Hosts can open the volume, and so reach what it takes its data from."""

    undoable: ClassVar[bool] = True
    volume: Volume
    nodes: tuple[str, ...]
    # What the machines are called that try it, for a moment.
    trial: str
    kind: Literal["see-readable"] = "see-readable"

    def __str__(self) -> str:
        return f"see that {', '.join(self.nodes)} can read {self.volume}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FillVolume:
    """Bring all the data of a linked volume into the pool; then it needs its source no more.

    To undo it is to see that nothing stands on the volume, and to let nothing stand on it any
    more. When something does, the plan goes forward.
    """

    undoable: ClassVar[bool] = True
    goes_on_alone: ClassVar[bool] = True
    # As long as a download, with everything at work already: nobody waits for it who came for
    # something else.
    lasting: ClassVar[bool] = True
    volume: Volume
    # "": nobody knows it.
    sha256: str = ""
    kind: Literal["fill-volume"] = "fill-volume"

    def __str__(self) -> str:
        checked = ", and check it against its SHA-256" if self.sha256 else ""
        return f"bring the data of {self.volume} into the pool{checked}"


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteIso:
    """A small CD image with these files on it: a cloud-init seed, an answer file."""

    undoable: ClassVar[bool] = True
    volume: Volume
    label: str
    files: dict[str, str] = field(repr=False)
    kind: Literal["write-iso"] = "write-iso"

    def __str__(self) -> str:
        return f"write {self.volume}: a CD labelled {self.label!r} with {', '.join(self.files)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractFile:
    """Take one file off a CD image: the kernel or initrd of an installer."""

    undoable: ClassVar[bool] = True
    iso: Volume
    path: str
    volume: Volume
    kind: Literal["extract-file"] = "extract-file"

    def __str__(self) -> str:
        return f"take {self.path} off the CD {self.iso} into {self.volume}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtendInitrd:
    """A new initrd: `source` with these files added at its root (a preseed file)."""

    undoable: ClassVar[bool] = True
    source: Volume
    volume: Volume
    files: dict[str, str] = field(repr=False)
    kind: Literal["extend-initrd"] = "extend-initrd"

    def __str__(self) -> str:
        return f"add {', '.join(self.files)} to the initrd {self.source}, as {self.volume}"


@dataclass(frozen=True, slots=True, kw_only=True)
class GrowVolume:
    """Make a volume larger; of a running VM through its host, so that the guest sees it."""

    undoable: ClassVar[bool] = False
    volume: Volume
    size_bytes: int
    vm: Vm | None = None
    disk: str = ""
    kind: Literal["grow-volume"] = "grow-volume"

    def __str__(self) -> str:
        return f"grow {self.volume} to {_size(self.size_bytes)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FlattenVolume:
    """A linked clone gets all that it shows, and stands on nothing; through its host if it runs."""

    undoable: ClassVar[bool] = True
    vm: Vm
    disk: Disk
    volume: Volume
    kind: Literal["flatten-volume"] = "flatten-volume"

    def __str__(self) -> str:
        return f"copy into {self.volume} what it still takes from its base"


@dataclass(frozen=True, slots=True, kw_only=True)
class SparsifyVolume:
    """Give back to the pool what holds nothing but zeros. Outcome `freed_bytes`."""

    undoable: ClassVar[bool] = True
    vm: Vm
    volume: Volume
    kind: Literal["sparsify-volume"] = "sparsify-volume"

    def __str__(self) -> str:
        return f"give back what holds only zeros in {self.volume}"


ExportFormat = Literal["qcow2", "raw", "vmdk"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportVolume:
    """Write what a volume holds to a file of this machine, under a name for the time being."""

    undoable: ClassVar[bool] = True
    volume: Volume
    snapshot: str | None
    path: str
    format: ExportFormat
    kind: Literal["export-volume"] = "export-volume"

    def __str__(self) -> str:
        at = f" at snapshot {self.snapshot!r}" if self.snapshot else ""
        return f"export {self.volume}{at} as {self.format}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceFile:
    """A file that is whole gets its name. One that has the name already is never replaced."""

    undoable: ClassVar[bool] = True
    source: str
    path: str
    kind: Literal["place-file"] = "place-file"

    def __str__(self) -> str:
        return f"call it {self.path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveDisk:
    """Copy a disk of the running VM to another volume while it is written, and go on there.

    At its end the VM stands still: what both volumes hold is the same until the record says which
    one is the disk. To undo it is to end the copying; a disk that has moved stays moved.
    """

    undoable: ClassVar[bool] = True
    goes_on_alone: ClassVar[bool] = True
    # As it was before, with the disk that moves.
    vm: Vm
    disk: Disk
    volume: Volume
    # It is paused, and so it stays.
    paused: bool = False
    kind: Literal["move-disk"] = "move-disk"

    def __str__(self) -> str:
        return f"copy disk {self.disk.name!r} of {self.vm.name} to {self.volume} while it runs"


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitDisk:
    """How much I/O a disk of the running VM may do. `before` is the disk as it was."""

    undoable: ClassVar[bool] = True
    vm: Vm
    disk: Disk
    before: Disk
    kind: Literal["limit-disk"] = "limit-disk"

    def __str__(self) -> str:
        what = str(self.disk.limits) or "all that it can"
        return f"disk {self.disk.name!r} of the running {self.vm.name} may do {what}"


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseVolume:
    """Turn what a volume holds now into a base for linked clones; the volume goes on from it."""

    undoable: ClassVar[bool] = True
    volume: Volume
    base: Volume
    kind: Literal["base-volume"] = "base-volume"

    def __str__(self) -> str:
        return f"keep what {self.volume} holds as the base {self.base}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrashVolume:
    """Put a volume aside; it can be had back until it is purged."""

    undoable: ClassVar[bool] = True
    volume: Volume
    kind: Literal["trash-volume"] = "trash-volume"

    def __str__(self) -> str:
        return f"move {self.volume} to the trash"


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreVolume:
    undoable: ClassVar[bool] = True
    volume: Volume
    kind: Literal["restore-volume"] = "restore-volume"

    def __str__(self) -> str:
        return f"take {self.volume} back out of the trash"


@dataclass(frozen=True, slots=True, kw_only=True)
class PurgeVolume:
    """Delete a volume for good, whether it is in the trash or not."""

    undoable: ClassVar[bool] = False
    volume: Volume
    kind: Literal["purge-volume"] = "purge-volume"

    def __str__(self) -> str:
        return f"delete {self.volume} for good"


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotDisks:
    """All data disks of the VM at one point. Outcome `consistency`: how still the guest was."""

    undoable: ClassVar[bool] = True
    vm: Vm
    snapshot: str
    freeze: bool = True
    kind: Literal["snapshot-disks"] = "snapshot-disks"

    def __str__(self) -> str:
        disks = ", ".join(disk.name for disk in self.vm.data_disks)
        return f"take snapshot {self.snapshot!r} of {disks} of {self.vm.name} at one point"


@dataclass(frozen=True, slots=True, kw_only=True)
class RollbackDisks:
    """Set the disks of a stopped VM back to a snapshot. What came after it is lost."""

    undoable: ClassVar[bool] = False
    vm: Vm
    snapshot: str
    kind: Literal["rollback-disks"] = "rollback-disks"

    def __str__(self) -> str:
        return f"set the disks of {self.vm.name} back to snapshot {self.snapshot!r}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DropSnapshot:
    """Delete a snapshot of all disks; the disks go on as they are."""

    undoable: ClassVar[bool] = False
    vm: Vm
    snapshot: str
    kind: Literal["drop-snapshot"] = "drop-snapshot"

    def __str__(self) -> str:
        return f"delete snapshot {self.snapshot!r} of {self.vm.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class StartDomain:
    undoable: ClassVar[bool] = True
    vm: Vm
    networks: tuple[Network, ...] = ()
    # The cluster's CPU, for a VM that leaves the choice to it; None: the host chooses.
    cpu: Cpu | None = None
    kind: Literal["start-domain"] = "start-domain"

    def __str__(self) -> str:
        return f"start {self.vm.name} on {self.vm.node}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SeeClients:
    """Find out which clients have the disks of a running VM open. Outcome `clients`: by disk."""

    undoable: ClassVar[bool] = True
    vm: Vm
    kind: Literal["see-clients"] = "see-clients"

    def __str__(self) -> str:
        return f"see which clients of {self.vm.node} write the disks of {self.vm.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetDomain:
    """Remove what the host keeps for a VM that is off: UEFI variables, TPM state."""

    undoable: ClassVar[bool] = False
    vm: Vm
    kind: Literal["forget-domain"] = "forget-domain"

    def __str__(self) -> str:
        return f"remove the firmware's and TPM's memory of {self.vm.name} from {self.vm.node}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AskToStop:
    """Ask the guest to shut down and wait until it has. Leaving off is all there is to undo."""

    undoable: ClassVar[bool] = True
    # What an undone plan says that it has left behind.
    leaves: ClassVar[str] = "the VM is off now"
    vm: Vm
    timeout_s: float
    kind: Literal["ask-to-stop"] = "ask-to-stop"

    def __str__(self) -> str:
        return f"ask {self.vm.name} to shut down and wait up to {self.timeout_s:g} s"


@dataclass(frozen=True, slots=True, kw_only=True)
class CutDomain:
    """End the VM at once, as pulling its plug would."""

    undoable: ClassVar[bool] = False
    vm: Vm
    kind: Literal["cut-domain"] = "cut-domain"

    def __str__(self) -> str:
        return f"cut the power of {self.vm.name} on {self.vm.node}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AwaitEnd:
    """Wait until the VM is off by itself: an installer that ends by powering off or rebooting."""

    undoable: ClassVar[bool] = True
    vm: Vm
    timeout_s: float
    kind: Literal["await-end"] = "await-end"

    def __str__(self) -> str:
        return f"wait up to {self.timeout_s:g} s until {self.vm.name} is off by itself"


@dataclass(frozen=True, slots=True, kw_only=True)
class AwaitGuest:
    """Wait until the guest of a VM that was just started is up. Outcome `up_by`: how it was seen.

    When it is not within that time, the plan is undone.
    """

    undoable: ClassVar[bool] = True
    vm: Vm
    timeout_s: float
    # Text that its console has to show; "": a login prompt, its agent or an address will do.
    expect: str = ""
    kind: Literal["await-guest"] = "await-guest"

    def __str__(self) -> str:
        what = f"its console shows {self.expect!r}" if self.expect else "its guest is up"
        return f"wait up to {self.timeout_s:g} s until {what}"


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrateDomain:
    """Move the running VM to another host while it runs. To undo it is to end it on its way.

    A VM that has arrived is not sent back: then the plan goes forward.
    """

    undoable: ClassVar[bool] = True
    goes_on_alone: ClassVar[bool] = True
    # As it is on the host that it leaves.
    vm: Vm
    target: str
    # Where the hosts reach the target's libvirt.
    uri: str
    pause_limit_ms: int
    # 0: as fast as it goes.
    bandwidth_mib_s: int = 0
    # It is paused, and so it stays.
    paused: bool = False
    # It goes on while its memory is sent; else it stands still until all of that has arrived.
    live: bool = True
    # The clients of the host that it leaves, which may linger for a while.
    left: tuple[str, ...] = ()
    # After so long it goes on on the target, which draws the rest of its memory after it; None:
    # it never does.
    postcopy_after_s: float | None = None
    # Its disks as they are on the target. Those that hold other volumes there are copied along.
    disks: tuple[Disk, ...] = ()
    # By NIC: the target's bridge, where it is not called as it is here.
    bridges: dict[str, str] = field(default_factory=dict)
    # The target's NUMA cell that it is put into.
    cell: NumaCell | None = None
    kind: Literal["migrate-domain"] = "migrate-domain"

    @property
    def copied(self) -> tuple[Disk, ...]:
        """Disks that are written while they are copied; what is only read was copied before."""
        before = {disk.name: disk.volume for disk in self.vm.disks}
        return tuple(
            disk
            for disk in self.disks
            if disk.volume != before.get(disk.name) and disk.device == "disk" and not disk.read_only
        )

    @property
    def moved(self) -> Vm:
        """The VM as it is on the target."""
        return replace(
            self.vm,
            node=self.target,
            disks=self.disks or self.vm.disks,
            numa_cell=None if self.cell is None else self.cell.number,
        )

    def __str__(self) -> str:
        with_disks = ", ".join(disk.name for disk in self.copied)
        how = "while it runs" if self.live else "while it stands still"
        return f"move {self.vm.name} from {self.vm.node} to {self.target} {how}" + (
            f", with its disks {with_disks}" if with_disks else ""
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseDomain:
    undoable: ClassVar[bool] = True
    vm: Vm
    kind: Literal["pause-domain"] = "pause-domain"

    def __str__(self) -> str:
        return f"pause {self.vm.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeDomain:
    undoable: ClassVar[bool] = True
    vm: Vm
    kind: Literal["resume-domain"] = "resume-domain"

    def __str__(self) -> str:
        return f"let {self.vm.name} go on"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResetDomain:
    undoable: ClassVar[bool] = False
    vm: Vm
    kind: Literal["reset-domain"] = "reset-domain"

    def __str__(self) -> str:
        return f"press the reset button of {self.vm.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachDisk:
    """Plug a disk into the running VM."""

    undoable: ClassVar[bool] = True
    undo_needs_guest: ClassVar[bool] = True
    vm: Vm
    disk: Disk
    kind: Literal["attach-disk"] = "attach-disk"

    def __str__(self) -> str:
        return f"plug disk {self.disk.name!r} into {self.vm.name} as {self.disk.target}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DetachDisk:
    """Unplug a disk from the running VM, and wait until the guest has let go of it."""

    undoable: ClassVar[bool] = True
    vm: Vm
    disk: Disk
    # How long the guest may take to let go of it.
    timeout_s: float
    kind: Literal["detach-disk"] = "detach-disk"

    def __str__(self) -> str:
        return f"unplug disk {self.disk.name!r} from {self.vm.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachNic:
    undoable: ClassVar[bool] = True
    undo_needs_guest: ClassVar[bool] = True
    vm: Vm
    nic: Nic
    network: Network
    kind: Literal["attach-nic"] = "attach-nic"

    def __str__(self) -> str:
        return f"plug NIC {self.nic.name!r} into {self.vm.name}, on network {self.network.name!r}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DetachNic:
    undoable: ClassVar[bool] = True
    vm: Vm
    nic: Nic
    network: Network
    timeout_s: float
    kind: Literal["detach-nic"] = "detach-nic"

    def __str__(self) -> str:
        return f"unplug NIC {self.nic.name!r} from {self.vm.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeMedia:
    """Put a CD into a running VM's drive, or take it out. `before` is what was in there."""

    undoable: ClassVar[bool] = True
    vm: Vm
    disk: Disk
    before: Disk
    kind: Literal["change-media"] = "change-media"

    def __str__(self) -> str:
        if self.disk.volume is None:
            return f"take the CD out of drive {self.disk.name!r} of {self.vm.name}"
        return f"put {self.disk.volume} into drive {self.disk.name!r} of {self.vm.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SetVcpus:
    undoable: ClassVar[bool] = True
    vm: Vm
    vcpus: int
    before: int
    kind: Literal["set-vcpus"] = "set-vcpus"

    def __str__(self) -> str:
        return f"give the running {self.vm.name} {self.vcpus} vCPUs (now {self.before})"


@dataclass(frozen=True, slots=True, kw_only=True)
class SetMemory:
    undoable: ClassVar[bool] = True
    vm: Vm
    memory_mib: int
    before_mib: int
    kind: Literal["set-memory"] = "set-memory"

    def __str__(self) -> str:
        return f"give the running {self.vm.name} {self.memory_mib} MiB (now {self.before_mib})"


@dataclass(frozen=True, slots=True, kw_only=True)
class EnsureNetwork:
    """The network is there on the node. One that others may use by then is left there."""

    undoable: ClassVar[bool] = True
    node: str
    network: Network
    # The network is new with this plan, so it goes when the plan is undone.
    new: bool = False
    # Of an overlay: where each host is.
    hosts: dict[str, str] = field(default_factory=dict)
    kind: Literal["ensure-network"] = "ensure-network"

    def __str__(self) -> str:
        return f"see that network {self.network.name!r} is there on {self.node}"


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateNetwork:
    """The network on the node is as it is to be from now on; guests on it stay plugged in."""

    undoable: ClassVar[bool] = True
    node: str
    network: Network
    before: Network
    # Of an overlay: where each host is, and where they were.
    hosts: dict[str, str] = field(default_factory=dict)
    hosts_before: dict[str, str] = field(default_factory=dict)
    kind: Literal["update-network"] = "update-network"

    def __str__(self) -> str:
        return f"bring network {self.network.name!r} on {self.node} up to date"


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveNetwork:
    undoable: ClassVar[bool] = True
    node: str
    network: Network
    # Of an overlay: where each host is, should it be made again.
    hosts: dict[str, str] = field(default_factory=dict)
    kind: Literal["remove-network"] = "remove-network"

    def __str__(self) -> str:
        return f"take network {self.network.name!r} off {self.node}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SeeUnused:
    """No domain of the VM is there, and nobody has a disk of it open for writing."""

    undoable: ClassVar[bool] = True
    vm: Vm
    kind: Literal["see-unused"] = "see-unused"

    def __str__(self) -> str:
        return f"see that {self.vm.name} is off and that nobody has its disks open"


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnounceArrival:
    """Tell another cluster which VM is to come, under a mark that is this plan's own."""

    undoable: ClassVar[bool] = True
    # The URI of the other cluster.
    other: str
    arrival: str
    # As it will be there.
    vm: Vm
    kind: Literal["announce-arrival"] = "announce-arrival"

    def __str__(self) -> str:
        return f"tell {self.other} that {self.vm.name} is to come"


@dataclass(frozen=True, slots=True, kw_only=True)
class SendVolume:
    """A full copy, in a pool of another cluster, of a volume that nobody writes."""

    undoable: ClassVar[bool] = True
    other: str
    source: Volume
    # There.
    volume: Volume
    content: Literal["disk", "file"] = "disk"
    kind: Literal["send-volume"] = "send-volume"

    def __str__(self) -> str:
        return f"copy {self.source} to {self.volume} of {self.other}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordArrival:
    """The VM is the other cluster's from here on; it is seen to be off once more just before.

    To undo it is to call the VM back. One that has been recorded there is never called back: then
    the plan goes forward.
    """

    undoable: ClassVar[bool] = True
    goes_on_alone: ClassVar[bool] = True
    other: str
    arrival: str
    # As it is here, and as it will be there.
    vm: Vm
    arriving: Vm
    kind: Literal["record-arrival"] = "record-arrival"

    def __str__(self) -> str:
        return f"record {self.vm.name} as a VM of {self.other}, on {self.arriving.node}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetArrival:
    """Take the mark away that told what became of the VM: nobody will ask any more."""

    undoable: ClassVar[bool] = False
    other: str
    arrival: str
    kind: Literal["forget-arrival"] = "forget-arrival"

    def __str__(self) -> str:
        return f"tell {self.other} that nothing is left of it here"


@dataclass(frozen=True, slots=True, kw_only=True)
class FenceNode:
    """Cut a host off from its power or its disks, and prove it. Outcome `proof`: by what.

    A host that could not be proven cut off stays cut off as far as it is: nothing is taken back
    here, since it may be dead all the same.
    """

    undoable: ClassVar[bool] = True
    leaves: ClassVar[str] = "the host may be cut off in part"
    node: Node
    # Addresses by which its VMs had their disks open.
    clients: tuple[str, ...] = ()
    # VMs of which that is not known for every disk.
    unknown: tuple[str, ...] = ()
    kind: Literal["fence-node"] = "fence-node"

    def __str__(self) -> str:
        return f"cut {self.node.name} off, and prove it"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnfenceNode:
    """End what still runs on a host that was cut off, see that it is gone, then let it in again.

    `keep`: it was never proven cut off, nothing of it was started elsewhere, so what runs may stay.
    """

    undoable: ClassVar[bool] = True
    leaves: ClassVar[str] = "the host is cleaned up in part"
    node: Node
    clients: tuple[str, ...] = ()
    keep: bool = False
    kind: Literal["unfence-node"] = "unfence-node"

    def __str__(self) -> str:
        if self.keep:
            return f"let {self.node.name} at the disks again"
        return f"end what is left of the VMs on {self.node.name}, then let it at the disks again"


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Save:
    """Write one document of the store: `after`, or its deletion (None).

    It and the mark in the journal that it is done are one commit. `fill` puts outcomes of earlier
    steps into the document: {"disks.0.size_bytes": "local/image.debian size_bytes"}.
    """

    undoable: ClassVar[bool] = True
    key: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    fill: dict[str, str] = field(default_factory=dict)
    kind: Literal["save"] = "save"

    def __str__(self) -> str:
        kind, _, name = self.key.partition("/")
        if self.after is None:
            return f"forget {kind} {name!r}"
        return f"record {kind} {name!r}" if self.before is None else f"update {kind} {name!r}"


Step = Annotated[
    CreateVolume
    | CloneVolume
    | CopyVolume
    | CarryVolume
    | ImportVolume
    | LinkVolume
    | SeeReadable
    | FillVolume
    | WriteIso
    | ExtractFile
    | ExtendInitrd
    | GrowVolume
    | FlattenVolume
    | SparsifyVolume
    | ExportVolume
    | PlaceFile
    | MoveDisk
    | LimitDisk
    | BaseVolume
    | TrashVolume
    | RestoreVolume
    | PurgeVolume
    | SnapshotDisks
    | RollbackDisks
    | DropSnapshot
    | StartDomain
    | SeeClients
    | ForgetDomain
    | AskToStop
    | CutDomain
    | AwaitEnd
    | AwaitGuest
    | MigrateDomain
    | PauseDomain
    | ResumeDomain
    | ResetDomain
    | AttachDisk
    | DetachDisk
    | AttachNic
    | DetachNic
    | ChangeMedia
    | SetVcpus
    | SetMemory
    | EnsureNetwork
    | UpdateNetwork
    | RemoveNetwork
    | SeeUnused
    | AnnounceArrival
    | SendVolume
    | RecordArrival
    | ForgetArrival
    | FenceNode
    | UnfenceNode
    | Save,
    Field(discriminator="kind"),
]


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Steps, the sentence that says why, and what they rest on.

    `claims` are the documents ("vm/web") that nobody else may work on meanwhile; `reads` are the
    versions they were decided from. Both are checked in the one commit that opens the journal.
    """

    verb: str
    subject: str
    why: str
    steps: tuple[Step, ...] = ()
    claims: tuple[str, ...] = ()
    reads: dict[str, int] = field(default_factory=dict)
    # What it is expected to come to, in figures, where that was reckoned beforehand.
    expected: dict[str, Any] = field(default_factory=dict)
    # Documents that are written when it begins, by the version that they have before: of two plans
    # that were decided from the same state, and must not both be, one is decided anew.
    turns: dict[str, int] = field(default_factory=dict)

    @property
    def empty(self) -> bool:
        return not self.steps

    def __str__(self) -> str:
        lines = [f"{self.verb} {self.subject}: {self.why}"]
        lines += [f"  {number}. {step}" for number, step in enumerate(self.steps, 1)]
        return "\n".join(lines if self.steps else [*lines, "  nothing to do"])


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Journal:
    """How far a plan is: the document that lets another process finish or undo it.

    Forward, the steps before `position` are done and the one at it may be done in part; backward,
    the steps after it are undone and the one at it may be undone in part. `runner` identifies the
    process at work (empty: nobody), `beat_at` is when it was last heard of. `epoch` is that of the
    lease under which it works; 0: under none.
    """

    id: str
    plan: Plan
    runner: dict[str, Any]
    beat_at: float
    position: int = 0
    direction: Literal["forward", "backward"] = "forward"
    outcomes: dict[str, Any] = field(default_factory=dict)
    problem: dict[str, Any] | None = None
    epoch: int = 0
