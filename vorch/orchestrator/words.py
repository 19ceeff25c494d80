"""Words from outside, as the verbs understand them."""

from __future__ import annotations

import os
import re
from typing import Any, Literal, TypeVar, get_args, get_type_hints

from vorch.errors import Invalid
from vorch.model import check_text

T = TypeVar("T")


def one_of(kind: type[T], value: T | str, what: str) -> T:
    """A word from outside as a member of an enumeration."""
    try:
        return kind(value)  # type: ignore[call-arg]
    except ValueError as exc:
        words = ", ".join(str(one) for one in kind)  # type: ignore[attr-defined]
        raise Invalid(f"cannot use {str(value)!r} as {what}: it is one of {words}") from exc


def one_of_these(words: tuple[T, ...], value: object, what: str) -> T:
    """A word from outside as one of a few."""
    for word in words:
        if word == value:
            return word
    known = ", ".join(map(str, words))
    raise Invalid(f"cannot use {str(value)!r} as {what}: it is one of {known}")


def word_of(kind: type[Any], field: str, value: str | None) -> Any:
    """One of the words that this field of a type takes; None: nothing was said."""
    hint = get_type_hints(kind)[field]
    words = [word for part in (hint, *get_args(hint)) for word in get_args(part)]
    if value is None or value in words:
        return value
    known = ", ".join(word for word in words if isinstance(word, str))
    what = field.replace("_", " ")
    raise Invalid(f"cannot use {value!r} as {what}: it is one of {known}")


def pages_word(value: str) -> Literal["", "2M", "1G"]:
    """Size of huge pages; "none" says that there are none."""
    match value:
        case "" | "none":
            return ""
        case "2M" | "1G":
            return value
        case _:
            raise Invalid(f"cannot use {value!r} as huge pages: it is one of none, 2M, 1G")


def absolute(location: str) -> str:
    """A plan may be carried on by a process with another current folder."""
    check_text(location, "location")
    is_url = re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", location) is not None
    return location if is_url or not location else os.path.abspath(location)  # noqa: PTH100 links stay as they were named


def checked_seconds(value: float) -> float:
    if not 0 <= value <= 7 * 24 * 3600:
        raise Invalid(f"cannot use {value!r} as a time: it must be 0 to 604800 seconds")
    return float(value)
