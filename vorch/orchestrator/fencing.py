"""Hosts that are cut off by hand and taken back, and the drill that shows whether that works."""

from __future__ import annotations

from typing import Literal

from vorch.availability import Drill, Evidence, Knock, NodeRecord
from vorch.codec import decode, encode
from vorch.decide import fence
from vorch.errors import Unsupported, VorchError
from vorch.model import Check, Cluster, Node
from vorch.orchestrator.core import Core, Done
from vorch.orchestrator.kept import DRILL, last_drill
from vorch.plan import Plan
from vorch.ports import Change, no_progress

# How long a host may take to answer a knock of a drill, or before it is fenced by hand.
KNOCK_S = 2.0


class Fencing(Core):
    def node_fence(
        self, name: str, *, force: bool = False, dry_run: bool = False, wait_s: float | None = None
    ) -> Done:
        """Cut a host off from its power or its disks, and prove it: its VMs may start elsewhere.

        Refused while anything is heard of it, unless `force`: all its VMs end. Safe to repeat.
        """
        self._ways_to_fence(self.look().node(name))

        def decide(cluster: Cluster) -> Plan:
            now = self.world.clock.now()
            record, version = self._node_record(name)
            begun = fence.begun(
                cluster,
                name,
                record,
                self._evidence(cluster.node(name), cluster),
                fence.recorded_clients(cluster, name),
                now=now,
                force=force,
            )
            if not dry_run:
                # Before the plan: what was begun must be known even if the plan comes to nothing.
                change = Change(f"hanode/{name}", version, encode(begun))
                version = self.world.state.commit([change])
            return fence.fence(cluster, begun, now=now, version=version)

        return self._do(decide, dry_run=dry_run, wait_s=wait_s, hosts=lambda cluster: [name])

    def node_unfence(
        self, name: str, *, force: bool = False, dry_run: bool = False, wait_s: float | None = None
    ) -> Done:
        """Take back a host that was cut off: what it still runs is ended first.

        `force`: also when vorch does not know that it is cut off.
        """

        def decide(cluster: Cluster) -> Plan:
            record, version = self._node_record(name)
            return fence.unfence(
                cluster,
                name,
                record,
                fence.recorded_clients(cluster, name),
                now=self.world.clock.now(),
                version=version,
                force=force,
            )

        return self._do(decide, dry_run=dry_run, wait_s=wait_s, hosts=lambda cluster: [name])

    # -- the drill

    def _fencing_drill(self) -> tuple[Check, ...]:
        """Tried out on the living cluster; kept, so that its age can be told."""
        cluster = self.look(None)
        nodes = [cluster.nodes[name] for name in sorted(cluster.nodes)]
        checks: list[Check] = []
        for fencer in self.world.fencers:
            covered = [node for node in nodes if fencer.covers(node)]
            if covered:
                try:
                    checks += fencer.drill(covered, no_progress)
                except VorchError as exc:
                    name = f"{fencer.name} fence"
                    checks.append(Check(name=name, level="error", detail=exc.message))
        for node in nodes:
            checks += self._drill_of(node, cluster)
        drill = Drill(at=self.world.clock.now(), checks=tuple(checks))
        self.world.state.commit([Change(DRILL, None, encode(drill))])
        return drill.checks

    def _drill_of(self, node: Node, cluster: Cluster) -> tuple[Check, ...]:
        """Whether it can be fenced at all, and whether its silence would mean anything."""
        if not any(fencer.covers(node) for fencer in self.world.fencers):
            return (
                Check(
                    name=f"fencing of {node.name}",
                    level="error",
                    detail="there is no way to fence it, so its VMs never start elsewhere",
                    remedy="give it a BMC, or use a pool in Ceph; see docs/fencing.md",
                ),
            )
        if node.name in cluster.silent or self.world.witness is None:
            return ()
        seen = self.world.witness.knock(node, "storage", KNOCK_S)
        if seen is not Knock.SILENCE:
            return ()
        return (
            Check(
                name=f"storage network of {node.name}",
                level="warning",
                detail=f"the host is well, and nobody answers a knock on {node.storage_address}",
                remedy="let its firewall refuse rather than drop, or set storage_knock_port",
            ),
        )

    def _last_drill(self) -> Drill | None:
        return last_drill(self.world.state)

    # -- what is known

    def _ways_to_fence(self, node: Node) -> None:
        if not any(fencer.covers(node) for fencer in self.world.fencers):
            raise Unsupported(
                f"cannot fence host {node.name!r}: no way to do that is set up; give it a BMC, or"
                " use a pool in Ceph (docs/fencing.md)",
                node=node.name,
            )

    def _node_record(self, name: str) -> tuple[NodeRecord | None, int]:
        document = self.world.state.get(f"hanode/{name}")
        if document is None:
            return None, 0
        return decode(NodeRecord, document.body), document.version

    def _evidence(self, node: Node, cluster: Cluster) -> Evidence:
        witness = self.world.witness

        def knock(network: Literal["management", "storage"]) -> Knock | None:
            return None if witness is None else witness.knock(node, network, KNOCK_S)

        return Evidence(
            node=node.name,
            libvirt=node.name not in cluster.silent,
            libvirt_says=cluster.silent.get(node.name, ""),
            management=knock("management"),
            storage=knock("storage"),
        )
