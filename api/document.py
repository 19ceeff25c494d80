"""The OpenAPI document: every route of the table with its arguments, answers, errors, examples."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from pydantic import TypeAdapter

from vorch import (
    NEEDS,
    VERBS,
    Job,
    Task,
    Verb,
    __version__,
    adapter_of,
    call_of,
    errors_table,
    item_of,
)

from . import beside
from .beside import told
from .bodies import model_of
from .examples import EXAMPLES
from .routes import lists
from .steady import Steady, answer, steady

REF = "#/components/schemas/{model}"
# Each of a stream.
EVENT = {
    "type": "object",
    "required": ["event", "data"],
    "properties": {
        "event": {"type": "string"},
        "data": {"type": "string", "contentMediaType": "application/json"},
        "id": {"type": "string", "description": "For Last-Event-ID."},
    },
}
PROBLEM = {"$ref": "#/components/schemas/Problem"}
# What may go wrong everywhere: a token, a right, a store, vorch itself.
EVERYWHERE = (401, 403, 422, 429, 500, 503, 504)
OF_A_THING = (404,)
OF_A_CHANGE = (409, 412, 501, 507)
WORDS = {
    401: "Nobody is known by that token.",
    403: "Whoever asks may not do that.",
    404: "There is no such thing, or it is not to be seen.",
    409: "Somebody else is at it, or it is not in the state that this needs.",
    412: "It was changed since it was looked at.",
    422: "It makes no sense; nothing was touched.",
    429: "Too much at once; Retry-After says when it is worth another try.",
    500: "It failed; what had been done was undone, or the message says so.",
    501: "This host, pool or guest cannot do it.",
    503: "A host or the store does not answer.",
    504: "It did not happen in its time.",
    507: "There is no room for it.",
    **beside.WORDS,
}
# Of a problem, by its number.
TOLD = {
    401: {"WWW-Authenticate": told("Bearer")},
    412: {"Tus-Version": told("With uploads: versions of the protocol that are known.")},
    416: {"Content-Range": told("How many bytes there are.")},
    429: {"Retry-After": told("Seconds after which it is worth another try.")},
}


# It takes a second to make, and depends on nothing but which routes there are.
_made: dict[frozenset[str], tuple[dict[str, Any], Steady]] = {}
_making = threading.Lock()


def add_to(app: FastAPI) -> None:
    def made() -> tuple[dict[str, Any], Steady]:
        routes = frozenset(str(getattr(one, "path", "")) for one in app.routes)
        with _making:
            if routes not in _made:
                found = document(app)
                _made[routes] = found, steady(json.dumps(found).encode(), "application/json")
            return _made[routes]

    app.openapi = lambda: made()[0]  # type: ignore[method-assign]

    @app.get("/openapi.json", include_in_schema=False)
    def openapi_json(request: Request) -> Response:
        return answer(request, made()[1], {"Cache-Control": "no-cache"})


def document(app: FastAPI) -> dict[str, Any]:
    found = get_openapi(
        title="vorch",
        version=__version__,
        description="One route for each verb of the library; docs/api.md says what all have alike.",
        routes=app.routes,
    )
    schemas: dict[str, Any] = found.setdefault("components", {}).setdefault("schemas", {})
    schemas["Problem"] = problem_schema()
    for kind in (Job, Task):
        _add(schemas, TypeAdapter(kind))
    schemas.pop("HTTPValidationError", None)
    schemas.pop("ValidationError", None)
    for path, operations in found["paths"].items():
        for method, one in operations.items():
            one["responses"] |= _problems(beside.complete(method, path, one))
    for entry in VERBS.values():
        place = found["paths"].setdefault(entry.path, {})
        place[entry.method.lower()] = operation(entry, schemas)
    for name, one in schemas.items():
        # What is unknown is refused, and never sent. Of forms that FastAPI reads it is passed over.
        if "properties" in one and name != "Problem" and not name.startswith("Body_"):
            one.setdefault("additionalProperties", False)
    found["paths"]["/v1/events"] = {"get": _events()}
    found["components"]["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer", "description": "A token."}
    }
    found["security"] = [{"bearer": []}]
    return found


def problem_schema() -> dict[str, Any]:
    codes = errors_table()
    return {
        "type": "object",
        "description": "RFC 9457, with vorch's own code and the facts of the message as fields.",
        "required": ["type", "title", "status", "detail", "code", "fields"],
        "properties": {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string", "description": "cannot WHAT: WHY; WHAT TO DO"},
            "code": {"type": "string", "enum": ["error", *codes]},
            "fields": {"type": "object", "additionalProperties": True},
        },
    }


def operation(entry: Verb, schemas: dict[str, Any]) -> dict[str, Any]:
    call = call_of(entry.verb)
    made: dict[str, Any] = {
        "operationId": entry.verb,
        "summary": call.summary,
        "description": call.description,
        "tags": [entry.about],
        "parameters": _parameters(entry, schemas),
        "responses": _responses(entry, schemas),
        "x-vorch-role": entry.role,
    }
    above = NEEDS[entry.verb].above
    if above:
        # Arguments that take a higher role than the verb itself.
        made["x-vorch-above"] = {name: str(role) for name, role in above.items()}
    if entry.method in ("POST", "PATCH"):
        ref = _add(schemas, TypeAdapter(model_of(entry.verb)), mode="validation")
        required = any(field.is_required() for field in model_of(entry.verb).model_fields.values())
        content: dict[str, Any] = {"schema": ref}
        if entry.verb in EXAMPLES:
            content["example"] = EXAMPLES[entry.verb]
        made["requestBody"] = {"required": required, "content": {"application/json": content}}
    return made


def _parameters(entry: Verb, schemas: dict[str, Any]) -> list[dict[str, Any]]:
    found = []
    if entry.in_path:
        found.append(
            {
                "name": entry.in_path,
                "in": "path",
                "required": True,
                "schema": {"type": "string", "minLength": 1},
            }
        )
    if entry.method in ("GET", "DELETE"):
        model = model_of(entry.verb)
        whole = model.model_json_schema(ref_template=REF)
        schemas.update(whole.get("$defs", {}))
        for name, schema in whole.get("properties", {}).items():
            one = {"name": name, "in": "query", "schema": schema}
            one["required"] = name in whole.get("required", ())
            if name in EXAMPLES.get(entry.verb, {}):
                one["example"] = EXAMPLES[entry.verb][name]
            found.append(one)
    if entry.verb == "list" or (entry.kind == "read" and lists.is_list(entry)):
        found += _list_parameters(entry)
    elif entry.kind == "read" and entry.verb != "dump":
        found.append(
            _query(
                "fields",
                "Fields to show, by commas, as in vm.name,power: the answer has no others.",
            )
        )
    if entry.kind == "task":
        found.append(_header("Prefer", "wait=N: how long the answer may wait for the end."))
        found.append(_header("Idempotency-Key", "A second request with it is the first one."))
    if entry.document and not entry.creates and entry.kind == "task":
        found.append(_header("If-Match", "Only if its ETag is still this one."))
    return found


def _list_parameters(entry: Verb) -> list[dict[str, Any]]:
    found = [
        _query("fields", "Fields to show, by commas: the answer has no others."),
        _query("cursor", "Where the page begins: from the Link of the page before it."),
        {
            "name": "limit",
            "in": "query",
            "schema": {"type": "integer", "minimum": 1, "maximum": lists.LIMIT_MOST},
            "description": "How many at most; all without it.",
        },
    ]
    words = "Of several values of one filter any will do; all filters must be met."
    if entry.verb == "list":
        for name in ("state", "node", "tag", "name", "name~"):
            found.append({**_query(name, words), "explode": True})
    return found


def _query(name: str, words: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": {"type": "string"}, "description": words}


def _header(name: str, words: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "schema": {"type": "string"}, "description": words}


def _responses(entry: Verb, schemas: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if entry.kind == "stream":
        found["200"] = {
            "description": f"Events `task` and `job` until the {entry.about} is over.",
            "content": {"text/event-stream": {"schema": EVENT}},
        }
    else:
        found |= _good(entry, schemas)
    numbers = {*EVERYWHERE}
    if entry.kind in ("task", "change"):
        numbers |= {*OF_A_CHANGE}
    if entry.named or entry.kind == "task" or call_of(entry.verb).parameters:
        numbers |= {*OF_A_THING}
    job = {"Vorch-Job": told("The job that it was, if it came so far.")}
    return found | _problems(numbers, job if entry.kind == "task" else {})


def _problems(numbers: Iterable[int], headers: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Those answers, by their numbers."""
    found = {}
    for number in sorted(numbers):
        answer = {
            "description": WORDS[number],
            "content": {"application/problem+json": {"schema": PROBLEM}},
        }
        also = {**TOLD.get(number, {}), **(headers or {})}
        found[str(number)] = answer | ({"headers": also} if also else {})
    return found


