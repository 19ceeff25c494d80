"""Vm → domain XML → back, golden files of typical VMs, and libvirt's own schema."""

from __future__ import annotations

import os
import string
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from vorch import domain_xml
from vorch.domain_xml import Mark, SeenDisk, SeenNic, disk_bus, read_domain
from vorch.errors import Invalid, Unsupported
from vorch.model import (
    INITRD_SOURCE,
    KERNEL_SOURCE,
    Cpu,
    DirectBoot,
    Disk,
    DiskBus,
    FileSource,
    Firmware,
    Forward,
    HostFacts,
    IoLimits,
    Network,
    Nic,
    NicModel,
    NumaCell,
    RbdSource,
    Source,
    Vm,
    Volume,
    Watchdog,
)

GOLDEN = Path(__file__).parent / "golden"
SCHEMAS = Path("/usr/share/libvirt/schemas")
UPDATE = os.environ.get("UPDATE_GOLDEN") == "1"

KVM = HostFacts(hypervisor="kvm", cpus=8, memory_mib=32768, accelerator="kvm")
TCG = HostFacts(hypervisor="kvm", cpus=8, memory_mib=32768, accelerator="tcg")
SESSION = HostFacts(
    hypervisor="kvm",
    cpus=8,
    memory_mib=32768,
    accelerator="tcg",
    networks=False,
    display_socket=False,
)
NEW_LIBVIRT = HostFacts(
    hypervisor="kvm", cpus=8, memory_mib=32768, accelerator="kvm", bridge_vlans=True
)

LAN = Network(name="lan", kind="nat", bridge="vo-lan", subnet="10.80.0.0/24")
INNER = Network(name="inner", kind="isolated", bridge="vo-inner", dhcp=False)
WIRE = Network(name="wire", kind="bridge", bridge="br0")
TAGGED = Network(name="tagged", kind="bridge", bridge="br0", vlan=42)
OVERLAY = Network(name="overlay", kind="overlay", bridge="vo-over", dhcp=False, vni=77, mtu=1450)
PORTS = Network(
    name="ports",
    kind="nat",
    bridge="vo-ports",
    subnet="10.80.1.0/24",
    forwards=(
        Forward(mac="52:54:00:00:00:01", address="10.80.1.5", host_port=8080, guest_port=80),
        Forward(
            mac="52:54:00:00:00:01",
            address="10.80.1.5",
            host_port=5353,
            guest_port=53,
            protocol="udp",
        ),
    ),
)
NETWORKS = {one.name: one for one in (LAN, INNER, WIRE, TAGGED, OVERLAY)}

ID = "6f1c7e0e-5a4f-4a8e-9e55-0f6d9a3b1c2d"


def volume(name: str) -> Volume:
    return Volume(pool="local", name=name)


def disk(name: str = "root", target: str = "vda", **changes: object) -> Disk:
    settings: dict[str, object] = {"volume": volume(name), "size_bytes": 2**30}
    return Disk(name=name, target=target, **(settings | changes))  # type: ignore[arg-type]


def drive(target: str = "sda", bus: DiskBus = DiskBus.SATA, **changes: object) -> Disk:
    settings: dict[str, object] = {"volume": None, "device": "cdrom"}
    return Disk(name="cd", target=target, bus=bus, **(settings | changes))  # type: ignore[arg-type]


def nic(name: str = "lan", network: str = "lan", number: int = 1, **changes: object) -> Nic:
    mac = f"52:54:00:00:00:{number:02x}"
    return Nic(name=name, mac=mac, network=network, **changes)  # type: ignore[arg-type]


def vm(**changes: object) -> Vm:
    settings: dict[str, object] = {"name": "web", "id": ID, "node": "h1", "generation": 3}
    return Vm(**(settings | changes))  # type: ignore[arg-type]


