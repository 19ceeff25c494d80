"""What is being done and was done: tasks, recovery, the trash."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from .. import completion, render, session, sizes
from ..options import AsJson, DryRun, TaskId, Wait, Yes
from ..progress import Progress
from ..session import ask, cluster, show_all
from .group import noun

if TYPE_CHECKING:
    from vorch import Done, Job, Task

# What dead processes left is dealt with before most commands; one that looks at exactly that, or
# stops it, must find it as it is.
AS_IT_IS = {"recover": False}


def add_to(app: typer.Typer) -> None:
    group = noun(app, "task", "What is being done and was done: list, show, watch, cancel.")
    group.command("list")(task_list)
    group.command("show")(task_show)
    group.command("watch")(task_watch)
    group.command("cancel")(task_cancel)
    app.command()(recover)
    trash = noun(app, "trash", "What was deleted and can still be had back: list, purge.")
    trash.command("list")(trash_list)
    trash.command("purge")(trash_purge)


def task_list(
    limit: Annotated[
        int, typer.Option("--limit", metavar="N", min=1, help="The newest so many.")
    ] = 50,
    as_json: AsJson = False,
) -> None:
    """Tasks, the newest first."""
    with cluster(as_json, **AS_IT_IS) as found:
        tasks = found.task_list()[:limit]

    def table() -> None:
        render.table(
            ("ID", "STATE", "WHAT", "STARTED", "TOOK", "BY", "NOW"),
            [
                (
                    one.id,
                    one.state,
                    f"{one.verb} {one.subject}",
                    render.moment(one.started_at),
                    took(one),
                    one.who,
                    f"{one.percent:.0f}% {one.doing}".strip() if not one.over else "",
                )
                for one in tasks
            ],
            right=("TOOK",),
        )

    show_all(tasks, as_json, table, "There is no task yet.")


def took(one: Task | Job) -> str:
    if one.finished_at is None:
        return ""
    return sizes.shown_span(one.finished_at - one.started_at)


def task_show(task_id: TaskId, as_json: AsJson = False) -> None:
    """One task with its log."""
    with cluster(as_json, **AS_IT_IS) as found:
        task = found.task_show(task_id)
    if as_json:
        render.print_json(task)
    else:
        render.facts(_facts(task))


def _facts(task: Task) -> list[tuple[str, object]]:
    error = task.error or {}
    return [
        ("id", task.id),
        ("what", f"{task.verb} {task.subject}"),
        ("why", task.why),
        ("state", task.state if task.over else f"{task.state}, {task.percent:.0f}%"),
        ("now", task.doing),
        ("by", task.who),
        ("started", render.moment(task.started_at)),
        ("took", took(task)),
        ("error", f"{error['code']}: {error['message']}" if error else ""),
        ("open", error.get("open", "")),
        ("result", "\n".join(f"{name}: {value}" for name, value in task.result.items())),
        ("log", "\n".join(task.log)),
    ]


def task_watch(
    task_id: TaskId,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout",
            metavar="SECONDS",
            parser=sizes.seconds,
            help="Give up watching after that time; the task goes on.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Watch a task until it is over.

    Ends as the task did, with the exit code of its error.
    """
    with cluster(as_json, **AS_IT_IS) as found, Progress(quiet=as_json) as progress:
        try:
            task = found.task_watch(task_id, progress, timeout_s=timeout)
        except KeyboardInterrupt:
            session.current.goes_on = f"task {task_id} goes on without being watched"
            raise
    tell_end(task, as_json)


def tell_end(one: Task | Job, as_json: bool) -> None:
    """How it ended; raises its error."""
    from vorch import error_from_dict

    if as_json:
        render.print_json(one)
    else:
        render.out(render.clean(f"{one.verb} {one.subject}".rstrip() + f": {one.state}"))
    if one.state != "done" and one.error:
        raise error_from_dict(dict(one.error))


def task_cancel(task_id: TaskId, as_json: AsJson = False) -> None:
    """Ask whoever runs a task to stop and undo it."""
    with cluster(as_json, **AS_IT_IS) as found:
        found.task_cancel(task_id)
        if as_json:
            render.print_json(found.task_show(task_id))
    if not as_json:
        render.out(f"task {render.clean(task_id)}: asked to stop; `vorch task watch` shows its end")


def _message(task: Task) -> object:
    return (task.error or {}).get("message", "")


def recover(as_json: AsJson = False) -> None:
    """Finish or undo what dead processes have left behind."""
    with cluster(as_json, **AS_IT_IS) as found:
        tasks = found.recover()
    if as_json:
        render.print_json(tasks)
    elif not tasks:
        render.out("Nothing was left unfinished.")
    else:
        render.table(
            ("ID", "STATE", "WHAT", "ERROR"),
            [
                (
                    one.id,
                    one.state,
                    f"{one.verb} {one.subject}",
                    _message(one),
                )
                for one in tasks
            ],
        )


# ---------------------------------------------------------------------------------------------
# The trash


def trash_list(as_json: AsJson = False) -> None:
    """What was deleted, and how long it can still be had back."""
    with cluster(as_json) as found:
        trash = found.trash_list()

    def table() -> None:
        render.table(
            ("KEY", "NAME", "WHAT", "DELETED", "UNTIL"),
            [
                (
                    one.key,
                    one.name,
                    "VM" if one.vm else "disk",
                    render.moment(one.deleted_at),
                    render.moment(one.purge_at),
                )
                for one in trash
            ],
        )

    show_all(trash, as_json, table, "The trash is empty.")


def trash_purge(
    key: Annotated[
        str | None,
        typer.Argument(
            metavar="KEY",
            autocompletion=completion.trash_keys,
            help="One thing, whose time is not over yet; `vorch trash list` shows the keys.",
        ),
    ] = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """Delete for good what is in the trash.

    Without a key all whose time is over; with one, that thing, whenever.
    """
    with cluster(as_json) as found:
        # What is overdue goes by itself anyway; only what could still be had back is asked about.
        if key is not None and not dry_run and not yes:
            planned = found.trash_purge(key, dry_run=True)
            ask("\n".join(str(done.plan) for done in planned), f"purge {key!r} for good")
        purged = found.trash_purge(key, dry_run=dry_run, wait_s=wait)
    if as_json:
        render.print_json(purged)
    elif not purged:
        render.out("There is nothing in the trash whose time is over.")
    else:
        _show_purged(purged)


def _show_purged(purged: tuple[Done, ...]) -> None:
    for done in purged:
        if done.task is None:
            render.out(render.clean(done.plan))
        else:
            render.out(render.clean(f"{done.plan.verb} {done.plan.subject}: gone for good"))
