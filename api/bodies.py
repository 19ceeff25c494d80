"""What a request to a verb brings with it, checked against the verb's own signature."""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from starlette.requests import Request

from vorch import VERBS, Invalid, TimedOut, call_of

# Answer files and user-data have up to a MiB; in JSON it can be six times as much.
BODY_LIMIT = 8 * 1024 * 1024
QUERY_LIMIT = 64
# What floating point and other languages' JSON still tell from its neighbours.
MOST = 2**53
# Whoever sends nothing of a body for so long gives way to others.
SILENT_S = 30.0
# What names a file of the service's machine, or the URL of something elsewhere.
PATHS = frozenset({"path", "location", "kernel", "initrd", "url"})
SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


@functools.cache
def model_of(verb: str) -> type[BaseModel]:
    """All arguments but the one in the path; what the verb does not know is refused."""
    entry, call = VERBS[verb], call_of(verb)
    fields: dict[str, Any] = {}
    for name, one in call.parameters.items():
        # A callable is for programs in this process.
        if name == entry.in_path or (entry.kind == "stream" and name == "show"):
            continue
        # Mutable ones would be shown as shared in the schema.
        fields[name] = (one.annotation, ... if one.required else one.default)
    title = "".join(word.capitalize() for word in verb.split("_"))
    return create_model(
        f"{title}Arguments", __config__=ConfigDict(extra="forbid", allow_inf_nan=False), **fields
    )


async def from_body(request: Request, verb: str) -> dict[str, Any]:
    """The arguments in the JSON body; none is as good as {}."""
    raw = await _read(request)
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip()
    if raw and kind.lower() != "application/json":
        raise Invalid(f"cannot read the request: its body is {kind!r}; send application/json")
    model = model_of(verb)
    try:
        # Strictly: neither is "5" a number there, nor is true.
        found = model.model_validate_json(raw or b"{}", strict=True)
    except ValidationError as exc:
        raise unreadable(exc) from exc
    except RecursionError as exc:
        raise Invalid("cannot read the request: its body is nested too deeply") from exc
    given = _given(found)
    for name in PATHS & given.keys():
        _check_whole(name, given[name])
    return given


def from_query(request: Request, verb: str, *, but: tuple[str, ...] = ()) -> dict[str, Any]:
    model = model_of(verb)
    query = request.query_params
    if len(query.multi_items()) > QUERY_LIMIT:
        raise Invalid(f"cannot read the request: more than {QUERY_LIMIT} words in its query")
    given: dict[str, Any] = {}
    for name in dict.fromkeys(query):
        if name in but:
            continue
        values = query.getlist(name)
        field = model.model_fields.get(name)
        if field is not None and _takes_several(field.annotation):
            given[name] = values
        elif len(values) > 1:
            raise Invalid(f"cannot read the request: {name!r} stands in its query twice")
        else:
            given[name] = values[0]
    try:
        return _given(model.model_validate(given))
    except ValidationError as exc:
        raise unreadable(exc) from exc


def in_path(request: Request, verb: str) -> dict[str, Any]:
    name = VERBS[verb].in_path
    return {name: request.path_params[name]} if name else {}


def unreadable(exc: ValidationError) -> Invalid:
    first = exc.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return Invalid(
        f"cannot read the request: {where or 'its body'}: {first['msg']}; see /openapi.json"
    )


def _given(model: BaseModel) -> dict[str, Any]:
    """What was said, and nothing that was not: the verb has defaults of its own."""
    given = {name: getattr(model, name) for name in model.model_fields_set}
    for name, value in given.items():
        _check_numbers(name, value)
    return given


def _check_whole(name: str, value: Any) -> None:
    """Where the service happens to have been started says nothing to who is far away."""
    if not isinstance(value, str):
        return
    where = value.removeprefix("local:")
    if not where.startswith("/") and (where != value or SCHEME.match(value) is None):
        raise Invalid(
            f"cannot use {value[:200]!r} as {name!r}: it is no whole path; begin it with /, or name"
            " a URL"
        )


def _check_numbers(name: str, value: Any) -> None:
    """Nothing here has that many of anything, and to reckon with them would fail oddly."""
    if isinstance(value, int | float) and abs(value) > MOST:
        raise Invalid(f"cannot use {name!r}: it is larger than {MOST}, the most that is known here")
    if isinstance(value, Mapping):
        value = value.values()
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        for one in value:
            _check_numbers(name, one)


def _takes_several(annotation: Any) -> bool:
    return any(
        get_origin(one) in (Sequence, list, tuple) for one in (annotation, *get_args(annotation))
    )


async def _read(request: Request) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and int(declared[:20]) > BODY_LIMIT:
        raise _too_large()
    found = bytearray()
    stream = request.stream().__aiter__()
    while True:
        try:
            found += await asyncio.wait_for(anext(stream), SILENT_S)
        except StopAsyncIteration:
            return bytes(found)
        except TimeoutError as exc:
            raise TimedOut(
                f"cannot read the request: nothing of its body came for {SILENT_S:g} s; send it"
                " again"
            ) from exc
        if len(found) > BODY_LIMIT:
            raise _too_large()


def _too_large() -> Invalid:
    return Invalid(
        f"cannot read the request: its body is larger than {BODY_LIMIT // 1024 // 1024} MiB"
    )
