"""Whether whoever watches may even hosts out now. Pure.

Only where all is well: a cluster that is about to lose a host, or has just got one back, has other
things to do, and moves would be in the way of them.
"""

from __future__ import annotations

from vorch.availability import Availability, NodeState, Sign, VmState
from vorch.model import Cluster

# Something is being done about a VM, or its host is not known to be well.
_UNSETTLED = (
    VmState.STARTING,
    VmState.STOPPING,
    VmState.UNKNOWN,
    VmState.AWAITING_FENCE,
    VmState.RECOVERING,
)


def trouble(cluster: Cluster, ha: Availability, now: float) -> str:
    """Why this is no time for it; "" when it is one."""
    if ha.policy.disarmed_until > now:
        return "high availability is disarmed"
    for name in sorted(cluster.nodes):
        record = ha.node_records.get(name)
        if name in cluster.silent:
            return f"{name} is silent"
        if record is None:
            return f"{name} was not looked at yet"
        if record.state is not NodeState.ONLINE:
            return f"{name} is {record.state.value}"
        if record.sign is not Sign.WELL:
            return f"{name} is not well: {record.sign.value}"
        order = ha.orders.get(name)
        if order is not None and (order.maintenance or order.leaving):
            return f"{name} is to be {'emptied' if order.maintenance else 'let down'}"
    if ha.moves:
        return f"{min(ha.moves)} is to be moved"
    for name in sorted(ha.vms):
        found = ha.vm_records.get(name)
        if found is not None and found.state in _UNSETTLED:
            return f"{name} is {found.state.value}"
    return ""
