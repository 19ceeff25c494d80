"""What moves are worth: exactly for chosen ones, and nearly for all of them at once.

Exact changes of the figure come out of the rows of two hosts. The nearly right ones are linear in
variances, so that a few hundred thousand pairs are one product of matrices. Moving a guest away
from where it is now has a price, and taking it back gives the price back, so that moves which have
lost their worth vanish.
"""

from __future__ import annotations

import numpy as np

from vorch.decide.room.changes import change, product, slope_of
from vorch.decide.room.evenness import BROKEN
from vorch.decide.room.standing import Quantity, Standing
from vorch.decide.room.table import Floats, Ints

NEVER = np.inf


class Worth(Standing):
    """A table whose changes are judged."""

    # -- what a change is worth, exactly

    def moved(self, rows: Ints, hosts: Ints, rate: float) -> Floats:
        """What the figure changes by with prices, for each guest on the host beside it."""
        at = self.table.at[rows]
        total: Floats = np.zeros(len(rows))
        for quantity, share in zip(self.quantities, self.share, strict=True):
            size = quantity.size[rows]
            own, added = size * quantity.unit[at], size * quantity.unit[hosts]
            for term in quantity.terms:
                total += change(term, share, self.count, added, share[hosts], own, share[at])
        home = self.home[rows]
        total += rate * self.prices[rows] * ((hosts != home) * 1.0 - (at != home))
        return total - self._mended(rows)

    def exchanged(self, first: Ints, second: Ints, rate: float) -> Floats:
        """The same for pairs of guests that change places."""
        a, b = self.table.at[first], self.table.at[second]
        total: Floats = np.zeros(len(first))
        for quantity, share in zip(self.quantities, self.share, strict=True):
            more = quantity.size[second] - quantity.size[first]
            gets, loses = more * quantity.unit[a], more * quantity.unit[b]
            for term in quantity.terms:
                total += change(term, share, self.count, gets, share[a], loses, share[b])
        for rows, was, will in ((first, a, b), (second, b, a)):
            home = self.home[rows]
            total += rate * self.prices[rows] * ((will != home) * 1.0 - (was != home))
        return total - self._mended(first) - self._mended(second)

    def _mended(self, rows: Ints) -> Floats:
        """What it is worth that these leave: rules mended, and hosts that have too much eased."""
        table = self.table
        found: Floats = BROKEN * self.relief[rows]
        if not self.crowded:
            return found
        at = table.at[rows]
        for free, size in (
            (table.free_mib[at].astype(np.float64), table.memory[rows].astype(np.float64)),
            (table.free_vcpus[at], table.vcpus[rows]),
        ):
            lack = np.maximum(-free, 0.0)
            some = lack > 0
            found += BROKEN * some * np.minimum(size, lack) / np.where(some, lack, 1.0)
        return found

    # -- what it is worth, nearly: linear in variances, for all at once

    def bend(self) -> list[tuple[Quantity, Floats, float]]:
        """Per quantity how much the figure rises with a host's share, and with its square."""
        found = []
        for quantity, share in zip(self.quantities, self.share, strict=True):
            slope: Floats = np.zeros(len(share))
            curve = 0.0
            for term in quantity.terms:
                more, bend = slope_of(term, share, self.count)
                slope += more
                curve += bend
            found.append((quantity, slope, curve))
        return found

    def leaving(
        self, rows: Ints, rate: float, bend: list[tuple[Quantity, Floats, float]]
    ) -> Floats:
        """The part of it that comes from leaving a host."""
        at = self.table.at[rows]
        total: Floats = np.where(at == self.home[rows], rate, 0.0) * self.prices[rows]
        for quantity, slope, curve in bend:
            own = quantity.size[rows] * quantity.unit[at]
            total += own * (own * curve - slope[at])
        return total - self._mended(rows)

    def screen(self, rows: Ints, rate: float) -> Floats:
        """Each guest to each host, nearly; infinite where it may not or cannot go."""
        table = self.table
        sizes, units = [], []
        bend = self.bend()
        for quantity, slope, curve in bend:
            size = quantity.size[rows]
            sizes += [size, size * size]
            units += [slope * quantity.unit, curve * quantity.unit * quantity.unit]
        total = product(np.array(sizes).T, np.array(units))
        total += self.leaving(rows, rate, bend)[:, None]
        at, home = table.at[rows], self.home[rows]
        gone = np.flatnonzero(at != home)
        total[gone, home[gone]] -= rate * self.prices[rows[gone]]
        off = table.memory[rows][:, None] > (table.free_mib - self.slack_mib)[None, :]
        # Who has to leave takes room that is left free else.
        wrong = self.relief[rows] > 0
        if self.crowded:
            wrong |= (table.free_mib[at] < 0) | (table.free_vcpus[at] < 0)
        pressed = np.flatnonzero(wrong)
        if len(pressed):
            off[pressed] = table.memory[rows[pressed]][:, None] > table.free_mib[None, :]
        off |= table.vcpus[rows][:, None] > table.free_vcpus[None, :]
        off |= ~(self.reach if len(rows) == len(self.rows) else self.reach[rows])
        off[np.arange(len(rows)), at] = True
        total[off] = NEVER
        return total

    def screen_pairs(self, first: Ints, second: Ints, rate: float) -> Floats:
        """(d2 - d1) goes from one host to the other; multiplied out, it is one product."""
        table = self.table
        a, b = table.at[first], table.at[second]
        left: list[Floats] = []
        right: list[Floats] = []
        alone: Floats = self._priced(first, rate) - self._mended(first)
        facing: Floats = self._priced(second, rate) - self._mended(second)
        for quantity, slope, curve in self.bend():
            d1, d2 = quantity.size[first], quantity.size[second]
            s1, s2 = (slope * quantity.unit)[a], (slope * quantity.unit)[b]
            r1, r2 = curve * quantity.unit[a] ** 2, curve * quantity.unit[b] ** 2
            left += [s1 - 2 * d1 * r1, d1, r1, d1 * d1]
            right += [d2, s2 - 2 * d2 * r2, d2 * d2, r2]
            alone += d1 * (d1 * r1 - s1)
            facing += d2 * (d2 * r2 - s2)
        total = product(np.array(left).T, np.array(right))
        total += alone[:, None]
        total += facing[None, :]
        if rate:
            cost = rate * self.prices
            total -= (self.home[first][:, None] == b[None, :]) * cost[first][:, None]
            total -= (self.home[second][None, :] == a[:, None]) * cost[second][None, :]
        more_mib = table.memory[second][None, :] - table.memory[first][:, None]
        # Who takes the smaller one of two is no fuller than before.
        spare_mib = np.maximum(table.free_mib - self.slack_mib, 0)
        off = more_mib > spare_mib[a][:, None]
        off |= more_mib < -spare_mib[b][None, :]
        more_vcpus = table.vcpus[second][None, :] - table.vcpus[first][:, None]
        off |= more_vcpus > table.free_vcpus[a][:, None]
        off |= more_vcpus < -table.free_vcpus[b][None, :]
        off |= a[:, None] == b[None, :]
        # Most may be anywhere; only the others are looked up.
        some = np.flatnonzero(self.confined[first])
        off[some] |= ~self.reach[first[some]][:, b]
        some = np.flatnonzero(self.confined[second])
        off[:, some] |= ~self.reach[second[some]][:, a].T
        total[off] = NEVER
        return total

    def _priced(self, rows: Ints, rate: float) -> Floats:
        """The price of going anywhere but home."""
        found: Floats = np.where(self.table.at[rows] == self.home[rows], rate, 0.0)
        return found * self.prices[rows]
