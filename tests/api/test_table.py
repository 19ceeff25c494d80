"""The table, the verbs and the OpenAPI document say the same, and to look changes nothing."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.cli.test_verbs import OF_THE_LIBRARY_ALONE
from vorch import VERBS, Orchestrator, call_of, connect, errors
from vorch.decide.rights import NEEDS
from vorch.drivers import memory
from vorch.remote import RemoteOrchestrator
from vorch.verbs import NOT_OVER_HTTP, ROLES
from vorch_api import create_app, reference
from vorch_api.bodies import model_of
from vorch_api.examples import EXAMPLES

TOKEN = "t" * 43
DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    memory.forget("api-table")
    with connect("memory:api-table") as found:
        found.create("web", disk_gib=1, networks=(), start=True)
        found.snapshot_create("web", "s1", freeze=False)
        found.ha_set("web")
        app = create_app(found, token=TOKEN, upkeep_every_s=None)
        with TestClient(app, headers={"Authorization": f"Bearer {TOKEN}"}) as client:
            yield client
    memory.forget("api-table")


@pytest.fixture(scope="module")
def document(client: TestClient) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/openapi.json").json()
    return found


def verbs() -> set[str]:
    return {
        name
        for name, _ in inspect.getmembers(Orchestrator, inspect.isfunction)
        if not name.startswith("_")
    } - OF_THE_LIBRARY_ALONE


def test_the_table_has_every_verb() -> None:
    assert set(VERBS) | set(NOT_OVER_HTTP) == verbs()
    assert not set(VERBS) & set(NOT_OVER_HTTP)


def test_no_two_verbs_are_the_same_route() -> None:
    routes = [(entry.method, re.sub(r"\{\w+\}", "{}", entry.path)) for entry in VERBS.values()]
    assert len(set(routes)) == len(routes)


@pytest.mark.parametrize("entry", VERBS.values(), ids=lambda entry: entry.verb)
def test_arguments_in_the_table_are_the_verb_s_own(entry: Any) -> None:
    parameters = call_of(entry.verb).parameters
    for name in (*([entry.named] if entry.named else []), *entry.places, *entry.secrets):
        assert name in parameters
    assert entry.role in ROLES
    # What changes something needs more than to be able to look.
    of_oneself = NEEDS[entry.verb].about == "self"
    assert (entry.role != "viewer") or entry.kind in ("read", "stream") or of_oneself
    # Routes are told by one table, rights are decided by the other.
    assert entry.role == NEEDS[entry.verb].role
    # What a token's making answers is kept nowhere, so it is no job.
    task = entry.kind == "task" or entry.verb == "token_create"
    assert ("dry_run" in parameters) <= task


def test_passwords_are_secrets() -> None:
    for entry in VERBS.values():
        for name in call_of(entry.verb).parameters:
            if "password" in name:
                assert name in entry.secrets, (entry.verb, name)


@pytest.mark.parametrize("verb", sorted(EXAMPLES))
def test_examples_are_understood(verb: str) -> None:
    assert model_of(verb).model_validate_json(json.dumps(EXAMPLES[verb])) is not None


def test_what_needs_arguments_has_an_example() -> None:
    lacking = {
        verb
        for verb in VERBS
        if any(field.is_required() for field in model_of(verb).model_fields.values())
    } - set(EXAMPLES)
    assert lacking == set()


def test_the_document_has_each_verb_once(document: dict[str, Any]) -> None:
    operations = {
        about["operationId"]: (method.upper(), path)
        for path, methods in document["paths"].items()
        for method, about in methods.items()
    }
    for entry in VERBS.values():
        assert operations[entry.verb] == (entry.method, entry.path)


def test_the_document_refers_to_what_is_in_it(document: dict[str, Any]) -> None:
    text = json.dumps(document)
    names = set(re.findall(r'"#/components/schemas/([^"]+)"', text))
    assert names <= set(document["components"]["schemas"])
    assert {"VmStatus", "Job", "Task", "Problem", "Plan"} <= names
    assert "#/$defs" not in text


def test_every_answer_and_error_is_in_the_document(document: dict[str, Any]) -> None:
    for entry in VERBS.values():
        responses = document["paths"][entry.path][entry.method.lower()]["responses"]
        assert {"401", "403", "422", "503"} <= set(responses)
        if entry.kind == "task":
            assert {"200", "202", "409", "412", "507"} <= set(responses)
    codes = document["components"]["schemas"]["Problem"]["properties"]["code"]["enum"]
    assert {kind.code for kind in errors.ALL} < set(codes)
    numbers = {str(kind.http_status) for kind in errors.ALL}
    assert numbers <= set(document["paths"]["/v1/vms"]["post"]["responses"])


@pytest.mark.parametrize(
    "entry",
    [entry for entry in VERBS.values() if entry.kind == "read"],
    ids=lambda entry: entry.verb,
)
def test_to_look_changes_nothing(client: TestClient, entry: Any) -> None:
    cluster: Orchestrator = client.app.state.cluster  # type: ignore[attr-defined]
    before, _ = cluster.world.state.changes(0, 0)
    names = {"vm": "web", "node": cluster.node_list()[0].node.name}
    path = entry.path.replace("{name}", names.get(entry.about, "nosuch"))
    path = path.replace("{pool}", cluster.pool_list()[0][0].name)
    answer = client.get(re.sub(r"\{\w+\}", "nosuch", path), params=EXAMPLES.get(entry.verb, {}))
    if "nosuch" in str(answer.url):
        assert answer.status_code == 404, answer.text
        assert answer.json()["code"] == "not-found"
    elif entry.verb.startswith("whatif"):
        assert answer.status_code in (200, 404), answer.text
    else:
        assert answer.status_code == 200, answer.text
    assert cluster.world.state.changes(0, 0)[0] == before


@pytest.mark.parametrize("entry", VERBS.values(), ids=lambda entry: entry.verb)
def test_what_makes_no_sense_is_refused(client: TestClient, entry: Any) -> None:
    """An argument that the verb does not know is never passed over."""
    path = re.sub(r"\{\w+\}", "web", entry.path)
    if entry.method in ("GET", "DELETE"):
        answer = client.request(entry.method, path, params={"nosuch": "1"})
    else:
        answer = client.request(entry.method, path, json={"nosuch": 1})
    assert answer.status_code == 422, answer.text
    assert answer.json()["code"] == "invalid"


@pytest.mark.parametrize("entry", VERBS.values(), ids=lambda entry: entry.verb)
def test_the_remote_one_has_each_verb_in_the_same_words(entry: Any) -> None:
    here, there = getattr(Orchestrator, entry.verb), getattr(RemoteOrchestrator, entry.verb)
    assert here is not there
    assert inspect.signature(here) == inspect.signature(there)


def test_the_remote_one_leaves_nothing_to_a_world_that_it_has_not() -> None:
    public = {name for name in dir(Orchestrator) if not name.startswith("_")}
    inherited = {
        name for name in public if getattr(Orchestrator, name) is getattr(RemoteOrchestrator, name)
    }
    assert inherited == set()


def test_the_page_is_up_to_date() -> None:
    assert (DOCS / "api.md").read_text(encoding="utf-8") == reference.text(), "run: make docs"
