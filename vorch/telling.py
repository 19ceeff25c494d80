"""Values as JSON text for those outside: as `codec.shown`, whole or the fields asked for.

Where no type in it keeps anything hidden, pydantic writes it, which is some thirty times as quick.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Union, get_args, get_origin

from pydantic import TypeAdapter

from vorch.calling import names_elsewhere, types_of
from vorch.codec import HIDDEN, shown
from vorch.errors import Invalid

# A path into a value: "vm.name" is {"vm": {"name": True}}.
Chosen = Mapping[str, Any]


@functools.cache
def adapter_of(kind: Any) -> TypeAdapter[Any]:
    made: TypeAdapter[Any] = TypeAdapter(kind)
    if not made.pydantic_complete:
        made.rebuild(raise_errors=True, _types_namespace=names_elsewhere())
    return made


def to_json(value: Any, kind: Any, chosen: Chosen | None = None) -> bytes:
    """`kind` is the type that the value was annotated with."""
    if has_hidden(kind) or kind in (object, Any):
        told = shown(value)
        return text(told if chosen is None else _pruned(told, chosen))
    include: Any = None
    if chosen is not None:
        include = _include(kind, chosen)
    # What is no JSON, such as infinity, is null here and there.
    return adapter_of(kind).dump_json(value, include=include, warnings=False)


def text(told: Any) -> bytes:
    return json.dumps(told, default=str, separators=(",", ":"), ensure_ascii=False).encode()


def from_json(told: Any, kind: Any) -> Any:
    """The value that was told, as far as it was: what is not shown is as if it were not there."""
    return adapter_of(kind).validate_python(_unhidden(told))


def chosen_fields(kind: Any, paths: Iterable[str]) -> Chosen:
    """Of paths such as "vm.name"; `Invalid` for one that the type does not have."""
    chosen: dict[str, Any] = {}
    if _fields(kind) is None:
        raise Invalid("cannot choose fields: what is shown here has none of its own; leave it out")
    for path in paths:
        place, here = chosen, kind
        words = path.split(".")
        for number, word in enumerate(words):
            inside = _fields(here)
            if inside is not None and word not in inside:
                known = ", ".join(sorted(inside))
                raise Invalid(
                    f"cannot choose field {path!r}: there is no {word!r}; it is one of {known}",
                    field=path,
                )
            here = inside[word] if inside is not None else Any
            if number == len(words) - 1:
                place[word] = True
            elif place.get(word) is True:
                break
            else:
                place = place.setdefault(word, {})
    return chosen


def filter_names(kind: Any) -> frozenset[str]:
    """The fields of a type that lists can be filtered by, those one level down included."""
    found: set[str] = set()
    parts = get_args(kind) if get_origin(kind) is tuple else (kind,)
    for part in parts:
        for name, hint in (_fields(part) or {}).items():
            found |= {name, *(_fields(hint) or {})}
    return frozenset(found)


def item_of(kind: Any) -> Any:
    """What a list or tuple of that type consists of; None if it is no list."""
    args = get_args(kind)
    if get_origin(kind) is tuple and len(args) == 2 and args[1] is Ellipsis:
        return args[0]
    return None


# ---------------------------------------------------------------------------------------------


@functools.cache
def has_hidden(kind: Any) -> bool:
    """Whether some type in it keeps a field out of its own repr, or could be anything."""
    return any(
        not field.repr for one in _dataclasses_in(kind, set()) for field in dataclasses.fields(one)
    )


def _dataclasses_in(kind: Any, seen: set[Any]) -> set[Any]:
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        if kind not in seen:
            seen.add(kind)
            for hint in types_of(kind).values():
                _dataclasses_in(hint, seen)
        return seen
    for arg in get_args(kind):
        _dataclasses_in(arg, seen)
    return seen


@functools.cache
def _fields(kind: Any) -> Mapping[str, Any] | None:
    """The fields of a dataclass, past what may be None or is a list of it; else None."""
    while True:
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            return {
                name: hint
                for name, hint in types_of(kind).items()
                if name in {field.name for field in dataclasses.fields(kind)}
            }
        origin = get_origin(kind)
        if origin in (Union, types.UnionType):
            rest = [one for one in get_args(kind) if one is not type(None)]
            if len(rest) != 1:
                return None
            kind = rest[0]
        elif item_of(kind) is not None:
            kind = item_of(kind)
        elif origin is typing.Annotated:
            kind = get_args(kind)[0]
        else:
            return None


def _include(kind: Any, chosen: Chosen) -> Any:
    """As pydantic wants to be told: lists by "__all__"."""
    inside = _fields(kind)
    made: dict[str, Any] = {}
    for word, rest in chosen.items():
        if rest is True:
            made[word] = True
            continue
        hint = None if inside is None else inside.get(word)
        made[word] = _include(hint, rest)
    return {"__all__": made} if _is_list(kind) else made


def _is_list(kind: Any) -> bool:
    if item_of(kind) is not None:
        return True
    if get_origin(kind) in (Union, types.UnionType):
        return any(_is_list(one) for one in get_args(kind))
    return False


def _pruned(told: Any, chosen: Chosen) -> Any:
    if isinstance(told, Mapping):
        return {
            word: told[word] if rest is True else _pruned(told[word], rest)
            for word, rest in chosen.items()
            if word in told
        }
    if isinstance(told, Sequence) and not isinstance(told, str | bytes):
        return [_pruned(one, chosen) for one in told]
    return told


def _unhidden(told: Any) -> Any:
    if isinstance(told, dict):
        return {key: _unhidden(one) for key, one in told.items() if one != HIDDEN}
    if isinstance(told, list):
        return [_unhidden(one) for one in told]
    return told
