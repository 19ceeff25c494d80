"""The service behind nginx and Apache, as packaging/ has them: real ones, on ports of their own."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import trustme
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as dial
from websockets.typing import Origin, Subprotocol

from tests.api.test_service import VORCH

PACKAGING = Path(__file__).parents[2] / "packaging"
TUS = {"Tus-Resumable": "1.0.0"}
PROTOCOL = Subprotocol("vorch.console")
MODULES = (
    *("mpm_event", "authz_core", "ssl", "headers", "socache_shmcb"),
    *("proxy", "proxy_http", "proxy_balancer", "lbmethod_byrequests", "slotmem_shm"),
)

# Two services and a proxy beside all else.
pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(300)]


class Front:
    """A proxy that runs, in front of two services."""

    def __init__(self, port: int, ca: Path, services: list[subprocess.Popen[str]]) -> None:
        self.url = f"https://localhost:{port}"
        self.ca = ca
        self.services = services
        self.token = ""

    def client(self) -> httpx.Client:
        bearer = {"Authorization": f"Bearer {self.token}"}
        context = ssl.create_default_context(cafile=str(self.ca))
        return httpx.Client(base_url=self.url, verify=context, headers=bearer, timeout=30)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@contextlib.contextmanager
def service(folder: Path) -> Iterator[tuple[subprocess.Popen[str], int, str]]:
    """(the process, its port, its token)"""
    program = subprocess.Popen(
        [*VORCH, "--uri", "memory:", "serve", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={
            **os.environ,
            "PYTHONUNBUFFERED": "1",
            "VORCH_UPLOAD_PATH": str(folder / "uploads"),
            "VORCH_STOP_PATIENCE_S": "1",
        },
    )
    assert program.stdout is not None
    try:
        said = ""
        while "Token: " not in said:
            line = program.stdout.readline()
            assert line
            said += line
        port, token = re.search(r":(\d+) ", said), re.search(r"Token: (\S+)", said)
        assert port is not None
        assert token is not None
        yield program, int(port[1]), token[1]
    finally:
        program.kill()
        program.wait()


def site(name: str, folder: Path, port: int, first: int, second: int) -> str:
    """What packaging/ has, with ports, files and the second service of this test."""
    text = (PACKAGING / name).read_text()
    text = text.replace("/etc/ssl/private/vorch.key", str(folder / "key.pem"))
    text = text.replace("/etc/ssl/vorch.pem", str(folder / "cert.pem"))
    text = text.replace("vorch.example.org", "localhost")
    other = r"# (server|BalancerMember)( \"?(?:http://)?)10\.0\.0\.2:8420"
    text = re.sub(other, rf"\1\g<2>127.0.0.1:{second}", text)
    text = text.replace("127.0.0.1:8420", f"127.0.0.1:{first}")
    text = text.replace("listen 443", f"listen 127.0.0.1:{port}")
    return text.replace("*:443", f"127.0.0.1:{port}")


def nginx(folder: Path, site_text: str, port: int) -> list[str]:
    program = os.environ.get("VORCH_NGINX") or shutil.which("nginx")
    if program is None:
        pytest.skip("there is no nginx here")
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "main.conf").write_text(
        ("user root;\n" if os.geteuid() == 0 else "")
        + f"daemon off;\nworker_processes 1;\npid {folder}/nginx.pid;\n"
        + f"error_log {folder}/error.log;\nevents {{}}\n"
        + f"http {{\naccess_log off;\n{temporary}{site_text}\n}}\n"
    )
    return [program, "-p", str(folder), "-e", str(folder / "error.log"), "-c", "main.conf"]


def apache(folder: Path, site_text: str, port: int) -> list[str]:
    program = os.environ.get("VORCH_APACHE") or shutil.which("apache2") or shutil.which("httpd")
    modules = Path(os.environ.get("VORCH_APACHE_MODULES") or "/usr/lib/apache2/modules")
    if program is None or not modules.is_dir():
        pytest.skip("there is no Apache here (package apache2-bin)")
    (folder / "main.conf").write_text(
        f"ServerRoot {folder}\nServerName localhost\nPidFile {folder}/apache.pid\n"
        f"DefaultRuntimeDir {folder}\nErrorLog {folder}/error.log\nListen 127.0.0.1:{port}\n"
        + "".join(f"LoadModule {one}_module {modules}/mod_{one}.so\n" for one in MODULES)
        + site_text
    )
    return [program, "-D", "FOREGROUND", "-f", str(folder / "main.conf")]


PROXIES = {"nginx": ("nginx.conf", nginx), "apache": ("apache.conf", apache)}


@pytest.fixture(scope="module", params=PROXIES)
def front(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Front]:
    folder = tmp_path_factory.mktemp("front")
    authority = trustme.CA()
    leaf = authority.issue_cert("localhost")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    leaf.private_key_pem.write_to_path(folder / "key.pem")
    for part in leaf.cert_chain_pems:
        part.write_to_path(folder / "cert.pem", append=True)
    name, command = PROXIES[request.param]
    port = free_port()
    command(folder, "", port)
    with service(folder) as first, service(folder) as second:
        words = command(folder, site(name, folder, port, first[1], second[1]), port)
        program = subprocess.Popen(words, cwd=folder, stderr=subprocess.DEVNULL)
        try:
            await_port(program, port, folder / "error.log")
            made = Front(port, folder / "ca.pem", [first[0], second[0]])
            made.token = first[2]
            yield made
        finally:
            program.terminate()
            program.wait(30)


def await_port(program: subprocess.Popen[bytes], port: int, log: Path) -> None:
    for _ in range(600):
        assert program.poll() is None, log.read_text() if log.exists() else ""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.1)
    raise AssertionError("it does not listen")


def test_it_passes_on_what_is_asked(front: Front) -> None:
    with front.client() as client:
        assert client.get("/ready").json()["status"] == "ready"
        # Each of the two has a token of its own here.
        found = {client.get("/v1/vms").status_code for _ in range(6)}
    assert found <= {200, 401}
    assert 200 in found


def test_figures_stay_inside(front: Front) -> None:
    with front.client() as client:
        assert client.get("/metrics").status_code in (403, 404)


def pieces(count: int) -> Iterator[bytes]:
    for _ in range(count):
        yield bytes(1024**2)


@pytest.mark.parametrize("known", [True, False], ids=["known", "stranger"])
def test_without_a_proxy_what_is_too_much_is_cut_off(tmp_path: Path, known: bool) -> None:
    with service(tmp_path) as (_, port, token):
        headers = {**TUS, "Authorization": f"Bearer {token}"}
        url = f"http://127.0.0.1:{port}"
        small = httpx.post(f"{url}/v1/uploads", headers={**headers, "Upload-Length": "1000000"})
        path = small.headers["location"]
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            head = [f"PATCH {path} HTTP/1.1", "Host: localhost", "Content-Length: 1000000000000"]
            given = headers if known else TUS
            head += [f"{name}: {value}" for name, value in given.items()]
            head += ["Content-Type: application/offset+octet-stream", "Upload-Offset: 0", "", ""]
            connection.sendall("\r\n".join(head).encode())
            sent = 0
            with contextlib.suppress(ConnectionError):
                for piece in pieces(10_000):
                    connection.sendall(piece)
                    sent += 1
        assert sent < 10_000
        now = httpx.head(f"{url}{path}", headers=headers)
        assert int(now.headers["upload-offset"]) <= 1_000_000


def test_a_large_upload_comes_through_and_one_too_large_is_cut_off(front: Front) -> None:
    size = 20 * 1024**2
    with front.client() as client:
        begun = client.post("/v1/uploads", headers={**TUS, "Upload-Length": str(size)})
        assert begun.status_code == 201
        piece = {**TUS, "Content-Type": "application/offset+octet-stream", "Upload-Offset": "0"}
        path = begun.headers["location"]
        assert client.patch(path, headers=piece, content=bytes(size)).status_code == 204
        assert client.head(path, headers=TUS).headers["upload-offset"] == str(size)
        client.delete(path, headers=TUS)
        small = client.post("/v1/uploads", headers={**TUS, "Upload-Length": "1000000"})
        # Apache lets it end before it passes the answer on; nginx may have closed by then.
        with contextlib.suppress(httpx.WriteError, httpx.ReadError, httpx.RemoteProtocolError):
            answer = client.patch(small.headers["location"], headers=piece, content=pieces(24))
            assert answer.status_code in (413, 502)
        now = client.head(small.headers["location"], headers=TUS)
        assert int(now.headers["upload-offset"]) <= 1_000_000


def test_a_console_comes_through(front: Front) -> None:
    context = ssl.create_default_context(cafile=str(front.ca))
    with front.client() as client:
        words = {"name": "web", "disk_gib": 1, "networks": [], "start": True}
        first_of(lambda: client.post("/v1/vms", json=words), 201)
        made = first_of(lambda: client.post("/v1/vms/web/console-ticket", json={}), 200)

    def come(origin: str) -> ClientConnection:
        return contextlib.ExitStack().enter_context(
            dial(
                front.url.replace("https", "wss") + "/v1/console",
                subprotocols=[PROTOCOL, Subprotocol(f"vorch.ticket.{made.json()['secret']}")],
                ssl=context,
                origin=Origin(origin),
                proxy=None,
                open_timeout=60,
            )
        )

    for _ in range(4):
        with pytest.raises(InvalidStatus):
            come("https://elsewhere.example")
    console = None
    for _ in range(8):
        # The other service has a state of its own here, and knows nothing of that ticket.
        with contextlib.suppress(InvalidStatus):
            console = come(front.url)
            break
    assert console is not None
    told = b""
    while b"web login: " not in told:
        told += bytes(console.recv(60, decode=False))
    console.send(b"through")
    while b"through" not in told:
        told += bytes(console.recv(60, decode=False))
    console.close()


def first_of(ask: Callable[[], httpx.Response], status: int) -> httpx.Response:
    """Of two services one takes that token."""
    answers = (ask() for _ in range(8))
    return next(one for one in answers if one.status_code == status)


def test_one_that_ends_is_passed_over(front: Front) -> None:
    """Last: the second service is gone then."""
    front.services[1].send_signal(signal.SIGTERM)
    front.services[1].wait(60)
    with front.client() as client:
        assert [client.get("/ready").status_code for _ in range(10)] == [200] * 10
