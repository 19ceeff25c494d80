"""`Orchestrator`: the one class that users hold. Look once, decide, act.

Each verb that changes something takes `dry_run` (the plan is made and not carried out) and `wait_s`
(how long to wait for another task on the same VM before saying `Conflict`), and returns `Done`.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, TypeVar

from vorch.codec import decode
from vorch.config import Settings
from vorch.decide import catalog, copies, devices, hosts, lifecycle, move
from vorch.decide import install as decide_install
from vorch.decide.answers import INSTALLERS, AnswerKind
from vorch.decide.answers import answers as judge_answers
from vorch.decide.fresh import Fresh
from vorch.decide.install import Installer
from vorch.decide.lifecycle import Changes, NewVm
from vorch.decide.records import is_on, known_power, save
from vorch.decide.status import status
from vorch.errors import Conflict, Invalid, NotFound, TimedOut, Unreachable, Unsupported, VorchError
from vorch.execute import Executor, Hook, Watcher
from vorch.model import (
    Address,
    Check,
    CloudInit,
    Cluster,
    DiskBus,
    Domain,
    Figures,
    Firmware,
    HostFacts,
    Image,
    Network,
    NicModel,
    Node,
    Pool,
    PoolUsage,
    Snapshot,
    Source,
    Task,
    Trashed,
    Vm,
    VmStatus,
    Volume,
    check_name,
    check_text,
    check_vm_name,
)
from vorch.plan import Plan
from vorch.ports import (
    Console,
    Display,
    Hypervisor,
    Images,
    VolumeInfo,
    World,
    no_progress,
)

T = TypeVar("T")
KINDS: dict[str, type[Any]] = {
    "vm": Vm,
    "node": Node,
    "pool": Pool,
    "image": Image,
    "network": Network,
    "trash": Trashed,
}
# How often a task that waits looks again.
WAIT_POLL_S = 0.2
# A volume that hosts open to show that they can.
TRIAL_BYTES = 1024**2
# A decision is made anew this often when what it rested on changed under it.
FRESH_LOOKS = 10


@dataclass(frozen=True, slots=True)
class Done:
    """What a verb came to: the plan, and the record of its execution (None after a dry run)."""

    plan: Plan
    task: Task | None

    def __str__(self) -> str:
        return str(self.plan)


class Orchestrator:
    """A cluster in one hand. Made by `vorch.connect`; safe to use from several threads."""

    def __init__(
        self,
        world: World,
        settings: Settings,
        *,
        watch: Watcher | None = None,
        hook: Hook | None = None,
    ) -> None:
        self.world = world
        self.settings = settings
        self.executor = Executor(world, settings, watch=watch, hook=hook)

    def __enter__(self) -> Orchestrator:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self.world.close()

    # -- look -------------------------------------------------------------------------------------

    def look(self, hosts: Iterable[str] | None = ()) -> Cluster:
        """What the store says, and what these hosts show (None: all of them)."""
        documents = self.world.state.read([*KINDS])
        parts: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}
        versions = {}
        for key, document in documents.items():
            kind, _, name = key.partition("/")
            parts[kind][name] = decode(KINDS[kind], document.body)
            versions[key] = document.version
        cluster = Cluster(
            vms=parts["vm"],
            nodes=parts["node"],
            pools=parts["pool"],
            images=parts["image"],
            networks=parts["network"],
            trash=parts["trash"],
            versions=versions,
        )
        return self._seen(cluster, sorted(cluster.nodes) if hosts is None else hosts)

    def _seen(self, cluster: Cluster, hosts: Iterable[str]) -> Cluster:
        """The same with what these hosts show."""
        asked = [name for name in dict.fromkeys(hosts) if name in cluster.nodes]
        if not asked:
            return cluster
        domains: dict[str, Domain] = {}
        silent: dict[str, str] = {}
        homes = {vm.id: vm.node for vm in cluster.vms.values()}
        for name, answer in zip(asked, self._each(self._domains, asked), strict=True):
            if isinstance(answer, VorchError):
                silent[name] = answer.message
                continue
            for domain in answer:
                # One that is on its way to another host is seen on both.
                if domain.id not in domains or homes.get(domain.id) == name:
                    domains[domain.id] = domain
        return dataclasses.replace(cluster, domains=domains, silent=silent)

    def _domains(self, node: str) -> tuple[Domain, ...] | VorchError:
        try:
            return tuple(
                dataclasses.replace(domain, node=node)
                for domain in self.world.hypervisor(node).domains()
            )
        except VorchError as exc:
            return exc

    def _each(self, act: Callable[[str], T], names: Sequence[str]) -> tuple[T, ...]:
        """One after the other, or side by side where there are several and threads are allowed."""
        if len(names) < 2 or not self.world.threads:
            return tuple(act(name) for name in names)
        with ThreadPoolExecutor(max_workers=min(16, len(names))) as pool:
            return tuple(pool.map(act, names))

    def _at(self, name: str) -> Cluster:
        """A look that knows what this VM does, without asking about any other."""
        cluster = self.look()
        return self._seen_alone(cluster, cluster.vm(name))

    def _seen_alone(self, cluster: Cluster, vm: Vm) -> Cluster:
        """What one VM does. A host that is busy with another one is not waited for."""
        try:
            domain = self.world.hypervisor(vm.node).domain(vm.id)
        except VorchError as exc:
            return dataclasses.replace(cluster, silent={vm.node: exc.message})
        if domain is None:
            return cluster
        seen = dataclasses.replace(domain, node=vm.node)
        return dataclasses.replace(cluster, domains={vm.id: seen})

    # -- decide and act -----------------------------------------------------------------------

    def _do(
        self,
        decide: Callable[[Cluster], Plan],
        *,
        dry_run: bool,
        wait_s: float | None,
        hosts: Callable[[Cluster], Iterable[str]] | None = None,
        alone: str | None = None,
        about: tuple[str, ...] = (),
    ) -> Done:
        """Look, decide, act; look again when what was decided from has changed meanwhile."""
        clock = self.world.clock
        until = clock.now() + (self.settings.wait_s if wait_s is None else wait_s)
        looks = 0
        while True:
            cluster = self.look()
            if hosts is not None:
                names = tuple(hosts(cluster))
                if self._find_facts(cluster, names):
                    cluster = self.look()
                cluster = self._seen(cluster, names)
            elif alone is not None:
                cluster = self._seen_alone(cluster, cluster.vm(alone))
            try:
                plan = decide(cluster)
            except VorchError as exc:
                # What was seen may be half of what another process is doing (a domain that is just
                # being started looks paused), so it counts only when nobody is at it.
                if dry_run or not any(self.executor.holder(key) for key in about):
                    raise
                if self._give_way(about, until):
                    continue
                raise self._busy("work on", about[0].partition("/")[2], about) from exc
            if dry_run or plan.empty:
                return Done(plan, None)
            try:
                return Done(plan, self.executor.run(plan))
            except Conflict as exc:
                key = str(exc.fields.get("key", ""))
                if key.startswith("claim/"):
                    if self._give_way(plan.claims, until):
                        continue
                    raise self._busy(plan.verb, plan.subject, plan.claims) from exc
                if not key or looks >= FRESH_LOOKS:
                    raise
                looks += 1

    def _find_facts(self, cluster: Cluster, names: Iterable[str]) -> bool:
        """Find out about hosts of which nobody has yet; True when something new was recorded."""
        found = False
        for name in names:
            node = cluster.nodes.get(name)
            if node is not None and (node.facts is None or not node.facts.accelerator):
                try:
                    self.node_probe(name)
                    found = True
                except Unreachable:
                    continue
        return found

    def _give_way(self, keys: tuple[str, ...], until: float) -> bool:
        """True when it is worth another try: the holder is gone, or there is time to wait."""
        for key in keys:
            held = self.executor.holder(key)
            if held is None:
                continue
            document, journal = held
            if self.executor.abandoned(journal):
                self.executor.take_over(document, journal)
                return True
            if self.world.clock.now() < until:
                self.world.clock.sleep(WAIT_POLL_S)
                return True
            return False
        return True

    def _busy(self, verb: str, subject: str, keys: tuple[str, ...]) -> Conflict:
        """Who is at it, and since it is somebody else, what to do."""
        for key in keys:
            held = self.executor.holder(key)
            if held is not None:
                journal = held[1]
                kind, _, name = key.partition("/")
                stuck = not journal.runner
                what = f"{journal.plan.verb} {journal.plan.subject!r}"
                return Conflict(
                    f"cannot {verb} {subject!r}: {what} (task {journal.id})"
                    + (" was left unfinished" if stuck else " is at work")
                    + f" on {kind} {name!r}; "
                    + (
                        "see `vorch task show` and try `vorch recover`"
                        if stuck
                        else "wait for it (--wait), or cancel it (vorch task cancel)"
                    ),
                    task=journal.id,
                    **{kind: name},
                )
        return Conflict(f"cannot {verb} {subject!r}: it was busy; try again")

    def _fresh(self) -> Fresh:
        chance = self.world.chance
        return Fresh(uuid=chance.uuid(), token=chance.take(8).hex(), now=self.world.clock.now())

    def _on_vm(
        self,
        name: str,
        decide: Callable[[Cluster], Plan],
        *,
        dry_run: bool,
        wait_s: float | None,
        whole_host: bool = False,
    ) -> Done:
        """Decide about one VM. `whole_host`: the decision needs to know what else runs there."""
        return self._do(
            decide,
            dry_run=dry_run,
            wait_s=wait_s,
            hosts=(lambda c: [c.vm(name).node]) if whole_host else None,
            alone=None if whole_host else name,
            about=(f"vm/{check_vm_name(name)}",),
        )

    # -- VMs: what there is -----------------------------------------------------------------------

    def list(self) -> tuple[VmStatus, ...]:
        """All VMs by name, with what they do now: one call per host."""
        cluster = self.look(None)
        return tuple(status(cluster, cluster.vms[name]) for name in sorted(cluster.vms))

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

    def console(self, name: str) -> Console:
        """The serial port of a running VM, as a two-way stream."""
        vm = self._running(name, "open the console of")
        return self.world.hypervisor(vm.node).console(vm.id)

    def display(self, name: str) -> Display:
        """Where the VM's screen can be seen, from its host's point of view."""
        vm = self._running(name, "show the display of")
        display = self.world.hypervisor(vm.node).display(vm.id)
        if display is None:
            raise NotFound(
                f"cannot show the display of VM {name!r}: it has none; give it one"
                " (vorch change --graphics) and restart it",
                vm=name,
            )
        return display

    def _running(self, name: str, verb: str) -> Vm:
        cluster = self._at(name)
        vm = cluster.vm(name)
        if not is_on(known_power(cluster, vm, verb)):
            raise Conflict(f"cannot {verb} VM {name!r}: it is off; start it first", vm=name)
        return vm

    # -- VMs: life --------------------------------------------------------------------------------

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
        networks: Sequence[str] = ("default",),
        macs: Sequence[str] = (),
        nic_model: NicModel | str = NicModel.VIRTIO,
        disk_bus: DiskBus | str | None = None,
        firmware: Firmware | str | None = None,
        secure_boot: bool = False,
        tpm: bool = False,
        machine: str = "q35",
        cpu: str = "default",
        graphics: bool = True,
        agent: bool = True,
        linked: bool = True,
        node: str | None = None,
        cloud_init: CloudInit | None = None,
        description: str = "",
        start: bool = False,
        dry_run: bool = False,
        wait_s: float | None = None,
    ) -> Done:
        """A VM from an image or template (linked unless told otherwise), or with an empty disk."""
        new = NewVm(
            name=name,
            image=image,
            iso=iso,
            vcpus=vcpus,
            vcpus_max=vcpus_max,
            memory_mib=memory_mib,
            memory_max_mib=memory_max_mib,
            disk_gib=disk_gib,
            pool=pool,
            networks=tuple(networks),
            macs=tuple(macs),
            nic_model=_one_of(NicModel, nic_model, "NIC model"),
            disk_bus=None if disk_bus is None else _one_of(DiskBus, disk_bus, "disk bus"),
            firmware=None if firmware is None else _one_of(Firmware, firmware, "firmware"),
            secure_boot=secure_boot,
            tpm=tpm,
            machine=machine,
            cpu=cpu,
            graphics=graphics,
            agent=agent,
            linked=linked,
            node=node,
            cloud_init=cloud_init,
            description=description,
            start=start,
        )
        fresh = self._fresh()
        overhead = self.settings.vm_overhead_mib
        return self._do(
            lambda cluster: lifecycle.create(cluster, new, fresh, overhead_mib=overhead),
            dry_run=dry_run,
            wait_s=wait_s,
            hosts=(lambda c: [node] if node else c.nodes) if start else None,
        )

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
        networks: Sequence[str] = ("default",),
        firmware: Firmware | str | None = None,
        machine: str = "q35",
        cpu: str = "default",
        tpm: bool = False,
        node: str | None = None,
        description: str = "",
        timeout_s: float | None = None,
        start: bool = False,
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
            None if kind is None else _one_of(AnswerKind, kind, "kind of answer file"),
            hostname=name if "." not in name else "",
            extra_arguments=arguments,
        )
        new = NewVm(
            name=name,
            vcpus=vcpus,
            memory_mib=memory_mib,
            disk_gib=disk_gib,
            pool=pool,
            networks=tuple(networks),
            firmware=None if firmware is None else _one_of(Firmware, firmware, "firmware"),
            machine=machine,
            cpu=cpu,
            tpm=tpm,
            node=node,
            description=description,
            start=start,
        )
        seconds = _seconds(self.settings.install_timeout_s if timeout_s is None else timeout_s)
        fresh = self._fresh()
        installer = Installer(
            iso=iso,
            kernel=None if kernel is None else _absolute(kernel),
            initrd=None if initrd is None else _absolute(initrd),
        )
        if iso is not None and kernel is None and initrd is None and told.boots == "kernel":
            installer = self._installer_on(iso)
        return self._do(
            lambda cluster: decide_install.install(
                cluster,
                new,
                installer,
                told,
                fresh,
                timeout_s=seconds,
                overhead_mib=self.settings.vm_overhead_mib,
            ),
            dry_run=dry_run,
            wait_s=wait_s,
            hosts=lambda c: [node] if node else c.nodes,
        )

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

    def start(self, name: str, *, dry_run: bool = False, wait_s: float | None = None) -> Done:
        overhead = self.settings.vm_overhead_mib
        return self._on_vm(
            name,
            lambda cluster: lifecycle.start(cluster, name, overhead_mib=overhead),
            dry_run=dry_run,
            wait_s=wait_s,
            whole_host=True,
        )

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
        seconds = _seconds(self.settings.stop_timeout_s if timeout_s is None else timeout_s)
        return self._on_vm(
            name,
            lambda cluster: lifecycle.stop(cluster, name, timeout_s=seconds, force=force),
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
        seconds = _seconds(self.settings.stop_timeout_s if timeout_s is None else timeout_s)
        return self._on_vm(
            name,
            lambda cluster: lifecycle.restart(
                cluster,
                name,
                timeout_s=seconds,
                force=force,
                overhead_mib=self.settings.vm_overhead_mib,
            ),
            dry_run=dry_run,
            wait_s=wait_s,
            whole_host=True,
        )

    def migrate(
        self,
        name: str,
        node: str | None = None,
        *,
        dry_run: bool = False,
        wait_s: float | None = None,
    ) -> Done:
        """Move a VM to another host while it runs. Its disks must be where every host reaches them.

        Without `node` it goes to the host with the most free memory.
        """
        return self._do(
            lambda cluster: self._migration(cluster, name, node),
            dry_run=dry_run,
            wait_s=wait_s,
            hosts=lambda c: c.nodes if node is None else [c.vm(name).node, node],
            about=(f"vm/{check_vm_name(name)}",),
        )

    def _migration(
        self, cluster: Cluster, name: str, node: str | None, *, away: bool = False
    ) -> Plan:
        settings = self.settings
        return move.migrate(
            cluster,
            name,
            node,
            overhead_mib=settings.vm_overhead_mib,
            pause_limit_ms=settings.migration_pause_limit_ms,
            bandwidth_mib_s=settings.migration_bandwidth_mib_s,
            away=away,
        )

    def relocate(
        self, name: str, node: str, *, dry_run: bool = False, wait_s: float | None = None
    ) -> Done:
        """Let a VM that is off start on another host from now on."""
        return self._do(
            lambda cluster: move.relocate(cluster, name, node),
            dry_run=dry_run,
            wait_s=wait_s,
            hosts=lambda c: [c.vm(name).node, node],
            about=(f"vm/{check_vm_name(name)}",),
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
            lambda cluster: lifecycle.delete(
                cluster, name, fresh, force=force, purge=purge, keep_s=keep_s
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
            lambda cluster: lifecycle.rename(cluster, name, new_name),
            dry_run=dry_run,
            wait_s=wait_s,
        )

    def change(
        self,
        name: str,
        *,
        vcpus: int | None = None,
        vcpus_max: int | None = None,
        memory_mib: int | None = None,
        memory_max_mib: int | None = None,
        cpu: str | None = None,
        machine: str | None = None,
        firmware: Firmware | str | None = None,
        secure_boot: bool | None = None,
        tpm: bool | None = None,
        graphics: bool | None = None,
        agent: bool | None = None,
        description: str | None = None,
        dry_run: bool = False,
        wait_s: float | None = None,
    ) -> Done:
        """vCPUs and memory at once where the host and guest can; the rest at the next start."""
        changes = Changes(
            vcpus=vcpus,
            vcpus_max=vcpus_max,
            memory_mib=memory_mib,
            memory_max_mib=memory_max_mib,
            cpu=cpu,
            machine=machine,
            firmware=None if firmware is None else _one_of(Firmware, firmware, "firmware"),
            secure_boot=secure_boot,
            tpm=tpm,
            graphics=graphics,
            agent=agent,
            description=description,
        )
        try:
            return self._on_vm(
                name,
                lambda cluster: lifecycle.change(cluster, name, changes, live=True),
                dry_run=dry_run,
                wait_s=wait_s,
            )
        except Unsupported as exc:
            if "task" not in exc.fields:
                raise
            # The host or guest cannot do it live: the definition is changed all the same.
            return self._on_vm(
                name,
                lambda cluster: lifecycle.change(cluster, name, changes, live=False),
                dry_run=dry_run,
                wait_s=wait_s,
            )

    def clone(
        self,
        name: str,
        new_name: str,
        *,
        linked: bool = False,
        cloud_init: CloudInit | None = None,
        start: bool = False,
        dry_run: bool = False,
        wait_s: float | None = None,
    ) -> Done:
        """A full clone, also of a running VM; or a linked one of a VM that is off."""
        fresh = self._fresh()
        return self._on_vm(
            name,
            lambda cluster: copies.clone(
                cluster,
                name,
                new_name,
                fresh,
                linked=linked,
                cloud_init=cloud_init,
                start=start,
                overhead_mib=self.settings.vm_overhead_mib,
            ),
            dry_run=dry_run,
            wait_s=wait_s,
            whole_host=True,
        )

    def template(
        self,
        name: str,
        image: str,
        *,
        description: str = "",
        dry_run: bool = False,
        wait_s: float | None = None,
    ) -> Done:
        """An image made of a VM; the VM stays."""
        fresh = self._fresh()
        return self._on_vm(
            name,
            lambda cluster: copies.template(cluster, name, image, fresh, description=description),
            dry_run=dry_run,
            wait_s=wait_s,
        )

    # -- snapshots ------------------------------------------------------------------------------

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

    # -- disks, NICs, CDs -----------------------------------------------------------------------

    def disk_attach(
        self,
        name: str,
        *,
        disk: str | None = None,
        size_gib: int | None = None,
        volume: str | None = None,
        pool: str | None = None,
        bus: DiskBus | str = DiskBus.VIRTIO,
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
                pool=pool,
                bus=_one_of(DiskBus, bus, "disk bus"),
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
                model=_one_of(NicModel, model, "NIC model"),
            ),
            dry_run=dry_run,
            wait_s=wait_s,
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

    # -- images -----------------------------------------------------------------------------------

    def image_import(
        self,
        name: str,
        location: str,
        *,
        kind: Literal["disk", "iso"] = "disk",
        sha256: str = "",
        firmware: Firmware | str = Firmware.BIOS,
        vcpus: int = 1,
        memory_mib: int = 1024,
        pool: str | None = None,
        description: str = "",
        dry_run: bool = False,
        wait_s: float | None = None,
    ) -> Done:
        """A disk image (raw, qcow2, vmdk, vdi) or a CD, from a file or URL."""
        if kind not in ("disk", "iso"):
            raise Invalid(f"cannot import an image of kind {kind!r}: it is 'disk' or 'iso'")
        fresh, location = self._fresh(), _absolute(location)
        return self._do(
            lambda cluster: catalog.image_import(
                cluster,
                name,
                location,
                fresh,
                kind=kind,
                sha256=sha256,
                firmware=_one_of(Firmware, firmware, "firmware"),
                vcpus=vcpus,
                memory_mib=memory_mib,
                pool=pool,
                description=description,
            ),
            dry_run=dry_run,
            wait_s=wait_s,
        )

    def image_list(self) -> tuple[Image, ...]:
        images = self.look().images
        return tuple(images[name] for name in sorted(images))

    def image_show(self, name: str) -> Image:
        return self.look().image(name)

    def image_delete(
        self, name: str, *, dry_run: bool = False, wait_s: float | None = None
    ) -> Done:
        return self._do(
            lambda cluster: catalog.image_delete(cluster, name), dry_run=dry_run, wait_s=wait_s
        )

    # -- networks -------------------------------------------------------------------------------

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

    # -- hosts and pools ------------------------------------------------------------------------

    def node_list(self) -> tuple[Node, ...]:
        nodes = self.look().nodes
        return tuple(nodes[name] for name in sorted(nodes))

    def node_show(self, name: str) -> Node:
        """The host, its accelerator having been found out by booting something if it never was."""
        node = self.look().node(name)
        if node.facts is None or not node.facts.accelerator:
            self.node_probe(name)
        return self.look().node(name)

    def node_probe(self, name: str) -> HostFacts:
        """Find out anew what the host is and can, by asking it and by booting something tiny."""
        node = self.look().node(name)
        facts = self.world.hypervisor(name).probe(no_progress)
        facts = dataclasses.replace(facts, probed_at=self.world.clock.now())
        self._record("node", name, node, dataclasses.replace(node, facts=facts))
        return facts

    def _record(self, kind: str, name: str, before: Any, after: Any) -> None:
        """Write one document by a plan of its own, so that it is claimed and logged like any."""
        key = f"{kind}/{name}"

        def decide(cluster: Cluster) -> Plan:
            there = cluster.versions.get(key, 0)
            step = save(kind, name, before if there else None, after)
            steps = () if step.before == step.after else (step,)
            return Plan(
                verb=f"{kind} record",
                subject=name,
                why="what was found out about it",
                steps=steps,
                claims=(key,),
                reads={key: there},
            )

        self._do(decide, dry_run=False, wait_s=max(5.0, self.settings.wait_s))

    def node_add(
        self,
        name: str,
        uri: str,
        *,
        reserve_mib: int | None = None,
        dry_run: bool = False,
        wait_s: float | None = None,
    ) -> Done:
        """Take a host in. First it is tried out: what it cannot do is said before it joins."""
        kept = self.settings.node_reserve_mib if reserve_mib is None else reserve_mib
        node = Node(name=name, uri=uri, reserve_mib=kept)
        cluster = self.look()
        hosts.add(cluster, node, ())
        checks, facts = self._try_host(node, cluster)
        node = dataclasses.replace(node, facts=facts)
        return self._do(
            lambda cluster: hosts.add(cluster, node, checks), dry_run=dry_run, wait_s=wait_s
        )

    def node_check(self, name: str) -> tuple[Check, ...]:
        """Try a host out as when it joined, one line for each thing that it must be able to do."""
        cluster = self.look()
        return self._try_host(cluster.node(name), cluster)[0]

    def _try_host(self, node: Node, cluster: Cluster) -> tuple[tuple[Check, ...], HostFacts | None]:
        """By doing it: connect, boot something, open a disk of every shared pool."""
        host = self.world.new_host(node)
        try:
            try:
                facts = host.probe(no_progress)
            except VorchError as exc:
                return (hosts.failed("libvirt", exc, "see that its libvirtd listens there"),), None
            facts = dataclasses.replace(facts, probed_at=self.world.clock.now())
            checks = hosts.judged(node, facts, cluster)
            for pool in cluster.pools.values():
                if pool.shared:
                    checks += self._try_pool(self.world.images(pool.name), pool, host)
            return checks, facts
        finally:
            host.close()

    def _try_pool(self, images: Images, pool: Pool, host: Hypervisor) -> tuple[Check, ...]:
        """Whether a host opens a volume of the pool, by each of its ways."""
        token = self.world.chance.take(6).hex()
        volume = f"vorch-trial-{token}"
        try:
            images.create(volume, TRIAL_BYTES)
            try:
                secret = images.secret()
                if secret is not None:
                    host.ensure_secret(secret)
                return tuple(
                    self._try_source(host, f"vorch-trial-{token}", label, source)
                    for label, source in hosts.ways(pool.name, images.locate(volume))
                )
            finally:
                images.purge(volume)
        except VorchError as exc:
            return (hosts.failed(f"pool {pool.name}", exc, "see `vorch doctor`"),)

    @staticmethod
    def _try_source(host: Hypervisor, name: str, label: str, source: Source) -> Check:
        try:
            host.try_source(name, source)
        except VorchError as exc:
            return hosts.failed(label, exc, hosts.REMEDY_FOR_POOLS)
        return Check(name=label, level="ok", detail="a disk in it was opened on the host")

    def node_remove(self, name: str, *, dry_run: bool = False, wait_s: float | None = None) -> Done:
        """Let a host go. Refused while VMs belong to it."""
        return self._do(lambda cluster: hosts.remove(cluster, name), dry_run=dry_run, wait_s=wait_s)

    def node_cordon(self, name: str, *, dry_run: bool = False, wait_s: float | None = None) -> Done:
        """Start and place nothing on a host any more; what runs there goes on."""
        return self._do(
            lambda cluster: hosts.cordon(cluster, name, True), dry_run=dry_run, wait_s=wait_s
        )

    def node_uncordon(
        self, name: str, *, dry_run: bool = False, wait_s: float | None = None
    ) -> Done:
        return self._do(
            lambda cluster: hosts.cordon(cluster, name, False), dry_run=dry_run, wait_s=wait_s
        )

    def node_maintenance(
        self, name: str, on: bool, *, wait_s: float | None = None
    ) -> tuple[Done, ...]:
        """Empty a host, VM by VM, so that it can be switched off; or bring back what left it.

        Each VM is a task of its own. What cannot move stays, and is said when all others have.
        Safe to repeat.
        """
        done = [self.node_cordon(name) if on else self.node_uncordon(name)]
        stayed: dict[str, str] = {}
        for vm in sorted(self.look().vms.values(), key=lambda one: one.name):
            if (vm.node if on else vm.home) != name:
                continue
            try:
                done.append(self._move(vm.name, None if on else name, away=on, wait_s=wait_s))
            except VorchError as exc:
                stayed[vm.name] = exc.message
        if stayed:
            raise Conflict(
                f"cannot {'empty' if on else 'bring everything back to'} host {name!r}:"
                f" {'; '.join(stayed.values())}; move or stop those by hand, and do this again",
                node=name,
                stayed=stayed,
            )
        return tuple(done)

    def _move(self, name: str, node: str | None, *, away: bool, wait_s: float | None) -> Done:
        """Live or cold, whichever it needs."""

        def decide(cluster: Cluster) -> Plan:
            if is_on(known_power(cluster, cluster.vm(name), "move")):
                return self._migration(cluster, name, node, away=away)
            target = node if node is not None else move.refuge(cluster, name)
            return move.relocate(cluster, name, target, away=away)

        return self._do(
            decide,
            dry_run=False,
            wait_s=wait_s,
            hosts=lambda c: c.nodes,
            about=(f"vm/{check_vm_name(name)}",),
        )

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
        images = self.world.new_pool(pool)
        try:
            images.usage()
            if pool.shared:
                for one in sorted(cluster.nodes):
                    if not self.world.hypervisor(one).facts().accelerator:
                        self.node_probe(one)
                    found[one] = self._try_pool(images, pool, self.world.hypervisor(one))
        finally:
            images.close()
        return self._do(
            lambda cluster: hosts.add_pool(cluster, pool, found), dry_run=dry_run, wait_s=wait_s
        )

    def pool_remove(self, name: str, *, dry_run: bool = False, wait_s: float | None = None) -> Done:
        """Forget a pool; what is in it stays there. Refused while the cluster uses any of it."""
        return self._do(
            lambda cluster: hosts.remove_pool(cluster, name), dry_run=dry_run, wait_s=wait_s
        )

    def pool_list(self) -> tuple[tuple[Pool, PoolUsage], ...]:
        pools = self.look().pools
        return tuple((pools[name], self.world.images(name).usage()) for name in sorted(pools))

    def volume_list(self, pool: str) -> tuple[VolumeInfo, ...]:
        """Every volume of a pool, hidden and deleted ones included."""
        self.look().pool(pool)
        return self.world.images(pool).list()

    # -- the trash ------------------------------------------------------------------------------

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

    # -- tasks ------------------------------------------------------------------------------------

    def task_list(self) -> tuple[Task, ...]:
        """The newest first."""
        documents = self.world.state.read(["task"])
        tasks = [decode(Task, document.body) for document in documents.values()]
        return tuple(sorted(tasks, key=lambda task: (-task.started_at, task.id)))

    def task_show(self, task_id: str) -> Task:
        document = self.world.state.get(f"task/{check_name(task_id, 'task id')}")
        if document is None:
            raise NotFound(
                f"cannot find task {task_id!r}: there is none of that id; `vorch task list` shows"
                " all",
                task=task_id,
            )
        return decode(Task, document.body)

    def task_watch(
        self, task_id: str, show: Callable[[Task], None], *, timeout_s: float | None = None
    ) -> Task:
        """Call `show` whenever the task's record changes, until it is over."""
        clock = self.world.clock
        until = None if timeout_s is None else clock.now() + timeout_s
        revision, last = 0, None
        while True:
            task = self.task_show(task_id)
            if task != last:
                show(task)
                last = task
            if task.over:
                return task
            if until is not None and clock.now() >= until:
                raise TimedOut(f"cannot wait any longer for task {task_id!r}: it is still running")
            revision, _ = self.world.state.changes(revision, 1.0)

    def task_cancel(self, task_id: str) -> None:
        """Ask whoever runs it to undo it."""
        self.executor.request_cancel(check_name(task_id, "task id"))

    def recover(self, *, force: bool = True) -> tuple[Task, ...]:
        """Finish or undo what processes that have died left behind."""
        return self.executor.recover(force=force)

    # -- the whole --------------------------------------------------------------------------------

    def doctor(self) -> tuple[Check, ...]:
        """What is missing, and why a VM would not run."""
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
        for name in sorted(cluster.nodes):
            folders = [
                pool.url.removeprefix("dir://")
                for pool in cluster.pools.values()
                if pool.url.startswith("dir://") and pool.node in ("", name)
            ]
            checks += self.world.hypervisor(name).checks(folders)
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

    def _pool_check(self, name: str) -> Check:
        try:
            usage = self.world.images(name).usage()
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


def _one_of(kind: type[T], value: T | str, what: str) -> T:
    """A word from outside as a member of an enumeration."""
    try:
        return kind(value)  # type: ignore[call-arg]
    except ValueError as exc:
        words = ", ".join(str(one) for one in kind)  # type: ignore[attr-defined]
        raise Invalid(f"cannot use {str(value)!r} as {what}: it is one of {words}") from exc


def _absolute(location: str) -> str:
    """A plan may be carried on by a process with another current folder."""
    check_text(location, "location")
    is_url = re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", location) is not None
    return location if is_url or not location else os.path.abspath(location)  # noqa: PTH100 links stay as they were named


def _seconds(value: float) -> float:
    if not 0 <= value <= 7 * 24 * 3600:
        raise Invalid(f"cannot use {value!r} as a time: it must be 0 to 604800 seconds")
    return float(value)
