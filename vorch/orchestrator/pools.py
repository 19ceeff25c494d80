"""Pools, the volumes in them, and what was deleted."""

from __future__ import annotations

from vorch.decide import hosts, lifecycle
from vorch.model import (
    Check,
    Pool,
    PoolUsage,
    Trashed,
    check_name,
)
from vorch.orchestrator.core import Done
from vorch.orchestrator.nodes import Nodes
from vorch.ports import (
    VolumeInfo,
)


class Pools(Nodes):
    def pool_add(
        self,
        name: str,
        url: str,
        *,
        node: str | None = None,
        dry_run: bool = False,
        wait_s: float | None = None,
    ) -> Done:
        """Take a pool in, when every host can open what is in it.

        A folder is on one host, the one whose libvirt vorch reaches on this machine: `node`.
        """
        pool = Pool(name=name, url=url, node=node or "")
        cluster = self.look()
        hosts.add_pool(cluster, pool, {})
        found: dict[str, tuple[Check, ...]] = {}
        addresses: dict[str, list[str]] = {}
        images = self.world.new_pool(pool)
        try:
            images.usage()
            if pool.shared:
                for one in sorted(cluster.nodes):
                    if not self.world.hypervisor(one).facts().accelerator:
                        self.node_probe(one)
                    found[one] = self._try_pool(
                        images, pool, self.world.hypervisor(one), addresses.setdefault(one, [])
                    )
        finally:
            images.close()
        seen = {one: there[0] for one, there in addresses.items() if there}
        return self._do(
            lambda cluster: hosts.add_pool(cluster, pool, found, seen),
            dry_run=dry_run,
            wait_s=wait_s,
        )

    def pool_remove(self, name: str, *, dry_run: bool = False, wait_s: float | None = None) -> Done:
        """Forget a pool; what is in it stays there. Refused while the cluster uses any of it."""
        return self._do(
            lambda cluster: hosts.remove_pool(cluster, name), dry_run=dry_run, wait_s=wait_s
        )

    def pool_list(self) -> tuple[tuple[Pool, PoolUsage], ...]:
        pools = self.look().pools
        names = sorted(pools)
        usages = self._each(lambda name: self.world.images(name).usage(), names)
        return tuple(zip((pools[name] for name in names), usages, strict=True))

    def volume_list(self, pool: str) -> tuple[VolumeInfo, ...]:
        """Every volume of a pool, hidden and deleted ones included."""
        self.look().pool(pool)
        return self.world.images(pool).list()

    def trash_list(self) -> tuple[Trashed, ...]:
        trash = self.look().trash
        return tuple(sorted(trash.values(), key=lambda one: (one.deleted_at, one.key)))

    def trash_purge(
        self, key: str | None = None, *, dry_run: bool = False, wait_s: float | None = None
    ) -> tuple[Done, ...]:
        """One thing in the trash, or (None) all whose time is over, deleted for good."""
        now = self.world.clock.now()
        if key is not None:
            keys = [check_name(key, "key") if len(key) < 64 else key]
        else:
            keys = [one.key for one in self.trash_list() if one.purge_at <= now]
        return tuple(
            self._do(
                lambda cluster, key=one: lifecycle.purge(cluster, key),  # type: ignore[misc]
                dry_run=dry_run,
                wait_s=wait_s,
            )
            for one in keys
        )
