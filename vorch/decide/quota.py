"""Whether a plan leaves a user within its quota, whichever verb made the plan."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from vorch.decide.records import written
from vorch.errors import Denied
from vorch.model import GIB, Vm
from vorch.plan import Plan
from vorch.rights import Principal


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """What VMs take together, in the units of a quota."""

    vms: int = 0
    vcpus: int = 0
    memory_mib: int = 0
    disk_gib: int = 0

    def __add__(self, other: Use) -> Use:
        return Use(**{part: getattr(self, part) + getattr(other, part) for part in PARTS})


PARTS = {"vms": "VMs", "vcpus": "vCPUs", "memory_mib": "MiB of memory", "disk_gib": "GiB of disks"}


def use_of(vm: Vm) -> Use:
    size = sum(disk.size_bytes for disk in vm.data_disks)
    return Use(vms=1, vcpus=vm.vcpus, memory_mib=vm.memory_mib, disk_gib=-(-size // GIB))


def in_use(principal: Principal, vms: Mapping[str, Vm], under_way: Iterable[Plan]) -> Use:
    """What the VMs in its scopes take, and what they will when all plans under way are done.

    Of a VM that is being changed, what is more counts, part by part.
    """
    found = {name: use_of(vm) for name, vm in vms.items() if principal.has(vm.tags)}
    for plan in under_way:
        for name, vm in written(plan, "vm", Vm).items():
            if vm is not None and principal.has(vm.tags):
                now, then = found.get(name, Use()), use_of(vm)
                found[name] = Use(
                    **{part: max(getattr(now, part), getattr(then, part)) for part in PARTS}
                )
    return sum(found.values(), Use())


def check(
    principal: Principal, plan: Plan, vms: Mapping[str, Vm], under_way: Iterable[Plan]
) -> bool:
    """Whether the plan takes more than there is now; refused if that is more than the quota.

    What is over the quota already may stay, and may become less.
    """
    after = written(plan, "vm", Vm)
    # A VM under its new name is no more than it was under the old one.
    now = sum((use_of(vms[name]) for name in after if name in vms), Use())
    then = sum((use_of(vm) for vm in after.values() if vm is not None), Use())
    grown = {part: getattr(then, part) - getattr(now, part) for part in PARTS}
    if all(more <= 0 for more in grown.values()):
        return False
    used = in_use(principal, vms, under_way)
    for part, words in PARTS.items():
        limit, more = getattr(principal.quota, part), grown[part]
        if limit is not None and more > 0 and getattr(used, part) + more > limit:
            raise Denied(
                f"cannot {plan.verb} {plan.subject!r}: that takes {more} {words} more, and"
                f" {getattr(used, part)} of the {limit} that user {principal.name!r} may have are"
                " in use; delete something, or ask an admin for more",
                quota=part,
                limit=limit,
                used=getattr(used, part),
                asked=more,
            )
    return True


def with_turns(plan: Plan, turns: Mapping[str, int]) -> Plan:
    return dataclasses.replace(plan, turns={**plan.turns, **turns})
