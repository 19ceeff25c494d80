"""Who should go where: exact changes of the figure for many moves at once, and steps downhill.

The state is a table and the hosts' shares. A pass judges a few hundred thousand moves in a handful
of NumPy operations, takes the best, and with it all others about as good that touch other hosts: a
move changes the rows of two hosts and nothing else. Moving a guest away from where it is now has a
price, and taking it back gives the price back, so that moves which have lost their worth vanish.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vorch.decide.room.changes import HOPELESS, change, lowest, product, slope_of
from vorch.decide.room.evenness import BROKEN, Term
from vorch.decide.room.table import Bools, Floats, Group, Ints, Table
from vorch.decide.room.wishes import has_wishes, no_worse

# Moves that gain less are rounding errors.
_TINY = 1e-9
# So many moves or exchanges are looked at in one pass; of more, the most promising ones or a part.
_PAIRS = 60_000
# The same where any two guests may change places, which is looked at seldom.
_ALL_PAIRS = 120_000
# With more guests it is not looked at.
_MANY = 1000
# Share of a host that is left free as long as there is room elsewhere.
_SLACK = 0.05
# In a large fleet so many guests are, and of one host no more than a few.
_WANTED = 400
_PER_HOST = 4
# So often in one pass the hosts that are still untouched are looked at.
_SWEEPS = 12
# Members of a rule that are looked at one by one.
_FEW = 64
_NEVER = np.inf


@dataclass(slots=True)
class _Quantity:
    """What is counted in one way on each host, and the terms over it."""

    size: Floats
    unit: Floats
    terms: list[Term]
    base: Floats


class Search:
    """A table on its way to a better one. `home` is where each guest is now."""

    def __init__(self, table: Table, terms: list[Term], prices: Floats) -> None:
        self.table = table
        self.terms = terms
        self.prices = prices
        self.home = table.at.copy()
        self.count = max(1, int(table.open.sum()))
        self.rows = np.arange(len(table.guests))
        self.quantities: list[_Quantity] = []
        for term in terms:
            for known in self.quantities:
                if known.size is term.size or np.array_equal(known.unit, term.unit):
                    same = known.size is term.size or np.array_equal(known.size, term.size)
                    if same and np.array_equal(known.unit, term.unit):
                        known.terms.append(term)
                        break
            else:
                self.quantities.append(_Quantity(term.size, term.unit, [term], term.base))
        self._reach()
        self.movable = self._movable()
        self.recount()
        self.turn = 0
        # Room that the search leaves free, so that moves do not wait for each other in long chains.
        room = np.maximum(np.where(table.open, table.room_mib, 0), 0)
        free = float(np.maximum(np.where(table.open, table.free_mib, 0), 0).sum())
        part = min(_SLACK, free / max(1.0, float(room.sum())) / 3)
        self.slack_mib: Ints = (part * room).astype(np.int64)
        # All moves, and all exchanges with guests that are away, are looked at in one pass.
        self.small = len(self.rows) * len(table.hosts) <= _PAIRS
        # Whether a host has more than it has room for; moves make none.
        self.crowded = bool((table.free_mib < 0).any() or (table.free_vcpus < 0).any())

    # -- what may be

    def _reach(self) -> None:
        """Where each guest may be by its needs and rules, room left aside."""
        table = self.table
        kinds = [table.mask(kind) for kind in range(len(table.needs))]
        masks = np.array(kinds, dtype=np.bool_).reshape(len(kinds), len(table.hosts))
        self.reach: Bools = masks[table.kind]
        self.needed = masks
        # Those that may not be everywhere.
        everywhere: Bools = np.array([mask.all() for mask in masks], dtype=np.bool_)
        self.needy: Bools = ~everywhere[table.kind] if len(kinds) else table.ha
        self.confined = self.needy.copy()
        # What leaving its host would put right, in broken rules.
        self.relief: Floats = np.zeros(len(self.rows))
        self.bound: Bools = np.array([bool(groups) for groups in table.groups_of], dtype=np.bool_)
        self.outside: Bools = np.zeros(len(self.rows), dtype=np.bool_)
        there = np.flatnonzero(table.at >= 0)
        own = np.array([self._own_needs(int(row)) for row in there], dtype=np.bool_)
        self.outside[there] = ~own if len(there) else False
        self.relief[self.outside] = 1.0
        wishing = [has_wishes(table, int(row)) for row in self.rows]
        self.wishing: Bools = np.array(wishing, dtype=np.bool_)
        for number in range(len(table.groups)):
            self._regroup(table.groups[number])
        for row in np.flatnonzero(self.wishing & ~self.bound).tolist():
            self._permit(row, None)

    def _own_needs(self, row: int) -> bool:
        """Its host has what it needs. A closed host has, as long as nobody says otherwise."""
        table = self.table
        host = int(table.at[row])
        return bool(not table.open[host] or self.needed[table.kind[row], host])

    def _regroup(self, group: Group) -> None:
        """Masks and broken rules anew of all in one rule."""
        table = self.table
        domain = table.domain(group.over)
        classes: dict[int, Bools | None] = {}
        large = len(group.members) > _FEW
        for row in group.members:
            others = [number for number in table.groups_of[row] if table.groups[number].hard]
            host = int(table.at[row])
            if large and len(others) == 1:
                # Those in one domain are kept off the same ones.
                key = int(domain[host]) if host >= 0 else -1
                if key not in classes:
                    classes[key] = table.barred(row)
                off = classes[key]
            else:
                off = table.barred(row)
            self.relief[row] = self._relief(row)
            self._permit(row, off)

    def _permit(self, row: int, off: Bools | None) -> None:
        """Where it may be: by its needs, by hard rules, and by wishes unless it has to leave."""
        mask = self.needed[self.table.kind[row]]
        wished = no_worse(self.table, row) if self.wishing[row] and not self.relief[row] else None
        self.reach[row] = mask if off is None else mask & ~off
        if wished is not None:
            self.reach[row] &= wished
        self.confined[row] = not self.reach[row].all()

    def _relief(self, row: int) -> float:
        table = self.table
        host = int(table.at[row])
        if host < 0:
            return 0.0
        found = 0.0 if self._own_needs(row) else 1.0
        for number in table.groups_of[row]:
            group = table.groups[number]
            if group.hard and is_broken_at(table, group, row):
                found += 1.0
        return found

    def _movable(self) -> Bools:
        """Guests that can go over while they run, and are nobody's better half.

        Who is with all that it must be with stays: two guests cannot cross at the same moment, and
        the rule would be broken in between. Guests that count cells are left in peace, too.
        """
        table = self.table
        free = np.array([guest.moves == "live" for guest in table.guests], dtype=np.bool_)
        free &= (table.at >= 0) & ~table.celled
        free[table.at >= 0] &= table.open[table.at[table.at >= 0]]
        for group in table.groups:
            if group.kind == "together" and group.hard:
                domain = table.domain(group.over)
                there = {int(domain[table.at[row]]) for row in group.members if table.at[row] >= 0}
                if len(there) == 1:
                    for row in group.members:
                        # Inside its rack it may move, where a rack is meant.
                        free[row] &= group.over != "host"
        return free

    # -- where it stands

    def recount(self) -> None:
        """Shares anew from where each guest is, without what has been rounded on the way."""
        table = self.table
        there = table.at >= 0
        at = table.at[there]
        self.share = np.array(
            [
                quantity.base
                + np.bincount(at, quantity.size[there], len(table.hosts)) * quantity.unit
                for quantity in self.quantities
            ]
        )

    def figure(self) -> float:
        """How uneven it is, rules left aside."""
        return sum(
            term.of(share, self.count)
            for quantity, share in zip(self.quantities, self.share, strict=True)
            for term in quantity.terms
        )

    def broken(self) -> float:
        """How much is wrong with rules: for a guest that has to leave, one."""
        return float(self.relief.sum())

    def wrong(self) -> float:
        """The same in units of the figure, and hosts with more than they have room for."""
        table = self.table
        over = float((table.free_mib < 0).sum() + (table.free_vcpus < 0).sum())
        return BROKEN * (self.broken() / 2 + over)

    def staying(self) -> Ints:
        found: Ints = np.flatnonzero(self.table.at == self.home)
        return found

    def away(self) -> Ints:
        found: Ints = np.flatnonzero(self.table.at != self.home)
        return found

    def spent(self, price: Floats) -> float:
        return float(price[self.away()].sum())

    def move(self, row: int, host: int) -> None:
        table = self.table
        source = int(table.at[row])
        for number, quantity in enumerate(self.quantities):
            size, unit = quantity.size[row], quantity.unit
            self.share[number, source] -= size * unit[source]
            self.share[number, host] += size * unit[host]
        table.move(row, host)
        if self.needy[row]:
            self.outside[row] = not self._own_needs(row)
            self.relief[row] = self._relief(row)
        if self.wishing[row] and not self.bound[row]:
            self._permit(row, None)
        if self.bound[row]:
            for number in table.groups_of[row]:
                self._regroup(table.groups[number])

    def put(self, at: Ints) -> None:
        """Everybody to where they were at another time."""
        for row in np.flatnonzero(self.table.at != at):
            self.move(int(row), int(at[row]))
        self.recount()

    def fits(self, row: int, host: int) -> bool:
        table = self.table
        return bool(
            self.reach[row, host]
            and table.free_mib[host] >= table.memory[row]
            and table.free_vcpus[host] >= table.vcpus[row]
        )

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

    def _bend(self) -> list[tuple[_Quantity, Floats, float]]:
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

    def _leaving(
        self, rows: Ints, rate: float, bend: list[tuple[_Quantity, Floats, float]]
    ) -> Floats:
        """The part of it that comes from leaving a host."""
        at = self.table.at[rows]
        total: Floats = np.where(at == self.home[rows], rate, 0.0) * self.prices[rows]
        for quantity, slope, curve in bend:
            own = quantity.size[rows] * quantity.unit[at]
            total += own * (own * curve - slope[at])
        return total - self._mended(rows)

    def _screen(self, rows: Ints, rate: float) -> Floats:
        """Each guest to each host, nearly; infinite where it may not or cannot go."""
        table = self.table
        sizes, units = [], []
        bend = self._bend()
        for quantity, slope, curve in bend:
            size = quantity.size[rows]
            sizes += [size, size * size]
            units += [slope * quantity.unit, curve * quantity.unit * quantity.unit]
        total = product(np.array(sizes).T, np.array(units))
        total += self._leaving(rows, rate, bend)[:, None]
        at, home = table.at[rows], self.home[rows]
        gone = np.flatnonzero(at != home)
        total[gone, home[gone]] -= rate * self.prices[rows[gone]]
        off = table.memory[rows][:, None] > (table.free_mib - self.slack_mib)[None, :]
        broken = np.flatnonzero(self.relief[rows] > 0)
        if len(broken):
            off[broken] = table.memory[rows[broken]][:, None] > table.free_mib[None, :]
        off |= table.vcpus[rows][:, None] > table.free_vcpus[None, :]
        off |= ~(self.reach if len(rows) == len(self.rows) else self.reach[rows])
        off[np.arange(len(rows)), at] = True
        total[off] = _NEVER
        return total

    # -- single moves

    def relocate(self, rate: float, rows: Ints | None = None, most: int | None = None) -> int:
        """The best moves of one pass; how many there were."""
        chosen = self.promising(rate) if rows is None else rows[self.movable[rows]]
        if not len(chosen):
            return 0
        screen = self._screen(chosen, rate)
        if rows is not None or self.small:
            return self._take(*self._shortlist(chosen, screen, rate), most)
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
            screen[:, list(touched)] = _NEVER
            screen[np.isin(self.table.at[rows], list(touched))] = _NEVER
        return done

    def best_gains(self) -> Floats:
        """What the best moves gain for their price, the most first."""
        rows = self.promising(0.0)
        if not len(rows):
            return np.zeros(0)
        chosen, _, value = self._shortlist(rows, self._screen(rows, 0.0), 0.0)
        found: Floats = np.sort(-value / np.maximum(self.prices[chosen], _TINY))[::-1]
        return found

    def nearest(self, rows: Ints) -> tuple[Ints, Ints, Floats]:
        """The best moves of these guests, price left aside: guests, hosts and changes."""
        return self._shortlist(rows, self._screen(rows, 0.0), 0.0)

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
    ) -> int:
        """The best one, and all that are about as good and touch other hosts."""
        limit = max(1, self.count // 8) if most is None else most
        touched = set() if touched is None else touched
        done = 0
        for i in np.argsort(value, kind="stable"):
            gain, row, host = float(value[i]), int(rows[i]), int(hosts[i])
            if gain > -_TINY or gain > 0.5 * best or done >= limit:
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
        bend = self._bend()
        # A few hosts that are short of nothing, and for each quantity those with the least of it.
        worth = sum(slope * quantity.unit for quantity, slope, _ in bend)
        orders = [worth, *(slope for _, slope, _ in bend)]
        some = [np.argsort(np.where(table.open, one, _NEVER), kind="stable")[:8] for one in orders]
        cheapest = np.full(len(there), _NEVER)
        for host in np.unique(np.concatenate(some)):
            cost: Floats = np.zeros(len(there))
            for quantity, slope, curve in bend:
                added = quantity.size[there] * quantity.unit[host]
                cost += added * (added * curve + slope[host])
            off = (table.memory[there] > table.free_mib[host]) | ~self.reach[there, host]
            cost[off | (at == host)] = _NEVER
            np.minimum(cheapest, cost, out=cheapest)
        gain = self._leaving(there, rate, bend) + cheapest
        gain -= np.where(at != self.home[there], rate, 0.0) * self.prices[there]
        # Not only guests of the one host that is worst: of each host its best few.
        order = np.lexsort((gain, at))
        first = np.flatnonzero(np.r_[True, np.diff(at[order]) != 0])
        place = np.arange(len(order)) - np.repeat(first, np.diff(np.r_[first, len(order)]))
        kept = order[place < _PER_HOST]
        wanted = max(_WANTED, _PAIRS // hosts)
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
        if pairs > (_ALL_PAIRS if any_two else _PAIRS):
            # A part of them, another one each time.
            step = max(2, round((pairs / (_ALL_PAIRS if any_two else _PAIRS)) ** 0.5))
            self.turn += 1
            first = first[self.turn % step :: step]
            second = second[(self.turn // step) % step :: step]
            if not len(first) or not len(second):
                return 0
        i, j = lowest(self._screen_pairs(first, second, rate))
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

    def _screen_pairs(self, first: Ints, second: Ints, rate: float) -> Floats:
        """(d2 - d1) goes from one host to the other; multiplied out, it is one product."""
        table = self.table
        a, b = table.at[first], table.at[second]
        left: list[Floats] = []
        right: list[Floats] = []
        alone: Floats = self._priced(first, rate) - self._mended(first)
        facing: Floats = self._priced(second, rate) - self._mended(second)
        for quantity, slope, curve in self._bend():
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
        total[off] = _NEVER
        return total

    def _priced(self, rows: Ints, rate: float) -> Floats:
        """The price of going anywhere but home."""
        found: Floats = np.where(self.table.at[rows] == self.home[rows], rate, 0.0)
        return found * self.prices[rows]

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
            screen = self._screen(rows, 0.0)
            screen[np.arange(len(rows)), self.home[rows]] = _NEVER
            if self._take(*self._shortlist(rows, screen, 0.0)):
                continue
            if not self.exchange(0.0, rows):
                return


def is_broken_at(table: Table, group: Group, row: int) -> bool:
    """Whether the rule is broken where this guest is, so that it helps when it leaves."""
    host = int(table.at[row])
    domain = table.domain(group.over)
    others = [int(table.at[other]) for other in group.members if other != row]
    others = [other for other in others if other >= 0]
    if group.kind == "apart":
        return any(domain[other] == domain[host] for other in others)
    if group.kind == "together":
        return bool(others) and all(domain[other] != domain[host] for other in others)
    counts = table.counts(group)
    if domain[host] >= len(counts):
        return True
    relevant = table.spread_over(group.over)
    lowest = int(counts[relevant].min()) if len(relevant) else 0
    return int(counts[domain[host]]) - lowest > group.max_skew
