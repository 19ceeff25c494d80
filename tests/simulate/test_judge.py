"""The judge looks again whenever somebody may write who did not before, and only then."""

from __future__ import annotations

import pytest

from vorch import simulate
from vorch.drivers.memory import MemoryGuest
from vorch.simulate import faults
from vorch.simulate.judge import ON, Judge

# Hours with moves, fences, entries that are lifted, and guests that are stopped by theirs.
SEEDS = (3, 8, 24)

Writing = tuple[set[tuple[str, str]], set[tuple[int, int]]]


def writing(judge: Judge) -> Writing:
    """Which VM runs where, and which guest may write to which volume."""
    runs: set[tuple[str, str]] = set()
    writes: set[tuple[int, int]] = set()
    for machine in judge.world.machines.values():
        for guest in machine.guests.values():
            if guest.power not in ON or guest.client.cut_off:
                continue
            runs.add((machine.name, guest.vm.id))
            if machine.runs and machine.cables["storage"]:
                writes |= {(id(guest), id(stored)) for stored in _volumes(guest)}
    return runs, writes


def _volumes(guest: MemoryGuest) -> list[object]:
    return [
        held.stored
        for held in guest.disks.values()
        if held.stored is not None and held.disk.device == "disk"
    ]


@pytest.mark.parametrize("seed", SEEDS)
def test_while_it_does_not_look_nobody_begins_to_write(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = Judge.look
    last: dict[int, Writing] = {}
    spared = 0

    def watched(self: Judge) -> None:
        nonlocal spared
        if self.has_nothing_new:
            spared += 1
            (runs, writes), (ran, wrote) = writing(self), last[id(self)]
            assert runs <= ran
            assert writes <= wrote
        look(self)
        last[id(self)] = writing(self)

    monkeypatch.setattr(Judge, "look", watched)
    assert faults.trouble_with(simulate.schedule(seed)) is None
    assert spared
