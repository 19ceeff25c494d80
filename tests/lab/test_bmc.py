"""A lab host's BMC over its real protocols: HTTPS by httpx and urllib, IPMI by ipmitool."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from vorch.errors import BadConfig, Conflict, Unreachable
from vorch.lab import control
from vorch.lab.bmc import Bmc, BmcSettings, Chassis, read_settings
from vorch.lab.redfish import MOST_SESSIONS, SESSION_SECONDS, RedfishServer

trustme = pytest.importorskip("trustme", reason="trustme is not installed")

USER, PASSWORD = "admin", "let me in"
ROOT = "/redfish/v1"
SYSTEM = f"{ROOT}/Systems/node1"
RESET = f"{SYSTEM}/Actions/ComputerSystem.Reset"
SESSIONS = f"{ROOT}/SessionService/Sessions"


class SwitchedPower:
    """A power that is a variable. `broken` names what fails; `pause`, `seconds` make acts last."""

    def __init__(self) -> None:
        self.state = True
        self.acts: list[str] = []
        self.broken: set[str] = set()
        self.pause: threading.Event | None = None
        self.seconds = 0.0
        self.acting = threading.Event()
        self.at_once = 0
        self.most_at_once = 0

    def is_on(self) -> bool:
        if "is_on" in self.broken:
            raise Unreachable("cannot read the power of 'node1': the lab is gone; start it")
        return self.state

    def on(self) -> None:
        self._act("on", True)

    def off(self) -> None:
        self._act("off", False)

    def reset(self) -> None:
        self._act("reset", True)

    def _act(self, name: str, state: bool) -> None:
        if name in self.broken:
            raise Conflict(f"cannot switch 'node1' {name}: a fuse has blown; put in another")
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.acting.set()
        if self.pause is not None:
            self.pause.wait(10)
        time.sleep(self.seconds)
        self.acts.append(name)
        self.state = state
        self.at_once -= 1


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Running:
    """One BMC that answers, and what a test wants of it."""

    def __init__(self, bmc: Bmc, power: SwitchedPower, clock: Clock, log: list[str]) -> None:
        self.bmc = bmc
        self.power = power
        self.clock = clock
        self.log = log
        self.clients: list[httpx.Client] = []
        # The lab's authority alone: the system's hundred take their time to load.
        self.trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.bmc.redfish_port}"

    def client(self, *, user: str | None = USER, password: str = PASSWORD) -> httpx.Client:
        client = httpx.Client(
            base_url=self.url,
            verify=self.trust,
            auth=None if user is None else (user, password),
            timeout=10,
            trust_env=False,
        )
        self.clients.append(client)
        return client

    def reset(self, how: str, client: httpx.Client | None = None) -> httpx.Response:
        return (client or self.client()).post(RESET, json={"ResetType": how})

    def power_state(self) -> str:
        answer = self.client().get(SYSTEM)
        assert answer.status_code == 200
        return str(answer.json()["PowerState"])


@pytest.fixture(scope="module")
def authority() -> Any:
    return trustme.CA()


@pytest.fixture(scope="module")
def settings(authority: Any, tmp_path_factory: pytest.TempPathFactory) -> BmcSettings:
    folder = tmp_path_factory.mktemp("pki")
    issued = authority.issue_cert("127.0.0.1")
    chain = b"".join(part.bytes() for part in issued.cert_chain_pems)
    (folder / "bmc.pem").write_bytes(chain)
    issued.private_key_pem.write_to_path(folder / "bmc.key")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    return BmcSettings(
        host="node1",
        address="127.0.0.1",
        user=USER,
        password=PASSWORD,
        certificate=folder / "bmc.pem",
        key=folder / "bmc.key",
        redfish_port=0,
        ipmi_port=0,
    )


Start = Callable[[BmcSettings], Running]


@pytest.fixture
def start(authority: Any) -> Iterator[Start]:
    """Starts BMCs, and ends them with everything that hangs on them."""
    before = set(threading.enumerate())
    started: list[Running] = []

    def begin(settings: BmcSettings) -> Running:
        power, clock = SwitchedPower(), Clock()
        log: list[str] = []
        running = Running(Bmc(settings, power, log=log.append, clock=clock), power, clock, log)
        authority.configure_trust(running.trust)
        started.append(running)
        running.bmc.start()
        return running

    yield begin
    for running in started:
        for client in running.clients:
            client.close()
        running.bmc.stop()
    assert set(threading.enumerate()) <= before, "a thread of the BMC is left"


@pytest.fixture
def bmc(start: Start, settings: BmcSettings) -> Running:
    return start(settings)


def message_of(answer: httpx.Response) -> str:
    """The message of an error, which has to have the standard's form."""
    error = answer.json()["error"]
    (told,) = error["@Message.ExtendedInfo"]
    assert error["code"] == told["MessageId"]
    assert told["MessageId"].startswith("Base.1.")
    assert told["MessageSeverity"] in ("Warning", "Critical")
    assert told["Resolution"]
    return str(told["Message"])


