"""Find room for many guests at once: best fit decreasing in several orders, then local repair.

The guests are taken off the table first and the hosts that are lost are closed; everybody else
stays. What is found keeps all hard rules. That nothing is found proves nothing: `bound` has the
proofs that are cheap, and `solver` decides what is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from vorch.decide.room import cells
from vorch.decide.room.fleet import HOST
from vorch.decide.room.table import NOWHERE, Bools, Floats, Ints, Table

# How many times those that found no room are put to the front.
_ROUNDS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Who has to find room, and what the hosts look like without them."""

    table: Table
    guests: tuple[int, ...]
    at: Ints
    free_mib: Ints
    free_vcpus: Floats
    open: Bools


@dataclass(slots=True)
class Packed:
    """Where each guest goes, and who found no room."""

    hosts: dict[int, int] = field(default_factory=dict)
    left: list[int] = field(default_factory=list)


def task(table: Table, guests: Sequence[int], lost: Sequence[int] = ()) -> Task:
    """What is to be packed when these hosts are lost with these guests on them."""
    at = table.at.copy()
    free_mib, free_vcpus = table.free_mib.copy(), table.free_vcpus.copy()
    rows = np.array(guests, dtype=np.int64)
    placed = rows[at[rows] >= 0]
    np.add.at(free_mib, at[placed], table.memory[placed])
    np.add.at(free_vcpus, at[placed], table.vcpus[placed])
    at[rows] = NOWHERE
    open_hosts = table.open.copy()
    open_hosts[list(lost)] = False
    # Whoever else was on a lost host is gone with it: nobody has to be kept apart from him.
    if len(lost) == 1:
        at[at == lost[0]] = NOWHERE
    elif lost:
        at[np.isin(at, np.array(lost, dtype=np.int64))] = NOWHERE
    return Task(
        table=table,
        guests=tuple(int(row) for row in rows),
        at=at,
        free_mib=free_mib,
        free_vcpus=free_vcpus,
        open=open_hosts,
    )


def pack(work: Task, *, hopeless: bool = False) -> Packed:
    """The first complete packing that is found, or the one that leaves the fewest out.

    `hopeless`: it is known that there is none, so a plain try will do.
    """
    best: Packed | None = None
    if hopeless:
        return _Packing(work, repair=False).fill(_orders(work)[-1] if work.guests else ())
    for order in _orders(work):
        first = list(order)
        for _ in range(_ROUNDS):
            found = _Packing(work).fill(first)
            if not found.left:
                return found
            if best is None or len(found.left) < len(best.left):
                best = found
            ahead = set(found.left)
            again = [*found.left, *(one for one in first if one not in ahead)]
            if again == first:
                break
            first = again
    return best if best is not None else Packed()


def fitted(work: Task) -> Packed:
    """A plain try: best fit, in the order in which the guests are named."""
    return _Packing(work, repair=False).fill(work.guests)


def _orders(work: Task) -> list[list[int]]:
    """Large ones first: by memory, by vCPUs, and by the share of what is free of both."""
    table = work.table
    mib = max(1.0, float(np.maximum(work.free_mib[work.open], 0).sum()))
    vcpus = max(1.0, float(np.maximum(work.free_vcpus[work.open], 0).sum()))
    rows = np.array(work.guests, dtype=np.int64)
    if not len(rows):
        return []
    memory, processors = table.memory[rows], table.vcpus[rows]
    # Guests that others depend on have the fewest hosts once those are placed: they go first.
    bound = np.array([not _bound(table, int(row)) for row in rows])
    shares = memory / mib + processors / vcpus
    found: list[list[int]] = []
    for keys in (
        (rows, -processors, -memory),
        (rows, -shares, bound),
        (rows, -memory, -processors),
    ):
        order = [int(row) for row in rows[np.lexsort(keys)]]
        if order not in found:
            found.append(order)
    return found


def _bound(table: Table, guest: int) -> bool:
    return any(table.groups[number].hard for number in table.groups_of[guest])