def sources(one: Vm) -> dict[str, Source]:
    """Where the pool says that everything is."""
    found: dict[str, Source] = {
        item.name: FileSource(
            path=f"/pool/{item.volume.name}", format="raw" if item.device == "cdrom" else "qcow2"
        )
        for item in one.disks
        if item.volume is not None
    }
    if one.direct_boot is not None:
        found[KERNEL_SOURCE] = FileSource(path=f"/pool/{one.direct_boot.kernel.name}", format="raw")
        if one.direct_boot.initrd is not None:
            found[INITRD_SOURCE] = FileSource(
                path=f"/pool/{one.direct_boot.initrd.name}", format="raw"
            )
    return found


def image(name: str, **changes: object) -> RbdSource:
    """Where a pool on Ceph says that a volume is."""
    settings: dict[str, object] = {
        "pool": "vms",
        "image": name,
        "monitors": ("10.0.0.1:3300", "10.0.0.2:3300", "[fd00::3]:6789"),
        "user": "vorch",
        "secret": "9d3af7cd-2f80-516d-b494-6867a2c8e3c9",
    }
    return RbdSource(**(settings | changes))  # type: ignore[arg-type]


@dataclass
class Case:
    vm: Vm
    facts: HostFacts = KVM
    name: str = ""
    cached: tuple[str, ...] = ()
    nvram: str = ""
    sources: Mapping[str, Source] | None = field(default=None)
    cpu: Cpu | None = None

    def xml(self) -> str:
        return domain_xml.domain_xml(
            self.vm,
            name=self.name or self.vm.name,
            sources=sources(self.vm) if self.sources is None else self.sources,
            networks=NETWORKS,
            facts=self.facts,
            cached=self.cached,
            nvram=self.nvram,
            cpu=self.cpu,
        )


