"""Room for the loss of several hosts at once, or of any one rack."""

from __future__ import annotations

import dataclasses
import itertools
import random

import pytest

from vorch.decide.room.capacity import capacity
from vorch.decide.room.fleet import Apart, Fleet, Guest, Host, Policy
from vorch.decide.room.pick import Picker, place
from vorch.decide.room.spare import Spare, Verdict, loss
from vorch.decide.room.table import NOWHERE, Table
from vorch.decide.room.wide import SETS_MOST, Wide, failing, spare_of

RACKS = ("r1", "r1", "r2", "r2", "r3", "r3")


def fleet(*guests: Guest, hosts: int = 6, size: int = 100, **policy: object) -> Fleet:
    """Hosts of one size, two and two of a rack."""
    return Fleet(
        hosts=tuple(
            Host(
                name=f"h{n + 1}",
                cpus=64,
                memory_mib=size,
                tags=frozenset({f"rack:{RACKS[n % 6]}"}),
            )
            for n in range(hosts)
        ),
        guests=guests,
        policy=Policy(cpu_ratio=4, **policy),  # type: ignore[arg-type]
    )


def guest(name: str, mib: int, host: str = "", **other: object) -> Guest:
    return Guest(name=name, memory_mib=mib, vcpus=1, host=host, **other)  # type: ignore[arg-type]


def full(mib: int, hosts: int = 6) -> list[Guest]:
    """One on each host."""
    return [guest(f"g{n + 1}", mib, f"h{n + 1}") for n in range(hosts)]


def test_only_what_is_asked_for_costs_anything() -> None:
    assert type(spare_of(Table(fleet()))) is Spare
    assert type(spare_of(Table(fleet(spare_hosts=2)))) is Wide
    assert type(spare_of(Table(fleet(spare_over="rack")))) is Wide


def test_two_at_once_are_more_than_one_and_one() -> None:
    """Four of 20 each do not go into the 60 that are left on the third host; three do."""
    hosts = 3
    guests = [guest(f"{a}{n}", 20, f"h{n}") for n in range(1, hosts + 1) for a in "ab"]
    one = fleet(*guests, hosts=hosts)
    assert failing(spare_of(Table(one))) == {}
    two = dataclasses.replace(one, policy=Policy(cpu_ratio=4, spare_hosts=2))
    # Four of 20 go into the 60 of the last one: no.
    assert failing(spare_of(Table(two))) == {
        "h1 and h2": Verdict.NO,
        "h1 and h3": Verdict.NO,
        "h2 and h3": Verdict.NO,
    }
    fewer = dataclasses.replace(two, guests=tuple(guests[:4]))
    assert failing(spare_of(Table(fewer))) == {}


def test_a_rack_is_lost_whole() -> None:
    """Of 40 on each of six two are lost with a rack: 80 into four times 60."""
    assert failing(spare_of(Table(fleet(*full(40), spare_over="rack")))) == {}
    # Of 60 each one goes nowhere but alone into 40: not even one host may be lost.
    assert "rack:r1" in failing(spare_of(Table(fleet(*full(60), spare_over="rack"))))
    # Two in one rack that are apart from what is on the four others: any host may be lost, by
    # going to the other host of the rack, but not the rack.
    rule = Apart(name="apart", guests=("g1", "g3", "g4", "g5", "g6"))
    ruled = dataclasses.replace(fleet(*full(20), spare_over="rack"), rules=(rule,))
    assert list(failing(spare_of(Table(ruled)))) == ["rack:r1", "rack:r2", "rack:r3"]
    alone = dataclasses.replace(ruled, policy=Policy(cpu_ratio=4))
    assert failing(spare_of(Table(alone))) == {}


def test_a_placement_keeps_it() -> None:
    """Two of four may be lost while the two others have as much free as the two have on them."""
    there = full(50, hosts=4)
    base = fleet(*there, guest("new", 10), hosts=4, spare_hosts=2)
    answer = place(base)
    assert answer.hosts == {}
    assert "could not be lost at once any more" in answer.placed[0].why
    assert place(dataclasses.replace(base, policy=Policy(cpu_ratio=4))).hosts == {"new": "h1"}
    warned = dataclasses.replace(base, policy=Policy(cpu_ratio=4, spare_hosts=2, spare="warn"))
    (placed,) = place(warned).placed
    assert placed.host
    assert "could not be lost at once" in placed.warning
    smaller = fleet(*full(40, hosts=4), guest("new", 10), hosts=4, spare_hosts=2)
    assert place(smaller).hosts == {"new": "h1"}


