"""connect(uri): the only file that knows the drivers and everything else.

Drivers are imported when they are first needed, so that `import vorch` and all of memory: work
where neither libvirt nor Ceph is installed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import getpass
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar
from urllib.parse import unquote, urlsplit

from vorch import config
from vorch.aside import side_by_side
from vorch.codec import decode
from vorch.config import Settings
from vorch.drivers.audit_log import audit_log
from vorch.drivers.history import FileHistory
from vorch.drivers.passwords import Argon2Passwords
from vorch.drivers.state_copy import StateCopy, check_in_use, copy_documents, reopen
from vorch.drivers.timed_state import Observer, TimedState
from vorch.drivers.uploads import FolderUploads
from vorch.errors import BadConfig, NotFound, VorchError
from vorch.execute import Hook, Watcher
from vorch.model import Cluster, Node, Pool
from vorch.orchestrator import Orchestrator
from vorch.ports import (
    Fencer,
    Hypervisor,
    Images,
    PowerSwitch,
    State,
    Witness,
    World,
)

T = TypeVar("T")


def connect(
    uri: str | None = None,
    *,
    settings: Settings | None = None,
    watch: Watcher | None = None,
    hook: Hook | None = None,
    recover: bool = True,
    prepare: bool = True,
    observe: Observer | None = None,
    token: str | None = None,
    ca: str | None = None,
) -> Orchestrator:
    """The cluster whose state is at `uri`: memory:, sqlite:///path/to/vorch.db, or rados://POOL.

    Or one that a service stands before, with `token`: https://HOST:PORT. `ca` is the file with the
    certificate that it is to be trusted by.

    Without a URI: VORCH_URI, then vorch.toml, then the embedded cluster of this machine. A file
    that is empty is made an embedded cluster of this host. What earlier processes left unfinished
    is finished or undone first, unless `recover` is False; a store is left as empty as it is when
    `prepare` is False. `observe` is told what the store was asked, how long its answer took, and
    whether there was one.
    """
    settings = settings or config.load(uri)
    if uri is not None and uri != settings.uri:
        settings = dataclasses.replace(settings, uri=uri)
    if settings.uri.partition(":")[0] in ("http", "https"):
        from vorch.remote import RemoteOrchestrator, link_to

        link = link_to(settings.uri, settings, token=token, ca=ca)
        return RemoteOrchestrator(link, settings, watch=watch)
    world, make_cluster = _world(settings)
    if observe is not None:
        world = dataclasses.replace(world, state=TimedState(world.state, observe))
    world = dataclasses.replace(world, uploads=_uploads(settings), past=_past(settings))
    orchestrator = Orchestrator(world, settings, watch=watch, hook=hook)
    try:
        check_in_use(world.state, settings.uri)
        if prepare:
            make_cluster(orchestrator)
        if recover:
            orchestrator.recover(force=False)
            # Emptying the trash is not what the caller came for, so it does not fail for it.
            with contextlib.suppress(VorchError):
                orchestrator.trash_purge()
    except BaseException:
        orchestrator.close()
        raise
    return orchestrator


def _world(settings: Settings) -> tuple[World, Callable[[Orchestrator], None]]:
    scheme = settings.uri.partition(":")[0]
    if scheme not in _WORLDS:
        raise BadConfig(
            f"cannot connect to {settings.uri!r}: {scheme!r} is not a kind of store that vorch"
            " knows; use memory:, sqlite:///path/to/vorch.db, rados://POOL or https://SERVICE"
        )
    world, make_cluster = _WORLDS[scheme](settings)
    passwords = Argon2Passwords(
        memory_mib=settings.password_memory_mib, rounds=settings.password_rounds
    )
    audit = audit_log(settings.audit_log)
    return dataclasses.replace(world, passwords=passwords, audit=audit), make_cluster


def _here(settings: Settings) -> Path:
    """Where this machine keeps its own: beside a state that is a file, or where that would be."""
    uri = settings.uri if settings.uri.startswith("sqlite:") else config.default_uri()
    return state_path(uri).parent


def _past(settings: Settings) -> FileHistory:
    if settings.history_path:
        return FileHistory(Path(settings.history_path))
    of_this_process = settings.uri.startswith("memory:")
    return FileHistory(None if of_this_process else _here(settings) / "history.db")


def _uploads(settings: Settings) -> FolderUploads:
    folder = Path(settings.upload_path) if settings.upload_path else _here(settings) / "uploads"
    return FolderUploads(
        folder,
        limit_bytes=int(settings.upload_limit_gib * 1024**3),
        keep_s=settings.upload_keep_h * 3600,
    )


# ---------------------------------------------------------------------------------------------
# Moving house: on stores rather than on a cluster


def copy_state(
    source: str, target: str, *, force: bool = False, settings: Settings | None = None
) -> StateCopy:
    """Move a cluster's documents to another store, and mark the old one as left.

    Refused (`Conflict`) while a task is at work, or when the target is not empty; with `force`
    what is in the target is deleted.
    """
    with _store(source, settings) as old, _store(target, settings, new=True) as new:
        return copy_documents(old, new, source_uri=source, target_uri=target, force=force)


def reopen_state(uri: str, *, settings: Settings | None = None) -> None:
    """Take back that a store was left, without copying anything back into it."""
    with _store(uri, settings) as state:
        reopen(state, uri)


@contextlib.contextmanager
def _store(uri: str, settings: Settings | None, *, new: bool = False) -> Iterator[State]:
    settings = dataclasses.replace(settings or config.load(uri), uri=uri)
    if not new:
        _need_store(uri)
    world, _ = _world(settings)
    try:
        yield world.state
    finally:
        world.close()


def _need_store(uri: str) -> None:
    """Opening a file that is not there would make it."""
    if uri.startswith("sqlite:") and not state_path(uri).exists():
        raise NotFound(f"cannot open {uri!r}: there is no such file; see that it is the right one")


# ---------------------------------------------------------------------------------------------
# sqlite: one machine, its libvirt, a folder of disks


def _sqlite_world(settings: Settings) -> tuple[World, Callable[[Orchestrator], None]]:
    from vorch.drivers.sqlite import SqliteState

    path = state_path(settings.uri)
    state = SqliteState(path)

    def prepare(orchestrator: Orchestrator) -> None:
        if not state.read(["node"]) or not state.read(["pool"]):
            # Without a network it is a cluster, too: libvirt may not run yet, and `doctor` says so.
            with contextlib.suppress(VorchError):
                orchestrator.init(
                    node=this_host(),
                    hypervisor_uri=settings.hypervisor_uri,
                    pool_url=f"dir://{settings.pool_path or path.parent / 'disks'}",
                )

    return _real_world(state, settings), prepare


def _real_world(state: State, settings: Settings) -> World:
    """Hosts and pools as the documents in the store name them, and this machine's clock."""
    from vorch.drivers.media import IsoMedia
    from vorch.drivers.own_files import OwnFiles
    from vorch.drivers.process import LocalProcesses, SystemClock, system_chance

    hosts = _Kept(lambda name: _node(state, name), lambda node: _hypervisor(node, settings))
    pools = _Kept(lambda name: _pool(state, name), lambda pool: _images(pool, settings))

    def seen(cluster: Cluster) -> None:
        hosts.see(cluster.nodes)
        pools.see(cluster.pools)

    witness, fencers, end = _high_availability(state, settings)
    others = _Others(settings)

    def close() -> None:
        others.close()
        # Side by side: each may be one that hangs.
        side_by_side(lambda host: host.close(), hosts.made(), most=64)
        for pool in pools.made():
            pool.close()
        end()
        state.close()

    return World(
        state=state,
        hypervisor=hosts,
        images=pools,
        new_host=lambda node: _hypervisor(node, settings),
        new_pool=lambda pool: _images(pool, settings),
        power_switch=_power_switch,
        seen=seen,
        media=IsoMedia(),
        files=OwnFiles(),
        clock=SystemClock(),
        chance=system_chance(),
        processes=LocalProcesses(),
        who=_who(),
        threads=True,
        close=close,
        other=others,
        witness=witness,
        fencers=fencers,
    )


