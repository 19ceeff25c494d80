"""Hosts and pools that come and go. Pure: what was found out about them in, a plan or a refusal."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vorch.decide.baseline import save_baseline
from vorch.decide.catalog import updates
from vorch.decide.place import Use, in_use, pages_mib
from vorch.decide.records import hosts_of, is_on, new_name, reads, save
from vorch.decide.storage import check_not_in_class
from vorch.errors import Conflict, Invalid, Unsupported, VorchError
from vorch.model import (
    Baseline,
    Check,
    Cluster,
    Holder,
    HostFacts,
    Network,
    Node,
    NodeStatus,
    Pool,
    RbdSource,
    Source,
    Vm,
)
from vorch.plan import Plan, RemoveNetwork, Step

REMEDY_FOR_POOLS = (
    "see that its QEMU has rbd (on Debian the package qemu-block-extra) and that the host reaches"
    " the monitors"
)


REMEDY_FOR_MOVES = (
    "see that the hosts know each other's names and certificates, and reach each other's libvirt"
    " and the ports 49152 to 49215"
)
# The oldest that vorch is tried with.
LEAST = {"libvirt": (9, 0), "QEMU": (7, 2), "Xen": (4, 17)}
CLOCK_LIMIT_S = 1.0
REMEDY_FOR_CPU = "leave it to a cluster of its own, or replace it: VMs could not move to it"
REMEDY_FOR_BMC = "see that it is reached from here, and its user and password (vorch node change)"


def failed(name: str, exc: VorchError, remedy: str) -> Check:
    return Check(name=name, level="error", detail=exc.message, remedy=remedy)


def of_power(node: Node, on: bool, answers: bool = True) -> Check:
    """A host that answers has power. A BMC that says otherwise is another machine's, or lies."""
    where = node.bmc.partition("@")[2].partition("/")[0].partition("?")[0]
    if on or not answers:
        state = "on" if on else "off"
        return Check(name="BMC", level="ok", detail=f"{where} reads the power state: {state}")
    return Check(
        name="BMC",
        level="error",
        detail=f"{where} says that the power is off, and yet the host answers",
        remedy="it is the BMC of another machine: give the right one (--bmc)",
    )


def of_clock(ahead_s: float, within_s: float) -> Check:
    """Clocks that part make leases, logs and certificates lie."""
    off = abs(ahead_s) - within_s
    words = f"{abs(ahead_s):.3f} s {'ahead of' if ahead_s > 0 else 'behind'} this machine's"
    if off > CLOCK_LIMIT_S:
        return Check(
            name="clock",
            level="error",
            detail=f"it is {words}",
            remedy="have both follow the same time server (chrony, systemd-timesyncd)",
        )
    if within_s > CLOCK_LIMIT_S:
        return Check(
            name="clock",
            level="warning",
            detail=f"the host answers too slowly to tell better than {within_s:.1f} s",
            remedy="see what keeps it busy, and check it again",
        )
    return Check(name="clock", level="ok", detail=f"it is {words} (within {within_s:.3f} s)")


def of_storage(node: Node, found: Sequence[str]) -> Check:
    """`found`: where its Ceph traffic was seen to come from."""
    seen = ", ".join(found)
    if not found:
        return Check(
            name="storage address",
            level="warning",
            detail="Ceph did not show where the host's traffic comes from",
            remedy="check the host again",
        )
    if node.storage_address and node.storage_address not in found:
        return Check(
            name="storage address",
            level="error",
            detail=f"its Ceph traffic comes from {seen}, and {node.storage_address} was given: a"
            " fence would cut off somebody else",
            remedy=f"give --storage-address {found[0]}",
        )
    return Check(name="storage address", level="ok", detail=f"its Ceph traffic comes from {seen}")


def address_of(holder: Holder) -> str:
    """Of "10.0.0.5:0/123" or "[fd00::5]:0/123" the address alone."""
    return holder.address.rpartition("/")[0].rpartition(":")[0].strip("[]")


def no_moves(node: Node) -> Check:
    return Check(
        name="moves",
        level="warning",
        detail=f"its libvirt is known as {node.uri!r}, where no other host reaches it",
        remedy="add it by its address (qemu+tls://…), so that VMs can move here",
    )


def no_partner() -> Check:
    return Check(
        name="moves",
        level="warning",
        detail="no other host is there that answers and is of its kind, so nothing was moved",
        remedy="check it again when there is one",
    )


def unlike_moves() -> Check:
    return Check(
        name="moves",
        level="warning",
        detail="between Xen hosts no test machine is moved: vorch does not do that there yet",
        remedy="see docs/xen.md",
    )


def of_own_cpu() -> Check:
    """The baseline is among hosts with KVM; VMs do not move between them and this one."""
    detail = "it does not count here: guests under Xen see the processors of their host"
    return Check(name="CPU baseline", level="ok", detail=detail)


