"""What vorch costs on one machine without Ceph: create and start a VM from a linked clone.

`python -m benchmarks.bench_local [--runs 11]`, as root with libvirt running. The two sides take
turns, so that a noisy machine slows both; the figure is the ratio of the medians.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import tempfile
import time
import uuid
from pathlib import Path

import libvirt

import vorch
from vorch.config import Settings
from vorch.domain_xml import domain_xml
from vorch.model import FileSource


def _settings(folder: Path) -> Settings:
    return Settings(uri=f"sqlite://{folder}/vorch.db", pool_path=str(folder / "disks"))


def measure(runs: int, folder: Path) -> dict[str, object]:
    """Both sides, in turn; each result is looked at before its time counts."""
    blank = folder / "blank.raw"
    with blank.open("wb") as file:
        file.truncate(1024**3)
    bare_times: list[float] = []
    vorch_times: list[float] = []
    connection = libvirt.open("qemu:///system")
    with vorch.connect(settings=_settings(folder)) as cluster:
        cluster.image_import("blank", str(blank))
        look = cluster.look()
        base = cluster.world.images("local").locate(look.image("blank").disks[0].volume.name)
        node = cluster.node_show(cluster.node_list()[0].name)
        assert node.facts is not None
        for number in range(runs + 1):
            began = time.perf_counter()
            cluster.create(f"bench{number}", image="blank", memory_mib=64, networks=(), start=True)
            elapsed = time.perf_counter() - began
            shown = cluster.show(f"bench{number}")
            assert shown.power == "running", shown
            vm = shown.vm
            cluster.delete(vm.name, force=True, purge=True)

            name, identifier = f"bare{number}", str(uuid.uuid4())
            path = folder / "disks" / f"{name}.qcow2"
            bare_vm = vorch.Vm(
                name=name,
                id=identifier,
                node=node.name,
                memory_mib=64,
                memory_max_mib=64,
                disks=(vm.disks[0],),
            )
            xml = domain_xml(
                bare_vm,
                name=name,
                sources={"root": FileSource(path=str(path), format="qcow2")},
                networks={},
                facts=node.facts,
            )
            began = time.perf_counter()
            clone = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", base.path, "-F", base.format]
            subprocess.run([*clone, str(path)], check=True)
            domain = connection.createXML(xml)
            bare_elapsed = time.perf_counter() - began
            assert domain.isActive()
            domain.destroy()
            path.unlink()
            if number:  # the first of each warms the caches
                vorch_times.append(elapsed)
                bare_times.append(bare_elapsed)
    connection.close()
    return {
        "runs": runs,
        "bare_median_s": round(statistics.median(bare_times), 4),
        "vorch_median_s": round(statistics.median(vorch_times), 4),
        "ratio": round(statistics.median(vorch_times) / statistics.median(bare_times), 3),
        "limit": 1.25,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=11)
    runs = parser.parse_args().runs
    folder = Path(tempfile.mkdtemp(prefix="vorch-bench-", dir="/var/tmp"))
    folder.chmod(0o711)
    try:
        print(json.dumps(measure(runs, folder), indent=2))
    finally:
        with vorch.connect(settings=_settings(folder)) as cluster:
            for network in cluster.network_list():
                cluster.network_delete(network.name)
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
