"""Fences on real hosts and a real Ceph: what is cut off writes no more, however alive it is."""

from __future__ import annotations

import contextlib
import dataclasses
import subprocess
import time
from collections.abc import Iterator

import pytest
import rbd

import vorch
from tests.lab import bare
from tests.lab.acks import Acks
from tests.lab.clusters import ceph_url, cluster_on, import_writer, start_writer, verdict
from vorch import Orchestrator
from vorch import lab as labs
from vorch.availability import Knock
from vorch.decide.records import ensure_networks, networks_of, save_vm
from vorch.drivers.ceph_blocklist import YEAR_S, Blocklist
from vorch.drivers.ceph_groups import group_of, name_hash
from vorch.drivers.ceph_map import ask, osd_map
from vorch.drivers.fence_storage import StorageFencer
from vorch.drivers.rados_connection import RadosCluster
from vorch.drivers.rbd_locks import lock_owners
from vorch.drivers.rbd_pool import rbd_address
from vorch.drivers.witness import HostWitness
from vorch.errors import Conflict, FenceFailed, Unreachable
from vorch.lab import CEPH_USER, Lab
from vorch.lab.spec import POOL
from vorch.model import Cluster, Node, Pool, Volume
from vorch.plan import Plan, StartDomain
from vorch.ports import no_progress

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(600)]

WRITER = "writer"


def nodes_of(lab: Lab) -> dict[str, Node]:
    spec = lab.spec
    return {
        host: Node(name=host, uri=spec.uri(host), storage_address=spec.storage_address(host))
        for host in spec.host_names
    }


def pools_of(lab: Lab) -> dict[str, Pool]:
    return {"fast": Pool(name="fast", url=ceph_url(lab, "rbd"))}


@contextlib.contextmanager
def fencer_of(lab: Lab, *, shared: str = "refuse") -> Iterator[StorageFencer]:
    fencer = StorageFencer(
        lambda: pools_of(lab), lambda: nodes_of(lab), timeout_s=60, shared=shared
    )
    try:
        yield fencer
    finally:
        fencer.close()


@contextlib.contextmanager
def ceph_of(lab: Lab, user: str = CEPH_USER) -> Iterator[RadosCluster]:
    cluster = RadosCluster(str(lab.spec.ceph_conf), user, 20)
    try:
        yield cluster
    finally:
        cluster.close()


@contextlib.contextmanager
def guarded(lab: Lab) -> Iterator[Orchestrator]:
    """A cluster whose hosts' storage addresses are recorded."""
    with cluster_on(lab) as cluster:
        for name, node in nodes_of(lab).items():
            known = cluster.look().node(name)
            there = dataclasses.replace(known, storage_address=node.storage_address)
            cluster._record("node", name, known, there)
        yield cluster


@pytest.fixture
def acks(fresh_lab: Lab) -> Iterator[Acks]:
    found = Acks(fresh_lab.spec.own_management)
    yield found
    found.close()


def start_elsewhere(cluster: Orchestrator, name: str, node: str) -> None:
    """As a recovery does: without asking the host where it was."""

    def decide(look: Cluster) -> Plan:
        vm = look.vm(name)
        moved = dataclasses.replace(vm, node=node)
        return Plan(
            verb="recover",
            subject=name,
            why="its host was fenced",
            steps=(
                *ensure_networks(look, moved),
                save_vm(vm, moved),
                StartDomain(vm=moved, networks=networks_of(look, moved)),
            ),
            claims=(f"vm/{name}",),
        )

    cluster._do(decide, dry_run=False, wait_s=None)


def check_disk(lab: Lab, cluster: Orchestrator, acks: Acks) -> None:
    """One writer at a time, and nothing that was confirmed is lost."""
    seen = verdict(lab, cluster, WRITER, acks.all())
    assert seen.ok, seen.findings
    assert seen.acks >= 10


def entries(lab: Lab) -> dict[str, float]:
    with ceph_of(lab) as ceph:
        return osd_map(ceph).blocklist


