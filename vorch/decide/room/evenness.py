"""How even a fleet is, as one figure: smaller is better. Three ways to judge, made of few terms.

"vorch" looks at shares of each host: memory, vCPUs and load, and beside their spread at the most
loaded hosts. "norm" is the spread alone. "htools" is the score of Ganeti's htools, which divides
loads by the mean host and not by the host itself; it is there to compare with.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from vorch.decide.room.table import Floats, Table

Metric = Literal["vorch", "norm", "htools"]

# A link, in Gbit/s, that htools' figure for the network is a share of.
HTOOLS_LINK_GBIT_S = 10.0
# What a broken hard rule counts for: as in htools, two spreads of all or nothing.
BROKEN = 2.0
# How little a guest's load is known: two measurements of an idle day differ by so much.
NOISE = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """One quantity in shares per host, and how the hosts' shares become one figure.

    spread: their standard deviation. peak: their mean of the eighth power, which is as good as the
    largest. over: how far they are above a limit, on the mean.
    """

    what: str
    kind: Literal["spread", "peak", "over"]
    weight: float
    # Per guest, and what one unit of it is on each host.
    size: Floats
    unit: Floats
    # What the hosts have in use without guests.
    base: Floats
    limit: float = 0.0
    # What a guest of mean size is on a host like the mean.
    usual: float = 0.0
    # It is measured, so it is never the same twice.
    noisy: bool = False

    def of(self, share: Floats, count: int) -> float:
        """The figure. Hosts that do not count have a share of zero."""
        if self.kind == "spread":
            mean = float(share.sum()) / count
            variance = float((share * share).sum()) / count - mean * mean
            return self.weight * math.sqrt(max(0.0, variance))
        if self.kind == "peak":
            return self.weight * math.sqrt(math.sqrt(math.sqrt(float((share**8).sum()) / count)))
        return self.weight * float(np.maximum(share - self.limit, 0.0).sum()) / count


def terms(table: Table, metric: Metric) -> list[Term]:
    """Hosts that are closed do not count: nothing is to be evened out there."""
    weights = table.policy.weights
    counts = table.open.astype(np.float64)
    by_cpus = counts / table.cpus

    def term(
        what: str,
        size: Floats,
        unit: Floats,
        other: Floats,
        *,
        kind: Literal["spread", "peak", "over"] = "spread",
        weight: float = 1.0,
        limit: float = 0.0,
    ) -> Term:
        return Term(
            what=what,
            kind=kind,
            weight=weight,
            size=size,
            unit=unit,
            base=other * unit,
            limit=limit,
            usual=float(size.mean()) * float(unit.mean()) if len(size) and len(unit) else 0.0,
            noisy=what in ("load", "network"),
        )

    memory = table.memory.astype(np.float64)
    by_memory = counts / table.size_mib
    kept = table.kept_mib.astype(np.float64)
    if metric == "htools":
        mean = float(table.cpus[table.open].mean()) if table.open.any() else 1.0
        zero = np.zeros(len(counts))
        return [
            term("memory", memory, by_memory, kept),
            term("vCPUs", table.vcpus, by_cpus, table.other_vcpus),
            term("load", table.load, counts / mean, table.other_load),
            term("network", table.net, counts / HTOOLS_LINK_GBIT_S, zero),
        ]
    plain = metric == "norm"
    found = [
        term("memory", memory, by_memory, kept, weight=1.0 if plain else weights.memory),
        term(
            "vCPUs", table.vcpus, by_cpus, table.other_vcpus, weight=1.0 if plain else weights.vcpus
        ),
        term("load", table.load, by_cpus, table.other_load, weight=1.0 if plain else weights.load),
    ]
    # The host that suffers most is lost in the spread of many.
    found.append(
        term(
            "load",
            table.load,
            by_cpus,
            table.other_load,
            kind="peak",
            weight=1.0 if plain else weights.load,
        )
    )
    if not plain:
        found += [
            term(
                "load",
                table.load,
                by_cpus,
                table.other_load,
                kind="over",
                weight=weights.crowd,
                limit=table.policy.load_share,
            ),
        ]
    return found


def noise(table: Table, found: list[Term]) -> float:
    """What chance alone can bring about, when each guest's load is up or down by `NOISE`.

    Each figure is a norm, so what is added to the shares changes it by no more than the norm of
    what is added.
    """
    there = table.at >= 0
    at = table.at[there]
    count = max(1, int(table.open.sum()))
    total = 0.0
    for term in found:
        if not term.noisy:
            continue
        part = (NOISE * term.size[there] * term.unit[at]) ** 2
        shaken = np.bincount(at, part, len(table.hosts)) ** 0.5
        if term.kind == "spread":
            total += term.weight * float((shaken * shaken).sum() / count) ** 0.5
        elif term.kind == "peak":
            total += term.weight * float((shaken**8).sum() / count) ** 0.125
        else:
            use = np.bincount(at, term.size[there], len(table.hosts)) * term.unit + term.base
            more = np.maximum(use + shaken - term.limit, 0.0) - np.maximum(use - term.limit, 0.0)
            total += term.weight * float(more.sum()) / count
    return total
