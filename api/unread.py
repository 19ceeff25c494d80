"""Bodies that are not read to their end, or have two ends: the connection is closed for them."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vorch import Invalid

from .problems import problem

# So much has been read by the server anyway. To close on less could cost the client its answer.
SMALL_BYTES = 64 * 1024


class CloseUnread:
    """In front of everything, so that it holds for strangers as well."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and _is_ambiguous(scope):
            answer = problem(
                Invalid(
                    "cannot read the request: it has Content-Length and Transfer-Encoding, and so"
                    " two ends; send one of them"
                ),
                status=400,
                headers={"Connection": "close"},
            )
            await answer(scope, receive, send)
            return
        if scope["type"] != "http" or not _is_large(scope):
            await self._app(scope, receive, send)
            return
        ended = False

        async def counted() -> Message:
            nonlocal ended
            message = await receive()
            ended = ended or not message.get("more_body", False)
            return message

        async def answered(message: Message) -> None:
            if message["type"] == "http.response.start" and not ended:
                headers = [*message.get("headers", ()), (b"connection", b"close")]
                message = {**message, "headers": headers}
            await send(message)

        await self._app(scope, counted, answered)


def _is_ambiguous(scope: Scope) -> bool:
    """A proxy could have read it otherwise, and taken its rest for somebody else's request."""
    names = [name for name, _ in scope["headers"]]
    return b"transfer-encoding" in names and b"content-length" in names


def _is_large(scope: Scope) -> bool:
    headers = dict(scope["headers"])
    length: bytes = headers.get(b"content-length", b"")
    if length.isdigit():
        return int(length[:20]) > SMALL_BYTES
    return b"transfer-encoding" in headers