def _high_availability(
    state: State, settings: Settings
) -> tuple[Witness, tuple[Fencer, ...], Callable[[], None]]:
    """What shows hosts and what ends them. Nothing is connected before it is asked."""
    from vorch.drivers.fence_command import CommandFencer
    from vorch.drivers.fence_power import PowerFencer
    from vorch.drivers.fence_storage import StorageFencer
    from vorch.drivers.witness import HostWitness

    def pools() -> dict[str, Pool]:
        return {one.name: decode(Pool, one.body) for one in state.read(["pool"]).values()}

    def nodes() -> dict[str, Node]:
        return {one.name: decode(Node, one.body) for one in state.read(["node"]).values()}

    def switch(node: Node) -> PowerSwitch:
        secret = state.get(f"secret/bmc.{node.name}")
        return _power_switch(node, "" if secret is None else str(secret.body["password"]))

    witness = HostWitness(
        pools,
        lambda node, timeout_s: power.read(node, timeout_s),
        answer_s=settings.ha_answer_s,
        storage_knock_port=settings.storage_knock_port,
    )
    storage = StorageFencer(
        pools,
        nodes,
        timeout_s=settings.storage_fence_timeout_s,
        shared=settings.storage_fence_shared,
    )
    power = PowerFencer(switch, witness.knock, timeout_s=settings.power_fence_timeout_s)
    fencers: list[Fencer] = [storage, power]
    if settings.fence_command:
        timeout_s = settings.fence_command_timeout_s
        fencers.append(CommandFencer(settings.fence_command, timeout_s=timeout_s))

    def close() -> None:
        witness.close()
        storage.close()

    return witness, tuple(fencers), close


