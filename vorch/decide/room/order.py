"""In which order moves are made: each fits when it is made, and as many at a time as hosts take.

Moves of one round run at the same time. A host gives or takes part in so many of them as it is
allowed, and room that a guest of the same round leaves behind does not count yet. Where moves wait
for each other in a circle, one guest goes to a third host first; where no host can take it, the
move that is worth least is given up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product

import numpy as np

from vorch.decide.room.fleet import HOST
from vorch.decide.room.price import Bound
from vorch.decide.room.search import Search
from vorch.decide.room.table import Ints

# So much longer than its busiest host needs, a schedule may become for the sake of early gains;
# tried one after the other.
_PATIENCE = (1.1, 1.0, 0.0)
# Of moves that wait for each other in a row so many are looked at; a circle has no end.
_TAILS = (1, 6)
# A schedule that is no longer than so many times what its busiest host needs is short enough.
SHORT = 1.2
# So many rounds are no chain.
FEW = 3
_ROUNDING = 1e-9
# A schedule is cut short only if so much of its gain remains.
_MOSTLY = 0.5


@dataclass(frozen=True, slots=True)
class Step:
    """One migration. `detour`: it goes on from there later."""

    row: int
    source: int
    target: int
    gain: float
    detour: bool = False


@dataclass(slots=True)
class Schedule:
    rounds: list[list[Step]] = field(default_factory=list)
    # Guests that stay where they are after all, or on the way.
    given_up: list[int] = field(default_factory=list)
    # How many go somewhere else than was meant.
    changed: int = 0

    def steps(self) -> list[Step]:
        return [step for steps in self.rounds for step in steps]

    def within(self, bounds: Sequence[Bound], more: Sequence[int] = ()) -> bool:
        """Whether all steps, and moves of these guests beside them, are within limits.

        Who goes by a third host is moved twice, and counts twice.
        """
        rows = [step.row for steps in self.rounds for step in steps]
        return all(
            float(one.price[rows].sum() + one.price[list(more)].sum()) <= one.most + _ROUNDING
            for one in bounds
        )


def schedule(
    search: Search,
    targets: dict[int, int],
    *,
    per_host: int = 1,
    bounds: Sequence[Bound] = (),
) -> Schedule:
    """Rounds that bring each guest to its target, or at least to a good one, within limits.

    The search's table is put back first, and ends as the steps leave it.
    """
    best: tuple[tuple[float, int], Schedule, Ints] | None = None
    for tail, patience in product(_TAILS, _PATIENCE):
        search.put(search.home)
        found = _Scheduling(search, targets, per_host, bounds, patience, tail).run()
        if per_host == 1:
            close_up(search, found)
        meant = not found.changed and not found.given_up
        cut = _cut(search, found, per_host)
        key = (search.figure() + search.wrong(), len(found.rounds))
        if best is None or key < best[0]:
            best = key, found, search.table.at.copy()
        if meant and not cut:
            break
    assert best is not None
    search.put(best[2])
    return best[1]


def close_up(search: Search, found: Schedule) -> None:
    """Each step as early as both its hosts are done with what came before.

    What a step needs happened on its own two hosts, unless a rule reaches further.
    """
    groups = search.table.groups
    if any(group.hard and (group.over != HOST or group.kind == "spread") for group in groups):
        return
    ready: dict[int, int] = {}
    rounds: list[list[Step]] = []
    for step in found.steps():
        number = max(ready.get(step.source, 0), ready.get(step.target, 0))
        ready[step.source] = ready[step.target] = number + 1
        if number == len(rounds):
            rounds.append([])
        rounds[number].append(step)
    found.rounds = rounds


def _cut(search: Search, found: Schedule, per_host: int) -> int:
    """The end of a chain of moves that wait for each other is left out; how many that were.

    Not where most of what the moves are good for is at that end: with hosts full to the last vCPU,
    guests follow each other through the one hole that there is, and it takes its time.
    """
    whole, rounds, at = _value(search), list(found.rounds), search.table.at.copy()
    left_out = 0
    while found.rounds and len(found.rounds) > max(FEW, int(SHORT * busiest(found, per_host))):
        last = found.rounds.pop()
        for step in reversed(last):
            search.move(step.row, step.source)
        left_out += len(last)
    if left_out:
        cut, short = search.table.at.copy(), _value(search)
        search.put(search.home)
        start = _value(search)
        if start - short < _MOSTLY * (start - whole):
            found.rounds, cut, left_out = rounds, at, 0
        search.put(cut)
    return left_out


def _value(search: Search) -> float:
    return search.figure() + search.wrong()


def is_short(found: Schedule, per_host: int) -> bool:
    """Made one after the other as early as its hosts allow, it is about as long as it must be."""
    ready: dict[int, int] = {}
    for step in found.steps():
        number = max(ready.get(step.source, 0), ready.get(step.target, 0)) + 1
        ready[step.source] = ready[step.target] = number
    longest = math.ceil(max(ready.values(), default=0) / per_host)
    return longest <= max(FEW, int(SHORT * busiest(found, per_host)))


def is_too_long(rounds: int, migrations: int, per_host: int) -> bool:
    """So many rounds, where the busiest host takes part in so many migrations."""
    return rounds > max(FEW, int(SHORT * math.ceil(migrations / per_host)))


def busiest(found: Schedule, per_host: int) -> int:
    """Rounds that the host with most to do needs for its part."""
    degree: dict[int, int] = {}
    for step in found.steps():
        for host in (step.source, step.target):
            degree[host] = degree.get(host, 0) + 1
    return math.ceil(max(degree.values(), default=0) / per_host)


class _Scheduling:
    def __init__(
        self,
        search: Search,
        targets: dict[int, int],
        per_host: int,
        bounds: Sequence[Bound],
        patience: float,
        tail: int,
    ) -> None:
        self.search = search
        self.table = search.table
        self.left = dict(sorted(targets.items()))
        self.per_host = per_host
        self.bounds = bounds
        self.detoured: set[int] = set()
        self.found = Schedule()
        self.patience = patience
        self.tail = tail
        self.deadline = math.ceil(patience * self._longest())

    def run(self) -> Schedule:
        while self.left:
            steps = self._round()
            if not steps:
                steps = self._detour()
            if not steps:
                steps = self._elsewhere()
            if not steps:
                self._give_up()
                continue
            self.found.rounds.append(steps)
        return self.found

    def _degrees(self) -> dict[int, int]:
        degree: dict[int, int] = {}
        for row, target in self.left.items():
            for host in (int(self.table.at[row]), target):
                degree[host] = degree.get(host, 0) + 1
        return degree

    def _longest(self) -> int:
        """Rounds that the busiest host needs for what is left."""
        return math.ceil(max(self._degrees().values(), default=0) / self.per_host)

    def _round(self) -> list[Step]:
        """Hosts that would be late come first, then what gains most."""
        rows = np.array(list(self.left), dtype=np.int64)
        hosts = np.array(list(self.left.values()), dtype=np.int64)
        gains = -self.search.moved(rows, hosts, 0.0)
        degree = self._degrees()
        remaining = max(self.deadline - len(self.found.rounds), self._longest())
        late = {host for host, n in degree.items() if math.ceil(n / self.per_host) >= remaining}
        fits = self.search.fit(rows, hosts).tolist()
        waits = self._waited_for(rows, hosts)

        def rank(i: int) -> tuple[float, ...]:
            one, other = degree[int(self.table.at[rows[i]])], degree[int(hosts[i])]
            haste = (-max(one, other), -waits[i], -min(one, other))
            if not self.patience:
                return (*haste, -gains[i])
            pressing = int(self.table.at[rows[i]]) in late or int(hosts[i]) in late
            return (0, *haste, -gains[i]) if pressing else (1, -waits[i], -gains[i])

        order = sorted((i for i in range(len(rows)) if fits[i]), key=rank)
        busy: dict[int, int] = {}
        steps: list[Step] = []
        leaving: list[tuple[int, int]] = []
        for i in order:
            row, target = int(rows[i]), int(hosts[i])
            source = int(self.table.at[row])
            if max(busy.get(source, 0), busy.get(target, 0)) >= self.per_host:
                continue
            if not self._holds(row, target, leaving):
                continue
            gain = -float(
                self.search.moved(np.array([row]), np.array([target], dtype=np.int64), 0.0)[0]
            )
            self.search.move(row, target)
            leaving.append((row, source))
            for host in (source, target):
                busy[host] = busy.get(host, 0) + 1
            del self.left[row]
            steps.append(Step(row, source, target, gain))
        # One after the other they fit in any order: nobody uses room that another one leaves.
        steps.sort(key=lambda step: -step.gain)
        return steps

    def _waited_for(self, rows: Ints, hosts: Ints) -> list[int]:
        """How many follow each other into the room that each one leaves, as far as is looked."""
        table = self.table
        full = (table.memory[rows] > table.free_mib[hosts]) | (
            table.vcpus[rows] > table.free_vcpus[hosts]
        )
        waiting = np.zeros(len(table.hosts), dtype=np.int64)
        sources = table.at[rows]
        for _ in range(self.tail):
            before = waiting.copy()
            np.maximum.at(waiting, hosts[full], 1 + before[sources[full]])
            if (waiting == before).all():
                break
        found: list[int] = waiting[sources].tolist()
        return found

    def _holds(self, row: int, target: int, leaving: list[tuple[int, int]]) -> bool:
        """It fits even as long as those that leave in this round are still there."""
        table = self.table
        if not self.search.fits(row, target):
            return False
        gone = [guest for guest, source in leaving if source == target]
        memory = int(table.memory[gone].sum()) if gone else 0
        vcpus = float(table.vcpus[gone].sum()) if gone else 0.0
        return bool(
            table.free_mib[target] - memory >= table.memory[row]
            and table.free_vcpus[target] - vcpus >= table.vcpus[row]
        )

    def _detour(self) -> list[Step]:
        """One guest that others wait for, to a host that has room for it meanwhile."""
        wanted = set(self.left.values())
        best: tuple[float, int, int] | None = None
        for row, target in self.left.items():
            source = int(self.table.at[row])
            if row in self.detoured or source not in wanted:
                continue
            if self.bounds and not self.found.within(self.bounds, [row, *self.left]):
                continue
            for host in np.flatnonzero(self.search.reach[row]).tolist():
                if host in (source, target) or not self.search.fits(row, host):
                    continue
                # The smallest copy, on the host where it is least in the way.
                in_the_way = host in wanted
                key = (float(self.table.memory[row]) * (1 + in_the_way), row, host)
                if best is None or key < best:
                    best = key
        if best is None:
            return []
        _, row, host = best
        source = int(self.table.at[row])
        where = np.array([host], dtype=np.int64)
        gain = -float(self.search.moved(np.array([row]), where, 0.0)[0])
        self.search.move(row, host)
        self.detoured.add(row)
        return [Step(row, source, host, gain, detour=True)]

    def _elsewhere(self) -> list[Step]:
        """Of those that are stuck the one that another host suits best after all."""
        rows = np.array(list(self.left), dtype=np.int64)
        found, hosts, value = self.search.nearest(rows)
        if not len(value) or float(value.min()) >= 0:
            return []
        best = int(value.argmin())
        row, host = int(found[best]), int(hosts[best])
        source = int(self.table.at[row])
        self.search.move(row, host)
        del self.left[row]
        self.found.changed += 1
        return [Step(row, source, host, -float(value[best]))]

    def _give_up(self) -> None:
        rows = np.array(list(self.left), dtype=np.int64)
        hosts = np.array(list(self.left.values()), dtype=np.int64)
        row = int(rows[int(self.search.moved(rows, hosts, 0.0).argmax())])
        del self.left[row]
        self.found.given_up.append(row)
