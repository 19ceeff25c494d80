"""VMs that start while the data of their image still come in, on the lab: seen, killed, cut off."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import vorch
from tests.boot_sector import SLEEPS
from tests.lab import bare
from tests.lab.acks import Acks
from tests.lab.clusters import cluster_on
from tests.lab.remains import remains
from tests.lab.test_kill import LOTS, die_all_over, heir
from tests.range_server import RangeServer
from vorch import Orchestrator
from vorch.errors import Unsupported
from vorch.lab import Lab, guest

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(900)]

MIB = 1024**2


@pytest.fixture
def cluster(fresh_lab: Lab) -> Iterator[Orchestrator]:
    with cluster_on(fresh_lab, ("h1", "h2")) as made:
        yield made


@pytest.fixture
def server(fresh_lab: Lab, tmp_path: Path) -> Iterator[RangeServer]:
    """On this machine, where the hosts reach it by their management network."""
    server = RangeServer(tmp_path, fresh_lab.spec.own_management)
    yield server
    if not server.silent:
        server.stop()


@pytest.fixture
def acks(fresh_lab: Lab) -> Iterator[Acks]:
    found = Acks(fresh_lab.spec.own_management)
    yield found
    found.close()


def large_writer(folder: Path, size_mib: int) -> int:
    """The guest that proves things, on a disk with much behind it; the MiB of memory it wants."""
    image = guest.build("writer")
    disk = folder / "writer.raw"
    convert = ["qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(image.path), str(disk)]
    subprocess.run(convert, check=True)
    with disk.open("ab") as file:
        for number in range(size_mib - file.tell() // MIB):
            file.write(number.to_bytes(8, "big") * (MIB // 8))
    return image.memory_mib


@pytest.mark.thorough
def test_a_vm_works_before_its_data_are_there(
    cluster: Orchestrator, server: RangeServer, fresh_lab: Lab, acks: Acks
) -> None:
    memory_mib = large_writer(server.folder, 384)
    server.held_from = 192 * MIB
    problems: list[BaseException] = []
    with vorch.connect(settings=cluster.settings) as importer:

        def bring_in() -> None:
            try:
                importer.image_import("writer", server.url("writer.raw"), at_once=True, pool="fast")
            except BaseException as exc:  # noqa: BLE001 - shown by the test
                problems.append(exc)

        began = time.monotonic()
        thread = threading.Thread(target=bring_in)
        thread.start()
        bare.eventually(lambda: cluster.look().images or problems, "the image")
        usable_s = time.monotonic() - began
        for name, host in (("web", "h1"), ("db", "h2")):
            cluster.create(
                name,
                image="writer",
                memory_mib=memory_mib,
                networks=("lan",),
                node=host,
                start=True,
            )
        acks.await_writers(2, bare.TIMEOUT_S)
        writing_s = time.monotonic() - began
        assert cluster.image_show("writer").arriving
        assert thread.is_alive()
        # A move opens its disk, and so the source, on the other host as well.
        cluster.migrate("web", "h2")
        assert cluster.image_show("writer").arriving
        server.held_from = None
        thread.join(bare.TIMEOUT_S)
    assert not problems
    assert not cluster.image_show("writer").arriving
    print(f"usable after {usable_s:.1f} s, guests wrote after {writing_s:.1f} s")
    server.stop()
    # They go on, and start, without the source.
    acks.await_each(3, bare.TIMEOUT_S)
    cluster.restart("db", force=True)
    acks.await_writers(3, bare.TIMEOUT_S)
    assert remains(fresh_lab, cluster) == []


@pytest.mark.thorough
def test_imports_that_are_killed(
    fresh_lab: Lab, cluster: Orchestrator, server: RangeServer
) -> None:
    (server.folder / "disk.raw").write_bytes(SLEEPS + bytes(range(256)) * 4096 * 12)
    url = server.url("disk.raw")
    names = [f"raw{lot}" for lot in range(LOTS)]
    die_all_over(cluster, "at-once", ("all", url), lambda lot: [names[lot], url])
    heir(cluster)
    assert remains(fresh_lab, cluster) == []
    there = {image.name: image.arriving for image in cluster.image_list()}
    assert "all" in there
    assert not any(there.values())
    for name in names:
        if name not in there:
            cluster.image_import(name, url, pool="fast", at_once=True)
    assert remains(fresh_lab, cluster) == []


def test_a_host_that_does_not_reach_the_source(
    fresh_lab: Lab, cluster: Orchestrator, tmp_path: Path
) -> None:
    """This machine's own address is another one on each host."""
    server = RangeServer(tmp_path)
    try:
        (tmp_path / "disk.raw").write_bytes(b"x" * MIB)
        with pytest.raises(Unsupported, match=r"h1: .*h2: "):
            cluster.image_import("x", server.url("disk.raw"), pool="fast", at_once=True)
    finally:
        server.stop()
    assert cluster.image_list() == ()
    assert remains(fresh_lab, cluster) == []
