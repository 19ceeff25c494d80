"""Real guests for tests: an embedded cluster in a folder of its own, and a hand at the console."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import pytest

import vorch
from tests.execute.scenarios import leaks
from tests.guest.serial import ANSWER_TIMEOUT_S
from vorch import Orchestrator
from vorch.lab import guest
from vorch.model import Cluster

T = TypeVar("T")

# Names of VMs and networks of these tests begin with it, so that nobody takes them for their own.
PREFIX = "e2e-"
# Ten times what it takes on two idle cores: it is never the time that fails a test.
BOOT_TIMEOUT_S = 300.0
READY = r"vorch-guest ready host=(\S+) ip=(\S+) boot=(\d+)\n"
NVRAM_FOLDER = Path("/var/lib/libvirt/qemu/nvram")
TPM_FOLDER = Path("/var/lib/libvirt/swtpm")
# crypt(3) of the password "secret".
SECRET = (
    "$6$pepper$2Z6D7B1GHphRwAkDE2YJPR/Tz3pYzJVGFj5UOun/"
    "UCaxbGzjpckaQI2gu8BE7DfAQVvJ1RMHN0aDV0DT6ow8L."
)
SSH_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB alice@home"

_ESCAPES = re.compile(rb"\x1b(\[[0-9;?=]*[A-Za-z]|[()][A-Za-z0-9]|[c78=>])")


def guest_image(kind: guest.Kind) -> guest.GuestImage:
    missing = guest.missing_programs(kind)
    if missing:
        pytest.skip(f"building the guest {kind!r} needs {', '.join(sorted(missing))}")
    return guest.build(kind)


class GuestConsole:
    """A VM's serial port, read on from where the last match ended: a story from top to bottom."""

    def __init__(self, cluster: Orchestrator, name: str) -> None:
        self.port = cluster.console(name)
        self._raw = b""
        self._unread = ""
        self.transcript = ""

    def __enter__(self) -> GuestConsole:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self.port.close()

    def send(self, line: str) -> None:
        self.port.write(line.encode() + b"\n")

    def expect(self, pattern: str, timeout_s: float = BOOT_TIMEOUT_S) -> re.Match[str]:
        """Reads until the pattern is there. What comes after it is left for the next call."""
        wanted = re.compile(pattern, re.MULTILINE)
        deadline = time.monotonic() + timeout_s
        while (found := wanted.search(self._unread)) is None:
            left = deadline - time.monotonic()
            assert left > 0, (
                f"no {pattern!r} came in {timeout_s:g} s; the console ends with:\n"
                f"{self.transcript[-1500:]}"
            )
            self._take(self.port.read(left))
        self._unread = self._unread[found.end() :]
        return found

    def ask_until(self, line: str, pattern: str) -> re.Match[str]:
        """Sends the line again and again: nobody may be there yet to read the first ones."""
        deadline = time.monotonic() + BOOT_TIMEOUT_S
        while True:
            self.send(line)
            try:
                return self.expect(pattern, 10)
            except AssertionError:
                if time.monotonic() > deadline:
                    raise

    def quiet(self, timeout_s: float) -> bool:
        """True when nothing at all comes in that time."""
        data = self.port.read(timeout_s)
        self._take(data)
        return not data

    def drain(self) -> None:
        """Forget what has come so far."""
        while data := self.port.read(0.2):
            self._take(data)
        self._unread = ""

    def _take(self, data: bytes) -> None:
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

    def log_in(self, user: str = "root", password: str = guest.ROOT_PASSWORD) -> None:
        self.expect(r"\S+ login: $")
        self.send(user)
        self.expect("assword: ?$")
        self.send(password)
        self.expect(r"[#$] $")

    def run(self, command: str, *, timeout_s: float = ANSWER_TIMEOUT_S) -> str:
        """What a shell command prints, where somebody is logged in. Fails if the command does."""
        # The marks are broken up in what is typed, so that its echo does not look like the answer.
        self.send(f"echo '<''<'; {command}; echo '>''>'$?")
        self.expect(r"^<<\n", timeout_s)
        answer = self.expect(r"(?s)(.*?)>>(\d+)\n", timeout_s)
        assert answer[2] == "0", f"in the guest, {command!r} ended with {answer[2]}: {answer[1]}"
        return str(answer[1]).strip()

    def until(self, command: str, wanted: str, timeout_s: float = ANSWER_TIMEOUT_S) -> None:
        """Runs a command again and again until it prints that."""
        # In braces, so that a redirection inside it wins.
        whole = f"{{ {command}; }} 2>&1; true"
        eventually(lambda: self.run(whole), lambda seen: seen == wanted, timeout_s)


