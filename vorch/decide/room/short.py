"""A plan that is short by the way it is made: no move waits longer than its own hosts have to do.

Where hosts are nearly full, what is best in the end may be reached only one move after the other,
each through the room that the last one has left. Here moves are chosen as they are made: what gains
most now, fits now, and does not make the plan longer than its busiest host explains. Where no
single move does, two guests change places by way of a third host, or one makes way for another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import numpy as np

from vorch.decide.room.changes import lowest
from vorch.decide.room.order import FEW, SHORT, Schedule, Step, close_up, is_too_long
from vorch.decide.room.price import Bound
from vorch.decide.room.search import Search
from vorch.decide.room.table import Bools, Floats, Ints
from vorch.decide.room.worth import NEVER

# Of what looks good so many are tried when single moves are used up.
_TRIES = 24
_TINY = 1e-9
# What there is to choose from, where nothing is known.
BUSY = (0, 4, 6, 9, 13)
# Under a limit so many times the price is tried, too.
_DEARER = (3, 8)
# After so much work, in pairs that were looked at, no other try is begun.
_WORK = 20_000_000
# In turns of it, moves of several steps are looked for at most.
_MOST = 400


def short_schedule(
    search: Search, rate: float, bounds: Sequence[Bound], counting_on: Sequence[int] = BUSY
) -> Schedule:
    """Rounds from where guests are at home, as long as something gains more than its price.

    `counting_on`: so many moves of its busiest host a plan may count on from the start; each is
    tried, cut short where it came to less, and the best plan is taken. The search's table ends as
    its steps leave it.
    """
    search.put(search.home)
    best, at = search.figure() + search.wrong(), search.home
    steps: list[Step] = []
    # Where a limit says how far to go, a higher price may lead further: what gains most for it.
    most = search.looked + _WORK
    for times, busy in product((1, *_DEARER) if bounds else (1,), counting_on):
        if search.looked > most:
            break
        search.put(search.home)
        made = _Short(search, times * rate, bounds, busy)
        for _ in range(_MOST):
            if not (made.direct() or made.pushed() or made.swapped()):
                break
        made.cut()
        cost = made.cost(rate)
        if cost < best - _TINY:
            best, steps, at = cost, made.steps, search.table.at.copy()
    search.put(at)
    found = Schedule([[step] for step in steps])
    close_up(search, found)
    return found


class _Short:
    def __init__(self, search: Search, rate: float, bounds: Sequence[Bound], busy: int) -> None:
        self.search = search
        self.busy = busy
        self.rate = rate
        self.bounds = bounds
        self.steps: list[Step] = []
        # In which round each of them is.
        self.rounds: list[int] = []
        hosts = len(search.table.hosts)
        # By host: the round in which it is free again, and in how many moves it takes part.
        self.ready: Ints = np.zeros(hosts, dtype=np.int64)
        self.degree: Ints = np.zeros(hosts, dtype=np.int64)

    def is_long(self, busy: int = 0) -> bool:
        """Longer than its busiest host explains, or than one that has so much to do would."""
        busy = max(busy, int(self.degree.max(initial=0)))
        return is_too_long(int(self.ready.max(initial=0)), busy, 1)

    def cost(self, rate: float) -> float:
        """The figure with the prices of all steps."""
        search = self.search
        steps = [step.row for step in self.steps]
        return search.figure() + search.wrong() + rate * float(search.prices[steps].sum())

    def cut(self) -> None:
        """Without its last rounds, where it is longer than the busiest host explains in the end."""
        while self.is_long():
            last = max(self.rounds)
            kept = [number < last for number in self.rounds]
            for step, stays in zip(reversed(self.steps), reversed(kept), strict=True):
                if not stays:
                    self.search.move(step.row, step.source)
            steps = [step for step, stays in zip(self.steps, kept, strict=True) if stays]
            self.steps, self.rounds = [], []
            self.ready[:], self.degree[:] = 0, 0
            for turn, step in enumerate(steps):
                goes_on = any(step.row == later.row for later in steps[turn + 1 :])
                self._note(replace(step, detour=step.detour and goes_on))

    def direct(self) -> bool:
        """The single move that gains most and does not come too late."""
        search, table = self.search, self.search.table
        rows = self._free()
        if not len(rows):
            return False
        screen = search.screen(rows, self.rate)
        screen[self._late(rows)] = NEVER
        row, host = lowest(screen)
        if not len(row):
            return False
        value = search.moved(rows[row], host, self.rate)
        touched: set[int] = set()
        best = float(value.min())
        for i in np.argsort(value, kind="stable").tolist():
            # Others about as good on other hosts stay so.
            if value[i] > min(-_TINY, 0.5 * best):
                break
            guest, target = int(rows[row[i]]), int(host[i])
            ends = {int(table.at[guest]), target}
            if ends & touched or not search.fits(guest, target) or not self._affordable([guest]):
                continue
            if self._late(np.array([guest]))[0, target]:
                continue
            touched |= ends
            self._make(guest, target, -float(search.moved(*_one(guest, target), 0.0)[0]))
        return bool(touched)

    def pushed(self) -> bool:
        """One guest makes way, so that another one can come."""
        search, table = self.search, self.search.table
        rows = self._free()
        if not len(rows):
            return False
        screen = search.screen(rows, self.rate)
        screen[self._late(rows)] = NEVER
        best = screen.argmin(axis=1)
        leaving = screen[np.arange(len(rows)), best]
        first = np.flatnonzero(np.isfinite(leaving))
        if not len(first):
            return False
        here = table.at[rows[first]]
        total = self._coming(rows, first, here) + leaving[first][:, None]
        for guest, other in self._likely(total):
            one, two = int(rows[first[guest]]), int(rows[other])
            plan = [(one, int(best[first[guest]])), (two, int(here[guest]))]
            if self._try(plan):
                return True
        return False

    def swapped(self) -> bool:
        """Two guests change places, one of them by way of a third host."""
        search, table = self.search, self.search.table
        rows = self._free()
        if len(rows) < 2:
            return False
        search.looked += len(rows) ** 2
        screen = search.screen_pairs(rows, rows, self.rate)
        for one, other in self._likely(screen):
            a, b = int(rows[one]), int(rows[other])
            here, there = int(table.at[a]), int(table.at[b])
            for guest, way in ((a, b), (b, a)):
                home, goal = (here, there) if guest == a else (there, here)
                fits = search.fit(np.full(len(table.hosts), guest), np.arange(len(table.hosts)))
                fits[[home, goal]] = False
                by = np.flatnonzero(fits)
                by = by[np.argsort(self.ready[by], kind="stable")][:2]
                for third in by.tolist():
                    if self._try([(guest, int(third)), (way, home), (guest, goal)]):
                        return True
        return False

    # -- what they have in common

    def _free(self) -> Ints:
        """Guests that have not been moved yet."""
        rows: Ints = np.flatnonzero(
            self.search.movable & (self.search.table.at == self.search.home)
        )
        return rows

    def _late(self, rows: Ints) -> Bools:
        """For each of these on each host: whether its move would make the plan too long."""
        at = self.search.table.at[rows]
        end = np.maximum(self.ready[at][:, None], self.ready[None, :]) + 1
        busy = np.maximum(self.degree[at][:, None], self.degree[None, :]) + 1
        busy = np.maximum(busy, max(self.busy, int(self.degree.max(initial=0))))
        late: Bools = (end > np.floor(SHORT * busy)) & (end > FEW)
        return late

    def _coming(self, rows: Ints, first: Ints, here: Ints) -> Floats:
        """What each guest changes by taking the place of each of the first, nearly."""
        search, table = self.search, self.search.table
        bend = search.bend()
        total: Floats = np.repeat(search.leaving(rows, self.rate, bend)[None, :], len(first), 0)
        for size, units, slope, curve in zip(search.sizes, search.units, *bend, strict=True):
            unit = units[here]
            added = size[rows][None, :] * unit[:, None]
            gone = size[rows[first]] * unit
            total += added * (added * curve + (slope[here] - 2 * curve * gone)[:, None])
        room = table.free_mib[here] + table.memory[rows[first]]
        off = table.memory[rows][None, :] > room[:, None]
        vcpus = table.free_vcpus[here] + table.vcpus[rows[first]]
        off |= table.vcpus[rows][None, :] > vcpus[:, None]
        off |= table.at[rows][None, :] == here[:, None]
        total[off] = NEVER
        return total

    def _likely(self, values: Floats) -> list[tuple[int, int]]:
        row, column = lowest(values)
        value = values[row, column]
        order = [i for i in np.argsort(value, kind="stable")[:_TRIES].tolist() if value[i] < -_TINY]
        return [(int(row[i]), int(column[i])) for i in order]

    def _affordable(self, guests: Sequence[int]) -> bool:
        made = Schedule([self.steps])
        return made.within(self.bounds, guests)

    def _try(self, plan: Sequence[tuple[int, int]]) -> bool:
        """These moves one after the other, if all fit, gain together and do not come too late."""
        search = self.search
        ready, degree = self.ready.copy(), self.degree.copy()
        number = len(self.steps)
        if not self._affordable([guest for guest, _ in plan]):
            return False
        before = self.cost(self.rate)
        for turn, (guest, target) in enumerate(plan):
            if not search.fits(guest, target):
                break
            gain = -float(search.moved(*_one(guest, target), 0.0)[0])
            self._make(guest, target, gain, detour=any(one == guest for one, _ in plan[turn + 1 :]))
        else:
            if not self.is_long(self.busy) and self.cost(self.rate) < before - _TINY:
                return True
        for step in reversed(self.steps[number:]):
            search.move(step.row, step.source)
        del self.steps[number:], self.rounds[number:]
        self.ready, self.degree = ready, degree
        return False

    def _make(self, guest: int, target: int, gain: float, *, detour: bool = False) -> None:
        source = int(self.search.table.at[guest])
        self.search.move(guest, target)
        self._note(Step(guest, source, target, gain, detour))

    def _note(self, step: Step) -> None:
        ends = [step.source, step.target]
        self.ready[ends] = self.ready[ends].max() + 1
        self.degree[ends] += 1
        self.steps.append(step)
        self.rounds.append(int(self.ready[step.source]))


def _one(guest: int, target: int) -> tuple[Ints, Ints]:
    return np.array([guest], dtype=np.int64), np.array([target], dtype=np.int64)
