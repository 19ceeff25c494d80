"""/v1/login, /v1/logout, /v1/self: how a person comes in with a browser, and who one is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Body, Request, Response

from vorch import Denied, Doorkeeper, Principal, Quota, Session

from ..gate import cookie_name, csrf_of, principal_of, same_origin, source_of

router = APIRouter(prefix="/v1", tags=["logins"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Self:
    """Who asks, and what that one may."""

    name: str
    role: str
    scopes: tuple[str, ...]
    quota: Quota
    # By what it came in: the service's own token, a user's, or a login.
    via: str
    # With a login: to be sent as X-CSRF-Token along with each change.
    csrf: str = ""


@router.post(
    "/login",
    operation_id="login",
    summary="Log in with a password; the answer sets a cookie",
)
def log_in(
    request: Request,
    response: Response,
    user: Annotated[str, Body(max_length=63)],
    password: Annotated[str, Body(max_length=1024)],
) -> Self:
    if not same_origin(dict(request.scope["headers"]), needed=False):
        # Else somebody could be logged in as another without noticing.
        raise Denied("cannot log in: another site's page asks for it; use this service's own")
    keeper = keeper_of(request)
    session, cookie = keeper.log_in(user, password, source_of(request.scope))
    set_cookie(request, response, session, cookie)
    found = keeper.by_session(cookie, source_of(request.scope))
    assert found is not None
    return _self(found[0], session.csrf)


def set_cookie(request: Request, response: Response, session: Session, cookie: str) -> None:
    response.set_cookie(
        cookie_name(request.scope),
        cookie,
        max_age=max(1, int(session.expires_at - session.created_at)),
        path="/",
        secure=request.scope["scheme"] == "https",
        httponly=True,
        samesite="strict",
    )


@router.post("/logout", operation_id="logout", summary="End a login", status_code=204)
def log_out(request: Request, response: Response) -> None:
    keeper_of(request).log_out(principal_of(request.scope))
    response.delete_cookie(
        cookie_name(request.scope),
        path="/",
        secure=request.scope["scheme"] == "https",
        httponly=True,
        samesite="strict",
    )


@router.get("/self", operation_id="self", summary="Who one is here, and with which rights")
def who_am_i(request: Request) -> Self:
    return _self(principal_of(request.scope), csrf_of(request.scope))


def _self(principal: Principal, csrf: str) -> Self:
    return Self(
        name=principal.name,
        role=str(principal.role),
        scopes=principal.scopes,
        quota=principal.quota,
        via=principal.via,
        csrf=csrf,
    )


def keeper_of(request: Request) -> Doorkeeper:
    keeper = request.app.state.keeper
    assert isinstance(keeper, Doorkeeper)
    return keeper