class _Packing:
    """One try."""

    def __init__(self, work: Task, *, repair: bool = True) -> None:
        self.work = work
        self.repair = repair
        self.table = work.table
        self.at = work.at.copy()
        self.free_mib = work.free_mib.copy()
        self.free_vcpus = work.free_vcpus.copy()
        self.packed = Packed()
        # Guests of whom rules keep several in one domain: they are not moved once they are placed.
        self.plain = {
            row: all(
                table_group.kind == "apart" or not table_group.hard
                for table_group in (self.table.groups[n] for n in self.table.groups_of[row])
            )
            and not self.table.celled[row]
            for row in work.guests
        }

    def fill(self, order: Sequence[int]) -> Packed:
        for guest in order:
            if guest in self.packed.hosts:
                continue
            self._place(guest)
        return self.packed

    def _place(self, guest: int) -> None:
        mates = self._mates(guest)
        fit = self._fit(guest, mates)
        if fit.any():
            self._put(mates, self._tightest(guest, fit))
        elif not (self.repair and len(mates) == 1 and self.plain[guest] and self._repair(guest)):
            self.packed.left.append(guest)

    def _mates(self, guest: int) -> list[int]:
        """The guest, and those that have to be on the same host with it and are to be placed."""
        table = self.table
        found = [guest]
        for one in found:
            for number in table.groups_of[one]:
                group = table.groups[number]
                if group.kind == "together" and group.hard and group.over == HOST:
                    found += [
                        mate
                        for mate in group.members
                        if mate in self.plain
                        and mate not in found
                        and mate not in self.packed.hosts
                        and mate not in self.packed.left
                    ]
        return found

    def _fit(self, guest: int, mates: Sequence[int]) -> Bools:
        table = self.table
        rows = list(mates)
        fit: Bools = self.work.open & (self.free_mib >= int(table.memory[rows].sum()))
        fit &= self.free_vcpus >= float(table.vcpus[rows].sum())
        for one in rows:
            fit &= table.mask(int(table.kind[one]))
            off = table.barred(one, self.at, self.work.open)
            if off is not None:
                fit &= ~off
        if len(rows) > 1:
            off = table.barred_as_one(rows, self.at, self.work.open)
            if off is not None:
                fit &= ~off
        if table.celled[rows].any():
            for host in np.flatnonzero(fit):
                fit[host] = self._cells_hold(int(host), rows)
        return fit

    def _cells_hold(self, host: int, rows: Sequence[int]) -> bool:
        table = self.table
        there = [table.guests[int(row)] for row in np.flatnonzero(self.at == host)]
        for row in rows:
            guest = table.guests[row]
            if cells.refusal(table.hosts[host], table.ratio(host), there, guest) is not None:
                return False
            there.append(guest)
        return True

    def _tightest(self, guest: int, fit: Bools) -> int:
        """The host that has the least left: large gaps are kept for large guests."""
        left = np.where(fit, self.free_mib, np.iinfo(np.int64).max)
        return int(left.argmin())

    def _put(self, guests: Sequence[int], host: int) -> None:
        for guest in guests:
            self.at[guest] = host
            self.free_mib[host] -= self.table.memory[guest]
            self.free_vcpus[host] -= self.table.vcpus[guest]
            self.packed.hosts[guest] = host

    def _take(self, guest: int) -> int:
        host = self.packed.hosts.pop(guest)
        self.at[guest] = NOWHERE
        self.free_mib[host] += self.table.memory[guest]
        self.free_vcpus[host] += self.table.vcpus[guest]
        return host

    def _repair(self, guest: int) -> bool:
        """Make room by putting one that was placed before onto another host."""
        table = self.table
        memory, vcpus = int(table.memory[guest]), float(table.vcpus[guest])
        mask = table.mask(int(table.kind[guest])) & self.work.open
        for other in sorted(
            self.packed.hosts, key=lambda one: (int(table.memory[one]), float(table.vcpus[one]))
        ):
            host = self.packed.hosts[other]
            if (
                not self.plain[other]
                or not mask[host]
                or self.free_mib[host] + table.memory[other] < memory
                or self.free_vcpus[host] + table.vcpus[other] < vcpus
            ):
                continue
            self._take(other)
            off = table.barred(guest, self.at, self.work.open)
            if off is None or not off[host]:
                self._put([guest], host)
                fit = self._fit(other, [other])
                if fit.any():
                    self._put([other], self._tightest(other, fit))
                    return True
                self._take(guest)
            self._put([other], host)
        return False


