"""What the monitors say of the cluster: the OSD map with its blocklist, and who serves where.

Addresses are compared as numbers, so that one may be written in any way.
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vorch.drivers.ceph_health import read_status
from vorch.drivers.rados_connection import RadosCluster, translate, translated
from vorch.errors import Denied, VorchError
from vorch.model import CrushBucket, CrushTree, StoragePlace, StorageStatus

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class CephPool:
    name: str
    groups: int
    # How names become placement groups; 2 is the one that there is.
    hash: int


@dataclass(frozen=True, slots=True)
class Osd:
    number: int
    up: bool
    addresses: frozenset[Address]


@dataclass(frozen=True, slots=True)
class OsdMap:
    epoch: int
    # Entry as Ceph writes it ("10.0.0.3:0/1234") → the time when it expires.
    blocklist: dict[str, float]
    # Networks that are cut off ("10.0.0.3/32"), which are kept apart.
    ranges: frozenset[str]
    osds: dict[int, Osd]
    pools: dict[str, CephPool]


@dataclass(frozen=True, slots=True)
class Services:
    """What else of Ceph is a client of its OSDs, by address: "manager x", "rgw.a"."""

    at: dict[Address, tuple[str, ...]] = field(default_factory=dict)
    # What may be there and was not shown, and why not; "" when all was.
    unknown: str = ""


def ask(cluster: RadosCluster, prefix: str, **arguments: Any) -> Any:
    """One question or order to the monitors, and their answer."""
    what = f"ask the monitors for {prefix!r}"
    text = json.dumps({"prefix": prefix, **arguments, "format": "json"})
    with translated(what):
        status, output, words = cluster.handle().mon_command(
            text, b"", timeout=max(1, int(cluster.timeout_s))
        )
    if status:
        exc = OSError(-status, words)
        raise translate(what, exc) from exc
    return json.loads(output) if output.strip() else None


def ask_manager(cluster: RadosCluster, prefix: str) -> Any:
    """One question to the manager that is active."""
    what = f"ask the manager for {prefix!r}"
    text = json.dumps({"prefix": prefix, "format": "json"})
    with translated(what):
        status, output, words = cluster.handle().mgr_command(
            text, b"", timeout=max(1, int(cluster.timeout_s))
        )
    if status:
        exc = OSError(-abs(status), words)
        raise translate(what, exc) from exc
    return json.loads(output)


def osd_map(cluster: RadosCluster) -> OsdMap:
    said = ask(cluster, "osd dump")
    return OsdMap(
        epoch=int(said["epoch"]),
        blocklist={entry: _time(until) for entry, until in said["blocklist"].items()},
        ranges=frozenset(map(_network, said.get("range_blocklist", {}))),
        osds={
            int(one["osd"]): Osd(int(one["osd"]), bool(one["up"]), _addresses(one["public_addrs"]))
            for one in said["osds"]
        },
        pools={
            one["pool_name"]: CephPool(
                one["pool_name"], int(one["pg_num"]), int(one["object_hash"])
            )
            for one in said["pools"]
        },
    )


def crush_tree(cluster: RadosCluster) -> CrushTree:
    """Where the monitors were told that OSDs stand."""
    said = ask(cluster, "osd tree")
    return CrushTree(
        buckets=tuple(
            CrushBucket(
                id=int(one["id"]),
                name=str(one["name"]),
                type=str(one["type"]),
                children=tuple(map(int, one.get("children", ()))),
            )
            for one in said["nodes"]
            if one["type"] != "osd"
        ),
        addresses={
            osd.number: tuple(sorted(map(str, osd.addresses)))
            for osd in osd_map(cluster).osds.values()
        },
    )


def storage_status(cluster: RadosCluster) -> StorageStatus:
    """How it says that it is, and its tree."""
    said = ask(cluster, "status")
    use: dict[int, tuple[int, int]] = {}
    # Only the manager knows what an OSD holds; without one, or the right to ask it, all else stays.
    if said.get("mgrmap", {}).get("available"):
        with contextlib.suppress(VorchError):
            use = osd_use(ask_manager(cluster, "osd df"))
    return StorageStatus(
        health=read_status(said), places=places(ask(cluster, "osd tree")["nodes"], use)
    )


def osd_use(said: Mapping[str, Any]) -> dict[int, tuple[int, int]]:
    """(size, used) in bytes by the OSD's number, of what `ceph osd df` says."""
    return {
        int(one["id"]): (int(one["kb"]) * 1024, int(one["kb_used"]) * 1024) for one in said["nodes"]
    }


