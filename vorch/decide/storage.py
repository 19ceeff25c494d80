"""Storage classes: which pools a class has, and to which of them a new volume goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vorch.decide.records import new_name, reads, save
from vorch.errors import Conflict, Invalid, NoRoom, Unsupported
from vorch.model import Cluster, Room, StorageClass
from vorch.plan import Plan, Step


def class_add(
    cluster: Cluster,
    name: str,
    pools: Sequence[str],
    *,
    default: bool,
    description: str,
) -> Plan:
    """Only one class is the default: a new one takes the place of the one before."""
    new_name("class", cluster.classes, name)
    for pool in pools:
        cluster.pool(pool)
    if len(set(pools)) < len(pools):
        raise Invalid(f"cannot make class {name!r}: it names a pool twice; name each once")
    new = StorageClass(name=name, pools=tuple(pools), default=default, description=description)
    steps: list[Step] = []
    before = default_class(cluster) if default else None
    if before is not None:
        rest = StorageClass(
            name=before.name, pools=before.pools, description=before.description, default=False
        )
        steps.append(save("class", before.name, before, rest))
    touched = [name, *([before.name] if before else [])]
    return Plan(
        verb="class add",
        subject=name,
        why=f"its volumes go to {_or(pools)}"
        + (f"; it is the default in place of {before.name!r}" if before else ""),
        steps=(*steps, save("class", name, None, new)),
        claims=tuple(f"class/{one}" for one in touched),
        reads=reads(
            cluster, *(f"class/{one}" for one in touched), *(f"pool/{pool}" for pool in pools)
        ),
    )


def class_remove(cluster: Cluster, name: str) -> Plan:
    """Volumes that were made by it stay where they are."""
    old = cluster.storage_class(name)
    return Plan(
        verb="class remove",
        subject=name,
        why="what was made by it stays where it is",
        steps=(save("class", name, old, None),),
        claims=(f"class/{name}",),
        reads=reads(cluster, f"class/{name}"),
    )


def default_class(cluster: Cluster) -> StorageClass | None:
    return next((one for _, one in sorted(cluster.classes.items()) if one.default), None)


def choose(
    cluster: Cluster,
    storage_class: StorageClass,
    rooms: Mapping[str, Room | str],
    *,
    node: str | None = None,
    beside: str | None = None,
    needed_bytes: int = 0,
) -> str:
    """The pool of a class with the most free room, or the one `beside` which the source is.

    `rooms` has for each pool its room, or why it could not say. `node` is the host that has to
    reach it; without one any host will do that takes new VMs.
    """
    refused: dict[str, str] = {}
    fit: list[tuple[int, str]] = []
    far = False
    for name in storage_class.pools:
        pool, room = cluster.pools.get(name), rooms.get(name, "nobody has looked at it")
        if pool is None:
            refused[name] = "the cluster has no such pool any more"
        elif pool.node and not _takes(cluster, pool.node, node):
            refused[name] = f"only {pool.node!r} reaches it"
            far = True
        elif isinstance(room, str):
            refused[name] = room
        elif room.free_bytes <= needed_bytes:
            refused[name] = (
                f"{needed_bytes / 1024**2:,.0f} MiB are needed and"
                f" {room.free_bytes / 1024**2:,.0f} MiB are free"
            )
        else:
            fit.append((-room.free_bytes, name))
    names = [name for _, name in sorted(fit)]
    if beside in names:
        return str(beside)
    if names:
        return names[0]
    why = "; ".join(f"{name}: {reason}" for name, reason in sorted(refused.items()))
    kind = Unsupported if far and len(refused) == 1 else NoRoom
    raise kind(
        f"cannot find a pool of class {storage_class.name!r}: {why}; make room there, or name"
        " another class or pool",
        storage_class=storage_class.name,
        refused=refused,
    )


def _takes(cluster: Cluster, holder: str, wanted: str | None) -> bool:
    """A folder's host is the one that was asked for, or, when none was, one that takes VMs."""
    if wanted is not None:
        return holder == wanted
    host = cluster.nodes.get(holder)
    return host is not None and not host.cordoned and holder not in cluster.silent


def check_not_in_class(cluster: Cluster, pool: str) -> None:
    for one in cluster.classes.values():
        if pool in one.pools:
            raise Conflict(
                f"cannot remove pool {pool!r}: class {one.name!r} has it; make that class anew"
                f" without it (vorch class remove {one.name})",
                pool=pool,
                storage_class=one.name,
            )


def _or(names: Sequence[str]) -> str:
    if len(names) == 1:
        return f"pool {names[0]!r}"
    return f"{', '.join(map(repr, names[:-1]))} or {names[-1]!r}, where most is free"
