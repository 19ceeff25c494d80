"""Faults of the world in memory: what goes wrong, where, when, how often; and a trace of all calls.

Every call to a host ("host:h1"), pool ("pool:local") or the store ("state") passes a `Gate`. What
matches a fault there fails, hangs, acts without answering, or kills the process that called.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Concatenate, Literal, ParamSpec, Protocol, TypeVar

from vorch.drivers.memory_time import MemoryClock, MemoryProcess, ProcessDied
from vorch.errors import Unreachable, VorchError
from vorch.ports import Clock

# How long a caller waits for an answer before it gives up.
CALL_TIMEOUT_S = 10.0

TRACE_LIMIT = 100_000

When = Literal["before", "midway", "after"]

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Call:
    """One call that was made, and what its caller saw of it."""

    at: float
    process: int
    target: str
    name: str
    # The volume, VM or document that it was about.
    about: str
    # "ok", the code of the error, or "died".
    outcome: str


def _fits(word: str, pattern: str) -> bool:
    return pattern == "*" or fnmatchcase(word, pattern)


@dataclass(kw_only=True, eq=False)
class Fault:
    """What happens to calls that match. `before` they act, `midway` (of those that act in parts,
    as a snapshot of several disks does), or `after`: then it was done, and nobody is told.
    """

    target: str
    call: str = "*"
    # Of this connection only, by its `who`.
    who: str = "*"
    when: When = "before"
    hang_s: float = 0.0
    # A call that hung too long is carried out all the same, when nobody waits for it any more.
    late: bool = False
    error: VorchError | None = None
    crash: bool = False
    # So many matching calls pass first; then so many meet the fault (None: all).
    skip: int = 0
    times: int | None = None
    # How many have met it.
    met: int = field(default=0, init=False)

    def matches(self, target: str, call: str, who: str, when: When) -> bool:
        if self.when != when or (self.times is not None and self.met >= self.times):
            return False
        if not (_fits(target, self.target) and _fits(call, self.call) and _fits(who, self.who)):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        self.met += 1
        return True


class Faults:
    """All faults of a world, and the trace. Tests switch them; `target` and `call` may hold '*'."""

    def __init__(
        self,
        clock: Clock,
        *,
        latency_s: float = 0.0,
        call_timeout_s: float = CALL_TIMEOUT_S,
        trace_limit: int = TRACE_LIMIT,
    ) -> None:
        self.clock = clock
        self.latency_s = latency_s
        self.call_timeout_s = call_timeout_s
        self.trace: deque[Call] = deque(maxlen=trace_limit)
        self.keeps_trace = trace_limit > 0
        self.active: list[Fault] = []
        # When a call to each target met a fault last.
        self.met_at: dict[str, float] = {}
        # Told of each call before it is made, by whom and to what. It may let its caller wait.
        self.passing: Callable[[str, str, str], None] | None = None
        # One for the whole world: acts are short, and none waits while it holds it.
        self.lock = threading.RLock()

    # -- switching

    def add(self, fault: Fault) -> Fault:
        self.active.append(fault)
        return fault

    def lift(self, fault: Fault) -> None:
        """Safe to repeat."""
        self.active = [one for one in self.active if one is not fault]

    def clear(self) -> None:
        self.active = []

    def fail(
        self,
        target: str,
        call: str = "*",
        error: VorchError | None = None,
        *,
        when: When = "before",
        skip: int = 0,
        times: int | None = None,
        who: str = "*",
    ) -> Fault:
        """Calls raise `error`, or Unreachable when none is given."""
        error = error or Unreachable(
            f"cannot reach {target}: it refuses the connection; wait until it is back",
            target=target,
        )
        return self.add(
            Fault(target=target, call=call, error=error, when=when, skip=skip, times=times, who=who)
        )

    def lose_answer(
        self,
        target: str,
        call: str = "*",
        *,
        skip: int = 0,
        times: int | None = None,
        who: str = "*",
    ) -> Fault:
        """Calls do what they should, and their callers hear nothing of it."""
        return self.hang(target, float("inf"), call, when="after", skip=skip, times=times, who=who)

    def hang(
        self,
        target: str,
        seconds: float,
        call: str = "*",
        *,
        when: When = "before",
        late: bool = False,
        skip: int = 0,
        times: int | None = None,
        who: str = "*",
    ) -> Fault:
        """Calls take so long; beyond the caller's patience they end as Unreachable."""
        return self.add(
            Fault(
                target=target,
                call=call,
                hang_s=seconds,
                when=when,
                late=late,
                skip=skip,
                times=times,
                who=who,
            )
        )

    def silence(self, target: str) -> Fault:
        """Nothing is answered and nothing is done, until it is lifted."""
        return self.hang(target, float("inf"))

    def silenced(self, target: str) -> bool:
        """Nothing is heard of it now."""
        return any(
            fault.hang_s and fault.call == "*" and fnmatchcase(target, fault.target)
            for fault in self.active
        )

    def crash(
        self,
        target: str,
        call: str = "*",
        *,
        when: When = "before",
        skip: int = 0,
        who: str = "*",
    ) -> Fault:
        """The calling process dies at that point."""
        return self.add(
            Fault(target=target, call=call, crash=True, when=when, skip=skip, times=1, who=who)
        )

    # -- what was called

    def calls(self, target: str = "*", name: str = "*") -> list[Call]:
        return [
            call
            for call in self.trace
            if fnmatchcase(call.target, target) and fnmatchcase(call.name, name)
        ]


