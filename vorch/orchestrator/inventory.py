"""The machines of the cluster in groups, with the addresses at which they are reached."""

from __future__ import annotations

import contextlib

from vorch.decide import inventory
from vorch.decide.inventory import Inventory
from vorch.errors import VorchError
from vorch.model import Address
from vorch.orchestrator.core import Core
from vorch.ports import Hypervisor


class Inventories(Core):
    def inventory(self) -> Inventory:
        """All VMs as machines to be reached, and groups of them: by host, network and state.

        Hosts are asked for their guests' addresses side by side; what one does not tell in its
        time is left out.
        """
        cluster = self.look(None)
        by_id = {vm.id: vm for vm in cluster.vms.values()}
        found: dict[str, tuple[Address, ...]] = {}

        def ask(host: Hypervisor) -> None:
            for domain in host.domains():
                # One that has just ended is no reason to say nothing of the others.
                if domain.id in by_id:
                    with contextlib.suppress(VorchError):
                        found[domain.id] = host.addresses(by_id[domain.id])

        busy = {domain.node for domain in cluster.domains.values() if domain.id in by_id}
        self.hosts.ask(sorted(busy), ask)
        # A host that is late may still be telling.
        return inventory.inventory(cluster, dict(found))
