"""How long the service takes with 20,000 VMs on 1,250 hosts, in the memory world.

`python -m benchmarks.bench_api [--vms 20000] [--hosts 1250] [--streams 0] [--mixed-s 0]`. The
service is a process of its own, asked over HTTP on loopback; `--streams` keeps so many event
streams open meanwhile, `--mixed-s` sends 200 mixed requests a second for that long. Prints JSON.
"""

from __future__ import annotations

import argparse
import dataclasses
import http.client
import json
import os
import resource
import statistics
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any

TOKEN = "bench" * 8
RATE = 200


def serve(vms: int, hosts: int) -> None:
    """In the process of its own: a world whose time runs, with half of the VMs running."""
    import asyncio
    import socket

    import uvicorn

    from vorch import connect
    from vorch.codec import encode
    from vorch.drivers import memory
    from vorch.model import Disk, Nic, Node, Vm, Volume
    from vorch.ports import Change
    from vorch_api import create_app

    world = memory.world_named("bench?clock=system")
    with connect("memory:bench") as cluster:
        state = cluster.world.state
        template = next(iter(cluster.look().nodes.values()))
        pool = next(iter(cluster.look().pools))
        names = [f"h{number:04}" for number in range(hosts)]
        documents = []
        for name in names:
            world.add_host(name)
            node = Node(name=name, uri=f"memory:{name}", facts=template.facts)
            documents.append(Change(f"node/{name}", None, encode(node)))
        records = []
        for number in range(vms):
            name = f"vm{number:05}"
            volume = Volume(pool=pool, name=f"{name}.root.{number:08x}")
            disk = Disk(name="root", target="vda", size_bytes=2**34, volume=volume)
            nic = Nic(
                name="nic0",
                network="default",
                mac=f"52:54:00:{number >> 16 & 255:02x}:{number >> 8 & 255:02x}:{number & 255:02x}",
            )
            vm = Vm(
                name=name,
                id=str(uuid.UUID(int=number + 1, version=4)),
                node=names[number % hosts],
                memory_mib=512,
                disks=(disk,),
                nics=(nic,),
            )
            records.append(vm)
            documents.append(Change(f"vm/{name}", 0, encode(vm)))
        for begin in range(0, len(documents), 1000):
            state.commit(documents[begin : begin + 1000])
        for vm in records[: vms // 2]:
            bare = dataclasses.replace(vm, disks=(), nics=())
            cluster.world.hypervisor(vm.node).start(bare, {}, {})
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listening.bind(("127.0.0.1", 0))
        listening.listen(1024)
        app = create_app(cluster, token=TOKEN, upkeep_every_s=None)
        config = uvicorn.Config(app, log_level="warning", access_log=False)
        server = uvicorn.Server(config)

        async def run() -> None:
            serving = asyncio.create_task(server.serve(sockets=[listening]))
            while not server.started:
                await asyncio.sleep(0.05)
            print(listening.getsockname()[1], flush=True)
            await serving

        asyncio.run(run())


class Client:
    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)

    def get(self, path: str) -> tuple[float, int, bytes]:
        began = time.perf_counter()
        self._connection.request("GET", path, headers={"Authorization": f"Bearer {TOKEN}"})
        answer = self._connection.getresponse()
        body = answer.read()
        return time.perf_counter() - began, answer.status, body


def quantiles(times: list[float]) -> dict[str, float]:
    ordered = sorted(times)
    return {
        "p50_ms": round(1000 * statistics.median(ordered), 2),
        "p99_ms": round(1000 * ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))], 2),
        "max_ms": round(1000 * ordered[-1], 2),
    }


def many(client: Client, path: str, count: int) -> dict[str, float]:
    times = []
    for _ in range(count):
        took, status, _ = client.get(path)
        assert status == 200, (path, status)
        times.append(took)
    return quantiles(times)


