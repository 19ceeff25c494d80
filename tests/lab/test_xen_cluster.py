"""Xen hosts in a cluster, on real parts: disks in RBD by the host's kernel, and their fence.

One cluster goes through all of it: a KVM host that runs nothing and two Xen hosts with PV guests,
which write all the while. At the end their disks tell whether two ever wrote at once.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.lab import bare
from tests.lab.clusters import start_writer
from tests.lab.test_fencing import entries, start_elsewhere
from tests.lab.watched import Watched, watched_on
from tests.lab.xen_labs import ready, xen_lab_up
from tests.thorough import much
from vorch.availability import HaVm, NodeState
from vorch.drivers.xen_disks import PLACE
from vorch.errors import Conflict, Unreachable, Unsupported
from vorch.lab import CEPH_USER, Lab
from vorch.model import Power, XenKind

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(1200)]

X1, X2 = "x1", "x2"
# An emulated guest on an emulated hypervisor, on a machine that may have other things to do.
GUEST_TIMEOUT_S = 300.0
WRITER = "w1"
TRIES = 3


@pytest.fixture(scope="module")
def xen_lab() -> Iterator[Lab]:
    with xen_lab_up(ready(), xen=2, osds=3) as made:
        yield made


@pytest.fixture(scope="module")
def one_cluster(xen_lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    # Its libvirts are emulated, and may share two cores with much else.
    folder = tmp_path_factory.mktemp("watched")
    with watched_on(xen_lab, folder, host_timeout_s=30.0) as found:
        yield found


@pytest.fixture
def watched(one_cluster: Watched) -> Watched:
    """In order again, where a test before has failed on its way."""
    lab, cluster = one_cluster.lab, one_cluster.cluster
    one_cluster.stop_watching()
    if any(not row.power or row.libvirt != "running" for row in lab.status().hosts):
        lab.heal()
    for host in {X1, X2} - set(cluster.look().nodes):
        cluster.node_add(host, lab.spec.uri(host), ssh=lab.spec.ssh(host), install_hook=True)
    bare.eventually(lambda: not cluster.look().silent, "its hosts answer", GUEST_TIMEOUT_S)
    cluster.recover()
    # A guest that is left over makes the next test's slower; its disk is still to be looked at.
    for name in set(cluster.look().vms) - {WRITER}:
        cluster.stop(name, force=True)
    return one_cluster


def on(lab: Lab, host: str, line: str) -> str:
    command = lab.command(host, ["sh", "-c", line])
    done = subprocess.run(command, capture_output=True, check=True)
    return done.stdout.decode(errors="replace")


def mapped(lab: Lab, host: str) -> dict[str, str]:
    """Images that the host's kernel has mapped, and the client that each is written by."""
    line = "cd /sys/bus/rbd/devices && for d in *; do cat $d/name $d/client_addr; done || true"
    words = on(lab, host, line).split()
    return dict(zip(words[::2], words[1::2], strict=True))


def volume_of(watched: Watched, vm: str) -> str:
    volume = watched.cluster.show(vm).vm.disk("root").volume
    assert volume is not None
    return volume.name


def no_key_is_seen(lab: Lab, host: str, volume: str) -> None:
    """On command lines, in xenstore, in logs and definitions, where the image itself is seen."""
    keyring = (lab.spec.ceph_folder / f"ceph.client.{CEPH_USER}.keyring").read_text()
    key = keyring.rpartition("key = ")[2].strip()
    everything = (
        "xenstore-ls; cat /proc/*/cmdline /sys/bus/rbd/devices/*/config_info; dmesg;"
        " find /var/log /run /etc/xen -type f -exec cat {} +; virsh -c xen:///system dumpxml w1;"
        " true"
    )
    seen = on(lab, host, everything)
    assert volume in seen
    assert key not in seen


def create(watched: Watched, name: str, node: str, kind: XenKind = "pv") -> None:
    start_writer(
        watched.cluster,
        name,
        watched.memory_mib,
        node,
        hypervisor="xen",
        xen_kind=kind,
        vcpus_max=1,
    )


