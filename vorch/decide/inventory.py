"""The machines of a cluster in groups, as programs that configure guests want them."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

from vorch.decide.status import status
from vorch.model import Address, Cluster, VmStatus

# Who is believed first: what the host gave out, then what the guest says of itself.
BELIEVED = ("lease", "agent", "config", "arp")
_UNSOUND = re.compile(r"[^A-Za-z0-9_]")


@dataclass(frozen=True, slots=True, kw_only=True)
class InventoryHost:
    """A VM as a machine that is to be reached."""

    name: str
    id: str
    node: str
    state: str
    vcpus: int
    memory_mib: int
    networks: tuple[str, ...] = ()
    description: str = ""
    # Where it is reached; "": nobody knows.
    address: str = ""
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """Machines by name, and groups of them by kind and value, as "state" → "running"."""

    hosts: tuple[InventoryHost, ...] = ()
    groups: dict[str, dict[str, tuple[str, ...]]] = field(default_factory=dict)


def inventory(cluster: Cluster, addresses: Mapping[str, Iterable[Address]]) -> Inventory:
    """`addresses`: by the VM's id, as far as they are known."""
    hosts = tuple(
        _host(status(cluster, cluster.vms[name]), tuple(addresses.get(cluster.vms[name].id, ())))
        for name in sorted(cluster.vms)
    )
    groups: dict[str, dict[str, list[str]]] = {"network": {}, "node": {}, "state": {}}
    for host in hosts:
        groups["node"].setdefault(host.node, []).append(host.name)
        groups["state"].setdefault(host.state, []).append(host.name)
        for network in host.networks:
            groups["network"].setdefault(network, []).append(host.name)
    return Inventory(
        hosts=hosts,
        groups={
            kind: {name: tuple(by_name[name]) for name in sorted(by_name)}
            for kind, by_name in groups.items()
        },
    )


def _host(one: VmStatus, addresses: tuple[Address, ...]) -> InventoryHost:
    vm = one.vm
    ranked = sorted(addresses, key=_rank)
    return InventoryHost(
        name=vm.name,
        id=vm.id,
        node=vm.node,
        state=str(one.power),
        vcpus=vm.vcpus,
        memory_mib=vm.memory_mib,
        networks=tuple(dict.fromkeys(nic.network for nic in vm.nics)),
        description=vm.description,
        address=ranked[0].ip if ranked else "",
        addresses=tuple(dict.fromkeys(address.ip for address in ranked)),
    )


def _rank(address: Address) -> tuple[int, int]:
    return ip_address(address.ip).version, BELIEVED.index(address.source)


# ---------------------------------------------------------------------------------------------
# Ansible's form of it


def ansible(found: Inventory) -> dict[str, Any]:
    """What an inventory script prints for --list: groups, and all variables under `_meta`."""
    groups = _group_names(found)
    return {
        "_meta": {"hostvars": {host.name: ansible_host(host) for host in found.hosts}},
        "all": {"children": ["ungrouped", *groups]},
        **{name: {"hosts": list(members)} for name, members in groups.items()},
    }


def ansible_host(host: InventoryHost) -> dict[str, Any]:
    """The variables of one machine. Without an address Ansible goes by its name."""
    said: dict[str, Any] = {
        "vorch_addresses": list(host.addresses),
        "vorch_description": host.description,
        "vorch_id": host.id,
        "vorch_memory_mib": host.memory_mib,
        "vorch_networks": list(host.networks),
        "vorch_node": host.node,
        "vorch_state": host.state,
        "vorch_vcpus": host.vcpus,
    }
    return {"ansible_host": host.address, **said} if host.address else said


def _group_names(found: Inventory) -> dict[str, tuple[str, ...]]:
    """Names that Ansible takes, each of one group only: "h-1" and "h_1" stay two."""
    plain = {
        f"{kind}_{name}": members
        for kind, by_name in found.groups.items()
        for name, members in by_name.items()
    }
    named: dict[str, tuple[str, ...]] = {}
    # Those that are fine as they are keep their names, whoever else is there.
    for name in sorted(plain, key=lambda name: (bool(_UNSOUND.search(name)), name)):
        sound = _UNSOUND.sub("_", name)
        if sound in named:
            sound += f"_{zlib.crc32(name.encode()):08x}"
        named[sound] = plain[name]
    return dict(sorted(named.items()))
