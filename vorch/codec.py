"""Between values and JSON: `encode` and `decode`, by the types' own annotations."""

from __future__ import annotations

from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from vorch.errors import Invalid

T = TypeVar("T")


_adapters: dict[type[Any], TypeAdapter[Any]] = {}


def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    # Building one takes milliseconds, so each is built once, when it is first needed.
    if kind not in _adapters:
        _adapters[kind] = TypeAdapter(kind)
    return _adapters[kind]


def encode(value: Any) -> dict[str, Any]:
    """A value of the model or a plan as a JSON-ready dict."""
    return cast(dict[str, Any], _adapter(type(value)).dump_python(value, mode="json"))


def decode(kind: type[T], body: dict[str, Any]) -> T:
    """The value that `encode` wrote down. Unsound documents raise `Invalid`."""
    try:
        return cast(T, _adapter(kind).validate_python(body))
    except ValidationError as exc:
        first = exc.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise Invalid(
            f"cannot read a document as {kind.__name__}: {where or 'it'}: {first['msg']}; it was"
            " written by another version of vorch, or by hand"
        ) from exc


def schema(kind: type[Any]) -> dict[str, Any]:
    """The JSON schema of a type, for documentation and checks."""
    return _adapter(kind).json_schema()
