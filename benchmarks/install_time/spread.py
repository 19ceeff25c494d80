"""Medians and spread of few figures, and whether two sets of them can be told apart. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

# With fewer, a range says nothing about where the next one would be.
FEWEST = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    count: int
    median: float
    lowest: float
    highest: float
    # None with fewer than four figures.
    lower_quarter: float | None
    upper_quarter: float | None


def spread(figures: Sequence[float]) -> Spread:
    """Of at least one figure."""
    ordered = sorted(figures)
    quarters = statistics.quantiles(ordered, n=4, method="inclusive") if len(ordered) > 3 else None
    return Spread(
        count=len(ordered),
        median=statistics.median(ordered),
        lowest=ordered[0],
        highest=ordered[-1],
        lower_quarter=quarters[0] if quarters else None,
        upper_quarter=quarters[2] if quarters else None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What can be said of the second set of figures beside the first."""

    # Of the medians, second to first; nan where the first is 0.
    ratio: float
    # None: too few figures to say.
    apart: bool | None

    def __str__(self) -> str:
        if math.isnan(self.ratio):
            return "no ratio: the first is 0"
        words = f"× {self.ratio:.2f}"
        if self.apart is None:
            return f"{words}; fewer than {FEWEST} runs of one of them: no more than a hint"
        return words if self.apart else f"{words}, but the ranges overlap: not told apart"


def compared(first: Sequence[float], second: Sequence[float]) -> Verdict:
    """Told apart: every figure of one is above every figure of the other, and there are three."""
    one, other = spread(first), spread(second)
    ratio = other.median / one.median if one.median > 0 else math.nan
    if min(one.count, other.count) < FEWEST:
        return Verdict(ratio=ratio, apart=None)
    return Verdict(ratio=ratio, apart=one.highest < other.lowest or other.highest < one.lowest)
