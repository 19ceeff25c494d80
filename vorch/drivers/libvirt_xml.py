"""libvirt's XML of hosts, networks and storage, as far as drivers make or read it themselves."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from vorch import domain_xml
from vorch.domain_xml import (
    MARK,
    NETWORK_NAMESPACE,
    Element,
    add,
    attribute_of,
    new,
    parse,
    to_text,
)
from vorch.model import Cpu, HugePages, NumaCell

# Pages from that size on are huge ones, on whichever machine.
HUGE_KIB = 2048


def folder_pool_xml(name: str, folder: str) -> str:
    """A folder as a libvirt storage pool, which the host's QEMU user can enter but not list."""
    element = new("pool", type="dir")
    add(element, "name", name)
    target = add(element, "target")
    add(target, "path", folder)
    add(add(target, "permissions"), "mode", "0711")
    return to_text(element)


def raw_volume_xml(name: str, size_bytes: int) -> str:
    element = new("volume")
    add(element, "name", name)
    add(element, "allocation", "0")
    add(element, "capacity", str(size_bytes), unit="bytes")
    add(add(element, "target"), "format", type="raw")
    return to_text(element)


def secret_xml(identifier: str, usage: str) -> str:
    """A key of Ceph's, kept by the host and shown to nobody."""
    element = new("secret", ephemeral="no", private="yes")
    add(element, "uuid", identifier)
    add(add(element, "usage", type="ceph"), "name", usage)
    return to_text(element)


def _network_settings(element: Element) -> tuple[object, ...]:
    overlay = f"metadata/{{{NETWORK_NAMESPACE}}}network"
    return (
        attribute_of(element, "forward", "mode"),
        attribute_of(element, "bridge", "name"),
        attribute_of(element, overlay, "vni"),
        attribute_of(element, overlay, "mtu"),
        _network_subnets(element),
        attribute_of(element, "ip/dhcp/range", "start"),
        attribute_of(element, "ip/dhcp/range", "end"),
    )


def same_network(wanted: str, present: str) -> bool:
    """Whether the network that libvirt shows has the settings of the one that is wanted."""
    return _network_settings(parse(wanted)) == _network_settings(parse(present))


def network_marks(xml: str) -> tuple[str, ...]:
    """What vorch's hook is told of a network that libvirt shows."""
    names = [group.get("name", "") for group in parse(xml).findall("portgroup")]
    return tuple(name for name in names if name.startswith(MARK))


def network_reservations(xml: str) -> dict[str, str]:
    """The addresses that its DHCP keeps, by MAC."""
    hosts = parse(xml).findall("ip/dhcp/host[@mac]")
    return {host.get("mac"): host.get("ip", "") for host in hosts}


def _network_subnets(element: Element) -> tuple[str, ...]:
    found = []
    for ip in element.findall("ip"):
        if ip.get("family", "ipv4") != "ipv4" or ip.get("address") is None:
            continue
        length = ip.get("prefix") or ip.get("netmask") or "24"
        found.append(str(ipaddress.IPv4Network(f"{ip.get('address')}/{length}", strict=False)))
    return tuple(found)


def network_subnets(xml: str) -> tuple[str, ...]:
    """The IPv4 networks that a libvirt network stands on."""
    return _network_subnets(parse(xml))


def network_users(xml: str) -> int:
    """How many NICs are on a network that runs."""
    return int(parse(xml).get("connections", "0"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What libvirt says that a host can do."""

    cpu_model: str
    host_cpu: Cpu | None
    machines: tuple[str, ...]
    cpu_models: tuple[str, ...]
    uefi: bool
    secure_boot: bool
    tpm: bool
    cells: tuple[NumaCell, ...] = ()


def _guest(host: Element, architecture: str) -> Element | None:
    return host.find(f"guest/arch[@name='{architecture}']")


def read_capabilities(host_xml: str, domains_xml: str) -> Capabilities:
    """From what libvirt tells of the host, and of the domains that it can run."""
    host, domains = parse(host_xml), parse(domains_xml)
    guest = _guest(host, host.findtext("host/cpu/arch") or "x86_64")
    machines = [] if guest is None else [str(one.text) for one in guest.findall("machine")]
    models = domains.findall("cpu/mode[@name='custom']/model")
    firmware = domains.findall("os/enum[@name='firmware']/value")
    secure = domains.findall("os/loader/enum[@name='secure']/value")
    backends = domains.findall("devices/tpm/enum[@name='backendModel']/value")
    return Capabilities(
        cpu_model=host.findtext("host/cpu/model") or "",
        host_cpu=_host_cpu(domains),
        machines=tuple(sorted(set(machines))),
        cpu_models=tuple(sorted(str(one.text) for one in models if one.get("usable") != "no")),
        uefi=any(one.text == "efi" for one in firmware),
        secure_boot=any(one.text == "yes" for one in secure),
        tpm=any(one.text == "emulator" for one in backends),
        cells=tuple(map(_cell, host.findall("host/topology/cells/cell"))),
    )


def _cell(element: Element) -> NumaCell:
    """How many huge pages there are, not how many are free: vorch knows who has which."""
    pages = []
    for one in element.findall("pages"):
        size_kib, count = int(one.get("size", "0")), int(one.text or 0)
        if size_kib >= HUGE_KIB and count:
            pages.append(HugePages(size_kib=size_kib, memory_mib=size_kib * count // 1024))
    cpus = element.find("cpus")
    return NumaCell(
        number=int(element.get("id", "0")),
        cpus=0 if cpus is None else int(cpus.get("num", "0")),
        memory_mib=int(element.findtext("memory") or 0) // 1024,
        pages=tuple(pages),
        cpu_set=_set_of([] if cpus is None else [int(one.get("id", "0")) for one in cpus]),
    )


def _set_of(numbers: list[int]) -> str:
    """Written as libvirt writes sets of processors: "0-3,8"."""
    parts: list[list[int]] = []
    for number in sorted(set(numbers)):
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(str(one) if one == last else f"{one}-{last}" for one, last in parts)


def _host_cpu(domains: Element) -> Cpu | None:
    mode = domains.find("cpu/mode[@name='host-model']")
    if mode is None or mode.get("supported") != "yes" or not mode.findtext("model"):
        return None
    return _cpu_of(mode)


def _cpu_of(element: Element) -> Cpu:
    features = {
        str(one.get("name")): one.get("policy", "require") == "require"
        for one in element.findall("feature")
    }
    return Cpu(
        model=element.findtext("model") or "",
        vendor=element.findtext("vendor") or "",
        features=dict(sorted(features.items())),
    )


def read_cpu(xml: str) -> Cpu:
    return _cpu_of(parse(xml))


def cpu_xml(cpu: Cpu) -> str:
    """A CPU by itself, as libvirt compares them."""
    element = new("cpu", mode="custom", match="exact")
    domain_xml.fill_cpu(element, cpu)
    return to_text(element)


def offers_kvm(host_xml: str, architecture: str) -> bool:
    """Whether libvirt would try KVM; whether that works is for a probe to tell."""
    guest = _guest(parse(host_xml), architecture)
    return guest is not None and guest.find("domain[@type='kvm']") is not None


def qemu_user_id(host_xml: str) -> int | None:
    """The user that QEMU runs as, where libvirt separates it from itself."""
    for model in parse(host_xml).findall("host/secmodel"):
        label = model.findtext("baselabel") or ""
        if model.findtext("model") == "dac" and label.startswith("+"):
            return int(label[1:].partition(":")[0])
    return None
