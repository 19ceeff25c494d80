"""Ports of hosts that lead to VMs behind NAT. Pure.

A forward belongs to a NIC and goes with its VM: it is on the host that the VM runs on, and nowhere
else. So that it can be on any host, a port is given away once in the whole cluster.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from collections.abc import Sequence
from typing import Literal

from vorch.decide.records import is_on, known_power, reads, save
from vorch.errors import Conflict, Invalid, NotFound, Unsupported
from vorch.model import (
    Address,
    Cluster,
    Forward,
    ForwardStatus,
    Network,
    Nic,
    Vm,
    check_range,
    subnet_layout,
)
from vorch.plan import Plan, Step, UpdateNetwork

Protocol = Literal["tcp", "udp"]

_PORTS = re.compile(r"([0-9]{1,5})(?::([0-9]{1,5}))?(?:/(tcp|udp))?")

# What hosts and Ceph listen on themselves. Whoever forwarded these would lose the host.
OF_HOSTS: tuple[tuple[Protocol, int, int, str], ...] = (
    ("tcp", 22, 22, "SSH"),
    ("tcp", 16509, 16514, "libvirt"),
    ("tcp", 49152, 49215, "migrations"),
    ("tcp", 3300, 3300, "Ceph's monitors"),
    ("tcp", 6789, 6789, "Ceph's monitors"),
    ("tcp", 6800, 7300, "Ceph's OSDs"),
    ("udp", 4789, 4789, "overlays"),
)


def parse(text: str) -> tuple[int, int, Protocol]:
    """`8080:80/tcp` as (port of the host, port of the guest, protocol); TCP unless told."""
    said = _PORTS.fullmatch(text)
    if said is None:
        raise Invalid(
            f"cannot forward {text!r}: write it as HOST:GUEST, as in 8080:80 or 5353:53/udp"
        )
    outside, inside, protocol = said.groups()
    host_port = check_range(int(outside), 1, 65535, "port of the host")
    guest_port = check_range(int(inside or outside), 1, 65535, "port of the guest")
    return host_port, guest_port, "udp" if protocol == "udp" else "tcp"


def forward_list(cluster: Cluster, vm: str | None = None) -> tuple[ForwardStatus, ...]:
    """All of them, by port; or those of one VM."""
    if vm is not None:
        cluster.vm(vm)
    owners = {nic.mac: one for one in cluster.vms.values() for nic in one.nics}
    found = [
        ForwardStatus(
            vm=owners[one.mac].name, node=owners[one.mac].node, network=network.name, forward=one
        )
        for network in cluster.networks.values()
        for one in network.forwards
        if one.mac in owners and vm in (None, owners[one.mac].name)
    ]
    found.sort(key=lambda one: (one.forward.host_port, one.forward.protocol))
    return tuple(found)


def behind_nat(cluster: Cluster, vm: Vm, nic: str | None) -> tuple[Nic, Network]:
    """The NIC that ports are forwarded to: the named one, or the only one behind NAT."""
    named = [vm.nic(nic)] if nic is not None else list(vm.nics)
    found = [one for one in named if cluster.network(one.network).kind == "nat"]
    if not found:
        raise Unsupported(
            f"cannot forward a port to VM {vm.name!r}: "
            + (f"NIC {nic!r} is not" if nic is not None else "none of its NICs is")
            + " on a NAT network; where guests have addresses of their own, reach them by those",
            vm=vm.name,
        )
    if len(found) > 1:
        raise Invalid(
            f"cannot forward a port to VM {vm.name!r}: several of its NICs are behind NAT:"
            f" {', '.join(one.name for one in found)}; name one (--nic)",
            vm=vm.name,
        )
    return found[0], cluster.network(found[0].network)


def forward_add(
    cluster: Cluster,
    name: str,
    port: str,
    *,
    nic: str | None = None,
    address: str | None = None,
    seen: Sequence[Address] = (),
) -> Plan:
    """`seen` are the addresses that the VM has now: it keeps the one that it has."""
    vm = cluster.vm(name)
    plug, network = behind_nat(cluster, vm, nic)
    host_port, guest_port, protocol = parse(port)
    _free(cluster, host_port, protocol)
    lack = cluster.lacks.get(vm.node, {}).get(network.name)
    if lack is not None:
        raise Unsupported(
            f"cannot forward a port to VM {name!r}: on {vm.node!r} {lack}", vm=name, node=vm.node
        )
    running = is_on(known_power(cluster, vm, "forward a port to"))
    now = next((one.ip for one in seen if one.mac == plug.mac and _inside(network, one.ip)), None)
    keeps = _address(network, plug, address, now)
    after = dataclasses.replace(
        network,
        forwards=(
            *network.forwards,
            Forward(
                mac=plug.mac,
                address=keeps,
                host_port=host_port,
                guest_port=guest_port,
                protocol=protocol,
            ),
        ),
    )
    when = "" if now == keeps or not running else "; it gets that when it next asks DHCP"
    return Plan(
        verb="forward add",
        subject=name,
        why=f"port {host_port}/{protocol} of the host that it runs on (now {vm.node}) leads to"
        f" {keeps}:{guest_port}{when}",
        steps=(
            *_on_its_host(vm, network, after, running),
            save("network", network.name, network, after),
        ),
        claims=(f"network/{network.name}",),
        reads=reads(cluster, f"network/{network.name}", f"vm/{name}"),
    )


def on_trial(cluster: Cluster, name: str, port: str, nic: str | None) -> tuple[Network, ...]:
    """The network with that forward alone, for the VM's host to say whether it could be."""
    plug, network = behind_nat(cluster, cluster.vm(name), nic)
    host_port, guest_port, protocol = parse(port)
    _free(cluster, host_port, protocol)
    forward = Forward(
        mac=plug.mac,
        # Where it would lead makes no difference to the host.
        address=str(ipaddress.IPv4Network(str(network.subnet))[2]),
        host_port=host_port,
        guest_port=guest_port,
        protocol=protocol,
    )
    return (dataclasses.replace(network, forwards=(forward,)),)