def runs(lab: Lab, host: str) -> tuple[str, ...]:
    return next(row.vms for row in lab.status().hosts if row.name == host)


# ---------------------------------------------------------------------------------------------
# By the verbs


def test_a_guest_that_writes_is_stopped_at_once_and_goes_on_elsewhere(
    fresh_lab: Lab, acks: Acks
) -> None:
    lab = fresh_lab
    address = lab.spec.storage_address("h2")
    with guarded(lab) as cluster:
        start_writer(cluster, WRITER, import_writer(cluster), "h2")
        acks.await_more(5)
        with pytest.raises(Conflict, match="its libvirt answers, with 1 VM"):
            cluster.node_fence("h2")
        assert not entries(lab)
        done = cluster.node_fence("h2", force=True)
        assert done.task is not None
        proof = str(done.task.result["proof"])
        assert f"Ceph refuses {address} as a whole" in proof
        assert "16 placement groups have answered" in proof
        assert "1 lock(s) broken" in proof
        assert entries(lab)[f"{address}:0/0"] > time.time() + 0.9 * YEAR_S
        # It runs, and that is no matter.
        assert runs(lab, "h2") == (WRITER,)
        written = verdict(lab, cluster, WRITER).records
        start_elsewhere(cluster, WRITER, "h3")
        acks.await_more(5)
        assert runs(lab, "h2") == runs(lab, "h3") == (WRITER,)
        # Again, in the middle of the next one's work: it takes nothing from that one.
        cluster.node_fence("h2", force=True)
        acks.await_more(3)
        cluster.node_unfence("h2")
        assert (runs(lab, "h2"), runs(lab, "h3")) == ((), (WRITER,))
        assert not [one for one in entries(lab) if address in one]
        acks.await_more(3)
        cluster.stop(WRITER, force=True)
        check_disk(lab, cluster, acks)
        assert written > 0
        # The host is as good as new.
        cluster.relocate(WRITER, "h2")
        cluster.start(WRITER)
        acks.await_more(3)
        cluster.stop(WRITER, force=True)


def test_a_host_without_any_network_is_fenced_while_its_guest_goes_on(
    fresh_lab: Lab, acks: Acks
) -> None:
    lab = fresh_lab
    with guarded(lab) as cluster:
        start_writer(cluster, WRITER, import_writer(cluster), "h2")
        acks.await_more(5)
        lab.cut("h2", "both")
        cluster.node_fence("h2")
        start_elsewhere(cluster, WRITER, "h1")
        acks.await_more(3)
        with pytest.raises(Unreachable, match="restart the host"):
            cluster.node_unfence("h2")
        # Back it comes, with a guest that would like to go on writing.
        lab.heal()
        assert runs(lab, "h2") == (WRITER,)
        acks.await_more(3)

        def taken_back() -> bool:
            """Its libvirt takes a moment to be heard again."""
            try:
                cluster.node_unfence("h2")
            except Unreachable:
                return False
            return True

        bare.eventually(taken_back, "h2 is taken back")
        assert runs(lab, "h2") == ()
        cluster.stop(WRITER, force=True)
        check_disk(lab, cluster, acks)


def test_the_drill_passes_and_leaves_nothing(fresh_lab: Lab) -> None:
    lab = fresh_lab
    with guarded(lab) as cluster:
        checks = cluster.doctor(fencing=True)
        assert [one for one in checks if one.level != "ok"] == []
        assert any("its write failed, and another one took over" in one.detail for one in checks)
        drill = cluster._last_drill()
        assert drill is not None
        assert drill.passed
        assert drill.checks == checks
    assert not entries(lab)
    with bare.pool_of(lab) as pool:
        assert not [name for name in rbd.RBD().list(pool) if "drill" in name]


def write_and_flush(image: rbd.Image, pause_s: float) -> None:
    image.write(b"b" * 4096, 0)
    time.sleep(pause_s)
    image.flush()


