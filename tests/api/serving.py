"""A service in this process, on a port of its own, before a world in memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from vorch import Orchestrator, connect
from vorch.drivers import memory
from vorch_api import Service


@contextmanager
def cluster_in(name: str) -> Iterator[Orchestrator]:
    """A world whose time runs, with hosts h1 and h2 and an image."""
    memory.forget(name)
    world = memory.world_named(f"{name}?clock=system")
    world.add_host("h2")
    with connect(f"memory:{name}") as found:
        if "h2" not in found.look().nodes:
            found.node_add("h2", "memory:h2")
        yield found
    memory.forget(name)


@contextmanager
def served(cluster: Orchestrator, port: int = 0) -> Iterator[Service]:
    service = Service(cluster, port=port)
    ready = threading.Event()
    running = threading.Thread(target=service.run, args=(ready.set,), daemon=True)
    running.start()
    assert ready.wait(60)
    try:
        yield service
    finally:
        service.end()
        running.join(90)
        assert not running.is_alive()
