"""The FastAPI application: the page, /health, /ready, /openapi.json, /docs, the routes of vorch."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from html import escape
from typing import Any

from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.routing import WebSocketRoute

from vorch import Desk, Doorkeeper, Orchestrator, Recorder, __version__, connect

from . import document, health, metrics, problems, upkeep
from .bridge import Bridges
from .gate import CONSOLE, Gate
from .headers import SafeHeaders
from .hub import Hub
from .metrics import Measuring, Metrics
from .oidc import provider_of
from .routes import consoles, downloads, logins, oidc, page, streams, uploads, verbs
from .sampler import Sampler
from .unread import CloseUnread

# How long jobs that are at work may take to end when the service does.
JOBS_PATIENCE_S = 5.0


def create_app(
    cluster: Orchestrator | str | None = None,
    *,
    token: str,
    upkeep_every_s: float | None = upkeep.EVERY_S,
    counted: Metrics | None = None,
) -> FastAPI:
    """`cluster`: a connection, which stays its owner's to close, or the URI of one to be made.

    Whoever asks must know `token`, or come as a user, for everything but /health and /ready.
    `counted`: what has been counted before, to be shown with all that comes.
    """
    owned = not isinstance(cluster, Orchestrator)
    found = cluster if isinstance(cluster, Orchestrator) else connect(cluster)

    keeper = Doorkeeper(found)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        aside = None
        app.state.picture = await run_in_threadpool(found.picture)
        sampler = Sampler(
            found,
            app.state.picture,
            every_s=found.settings.measure_every_s,
            taken=Recorder(found).take,
        )
        app.state.sampler = sampler
        # In a world whose time stands still nothing goes on by itself.
        if found.settings.measure_every_s and found.world.threads:
            sampler.start()
            # Else whoever opens the page first waits for it.
            threading.Thread(target=app.openapi, name="vorch-openapi", daemon=True).start()
        app.state.metrics.show(found, app.state.picture, sampler)
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
            await run_in_threadpool(sampler.stop)
            found.lean_on(None)
            await run_in_threadpool(app.state.hub.join)
            await run_in_threadpool(app.state.picture.close)
            if owned:
                await run_in_threadpool(found.close)

    counting = counted or Metrics()
    near = frozenset({"/metrics"}) if found.settings.metrics_open else frozenset()
    app = FastAPI(
        title="vorch",
        version=__version__,
        # FastAPI's own pages load scripts from elsewhere; /docs below loads nothing.
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        # Nobody is sent on to whatever host the request says it is for.
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
        lifespan=lifespan,
        # The outermost first: all are counted, cut off and told of safety, strangers as well.
        middleware=[
            Middleware(Measuring, metrics=counting),
            Middleware(CloseUnread),
            Middleware(SafeHeaders),
            Middleware(Gate, keeper=keeper, token=token, near=near),
        ],
    )
    app.state.cluster = found
    app.state.keeper = keeper
    app.state.oidc = provider_of(found.settings)
    app.state.page = page.page_of(oidc=app.state.oidc is not None)
    app.state.ending = threading.Event()
    app.state.metrics = counting
    app.state.hub = None

    app.state.bridges = Bridges(found.settings.consoles_per_user)

    def let_go() -> None:
        app.state.bridges.end()
        if app.state.hub is not None:
            app.state.hub.end()

    app.state.let_go = let_go
    problems.add_to(app)

    @app.get("/docs", include_in_schema=False)
    def docs() -> HTMLResponse:
        return HTMLResponse(_page(app.openapi()), headers=_NOTHING_FROM_ELSEWHERE)

    app.include_router(page.router)
    app.include_router(health.router)
    app.include_router(metrics.router)
    app.include_router(logins.router)
    if app.state.oidc is not None:
        app.include_router(oidc.router)
    app.include_router(uploads.router)
    app.include_router(downloads.router)
    verbs.add_to(app)
    app.router.routes.append(WebSocketRoute(CONSOLE, consoles.console))
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
