"""How fast those guests write to their memory that a plan would move: measured, and kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from vorch.codec import decode, encode
from vorch.decide.records import is_on
from vorch.decide.room import writes
from vorch.decide.room.writes import Writes
from vorch.errors import VorchError
from vorch.model import Cluster, Power
from vorch.ports import Change, State, World

if TYPE_CHECKING:
    from vorch.decide.room.balance import BalancePlan

WRITES = "writes/vms"
MEASURED_FOR_S = 1


def measured_before(state: State, now: float) -> dict[str, float]:
    document = state.get(WRITES)
    return writes.known(None if document is None else decode(Writes, document.body), now)


def planned(
    world: World,
    cluster: Cluster,
    plan: Callable[[Mapping[str, float]], BalancePlan],
    *,
    measure: bool,
) -> BalancePlan:
    """The plan, made anew with what its own candidates write, until nothing more is to be known."""
    rates = measured_before(world.state, world.clock.now())
    found = plan(rates)
    for _ in range(writes.TIMES if measure else 0):
        wanted = writes.to_measure(((one.guest, one.source) for one in found.moves), rates)
        new = _measured(world, cluster, wanted)
        if not new:
            break
        rates |= new
        _keep(world, new)
        found = plan(rates)
    return found


def _measured(
    world: World, cluster: Cluster, wanted: Mapping[str, tuple[str, ...]]
) -> dict[str, float]:
    """Hosts side by side, and of each host one guest after the other."""

    def of_host(name: str) -> dict[str, float]:
        found = {}
        for guest in wanted[name]:
            vm = cluster.vms[guest]
            power = cluster.power(vm)
            if power is Power.PAUSED or not is_on(power):
                continue
            try:
                host = world.hypervisor(name)
                found[guest] = host.write_rate_mib_s(vm.id, MEASURED_FOR_S)
            except VorchError:
                # It is priced as one of which nothing is known.
                continue
        return found

    return {
        guest: value
        for found in world.each(of_host, list(wanted))
        for guest, value in found.items()
    }


def _keep(world: World, found: Mapping[str, float]) -> None:
    """For whoever plans next. Two that write it at once lose a measurement, and nothing else."""
    document = world.state.get(WRITES)
    before = None if document is None else decode(Writes, document.body)
    after = writes.with_new(before, found, world.clock.now())
    world.state.commit([Change(WRITES, None, encode(after))])
