"""How long the command line takes: help, and the list of 100 VMs, as whole processes.

`python -m benchmarks.bench_list [--runs 7]`. The VMs are records of a real store; the host is asked
for its domains as always.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import vorch
from vorch.codec import encode
from vorch.config import Settings
from vorch.ports import Change


def measure(runs: int, folder: Path) -> dict[str, object]:
    uri = f"sqlite://{folder}/vorch.db"
    settings = Settings(uri=uri, pool_path=str(folder / "disks"))
    with vorch.connect(settings=settings) as cluster:
        node = cluster.node_list()[0].name
        vms = [
            vorch.Vm(name=f"vm{number:03}", id=str(uuid.uuid4()), node=node)
            for number in range(100)
        ]
        cluster.world.state.commit([Change(f"vm/{vm.name}", 0, encode(vm)) for vm in vms])
    vorch_command = [sys.executable, "-m", "vorch_cli"]
    environment = {**os.environ, "VORCH_URI": uri}
    listed = subprocess.run(
        [*vorch_command, "list", "--json"],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    assert len(json.loads(listed.stdout)) == 100
    sides = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "import vorch": [sys.executable, "-c", "import vorch"],
        "vorch --help": [*vorch_command, "--help"],
        "vorch list (100 VMs)": [*vorch_command, "list"],
    }
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(runs):
        for name, command in sides.items():
            began = time.perf_counter()
            subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
            times[name].append(time.perf_counter() - began)
    return {f"{name} median_s": round(statistics.median(t), 3) for name, t in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=7)
    runs = parser.parse_args().runs
    folder = Path(tempfile.mkdtemp(prefix="vorch-bench-", dir="/var/tmp"))
    try:
        print(json.dumps(measure(runs, folder), indent=2))
    finally:
        with vorch.connect(f"sqlite://{folder}/vorch.db") as cluster:
            for network in cluster.network_list():
                cluster.network_delete(network.name)
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
