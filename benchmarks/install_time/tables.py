"""Results as tables for the page, and as CSV: a line for each phase of each run. Pure."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

from .likeness import Difference
from .marks import PHASES
from .results import Case, Results, Run
from .spread import Spread, compared, spread

TOTAL = "all phases"
# Amounts in the order of the page: name → heading, and what one of it is divided by.
AMOUNTS = {
    "guest_cpu_s": ("guest's processor, s", 1.0),
    "host_cpu_s": ("host's processors, s", 1.0),
    "disk_read_bytes": ("disk read, MiB", 1024.0**2),
    "disk_written_bytes": ("disk written, MiB", 1024.0**2),
    "net_received_bytes": ("guest's network in, MiB", 1024.0**2),
    "net_sent_bytes": ("guest's network out, MiB", 1024.0**2),
    "ceph_read_bytes": ("read of Ceph, MiB", 1024.0**2),
    "ceph_written_bytes": ("written to Ceph, MiB", 1024.0**2),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One case: a figure for each column, None where there is none."""

    title: str
    count: int
    cells: tuple[Spread | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


def phase_names(method: str) -> tuple[str, ...]:
    return tuple(name for name, _ in PHASES[method])


def times(method: str, found: dict[Case, tuple[Run, ...]]) -> Table:
    """Seconds of each phase, and of all together."""
    names = phase_names(method)
    rows = []
    for case, runs in found.items():
        if case.method != method:
            continue
        cells = []
        for name in names:
            figures = [value for run in runs if (value := run.phase(name)) is not None]
            cells.append(spread(figures) if figures else None)
        cells.append(spread([run.seconds for run in runs]))
        rows.append(Row(title=case.title, count=len(runs), cells=tuple(cells)))
    return Table(title="seconds", columns=(*names, TOTAL), rows=tuple(rows))


def amounts(method: str, found: dict[Case, tuple[Run, ...]]) -> Table:
    """What processors, disks, networks and Ceph did; cards of hosts by their names."""
    of_method = {case: runs for case, runs in found.items() if case.method == method}
    seen = {name for runs in of_method.values() for run in runs for name in run.amounts}
    cards = sorted(name for name in seen if name.startswith("host_") and name.endswith("_bytes"))
    wanted = {name: column for name, column in AMOUNTS.items() if name in seen}
    for name in cards:
        card, _, direction = name.removeprefix("host_").removesuffix("_bytes").rpartition("_")
        wanted[name] = (f"host's {card} {'in' if direction == 'received' else 'out'}, MiB", 1024**2)
    rows = []
    for case, runs in of_method.items():
        cells = []
        for name, (_, one) in wanted.items():
            figures = [run.amounts[name] / one for run in runs if name in run.amounts]
            cells.append(spread(figures) if figures else None)
        rows.append(Row(title=case.title, count=len(runs), cells=tuple(cells)))
    columns = tuple(heading for heading, _ in wanted.values())
    return Table(title="what it took", columns=columns, rows=tuple(rows))


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    method: str
    first: str
    second: str
    verdict: str


def comparisons(found: dict[Case, tuple[Run, ...]]) -> tuple[Comparison, ...]:
    """Pairs that differ in one thing only: hypervisor, storage, or the number of networks."""
    made = []
    every = list(found)
    for index, one in enumerate(every):
        for other in every[index + 1 :]:
            if one.method != other.method or not _differ_in_one(one, other):
                continue
            verdict = compared(
                [run.seconds for run in found[one]], [run.seconds for run in found[other]]
            )
            made.append(
                Comparison(
                    method=one.method,
                    first=one.title,
                    second=other.title,
                    verdict=str(verdict),
                )
            )
    return tuple(made)


def _differ_in_one(one: Case, other: Case) -> bool:
    differing = [
        one.hypervisor != other.hypervisor,
        one.storage != other.storage,
        # Storage that needs no network has none: that is the same difference.
        one.networks != other.networks and one.storage == other.storage,
    ]
    return sum(differing) == 1


def to_csv(results: Sequence[Results], unlike: Sequence[Difference]) -> str:
    """A line for each phase of each run, and its amounts; each says whether it may be compared."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        [
            *("method", "hypervisor", "storage", "networks", "host", "pool", "run", "began_at"),
            *("what", "value", "unit", "counts", "comparable"),
        ]
    )
    # Who has what stands on the page; here it is said on each line that something differs.
    comparable = "no: " + "; ".join(one.what for one in unlike) if unlike else "yes"
    for one in results:
        for run in one.runs:
            case = run.case
            head = [case.method, case.hypervisor, case.storage, case.networks, run.host, run.pool]
            head += [str(run.number), f"{run.began_at:.0f}"]
            tail = [f"no: {run.spoilt}" if run.spoilt else "yes", comparable]
            for phase in run.phases:
                writer.writerow([*head, phase.name, f"{phase.seconds:.3f}", "s", *tail])
            for name, value in run.amounts.items():
                stem, _, unit = name.rpartition("_")
                if unit not in ("s", "bytes"):
                    stem, unit = name, "count"
                writer.writerow([*head, stem, f"{value:.3f}".rstrip("0").rstrip("."), unit, *tail])
            if not run.phases:
                writer.writerow([*head, "", "", "", *tail])
    return text.getvalue()
