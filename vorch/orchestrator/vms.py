"""The life of a VM: made, installed, started, changed, stopped, deleted."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from vorch.decide import agree, barred, lifecycle
from vorch.decide import install as decide_install
from vorch.decide.answers import INSTALLERS, AnswerKind
from vorch.decide.answers import answers as judge_answers
from vorch.decide.install import Installer
from vorch.decide.lifecycle import NewVm
from vorch.decide.place import Keeping
from vorch.decide.status import status
from vorch.errors import Invalid, NoRoom
from vorch.model import (
    Address,
    CloudInit,
    Cluster,
    DiskBus,
    Figures,
    Firmware,
    IoLimits,
    NicModel,
    VmStatus,
    Watchdog,
)
from vorch.orchestrator import kept
from vorch.orchestrator.core import Core, Done
from vorch.orchestrator.room_hint import with_way, with_way_for
from vorch.orchestrator.words import absolute, checked_seconds, one_of, pages_word, word_of
from vorch.plan import Plan


class Vms(Core):
    def list(self, *, tags: Sequence[str] = ()) -> tuple[VmStatus, ...]:
        """All VMs by name, with what they do now: one call per host.

        `tags`: only those that have all of these.
        """
        cluster = self.look(None)
        return tuple(
            status(cluster, cluster.vms[name])
            for name in sorted(cluster.vms)
            if set(tags) <= set(cluster.vms[name].tags)
        )

    def show(self, name: str) -> VmStatus:
        """One VM with everything about it, its guest's addresses included."""
        cluster = self._at(name)
        vm = cluster.vm(name)
        addresses: tuple[Address, ...] = ()
        if vm.id in cluster.domains:
            addresses = self.world.hypervisor(vm.node).addresses(vm)
        return status(cluster, vm, addresses)

    def figures(self, name: str) -> Figures:
        """Counters of a running VM: processor, memory, disks, NICs."""
        vm = self._running(name, "read the figures of")
        return self.world.hypervisor(vm.node).figures(vm, now=self.world.clock.now())

    def create(
        self,
        name: str,
        *,
        image: str | None = None,
        iso: str | None = None,
        vcpus: int | None = None,
        vcpus_max: int | None = None,
        memory_mib: int | None = None,
        memory_max_mib: int | None = None,
        disk_gib: int | None = None,
        pool: str | None = None,
        storage_class: str | None = None,
        limits: IoLimits | None = None,
        networks: Sequence[str] = ("default",),
        macs: Sequence[str] = (),
        nic_model: NicModel | str = NicModel.VIRTIO,
        disk_bus: DiskBus | str | None = None,
        firmware: Firmware | str | None = None,
        secure_boot: bool = False,
        tpm: bool = False,
        hypervisor: str | None = None,
        xen_kind: str | None = None,
        xen_loader: str | None = None,
        machine: str = "q35",
        cpu: str = "default",
        graphics: bool = True,
        agent: bool = True,
        watchdog: Watchdog | str = Watchdog.NONE,
        tags: Sequence[str] = (),
        require_tags: Sequence[str] = (),
        huge_pages: str = "",
        one_numa_cell: bool = False,
        linked: bool = True,
        node: str | None = None,
        cloud_init: CloudInit | None = None,
        description: str = "",
        start: bool = False,
        force: bool = False,
        dry_run: bool = False,
        wait_s: float | None = None,
    ) -> Done:
        """A VM from an image or template (linked unless told otherwise), or with an empty disk.

        `force`: also where that takes the room away that others need when a host is lost.
        """
        new = NewVm(
            name=name,
            image=image,
            iso=iso,
            vcpus=vcpus,
            vcpus_max=vcpus_max,
            memory_mib=memory_mib,
            memory_max_mib=memory_max_mib,
            disk_gib=disk_gib,
            limits=limits or IoLimits(),
            networks=tuple(networks),
            macs=tuple(macs),
            nic_model=one_of(NicModel, nic_model, "NIC model"),
            disk_bus=None if disk_bus is None else one_of(DiskBus, disk_bus, "disk bus"),
            firmware=None if firmware is None else one_of(Firmware, firmware, "firmware"),
            secure_boot=secure_boot,
            tpm=tpm,
            hypervisor=word_of(NewVm, "hypervisor", hypervisor),
            xen_kind=word_of(NewVm, "xen_kind", xen_kind),
            xen_loader=word_of(NewVm, "xen_loader", xen_loader),
            machine=machine,
            cpu=cpu,
            graphics=graphics,
            agent=agent,
            watchdog=one_of(Watchdog, watchdog, "what a watchdog does"),
            tags=tuple(tags),
            require_tags=tuple(require_tags),
            huge_pages=pages_word(huge_pages),
            one_numa_cell=one_numa_cell,
            linked=linked,
            node=node,
            cloud_init=cloud_init,
            description=description,
            start=start,
        )
        fresh = self._fresh()
        overhead = self.settings.vm_overhead_mib

        def stored(cluster: Cluster) -> NewVm:
            # Of an image it is made where that is, unless somebody says otherwise.
            beside = cluster.images[image].disks[0].volume.pool if image in cluster.images else None
            where = self._pool_for(
                cluster, pool, storage_class, or_default=image is None, node=node, beside=beside
            )
            return dataclasses.replace(new, pool=where)

        def decide(cluster: Cluster) -> Plan:
            keeping = kept.keeping(self.world.state, cluster, force=force)
            return lifecycle.create(
                cluster, stored(cluster), fresh, overhead_mib=overhead, keeping=keeping
            )

        try:
            return self._do(
                decide,
                dry_run=dry_run,
                wait_s=wait_s,
                hosts=(lambda c: self._to_place(c, node)) if start else None,
                networks=self._networks_called(networks) if start else None,
            )
        except NoRoom as exc:
            raise with_way_for(
                self, exc, lambda c: lifecycle.newcomer(c, stored(c), fresh), node
            ) from exc

    def install(
        self,
        name: str,
        answers: str,
        *,
        iso: str | None = None,
        kernel: str | None = None,
        initrd: str | None = None,
        kind: AnswerKind | str | None = None,
        arguments: str = "",
        vcpus: int | None = None,
        memory_mib: int | None = None,
        disk_gib: int | None = None,
        pool: str | None = None,
        storage_class: str | None = None,
        networks: Sequence[str] = ("default",),
        firmware: Firmware | str | None = None,
        hypervisor: str | None = None,
        xen_kind: str | None = None,
        xen_loader: str | None = None,
        machine: str = "q35",
        cpu: str = "default",
        tpm: bool = False,
        node: str | None = None,
        tags: Sequence[str] = (),
        description: str = "",
        timeout_s: float | None = None,
        start: bool = False,
        force: bool = False,
        dry_run: bool = False,
        wait_s: float | None = None,
    ) -> Done:
        """Install a system without anybody at the keyboard, and wait until the installer is done.

        `answers` is the text of a preseed, kickstart, autoinstall or autounattend file. The
        installer is a CD of the image store, or a kernel and initrd. The task's record says how
        long it took (`elapsed_s`).
        """
        told = judge_answers(
            answers,
            None if kind is None else one_of(AnswerKind, kind, "kind of answer file"),
            hostname=name if "." not in name else "",
            extra_arguments=arguments,
        )
        new = NewVm(
            name=name,
            vcpus=vcpus,
            memory_mib=memory_mib,
            disk_gib=disk_gib,
            networks=tuple(networks),
            firmware=None if firmware is None else one_of(Firmware, firmware, "firmware"),
            hypervisor=word_of(NewVm, "hypervisor", hypervisor),
            xen_kind=word_of(NewVm, "xen_kind", xen_kind),
            xen_loader=word_of(NewVm, "xen_loader", xen_loader),
            machine=machine,
            cpu=cpu,
            tpm=tpm,
            tags=tuple(tags),
            node=node,
            description=description,
            start=start,
        )
        limit_s = checked_seconds(
            self.settings.install_timeout_s if timeout_s is None else timeout_s
        )
        fresh = self._fresh()
        installer = Installer(
            iso=iso,
            kernel=None if kernel is None else absolute(kernel),
            initrd=None if initrd is None else absolute(initrd),
        )
        if iso is not None and kernel is None and initrd is None and told.boots == "kernel":
            installer = self._installer_on(iso)

        def stored(cluster: Cluster) -> NewVm:
            where = self._pool_for(cluster, pool, storage_class, node=node)
            return dataclasses.replace(new, pool=where)

        try:
            return self._do(
                lambda cluster: decide_install.install(
                    cluster,
                    stored(cluster),
                    installer,
                    told,
                    fresh,
                    timeout_s=limit_s,
                    overhead_mib=self.settings.vm_overhead_mib,
                    keeping=kept.keeping(self.world.state, cluster, force=force),
                ),
                dry_run=dry_run,
                wait_s=wait_s,
                hosts=lambda c: self._to_place(c, node),
                networks=self._networks_called(networks),
            )
        except NoRoom as exc:
            raise with_way_for(
                self, exc, lambda c: lifecycle.newcomer(c, stored(c), fresh), node
            ) from exc

    def _to_place(self, cluster: Cluster, node: str | None) -> Iterable[str]:
        """The hosts to look at before a new VM starts."""
        return cluster.nodes if node is None else kept.with_spare(self.world.state, cluster, [node])

    def _installer_on(self, iso: str) -> Installer:
        """Where the installer's kernel and initrd are on this CD, by looking."""
        volume = self.look().image(iso).disks[0].volume
        with self.world.images(volume.pool).open_read(volume.name) as file:
            for place in INSTALLERS:
                if self.world.media.find(file, [place.kernel]) is None:
                    continue
                if self.world.media.find(file, [place.initrd]) is not None:
                    return Installer(iso=iso, kernel=place.kernel, initrd=place.initrd, on_cd=True)
        raise Invalid(
            f"cannot install from CD {iso!r}: it has no installer's kernel at a place that vorch"
            " knows; give kernel and initrd as files (--kernel, --initrd)",
            image=iso,
        )

    def start(
        self,
        name: str,
        *,
        force: bool = False,
        dry_run: bool = False,
        wait_s: float | None = None,
    ) -> Done:
        """Start it where it belongs.

        `force`: also where a rule keeps it from, or where that takes the room away that others
        need when a host is lost.
        """
        overhead = self.settings.vm_overhead_mib

        def decide(cluster: Cluster) -> Plan:
            ha = kept.availability(self.world.state)
            seen = barred.ruled(cluster, ha, name, overhead_mib=overhead, force=force)
            plan = lifecycle.start(
                seen, name, overhead_mib=overhead, keeping=Keeping(ha=ha, force=force)
            )
            return agree.started(plan, ha, name)

        try:
            return self._on_vm(
                name,
                decide,
                dry_run=dry_run,
                wait_s=wait_s,
                whole_host=True,
                networks=self._networks_of(name),
            )
        except NoRoom as exc:
            here = self.look().vm(name).node
            raise with_way(self, exc, name, here, away=False) from exc

    def stop(
        self,
        name: str,
        *,
        timeout_s: float | None = None,
        force: bool = False,
        dry_run: bool = False,
        wait_s: float | None = None,
    ) -> Done:
        """Ask the guest and wait; after the time `TimedOut`. `force` cuts its power instead."""
        limit_s = checked_seconds(self.settings.stop_timeout_s if timeout_s is None else timeout_s)
        return self._on_vm(
            name,
            lambda cluster: agree.stopped(
                lifecycle.stop(cluster, name, timeout_s=limit_s, force=force),
                kept.availability(self.world.state),
                name,
            ),
            dry_run=dry_run,
            wait_s=wait_s,
        )

    def restart(
        self,
        name: str,
        *,
        timeout_s: float | None = None,
        force: bool = False,
        dry_run: bool = False,
        wait_s: float | None = None,
    ) -> Done:
        """Stop and start anew, so that every change of the definition takes effect."""
        limit_s = checked_seconds(self.settings.stop_timeout_s if timeout_s is None else timeout_s)
        return self._on_vm(
            name,
            lambda cluster: agree.started(
                lifecycle.restart(
                    cluster,
                    name,
                    timeout_s=limit_s,
                    force=force,
                    overhead_mib=self.settings.vm_overhead_mib,
                ),
                kept.availability(self.world.state),
                name,
            ),
            dry_run=dry_run,
            wait_s=wait_s,
            whole_host=True,
            networks=self._networks_of(name),
        )

    def reset(self, name: str, *, dry_run: bool = False, wait_s: float | None = None) -> Done:
        """Press the reset button: the guest boots again without having been asked."""
        return self._on_vm(
            name, lambda cluster: lifecycle.reset(cluster, name), dry_run=dry_run, wait_s=wait_s
        )

    def pause(self, name: str, *, dry_run: bool = False, wait_s: float | None = None) -> Done:
        return self._on_vm(
            name, lambda cluster: lifecycle.pause(cluster, name), dry_run=dry_run, wait_s=wait_s
        )

    def resume(self, name: str, *, dry_run: bool = False, wait_s: float | None = None) -> Done:
        return self._on_vm(
            name, lambda cluster: lifecycle.resume(cluster, name), dry_run=dry_run, wait_s=wait_s
        )

    def delete(
        self,
        name: str,
        *,
        force: bool = False,
        purge: bool = False,
        dry_run: bool = False,
        wait_s: float | None = None,
    ) -> Done:
        """The disks can be had back for a while (`undelete`), unless `purge`."""
        fresh, keep_s = self._fresh(), self.settings.keep_deleted_h * 3600
        return self._on_vm(
            name,
            lambda cluster: agree.gone(
                lifecycle.delete(cluster, name, fresh, force=force, purge=purge, keep_s=keep_s),
                kept.availability(self.world.state),
                name,
            ),
            dry_run=dry_run,
            wait_s=wait_s,
        )

    def undelete(
        self,
        name: str,
        *,
        new_name: str | None = None,
        dry_run: bool = False,
        wait_s: float | None = None,
    ) -> Done:
        return self._do(
            lambda cluster: lifecycle.undelete(cluster, name, new_name),
            dry_run=dry_run,
            wait_s=wait_s,
        )

    def rename(
        self, name: str, new_name: str, *, dry_run: bool = False, wait_s: float | None = None
    ) -> Done:
        return self._on_vm(
            name,
            lambda cluster: agree.renamed(
                lifecycle.rename(cluster, name, new_name),
                kept.availability(self.world.state),
                name,
                new_name,
            ),
            dry_run=dry_run,
            wait_s=wait_s,
        )
