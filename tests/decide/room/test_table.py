"""A fleet as arrays: sums that stay right, and what rules bar."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.decide.room import judge
from tests.decide.room.fleets import fleets, guest, host
from vorch.decide.room.fleet import Fleet, Needs, Spread, Together
from vorch.decide.room.table import NOWHERE, Table
from vorch.errors import Invalid, NotFound


@settings(max_examples=60, deadline=None)
@given(fleets(), st.lists(st.tuples(st.integers(0, 99), st.integers(-1, 99)), max_size=8))
def test_sums_after_moves_are_those_of_a_new_count(
    fleet: Fleet, moves: list[tuple[int, int]]
) -> None:
    table = Table(fleet)
    for which, where in moves if table.guests else ():
        table.move(which % len(table.guests), where % len(table.hosts) if where >= 0 else NOWHERE)
    kept = (table.free_mib.tolist(), table.used_vcpus.tolist(), table.used_load.tolist())
    table.recount()
    assert kept[0] == table.free_mib.tolist()
    assert kept[1] == pytest.approx(table.used_vcpus.tolist())
    assert kept[2] == pytest.approx(table.used_load.tolist())


@settings(max_examples=100, deadline=None)
@given(fleets())
def test_hard_rules_bar_what_they_should(fleet: Fleet) -> None:
    table = Table(fleet)
    where = {one.name: one.host for one in fleet.guests if one.host}
    for row, one in enumerate(table.guests):
        off = table.barred(row)
        for number, name in enumerate(table.host_names):
            expected = any(
                judge.barred(fleet, rule, one.name, name, where)
                for rule in fleet.rules
                if rule.hard and one.name in rule.guests
            )
            assert bool(off is not None and off[number]) == expected


def test_a_guest_on_huge_pages_takes_no_ordinary_memory() -> None:
    plain = guest("a", 2048, overhead_mib=100)
    huge = guest("b", 2048, overhead_mib=100, needs=Needs(pages_kib=2048))
    assert (plain.takes_mib, huge.takes_mib) == (2148, 100)


def test_what_does_not_fit_together_is_refused() -> None:
    with pytest.raises(Invalid, match="its host 'h9' is not there"):
        Fleet(hosts=(host("h1"),), guests=(guest("a", host="h9"),))
    with pytest.raises(Invalid, match="its guest 'b' is not there"):
        Fleet(
            hosts=(host("h1"),),
            guests=(guest("a"),),
            rules=(Together(name="pair", guests=("a", "b")),),
        )
    with pytest.raises(Invalid, match="name each once"):
        Fleet(hosts=(host("h1"), host("h1")))
    with pytest.raises(Invalid, match="a skew of 0"):
        Spread(name="even", guests=("a",), over="rack", max_skew=0)
    with pytest.raises(NotFound, match="cannot find guest 'x'"):
        Table(Fleet(hosts=(host("h1"),))).guest("x")
