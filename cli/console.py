"""The guest's serial port in this terminal: every key goes to the guest, but ^] leaves.

Whatever happens, the terminal is given back as it was found.
"""

from __future__ import annotations

import os
import select
import sys
import termios
import threading
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vorch import Console

ESCAPE = b"\x1d"
# How long a wait lasts before it is looked whether the other side has ended.
LOOK_S = 0.1
CHUNK_BYTES = 4096
# What a guest may have left behind, as an editor that was left open does: its own screen, a part
# of it that scrolls alone (undoing that moves the cursor), line drawing, keys of another kind,
# colours, a hidden cursor, mouse reports, pasting in brackets.
CALM_DOWN = (
    b"\x1b[?1047l\x1b7\x1b[r\x1b8\x1b(B\x0f\x1b[?7h\x1b[?1l\x1b>"
    b"\x1b[0m\x1b[?25h\x1b[?1000l\x1b[?1002l\x1b[?1006l\x1b[?2004l"
)


def attach(
    console: Console,
    name: str,
    *,
    limit_s: float | None = None,
    stdin: int | None = None,
    stdout: int | None = None,
) -> None:
    """Returns when ^] is typed, the console ends, or the time is over.

    Without a terminal it copies: stdin to the guest until its end, what the guest says to stdout.
    """
    source = 0 if stdin is None else stdin
    target = 1 if stdout is None else stdout
    shown = _Shown(console, target)
    until = None if limit_s is None else time.monotonic() + limit_s
    with _raw(source, target) as typed:
        if typed:
            _say(f"Connected to {name}; ^] (Ctrl and ]) leaves.")
        reader = threading.Thread(target=shown.copy, name="vorch-console", daemon=True)
        reader.start()
        try:
            _send(console, source, shown, typed=typed, until=until)
        finally:
            shown.over.set()
            reader.join(timeout=2.0)
    if shown.problem is not None:
        raise shown.problem
    if shown.ended:
        _say(shown.ended)


class _Shown:
    """The guest's side: copies what it says to the terminal, in a thread of its own."""

    def __init__(self, console: Console, target: int) -> None:
        self.console = console
        self.target = target
        self.over = threading.Event()
        # Why the console ended by itself, which is how a guest's shutdown looks from here.
        self.ended = ""
        self.problem: BaseException | None = None

    def copy(self) -> None:
        from vorch import Unreachable

        try:
            while not self.over.is_set():
                data = self.console.read(LOOK_S)
                if data:
                    _write(self.target, data)
                else:
                    # One that answers "nothing" at once must not make this spin.
                    time.sleep(0.001)
        except Unreachable as exc:
            if not self.over.is_set():
                self.ended = exc.message
        except BaseException as exc:  # noqa: BLE001 - raised again where the user is
            self.problem = exc
        finally:
            self.over.set()


def _send(
    console: Console, source: int, shown: _Shown, *, typed: bool, until: float | None
) -> None:
    """The user's side: until ^], or until there is nothing more to wait for."""
    from vorch import Unreachable

    listening = True
    while not shown.over.is_set():
        if until is not None and time.monotonic() >= until:
            return
        if not listening:
            shown.over.wait(LOOK_S)
            continue
        ready, _, _ = select.select([source], [], [], LOOK_S)
        if not ready:
            continue
        data = os.read(source, CHUNK_BYTES)
        if not data:
            if typed:
                return
            # A pipe that has ended says nothing about the guest, which may still be answering.
            listening = False
            continue
        # Only a key is a wish to leave; in a file that is sent, the byte is a byte.
        before, escape, _ = data.partition(ESCAPE) if typed else (data, b"", b"")
        if before:
            try:
                console.write(before)
            except Unreachable as exc:
                shown.ended = shown.ended or exc.message
                return
        if escape:
            return


@contextmanager
def _raw(source: int, target: int) -> Iterator[bool]:
    """Every key as it is, nothing echoed here; False where stdin is no terminal."""
    try:
        before = termios.tcgetattr(source)
    except (termios.error, OSError):
        yield False
        return
    try:
        tty.setraw(source, termios.TCSADRAIN)
        yield True
    finally:
        with suppress(OSError):
            if os.isatty(target):
                _write(target, CALM_DOWN)
        # Terminals that are gone cannot be given back.
        with suppress(termios.error):
            termios.tcsetattr(source, termios.TCSADRAIN, before)
        _say("")


def _write(target: int, data: bytes) -> None:
    """All of it, also to a terminal that some program has left non-blocking."""
    while data:
        try:
            data = data[os.write(target, data) :]
        except BlockingIOError:
            select.select([], [target], [], LOOK_S)


def _say(line: str) -> None:
    """Beside the guest's output, which alone goes to stdout. \\r, for a terminal may be raw."""
    with suppress(OSError, ValueError):
        sys.stderr.write(f"{line}\r\n")
        sys.stderr.flush()
