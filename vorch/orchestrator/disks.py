"""A VM's disks as a whole: where they are, what they take up, and what they may do."""

from __future__ import annotations

import os

from vorch.decide import disks
from vorch.decide.disks import movable
from vorch.errors import Conflict, Invalid, VorchError
from vorch.model import Cluster, Disk, DiskUse, Volume
from vorch.orchestrator.core import Core, Done
from vorch.orchestrator.words import absolute
from vorch.plan import Plan


class Disks(Core):
    def disk_list(self, name: str) -> tuple[DiskUse, ...]:
        """Every disk of a VM, with what it takes up in its pool."""
        vm = self.look().vm(name)
        by_name = {disk.name: disk for disk in vm.disks}
        return self.world.each(lambda one: self._use(by_name[one]), tuple(by_name))

    def _use(self, disk: Disk) -> DiskUse:
        if disk.volume is None:
            return DiskUse(disk=disk, used_bytes=0)
        try:
            info = self.world.images(disk.volume.pool).info(disk.volume.name)
        except VorchError as exc:
            return DiskUse(disk=disk, used_bytes=None, note=exc.message)
        return DiskUse(disk=disk, used_bytes=info.used_bytes, format=info.format, base=info.base)

    def disk_move(
        self,
        name: str,
        disk: str | None = None,
        *,
        pool: str | None = None,
        storage_class: str | None = None,
        dry_run: bool = False,
        wait_s: float | None = None,
    ) -> tuple[Done, ...]:
        """One disk, or (None) all that are the VM's own, to another pool; while it runs or not.

        Each is a task of its own, so those that have moved stay moved when a later one fails.
        """
        if pool is None and storage_class is None:
            raise Invalid(
                f"cannot move disks of VM {name!r}: say where to (--pool, or --class for the best"
                " pool of a class)"
            )
        vm = self.look().vm(name)
        names = (disk,) if disk is not None else movable(vm)
        return tuple(
            self._move_disk(name, one, pool, storage_class, dry_run=dry_run, wait_s=wait_s)
            for one in names
        )

    def _move_disk(
        self,
        name: str,
        disk: str,
        pool: str | None,
        storage_class: str | None,
        *,
        dry_run: bool,
        wait_s: float | None,
    ) -> Done:
        fresh, keep_s = self._fresh(), self.settings.keep_deleted_h * 3600

        def decide(cluster: Cluster) -> Plan:
            vm = cluster.vm(name)
            volume = vm.disk(disk).volume
            where = self._pool_for(
                cluster,
                pool,
                storage_class,
                node=vm.node,
                beside=volume.pool if volume else None,
                needed_bytes=self._taken(volume) if volume and storage_class else 0,
            )
            assert where is not None
            return disks.disk_move(cluster, name, disk, where, fresh, keep_s=keep_s)

        return self._on_vm(name, decide, dry_run=dry_run, wait_s=wait_s)

    def _taken(self, volume: Volume) -> int:
        return self.world.images(volume.pool).info(volume.name).used_bytes

    def disk_flatten(
        self, name: str, disk: str, *, dry_run: bool = False, wait_s: float | None = None
    ) -> Done:
        """Let a linked clone stand on its own, while the VM runs or not."""
        return self._on_vm(
            name,
            lambda cluster: disks.disk_flatten(cluster, name, disk),
            dry_run=dry_run,
            wait_s=wait_s,
        )

    def disk_sparsify(
        self, name: str, disk: str, *, dry_run: bool = False, wait_s: float | None = None
    ) -> Done:
        """Give back what holds only zeros. The task's record says how much (`freed_bytes`)."""
        return self._on_vm(
            name,
            lambda cluster: disks.disk_sparsify(cluster, name, disk),
            dry_run=dry_run,
            wait_s=wait_s,
        )

    def disk_export(
        self,
        name: str,
        disk: str,
        path: str,
        *,
        format: str = "qcow2",
        snapshot: str | None = None,
        dry_run: bool = False,
        wait_s: float | None = None,
    ) -> Done:
        """Write a disk to a new file of this machine, as it is now or was at a snapshot."""
        fresh, whole = self._fresh(), self._new_file(path)
        return self._on_vm(
            name,
            lambda cluster: disks.disk_export(
                cluster, name, disk, whole, fresh, format_=format, snapshot=snapshot
            ),
            dry_run=dry_run,
            wait_s=wait_s,
        )

    def image_export(
        self,
        name: str,
        path: str,
        *,
        disk: str | None = None,
        format: str = "qcow2",
        dry_run: bool = False,
        wait_s: float | None = None,
    ) -> Done:
        """Write an image to a new file of this machine. A CD is exported as raw."""
        fresh, whole = self._fresh(), self._new_file(path)
        return self._do(
            lambda cluster: disks.image_export(
                cluster, name, whole, fresh, disk=disk, format_=format
            ),
            dry_run=dry_run,
            wait_s=wait_s,
        )

    @staticmethod
    def _new_file(path: str) -> str:
        """Before hours of work, not after them; what comes in between is seen at the end."""
        whole = absolute(path)
        if not whole.startswith("/") or whole.endswith("/"):
            raise Invalid(f"cannot export to {path!r}: that is no file of this machine; name one")
        if os.path.lexists(whole):
            raise Conflict(
                f"cannot export to {path!r}: there is a file of that name; remove it, or name"
                " another",
                path=whole,
            )
        return whole

    def disk_limit(
        self,
        name: str,
        disk: str,
        *,
        iops: int | None = None,
        read_iops: int | None = None,
        write_iops: int | None = None,
        mib_s: int | None = None,
        read_mib_s: int | None = None,
        write_mib_s: int | None = None,
        burst_iops: int | None = None,
        burst_mib_s: int | None = None,
        burst_s: int | None = None,
        dry_run: bool = False,
        wait_s: float | None = None,
    ) -> Done:
        """How much I/O a disk may do, at once where the VM runs. None: as it was; 0: no limit."""
        given = {
            "iops": iops,
            "read_iops": read_iops,
            "write_iops": write_iops,
            "mib_s": mib_s,
            "read_mib_s": read_mib_s,
            "write_mib_s": write_mib_s,
            "burst_iops": burst_iops,
            "burst_mib_s": burst_mib_s,
            "burst_s": burst_s,
        }
        changes = {what: value for what, value in given.items() if value is not None}
        return self._on_vm(
            name,
            lambda cluster: disks.disk_limit(cluster, name, disk, changes),
            dry_run=dry_run,
            wait_s=wait_s,
        )
