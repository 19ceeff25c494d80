"""Rebalancing and emptying hosts on placement files, beside Ganeti's hbal where that is asked for.

`python -m benchmarks.bench_balance FILE... [--hbal] [--moves-max N] [--metric htools|norm|vorch]`.
The files are `vorch-placement/1`; with --hbal the same cluster is expected beside each as .txt and
.util, and hbal's own result is followed, so that both are judged by one figure. Before a time
counts, every step is replayed: it fits when it is taken, no rule is broken that held, there are no
more rounds than 1.2 times what the busiest host needs, and a second run plans nothing. Times are
CPU seconds.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import resource
import shutil
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

from vorch.decide.room.balance import Limits, Metric, balance
from vorch.decide.room.empty import evacuate
from vorch.decide.room.evenness import terms
from vorch.decide.room.fleet import Fleet
from vorch.decide.room.price import Pricing, prices
from vorch.decide.room.search import Search
from vorch.decide.room.table import Table
from vorch.simulate.placement_file import read_placement

MOST_ROUNDS = 1.2
STEP = re.compile(r"\s*\d+\. (\S+)\s+(\S+)\s+=> (\S+)\s+[\d.]+ a=")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--hbal", action="store_true", help="run hbal, too: minutes per file")
    parser.add_argument("--moves-max", type=int, default=None)
    parser.add_argument("--metric", choices=["vorch", "norm", "htools"], default="htools")
    parser.add_argument("--thorough", type=int, default=1)
    given = parser.parse_args()
    for path in given.files:
        found = measure(path, given.metric, given.moves_max, given.thorough)
        if given.hbal:
            found |= beside_hbal(path, given.metric, found)
        print(json.dumps(found))


def measure(path: Path, metric: Metric, most: int | None, thorough: int) -> dict[str, Any]:
    fleet = read_placement(path)
    began = time.process_time()
    plan = balance(fleet, Limits(moves=most), metric=metric, thorough=thorough)
    took = time.process_time() - began
    moves = [(move.guest, move.source, move.target) for move in plan.moves]
    after = replayed(fleet, moves)
    ends = [end for move in plan.moves for end in (move.source, move.target)]
    busiest = max((ends.count(one) for one in set(ends)), default=0)
    assert len(plan.rounds) <= max(3, MOST_ROUNDS * busiest), (len(plan.rounds), busiest)
    if most is None:
        assert not balance(after, metric=metric).moves, "a second run plans something"
    table = Table(fleet)
    each = []
    for host in table.host_names:
        began = time.process_time()
        evacuate(table, [host])
        each.append(time.process_time() - began)
    return {
        "file": path.name,
        "metric": metric,
        "cpu_s": round(took, 3),
        "before": round(plan.before.figure, 5),
        "after": round(plan.after.figure, 5),
        "moves": len(plan.moves),
        "memory_gib": plan.memory_mib // 1024,
        "rounds": len(plan.rounds),
        "busiest_host": busiest,
        "expected_s": round(plan.seconds),
        "evacuate_ms": round(1000 * statistics.median(each), 2),
        "evacuate_worst_ms": round(1000 * max(each), 2),
    }


def replayed(fleet: Fleet, moves: list[tuple[str, str, str]], *, strict: bool = True) -> Fleet:
    """The fleet after the moves; each of them fits, and breaks no rule that held."""
    table = Table(fleet)
    search = Search(table, terms(table, "norm"), prices(table, Pricing()))
    for guest, source, target in moves:
        row, host = table.guest(guest), table.host(target)
        assert table.host_names[table.at[row]] == source, guest
        broken = search.broken()
        if strict:
            assert table.free_mib[host] >= table.memory[row], (guest, target)
            assert table.free_vcpus[host] >= table.vcpus[row], (guest, target)
        search.move(row, host)
        assert not strict or search.broken() <= broken, (guest, target)
    where = {name: table.host_names[table.at[row]] for row, name in enumerate(table.guest_names)}
    guests = tuple(dataclasses.replace(one, host=where[one.name]) for one in fleet.guests)
    return dataclasses.replace(fleet, guests=guests)


def beside_hbal(path: Path, metric: Metric, own: dict[str, Any]) -> dict[str, Any]:
    """hbal's moves and CPU time, its figure by our measure, and ours with as many moves."""
    program = shutil.which("hbal")
    assert program, "cannot run hbal: it is not there; install ganeti-htools"
    bare = path.with_name(path.name.partition(".")[0])
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run = subprocess.run(
        [program, "-t", f"{bare}.txt", "-U", f"{bare}.util", "-C", "-p"],
        check=True,
        capture_output=True,
        text=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    moves = [found.groups() for line in run.stdout.splitlines() if (found := STEP.match(line))]
    fleet = read_placement(path)
    end = replayed(fleet, [(one[0], one[1], one[2]) for one in moves], strict=False)
    start = {one.name: one.host for one in fleet.guests}
    moved = [one for one in end.guests if one.host != start[one.name]]
    theirs = balance(end, Limits(moves=0), metric=metric).before.figure
    same = balance(fleet, Limits(moves=len(moved)), metric=metric)
    return {
        "hbal_cpu_s": round(cpu_s, 2),
        "times_faster": round(cpu_s / max(1e-6, own["cpu_s"])),
        "hbal_moves": len(moved),
        "hbal_after": round(theirs, 5),
        "after_with_as_many": round(same.after.figure, 5),
        "share": round(same.after.figure / theirs, 3),
    }


if __name__ == "__main__":
    main()
