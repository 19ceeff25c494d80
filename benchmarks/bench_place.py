"""How long it takes to place guests, and to know that any host may die: 1,000 hosts, 10,000 guests.

`python -m benchmarks.bench_place [--hosts 1000] [--runs 300] [--file FILE] [--hail FILE.txt]`. A
fleet is made up unless a file of `vorch-placement/1` is given. `--hail`: one guest is placed into a
file of Ganeti's htools, plain or .gz, by their hail and by vorch; CPU seconds of both.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from vorch.decide.room import packing
from vorch.decide.room.fleet import Apart, Fleet, Guest, Host
from vorch.decide.room.pick import Picker, place
from vorch.decide.room.spare import Spare, Verdict, domain_losses
from vorch.decide.room.table import NOWHERE, Table
from vorch.simulate.htools_file import read_htools
from vorch.simulate.placement_file import read_placement, read_text

HAIL = Path("/usr/lib/ganeti/iallocators/hail")
SIZES = [(1, 2), (2, 4), (2, 8), (4, 8), (4, 16), (8, 16), (8, 32)]
# With more hail takes minutes for one guest when it keeps N+1.
HAIL_HOSTS = 100
BATCH = 1000
FILL = 0.65


def made_up(hosts: int, seed: int = 1) -> Fleet:
    """Hosts of three sizes, filled at random, with groups that are kept apart."""
    chance = random.Random(seed)
    kinds = [(24, 128), (48, 256), (64, 384)]
    found = []
    for number in range(hosts):
        cpus, gib = kinds[chance.randrange(3)]
        found.append(
            Host(
                name=f"h{number:04}",
                cpus=cpus,
                memory_mib=gib * 1024,
                reserve_mib=4096,
                tags=frozenset({f"rack:r{number % max(2, hosts // 20):02}"}),
            )
        )
    guests: list[Guest] = []
    for host in found:
        left = int((host.memory_mib - host.reserve_mib) * FILL * chance.uniform(0.7, 1.3))
        while True:
            vcpus, gib = SIZES[chance.randrange(len(SIZES))]
            left -= gib * 1024
            if left < 0:
                break
            guests.append(_guest(f"g{len(guests):05}", vcpus, gib, chance, host.name))
    names = [one.name for one in guests]
    chance.shuffle(names)
    rules = [
        Apart(name=f"apart{number:04}", guests=tuple(names[number * 3 : number * 3 + 3]))
        for number in range(len(names) // 12)
    ]
    return Fleet(hosts=tuple(found), guests=tuple(guests), rules=tuple(rules))


def _guest(name: str, vcpus: int, gib: int, chance: random.Random, host: str = "") -> Guest:
    load = round(vcpus * chance.uniform(0.05, 0.5), 3)
    return Guest(name=name, vcpus=vcpus, memory_mib=gib * 1024, cpu_load=load, host=host)


def with_new(fleet: Fleet) -> tuple[Fleet, list[str]]:
    """And a batch of new guests, some of them to be kept apart."""
    chance = random.Random(2)
    new = [
        _guest(f"new{number:04}", *SIZES[chance.randrange(len(SIZES))], chance)
        for number in range(BATCH)
    ]
    names = [one.name for one in new]
    rules = [
        Apart(name=f"new-apart{number:03}", guests=tuple(names[number * 4 : number * 4 + 4]))
        for number in range(50)
    ]
    return (
        dataclasses.replace(fleet, guests=(*fleet.guests, *new), rules=(*fleet.rules, *rules)),
        names,
    )


def measure(fleet: Fleet, runs: int) -> dict[str, object]:
    fleet, names = with_new(fleet)
    began = time.process_time()
    table = Table(fleet)
    built_s = time.process_time() - began
    began = time.process_time()
    spare = Spare(table)
    spare_s = time.process_time() - began
    verdicts = spare.verdicts()
    _check(table, spare)
    picker = Picker(table, spare)
    rows = [table.guest(name) for name in names]
    picks = [_timed(lambda row=row: picker.pick([row])) for row in rows[:runs]]
    batch = Picker(Table(fleet))
    began = time.process_time()
    answer = batch.batch(rows)
    batch_s = time.process_time() - began
    single = Picker(Table(fleet))
    for row in rows:
        single.take([row])
    left = sum(1 for row in rows if single.table.at[row] == NOWHERE)
    assert len(answer.left) <= left
    assert not (batch.table.free_mib < 0).any()
    if len(answer.left) == left:
        # Beyond some hundred guests neither order is always the better one, by a hair.
        assert batch.score.whole() <= 1.002 * single.score.whole()
    assert batch.spare is not None
    _check(batch.table, batch.spare)
    after = batch.spare.verdicts()
    assert all(after[name] is Verdict.YES for name in after if verdicts[name] is Verdict.YES)
    racks_s = _timed(lambda: domain_losses(table, "rack", prove=False)) / 1e6
    return {
        "hosts": len(table.hosts),
        "guests": len(table.guests),
        "table s": round(built_s, 4),
        "any host may die s": round(spare_s, 4),
        "hosts that may die": sum(one is Verdict.YES for one in verdicts.values()),
        "kept current us": _spread(_changes(table, spare, runs)),
        "all racks one by one s": round(racks_s, 3),
        "pick us": _spread(picks),
        "batch of 1000 s": round(batch_s, 3),
        "left by the batch": len(answer.left),
        "score of the batch": round(batch.score.whole(), 5),
        "score one by one": round(single.score.whole(), 5),
    }


def _check(table: Table, spare: Spare) -> None:
    """Every yes carries a packing; it is looked at afresh."""
    for host, name in enumerate(table.host_names):
        if spare.verdict(host) is Verdict.YES:
            guests = [int(row) for row in table.on(host) if table.ha[row]]
            refuges = {row: int(spare.refuge[row]) for row in guests}
            why = packing.verify(packing.task(table, guests, [host]), refuges)
            assert why is None, (name, why)


def _changes(table: Table, spare: Spare, runs: int) -> list[float]:
    """Guests that move to another host and back."""
    chance = random.Random(3)
    times = []
    for _ in range(runs):
        row = chance.randrange(len(table.guests))
        source, target = int(table.at[row]), chance.randrange(len(table.hosts))
        if source < 0 or source == target or table.free_mib[target] < table.memory[row]:
            continue
        for here, there in ((source, target), (target, source)):
            table.move(row, there)
            times.append(_timed(lambda r=row, h=here, t=there: spare.moved(r, h, t)))
    return times


def _timed(action: object) -> float:
    """Microseconds of CPU."""
    began = time.process_time_ns()
    action()  # type: ignore[operator]
    return (time.process_time_ns() - began) / 1000


def _spread(times: list[float]) -> dict[str, float]:
    times = sorted(times)
    return {
        "p50": round(statistics.median(times), 1),
        "p99": round(times[int(len(times) * 0.99)], 1),
        "max": round(times[-1], 1),
    }


def beside_hail(path: Path) -> dict[str, object]:
    """One guest of 2 vCPUs and 4 GiB, by both, each a process of its own.

    hail looks at N+1 of the whole cluster and refuses all where that does not hold already; vorch
    keeps what holds.
    """
    request = {
        "version": 2,
        "cluster_name": "bench",
        "cluster_tags": [],
        "enabled_hypervisors": ["kvm"],
        "nodegroups": {},
        "nodes": {},
        "instances": {},
        "request": {
            "type": "allocate",
            "name": "new-guest",
            "memory": 4096,
            "vcpus": 2,
            "disks": [{"size": 1024, "mode": "w", "spindles": 1}],
            "disk_space_total": 1024,
            "disk_template": "ext",
            "required_nodes": 1,
            "tags": [],
            "nics": [],
            "os": "none",
            "hypervisor": "kvm",
            "spindle_use": 1,
        },
    }
    fleet = read_htools(path)
    found: dict[str, object] = {"file": path.name, "hosts": len(fleet.hosts)}
    with tempfile.TemporaryDirectory() as folder:
        asked, plain = Path(folder, "request.json"), Path(folder, "cluster.txt")
        asked.write_text(json.dumps(request))
        plain.write_text(read_text(path))
        for what, more in (("", ["--no-capacity-checks"]), (", N+1 kept", [])):
            if not more and len(fleet.hosts) > HAIL_HOSTS:
                found[f"hail s{what}"] = f"not tried with more than {HAIL_HOSTS} hosts: minutes"
                continue
            took, said = _child([str(HAIL), "-t", str(plain), *more, str(asked)])
            answer = json.loads(said)
            found[f"hail s{what}"] = round(took, 3)
            found[f"hail takes{what}"] = answer["result"][0] if answer["result"] else answer["info"]
    took, said = _child([sys.executable, "-m", "benchmarks.bench_place", "--one", str(path)])
    node, decided = said.split()
    found |= {
        "vorch s, N+1 kept, the whole process": round(took, 3),
        "vorch s, N+1 kept, the decision": float(decided),
        "vorch takes": node,
    }
    assert node in {host.name for host in fleet.hosts}
    return found


def _child(command: list[str]) -> tuple[float, str]:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return used, done.stdout


def one(path: Path) -> str:
    """Place one guest into a file of htools, as a process that does nothing else."""
    fleet = read_htools(path)
    new = Guest(name="new-guest", memory_mib=4096, vcpus=2)
    fleet = dataclasses.replace(fleet, guests=(*fleet.guests, new))
    began = time.process_time()
    host = place(fleet, [new.name]).hosts[new.name]
    return f"{host} {time.process_time() - began:.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--file", type=Path, help="a file of vorch-placement/1, plain or .gz")
    parser.add_argument("--hail", type=Path, help="a file of htools' text format")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        print(one(chosen.one))
        return
    if chosen.hail:
        if not HAIL.exists():
            raise SystemExit(f"cannot run hail: {HAIL} is not there; install ganeti-htools")
        print(json.dumps(beside_hail(chosen.hail), indent=2))
        return
    fleet = read_placement(chosen.file) if chosen.file else made_up(chosen.hosts)
    print(json.dumps(measure(fleet, chosen.runs), indent=2))


if __name__ == "__main__":
    main()
