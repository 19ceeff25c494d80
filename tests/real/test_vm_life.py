"""A VM's life on real libvirt, QEMU and qcow2: one guest, told from its birth to its grave."""

from __future__ import annotations

import hashlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.serving import served
from tests.real.guests import (
    PREFIX,
    READY,
    SECRET,
    SSH_KEY,
    GuestConsole,
    boot,
    embedded_cluster,
    eventually,
    guest_image,
    virsh,
)
from tests.rfb import Viewer
from tests.screens import ALIKE, alike, screen_in, seen_by
from vorch import CloudInit, Conflict, Orchestrator, StaticAddress, TimedOut, connect
from vorch.drivers.iso import make_iso

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(600)]

WEB = PREFIX + "web"
NAT, INNER = PREFIX + "nat", PREFIX + "inner"
# Ends what would hear the host; the agent's keeper first, which would start it anew.
SILENCE = "kill $(ps | awk '/{word}/ && !/awk/ {{ print $1 }}')"


class Web:
    """The VM that most of the story is about, and the console that root is logged in at."""

    def __init__(self, cluster: Orchestrator) -> None:
        self.cluster = cluster
        self.subnet = str(cluster.network_show(NAT).subnet).rsplit(".", 1)[0]
        self.address = f"{self.subnet}.5"
        cluster.create(
            WEB,
            image="tiny",
            iso="cd-one",
            memory_mib=160,
            memory_max_mib=224,
            vcpus=1,
            vcpus_max=4,
            networks=(NAT, INNER),
            cloud_init=CloudInit(
                hostname="web7",
                user="alice",
                password_hash=SECRET,
                ssh_keys=(SSH_KEY,),
                addresses=(
                    StaticAddress(address=f"{self.address}/24", gateway=f"{self.subnet}.1"),
                    None,
                ),
                commands=("echo ran on $(hostname) > /data/ran",),
            ),
        )
        cluster.cd_eject(WEB)
        self.console = boot(cluster, WEB)

    def path(self, disk: str = "root") -> Path:
        volume = self.cluster.look().vm(WEB).disk(disk).volume
        assert volume is not None
        source = self.cluster.world.images(volume.pool).locate(volume.name)
        return Path(source.path)

    def boots(self) -> int:
        """Follows the console to the next login prompt; which boot it was."""
        return int(self.console.expect(READY)[3])


@pytest.fixture(scope="module")
def cluster(
    libvirt_system: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Orchestrator]:
    image = guest_image("tiny")
    folder = tmp_path_factory.mktemp("cds")
    with embedded_cluster() as cluster:
        cluster.network_create(NAT)
        cluster.network_create(INNER, kind="isolated")
        cluster.image_import("tiny", str(image.path), memory_mib=image.memory_mib)
        for name in ("one", "two"):
            cd = folder / f"{name}.iso"
            cd.write_bytes(make_iso(f"CD_{name}", {"which": f"this is {name}\n"}))
            cluster.image_import(f"cd-{name}", str(cd), kind="iso")
        yield cluster


@pytest.fixture(scope="module")
def web(cluster: Orchestrator) -> Web:
    return Web(cluster)


def test_it_boots_from_its_disk_and_knows_who_it_is(web: Web, tmp_path: Path) -> None:
    console = web.console
    console.expect("web7 login: $")
    console.send("alice")
    console.expect("assword: ?$")
    console.send("secret")
    console.expect(r"[#$] $")
    assert console.run("id -un; cat .ssh/authorized_keys /data/ran").splitlines() == [
        "alice",
        SSH_KEY,
        "ran on web7",
    ]
    assert f"{web.address}/24" in console.run("ip -4 -o addr show dev eth0")
    assert f"default via {web.subnet}.1" in console.run("ip route")
    console.send("exit")
    console.log_in()
    screenshot = tmp_path / "screen"
    with served(web.cluster) as service, connect(service.address, token=service.token) as far:
        display = far.display(WEB)
        shown = seen_by(Viewer(display))
        virsh("screenshot", WEB, str(screenshot))
        assert alike(shown, screen_in(screenshot.read_bytes())) > ALIKE
        display.close()
    # The kernel came by the boot loader on the disk, not from the host.
    assert "<kernel>" not in virsh("dumpxml", WEB)


