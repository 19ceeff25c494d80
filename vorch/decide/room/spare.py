"""Whether any one host may die: every guest that is looked after would find room elsewhere.

For each guest a refuge is kept: the host that it goes to when its own dies. Refuges of one host's
guests fit there all at once, so they are the proof of a yes. A no is proven by a bound or by the
solver; what neither decides is `unproven`. After a change only the refuges that it touches are
looked at again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from vorch.decide.room import packing, solver
from vorch.decide.room.fleet import HOST
from vorch.decide.room.matching import Matching
from vorch.decide.room.patch import patched
from vorch.decide.room.table import NOWHERE, Bools, Floats, Ints, Table

# How many hosts are tried as another refuge for many before each is looked at for itself,
_OTHERS = 48
# and how many, where no more than a few are without one.
_FIRST = 4
_SINGLY = 12


# How many sizes with few places are kept in mind.
_SCARCE = 8


class Verdict(StrEnum):
    YES = "yes"
    NO = "no"
    UNPROVEN = "not proven"


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """What becomes of the guests when these hosts die."""

    hosts: tuple[str, ...]
    verdict: Verdict
    # Where each would go: all of them with a yes, as many as found room otherwise.
    refuges: dict[str, str] = field(default_factory=dict)
    # Who would be left out: the fewest where the solver said so.
    left_out: tuple[str, ...] = ()
    why: str = ""


def loss(table: Table, hosts: Sequence[int], *, prove: bool = True) -> Loss:
    """Whether all guests that are looked after find room when these hosts die at once."""
    lost = sorted(set(hosts))
    rows = np.flatnonzero(table.ha & np.isin(table.at, np.array(lost, dtype=np.int64)))
    work = packing.task(table, [int(row) for row in rows], lost)
    names, guests = table.host_names, table.guest_names
    verdict, why = Verdict.YES, ""
    shown = packing.bound(work)
    packed = packing.pack(work, hopeless=shown is not None)
    if packed.left:
        verdict = Verdict.UNPROVEN if shown is None else Verdict.NO
        why = shown.why if shown is not None else "no packing was found, and none was ruled out"
        # Whoever has no room even alone is left out by every packing: nothing is to be gained then.
        least = all(not packing.alone(work, guest).any() for guest in packed.left)
        proof = solver.solve(work) if prove and not least else None
        if proof is not None:
            verdict = Verdict.YES if proof.complete else Verdict.NO
            why = "" if proof.complete else why if shown else "no packing of them exists"
            if len(proof.packed.left) <= len(packed.left):
                packed = proof.packed
    return Loss(
        hosts=tuple(names[host] for host in lost),
        verdict=verdict,
        refuges={guests[guest]: names[host] for guest, host in sorted(packed.hosts.items())},
        left_out=tuple(guests[guest] for guest in sorted(packed.left)),
        why=why,
    )


def domain_losses(table: Table, key: str, *, prove: bool = True) -> dict[str, Loss]:
    """The loss of each failure domain of a key, as "rack", whole."""
    numbers = table.domain(key)
    return {
        name: loss(table, [int(row) for row in np.flatnonzero(numbers == number)], prove=prove)
        for number, name in enumerate(table.domain_names(key))
    }


@dataclass(frozen=True, slots=True)
class Change:
    """Refuges that keep every yes when a guest goes to a host."""

    refuges: dict[int, int]


class Spare:
    """The answer for each single host of a table, kept current while guests move."""

    def __init__(self, table: Table) -> None:
        self.table = table
        # Where each guest goes when its host dies; NOWHERE: it is not looked after, or has no room.
        self.refuge: Ints = np.full(len(table.guests), NOWHERE, dtype=np.int64)
        # By host: every guest that is looked after has a refuge.
        self.holds: Bools = np.ones(len(table.hosts), dtype=np.bool_)
        # Of hosts that do not hold: the reason when it is sure, "" when that is open.
        self.sure: dict[int, str] = {}
        # Hosts whose answer a change may have turned since.
        self._stale: set[int] = set()
        # Of hosts that do not hold: a guest that alone finds no room.
        self._blocker: dict[int, int] = {}
        # Hosts for whose sake something was refused before: where a refusal is looked for first.
        self._refused: set[int] = set()
        # Such a host, and a size of which it has many guests and others have few places.
        self._scarce: list[tuple[int, int]] = []
        # Groups over which more hangs than who shares a host.
        self._wide = [
            group.hard and (group.kind != "apart" or group.over != HOST) for group in table.groups
        ]
        # Guests that it takes a packing for, and those beside one that they must be apart from.
        self._awkward: Bools = table.celled.copy()
        self._sibling: Bools = np.zeros(len(table.guests), dtype=np.bool_)
        for number, group in enumerate(table.groups):
            members = list(group.members)
            if self._wide[number]:
                self._awkward[members] = True
            hosts = table.at[members].tolist()
            if group.hard and len(set(hosts)) < len(hosts):
                self._sibling[members] = True
        self._build()

    def _build(self) -> None:
        matching = Matching(self.table)
        self.refuge[:] = matching.refuge
        for host in np.flatnonzero(~matching.holds):
            self._repack(int(host))

    def _displaced(self, host: int) -> list[int]:
        return [int(row) for row in np.flatnonzero((self.table.at == host) & self.table.ha)]

    def _repack(self, host: int) -> bool:
        """Refuges of one host's guests anew. Whether they hold."""
        self._stale.discard(host)
        work = packing.task(self.table, self._displaced(host), [host])
        shown = packing.bound(work)
        packed = packing.pack(work) if shown is None else packing.Packed(left=list(work.guests))
        self.sure.pop(host, None)
        self._blocker.pop(host, None)
        self.holds[host] = not packed.left
        if packed.left:
            self.refuge[list(work.guests)] = NOWHERE
            self.sure[host] = shown.why if shown is not None else ""
            if shown is not None and shown.alone is not None:
                self._blocker[host] = shown.alone
        else:
            for guest, refuge in packed.hosts.items():
                self.refuge[guest] = refuge
        return not packed.left

    # -- answers

    def settle(self) -> None:
        """Look again at what changes may have turned."""
        for host in sorted(self._stale):
            self._repack(host)

    def verdict(self, host: int, *, prove: bool = False) -> Verdict:
        if host in self._stale:
            self._repack(host)
        if self.holds[host]:
            return Verdict.YES
        if not self.sure[host] and prove:
            self._prove(host)
            return self.verdict(host)
        return Verdict.NO if self.sure[host] else Verdict.UNPROVEN

    def _prove(self, host: int) -> None:
        work = packing.task(self.table, self._displaced(host), [host])
        proof = solver.solve(work)
        if proof is None:
            return
        if proof.complete:
            for guest, refuge in proof.packed.hosts.items():
                self.refuge[guest] = refuge
            self.holds[host] = True
            del self.sure[host]
        else:
            self.sure[host] = "no packing of them exists"

    def verdicts(self, *, prove: bool = False) -> dict[str, Verdict]:
        return {
            name: self.verdict(host, prove=prove) for host, name in enumerate(self.table.host_names)
        }

    def loss(self, host: int, *, prove: bool = True) -> Loss:
        """The answer for one host, with the refuges or who is left out."""
        if self.verdict(host) is not Verdict.YES:
            return loss(self.table, [host], prove=prove)
        names, guests = self.table.host_names, self.table.guest_names
        return Loss(
            hosts=(names[host],),
            verdict=Verdict.YES,
            refuges={guests[row]: names[self.refuge[row]] for row in self._displaced(host)},
        )

    # -- changes

    def moved(self, guest: int, source: int, target: int) -> None:
        """Take note that the table has moved a guest, and look again at what that touches."""
        self.refuge[guest] = NOWHERE
        self._note_siblings([guest])
        if source >= 0:
            if not self.holds[source]:
                self._stale.add(source)
            self._stale |= {host for host in self.sure if self._may_turn(host, guest, source)}
        refuges, broken = self._mended([guest], target)
        for row, host in refuges.items():
            self.refuge[row] = host
        for host, rows in sorted(broken.items()):
            found = patched(self.table, self.refuge, host, rows)
            if found is None:
                self._repack(host)
            else:
                self.refuge[list(found)] = list(found.values())

    def admits(self, guests: Sequence[int], host: int) -> tuple[Change | None, str]:
        """Whether guests that are nowhere may go to a host, with every yes kept; else why not.

        What does not hold already is no reason against it.
        """
        table = self.table
        for guest in guests:
            table.move(guest, host)
        try:
            return self._admitted(guests, host)
        finally:
            for guest in guests:
                table.move(guest, NOWHERE)

    def admit(self, guests: Sequence[int], host: int, change: Change) -> None:
        """The table has put guests there: take the refuges that `admits` has found."""
        for row, refuge in change.refuges.items():
            self.refuge[row] = refuge
        self._note_siblings(guests)
        if not self.holds[host]:
            self._stale.add(host)

    def _admitted(self, guests: Sequence[int], host: int) -> tuple[Change | None, str]:
        table = self.table
        for source, size in self._scarce:
            if source != host and self.holds[source] and self._too_few(source, size):
                return None, _refused(
                    table.host_names[source],
                    f"too few places of {size} MiB would be left for its guests",
                )
        refuges, broken = self._mended(guests, host)
        open_sources = []
        for source, rows in sorted(broken.items()):
            found = patched(table, self.refuge, source, rows)
            if found is None:
                open_sources.append(source)
            else:
                refuges.update(found)
        if len(open_sources) > 1:
            # Those with the largest guests are refused the soonest.
            largest = np.zeros(len(table.hosts), dtype=np.int64)
            there = np.flatnonzero(table.ha & (table.at >= 0))
            np.maximum.at(largest, table.at[there], table.memory[there])
            refused = self._refused
            open_sources.sort(key=lambda one: (one not in refused, -int(largest[one]), one))
        for source in open_sources:
            work = packing.task(table, self._displaced(source), [source])
            shown = packing.bound(work)
            packed = packing.pack(work) if shown is None else None
            if packed is None or packed.left:
                name = table.host_names[source]
                self._refused.add(source)
                if shown is not None:
                    if shown.size_mib and (source, shown.size_mib) not in self._scarce:
                        self._scarce = [(source, shown.size_mib), *self._scarce][:_SCARCE]
                    return None, _refused(name, shown.why)
                return None, f"it is not proven that {name!r} could still be lost then"
            refuges.update(packed.hosts)
        return Change(refuges), ""

    def _too_few(self, source: int, size_mib: int) -> bool:
        """Whether a host has more guests of that size than there are places elsewhere."""
        table = self.table
        there = np.flatnonzero((table.at == source) & table.ha)
        wanted = int((table.memory[there] >= size_mib).sum())
        free = np.where(table.open, np.maximum(table.free_mib, 0), 0)
        free[source] = 0
        return wanted > int((free // size_mib).sum())

    def _may_turn(self, host: int, guest: int, source: int) -> bool:
        """Whether a host that does not hold may do so since a guest has left another one."""
        table = self.table
        blocker = self._blocker.get(host)
        if blocker is None or set(table.groups_of[blocker]) & set(table.groups_of[guest]):
            return True
        fits = table.free_mib[source] >= table.memory[blocker]
        fits &= table.free_vcpus[source] >= table.vcpus[blocker]
        return bool(fits and table.mask(int(table.kind[blocker]))[source])

    def _mended(
        self, guests: Sequence[int], host: int
    ) -> tuple[dict[int, int], dict[int, set[int]]]:
        """Refuges in the place of those that guests break by being on a host, found by few glances.

        And the guests for whom that did not do, by their hosts.
        """
        table = self.table
        refuges: dict[int, int] = {}
        broken: dict[int, set[int]] = {}
        quick: set[int] = set()
        for guest in guests:
            for number in table.groups_of[guest]:
                group = table.groups[number]
                for row in group.members if group.hard else ():
                    source = int(table.at[row])
                    if source >= 0 and self.holds[source] and table.ha[row]:
                        if self._wide[number]:
                            broken.setdefault(source, set()).add(row)
                        elif host >= 0 and row != guest and self.refuge[row] == host:
                            quick.add(source)
        if host < 0:
            return refuges, broken
        quick |= {source for source in self._overfull(host) if self.holds[source]}
        quick.discard(host)
        if quick - broken.keys():
            for source in self._rehomed(quick - broken.keys(), host, refuges):
                broken[source] = set()
        if self.holds[host] and table.ha[list(guests)].any():
            found = None
            if len(guests) == 1 and not self._awkward[guests[0]] and host not in broken:
                found = self._refuge(guests[0], host)
            if found is None:
                broken.setdefault(host, set()).update(guests)
            else:
                refuges[guests[0]] = found
        for source in quick & broken.keys():
            sheltered = np.flatnonzero((self.refuge == host) & (table.at == source))
            broken[source].update(sheltered.tolist())
        return refuges, broken

    def _overfull(self, host: int) -> list[int]:
        """Hosts whose guests do not all fit on this one any more."""
        table = self.table
        rows = np.flatnonzero(self.refuge == host)
        sources = table.at[rows]
        count = len(table.hosts)
        over = np.bincount(sources, table.memory[rows], count) > max(table.free_mib[host], 0)
        over |= np.bincount(sources, table.vcpus[rows], count) > max(table.free_vcpus[host], 0)
        return [int(one) for one in np.flatnonzero(over)]

    def _refuge(self, guest: int, host: int) -> int | None:
        """A host for one guest beside the refuges of the others on its host."""
        table = self.table
        rows = np.flatnonzero((table.at == host) & (self.refuge >= 0))
        rows = rows[rows != guest]
        taken = self.refuge[rows]
        free_mib, free_vcpus = table.free_mib.copy(), table.free_vcpus.copy()
        np.subtract.at(free_mib, taken, table.memory[rows])
        np.subtract.at(free_vcpus, taken, table.vcpus[rows])
        fit = table.mask(int(table.kind[guest])) & (free_mib >= table.memory[guest])
        fit &= free_vcpus >= table.vcpus[guest]
        fit[host] = False
        for number in table.groups_of[guest]:
            group = table.groups[number]
            for row in group.members if group.hard else ():
                where = int(table.at[row])
                where = int(self.refuge[row]) if where == host else where
                if row != guest and where >= 0:
                    fit[where] = False
        best = int(np.where(fit, free_mib, -1).argmax())
        return best if fit[best] else None

    def _rehomed(self, sources: set[int], host: int, refuges: dict[int, int]) -> set[int]:
        """Other refuges for guests of these hosts that were to go to this one, for all at once.

        The losses are alternatives, so one other host mostly does for all of them. Returns the
        hosts for whose guests none was found.
        """
        table = self.table
        count = len(table.hosts)
        among = np.zeros(count, dtype=np.bool_)
        among[list(sources)] = True
        rows = np.flatnonzero((self.refuge == host) & (table.at >= 0))
        rows = rows[among[table.at[rows]]]
        awkward = self._awkward[rows] | self._sibling[rows]
        failed = {int(source) for source in table.at[rows[awkward]]}
        rows = rows[~np.isin(table.at[rows], list(failed))]
        # Of a host with several there the others wait for their turn.
        rows = rows[np.lexsort((-table.memory[rows], table.at[rows]))]
        freest = np.argsort(-table.free_mib, kind="stable")[:_OTHERS]
        for turn, other in enumerate(freest):
            if len(rows) <= (_SINGLY if turn >= _FIRST else 0):
                break
            # Hosts that come now are no freer.
            hopeless = table.memory[rows] > table.free_mib[other]
            if hopeless.any():
                failed |= {int(source) for source in table.at[rows[hopeless]]}
                rows = rows[~hopeless]
            if other != host and table.open[other] and len(rows):
                rows = self._to(rows, int(other), refuges)
        return failed | {int(source) for source in table.at[rows]}

    def _to(self, rows: Ints, host: int, refuges: dict[int, int]) -> Ints:
        """Give this refuge to those that it has room for; the rest is returned."""
        table = self.table
        count = len(table.hosts)
        there = np.flatnonzero((self.refuge == host) & (table.at >= 0))
        already = [row for row, other in refuges.items() if other == host]
        there = np.concatenate((there, np.array(already, dtype=np.int64)))
        mib = np.bincount(table.at[there], table.memory[there], count)
        vcpus = np.bincount(table.at[there], table.vcpus[there], count)
        sources = table.at[rows]
        fit = mib[sources] + table.memory[rows] <= table.free_mib[host]
        fit &= vcpus[sources] + table.vcpus[rows] <= table.free_vcpus[host]
        fit &= sources != host
        for kind in np.unique(table.kind[rows]):
            if not table.mask(int(kind))[host]:
                fit &= table.kind[rows] != kind
        among = set(rows.tolist())
        for guest in table.on(host):
            for number in table.groups_of[guest]:
                group = table.groups[number]
                if group.hard and not among.isdisjoint(group.members):
                    fit &= ~np.isin(rows, group.rows)
        # Of each host the largest, and beside it as many more as there is room for.
        some = rows[fit]
        sources = table.at[some]
        free_mib = table.free_mib[host] - mib[sources]
        free_vcpus = table.free_vcpus[host] - vcpus[sources]
        beside = _running(sources, table.memory[some].astype(np.float64)) <= free_mib
        beside &= _running(sources, table.vcpus[some]) <= free_vcpus
        fit[fit] = beside
        refuges.update(dict.fromkeys(rows[fit].tolist(), host))
        rest: Ints = rows[~fit]
        return rest

    def _note_siblings(self, guests: Sequence[int]) -> None:
        """Who is beside one that it must be apart from already."""
        table = self.table
        for guest in guests:
            for number in table.groups_of[guest]:
                group = table.groups[number]
                if group.hard:
                    hosts = table.at[group.rows]
                    several = (np.bincount(hosts + 1, minlength=len(table.hosts) + 1) > 1)[
                        hosts + 1
                    ]
                    for row, beside in zip(group.members, several.tolist(), strict=True):
                        # Of other groups nothing is known here: once noted stays noted.
                        if beside or len(table.groups_of[row]) == 1:
                            self._sibling[row] = beside


def _running(sources: Ints, size: Floats) -> Floats:
    """The sums up to each one, begun anew for each host; those of one host are side by side."""
    total: Floats = np.cumsum(size)
    first = np.r_[True, sources[1:] != sources[:-1]] if len(sources) else np.ones(0, dtype=np.bool_)
    before = (total - size)[first]
    total -= before[np.cumsum(first) - 1]
    return total


def _refused(host: str, why: str) -> str:
    return f"{host!r} could not be lost any more: {why}"


def survives(table: Table, hosts: Iterable[str], *, prove: bool = True) -> Loss:
    """`loss` by names."""
    return loss(table, [table.host(name) for name in hosts], prove=prove)
