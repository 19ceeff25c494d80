"""What a VM is made of: vCPUs, memory, firmware and the like, changed as far as that can be."""

from __future__ import annotations

from collections.abc import Sequence

from vorch.decide import lifecycle, spared
from vorch.decide.lifecycle import Changes
from vorch.errors import Unsupported
from vorch.model import Cluster, Firmware, Watchdog
from vorch.orchestrator import kept
from vorch.orchestrator.core import Core, Done
from vorch.orchestrator.words import one_of, pages_word, word_of
from vorch.plan import Plan


class Changing(Core):
    def change(
        self,
        name: str,
        *,
        vcpus: int | None = None,
        vcpus_max: int | None = None,
        memory_mib: int | None = None,
        memory_max_mib: int | None = None,
        cpu: str | None = None,
        hypervisor: str | None = None,
        xen_kind: str | None = None,
        xen_loader: str | None = None,
        machine: str | None = None,
        firmware: Firmware | str | None = None,
        secure_boot: bool | None = None,
        tpm: bool | None = None,
        graphics: bool | None = None,
        agent: bool | None = None,
        watchdog: Watchdog | str | None = None,
        tags: Sequence[str] | None = None,
        require_tags: Sequence[str] | None = None,
        huge_pages: str | None = None,
        one_numa_cell: bool | None = None,
        description: str | None = None,
        force: bool = False,
        dry_run: bool = False,
        wait_s: float | None = None,
    ) -> Done:
        """vCPUs and memory at once where the host and guest can; the rest at the next start.

        `force`: also where that takes the room away that VMs need when a host is lost.
        """
        changes = Changes(
            vcpus=vcpus,
            vcpus_max=vcpus_max,
            memory_mib=memory_mib,
            memory_max_mib=memory_max_mib,
            cpu=cpu,
            hypervisor=word_of(Changes, "hypervisor", hypervisor),
            xen_kind=word_of(Changes, "xen_kind", xen_kind),
            xen_loader=word_of(Changes, "xen_loader", xen_loader),
            machine=machine,
            firmware=None if firmware is None else one_of(Firmware, firmware, "firmware"),
            secure_boot=secure_boot,
            tpm=tpm,
            graphics=graphics,
            agent=agent,
            watchdog=None
            if watchdog is None
            else one_of(Watchdog, watchdog, "what a watchdog does"),
            tags=None if tags is None else tuple(tags),
            require_tags=None if require_tags is None else tuple(require_tags),
            huge_pages=None if huge_pages is None else pages_word(huge_pages),
            one_numa_cell=one_numa_cell,
            description=description,
        )
        sizes = (
            vcpus,
            memory_mib,
            memory_max_mib,
            require_tags,
            huge_pages,
            one_numa_cell,
            hypervisor,
            xen_kind,
            xen_loader,
        )
        takes = any(value is not None for value in sizes)

        def change(*, live: bool) -> Done:
            def decide(cluster: Cluster) -> Plan:
                plan = lifecycle.change(cluster, name, changes, live=live)
                if not takes:
                    return plan
                ha = kept.availability(self.world.state)
                overhead, what = self.settings.vm_overhead_mib, f"change VM {name!r}"
                return spared.held(plan, cluster, ha, overhead, what, force=force)

            return self._on_vm(name, decide, dry_run=dry_run, wait_s=wait_s, whole_host=takes)

        try:
            return change(live=True)
        except Unsupported as exc:
            if "task" not in exc.fields:
                raise
            # The host or guest cannot do it live: the definition is changed all the same.
            return change(live=False)
