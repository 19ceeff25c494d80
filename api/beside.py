"""What the OpenAPI document says of routes that are no verbs, beyond what FastAPI knows of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .gate import OPEN
from .routes.uploads import PIECE, VERSION

# An answer's headers, with what each says.
Told = Mapping[str, str]

_TUS: Told = {"Tus-Resumable": f"The version of the protocol: {VERSION}."}
_STANDS: Told = {
    **_TUS,
    "Upload-Length": "How many bytes it is to have.",
    "Upload-Offset": "How many have come.",
    "Upload-Metadata": "`filename`, in Base64.",
    "Upload-Expires": "When it is thrown away, if nothing more comes.",
}
_OF_A_FILE: Told = {
    "Accept-Ranges": "bytes",
    "ETag": "For If-Range: it is the same for as long as the content is.",
    "Content-Disposition": "The name of a file for it.",
}


@dataclass(frozen=True, slots=True)
class Said:
    # Problems that it may answer with, beside those of every route.
    problems: tuple[int, ...] = ()
    # By the number of the answer.
    headers: Mapping[int, Told] = field(default_factory=dict)
    # What the answer is, where FastAPI does not know.
    content: Mapping[int, str] = field(default_factory=dict)
    # What comes in; None: what FastAPI says.
    body: str | None = None


SAID: Mapping[tuple[str, str], Said] = {
    ("get", "/health"): Said(),
    ("get", "/ready"): Said(),
    ("get", "/metrics"): Said(content={200: "text/plain"}),
    ("post", "/v1/login"): Said((403, 413), {200: {"Set-Cookie": "The login."}}),
    ("get", "/v1/login/oidc"): Said(
        (403,), {303: {"Location": "Where to log in.", "Set-Cookie": "For the way back."}}
    ),
    ("get", "/v1/login/oidc/done"): Said((403,), {200: {"Set-Cookie": "The login."}}),
    ("post", "/v1/logout"): Said(headers={204: {"Set-Cookie": "The end of the login."}}),
    ("get", "/v1/self"): Said(),
    ("options", "/v1/uploads"): Said(
        (501,),
        {
            204: {
                **_TUS,
                "Tus-Version": "Versions of the protocol that are known.",
                "Tus-Extension": "What is known beside its core.",
                "Tus-Max-Size": "The most bytes that one may have.",
                "Tus-Checksum-Algorithm": "sha256",
            }
        },
    ),
    ("get", "/v1/uploads"): Said((501,)),
    ("post", "/v1/uploads"): Said(
        (412, 501, 507), {201: {**_STANDS, "Location": "/v1/uploads/ID"}}, {201: ""}
    ),
    ("get", "/v1/uploads/{upload_id}"): Said((501,)),
    ("head", "/v1/uploads/{upload_id}"): Said((501,), {200: _STANDS}, {200: ""}),
    ("patch", "/v1/uploads/{upload_id}"): Said(
        (409, 412, 413, 415, 460, 501, 507), {204: _STANDS}, body=PIECE
    ),
    ("delete", "/v1/uploads/{upload_id}"): Said((501,), {204: _TUS}),
    ("get", "/v1/images/{name}/content"): Said(
        (416, 501),
        {200: _OF_A_FILE, 206: {**_OF_A_FILE, "Content-Range": "Which part of it this is."}},
        {200: "application/octet-stream", 206: "application/octet-stream"},
    ),
}
WORDS = {
    206: "The part that was asked for.",
    413: "More came than was said, or is taken.",
    415: f"A piece is {PIECE}.",
    416: "It has no such part.",
    460: "What came has another checksum than was said.",
}


def told(words: str) -> dict[str, Any]:
    return {"description": words, "schema": {"type": "string"}}


def complete(method: str, path: str, operation: dict[str, Any]) -> tuple[int, ...]:
    """Puts in what is missing; the numbers of problems that it may answer with."""
    said = SAID.get((method, path), Said())
    responses: dict[str, Any] = operation["responses"]
    # FastAPI's own form of this is never sent.
    responses.pop("422", None)
    for number, kind in said.content.items():
        answer = responses.setdefault(str(number), {"description": WORDS.get(number, "")})
        answer["content"] = {kind: {"schema": {"type": "string"}}} if kind else {}
    for number, headers in said.headers.items():
        responses[str(number)]["headers"] = {name: told(words) for name, words in headers.items()}
    for one in operation.get("parameters", ()):
        # What is left out is not there; there is no null in a header or query.
        kinds = one["schema"].pop("anyOf", None)
        if kinds is not None:
            one["schema"].update(next(kind for kind in kinds if kind != {"type": "null"}))
    if said.body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {said.body: {"schema": {"type": "string", "format": "binary"}}},
        }
    if path in OPEN:
        operation["security"] = []
    else:
        said = Said((*said.problems, 401, 403))
    missing = (404,) if "{" in path else ()
    return tuple(sorted({*said.problems, *missing, 422, 429, 500, 503, 504}))