# --- who may ask what


def test_root_can_be_read_by_anybody(bmc: Running) -> None:
    anybody = bmc.client(user=None)
    assert anybody.get("/redfish").json() == {"v1": "/redfish/v1/"}
    for path in ("/redfish/v1/", "/redfish/v1"):
        root = anybody.get(path)
        assert root.status_code == 200
        assert root.headers["OData-Version"] == "4.0"
        assert root.json()["Systems"] == {"@odata.id": f"{ROOT}/Systems"}
        assert root.json()["Links"]["Sessions"] == {"@odata.id": SESSIONS}
    assert anybody.get(f"{ROOT}/odata").json()["@odata.context"] == f"{ROOT}/$metadata"
    assert "xml" in anybody.get(f"{ROOT}/$metadata").headers["Content-Type"]


@pytest.mark.parametrize(
    ("user", "password"),
    [
        (None, ""),
        (USER, "wrong"),
        (USER, ""),
        (USER, PASSWORD + "x"),
        ("other", PASSWORD),
        ("ädmin", "pässword"),
    ],
)
def test_nothing_else_without_the_right_password(
    bmc: Running, user: str | None, password: str
) -> None:
    stranger = bmc.client(user=user, password=password)
    for path in (SYSTEM, f"{ROOT}/Systems", f"{ROOT}/Chassis", SESSIONS, f"{ROOT}/no/such"):
        answer = stranger.get(path)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"].startswith("Basic")
        assert "missing or wrong" in message_of(answer)
    assert bmc.reset("ForceOff", stranger).status_code == 401
    assert bmc.power.acts == []


@pytest.mark.parametrize("header", ["Basic", "Basic %%%", "Basic YWRtaW4=", "Bearer x", "x"])
def test_malformed_authorization_is_refused(bmc: Running, header: str) -> None:
    answer = bmc.client(user=None).get(SYSTEM, headers={"Authorization": header})
    assert answer.status_code == 401


