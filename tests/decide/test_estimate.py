"""How long a live migration takes: arithmetic that must not promise what cannot be."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.decide.worlds import vm
from vorch.decide import estimate
from vorch.decide.estimate import Speed
from vorch.errors import Conflict
from vorch.model import Task, TaskState
from vorch.plan import MigrateDomain, Plan

STEP = MigrateDomain(
    vm=vm(memory_mib=4096, memory_max_mib=4096),
    target="h2",
    uri="qemu+tls://h2/system",
    pause_limit_ms=300,
)
SET = Speed(100.0, "it was set")


def test_an_idle_guest_takes_its_memory_over_the_speed() -> None:
    found = estimate.estimate(STEP, SET, 0.0, 4096)
    assert (found.takes_s, found.pause_ms, found.slowed_percent) == (41.0, 0, 0)


def test_each_round_is_smaller_by_what_the_guest_writes() -> None:
    # 40.96 s, half of it, a quarter …, until 30 MiB fit into 300 ms.
    found = estimate.estimate(STEP, SET, 50.0, 4096)
    assert 75 < (found.takes_s or 0) < 82
    assert 0 < (found.pause_ms or 0) <= 300


@given(
    st.integers(16, 1 << 20),
    st.floats(0, 1e5),
    st.floats(0.1, 1e5),
    st.integers(1, 10_000),
)
def test_it_is_never_less_than_sending_all_of_it_once(
    memory_mib: int, writes: float, speed: float, pause_ms: int
) -> None:
    step = dataclasses.replace(STEP, pause_limit_ms=pause_ms)
    found = estimate.estimate(step, Speed(speed, ""), writes, memory_mib)
    assert found.takes_s is not None
    assert found.takes_s >= round(memory_mib / speed, 1)
    assert 0 <= (found.pause_ms or 0) <= pause_ms
    assert (found.slowed_percent > 0) == (writes > 0.9 * speed)
    more = estimate.estimate(step, Speed(speed, ""), writes, memory_mib * 2)
    assert (more.takes_s or 0) >= found.takes_s


def test_what_is_not_known_is_not_made_up() -> None:
    found = estimate.estimate(STEP, Speed(None, "nobody measured it"), 50.0, 4096)
    assert found.takes_s is found.pause_ms is None
    assert "unknown: nobody measured it" in str(found)
    plan = Plan(verb="migrate", subject="web", why="to h2")
    assert estimate.weighed(plan, STEP, found, slowdown_limit_percent=0, force=False).expected


def test_a_hopeless_one_says_its_figures() -> None:
    plan = Plan(verb="migrate", subject="web", why="to h2")
    found = estimate.estimate(STEP, SET, 900.0, 4096)
    assert found.slowed_percent == 90
    with pytest.raises(Conflict, match=r"900 MiB/s .* 100 MiB/s .* 90 %") as caught:
        estimate.weighed(plan, STEP, found, slowdown_limit_percent=80, force=False)
    assert caught.value.fields["slowed_percent"] == 90
    for step, force in ((STEP, True), (dataclasses.replace(STEP, postcopy_after_s=60.0), False)):
        weighed = estimate.weighed(plan, step, found, slowdown_limit_percent=80, force=force)
        assert weighed.expected["slowed_percent"] == 90


def task(number: int, speed: float, **result: object) -> Task:
    told = {"source": "h1", "node": "h2", "speed_mib_s": speed, "sent_mib": 512, **result}
    return Task(
        id=f"t{number}",
        verb="migrate",
        subject="web",
        why="",
        who="me",
        started_at=float(number),
        state=TaskState.DONE,
        result=told,
    )


def test_the_speed_is_what_the_last_moves_reached() -> None:
    tasks = [task(number, 10.0 * number) for number in range(1, 9)]
    found = estimate.link_speed(0, tasks, "h2", "h1")
    assert found.mib_s == 60.0
    assert "5 earlier" in found.why
    assert estimate.link_speed(7, tasks, "h1", "h2") == Speed(7.0, "migration_bandwidth_mib_s")


@pytest.mark.parametrize(
    "useless",
    [
        task(1, 50.0, node="h3"),
        # Held back, and over before it was at full speed.
        task(1, 50.0, limit_mib_s=50),
        task(1, 50.0, sent_mib=3),
        dataclasses.replace(task(1, 50.0), state=TaskState.CANCELLED),
        dataclasses.replace(task(1, 50.0), verb="clone"),
        dataclasses.replace(task(1, 50.0), result={"source": "h1", "node": "h2"}),
    ],
)
def test_moves_that_say_nothing_of_the_link(useless: Task) -> None:
    assert estimate.link_speed(0, [useless], "h1", "h2").mib_s is None
