"""How far to go, and within what: moves by falling price, and the best that a limit allows.

Going down with the price finds the moves that are worth most first. A limit is met by going past it
and taking back what is worth least, several times over: what is taken back is seldom what was taken
last.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import numpy as np

from vorch.decide.room.price import Bound
from vorch.decide.room.search import Search
from vorch.decide.room.table import Ints

# Passes at one price in a large fleet.
_PASSES = 24
# From one price to the next.
_STEP = 0.72
# Prices so near to each other, above and below the limit, are near enough,
_NEAR = 1.05
# and so many between them are tried.
_CROSSINGS = 4
# How often single moves are traded under the limit.
_TRADES = 10
# Work, in pairs of guest and place that are looked at, for doing two hosts at a time anew, and then
# a few: so many at a time, in turn; and so many times that where it matters more which guests go,
# as they do not cost the same.
_PAIRS = 3_000_000
_HANDFULS = 4_000_000
_CLOSELY = 2
_HOSTS = (2, 5, 3, 4)
# What is so much worse than the best by then is not looked at more closely.
_PROMISING = 1.01
# What that sequence goes by.
_FIRST, _TIMES, _PLUS = 12345, 1103515245, 12345
# Passes in which others go instead.
_REFILLS = 12
# A guest is a host's burden when it is so much of its load; a larger host is one on which it is no
# more than such a part of what it is there. So many of those are tried.
_MOSTLY = 0.6
_LARGER = 0.9
_TARGETS = 4
_TINY = 1e-9


class Improving:
    """One search, from where it stands to the best that is found."""

    def __init__(self, search: Search, bounds: list[Bound], thorough: int = 1) -> None:
        self.search = search
        self.bounds = bounds
        self.thorough = thorough
        alike = all(np.ptp(one.price) < _TINY for one in bounds if len(one.price))
        self.work = thorough * (1 if alike else _CLOSELY)
        self.best_at: Ints = search.table.at.copy()
        self.best = self._value()
        # In a large fleet a pass makes many moves; polishing goes on as long as it is asked for.
        self.passes = 400 if search.small else _PASSES * thorough
        # The price at the limit, as far as it is known.
        self.rate = 0.0
        # Where it stood before the last of it was got out of the limit.
        self.earlier: Ints | None = None

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
        before = rate / _STEP
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
            before, rate = rate, max(last, min(rate * _STEP, 0.9 * best))
        if not self.within():
            self._around(rate, before)
        search.put(self.best_at)
        self._ease(self.rate or last)

    def _first(self, last: float) -> float:
        """A price at which only a few moves are worth it."""
        search = self.search
        gain = search.best_gains()
        return max(last, float(gain[min(len(gain) - 1, 2)]) / 2) if len(gain) else last

    def _around(self, beyond: float, short: float) -> None:
        """The limit is between these prices: closer and closer to it, from both sides."""
        search = self.search
        self.rate = beyond
        for _ in range(_CROSSINGS * self.thorough):
            rate = (beyond * short) ** 0.5
            search.descend(rate, self.passes)
            at = search.table.at.copy()
            inside = self.within()
            self._trim()
            self._fill()
            self._keep()
            if inside:
                short = rate
            else:
                beyond = rate
                search.put(at)
            if short < _NEAR * beyond:
                break
        search.put(self.best_at)
        self._trade()
        hosts: list[int] = np.flatnonzero(search.table.open).tolist()
        if not hosts:
            return
        # Most guests that were moved share no host with others: two lead further than one does.
        self._shake(self._pairs(hosts), _PAIRS, 3 * len(hosts))
        self.earlier = self.best_at
        self._shake(self._handfuls(hosts), _HANDFULS, 8 * len(hosts), hasty=True)

    def _fill(self, *, settled: bool = False, near: float = np.inf) -> None:
        """Up to the limit with the best moves that it leaves room for, and better targets."""
        search = self.search
        if not settled:
            search.settle()
        for _ in range(40):
            at = search.table.at.copy()
            rows = self._affordable()
            if not len(rows) or not search.relocate(0.5 * self.rate, rows, most=self._room()):
                break
            if not self.within():
                search.put(at)
                if not search.relocate(0.5 * self.rate, rows, most=1) or not self.within():
                    search.put(at)
                    break
        if self._value() < near:
            search.settle()

    def _affordable(self) -> Ints:
        """Guests at home whose move alone is within what the limits leave."""
        search = self.search
        rows = search.staying()
        for one in self.bounds:
            rows = rows[one.price[rows] <= one.most - search.spent(one.price) + _TINY]
        return rows

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

    def _shake(
        self, turns: Iterator[list[int]], work: int, quiet: int, *, hasty: bool = False
    ) -> None:
        """All that was moved from or to some hosts goes home, and others may go in their place.

        Which hosts, says each turn; it ends after so much work, or so many turns without use.
        """
        search = self.search
        most, idle = search.looked + work * self.work, 0
        # What was sent home already without use, from where it stands.
        tried: set[tuple[int, ...]] = set()
        for some in turns:
            if idle >= quiet or search.looked >= most:
                break
            idle += 1
            search.put(self.best_at)
            away = search.away()
            ends = np.isin(search.home[away], some) | np.isin(search.table.at[away], some)
            rows = tuple(away[ends].tolist())
            if rows in tried:
                continue
            tried.add(rows)
            for row in rows:
                home = int(search.home[row])
                if search.fits(row, home):
                    search.move(row, home)
            for _ in range(_REFILLS):
                if not search.relocate(self.rate, hasty=hasty):
                    break
            if hasty and np.array_equal(search.table.at, self.best_at):
                continue
            self._trim()
            self._fill(settled=True, near=self.best * _PROMISING if hasty else np.inf)
            if self._keep():
                tried.clear()
                idle = 0
        search.put(self.best_at)

    def _pairs(self, hosts: list[int]) -> Iterator[list[int]]:
        """Each host with each other in turn, the most uneven first."""
        uneven = sum(abs(share - share[hosts].mean()) for share in self.search.share)
        hosts = sorted(hosts, key=lambda host: (-uneven[host], host))
        for turn in count():
            other = (7 * turn + turn // len(hosts) + 3) % len(hosts)
            yield [hosts[turn % len(hosts)], hosts[other]]

    def _handfuls(self, hosts: list[int]) -> Iterator[list[int]]:
        """A few at a time: by a sequence that looks like chance and is always the same."""
        number = _FIRST
        for turn in count():
            some = []
            for _ in range(_HOSTS[turn % len(_HOSTS)]):
                number = (number * _TIMES + _PLUS) % 2**31
                some.append(hosts[(number >> 8) % len(hosts)])
            yield some

    def _ease(self, rate: float) -> None:
        """The most loaded host, where one guest is most of that: it goes to a larger one.

        No single move and no exchange leads there where memory is scarce: the guest is put onto the
        larger host all the same, and the search clears away what is too much there then.
        """
        search, table = self.search, self.search.table
        found = self._burden()
        if found is None:
            return
        guest, hosts = found
        movable, crowded = search.movable[guest], search.crowded
        start, best = self.best_at, self._value() + rate * search.spent(search.prices)
        search.movable[guest], search.crowded = False, True
        # In a large fleet a try takes longer, and one host of many matters less.
        for host in hosts if search.small else hosts[:1]:
            search.put(start)
            search.move(guest, host)
            search.descend(rate, _REFILLS)
            if self.bounds:
                self._trim()
                self._fill(settled=True)
            value = self._value() + rate * search.spent(search.prices)
            if value < best - _TINY and self.within() and table.at[guest] == host:
                best, self.best_at = value, table.at.copy()
        search.movable[guest], search.crowded = movable, crowded
        search.put(self.best_at)
        self.best = self._value()

    def _burden(self) -> tuple[int, list[int]] | None:
        """A guest that is most of the highest share of a host, and larger hosts to take it to."""
        search, table = self.search, self.search.table
        for quantity, share in zip(search.quantities, search.share, strict=True):
            if not len(share) or not any(term.kind == "peak" for term in quantity.terms):
                continue
            top = int(share.argmax())
            there = np.flatnonzero((table.at == top) & search.movable)
            if not len(there):
                continue
            guest = int(there[quantity.size[there].argmax()])
            part = quantity.size[guest] * quantity.unit
            larger = search.reach[guest] & table.open & (part < _LARGER * part[top])
            larger &= (table.room_mib >= table.memory[guest]) & (
                table.room_vcpus >= table.vcpus[guest]
            )
            if part[top] > _MOSTLY * share[top] and larger.any():
                lack = np.maximum(table.memory[guest] - table.free_mib, 0) / table.size_mib
                order = np.argsort(np.where(larger, lack + share, np.inf), kind="stable")
                return guest, [int(one) for one in order[: min(_TARGETS, int(larger.sum()))]]
        return None

    def _trim(self) -> None:
        """Take back what is worth least until all limits are kept."""
        search = self.search
        while not self.within():
            rows = search.away()
            home = search.home[rows]
            loss = search.moved(rows, home, 0.0)
            loss /= np.maximum(search.prices[rows], _TINY)
            loss[~search.fit(rows, home)] = np.inf
            # Of equal ones the last by name goes home, so that the first by name stays moved.
            row = int(np.flatnonzero(loss <= loss.min() + _TINY)[-1])
            if not np.isfinite(loss[row]):
                search.put(self.best_at)
                return
            search.move(int(rows[row]), int(home[row]))
