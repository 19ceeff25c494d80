"""The cluster as a whole: what is missing, and the embedded one of a single machine."""

from __future__ import annotations

import dataclasses

from vorch.decide import clients
from vorch.decide.hosts import network_check
from vorch.errors import VorchError
from vorch.model import (
    Check,
    Cluster,
    Node,
    Pool,
)
from vorch.orchestrator.jobs import Jobs
from vorch.orchestrator.networks import Networks
from vorch.orchestrator.nodes import Nodes
from vorch.orchestrator.whatif import Questions


class Whole(Networks, Nodes, Questions, Jobs):
    def doctor(self, *, fencing: bool = False) -> tuple[Check, ...]:
        """What is missing, and why a VM would not run.

        `fencing`: instead, whether hosts could be fenced, by really cutting off a client of our
        own from a throw-away volume. No host and no VM notices.
        """
        if fencing:
            return self._fencing_drill()
        checks: list[Check] = []
        cluster = self.look(None)
        if not cluster.nodes:
            checks.append(
                Check(
                    name="cluster",
                    level="error",
                    detail="it has no host",
                    remedy="run `vorch init` for this machine, or `vorch node add`",
                )
            )
        names = sorted(cluster.nodes)
        for of_host in self.world.each(lambda name: self._host_checks(cluster, name), names):
            checks += of_host
        for name in sorted(cluster.pools):
            checks.append(self._pool_check(name))
        if cluster.nodes and not cluster.networks:
            checks.append(
                Check(
                    name="networks",
                    level="warning",
                    detail="there is none, so VMs can have no NICs",
                    remedy="run `vorch init`, or make one (vorch network create)",
                )
            )
        for name in sorted(cluster.vms):
            lack = clients.lacking(cluster, cluster.vm(name))
            if lack:
                checks.append(
                    Check(
                        name=f"VM {name}",
                        level="warning",
                        detail=f"{lack}, so only its host as a whole could be cut off from them",
                        remedy="run `vorch recover`",
                    )
                )
        networks = tuple(cluster.networks.values())
        # What is silent has been said to be.
        connected = self._connected(cluster, cluster.nodes, networks)
        checks += [
            network_check(f"network {network.name} on {name}", network, lacks[network.name])
            for name, lacks in sorted(connected.lacks.items())
            for network in networks
            if network.name in lacks
        ]
        stuck = [task for task in self.task_list() if task.state.value == "stuck"]
        for task in stuck:
            checks.append(
                Check(
                    name=f"task {task.id}",
                    level="warning",
                    detail=f"{task.verb} {task.subject!r} was left unfinished",
                    remedy="look at `vorch task show`, then `vorch recover`",
                )
            )
        return tuple(checks)

    def _host_checks(self, cluster: Cluster, name: str) -> tuple[Check, ...]:
        """One that is silent has had its time when all were looked at; its BMC may still answer."""
        node, checks = cluster.nodes[name], list[Check]()
        if name in cluster.silent:
            checks.append(
                Check(
                    name="libvirt",
                    level="error",
                    detail=cluster.silent[name],
                    remedy="see whether the host and its libvirtd run",
                )
            )
        else:
            folders = [
                pool.url.removeprefix("dir://")
                for pool in cluster.pools.values()
                if pool.url.startswith("dir://") and pool.node in ("", name)
            ]
            host = self.world.hypervisor(name)
            checks += host.checks(folders)
            if node.facts is not None and node.facts.accelerator:
                checks.append(self._clock_check(host, needed=False))
                shared = any(pool.shared for pool in cluster.pools.values())
                checks += self._try_hook(host, "", needed=shared)
        if node.bmc:
            checks += self._try_bmc(node, answers=name not in cluster.silent)
        if len(cluster.nodes) == 1:
            return tuple(checks)
        return tuple(dataclasses.replace(one, name=f"{name}: {one.name}") for one in checks)

    def _pool_check(self, name: str) -> Check:
        try:
            usage = self.world.images(name).room()
        except VorchError as exc:
            return Check(name=f"pool {name}", level="error", detail=exc.message)
        free = usage.free_bytes / max(1, usage.capacity_bytes)
        detail = f"{usage.free_bytes / 1024**3:.1f} GiB free ({free:.0%})"
        if free < 0.1:
            return Check(
                name=f"pool {name}",
                level="warning",
                detail=detail,
                remedy="delete something (vorch trash purge), or add space",
            )
        return Check(name=f"pool {name}", level="ok", detail=detail)

    def init(
        self, *, node: str, hypervisor_uri: str, pool_url: str, network: bool = True
    ) -> tuple[str, ...]:
        """Make the embedded cluster: this host, a pool, a network. Safe to repeat."""
        said: list[str] = []
        cluster = self.look()
        if not cluster.nodes:
            self._record(
                "node",
                node,
                None,
                Node(name=node, uri=hypervisor_uri, reserve_mib=self.settings.node_reserve_mib),
            )
            said.append(f"host {node!r} at {hypervisor_uri}")
        if not cluster.pools:
            here = node if pool_url.startswith("dir:") else ""
            self._record("pool", "local", None, Pool(name="local", url=pool_url, node=here))
            said.append(f"pool 'local' at {pool_url}")
        if network and not cluster.networks:
            self.network_create("default", kind="nat", wait_s=5.0)
            said.append("network 'default' (NAT)")
        return tuple(said)
