"""A VM goes to the other hypervisor, on the world in memory: it comes up there, or goes back."""

from __future__ import annotations

import itertools

import pytest

import vorch
from vorch import Conflict, Invalid, Orchestrator, StepFailed, TimedOut, Unsupported
from vorch.drivers.memory import MemoryMedia, MemoryWorld
from vorch.drivers.memory_guests import Behaviour
from vorch.inside import Boot, Inside, Kernel, Partition
from vorch.model import Power, TaskState
from vorch.ports import Content

_numbers = itertools.count()
DRIVERS = ("xen_blkfront", "xen_netfront", "virtio_pci", "virtio_blk", "virtio_net")
FIT = Inside(
    table="mbr",
    bios_starts=True,
    partitions=(Partition(number=1, start_bytes=2**20, size_bytes=2**30, holds="ext4"),),
    kernels=(
        Kernel(
            path="/boot/vmlinuz-6.1",
            version="6.1",
            entries=frozenset(["bare", "pv", "pvh"]),
            drivers=dict.fromkeys(DRIVERS, "initramfs"),
            initramfs="/boot/initrd.img-6.1",
        ),
    ),
    boots=(Boot(file="/boot/grub/grub.cfg", kernel="/boot/vmlinuz-6.1", command_line="ro quiet"),),
)


class Media(MemoryMedia):
    """What is in disks is said by the test."""

    inside = FIT
    looks = 0

    def look_into(self, content: Content) -> Inside:
        assert content.size_bytes
        self.looks += 1
        return self.inside


class Two:
    """h1 has KVM, x1 has Xen; the VM `web` is off on h1."""

    def __init__(self, **vm: object) -> None:
        self.world = MemoryWorld(f"crossing-{next(_numbers)}")
        self.world.add_host("x1", xen=True)
        self.media = Media()
        self.cluster = self.connect()
        _, prepare = self.world.connection()
        prepare(self.cluster)
        self.cluster.create("web", disk_gib=1, memory_mib=512, node="h1", **vm)  # type: ignore[arg-type]

    def connect(self) -> Orchestrator:
        return Orchestrator(self.world.connect(media=self.media), vorch.Settings(uri="memory:"))

    def where(self) -> tuple[str, str, Power]:
        status = self.cluster.show("web")
        return status.vm.node, status.vm.hypervisor, status.power

    def written(self) -> bytes:
        """The first bytes of its disk."""
        volume = self.cluster.show("web").vm.disks[0].volume
        assert volume is not None
        with self.cluster.world.images(volume.pool).open_read(volume.name) as disk:
            return disk.read(16)


@pytest.fixture
def two() -> Two:
    return Two()


def test_there_and_back_twice_its_data_stay(two: Two) -> None:
    cluster = two.cluster
    for number in range(2):
        done = cluster.relocate("web", "x1")
        assert done.task is not None
        assert "login:" in str(done.task.result["up_by"])
        assert two.where() == ("x1", "xen", Power.RUNNING)
        two.world.guest("web").write("root", 0, b"from Xen %d" % number)
        cluster.stop("web")
        assert two.written().startswith(b"from Xen %d" % number)
        cluster.relocate("web", "h1")
        assert two.where() == ("h1", "kvm", Power.RUNNING)
        cluster.stop("web")
        assert two.written().startswith(b"from Xen %d" % number)
    vm = cluster.show("web").vm
    assert len(vm.snapshots) == 4
    assert len({one.name for one in vm.snapshots}) == 4
    assert vm.snapshots[0].description == "before it went to x1"
    assert two.world.double_writers() == []


def test_one_that_may_run_on_both_stays_so(two: Two) -> None:
    two.cluster.change("web", hypervisor="any")
    two.cluster.relocate("web", "x1")
    assert two.where() == ("x1", "any", Power.RUNNING)


def test_only_recorded_when_told_so(two: Two) -> None:
    two.cluster.relocate("web", "x1", start=False)
    assert two.where() == ("x1", "xen", Power.STOPPED)


def test_an_image_without_drivers_is_refused_and_nothing_is_touched(two: Two) -> None:
    kernel = FIT.kernels[0]
    lacking = {**kernel.drivers, "xen_blkfront": "no"}
    two.media.inside = _with_kernel(drivers=lacking)
    with pytest.raises(Unsupported) as caught:
        two.cluster.relocate("web", "x1")
    assert (
        "its kernel 6.1 has no xen_blkfront nor has its initramfs /boot/initrd.img-6.1, so that it"
        " would not find its disk under Xen" in caught.value.message
    )
    assert two.where() == ("h1", "kvm", Power.STOPPED)
    assert two.cluster.show("web").vm.snapshots == ()
    two.cluster.relocate("web", "x1", unchecked=True)
    assert two.where() == ("x1", "xen", Power.RUNNING)


def _with_kernel(**changes: object) -> Inside:
    import dataclasses

    kernel = dataclasses.replace(FIT.kernels[0], **changes)  # type: ignore[arg-type]
    return dataclasses.replace(FIT, kernels=(kernel,))


