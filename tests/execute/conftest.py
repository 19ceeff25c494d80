"""A connection to the `world` in memory that each file makes for itself."""

from __future__ import annotations

import pytest

import vorch
from vorch import Orchestrator
from vorch.drivers.memory import MemoryWorld


@pytest.fixture
def cluster(world: MemoryWorld) -> Orchestrator:
    ports, prepare = world.connection()
    orchestrator = Orchestrator(ports, vorch.Settings(uri="memory:"))
    prepare(orchestrator)
    return orchestrator
