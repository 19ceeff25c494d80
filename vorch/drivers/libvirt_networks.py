"""Networks that vorch makes on a libvirt host, and the bridges that it finds there."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from vorch import domain_xml
from vorch.drivers import libvirt_xml
from vorch.drivers.libvirt_connection import Handle, code_of, libvirt
from vorch.errors import Conflict, Invalid, Unsupported
from vorch.model import HostFacts, Network

# How vorch's hook says what is in the way: in the error with which a network does not begin.
_HOOK_WORDS = re.compile(r"vorch-hook [0-9]+: (.*)", re.DOTALL)
NO_HOOK = (
    "vorch's network hook is not there, or libvirtd has not been restarted since; install it there"
    " (vorch node hook)"
)


def check_possible(network: Network, facts: HostFacts, where: str) -> None:
    """Unsupported when this kind of host can never have such a network."""
    if network.vlan is not None and not facts.bridge_vlans:
        raise Unsupported(
            f"cannot make network {network.name!r} on {where!r}: libvirt {facts.libvirt_version}"
            " sets no VLAN tags on Linux bridges (11.0 does); make a bridge on the tagged interface"
            " and a network on that",
            network=network.name,
        )
    alone = network.kind == "nat" and not network.forwards
    if network.kind != "bridge" and not alone and not facts.networks:
        raise Unsupported(
            f"cannot make network {network.name!r} on {where!r}: without root's rights this host"
            " offers NAT only; use a 'nat' network or qemu:///system",
            network=network.name,
        )


def has_bridge(handle: Handle, name: str, *, local: bool) -> bool:
    if local:
        return Path("/sys/class/net", name, "bridge").is_dir()
    try:
        handle.interfaceLookupByName(name)
    except libvirt.libvirtError as exc:
        # A host whose libvirt does not tell of interfaces finds out at the start of the VM.
        return code_of(exc) != int(libvirt.VIR_ERR_NO_INTERFACE)
    return True


def no_bridge(network: Network, where: str) -> Invalid:
    return Invalid(
        f"cannot use network {network.name!r} on {where!r}: there is no bridge"
        f" {network.bridge_on(where)!r}; make it in the host's network settings, or name another"
        f" (vorch network change {network.name} --bridge-on {where}=BRIDGE)",
        network=network.name,
        bridge=network.bridge_on(where),
    )


def _find(handle: Handle, network: Network) -> Handle | None:
    try:
        return handle.networkLookupByName(domain_xml.network_name(network))
    except libvirt.libvirtError as exc:
        if code_of(exc) == libvirt.VIR_ERR_NO_NETWORK:
            return None
        raise


def needs_hook(network: Network) -> bool:
    """libvirt alone makes neither overlays nor forwarded ports."""
    return network.kind == "overlay" or bool(network.forwards)


def hook_lack(handle: Handle, network: Network, where: str, hosts: Mapping[str, str]) -> str:
    """Why the host's hook could not make this network what it is; "" when it could."""
    token = secrets.token_hex(4)
    text = domain_xml.network_trial_xml(network, where, hosts, token)
    try:
        begun = handle.networkCreateXML(text)
    except libvirt.libvirtError as exc:
        told = _HOOK_WORDS.search(str(exc))
        if told is None:
            raise
        words = " ".join(told[1].split())
        return "" if words == "well" else words
    begun.destroy()
    return NO_HOOK


