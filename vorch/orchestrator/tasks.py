"""What is under way and what was done."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from vorch.codec import decode
from vorch.decide import at_once, clients
from vorch.errors import NotFound, TimedOut, VorchError
from vorch.model import (
    Task,
    Volume,
    check_name,
)
from vorch.orchestrator.core import Core
from vorch.plan import Journal


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
        plan = self.world.state.get(f"plan/{check_name(task_id, 'task id')}")
        if plan is not None:
            at_once.check_cancel(decode(Journal, plan.body), self._standing_on)
        self.executor.request_cancel(task_id)

    def _standing_on(self, volume: Volume) -> tuple[str, ...]:
        """The VMs that have a disk which is a clone of it."""
        clones = {
            one.name
            for one in self.world.images(volume.pool).list()
            if one.base == volume.name and not one.trashed
        }
        return tuple(
            sorted(
                vm.name
                for vm in self.look().vms.values()
                for disk in vm.disks
                if disk.volume is not None
                and disk.volume.pool == volume.pool
                and disk.volume.name in clones
            )
        )

    def recover(self, *, force: bool = True, lasting: bool | None = None) -> tuple[Task, ...]:
        """Finish or undo what processes that have died left behind.

        With `force`, what the storage could not say when a VM was started is recorded, too.
        `lasting` (as `force`, when nobody says): also what takes long and holds up nobody, such as
        bringing in the data of an image that can be used already.
        """
        done = self.executor.recover(force=force, lasting=force if lasting is None else lasting)
        self.noter.wake()
        return (*done, *self._record_clients()) if force else done

    def _record_clients(self) -> tuple[Task, ...]:
        """Of each VM that runs, which clients write its disks, where that is not recorded yet."""
        cluster = self.look(None)
        done = []
        for name in [vm.name for vm in cluster.vms.values() if clients.lacking(cluster, vm)]:
            # Somebody may be at work on it, or it has just ended; there is a next time.
            with contextlib.suppress(VorchError):
                task = self._do(
                    lambda look, name=name: clients.record(look, look.vm(name)),  # type: ignore[misc]
                    dry_run=False,
                    wait_s=0.0,
                    hosts=lambda look: look.nodes,
                ).task
                if task is not None:
                    done.append(task)
        return tuple(done)
