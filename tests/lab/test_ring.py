"""Writers on three hosts: round in a ring, a host emptied and filled; none loses a record."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.lab import bare
from tests.lab.clusters import cluster_on, disk_of, import_writer, start_writer
from vorch import Orchestrator
from vorch.errors import VorchError
from vorch.lab import CEPH_USER, Lab, verify_disk
from vorch.lab.verify import Verdict

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(900)]

# As many as two cores can emulate and still have them write.
WRITERS = tuple(f"w{number}" for number in range(5))
RING = {"h1": "h2", "h2": "h3", "h3": "h1"}


def verdict(lab: Lab, cluster: Orchestrator, name: str) -> Verdict:
    return verify_disk(disk_of(cluster, name), conf=lab.spec.ceph_conf, user=CEPH_USER)


def await_writes(lab: Lab, cluster: Orchestrator, name: str, more: int) -> None:
    def records() -> int:
        try:
            return verdict(lab, cluster, name).records
        except VorchError:
            return 0

    before = records()
    bare.eventually(lambda: records() >= before + more, f"{name} writes", 300)


def places(cluster: Orchestrator) -> dict[str, str]:
    return {one.name: one.vm.node for one in cluster.list()}


def really(lab: Lab) -> dict[str, str]:
    """Past vorch: which host runs the QEMU of each. One that ran twice would fail here."""
    pairs = [(name, host.name) for host in lab.status().hosts for name in host.vms]
    assert len(dict(pairs)) == len(pairs), pairs
    return dict(pairs)


def test_writers_go_round_and_a_host_is_emptied(fresh_lab: Lab) -> None:
    lab = fresh_lab
    with cluster_on(lab) as cluster:
        memory_mib = import_writer(cluster)

        def create(name: str) -> None:
            start_writer(cluster, name, memory_mib, f"h{WRITERS.index(name) % 3 + 1}")

        with ThreadPoolExecutor(len(WRITERS)) as pool:
            list(pool.map(create, WRITERS))
            list(pool.map(lambda name: await_writes(lab, cluster, name, 5), WRITERS))
            for _ in RING:
                targets = [RING[places(cluster)[name]] for name in WRITERS]
                list(pool.map(cluster.migrate, WRITERS, targets))
                assert places(cluster) == dict(zip(WRITERS, targets, strict=True))
                assert really(lab) == places(cluster)
        home = places(cluster)
        cluster.node_maintenance("h1", True)
        assert "h1" not in places(cluster).values()
        assert really(lab) == places(cluster)
        # It is empty, so it can be switched off, and nobody notices.
        lab.power_off("h1")
        for name in WRITERS:
            await_writes(lab, cluster, name, 2)
        lab.power_on("h1")
        deadline = time.monotonic() + 60
        while cluster.look(["h1"]).silent:
            assert time.monotonic() < deadline
            time.sleep(0.5)
        cluster.node_maintenance("h1", False)
        assert places(cluster) == home
        assert really(lab) == home
        for name in WRITERS:
            await_writes(lab, cluster, name, 2)
            cluster.stop(name, force=True)
        for name in WRITERS:
            seen = verdict(lab, cluster, name)
            assert seen.ok, (name, seen.findings)
            assert len(seen.epochs) == 1, name
