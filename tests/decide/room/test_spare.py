"""Whether hosts may die: every yes carries a sound packing, every no is confirmed by trying all."""

from __future__ import annotations

import dataclasses
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.decide.room import judge
from tests.decide.room.fleets import FOLDER, NO_DATA, data, fleets, guest, host
from vorch.decide.room import packing, solver
from vorch.decide.room.capacity import capacity, growth
from vorch.decide.room.fleet import Apart, Fleet, Policy, Spread, Together
from vorch.decide.room.spare import Spare, Verdict, domain_losses, loss
from vorch.decide.room.table import NOWHERE, Table
from vorch.simulate.placement_file import read_placement


def looked_after(fleet: Fleet, *lost: str) -> list[str]:
    return [one.name for one in fleet.guests if one.ha and one.host in lost]


def by_trying(fleet: Fleet, lost: list[str]) -> bool:
    """Whether any way to deal the guests out is sound."""
    names = looked_after(fleet, *lost)
    targets = [one.name for one in fleet.hosts if one.name not in lost]
    return any(
        judge.wrong(fleet, lost, dict(zip(names, found, strict=True)), names) is None
        for found in product(targets, repeat=len(names))
    )


def small(fleet: Fleet, lost: list[str]) -> bool:
    ways: int = (len(fleet.hosts) - len(lost)) ** len(looked_after(fleet, *lost))
    return ways <= 3000


@settings(max_examples=80, deadline=None)
@given(fleets(hosts=4, guests=9, placed=True))
def test_every_yes_is_sound_and_every_no_is_true(fleet: Fleet) -> None:
    spare = Spare(Table(fleet))
    for row, one in enumerate(spare.table.hosts):
        found = spare.loss(row, prove=False)
        if found.verdict is Verdict.YES:
            names = looked_after(fleet, one.name)
            assert judge.wrong(fleet, [one.name], found.refuges, names) is None
        elif found.verdict is Verdict.NO and small(fleet, [one.name]):
            assert not by_trying(fleet, [one.name]), found.why


@pytest.mark.skipif(not solver.available(), reason="OR-Tools is not installed")
@settings(max_examples=60, deadline=None)
@given(fleets(hosts=4, guests=9, placed=True), st.integers(1, 2))
def test_the_solver_knows_the_truth(fleet: Fleet, lost: int) -> None:
    names = sorted(one.name for one in fleet.hosts)[:lost]
    table = Table(fleet)
    found = loss(table, [table.host(name) for name in names])
    assert found.verdict is not Verdict.UNPROVEN
    if small(fleet, names):
        assert (found.verdict is Verdict.YES) == by_trying(fleet, names)
    if found.verdict is Verdict.YES:
        assert judge.wrong(fleet, names, found.refuges, looked_after(fleet, *names)) is None
    else:
        assert found.left_out


@settings(max_examples=50, deadline=None)
@given(
    fleets(hosts=5, guests=10, placed=True),
    st.lists(st.tuples(st.integers(0, 99), st.integers(-1, 99)), max_size=6),
)
def test_it_stays_true_while_guests_move(fleet: Fleet, moves: list[tuple[int, int]]) -> None:
    table = Table(fleet)
    spare = Spare(table)
    for which, where in moves if table.guests else ():
        row = which % len(table.guests)
        target = where % len(table.hosts) if where >= 0 else NOWHERE
        source = int(table.at[row])
        if source == target:
            continue
        table.move(row, target)
        spare.moved(row, source, target)
        there = {
            name: table.host_names[at] if at >= 0 else ""
            for name, at in zip(table.guest_names, table.at, strict=True)
        }
        now = dataclasses.replace(
            fleet,
            guests=tuple(dataclasses.replace(one, host=there[one.name]) for one in fleet.guests),
        )
        fresh = Spare(Table(now))
        for number, name in enumerate(table.host_names):
            kept = spare.loss(number, prove=False)
            anew = fresh.verdict(number)
            assert {kept.verdict, anew} != {Verdict.YES, Verdict.NO}
            if kept.verdict is Verdict.YES:
                names = looked_after(now, name)
                assert judge.wrong(now, [name], kept.refuges, names) is None


