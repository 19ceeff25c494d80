"""vorch on real hosts and a real Ceph: hosts join by being tried out, VMs run from clones."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.lab import bare
from tests.lab.clusters import ceph_url, cluster_on, disk_of, import_writer, start_writer
from vorch.errors import Conflict, Unreachable, Unsupported, VorchError
from vorch.lab import Lab, guest, verify_disk
from vorch.lab.spec import CEPH_USER

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(600)]


def running_on(lab: Lab) -> dict[str, str]:
    """Where each domain really is, past vorch."""
    found = {}
    for host in lab.status().hosts:
        for name in host.vms:
            assert name not in found, f"{name} runs twice"
            found[name] = host.name
    return found


@pytest.mark.thorough
def test_vms_from_a_template_run_on_every_host(fresh_lab: Lab) -> None:
    lab, image = fresh_lab, guest.build("tiny")
    with cluster_on(lab) as cluster:
        assert all(node.facts and node.facts.accelerator for node in cluster.node_list())
        cluster.image_import("tiny", str(image.path), pool="fast")

        def create(number: int) -> None:
            cluster.create(
                f"vm{number}",
                image="tiny",
                memory_mib=image.memory_mib,
                networks=("lan",),
                node=f"h{number % 3 + 1}",
                start=True,
            )

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(create, range(6)))
        assert running_on(lab) == {f"vm{n}": f"h{n % 3 + 1}" for n in range(6)}
        shown = {status.name: (status.power.value, status.vm.node) for status in cluster.list()}
        assert shown == {f"vm{n}": ("running", f"h{n % 3 + 1}") for n in range(6)}
        # Linked clones: six VMs take far less than six times the image.
        volumes = cluster.volume_list("fast")
        assert sum(one.base is not None for one in volumes) == 6
        for number in range(6):
            cluster.delete(f"vm{number}", force=True, purge=True)
        cluster.image_delete("tiny")
        assert cluster.volume_list("fast") == ()
        assert running_on(lab) == {}


def test_a_second_process_sees_and_rules_the_same_cluster(fresh_lab: Lab) -> None:
    lab, image = fresh_lab, guest.build("tiny")
    with cluster_on(lab, ("h1",)) as one:
        one.image_import("tiny", str(image.path), pool="fast")
        one.create("web", image="tiny", memory_mib=image.memory_mib, networks=(), start=True)
        command = [".venv/bin/python", "-m", "vorch_cli", "--uri", one.settings.uri]
        subprocess.run(
            [*command, "stop", "web", "--force"],
            check=True,
            capture_output=True,
            text=True,
        )
        assert one.show("web").power.value == "stopped"
        assert running_on(lab) == {}


def test_a_host_without_storage_stays_out(fresh_lab: Lab) -> None:
    lab = fresh_lab
    with cluster_on(lab, ("h1",)) as cluster:
        lab.cut("h2", "storage")
        with pytest.raises(Unsupported, match=r"pool fast by monitor .*"):
            cluster.node_add("h2", lab.spec.uri("h2"))
        lab.cut("h3", "management")
        with pytest.raises(VorchError, match="cannot add host 'h3'"):
            cluster.node_add("h3", lab.spec.uri("h3"))
        assert [node.name for node in cluster.node_list()] == ["h1"]
        assert cluster.volume_list("fast") == ()
        lab.heal()
        cluster.node_add("h2", lab.spec.uri("h2"))
        assert {check.level for check in cluster.node_check("h2")} <= {"ok", "warning"}


def test_a_host_that_was_made_anew_opens_disks_again(fresh_lab: Lab) -> None:
    """It has forgotten the key; starting a VM leaves it there again."""
    lab, image = fresh_lab, guest.build("tiny")
    with cluster_on(lab, ("h1",)) as cluster:
        cluster.image_import("tiny", str(image.path), pool="fast")
        cluster.create("web", image="tiny", memory_mib=image.memory_mib, networks=())
        with bare.connected(lab, "h1") as connection:
            for secret in connection.listAllSecrets():
                secret.undefine()
        lab.reboot("h1")
        cluster.start("web")
        assert running_on(lab) == {"web": "h1"}


@pytest.mark.thorough
def test_a_writer_made_by_vorch_loses_nothing_in_a_power_cut(fresh_lab: Lab) -> None:
    lab = fresh_lab
    with cluster_on(lab) as cluster:
        start_writer(cluster, "writer", import_writer(cluster), "h2")
        disk = disk_of(cluster, "writer")

        def records() -> int:
            try:
                return verify_disk(disk, conf=lab.spec.ceph_conf, user=CEPH_USER).records
            except VorchError:
                return 0

        bare.eventually(lambda: records() >= 10, "it writes")
        lab.power_off("h2")
        seen = verify_disk(disk, conf=lab.spec.ceph_conf, user=CEPH_USER)
        assert seen.ok, seen.findings
        # Nobody knows what a silent host does, so nothing of it is started elsewhere.
        with pytest.raises(Unreachable):
            cluster.start("writer")
        lab.power_on("h2")
        cluster.start("writer")
        bare.eventually(lambda: records() >= seen.records + 5, "it goes on writing")
        cluster.stop("writer", force=True)
        seen = verify_disk(disk, conf=lab.spec.ceph_conf, user=CEPH_USER)
        assert seen.ok, seen.findings
        assert [one.epoch for one in seen.epochs] == [1, 2]


def test_a_disk_that_somebody_has_open_is_not_started_from(fresh_lab: Lab) -> None:
    """Started past vorch on another host: RBD alone would let both write."""
    lab, image = fresh_lab, guest.build("writer")
    with cluster_on(lab, ("h1", "h2")) as cluster:
        cluster.image_import("writer", str(image.path), pool="fast")
        cluster.create(
            "writer", image="writer", memory_mib=image.memory_mib, networks=("lan",), node="h1"
        )
        volume = cluster.show("writer").vm.disk("root").volume
        assert volume is not None
        bare.start(lab, "h2", "thief", volume.name, image.memory_mib)
        bare.await_acks(lab, "thief", "h2", 3)
        address = lab.spec.storage_address("h2").replace(".", r"\.")
        with pytest.raises(Conflict, match=f"is open at .*{address}"):
            cluster.start("writer")
        assert running_on(lab) == {"thief": "h2"}
        # Dead, it is waited for: a watch outlives its client by half a minute.
        lab.kill_qemu("h2", "thief")
        cluster.start("writer")
        assert running_on(lab) == {"writer": "h1"}


def test_the_store_is_the_pools_neighbour_and_not_in_it(fresh_lab: Lab) -> None:
    """Documents stand in a namespace of the pool, out of the way of its volumes."""
    lab = fresh_lab
    with cluster_on(lab, ("h1",)) as cluster:
        assert cluster.volume_list("fast") == ()
        assert cluster.settings.uri.startswith(ceph_url(lab, "rados").partition("?")[0])