class Gate:
    """The way of one process to one target."""

    def __init__(
        self,
        faults: Faults,
        target: str,
        process: MemoryProcess | None = None,
        who: str = "",
        *,
        reaches: Callable[[], bool] | None = None,
    ) -> None:
        # Whether the process gets through at all.
        self.reaches = reaches
        self.faults = faults
        self.target = target
        self.process = process
        self.who = who
        self._current = threading.local()

    def pass_through(self, name: str, about: str, waits: bool, act: Callable[[], T]) -> T:
        faults = self.faults
        # Written down even when it dies on the way.
        outcome = "died"
        try:
            self._check_alive()
            if faults.passing is not None:
                faults.passing(self.who, self.target, name)
                self._check_alive()
            if faults.latency_s:
                faults.clock.sleep(faults.latency_s)
            if self.reaches is not None and not self.reaches():
                raise self._silence(name)
            run = act if waits else functools.partial(self._locked, act)
            self._meet(name, "before", late=run)
            self.begin(name)
            result = run()
            self._meet(name, "after")
            outcome = "ok"
            return result
        except VorchError as exc:
            outcome = exc.code
            raise
        except Exception as exc:
            outcome = type(exc).__name__
            raise
        finally:
            if faults.keeps_trace:
                number = self.process.number if self.process else 0
                call = Call(faults.clock.now(), number, self.target, name, about, outcome)
                faults.trace.append(call)

    def begin(self, name: str) -> None:
        self._current.name = name

    def midway(self) -> None:
        """Called by acts that are done in parts, between these."""
        self._meet(getattr(self._current, "name", ""), "midway")

    def _locked(self, act: Callable[[], T]) -> T:
        with self.faults.lock:
            return act()

    def _check_alive(self) -> None:
        if self.process is not None and self.process.left:
            raise Unreachable(
                f"cannot use {self.target} in memory: its connection was closed; connect again"
            )
        if self.process is not None and self.process.dead:
            raise ProcessDied(f"process {self.process.number} is dead")

    def _meet(self, name: str, when: When, late: Callable[[], object] | None = None) -> None:
        for fault in [
            one for one in self.faults.active if one.matches(self.target, name, self.who, when)
        ]:
            self.faults.met_at[self.target] = self.faults.clock.now()
            if fault.met == fault.times:
                # It has happened as often as it should.
                self.faults.lift(fault)
            if fault.hang_s:
                self._hang(fault, name, late)
            if fault.crash:
                if self.process is not None:
                    self.process.die()
                raise ProcessDied(f"killed {when} {name} of {self.target}")
            if fault.error is not None:
                # A new one each time: the other carries the traceback of its last use.
                raise type(fault.error)(fault.error.message, **fault.error.fields)
            self._check_alive()

    def _hang(self, fault: Fault, name: str, late: Callable[[], object] | None) -> None:
        clock, patience_s = self.faults.clock, self.faults.call_timeout_s
        if fault.hang_s < patience_s:
            clock.sleep(fault.hang_s)
            return
        if fault.late and late is not None and isinstance(clock, MemoryClock):
            run = late

            def carry_out() -> None:
                # Nobody is there to hear of an error.
                with contextlib.suppress(VorchError):
                    run()

            clock.at(clock.now() + fault.hang_s, carry_out)
        raise self._silence(name)

    def _silence(self, name: str) -> Unreachable:
        """Wait in vain, as long as a caller does."""
        patience_s = self.faults.call_timeout_s
        self.faults.clock.sleep(patience_s)
        return Unreachable(
            f"cannot {name.replace('_', ' ')} on {self.target}: it has not answered for"
            f" {patience_s:g} s; look whether it runs and can be reached",
            target=self.target,
            timeout_s=patience_s,
        )


class Gated(Protocol):
    _gate: Gate


G = TypeVar("G", bound=Gated)


def gated(
    method: Callable[Concatenate[G, P], T],
) -> Callable[Concatenate[G, P], T]:
    """A method of a driver that goes through its gate and holds the world still meanwhile."""
    return _through(method, waits=False)


def gated_waiting(
    method: Callable[Concatenate[G, P], T],
) -> Callable[Concatenate[G, P], T]:
    """The same for one that may wait, and so takes the world's lock itself, for moments."""
    return _through(method, waits=True)


def _through(
    method: Callable[Concatenate[G, P], T], *, waits: bool
) -> Callable[Concatenate[G, P], T]:
    name = method.__name__

    @functools.wraps(method)
    def call(self: G, /, *args: P.args, **kwargs: P.kwargs) -> T:
        gate = self._gate
        faults, process = gate.faults, gate.process
        # Nothing goes wrong on the way, and nobody writes down what goes by.
        if not (
            faults.active
            or faults.passing is not None
            or faults.latency_s
            or faults.keeps_trace
            or (process is not None and process.dead)
            or (gate.reaches is not None and not gate.reaches())
        ):
            if waits:
                gate.begin(name)
                return method(self, *args, **kwargs)
            with faults.lock:
                return method(self, *args, **kwargs)
        about = _about(args) if faults.keeps_trace else ""
        return gate.pass_through(name, about, waits, lambda: method(self, *args, **kwargs))

    return call


def _about(args: Sequence[object]) -> str:
    """In a word, what a call is about: its first argument's name."""
    if not args:
        return ""
    first = args[0]
    if isinstance(first, str):
        return first
    if isinstance(first, (list, tuple)):
        return ",".join(itertools.islice((_about([one]) for one in first), 8))
    for part in ("key", "name"):
        word = getattr(first, part, None)
        if isinstance(word, str):
            return word
    return ""
