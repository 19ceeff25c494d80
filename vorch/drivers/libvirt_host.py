"""`LibvirtHost`: the part of the Hypervisor port that is the same on every libvirt host.

Domains are transient. Every call finds out first how things are, and so is safe to repeat. What
only one kind of host can do (snapshots inside disks, the guest's agent, the accelerator) is in the
classes built on this one.
"""

from __future__ import annotations

import base64
import contextlib
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeVar

from vorch import domain_xml
from vorch.aside import side_by_side
from vorch.availability import Ending
from vorch.domain_xml import Element, Mark
from vorch.drivers import libvirt_disks, libvirt_migration, libvirt_networks, libvirt_xml
from vorch.drivers.libvirt_connection import (
    KEEPALIVE_COUNT,
    OPEN_TIMEOUT_S,
    Connection,
    Handle,
    code_of,
    libvirt,
    reason_of,
)
from vorch.drivers.libvirt_console import SocketConsole, StreamConsole
from vorch.drivers.libvirt_events import LibvirtEvents
from vorch.drivers.libvirt_figures import (
    merge_addresses,
    neighbours,
    power_of,
    read_figures,
    routes,
    version_text,
)
from vorch.drivers.libvirt_migration import Way
from vorch.drivers.libvirt_unplug import unplug
from vorch.errors import Conflict, Invalid, NotFound, TimedOut, Unsupported, VorchError
from vorch.model import (
    Address,
    Check,
    Cpu,
    Disk,
    DiskBus,
    Domain,
    Figures,
    Firmware,
    HostFacts,
    HostFigures,
    MoveFigures,
    Network,
    Nic,
    Node,
    NumaCell,
    Power,
    Source,
    Vm,
)
from vorch.ports import NO_SOURCES, Console, HostSecret, Progress, Subscription

T = TypeVar("T")

POLL_S = 0.2
CUT_TIMEOUT_S = 30.0
# For a disk to be opened by a machine that is on trial.
TRIAL_TIMEOUT_S = 20.0
# Calls that are on their way to a distant host at the same time.
REMOTE_CALLS = 16
# How long it is taken for granted that a host can have a network that it could have.
TRIAL_HOLDS_S = 20.0

_STATS = (
    libvirt.VIR_DOMAIN_STATS_STATE
    | libvirt.VIR_DOMAIN_STATS_CPU_TOTAL
    | libvirt.VIR_DOMAIN_STATS_BALLOON
    | libvirt.VIR_DOMAIN_STATS_VCPU
)
_LIVE = libvirt.VIR_DOMAIN_AFFECT_LIVE
# A start whose caller was lost may take so long; each look at it waits for half a minute.
START_UNDER_WAY_S = 120.0


