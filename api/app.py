"""The FastAPI application: /health, /openapi.json, /docs, and the routes of vorch."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from html import escape
from typing import Any

from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware

from vorch import Desk, Doorkeeper, Orchestrator, __version__, connect

from . import document, problems, upkeep
from .gate import Gate
from .headers import SafeHeaders
from .hub import Hub
from .oidc import provider_of
from .routes import logins, oidc, streams, verbs

# How long jobs that are at work may take to end when the service does.
JOBS_PATIENCE_S = 5.0


def create_app(
    cluster: Orchestrator | str | None = None,
    *,
    token: str,
    upkeep_every_s: float | None = upkeep.EVERY_S,
) -> FastAPI:
    """`cluster`: a connection, which stays its owner's to close, or the URI of one to be made.

    Whoever asks must know `token`, or come as a user, for everything but /health.
    """
    owned = not isinstance(cluster, Orchestrator)
    found = cluster if isinstance(cluster, Orchestrator) else connect(cluster)

    keeper = Doorkeeper(found)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        aside = None
        app.state.picture = await run_in_threadpool(found.picture)
        found.lean_on(app.state.picture)
        app.state.desk = Desk(found)
        app.state.hub = Hub(found, app.state.picture)
        app.state.hub.start()
        if upkeep_every_s is not None:
            aside = upkeep.Upkeep(found, every_s=upkeep_every_s)
            aside.start()
        try:
            yield
        finally:
            app.state.hub.end()
            await run_in_threadpool(app.state.desk.close, JOBS_PATIENCE_S)
            if aside is not None:
                await run_in_threadpool(aside.stop)
            found.lean_on(None)
            await run_in_threadpool(app.state.hub.join)
            await run_in_threadpool(app.state.picture.close)
            if owned:
                await run_in_threadpool(found.close)

    app = FastAPI(
        title="vorch",
        version=__version__,
        # FastAPI's own pages load scripts from elsewhere; /docs below loads nothing.
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        middleware=[Middleware(SafeHeaders), Middleware(Gate, keeper=keeper, token=token)],
    )
    app.state.cluster = found
    app.state.keeper = keeper
    app.state.oidc = provider_of(found.settings)
    app.state.hub = None

    def ending() -> None:
        if app.state.hub is not None:
            app.state.hub.end()

    app.state.ending = ending
    problems.add_to(app)

    # Plain `def`: FastAPI runs it in a thread of its pool, as the library blocks.
    @app.get("/health", summary="Whether the state can be reached", tags=["service"])
    def health() -> dict[str, str]:
        found.look()
        return {"status": "ok", "state": "reachable", "version": __version__}

    @app.get("/docs", include_in_schema=False)
    def docs() -> HTMLResponse:
        return HTMLResponse(_page(app.openapi()), headers=_NOTHING_FROM_ELSEWHERE)

    app.include_router(logins.router)
    if app.state.oidc is not None:
        app.include_router(oidc.router)
    verbs.add_to(app)
    app.add_route("/v1/events", streams.events, methods=["GET"], include_in_schema=False)
    document.add_to(app)
    return app


_NOTHING_FROM_ELSEWHERE = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
    "X-Content-Type-Options": "nosniff",
}


def _page(schema: dict[str, Any]) -> str:
    """All routes on one page that needs nothing else."""
    rows = "".join(
        f"<tr><td>{escape(method.upper())}</td><td><code>{escape(path)}</code></td>"
        f"<td>{escape(str(about.get('summary', '')))}</td></tr>"
        for path, methods in sorted(schema["paths"].items())
        for method, about in methods.items()
    )
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>vorch: API</title>"
        "<style>body{font:16px sans-serif;margin:2em}td{padding:.2em 1em .2em 0}</style>"
        f"<h1>vorch {escape(__version__)}</h1><table>{rows}</table>"
        "<p>The whole of it, for programs: <a href=/openapi.json>/openapi.json</a></p></html>"
    )
