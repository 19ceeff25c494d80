"""How long a look at a large cluster takes: 1,000 VMs on 30 hosts that answer after 20 ms each.

`python -m benchmarks.bench_looks [--runs 11]`. In the world in memory, on a real clock; then with
3 of the hosts silent, to the process that finds that out, again, and to the next process.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
import uuid
from collections import Counter

import vorch
from vorch import Orchestrator, Settings
from vorch.codec import encode
from vorch.drivers.memory import MemoryWorld
from vorch.drivers.process import SystemClock
from vorch.model import GIB, Disk, Nic, Node, Power, Volume
from vorch.ports import Change

HOSTS = 30
VMS = 1000
SILENT = 3
LATENCY_S = 0.02
HOST_TIMEOUT_S = 2.0


def _vm(number: int) -> vorch.Vm:
    name = f"vm{number:04}"
    return vorch.Vm(
        name=name,
        id=str(uuid.UUID(int=number + 1)),
        node=f"h{number % HOSTS + 1}",
        wanted="running",
        disks=(
            Disk(
                name="root",
                target="vda",
                volume=Volume(pool="local", name=f"{name}.root"),
                size_bytes=8 * GIB,
            ),
        ),
        nics=(
            Nic(
                name="net0",
                mac=f"52:54:00:00:{number // 256:02x}:{number % 256:02x}",
                network="default",
            ),
        ),
    )


def _world() -> MemoryWorld:
    world = MemoryWorld(hosts=HOSTS, clock=SystemClock(), memory_mib=1024**2)
    ports = world.connect()
    changes = []
    for name in world.machines:
        changes.append(Change(f"node/{name}", 0, encode(Node(name=name, uri="memory:"))))
    for number in range(VMS):
        vm = _vm(number)
        changes.append(Change(f"vm/{vm.name}", 0, encode(vm)))
        # What it stands on is no matter here.
        ports.hypervisor(vm.node).start(dataclasses.replace(vm, disks=(), nics=()), {}, {})
    ports.state.commit(changes)
    world.faults.latency_s = LATENCY_S
    return world


def _connected(world: MemoryWorld) -> Orchestrator:
    settings = Settings(uri="memory:", host_timeout_s=HOST_TIMEOUT_S)
    return Orchestrator(world.connect(), settings)


def _listed(cluster: Orchestrator, silent: int) -> float:
    """How long it takes, the answer having been looked at."""
    began = time.perf_counter()
    vms = cluster.list()
    elapsed = time.perf_counter() - began
    assert len(vms) == VMS
    for one in vms:
        expected = Power.UNKNOWN if int(one.vm.node[1:]) <= silent else Power.RUNNING
        assert one.power is expected, one
    return elapsed


def measure(runs: int) -> dict[str, object]:
    world = _world()
    with _connected(world) as cluster:
        first_s = _listed(cluster, 0)
        world.faults.trace.clear()
        times = [_listed(cluster, 0) for _ in range(runs)]
        calls = Counter(call.target for call in world.faults.calls("host:*"))
        assert len(calls) == HOSTS, calls
        assert set(calls.values()) == {runs}, calls
    for number in range(1, SILENT + 1):
        world.faults.silence(f"host:h{number}")
    with _connected(world) as cluster:
        found_out_s = _listed(cluster, SILENT)
        again_s = _listed(cluster, SILENT)
    with _connected(world) as cluster:
        next_process_s = _listed(cluster, SILENT)
    return {
        "vms": VMS,
        "hosts": HOSTS,
        "a call takes s": LATENCY_S,
        "first s": round(first_s, 3),
        "median s": round(statistics.median(times), 3),
        "limit s": 0.5,
        "silent hosts": SILENT,
        "found out s": round(found_out_s, 3),
        "found out limit s": HOST_TIMEOUT_S + 0.5,
        "again s": round(again_s, 3),
        "next process s": round(next_process_s, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=11)
    print(json.dumps(measure(parser.parse_args().runs), indent=2))


if __name__ == "__main__":
    main()
