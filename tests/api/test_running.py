"""What a service is as a process: its log, its readiness, its end, what systemd hears of it."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from tests.api.test_service import VORCH
from vorch import Conflict, Orchestrator, Settings, await_tasks, connect, current_task
from vorch.drivers import memory
from vorch.plan import Journal
from vorch_api import TaskLog, create_app, log_to_stderr

ROOT = Path(__file__).parents[2]
TOKEN = "t" * 43


class Said:
    """What was written to stderr until now."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture
        self._text = ""

    @property
    def lines(self) -> list[str]:
        self._text += self._capture.readouterr().err
        return self._text.splitlines()


@pytest.fixture
def log(capsys: pytest.CaptureFixture[str]) -> Iterator[Said]:
    """The loggers are as before afterwards."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield Said(capsys)
    root.handlers[:], root.level = before


@pytest.fixture
def cluster(request: pytest.FixtureRequest) -> Iterator[Orchestrator]:
    name = re.sub(r"\W+", "-", f"running-{request.node.name}")
    with connect(f"memory:{name}", watch=TaskLog()) as found:
        yield found
    memory.forget(name)


# ---------------------------------------------------------------------------------------------
# The log


def test_each_line_of_a_task_bears_its_id(log: Said, cluster: Orchestrator) -> None:
    log_to_stderr("json")
    cluster.create("web", disk_gib=1, start=True)
    with pytest.raises(Conflict):
        cluster.create("web", disk_gib=1)
    (task,) = [one for one in cluster.task_list() if one.subject == "web"]
    lines = [json.loads(line) for line in log.lines]
    of_the_task = [line["message"] for line in lines if line["task"] == task.id]
    assert of_the_task[0] == f"create web: begins, for {task.who}"
    assert of_the_task[-1].startswith("create web: done after ")
    assert len(of_the_task) > 3
    assert {frozenset(line) for line in lines} == {
        frozenset({"at", "level", "from", "task", "message"})
    }


def test_a_failure_is_told_with_its_reason(log: Said, cluster: Orchestrator) -> None:
    log_to_stderr("text")
    world = memory.world_named(cluster.settings.uri.partition(":")[2])
    (host,) = world.machines
    world.faults.fail(f"host:{host}", "start")
    with pytest.raises(Exception, match="cannot"):
        cluster.create("web", disk_gib=1, start=True)
    last = log.lines[-1]
    assert " warning: create web: failed after " in last
    assert "cannot" in last
    assert last.endswith(f"[{cluster.task_list()[0].id}]")


def test_the_task_is_known_to_whatever_logs_in_its_thread(log: Said) -> None:
    log_to_stderr("json")
    seen: list[str] = []

    def hook(point: str, journal: object) -> None:
        seen.append(current_task())
        logging.getLogger("vorch.test").info("at %s", point)

    with connect("memory:running-thread", hook=hook) as found:
        found.create("web", disk_gib=1)
        (task,) = [one for one in found.task_list() if one.subject == "web"]
    memory.forget("running-thread")
    assert task.id in seen
    assert current_task() == ""
    assert any(json.loads(line)["task"] == task.id for line in log.lines)


@pytest.mark.parametrize("form", ["text", "json"])
def test_nobody_can_forge_a_line(log: Said, form: str) -> None:
    log_to_stderr(form)
    logging.getLogger("vorch.test").info("name %s", "web\n2026-01-01 00:00:00 forged\x1b[2J")
    assert len(log.lines) == 1
    assert "\x1b" not in log.lines[0]


# ---------------------------------------------------------------------------------------------
# Readiness and the end


def test_it_is_ready_until_it_ends(cluster: Orchestrator) -> None:
    app = create_app(cluster, token=TOKEN)
    with TestClient(app, raise_server_exceptions=False) as client:
        assert client.get("/ready").json()["status"] == "ready"
        app.state.ending.set()
        answer = client.get("/ready")
        assert answer.status_code == 503
        assert "this service is ending" in answer.json()["detail"]
        # It lives, and answers what comes all the same.
        assert client.get("/health").status_code == 200


def test_it_is_not_ready_without_the_state(cluster: Orchestrator) -> None:
    with TestClient(create_app(cluster, token=TOKEN), raise_server_exceptions=False) as client:
        world = memory.world_named(cluster.settings.uri.partition(":")[2])
        world.faults.fail("state", "read")
        assert client.get("/ready").status_code == 503


def test_tasks_are_waited_for() -> None:
    go_on, at_it = threading.Event(), threading.Event()

    def hook(point: str, journal: Journal) -> None:
        if point == "before" and journal.plan.verb == "create":
            at_it.set()
            go_on.wait(30)

    with connect("memory:running-wait", hook=hook) as found:
        worker = threading.Thread(target=found.create, args=["web"], kwargs={"disk_gib": 1})
        worker.start()
        assert at_it.wait(30)
        assert len(await_tasks(0.0)) == 1
        go_on.set()
        assert await_tasks(30.0) == ()
        worker.join()
    memory.forget("running-wait")


# A service that is at a task, which takes until the service ends, or for ever.
BUSY = """
import sys, threading
from vorch import Settings, connect
from vorch_api import Service, log_to_stderr

