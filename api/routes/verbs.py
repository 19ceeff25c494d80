"""A route for each verb in the table, made from the table and the verb's own signature."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from vorch import (
    VERBS,
    ConsoleTicket,
    Desk,
    Invalid,
    Job,
    JobState,
    Minted,
    Verb,
    call_of,
    error_from_dict,
    json_text,
    shown,
    to_json,
)

from ..asking import permit, who_asks
from ..bodies import from_body, from_query, in_path
from ..connection import connected as cluster_of
from ..connection import pictured
from ..problems import problem
from . import lists, streams

# How long an answer waits for the end of what was asked for, unless told otherwise (Prefer: wait).
WAIT_S = 1.0
WAIT_MOST_S = 60.0
JSON = "application/json"

Endpoint = Callable[[Request], Awaitable[Response]]


def add_to(app: FastAPI) -> None:
    for entry in VERBS.values():
        app.add_route(entry.path, endpoint(entry), methods=[entry.method], include_in_schema=False)


def endpoint(entry: Verb) -> Endpoint:
    if entry.kind == "stream":
        return streams.watching(entry)
    if entry.verb == "list":
        return lists.vms
    if entry.kind == "read" and lists.is_list(entry):
        return lists.of(entry)
    if entry.kind == "read":
        return _reading(entry)
    return _acting(entry)


def desk_of(request: Request) -> Desk:
    found: Desk = request.app.state.desk
    return found


def _reading(entry: Verb) -> Endpoint:
    kind = call_of(entry.verb).returns

    async def read(request: Request) -> Response:
        arguments = {
            **from_query(request, entry.verb, but=(lists.FIELDS,)),
            **in_path(request, entry.verb),
        }
        chosen = lists.fields_of(request, kind)

        def look() -> Response:
            headers = {}
            # Before: what is shown may be newer than that, never older.
            if entry.document:
                version = desk_of(request).version(entry.verb, arguments)
                headers = {"ETag": f'"{version}"'} if version else {}
            if entry.verb == "node_show":
                permit(request, entry, arguments)
                # The verb tries out what a host can, if nobody has; to look changes nothing here.
                value: Any = pictured(request).node(arguments["name"])
            else:
                value = getattr(cluster_of(request), entry.verb)(**arguments)
            if entry.verb == "dump":
                return Response(json_text(value.document()), media_type=JSON)
            return Response(to_json(value, kind, chosen), media_type=JSON, headers=headers)

        if entry.verb == "job_show":
            await _ended(request, str(arguments["job_id"]), _wait_s(request, default=0.0))
        return await run_in_threadpool(look)

    return read


def _acting(entry: Verb) -> Endpoint:
    async def act(request: Request) -> Response:
        if entry.method == "DELETE":
            arguments = from_query(request, entry.verb)
        else:
            if request.query_params:
                raise Invalid(
                    "cannot read the request: there are words in its query; say them in its body"
                )
            arguments = await from_body(request, entry.verb)
        arguments |= in_path(request, entry.verb)
        await run_in_threadpool(permit, request, entry, arguments)
        key = request.headers.get("idempotency-key", "")
        wait_s = _wait_s(request, default=WAIT_S)
        expected = _expected(request, entry, arguments)
        if arguments.get("dry_run") or entry.kind == "change":
            return await run_in_threadpool(_at_once, request, entry, arguments, expected)
        job = await run_in_threadpool(
            lambda: desk_of(request).take(
                entry.verb,
                arguments,
                who=who_asks(request),
                cluster=cluster_of(request),
                key=key,
                expected=expected,
            )
        )
        return _answer(entry, await _ended(request, job.id, wait_s, job))

    return act


def _at_once(
    request: Request, entry: Verb, arguments: Mapping[str, Any], expected: Mapping[str, int]
) -> Response:
    desk_of(request).check(expected)
    value = getattr(cluster_of(request), entry.verb)(**arguments)
    if value is None:
        return Response(status_code=204)
    if isinstance(value, Minted | ConsoleTicket):
        # The one answer with a secret in it, and the only time that it is seen.
        return Response(json_text({**shown(value), "secret": value.secret}), media_type=JSON)
    return Response(to_json(value, call_of(entry.verb).returns), media_type=JSON)


async def _ended(request: Request, job_id: str, wait_s: float, job: Job | None = None) -> Job:
    """Without a thread that waits: there are few, and jobs may be many."""
    desk = desk_of(request)
    future = desk.future(job_id)
    if future is not None:
        done, _ = await asyncio.wait([asyncio.wrap_future(future)], timeout=wait_s)
        if done:
            return await run_in_threadpool(desk.wait, job_id, 0.0)
    elif job is not None and job.over:
        return job
    else:
        # One that has just ended, or of another process.
        until = asyncio.get_running_loop().time() + wait_s
        while True:
            job = await run_in_threadpool(desk.wait, job_id, 0.0)
            if job.over or asyncio.get_running_loop().time() >= until:
                return job
            await asyncio.sleep(0.2)
    return await run_in_threadpool(desk.wait, job_id, 0.0)


def _answer(entry: Verb, job: Job) -> Response:
    headers = {"Vorch-Job": job.id}
    if not job.over:
        headers["Location"] = f"/v1/jobs/{job.id}"
        return Response(to_json(job, Job), 202, headers=headers, media_type=JSON)
    if job.state is not JobState.DONE:
        return problem(error_from_dict(dict(job.error or {})), headers=headers)
    if entry.creates:
        headers["Location"] = f"{entry.path}/{quote(job.subject, safe='')}"
    if job.result is None:
        return Response(status_code=204, headers=headers)
    status = 201 if entry.creates else 200
    return Response(json_text(job.result), status, headers=headers, media_type=JSON)


def _expected(request: Request, entry: Verb, arguments: Mapping[str, Any]) -> dict[str, int]:
    """What If-Match says: versions that documents must still be at."""
    given = request.headers.get("if-match", "").strip()
    if not given or given == "*":
        return {}
    found = re.fullmatch(r'"(\d{1,18})"', given)
    if found is None:
        raise Invalid(
            f"cannot use If-Match {given[:80]!r}: it is the ETag of what is to be changed, as GET"
            " shows it"
        )
    if not entry.document or entry.creates:
        raise Invalid(
            f"cannot {entry.verb} with If-Match: it is not about one thing that has an ETag;"
            " leave it out"
        )
    return {f"{entry.document}/{arguments[entry.named]}": int(found[1])}


def _wait_s(request: Request, *, default: float) -> float:
    """Prefer: wait=N (RFC 7240); what is not understood there is to be passed over."""
    found = re.search(r"(?:^|[,;\s])wait\s*=\s*(\d{1,6})", request.headers.get("prefer", ""))
    return default if found is None else min(float(found[1]), WAIT_MOST_S)