def of_hook(lack: str, way: str, *, needed: bool, would: bool) -> Check:
    """`would`: it will be installed, when it is no dry run. `needed`: there are shared pools."""
    if not lack:
        return Check(name="hook", level="ok", detail=f"libvirt runs vorch's hook there: {way}")
    if would:
        detail = f"{lack}; it would be installed: {way}"
        return Check(name="hook", level="ok", detail=detail)
    return Check(
        name="hook",
        level="error" if needed else "warning",
        detail=f"{lack}, so its VMs cannot have disks in Ceph",
        remedy=f"have it installed, {way} (--install-hook)",
    )


def not_told(name: str, exc: VorchError, *, needed: bool) -> Check:
    """What is seen by ssh alone."""
    if needed:
        return failed(name, exc, "give vorch a way in (--ssh)")
    detail = f"not told: {exc.message}"
    return Check(name=name, level="warning", detail=detail, remedy="give vorch a way in (--ssh)")


def partners(cluster: Cluster, node: Node, most: int) -> tuple[Node, ...]:
    """The hosts that a new one exchanges a test machine with: like ones, the first by name."""
    like = []
    for name in sorted(cluster.nodes):
        other = cluster.nodes[name]
        if name == node.name or other.local or name in cluster.silent:
            continue
        if other.facts is None or node.facts is None or unlike(other.facts, node.facts) is None:
            like.append(other)
    return tuple(like[:most])


def unlike(one: HostFacts, other: HostFacts) -> str | None:
    """Why machines cannot move between the two, whatever their CPUs are."""
    for what in ("hypervisor", "architecture", "accelerator"):
        here, there = getattr(one, what), getattr(other, what)
        if here and there and here != there:
            return f"its {what} is {there}, and the other's is {here}"
    return None


def _version(text: str) -> tuple[int, ...]:
    """The numbers of "QEMU 7.2.0"; () where there are none."""
    word = text.split()[-1] if text.split() else ""
    parts = word.split(".")
    return tuple(map(int, parts)) if parts and all(part.isdigit() for part in parts) else ()


def _of_version(name: str, text: str) -> Check:
    least = LEAST[name]
    found = _version(text) if name in ("libvirt", text.partition(" ")[0]) else ()
    if found and found < least:
        return Check(
            name=name,
            level="error",
            detail=f"{text} is too old",
            remedy=f"install {name} {'.'.join(map(str, least))} or newer",
        )
    return Check(name=name, level="ok", detail=text or "says no version")


def judged(node: Node, facts: HostFacts, cluster: Cluster) -> tuple[Check, ...]:
    """What its own words say about a host, and how it goes with the others."""
    checks = [
        _of_version("libvirt", facts.libvirt_version),
        _of_version("Xen" if facts.hypervisor == "xen" else "QEMU", facts.hypervisor_version),
    ]
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


def network_check(name: str, network: Network, why_not: str) -> Check:
    """A host may be without a network, and joins all the same: VMs on it are kept off that host."""
    if not why_not:
        return Check(name=name, level="ok", detail=f"it can have it ({network.kind})")
    return Check(
        name=name,
        level="warning",
        detail=why_not,
        remedy="VMs with a NIC on it cannot be there until that is put right",
    )


def refuse(what: str, checks: Sequence[Check]) -> None:
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


def add(
    cluster: Cluster, node: Node, checks: Sequence[Check], baseline: Baseline | None = None
) -> Plan:
    """With the second host, a folder of the first becomes what it is: on that host alone."""
    new_name("node", cluster.nodes, node.name)
    for other in cluster.nodes.values():
        if other.peer_uri == node.peer_uri:
            raise Conflict(
                f"cannot add host {node.name!r}: {node.peer_uri} is host {other.name!r} already;"
                " give the new host's own URI",
                node=other.name,
            )
    refuse(f"add host {node.name!r}", checks)
    steps: list[Step] = [
        *_overlays(cluster, {**cluster.nodes, node.name: node}),
        save("node", node.name, None, node),
    ]
    keys = [f"node/{node.name}"]
    if baseline is not None:
        steps += save_baseline(cluster, baseline.architecture, baseline)
        keys.append(f"cpu/{baseline.architecture}")
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


def _overlays(cluster: Cluster, nodes: Mapping[str, Node]) -> list[Step]:
    """Tell the hosts that go on being there of those that will be. Silent ones hear it later."""
    after = dataclasses.replace(cluster, nodes=dict(nodes))
    told = [name for name in cluster.nodes if name in nodes and name not in cluster.silent]
    return [
        step
        for network in cluster.networks.values()
        if network.kind == "overlay"
        for step in updates(cluster, network, sorted(told), after=after)
    ]


