"""Hosts are asked side by side: a silent one costs its time once, and holds up nobody else."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import wait
from functools import partial
from typing import Any, Generic, TypeVar

from vorch.aside import begin
from vorch.errors import Unreachable, VorchError
from vorch.ports import Hypervisor, World

T = TypeVar("T")

# What a host gets that was silent the last time. One that is back answers in far less.
RETRY_S = 1.0


class _Call(Generic[T]):
    """One call to one host, in a thread that nobody has to wait for, not even at the end.

    No call into libvirt can be ended from outside; keepalive ends it, later.
    """

    def __init__(self, name: str, act: Callable[[], T]) -> None:
        self.began = time.monotonic()
        self._future = begin(act, name=f"vorch-ask-{name}")

    def over(self, timeout_s: float = 0.0) -> bool:
        return bool(wait([self._future], timeout_s).done)

    def answer(self) -> T | VorchError:
        try:
            return self._future.result()
        except VorchError as exc:
            return exc


class Hosts:
    """All hosts of a world, and which of them were silent when they were asked last.

    There are never more threads than hosts and callers: a host that has not answered yet is not
    asked again.
    """

    def __init__(self, world: World, timeout_s: float) -> None:
        self._world = world
        self.timeout_s = timeout_s
        self._lock = threading.Lock()
        # Calls that their callers have given up.
        self._overdue: dict[str, _Call[Any]] = {}
        self._silent: set[str] = set()

    def ask(
        self, names: Iterable[str], act: Callable[[Hypervisor], T], *, hasty: Iterable[str] = ()
    ) -> dict[str, T | VorchError]:
        """What each of them answers, in no more time than one may take.

        `hasty`: those that another process has waited for in vain just now.
        """

        def ask_one(name: str) -> T:
            return act(self._world.hypervisor(name))

        if not self._world.threads:
            return {name: self._asked(name, ask_one) for name in names}
        brief = self._silent | set(hasty)
        calls: dict[str, _Call[T]] = {}
        answers: dict[str, T | VorchError] = {}
        for name in names:
            earlier = self._awaited(name)
            if earlier is None:
                calls[name] = _Call(name, partial(ask_one, name))
            else:
                answers[name] = self._no_answer(name, earlier)
        for name, call in calls.items():
            patience_s = min(self.timeout_s, RETRY_S) if name in brief else self.timeout_s
            answer: T | VorchError = self._answer(name, call, call.began + patience_s)
            answers[name] = answer
        return answers

    def _asked(self, name: str, ask_one: Callable[[str], T]) -> T | VorchError:
        try:
            return ask_one(name)
        except VorchError as exc:
            return exc

    def _awaited(self, name: str) -> _Call[Any] | None:
        """An earlier call to it that was given up, if that still has not come back."""
        with self._lock:
            earlier = self._overdue.get(name)
            if earlier is not None and earlier.over():
                del self._overdue[name]
                return None
            return earlier

    def _answer(self, name: str, call: _Call[T], until: float) -> T | VorchError:
        if not call.over(max(0.0, until - time.monotonic())):
            with self._lock:
                self._overdue[name] = call
                self._silent.add(name)
            return self._no_answer(name, call)
        answer = call.answer()
        with self._lock:
            if isinstance(answer, Unreachable):
                self._silent.add(name)
            else:
                self._silent.discard(name)
        return answer

    @staticmethod
    def _no_answer(name: str, call: _Call[Any]) -> Unreachable:
        return Unreachable(
            f"cannot look at host {name!r}: no answer came in"
            f" {time.monotonic() - call.began:.0f} s; see whether it and its libvirtd run",
            node=name,
        )
