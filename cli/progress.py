"""How far a task is, on stderr: a bar where somebody looks, a line per step where nobody does."""

from __future__ import annotations

import sys
from contextlib import suppress
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING

from .render import clean, is_terminal

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

    from vorch import Task


# What stands on the line of the bar beside the words: spinner, bar, percent, time, spaces.
BAR_WIDTH = 24
BESIDE_WORDS = 1 + BAR_WIDTH + len("100%") + len("0:00:00") + 4


class Progress:
    """The `watch` of a connection. `quiet`: lines would spoil JSON on stderr, so only a bar."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.last: Task | None = None
        self._quiet = quiet
        self._bar: Bar | None = None
        # A line for each task at work, by its id: several VMs may move at once.
        self._lines: dict[str, TaskID] = {}
        self._said: dict[str, str] = {}
        # Each of them tells from a thread of its own.
        self._turn = Lock()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._clear()

    def __call__(self, task: Task) -> None:
        self.last = task
        # Whoever closed stderr does not want to know; that must not undo the task.
        with suppress(OSError), self._turn:
            if is_terminal(sys.stderr):
                self._draw(task)
            elif sys.stderr is not None and not self._quiet:
                self._say(task)

    def _draw(self, task: Task) -> None:
        if task.over:
            line = self._lines.pop(task.id, None)
            if not self._lines:
                self._clear()
            elif line is not None and self._bar is not None:
                self._bar.remove_task(line)
            return
        bar = self._bar or _bar()
        # Before its first step begins, a task is known by its name only.
        words = clean(task.doing or f"{task.verb} {task.subject}")
        words = shortened(words, bar.console.width - BESIDE_WORDS)
        if self._bar is None:
            self._bar = bar
            bar.start()
        if task.id not in self._lines:
            self._lines[task.id] = bar.add_task(words, total=100.0)
        bar.update(self._lines[task.id], description=words, completed=task.percent)

    def _clear(self) -> None:
        if self._bar is not None:
            self._bar.stop()
        self._bar = None
        self._lines.clear()

    def _say(self, task: Task) -> None:
        if task.over or not task.doing or self._said.get(task.id) == task.doing:
            return
        self._said[task.id] = task.doing
        sys.stderr.write(f"[{task.percent:3.0f}%] {clean(task.doing)}\n")
        sys.stderr.flush()


def shortened(words: str, room: int) -> str:
    """Names stand at both ends, and paths are long in the middle."""
    room = max(room, 12)
    if len(words) <= room:
        return words
    tail = (room - 1) // 2
    return f"{words[: room - 1 - tail]}…{words[-tail:]}"


def _bar() -> Bar:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        SpinnerColumn,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
    )

    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=BAR_WIDTH),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )
