"""What a service measures on the side: hosts and their VMs often, pools now and then."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from vorch import HostFigures, Orchestrator, Picture, Room, StorageHealth, VorchError

# Pools are asked for what is in them, which costs more than it tells in a minute.
POOLS_EVERY_S = 60.0
# How long the end of a service waits for a measurement that is on its way.
PATIENCE_S = 2.0

log = logging.getLogger(__name__)

Taken = Callable[[dict[str, HostFigures]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What came of the last round. A host or pool that did not answer is not in it."""

    hosts: dict[str, HostFigures] = field(default_factory=dict)
    pools: dict[str, Room] = field(default_factory=dict)
    # Storage clusters, by their own names.
    storage: dict[str, StorageHealth] = field(default_factory=dict)


class Sampler:
    """Two threads, so that a pool that does not answer holds up no host."""

    def __init__(
        self, cluster: Orchestrator, picture: Picture, *, every_s: float, taken: Taken
    ) -> None:
        """`taken` is told of each round about the hosts."""
        self._cluster = cluster
        self._picture = picture
        self._taken = taken
        self._over = threading.Event()
        self._hosts: dict[str, HostFigures] = {}
        self._pools: dict[str, Room] = {}
        self._storage: dict[str, StorageHealth] = {}
        self._threads = [
            threading.Thread(target=self._rounds, args=work, name=f"vorch-{name}", daemon=True)
            for name, work in (
                ("sampler", (self.measure_hosts, every_s)),
                ("pool-sampler", (self.measure_pools, POOLS_EVERY_S)),
            )
        ]

    @property
    def measured(self) -> Measured:
        return Measured(hosts=self._hosts, pools=self._pools, storage=self._storage)

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._over.set()
        until = time.monotonic() + PATIENCE_S
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, until - time.monotonic()))

    def _rounds(self, act: Callable[[], None], every_s: float) -> None:
        due = time.monotonic()
        while not self._over.is_set():
            try:
                act()
            except Exception as exc:  # noqa: BLE001 - the next round tries again
                log.warning("cannot measure: %s", exc)
            # At even distances, whatever a round takes; none is made up for.
            due = max(due + every_s, time.monotonic())
            self._over.wait(max(0.0, due - time.monotonic()))

    def measure_hosts(self) -> None:
        self._hosts = self._picture.figures()
        self._taken(self._hosts)

    def measure_pools(self) -> None:
        pools: dict[str, Room] = {}
        storage: dict[str, StorageHealth] = {}
        for name in sorted(self._picture.look().pools):
            images = self._cluster.world.images(name)
            with contextlib.suppress(VorchError):
                pools[name] = images.room()
            with contextlib.suppress(VorchError):
                health = images.health()
                if health is not None:
                    storage[health.cluster] = health
        self._pools, self._storage = pools, storage
