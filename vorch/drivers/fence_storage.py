"""The storage fence: Ceph refuses all that a host's clients ask of it, however alive they are.

Entries in the blocklist first, then the proof that they are in force, and only then are the locks
looked at, and those broken that the cut-off clients hold.
"""

from __future__ import annotations

import contextlib
import ipaddress
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from vorch.drivers.ceph_blocklist import Blocklist
from vorch.drivers.ceph_map import Address, client_entry, entry_of, host_of, services
from vorch.drivers.fence_drill import storage_drill
from vorch.drivers.rados_connection import RadosCluster, kept_cluster, translated
from vorch.drivers.rbd_pool import rbd_address
from vorch.errors import FenceFailed, VorchError
from vorch.model import Check, Node, Pool
from vorch.ports import Progress

# Entries that last longer are a fence's. Ceph's own last an hour or a day.
OURS_S = 7 * 24 * 3600.0


class StorageFencer:
    """The Fencer port. `pools` and `nodes` read what the store has of them.

    `shared` says what to do where another client of Ceph's has the host's address: "refuse",
    "clients" (cut off those that are known, alone), or "whole".
    """

    name = "storage"
    by_address = True

    def __init__(
        self,
        pools: Callable[[], Mapping[str, Pool]],
        nodes: Callable[[], Mapping[str, Node]],
        *,
        timeout_s: float,
        shared: str = "refuse",
    ) -> None:
        self._pools = pools
        self._nodes = nodes
        self._timeout_s = timeout_s
        self._shared = shared
        self._lock = threading.Lock()
        self._clusters: dict[tuple[str, str], RadosCluster] = {}

    def covers(self, node: Node) -> bool:
        return any(pool.url.startswith("rbd:") for pool in self._pools().values())

    def fence(self, node: Node, clients: Sequence[str], progress: Progress) -> str:
        with self._failing(node, "cut host {} off its disks"):
            address = _address_of(node)
            listed = self._not_others(node, _entries(clients), progress)
            return "; ".join(
                self._fence(node, address, listed, blocklist, progress)
                for blocklist in self._blocklists()
            )

    def unfence(self, node: Node, clients: Sequence[str]) -> None:
        with self._failing(node, "let host {} at its disks again"):
            address, lasting = _address_of(node), time.time() + OURS_S
            asked = {entry_of(address), *_entries(clients)}
            for blocklist in self._blocklists():
                # What earlier fences of the host have left, too; not what Ceph itself put there.
                blocklist.lift(
                    lambda entry, until: (
                        entry in asked or (until > lasting and _is_at(entry, address))
                    ),
                    address,
                )

    def drill(self, nodes: Sequence[Node], progress: Progress) -> tuple[Check, ...]:
        checks: list[Check] = []
        for blocklist in self._blocklists():
            checks += storage_drill(blocklist, self._timeout_s, progress)
            for node in nodes:
                checks.append(self._would_work(node, blocklist))
        return tuple(checks)

    def close(self) -> None:
        with self._lock:
            clusters, self._clusters = list(self._clusters.values()), {}
        for cluster in clusters:
            cluster.release()

    def _blocklists(self) -> Iterator[Blocklist]:
        """One for each Ceph cluster, as each of its users that pools name."""
        urls = (pool.url for pool in self._pools().values())
        found: dict[tuple[str, str], list[str]] = {}
        for url in sorted(url for url in urls if url.startswith("rbd:")):
            address = rbd_address(url)
            found.setdefault((address.conf, address.user), []).append(url)
        for key, there in found.items():
            with self._lock:
                if key not in self._clusters:
                    self._clusters[key] = kept_cluster(*key, timeout_s=max(1.0, self._timeout_s))
                cluster = self._clusters[key]
            yield Blocklist(cluster, [rbd_address(url) for url in there])

    @contextlib.contextmanager
    def _failing(self, node: Node, what: str) -> Iterator[None]:
        """Whatever was the matter, it was not proven."""
        try:
            yield
        except VorchError as exc:
            raise FenceFailed(
                f"cannot {what.format(repr(node.name))}: {exc.message}",
                **{**exc.fields, "node": node.name},
            ) from exc

    # -- whether

    def _not_others(self, node: Node, clients: Sequence[str], progress: Progress) -> list[str]:
        """Without those that are recorded for it and are at another host's address."""
        others = {address: name for name, address in self._others(node)}
        kept = []
        for client in clients:
            owner = others.get(host_of(client))
            if owner is None:
                kept.append(client)
            else:
                progress(line=f"{client} is recorded for {node.name} and is of {owner}: left alone")
        return kept

    def _others(self, node: Node) -> Iterator[tuple[str, Address]]:
        for other in self._nodes().values():
            with contextlib.suppress(ValueError):
                if other.name != node.name:
                    yield other.name, ipaddress.ip_address(other.storage_address)

    def _whole(self, node: Node, address: Address, cluster: RadosCluster) -> bool:
        """Whether the address as a whole may be cut off, or its known clients alone."""
        with translated("see our own address in Ceph"):
            own = str(cluster.handle().get_addrs())
        if address in {host_of(part.strip("[]")) for part in own.split(",")}:
            raise FenceFailed(
                "vorch itself runs there and would cut itself off; let a vorch on another host do"
                " it"
            )
        for other, its in self._others(node):
            if its == address:
                raise FenceFailed(
                    f"{other!r} is recorded with the same storage address {address}; correct that"
                )
        if self._shared == "whole":
            return True
        found = services(cluster)
        here = found.at.get(address, ())
        if not here and not found.unknown:
            return True
        if self._shared == "clients":
            return False
        if here:
            raise FenceFailed(
                f"{', '.join(here)} of Ceph would be cut off with it at {address}; move that away,"
                " or say with storage_fence_shared what is to be done"
            )
        raise FenceFailed(
            f"what else of Ceph is at {address} is not to be seen ({found.unknown}); give this Ceph"
            " user the caps in docs/fencing.md"
        )

    def _would_work(self, node: Node, blocklist: Blocklist) -> Check:
        name = f"storage fence of {node.name}"
        try:
            whole = self._whole(node, _address_of(node), blocklist.cluster)
        except VorchError as exc:
            return Check(
                name=name, level="warning", detail=exc.message, remedy="see docs/fencing.md"
            )
        what = "would be cut off as a whole" if whole else "would have its known clients cut off"
        return Check(name=name, level="ok", detail=f"{node.storage_address} {what}")

    # -- how

    def _fence(
        self,
        node: Node,
        address: Address,
        clients: list[str],
        blocklist: Blocklist,
        progress: Progress,
    ) -> str:
        until = time.monotonic() + self._timeout_s
        whole = self._whole(node, address, blocklist.cluster)
        if whole:
            entries = [entry_of(address), *clients]
        else:
            # Whose lock it is has written, whether it was recorded or not.
            there = [one.owner.address for one in blocklist.locked(self._timeout_s)]
            held = [client_entry(one) for one in there if host_of(one) == address]
            entries = list(dict.fromkeys([*clients, *held]))
        if not entries:
            raise FenceFailed(
                "its address is shared, and none of its clients is known; switch it off, or set"
                " storage_fence_shared"
            )
        epoch = blocklist.add(entries, address if whole else None)
        progress(line=f"{len(entries)} address(es) of {node.name} are in Ceph's blocklist")
        barrier = blocklist.barrier(address, until)
        broken = blocklist.break_locks(entries, until)
        blocklist.check(entries)
        cut = f"{address} as a whole" if whole else f"{len(entries)} client(s) at {address}"
        beyond = f", {barrier.excused} have no OSD but its own" if barrier.excused else ""
        return (
            f"Ceph refuses {cut}, by OSD map {epoch}; {barrier.answered} placement groups have"
            f" answered under it{beyond}; {broken} lock(s) broken"
        )


def _address_of(node: Node) -> Address:
    try:
        return ipaddress.ip_address(node.storage_address)
    except ValueError:
        given = node.storage_address
        raise FenceFailed(
            (
                f"its storage address {given!r} is no IP address"
                if given
                else "it has no storage address"
            )
            + "; record it while the host is well (vorch node change --storage-address)"
        ) from None


def _entries(clients: Sequence[str]) -> list[str]:
    try:
        return list(dict.fromkeys(client_entry(client) for client in clients if client))
    except ValueError as exc:
        raise FenceFailed(
            f"{exc}, so what is recorded of its VMs is damaged; see `vorch doctor`"
        ) from exc


def _is_at(entry: str, address: Address) -> bool:
    try:
        return host_of(entry) == address
    except ValueError:
        return False