COMMON_CPU = Cpu(
    model="Haswell-noTSX",
    vendor="Intel",
    features={"aes": False, "arat": True, "ssbd": True, "x2apic": True},
)
CASES = {
    "smallest": Case(vm(graphics=False, agent=False)),
    "huge-pages": Case(vm(huge_pages="2M", disks=(disk(boot=1),))),
    "numa-cell": Case(
        vm(one_numa_cell=True, numa_cell=1, disks=(disk(boot=1),)),
        replace(
            KVM,
            cells=(
                NumaCell(number=0, cpus=4, memory_mib=8192, cpu_set="0-1,4-5"),
                NumaCell(number=1, cpus=4, memory_mib=8192, cpu_set="2-3,6-7"),
            ),
        ),
    ),
    "watchdog": Case(vm(watchdog=Watchdog.RESET, disks=(disk(boot=1),))),
    "cloud": Case(vm(disks=(disk(boot=1), drive()), nics=(nic(),), memory_mib=512)),
    "emulated": Case(vm(disks=(disk(boot=1),), nics=(nic(),)), TCG, name="web-6f1c7e0e"),
    "all-of-the-host": Case(vm(cpu="host", vcpus=4, vcpus_max=4, disks=(disk(),))),
    "named-cpu": Case(vm(cpu="EPYC", disks=(disk(),))),
    "common-cpu": Case(vm(disks=(disk(),)), cpu=COMMON_CPU),
    # An emulator gives the same CPU everywhere.
    "common-cpu-emulated": Case(vm(disks=(disk(),)), TCG, cpu=COMMON_CPU),
    "named-cpu-emulated": Case(vm(cpu="Nehalem", disks=(disk(),)), TCG),
    "uefi": Case(
        vm(firmware=Firmware.UEFI, disks=(disk(boot=1),)),
        nvram=f"/var/lib/libvirt/qemu/nvram/{ID}_VARS.fd",
    ),
    "windows": Case(
        vm(
            firmware=Firmware.UEFI,
            secure_boot=True,
            tpm=True,
            vcpus=2,
            disks=(
                disk(bus=DiskBus.SATA, target="sda", boot=2),
                drive("sdb", volume=volume("windows.iso"), boot=1, owned=False),
            ),
            nics=(nic(model=NicModel.E1000E),),
        ),
        nvram=f"/var/lib/libvirt/qemu/nvram/{ID}_VARS.fd",
    ),
    "old": Case(
        vm(
            machine="pc",
            cpu="pentium3",
            disks=(disk(bus=DiskBus.IDE, target="hda"), drive("hdb", DiskBus.IDE)),
            nics=(nic(model=NicModel.RTL8139),),
        ),
        TCG,
    ),
    "installer": Case(
        vm(
            disks=(disk(), drive(volume=volume("debian.iso"), owned=False)),
            nics=(nic(),),
            direct_boot=DirectBoot(
                kernel=volume("vmlinuz"),
                initrd=volume("initrd"),
                command_line='auto=true url="http://[fd00::1]/a?b=1&c=<2>"',
            ),
        )
    ),
    "many": Case(
        vm(
            disks=(
                disk(boot=1),
                disk("data", "sda", bus=DiskBus.SCSI),
                disk("reference", "vdb", read_only=True, owned=False),
                disk("a.long_name-that-no-serial-number-can-hold", "vdc"),
            ),
            nics=(
                nic(boot=2),
                nic("inner", "inner", 2),
                nic("wire", "wire", 3, model=NicModel.E1000),
            ),
        ),
        cached=("data",),
    ),
    "ceph": Case(
        vm(disks=(disk(boot=1), drive(volume=volume("debian.iso"), owned=False))),
        sources={"root": image("web-root"), "cd": image("debian.iso")},
    ),
    "limited": Case(
        vm(
            disks=(
                disk(limits=IoLimits(iops=500, mib_s=50, burst_iops=2000, burst_s=10)),
                disk(
                    "data",
                    target="vdb",
                    limits=IoLimits(read_mib_s=100, write_iops=200, burst_mib_s=400),
                ),
            )
        ),
    ),
    "vlan": Case(vm(nics=(nic("tagged", "tagged"),)), NEW_LIBVIRT),
    "session": Case(vm(disks=(disk(),), nics=(nic(),)), SESSION),
    "characters": Case(
        vm(description="<b>\"Tom\" & 'Jerry'</b>\n]]> –", disks=(disk("a.b_c"),)),
        sources={"a.b_c": FileSource(path="/pool/a b&<'\">,ü.qcow2", format="qcow2")},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str) -> None:
    path = GOLDEN / f"{name}.xml"
    text = CASES[name].xml()
    if UPDATE:
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8"), "UPDATE_GOLDEN=1 writes them anew"


def test_no_golden_file_is_left_over() -> None:
    networks = {f"network-{one.name}" for one in (LAN, INNER, OVERLAY, PORTS)}
    assert {path.stem for path in GOLDEN.glob("*.xml")} == {*CASES, *networks}


@pytest.mark.parametrize("network", [LAN, INNER, OVERLAY, PORTS], ids=lambda one: one.name)
def test_golden_network(network: Network) -> None:
    path = GOLDEN / f"network-{network.name}.xml"
    hosts = {"h1": "10.0.0.1", "h2": "h2.example.org", "h3": "10.0.0.3", "alone": ""}
    text = domain_xml.network_xml(network, "h1", hosts if network is OVERLAY else {})
    if UPDATE:
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8"), "UPDATE_GOLDEN=1 writes them anew"
    check_schema(text, "network.rng")


def check_schema(text: str, schema: str) -> None:
    path = SCHEMAS / schema
    if not path.exists():
        pytest.skip(f"libvirt's schema is not installed: {path}")
    rules = etree.RelaxNG(etree.parse(path))
    rules.assertValid(etree.fromstring(text.encode()))


@pytest.mark.parametrize("name", CASES)
def test_libvirt_would_take_it(name: str) -> None:
    check_schema(CASES[name].xml(), "domain.rng")


# -- the way back

DISK_NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,30}", fullmatch=True)
TEXTS = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cs"), exclude_characters="\ufffe\uffff")
    | st.sampled_from("\n\t<>&'\""),
    max_size=80,
)
PATHS = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Cn")), min_size=1, max_size=40
).map(lambda text: f"/pool/{text}")
BUSES = {
    "q35": (DiskBus.VIRTIO, DiskBus.SCSI, DiskBus.SATA),
    "pc": (DiskBus.VIRTIO, DiskBus.SCSI, DiskBus.IDE),
}
PREFIXES = {
    DiskBus.VIRTIO: "vd",
    DiskBus.SCSI: "sd",
    DiskBus.SATA: "sd",
    DiskBus.IDE: "hd",
}


