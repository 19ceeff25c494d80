"""How far to go, and within what: moves by falling price, and the best that a limit allows.

Going down with the price finds the moves that are worth most first. A limit is met by going past it
and taking back what is worth least, several times over: what is taken back is seldom what was taken
last.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vorch.decide.room.search import Search
from vorch.decide.room.table import Floats, Ints

# Passes at one price in a large fleet.
_PASSES = 24
# From one price to the next.
_STEP = 0.72
# The same on the way back; to take a move back costs more than not to make it.
_BACK = 1.25
# So near to the limit single moves are taken back, and no higher price is tried.
_NEAR = 1.05
# How often the limit is crossed.
_CROSSINGS = 4
# How often single moves are traded under the limit.
_TRADES = 10
_TINY = 1e-9


@dataclass(frozen=True, slots=True)
class Bound:
    """What all moves together may come to: a sum over the guests that are away."""

    price: Floats
    most: float


class Improving:
    """One search, from where it stands to the best that is found."""

    def __init__(self, search: Search, bounds: list[Bound], thorough: int = 1) -> None:
        self.search = search
        self.bounds = bounds
        self.thorough = thorough
        self.best_at: Ints = search.table.at.copy()
        self.best = self._value()
        # In a large fleet a pass makes many moves; polishing goes on as long as it is asked for.
        self.passes = 400 if search.small else _PASSES * thorough
        # The price at the limit, as far as it is known.
        self.rate = 0.0

    def _value(self) -> float:
        return self.search.figure() + self.search.wrong()

    def within(self, times: float = 1.0) -> bool:
        return all(self.search.spent(one.price) <= times * one.most + _TINY for one in self.bounds)

    def _keep(self) -> bool:
        """Remember where it stands when nothing before was better."""
        value = self._value()
        if value < self.best - _TINY and self.within():
            self.best, self.best_at = value, self.search.table.at.copy()
            return True
        return False

    def run(self, last: float) -> None:
        """Down to that price per move, or as far as the limits go. Ends on the best state."""
        search = self.search
        rate = self._first(last)
        while True:
            search.descend(rate, self.passes)
            if not self.within():
                break
            self._keep()
            if rate <= last:
                break
            # No use in prices at which nothing more is worth it.
            gain = search.best_gains()
            best = float(gain[0]) if len(gain) else 0.0
            rate = max(last, min(rate * _STEP, 0.9 * best))
        if not self.within():
            self._around(rate)
        search.put(self.best_at)

    def _first(self, last: float) -> float:
        """A price at which only a few moves are worth it."""
        search = self.search
        gain = search.best_gains()
        return max(last, float(gain[min(len(gain) - 1, 2)]) / 2) if len(gain) else last

    def _around(self, rate: float) -> None:
        """The limit is between this price and a higher one: to and fro across it."""
        search = self.search
        self.rate = rate
        for _ in range(_CROSSINGS * self.thorough):
            for _ in range(12):
                if self.within(_NEAR):
                    break
                rate *= _BACK
                search.descend(rate, self.passes)
            self._trim()
            self._fill()
            before = self.best
            self._keep()
            if self.best > before - 0.002 * before:
                break
            for _ in range(12):
                rate /= _BACK
                search.descend(rate, self.passes)
                if not self.within():
                    break
        search.put(self.best_at)
        self._trade()

    def _fill(self) -> None:
        """Up to the limit with the best single moves, and better targets for all."""
        search = self.search
        search.settle()
        for _ in range(40):
            at = search.table.at.copy()
            if not search.relocate(0.5 * self.rate, search.staying(), most=self._room()):
                break
            if not self.within():
                search.put(at)
                break
        search.settle()

    def _room(self) -> int:
        """About so many moves are left."""
        search = self.search
        left = [
            (one.most - search.spent(one.price)) / max(_TINY, float(one.price.mean()))
            for one in self.bounds
        ]
        return max(1, int(min(left) / 2))

    def _trade(self) -> None:
        """A few moves more, then as many others less, as long as that gains."""
        search = self.search
        failed = 0
        for turn in range(_TRADES * self.thorough):
            search.relocate(0.5 * self.rate, search.staying(), most=1 + turn % 5)
            search.settle()
            self._trim()
            search.settle()
            if self._keep():
                failed = 0
                continue
            failed += 1
            if failed > 4:
                break
            search.put(self.best_at)
        search.put(self.best_at)

    def _trim(self) -> None:
        """Take back what is worth least until all limits are kept."""
        search = self.search
        while not self.within():
            rows = search.away()
            home = search.home[rows]
            loss = search.moved(rows, home, 0.0)
            can = np.array([search.fits(int(r), int(h)) for r, h in zip(rows, home, strict=True)])
            loss /= np.maximum(search.prices[rows], _TINY)
            loss[~can] = np.inf
            row = int(loss.argmin())
            if not np.isfinite(loss[row]):
                search.put(self.best_at)
                return
            search.move(int(rows[row]), int(home[row]))
