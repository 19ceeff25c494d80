"""Placing guests: who fits where, why not elsewhere, and what a score is made of."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys

import pytest
from hypothesis import assume, given, settings

from tests.decide.room import judge
from tests.decide.room.fleets import NO_DATA, data, fleets, guest, host
from vorch.decide.room.fleet import (
    Apart,
    Cell,
    Fleet,
    Guest,
    Host,
    Needs,
    Pages,
    Policy,
    Spread,
    Together,
)
from vorch.decide.room.pick import Answer, Picker, place
from vorch.decide.room.spare import Spare, Verdict
from vorch.decide.room.table import Table
from vorch.simulate.placement_file import read_placement

IGNORE = Policy(spare="ignore")


def where(fleet: Fleet, answer: Answer | None = None) -> dict[str, str]:
    there = {one.name: one.host for one in fleet.guests if one.host}
    return there | (answer.hosts if answer is not None else {})


def reasons(fleet: Fleet, name: str) -> dict[str, str]:
    return {one.host: one.refused for one in place(fleet, [name]).explain(name)}


@settings(max_examples=120, deadline=None)
@given(fleets())
def test_never_over_and_never_against_a_rule(fleet: Fleet) -> None:
    answer = place(fleet)
    now = where(fleet)
    for one in answer.placed:
        if not one.host:
            continue
        target = fleet.host(one.host)
        assert not target.closed
        assert set(fleet.guest(one.guest).needs.tags) <= target.tags
        for rule in fleet.rules:
            # Those that have to be on one host go as one: their fellows are there already. A spread
            # is right when all are where they belong: who comes first may be told last.
            if rule.hard and one.guest in rule.guests and not isinstance(rule, Together | Spread):
                assert not judge.barred(fleet, rule, one.guest, one.host, now)
        now[one.guest] = one.host
    for rule in fleet.rules:
        for one in answer.placed:
            if rule.hard and isinstance(rule, Spread) and one.host and one.guest in rule.guests:
                others = {guest: host for guest, host in now.items() if guest != one.guest}
                assert not judge.barred(fleet, rule, one.guest, one.host, others)
    for target_name in set(answer.hosts.values()):
        assert judge.memory_free(fleet, fleet.host(target_name), now) >= 0
        assert judge.vcpus_free(fleet, fleet.host(target_name), now) >= 0


@settings(max_examples=120, deadline=None)
@given(fleets())
def test_every_refusal_is_true_and_parts_add_up(fleet: Fleet) -> None:
    fleet = dataclasses.replace(fleet, policy=dataclasses.replace(fleet.policy, spare="ignore"))
    unplaced = [one for one in fleet.guests if not one.host]
    assume(unplaced)
    picker = Picker(Table(fleet))
    for one in unplaced:
        found = picker.explain([picker.table.guest(one.name)])
        assert {verdict.host for verdict in found} == {host.name for host in fleet.hosts}
        picked = picker.pick([picker.table.guest(one.name)])
        fit = [verdict for verdict in found if not verdict.refused]
        assert picked.host == (fit[0].host if fit else "")
        for verdict in found:
            target = fleet.host(verdict.host)
            if verdict.refused:
                assert judge.true_reason(fleet, one, target, where(fleet), verdict.refused), verdict
            else:
                assert sum(verdict.parts.values()) == pytest.approx(verdict.score, abs=1e-9)
                assert judge.memory_free(fleet, target, where(fleet)) >= one.takes_mib
                assert judge.vcpus_free(fleet, target, where(fleet)) >= one.vcpus


@settings(max_examples=60, deadline=None)
@given(fleets())
def test_the_order_of_the_input_does_not_matter(fleet: Fleet) -> None:
    mixed = dataclasses.replace(
        fleet,
        hosts=tuple(reversed(fleet.hosts)),
        guests=tuple(reversed(fleet.guests)),
        rules=tuple(reversed(fleet.rules)),
    )
    assert place(fleet).placed == place(mixed).placed


@settings(max_examples=60, deadline=None)
@given(fleets(hosts=5, guests=10))
def test_what_could_be_lost_still_can(fleet: Fleet) -> None:
    # Where there is but one host, nothing can be kept for its loss.
    assume(len(fleet.hosts) > 1)
    fleet = dataclasses.replace(fleet, policy=dataclasses.replace(fleet.policy, spare="keep"))
    before = Spare(Table(fleet)).verdicts(prove=True)
    answer = place(fleet)
    after = dataclasses.replace(
        fleet,
        guests=tuple(
            dataclasses.replace(one, host=where(fleet, answer).get(one.name, ""))
            for one in fleet.guests
        ),
    )
    now = Spare(Table(after)).verdicts(prove=True)
    for name, verdict in before.items():
        if verdict is Verdict.YES:
            assert now[name] is not Verdict.NO


def test_the_seed_of_hashes_does_not_matter() -> None:
    code = (
        "from tests.decide.room.test_pick import mixed; from vorch.decide.room.pick import place;"
        "print(place(mixed()).placed)"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(said) == 1


def mixed() -> Fleet:
    tags = [frozenset({f"rack:r{n % 3}", f"ssd{n % 2}", "x", "y"}) for n in range(6)]
    return Fleet(
        hosts=tuple(host(f"h{n}", 32768, tags=tags[n]) for n in range(6)),
        guests=tuple(
            guest(f"g{n}", 1024 * (1 + n % 5), needs=Needs(tags=("ssd1", "x"))) for n in range(14)
        ),
        rules=(
            Spread(name="even", guests=("g1", "g2", "g3"), over="rack"),
            Apart(name="far", guests=("g4", "g5")),
            Together(name="near", guests=("g6", "g7"), hard=False),
        ),
    )


def test_the_reason_names_what_is_missing() -> None:
    hosts = (
        host("far", pools=frozenset({"other"})),
        host("lone", lacks={"dmz": "no bridge br7"}),
        host("old", cpu_models=frozenset({"qemu64"})),
        host("tcg", accelerator="tcg"),
        host("xen", hypervisor="xen"),
        host("small", 2048),
        host("busy", other_vcpus=30),
        host("quiet", closed="it is cordoned"),
        host("fine", hypervisor="kvm", accelerator="kvm"),
    )
    needs = Needs(
        hypervisor="kvm", accelerator="kvm", cpu_model="EPYC", pools=("vms",), networks=("dmz",)
    )
    one = guest("web", 4096, 4, overhead_mib=128, needs=needs)
    found = reasons(Fleet(hosts=hosts, guests=(one,), policy=IGNORE), "web")
    assert found == {
        "far": "it does not reach pool 'vms'",
        "lone": "it cannot have network 'dmz': no bridge br7",
        "old": "its hypervisor knows no CPU model 'EPYC'",
        "tcg": "its accelerator is 'tcg', and 'kvm' is asked for",
        "xen": "its hypervisor is 'xen', and 'kvm' is asked for",
        "small": "2176 MiB of memory are short (4224 wanted, 2048 free)",
        "busy": "2 vCPUs are short (4 wanted, 2 free at 4 per CPU)",
        "quiet": "it is cordoned",
        "fine": "",
    }


def test_the_reason_names_the_rule() -> None:
    fleet = Fleet(
        hosts=(host("h1"), host("h2"), host("h3", 512)),
        guests=(guest("a"), guest("b", host="h1"), guest("c", host="h2")),
        rules=(Apart(name="far", guests=("a", "b")), Together(name="near", guests=("a", "c"))),
        policy=IGNORE,
    )
    assert reasons(fleet, "a") == {
        "h1": "rule 'far': b is there, and it must be apart",
        "h2": "",
        "h3": "rule 'near': it must be together with c on h2",
    }


def test_cells_and_huge_pages() -> None:
    pages = (Pages(size_kib=2048, memory_mib=4096),)
    cells = tuple(Cell(number=n, cpus=4, memory_mib=8192, pages=pages) for n in (0, 1))
    hosts = (host("flat"), host("numa", cells=cells))
    huge = Needs(pages_kib=2048, one_cell=True)
    fleet = Fleet(
        hosts=hosts,
        guests=(
            guest("a", 3072, needs=huge, host="numa"),
            guest("b", 3072, needs=huge),
            guest("c", 3072, needs=huge),
            guest("d", 4096, needs=Needs(pages_kib=2048)),
        ),
        policy=IGNORE,
    )
    assert place(fleet, ["b", "c"]).hosts == {"b": "numa"}
    found = reasons(fleet, "d")
    assert found["flat"] == "it has no huge pages of 2048 KiB"
    assert found["numa"] == ""
    full = dataclasses.replace(fleet, guests=(*fleet.guests[:1], guest("e", 6144, needs=huge)))
    assert reasons(full, "e")["numa"] == (
        "2048 MiB of huge pages of 2048 KiB are short in its best NUMA cell (6144 wanted, 4096"
        " free)"
    )


def test_wishes_and_preferred_hosts_come_before_evenness() -> None:
    fleet = Fleet(
        hosts=(host("h1"), host("h2"), host("h3")),
        guests=(
            guest("full", 8192, host="h3"),
            guest("a", needs=Needs(preferred=(("h3", 2), ("h1", 1)))),
            guest("b"),
        ),
        rules=(Together(name="near", guests=("b", "full"), hard=False),),
        policy=IGNORE,
    )
    assert place(fleet).hosts == {"a": "h3", "b": "h3"}
    best, second, third = place(fleet, ["a"]).explain("a")
    assert [best.host, second.host, third.host] == ["h3", "h1", "h2"]
    assert [one.parts["wishes"] for one in (best, second, third)] == [0.0, 100.0, 200.0]


def test_those_that_belong_together_go_as_one() -> None:
    """Neither host has the most room for one and enough for both but the last."""
    fleet = Fleet(
        hosts=(host("h1", 6144), host("h2", 7168)),
        guests=(guest("a", 4096), guest("b", 3072), guest("c", 5120)),
        rules=(Together(name="pair", guests=("a", "b")),),
        policy=IGNORE,
    )
    assert place(fleet).hosts == {"a": "h2", "b": "h2", "c": "h1"}


def test_higher_priorities_come_first_and_the_rest_is_said() -> None:
    fleet = Fleet(
        hosts=(host("h1", 4096),),
        guests=(guest("low", 4096), guest("high", 2048, priority=5)),
        policy=IGNORE,
    )
    answer = place(fleet)
    assert answer.hosts == {"high": "h1"}
    assert answer.left == ("low",)
    assert "2048 MiB of memory are short" in answer.placed[1].why


def spared(spare: str) -> Fleet:
    return Fleet(
        hosts=(host("h1", 4096), host("h2", 4096)),
        guests=(guest("a", 3072, host="h1"), guest("b", 2048)),
        policy=Policy(spare=spare),  # type: ignore[arg-type]
    )


def test_spare_room_is_kept_unless_the_policy_says_otherwise() -> None:
    kept = place(spared("keep"))
    assert kept.left == ("b",)
    assert "could not be lost any more" in kept.placed[0].why
    warned = place(spared("warn"))
    assert warned.hosts == {"b": "h2"}
    assert "could not be lost any more" in warned.placed[0].warning
    assert place(spared("ignore")).placed[0].warning == ""


def test_a_batch_is_explained_as_it_was_taken() -> None:
    fleet = Fleet(
        hosts=(host("h1", 4096), host("h2", 4096)),
        guests=(guest("a", 3072), guest("b", 2048), guest("c", 2048)),
        policy=IGNORE,
    )
    answer = place(fleet)
    assert answer.left == ("c",) or len(answer.hosts) == 3
    last = answer.explain("b")
    assert {one.host: one.refused for one in last} == {
        "h1": "1024 MiB of memory are short (2048 wanted, 1024 free)",
        "h2": "",
    }


def test_alike_hosts_go_by_name() -> None:
    fleet = Fleet(hosts=tuple(Host(name=n, cpus=8, memory_mib=8192) for n in "cab"), policy=IGNORE)
    fleet = dataclasses.replace(fleet, guests=(Guest(name="x", memory_mib=64, vcpus=1),))
    assert place(fleet).hosts == {"x": "a"}


@pytest.mark.skipif(not data("drift-n50-s1").exists(), reason=NO_DATA)
@pytest.mark.parametrize("name", ["drift-n50-s1", "hotspot-n50-s1", "rules-n50-s1"])
def test_a_batch_is_no_worse_than_one_by_one(name: str) -> None:
    fleet = read_placement(data(name))
    sizes = [(1, 2), (2, 8), (4, 16), (8, 16)]
    new = [guest(f"x{n:03}", gib * 1024, cpus) for n in range(15) for cpus, gib in sizes]
    # Small ones are named so that they would come first.
    new = [dataclasses.replace(one, name=f"x{n:03}") for n, one in enumerate(new)]
    fleet = dataclasses.replace(fleet, guests=(*fleet.guests, *new))
    together, single = Picker(Table(fleet)), Picker(Table(fleet))
    rows = [together.table.guest(one.name) for one in new]
    assert not together.batch(rows).left
    for row in rows:
        assert single.take([row]).host
    assert together.score.whole() <= single.score.whole() + 1e-9


def test_two_of_three_go_where_one_is_alone_when_the_third_is_elsewhere() -> None:
    """The second of the two comes last, and is told of before the third."""
    hosts = tuple(
        Host(name=f"h{number}", cpus=1, memory_mib=2048, tags=frozenset({f"rack:r{number // 3}"}))
        for number in range(4)
    )
    guests = tuple(Guest(name=f"g{number}", memory_mib=1024, vcpus=1) for number in range(3))
    names = tuple(one.name for one in guests)
    rules = (
        Together(name="t", guests=names[:2], hard=False),
        Spread(name="s", guests=names, over="rack", max_skew=1, hard=True),
    )
    fleet = Fleet(hosts=hosts, guests=guests, rules=rules, policy=Policy(spare="ignore"))
    where = place(fleet).hosts
    assert where["g0"] == where["g1"] == "h3"
    assert where["g2"] in ("h0", "h1", "h2")