def test_what_cannot_be_looked_into_needs_consent(two: Two) -> None:
    two.media.inside = Inside(
        table="gpt", bios_starts=True, partitions=(), unread=("partition 2 holds LVM",)
    )
    with pytest.raises(Unsupported, match=r"could not look into: partition 2 holds LVM.*--unread"):
        two.cluster.relocate("web", "x1")
    two.cluster.relocate("web", "x1", unread=True)
    assert two.where() == ("x1", "xen", Power.RUNNING)


@pytest.mark.parametrize("rollback", [False, True])
def test_one_that_does_not_come_up_goes_back_by_itself(two: Two, rollback: bool) -> None:
    two.cluster.start("web")
    two.world.guest("web").write("root", 0, b"at home")
    two.cluster.stop("web", force=True)
    two.world.behaviours["web"] = Behaviour(boot_s=1e9, writes_per_s=1.0)
    with pytest.raises(TimedOut) as caught:
        two.cluster.relocate("web", "x1", timeout_s=60, rollback=rollback)
    assert two.where() == ("h1", "kvm", Power.STOPPED)
    message = caught.value.message
    assert "its guest has not come up within 60 s" in message
    (snapshot,) = two.cluster.show("web").vm.snapshots
    if rollback:
        assert two.written().startswith(b"at home")
        assert "its disks are as they were" in message
    else:
        assert not two.written().startswith(b"at home")
        assert f"vorch snapshot rollback web {snapshot.name}" in message
    task = two.cluster.task_show(str(caught.value.fields["task"]))
    assert task.state is TaskState.FAILED
    assert task.error is not None
    assert "has not come up" in str(task.error["message"])
    assert two.cluster.world.state.read(["plan", "claim"]) == {}
    # Put right, it can go.
    two.world.behaviours.clear()
    two.cluster.relocate("web", "x1")


def test_one_that_ends_at_once_is_not_waited_for(two: Two) -> None:
    two.world.behaviours["web"] = Behaviour(boot_s=1e9, powers_off_after_s=5.0)
    began = two.world.clock.now()
    with pytest.raises(StepFailed, match="its guest ended after"):
        two.cluster.relocate("web", "x1")
    assert two.world.clock.now() - began < 30
    assert two.where() == ("h1", "kvm", Power.STOPPED)


def test_text_that_is_expected_is_all_that_counts(two: Two) -> None:
    with pytest.raises(TimedOut, match=r"has not shown 'ready'.*its console said last: '.*login:'"):
        two.cluster.relocate("web", "x1", expect="ready", timeout_s=20)
    two.cluster.relocate("web", "x1", expect="login")
    assert two.where()[0] == "x1"


def test_an_address_will_do_where_somebody_else_has_the_console(two: Two) -> None:
    def grab(point: str, journal: object) -> None:
        if point == "before" and two.cluster.look(None).domains:
            two.world.guest("web").console_of = held  # type: ignore[assignment]

    class Held:
        open = True

        def close(self) -> None:
            raise AssertionError("it is not taken away")

    held = Held()
    two.cluster.executor.hook = grab
    done = two.cluster.relocate("web", "x1")
    assert done.task is not None
    assert str(done.task.result["up_by"]).startswith("it has the address")
    assert any("its console is not listened to" in line for line in done.task.log)


def test_a_dry_run_says_all_and_does_nothing(two: Two) -> None:
    done = two.cluster.relocate("web", "x1", dry_run=True)
    kinds = [step.kind for step in done.plan.steps]
    assert kinds[0] == "snapshot-disks"
    assert kinds[-1] == "await-guest"
    assert "to x1 under Xen as a PV guest, on the same disks" in done.plan.why
    assert two.cluster.show("web").vm.snapshots == ()


def test_a_running_one_has_to_be_stopped_first(two: Two) -> None:
    two.cluster.start("web")
    with pytest.raises(Conflict, match="it is running"):
        two.cluster.relocate("web", "x1")
    assert two.media.looks == 0


def test_what_xen_cannot_have_is_refused_by_placement() -> None:
    two = Two(watchdog="reset")
    with pytest.raises(Unsupported, match="the VM asks for a watchdog"):
        two.cluster.relocate("web", "x1")
    assert two.cluster.show("web").vm.snapshots == ()


def test_between_hosts_that_are_alike_there_is_nothing_to_look_for(two: Two) -> None:
    two.world.add_host("h2")
    two.cluster.node_add("h2", "memory:h2")
    with pytest.raises(Invalid, match="run the same hypervisor"):
        two.cluster.relocate("web", "h2", unread=True)
    two.cluster.relocate("web", "h2")
    assert two.where() == ("h2", "kvm", Power.STOPPED)


def test_it_is_looked_after_there_as_it_was_before(two: Two) -> None:
    two.cluster.start("web")
    two.cluster.ha_set("web")
    two.cluster.stop("web")
    two.cluster.relocate("web", "x1")
    settings = two.cluster.ha_show("web").settings
    assert settings is not None
    assert settings.requested.value == "started"
