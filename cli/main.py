"""`vorch`: all commands under one name, and the one place where a run begins and ends.

Typer and nothing else is loaded to read a command line or to print help; the library comes with the
first command that needs it.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Annotated

import typer
from typer.core import TyperCommand, TyperGroup

from . import failures, session
from .commands import (
    balance,
    bench,
    classes,
    devices,
    ha,
    health,
    history,
    hosts,
    house,
    images,
    install,
    inventory,
    jobs,
    lab,
    life,
    looks,
    networks,
    room,
    rules,
    simulate,
    snapshots,
    state,
    tasks,
    users,
    whatif,
)

app = typer.Typer(
    name="vorch",
    help="Run virtual machines on nothing but libvirt.",
    epilog="Names, sizes and limits: docs/cli.md. Errors and exit codes: docs/errors.md.",
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True)
def options(
    ctx: typer.Context,
    uri: Annotated[
        str | None,
        typer.Option(
            "--uri",
            metavar="URI",
            help="Whose state: memory:, sqlite:///path or rados://POOL (default: VORCH_URI, then"
            " vorch.toml, then this machine's own).",
        ),
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Say where an error came from.")
    ] = False,
) -> None:
    session.current = session.Session(uri=uri, verbose=verbose)
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


# The order of `vorch --help`: what one needs first comes first.
house.add_to(app)
life.add_to(app)
install.add_to(app)
looks.add_to(app)
snapshots.add_to(app)
devices.add_to(app)
classes.add_to(app)
images.add_to(app)
networks.add_to(app)
hosts.add_to(app)
ha.add_to(app)
health.add_to(app)
rules.add_to(app)
balance.add_to(app)
room.add_to(app)
whatif.add_to(app)
history.add_to(app)
inventory.add_to(app)
tasks.add_to(app)
users.add_to(app)
jobs.add_to(app)
state.add_to(app)
simulate.add_to(app)
lab.add_to(app)
bench.add_to(app)


@functools.cache
def command() -> TyperCommand | TyperGroup:
    """The commands as Typer runs them, put together once."""
    made = typer.main.get_command(app)
    assert isinstance(made, (TyperCommand, TyperGroup))
    return made


def command_for(args: Sequence[str]) -> TyperCommand | TyperGroup:
    """The commands as far as this line needs them: to make all takes longer than most of them."""
    word = _first_word(args)
    lean = typer.Typer(name="vorch", rich_markup_mode=None)
    lean.info, lean.registered_callback = app.info, app.registered_callback
    lean.registered_groups = [
        one
        for one in app.registered_groups
        if one.typer_instance is not None and one.typer_instance.info.name == word
    ]
    lean.registered_commands = [
        one
        for one in app.registered_commands
        if word == (one.name or typer.main.get_command_name(getattr(one.callback, "__name__", "")))
    ]
    if not (lean.registered_groups or lean.registered_commands):
        return command()
    made = typer.main.get_command(lean)
    # One command alone would stand without its name; the options before it keep it a group.
    return made if isinstance(made, TyperGroup) else command()


def _first_word(args: Sequence[str]) -> str:
    """The command, past the options that stand before it; "" where they are not understood."""
    rest = list(args)
    while rest and rest[0].startswith("-"):
        if rest[0] == "--uri":
            rest = rest[2:]
        elif rest[0] in ("-v", "--verbose") or rest[0].startswith("--uri="):
            rest = rest[1:]
        else:
            return ""
    return rest[0] if rest else ""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; the exit code."""
    if argv is None:
        _fill_gaps()
        # NumPy's threads cost more to start than a decision about room takes, and have no work.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    args = list(sys.argv[1:] if argv is None else argv)
    as_json = "--json" in (args[: args.index("--")] if "--" in args else args)
    session.current = session.Session(verbose=bool({"-v", "--verbose"} & set(args)))
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character must not keep a command from ending well.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        with _ended_by_sigterm():
            _check_text(args)
            code = command_for(args).main(args=args, prog_name="vorch", standalone_mode=False)
        if code == failures.INTERRUPTED:
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except KeyboardInterrupt:
        failures.say(_interrupted(), as_json=as_json)
        return failures.INTERRUPTED
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115 - for as long as Python lasts
        return 141
    except Exception as exc:  # noqa: BLE001 - nobody at a command line wants a traceback
        return failures.report(exc, as_json=as_json, verbose=session.current.verbose)


def _fill_gaps() -> None:
    """Whoever starts us with a closed stdout must not have it written into the next file opened."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _check_text(args: Sequence[str]) -> None:
    """Bytes that are no UTF-8 come as lone surrogates; nothing that vorch knows is named so."""
    for arg in args:
        try:
            arg.encode()
        except UnicodeEncodeError:
            from vorch import Invalid

            raise Invalid(
                f"cannot use the argument {arg!r}: it is not UTF-8 text; type it anew"
            ) from None


def _interrupted() -> dict[str, object]:
    task = session.current.task
    message = "cannot finish: it was interrupted"
    if session.current.goes_on:
        message += f"; {session.current.goes_on}"
    elif task is not None and task.state.value == "cancelled":
        message += "; what had been done was undone"
    elif task is not None and task.state.value == "done":
        message = "cannot interrupt it: it was done already"
    elif task is not None and not task.over:
        message += (
            f"; task {task.id} is not undone yet, the next command or `vorch recover` does that"
        )
    return {"code": "cancelled", "message": message, "fields": {}}


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Asked to end, a command first undoes what it has begun, as after Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    sys.exit(main())
