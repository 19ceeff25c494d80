"""Finds processes by what they are, in /proc: no pid file to be stale, no number to be reused."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

# The first word after the program of every process that holds a namespace of a lab.
MARK = "vorch-lab"


@dataclass(frozen=True, slots=True)
class Process:
    """One process as this PID namespace numbers it."""

    pid: int
    argv: tuple[str, ...]

    @property
    def program(self) -> str:
        return Path(self.argv[0]).name if self.argv else ""

    @property
    def state(self) -> str:
        """The kernel's letter: R, S, D, T for stopped, Z for a zombie; "" when it is gone."""
        with suppress(OSError):
            # The name, in brackets, may hold anything, brackets too.
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]
        return ""

    @property
    def namespace(self) -> str:
        """Its PID namespace; "" when it is gone."""
        with suppress(OSError):
            return str(Path(f"/proc/{self.pid}/ns/pid").readlink())
        return ""

    def kill(self, number: int = signal.SIGKILL) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)


def seen(pid: int) -> Process | None:
    """The process of that number, if it lives."""
    with suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
        if words != [b""]:
            return Process(pid, tuple(word.decode(errors="replace") for word in words))
    return None


def running() -> Iterator[Process]:
    """Everything that can be seen from here, without kernel threads and zombies."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (process := seen(int(entry.name))) is not None:
            yield process


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that carries the mark: init, or what is about to become one."""

    lab: str
    role: str
    process: Process

    @property
    def is_init(self) -> bool:
        return self.process.program.startswith("python")


def holders(lab: str | None = None) -> list[Holder]:
    """What holds the namespaces of that lab, or of all; the role is "lab" or a host's name."""
    found = []
    for process in running():
        if MARK not in process.argv or not process.program.startswith(("python", "unshare", "sh")):
            continue
        at = process.argv.index(MARK)
        words = process.argv[at + 1 : at + 3]
        if len(words) == 2 and lab in (None, words[0]):
            found.append(Holder(words[0], words[1], process))
    return found


def init_of(lab: str, role: str) -> Process | None:
    """The first process of a host, or of the lab itself; None where the power is off."""
    for one in holders(lab):
        if one.role == role and one.is_init:
            return one.process
    return None


def child_of(pid: int, *, timeout_s: float = 10) -> int:
    """The one child of a process, which is about to have one."""

    def look() -> int:
        with suppress(OSError):
            words = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            return int(words[0]) if words else 0
        return 0

    return wait_for(look, timeout_s=timeout_s) or 0


def wait_for(look: Callable[[], T], *, timeout_s: float, pause_s: float = 0.02) -> T:
    """What is seen as soon as it is true, or what was seen when the time was over."""
    deadline = time.monotonic() + timeout_s
    while not (found := look()) and time.monotonic() < deadline:
        time.sleep(pause_s)
    return found


def inside(pid: int, command: Sequence[str]) -> list[str]:
    """The command, to be run in all the namespaces of that process."""
    return ["nsenter", f"--target={pid}", "--mount", "--uts", "--ipc", "--net", "--pid", *command]
