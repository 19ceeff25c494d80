"""Sets of VMs that move: several at once, within the limits of hosts and links."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from contextvars import copy_context

from vorch.availability import Availability
from vorch.decide import convoy, move
from vorch.decide.convoy import Limits, Trip
from vorch.decide.records import is_on
from vorch.errors import VorchError
from vorch.model import Cluster
from vorch.orchestrator import kept
from vorch.orchestrator.core import Done
from vorch.orchestrator.moves import Moves
from vorch.plan import MigrateDomain

# How often it is looked whether what others move leaves room.
LOOK_AGAIN_S = 0.5
# Who watches moves VMs that are looked after as well: that is waited for so long, not refused.
WATCHER_MOVES_S = 300.0
# However wide the limits are.
MOST_AT_ONCE = 32

_Go = Callable[[Trip], None]
_Trips = Collection[Trip]


class _Crew:
    """Who is on the way, as the threads themselves say.

    Ctrl-C may fall between a thread's start and the pool's noting of it: such a one is in no future
    and is not waited for by the pool, and would move its VM long after the command has ended.
    """

    def __init__(self, go: _Go) -> None:
        self._go = go
        self._lock = threading.Lock()
        self._out: set[Trip] = set()
        self._over = False

    def go(self, trip: Trip) -> None:
        with self._lock:
            if self._over:
                return
            self._out.add(trip)
        try:
            self._go(trip)
        finally:
            with self._lock:
                self._out.discard(trip)

    def call_back(self) -> frozenset[Trip]:
        """Nobody sets out any more; those who are still out."""
        with self._lock:
            self._over = True
            return frozenset(self._out)


class Convoys(Moves):
    def _move_all(
        self,
        names: Sequence[str],
        goals: Mapping[str, str],
        *,
        away: bool,
        wait_s: float | None,
    ) -> tuple[list[Done], dict[str, str]]:
        """Live or cold, each by a task of its own; and those that could not go, with the reason.

        `goals`: the host of each VM that is to go to a certain one. Ctrl-C ends those under way and
        begins no more.
        """
        ha = kept.availability(self.world.state)
        trips, stayed = convoy.trips(
            self.look(None),
            names,
            lambda cluster, name: self._goal(cluster, ha, name, goals.get(name), away=away),
        )
        done: dict[str, Done] = {}

        def go(trip: Trip) -> None:
            try:
                watched = wait_s is None and trip.vm in ha.vms
                done[trip.vm] = self._move(
                    trip.vm,
                    trip.source,
                    trip.target,
                    away=away,
                    wait_s=WATCHER_MOVES_S if watched else wait_s,
                )
            except VorchError as exc:
                stayed[trip.vm] = exc.message

        self._convoy(trips, go)
        return [done[name] for name in names if name in done], stayed

    def _convoy(self, trips: Sequence[Trip], go: _Go) -> None:
        """All of them, as many at once as hosts and links may have, where threads are allowed."""
        if self.world.threads:
            self._side_by_side(trips, go)
        else:
            for trip in trips:
                go(trip)

    def _goal(
        self, cluster: Cluster, ha: Availability, name: str, node: str | None, *, away: bool
    ) -> str:
        vm = cluster.vm(name)
        cluster = self._ruled(cluster, ha, name, leaving=vm.node if away else "")
        if not is_on(cluster.power(vm)):
            return node or move.refuge(cluster, name, overhead_mib=self.settings.vm_overhead_mib)
        plan = move.migrate(
            cluster,
            name,
            node,
            overhead_mib=self.settings.vm_overhead_mib,
            pause_limit_ms=self.settings.migration_pause_limit_ms,
            bandwidth_mib_s=self.settings.migration_bandwidth_mib_s,
        )
        step = next((step for step in plan.steps if isinstance(step, MigrateDomain)), None)
        # Somebody moved it past vorch, which is only recorded.
        return step.target if step is not None else node or cluster.domains[vm.id].node

    def _side_by_side(self, trips: Sequence[Trip], go: _Go) -> None:
        limits = Limits(
            per_host=self.settings.migrations_per_host, per_link=self.settings.migrations_per_link
        )
        waiting, ours = list(trips), dict[Future[None], Trip]()
        crew = _Crew(go)
        with ThreadPoolExecutor(MOST_AT_ONCE, thread_name_prefix="vorch-convoy") as pool:
            try:
                while waiting or ours:
                    fit = convoy.ready(waiting, self._under_way(ours.values()), limits)
                    for trip in fit[: MOST_AT_ONCE - len(ours)]:
                        waiting.remove(trip)
                        ours[pool.submit(copy_context().run, crew.go, trip)] = trip
                    if not ours:
                        # Others move so much that nothing of this fits beside it.
                        self.world.clock.sleep(LOOK_AGAIN_S)
                    over, _ = wait(ours, LOOK_AGAIN_S, FIRST_COMPLETED)
                    for future in over:
                        del ours[future]
                        future.result()
            except BaseException:
                while left := crew.call_back():
                    self._end(left)
                    self.world.clock.sleep(LOOK_AGAIN_S)
                raise

    def _under_way(self, ours: _Trips) -> tuple[Trip, ...]:
        """What moves now, whichever process has it move. What it has just begun may not show."""
        mine = {trip.vm for trip in ours}
        return (
            *ours,
            *(trip for trip in convoy.at_work(kept.plans(self.world.state)) if trip.vm not in mine),
        )

    def _end(self, ours: _Trips) -> None:
        """Ask for the end of what this process moves. It may just not have begun, or have ended."""
        for trip in ours:
            held = self.executor.holder(f"vm/{trip.vm}")
            if held is not None and held[1].runner == self.world.processes.me():
                with suppress(VorchError):
                    self.executor.request_cancel(held[1].id)
