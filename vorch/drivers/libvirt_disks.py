"""Work that a domain's QEMU does on its disks while the guest runs: copy, switch, flatten, limit.

QEMU goes on with it when the client that asked for it is gone. Of a copy both places get each write
once they are the same, until somebody lets the domain go on with one of them alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from vorch import domain_xml
from vorch.domain_xml import Element
from vorch.drivers.libvirt_connection import Handle, code_of, libvirt
from vorch.errors import Conflict, NotFound
from vorch.model import Disk, Source, Vm
from vorch.ports import Progress

POLL_S = 0.2

_COPY = (
    # The place is made already, by the driver of its pool.
    libvirt.VIR_DOMAIN_BLOCK_COPY_REUSE_EXT | libvirt.VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB
)


def live_disk(domain: Handle, vm: Vm, disk: Disk, what: str) -> Element:
    element = domain_xml.find_disk(domain_xml.parse(domain.XMLDesc(0)), disk.name)
    if element is None:
        raise NotFound(
            f"cannot {what}: the running VM has no such disk; it comes with the next start",
            vm=vm.name,
            disk=disk.name,
        )
    return element


def is_at(domain: Handle, vm: Vm, disk: Disk, source: Source, what: str) -> bool:
    return domain_xml.place_of(live_disk(domain, vm, disk, what)) == source.path


def copy(domain: Handle, vm: Vm, disk: Disk, source: Source, what: str, progress: Progress) -> None:
    """Returns when both are the same. One under way is followed."""
    element = live_disk(domain, vm, disk, what)
    if domain_xml.copied_to(element) is None:
        text = domain_xml.disk_xml(vm, disk, source)
        domain.blockCopy(disk.target, text, {}, _COPY)

    def ready() -> bool:
        state = domain_xml.copied_to(live_disk(domain, vm, disk, what))
        if state is None:
            raise _broke_off(vm, disk, what)
        if state[0] != source.path:
            raise Conflict(
                f"cannot {what}: somebody copies it to {state[0]} at this moment; wait for the end"
                " of that, or end it (virsh blockjob --abort)",
                vm=vm.name,
                disk=disk.name,
            )
        return state[1]

    _follow(domain, disk, ready, progress)


def switch(domain: Handle, vm: Vm, disk: Disk, source: Source, what: str) -> None:
    element = live_disk(domain, vm, disk, what)
    if domain_xml.place_of(element) == source.path:
        return
    if domain_xml.copied_to(element) != (source.path, True):
        raise _broke_off(vm, disk, what)
    domain.blockJobAbort(disk.target, libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)
    if not is_at(domain, vm, disk, source, what):
        raise _broke_off(vm, disk, what)


def flatten(domain: Handle, vm: Vm, disk: Disk, what: str, progress: Progress) -> None:
    def done() -> bool:
        # In this order: it may come to its end between the two looks.
        busy = bool(domain.blockJobInfo(disk.target, 0))
        if not domain_xml.stands_on_another(live_disk(domain, vm, disk, what)):
            return True
        if not busy:
            raise _broke_off(vm, disk, what)
        return False

    if domain_xml.stands_on_another(live_disk(domain, vm, disk, what)):
        if not domain.blockJobInfo(disk.target, 0):
            domain.blockPull(disk.target, 0, 0)
        _follow(domain, disk, done, progress)


def _follow(domain: Handle, disk: Disk, over: Callable[[], bool], progress: Progress) -> None:
    while not over():
        info = domain.blockJobInfo(disk.target, 0)
        # Before QEMU has looked at the disk, it says 0 of 1.
        if info and info.get("end", 0) > 1:
            left = (info["end"] - info["cur"]) / 1024**2
            progress(100 * info["cur"] / info["end"], f"{left:,.0f} MiB left to copy")
        else:
            progress()
        time.sleep(POLL_S)


def end(domain: Handle, disk: Disk) -> None:
    try:
        domain.blockJobAbort(disk.target, 0)
    except libvirt.libvirtError as exc:
        # There is none, or no such disk.
        if code_of(exc) not in (
            libvirt.VIR_ERR_INVALID_ARG,
            libvirt.VIR_ERR_OPERATION_INVALID,
            libvirt.VIR_ERR_OPERATION_FAILED,
            libvirt.VIR_ERR_NO_DOMAIN,
        ):
            raise


def limit(domain: Handle, disk: Disk) -> None:
    values = domain_xml.limit_values(disk.limits)
    domain.setBlockIoTune(disk.target, values, libvirt.VIR_DOMAIN_AFFECT_LIVE)


def _broke_off(vm: Vm, disk: Disk, what: str) -> Conflict:
    return Conflict(
        f"cannot {what}: QEMU has broken it off; see whether there is room where it goes, and the"
        " host's QEMU log",
        vm=vm.name,
        disk=disk.name,
    )
