"""VMs that go from one host to another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vorch.availability import Availability
from vorch.codec import decode
from vorch.decide import agree, barred, estimate, move, send
from vorch.decide.place import NOTHING_KEPT, Keeping
from vorch.decide.records import is_on, known_power
from vorch.errors import BadConfig, Invalid, NoRoom
from vorch.model import (
    Cluster,
    Task,
    Vm,
    check_vm_name,
)
from vorch.orchestrator import kept
from vorch.orchestrator.core import Core, Done
from vorch.orchestrator.room_hint import with_way
from vorch.plan import MigrateDomain, Plan

# How long a guest's writes are watched before it moves.
MEASURED_FOR_S = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wishes:
    """How somebody wants a migration to be; None: as it is set."""

    pool: str | None = None
    postcopy: bool | None = None
    pause_limit_ms: int | None = None
    still: bool = False
    force: bool = False
    # To be measured first, however short it will be.
    measured: bool = False


AS_SET = _Wishes()


class Moves(Core):
    def migrate(
        self,
        name: str,
        node: str | None = None,
        *,
        pool: str | None = None,
        postcopy: bool | None = None,
        pause_limit_ms: int | None = None,
        still: bool = False,
        force: bool = False,
        dry_run: bool = False,
        wait_s: float | None = None,
    ) -> Done:
        """Move a VM to another host while it runs.

        Without `node` it goes to the host that is the best for it. Disks that the other host does
        not reach are copied along into `pool`. `postcopy`: whether it may go over before all of its
        memory has; None: as it is set. `still`: it stands still while its memory is sent, which
        guests of Xen may have to. A move that would bring the guest to a stand, that a rule
        does not permit, or that takes the room away that others need when a host is lost, is
        refused unless `force`. A dry run says how long it will take, and how long the pause will
        be.
        """
        wishes = _Wishes(
            pool=pool,
            postcopy=postcopy,
            pause_limit_ms=pause_limit_ms,
            still=still,
            force=force,
            measured=dry_run,
        )

        def decide(cluster: Cluster) -> Plan:
            ha = kept.availability(self.world.state)
            seen = self._ruled(cluster, ha, name, force=force)
            keeping = Keeping(ha=ha, force=force)
            plan = self._migration(seen, name, node, wishes=wishes, keeping=keeping)
            return agree.moved(plan, ha, name)

        try:
            return self._do(
                decide,
                dry_run=dry_run,
                wait_s=wait_s,
                hosts=lambda c: (
                    c.nodes
                    if node is None
                    else kept.with_spare(self.world.state, c, [c.vm(name).node, node])
                ),
                about=(f"vm/{check_vm_name(name)}",),
                networks=self._networks_of(name),
            )
        except NoRoom as exc:
            raise with_way(self, exc, name, node, away=True) from exc

    def _ruled(
        self,
        cluster: Cluster,
        ha: Availability,
        name: str,
        *,
        leaving: str = "",
        force: bool = False,
    ) -> Cluster:
        """With the hosts that rules keep this VM off."""
        return barred.ruled(
            cluster,
            ha,
            name,
            overhead_mib=self.settings.vm_overhead_mib,
            leaving=leaving,
            force=force,
        )

    def _migration(
        self,
        cluster: Cluster,
        name: str,
        node: str | None,
        *,
        away: bool = False,
        wishes: _Wishes = AS_SET,
        keeping: Keeping = NOTHING_KEPT,
    ) -> Plan:
        settings = self.settings
        postcopy = wishes.postcopy
        if postcopy is None:
            # The copies of disks must be whole before it goes over.
            postcopy = settings.migration_postcopy and wishes.pool is None
        limit_ms = wishes.pause_limit_ms
        plan = move.migrate(
            cluster,
            name,
            node,
            overhead_mib=settings.vm_overhead_mib,
            pause_limit_ms=settings.migration_pause_limit_ms if limit_ms is None else limit_ms,
            bandwidth_mib_s=settings.migration_bandwidth_mib_s,
            away=away,
            postcopy_after_s=settings.migration_converge_s if postcopy else None,
            pool=wishes.pool,
            fresh=self._fresh() if wishes.pool is not None else None,
            keep_s=settings.keep_deleted_h * 3600,
            keeping=keeping,
            still=wishes.still,
        )
        return self._weighed(cluster, plan, wishes)

    def _weighed(self, cluster: Cluster, plan: Plan, wishes: _Wishes) -> Plan:
        """The plan with what it will come to, where it is long enough for that to be worth it."""
        step = next((step for step in plan.steps if isinstance(step, MigrateDomain)), None)
        if step is None:
            return plan
        settings = self.settings
        speed = estimate.link_speed(
            settings.migration_bandwidth_mib_s, self._tasks(), step.vm.node, step.target
        )
        domain = cluster.domain(step.vm)
        memory_mib = domain.memory_mib if domain and domain.memory_mib else step.vm.memory_mib
        above_s = settings.migration_estimate_above_s
        if not wishes.measured and not estimate.worth_measuring(speed, memory_mib, above_s):
            return plan
        writes = None
        known = cluster.node(step.vm.node).facts
        if not step.paused and step.live and not (known and "write_rate_mib_s" in known.lacks):
            host = self.world.hypervisor(step.vm.node)
            writes = host.write_rate_mib_s(step.vm.id, MEASURED_FOR_S)
        return estimate.weighed(
            plan,
            step,
            estimate.estimate(step, speed, writes, memory_mib),
            slowdown_limit_percent=settings.migration_slowdown_limit_percent,
            force=wishes.force,
        )

    def _tasks(self) -> tuple[Task, ...]:
        documents = self.world.state.read(["task"])
        return tuple(decode(Task, document.body) for document in documents.values())

    def relocate(
        self,
        name: str,
        node: str,
        *,
        force: bool = False,
        dry_run: bool = False,
        wait_s: float | None = None,
    ) -> Done:
        """Let a VM that is off start on another host from now on.

        `force`: also where a rule keeps it from.
        """

        def decide(cluster: Cluster) -> Plan:
            ha = kept.availability(self.world.state)
            seen = self._ruled(cluster, ha, name, force=force)
            return agree.moved(move.relocate(seen, name, node), ha, name)

        return self._do(
            decide,
            dry_run=dry_run,
            wait_s=wait_s,
            hosts=lambda c: [c.vm(name).node, node],
            about=(f"vm/{check_vm_name(name)}",),
            networks=self._networks_of(name),
        )

    def send(
        self,
        name: str,
        other: str,
        *,
        node: str | None = None,
        pool: str | None = None,
        networks: Mapping[str, str] | None = None,
        dry_run: bool = False,
        wait_s: float | None = None,
    ) -> Done:
        """Move a VM that is off, with its disks, to another cluster, which is reached by its URI.

        `node`, `pool` and what `networks` are called (here → there) are those of that cluster. Its
        disks are copied there in full; the old ones are in the trash here.
        """
        fresh, keep_s = self._fresh(), self.settings.keep_deleted_h * 3600
        called = dict(networks or {})

        def decide(cluster: Cluster) -> Plan:
            there = self._look_at(other, cluster.vm(name), node, called)
            plan = send.send(
                cluster,
                name,
                other,
                there,
                fresh,
                node=node,
                pool=pool,
                networks=called,
                keep_s=keep_s,
            )
            return agree.gone(plan, kept.availability(self.world.state), name)

        return self._do(
            decide,
            dry_run=dry_run,
            wait_s=wait_s,
            hosts=lambda c: c.nodes,
            about=(f"vm/{check_vm_name(name)}",),
        )

    def _look_at(
        self, other: str, vm: Vm, node: str | None, networks: Mapping[str, str]
    ) -> Cluster:
        """What another cluster is, and whether its hosts can have what this VM is plugged into."""
        try:
            world = self.world.other(other)
        except BadConfig as exc:
            # Not this cluster's configuration is wrong: that address is.
            raise Invalid(exc.message, **exc.fields) from exc
        there = Core(world, self.settings)
        cluster = there.look()
        hosts = [node] if node in cluster.nodes else list(cluster.nodes)
        names = dict.fromkeys(networks.get(nic.network, nic.network) for nic in vm.nics)
        return there._connected(
            there._seen(cluster, hosts), hosts, self._networks_called(names)(cluster)
        )

    def _move(
        self, name: str, source: str, node: str | None, *, away: bool, wait_s: float | None
    ) -> Done:
        """Live or cold, whichever it needs. Whoever watches may have been quicker."""

        def decide(cluster: Cluster) -> Plan:
            vm, ha = cluster.vm(name), kept.availability(self.world.state)
            if away and vm.node != source:
                return Plan(verb="migrate", subject=name, why=f"it is on {vm.node} already")
            cluster = self._ruled(cluster, ha, name, leaving=source if away else "")
            if is_on(known_power(cluster, vm, "move")):
                return agree.moved(self._migration(cluster, name, node, away=away), ha, name)
            target = (
                node
                if node is not None
                else move.refuge(cluster, name, overhead_mib=self.settings.vm_overhead_mib)
            )
            return agree.moved(move.relocate(cluster, name, target, away=away), ha, name)

        return self._do(
            decide,
            dry_run=False,
            wait_s=wait_s,
            hosts=lambda c: c.nodes,
            about=(f"vm/{check_vm_name(name)}",),
            networks=self._networks_of(name),
        )
