"""Where the bytes of an import come from: a file of this host, or http and https.

A location may come from anyone, so it is taken at its word as little as possible: a path must be a
regular file (a device or pipe would hang or leak), a URL must be http or https and stays so through
every redirect, and no name from a person is handed on to another program.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urljoin, urlsplit

from vorch.decide.elsewhere import is_near
from vorch.drivers.os_errors import translate
from vorch.errors import Denied, Invalid, NotFound, TimedOut, Unreachable, VorchError
from vorch.ports import Progress

if TYPE_CHECKING:
    import urllib.request
    from http.client import HTTPResponse

CHUNK_BYTES = 1024**2
# How long a server may be silent.
SILENCE_LIMIT_S = 30.0
MOST_REDIRECTS = 5
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_ZEROS = bytes(CHUNK_BYTES)


@dataclass(frozen=True, slots=True)
class Origin:
    """An open source of bytes. `file` is its descriptor when it is a file of this host."""

    read: Callable[[int], bytes]
    size_bytes: int | None
    file: int | None = None


@contextmanager
def origin(location: str) -> Iterator[Origin]:
    """Open a path, file: URL or http(s): URL for reading."""
    scheme = _SCHEME.match(location)
    kind = scheme[1].lower() if scheme else ""
    if kind in ("http", "https"):
        with _open_url(location) as opened:
            yield opened
    elif kind in ("", "file"):
        file = _open_file(_path_of(location) if kind else location, location)
        try:
            yield Origin(lambda count: os.read(file, count), os.fstat(file).st_size, file)
        finally:
            os.close(file)
    else:
        raise Invalid(
            f"cannot import {location!r}: {kind!r} is not a kind of address that is known here;"
            " give a path (./NAME when it has a colon), or a file:, http: or https: URL"
        )


def _path_of(url: str) -> str:
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost") or not parts.path.startswith("/") or parts.query:
        raise Invalid(
            f"cannot import {url!r}: a file: URL names a file of this host by its full path; write"
            " it as in file:///srv/debian.qcow2"
        )
    return unquote(parts.path)


def _open_file(path: str, location: str) -> int:
    what = f"import {location!r}"
    if not path or "\0" in path:
        raise Invalid(f"cannot {what}: that is not a path; give the path of a file")
    try:
        # Without O_NONBLOCK, opening a pipe would wait for its other end.
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as exc:
        raise translate(what, exc) from exc
    mode = os.fstat(file).st_mode
    if not stat.S_ISREG(mode):
        os.close(file)
        kind = "a folder" if stat.S_ISDIR(mode) else "a device, pipe or socket"
        raise Invalid(f"cannot {what}: it is {kind}; give the path of a regular file")
    return file


# ---------------------------------------------------------------------------------------------
# http and https


@contextmanager
def _open_url(url: str) -> Iterator[Origin]:
    # Imported here: they take longer to load than all the rest of vorch's drivers.
    import http.client
    import urllib.error
    import urllib.request

    what = f"import {url!r}"
    parts = check_url(url, what)
    request = urllib.request.Request(url, headers={"User-Agent": "vorch"})  # noqa: S310  (checked)
    opener = _opener(parts.scheme.lower() == "https", what)
    try:
        answer: HTTPResponse = opener.open(request, timeout=SILENCE_LIMIT_S)
    except urllib.error.HTTPError as exc:
        exc.close()
        raise refused(exc.code, what) from exc
    except (OSError, http.client.HTTPException, ValueError) as exc:
        raise lost(exc, what) from exc
    with answer:
        if answer.headers.get("Content-Encoding", "identity") not in ("", "identity"):
            raise Invalid(f"cannot {what}: the server packs it on the way; use another server")
        length = answer.headers.get("Content-Length", "")
        size = int(length) if re.fullmatch(r"[0-9]{1,18}", length) else None

        def read(count: int) -> bytes:
            try:
                return answer.read1(count)
            except (OSError, http.client.HTTPException) as exc:
                raise lost(exc, what) from exc

        yield Origin(read, size)


def check_url(url: str, what: str) -> urllib.parse.SplitResult:
    wrong = Invalid(
        f"cannot {what}: that is not a sound URL; write it as in https://example.org/disk.qcow2"
    )
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as exc:
        raise wrong from exc
    if not parts.hostname or port == 0 or re.search(r"[\x00-\x20\x7f]", url):
        raise wrong
    if parts.username is not None:
        raise Invalid(
            f"cannot {what}: a password in a URL ends up in logs; fetch the file yourself"
        )
    return parts


def _opener(secure: bool, what: str) -> urllib.request.OpenerDirector:
    """An opener that knows http and https and nothing else: no ftp:, no file:, no data:."""
    import urllib.request
    from http.client import HTTPMessage
    from typing import IO

    class Redirects(urllib.request.HTTPRedirectHandler):
        max_redirections = MOST_REDIRECTS
        max_repeats = 2

        def http_error_302(
            self,
            req: urllib.request.Request,
            fp: IO[bytes],
            code: int,
            msg: str,
            headers: HTTPMessage,
        ) -> HTTPResponse | None:
            target = urljoin(req.full_url, headers.get("Location", ""))
            allowed = ("https",) if secure else ("http", "https")
            if urlsplit(target).scheme.lower() not in allowed:
                fp.close()
                raise Invalid(
                    f"cannot {what}: the server sends us on to {target!r}, which is not"
                    f" {' or '.join(allowed)}; if you trust that address, give it yourself"
                )
            check_url(target, what)
            if _is_here(target) and not _is_here(req.full_url):
                fp.close()
                raise Denied(
                    f"cannot {what}: the server sends us on to {target!r}, which is this machine"
                    " itself or its closest surroundings; if you trust that address, give it"
                    " yourself"
                )
            return super().http_error_302(req, fp, code, msg, headers)

        http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302

    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        Redirects(),
    ):
        opener.add_handler(handler)
    return opener


def _is_here(url: str) -> bool:
    try:
        found = socket.getaddrinfo(urlsplit(url).hostname or "", None, type=socket.SOCK_STREAM)
    except (OSError, ValueError, UnicodeError):
        return False
    return any(is_near(str(one[4][0])) for one in found)


def refused(status: int, what: str) -> VorchError:
    if status in (404, 410):
        return NotFound(f"cannot {what}: the server has no such file; see that the URL is right")
    if status in (401, 403, 407):
        return Denied(f"cannot {what}: the server refuses it (status {status}); ask its owner")
    if 300 <= status < 400:
        return Unreachable(f"cannot {what}: the server sends us on and on; give the final address")
    return Unreachable(f"cannot {what}: the server answers with status {status}; try again later")


def lost(exc: Exception, what: str) -> VorchError:
    reason = getattr(exc, "reason", exc)
    if isinstance(exc, TimeoutError) or isinstance(reason, TimeoutError):
        return TimedOut(
            f"cannot {what}: the server was silent for {SILENCE_LIMIT_S:g} s; try again later"
        )
    words = getattr(reason, "strerror", None) or str(reason) or type(exc).__name__
    return Unreachable(f"cannot {what}: {words}; see that the address is right and the server up")


# ---------------------------------------------------------------------------------------------


def pour(
    source: Origin,
    target: Path | None,
    what: str,
    progress: Progress,
    check_room: Callable[[int], None],
) -> str:
    """Read it to its end, write it to `target` (zeros become holes), and return its SHA-256.

    Without a target it is only read. `check_room` is asked before anything is written, and again
    and again while it is not known how much will come.
    """
    digest = hashlib.sha256()
    total, done, checked = source.size_bytes, 0, 0
    check_room((total or 0) if target is not None else 0)
    file = os.open(target, os.O_WRONLY | os.O_CLOEXEC) if target is not None else -1
    try:
        while chunk := source.read(CHUNK_BYTES):
            digest.update(chunk)
            if file >= 0 and chunk != _ZEROS[: len(chunk)]:
                view = memoryview(chunk)
                at = done
                while view:
                    written = os.pwrite(file, view, at)
                    view, at = view[written:], at + written
            done += len(chunk)
            if total is None and file >= 0 and done - checked >= 64 * CHUNK_BYTES:
                checked = done
                check_room(0)
            progress(min(100.0, 100 * done / total) if total else None)
        if total is not None and done != total:
            raise Unreachable(f"cannot {what}: it ended after {done} of {total} bytes; try again")
        if file >= 0:
            os.truncate(file, done)
            os.fsync(file)
    finally:
        if file >= 0:
            os.close(file)
    return digest.hexdigest()
