"""Balance keeps the room for the loss of a host: what may die before may die after."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.decide.room import judge
from tests.decide.room.fleets import NO_DATA, data, fleets, guest, host
from tests.decide.room.test_balance import after, follow
from vorch.decide.room import balance as plain
from vorch.decide.room.fleet import Fleet
from vorch.decide.room.keeping import balance, lost_now
from vorch.decide.room.spare import Spare, Verdict, survives
from vorch.decide.room.table import Table
from vorch.errors import Invalid
from vorch.simulate import with_spare
from vorch.simulate.placement_file import read_placement


def may_die(fleet: Fleet) -> set[str]:
    """Hosts with refuges for all their guests, looked at by other code."""
    found = set()
    for name, verdict in Spare(Table(fleet)).verdicts().items():
        if verdict is Verdict.YES:
            lost = survives(Table(fleet), [name], prove=False)
            there = [one.name for one in fleet.guests if one.host == name and one.ha]
            if lost.verdict is Verdict.YES:
                assert judge.wrong(fleet, [name], lost.refuges, there) is None
            found.add(name)
    return found


def short_of(fleet: Fleet) -> float:
    """MiB and vCPUs that hosts have too much on them."""
    where = {one.name: one.host for one in fleet.guests}
    return sum(
        max(0, -judge.memory_free(fleet, one, where)) + max(0, -judge.vcpus_free(fleet, one, where))
        for one in fleet.hosts
    )


def with_a_hole() -> Fleet:
    """Host h3 has just the hole that the guest on h1 would need; evenness alone would fill it."""
    small = tuple(guest(f"s{number}", 1024, host="h2", cpu_load=1.0) for number in range(9))
    big = guest("big", 8192, host="h1", cpu_load=0.1)
    hosts = (host("h1", 10240), host("h2", 10240), host("h3", 10240))
    return Fleet(hosts=hosts, guests=(big, *small, guest("t", 2048, host="h3", cpu_load=0.1)))


def test_the_hole_for_a_large_guest_stays() -> None:
    fleet = with_a_hole()
    assert "h1" in may_die(fleet)
    alone = plain.balance(fleet)
    assert "h1" not in may_die(after(fleet, alone.moves))
    plan = balance(fleet)
    follow(fleet, plan)
    assert may_die(fleet) <= may_die(after(fleet, plan.moves))
    assert any("could not be lost any more" in note for note in plan.notes)


def test_where_nobody_wants_it_kept_the_hole_is_filled() -> None:
    fleet = with_spare(with_a_hole(), "ignore")
    assert balance(fleet) == plain.balance(fleet)
    with pytest.raises(Invalid, match="spare"):
        with_spare(fleet, "perhaps")


@settings(max_examples=100, deadline=None)
@given(fleets(placed=True))
def test_whoever_may_die_may_do_so_afterwards(fleet: Fleet) -> None:
    fleet = dataclasses.replace(fleet, policy=dataclasses.replace(fleet.policy, spare="keep"))
    plan = balance(fleet)
    follow(fleet, plan)
    then = after(fleet, plan.moves)
    assert may_die(fleet) <= may_die(then)
    mended = plan.after.broken < plan.before.broken or short_of(then) < short_of(fleet)
    assert plan.after.figure <= plan.before.figure + 1e-9 or mended


def test_what_the_policy_asks_for_is_kept_as_well() -> None:
    """Any rack may be lost: the large ones of r0 have a place each in r1, which evenness fills.

    Each host of r0 alone may be lost either way, since the other one takes its large guest.
    """
    tags = [frozenset({f"rack:r{n // 2}"}) for n in range(4)]
    hosts = (
        *(host(f"h{n}", 10240, tags=tags[n]) for n in (0, 1)),
        *(host(f"h{n}", 6144, tags=tags[n]) for n in (2, 3)),
    )
    small = tuple(guest(f"s{n}", 1024, host="h0", cpu_load=2.0, ha=False) for n in range(5))
    large = tuple(guest(f"l{n}", 5120, host=f"h{n}", cpu_load=0.1) for n in (0, 1))
    fleet = Fleet(hosts=hosts, guests=(*small, *large))
    racks = dataclasses.replace(fleet.policy, spare="keep", spare_over="rack")
    fleet = dataclasses.replace(fleet, policy=racks)
    assert lost_now(fleet) == frozenset()
    assert lost_now(after(fleet, plain.balance(fleet).moves)) == {"rack:r0"}
    plan = balance(fleet)
    follow(fleet, plan)
    assert plan.moves
    assert lost_now(after(fleet, plan.moves)) == frozenset()


@settings(max_examples=60, deadline=None)
@given(fleets(placed=True), st.sampled_from([(2, ""), (1, "rack"), (2, "rack")]))
def test_whatever_may_be_lost_may_be_so_afterwards(fleet: Fleet, asked: tuple[int, str]) -> None:
    policy = dataclasses.replace(
        fleet.policy, spare="keep", spare_hosts=asked[0], spare_over=asked[1]
    )
    fleet = dataclasses.replace(fleet, policy=policy)
    assert lost_now(after(fleet, balance(fleet).moves)) <= lost_now(fleet)


@pytest.mark.slow
@pytest.mark.skipif(not data("tight-n10-s1").exists(), reason=NO_DATA)
def test_a_nearly_full_cluster_is_evened_out_all_the_same() -> None:
    fleet = read_placement(data("tight-n10-s1"))
    plan = balance(fleet)
    follow(fleet, plan)
    then = after(fleet, plan.moves)
    assert may_die(fleet) <= may_die(then)
    assert plan.after.figure < 0.8 * plan.before.figure
    assert balance(then).moves == ()
