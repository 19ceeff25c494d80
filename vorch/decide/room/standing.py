"""Where all guests stand: the hosts' shares, where each may be, and what is wrong with that.

The state is a table and the hosts' shares of each quantity that counts. A move changes the rows of
two hosts, and the masks and broken rules of those that share a rule with the guest. Nothing is
judged here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vorch.decide.room.evenness import BROKEN, Term
from vorch.decide.room.fleet import HOST
from vorch.decide.room.table import Bools, Floats, Group, Ints, Table
from vorch.decide.room.wishes import has_wishes, no_worse

# Moves or exchanges of which all are looked at in one pass; of more, the most promising or a part.
PAIRS = 60_000
# Share of a host that is left free as long as there is room elsewhere.
_SLACK = 0.05
# Members of a rule that are looked at one by one.
_FEW = 64


@dataclass(slots=True)
class Quantity:
    """What is counted in one way on each host, and the terms over it."""

    size: Floats
    unit: Floats
    terms: list[Term]
    base: Floats


class Standing:
    """A table on its way to a better one. `home` is where each guest is now."""

    def __init__(self, table: Table, terms: list[Term], prices: Floats) -> None:
        self.table = table
        self.terms = terms
        self.prices = prices
        self.home = table.at.copy()
        self.count = max(1, int(table.open.sum()))
        self.rows = np.arange(len(table.guests))
        self.quantities: list[Quantity] = []
        for term in terms:
            for known in self.quantities:
                if known.size is term.size or np.array_equal(known.unit, term.unit):
                    same = known.size is term.size or np.array_equal(known.size, term.size)
                    if same and np.array_equal(known.unit, term.unit):
                        known.terms.append(term)
                        break
            else:
                self.quantities.append(Quantity(term.size, term.unit, [term], term.base))
        # The same as rows of arrays: an operation on all quantities costs what it costs on one.
        self.sizes: Floats = np.array([quantity.size for quantity in self.quantities])
        self.units: Floats = np.array([quantity.unit for quantity in self.quantities])
        spreads = [(n, term) for n, one in enumerate(self.quantities) for term in one.terms]
        self.others = [(number, term) for number, term in spreads if term.kind != "spread"]
        self.spread: Floats = np.zeros(len(self.quantities))
        self.usual: Floats = np.zeros(len(self.quantities))
        for number, term in spreads:
            if term.kind == "spread":
                self.spread[number] += term.weight
                self.usual[number] = term.usual
        self._reach()
        self.movable = self._movable()
        self.recount()
        # Room that the search leaves free, so that moves do not wait for each other in long chains.
        room = np.maximum(np.where(table.open, table.room_mib, 0), 0)
        free = float(np.maximum(np.where(table.open, table.free_mib, 0), 0).sum())
        part = min(_SLACK, free / max(1.0, float(room.sum())) / 3)
        self.slack_mib: Ints = (part * room).astype(np.int64)
        # All moves, and all exchanges with guests that are away, are looked at in one pass.
        self.small = len(self.rows) * len(table.hosts) <= PAIRS
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
        self._plain = [self._is_plain(group) for group in table.groups]
        for number in range(len(table.groups)):
            self._regroup(number)
        for row in np.flatnonzero(self.wishing & ~self.bound).tolist():
            self._permit(row, None)

    def _own_needs(self, row: int) -> bool:
        """Its host has what it needs. A closed host has, as long as nobody says otherwise."""
        table = self.table
        host = int(table.at[row])
        return bool(not table.open[host] or self.needed[table.kind[row], host])

    def _is_plain(self, group: Group) -> bool:
        return (
            (group.kind, group.over, group.hard) == ("apart", HOST, True)
            and len(group.members) <= _FEW
            and all(len(self.table.groups_of[row]) == 1 for row in group.members)
            and not self.wishing[group.rows].any()
        )

    def _regroup(self, number: int) -> None:
        """Masks and broken rules anew of all in one rule."""
        table = self.table
        group = table.groups[number]
        if self._plain[number]:
            self._regroup_plain(group)
            return
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

    def _regroup_plain(self, group: Group) -> None:
        """The same of a few that are in no other rule and are to be apart on hosts."""
        table = self.table
        hosts = table.at[group.rows].tolist()
        for row, host in zip(group.members, hosts, strict=True):
            others = [other for other in hosts if other >= 0]
            if host >= 0:
                others.remove(host)
            mask = self.reach[row]
            mask[:] = self.needed[table.kind[row]]
            mask[others] = False
            self.confined[row] = True
            broken = host >= 0 and host in others
            self.relief[row] = float(broken) + float(self.outside[row])

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
        over = 0.0
        for free, room in ((table.free_mib, table.room_mib), (table.free_vcpus, table.room_vcpus)):
            # Half of it for being so, and half for how much: what makes it better counts.
            lack = np.maximum(-free, 0) / np.maximum(room, 1)
            over += float(((free < 0) * 0.5 * (1.0 + np.minimum(lack, 1.0))).sum())
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
        size, units, share = self.sizes[:, row], self.units, self.share
        share[:, source] -= size * units[:, source]
        share[:, host] += size * units[:, host]
        table.move(row, host)
        self._follow(row)
        if self.bound[row]:
            for number in table.groups_of[row]:
                self._regroup(number)

    def put(self, at: Ints) -> None:
        """Everybody to where they were at another time."""
        table = self.table
        changed = np.flatnonzero(table.at != at)
        if not len(changed):
            return
        table.at[changed] = at[changed]
        table.recount()
        self.recount()
        special = self.needy[changed] | self.wishing[changed] | self.bound[changed]
        rows = changed[special].tolist()
        for row in rows:
            self._follow(row)
        for number in sorted({number for row in rows for number in table.groups_of[row]}):
            self._regroup(number)

    def _follow(self, row: int) -> None:
        """What is wrong with where a guest is now, and where it may be, its groups left aside."""
        if self.needy[row]:
            self.outside[row] = not self._own_needs(row)
            self.relief[row] = self._relief(row)
        if self.wishing[row] and not self.bound[row]:
            self._permit(row, None)

    def fit(self, rows: Ints, hosts: Ints) -> Bools:
        """Which of these guests could go to the host beside it now."""
        table = self.table
        found: Bools = self.reach[rows, hosts] & (table.free_mib[hosts] >= table.memory[rows])
        found &= table.free_vcpus[hosts] >= table.vcpus[rows]
        return found

    def fits(self, row: int, host: int) -> bool:
        table = self.table
        return bool(
            self.reach[row, host]
            and table.free_mib[host] >= table.memory[row]
            and table.free_vcpus[host] >= table.vcpus[row]
        )


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
