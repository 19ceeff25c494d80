"""What is asked for over HTTP: done at once or as a job, once, and only if nothing has changed."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from vorch import Desk, Orchestrator, connect
from vorch.drivers import memory
from vorch.plan import Journal
from vorch_api import create_app

TOKEN = "t" * 43


@pytest.fixture
def cluster(request: pytest.FixtureRequest) -> Iterator[Orchestrator]:
    name = re.sub(r"\W+", "-", f"api-{request.node.name}")
    with connect(f"memory:{name}") as found:
        yield found
    memory.forget(name)


@pytest.fixture
def client(cluster: Orchestrator) -> Iterator[TestClient]:
    app = create_app(cluster, token=TOKEN, upkeep_every_s=None)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with TestClient(app, headers=headers, raise_server_exceptions=False) as found:
        yield found


@pytest.fixture
def gate(cluster: Orchestrator) -> Iterator[threading.Event]:
    """Holds plans up before their steps until it is set."""
    opened = threading.Event()

    def wait(point: str, journal: Journal) -> None:
        if point == "before":
            assert opened.wait(20)

    cluster.executor.hook = wait
    yield opened
    opened.set()


NEW = {"name": "web", "disk_gib": 1, "networks": []}


def test_a_life(client: TestClient) -> None:
    made = client.post("/v1/vms", json=NEW, headers={"Prefer": "wait=20"})
    assert made.status_code == 201, made.text
    assert made.headers["location"] == "/v1/vms/web"
    assert made.json()["task"]["state"] == "done"
    job = client.get(f"/v1/jobs/{made.headers['vorch-job']}").json()
    assert (job["state"], job["verb"], job["tasks"]) == (
        "done",
        "create",
        [made.json()["task"]["id"]],
    )
    wait = {"Prefer": "wait=20"}
    assert client.post("/v1/vms/web/start", headers=wait).status_code == 200
    assert client.get("/v1/vms/web").json()["power"] == "running"
    added = client.post("/v1/vms/web/disk-attach", json={"size_gib": 1}, headers=wait)
    assert added.status_code == 200, added.text
    assert len(client.get("/v1/vms/web/disk-list").json()) == 2
    changed = client.patch("/v1/vms/web", json={"description": "shop"}, headers=wait)
    assert changed.status_code == 200, changed.text
    renamed = client.post("/v1/vms/web/stop", json={"force": True}, headers=wait)
    assert renamed.status_code == 200
    gone = client.delete("/v1/vms/web", params={"purge": True}, headers=wait)
    assert gone.status_code == 200, gone.text
    assert client.get("/v1/vms/web").status_code == 404
    assert [one["verb"] for one in client.get("/v1/jobs").json()].count("create") == 1


def test_a_dry_run_is_a_plan_and_no_job(client: TestClient, cluster: Orchestrator) -> None:
    answer = client.post("/v1/vms", json={**NEW, "dry_run": True})
    assert answer.status_code == 200
    assert answer.json()["task"] is None
    assert answer.json()["plan"]["steps"]
    assert cluster.look().vms == {}
    assert client.get("/v1/jobs").json() == []


def test_what_takes_longer_is_told_where_to_ask(client: TestClient, gate: threading.Event) -> None:
    answer = client.post("/v1/vms", json=NEW, headers={"Prefer": "wait=0"})
    assert answer.status_code == 202
    where = answer.headers["location"]
    assert where == f"/v1/jobs/{answer.json()['id']}"
    assert client.get(where).json()["state"] == "running"
    gate.set()
    ended = client.get(where, headers={"Prefer": "wait=20"}).json()
    assert ended["state"] == "done"
    assert ended["result"]["task"]["state"] == "done"


def test_its_progress_is_a_stream(client: TestClient, gate: threading.Event) -> None:
    where = client.post("/v1/vms", json=NEW, headers={"Prefer": "wait=0"}).headers["location"]
    threading.Timer(0.5, gate.set).start()
    answer = client.get(f"{where}/watch")
    assert answer.headers["content-type"].startswith("text/event-stream")
    told = re.findall(r"event: (\w+)\ndata: (.*)\n", answer.text)
    kinds = [kind for kind, _ in told]
    assert kinds[-1] == "job"
    assert "task" in kinds
    assert json.loads(told[-1][1])["state"] == "done"
    task = json.loads(next(data for kind, data in reversed(told) if kind == "task"))
    again = client.get(f"/v1/tasks/{task['id']}/watch")
    assert json.loads(re.findall(r"data: (.*)\n", again.text)[-1])["state"] == "done"
    assert client.get("/v1/jobs/nosuch/watch").status_code == 404


def test_a_job_can_be_cancelled(client: TestClient, gate: threading.Event) -> None:
    where = client.post("/v1/vms", json=NEW, headers={"Prefer": "wait=0"}).headers["location"]
    while not client.get(where).json()["tasks"]:
        pass
    assert client.post(f"{where}/cancel").status_code == 204
    gate.set()
    ended = client.get(where, headers={"Prefer": "wait=20"}).json()
    assert ended["state"] == "cancelled"
    assert client.get("/v1/vms/web").status_code == 404
    assert client.post(f"{where}/cancel").status_code == 409


def test_too_much_at_once_is_told_when_to_come_back(
    client: TestClient, cluster: Orchestrator, gate: threading.Event
) -> None:
    client.app.state.desk = Desk(cluster, at_once=1, waiting=0)  # type: ignore[attr-defined]
    assert client.post("/v1/vms", json=NEW, headers={"Prefer": "wait=0"}).status_code == 202
    refused = client.post("/v1/vms", json={**NEW, "name": "db"})
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) > 0


def test_a_key_makes_it_once(client: TestClient) -> None:
    headers = {"Idempotency-Key": "k1", "Prefer": "wait=20"}
    first = client.post("/v1/vms", json=NEW, headers=headers)
    again = client.post("/v1/vms", json=NEW, headers=headers)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json()
    assert again.headers["vorch-job"] == first.headers["vorch-job"]
    other = client.post("/v1/vms", json={**NEW, "name": "db"}, headers=headers)
    assert other.status_code == 422
    assert client.post("/v1/vms", json=NEW).json()["code"] == "conflict"


def test_what_has_changed_since_is_left_alone(client: TestClient) -> None:
    client.post("/v1/vms", json=NEW, headers={"Prefer": "wait=20"})
    seen = client.get("/v1/vms/web").headers["etag"]
    headers = {"If-Match": seen, "Prefer": "wait=20"}
    assert client.patch("/v1/vms/web", json={"vcpus": 2}, headers=headers).status_code == 200
    for dry_run in (False, True):
        late = client.patch("/v1/vms/web", json={"vcpus": 3, "dry_run": dry_run}, headers=headers)
        assert late.status_code == 412
        assert late.json()["code"] == "stale"
    assert client.delete("/v1/vms/web", headers=headers).status_code == 412
    assert client.get("/v1/vms/web").json()["vm"]["vcpus"] == 2
    anew = {"If-Match": client.get("/v1/vms/web").headers["etag"], "Prefer": "wait=20"}
    assert client.delete("/v1/vms/web", headers=anew).status_code == 200


@pytest.mark.parametrize("given", ["x", '"x"', 'W/"1"', '"1", "2"'])
def test_an_etag_that_is_none_is_refused(client: TestClient, given: str) -> None:
    answer = client.patch("/v1/vms/web", json={"vcpus": 2}, headers={"If-Match": given})
    assert answer.status_code == 422


def test_what_has_no_etag_takes_none(client: TestClient) -> None:
    answer = client.post("/v1/balance", headers={"If-Match": '"1"'})
    assert answer.status_code == 422
    assert "leave it out" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"{", "application/json"),
        (b"[]", "application/json"),
        (b'"x"', "application/json"),
        (b"name=web", "application/x-www-form-urlencoded"),
        (b'{"name": "web", "vcpus": 1e400}', "application/json"),
        (b'{"name": "web", "wait_s": NaN}', "application/json"),
        (b"[" * 100_000, "application/json"),
        (b"\xff\xfe", "application/json"),
    ],
)
def test_bodies_that_make_no_sense(client: TestClient, body: bytes, kind: str) -> None:
    answer = client.post("/v1/vms", content=body, headers={"Content-Type": kind})
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_body_that_is_too_large_is_not_read(client: TestClient) -> None:
    answer = client.post("/v1/vms", content=b" " * (9 * 1024 * 1024))
    assert answer.status_code == 422
    assert "larger than" in answer.json()["detail"]


def test_a_mistake_in_a_job_shows_nothing_of_the_inside(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mistaken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("inside")

    monkeypatch.setattr(Orchestrator, "start", mistaken)
    answer = client.post("/v1/vms/web/start", headers={"Prefer": "wait=20"})
    assert answer.status_code == 500
    assert "inside" not in answer.text
    assert "Traceback" not in answer.text


# ---------------------------------------------------------------------------------------------
# Lists


@pytest.fixture
def many(client: TestClient, cluster: Orchestrator) -> TestClient:
    cluster.node_change(cluster.node_list()[0].node.name, tags=["t0", "t1"])
    for number in range(7):
        cluster.create(f"vm{number}", disk_gib=1, networks=(), require_tags=[f"t{number % 2}"])
    return client


def names(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [one["vm"]["name"] for one in answer.json()]


def test_pages_are_the_whole_list(many: TestClient) -> None:
    found, pages, where = [], 0, "/v1/vms?limit=3"
    while where:
        answer = many.get(where)
        assert answer.headers["x-total-count"] == "7"
        found += names(answer)
        pages += 1
        link = re.fullmatch(r'<(.+)>; rel="next"', answer.headers.get("link", ""))
        where = link[1] if link else ""
    assert found == [f"vm{number}" for number in range(7)]
    assert pages == 3


def test_a_page_goes_on_where_it_was_though_a_vm_is_gone(
    many: TestClient, cluster: Orchestrator
) -> None:
    link = many.get("/v1/vms?limit=3").headers["link"]
    cluster.delete("vm2")
    cluster.delete("vm0")
    where = re.fullmatch(r'<(.+)>; rel="next"', link)
    assert where is not None
    assert names(many.get(where[1])) == ["vm3", "vm4", "vm5"]


def test_filters(many: TestClient) -> None:
    assert names(many.get("/v1/vms", params={"name": ["vm1", "vm2"]})) == ["vm1", "vm2"]
    assert names(many.get("/v1/vms", params={"name~": "M3"})) == ["vm3"]
    assert names(many.get("/v1/vms", params={"name~": "v*[56]"})) == ["vm5", "vm6"]
    assert names(many.get("/v1/vms", params={"tag": "t1"})) == ["vm1", "vm3", "vm5"]
    assert names(many.get("/v1/vms", params={"state": "running"})) == []
    assert len(names(many.get("/v1/vms", params={"state": "stopped"}))) == 7
    assert names(many.get("/v1/vms", params={"node": "nosuch"})) == []
    assert names(many.get("/v1/vms", params={"tag": "t1", "name": ["vm1", "vm2"]})) == ["vm1"]
    assert many.get("/v1/vms", params={"colour": "red"}).status_code == 422
    assert many.get("/v1/vms", params={"state": "asleep"}).status_code == 422


def test_fields(many: TestClient) -> None:
    answer = many.get("/v1/vms", params={"fields": "vm.name,power", "limit": 1})
    assert answer.json() == [{"vm": {"name": "vm0"}, "power": "stopped"}]
    one = many.get("/v1/vms/vm0", params={"fields": "vm.disks.name"}).json()
    assert one == {"vm": {"disks": [{"name": "root"}]}}
    assert many.get("/v1/vms", params={"fields": "nosuch"}).status_code == 422
    assert many.get("/v1/vms", params={"fields": ""}).status_code == 422
    tasks = many.get("/v1/tasks", params={"verb": "create", "fields": "subject", "limit": 2})
    assert len(tasks.json()) == 2
    assert set(tasks.json()[0]) == {"subject"}
    assert tasks.headers["x-total-count"] == "7"
    assert many.get("/v1/tasks", params={"verb~": "del"}).json() == []
    assert many.get("/v1/networks", params={"colour": "red"}).status_code == 422


@pytest.mark.parametrize("words", ["limit=0", "limit=x", "limit=10001", "cursor=%FF", "cursor=x"])
def test_pages_that_make_no_sense(many: TestClient, words: str) -> None:
    assert many.get(f"/v1/vms?{words}").status_code == 422


def test_pairs_have_no_fields_to_choose(client: TestClient) -> None:
    """A pool and its usage came as an empty pair, whatever was chosen."""
    answer = client.get("/v1/pools", params={"fields": "name"})
    assert answer.status_code == 422
    assert "fields" in answer.json()["detail"]
