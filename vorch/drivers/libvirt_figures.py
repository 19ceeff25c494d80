"""Readings: libvirt's and the kernel's numbers and tables as values of the model."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Literal, TypeAlias, cast

from vorch.domain_xml import SeenDomain
from vorch.drivers.libvirt_connection import libvirt
from vorch.model import Address, DiskFigures, Figures, NicFigures, Power

Source: TypeAlias = Literal["lease", "agent", "arp", "config"]

_POWER = {
    libvirt.VIR_DOMAIN_NOSTATE: Power.UNKNOWN,
    libvirt.VIR_DOMAIN_RUNNING: Power.RUNNING,
    libvirt.VIR_DOMAIN_BLOCKED: Power.RUNNING,
    libvirt.VIR_DOMAIN_PAUSED: Power.PAUSED,
    libvirt.VIR_DOMAIN_SHUTDOWN: Power.STOPPING,
    libvirt.VIR_DOMAIN_SHUTOFF: Power.STOPPED,
    libvirt.VIR_DOMAIN_CRASHED: Power.CRASHED,
    libvirt.VIR_DOMAIN_PMSUSPENDED: Power.PAUSED,
}
# Reasons that a person should know of; the others say nothing that the state does not.
_PAUSED_BECAUSE = {
    libvirt.VIR_DOMAIN_PAUSED_IOERROR: "a disk reported an error",
    libvirt.VIR_DOMAIN_PAUSED_WATCHDOG: "its watchdog was not fed",
    libvirt.VIR_DOMAIN_PAUSED_CRASHED: "the guest crashed",
    libvirt.VIR_DOMAIN_PAUSED_MIGRATION: "it is being migrated",
    libvirt.VIR_DOMAIN_PAUSED_SAVE: "it is being saved",
    libvirt.VIR_DOMAIN_PAUSED_STARTING_UP: "it is starting",
    libvirt.VIR_DOMAIN_PAUSED_POSTCOPY: "it is being migrated",
    libvirt.VIR_DOMAIN_PAUSED_POSTCOPY_FAILED: "its migration broke off half-way",
}


def power_of(state: int, reason: int) -> tuple[Power, str]:
    power = _POWER.get(state, Power.UNKNOWN)
    if power is Power.PAUSED and state == libvirt.VIR_DOMAIN_PAUSED:
        return power, _PAUSED_BECAUSE.get(reason, "")
    return power, ""


def version_text(version: int) -> str:
    """libvirt and QEMU write versions as one number: 9000000 is 9.0.0."""
    return f"{version // 1000000}.{version // 1000 % 1000}.{version % 1000}"


def cpu_time_ns(stats: Mapping[str, Any]) -> int:
    if "cpu.time" in stats:
        return int(stats["cpu.time"])
    # Hosts without control groups tell the time of each vCPU only.
    return sum(int(stats.get(f"vcpu.{n}.time", 0)) for n in range(stats.get("vcpu.maximum", 0)))


def routes(table: str) -> Iterator[str]:
    """The IPv4 networks in the kernel's /proc/net/route. Default routes lead to no network."""
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 8 or fields[7] == "00000000":
            continue
        # Both are written as the machine holds them: the lowest byte first.
        address, mask = (int.from_bytes(bytes.fromhex(fields[n])[::-1]) for n in (1, 7))
        yield str(ipaddress.IPv4Network((address & mask, bin(mask).count("1"))))


def neighbours(table: str) -> dict[str, Any]:
    """The complete entries of the kernel's /proc/net/arp, in the form of libvirt's answers."""
    found: dict[str, Any] = {}
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) >= 4 and int(fields[2], 16):
            found[fields[0]] = {"hwaddr": fields[3], "addrs": [{"addr": fields[0]}]}
    return found


def _numbered(stats: Mapping[str, Any], group: str) -> Iterator[Callable[[str], Any]]:
    """The parts of "block.0.name", "block.1.name" …, as functions from the last word."""

    def part(number: int) -> Callable[[str], Any]:
        return lambda word: stats.get(f"{group}.{number}.{word}", 0)

    return map(part, range(stats.get(f"{group}.count", 0)))


def read_figures(stats: Mapping[str, Any], seen: SeenDomain | None, now: float) -> Figures:
    """`seen`: None leaves disks and NICs the names that the host has for them."""
    disks, nics = (seen.disks, seen.nics) if seen is not None else ((), ())
    disk_names = {disk.target: disk.name or disk.target for disk in disks}
    nic_names = {nic.host_interface: nic.name or nic.mac for nic in nics}
    used_mib = None
    if "balloon.available" in stats:
        free = stats.get("balloon.usable", stats.get("balloon.unused", 0))
        used_mib = max(0, stats["balloon.available"] - free) // 1024
    return Figures(
        at=now,
        power=power_of(stats.get("state.state", 0), stats.get("state.reason", 0))[0],
        vcpus=stats.get("vcpu.current", 0),
        cpu_time_ns=cpu_time_ns(stats),
        memory_mib=stats.get("balloon.current", 0) // 1024,
        memory_used_mib=used_mib,
        disks=tuple(
            DiskFigures(
                name=disk_names.get(get("name"), str(get("name"))),
                read_bytes=get("rd.bytes"),
                written_bytes=get("wr.bytes"),
                reads=get("rd.reqs"),
                writes=get("wr.reqs"),
                allocated_bytes=get("allocation"),
            )
            for get in _numbered(stats, "block")
        ),
        nics=tuple(
            NicFigures(
                name=nic_names.get(get("name"), str(get("name"))),
                received_bytes=get("rx.bytes"),
                sent_bytes=get("tx.bytes"),
                received_packets=get("rx.pkts"),
                sent_packets=get("tx.pkts"),
            )
            for get in _numbered(stats, "net")
        ),
    )


def merge_addresses(
    by_source: Mapping[str, Mapping[str, Any]], macs: Collection[str]
) -> tuple[Address, ...]:
    """What each source says of these MACs, every address once, by who named it first."""
    found: dict[tuple[str, str], Address] = {}
    for source, interfaces in by_source.items():
        for interface in interfaces.values():
            mac = str(interface.get("hwaddr") or "").lower()
            for one in interface.get("addrs") or ():
                ip = str(one["addr"])
                if mac in macs and not ipaddress.ip_address(ip).is_link_local:
                    address = Address(mac=mac, ip=ip, source=cast(Source, source))
                    found.setdefault((mac, ip), address)
    return tuple(found.values())
