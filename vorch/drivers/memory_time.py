"""Time, chance and processes of the world in memory: they move only when they are told to."""

from __future__ import annotations

import hashlib
import heapq
import itertools
import math
import threading
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from vorch.ports import Chance, Clock

# A moment in 2030, so that times look like times.
START = 1_900_000_000.0

# How often a wait looks again on a clock that runs by itself.
POLL_S = 0.02


class MemoryClock:
    """A clock that stands still until somebody sleeps or moves it.

    What was scheduled with `at` happens on the way, in the order of time; what is scheduled for one
    moment happens in the order of scheduling.
    """

    def __init__(self, start: float = START) -> None:
        self._now = start
        self._order = itertools.count()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        # Threads may share a world. Events run outside of the lock: they may sleep themselves.
        self._lock = threading.Lock()

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._now

    @property
    def next_event(self) -> float:
        """When something happens next that was scheduled."""
        with self._lock:
            return self._events[0][0] if self._events else math.inf

    def at(self, when: float, event: Callable[[], None]) -> None:
        with self._lock:
            heapq.heappush(self._events, (when, next(self._order), event))

    def sleep(self, seconds: float) -> None:
        """As `wait` for what never comes."""
        end = self._now + max(0.0, seconds)
        while self._pass_next(end):
            pass

    # A test reads better when it moves the clock than when it sleeps.
    advance = sleep

    def wait(self, seconds: float, until: Callable[[], bool]) -> bool:
        """Move on by `seconds`, or to the event after which `until` is true. Whether it is."""
        end = self._now + max(0.0, seconds)
        while not until():
            if not self._pass_next(end):
                return until()
        return True

    def _pass_next(self, end: float) -> bool:
        """To the next event until then, and let it happen; False: to the end, as there is none."""
        with self._lock:
            due = bool(self._events) and self._events[0][0] <= end
            when, _, event = heapq.heappop(self._events) if due else (end, 0, None)
            # Never back: an event may have slept past the ones behind it. And not to the end
            # of time, when somebody would wait for ever.
            if when > self._now and when != math.inf:
                self._now = when
        if event is None:
            return False
        event()
        return True


class HostClock:
    """The clock of a host, which may be wrong, and run too fast or too slow."""

    def __init__(self, true: Clock) -> None:
        self._true = true
        self._ahead_s = 0.0
        # How much more it gains by the second.
        self._gains = 0.0
        self._set_at = true.now()
        # What it has gained, and not what it was set to or for how long it stood still.
        self._gained_s = 0.0
        self._stood_s = 0.0

    def set(self, ahead_s: float, gains: float = 0.0) -> None:
        self._gained_s += self._gaining_s
        self._ahead_s, self._gains, self._set_at = ahead_s, gains, self._true.now()

    def stood_still(self, seconds: float) -> None:
        """Its machine did, until now: as a virtual one that was stopped."""
        self._ahead_s -= seconds
        self._stood_s += seconds

    @property
    def _gaining_s(self) -> float:
        return self._gains * (self._true.now() - self._set_at)

    @property
    def ahead_s(self) -> float:
        return self._ahead_s + self._gaining_s

    def now(self) -> float:
        true = self._true.now()
        return true + (self._ahead_s + self._gains * (true - self._set_at))

    def monotonic(self) -> float:
        true = self._true.now()
        return true + self._gained_s + self._gains * (true - self._set_at) - self._stood_s

    def lasts_s(self, seconds: float) -> float:
        """How long that many of its seconds take."""
        return seconds / (1.0 + self._gains)

    def sleep(self, seconds: float) -> None:
        self._true.sleep(seconds)


def wait(clock: Clock, seconds: float, until: Callable[[], bool]) -> bool:
    """`MemoryClock.wait` on any clock: a memory world may also run in real time."""
    if isinstance(clock, MemoryClock):
        return clock.wait(seconds, until)
    end = clock.now() + seconds
    while not until():
        left = end - clock.now()
        if left <= 0:
            return False
        clock.sleep(min(POLL_S, left))
    return True


def wake(clock: Clock, when: float, event: Callable[[], None]) -> None:
    """Let waits on a memory clock end there. Others look again by themselves."""
    if isinstance(clock, MemoryClock):
        clock.at(when, event)


def memory_chance(seed: object = 0) -> Chance:
    """Identifiers and bytes that look random and are the same for the same seed and order."""
    count = itertools.count()

    def take(length: int) -> bytes:
        if length <= 0:
            return b""
        return hashlib.shake_128(f"{seed}:{next(count)}".encode()).digest(length)

    return Chance(uuid=lambda: str(uuid.UUID(bytes=take(16), version=4)), take=take)


class ProcessDied(BaseException):
    """The process that made this call was killed, as by kill -9.

    Not an `Exception`, so that nothing takes it for an error to deal with: a dead process deals
    with nothing. Whatever it still calls on its way out raises this again and does nothing.
    """


class ProcessTable:
    """All processes of a memory world: one for each connection."""

    def __init__(self, world: str) -> None:
        self.world = world
        self._numbers = itertools.count(1)
        self.dead: set[int] = set()
        self._hidden: set[int] = set()
        self._known: set[int] = set()

    def begin(self, home: str = "", elsewhere: MemoryProcess | None = None) -> MemoryProcess:
        number = next(self._numbers)
        self._known.add(number)
        return MemoryProcess(self, number, home, elsewhere)

    def declare_dead(self, identity: Mapping[str, Any]) -> None:
        self.dead.add(identity["process"])

    def hide(self, identity: Mapping[str, Any], hidden: bool = True) -> None:
        """Nobody can see any more whether it lives, as when its host is cut off."""
        (self._hidden.add if hidden else self._hidden.discard)(identity["process"])

    def alive(self, identity: Mapping[str, Any]) -> bool | None:
        if identity.get("kind") != "memory" or identity.get("world") != self.world:
            return None
        number = identity.get("process")
        if number not in self._known or number in self._hidden:
            return None
        return number not in self.dead


class MemoryProcess:
    """The Processes port, as one process of the world sees it."""

    def __init__(
        self,
        table: ProcessTable,
        number: int,
        home: str = "",
        elsewhere: MemoryProcess | None = None,
    ) -> None:
        self._table = table
        # The same process, as the world that it came from knows it.
        self._elsewhere = elsewhere
        self.number = number
        # The host that it runs on; "" for somewhere else.
        self.home = home
        # Not killed: what of it still asks something is told so, as an error to deal with.
        self.left = False

    def me(self) -> dict[str, Any]:
        home = {"home": self.home} if self.home else {}
        return {"kind": "memory", "world": self._table.world, "process": self.number, **home}

    def alive(self, identity: Mapping[str, Any]) -> bool | None:
        """Nobody sees the processes of another host."""
        if identity.get("home", "") != self.home:
            return None
        return self._table.alive(identity)

    @property
    def dead(self) -> bool:
        if self.number in self._table.dead:
            return True
        return self._elsewhere is not None and self._elsewhere.dead

    def die(self) -> None:
        self._table.declare_dead(self.me())
        if self._elsewhere is not None:
            self._elsewhere.die()

    def leave(self) -> None:
        """It has closed its connection to this world, and may live on."""
        self.left = not self.dead
        self._table.declare_dead(self.me())
