"""The hosts that the Hypervisor contract is checked on, each behind one small face."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.contract.ceph import the_lab
from tests.guest.serial import BOOT_TIMEOUT_S
from vorch.domain_xml import read_domain
from vorch.drivers.memory import MemoryClock, MemoryWorld
from vorch.model import (
    GIB,
    Disk,
    DiskBus,
    FileSource,
    IoLimits,
    Network,
    Nic,
    Node,
    RbdSource,
    Source,
    Vm,
    Volume,
)
from vorch.ports import Hypervisor, no_progress

if TYPE_CHECKING:
    from vorch.lab import Lab
    from vorch.lab.guest import GuestImage

MIB = 1024**2
# Names of domains and networks that tests make begin with this, so that they can be told apart.
PREFIX = "xml-"


def a_disk(name: str, target: str = "vda", **changes: Any) -> Disk:
    return Disk(name=name, target=target, volume=Volume(pool="p", name=name), **changes)


def a_drive(**changes: Any) -> Disk:
    """An empty CD drive."""
    return Disk(
        name="cd", target="sda", bus=DiskBus.SATA, device="cdrom", **({"volume": None} | changes)
    )


class Host(ABC):
    """A hypervisor under test, and what the world around it has to do for the tests."""

    name: str
    node = "h1"
    hypervisor: Hypervisor
    # Another host with the same disks, for those who have two, and where this one reaches it.
    other: Hypervisor | None = None
    other_node = "h2"
    other_uri = ""
    # A network of its own with DHCP, which the tests make and remove.
    network = Network(
        name="xml-net", kind="isolated", bridge="xmlbr0", subnet="10.213.77.0/24", dhcp=True
    )

    def __init__(self) -> None:
        self._guest: tuple[Vm, dict[str, Source]] | None = None

    def vm(self, name: str, **changes: Any) -> Vm:
        """A small VM without a system on its disks."""
        settings: dict[str, Any] = {
            "vcpus_max": 2,
            "memory_mib": 64,
            "memory_max_mib": 64,
            "graphics": False,
            "agent": False,
        }
        identifier = str(uuid.uuid4())
        return Vm(name=PREFIX + name, id=identifier, node=self.node, **(settings | changes))

    @abstractmethod
    def volume(self, name: str, size_bytes: int = 16 * MIB) -> Source:
        """A new, empty disk on this host."""

    def file(self, name: str) -> Source:
        """One of the kind that has its snapshots inside."""
        return self.volume(name)

    def start(self, vm: Vm, sources: dict[str, Source], *, on: Hypervisor | None = None) -> None:
        """As vorch does it, which first asks the storage who else has the disks open."""
        (on or self.hypervisor).start(vm, sources, {})

    @abstractmethod
    def size_of(self, source: Source) -> int: ...

    @abstractmethod
    def snapshots_of(self, source: Source) -> set[str]:
        """The names of the snapshots in a volume that nobody has open."""

    @abstractmethod
    def linked(self, base: Source) -> Source:
        """A new disk that stands on another one."""

    @abstractmethod
    def stands_on_another(self, source: Source) -> bool:
        """Of a volume that nobody has open."""

    @abstractmethod
    def limits_of(self, vm: Vm, disk: str) -> IoLimits:
        """What a running VM's disk may do, as the host sees it. A burst lasts 1 s at least."""

    @abstractmethod
    def stubborn(self, vm: Vm) -> None:
        """Before its start: the guest of this VM is to let go of nothing."""

    @abstractmethod
    def tell_to_end(self, vm: Vm) -> None:
        """Its host has a running VM end: not its guest, and not vorch."""

    @abstractmethod
    def let_time_pass(self, seconds: float) -> None: ...

    @abstractmethod
    def lose(self) -> None:
        """The connection to it breaks; it goes on, and can be reached again."""

    def booted(self) -> Vm:
        """A running VM with a system in it: an agent, a NIC on `network`, two vCPUs possible.

        It is shared: who uses it leaves it as it was, or ends it.
        """
        if self._guest is not None and self.hypervisor.domain(self._guest[0].id) is not None:
            return self._guest[0]
        for hypervisor in (self.hypervisor, self.other):
            if hypervisor is not None:
                hypervisor.ensure_network(self.network)
        vm, sources = self._guest or self._new_guest()
        self._guest = (vm, sources)
        self.hypervisor.start(vm, sources, {self.network.name: self.network})
        self._await_boot(vm)
        return vm

    def _nic(self) -> Nic:
        return Nic(name="lan", mac="52:54:00:aa:bb:01", network=self.network.name)

    @abstractmethod
    def _new_guest(self) -> tuple[Vm, dict[str, Source]]: ...

    @abstractmethod
    def _await_boot(self, vm: Vm) -> None: ...

    def close(self) -> None:
        for domain in self.hypervisor.domains():
            if domain.name.startswith(PREFIX):
                self.hypervisor.cut(domain.id)
        self.hypervisor.remove_network(self.network)
        self.hypervisor.close()


