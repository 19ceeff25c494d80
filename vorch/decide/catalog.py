"""What VMs are made of: the image and ISO store, and networks."""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Iterable, Mapping
from typing import Literal

from vorch.decide import at_once as arriving_images
from vorch.decide.fresh import Fresh
from vorch.decide.lifecycle import default_pool
from vorch.decide.records import hosts_of, new_name, reads, save
from vorch.errors import Conflict, Invalid
from vorch.model import (
    VNI_MAX,
    VXLAN_BYTES,
    Cluster,
    Firmware,
    Image,
    ImageDisk,
    Network,
    NetworkKind,
    Volume,
    XenKind,
    XenLoader,
)
from vorch.plan import (
    EnsureNetwork,
    ImportVolume,
    Plan,
    PurgeVolume,
    RemoveNetwork,
    Step,
    UpdateNetwork,
)

# Where private networks are looked for when nobody names one.
SUBNETS = "10.80.0.0/16"
# What is left of the usual 1500 bytes between the hosts.
OVERLAY_MTU = 1500 - VXLAN_BYTES


def image_import(
    cluster: Cluster,
    name: str,
    location: str,
    fresh: Fresh,
    *,
    kind: Literal["disk", "iso"],
    sha256: str,
    firmware: Firmware,
    hypervisor: Literal["", "any", "kvm", "xen"] = "",
    xen_kind: XenKind = "pv",
    xen_loader: XenLoader = "pygrub",
    vcpus: int,
    memory_mib: int,
    pool: str | None,
    description: str,
    at_once: bool = False,
) -> Plan:
    new_name("image", cluster.images, name)
    sha256 = sha256.lower()
    if sha256 and (len(sha256) != 64 or set(sha256) - set("0123456789abcdef")):
        raise Invalid(
            "cannot use that SHA-256: it must be 64 hexadecimal digits, as sha256sum prints it"
        )
    where = cluster.pool(pool).name if pool else default_pool(cluster)
    volume = Volume(pool=where, name=fresh.volume("image", name))
    image = Image(
        name=name,
        kind=kind,
        disks=(ImageDisk(name="root", volume=volume, size_bytes=0),),
        source=location,
        firmware=firmware,
        hypervisor=hypervisor,
        xen_kind=xen_kind,
        xen_loader=xen_loader,
        vcpus=vcpus,
        memory_mib=memory_mib,
        description=description,
        created_at=fresh.now,
    )
    fill = {
        "disks.0.size_bytes": f"{volume} size_bytes",
        "sha256": f"{volume} sha256",
        "format": f"{volume} format",
    }
    if at_once:
        return arriving_images.image_import(cluster, image, volume, sha256, fill, fresh)
    return Plan(
        verb="image import",
        subject=name,
        why=f"from {location}" + (", checked against its SHA-256" if sha256 else ""),
        steps=(
            ImportVolume(location=location, volume=volume, content=kind, sha256=sha256),
            save("image", name, None, image, fill),
        ),
        claims=(f"image/{name}",),
        reads=reads(cluster, f"image/{name}"),
    )


def image_delete(cluster: Cluster, name: str) -> Plan:
    """VMs that were cloned from it keep what they need of it."""
    image = cluster.image(name)
    arriving_images.check_arrived(image, f"delete image {name!r}")
    volumes = [disk.volume for disk in image.disks]
    for vm in cluster.vms.values():
        for disk in vm.disks:
            if disk.volume in volumes:
                raise Conflict(
                    f"cannot delete image {name!r}: it is in drive {disk.name!r} of VM {vm.name!r};"
                    f" eject it first (vorch cd eject {vm.name})",
                    image=name,
                    vm=vm.name,
                )
    return Plan(
        verb="image delete",
        subject=name,
        why="VMs made from it keep what they need",
        steps=(
            save("image", name, image, None),
            *(PurgeVolume(volume=volume) for volume in volumes),
        ),
        claims=(f"image/{name}",),
        reads=reads(cluster, f"image/{name}"),
    )


