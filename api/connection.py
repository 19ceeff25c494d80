"""How a route gets at the cluster that its service stands in front of, and at its picture of it."""

from __future__ import annotations

from typing import cast

from fastapi import Request

from vorch import Orchestrator, Picture

from .asking import on_behalf


def connected(request: Request) -> Orchestrator:
    """The verbs, as far as whoever asks may use them."""
    return cast(Orchestrator, on_behalf(request))


def pictured(request: Request) -> Picture:
    """For routes that show the cluster: it is fresh already, so that no host is asked.

    It shows everything: a route shows of it what `asking.vms_seen` says.
    """
    return cast(Picture, request.app.state.picture)