@st.composite
def disk_lists(draw: st.DrawFn, machine: str) -> tuple[Disk, ...]:
    found = []
    for number, name in enumerate(draw(st.lists(DISK_NAMES, max_size=4, unique=True))):
        device = draw(st.sampled_from(["disk", "cdrom"]))
        buses = BUSES[machine][1:] if device == "cdrom" else BUSES[machine]
        bus = draw(st.sampled_from(buses))
        empty = device == "cdrom" and draw(st.booleans())
        found.append(
            Disk(
                name=name,
                target=PREFIXES[bus] + string.ascii_lowercase[number],
                volume=None if empty else volume(f"v{number}"),
                bus=bus,
                device="cdrom" if device == "cdrom" else "disk",
                boot=draw(st.none() | st.integers(1, 99)),
                read_only=draw(st.booleans()),
            )
        )
    return tuple(found)


@st.composite
def nic_lists(draw: st.DrawFn) -> tuple[Nic, ...]:
    names = draw(st.lists(DISK_NAMES, max_size=3, unique=True))
    return tuple(
        nic(
            name,
            draw(st.sampled_from(sorted(NETWORKS))),
            number,
            model=draw(st.sampled_from(NicModel)),
            boot=draw(st.none() | st.integers(1, 99)),
        )
        for number, name in enumerate(names)
    )


@st.composite
def vms(draw: st.DrawFn) -> Vm:
    vcpus_max = draw(st.integers(1, 512))
    memory_max_mib = draw(st.integers(16, 2**24))
    machine = draw(st.sampled_from(["q35", "pc"]))
    firmware = draw(st.sampled_from(Firmware))
    kernel = draw(st.booleans())
    memory_mib = draw(st.integers(16, memory_max_mib))
    in_pages = memory_mib % 2 == memory_max_mib % 2 == 0 and draw(st.booleans())
    return Vm(
        name=draw(st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)),
        id=str(draw(st.uuids())),
        generation=draw(st.integers(1, 2**40)),
        node=draw(DISK_NAMES),
        vcpus=draw(st.integers(1, vcpus_max)),
        vcpus_max=vcpus_max,
        memory_mib=memory_mib,
        memory_max_mib=memory_max_mib,
        huge_pages="2M" if in_pages else "",
        cpu=draw(st.sampled_from(["default", "host", "EPYC", "qemu64"])),
        machine=machine,
        firmware=firmware,
        secure_boot=firmware is Firmware.UEFI and draw(st.booleans()),
        tpm=draw(st.booleans()),
        graphics=draw(st.booleans()),
        agent=draw(st.booleans()),
        watchdog=draw(st.sampled_from(Watchdog)),
        disks=draw(disk_lists(machine)),
        nics=draw(nic_lists()),
        direct_boot=DirectBoot(
            kernel=volume("k"),
            initrd=draw(st.sampled_from([None, volume("i")])),
            command_line=draw(TEXTS),
        )
        if kernel
        else None,
        description=draw(TEXTS),
    )


def seen_disk(one: Vm, item: Disk, place: Source | None) -> SeenDisk:
    rbd = place if isinstance(place, RbdSource) else None
    return SeenDisk(
        name=item.name,
        target=item.target,
        bus=disk_bus(item, one.machine).value,
        device=item.device,
        path=None if place is None else place.path,
        rbd=rbd,
        format="raw" if item.device == "cdrom" or rbd is not None else "qcow2",
        boot=item.boot,
        read_only=item.read_only or item.device == "cdrom",
        serial=domain_xml.disk_serial(item),
    )


def seen_nic(item: Nic) -> SeenNic:
    network = NETWORKS[item.network]
    bridged = network.kind == "bridge"
    return SeenNic(
        name=item.name,
        mac=item.mac,
        model=item.model.value,
        kind="bridge" if bridged else "network",
        network=None if bridged else network.name,
        bridge=network.bridge if bridged else None,
        vlan=network.vlan,
        boot=item.boot,
    )


