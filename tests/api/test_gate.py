"""Users at the service's door: tokens, logins, what a browser must show, what is told to it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from typing import Any, cast

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.websockets import WebSocketDisconnect

from vorch import NEEDS, VERBS, Orchestrator, Quota, Role, Settings, connect
from vorch.drivers import memory
from vorch_api import create_app
from vorch_api.examples import EXAMPLES

TOKEN = "t" * 43
GOOD = "correct horse battery"
HOME = "https://vorch.example"


@pytest.fixture
def cluster(request: pytest.FixtureRequest) -> Iterator[Orchestrator]:
    name = re.sub(r"\W+", "-", f"gate-{request.node.name}")
    quick = Settings(uri=f"memory:{name}", password_memory_mib=1, password_rounds=1)
    with connect(settings=quick) as found:
        found.user_add("olga", role="operator", password=GOOD)
        found.user_add("vic", role="viewer", password=GOOD)
        found.user_add("alice", quota=Quota(vms=1))
        yield found
    memory.forget(name)


@pytest.fixture
def client(cluster: Orchestrator) -> Iterator[TestClient]:
    app = create_app(cluster, token=TOKEN, upkeep_every_s=None)
    with TestClient(app, base_url=HOME, raise_server_exceptions=False) as found:
        yield found


def bearer(cluster: Orchestrator, user: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {cluster.token_create(user).secret}"}


def log_in(client: TestClient, user: str) -> dict[str, str]:
    """What a page sends along with each change."""
    answer = client.post("/v1/login", json={"user": user, "password": GOOD})
    assert answer.status_code == 200, answer.text
    return {"X-CSRF-Token": answer.json()["csrf"]}


def test_a_token_is_its_user(client: TestClient, cluster: Orchestrator) -> None:
    cluster.create("web", disk_gib=1, networks=())
    cluster.create("mine", disk_gib=1, networks=(), tags=("owner:alice",))
    alice = bearer(cluster, "alice")
    listed = client.get("/v1/vms", headers=alice)
    assert [one["vm"]["name"] for one in listed.json()] == ["mine"]
    told = client.get("/v1/self", headers=alice).json()
    assert (told["name"], told["role"], told["via"], told["csrf"]) == ("alice", "user", "token", "")
    assert told["quota"]["vms"] == 1
    # What is about the whole is not hers, and changes are not the viewer's.
    assert client.get("/v1/capacity", headers=alice).status_code == 403
    assert client.post("/v1/balance", json={}, headers=bearer(cluster, "vic")).status_code == 403
    refused = cluster.audit_list(result="refused")
    assert {(one.who, one.verb) for one in refused} == {("alice", "capacity"), ("vic", "balance")}


def refused(verb: str, role: Role) -> bool:
    """By the table of rights, for somebody of that role whose scope is one tag."""
    need = NEEDS[verb]
    if not role.covers(need.role):
        return True
    if need.about == "cluster":
        return not role.covers(Role.OPERATOR)
    # Of others; one's own tokens are listed.
    return need.about == "self" and role is not Role.ADMIN and verb != "token_list"


@pytest.mark.parametrize("role", Role)
def test_each_route_for_each_role(client: TestClient, cluster: Orchestrator, role: Role) -> None:
    cluster.user_add("zoe", role=role, scopes=("owner:zoe",))
    headers = {**bearer(cluster, "zoe"), "Prefer": "wait=0"}
    wrong = []
    for entry in VERBS.values():
        # To be an admin is to be let through; what comes of it is tried elsewhere.
        if role is Role.ADMIN or (entry.kind == "stream" and not refused(entry.verb, role)):
            continue
        path = re.sub(r"\{\w+\}", "0123456789ab", entry.path)
        said = {**EXAMPLES.get(entry.verb, {})}
        if entry.method in ("POST", "PATCH"):
            answer = client.request(entry.method, path, headers=headers, json=said)
        else:
            answer = client.request(entry.method, path, headers=headers, params=said)
        if (answer.status_code == 403) != refused(entry.verb, role):
            wrong.append((entry.verb, answer.status_code, answer.text[:200]))
    assert wrong == []


def test_a_login(client: TestClient, cluster: Orchestrator) -> None:
    answer = client.post("/v1/login", json={"user": "olga", "password": GOOD})
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("__Host-vorch=")
    for part in ("HttpOnly", "Secure", "SameSite=strict", "Path=/"):
        assert part in cookie
    assert "Domain" not in cookie
    assert answer.json()["role"] == "operator"
    assert client.get("/v1/vms").status_code == 200
    told = client.get("/v1/self").json()
    assert (told["via"], told["csrf"]) == ("session", answer.json()["csrf"])
    out = client.post("/v1/logout", headers={"X-CSRF-Token": told["csrf"]})
    assert out.status_code == 204
    assert client.get("/v1/vms").status_code == 401
    client.cookies.set("__Host-vorch", cookie.partition("=")[2].partition(";")[0])
    assert client.get("/v1/vms").status_code == 401


def test_another_sites_page_logs_nobody_in(client: TestClient) -> None:
    right = {"user": "olga", "password": GOOD}
    answer = client.post("/v1/login", json=right, headers={"Origin": "https://evil.example"})
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers
    assert client.post("/v1/login", json=right, headers={"Origin": HOME}).status_code == 200
    form = client.post("/v1/login", data=right)
    assert form.status_code == 422


def test_on_loopback_without_tls(cluster: Orchestrator) -> None:
    app = create_app(cluster, token=TOKEN, upkeep_every_s=None)
    with TestClient(app, base_url="http://127.0.0.1:8420") as client:
        answer = client.post("/v1/login", json={"user": "olga", "password": GOOD})
        assert answer.headers["set-cookie"].startswith("vorch=")
        assert "HttpOnly" in answer.headers["set-cookie"]
        assert client.get("/v1/self").json()["name"] == "olga"
        assert "strict-transport-security" not in answer.headers


def test_wrong_logins_are_all_alike_and_limited(client: TestClient) -> None:
    said = set()
    for user, password in (("olga", "wrong"), ("nobody", GOOD), ("alice", GOOD), ("olga", "")):
        answer = client.post("/v1/login", json={"user": user, "password": password})
        assert answer.status_code == 403
        assert "set-cookie" not in answer.headers
        said.add(answer.text)
    assert len(said) == 1
    wrong = {"user": "olga", "password": "wrong"}
    answer = [client.post("/v1/login", json=wrong) for _ in range(10)][-1]
    assert answer.status_code == 429
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert answer.json()["code"] == "too-many"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b'{"user": 1, "password": []}',
        b'{"user": "olga"}',
        b'{"user": "olga", "password": "' + b"x" * 5000 + b'"}',
        b'{"user": "\\u0000\\ud800", "password": "\\ud800"}',
        b"\xff\xfe",
    ],
)
def test_what_is_no_login(client: TestClient, body: bytes) -> None:
    json = {"Content-Type": "application/json"}
    answer = client.post("/v1/login", content=body, headers=json)
    assert answer.status_code in (403, 422)
    assert answer.headers["content-type"] == "application/problem+json"
    assert "x" * 100 not in answer.text


def test_a_change_by_cookie_shows_where_it_comes_from(
    client: TestClient, cluster: Orchestrator
) -> None:
    csrf = log_in(client, "olga")
    dry = {"dry_run": True}
    assert client.post("/v1/balance", json=dry, headers=csrf).status_code == 200
    for headers in (
        {},
        {"X-CSRF-Token": ""},
        {"X-CSRF-Token": "0" * 64},
        {**csrf, "Origin": "https://evil.example"},
        {**csrf, "Origin": "null"},
        {**csrf, "Origin": "https://vorch.example.evil.example"},
    ):
        answer = client.post("/v1/balance", json=dry, headers=headers)
        assert answer.status_code == 403, headers
    assert client.post("/v1/balance", json=dry, headers={**csrf, "Origin": HOME}).status_code == 200
    refused = cluster.audit_list(result="refused")
    assert len(refused) == 6
    assert {(one.who, one.subject) for one in refused} == {("olga", "/v1/balance")}
    # Whoever comes by a token is no browser.
    assert client.post("/v1/balance", json=dry, headers=bearer(cluster, "olga")).status_code == 200


def test_a_wrong_token_is_not_saved_by_a_cookie(client: TestClient) -> None:
    log_in(client, "olga")
    answer = client.get("/v1/vms", headers={"Authorization": "Bearer vorch_0_0"})
    assert answer.status_code == 401


@pytest.mark.parametrize(
    "cookie", [b"", b"__Host-vorch=", b"__Host-vorch=x.y", b'a="b; __Host-vorch=[]', b"\xe9=\xe9"]
)
def test_cookies_that_are_none(client: TestClient, cookie: bytes) -> None:
    assert client.get("/v1/vms", headers=[(b"Cookie", cookie)]).status_code == 401


@pytest.mark.parametrize("path", ["/health", "/v1/vms", "/nosuch", "/docs"])
def test_what_every_answer_says_to_browsers(client: TestClient, path: str) -> None:
    for headers in ({}, {"Authorization": f"Bearer {TOKEN}"}):
        answer = client.get(path, headers=headers)
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["strict-transport-security"].startswith("max-age=63072000")
        assert answer.headers["cache-control"] == "no-store"
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'")
        assert "script" not in policy


def test_a_store_that_fails_is_no_way_in(client: TestClient, cluster: Orchestrator) -> None:
    headers = bearer(cluster, "olga")
    world = memory.world_named(cluster.settings.uri.partition(":")[2])
    world.faults.fail("state", "get")
    answer = client.get("/v1/vms", headers=headers)
    assert answer.status_code == 503
    assert answer.json()["code"] == "unreachable"


NAMES = [b"authorization", b"cookie", b"origin", b"host", b"x-csrf-token", b"content-type"]
WORDS = [
    b"Bearer ",
    b"bearer",
    b"vorch_000000000000_" + b"0" * 64,
    b"__Host-vorch=",
    b"000000000000." + b"0" * 64,
    b"; ",
    b'"',
    b"\x00",
    b"\xff",
    b"https://vorch.example",
    b"null",
]


@given(
    method=st.sampled_from(["GET", "POST", "HEAD", "OPTIONS", "DELETE", "TRACE", "get", "X"]),
    path=st.sampled_from(
        ["/v1/vms", "/v1/self", "/v1/logout", "/v1/login/", "/page", "//page/x/y", "/é"]
    ),
    headers=st.lists(
        st.tuples(
            st.sampled_from(NAMES),
            st.lists(st.one_of(st.sampled_from(WORDS), st.binary(max_size=20)), max_size=4).map(
                b"".join
            ),
        ),
        max_size=5,
    ),
)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_a_stranger_sends_is_not_let_in(
    client: TestClient, method: str, path: str, headers: list[tuple[bytes, bytes]]
) -> None:
    """Past what a client library would send: straight into the application."""
    said: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"{}", "more_body": False}

    async def send(message: Any) -> None:
        said.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": headers,
        "scheme": "https",
        "server": ("vorch.example", 443),
        "client": ("10.0.0.9", 4000),
        "http_version": "1.1",
    }
    asyncio.run(cast(Any, client.app)(scope, receive, send))
    assert said[0]["status"] == 401
    assert b"Traceback" not in said[1]["body"]


def test_a_websocket_of_a_stranger_is_closed(client: TestClient) -> None:
    for headers in ({}, {"Authorization": "Bearer no"}, {"Cookie": "__Host-vorch=x.y"}):
        with (
            pytest.raises(WebSocketDisconnect) as caught,
            client.websocket_connect("/v1/vms", headers=headers),
        ):
            pass
        assert caught.value.code == 1008


def test_a_websocket_by_cookie_comes_from_the_services_own_page(client: TestClient) -> None:
    log_in(client, "olga")
    for headers in ({}, {"Origin": "https://evil.example"}):
        with (
            pytest.raises(WebSocketDisconnect) as caught,
            client.websocket_connect("/v1/none", headers=headers),
        ):
            pass
        assert caught.value.code == 1008


def test_jobs_are_done_as_whoever_asked(client: TestClient, cluster: Orchestrator) -> None:
    alice = {**bearer(cluster, "alice"), "Prefer": "wait=30"}
    body = {"name": "web", "disk_gib": 1, "networks": []}
    made = client.post("/v1/vms", json=body, headers=alice)
    assert made.status_code == 201, made.text
    assert cluster.show("web").vm.tags == ("owner:alice",)
    assert {one.who for one in cluster.job_list()} == {"alice from testclient"}
    # Her quota is one VM.
    more = client.post("/v1/vms", json={**body, "name": "more"}, headers=alice)
    assert (more.status_code, more.json()["fields"]["quota"]) == (403, "vms")
    assert [one["subject"] for one in client.get("/v1/jobs", headers=alice).json()]
    assert client.get("/v1/jobs", headers=bearer(cluster, "vic")).status_code == 200


def test_a_token_is_shown_once(client: TestClient, cluster: Orchestrator) -> None:
    csrf = log_in(client, "olga")
    made = client.post("/v1/tokens", json={"user": "olga", "role": "viewer"}, headers=csrf)
    assert made.status_code == 200, made.text
    secret = made.json()["secret"]
    assert client.get("/v1/self", headers={"Authorization": f"Bearer {secret}"}).status_code == 200
    world = memory.world_named(cluster.settings.uri.partition(":")[2])
    assert secret.rpartition("_")[2] not in str(world.store.texts)
    assert client.post("/v1/tokens", json={"user": "vic"}, headers=csrf).status_code == 403
