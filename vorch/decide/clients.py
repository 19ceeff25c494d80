"""Which clients write the disks of a VM: what is recorded of it, and what is lacking. Pure.

The record is written in the commit that also says that the VM runs there, so that no death of vorch
parts the two. It lacks what the storage did not say at that moment, and that can be told.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence

from vorch.decide.records import is_on, reads, save
from vorch.model import Clients, Cluster, Domain, Holder, Vm
from vorch.plan import Plan, Save, SeeClients


def only_client(found: Sequence[Holder] | None, left: Collection[str] = ()) -> str | None:
    """The address of the one client that has a disk open; None when that is not certain.

    "" where the storage knows no clients. `left` are those that the VM had before.
    """
    if found is None:
        return ""
    # Of one without a number only the lock is left.
    there = {one.address for one in found if one.client is not None} - set(left)
    return there.pop() if len(there) == 1 else None


def save_clients(cluster: Cluster, vm: Vm) -> Save:
    """What the step before it has seen of a VM that has just come to run on its node."""
    before = cluster.clients.get(vm.id)
    seen = Clients(vm=vm.id, node=vm.node)
    return save("clients", vm.id, before, seen, {"disks": "clients", "run": "run"})


def drop_clients(cluster: Cluster, vm: Vm) -> tuple[Save, ...]:
    """The VM is off."""
    before = cluster.clients.get(vm.id)
    return () if before is None else (save("clients", vm.id, before, None),)


def drop_client(cluster: Cluster, vm: Vm, disk: str) -> tuple[Save, ...]:
    """A disk goes, and when it is put back that is another client's: nobody knows it then."""
    recorded = cluster.clients.get(vm.id)
    if recorded is None or disk not in recorded.disks:
        return ()
    rest = {name: client for name, client in recorded.disks.items() if name != disk}
    without = dataclasses.replace(recorded, disks=rest)
    return (save("clients", vm.id, without, without),)


def left_behind(cluster: Cluster, vm: Vm) -> tuple[str, ...]:
    recorded = cluster.clients.get(vm.id)
    return () if recorded is None else tuple(sorted(filter(None, recorded.disks.values())))


def lacking(cluster: Cluster, vm: Vm) -> str:
    """Why a storage fence would not know a VM that runs; "" when it would, or has not to."""
    domain = cluster.domain(vm)
    if domain is None or not is_on(domain.power):
        return ""
    recorded = cluster.clients.get(vm.id)
    if (
        recorded is not None
        and recorded.node == domain.node
        and domain.run in (0, recorded.run)
        and _all_known(vm, recorded)
    ):
        return ""
    shared = [
        disk.name
        for disk in vm.written_disks
        if disk.volume is not None
        and disk.volume.pool in cluster.pools
        and cluster.pool(disk.volume.pool).shared
    ]
    if not shared:
        return ""
    if recorded is None:
        return "the clients that write its disks are not recorded"
    if recorded.node != domain.node:
        return f"the clients that are recorded for it are of {recorded.node!r}"
    if domain.run not in (0, recorded.run):
        return "its guest has rebooted since the clients that write its disks were recorded"
    missing = [name for name in shared if name not in recorded.disks]
    return f"the client of disk {missing[0]!r} is not recorded" if missing else ""


def _all_known(vm: Vm, recorded: Clients) -> bool:
    # Asked of every VM in every round, where a generator costs more than it looks through.
    for disk in vm.disks:  # noqa: SIM110
        if disk.name not in recorded.disks:
            return False
    return True


def record(cluster: Cluster, vm: Vm) -> Plan:
    """See to it that what is lacking is recorded, from what the storage shows now."""
    why, key = lacking(cluster, vm), f"vm/{vm.name}"
    here = dataclasses.replace(vm, node=_domain(cluster, vm).node) if why else vm
    return Plan(
        verb="clients record",
        subject=vm.name,
        why=why or "nothing is lacking",
        steps=(SeeClients(vm=here), save_clients(cluster, here)) if why else (),
        claims=(key,),
        reads=reads(cluster, key, f"clients/{vm.id}"),
    )


def _domain(cluster: Cluster, vm: Vm) -> Domain:
    return cluster.domains[vm.id]
