"""Requests made from the OpenAPI document, sent as each role, and held against the document."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import jsonschema_rs
import requests
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from schemathesis.core.result import Ok

from tests.api.straight import Answer, ask
from vorch import Orchestrator, Quota, Settings, connect
from vorch.drivers import memory
from vorch_api import create_app
from vorch_api.examples import EXAMPLES
from vorch_api.headers import ALWAYS, UNLESS_SAID

TOKEN = "t" * 43
HOME = "https://vorch.example"
PROBLEM = "application/problem+json"
# Headers that any answer may have.
ANY = {name.lower() for name in (*ALWAYS, *UNLESS_SAID)} | {
    "content-length",
    "content-type",
    "strict-transport-security",
    "x-accel-buffering",
}
CHECKS = {
    # What vorch says of "no room" and "this cannot do it" begins with a 5; others would be faults.
    "not_a_server_error": {"expected-statuses": ["2xx", "3xx", "4xx", "501", "507"]},
    # Wrong here: it takes each 422 for a fault, and 422 is also what is said of arguments that do
    # not go together or are no name, which no schema can say. `_understood` looks at the rest.
    "positive_data_acceptance": {"enabled": False},
    # It sends requests itself, to an address that is none. Here nobody sends each case as well.
    "ignored_auth": {"enabled": False},
    # `_body` does that. Of what is in a tuple (prefixItems) this one makes a schema that is none.
    "response_schema_conformance": {"enabled": False},
}
CONFIG = {"generation": {"with-security-parameters": False}, "checks": CHECKS}

schemathesis.serializer.alias("application/offset+octet-stream", "application/octet-stream")


class Conforming:
    """A service before a world in memory, everybody who may come, and what was found."""

    def __init__(self, cluster: Orchestrator, client: TestClient) -> None:
        self._cluster = cluster
        self._client = client
        self._tokens: dict[str, str] = {}
        self.furnish()
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        self.document: dict[str, Any] = client.get("/openapi.json", headers=bearer).json()
        self._schema = schemathesis.openapi.from_dict(
            self.document, config=schemathesis.Config.from_dict(CONFIG)
        )
        self._validators: dict[str, Any] = {}
        self.found: dict[tuple[str, ...], str] = {}
        self.sent = 0

    def furnish(self) -> None:
        """What there is to be asked for, as an admin's requests may have taken it away."""
        cluster = self._cluster
        there = {one.vm.name for one in cluster.list()}
        for name, tags in (("web", ("owner:alice",)), ("db", ())):
            if name not in there:
                cluster.create(name, disk_gib=1, networks=(), tags=tags, start=name == "web")
        known = {one.user.name for one in cluster.user_list()}
        for name, role in (("olga", "operator"), ("vic", "viewer"), ("alice", "user")):
            if name not in known:
                cluster.user_add(name, role=role, quota=Quota(vms=9))
                self._tokens[name] = cluster.token_create(name).secret
            elif self._status(self._tokens[name]) != 200:
                cluster.user_change(name, role=role, disabled=False)
                self._tokens[name] = cluster.token_create(name).secret

    def _status(self, token: str) -> int:
        bearer = [(b"authorization", f"Bearer {token}".encode())]
        return ask(self._client, "GET", "/v1/self", headers=bearer).status

    @property
    def _all(self) -> dict[str, str]:
        return {
            "none": "",
            "viewer": self._tokens["vic"],
            "user": self._tokens["alice"],
            "operator": self._tokens["olga"],
            "admin": TOKEN,
        }

    def try_all(self, wanted: Callable[[str], bool], examples: int) -> None:
        """Each operation whose path is wanted, with so many requests of each kind as each role."""
        for result in self._schema.get_all_operations():
            assert isinstance(result, Ok), result
            operation = result.ok()
            if not wanted(operation.path):
                continue
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

                def send(case: Case[Any]) -> None:
                    for role, token in self._all.items():
                        self._send(case, role, token)

                quick = settings(
                    max_examples=examples,
                    deadline=None,
                    database=None,
                    suppress_health_check=list(HealthCheck),
                    phases=[Phase.generate],
                )
                made = given(case=operation.as_strategy(generation_mode=mode))(send)
                try:
                    seed(examples)(quick(made))()
                except Unsatisfiable:
                    # Where nothing is asked for, nothing can be asked for wrongly.
                    assert mode is GenerationMode.NEGATIVE, operation.label
            self.furnish()

    # -- one request

    def _send(self, case: Case[Any], role: str, token: str) -> None:
        given = case.as_transport_kwargs(base_url=HOME)
        headers = {
            name: value for name, value in given.get("headers", {}).items() if value is not None
        }
        if token:
            headers["Authorization"] = f"Bearer {token}"
        request = requests.Request(
            given["method"],
            given["url"],
            headers=headers,
            params=given.get("params"),
            json=given.get("json"),
            data=given.get("data"),
            cookies=given.get("cookies"),
        ).prepare()
        body = request.body or b""
        answer = ask(
            self._client,
            str(request.method),
            request.path_url,
            headers=[(_bytes(name).lower(), _bytes(one)) for name, one in request.headers.items()],
            body=body.encode() if isinstance(body, str) else cast(bytes, body),
        )
        self.sent += 1
        said = f"{role}: {request.method} {request.path_url} {body[:300]!r} {dict(headers)}"
        told = f"{answer.status} {answer.text[:600]}"
        for wrong in (*self._wrong(case, answer), *_by_checks(case, answer, request, headers)):
            key = (case.operation.label, str(answer.status), wrong[:60])
            self.found.setdefault(key, f"{wrong}\n  {said}\n  {told}")

    def _wrong(self, case: Case[Any], answer: Answer) -> Iterator[str]:
        """What no check of schemathesis sees to."""
        path, method = case.operation.path, case.operation.method.lower()
        about = self.document["paths"][path][method]["responses"].get(str(answer.status))
        if about is None:
            # The checks say so.
            return
        told = {name.lower() for name in about.get("headers", {})}
        silent = {name.decode() for name, _ in answer.headers} - told - ANY
        if silent:
            yield f"headers that the document does not tell of: {sorted(silent)}"
        if answer.status >= 400 and answer.kind != PROBLEM:
            yield "what went wrong is no problem+json"
        if "Traceback" in answer.text or ".py" in answer.text:
            yield "it shows something of the inside"
        positive = case.meta is not None and case.meta.generation.mode is GenerationMode.POSITIVE
        if positive and "cannot read the request" in answer.text and _understood(answer):
            yield "what the document allows is not understood"
        if answer.body and method != "head" and answer.kind in ("application/json", PROBLEM):
            yield from self._body(about["content"][answer.kind]["schema"], answer)

    def _body(self, schema: Mapping[str, Any], answer: Answer) -> Iterator[str]:
        key = json.dumps(schema)
        validator = self._validators.get(key)
        if validator is None:
            whole = {**schema, "components": self.document["components"]}
            validator = jsonschema_rs.Draft202012Validator(whole)
            self._validators[key] = validator
        for error in validator.iter_errors(json.loads(answer.body)):
            yield f"the body is not as the document has it: {error.message[:200]}"
            return