def _good(entry: Verb, schemas: dict[str, Any]) -> dict[str, Any]:
    returns = call_of(entry.verb).returns
    if returns is type(None):
        return {"204": {"description": "It was asked for."}}
    if entry.verb == "dump":
        schema: dict[str, Any] = {"type": "object", "additionalProperties": True}
    else:
        schema = _add(schemas, adapter_of(returns))
    whole = {"application/json": {"schema": schema}}
    if entry.kind == "read":
        answer: dict[str, Any] = {"description": "What there is.", "content": whole}
        headers = {}
        if entry.document:
            headers["ETag"] = told("The version of its definition, for If-Match.")
        if item_of(returns) is not None:
            headers["Link"] = told("The next page, if there is one.")
            headers["X-Total-Count"] = told("How many there are on all pages.")
        return {"200": {**answer, **({"headers": headers} if headers else {})}}
    job = {"Vorch-Job": told("The job that it was.")}
    done = {"description": "It is done.", "content": whole, "headers": job}
    plan = {"description": "The plan (dry_run).", "content": whole}
    under_way = {
        "description": "It is under way: the job, and where to ask for it.",
        "content": {"application/json": {"schema": {"$ref": REF.format(model="Job")}}},
        "headers": {**job, "Location": told("/v1/jobs/ID")},
    }
    if entry.creates:
        where = {**job, "Location": told("Where what was made is found.")}
        return {"200": plan, "201": {**done, "headers": where}, "202": under_way}
    return {"200": done, "202": under_way}


def _events() -> dict[str, Any]:
    return {
        "operationId": "events",
        "summary": "What happens, as server-sent events.",
        "description": "docs/api.md says which there are, and how to go on after a break.",
        "tags": ["events"],
        "parameters": [
            _query("kind", "Kinds of events, by commas; all without it."),
            _query("since", "As Last-Event-ID, for those who cannot send headers."),
            _header("Last-Event-ID", "The last id that was heard: all that came after it is told."),
        ],
        "responses": {
            "200": {
                "description": "Events, for as long as they are listened to.",
                "content": {"text/event-stream": {"schema": EVENT}},
            },
            **_problems(EVERYWHERE),
        },
        "x-vorch-role": "viewer",
    }


def _add(
    schemas: dict[str, Any], adapter: TypeAdapter[Any], *, mode: Any = "serialization"
) -> dict[str, Any]:
    """The schema of a type among the shared ones; a reference to it where it has a name."""
    schema = adapter.json_schema(mode=mode, ref_template=REF)
    for name, one in schema.pop("$defs", {}).items():
        schemas.setdefault(name, one)
    title = schema.get("title")
    if title and schema.get("type") == "object":
        schemas.setdefault(title, schema)
        return {"$ref": REF.format(model=quote(title))}
    return dict(schema)
