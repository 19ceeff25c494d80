"""How long a live migration will take, and whether it can come to an end. Pure: arithmetic.

Memory is sent while the guest runs; what it has changed meanwhile is sent again, and so on, until
the rest fits into the pause. With a guest that writes at W and a link that takes B, each round is
W/B of the one before. From W = B on it never ends unless the guest is slowed down to less than B.
What is not known (the link's speed, when nobody set it and nothing was measured) is said to be
unknown, and nothing is refused for it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from vorch.errors import Conflict
from vorch.model import Task, TaskState
from vorch.plan import MigrateDomain, Plan

# Rounds after which QEMU's next one is no smaller for all that can be told.
MOST_ROUNDS = 64
# Earlier moves between the same two hosts that count, the newest.
MOVES_LOOKED_AT = 5
# A move that sent less says nothing of the link: it was over before it was at full speed.
LEAST_SENT_MIB = 64


@dataclass(frozen=True, slots=True)
class Speed:
    """What the link takes, and how that is known."""

    mib_s: float | None
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    memory_mib: int
    # Of disks that are copied along, at most.
    disk_mib: int
    speed: Speed
    # None: nobody measured it.
    writes_mib_s: float | None
    takes_s: float | None
    pause_ms: int | None
    # How much the guest has to be slowed down so that it ends at all.
    slowed_percent: int

    def figures(self) -> dict[str, Any]:
        return {
            "memory_mib": self.memory_mib,
            "disk_mib": self.disk_mib,
            "speed_mib_s": self.speed.mib_s,
            "speed_from": self.speed.why,
            "writes_mib_s": self.writes_mib_s,
            "takes_s": self.takes_s,
            "pause_ms": self.pause_ms,
            "slowed_percent": self.slowed_percent,
        }

    def __str__(self) -> str:
        writes = "" if self.writes_mib_s is None else f"it changes {self.writes_mib_s:g} MiB/s, "
        what = f"{self.memory_mib} MiB of memory"
        if self.disk_mib:
            what += f" and up to {self.disk_mib} MiB of disks"
        if self.speed.mib_s is None or self.takes_s is None:
            return f"{what}; {writes}how long it takes is unknown: {self.speed.why}"
        slowed = f", slowed down by {self.slowed_percent} %" if self.slowed_percent else ""
        return (
            f"about {self.takes_s:.0f} s and a pause of {self.pause_ms} ms{slowed}: {what} at"
            f" {self.speed.mib_s:g} MiB/s ({self.speed.why}); {writes}".rstrip("; ,")
        )


def link_speed(bandwidth_mib_s: int, tasks: Iterable[Task], source: str, target: str) -> Speed:
    """As it was set; else what the last moves between these two hosts really reached."""
    if bandwidth_mib_s:
        return Speed(float(bandwidth_mib_s), "migration_bandwidth_mib_s")
    found = sorted(
        (task for task in tasks if _tells(task, source, target)), key=lambda task: -task.started_at
    )[:MOVES_LOOKED_AT]
    if not found:
        return Speed(
            None, f"no speed is set, and none was measured between {source!r} and {target!r} yet"
        )
    speeds = sorted(_number(task, "speed_mib_s") for task in found)
    return Speed(speeds[len(speeds) // 2], f"measured in {len(found)} earlier move(s)")


def _tells(task: Task, source: str, target: str) -> bool:
    return (
        task.verb == "migrate"
        and task.state is TaskState.DONE
        and {task.result.get("source"), task.result.get("node")} == {source, target}
        and _number(task, "speed_mib_s") > 0
        # What was held back says nothing of the link.
        and not _number(task, "limit_mib_s")
        and _number(task, "sent_mib") >= LEAST_SENT_MIB
    )


def _number(task: Task, name: str) -> float:
    value = task.result.get(name)
    return float(value) if isinstance(value, int | float) else 0.0


def estimate(
    step: MigrateDomain, speed: Speed, writes_mib_s: float | None, memory_mib: int
) -> Estimate:
    """All of its memory counts, and all of its disks: what is empty goes faster than it says."""
    disk_mib = sum(math.ceil(disk.size_bytes / 1024**2) for disk in step.copied)
    takes_s: float | None = None
    pause_ms: int | None = None
    slowed = 0
    if speed.mib_s and not step.live:
        takes_s = round((memory_mib + disk_mib) / speed.mib_s, 1)
        pause_ms = math.ceil(1000 * takes_s)
    elif speed.mib_s:
        writes = writes_mib_s or 0.0
        slowed = needed_slowdown(writes, speed.mib_s)
        takes, left = rounds(
            memory_mib, writes * (100 - slowed) / 100, speed.mib_s, step.pause_limit_ms
        )
        takes_s = round(takes + disk_mib / speed.mib_s, 1)
        pause_ms = min(step.pause_limit_ms, math.ceil(1000 * left / speed.mib_s))
    return Estimate(
        memory_mib=memory_mib,
        disk_mib=disk_mib,
        speed=speed,
        writes_mib_s=writes_mib_s,
        takes_s=takes_s,
        pause_ms=pause_ms,
        slowed_percent=slowed,
    )


def needed_slowdown(writes_mib_s: float, speed_mib_s: float) -> int:
    """In percent of the guest's own speed; 0 where each round is a tenth smaller without."""
    reachable = 0.9 * speed_mib_s
    if writes_mib_s <= reachable:
        return 0
    return min(99, math.ceil(100 * (1 - reachable / writes_mib_s)))


def rounds(
    memory_mib: float, writes_mib_s: float, speed_mib_s: float, pause_limit_ms: int
) -> tuple[float, float]:
    """Seconds until the rest fits into the pause, and how many MiB that rest is."""
    took, left = 0.0, float(memory_mib)
    fits = speed_mib_s * pause_limit_ms / 1000
    for _ in range(MOST_ROUNDS):
        took += left / speed_mib_s
        # No round can leave more than there is.
        left = min(left / speed_mib_s * writes_mib_s, float(memory_mib))
        if left <= fits:
            break
    return took, min(left, fits)


def worth_measuring(speed: Speed, memory_mib: int, above_s: float) -> bool:
    """A short move is over before it has been measured; without a speed nothing follows from it."""
    return speed.mib_s is not None and memory_mib / speed.mib_s >= above_s


def weighed(
    plan: Plan, step: MigrateDomain, found: Estimate, *, slowdown_limit_percent: int, force: bool
) -> Plan:
    """The plan with what it will come to. Refused when it would bring the guest to a stand."""
    hopeless = found.slowed_percent > slowdown_limit_percent and step.postcopy_after_s is None
    if hopeless and not force:
        raise Conflict(
            f"cannot migrate VM {step.vm.name!r} to {step.target!r}: it changes"
            f" {found.writes_mib_s:g} MiB/s of its memory, and the link takes"
            f" {found.speed.mib_s:g} MiB/s ({found.speed.why}), so it would have to be slowed down"
            f" by {found.slowed_percent} % (migration_slowdown_limit_percent is"
            f" {slowdown_limit_percent}); wait until it is quieter, let it go over early"
            " (--postcopy), or do it all the same (--force)",
            vm=step.vm.name,
            node=step.target,
            **found.figures(),
        )
    return dataclasses.replace(plan, why=f"{plan.why}; {found}", expected=found.figures())
