"""What moves are worth: exactly for chosen ones, and nearly for all of them at once.

Exact changes of the figure come out of the rows of two hosts. The nearly right ones are linear in
variances, so that a few hundred thousand pairs are one product of matrices. Moving a guest away
from where it is now has a price, and taking it back gives the price back, so that moves which have
lost their worth vanish.
"""

from __future__ import annotations

import numpy as np

from vorch.decide.room.changes import change, meetings, product, slope_of, spreads, spreads_bend
from vorch.decide.room.evenness import BROKEN
from vorch.decide.room.standing import Standing
from vorch.decide.room.table import Floats, Ints

NEVER = np.inf
# By quantity and host: what a little more changes; and by quantity how that rises.
Bend = tuple[Floats, Floats]


class Worth(Standing):
    """A table whose changes are judged."""

    # -- what a change is worth, exactly

    def moved(self, rows: Ints, hosts: Ints, rate: float) -> Floats:
        """What the figure changes by with prices, for each guest on the host beside it."""
        at = self.table.at[rows]
        size = self.sizes[:, rows]
        total = self._changed(size * self.units[:, hosts], hosts, size * self.units[:, at], at)
        home = self.home[rows]
        total += rate * self.prices[rows] * ((hosts != home) * 1.0 - (at != home))
        return total - self._mended(rows)

    def exchanged(self, first: Ints, second: Ints, rate: float) -> Floats:
        """The same for pairs of guests that change places."""
        a, b = self.table.at[first], self.table.at[second]
        more = self.sizes[:, second] - self.sizes[:, first]
        total = self._changed(more * self.units[:, a], a, more * self.units[:, b], b)
        for rows, was, will in ((first, a, b), (second, b, a)):
            home = self.home[rows]
            total += rate * self.prices[rows] * ((will != home) * 1.0 - (was != home))
        return total - self._mended(first) - self._mended(second)

    def _changed(self, added: Floats, hosts: Ints, taken: Floats, others: Ints) -> Floats:
        """What these add to hosts and take from others changes, rules left aside."""
        share = self.share
        here, was = share[:, hosts], share[:, others]
        total = spreads(self.spread, share, self.count, added, here, taken, was)
        for k, term in self.others:
            total += change(term, share[k], self.count, added[k], here[k], taken[k], was[k])
        return total

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

    def bend(self) -> Bend:
        """Per quantity how much the figure rises with a host's share, and with its square."""
        slope, curve = spreads_bend(self.spread, self.usual, self.share, self.count)
        for number, term in self.others:
            slope[number] += slope_of(term, self.share[number], self.count)
        return slope, curve

    def leaving(self, rows: Ints, rate: float, bend: Bend) -> Floats:
        """The part of it that comes from leaving a host."""
        at = self.table.at[rows]
        slope, curve = bend
        own = self.sizes[:, rows] * self.units[:, at]
        own *= own * curve[:, None] - slope[:, at]
        total: Floats = np.where(at == self.home[rows], rate, 0.0) * self.prices[rows]
        total += np.add.reduce(own, axis=0)
        return total - self._mended(rows)

    def screen(self, rows: Ints, rate: float) -> Floats:
        """Each guest to each host, nearly; infinite where it may not or cannot go."""
        table = self.table
        bend = self.bend()
        slope, curve = bend
        size, unit = self.sizes[:, rows], self.units
        # What does not depend on the host is one more quantity, of which each host counts one.
        left = np.concatenate((size, size * size, self.leaving(rows, rate, bend)[None, :]))
        right = np.ones((len(left), unit.shape[1]))
        right[: len(size)] = slope * unit
        right[len(size) : -1] = curve[:, None] * unit * unit
        total = product(left.T, right)
        at, home = table.at[rows], self.home[rows]
        gone = np.flatnonzero(at != home)
        total[gone, home[gone]] -= rate * self.prices[rows[gone]]
        memory = table.memory[rows]
        off = memory[:, None] > (table.free_mib - self.slack_mib)[None, :]
        # Who has to leave takes room that is left free else.
        wrong = self.relief[rows] > 0
        if self.crowded:
            wrong |= (table.free_mib[at] < 0) | (table.free_vcpus[at] < 0)
        pressed = np.flatnonzero(wrong)
        if len(pressed):
            off[pressed] = memory[pressed][:, None] > table.free_mib[None, :]
        off |= table.vcpus[rows][:, None] > table.free_vcpus[None, :]
        off |= ~(self.reach if len(rows) == len(self.rows) else self.reach[rows])
        off[np.arange(len(rows)), at] = True
        np.copyto(total, NEVER, where=off)
        return total

    def screen_pairs(self, first: Ints, second: Ints, rate: float) -> Floats:
        """(d2 - d1) goes from one host to the other; multiplied out, it is one product."""
        table = self.table
        a, b = table.at[first], table.at[second]
        slope, curve = self.bend()
        d1, d2 = self.sizes[:, first], self.sizes[:, second]
        sloped, curved = slope * self.units, curve[:, None] * self.units * self.units
        s1, s2, r1, r2 = sloped[:, a], sloped[:, b], curved[:, a], curved[:, b]
        alone: Floats = self._priced(first, rate) - self._mended(first)
        alone += np.add.reduce(d1 * (d1 * r1 - s1), axis=0)
        facing: Floats = self._priced(second, rate) - self._mended(second)
        facing += np.add.reduce(d2 * (d2 * r2 - s2), axis=0)
        each, other = np.ones((1, len(first))), np.ones((1, len(second)))
        left = np.concatenate((s1 - 2 * d1 * r1, d1, r1, d1 * d1, alone[None, :], each))
        right = np.concatenate((d2, s2 - 2 * d2 * r2, d2 * d2, r2, other, facing[None, :]))
        total = product(left.T, right)
        if rate:
            # Only who is away already may come home by it.
            gone = np.flatnonzero(self.home[first] != a)
            i, j = meetings(self.home[first[gone]], b)
            total[gone[i], j] -= rate * self.prices[first[gone[i]]]
            gone = np.flatnonzero(self.home[second] != b)
            i, j = meetings(self.home[second[gone]], a)
            total[j, gone[i]] -= rate * self.prices[second[gone[i]]]
        # Who takes the smaller one of two is no fuller than before.
        spare_mib = np.maximum(table.free_mib - self.slack_mib, 0)
        # vCPUs are whole ones.
        spare_vcpus = np.floor(table.free_vcpus)
        off = a[:, None] == b[None, :]
        for size, spare in ((table.memory, spare_mib), (table.vcpus, spare_vcpus)):
            one, two = size[first], size[second]
            off |= two[None, :] > (one + spare[a])[:, None]
            off |= one[:, None] > (two + spare[b])[None, :]
        # Most may be anywhere; only the others are looked up.
        some = np.flatnonzero(self.confined[first])
        off[some] |= ~self.reach[first[some]][:, b]
        some = np.flatnonzero(self.confined[second])
        off[:, some] |= ~self.reach[second[some]][:, a].T
        np.copyto(total, NEVER, where=off)
        return total

    def _priced(self, rows: Ints, rate: float) -> Floats:
        """The price of going anywhere but home."""
        found: Floats = np.where(self.table.at[rows] == self.home[rows], rate, 0.0)
        return found * self.prices[rows]
