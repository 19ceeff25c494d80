"""Networks that vorch makes on a libvirt host, and the bridges that it finds there."""

from __future__ import annotations

from pathlib import Path

from vorch import domain_xml
from vorch.drivers import libvirt_xml
from vorch.drivers.libvirt_connection import Handle, code_of, libvirt
from vorch.errors import Conflict, Invalid, Unsupported
from vorch.model import HostFacts, Network


def check_possible(network: Network, facts: HostFacts, where: str) -> None:
    """Unsupported when this kind of host can never have such a network."""
    if network.vlan is not None and not facts.bridge_vlans:
        raise Unsupported(
            f"cannot make network {network.name!r} on {where!r}: libvirt {facts.libvirt_version}"
            " sets no VLAN tags on Linux bridges (11.0 does); make a bridge on the tagged interface"
            " and a network on that",
            network=network.name,
        )
    if network.kind == "isolated" and not facts.networks:
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
        f" {network.bridge!r}; make it in the host's network settings, or name another",
        network=network.name,
        bridge=network.bridge,
    )


def _find(handle: Handle, network: Network) -> Handle | None:
    try:
        return handle.networkLookupByName(domain_xml.network_name(network))
    except libvirt.libvirtError as exc:
        if code_of(exc) == libvirt.VIR_ERR_NO_NETWORK:
            return None
        raise


def make(handle: Handle, network: Network, where: str) -> None:
    """Safe to repeat. Conflict when there is one of that name with other settings."""
    wanted = domain_xml.network_xml(network)
    existing = _find(handle, network)
    if existing is None:
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


def remove(handle: Handle, network: Network, where: str) -> None:
    """Safe to repeat. Conflict while a VM is on it: its NIC would hang in the air."""
    existing = _find(handle, network)
    if existing is None or not existing.isActive():
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
