"""Live migration from libvirt to libvirt: begin it, follow it, end it.

The hosts do it among themselves (peer to peer): the source's libvirtd goes on with it when the
client that asked for it is gone, however that ended. A second one for the same domain is refused
meanwhile. When the target or its QEMU dies, the source lets the domain go on and says so; when the
source dies, the target ends the domain that was to arrive, as soon as their connection breaks.

All that is so until the domain goes over by post-copy: it runs on the target then, and each page
that it misses there is fetched from the source. From then on neither half can do without the other,
and nobody can call it back. When their connection breaks both stand still; QEMU goes on by itself
if it mends before TCP gives up, and can be told to take it up again afterwards.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from vorch import domain_xml
from vorch.aside import begin
from vorch.drivers.libvirt_connection import Handle, code_of, libvirt
from vorch.errors import StepFailed, TimedOut
from vorch.model import MoveFigures, NumaCell, Source, Vm
from vorch.ports import Progress

# How often the source is asked how far it is, and how soon an end that was told of is seen.
POLL_S = 0.5
# How long a migration that was aborted may take to be over.
ABORT_TIMEOUT_S = 60.0
ABORT_POLL_S = 0.1
# How long one that cannot be aborted any more may take to arrive.
ARRIVE_TIMEOUT_S = 600.0
# How long QEMU may take to count, after the time that it measures.
MEASURE_TIMEOUT_S = 20.0
MEASURE_POLL_S = 0.1
# For the figures of one that is over, which come as an event of their own.
FIGURES_TIMEOUT_S = 2.0

# A guest that writes faster than its memory travels is slowed down step by step.
_CONVERGE = libvirt.VIR_MIGRATE_AUTO_CONVERGE
FLAGS = (
    libvirt.VIR_MIGRATE_LIVE
    | libvirt.VIR_MIGRATE_PEER2PEER
    | libvirt.VIR_MIGRATE_ABORT_ON_ERROR
    | _CONVERGE
)
OVER = (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID)
MIB = 1024**2

# Why a domain stands still, or runs, in the time of its post-copy and when that broke off.
_POSTCOPY = (
    (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_POSTCOPY),
    (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_POSTCOPY),
)
_TORN = (
    (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_POSTCOPY_FAILED),
    (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_POSTCOPY_FAILED),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How a domain is to get to another host."""

    vm: Vm
    node: str
    uri: str
    pause_limit_ms: int
    bandwidth_mib_s: int
    postcopy_after_s: float | None = None
    # By the disk's name: where it is written on the target, and where it is only read.
    copies: Mapping[str, Source] = field(default_factory=dict)
    elsewhere: Mapping[str, Source] = field(default_factory=dict)
    # By NIC: the bridge there, where it has another name.
    bridges: Mapping[str, str] = field(default_factory=dict)
    # The NUMA cell there that it is put into.
    cell: NumaCell | None = None
    live: bool = True
    # Of the disks, those whose file system cannot bypass the host's cache.
    cached: frozenset[str] = frozenset()


def direction(domain: Handle) -> Literal["in", "out", "torn"] | None:
    """Whether the domain is on its way in, on its way out, half of a torn one, or none of these."""
    try:
        if tuple(domain.state()) in _TORN:
            return "torn"
        stats = domain.jobStats()
    except libvirt.libvirtError as exc:
        # What is arriving has a job that only the source can tell of.
        if code_of(exc) == libvirt.VIR_ERR_OPERATION_UNSUPPORTED:
            return "in"
        if code_of(exc) in OVER:
            return None
        raise
    if _does(stats, libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN):
        return "in"
    return "out" if _leaves(stats) else None


def has_gone_over(domain: Handle) -> bool:
    """By post-copy: it runs on the target, and cannot be called back."""
    with contextlib.suppress(libvirt.libvirtError):
        return tuple(domain.state()) in (*_POSTCOPY, *_TORN)
    return False


def _leaves(stats: Mapping[str, Any]) -> bool:
    return _does(stats, libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT)


