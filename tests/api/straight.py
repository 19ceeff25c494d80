"""Requests straight into the application: what no client library would send, and streams."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import unquote_to_bytes

from fastapi.testclient import TestClient

Header = tuple[bytes, bytes]


@dataclass(slots=True)
class Answer:
    status: int = 0
    headers: list[Header] = field(default_factory=list)
    body: bytes = b""
    # A stream that was left after its first part.
    cut: bool = False

    def header(self, name: str) -> str:
        wanted = name.lower().encode()
        return b", ".join(value for key, value in self.headers if key == wanted).decode("latin-1")

    @property
    def kind(self) -> str:
        return self.header("content-type").partition(";")[0]

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")


def ask(
    client: TestClient,
    method: str,
    target: str | bytes,
    *,
    headers: Sequence[Header] = (),
    body: bytes | Iterable[bytes] = b"",
    scheme: str = "https",
    until: bytes = b"",
) -> Answer:
    """`target` is what stands in the request's first line. A body of parts comes in parts.

    A stream of events is left after its first part, or the one that has `until` in it.
    """
    assert client.portal is not None
    called = client.portal.call(_ask, client.app, method, target, headers, body, scheme, until)
    return cast(Answer, called)


async def _ask(
    app: Any,
    method: str,
    target: str | bytes,
    headers: Sequence[Header],
    body: bytes | Iterable[bytes],
    scheme: str,
    until: bytes,
) -> Answer:
    raw = target if isinstance(target, bytes) else target.encode("ascii")
    path, _, query = raw.partition(b"?")
    parts = iter([body] if isinstance(body, bytes) else body)
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": scheme,
        # As uvicorn does it.
        "path": unquote_to_bytes(path).decode("utf-8", "replace"),
        "raw_path": path,
        "query_string": query,
        "root_path": "",
        "headers": [*headers],
        "client": ("192.0.2.7", 4000),
        "server": ("vorch.example", 443),
        "state": {},
    }
    answer = Answer()
    ahead: list[bytes] = []
    ended = left = False

    async def receive() -> dict[str, Any]:
        nonlocal ended
        if not ended:
            part = ahead.pop() if ahead else next(parts, b"")
            following = next(parts, None)
            if following is not None:
                ahead.append(following)
            ended = following is None
            return {"type": "http.request", "body": part, "more_body": not ended}
        while not left:
            await asyncio.sleep(0.002)
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        nonlocal left
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = [*message["headers"]]
        elif message["type"] == "http.response.body":
            answer.body += message.get("body", b"")
            streams = message.get("more_body") and answer.kind == "text/event-stream"
            if streams and until in answer.body:
                answer.cut = left = True

    try:
        await cast(Any, app)(scope, receive, send)
    except Exception:
        # The outermost layer of the framework raises a mistake again after its answer is out.
        if answer.status != 500:
            raise
    return answer