def test_a_write_that_is_refused_is_never_called_done(fresh_lab: Lab) -> None:
    """librbd's cache forgets the failure, if a flush comes just after it: docs/adr/0029."""
    lab = fresh_lab
    with ceph_of(lab) as ours:
        blocklist = Blocklist(ours, [rbd_address(ceph_url(lab, "rbd"))])
        rbd.RBD().create(ours.ioctx(POOL), "one", 1 << 22, old_format=False, features=13)
        for number in (1, 2, 4):
            with ceph_of(lab) as cut:
                image = rbd.Image(cut.ioctx(POOL), "one")
                image.write(b"a" * 4096, 0)
                image.flush()
                blocklist.add([str(cut.handle().get_addrs())])
                blocklist.barrier(None, time.monotonic() + 60)
                with pytest.raises(rbd.Error):
                    write_and_flush(image, pause_s=number / 1000)
                with contextlib.suppress(rbd.Error):
                    image.close()


def test_the_drill_says_when_caps_do_not_suffice(fresh_lab: Lab) -> None:
    lab = fresh_lab
    conf = lab.spec.ceph_conf
    keyring = lab.spec.ceph_folder / "ceph.client.weak.keyring"
    weak = ("mon", "profile rbd", "osd", "profile rbd")
    order = ["ceph", "--conf", str(conf), "auth", "get-or-create", "client.weak", *weak]
    keyring.write_text(subprocess.run(order, check=True, capture_output=True, text=True).stdout)
    url = f"rbd://{POOL}?conf={conf}&id=weak"
    fencer = StorageFencer(
        lambda: {"fast": Pool(name="fast", url=url)}, lambda: nodes_of(lab), timeout_s=60
    )
    try:
        checks = {one.name: one for one in fencer.drill([nodes_of(lab)["h1"]], no_progress)}
        assert "caps" in checks[f"storage fence on {POOL}"].detail
        assert "what else of Ceph is at" in checks["storage fence of h1"].detail
    finally:
        fencer.close()
        keyring.unlink()


# ---------------------------------------------------------------------------------------------
# What it refuses, and what it leaves alone


def test_addresses_that_others_need_are_not_cut_off(fresh_lab: Lab) -> None:
    lab, uri = fresh_lab, fresh_lab.spec.uri("h1")
    spec = lab.spec

    def at(address: str) -> Node:
        return Node(name="other", uri=uri, storage_address=address)

    with fencer_of(lab) as fencer:
        for node, why in (
            (at(spec.own_storage), "vorch itself runs there"),
            (at(spec.storage_address("h1")), "'h1' is recorded with the same storage address"),
            (at(spec.ceph_address), "manager x of Ceph would be cut off with it"),
            (at(""), "it has no storage address"),
        ):
            with pytest.raises(FenceFailed, match=why):
                fencer.fence(node, (), no_progress)
        with pytest.raises(FenceFailed, match="damaged"):
            fencer.fence(at("10.9.9.9"), ("10.9.9.9:0/0",), no_progress)
    assert not entries(lab)
    with fencer_of(lab, shared="clients") as fencer:
        with pytest.raises(FenceFailed, match="none of its clients is known"):
            fencer.fence(at(spec.ceph_address), (), no_progress)
        client = f"{spec.ceph_address}:0/77"
        assert "1 client(s) at" in fencer.fence(at(spec.ceph_address), (client,), no_progress)
        assert list(entries(lab)) == [client]
        fencer.unfence(at(spec.ceph_address), (client,))
    # What is recorded for a host and is another one's stays as it is.
    with fencer_of(lab) as fencer:
        other = f"{spec.storage_address('h2')}:0/5"
        fencer.fence(nodes_of(lab)["h1"], (other,), no_progress)
        assert list(entries(lab)) == [f"{spec.storage_address('h1')}:0/0"]


