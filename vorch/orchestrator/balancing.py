"""VMs moved from hosts with much to do to hosts with little, by a plan that is worth it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, cast

from vorch.codec import decode
from vorch.decide import balance_settings
from vorch.decide.balance_settings import BalanceChanges, BalancePolicy
from vorch.decide.room import loads
from vorch.decide.room.loads import Loads, Measured
from vorch.errors import Invalid
from vorch.model import Cluster, Vm, check_range
from vorch.orchestrator import kept, writing
from vorch.orchestrator.core import Done
from vorch.orchestrator.limits import limits_of
from vorch.orchestrator.room_hint import busy_vms
from vorch.orchestrator.rounds import Rounds
from vorch.orchestrator.turns import BALANCE, only_one
from vorch.orchestrator.words import checked_seconds
from vorch.orchestrator.zones import offset_s
from vorch.plan import Plan

# The engine stands on NumPy, which is loaded when it is first asked for something.
if TYPE_CHECKING:
    from vorch.decide.balance import Known
    from vorch.decide.room.balance import BalancePlan, Limits

LOADS = "load/vms"
METRICS = ("vorch", "norm", "htools")
# How long processors are watched where nobody else watches.
MEASURE_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Balanced:
    """What was planned, and what came of it: nothing after a dry run."""

    plan: BalancePlan
    # Where the loads are from.
    measured: str
    done: tuple[Done, ...] = ()
    # Moves that were not made, by VM, each with the reason.
    skipped: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.plan.why


class Balancing(Rounds):
    def balance(
        self,
        *,
        moves_max: int | None = None,
        memory_max_mib: int | None = None,
        time_max_s: float | None = None,
        metric: str = "vorch",
        measure_s: float = MEASURE_S,
        dry_run: bool = False,
        wait_s: float | None = None,
    ) -> Balanced:
        """Put right what breaks rules or is overfull, and even out what hosts have to do.

        As few moves as are worth it; a second run straight after it moves nothing. `metric`: by
        vorch's own judgement, or as the plain spread of shares ("norm") or Ganeti's score
        ("htools"). `measure_s`: how long processors are watched where nobody has done so before; 0:
        nothing is measured, nor how fast those write to their memory that are to move.
        Each move is looked at again when it is its turn, and left out where it is not right any
        more. Ctrl-C ends those under way and begins no more. One balances at a time: while another
        process does, it is refused.
        """
        from vorch.decide.room.balance import Limits

        if metric not in METRICS:
            known = ", ".join(METRICS)
            raise Invalid(f"cannot balance by {metric!r}: that is no metric; use one of {known}")
        for value, what in ((moves_max, "moves"), (memory_max_mib, "MiB of memory")):
            check_range(0 if value is None else value, 0, 10**9, f"limit of {what}")
        limits = Limits(
            moves=moves_max,
            memory_mib=memory_max_mib,
            seconds=None if time_max_s is None else checked_seconds(time_max_s),
            per_host=max(1, self.settings.migrations_per_host),
        )
        cores, measured = self._loads(checked_seconds(measure_s))
        if dry_run:
            plan, _ = self._planned(cores, limits, metric, measure=measure_s > 0)
            return Balanced(plan=plan, measured=measured)
        with only_one(self.world, BALANCE, "balance") as turn:
            plan, before = self._planned(cores, limits, metric, measure=measure_s > 0)
            done, skipped = self._carry_out(plan.rounds, before, wait_s, keep=turn.keep)
        return Balanced(plan=plan, measured=measured, done=tuple(done), skipped=skipped)

    def _planned(
        self, cores: Mapping[str, float], limits: Limits, metric: str, *, measure: bool
    ) -> tuple[BalancePlan, dict[str, Vm]]:
        """What would be done now, and the VMs as they were then."""
        from vorch.decide.balance import could, planned

        cluster = self.look(None)
        if self._find_facts(cluster, (one for one in cluster.nodes if one not in cluster.silent)):
            cluster = self.look(None)
        cluster = self._connected(cluster, cluster.nodes, tuple(cluster.networks.values()))
        ha, own = kept.availability(self.world.state), limits_of(self.settings)
        known = self._balance_known(cores)
        plan = writing.planned(
            self.world,
            cluster,
            lambda rates: planned(
                cluster,
                ha,
                dataclasses.replace(known, writes=rates),
                lambda then, step: could(then, ha, step, own),
                limits=limits,
                metric=cast(Literal["vorch", "norm", "htools"], metric),
            ),
            measure=measure,
        )
        return plan, cluster.vms

    # -- what is known

    def _loads(self, measure_s: float) -> tuple[dict[str, float], str]:
        """Cores in use: from whoever watches, or by two looks."""
        document, clock = self.world.state.get(LOADS), self.world.clock
        if document is not None:
            found = decode(Loads, document.body)
            if loads.is_fresh(found, clock.now()):
                return dict(found.cores), "measured by whoever watches"
        if not measure_s:
            return {}, "not measured"
        before = loads.measured(Measured(), self.look(None), clock.now())
        clock.sleep(measure_s)
        after = loads.measured(before, self.look(None), clock.now())
        return after.cores, f"measured for {measure_s:g} s"

    def _balance_known(self, cores: Mapping[str, float]) -> Known:
        from vorch.decide.balance import Known, link_mib_s, moved_at

        tasks = self._tasks()
        return Known(
            now=self.world.clock.now(),
            overhead_mib=self.settings.vm_overhead_mib,
            loads=cores,
            moved_at=moved_at(tasks),
            busy=busy_vms(self.world.state),
            link_mib_s=link_mib_s(tasks, self.settings.migration_bandwidth_mib_s),
        )

    # -- by itself

    def ha_balance(
        self,
        *,
        auto: bool | None = None,
        every_s: float | None = None,
        least_gain: float | None = None,
        moves_max: int | None = None,
        memory_max_mib: int | None = None,
        quiet: Sequence[str] | None = None,
        zone: str | None = None,
        dry_run: bool = False,
        wait_s: float | None = None,
    ) -> Done:
        """Whether and how whoever watches balances by itself. What is not given stays as it is.

        `quiet`: times of the day at which nothing is begun, as in 22:00-06:00, by the clocks of
        `zone`. A limit of 0 takes it away.
        """
        if zone is not None and offset_s(zone, self.world.clock.now()) is None:
            raise Invalid(
                f"cannot use {zone!r} as a time zone: this machine knows none of that name; write"
                " it as in Europe/Vienna, or UTC"
            )
        changes = BalanceChanges(
            auto=auto,
            every_s=every_s,
            least_gain=least_gain,
            moves_max=moves_max,
            memory_max_mib=memory_max_mib,
            quiet=None if quiet is None else tuple(quiet),
            zone=zone,
        )

        def decide(cluster: Cluster) -> Plan:
            document = self.world.state.get(balance_settings.POLICY)
            before = None if document is None else decode(BalancePolicy, document.body)
            version = 0 if document is None else document.version
            return balance_settings.ha_balance(before, version, changes)

        return self._do(decide, dry_run=dry_run, wait_s=wait_s)
