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
from vorch.decide.room.table import NOWHERE, Bools, Ints, Table


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
    return _loss(table, lost, work, packing.pack(work), prove=prove)


def _loss(
    table: Table, lost: Sequence[int], work: packing.Task, packed: packing.Packed, *, prove: bool
) -> Loss:
    names, guests = table.host_names, table.guest_names
    verdict, why = Verdict.YES, ""
    if packed.left:
        shown = packing.bound(work)
        verdict = Verdict.UNPROVEN if shown is None else Verdict.NO
        why = shown.why if shown is not None else "no packing was found, and none was ruled out"
        proof = solver.solve(work) if prove else None
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
        # Groups over which more hangs than who shares a host.
        self._wide = [
            group.hard and (group.kind != "apart" or group.over != HOST) for group in table.groups
        ]
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
        again = self._touched(guest, source, target)
        if target >= 0:
            change = self._kept(guest, target)
            if change is not None:
                for row, host in change.refuges.items():
                    self.refuge[row] = host
                again -= set(self._stirred(change, guest, target))
        for host in sorted(again):
            self._repack(host)

    def _stirred(self, change: Change, guest: int, target: int) -> set[int]:
        """Hosts whose refuges hold again by that change."""
        hosts = {int(self.table.at[row]) for row in change.refuges}
        wide = any(self._wide[number] for number in self.table.groups_of[guest])
        return set() if wide else hosts | {target}

    def _touched(self, guest: int, source: int, target: int) -> set[int]:
        """Hosts whose refuges may not hold any more. Those that may hold now are stale."""
        if source >= 0:
            if not self.holds[source]:
                self._stale.add(source)
            self._stale |= {host for host in self.sure if self._may_turn(host, guest, source)}
        return self._unsettled(guest, target)

    def _may_turn(self, host: int, guest: int, source: int) -> bool:
        """Whether a host that does not hold may do so since a guest has left another one."""
        table = self.table
        blocker = self._blocker.get(host)
        if blocker is None or set(table.groups_of[blocker]) & set(table.groups_of[guest]):
            return True
        fits = table.free_mib[source] >= table.memory[blocker]
        fits &= table.free_vcpus[source] >= table.vcpus[blocker]
        return bool(fits and table.mask(int(table.kind[blocker]))[source])

    def _unsettled(self, guest: int, target: int) -> set[int]:
        """Hosts that hold, and whose refuges a guest may break by being where it is now."""
        table = self.table
        again: set[int] = set()
        if target >= 0:
            if table.ha[guest] and self.holds[target]:
                again.add(target)
            again |= {host for host in self._overfull(target) if self.holds[host]}
        for number in table.groups_of[guest]:
            group = table.groups[number]
            if not group.hard:
                continue
            for row in group.members:
                host = int(table.at[row])
                concerned = self._wide[number] or (target >= 0 and self.refuge[row] == target)
                if host >= 0 and self.holds[host] and table.ha[row] and concerned:
                    again.add(host)
        return again

    def _overfull(self, host: int, memory: int = 0, vcpus: float = 0.0) -> list[int]:
        """Hosts whose guests do not all fit on this one any more, with so much more on it."""
        table = self.table
        rows = np.flatnonzero(self.refuge == host)
        if not len(rows):
            return []
        sources, number = np.unique(table.at[rows], return_inverse=True)
        mib = np.bincount(number, table.memory[rows]) > table.free_mib[host] - memory
        cpu = np.bincount(number, table.vcpus[rows]) > table.free_vcpus[host] - vcpus
        return [int(one) for one in sources[mib | cpu]]

    def admits(self, guests: Sequence[int], host: int) -> tuple[Change | None, str]:
        """Whether guests that are nowhere may go to a host, with every yes kept; else why not.

        What does not hold already is no reason against it.
        """
        table = self.table
        for guest in guests:
            table.move(guest, host)
        try:
            change = self._kept(guests[0], host) if len(guests) == 1 else None
            return (change, "") if change is not None else self._admitted_slowly(guests, host)
        finally:
            for guest in guests:
                table.move(guest, NOWHERE)

    def admit(self, host: int, change: Change) -> None:
        """The table has put guests there: take the refuges that `admits` has found."""
        for row, refuge in change.refuges.items():
            self.refuge[row] = refuge
        if not self.holds[host]:
            self._stale.add(host)

    def _kept(self, guest: int, host: int) -> Change | None:
        """Refuges that keep all as it is, by few glances. The guest is on the host already."""
        table = self.table
        if any(self._wide[number] for number in table.groups_of[guest]) or table.celled[guest]:
            return None
        refuges: dict[int, int] = {}
        over = set(self._overfull(host))
        for number in table.groups_of[guest]:
            group = table.groups[number]
            over |= {
                int(table.at[row])
                for row in group.members
                if group.hard and row != guest and self.refuge[row] == host
            }
        if over and not self._rehomed(sorted(over), host, refuges):
            return None
        if table.ha[guest] and self.holds[host]:
            found = self._refuge(guest, host, refuges)
            if found is None:
                return None
            refuges[guest] = found
        return Change(refuges)

    def _refuge(self, guest: int, host: int, refuges: dict[int, int]) -> int | None:
        """A host for one guest beside the refuges of the others on its host."""
        table = self.table
        rows = np.flatnonzero((table.at == host) & (self.refuge >= 0))
        rows = rows[rows != guest]
        taken = self.refuge[rows]
        for row, other in refuges.items():
            taken[rows == row] = other
        free_mib, free_vcpus = table.free_mib.copy(), table.free_vcpus.copy()
        np.subtract.at(free_mib, taken, table.memory[rows])
        np.subtract.at(free_vcpus, taken, table.vcpus[rows])
        fit = table.mask(int(table.kind[guest])) & (free_mib >= table.memory[guest])
        fit &= free_vcpus >= table.vcpus[guest]
        fit[host] = False
        for number in table.groups_of[guest]:
            group = table.groups[number]
            if not group.hard:
                continue
            for row in group.members:
                if row != guest and table.at[row] >= 0:
                    where = int(table.at[row])
                    fit[where if where != host else refuges.get(row, self.refuge[row])] = False
        best = int(np.where(fit, free_mib, -1).argmax())
        return best if fit[best] else None

    def _rehomed(self, sources: Sequence[int], host: int, refuges: dict[int, int]) -> bool:
        """Other refuges for guests of these hosts that were to go to this one."""
        at, refuge = self.table.at, self.refuge
        for row in np.flatnonzero(refuge == host):
            if int(at[row]) not in sources:
                continue
            guest = int(row)
            if any(self._wide[n] for n in self.table.groups_of[guest]) or self.table.celled[guest]:
                return False
            kept = int(refuge[guest])
            refuge[guest] = NOWHERE
            found = self._refuge(guest, int(at[guest]), refuges)
            refuge[guest] = kept
            if found is None or found == host:
                return False
            refuges[guest] = found
        return True

    def _admitted_slowly(self, guests: Sequence[int], host: int) -> tuple[Change | None, str]:
        """By packing anew what is touched; says which host's loss would not be survived."""
        table = self.table
        refuges: dict[int, int] = {}
        touched = {source for guest in guests for source in self._unsettled(guest, host)}
        for source in sorted(touched):
            work = packing.task(table, self._displaced(source), [source])
            shown = packing.bound(work)
            packed = packing.pack(work) if shown is None else None
            if packed is None or packed.left:
                name = table.host_names[source]
                if shown is not None:
                    return None, f"{name!r} could not be lost any more: {shown.why}"
                return None, f"it is not proven that {name!r} could still be lost then"
            refuges.update(packed.hosts)
        return Change(refuges), ""


def survives(table: Table, hosts: Iterable[str], *, prove: bool = True) -> Loss:
    """`loss` by names."""
    return loss(table, [table.host(name) for name in hosts], prove=prove)
