"""`vorch balance` and `vorch ha balance`, as they are typed."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Vorch


@pytest.fixture
def uneven(vorch: Vorch) -> Vorch:
    """Four VMs on one of two hosts."""
    vorch.world.add_host("there")
    first = next(name for name in vorch.world.machines if name != "there")
    for number in range(4):
        vorch.well(
            *("create", f"v{number}", "--disk", "1G", "--vcpus", "2", "--no-network"),
            *("--node", first, "--start"),
        )
        vorch.world.behave(f"v{number}", cpu_load=0.9 - 0.1 * number)
    vorch.world.clock.sleep(10)
    return vorch


def test_the_plan_is_shown_and_then_carried_out(uneven: Vorch) -> None:
    planned = uneven.well("balance", "--dry-run")
    assert "it evens out load" in planned.out
    assert "2 moves in 1 rounds" in planned.out
    assert "measured for 5 s" in planned.out
    assert len(uneven.world.host("there").guests) == 0
    done = uneven.well("balance")
    assert "balance: 2 of 2 moves were made" in done.out
    assert len(uneven.world.host("there").guests) == 2
    again = uneven.well("balance")
    assert "nothing is to be moved" in again.out


def test_as_json_it_is_all_there(uneven: Vorch) -> None:
    told = uneven.well("balance", "--json", "--moves-max", "1", "--measure-s", "2").json
    (move,) = told["plan"]["moves"]
    assert (move["target"], move["memory_mib"]) == ("there", 1024)
    assert told["plan"]["rounds"] == [[move]]
    assert told["plan"]["after"]["figure"] < told["plan"]["before"]["figure"]
    assert told["measured"] == "measured for 2 s"
    assert [one["task"]["subject"] for one in told["done"]] == [move["guest"]]
    assert told["skipped"] == {}


def test_what_was_left_out_is_said(uneven: Vorch) -> None:
    first = next(name for name in uneven.world.machines if name != "there")
    uneven.world.faults.fail(f"host:{first}", "migrate", times=1)
    done = uneven.well("balance")
    assert "balance: 1 of 2 moves were made" in done.out
    assert "was left where it is: " in done.out


@pytest.mark.parametrize(
    "words",
    [("--metric", "luck"), ("--moves-max", "-1"), ("--memory-max-gib", "x"), ("--time-max-s", "-")],
    ids=lambda words: words[0],
)
def test_what_makes_no_sense_is_refused(uneven: Vorch, words: tuple[str, ...]) -> None:
    assert uneven("balance", *words).code == 2


def test_it_is_switched_on_and_off(vorch: Vorch) -> None:
    assert "by `vorch balance` alone" in vorch.well("ha", "balance").out
    words = ("--auto", "--every", "30min", "--quiet", "22:00-06:00, 12:00-13:00")
    limits = ("--moves-max", "0", "--memory-max-gib", "2", "--zone", "Europe/Vienna")
    planned = vorch.well("ha", "balance", *words, *limits, "--dry-run")
    assert "update" not in vorch.well("ha", "balance").out
    assert "balance 'policy'" in planned.out
    done = vorch.well("ha", "balance", *words, *limits)
    assert "evens hosts out every 30 min, with 2048 MiB of memory at most" in done.out
    assert "not at 22:00-06:00, 12:00-13:00 (Europe/Vienna)" in done.out
    assert "nothing to do" in vorch.well("ha", "balance").out
    assert "not at" not in vorch.well("ha", "balance", "--quiet", "").out
    assert vorch("ha", "balance", "--every", "1s").code == 2
    assert "alone" in vorch.well("ha", "balance", "--no-auto").out
