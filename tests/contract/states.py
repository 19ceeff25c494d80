"""The stores that the State contract is checked on, each behind one small face."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

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

    def connect(self) -> State:
        state = self.open()
        self.opened.append(state)
        return state

    def close(self) -> None:
        for state in self.opened:
            state.close()


def memory_store(folder: Path) -> Store:
    clock = MemoryClock()
    world = MemoryWorld(clock=clock)

    def meanwhile(act: Callable[[], object]) -> None:
        clock.at(clock.now() + 0.5, lambda: (act(), None)[1])

    return Store("memory", lambda: world.connect().state, meanwhile)


def sqlite_store(folder: Path) -> Store:
    path = folder / "state.db"

    def meanwhile(act: Callable[[], object]) -> None:
        threading.Timer(0.05, act).start()

    return Store("sqlite", lambda: SqliteState(path), meanwhile, address=str(path))


# Every driver of the port. One that needs a cluster of its own says so by pytest.skip.
STORES: dict[str, Callable[[Path], Store]] = {
    "memory": memory_store,
    "sqlite": sqlite_store,
}

# Those that several processes can share.
SHARED = ("sqlite",)


def open_address(name: str, address: str) -> State:
    """For another process: the store that is called so."""
    return {"sqlite": SqliteState}[name](address)


def made(name: str, folder: Path) -> Iterator[Store]:
    """As a fixture uses it."""
    store = STORES[name](folder)
    try:
        yield store
    finally:
        store.close()
