"""Networks by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vorch.decide import catalog, forwards
from vorch.decide.hosts import network_check
from vorch.errors import Invalid, VorchError
from vorch.model import (
    NETWORK_KINDS,
    Address,
    Check,
    ForwardStatus,
    Network,
    NetworkKind,
)
from vorch.orchestrator.core import Core, Done


class Networks(Core):
    def network_create(
        self,
        name: str,
        *,
        kind: NetworkKind = "nat",
        bridge: str | None = None,
        bridges: Mapping[str, str] | None = None,
        subnet: str | None = None,
        dhcp: bool = True,
        vlan: int | None = None,
        vni: int | None = None,
        mtu: int | None = None,
        dry_run: bool = False,
        wait_s: float | None = None,
    ) -> Done:
        """`bridges`: by host, where `bridge` is not what it is called. An overlay spans all hosts.

        The number of an overlay (`vni`) is found, and its `mtu` fits hosts with the usual 1500.
        """
        if kind not in NETWORK_KINDS:
            raise Invalid(
                f"cannot make a network of kind {kind!r}: it is 'bridge', 'nat', 'isolated' or"
                " 'overlay'"
            )
        fresh = self._fresh()
        used: list[str] = []
        if kind in ("nat", "isolated"):
            for node in self.look().nodes:
                used += self.world.hypervisor(node).used_subnets()
        return self._do(
            lambda cluster: catalog.network_create(
                cluster,
                name,
                kind,
                fresh,
                bridge=bridge,
                subnet=subnet,
                dhcp=dhcp,
                vlan=vlan,
                used_subnets=used,
                bridges=bridges or {},
                vni=vni,
                mtu=mtu,
            ),
            dry_run=dry_run,
            wait_s=wait_s,
        )

    def network_change(
        self,
        name: str,
        *,
        bridge: str | None = None,
        bridges: Mapping[str, str] | None = None,
        dry_run: bool = False,
        wait_s: float | None = None,
    ) -> Done:
        """Other bridges, for all hosts or by host ("": the one that all have).

        Without any, what hosts should know of it is brought up to date on all that answer.
        """
        return self._do(
            lambda cluster: catalog.network_change(
                cluster, name, bridge=bridge, bridges=bridges or {}
            ),
            dry_run=dry_run,
            wait_s=wait_s,
            hosts=lambda c: c.nodes if c.network(name).kind != "bridge" else (),
        )

    def network_check(self, name: str) -> tuple[Check, ...]:
        """Whether each host can have it, found out by trying; a line for each."""
        return self._network_checks([self.look().network(name)])

    def _network_checks(self, networks: Sequence[Network]) -> tuple[Check, ...]:
        cluster = self.look(None)
        cluster = self._connected(cluster, cluster.nodes, networks)
        return tuple(
            network_check(
                f"network {network.name} on {node}",
                network,
                cluster.silent.get(node) or cluster.lacks.get(node, {}).get(network.name, ""),
            )
            for network in networks
            for node in sorted(cluster.nodes)
        )

    def network_list(self) -> tuple[Network, ...]:
        networks = self.look().networks
        return tuple(networks[name] for name in sorted(networks))

    def network_show(self, name: str) -> Network:
        return self.look().network(name)

    def network_delete(
        self, name: str, *, dry_run: bool = False, wait_s: float | None = None
    ) -> Done:
        return self._do(
            lambda cluster: catalog.network_delete(cluster, name), dry_run=dry_run, wait_s=wait_s
        )

    def forward_add(
        self,
        name: str,
        port: str,
        *,
        nic: str | None = None,
        address: str | None = None,
        dry_run: bool = False,
        wait_s: float | None = None,
    ) -> Done:
        """A port of whichever host the VM runs on leads to one of its own: "8080:80", "53/udp".

        The NIC keeps the address that it has, or is given one; `address` names it.
        """
        seen = self._addresses(name)
        return self._do(
            lambda cluster: forwards.forward_add(
                cluster, name, port, nic=nic, address=address, seen=seen
            ),
            dry_run=dry_run,
            wait_s=wait_s,
            alone=name,
            networks=lambda cluster: forwards.on_trial(cluster, name, port, nic),
        )

    def _addresses(self, name: str) -> tuple[Address, ...]:
        cluster = self._at(name)
        vm = cluster.vm(name)
        if vm.id not in cluster.domains:
            return ()
        try:
            return self.world.hypervisor(vm.node).addresses(vm)
        except VorchError:
            return ()

    def forward_list(self, name: str | None = None) -> tuple[ForwardStatus, ...]:
        """The ports of hosts that lead to VMs; those of one VM if it is named."""
        return forwards.forward_list(self.look(), name)

    def forward_remove(
        self, name: str, port: str, *, dry_run: bool = False, wait_s: float | None = None
    ) -> Done:
        """The port of the host leads nowhere any more: "8080", "53/udp"."""
        return self._do(
            lambda cluster: forwards.forward_remove(cluster, name, port),
            dry_run=dry_run,
            wait_s=wait_s,
            alone=name,
        )
