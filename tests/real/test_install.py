"""Unattended installs on a real host, by a small installer of our own: told, ended, gone.

The installer is the tiny guest's kernel and initramfs with an `init` of its own: it looks for its
answers where a real one would, writes their checksum to the disk's first MiB and reboots.
"""

from __future__ import annotations

import hashlib
import io
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pycdlib import PyCdlib

import vorch
from tests.execute.scenarios import leaks
from tests.real.guests import (
    PREFIX,
    GuestConsole,
    embedded_cluster,
    eventually,
    guest_image,
    settings,
    virsh,
)
from tests.real.installers import write_installer
from vorch import Cancelled, NotFound, Orchestrator, Task, TimedOut

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(600)]

NAME = PREFIX + "fresh"
PRESEED = "d-i debian-installer/locale string en_US\nd-i passwd/root-login boolean true\n"
KICKSTART = "lang en_US\nrootpw --lock\nautopart\n%packages\n@core\n%end\n"
INIT = """#!/bin/sh
export PATH=/sbin:/bin
. /lib/boot.sh
mount_kernel_filesystems
start_drivers
exec </dev/ttyS0 >/dev/ttyS0 2>&1
echo "installer: told by $(cat /proc/cmdline)"
case $(cat /proc/cmdline) in *e2e.hang*) echo "installer: waiting"; sleep 100000 ;; esac
answers=none
[ -e /preseed.cfg ] && answers=/preseed.cfg
for cd in /dev/sr*; do
    label=$(dd if="$cd" bs=1 skip=32808 count=6 2>/dev/null)
    [ "$label" = OEMDRV ] || continue
    load isofs
    mount -t iso9660 -o ro "$cd" /mnt && answers=/mnt/ks.cfg
done
sum=$(sha256sum "$answers")
printf 'installed by %s\\n' "${sum%% *}" | dd of=/dev/vda bs=1M conv=fsync 2>/dev/null
echo "installer: done"
sync
echo b >/proc/sysrq-trigger
sleep 100
"""


@dataclass(frozen=True)
class Files:
    kernel: Path
    initrd: Path
    cd: Path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    image = guest_image("tiny")
    folder = tmp_path_factory.mktemp("installer")
    kernel, initrd = write_installer(image, INIT, folder)
    made = Files(kernel, initrd, folder / "installer.iso")
    iso = PyCdlib()
    iso.new(interchange_level=3, rock_ridge="1.09", vol_ident="INSTALLER")
    iso.add_directory("/INSTALL_AMD", rr_name="install.amd")
    for name, plain, path in (
        ("vmlinuz", "VMLINUZ.;1", made.kernel),
        ("initrd.gz", "INITRD.GZ;1", made.initrd),
    ):
        data = path.read_bytes()
        iso.add_fp(io.BytesIO(data), len(data), f"/INSTALL_AMD/{plain}", rr_name=name)
    iso.write(str(made.cd))
    iso.close()
    return made


@pytest.fixture(scope="module")
def cluster(libvirt_system: str, files: Files) -> Iterator[Orchestrator]:
    with embedded_cluster() as cluster:
        cluster.image_import("installer", str(files.cd), kind="iso")
        yield cluster


def folder_of(cluster: Orchestrator) -> Path:
    return Path(cluster.settings.uri.removeprefix("sqlite://")).parent


