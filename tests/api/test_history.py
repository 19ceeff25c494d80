"""/v1/vms/NAME/history and /v1/nodes/NAME/history: what the service measures is shown by it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from vorch import Orchestrator, connect
from vorch.drivers import memory
from vorch_api import create_app

TOKEN = "t" * 43
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def cluster(request: pytest.FixtureRequest) -> Iterator[Orchestrator]:
    name = re.sub(r"\W+", "-", f"history-{request.node.name}")
    with connect(f"memory:{name}") as found:
        found.create("web", disk_gib=1, start=True)
        yield found
    memory.forget(name)


def test_what_is_measured_is_shown(cluster: Orchestrator) -> None:
    world = memory.world_named(cluster.settings.uri.partition(":")[2])
    (host,) = cluster.look().nodes
    app = create_app(cluster, token=TOKEN)
    with TestClient(app, headers=BEARER) as client:
        for _ in range(3):
            app.state.sampler.measure_hosts()
            world.clock.sleep(15)
        told = client.get("/v1/vms/web/history").json()
        assert told["step_s"] == 15
        assert len(told["points"]) == 2
        assert told["points"][0]["rates"]["memory_mib"] > 0
        assert len(client.get(f"/v1/nodes/{host}/history?for_s=20").json()["points"]) <= 2
        assert client.get("/v1/vms/nosuch/history").status_code == 404
        for wrong in ("0", "-5", "86401", "nan", "x"):
            assert client.get(f"/v1/vms/web/history?for_s={wrong}").status_code == 422
