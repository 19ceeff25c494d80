"""Vm → domain XML for Xen: golden files, what is refused, and libvirt's own schema."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from lxml import etree

from tests.test_domain_xml import (
    GOLDEN,
    ID,
    LAN,
    OVERLAY,
    SCHEMAS,
    TAGGED,
    UPDATE,
    WIRE,
    disk,
    drive,
    nic,
    vm,
)
from vorch.domain_xml import NAMESPACE, parse, read_domain
from vorch.errors import Invalid, Unsupported
from vorch.model import (
    INITRD_SOURCE,
    KERNEL_SOURCE,
    DirectBoot,
    Disk,
    DiskBus,
    FileSource,
    Firmware,
    HostFacts,
    IoLimits,
    Network,
    RbdSource,
    Source,
    Vm,
    Volume,
    Watchdog,
)
from vorch.xen_guests import lacks, plugged, targets
from vorch.xen_xml import (
    MACHINES,
    add_image,
    disk_xml,
    drop_image,
    nic_xml,
    place_of,
    xen_domain_xml,
)

XEN = HostFacts(hypervisor="xen", cpus=8, memory_mib=32768, accelerator="xen", networks=False)
FOLDER = GOLDEN / "xen"
BOOT = DirectBoot(
    kernel=Volume(pool="p", name="kernel"),
    initrd=Volume(pool="p", name="initrd"),
    command_line="console=hvc0 root=/dev/xvda",
)
RBD = RbdSource(
    pool="vms",
    namespace="team",
    image="web",
    monitors=("10.0.0.1:3300", "[fd00::2]:3300"),
    user="vorch",
    secret=ID,
)
FILES: dict[str, Source] = {
    "image": RBD,
    "shared": replace(RBD, namespace="", image="tools"),
    KERNEL_SOURCE: FileSource(path="/boot/vmlinux", format="raw"),
    INITRD_SOURCE: FileSource(path="/boot/initrd", format="raw"),
    "root": FileSource(path="/pool/web.root.raw", format="raw"),
    "data": FileSource(path="/pool/web.data.qcow2", format="qcow2"),
    "seed": FileSource(path="/pool/web.seed.iso", format="raw"),
}


def cd(name: str, target: str, **changes: object) -> Disk:
    return replace(disk(name, target, **changes), device="cdrom", read_only=True)


CASES = {
    "pygrub": vm(disks=(disk(boot=1),), nics=(nic(network="wire"),)),
    # The disk to boot from comes first, wherever it stands in the VM.
    "several": vm(
        description="two & more",
        vcpus=2,
        vcpus_max=4,
        memory_mib=1024,
        memory_max_mib=2048,
        disks=(disk("data", "vdb", read_only=True), disk(boot=1)),
        nics=(nic(network="wire"), nic("second", "wire", 2)),
    ),
    "direct": vm(disks=(disk(),), direct_boot=BOOT),
    "pvh": vm(xen_kind="pvh", disks=(disk(),), direct_boot=BOOT),
    "pvh-pygrub": vm(xen_kind="pvh", disks=(disk(),)),
    "pvgrub": vm(xen_loader="pvgrub", disks=(disk(),)),
    "pvh-pvgrub": vm(xen_kind="pvh", xen_loader="pvgrub", disks=(disk("image"),)),
    # An empty drive is left away; what is in one is a disk that is only read, of another letter.
    "cds": vm(
        cpu="host",
        disks=(disk(bus=DiskBus.SCSI, target="sda"), drive("sdb"), cd("seed", "vda")),
    ),
    "hvm": vm(
        xen_kind="hvm",
        disks=(disk(boot=2), cd("seed", "sda", boot=1), drive("sdb")),
        nics=(nic(network="wire"),),
    ),
    "hvm-direct": vm(xen_kind="hvm", disks=(disk(),), direct_boot=BOOT),
    "bare": vm(xen_kind="pvh", direct_boot=replace(BOOT, initrd=None, command_line="")),
    "mapped": vm(disks=(disk("image"), disk("shared", "vdb", read_only=True))),
}


def made(wanted: Vm, *networks: Network, **sources: Source) -> str:
    return xen_domain_xml(
        wanted,
        name=wanted.name,
        sources={**FILES, **sources},
        networks={one.name: one for one in networks or (WIRE,)},
        facts=XEN,
    )


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str) -> None:
    path, text = FOLDER / f"{name}.xml", made(CASES[name])
    if UPDATE:
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8"), "UPDATE_GOLDEN=1 writes them anew"


def test_no_golden_file_is_left_over() -> None:
    assert {path.stem for path in FOLDER.glob("*.xml")} == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_libvirt_s_own_schema_is_kept_to(name: str) -> None:
    path = SCHEMAS / "domain.rng"
    if not path.exists():
        pytest.skip(f"libvirt's schema is not installed: {path}")
    etree.RelaxNG(file=str(path)).assertValid(etree.fromstring(made(CASES[name]).encode()))


@pytest.mark.parametrize("name", CASES)
def test_it_is_read_back(name: str) -> None:
    wanted, seen = CASES[name], read_domain(made(CASES[name]))
    machine = MACHINES[wanted.xen_kind]
    assert (seen.id, seen.machine, seen.description) == (wanted.id, machine, wanted.description)
    assert seen.mark is not None
    assert (seen.mark.vm, seen.mark.generation) == (wanted.name, wanted.generation)
    assert (seen.vcpus, seen.vcpus_max) == (wanted.vcpus, wanted.vcpus_max)
    assert (seen.memory_mib, seen.memory_max_mib) == (wanted.memory_mib, wanted.memory_max_mib)
    paths = {one.name: one.path for one in seen.disks}
    assert paths == {one.name: place_of(FILES[one.name]) for one in plugged(wanted)}
    assert {one.name: one.target for one in seen.disks} == targets(wanted)
    assert [(one.name, one.mac, one.bridge) for one in seen.nics] == [
        (one.name, one.mac, "br0") for one in wanted.nics
    ]


PV = vm(disks=(disk(),))


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        (replace(PV, firmware=Firmware.UEFI), "asks for UEFI"),
        (replace(PV, tpm=True), "asks for a TPM"),
        (replace(PV, watchdog=Watchdog.RESET), "asks for a watchdog"),
        (replace(PV, huge_pages="2M"), "asks for huge pages"),
        (replace(PV, one_numa_cell=True), "asks for one NUMA cell"),
        (replace(PV, disks=(disk(limits=IoLimits(iops=100)),)), "disk 'root' has limits"),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
def test_what_such_a_guest_cannot_have_is_refused(wanted: Vm, why: str) -> None:
    with pytest.raises(Unsupported, match=re.escape(why)):
        made(wanted)


def test_a_kernel_is_read_from_a_file_of_the_host() -> None:
    with pytest.raises(Unsupported, match="by its kernel"):
        made(CASES["direct"], **{KERNEL_SOURCE: RBD})


def test_a_mark_keeps_to_what_is_plugged_in() -> None:
    """Whether it is whole, or as libvirt hands it out: without its namespace."""
    whole = parse(made(CASES["mapped"])).find(f"metadata/{{{NAMESPACE}}}vm")
    alone = parse("<vm name='web'><rbd path='/dev/vorch/1/vms/tools'/></vm>")
    for mark in (whole, alone):
        before = len(mark)
        for _ in range(2):
            add_image(mark, disk("more"), replace(RBD, image="more"))
            assert len(mark) == before + 1
        assert mark[-1].get("path") == f"/dev/vorch/{ID[:8]}/vms/team/more"
        drop_image(mark, mark[-1].get("path"))
        assert len(mark) == before


@pytest.mark.parametrize("network", [LAN, TAGGED, OVERLAY])
def test_only_plain_bridges_are_used(network: Network) -> None:
    with pytest.raises(Unsupported, match="use a network of kind 'bridge'"):
        made(replace(PV, nics=(nic(network=network.name),)), network)


def test_what_nobody_described_is_refused() -> None:
    with pytest.raises(Invalid, match="what network 'lan' is"):
        made(replace(PV, nics=(nic(),)))
    with pytest.raises(Invalid, match="cannot plug in disk 'other'"):
        made(replace(PV, disks=(disk("other"),)))


def test_a_name_stays_when_a_disk_is_plugged_in_later() -> None:
    """The CD wants the disk's letter, and does not get one that a later disk would have."""
    one = vm(disks=(disk(), cd("seed", "sda")))
    assert targets(one) == {"root": "xvda", "seed": "xvdp"}
    more = replace(one, disks=(*one.disks, disk("data", "vdb"), disk("more", "sdb")))
    assert targets(more) == {**targets(one), "data": "xvdb", "more": "xvdo"}


