"""How fast guests write to their memory: what counts, what is kept, and who is measured."""

from __future__ import annotations

import pytest

from vorch.decide.room.writes import (
    FRESH_S,
    MOST_PER_HOST,
    Rate,
    Writes,
    known,
    to_measure,
    with_new,
)
from vorch.errors import Invalid


def test_what_is_old_counts_no_more() -> None:
    written = Writes(rates={"a": Rate(mib_s=5.0, at=100.0), "b": Rate(mib_s=7.0, at=2000.0)})
    assert known(None, 0.0) == {}
    assert known(written, 2000.0) == {"a": 5.0, "b": 7.0}
    assert known(written, 101.0 + FRESH_S) == {"b": 7.0}
    after = with_new(written, {"b": 1.26, "c": 0.0}, 101.0 + FRESH_S)
    assert after == Writes(
        rates={
            "b": Rate(mib_s=1.3, at=101.0 + FRESH_S),
            "c": Rate(mib_s=0.0, at=101.0 + FRESH_S),
        }
    )
    assert with_new(None, {}, 1.0) == Writes()


def test_only_who_is_not_known_is_measured_and_few_of_a_host() -> None:
    moves = [("a", "h2"), ("b", "h1"), ("a", "h2"), ("c", "h2")]
    assert to_measure(moves, {"b": 0.0}) == {"h2": ("a", "c")}
    assert to_measure(moves, {"a": 1.0, "b": 1.0, "c": 1.0}) == {}
    many = [(f"v{number}", "h1") for number in range(50)]
    assert to_measure(many, {}) == {"h1": tuple(f"v{n}" for n in range(MOST_PER_HOST))}


def test_names_are_those_of_vms() -> None:
    with pytest.raises(Invalid):
        Writes(rates={"../x": Rate(mib_s=1.0, at=0.0)})
