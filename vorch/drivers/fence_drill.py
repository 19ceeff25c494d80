"""A drill of the storage fence on the living cluster: a client of our own is really cut off.

Only a throw-away volume and a connection that was made for this are touched. What it shows is what
a fence rests on: that the caps suffice, that a client which had the volume and its lock can write
no more, that the next one takes over and finds what was written, and that entries can be lifted.
"""

from __future__ import annotations

import contextlib
import errno
import re
import secrets
import time
from collections.abc import Callable
from typing import Any

from vorch.drivers.ceph_blocklist import YEAR_S, Blocklist
from vorch.drivers.ceph_map import ask, client_entry, osd_map
from vorch.drivers.rados_connection import CephAddress, RadosCluster, translate
from vorch.drivers.rbd_pool import features, librbd
from vorch.errors import FenceFailed, VorchError
from vorch.model import Check
from vorch.ports import Progress

DRILL_BYTES = 4 * 1024**2
BLOCK_BYTES = 4096
# The first one whose blocklist has its name and its way of working.
OLDEST_CEPH = 16
# Leases and entries reckon with clocks; Ceph itself warns of monitors that differ by 0.05 s.
CLOCK_LIMIT_S = 2.0
_VERSION = re.compile(r"ceph version (\d+)\.")
DRILL = "vorch-drill-"


def storage_drill(blocklist: Blocklist, timeout_s: float, progress: Progress) -> list[Check]:
    checks = [
        _tried("Ceph's versions", lambda: _versions(blocklist)),
        _tried("clocks of Ceph's monitors", lambda: _monitor_clocks(blocklist)),
    ]
    for pool in blocklist.pools:
        progress(line=f"cutting a client of our own off from pool {pool.pool!r}")
        checks.append(
            _tried(
                f"storage fence on {pool.pool}",
                lambda pool=pool: _cut_one_off(blocklist, pool, timeout_s),  # type: ignore[misc]
            )
        )
    return checks


def _tried(name: str, act: Callable[[], str]) -> Check:
    try:
        return Check(name=name, level="ok", detail=act())
    except VorchError as exc:
        remedy = "see docs/fencing.md; until then a host may not be fenced by its storage"
        return Check(name=name, level="error", detail=exc.message, remedy=remedy)


def _versions(blocklist: Blocklist) -> str:
    counts = {
        int(found[1])
        for kind in ("mon", "osd")
        for text in ask(blocklist.cluster, "versions")[kind]
        if (found := _VERSION.match(text))
    }
    if not counts or min(counts) < OLDEST_CEPH:
        raise FenceFailed(
            f"some daemons are of Ceph {min(counts, default=0)}; the blocklist needs"
            f" {OLDEST_CEPH} or newer"
        )
    return f"Ceph {', '.join(map(str, sorted(counts)))}"


def _monitor_clocks(blocklist: Blocklist) -> str:
    said = ask(blocklist.cluster, "time-sync-status")
    skews = {
        name: abs(float(one.get("skew", 0.0)))
        for name, one in said.get("time_skew_status", {}).items()
    }
    worst = max(skews.values(), default=0.0)
    if worst > CLOCK_LIMIT_S:
        raise FenceFailed(
            f"the clock of monitor {max(skews, key=skews.__getitem__)!r} is {worst:.2f} s off; set"
            " it by NTP"
        )
    return f"they differ by {worst:.3f} s at most"


def _cut_one_off(blocklist: Blocklist, pool: CephAddress, timeout_s: float) -> str:
    """What was seen, when all went as it must. FenceFailed, or Ceph's error, otherwise."""
    rbd = librbd()
    ioctx = blocklist.cluster.ioctx(pool.pool, pool.namespace)
    name = f"{DRILL}{secrets.token_hex(6)}"
    victim = RadosCluster(pool.conf, pool.user, blocklist.cluster.timeout_s)
    entry, closing = "", contextlib.ExitStack()
    # The connection is the last to go, or it waits for the image for ever.
    closing.callback(victim.close)
    try:
        rbd.RBD().create(ioctx, name, DRILL_BYTES, old_format=False, features=features())
        entry = client_entry(str(victim.handle().get_addrs()))
        image = rbd.Image(victim.ioctx(pool.pool, pool.namespace), name)
        closing.callback(_close, image)
        first = secrets.token_bytes(BLOCK_BYTES)
        image.write(first, 0)
        image.flush()
        until = time.monotonic() + timeout_s
        began = time.monotonic()
        epoch = blocklist.add([entry])
        offset_s = _clock_offset_s(blocklist, entry)
        blocklist.barrier(None, until)
        cut_s = time.monotonic() - began
        _must_fail(image)
        if blocklist.break_locks([entry], until) < 1:
            raise FenceFailed("the lock of the client that was cut off was not there to be broken")
        took_s = _take_over(rbd, ioctx, name, first)
    except rbd.Error as exc:
        raise translate(f"try the storage fence on pool {pool.pool!r}", exc) from exc
    finally:
        closing.close()
        _clear_up(blocklist, rbd, ioctx, name, entry)
    if abs(offset_s) > CLOCK_LIMIT_S:
        raise FenceFailed(
            f"the clock of this machine and that of Ceph's leading monitor differ by"
            f" {abs(offset_s):.1f} s; set both by NTP"
        )
    return (
        f"a client of our own was cut off in {cut_s:.2f} s by OSD map {epoch}, its write failed,"
        f" and another one took over in {took_s:.2f} s; clocks differ by {abs(offset_s):.2f} s"
    )


def _close(image: Any) -> None:
    # Of a client that was cut off even this fails; it is closed all the same.
    with contextlib.suppress(librbd().Error):
        image.close()


def _clock_offset_s(blocklist: Blocklist, entry: str) -> float:
    """By how much the leading monitor's clock is ahead of ours: it has dated the entry's end."""
    return osd_map(blocklist.cluster).blocklist[entry] - YEAR_S - time.time()


def _must_fail(image: Any) -> None:
    rbd = librbd()
    try:
        image.write(b"\xff" * BLOCK_BYTES, 0)
        image.flush()
    except rbd.Error as exc:
        if abs(exc.errno or 0) == errno.ESHUTDOWN:
            return
        raise FenceFailed(
            f"the write of a client that was cut off failed in another way than it must: {exc}"
        ) from exc
    raise FenceFailed("a client that was cut off could still write: the fence is none")


def _take_over(rbd: Any, ioctx: Any, name: str, first: bytes) -> float:
    began = time.monotonic()
    with rbd.Image(ioctx, name) as image:
        image.write(b"\x01" * BLOCK_BYTES, BLOCK_BYTES)
        image.flush()
        if image.read(0, BLOCK_BYTES) != first:
            raise FenceFailed("the next client does not find what the first one has written")
    return time.monotonic() - began


def _clear_up(blocklist: Blocklist, rbd: Any, ioctx: Any, name: str, entry: str) -> None:
    if entry:
        # When this user may not, that is what the drill is to show.
        blocklist.lift(lambda one, until: one == entry)
    with contextlib.suppress(rbd.ImageNotFound):
        rbd.RBD().remove(ioctx, name)
