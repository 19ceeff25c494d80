"""HTTP to one service: requests that may be repeated safely, and streams of events.

`http.client` does all that is needed here; a package more would do no more.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import os
import ssl
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from vorch.config import Settings
from vorch.errors import BadConfig, Denied, Unreachable, VorchError, from_dict

# An answer may take as long as it is asked to wait, and so much more.
ANSWER_S = 60.0
# A service sends a sign of life on a stream more often than this.
STREAM_SILENT_S = 45.0
# What is safe to repeat is tried so often in all.
TRIES = 3
# Of one answer; the list of a hundred thousand VMs is smaller.
ANSWER_LIMIT = 512 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: Any


class Link:
    """Safe to use from several threads: each has a connection of its own."""

    def __init__(self, uri: str, token: str, context: ssl.SSLContext | None) -> None:
        parts = urlsplit(uri)
        self.uri = uri
        self._host = parts.hostname or ""
        self._port = parts.port
        self._base = parts.path.rstrip("/")
        self._token = token
        self._context = context
        self._own = threading.local()
        self._all: list[http.client.HTTPConnection] = []
        self._lock = threading.Lock()

    def ask(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = ANSWER_S,
    ) -> Answer:
        """Raises what the service has raised. A POST must bear a key, as it may be repeated."""
        for attempt in range(1, TRIES + 1):
            try:
                return self._once(method, path, body, headers or {}, timeout_s)
            except (OSError, http.client.HTTPException) as exc:
                self._drop()
                if attempt == TRIES or isinstance(exc, ssl.SSLCertVerificationError):
                    raise self.unreachable(exc) from exc
        raise AssertionError("not reached")

    def events(self, path: str) -> Iterator[tuple[str, Any]]:
        """(kind, data) of each event, until the service ends the stream."""
        connection = self._new(STREAM_SILENT_S)
        try:
            connection.request("GET", self._base + path, headers=self._headers({}))
            response = connection.getresponse()
            if response.status != 200:
                raise _problem(response.status, response.read(ANSWER_LIMIT))
            kind, data = "message", b""
            while line := response.readline():
                word, _, rest = line.rstrip(b"\r\n").partition(b":")
                if not word and not rest and data:
                    yield kind, json.loads(data)
                    kind, data = "message", b""
                elif word == b"event":
                    kind = rest.strip().decode()
                elif word == b"data":
                    data += rest.strip()
        except (OSError, http.client.HTTPException) as exc:
            raise self.unreachable(exc) from exc
        finally:
            connection.close()

    def open(
        self, path: str, headers: Mapping[str, str]
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        """An answer to be read bit by bit, on a connection of its own, which is the caller's."""
        connection = self._new(ANSWER_S)
        try:
            connection.request("GET", self._base + path, headers=self._headers(headers))
            response = connection.getresponse()
            if response.status >= 400:
                raise _problem(response.status, response.read(ANSWER_LIMIT))
        except BaseException:
            connection.close()
            raise
        return connection, response

    def close(self) -> None:
        with self._lock:
            connections, self._all = self._all, []
        for connection in connections:
            connection.close()

    def unreachable(self, exc: BaseException) -> VorchError:
        if isinstance(exc, ssl.SSLCertVerificationError):
            return Denied(
                f"cannot trust the service at {self.uri!r}: {exc.verify_message}; name the"
                " certificate that it shows, or that of its CA (ca_file, or VORCH_CA)"
            )
        why = str(exc) or type(exc).__name__
        return Unreachable(
            f"cannot reach the service at {self.uri!r}: {why}; see that it runs (vorch serve)"
        )

    # -- inside

    def _once(
        self, method: str, path: str, body: Any, headers: Mapping[str, str], timeout_s: float
    ) -> Answer:
        connection = self._connection(timeout_s)
        sent = None if body is None else json.dumps(body).encode()
        given = self._headers(headers)
        if sent is not None:
            given["Content-Type"] = "application/json"
        connection.request(method, self._base + path, body=sent, headers=given)
        response = connection.getresponse()
        raw = response.read(ANSWER_LIMIT)
        if response.status >= 400:
            raise _problem(response.status, raw)
        told = json.loads(raw) if raw else None
        return Answer(response.status, dict(response.headers.items()), told)

    def _headers(self, more: Mapping[str, str]) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token}", "Accept": "*/*", **more}

    def _connection(self, timeout_s: float) -> http.client.HTTPConnection:
        connection: http.client.HTTPConnection | None = getattr(self._own, "connection", None)
        if connection is None:
            connection = self._own.connection = self._new(timeout_s)
            with self._lock:
                self._all.append(connection)
        connection.timeout = timeout_s
        if connection.sock is not None:
            connection.sock.settimeout(timeout_s)
        return connection

    def _drop(self) -> None:
        connection: http.client.HTTPConnection | None = getattr(self._own, "connection", None)
        if connection is not None:
            connection.close()

    def _new(self, timeout_s: float) -> http.client.HTTPConnection:
        if self._context is None:
            return http.client.HTTPConnection(self._host, self._port, timeout=timeout_s)
        return http.client.HTTPSConnection(
            self._host, self._port, timeout=timeout_s, context=self._context
        )


def link_to(uri: str, settings: Settings, *, token: str | None, ca: str | None) -> Link:
    """The service at http(s)://HOST[:PORT][/PATH]. The token, if not given: VORCH_TOKEN, or the
    file that `token_file` names. What it is signed by: `ca`, VORCH_CA, or `ca_file`.
    """
    parts = urlsplit(uri)
    try:
        port = parts.port
    except ValueError:
        port = -1
    if not parts.hostname or port == -1 or parts.username or parts.query or parts.fragment:
        raise BadConfig(
            f"cannot connect to {uri!r}: a service is named as in https://vorch.example.org:8420"
        )
    if parts.scheme == "http" and not _is_here(parts.hostname):
        raise BadConfig(
            f"cannot connect to {uri!r}: others on the network would see the token; use https:"
        )
    found = token or os.environ.get("VORCH_TOKEN") or _token_in(settings.token_file)
    if not found:
        raise BadConfig(
            f"cannot connect to {uri!r}: it needs a token; give it as token=…, in VORCH_TOKEN, or"
            " in the file that the setting token_file names"
        )
    if not found.isascii() or not found.isprintable() or " " in found:
        raise BadConfig("cannot use that token: it is not one that vorch has made")
    context = None
    if parts.scheme == "https":
        context = _trusting(ca or os.environ.get("VORCH_CA") or settings.ca_file)
    return Link(uri, found, context)


def _is_here(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _token_in(file: str) -> str:
    if not file:
        return ""
    try:
        return Path(file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise BadConfig(f"cannot read the token in {file!r}: {exc}; mend token_file") from exc


def _trusting(ca: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca or None)
    except (OSError, ssl.SSLError) as exc:
        raise BadConfig(f"cannot use {ca!r} as certificate: {exc}; name a PEM file") from exc


def _problem(status: int, raw: bytes) -> VorchError:
    try:
        told = json.loads(raw)
        return from_dict(
            {"code": told["code"], "message": told["detail"], "fields": told.get("fields", {})}
        )
    except (ValueError, KeyError, TypeError):
        return Unreachable(
            f"cannot understand the service: it answered {status} and not as vorch does; see what"
            " stands between"
        )
