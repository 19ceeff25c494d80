"""What no honest client sends: the service says no, in its own words, and goes on."""

from __future__ import annotations

import json
import re
import resource
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.api.conforming import HOME, TOKEN
from tests.api.serving import cluster_in, served
from tests.api.straight import Answer, ask
from vorch import VERBS, Orchestrator, Settings, Verb, connect
from vorch.drivers import memory
from vorch_api import Service, create_app
from vorch_api.bodies import model_of
from vorch_api.examples import EXAMPLES

AUTH = (b"authorization", b"Bearer " + TOKEN.encode())
JSON = (b"content-type", b"application/json")
NASTY: list[Any] = [
    "",
    " ",
    "a\0b",
    "../../etc/passwd",
    "..%2f..%2fetc%252fpasswd",
    "]]><!ENTITY x SYSTEM 'file:///etc/passwd'>&x;",
    "\u202e\x1b[2J\r\nSet-Cookie: a=b",
    "é" * 64,
    "a" * 70_000,
    "\ud800",
    -1,
    0,
    2**31,
    2**53,
    2**63,
    10**60,
    0.5,
    1e308,
    float("nan"),
    float("-inf"),
    True,
    None,
    [],
    {},
    [None],
    [["x"]],
    {"a": "b"},
    "web",
    "file:///etc/passwd",
    "qemu+ssh://evil/system?command=touch",
    "5",
]
# What of the inside must never be seen.
INSIDE = re.compile(r"Traceback|File \"|\.py\b|site-packages|" + TOKEN)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Orchestrator]:
    memory.forget("nasty")
    image = str(EXAMPLES["image_import"]["location"])
    memory.world_named("nasty").files.made_up[image] = bytes(1024**2)
    quick = Settings(uri="memory:nasty", password_memory_mib=1, password_rounds=1)
    with connect(settings=quick) as found:
        yield found
    memory.forget("nasty")


@pytest.fixture(scope="module")
def client(cluster: Orchestrator) -> Iterator[TestClient]:
    app = create_app(cluster, token=TOKEN, upkeep_every_s=None)
    with TestClient(app, base_url=HOME, raise_server_exceptions=False) as found:
        yield found


def sound(answer: Answer) -> bool:
    return answer.status not in (500, 502, 503, 504) and not INSIDE.search(answer.text)


@pytest.mark.parametrize(
    "entry", [one for one in VERBS.values() if one.kind != "stream"], ids=lambda one: one.verb
)
def test_each_argument_of_each_verb(client: TestClient, cluster: Orchestrator, entry: Verb) -> None:
    if not any(one.vm.name == "web" for one in cluster.list()):
        cluster.create("web", disk_gib=1, networks=())
    path = re.sub(r"\{\w+\}", "web", entry.path)
    said = {**EXAMPLES.get(entry.verb, {})}
    here = set(Path.cwd().iterdir())
    wrong = []
    for name in model_of(entry.verb).model_fields:
        for value in NASTY:
            if entry.method in ("POST", "PATCH"):
                body = json.dumps({**said, name: value}).encode()
                answer = ask(client, entry.method, path, headers=[AUTH, JSON], body=body)
            elif value is None or isinstance(value, list | dict) or value == "\ud800":
                continue
            else:
                target = f"{path}?{urlencode({**said, name: value})}"
                answer = ask(client, entry.method, target, headers=[AUTH])
            if not sound(answer):
                wrong.append((name, str(value)[:40], answer.status, answer.text[:200]))
    assert wrong == []
    assert set(Path.cwd().iterdir()) == here


@pytest.mark.parametrize("path", ["web.qcow2", "", " /srv/x", "../x", "local:x", "local:", "-"])
@pytest.mark.parametrize(
    ("verb", "name"),
    [
        ("disk_export", "path"),
        ("image_export", "path"),
        ("image_import", "location"),
        ("install", "kernel"),
        ("pool_add", "url"),
    ],
)
def test_no_path_is_where_the_service_was_started(
    client: TestClient, verb: str, name: str, path: str
) -> None:
    said = json.dumps({**EXAMPLES[verb], name: path}).encode()
    target = re.sub(r"\{\w+\}", "web", VERBS[verb].path)
    answer = ask(client, "POST", target, headers=[AUTH, JSON], body=said)
    assert answer.status == 422, answer.text
    assert "no whole path" in answer.text


@pytest.mark.parametrize(
    "entry", [one for one in VERBS.values() if one.in_path], ids=lambda one: one.verb
)
def test_each_name_in_a_path(client: TestClient, entry: Verb) -> None:
    for name in (
        "..",
        "../..",
        "..%2f..%2fetc%2fpasswd",
        "..%252f..%252fetc",
        "%00",
        "web%00",
        "%0d%0aX:%20y",
        "%ff%fe",
        "%f0%9f%98%80",
        "%",
        "%zz",
        "a" * 5000,
        quote("<x>&\"'"),
        "web/",
        "web//",
        "*",
    ):
        target = entry.path.replace(f"{{{entry.in_path}}}", name)
        answer = ask(client, entry.method, target, headers=[AUTH, JSON], body=b"")
        assert sound(answer), (target, answer.status, answer.text[:300])
        # Whatever was asked for was not there, or made no sense.
        if entry.verb not in ("create", "user_add"):
            assert answer.status >= 400 or answer.status == 204, (target, answer.text[:200])