def test_show_tells_its_addresses_and_how_they_are_known(web: Web) -> None:
    inner = str(web.cluster.network_show(INNER).subnet).rsplit(".", 1)[0] + "."
    web.console.run(f"ping -c 1 -w 10 {web.subnet}.1")

    def look() -> dict[str, str]:
        return {one.source: one.ip for one in web.cluster.show(WEB).addresses}

    seen = eventually(look, lambda seen: "lease" in seen and len(seen) > 1)
    assert seen["lease"].startswith(inner)
    # Who had the static one first does not matter; no lease tells of it.
    assert web.address in seen.values()
    status = web.cluster.show(WEB)
    assert (status.power, status.notes) == ("running", ())
    assert {one.mac for one in status.addresses} == {nic.mac for nic in status.vm.nics}
    # Without the agent, the host's neighbours still tell.
    web.console.run("kill -STOP $(pidof qemu-ga)")
    assert eventually(look, lambda seen: "arp" in seen)["arp"] == web.address
    web.console.run("kill -CONT $(pidof qemu-ga)")


def test_figures_grow(web: Web) -> None:
    before = web.cluster.figures(WEB)
    web.console.run("dd if=/dev/urandom of=/data/noise bs=64k count=16 conv=fsync")
    web.console.run(f"ping -c 3 -w 20 {web.subnet}.1; rm /data/noise")
    after = web.cluster.figures(WEB)
    assert after.at > before.at
    assert after.cpu_time_ns > before.cpu_time_ns
    assert after.disks[0].name == "root"
    assert after.disks[0].written_bytes >= before.disks[0].written_bytes + 2**20
    assert after.nics[0].sent_packets >= before.nics[0].sent_packets + 3
    assert after.nics[0].received_bytes > before.nics[0].received_bytes
    assert 0 < (after.memory_used_mib or 0) <= after.memory_mib


def test_vcpus_and_memory_grow_while_it_runs(web: Web) -> None:
    console = web.console
    assert console.run("cat /sys/devices/system/cpu/online") == "0"
    done = web.cluster.change(WEB, vcpus=2)
    assert "at once" in done.plan.why
    console.until("cat /sys/devices/system/cpu/online", "0-1")

    def total_mib() -> int:
        return int(console.run("awk '/^MemTotal/ { print $2 }' /proc/meminfo")) // 1024

    before = total_mib()
    web.cluster.change(WEB, memory_mib=208)
    eventually(total_mib, lambda now: now >= before + 40)
    web.cluster.change(WEB, memory_mib=160)
    eventually(total_mib, lambda now: now <= before + 4)

    def has() -> tuple[int, int]:
        domain = web.cluster.show(WEB).domain
        assert domain is not None
        return domain.vcpus, domain.memory_mib

    # The balloon comes to its size a little after it was asked to.
    eventually(has, lambda seen: seen == (2, 160))
    assert web.cluster.show(WEB).notes == ()
    # More than it was started for waits, and says so.
    assert "at the next start" in web.cluster.change(WEB, vcpus=6).plan.why
    assert any("next start" in note for note in web.cluster.show(WEB).notes)
    web.cluster.change(WEB, vcpus=2, vcpus_max=4)


