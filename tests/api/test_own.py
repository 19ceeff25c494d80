"""What whoever sees not everything is told of: events of the own VMs, tasks and jobs, no others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.api.straight import ask
from vorch import Doorkeeper, Orchestrator, Settings, connect
from vorch.drivers import memory
from vorch_api import create_app
from vorch_api.upkeep import Upkeep

TOKEN = "t" * 43
PASSWORD = "correct horse battery"
DAY_S = 86400.0


@pytest.fixture
def cluster() -> Iterator[Orchestrator]:
    quick = Settings(uri="memory:own", password_memory_mib=1, password_rounds=1)
    with connect(settings=quick) as found:
        found.user_add("alice", password=PASSWORD)
        found.user_add("alic")
        yield found
    memory.forget("own")


@pytest.fixture
def client(cluster: Orchestrator) -> Iterator[TestClient]:
    app = create_app(cluster, token=TOKEN, upkeep_every_s=None)
    with TestClient(app, base_url="https://vorch.example") as found:
        yield found


def told(client: TestClient, secret: str) -> list[tuple[str, dict[str, Any]]]:
    """All events since the beginning, up to the one that says that no more are known."""
    headers = [(b"authorization", f"Bearer {secret}".encode()), (b"last-event-id", b"1")]
    answer = ask(client, "GET", "/v1/events", headers=headers, until=b"event: ready")
    found = []
    for event in answer.text.split("\n\n"):
        words = dict(line.partition(": ")[::2] for line in event.splitlines())
        if "event" in words:
            found.append((words["event"], json.loads(words["data"])))
    return found


def test_events_of_the_own_tasks_are_told(client: TestClient, cluster: Orchestrator) -> None:
    secrets = {name: cluster.token_create(name).secret for name in ("alice", "alic")}
    headers = {"Authorization": f"Bearer {secrets['alice']}", "Prefer": "wait=30"}
    body = {"name": "mine", "disk_gib": 1, "networks": []}
    assert client.post("/v1/vms", json=body, headers=headers).status_code == 201
    # An operator's task with her VM is hers to see, one with another VM is not.
    cluster.create("theirs", disk_gib=1, networks=())
    cluster.start("mine")
    cluster.start("theirs")
    events = told(client, secrets["alice"])
    tasks = {
        (data["task"]["verb"], data["task"]["subject"]) for kind, data in events if kind == "task"
    }
    assert tasks == {("create", "mine"), ("start", "mine")}
    assert [data["job"]["subject"] for kind, data in events if kind == "job"] == ["mine"]
    assert {data["name"] for kind, data in events if kind == "vm"} == {"mine"}
    assert "theirs" not in json.dumps(events)
    # Somebody whose name is the beginning of hers sees nothing of it.
    assert {kind for kind, _ in told(client, secrets["alic"])} <= {"ready", "reset"}
    # Whoever sees all is told of both.
    whole = json.dumps(told(client, TOKEN))
    assert '"theirs"' in whole
    assert '"mine"' in whole


def test_what_lets_nobody_in_any_more_is_cleared_away(cluster: Orchestrator) -> None:
    keeper = Doorkeeper(cluster)
    world = memory.world_named("own")
    session, cookie = keeper.log_in("alice", PASSWORD, "192.0.2.1")
    with pytest.raises(Exception, match="wrong"):
        keeper.log_in("alic", "x" * 12, "192.0.2.1")
    short = cluster.token_create("alice", days=1)
    long = cluster.token_create("alice", days=90)

    def kept() -> set[str]:
        return set(cluster.world.state.read(["session", "token", "secret", "login"]))

    assert keeper.expire() == 0
    assert {f"session/{session.id}", "secret/user.alice"} <= kept()
    world.clock.sleep(2 * DAY_S)
    Upkeep(cluster).round()
    left = kept()
    assert not any(key.startswith(("session/", "login/")) for key in left)
    assert keeper.by_session(cookie, "192.0.2.1") is None
    # It is listed for a while, and lets nobody in.
    assert short.token.id in {one.id for one in cluster.token_list()}
    assert keeper.by_token(short.secret, "192.0.2.1") is None
    world.clock.sleep(8 * DAY_S)
    Upkeep(cluster).round()
    assert {one.id for one in cluster.token_list()} == {long.token.id}
    assert f"secret/token.{short.token.id}" not in kept()
    assert keeper.by_token(long.secret, "192.0.2.1") is not None
