"""What a host cannot do, in a person's words, and which plan asks that of it. Pure.

A host's facts say what it lacks (`HostFacts.lacks`), by the verbs of the port. What can be known
from them is refused before anything was begun; the rest the host's driver refuses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from vorch import xen_guests
from vorch.errors import Unsupported
from vorch.model import Ability, Cluster, HostFacts, Vm
from vorch.plan import (
    AttachDisk,
    AttachNic,
    ChangeMedia,
    DetachDisk,
    DetachNic,
    MigrateDomain,
    Plan,
    ResetDomain,
    SetMemory,
    SetVcpus,
)

# A host lacks it that moves no PV guests of Xen while they run.
LIVE_PV = "live_pv"
# What people ask a host about, and which verbs of the port it rests on.
WORDS: Mapping[str, tuple[str, ...]] = {
    "move a running VM to another host": ("migrate",),
    "move a PV guest without standing still": (LIVE_PV,),
    "start a PV guest that reads its disk itself": (xen_guests.LOADERS["pv"],),
    "start a PVH guest that reads its disk itself": (xen_guests.LOADERS["pvh"],),
    "reset": ("reset",),
    "screen": ("display",),
    "disks in and out of a running VM": ("attach_disk", "detach_disk"),
    "network cards in and out of a running VM": ("attach_nic", "detach_nic"),
    "vCPUs of a running VM": ("set_vcpus",),
    "memory of a running VM": ("set_memory",),
    "CDs of a running VM": ("change_media",),
    "growing a disk of a running VM": ("grow_disk",),
    "moving a disk of a running VM": ("copy_disk",),
    "limits of disks": ("limit_disk",),
    "snapshots of files while the VM runs": ("snapshot", "drop_snapshot"),
    "quiet file systems for a snapshot": ("freeze",),
    "addresses told by the host": ("addresses",),
    "one CPU for all hosts": ("common_cpu",),
    "how fast a guest writes to its memory": ("write_rate_mib_s",),
}
# The steps that need a VM to run, and what they have its host do.
Live = (
    AttachDisk
    | DetachDisk
    | AttachNic
    | DetachNic
    | ChangeMedia
    | SetVcpus
    | SetMemory
    | ResetDomain
    | MigrateDomain
)
ASKS: Mapping[type, str] = {
    AttachDisk: "attach_disk",
    DetachDisk: "detach_disk",
    AttachNic: "attach_nic",
    DetachNic: "detach_nic",
    ChangeMedia: "change_media",
    SetVcpus: "set_vcpus",
    SetMemory: "set_memory",
    ResetDomain: "reset",
    MigrateDomain: "migrate",
}


_ABSENT: Mapping[str, str] = {
    "UEFI": "it has no UEFI firmware for guests; install ovmf",
    "secure boot": "it has no UEFI firmware that trusts keys from the start; install ovmf",
    "TPM": "it has no program that is one for a guest; install swtpm-tools",
    "networks of its own": "its libvirt makes none (an unprivileged session); use its bridges",
    "VLANs on plain bridges": "libvirt sets no tags there before 11.0; use Open vSwitch",
}
_NOT_ON_XEN: Mapping[str, str] = {
    "UEFI": "vorch gives guests of Xen no UEFI firmware",
    "secure boot": "vorch gives guests of Xen no UEFI firmware",
    "TPM": "guests of Xen have none",
    "networks of its own": "vorch makes none on Xen hosts; use their bridges",
    "VLANs on plain bridges": "vorch sets no tags on Xen hosts; make a bridge for each VLAN",
}


def abilities(facts: HostFacts | None) -> tuple[Ability, ...]:
    """What a host can and cannot, in the order in which people are told; () where nobody asked."""
    return () if facts is None else tuple(_abilities(facts))


def _abilities(facts: HostFacts) -> Iterator[Ability]:
    for name, verbs in WORDS.items():
        reasons = [facts.lacks[verb] for verb in verbs if verb in facts.lacks]
        yield Ability(name=name, why_not=reasons[0] if reasons else "")
    for name, given in (
        ("UEFI", facts.uefi),
        ("secure boot", facts.secure_boot),
        ("TPM", facts.tpm),
        ("networks of its own", facts.networks),
        ("VLANs on plain bridges", facts.bridge_vlans),
    ):
        absent = _NOT_ON_XEN if facts.hypervisor == "xen" else _ABSENT
        yield Ability(name=name, why_not="" if given else absent[name])


def no_live(facts: HostFacts | None, vm: Vm) -> str:
    """Why a VM on such a host would stand still on its way to another; "": it goes on."""
    if facts is None or facts.hypervisor != "xen" or vm.xen_kind != "pv":
        return ""
    return facts.lacks.get(LIVE_PV, "")


def check(plan: Plan, cluster: Cluster) -> None:
    """Refuse a plan that asks of a host what that is known not to do."""
    for step in plan.steps:
        if not isinstance(step, Live):
            continue
        vm, verb = step.vm, ASKS[type(step)]
        node = cluster.nodes.get(vm.node)
        facts = None if node is None else node.facts
        if facts is not None and verb in facts.lacks:
            raise Unsupported(
                f"cannot {plan.verb} {plan.subject!r} while it runs on {vm.node!r}:"
                f" {facts.lacks[verb]}",
                vm=vm.name,
                node=vm.node,
                verb=verb,
            )
