"""A guest's watchdog on real libvirt: a guest that feeds it no more is reset, or ends."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real.guests import PREFIX, GuestConsole, embedded_cluster
from vorch import Orchestrator

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(600)]

NAME = PREFIX + "watchdog"
# A boot sector that says "up" on the serial port, looks for the watchdog on all buses, sets it off
# (clock of 1 MHz: it barks after two stages of a second) and halts for ever. "n": there is none.
#
#   cli; xor ax,ax; mov ds,ax; mov dx,3f8h; mov al,'u'; out dx,al; mov al,'p'; out dx,al
#   mov ebx,80000000h                              ; the first device, as port 0cf8h has it
#   look:  mov dx,0cf8h; mov eax,ebx; out dx,eax; mov dx,0cfch; in eax,dx
#          cmp eax,25ab8086h; je found             ; the i6300ESB
#          add ebx,800h; cmp ebx,80ff0000h; jb look
#          mov dx,3f8h; mov al,'n'; out dx,al; jmp stop
#   found: mov dx,0cf8h; lea eax,[ebx+60h]; out dx,eax; mov dx,0cfch; mov ax,4; out dx,ax
#          mov dx,0cf8h; lea eax,[ebx+68h]; out dx,eax; mov dx,0cfch; mov al,2; out dx,al
#   stop:  hlt; jmp stop
CODE = bytes.fromhex(
    "fa31c08ed8baf803b075eeb070ee66bb00000080baf80c6689d866efbafc0c66ed663d8680ab2574186681c300080000"
    "6681fb0000ff8072dbbaf803b06eeeeb21baf80c67668d436066efbafc0cb80400efbaf80c67668d436866efbafc0cb0"
    "02eef4ebfd"
)
SECTOR = CODE.ljust(510, b"\0") + b"\x55\xaa"


@pytest.fixture
def cluster(libvirt_system: str, tmp_path: Path) -> Iterator[Orchestrator]:
    image = tmp_path / "deaf.raw"
    image.write_bytes(SECTOR.ljust(1024**2, b"\0"))
    with embedded_cluster() as cluster:
        cluster.image_import("deaf", str(image), memory_mib=32)
        yield cluster


def test_a_guest_that_stands_still_is_reset(cluster: Orchestrator) -> None:
    cluster.create(NAME, image="deaf", networks=(), graphics=False, watchdog="reset", start=True)
    with GuestConsole(cluster, NAME) as console:
        console.expect("up")
        console.expect("up")
    # Nothing is reset by a device that is not there.
    cluster.change(NAME, watchdog="none")
    cluster.restart(NAME, force=True)
    with GuestConsole(cluster, NAME) as console:
        console.expect("upn")


def test_a_guest_whose_power_was_cut_did_not_end_itself(cluster: Orchestrator) -> None:
    """So one that is looked after is started again."""
    cluster.create(NAME, image="deaf", networks=(), graphics=False, watchdog="poweroff")
    vm = cluster.look().vm(NAME)
    host = cluster.world.hypervisor(vm.node)
    host.endings()
    cluster.start(NAME)
    until = time.monotonic() + 120.0
    while vm.id not in host.endings():
        assert time.monotonic() < until
        time.sleep(0.2)
    assert not host.endings()[vm.id].by_guest
    assert host.domain(vm.id) is None
