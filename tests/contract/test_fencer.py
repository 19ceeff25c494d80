"""What every fencer does alike, and what each does in its own way when its device fails it."""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest

from vorch.availability import Knock
from vorch.drivers.fence_command import CommandFencer
from vorch.drivers.fence_power import PowerFencer
from vorch.drivers.memory import MemoryWorld
from vorch.errors import BadConfig, Cancelled, FenceFailed, Unreachable
from vorch.model import Node
from vorch.ports import Fencer, no_progress

NODE = Node(
    name="h1",
    uri="qemu+tls://192.0.2.11/system",
    storage_address="198.18.0.1",
    bmc="ipmi://admin@192.0.2.111",
)
CLIENTS = ("198.18.0.1:0/17", "198.18.0.1:0/18")

Program = Callable[[str], str]


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """Makes a program of these lines of shell; its path."""

    def make(lines: str) -> str:
        file = tmp_path / "fence"
        file.write_text(f"#!/bin/sh\n{lines}\n")
        file.chmod(file.stat().st_mode | stat.S_IXUSR)
        return str(file)

    return make


# ---------------------------------------------------------------------------------------------
# All of them


@pytest.fixture(params=["memory-storage", "memory-power", "command"])
def fencer(request: pytest.FixtureRequest, program: Program) -> Fencer:
    if request.param == "command":
        return CommandFencer(program("echo switched off, and read back"), timeout_s=20)
    world = MemoryWorld(hosts=1)
    world.host("h1").bmc = "well"
    power, storage = world.connect().fencers
    return storage if request.param == "memory-storage" else power


def test_a_proof_is_a_sentence_and_it_can_be_repeated(fencer: Fencer) -> None:
    assert fencer.covers(NODE)
    assert fencer.fence(NODE, CLIENTS, no_progress)
    assert fencer.fence(NODE, CLIENTS, no_progress)
    fencer.unfence(NODE, CLIENTS)
    fencer.unfence(NODE, CLIENTS)


def test_a_drill_finds_nothing_wrong_with_what_works(fencer: Fencer) -> None:
    checks = fencer.drill([NODE], no_progress)
    assert checks
    assert {check.level for check in checks} == {"ok"}


# ---------------------------------------------------------------------------------------------
# A program


def test_a_program_is_told_all_and_none_of_our_secrets(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VORCH_BMC_PASSWORD", "secret")
    said, around = tmp_path / "said", tmp_path / "around"
    path = program(f'cat > {said}; env > {around}; echo "$0 $*"')
    command = CommandFencer(f"{path} --site 'north west'", timeout_s=20)
    assert command.fence(NODE, CLIENTS, no_progress) == f"{path} --site north west fence h1"
    assert json.loads(said.read_text()) == {
        "contract": 1,
        "action": "fence",
        "node": "h1",
        "uri": NODE.uri,
        "storage_address": NODE.storage_address,
        "clients": list(CLIENTS),
        "timeout_s": 20,
    }
    assert "secret" not in around.read_text()
    assert "VORCH_FENCE_NODE=h1" in around.read_text()
    command.unfence(NODE, CLIENTS)
    assert json.loads(said.read_text())["action"] == "unfence"


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ("echo it is off; exit 1", "ended with 1: it is off"),
        ("echo no route >&2; exit 3", "ended with 3: no route"),
        ("exit 0", "named no proof"),
        ("kill -9 $$", "ended with -9"),
    ],
)
def test_only_a_good_end_with_a_word_is_a_proof(program: Program, lines: str, why: str) -> None:
    with pytest.raises(FenceFailed, match=why):
        CommandFencer(program(lines), timeout_s=20).fence(NODE, (), no_progress)


