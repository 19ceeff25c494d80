"""To another cluster, on real hosts and a real Ceph: what the guest wrote is there, and goes on.

The clusters share a lab and nothing else: each has a store, a host and a pool of its own.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import rbd

import vorch
from tests.execute.scenarios import leaks
from tests.lab import bare
from tests.lab.acks import Acks
from tests.lab.clusters import cluster_on, disk_of, import_writer, start_writer
from tests.lab.remains import remains
from tests.lab.test_disks import second_ceph_pool
from tests.lab.test_kill import LOTS, die_all_over, heir, import_disk, two_disks
from vorch import Orchestrator
from vorch.lab import CEPH_USER, Lab, verify_disk

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(900)]


@contextmanager
def in_ceph(lab: Lab, host: str) -> Iterator[Orchestrator]:
    """Another cluster in the same Ceph: a pool and a user of its own, for its state and disks."""
    with second_ceph_pool(lab) as url:
        uri = url.replace("rbd:", "rados:")
        with vorch.connect(settings=vorch.Settings(uri=uri, ceph_timeout_s=20)) as cluster:
            cluster.node_add(host, lab.spec.uri(host))
            cluster.pool_add("bulk", url)
            cluster.network_create("office", kind="bridge", bridge="br0")
            yield cluster


@contextmanager
def in_a_folder(lab: Lab, host: str, folder: Path) -> Iterator[Orchestrator]:
    """Another one without Ceph: its state in a file, its disks in a folder of its host."""
    disks = lab.spec.host_folder(host) / "vms"
    disks.mkdir()
    settings = vorch.Settings(uri=f"sqlite://{folder}/vorch.db")
    try:
        with vorch.connect(settings=settings, prepare=False) as cluster:
            cluster.node_add(host, lab.spec.uri(host))
            cluster.pool_add("files", f"dir://{disks}", node=host)
            cluster.network_create("home", kind="bridge", bridge="br0")
            yield cluster
    finally:
        shutil.rmtree(disks, ignore_errors=True)


@contextmanager
def listening(lab: Lab) -> Iterator[Acks]:
    acks = Acks(lab.spec.own_management)
    try:
        yield acks
    finally:
        acks.close()


def domains(lab: Lab) -> list[str]:
    """The hosts that have a domain of it, past vorch."""
    found = []
    for host in lab.spec.host_names:
        with bare.connected(lab, host) as connection:
            found += [host for domain in connection.listAllDomains() if domain.name() == "writer"]
    return found


@pytest.mark.thorough
def test_from_ceph_to_ceph_to_a_folder_and_back(fresh_lab: Lab, tmp_path: Path) -> None:
    lab = fresh_lab
    with (
        listening(lab) as acks,
        cluster_on(lab, ("h1",)) as here,
        in_ceph(lab, "h2") as there,
        in_a_folder(lab, "h3", tmp_path) as small,
    ):
        start_writer(here, "writer", import_writer(here), "h1")
        acks.await_more(5)
        definition = here.look().vm("writer")
        with pytest.raises(vorch.Conflict, match="vorch stop writer"):
            here.send("writer", there.settings.uri, networks={"lan": "office"})
        here.stop("writer", force=True)
        with pytest.raises(vorch.NotFound, match="--network lan=NAME"):
            here.send("writer", there.settings.uri)
        # It was a linked clone of its image, and stands on nothing there.
        here.send("writer", there.settings.uri, networks={"lan": "office"})
        assert "writer" not in here.look().vms
        assert domains(lab) == []
        there.start("writer")
        assert domains(lab) == ["h2"]
        acks.await_more(5)
        there.stop("writer", force=True)

        there.send("writer", small.settings.uri, networks={"office": "home"})
        volume = small.look().vm("writer").disk("root").volume
        assert volume is not None
        path = next((lab.spec.host_folder("h3") / "vms").rglob(f"*{volume.name}*"))
        verdict = verify_disk(str(path), acks=acks.all())
        assert verdict.ok, verdict.findings
        assert verdict.acks >= 10

        small.send("writer", here.settings.uri, networks={"home": "lan"})
        here.start("writer")
        assert domains(lab) == ["h1"]
        acks.await_more(5)
        here.stop("writer", force=True)
        verdict = verify_disk(
            disk_of(here, "writer"), acks=acks.all(), conf=lab.spec.ceph_conf, user=CEPH_USER
        )
        assert verdict.ok, verdict.findings
        assert verdict.acks >= 15
        # It is what it was, and nothing of it is left over on its way.
        back = here.look().vm("writer")
        assert (back.id, back.nics, back.node) == (definition.id, definition.nics, "h1")
        assert remains(lab, here) == leaks(there) == leaks(small) == []


def test_one_that_somebody_has_open_is_not_sent(fresh_lab: Lab) -> None:
    """Seen by its watcher: no host has a domain of it."""
    lab = fresh_lab
    with cluster_on(lab, ("h1",)) as here, in_ceph(lab, "h2") as there:
        here.create("web", disk_gib=1, networks=(), memory_mib=64)
        volume = here.look().vm("web").disk("root").volume
        assert volume is not None
        with bare.pool_of(lab) as pool, rbd.Image(pool, volume.name) as image:
            image.write(b"mine", 0)
            with pytest.raises(vorch.Conflict):
                here.send("web", there.settings.uri)
            assert there.look().vms == {}
        assert remains(lab, here) == leaks(there) == []
        here.send("web", there.settings.uri)
        assert remains(lab, here) == leaks(there) == []


@pytest.mark.thorough
def test_sends_that_are_killed(fresh_lab: Lab, tmp_path: Path) -> None:
    """kill -9 all over: the heir finishes or undoes, and exactly one cluster has each VM."""
    lab = fresh_lab
    with cluster_on(lab, ("h1",)) as here, in_ceph(lab, "h2") as there:
        import_disk(here, tmp_path)
        names = [f"vm{lot}" for lot in range(LOTS)]
        for name in ("all", *names):
            two_disks(here, name)
        uri = there.settings.uri
        die_all_over(here, "send", ("all", uri), lambda lot: [names[lot], uri])
        heir(here)
        assert remains(lab, here) == leaks(there) == []
        sent = set(there.look().vms)
        assert sent.isdisjoint(here.look().vms)
        assert sent | set(here.look().vms) == {"all", *names}
        for name in set(names) - sent:
            here.send(name, uri)
        assert set(there.look().vms) == {"all", *names}
        assert remains(lab, here) == leaks(there) == []
