"""Fleets for tests of decisions about room: by hand, at random by hypothesis, from files."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import strategies as st

from vorch.decide.room.fleet import (
    NO_NEEDS,
    Apart,
    Fleet,
    Guest,
    Host,
    Needs,
    Policy,
    Rule,
    Spread,
    Together,
)

BESIDE = Path(__file__).parents[4] / "shared" / "data" / "placement"
FOLDER = Path(os.environ.get("VORCH_PLACEMENT_DATA") or BESIDE)
NO_DATA = f"no placement files in {FOLDER}; VORCH_PLACEMENT_DATA names another"


def data(name: str) -> Path:
    plain = FOLDER / f"{name}.json"
    return plain if plain.exists() else FOLDER / f"{name}.json.gz"


def host(name: str, memory_mib: int = 16384, cpus: int = 8, **more: object) -> Host:
    return Host(name=name, memory_mib=memory_mib, cpus=cpus, **more)  # type: ignore[arg-type]


def guest(name: str, memory_mib: int = 1024, vcpus: int = 1, **more: object) -> Guest:
    return Guest(name=name, memory_mib=memory_mib, vcpus=vcpus, **more)  # type: ignore[arg-type]


@st.composite
def fleets(
    draw: st.DrawFn, *, hosts: int = 5, guests: int = 12, placed: bool | None = None
) -> Fleet:
    """Any small fleet. `placed`: its guests are somewhere; None: some are."""
    names = [f"h{number}" for number in range(draw(st.integers(1, hosts)))]
    found = [
        Host(
            name=name,
            cpus=draw(st.integers(1, 4)),
            memory_mib=draw(st.integers(2, 12)) * 1024,
            reserve_mib=draw(st.sampled_from([0, 512])),
            tags=frozenset({f"rack:r{draw(st.integers(0, 2))}"} | draw(_SSD)),
            cpu_ratio=draw(st.sampled_from([None, None, 1.0, 2.0])),
            closed=draw(st.sampled_from(["", "", "", "", "it is cordoned"])),
        )
        for name in names
    ]
    there = st.sampled_from(names)
    where = there if placed else st.just("") if placed is False else st.one_of(st.just(""), there)
    many = [
        Guest(
            name=f"g{number:02}",
            memory_mib=draw(st.integers(1, 5)) * 1024,
            overhead_mib=draw(st.sampled_from([0, 128])),
            vcpus=draw(st.integers(1, 4)),
            cpu_load=draw(st.sampled_from([None, 0.5, 1.5])),
            host=draw(where),
            ha=draw(st.sampled_from([True, True, True, False])),
            priority=draw(st.integers(0, 1)),
            needs=draw(st.sampled_from([NO_NEEDS, NO_NEEDS, NO_NEEDS, Needs(tags=("ssd",))])),
        )
        for number in range(draw(st.integers(0, guests)))
    ]
    return Fleet(
        hosts=tuple(found),
        guests=tuple(many),
        rules=draw(_rules([one.name for one in many])),
        policy=Policy(
            cpu_ratio=draw(st.sampled_from([1.0, 4.0])),
            spare=draw(st.sampled_from(["ignore", "keep", "warn"])),
        ),
    )


_SSD = st.sampled_from([frozenset[str](), frozenset({"ssd"})])


@st.composite
def _rules(draw: st.DrawFn, names: list[str]) -> tuple[Rule, ...]:
    if len(names) < 2:
        return ()
    rules: list[Rule] = []
    for number in range(draw(st.integers(0, 3))):
        some = tuple(draw(st.lists(st.sampled_from(names), min_size=2, max_size=4, unique=True)))
        hard = draw(st.booleans())
        over = draw(st.sampled_from(["host", "host", "rack"]))
        kind = draw(st.sampled_from(["together", "apart", "spread"]))
        if kind == "together":
            rules.append(Together(name=f"t{number}", guests=some, hard=hard, over=over))
        elif kind == "apart":
            rules.append(Apart(name=f"a{number}", guests=some, hard=hard, over=over))
        else:
            rules.append(Spread(name=f"s{number}", guests=some, hard=hard, over="rack"))
    return tuple(rules)