def cpu_s(pid: int) -> float:
    """What the service has worked so far: it says more than the clock where others work, too."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# What the mixed load consists of, one VM aside.
PATHS = {
    "page of 100": "/v1/vms?limit=100",
    "page of 100 by state": "/v1/vms?limit=100&state=running",
    "page of 50 by name": "/v1/vms?limit=50&name~=77",
    "20 hosts": "/v1/nodes?limit=20&fields=node.name",
    "20 tasks": "/v1/tasks?limit=20",
    "20 jobs": "/v1/jobs?limit=20",
    "health": "/health",
}


def worked(port: int, pid: int, vms: int, count: int) -> dict[str, float]:
    """How many milliseconds of a processor one request of each kind takes."""
    client = Client(port)
    before = cpu_s(pid)
    time.sleep(5)
    # The world in memory moves by itself, which hosts of one's own would do elsewhere.
    found = {"a second of idling": round(1000 * (cpu_s(pid) - before) / 5, 2)}
    for kind, path in {"one VM": "/v1/vms/vm{:05}", **PATHS}.items():
        before = cpu_s(pid)
        for number in range(count):
            client.get(path.format(number * 7919 % vms))
        found[kind] = round(1000 * (cpu_s(pid) - before) / count, 2)
    return found


def mixed(port: int, pid: int, vms: int, seconds: float) -> dict[str, Any]:
    """200 a second, of eight kinds, from sixteen clients."""
    before = cpu_s(pid)
    paths = [*PATHS.values()]
    times: list[float] = []
    errors: list[int] = []
    lock = threading.Lock()
    begin = time.perf_counter()

    def run(first: int) -> None:
        client = Client(port)
        for number in range(first, int(RATE * seconds), 16):
            pause = begin + number / RATE - time.perf_counter()
            if pause > 0:
                time.sleep(pause)
            path = f"/v1/vms/vm{number * 7919 % vms:05}"
            if number % 2:
                path = paths[number // 2 % len(paths)]
            took, status, _ = client.get(path)
            with lock:
                times.append(took)
                if status != 200:
                    errors.append(status)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - begin
    return {
        "requests_s": round(len(times) / took, 1),
        "errors": len(errors),
        "cpu_ms each": round(1000 * (cpu_s(pid) - before) / len(times), 2),
        **quantiles(times),
    }


def measure(port: int, pid: int, vms: int, mixed_s: float) -> dict[str, Any]:
    client = Client(port)
    found: dict[str, Any] = {"first look_s": round(client.get("/v1/vms?limit=100")[0], 2)}
    found["first page of 100"] = many(client, "/v1/vms?limit=100", 300)
    found["one VM"] = many(client, f"/v1/vms/vm{vms // 2:05}", 300)
    times = []
    for _ in range(5):
        took, _, body = client.get("/v1/vms")
        times.append(took)
    assert len(json.loads(body)) == vms
    found["whole list"] = {**quantiles(times), "mib": round(len(body) / 2**20, 1)}
    found["cpu_ms each"] = worked(port, pid, vms, 400)
    if mixed_s:
        found["200 requests/s, mixed"] = mixed(port, pid, vms, mixed_s)
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    found["memory_mib"] = next(
        int(line.split()[1]) // 1024 for line in status.splitlines() if line.startswith("VmHWM")
    )
    return found


def stream(port: int, over: threading.Event) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=3600)
    connection.request("GET", "/v1/events", headers={"Authorization": f"Bearer {TOKEN}"})
    answer = connection.getresponse()
    assert answer.status == 200
    answer.readline()
    over.wait()
    connection.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vms", type=int, default=20_000)
    parser.add_argument("--hosts", type=int, default=1_250)
    parser.add_argument("--streams", type=int, default=0)
    parser.add_argument("--mixed-s", type=float, default=0.0)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 8192)), hard))
    if given.serve:
        serve(given.vms, given.hosts)
        return
    words = ["--vms", str(given.vms), "--hosts", str(given.hosts), "--serve"]
    program = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.bench_api", *words], stdout=subprocess.PIPE, text=True
    )
    over = threading.Event()
    try:
        assert program.stdout is not None
        port = int(program.stdout.readline())
        for _ in range(given.streams):
            threading.Thread(target=stream, args=(port, over), daemon=True).start()
        time.sleep(given.streams / 100)
        print(json.dumps(measure(port, program.pid, given.vms, given.mixed_s), indent=2))
    finally:
        over.set()
        program.terminate()
        program.wait(30)


if __name__ == "__main__":
    main()
