"""`vorch serve` as a process: what it prints, where it listens, how it ends."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from vorch import Denied, Invalid, Settings, StepFailed, Unreachable, connect
from vorch_api import Service, Vigil

VORCH = (sys.executable, "-c", "import sys; from vorch_cli.main import main; sys.exit(main())")


@contextmanager
def serving(*words: str) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """(the process, its address, its token)"""
    program = subprocess.Popen(
        [*VORCH, "--uri", "memory:", "serve", "--port", "0", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert program.stdout is not None
    try:
        said = ""
        while "image debian\n" not in said:
            line = program.stdout.readline()
            assert line, program.communicate()
            said += line
        address, token = re.search(r"(http://\S+) ", said), re.search(r"Token: (\S+)", said)
        assert address is not None
        assert token is not None
        assert said.count("\n  ") == 4
        yield program, address[1], token[1]
    finally:
        program.kill()
        program.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_until_it_is_ended(number: int) -> None:
    with serving() as (program, address, token):
        assert address.startswith("http://127.0.0.1:")
        assert httpx.get(f"{address}/health").json()["status"] == "ok"
        assert httpx.get(f"{address}/v1/vms").status_code == 401
        headers = {"Authorization": f"Bearer {token}"}
        assert httpx.get(f"{address}/v1/vms", headers=headers).json() == []
        program.send_signal(number)
        out, err = program.communicate(timeout=20)
        assert program.returncode == 0, err
        assert "Traceback" not in err
        assert token not in out + err


def test_an_open_connection_does_not_hold_it_up() -> None:
    with serving() as (program, address, _):
        port = int(address.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)):
            program.send_signal(signal.SIGTERM)
            program.communicate(timeout=20)
            assert program.returncode == 0


def test_it_says_that_nothing_is_watched_over_and_why() -> None:
    with serving() as (program, _, _):
        program.send_signal(signal.SIGTERM)
        _, err = program.communicate(timeout=20)
        assert "no VM is watched over here: its state is on this machine alone" in err
    with serving("--no-watch") as (program, _, _):
        program.send_signal(signal.SIGTERM)
        assert "watched" not in program.communicate(timeout=20)[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--watch-only",), "vorch: unsupported: cannot watch over 'memory:'"),
        (("--watch-only", "--no-watch"), "vorch: invalid: cannot serve with --no-watch and"),
    ],
)
def test_it_does_not_watch_where_that_is_of_no_use(words: tuple[str, ...], said: str) -> None:
    done = subprocess.run(
        [*VORCH, "--uri", "memory:", "serve", *words], capture_output=True, text=True, timeout=60
    )
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1].startswith(said)


def test_a_crash_of_the_watch_is_the_end_of_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    def step(self: object) -> None:
        raise ZeroDivisionError("a mistake")

    monkeypatch.setattr("vorch.watch.Watch.step", step)
    with connect("memory:") as cluster:
        service = Service(cluster, port=0, watch=lambda line: None)
        with pytest.raises(StepFailed, match="ZeroDivisionError: a mistake"):
            service.run()
        with pytest.raises(StepFailed, match="cannot go on watching"):
            Vigil(cluster, lambda line: None).run()


@pytest.mark.timeout(30)
def test_a_signal_that_another_thread_is_given_ends_the_watch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The kernel gives it to any, when the first has one waiting already."""
    monkeypatch.setattr("vorch.loop.WatchLoop._run", lambda loop: loop._over.wait())
    before = signal.getsignal(signal.SIGTERM)

    def kill() -> None:
        while signal.getsignal(signal.SIGTERM) is before:
            time.sleep(0.01)
        # By then the main thread waits.
        time.sleep(0.3)
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

    with connect("memory:") as cluster:
        vigil = Vigil(cluster, lambda line: None)
        threading.Thread(target=kill, daemon=True).start()
        vigil.run()
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_port_in_use_is_a_conflict() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        program = subprocess.run(
            [*VORCH, "--uri", "memory:", "serve", "--port", port],
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
    assert program.returncode == 4
    last = program.stderr.splitlines()[-1]
    assert last.startswith(f"vorch: conflict: cannot serve on '127.0.0.1', port {port}: ")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", ""])
def test_without_tls_only_this_machine_is_served(host: str) -> None:
    plain = Settings(uri="memory:", tls="off")
    with connect(settings=plain) as cluster, pytest.raises((Denied, Invalid)):
        Service(cluster, host=host, port=0)


def test_an_address_of_another_machine_is_refused() -> None:
    with connect("memory:") as cluster, pytest.raises(Unreachable, match=r"192\.0\.2\.1"):
        Service(cluster, host="192.0.2.1", port=0)


@pytest.mark.parametrize(("host", "port"), [("no such host", 0), ("a" * 300, 0), ("127.0.0.1", -1)])
def test_nonsense_is_invalid(host: str, port: int) -> None:
    with connect("memory:") as cluster, pytest.raises(Invalid):
        Service(cluster, host=host, port=port)


def test_by_name_and_by_the_other_protocol() -> None:
    with connect("memory:") as cluster:
        assert Service(cluster, host="localhost", port=0).address.startswith("http://")
        if socket.has_ipv6:
            try:
                socket.create_server(("::1", 0), family=socket.AF_INET6).close()
            except OSError:
                return
            assert Service(cluster, host="::1", port=0).address.startswith("http://[::1]:")


def test_the_token_is_kept_beside_the_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connect("memory:") as cluster:
        object.__setattr__(cluster.settings, "uri", f"sqlite://{tmp_path}/vorch.db")
        first = Service(cluster, port=0).token
        assert (tmp_path / "token").read_text() == first + "\n"
        assert Service(cluster, port=0).token == first
