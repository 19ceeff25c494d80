"""Finding out whether an accelerator works, by booting something under it.

/dev/kvm that opens proves nothing, nor does a BIOS that starts: on hosts that are virtual machines
themselves, KVM may run real mode and then die at the first FPU instruction of a kernel. So a boot
sector is run that does what kernels do (see probe_sector.S). It gets to the host through libvirt's
own storage pools, near or far, and nothing of it stays there.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from vorch import domain_xml
from vorch.drivers import libvirt_xml
from vorch.drivers.libvirt_connection import Handle, libvirt, reason_of
from vorch.drivers.libvirt_console import StreamConsole
from vorch.drivers.libvirt_figures import power_of
from vorch.drivers.probe_sector import ALL_WELL, SECTOR, STAGES
from vorch.errors import Unreachable
from vorch.model import FileSource, HostFacts, Power, Vm
from vorch.ports import Progress

DEADLINE_S = 5.0
# The BIOS reads from no disk that is smaller than one cylinder.
DISK_BYTES = 2 * 1024**2


@dataclass(frozen=True, slots=True)
class Verdict:
    works: bool
    # What was seen, as the end of a sentence.
    seen: str


def run(
    handle: Handle,
    facts: HostFacts,
    identifier: str,
    *,
    session: bool,
    progress: Progress,
    cpu: str = "default",
) -> Verdict:
    """Boot the sector under `facts.accelerator`. `identifier` is a fresh UUID for its domain."""
    name = f"vorch-probe-{identifier[:8]}"
    parent = "/tmp" if session else "/var/lib/libvirt/images"  # noqa: S108 (a folder of its own)
    with _volume(handle, name, f"{parent}/{name}") as path:
        vm = domain_xml.probe_vm(name, identifier, cpu)
        return _boot(handle, facts, vm, path, progress)


@contextlib.contextmanager
def _volume(handle: Handle, name: str, folder: str) -> Iterator[str]:
    """The sector as a file on the host, in a pool that is there for this moment only."""
    pool = handle.storagePoolDefineXML(libvirt_xml.folder_pool_xml(name, folder), 0)
    try:
        pool.build(0)
        pool.create(0)
        volume = pool.createXML(libvirt_xml.raw_volume_xml("sector", DISK_BYTES), 0)
        stream = handle.newStream(0)
        volume.upload(stream, 0, len(SECTOR), 0)
        stream.send(SECTOR)
        stream.finish()
        yield volume.path()
    finally:
        clear(pool)


def clear(pool: Handle) -> None:
    # Each may fail because an earlier step did; what counts is that all are tried.
    for undo in (
        lambda: pool.storageVolLookupByName("sector").delete(0),
        pool.destroy,
        pool.delete,
        pool.undefine,
    ):
        with contextlib.suppress(libvirt.libvirtError):
            undo()


def _boot(handle: Handle, facts: HostFacts, vm: Vm, path: str, progress: Progress) -> Verdict:
    # The very hardware that VMs get, so that what is proven is what will be used.
    text = domain_xml.probe_xml(
        vm, name=vm.name, source=FileSource(path=path, format="raw"), facts=facts
    )
    # It ends with this connection at the latest.
    flags = libvirt.VIR_DOMAIN_START_PAUSED | libvirt.VIR_DOMAIN_START_AUTODESTROY
    try:
        domain = handle.createXML(text, flags)
    except libvirt.libvirtError as exc:
        return Verdict(False, f"a test guest did not start ({reason_of(exc)})")
    try:
        console = StreamConsole(handle, vm.name, lambda stream: domain.openConsole(None, stream, 0))
        try:
            domain.resume()
            return _listen(domain, console, progress)
        finally:
            console.close()
    finally:
        with contextlib.suppress(libvirt.libvirtError):
            domain.destroy()


def _listen(domain: Handle, console: StreamConsole, progress: Progress) -> Verdict:
    began = time.monotonic()
    said = b""
    ended = ""
    while ALL_WELL not in said and not ended:
        elapsed = time.monotonic() - began
        if elapsed > DEADLINE_S:
            ended = f"then nothing for the rest of {DEADLINE_S:g} s"
            break
        progress(percent=min(99.0, 100 * elapsed / DEADLINE_S))
        try:
            said += console.read(0.1)
        except Unreachable:
            ended = "then it ended"
        if not ended:
            power, reason = _power(domain)
            if power is not Power.RUNNING:
                ended = f"then the hypervisor gave up ({reason or power.value})"
    elapsed = time.monotonic() - began
    if ALL_WELL in said:
        return Verdict(True, f"a test guest ran all of its stages in {elapsed:.1f} s")
    done = [what for letter, what in STAGES.items() if letter.encode() in said]
    missing = [what for letter, what in STAGES.items() if letter.encode() not in said]
    got = f"got through {' and '.join(done)}" if done else "said nothing at all"
    return Verdict(False, f"a test guest {got}, {ended}; it needed {missing[0]}")


def _power(domain: Handle) -> tuple[Power, str]:
    try:
        return power_of(*domain.state())
    except libvirt.libvirtError:
        return Power.STOPPED, "it is gone"


def facts_of(facts: HostFacts, verdict: Verdict, now: float) -> HostFacts:
    """The facts with what the probe of KVM has shown."""
    return replace(
        facts,
        accelerator="kvm" if verdict.works else "tcg",
        accelerator_why=f"under KVM {verdict.seen}",
        probed_at=now,
    )