def state_path(uri: str) -> Path:
    """The file that a sqlite: URI names. Only absolute paths: a service has no current folder."""
    parts = urlsplit(uri)
    path = unquote(parts.path)
    if parts.netloc or not path.startswith("/") or path.endswith("/") or parts.query:
        raise BadConfig(
            f"cannot connect to {uri!r}: it must name a file by its whole path, as in"
            " sqlite:///var/lib/vorch/vorch.db"
        )
    return Path(os.path.normpath("/" + path.lstrip("/")))


class _Others:
    """Other clusters that this process has to do with, by their URIs."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._made: dict[str, World] = {}
        self._lock = threading.Lock()

    def __call__(self, uri: str) -> World:
        with self._lock:
            if uri not in self._made:
                self._made[uri] = self._new(uri)
            return self._made[uri]

    def _new(self, uri: str) -> World:
        _need_store(uri)
        world, _ = _world(dataclasses.replace(self._settings, uri=uri))
        try:
            check_in_use(world.state, uri)
        except BaseException:
            world.close()
            raise
        return world

    def close(self) -> None:
        with self._lock:
            for world in self._made.values():
                world.close()
            self._made.clear()


class _Kept(Generic[T]):
    """Makes a driver when it is first asked for, and keeps it while its place is the same.

    One that was removed and added anew under its name may be elsewhere now. A driver of the old
    place may still be in use by another thread, so it is closed with all others only.
    """

    def __init__(self, place: Callable[[str], Any], make: Callable[[Any], T]) -> None:
        self._place = place
        self._make = make
        self._made: dict[str, tuple[str, T]] = {}
        self._old: list[T] = []
        self._lock = threading.Lock()

    def __call__(self, name: str) -> T:
        with self._lock:
            kept = self._made.get(name)
            if kept is None:
                return self._new(name)
            return kept[1]

    def _new(self, name: str) -> T:
        document = self._place(name)
        made = self._make(document)
        self._made[name] = (_where(document), made)
        return made

    def see(self, there: Mapping[str, Any]) -> None:
        """What the store says now: drivers of other places are of no use any more."""
        with self._lock:
            for name, (place, driver) in list(self._made.items()):
                if name not in there or _where(there[name]) != place:
                    del self._made[name]
                    self._old.append(driver)

    def made(self) -> tuple[T, ...]:
        with self._lock:
            return (*self._old, *(driver for _, driver in self._made.values()))


def _where(document: Node | Pool) -> str:
    return f"{document.uri} {document.ssh}" if isinstance(document, Node) else document.url


def _node(state: State, name: str) -> Node:
    document = state.get(f"node/{name}")
    if document is None:
        raise NotFound(f"cannot find node {name!r}: the store knows none of that name", node=name)
    return decode(Node, document.body)


def _pool(state: State, name: str) -> Pool:
    document = state.get(f"pool/{name}")
    if document is None:
        raise NotFound(f"cannot find pool {name!r}: the store knows none of that name", pool=name)
    return decode(Pool, document.body)


def _hypervisor(node: Node, settings: Settings) -> Hypervisor:
    if node.uri.startswith("qemu"):
        from vorch.drivers.kvm import KvmHost

        return KvmHost(node, timeout_s=settings.host_timeout_s)
    if node.uri.startswith("xen"):
        from vorch.drivers.xen import XenHost

        return XenHost(node, timeout_s=settings.host_timeout_s)
    raise BadConfig(
        f"cannot use host {node.name!r} at {node.uri!r}: vorch has no driver for that kind of URI;"
        " use qemu:///system, qemu:///session, qemu+tls://HOST/system or xen+tls://HOST/system"
    )


def _power_switch(node: Node, password: str) -> PowerSwitch:
    if node.bmc.startswith("redfish+https:"):
        from vorch.drivers.bmc_redfish import RedfishSwitch

        return RedfishSwitch(node.name, node.bmc, password)
    if node.bmc.startswith("ipmi:"):
        from vorch.drivers.bmc_ipmi import IpmiSwitch

        return IpmiSwitch(node.name, node.bmc, password)
    raise BadConfig(
        f"cannot switch the power of {node.name!r}: it has no BMC that vorch knows; name one (vorch"
        " node change --bmc)",
        node=node.name,
    )


def _images(pool: Pool, settings: Settings) -> Images:
    scheme, _, path = pool.url.partition("://")
    if scheme == "dir":
        from vorch.drivers.local import LocalImages

        return LocalImages(pool.name, Path(path))
    if scheme == "rbd":
        from vorch.drivers.rbd_images import RbdImages

        return RbdImages(pool.name, pool.url, timeout_s=settings.ceph_timeout_s)
    raise BadConfig(
        f"cannot use pool {pool.name!r} at {pool.url!r}: vorch has no driver for that kind of URL;"
        " use dir:///path, or rbd://POOL?conf=/etc/ceph/ceph.conf&id=USER"
    )


def this_host() -> str:
    """This machine's name as a node name."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname().split(".")[0]).strip("-._")
    return plain[:63] or "host"


