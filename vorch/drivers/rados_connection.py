"""Reach a Ceph cluster through librados: one connection a process, bounded waits, one error table.

    cluster = kept_cluster("/etc/ceph/ceph.conf", "vorch", timeout_s=60)
    with translated("read pool 'vms'"):
        cluster.ioctx("vms").read("object")
    cluster.release()

librados waits for ever by default. Here each operation on an OSD, each question to a monitor and
the first contact end after `timeout_s` with ETIMEDOUT, which the table calls `Unreachable`.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import math
import os
import sys
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from vorch.errors import (
    BadConfig,
    Conflict,
    Denied,
    Invalid,
    NoRoom,
    NotFound,
    Unreachable,
    Unsupported,
    VorchError,
)

DEFAULT_CONF = "/etc/ceph/ceph.conf"
DEFAULT_USER = "admin"

# An OSD that dies is noticed after some 20 s, and its placement groups go on a few seconds later:
# a shorter time would make an error of every such failover.
TIMEOUT_S = 60.0

# librados counts these in whole seconds; 0 would mean to wait for ever.
SHORTEST_TIMEOUT_S = 1.0
_TIMEOUT_OPTIONS = ("rados_osd_op_timeout", "rados_mon_op_timeout", "client_mount_timeout")
# When librados asks the monitors where the OSDs are now, because one is silent: this often, for
# operations that are this old. With a short timeout its own 5 s and 10 s would never be reached,
# and it would go on asking OSDs at addresses that they had before an outage.
_MAP_OPTIONS = {"objecter_tick_interval": 5.0, "objecter_timeout": 10.0}

# Whoever closes a connection waits so long for other threads that are still in a call on it.
LAST_CALLS_S = 5.0
LAST_CALLS_POLL_S = 0.01

# ---------------------------------------------------------------------------------------------
# Addresses


@dataclass(frozen=True, slots=True)
class CephAddress:
    """What SCHEME://POOL[/NAMESPACE][?conf=PATH&id=USER] says."""

    pool: str
    namespace: str
    conf: str
    user: str


def ceph_address(uri: str, *, namespace: str = "") -> CephAddress:
    """The parts of a rados: or rbd: URI; `namespace` is what it has when it names none."""
    parts = urlsplit(uri)
    pool, path = unquote(parts.netloc), unquote(parts.path).strip("/")
    options = parse_qsl(parts.query, keep_blank_values=True)
    known = dict(options)
    sound = (
        pool
        and (pool + path).isprintable()
        and "/" not in path
        and len(known) == len(options)
        and known.keys() <= {"conf", "id"}
        and all(known.values())
        and not parts.fragment
    )
    if not sound:
        raise BadConfig(
            f"cannot use {uri!r}: it must name a pool and may name a namespace, a configuration and"
            f" a user, as in {parts.scheme or 'rados'}://POOL/NAMESPACE?conf={DEFAULT_CONF}&id=vorch"
        )
    conf = known.get("conf", DEFAULT_CONF)
    if not conf.startswith("/"):
        raise BadConfig(
            f"cannot use {uri!r}: conf must be a whole path, since a service has no current folder"
        )
    return CephAddress(pool, path or namespace, conf, known.get("id", DEFAULT_USER))


# ---------------------------------------------------------------------------------------------
# Ceph's errors in vorch's words. librados and librbd use the same numbers.

_SILENT = "Ceph did not answer in time; look at `ceph status`, and at the network to it"
_GONE = "the connection to Ceph broke; look at `ceph status`, and at the network to it"
_CAPS = "this Ceph user may not do that; give it the caps (`ceph auth caps`), or use another user"

