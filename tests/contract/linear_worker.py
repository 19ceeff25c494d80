"""A process that counts, adds and swaps on a store and notes when; test_state_linear.py kills some.

    python -m tests.contract.linear_worker URI NAME TIMEOUT_S BEGAN_NS LOG

It goes on until the document stop/all is there. For each operation it notes a line before it
begins, and one when it has ended: what a kill cuts short has no second line.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import sys
import time
from collections.abc import Callable
from typing import Any

from tests.contract.ceph import rados_state
from vorch.errors import Conflict, TimedOut, Unreachable
from vorch.ports import Change, State

# Each register is used for so long: a short history is searched quickly.
REGISTER_S = 0.5


class Notes:
    """A file of this process alone. A line is one write, and so it is there after a kill."""

    def __init__(self, path: str, process: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._process = process
        self._number = 0

    def note(self, **facts: Any) -> None:
        os.write(self._file, (json.dumps(facts) + "\n").encode())

    def begin(self, name: str, place: str, **facts: Any) -> int:
        self._number += 1
        self.note(
            id=self._number,
            process=self._process,
            name=name,
            place=place,
            start=time.monotonic_ns(),
            **facts,
        )
        return self._number

    def end(self, number: int, outcome: str, **facts: Any) -> None:
        self.note(id=number, outcome=outcome, end=time.monotonic_ns(), **facts)

    def run(self, number: int, act: Callable[[], Any]) -> None:
        """A commit, and what came of it."""
        try:
            self.end(number, "done", result=act())
        except Conflict:
            self.end(number, "refused")
        except (TimedOut, Unreachable) as exc:
            known = exc.fields.get("outcome") == "not done"
            self.end(number, "undone" if known else "unknown", error=str(exc))


def main() -> None:
    uri, name, timeout_s, began_ns, path = sys.argv[1:]
    notes = Notes(path, name)
    # Not a secret, but not the same for two processes either.
    chance = random.Random(name)
    state = opened(uri, float(timeout_s))
    number = 0
    while True:
        number += 1
        try:
            if state.get("stop/all") is not None:
                return
            register = f"{int((time.monotonic_ns() - int(began_ns)) / REGISTER_S / 1e9):04d}"
            act = chance.choice((count, add, read, read, write, swap, swap))
            act(state, notes, register, f"{name}:{number}")
        except Unreachable:
            # It was a look, which changes nothing.
            time.sleep(0.01)


def opened(uri: str, timeout_s: float) -> State:
    """Also when it is begun just while the monitors elect a new leader."""
    while True:
        with contextlib.suppress(Unreachable):
            return rados_state(uri, timeout_s=timeout_s)


def count(state: State, notes: Notes, register: str, unique: str) -> None:
    document = state.get("counter/one")
    reached = (document.body["count"] if document else 0) + 1
    number = notes.begin("count", "counter")
    change = Change("counter/one", document.version if document else 0, {"count": reached})
    notes.run(number, lambda: (state.commit([change]), reached)[1])


def add(state: State, notes: Notes, register: str, unique: str) -> None:
    document = state.get("set/one")
    members = [*(document.body["members"] if document else []), unique]
    number = notes.begin("add", "set", value=unique)
    change = Change("set/one", document.version if document else 0, {"members": members})
    notes.run(number, lambda: (state.commit([change]), None)[1])


def halves(register: str, version: int | None, value: str) -> list[Change]:
    """A register is two documents of two kinds, which only ever change together."""
    return [
        Change(f"left/{register}", version, {"value": value}),
        Change(f"right/{register}", version, {"value": value}),
    ]


def read(state: State, notes: Notes, register: str, unique: str) -> None:
    number = notes.begin("read", register)
    try:
        found = state.read(["left", "right"])
    except Unreachable as exc:
        notes.end(number, "unknown", error=str(exc))
        return
    left, right = (found.get(f"{side}/{register}") for side in ("left", "right"))
    value = left.body["value"] if left else None
    if value != (right.body["value"] if right else None):
        # No order of whole writes explains such a value.
        value = f"torn: {left} {right}"
    notes.end(number, "done", result=value)


def write(state: State, notes: Notes, register: str, unique: str) -> None:
    number = notes.begin("write", register, value=unique)
    changes = halves(register, None, unique)
    notes.run(number, lambda: (state.commit(changes), None)[1])


def swap(state: State, notes: Notes, register: str, unique: str) -> None:
    document = state.get(f"left/{register}")
    expected = document.body["value"] if document else None
    changes = halves(register, document.version if document else 0, unique)
    number = notes.begin("swap", register, value=unique, expected=expected)
    notes.run(number, lambda: (state.commit(changes), None)[1])


if __name__ == "__main__":
    main()
