"""What a host keeps of a VM (UEFI variables, TPM secrets) lives as long as the VM."""

from __future__ import annotations

import itertools

import pytest

import vorch
from vorch import Orchestrator
from vorch.drivers.memory import MemoryWorld

_numbers = itertools.count()


@pytest.fixture
def world() -> MemoryWorld:
    return MemoryWorld(f"kept-{next(_numbers)}", hosts=1)


def test_a_creation_that_fails_leaves_nothing_with_the_host(
    world: MemoryWorld, cluster: Orchestrator
) -> None:
    world.faults.fail("host:h1", "resume")
    with pytest.raises(vorch.Unreachable):
        cluster.create("web", disk_gib=1, networks=(), firmware="uefi", tpm=True, start=True)
    assert [call.name for call in world.faults.trace if call.name == "start"] == ["start"]
    assert world.host("h1").kept == set()


def test_a_start_that_fails_leaves_what_was_there(
    world: MemoryWorld, cluster: Orchestrator
) -> None:
    cluster.create("web", disk_gib=1, networks=(), firmware="uefi", tpm=True, start=True)
    cluster.stop("web", force=True)
    world.faults.fail("host:h1", "resume")
    with pytest.raises(vorch.Unreachable):
        cluster.start("web")
    world.faults.clear()
    assert world.host("h1").kept == {cluster.look().vm("web").id}
    cluster.delete("web", purge=True)
    assert world.host("h1").kept == set()
