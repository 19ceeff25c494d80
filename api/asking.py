"""Who asks, and what that one may see: the one place where routes find out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from vorch import OnBehalf, Principal, Verb, Vm, sees_event

from .gate import principal_of


def principal(request: Request) -> Principal:
    return principal_of(request.scope)


def who_asks(request: Request) -> str:
    """As it stands in tasks and jobs."""
    return principal(request).who


def on_behalf(request: Request) -> OnBehalf:
    """The verbs, as far as whoever asks may use them."""
    state = request.app.state
    look = state.picture.look
    return OnBehalf(state.cluster, principal(request), state.keeper, look=look)


def permit(request: Request, entry: Verb, arguments: Mapping[str, Any]) -> None:
    """Raises what whoever asks would be told, before anything is written down of it."""
    on_behalf(request).permit(entry.verb, arguments)


def let_in(request: Request, what: str, **arguments: Any) -> None:
    """The same of what is no verb; the table of rights has a line for it all the same."""
    on_behalf(request).permit(what, arguments)


def vms_seen(request: Request) -> Callable[[Vm], bool] | None:
    """Whether whoever asks may know of a VM; None: of all, which is quicker to find out."""
    who = principal(request)
    return None if who.sees_all else Own(who)


@dataclass(frozen=True, slots=True)
class Own:
    """As a value: two that ask for the same are known to."""

    who: Principal

    def __call__(self, vm: Vm) -> bool:
        return self.who.has(vm.tags)


def events_seen(request: Request) -> Callable[[str, str, Mapping[str, Any]], bool]:
    """The same of an event: its kind, the name of what it is about, and what it tells."""
    who, picture = principal(request), request.app.state.picture

    def seen(kind: str, name: str, told: Mapping[str, Any]) -> bool:
        return who.sees_all or sees_event(who, kind, name, told, picture.look())

    return seen
