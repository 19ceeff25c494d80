"""One run of the command line: what was said before the verb, the connection, what came of it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from . import render, sizes
from .progress import Progress

if TYPE_CHECKING:
    from vorch import Done, Orchestrator, Task


class Watch(Protocol):
    """Told of each task whenever it gets on."""

    def __call__(self, task: Task) -> None: ...


@dataclass(slots=True)
class Session:
    """The global options, the last task that was heard of, and what Ctrl-C did not end."""

    uri: str | None = None
    verbose: bool = False
    task: Task | None = None
    goes_on: str = ""
    # Told of tasks in place of the progress on stderr.
    watch: Watch | None = None
    # Told how long the store takes.
    observe: Callable[[str, float, bool], None] | None = None


# There is one command per process; main() sets it anew.
current = Session()


@contextmanager
def cluster(as_json: bool = False, *, recover: bool = True) -> Iterator[Orchestrator]:
    """The cluster that the options name, for as long as the command takes.

    `recover`: what dead processes left behind is dealt with first. Commands that look into just
    that do without.
    """
    from vorch import connect

    with Progress(quiet=as_json) as progress:
        try:
            with connect(
                current.uri,
                watch=current.watch or progress,
                recover=recover,
                observe=current.observe,
            ) as found:
                yield found
        finally:
            current.task = progress.last


class Verb(Protocol):
    """A verb of the library with all its arguments but one."""

    def __call__(self, *, dry_run: bool) -> Done: ...


def ask_and_do(verb: Verb, *, dry_run: bool, yes: bool) -> Done:
    """For what cannot simply be taken back: show the plan and ask, unless told not to."""
    if not dry_run and not yes:
        planned = verb(dry_run=True)
        if not planned.plan.empty:
            ask(str(planned.plan), f"{planned.plan.verb} {planned.plan.subject!r}")
    return verb(dry_run=dry_run)


def ask(what: str, verb: str) -> None:
    """Returns if the answer is yes."""
    from vorch import Cancelled, Invalid

    if sys.stdin is None or not sys.stdin.isatty():
        raise Invalid(
            f"cannot {verb}: there is no terminal to ask at whether that is meant; add --yes"
        )
    sys.stderr.write(f"{render.clean(what)}\nGo on? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Cancelled(f"cannot {verb}: the answer was not yes; nothing was touched")


def show_done(done: Done, as_json: bool) -> None:
    """The plan of a dry run, or a line that says what was done and why so."""
    plan, task = done.plan, done.task
    if as_json:
        render.print_json(done)
    elif task is None and not plan.empty:
        render.out(render.clean(plan))
    elif task is None:
        render.out(render.clean(f"{plan.verb} {plan.subject}: nothing to do; {plan.why}"))
    else:
        took = sizes.shown_span((task.finished_at or task.started_at) - task.started_at)
        render.out(render.clean(f"{plan.verb} {plan.subject}: done in {took}; {plan.why}"))


def run(act: Callable[[Orchestrator], Done], as_json: bool) -> None:
    """The whole of most commands: connect, one verb, print."""
    with cluster(as_json) as found:
        done = act(found)
    show_done(done, as_json)


def show_all(
    values: tuple[object, ...],
    as_json: bool,
    table: Callable[[], None],
    nothing: str,
) -> None:
    """A list: JSON, a table, or on a terminal a sentence where there is nothing."""
    if as_json:
        render.print_json(values)
    elif values or not render.is_terminal(sys.stdout):
        table()
    else:
        render.out(nothing)