_TABLE: dict[int, tuple[type[VorchError], str]] = {
    errno.ETIMEDOUT: (Unreachable, _SILENT),
    errno.ENOTCONN: (Unreachable, _GONE),
    errno.ECONNREFUSED: (Unreachable, _GONE),
    errno.ECONNRESET: (Unreachable, _GONE),
    errno.ECONNABORTED: (Unreachable, _GONE),
    errno.EHOSTUNREACH: (Unreachable, _GONE),
    errno.ENETUNREACH: (Unreachable, _GONE),
    errno.EPIPE: (Unreachable, _GONE),
    errno.EINTR: (Unreachable, "it was interrupted; try again"),
    errno.EAGAIN: (Unreachable, "Ceph is not ready for it now; try again"),
    errno.EIO: (
        Unreachable,
        "Ceph cannot read or write its disks; look at `ceph health detail`",
    ),
    # How a client learns that it was fenced.
    errno.ESHUTDOWN: (
        Unreachable,
        "Ceph refuses this client, which was put on its blocklist; if this host is not meant to be"
        " fenced, look at `ceph osd blocklist ls`",
    ),
    errno.ENOENT: (NotFound, "there is none of that name; look at `ceph osd pool ls`"),
    errno.ENODATA: (NotFound, "it is not there"),
    errno.EACCES: (Denied, _CAPS),
    errno.EPERM: (Denied, _CAPS),
    errno.EEXIST: (Conflict, "it is there already"),
    errno.EBUSY: (Conflict, "something uses it; stop that first"),
    errno.ECANCELED: (Conflict, "somebody else changed it meanwhile; look again"),
    errno.ENOTEMPTY: (Conflict, "something still hangs on it; remove that first"),
    errno.ENOSPC: (NoRoom, "the pool or the cluster is full; look at `ceph df`"),
    errno.EDQUOT: (NoRoom, "the quota of the pool is used up; look at `ceph df`"),
    errno.ENOMEM: (NoRoom, "there is no memory left; make room and try again"),
    errno.EINVAL: (Invalid, "Ceph finds it invalid"),
    errno.EMSGSIZE: (Invalid, "it is more than Ceph takes in one write (osd_max_write_size)"),
    errno.E2BIG: (Invalid, "it is too large for Ceph"),
    errno.EFBIG: (Invalid, "it is too large for Ceph"),
    errno.ENAMETOOLONG: (Invalid, "the name is too long for Ceph; choose a shorter one"),
    errno.ERANGE: (Invalid, "a number in it is out of range"),
    errno.EDOM: (Invalid, "it is out of Ceph's range"),
    errno.EOPNOTSUPP: (Unsupported, "this Ceph cannot do it"),
    errno.ENOSYS: (Unsupported, "this Ceph cannot do it"),
    # librbd says so also of a lock that it asked for in vain because nobody answered.
    errno.EROFS: (
        Unreachable,
        "its lock was not to be had; look at `ceph status`, and for another client that holds it",
    ),
}


def translate(what: str, exc: BaseException, **fields: Any) -> VorchError:
    """The error to raise, `from exc`, when `what` could not be done. For rados and rbd errors."""
    number = abs(getattr(exc, "errno", None) or 0)
    kind, remedy = _TABLE.get(
        number, (Unreachable, "Ceph failed in an unexpected way; look at `ceph status`")
    )
    return kind(f"cannot {what}: {remedy} (Ceph: {exc})", errno=number, **fields)


@contextlib.contextmanager
def translated(what: str, **fields: Any) -> Iterator[None]:
    """Within it, a `rados.Error` becomes the `VorchError` that the table says."""
    import rados

    try:
        yield
    except rados.Error as exc:
        raise translate(what, exc, **fields) from exc


# ---------------------------------------------------------------------------------------------
# Connections


class RadosCluster:
    """One Ceph cluster as one user. Connects when it is first used; threads share it."""

    def __init__(self, conf: str, user: str, timeout_s: float) -> None:
        self.conf = conf
        self.user = user
        self.timeout_s = timeout_s
        # Counts connections: what hangs on an older one is of no use any more.
        self.generation = 0
        # Something was once not answered: what was asked for may have been done all the same.
        self.failed = False
        self._lock = threading.RLock()
        self._users = 0
        self._cluster: Any = None
        self._ioctxs: dict[tuple[str, str], Any] = {}
        _clusters.add(self)

    def __str__(self) -> str:
        return f"client.{self.user} of '{self.conf}'"

    def handle(self) -> Any:
        """The `rados.Rados`, connected: for monitor commands and librbd."""
        with self._lock:
            if self._cluster is None:
                self._cluster = self._connected()
            return self._cluster

    def ioctx(self, pool: str, namespace: str = "") -> Any:
        """The `rados.Ioctx`, kept. All threads share it, so nothing on it may be set."""
        with self._lock:
            found = self._ioctxs.get((pool, namespace))
            if found is None:
                with translated(f"open pool {pool!r} as {self}", pool=pool):
                    found = self.handle().open_ioctx(pool)
                    found.set_namespace(namespace)
                self._ioctxs[(pool, namespace)] = found
            return found

    def forget(self, pool: str) -> None:
        """What is kept of it: the next use looks it up by its name."""
        with self._lock:
            for place in [place for place in self._ioctxs if place[0] == pool]:
                abandon(self._ioctxs.pop(place))

    def drop(self, generation: int) -> None:
        """Give up a connection that is of no use any more (blocklisted); the next use makes one.

        It is not taken apart, because other threads may be waiting in it.
        """
        with self._lock:
            if generation == self.generation:
                self._abandon()

    def release(self) -> None:
        """As often as it was got from `kept_cluster`. The last one ends the connection."""
        with _keeping:
            self._users -= 1
            if self._users > 0:
                return
            _kept.pop((self.conf, self.user, self.timeout_s), None)
        with self._lock:
            self._shut_down()

    def close(self) -> None:
        """End a connection that was not got from `kept_cluster`, and so is nobody else's."""
        with self._lock:
            self._shut_down()

    def _connected(self) -> Any:
        try:
            import rados
        except ImportError as exc:
            raise BadConfig(
                "cannot use Ceph: the Python module 'rados' is not there; install the"
                " distribution's python3-rados (and python3-rbd)"
            ) from exc
        conf = Path(self.conf)
        try:
            # librados tells of a file that it cannot read as of one with a mistake in it.
            conf.read_bytes()
        except OSError as exc:
            raise BadConfig(
                f"cannot use Ceph: its configuration '{conf}' cannot be read ({exc.strerror});"
                " name the right file with conf=",
                conf=self.conf,
            ) from exc
        what = f"connect to Ceph as {self}"
        cluster: Any = None
        try:
            cluster = rados.Rados(conffile=self.conf, rados_id=self.user)
            for option in _TIMEOUT_OPTIONS:
                cluster.conf_set(option, str(math.ceil(self.timeout_s)))
            for option, longest_s in _MAP_OPTIONS.items():
                cluster.conf_set(option, str(min(longest_s, self.timeout_s / 4)))
            # Of librbd, whose cache loses errors: docs/adr/0029.
            cluster.conf_set("rbd_cache", "false")
            cluster.connect()
        except rados.Error as exc:
            if cluster is not None:
                cluster.shutdown()
            number = abs(getattr(exc, "errno", None) or 0)
            if number in (errno.ENOENT, errno.EINVAL):
                raise BadConfig(
                    f"cannot {what}: the file, or the keyring that it names, is not complete"
                    f" ({exc}); it needs fsid, mon host and the keyring of client.{self.user}",
                    conf=self.conf,
                ) from exc
            raise translate(what, exc, conf=self.conf) from exc
        return cluster

    def _shut_down(self) -> None:
        import rados

        ioctxs, self._ioctxs = self._ioctxs, {}
        cluster, self._cluster = self._cluster, None
        if cluster is None:
            return
        # Taken apart under a call that is still on its way, librados ends the whole process. Each
        # call has an end (`timeout_s`), but nobody who is done waits for so long.
        until = time.monotonic() + LAST_CALLS_S
        while (used := _in_use(cluster, ioctxs)) and time.monotonic() < until:
            time.sleep(LAST_CALLS_POLL_S)
        # The last callbacks come while it shuts down, and answer through the Ioctx that they came
        # for: freed before, they would bring the process down.
        for ioctx in ioctxs.values():
            abandon(ioctx)
        if used:
            abandon(cluster)
            return
        # What was acknowledged is on disks already.
        with contextlib.suppress(rados.Error):
            cluster.shutdown()

    def _abandon(self) -> None:
        for thing in (*self._ioctxs.values(), self._cluster):
            abandon(thing)
        self._ioctxs = {}
        self._cluster = None
        self.generation += 1

    def _forked(self) -> None:
        self._lock = threading.RLock()
        self._abandon()


