"""What an image holds, as a service sends it: read on as one stream, and anew where it breaks."""

from __future__ import annotations

import contextlib
import http.client
import re

from vorch.errors import Conflict, Unreachable
from vorch.remote.link import Link

TRIES = 3


class Download:
    """Reading from where the last reading ended asks nothing anew. Of one thread at a time."""

    def __init__(self, link: Link, path: str) -> None:
        self._link = link
        self._path = path
        self._open: tuple[http.client.HTTPConnection, http.client.HTTPResponse] | None = None
        self._at = 0
        self._tag = ""
        self.size_bytes = 0
        self._begin(0)

    def read(self, offset: int, length: int) -> bytes:
        wanted = max(0, min(length, self.size_bytes - offset))
        found = bytearray()
        tries = 0
        while len(found) < wanted:
            try:
                if self._open is None or self._at != offset + len(found):
                    self._begin(offset + len(found))
                assert self._open is not None
                part = self._open[1].read(wanted - len(found))
                if not part:
                    raise http.client.IncompleteRead(part)
                found += part
                self._at += len(part)
            except (OSError, http.client.HTTPException) as exc:
                self.close()
                tries += 1
                if tries == TRIES:
                    raise self._link.unreachable(exc) from exc
        return bytes(found)

    def close(self) -> None:
        if self._open is not None:
            connection, _ = self._open
            self._open = None
            with contextlib.suppress(OSError):
                connection.close()

    def _begin(self, offset: int) -> None:
        self.close()
        headers = {"Range": f"bytes={offset}-", "If-Range": self._tag} if offset else {}
        try:
            connection, answer = self._link.open(self._path, headers)
        except (OSError, http.client.HTTPException) as exc:
            raise self._link.unreachable(exc) from exc
        self._open, self._at = (connection, answer), offset
        if not offset:
            self._tag = answer.headers.get("ETag", "")
            length = answer.headers.get("Content-Length", "")
            if not re.fullmatch("[0-9]{1,18}", length):
                self.close()
                raise Unreachable("cannot read an image: the service does not say how large it is")
            self.size_bytes = int(length)
        elif answer.status != 206:
            self.close()
            raise Conflict("cannot read on in an image: it is another one meanwhile; begin again")
