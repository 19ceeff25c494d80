"""How a route gets at the cluster that its service stands in front of."""

from __future__ import annotations

from typing import cast

from fastapi import Request

from vorch import Orchestrator


def connected(request: Request) -> Orchestrator:
    return cast(Orchestrator, request.app.state.cluster)