@settings(max_examples=40, deadline=None)
@given(fleets(hosts=5, guests=12, placed=True))
def test_the_order_of_the_input_does_not_matter(fleet: Fleet) -> None:
    mixed = dataclasses.replace(
        fleet,
        hosts=tuple(reversed(fleet.hosts)),
        guests=tuple(reversed(fleet.guests)),
        rules=tuple(reversed(fleet.rules)),
    )
    assert Spare(Table(fleet)).verdicts() == Spare(Table(mixed)).verdicts()


def test_who_need_not_run_needs_no_room() -> None:
    fleet = Fleet(
        hosts=(host("h1", 4096), host("h2", 4096)),
        guests=(guest("a", 4096, host="h1", ha=False), guest("b", 3072, host="h2")),
    )
    assert Spare(Table(fleet)).verdicts() == {"h1": Verdict.YES, "h2": Verdict.NO}


def test_a_repair_moves_one_that_was_placed_before() -> None:
    """Best fit puts 3 beside 5; only 5 + 4 and 3 + 3 + 3 fill both hosts."""
    sizes = {"a": 5, "b": 4, "c": 3, "d": 3, "e": 3}
    fleet = Fleet(
        hosts=(host("h0", 18432), host("h1", 9216), host("h2", 9216)),
        guests=tuple(guest(name, size * 1024, host="h0") for name, size in sizes.items()),
    )
    table = Table(fleet)
    work = packing.task(table, list(range(5)), [0])
    assert not packing.pack(work).left
    assert Spare(table).verdict(0) is Verdict.YES


def test_hard_rules_hold_in_the_refuges() -> None:
    racks = [host(f"h{n}", 8192, tags=frozenset({f"rack:r{n % 3}"})) for n in range(6)]
    names = ("a", "b", "c", "d")
    guests = tuple(guest(name, host=f"h{n}") for n, name in enumerate(names))
    mate = guest("m", host="h0")
    fleet = Fleet(
        hosts=tuple(racks),
        guests=(*guests, mate),
        rules=(
            Spread(name="even", guests=names, over="rack", max_skew=1),
            Together(name="pair", guests=("a", "m")),
        ),
    )
    found = loss(Table(fleet), [0])
    assert found.verdict is Verdict.YES
    assert found.refuges["a"] == found.refuges["m"]
    assert judge.wrong(fleet, ["h0"], found.refuges, ["a", "m"]) is None


def test_two_that_go_as_one_count_as_two() -> None:
    hosts = tuple(host(f"h{n}", tags=frozenset({f"rack:r{n}"})) for n in range(3))
    pair = Together(name="pair", guests=("a", "b"))
    for other in (
        Apart(name="far", guests=("a", "b")),
        Apart(name="wide", guests=("a", "b"), over="rack"),
        Spread(name="even", guests=("a", "b"), over="rack"),
    ):
        fleet = Fleet(
            hosts=hosts,
            guests=(guest("a", host="h0"), guest("b", host="h0")),
            rules=(pair, other),
        )
        assert Spare(Table(fleet)).verdict(0) is not Verdict.YES, other.name
        assert not by_trying(fleet, ["h0"])


def test_apart_over_racks_leaves_no_place() -> None:
    hosts = tuple(host(f"h{n}", tags=frozenset({f"rack:r{n % 2}"})) for n in range(4))
    fleet = Fleet(
        hosts=hosts,
        guests=(guest("a", host="h0"), guest("b", host="h1")),
        rules=(Apart(name="far", guests=("a", "b"), over="rack"),),
    )
    found = domain_losses(Table(fleet), "rack")
    assert {name: one.verdict for name, one in found.items()} == {
        "r0": Verdict.NO,
        "r1": Verdict.NO,
    }
    assert found["r0"].left_out == ("a",)