SAME_IN_BOTH = (
    "vcpus",
    "vcpus_max",
    "memory_mib",
    "memory_max_mib",
    "cpu",
    "machine",
    "firmware",
    "secure_boot",
    "tpm",
    "graphics",
    "agent",
    "watchdog",
    "pages_kib",
    "description",
)


HOSTS = st.one_of(
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(lambda address: f"[{address}]"),
    st.just("mon.example.org"),
)
MONITORS = st.builds(lambda host, port: f"{host}:{port}", HOSTS, st.integers(1, 65535))
PARTS = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,30}", fullmatch=True)
IMAGES = st.builds(
    RbdSource,
    pool=PARTS,
    image=PARTS,
    monitors=st.lists(MONITORS, min_size=1, max_size=3).map(tuple),
    user=PARTS,
    secret=st.uuids().map(str),
)


@given(vms(), st.sampled_from(["kvm", "tcg"]), st.data())
def test_what_is_written_is_read_back(one: Vm, accelerator: str, data: st.DataObject) -> None:
    facts = HostFacts(
        hypervisor="kvm", cpus=1, memory_mib=64, accelerator=accelerator, bridge_vlans=True
    )
    places: dict[str, Source] = {
        key: FileSource(path=data.draw(PATHS), format=source.format)
        for key, source in sources(one).items()
    }
    for item in one.disks:
        if item.volume is not None and data.draw(st.booleans()):
            places[item.name] = data.draw(IMAGES)
    text = Case(one, facts, name="its-name", sources=places, nvram="/n/v").xml()
    seen = read_domain(text)
    assert (seen.name, seen.id) == ("its-name", one.id)
    assert seen.mark == Mark(vm=one.name, node=one.node, generation=one.generation)
    assert seen.accelerator == accelerator
    for attribute in SAME_IN_BOTH:
        assert getattr(seen, attribute) == getattr(one, attribute), attribute
    assert seen.disks == tuple(
        seen_disk(one, item, places[item.name] if item.volume else None) for item in one.disks
    )
    assert seen.nics == tuple(map(seen_nic, one.nics))
    boot = one.direct_boot
    assert seen.command_line == (boot.command_line if boot else "")
    assert seen.kernel == (places[KERNEL_SOURCE].path if boot else None)
    assert seen.initrd == (places[INITRD_SOURCE].path if boot and boot.initrd else None)
    assert seen.nvram == ("/n/v" if one.firmware is Firmware.UEFI else None)


@given(st.lists(DISK_NAMES, min_size=2, max_size=2, unique=True))
def test_aliases_tell_names_apart_and_fit_libvirt(names: list[str]) -> None:
    first, second = (domain_xml.disk_alias(name) for name in names)
    assert first != second
    assert set(first) <= set(string.ascii_letters + string.digits + "-_")


@given(DISK_NAMES)
def test_a_device_is_found_by_its_name(name: str) -> None:
    one = vm(disks=(disk("other.one", "vdz"), disk(name)), nics=(nic(name),))
    live = domain_xml.parse(Case(one).xml())
    found = domain_xml.find_disk(live, name)
    assert found is not None
    assert found.find("target").get("dev") == "vda"
    assert domain_xml.find_nic(live, name) is not None
    assert domain_xml.find_disk(live, f"{name}_") is None


@given(DISK_NAMES)
def test_serial_numbers_fit_and_stay(name: str) -> None:
    serial = domain_xml.disk_serial(disk(name))
    assert 1 <= len(serial) <= domain_xml.SERIAL_LIMIT
    assert serial == domain_xml.disk_serial(disk(name, "vdq", size_bytes=5))


# -- single decisions


def test_a_domain_that_is_not_vorchs_has_no_mark() -> None:
    text = "<domain type='kvm'><name>other</name><os><type>hvm</type></os></domain>"
    seen = read_domain(text)
    assert (seen.name, seen.mark, seen.vcpus) == ("other", None, 1)


