"""Consoles by websockets: tickets, abuse, slow viewers, moves, and the remote library."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as dial

import vorch_api.bridge
from tests.api.serving import cluster_in, served
from tests.rfb import Viewer
from vorch import (
    Conflict,
    Console,
    Denied,
    Invalid,
    NotFound,
    Orchestrator,
    TooMany,
    Unreachable,
    connect,
)
from vorch.drivers.memory_screen import STRIPES
from vorch.ports import Change
from vorch_api import Service
from vorch_cli.main import main

PATIENCE_S = 10.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[Orchestrator]:
    with cluster_in("api-consoles") as found:
        for name in ("web", "db"):
            found.create(name, disk_gib=1, networks=(), tags=(f"owner:{name}",), start=True)
            found.user_add(name, password="a long enough phrase")
        yield found


@pytest.fixture(scope="module")
def service(cluster: Orchestrator) -> Iterator[Service]:
    with served(cluster) as found:
        yield found


@pytest.fixture
def far(service: Service) -> Iterator[Orchestrator]:
    with connect(service.address, token=service.token) as found:
        yield found


def opened(
    service: Service,
    *protocols: str,
    origin: str | None = None,
) -> ClientConnection:
    headers = {} if origin is None else {"Origin": origin}
    dialled = dial(
        service.address.replace("http", "ws") + "/v1/console",
        subprotocols=["vorch.console", *protocols],  # type: ignore[list-item]
        additional_headers=headers,
        compression=None,
        proxy=None,
        close_timeout=1,
    )
    return contextlib.ExitStack().enter_context(dialled)


def by_ticket(
    service: Service, far: Orchestrator, name: str = "web", **words: object
) -> ClientConnection:
    ticket = far.console_ticket(name, **words)  # type: ignore[arg-type]
    return opened(service, f"vorch.ticket.{ticket.secret}")


def heard(there: ClientConnection, what: bytes) -> bytes:
    end, told = time.monotonic() + PATIENCE_S, b""
    while what not in told:
        assert time.monotonic() < end, told
        with contextlib.suppress(TimeoutError):
            data = there.recv(0.5)
            assert isinstance(data, bytes)
            told += data
    return told


def ended(there: ClientConnection) -> tuple[int, str]:
    """How the service has closed it."""
    try:
        while True:
            there.recv(PATIENCE_S)
    except ConnectionClosed as exc:
        return (0, "") if exc.rcvd is None else (exc.rcvd.code, exc.rcvd.reason)


def refused(act: Callable[[], object]) -> tuple[int, str]:
    with pytest.raises(InvalidStatus) as caught:
        act()
    answer = caught.value.response
    return answer.status_code, json.loads(answer.body or b"{}").get("code", "")


def until(what: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def said_by_the_service(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What it had to log; the client of these tests has a log as well."""
    return [one.getMessage() for one in caplog.records if one.name != "websockets.client"]


# -- what works


def test_a_serial_port(service: Service, far: Orchestrator) -> None:
    with by_ticket(service, far) as there:
        assert there.subprotocol == "vorch.console"
        heard(there, b"web login: ")
        there.send(b"alice")
        heard(there, b"alice")
        there.send("text, too\r")
        heard(there, b"text, too")


def test_a_screen_by_the_library(far: Orchestrator) -> None:
    screen = far.display("web")
    picture = Viewer(screen).picture()
    assert [picture[x, 50] for x in (20, 60, 100, 140)] == list(STRIPES)
    screen.close()
    with pytest.raises(Unreachable):
        screen.read(0.1)


