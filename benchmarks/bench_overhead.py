"""What vorch costs on top of the bare calls, on one lab with disks and state in Ceph.

`python -m benchmarks.bench_overhead [--runs 15] [--lab NAME]`, as root. Without --lab a lab is made
for it and taken down again. Measured are a VM that is created and started from a template (against
an RBD clone and createXML), 100 clones on 16 threads (against librbd on as many) and a live
migration (against migrateToURI3 with the same flags). The two sides take turns, so that a noisy
machine slows both; each result is looked at before its time counts; a figure is the ratio of the
medians, and its limit stands beside it.
"""

from __future__ import annotations

import argparse
import json
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import libvirt
import rbd

from benchmarks import bench_migrate, bench_rbd
from benchmarks.bench_rbd import CLONES, THREADS, Sides, compared, timed
from tests.lab import bare
from tests.lab.clusters import cluster_on
from vorch import Orchestrator
from vorch.domain_xml import domain_xml
from vorch.drivers import libvirt_migration
from vorch.lab import Lab
from vorch.lab import lab as labs
from vorch.model import RbdSource, Vm

# As vorch sends one by TLS.
FLAGS = libvirt_migration.FLAGS | libvirt.VIR_MIGRATE_TLS
LIMITS = {"start": 1.15, "clones": 1.2, "migrate": 1.1}
DATA_BYTES = 64 * 1024**2
HOST = "h1"


class Starts:
    """A VM from a template, to and fro between vorch and the bare calls."""

    def __init__(self, cluster: Orchestrator, host: libvirt.virConnect, pool: Any) -> None:
        self.cluster, self.host, self.pool = cluster, host, pool
        cluster.create("template", disk_gib=1, memory_mib=64, networks=())
        cluster.template("template", "blank")
        self.base = cluster.look().image("blank").disks[0].volume.name
        facts = cluster.node_show(HOST).facts
        assert facts is not None
        self.facts = facts

    def vorch(self, name: str) -> None:
        self.cluster.create(name, image="blank", memory_mib=64, networks=(), node=HOST, start=True)

    def check(self, name: str) -> Vm:
        status = self.cluster.show(name)
        assert status.power == "running", status
        volume = status.vm.disk("root").volume
        assert volume is not None
        self._check_clone(volume.name)
        return status.vm

    def _check_clone(self, image: str) -> None:
        with rbd.Image(self.pool, image, read_only=True) as clone:
            assert clone.get_parent_image_spec()["image_name"] == self.base

    def bare_xml(self, vm: Vm, image: str) -> str:
        """The very same machine, on a disk of another name."""
        identifier = str(uuid.uuid4())
        volume = vm.disk("root").volume
        assert volume is not None
        source = self.cluster.world.images(volume.pool).locate(volume.name)
        assert isinstance(source, RbdSource)
        other = RbdSource(
            pool=source.pool,
            namespace=source.namespace,
            image=image,
            monitors=source.monitors,
            user=source.user,
            secret=source.secret,
        )
        return domain_xml(
            Vm(
                name=image,
                id=identifier,
                node=HOST,
                vcpus=vm.vcpus,
                memory_mib=vm.memory_mib,
                memory_max_mib=vm.memory_max_mib,
                disks=vm.disks,
            ),
            name=image,
            sources={"root": other},
            networks={},
            facts=self.facts,
        )

    def bare(self, image: str, xml: str) -> None:
        rbd.RBD().clone(
            self.pool, self.base, ".base", self.pool, image, features=bench_rbd.FEATURES
        )
        self.host.createXML(xml)

    def end_bare(self, image: str) -> None:
        domain = self.host.lookupByName(image)
        assert domain.isActive()
        self._check_clone(image)
        domain.destroy()
        bare.eventually(lambda: self._removed(image), f"{image} can be removed")

    def _removed(self, image: str) -> bool:
        try:
            rbd.RBD().remove(self.pool, image)
        except rbd.ImageBusy:
            return False
        return True

    def measure(self, runs: int) -> dict[str, float]:
        ours: list[float] = []
        theirs: list[float] = []
        # The first of each warms the caches.
        for number in range(runs + 1):
            took = timed(partial(self.vorch, f"ours{number}"))
            vm = self.check(f"ours{number}")
            xml = self.bare_xml(vm, f"bare{number}")
            self.cluster.delete(vm.name, force=True, purge=True)
            bare_took = timed(partial(self.bare, f"bare{number}", xml))
            self.end_bare(f"bare{number}")
            if number:
                ours.append(took)
                theirs.append(bare_took)
        return {**compared(ours, theirs), "runs": runs}


def starts(lab: Lab, runs: int) -> dict[str, float]:
    with cluster_on(lab) as cluster, bare.connected(lab, HOST) as host, _clones(lab) as pool:
        return Starts(cluster, host, pool).measure(runs)


@contextmanager
def _clones(lab: Lab) -> Iterator[Any]:
    """The pool, by a connection that makes clones as vorch's does."""
    with bench_rbd.connected(str(lab.spec.ceph_conf)) as ceph, ceph.open_ioctx("vms") as pool:
        yield pool


def clones(lab: Lab, runs: int) -> dict[str, float]:
    sides = Sides(str(lab.spec.ceph_conf), DATA_BYTES)
    try:
        sides.prepare()
        return {**bench_rbd.parallel_clones(sides, runs), "runs": runs}
    finally:
        sides.close()


def migrations(lab: Lab, rounds: int) -> dict[str, float]:
    ours, theirs = bench_migrate.measure(lab, rounds, FLAGS)
    return {**compared(ours, theirs), "runs": len(ours)}


@contextmanager
def the_lab(name: str | None) -> Iterator[Lab]:
    if name is not None:
        yield Lab.find(name)
        return
    made = labs.up("bench", hosts=2, osds=3)
    try:
        yield made
    finally:
        labs.down("bench")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--lab")
    options = parser.parse_args()
    few = max(2, options.runs // 3)
    result = {}
    with the_lab(options.lab) as lab:
        for key, what, measure in (
            ("start", "create and start from a template", lambda: starts(lab, options.runs)),
            ("clones", f"{CLONES} clones on {THREADS} threads", lambda: clones(lab, few)),
            ("migrate", "live migration of a guest that writes", lambda: migrations(lab, few)),
        ):
            lab.reset()
            result[what] = {**measure(), "limit": LIMITS[key]}
            print(f"{what}: {result[what]['ratio']} times as long", file=sys.stderr)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