def test_memory_is_read_in_every_unit() -> None:
    text = (
        "<domain><os/><memory unit='KiB'>2097152</memory>"
        "<currentMemory unit='b'>1073741824</currentMemory></domain>"
    )
    seen = read_domain(text)
    assert (seen.memory_max_mib, seen.memory_mib) == (2048, 1024)


def test_what_is_no_xml_is_refused() -> None:
    with pytest.raises(Invalid, match="cannot read"):
        read_domain("<domain>")


def test_entities_are_not_followed() -> None:
    text = (
        '<!DOCTYPE d [<!ENTITY e SYSTEM "file:///etc/hostname">]>'
        "<domain><os/><description>&e;</description></domain>"
    )
    assert read_domain(text).description == ""


def test_a_disk_without_a_place_is_refused() -> None:
    with pytest.raises(Invalid, match="'root'"):
        Case(vm(disks=(disk(),)), sources={}).xml()


def test_a_kernel_without_a_place_is_refused() -> None:
    with pytest.raises(Invalid, match="kernel"):
        Case(vm(direct_boot=DirectBoot(kernel=volume("k"))), sources={}).xml()


def test_a_path_that_xml_cannot_carry_is_refused() -> None:
    places: dict[str, Source] = {"root": FileSource(path="/pool/\x01", format="qcow2")}
    with pytest.raises(Invalid, match="control characters"):
        Case(vm(disks=(disk(),)), sources=places).xml()


def test_a_tag_needs_a_libvirt_that_sets_it() -> None:
    with pytest.raises(Unsupported, match="VLAN 42"):
        Case(vm(nics=(nic("tagged", "tagged"),))).xml()


def test_an_isolated_network_needs_more_than_a_session() -> None:
    with pytest.raises(Unsupported, match="NAT only"):
        Case(vm(nics=(nic("inner", "inner"),)), SESSION).xml()


def test_an_existing_bridge_is_not_made() -> None:
    with pytest.raises(Invalid, match="existing bridge"):
        domain_xml.network_xml(WIRE)


@pytest.mark.parametrize(
    ("machine", "bus", "device", "expected"),
    [
        ("q35", DiskBus.VIRTIO, "cdrom", DiskBus.SATA),
        ("pc", DiskBus.VIRTIO, "cdrom", DiskBus.IDE),
        ("pc-q35-7.2", DiskBus.IDE, "cdrom", DiskBus.SATA),
        ("pc-q35-7.2", DiskBus.IDE, "disk", DiskBus.SATA),
        ("pc", DiskBus.IDE, "disk", DiskBus.IDE),
        ("q35", DiskBus.SCSI, "cdrom", DiskBus.SCSI),
    ],
)
def test_disks_are_on_buses_that_the_machine_has(
    machine: str, bus: DiskBus, device: str, expected: DiskBus
) -> None:
    assert disk_bus(disk(bus=bus, device=device), machine) is expected


def test_hot_plugged_devices_are_as_those_from_the_start() -> None:
    one = CASES["many"].vm
    live = domain_xml.parse(CASES["many"].xml())
    for item in one.disks:
        text = domain_xml.disk_xml(
            one, item, sources(one)[item.name], cached=item.name in CASES["many"].cached
        )
        assert same(domain_xml.parse(text), domain_xml.find_disk(live, item.name))
    for card in one.nics:
        text = domain_xml.nic_xml(one, card, NETWORKS[card.network], KVM)
        assert same(domain_xml.parse(text), domain_xml.find_nic(live, card.name))


def same(first: Any, second: Any) -> bool:
    return bool(etree.tostring(first) == etree.tostring(second))


def test_media_are_changed_in_the_drive_that_is_there() -> None:
    live = domain_xml.parse(CASES["cloud"].xml())
    iso = FileSource(path="/pool/a&b.iso", format="raw")
    element = domain_xml.find_disk(live, "cd")
    assert element is not None
    loaded = domain_xml.parse(domain_xml.media_xml(element, iso))
    assert loaded.find("source").get("file") == iso.path
    emptied = domain_xml.parse(domain_xml.media_xml(loaded, None))
    assert emptied.find("source") is None
    assert emptied.find("alias").get("name") == "ua-disk-cd"


