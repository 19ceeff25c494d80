"""What speaks against a host for a guest, in parts that add up: lower is better.

Memory, vCPUs and load each count for how much more uneven the hosts become by it: the rise of the
standard deviation of their shares in use. Load beyond what a host should carry, wishes of rules and
preferred hosts come on top.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vorch.decide.room.fleet import Host, Needs
from vorch.decide.room.table import Bools, Floats, Group, Ints, Table

EVEN = ("memory", "vcpus", "load")
# Beyond that many digits a difference is one of rounding.
DIGITS = 9


class Score:
    """Scores on a table that changes: the shares of all hosts are kept, row by row."""

    def __init__(self, table: Table) -> None:
        self.table = table
        weights = table.policy.weights
        self.weights: Floats = np.array([weights.memory, weights.vcpus, weights.load])[:, None]
        self.per: Floats = 1.0 / np.array([table.size_mib, table.cpus, table.cpus])
        self.counted: Floats = table.open.astype(np.float64)
        self.number = max(1.0, float(self.counted.sum()))
        self.shares: Floats = np.zeros((3, len(table.hosts)))
        self.refresh(np.arange(len(table.hosts)))
        # How little a host is preferred, by needs.
        self._ranks: dict[int, Floats | None] = {}

    def refresh(self, rows: int | Ints) -> None:
        """These rows of the table have changed."""
        table = self.table
        self.shares[0, rows] = (table.kept_mib[rows] + table.used_mib[rows]) * self.per[0, rows]
        used = table.other_vcpus[rows] + table.used_vcpus[rows]
        self.shares[1, rows] = used * self.per[1, rows]
        self.shares[2, rows] = table.used_load[rows] * self.per[2, rows]

    def whole(self) -> float:
        """How uneven the hosts are now, and what is crowded: what placements add to."""
        shares = self.shares
        mean = (shares @ self.counted) / self.number
        var = ((shares - mean[:, None]) ** 2 @ self.counted) / self.number
        crowd = np.maximum(shares[2] - self.table.policy.load_share, 0.0) @ self.counted
        weights = self.table.policy.weights
        return float(np.sqrt(var) @ self.weights[:, 0] + weights.crowd * crowd)

    def even(self, guests: Sequence[int]) -> tuple[Floats, Floats]:
        """What each host would make worse: the three parts of evenness, and the crowd."""
        table, shares = self.table, self.shares
        if len(guests) == 1:
            row = guests[0]
            amounts = (table.memory[row], table.vcpus[row], table.load[row])
        else:
            rows = list(guests)
            amounts = (table.memory[rows].sum(), table.vcpus[rows].sum(), table.load[rows].sum())
        added = self.per * np.array(amounts, dtype=np.float64)[:, None]
        total = shares @ self.counted
        squares = (shares * shares) @ self.counted
        n = self.number
        now = np.sqrt(np.maximum(squares / n - (total / n) ** 2, 0.0))
        mean = (total[:, None] + added) / n
        after = (squares[:, None] + added * (2.0 * shares + added)) / n - mean * mean
        parts = np.sqrt(np.maximum(after, 0.0))
        parts -= now[:, None]
        parts *= self.weights
        limit = table.policy.load_share
        load = shares[2]
        crowd = np.maximum(load + added[2] - limit, 0.0) - np.maximum(load - limit, 0.0)
        return parts, crowd * table.policy.weights.crowd

    def wishes(self, guest: int) -> Floats | None:
        """What soft rules and preferred hosts say; None: nothing."""
        table = self.table
        found: Floats | None = self._preferred(int(table.kind[guest]))
        for number in table.groups_of[guest]:
            group = table.groups[number]
            if not group.hard:
                part = self._wish(group, guest)
                found = part if found is None else found + part
        return found

    def _preferred(self, kind: int) -> Floats | None:
        if kind not in self._ranks:
            ranks = ranked(self.table.hosts, self.table.needs[kind])
            self._ranks[kind] = (
                None if ranks is None else np.array(ranks) * self.table.policy.weights.preferred
            )
        return self._ranks[kind]

    def _wish(self, group: Group, guest: int) -> Floats:
        """Its weight for each that a host would put it beside, or that it would be away from."""
        table = self.table
        domain = table.domain(group.over)
        named = len(table.domain_names(group.over))
        if group.kind == "spread":
            counts = table.counts(group, guest)
            relevant = table.spread_over(group.over)
            lowest = int(counts[relevant].min()) if len(relevant) else 0
            excess: Floats = np.full(len(domain), 1.0)
            inside: Bools = domain < named
            excess[inside] = np.maximum(counts[domain[inside]] + 1 - lowest - group.max_skew, 0)
            return excess * group.weight
        there = np.zeros(len(domain))
        others = 0
        for row in group.members:
            if row != guest and table.at[row] >= 0:
                others += 1
                there += domain == domain[table.at[row]]
        return group.weight * (there if group.kind == "apart" else others - there)


def ranked(hosts: Sequence[Host], needs: Needs) -> list[float] | None:
    """How many better classes of preferred hosts there are than each host's own."""
    if not needs.preferred:
        return None
    priority = dict(needs.preferred)
    order = sorted(set(priority.values()), reverse=True)
    return [
        float(order.index(priority[host.name]) if host.name in priority else len(order))
        for host in hosts
    ]
