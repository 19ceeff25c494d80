"""VMs that go from one host to another."""

from __future__ import annotations

from vorch.decide import move
from vorch.decide.records import is_on, known_power
from vorch.model import (
    Cluster,
    check_vm_name,
)
from vorch.orchestrator.core import Core, Done
from vorch.plan import Plan


class Moves(Core):
    def migrate(
        self,
        name: str,
        node: str | None = None,
        *,
        dry_run: bool = False,
        wait_s: float | None = None,
    ) -> Done:
        """Move a VM to another host while it runs. Its disks must be where every host reaches them.

        Without `node` it goes to the host with the most free memory.
        """
        return self._do(
            lambda cluster: self._migration(cluster, name, node),
            dry_run=dry_run,
            wait_s=wait_s,
            hosts=lambda c: c.nodes if node is None else [c.vm(name).node, node],
            about=(f"vm/{check_vm_name(name)}",),
        )

    def _migration(
        self, cluster: Cluster, name: str, node: str | None, *, away: bool = False
    ) -> Plan:
        settings = self.settings
        return move.migrate(
            cluster,
            name,
            node,
            overhead_mib=settings.vm_overhead_mib,
            pause_limit_ms=settings.migration_pause_limit_ms,
            bandwidth_mib_s=settings.migration_bandwidth_mib_s,
            away=away,
        )

    def relocate(
        self, name: str, node: str, *, dry_run: bool = False, wait_s: float | None = None
    ) -> Done:
        """Let a VM that is off start on another host from now on."""
        return self._do(
            lambda cluster: move.relocate(cluster, name, node),
            dry_run=dry_run,
            wait_s=wait_s,
            hosts=lambda c: [c.vm(name).node, node],
            about=(f"vm/{check_vm_name(name)}",),
        )

    def _move(self, name: str, node: str | None, *, away: bool, wait_s: float | None) -> Done:
        """Live or cold, whichever it needs."""

        def decide(cluster: Cluster) -> Plan:
            if is_on(known_power(cluster, cluster.vm(name), "move")):
                return self._migration(cluster, name, node, away=away)
            target = node if node is not None else move.refuge(cluster, name)
            return move.relocate(cluster, name, target, away=away)

        return self._do(
            decide,
            dry_run=False,
            wait_s=wait_s,
            hosts=lambda c: c.nodes,
            about=(f"vm/{check_vm_name(name)}",),
        )
