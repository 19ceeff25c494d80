"""Files that are named on the command line: read and written here, or named by their whole path."""

from __future__ import annotations

import sys
from pathlib import Path

from . import render

# More than the library's own limits for what is read here.
LIMIT_BYTES = 2 * 1024 * 1024


def read_text(name: str, what: str) -> str:
    """A small text file; "-" is stdin."""
    from vorch import Invalid

    try:
        if name == "-":
            data = sys.stdin.buffer.read(LIMIT_BYTES + 1)
        else:
            with Path(name).expanduser().open("rb") as file:
                data = file.read(LIMIT_BYTES + 1)
        text = data.decode()
    except (OSError, ValueError, RuntimeError, AttributeError) as exc:
        why = getattr(exc, "strerror", None) or "it is not UTF-8 text"
        raise Invalid(f"cannot read {what} {name!r}: {why}; name a text file", file=name) from exc
    if len(data) > LIMIT_BYTES:
        raise Invalid(f"cannot read {what} {name!r}: it is larger than 2 MiB; name a smaller file")
    return text


def write_text(name: str, text: str) -> None:
    """A result as a file; "-" is stdout. What stood there is replaced when all of it is written."""
    from vorch import Invalid

    if name == "-":
        render.out(text, end="")
        return
    path = Path(name).expanduser()
    beside = path.with_name(f".{path.name}.part")
    try:
        # Through a device or a pipe there is nothing to be replaced.
        target = beside if path.is_file() or not path.exists() else path
        target.write_text(text, encoding="utf-8", errors="backslashreplace")
        if target is beside:
            beside.replace(path)
    except (OSError, ValueError, RuntimeError) as exc:
        why = getattr(exc, "strerror", None) or str(exc)
        raise Invalid(
            f"cannot write {name!r}: {why}; name a file in a folder that can be written", file=name
        ) from exc


def whole(location: str) -> str:
    """The library knows no current folder; whoever types a file's name stands in one."""
    if "://" in location or location.startswith(("file:", "upload:")):
        return location
    try:
        return str(Path(location).expanduser().absolute())
    except (OSError, RuntimeError) as exc:
        from vorch import Invalid

        raise Invalid(f"cannot find {location!r}: {exc}; name it by its whole path") from exc
