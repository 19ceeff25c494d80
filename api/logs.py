"""The service's log on stderr: a line for people or a JSON object each, with the task's id.

Nothing secret comes here: neither headers nor bodies of requests, nor arguments of tasks.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from datetime import UTC, datetime

from vorch import Task, current_task

tasks = logging.getLogger("vorch.task")


def log_to_stderr(form: str) -> None:
    """All loggers of this process, in one form ("text", "json")."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if form == "json" else _Text())
    handler.addFilter(_with_task)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for name in ("vorch", "vorch_api"):
        logging.getLogger(name).setLevel(logging.INFO)


def _with_task(record: logging.LogRecord) -> bool:
    """Whoever writes about a task names it; else it is the one that this thread is at."""
    record.task = getattr(record, "task", "") or current_task()
    return True


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        level = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        task = str(getattr(record, "task", ""))
        line = f"{moment} {level}{one_line(record.getMessage())}" + (f" [{task}]" if task else "")
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        said = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "from": record.name,
            "task": str(getattr(record, "task", "")),
            "message": record.getMessage(),
        }
        if record.exc_info:
            said["traceback"] = self.formatException(record.exc_info)
        return json.dumps(said, ensure_ascii=True)


def one_line(text: str) -> str:
    """Text that cannot pass for a line of its own, nor steer a terminal."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


class TaskLog:
    """The `watch` of a connection: how each task begins, goes on and ends."""

    def __init__(self) -> None:
        self._doing: dict[str, str] = {}

    def __call__(self, task: Task) -> None:
        name = f"{task.verb} {task.subject}"
        beside = {"task": task.id}
        if task.over:
            self._doing.pop(task.id, None)
            took_s = (task.finished_at or task.started_at) - task.started_at
            why = f": {task.error['message']}" if task.error else ""
            level = logging.INFO if task.state.value == "done" else logging.WARNING
            tasks.log(level, "%s: %s after %.1f s%s", name, task.state, took_s, why, extra=beside)
            return
        if task.id not in self._doing:
            tasks.info("%s: begins, for %s", name, task.who, extra=beside)
            self._doing[task.id] = ""
        if task.doing and self._doing[task.id] != task.doing:
            self._doing[task.id] = task.doing
            tasks.info("%s: %.0f%%: %s", name, task.percent, task.doing, extra=beside)
