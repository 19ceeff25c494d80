"""Errors over HTTP: problem+json (RFC 9457) with vorch's own code and fields beside it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from vorch import Invalid, NotFound, Unsupported, VorchError

MEDIA_TYPE = "application/problem+json"


def problem(
    error: VorchError, *, status: int | None = None, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    number = error.http_status if status is None else status
    body = {
        "type": f"urn:vorch:error:{error.code}",
        "title": _title(number),
        "status": number,
        "detail": error.message,
        "code": error.code,
        # Whatever JSON has no word for goes out as text.
        "fields": json.loads(json.dumps(error.fields, default=str)),
    }
    more = dict(headers or {})
    if "retry_after_s" in error.fields:
        more["Retry-After"] = str(math.ceil(error.fields["retry_after_s"]))
    return JSONResponse(body, status_code=number, headers=more, media_type=MEDIA_TYPE)


def _title(number: int) -> str:
    try:
        return HTTPStatus(number).phrase
    except ValueError:
        # Protocols that stand on HTTP have numbers of their own.
        return "Refused"


def add_to(app: FastAPI) -> None:
    """All errors leave in that one form, those of the framework and of mistakes as well."""
    app.add_exception_handler(VorchError, _own)
    app.add_exception_handler(RequestValidationError, _request)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _mistake)


async def _own(request: Request, exc: Exception) -> JSONResponse:
    assert isinstance(exc, VorchError)
    return problem(exc)


async def _request(request: Request, exc: Exception) -> JSONResponse:
    assert isinstance(exc, RequestValidationError)
    first = exc.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return problem(Invalid(f"cannot read the request: {where}: {first['msg']}; see /openapi.json"))


async def _http(request: Request, exc: Exception) -> JSONResponse:
    assert isinstance(exc, HTTPException)
    what = f"{request.method} {request.url.path}"
    kind: type[VorchError] = {404: NotFound, 405: Unsupported}.get(exc.status_code, Invalid)
    words: Mapping[int, str] = {
        404: f"cannot answer {what!r}: there is nothing at that path; see /openapi.json",
        405: f"cannot answer {what!r}: that path takes other methods; see /openapi.json",
    }
    message = words.get(exc.status_code, f"cannot answer {what!r}: {exc.detail}")
    # A body that cannot be read has one number, whoever finds it out.
    status = Invalid.http_status if exc.status_code == 400 else exc.status_code
    return problem(kind(message), status=status, headers=exc.headers)


async def _mistake(request: Request, exc: Exception) -> JSONResponse:
    """The traceback goes to the service's log, never to whoever asked."""
    return problem(
        VorchError("cannot answer that: a mistake in vorch itself; the service's log has more")
    )
