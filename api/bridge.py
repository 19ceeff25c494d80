"""One console between a browser's websocket and a stream to a guest; and all that are open.

Each side waits for the other: what the guest says is read when the browser has taken what came
before, and the browser is read when the guest has taken its keys. So a slow one costs no memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from starlette.websockets import WebSocket, WebSocketDisconnect

from vorch import Console, VorchError

T = TypeVar("T")

READ_S = 0.5
# Whoever takes nothing for so long is gone.
SLOW_S = 30.0
# How often it is looked whether whoever has it still may.
LOOK_S = 10.0
PIECE_BYTES = 64 * 1024
# What fits into the end of a websocket.
REASON_BYTES = 123

GOING_AWAY = 1012
# Above 4000 stands what HTTP would have said.
TAKEN, UNKNOWN, IDLE, OVER = 4423, 4401, 4408, 4410


@dataclass(frozen=True, slots=True)
class End:
    """Why a console is closed, as its websocket says it. Code 0: the other side has gone."""

    code: int
    why: str = ""


def end_of(error: VorchError) -> End:
    code = TAKEN if error.fields.get("taken") else 4000 + error.http_status
    return End(code, f"{error.code}: {error.message}")


class Bridges:
    """All that are open at this service. Of the event loop's thread only."""

    def __init__(self, most_per_user: int) -> None:
        self._most = most_per_user
        self._of: Counter[str] = Counter()
        self._open: set[Bridge] = set()

    @contextlib.contextmanager
    def seat(self, user: str) -> Iterator[bool]:
        """Whether there is room for one more of that user."""
        free = self._of[user] < self._most
        if not free:
            yield False
            return
        self._of[user] += 1
        try:
            yield True
        finally:
            self._of[user] -= 1
            if not self._of[user]:
                del self._of[user]

    @contextlib.contextmanager
    def among(self, bridge: Bridge) -> Iterator[None]:
        self._open.add(bridge)
        try:
            yield
        finally:
            self._open.discard(bridge)

    def end(self) -> None:
        """The service ends: viewers come again, to another one."""
        for bridge in self._open:
            bridge.end()


class Bridge:
    def __init__(
        self,
        socket: WebSocket,
        stream: Console,
        *,
        idle_s: float,
        allowed: Callable[[], Awaitable[End | None]],
    ) -> None:
        """`allowed`: why it may go on no more; None: it may."""
        self._socket = socket
        self._stream = stream
        self._idle_s = idle_s
        self._allowed = allowed
        self._ending = asyncio.Event()
        self._said_at = time.monotonic()
        # A stream waits in a thread: one reads, one writes, one closes.
        self._threads = ThreadPoolExecutor(3, "vorch-console")

    def end(self) -> None:
        self._ending.set()

    async def run(self) -> End:
        ways = [
            asyncio.create_task(way()) for way in (self._to_viewer, self._to_guest, self._guard)
        ]
        try:
            done, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            return next(one for one in ways if one in done).result()
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            await asyncio.shield(self._in_thread(self._stream.close))
            self._threads.shutdown(wait=False)

    def _in_thread(self, act: Callable[..., T], *args: object) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._threads, act, *args)

    async def _to_viewer(self) -> End:
        while True:
            began = time.monotonic()
            try:
                data = await self._in_thread(self._stream.read, READ_S)
            except VorchError as exc:
                return end_of(exc) if exc.fields.get("taken") else End(OVER, exc.message)
            if not data and time.monotonic() - began < READ_S / 2:
                # Where time stands still a wait takes none.
                await asyncio.sleep(READ_S / 4)
            for at in range(0, len(data), PIECE_BYTES):
                try:
                    async with asyncio.timeout(SLOW_S):
                        await self._socket.send_bytes(data[at : at + PIECE_BYTES])
                except TimeoutError:
                    return End(IDLE, f"nothing was taken for {SLOW_S:g} s")
                except (WebSocketDisconnect, RuntimeError):
                    return End(0)
                self._said_at = time.monotonic()

    async def _to_guest(self) -> End:
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                return End(0)
            data = message.get("bytes") or (message.get("text") or "").encode()
            if not data:
                continue
            self._said_at = time.monotonic()
            try:
                await self._in_thread(self._stream.write, data)
            except VorchError as exc:
                return end_of(exc) if exc.fields.get("taken") else End(OVER, exc.message)

    async def _guard(self) -> End:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), LOOK_S)
                return End(GOING_AWAY, "the service ends")
            if time.monotonic() - self._said_at > self._idle_s:
                return End(IDLE, f"nothing was said for {self._idle_s:g} s")
            refused = await self._allowed()
            if refused is not None:
                return refused


async def close(socket: WebSocket, end: End) -> None:
    """With the words cut to what fits; whoever is gone already is told nothing."""
    if end.code:
        with contextlib.suppress(RuntimeError, WebSocketDisconnect):
            await socket.close(end.code, shortened(end.why))


def shortened(why: str) -> str:
    raw = why.encode()
    if len(raw) <= REASON_BYTES:
        return why
    return raw[: REASON_BYTES - 3].decode(errors="ignore") + "\u2026"