_clusters: weakref.WeakSet[RadosCluster] = weakref.WeakSet()
_kept: dict[tuple[str, str, float], RadosCluster] = {}
_keeping = threading.Lock()


def kept_cluster(
    conf: str = DEFAULT_CONF, user: str = DEFAULT_USER, timeout_s: float = TIMEOUT_S
) -> RadosCluster:
    """The connection that all of this process share; `release` it when you are done."""
    if not SHORTEST_TIMEOUT_S <= timeout_s < float("inf"):
        raise BadConfig(
            f"cannot use Ceph with a timeout of {timeout_s} s: it must be at least"
            f" {SHORTEST_TIMEOUT_S:.0f} s (ceph_timeout_s)"
        )
    conf = str(Path(conf).absolute())
    with _keeping:
        cluster = _kept.get((conf, user, timeout_s))
        if cluster is None:
            cluster = _kept[(conf, user, timeout_s)] = RadosCluster(conf, user, timeout_s)
        cluster._users += 1
        return cluster


def _in_use(cluster: Any, ioctxs: Mapping[Any, Any]) -> bool:
    """Whether anybody but the caller still has one of these: a call on its way, an open image.

    Whoever is in a call has what he calls; an open image has its Ioctx, and a watch the cluster, as
    each Ioctx has. So it is enough to count who has one, beside those that are known: the caller's
    variable or table, the variable here, and the argument of `getrefcount`.
    """
    known = 3
    if any(sys.getrefcount(ioctx) > known for ioctx in ioctxs.values()):
        return True
    known += len(ioctxs)
    return sys.getrefcount(cluster) > known and sys.getrefcount(cluster) > known + _done(cluster)


def _done(cluster: Any) -> int:
    """How many Ioctx have it that are closed, which somebody's variable still holds."""
    return sum(
        type(one).__name__ == "Ioctx" and one.state == "closed" for one in gc.get_referrers(cluster)
    )


# ---------------------------------------------------------------------------------------------
# Forks. librados lives by its threads, which a fork does not copy: what was connected before is
# dead in the child, and even taking it apart would wait for ever for those threads.


def abandon(thing: Any) -> None:
    """Never free this object of librados: other threads, or the parent process, still have it."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def _after_fork_in_child() -> None:
    global _keeping
    _keeping = threading.Lock()
    for cluster in list(_clusters):
        cluster._forked()


os.register_at_fork(after_in_child=_after_fork_in_child)