def writing_on(watched: Watched, host: str) -> None:
    """The VM that all of them use runs there and writes; as it is left by those before, or anew."""
    cluster = watched.cluster
    if WRITER not in cluster.look().vms:
        create(watched, WRITER, host)
    elif cluster.show(WRITER).power is not Power.RUNNING:
        if cluster.look().vm(WRITER).node != host:
            cluster.relocate(WRITER, host)
        cluster.start(WRITER)
    elif cluster.look().vm(WRITER).node != host:
        cluster.migrate(WRITER, host, still=True)
    watched.acks.await_more(3)


@pytest.mark.thorough
def test_a_host_without_the_hook_does_not_join_until_it_may_have_it(watched: Watched) -> None:
    lab, cluster = watched.lab, watched.cluster
    cluster.node_remove(X2)
    assert on(lab, X2, f"ls {PLACE} /etc/libvirt/secrets/*.base64 2>/dev/null || true") == ""
    with pytest.raises(Unsupported, match="vorch's hook is not there") as caught:
        cluster.node_add(X2, lab.spec.uri(X2), ssh=lab.spec.ssh(X2))
    assert "--install-hook" in caught.value.message
    address = lab.spec.management_address(X2)
    with pytest.raises(Unsupported, match="no way in by ssh as nobody@"):
        cluster.node_add(X2, lab.spec.uri(X2), ssh=f"nobody@{address}", install_hook=True)
    assert X2 not in cluster.look().nodes
    done = cluster.node_add(X2, lab.spec.uri(X2), ssh=lab.spec.ssh(X2), install_hook=True)
    assert done.task is not None
    # Found out by what Ceph saw of it.
    assert cluster.look().node(X2).storage_address == lab.spec.storage_address(X2)
    checks = {check.name: check for check in cluster.node_check(X2)}
    assert {check.level for check in checks.values()} <= {"ok", "warning"}
    assert "libvirt runs vorch's hook" in checks["hook"].detail
    assert "does not count here" in checks["CPU baseline"].detail
    on(lab, X2, f"echo '# changed' >>{PLACE}")
    wrong = next(check for check in cluster.node_check(X2) if check.name == "hook")
    assert (wrong.level, "of another version" in wrong.detail) == ("error", True)
    cluster.node_change(X2, install_hook=True)
    assert all(check.level != "error" for check in cluster.node_check(X2))


@pytest.mark.thorough
def test_a_guest_writes_to_an_image_that_the_hosts_kernel_has_mapped(watched: Watched) -> None:
    lab, cluster = watched.lab, watched.cluster
    writing_on(watched, X1)
    volume = volume_of(watched, WRITER)
    client = mapped(lab, X1)[volume]
    (holder,) = cluster.world.images("fast").holders(volume) or ()
    assert (holder.address, holder.owns_lock) == (client, True)
    recorded = cluster.look().clients[cluster.show(WRITER).vm.id]
    assert (recorded.node, dict(recorded.disks)) == (X1, {"root": client})
    no_key_is_seen(lab, X1, volume)


@pytest.mark.thorough
def test_a_guest_that_reboots_is_another_client_and_recorded_anew(watched: Watched) -> None:
    lab, cluster = watched.lab, watched.cluster
    writing_on(watched, X1)
    vm, volume = cluster.show(WRITER).vm, volume_of(watched, WRITER)
    before, boots = cluster.look().clients[vm.id], watched.boots()
    assert dict(before.disks) == {"root": mapped(lab, X1)[volume]}
    on(lab, X1, f"xl reboot {WRITER}")
    bare.eventually(lambda: watched.boots() - boots, "it writes again", GUEST_TIMEOUT_S)
    client = mapped(lab, X1)[volume]
    assert client != before.disks["root"]
    # libvirt has done that by itself; vorch sees it by the number of the run.
    found = {check.name: check.detail for check in cluster.doctor()}
    assert any("rebooted" in detail for name, detail in found.items() if WRITER in name), found
    cluster.recover()
    after = cluster.look().clients[vm.id]
    assert (after.node, dict(after.disks)) == (X1, {"root": client})
    assert after.run > before.run > 0
    watched.acks.await_more(3)


