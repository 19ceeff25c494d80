"""The way to a service: certificates, answers that are lost, and whoever else may answer."""

from __future__ import annotations

import http.server
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from vorch import BadConfig, Conflict, Denied, Unreachable, connect
from vorch.config import Settings

TOKEN = "t" * 43


class Other:
    """Something that answers as it is told to, and remembers what it was asked."""

    def __init__(self, *answers: tuple[int, str, bytes] | None) -> None:
        # None: the connection is closed without an answer.
        self.answers = list(answers)
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        other = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _any(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                body = self.rfile.read(length)
                other.asked.append((self.command, self.path, dict(self.headers.items()), body))
                answer = other.answers.pop(0)
                if answer is None:
                    self.close_connection = True
                    return
                status, kind, body = answer
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PATCH = do_DELETE = _any  # noqa: N815 - names of the library

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.handler = Handler

    @contextmanager
    def listening(self, context: ssl.SSLContext | None = None) -> Iterator[str]:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self.handler)
        server.daemon_threads = True
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        scheme = "http" if context is None else "https"
        try:
            yield f"{scheme}://localhost:{server.server_address[1]}"
        finally:
            server.shutdown()
            server.server_close()


JSON = "application/json"
NOTHING = (200, JSON, b"[]")


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VORCH_TOKEN", "VORCH_CA", "VORCH_CONFIG"):
        monkeypatch.delenv(name, raising=False)


def test_what_was_asked_for_is_asked_for_again_under_the_same_key() -> None:
    refused = json.dumps({"code": "conflict", "detail": "cannot: no; wait", "fields": {}}).encode()
    other = Other(None, None, (409, "application/problem+json", refused))
    with other.listening() as address, pytest.raises(Conflict, match="cannot: no; wait"):
        connect(address, token=TOKEN).start("web")
    keys = [headers["Idempotency-Key"] for _, _, headers, _ in other.asked]
    assert len(keys) == 3
    assert len(set(keys)) == 1
    assert {(method, path) for method, path, _, _ in other.asked} == {("POST", "/v1/vms/web/start")}


def test_it_is_not_asked_for_ever() -> None:
    other = Other(*[None] * 9)
    with other.listening() as address, pytest.raises(Unreachable, match="cannot reach"):
        connect(address, token=TOKEN).list()
    assert len(other.asked) == 3


@pytest.mark.parametrize(
    "answer",
    [
        (502, "text/html", b"<h1>Bad Gateway</h1>"),
        (500, JSON, b"[]"),
        (403, JSON, b'{"code": 1}'),
    ],
)
def test_what_stands_between_is_not_taken_for_the_service(answer: tuple[int, str, bytes]) -> None:
    with Other(answer).listening() as address, pytest.raises(Unreachable, match="not as vorch"):
        connect(address, token=TOKEN).list()


def test_the_path_of_a_service_behind_a_proxy() -> None:
    other = Other(NOTHING, NOTHING)
    with other.listening() as address, connect(f"{address}/house/", token=TOKEN) as far:
        assert far.list() == ()
        assert far.disk_list("a/..?b") == ()
    assert [path for _, path, _, _ in other.asked] == [
        "/house/v1/vms",
        "/house/v1/vms/a%2F%2E%2E%3Fb/disk-list",
    ]


def test_only_a_certificate_that_is_trusted_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trustme = pytest.importorskip("trustme", reason="trustme comes with the extra lab")
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    ca = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca))
    with Other(NOTHING, NOTHING, NOTHING).listening(context) as address:
        with connect(address, token=TOKEN) as far, pytest.raises(Denied, match="cannot trust"):
            far.list()
        with connect(address, token=TOKEN, ca=str(ca)) as far:
            assert far.list() == ()
        monkeypatch.setenv("VORCH_CA", str(ca))
        with connect(address, token=TOKEN) as far:
            assert far.list() == ()
        monkeypatch.delenv("VORCH_CA")
        token = tmp_path / "token"
        token.write_text(TOKEN + "\n")
        settings = Settings(uri=address, token_file=str(token), ca_file=str(ca))
        with connect(settings=settings) as far:
            assert far.list() == ()
        # It is of that name, and no other.
        elsewhere = address.replace("localhost", "127.0.0.1")
        with connect(elsewhere, token=TOKEN, ca=str(ca)) as far, pytest.raises(Denied):
            far.list()


def test_files_that_are_none(tmp_path: Path) -> None:
    settings = Settings(uri="https://h", token_file=str(tmp_path / "nosuch"))
    with pytest.raises(BadConfig, match="mend token_file"):
        connect(settings=settings)
    with pytest.raises(BadConfig, match="PEM"):
        connect("https://h", token=TOKEN, ca=str(tmp_path / "nosuch"))
    with pytest.raises(BadConfig, match="not one that vorch has made"):
        connect("https://h", token="a\nb")
