"""`KvmHost`: a libvirt host that runs QEMU, with KVM where it really works, else emulated (TCG)."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vorch import domain_xml
from vorch.drivers import kvm_checks, kvm_probe, kvm_trials, libvirt_xml
from vorch.drivers.libvirt_connection import Handle, code_of, libvirt
from vorch.drivers.libvirt_figures import version_text
from vorch.drivers.libvirt_host import LibvirtHost
from vorch.errors import NotFound, StepFailed, Unsupported, VorchError
from vorch.model import Check, Cpu, Disk, HostFacts, Vm
from vorch.ports import Progress, no_progress

# QEMU's own words, where libvirt has none. Comes with libvirt-python, so it cannot be missing here.
import libvirt_qemu  # isort: skip

PING_TIMEOUT_S = 1
# A guest that cannot flush its disks in this time is snapshotted as it is.
AGENT_TIMEOUT_S = 10
BRIDGE_VLANS_SINCE = 11_000_000
SYSTEM_NVRAM_FOLDER = "/var/lib/libvirt/qemu/nvram"


class KvmHost(LibvirtHost):
    """qemu:///system, qemu:///session, and the same from afar."""

    # What does not change while the daemon is the same, with the number of its connection.
    _static: tuple[int, HostFacts] | None = None
    _probed: HostFacts | None = None

    # -- facts ------------------------------------------------------------------------------

    def _last_probe(self) -> HostFacts | None:
        known = self._probed or self.node.facts
        return known if known is not None and known.accelerator else None

    def facts(self) -> HostFacts:
        if self._static is None or self._static[0] != self.connection.opened:
            facts = self._call("see what there is", self._look)
            self._static = (self.connection.opened, facts)
        facts, probed = self._static[1], self._last_probe()
        if probed is None:
            return facts
        return replace(
            facts,
            accelerator=probed.accelerator,
            accelerator_why=probed.accelerator_why,
            probed_at=probed.probed_at,
        )

    def _look(self, handle: Handle) -> HostFacts:
        session = self.connection.session
        version = handle.getLibVersion()
        info = handle.getInfo()
        probed = self._last_probe()
        kvm = probed is not None and probed.accelerator == "kvm"
        seen = libvirt_xml.read_capabilities(
            handle.getCapabilities(),
            handle.getDomainCapabilities(None, str(info[0]), "q35", "kvm" if kvm else "qemu", 0),
        )
        memory = handle.getMemoryStats(libvirt.VIR_NODE_MEMORY_STATS_ALL_CELLS, 0)
        return HostFacts(
            hypervisor="kvm",
            cpus=int(info[2]),
            # The kernel's number, not that of the tables from the boot: hosts can grow.
            memory_mib=int(memory["total"]) // 1024,
            architecture=str(info[0]),
            accelerator="",
            accelerator_why="nobody has tried yet whether KVM works here",
            libvirt_version=version_text(version),
            hypervisor_version=f"QEMU {version_text(handle.getVersion())}",
            cpu_model=seen.cpu_model,
            host_cpu=seen.host_cpu,
            machines=seen.machines,
            cpu_models=seen.cpu_models,
            uefi=seen.uefi,
            secure_boot=seen.secure_boot,
            tpm=seen.tpm,
            networks=not session,
            display_socket=not session,
            bridge_vlans=version >= BRIDGE_VLANS_SINCE,
            cells=seen.cells,
        )

    def probe(self, progress: Progress) -> HostFacts:
        def work(handle: Handle) -> HostFacts:
            facts = self.facts()
            if not libvirt_xml.offers_kvm(handle.getCapabilities(), facts.architecture):
                why = "this host's QEMU offers no KVM (no /dev/kvm, or not for libvirt's user)"
                return replace(
                    facts, accelerator="tcg", accelerator_why=why, probed_at=self._clock()
                )
            verdict = self._boot_probe(handle, "kvm", progress)
            return kvm_probe.facts_of(facts, verdict, self._clock())

        progress(percent=0.0, line=f"trying out KVM on {self.node.name}")
        facts = self._call("try out KVM", work)
        self._probed, self._static = facts, None
        progress(percent=100.0, line=f"accelerator: {facts.accelerator} ({facts.accelerator_why})")
        return self.facts()

    def _boot_probe(
        self, handle: Handle, accelerator: str, progress: Progress
    ) -> kvm_probe.Verdict:
        facts = replace(self.facts(), accelerator=accelerator)
        identifier = str(uuid.uuid4())
        session = self.connection.session
        return kvm_probe.run(handle, facts, identifier, session=session, progress=progress)

    # -- trials -----------------------------------------------------------------------------

    def clock(self) -> tuple[float, float]:
        if self.connection.local:
            return 0.0, 0.0
        facts = self._start_facts()
        return self._call("read the clock", lambda h: kvm_trials.clock(h, facts, self._clock))

    def try_move(self, identifier: str, uri: str, cpu: Cpu | None = None) -> None:
        facts, what = self._start_facts(), f"move a test machine to {uri}"
        self._call(what, lambda h: kvm_trials.move(h, facts, identifier, uri, cpu))

    def sweep(self) -> None:
        self._call(
            "clear away what trials have left", lambda h: kvm_trials.sweep(h, kvm_probe.clear)
        )

    def common_cpu(self, cpus: Sequence[Cpu]) -> Cpu:
        facts = self.facts()
        kind = "kvm" if facts.accelerator == "kvm" else "qemu"

        def work(handle: Handle) -> Cpu:
            texts = [libvirt_xml.cpu_xml(cpu) for cpu in cpus]
            flags = libvirt.VIR_CONNECT_BASELINE_CPU_MIGRATABLE
            return libvirt_xml.read_cpu(
                handle.baselineHypervisorCPU(None, facts.architecture, "q35", kind, texts, flags)
            )

        return self._call("find the CPU that all hosts have", work)

    def _start_facts(self) -> HostFacts:
        facts = self.facts()
        # A guess would be wrong either way: slow for no reason, or dead at the first instruction.
        return facts if facts.accelerator else self.probe(no_progress)

    def _nvram(self, vm: Vm) -> str:
        """By the VM's identifier, since libvirt's own choice goes by a name that may change."""
        if not self.connection.session:
            return f"{SYSTEM_NVRAM_FOLDER}/{vm.id}_VARS.fd"
        if not self.connection.local:
            return ""
        home = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
        return f"{home}/libvirt/qemu/nvram/{vm.id}_VARS.fd"

    # -- the guest's agent ------------------------------------------------------------------

    def _agent_answers(self, domain: Handle) -> bool:
        ping = json.dumps({"execute": "guest-ping"})
        try:
            libvirt_qemu.qemuAgentCommand(domain, ping, PING_TIMEOUT_S, 0)
            domain.agentSetResponseTimeout(AGENT_TIMEOUT_S, 0)
        except libvirt.libvirtError:
            return False
        return True

    def _is_frozen(self, domain: Handle) -> bool:
        ask = json.dumps({"execute": "guest-fsfreeze-status"})
        try:
            answer = json.loads(libvirt_qemu.qemuAgentCommand(domain, ask, AGENT_TIMEOUT_S, 0))
        except libvirt.libvirtError:
            return False
        return bool(answer.get("return") == "frozen")

    def _press_power_button(self, domain: Handle) -> None:
        if self._agent_answers(domain):
            # Not libvirt's own call, which would wait until the guest is down.
            ask = json.dumps({"execute": "guest-shutdown", "arguments": {"mode": "powerdown"}})
            nowait = libvirt_qemu.VIR_DOMAIN_QEMU_AGENT_COMMAND_NOWAIT
            try:
                libvirt_qemu.qemuAgentCommand(domain, ask, nowait, 0)
            except libvirt.libvirtError as exc:
                if code_of(exc) == libvirt.VIR_ERR_NO_DOMAIN:
                    return
            else:
                return
        domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)

    # -- snapshots inside the disks ---------------------------------------------------------

    def snapshot(self, vm: Vm, disks: Sequence[Disk], snapshot: str) -> None:
        what = f"take snapshot {snapshot!r} of VM {vm.name!r}"

        def work(domain: Handle) -> None:
            layers = self._layers(domain, disks, what)
            # What an earlier attempt left behind is of another moment.
            self._delete(domain, layers, snapshot, what)
            take = "blockdev-snapshot-internal-sync"
            actions = [
                {"type": take, "data": {"device": layer["node-name"], "name": snapshot}}
                for layer in layers
            ]
            # One transaction: all of the disks at one point, or none.
            monitor(domain, what, "transaction", {"actions": actions})

        if disks:
            self._on_domain(what, vm.id, work)

    def drop_snapshot(self, vm: Vm, disks: Sequence[Disk], snapshot: str) -> None:
        what = f"delete snapshot {snapshot!r} of VM {vm.name!r}"

        def work(domain: Handle) -> None:
            self._delete(domain, self._layers(domain, disks, what), snapshot, what)

        if disks:
            self._on_domain(what, vm.id, work)

    @staticmethod
    def _delete(
        domain: Handle, layers: Sequence[Mapping[str, Any]], snapshot: str, what: str
    ) -> None:
        for layer in layers:
            there = layer["image"].get("snapshots", ())
            if any(one["name"] == snapshot for one in there):
                arguments = {"device": layer["node-name"], "name": snapshot}
                monitor(domain, what, "blockdev-snapshot-delete-internal-sync", arguments)

    @staticmethod
    def _layers(domain: Handle, disks: Sequence[Disk], what: str) -> list[Mapping[str, Any]]:
        """QEMU's block node with the format of each disk; only that has snapshots inside."""
        live = domain_xml.parse(domain.XMLDesc(0))
        seen: dict[str, str | None] = {}
        for disk in disks:
            element = domain_xml.find_disk(live, disk.name)
            source = None if element is None else element.find("source")
            seen[disk.name] = None if source is None else source.get("file")
        block = monitor(domain, what, "query-block", {})
        return [_layer(block, disk, seen[disk.name], what) for disk in disks]

    # -- the host ---------------------------------------------------------------------------

    def checks(self, folders: Sequence[str] = ()) -> tuple[Check, ...]:
        found = super().checks(folders)
        if any(check.level == "error" for check in found):
            return found
        try:
            facts = self.facts()
            capabilities = self._call("read its capabilities", lambda h: h.getCapabilities())
        except VorchError as exc:
            remedy = "install QEMU (qemu-system-x86, or qemu-kvm) on that host"
            return (*found, Check(name="qemu", level="error", detail=exc.message, remedy=remedy))
        return (
            *found,
            *kvm_checks.of_facts(facts),
            *(
                kvm_checks.of_this_machine(capabilities, session=self.connection.session)
                if self.connection.local
                else ()
            ),
            *(
                kvm_checks.folder_check(Path(folder), capabilities)
                for folder in (folders if self.connection.local else ())
            ),
        )


