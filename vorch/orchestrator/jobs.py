"""What was asked for through a service, and what becomes of it when that service dies."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable

from vorch.codec import decode, encode
from vorch.decide import left_jobs
from vorch.errors import Conflict, NotFound, TimedOut, VorchError
from vorch.model import Job, Task, check_name
from vorch.orchestrator.tasks import Tasks
from vorch.plan import Journal
from vorch.ports import Change

# Jobs that a thread of this process is at, by their ids.
held: set[str] = set()


class Jobs(Tasks):
    def job_list(self) -> tuple[Job, ...]:
        """The newest first."""
        documents = self.world.state.read(["job"])
        jobs = [decode(Job, document.body) for document in documents.values()]
        return tuple(sorted(jobs, key=lambda job: (-job.started_at, job.id)))

    def job_show(self, job_id: str) -> Job:
        document = self.world.state.get(f"job/{check_name(job_id, 'job id')}")
        if document is None:
            raise NotFound(
                f"cannot find job {job_id!r}: there is none of that id; `vorch job list` shows all",
                job=job_id,
            )
        job = decode(Job, document.body)
        if job.over:
            return job
        return dataclasses.replace(job, tasks=tuple(task.id for task in self._tasks_of(job_id)))

    def job_watch(
        self, job_id: str, show: Callable[[Job | Task], None], *, timeout_s: float | None = None
    ) -> Job:
        """Call `show` whenever the job or a task of it changes, until it is over."""
        clock = self.world.clock
        until = None if timeout_s is None else clock.now() + timeout_s
        revision, shown = 0, dict[str, Job | Task]()
        while True:
            job = self.job_show(job_id)
            for one in (*map(self._task_if_kept, job.tasks), job):
                if one is not None and shown.get(one.id) != one:
                    shown[one.id] = one
                    show(one)
            if job.over:
                return job
            if until is not None and clock.now() >= until:
                raise TimedOut(f"cannot wait any longer for job {job_id!r}: it is still running")
            revision, _ = self.world.state.changes(revision, 1.0)

    def _task_if_kept(self, task_id: str) -> Task | None:
        try:
            return self.task_show(task_id)
        except NotFound:
            return None

    def job_cancel(self, job_id: str) -> None:
        """Ask whoever runs it to undo what is under way, and to begin no more of it."""
        job = self.job_show(job_id)
        if job.over:
            raise Conflict(
                f"cannot cancel job {job_id!r}: it is {job.state.value} already", job=job_id
            )
        self.world.state.commit([Change(f"cancel/{job_id}", None, {})])
        for task in self._tasks_of(job_id):
            if not task.over:
                # It may just have ended. That its undoing would harm others is said, though.
                with contextlib.suppress(NotFound):
                    self._cancel_if_running(task.id)

    def recover(self, *, force: bool = True, lasting: bool | None = None) -> tuple[Task, ...]:
        """Finish or undo what processes that have died left behind, and say so in their jobs.

        With `force`, what the storage could not say when a VM was started is recorded, too.
        `lasting` (as `force`, when nobody says): also what takes long and holds up nobody, such as
        bringing in the data of an image that can be used already.
        """
        done = super().recover(force=force, lasting=lasting)
        self._settle_jobs()
        return done

    def _cancel_if_running(self, task_id: str) -> None:
        try:
            self.task_cancel(task_id)
        except Conflict:
            if not self.task_show(task_id).over:
                raise

    def _tasks_of(self, job_id: str) -> tuple[Task, ...]:
        found = [
            decode(Task, document.body)
            for document in self.world.state.read(["task"]).values()
            if document.body.get("job") == job_id
        ]
        return tuple(sorted(found, key=lambda task: (task.started_at, task.id)))

    def _settle_jobs(self) -> None:
        """Jobs of the dead end as their tasks did. One whose task goes on is left for later."""
        running = {
            key: document
            for key, document in self.world.state.read(["job"]).items()
            if document.body.get("state") == "running"
        }
        for key, document in running.items():
            job = decode(Job, document.body)
            if not self._left(job):
                continue
            # In this order: what is over when its journal is looked for is not begun anew.
            plans = {
                decode(Journal, one.body).id for one in self.world.state.read(["plan"]).values()
            }
            tasks = self._tasks_of(job.id)
            if any(task.id in plans for task in tasks):
                continue
            ended = left_jobs.settled(job, tasks, self.world.clock.now())
            # Somebody else may have been quicker.
            with contextlib.suppress(VorchError):
                self.world.state.commit(
                    [
                        Change(key, document.version, encode(ended)),
                        Change(f"cancel/{job.id}", None, None),
                    ]
                )

    def _left(self, job: Job) -> bool:
        processes = self.world.processes
        if job.runner == processes.me():
            return job.id not in held
        alive = processes.alive(job.runner)
        if alive is None:
            silent_s = self.world.clock.now() - job.beat_at
            return silent_s >= self.settings.runner_silent_after_s
        return not alive
