"""The table of rights in docs/users.md, asked of the service: each route × role × scope."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from urllib.parse import urlencode

import pytest
from fastapi.testclient import TestClient

from tests.api.straight import Answer, ask
from vorch import NEEDS, VERBS, Orchestrator, Role, call_of, connect
from vorch.drivers import memory
from vorch_api import create_app
from vorch_api.examples import EXAMPLES
from vorch_cli import rights_page

TOKEN = "t" * 43
SCOPES = {"all": "*", "own": "owner:zoe"}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Orchestrator]:
    with connect("memory:matrix") as found:
        for name, tags in (("mine", ("owner:zoe",)), ("theirs", ())):
            found.create(name, disk_gib=1, networks=(), tags=tags)
        for name, tags in (("gone-mine", ("owner:zoe",)), ("gone-theirs", ())):
            found.create(name, disk_gib=1, networks=(), tags=tags)
            found.delete(name)
        yield found
    memory.forget("matrix")


@pytest.fixture(scope="module")
def client(cluster: Orchestrator) -> Iterator[TestClient]:
    app = create_app(cluster, token=TOKEN, upkeep_every_s=None)
    with TestClient(app, raise_server_exceptions=False) as found:
        yield found


@pytest.fixture(scope="module")
def secrets(cluster: Orchestrator) -> dict[tuple[Role, str], str]:
    found = {}
    for role in Role:
        for word, scope in SCOPES.items():
            name = f"{role}-{word}"
            cluster.user_add(name, role=role, scopes=(scope,))
            found[role, word] = cluster.token_create(name).secret
    return found


def asked(client: TestClient, verb: str, subject: str, secret: str) -> Answer:
    """As it changes nothing: as a dry run, or of something that is not there."""
    where = rights_page.route(verb)
    assert where is not None
    method, path = where
    said = {**EXAMPLES.get(verb, {})}
    if verb in VERBS and "dry_run" in call_of(verb).parameters:
        said["dry_run"] = True
    target = re.sub(r"\{\w+\}", subject, path)
    headers = [(b"authorization", f"Bearer {secret}".encode()), (b"tus-resumable", b"1.0.0")]
    if method in ("POST", "PATCH"):
        headers.append((b"content-type", b"application/json"))
        return ask(client, method, target, headers=headers, body=json.dumps(said).encode())
    query = urlencode({name: str(value).lower() for name, value in said.items()})
    return ask(client, method, f"{target}?{query}" if query else target, headers=headers)


VERBS_WITH_ROUTES = sorted(verb for verb in NEEDS if rights_page.route(verb))


@pytest.mark.parametrize("verb", VERBS_WITH_ROUTES)
def test_each_cell(client: TestClient, secrets: dict[tuple[Role, str], str], verb: str) -> None:
    need = NEEDS[verb]
    trashed = "gone-" if need.about == "trashed" else ""
    for (role, word), secret in secrets.items():
        cell = rights_page.cell(need, role)
        of_a_vm = need.about in ("vm", "trashed")
        for whose in ("mine", "theirs") if of_a_vm else ("nosuch",):
            subject = f"{trashed}{whose}" if of_a_vm else "0123456789ab"
            answer = asked(client, verb, subject, secret)
            hidden = (
                answer.status == 404
                and f"VM '{subject}': there is none of that name" in answer.text
            )
            where = (verb, role, word, whose, answer.status, answer.text[:200])
            match cell:
                case "–":
                    assert answer.status == 403, where
                case "yes":
                    assert answer.status not in (401, 403), where
                    assert not hidden, where
                case "with `*`":
                    assert (answer.status == 403) is (word == "own"), where
                case "in scope" if of_a_vm:
                    assert hidden is (word == "own" and whose == "theirs"), where
                    assert answer.status not in (401, 403), where
                case "in scope":
                    # Of lists that, and of tasks, what is one's own is looked at elsewhere.
                    assert answer.status not in (401, 403), where
                case "oneself":
                    assert (answer.status == 403) is (verb != "token_list"), where
                case _:
                    pytest.fail(f"nobody looks at {cell!r}")


def test_nobody_is_let_in_anywhere(client: TestClient) -> None:
    for verb in VERBS_WITH_ROUTES:
        assert asked(client, verb, "mine", "vorch_0_0").status == 401, verb


def test_the_table_has_every_route(client: TestClient) -> None:
    document = client.get("/openapi.json", headers={"Authorization": f"Bearer {TOKEN}"}).json()
    there = {
        (method.upper(), path)
        for path, operations in document["paths"].items()
        for method in operations
    }
    told = {rights_page.route(verb) for verb in VERBS_WITH_ROUTES} | {*rights_page.ALSO}
    assert there - told == set()
    # These are there when a provider of logins is set.
    assert told - there <= {("GET", "/v1/login/oidc"), ("GET", "/v1/login/oidc/done")}


def test_what_is_listed_is_one_s_own(
    client: TestClient, secrets: dict[tuple[Role, str], str]
) -> None:
    for (role, word), secret in secrets.items():
        answer = asked(client, "list", "", secret)
        names = {one["vm"]["name"] for one in json.loads(answer.body)}
        sees_all = word == "all" or role.covers(Role.OPERATOR)
        assert names == ({"mine", "theirs"} if sees_all else {"mine"}), (role, word)
