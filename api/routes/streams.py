"""Streams of server-sent events: all that happens, and how far one task or job is."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from vorch import Invalid, NotFound, Verb, shown

from ..asking import events_seen
from ..bodies import from_query, in_path
from ..connection import connected
from ..hub import Event, Hub

# A comment so often, so that neither side takes a silent stream for a dead one.
SIGN_OF_LIFE_S = 15.0
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
LATEST = 2**63 - 1


def hub_of(request: Request) -> Hub:
    return cast(Hub, request.app.state.hub)


async def events(request: Request) -> Response:
    """What happens, from now on or from the id that was heard last."""
    since = _last_id(request)
    kinds = frozenset(
        kind for one in request.query_params.getlist("kind") for kind in one.split(",") if kind
    )
    may_see = events_seen(request)
    hub = hub_of(request)

    async def stream() -> AsyncIterator[bytes]:
        with hub.listen() as listener:
            now, missed, whole = await run_in_threadpool(hub.since, since)
            yield b"retry: 2000\n\n"
            if not whole:
                yield _reset()
            for event in missed:
                if _told(event, kinds) and may_see(event.kind, event.name, event.data):
                    yield event.text
            yield Event("ready", "", {"revision": now}, now).text
            while True:
                if listener.lost:
                    # The client comes back with the last id that it has, and loses nothing.
                    return
                try:
                    heard = await listener.next(SIGN_OF_LIFE_S)
                except TimeoutError:
                    yield b": still here\n\n"
                    continue
                if heard is None:
                    return
                if _told(heard, kinds) and may_see(heard.kind, heard.name, heard.data):
                    yield heard.text
                elif heard.id:
                    yield f"id: {heard.id}\n\n".encode()

    return StreamingResponse(stream(), media_type="text/event-stream", headers=HEADERS)


def watching(entry: Verb) -> Callable[[Request], Awaitable[Response]]:
    """`task_watch` and `job_watch`: what it is now, then each change of it, until it is over."""
    kind = entry.about

    async def watch(request: Request) -> Response:
        arguments = {**from_query(request, entry.verb), **in_path(request, entry.verb)}
        timeout_s: float | None = arguments.get("timeout_s")
        wanted = arguments[entry.named]
        cluster = connected(request)
        look = getattr(cluster, f"{kind}_show")
        # Before anything is sent, so that what is not there is a proper answer.
        await run_in_threadpool(look, wanted)

        async def stream() -> AsyncIterator[bytes]:
            loop = asyncio.get_running_loop()
            until = None if timeout_s is None else loop.time() + timeout_s
            with hub_of(request).listen() as listener:
                seen: dict[str, Any] = {}
                while True:
                    # Looked at anew at each sign: so it does not matter which were missed.
                    try:
                        parts, over = await run_in_threadpool(_parts, cluster, kind, wanted)
                    except NotFound:
                        # Old ones are cleared away.
                        return
                    for name, what, body in parts:
                        if seen.get(name) != body:
                            seen[name] = body
                            yield _event(what, body)
                    if over:
                        return
                    while True:
                        left = SIGN_OF_LIFE_S if until is None else until - loop.time()
                        if left <= 0 or listener.lost:
                            return
                        try:
                            heard = await listener.next(min(left, SIGN_OF_LIFE_S))
                        except TimeoutError:
                            yield b": still here\n\n"
                            break
                        if heard is None:
                            return
                        if _concerns(heard, kind, wanted):
                            break

        return StreamingResponse(stream(), media_type="text/event-stream", headers=HEADERS)

    return watch


def _parts(cluster: Any, kind: str, name: str) -> tuple[list[tuple[str, str, Any]], bool]:
    """(id, "task" or "job", body) of it and of its tasks; whether it is over."""
    if kind == "task":
        task = cluster.task_show(name)
        return [(task.id, "task", shown(task))], task.over
    job = cluster.job_show(name)
    found = []
    for task_id in job.tasks:
        try:
            found.append((task_id, "task", shown(cluster.task_show(task_id))))
        except NotFound:
            continue
    return [*found, (job.id, "job", shown(job))], job.over


def _concerns(event: Event, kind: str, name: str) -> bool:
    if event.kind == kind and event.name == name:
        return True
    task = event.data.get("task")
    return kind == "job" and isinstance(task, dict) and task.get("job") == name


def _event(kind: str, body: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps(body, default=str)}\n\n".encode()


def _reset() -> bytes:
    return Event("reset", "", {"why": "more happened than is known"}).text


def _told(event: Event, kinds: frozenset[str]) -> bool:
    return not kinds or event.kind in kinds or event.kind == "reset"


def _last_id(request: Request) -> int | None:
    """None: from now on."""
    given = request.headers.get("last-event-id") or request.query_params.get("since", "")
    if not given:
        return None
    if not re.fullmatch("[0-9]{1,19}", given) or int(given) > LATEST:
        raise Invalid(f"cannot go on after event {given[:40]!r}: that is no id of one")
    return int(given)
