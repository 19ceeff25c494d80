"""Questions to what may never answer: each in a thread of its own, which nobody has to wait for.

A call to a libvirt that hangs cannot be ended. So whoever asks waits as long as the answer is of
use to them, and until it has come after all, the same is not asked once more.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, TimeoutError
from typing import Any, Generic, TypeVar

from vorch.aside import begin

T = TypeVar("T")


class Answer(Generic[T]):
    """What one question comes to, when it does."""

    def __init__(self, future: Future[T] | None, until: float) -> None:
        self._future = future
        self._until = until

    def wait(self, seconds: float | None = None) -> T | None:
        """The answer; None when it did not come in time. Raises what the question raised."""
        if self._future is None:
            return None
        left_s = max(0.0, self._until - time.monotonic())
        try:
            return self._future.result(left_s if seconds is None else min(seconds, left_s))
        except TimeoutError:
            # In this version of Python also what the question itself may have raised.
            if self._future.done():
                raise
            return None


class Questions:
    """Without `threads` each is answered at once, before anything else is asked."""

    def __init__(self, *, threads: bool) -> None:
        self._threads = threads
        self._lock = threading.Lock()
        self._open: dict[str, Future[Any]] = {}
        self._last: dict[str, Any] = {}

    def begin(self, about: str, ask: Callable[[], T], patience_s: float) -> Answer[T]:
        """Ask. The answer is of no use after so many seconds.

        An earlier question about the same that is still open has the time that there is to end;
        what it comes to is of then and not of now, so it is dropped.
        """
        if not self._threads:
            try:
                return _Given(ask(), None)
            except BaseException as exc:  # noqa: BLE001 - raised where the answer is waited for
                return _Given(None, exc)
        until = time.monotonic() + patience_s
        with self._lock:
            earlier = self._open.get(about)
        if earlier is not None and not earlier.done():
            try:
                earlier.exception(patience_s)
            except TimeoutError:
                return Answer(None, until)
        return Answer(self._ask(about, ask), until)

    def latest(self, about: str, ask: Callable[[], T]) -> T | None:
        """What came of it when it was last answered; it is asked anew, and not waited for."""
        with self._lock:
            future = self._open.get(about)
        if future is not None and future.done():
            self._last[about] = future.result()
        if future is None or future.done():
            self._ask(about, ask)
        found: T | None = self._last.get(about)
        return found

    def forget(self, about: str) -> None:
        """Neither what was last answered nor what is still to come is of any use any more."""
        with self._lock:
            self._open.pop(about, None)
        self._last.pop(about, None)

    def _ask(self, about: str, ask: Callable[[], T]) -> Future[T]:
        future = begin(ask, name=f"vorch-ask {about}")
        with self._lock:
            self._open[about] = future
        return future


class _Given(Answer[T]):
    """One that is there already."""

    def __init__(self, answer: T | None, error: BaseException | None) -> None:
        self._answer = answer
        self._error = error

    def wait(self, seconds: float | None = None) -> T | None:
        if self._error is not None:
            raise self._error
        return self._answer
