"""Marks on a console become phases, however the console cuts them and whatever is around them."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vorch_install_time.marks import METHODS, PHASES, UP, Reader, phases

SAID = (
    b"[    0.1] booting\r\n\r\nvorch-bench mark kernel 3.52\r\r\nnoise\r\n"
    b"\x1b[1;24r\x1b[0mvorch-bench mark base 44.10\r\nmore"
)


def read(*pieces: bytes) -> Reader:
    reader = Reader()
    for number, piece in enumerate(pieces):
        reader.feed(piece, float(number))
    return reader


@settings(deadline=None)
@given(st.lists(st.integers(0, len(SAID)), max_size=12))
def test_pieces_do_not_matter(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(SAID)]
    found = read(*(SAID[a:b] for a, b in itertools.pairwise(edges)), b"\r\n")
    assert found.uptime == {"kernel": 3.52, "base": 44.1}
    assert set(found.seen) == {"kernel", "base"}


def test_the_first_time_counts() -> None:
    again = b"vorch-bench mark kernel 9.00\n"
    found = read(SAID, b"\n", again)
    assert (found.seen["kernel"], found.uptime["kernel"]) == (0.0, 3.52)


def test_why_it_failed_is_kept() -> None:
    found = read(b"vorch-bench failed: no address by DHCP on eth0\r\n", b"vorch-bench failed: x\n")
    assert found.failure == "no address by DHCP on eth0"


@pytest.mark.parametrize("words", [b"vorch-guest ready host=tiny\r\n", b"\r\ndebian login: "])
def test_systems_that_know_nothing_of_it_are_up_as_well(words: bytes) -> None:
    assert read(b"starting\r\n", words).seen == {UP: 1.0}


@pytest.mark.parametrize(
    "words",
    [
        b"vorch-bench mark  3.52\n",
        b"vorch-bench mark UP 3.52\n",
        b"vorch-bench mark up\n",
        b"login",
    ],
)
def test_what_only_looks_like_a_mark_is_none(words: bytes) -> None:
    assert read(words).seen == {}


def test_a_guest_that_never_ends_its_line_costs_no_memory() -> None:
    reader = read(*[b"x" * 100_000] * 20)
    assert len(reader.rest) < 10_000


def test_phases_lie_between_marks() -> None:
    marks = {"running": 11.0, "kernel": 14.0, "partitioning": 15.0, "base": 25.0, "packages": 45.0}
    found = phases("debootstrap", 10.0, {**marks, UP: 63.0}, 60.0)
    assert [(one.name, one.seconds) for one in found] == [
        ("start", 1.0),
        ("kernel", 3.0),
        ("partitioning", 1.0),
        ("base system", 10.0),
        ("packages", 20.0),
        # From its own start on: the installer's end is nobody's.
        ("first boot", 3.0),
    ]


def test_a_mark_that_never_came_is_named() -> None:
    with pytest.raises(ValueError, match="the end of 'base system' was never seen"):
        phases("debootstrap", 0.0, {"running": 1, "kernel": 2, "partitioning": 3}, 4.0)


def test_marks_that_come_together_take_no_time() -> None:
    names = [mark for _, mark in PHASES["installer"]]
    found = phases("installer", 5.0, dict.fromkeys(names, 5.0), 5.0)
    assert {one.seconds for one in found} == {0.0}


def test_marks_out_of_order_take_no_time_away() -> None:
    found = phases("clone", 5.0, {"asked": 4.0, UP: 9.0}, 6.0)
    assert [one.seconds for one in found] == [0.0, 3.0]


def test_every_method_ends_with_a_first_boot() -> None:
    assert all(PHASES[method][-1] == ("first boot", UP) for method in METHODS)