def test_a_drive_goes_from_file_to_rbd_and_back() -> None:
    element = domain_xml.find_disk(domain_xml.parse(CASES["cloud"].xml()), "cd")
    assert element is not None
    loaded = domain_xml.media_xml(element, image("debian.iso"))
    live = domain_xml.parse(f"<domain><os/><devices>{loaded}</devices></domain>")
    (seen,) = domain_xml.read_domain(domain_xml.to_text(live)).disks
    assert (live.find("devices/disk").get("type"), seen.rbd) == ("network", image("debian.iso"))
    back = domain_xml.parse(
        domain_xml.media_xml(domain_xml.parse(loaded), FileSource(path="/p", format="raw"))
    )
    assert back.get("type") == "file"
    assert [dict(one.attrib) for one in back.findall("source")] == [{"file": "/p"}]


def test_what_libvirt_cannot_open_is_refused() -> None:
    one = vm(disks=(disk(),))
    with pytest.raises(Unsupported, match="namespace"):
        domain_xml.disk_xml(one, one.disks[0], image("a", namespace="team"))
    booted = vm(direct_boot=DirectBoot(kernel=volume("k")))
    with pytest.raises(Unsupported, match="kernel"):
        Case(booted, sources={KERNEL_SOURCE: image("k")}).xml()


@pytest.mark.parametrize(
    "changes",
    [
        {"image": "a/b"},
        {"image": "a@snapshot"},
        {"pool": "vms:conf=/etc/passwd"},
        {"namespace": "a:b"},
        {"user": "vorch:mon_host=evil"},
        {"monitors": ()},
        {"monitors": ("10.0.0.1",)},
        {"monitors": ("10.0.0.1:3300;evil:1",)},
        {"secret": "none"},
    ],
)
def test_names_that_could_mean_more_than_a_name(changes: dict[str, object]) -> None:
    with pytest.raises(Invalid):
        replace(image("a"), **changes)  # type: ignore[arg-type]


def test_a_vm_that_moves_is_marked_for_its_new_host() -> None:
    one = vm(disks=(disk(),))
    before = read_domain(Case(one, KVM).xml())
    after = read_domain(domain_xml.moved_xml(Case(one, KVM).xml(), "h9"))
    assert after.mark is not None
    assert after.mark.node == "h9"
    assert replace(after, mark=before.mark) == before


def test_a_vm_that_moves_leaves_librbd_s_cache_behind() -> None:
    one = vm(disks=(disk(),))
    text = domain_xml.domain_xml(
        one, name="web", sources={"root": image("a")}, networks={}, facts=KVM
    )
    before = text.replace('cache="none"', 'cache="writeback"')
    assert before != text
    assert domain_xml.moved_xml(before, "h9") == domain_xml.moved_xml(text, "h9")


def test_a_vm_is_put_into_a_cell_of_the_host_that_it_moves_to() -> None:
    case = CASES["numa-cell"]
    text = case.xml()
    assert read_domain(text).numa_cells == "1"
    there = NumaCell(number=3, cpus=2, memory_mib=8192, cpu_set="6-7")
    moved = domain_xml.moved_xml(text, "h9", vm=case.vm, cell=there)
    assert read_domain(moved).numa_cells == "3"
    assert domain_xml.attribute_of(domain_xml.parse(moved), "vcpu", "cpuset") == "6-7"
    # Where no cell holds it there, it runs on all of the host.
    moved = domain_xml.moved_xml(text, "h9", vm=case.vm)
    assert read_domain(moved).numa_cells == ""
    assert domain_xml.attribute_of(domain_xml.parse(moved), "vcpu", "cpuset") is None
    # What somebody else has set stays as it is.
    alien = replace(case.vm, one_numa_cell=False, numa_cell=None)
    assert read_domain(domain_xml.moved_xml(text, "h9", vm=alien)).numa_cells == "1"


