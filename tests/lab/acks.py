"""What writers on the lab send to this machine after each write that was confirmed to them."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Iterable

from tests.lab import bare
from vorch.lab import Ack
from vorch.lab.writer_log import DEFAULT_PORT, parse_acks


class Acks:
    """A guest sends them to its gateway, which is the lab's own address on the management net."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((address, DEFAULT_PORT))
        self._socket.settimeout(0.5)
        self._over = threading.Event()
        self._lines: list[str] = []
        # Boot → VM, as far as somebody has found it out: failures are told by it.
        self.names: dict[str, str] = {}
        # Boots of which no more is waited for.
        self.ignored: set[str] = set()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while not self._over.is_set():
            try:
                self._lines.append(self._socket.recv(2048).decode(errors="replace"))
            except TimeoutError:
                continue

    def close(self) -> None:
        self._over.set()
        self._thread.join()
        self._socket.close()

    def all(self) -> list[Ack]:
        return [ack for line in list(self._lines) for ack in parse_acks(line)]

    def of(self, boots: Iterable[str]) -> list[Ack]:
        wanted = set(boots)
        return [ack for ack in self.all() if ack.boot in wanted]

    def await_more(self, more: int) -> None:
        before = len(self.all())
        bare.eventually(lambda: len(self.all()) >= before + more, f"{more} more confirmed writes")

    def await_writers(self, count: int, timeout_s: float) -> None:
        """Until that many guests have written something, each known by its boot."""
        bare.eventually(
            lambda: len({ack.boot for ack in self.all()}) >= count,
            f"{count} write",
            timeout_s,
            lambda: f"; these do: {dict(Counter(self._who(ack.boot) for ack in self.all()))}",
        )

    def await_each(self, more: int, timeout_s: float) -> None:
        """Until each guest that has ever written has written so much more."""
        short = self.short_of(more, timeout_s)
        assert not short, f"each writes {more} more: not after {timeout_s:g} s; wrote less: {short}"

    def short_of(self, more: int, timeout_s: float) -> dict[str, int]:
        """Which guests that have ever written do not write so much more in that time."""
        before = Counter(ack.boot for ack in self.all())
        deadline = time.monotonic() + timeout_s
        while True:
            now = Counter(ack.boot for ack in self.all())
            wrote = {
                self._who(boot): now[boot] - before[boot] for boot in before.keys() - self.ignored
            }
            short = {who: count for who, count in wrote.items() if count < more}
            if not short or time.monotonic() >= deadline:
                return short
            time.sleep(0.1)

    def _who(self, boot: str) -> str:
        return self.names.get(boot, boot)
