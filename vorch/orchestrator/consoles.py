"""A VM's serial port and screen: opened, followed to other hosts, opened for others by tickets."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from vorch.availability import HaVm, Requested
from vorch.codec import decode, encode
from vorch.errors import Conflict, NotFound, TooMany, Unreachable, VorchError
from vorch.execute import claim_key
from vorch.model import Vm
from vorch.orchestrator.core import Core
from vorch.orchestrator.people import SECRET_BYTES, sha256
from vorch.orchestrator.words import one_of_these
from vorch.ports import Change, Console
from vorch.rights import SERVICE, ConsoleTicket, Stream, Ticket

T = TypeVar("T")

# A ticket is for whoever is about to open a console.
TICKET_S = 60.0
# Unused ones that one user may have; the rest is no use but a nuisance.
TICKETS_MOST = 50
# A VM that is on its way to another host, or is started anew there, is waited for so long.
FOLLOW_S = 120.0
FOLLOW_EVERY_S = 0.25


class Consoles(Core):
    def console(self, name: str, *, force: bool = False) -> Console:
        """The serial port of a running VM, as a two-way stream that follows it to other hosts.

        `force`: whoever has it open is sent away.
        """
        vm = self._running(name, "open the console of")
        return Following(self._port(vm, force), lambda: self._again(vm))

    def display(self, name: str, *, force: bool = False) -> Console:
        """The screen of a running VM, as a two-way stream of VNC (RFB), which ends when it moves.

        `force`: whoever has it open is sent away, where it can be only one's.
        """
        vm = self._running(name, "open the screen of")
        stream = _ours(vm, lambda: self.world.hypervisor(vm.node).display(vm.id, force=force))
        if stream is None:
            raise _no_screen(name)
        return stream

    def console_ticket(
        self, name: str, *, kind: Stream = "console", force: bool = False
    ) -> ConsoleTicket:
        """What opens a VM's console or display at the service: once, and within a minute.

        `force`: whoever has it open then is sent away.
        """
        kinds: tuple[Stream, ...] = ("console", "display")
        wanted = one_of_these(kinds, kind, "kind of console")
        if not self._running(name, f"open the {wanted} of").graphics and wanted == "display":
            raise _no_screen(name)
        now, chance = self.world.clock.now(), self.world.chance
        secret = chance.take(SECRET_BYTES).hex()
        ticket = Ticket(
            id=chance.take(6).hex(),
            # Whoever runs a command on this machine may do as the service itself does.
            user=self.world.who.partition(" from ")[0] if self.world.known_by else SERVICE,
            known_by=self.world.known_by,
            vm=name,
            kind=wanted,
            force=force,
            expires_at=now + TICKET_S,
            hash=sha256(secret),
        )
        known = {
            key: decode(Ticket, one.body) for key, one in self.world.state.read(["ticket"]).items()
        }
        over = [key for key, one in known.items() if one.expires_at <= now]
        own = [one for one in known.values() if one.user == ticket.user and one.expires_at > now]
        if len(own) >= TICKETS_MOST:
            raise TooMany(
                f"cannot make a ticket for VM {name!r}: {TICKETS_MOST} are waiting to be used; use"
                f" those, or try again in {TICKET_S:g} s",
                retry_after_s=round(TICKET_S),
            )
        gone = [Change(key, None, None) for key in over]
        self.world.state.commit([*gone, Change(f"ticket/{ticket.id}", 0, encode(ticket))])
        return ConsoleTicket(
            vm=name, kind=wanted, expires_at=ticket.expires_at, secret=f"{ticket.id}.{secret}"
        )

    # -- inside

    def _port(self, vm: Vm, force: bool) -> Console:
        return _ours(vm, lambda: self.world.hypervisor(vm.node).console(vm.id, force=force))

    def _again(self, vm: Vm) -> Console | None:
        """Its serial port where it goes on; None: it may yet. Raises when it is over."""
        cluster = self.look()
        now = next((one for one in cluster.vms.values() if one.id == vm.id), None)
        if now is None:
            raise NotFound(f"cannot follow VM {vm.name!r}: it is deleted", vm=vm.name)
        try:
            return self._port(now, force=False)
        except Unreachable:
            return None
        except VorchError as exc:
            if exc.fields.get("taken") or not self._on_its_way(now):
                raise
            return None

    def _on_its_way(self, vm: Vm) -> bool:
        """Somebody works on it, or high availability will have it run again."""
        state = self.world.state
        if state.get(claim_key(f"vm/{vm.name}")) is not None:
            return True
        ha = state.get(f"ha/{vm.name}")
        return ha is not None and decode(HaVm, ha.body).requested is Requested.STARTED


def _no_screen(name: str) -> NotFound:
    return NotFound(
        f"cannot open the screen of VM {name!r}: it has none; give it one (vorch change"
        " --graphics) and restart it",
        vm=name,
    )


def _ours(vm: Vm, opened: Callable[[], T]) -> T:
    """What is refused because somebody else has it open says so among its fields."""
    try:
        return opened()
    except Conflict as exc:
        raise Conflict(exc.message, **{**exc.fields, "vm": vm.name, "taken": True}) from exc


class Following:
    """Obeys `ports.Console`: one stream out of several, of one VM on one host after the other."""

    def __init__(self, first: Console, again: Callable[[], Console | None]) -> None:
        """`again`: the next one; None when it may come yet, and an error when none will."""
        self._again = again
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._number = 0
        self._inner = first
        self._lost_at: float | None = None

    def read(self, timeout_s: float) -> bytes:
        until = time.monotonic() + timeout_s
        while True:
            number, inner = self._number, self._inner
            try:
                return inner.read(timeout_s)
            except Unreachable as exc:
                if not self._next(number, exc, until):
                    return b""

    def write(self, data: bytes) -> None:
        until = time.monotonic() + FOLLOW_S
        while True:
            number, inner = self._number, self._inner
            try:
                # What it took of this before it ended is lost with it; the rest is not repeated.
                inner.write(data)
            except Unreachable as exc:
                if not self._next(number, exc, until):
                    raise
            else:
                return

    def close(self) -> None:
        self._closed.set()
        self._inner.close()

    def _next(self, number: int, ended: Unreachable, until: float) -> bool:
        """Wait for the stream after that one; False: it has not come in that time."""
        while not self._closed.is_set():
            # Held for one try only, as reader and writer wait each for a time of its own.
            with self._lock:
                if self._number != number or self._found(number, ended):
                    return True
            if time.monotonic() >= until:
                return False
            self._closed.wait(FOLLOW_EVERY_S)
        raise ended

    def _found(self, number: int, ended: Unreachable) -> bool:
        """Whether the next one is there. Raises when none will be. Holds the lock."""
        if self._lost_at is None:
            self._lost_at = time.monotonic()
        try:
            found = self._again()
        except VorchError as exc:
            why = exc if exc.fields.get("taken") else ended
            raise Unreachable(why.message, **why.fields) from exc
        if found is None:
            if time.monotonic() - self._lost_at > FOLLOW_S:
                raise ended
            return False
        self._inner, self._number, self._lost_at = found, number + 1, None
        if self._closed.is_set():
            found.close()
        return True
