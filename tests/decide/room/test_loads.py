"""Cores in use, out of the counters that hosts show: restarts, moves, gaps, and what is written."""

from __future__ import annotations

import dataclasses

import pytest

from tests.decide import worlds
from vorch.decide.room.loads import (
    FRESH_S,
    TIME_CONSTANT_S,
    WRITE_AFTER_S,
    WRITE_WITHIN_S,
    Loads,
    Measured,
    is_fresh,
    measured,
    taken_over,
    to_write,
)
from vorch.errors import Invalid
from vorch.model import Cluster, Power

VM = worlds.vm("a", 1)


def showing(seconds: float, *, node: str = "h1", power: Power | None = Power.RUNNING) -> Cluster:
    """A look at which the VM has used so many seconds of a processor."""
    cluster = worlds.cluster(VM, power=power, nodes=(worlds.node("h1"), worlds.node("h2")))
    return dataclasses.replace(
        cluster,
        domains={
            one.id: dataclasses.replace(one, node=node, cpu_time_ns=int(seconds * 1e9))
            for one in cluster.domains.values()
        },
    )


def looks(*shown: tuple[float, Cluster]) -> Measured:
    found = Measured()
    for now, cluster in shown:
        found = measured(found, cluster, now)
    return found


def test_two_looks_tell_how_much_is_in_use() -> None:
    assert looks((0.0, showing(5.0))).cores == {}
    assert looks((0.0, showing(5.0)), (10.0, showing(20.0))).cores == {"a": pytest.approx(1.5)}


def test_looks_that_are_too_near_to_each_other_are_one() -> None:
    found = looks((0.0, showing(0.0)), (0.5, showing(3.0)), (10.0, showing(10.0)))
    assert found.cores == {"a": pytest.approx(1.0)}


def test_what_was_long_ago_counts_for_less() -> None:
    busy = [(float(now), showing(2.0 * now)) for now in range(0, 601, 10)]
    then = [(600.0 + now, showing(1200.0)) for now in range(10, int(2 * TIME_CONSTANT_S) + 10, 10)]
    assert looks(*busy).cores["a"] == pytest.approx(2.0)
    after = looks(*busy, *then).cores["a"]
    assert 0.0 < after < 0.35
    # However often it is looked, it comes to the same.
    assert looks(*busy[::6], *then[::6], then[-1]).cores["a"] == pytest.approx(after, rel=0.1)


def test_a_gap_costs_nothing() -> None:
    found = looks((0.0, showing(0.0)), (10.0, showing(10.0)), (36_000.0, showing(36_000.0)))
    assert found.cores["a"] == pytest.approx(1.0)


@pytest.mark.parametrize("again", [showing(1.0), showing(1.0, node="h2")], ids=["new", "moved"])
def test_a_counter_that_begins_anew_is_no_load(again: Cluster) -> None:
    before = ((0.0, showing(100.0)), (10.0, showing(120.0)))
    assert looks(*before, (20.0, again)).cores["a"] == pytest.approx(2.0)
    node = next(iter(again.domains.values())).node
    on = measured(looks(*before, (20.0, again)), showing(11.0, node=node), 30.0).cores["a"]
    assert 1.0 < on < 2.0


def test_a_move_is_seen_though_the_new_counter_is_higher() -> None:
    before = ((0.0, showing(0.0)), (10.0, showing(10.0)))
    assert looks(*before, (20.0, showing(900.0, node="h2"))).cores["a"] == pytest.approx(1.0)


def test_who_is_off_is_forgotten_and_who_cannot_be_seen_is_not() -> None:
    before = looks((0.0, showing(0.0)), (10.0, showing(10.0)))
    assert measured(before, showing(0.0, power=None), 20.0).cores == {}
    silent = dataclasses.replace(showing(0.0, power=None), domains={}, silent={"h1": "silence"})
    hidden = measured(before, silent, 20.0)
    assert hidden.cores == before.cores
    assert measured(hidden, showing(40.0), 40.0).cores["a"] == pytest.approx(1.0)


def test_what_was_written_is_gone_on_with_while_it_is_fresh() -> None:
    written = Loads(at=1000.0, cores={"a": 2.0})
    assert is_fresh(written, 1000.0 + FRESH_S)
    assert not is_fresh(written, 1001.0 + FRESH_S)
    assert not is_fresh(None, 0.0)
    assert taken_over(written, 5000.0).cores == {}
    found = taken_over(written, 1010.0)
    assert found.cores == {"a": 2.0}
    found = measured(measured(found, showing(0.0), 1010.0), showing(0.0), 1070.0)
    assert 1.7 < found.cores["a"] < 2.0


def test_it_is_written_seldom() -> None:
    one = looks((0.0, showing(0.0)), (10.0, showing(10.0)))
    more = looks((0.0, showing(0.0)), (10.0, showing(15.0)))
    like = looks((0.0, showing(0.0)), (10.0, showing(11.0)))
    assert to_write(None, Measured(), 0.0) is None
    first = to_write(None, one, 10.0)
    assert first == Loads(at=10.0, cores={"a": 1.0})
    assert to_write(first, more, 10.0 + WRITE_AFTER_S - 1) is None
    assert to_write(first, like, 10.0 + WRITE_AFTER_S) is None
    assert to_write(first, more, 10.0 + WRITE_AFTER_S) == Loads(at=70.0, cores={"a": 1.5})
    assert to_write(first, like, 10.0 + WRITE_WITHIN_S) is not None
    assert to_write(first, Measured(), 10.0 + WRITE_AFTER_S) == Loads(at=70.0)


def test_a_document_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(Invalid):
        Loads(at=0.0, cores={"No Name": 1.0})
