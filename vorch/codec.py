"""Between values and JSON: `encode` and `decode`, by the types' own annotations."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from vorch.errors import Invalid

# Loaded when the first value is read or written: whoever only prints some needs none of it.
if TYPE_CHECKING:
    from pydantic import TypeAdapter

T = TypeVar("T")
HIDDEN = "(not shown)"


_adapters: dict[type[Any], TypeAdapter[Any]] = {}
# What these do, without their many options: it is asked for thousands of times a minute.
_writers: dict[type[Any], Callable[..., Any]] = {}
_readers: dict[type[Any], Callable[..., Any]] = {}
_texts: dict[type[Any], Callable[..., bytes]] = {}
_text_readers: dict[type[Any], Callable[..., Any]] = {}


def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    # Building one takes milliseconds, so each is built once, when it is first needed.
    if kind not in _adapters:
        from pydantic import TypeAdapter

        _adapters[kind] = TypeAdapter(kind)
    return _adapters[kind]


def _text_adapter(kind: type[Any]) -> TypeAdapter[Any]:
    """Writes a tuple of one: a type alone takes no settings. Else what is no number were null."""
    from pydantic import ConfigDict, TypeAdapter

    return TypeAdapter(tuple[kind], config=ConfigDict(ser_json_inf_nan="constants"))  # type: ignore[valid-type]


class Plain(dict[str, Any]):
    """What `encode` made: plain JSON data for certain, which a store need not look through."""


class Coded:
    """A value that is to be written down as `encode` has it. What keeps text makes only that of it:
    that is four times as quick as a dict and its text. Not so for plans: their steps are of many
    types, of which pydantic makes dicts first in any case, and then once more.
    """

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Coded) and self.value == other.value

    __hash__ = None  # type: ignore[assignment]

    @property
    def body(self) -> dict[str, Any]:
        return encode(self.value)

    @property
    def text(self) -> str:
        """The JSON text of that, in ASCII; raises ValueError where it had better be made of it."""
        kind = type(self.value)
        write = _texts.get(kind)
        if write is None:
            write = _texts[kind] = _text_adapter(kind).serializer.to_json
        # In a tuple of one.
        return write((self.value,), ensure_ascii=True)[1:-1].decode()


def encode(value: Any) -> dict[str, Any]:
    """A value of the model or a plan as a JSON-ready dict."""
    kind = type(value)
    write = _writers.get(kind)
    if write is None:
        write = _writers[kind] = _adapter(kind).serializer.to_python
    return Plain(write(value, mode="json"))


def decode_text(kind: type[T], text: str) -> T | None:
    """What `decode` makes of the text's body; None where the body had better be looked at."""
    read = _text_readers.get(kind)
    if read is None:
        read = _text_readers[kind] = _adapter(kind).validator.validate_json
    try:
        value: T = read(text)
    except ValueError:
        # It is not sound, or has half of a surrogate pair: that is found out, and said, there.
        return None
    return value


def decode(kind: type[T], body: dict[str, Any]) -> T:
    """The value that `encode` wrote down. Unsound documents raise `Invalid`."""
    read = _readers.get(kind)
    if read is None:
        read = _readers[kind] = _adapter(kind).validator.validate_python
    try:
        value: T = read(body)
        return value
    except ValueError as exc:
        from pydantic import ValidationError

        if not isinstance(exc, ValidationError):
            raise
        first = exc.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise Invalid(
            f"cannot read a document as {kind.__name__}: {where or 'it'}: {first['msg']}; it was"
            " written by another version of vorch, or by hand"
        ) from exc


def shown(value: Any) -> Any:
    """A value as plain data for people and programs outside: as `encode`, without its secrets.

    What a type keeps out of its own repr (password hashes, the text of answer files) is left out
    here, too; of such a dict of files the names stay.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        body = {}
        for field in dataclasses.fields(value):
            part = getattr(value, field.name)
            if field.repr or not part:
                body[field.name] = shown(part)
            elif isinstance(part, dict):
                body[field.name] = dict.fromkeys(part, HIDDEN)
            else:
                body[field.name] = HIDDEN
        return body
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, dict):
        return {key: shown(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [shown(one) for one in value]
    return value


def schema(kind: type[Any]) -> dict[str, Any]:
    """The JSON schema of a type, for documentation and checks."""
    return _adapter(kind).json_schema()
