"""A process that works on a shared store as hard as it can; test_state_processes.py kills some.

    python -m tests.contract.state_worker STORE ADDRESS NAME COUNT LOG

It adds COUNT members to a set and counts them, each time by reading, changing and committing both
documents; in between it takes a lease and enters a section where it must be alone. It begins when
the document go/one is there.
"""

from __future__ import annotations

import os
import sys
import time

from tests.contract.states import open_address
from vorch.drivers.process import SystemClock
from vorch.errors import Conflict
from vorch.patience import Patience
from vorch.ports import Change, State

# Much longer than a process is ever kept waiting for its turn on a busy machine.
LEASE_S = 3.0
# How often each enters the section in which it must be alone.
LED = 10


class Log:
    """A file that all append to. A line is one write: whole, in order, and there after a kill."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def say(self, *words: object) -> None:
        os.write(self._file, (" ".join(map(str, words)) + "\n").encode())


def add(state: State, name: str, number: int) -> None:
    while True:
        found = state.read(["counter", "set"])
        counter, members = found.get("counter/one"), found.get("set/one")
        count = counter.body["count"] if counter else 0
        inside = members.body["members"] if members else []
        assert count == len(inside), f"read two moments at once: {count} {len(inside)}"
        try:
            state.commit(
                [
                    Change("counter/one", counter.version if counter else 0, {"count": count + 1}),
                    Change(
                        "set/one",
                        members.version if members else 0,
                        {"members": [*inside, f"{name}:{number}"]},
                    ),
                ]
            )
            return
        except Conflict:
            continue


def lead(state: State, name: str, log: Log, patience: Patience) -> bool:
    last = state.lease("leader")
    patience.look(last)
    abandoned = last if patience.left_s <= 0 else None
    lease = state.acquire("leader", name, LEASE_S, now=time.time(), over=abandoned)
    if lease is None:
        return False
    log.say("enter", lease.epoch, name)
    register = state.get("register/one")
    before = register.body["epoch"] if register else 0
    assert before <= lease.epoch, f"epoch {before} was there before {lease.epoch}"
    state.commit([Change("register/one", None, {"epoch": lease.epoch})], lease=lease)
    log.say("leave", lease.epoch, name)
    state.release(lease)
    return True


def main() -> None:
    store, address, name, count, path = sys.argv[1:]
    log = Log(path)
    state = open_address(store, address)
    log.say("ready", name)
    revision = 0
    while state.get("go/one") is None:
        revision, _ = state.changes(revision, 60)
    led, patience = 0, Patience(SystemClock(), LEASE_S)
    for number in range(int(count)):
        add(state, name, number)
        log.say("added", f"{name}:{number}")
        led += lead(state, name, log, patience)
    while led < LED:
        led += lead(state, name, log, patience)
        time.sleep(0.002)


if __name__ == "__main__":
    main()
