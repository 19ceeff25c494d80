"""What `doctor` looks at on a QEMU host, and what to do about each finding."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from vorch.drivers import libvirt_xml
from vorch.model import Check, HostFacts

# Programs that are started by daemons may lie where a user's PATH does not lead.
_PROGRAM_FOLDERS = os.pathsep.join(("/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/libexec"))


def of_facts(facts: HostFacts) -> Iterator[Check]:
    """What can be told of any host, near or far."""
    yield _ok("qemu", f"{facts.hypervisor_version}, {len(facts.machines)} machine types")
    if facts.accelerator == "kvm":
        yield _ok("accelerator", f"KVM works: {facts.accelerator_why}")
    elif facts.accelerator == "tcg":
        yield _warning(
            "accelerator",
            f"VMs are emulated, which is many times slower than KVM: {facts.accelerator_why}",
            "switch on virtualisation in the firmware (or nested virtualisation, where the host is"
            " itself a VM) and probe the node again",
        )
    else:
        yield _warning("accelerator", facts.accelerator_why, "probe the node")
    if facts.uefi:
        detail = "UEFI firmware is there" + (", with secure boot" if facts.secure_boot else "")
        yield _ok("uefi", detail)
    else:
        yield _warning("uefi", "no UEFI firmware: VMs start by BIOS only", "install ovmf (edk2)")
    if facts.tpm:
        yield _ok("tpm", "VMs can have a TPM 2.0")
    else:
        yield _warning("tpm", "no TPM for VMs: swtpm is missing", "install swtpm and swtpm-tools")


def of_this_machine(capabilities: str, *, session: bool) -> Iterator[Check]:
    """What only a look at the machine itself tells."""
    yield from _virtlogd(session)
    if session:
        yield _warning(
            "networks",
            "an unprivileged session: VMs get NAT of their own, and cannot be reached from outside",
            "use qemu:///system for networks between VMs",
        )
    else:
        yield from _networks()
        yield from _kvm_device(libvirt_xml.qemu_user_id(capabilities))


def folder_check(folder: Path, capabilities: str) -> Check:
    """Whether QEMU's user gets to a folder of disks: every folder above must let it through."""
    user_id = libvirt_xml.qemu_user_id(capabilities)
    if user_id in (None, 0):
        return _ok("disk folder", f"{folder} is open to QEMU")
    for step in (*reversed(folder.resolve().parents), folder.resolve()):
        if step.is_dir() and not _may(step, int(user_id or 0), stat.S_IXOTH):
            return Check(
                name="disk folder",
                level="error",
                detail=f"QEMU's user {_user_name(int(user_id or 0))} cannot enter {step}, so no VM"
                f" can open its disks in {folder}",
                remedy=f"chmod o+x {step}, or keep the disks elsewhere (pool_path)",
            )
    return _ok("disk folder", f"{folder} is open to QEMU")


def _virtlogd(session: bool) -> Iterator[Check]:
    if session:
        return
    if Path("/run/libvirt/virtlogd-sock").exists():
        yield _ok("virtlogd", "it keeps the logs of VMs")
    else:
        yield Check(
            name="virtlogd",
            level="error",
            detail="virtlogd does not run; libvirt starts no VM without it",
            remedy="systemctl start virtlogd.socket (without systemd: virtlogd -d)",
        )


def _networks() -> Iterator[Check]:
    if shutil.which("dnsmasq", path=_PROGRAM_FOLDERS):
        yield _ok("dnsmasq", "networks with DHCP can be made")
    else:
        yield _warning(
            "dnsmasq",
            "dnsmasq is missing: no network with DHCP or NAT can be made",
            "install dnsmasq-base (dnsmasq)",
        )
    try:
        forwarding = Path("/proc/sys/net/ipv4/ip_forward").read_text(encoding="ascii").strip()
    except OSError:
        return
    if forwarding == "1":
        yield _ok("ip_forward", "this host passes packets on, as NAT needs")
    else:
        yield _warning(
            "ip_forward",
            "this host passes no packets on; libvirt switches that on with the first NAT network",
            "sysctl net.ipv4.ip_forward=1",
        )


def _kvm_device(user_id: int | None) -> Iterator[Check]:
    device = Path("/dev/kvm")
    if not device.exists():
        detail = "there is no /dev/kvm: VMs are emulated"
        remedy = "switch on virtualisation in the firmware and load kvm_intel or kvm_amd"
        yield _warning("/dev/kvm", detail, remedy)
    elif user_id is not None and not _may(device, user_id, stat.S_IROTH | stat.S_IWOTH):
        yield _warning(
            "/dev/kvm",
            f"{_user_name(user_id)}, whom QEMU runs as, may not open /dev/kvm: libvirt then forgets"
            " what it learnt of QEMU at every start of a VM, which takes it up to a minute each"
            " time",
            "chgrp kvm /dev/kvm && chmod 660 /dev/kvm (where udev runs, it does that)",
        )
    else:
        yield _ok("/dev/kvm", "QEMU's user may open it")


def _user_name(user_id: int) -> str:
    try:
        return pwd.getpwuid(user_id).pw_name
    except KeyError:
        return str(user_id)


def _may(path: Path, user_id: int, wanted: int) -> bool:
    """Whether the permissions let a user; `wanted` is written as for others (S_IXOTH …)."""
    if user_id == 0:
        return True
    status = path.stat()
    if status.st_uid == user_id:
        return status.st_mode & (wanted << 6) == wanted << 6
    try:
        groups = os.getgrouplist(_user_name(user_id), pwd.getpwuid(user_id).pw_gid)
    except KeyError:
        groups = []
    if status.st_gid in groups:
        return status.st_mode & (wanted << 3) == wanted << 3
    return status.st_mode & wanted == wanted


def _ok(name: str, detail: str) -> Check:
    return Check(name=name, level="ok", detail=detail)


def _warning(name: str, detail: str, remedy: str) -> Check:
    return Check(name=name, level="warning", detail=detail, remedy=remedy)