def test_an_emulated_machine_has_four_places() -> None:
    full = [disk(f"d{letter}", f"vd{letter}") for letter in "abcd"]
    assert lacks(vm(xen_kind="hvm", disks=tuple(full))) == ""
    assert "no place of 4" in lacks(vm(xen_kind="hvm", disks=(*full, cd("seed", "sda"))))
    assert lacks(vm(disks=(*full, cd("seed", "sda")))) == ""
    many = tuple(disk(f"d{number}", f"vd{chr(97 + number)}") for number in range(17))
    assert "over 16 disks" in lacks(vm(disks=many))


def test_a_disk_that_the_vm_has_not_yet_gets_the_place_that_it_will_have() -> None:
    running = vm(disks=(disk("root", "vda"),))
    text = disk_xml(running, disk("data", "vdb"), RBD)
    assert 'dev="xvdb"' in text
    assert place_of(RBD) in text
    # One that it has is the same one.
    assert disk_xml(running, disk("root", "vda"), RBD).count('dev="xvda"') == 1


def test_a_card_that_is_plugged_in_has_a_name_by_which_its_figures_are_found() -> None:
    plugged = nic("extra", "wire", 7)
    text = nic_xml(vm(), plugged, Network(name="wire", kind="bridge", bridge="br0"))
    name = re.findall(r'target dev="(\w+)"', text)
    assert name == ["vx" + plugged.mac.replace(":", "")[-8:]]
    assert len(name[0]) + len("-emu") <= 15
