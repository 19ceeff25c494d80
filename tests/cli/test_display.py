"""`vorch display`: a viewer on this machine comes to a VM's screen by a socket or a port."""

from __future__ import annotations

import socket
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.api.serving import cluster_in
from tests.rfb import Viewer
from vorch import Conflict, Console, Orchestrator, Unreachable
from vorch.drivers.memory_screen import STRIPES
from vorch_cli.display import Listener


class Wire:
    """What a viewer has: one end of a socket, as a `Console`."""

    def __init__(self, connected: socket.socket) -> None:
        self._connected = connected

    def read(self, timeout_s: float) -> bytes:
        self._connected.settimeout(timeout_s)
        try:
            data = self._connected.recv(65536)
        except TimeoutError:
            return b""
        if not data:
            raise Unreachable("cannot go on: it has ended; connect again")
        return data

    def write(self, data: bytes) -> None:
        self._connected.sendall(data)

    def close(self) -> None:
        self._connected.close()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Orchestrator]:
    with cluster_in("cli-display") as found:
        found.create("web", disk_gib=1, networks=(), start=True)
        yield found


@contextmanager
def listening(cluster: Orchestrator, port: int | None) -> Iterator[Listener]:
    with Listener(lambda: cluster.display("web"), port) as found:
        serving = threading.Thread(target=lambda: found.serve(limit_s=10), daemon=True)
        serving.start()
        yield found


def see(connected: socket.socket) -> None:
    with connected:
        picture = Viewer(Wire(connected)).picture()
        assert [picture[x, 50] for x in (20, 60, 100, 140)] == list(STRIPES)


def test_by_a_socket_that_is_this_user_s_alone(cluster: Orchestrator) -> None:
    with listening(cluster, None) as listener:
        folder = Path(listener.address).parent
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        for _ in range(2):
            there = socket.socket(socket.AF_UNIX)
            there.connect(listener.address)
            see(there)
    assert not folder.exists()


def test_by_a_port_of_this_machine(cluster: Orchestrator) -> None:
    with listening(cluster, 0) as listener:
        port = int(listener.address.rpartition(":")[2])
        see(socket.create_connection(("127.0.0.1", port)))
        with pytest.raises(Unreachable, match="--port"):
            Listener(lambda: cluster.display("web"), port)


def test_a_viewer_that_cannot_be_served_is_let_go(capsys: pytest.CaptureFixture[str]) -> None:
    def taken() -> Console:
        raise Conflict("cannot open the screen of VM 'web': somebody else has it")

    with Listener(taken, 0) as listener:
        threading.Thread(target=lambda: listener.serve(limit_s=5), daemon=True).start()
        port = int(listener.address.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as there:
            assert there.recv(10) == b""
    assert "vorch: conflict: cannot open the screen" in capsys.readouterr().err
