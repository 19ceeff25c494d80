"""Being told what happens on a host of the world in memory."""

from __future__ import annotations

import threading
from collections.abc import Callable

from vorch.drivers.memory_machine import MemoryMachine
from vorch.drivers.memory_time import POLL_S, MemoryClock


class MemorySubscription:
    """The Subscription port. On a clock that runs by itself a thread sees what guests do alone."""

    def __init__(self, machine: MemoryMachine, tell: Callable[[str], None]) -> None:
        self._machine = machine
        self._tell = tell
        self._closed = threading.Event()
        machine.settled()
        machine.tell_of_changes(self._heard)
        if not isinstance(machine.clock, MemoryClock):
            threading.Thread(target=self._watch, name="memory-events", daemon=True).start()

    def _heard(self, vm_id: str) -> None:
        if not self._closed.is_set():
            self._tell(vm_id)
        if not vm_id:
            self._closed.set()

    def _watch(self) -> None:
        while not self._closed.wait(POLL_S):
            with self._machine.faults.lock:
                self._machine.settled()

    def close(self) -> None:
        self._closed.set()
        with self._machine.faults.lock:
            if self._heard in self._machine.tells:
                self._machine.tells.remove(self._heard)
