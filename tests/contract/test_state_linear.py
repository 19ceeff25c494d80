"""The state in Ceph is linearizable while processes, monitors and OSDs are killed."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.contract.ceph import ceph_of, namespace_of, rados_state, the_lab
from tests.contract.linear import (
    Operation,
    Outcome,
    counter_findings,
    register_findings,
    set_findings,
)
from vorch.errors import Unreachable
from vorch.lab import Lab
from vorch.ports import Change

ROOT = Path(__file__).parents[2]

# ---------------------------------------------------------------------------------------------
# The judge itself, on histories that were made by hand


def op(
    name: str,
    start: int,
    end: int | None,
    *,
    value: str | None = None,
    expected: str | None = None,
    result: Any = None,
    outcome: Outcome = "done",
) -> Operation:
    return Operation("p", name, start, end, outcome, value, expected, result)


SOUND = {
    "one after the other": [
        op("read", 0, 1),
        op("write", 2, 3, value="a"),
        op("read", 4, 5, result="a"),
        op("swap", 6, 7, value="b", expected="a"),
        op("read", 8, 9, result="b"),
    ],
    "a read beside a write may see it or not": [
        op("write", 0, 10, value="a"),
        op("read", 1, 2, result="a"),
        op("read", 3, 4, result="a"),
    ],
    "what was killed may have happened much later": [
        op("write", 0, None, value="a", outcome="unknown"),
        op("write", 1, 2, value="b"),
        op("read", 3, 4, result="b"),
        op("read", 5, 6, result="a"),
    ],
    "or never": [
        op("write", 0, None, value="a", outcome="unknown"),
        op("write", 1, 2, value="b"),
        op("read", 3, 4, result="b"),
    ],
    "a swap is refused when another value is there": [
        op("write", 0, 1, value="a"),
        op("swap", 2, 3, value="b", expected=None, outcome="refused"),
        op("read", 4, 5, result="a"),
    ],
    "three at once, in the one order that fits": [
        op("swap", 0, 9, value="c", expected="b"),
        op("swap", 0, 9, value="b", expected="a"),
        op("write", 0, 9, value="a"),
        op("read", 10, 11, result="c"),
    ],
}

BROKEN = {
    "a stale read": [
        op("write", 0, 1, value="a"),
        op("write", 2, 3, value="b"),
        op("read", 4, 5, result="a"),
    ],
    "back again": [
        op("write", 0, 10, value="a"),
        op("read", 1, 2, result="a"),
        op("read", 3, 4, result=None),
    ],
    "two swaps of the same value": [
        op("swap", 0, 5, value="a", expected=None),
        op("swap", 0, 5, value="b", expected=None),
    ],
    "an undone write that is seen": [
        op("write", 0, 1, value="a", outcome="undone"),
        op("read", 2, 3, result="a"),
    ],
    "a refusal for no reason": [
        op("write", 0, 1, value="a"),
        op("swap", 2, 3, value="b", expected="a", outcome="refused"),
    ],
    "an unclear one that happens twice": [
        op("write", 0, None, value="a", outcome="unknown"),
        op("read", 1, 2, result="a"),
        op("write", 3, 4, value="b"),
        op("read", 5, 6, result="a"),
    ],
    "half of a write": [op("write", 0, 1, value="a"), op("read", 2, 3, result="torn: a b")],
    "a lost write among many": [
        *(op("write", 2 * n, 2 * n + 1, value=f"w{n}") for n in range(200)),
        op("read", 500, 501, result="w198"),
        *(op("read", 502 + 2 * n, 503 + 2 * n, result="w199") for n in range(50)),
    ],
}


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_register_passes(name: str) -> None:
    assert register_findings(SOUND[name]) == []


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_register_is_found(name: str) -> None:
    assert register_findings(BROKEN[name]) != []


def test_the_search_agrees_with_trying_every_order() -> None:
    """On all small histories of a kind: two writers and two readers, any overlap."""
    times = ((0, 3), (2, 5), (4, 7))
    reads = (None, "a", "b")
    for (w, x, r, s), first, second in itertools.product(
        itertools.product(times, repeat=4), reads, reads
    ):
        history = [
            op("write", *w, value="a"),
            op("write", *x, value="b"),
            op("read", *r, result=first),
            op("read", *s, result=second),
        ]
        assert (register_findings(history) == []) == any_order(history), history


def any_order(history: list[Operation]) -> bool:
    for order in itertools.permutations(history):
        if any(b.before(a) for a, b in itertools.combinations(order, 2)):
            continue
        value = None
        for one in order:
            if one.name == "write":
                value = one.value
            elif one.result != value:
                break
        else:
            return True
    return False


def test_the_counter_is_judged() -> None:
    sound = [op("count", 0, 3, result=2), op("count", 1, 4, result=1), op("count", 5, 6, result=3)]
    assert counter_findings(sound, 3) == []
    killed = op("count", 5, None, outcome="unknown")
    assert counter_findings([*sound, killed], 3) == []
    assert counter_findings([*sound, killed], 4) == []
    assert counter_findings([*sound, killed], 5) != []
    assert counter_findings(sound, 2) != []
    lost = [op("count", 0, 3, result=1), op("count", 1, 4, result=1)]
    assert counter_findings(lost, 1) != []
    backwards = [op("count", 0, 1, result=2), op("count", 2, 3, result=1)]
    assert counter_findings(backwards, 2) != []
    refused = op("count", 0, 1, outcome="refused")
    assert counter_findings([refused], 1) != []


def test_the_set_is_judged() -> None:
    a, b = op("add", 0, 1, value="a"), op("add", 2, 3, value="b")
    killed = op("add", 0, None, value="k", outcome="unknown")
    refused = op("add", 0, 1, value="r", outcome="refused")
    assert set_findings([a, b, killed, refused], ["a", "b"]) == []
    assert set_findings([a, b, killed, refused], ["a", "b", "k"]) == []
    assert set_findings([a, b], ["a"]) != []
    assert set_findings([a, b], ["b", "a"]) != []
    assert set_findings([a, b], ["a", "b", "a"]) != []
    assert set_findings([a, b], ["a", "b", "x"]) != []
    assert set_findings([a, b, refused], ["a", "b", "r"]) != []


# ---------------------------------------------------------------------------------------------
# On a real Ceph

WORKERS = 5
KILLS = 4
# Shorter than the outage, so that some operations end without an answer.
TIMEOUT_S = 3.0
T = TypeVar("T")
NOTED = ("process", "name", "start", "end", "outcome", "value", "expected", "result")


class Crowd:
    """The processes that work on the store; `replace` kills one and starts another."""

    def __init__(self, uri: str, folder: Path) -> None:
        self.uri = uri
        self.folder = folder
        self.began_ns = time.monotonic_ns()
        self.running: list[subprocess.Popen[bytes]] = []
        self.count = 0
        self.killed = 0

    def start(self) -> None:
        self.count += 1
        name = f"w{self.count}"
        self.running.append(
            subprocess.Popen(
                [
                    *(sys.executable, "-m", "tests.contract.linear_worker", self.uri, name),
                    *(str(TIMEOUT_S), str(self.began_ns), str(self.folder / f"{name}.log")),
                ],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stderr=(self.folder / f"{name}.err").open("wb"),
            )
        )

    def replace(self) -> None:
        worker = self.running.pop(0)
        worker.send_signal(signal.SIGKILL)
        assert worker.wait(10) == -signal.SIGKILL, self.complaints()
        self.killed += 1
        self.start()

    def end(self) -> None:
        for worker in self.running:
            worker.kill()
            worker.wait()

    def complaints(self) -> str:
        return "\n".join(path.read_text()[-2000:] for path in self.folder.glob("*.err"))

    def history(self) -> dict[str, list[Operation]]:
        """What all of them noted, by counter, set and register."""
        found: dict[str, list[Operation]] = {}
        for path in sorted(self.folder.glob("*.log")):
            begun: dict[int, dict[str, Any]] = {}
            for line in path.read_text().splitlines():
                facts = json.loads(line)
                begun.setdefault(facts["id"], {"end": None, "outcome": "unknown"}).update(facts)
            for facts in begun.values():
                values: dict[str, Any] = {name: facts.get(name) for name in NOTED}
                operation = Operation(**values)
                found.setdefault(facts["place"], []).append(operation)
        return found


def when_it_answers(act: Callable[[], T]) -> T:
    """Ceph was without any OSD just now, and this machine may have other things to do."""
    until = time.monotonic() + 60
    while True:
        try:
            return act()
        except Unreachable:
            if time.monotonic() >= until:
                raise


@pytest.fixture
def healed(request: pytest.FixtureRequest) -> Iterator[Lab]:
    lab = the_lab(request)
    try:
        yield lab
    finally:
        lab.heal()


@pytest.fixture
def crowd(healed: Lab, tmp_path: Path) -> Iterator[Crowd]:
    with namespace_of(ceph_of(healed)) as uri:
        made = Crowd(uri, tmp_path)
        try:
            yield made
        finally:
            made.end()


@pytest.mark.lab
@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_state_is_linearizable_while_everything_is_killed(crowd: Crowd, healed: Lab) -> None:
    state = rados_state(crowd.uri)
    for _ in range(WORKERS):
        crowd.start()
    deadline = time.monotonic() + 20
    while state.get("counter/one") is None:
        assert time.monotonic() < deadline, "nobody began to count"
        time.sleep(0.05)

    def a_while(seconds: float) -> None:
        # Real work has to go on in real time for something to be cut short in it.
        time.sleep(seconds)

    a_while(2)
    crowd.replace()
    healed.osd_kill(0)
    a_while(2)
    crowd.replace()
    healed.heal()
    healed.mon_kill("a")
    a_while(2)
    crowd.replace()
    healed.heal()
    # No OSD at all, for longer than a client waits.
    for osd in healed.spec.osd_numbers:
        healed.osd_kill(osd)
    a_while(TIMEOUT_S + 1)
    healed.heal()
    a_while(2)
    crowd.replace()
    a_while(1)
    assert crowd.killed == KILLS

    when_it_answers(lambda: state.commit([Change("stop/all", None, {})]))
    for worker in crowd.running:
        assert worker.wait(60) == 0, crowd.complaints()
    took_s = (time.monotonic_ns() - crowd.began_ns) / 1e9

    final = when_it_answers(lambda: state.read(["counter", "set"]))
    state.close()
    places = crowd.history()
    history = [one for found in places.values() for one in found]
    told = {
        outcome: sum(one.outcome == outcome for one in history)
        for outcome in ("done", "refused", "undone", "unknown")
    }
    print(
        f"{len(history)} operations in {took_s:.1f} s ({len(history) / took_s:.0f}/s): {told};"
        f" {len(places) - 2} registers; {crowd.killed} processes killed"
    )
    findings = counter_findings(places.pop("counter"), final["counter/one"].body["count"])
    findings += set_findings(places.pop("set"), final["set/one"].body["members"])
    for register, operations in sorted(places.items()):
        findings += [f"register {register}: {one}" for one in register_findings(operations)]
    assert findings == []
    # Else nothing was put to the test.
    assert told["done"] > 500
    assert told["unknown"] >= 1
