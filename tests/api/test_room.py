"""Capacity and dumps over HTTP."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from vorch import Orchestrator, connect
from vorch.drivers import memory
from vorch.dumped import dump_of
from vorch_api import create_app

TOKEN = "t" * 43


@pytest.fixture
def cluster(request: pytest.FixtureRequest) -> Iterator[Orchestrator]:
    name = re.sub(r"\W+", "-", f"api-{request.node.name}")
    with connect(f"memory:{name}") as found:
        found.init(node="h1", hypervisor_uri="memory:", pool_url="memory:")
        for vm in ("web", "db"):
            found.create(vm, disk_gib=1, networks=(), memory_mib=1024, start=True)
        found.ha_set("web")
        yield found
    memory.forget(name)


@pytest.fixture
def client(cluster: Orchestrator) -> Iterator[TestClient]:
    app = create_app(cluster, token=TOKEN, upkeep_every_s=None)
    with TestClient(app, headers={"Authorization": f"Bearer {TOKEN}"}) as found:
        yield found


def test_capacity_is_what_the_library_says(client: TestClient, cluster: Orchestrator) -> None:
    answer = client.get("/v1/capacity", params={"vcpus": 1, "memory_mib": 512})
    assert answer.status_code == 200
    found = cluster.capacity(vcpus=1, memory_mib=512)
    told = answer.json()
    # A host that is alone has nobody to take its VMs over.
    assert told["verdict"] == found.verdict == "no"
    assert told["worst"]["left_out"] == ["web"]
    assert found.growth is not None
    assert told["growth"]["fit"] == found.growth.fit > 10


def test_half_a_size_is_refused_in_words(client: TestClient) -> None:
    answer = client.get("/v1/capacity", params={"vcpus": 1})
    assert answer.status_code == 422
    assert "give both" in answer.json()["detail"]


def test_a_dump_is_the_whole_input(client: TestClient, cluster: Orchestrator) -> None:
    answer = client.get("/v1/dump")
    assert answer.status_code == 200
    found = dump_of(answer.json())
    assert sorted(found.cluster.vms) == ["db", "web"]
    assert found.fleet.guest("web").ha
    assert not found.fleet.guest("db").ha