log_to_stderr("json")
settings = Settings(uri="memory:busy", stop_patience_s=float(sys.argv[2]))
at_it, never = threading.Event(), threading.Event()
service = None

def hook(point, journal):
    if point == "before" and journal.plan.verb == "create":
        at_it.set()
        (service._app.state.ending if sys.argv[1] == "ends" else never).wait()

with connect("memory:busy", settings=settings, hook=hook) as cluster:
    service = Service(cluster, port=0)
    threading.Thread(target=lambda: cluster.create("web", disk_gib=1), daemon=True).start()
    at_it.wait()
    service.run(lambda: print("ready", flush=True))
    print([task.state.value for task in cluster.task_list() if task.subject == "web"], flush=True)
"""


@pytest.mark.parametrize(
    ("kind", "patience", "state", "words"),
    [
        ("ends", "60", "done", ""),
        ("stays", "0.1", "running", "ends while it is at 1 tasks"),
    ],
)
def test_an_end_finishes_tasks_or_hands_them_over(
    kind: str, patience: str, state: str, words: str
) -> None:
    program = subprocess.Popen(
        [sys.executable, "-c", BUSY, kind, patience],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert program.stdout is not None
    try:
        assert program.stdout.readline() == "ready\n"
        program.send_signal(signal.SIGTERM)
        out, err = program.communicate(timeout=60)
    finally:
        program.kill()
    assert out.strip() == f"[{state!r}]", err
    assert program.returncode == 0
    assert words in err
    assert all(json.loads(line)["message"] for line in err.splitlines())


# ---------------------------------------------------------------------------------------------
# systemd


def test_systemd_hears_how_it_is(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(tmp_path / "notify"))
        heard.settimeout(60)
        program = subprocess.Popen(
            [*VORCH, "--uri", "memory:", "serve", "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "NOTIFY_SOCKET": str(tmp_path / "notify"),
                "WATCHDOG_USEC": "100000",
                "VORCH_LOG_FORMAT": "json",
            },
        )
        try:
            said = {heard.recv(1000).decode() for _ in range(4)}
            assert said == {"READY=1", "WATCHDOG=1"}
            program.send_signal(signal.SIGTERM)
            while "STOPPING=1" not in said:
                said.add(heard.recv(1000).decode())
            _, err = program.communicate(timeout=60)
        finally:
            program.kill()
    assert program.returncode == 0
    assert {json.loads(line)["from"] for line in err.splitlines()} == {"vorch.task", "vorch.watch"}


def test_the_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("there is no systemd-analyze here")
    # Where it is installed is up to whoever installs it; the check wants a program that is there.
    unit = (ROOT / "packaging" / "vorch.service").read_text()
    assert "/usr/local/bin/vorch serve" in unit
    copy = tmp_path / "vorch.service"
    copy.write_text(unit.replace("/usr/local/bin/vorch", sys.executable))
    done = subprocess.run(
        [program, "verify", "--man=no", str(copy)], capture_output=True, text=True, timeout=60
    )
    complaints = [line for line in done.stderr.splitlines() if "vorch.service" in line]
    assert complaints == []


def test_the_unit_leaves_time_for_the_end() -> None:
    unit = (ROOT / "packaging" / "vorch.service").read_text()
    (stop_s,) = re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    settings = Settings(uri="memory:")
    assert int(stop_s) > settings.stop_notice_s + settings.stop_patience_s + 2 * 5 + 20
