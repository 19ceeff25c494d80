"""Consoles of VMs through a service: a websocket each, as a stream like those at hand."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from vorch.errors import ALL, Conflict, TooMany, Unreachable, VorchError
from vorch.remote.link import Link
from vorch.rights import ConsoleTicket

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

PATH = "/v1/console"
PROTOCOL = "vorch.console"
TICKET_PREFIX = "vorch.ticket."
OPEN_S = 30.0
# How long a service that ends, or is started anew, is waited for.
AWAY_S = 60.0
AGAIN_S = 0.5
# Of one message; a service sends smaller ones.
MESSAGE_BYTES = 1024 * 1024
# Those waiting to be read.
MESSAGES = 16
_TAKEN, _OVER = 4423, 4410
# The service has ended, or the connection has: what was open there can be had again.
_AWAY = frozenset({1001, 1006, 1011, 1012})


class FarStream:
    """Obeys `ports.Console`."""

    def __init__(self, link: Link, ticket: Callable[[], ConsoleTicket], *, again: bool) -> None:
        """`again`: it goes on by a new ticket when the service was away, as a serial port can."""
        self._link = link
        self._ticket = ticket
        self._again = again
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._number = 0
        self._inner = self._open()

    def read(self, timeout_s: float) -> bytes:
        from websockets.exceptions import ConnectionClosed

        number, inner = self._number, self._inner
        try:
            data = inner.recv(timeout_s)
        except TimeoutError:
            return b""
        except ConnectionClosed as exc:
            self._next(number, exc)
            return b""
        return data.encode() if isinstance(data, str) else data

    def write(self, data: bytes) -> None:
        from websockets.exceptions import ConnectionClosed

        while True:
            number, inner = self._number, self._inner
            try:
                inner.send(data)
            except ConnectionClosed as exc:
                self._next(number, exc)
            else:
                return

    def close(self) -> None:
        """Safe to repeat."""
        self._closed.set()
        self._inner.close()

    # -- inside

    def _open(self) -> ClientConnection:
        from websockets.exceptions import InvalidHandshake, InvalidStatus
        from websockets.sync.client import connect
        from websockets.typing import Subprotocol

        ticket = self._ticket()
        offered = (PROTOCOL, f"{TICKET_PREFIX}{ticket.secret}")
        uri, headers, context = self._link.websocket(PATH)
        try:
            dialled = connect(
                uri,
                subprotocols=[Subprotocol(one) for one in offered],
                additional_headers=headers,
                ssl=context,
                compression=None,
                proxy=None,
                open_timeout=OPEN_S,
                max_size=MESSAGE_BYTES,
                max_queue=MESSAGES,
            )
            # It stays open until `close`.
            return contextlib.ExitStack().enter_context(dialled)
        except InvalidStatus as exc:
            answer = exc.response
            raise self._link.refused(answer.status_code, bytes(answer.body or b"")) from exc
        except (OSError, InvalidHandshake) as exc:
            raise self._link.unreachable(exc) from exc

    def _next(self, number: int, ended: BaseException) -> None:
        """One more connection, or the error that says why there is none."""
        code, why = _end_of(ended)
        if self._closed.is_set():
            raise Unreachable("cannot use that console: it was closed; open it again")
        if not self._again or code not in _AWAY:
            raise _error(code, why)
        with self._lock:
            if self._number != number:
                return
            until = time.monotonic() + AWAY_S
            while True:
                try:
                    found = self._open()
                except (Unreachable, TooMany, Conflict):
                    # An old one may still be on its way out.
                    if time.monotonic() > until or self._closed.wait(AGAIN_S):
                        raise
                    continue
                self._inner, self._number = found, number + 1
                if self._closed.is_set():
                    found.close()
                return


def _end_of(ended: BaseException) -> tuple[int, str]:
    frame = getattr(ended, "rcvd", None)
    return (1006, "") if frame is None else (frame.code, frame.reason)


def _error(code: int, why: str) -> VorchError:
    """What the service has said, as an end of a stream is said here."""
    known, _, message = why.partition(": ")
    kinds = {kind.code: kind for kind in ALL}
    if code == _TAKEN:
        return Unreachable(message or why, taken=True)
    if code != _OVER and known in kinds:
        return kinds[known](message)
    words = why or "the connection to the service has ended"
    return Unreachable(words if words.startswith("cannot") else f"cannot go on: {words}")