class MemoryUnderTest(Host):
    name = "memory"

    def __init__(self) -> None:
        super().__init__()
        self._clock = MemoryClock()
        self._world = MemoryWorld(hosts=2, clock=self._clock)
        connected = self._world.connect()
        self.hypervisor = connected.hypervisor(self.node)
        self.other = connected.hypervisor(self.other_node)
        self.other_uri = "memory:"
        self._images = connected.images("p")

    def volume(self, name: str, size_bytes: int = 16 * MIB) -> Source:
        volume = f"{name}-{uuid.uuid4().hex[:8]}"
        self._images.create(volume, size_bytes)
        return self._images.locate(volume)

    def _info(self, source: Source) -> Any:
        return self._images.info(source.path.rpartition("/")[2])

    def size_of(self, source: Source) -> int:
        return int(self._info(source).size_bytes)

    def snapshots_of(self, source: Source) -> set[str]:
        return set(self._info(source).snapshots)

    def linked(self, base: Source) -> Source:
        volume = f"linked-{uuid.uuid4().hex[:8]}"
        below = self._info(base)
        self._images.clone(below.name, volume, below.size_bytes)
        return self._images.locate(volume)

    def stands_on_another(self, source: Source) -> bool:
        return self._info(source).base is not None

    def limits_of(self, vm: Vm, disk: str) -> IoLimits:
        limits = self._world.guest(vm.id).disks[disk].disk.limits
        burst = limits.burst_iops or limits.burst_mib_s
        return replace(limits, burst_s=limits.burst_s or 1) if burst else limits

    def stubborn(self, vm: Vm) -> None:
        self._world.behave(vm.name, lets_go=False)

    def tell_to_end(self, vm: Vm) -> None:
        self._world.guest(vm.id).crash()

    def let_time_pass(self, seconds: float) -> None:
        self._clock.sleep(seconds)

    def lose(self) -> None:
        self._world.machines[self.node].lose_connections()

    def _new_guest(self) -> tuple[Vm, dict[str, Source]]:
        vm = self.vm("guest", agent=True, disks=(a_disk("root"), a_drive()), nics=(self._nic(),))
        return vm, {"root": self.volume("root")}

    def _await_boot(self, vm: Vm) -> None:
        self._clock.sleep(10.0)


def emulated(node: str, uri: str) -> Hypervisor:
    """Without KVM, so that it is the same everywhere."""
    from vorch.drivers.kvm import KvmHost

    first = KvmHost(Node(name=node, uri=uri))
    facts = replace(first.facts(), accelerator="tcg", accelerator_why="as the tests want it")
    first.close()
    return KvmHost(Node(name=node, uri=uri, facts=facts))


class QemuUnderTest(Host):
    """QEMU under libvirt, wherever that is."""

    # Where files for the host are put, and what the host calls that place.
    _folder: Path
    _folder_there: Path
    _uri: str

    @abstractmethod
    def _root(self, image: GuestImage) -> Source:
        """A disk with that guest on it."""

    def _qcow2(self, name: str, *arguments: str, base: Path | None = None) -> Source:
        file = f"{name}-{uuid.uuid4().hex[:8]}.qcow2"
        backing = ["-b", str(base), "-F", "qcow2"] if base else []
        path = str(self._folder / file)
        command = ["qemu-img", "create", "-q", "-f", "qcow2", *backing, path, *arguments]
        subprocess.run(command, check=True)
        return FileSource(path=str(self._folder_there / file), format="qcow2")

    def _info(self, source: Source) -> Any:
        path = self._folder / Path(source.path).name
        command = ["qemu-img", "info", "-U", "--output=json", str(path)]
        return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)

    def snapshots_of(self, source: Source) -> set[str]:
        return {one["name"] for one in self._info(source).get("snapshots", ())}

    def linked(self, base: Source) -> Source:
        return self._qcow2("linked", base=Path(base.path))

    def stands_on_another(self, source: Source) -> bool:
        return "backing-filename" in self._info(source)

    def limits_of(self, vm: Vm, disk: str) -> IoLimits:
        import libvirt

        with contextlib.closing(libvirt.open(self._uri)) as connection:
            text = connection.lookupByUUIDString(vm.id).XMLDesc(0)
        return next(one.limits for one in read_domain(text).disks if one.name == disk)

    def stubborn(self, vm: Vm) -> None:
        """A VM without a system lets go of nothing as it is."""

    def tell_to_end(self, vm: Vm) -> None:
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if f"guest={vm.name}," in (folder / "cmdline").read_text():
                    os.kill(int(folder.name), signal.SIGTERM)

    def let_time_pass(self, seconds: float) -> None:
        time.sleep(seconds)

    def lose(self) -> None:
        # The daemon is everybody's; this end of the wire is the tests' own.
        self.hypervisor.close()

    def _new_guest(self) -> tuple[Vm, dict[str, Source]]:
        from vorch.lab import guest

        try:
            image = guest.build("tiny")
        except guest.GuestBuildError as exc:
            pytest.skip(f"there is no test guest: {exc}")
        vm = self.vm(
            "guest",
            agent=True,
            memory_mib=image.memory_mib,
            memory_max_mib=image.memory_mib,
            disks=(a_disk("root", boot=1), a_drive()),
            nics=(self._nic(),),
        )
        return vm, {"root": self._root(image)}

    def _await_boot(self, vm: Vm) -> None:
        console = self.hypervisor.console(vm.id)
        said = b""
        deadline = time.monotonic() + BOOT_TIMEOUT_S
        try:
            while b"vorch-guest ready" not in said:
                assert time.monotonic() < deadline, f"the guest did not boot: {said[-500:]!r}"
                said += console.read(1.0)
        finally:
            console.close()


