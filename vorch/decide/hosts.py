"""Hosts and pools that come and go. Pure: what was found out about them in, a plan or a refusal."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

from vorch.decide.records import new_name, reads, save
from vorch.decide.storage import check_not_in_class
from vorch.errors import Conflict, Invalid, Unsupported, VorchError
from vorch.model import Check, Cluster, HostFacts, Node, Pool, RbdSource, Source, Vm
from vorch.plan import Plan, Step

REMEDY_FOR_POOLS = (
    "see that its QEMU has rbd (on Debian the package qemu-block-extra) and that the host reaches"
    " the monitors"
)


def failed(name: str, exc: VorchError, remedy: str) -> Check:
    return Check(name=name, level="error", detail=exc.message, remedy=remedy)


def judged(node: Node, facts: HostFacts, cluster: Cluster) -> tuple[Check, ...]:
    """What its own words say about a host, and how it goes with the others."""
    versions = f"libvirt {facts.libvirt_version}, {facts.hypervisor_version}"
    checks = [Check(name="libvirt", level="ok", detail=versions)]
    slow = facts.accelerator == "tcg"
    checks.append(
        Check(
            name="accelerator",
            level="warning" if slow else "ok",
            detail=f"{facts.accelerator}: {facts.accelerator_why}",
            remedy="switch virtualisation on in its firmware, or have slow VMs" if slow else "",
        )
    )
    for other in sorted(cluster.nodes.values(), key=lambda one: one.name):
        if other.name == node.name or other.facts is None:
            continue
        if other.facts.architecture != facts.architecture:
            checks.append(
                Check(
                    name="architecture",
                    level="warning",
                    detail=f"{facts.architecture}, and {other.name!r} is"
                    f" {other.facts.architecture}",
                    remedy="VMs cannot move between the two",
                )
            )
    return tuple(checks)


def ways(pool: str, source: Source) -> Iterator[tuple[str, Source]]:
    """The ways to a volume, each alone: a host that knows one monitor only is lost without it."""
    if not isinstance(source, RbdSource):
        yield f"pool {pool}", source
        return
    for monitor in source.monitors:
        alone = dataclasses.replace(source, monitors=(monitor,))
        yield f"pool {pool} by monitor {monitor}", alone


def _refuse(what: str, checks: Sequence[Check]) -> None:
    wrong = [check for check in checks if check.level == "error"]
    if wrong:
        lines = "; ".join(f"{one.name}: {one.detail}" for one in wrong)
        remedies = "; ".join(dict.fromkeys(one.remedy for one in wrong if one.remedy))
        raise Unsupported(
            f"cannot {what}: {lines}" + (f"; {remedies}" if remedies else ""),
            checks=[dataclasses.asdict(one) for one in wrong],
        )


# ---------------------------------------------------------------------------------------------
# Hosts


def add(cluster: Cluster, node: Node, checks: Sequence[Check]) -> Plan:
    """With the second host, a folder of the first becomes what it is: on that host alone."""
    new_name("node", cluster.nodes, node.name)
    for other in cluster.nodes.values():
        if other.peer_uri == node.peer_uri:
            raise Conflict(
                f"cannot add host {node.name!r}: {node.peer_uri} is host {other.name!r} already;"
                " give the new host's own URI",
                node=other.name,
            )
    _refuse(f"add host {node.name!r}", checks)
    steps: list[Step] = [save("node", node.name, None, node)]
    keys = [f"node/{node.name}"]
    if len(cluster.nodes) == 1:
        (only,) = cluster.nodes
        for pool in cluster.pools.values():
            if pool.url.startswith("dir:") and not pool.node:
                steps.append(save("pool", pool.name, pool, dataclasses.replace(pool, node=only)))
                keys.append(f"pool/{pool.name}")
    return Plan(
        verb="node add",
        subject=node.name,
        why=f"it was tried out and does what hosts must do ({len(checks)} checks)",
        steps=tuple(steps),
        claims=tuple(keys),
        reads=reads(cluster, *keys),
    )


def remove(cluster: Cluster, name: str) -> Plan:
    node = cluster.node(name)
    there = sorted(vm.name for vm in cluster.vms.values() if vm.node == name)
    if there:
        raise Conflict(
            f"cannot remove host {name!r}: {_some('VM', there)} belong to it; move or delete them"
            " first",
            node=name,
            vms=there,
        )
    pools = sorted(pool.name for pool in cluster.pools.values() if pool.node == name)
    if pools:
        raise Conflict(
            f"cannot remove host {name!r}: {_some('pool', pools)} are on it; remove them first"
            " (vorch pool remove)",
            node=name,
            pools=pools,
        )
    return Plan(
        verb="node remove",
        subject=name,
        why="no VM and no pool is left on it",
        steps=(save("node", name, node, None),),
        claims=(f"node/{name}",),
        reads=reads(cluster, f"node/{name}"),
    )


def cordon(cluster: Cluster, name: str, cordoned: bool) -> Plan:
    node = cluster.node(name)
    done = node.cordoned == cordoned
    word = "cordoned" if cordoned else "not cordoned"
    return Plan(
        verb="node cordon" if cordoned else "node uncordon",
        subject=name,
        why=f"it is {word} already" if done else f"it was asked to be {word}",
        steps=()
        if done
        else (save("node", name, node, dataclasses.replace(node, cordoned=cordoned)),),
        claims=(f"node/{name}",),
        reads=reads(cluster, f"node/{name}"),
    )


# ---------------------------------------------------------------------------------------------
# Pools


def add_pool(cluster: Cluster, pool: Pool, found: Mapping[str, Sequence[Check]]) -> Plan:
    """`found` says of each host whether it opens what is in the pool."""
    new_name("pool", cluster.pools, pool.name)
    for other in cluster.pools.values():
        if other.url == pool.url and other.node == pool.node:
            raise Conflict(
                f"cannot add pool {pool.name!r}: {pool.url} is pool {other.name!r} already; two"
                " pools must not have the same volumes",
                pool=other.name,
            )
    if pool.node:
        cluster.node(pool.node)
    elif pool.url.startswith("dir:"):
        raise Invalid(
            f"cannot add pool {pool.name!r}: a folder is on one host, and which one is not said;"
            " name it (--node)"
        )
    _refuse(
        f"add pool {pool.name!r}",
        [
            dataclasses.replace(check, name=f"{host}: {check.name}")
            for host, checks in found.items()
            for check in checks
        ],
    )
    return Plan(
        verb="pool add",
        subject=pool.name,
        why=f"{len(found)} host(s) opened a disk in it" if found else "it can be read and written",
        steps=(save("pool", pool.name, None, pool),),
        claims=(f"pool/{pool.name}",),
        reads=reads(cluster, f"pool/{pool.name}"),
    )


def remove_pool(cluster: Cluster, name: str) -> Plan:
    pool = cluster.pool(name)
    check_not_in_class(cluster, name)
    users = sorted(_users(cluster, name))
    if users:
        raise Conflict(
            f"cannot remove pool {name!r}: it is used by {', '.join(users[:5])}"
            + (f" and {len(users) - 5} more" if len(users) > 5 else "")
            + "; delete or move those first",
            pool=name,
            users=users,
        )
    return Plan(
        verb="pool remove",
        subject=name,
        why="nothing of the cluster is in it; what else is in it stays there",
        steps=(save("pool", name, pool, None),),
        claims=(f"pool/{name}",),
        reads=reads(cluster, f"pool/{name}"),
    )


def _users(cluster: Cluster, pool: str) -> set[str]:
    found = {f"VM {vm.name!r}" for vm in cluster.vms.values() if _stands_on(vm, pool)}
    found |= {
        f"image {image.name!r}"
        for image in cluster.images.values()
        if any(disk.volume.pool == pool for disk in image.disks)
    }
    found |= {
        f"{one.name!r} in the trash"
        for one in cluster.trash.values()
        if any(volume.pool == pool for volume in one.volumes)
    }
    return found


def _stands_on(vm: Vm, pool: str) -> bool:
    return any(disk.volume is not None and disk.volume.pool == pool for disk in vm.disks)


def _some(what: str, names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:5]))
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{what}{'s' if len(names) > 1 else ''} {shown}{more}"
