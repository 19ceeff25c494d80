"""Ceph's blocklist, from entries to proof: read back, in force everywhere, locks gone.

Why an answer of every placement group is the proof: docs/adr/0016.
"""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from vorch.drivers.ceph_groups import name_in_each
from vorch.drivers.ceph_map import (
    Address,
    OsdMap,
    ask,
    client_entry,
    entry_of,
    host_of,
    osd_map,
    range_of,
)
from vorch.drivers.rados_connection import CephAddress, RadosCluster, translate, translated
from vorch.drivers.rbd_locks import LockOwner, break_lock, lock_owners
from vorch.drivers.rbd_pool import librbd
from vorch.errors import FenceFailed

YEAR_S = 365 * 24 * 3600.0
# An entry that lasts for so long is as good as new.
LONG_S = YEAR_S / 2
# Ceph puts what is asked for at the same time into one map.
ORDERS_AT_ONCE = 32
# How long a placement group may take before it is asked whose it is.
GRACE_S = 1.0
POLL_S = 0.25
# Objects that nobody has: the answer is that there is none.
PROBE = "vorch.fence."


@dataclass(frozen=True, slots=True)
class Barrier:
    """Which placement groups are known to have the map."""

    answered: int
    # Their OSD is on the host itself, or there is none: they get the map before they serve anybody.
    excused: int


@dataclass(frozen=True, slots=True)
class Locked:
    ioctx: Any
    image_id: str
    owner: LockOwner


