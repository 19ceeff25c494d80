"""A cluster on a lab with VMs that write, and `vorch serve` processes that watch over them."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import libvirt

from tests.lab import bare
from tests.lab.acks import Acks
from tests.lab.clusters import cluster_on, disk_of, import_writer, slow_down
from vorch import Orchestrator
from vorch.availability import (
    HaPolicy,
    HaVm,
    HostOrder,
    NodeRecord,
    NodeState,
    Requested,
    VmRecord,
    VmState,
)
from vorch.codec import decode, encode
from vorch.errors import Unreachable, VorchError
from vorch.lab import CEPH_USER, Lab, verify_disk
from vorch.ports import Change

# Ten times what it takes on an idle machine.
TIMEOUT_S = 600.0
# What `vorch serve` grants at most: requests, jobs, its upkeep and the watch 25 s, tasks 30 s.
ENDS_S = 90.0
_STARTING_UP = re.compile(r"^(\S+ \S+): starting up libvirt", re.MULTILINE)


class Watcher:
    """One `vorch serve` process. `home`: the host that it runs on; else it runs beside them."""

    def __init__(self, lab: Lab, uri: str, config: Path, log: Path, home: str = "") -> None:
        self.home = home
        self.log = log
        words: Sequence[str] = [
            *(sys.executable, "-m", "vorch_cli", "--uri", uri, "serve", "--watch-only")
        ]
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                lab.command(home, words) if home else words,
                env={
                    **os.environ,
                    "VORCH_CONFIG": str(config),
                    "PYTHONUNBUFFERED": "1",
                    # What each thread is at, where it has to be aborted.
                    "PYTHONFAULTHANDLER": "1",
                },
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def said_last(self, what: str) -> int:
        """Where in its log it has last said so; -1 for never."""
        return self.said().rfind(what)

    @property
    def leads(self) -> bool:
        return self.said_last("this vorch leads") > self.said_last("this vorch stands by")

    def pause(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def end(self) -> int:
        """In good order; its exit status."""
        with contextlib.suppress(ProcessLookupError):
            self.go_on()
            self.process.terminate()
        try:
            return self.process.wait(ENDS_S)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)
            self.process.wait()
            raise AssertionError(
                f"vorch serve did not end in {ENDS_S:g} s:\n{self.said()[-12000:]}"
            ) from None


class Watched:
    """What the tests of failovers hold."""

    def __init__(self, lab: Lab, cluster: Orchestrator, acks: Acks, folder: Path) -> None:
        self.lab = lab
        self.cluster = cluster
        self.acks = acks
        self.folder = folder
        # Where hosts see it, too: each has a /tmp of its own.
        self.config = lab.spec.folder / "vorch.toml"
        waits = f"host_timeout_s = {cluster.settings.host_timeout_s}\n"
        self.config.write_text(f"ceph_timeout_s = 10.0\n{waits}")
        self.watchers: list[Watcher] = []
        self.memory_mib = import_writer(cluster)
        # One record a second: there are many of them, and two cores.
        slow_down(lab, cluster, 1)

    # -- VMs

    def create(self, names: Sequence[str], node: str, **settings: Any) -> None:
        """VMs that write on that host, looked after, and their first writes confirmed."""
        before = {ack.boot for ack in self.acks.all()}
        for name in names:
            self.cluster.create(
                name,
                image="writer",
                memory_mib=self.memory_mib,
                networks=("lan",),
                node=node,
                start=True,
            )
            self.look_after(HaVm(vm=name, **settings))
        self.await_new(before, len(names))

    def await_new(self, before: set[str], count: int) -> None:
        """So many guests have begun to write that had not been there before."""
        bare.eventually(
            lambda: len({ack.boot for ack in self.acks.all()} - before) >= count,
            f"{count} guests write that did not before\n{self.logs()}",
            TIMEOUT_S,
        )

    def boots(self) -> set[str]:
        return {ack.boot for ack in self.acks.all()}

    def look_after(self, settings: HaVm) -> None:
        self.put(f"ha/{settings.vm}", settings)

    def order(self, order: HostOrder) -> None:
        self.put(f"order/{order.node}", order)

    def policy(self, policy: HaPolicy) -> None:
        self.put("policy/ha", policy)

    def put(self, key: str, value: object) -> None:
        self.cluster.world.state.commit([Change(key, None, encode(value))])

    # -- watchers

    def vorch(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "vorch_cli", "--uri", self.cluster.settings.uri, *words]

    @staticmethod
    def environment(config: Path) -> dict[str, str]:
        return {**os.environ, "VORCH_CONFIG": str(config)}

    def serve(self, home: str = "", name: str = "") -> Watcher:
        name = name or f"vorch{len(self.watchers) + 1}"
        log = self.folder / f"{name}.log"
        watcher = Watcher(self.lab, self.cluster.settings.uri, self.config, log, home)
        self.watchers.append(watcher)
        return watcher

    def leader(self) -> Watcher:
        def one() -> Watcher | None:
            ends = [w.process.poll() for w in self.watchers]
            assert None in ends, f"all have ended, with status {ends}"
            return next((w for w in self.watchers if w.process.poll() is None and w.leads), None)

        found: Watcher = self.eventually(one, "one of them leads")
        return found

    def reap(self) -> None:
        """Those that have ended, however it was."""
        self.watchers = [one for one in self.watchers if one.process.poll() is None]

    def stop_watching(self) -> None:
        for watcher in self.watchers:
            watcher.end()
        self.watchers.clear()

    def logs(self) -> str:
        return "\n".join(f"== {one.log.name}\n{one.said()[-6000:]}" for one in self.watchers)

    # -- what is to be seen

    def eventually(self, look: Callable[[], Any], what: str) -> Any:
        """Without what Ceph does not answer meanwhile: with its OSDs on hosts it needs a while."""

        def answered() -> Any:
            with contextlib.suppress(Unreachable):
                return look()
            return None

        try:
            return bare.eventually(answered, what, TIMEOUT_S)
        except AssertionError as exc:
            raise AssertionError(f"{exc}\n{self.logs()}\n{self.lab.status()}") from None

    def nodes(self) -> Mapping[str, NodeRecord]:
        found = self.cluster.world.state.read(["hanode"]).values()
        return {one.name: decode(NodeRecord, one.body) for one in found}

    def vms(self) -> Mapping[str, VmRecord]:
        found = self.cluster.world.state.read(["havm"]).values()
        return {one.name: decode(VmRecord, one.body) for one in found}

    def state_of(self, host: str) -> NodeState | None:
        record = self.nodes().get(host)
        return None if record is None else record.state

    def await_state(self, host: str, *states: NodeState) -> None:
        self.eventually(lambda: self.state_of(host) in states, f"{host} is {' or '.join(states)}")

    def await_all_online(self) -> None:
        for host in self.lab.spec.host_names:
            self.await_state(host, NodeState.ONLINE)

    def await_running(self, names: Sequence[str], *, off: Sequence[str] = ()) -> None:
        """All run by vorch's own word, on hosts other than `off`, with no plan left."""

        def they_do() -> bool:
            records, look = self.vms(), self.cluster.look()
            return all(
                name in records
                and records[name].state is VmState.RUNNING
                and look.vm(name).node not in off
                for name in names
            ) and not self.cluster.world.state.read(["plan"])

        self.eventually(they_do, f"{', '.join(names)} run elsewhere than on {off}")

    def on_hosts(self) -> dict[str, list[str]]:
        """Where libvirt itself says that each VM is; hosts that do not answer say nothing."""
        found: dict[str, list[str]] = {}
        for host in self.lab.spec.host_names:
            with contextlib.suppress(libvirt.libvirtError):
                row = next(one for one in self.lab.status().hosts if one.name == host)
                for name in row.vms:
                    found.setdefault(name, []).append(host)
        return found

    def await_way(self, name: str, source: str) -> None:
        """Until its memory is really on its way from there."""

        def under_way() -> bool:
            with bare.connected(self.lab, source) as connection:
                return int(connection.lookupByName(name).jobStats().get("data_processed", 0)) > 0

        self.eventually(under_way, f"{name} is on its way")

    def requested_at(self, names: Sequence[str], after: float) -> dict[str, float]:
        """When a libvirt was last told to start each, by the clock of QEMU's log."""
        found: dict[str, float] = {}
        for host in self.lab.spec.host_names:
            for name in names:
                path = self.lab.spec.host_folder(host) / f"disk/var/log/libvirt/qemu/{name}.log"
                if not path.exists():
                    continue
                for stamp in _STARTING_UP.findall(path.read_text(errors="replace")):
                    at = datetime.strptime(stamp, "%Y-%m-%d %H:%M:%S.%f%z").astimezone(UTC)
                    if at.timestamp() > max(after, found.get(name, 0.0)):
                        found[name] = at.timestamp()
        return found

    # -- the end

    def check_disks(self, names: Sequence[str]) -> None:
        """One writer at a time on each disk, and nothing that was confirmed to it is lost."""
        disks = {name: disk_of(self.cluster, name) for name in names}
        for name in names:
            self.look_after(HaVm(vm=name, requested=Requested.IGNORED))
            with contextlib.suppress(Exception):
                self.cluster.stop(name, force=True, wait_s=60)
        told: set[str] = set()
        options: dict[str, Any] = {"conf": self.lab.spec.ceph_conf, "user": CEPH_USER}
        for name, disk in disks.items():
            epochs = verify_disk(disk, **options).epochs
            boots = {epoch.boot for epoch in epochs}
            told |= boots
            verdict = verify_disk(disk, acks=self.acks.of(boots), **options)
            assert verdict.ok, (name, verdict.findings)
            assert verdict.acks >= 2, name
        # A boot that had something confirmed, of which no disk knows, has lost all of it.
        assert self.boots() <= told, self.boots() - told


@contextlib.contextmanager
def watched_on(lab: Lab, folder: Path, *, host_timeout_s: float = 10.0) -> Iterator[Watched]:
    acks = Acks(lab.spec.own_management)
    try:
        with cluster_on(lab, host_timeout_s=host_timeout_s) as cluster:
            for host in lab.spec.host_names:
                cluster.node_change(host, storage_address=lab.spec.storage_address(host))
            found = Watched(lab, cluster, acks, folder)
            try:
                yield found
            finally:
                found.stop_watching()
    except BaseException:
        # What runs there would take the time of all tests to come.
        with contextlib.suppress(VorchError):
            lab.reset()
        raise
    finally:
        acks.close()
