"""The service from outside: who is let in, what it answers, in which form it fails."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

import vorch
from vorch import Orchestrator, Picture, connect, errors
from vorch.drivers import memory
from vorch_api import create_app
from vorch_api.auth import token_of
from vorch_api.upkeep import Upkeep

TOKEN = "t" * 43
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def cluster(request: pytest.FixtureRequest) -> Iterator[Orchestrator]:
    name = re.sub(r"\W+", "-", f"api-{request.node.name}")
    with connect(f"memory:{name}") as found:
        yield found
    memory.forget(name)


@pytest.fixture
def client(cluster: Orchestrator) -> Iterator[TestClient]:
    app = create_app(cluster, token=TOKEN)
    with TestClient(app, raise_server_exceptions=False) as found:
        yield found


def world_of(cluster: Orchestrator) -> memory.MemoryWorld:
    return memory.world_named(cluster.settings.uri.partition(":")[2])


def test_health_is_open(client: TestClient) -> None:
    answer = client.get("/health")
    assert answer.status_code == 200
    assert answer.json() == {
        "status": "ok",
        "state": "reachable",
        "version": vorch.__version__,
    }


def test_health_says_when_the_state_cannot_be_reached(
    client: TestClient, cluster: Orchestrator
) -> None:
    world_of(cluster).faults.fail("state", "read")
    answer = client.get("/health")
    assert answer.status_code == 503
    assert answer.json()["code"] == "unreachable"


def test_vms(client: TestClient, cluster: Orchestrator) -> None:
    cluster.create("web", disk_gib=1)
    answer = client.get("/v1/vms", headers=BEARER)
    assert answer.status_code == 200
    # The same values, in the same words, as `vorch list --json`.
    assert answer.json() == [vorch.shown(one) for one in cluster.list()]
    assert [one["vm"]["name"] for one in answer.json()] == ["web"]


def test_inventory(client: TestClient, cluster: Orchestrator) -> None:
    cluster.create("web", disk_gib=1)
    assert client.get("/v1/inventory").status_code == 401
    answer = client.get("/v1/inventory", headers=BEARER)
    assert answer.json() == vorch.shown(cluster.inventory())
    assert answer.json()["groups"]["state"] == {"stopped": ["web"]}


PATHS = (
    "/v1/vms",
    "/openapi.json",
    "/docs",
    "/nosuch",
    "/page",
    "/pages",
    "/health/",
    "/HEALTH",
    "/v1//health",
)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "given",
    [
        {},
        {"Authorization": "Bearer "},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": f"Bearer {TOKEN[:-1]}"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": TOKEN},
        {"Authorization": "Bearer \xff"},
    ],
    ids=["none", "empty", "longer", "shorter", "basic", "bare", "odd"],
)
def test_nobody_else_is_let_in(client: TestClient, path: str, given: dict[str, str]) -> None:
    headers = [(name, value.encode("latin-1")) for name, value in given.items()]
    answer = client.get(path, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["code"] == "denied"
    assert TOKEN not in answer.text


def test_two_tokens_are_none(client: TestClient) -> None:
    headers = [("Authorization", f"Bearer {TOKEN}"), ("Authorization", "Bearer x")]
    assert client.get("/v1/vms", headers=headers).status_code == 401


def test_the_word_bearer_has_no_case(client: TestClient) -> None:
    headers = {"Authorization": f"bearer {TOKEN}"}
    assert client.get("/v1/vms", headers=headers).status_code == 200


def test_a_short_token_is_refused(cluster: Orchestrator) -> None:
    with pytest.raises(errors.BadConfig), TestClient(create_app(cluster, token="secret")) as client:
        client.get("/health")


@pytest.mark.parametrize("kind", errors.ALL, ids=lambda kind: kind.code)
def test_errors_are_problems(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, kind: type[errors.VorchError]
) -> None:
    def failing(*_: object, **__: object) -> None:
        raise kind("cannot do that: no; do this", vm="web", odd={1, 2})

    monkeypatch.setattr(Picture, "page", failing)
    answer = client.get("/v1/vms", headers=BEARER)
    assert answer.status_code == kind.http_status
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["code"] == kind.code
    assert body["detail"] == "cannot do that: no; do this"
    assert body["fields"]["vm"] == "web"
    assert body["status"] == kind.http_status
    assert set(body) == {"type", "title", "status", "detail", "code", "fields"}


def test_a_mistake_shows_nothing_of_the_inside(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mistaken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("inside")

    monkeypatch.setattr(Picture, "page", mistaken)
    answer = client.get("/v1/vms", headers=BEARER)
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert "inside" not in answer.text
    assert "Traceback" not in answer.text


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [("GET", "/nosuch", 404, "not-found"), ("DELETE", "/v1/vms", 405, "unsupported")],
)
def test_what_is_not_there_is_a_problem_too(
    client: TestClient, method: str, path: str, status: int, code: str
) -> None:
    answer = client.request(method, path, headers=BEARER)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == code


def test_the_schema_names_verbs_by_their_one_word(client: TestClient) -> None:
    schema = client.get("/openapi.json", headers=BEARER).json()
    assert schema["paths"]["/v1/vms"]["get"]["operationId"] == "list"
    assert "VmStatus" in schema["components"]["schemas"]


def test_the_schema_is_sent_small_and_once(client: TestClient) -> None:
    whole = client.get("/openapi.json", headers={**BEARER, "Accept-Encoding": "identity"})
    small = client.get("/openapi.json", headers={**BEARER, "Accept-Encoding": "gzip"})
    assert small.headers["content-encoding"] == "gzip"
    assert int(small.headers["content-length"]) < len(whole.content) / 5
    assert small.json() == whole.json()
    known = {**BEARER, "If-None-Match": whole.headers["etag"]}
    assert client.get("/openapi.json", headers=known).status_code == 304


def test_the_page_loads_nothing_from_elsewhere(client: TestClient) -> None:
    answer = client.get("/docs", headers=BEARER)
    assert answer.status_code == 200
    assert "/v1/vms" in answer.text
    assert "//" not in answer.text
    assert "<script" not in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert client.get("/redoc", headers=BEARER).status_code == 404


def test_an_app_of_its_own_connection_closes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[bool] = []
    before = Orchestrator.close

    def close(cluster: Orchestrator) -> None:
        closed.append(True)
        before(cluster)

    monkeypatch.setattr(Orchestrator, "close", close)
    with TestClient(create_app("memory:", token=TOKEN)) as client:
        assert client.get("/health").status_code == 200
        assert closed == []
    assert closed == [True]


# ---------------------------------------------------------------------------------------------
# The token's file


def test_the_token_is_made_once(tmp_path: Path) -> None:
    file = tmp_path / "token"
    token = token_of(file)
    assert re.fullmatch(r"[\w-]{43}", token)
    assert file.stat().st_mode & 0o777 == 0o600
    assert token_of(file) == token
    assert [one.name for one in tmp_path.iterdir()] == ["token"]
    assert token_of(None) != token_of(None)


def test_a_token_that_others_may_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "token"
    token_of(file)
    file.chmod(0o640)
    with pytest.raises(errors.Denied, match="others may read"):
        token_of(file)


@pytest.mark.parametrize("content", [b"", b"short\n", b"x\x00" * 30, b"\xff" * 40 + b"\n"])
def test_a_token_of_others_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "token"
    file.write_bytes(content)
    file.chmod(0o600)
    with pytest.raises(errors.BadConfig):
        token_of(file)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_token_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "token").touch(0o000)
    with pytest.raises(errors.Unreachable):
        token_of(tmp_path / "token")


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(errors.Unreachable, match="No such file"):
        token_of(tmp_path / "nosuch" / "token")


# ---------------------------------------------------------------------------------------------
# Upkeep


class Died(BaseException):
    """As kill -9 would."""


def die(point: str, journal: Any) -> None:
    if point == "after" or journal.direction == "backward":
        raise Died


def test_upkeep_recovers_and_empties_the_trash(cluster: Orchestrator) -> None:
    world = world_of(cluster)
    cluster.create("old", disk_gib=1)
    cluster.delete("old")
    with connect(cluster.settings.uri, hook=die) as other:
        with pytest.raises(Died):
            other.create("half", disk_gib=1)
        world.kill(other.world)
    world.clock.sleep(25 * 3600)
    upkeep = Upkeep(cluster)
    upkeep.round()
    assert cluster.trash_list() == ()
    assert [one for one in cluster.volume_list("local") if not one.trashed] == []
    assert {task.state.value for task in cluster.task_list()} == {"done", "undone"}


def test_upkeep_outlives_failures(cluster: Orchestrator, caplog: pytest.LogCaptureFixture) -> None:
    fault = world_of(cluster).faults.fail("state", "read")
    upkeep = Upkeep(cluster)
    upkeep.round()
    assert "upkeep: cannot" in caplog.text
    world_of(cluster).faults.lift(fault)
    upkeep.round()


def test_upkeep_runs_with_the_service_and_ends_with_it(
    cluster: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    twice = threading.Event()
    rounds: list[int] = []

    def round_(_: Upkeep) -> None:
        rounds.append(1)
        if len(rounds) >= 2:
            twice.set()

    monkeypatch.setattr(Upkeep, "round", round_)
    with TestClient(create_app(cluster, token=TOKEN, upkeep_every_s=0.01)):
        assert twice.wait(10)
    assert "vorch-upkeep" not in {thread.name for thread in threading.enumerate()}