def _does(stats: Mapping[str, Any], operation: int) -> bool:
    running = stats.get("type", libvirt.VIR_DOMAIN_JOB_NONE) in (
        libvirt.VIR_DOMAIN_JOB_BOUNDED,
        libvirt.VIR_DOMAIN_JOB_UNBOUNDED,
    )
    return running and stats.get("operation") == operation


def send(domain: Handle, way: Way, progress: Progress) -> MoveFigures:
    """Move a running domain. When `progress` raises, or Ctrl-C comes, it is ended first."""
    flags = _flags(way)
    # With its passwords, and without what is of this host alone.
    own = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_SECURE | libvirt.VIR_DOMAIN_XML_MIGRATABLE)
    parameters: dict[str, Any] = {
        libvirt.VIR_MIGRATE_PARAM_DEST_XML: domain_xml.moved_xml(
            own,
            way.node,
            vm=way.vm,
            sources={**way.copies, **way.elsewhere},
            cached=way.cached,
            bridges=way.bridges,
            cell=way.cell,
        )
    }
    if way.copies:
        flags |= libvirt.VIR_MIGRATE_NON_SHARED_DISK
        targets = [way.vm.disk(name).target for name in way.copies]
        parameters[libvirt.VIR_MIGRATE_PARAM_MIGRATE_DISKS] = targets
    if way.bandwidth_mib_s:
        parameters[libvirt.VIR_MIGRATE_PARAM_BANDWIDTH] = way.bandwidth_mib_s
        if way.postcopy_after_s is not None:
            # It would be as fast as it goes from then on.
            parameters[libvirt.VIR_MIGRATE_PARAM_BANDWIDTH_POSTCOPY] = way.bandwidth_mib_s
    # Kept by the domain until it has moved.
    domain.migrateSetMaxDowntime(max(1, way.pause_limit_ms), 0)
    return _watched(domain, way, parameters, flags, progress)


def take_up(domain: Handle, way: Way, progress: Progress) -> MoveFigures:
    """Join the halves of one that broke off after it had gone over."""
    flags = _flags(way) | libvirt.VIR_MIGRATE_POSTCOPY | libvirt.VIR_MIGRATE_POSTCOPY_RESUME
    return _watched(domain, way, {}, flags, progress)


def _flags(way: Way) -> int:
    flags = int(FLAGS) if way.live else FLAGS & ~libvirt.VIR_MIGRATE_LIVE & ~_CONVERGE
    # Also what is in the guest's memory is for nobody else, where the hosts talk in secret.
    if way.uri.startswith("qemu+tls:"):
        flags |= libvirt.VIR_MIGRATE_TLS
    if way.postcopy_after_s is not None:
        flags |= libvirt.VIR_MIGRATE_POSTCOPY
    return flags


def _watched(
    domain: Handle, way: Way, parameters: dict[str, Any], flags: int, progress: Progress
) -> MoveFigures:
    diary = Diary()
    began = time.monotonic()
    with diary.last_word(domain):
        call = Call(lambda: domain.migrateToURI3(way.uri, parameters, flags))
        try:
            while not call.over(POLL_S):
                tell(domain, progress, diary)
                late = way.postcopy_after_s is not None and (
                    time.monotonic() - began >= way.postcopy_after_s
                )
                if late and diary.passes > 1 and not diary.postcopy:
                    _go_over(domain, diary, progress)
        except BaseException:
            # It may not have begun yet, so it is told until it is over.
            begun = time.monotonic()
            while not call.over(ABORT_POLL_S):
                limit = ARRIVE_TIMEOUT_S if diary.postcopy else ABORT_TIMEOUT_S
                if time.monotonic() - begun > limit:
                    break
                if not has_gone_over(domain):
                    _tell_to_end(domain)
            raise
        call.result()
    return diary.figures()


def _go_over(domain: Handle, diary: Diary, progress: Progress) -> None:
    """Once its memory has been sent once, so that the guest has not everything to wait for."""
    try:
        domain.migrateStartPostCopy(0)
    except libvirt.libvirtError:
        # It has just arrived, or is about to.
        return
    diary.postcopy = True
    progress(None, "it does not converge: it goes over and draws the rest of its memory after it")


