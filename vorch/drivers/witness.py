"""The Witness port on real hosts: knocks, watchers of images, the OSD map, the BMC."""

from __future__ import annotations

import ipaddress
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Literal
from urllib.parse import urlsplit

from vorch.availability import Knock
from vorch.drivers.ceph_map import OsdMap, crush_tree, osd_map, storage_status
from vorch.drivers.knock import Names, knock
from vorch.drivers.rados_connection import CephAddress, RadosCluster, kept_cluster
from vorch.drivers.rbd_pool import rbd_address
from vorch.drivers.rbd_watch import RbdWatch
from vorch.model import CrushTree, Node, Pool, StorageStatus, Volume

# Where libvirt listens, by the transport that a URI names.
PORTS = {"tls": 16514, "tcp": 16509, "ssh": 22, "libssh": 22, "libssh2": 22, "": 16514}
# One look at all hosts asks for the OSD map once.
MAP_AGE_S = 1.0
# Many may watch how Ceph is; its monitors and manager are asked once for all of them.
STATUS_AGE_S = 3.0

ReadPower = Callable[[Node, float], Literal["on", "off"] | None]


class HostWitness:
    """`pools` reads what the store has of them; `read_power` asks a host's BMC."""

    def __init__(
        self,
        pools: Callable[[], Mapping[str, Pool]],
        read_power: ReadPower,
        *,
        answer_s: float,
        storage_knock_port: int = 0,
    ) -> None:
        self._pools = pools
        self._read_power = read_power
        self._answer_s = answer_s
        self._storage_port = storage_knock_port
        self._names = Names()
        self._lock = threading.Lock()
        self._clusters: dict[tuple[str, str], RadosCluster] = {}
        self._watches: dict[CephAddress, RbdWatch] = {}
        self._maps: dict[tuple[str, str], tuple[float, OsdMap]] = {}
        self._statuses: dict[tuple[str, str], tuple[float, StorageStatus]] = {}

    def knock(
        self, node: Node, network: Literal["management", "storage"], timeout_s: float
    ) -> Knock | None:
        uri = urlsplit(node.uri)
        port = uri.port or PORTS.get(uri.scheme.partition("+")[2], PORTS["tls"])
        host = uri.hostname or ""
        if network == "storage":
            host, port = node.storage_address, self._storage_port or port
        began = time.monotonic()
        address = self._names.address(host, timeout_s) if host else None
        if address is None:
            return None
        return knock(address, port, max(0.0, timeout_s - (time.monotonic() - began)))

    def clients(self, volumes: Sequence[Volume]) -> dict[Volume, tuple[str, ...]]:
        pools = self._pools()
        by_pool: dict[str, list[Volume]] = {}
        for volume in volumes:
            if volume.pool in pools and pools[volume.pool].url.startswith("rbd:"):
                by_pool.setdefault(volume.pool, []).append(volume)
        found: dict[Volume, tuple[str, ...]] = {}
        for name, asked in by_pool.items():
            watch = self._watch(rbd_address(pools[name].url))
            seen = watch.watchers([one.name for one in asked], self._answer_s)
            found.update({one: seen[one.name] for one in asked if one.name in seen})
        return found

    def osds(self, node: Node) -> tuple[int, int] | None:
        try:
            address = ipaddress.ip_address(node.storage_address)
        except ValueError:
            return None
        here = [
            osd.up
            for key in self._keys()
            for osd in self._map(key).osds.values()
            if address in osd.addresses
        ]
        return (sum(here), len(here)) if here else None

    def crush(self) -> tuple[CrushTree, ...]:
        found = []
        for key in self._keys():
            with self._lock:
                cluster = self._cluster(key)
            found.append(crush_tree(cluster))
        return tuple(found)

    def storage(self) -> tuple[StorageStatus, ...]:
        found = []
        for key in self._keys():
            with self._lock:
                kept = self._statuses.get(key)
                cluster = self._cluster(key)
            if kept is None or time.monotonic() - kept[0] >= STATUS_AGE_S:
                kept = (time.monotonic(), storage_status(cluster))
                with self._lock:
                    self._statuses[key] = kept
            found.append(kept[1])
        return tuple(found)

    def _keys(self) -> list[tuple[str, str]]:
        """Each Ceph that pools are in, by its configuration and user."""
        found = [rbd_address(p.url) for p in self._pools().values() if p.url.startswith("rbd:")]
        return sorted({(one.conf, one.user) for one in found})

    def power(self, node: Node, timeout_s: float) -> Literal["on", "off"] | None:
        return self._read_power(node, timeout_s)

    def close(self) -> None:
        with self._lock:
            watches, self._watches = list(self._watches.values()), {}
            clusters, self._clusters = list(self._clusters.values()), {}
        for watch in watches:
            watch.close()
        for cluster in clusters:
            cluster.release()

    # -- Ceph

    def _cluster(self, key: tuple[str, str]) -> RadosCluster:
        """A connection of its own, which waits no longer than a look may take."""
        if key not in self._clusters:
            self._clusters[key] = kept_cluster(*key, timeout_s=max(1.0, self._answer_s))
        return self._clusters[key]

    def _watch(self, address: CephAddress) -> RbdWatch:
        with self._lock:
            if address not in self._watches:
                cluster = self._cluster((address.conf, address.user))
                self._watches[address] = RbdWatch(cluster, address)
            return self._watches[address]

    def _map(self, key: tuple[str, str]) -> OsdMap:
        with self._lock:
            kept = self._maps.get(key)
            cluster = self._cluster(key)
        if kept is not None and time.monotonic() - kept[0] < MAP_AGE_S:
            return kept[1]
        found = osd_map(cluster)
        with self._lock:
            self._maps[key] = (time.monotonic(), found)
        return found