def test_a_console_by_the_library_and_the_command_line(
    service: Service,
    far: Orchestrator,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    console = far.console("web")
    console.write(b"x")
    read_until(console, b"x")
    console.close()
    console.close()
    monkeypatch.setenv("VORCH_TOKEN", service.token)
    reading, writing = os.pipe()
    os.write(writing, b"hello there\r")
    os.close(writing)
    monkeypatch.setattr("sys.stdin", os.fdopen(reading))
    before = os.dup(0)
    os.dup2(reading, 0)
    try:
        assert main(["--uri", service.address, "console", "web", "--for", "1"]) in (0, None)
    finally:
        os.dup2(before, 0)
        os.close(before)
    assert "hello there" in capfd.readouterr().out


def read_until(console: Console, what: bytes) -> None:
    end, told = time.monotonic() + PATIENCE_S, b""
    while what not in told:
        assert time.monotonic() < end, told
        told += console.read(0.5)


def test_a_login_by_the_page_opens_one(service: Service) -> None:
    with httpx.Client(base_url=service.address, timeout=30) as page:
        words = {"user": "web", "password": "a long enough phrase"}
        csrf = page.post("/v1/login", json=words).json()["csrf"]
        made = page.post("/v1/vms/web/console-ticket", json={}, headers={"X-CSRF-Token": csrf})
        assert made.status_code == 200
        assert set(made.json()) == {"vm", "kind", "expires_at", "secret"}
        protocol = f"vorch.ticket.{made.json()['secret']}"
        for origin in ("http://evil.example", "null", ""):
            come = functools.partial(opened, service, protocol, origin=origin)
            assert refused(come) == (403, "denied")
        with opened(service, protocol, origin=service.address) as there:
            heard(there, b"web login: ")


def test_a_console_ends_when_its_login_does(
    service: Service, cluster: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vorch_api.bridge, "LOOK_S", 0.1)
    made = cluster.token_create("db")
    with connect(service.address, token=made.secret) as mine:
        secret = mine.console_ticket("db").secret
        late = mine.console_ticket("db").secret
    with opened(service, f"vorch.ticket.{secret}") as there:
        heard(there, b"db login: ")
        cluster.token_revoke(made.token.id)
        assert ended(there)[0] == 4401
    # Nor does a ticket outlive what it was made by.
    assert refused(lambda: opened(service, f"vorch.ticket.{late}")) == (403, "denied")


# -- moves


def test_a_serial_port_is_followed_and_a_screen_is_opened_again(
    service: Service, far: Orchestrator, cluster: Orchestrator
) -> None:
    home = cluster.show("web").vm.node
    away = "h2" if home == "h1" else "h1"
    with by_ticket(service, far) as serial, by_ticket(service, far, kind="display") as screen:
        heard(serial, b"web login: ")
        heard(screen, b"RFB")
        cluster.migrate("web", away)
        # The same connection goes on.
        heard(serial, b"web login: ")
        serial.send(b"still here")
        heard(serial, b"still here")
        assert ended(screen)[0] == 4410
        with by_ticket(service, far, kind="display") as again:
            heard(again, b"RFB")
        cluster.migrate("web", home)
        serial.send(b"back again")
        heard(serial, b"back again")


def test_it_ends_with_its_vm(service: Service, far: Orchestrator, cluster: Orchestrator) -> None:
    with by_ticket(service, far, "db") as there:
        heard(there, b"db login: ")
        cluster.stop("db", force=True)
        assert ended(there)[0] == 4410
    with pytest.raises(Conflict, match="is off"):
        far.console_ticket("db")
    cluster.start("db")


def test_one_s_at_a_time_and_how_to_take_it(service: Service, far: Orchestrator) -> None:
    with by_ticket(service, far) as first:
        heard(first, b"web login: ")
        with by_ticket(service, far) as second:
            code, why = ended(second)
            assert (code, why.startswith("conflict: ")) == (4423, True)
        with by_ticket(service, far, force=True) as third:
            heard(third, b"web login: ")
            assert ended(first)[0] == 4423
    console = far.console("web", force=True)
    other = far.console("web", force=True)
    with pytest.raises(Unreachable) as caught:
        read_until(console, b"never")
    assert caught.value.fields["taken"]
    other.close()


# -- abuse


def test_without_a_ticket_or_with_a_wrong_one(service: Service) -> None:
    assert refused(lambda: opened(service)) == (403, "denied")
    for secret in ("", ".", "x" * 5000, "abcdefabcdef.", "abcdefabcdef." + "0" * 64):
        assert refused(lambda secret=secret: opened(service, f"vorch.ticket.{secret}")) == (  # type: ignore[misc]
            403,
            "denied",
        )
    # Of other paths a stranger learns nothing.
    with pytest.raises(InvalidStatus):
        dial(service.address.replace("http", "ws") + "/v1/events", proxy=None).__enter__()


def test_a_ticket_is_used_up(service: Service, far: Orchestrator, cluster: Orchestrator) -> None:
    protocol = f"vorch.ticket.{far.console_ticket('web').secret}"
    with opened(service, protocol) as there:
        heard(there, b"login: ")
        assert refused(lambda: opened(service, protocol)) == (403, "denied")
    assert not cluster.world.state.read(["ticket"])
    # Any other service before the same state takes one, and uses it up for all.
    protocol = f"vorch.ticket.{far.console_ticket('web').secret}"
    with served(cluster) as other:
        with opened(other, protocol) as there:
            heard(there, b"login: ")
        for one in (service, other):
            assert refused(functools.partial(opened, one, protocol)) == (403, "denied")
    # Of many who come with it at once one comes in.
    secret = far.console_ticket("web").secret
    came: list[int] = []

    def come() -> None:
        try:
            with opened(service, f"vorch.ticket.{secret}"):
                came.append(101)
        except InvalidStatus as exc:
            came.append(exc.response.status_code)

    threads = [threading.Thread(target=come) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert sorted(came) == [101] + [403] * 7


def test_a_ticket_is_over_after_a_minute(
    service: Service, far: Orchestrator, cluster: Orchestrator
) -> None:
    ticket = far.console_ticket("web")
    assert 55 < ticket.expires_at - cluster.now() <= 60
    (document,) = cluster.world.state.read(["ticket"]).values()
    assert ticket.secret.partition(".")[2] not in json.dumps(document.body)
    late = {**document.body, "expires_at": cluster.now() - 1}
    cluster.world.state.commit([Change(document.key, document.version, late)])
    protocol = f"vorch.ticket.{ticket.secret}"
    assert refused(lambda: opened(service, protocol)) == (403, "denied")
    # Those that are over are cleared away.
    far.console_ticket("web")
    assert document.key not in cluster.world.state.read(["ticket"])


def test_only_one_s_own(service: Service, far: Orchestrator, cluster: Orchestrator) -> None:
    mine = cluster.token_create("web").secret
    with connect(service.address, token=mine) as web:
        with pytest.raises(NotFound):
            web.console_ticket("db")
        with pytest.raises(NotFound):
            web.console("db")
        with pytest.raises(Invalid):
            web.console_ticket("web", kind="keyboard")  # type: ignore[arg-type]
        web.console("web", force=True).close()
        # What is no longer one's own when it comes to it.
        secret = web.console_ticket("web").secret
    cluster.user_change("web", scopes=["owner:nobody"])
    with opened(service, f"vorch.ticket.{secret}") as there:
        assert ended(there)[0] == 4404
    cluster.user_change("web", scopes=["owner:web"])
    cluster.user_add("looks", role="viewer")
    theirs = cluster.token_create("looks").secret
    with connect(service.address, token=theirs) as viewer, pytest.raises(Denied):
        viewer.console_ticket("web")
    log = cluster.audit_list(limit=1000)
    told = {(one.who, one.verb, one.subject, one.result) for one in log}
    assert {
        ("web", "console ticket", "db", "refused"),
        ("web", "console ticket", "web", "done"),
        ("web", "console", "web", "done"),
        ("looks", "console ticket", "web", "refused"),
    } <= told


def test_unused_tickets_are_few(
    far: Orchestrator, cluster: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vorch.orchestrator.consoles.TICKETS_MOST", 3)
    waiting = [*cluster.world.state.read(["ticket"])]
    cluster.world.state.commit([Change(key, None, None) for key in waiting])
    for _ in range(3):
        far.console_ticket("web")
    with pytest.raises(TooMany):
        far.console_ticket("web")
    cluster.world.state.commit(
        [Change(key, None, None) for key in cluster.world.state.read(["ticket"])]
    )


def test_consoles_of_one_user_are_few(
    service: Service, far: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service._app.state.bridges, "_most", 2)
    screens = [by_ticket(service, far, kind="display") for _ in range(2)]
    with by_ticket(service, far) as there:
        code, why = ended(there)
        assert (code, why.startswith("too-many: ")) == (4429, True)
    for one in screens:
        one.close()
    until(lambda: not service._app.state.bridges._of)


def test_huge_messages_are_refused(
    service: Service, far: Orchestrator, caplog: pytest.LogCaptureFixture
) -> None:
    with by_ticket(service, far, kind="display") as there:
        heard(there, b"RFB")
        with contextlib.suppress(ConnectionClosed):
            there.send(b"x" * (1 << 20))
        assert ended(there)[0] in (0, 1009)
    with by_ticket(service, far, kind="display") as there:
        heard(there, b"RFB")
        # Not all at once, and never to its end.
        with contextlib.suppress(ConnectionClosed):
            there.send([b"x" * 65536] * 64)
        assert ended(there)[0] in (0, 1009)
    assert not said_by_the_service(caplog)


def test_what_is_no_websocket_or_no_rfb(
    service: Service, far: Orchestrator, caplog: pytest.LogCaptureFixture
) -> None:
    with by_ticket(service, far, kind="display") as there:
        there.send(b"GET / HTTP/1.1\r\n\r\n")
        assert ended(there)[0] == 4410
    # Bytes that are no frames.
    with by_ticket(service, far, kind="display") as there:
        heard(there, b"RFB")
        there.socket.sendall(b"\xff" * 100)
        assert ended(there)[0] in (0, 1002)
    assert httpx.get(f"{service.address}/v1/console").status_code == 401
    allowed = {"Authorization": f"Bearer {service.token}"}
    assert httpx.get(f"{service.address}/v1/console", headers=allowed).status_code == 404
    assert not said_by_the_service(caplog)


def test_a_cut_connection_is_let_go(
    service: Service, far: Orchestrator, caplog: pytest.LogCaptureFixture
) -> None:
    bridges = service._app.state.bridges
    there = by_ticket(service, far)
    heard(there, b"login: ")
    assert len(bridges._open) == 1
    there.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    there.socket.close()
    until(lambda: not bridges._open and not bridges._of)
    # And the next one has it.
    with by_ticket(service, far) as again:
        heard(again, b"login: ")
    assert not said_by_the_service(caplog)


def test_a_slow_reader_holds_the_guest_back_and_is_cut_off(
    service: Service, far: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vorch_api.bridge, "SLOW_S", 1.0)
    taken = [0]

    class Flood:
        """A guest that says as much as anybody takes."""

        def read(self, timeout_s: float) -> bytes:
            taken[0] += 1 << 20
            return bytes(1 << 20)

        def write(self, data: bytes) -> None: ...

        def close(self) -> None: ...

    monkeypatch.setattr("vorch_api.routes.consoles._opened", lambda behalf, ticket: Flood())
    there = by_ticket(service, far)
    bridges = service._app.state.bridges
    until(lambda: bridges._open)
    # The client's own library reads a few messages ahead, and the kernels have some.
    until(lambda: not bridges._open)
    assert taken[0] < 64 << 20
    there.close()


def test_a_console_in_which_nothing_happens_is_closed(
    service: Service, far: Orchestrator, cluster: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vorch_api.bridge, "LOOK_S", 0.1)
    settings = dataclasses.replace(cluster.settings, console_idle_s=0.5)
    monkeypatch.setattr(cluster, "settings", settings)
    with by_ticket(service, far) as there:
        heard(there, b"login: ")
        assert ended(there)[0] == 4408


def test_a_service_that_ends_says_so_and_the_next_one_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("vorch_api.service.token_of", lambda file: "t" * 43)
    with cluster_in("api-consoles-ends") as cluster:
        cluster.create("web", disk_gib=1, networks=(), start=True)
        with served(cluster) as first:
            port = int(first.address.rpartition(":")[2])
            far = connect(first.address, token=first.token)
            watched = by_ticket(first, far, kind="display")
            heard(watched, b"RFB")
            console = far.console("web")
            read_until(console, b"login: ")
        assert ended(watched)[0] == 1012
        with served(cluster, port):
            console.write(b"and on")
            read_until(console, b"and on")
            console.close()
        far.close()
