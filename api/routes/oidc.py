"""/v1/login/oidc: to the provider of logins, and back from there."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from vorch import Denied, NotFound

from ..gate import cookie_name, source_of
from ..oidc import PATIENCE_S, Provider, going_of
from .logins import keeper_of, set_cookie

router = APIRouter(prefix="/v1/login", tags=["logins"])

# The login's cookie is sent with what this service's own page asks for, and with nothing that the
# provider's page leads to: so the browser goes on from a page of this service.
_HOME = (
    "<!doctype html><html lang=en><meta charset=utf-8><title>vorch</title>"
    '<meta http-equiv=refresh content="0;url=/"><p><a href=/>You are logged in.</a></p></html>'
)


@router.get(
    "/oidc",
    operation_id="login_oidc",
    summary="Log in at the provider of logins: leads the browser there",
    response_class=RedirectResponse,
    status_code=303,
)
def go(request: Request) -> Response:
    place, going = _provider(request).go()
    response = RedirectResponse(place, status_code=303)
    response.set_cookie(
        _cookie(request),
        going.cookie(),
        max_age=PATIENCE_S,
        path="/",
        secure=request.scope["scheme"] == "https",
        httponly=True,
        # It must come along when the provider's page leads back.
        samesite="lax",
    )
    return response


@router.get(
    "/oidc/done",
    operation_id="login_oidc_done",
    summary="Where the provider of logins leads the browser back to",
    response_class=HTMLResponse,
)
def come_back(
    request: Request,
    state: Annotated[str, Query(max_length=512)] = "",
    code: Annotated[str, Query(max_length=4096)] = "",
) -> Response:
    provider, keeper, source = _provider(request), keeper_of(request), source_of(request.scope)
    keeper.check_pace(source)
    going = going_of(request.cookies.get(_cookie(request), ""))
    if going is None or not state or not code:
        raise Denied("cannot log in: the provider of logins has not let you in; try again")
    session, cookie = keeper.log_in_as(provider.came_back(going, state, code), source)
    response = HTMLResponse(_HOME)
    set_cookie(request, response, session, cookie)
    response.delete_cookie(
        _cookie(request), path="/", secure=request.scope["scheme"] == "https", httponly=True
    )
    return response


def _cookie(request: Request) -> str:
    return f"{cookie_name(request.scope)}-oidc"


def _provider(request: Request) -> Provider:
    found = request.app.state.oidc
    if found is None:
        raise NotFound(
            "cannot log in that way: no provider of logins is set; log in with a password"
        )
    assert isinstance(found, Provider)
    return found
