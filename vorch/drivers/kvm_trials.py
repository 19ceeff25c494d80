"""Trying a QEMU host out with tiny machines: what its clock shows, whether machines can leave it.

None of them ever runs more than an instant, none has a disk, and none is anybody's guest.
"""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Callable

import libvirt_qemu

from vorch import domain_xml
from vorch.drivers.libvirt_connection import Handle, libvirt
from vorch.errors import TimedOut
from vorch.model import Cpu, HostFacts, Vm

# By these names all that a trial makes on a host can be told from everything else.
NAMES = ("vorch-probe-", "vorch-trial-")
EVENT_TIMEOUT_S = 10.0


def _tiny_xml(vm: Vm, facts: HostFacts, cpu: Cpu | None = None) -> str:
    text = domain_xml.domain_xml(
        domain_xml.bare(vm), name=vm.name, sources={}, networks={}, facts=facts, cpu=cpu
    )
    domain = domain_xml.parse(text)
    mark = domain.find("metadata")
    if mark is not None:
        domain.remove(mark)
    return domain_xml.to_text(domain)


def _tiny(identifier: str) -> Vm:
    return domain_xml.probe_vm(f"vorch-trial-{identifier[:8]}", identifier)


def clock(handle: Handle, facts: HostFacts, now: Callable[[], float]) -> tuple[float, float]:
    """(how many seconds its clock is ahead of `now`, how far that may be wrong).

    QEMU stamps its events with the host's time: one that comes of a call of ours happened between
    the call's beginning and its end.
    """
    vm = _tiny(str(uuid.uuid4()))
    flags = libvirt.VIR_DOMAIN_START_PAUSED | libvirt.VIR_DOMAIN_START_AUTODESTROY
    came = threading.Event()
    stamps: list[float] = []

    def hear(
        _handle: Handle, _domain: Handle, _event: str, seconds: int, micros: int, *_: object
    ) -> None:
        stamps.append(seconds + micros / 1e6)
        came.set()

    domain = handle.createXML(_tiny_xml(vm, facts), flags)
    try:
        number = libvirt_qemu.qemuMonitorEventRegister(handle, domain, "RESUME", hear, None)
        try:
            before = now()
            domain.resume()
            after = now()
            if not came.wait(EVENT_TIMEOUT_S):
                raise TimedOut("cannot read the host's clock: its QEMU sent no event; try again")
        finally:
            libvirt_qemu.qemuMonitorEventDeregister(handle, number)
    finally:
        with contextlib.suppress(libvirt.libvirtError):
            domain.destroy()
    return stamps[0] - (before + after) / 2, (after - before) / 2


def move(handle: Handle, facts: HostFacts, identifier: str, uri: str, cpu: Cpu | None) -> None:
    """Make a machine here and move it to `uri`, as VMs are. It is gone from here then."""
    flags = libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_PEER2PEER
    if uri.startswith("qemu+tls:"):
        flags |= libvirt.VIR_MIGRATE_TLS
    vm = _tiny(identifier)
    domain = handle.createXML(_tiny_xml(vm, facts, cpu), libvirt.VIR_DOMAIN_START_PAUSED)
    try:
        domain.migrateToURI3(uri, {}, flags)
    finally:
        with contextlib.suppress(libvirt.libvirtError):
            domain.destroy()


def sweep(handle: Handle, clear_pool: Callable[[Handle], None]) -> None:
    """What was left by trials that were killed."""
    for domain in handle.listAllDomains():
        if domain.name().startswith(NAMES):
            with contextlib.suppress(libvirt.libvirtError):
                domain.destroy()
    for pool in handle.listAllStoragePools():
        if pool.name().startswith(NAMES):
            clear_pool(pool)
