"""The real world's time, chance and processes."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vorch.ports import Chance

# The first process ID namespace of a kernel has this fixed number (PROC_PID_INIT_INO).
_FIRST_PID_NAMESPACE = "pid:[4026531836]"

# Made anew when a program starts, so that one which replaced another in the same process (execve)
# does not take itself for it.
_PROGRAM = os.urandom(8).hex()


class SystemClock:
    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        if seconds > 0:
            time.sleep(seconds)


def system_chance() -> Chance:
    return Chance(uuid=lambda: str(uuid.uuid4()), take=os.urandom)


class LocalProcesses:
    """The processes of this machine, as far as they can be told apart for certain.

    A process is known by the boot it runs in, its process ID and the moment it was started. Two
    containers may show each other the same process IDs, and machines made from one image may have
    one machine ID; in such cases the answer is "cannot be seen" and never "has ended".
    """

    def __init__(
        self, proc: str | os.PathLike[str] = "/proc", machine_id: str | None = None
    ) -> None:
        self._proc = Path(proc)
        self._machine_id = _machine_id() if machine_id is None else machine_id

    def me(self) -> dict[str, Any]:
        # Read each time: after a fork it is another process.
        found = self._stat(os.getpid())
        return {
            "kind": "linux",
            **self._here(),
            "pid": os.getpid(),
            "started": None if found is None else found[1],
            "program": _PROGRAM,
        }

    def alive(self, identity: Mapping[str, Any]) -> bool | None:
        here = self._here()
        pid = identity.get("pid")
        if identity.get("kind") != "linux" or not isinstance(pid, int) or pid <= 0:
            return None
        if not here["boot"] or not identity.get("boot"):
            return None
        if identity["boot"] != here["boot"]:
            return False if self._rebooted(identity, here) else None
        # Without these two being the same, process IDs and start times mean different things.
        if any(
            not here[part] or identity.get(part) != here[part]
            for part in ("pid_namespace", "time_namespace")
        ):
            return None
        return self._alive_here(pid, identity.get("started"), identity.get("program"))

    def _rebooted(self, identity: Mapping[str, Any], here: Mapping[str, Any]) -> bool:
        # A container's machine ID says nothing about the machine: both must be outside of one.
        same = ("machine", "host_name", "pid_namespace")
        return (
            all(here[part] and identity.get(part) == here[part] for part in same)
            and here["pid_namespace"] == _FIRST_PID_NAMESPACE
        )

    def _alive_here(self, pid: int, started: object, program: object) -> bool | None:
        try:
            os.kill(pid, 0)
        except (ProcessLookupError, OverflowError):
            return False
        except PermissionError:
            # It is there, and somebody else's.
            pass
        found = self._stat(pid)
        if found is None or started is None:
            # Ended just now, or hidden from this user (hidepid).
            return None
        state, ticks = found
        if ticks != started or state in "ZX":
            return False
        return not (pid == os.getpid() and program != _PROGRAM)

    def _here(self) -> dict[str, str]:
        return {
            "machine": self._machine_id,
            "host_name": os.uname().nodename,
            "boot": _text(self._proc / "sys/kernel/random/boot_id"),
            "pid_namespace": _link(self._proc / "self/ns/pid"),
            # Kernels before 5.6 have none, and all processes the same time.
            "time_namespace": _link(self._proc / "self/ns/time") or "none",
        }

    def _stat(self, pid: int) -> tuple[str, int] | None:
        """The process's state and its start, in clock ticks since boot."""
        text = _text(self._proc / str(pid) / "stat")
        # The program's name stands in brackets and may hold anything, brackets included.
        fields = text.rpartition(")")[2].split()
        if len(fields) < 20:
            return None
        return fields[0], int(fields[19])


def _machine_id() -> str:
    return _text(Path("/etc/machine-id")) or _text(Path("/var/lib/dbus/machine-id"))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _link(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:
        return ""