@given(
    headers=st.lists(
        st.tuples(
            st.sampled_from(
                [
                    b"if-match",
                    b"idempotency-key",
                    b"prefer",
                    b"last-event-id",
                    b"range",
                    b"if-range",
                    b"content-type",
                    b"content-length",
                    b"transfer-encoding",
                    b"host",
                    b"origin",
                    b"cookie",
                    b"x-forwarded-for",
                    b"x-forwarded-proto",
                    b"x-forwarded-host",
                    b"forwarded",
                    b"upload-offset",
                    b"upload-length",
                    b"upload-metadata",
                    b"upload-checksum",
                    b"tus-resumable",
                    b"expect",
                ]
            ),
            st.one_of(
                st.binary(max_size=30),
                st.sampled_from(
                    [
                        b"1.0.0",
                        b"bytes=0-",
                        b"bytes=-0",
                        b"bytes=5-1,9-",
                        b"bytes=0-99999999999999999999",
                        b"9" * 5000,
                        b"0" * 5000 + b"1",
                        b'"1"',
                        b'W/"1"',
                        b'"' + b"9" * 30 + b'"',
                        b"\xb2",
                        b"wait=99999999",
                        b"a" * 60_000,
                        b"sha256 " + b"A" * 44,
                        b"filename Li4vLi4vZXRj,sha256 eA==",
                    ]
                ),
            ),
        ),
        max_size=4,
    ),
    route=st.sampled_from(
        [
            ("GET", "/v1/vms"),
            ("GET", "/v1/vms/web"),
            ("PATCH", "/v1/vms/web"),
            ("DELETE", "/v1/vms/nosuch"),
            ("POST", "/v1/balance"),
            ("GET", "/v1/events"),
            ("GET", "/v1/images/nosuch/content"),
            ("POST", "/v1/uploads"),
            ("PATCH", "/v1/uploads/" + "0" * 32),
            ("POST", "/v1/login"),
            ("GET", "/v1/tasks/nosuch/watch"),
        ]
    ),
    body=st.one_of(
        st.just(b""),
        st.binary(max_size=60),
        st.sampled_from(
            [b"{}", b"[" * 20_000, b'{"a":' * 20_000, b'{"dry_run": true}', b"\xff\xfe{", b"null"]
        ),
    ),
)
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_each_header(
    client: TestClient, headers: list[tuple[bytes, bytes]], route: tuple[str, str], body: bytes
) -> None:
    answer = ask(client, *route, headers=[AUTH, *headers], body=body)
    assert sound(answer), (answer.status, answer.text[:300])


@given(st.lists(st.sampled_from(["kind=", "kind=vm,,task", "since=", "since=0", "since=-1"])))
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
def test_each_word_to_the_stream(client: TestClient, words: list[str]) -> None:
    assert sound(ask(client, "GET", "/v1/events?" + "&".join(words), headers=[AUTH]))


def test_a_strangers_login_is_not_read_without_end(client: TestClient) -> None:
    taken = 0

    def parts() -> Iterator[bytes]:
        nonlocal taken
        for _ in range(4096):
            taken += 1
            yield b"x" * 65536

    answer = ask(client, "POST", "/v1/login", headers=[JSON], body=parts())
    assert answer.status == 413
    assert taken < 64
    assert answer.kind == "application/problem+json"


