"""Other refuges for a few guests of a host that may die, while its other guests keep theirs.

A change breaks the refuges of one or two guests of a host, seldom of more. To find room for those
beside the others is much less than to pack all of the host anew; where it fails, nothing is shown.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from vorch.decide.room.fleet import HOST
from vorch.decide.room.packing import Task, fitted
from vorch.decide.room.table import NOWHERE, Ints, Table

# With more than so many it is as well to pack all of them.
_MOST = 8


def patched(table: Table, refuge: Ints, host: int, broken: Iterable[int]) -> dict[int, int] | None:
    """Refuges for these guests of the host and for those that have to go with them, or None.

    All others of its guests that are looked after have sound ones in `refuge`.
    """
    here = table.at == host
    there = np.flatnonzero(here & table.ha)
    rows = sorted({*broken, *there[refuge[there] < 0].tolist()})
    for row in rows:
        for number in table.groups_of[row]:
            group = table.groups[number]
            if group.hard and group.kind == "spread":
                # Whoever moves changes how many are too many for all of them.
                return None
            if group.hard and group.kind == "together":
                rows += [
                    one for one in group.members if here[one] and table.ha[one] and one not in rows
                ]
        if len(rows) > _MOST:
            return None
    rows.sort(key=lambda row: (-int(table.memory[row]), -float(table.vcpus[row]), row))
    if all(_is_plain(table, row) for row in rows):
        return _simply(table, refuge, host, rows, there.tolist())
    others = there[~np.isin(there, rows)]
    taken = refuge[others]
    at, open_hosts = table.at.copy(), table.open.copy()
    at[here] = NOWHERE
    at[others] = taken
    open_hosts[host] = False
    free_mib, free_vcpus = table.free_mib.copy(), table.free_vcpus.copy()
    np.subtract.at(free_mib, taken, table.memory[others])
    np.subtract.at(free_vcpus, taken, table.vcpus[others])
    packed = fitted(
        Task(
            table=table,
            guests=tuple(rows),
            at=at,
            free_mib=free_mib,
            free_vcpus=free_vcpus,
            open=open_hosts,
        )
    )
    return None if packed.left else packed.hosts


def _is_plain(table: Table, row: int) -> bool:
    """It asks for no cell, and no rule does more than to keep it off the hosts of others."""
    hard = [group for n in table.groups_of[row] if (group := table.groups[n]).hard]
    return not table.celled[row] and all((one.kind, one.over) == ("apart", HOST) for one in hard)


def _simply(
    table: Table, refuge: Ints, host: int, rows: list[int], there: list[int]
) -> dict[int, int] | None:
    """The same for plain guests, by what a packing would do, without a copy of where all are."""
    free_mib, free_vcpus = table.free_mib.copy(), table.free_vcpus.copy()
    others = [row for row in there if row not in rows]
    for row in others:
        free_mib[refuge[row]] -= table.memory[row]
        free_vcpus[refuge[row]] -= table.vcpus[row]
    found: dict[int, int] = {}
    for row in rows:
        fit = table.open & (free_mib >= table.memory[row])
        fit &= free_vcpus >= table.vcpus[row]
        fit &= table.mask(int(table.kind[row]))
        fit[host] = False
        for number in table.groups_of[row]:
            group = table.groups[number]
            for rival in group.members if group.hard else ():
                where = int(table.at[rival])
                if where == host:
                    where = found.get(rival, int(refuge[rival]) if rival in others else NOWHERE)
                if rival != row and where >= 0:
                    fit[where] = False
        best = int(np.where(fit, free_mib, np.iinfo(np.int64).max).argmin())
        if not fit[best]:
            return None
        free_mib[best] -= table.memory[row]
        free_vcpus[best] -= table.vcpus[row]
        found[row] = best
    return found
