"""Plans where hosts are full to the last vCPU: short, though what is best would be a long chain."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from tests.decide.room.fleets import guest, host
from tests.decide.room.judge import barred
from vorch.decide.room.balance import BalancePlan, Limits, balance, moved
from vorch.decide.room.evenness import terms
from vorch.decide.room.fleet import Apart, Fleet, Guest, Policy
from vorch.decide.room.order import busiest as order_busiest
from vorch.decide.room.order import is_too_long
from vorch.decide.room.price import Pricing, prices
from vorch.decide.room.search import Search
from vorch.decide.room.short import short_schedule
from vorch.decide.room.table import Table

SEEDS = (1, 2, 3)


def full(seed: int, *, left: int = 2) -> Fleet:
    """Twelve hosts with so many vCPUs left in each, more or less, and guests of many sizes."""
    chance = random.Random(seed)
    hosts = tuple(host(f"h{n:02}", 256 * 1024, chance.choice([24, 48, 64])) for n in range(12))
    found: list[Guest] = []
    for one in hosts:
        room = one.cpus - chance.randrange(2 * left + 1)
        while room > 0:
            vcpus = min(room, chance.choice([1, 2, 2, 4, 4, 8, 16]))
            room -= vcpus
            load = round(vcpus * min(1.0, chance.lognormvariate(-1.6, 0.8)), 3)
            gib = chance.choice([2, 4, 8])
            name = f"g{len(found):03}"
            found.append(guest(name, gib * 1024, vcpus, host=one.name, cpu_load=load))
    # Two that share a host and must not.
    pair = [one.name for one in found if one.host == "h03" and one.vcpus <= 4][:2]
    rules = (Apart(name="pair", guests=tuple(pair)),)
    return Fleet(hosts=hosts, guests=tuple(found), rules=rules, policy=Policy(cpu_ratio=1.0))


def busiest(plan: BalancePlan) -> int:
    ends = Counter(end for move in plan.moves for end in (move.source, move.target))
    return max(ends.values(), default=0)


def follow(fleet: Fleet, plan: BalancePlan) -> None:
    """Every move fits when it is its turn, that of its round before it being still there."""
    size = {one.name: one for one in fleet.guests}
    where = {one.name: one.host for one in fleet.guests}
    left = {
        one.name: one.cpus - sum(g.vcpus for g in fleet.guests if g.host == one.name)
        for one in fleet.hosts
    }
    for moves in plan.rounds:
        ends = [end for move in moves for end in (move.source, move.target)]
        assert len(ends) == len(set(ends))
        for move in moves:
            assert where[move.guest] == move.source
            left[move.target] -= size[move.guest].vcpus
            assert left[move.target] >= 0, move
            where[move.guest] = move.target
        for move in moves:
            left[move.source] += size[move.guest].vcpus
    for rule in fleet.rules:
        assert not any(barred(fleet, rule, one, where[one], where) for one in rule.guests)


@pytest.mark.parametrize("seed", SEEDS)
def test_it_is_short_and_mends_what_is_broken(seed: int) -> None:
    fleet = full(seed)
    plan = balance(fleet, metric="norm")
    assert plan.before.broken == 2
    assert plan.after.broken == 0
    assert plan.moves
    assert len(plan.rounds) <= max(3, 1.2 * busiest(plan))
    follow(fleet, plan)
    assert plan.after.figure < plan.before.figure
    assert balance(moved(fleet, plan), metric="norm").moves == ()
    assert balance(fleet, metric="norm") == plan


@pytest.mark.parametrize("seed", SEEDS)
def test_it_keeps_to_limits(seed: int) -> None:
    fleet = full(seed, left=1)
    for most in (1, 4, 12):
        plan = balance(fleet, Limits(moves=most), metric="norm")
        assert len(plan.moves) <= most
        assert len(plan.rounds) <= max(3, 1.2 * busiest(plan))
    plan = balance(fleet, Limits(memory_mib=20 * 1024), metric="norm")
    assert plan.memory_mib <= 20 * 1024
    assert len(plan.rounds) <= max(3, 1.2 * busiest(plan))


def test_two_change_places_by_a_third_host_where_no_move_fits() -> None:
    fleet = Fleet(
        hosts=(host("h1", 32768, 8), host("h2", 32768, 8), host("h3", 32768, 4)),
        guests=(
            guest("a", 1024, 4, host="h1", cpu_load=4.0),
            guest("b", 1024, 4, host="h1", cpu_load=4.0),
            guest("c", 1024, 4, host="h2", cpu_load=0.1),
            guest("d", 1024, 4, host="h2", cpu_load=0.1),
        ),
        policy=Policy(cpu_ratio=1.0),
    )
    plan = balance(fleet, metric="norm")
    assert len(plan.rounds) <= 3
    follow(fleet, plan)
    assert plan.after.highest[2][1] < plan.before.highest[2][1]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_plan_that_counted_on_more_is_cut_and_not_dropped(seed: int) -> None:
    table = Table(full(seed))
    search = Search(table, terms(table, "norm"), prices(table, Pricing()))
    start = search.figure() + search.wrong()
    found = short_schedule(search, 0.004, (), (40,))
    assert found.rounds
    assert not is_too_long(len(found.rounds), order_busiest(found, 1), 1)
    assert search.figure() + search.wrong() < start
    # Nobody is said to go on who stays.
    last = {step.row: step for step in found.steps()}
    assert not any(step.detour for step in last.values())
    assert all(int(table.at[row]) == step.target for row, step in last.items())
