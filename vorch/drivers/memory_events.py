"""Being told what happens on a host of the world in memory."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable

from vorch.drivers.memory_machine import MemoryMachine
from vorch.drivers.memory_time import POLL_S, MemoryClock

# Of a world with very many hosts a round takes long; it has no more than this share of the time.
SHARE = 0.05


class MemorySubscription:
    """The Subscription port. On a clock that runs by itself a thread sees what guests do alone."""

    def __init__(self, machine: MemoryMachine, tell: Callable[[str], None]) -> None:
        self._machine = machine
        self._tell = tell
        self._closed = threading.Event()
        machine.settled()
        machine.tell_of_changes(self._heard)
        if not isinstance(machine.clock, MemoryClock):
            _watcher.add(self)

    @property
    def closed(self) -> bool:
        return self._closed.is_set()

    def settle(self) -> None:
        with self._machine.faults.lock:
            self._machine.settled()

    def _heard(self, vm_id: str) -> None:
        if not self._closed.is_set():
            self._tell(vm_id)
        if not vm_id:
            self._closed.set()

    def close(self) -> None:
        self._closed.set()
        with self._machine.faults.lock:
            if self._heard in self._machine.tells:
                self._machine.tells.remove(self._heard)


class _Watcher:
    """One thread for all subscriptions of this process, for as long as there are any."""

    def __init__(self) -> None:
        self._all: weakref.WeakSet[MemorySubscription] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def add(self, one: MemorySubscription) -> None:
        with self._lock:
            self._all.add(one)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="memory-events", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        pause_s = POLL_S
        while True:
            time.sleep(pause_s)
            with self._lock:
                for one in [one for one in self._all if one.closed]:
                    self._all.discard(one)
                ours = list(self._all)
                if not ours:
                    self._thread = None
                    return
            began = time.monotonic()
            for one in ours:
                if not one.closed:
                    one.settle()
            pause_s = max(POLL_S, (time.monotonic() - began) / SHARE)


_watcher = _Watcher()
