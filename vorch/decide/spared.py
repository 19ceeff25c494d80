"""Whether a plan ends that VMs have room when a host is lost, by what it writes. Pure.

For verbs that place nothing and yet take room away: a VM that is looked after from now on or may
grow, a rule, a host that is closed, changed or let go. What is placed is judged in `place`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TypeVar

from vorch.availability import Availability, HaVm, Rule
from vorch.decide.place import SPARE_HINT, Keeping
from vorch.decide.records import written
from vorch.errors import NoRoom
from vorch.model import Cluster, Node, Vm
from vorch.plan import Plan

T = TypeVar("T")

# Names that are given where there are more.
TOLD = 3
# What whoever watches says of it.
HELD = "VMs that are looked after have room elsewhere when what the policy names is lost"
GONE = "VMs that are looked after have no room when what the policy names is lost (vorch capacity)"


def said(plan: Plan, cluster: Cluster, ha: Availability, overhead_mib: int) -> Plan:
    """The same plan, which says so when that room is gone by it. It is done all the same."""
    why = ended(plan, cluster, ha, overhead_mib)
    if not why:
        return plan
    return dataclasses.replace(
        plan, why=f"{plan.why}; the room for the loss of a host is gone by that: {why}"
    )


def held(
    plan: Plan, cluster: Cluster, ha: Availability, overhead_mib: int, what: str, *, force: bool
) -> Plan:
    """Refused when that room is gone by it, where the policy keeps it; else it is said."""
    if force or ha.policy.spare != "keep":
        return said(plan, cluster, ha, overhead_mib)
    why = ended(plan, cluster, ha, overhead_mib)
    if why:
        raise NoRoom(
            f"cannot {what}: the room for the loss of a host would be gone by"
            f" that: {why}; {SPARE_HINT}",
            subject=plan.subject,
        )
    return plan


def ended(plan: Plan, cluster: Cluster, ha: Availability, overhead_mib: int) -> str:
    """Who could be lost before the plan and not after it; "" when that is nobody."""
    then, ha_then = _after(plan, cluster, ha)
    if (then, ha_then) == (cluster, ha) or not Keeping(ha=ha_then).concerns(cluster):
        return ""
    before = failures(cluster, ha, overhead_mib)
    if before:
        return ""
    lost = sorted(failures(then, ha_then, overhead_mib))
    if not lost:
        return ""
    more = f" and {len(lost) - TOLD} more" if len(lost) > TOLD else ""
    return f"{', '.join(lost[:TOLD])}{more} could not be lost any more"


def failures(cluster: Cluster, ha: Availability, overhead_mib: int) -> Mapping[str, object]:
    """Whose loss is not survived, of what the policy names: some, where there are any."""
    from vorch.decide.room import quick
    from vorch.decide.room.live import fleet_of, judged
    from vorch.decide.room.table import Table
    from vorch.decide.room.wide import failing, spare_of

    fleet = fleet_of(cluster, ha, overhead_mib=overhead_mib, policy=judged(ha.policy))
    if quick.survives(fleet):
        return {}
    return failing(spare_of(Table(fleet), first=True))


def standing(cluster: Cluster, ha: Availability, overhead_mib: int) -> str:
    """What whoever watches says of it; "" where there is nothing to be kept."""
    if not Keeping(ha=ha).concerns(cluster):
        return ""
    return GONE if failures(cluster, ha, overhead_mib) else HELD


def rests_on(cluster: Cluster, ha: Availability) -> object:
    """All that `standing` looks at: where this is equal, the answer is.

    Of what is seen of a VM it counts where it runs and what it takes, of records their states:
    since when something is so, and the words for it, change much more often.
    """
    return (
        cluster.vms,
        cluster.nodes,
        cluster.pools,
        cluster.silent,
        cluster.lacks,
        [
            (one.id, one.node, one.power, one.memory_mib, one.vcpus)
            for one in cluster.domains.values()
        ],
        (ha.policy, ha.vms, ha.rules, ha.orders, ha.busy),
        {name: record.state for name, record in ha.node_records.items()},
        {name: record.state for name, record in ha.vm_records.items()},
    )


def _after(plan: Plan, cluster: Cluster, ha: Availability) -> tuple[Cluster, Availability]:
    """Both as they are when the plan has written what it writes."""
    vms = _as_written(cluster.vms, written(plan, "vm", Vm))
    nodes = _as_written(cluster.nodes, written(plan, "node", Node))
    settings = _as_written(ha.vms, written(plan, "ha", HaVm))
    rules = _as_written(ha.rules, written(plan, "rule", Rule))
    return (
        dataclasses.replace(cluster, vms=vms, nodes=nodes),
        dataclasses.replace(ha, vms=settings, rules=rules),
    )


def _as_written(before: Mapping[str, T], new: Mapping[str, T | None]) -> dict[str, T]:
    return {name: one for name, one in {**before, **new}.items() if one is not None}
