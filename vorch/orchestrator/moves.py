"""VMs that go from one host to another."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from vorch.availability import Availability
from vorch.codec import decode
from vorch.decide import agree, barred, copies, crossing, estimate, move, send
from vorch.decide.move import need_free_to_move
from vorch.decide.place import NOTHING_KEPT, Keeping
from vorch.decide.records import is_on, known_power
from vorch.errors import BadConfig, Invalid, NoRoom, VorchError
from vorch.inside import Inside
from vorch.model import (
    Cluster,
    Task,
    Vm,
    check_text,
    check_vm_name,
)
from vorch.orchestrator import kept
from vorch.orchestrator.core import Core, Done
from vorch.orchestrator.room_hint import with_way
from vorch.orchestrator.words import checked_seconds
from vorch.plan import MigrateDomain, Plan
from vorch.ports import no_progress

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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Crossing:
    """How somebody wants a move to the other hypervisor to be."""

    start: bool
    expect: str
    timeout_s: float
    unchecked: bool
    unread: bool
    rollback: bool
    force: bool


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
        start: bool = True,
        expect: str = "",
        timeout_s: float | None = None,
        unchecked: bool = False,
        unread: bool = False,
        rollback: bool = False,
        force: bool = False,
        dry_run: bool = False,
        wait_s: float | None = None,
    ) -> Done:
        """Let a VM that is off start on another host from now on, also between KVM and Xen.

        Between those two its disk is looked into first, a snapshot of its disks is taken and it is
        started there; if its guest does not come up within `timeout_s`, it is off where it was.
        `start`: else it is only recorded. `expect`: text that its console shows when it is up.
        `unchecked`: also when it would not start there; `unread`: also when its disk could not be
        looked into. `rollback`: when it goes back, what it wrote there is lost.
        `force`: also where a rule keeps it from.
        """
        check_vm_name(name)
        cluster = self.look()
        between = self._crossing(cluster, name, node)
        if between is not None:
            return self._cross(
                name,
                node,
                between[1],
                _Crossing(
                    start=start,
                    expect=check_text(expect, "text to be expected", 256),
                    timeout_s=checked_seconds(
                        self.settings.guest_up_s if timeout_s is None else timeout_s
                    ),
                    unchecked=unchecked,
                    unread=unread,
                    rollback=rollback,
                    force=force,
                ),
                dry_run=dry_run,
                wait_s=wait_s,
            )
        if expect or timeout_s is not None or unchecked or unread or rollback or not start:
            raise Invalid(
                f"cannot relocate VM {name!r} to {node!r} with a look into its disk or a start:"
                " both hosts run the same hypervisor, where it is only recorded; leave that away"
            )

        def decide(cluster: Cluster) -> Plan:
            ha = kept.availability(self.world.state)
            seen = self._ruled(cluster, ha, name, force=force)
            return agree.moved(move.relocate(seen, name, node), ha, name)

        return self._do(
            decide,
            dry_run=dry_run,
            wait_s=wait_s,
            hosts=lambda c: [c.vm(name).node, node],
            about=(f"vm/{name}",),
            networks=self._networks_of(name),
        )

    def _crossing(
        self, cluster: Cluster, name: str, node: str
    ) -> tuple[crossing.Runs, crossing.Runs] | None:
        hosts = [cluster.vm(name).node, cluster.node(node).name]
        if self._find_facts(cluster, hosts):
            cluster = self.look()
        return crossing.crosses(cluster, name, node)

    def _cross(
        self,
        name: str,
        node: str,
        runs: crossing.Runs,
        wishes: _Crossing,
        *,
        dry_run: bool,
        wait_s: float | None,
    ) -> Done:
        fresh = self._fresh()
        snapshot = f"relocate-{fresh.token[:8]}"
        trial = (
            crossing.Trial(timeout_s=wishes.timeout_s, expect=wishes.expect)
            if wishes.start
            else None
        )
        # What the disk holds does not change while it is off: it is looked into once.
        looked: dict[str, Inside | None] = {}

        def decide(cluster: Cluster) -> Plan:
            vm, ha = cluster.vm(name), kept.availability(self.world.state)
            need_free_to_move(cluster, name, node)
            if name not in looked:
                looked[name] = self._inside(vm)
            seen = self._ruled(cluster, ha, name, force=wishes.force)
            plan = crossing.cross(
                seen,
                name,
                node,
                crossing.findings(looked[name], vm, runs),
                trial=trial,
                overhead_mib=self.settings.vm_overhead_mib,
                unchecked=wishes.unchecked,
                unread=wishes.unread,
                keeping=Keeping(ha=ha, force=wishes.force),
            )
            return agree.moved(plan, ha, name) if trial is None else agree.started(plan, ha, name)

        def go(*, dry_run: bool) -> Done:
            return self._do(
                decide,
                dry_run=dry_run,
                wait_s=wait_s,
                hosts=lambda c: [c.vm(name).node, node],
                about=(f"vm/{name}",),
                networks=self._networks_of(name),
            )

        def taken(cluster: Cluster) -> Plan:
            said = f"before it went to {node}"
            return copies.snapshot_create(
                cluster, name, snapshot, fresh, freeze=False, description=said
            )

        # All that can be refused is refused before there is a snapshot.
        whole = go(dry_run=True)
        with_disks = bool(self.look().vm(name).data_disks)
        if dry_run:
            first = (
                self._on_vm(name, taken, dry_run=True, wait_s=wait_s).plan if with_disks else None
            )
            steps = (*(first.steps if first is not None else ()), *whole.plan.steps)
            return Done(dataclasses.replace(whole.plan, steps=steps), None)
        if with_disks:
            self._on_vm(name, taken, dry_run=False, wait_s=wait_s)
        try:
            return go(dry_run=False)
        except VorchError as exc:
            raise self._went_back(exc, name, snapshot if with_disks else "", wishes) from exc

    def _went_back(
        self, exc: VorchError, name: str, snapshot: str, wishes: _Crossing
    ) -> VorchError:
        """The same error with what has become of the disks."""
        task = exc.fields.get("task")
        document = None if task is None else self.world.state.get(f"task/{task}")
        over = document is not None and decode(Task, document.body).over
        if not snapshot:
            return exc
        if not over:
            # It is still under way, or was never begun.
            told = f"its snapshot {snapshot!r} is kept"
        elif wishes.rollback:
            try:
                self._on_vm(
                    name,
                    lambda cluster: copies.snapshot_rollback(cluster, name, snapshot),
                    dry_run=False,
                    wait_s=None,
                )
                told = f"its disks are as they were (snapshot {snapshot!r})"
            except VorchError as failed:
                told = f"its disks could not be set back to snapshot {snapshot!r}: {failed.message}"
        else:
            told = (
                f"what it wrote there is kept; `vorch snapshot rollback {name} {snapshot}` sets its"
                " disks back"
            )
        return type(exc)(f"{exc.message}; {told}", **{**exc.fields, "snapshot": snapshot})

    def _inside(self, vm: Vm) -> Inside | None:
        """What is in the disk that it starts from. One that cannot be read is said to be so."""
        disk = crossing.boot_disk(vm)
        if disk is None or disk.volume is None:
            return None
        images = self.world.images(disk.volume.pool)
        with images.content(disk.volume.name, None, no_progress) as content:
            return self.world.media.look_into(content)

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
