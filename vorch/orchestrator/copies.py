"""Clones, templates and snapshots."""

from __future__ import annotations

from vorch.decide import copies
from vorch.errors import NoRoom
from vorch.model import (
    CloudInit,
    Cluster,
    Snapshot,
    Vm,
    check_vm_name,
)
from vorch.orchestrator import kept
from vorch.orchestrator.core import Core, Done
from vorch.orchestrator.room_hint import with_way_for
from vorch.orchestrator.words import word_of


class Copies(Core):
    def clone(
        self,
        name: str,
        new_name: str,
        *,
        linked: bool = False,
        cloud_init: CloudInit | None = None,
        pool: str | None = None,
        storage_class: str | None = None,
        hypervisor: str | None = None,
        xen_kind: str | None = None,
        xen_loader: str | None = None,
        start: bool = False,
        force: bool = False,
        dry_run: bool = False,
        wait_s: float | None = None,
    ) -> Done:
        """A full clone, also of a running VM; or a linked one of a VM that is off.

        Its disks are in the pools of the first one's, or all in the pool or class that is named.
        `force`: start it also where that takes the room away that others need when a host is lost.
        """
        fresh = self._fresh()

        def second(cluster: Cluster) -> Vm:
            return copies.second(
                cluster,
                name,
                new_name,
                fresh,
                linked=linked,
                cloud_init=cloud_init,
                pool=self._pool_for(cluster, pool, storage_class, or_default=False),
            )

        try:
            return self._do(
                lambda cluster: copies.clone(
                    cluster,
                    name,
                    new_name,
                    fresh,
                    linked=linked,
                    cloud_init=cloud_init,
                    start=start,
                    overhead_mib=self.settings.vm_overhead_mib,
                    pool=self._pool_for(cluster, pool, storage_class, or_default=False),
                    hypervisor=word_of(Vm, "hypervisor", hypervisor),
                    xen_kind=word_of(Vm, "xen_kind", xen_kind),
                    xen_loader=word_of(Vm, "xen_loader", xen_loader),
                    keeping=kept.keeping(self.world.state, cluster, force=force),
                ),
                dry_run=dry_run,
                wait_s=wait_s,
                hosts=lambda c: c.nodes if start else [c.vm(name).node],
                about=(f"vm/{check_vm_name(name)}",),
                networks=(
                    lambda c: self._networks_called(nic.network for nic in c.vm(name).nics)(c)
                )
                if start
                else None,
            )
        except NoRoom as exc:
            raise with_way_for(self, exc, second, None) from exc

    def template(
        self,
        name: str,
        image: str,
        *,
        pool: str | None = None,
        storage_class: str | None = None,
        description: str = "",
        dry_run: bool = False,
        wait_s: float | None = None,
    ) -> Done:
        """An image made of a VM; the VM stays."""
        fresh = self._fresh()
        return self._on_vm(
            name,
            lambda cluster: copies.template(
                cluster,
                name,
                image,
                fresh,
                description=description,
                pool=self._pool_for(cluster, pool, storage_class, or_default=False),
            ),
            dry_run=dry_run,
            wait_s=wait_s,
        )

    def snapshot_create(
        self,
        name: str,
        snapshot: str,
        *,
        freeze: bool = True,
        description: str = "",
        dry_run: bool = False,
        wait_s: float | None = None,
    ) -> Done:
        """All disks at one point, the guest frozen when its agent answers."""
        fresh = self._fresh()
        return self._on_vm(
            name,
            lambda cluster: copies.snapshot_create(
                cluster, name, snapshot, fresh, freeze=freeze, description=description
            ),
            dry_run=dry_run,
            wait_s=wait_s,
        )

    def snapshot_list(self, name: str) -> tuple[Snapshot, ...]:
        return self.look().vm(name).snapshots

    def snapshot_rollback(
        self, name: str, snapshot: str, *, dry_run: bool = False, wait_s: float | None = None
    ) -> Done:
        return self._on_vm(
            name,
            lambda cluster: copies.snapshot_rollback(cluster, name, snapshot),
            dry_run=dry_run,
            wait_s=wait_s,
        )

    def snapshot_delete(
        self, name: str, snapshot: str, *, dry_run: bool = False, wait_s: float | None = None
    ) -> Done:
        return self._on_vm(
            name,
            lambda cluster: copies.snapshot_delete(cluster, name, snapshot),
            dry_run=dry_run,
            wait_s=wait_s,
        )