# ---------------------------------------------------------------------------------------------
# Proofs that there is no room


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """Why guests cannot all have room."""

    why: str
    # One that has none even by itself.
    alone: int | None = None
    # There are too few places of that size.
    size_mib: int = 0


def bound(work: Task) -> Bound | None:
    """A proof that these guests cannot all have room; None: that is not shown here."""
    table = work.table
    if not work.guests:
        return None
    for guest in work.guests:
        if not alone(work, guest).any():
            name = table.guest_names[guest]
            why = f"no host that is left has room for {name!r}"
            return Bound(why=why, alone=guest, size_mib=int(table.memory[guest]))
    free_mib = np.where(work.open, np.maximum(work.free_mib, 0), 0)
    free_vcpus = np.where(work.open, np.maximum(work.free_vcpus, 0.0), 0.0)
    rows = np.array(work.guests, dtype=np.int64)
    memory, vcpus = table.memory[rows], table.vcpus[rows]
    if memory.sum() > free_mib.sum():
        short = int(memory.sum() - free_mib.sum())
        return Bound(why=f"{short} MiB of memory are short on all hosts that are left together")
    if vcpus.sum() > free_vcpus.sum() + 1e-9:
        lacking = float(vcpus.sum() - free_vcpus.sum())
        return Bound(why=f"{lacking:g} vCPUs are short on all hosts that are left together")
    for size in np.unique(memory[memory > 0])[::-1]:
        wanted = int((memory >= size).sum())
        there = int((free_mib // size).sum())
        if wanted > there:
            return Bound(
                why=f"{wanted} guests of {int(size)} MiB or more find {there} such places on the"
                " hosts that are left",
                size_mib=int(size),
            )
    return None


def alone(work: Task, guest: int) -> Bools:
    """Hosts that could take the guest if it were the only one; no more is left out than is sure."""
    table = work.table
    fit: Bools = work.open & table.mask(int(table.kind[guest]))
    fit &= (work.free_mib >= table.memory[guest]) & (work.free_vcpus >= table.vcpus[guest])
    for number in table.groups_of[guest]:
        group = table.groups[number]
        # How evenly a group is spread depends on where the others go.
        if group.hard and group.kind != "spread":
            off = table.barred_by(group, guest, work.at, work.open)
            if off is not None:
                fit &= ~off
    return fit


def verify(work: Task, hosts: dict[int, int]) -> str | None:
    """What is wrong with a packing, looked at afresh; None: it is sound."""
    table = work.table
    if set(hosts) != set(work.guests):
        return "somebody is missing"
    at = work.at.copy()
    free_mib, free_vcpus = work.free_mib.copy(), work.free_vcpus.copy()
    for guest, host in hosts.items():
        if not (work.open[host] and table.mask(int(table.kind[guest]))[host]):
            return f"{table.guest_names[guest]!r} may not be on {table.host_names[host]!r}"
        at[guest] = host
        free_mib[host] -= table.memory[guest]
        free_vcpus[host] -= table.vcpus[guest]
    for host in set(hosts.values()):
        if free_mib[host] < 0 or free_vcpus[host] < 0:
            return f"{table.host_names[host]!r} is over its limit"
    for number in sorted({n for guest in hosts for n in table.groups_of[guest]}):
        group = table.groups[number]
        moved = [row for row in group.members if row in hosts]
        if group.hard and (why := _broken(work, at, number, moved)) is not None:
            return f"rule {group.name!r}: {why}"
    return None


def _broken(work: Task, at: Ints, number: int, moved: list[int]) -> str | None:
    group = work.table.groups[number]
    domain = work.table.domain(group.over)
    if group.kind == "spread":
        counts = work.table.counts(group, at=at)
        lowest = min(
            (int(counts[one]) for one in work.table.spread_over(group.over, work.open)), default=0
        )
        for row in moved:
            here = int(domain[at[row]])
            if here >= len(counts) or counts[here] - lowest > group.max_skew:
                return "it is not spread evenly enough"
        return None
    stay = {int(domain[at[row]]) for row in group.members if row not in moved and at[row] >= 0}
    new = [int(domain[at[row]]) for row in moved]
    if group.kind == "apart":
        return "two are together" if len(set(new)) < len(new) or stay & set(new) else None
    together = set(new) <= stay if stay else len(set(new)) <= 1
    return None if together else "they are not together"
