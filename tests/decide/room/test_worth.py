"""What a move or an exchange is said to change is what it changes, by every metric."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.decide.room.fleets import fleets
from vorch.decide.room.evenness import Metric, terms
from vorch.decide.room.fleet import Fleet
from vorch.decide.room.price import Pricing, prices
from vorch.decide.room.search import Search
from vorch.decide.room.table import Ints, Table

RATE = 0.01
# Where all is even, what rounding leaves of a variance has a root that is no small number any more.
ROUNDING = 1e-6


def searched(fleet: Fleet, metric: Metric) -> Search:
    table = Table(fleet)
    return Search(table, terms(table, metric), prices(table, Pricing()))


def one(number: int) -> Ints:
    return np.array([number], dtype=np.int64)


@pytest.mark.parametrize("metric", ["vorch", "norm", "htools"])
@settings(max_examples=25, deadline=None)
@given(fleets(placed=True), st.data())
def test_moves_and_exchanges_are_judged_exactly(
    metric: Metric, fleet: Fleet, chosen: st.DataObject
) -> None:
    search = searched(fleet, metric)
    guests, hosts = len(fleet.guests), len(fleet.hosts)
    if not guests:
        return
    # Rules and hosts without room are judged apart from the figure.
    search.relief[:] = 0.0
    search.crowded = False
    for _ in range(4):
        row = chosen.draw(st.integers(0, guests - 1))
        host = chosen.draw(st.integers(0, hosts - 1))
        if host == search.table.at[row]:
            continue
        before, spent = search.figure(), search.spent(search.prices)
        said = float(search.moved(one(row), one(host), RATE)[0])
        search.move(row, host)
        search.relief[:] = 0.0
        came = search.figure() - before + RATE * (search.spent(search.prices) - spent)
        assert said == pytest.approx(came, abs=ROUNDING)
    row = chosen.draw(st.integers(0, guests - 1))
    other = chosen.draw(st.integers(0, guests - 1))
    here, there = int(search.table.at[row]), int(search.table.at[other])
    if here != there:
        before, spent = search.figure(), search.spent(search.prices)
        said = float(search.exchanged(one(row), one(other), RATE)[0])
        search.move(row, there)
        search.move(other, here)
        came = search.figure() - before + RATE * (search.spent(search.prices) - spent)
        assert said == pytest.approx(came, abs=ROUNDING)