def follow(domain: Handle, progress: Progress) -> MoveFigures:
    """Wait for the end of one that somebody else began."""
    diary = Diary()
    try:
        with diary.last_word(domain):
            while direction(domain) == "out":
                tell(domain, progress, diary)
                time.sleep(POLL_S)
    except libvirt.libvirtError:
        raise
    except BaseException:
        abort(domain, "end the migration that was to be cancelled")
        raise
    return diary.figures()


def abort(domain: Handle, what: str) -> None:
    """End it; returns when it is over, whichever way. One that has gone over is waited for."""
    began = time.monotonic()
    while direction(domain) == "out":
        over = has_gone_over(domain)
        limit = ARRIVE_TIMEOUT_S if over else ABORT_TIMEOUT_S
        if time.monotonic() - began > limit:
            raise TimedOut(
                f"cannot {what}: it is still on its way after {limit:g} s; a host that"
                " does not answer may hold it",
            )
        if not over:
            _tell_to_end(domain)
        time.sleep(ABORT_POLL_S)


def _tell_to_end(domain: Handle) -> None:
    with contextlib.suppress(libvirt.libvirtError):
        domain.abortJob()


def tell(domain: Handle, progress: Progress, diary: Diary) -> None:
    """How far it is. That it is over, or that the host is gone, is not for this to say."""
    stats: Mapping[str, Any] = {}
    with contextlib.suppress(libvirt.libvirtError):
        stats = domain.jobStats()
    diary.note(stats)
    progress(*reading(stats))


class Diary:
    """What is known of a migration when it is over: of its source's domain nothing is left then."""

    def __init__(self) -> None:
        self.postcopy = False
        # Times that its memory was gone through.
        self.passes = 0
        self._slowed = 0
        self._copied: int | None = None
        self._last: Mapping[str, Any] = {}
        self._told = threading.Event()

    def note(self, stats: Mapping[str, Any]) -> None:
        if not _leaves(stats):
            return
        self._last = dict(stats)
        self.passes = int(stats.get("memory_iteration", self.passes))
        self._slowed = max(self._slowed, int(stats.get("auto_converge_throttle", 0)))
        if stats.get("disk_total"):
            self._copied = int(stats.get("disk_processed", 0))

    @contextmanager
    def last_word(self, domain: Handle) -> Iterator[None]:
        """The source tells its figures once more when it is over, after the domain has gone."""

        def ended(_handle: Handle, _domain: Handle, stats: Mapping[str, Any], _data: None) -> None:
            self._last = {**stats, "completed": True}
            self._told.set()

        handle, number = domain.connect(), None
        with contextlib.suppress(libvirt.libvirtError):
            event = libvirt.VIR_DOMAIN_EVENT_ID_JOB_COMPLETED
            number = handle.domainEventRegisterAny(domain, event, ended, None)
        try:
            yield
            if number is not None:
                self._told.wait(FIGURES_TIMEOUT_S)
        finally:
            if number is not None:
                with contextlib.suppress(libvirt.libvirtError):
                    handle.domainEventDeregisterAny(number)

    def figures(self) -> MoveFigures:
        found = completed(self._last) if "completed" in self._last else MoveFigures()
        return MoveFigures(
            memory_bytes=found.memory_bytes or self._last.get("memory_total"),
            sent_bytes=found.sent_bytes or self._last.get("memory_processed"),
            copied_bytes=self._copied,
            bytes_per_s=found.bytes_per_s or self._last.get("memory_bps"),
            pause_ms=found.pause_ms,
            elapsed_s=found.elapsed_s,
            slowed_percent=self._slowed,
            postcopy=self.postcopy or bool(self._last.get("memory_postcopy_requests")),
        )


def completed(stats: Mapping[str, Any]) -> MoveFigures:
    """What libvirt says of one that is over."""

    def number(name: str) -> int | None:
        return int(stats[name]) if name in stats else None

    elapsed_ms = number("time_elapsed")
    return MoveFigures(
        memory_bytes=number("memory_total"),
        sent_bytes=number("memory_processed"),
        bytes_per_s=number("memory_bps"),
        pause_ms=number("downtime"),
        elapsed_s=None if elapsed_ms is None else elapsed_ms / 1000,
        postcopy=bool(stats.get("memory_postcopy_requests")),
    )


