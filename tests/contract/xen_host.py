"""A Xen host of the lab behind the face that the Hypervisor contract is checked on."""

from __future__ import annotations

import shutil
import subprocess
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.contract.hypervisors import MIB, Host, a_disk
from vorch.drivers.xen import XenHost
from vorch.lab import Lab, guest, xen_image
from vorch.model import (
    INITRD_SOURCE,
    KERNEL_SOURCE,
    Cpu,
    DirectBoot,
    FileSource,
    IoLimits,
    Network,
    Node,
    Source,
    Vm,
    Volume,
)

IMAGES = Path("/var/lib/libvirt/images")
BOOT: Mapping[str, Source] = {
    KERNEL_SOURCE: FileSource(path=str(IMAGES / "kernel"), format="raw"),
    INITRD_SOURCE: FileSource(path=str(IMAGES / "initrd"), format="raw"),
}


class _WithKernel(XenHost):
    """A PV guest without a kernel cannot be: each gets the tiny guest's."""

    def start(
        self,
        vm: Vm,
        sources: Mapping[str, Source],
        networks: Mapping[str, Network],
        *,
        cpu: Cpu | None = None,
        paused: bool = False,
    ) -> None:
        super().start(vm, {**sources, **BOOT}, networks, cpu=cpu, paused=paused)


def put_kernel(lab: Lab, host: str) -> Path:
    """The tiny guest's kernel, unpacked, and initrd, where a Xen host sees them; that folder."""
    folder = lab.spec.host_folder(host) / "disk" / IMAGES.relative_to("/")
    image = guest.build("tiny")
    shutil.copyfile(xen_image.build().kernel, folder / "kernel")
    partition = f"{image.raw_path}@@{guest.BOOT_OFFSET}"
    take = ["mcopy", "-n", "-o", "-i", partition, "::initrd", str(folder / "initrd")]
    subprocess.run(take, check=True)
    return folder


class XenUnderTest(Host):
    """Reached by TLS, with disks in files of its own."""

    name = "xen"
    node = "x1"
    network = Network(name="lan", kind="bridge", bridge="br0")

    def __init__(self, lab: Lab) -> None:
        super().__init__()
        self.lab = lab
        way = lab.spec.ssh(self.node)
        self.hypervisor = _WithKernel(Node(name=self.node, uri=lab.spec.uri(self.node), ssh=way))
        self.folder = put_kernel(lab, self.node)

    def vm(self, name: str, **changes: Any) -> Vm:
        line = guest.xen_command_line(guest.COMMAND_LINE)
        boot = DirectBoot(
            kernel=Volume(pool="p", name="kernel"),
            initrd=Volume(pool="p", name="initrd"),
            command_line=line,
        )
        memory = guest.TINY_MEMORY_MIB
        settings: dict[str, Any] = {
            "hypervisor": "xen",
            "vcpus_max": 2,
            "memory_mib": memory,
            "memory_max_mib": memory,
            "direct_boot": boot,
        }
        settings |= changes
        return super().vm(name, **settings)

    def volume(self, name: str, size_bytes: int = 16 * MIB) -> Source:
        file = f"{name}-{uuid.uuid4().hex[:8]}.raw"
        with (self.folder / file).open("wb") as empty:
            empty.truncate(size_bytes)
        return FileSource(path=str(IMAGES / file), format="raw")

    def size_of(self, source: Source) -> int:
        return (self.folder / Path(source.path).name).stat().st_size

    def snapshots_of(self, source: Source) -> set[str]:
        return set()

    def linked(self, base: Source) -> Source:
        raise AssertionError("a raw file stands on nothing")

    def stands_on_another(self, source: Source) -> bool:
        return False

    def limits_of(self, vm: Vm, disk: str) -> IoLimits:
        return IoLimits()

    def stubborn(self, vm: Vm) -> None:
        raise AssertionError("nothing is unplugged here")

    def tell_to_end(self, vm: Vm) -> None:
        self.lab.kill_qemu(self.node, vm.name)

    def let_time_pass(self, seconds: float) -> None:
        time.sleep(seconds)

    def lose(self) -> None:
        self.hypervisor.close()

    def _new_guest(self) -> tuple[Vm, dict[str, Source]]:
        image = guest.build("tiny")
        shutil.copyfile(image.raw_path, self.folder / "root.raw")
        vm = self.vm("guest", disks=(a_disk("root"),), nics=(self._nic(),))
        return vm, {"root": FileSource(path=str(IMAGES / "root.raw"), format="raw")}

    def _await_boot(self, vm: Vm) -> None:
        console = self.hypervisor.console(vm.id)
        said, deadline = b"", time.monotonic() + 240
        try:
            while b"vorch-guest ready" not in said:
                assert time.monotonic() < deadline, f"the guest did not boot: {said[-500:]!r}"
                said += console.read(1.0)
        finally:
            console.close()