def test_a_fence_that_was_cut_short_is_finished_and_other_locks_stay(fresh_lab: Lab) -> None:
    """This machine's own clients stand for a host's: each is cut off by its address alone."""
    lab = fresh_lab
    with ceph_of(lab) as ours, ceph_of(lab) as dead, ceph_of(lab) as alive:
        for name, owner in (("one", dead), ("two", alive)):
            rbd.RBD().create(ours.ioctx(POOL), name, 1 << 22, old_format=False, features=13)
            image = rbd.Image(owner.ioctx(POOL), name)
            image.write(b"x" * 4096, 0)
            # Freed with the process: closing would give the lock back.
            bare_image = image
            vorch.drivers.rados_connection.abandon(bare_image)
        entry = str(dead.handle().get_addrs())
        # As a process leaves it that was killed after its first order, and with Ceph's own term.
        ask(ours, "osd blocklist", blocklistop="add", addr=entry, expire=3600.0)
        blocklist = Blocklist(ours, [rbd_address(ceph_url(lab, "rbd"))])
        with pytest.raises(FenceFailed, match="did not stay"):
            blocklist.check([entry])
        until = time.monotonic() + 60
        for broken in (1, 0):
            blocklist.add([entry])
            assert blocklist.barrier(None, until).answered == 16
            assert blocklist.break_locks([entry], until) == broken
        ids = {one["name"]: one["id"] for one in rbd.RBD().list2(ours.ioctx(POOL))}
        owners = lock_owners(ours.ioctx(POOL), ids.values(), 20)
        assert {key: one.address for key, one in owners.items()} == {
            ids["two"]: str(alive.handle().get_addrs())
        }
        with rbd.Image(ours.ioctx(POOL), "two", read_only=True) as image:
            (locker,) = image.list_lockers()["lockers"]
            assert locker[1:] == (owners[ids["two"]].cookie, owners[ids["two"]].address)


def test_entries_that_end_soon_are_made_to_last_without_a_gap(fresh_lab: Lab) -> None:
    lab, node = fresh_lab, nodes_of(fresh_lab)["h1"]
    whole, client = f"{node.storage_address}:0/0", f"{node.storage_address}:0/9"
    with ceph_of(lab) as ceph, fencer_of(lab) as fencer:
        for entry in (whole, client):
            ask(ceph, "osd blocklist", blocklistop="add", addr=entry, expire=3600.0)
        fencer.fence(node, (client,), no_progress)
        found = osd_map(ceph)
        assert set(found.blocklist) == {whole, client}
        assert min(found.blocklist.values()) > time.time() + 0.9 * YEAR_S
        assert not found.ranges
        # One that was killed in the middle of that has left a range.
        network = f"{node.storage_address}/32"
        ask(ceph, "osd blocklist", range="range", blocklistop="add", addr=network, expire=9e6)
        assert osd_map(ceph).ranges == {network}
        # What is not of a fence stays.
        other = f"{node.storage_address}:0/11"
        ask(ceph, "osd blocklist", blocklistop="add", addr=other, expire=3600.0)
        fencer.unfence(node, (client,))
        assert set(osd_map(ceph).blocklist) == {other}
        assert not osd_map(ceph).ranges


def test_names_are_hashed_as_ceph_does(lab: Lab) -> None:
    with ceph_of(lab) as ceph:
        for name in ("", "a", "elevenbytes", "twelve bytes", "ü" * 20, "x" * 99):
            if name:
                said = ask(ceph, "osd map", pool=POOL, object=name)
                assert int(said["raw_pgid"].split(".")[1], 16) == name_hash(name.encode())
                assert int(said["pgid"].split(".")[1], 16) == group_of(name, 16)


# ---------------------------------------------------------------------------------------------
# OSDs on the hosts


def test_a_host_with_osds_is_cut_off_dead_or_alive_and_its_osds_go_on() -> None:
    made = labs.up("fenceosd", hosts=3, osds=3, hyperconverged=True)
    try:
        nodes = nodes_of(made)
        witness = HostWitness(lambda: pools_of(made), lambda node, timeout_s: None, answer_s=5)
        with fencer_of(made) as fencer:
            fencer.fence(nodes["h2"], (), no_progress)
            assert witness.osds(nodes["h2"]) == (1, 1)
            fencer.unfence(nodes["h2"], ())
            # Its placement groups have nobody for some 20 s. They are not waited for.
            made.cut("h1", "storage")
            early = "have no OSD but its own" in fencer.fence(nodes["h1"], (), no_progress)
            assert early or witness.osds(nodes["h1"]) == (0, 1)
            bare.eventually(
                lambda: witness.osds(nodes["h1"]) == (0, 1), "the OSD is counted as down"
            )
            assert "have no OSD but its own" not in fencer.fence(nodes["h1"], (), no_progress)
            made.power_off("h1")
            # It comes up again though its address is cut off: it is no client.
            made.heal()
            assert witness.osds(nodes["h1"]) == (1, 1)
            fencer.unfence(nodes["h1"], ())
        witness.close()
    finally:
        labs.down("fenceosd")


