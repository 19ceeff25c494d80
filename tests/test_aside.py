"""Threads that hold up no process: what they do comes back, in order, and no more at a time."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from vorch.aside import Workers, begin, side_by_side


def test_what_was_begun_tells_what_came_of_it() -> None:
    assert begin(lambda: 7).result(10) == 7
    with pytest.raises(ZeroDivisionError):
        begin(lambda: 1 / 0).result(10)


def test_answers_are_in_the_order_of_the_questions() -> None:
    turn = threading.Barrier(3)

    def act(number: int) -> int:
        turn.wait(10)
        return number * 2

    assert side_by_side(act, [1, 2, 3], most=8) == [2, 4, 6]
    assert side_by_side(act, [], most=8) == []


def test_the_first_error_is_told() -> None:
    with pytest.raises(ValueError, match="two"):
        side_by_side(lambda one: int("two") if one == 2 else one, [1, 2, 3], most=1)


def test_workers_do_so_many_at_a_time_and_the_others_in_turn() -> None:
    workers = Workers(2, name="test")
    go_on, done = threading.Event(), threading.Semaphore(0)
    began: list[int] = []
    two_began = threading.Barrier(3)

    def act(number: int) -> None:
        began.append(number)
        if number < 2:
            two_began.wait(10)
            go_on.wait(10)
        done.release()

    for number in range(5):
        workers.submit(lambda number=number: act(number))  # type: ignore[misc]
    two_began.wait(10)
    assert sorted(began) == [0, 1]
    go_on.set()
    for _ in range(5):
        assert done.acquire(timeout=10)
    assert began[2:] == [2, 3, 4]


def test_one_that_waits_takes_what_comes_and_none_is_started_for_it() -> None:
    workers = Workers(8, name="test-one")
    done = threading.Semaphore(0)
    workers.submit(done.release)
    assert done.acquire(timeout=10)
    ours = [one for one in threading.enumerate() if one.name == "test-one"]
    # It may be between its first act and its wait for the next.
    for _ in range(20):
        workers.submit(done.release)
        assert done.acquire(timeout=10)
    now = [one for one in threading.enumerate() if one.name == "test-one"]
    assert len(ours) == 1
    assert len(now) <= 2


def test_the_end_lets_finish_what_is_at_work_and_no_more() -> None:
    workers = Workers(2, name="test-end")
    go_on, over = threading.Event(), threading.Event()
    both_began = threading.Barrier(3)
    too_late: list[str] = []

    def first() -> None:
        both_began.wait(10)
        go_on.wait(10)
        over.set()

    def threads() -> list[threading.Thread]:
        return [one for one in threading.enumerate() if one.name == "test-end"]

    idle = threading.Event()
    workers.submit(first)
    workers.submit(lambda: both_began.wait(10))
    both_began.wait(10)
    # This one's thread waits for the next.
    workers.submit(idle.set)
    assert idle.wait(10)
    workers.end()
    workers.submit(lambda: too_late.append("asked for when it was over"))
    go_on.set()
    assert over.wait(10)
    for one in threads():
        one.join(10)
    assert threads() == []
    assert too_late == []


def test_what_waits_when_it_ends_never_begins() -> None:
    workers = Workers(1, name="test-drop")
    began, go_on = threading.Event(), threading.Event()
    too_late: list[str] = []

    def first() -> None:
        began.set()
        go_on.wait(10)

    workers.submit(first)
    assert began.wait(10)
    (thread,) = [one for one in threading.enumerate() if one.name == "test-drop"]
    workers.submit(lambda: too_late.append("it was dropped"))
    workers.end()
    go_on.set()
    thread.join(10)
    assert not thread.is_alive()
    assert too_late == []


def test_none_of_them_keeps_a_process_from_ending() -> None:
    code = (
        "import threading\n"
        "from vorch.aside import Workers, begin\n"
        "never = threading.Event()\n"
        "begin(never.wait)\n"
        "Workers(1, name='x').submit(never.wait)\n"
        "print('over')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "over\n"
