"""Empty hosts and room for one more: who makes way, in which order, and when it is said to fail."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from tests.decide.room import judge
from tests.decide.room.fleets import NO_DATA, data, fleets, guest, host
from vorch.decide.room import empty, solver
from vorch.decide.room.empty import Emptying, evacuate, make_room
from vorch.decide.room.fleet import Apart, Fleet, Guest, Together
from vorch.decide.room.table import Table
from vorch.errors import Conflict
from vorch.simulate.placement_file import read_placement


def follow(fleet: Fleet, found: Emptying) -> dict[str, str]:
    """Where all are at the end; each step into room that is there, and apart from its rivals."""
    where = {one.name: one.host for one in fleet.guests}
    for move in found.moves:
        assert where[move.guest] == move.source != move.target
        target = fleet.host(move.target)
        assert not target.closed
        assert set(fleet.guest(move.guest).needs.tags) <= target.tags
        where[move.guest] = move.target
        assert judge.memory_free(fleet, target, where) >= 0
        assert judge.vcpus_free(fleet, target, where) >= 0
        for rule in fleet.rules:
            if isinstance(rule, Apart) and rule.hard and move.guest in rule.guests:
                assert not judge.barred(fleet, rule, move.guest, move.target, where)
    for moves in found.rounds:
        busy = [name for move in moves for name in (move.source, move.target) if name]
        assert len(busy) == len(set(busy))
    return where


@settings(max_examples=80, deadline=None)
@given(fleets(placed=True))
def test_an_empty_host_is_empty_or_it_is_said_who_stays(fleet: Fleet) -> None:
    table = Table(fleet)
    before = table.at.copy()
    name = fleet.hosts[0].name
    found = evacuate(table, [name])
    assert (table.at == before).all()
    where = follow(fleet, found)
    stay = {one for one, _ in found.left}
    assert {one for one, there in where.items() if there == name} >= stay & {
        one.name for one in fleet.guests if one.host == name
    }
    assert found.complete == (name not in where.values())
    if stay:
        assert found.why


def full(count: int, size_mib: int, name: str) -> tuple[Guest, ...]:
    return tuple(guest(f"{name}-{n}", size_mib, 0, host=name) for n in range(count))


def test_one_makes_way() -> None:
    """4 GiB are free on h2 and on h3, and 6 are wanted: one of 2 GiB has to change over."""
    fleet = Fleet(
        hosts=(host("h1"), host("h2", 12288), host("h3", 12288)),
        guests=(
            guest("big", 6144, 0, host="h1"),
            *full(4, 2048, "h2"),
            guest("x", 8192, 0, host="h3"),
        ),
    )
    found = evacuate(fleet, ["h1"])
    assert found.complete
    assert len(found.making_way) == 1
    assert found.moves[-1].guest == "big"
    assert "makes way" in found.moves[0].why
    assert follow(fleet, found)["big"] == "h2"


def test_no_room_at_all_is_proven() -> None:
    fleet = Fleet(
        hosts=(host("h1", 8192), host("h2", 8192)),
        guests=(guest("a", 6144, 0, host="h1"), guest("b", 6144, 0, host="h2")),
    )
    found = evacuate(fleet, ["h1"])
    assert found.moves == ()
    assert [name for name, _ in found.left] == ["a"]
    assert found.proven
    assert "4096 MiB of memory are short" in found.why


def test_what_is_not_proven_is_said_to_be_so() -> None:
    """Three of 3 GiB do not fit into two holes, but their sum does."""
    fleet = Fleet(
        hosts=(host("h1", 16384), host("h2", 5120), host("h3", 5120)),
        guests=(
            guest("a", 3072, 0, host="h1"),
            guest("b", 3072, 0, host="h1"),
            guest("c", 4096, 0, host="h1", moves="pinned"),
            guest("d", 1024, 0, host="h2"),
            guest("e", 1536, 0, host="h3"),
        ),
    )
    found = evacuate(fleet, ["h1"])
    assert [name for name, _ in found.left] == ["c"]
    assert found.proven
    assert "cannot be moved" in found.why


def test_a_whole_rack_is_emptied() -> None:
    hosts = tuple(host(f"h{n}", tags=frozenset({f"rack:r{n % 2}"})) for n in range(4))
    guests = tuple(guest(f"g{n}", 2048, 0, host=f"h{n % 4}") for n in range(8))
    fleet = Fleet(hosts=hosts, guests=guests)
    found = evacuate(fleet, [one.name for one in hosts if one.domain("rack") == "r0"])
    assert found.complete
    assert set(follow(fleet, found).values()) == {"h1", "h3"}
    assert found.memory_mib == 4 * 2048
    assert found.seconds > 0


def test_who_is_together_goes_together() -> None:
    fleet = Fleet(
        hosts=(host("h1"), host("h2", 3072), host("h3", 9000)),
        guests=(guest("a", 2048, 0, host="h1"), guest("b", 2048, 0, host="h1")),
        rules=(Together(name="r1", guests=("a", "b")),),
    )
    assert set(follow(fleet, evacuate(fleet, ["h1"])).values()) == {"h3"}


def test_room_is_made_for_one_that_fits_nowhere() -> None:
    fleet = Fleet(
        hosts=(host("h1", 8192), host("h2", 8192)),
        guests=(
            guest("new", 6144, 0),
            guest("a", 3072, 0, host="h1"),
            guest("b", 3072, 0, host="h2"),
        ),
    )
    found = make_room(fleet, "new")
    assert [(move.guest, move.source) for move in found.moves][-1] == ("new", "")
    assert found.making_way == ("a",)
    follow(fleet, found)


def test_room_is_not_made_for_one_that_has_a_host() -> None:
    fleet = Fleet(hosts=(host("h1"),), guests=(guest("a", host="h1"),))
    with pytest.raises(Conflict, match="is on 'h1' already"):
        make_room(fleet, "a")


@pytest.mark.parametrize(("name", "node"), [("tight-n50-s1", "n0008"), ("tight-n10-s1", "n0002")])
@pytest.mark.skipif(not data("tight-n50-s1").exists(), reason=NO_DATA)
def test_where_simple_fitting_leaves_some_behind(name: str, node: str) -> None:
    fleet = read_placement(data(name))
    found = evacuate(fleet, [node])
    assert found.complete
    assert len(found.making_way) <= 1
    assert node not in follow(fleet, found).values()


@pytest.mark.skipif(not data("tight-n10-s1").exists(), reason=NO_DATA)
@pytest.mark.skipif(not solver.available(), reason="OR-Tools is not installed")
def test_where_no_chain_is_found_the_solver_knows_a_way() -> None:
    fleet = read_placement(data("tight-n10-s1"))
    found = evacuate(fleet, ["n0003"])
    assert found.complete
    assert len(found.making_way) <= 8
    assert "n0003" not in follow(fleet, found).values()


def test_half_of_a_cluster_that_is_needed_ends_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = [512 * (2 + number % 7) for number in range(24)]
    names = [f"h{number:02}" for number in range(16)]
    fleet = Fleet(
        hosts=tuple(host(name, 32768) for name in names),
        guests=tuple(
            guest(f"{name}-{number:02}", size, 0, host=name)
            for name in names
            for number, size in enumerate(sizes[: 8 + len(name)])
        ),
    )
    tries = 0
    chain = empty._Emptying._chain

    def counted(self: empty._Emptying, row: int, extra: int, kept: set[int]) -> bool:
        nonlocal tries
        tries += 1
        return chain(self, row, extra, kept)

    monkeypatch.setattr(empty._Emptying, "_chain", counted)
    found = evacuate(fleet, names[:8])
    follow(fleet, found)
    assert found.left
    assert found.proven
    assert tries < 2 * empty.ALL_FEW_TRIES
    # Who stays has no room by itself either.
    then = follow(fleet, found)
    for name, _ in found.left:
        for target in names[8:]:
            assert judge.memory_free(fleet, fleet.host(target), then) < fleet.guest(name).memory_mib
