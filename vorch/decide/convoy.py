"""Several VMs that move at once: where each goes, and which may begin now. Pure."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from vorch.errors import VorchError
from vorch.model import Cluster
from vorch.plan import MigrateDomain, Plan


@dataclass(frozen=True, slots=True)
class Trip:
    vm: str
    source: str
    target: str

    @property
    def link(self) -> frozenset[str]:
        """The two hosts, whichever way it goes: the wire between them is one."""
        return frozenset((self.source, self.target))


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How many at the same time; 0: no limit."""

    per_host: int
    per_link: int


def trips(
    cluster: Cluster, names: Iterable[str], choose: Callable[[Cluster, str], str]
) -> tuple[tuple[Trip, ...], dict[str, str]]:
    """Where each goes when those before it have gone, and why the others stay.

    Were each looked at by itself, all would go to the host that is the emptiest now.
    """
    going: list[Trip] = []
    stay: dict[str, str] = {}
    for name in names:
        vm = cluster.vm(name)
        try:
            target = choose(cluster, name)
        except VorchError as exc:
            stay[name] = exc.message
            continue
        going.append(Trip(name, vm.node, target))
        domain = cluster.domain(vm)
        if domain is None:
            moved = {name: dataclasses.replace(vm, node=target)}
            cluster = dataclasses.replace(cluster, vms={**cluster.vms, **moved})
        else:
            gone = {vm.id: dataclasses.replace(domain, node=target)}
            cluster = dataclasses.replace(cluster, domains={**cluster.domains, **gone})
    return tuple(going), stay


def ready(waiting: Sequence[Trip], under_way: Iterable[Trip], limits: Limits) -> tuple[Trip, ...]:
    """Those that may begin now, in their order. One that must wait holds up none behind it."""
    hosts: Counter[str] = Counter()
    links: Counter[frozenset[str]] = Counter()

    def count(trip: Trip) -> None:
        hosts.update(trip.link)
        links[trip.link] += 1

    def fits(trip: Trip) -> bool:
        return all(not limits.per_host or hosts[host] < limits.per_host for host in trip.link) and (
            not limits.per_link or links[trip.link] < limits.per_link
        )

    for trip in under_way:
        count(trip)
    begin = []
    for trip in waiting:
        if fits(trip):
            count(trip)
            begin.append(trip)
    return tuple(begin)


def at_work(plans: Iterable[Plan]) -> tuple[Trip, ...]:
    """The live migrations among plans that somebody is at."""
    return tuple(
        Trip(step.vm.name, step.vm.node, step.target)
        for plan in plans
        for step in plan.steps
        if isinstance(step, MigrateDomain)
    )
