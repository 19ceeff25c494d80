"""What a guest would rather: soft rules and preferred hosts, as hosts that are no worse than now.

Evenness never overrides a wish: whoever is moved for it goes where his wishes are fulfilled at
least as well as where he is.
"""

from __future__ import annotations

import numpy as np

from vorch.decide.room.table import Bools, Floats, Table


def has_wishes(table: Table, row: int) -> bool:
    if table.guests[row].needs.preferred:
        return True
    return any(not table.groups[number].hard for number in table.groups_of[row])


def no_worse(table: Table, row: int) -> Bools | None:
    """Hosts where its wishes are fulfilled as well as on its own; None: it has none, or no host."""
    here = int(table.at[row])
    if here < 0 or not has_wishes(table, row):
        return None
    disliked = _disliked(table, row)
    found: Bools = disliked <= disliked[here] + 1e-9
    for number in table.groups_of[row]:
        group = table.groups[number]
        if group.hard:
            continue
        domain = table.domain(group.over)
        others = [int(table.at[other]) for other in group.members if other != row]
        beside = np.bincount(
            domain[[other for other in others if other >= 0]], minlength=int(domain.max()) + 1
        )[domain]
        if group.kind == "together":
            found &= beside >= beside[here]
        else:
            found &= beside <= beside[here]
    return found


def _disliked(table: Table, row: int) -> Floats:
    """How far each host is below the best of its preferred ones, in steps of priority."""
    preferred = dict(table.guests[row].needs.preferred)
    found: Floats = np.zeros(len(table.hosts))
    if not preferred:
        return found
    ranks = sorted(set(preferred.values()), reverse=True)
    for number, name in enumerate(table.host_names):
        found[number] = ranks.index(preferred[name]) if name in preferred else len(ranks)
    return found
