"""Commands on a host for what libvirt does not do: by ssh, or right here on this machine's own.

Host keys are checked as ssh does: one that this user's ssh does not know yet is refused.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from vorch.errors import StepFailed, Unreachable
from vorch.model import Node

CONNECT_TIMEOUT_S = 15
# What ssh itself ends with when it was ssh that failed.
OWN_FAILURE = 255


def _never_ran(said: bytes) -> bool:
    """The connection that serves all commands broke, of which whoever was on it hears nothing; or
    the host has answered, and its sshd had no time.
    """
    return not said.strip() or b"during banner exchange" in said


class Shell:
    """A host's shell, as root. One connection serves all commands while they come."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self._lock = threading.Lock()
        self._folder: Path | None = None

    @property
    def way(self) -> str:
        """For people: whom ssh logs in as, and where; "" where the host is this machine."""
        parts = urlsplit(self.node.ssh_url)
        if not parts.hostname:
            return ""
        port = f":{parts.port}" if parts.port else ""
        return f"{parts.username or 'root'}@{parts.hostname}{port}"

    def run(self, words: Sequence[str], data: bytes = b"", *, timeout_s: float) -> bytes:
        """What it wrote. `StepFailed` with its last words when it fails, `Unreachable` without.

        Run once more when the way to the host breaks, so it has to be safe to repeat.
        """
        what = f"run {Path(words[0]).name!r} on {self.node.name!r}"
        command = [*self._ssh(), shlex.join(words)] if self.way else list(words)
        try:
            done = subprocess.run(command, input=data, capture_output=True, timeout=timeout_s)
            if self.way and done.returncode == OWN_FAILURE and _never_ran(done.stderr):
                done = subprocess.run(command, input=data, capture_output=True, timeout=timeout_s)
        except subprocess.TimeoutExpired as exc:
            raise Unreachable(
                f"cannot {what}: it is not done after {timeout_s:g} s; see what keeps the host"
                " busy",
                node=self.node.name,
            ) from exc
        except FileNotFoundError as exc:
            raise Unreachable(
                f"cannot {what}: {exc.filename!r} is not there; install it (openssh-client)",
                node=self.node.name,
            ) from exc
        said = done.stderr.decode(errors="replace").strip()
        if self.way and done.returncode == OWN_FAILURE:
            last = said.splitlines()[-1] if said else "it says nothing"
            raise Unreachable(
                f"cannot {what}: no way in by ssh as {self.way} ({last}); see that `ssh {self.way}`"
                " works from here without a question, or name another way (--ssh)",
                node=self.node.name,
            )
        if done.returncode:
            raise StepFailed(
                f"cannot {what}: {said or f'it ended with {done.returncode}'}; see to that host",
                node=self.node.name,
                status=done.returncode,
            )
        return done.stdout

    def _ssh(self) -> list[str]:
        parts = urlsplit(self.node.ssh_url)
        extra = {key: values[-1] for key, values in parse_qs(parts.query).items()}
        options = {
            "BatchMode": "yes",
            "ConnectTimeout": str(CONNECT_TIMEOUT_S),
            "ServerAliveInterval": "10",
            "ServerAliveCountMax": "4",
            "LogLevel": "ERROR",
            "ControlMaster": "auto",
            "ControlPath": f"{self._sockets()}/%C",
            "ControlPersist": "60",
        }
        if "keyfile" in extra:
            options |= {"IdentityFile": extra["keyfile"], "IdentitiesOnly": "yes"}
        if "known_hosts" in extra:
            options["UserKnownHostsFile"] = extra["known_hosts"]
        words = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
        port = ["-p", str(parts.port)] if parts.port else []
        user = parts.username or "root"
        return ["ssh", "-T", *words, *port, "-l", user, "--", str(parts.hostname)]

    def _sockets(self) -> Path:
        """For this process alone, and short enough for a socket's name."""
        with self._lock:
            if self._folder is None:
                self._folder = Path(tempfile.mkdtemp(prefix="vorch-ssh-"))
            return self._folder

    def close(self) -> None:
        """Safe to repeat."""
        with self._lock:
            folder, self._folder = self._folder, None
        if folder is None:
            return
        for socket in folder.iterdir():
            leave = ["ssh", "-o", f"ControlPath={socket}", "-O", "exit", "none"]
            subprocess.run(leave, capture_output=True)
        shutil.rmtree(folder, ignore_errors=True)