def test_a_vm_is_plugged_into_the_bridges_of_the_host_that_it_moves_to() -> None:
    wire = replace(WIRE, bridges={"h2": "br7"})
    one = vm(nics=(nic("nic0", "wire"), nic("nic1", "lan", 2)))
    case = domain_xml.domain_xml(
        one, name="web", sources={}, networks={"wire": wire, "lan": LAN}, facts=KVM
    )
    bridges = {"nic0": "br7", "nic1": "no", "x": "y"}
    moved = read_domain(domain_xml.moved_xml(case, "h2", bridges=bridges))
    assert [(one.name, one.bridge, one.network) for one in moved.nics] == [
        ("nic0", "br7", None),
        ("nic1", None, "lan"),
    ]
    there = domain_xml.nic_xml(replace(one, node="h2"), one.nics[0], wire, KVM)
    assert "bridge='br7'" in there.replace('"', "'")


def test_guests_are_told_how_long_packets_of_an_overlay_may_be() -> None:
    text = domain_xml.nic_xml(vm(), nic("nic0", "overlay"), OVERLAY, KVM)
    assert domain_xml.parse(text).find("mtu").get("size") == "1450"


def test_a_network_on_trial_consists_of_nothing() -> None:
    text = domain_xml.network_trial_xml(OVERLAY, "h1", {"h1": "a", "h2": "b"}, "0123")
    live = domain_xml.parse(text)
    assert live.findtext("name") == "vorch-trial@0123"
    assert live.find("forward").get("mode") == "bridge"
    assert live.find("ip") is None
    assert [one.get("name") for one in live.findall("portgroup")] == [
        "vorch/local/a",
        "vorch/peer/b",
    ]
    check_schema(text, "network.rng")


def test_a_vm_on_trial_bears_no_mark_and_ends_at_a_reset() -> None:
    one = vm(disks=(disk(),))
    text = domain_xml.probe_xml(
        one, name="trial", source=FileSource(path="/p", format="raw"), facts=KVM
    )
    live = domain_xml.parse(text)
    assert live.findtext("on_reboot") == "destroy"
    assert read_domain(text).mark is None


# -- work on a running domain's disks


def test_limits_are_read_back() -> None:
    seen = {one.name: one.limits for one in read_domain(CASES["limited"].xml()).disks}
    assert seen["root"] == IoLimits(iops=500, mib_s=50, burst_iops=2000, burst_s=10)
    # A burst lasts a second when nobody says how long.
    expected = IoLimits(read_mib_s=100, write_iops=200, burst_mib_s=400, burst_s=1)
    assert seen["data"] == expected
    assert domain_xml.limit_values(IoLimits()) == dict.fromkeys(
        domain_xml.limit_values(IoLimits(iops=1)), 0
    )


def test_a_cd_in_rbd_is_recognised() -> None:
    """By its place as its pool says it, so that the same CD is not put in twice."""
    live = domain_xml.parse(CASES["ceph"].xml())
    drive_ = domain_xml.find_disk(live, "cd")
    assert domain_xml.place_of(drive_) == image("debian.iso").path
    text = domain_xml.media_xml(drive_, None)
    assert domain_xml.place_of(domain_xml.parse(text)) is None


def test_a_copy_under_way_is_seen() -> None:
    live = domain_xml.parse(CASES["ceph"].xml())
    root = domain_xml.find_disk(live, "root")
    assert root is not None
    assert domain_xml.copied_to(root) is None
    mirror = domain_xml.parse(
        "<mirror type='network' job='copy'><format type='raw'/><source protocol='rbd'"
        " name='bulk/new'><host name='10.0.0.1' port='3300'/><auth username='bulk'>"
        "<secret type='ceph' uuid='9d3af7cd-2f80-516d-b494-6867a2c8e3c9'/></auth></source></mirror>"
    )
    root.append(mirror)
    assert domain_xml.copied_to(root) == ("rbd:bulk/new", False)
    mirror.set("ready", "yes")
    assert domain_xml.copied_to(root) == ("rbd:bulk/new", True)
    # It is where it was until somebody switches.
    assert domain_xml.place_of(root) == image("web-root").path
