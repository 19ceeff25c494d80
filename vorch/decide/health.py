"""Whether all is well with the cluster, in one line; what is not, and what to do about it. Pure.

Things of one kind are one concern, however many they are, so that a lost rack of a thousand VMs is
a few lines. Each has a code and its facts, for programs and for pages in other languages.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from vorch.availability import HaStatus, NodeState, VmState
from vorch.decide import spared
from vorch.decide.ha_status import OLD_DRILL_S
from vorch.decide.status import status
from vorch.model import Cluster, Power, Room, StorageStatus, Task, TaskState

Level = Literal["note", "warning", "error"]
# So many are named; of more than these only how many there are.
NAMED = 20
SPOKEN = 3
# What of a pool should stay free, and must.
POOL_LOW, POOL_FULL = 0.1, 0.03
_LEVELS: tuple[Level, ...] = ("error", "warning", "note")


@dataclass(frozen=True, slots=True, kw_only=True)
class Concern:
    """Something that is not as it should be (or, as a note, not as usual)."""

    level: Level
    # For programs: stays the same while the words may change.
    code: str
    # What it is about: node, vm, pool, storage, task, rule, ha, cluster. Which ones, and how many.
    about: str
    names: tuple[str, ...] = ()
    count: int = 1
    text: str
    remedy: str = ""
    # What is known of each, by its name.
    details: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """All of it in one line, then what is not well, the worst first."""

    at: float
    status: Literal["ok", "warning", "error"]
    line: str
    concerns: tuple[Concern, ...] = ()
    hosts: int = 0
    hosts_online: int = 0
    vms: int = 0
    vms_running: int = 0
    tasks_running: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What was found out for it beside the store and the hosts."""

    at: float
    rooms: Mapping[str, Room] = field(default_factory=dict)
    storage: Sequence[StorageStatus] = ()
    # Who did not answer, and what they were asked: "storage", "pool fast".
    silent: Mapping[str, str] = field(default_factory=dict)
    tasks: Sequence[Task] = ()


def health(cluster: Cluster, ha: HaStatus, seen: Seen) -> Health:
    found = [
        *_hosts(cluster, ha),
        *_vms(cluster, ha),
        *_availability(ha),
        *_storage(seen),
        *_pools(seen),
        *_tasks(seen),
    ]
    found.sort(key=lambda one: _LEVELS.index(one.level))
    worst = found[0].level if found else "note"
    powers = [cluster.power(vm) for vm in cluster.vms.values()]
    return Health(
        at=seen.at,
        status="ok" if worst == "note" else worst,
        line=_line(found),
        concerns=tuple(found),
        hosts=len(cluster.nodes),
        hosts_online=len(set(cluster.nodes) - set(cluster.silent)),
        vms=len(powers),
        vms_running=powers.count(Power.RUNNING),
        tasks_running=sum(one.state is TaskState.RUNNING for one in seen.tasks),
    )


def _line(found: Sequence[Concern]) -> str:
    wrong = [one for one in found if one.level != "note"]
    if not wrong:
        return "all is well"
    first = wrong[0].text + (f": {wrong[0].remedy}" if wrong[0].remedy else "")
    more = len(wrong) - 1
    if not more:
        return first
    return f"{first} (and {more} more thing{'s' if more > 1 else ''})"


def _several(
    level: Level,
    code: str,
    about: str,
    names: Iterable[str],
    one: str,
    many: str,
    remedy: str = "",
    details: Mapping[str, str] | None = None,
) -> Iterable[Concern]:
    """One concern for all of these, none where there are none. `{}` is where the names stand."""
    all_names = sorted(names)
    if not all_names:
        return
    spoken = ", ".join(all_names[:SPOKEN])
    if len(all_names) > SPOKEN:
        spoken += f" and {len(all_names) - SPOKEN} more"
    named = tuple(all_names[:NAMED])
    yield Concern(
        level=level,
        code=code,
        about=about,
        names=named,
        count=len(all_names),
        text=(one if len(all_names) == 1 else many).format(spoken),
        remedy=remedy,
        details={name: details[name] for name in named if details and details.get(name)},
    )


