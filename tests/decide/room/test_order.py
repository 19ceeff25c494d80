"""In which order moves are made: rounds of disjoint hosts, and ways out of a circle."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.decide.room.fleets import guest, host
from vorch.decide.room.evenness import terms
from vorch.decide.room.fleet import Apart, Fleet
from vorch.decide.room.order import Schedule, busiest, is_short, schedule
from vorch.decide.room.price import Bound, Pricing, prices
from vorch.decide.room.search import Search
from vorch.decide.room.table import Table


def ordered(
    fleet: Fleet, targets: dict[str, str], *, per_host: int = 1, bounds: Sequence[Bound] = ()
) -> tuple[Table, Schedule]:
    table = Table(fleet)
    search = Search(table, terms(table, "norm"), prices(table, Pricing()))
    rows = {table.guest(name): table.host(target) for name, target in targets.items()}
    return table, schedule(search, rows, per_host=per_host, bounds=bounds)


def circle(third_mib: int) -> Fleet:
    return Fleet(
        hosts=(host("h1", 4096), host("h2", 4096), host("h3", third_mib)),
        guests=(guest("a", 3072, 0, host="h1"), guest("b", 2560, 0, host="h2")),
    )


SWAP = {"a": "h2", "b": "h1"}


def test_a_circle_is_broken_by_a_third_host() -> None:
    table, found = ordered(circle(4096), SWAP)
    assert [table.guest_names[step.row] for step in found.steps()] == ["b", "a", "b"]
    assert found.steps()[0].detour
    assert table.host_names[table.at[table.guest("b")]] == "h1"
    assert found.given_up == []


def test_a_circle_that_nobody_can_break_is_given_up() -> None:
    _, found = ordered(circle(1024), SWAP)
    assert found.steps() == []
    assert len(found.given_up) == 2


def test_a_detour_counts_as_a_move() -> None:
    _, found = ordered(circle(4096), SWAP, bounds=[Bound(np.ones(2), 2)])
    assert len(found.steps()) <= 2
    memory = np.array([3072.0, 2560.0])
    _, found = ordered(circle(4096), SWAP, bounds=[Bound(memory, 2560 + 3072 + 2559)])
    assert sum(memory[step.row] for step in found.steps()) <= 3072
    _, found = ordered(circle(4096), SWAP, bounds=[Bound(memory, 2560 + 3072 + 2560)])
    assert len(found.steps()) == 3


@settings(max_examples=60, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(0, 12), st.integers(0, 24))
def test_no_limit_is_passed_on_detours(chance: random.Random, moves: int, gib: int) -> None:
    """Everybody is to change places on hosts that are full, and one host has a hole."""
    guests = [guest(f"g{n}", chance.randint(1, 3) * 1024, 0, host=f"h{n % 5}") for n in range(10)]
    hosts = [host(f"h{n}", sum(g.memory_mib for g in guests[n::5])) for n in range(5)]
    fleet = Fleet(hosts=(*hosts, host("hole", 4096)), guests=tuple(guests))
    targets = {one.name: f"h{chance.randrange(5)}" for one in guests}
    targets = {one.name: targets[one.name] for one in guests if targets[one.name] != one.host}
    memory = np.array([one.memory_mib for one in guests], dtype=np.float64)
    for bound in (Bound(np.ones(10), moves), Bound(memory, gib * 1024)):
        _, found = ordered(fleet, targets, bounds=[bound])
        # What is to be moved is within the limit before it is put in order.
        most = max(bound.most, bound.price[[int(name[1:]) for name in targets]].sum())
        assert sum(bound.price[step.row] for step in found.steps()) <= most


def chain(*rules: Apart) -> Fleet:
    """Full hosts in a row, each of whose guests waits for the next one; the last host is free.

    What it does for evenness is done by the first that goes.
    """
    guests = [guest(f"g{n}", 3072, 0, host=f"h{n}", cpu_load=0.1) for n in range(7)]
    guests += [guest(name, mib, 0, host="h7", cpu_load=6.0) for name, mib in _LOADED]
    hosts = [host(f"h{n}", 4096) for n in range(9)]
    beside = guest("beside", 1024, 0, host="h0")
    return Fleet(hosts=tuple(hosts), guests=(*guests, beside), rules=rules)


_LOADED = (("g7", 3072), ("x", 1024))
ALONG = {f"g{n}": f"h{n + 1}" for n in range(8)}


def test_the_end_of_a_chain_is_left_out() -> None:
    _, found = ordered(chain(), ALONG)
    assert len(found.rounds) <= 3


def test_what_a_chain_is_there_for_is_not_left_out() -> None:
    """The last of them is the one that breaks a rule."""
    table, found = ordered(chain(Apart(name="two", guests=("g0", "beside"))), ALONG)
    assert len(found.rounds) == 8
    assert [table.host_names[table.at[table.guest(name)]] for name in ALONG] == list(ALONG.values())
    assert busiest(found, 1) == 2


def test_what_shares_no_host_is_made_at_the_same_time() -> None:
    guests = tuple(guest(f"g{n}", host=f"h{n}") for n in range(3))
    hosts = tuple(host(f"h{n}") for n in range(6))
    _, found = ordered(Fleet(hosts=hosts, guests=guests), {f"g{n}": f"h{n + 3}" for n in range(3)})
    assert len(found.rounds) == 1
    assert busiest(found, 1) == 1
    assert is_short(found, 1)


def test_a_host_takes_part_in_as_many_as_it_may() -> None:
    guests = tuple(guest(f"g{n}", host="h0") for n in range(4))
    hosts = tuple(host(f"h{n}") for n in range(5))
    fleet = Fleet(hosts=hosts, guests=guests)
    targets = {f"g{n}": f"h{n + 1}" for n in range(4)}
    assert len(ordered(fleet, targets)[1].rounds) == 4
    assert len(ordered(fleet, targets, per_host=2)[1].rounds) == 2


def test_room_that_is_left_in_a_round_does_not_count_in_it() -> None:
    fleet = Fleet(
        hosts=(host("h1", 4096), host("h2", 4096), host("h3", 4096)),
        guests=(guest("a", 3072, 0, host="h1"), guest("b", 3072, 0, host="h2")),
    )
    _, found = ordered(fleet, {"a": "h2", "b": "h3"}, per_host=2)
    assert [len(steps) for steps in found.rounds] == [1, 1]
