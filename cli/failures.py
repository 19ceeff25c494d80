"""How a command says that it failed, on stderr, and the exit code that goes with it."""

from __future__ import annotations

import sys
import traceback
from contextlib import suppress
from typing import Any

import typer

from .render import clean

INTERRUPTED = 130


def as_dict(exc: BaseException) -> tuple[dict[str, Any], int]:
    """(what the library's `as_dict` says, or would say; exit code) of whatever was raised."""
    if isinstance(exc, typer.TyperException):
        # Typer's own words about what was typed.
        path = getattr(getattr(exc, "ctx", None), "command_path", "vorch")
        message = exc.format_message().rstrip(".")
        text = f"cannot read the command: {message}; see `{path} --help`"
        return {"code": "invalid", "message": text, "fields": {}}, 2
    # Not imported here: a usage error need not wait for the library, which raised nothing then.
    vorch_error = getattr(sys.modules.get("vorch"), "VorchError", None)
    if vorch_error is not None and isinstance(exc, vorch_error):
        return exc.as_dict(), exc.exit_code
    text = (
        f"cannot go on: {type(exc).__name__}: {exc}; that is not meant to happen, --verbose before"
        " the command shows where it did"
    )
    return {"code": "error", "message": text, "fields": {}}, 1


def report(exc: BaseException, *, as_json: bool, verbose: bool) -> int:
    """Say it once, in one form, and return the exit code."""
    body, exit_code = as_dict(exc)
    say(body, as_json=as_json)
    if verbose and not isinstance(exc, typer.TyperException):
        with suppress(OSError):
            traceback.print_exception(exc, file=sys.stderr)
    return exit_code


def say(body: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        import json

        text = json.dumps(body, default=str)
    else:
        text = clean(f"vorch: {body['code']}: {body['message']}")
    # With stderr closed there is nobody left to tell; the exit code remains.
    with suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)
