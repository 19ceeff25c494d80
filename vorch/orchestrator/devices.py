"""Disks, NICs and CDs of a VM."""

from __future__ import annotations

from vorch.decide import devices
from vorch.errors import Invalid, NotFound
from vorch.model import (
    Cluster,
    DiskBus,
    IoLimits,
    NicModel,
    Volume,
)
from vorch.orchestrator.core import Core, Done
from vorch.orchestrator.words import one_of


class Devices(Core):
    def disk_attach(
        self,
        name: str,
        *,
        disk: str | None = None,
        size_gib: int | None = None,
        volume: str | None = None,
        pool: str | None = None,
        storage_class: str | None = None,
        bus: DiskBus | str = DiskBus.VIRTIO,
        limits: IoLimits | None = None,
        dry_run: bool = False,
        wait_s: float | None = None,
    ) -> Done:
        """A new disk of a size, or a volume ("pool/name") that belongs to no VM."""
        fresh = self._fresh()
        given: Volume | None = None
        size_bytes = 0
        if volume is not None:
            where, slash, what = volume.partition("/")
            if not slash:
                raise Invalid(f"cannot attach volume {volume!r}: write it as POOL/NAME")
            given = Volume(pool=where, name=what)
            self.look().pool(where)
            # The list has those in the trash as well, which `disk detach` put there.
            sizes = {one.name: one.size_bytes for one in self.world.images(where).list()}
            if what not in sizes:
                raise NotFound(
                    f"cannot attach volume {volume!r}: pool {where!r} has none of that name;"
                    f" `vorch volume list {where}` shows all",
                    volume=volume,
                )
            size_bytes = sizes[what]

        def into(cluster: Cluster) -> str | None:
            if given is not None and storage_class is None:
                return pool
            vm = cluster.vm(name)
            # One that has disks has to go on reaching them.
            return self._pool_for(cluster, pool, storage_class, node=vm.node if vm.disks else None)

        return self._on_vm(
            name,
            lambda cluster: devices.disk_attach(
                cluster,
                name,
                fresh,
                disk=disk,
                size_gib=size_gib,
                volume=given,
                volume_size_bytes=size_bytes,
                pool=into(cluster),
                bus=one_of(DiskBus, bus, "disk bus"),
                limits=limits,
            ),
            dry_run=dry_run,
            wait_s=wait_s,
        )

    def disk_detach(
        self,
        name: str,
        disk: str,
        *,
        keep: bool = False,
        dry_run: bool = False,
        wait_s: float | None = None,
    ) -> Done:
        """The volume goes to the trash, or stays in the pool (`keep`)."""
        fresh, keep_s = self._fresh(), self.settings.keep_deleted_h * 3600
        return self._on_vm(
            name,
            lambda cluster: devices.disk_detach(
                cluster,
                name,
                disk,
                fresh,
                keep=keep,
                keep_s=keep_s,
                timeout_s=self.settings.detach_timeout_s,
            ),
            dry_run=dry_run,
            wait_s=wait_s,
        )

    def disk_grow(
        self,
        name: str,
        disk: str,
        size_gib: int,
        *,
        dry_run: bool = False,
        wait_s: float | None = None,
    ) -> Done:
        return self._on_vm(
            name,
            lambda cluster: devices.disk_grow(cluster, name, disk, size_gib),
            dry_run=dry_run,
            wait_s=wait_s,
        )

    def nic_attach(
        self,
        name: str,
        *,
        network: str = "default",
        mac: str | None = None,
        model: NicModel | str = NicModel.VIRTIO,
        dry_run: bool = False,
        wait_s: float | None = None,
    ) -> Done:
        fresh = self._fresh()
        return self._on_vm(
            name,
            lambda cluster: devices.nic_attach(
                cluster,
                name,
                fresh,
                network=network,
                mac=mac,
                model=one_of(NicModel, model, "NIC model"),
            ),
            dry_run=dry_run,
            wait_s=wait_s,
            networks=self._networks_called([network]),
        )

    def nic_detach(
        self, name: str, nic: str, *, dry_run: bool = False, wait_s: float | None = None
    ) -> Done:
        """By its name (nic0) or its MAC address."""
        return self._on_vm(
            name,
            lambda cluster: devices.nic_detach(
                cluster, name, nic, timeout_s=self.settings.detach_timeout_s
            ),
            dry_run=dry_run,
            wait_s=wait_s,
        )

    def cd_insert(
        self,
        name: str,
        image: str,
        *,
        drive: str | None = None,
        dry_run: bool = False,
        wait_s: float | None = None,
    ) -> Done:
        return self._on_vm(
            name,
            lambda cluster: devices.cd_insert(cluster, name, image, drive=drive),
            dry_run=dry_run,
            wait_s=wait_s,
        )

    def cd_eject(
        self,
        name: str,
        *,
        drive: str | None = None,
        dry_run: bool = False,
        wait_s: float | None = None,
    ) -> Done:
        return self._on_vm(
            name,
            lambda cluster: devices.cd_eject(cluster, name, drive=drive),
            dry_run=dry_run,
            wait_s=wait_s,
        )
