"""What the service has beside the verbs, as somebody has it: figures, history, uploads, images."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from vorch import Orchestrator, Role, Settings, connect
from vorch.drivers import memory
from vorch_api import create_app

TOKEN = "t" * 43
TUS = {"Tus-Resumable": "1.0.0"}
PIECE = {**TUS, "Content-Type": "application/offset+octet-stream"}
DATA = bytes(range(256)) * 4096


@pytest.fixture
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Orchestrator]:
    name = re.sub(r"\W+", "-", f"beside-{request.node.name}")
    settings = Settings(uri=f"memory:{name}", upload_path=str(tmp_path / "uploads"))
    with connect(settings=settings) as found:
        found.user_add("root-ann", role="admin")
        found.user_add("olga", role="operator")
        found.user_add("oscar", role="operator")
        found.user_add("vic", role="viewer")
        found.user_add("narrow", role="viewer", scopes=("owner:alice",))
        found.user_add("alice", role="user")
        yield found
    memory.forget(name)


@pytest.fixture
def client(cluster: Orchestrator) -> Iterator[TestClient]:
    app = create_app(cluster, token=TOKEN, upkeep_every_s=None)
    with TestClient(app, raise_server_exceptions=False) as found:
        yield found


def bearer(cluster: Orchestrator, user: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {cluster.token_create(user).secret}"}


@pytest.mark.parametrize(
    ("user", "status"),
    [("root-ann", 200), ("olga", 200), ("vic", 200), ("narrow", 403), ("alice", 403)],
)
def test_figures_of_all_are_for_those_who_see_all(
    client: TestClient, cluster: Orchestrator, user: str, status: int
) -> None:
    answer = client.get("/metrics", headers=bearer(cluster, user))
    assert answer.status_code == status
    assert ("vorch_host_up" in answer.text) == (status == 200)
    refused = [(one.who, one.verb) for one in cluster.audit_list(result="refused")]
    assert refused == ([] if status == 200 else [(user, "metrics")])


def test_a_token_without_rights_is_not_saved_by_being_near(cluster: Orchestrator) -> None:
    """`metrics_open` is for those who come as nobody."""
    settings = Settings(uri=cluster.settings.uri, metrics_open=True)
    with connect(settings=settings) as found:
        app = create_app(found, token=TOKEN, upkeep_every_s=None)
        with TestClient(app, client=("127.0.0.1", 5000)) as client:
            assert client.get("/metrics").status_code == 200
            assert client.get("/metrics", headers=bearer(found, "alice")).status_code == 403


def test_whether_it_is_well_is_told_to_nobody_in_particular(client: TestClient) -> None:
    for path in ("/health", "/ready"):
        assert client.get(path).status_code == 200
        assert client.get(path, headers={"Authorization": "Bearer no"}).status_code == 200


def test_the_inventory_is_cut_down(client: TestClient, cluster: Orchestrator) -> None:
    cluster.create("db", disk_gib=1, start=True)
    cluster.create("web", disk_gib=1, networks=(), tags=("owner:alice",))
    for user in ("alice", "narrow"):
        found = client.get("/v1/inventory", headers=bearer(cluster, user)).json()
        assert [one["name"] for one in found["hosts"]] == ["web"]
        # Nor do groups tell of what is not there.
        assert found["groups"]["state"] == {"stopped": ["web"]}
        assert found["groups"]["network"] == {}
        assert {name for groups in found["groups"]["node"].values() for name in groups} == {"web"}
    found = client.get("/v1/inventory", headers=bearer(cluster, "vic")).json()
    assert [one["name"] for one in found["hosts"]] == ["db", "web"]


def test_history_is_of_what_one_sees(client: TestClient, cluster: Orchestrator) -> None:
    cluster.create("db", disk_gib=1, networks=(), start=True)
    cluster.create("web", disk_gib=1, networks=(), start=True, tags=("owner:alice",))
    sampler = client.app.state.sampler  # type: ignore[attr-defined]
    for _ in range(2):
        sampler.measure_hosts()
    alice, vic = bearer(cluster, "alice"), bearer(cluster, "vic")
    assert client.get("/v1/vms/web/history", headers=alice).status_code == 200
    hidden = client.get("/v1/vms/db/history", headers=alice)
    absent = client.get("/v1/vms/nosuch/history", headers=alice)
    assert (hidden.status_code, absent.status_code) == (404, 404)
    assert hidden.json()["detail"] == absent.json()["detail"].replace("nosuch", "db")
    (host,) = cluster.look().nodes
    assert client.get(f"/v1/nodes/{host}/history", headers=alice).status_code == 403
    assert client.get(f"/v1/nodes/{host}/history", headers=vic).status_code == 200


@pytest.mark.parametrize("user", ["alice", "vic", "narrow"])
def test_uploads_are_for_those_who_may_import(
    client: TestClient, cluster: Orchestrator, user: str
) -> None:
    there = client.post(
        "/v1/uploads", headers={**bearer(cluster, "olga"), **TUS, "Upload-Length": "9"}
    ).headers["location"]
    who = bearer(cluster, user)
    asked = [
        client.options("/v1/uploads", headers=who),
        client.get("/v1/uploads", headers=who),
        client.post("/v1/uploads", headers={**who, **TUS, "Upload-Length": "1"}),
        client.get(there, headers=who),
        client.head(there, headers={**who, **TUS}),
        client.patch(there, headers={**who, **PIECE, "Upload-Offset": "0"}, content=b"x"),
        client.delete(there, headers={**who, **TUS}),
        # Whether there is one is told to none of them either.
        client.get(f"/v1/uploads/{'0' * 32}", headers=who),
    ]
    assert {answer.status_code for answer in asked} == {403}
    left = client.get("/v1/uploads", headers=bearer(cluster, "olga")).json()
    assert [(one["owner"], one["offset_bytes"]) for one in left] == [("olga", 0)]
    assert f"/v1/uploads/{left[0]['id']}" == there


def test_an_operators_upload(client: TestClient, cluster: Orchestrator) -> None:
    olga, oscar = bearer(cluster, "olga"), bearer(cluster, "oscar")
    begun = [
        client.post(
            "/v1/uploads", headers={**olga, **TUS, "Upload-Length": str(len(DATA))}
        ).headers["location"]
        for _ in range(2)
    ]
    for path in begun:
        sent = client.patch(path, headers={**olga, **PIECE, "Upload-Offset": "0"}, content=DATA)
        assert sent.status_code == 204
    ids = [path.rpartition("/")[2] for path in begun]
    assert client.delete(begun[1], headers={**oscar, **TUS}).status_code == 204
    body = {"name": "small", "location": f"upload:{ids[0]}"}
    made = client.post("/v1/images", json=body, headers={**oscar, "Prefer": "wait=30"})
    assert made.status_code == 201, made.text
    noted = {(one.who, one.verb, one.subject) for one in cluster.audit_list(result="done")}
    assert {
        ("olga", "upload create", ids[0]),
        ("olga", "upload create", ids[1]),
        ("oscar", "upload delete", ids[1]),
    } <= noted
    # What an image holds: from whoever may make a VM of it on.
    for user, status in (("vic", 403), ("alice", 200), ("olga", 200)):
        answer = client.get("/v1/images/small/content", headers=bearer(cluster, user))
        assert answer.status_code == status
        assert (answer.content[: len(DATA)] == DATA) == (status == 200)


@pytest.mark.parametrize("location", ["UPLOAD:x", "Upload:/etc/passwd", "file:///etc/passwd", "/x"])
def test_no_other_words_lead_to_files_of_the_machine(
    client: TestClient, cluster: Orchestrator, location: str
) -> None:
    body = {"name": "stolen", "location": location}
    answer = client.post("/v1/images", json=body, headers=bearer(cluster, "olga"))
    assert answer.status_code == 403
    assert Role.ADMIN in answer.json()["detail"]


def test_an_upload_by_a_page_shows_where_it_comes_from(cluster: Orchestrator) -> None:
    cluster.user_change("olga", password="correct horse battery")
    app = create_app(cluster, token=TOKEN, upkeep_every_s=None)
    with TestClient(app, base_url="https://vorch.example") as client:
        said = {"user": "olga", "password": "correct horse battery"}
        csrf = client.post("/v1/login", json=said).json()["csrf"]
        asked = {**TUS, "Upload-Length": "1"}
        assert client.post("/v1/uploads", headers=asked).status_code == 403
        answer = client.post("/v1/uploads", headers={**asked, "X-CSRF-Token": csrf})
        assert answer.status_code == 201
        assert client.get("/metrics").status_code == 200
