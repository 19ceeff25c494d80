"""A file on a web server, read in parts, as librbd does for an image that is not there yet.

So what librbd cannot do is not done here either: no proxy, no redirect, no password.
"""

from __future__ import annotations

import http.client
import re
import ssl
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from vorch.drivers.fetch import SILENCE_LIMIT_S, check_url, lost, refused
from vorch.errors import Invalid, Unreachable, Unsupported

# A server may end a connection that it has kept open; then the same is asked on a new one.
_TRIES = 3


@dataclass(frozen=True, slots=True)
class Mark:
    """By what a file on a server is known to be the same as before."""

    size_bytes: int
    etag: str = ""
    modified: str = ""


class HttpRanges:
    """One file, by one connection, which is made anew when the server has closed it."""

    def __init__(self, url: str, what: str) -> None:
        self._what = what
        parts = check_url(url, what)
        kind: type[http.client.HTTPConnection] = http.client.HTTPConnection
        if parts.scheme.lower() == "https":
            kind = http.client.HTTPSConnection
        host = parts.hostname or ""
        self._connection = kind(host, parts.port, timeout=SILENCE_LIMIT_S)
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._connection.close()

    def mark(self) -> Mark:
        """Of the file as it is now. Refused when it cannot be read in parts."""
        headers, _ = self._ask("HEAD", {}, 200)
        length = headers.get("Content-Length", "")
        if not re.fullmatch(r"[0-9]{1,18}", length):
            raise Unsupported(f"cannot {self._what}: the server does not say how large it is")
        if headers.get("Content-Encoding", "identity") not in ("", "identity"):
            raise Unsupported(f"cannot {self._what}: the server packs it on the way")
        return Mark(int(length), headers.get("ETag", ""), headers.get("Last-Modified", ""))

    def read(self, offset: int, count: int) -> bytes:
        wanted = {"Range": f"bytes={offset}-{offset + count - 1}"}
        _, data = self._ask("GET", wanted, 206)
        if len(data) != count:
            raise Unreachable(
                f"cannot {self._what}: the server gave {len(data)} bytes where {count} were asked"
                " for; try again later"
            )
        return data

    def _ask(
        self, method: str, headers: dict[str, str], status: int
    ) -> tuple[http.client.HTTPMessage, bytes]:
        answer, data = self._answer(method, headers)
        if answer.status == status:
            return answer.headers, data
        if 300 <= answer.status < 400:
            raise Unsupported(
                f"cannot {self._what}: the server sends us on to"
                f" {answer.headers.get('Location', 'another address')!r}, where librbd does not"
                " follow; give the final address"
            )
        if answer.status == 200:
            raise Unsupported(f"cannot {self._what}: the server does not give parts of a file")
        if answer.status in (405, 501):
            raise Unsupported(f"cannot {self._what}: the server does not say how large it is")
        if answer.status == 416:
            raise Invalid(f"cannot {self._what}: it was changed meanwhile; see that nobody does")
        raise refused(answer.status, self._what)

    def _answer(
        self, method: str, headers: dict[str, str]
    ) -> tuple[http.client.HTTPResponse, bytes]:
        tries = 0
        while True:
            tries += 1
            try:
                self._connection.request(
                    method, self._path, headers={"User-Agent": "vorch", **headers}
                )
                answer = self._connection.getresponse()
                if answer.status in (200, 206) and (method == "HEAD" or answer.status == 206):
                    return answer, answer.read()
                # What it says besides may be long, and is of no use.
                self._connection.close()
                return answer, b""
            except (OSError, http.client.HTTPException) as exc:
                self._connection.close()
                if tries == _TRIES or isinstance(exc, ssl.SSLError):
                    raise lost(exc, self._what) from exc
