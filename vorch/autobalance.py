"""What a leader does for evenness: it measures loads and, where that is set, moves VMs.

It is asked once a look. What it comes to are errands, which the watch carries out as all others; a
plan is made aside, so that no look has to wait for it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vorch.aside import at_once, begin
from vorch.availability import Availability
from vorch.codec import decode
from vorch.config import Settings
from vorch.decide import convoy
from vorch.decide.balance_auto import trouble
from vorch.decide.balance_settings import BalancePolicy, LastBalance, quiet_for
from vorch.decide.convoy import Trip
from vorch.decide.errands import Errand
from vorch.decide.room import loads
from vorch.decide.room.loads import Loads, Measured
from vorch.errors import VorchError
from vorch.model import Cluster, Task, Vm
from vorch.orchestrator import writing
from vorch.orchestrator.limits import limits_of
from vorch.orchestrator.turns import BALANCE, Turn, holder
from vorch.orchestrator.zones import offset_s
from vorch.ports import World

# The engine stands on NumPy, which is loaded when there is something to be planned.
if TYPE_CHECKING:
    from vorch.decide.room.balance import BalancePlan, Move

# Processors are looked at no more often than that: their means are over minutes.
LOOK_EVERY_S = 10.0
# A leader that begins knows nothing of loads before so long.
MEASURE_S = 60.0
# What is in the way is looked at again after that, if nothing else happens before.
AGAIN_S = 60.0
# A VM whose move has failed stays where it is for so long.
AFTER_FAILURE_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Turned:
    """What follows from a look."""

    sentence: str
    errands: tuple[Errand, ...] = ()
    # To be written before the errands are carried out.
    last: LastBalance | None = None
    due_at: float | None = None


@dataclass(slots=True)
class _Run:
    """A plan that is being carried out: what is left of it."""

    before: dict[str, Vm]
    rounds: list[list[Move]]
    planned: int
    why: str
    number: int = 0
    made: int = 0
    skipped: int = 0


class Autobalance:
    """Of one process that watches. Not for several threads at once."""

    def __init__(self, world: World, settings: Settings, *, wake: Callable[[], None]) -> None:
        self._world = world
        self._settings = settings
        self._limits = limits_of(settings)
        self._wake = wake
        # Held while it plans and moves, so that nobody balances beside it.
        self._turn: Turn | None = None
        self.begin_anew()

    def begin_anew(self) -> None:
        """As one who leads now: what it knew is of before."""
        # Nothing, until what the leader before it has written down was seen.
        self._measured: Measured | None = None
        self._measured_from = self._looked_at = float("-inf")
        self.stop()

    def stop(self) -> None:
        """It is switched off, or this one leads no more: what was begun goes no further."""
        self._run: _Run | None = None
        self._planning: Future[tuple[dict[str, Vm], BalancePlan]] | None = None
        self._sentence = "it begins when it is due"
        self._give_back()

    def _give_back(self) -> None:
        turn, self._turn = self._turn, None
        if turn is not None:
            turn.give_back()

    # -- loads

    def look(self, cluster: Cluster, written: Loads | None, now: float) -> Loads | None:
        """What is to be written for others to know; None: what they know is good enough."""
        if now - self._looked_at < LOOK_EVERY_S:
            return None
        if self._measured is None:
            self._measured = loads.taken_over(written, now)
            self._measured_from = float("-inf") if self._measured.means else now
        self._measured = loads.measured(
            self._measured, cluster, now, time_constant_s=self._settings.load_mean_s
        )
        self._looked_at = now
        return loads.to_write(written, self._measured, now)

    # -- moves

    def decide(
        self,
        policy: BalancePolicy,
        last: LastBalance | None,
        cluster: Cluster,
        ha: Availability,
        now: float,
        *,
        idle: bool,
    ) -> Turned:
        """`idle`: nobody is at work, and high availability has nothing to do."""
        turned = self._decided(policy, last, cluster, ha, now, idle=idle)
        if self._run is None and self._planning is None:
            self._give_back()
        return turned

    def _decided(
        self,
        policy: BalancePolicy,
        last: LastBalance | None,
        cluster: Cluster,
        ha: Availability,
        now: float,
        *,
        idle: bool,
    ) -> Turned:
        due_at = 0.0 if last is None else last.at + policy.every_s
        in_the_way = trouble(cluster, ha, now)
        if self._turn is not None and not self._turn.keep():
            in_the_way = in_the_way or "somebody else balances"
        if self._run is not None:
            return self._goes_on(self._run, cluster, ha, now, in_the_way, idle=idle)
        if self._planning is None:
            why, again_at = self._not_now(policy, in_the_way, due_at, now, idle=idle)
            if again_at is not None:
                if why:
                    self._sentence = why
                return Turned(sentence=self._sentence, due_at=again_at)
            self._turn = Turn.take(self._world, BALANCE)
            if self._turn is None:
                who = holder(self._world, BALANCE) or "somebody else"
                self._sentence = f"it waits: {who} balances"
                return Turned(sentence=self._sentence, due_at=now + AGAIN_S)
            self._planning = self._begin(policy, cluster, ha, now)
        if not self._planning.done():
            return Turned(sentence=self._sentence)
        planning, self._planning = self._planning, None
        return self._planned(policy, planning, cluster, ha, now, in_the_way, idle=idle)

    def _not_now(
        self, policy: BalancePolicy, in_the_way: str, due_at: float, now: float, *, idle: bool
    ) -> tuple[str, float | None]:
        """What there is to say, and when it is to be looked at again; None: now is the time."""
        if now < due_at:
            return "", due_at
        if in_the_way:
            return f"it waits: {in_the_way}", now + AGAIN_S
        ahead_s = offset_s(policy.zone, now)
        if ahead_s is None:
            why = f"it waits: the time zone {policy.zone!r} is not known on {self._world.who}"
            return why, now + AGAIN_S
        quiet = quiet_for(policy, now, ahead_s)
        if quiet is not None:
            return f"it is quiet until {quiet[1]} ({policy.zone})", now + quiet[0]
        if now - self._measured_from < MEASURE_S:
            return "it measures first what VMs have in use", self._measured_from + MEASURE_S
        return "", None if idle else now + AGAIN_S

    # -- a plan

    def _begin(
        self, policy: BalancePolicy, cluster: Cluster, ha: Availability, now: float
    ) -> Future[tuple[dict[str, Vm], BalancePlan]]:
        cores = {} if self._measured is None else self._measured.cores

        def make() -> tuple[dict[str, Vm], BalancePlan]:
            return cluster.vms, self._plan(policy, cluster, ha, cores, now)

        if not self._world.threads:
            return at_once(make)
        future = begin(make, name="vorch-balance")
        future.add_done_callback(lambda _: self._wake())
        return future

    def _plan(
        self,
        policy: BalancePolicy,
        cluster: Cluster,
        ha: Availability,
        cores: dict[str, float],
        now: float,
    ) -> BalancePlan:
        from vorch.decide.balance import Known, could, failed_at, link_mib_s, moved_at, planned
        from vorch.decide.room.balance import Limits

        found = self._world.state.read(["task"]).values()
        tasks = [decode(Task, document.body) for document in found]
        known = Known(
            now=now,
            overhead_mib=self._limits.vm_overhead_mib,
            loads=cores,
            moved_at=moved_at(tasks),
            # What could not be moved lately is not tried again and again.
            busy=frozenset(vm for vm, at in failed_at(tasks).items() if now - at < AFTER_FAILURE_S),
            link_mib_s=link_mib_s(tasks, self._limits.migration_bandwidth_mib_s),
        )
        return writing.planned(
            self._world,
            cluster,
            lambda rates: planned(
                cluster,
                ha,
                dataclasses.replace(known, writes=rates),
                lambda then, step: could(then, ha, step, self._limits),
                limits=Limits(
                    moves=policy.moves_max,
                    memory_mib=policy.memory_max_mib,
                    per_host=max(1, self._settings.migrations_per_host),
                ),
            ),
            # It takes seconds, which a look must not wait for.
            measure=self._world.threads,
        )

    def _planned(
        self,
        policy: BalancePolicy,
        planning: Future[tuple[dict[str, Vm], BalancePlan]],
        cluster: Cluster,
        ha: Availability,
        now: float,
        in_the_way: str,
        *,
        idle: bool,
    ) -> Turned:
        try:
            before, plan = planning.result()
        except VorchError as exc:
            self._sentence = f"it cannot be planned: {exc.message}"
            return Turned(
                sentence=self._sentence, last=LastBalance(at=now), due_at=now + policy.every_s
            )
        mends = (plan.after.broken, plan.after.overfull) < (
            plan.before.broken,
            plan.before.overfull,
        )
        if not plan.moves or (plan.gain < policy.least_gain and not mends):
            self._sentence = "nothing is worth a move"
            return Turned(
                sentence=self._sentence, last=LastBalance(at=now), due_at=now + policy.every_s
            )
        self._run = _Run(
            before=before,
            rounds=[list(steps) for steps in plan.rounds],
            planned=len(plan.moves),
            why=plan.why,
        )
        turned = self._goes_on(self._run, cluster, ha, now, in_the_way, idle=idle)
        # Whoever leads next does not begin anew with what this one has begun.
        return Turned(
            sentence=turned.sentence,
            errands=turned.errands,
            last=LastBalance(at=now, moves=len(plan.moves)),
            due_at=turned.due_at,
        )

    # -- and its rounds

    def _goes_on(
        self,
        run: _Run,
        cluster: Cluster,
        ha: Availability,
        now: float,
        in_the_way: str,
        *,
        idle: bool,
    ) -> Turned:
        """The next round, when the one before it is over and all is still well."""
        if in_the_way:
            left = sum(map(len, run.rounds))
            self._run = None
            self._sentence = f"{self._came_to(run)}; {left} more are left out: {in_the_way}"
            return Turned(sentence=self._sentence)
        if not idle:
            return Turned(sentence=self._sentence)
        while run.rounds:
            errands = self._next_errands(run, cluster, ha)
            if errands:
                what = ", ".join(f"{one.vm} to {one.node}" for one in errands)
                self._sentence = f"it moves {what}; {run.why}"
                return Turned(sentence=self._sentence, errands=tuple(errands))
        self._run = None
        self._sentence = self._came_to(run)
        return Turned(sentence=self._sentence, due_at=now + AGAIN_S)

    def _next_errands(self, run: _Run, cluster: Cluster, ha: Availability) -> list[Errand]:
        """As much of the round as hosts and links can have at once; the rest comes next."""
        from vorch.decide.balance import turn

        steps = {one.guest: one for one in run.rounds[0]}
        trips = [Trip(one.guest, one.source, one.target) for one in steps.values()]
        limits = convoy.Limits(
            per_host=self._settings.migrations_per_host,
            per_link=self._settings.migrations_per_link,
        )
        errands = []
        for trip in convoy.ready(trips, (), limits):
            step = steps.pop(trip.vm)
            try:
                plan = turn(cluster, ha, step, run.before, self._limits)
            except VorchError:
                run.skipped += 1
                continue
            errands.append(Errand(purpose="balance", plan=plan, vm=trip.vm, node=trip.target))
        if steps:
            run.rounds[0] = list(steps.values())
        else:
            del run.rounds[0]
        return errands

    def ended(self, error: VorchError | None) -> None:
        """A move of a round has ended."""
        if self._run is None:
            return
        if error is None:
            self._run.made += 1
        else:
            self._run.skipped += 1

    @staticmethod
    def _came_to(run: _Run) -> str:
        return f"{run.made} of {run.planned} VMs were moved"
