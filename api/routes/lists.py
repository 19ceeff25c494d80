"""Lists: filters, pages with a cursor, chosen fields; long ones go out as they are written."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any
from urllib.parse import urlencode

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from vorch import (
    Chosen,
    Invalid,
    Verb,
    VmStatus,
    call_of,
    check_filters,
    check_vm_filters,
    chosen_fields,
    filter_names,
    fits,
    item_of,
    shown,
    to_json,
)

from ..asking import permit, vms_seen
from ..bodies import QUERY_LIMIT, from_query, model_of
from ..connection import connected, pictured

JSON = "application/json"
FIELDS, LIMIT, CURSOR = "fields", "limit", "cursor"
OF_A_LIST = (FIELDS, LIMIT, CURSOR)
LIMIT_MOST = 10_000
# Of a list that is written as it goes out.
PART_BYTES = 64 * 1024


def is_list(entry: Verb) -> bool:
    return entry.word == "list" and item_of(call_of(entry.verb).returns) is not None


async def vms(request: Request) -> Response:
    """From the picture, which is fresh already: no host is asked."""
    wanted = _filters(request, ())
    check_vm_filters(wanted)
    chosen = fields_of(request, VmStatus)
    after, limit = _cursor(request), _limit(request)
    seen = vms_seen(request)
    picture = pictured(request)
    page = await run_in_threadpool(
        lambda: picture.page(wanted, after=after, limit=limit, may_see=seen)
    )
    headers = {"X-Total-Count": str(page.total), **_next(request, page.after)}
    items = (to_json(one, VmStatus, chosen) for one in page)
    if len(page.vms) <= 200:
        body = await run_in_threadpool(lambda: b"[" + b",".join(items) + b"]")
        return Response(body, media_type=JSON, headers=headers)
    return StreamingResponse(_written(items), media_type=JSON, headers=headers)


def of(entry: Verb) -> Callable[[Request], Awaitable[Response]]:
    """Any other: these are short enough to be made whole."""
    kind = item_of(call_of(entry.verb).returns)
    own = tuple(model_of(entry.verb).model_fields)
    known = filter_names(kind)

    async def listing(request: Request) -> Response:
        wanted = _filters(request, own)
        check_filters(wanted, known)
        arguments = {
            **from_query(request, entry.verb, but=(*OF_A_LIST, *wanted)),
            **{name: request.path_params[name] for name in request.path_params},
        }
        chosen = fields_of(request, kind)
        after, limit = _cursor(request), _limit(request)

        def look() -> Response:
            values: Sequence[Any]
            if entry.verb == "node_list":
                permit(request, entry, arguments)
                values = pictured(request).nodes()
            else:
                values = getattr(connected(request), entry.verb)(**arguments)
            if wanted:
                values = [one for one in values if fits(_flat(shown(one)), wanted)]
            begin = _number(after)
            end = len(values) if limit is None else begin + limit
            headers = {"X-Total-Count": str(len(values))}
            headers |= _next(request, str(end) if end < len(values) else "")
            told = b",".join(to_json(one, kind, chosen) for one in values[begin:end])
            return Response(b"[" + told + b"]", media_type=JSON, headers=headers)

        return await run_in_threadpool(look)

    return listing


def fields_of(request: Request, kind: Any) -> Chosen | None:
    given = request.query_params.getlist(FIELDS)
    paths = [path for one in given for path in one.split(",") if path]
    if not given:
        return None
    if not paths or len(paths) > QUERY_LIMIT:
        raise Invalid(f"cannot choose fields: name 1 to {QUERY_LIMIT}, as in fields=vm.name,power")
    return chosen_fields(kind, paths)


def _filters(request: Request, own: tuple[str, ...]) -> dict[str, list[str]]:
    query = request.query_params
    if len(query.multi_items()) > QUERY_LIMIT:
        raise Invalid(f"cannot read the request: more than {QUERY_LIMIT} words in its query")
    return {
        name: query.getlist(name)
        for name in dict.fromkeys(query)
        if name not in OF_A_LIST and name not in own
    }


def _limit(request: Request) -> int | None:
    given = request.query_params.get(LIMIT)
    if given is None:
        return None
    if not re.fullmatch("[0-9]{1,5}", given) or not 1 <= int(given) <= LIMIT_MOST:
        raise Invalid(f"cannot use limit={given[:40]!r}: it is 1 to {LIMIT_MOST}")
    return int(given)


def _cursor(request: Request) -> str:
    """The end of the last page, as the Link of its answer had it."""
    given = request.query_params.get(CURSOR)
    if given is None:
        return ""
    try:
        return base64.urlsafe_b64decode(given.encode("ascii")).decode("utf-8")
    except (ValueError, binascii.Error) as exc:
        raise Invalid(
            "cannot use that cursor: it is none that an answer had; begin without one"
        ) from exc


def _number(after: str) -> int:
    if not after:
        return 0
    if not after.isascii() or not after.isdigit() or len(after) > 9:
        raise Invalid("cannot use that cursor: it is of another list; begin without one")
    return int(after)


def _next(request: Request, after: str) -> dict[str, str]:
    if not after:
        return {}
    cursor = base64.urlsafe_b64encode(after.encode()).decode()
    rest = [(name, value) for name, value in request.query_params.multi_items() if name != CURSOR]
    query = urlencode([*rest, (CURSOR, cursor)])
    return {"Link": f'<{request.url.path}?{query}>; rel="next"'}


def _written(items: Iterable[bytes]) -> Iterator[bytes]:
    part = bytearray(b"[")
    first = True
    for item in items:
        if not first:
            part += b","
        first = False
        part += item
        if len(part) >= PART_BYTES:
            yield bytes(part)
            part.clear()
    yield bytes(part + b"]")


def _flat(told: Any) -> dict[str, Any]:
    """Of what is several values at once, such as a pool and its usage, all fields together."""
    if isinstance(told, dict):
        return told
    return {name: value for one in told if isinstance(one, dict) for name, value in one.items()}
