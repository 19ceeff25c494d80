"""The loop in its thread: what it says, how it ends, and what becomes of a crash."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

import vorch
from vorch import WatchLoop, why_no_watch
from vorch.orchestrator.kept import LEASE
from vorch.questions import Questions
from vorch.watch import Watch

SETTINGS = vorch.Settings(uri="memory:", ha_every_s=0.01)


class Heard:
    """Lines of the log, and a wait for one of them."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._news = threading.Condition()

    def __call__(self, line: str) -> None:
        with self._news:
            self.lines.append(line)
            self._news.notify_all()

    def wait(self, wanted: Callable[[str], bool]) -> None:
        with self._news:
            assert self._news.wait_for(lambda: any(map(wanted, self.lines)), 30), self.lines


@pytest.fixture
def heard() -> Heard:
    return Heard()


def not_expected(exc: BaseException) -> None:
    raise exc


def test_it_leads_says_each_thing_once_and_gives_the_lease_back(heard: Heard) -> None:
    with vorch.connect(settings=SETTINGS) as cluster:
        loop = WatchLoop(cluster, say=heard, crashed=not_expected)
        loop.start()
        heard.wait(lambda line: "this vorch leads, as number 1" in line)
        # So many rounds that a sentence would have been said again.
        steps = threading.Event()
        steps.wait(0.2)
        assert cluster.world.state.lease(LEASE) is not None
        loop.stop()
        assert loop.join(0)
        lease = cluster.world.state.lease(LEASE)
        assert lease is None or lease.expires_at <= cluster.world.clock.now()
        assert sorted(set(heard.lines)) == sorted(heard.lines)
        assert any(
            line.startswith("node ") and "online: it answers" in line for line in heard.lines
        )


def test_who_does_not_lead_says_who_does(heard: Heard) -> None:
    with vorch.connect(settings=SETTINGS) as cluster:
        state, clock = cluster.world.state, cluster.world.clock
        lease = state.acquire(LEASE, "someone@elsewhere 7", 3600, now=clock.now())
        assert lease is not None
        loop = WatchLoop(cluster, say=heard, crashed=not_expected)
        loop.start()
        heard.wait(lambda line: "stands by: someone@elsewhere leads, as number 1" in line)
        state.release(lease)
        heard.wait(lambda line: "this vorch leads, as number 2" in line)
        loop.stop()


def test_what_is_in_the_way_is_said(heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    def acquire(*_: Any, **__: Any) -> None:
        raise vorch.Unreachable("cannot read the state: Ceph says nothing; see that it runs")

    with vorch.connect(settings=SETTINGS) as cluster:
        monkeypatch.setattr(cluster.world.state, "acquire", acquire)
        loop = WatchLoop(cluster, say=heard, crashed=not_expected)
        loop.start()
        heard.wait(lambda line: "Ceph says nothing" in line)
        monkeypatch.undo()
        heard.wait(lambda line: "this vorch leads" in line)
        loop.stop()


def test_a_crash_is_told(heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    def step(self: Watch) -> None:
        raise ZeroDivisionError("a mistake")

    monkeypatch.setattr(Watch, "step", step)
    crashes: list[BaseException] = []
    with vorch.connect(settings=SETTINGS) as cluster:
        loop = WatchLoop(cluster, say=heard, crashed=crashes.append)
        loop.start()
        assert loop.join(30)
        loop.stop()
    assert [str(crash) for crash in crashes] == ["a mistake"]


def test_where_nothing_can_be_watched_over_it_is_said_why() -> None:
    with vorch.connect(settings=SETTINGS) as cluster:
        assert "on this machine alone" in why_no_watch(cluster)


# ---------------------------------------------------------------------------------------------
# Questions


def test_a_question_that_is_not_answered_in_time_is_asked_once() -> None:
    questions = Questions(threads=True)
    let, asked = threading.Event(), []

    def ask() -> int:
        asked.append(1)
        let.wait(30)
        return len(asked)

    assert questions.begin("h1", ask, 0.01).wait() is None
    assert questions.begin("h1", ask, 0.01).wait() is None
    assert asked == [1]
    let.set()
    # The first answer is of long ago; this is another one.
    assert questions.begin("h1", ask, 30).wait() == 2


def test_the_latest_answer_is_not_waited_for() -> None:
    questions = Questions(threads=True)
    let, answered = threading.Event(), threading.Event()

    def ask() -> str:
        let.wait(30)
        answered.set()
        return "here"

    assert questions.latest("h1", ask) is None
    assert questions.latest("h1", ask) is None
    let.set()
    assert answered.wait(30)
    while (found := questions.latest("h1", ask)) is None:
        answered.wait(0.01)
    assert found == "here"


def test_what_is_forgotten_is_not_the_latest_answer() -> None:
    """A host that was dead, came back and is dead again: its old answer is no sign of life."""
    questions, answered = Questions(threads=True), threading.Event()

    def ask() -> str:
        answered.set()
        return "here"

    assert questions.latest("h1", ask) is None
    assert answered.wait(30)
    while questions.latest("h1", ask) is None:
        answered.wait(0.01)
    # Each time it is asked anew, so that an answer lies there that nobody has seen yet.
    for _ in range(3):
        questions.forget("h1")
        assert questions.latest("h1", ask) is None


def test_what_a_question_raises_is_raised_where_it_is_waited_for() -> None:
    def ask() -> None:
        raise vorch.Unreachable("cannot reach it")

    for threads in (True, False):
        with pytest.raises(vorch.Unreachable):
            Questions(threads=threads).begin("h1", ask, 30).wait()
