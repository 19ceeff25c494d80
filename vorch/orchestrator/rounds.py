"""Moves that build on each other: round after round, each decided when it is its turn."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from vorch.decide.convoy import Trip
from vorch.errors import VorchError
from vorch.model import Cluster, Vm
from vorch.orchestrator import kept
from vorch.orchestrator.convoys import WATCHER_MOVES_S, Convoys
from vorch.orchestrator.core import Done
from vorch.plan import Plan

# The engine stands on NumPy, which is loaded when it is first asked for something.
if TYPE_CHECKING:
    from vorch.decide.room.balance import Move


class Rounds(Convoys):
    def _carry_out(
        self,
        rounds: Sequence[Sequence[Move]],
        before: Mapping[str, Vm],
        wait_s: float | None,
        *,
        leaving: Collection[str] = (),
        keep: Callable[[], bool] = lambda: True,
    ) -> tuple[list[Done], dict[str, str]]:
        """Each round as a convoy. What is not right any more is skipped, and said.

        `leaving`: the hosts that are being emptied; whoever leaves them comes back after that.
        `keep` is asked before each move: False when it is somebody else's turn by now.
        """
        done: list[Done] = []
        skipped: dict[str, str] = {}
        watched = frozenset(kept.availability(self.world.state).vms) if wait_s is None else ()

        def go(step: Move) -> None:
            if not keep():
                skipped[step.guest] = "another process does this by now"
                return
            try:
                done.append(
                    self._do(
                        lambda cluster: self._turn(cluster, step, before, leaving),
                        dry_run=False,
                        wait_s=WATCHER_MOVES_S if step.guest in watched else wait_s,
                        hosts=lambda cluster: cluster.nodes,
                        about=(f"vm/{step.guest}",),
                        networks=self._networks_of(step.guest),
                    )
                )
            except VorchError as exc:
                skipped[step.guest] = exc.message

        for steps in rounds:
            by_vm = {step.guest: step for step in steps}

            def depart(trip: Trip, by_vm: Mapping[str, Move] = by_vm) -> None:
                go(by_vm[trip.vm])

            self._convoy([Trip(one.guest, one.source, one.target) for one in steps], depart)
        return done, skipped

    def _turn(
        self, cluster: Cluster, step: Move, before: Mapping[str, Vm], leaving: Collection[str]
    ) -> Plan:
        """The plan of one move, now that it is its turn."""
        from vorch.decide.balance import need_same, said

        ha = kept.availability(self.world.state)
        vm = need_same(cluster, ha, step, before)
        leaves = step.source in leaving
        seen = self._ruled(cluster, ha, vm.name, leaving=step.source if leaves else "")
        # One that is away from its home for the time of a maintenance goes back there after it.
        plan = self._migration(seen, vm.name, step.target, away=leaves or bool(vm.home))
        return said(plan, ha, step)
