"""One VM that a person places: its hosts in order, and which would take away what is kept spare.

Room is kept only where there is some to keep: in a cluster of which some host could not be lost
anyway nothing is refused for that.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from vorch.availability import Availability
from vorch.decide.records import is_on
from vorch.decide.room.live import POLICY, fleet_of, judged
from vorch.decide.room.pick import Picker
from vorch.decide.room.table import Table
from vorch.decide.room.wide import failing, spare_of
from vorch.model import Cluster, Vm


def waiting(
    cluster: Cluster,
    vm: Vm,
    names: Sequence[str],
    leaning: Mapping[str, int],
    overhead_mib: int,
) -> list[str]:
    """Hosts for a VM that is off, the best first, as if all that is off were on.

    What rules and settings prefer, then whether there would be room, then the score and the name.
    """
    fleet = fleet_of(cluster, overhead_mib=overhead_mib, more=[vm], off=True)
    table = Table(dataclasses.replace(fleet, policy=dataclasses.replace(POLICY, spare="ignore")))
    row = table.guest(vm.name)
    picker = Picker(table)
    fit, total = picker.fitting([row]), picker.total([row])

    def rank(name: str) -> tuple[int, bool, float, str]:
        host = table.host(name)
        return leaning.get(name, 0), not fit[host], float(total[host]), name

    return sorted(names, key=rank)


class Asked:
    """One look, in which the VM is nowhere yet."""

    def __init__(self, cluster: Cluster, ha: Availability, vm: Vm, overhead_mib: int) -> None:
        domain = cluster.domain(vm)
        runs = domain is not None and is_on(domain.power) and domain.node in cluster.nodes
        policy = judged(ha.policy)
        table = Table(fleet_of(cluster, ha, overhead_mib=overhead_mib, more=[vm], policy=policy))
        self.row = table.guest(vm.name)
        self.table = table
        if runs and domain is not None:
            # As it is now, so that what the move itself changes can be told.
            table.move(self.row, table.host(domain.node))
        self.spare = spare_of(table, first=True)
        self.kept = not failing(self.spare)
        self.picker = Picker(table, self.spare)
        if runs:
            self.picker.remove(self.row)

    def ordered(self, names: Sequence[str], leaning: Mapping[str, int]) -> list[str]:
        """The best first: what rules and settings prefer, then the score, then the name."""
        total = self.picker.total([self.row])
        return sorted(
            names,
            key=lambda name: (
                leaning.get(name, 0),
                float(total[self.table.host(name)]),
                name,
            ),
        )

    def spoils(self, names: Sequence[str]) -> dict[str, str]:
        """Which of these hosts are not to have it, and why, up to the first that may.

        None, where the cluster could not lose each of its hosts before.
        """
        found: dict[str, str] = {}
        if not self.kept:
            return found
        for name in names:
            change, why = self.spare.admits([self.row], self.table.host(name))
            if change is not None:
                break
            found[name] = why
        return found