def _who() -> str:
    try:
        name = os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        name = str(os.geteuid())
    return f"{name}@{this_host()}"


# ---------------------------------------------------------------------------------------------
# rados: many machines; hosts and pools are added one by one


def _rados_world(settings: Settings) -> tuple[World, Callable[[Orchestrator], None]]:
    from vorch.drivers.rados_connection import ceph_address
    from vorch.drivers.rados_state import DEFAULT_NAMESPACE, RadosState

    address = ceph_address(settings.uri, namespace=DEFAULT_NAMESPACE)
    state = RadosState(
        address.pool,
        address.namespace,
        conf=address.conf,
        user=address.user,
        timeout_s=settings.ceph_timeout_s,
    )
    return _real_world(state, settings), lambda orchestrator: None


# ---------------------------------------------------------------------------------------------
# memory: a whole world in this process, for trying things and for tests


def _memory_world(settings: Settings) -> tuple[World, Callable[[Orchestrator], None]]:
    from vorch.drivers.memory import world_named

    name = settings.uri.partition(":")[2]
    return world_named(name).connection()


_WORLDS: dict[str, Callable[[Settings], tuple[World, Callable[[Orchestrator], None]]]] = {
    "memory": _memory_world,
    "rados": _rados_world,
    "sqlite": _sqlite_world,
}