def remove(cluster: Cluster, name: str, baseline: Baseline | None = None) -> Plan:
    """`baseline`: of the hosts that stay, if they have another one than all."""
    node = cluster.node(name)
    there = sorted(vm.name for vm in cluster.vms.values() if vm.node == name)
    if there:
        raise Conflict(
            f"cannot remove host {name!r}: {some('VM', there)} belong to it; move or delete them"
            " first",
            node=name,
            vms=there,
        )
    pools = sorted(pool.name for pool in cluster.pools.values() if pool.node == name)
    if pools:
        raise Conflict(
            f"cannot remove host {name!r}: {some('pool', pools)} are on it; remove them first"
            " (vorch pool remove)",
            node=name,
            pools=pools,
        )
    noted = cluster.silences.get(name)
    silence = () if noted is None else (save("silence", name, noted, None),)
    left = {other: one for other, one in cluster.nodes.items() if other != name}
    taken_off: list[Step] = [
        RemoveNetwork(node=name, network=network, hosts=hosts_of(cluster, network))
        for network in cluster.networks.values()
        if network.kind == "overlay" and name not in cluster.silent
    ]
    return Plan(
        verb="node remove",
        subject=name,
        why="no VM and no pool is left on it",
        steps=(
            *_overlays(cluster, left),
            *taken_off,
            save("node", name, node, None),
            *silence,
            *(save_baseline(cluster, baseline.architecture, baseline) if baseline else ()),
        ),
        claims=(f"node/{name}",),
        reads=reads(
            cluster, f"node/{name}", *([f"cpu/{baseline.architecture}"] if baseline else ())
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeChanges:
    """What is to be different of a host. None: as it is; "", () and 0: taken away."""

    reserve_mib: int | None = None
    storage_address: str | None = None
    bmc: str | None = None
    tags: tuple[str, ...] | None = None
    cpu_ratio: float | None = None
    ssh: str | None = None


def change(cluster: Cluster, name: str, changes: NodeChanges) -> Plan:
    node = cluster.node(name)
    wanted: dict[str, Any] = {
        field.name: value
        for field in dataclasses.fields(changes)
        if (value := getattr(changes, field.name)) is not None
    }
    if changes.cpu_ratio == 0:
        wanted["cpu_ratio"] = None
    after = dataclasses.replace(node, **wanted)
    words = ", ".join(sorted(field.removesuffix("_mib").replace("_", " ") for field in wanted))
    return Plan(
        verb="node change",
        subject=name,
        why="it is so already" if after == node else f"{words}: as was asked for",
        steps=() if after == node else (save("node", name, node, after),),
        claims=(f"node/{name}",),
        reads=reads(cluster, f"node/{name}"),
    )


def status(cluster: Cluster, node: Node, overhead_mib: int) -> NodeStatus:
    """At a glance: does it answer, may it be used, what is on it, what is free."""
    (one,) = statuses(cluster, [node], overhead_mib)
    return one


def statuses(cluster: Cluster, nodes: Iterable[Node], overhead_mib: int) -> tuple[NodeStatus, ...]:
    """Of several, for which all that runs is gone through once."""
    use = in_use(cluster, overhead_mib)
    away: dict[str, list[str]] = {}
    for vm in cluster.vms.values():
        if vm.home:
            away.setdefault(vm.home, []).append(vm.name)
    return tuple(_status(cluster, node, use.get(node.name, Use()), away) for node in nodes)


def _status(cluster: Cluster, node: Node, use: Use, away: Mapping[str, list[str]]) -> NodeStatus:
    silent = cluster.silent.get(node.name)
    used = use.memory_mib + pages_mib(node.facts)
    whole = node.facts.memory_mib if node.facts else 0
    notes = []
    if silent is not None:
        notes.append(f"does not answer: {silent}")
    if node.cordoned:
        notes.append("is cordoned: nothing is started or placed there (vorch node uncordon)")
    if node.name in away:
        notes.append(f"{some('VM', sorted(away[node.name]))} left it for its maintenance")
    return NodeStatus(
        node=node,
        state="silent" if silent is not None else "cordoned" if node.cordoned else "online",
        running=sum(domain.ours for domain in use.domains if is_on(domain.power)),
        memory_used_mib=used,
        memory_free_mib=max(0, whole - node.reserve_mib - used),
        notes=tuple(notes),
    )


# ---------------------------------------------------------------------------------------------
# Pools


def add_pool(
    cluster: Cluster,
    pool: Pool,
    found: Mapping[str, Sequence[Check]],
    addresses: Mapping[str, str] | None = None,
) -> Plan:
    """`found` says of each host whether it opens what is in the pool.

    `addresses`: where each host was seen to come from, which is recorded where nothing is yet.
    """
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
    refuse(
        f"add pool {pool.name!r}",
        [
            dataclasses.replace(check, name=f"{host}: {check.name}")
            for host, checks in found.items()
            for check in checks
        ],
    )
    new = {
        name: dataclasses.replace(cluster.nodes[name], storage_address=address)
        for name, address in (addresses or {}).items()
        if name in cluster.nodes and not cluster.nodes[name].storage_address
    }
    keys = (f"pool/{pool.name}", *(f"node/{name}" for name in new))
    return Plan(
        verb="pool add",
        subject=pool.name,
        why=f"{len(found)} host(s) opened a disk in it" if found else "it can be read and written",
        steps=(
            save("pool", pool.name, None, pool),
            *(save("node", name, cluster.nodes[name], node) for name, node in new.items()),
        ),
        claims=keys,
        reads=reads(cluster, *keys),
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


def some(what: str, names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:5]))
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{what}{'s' if len(names) > 1 else ''} {shown}{more}"