# ---------------------------------------------------------------------------------------------
# Networks


def bridge_name(name: str, token: str) -> str:
    """A bridge of vorch's own: recognisable, at most 15 characters, never twice the same."""
    plain = "".join(c for c in name.lower() if c.isalnum())[:6]
    return f"vo-{plain}-{token[:5]}"


def free_subnet(taken: Iterable[str]) -> str:
    """The first /24 that meets none of these."""
    used = [ipaddress.IPv4Network(one, strict=False) for one in taken]
    for subnet in ipaddress.IPv4Network(SUBNETS).subnets(new_prefix=24):
        if not any(subnet.overlaps(one) for one in used):
            return str(subnet)
    raise Invalid(f"cannot find a free subnet in {SUBNETS}: all are in use; name one (--subnet)")


def network_create(
    cluster: Cluster,
    name: str,
    kind: NetworkKind,
    fresh: Fresh,
    *,
    bridge: str | None,
    subnet: str | None,
    dhcp: bool,
    vlan: int | None,
    used_subnets: Iterable[str],
    bridges: Mapping[str, str] = {},
    vni: int | None = None,
    mtu: int | None = None,
) -> Plan:
    """Made on each host at once, so that what cannot work is refused now and not at a start."""
    new_name("network", cluster.networks, name)
    if kind == "bridge":
        if not bridge:
            raise Invalid(
                f"cannot make network {name!r}: the bridge that it stands for is missing; name one"
                " that the host has (--bridge br0)"
            )
    elif bridge:
        raise Invalid(
            f"cannot give network {name!r} the bridge {bridge!r}: a {kind} network has a bridge of"
            " its own; leave it away, or make the network of kind 'bridge'"
        )
    if kind == "overlay":
        dhcp = False
        vni = free_vni(cluster, fresh) if vni is None else vni
        mtu = OVERLAY_MTU if mtu is None else mtu
        for other in cluster.networks.values():
            if other.vni == vni:
                raise Conflict(
                    f"cannot give network {name!r} the VXLAN number {vni}: {other.name!r} has"
                    " it; choose another, or none, and vorch looks for a free one",
                    network=name,
                )
    ours = [one.subnet for one in cluster.networks.values() if one.subnet]
    taken = [*ours, *used_subnets]
    if kind in ("nat", "isolated") and subnet is None and (kind == "nat" or dhcp):
        subnet = free_subnet(taken)
    network = Network(
        name=name,
        kind=kind,
        bridge=bridge or bridge_name(name, fresh.token),
        subnet=subnet,
        dhcp=dhcp,
        vlan=vlan,
        bridges=known_bridges(cluster, bridges),
        vni=vni,
        mtu=mtu,
    )
    if subnet is not None:
        for one in taken:
            if ipaddress.IPv4Network(subnet).overlaps(ipaddress.IPv4Network(one, strict=False)):
                raise Conflict(
                    f"cannot give network {name!r} the subnet {subnet}: {one} is in use; choose"
                    " another, or none, and vorch looks for a free one",
                    network=name,
                )
    hosts = hosts_of(cluster, network)
    steps: list[Step] = [
        EnsureNetwork(node=node, network=network, new=True, hosts=hosts)
        for node in sorted(cluster.nodes)
    ]
    where = f"on {subnet}" if subnet else f"on bridge {network.bridge}"
    for host, own in sorted(network.bridges.items()):
        where += f", on {host} {own}"
    if kind == "overlay":
        where = f"VXLAN {vni} between {len(cluster.nodes)} host(s), packets up to {mtu} bytes"
    return Plan(
        verb="network create",
        subject=name,
        why=f"{kind}, {where}",
        steps=(*steps, save("network", name, None, network)),
        claims=(f"network/{name}",),
        reads=reads(cluster, f"network/{name}"),
    )