def test_a_disk_comes_grows_and_goes(web: Web) -> None:
    console, cluster = web.console, web.cluster
    cluster.disk_attach(WEB, disk="data", size_gib=1)
    console.until("cat /sys/block/vdb/size", str(2**30 // 512))
    assert console.run("cat /sys/block/vdb/serial") == "data"
    console.run("echo written > /root/text; dd if=/root/text of=/dev/vdb conv=fsync")
    cluster.disk_grow(WEB, "data", 2)
    console.until("cat /sys/block/vdb/size", str(2 * 2**30 // 512))
    assert console.run("head -n 1 /dev/vdb") == "written"
    volume = cluster.look().vm(WEB).disk("data").volume
    began = time.monotonic()
    cluster.disk_detach(WEB, "data", keep=True)
    assert time.monotonic() - began < 60
    console.until("ls /sys/block | grep -c vdb", "0")
    # It is somebody's who wants it: here the same VM's, with what was written on it.
    cluster.disk_attach(WEB, disk="again", volume=str(volume))
    console.until("head -n 1 /dev/vdb", "written")
    cluster.disk_detach(WEB, "again")
    assert [one.volumes for one in cluster.trash_list()] == [(volume,)]
    cluster.trash_purge(cluster.trash_list()[0].key)
    # By SCSI as well, whose controller comes with the first such disk.
    cluster.disk_attach(WEB, disk="scsi", size_gib=1, bus="scsi")
    console.until("cat /sys/block/sd?/size", str(2**30 // 512))
    cluster.disk_detach(WEB, "scsi", keep=False)
    console.until("ls /sys/block | grep -c sd", "0")


def test_a_nic_comes_gets_an_address_and_goes(web: Web) -> None:
    cluster = web.cluster
    mac = "52:54:00:e2:e0:01"
    cluster.nic_attach(WEB, network=NAT, mac=mac)
    address = eventually(
        lambda: [one.ip for one in cluster.show(WEB).addresses if one.mac == mac], bool
    )[0]
    assert address.startswith(web.subnet + ".")
    web.console.until("ip -4 -o addr show dev eth2 | grep -c inet", "1")
    cluster.nic_detach(WEB, mac)
    web.console.until("ls /sys/class/net | grep -c eth2", "0")
    assert mac not in [nic.mac for nic in cluster.show(WEB).vm.nics]


def test_a_cd_is_put_in_and_taken_out(web: Web) -> None:
    console, cluster = web.console, web.cluster
    drive = console.run(
        "for d in /dev/sr*; do dd if=$d bs=1 skip=32808 count=6 2>/dev/null | grep -q cidata"
        " || echo $d; done"
    )
    for name in ("one", "two"):
        cluster.cd_insert(WEB, f"cd-{name}")
        console.until(f"dd if={drive} bs=1 skip=32808 count=6 2>/dev/null", f"CD_{name}")
        console.run(f"mount -t iso9660 -o ro {drive} /mnt")
        assert console.run("cat /mnt/which; umount /mnt") == f"this is {name}"
    with pytest.raises(Conflict, match="cd-two"):
        cluster.image_delete("cd-two")
    cluster.cd_eject(WEB)
    console.until(f"dd if={drive} of=/dev/null bs=1 count=1 2>/dev/null; echo $?", "1")


def test_it_stands_still_while_it_is_paused(web: Web) -> None:
    console = web.console
    console.send("while sleep 0.2; do cat /proc/uptime; done & ticker=$!")
    console.expect(r"^[0-9]+\.[0-9]+ ")
    web.cluster.pause(WEB)
    assert web.cluster.show(WEB).power == "paused"
    console.drain()
    with pytest.raises(Conflict, match="paused"):
        web.cluster.stop(WEB)
    assert console.quiet(2)
    web.cluster.resume(WEB)
    console.expect(r"^[0-9]+\.[0-9]+ ")
    console.run("kill $ticker")
    assert web.cluster.show(WEB).power == "running"


def counters(console: GuestConsole) -> list[int]:
    return [int(console.run(f"head -n 1 /dev/{disk}")) for disk in ("vdb", "vdc")]


def test_snapshots_are_of_one_point_and_say_what_they_are_worth(web: Web) -> None:
    console, cluster = web.console, web.cluster
    for name in ("left", "right"):
        cluster.disk_attach(WEB, disk=name, size_gib=1)
    console.until("ls -d /sys/block/vdb /sys/block/vdc | wc -l", "2")
    console.run("echo as before > /data/note; sync")
    # One number after the other, first on the one disk and then on the other.
    console.run(
        "printf '%s\\n' 'i=1000' 'while true; do i=$((i+1)); for d in vdb vdc; do'"
        " 'printf \"%-511d\\n\" $i | dd of=/dev/$d bs=512 conv=fsync 2>/dev/null; done; done'"
        " > /root/count; (sh /root/count &) </dev/null >/dev/null 2>&1"
    )
    console.until("head -c 2 /dev/vdc", "10")
    cluster.snapshot_create(WEB, "frozen", description="the agent answers")
    assert cluster.snapshot_list(WEB)[0].consistency == "frozen"
    cluster.snapshot_create(WEB, "unfrozen", freeze=False)
    # Nobody is left frozen, and the writing went on.
    console.run("echo changed since > /data/note; sync")
    console.run(SILENCE.format(word="port-up|qemu-ga"))
    cluster.snapshot_create(WEB, "silent")
    worth = {one.name: str(one.consistency) for one in cluster.snapshot_list(WEB)}
    assert worth == {
        "frozen": "frozen",
        "unfrozen": "crash-consistent",
        "silent": "crash-consistent",
    }
    with pytest.raises(Conflict, match="running"):
        cluster.snapshot_rollback(WEB, "frozen")
    cluster.snapshot_delete(WEB, "unfrozen")
    assert [one.name for one in cluster.snapshot_list(WEB)] == ["frozen", "silent"]


def test_a_running_vm_is_cloned_while_it_writes(web: Web) -> None:
    before = counters(web.console)
    web.cluster.clone(
        WEB, PREFIX + "full", cloud_init=CloudInit(user="alice", password_hash=SECRET)
    )
    eventually(lambda: counters(web.console), lambda now: now[0] > before[0] and now[1] > before[1])
    # The snapshot that it was copied from is gone.
    assert [one.name for one in web.cluster.snapshot_list(WEB)] == ["frozen", "silent"]


def test_reset_boots_again_without_asking(web: Web) -> None:
    web.cluster.reset(WEB)
    assert web.boots() == 2
    web.console.log_in()
    assert web.cluster.show(WEB).power == "running"


def test_a_guest_that_does_not_listen_is_reported_and_cut(web: Web) -> None:
    web.console.run(SILENCE.format(word="port-up|qemu-ga|power-button"))
    began = time.monotonic()
    with pytest.raises(TimedOut, match="still running after 3 s"):
        web.cluster.stop(WEB, timeout_s=3)
    assert time.monotonic() - began >= 3
    assert web.cluster.show(WEB).power == "running"
    assert web.cluster.look().vm(WEB).wanted == "running"
    web.cluster.restart(WEB, force=True)
    web.console = GuestConsole(web.cluster, WEB)
    assert web.boots() == 3
    # Those that had waited for it are there now.
    assert web.cluster.show(WEB).notes == ()


def test_a_guest_that_listens_is_soon_off(web: Web) -> None:
    began = time.monotonic()
    web.cluster.stop(WEB, timeout_s=120)
    assert time.monotonic() - began < 60
    status = web.cluster.show(WEB)
    assert (status.power, status.domain, status.notes) == ("stopped", None, ())
    # Transient: the host itself remembers nothing.
    assert WEB not in virsh("list", "--all", "--name").split()


def test_rolled_back_it_is_as_it_was(web: Web) -> None:
    web.cluster.snapshot_rollback(WEB, "frozen")
    web.console = boot(web.cluster, WEB)
    assert "boot=2" in web.console.transcript
    web.console.log_in()
    assert web.console.run("cat /data/note") == "as before"
    left, right = counters(web.console)
    assert left - right in (0, 1), f"{left} on the one disk, {right} on the other"
    assert left > 1000


def test_a_guest_that_powers_itself_off_is_seen_to_have(web: Web) -> None:
    web.console.send("/sbin/shutdown -P")
    status = eventually(lambda: web.cluster.show(WEB), lambda seen: seen.power == "stopped")
    assert status.vm.wanted == "running"
    assert len(status.notes) == 1
    web.cluster.stop(WEB)
    assert web.cluster.show(WEB).notes == ()


def content(path: Path) -> str:
    """What a guest would read on that disk, as a checksum."""
    command = ["qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(path), "/dev/stdout"]
    raw = path.with_name("content.raw.lock")
    try:
        subprocess.run([*command[:-1], str(raw)], check=True)
        return hashlib.sha256(raw.read_bytes()).hexdigest()
    finally:
        raw.unlink()


def test_clones_and_templates_live_on_their_own(web: Web) -> None:
    cluster = web.cluster
    full, linked, made = PREFIX + "full", PREFIX + "linked", PREFIX + "made"
    for snapshot in ("frozen", "silent"):
        cluster.snapshot_delete(WEB, snapshot)
    for disk in ("left", "right"):
        cluster.disk_detach(WEB, disk)
        cluster.disk_detach(full, disk)
    was = content(web.path())
    cluster.clone(WEB, linked, linked=True, cloud_init=CloudInit())
    cluster.template(WEB, "golden")
    cluster.create(made, image="golden", networks=(NAT,), cloud_init=CloudInit(hostname="made7"))
    # What they stand on is hidden now, not gone.
    cluster.image_delete("tiny")
    cluster.image_delete("golden")
    wanted = {
        full: (full, "2", "changed since"),
        linked: (linked, "3", "as before"),
        made: ("made7", "3", "as before"),
    }
    # Two at a time: so many cores.
    for names in ((full, linked), (made,)):
        consoles = []
        for name in names:
            cluster.start(name)
            consoles.append(GuestConsole(cluster, name))
        for name, console in zip(names, consoles, strict=True):
            seen = console.expect(READY)
            console.log_in()
            note = console.run("cat /data/note")
            assert (seen[1], seen[3], note) == wanted[name]
            macs = console.run("cat /sys/class/net/eth*/address").splitlines()
            assert macs == [nic.mac for nic in cluster.look().vm(name).nics]
            console.run(f"echo {name} > /data/note; sync")
            cluster.stop(name, timeout_s=120)
            console.close()
    everyone = [nic.mac for vm in cluster.look().vms.values() for nic in vm.nics]
    assert len(everyone) == len(set(everyone))
    assert content(web.path()) == was


def test_what_was_deleted_comes_back_and_what_was_purged_does_not(web: Web) -> None:
    cluster = web.cluster
    linked = PREFIX + "linked"
    cluster.delete(linked)
    assert linked not in [one.name for one in cluster.list()]
    cluster.undelete(linked)
    with boot(cluster, linked) as console:
        console.log_in()
        assert console.run("cat /data/note") == linked
        with pytest.raises(Conflict, match="force"):
            cluster.delete(linked, purge=True)
    before = {one.name for one in cluster.volume_list("local")}
    gone = {volume.name for volume in cluster.look().vm(linked).volumes}
    cluster.delete(linked, purge=True, force=True)
    assert {one.name for one in cluster.volume_list("local")} == before - gone
