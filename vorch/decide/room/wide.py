"""Whether several hosts at once, or any one rack, may be lost: what a policy can ask for.

Built on the refuges for single hosts. Of each set of hosts that may be lost together the refuges of
all guests on it are kept as the proof; mostly those for the loss of each host alone do, and else
the set is packed for itself. After a change only sets that it touches are looked at again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from math import comb

import numpy as np

from vorch.decide.room import packing
from vorch.decide.room.spare import Change, Spare, Verdict, loss
from vorch.decide.room.table import NOWHERE, Bools, Floats, Ints, Table

# Of more sets nothing is said: each would have to be looked at. 100 hosts have as many pairs.
SETS_MOST = 5000


def spare_of(table: Table, *, first: bool = False) -> Spare:
    """What the policy of the fleet asks to be kept.

    `first`: it is only of use when all of it holds, so the first that does not ends the search.
    """
    policy = table.policy
    wide = policy.spare_hosts > 1 or policy.spare_over
    return Wide(table, first=first) if wide else Spare(table)


def failing(spare: Spare, *, prove: bool = False) -> dict[str, Verdict]:
    """All whose loss is not survived, or not proven to be, by name: hosts, racks, sets of hosts."""
    spare.settle()
    found: dict[str, Verdict] = {}
    for host in np.flatnonzero(~spare.holds).tolist():
        verdict = spare.verdict(host, prove=prove)
        if verdict is not Verdict.YES:
            found[spare.table.host_names[host]] = verdict
    if isinstance(spare, Wide):
        found |= spare.unsurvived(prove=prove)
    return found


@dataclass(frozen=True, slots=True)
class WideChange(Change):
    # By the number of each set that was looked at anew, where all on it go.
    sets: Mapping[int, dict[int, int]] = field(default_factory=dict)


class Wide(Spare):
    """The answers for single hosts, and for sets of hosts beside those."""

    def __init__(self, table: Table, *, first: bool = False) -> None:
        super().__init__(table)
        self.sets: list[tuple[int, ...]] = []
        self.labels: list[str] = []
        # Why not all sets are looked at.
        self.beyond = ""
        self._name_sets()
        count, hosts = len(self.sets), len(table.hosts)
        # Guests that rules or cells bind: for those it takes a packing.
        self._bound: Bools = table.celled.copy()
        for group in table.groups:
            if group.hard:
                self._bound[list(group.members)] = True
        # Of each set the refuges, and what they take of each host. None: it is not survived.
        self._homes: list[dict[int, int] | None] = [None] * count
        self._mib: Ints = np.zeros((count, hosts), dtype=np.int64)
        self._vcpus: Floats = np.zeros((count, hosts))
        # Of those that are not survived: why, when that is sure.
        self._why: dict[int, str] = {}
        self._held: Bools = np.zeros(count, dtype=np.bool_)
        self._has: Bools = np.zeros((count, hosts), dtype=np.bool_)
        # Those that were looked at.
        self._looked: Bools = np.zeros(count, dtype=np.bool_)
        for number, lost in enumerate(self.sets):
            self._has[number, list(lost)] = True
        if first and not self.holds.all():
            return
        for number in range(count):
            self._look(number)
            if first and not self._held[number]:
                return

    def _name_sets(self) -> None:
        table, policy = self.table, self.table.policy
        names = table.host_names
        if policy.spare_over:
            numbers = table.domain(policy.spare_over)
            for number, name in enumerate(table.domain_names(policy.spare_over)):
                self.sets.append(tuple(np.flatnonzero(numbers == number).tolist()))
                self.labels.append(f"{policy.spare_over}:{name}")
        at_once = min(policy.spare_hosts, len(table.hosts))
        if at_once < 2:
            return
        if comb(len(table.hosts), at_once) > SETS_MOST:
            self.beyond = (
                f"any {at_once} of {len(table.hosts)} hosts are too many to be looked at, one by"
                " one"
            )
            return
        for lost in combinations(range(len(table.hosts)), at_once):
            self.sets.append(lost)
            self.labels.append(" and ".join(names[host] for host in lost))

    # -- answers

    def unsurvived(self, *, prove: bool = False) -> dict[str, Verdict]:
        found: dict[str, Verdict] = {}
        for number in np.flatnonzero(self._looked & ~self._held).tolist():
            sure = bool(self._why.get(number))
            if prove and not sure:
                came = loss(self.table, self.sets[number]).verdict
                if came is Verdict.YES:
                    continue
                sure = came is Verdict.NO
            found[self.labels[number]] = Verdict.NO if sure else Verdict.UNPROVEN
        if self.beyond:
            found[self.beyond] = Verdict.UNPROVEN
        return found

    def settle(self) -> None:
        super().settle()
        for number in np.flatnonzero(self._looked & ~self._held).tolist():
            self._look(number)

    # -- one set

    def _look(self, number: int) -> None:
        homes, why = self._homes_of(number)
        self._looked[number] = True
        self._keep(number, homes, why)

    def _keep(self, number: int, homes: dict[int, int] | None, why: str = "") -> None:
        table = self.table
        self._homes[number] = homes
        self._held[number] = homes is not None
        self._why.pop(number, None)
        self._mib[number] = 0
        self._vcpus[number] = 0.0
        if homes is None:
            self._why[number] = why
        elif homes:
            rows, hosts = np.array(list(homes)), np.array(list(homes.values()))
            np.add.at(self._mib[number], hosts, table.memory[rows])
            np.add.at(self._vcpus[number], hosts, table.vcpus[rows])

    def _homes_of(self, number: int) -> tuple[dict[int, int] | None, str]:
        """Where all that is looked after on a set goes when it is lost; or why not."""
        table, lost = self.table, self.sets[number]
        on = np.isin(table.at, np.array(lost, dtype=np.int64))
        rows = np.flatnonzero(on & table.ha)
        quick = self._each_alone(rows, lost)
        if quick is not None:
            return quick, ""
        work = packing.task(table, rows.tolist(), lost)
        shown = packing.bound(work)
        if shown is not None:
            return None, shown.why
        packed = packing.pack(work)
        return (None, "") if packed.left else (dict(packed.hosts), "")

    def _each_alone(self, rows: Ints, lost: Sequence[int]) -> dict[int, int] | None:
        """The refuges for the loss of each of them alone, where they do for all at once."""
        table = self.table
        if self._bound[rows].any():
            return None
        hosts = self.refuge[rows]
        if (hosts < 0).any() or np.isin(hosts, np.array(lost, dtype=np.int64)).any():
            return None
        count = len(table.hosts)
        if (np.bincount(hosts, table.memory[rows], count) > np.maximum(table.free_mib, 0)).any():
            return None
        if (np.bincount(hosts, table.vcpus[rows], count) > np.maximum(table.free_vcpus, 0)).any():
            return None
        return dict(zip(rows.tolist(), hosts.tolist(), strict=True))

    # -- changes

    def moved(self, guest: int, source: int, target: int) -> None:
        super().moved(guest, source, target)
        for number in self._touched([guest], source, target):
            self._look(number)

    def _touched(self, guests: Sequence[int], source: int, target: int) -> list[int]:
        """Sets that are survived, whose refuges may not do any more."""
        table = self.table
        found: Bools = np.zeros(len(self.sets), dtype=np.bool_)
        for host in (source, target):
            if host >= 0:
                found |= self._has[:, host]
        if target >= 0:
            found |= self._mib[:, target] > max(int(table.free_mib[target]), 0)
            found |= self._vcpus[:, target] > max(float(table.free_vcpus[target]), 0.0)
        if self._bound[list(guests)].any():
            # Whoever is bound to them may have to go elsewhere now.
            kin = {
                row
                for guest in guests
                for group in table.groups_of[guest]
                for row in table.groups[group].members
            }
            for number, homes in enumerate(self._homes):
                found[number] |= homes is not None and not kin.isdisjoint(homes)
        found &= self._held
        return np.flatnonzero(found).tolist()

    def _admitted(self, guests: Sequence[int], host: int) -> tuple[Change | None, str]:
        change, why = super()._admitted(guests, host)
        if change is None:
            return None, why
        sets: dict[int, dict[int, int]] = {}
        for number in self._touched(guests, NOWHERE, host):
            homes = self._with(number, guests, host)
            if homes is None:
                homes, why = self._homes_of(number)
            if homes is None:
                label = self.labels[number]
                if not why:
                    return None, f"it is not proven that {label} could still be lost then"
                return None, f"{label} could not be lost at once any more: {why}"
            sets[number] = homes
        return WideChange(change.refuges, sets), ""

    def _with(self, number: int, guests: Sequence[int], host: int) -> dict[int, int] | None:
        """The same refuges, and one for a guest that is new on a host of the set."""
        table, homes = self.table, self._homes[number]
        if homes is None or len(guests) != 1 or not self._has[number, host]:
            return None
        guest = guests[0]
        if self._bound[guest]:
            return None
        if not table.ha[guest]:
            return homes
        fit: Bools = table.mask(int(table.kind[guest])) & ~self._has[number]
        free_mib = table.free_mib - self._mib[number]
        fit = fit & (free_mib >= table.memory[guest])
        fit &= table.free_vcpus - self._vcpus[number] >= table.vcpus[guest]
        if not fit.any():
            return None
        return {**homes, guest: int(np.where(fit, free_mib, -1).argmax())}

    def admit(self, guests: Sequence[int], host: int, change: Change) -> None:
        super().admit(guests, host, change)
        if isinstance(change, WideChange):
            for number, homes in change.sets.items():
                self._keep(number, homes)
