"""Logins at a provider: who is let in, and what does not hold of what comes back."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from fastapi.testclient import TestClient

from tests.api.provider import CLIENT, SECRET, Provider, provider
from vorch import BadConfig, Orchestrator, Settings, connect
from vorch.drivers import memory
from vorch_api import create_app, oidc

HOME = "https://vorch.example"
DONE = "/v1/login/oidc/done"


@pytest.fixture
def there() -> Iterator[Provider]:
    with provider() as found:
        yield found


@pytest.fixture
def cluster(
    request: pytest.FixtureRequest, there: Provider, tmp_path: Path
) -> Iterator[Orchestrator]:
    name = re.sub(r"\W+", "-", f"oidc-{request.node.name}")
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    settings = Settings(
        uri=f"memory:{name}",
        oidc_issuer=there.issuer,
        oidc_client_id=CLIENT,
        oidc_client_secret_file=str(tmp_path / "secret"),
        oidc_redirect_url=f"{HOME}{DONE}",
    )
    with connect(settings=settings) as found:
        found.user_add("alice", role="operator", external=f"{there.issuer}|17")
        yield found
    memory.forget(name)


@pytest.fixture
def client(cluster: Orchestrator) -> Iterator[TestClient]:
    app = create_app(cluster, token="t" * 43, upkeep_every_s=None)
    with TestClient(
        app, base_url=HOME, raise_server_exceptions=False, follow_redirects=False
    ) as found:
        yield found


def went(client: TestClient) -> str:
    """Where the browser was led."""
    answer = client.get("/v1/login/oidc")
    assert answer.status_code == 303
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("__Host-vorch-oidc=")
    for part in ("HttpOnly", "Secure", "SameSite=lax", "Path=/", "Max-Age=600"):
        assert part in cookie
    return str(answer.headers["location"])


def test_a_login_at_the_provider(client: TestClient, there: Provider) -> None:
    answer = client.get(DONE, params=there.consent(went(client), "17"))
    assert answer.status_code == 200, answer.text
    assert "url=/" in answer.text
    assert "<script" not in answer.text
    told = client.get("/v1/self").json()
    assert (told["name"], told["role"], told["via"]) == ("alice", "operator", "session")
    assert "__Host-vorch-oidc" not in client.cookies
    # What it says of itself and its keys are asked for once.
    client.get(DONE, params=there.consent(went(client), "17"))
    assert sorted(there.asked) == ["/.well-known/openid-configuration", "/keys"]


def test_who_is_no_user_here_is_not_let_in(
    client: TestClient, there: Provider, cluster: Orchestrator
) -> None:
    answer = client.get(DONE, params=there.consent(went(client), "18"))
    assert answer.status_code == 403
    assert client.get("/v1/self").status_code == 401
    # An admin finds there what to give to `--external`.
    assert cluster.audit_list(verb="login", result="refused")[0].who == f"{there.issuer}|18"


def other_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


LIES: dict[str, Callable[[], dict[str, Any]]] = {
    "another audience": lambda: {"aud": "somebody-else"},
    "another issuer": lambda: {"iss": "https://evil.example"},
    "over": lambda: {"exp": int(time.time()) - 120},
    "without an end": lambda: {"exp": None},
    "of another login": lambda: {"nonce": "x" * 43},
    "of no login": lambda: {"nonce": None},
    "for another": lambda: {"aud": [CLIENT, "other"], "azp": "other"},
    "without a subject": lambda: {"sub": None},
    "another key": lambda: {"key": other_key()},
    "a shared secret": lambda: {"key": SECRET * 2, "algorithm": "HS256"},
    "unsigned": lambda: {"key": None, "algorithm": "none"},
}


@pytest.mark.parametrize("lie", LIES)
def test_what_does_not_hold(
    client: TestClient, there: Provider, cluster: Orchestrator, lie: str
) -> None:
    there.lies = LIES[lie]()
    answer = client.get(DONE, params=there.consent(went(client), "17"))
    assert answer.status_code == 403, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert "set-cookie" not in answer.headers
    assert client.get("/v1/self").status_code == 401


def test_a_login_that_this_browser_did_not_begin(client: TestClient, there: Provider) -> None:
    place = went(client)
    theirs = there.consent(place, "17")
    for params in (
        {**theirs, "state": "x" * 43},
        {**theirs, "state": ""},
        {"code": theirs["code"]},
        {"error": "access_denied", "state": theirs["state"]},
        {**theirs, "code": "code-77"},
        {**theirs, "code": "x" * 5000},
    ):
        assert client.get(DONE, params=params).status_code in (403, 422), params
    client.cookies.clear()
    assert client.get(DONE, params=theirs).status_code == 403
    assert client.get("/v1/self").status_code == 401


def test_a_code_is_good_once(client: TestClient, there: Provider) -> None:
    theirs = there.consent(went(client), "17")
    assert client.get(DONE, params=theirs).status_code == 200
    again = went(client)
    assert again
    assert client.get(DONE, params=theirs).status_code == 403


def test_only_so_many_come_back_in_a_minute(client: TestClient, there: Provider) -> None:
    statuses = [client.get(DONE).status_code for _ in range(12)]
    assert statuses == [403] * 10 + [429] * 2


def test_the_provider_has_new_keys(
    client: TestClient, there: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.get(DONE, params=there.consent(went(client), "17"))
    there.key, there.kid = other_key(), "second"
    there.shown["second"] = there.key
    # Not looked for at once again: somebody might make it ask all the time.
    assert client.get(DONE, params=there.consent(went(client), "17")).status_code == 403
    monkeypatch.setattr(oidc, "KEYS_EVERY_S", 0.0)
    assert client.get(DONE, params=there.consent(went(client), "17")).status_code == 200


def test_a_provider_that_does_not_answer_or_is_another(client: TestClient, there: Provider) -> None:
    there.lies = {"called": "https://other.example"}
    answer = client.get("/v1/login/oidc")
    assert answer.status_code == 500
    assert answer.json()["code"] == "bad-config"


def test_settings_that_will_not_do(there: Provider, tmp_path: Path) -> None:
    good: dict[str, Any] = {
        "oidc_issuer": there.issuer,
        "oidc_client_id": CLIENT,
        "oidc_redirect_url": HOME,
    }
    assert oidc.provider_of(Settings(uri="memory:")) is None
    assert oidc.provider_of(Settings(uri="memory:", **good)) is not None
    wrongs: list[dict[str, Any]] = [
        {"oidc_client_id": ""},
        {"oidc_redirect_url": ""},
        {"oidc_issuer": "http://id.example"},
        {"oidc_issuer": "file:///etc/passwd"},
        {"oidc_redirect_url": "javascript:alert(1)"},
        {"oidc_client_secret_file": str(tmp_path / "nosuch")},
    ]
    for wrong in wrongs:
        with pytest.raises(BadConfig):
            oidc.provider_of(Settings(uri="memory:", **{**good, **wrong}))


def test_without_a_provider_there_is_no_such_way() -> None:
    with TestClient(create_app("memory:", token="t" * 43, upkeep_every_s=None)) as client:
        assert client.get("/v1/login/oidc").status_code == 404
