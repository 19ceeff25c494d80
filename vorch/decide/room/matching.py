"""Refuges for the guests of all hosts at once: the quick test of whether any one host may die.

First each host's guests, largest first, are matched with the freest hosts, one each. Where that
does not do, several may share one: best fit decreasing over the freest hosts, for all undecided
hosts at the same time. What is found holds; what is not found is left to packing.
"""

from __future__ import annotations

import numpy as np

from vorch.decide.room.fleet import HOST
from vorch.decide.room.table import NOWHERE, Bools, Ints, Table

# The freest hosts that are looked at where guests share one.
_HOSTS = 192


class Matching:
    """`refuge` by guest, and `holds` by host: all its guests have one."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.refuge: Ints = np.full(len(table.guests), NOWHERE, dtype=np.int64)
        self.holds: Bools = np.ones(len(table.hosts), dtype=np.bool_)
        free = np.where(table.open, table.free_mib, -1)
        # Freest first; ties by name.
        self.freest: Ints = np.lexsort((np.arange(len(free)), -free))
        self.freest = self.freest[free[self.freest] >= 0]
        # What each takes, those included that follow it.
        self.memory, self.vcpus = table.memory.copy(), table.vcpus.copy()
        self.odd: Bools = table.celled.copy()
        self.grouped: Bools = np.zeros(len(table.guests), dtype=np.bool_)
        # Guests that follow another one of their host, by the one that they follow.
        self.followers: dict[int, list[int]] = {}
        # The only hosts that guests may go to, since others are there that they belong with.
        self.confined: dict[int, set[int]] = {}
        self._take_rules()
        rows = np.flatnonzero(table.ha & (table.at >= 0))
        follows = [row for followers in self.followers.values() for row in followers]
        rows = rows[~np.isin(rows, np.array(follows, dtype=np.int64))]
        confined = np.ones(len(table.guests), dtype=np.bool_)
        confined[list(self.confined)] = False
        # By host: first those that have no choice, then the largest.
        self.rows: Ints = rows[
            np.lexsort(
                (rows, -self.vcpus[rows], -self.memory[rows], confined[rows], table.at[rows])
            )
        ]
        self.counts: Ints = np.bincount(table.at[rows], minlength=len(table.hosts))
        self.first: Ints = np.cumsum(self.counts) - self.counts
        if len(rows) and len(self.freest):
            self._one_each()
            self._share()
        self.holds[table.at[rows]] &= bool(len(self.freest))
        for leader, followers in self.followers.items():
            self.refuge[followers] = self.refuge[leader]
        # Where there is no host, there is nothing that could hold or not.
        if len(self.holds):
            self.refuge[(table.at >= 0) & ~self.holds[table.at]] = NOWHERE

    def _take_rules(self) -> None:
        table = self.table
        leader: dict[int, int] = {}
        for group in table.groups:
            if not group.hard:
                continue
            members = list(group.members)
            self.grouped[members] = True
            if group.kind == "spread" or group.over != HOST:
                self.odd[members] = True
            elif group.kind == "together":
                self._take_set(members, leader)
        for group in table.groups:
            if group.hard and group.kind == "apart":
                sets = [leader[row] for row in group.members if row in leader]
                # Two of one set that are to be apart: no place is right for both.
                self.odd[[first for first in sets if sets.count(first) > 1]] = True
        for row, first in leader.items():
            if row != first:
                self.followers.setdefault(first, []).append(row)
                self.memory[first] += table.memory[row]
                self.vcpus[first] += table.vcpus[row]
                self.odd[first] |= self.odd[row]
                if row in self.confined:
                    own = self.confined.pop(row)
                    self.confined[first] = self.confined.get(first, own) & own

    def _take_set(self, members: list[int], leader: dict[int, int]) -> None:
        """Those on one host go as one, and to where others of the set are."""
        table = self.table
        hosts = {int(table.at[row]) for row in members} - {NOWHERE}
        for host in sorted(hosts):
            here = [row for row in members if table.at[row] == host and table.ha[row]]
            if not here:
                continue
            # Sets that overlap are one.
            known = {leader[row] for row in here if row in leader}
            first = min(known, default=here[0])
            for row, other in leader.items():
                if other in known:
                    leader[row] = first
            leader.update(dict.fromkeys(here, first))
            if hosts - {host}:
                there = hosts - {host}
                self.confined[here[0]] = self.confined.get(here[0], there) & there

    def _one_each(self) -> None:
        table, rows, freest = self.table, self.rows, self.freest
        source = table.at[rows]
        rank: Ints = np.arange(len(rows)) - self.first[source]
        place = np.full(len(table.hosts), len(table.hosts), dtype=np.int64)
        place[freest] = np.arange(len(freest))
        # The host itself is passed over.
        rank = rank + (place[source] <= rank)
        beyond = rank >= len(freest)
        target = freest[np.minimum(rank, len(freest) - 1)]
        good = ~beyond & (self.memory[rows] <= table.free_mib[target])
        good &= (self.vcpus[rows] <= table.free_vcpus[target]) & ~self.odd[rows]
        for kind in range(len(table.needs)):
            of_kind = table.kind[rows] == kind
            good[of_kind] &= table.mask(kind)[target[of_kind]]
        self.refuge[rows] = target
        for position in np.flatnonzero(self.grouped[rows] & good):
            guest = int(rows[position])
            good[position] = self._permitted(guest, int(target[position]))
        self.holds[source[~good]] = False

    def _permitted(self, guest: int, host: int) -> bool:
        table = self.table
        if host not in self.confined.get(guest, (host,)):
            return False
        followers = self.followers.get(guest, [])
        if not all(table.mask(int(table.kind[row]))[host] for row in followers):
            return False
        return host not in self._rivals(guest)

    def _rivals(self, guest: int) -> set[int]:
        """Hosts of others that the guest, or one that follows it, must be apart from."""
        table = self.table
        here = table.at[guest]
        found = set()
        for one in (guest, *self.followers.get(guest, ())):
            for number in table.groups_of[one]:
                group = table.groups[number]
                if group.hard and group.kind == "apart":
                    for row in group.members:
                        if row != one:
                            where = table.at[row]
                            found.add(int(self.refuge[row] if where == here else where))
        return found

    def _share(self) -> None:
        table = self.table
        odd = np.zeros(len(table.hosts), dtype=np.bool_)
        odd[table.at[self.rows[self.odd[self.rows]]]] = True
        sources = np.flatnonzero(~self.holds & ~odd)
        if not len(sources):
            return
        undecided = {int(host) for host in sources}
        tied = [
            host
            for row, hosts in self.confined.items()
            if int(table.at[row]) in undecided
            for host in hosts
        ]
        columns = np.unique(np.array([*self.freest[:_HOSTS], *tied], dtype=np.int64))
        column_of = np.full(len(table.hosts), -1, dtype=np.int64)
        column_of[columns] = np.arange(len(columns))
        free = np.repeat(
            np.where(table.open, table.free_mib, -1)[columns][None, :], len(sources), axis=0
        )
        vcpus = np.repeat(table.free_vcpus[columns][None, :], len(sources), axis=0)
        own = column_of[sources]
        free[own >= 0, own[own >= 0]] = -1
        masks = {kind: table.mask(kind)[columns] for kind in range(len(table.needs))}
        trivial = {kind: bool(mask.all()) for kind, mask in masks.items()}
        counts = self.counts[sources]
        self.refuge[self.rows[np.isin(table.at[self.rows], sources)]] = NOWHERE
        most = np.iinfo(np.int64).max
        alive = np.ones(len(sources), dtype=np.bool_)
        for step in range(int(counts.max())):
            lines = np.flatnonzero(alive & (counts > step))
            if not len(lines):
                break
            guests = self.rows[self.first[sources[lines]] + step]
            room = free[lines]
            fit = room >= self.memory[guests][:, None]
            fit &= vcpus[lines] >= self.vcpus[guests][:, None]
            for position in np.flatnonzero(self.grouped[guests]):
                self._keep_rules(int(guests[position]), fit[position], columns, column_of)
            for kind, usual in trivial.items():
                if not usual:
                    fit[table.kind[guests] == kind] &= masks[kind]
            best = np.where(fit, room, most).argmin(axis=1)
            found = fit[np.arange(len(lines)), best]
            alive[lines[~found]] = False
            lines, guests, best = lines[found], guests[found], best[found]
            free[lines, best] -= self.memory[guests]
            vcpus[lines, best] -= self.vcpus[guests]
            self.refuge[guests] = columns[best]
            for guest in self.followers.keys() & set(guests.tolist()):
                self.refuge[self.followers[guest]] = self.refuge[guest]
        self.holds[sources[alive]] = True

    def _keep_rules(self, guest: int, fit: Bools, columns: Ints, column_of: Ints) -> None:
        table = self.table
        for host in self._rivals(guest):
            if host >= 0 and column_of[host] >= 0:
                fit[column_of[host]] = False
        if guest in self.confined:
            fit &= np.isin(columns, list(self.confined[guest]))
        for row in self.followers.get(guest, ()):
            fit &= table.mask(int(table.kind[row]))[columns]
