"""What it costs to measure a large cluster and to show it: 20,000 VMs on 1,250 hosts.

`python -m benchmarks.bench_metrics [--runs 3]`. In the world in memory, on a real clock: a round of
measurements of all hosts, writing it down for plots, /metrics with and without each VM, and the
history of one VM. Times of the processor, of which other requests get the rest.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import vorch
from vorch import Orchestrator, Recorder, Settings
from vorch.codec import encode
from vorch.drivers.history import FileHistory
from vorch.drivers.memory import MemoryWorld
from vorch.drivers.process import SystemClock
from vorch.model import GIB, Disk, Nic, Node, Volume
from vorch.ports import Change
from vorch_api.metrics import Metrics
from vorch_api.sampler import Sampler

HOSTS = 1250
VMS = 20_000
# Closer together, two measurements say nothing.
BETWEEN_S = 1.0


def _vm(number: int) -> vorch.Vm:
    name = f"vm{number:05}"
    mac = ":".join(f"{part:02x}" for part in (number >> 16, number >> 8 & 255, number & 255))
    volume = Volume(pool="local", name=f"{name}.root")
    return vorch.Vm(
        name=name,
        id=str(uuid.UUID(int=number + 1)),
        node=f"h{number % HOSTS + 1}",
        wanted="running",
        disks=(Disk(name="root", target="vda", volume=volume, size_bytes=8 * GIB),),
        nics=(Nic(name="net0", mac=f"52:54:00:{mac}", network="default"),),
    )


def _world() -> MemoryWorld:
    world = MemoryWorld(hosts=HOSTS, clock=SystemClock(), memory_mib=1024**2)
    ports = world.connect()
    changes = [
        Change(f"node/{name}", 0, encode(Node(name=name, uri="memory:"))) for name in world.machines
    ]
    for vm in map(_vm, range(VMS)):
        changes.append(Change(f"vm/{vm.name}", 0, encode(vm)))
        # What it stands on is no matter here.
        ports.hypervisor(vm.node).start(dataclasses.replace(vm, disks=(), nics=()), {}, {})
    ports.state.commit(changes)
    return world


def _cost(act: Callable[[], object], runs: int) -> float:
    costs = []
    for _ in range(runs):
        began = time.process_time()
        act()
        costs.append(time.process_time() - began)
    return round(statistics.median(costs), 3)


def measure(runs: int, folder: Path) -> dict[str, object]:
    world = _world()
    ports = dataclasses.replace(world.connect(), past=FileHistory(folder / "history.db"))
    cluster = Orchestrator(ports, Settings(uri="memory:"))
    lean = Orchestrator(ports, Settings(uri="memory:", metrics_vms=False))
    recorder = Recorder(cluster)
    with cluster.picture() as picture:
        picture.look()
        sampler = Sampler(cluster, picture, every_s=60.0, taken=lambda figures: None)
        measured, written = [], []
        for _ in range(runs + 1):
            measured.append(_cost(sampler.measure_hosts, 1))
            hosts = sampler.measured.hosts
            written.append(_cost(lambda hosts=hosts: recorder.take(hosts), 1))  # type: ignore[misc]
            time.sleep(BETWEEN_S)
        whole, few = Metrics(), Metrics()
        whole.show(cluster, picture, sampler)
        few.show(lean, picture, sampler)
        return {
            "hosts": HOSTS,
            "vms": VMS,
            "measure_s": statistics.median(measured[1:]),
            "write_down_s": statistics.median(written[1:]),
            "metrics_s": _cost(whole.text, runs),
            "metrics_mib": round(len(whole.text()) / 1024**2, 1),
            "metrics_without_vms_s": _cost(few.text, runs),
            "history_of_one_vm_s": _cost(lambda: cluster.history("vm00077"), runs),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(parser.parse_args().runs, Path(folder)), indent=2))


if __name__ == "__main__":
    main()