@pytest.mark.thorough
def test_disks_come_and_go_and_snapshots_are_taken_while_it_writes(watched: Watched) -> None:
    lab, cluster = watched.lab, watched.cluster
    writing_on(watched, X1)
    volume = volume_of(watched, WRITER)
    cluster.snapshot_create(WRITER, "s1")
    cluster.disk_attach(WRITER, disk="data", size_gib=1)
    assert len(mapped(lab, X1)) == 2
    assert set(cluster.look().clients[cluster.show(WRITER).vm.id].disks) == {"root", "data"}
    # As when it is started anew by Xen, of which libvirt's hook alone hears.
    assert on(lab, X1, "virsh -c xen:///system dumpxml w1 | grep -c vorch:rbd").strip() == "2"
    cluster.disk_detach(WRITER, "data")
    assert list(mapped(lab, X1)) == [volume]
    watched.acks.await_more(3)
    cluster.snapshot_delete(WRITER, "s1")


@pytest.mark.thorough
def test_a_guest_moves_standing_still_where_xen_cannot_move_it_live(watched: Watched) -> None:
    lab, cluster = watched.lab, watched.cluster
    writing_on(watched, X1)
    able = {one.name: one.why_not for one in cluster.node_abilities(X1)}
    assert "shadow paging" in able["move a PV guest without standing still"]
    with pytest.raises(Unsupported, match="stands still on its way") as caught:
        cluster.migrate(WRITER, X2)
    assert f"vorch migrate {WRITER} --still" in caught.value.message
    assert row(lab, X1) == (WRITER,)
    boots, volume = watched.boots(), volume_of(watched, WRITER)
    done = cluster.migrate(WRITER, X2, still=True)
    assert done.task is not None
    assert (row(lab, X1), row(lab, X2)) == ((), (WRITER,))
    assert (list(mapped(lab, X1)), list(mapped(lab, X2))) == ([], [volume])
    # The same boot of it, from another client: who writes now is recorded.
    watched.acks.await_more(3)
    assert watched.boots() == boots
    recorded = cluster.look().clients[cluster.show(WRITER).vm.id]
    assert (recorded.node, dict(recorded.disks)) == (X2, {"root": mapped(lab, X2)[volume]})
    cluster.migrate(WRITER, X1, still=True)
    watched.acks.await_more(3)
    assert watched.boots() == boots


def moved_or_goes_on(watched: Watched, vm: str, source: str, target: str) -> bool:
    failed = ""
    try:
        watched.cluster.migrate(vm, target)
    except Conflict as exc:
        failed = exc.message
    if failed:
        assert f"VM {vm!r} goes on on {source!r}" in failed
        assert vm in row(watched.lab, source)
    return not failed


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["pvh", "hvm"])
def test_a_guest_that_is_no_pv_guest_moves_while_it_writes(watched: Watched, kind: XenKind) -> None:
    lab, cluster = watched.lab, watched.cluster
    before = watched.boots()
    create(watched, kind, X1, kind)
    watched.await_new(before, 1)
    (boot,) = watched.boots() - before
    # Xen gives up a move now and then where it is emulated (one of six); then the guest goes on.
    for _ in range(TRIES):
        if moved_or_goes_on(watched, kind, X1, X2):
            break
    assert watched.boots() - before == {boot}
    assert kind in row(lab, X2)
    assert kind not in row(lab, X1)
    there = len(watched.acks.of([boot]))
    bare.eventually(
        lambda: len(watched.acks.of([boot])) >= there + 3,
        f"{kind} writes on {X2} as it did on {X1}",
        GUEST_TIMEOUT_S,
    )
    volume = volume_of(watched, kind)
    assert volume not in mapped(lab, X1)
    recorded = cluster.look().clients[cluster.show(kind).vm.id]
    assert (recorded.node, dict(recorded.disks)) == (X2, {"root": mapped(lab, X2)[volume]})
    # Its disk is looked at with those of the others.
    cluster.stop(kind, force=True)


