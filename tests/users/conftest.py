"""A world with users in it, and argon2 as quick as it can be."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest

from vorch import Doorkeeper, OnBehalf, Orchestrator, Principal, Quota, Settings, connect
from vorch.drivers import memory


@pytest.fixture
def cluster(request: pytest.FixtureRequest) -> Iterator[Orchestrator]:
    name = re.sub(r"\W+", "-", f"users-{request.node.name}")
    quick = Settings(uri=f"memory:{name}", password_memory_mib=1, password_rounds=1)
    with connect(settings=quick) as found:
        yield found
    memory.forget(name)


@pytest.fixture
def keeper(cluster: Orchestrator) -> Doorkeeper:
    return Doorkeeper(cluster)


As = Callable[[str], OnBehalf]


@pytest.fixture
def as_user(cluster: Orchestrator, keeper: Doorkeeper) -> As:
    """The cluster as that user has it, who comes from 10.0.0.9."""

    def acting(name: str) -> OnBehalf:
        user = cluster.user_show(name).user
        principal = Principal(
            name=name,
            role=user.role,
            scopes=user.scopes,
            quota=user.quota,
            source="10.0.0.9",
            via="session",
        )
        return OnBehalf(cluster, principal, keeper)

    return acting


@pytest.fixture
def people(cluster: Orchestrator) -> Orchestrator:
    """One of each role, and two who have VMs of their own."""
    # Else it is found out by the first who makes a VM.
    cluster.node_probe("h1")
    cluster.user_add("root-ann", role="admin")
    cluster.user_add("olga", role="operator")
    cluster.user_add("vic", role="viewer")
    cluster.user_add("alice", quota=Quota(vms=3, vcpus=8, memory_mib=4096, disk_gib=20))
    cluster.user_add("bob")
    return cluster
