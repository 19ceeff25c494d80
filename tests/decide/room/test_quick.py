"""The glance at small fleets: what it says yes to holds, and the usual is seen by it."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.decide.room.fleets import fleets, guest, host
from vorch.decide.room import quick
from vorch.decide.room.fleet import Apart, Fleet, Guest, Needs, Policy
from vorch.decide.room.spare import Spare, Verdict
from vorch.decide.room.table import Table


def plain(*hosts: str) -> Fleet:
    return Fleet(
        hosts=tuple(host(name) for name in hosts),
        guests=tuple(guest(f"{name}-{n}", host=name) for name in hosts for n in range(4)),
    )


@settings(max_examples=300)
@given(fleets(guests=10, placed=True), st.booleans())
def test_a_yes_holds(fleet: Fleet, ruled: bool) -> None:
    if not ruled:
        fleet = dataclasses.replace(fleet, rules=())
    if quick.survives(fleet):
        verdicts = Spare(Table(fleet)).verdicts(prove=True)
        assert set(verdicts.values()) <= {Verdict.YES}


def test_the_usual_is_seen_at_a_glance() -> None:
    assert quick.survives(plain("h1", "h2", "h3"))
    assert quick.survives(Fleet(hosts=()))


@pytest.mark.parametrize(
    "guests",
    [
        # More than all others have, in memory or in vCPUs.
        [guest("g", 20000, host="h1")],
        [guest("g", vcpus=40, host="h1")],
        # Each fits where it would go, and not both.
        [guest(name, 9000, host="h1") for name in ("a", "b")],
        [guest(f"g{n}", vcpus=20, host="h1") for n in range(2)],
    ],
)
def test_too_much_for_the_other_host_is_no_yes(guests: list[Guest]) -> None:
    assert not quick.survives(dataclasses.replace(plain("h1", "h2"), guests=tuple(guests)))


@pytest.mark.parametrize(
    "changes",
    [
        {"rules": (Apart(name="r", guests=("h1-0", "h2-0")),)},
        {"policy": Policy(spare_hosts=2)},
        {"policy": Policy(spare_over="rack")},
        {"guests": (guest("g", host="h1", needs=Needs(pages_kib=2048)),)},
        {"guests": (guest("g", host="h1", needs=Needs(one_cell=True)),)},
        {"guests": (guest("g", host="h1", needs=Needs(tags=("ssd",))),)},
        {"hosts": (host("h1"), host("h2"), host("h3", closed="it is cordoned"))},
        {"guests": tuple(guest(f"g{n}", 1, host="h1") for n in range(quick.SMALL))},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_what_takes_a_closer_look_gets_one(changes: dict[str, object]) -> None:
    fleet = plain("h1", "h2", "h3")
    if "hosts" in changes:
        changes = {**changes, "guests": (guest("g", 16384, host="h1"), guest("o", host="h2"))}
    assert not quick.survives(dataclasses.replace(fleet, **changes))  # type: ignore[arg-type]