def _layer(
    block: Sequence[Mapping[str, Any]], disk: Disk, path: str | None, what: str
) -> Mapping[str, Any]:
    """By the device's alias, which is in its path in QEMU's tree, or else by its file."""
    alias = domain_xml.disk_alias(disk.name)
    by: tuple[Callable[[Mapping[str, Any]], bool], ...] = (
        lambda one: alias in str(one.get("qdev", "")).split("/"),
        lambda one: path is not None and one["inserted"].get("file") == path,
        lambda one: path is not None and one["inserted"]["image"].get("filename") == path,
    )
    inserted = [one for one in block if "inserted" in one]
    for fits in by:
        for one in filter(fits, inserted):
            layer: Mapping[str, Any] = one["inserted"]
            if layer.get("drv") != "qcow2":
                raise Unsupported(
                    f"cannot {what}: disk {disk.name!r} is {layer.get('drv')}, and only qcow2 keeps"
                    " snapshots inside; stop the VM, or move the disk to another pool",
                    disk=disk.name,
                )
            return layer
    raise NotFound(
        f"cannot {what}: the running VM has no disk {disk.name!r}; see `vorch show`", disk=disk.name
    )


def monitor(domain: Handle, what: str, command: str, arguments: Mapping[str, Any]) -> Any:
    """One command to QEMU itself; its answer, or StepFailed with its words."""
    request = json.dumps({"execute": command, "arguments": arguments})
    answer = json.loads(libvirt_qemu.qemuMonitorCommand(domain, request, 0))
    if "error" in answer:
        reason = answer["error"].get("desc", "it gave no reason")
        raise StepFailed(f"cannot {what}: QEMU says {reason!r}; look at the host's QEMU log")
    return answer["return"]