def test_urllib_gets_along_too(bmc: Running) -> None:
    basic = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()

    def ask(path: str, body: bytes | None = None) -> tuple[int, bytes]:
        request = urllib.request.Request(
            bmc.url + path,
            data=body,
            headers={"Authorization": f"Basic {basic}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, context=bmc.trust, timeout=10) as answer:
            return answer.status, answer.read()

    assert json.loads(ask(SYSTEM)[1])["PowerState"] == "On"
    assert ask(RESET, b'{"ResetType": "ForceOff"}') == (204, b"")
    assert json.loads(ask(SYSTEM)[1])["PowerState"] == "Off"
    with pytest.raises(urllib.error.HTTPError, match="409") as refused:
        ask(RESET, b'{"ResetType": "ForceRestart"}')
    refused.value.close()


# --- sessions


def log_in(client: httpx.Client, password: str = PASSWORD) -> httpx.Response:
    return client.post(SESSIONS, json={"UserName": USER, "Password": password})


def test_session_from_login_to_logout(bmc: Running) -> None:
    client = bmc.client(user=None)
    made = log_in(client)
    assert made.status_code == 201
    token, where = made.headers["X-Auth-Token"], made.headers["Location"]
    assert made.json()["@odata.id"] == where
    assert token not in made.text
    assert PASSWORD not in made.text
    with_token = {"X-Auth-Token": token}
    assert client.get(SYSTEM, headers=with_token).status_code == 200
    assert client.get(SESSIONS, headers=with_token).json()["Members"] == [{"@odata.id": where}]
    assert client.get(where, headers=with_token).json()["UserName"] == USER
    assert client.delete(where).status_code == 401
    assert client.delete(where, headers=with_token).status_code == 204
    assert client.get(SYSTEM, headers=with_token).status_code == 401
    assert bmc.client().delete(where).status_code == 404


def test_session_needs_the_password(bmc: Running) -> None:
    client = bmc.client(user=None)
    assert log_in(client, "wrong").status_code == 401
    assert client.post(SESSIONS, json={"UserName": USER}).status_code == 400
    assert client.post(SESSIONS, json={"UserName": USER, "Password": 1}).status_code == 400
    half_a_letter = client.post(
        SESSIONS,
        content=rb'{"UserName": "admin", "Password": "\ud800"}',
        headers={"Content-Type": "application/json"},
    )
    assert half_a_letter.status_code == 401
    assert client.get(SYSTEM, headers={"X-Auth-Token": "made up"}).status_code == 401


def test_wrong_token_is_not_saved_by_a_right_password(bmc: Running) -> None:
    assert bmc.client().get(SYSTEM, headers={"X-Auth-Token": "old"}).status_code == 401


def test_session_lasts_while_it_is_used(bmc: Running) -> None:
    client = bmc.client(user=None)
    token = {"X-Auth-Token": log_in(client).headers["X-Auth-Token"]}
    for _ in range(3):
        bmc.clock.now += SESSION_SECONDS - 1
        assert client.get(SYSTEM, headers=token).status_code == 200
    bmc.clock.now += SESSION_SECONDS + 1
    assert client.get(SYSTEM, headers=token).status_code == 401
    assert bmc.client().get(SESSIONS).json()["Members"] == []


def test_sessions_are_limited_until_some_expire(bmc: Running) -> None:
    client = bmc.client(user=None)
    assert {log_in(client).status_code for _ in range(MOST_SESSIONS)} == {201}
    full = log_in(client)
    assert full.status_code == 503
    assert "in use" in message_of(full)
    bmc.clock.now += SESSION_SECONDS + 1
    assert log_in(client).status_code == 201


# --- power


def test_off_and_on_again(bmc: Running) -> None:
    assert bmc.power_state() == "On"
    off = bmc.reset("ForceOff")
    assert off.status_code == 204
    assert off.content == b""
    assert bmc.power_state() == "Off"
    assert bmc.client().get(f"{ROOT}/Chassis/chassis").json()["PowerState"] == "Off"
    assert bmc.reset("On").status_code == 204
    assert bmc.power_state() == "On"
    assert bmc.power.acts == ["off", "on"]


@pytest.mark.parametrize(
    ("how", "on", "status", "acts", "afterwards"),
    [
        ("On", False, 204, ["on"], "On"),
        ("On", True, 204, [], "On"),
        ("ForceOn", False, 204, ["on"], "On"),
        ("ForceOff", True, 204, ["off"], "Off"),
        ("ForceOff", False, 204, [], "Off"),
        ("ForceRestart", True, 204, ["reset"], "On"),
        ("ForceRestart", False, 409, [], "Off"),
        ("PowerCycle", True, 204, ["reset"], "On"),
        ("PowerCycle", False, 409, [], "Off"),
        # Nobody in the host listens to the button: it was pressed, and nothing happens.
        ("GracefulShutdown", True, 200, [], "On"),
        ("GracefulShutdown", False, 204, [], "Off"),
        ("GracefulRestart", True, 200, [], "On"),
        ("GracefulRestart", False, 409, [], "Off"),
        ("PushPowerButton", True, 200, [], "On"),
        ("PushPowerButton", False, 204, ["on"], "On"),
    ],
)
def test_every_reset_type(
    bmc: Running, how: str, on: bool, status: int, acts: list[str], afterwards: str
) -> None:
    bmc.power.state = on
    answer = bmc.reset(how)
    assert answer.status_code == status
    if status == 200:
        assert "does not listen" in message_of(answer)
    if status == 409:
        assert "the host is off" in message_of(answer)
    assert bmc.power.acts == acts
    assert bmc.power_state() == afterwards


def test_it_lists_the_reset_types_that_it_takes(bmc: Running) -> None:
    client = bmc.client()
    (member,) = client.get(f"{ROOT}/Systems").json()["Members"]
    action = client.get(member["@odata.id"]).json()["Actions"]["#ComputerSystem.Reset"]
    assert action["target"] == RESET
    for how in action["ResetType@Redfish.AllowableValues"]:
        assert bmc.reset(how, client).status_code in (200, 204, 409)


@pytest.mark.parametrize("on", [True, False])
def test_a_bmc_may_refuse_what_is_so_already(start: Start, settings: BmcSettings, on: bool) -> None:
    bmc = start(replace(settings, refuse_already=True))
    bmc.power.state = on
    answer = bmc.reset("On" if on else "ForceOff")
    assert answer.status_code == 409
    assert f"the host is {'on' if on else 'off'}" in message_of(answer)
    assert bmc.reset("ForceOff" if on else "On").status_code == 204


@pytest.mark.parametrize(("how", "broken", "on"), [("ForceOff", "off", True), ("On", "on", False)])
def test_failed_act_is_said_to_have_failed(bmc: Running, how: str, broken: str, on: bool) -> None:
    bmc.power.state = on
    bmc.power.broken = {broken}
    answer = bmc.reset(how)
    assert answer.status_code == 503
    assert "a fuse has blown" in message_of(answer)
    assert bmc.power_state() == ("On" if on else "Off")
    bmc.power.broken = set()
    assert bmc.reset(how).status_code == 204


def test_unknown_power_is_neither_on_nor_off(bmc: Running) -> None:
    bmc.power.broken = {"is_on"}
    for answer in (bmc.client().get(SYSTEM), bmc.reset("ForceOff")):
        assert answer.status_code == 503
        assert "the lab is gone" in message_of(answer)
    assert bmc.power.acts == []
    assert bmc.client().get(f"{ROOT}/").status_code == 200


def test_acts_come_one_after_the_other(bmc: Running) -> None:
    bmc.power.seconds = 0.02
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: bmc.reset("ForceRestart").status_code, range(8)))
    assert answers == [204] * 8
    assert bmc.power.acts == ["reset"] * 8
    assert bmc.power.most_at_once == 1


