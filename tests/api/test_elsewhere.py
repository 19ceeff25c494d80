"""Nobody but an admin has the service fetch something of its own machine and what is near it."""

from __future__ import annotations

import http.server
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from vorch import Denied, Doorkeeper, OnBehalf, Orchestrator, Principal, Role, VorchError, connect
from vorch.decide.elsewhere import is_near
from vorch.drivers import memory
from vorch.drivers.fetch import origin


@pytest.mark.parametrize(
    ("address", "near"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("0.0.0.0", True),
        ("::", True),
        ("169.254.169.254", True),
        ("fe80::1%eth0", True),
        ("224.0.0.1", True),
        ("10.0.0.1", False),
        ("192.168.1.1", False),
        ("93.184.216.34", False),
        ("2001:db8::1", False),
        ("no address", False),
    ],
)
def test_which_are_near(address: str, near: bool) -> None:
    assert is_near(address) is near


@pytest.fixture
def cluster() -> Iterator[Orchestrator]:
    with connect("memory:elsewhere") as found:
        yield found
    memory.forget("elsewhere")


def asked(cluster: Orchestrator, role: Role, location: str) -> VorchError | None:
    who = Principal(name="olga", role=role, source="192.0.2.1", scopes=("*",))
    behalf = OnBehalf(cluster, who, Doorkeeper(cluster))
    try:
        behalf.permit("image_import", {"name": "x", "location": location})
    except VorchError as exc:
        return exc
    return None


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.1:9/x",
        "http://localhost/x",
        "HTTP://[::1]:8420/v1/users",
        "http://2130706433/",
        "http://0/",
        "http://169.254.169.254/latest/meta-data",
    ],
)
def test_an_operator_fetches_nothing_of_the_machine(cluster: Orchestrator, location: str) -> None:
    assert isinstance(asked(cluster, Role.OPERATOR, location), Denied)
    assert asked(cluster, Role.ADMIN, location) is None
    assert [one.code for one in cluster.audit_list(result="refused")] == ["denied"]


def test_what_is_elsewhere_is_fetched(
    cluster: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    known: dict[str, str] = {"images.example": "10.1.2.3", "sly.example": "127.0.0.1"}

    def look_up(host: str, *_: Any, **__: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (known[host], 0))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    assert asked(cluster, Role.OPERATOR, "https://images.example/x.qcow2") is None
    assert isinstance(asked(cluster, Role.OPERATOR, "https://sly.example/x.qcow2"), Denied)


def test_no_server_sends_us_on_to_the_machine_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    class Sly(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(302)
            self.send_header("Location", "http://127.0.0.2:9/secret")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Tests are quiet."""

    monkeypatch.setattr("vorch.drivers.fetch.is_near", lambda address: address == "127.0.0.2")
    server = http.server.HTTPServer(("127.0.0.1", 0), Sly)
    threading.Thread(target=server.handle_request, daemon=True).start()
    try:
        with (
            pytest.raises(Denied, match="sends us on"),
            origin(f"http://127.0.0.1:{server.server_port}/x"),
        ):
            pass
    finally:
        server.server_close()
