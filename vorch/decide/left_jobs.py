"""How a job ended whose process has died, judged by what became of its tasks."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from vorch.codec import shown
from vorch.errors import Cancelled, StepFailed, VorchError
from vorch.model import Job, JobState, Task, TaskState
from vorch.plan import Plan

# Verbs that may make several plans, so that the end of one does not tell whether it was the last.
SEVERAL = (
    "balance",
    "disk_move",
    "node_maintenance",
    "recover",
    "trash_purge",
    "doctor",
    "node_probe",
    "state_rebuild",
)


def settled(job: Job, tasks: Sequence[Task], now: float) -> Job:
    """`tasks` are over, in the order in which they began."""
    ended = dataclasses.replace(
        job, finished_at=now, beat_at=now, tasks=tuple(task.id for task in tasks)
    )
    last = tasks[-1] if tasks else None
    if last is not None and _does(job, last) and job.verb not in SEVERAL:
        # The plan itself is not kept beyond its end; what it was, the task says.
        plan = Plan(verb=last.verb, subject=last.subject, why=last.why)
        result = {"plan": shown(plan), "task": shown(last)}
        return dataclasses.replace(ended, state=JobState.DONE, result=result)
    return _reported(ended, _trouble(job, tasks))


def _does(job: Job, task: Task) -> bool:
    """The task is done, and is what was asked for: not one that only made ready for it."""
    own = (job.verb, job.verb.partition("_")[2])
    return task.state is TaskState.DONE and task.verb.replace(" ", "_") in own


def failed(job: Job, error: VorchError, tasks: Sequence[str], now: float) -> Job:
    """The job that ended with this error."""
    ended = dataclasses.replace(job, finished_at=now, beat_at=now, tasks=tuple(tasks))
    return _reported(ended, error.as_dict())


def _reported(job: Job, error: dict[str, object]) -> Job:
    cancelled = error.get("code") == Cancelled.code
    state = JobState.CANCELLED if cancelled else JobState.FAILED
    return dataclasses.replace(job, state=state, error=error)


def _trouble(job: Job, tasks: Sequence[Task]) -> dict[str, object]:
    what = f"cannot finish {job.verb} {job.subject}".rstrip()
    if not tasks:
        return StepFailed(
            f"{what}: the service ended before it began anything; ask for it again",
            job=job.id,
        ).as_dict()
    last = tasks[-1]
    if last.state is not TaskState.DONE:
        if last.error is not None:
            return last.error
        return StepFailed(
            f"{what}: the service ended, and task {last.id} is {last.state.value}; see"
            " `vorch task show`",
            job=job.id,
            task=last.id,
        ).as_dict()
    done = ", ".join(task.id for task in tasks)
    return StepFailed(
        f"{what}: the service ended on the way; tasks that are done: {done}; ask for the rest"
        " again",
        job=job.id,
        tasks=[task.id for task in tasks],
    ).as_dict()
