"""Who asks, and what that one may see: the one place where routes find out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from starlette.requests import Request

from vorch import Verb, Vm


def who_asks(request: Request) -> str:
    """As it stands in tasks and jobs."""
    return str(request.scope.get("vorch.who", "the service"))


def permit(request: Request, entry: Verb, arguments: Mapping[str, Any]) -> None:
    """Raises `Denied` if whoever asks may not ask for that. Called before each verb.

    Whoever has the one token that there is may do everything.
    """


def vms_seen(request: Request) -> Callable[[Vm], bool] | None:
    """Whether whoever asks may know of a VM; None: of all, which is quicker to find out."""
    return None


def events_seen(request: Request) -> Callable[[str, str], bool]:
    """The same of an event about a document, by its kind and name."""
    return lambda kind, name: True