def forward_remove(cluster: Cluster, name: str, port: str) -> Plan:
    vm = cluster.vm(name)
    host_port, _, protocol = parse(port)
    macs = [nic.mac for nic in vm.nics]
    for network in cluster.networks.values():
        for one in network.forwards:
            if one.mac in macs and (one.host_port, one.protocol) == (host_port, protocol):
                after = dataclasses.replace(
                    network, forwards=tuple(other for other in network.forwards if other != one)
                )
                running = is_on(known_power(cluster, vm, "forward no more to"))
                return Plan(
                    verb="forward remove",
                    subject=name,
                    why=f"port {host_port}/{protocol} leads nowhere any more",
                    steps=(
                        *_on_its_host(vm, network, after, running),
                        save("network", network.name, network, after),
                    ),
                    claims=(f"network/{network.name}",),
                    reads=reads(cluster, f"network/{network.name}", f"vm/{name}"),
                )
    raise NotFound(
        f"cannot remove the forward of port {host_port}/{protocol} to VM {name!r}: there is none;"
        " `vorch forward list` shows all",
        vm=name,
    )


def without(cluster: Cluster, vm: Vm, *, node: str | None) -> tuple[list[Step], list[str]]:
    """What takes away all that is forwarded to a VM that goes, and the documents it is about.

    `node`: the host to be told at once; others learn of it when a VM next starts there, and what
    leads to a VM that is not there leads nowhere.
    """
    macs = [nic.mac for nic in vm.nics]
    steps: list[Step] = []
    keys = []
    for network in cluster.networks.values():
        left = tuple(one for one in network.forwards if one.mac not in macs)
        if left != network.forwards:
            after = dataclasses.replace(network, forwards=left)
            if node is not None:
                steps.append(UpdateNetwork(node=node, network=after, before=network))
            steps.append(save("network", network.name, network, after))
            keys.append(f"network/{network.name}")
    return steps, keys


def _on_its_host(vm: Vm, before: Network, after: Network, running: bool) -> tuple[Step, ...]:
    """A VM that is off finds it when it starts, whichever host that is."""
    return (UpdateNetwork(node=vm.node, network=after, before=before),) if running else ()


def _free(cluster: Cluster, port: int, protocol: Protocol) -> None:
    for network in cluster.networks.values():
        for one in network.forwards:
            if (one.host_port, one.protocol) == (port, protocol):
                owner = next(
                    (
                        vm.name
                        for vm in cluster.vms.values()
                        if one.mac in [nic.mac for nic in vm.nics]
                    ),
                    one.mac,
                )
                raise Conflict(
                    f"cannot forward port {port}/{protocol}: it leads to VM {owner!r} already, and"
                    " VMs may come to be on one host; choose another port",
                    vm=owner,
                    network=network.name,
                )
    for kind, first, last, whose in OF_HOSTS:
        if kind == protocol and first <= port <= last:
            raise Conflict(
                f"cannot forward port {port}/{protocol}: it is kept for {whose} on the hosts;"
                " choose another port"
            )


def _inside(network: Network, address: str) -> bool:
    try:
        return ipaddress.IPv4Address(address) in ipaddress.IPv4Network(str(network.subnet))
    except ValueError:
        return False


def _address(network: Network, nic: Nic, asked: str | None, now: str | None) -> str:
    """What the NIC keeps: what it is promised already, was asked for, has, or a free one."""
    promised = network.reserved.get(nic.mac)
    if promised is not None:
        if asked not in (None, promised):
            raise Conflict(
                f"cannot give NIC {nic.name!r} the address {asked}: it has {promised} for the ports"
                " that are forwarded to it already; remove those first"
            )
        return promised
    if not network.dhcp and asked is None:
        raise Invalid(
            f"cannot forward a port to NIC {nic.name!r}: network {network.name!r} gives out no"
            " addresses; say which one the guest has (--address)"
        )
    taken = set(network.reserved.values())
    subnet = ipaddress.IPv4Network(str(network.subnet))
    if asked is not None:
        ends = (str(subnet[0]), str(subnet[1]), str(subnet[-1]))
        if not _inside(network, asked) or asked in ends:
            raise Invalid(
                f"cannot use {asked!r} as address of a guest: it must be one of {subnet}, and"
                " neither the first two nor the last"
            )
        if asked in taken:
            raise Conflict(f"cannot use {asked} twice: another NIC keeps it; choose another")
        return asked
    if now is not None and now not in taken:
        return now
    # DHCP gives the upper part to whoever comes; people give theirs from below.
    first = ipaddress.IPv4Address(subnet_layout(str(subnet))[2])
    low = subnet[1]
    candidate = first - 1
    while candidate > low:
        if str(candidate) not in taken:
            return str(candidate)
        candidate -= 1
    raise Invalid(
        f"cannot find a free address in {subnet}: name one (--address), or remove a forward"
    )