def test_state_can_be_read_during_an_act(bmc: Running) -> None:
    bmc.power.pause = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(bmc.reset, "ForceOff")
        assert bmc.power.acting.wait(10)
        assert bmc.power_state() == "On"
        bmc.power.pause.set()
        assert slow.result(10).status_code == 204


# --- requests of every kind


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", f"{ROOT}/Systems/node2", 404),
        ("GET", f"{SESSIONS}/none", 404),
        ("POST", f"{ROOT}/Systems/node2/Actions/ComputerSystem.Reset", 404),
        ("GET", RESET, 405),
        ("POST", SYSTEM, 405),
        ("PATCH", SYSTEM, 405),
        ("DELETE", SYSTEM, 405),
        ("GET", f"{ROOT}/Systems?$expand=*", 501),
        ("BREW", SYSTEM, 501),
    ],
)
def test_what_is_not_there(bmc: Running, method: str, path: str, status: int) -> None:
    answer = bmc.client().request(method, path, json={} if method == "POST" else None)
    assert answer.status_code == status
    assert message_of(answer)
    if status == 405:
        assert answer.headers["Allow"] in ("POST", "GET, HEAD")


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (b"\xff\xfe", 400),
        (b"[" * 60_000, 400),
        (b"{}", 400),
        (b'{"ResetType": "Explode"}', 400),
        (b'{"ResetType": ["On"]}', 400),
        (b'{"ResetType": "' + b"x" * 70_000 + b'"}', 413),
        (b"x" * 3_000_000, 413),
    ],
)
def test_bodies_of_no_use(bmc: Running, content: bytes, status: int) -> None:
    client = bmc.client()
    answer = client.post(RESET, content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == status
    assert message_of(answer)
    assert bmc.power.acts == []
    assert client.get(SYSTEM).status_code == 200


def test_body_has_to_be_json_of_known_length(bmc: Running) -> None:
    client = bmc.client()
    form = client.post(RESET, data={"ResetType": "ForceOff"})
    assert form.status_code == 415
    chunks = client.post(RESET, content=iter([b"{}"]), headers={"Content-Type": "application/json"})
    assert chunks.status_code == 411
    assert client.get(SYSTEM, headers={"OData-Version": "3.0"}).status_code == 412


def test_head_has_no_body(bmc: Running) -> None:
    client = bmc.client()
    head = client.head(SYSTEM)
    assert head.status_code == 200
    assert head.content == b""
    assert client.get(SYSTEM).status_code == 200


@contextmanager
def connected(bmc: Running) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", bmc.bmc.redfish_port), timeout=10) as one:
        yield one


def test_client_that_says_nothing_holds_up_nobody(bmc: Running) -> None:
    with connected(bmc), connected(bmc) as half:
        half.sendall(b"\x16\x03\x01")
        with (
            connected(bmc) as plain,
            bmc.trust.wrap_socket(plain, server_hostname="127.0.0.1") as slow,
        ):
            slow.sendall(b"POST " + RESET.encode() + b" HTTP/1.1\r\nContent-Length: 100\r\n\r\n{")
            assert bmc.power_state() == "On"
            # Nor does it hold up the end.
            begun = time.monotonic()
            bmc.bmc.stop()
            assert time.monotonic() - begun < 2


def test_client_that_says_nothing_is_cut_off(settings: BmcSettings) -> None:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(settings.certificate, settings.key)
    log: list[str] = []
    server = RedfishServer(
        settings,
        Chassis("node1", SwitchedPower()),
        tls,
        log=log.append,
        clock=time.monotonic,
        silence_seconds=0.1,
    )
    server.start()
    try:
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as silent:
            assert silent.recv(1) == b""
    finally:
        server.stop()
    assert "no TLS" in log[0]


def test_tls_is_required(bmc: Running) -> None:
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{bmc.url.replace('https', 'http')}/redfish/v1/", trust_env=False)
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(f"{bmc.url}/redfish/v1/", verify=ssl.create_default_context(), trust_env=False)


def test_every_request_is_one_line_in_the_log(bmc: Running) -> None:
    bmc.log.clear()
    bmc.reset("ForceOff")
    bmc.client(user=None).get(SYSTEM)
    bmc.client().get(f"{ROOT}/a%0Ab")
    assert bmc.log == [
        f"bmc node1: 127.0.0.1 redfish POST {RESET} 204 ForceOff done",
        f"bmc node1: 127.0.0.1 redfish GET {SYSTEM} 401",
        f"bmc node1: 127.0.0.1 redfish GET {ROOT}/a%0Ab 404",
    ]


# --- IPMI


@pytest.fixture
def ipmitool(bmc: Running) -> Callable[..., subprocess.CompletedProcess[str]]:
    if shutil.which("ipmitool") is None:
        pytest.skip("ipmitool is not installed")
    if bmc.bmc.ipmi_port is None:
        pytest.skip("pyghmi is not installed")
    port = str(bmc.bmc.ipmi_port)

    def run(
        *command: str, user: str = USER, password: str = PASSWORD, level: str = "ADMINISTRATOR"
    ) -> subprocess.CompletedProcess[str]:
        login = ["-H", "127.0.0.1", "-p", port, "-U", user, "-P", password, "-L", level]
        return subprocess.run(
            ["ipmitool", "-I", "lanplus", *login, *command],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


Ipmitool = Callable[..., subprocess.CompletedProcess[str]]


def test_ipmi_switches_the_power(bmc: Running, ipmitool: Ipmitool) -> None:
    assert ipmitool("power", "status").stdout.strip() == "Chassis Power is on"
    assert ipmitool("power", "off").returncode == 0
    assert ipmitool("power", "status").stdout.strip() == "Chassis Power is off"
    assert bmc.power_state() == "Off"
    assert ipmitool("power", "off").returncode == 0
    for restart in ("cycle", "reset"):
        refused = ipmitool("power", restart)
        assert refused.returncode != 0
        assert "not supported in present state" in refused.stderr
    assert ipmitool("power", "on").returncode == 0
    assert ipmitool("power", "on").returncode == 0
    assert ipmitool("power", "cycle").returncode == 0
    assert ipmitool("power", "reset").returncode == 0
    assert ipmitool("power", "soft").returncode == 0
    assert bmc.power_state() == "On"
    assert bmc.power.acts == ["off", "on", "reset", "reset"]


def test_ipmi_says_what_failed(bmc: Running, ipmitool: Ipmitool) -> None:
    bmc.power.broken = {"off"}
    failed = ipmitool("power", "off")
    assert failed.returncode != 0
    assert "Unspecified error" in failed.stderr
    assert bmc.power_state() == "On"
    assert any("power off failed: " in line and "fuse" in line for line in bmc.log)
    bmc.power.broken = {"is_on"}
    assert ipmitool("power", "status").returncode != 0
    assert ipmitool("power", "off").returncode != 0
    assert bmc.power.acts == []


def test_ipmi_refuses_strangers(bmc: Running, ipmitool: Ipmitool) -> None:
    for user, password in ((USER, "wrong"), ("other", PASSWORD)):
        refused = ipmitool("power", "off", user=user, password=password)
        assert refused.returncode != 0
        assert "Unable to establish" in refused.stderr
    assert "Insufficient privilege" in ipmitool("power", "off", level="USER").stderr
    assert bmc.power.acts == []


def test_ipmi_remembers_the_boot_device(bmc: Running, ipmitool: Ipmitool) -> None:
    assert ipmitool("chassis", "bootdev", "pxe").returncode == 0
    assert "Force PXE" in ipmitool("chassis", "bootparam", "get", "5").stdout
    boot = bmc.client().get(SYSTEM).json()["Boot"]
    assert boot["BootSourceOverrideTarget"] == "Pxe"


def test_ipmi_repeats_an_answer_but_not_the_act(bmc: Running, ipmitool: Ipmitool) -> None:
    """ipmitool asks again after a second; the host must be reset once all the same."""
    bmc.power.pause = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(ipmitool, "power", "reset")
        assert bmc.power.acting.wait(10)
        assert bmc.bmc.ipmi_port is not None
        wait_for_unread(bmc.bmc.ipmi_port)
        bmc.power.pause.set()
        assert running.result(30).returncode == 0
    # Behind whatever is still in the queue.
    assert ipmitool("power", "status").returncode == 0
    assert bmc.power.acts == ["reset"]


def wait_for_unread(port: int) -> None:
    """Until a packet lies unread at a UDP port of this machine."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        for line in Path("/proc/net/udp").read_text().splitlines()[1:]:
            fields = line.split()
            local, queued = fields[1], fields[4].split(":")[1]
            if int(local.split(":")[1], 16) == port and int(queued, 16) > 0:
                return
        time.sleep(0.02)
    pytest.fail("ipmitool did not ask a second time")


def test_ipmi_survives_packets_of_no_use(bmc: Running, ipmitool: Ipmitool) -> None:
    assert bmc.bmc.ipmi_port is not None
    header = b"\x06\x00\xff\x07"
    opening = header + b"\x06\x10" + bytes(8) + b"\x20\x00" + bytes(32)
    packets = [b"", b"x", header, header + bytes(12), header + b"\x06" + bytes(40), opening]
    for kind in (0x12, 0x14, 0x40, 0xC0, 0x41, 0x15, 0x3F):
        packets += [opening, header + bytes([6, kind]) + bytes(8) + b"\x20\x00" + bytes(48)]
        packets += [header + bytes([6, kind]) + bytes(11), os.urandom(60)]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for packet in packets:
            sender.sendto(packet, ("127.0.0.1", bmc.bmc.ipmi_port))
    assert ipmitool("power", "status").stdout.strip() == "Chassis Power is on"
    assert bmc.power.acts == []


def test_redfish_answers_without_pyghmi(
    start: Start, settings: BmcSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyghmi", None)
    bmc = start(settings)
    assert bmc.bmc.ipmi_port is None
    assert "no IPMI, pyghmi is not installed" in bmc.log[0]
    assert bmc.reset("ForceOff").status_code == 204


# --- settings and process


def test_port_in_use_is_told(start: Start, settings: BmcSettings) -> None:
    taken = start(settings).bmc.redfish_port
    second = Bmc(replace(settings, redfish_port=taken), SwitchedPower())
    with pytest.raises(Unreachable, match="cannot serve Redfish"):
        second.start()


def test_address_of_nobody_is_told(settings: BmcSettings) -> None:
    with pytest.raises(Unreachable, match=r"cannot serve Redfish at '192\.0\.2\.1'"):
        Bmc(replace(settings, address="192.0.2.1"), SwitchedPower()).start()


def test_certificate_of_no_use_is_told(settings: BmcSettings) -> None:
    for certificate in (settings.key, Path("/no/such/file")):
        with pytest.raises(BadConfig, match="is of no use"):
            Bmc(replace(settings, certificate=certificate), SwitchedPower()).start()


def test_password_too_long_for_ipmi_is_told(start: Start, settings: BmcSettings) -> None:
    if start(settings).bmc.ipmi_port is None:
        pytest.skip("pyghmi is not installed")
    with pytest.raises(BadConfig, match="21 bytes"):
        Bmc(replace(settings, password="x" * 21), SwitchedPower()).start()


def written(settings: BmcSettings, path: Path, **changes: Any) -> Path:
    fields = {
        "host": settings.host,
        "address": settings.address,
        "user": settings.user,
        "password": settings.password,
        "certificate": str(settings.certificate),
        "key": str(settings.key),
        "redfish_port": 0,
        "ipmi_port": 0,
        "control": str(path.parent / "control"),
        **changes,
    }
    path.write_text(json.dumps({name: value for name, value in fields.items() if value != ...}))
    return path


def test_settings_are_read_back(settings: BmcSettings, tmp_path: Path) -> None:
    path = written(settings, tmp_path / "settings.json")
    assert read_settings(path) == (settings, str(tmp_path / "control"))
    path = written(settings, tmp_path / "settings.json", redfish_port=..., ipmi_port=...)
    assert read_settings(path)[0] == replace(settings, redfish_port=443, ipmi_port=623)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"host": ...}, "'host' is missing"),
        ({"control": ...}, "'control' is missing"),
        ({"color": "red"}, "'color' is not known"),
        ({"redfish_port": "443"}, "'redfish_port' is no int"),
        ({"redfish_port": True}, "'redfish_port' is no int"),
        ({"refuse_already": 1}, "'refuse_already' is no bool"),
    ],
)
def test_settings_of_no_use_are_told(
    settings: BmcSettings, tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    path = written(settings, tmp_path / "settings.json", **changes)
    with pytest.raises(BadConfig, match=told):
        read_settings(path)


@contextmanager
def served(path: Path, authority: Any) -> Iterator[tuple[subprocess.Popen[str], httpx.Client]]:
    """The real entry as a process that answers, and a client of it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "vorch.lab.bmc", str(path)], stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        ready = process.stderr.readline()
        assert "answers at 127.0.0.1: Redfish at port " in ready
        port = ready.split("port ")[1].split(",")[0]
        trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        authority.configure_trust(trust)
        with httpx.Client(
            base_url=f"https://127.0.0.1:{port}",
            verify=trust,
            auth=(USER, PASSWORD),
            trust_env=False,
        ) as client:
            yield process, client
    finally:
        process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()


def test_process_answers_without_the_lab_and_ends_on_sigterm(
    settings: BmcSettings, authority: Any, tmp_path: Path
) -> None:
    path = written(settings, tmp_path / "settings.json")
    with served(path, authority) as (process, client):
        assert client.get("/redfish/v1/").status_code == 200
        answer = client.get(SYSTEM)
        assert answer.status_code == 503
        assert "cannot" in message_of(answer)
        # With the connection still open.
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert process.stderr is not None
        rest = process.stderr.read()
        assert rest.count("\n") == 2
        assert "Traceback" not in rest


def test_process_has_the_lab_switch_the_power(
    settings: BmcSettings, authority: Any, tmp_path: Path
) -> None:
    power = SwitchedPower()
    asked: list[tuple[str, dict[str, Any]]] = []

    def lab(verb: str, arguments: dict[str, Any], say: Callable[[str], None]) -> Any:
        asked.append((verb, arguments))
        return {
            "power_state": power.is_on,
            "bmc_power_on": power.on,
            "bmc_power_off": power.off,
            "bmc_power_reset": power.reset,
        }[verb]()

    server = control.Server(tmp_path / "control", lab)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        path = written(settings, tmp_path / "settings.json")
        with served(path, authority) as (_, client):
            for how, state in (("ForceOff", "Off"), ("On", "On"), ("ForceRestart", "On")):
                assert client.post(RESET, json={"ResetType": how}).status_code == 204
                assert client.get(SYSTEM).json()["PowerState"] == state
            power.broken = {"off"}
            failed = client.post(RESET, json={"ResetType": "ForceOff"})
            assert failed.status_code == 503
            assert "a fuse has blown" in message_of(failed)
            power.state = "off"  # type: ignore[assignment]
            assert client.get(SYSTEM).status_code == 503
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert power.acts == ["off", "on", "reset"]
    assert all(arguments == {"host": "node1"} for _, arguments in asked)


def test_process_tells_what_is_wrong_with_its_settings(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vorch.lab.bmc", str(tmp_path / "none.json")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == BadConfig.exit_code
    assert done.stderr.startswith("bmc: cannot read the BMC's settings")