def test_a_program_that_hangs_is_killed_with_its_children(program: Program, tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    path = program(f"sleep 600 & echo $! > {mark}; echo too early; wait")
    with pytest.raises(FenceFailed, match=r"has not ended for 0\.5 s and was killed"):
        CommandFencer(path, timeout_s=0.5).fence(NODE, (), no_progress)
    child = Path("/proc", mark.read_text().strip(), "stat")
    until = time.monotonic() + 20
    # A zombie that nobody has reaped yet is dead as well.
    while child.exists() and child.read_text().split()[2] != "Z":
        assert time.monotonic() < until
        os.sched_yield()


def test_a_program_is_ended_when_another_way_has_proven_it(program: Program) -> None:
    def over(percent: float | None = None, line: str | None = None) -> None:
        raise Cancelled("cannot go on: it is proven")

    with pytest.raises(Cancelled):
        CommandFencer(program("sleep 600"), timeout_s=600).fence(NODE, (), over)


@pytest.mark.parametrize("command", ["fence-it", "./fence", "", "'/open"])
def test_a_command_must_be_a_whole_path(command: str) -> None:
    with pytest.raises(BadConfig, match="fence_command"):
        CommandFencer(command, timeout_s=1)


def test_a_program_that_is_not_there_proves_nothing(tmp_path: Path) -> None:
    with pytest.raises(FenceFailed, match="cannot be run"):
        CommandFencer(str(tmp_path / "none"), timeout_s=1).fence(NODE, (), no_progress)


# ---------------------------------------------------------------------------------------------
# Power: a machine with a BMC that is not to be trusted


class Machine:
    """`how`: well, stuck (obeys and does nothing), lies (says off), refuses, slow (off later)."""

    def __init__(self, how: str = "well") -> None:
        self.how = how
        self.runs = True
        self.orders = 0
        self.looks = 0

    def is_on(self) -> bool:
        if self.how == "refuses":
            raise Unreachable("its BMC says 503")
        self.looks += 1
        if self.how == "slow" and self.orders and self.looks > 2:
            self.runs = False
        return self.runs and not (self.how == "lies" and self.orders > 0)

    def off(self) -> None:
        self.orders += 1
        if self.how == "well":
            self.runs = False

    def on(self) -> None:
        raise AssertionError("a fence switches nothing on")

    def close(self) -> None:
        pass

    def knock(
        self, node: Node, network: Literal["management", "storage"], timeout_s: float
    ) -> Knock | None:
        return Knock.RESET if self.runs else Knock.SILENCE

    def fencer(self, timeout_s: float = 1.5) -> PowerFencer:
        return PowerFencer(lambda node: self, self.knock, timeout_s=timeout_s)


@pytest.mark.parametrize("how", ["well", "slow"])
def test_off_is_what_is_read_back(how: str) -> None:
    machine = Machine(how)
    assert "off" in machine.fencer(20).fence(NODE, (), no_progress)
    assert not machine.runs
    assert "already" in machine.fencer(20).fence(NODE, (), no_progress)
    assert machine.orders == 1


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("stuck", "says that it is still on"),
        ("lies", "says that it is off, and it still answers at management and storage"),
        ("refuses", "503"),
    ],
)
def test_a_bmc_that_fails_proves_nothing(how: str, why: str) -> None:
    machine = Machine(how)
    with pytest.raises(FenceFailed, match=why):
        machine.fencer().fence(NODE, (), no_progress)
    assert machine.runs


def test_a_bmc_that_cannot_be_read_is_given_no_order() -> None:
    """It might carry it out much later, when the host has long been taken back."""
    machine = Machine("refuses")
    with pytest.raises(FenceFailed):
        machine.fencer().fence(NODE, (), no_progress)
    assert machine.orders == 0


def test_no_order_is_given_when_another_way_has_proven_it() -> None:
    def over(percent: float | None = None, line: str | None = None) -> None:
        raise Cancelled("cannot go on: it is proven")

    machine = Machine()
    with pytest.raises(Cancelled):
        machine.fencer().fence(NODE, (), over)
    assert machine.orders == 0


def test_a_drill_switches_nothing_and_sees_a_liar() -> None:
    machine = Machine("lies")
    assert machine.fencer().drill([NODE], no_progress)[0].level == "ok"
    machine.orders = 1
    (check,) = machine.fencer().drill([NODE], no_progress)
    assert check.level == "error"
    assert "says that the host is off" in check.detail
    assert machine.orders == 1
