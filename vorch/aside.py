"""Calls in threads that do not hold up the end of the process: one, or many at the same time.

Those of `concurrent.futures` are waited for when a process ends; a call to a host or a daemon that
hangs would keep it from ending.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TypeVar, cast

S = TypeVar("S")
T = TypeVar("T")


def begin(act: Callable[[], T], *, name: str = "vorch-aside") -> Future[T]:
    """It is begun; what comes of it is in the future."""
    future: Future[T] = Future()
    threading.Thread(target=_tell, args=(future, act), name=name, daemon=True).start()
    return future


def at_once(act: Callable[[], T]) -> Future[T]:
    """The same where there are no threads: it is done when this returns."""
    future: Future[T] = Future()
    _tell(future, act)
    return future


def _tell(future: Future[T], act: Callable[[], T]) -> None:
    try:
        future.set_result(act())
    except BaseException as exc:  # noqa: BLE001 - raised where the result is asked for
        future.set_exception(exc)


def side_by_side(act: Callable[[S], T], items: Sequence[S], *, most: int) -> list[T]:
    """What `act` makes of each, in their order. The first error of any is raised."""
    answers: list[T | None] = [None] * len(items)
    errors: list[BaseException] = []
    numbers = itertools.count()

    def work() -> None:
        # Counting is one operation to other threads.
        while (number := next(numbers)) < len(items) and not errors:
            try:
                answers[number] = act(items[number])
            except BaseException as exc:  # noqa: BLE001 - raised below
                errors.append(exc)

    threads = [
        threading.Thread(target=work, name="vorch-aside", daemon=True)
        for _ in range(min(most, len(items)))
    ]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    if errors:
        raise errors[0]
    return cast(list[T], answers)


class Workers:
    """So many at a time, the others in turn."""

    def __init__(self, most: int, *, name: str) -> None:
        self._most = most
        self._name = name
        self._news = threading.Condition()
        self._waiting: deque[Callable[[], object]] = deque()
        self._threads = 0
        self._idle = 0
        self._ended = False

    def submit(self, act: Callable[[], object]) -> None:
        """What it returns is of no interest, and what it raises is for `threading.excepthook`."""
        with self._news:
            if self._ended:
                return
            self._waiting.append(act)
            if len(self._waiting) > self._idle and self._threads < self._most:
                self._threads += 1
                threading.Thread(target=self._work, name=self._name, daemon=True).start()
            else:
                self._news.notify()

    def end(self) -> None:
        """What has not begun never does; each goes home when it is done with what it has."""
        with self._news:
            self._ended = True
            self._waiting.clear()
            self._news.notify_all()

    def _work(self) -> None:
        try:
            while True:
                with self._news:
                    self._idle += 1
                    while not (self._waiting or self._ended):
                        self._news.wait()
                    self._idle -= 1
                    if self._ended:
                        return
                    act = self._waiting.popleft()
                act()
        finally:
            with self._news:
                self._threads -= 1
