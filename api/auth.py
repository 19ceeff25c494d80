"""Who may ask: whoever knows the token. Everything is denied that is not open on purpose."""

from __future__ import annotations

import hmac
import os
import re
import secrets
import stat
from contextlib import suppress
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send

from vorch import BadConfig, Denied, Unreachable

from .problems import problem

# Asked by those who watch over the service; says nothing that an open port does not.
OPEN = frozenset({"/health"})
TOKEN_BYTES = 32
SHORTEST = 32
_SOUND = re.compile(rf"[!-~]{{{SHORTEST},512}}")


class BearerToken:
    """In front of everything, routes that do not exist included: a stranger learns nothing."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        if len(token) < SHORTEST:
            raise BadConfig(
                f"cannot use that token: it is shorter than {SHORTEST} characters; leave it to"
                " `vorch serve` to make one"
            )
        self._app = app
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or (scope["type"] == "http" and scope["path"] in OPEN):
            await self._app(scope, receive, send)
            return
        if self._knows(scope):
            await self._app(scope, receive, send)
            return
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        denied = Denied(
            "cannot answer that: the token is missing or wrong; send it as 'Authorization: Bearer"
            " TOKEN' (`vorch serve` prints it)"
        )
        response = problem(denied, status=401, headers={"WWW-Authenticate": "Bearer"})
        await response(scope, receive, send)

    def _knows(self, scope: Scope) -> bool:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(given) != 1:
            return False
        scheme, _, token = given[0].partition(b" ")
        return scheme.lower() == b"bearer" and hmac.compare_digest(token.strip(), self._token)


def token_of(file: Path | None) -> str:
    """The token in the file, which is made when it is not there. None: a token for this run."""
    if file is None:
        return secrets.token_urlsafe(TOKEN_BYTES)
    try:
        _make(file)
        with file.open("rb") as opened:
            mode = os.fstat(opened.fileno()).st_mode
            token = opened.read(1024).decode("ascii", "replace").strip()
    except OSError as exc:
        raise Unreachable(
            f"cannot read the login token in {str(file)!r}: {exc.strerror}; see to it that this"
            " user may",
            file=str(file),
        ) from exc
    if stat.S_IMODE(mode) & 0o077:
        raise Denied(
            f"cannot use the login token in {str(file)!r}: others may read that file, so it may be"
            " known; remove it, and a new one is made",
            file=str(file),
        )
    if not _SOUND.fullmatch(token):
        raise BadConfig(
            f"cannot use the login token in {str(file)!r}: it is not one that vorch has made;"
            " remove it, and a new one is made",
            file=str(file),
        )
    return token


def _make(file: Path) -> None:
    """Whole or not at all, and only if there is none: two services that start at once share it."""
    if file.exists():
        return
    draft = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(handle, "w") as opened:
            opened.write(secrets.token_urlsafe(TOKEN_BYTES) + "\n")
            opened.flush()
            os.fsync(opened.fileno())
        with suppress(FileExistsError):
            os.link(draft, file)
    finally:
        draft.unlink()
