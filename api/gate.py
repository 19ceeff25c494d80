"""In front of everything: who asks. Of routes that do not exist, too: a stranger learns nothing.

Three ways in: the service's own token (its file belongs to whoever runs it), the token of a user,
or the cookie of a login. Whoever comes by a cookie shows with each change that the page is the one
that logged in: its origin is this service's, and it knows what only that page was told.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vorch import BadConfig, Denied, Doorkeeper, Principal, Role, VorchError

from .auth import SHORTEST
from .problems import problem
from .routes.page import is_of_the_page

# Asked by those who watch over the service; says nothing that an open port does not.
OPEN = frozenset({"/health", "/ready", "/v1/login", "/v1/login/oidc", "/v1/login/oidc/done"})
# Read methods change nothing, so nobody gains by having somebody else's browser send them.
READING = frozenset({"GET", "HEAD", "OPTIONS"})
CONSOLE = "/v1/console"
CSRF_HEADER = b"x-csrf-token"
# A request with one of these was passed on by somebody.
_OF_PROXIES = frozenset(
    {b"forwarded", b"via", b"x-forwarded-for", b"x-forwarded-host", b"x-real-ip"}
)
# Bytes of a login, and more than it needs.
LONGEST_OF_STRANGERS = 16 * 1024
_WHO = "vorch.principal"
_CSRF = "vorch.csrf"


def cookie_name(scope: Scope) -> str:
    """Over TLS one that no other host of the domain can set; there is none of that on loopback."""
    return "__Host-vorch" if scope["scheme"] in ("https", "wss") else "vorch"


def source_of(scope: Scope) -> str:
    """The address that somebody came from."""
    client = scope.get("client")
    return str(client[0]) if client else "local"


@dataclass(frozen=True, slots=True)
class _Came:
    principal: Principal
    csrf: str = ""


class Gate:
    """`OPEN` and the page's files are for all; everything else to those who are recognized."""

    def __init__(
        self, app: ASGIApp, keeper: Doorkeeper, token: str, near: Collection[str] = ()
    ) -> None:
        """`near`: what programs on this machine itself may read without being anybody."""
        if len(token) < SHORTEST:
            raise BadConfig(
                f"cannot use that token: it is shorter than {SHORTEST} characters; leave it to"
                " `vorch serve` to make one"
            )
        self._app = app
        self._keeper = keeper
        self._token = token.encode()
        self._near = near

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if _is_open(scope):
            # A websocket has limits of its own.
            short = _short(receive) if scope["type"] == "http" else receive
            await self._app(scope, short, send)
            return
        try:
            came = await self._came(scope)
            refusal = None if came is None else _forged(scope, came)
            if came is not None and refusal is not None:
                who = came.principal
                await run_in_threadpool(
                    self._keeper.note,
                    str(scope.get("method", "websocket")).lower(),
                    who.name,
                    who.source,
                    "refused",
                    refusal.message,
                    subject=scope["path"],
                    code=refusal.code,
                    stranger=True,
                )
        except VorchError as exc:
            await _refuse(exc, None, scope, receive, send)
            return
        if came is None and self._is_near(scope):
            await self._app(scope, receive, send)
        elif came is None:
            denied = Denied(
                "cannot answer that: the token or login is missing, wrong or over; send a token as"
                " 'Authorization: Bearer TOKEN' (`vorch serve` prints one, `vorch token create`"
                " makes one)"
            )
            await _refuse(denied, {"WWW-Authenticate": "Bearer"}, scope, receive, send)
        elif refusal is not None:
            await _refuse(refusal, None, scope, receive, send)
        else:
            scope[_WHO], scope[_CSRF] = came.principal, came.csrf
            await self._app(scope, receive, send)

    def _is_near(self, scope: Scope) -> bool:
        """Whether it comes from this machine, and no proxy here brings it from elsewhere."""
        if scope["type"] != "http" or scope["method"] != "GET" or scope["path"] not in self._near:
            return False
        if {name for name, _ in scope["headers"]} & _OF_PROXIES:
            return False
        host = (scope.get("client") or ("",))[0]
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False

    async def _came(self, scope: Scope) -> _Came | None:
        source = source_of(scope)
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if given:
            return await self._by_bearer(given, source)
        cookie = _cookie(scope)
        if not cookie:
            return None
        found = await run_in_threadpool(self._keeper.by_session, cookie, source)
        return None if found is None else _Came(*found)

    async def _by_bearer(self, given: list[bytes], source: str) -> _Came | None:
        scheme, _, token = given[0].partition(b" ")
        if len(given) != 1 or scheme.lower() != b"bearer":
            return None
        token = token.strip()
        if hmac.compare_digest(token, self._token):
            return _Came(Principal(name="service", role=Role.ADMIN, source=source))
        text = token.decode("ascii", "replace")
        principal = await run_in_threadpool(self._keeper.by_token, text, source)
        if principal is None:
            await run_in_threadpool(
                self._keeper.note, "token", "?", source, "refused", "wrong token", stranger=True
            )
            return None
        return _Came(principal)


def _is_open(scope: Scope) -> bool:
    if scope["type"] == "websocket":
        # A ticket says who asks: a page that was logged in to by a token could send none here.
        return bool(scope["path"] == CONSOLE)
    return scope["path"] in OPEN or is_of_the_page(scope["method"], scope["path"])


def _short(receive: Receive) -> Receive:
    """Of what a stranger sends only so much is read, and kept in memory."""
    read = 0

    async def counted() -> Message:
        nonlocal read
        message = await receive()
        read += len(message.get("body", b""))
        if read > LONGEST_OF_STRANGERS:
            raise HTTPException(413, f"its body is longer than {LONGEST_OF_STRANGERS} bytes")
        return message

    return counted


def is_known(scope: Scope) -> bool:
    """Not so of what is answered to all, or to those who are near."""
    return _WHO in scope


def principal_of(scope: Scope) -> Principal:
    found = scope[_WHO]
    assert isinstance(found, Principal)
    return found


def csrf_of(scope: Scope) -> str:
    return str(scope.get(_CSRF, ""))


def _cookie(scope: Scope) -> str:
    texts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"cookie"]
    try:
        morsel = SimpleCookie("; ".join(texts)).get(cookie_name(scope))
    except CookieError:
        return ""
    return "" if morsel is None else morsel.value


def _forged(scope: Scope, came: _Came) -> Denied | None:
    """What a browser sends for another page: it has the cookie, and does not know the rest."""
    if came.principal.via != "session":
        return None
    headers = dict(scope["headers"])
    websocket = scope["type"] == "websocket"
    reading = not websocket and scope["method"] in READING
    if not reading and not same_origin(headers, needed=websocket):
        return Denied("cannot do that: another site's page asks for it; use this service's own")
    if reading or websocket:
        return None
    if not hmac.compare_digest(headers.get(CSRF_HEADER, b""), came.csrf.encode()):
        return Denied(
            "cannot do that: with a login, each change needs the header X-CSRF-Token; send what"
            " POST /v1/login or GET /v1/self has told"
        )
    return None


def same_origin(headers: Mapping[bytes, bytes], *, needed: bool) -> bool:
    """A page of this service asks, or no page at all (unless one is `needed`)."""
    origin = headers.get(b"origin")
    if origin is None:
        return not needed
    return origin.partition(b"://")[2] == headers.get(b"host", b"")


async def _refuse(
    error: VorchError,
    headers: Mapping[str, str] | None,
    scope: Scope,
    receive: Receive,
    send: Send,
) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    status = 401 if headers else None
    await problem(error, status=status, headers=headers)(scope, receive, send)
