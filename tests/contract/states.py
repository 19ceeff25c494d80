"""The stores that the State contract is checked on, each behind one small face."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from _pytest.mark.structures import ParameterSet

from tests.contract.ceph import ceph_of, namespace_of, rados_state, the_lab
from vorch.drivers.memory import MemoryClock, MemoryWorld
from vorch.drivers.sqlite import SqliteState
from vorch.ports import State


@dataclass
class Store:
    """One store. `open` gives one more connection to it, as another process would have."""

    name: str
    open: Callable[[], State]
    # Have something done while somebody waits in this store.
    meanwhile: Callable[[Callable[[], object]], None]
    # What `open_address` takes, for stores that other processes can reach.
    address: str = ""
    opened: list[State] = field(default_factory=list)
    # What must be cleared away in the end.
    rest: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def connect(self) -> State:
        state = self.open()
        self.opened.append(state)
        return state

    def close(self) -> None:
        for state in self.opened:
            state.close()
        self.rest.close()


def memory_store(folder: Path, request: pytest.FixtureRequest) -> Store:
    clock = MemoryClock()
    world = MemoryWorld(clock=clock)

    def meanwhile(act: Callable[[], object]) -> None:
        clock.at(clock.now() + 0.5, lambda: (act(), None)[1])

    return Store("memory", lambda: world.connect().state, meanwhile)


def sqlite_store(folder: Path, request: pytest.FixtureRequest) -> Store:
    path = folder / "state.db"

    return Store("sqlite", lambda: SqliteState(path), soon, address=str(path))


def rados_store(folder: Path, request: pytest.FixtureRequest) -> Store:
    rest = contextlib.ExitStack()
    uri = rest.enter_context(namespace_of(ceph_of(the_lab(request))))
    return Store("rados", lambda: rados_state(uri), soon, address=uri, rest=rest)


def soon(act: Callable[[], object]) -> None:
    threading.Timer(0.05, act).start()


# Every driver of the port.
STORES: dict[str, Callable[[Path, pytest.FixtureRequest], Store]] = {
    "memory": memory_store,
    "sqlite": sqlite_store,
    "rados": rados_store,
}
ON_A_LAB = ("rados",)

# Those that several processes can share.
SHARED = ("sqlite", "rados")


def parameters(names: Iterable[str]) -> list[ParameterSet]:
    """For pytest: the stores of these names, each with the marks that it needs."""
    return [
        pytest.param(name, marks=[pytest.mark.lab] if name in ON_A_LAB else []) for name in names
    ]


def open_address(name: str, address: str) -> State:
    """For another process: the store that is called so."""
    openers: dict[str, Callable[[str], State]] = {"sqlite": SqliteState, "rados": rados_state}
    return openers[name](address)


def made(name: str, folder: Path, request: pytest.FixtureRequest) -> Iterator[Store]:
    """As a fixture uses it."""
    store = STORES[name](folder, request)
    try:
        yield store
    finally:
        store.close()
