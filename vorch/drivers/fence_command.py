"""The command fence: a program of the operator's that cuts a host off and proves it.

What it is told, and what its answer means, is a contract: docs/fencing.md.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Literal

from vorch.errors import BadConfig, FenceFailed
from vorch.model import Check, Node
from vorch.ports import Progress

# What of its output is kept; proofs are sentences.
LONGEST_BYTES = 4096
POLL_S = 0.05

Action = Literal["fence", "unfence", "check"]


class CommandFencer:
    """The Fencer port. `command`: a program by its whole path, and words for it."""

    name = "command"
    by_address = False

    def __init__(self, command: str, *, timeout_s: float) -> None:
        try:
            self._words = shlex.split(command)
        except ValueError as exc:
            raise BadConfig(f"cannot use {command!r} as fence_command: {exc}; mend it") from exc
        if not self._words or not self._words[0].startswith("/"):
            raise BadConfig(
                f"cannot use {command!r} as fence_command: it must begin with the whole path of a"
                " program"
            )
        self._timeout_s = timeout_s

    def covers(self, node: Node) -> bool:
        return True

    def fence(self, node: Node, clients: Sequence[str], progress: Progress) -> str:
        said = self._run("fence", node, clients, progress)
        if not said:
            raise FenceFailed(
                f"cannot fence host {node.name!r}: {self._words[0]} ended well and named no proof;"
                " have it print what it has read back",
                node=node.name,
            )
        return said

    def unfence(self, node: Node, clients: Sequence[str]) -> None:
        self._run("unfence", node, clients, None)

    def drill(self, nodes: Sequence[Node], progress: Progress) -> tuple[Check, ...]:
        return tuple(self._drill(node, progress) for node in nodes)

    def _drill(self, node: Node, progress: Progress) -> Check:
        name = f"fence command for {node.name}"
        try:
            said = self._run("check", node, (), progress)
        except FenceFailed as exc:
            return Check(name=name, level="error", detail=exc.message, remedy="mend the program")
        return Check(name=name, level="ok", detail=said or "it says that it would work")

    def _run(
        self, action: Action, node: Node, clients: Sequence[str], progress: Progress | None
    ) -> str:
        """The first line that it printed. FenceFailed unless it ended well, in time."""
        task = {
            "contract": 1,
            "action": action,
            "node": node.name,
            "uri": node.uri,
            "storage_address": node.storage_address,
            "clients": list(clients),
            "timeout_s": self._timeout_s,
        }
        what = f"cannot {action} host {node.name!r}: {self._words[0]}"
        # Files, not pipes: a child of it that goes on must not keep us.
        with (
            tempfile.TemporaryFile() as told,
            tempfile.TemporaryFile() as said,
            tempfile.TemporaryFile() as wrong,
        ):
            told.write(json.dumps(task).encode())
            told.seek(0)
            try:
                process = subprocess.Popen(
                    [*self._words, action, node.name],
                    stdin=told,
                    stdout=said,
                    stderr=wrong,
                    cwd="/",
                    env=_environment(action, node),
                    start_new_session=True,
                )
            except OSError as exc:
                raise FenceFailed(
                    f"{what} cannot be run ({exc.strerror}); see fence_command", node=node.name
                ) from exc
            try:
                status = self._await(process, progress)
            finally:
                if process.poll() is None:
                    with suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
            if status is None:
                raise FenceFailed(
                    f"{what} has not ended for {self._timeout_s:g} s and was killed; see why",
                    node=node.name,
                )
            if status != 0:
                words = _line(wrong) or _line(said) or "it says nothing"
                raise FenceFailed(f"{what} ended with {status}: {words}", node=node.name)
            return _line(said)

    def _await(self, process: subprocess.Popen[bytes], progress: Progress | None) -> int | None:
        until = time.monotonic() + self._timeout_s
        while time.monotonic() < until:
            with suppress(subprocess.TimeoutExpired):
                return process.wait(POLL_S)
            if progress is not None:
                # Ends it when somebody else has proven that the host is cut off.
                progress()
        return process.poll()


def _environment(action: Action, node: Node) -> dict[str, str]:
    """Nothing of vorch's own, which may hold secrets."""
    return {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LC_ALL": "C.UTF-8",
        "HOME": str(Path("/root") if os.geteuid() == 0 else Path("~").expanduser()),
        "VORCH_FENCE_ACTION": action,
        "VORCH_FENCE_NODE": node.name,
    }


def _line(file: IO[bytes]) -> str:
    file.seek(0)
    text = file.read(LONGEST_BYTES).decode(errors="replace")
    first = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return "".join(char if char.isprintable() else " " for char in first)