class LibvirtUnderTest(QemuUnderTest):
    """This machine's own, with its disks in files."""

    name = "libvirt"

    def __init__(self, uri: str) -> None:
        super().__init__()
        self._uri = uri
        self.hypervisor = emulated(self.node, uri)
        # Not in pytest's own folder, which QEMU's user may not enter.
        self._folder = Path(tempfile.mkdtemp(prefix="vorch-test-", dir="/var/tmp"))
        self._folder.chmod(0o711)
        self._folder_there = self._folder

    def volume(self, name: str, size_bytes: int = 16 * MIB) -> Source:
        return self._qcow2(name, str(size_bytes))

    def size_of(self, source: Source) -> int:
        return int(self._info(source)["virtual-size"])

    def _root(self, image: GuestImage) -> Source:
        return self._qcow2("root", base=image.path)

    def close(self) -> None:
        super().close()
        shutil.rmtree(self._folder)


class LabUnderTest(QemuUnderTest):
    """A host of the lab, reached by TLS, with its disks in RBD, and a second one beside it."""

    name = "lab"

    def __init__(self, lab: Lab) -> None:
        from tests.contract import ceph_images

        super().__init__()
        self._uri = lab.spec.uri(self.node)
        self.hypervisor = emulated(self.node, self._uri)
        self.other = emulated(self.other_node, lab.spec.uri(self.other_node))
        self.other_uri = lab.spec.peer_uri(self.other_node)
        self._folder_there = Path("/var/lib/libvirt/images")
        self._folder = lab.spec.host_folder(self.node) / "disk/var/lib/libvirt/images"
        self._folder.mkdir(parents=True, exist_ok=True)
        # Not in a namespace of their own, where libvirt opens nothing.
        self._images = ceph_images.images(lab, "")
        self._volumes: list[str] = []
        for host in (self.hypervisor, self.other):
            host.ensure_secret(self._images.secret())

    def volume(self, name: str, size_bytes: int = 16 * MIB) -> Source:
        volume = self._new(name)
        self._images.create(volume, size_bytes)
        return self._images.locate(volume)

    def linked(self, base: Source) -> Source:
        """On a file: what stands on another image in RBD is flattened there, not by a host."""
        below = self._qcow2("base", str(16 * MIB))
        return self._qcow2("linked", base=Path(Path(below.path).name))

    def _new(self, name: str) -> str:
        self._volumes.append(f"{name}-{uuid.uuid4().hex[:8]}")
        return self._volumes[-1]

    def file(self, name: str) -> Source:
        return self._qcow2(name, str(16 * MIB))

    def start(self, vm: Vm, sources: dict[str, Source], *, on: Hypervisor | None = None) -> None:
        for source in sources.values():
            assert isinstance(source, RbdSource)
            self._images.ensure_unused(source.image)
        super().start(vm, sources, on=on)

    def size_of(self, source: Source) -> int:
        assert isinstance(source, RbdSource)
        self._images.ensure_unused(source.image)
        return self._images.info(source.image).size_bytes

    def _root(self, image: GuestImage) -> Source:
        base, root = self._new("tiny"), self._new("root")
        self._images.import_file(str(image.path), base, "disk", "", no_progress)
        self._images.clone(base, root, image.virtual_size_bytes)
        return self._images.locate(root)

    def close(self) -> None:
        assert self.other is not None
        for domain in self.other.domains():
            if domain.name.startswith(PREFIX):
                self.other.cut(domain.id)
        self.other.remove_network(self.network)
        self.other.close()
        super().close()
        for file in self._folder.glob("*.qcow2"):
            file.unlink()
        for volume in reversed(self._volumes):
            self._images.purge(volume)
        self._images.close()


# Every driver of the port. One that needs something of this machine says so by its marker.
HOSTS: Mapping[str, Callable[[pytest.FixtureRequest], Host]] = {
    "memory": lambda request: MemoryUnderTest(),
    "libvirt": lambda request: LibvirtUnderTest(request.getfixturevalue("libvirt_system")),
    "lab": lambda request: LabUnderTest(the_lab(request)),
}
PARAMETERS = [
    pytest.param("memory"),
    pytest.param("libvirt", marks=[pytest.mark.real, pytest.mark.slow]),
    pytest.param("lab", marks=[pytest.mark.lab, pytest.mark.slow]),
]
# Those with two hosts, for moves from one to the other.
PAIRS = [one for one in PARAMETERS if one.values[0] != "libvirt"]

__all__ = ["GIB", "HOSTS", "MIB", "PAIRS", "PARAMETERS", "Host", "a_disk", "a_drive"]