def figures_of_arrival(domain: Handle) -> MoveFigures | None:
    """What the target knows of the way by which the domain came; nothing after a post-copy."""
    flags = libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED | libvirt.VIR_DOMAIN_JOB_STATS_KEEP_COMPLETED
    try:
        stats = domain.jobStats(flags)
    except libvirt.libvirtError as exc:
        if code_of(exc) in (*OVER, libvirt.VIR_ERR_OPERATION_UNSUPPORTED):
            return None
        raise
    if stats.get("operation") != libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN:
        return None
    return completed(stats)


# ---------------------------------------------------------------------------------------------
# Before it begins


def write_rate_mib_s(handle: Handle, domain: Handle, for_s: int, what: str) -> float:
    """By samples of its pages, looked at twice.

    The other ways log each write: under TCG, QEMU 7.2 dies of that, the guest with it. QEMU does it
    once at a time: what somebody else has begun (another host is asked about as well) will do.
    """
    try:
        domain.startDirtyRateCalc(for_s, libvirt.VIR_DOMAIN_DIRTYRATE_MODE_PAGE_SAMPLING)
    except libvirt.libvirtError:
        if _rate_of(handle, domain)[0] != libvirt.VIR_DOMAIN_DIRTYRATE_MEASURING:
            raise
    deadline = time.monotonic() + for_s + MEASURE_TIMEOUT_S
    while True:
        time.sleep(MEASURE_POLL_S)
        status, rate = _rate_of(handle, domain)
        if status == libvirt.VIR_DOMAIN_DIRTYRATE_MEASURED:
            return rate
        if time.monotonic() > deadline:
            raise TimedOut(
                f"cannot {what}: QEMU has not measured it in {for_s + MEASURE_TIMEOUT_S:g} s; try"
                " again"
            )


def _rate_of(handle: Handle, domain: Handle) -> tuple[int | None, float]:
    """How far the measuring is, and what came of it."""
    ((_, stats),) = handle.domainListGetStats([domain], libvirt.VIR_DOMAIN_STATS_DIRTYRATE)
    rate = float(stats.get("dirtyrate.megabytes_per_second", 0))
    return stats.get("dirtyrate.calc_status"), rate


def reading(stats: Mapping[str, Any]) -> tuple[float | None, str | None]:
    """Percent and a line for a person, out of libvirt's numbers."""
    total = int(stats.get("data_total", 0))
    if not _leaves(stats) or not total:
        return None, None
    left = int(stats.get("data_remaining", 0))
    parts = [f"{left / MIB:.0f} of {total / MIB:.0f} MiB left"]
    pages = int(stats.get("memory_dirty_rate", 0))
    if pages:
        written = pages * int(stats.get("memory_page_size", 4096)) / MIB
        parts.append(f"the guest writes {written:.0f} MiB/s")
    if "downtime" in stats:
        parts.append(f"a pause of {int(stats['downtime'])} ms is expected")
    if stats.get("auto_converge_throttle"):
        parts.append(f"slowed down by {int(stats['auto_converge_throttle'])} %")
    percent = 100.0 * (total - left) / total
    if stats.get("disk_total"):
        # Disks go first, and how much memory there is shows only afterwards.
        memory = int(stats.get("memory_total", 0))
        percent /= 2
        if memory:
            percent = 50.0 + 50.0 * (1 - int(stats.get("memory_remaining", 0)) / memory)
    return percent, ", ".join(parts)


class Call:
    """A call that blocks, in a thread of its own: a hung daemon must not keep this process."""

    def __init__(self, work: Callable[[], object]) -> None:
        self._future = begin(work, name="vorch-migrate")

    def over(self, timeout_s: float) -> bool:
        return bool(wait([self._future], timeout_s).done)

    def result(self) -> None:
        self._future.result()


def broke_off(what: str) -> StepFailed:
    return StepFailed(f"cannot {what}: its migration broke off; see the libvirt logs of both hosts")
