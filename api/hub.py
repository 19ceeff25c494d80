"""Tells whoever listens what happens: changes in the store, and of what hosts show.

Nothing is kept for those who are not there: an event's id is a revision of the store, which itself
knows what was written since. Whoever comes back is told of each thing that has changed meanwhile,
once, as it is now; or that it is too much, and all must be read again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from vorch import Cluster, Job, Orchestrator, Picture, Task, VorchError, document_as, shown

# What is told of. All other documents are vorch's own, or secret.
KINDS = (
    "vm",
    "node",
    "pool",
    "class",
    "image",
    "network",
    "trash",
    "rule",
    "ha",
    "hanode",
    "havm",
    "task",
    "job",
)
# These are told whole.
WHOLE: Mapping[str, type[Any]] = {"task": Task, "job": Job}
# How many events may wait for one listener; one that is slower than that is told to read again.
WAITING = 1000
STORE_WAIT_S = 1.0
# Where time stands still, the store is looked at so often.
STILL_S = 0.2
# Looks at what hosts show follow each other no closer than this.
GAP_S = 0.25

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that has happened, and what is sent of it."""

    kind: str
    name: str
    data: Mapping[str, Any]
    # Revision of the store; 0: it is not of the store.
    id: int = 0
    text: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        lines = [f"id: {self.id}"] if self.id else []
        body = json.dumps(self.data, default=str, separators=(",", ":"))
        lines += [f"event: {self.kind}", f"data: {body}", "", ""]
        object.__setattr__(self, "text", "\n".join(lines).encode())


class Listener:
    """One who listens. Of the event loop's thread only."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Event | None] = asyncio.Queue(WAITING)
        self.lost = False

    def put(self, event: Event | None) -> None:
        try:
            self._queue.put_nowait(event)
        except asyncio.QueueFull:
            self.lost = True

    async def next(self, timeout_s: float) -> Event | None:
        """None: it is over. Raises TimeoutError."""
        return await asyncio.wait_for(self._queue.get(), timeout_s)


class Hub:
    def __init__(self, cluster: Orchestrator, picture: Picture) -> None:
        self._cluster = cluster
        self._picture = picture
        self._state = cluster.world.state
        self._loop: asyncio.AbstractEventLoop | None = None
        self._listeners: set[Listener] = set()
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        acts = [self._follow_store]
        if self._cluster.world.threads:
            acts.append(self._follow_hosts)
        for act in acts:
            thread = threading.Thread(target=act, name="vorch-events", daemon=True)
            self._threads.append(thread)
            thread.start()

    def end(self) -> None:
        """Whoever listens is let go; the threads end by themselves."""
        self._over.set()
        for listener in list(self._listeners):
            listener.lost = True
            listener.put(None)

    def join(self) -> None:
        for thread in self._threads:
            thread.join(2 * STORE_WAIT_S)

    @contextlib.contextmanager
    def listen(self) -> Iterator[Listener]:
        listener = Listener()
        if self._over.is_set():
            listener.put(None)
        self._listeners.add(listener)
        try:
            yield listener
        finally:
            self._listeners.discard(listener)

    def since(self, revision: int | None) -> tuple[int, list[Event], bool]:
        """(the revision now, what was written since, whether that is all of it)."""
        if revision is None:
            now, _ = self._state.changes(0, 0)
            return now, [], True
        now, keys = self._state.changes(revision, 0)
        if "*" in keys or len(keys) > WAITING:
            return now, [], False
        return now, self._events(now, keys), True

    # -- inside

    def _follow_store(self) -> None:
        revision = None
        wait_s = STORE_WAIT_S if self._cluster.world.threads else 0.0
        while not self._over.is_set():
            try:
                if revision is None:
                    revision, _ = self._state.changes(0, 0)
                before, (revision, keys) = revision, self._state.changes(revision, wait_s)
                if revision != before and keys and self._listeners:
                    self._publish(self._events(revision, keys))
            except VorchError as exc:
                log.warning("events: %s", exc)
                self._over.wait(STORE_WAIT_S)
            if not wait_s:
                self._over.wait(STILL_S)

    def _events(self, revision: int, keys: tuple[str, ...]) -> list[Event]:
        """One for each; the last of them bears the id, so that none is skipped after a break."""
        told = []
        for key in keys:
            kind, _, name = key.partition("/")
            if key == "*":
                told.append(Event("reset", "", {"why": "more happened than is known"}))
            elif kind in KINDS:
                document = self._state.get(key)
                data: dict[str, Any] = {"kind": kind, "name": name}
                if document is None:
                    data["deleted"] = True
                else:
                    data["version"] = document.version
                    if kind in WHOLE:
                        data[kind] = shown(document_as(WHOLE[kind], document.body))
                told.append(Event(kind, name, data))
        if told:
            last = told[-1]
            told[-1] = Event(last.kind, last.name, last.data, revision)
        return told

    def _follow_hosts(self) -> None:
        """VMs that begin to run, or end, whoever had them do so."""
        changes = -1
        before: Cluster | None = None
        while not self._over.is_set():
            try:
                now = self._picture.wait(changes, STORE_WAIT_S)
                if now == changes:
                    continue
                changes, cluster = now, self._picture.look()
                if before is not None and self._listeners:
                    self._publish(list(_turned(before, cluster)))
                before = cluster
            except VorchError as exc:
                log.warning("events: %s", exc)
            self._over.wait(GAP_S)

    def _publish(self, events: list[Event]) -> None:
        if events and self._loop is not None and not self._over.is_set():
            # The loop may just have ended.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._deliver, events)

    def _deliver(self, events: list[Event]) -> None:
        for listener in self._listeners:
            for event in events:
                listener.put(event)


def _turned(before: Cluster, after: Cluster) -> Iterator[Event]:
    for name, vm in after.vms.items():
        earlier = before.vms.get(name)
        if earlier is None:
            continue
        power = after.power(vm)
        if power != before.power(earlier) or vm.node != earlier.node:
            yield Event("power", name, {"name": name, "power": str(power), "node": vm.node})