def test_where_it_was_gone_before_nothing_is_refused() -> None:
    base = fleet(*full(60, hosts=4), guest("new", 10, ha=False), hosts=4, spare_hosts=2)
    assert place(base).hosts == {"new": "h1"}


def test_too_many_sets_are_not_looked_at() -> None:
    table = Table(fleet(*full(10, 102), hosts=102, spare_hosts=2))
    (why,) = failing(spare_of(table))
    assert "too many" in why
    assert len(spare_of(table).sets) <= SETS_MOST  # type: ignore[attr-defined]
    assert "too many" not in "".join(
        failing(spare_of(Table(fleet(*full(10, 100), hosts=100, spare_hosts=2))))
    )


def test_growth_counts_with_it() -> None:
    """Four hosts of 100 with nothing on them: two can be lost while 200 are in use."""
    found = capacity(fleet(hosts=4, spare_hosts=2), size=guest("size", 10))
    assert found.hosts_lost == 2
    assert found.growth is not None
    assert found.growth.fit == 40
    assert found.growth.with_spare == 20


def by_hand(table: Table, spare: Wide) -> set[str]:
    """Of each set for itself, by packing and proof."""
    found = set()
    for label, lost in zip(spare.labels, spare.sets, strict=True):
        if loss(table, lost).verdict is not Verdict.YES:
            found.add(label)
    return found


@pytest.mark.parametrize("seed", range(24))
def test_it_is_kept_current_while_guests_move(seed: int) -> None:
    """After each change it says what looking at all anew says; what it admits, it keeps."""
    chance = random.Random(seed)
    guests = [
        guest(
            f"g{n}",
            chance.choice((20, 30, 40)),
            chance.choice(("", *(f"h{k + 1}" for k in range(6)))),
            ha=chance.random() < 0.8,
        )
        for n in range(14)
    ]
    policy = {"spare_hosts": 2} if seed % 2 else {"spare_over": "rack"}
    base = fleet(*guests, **policy)
    rules = (Apart(name="apart", guests=("g0", "g1", "g2")),) if seed % 3 == 0 else ()
    base = dataclasses.replace(base, rules=rules)
    table = Table(base)
    spare = spare_of(table)
    assert isinstance(spare, Wide)
    for _ in range(25):
        row, host = chance.randrange(14), chance.randrange(-1, 6)
        source = int(table.at[row])
        if host == source or (host >= 0 and table.memory[row] > table.free_mib[host]):
            continue
        if source < 0:
            before = set(failing(spare))
            change, why = spare.admits([row], host)
            table.move(row, host)
            came = by_hand(table, spare)
            if change is not None:
                spare.admit([row], host, change)
                assert came <= before
            else:
                assert why
                spare.moved(row, NOWHERE, host)
        else:
            table.move(row, host)
            spare.moved(row, source, host)
        spare.settle()
        told = set(spare.unsurvived())
        truth = by_hand(table, spare)
        # Never a wrong yes; and no no where packing finds a way.
        assert truth <= told
        anew = spare_of(table)
        assert isinstance(anew, Wide)
        assert told <= set(anew.unsurvived()) | truth


def test_the_first_that_fails_is_enough_where_only_that_counts() -> None:
    guests = [guest(f"{a}{n}", 20, f"h{n}") for n in (1, 2, 3) for a in "ab"]
    table = Table(fleet(*guests, hosts=3, spare_hosts=2))
    assert list(failing(spare_of(table, first=True))) == ["h1 and h2"]
    assert len(failing(spare_of(table))) == 3
    # Where one host cannot be lost, nobody looks at two.
    table = Table(fleet(*full(60, 3), hosts=3, spare_hosts=2))
    assert list(failing(spare_of(table, first=True))) == ["h1", "h2", "h3"]
    fine = Table(fleet(*full(20, 3), hosts=3, spare_hosts=2))
    assert failing(spare_of(fine, first=True)) == {}


def test_pairs_are_all_pairs() -> None:
    spare = spare_of(Table(fleet(hosts=5, spare_hosts=2)))
    assert isinstance(spare, Wide)
    assert spare.sets == list(itertools.combinations(range(5), 2))


def test_a_picker_that_takes_many_keeps_it() -> None:
    new = [guest(f"n{n:02}", 10) for n in range(40)]
    base = fleet(*new, hosts=4, spare_hosts=2)
    table = Table(base)
    answer = Picker(table).batch(list(range(40)))
    assert len(answer.hosts) == 20
    assert failing(spare_of(table)) == {}
