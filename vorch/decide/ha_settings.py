"""What a person sets of high availability: VMs that are looked after, and the policy. Pure.

A setting is a document, so a plan here is the writing of it. Whoever watches finds it with its next
look.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from vorch.availability import Availability, HaPolicy, HaVm, NodeChoice, Requested
from vorch.decide import racks
from vorch.decide.records import save
from vorch.errors import Conflict, Invalid, NotFound
from vorch.model import Cluster
from vorch.plan import Plan, Save

POLICY = "policy/ha"


@dataclass(frozen=True, slots=True, kw_only=True)
class HaChanges:
    """What is to be different of how a VM is looked after. None: as it is."""

    requested: Requested | None = None
    nodes: tuple[NodeChoice, ...] | None = None
    restricted: bool | None = None
    failback: bool | None = None
    max_restart: int | None = None
    max_relocate: int | None = None
    start_order: int | None = None
    start_delay_s: float | None = None
    moves: Literal["live", "cold"] | None = None
    stop_timeout_s: float | None = None
    isolation: Literal["leave", "fence"] | None = None
    isolation_after_s: float | None = None
    guest_shutdown: Literal["asked-for", "restart"] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyChanges:
    shutdown: Literal["conditional", "freeze", "failover", "migrate"] | None = None
    silent_share: float | None = None
    spare: Literal["keep", "warn", "ignore"] | None = None
    spare_hosts: int | None = None
    spare_over: str | None = None
    balance_on_start: bool | None = None


def versions(ha: Availability, *keys: str) -> dict[str, int]:
    """The versions of documents that a decision rests on; 0 for one that must not be there."""
    return {key: ha.versions.get(key, 0) for key in keys}


def looked_after(ha: Availability, name: str, verb: str) -> HaVm:
    if name in ha.vms:
        return ha.vms[name]
    raise NotFound(
        f"cannot {verb} VM {name!r}: it is not looked after; `vorch ha set {name}` changes that",
        vm=name,
    )


def ha_set(cluster: Cluster, ha: Availability, name: str, changes: HaChanges) -> Plan:
    """From now on the VM is looked after, in this way."""
    vm = cluster.vm(name)
    before = ha.vms.get(name)
    wanted = _given(changes)
    # To take the hosts away is to lift the restriction to them.
    if wanted.get("nodes") == () and changes.restricted is None:
        wanted["restricted"] = False
    after = dataclasses.replace(before or HaVm(vm=name), **wanted)
    for choice in after.nodes:
        cluster.node(choice.node)
    key = f"ha/{name}"
    plan = Plan(
        verb="ha set",
        subject=name,
        why="it is so already",
        claims=(key,),
        reads={key: ha.versions.get(key, 0), f"vm/{name}": cluster.versions.get(f"vm/{name}", 0)},
    )
    if after == before:
        return plan
    why = f"it is to be {after.requested.value}"
    if before is None:
        why = f"it is looked after from now on; {why}"
    far = sorted(
        disk.name
        for disk in vm.disks
        if disk.volume is not None and not cluster.pool(disk.volume.pool).shared
    )
    if far:
        why += f"; disk {', '.join(map(repr, far))} is on {vm.node} alone, so it starts there only"
    return dataclasses.replace(plan, why=why, steps=(save("ha", name, before, after),))


def ha_remove(cluster: Cluster, ha: Availability, name: str) -> Plan:
    """It is not looked after any more, and stays as it is. Its rules go on holding."""
    cluster.vm(name)
    before = looked_after(ha, name, "stop looking after")
    steps = [save("ha", name, before, None)]
    keys = [f"ha/{name}"]
    if name in ha.moves:
        steps.append(save("move", name, ha.moves[name], None))
        keys.append(f"move/{name}")
    return Plan(
        verb="ha remove",
        subject=name,
        why="it stays as it is, and nobody looks after it any more",
        steps=tuple(steps),
        claims=tuple(keys),
        reads=versions(ha, *keys),
    )


# ---------------------------------------------------------------------------------------------
# The policy of the cluster


def ha_policy(cluster: Cluster, ha: Availability, changes: PolicyChanges) -> Plan:
    """`spare_over`: "" takes it away."""
    key = changes.spare_over
    if key and not racks.domains(cluster.nodes.values(), key):
        raise Invalid(
            f"cannot keep room for the loss of each {key!r}: no host has a tag '{key}:…'; say of"
            f" each where it stands (vorch node change NODE --tag {key}:NAME)"
        )
    after = dataclasses.replace(ha.policy, **_given(changes))
    return _save_policy("ha policy", ha, after, f"from now on: {policy_words(after)}")


SPARE_WORDS = {
    "keep": "what would take the room away that VMs need when {lost} lost, is refused",
    "warn": "what takes the room away that VMs need when {lost} lost, is said",
    "ignore": "nobody looks whether VMs have room when a host is lost",
}


def spare_words(policy: HaPolicy) -> str:
    lost = "a host is" if policy.spare_hosts == 1 else f"any {policy.spare_hosts} hosts are"
    if policy.spare_over:
        hosts = "one host" if policy.spare_hosts == 1 else f"{policy.spare_hosts} hosts"
        lost = f"any {hosts} or any one {policy.spare_over} is"
    return SPARE_WORDS[policy.spare].format(lost=lost)


def policy_words(policy: HaPolicy) -> str:
    balance = "placed anew" if policy.balance_on_start else "left where they are"
    return (
        f"shutdown of hosts: {policy.shutdown}; vorch suspects itself when more than"
        f" {policy.silent_share:.0%} of the hosts go silent at once; VMs that are to be started"
        f" are {balance}; {spare_words(policy)}"
    )


def ha_disarm(
    ha: Availability, as_: Literal["freeze", "ignore"], *, for_s: float, now: float
) -> Plan:
    """Hands off for so long: nothing is fenced, nothing is started."""
    after = dataclasses.replace(ha.policy, disarmed_until=now + for_s, disarmed_as=as_)
    words = f"nothing is fenced and nothing is started for {for_s / 3600:g} h, or until"
    return _save_policy("ha disarm", ha, after, f"{words} `vorch ha arm`")


def ha_arm(ha: Availability) -> Plan:
    after = dataclasses.replace(ha.policy, disarmed_until=0.0, disarmed_as="freeze")
    return _save_policy("ha arm", ha, after, "hosts are watched and VMs are looked after again")


def _save_policy(verb: str, ha: Availability, after: HaPolicy, why: str) -> Plan:
    there = POLICY in ha.versions
    before = ha.policy if there else None
    same = after == ha.policy
    return Plan(
        verb=verb,
        subject="cluster",
        why=f"it is so already; {policy_words(after)}" if same else why,
        steps=() if same else (save("policy", "ha", before, after),),
        claims=(POLICY,),
        reads=versions(ha, POLICY),
    )


def _given(changes: HaChanges | PolicyChanges) -> dict[str, Any]:
    return {
        one.name: value
        for one in dataclasses.fields(changes)
        if (value := getattr(changes, one.name)) is not None
    }


def without_node(ha: Availability, name: str) -> list[Save]:
    """The settings that name a host which is let go, without it."""
    steps = []
    for _, settings in sorted(ha.vms.items()):
        rest = tuple(choice for choice in settings.nodes if choice.node != name)
        if rest == settings.nodes:
            continue
        if settings.restricted and not rest:
            raise Conflict(
                f"cannot remove host {name!r}: VM {settings.vm!r} may be on no other; let it be on"
                f" others first (vorch ha set {settings.vm} --no-restricted)",
                node=name,
                vm=settings.vm,
            )
        after = dataclasses.replace(settings, nodes=rest)
        steps.append(save("ha", settings.vm, settings, after))
    return steps