def test_a_fenced_host_s_guest_writes_no_more_and_its_images_are_closed_before_it_is_let_in(
    watched: Watched,
) -> None:
    lab, cluster = watched.lab, watched.cluster
    writing_on(watched, X1)
    old = mapped(lab, X1)[volume_of(watched, WRITER)]
    no_key_is_seen(lab, X1, volume_of(watched, WRITER))
    lab.cut(X1, "management")
    # It is heard on the storage network.
    with pytest.raises(Conflict, match="answers on the storage network"):
        cluster.node_fence(X1)
    done = cluster.node_fence(X1, force=True)
    assert done.task is not None
    proof = str(done.task.result["proof"])
    assert f"Ceph refuses {lab.spec.storage_address(X1)} as a whole" in proof
    before = watched.boots()
    start_elsewhere(cluster, WRITER, X2)
    watched.await_new(before, 1)
    # Both run; one writes.
    assert row(lab, X1) == row(lab, X2) == (WRITER,)
    (holder,) = cluster.world.images("fast").holders(volume_of(watched, WRITER)) or ()
    assert holder.address != old
    with pytest.raises(Unreachable):
        cluster.node_unfence(X1)
    lab.heal()
    assert old in mapped(lab, X1).values()

    def taken_back() -> bool:
        try:
            cluster.node_unfence(X1)
        except Unreachable:
            return False
        return True

    bare.eventually(taken_back, "x1 is taken back", GUEST_TIMEOUT_S)
    assert (row(lab, X1), mapped(lab, X1)) == ((), {})
    assert not [one for one in entries(lab) if lab.spec.storage_address(X1) in one]
    watched.acks.await_more(3)


def row(lab: Lab, host: str) -> tuple[str, ...]:
    return next(one.vms for one in lab.status().hosts if one.name == host)


@pytest.mark.thorough
def test_what_a_host_cannot_close_keeps_it_cut_off(watched: Watched) -> None:
    """Without the way by ssh nobody can see that nothing is mapped there."""
    lab, cluster = watched.lab, watched.cluster
    cluster.node_fence(X1, force=True)
    way = cluster.look().node(X1).ssh
    cluster.node_change(X1, ssh=f"nobody@{lab.spec.management_address(X1)}")
    with pytest.raises(Unreachable, match="no way in by ssh"):
        cluster.node_unfence(X1)
    assert [one for one in entries(lab) if lab.spec.storage_address(X1) in one]
    assert watched.state_of(X1) is NodeState.FENCED
    cluster.node_change(X1, ssh=way)
    cluster.node_unfence(X1)
    assert watched.state_of(X1) is NodeState.ONLINE


@pytest.mark.thorough
def test_a_stopped_one_s_disk_grows_and_is_copied_and_goes_on_there(watched: Watched) -> None:
    writing_on(watched, X2)
    cluster = watched.cluster
    cluster.stop(WRITER, force=True)
    assert mapped(watched.lab, X2) == {}
    cluster.disk_grow(WRITER, "root", 1)
    cluster.clone(WRITER, "copy")
    cluster.delete("copy")


def test_the_power_of_a_xen_host_is_cut_and_its_guests_start_on_the_other(
    watched: Watched,
) -> None:
    lab, cluster = watched.lab, watched.cluster
    vms = much((WRITER, "w2", "w3"), (WRITER,))
    before = watched.boots()
    if WRITER in cluster.look().vms and cluster.show(WRITER).power is Power.RUNNING:
        cluster.stop(WRITER, force=True)
    writing_on(watched, X1)
    for name in vms[1:]:
        create(watched, name, X1)
    watched.await_new(before, len(vms))
    for name in vms:
        watched.look_after(HaVm(vm=name))
    for _ in range(2):
        watched.serve()
    watched.leader()
    watched.await_running(vms)
    # Its kernel answers, and has their images open.
    lab.hang(X1)
    watched.eventually(
        lambda: "its VMs go on there, so it is left alone" in watched.leader().said(),
        f"{X1} is left alone",
    )
    watched.acks.await_more(3)
    lab.heal()
    watched.await_all_online()
    watched.await_running(vms)
    before = watched.boots()
    at = time.monotonic()
    lab.power_off(X1)
    watched.await_state(X1, NodeState.FENCED)
    fenced_s = time.monotonic() - at
    watched.await_running(vms, off=(X1,))
    watched.await_new(before, len(vms))
    print(f"fenced after {fenced_s:.0f} s, all write after {time.monotonic() - at:.0f} s")
    assert {cluster.look().vm(name).node for name in vms} == {X2}
    lab.heal()
    watched.await_all_online()
    assert mapped(lab, X1) == {}
    watched.stop_watching()
    watched.check_disks(tuple(cluster.look().vms))
