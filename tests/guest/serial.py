"""A guest's serial console under a test's control: wait for what it writes, type what it reads."""

from __future__ import annotations

import os
import re
import select
import socket
import time
from pathlib import Path
from types import TracebackType

# Colours and cursor moves, which firmware, boot loaders and shells send between the words.
_ESCAPES = re.compile(rb"\x1b(\[[0-9;?=]*[A-Za-z]|[()][A-Za-z0-9]|[c78=>])")


# An emulated guest on a machine that is busy with other tests: never the time that fails a test.
BOOT_TIMEOUT_S = 240.0
ANSWER_TIMEOUT_S = 120.0


class ConsoleTimeout(AssertionError):
    """What was waited for did not come; the message holds the end of what came instead."""


class SerialConsole:
    """Talks to any file descriptor that carries a console: a unix socket, a pty, libvirt's stream.

    `expect` reads on from where the last match ended, so a test tells a story from top to bottom.
    `transcript` keeps everything that was ever read.
    """

    def __init__(self, descriptor: int, *, owner: socket.socket | None = None) -> None:
        self._descriptor = descriptor
        self._owner = owner
        self._raw = b""
        self._unread = ""
        self.transcript = ""
        os.set_blocking(descriptor, False)

    @classmethod
    def connect(cls, path: Path, *, timeout_s: float = 10) -> SerialConsole:
        """The console behind a unix socket, which may appear a little later than this is called."""
        deadline = time.monotonic() + timeout_s
        while True:
            link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                link.connect(str(path))
            except OSError:
                link.close()
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
            else:
                return cls(link.fileno(), owner=link)

    @classmethod
    def open(cls, path: Path) -> SerialConsole:
        """The console behind a pty's device file."""
        return cls(os.open(path, os.O_RDWR | os.O_NOCTTY))

    def expect(self, pattern: str, timeout_s: float = ANSWER_TIMEOUT_S) -> re.Match[str]:
        """Reads until the pattern is there. What comes after it is left for the next call."""
        wanted = re.compile(pattern, re.MULTILINE)
        deadline = time.monotonic() + timeout_s
        while True:
            found = wanted.search(self._unread)
            if found:
                self._unread = self._unread[found.end() :]
                return found
            left = deadline - time.monotonic()
            if left <= 0 or not self._read(left):
                what = "came in time" if left <= 0 else "came before the console was closed"
                raise ConsoleTimeout(
                    f"no {pattern!r} {what} ({timeout_s} s); the console ends with:\n"
                    f"{self.transcript[-1500:]}"
                )

    def send(self, line: str) -> None:
        """Types a line and the return key."""
        data = line.encode() + b"\n"
        while data:
            self._ready(select.POLLOUT)
            data = data[os.write(self._descriptor, data) :]

    def login(
        self,
        user: str,
        password: str,
        *,
        prompt: str = r"[#$] $",
        timeout_s: float = ANSWER_TIMEOUT_S,
    ) -> None:
        self.expect(r"\S+ login: $", timeout_s)
        self.send(user)
        self.expect("assword: ?$", timeout_s)
        self.send(password)
        self.expect(prompt, timeout_s)

    def run(self, command: str, *, timeout_s: float = ANSWER_TIMEOUT_S) -> str:
        """What a shell command prints, where somebody is logged in. Raises if it fails."""
        # The marks are broken up in what is typed, so that its echo does not look like the answer.
        self.send(f"echo '<''<'; {command}; echo '>''>'$?")
        self.expect(r"^<<\n", timeout_s)
        answer = self.expect(r"(?s)(.*?)>>(\d+)\n", timeout_s)
        if answer[2] != "0":
            raise AssertionError(
                f"in the guest, {command!r} ended with status {answer[2]}: {answer[1]}"
            )
        return str(answer[1]).strip()

    def close(self) -> None:
        if self._owner is not None:
            self._owner.close()
        else:
            os.close(self._descriptor)

    def __enter__(self) -> SerialConsole:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _ready(self, event: int, timeout_s: float | None = None) -> bool:
        # select() knows no number above 1023, and connections to Ceph hold many.
        poll = select.poll()
        poll.register(self._descriptor, event)
        return bool(poll.poll(None if timeout_s is None else timeout_s * 1000))

    def _read(self, timeout_s: float) -> bool:
        if not self._ready(select.POLLIN, timeout_s):
            return True
        try:
            data = os.read(self._descriptor, 65536)
        except BlockingIOError:
            return True
        except OSError:
            # A pty whose other end was closed.
            return False
        if not data:
            return False
        # An escape sequence may be cut in two by the reading: its start waits for its end.
        self._raw += data
        head, escape, tail = self._raw.rpartition(b"\x1b")
        if escape and len(tail) < 12 and not _ESCAPES.match(escape + tail):
            ready, self._raw = head, escape + tail
        else:
            ready, self._raw = self._raw, b""
        text = _ESCAPES.sub(b"", ready).replace(b"\r", b"").decode(errors="replace")
        self._unread += text
        self.transcript += text
        return True