class Blocklist:
    """Of one cluster, for the pools that VMs have their disks in."""

    def __init__(self, cluster: RadosCluster, pools: Sequence[CephAddress]) -> None:
        self.cluster = cluster
        self.pools = tuple(pools)

    # -- entries

    def add(self, entries: Sequence[str], host: Address | None = None) -> int:
        """Have them listed for a year, and our own client know it; the OSD map's epoch then.

        `host`: its address as a whole is among them.
        """
        there, lasting = osd_map(self.cluster).blocklist, time.time() + LONG_S
        self._order("add", [one for one in entries if one not in there])
        short = [one for one in entries if there.get(one, lasting) < lasting]
        if short:
            self._prolong(short, host)
        epoch = self.check(entries)
        with translated("wait for the OSD map"):
            # Not older than what was read: it is asked of the same monitor, and later.
            self.cluster.handle().wait_for_latest_osdmap()
        return epoch

    def _prolong(self, entries: Sequence[str], host: Address | None) -> None:
        """Ceph says that it does, when an entry is added again, and leaves its end as it is.

        So it goes and comes anew, and a range that covers the whole host bridges the moment. Where
        the host's address is not to be cut off there is such a moment: before any proof.
        """
        if host is not None:
            self._order_range("add", host)
        self._order("rm", entries)
        self._order("add", entries)
        if host is not None:
            self._order_range("rm", host)

    def _order_range(self, what: str, host: Address) -> None:
        more = {"expire": YEAR_S} if what == "add" else {}
        network = range_of(host)
        ask(self.cluster, "osd blocklist", range="range", blocklistop=what, addr=network, **more)

    def check(self, entries: Sequence[str]) -> int:
        """Read back that they are listed, and for long; the OSD map's epoch."""
        found, lasting = osd_map(self.cluster), time.time() + LONG_S
        missing = [one for one in entries if found.blocklist.get(one, 0.0) < lasting]
        if missing:
            raise FenceFailed(f"{', '.join(missing)} did not stay in Ceph's blocklist")
        return found.epoch

    def lift(self, wanted: Callable[[str, float], bool], host: Address | None = None) -> None:
        """Take out the entries (with their end) that are wanted out, and see that they are."""
        found = osd_map(self.cluster)
        lifted = [entry for entry, until in found.blocklist.items() if wanted(entry, until)]
        self._order("rm", lifted)
        if host is not None and range_of(host) in found.ranges:
            # Of a fence that was killed while it prolonged entries.
            self._order_range("rm", host)
        left = sorted(set(lifted) & osd_map(self.cluster).blocklist.keys())
        if left:
            raise FenceFailed(f"{', '.join(left)} stayed in Ceph's blocklist")
        with translated("wait for the OSD map"):
            self.cluster.handle().wait_for_latest_osdmap()

    def _order(self, what: str, entries: Sequence[str]) -> None:
        more = {"expire": YEAR_S} if what == "add" else {}

        def give(entry: str) -> None:
            ask(self.cluster, "osd blocklist", blocklistop=what, addr=entry, **more)

        if entries:
            with ThreadPoolExecutor(min(ORDERS_AT_ONCE, len(entries))) as threads:
                list(threads.map(give, entries))

    # -- in force

    def barrier(self, host: Address | None, until: float) -> Barrier:
        """An answer, to us, of every placement group. We have the map, so each has it by then.

        `host` is the one that is being cut off; its own OSDs need not answer.
        """
        known = osd_map(self.cluster)
        flight = _Flight()
        for name in sorted(self._pool_names()):
            pool = known.pools.get(name)
            if pool is None or pool.hash != 2:
                raise FenceFailed(
                    f"Ceph has no usual pool {name!r}; look at `ceph osd pool ls detail`"
                )
            flight.ask(self.cluster.ioctx(name), name, name_in_each(pool.groups, PROBE))
        pending = flight.wait(max(0.0, min(GRACE_S, until - time.monotonic())))
        excused: set[tuple[str, str]] = set()
        while pending - excused:
            known = osd_map(self.cluster)
            excused |= {one for one in pending - excused if self._excused(one, host, known)}
            if pending - excused and time.monotonic() >= until:
                pool_name, probe = min(pending - excused)
                raise FenceFailed(
                    f"{len(pending - excused)} placement group(s), such as that of {probe!r} in"
                    f" pool {pool_name!r}, did not answer in time; look at `ceph status`"
                )
            if pending - excused:
                pending = flight.wait(POLL_S)
        return Barrier(flight.asked - len(pending), len(pending))

    def _pool_names(self) -> set[str]:
        with translated("read Ceph's configuration"):
            # Where librbd puts the data of new images, if it parts it from their headers.
            data = str(self.cluster.handle().conf_get("rbd_default_data_pool") or "")
        return {pool.pool for pool in self.pools} | ({data} if data else set())

    def _excused(self, where: tuple[str, str], host: Address | None, known: OsdMap) -> bool:
        at = ask(self.cluster, "osd map", pool=where[0], object=where[1])
        osd = known.osds.get(int(at["acting_primary"]))
        return osd is None or (host is not None and host in osd.addresses)

    # -- locks

    def locked(self, timeout_s: float) -> Iterator[Locked]:
        """All volumes whose exclusive lock somebody holds."""
        rbd = librbd()
        for pool in self.pools:
            ioctx = self.cluster.ioctx(pool.pool, pool.namespace)
            try:
                ids = [one["id"] for one in rbd.RBD().list2(ioctx)]
            except rbd.Error as exc:
                raise translate(f"list the volumes of {pool.pool!r}", exc) from exc
            for image_id, owner in lock_owners(ioctx, ids, timeout_s).items():
                yield Locked(ioctx, image_id, owner)

    def break_locks(self, entries: Collection[str], until: float) -> int:
        """Those that cut-off clients hold, and nobody else's."""
        broken = 0
        for one in self.locked(max(1.0, until - time.monotonic())):
            address = one.owner.address
            if {client_entry(address), entry_of(host_of(address))} & set(entries):
                break_lock(one.ioctx, one.image_id, one.owner)
                broken += 1
        return broken


class _Flight:
    """Questions to objects, all on their way at once."""

    def __init__(self) -> None:
        self.asked = 0
        self._news = threading.Condition()
        self._pending: set[tuple[str, str]] = set()
        self._problem = 0

    def ask(self, ioctx: Any, pool: str, names: Sequence[str]) -> None:
        for name in names:
            where = (pool, name)
            with self._news:
                self._pending.add(where)
            self.asked += 1
            with translated(f"ask pool {pool!r}"):
                ioctx.aio_stat(name, lambda done, *found, where=where: self._told(where, done))

    def _told(self, where: tuple[str, str], completion: Any) -> None:
        status = -int(completion.get_return_value())
        with self._news:
            # When the time of the connection is over, that is told like an answer.
            if status != errno.ETIMEDOUT:
                self._pending.discard(where)
            if status not in (0, errno.ENOENT, errno.ETIMEDOUT):
                self._problem = status
            self._news.notify_all()

    def wait(self, timeout_s: float) -> set[tuple[str, str]]:
        """What has not answered after that time."""
        with self._news:
            self._news.wait_for(lambda: not self._pending or self._problem, timeout_s)
            if self._problem:
                exc = OSError(self._problem, "a placement group refused")
                raise translate("ask the placement groups", exc) from exc
            return set(self._pending)
