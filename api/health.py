"""/health and /ready: for whoever watches over the service, and for proxies in front of it."""

from __future__ import annotations

import threading
from typing import Annotated

from fastapi import APIRouter, Depends, Request

from vorch import Orchestrator, Unreachable, __version__

router = APIRouter(tags=["service"])


def _stood_before(request: Request) -> Orchestrator:
    """Nobody in particular asks, so it is on nobody's behalf."""
    found: Orchestrator = request.app.state.cluster
    return found


Cluster = Annotated[Orchestrator, Depends(_stood_before)]


# Plain `def`: FastAPI runs it in a thread of its pool, as the library blocks.
@router.get("/health", summary="Whether the state can be reached")
def health(cluster: Cluster) -> dict[str, str]:
    # A kind with one document: whoever asks every second must cost nothing.
    cluster.world.state.read(["policy"])
    return {"status": "ok", "state": "reachable", "version": __version__}


@router.get("/ready", summary="Whether it takes requests: not while it ends")
def ready(request: Request, cluster: Cluster) -> dict[str, str]:
    ending: threading.Event = request.app.state.ending
    if ending.is_set():
        raise Unreachable("cannot take requests: this service is ending; ask another one")
    health(cluster)
    return {"status": "ready", "version": __version__}
