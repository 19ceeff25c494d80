"""The State contract among real processes, some of which are killed: nothing lost or done twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.contract.state_worker import LED
from tests.contract.states import SHARED, Store, made, parameters
from vorch.ports import Change

ROOT = Path(__file__).parents[2]
COUNT = 60
WORKERS = ("a", "b", "c", "d")
KILLED = ("b", "d")


@pytest.fixture(params=parameters(SHARED))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    yield from made(request.param, tmp_path, request)


@pytest.fixture
def start(store: Store, tmp_path: Path) -> Iterator[Callable[[str], subprocess.Popen[bytes]]]:
    started = []

    def begin(name: str) -> subprocess.Popen[bytes]:
        worker = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.contract.state_worker",
                store.name,
                store.address,
                name,
                str(COUNT),
                str(tmp_path / "log"),
            ],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        started.append(worker)
        return worker

    yield begin
    for worker in started:
        worker.kill()
        worker.wait()


def lines(path: Path) -> list[list[str]]:
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def go(store: Store, log: Path, workers: int) -> None:
    """Let them begin together, when all have come so far."""
    state = store.connect()
    give_up = time.monotonic() + 60
    while sum(words[0] == "ready" for words in lines(log)) < workers:
        assert time.monotonic() < give_up
        time.sleep(0.01)
    state.commit([Change("go/one", 0, {})])


def added(path: Path, name: str) -> int:
    return sum(words[0] == "added" and words[1].startswith(f"{name}:") for words in lines(path))


def test_nothing_is_lost_or_doubled_when_processes_are_killed(
    store: Store, start: Callable[[str], subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    workers = {name: start(name) for name in WORKERS}
    go(store, log, len(WORKERS))
    give_up = time.monotonic() + 60
    pending = set(KILLED)
    while pending:
        assert time.monotonic() < give_up
        for name in sorted(pending):
            # In the middle of whatever it is doing just then.
            if added(log, name) >= 10:
                workers[name].send_signal(signal.SIGKILL)
                pending.discard(name)
        time.sleep(0.002)
    for name, worker in workers.items():
        code = worker.wait(60)
        assert code == (-signal.SIGKILL if name in KILLED else 0)

    state = store.connect()
    found = state.read(["counter", "set"])
    members = found["set/one"].body["members"]
    assert found["counter/one"].body["count"] == len(members)
    assert len(set(members)) == len(members)
    told = {words[1] for words in lines(log) if words[0] == "added"}
    assert told <= set(members)
    # A killed one may have committed once more than it could tell.
    for name in WORKERS:
        own = [member for member in members if member.startswith(f"{name}:")]
        assert own == [f"{name}:{number}" for number in range(len(own))]
        assert len(own) == COUNT if name not in KILLED else len(own) <= added(log, name) + 1

    check_leases(lines(log))


def check_leases(log: list[list[str]]) -> None:
    inside: list[str] | None = None
    last = 0
    entered = 0
    for words in log:
        if words[0] == "enter":
            epoch = int(words[1])
            assert epoch > last, f"epoch {epoch} after {last}"
            # Whoever is still inside was killed there, and its lease had to run out first.
            assert inside is None or inside[2] in KILLED, f"{words} while {inside}"
            inside, last = words, epoch
            entered += 1
        elif words[0] == "leave":
            assert inside is not None
            assert inside[1:] == words[1:]
            inside = None
    assert entered >= LED * (len(WORKERS) - len(KILLED))


def test_a_watcher_hears_of_another_process_soon(
    store: Store, start: Callable[[str], subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    state = store.connect()
    start("a")
    go(store, tmp_path / "log", 1)
    revision, seen = 0, set[str]()
    give_up = time.monotonic() + 30
    while not {"counter/one", "set/one", "register/one"} <= seen:
        assert time.monotonic() < give_up
        revision, keys = state.changes(revision, 30)
        seen.update(keys)


def test_processes_may_make_the_same_store_at_once(
    store: Store, start: Callable[[str], subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    workers = [start(name) for name in ("a", "b", "c")]
    go(store, tmp_path / "log", len(workers))
    for worker in workers:
        assert worker.wait(60) == 0
    assert store.connect().read(["counter"])["counter/one"].body == {"count": 3 * COUNT}