# ---------------------------------------------------------------------------------------------
# Hosts and VMs


def _hosts(cluster: Cluster, ha: HaStatus) -> Iterable[Concern]:
    if not cluster.nodes:
        yield Concern(
            level="error",
            code="no-hosts",
            about="cluster",
            text="there is no host",
            remedy="take one in (vorch node add)",
        )
        return
    states = {one.node: one.state for one in ha.nodes}
    sentences = {one.node: one.sentence for one in ha.nodes if one.sentence}
    cut = {name for name, state in states.items() if state is NodeState.FENCED}
    down = {name for name, state in states.items() if state is NodeState.DOWN}
    silent = set(cluster.silent) - cut - down
    yield from _several(
        "error",
        "hosts-silent",
        "node",
        silent,
        "host {} does not answer",
        "hosts {} do not answer",
        "see whether they have power and network, and whether libvirt runs there",
        {**cluster.silent, **sentences},
    )
    yield from _several(
        "error",
        "hosts-fenced",
        "node",
        cut,
        "host {} is cut off",
        "hosts {} are cut off",
        "mend it; it is taken back when it answers, or by vorch node unfence",
        sentences,
    )
    yield from _several(
        "warning",
        "hosts-down",
        "node",
        down,
        "host {} went down in good order",
        "hosts {} went down in good order",
        "switch it on when it is wanted again",
        sentences,
    )
    kept = {name for name, state in states.items() if state is NodeState.MAINTENANCE}
    yield from _several(
        "note",
        "hosts-maintenance",
        "node",
        kept,
        "host {} is in maintenance",
        "hosts {} are in maintenance",
        "end that when it is done (vorch node maintenance --off)",
    )
    cordoned = {name for name, node in cluster.nodes.items() if node.cordoned}
    yield from _several(
        "note",
        "hosts-cordoned",
        "node",
        cordoned - kept - cut,
        "host {} takes no new VMs",
        "hosts {} take no new VMs",
        "use it again when it is fit for that (vorch node uncordon)",
    )


def _vms(cluster: Cluster, ha: HaStatus) -> Iterable[Concern]:
    by_power: dict[Power, list[str]] = {}
    off, broken, details = [], [], {}
    for name, vm in cluster.vms.items():
        power = cluster.power(vm)
        by_power.setdefault(power, []).append(name)
        domain = cluster.domain(vm)
        if vm.wanted == "running" and power in (Power.STOPPED, Power.CRASHED):
            off.append(name)
        elif power is Power.PAUSED and domain is not None and "error" in domain.reason:
            broken.append(name)
            details[name] = "; ".join(status(cluster, vm).notes)
    looked_after = {one.settings.vm: one for one in ha.vms}
    stuck = [
        name
        for name, one in looked_after.items()
        if one.state in (VmState.ERROR, VmState.AWAITING_ROOM, VmState.AWAITING_FENCE)
    ]
    details |= {name: one.sentence for name, one in looked_after.items() if one.sentence}
    yield from _several(
        "error",
        "vms-stuck",
        "vm",
        stuck,
        "VM {} cannot be kept running",
        "VMs {} cannot be kept running",
        "the sentence of each says why, and what to do",
        details,
    )
    yield from _several(
        "error",
        "vms-broken",
        "vm",
        broken,
        "VM {} is paused by an error of its disks",
        "VMs {} are paused by errors of their disks",
        "see to the storage, then vorch resume",
        details,
    )
    yield from _several(
        "error",
        "vms-off",
        "vm",
        set(off) - set(stuck),
        "VM {} should run and is off",
        "VMs {} should run and are off",
        "start it (vorch start), or say that it is to be off (vorch stop)",
        details,
    )
    yield from _several(
        "warning",
        "vms-unknown",
        "vm",
        by_power.get(Power.UNKNOWN, ()),
        "nobody knows whether VM {} runs",
        "nobody knows whether VMs {} run",
        "their hosts do not answer",
    )


# ---------------------------------------------------------------------------------------------
# High availability


