"""A store that tells how long each of its answers took."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from vorch.errors import Conflict
from vorch.ports import Change, Document, Lease, State

# (what was asked, how long it took, whether it was answered)
Observer = Callable[[str, float, bool], None]


class TimedState:
    """The `State` port in front of another one. To wait for changes is no slow answer."""

    def __init__(self, state: State, observe: Observer) -> None:
        self._state = state
        self._observe = observe

    @contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        began, well = time.monotonic(), False
        try:
            yield
            well = True
        except Conflict:
            # An answer like any other.
            well = True
            raise
        finally:
            self._observe(what, time.monotonic() - began, well)

    def get(self, key: str) -> Document | None:
        with self._timed("get"):
            return self._state.get(key)

    def read(self, kinds: Sequence[str]) -> dict[str, Document]:
        with self._timed("read"):
            return self._state.read(kinds)

    def commit(self, changes: Sequence[Change], *, lease: Lease | None = None) -> int:
        with self._timed("commit"):
            return self._state.commit(changes, lease=lease)

    def acquire(
        self, name: str, holder: str, ttl_s: float, *, now: float, over: Lease | None = None
    ) -> Lease | None:
        with self._timed("lease"):
            return self._state.acquire(name, holder, ttl_s, now=now, over=over)

    def renew(self, lease: Lease, ttl_s: float, *, now: float) -> Lease | None:
        with self._timed("lease"):
            return self._state.renew(lease, ttl_s, now=now)

    def release(self, lease: Lease) -> None:
        with self._timed("lease"):
            self._state.release(lease)

    def lease(self, name: str) -> Lease | None:
        with self._timed("lease"):
            return self._state.lease(name)

    def changes(self, since: int, timeout_s: float) -> tuple[int, tuple[str, ...]]:
        if timeout_s > 0:
            return self._state.changes(since, timeout_s)
        with self._timed("changes"):
            return self._state.changes(since, timeout_s)

    def close(self) -> None:
        self._state.close()