def test_a_stranger_in_great_haste_takes_no_great_memory(cluster: Orchestrator) -> None:
    """A hash takes much memory by design: only some are made at the same time."""
    from vorch import Doorkeeper
    from vorch.orchestrator.doorkeeper import AT_ONCE

    keeper, busy, most, lock = Doorkeeper(cluster), 0, 0, threading.Lock()

    class Slow:
        def hash(self, password: str) -> str:
            return "x"

        def outdated(self, hashed: str) -> bool:
            return False

        def matches(self, hashed: str, password: str) -> bool:
            nonlocal busy, most
            with lock:
                busy += 1
                most = max(most, busy)
            time.sleep(0.02)
            with lock:
                busy -= 1
            return False

    keeper._passwords = Slow()

    def come(number: int) -> None:
        with pytest.raises(Exception, match="cannot log in"):
            keeper.log_in(f"u{number}", "x" * 12, f"192.0.2.{number}")

    threads = [threading.Thread(target=come, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 1 <= most <= AT_ONCE


def test_an_ipv6_network_is_one_address_to_the_lockout(cluster: Orchestrator) -> None:
    from vorch import Doorkeeper, TooMany

    keeper = Doorkeeper(cluster)
    for number in range(cluster.settings.login_tries_per_minute):
        keeper.check_pace(f"2001:db8:1:2::{number:x}")
    with pytest.raises(TooMany):
        keeper.check_pace("2001:db8:1:2:ffff::1")
    keeper.check_pace("2001:db8:1:3::1")


# ---------------------------------------------------------------------------------------------
# Over a real socket


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with cluster_in("nasty-socket") as cluster, served(cluster) as found:
        yield found


def port_of(service: Service) -> int:
    return int(service.address.rpartition(":")[2])


def raw(service: Service, data: bytes, *, wait_s: float = 5.0) -> bytes:
    """All that is answered until it is closed, or nothing more comes."""
    with socket.create_connection(("127.0.0.1", port_of(service)), timeout=wait_s) as link:
        link.sendall(data)
        found = b""
        try:
            while part := link.recv(65536):
                found += part
        except OSError:
            # Nothing more comes, or it was cut off with what it had not read.
            pass
    return found


def of(service: Service, *lines: bytes, body: bytes = b"") -> bytes:
    auth = b"Authorization: Bearer " + service.token.encode()
    return b"\r\n".join([*lines, auth, b"", b""]) + body


CLOSE = b"Connection: close"


@pytest.mark.parametrize(
    "lines",
    [
        [b"Content-Length: 4", b"Content-Length: 40"],
        [b"Content-Length: 4", b"Transfer-Encoding: chunked"],
        [b"Transfer-Encoding: chunked, identity"],
        [b"Transfer-Encoding: \x0bchunked"],
        [b"Content-Length: -1"],
        [b"Content-Length: 99999999999999999999999"],
        [b"Content-Length : 4"],
        [b"X: a\x00b"],
    ],
    ids=lambda lines: lines[0][:24].decode("latin-1"),
)
def test_what_two_servers_could_read_otherwise(service: Service, lines: list[bytes]) -> None:
    hidden = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
    request = of(
        service, b"POST /v1/balance HTTP/1.1", b"Host: x", *lines, body=b"0\r\n\r\n" + hidden
    )
    answer = raw(service, request, wait_s=3.0)
    # Never two answers, that is: never is a part of it taken for a request of its own.
    assert answer.count(b"HTTP/1.1 ") == 1, answer[:600]
    assert b"Traceback" not in answer
    assert answer.split()[1] in (b"400", b"422", b"431"), answer[:100]


@pytest.mark.parametrize(
    "line", [b"X" * 70_000 + b": y", b"Cookie: " + b"a=b; " * 20_000, b"X: " + b"y" * 10**6]
)
def test_long_headers(service: Service, line: bytes) -> None:
    answer = raw(service, of(service, b"GET /v1/self HTTP/1.1", b"Host: x", line, CLOSE))
    # Cut off, refused or passed over, as it comes in one piece or in many.
    assert answer == b"" or answer.split()[1] in (b"200", b"400", b"431"), answer[:100]
    assert answer.count(b"HTTP/1.1 ") <= 1


def test_it_goes_on_after_all_that(service: Service) -> None:
    answer = raw(service, of(service, b"GET /v1/vms HTTP/1.1", b"Host: x", CLOSE))
    assert answer.startswith(b"HTTP/1.1 200"), answer[:200]


def test_who_forwards_what(service: Service) -> None:
    """A host or address that is only said is believed by nothing that matters."""
    for line in (b"X-Forwarded-Host: evil.example", b"X-Forwarded-For: 10.0.0.1, evil\x7f"):
        lines = [b"GET /v1/self HTTP/1.1", b"Host: evil.example", line, CLOSE]
        answer = raw(service, of(service, *lines))
        assert answer.startswith(b"HTTP/1.1 200"), answer[:300]
        assert b"evil" not in answer


def test_a_body_that_never_ends_holds_nobody_up(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vorch_api.bodies.SILENT_S", 0.3)
    lines = [b"POST /v1/balance HTTP/1.1", b"Host: x", b"Content-Length: 100"]
    began = time.monotonic()
    answer = raw(service, of(service, *lines, body=b"{"), wait_s=10)
    assert b" 504 " in answer.partition(b"\r\n")[0], answer[:200]
    assert time.monotonic() - began < 8


def test_large_bodies_are_refused_while_they_come(service: Service) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    piece = b"x" * 65536
    with socket.create_connection(("127.0.0.1", port_of(service)), timeout=10) as link:
        lines = [b"POST /v1/vms HTTP/1.1", b"Host: x", b"Transfer-Encoding: chunked"]
        link.sendall(of(service, *lines))
        sent = 0
        try:
            for _ in range(4096):
                link.sendall(b"10000\r\n" + piece + b"\r\n")
                sent += len(piece)
        except OSError:
            pass
    assert sent < 64 * 1024**2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 128 * 1024


def test_streams_that_are_left_leave_nothing(service: Service) -> None:
    hub: Any = service._app.state.hub
    links = []
    for number in range(60):
        link = socket.create_connection(("127.0.0.1", port_of(service)), timeout=10)
        link.sendall(of(service, b"GET /v1/events HTTP/1.1", b"Host: x"))
        if number % 2:
            assert link.recv(12) == b"HTTP/1.1 200"
        links.append(link)
    for link in links:
        link.close()
    until = time.monotonic() + 20
    while hub._listeners and time.monotonic() < until:
        time.sleep(0.05)
    assert not hub._listeners
