"""What was asked for through a service: jobs, each with its tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from .. import render, session, sizes
from ..options import AsJson
from ..progress import Progress
from ..session import cluster, show_all
from .group import noun
from .tasks import AS_IT_IS, tell_end, took

if TYPE_CHECKING:
    from vorch import Job

JobId = Annotated[str, typer.Argument(metavar="JOB", help="Its id; `vorch job list` shows all.")]


def add_to(app: typer.Typer) -> None:
    group = noun(app, "job", "What was asked for through a service: list, show, watch, cancel.")
    group.command("list")(job_list)
    group.command("show")(job_show)
    group.command("watch")(job_watch)
    group.command("cancel")(job_cancel)


def job_list(
    limit: Annotated[
        int, typer.Option("--limit", metavar="N", min=1, help="The newest so many.")
    ] = 50,
    as_json: AsJson = False,
) -> None:
    """What services were asked for, the newest first."""
    with cluster(as_json, **AS_IT_IS) as found:
        jobs = found.job_list()[:limit]

    def table() -> None:
        render.table(
            ("ID", "STATE", "WHAT", "STARTED", "TOOK", "BY"),
            [
                (
                    one.id,
                    one.state,
                    f"{one.verb} {one.subject}".rstrip(),
                    render.moment(one.started_at),
                    took(one),
                    one.who,
                )
                for one in jobs
            ],
            right=("TOOK",),
        )

    show_all(jobs, as_json, table, "No service was asked for anything yet.")


def job_show(job_id: JobId, as_json: AsJson = False) -> None:
    """One job: what was asked for, its tasks, how it ended."""
    with cluster(as_json, **AS_IT_IS) as found:
        job = found.job_show(job_id)
    if as_json:
        render.print_json(job)
        return
    error = job.error or {}
    given = {name: value for name, value in job.arguments.items() if value not in (None, [], "")}
    render.facts(
        [
            ("id", job.id),
            ("what", f"{job.verb} {job.subject}".rstrip()),
            ("with", "\n".join(f"{name}: {value}" for name, value in given.items())),
            ("state", job.state),
            ("by", job.who),
            ("started", render.moment(job.started_at)),
            ("took", took(job)),
            ("tasks", "\n".join(job.tasks)),
            ("error", f"{error['code']}: {error['message']}" if error else ""),
        ]
    )


def job_watch(
    job_id: JobId,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout",
            metavar="SECONDS",
            parser=sizes.seconds,
            help="Give up watching after that time; the job goes on.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Watch a job and its tasks until it is over.

    Ends as the job did, with the exit code of its error.
    """
    from vorch import Task

    with cluster(as_json, **AS_IT_IS) as found, Progress(quiet=as_json) as progress:

        def show(one: Job | Task) -> None:
            if isinstance(one, Task):
                progress(one)

        try:
            job = found.job_watch(job_id, show, timeout_s=timeout)
        except KeyboardInterrupt:
            session.current.goes_on = f"job {job_id} goes on without being watched"
            raise
    tell_end(job, as_json)


def job_cancel(job_id: JobId, as_json: AsJson = False) -> None:
    """Ask whoever runs a job to undo what is under way and begin no more of it."""
    with cluster(as_json, **AS_IT_IS) as found:
        found.job_cancel(job_id)
        if as_json:
            render.print_json(found.job_show(job_id))
    if not as_json:
        render.out(f"job {render.clean(job_id)}: asked to stop; `vorch job show` tells its end")
