"""What would make room for a VM, where a verb has found none."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from vorch.decide.records import networks_for
from vorch.errors import NoRoom, VorchError
from vorch.model import Cluster, Vm
from vorch.orchestrator import kept
from vorch.ports import State

if TYPE_CHECKING:
    from vorch.orchestrator.core import Core


def busy_vms(state: State) -> frozenset[str]:
    """VMs that a plan is at, whoever runs it."""
    return frozenset(
        key.removeprefix("vm/")
        for plan in kept.plans(state)
        for key in plan.claims
        if key.startswith("vm/")
    )


def with_way(core: Core, error: NoRoom, name: str, node: str | None, *, away: bool) -> NoRoom:
    """The same error with the fewest moves that would help, where there are some.

    `node`: the only host that counts. `away`: where the VM is now does not.
    """
    return with_way_for(core, error, lambda cluster: cluster.vm(name), node, away=away)


def with_way_for(
    core: Core,
    error: NoRoom,
    made: Callable[[Cluster], Vm],
    node: str | None,
    *,
    away: bool = False,
) -> NoRoom:
    """The same for a VM that is only to be: `made` says what it would be."""
    # Whatever is wrong with the hint: the error is what counts.
    with suppress(VorchError):
        from vorch.decide.emptying import room_for, words

        cluster = core.look(None)
        vm = made(cluster)
        hosts = [node] if node is not None else [*cluster.nodes]
        ha = kept.availability(core.world.state)
        cluster = core._connected(cluster, hosts, networks_for(cluster, vm))
        moves = room_for(
            cluster,
            ha,
            vm,
            overhead_mib=core.settings.vm_overhead_mib,
            hosts=[one for one in hosts if not away or one != vm.node],
            busy=busy_vms(core.world.state),
        )
        if moves:
            told = [[move.guest, move.source, move.target] for move in moves]
            fields = {**error.fields, "moves": told}
            return NoRoom(f"{error.message}; {words(moves)}", **fields)
    return error