class LibvirtHost:
    """One host, by the URI of its node. `facts` and `probe` are for the kinds of host to say."""

    # Its daemon may leave so many questions whether it is there without an answer.
    KEEPALIVE_COUNT = KEEPALIVE_COUNT
    # A guest of QEMU that reboots is the same process all the while.
    counts_runs = False

    def __init__(
        self,
        node: Node,
        *,
        clock: Callable[[], float] = time.time,
        timeout_s: float = OPEN_TIMEOUT_S,
    ) -> None:
        self.node = node
        self.connection = Connection(
            node.uri, open_timeout_s=timeout_s, keepalive_count=self.KEEPALIVE_COUNT
        )
        self._events = LibvirtEvents(self.connection)
        self._clock = clock
        # vorch's mark of each running domain, by UUID and libvirt's number of that run, which is
        # new at each start. A list of a hundred domains is one call then, not a hundred and one.
        self._marks: dict[tuple[str, int], Mark | None] = {}
        # Folders on file systems that cannot bypass the host's cache.
        self._cached_folders: set[str] = set()
        # The keys that this connection's daemon was given.
        self._secrets: set[tuple[int, str, str]] = set()
        # When this connection's daemon was last seen to be able to have a network.
        self._tried: dict[tuple[int, str], float] = {}

    # -- what the kinds of host say ---------------------------------------------------------

    def facts(self) -> HostFacts:
        raise NotImplementedError

    def _start_facts(self) -> HostFacts:
        """The facts that a VM is started by; the accelerator is known in them."""
        return self.facts()

    def _nvram(self, vm: Vm) -> str:
        """The host's file for the variables of a VM's UEFI; "" leaves the choice to libvirt."""
        return ""

    def _nic_xml(self, vm: Vm, nic: Nic, network: Network) -> str:
        """A card as it is plugged into a guest that runs."""
        return domain_xml.nic_xml(vm, nic, network, self.facts())

    def _ask_out(self, domain: Handle, device: Element, again: bool) -> None:
        """Tell the guest to let go of a device."""
        alias = domain_xml.attribute_of(device, "alias", "name")
        try:
            domain.detachDeviceAlias(alias, _LIVE)
        except libvirt.libvirtError as exc:
            granted = code_of(exc) in (libvirt.VIR_ERR_DEVICE_MISSING, libvirt.VIR_ERR_NO_DOMAIN)
            # Asked for the second time, QEMU complains that the first is on its way still.
            if not again and not granted:
                raise

    # How a guest gets to another host. Where it is on its way counts, whoever began that.

    def _direction(self, domain: Handle) -> Literal["in", "out", "torn"] | None:
        return libvirt_migration.direction(domain)

    def _send(self, domain: Handle, way: Way, progress: Progress) -> MoveFigures:
        while True:
            cached = frozenset(n for n, source in way.copies.items() if self._is_cached(source))
            try:
                return libvirt_migration.send(domain, replace(way, cached=cached), progress)
            except libvirt.libvirtError as exc:
                if not self._learn_cached(exc, way.copies.values()):
                    raise

    def _follow(self, domain: Handle, progress: Progress) -> MoveFigures:
        return libvirt_migration.follow(domain, progress)

    def _end_move(self, domain: Handle, what: str) -> None:
        libvirt_migration.abort(domain, what)

    def _press_power_button(self, domain: Handle) -> None:
        domain.shutdown()

    def _agent_answers(self, domain: Handle) -> bool:
        return False

    def _is_frozen(self, domain: Handle) -> bool:
        return False

    # -- finding things ---------------------------------------------------------------------

    def _call(self, what: str, work: Callable[[Handle], T]) -> T:
        return self.connection.call(f"{what} on {self.node.name!r}", work)

    @staticmethod
    def _find(handle: Handle, vm_id: str) -> Handle | None:
        """The domain, running or not; None when the host knows of none."""
        try:
            return handle.lookupByUUIDString(vm_id)
        except libvirt.libvirtError as exc:
            if code_of(exc) == libvirt.VIR_ERR_NO_DOMAIN:
                return None
            raise

    def _running(self, handle: Handle, vm_id: str, what: str) -> Handle:
        domain = self._find(handle, vm_id)
        if domain is None or not domain.isActive():
            raise NotFound(
                f"cannot {what}: it is not running on {self.node.name!r}; start it first",
                vm_id=vm_id,
                node=self.node.name,
            )
        return domain

    def _on_domain(self, what: str, vm_id: str, work: Callable[[Handle], T]) -> T:
        """`work` with the running domain; NotFound when there is none."""
        return self._call(what, lambda handle: work(self._running(handle, vm_id, what)))

    @staticmethod
    @contextmanager
    def _gone_is_well() -> Iterator[None]:
        """The domain ended while it was being asked: what was wanted is so, or no matter."""
        try:
            yield
        except libvirt.libvirtError as exc:
            if code_of(exc) not in (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID):
                raise

    # -- domains ----------------------------------------------------------------------------

    def _mark(self, domain: Handle, key: tuple[str, int]) -> Mark | None:
        if key in self._marks:
            return self._marks[key]
        try:
            text = domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, domain_xml.NAMESPACE, 0)
            mark = domain_xml.read_mark(domain_xml.parse(text))
        except libvirt.libvirtError as exc:
            if code_of(exc) not in (
                libvirt.VIR_ERR_NO_DOMAIN_METADATA,
                libvirt.VIR_ERR_NO_DOMAIN,
            ):
                raise
            mark = None
        self._marks[key] = mark
        return mark

    def _domain(self, domain: Handle, state: int, reason: int) -> Domain | None:
        """None when it ended while it was looked at."""
        try:
            _, _, memory_kib, vcpus, cpu_time_ns = domain.info()
            vm_id = domain.UUIDString()
            mark = self._mark(domain, (vm_id, domain.ID()))
            name = domain.name()
        except libvirt.libvirtError as exc:
            # Of one that ends right now libvirt says that it has no "persistent config".
            if code_of(exc) in (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID):
                return None
            raise
        power, why = power_of(state, reason)
        return Domain(
            id=vm_id,
            name=mark.vm if mark else name,
            node=self.node.name,
            power=power,
            reason=why,
            vcpus=vcpus,
            memory_mib=memory_kib // 1024,
            generation=mark.generation if mark else 0,
            # Where nothing runs, libvirt gives the time of something else.
            cpu_time_ns=0 if power is Power.STOPPED else cpu_time_ns,
            ours=mark is not None,
            run=max(0, domain.ID()) if self.counts_runs else 0,
        )

    def domains(self) -> tuple[Domain, ...]:
        """One call for all states, and a small one for each domain's size.

        The bulk call could bring the sizes along, but takes some 5 ms a domain for that, as it asks
        each QEMU; the small ones take 0.15 ms here, and from afar go side by side.
        """

        def work(handle: Handle) -> tuple[Domain, ...]:
            flags = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
            found = handle.getAllDomainStats(libvirt.VIR_DOMAIN_STATS_STATE, flags)

            def look(one: tuple[Handle, Mapping[str, int]]) -> Domain | None:
                domain, stats = one
                return self._domain(
                    domain, stats.get("state.state", 0), stats.get("state.reason", 0)
                )

            if self.connection.local or len(found) < 2:
                seen = [look(one) for one in found]
            else:
                seen = side_by_side(look, found, most=REMOTE_CALLS)
            now = {(domain.UUIDString(), domain.ID()) for domain, _ in found}
            self._marks = {key: mark for key, mark in self._marks.items() if key in now}
            return tuple(one for one in seen if one is not None)

        return self._call("list the domains", work)

    def domain(self, vm_id: str) -> Domain | None:
        def work(handle: Handle) -> Domain | None:
            domain = self._find(handle, vm_id)
            if domain is None:
                return None
            state, reason = libvirt.VIR_DOMAIN_NOSTATE, 0
            with self._gone_is_well():
                state, reason = domain.state()
            return self._domain(domain, state, reason)

        return self._call(f"look at VM {vm_id}", work)

    def events(self, tell: Callable[[str], None]) -> Subscription:
        what = f"hear what happens on {self.node.name!r}"
        return self._events.subscribe(what, tell)

    def endings(self) -> Mapping[str, Ending]:
        return self._events.endings(f"hear how domains end on {self.node.name!r}")

    # -- starting and ending ----------------------------------------------------------------

    def start(
        self,
        vm: Vm,
        sources: Mapping[str, Source],
        networks: Mapping[str, Network],
        *,
        cpu: Cpu | None = None,
        paused: bool = False,
    ) -> None:
        facts = self._start_facts()
        flags = libvirt.VIR_DOMAIN_START_PAUSED if paused else 0
        what = f"start VM {vm.name!r}"

        def work(handle: Handle) -> None:
            existing = self._find(handle, vm.id)
            if existing is not None:
                state, reason = existing.state()
                power, _ = power_of(state, reason)
                if power in (Power.RUNNING, Power.PAUSED, Power.STOPPING):
                    return
                if existing.isPersistent():
                    raise Conflict(
                        f"cannot {what} on {self.node.name!r}: somebody defined a domain with its"
                        f" identifier there ({existing.name()!r}); undefine that",
                        vm=vm.name,
                    )
                # Crashed and kept: what is left of it holds the disks open. Or it is being started
                # by a call whose connection broke, which takes its time.
                if self._clear(existing):
                    return
            name = self._free_name(handle, vm)
            self._create(handle, vm, name, sources, networks, facts, cpu, flags)

        self._call(what, work)

    @staticmethod
    def _clear(domain: Handle) -> bool:
        """End what is left of a domain; True when it has begun to run meanwhile, as it was to."""
        until = time.monotonic() + START_UNDER_WAY_S
        while True:
            try:
                domain.destroy()
                return False
            except libvirt.libvirtError as exc:
                if code_of(exc) == libvirt.VIR_ERR_NO_DOMAIN:
                    return False
                late = code_of(exc) == libvirt.VIR_ERR_OPERATION_TIMEOUT
                if not late or time.monotonic() >= until:
                    raise
            try:
                power, _ = power_of(*domain.state())
            except libvirt.libvirtError as exc:
                if code_of(exc) == libvirt.VIR_ERR_NO_DOMAIN:
                    return False
                raise
            if power in (Power.RUNNING, Power.PAUSED):
                return True

    @staticmethod
    def _free_name(handle: Handle, vm: Vm) -> str:
        """What libvirt is to call it: names are unique on a host, and a stranger may have ours."""
        try:
            handle.lookupByName(vm.name)
        except libvirt.libvirtError as exc:
            if code_of(exc) == libvirt.VIR_ERR_NO_DOMAIN:
                return vm.name
            raise
        return f"{vm.name}-{vm.id[:8]}"

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
        nvram = self._nvram(vm) if vm.firmware is Firmware.UEFI else ""
        while True:
            text = domain_xml.domain_xml(
                vm,
                name=name,
                sources=sources,
                networks=networks,
                facts=facts,
                cached={key for key, source in sources.items() if self._is_cached(source)},
                nvram=nvram,
                cpu=cpu,
            )
            try:
                handle.createXML(text, flags)
            except libvirt.libvirtError as exc:
                if self._learn_cached(exc, sources.values()):
                    continue
                raise
            return

    def _is_cached(self, source: Source) -> bool:
        return str(PurePosixPath(source.path).parent) in self._cached_folders

    def _learn_cached(self, exc: Any, sources: Iterable[Source]) -> bool:
        """Not every file system bypasses the cache. True when that was it: try again."""
        if "O_DIRECT" not in str(exc):
            return False
        folders = {
            str(PurePosixPath(source.path).parent) for source in sources if source.path in str(exc)
        }
        new = folders - self._cached_folders
        self._cached_folders |= new
        return bool(new)

    def ensure_secret(self, secret: HostSecret) -> None:
        # A daemon that was started anew still has it, and so has this connection's.
        known = (self.connection.opened, secret.id, secret.key)
        if known in self._secrets:
            return

        def work(handle: Handle) -> None:
            kept = handle.secretDefineXML(libvirt_xml.secret_xml(secret.id, secret.usage), 0)
            kept.setValue(base64.b64decode(secret.key), 0)

        self._call("leave the key to its disks", work)
        self._secrets.add((self.connection.opened, secret.id, secret.key))

    def forget_secret(self, secret: HostSecret) -> None:
        def work(handle: Handle) -> None:
            try:
                handle.secretLookupByUUIDString(secret.id).undefine()
            except libvirt.libvirtError as exc:
                if code_of(exc) != libvirt.VIR_ERR_NO_SECRET:
                    raise

        self._call("take back the key to its disks", work)
        self._secrets.clear()

    def try_source(
        self, name: str, source: Source, while_open: Callable[[], None] | None = None
    ) -> None:
        facts = self._start_facts()
        vm = domain_xml.probe_vm(name, str(uuid.uuid4()))
        text = domain_xml.probe_xml(vm, name=name, source=source, facts=facts)
        # QEMU opens its disks before it is let go, and this one never is.
        flags = libvirt.VIR_DOMAIN_START_PAUSED | libvirt.VIR_DOMAIN_START_AUTODESTROY

        def work(handle: Handle) -> None:
            # Without an answer from its storage, QEMU would go on trying for minutes.
            with ThreadPoolExecutor(1) as pool:
                made = pool.submit(handle.createXML, text, flags)
                try:
                    domain = made.result(TRIAL_TIMEOUT_S)
                except FutureTimeout:
                    with contextlib.suppress(libvirt.libvirtError):
                        handle.lookupByName(name).destroy()
                    raise TimedOut(
                        f"cannot open {source.path} on {self.node.name!r}: nothing answered in"
                        f" {TRIAL_TIMEOUT_S:g} s; see that the host reaches its storage"
                    ) from None
            try:
                if while_open is not None:
                    while_open()
            finally:
                with self._gone_is_well():
                    domain.destroy()

        self._call(f"open {source.path}", work)

    # -- what one kind of host needs beside libvirt ------------------------------------------

    def hook_lack(self) -> str:
        return ""

    def hook_way(self) -> str:
        return ""

    def install_hook(self) -> None:
        """Nothing is needed."""

    def remove_hook(self) -> None:
        """Nothing was installed."""

    def release_volumes(self) -> tuple[str, ...]:
        """Volumes are open in guests' own processes, and closed with them."""
        return ()

    def shut_down(self, vm_id: str) -> None:
        def work(handle: Handle) -> None:
            domain = self._find(handle, vm_id)
            if domain is not None and domain.isActive():
                self._press_power_button(domain)

        self._call(f"ask VM {vm_id} to shut down", work)

    def cut(self, vm_id: str) -> None:
        what = f"cut VM {vm_id}"

        def work(handle: Handle) -> None:
            domain = self._find(handle, vm_id)
            if domain is None:
                return
            with self._gone_is_well():
                domain.destroy()
            deadline = time.monotonic() + CUT_TIMEOUT_S
            while (left := self._find(handle, vm_id)) is not None and left.isActive():
                if time.monotonic() > deadline:
                    raise TimedOut(
                        f"cannot {what} on {self.node.name!r}: its process is still there after"
                        f" {CUT_TIMEOUT_S:g} s; a disk that does not answer may hold it",
                        vm_id=vm_id,
                    )
                time.sleep(POLL_S)

        self._call(what, work)

    def await_end(self, vm_id: str, timeout_s: float, progress: Progress) -> bool:
        deadline = time.monotonic() + timeout_s
        while True:
            progress()
            domain = self.domain(vm_id)
            if domain is None or domain.power is Power.STOPPED:
                return True
            if domain.power is Power.CRASHED:
                raise Conflict(
                    f"cannot wait for the end of VM {domain.name!r}: its guest has crashed and will"
                    " not end by itself; cut it (--force)",
                    vm=domain.name,
                )
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(POLL_S, left))

    # -- moving while it runs ---------------------------------------------------------------

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
        what = f"move VM {vm.name!r} to {node!r}"
        begun = False
        way = Way(
            vm=vm,
            node=node,
            uri=uri,
            pause_limit_ms=pause_limit_ms,
            bandwidth_mib_s=bandwidth_mib_s,
            postcopy_after_s=postcopy_after_s,
            copies=copies,
            elsewhere=elsewhere,
            bridges=bridges,
            cell=cell,
            live=live,
        )

        def work(handle: Handle) -> MoveFigures:
            nonlocal begun
            if begun and self._find(handle, vm.id) is None:
                # The connection was lost on its way, and it has gone meanwhile.
                return MoveFigures()
            domain = self._running(handle, vm.id, what)
            seen = self._direction(domain)
            if seen == "torn":
                return libvirt_migration.take_up(domain, way, progress)
            if begun or seen == "out":
                figures = self._follow(domain, progress)
                if self._find(handle, vm.id) is not None:
                    raise libvirt_migration.broke_off(what)
                return figures
            begun = True
            return self._send(domain, way, progress)

        return self._call(what, work)

    def moved_figures(self, vm_id: str) -> MoveFigures | None:
        def work(handle: Handle) -> MoveFigures | None:
            domain = self._find(handle, vm_id)
            return None if domain is None else libvirt_migration.figures_of_arrival(domain)

        return self._call(f"see how VM {vm_id} came", work)

    def write_rate_mib_s(self, vm_id: str, for_s: int) -> float:
        what = f"measure how fast VM {vm_id} writes to its memory"

        def work(handle: Handle) -> float:
            domain = self._running(handle, vm_id, what)
            return libvirt_migration.write_rate_mib_s(handle, domain, for_s, what)

        return self._call(what, work)

    def migration(self, vm_id: str) -> Literal["in", "out", "torn"] | None:
        def work(handle: Handle) -> Literal["in", "out", "torn"] | None:
            domain = self._find(handle, vm_id)
            return None if domain is None else self._direction(domain)

        return self._call(f"see whether VM {vm_id} is on its way", work)

    def migration_abort(self, vm_id: str) -> None:
        what = f"end the migration of VM {vm_id}"

        def work(handle: Handle) -> None:
            domain = self._find(handle, vm_id)
            if domain is not None:
                self._end_move(domain, what)

        self._call(what, work)

    def pause(self, vm_id: str) -> None:
        def work(domain: Handle) -> None:
            if power_of(*domain.state())[0] is not Power.PAUSED:
                domain.suspend()

        self._on_domain(f"pause VM {vm_id}", vm_id, work)

    def resume(self, vm_id: str) -> None:
        def work(domain: Handle) -> None:
            state, _ = domain.state()
            if state == libvirt.VIR_DOMAIN_PMSUSPENDED:
                domain.pMWakeup()
            elif state != libvirt.VIR_DOMAIN_RUNNING:
                domain.resume()

        self._on_domain(f"resume VM {vm_id}", vm_id, work)

    def reset(self, vm_id: str) -> None:
        self._on_domain(f"reset VM {vm_id}", vm_id, lambda domain: domain.reset())

    def forget(self, vm: Vm) -> None:
        """Remove what the host keeps of a stopped VM: its UEFI's variables and its TPM's secrets.

        Safe to repeat. libvirt removes them with a definition, so it gets one for a moment.
        """
        if vm.firmware is not Firmware.UEFI and not vm.tpm:
            return
        flags = libvirt.VIR_DOMAIN_UNDEFINE_NVRAM | getattr(libvirt, "VIR_DOMAIN_UNDEFINE_TPM", 0)

        def work(handle: Handle) -> None:
            if self._find(handle, vm.id) is not None:
                raise Conflict(
                    f"cannot forget VM {vm.name!r} on {self.node.name!r}: it is still there; stop"
                    " it first",
                    vm=vm.name,
                )
            text = domain_xml.domain_xml(
                domain_xml.bare(vm),
                name=f"vorch-forget-{vm.id}",
                sources={},
                networks={},
                facts=self.facts(),
                nvram=self._nvram(vm),
            )
            handle.defineXML(text).undefineFlags(flags)

        self._call(f"forget VM {vm.name!r}", work)

    # -- devices ----------------------------------------------------------------------------

    @staticmethod
    def _live_xml(domain: Handle) -> Element:
        return domain_xml.parse(domain.XMLDesc(0))

    def attach_disk(self, vm: Vm, disk: Disk, source: Source | None) -> None:
        def work(domain: Handle) -> None:
            live = self._live_xml(domain)
            if domain_xml.find_disk(live, disk.name) is not None:
                return
            bus = domain_xml.disk_bus(disk, vm.machine)
            if bus is DiskBus.SCSI and not domain_xml.has_scsi_controller(live):
                domain.attachDeviceFlags(domain_xml.scsi_controller_xml(), _LIVE)
            while True:
                cached = source is not None and self._is_cached(source)
                text = domain_xml.disk_xml(vm, disk, source, cached=cached)
                try:
                    domain.attachDeviceFlags(text, _LIVE)
                except libvirt.libvirtError as exc:
                    if source is not None and self._learn_cached(exc, [source]):
                        continue
                    raise
                return

        self._on_domain(f"plug disk {disk.name!r} into VM {vm.name!r}", vm.id, work)

    def detach_disk(self, vm: Vm, disk: Disk, timeout_s: float) -> None:
        self._detach(
            vm,
            f"unplug disk {disk.name!r} from VM {vm.name!r}",
            lambda live: domain_xml.find_disk(live, disk.name),
            timeout_s,
        )

    def attach_nic(self, vm: Vm, nic: Nic, network: Network) -> None:
        text = self._nic_xml(vm, nic, network)

        def work(domain: Handle) -> None:
            if domain_xml.find_nic(self._live_xml(domain), nic.name) is None:
                domain.attachDeviceFlags(text, _LIVE)

        self._on_domain(f"plug NIC {nic.name!r} into VM {vm.name!r}", vm.id, work)

    def detach_nic(self, vm: Vm, nic: Nic, timeout_s: float) -> None:
        self._detach(
            vm,
            f"unplug NIC {nic.name!r} from VM {vm.name!r}",
            lambda live: domain_xml.find_nic(live, nic.name),
            timeout_s,
        )

    def _detach(
        self,
        vm: Vm,
        what: str,
        find: Callable[[Element], Element | None],
        timeout_s: float,
    ) -> None:
        def there(handle: Handle) -> tuple[Handle, Element] | None:
            """The domain, and the device while it is in there."""
            domain = self._find(handle, vm.id)
            if domain is None or not domain.isActive():
                return None
            present = None
            with self._gone_is_well():
                present = find(self._live_xml(domain))
            return None if present is None else (domain, present)

        self._call(
            what, lambda handle: unplug(what, lambda: there(handle), self._ask_out, timeout_s)
        )

    def change_media(self, vm: Vm, disk: Disk, source: Source | None) -> None:
        def work(domain: Handle) -> None:
            drive = domain_xml.find_disk(self._live_xml(domain), disk.name)
            if drive is None or drive.get("device") != "cdrom":
                raise NotFound(
                    f"cannot change the CD in drive {disk.name!r} of VM {vm.name!r}: the running VM"
                    " has no such drive; it comes with the next start",
                    vm=vm.name,
                    disk=disk.name,
                )
            if domain_xml.place_of(drive) == (source and source.path):
                return
            text = domain_xml.media_xml(drive, source)
            try:
                domain.updateDeviceFlags(text, _LIVE)
            except libvirt.libvirtError:
                # The guest holds the tray shut; the pin-hole opens it all the same.
                domain.updateDeviceFlags(text, _LIVE | libvirt.VIR_DOMAIN_DEVICE_MODIFY_FORCE)

        self._on_domain(f"change the CD of VM {vm.name!r}", vm.id, work)

    def grow_disk(self, vm: Vm, disk: Disk, size_bytes: int) -> None:
        def work(domain: Handle) -> None:
            capacity = domain.blockInfo(disk.target)[0]
            if capacity == size_bytes:
                return
            if capacity > size_bytes:
                raise Invalid(
                    f"cannot grow disk {disk.name!r} of VM {vm.name!r} to {size_bytes} bytes: it"
                    f" has {capacity} already; ask for more",
                    vm=vm.name,
                    disk=disk.name,
                )
            domain.blockResize(disk.target, size_bytes, libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES)

        self._on_domain(f"grow disk {disk.name!r} of VM {vm.name!r}", vm.id, work)

    def copy_disk(self, vm: Vm, disk: Disk, source: Source, progress: Progress) -> None:
        what = f"copy disk {disk.name!r} of VM {vm.name!r}"
        self._on_domain(
            what,
            vm.id,
            lambda domain: libvirt_disks.copy(domain, vm, disk, source, what, progress),
        )

    def switch_disk(self, vm: Vm, disk: Disk, source: Source) -> None:
        what = f"go on with the copy of disk {disk.name!r} of VM {vm.name!r}"
        self._on_domain(
            what, vm.id, lambda domain: libvirt_disks.switch(domain, vm, disk, source, what)
        )

    def has_disk_at(self, vm: Vm, disk: Disk, source: Source) -> bool:
        what = f"see where disk {disk.name!r} of VM {vm.name!r} is"
        return self._on_domain(
            what, vm.id, lambda domain: libvirt_disks.is_at(domain, vm, disk, source, what)
        )

    def flatten_disk(self, vm: Vm, disk: Disk, progress: Progress) -> None:
        what = f"flatten disk {disk.name!r} of VM {vm.name!r}"
        self._on_domain(
            what, vm.id, lambda domain: libvirt_disks.flatten(domain, vm, disk, what, progress)
        )

    def end_disk_job(self, vm: Vm, disk: Disk) -> None:
        def work(handle: Handle) -> None:
            domain = self._find(handle, vm.id)
            if domain is not None and domain.isActive():
                libvirt_disks.end(domain, disk)

        self._call(f"end the work on disk {disk.name!r} of VM {vm.name!r}", work)

    def limit_disk(self, vm: Vm, disk: Disk) -> None:
        what = f"limit disk {disk.name!r} of VM {vm.name!r}"

        def work(domain: Handle) -> None:
            libvirt_disks.live_disk(domain, vm, disk, what)
            libvirt_disks.limit(domain, disk)

        self._on_domain(what, vm.id, work)

    def set_vcpus(self, vm_id: str, vcpus: int) -> None:
        what = f"give VM {vm_id} {vcpus} vCPUs"

        def work(domain: Handle) -> None:
            seen = domain_xml.read_domain(domain.XMLDesc(0))
            if seen.vcpus == vcpus:
                return
            if not 1 <= vcpus <= seen.vcpus_max:
                raise Invalid(
                    f"cannot {what} now: the running VM can have 1 to {seen.vcpus_max}; more come"
                    " with the next start",
                    vm_id=vm_id,
                )
            try:
                domain.setVcpusFlags(vcpus, _LIVE)
            except libvirt.libvirtError as exc:
                if vcpus > seen.vcpus or code_of(exc) == libvirt.VIR_ERR_OPERATION_TIMEOUT:
                    raise
                raise Unsupported(
                    f"cannot {what} now: those that it started with cannot be taken away"
                    f" ({reason_of(exc)}); fewer come with the next start",
                    vm_id=vm_id,
                ) from exc

        self._on_domain(what, vm_id, work)

    def set_memory(self, vm_id: str, memory_mib: int) -> None:
        what = f"give VM {vm_id} {memory_mib} MiB"

        def work(domain: Handle) -> None:
            most = domain.maxMemory() // 1024
            if not 16 <= memory_mib <= most:
                raise Invalid(
                    f"cannot {what} now: the running VM can have 16 to {most} MiB; more comes with"
                    " the next start",
                    vm_id=vm_id,
                )
            domain.setMemoryFlags(memory_mib * 1024, _LIVE)

        self._on_domain(what, vm_id, work)

    # -- the guest's agent ------------------------------------------------------------------

    def freeze(self, vm_id: str) -> bool:
        def work(domain: Handle) -> bool:
            if not self._agent_answers(domain):
                return False
            try:
                domain.fsFreeze()
            except libvirt.libvirtError:
                # It is frozen already: an earlier attempt got this far. Or else it cannot be.
                return self._is_frozen(domain)
            return True

        return self._on_domain(f"freeze VM {vm_id}", vm_id, work)

    def thaw(self, vm_id: str) -> None:
        def work(handle: Handle) -> None:
            domain = self._find(handle, vm_id)
            if domain is not None and domain.isActive() and self._agent_answers(domain):
                self._thaw(domain)

        self._call(f"thaw VM {vm_id}", work)

    @staticmethod
    def _thaw(domain: Handle) -> None:
        try:
            domain.fsThaw()
        except libvirt.libvirtError as exc:
            if code_of(exc) not in (
                libvirt.VIR_ERR_OPERATION_INVALID,
                libvirt.VIR_ERR_AGENT_UNRESPONSIVE,
                libvirt.VIR_ERR_NO_DOMAIN,
            ):
                raise

    # -- networks ---------------------------------------------------------------------------

    def ensure_network(self, network: Network, hosts: Mapping[str, str] = {}) -> None:
        facts, where = self.facts(), self.node.name
        libvirt_networks.check_possible(network, facts, where)
        if network.kind == "bridge":
            if not self._has_bridge(network):
                raise libvirt_networks.no_bridge(network, where)
        elif facts.networks:
            what = f"make network {network.name!r}"
            self._call(what, lambda handle: libvirt_networks.make(handle, network, where, hosts))

    def _has_bridge(self, network: Network) -> bool:
        bridge = network.bridge_on(self.node.name)
        return self._call(
            f"look for bridge {bridge!r}",
            lambda handle: libvirt_networks.has_bridge(handle, bridge, local=self.connection.local),
        )

    def network_lack(self, network: Network, hosts: Mapping[str, str] = {}) -> str:
        facts, where = self.facts(), self.node.name
        try:
            libvirt_networks.check_possible(network, facts, where)
        except Unsupported as exc:
            return exc.message
        if network.kind == "bridge":
            return (
                ""
                if self._has_bridge(network)
                else libvirt_networks.no_bridge(network, where).message
            )
        if not facts.networks or not libvirt_networks.needs_hook(network):
            return ""
        key = (self.connection.opened, domain_xml.network_trial_xml(network, where, hosts, "key"))
        if self._clock() - self._tried.get(key, -TRIAL_HOLDS_S) < TRIAL_HOLDS_S:
            return ""
        lack = self._call(
            f"try network {network.name!r}",
            lambda handle: libvirt_networks.hook_lack(handle, network, where, hosts),
        )
        if not lack:
            self._tried = {key: self._clock()}
        return lack

    def remove_network(self, network: Network) -> None:
        if network.kind != "bridge" and self.facts().networks:
            what = f"remove network {network.name!r}"
            where = self.node.name
            self._call(what, lambda handle: libvirt_networks.remove(handle, network, where))

    def used_subnets(self) -> tuple[str, ...]:
        subnets: set[str] = set()
        if self.facts().networks:
            subnets |= self._call("list the networks", libvirt_networks.subnets)
        if self.connection.local:
            subnets |= set(routes(Path("/proc/net/route").read_text(encoding="ascii")))
        return tuple(sorted(subnets))

    # -- looking at a running VM ------------------------------------------------------------

    def addresses(self, vm: Vm) -> tuple[Address, ...]:
        macs = {nic.mac for nic in vm.nics}

        def ask(domain: Handle, source: int) -> dict[str, Any]:
            # One source that cannot answer is no reason to do without the others.
            try:
                return dict(domain.interfaceAddresses(source, 0) or {})
            except libvirt.libvirtError:
                return {}

        def work(handle: Handle) -> tuple[Address, ...]:
            domain = self._find(handle, vm.id)
            if domain is None or not domain.isActive() or not macs:
                return ()
            by_source = {"lease": ask(domain, libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_LEASE)}
            if self._agent_answers(domain):
                agent = libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT
                by_source["agent"] = ask(domain, agent)
            by_source["arp"] = ask(domain, libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_ARP)
            if self.connection.local:
                # libvirt 9.0 stumbles over the tables of newer kernels ("wrong nlmsg len"), and of
                # a long one it reads the first part.
                by_source["arp"] |= neighbours(Path("/proc/net/arp").read_text(encoding="ascii"))
            return merge_addresses(by_source, macs)

        return self._call(f"find the addresses of VM {vm.name!r}", work)

    def figures(self, vm: Vm, *, now: float) -> Figures:
        groups = _STATS | libvirt.VIR_DOMAIN_STATS_BLOCK | libvirt.VIR_DOMAIN_STATS_INTERFACE

        what = f"take the figures of VM {vm.name!r}"

        def work(handle: Handle) -> Figures:
            domain = self._running(handle, vm.id, what)
            stats = handle.domainListGetStats([domain], groups)[0][1]
            return read_figures(stats, domain_xml.read_domain(domain.XMLDesc(0)), now)

        return self._call(what, work)

    def host_figures(self, *, now: float) -> HostFigures:
        groups = _STATS | libvirt.VIR_DOMAIN_STATS_BLOCK | libvirt.VIR_DOMAIN_STATS_INTERFACE

        def work(handle: Handle) -> HostFigures:
            found = handle.getAllDomainStats(
                groups,
                libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE
                | libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT,
            )
            processors = handle.getCPUStats(libvirt.VIR_NODE_CPU_STATS_ALL_CPUS, 0)
            memory = handle.getMemoryStats(libvirt.VIR_NODE_MEMORY_STATS_ALL_CELLS, 0)
            spare = sum(memory.get(what, 0) for what in ("free", "buffers", "cached"))
            return HostFigures(
                at=now,
                cpus=int(handle.getInfo()[2]),
                cpu_time_ns=sum(processors.get(what, 0) for what in ("kernel", "user")),
                memory_mib=memory.get("total", 0) // 1024,
                memory_used_mib=max(0, memory.get("total", 0) - spare) // 1024,
                vms={
                    domain.UUIDString(): read_figures(stats, None, now) for domain, stats in found
                },
            )

        return self._call("take the figures of the host", work)

    def display(self, vm_id: str, *, force: bool = False) -> Console | None:
        what = f"open the screen of VM {vm_id}"

        def work(handle: Handle) -> Console | None:
            domain = self._running(handle, vm_id, what)
            seen = domain_xml.read_domain(domain.XMLDesc(0))
            if not seen.graphics:
                return None
            if self.connection.local:
                return SocketConsole(domain.openGraphicsFD(0, 0), seen.name)
            if not seen.display_channel:
                raise Unsupported(
                    f"cannot {what} from another machine: it was started without a way for that;"
                    " restart the VM"
                )
            flags = libvirt.VIR_DOMAIN_CHANNEL_FORCE if force else 0

            def connect(stream: Handle) -> None:
                domain.openChannel(domain_xml.DISPLAY_CHANNEL, stream, flags)

            return StreamConsole(handle, seen.name, connect, "screen")

        return self._call(what, work)

    def console(self, vm_id: str, *, force: bool = False) -> Console:
        what = f"open the console of VM {vm_id}"

        def work(handle: Handle) -> Console:
            domain = self._running(handle, vm_id, what)
            flags = libvirt.VIR_DOMAIN_CONSOLE_FORCE if force else 0

            def connect(stream: Handle) -> None:
                domain.openConsole(None, stream, flags)

            return StreamConsole(handle, domain.name(), connect)

        return self._call(what, work)

    # -- the host ---------------------------------------------------------------------------

    def checks(self, folders: Sequence[str] = ()) -> tuple[Check, ...]:
        try:
            version = self._call("ask libvirt its version", lambda handle: handle.getLibVersion())
        except VorchError as exc:
            return (
                Check(
                    name="libvirt",
                    level="error",
                    detail=exc.message,
                    remedy="install and start libvirtd (or virtqemud) on that host",
                ),
            )
        detail = f"libvirt {version_text(version)} answers at {self.node.uri}"
        return (Check(name="libvirt", level="ok", detail=detail),)

    def close(self) -> None:
        self._marks.clear()
        self.connection.close()
