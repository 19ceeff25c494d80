"""A guest on its way from one Xen host to another, by libvirt's libxl driver.

As with QEMU the hosts do it among themselves (peer to peer). What is different: nobody can end it
on its way, nobody tells how far it is, and what is to arrive is shown as a domain that is off. A
guest that goes live goes on until the last of its memory; one that does not stands still from the
beginning.

Its memory goes over the network as it is, for everybody there to read. libvirt could send it by
its own connection (a tunnel), but when Xen gives a migration up in there, both hosts wait for ever
(libvirt 9.0); this was seen.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Literal
from urllib.parse import urlsplit

from vorch import domain_xml
from vorch.drivers.libvirt_connection import Handle, code_of, libvirt
from vorch.drivers.libvirt_migration import ARRIVE_TIMEOUT_S, OVER, POLL_S, Call, Way
from vorch.errors import TimedOut
from vorch.model import MoveFigures
from vorch.ports import Progress

_JOBS = (libvirt.VIR_DOMAIN_JOB_BOUNDED, libvirt.VIR_DOMAIN_JOB_UNBOUNDED)


def direction(domain: Handle) -> Literal["in", "out"] | None:
    """Nothing else that vorch asks of a Xen host is a job."""
    try:
        if domain.jobInfo()[0] not in _JOBS:
            return None
        return "out" if domain.isActive() else "in"
    except libvirt.libvirtError as exc:
        if code_of(exc) in OVER:
            return None
        raise


def send(domain: Handle, way: Way, progress: Progress) -> MoveFigures:
    """Move it. When `progress` raises it is waited for first: it cannot be called back."""
    flags = libvirt.VIR_MIGRATE_PEER2PEER
    if way.live:
        flags |= libvirt.VIR_MIGRATE_LIVE
    own = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_MIGRATABLE)
    address = urlsplit(way.uri).hostname or ""
    shown = f"[{address}]" if ":" in address else address
    parameters: dict[str, Any] = {
        libvirt.VIR_MIGRATE_PARAM_URI: f"tcp://{shown}",
        libvirt.VIR_MIGRATE_PARAM_DEST_XML: domain_xml.moved_xml(
            own, way.node, bridges=way.bridges
        ),
    }
    began = time.monotonic()
    call = Call(lambda: domain.migrateToURI3(way.uri, parameters, flags))
    _await(lambda: call.over(POLL_S), domain, progress)
    call.result()
    elapsed_s = time.monotonic() - began
    # A guest that stands still does so all the while.
    return MoveFigures(elapsed_s=elapsed_s, pause_ms=None if way.live else round(elapsed_s * 1000))


def follow(domain: Handle, progress: Progress) -> MoveFigures:
    """Wait for the end of one that somebody else began."""

    def over() -> bool:
        time.sleep(POLL_S)
        return direction(domain) != "out"

    _await(over, domain, progress)
    return MoveFigures()


def await_end(domain: Handle, what: str) -> None:
    """Until it has arrived or failed."""
    began = time.monotonic()
    while direction(domain) == "out":
        if time.monotonic() - began > ARRIVE_TIMEOUT_S:
            raise TimedOut(
                f"cannot {what}: Xen cannot end it on its way, and it is still at it after"
                f" {ARRIVE_TIMEOUT_S:g} s; a host that does not answer may hold it"
            )
        time.sleep(POLL_S)


def _await(over: Callable[[], bool], domain: Handle, progress: Progress) -> None:
    try:
        while not over():
            progress()
    except libvirt.libvirtError:
        raise
    except BaseException:
        deadline = time.monotonic() + ARRIVE_TIMEOUT_S
        while not over() and time.monotonic() < deadline:
            pass
        raise
