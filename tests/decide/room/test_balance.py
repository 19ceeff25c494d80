"""Rebalancing: every step fits and breaks nothing, and nothing is moved for nothing."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.decide.room import judge
from tests.decide.room.fleets import NO_DATA, data, fleets, guest, host
from tests.thorough import much
from vorch.decide.room.balance import (
    BalancePlan,
    Limits,
    Metric,
    Move,
    balance,
    joined,
    moved,
    towards,
)
from vorch.decide.room.fleet import Apart, Fleet, Guest, Host, Needs, Policy, Rule, Together
from vorch.errors import Invalid
from vorch.simulate.placement_file import read_placement

METRICS: tuple[Metric, ...] = ("vorch", "norm", "htools")


def after(fleet: Fleet, moves: Iterable[Move]) -> Fleet:
    where = {one.name: one.host for one in fleet.guests} | {m.guest: m.target for m in moves}
    guests = [dataclasses.replace(one, host=where[one.name]) for one in fleet.guests]
    return dataclasses.replace(fleet, guests=tuple(guests))


def shaken(fleet: Fleet, seed: int, by: float = 0.2) -> Fleet:
    chance = random.Random(seed)

    def other(one: Guest) -> Guest:
        load = None if one.cpu_load is None else one.cpu_load * chance.uniform(1 - by, 1 + by)
        net = one.net_load * chance.uniform(1 - by, 1 + by)
        return dataclasses.replace(one, cpu_load=load, net_load=net)

    return dataclasses.replace(fleet, guests=tuple(other(one) for one in fleet.guests))


def kept(fleet: Fleet, where: dict[str, str]) -> set[str]:
    """Rules that hold, judged by other code."""
    return {rule.name for rule in fleet.rules if rule.hard and holds(fleet, rule, where)}


def holds(fleet: Fleet, rule: Rule, where: dict[str, str]) -> bool:
    placed = [name for name in rule.guests if where[name]]
    if isinstance(rule, Together):
        # Two here and two there bar each other from nothing, and are not together.
        hosts = [where[name] for name in placed]
        return len({judge.domain(fleet, one, rule.over) or f"host {one}" for one in hosts}) <= 1
    return not any(judge.barred(fleet, rule, name, where[name], where) for name in placed)


def follow(fleet: Fleet, plan: BalancePlan) -> None:
    """Each step from where the guest is, into room that is there, breaking no rule that held."""
    where = {one.name: one.host for one in fleet.guests}
    hosts = {one.name: one for one in fleet.hosts}
    guests = {one.name: one for one in fleet.guests}
    for move in plan.moves:
        held = kept(fleet, where)
        assert where[move.guest] == move.source != move.target
        target = hosts[move.target]
        assert not target.closed
        assert set(guests[move.guest].needs.tags) <= target.tags
        where[move.guest] = move.target
        assert judge.memory_free(fleet, target, where) >= 0
        assert judge.vcpus_free(fleet, target, where) >= 0
        assert held <= kept(fleet, where), move
    for moves in plan.rounds:
        busy = [host for move in moves for host in (move.source, move.target)]
        assert len(busy) == len(set(busy))
    assert [move for moves in plan.rounds for move in moves] == list(plan.moves)


@settings(max_examples=60, deadline=None)
@given(fleets(placed=True), st.sampled_from(METRICS))
def test_every_step_fits_and_breaks_no_rule(fleet: Fleet, metric: Metric) -> None:
    plan = balance(fleet, metric=metric)
    follow(fleet, plan)
    assert plan.after.broken <= plan.before.broken
    assert plan.after.overfull <= plan.before.overfull


@settings(max_examples=much(60, 20), deadline=None)
@given(fleets(placed=True), st.sampled_from(METRICS))
def test_a_second_run_plans_nothing(fleet: Fleet, metric: Metric) -> None:
    then = after(fleet, balance(fleet, metric=metric).moves)
    settled(then, metric)


@settings(max_examples=60, deadline=None)
@given(fleets(placed=True), st.sampled_from(METRICS), st.integers(0, 1000))
def test_loads_that_are_a_little_different_move_nobody(
    fleet: Fleet, metric: Metric, seed: int
) -> None:
    then = after(fleet, balance(fleet, metric=metric).moves)
    settled(shaken(then, seed), metric)


@settings(max_examples=30, deadline=None)
@given(fleets(placed=True), st.randoms(use_true_random=False))
def test_the_order_of_the_input_has_no_influence(fleet: Fleet, chance: random.Random) -> None:
    hosts, guests, rules = list(fleet.hosts), list(fleet.guests), list(fleet.rules)
    for one in (hosts, guests, rules):
        chance.shuffle(one)
    other = Fleet(hosts=tuple(hosts), guests=tuple(guests), rules=tuple(rules), policy=fleet.policy)
    assert balance(other) == balance(fleet)


@settings(max_examples=30, deadline=None)
@given(fleets(placed=True), st.integers(0, 3), st.integers(0, 6))
def test_limits_are_kept(fleet: Fleet, moves: int, gib: int) -> None:
    plan = balance(fleet, Limits(moves=moves, memory_mib=gib * 1024, per_host=1))
    follow(fleet, plan)
    assert len(plan.moves) <= moves
    assert plan.memory_mib <= gib * 1024


@st.composite
def full(draw: st.DrawFn) -> Fleet:
    """Hosts with next to no room, and one hole: whoever goes waits for others, or goes round."""
    sizes = st.integers(1, 4)
    hosts: list[Host] = []
    many: list[Guest] = []
    for number in range(draw(st.integers(3, 5))):
        there = draw(st.lists(st.tuples(sizes, sizes), min_size=1, max_size=4))
        hole = 4 if number == 0 else draw(st.integers(0, 1))
        room = sum(gib for gib, _ in there) + hole
        hosts.append(host(f"h{number}", room * 1024, 8))
        for gib, load in there:
            name = f"g{len(many):02}"
            many.append(guest(name, gib * 1024, 1, cpu_load=float(load), host=f"h{number}"))
    return Fleet(hosts=tuple(hosts), guests=tuple(many))


@settings(max_examples=much(150, 50), deadline=None)
@given(full(), st.integers(0, 5), st.integers(0, 9), st.sampled_from(METRICS))
def test_who_goes_round_by_a_third_host_counts_twice(
    fleet: Fleet, moves: int, gib: int, metric: Metric
) -> None:
    plan = balance(fleet, Limits(moves=moves), metric=metric)
    follow(fleet, plan)
    assert len(plan.moves) <= moves
    plan = balance(fleet, Limits(memory_mib=gib * 1024), metric=metric)
    follow(fleet, plan)
    assert plan.memory_mib <= gib * 1024
    plan = balance(fleet, Limits(seconds=float(gib)), metric=metric)
    follow(fleet, plan)
    assert plan.seconds <= gib


def test_of_equal_ones_the_first_by_name_goes_to_the_first_host() -> None:
    hosts = (host("h1"), host("h2"), host("h3"))
    plan = balance(Fleet(hosts=hosts, guests=crowd(6)), Limits(moves=1))
    assert [(move.guest, move.target) for move in plan.moves] == [("g0", "h2")]


def test_one_plan_after_the_other_is_put_in_order_anew() -> None:
    """Hosts that have nothing to do with each other do not wait, and nobody is moved twice."""
    hosts = tuple(host(f"h{n}") for n in range(5))
    guests = (*crowd(4, "h0"), *(dataclasses.replace(g, name=f"x{g.name}") for g in crowd(4, "h2")))
    fleet = Fleet(hosts=hosts, guests=guests)
    first = towards(fleet, {"g0": "h1", "g1": "h4"}, Limits())
    more = towards(moved(fleet, first), {"g1": "h1", "xg0": "h3", "xg1": "h3"}, Limits())
    assert [len(first.rounds), len(more.rounds)] == [2, 2]
    plan = joined(fleet, first, more, Limits(), "vorch", lambda one: False)
    follow(fleet, plan)
    assert len(plan.rounds) == 2
    assert {one.guest: one.target for one in plan.moves} == {
        **dict.fromkeys(("g0", "g1"), "h1"),
        **dict.fromkeys(("xg0", "xg1"), "h3"),
    }
    assert len(plan.moves) == 4
    assert plan.after == more.after


@pytest.mark.parametrize("metric", METRICS)
def test_without_hosts_or_guests_nothing_is_planned(metric: Metric) -> None:
    assert balance(Fleet(hosts=(), guests=()), metric=metric).moves == ()
    assert balance(Fleet(hosts=(host("h1"),), guests=()), metric=metric).moves == ()


def settled(fleet: Fleet, metric: Metric) -> None:
    """Nothing is planned, unless something is still wrong and gets better."""
    plan = balance(fleet, metric=metric)
    better = plan.after.broken + plan.after.overfull < plan.before.broken + plan.before.overfull
    assert not plan.moves or better, plan


def crowd(count: int, name: str = "h1", load: float = 1.5) -> tuple[Guest, ...]:
    return tuple(guest(f"g{n}", 1024, 1, cpu_load=load, host=name) for n in range(count))


def test_a_crowded_host_is_relieved_and_it_is_said_why() -> None:
    fleet = Fleet(hosts=(host("h1"), host("h2"), host("h3")), guests=crowd(6))
    plan = balance(fleet)
    assert len(plan.moves) == 4
    assert {move.target for move in plan.moves} == {"h2", "h3"}
    assert "evens out" in plan.moves[0].why
    assert plan.moves[0].gain >= plan.moves[-1].gain > 0
    assert plan.after.spreads == (("memory", 0.0), ("vCPUs", 0.0), ("load", 0.0))
    assert "moves in" in plan.why
    assert plan.seconds > 0


def test_a_broken_rule_is_put_right_with_one_move() -> None:
    pair = (guest("a", host="h1"), guest("b", host="h1"))
    fleet = Fleet(
        hosts=(host("h1"), host("h2")), guests=pair, rules=(Apart(name="r1", guests=("a", "b")),)
    )
    plan = balance(fleet)
    assert len(plan.moves) == 1
    assert "rule 'r1'" in plan.moves[0].why
    assert (plan.before.broken, plan.after.broken) == (2, 0)


def test_an_overfull_host_is_relieved() -> None:
    guests = tuple(guest(f"g{n}", 5000, host="h1") for n in range(4))
    plan = balance(Fleet(hosts=(host("h1"), host("h2", 6000)), guests=guests))
    assert [move.target for move in plan.moves] == ["h2"]
    assert "short of" in plan.moves[0].why
    assert plan.after.overfull == 0


def test_who_is_together_stays_so() -> None:
    guests = crowd(4)
    names = tuple(one.name for one in guests)
    rules = (Together(name="r1", guests=names),)
    fleet = Fleet(hosts=(host("h1"), host("h2")), guests=guests, rules=rules)
    assert balance(fleet).moves == ()


def test_evenness_goes_before_no_wish() -> None:
    guests = crowd(4)
    wish = Apart(name="r1", guests=("g0", "g1", "x", "y"), hard=False)
    others = (guest("x", 512, host="h2"), guest("y", 512, host="h3"))
    hosts = (host("h1"), host("h2"), host("h3"))
    liking = dataclasses.replace(guests[3], needs=Needs(preferred=(("h1", 5),)))
    fleet = Fleet(hosts=hosts, guests=(*guests[:3], liking, *others), rules=(wish,))
    plan = balance(fleet)
    assert plan.moves
    assert "g3" not in {move.guest for move in plan.moves}


def test_who_lacks_something_goes_where_it_is() -> None:
    needy = guest("a", host="h1", needs=Needs(tags=("ssd",)))
    fleet = Fleet(hosts=(host("h1"), host("h2", tags=frozenset({"ssd"}))), guests=(needy,))
    plan = balance(fleet)
    assert [(move.guest, move.target) for move in plan.moves] == [("a", "h2")]
    assert "needs" in plan.moves[0].why


def test_the_pinned_and_the_cold_stay() -> None:
    guests = tuple(
        dataclasses.replace(one, moves="pinned" if n % 2 else "cold")
        for n, one in enumerate(crowd(6))
    )
    assert balance(Fleet(hosts=(host("h1"), host("h2")), guests=guests)).moves == ()


def test_who_was_moved_just_now_is_left_in_peace() -> None:
    guests = tuple(
        dataclasses.replace(one, moved_s_ago=10.0 if n < 3 else None)
        for n, one in enumerate(crowd(6))
    )
    plan = balance(Fleet(hosts=(host("h1"), host("h2")), guests=guests))
    assert plan.moves
    assert {move.guest for move in plan.moves} <= {"g3", "g4", "g5"}


def test_who_writes_much_takes_longer_and_is_dearer() -> None:
    guests = tuple(
        dataclasses.replace(one, dirty_mib_s=900.0 if n < 3 else 0.0)
        for n, one in enumerate(crowd(6))
    )
    plan = balance(Fleet(hosts=(host("h1"), host("h2")), guests=guests))
    assert {move.guest for move in plan.moves} <= {"g3", "g4", "g5"}
    slow = balance(Fleet(hosts=(host("h1"), host("h2")), guests=guests[:3]))
    assert slow.moves
    assert slow.moves[0].seconds > plan.moves[0].seconds


def test_two_that_wait_for_each_other_go_round_by_a_third_host() -> None:
    """h1 and h2 are full, and each has what belongs to the other."""
    ssd, gpu = Needs(tags=("ssd",)), Needs(tags=("gpu",))
    hosts = (
        host("h1", 4096, tags=frozenset({"ssd"})),
        host("h2", 4096, tags=frozenset({"gpu"})),
        host("h3", 4096, tags=frozenset({"ssd", "gpu"})),
    )
    guests = (
        guest("a", 3072, host="h1", needs=gpu),
        guest("b", 3072, host="h2", needs=ssd),
        guest("c", 512, host="h3"),
    )
    fleet = Fleet(hosts=hosts, guests=guests)
    plan = balance(fleet)
    follow(fleet, plan)
    assert plan.after.broken == 0


def test_a_limit_of_time_ends_the_plan() -> None:
    fleet = Fleet(hosts=(host("h1"), host("h2")), guests=crowd(6), policy=Policy(link_mib_s=100.0))
    whole = balance(fleet)
    half = balance(fleet, Limits(seconds=whole.seconds / 2))
    assert 0 < len(half.moves) < len(whole.moves)
    assert half.seconds <= whole.seconds / 2
    assert any("longer than is allowed" in note for note in half.notes)


def test_several_at_a_time_make_fewer_rounds() -> None:
    fleet = Fleet(hosts=(host("h1"), host("h2"), host("h3")), guests=crowd(9))
    one, two = balance(fleet), balance(fleet, Limits(per_host=2))
    assert len(two.rounds) < len(one.rounds)


def test_limits_below_zero_are_refused() -> None:
    with pytest.raises(Invalid, match="moves"):
        Limits(moves=-1)


def test_a_guest_too_heavy_for_its_host_goes_to_a_larger_one() -> None:
    """Others have to leave the larger host for it, and none of them gains by that alone."""
    many = [guest(f"s{n}", 2048, 1, host="h2", cpu_load=0.1) for n in range(9)]
    others = [
        guest(f"t{k}-{n}", 2048, 1, host=f"h{k}", cpu_load=1.0)
        for k in range(3, 7)
        for n in range(3)
    ]
    fleet = Fleet(
        hosts=(
            host("h1", 12288, 10),
            host("h2", 24576, 32),
            *(host(f"h{number}", 8192, 10) for number in range(3, 7)),
        ),
        guests=(guest("big", 10240, 10, host="h1", cpu_load=9.5), *many, *others),
    )
    plan = balance(fleet, metric="norm")
    follow(fleet, plan)
    assert {one.name: one.host for one in after(fleet, plan.moves).guests}["big"] == "h2"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "metric"),
    [("tight-n50-s1", "vorch"), ("rules-n50-s1", "norm"), ("drift-n50-s1", "htools")],
)
@pytest.mark.skipif(not data("drift-n50-s1").exists(), reason=NO_DATA)
def test_the_referees_conditions(name: str, metric: Metric) -> None:
    fleet = read_placement(data(name))
    plan = balance(fleet, metric=metric)
    follow(fleet, plan)
    ends = [end for move in plan.moves for end in (move.source, move.target)]
    busiest = max(ends.count(one) for one in set(ends))
    assert len(plan.rounds) <= 1.2 * busiest
    assert plan.after.broken == 0
    assert plan.after.figure < 0.8 * plan.before.figure
    then = after(fleet, plan.moves)
    assert balance(then, metric=metric).moves == ()
    for seed in range(2):
        assert balance(shaken(then, seed), metric=metric).moves == ()
