"""How many cores each VM has in use, out of the processor time that hosts show of it. Pure.

The counter of a VM begins anew with each QEMU that runs it: after a restart, and on the other host
after a move. Between two looks at the same counter the use is exact, however long that was; so a
gap in looking costs nothing but detail.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from vorch.decide.records import is_on
from vorch.frozen import quick
from vorch.model import Cluster, check_vm_name

# What was so long ago counts for about a third.
TIME_CONSTANT_S = 600.0
# Looks that are nearer to each other say little: the counter itself moves in steps.
LEAST_APART_S = 1.0
# A mean counts when so much of it was measured.
LEAST_MEASURED_S = 2.0
# What was written down is written again when one VM has changed by so many cores, and by that part.
NOTICED_CORES = 0.05
NOTICED_PART = 0.2
# At the least so long between two writings, and at the most.
WRITE_AFTER_S = 60.0
WRITE_WITHIN_S = 600.0
# What was written down is of use for so long.
FRESH_S = 900.0


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Loads:
    """Cores in use by the name of the VM, `load/vms`: whoever watches writes it, for all others."""

    at: float
    cores: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.cores:
            check_vm_name(name)


@quick
@dataclass(frozen=True, slots=True)
class Counter:
    """What a host showed of a VM, and when."""

    node: str
    cpu_time_ns: int
    at: float


@quick
@dataclass(frozen=True, slots=True)
class Mean:
    """Exponentially weighted: `cores` is `total` over `weight`, which is 1 for all of time."""

    total: float
    weight: float
    measured_s: float

    @property
    def cores(self) -> float:
        return self.total / self.weight


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What is known after a look: the counters as they stood then, and what came of all looks."""

    counters: Mapping[str, Counter] = field(default_factory=dict)
    means: Mapping[str, Mean] = field(default_factory=dict)

    @property
    def cores(self) -> dict[str, float]:
        return {
            name: mean.cores
            for name, mean in self.means.items()
            if mean.measured_s >= LEAST_MEASURED_S
        }


def measured(
    before: Measured, cluster: Cluster, now: float, *, time_constant_s: float = TIME_CONSTANT_S
) -> Measured:
    """What is known after another look. VMs that are off are forgotten; silent ones are not."""
    counters: dict[str, Counter] = {}
    means: dict[str, Mean] = {}
    for name, vm in cluster.vms.items():
        domain = cluster.domains.get(vm.id)
        last, mean = before.counters.get(name), before.means.get(name)
        if domain is None or not is_on(domain.power):
            if vm.node in cluster.silent:
                if last is not None:
                    counters[name] = last
                if mean is not None:
                    means[name] = mean
            continue
        if last is None or last.node != domain.node or domain.cpu_time_ns < last.cpu_time_ns:
            # Another counter, of which the beginning is not known.
            counters[name] = Counter(domain.node, domain.cpu_time_ns, now)
        elif now - last.at < LEAST_APART_S:
            counters[name] = last
        else:
            found = counters[name] = Counter(domain.node, domain.cpu_time_ns, now)
            mean = _after(mean, last, found, time_constant_s)
        if mean is not None:
            means[name] = mean
    return Measured(counters=counters, means=means)


def _after(mean: Mean | None, last: Counter, found: Counter, time_constant_s: float) -> Mean:
    took_s = found.at - last.at
    cores = (found.cpu_time_ns - last.cpu_time_ns) / 1e9 / took_s
    old = math.exp(-took_s / time_constant_s) if time_constant_s > 0 else 0.0
    if mean is None:
        return Mean((1 - old) * cores, 1 - old, took_s)
    return Mean(
        mean.total * old + (1 - old) * cores,
        mean.weight * old + (1 - old),
        mean.measured_s + took_s,
    )


def taken_over(loads: Loads | None, now: float) -> Measured:
    """Whoever begins to look goes on with what was written down, if that is fresh."""
    if not is_fresh(loads, now):
        return Measured()
    assert loads is not None
    return Measured(means={name: Mean(cores, 1.0, FRESH_S) for name, cores in loads.cores.items()})


def is_fresh(loads: Loads | None, now: float) -> bool:
    return loads is not None and now - loads.at <= FRESH_S


def to_write(written: Loads | None, now_known: Measured, now: float) -> Loads | None:
    """What is to be written down; None: what is there is good enough."""
    since_s = 0.0 if written is None else now - written.at
    if written is not None and since_s < WRITE_AFTER_S:
        return None
    cores = {name: round(value, 3) for name, value in sorted(now_known.cores.items())}
    if written is None:
        return Loads(at=now, cores=cores) if cores else None
    if since_s >= WRITE_WITHIN_S or _differ(written.cores, cores):
        return Loads(at=now, cores=cores)
    return None


def _differ(before: Mapping[str, float], now: Mapping[str, float]) -> bool:
    return before.keys() != now.keys() or any(
        abs(value - before[name]) > max(NOTICED_CORES, NOTICED_PART * before[name])
        for name, value in now.items()
    )
