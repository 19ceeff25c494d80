"""Networks by name."""

from __future__ import annotations

from typing import Literal

from vorch.decide import catalog
from vorch.errors import Invalid
from vorch.model import (
    Network,
)
from vorch.orchestrator.core import Core, Done


class Networks(Core):
    def network_create(
        self,
        name: str,
        *,
        kind: Literal["bridge", "nat", "isolated"] = "nat",
        bridge: str | None = None,
        subnet: str | None = None,
        dhcp: bool = True,
        vlan: int | None = None,
        dry_run: bool = False,
        wait_s: float | None = None,
    ) -> Done:
        if kind not in ("bridge", "nat", "isolated"):
            raise Invalid(
                f"cannot make a network of kind {kind!r}: it is 'bridge', 'nat' or 'isolated'"
            )
        fresh = self._fresh()
        used: list[str] = []
        if kind != "bridge":
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
            ),
            dry_run=dry_run,
            wait_s=wait_s,
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
