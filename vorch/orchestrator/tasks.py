"""What is under way and what was done."""

from __future__ import annotations

from collections.abc import Callable

from vorch.codec import decode
from vorch.errors import NotFound, TimedOut
from vorch.model import (
    Task,
    check_name,
)
from vorch.orchestrator.core import Core


class Tasks(Core):
    def task_list(self) -> tuple[Task, ...]:
        """The newest first."""
        documents = self.world.state.read(["task"])
        tasks = [decode(Task, document.body) for document in documents.values()]
        return tuple(sorted(tasks, key=lambda task: (-task.started_at, task.id)))

    def task_show(self, task_id: str) -> Task:
        document = self.world.state.get(f"task/{check_name(task_id, 'task id')}")
        if document is None:
            raise NotFound(
                f"cannot find task {task_id!r}: there is none of that id; `vorch task list` shows"
                " all",
                task=task_id,
            )
        return decode(Task, document.body)

    def task_watch(
        self, task_id: str, show: Callable[[Task], None], *, timeout_s: float | None = None
    ) -> Task:
        """Call `show` whenever the task's record changes, until it is over."""
        clock = self.world.clock
        until = None if timeout_s is None else clock.now() + timeout_s
        revision, last = 0, None
        while True:
            task = self.task_show(task_id)
            if task != last:
                show(task)
                last = task
            if task.over:
                return task
            if until is not None and clock.now() >= until:
                raise TimedOut(f"cannot wait any longer for task {task_id!r}: it is still running")
            revision, _ = self.world.state.changes(revision, 1.0)

    def task_cancel(self, task_id: str) -> None:
        """Ask whoever runs it to undo it."""
        self.executor.request_cancel(check_name(task_id, "task id"))

    def recover(self, *, force: bool = True) -> tuple[Task, ...]:
        """Finish or undo what processes that have died left behind."""
        return self.executor.recover(force=force)
