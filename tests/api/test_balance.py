"""Balancing over HTTP: the same as the verb, with the same plan in the answer."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from vorch import Orchestrator, connect
from vorch.drivers import memory
from vorch_api import create_app

TOKEN = "t" * 43


@pytest.fixture
def cluster(request: pytest.FixtureRequest) -> Iterator[Orchestrator]:
    name = re.sub(r"\W+", "-", f"api-{request.node.name}")
    with connect(f"memory:{name}") as found:
        memory.world_named(name).add_host("there")
        found.init(node="h1", hypervisor_uri="memory:", pool_url="memory:")
        if "there" not in found.look().nodes:
            found.node_add("there", "memory:there")
        first = next(one for one in found.look().nodes if one != "there")
        for number in range(4):
            found.create(f"v{number}", disk_gib=1, networks=(), node=first, start=True)
        yield found
    memory.forget(name)


@pytest.fixture
def client(cluster: Orchestrator) -> Iterator[TestClient]:
    app = create_app(cluster, token=TOKEN, upkeep_every_s=None)
    with TestClient(app, headers={"Authorization": f"Bearer {TOKEN}"}) as found:
        yield found


def test_it_is_planned_and_carried_out(client: TestClient, cluster: Orchestrator) -> None:
    planned = client.post("/v1/balance", json={"dry_run": True})
    assert planned.status_code == 200, planned.text
    moves = planned.json()["plan"]["moves"]
    assert len(moves) == 2
    assert all(move["target"] == "there" and move["gain"] > 0 for move in moves)
    done = client.post("/v1/balance")
    assert done.status_code == 200, done.text
    assert len(done.json()["done"]) == 2
    assert [vm.node for vm in cluster.look().vms.values()].count("there") == 2
    assert client.post("/v1/balance", json={"measure_s": 1}).json()["plan"]["moves"] == []


@pytest.mark.parametrize("body", [{"metric": "luck"}, {"moves_max": -1}, {"moves_max": "many"}])
def test_what_makes_no_sense_is_refused(client: TestClient, body: dict[str, object]) -> None:
    assert client.post("/v1/balance", json=body).status_code == 422


def test_to_look_at_it_changes_nothing(client: TestClient) -> None:
    assert client.get("/v1/balance").status_code == 405
