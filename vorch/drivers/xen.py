"""`XenHost`: a libvirt host that runs Xen, by libvirt's libxl driver.

What that driver lacks is met in another way where there is one (figures are asked for domain by
domain), and otherwise refused by one table, `LACKS`, before anything was touched. A host's facts
have it, too, for whoever plans and whoever wants to know.
"""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Literal, TypeVar

from vorch import domain_xml, xen_guests, xen_xml
from vorch.aside import side_by_side
from vorch.decide.abilities import LIVE_PV
from vorch.domain_xml import Element
from vorch.drivers import xen_migration
from vorch.drivers.libvirt_connection import (
    OPEN_TIMEOUT_S,
    Handle,
    code_of,
    libvirt,
    reason_of,
)
from vorch.drivers.libvirt_figures import power_of, version_text
from vorch.drivers.libvirt_host import REMOTE_CALLS, LibvirtHost
from vorch.drivers.libvirt_migration import Way
from vorch.drivers.ssh import Shell
from vorch.drivers.xen_disks import PLACE, XenDisks
from vorch.errors import Conflict, StepFailed, Unsupported, VorchError
from vorch.model import (
    WAITS_FOR_DISK,
    Check,
    Cpu,
    Disk,
    DiskFigures,
    Domain,
    Figures,
    HostFacts,
    HostFigures,
    MoveFigures,
    Network,
    Nic,
    NicFigures,
    Node,
    Power,
    RbdSource,
    Source,
    Vm,
)
from vorch.ports import Progress

T = TypeVar("T")

# The dom0 shows itself as a domain; it is the host, not a guest.
DOM0 = 0
SSH_TIMEOUT_S = 30.0
# Those that are not there.
SEE_FILES = 'for file; do test -e "$file" || echo "$file"; done'
# A guest's kernel reads its disk as soon as it has it.
READS_AFTER_S = 30.0
# So long libxl waits for its scripts, which make a guest's disks and cards, and kills them then.
SCRIPT_TIMEOUT_S = 40.0
NOT_YET = "vorch does not do it on Xen hosts yet"

# Verb of the port → why a Xen host cannot. What is not here, it can.
LACKS: Mapping[str, str] = {
    "reset": "libvirt's driver for Xen has no reset; cut the VM and start it",
    "snapshot": "libvirt's driver for Xen has no snapshots; stop the VM for one",
    "drop_snapshot": "libvirt's driver for Xen has no snapshots; stop the VM first",
    "change_media": "PV and PVH guests have no CD drives, and libvirt changes none of an HVM guest",
    "grow_disk": "libvirt's driver for Xen grows no disk; stop the VM for that",
    "copy_disk": "libvirt's driver for Xen copies no disk; stop the VM for that",
    "switch_disk": "libvirt's driver for Xen copies no disk; stop the VM for that",
    "has_disk_at": "libvirt's driver for Xen copies no disk",
    "flatten_disk": "libvirt's driver for Xen flattens no disk; stop the VM for that",
    "limit_disk": "libvirt's driver for Xen sets no limits on disks",
    "write_rate_mib_s": "libvirt's driver for Xen does not tell how fast a guest writes to memory",
    "common_cpu": "libvirt's driver for Xen compares no processors",
    "try_move": NOT_YET,
}

# What it is asked for in vain rather than refused: nothing depends on an answer.
WITHOUT: Mapping[str, str] = {
    "freeze": "guests of Xen have no agent; what they have written by then is what a copy holds",
    "addresses": "libvirt's driver for Xen tells of none; the guest's console does",
    "display": "PV and PVH guests have no screen; they have a console",
}


