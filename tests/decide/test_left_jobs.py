"""How a job is said to have ended whose process has died."""

from __future__ import annotations

import pytest

from vorch.decide.left_jobs import settled
from vorch.model import Job, JobState, Task, TaskState


def job(verb: str, subject: str = "web") -> Job:
    return Job(id="a" * 16, verb=verb, subject=subject, who="olga from 192.0.2.1", started_at=1.0)


def task(verb: str, subject: str = "web", state: TaskState = TaskState.DONE) -> Task:
    return Task(
        id="b" * 12,
        verb=verb,
        subject=subject,
        why="",
        who="olga from 192.0.2.1",
        started_at=1.0,
        state=state,
        finished_at=2.0,
    )


@pytest.mark.parametrize(
    ("verb", "did"),
    [("start", "start"), ("image_import", "image import"), ("node_fence", "fence")],
)
def test_what_was_asked_for_is_done(verb: str, did: str) -> None:
    assert settled(job(verb), [task(did)], 3.0).state is JobState.DONE


def test_what_only_made_ready_for_it_is_not_it() -> None:
    """Before a VM starts, what its host can may be found out and written down."""
    left = settled(job("start"), [task("node probe", "h1")], 3.0)
    assert left.state is JobState.FAILED
    assert left.error is not None
    assert "on the way" in str(left.error["message"])
    assert settled(job("start"), [task("node probe", "h1"), task("start")], 3.0).error is None


@pytest.mark.parametrize("tasks", [[], [task("start", state=TaskState.UNDONE)]])
def test_what_was_undone_or_never_begun_is_told(tasks: list[Task]) -> None:
    left = settled(job("start"), tasks, 3.0)
    assert left.state is JobState.FAILED
    assert left.error is not None


def test_of_several_the_last_does_not_tell() -> None:
    assert settled(job("balance", ""), [task("balance")], 3.0).state is JobState.FAILED