def _availability(ha: HaStatus) -> Iterable[Concern]:
    def one(level: Level, code: str, text: str, remedy: str = "") -> Concern:
        return Concern(level=level, code=code, about="ha", text=text, remedy=remedy)

    if not ha.vms:
        return
    if not ha.watched:
        yield one(
            "error",
            "ha-unwatched",
            "nobody watches over the VMs that are looked after",
            "run vorch serve on one machine or on several",
        )
    if ha.disarmed:
        yield one(
            "warning",
            "ha-disarmed",
            "high availability is disarmed",
            "arm it when you are done (vorch ha arm)",
        )
    drill = ha.drill
    if drill is None:
        yield one(
            "warning",
            "drill-never",
            "whether hosts can be fenced was never tried",
            "try it (vorch doctor --fencing)",
        )
    elif not drill.passed:
        wrong = ", ".join(check.name for check in drill.checks if check.level == "error")
        yield one(
            "error",
            "drill-failed",
            f"the last fencing drill failed ({wrong})",
            "mend that, and try it again (vorch doctor --fencing)",
        )
    elif ha.at - drill.at > OLD_DRILL_S:
        yield one(
            "warning",
            "drill-old",
            f"the last fencing drill was {(ha.at - drill.at) / 86400:.0f} days ago",
            "try it again (vorch doctor --fencing)",
        )
    if ha.spare is not None and ha.spare.text == spared.GONE:
        yield one(
            "warning",
            "no-spare",
            "there is no room for the loss of a host",
            "vorch capacity says what is missing; stop or move VMs, or add a host",
        )
    yield from _several(
        "warning",
        "rules-dropped",
        "rule",
        ha.dropped_rules,
        "rule {} is not in force",
        "rules {} are not in force",
        "they contradict others, or ask for what is not there",
        ha.dropped_rules,
    )


# ---------------------------------------------------------------------------------------------
# Storage and tasks


def _storage(seen: Seen) -> Iterable[Concern]:
    if "storage" in seen.silent:
        yield Concern(
            level="error",
            code="storage-silent",
            about="storage",
            text="Ceph does not answer",
            remedy="see whether a majority of its monitors run",
            details={"storage": seen.silent["storage"]},
        )
    for one in seen.storage:
        said = one.health
        if said.status == "HEALTH_OK":
            continue
        bad = said.status != "HEALTH_WARN"
        yield Concern(
            level="error" if bad else "warning",
            code="storage-error" if bad else "storage-warning",
            about="storage",
            names=(said.cluster,),
            count=max(1, len(said.checks)),
            text=f"Ceph says {said.status}: {'; '.join(said.checks.values()) or 'no reason'}",
            remedy="the list of its OSDs shows which are down; ceph health detail says more",
            details=dict(said.checks),
        )


def _pools(seen: Seen) -> Iterable[Concern]:
    free = {
        name: room.free_bytes / room.capacity_bytes
        for name, room in seen.rooms.items()
        if room.capacity_bytes
    }
    details = {name: f"{share:.0%} of it is free" for name, share in free.items()}
    full = {name for name, share in free.items() if share < POOL_FULL}
    low = {name for name, share in free.items() if share < POOL_LOW} - full
    remedy = "delete what is not needed (vorch trash purge), or add space"
    yield from _several(
        "error", "pools-full", "pool", full, "pool {} is full", "pools {} are full", remedy, details
    )
    yield from _several(
        "warning",
        "pools-low",
        "pool",
        low,
        "pool {} is nearly full",
        "pools {} are nearly full",
        remedy,
        details,
    )
    silent = {name.partition(" ")[2]: why for name, why in seen.silent.items() if " " in name}
    yield from _several(
        "error",
        "pools-silent",
        "pool",
        silent,
        "pool {} does not answer",
        "pools {} do not answer",
        "see whether its storage is there",
        silent,
    )


def _tasks(seen: Seen) -> Iterable[Concern]:
    stuck = {
        one.id: f"{one.verb} {one.subject}" for one in seen.tasks if one.state.value == "stuck"
    }
    yield from _several(
        "warning",
        "tasks-stuck",
        "task",
        stuck,
        "task {} was left unfinished",
        "tasks {} were left unfinished",
        "look at it, then vorch recover",
        stuck,
    )
