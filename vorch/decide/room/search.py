"""Who should go where: passes over many moves or exchanges at once, and steps downhill.

A pass judges a few hundred thousand moves in a handful of NumPy operations, takes the best, and
with it all others about as good that touch other hosts: a move changes the rows of two hosts and
nothing else.
"""

from __future__ import annotations

import numpy as np

from vorch.decide.room.changes import HOPELESS, lowest
from vorch.decide.room.standing import PAIRS
from vorch.decide.room.table import Floats, Ints
from vorch.decide.room.worth import NEVER, Worth

# Moves that gain less are rounding errors.
_TINY = 1e-9
# So many exchanges are looked at in a pass where any two guests may change places, which is seldom.
_ALL_PAIRS = 120_000
# With more guests it is not looked at.
_MANY = 1000
# In a large fleet so many guests are, and of one host no more than a few.
_WANTED = 400
_PER_HOST = 4
# Others of a pass gain at least such a part of what the best one does.
_ABOUT_AS_GOOD = 0.5
# So often in one pass the hosts that are still untouched are looked at.
_SWEEPS = 12


class Search(Worth):
    """A table on its way to a better one. `home` is where each guest is now."""

    # Which part of many exchanges comes next.
    turn = 0
    # How much work it was: pairs of a guest and a host, or of two guests, that were looked at.
    looked = 0

    # -- single moves

    def relocate(
        self,
        rate: float,
        rows: Ints | None = None,
        most: int | None = None,
        *,
        hasty: bool = False,
    ) -> int:
        """The best moves of one pass; how many there were."""
        chosen = self.promising(rate) if rows is None else rows[self.movable[rows]]
        if not len(chosen):
            return 0
        self.looked += len(chosen) * len(self.table.hosts)
        screen = self.screen(chosen, rate)
        if rows is not None or self.small:
            return self._take(
                *self._shortlist(chosen, screen, rate), most, part=0.0 if hasty else _ABOUT_AS_GOOD
            )
        return self._sweep(chosen, screen, rate)

    def _sweep(self, rows: Ints, screen: Floats, rate: float) -> int:
        """Moves all over a large fleet: those between other hosts stay about as good."""
        touched: set[int] = set()
        best, done = 0.0, 0
        for _ in range(_SWEEPS):
            host = screen.argmin(axis=1)
            found = np.flatnonzero(screen[np.arange(len(rows)), host] < HOPELESS)
            value = self.moved(rows[found], host[found], rate)
            if not done:
                best = float(value.min(initial=0.0))
            if not len(value) or float(value.min()) > min(-_TINY, 0.5 * best):
                break
            before = len(touched)
            done += self._take(rows[found], host[found], value, self.count, touched, best)
            if len(touched) == before:
                break
            screen[:, list(touched)] = NEVER
            screen[np.isin(self.table.at[rows], list(touched))] = NEVER
        return done

    def best_gains(self) -> Floats:
        """What the best moves gain for their price, the most first."""
        rows = self.promising(0.0)
        if not len(rows):
            return np.zeros(0)
        chosen, _, value = self._shortlist(rows, self.screen(rows, 0.0), 0.0)
        found: Floats = np.sort(-value / np.maximum(self.prices[chosen], _TINY))[::-1]
        return found

    def nearest(self, rows: Ints) -> tuple[Ints, Ints, Floats]:
        """The best moves of these guests, price left aside: guests, hosts and changes."""
        return self._shortlist(rows, self.screen(rows, 0.0), 0.0)

    def _shortlist(self, rows: Ints, screen: Floats, rate: float) -> tuple[Ints, Ints, Floats]:
        """The moves that look best, judged exactly."""
        row, host = lowest(screen)
        return rows[row], host, self.moved(rows[row], host, rate)

    def _take(
        self,
        rows: Ints,
        hosts: Ints,
        value: Floats,
        most: int | None = None,
        touched: set[int] | None = None,
        best: float = 0.0,
        part: float = _ABOUT_AS_GOOD,
    ) -> int:
        """The best one, and all that are about as good and touch other hosts."""
        limit = max(1, self.count // 8) if most is None else most
        touched = set() if touched is None else touched
        done = 0
        for i in np.argsort(value, kind="stable"):
            gain, row, host = float(value[i]), int(rows[i]), int(hosts[i])
            if gain > -_TINY or gain > part * best or done >= limit:
                break
            source = int(self.table.at[row])
            if source in touched or host in touched or not self.fits(row, host):
                continue
            best = min(best, gain)
            touched |= {source, host}
            self.move(row, host)
            done += 1
        return done

    def promising(self, rate: float) -> Ints:
        """All guests, or of very many those that gain most by a move to some host with room."""
        table = self.table
        hosts = len(table.hosts)
        there = np.flatnonzero(self.movable)
        if self.small:
            return there
        at = table.at[there]
        bend = self.bend()
        # A few hosts that are short of nothing, and for each quantity those with the least of it.
        slope, curve = bend
        orders = [np.add.reduce(slope * self.units, axis=0), *slope]
        some = [np.argsort(np.where(table.open, one, NEVER), kind="stable")[:8] for one in orders]
        cheapest = np.full(len(there), NEVER)
        for host in np.unique(np.concatenate(some)):
            cost: Floats = np.zeros(len(there))
            for k, size in enumerate(self.sizes):
                added = size[there] * self.units[k, host]
                cost += added * (added * curve[k] + slope[k, host])
            off = (table.memory[there] > table.free_mib[host]) | ~self.reach[there, host]
            cost[off | (at == host)] = NEVER
            np.minimum(cheapest, cost, out=cheapest)
        gain = self.leaving(there, rate, bend) + cheapest
        gain -= np.where(at != self.home[there], rate, 0.0) * self.prices[there]
        # Not only guests of the one host that is worst: of each host its best few.
        order = np.lexsort((gain, at))
        first = np.flatnonzero(np.r_[True, np.diff(at[order]) != 0])
        place = np.arange(len(order)) - np.repeat(first, np.diff(np.r_[first, len(order)]))
        kept = order[place < _PER_HOST]
        wanted = max(_WANTED, PAIRS // hosts)
        return there[np.sort(kept[np.argsort(gain[kept], kind="stable")[:wanted]])]

    # -- exchanges

    def exchange(self, rate: float, second: Ints | None = None, *, any_two: bool = False) -> int:
        """Guests that change places in pairs, one of which is away already or has to leave."""
        table = self.table
        moved = (table.at != self.home) | (self.relief > 0)
        first = np.flatnonzero(self.movable if any_two else moved & self.movable)
        if second is None:
            second = np.flatnonzero(self.movable)
        pairs = len(first) * len(second)
        if not pairs:
            return 0
        if pairs > (_ALL_PAIRS if any_two else PAIRS):
            # A part of them, another one each time.
            step = max(2, round((pairs / (_ALL_PAIRS if any_two else PAIRS)) ** 0.5))
            self.turn += 1
            first = first[self.turn % step :: step]
            second = second[(self.turn // step) % step :: step]
            if not len(first) or not len(second):
                return 0
        self.looked += len(first) * len(second)
        i, j = lowest(self.screen_pairs(first, second, rate))
        one, other = first[i], second[j]
        value = self.exchanged(one, other, rate)
        touched: set[int] = set()
        best, done = 0.0, 0
        for k in np.argsort(value, kind="stable"):
            gain, x, y = float(value[k]), int(one[k]), int(other[k])
            if gain > -_TINY or gain > 0.5 * best or done >= max(1, self.count // 8):
                break
            a, b = int(table.at[x]), int(table.at[y])
            if a in touched or b in touched or not (self.reach[x, b] and self.reach[y, a]):
                continue
            best = min(best, gain)
            touched |= {a, b}
            self.move(x, b)
            self.move(y, a)
            done += 1
        return done

    # -- steps

    def descend(self, rate: float, passes: int = 400) -> None:
        """Moves and exchanges at that price until none is left that gains."""
        idle = 0
        few = len(self.rows) <= _MANY
        for _ in range(passes):
            if self.relocate(rate):
                continue
            if self.exchange(rate):
                idle = 0
                continue
            if few and self.exchange(rate, any_two=True):
                continue
            idle += 1
            # Where only a part is looked at in a pass, the next part may have some.
            if idle > (0 if self.small else 2):
                return

    def settle(self, passes: int = 60) -> None:
        """Better targets for those that are away, none more of them, though perhaps less."""
        for _ in range(passes):
            rows = self.away()
            if not len(rows):
                return
            screen = self.screen(rows, 0.0)
            screen[np.arange(len(rows)), self.home[rows]] = NEVER
            if self._take(*self._shortlist(rows, screen, 0.0)):
                continue
            if not self.exchange(0.0, rows):
                return
