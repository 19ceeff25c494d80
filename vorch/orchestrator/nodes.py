"""Hosts that come, are tried out, emptied and let go."""

from __future__ import annotations

import dataclasses

from vorch.decide import hosts
from vorch.errors import Conflict, VorchError
from vorch.model import (
    Check,
    Cluster,
    HostFacts,
    Node,
    Pool,
    Source,
)
from vorch.orchestrator.convoys import Convoys
from vorch.orchestrator.core import Done
from vorch.ports import (
    Hypervisor,
    Images,
    no_progress,
)

# A volume that hosts open to show that they can.
TRIAL_BYTES = 1024**2


class Nodes(Convoys):
    def node_list(self) -> tuple[Node, ...]:
        nodes = self.look().nodes
        return tuple(nodes[name] for name in sorted(nodes))

    def node_show(self, name: str) -> Node:
        """The host, its accelerator having been found out by booting something if it never was."""
        node = self.look().node(name)
        if node.facts is None or not node.facts.accelerator:
            self.node_probe(name)
        return self.look().node(name)

    def node_add(
        self,
        name: str,
        uri: str,
        *,
        reserve_mib: int | None = None,
        dry_run: bool = False,
        wait_s: float | None = None,
    ) -> Done:
        """Take a host in. First it is tried out: what it cannot do is said before it joins."""
        kept = self.settings.node_reserve_mib if reserve_mib is None else reserve_mib
        node = Node(name=name, uri=uri, reserve_mib=kept)
        cluster = self.look()
        hosts.add(cluster, node, ())
        checks, facts = self._try_host(node, cluster)
        node = dataclasses.replace(node, facts=facts)
        return self._do(
            lambda cluster: hosts.add(cluster, node, checks), dry_run=dry_run, wait_s=wait_s
        )

    def node_check(self, name: str) -> tuple[Check, ...]:
        """Try a host out as when it joined, one line for each thing that it must be able to do."""
        cluster = self.look()
        return self._try_host(cluster.node(name), cluster)[0]

    def _try_host(self, node: Node, cluster: Cluster) -> tuple[tuple[Check, ...], HostFacts | None]:
        """By doing it: connect, boot something, open a disk of every shared pool."""
        host = self.world.new_host(node)
        try:
            try:
                facts = host.probe(no_progress)
            except VorchError as exc:
                return (hosts.failed("libvirt", exc, "see that its libvirtd listens there"),), None
            facts = dataclasses.replace(facts, probed_at=self.world.clock.now())
            checks = hosts.judged(node, facts, cluster)
            for pool in cluster.pools.values():
                if pool.shared:
                    checks += self._try_pool(self.world.images(pool.name), pool, host)
            return checks, facts
        finally:
            host.close()

    def _try_pool(self, images: Images, pool: Pool, host: Hypervisor) -> tuple[Check, ...]:
        """Whether a host opens a volume of the pool, by each of its ways."""
        token = self.world.chance.take(6).hex()
        volume = f"vorch-trial-{token}"
        try:
            images.create(volume, TRIAL_BYTES)
            try:
                secret = images.secret()
                if secret is not None:
                    host.ensure_secret(secret)
                return tuple(
                    self._try_source(host, f"vorch-trial-{token}", label, source)
                    for label, source in hosts.ways(pool.name, images.locate(volume))
                )
            finally:
                images.purge(volume)
        except VorchError as exc:
            return (hosts.failed(f"pool {pool.name}", exc, "see `vorch doctor`"),)

    @staticmethod
    def _try_source(host: Hypervisor, name: str, label: str, source: Source) -> Check:
        try:
            host.try_source(name, source)
        except VorchError as exc:
            return hosts.failed(label, exc, hosts.REMEDY_FOR_POOLS)
        return Check(name=label, level="ok", detail="a disk in it was opened on the host")

    def node_remove(self, name: str, *, dry_run: bool = False, wait_s: float | None = None) -> Done:
        """Let a host go. Refused while VMs belong to it."""
        return self._do(lambda cluster: hosts.remove(cluster, name), dry_run=dry_run, wait_s=wait_s)

    def node_cordon(self, name: str, *, dry_run: bool = False, wait_s: float | None = None) -> Done:
        """Start and place nothing on a host any more; what runs there goes on."""
        return self._do(
            lambda cluster: hosts.cordon(cluster, name, True), dry_run=dry_run, wait_s=wait_s
        )

    def node_uncordon(
        self, name: str, *, dry_run: bool = False, wait_s: float | None = None
    ) -> Done:
        return self._do(
            lambda cluster: hosts.cordon(cluster, name, False), dry_run=dry_run, wait_s=wait_s
        )

    def node_maintenance(
        self, name: str, on: bool, *, wait_s: float | None = None
    ) -> tuple[Done, ...]:
        """Empty a host so that it can be switched off; or bring back what left it.

        Each VM is a task of its own; several move at once. What cannot move stays, and is said when
        all others have. Safe to repeat.
        """
        done = [self.node_cordon(name) if on else self.node_uncordon(name)]
        names = [
            vm.name
            for vm in sorted(self.look().vms.values(), key=lambda one: one.name)
            if (vm.node if on else vm.home) == name
        ]
        moved, stayed = self._move_all(names, None if on else name, away=on, wait_s=wait_s)
        done += moved
        if stayed:
            reasons = "; ".join(stayed[one] for one in names if one in stayed)
            raise Conflict(
                f"cannot {'empty' if on else 'bring everything back to'} host {name!r}:"
                f" {reasons}; move or stop those by hand, and do this again",
                node=name,
                stayed=stayed,
            )
        return tuple(done)