def test_capacity_says_the_worst_and_who_is_left_out() -> None:
    fleet = Fleet(
        hosts=(host("h1", 8192), host("h2", 8192), host("h3", 4096)),
        guests=(guest("big", 7168, host="h1"), guest("mid", 4096, host="h2")),
    )
    found = capacity(fleet, size=guest("x", 1024))
    assert found.verdict is Verdict.NO
    assert found.verdicts == {"h1": Verdict.NO, "h2": Verdict.YES, "h3": Verdict.YES}
    assert found.worst is not None
    assert (found.worst.hosts, found.worst.left_out) == (("h1",), ("big",))
    assert found.growth is not None
    assert found.growth.fit == 1 + 4 + 4


def test_many_guests_of_one_host_find_other_refuges_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    others = [host(f"o{number}", 12 * 1024, cpus=64) for number in range(5)]
    fleet = Fleet(
        hosts=(host("big", 64 * 1024, cpus=64), host("full", 14 * 1024, cpus=64), *others),
        guests=(
            *(guest(f"g{number:02}", 1024, host="full") for number in range(14)),
            guest("new", 64 * 1024, ha=False),
        ),
    )
    table = Table(fleet)
    spare = Spare(table)
    big, full = table.host("big"), table.host("full")
    rows = np.flatnonzero(table.at == full)
    # As sound as any other: it has room for all of them.
    spare.refuge[rows] = big
    # No packing anew is needed for it.
    monkeypatch.setattr(Spare, "_repack", lambda _, host: pytest.fail(f"{host} is packed anew"))
    new = table.guest("new")
    table.move(new, big)
    spare.moved(new, NOWHERE, big)
    assert spare.verdict(full) is Verdict.YES
    refuges = {int(row): int(spare.refuge[row]) for row in rows}
    assert packing.verify(packing.task(table, list(refuges), [full]), refuges) is None


def test_growth_keeps_what_may_be_lost() -> None:
    fleet = Fleet(hosts=tuple(host(f"h{n}", 4096, cpus=64) for n in range(3)))
    found = growth(fleet, guest("x", 1024))
    # Any two of three hosts of four places have to hold all.
    assert (found.fit, found.with_spare) == (12, 8)


def test_two_hosts_at_once() -> None:
    fleet = Fleet(
        hosts=tuple(host(f"h{n}", 4096) for n in range(4)),
        guests=tuple(guest(f"g{n}", 2048, host=f"h{n}") for n in range(4)),
    )
    assert capacity(fleet, hosts_lost=2).verdict is Verdict.YES
    assert capacity(fleet, hosts_lost=3).verdict is Verdict.NO


@pytest.mark.skipif(not data("tight-n10-s1").exists(), reason=NO_DATA)
@pytest.mark.skipif(not solver.available(), reason="OR-Tools is not installed")
@pytest.mark.parametrize("name", ["tight-n10-s1", "tight-n50-s1", "rules-n50-s1"])
def test_no_answer_differs_from_the_solver(name: str) -> None:
    fleet = read_placement(data(name))
    table = Table(fleet)
    spare = Spare(table)
    for row, one in enumerate(table.host_names):
        rows = [int(found) for found in np.flatnonzero((table.at == row) & table.ha)]
        proof = solver.solve(packing.task(table, rows, [row]))
        assert proof is not None, f"{FOLDER}/{name}: {one}"
        expected = Verdict.YES if proof.complete else Verdict.NO
        assert spare.verdict(row) in (expected, Verdict.UNPROVEN), one
        assert spare.verdict(row, prove=True) is expected, one


def test_policy_of_the_fleet_says_how_many_may_die() -> None:
    fleet = Fleet(
        hosts=(host("h1", 4096), host("h2", 4096)),
        guests=(guest("a", 1024, host="h1"),),
        policy=Policy(spare_hosts=2),
    )
    assert capacity(fleet).hosts_lost == 2
    assert capacity(fleet).verdict is Verdict.NO