def _understood(answer: Answer) -> bool:
    """A query has its own ways to say the same thing twice, which no schema tells of."""
    return "stands in its query twice" not in answer.text


def _by_checks(
    case: Case[Any], answer: Answer, request: requests.PreparedRequest, headers: dict[str, str]
) -> Iterator[str]:
    told: dict[str, list[str]] = {}
    for name, value in answer.headers:
        told.setdefault(name.decode(), []).append(value.decode("latin-1"))
    response = schemathesis.Response(
        status_code=answer.status,
        headers=told,
        content=answer.body,
        request=request,
        elapsed=0.0,
        verify=True,
        encoding="utf-8",
        stream_cut_short=answer.cut,
    )
    try:
        case.validate_response(response, headers=headers)
    except BaseExceptionGroup as group:
        for one in group.exceptions:
            yield f"{type(one).__name__}: {one}"
    except AssertionError as one:
        yield f"{type(one).__name__}: {one}"


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("latin-1", "replace")


@contextmanager
def conforming(name: str) -> Iterator[Conforming]:
    memory.forget(name)
    quick = Settings(uri=f"memory:{name}", password_memory_mib=1, password_rounds=1)
    # So that nothing is asked of the network.
    files = memory.world_named(name).files
    files.made_up[str(EXAMPLES["image_import"]["location"])] = bytes(1024**2)
    with connect(settings=quick) as cluster:
        app = create_app(cluster, token=TOKEN, upkeep_every_s=None)
        with TestClient(app, base_url=HOME, raise_server_exceptions=False) as client:
            yield Conforming(cluster, client)
    memory.forget(name)