def places(
    nodes: Sequence[Mapping[str, Any]], use: Mapping[int, tuple[int, int]]
) -> tuple[StoragePlace, ...]:
    """The nodes of `ceph osd tree` from the roots down; what is in no root comes last."""
    known = {int(one["id"]): one for one in nodes}
    below = {int(child) for one in nodes for child in one.get("children", ())}
    found: list[StoragePlace] = []

    def add(number: int, depth: int) -> None:
        one = known.pop(number, None)
        if one is None:
            return
        osd = one["type"] == "osd"
        size, used = use.get(number, (None, None))
        found.append(
            StoragePlace(
                id=number,
                name=str(one["name"]),
                type=str(one["type"]),
                depth=depth,
                up=one.get("status") == "up" if osd else None,
                inside=float(one.get("reweight", 0)) > 0 if osd else None,
                device_class=str(one.get("device_class", "")),
                weight=float(one.get("crush_weight", 0)),
                size_bytes=size,
                used_bytes=used,
            )
        )
        children = [int(child) for child in one.get("children", ())]
        for child in sorted(children, key=lambda child: _order(known.get(child))):
            add(child, depth + 1)

    for number in [number for number in known if number not in below]:
        add(number, 0)
    return tuple(found)


def _order(one: Mapping[str, Any] | None) -> tuple[str, int, str]:
    """By kind and number or name: osd.2 before osd.10."""
    if one is None:
        return ("", 0, "")
    osd = one["type"] == "osd"
    return (str(one["type"]), int(one["id"]) if osd else 0, str(one["name"]))


def services(cluster: RadosCluster) -> Services:
    """Managers, gateways and metadata servers. They are clients; monitors and OSDs are not."""
    at: dict[Address, list[str]] = {}
    try:
        manager = ask(cluster, "mgr dump")
        others = ask(cluster, "service dump")["services"]
        filesystems = ask(cluster, "fs dump")
    except Denied as exc:
        return Services(unknown=exc.message)
    if manager.get("active_name"):
        for address in _addresses(manager["active_addrs"]):
            at.setdefault(address, []).append(f"manager {manager['active_name']}")
    for kind, service in others.items():
        for name, daemon in service.get("daemons", {}).items():
            # Beside the daemons there is a summary, which is a text.
            if isinstance(daemon, dict) and _is_address(daemon.get("addr", "")):
                at.setdefault(host_of(daemon["addr"]), []).append(f"{kind}.{name}")
    maps = [filesystem["mdsmap"]["info"].values() for filesystem in filesystems["filesystems"]]
    for info in (*maps, filesystems.get("standbys", [])):
        for server in info:
            for address in _addresses(server["addrs"]):
                at.setdefault(address, []).append(f"metadata server {server['name']}")
    return Services({address: tuple(dict.fromkeys(names)) for address, names in at.items()})


def host_of(address: str) -> Address:
    """The host's part of an address as Ceph writes it: "v2:10.0.0.3:0/12", "[fd00::3]:0/12"."""
    return ipaddress.ip_address(_host_part(address))


def _host_part(address: str) -> str:
    text = address.partition("/")[0]
    for prefix in ("v1:", "v2:", "any:"):
        text = text.removeprefix(prefix)
    return text.rpartition(":")[0].strip("[]")


def entry_of(address: Address) -> str:
    """The blocklist's entry for all clients at an address."""
    return f"[{address}]:0/0" if address.version == 6 else f"{address}:0/0"


def range_of(address: Address) -> str:
    return f"{address}/{address.max_prefixlen}"


def _network(text: str) -> str:
    """ "cidr:10.0.0.3:0/32" → "10.0.0.3/32"."""
    address, _, length = text.removeprefix("cidr:").rpartition("/")
    return f"{address.rpartition(':')[0].strip('[]')}/{length}"


def client_entry(text: str) -> str:
    """A recorded client's address as the blocklist has it. ValueError if it is none."""
    host, slash, nonce = text.partition("/")
    # Only the nonce tells clients of one host apart; 0 would mean all of them.
    if not slash or not nonce.isdecimal() or int(nonce) == 0:
        raise ValueError(f"{text!r} is no address of a client")
    return f"{entry_of(host_of(host)).removesuffix('0')}{int(nonce)}"


def _addresses(said: dict[str, Any]) -> frozenset[Address]:
    return frozenset(host_of(one["addr"]) for one in said["addrvec"] if _is_address(one["addr"]))


def _is_address(text: str) -> bool:
    """A daemon that has only just been started is listed with an address of no family."""
    return bool(_host_part(text))


def _time(text: str) -> float:
    return datetime.datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%f%z").timestamp()