def first_line(cluster: Orchestrator) -> str:
    """What stands at the beginning of the VM's disk."""
    volume = cluster.look().vm(NAME).disks[0].volume
    assert volume is not None
    path = cluster.world.images(volume.pool).locate(volume.name).path
    done = subprocess.run(
        [
            *("qemu-img", "dd", "-f", "qcow2", "-O", "raw", "bs=512", "count=1"),
            *(f"if={path}", f"of={folder_of(cluster)}/first"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return (folder_of(cluster) / "first").read_bytes().split(b"\n")[0].decode()


def check_installed(cluster: Orchestrator, task: Task | None, answers: str) -> None:
    assert task is not None
    elapsed_s = task.result["elapsed_s"]
    assert isinstance(elapsed_s, float)
    assert 1 < elapsed_s < 300
    assert first_line(cluster) == f"installed by {hashlib.sha256(answers.encode()).hexdigest()}"
    vm = cluster.look().vm(NAME)
    assert (vm.direct_boot, [disk.name for disk in vm.disks]) == (None, ["root"])
    assert (vm.wanted, cluster.show(NAME).power) == ("stopped", "stopped")
    assert NAME not in virsh("list", "--all", "--name").split()
    # Kernel, initrd and answers were there for the installer only.
    names = [one.name for one in cluster.volume_list("local") if "image" not in one.name]
    assert names == [volume.name for volume in vm.volumes]
    cluster.delete(NAME, purge=True)


def test_a_preseed_reaches_the_installer(cluster: Orchestrator, files: Files) -> None:
    done = cluster.install(
        NAME,
        PRESEED,
        kernel=f"file://{files.kernel}",
        initrd=str(files.initrd),
        memory_mib=160,
        disk_gib=1,
        timeout_s=300,
    )
    check_installed(cluster, done.task, PRESEED)


def test_an_installers_cd_and_a_kickstart_are_enough_and_its_console_is_seen(
    cluster: Orchestrator,
) -> None:
    found: list[vorch.Done] = []

    def install() -> None:
        found.append(
            cluster.install(
                NAME,
                KICKSTART,
                iso="installer",
                arguments="e2e.word=hello",
                memory_mib=160,
                disk_gib=1,
                timeout_s=300,
            )
        )

    thread = threading.Thread(target=install)
    thread.start()
    try:
        with watched(cluster) as console:
            console.expect("installer: told by .*inst.ks=hd:LABEL=OEMDRV:/ks.cfg.* e2e.word=hello")
            assert cluster.show(NAME).power == "running"
            console.expect("installer: done")
    finally:
        thread.join()
    assert "/install.amd/vmlinuz" in str(found[0].plan)
    check_installed(cluster, found[0].task, KICKSTART)


def watched(cluster: Orchestrator) -> GuestConsole:
    """The console of a VM that somebody else is about to start."""

    def opened() -> GuestConsole | None:
        try:
            return GuestConsole(cluster, NAME)
        except vorch.VorchError:
            return None

    console = eventually(opened, bool)
    assert console is not None
    return console


def check_nothing_left(cluster: Orchestrator) -> None:
    with pytest.raises(NotFound):
        cluster.show(NAME)
    assert NAME not in virsh("list", "--all", "--name").split()
    assert leaks(cluster) == []
    assert all("image" in one.name for one in cluster.volume_list("local"))


def test_a_cancelled_install_leaves_nothing(cluster: Orchestrator) -> None:
    raised: list[BaseException] = []

    def install() -> None:
        try:
            cluster.install(
                NAME,
                PRESEED,
                iso="installer",
                arguments="e2e.hang",
                memory_mib=160,
                disk_gib=1,
                timeout_s=300,
            )
        except BaseException as exc:  # noqa: BLE001 it is looked at below
            raised.append(exc)

    thread = threading.Thread(target=install)
    thread.start()
    try:
        # As another process would: with a connection of its own.
        with vorch.connect(settings=settings(folder_of(cluster))) as other:
            with watched(other) as console:
                console.expect("installer: waiting")
            running = [one for one in other.task_list() if one.state.value == "running"]
            assert [one.verb for one in running] == ["install"]
            assert running[0].percent > 0
            other.task_cancel(running[0].id)
    finally:
        thread.join()
    assert isinstance(raised[0], Cancelled)
    assert cluster.task_show(running[0].id).state.value == "cancelled"
    check_nothing_left(cluster)


def test_an_install_that_takes_too_long_leaves_nothing(cluster: Orchestrator) -> None:
    with pytest.raises(TimedOut, match="still at it after 2 s"):
        cluster.install(
            NAME,
            PRESEED,
            iso="installer",
            arguments="e2e.hang",
            memory_mib=160,
            disk_gib=1,
            timeout_s=2,
        )
    check_nothing_left(cluster)
