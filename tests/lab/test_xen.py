"""A Xen host of the lab: real, on the lab's networks, with the same faults and the same cure."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import libvirt
import pytest

from tests.lab import bare
from tests.lab.test_up_down import nothing_left, traces
from vorch import lab as labs
from vorch.lab import Lab, guest, xen_image
from vorch.lab.lab import HostRow
from vorch.lab.pytest_plugin import clear_remains, why_not

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(900)]

XEN = "x1"
# An emulated guest on an emulated hypervisor, on a machine that may have other things to do.
GUEST_TIMEOUT_S = 180.0
IMAGES = Path("/var/lib/libvirt/images")


@pytest.fixture(scope="module")
def xen_lab() -> Iterator[Lab]:
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    clear_remains()
    # Of what may be built on the way, nothing belongs to the lab.
    xen_image.build()
    name = f"x{os.getpid()}"
    before = traces(name)
    made = labs.up(name, hosts=1, xen=1, osds=0)
    try:
        yield made
    finally:
        labs.down(name)
    nothing_left(name, before)


def row(lab: Lab) -> HostRow:
    return next(host for host in lab.status().hosts if host.name == XEN)


def on_it(lab: Lab, *command: str) -> str:
    return subprocess.run(
        lab.command(XEN, command), capture_output=True, text=True, check=True
    ).stdout


def answers(address: str) -> bool:
    ping = ["ping", "-c", "1", "-W", "2", address]
    return subprocess.run(ping, capture_output=True).returncode == 0


@contextlib.contextmanager
def pv_guest(lab: Lab, name: str) -> Iterator[libvirt.virDomain]:
    """The tiny guest, by its own initrd and a kernel that needs no unpacking, without vorch."""
    folder = lab.spec.host_folder(XEN) / "disk" / IMAGES.relative_to("/")
    image = guest.build("tiny")
    shutil.copyfile(image.raw_path, folder / f"{name}.raw")
    shutil.copyfile(xen_image.build().kernel, folder / "kernel")
    partition = f"{image.raw_path}@@{guest.BOOT_OFFSET}"
    take = ["mcopy", "-n", "-o", "-i", partition, "::initrd", str(folder / "initrd")]
    subprocess.run(take, check=True)
    xml = f"""
<domain type='xen'>
  <name>{name}</name>
  <uuid>{uuid.uuid4()}</uuid>
  <memory unit='MiB'>{image.memory_mib}</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='xenpv'>linux</type>
    <kernel>{IMAGES}/kernel</kernel><initrd>{IMAGES}/initrd</initrd>
    <cmdline>{guest.xen_command_line(guest.COMMAND_LINE)}</cmdline>
  </os>
  <on_crash>destroy</on_crash>
  <devices>
    <disk type='file' device='disk'>
      <driver name='phy' type='raw'/>
      <source file='{IMAGES}/{name}.raw'/>
      <target dev='xvda' bus='xen'/>
    </disk>
    <interface type='bridge'><source bridge='br0'/></interface>
    <console type='pty'><target type='xen' port='0'/></console>
  </devices>
</domain>"""
    with bare.connected(lab, XEN) as connection:
        domain = connection.createXML(xml)
        try:
            yield domain
        finally:
            with contextlib.suppress(libvirt.libvirtError):
                domain.destroy()


def says(lab: Lab, name: str, words: str) -> str:
    """The line of a guest's console that begins with these words, once it is there."""

    def look() -> str:
        log = f"/var/log/xen/console/guest-{name}.log"
        text = on_it(lab, "sh", "-c", f"cat {log} 2>/dev/null || true")
        return next((line for line in text.splitlines() if words in line), "")

    return bare.eventually(look, f"{words!r} of {name}", GUEST_TIMEOUT_S)


def test_it_is_a_host_with_xen_on_the_lab_s_networks(xen_lab: Lab) -> None:
    with bare.connected(xen_lab, XEN) as connection:
        assert connection.getType() == "Xen"
        assert connection.getHostname() == XEN
        assert [one.name() for one in connection.listAllDomains()] == ["Domain-0"]
    for address in (
        xen_lab.spec.management_address(XEN),
        xen_lab.spec.storage_address(XEN),
    ):
        assert answers(address)
    # It stood still since its state was saved; its clock must not have.
    assert abs(float(on_it(xen_lab, "date", "+%s")) - time.time()) < 30
    seen = row(xen_lab)
    assert (seen.power, seen.libvirt, seen.bmc, seen.vms) == (True, "running", "ok", ())


def test_a_guest_runs_on_it_and_is_on_the_lab_s_network(xen_lab: Lab) -> None:
    with pv_guest(xen_lab, "tiny") as domain:
        said = says(xen_lab, "tiny", "vorch-guest ready")
        address = said.partition("ip=")[2].split()[0]
        assert address.startswith(xen_lab.spec.management.rpartition(".")[0])
        assert answers(address)
        assert row(xen_lab).vms == ("tiny",)
        # Its disk is read, and written.
        assert "boot=1" in said
        identifier = domain.UUIDString()
        domain.shutdown()
        with bare.connected(xen_lab, XEN) as connection:
            bare.eventually(
                lambda: identifier not in [one.UUIDString() for one in connection.listAllDomains()],
                "the end of the guest",
                GUEST_TIMEOUT_S,
            )


def test_its_faults_are_those_of_every_host_and_heal(xen_lab: Lab) -> None:
    address = xen_lab.spec.management_address(XEN)
    xen_lab.hang(XEN)
    assert row(xen_lab).libvirt == "hung"
    # Its machine lives.
    assert answers(address)
    xen_lab.heal()
    assert row(xen_lab).libvirt == "running"

    xen_lab.cut(XEN, "management")
    assert not answers(address)
    assert answers(xen_lab.spec.storage_address(XEN))
    assert row(xen_lab).management == "cut"
    # The card inside has no carrier, either.
    assert on_it(xen_lab, "cat", "/sys/class/net/eth0/carrier").strip() == "0"
    xen_lab.heal()
    assert answers(address)
    assert on_it(xen_lab, "cat", "/sys/class/net/eth0/carrier").strip() == "1"

    xen_lab.freeze(XEN)
    assert not answers(address)
    assert row(xen_lab).libvirt == "hung"
    xen_lab.heal()
    assert row(xen_lab).libvirt == "running"


def test_a_power_cut_ends_it_at_once_and_it_comes_back_in_seconds(xen_lab: Lab) -> None:
    kept = xen_lab.spec.host_folder(XEN) / "disk" / IMAGES.relative_to("/") / "kept"
    kept.write_text("by the host\n")
    address = xen_lab.spec.management_address(XEN)
    xen_lab.power_off(XEN)
    seen = row(xen_lab)
    assert (seen.power, seen.libvirt, seen.management) == (False, "off", "off")
    assert not answers(address)
    xen_lab.heal()
    assert row(xen_lab).libvirt == "running"
    assert answers(address)
    assert on_it(xen_lab, "cat", str(IMAGES / "kept")) == "by the host\n"
    xen_lab.reset()
    assert not kept.exists()
    assert row(xen_lab).libvirt == "running"