class XenHost(LibvirtHost):
    """xen:///system and the same from afar."""

    # The dom0 serves the disks and cards of all guests by the few processors that it has, and its
    # libvirtd is kept waiting. Whether a host is lost is judged by other limits than this one.
    KEEPALIVE_COUNT = 10
    # libvirt ends a guest that reboots and starts it anew.
    counts_runs = True

    # With the number of the connection that it was found by.
    _static: tuple[int, HostFacts] | None = None

    def __init__(
        self,
        node: Node,
        *,
        clock: Callable[[], float] = time.time,
        timeout_s: float = OPEN_TIMEOUT_S,
    ) -> None:
        super().__init__(node, clock=clock, timeout_s=timeout_s)
        self._starting = threading.Lock()
        self._shell = Shell(node)
        self._disks = XenDisks(self._shell)
        # The longest that each run of a domain was told to have had of a processor.
        self._run: dict[tuple[str, int], int] = {}
        # Of each run: when it was first seen running; None: it has read from its disk.
        self._unread: dict[tuple[str, int], float | None] = {}

    def _refuse(self, verb: str) -> Unsupported:
        return Unsupported(
            f"cannot {verb.replace('_', ' ')} on {self.node.name!r}, which runs Xen: {LACKS[verb]}",
            node=self.node.name,
            verb=verb,
        )

    # -- facts ------------------------------------------------------------------------------

    def facts(self) -> HostFacts:
        if self._static is None or self._static[0] != self.connection.opened:
            facts = self._call("see what there is", self._look)
            self._static = (self.connection.opened, facts)
        return self._static[1]

    @staticmethod
    def _look(handle: Handle) -> HostFacts:
        info = handle.getInfo()
        # There are no machine types beside the kinds of guests.
        offered = domain_xml.parse(handle.getCapabilities()).iterfind("guest/arch/machine")
        machines = {str(one.text) for one in offered}
        return HostFacts(
            hypervisor="xen",
            cpus=int(info[2]),
            memory_mib=int(info[1]),
            architecture=str(info[0]),
            accelerator="xen",
            accelerator_why="guests run under Xen itself",
            libvirt_version=version_text(handle.getLibVersion()),
            hypervisor_version=f"Xen {version_text(handle.getVersion())}",
            xen_kinds=tuple(one for one, name in xen_xml.MACHINES.items() if name in machines),
            networks=False,
            display_socket=False,
            lacks={**LACKS, **WITHOUT},
        )

    def probe(self, progress: Progress) -> HostFacts:
        progress(percent=100.0, line=f"{self.node.name} runs Xen: there is nothing to boot")
        facts = self.facts()
        return replace(facts, lacks={**facts.lacks, **self._of_live_pv(), **self._of_grubs()})

    def _of_live_pv(self) -> Mapping[str, str]:
        """What Xen itself tells, and libvirt does not hand on. Without a way in nobody knows."""
        try:
            told = self._shell.run(["xl", "info"], timeout_s=SSH_TIMEOUT_S).decode()
        except VorchError:
            return {}
        able = next((line for line in told.splitlines() if line.startswith("virt_caps")), "")
        if not able or "shadow" in able.split():
            return {}
        return {
            LIVE_PV: "its Xen is built without shadow paging, by which a PV guest that runs is"
            " followed; it stands still on its way (--still)"
        }

    def _of_grubs(self) -> Mapping[str, str]:
        """Which files for guests that read their disks themselves are not there."""
        try:
            places = xen_guests.GRUBS.values()
            told = self._shell.run(["sh", "-c", SEE_FILES, "sh", *places], timeout_s=SSH_TIMEOUT_S)
        except VorchError:
            return {}
        absent = told.decode().splitlines()
        return {
            xen_guests.LOADERS[kind]: xen_guests.no_grub(kind)
            for kind, place in xen_guests.GRUBS.items()
            if place in absent
        }

    # -- domains ----------------------------------------------------------------------------

    def _domain(self, domain: Handle, state: int, reason: int) -> Domain | None:
        """libvirt calls a guest shut off before Xen has let go of its disks.

        Only when libvirt knows nothing of it any more, they are free for another host.
        """
        try:
            seen = super()._domain(domain, state, reason)
        except libvirt.libvirtError as exc:
            if not _ended(exc):
                raise
            return self._cleared_away(domain)
        if seen is None:
            return None
        if seen.power is Power.STOPPED:
            try:
                ending = not domain.isPersistent()
            except libvirt.libvirtError as exc:
                if code_of(exc) != libvirt.VIR_ERR_NO_DOMAIN:
                    raise
                return None
            return replace(seen, power=Power.STOPPING) if ending else seen
        seen = replace(seen, cpu_time_ns=self._run_ns(domain, seen.cpu_time_ns))
        if seen.power is Power.RUNNING and self._waits_for_disk(domain):
            seen = replace(seen, reason=WAITS_FOR_DISK)
        return seen

    def _waits_for_disk(self, domain: Handle) -> bool:
        """That libxl has started a guest does not say that it was given its disk."""
        key = (domain.UUIDString(), domain.ID())
        since = self._unread.setdefault(key, self._clock())
        if since is None or self._clock() - since < READS_AFTER_S:
            return False
        try:
            disks = domain_xml.read_domain(domain.XMLDesc(0)).disks
            reads = max((domain.blockStats(one.target)[0] for one in disks), default=1)
        except libvirt.libvirtError:
            # It ended just now, or its disk is one that libxl tells nothing of.
            reads = 1
        if reads > 0:
            self._unread[key] = None
        return reads <= 0

    def _cleared_away(self, domain: Handle) -> Domain | None:
        """Xen knows it no more, and libvirt still clears away: its images are unmapped."""
        try:
            vm_id, name = domain.UUIDString(), domain.name()
            mark = self._mark(domain, (vm_id, domain.ID()))
            memory_mib = int(domain.maxMemory()) // 1024
        except libvirt.libvirtError as exc:
            if not _ended(exc):
                raise
            return None
        return Domain(
            id=vm_id,
            name=mark.vm if mark else name,
            node=self.node.name,
            power=Power.STOPPING,
            vcpus=1,
            memory_mib=memory_mib,
            generation=mark.generation if mark else 0,
            ours=mark is not None,
        )

    def _run_ns(self, domain: Handle, told_ns: int) -> int:
        """How long it has run, which never gets less.

        Xen reckons that with the clock of the processor that it is asked on, and those differ.
        """
        key = (domain.UUIDString(), domain.ID())
        self._run[key] = max(told_ns, self._run.get(key, 0))
        return self._run[key]

    def domains(self) -> tuple[Domain, ...]:
        """libxl has no bulk call: a few small ones for each domain, side by side from afar."""

        def look(domain: Handle) -> Domain | None:
            try:
                state, reason = domain.state()
            except libvirt.libvirtError as exc:
                # It ended just now.
                if code_of(exc) != libvirt.VIR_ERR_NO_DOMAIN:
                    raise
                return None
            return self._domain(domain, state, reason)

        def work(handle: Handle) -> tuple[Domain, ...]:
            found = _guests(handle)
            if self.connection.local or len(found) < 2:
                seen = [look(one) for one in found]
            else:
                seen = side_by_side(look, found, most=REMOTE_CALLS)
            now = {(domain.UUIDString(), domain.ID()) for domain in found}
            self._marks = {key: mark for key, mark in self._marks.items() if key in now}
            self._run = {key: ns for key, ns in self._run.items() if key in now}
            self._unread = {key: at for key, at in self._unread.items() if key in now}
            return tuple(one for one in seen if one is not None)

        return self._call("list the domains", work)

    def _create(
        self,
        handle: Handle,
        vm: Vm,
        name: str,
        sources: Mapping[str, Source],
        networks: Mapping[str, Network],
        facts: HostFacts,
        cpu: Cpu | None,
        flags: int,
    ) -> None:
        text = xen_xml.xen_domain_xml(
            vm, name=name, sources=sources, networks=networks, facts=facts
        )
        # Xen's script for disks has its time, and many at once make each other late.
        with self._starting:
            self._check_unshared(handle, vm, sources)
            domain = self._patiently(lambda: handle.createXML(text, flags))
        # libxl says that it is made before the guest has executed anything.
        try:
            power, _ = power_of(*domain.state())
        except libvirt.libvirtError as exc:
            if code_of(exc) != libvirt.VIR_ERR_NO_DOMAIN:
                raise
            power = Power.STOPPED
        if power in (Power.STOPPED, Power.CRASHED):
            raise StepFailed(
                f"cannot start VM {vm.name!r} on {self.node.name!r}: its guest ended at once; see"
                " whether its kernel is one for Xen, and its log in /var/log/xen/console there",
                vm=vm.name,
                node=self.node.name,
            )

    def _patiently(self, act: Callable[[], T]) -> T:
        """libvirt does not tell why Xen did not; what takes so long to fail ran out of time."""
        began = self._clock()
        try:
            return act()
        except libvirt.libvirtError as exc:
            late = self._clock() - began >= SCRIPT_TIMEOUT_S
            if not late or code_of(exc) != libvirt.VIR_ERR_INTERNAL_ERROR:
                raise
        # Nothing of it is left, and the host may be less busy by now.
        return act()

    def _check_unshared(self, handle: Handle, vm: Vm, sources: Mapping[str, Source]) -> None:
        """QEMU locks its files, Xen's kernel does not: two guests would write to one disk."""
        wanted = {
            xen_xml.place_of(sources[disk.name]): disk for disk in vm.disks if disk.name in sources
        }
        for other in _guests(handle):
            try:
                seen = domain_xml.read_domain(other.XMLDesc(0))
            except libvirt.libvirtError as exc:
                # It ended just now.
                if code_of(exc) != libvirt.VIR_ERR_NO_DOMAIN:
                    raise
                continue
            for theirs in seen.disks:
                ours = wanted.get(theirs.path or "")
                if ours is not None and not (ours.read_only and theirs.read_only):
                    raise Conflict(
                        f"cannot start VM {vm.name!r} on {self.node.name!r}: its disk"
                        f" {ours.name!r} is open there, by {seen.name!r}; end that first",
                        vm=vm.name,
                        disk=ours.name,
                    )

    def forget(self, vm: Vm) -> None:
        """A guest of Xen leaves nothing on its host."""

    # -- devices ----------------------------------------------------------------------------

    def _nic_xml(self, vm: Vm, nic: Nic, network: Network) -> str:
        return xen_xml.nic_xml(vm, nic, network)

    def _ask_out(self, domain: Handle, device: Element, again: bool) -> None:
        """libxl finds a device by what it looks like, not by its alias, and waits for its end."""
        text = domain_xml.to_text(device)
        if device.tag != "disk":
            domain.detachDeviceFlags(text, libvirt.VIR_DOMAIN_AFFECT_LIVE)
            return
        with self._gone_is_well():
            try:
                domain.detachDeviceFlags(text, libvirt.VIR_DOMAIN_AFFECT_LIVE)
            except libvirt.libvirtError:
                # A guest that is still booting has not heard of it: it is asked again.
                return
            self._let_go(domain, domain_xml.place_of(device) or "")

    # -- moves ------------------------------------------------------------------------------

    def _direction(self, domain: Handle) -> Literal["in", "out", "torn"] | None:
        return xen_migration.direction(domain)

    def _send(self, domain: Handle, way: Way, progress: Progress) -> MoveFigures:
        """How long the pause is and how fast it goes is Xen's own affair; it never goes over."""
        what = f"move VM {way.vm.name!r} to {way.node!r}"
        if way.copies or way.elsewhere:
            raise Unsupported(
                f"cannot {what} with its disks: libvirt's driver for Xen copies none along; move"
                " them to a pool that both hosts reach first",
                vm=way.vm.name,
            )
        try:
            return xen_migration.send(domain, way, progress)
        except libvirt.libvirtError as exc:
            if not (way.live and way.vm.xen_kind == "pv" and _went_wrong_inside(exc)):
                raise
            # What lies behind it is in the log of the host alone.
            raise StepFailed(
                f"cannot {what} while it goes on: {reason_of(exc)}. Most hypervisors are built"
                " without what PV guests need for that (shadow paging, for log-dirty mode); let it"
                f" stand still while its memory is sent (vorch migrate {way.vm.name} --still)",
                vm=way.vm.name,
                node=way.node,
            ) from exc

    def _follow(self, domain: Handle, progress: Progress) -> MoveFigures:
        return xen_migration.follow(domain, progress)

    def _end_move(self, domain: Handle, what: str) -> None:
        """Xen cannot end it, so its end is waited for."""
        xen_migration.await_end(domain, what)

    def moved_figures(self, vm_id: str) -> MoveFigures | None:
        """libxl keeps none."""
        return None

    # -- images in RBD, by the hook and by ssh -----------------------------------------------

    def clock(self) -> tuple[float, float]:
        # The first one has a connection to make.
        self._shell.run(["true"], timeout_s=SSH_TIMEOUT_S)
        before = self._clock()
        said = self._shell.run(["date", "+%s.%N"], timeout_s=SSH_TIMEOUT_S)
        after = self._clock()
        return float(said) - (before + after) / 2, (after - before) / 2

    def hook_lack(self) -> str:
        lack = self._disks.lack()
        return lack or self._call("see whether libvirt runs vorch's hook", self._deaf)

    def _deaf(self, handle: Handle) -> str:
        """By a guest that the hook refuses, and that cannot be started in any case."""
        try:
            handle.createXML(xen_xml.refused_xml(f"vorch-hook-{uuid.uuid4().hex[:8]}"), 0).destroy()
        except libvirt.libvirtError as exc:
            if xen_xml.REFUSED in str(exc):
                return ""
        return "libvirt does not run vorch's hook there, as if it had not read its settings since"

    def hook_way(self) -> str:
        return f"{PLACE}, as {self._shell.way or 'root on this machine'}"

    def install_hook(self) -> None:
        self._disks.install()

    def remove_hook(self) -> None:
        self._disks.remove()

    def release_volumes(self) -> tuple[str, ...]:
        return self._disks.release()

    def sweep(self) -> None:
        # Where there is no way by ssh, or no hook, it has left nothing that could be had.
        with contextlib.suppress(VorchError):
            self._disks.sweep()

    def try_source(
        self, name: str, source: Source, while_open: Callable[[], None] | None = None
    ) -> None:
        if not isinstance(source, RbdSource):
            raise Unsupported(
                f"cannot try {source.path} on {self.node.name!r}: of files a Xen host has those of"
                " its own alone; use a pool in Ceph for what all hosts share",
                node=self.node.name,
            )
        self._disks.map(source)
        try:
            if while_open is not None:
                while_open()
        finally:
            self._disks.unmap(xen_xml.device_of(source))

    def attach_disk(self, vm: Vm, disk: Disk, source: Source | None) -> None:
        text = xen_xml.disk_xml(vm, disk, source)

        def work(domain: Handle) -> None:
            if domain_xml.find_disk(self._live_xml(domain), disk.name) is not None:
                return
            if isinstance(source, RbdSource):
                # libvirt runs no hook for this. When the guest reboots it does, by the mark.
                self._disks.map(source, read_only=disk.read_only)
                self._remark(domain, lambda mark: xen_xml.add_image(mark, disk, source))
            try:
                self._patiently(
                    lambda: domain.attachDeviceFlags(text, libvirt.VIR_DOMAIN_AFFECT_LIVE)
                )
            except BaseException:
                with contextlib.suppress(VorchError, libvirt.libvirtError):
                    self._let_go(domain, xen_xml.place_of(source) if source else "")
                raise

        self._on_domain(f"plug disk {disk.name!r} into VM {vm.name!r}", vm.id, work)

    def _let_go(self, domain: Handle, place: str) -> None:
        if place.startswith(f"{xen_xml.LINKS}/"):
            self._remark(domain, lambda mark: xen_xml.drop_image(mark, place))
            self._disks.unmap(place)

    @staticmethod
    def _remark(domain: Handle, change: Callable[[Element], None]) -> None:
        """Change what stands in vorch's mark of a guest that runs."""
        kind, namespace = libvirt.VIR_DOMAIN_METADATA_ELEMENT, domain_xml.NAMESPACE
        mark = domain_xml.parse(domain.metadata(kind, namespace, 0))
        change(mark)
        text = domain_xml.to_text(mark)
        flags = libvirt.VIR_DOMAIN_AFFECT_LIVE
        domain.setMetadata(kind, text, domain_xml.PREFIX, namespace, flags)

    # -- what the table refuses -------------------------------------------------------------

    def common_cpu(self, cpus: Sequence[Cpu]) -> Cpu:
        raise self._refuse("common_cpu")

    def try_move(self, identifier: str, uri: str, cpu: Cpu | None = None) -> None:
        raise self._refuse("try_move")

    def write_rate_mib_s(self, vm_id: str, for_s: int) -> float:
        raise self._refuse("write_rate_mib_s")

    def reset(self, vm_id: str) -> None:
        raise self._refuse("reset")

    def snapshot(self, vm: Vm, disks: Sequence[Disk], snapshot: str) -> None:
        raise self._refuse("snapshot")

    def drop_snapshot(self, vm: Vm, disks: Sequence[Disk], snapshot: str) -> None:
        raise self._refuse("drop_snapshot")

    def change_media(self, vm: Vm, disk: Disk, source: Source | None) -> None:
        raise self._refuse("change_media")

    def grow_disk(self, vm: Vm, disk: Disk, size_bytes: int) -> None:
        raise self._refuse("grow_disk")

    def copy_disk(self, vm: Vm, disk: Disk, source: Source, progress: Progress) -> None:
        raise self._refuse("copy_disk")

    def switch_disk(self, vm: Vm, disk: Disk, source: Source) -> None:
        raise self._refuse("switch_disk")

    def has_disk_at(self, vm: Vm, disk: Disk, source: Source) -> bool:
        raise self._refuse("has_disk_at")

    def flatten_disk(self, vm: Vm, disk: Disk, progress: Progress) -> None:
        raise self._refuse("flatten_disk")

    def end_disk_job(self, vm: Vm, disk: Disk) -> None:
        """None can have begun."""

    def limit_disk(self, vm: Vm, disk: Disk) -> None:
        raise self._refuse("limit_disk")

    # -- figures ----------------------------------------------------------------------------

    def figures(self, vm: Vm, *, now: float) -> Figures:
        what = f"take the figures of VM {vm.name!r}"
        return self._on_domain(what, vm.id, lambda domain: self._figures(domain, now))

    def host_figures(self, *, now: float) -> HostFigures:
        """The dom0's share is in the time that its processors were busy, as its own domain's."""

        def work(handle: Handle) -> HostFigures:
            everything = handle.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)
            busy_ns, vms = 0, {}
            for domain in everything:
                try:
                    busy_ns += self._run_ns(domain, int(domain.info()[4]))
                    if domain.ID() != DOM0:
                        vms[domain.UUIDString()] = self._figures(domain, now)
                except libvirt.libvirtError as exc:
                    # It ended while it was looked at.
                    if not _ended(exc):
                        raise
            info = handle.getInfo()
            free_mib = int(handle.getFreeMemory()) // 1024**2
            return HostFigures(
                at=now,
                cpus=int(info[2]),
                cpu_time_ns=busy_ns,
                memory_mib=int(info[1]),
                memory_used_mib=max(0, int(info[1]) - free_mib),
                vms=vms,
            )

        return self._call("take the figures of the host", work)

    def _figures(self, domain: Handle, now: float) -> Figures:
        state, reason = domain.state()
        _, _, memory_kib, vcpus, cpu_time_ns = domain.info()
        seen = domain_xml.read_domain(domain.XMLDesc(0))
        disks = []
        for disk in seen.disks:
            if disk.format not in ("", "raw"):
                # Of what a QEMU serves libxl tells nothing, and is not asked in vain.
                continue
            try:
                reads, read_bytes, writes, written_bytes, _ = domain.blockStats(disk.target)
            except libvirt.libvirtError as exc:
                if code_of(exc) != libvirt.VIR_ERR_OPERATION_UNSUPPORTED:
                    raise
                continue
            disks.append(
                DiskFigures(
                    name=disk.name or disk.target,
                    read_bytes=max(0, read_bytes),
                    written_bytes=max(0, written_bytes),
                    reads=max(0, reads),
                    writes=max(0, writes),
                )
            )
        nics = []
        for nic in seen.nics:
            received, packets, _, _, sent, sent_packets, _, _ = domain.interfaceStats(nic.mac)
            nics.append(
                NicFigures(
                    name=nic.name or nic.mac,
                    received_bytes=received,
                    sent_bytes=sent,
                    received_packets=packets,
                    sent_packets=sent_packets,
                )
            )
        return Figures(
            at=now,
            power=power_of(state, reason)[0],
            vcpus=int(vcpus),
            cpu_time_ns=self._run_ns(domain, int(cpu_time_ns)),
            memory_mib=int(memory_kib) // 1024,
            disks=tuple(disks),
            nics=tuple(nics),
        )

    # -- the host ---------------------------------------------------------------------------

    def close(self) -> None:
        super().close()
        self._shell.close()

    def checks(self, folders: Sequence[str] = ()) -> tuple[Check, ...]:
        found = super().checks(folders)
        if any(check.level == "error" for check in found):
            return found
        facts = self.facts()
        kinds = ", ".join(facts.xen_kinds)
        detail = f"{facts.hypervisor_version}; kinds of guests: {kinds or 'none that vorch starts'}"
        level: Literal["ok", "error"] = "ok" if kinds else "error"
        remedy = "" if kinds else "install libvirt's driver for Xen (libvirt-daemon-driver-xen)"
        return (*found, Check(name="xen", level=level, detail=detail, remedy=remedy))


def _went_wrong_inside(exc: libvirt.libvirtError) -> bool:
    """libxl's own failure, not a host that does not answer or a name that is not known."""
    return bool(code_of(exc) == libvirt.VIR_ERR_INTERNAL_ERROR)


def _guests(handle: Handle) -> list[Handle]:
    return [one for one in handle.listAllDomains() if one.ID() != DOM0]


def _ended(exc: libvirt.libvirtError) -> bool:
    """It did while it was looked at; of what Xen itself says, libvirt gives no code of its own."""
    gone = (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID)
    return code_of(exc) in gone or "libxl_domain_info failed" in str(exc)
