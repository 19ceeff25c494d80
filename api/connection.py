"""How a route gets at the cluster that its service stands in front of, and at its picture of it."""

from __future__ import annotations

from typing import cast

from fastapi import Request

from vorch import Orchestrator, Picture


def connected(request: Request) -> Orchestrator:
    return cast(Orchestrator, request.app.state.cluster)


def pictured(request: Request) -> Picture:
    """For routes that show the cluster: it is fresh already, so that no host is asked."""
    return cast(Picture, request.app.state.picture)