def known_bridges(cluster: Cluster, bridges: Mapping[str, str]) -> dict[str, str]:
    """The same, if all of those hosts are there."""
    return {cluster.node(node).name: bridge for node, bridge in bridges.items()}


def free_vni(cluster: Cluster, fresh: Fresh) -> int:
    """By chance, since networks of other clusters may be on the same wire."""
    taken = {network.vni for network in cluster.networks.values()}
    vni = int(fresh.token[:8], 16) % VNI_MAX + 1
    while vni in taken:
        vni = vni % VNI_MAX + 1
    return vni


def network_change(
    cluster: Cluster, name: str, *, bridge: str | None, bridges: Mapping[str, str]
) -> Plan:
    """Other bridges for a network on those of the hosts; others are brought up to date everywhere.

    `bridges`: by host; "" for the one that all have.
    """
    network = cluster.network(name)
    common = Plan(
        verb="network change",
        subject=name,
        why="",
        claims=(f"network/{name}",),
        reads=reads(cluster, f"network/{name}"),
    )
    if network.kind != "bridge":
        if bridge or bridges:
            raise Invalid(
                f"cannot give network {name!r} another bridge: a {network.kind} network has a"
                " bridge of its own"
            )
        answering = [node for node in sorted(cluster.nodes) if node not in cluster.silent]
        silent = f"; silent: {', '.join(sorted(cluster.silent))}" if cluster.silent else ""
        return dataclasses.replace(
            common,
            why=f"brought up to date on {', '.join(answering) or 'no host'}{silent}",
            steps=updates(cluster, network, answering),
        )
    named = known_bridges(cluster, {node: one for node, one in bridges.items() if one})
    kept = {node: one for node, one in network.bridges.items() if node not in bridges}
    after = dataclasses.replace(network, bridge=bridge or network.bridge, bridges={**kept, **named})
    if after == network:
        return dataclasses.replace(common, why="it is so already")
    changed = [
        node for node in sorted(cluster.nodes) if after.bridge_on(node) != network.bridge_on(node)
    ]
    # A bridge is there or not: to see to it changes nothing, and refuses what cannot work.
    steps: list[Step] = [EnsureNetwork(node=node, network=after) for node in changed]
    seen = ", ".join(f"{node} has {after.bridge_on(node)}" for node in changed)
    return dataclasses.replace(
        common,
        why=f"{seen or 'no host is affected'}; VMs that run are plugged in there when they next"
        " start or move",
        steps=(*steps, save("network", name, network, after)),
    )


def updates(
    cluster: Cluster,
    network: Network,
    nodes: Iterable[str],
    *,
    after: Cluster | None = None,
) -> tuple[Step, ...]:
    """Have these hosts take a network as it is (or will be, in the cluster `after`)."""
    later = after or cluster
    return tuple(
        UpdateNetwork(
            node=node,
            network=network,
            before=network,
            hosts=hosts_of(later, network),
            hosts_before=hosts_of(cluster, network),
        )
        for node in nodes
    )


def network_delete(cluster: Cluster, name: str) -> Plan:
    network = cluster.network(name)
    users = [vm.name for vm in cluster.vms.values() if name in [nic.network for nic in vm.nics]]
    if users:
        raise Conflict(
            f"cannot delete network {name!r}: VM {users[0]!r} has a NIC on it; detach that first",
            network=name,
            vms=users,
        )
    steps: list[Step] = []
    if network.kind != "bridge":
        hosts = hosts_of(cluster, network)
        steps = [
            RemoveNetwork(node=node, network=network, hosts=hosts) for node in sorted(cluster.nodes)
        ]
    return Plan(
        verb="network delete",
        subject=name,
        why="no VM has a NIC on it",
        steps=(*steps, save("network", name, network, None)),
        claims=(f"network/{name}",),
        reads=reads(cluster, f"network/{name}"),
    )
