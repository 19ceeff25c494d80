"""Medians and spread, and what may be said of two sets of figures."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vorch_install_time.spread import compared, spread

FIGURES = st.lists(st.floats(0, 1e6), min_size=1, max_size=30)


def test_one_figure_has_no_spread() -> None:
    found = spread([3.0])
    assert (found.count, found.median, found.lowest, found.highest) == (1, 3.0, 3.0, 3.0)
    assert (found.lower_quarter, found.upper_quarter) == (None, None)


def test_quarters_of_enough_figures() -> None:
    found = spread([5.0, 1.0, 2.0, 4.0, 3.0])
    assert (found.lower_quarter, found.median, found.upper_quarter) == (2.0, 3.0, 4.0)


@settings(deadline=None)
@given(FIGURES)
def test_the_median_lies_between(figures: list[float]) -> None:
    found = spread(figures)
    assert found.lowest <= found.median <= found.highest


@pytest.mark.parametrize(
    ("one", "other", "apart"),
    [
        ([1, 2, 3], [4, 5, 6], True),
        ([4, 5, 6], [1, 2, 3], True),
        ([1, 2, 4], [4, 5, 6], False),
        ([1, 2, 9], [4, 5, 6], False),
        ([1, 2], [4, 5, 6], None),
    ],
)
def test_what_overlaps_is_not_told_apart(
    one: list[float], other: list[float], apart: bool | None
) -> None:
    assert compared(one, other).apart is apart


def test_words_say_how_much_and_how_sure() -> None:
    assert str(compared([1, 1, 1], [2, 2, 2])) == "× 2.00"
    assert "not told apart" in str(compared([1, 1, 5], [2, 2, 2]))
    assert "no more than a hint" in str(compared([1], [2]))
    assert math.isnan(compared([0, 0, 0], [1, 1, 1]).ratio)
    assert "no ratio" in str(compared([0, 0, 0], [1, 1, 1]))


@settings(deadline=None)
@given(FIGURES, FIGURES)
def test_which_is_first_does_not_matter(one: list[float], other: list[float]) -> None:
    assert compared(one, other).apart == compared(other, one).apart
