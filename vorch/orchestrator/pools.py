"""Pools, the volumes in them, and what was deleted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vorch.decide import hosts, lifecycle, rebuild
from vorch.errors import NotFound, Unsupported
from vorch.model import (
    Check,
    Cluster,
    Pool,
    PoolUsage,
    Trashed,
    check_name,
)
from vorch.orchestrator.core import Done
from vorch.orchestrator.nodes import Nodes
from vorch.plan import Plan
from vorch.ports import (
    Images,
    VolumeInfo,
)

# Volumes whose notes are read at the same time.
OPENED_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Rebuilt(Done):
    """What a pool told of and the store has now, and what was left as it is."""

    vms: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    # Volumes that nothing tells of.
    unknown: tuple[str, ...] = ()
    # A sentence for each thing that a person should know.
    notes: tuple[str, ...] = ()


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
        done = self._do(
            lambda cluster: hosts.add_pool(cluster, pool, found, seen),
            dry_run=dry_run,
            wait_s=wait_s,
        )
        if pool.shared and not dry_run:
            # With the first pool in Ceph it can be asked where hosts stand.
            self._record_places()
        return done

    def pool_remove(self, name: str, *, dry_run: bool = False, wait_s: float | None = None) -> Done:
        """Forget a pool; what is in it stays there. Refused while the cluster uses any of it."""
        return self._do(
            lambda cluster: hosts.remove_pool(cluster, name), dry_run=dry_run, wait_s=wait_s
        )

    def state_rebuild(
        self, pool: str, *, dry_run: bool = False, wait_s: float | None = None
    ) -> Rebuilt:
        """Bring back the VMs, images and networks that the store lacks and the pool tells of.

        For a store that was lost: take the hosts and the pool in first. What the store has is left
        as it is; a VM that runs is recognised where it runs.
        """
        pool = self._pool_named(self.look(), pool)
        images = self.world.images(pool)
        if not images.keeps_notes:
            raise Unsupported(
                f"cannot rebuild from pool {pool!r}: a pool of its kind keeps no notes; restore a"
                " backup of the state"
            )
        names = [one.name for one in images.list() if not one.trashed]
        found = rebuild.read_notes(pool, self._notes(images, names), images.notes(""))
        made: list[rebuild.Rebuilding] = []

        def decide(cluster: Cluster) -> Plan:
            made.append(rebuild.rebuild(cluster, pool, found))
            return made[-1].plan

        done = self._do(decide, dry_run=dry_run, wait_s=wait_s, hosts=lambda cluster: cluster.nodes)
        last = made[-1]
        return Rebuilt(
            plan=done.plan,
            task=done.task,
            vms=last.vms,
            images=last.images,
            networks=last.networks,
            unknown=last.unknown,
            notes=last.notes,
        )

    def _notes(self, images: Images, volumes: Sequence[str]) -> dict[str, dict[str, str]]:
        """Of each volume that is still there; each has to be opened for that."""

        def read(volume: str) -> dict[str, str] | None:
            try:
                return images.notes(volume)
            except NotFound:
                return None

        read_notes = self.world.each(read, volumes, most=OPENED_AT_ONCE)
        return {
            name: notes
            for name, notes in zip(volumes, read_notes, strict=True)
            if notes is not None
        }

    @staticmethod
    def _pool_named(cluster: Cluster, pool: str) -> str:
        """By its name or its URL."""
        by_url = [one.name for one in cluster.pools.values() if one.url == pool]
        if "://" in pool and not by_url:
            raise NotFound(
                f"cannot find a pool at {pool!r}: take it in first (vorch pool add NAME {pool})"
            )
        return by_url[0] if by_url else cluster.pool(pool).name

    def pool_list(self) -> tuple[tuple[Pool, PoolUsage], ...]:
        pools = self.look().pools
        names = sorted(pools)
        usages = self.world.each(lambda name: self.world.images(name).usage(), names)
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
