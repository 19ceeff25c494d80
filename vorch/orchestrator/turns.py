"""What only one process of a cluster may do at a time, however long it takes: its turn.

A turn is a lease in the store that whoever has it keeps up. Of a process that has ended it is free
at once, where that can be told, and else when it lapses.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Self

from vorch.errors import Conflict, VorchError
from vorch.ports import Lease, World

# The turn to move VMs for evenness: two at once would each fill the same holes.
BALANCE = "balance"
# Without a sign of life it is over after that.
TURN_S = 60.0
# The same where nobody but the moves themselves can give one.
ALONE_S = 900.0


class Turn:
    """Of one process, until it is given back. From one thread at a time, but for `keep`."""

    def __init__(self, world: World, name: str, lease: Lease) -> None:
        self._world = world
        self._name = name
        self._lock = threading.Lock()
        self._lease: Lease | None = lease
        self._kept_at = world.clock.now()

    @classmethod
    def take(cls, world: World, name: str) -> Self | None:
        """None: somebody else has it."""
        state, now = world.state, world.clock.now()
        last = state.lease(name)
        # Whoever comes once cannot watch it for a while, so its own word counts. A clock that is
        # wrong may make two of it, which costs moves and no more.
        free = last if last is not None and _is_free(world, last) else None
        words = {"who": world.who, "runner": world.processes.me(), "id": world.chance.uuid()}
        holder = json.dumps(words, sort_keys=True)
        lease = state.acquire(name, holder, _ttl_s(world), now=now, over=free)
        return None if lease is None else cls(world, name, lease)

    @property
    def held(self) -> bool:
        return self._lease is not None

    def keep(self) -> bool:
        """A sign of life, if it is time for one. False when it is somebody else's by now."""
        with self._lock:
            now = self._world.clock.now()
            if self._lease is not None and now - self._kept_at >= TURN_S / 4:
                self._lease = self._world.state.renew(self._lease, _ttl_s(self._world), now=now)
                self._kept_at = now
            return self._lease is not None

    def give_back(self) -> None:
        with self._lock:
            lease, self._lease = self._lease, None
            if lease is not None:
                # It lapses by itself, too.
                with suppress(VorchError):
                    self._world.state.release(lease)


def holder(world: World, name: str) -> str:
    """Who has a turn now, as people say it; "" when it is free."""
    lease = world.state.lease(name)
    if lease is None or _is_free(world, lease):
        return ""
    return str(_words(lease).get("who") or "somebody")


@contextmanager
def only_one(world: World, name: str, what: str) -> Iterator[Turn]:
    """A turn for as long as this lasts; refused while somebody else has it."""
    turn = Turn.take(world, name)
    if turn is None:
        who = holder(world, name) or "somebody"
        raise Conflict(
            f"cannot {what}: {who} is just doing it, and two at once would do too much; wait until"
            " that is over (vorch task list), and look again whether there is anything left to do",
            turn=name,
            holder=who,
        )
    over = threading.Event()

    def go_on() -> None:
        while not over.wait(TURN_S / 4):
            # While the store is silent no sign can be given; it may be there the next time.
            with suppress(VorchError):
                turn.keep()

    thread = threading.Thread(target=go_on, name=f"vorch-{name}-turn", daemon=True)
    if world.threads:
        thread.start()
    try:
        yield turn
    finally:
        over.set()
        if world.threads:
            thread.join()
        turn.give_back()


def _ttl_s(world: World) -> float:
    return TURN_S if world.threads else ALONE_S


def _words(lease: Lease) -> dict[str, Any]:
    try:
        found = json.loads(lease.holder)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _is_free(world: World, lease: Lease) -> bool:
    """It has lapsed, or whoever had it has ended."""
    if lease.expires_at <= world.clock.now():
        return True
    runner = _words(lease).get("runner")
    return isinstance(runner, dict) and world.processes.alive(runner) is False
