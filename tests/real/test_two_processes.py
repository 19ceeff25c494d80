"""Several processes on one VM at once: one wins and the others say so, or wait when asked to."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import vorch
from tests.execute.scenarios import leaks

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
PROCESSES = 4

# Each begins when the file of the start signal is gone, so that they really meet.
PROGRAM = """
import json, pathlib, sys, time
import vorch
given = json.loads(sys.argv[1])
with vorch.connect(settings=vorch.Settings(**given["settings"])) as cluster:
    while pathlib.Path(given["signal"]).exists():
        time.sleep(0.001)
    try:
        getattr(cluster, given["verb"])(*given["words"], **given["options"])
        print("done")
    except vorch.VorchError as exc:
        print(exc.code)
"""


def settings_of(given: dict[str, str]) -> vorch.Settings:
    return vorch.Settings(uri=given["uri"], pool_path=given["pool_path"])


@pytest.fixture
def settings(libvirt_system: str) -> Iterator[dict[str, str]]:
    folder = Path(tempfile.mkdtemp(prefix="vorch-two-", dir="/var/tmp"))
    folder.chmod(0o711)
    (folder / "disk.raw").write_bytes(bytes(510) + b"\x55\xaa" + bytes(2**20 - 512))
    given = {"uri": f"sqlite://{folder}/vorch.db", "pool_path": str(folder / "disks")}
    with vorch.connect(settings=settings_of(given)) as cluster:
        cluster.image_import("debian", str(folder / "disk.raw"))
    yield given
    with vorch.connect(settings=settings_of(given)) as cluster:
        for status in cluster.list():
            cluster.delete(status.name, force=True, purge=True)
        for network in cluster.network_list():
            cluster.network_delete(network.name)
    shutil.rmtree(folder)


def all_at_once(
    settings: dict[str, str], verb: str, words: list[str], **options: object
) -> list[str]:
    """What each of the processes came to."""
    signal = Path(tempfile.mkstemp(dir="/var/tmp")[1])
    given = {
        "settings": settings,
        "signal": str(signal),
        "verb": verb,
        "words": words,
        "options": options,
    }
    running = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, json.dumps(given)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        for _ in range(PROCESSES)
    ]
    try:
        # Long enough for all of them to have connected; if one has not, it only comes late.
        for process in running:
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(1.0)
    finally:
        signal.unlink()
    said = []
    for process in running:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        said.append(out.strip())
    return sorted(said)


def test_one_creates_and_the_others_hear_of_it(settings: dict[str, str]) -> None:
    said = all_at_once(settings, "create", ["web"], image="debian", networks=[], memory_mib=32)
    assert said == ["conflict"] * (PROCESSES - 1) + ["done"]
    with vorch.connect(settings=settings_of(settings)) as cluster:
        assert [status.name for status in cluster.list()] == ["web"]
        assert leaks(cluster) == []


def test_all_come_to_their_turn_when_they_wait(settings: dict[str, str]) -> None:
    with vorch.connect(settings=settings_of(settings)) as cluster:
        cluster.create("web", image="debian", networks=(), memory_mib=32)
    said = all_at_once(settings, "disk_attach", ["web"], size_gib=1, wait_s=60)
    assert said == ["done"] * PROCESSES
    with vorch.connect(settings=settings_of(settings)) as cluster:
        disks = cluster.show("web").vm.disks
        assert [disk.name for disk in disks] == ["root", "data1", "data2", "data3", "data4"]
        assert len({disk.target for disk in disks}) == len(disks)
        assert leaks(cluster) == []


def test_one_volume_goes_to_one_vm(settings: dict[str, str]) -> None:
    """Half of the processes would give it to one VM, half to the other."""
    with vorch.connect(settings=settings_of(settings)) as cluster:
        cluster.create("web", image="debian", networks=(), memory_mib=32)
        cluster.disk_attach("web", disk="data", size_gib=1)
        volume = cluster.show("web").vm.disk("data").volume
        cluster.disk_detach("web", "data", keep=True)
    said = all_at_once(settings, "disk_attach", ["web"], volume=str(volume), wait_s=60)
    assert said == ["conflict"] * (PROCESSES - 1) + ["done"]


def test_a_start_that_all_want_happens_once(settings: dict[str, str]) -> None:
    with vorch.connect(settings=settings_of(settings)) as cluster:
        cluster.create("web", image="debian", networks=(), memory_mib=32)
    said = all_at_once(settings, "start", ["web"], wait_s=60)
    assert said == ["done"] * PROCESSES
    with vorch.connect(settings=settings_of(settings)) as cluster:
        look = cluster.look(None)
        ids = {vm.id for vm in look.vms.values()}
        assert [d.name for d in look.domains.values() if d.id in ids] == ["web"]
        assert leaks(cluster) == []
