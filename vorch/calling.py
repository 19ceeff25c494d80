"""What each verb takes and returns, by its own signature, for doors that are made from it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, get_type_hints

from vorch.orchestrator import Orchestrator

REQUIRED = inspect.Parameter.empty

# Names that stand in annotations and are not loaded with the verbs themselves, with their homes.
_ELSEWHERE = {
    "BalancePlan": "vorch.decide.room.balance",
    "Capacity": "vorch.decide.room.capacity",
    "Change": "vorch.decide.room.imagine",
    "WhatIf": "vorch.decide.whatif",
    "Dump": "vorch.dumped",
}


@dataclass(frozen=True, slots=True)
class Parameter:
    name: str
    # Its type, as annotations are written.
    annotation: Any
    default: Any = REQUIRED

    @property
    def required(self) -> bool:
        return self.default is REQUIRED


@dataclass(frozen=True, slots=True)
class Call:
    verb: str
    parameters: Mapping[str, Parameter]
    returns: Any
    # The first sentence of what the verb says of itself, and all of it.
    summary: str
    description: str


@functools.cache
def call_of(verb: str) -> Call:
    method = getattr(Orchestrator, verb)
    hints = types_of(method)
    parameters = {
        name: Parameter(name, hints[name], one.default)
        for name, one in inspect.signature(method).parameters.items()
        if name != "self"
    }
    said = inspect.cleandoc(method.__doc__ or verb.replace("_", " ").capitalize() + ".")
    summary = " ".join(said.split("\n\n")[0].split())
    return Call(verb, parameters, hints["return"], summary, said)


def types_of(annotated: Any) -> dict[str, Any]:
    """The annotations as types, those included that only type checkers load."""
    return get_type_hints(annotated, localns=_Elsewhere())


class _Elsewhere(Mapping[str, Any]):
    """Loaded when they are asked for: some stand on NumPy."""

    def __getitem__(self, name: str) -> Any:
        return getattr(import_module(_ELSEWHERE[name]), name)

    def __iter__(self) -> Iterator[str]:
        return iter(_ELSEWHERE)

    def __len__(self) -> int:
        return len(_ELSEWHERE)


def names_elsewhere() -> dict[str, Any]:
    return dict(_Elsewhere())