# ---------------------------------------------------------------------------------------------
# The witness


@pytest.fixture
def witness(fresh_lab: Lab) -> Iterator[HostWitness]:
    found = HostWitness(lambda: pools_of(fresh_lab), lambda node, timeout_s: None, answer_s=5)
    yield found
    found.close()


def test_knocks_tell_the_dead_from_the_silent(fresh_lab: Lab, witness: HostWitness) -> None:
    lab, nodes = fresh_lab, nodes_of(fresh_lab)

    def knocks(host: str) -> tuple[Knock | None, Knock | None]:
        node = nodes[host]
        return witness.knock(node, "management", 1.0), witness.knock(node, "storage", 1.0)

    assert knocks("h1") == (Knock.ANSWER, Knock.RESET)
    lab.hang("h1")
    assert knocks("h1") == (Knock.ANSWER, Knock.RESET)
    lab.cut("h2", "management")
    assert knocks("h2") == (Knock.SILENCE, Knock.RESET)
    lab.power_off("h3")
    assert knocks("h3") == (Knock.SILENCE, Knock.SILENCE)
    local = Node(name="here", uri="qemu:///system")
    assert witness.knock(local, "management", 1.0) is None
    assert witness.knock(local, "storage", 1.0) is None
    lab.heal()
    # A second is little for a host that has just begun.
    bare.eventually(lambda: knocks("h3") == (Knock.ANSWER, Knock.RESET), "h3 is there", 30)


def test_a_hundred_volumes_are_looked_at_together(fresh_lab: Lab, witness: HostWitness) -> None:
    volumes = [Volume(pool="fast", name=f"disk{number}") for number in range(100)]
    with ceph_of(fresh_lab) as ours, ceph_of(fresh_lab) as other:
        for volume in volumes:
            rbd.RBD().create(ours.ioctx(POOL), volume.name, 1 << 22, old_format=False, features=13)
        address = str(other.handle().get_addrs())
        opened = [rbd.Image(other.ioctx(POOL), volume.name) for volume in volumes[:60]]
        asked = [*volumes, Volume(pool="fast", name="none"), Volume(pool="files", name="disk1")]
        for _ in range(2):
            assert witness.clients(asked) == {
                volume: (address,) if number < 60 else () for number, volume in enumerate(volumes)
            }
        for image in opened:
            image.close()
        # A name that another image has got since is not taken for the old one.
        rbd.RBD().rename(ours.ioctx(POOL), "disk1", "was-disk1")
        rbd.RBD().rename(ours.ioctx(POOL), "disk2", "disk1")
        with rbd.Image(other.ioctx(POOL), "disk1"):
            seen = witness.clients(volumes)
        assert seen[volumes[1]] == (address,)
        assert volumes[2] not in seen
        assert sum(map(len, seen.values())) == 1


def test_without_monitors_the_witness_says_that_it_is_blind(
    fresh_lab: Lab, witness: HostWitness
) -> None:
    node = dataclasses.replace(
        nodes_of(fresh_lab)["h1"], storage_address=fresh_lab.spec.ceph_address
    )
    assert witness.osds(node) == (3, 3)
    fresh_lab.osd_kill(1)
    bare.eventually(lambda: witness.osds(node) == (2, 3), "one OSD is counted as down")
    fresh_lab.mon_kill("a")
    time.sleep(1.1)  # the age of a map
    with pytest.raises(Unreachable):
        witness.osds(node)
    fresh_lab.heal()
