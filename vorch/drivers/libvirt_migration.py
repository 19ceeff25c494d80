"""Live migration from libvirt to libvirt: begin it, follow it, end it.

The hosts do it among themselves (peer to peer): the source's libvirtd goes on with it when the
client that asked for it is gone, however that ended. A second one for the same domain is refused
meanwhile. When the target or its QEMU dies, the source lets the domain go on and says so; when the
source dies, the target ends the domain that was to arrive, as soon as their connection breaks.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

from vorch import domain_xml
from vorch.drivers.libvirt_connection import Handle, code_of, libvirt
from vorch.errors import StepFailed, TimedOut
from vorch.ports import Progress

# How often the source is asked how far it is, and how soon an end that was told of is seen.
POLL_S = 0.5
# How long a migration that was aborted may take to be over.
ABORT_TIMEOUT_S = 60.0
ABORT_POLL_S = 0.1

_FLAGS = (
    libvirt.VIR_MIGRATE_LIVE
    | libvirt.VIR_MIGRATE_PEER2PEER
    | libvirt.VIR_MIGRATE_ABORT_ON_ERROR
    # A guest that writes faster than its memory travels is slowed down step by step.
    | libvirt.VIR_MIGRATE_AUTO_CONVERGE
)
_OVER = (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID)
MIB = 1024**2


def direction(domain: Handle) -> Literal["in", "out"] | None:
    """Whether the domain is on its way in, on its way out, or neither."""
    try:
        stats = domain.jobStats()
    except libvirt.libvirtError as exc:
        # What is arriving has a job that only the source can tell of.
        if code_of(exc) == libvirt.VIR_ERR_OPERATION_UNSUPPORTED:
            return "in"
        if code_of(exc) in _OVER:
            return None
        raise
    if _does(stats, libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN):
        return "in"
    return "out" if _leaves(stats) else None


def _leaves(stats: Mapping[str, Any]) -> bool:
    return _does(stats, libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT)


def _does(stats: Mapping[str, Any], operation: int) -> bool:
    running = stats.get("type", libvirt.VIR_DOMAIN_JOB_NONE) in (
        libvirt.VIR_DOMAIN_JOB_BOUNDED,
        libvirt.VIR_DOMAIN_JOB_UNBOUNDED,
    )
    return running and stats.get("operation") == operation


def send(
    domain: Handle,
    node: str,
    uri: str,
    *,
    pause_limit_ms: int,
    bandwidth_mib_s: int,
    progress: Progress,
) -> None:
    """Move a running domain. When `progress` raises, or Ctrl-C comes, it is ended first."""
    flags = _FLAGS
    # Also what is in the guest's memory is for nobody else, where the hosts talk in secret.
    if uri.startswith("qemu+tls:"):
        flags |= libvirt.VIR_MIGRATE_TLS
    # With its passwords, and without what is of this host alone.
    own = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_SECURE | libvirt.VIR_DOMAIN_XML_MIGRATABLE)
    parameters: dict[str, Any] = {
        libvirt.VIR_MIGRATE_PARAM_DEST_XML: domain_xml.moved_xml(own, node)
    }
    if bandwidth_mib_s:
        parameters[libvirt.VIR_MIGRATE_PARAM_BANDWIDTH] = bandwidth_mib_s
    # Kept by the domain until it has moved.
    domain.migrateSetMaxDowntime(max(1, pause_limit_ms), 0)
    call = _Call(lambda: domain.migrateToURI3(uri, parameters, flags))
    try:
        while not call.over(POLL_S):
            tell(domain, progress)
    except BaseException:
        # It may not have begun yet, so it is told until it is over.
        deadline = time.monotonic() + ABORT_TIMEOUT_S
        while not call.over(ABORT_POLL_S) and time.monotonic() < deadline:
            _tell_to_end(domain)
        raise
    call.result()


def follow(domain: Handle, progress: Progress) -> None:
    """Wait for the end of one that somebody else began."""
    try:
        while direction(domain) == "out":
            tell(domain, progress)
            time.sleep(POLL_S)
    except libvirt.libvirtError:
        raise
    except BaseException:
        abort(domain, "end the migration that was to be cancelled")
        raise


def abort(domain: Handle, what: str) -> None:
    """End it; returns when it is over, whichever way."""
    deadline = time.monotonic() + ABORT_TIMEOUT_S
    while direction(domain) == "out":
        if time.monotonic() > deadline:
            raise TimedOut(
                f"cannot {what}: it is still on its way after {ABORT_TIMEOUT_S:g} s; a host that"
                " does not answer may hold it",
            )
        _tell_to_end(domain)
        time.sleep(ABORT_POLL_S)


def _tell_to_end(domain: Handle) -> None:
    with contextlib.suppress(libvirt.libvirtError):
        domain.abortJob()


def tell(domain: Handle, progress: Progress) -> None:
    """How far it is. That it is over, or that the host is gone, is not for this to say."""
    stats: Mapping[str, Any] = {}
    with contextlib.suppress(libvirt.libvirtError):
        stats = domain.jobStats()
    progress(*reading(stats))


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
    return 100.0 * (total - left) / total, ", ".join(parts)


class _Call:
    """A call that blocks, in a thread of its own: a hung daemon must not keep this process."""

    def __init__(self, work: Callable[[], object]) -> None:
        self._work = work
        self._error: BaseException | None = None
        self._done = threading.Event()
        threading.Thread(target=self._run, name="vorch-migrate", daemon=True).start()

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as exc:  # noqa: BLE001 raised again by `result`
            self._error = exc
        finally:
            self._done.set()

    def over(self, timeout_s: float) -> bool:
        return self._done.wait(timeout_s)

    def result(self) -> None:
        if self._error is not None:
            raise self._error


def broke_off(what: str) -> StepFailed:
    return StepFailed(f"cannot {what}: its migration broke off; see the libvirt logs of both hosts")
