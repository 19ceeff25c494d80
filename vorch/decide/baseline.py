"""The CPU that every host of a cluster can give, so that a VM that has it can move to each. Pure.

Only hosts under KVM count: an emulator gives the same CPU everywhere. What the common part of
several CPUs is, libvirt knows; which hosts it is asked about, and what follows, is decided here.
"""

from __future__ import annotations

from collections.abc import Mapping

from vorch.decide.records import save
from vorch.model import Baseline, Check, Cluster, Cpu, Node, Vm
from vorch.plan import Save


def counted(nodes: Mapping[str, Node], architecture: str) -> dict[str, Cpu]:
    """The CPU of each host that the baseline has to fit."""
    found = {}
    for name in sorted(nodes):
        facts = nodes[name].facts
        if facts is None or facts.accelerator != "kvm" or facts.host_cpu is None:
            continue
        if facts.architecture == architecture:
            found[name] = facts.host_cpu
    return found


def for_vm(cluster: Cluster, vm: Vm, node: str | None = None) -> Cpu | None:
    """The CPU that a VM of the default model starts with; None: what its host's driver gives."""
    there = cluster.nodes.get(node or vm.node)
    facts = there.facts if there is not None else None
    alone = len(cluster.nodes) == 1
    if vm.cpu != "default" or alone or facts is None or facts.accelerator != "kvm":
        return None
    known = cluster.baselines.get(facts.architecture)
    # A host that is not counted yet may lack what the others have.
    return known.cpu if known is not None and (node or vm.node) in known.nodes else None


def save_baseline(cluster: Cluster, architecture: str, after: Baseline | None) -> tuple[Save, ...]:
    before = cluster.baselines.get(architecture)
    return () if before == after else (save("cpu", architecture, before, after),)


def judged(cluster: Cluster, new: Baseline) -> Check:
    """What a host that joins does to the CPU of all."""
    before = cluster.baselines.get(new.architecture)
    if before is None or before.cpu == new.cpu:
        detail = f"{new.cpu} is what all hosts give"
        return Check(name="CPU baseline", level="ok", detail=detail)
    lost = sorted(before.cpu.required - new.cpu.required)
    without = f", without {', '.join(lost[:12])}" if lost else ""
    more = f" and {len(lost) - 12} more" if len(lost) > 12 else ""
    return Check(
        name="CPU baseline",
        level="warning",
        detail=f"with this host VMs get {new.cpu.model}{without}{more} at their next start;"
        f" now it is {before.cpu.model}",
        remedy="leave it out if they need that, or give those VMs a CPU model of their own",
    )