def eventually(
    look: Callable[[], T], fits: Callable[[T], object], timeout_s: float = ANSWER_TIMEOUT_S
) -> T:
    """What is seen as soon as it fits; fails with what was seen last."""
    deadline = time.monotonic() + timeout_s
    while not fits(seen := look()):
        assert time.monotonic() < deadline, f"after {timeout_s:g} s it still is: {seen!r}"
        time.sleep(0.2)
    return seen


def boot(cluster: Orchestrator, name: str) -> GuestConsole:
    """Starts a VM with the tiny guest and follows it to its login prompt."""
    cluster.start(name)
    console = GuestConsole(cluster, name)
    console.expect(READY)
    return console


def settings(folder: Path, hypervisor_uri: str = "qemu:///system") -> vorch.Settings:
    return vorch.Settings(
        uri=f"sqlite://{folder}/vorch.db",
        pool_path=str(folder / "disks"),
        hypervisor_uri=hypervisor_uri,
    )


@contextmanager
def embedded_cluster() -> Iterator[Orchestrator]:
    """An empty cluster on this machine's libvirt. At its end nothing of it is left, anywhere."""
    folder = Path(tempfile.mkdtemp(prefix="vorch-e2e-", dir="/var/tmp"))
    folder.chmod(0o711)
    try:
        with vorch.connect(settings=settings(folder)) as cluster:
            try:
                yield cluster
            finally:
                found, look = leaks(cluster), cluster.look()
                clear(cluster)
            found += leaks(cluster) + [one.name for one in cluster.volume_list("local")]
            assert not found, f"left behind: {found}"
        found = files_of(folder / "disks") + left_on_host(look)
        assert not found, f"left behind: {found}"
    finally:
        shutil.rmtree(folder)


def clear(cluster: Orchestrator) -> None:
    for status in cluster.list():
        cluster.delete(status.name, force=True, purge=True)
    for one in cluster.trash_list():
        cluster.trash_purge(one.key)
    for image in cluster.image_list():
        cluster.image_delete(image.name)
    for network in cluster.network_list():
        cluster.network_delete(network.name)


def files_of(pool: Path) -> list[str]:
    """What is in a pool's folder. Locks are held by the living; an empty one says nothing."""
    return [
        str(path) for path in pool.rglob("*") if path.is_file() and not path.name.endswith(".lock")
    ]


def virsh(*arguments: str) -> str:
    command = ["virsh", "-c", "qemu:///system", "-q", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def left_on_host(was: Cluster) -> list[str]:
    """What a cluster that was like that has left on the host, seen past vorch."""
    bridges = [network.bridge for network in was.networks.values() if network.kind != "bridge"]
    networks = virsh("net-list", "--all", "--name")
    found = [name for name in virsh("list", "--all", "--name").split() if name in was.vms]
    found += [bridge for bridge in bridges if bridge in networks]
    found += [bridge for bridge in bridges if Path("/sys/class/net", bridge).exists()]
    vms = [*was.vms.values(), *(one.vm for one in was.trash.values() if one.vm)]
    return found + [path for vm in vms for path in kept_of(vm.id)]


def kept_of(vm_id: str) -> list[str]:
    """What the host keeps of a VM beside its disks."""
    places = (NVRAM_FOLDER / f"{vm_id}_VARS.fd", TPM_FOLDER / vm_id)
    return [str(path) for path in places if path.exists()]
