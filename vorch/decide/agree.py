"""What a verb means for what is looked after: a plan with the documents that say so. Pure.

Whoever watches acts on those documents alone. So what a person does by hand is written into them in
the commit that writes the VM itself; else a VM that was stopped would be started again at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from vorch.availability import Availability, HostOrder, Requested, VmState
from vorch.decide import ha_settings, rule_settings
from vorch.decide.ha_settings import versions
from vorch.decide.records import save
from vorch.errors import Conflict
from vorch.plan import Plan, Save


def _with(plan: Plan, ha: Availability, keys: Iterable[str], saves: list[Save], why: str) -> Plan:
    """Written in the commit that writes the VM or host itself, or else with the plan's end."""
    known = dict.fromkeys([*keys, *(one.key for one in saves)])
    place = max(
        (
            number + 1
            for number, step in enumerate(plan.steps)
            if isinstance(step, Save) and step.key.startswith(("vm/", "node/"))
        ),
        default=len(plan.steps),
    )
    return dataclasses.replace(
        plan,
        why=f"{plan.why}; {why}" if why else plan.why,
        steps=(*plan.steps[:place], *saves, *plan.steps[place:]),
        claims=(*plan.claims, *dict.fromkeys(one.key for one in saves)),
        reads={**plan.reads, **versions(ha, *known)},
    )


def stopped(plan: Plan, ha: Availability, name: str) -> Plan:
    """A person wants it off: nobody starts it again."""
    settings = ha.vms.get(name)
    saves, why = [], ""
    if settings is not None and settings.requested is Requested.STARTED:
        after = dataclasses.replace(settings, requested=Requested.STOPPED)
        saves.append(save("ha", name, settings, after))
        why = "it stays off until somebody starts it"
    return _with(plan, ha, [f"ha/{name}"], saves, why)


def started(plan: Plan, ha: Availability, name: str) -> Plan:
    """A person wants it to run: it is looked after again, and what went wrong before is over."""
    settings, record = ha.vms.get(name), ha.vm_records.get(name)
    saves, why = [], ""
    if settings is not None and settings.requested in (Requested.STOPPED, Requested.DISABLED):
        after = dataclasses.replace(settings, requested=Requested.STARTED)
        saves.append(save("ha", name, settings, after))
        why = "it is looked after again"
    if settings is not None and record is not None and record.state is VmState.ERROR:
        saves.append(save("havm", name, record, None))
        why = "its error is cleared"
    plan = _without_move(plan, ha, name)
    return _with(plan, ha, [f"ha/{name}"], saves, why)


def moved(plan: Plan, ha: Availability, name: str) -> Plan:
    """A wish of before, to have it somewhere else, is over."""
    return _without_move(plan, ha, name) if plan.steps else plan


def _without_move(plan: Plan, ha: Availability, name: str) -> Plan:
    order = ha.moves.get(name)
    saves = [] if order is None else [save("move", name, order, None)]
    return _with(plan, ha, [f"move/{name}"], saves, "")


def gone(plan: Plan, ha: Availability, name: str) -> Plan:
    """It is no more: nothing of it is left to be looked after, and rules go on without it."""
    saves = [
        save(kind, name, found[name], None)
        for kind, found in (("ha", ha.vms), ("havm", ha.vm_records), ("move", ha.moves))
        if name in found
    ]
    rules = rule_settings.without_vm(ha, name)
    words = []
    if name in ha.vms:
        words.append("nobody looks after it any more")
    for one in rules:
        what = "is gone with it" if one.after is None else "goes on without it"
        words.append(f"rule {one.key.partition('/')[2]!r} {what}")
    return _with(plan, ha, [f"ha/{name}"], [*saves, *rules], "; ".join(words))


def renamed(plan: Plan, ha: Availability, name: str, new: str) -> Plan:
    """All that was set for it holds under its new name."""
    saves: list[Save] = []
    for kind, found in (("ha", ha.vms), ("havm", ha.vm_records), ("move", ha.moves)):
        if name in found:
            before = found[name]
            after = dataclasses.replace(before, vm=new)
            saves += [save(kind, name, before, None), save(kind, new, None, after)]
    saves += rule_settings.renamed_vm(ha, name, new)
    return _with(plan, ha, [f"ha/{name}", f"ha/{new}"], saves, "")


# ---------------------------------------------------------------------------------------------
# Hosts


def emptied(plan: Plan, ha: Availability, name: str, on: bool) -> Plan:
    """A maintenance by hand is one for whoever watches, too: both move the same VMs away."""
    before = ha.orders.get(name)
    after: HostOrder | None
    if on:
        after = dataclasses.replace(before or HostOrder(node=name), maintenance=True)
    elif before is not None and before.leaving:
        after = dataclasses.replace(before, maintenance=False)
    else:
        after = None
    saves = [] if after == before else [save("order", name, before, after)]
    return _with(plan, ha, [f"order/{name}"], saves, "")


def need_no_maintenance(ha: Availability, name: str) -> None:
    """Who lifts a cordon means VMs to start there; a maintenance would drive them away again."""
    order = ha.orders.get(name)
    if order is not None and order.maintenance:
        raise Conflict(
            f"cannot uncordon host {name!r}: it is in maintenance; end that (vorch node maintenance"
            f" {name} off)",
            node=name,
        )


def let_go(plan: Plan, ha: Availability, name: str, *, force: bool) -> Plan:
    """A host that is no more is in no list. One that is cut off would stay so, and nobody knew."""
    record = ha.node_records.get(name)
    if record is not None and record.begun and not force:
        raise Conflict(
            f"cannot remove host {name!r}: it is cut off from its disks, and its addresses would"
            f" stay so, whoever has them next; take it back first (vorch node unfence {name}), or"
            " let it go all the same (--force)",
            node=name,
        )
    saves = [
        save(kind, name, found[name], None)
        for kind, found in (("hanode", ha.node_records), ("order", ha.orders))
        if name in found
    ]
    for vm, order in sorted(ha.moves.items()):
        if order.target == name:
            saves.append(save("move", vm, order, None))
    saves += [*ha_settings.without_node(ha, name), *rule_settings.without_node(ha, name)]
    return _with(plan, ha, [f"hanode/{name}", f"order/{name}"], saves, "")
