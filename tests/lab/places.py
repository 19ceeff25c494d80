"""A cluster on a lab with a VM that writes, looked at from outside while it moves."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import libvirt

import vorch
from tests.lab import bare
from tests.lab.acks import Acks
from tests.lab.clusters import cluster_on, verdict
from vorch import Orchestrator
from vorch.lab import Lab, guest

# Slow enough to meddle: the guest's memory takes several seconds then.
SLOW_MIB_S = 12
RUNNING, PAUSED = libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_PAUSED


# Other bytes each time: what is the same as before would not count as changed.
_LOAD = (
    "while :; do for c in a b c d; do head -c {bytes} /dev/zero | tr '\\0' $c >/m/x; done; done &"
)


class Place:
    """A cluster on the lab with one VM, `writer`, that writes; and the same seen past vorch."""

    def __init__(
        self, lab: Lab, cluster: Orchestrator, acks: Acks, folder: Path, pool: str
    ) -> None:
        self.lab = lab
        self.cluster = cluster
        self.acks = acks
        self.config = folder / "vorch.toml"
        self.settle(migration_bandwidth_mib_s=SLOW_MIB_S)
        image = guest.build("writer")
        self.login = (image.login, image.password)
        cluster.image_import("writer", str(image.path), pool=pool)
        cluster.create(
            "writer",
            image="writer",
            pool=pool,
            memory_mib=image.memory_mib,
            networks=("lan",),
            node="h1",
            start=True,
        )
        acks.await_more(5)

    def settle(self, **settings: float) -> None:
        """How vorch is set in the processes that `run` starts."""
        self.config.write_text("".join(f"{name} = {value}\n" for name, value in settings.items()))

    def slowly(self, **settings: float) -> Orchestrator:
        slow = vorch.Settings(
            uri=self.cluster.settings.uri, migration_bandwidth_mib_s=SLOW_MIB_S, ceph_timeout_s=20
        )
        return vorch.connect(settings=dataclasses.replace(slow, **settings))  # type: ignore[arg-type]

    def load(self, mib: int) -> None:
        """Have the guest change so much of its memory, over and over."""
        console = self.cluster.console("writer")
        name, password = self.login
        try:
            for prompt, words in (
                ("", ""),
                ("login:", name),
                ("assword", password),
                ("# ", "mkdir -p /m && mount -t tmpfs none /m"),
                ("# ", _LOAD.format(bytes=mib << 20)),
                ("# ", ""),
            ):
                said = b""
                deadline = time.monotonic() + bare.TIMEOUT_S
                while prompt.encode() not in said:
                    assert time.monotonic() < deadline, (prompt, said[-400:])
                    said += console.read(1.0)
                console.write(words.encode() + b"\n")
        finally:
            console.close()

    def seen(self) -> dict[str, int]:
        """State by host, of hosts that answer."""
        found = {}
        for host in self.lab.spec.host_names:
            try:
                with bare.connected(self.lab, host) as connection:
                    for domain in connection.listAllDomains():
                        found[host] = domain.state()[0]
            except libvirt.libvirtError:
                continue
        return found

    def recorded(self) -> str:
        return self.cluster.look().vm("writer").node

    def check_on(self, host: str) -> None:
        assert self.seen() == {host: RUNNING}
        assert self.recorded() == host
        self.acks.await_more(5)

    def run(self, *words: str) -> subprocess.Popen[str]:
        """vorch in a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "vorch_cli", "--uri", self.cluster.settings.uri, *words],
            env={**os.environ, "VORCH_CONFIG": str(self.config)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def await_way(self, source: str) -> None:
        """Until its memory is really on its way from there."""

        def under_way() -> bool:
            with bare.connected(self.lab, source) as connection:
                stats = connection.lookupByName("writer").jobStats()
                return int(stats.get("data_processed", 0)) > 0

        bare.eventually(under_way, "the migration is under way")

    def await_copies(self, source: str) -> None:
        """Until its disks are on their way from there."""

        def under_way() -> bool:
            with bare.connected(self.lab, source) as connection:
                return int(connection.lookupByName("writer").jobStats().get("type", 0)) > 0

        bare.eventually(under_way, "the copies are under way")

    def verify(self) -> None:
        """The disk tells that it had one writer at a time and lost nothing."""
        seen = verdict(self.lab, self.cluster, "writer", self.acks.all())
        assert seen.ok, seen.findings
        assert seen.acks >= 10


@contextmanager
def place_on(lab: Lab, folder: Path, *, apart: bool = False) -> Iterator[Place]:
    """`apart`: the VM's disk is in a folder of its host, pool `h1`, and h2 has one, too."""
    acks = Acks(lab.spec.own_management)
    # All hosts of a lab see the same files there, so it is for vorch to keep them apart.
    folders = {host: lab.spec.host_folder(host) / "vms" for host in ("h1", "h2")}
    try:
        with cluster_on(lab) as cluster:
            for host, path in folders.items():
                if apart:
                    path.mkdir()
                    cluster.pool_add(host, f"dir://{path}", node=host)
            place = Place(lab, cluster, acks, folder, "h1" if apart else "fast")
            try:
                yield place
            finally:
                for vm in cluster.look().vms:
                    with contextlib.suppress(vorch.VorchError):
                        cluster.stop(vm, force=True)
    finally:
        acks.close()
        for path in folders.values():
            shutil.rmtree(path, ignore_errors=True)


class Kept:
    """One place for several tests: to boot its guest anew takes longer than most of them.

    It is made anew when a test has left it so that it cannot be brought back to order.
    """

    def __init__(self, lab: Lab, folder: Path) -> None:
        self._lab = lab
        self._folder = folder
        self._open = contextlib.ExitStack()
        self._place: Place | None = None

    def ready(self) -> Place:
        """Every host on, and its VM writes on h1."""
        if self._place is None or not self._in_order(self._place):
            self.close()
            self._lab.reset()
            self._place = self._open.enter_context(place_on(self._lab, self._folder))
        return self._place

    def _in_order(self, place: Place) -> bool:
        try:
            self._lab.heal()
            place.settle(migration_bandwidth_mib_s=SLOW_MIB_S)
            place.cluster.recover()
            seen = place.seen()
            if not seen:
                if place.recorded() != "h1":
                    place.cluster.relocate("writer", "h1")
                place.cluster.start("writer")
            elif PAUSED in seen.values():
                place.cluster.resume("writer")
            if place.recorded() != "h1":
                place.cluster.migrate("writer", "h1")
            place.check_on("h1")
        except (vorch.VorchError, AssertionError):
            return False
        return True

    def close(self) -> None:
        self._place = None
        self._open.close()
