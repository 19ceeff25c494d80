"""The console on a real terminal (a pseudo-terminal), with a guest that is made up."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from vorch import Invalid, Unreachable
from vorch_cli.console import attach

PATIENCE_S = 10.0


class Guest:
    """A `Console` whose other side is the test."""

    def __init__(self) -> None:
        self.heard = b""
        self.closed = False
        self._says: list[bytes | BaseException] = []
        self._more = threading.Condition()

    def say(self, what: bytes | BaseException) -> None:
        with self._more:
            self._says.append(what)
            self._more.notify()

    def read(self, timeout_s: float) -> bytes:
        with self._more:
            self._more.wait_for(lambda: self._says, timeout_s)
            if not self._says:
                return b""
            said = self._says.pop(0)
        if isinstance(said, BaseException):
            raise said
        return said

    def write(self, data: bytes) -> None:
        if self.closed:
            raise Unreachable("cannot write to the console of 'web': its VM has ended")
        self.heard += data

    def close(self) -> None:
        self.closed = True


def until(what: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < end, "it did not happen"
        threading.Event().wait(0.005)


class Terminal:
    """A pseudo-terminal: `user` is where somebody types and looks, `program` what vorch holds."""

    def __init__(self) -> None:
        self.user, self.program = pty.openpty()
        self.before = termios.tcgetattr(self.program)
        self.shown = b""

    def type(self, keys: bytes) -> None:
        os.write(self.user, keys)

    def shows(self, text: bytes) -> None:
        end = time.monotonic() + PATIENCE_S
        while text not in self.shown:
            ready, _, _ = select.select([self.user], [], [], 0.1)
            if ready:
                self.shown += os.read(self.user, 65536)
            assert time.monotonic() < end, self.shown

    @property
    def is_raw(self) -> bool:
        return not termios.tcgetattr(self.program)[3] & (termios.ICANON | termios.ECHO)

    @property
    def is_restored(self) -> bool:
        return termios.tcgetattr(self.program) == self.before

    def close(self) -> None:
        for end in (self.user, self.program):
            with suppress(OSError):
                os.close(end)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    made = Terminal()
    yield made
    made.close()


class Attached:
    """`attach` at work in a thread."""

    def __init__(self, guest: Guest, stdin: int, stdout: int, limit_s: float | None = None) -> None:
        self.error: BaseException | None = None

        def run() -> None:
            try:
                attach(guest, "web", stdin=stdin, stdout=stdout, limit_s=limit_s)
            except BaseException as exc:  # noqa: BLE001 - looked at by the test
                self.error = exc

        self.thread = threading.Thread(target=run, daemon=True)
        self.thread.start()

    def ends(self) -> None:
        self.thread.join(PATIENCE_S)
        assert not self.thread.is_alive()


def test_keys_go_to_the_guest_and_its_words_to_the_screen(terminal: Terminal) -> None:
    guest = Guest()
    at_work = Attached(guest, terminal.program, terminal.program)
    until(lambda: terminal.is_raw)
    guest.say(b"login: ")
    terminal.shows(b"login: ")
    # What a terminal takes for itself, too: Ctrl-C, Ctrl-D, Ctrl-Z, Ctrl-\, Ctrl-S, Return.
    terminal.type(b"root\r\x03\x04\x1a\x1c\x13\xff")
    until(lambda: guest.heard == b"root\r\x03\x04\x1a\x1c\x13\xff")
    terminal.type(b"bye\x1dnot sent")
    at_work.ends()
    assert at_work.error is None
    assert guest.heard.endswith(b"\xffbye")
    assert terminal.is_restored


@pytest.mark.parametrize(
    "end",
    [Unreachable("cannot read the console of 'web': its VM has ended"), Invalid("cannot")],
    ids=["ended", "failed"],
)
def test_the_terminal_is_given_back_when_the_console_ends(
    terminal: Terminal, end: Exception, capfd: pytest.CaptureFixture[str]
) -> None:
    guest = Guest()
    at_work = Attached(guest, terminal.program, terminal.program)
    until(lambda: terminal.is_raw)
    guest.say(b"\x1b[31mred")
    guest.say(end)
    at_work.ends()
    assert terminal.is_restored
    # A guest that has shut down is no failure of the console; anything else is.
    assert at_work.error is (None if isinstance(end, Unreachable) else end)
    # Neither its colours nor the screen of an editor stay behind.
    terminal.shows(b"\x1b[?1047l")
    terminal.shows(b"\x1b[0m")
    if isinstance(end, Unreachable):
        assert "its VM has ended" in capfd.readouterr().err


def test_the_terminal_is_given_back_when_writing_fails(terminal: Terminal) -> None:
    guest = Guest()
    at_work = Attached(guest, terminal.program, terminal.program)
    until(lambda: terminal.is_raw)
    guest.close()
    terminal.type(b"x")
    at_work.ends()
    assert at_work.error is None
    assert terminal.is_restored


def test_it_leaves_when_the_time_is_over(terminal: Terminal) -> None:
    at_work = Attached(Guest(), terminal.program, terminal.program, limit_s=0.2)
    at_work.ends()
    assert terminal.is_restored


def test_without_a_terminal_it_copies(tmp_path_factory: pytest.TempPathFactory) -> None:
    guest = Guest()
    keys_out, keys_in = os.pipe()
    shown_out, shown_in = os.pipe()
    # ^] is a byte like any other here, and the end of the input not the end of the guest.
    os.write(keys_in, b"echo \x1d hello\n")
    os.close(keys_in)
    at_work = Attached(guest, keys_out, shown_in)
    until(lambda: guest.heard == b"echo \x1d hello\n")
    guest.say(b"hello")
    guest.say(Unreachable("cannot read: ended"))
    at_work.ends()
    os.close(shown_in)
    assert at_work.error is None
    assert os.read(shown_out, 100) == b"hello"
    for end in (keys_out, shown_out):
        os.close(end)


def test_much_output_arrives_whole(terminal: Terminal) -> None:
    guest = Guest()
    at_work = Attached(guest, terminal.program, terminal.program)
    until(lambda: terminal.is_raw)
    for number in range(200):
        guest.say(b"%04d" % number * 256)
    terminal.shows(b"0199" * 256)
    assert b"".join(b"%04d" % number * 256 for number in range(200)) in terminal.shown
    terminal.type(b"\x1d")
    at_work.ends()


# ---------------------------------------------------------------------------------------------
# The command itself, in a process of its own. A world in memory lives inside one process, so that
# process makes it, too.

PROGRAM = """
import sys
from vorch_cli.main import main