def make(handle: Handle, network: Network, where: str, hosts: Mapping[str, str]) -> None:
    """Safe to repeat. Conflict when there is one of that name with other settings."""
    wanted = domain_xml.network_xml(network, where, hosts)
    existing = _find(handle, network)
    if existing is None:
        if network.kind == "overlay" and (lack := hook_lack(handle, network, where, hosts)):
            # Without its hook it would begin, and be one more isolated network.
            raise _unfit(network, where, lack)
        try:
            handle.networkCreateXML(wanted)
        except libvirt.libvirtError:
            # Another process may have made it in this very moment.
            existing = _find(handle, network)
            if existing is None:
                raise
        else:
            return
    present = existing.XMLDesc(0)
    if not existing.isActive() or not libvirt_xml.same_network(wanted, present):
        raise Conflict(
            f"cannot make network {network.name!r} on {where!r}: there is a libvirt network"
            f" {existing.name()!r} with other settings; remove that first",
            network=network.name,
        )
    if _bring_up_to_date(existing, wanted, present):
        # libvirt does not say when a hook fails at this; the hook does, when it is asked.
        plain = network if network.kind == "overlay" else replace(network, forwards=())
        lack = hook_lack(handle, plain, where, hosts)
        if lack and (lack != NO_HOOK or network.kind == "overlay"):
            raise _unfit(network, where, lack)


def _unfit(network: Network, where: str, lack: str) -> Unsupported:
    return Unsupported(
        f"cannot make network {network.name!r} on {where!r}: {lack}",
        network=network.name,
        node=where,
    )


def _bring_up_to_date(network: Handle, wanted: str, present: str) -> bool:
    """What libvirt can change while NICs are plugged in; True when something was."""
    changes: list[tuple[int, int, str]] = []
    kept, there = map(libvirt_xml.network_reservations, (wanted, present))
    section = libvirt.VIR_NETWORK_SECTION_IP_DHCP_HOST
    for mac in sorted(there):
        if kept.get(mac) != there[mac]:
            text = domain_xml.reservation_xml(mac, there[mac])
            changes.append((libvirt.VIR_NETWORK_UPDATE_COMMAND_DELETE, section, text))
    for mac in sorted(kept):
        if there.get(mac) != kept[mac]:
            text = domain_xml.reservation_xml(mac, kept[mac])
            changes.append((libvirt.VIR_NETWORK_UPDATE_COMMAND_ADD_LAST, section, text))
    told, known = map(libvirt_xml.network_marks, (wanted, present))
    section = libvirt.VIR_NETWORK_SECTION_PORTGROUP
    # What is new comes first: at no time is a host without the others.
    for mark in told:
        if mark not in known:
            text = domain_xml.mark_xml(mark)
            changes.append((libvirt.VIR_NETWORK_UPDATE_COMMAND_ADD_LAST, section, text))
    for mark in known:
        if mark not in told:
            text = domain_xml.mark_xml(mark)
            changes.append((libvirt.VIR_NETWORK_UPDATE_COMMAND_DELETE, section, text))
    for command, section, text in changes:
        network.update(command, section, -1, text, libvirt.VIR_NETWORK_UPDATE_AFFECT_LIVE)
    return bool(changes)


def remove(handle: Handle, network: Network, where: str) -> None:
    """Safe to repeat. Conflict while a VM is on it: its NIC would hang in the air."""
    existing = _find(handle, network)
    if existing is None:
        return
    try:
        _remove(existing, network, where)
    except libvirt.libvirtError as exc:
        # Somebody else, who wants the same, may have been faster.
        if code_of(exc) != libvirt.VIR_ERR_NO_NETWORK:
            raise


def _remove(existing: Handle, network: Network, where: str) -> None:
    if not existing.isActive():
        return
    users = libvirt_xml.network_users(existing.XMLDesc(0))
    if users:
        raise Conflict(
            f"cannot take network {network.name!r} off {where!r}: {users} NICs of running VMs are"
            " on it; stop those VMs or unplug their NICs",
            network=network.name,
            node=where,
        )
    existing.destroy()


def subnets(handle: Handle) -> set[str]:
    """Those of all networks that libvirt may start, whether they are there now or not."""
    found: set[str] = set()
    for network in handle.listAllNetworks(0):
        try:
            text = network.XMLDesc(0)
        except libvirt.libvirtError as exc:
            if code_of(exc) == libvirt.VIR_ERR_NO_NETWORK:
                # Removed by somebody since it was listed.
                continue
            raise
        found.update(libvirt_xml.network_subnets(text))
    return found