def vorch(*words):
    return main(["--uri", "memory:console", *words])

sys.stderr = open("/dev/null", "w")
with open(sys.argv[1], "wb") as file:
    file.write(bytes(1024**2))
assert vorch("image", "import", "debian", sys.argv[1], "--json") == 0
assert vorch("create", "web", "--image", "debian", "--json") == 0
sys.stderr = sys.__stderr__
sys.exit(vorch("console", "web"))
"""


def started(terminal: Terminal, file: str) -> subprocess.Popen[bytes]:
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, file],
        stdin=terminal.program,
        stdout=terminal.program,
        stderr=terminal.program,
        env={**os.environ, "TERM": "xterm"},
        start_new_session=True,
    )
    terminal.shows(b"leaves.")
    terminal.shows(b"login: ")
    return program


@pytest.mark.parametrize(
    ("end", "code"), [("keys", 0), (signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=str
)
def test_the_command_gives_the_terminal_back(
    terminal: Terminal, tmp_path_factory: pytest.TempPathFactory, end: str | int, code: int
) -> None:
    file = str(tmp_path_factory.mktemp("console") / "disk.raw")
    program = started(terminal, file)
    try:
        assert terminal.is_raw
        if isinstance(end, str):
            terminal.type(b"root\x1d")
        else:
            program.send_signal(end)
        # Somebody has to look at a terminal, or what is written to it waits.
        reader = threading.Thread(target=_drain, args=(terminal.user,), daemon=True)
        reader.start()
        assert program.wait(PATIENCE_S) == code
        assert terminal.is_restored
    finally:
        program.kill()
        program.wait()


def _drain(end: int) -> None:
    with suppress(OSError):
        while os.read(end, 65536):
            pass
