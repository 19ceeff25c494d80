"""Read a scenario file (`ha-scenario/1`): hosts, services and timed commands, as values.

Names are made into names of vorch here. Services are handled in the order of their ids as text, so
that order is kept.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vorch.availability import HaPolicy, HaVm, NodeChoice, Requested, Rule
from vorch.errors import Invalid, NotFound
from vorch.model import MIB, Disk, Vm, Volume

FORMAT = "ha-scenario/1"
POOL = "vms"
# Room is no limit in this format, only how full a host is matters. So hosts are so much larger.
ROOM = 64
# Of hosts and services that are given without sizes.
NODE_CPUS, NODE_MEMORY_MIB, VM_MEMORY_MIB = 64, 65536, 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    name: str
    powered: bool
    connected: bool
    cpus: int
    memory_mib: int
    # Else it has no vorch of its own and takes no services.
    watches: bool
    bmc: str = "well"
    # Its address on the storage network is in its record.
    address_known: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """What a test double does wrong."""

    start_failures: int = 0
    move_failures: int = 0
    never_stops: bool = False
    only_on: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    id: str
    vm: str
    node: str
    settings: HaVm
    memory_mib: int = VM_MEMORY_MIB
    vcpus: int = 1
    faults: Faults = field(default_factory=Faults)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Commands of one instant."""

    at: float
    ops: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    name: str
    hosts: dict[str, Host]
    policy: HaPolicy
    rules: tuple[Rule, ...]
    services: dict[str, Service]
    steps: tuple[Batch, ...]
    ends_at: float
    # The name in vorch of each service that there is at any time.
    names: dict[str, str]
    # What an earlier leader left: hosts that it was fencing, services that it gave up or moved.
    seeded_hosts: dict[str, str]
    seeded_services: dict[str, Mapping[str, Any]]
    # What is to be started runs from the beginning.
    running: bool = False


def read_scenario(path: str | Path) -> Scenario:
    """The scenario in a file. `Invalid` says what in it makes no sense."""
    try:
        body = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NotFound(f"cannot read {str(path)!r}: there is no such file") from None
    except (OSError, UnicodeDecodeError, ValueError) as exc:
        raise Invalid(f"cannot read {str(path)!r}: {exc}; mend it") from exc
    return scenario_of(body, str(path))


def scenario_of(body: Any, where: str = "a scenario") -> Scenario:
    if not isinstance(body, dict) or body.get("format") != FORMAT:
        raise Invalid(f"cannot play {where}: it does not say that its format is {FORMAT!r}")
    try:
        return _scenario(body)
    except (KeyError, TypeError, AttributeError, ValueError) as exc:
        raise Invalid(
            f"cannot play {where}: {type(exc).__name__}: {exc}; see what the format asks for"
        ) from exc


def _scenario(body: Mapping[str, Any]) -> Scenario:
    cluster, placement = body["cluster"], body.get("placement") or {}
    hosts = {name: _host(name, one) for name, one in cluster["nodes"].items()}
    steps = tuple(
        Batch(at=float(step["at"]), ops=tuple(step["ops"])) for step in body.get("steps", ())
    )
    added = [op["service"] for step in steps for op in step.ops if op["op"] == "add"]
    names = _names({*body["services"], *added})
    rules = tuple(_rules(placement, names))
    groups = _groups(placement)
    manager = body.get("initial_manager") or {}
    scheduler = cluster.get("scheduler") or {}
    return Scenario(
        name=str(body.get("name", "scenario")),
        hosts=hosts,
        policy=HaPolicy(
            shutdown=cluster.get("shutdown_policy") or "conditional",
            balance_on_start=bool(scheduler.get("balance_on_start")),
            silent_share=float(cluster.get("silent_share") or 0.5),
        ),
        rules=rules,
        services={
            sid: _service(sid, one, names, groups, hosts) for sid, one in body["services"].items()
        },
        steps=steps,
        ends_at=float(body.get("ends_at") or (steps[-1].at if steps else 0) + 500),
        names=names,
        seeded_hosts=dict(manager.get("nodes") or {}),
        seeded_services=dict(manager.get("services") or {}),
        running=bool(body.get("running")),
    )


def _host(name: str, one: Mapping[str, Any]) -> Host:
    return Host(
        name=name,
        powered=one.get("power") == "on",
        connected=one.get("network") == "on",
        cpus=int(one.get("cpus") or NODE_CPUS) * ROOM,
        memory_mib=int(one["memory"]) // MIB * ROOM
        if one.get("memory")
        else NODE_MEMORY_MIB * ROOM,
        watches=one.get("runs_ha", True),
        bmc=one.get("bmc", "well"),
        address_known=one.get("address_known", True),
    )


def _names(ids: set[str]) -> dict[str, str]:
    """Names that sort as the ids do."""
    plain = {sid: re.sub(r"[^a-z0-9]+", "-", sid.lower()).strip("-") for sid in ids}
    in_order = [plain[sid] for sid in sorted(ids)]
    if in_order == sorted(set(in_order)):
        return plain
    return {sid: f"s{number:04d}-{plain[sid]}" for number, sid in enumerate(sorted(ids))}


def _choices(nodes: Any) -> tuple[NodeChoice, ...]:
    if isinstance(nodes, Mapping):
        nodes = [{"node": name, "priority": priority} for name, priority in nodes.items()]
    return tuple(
        NodeChoice(node=one["node"], priority=int(one.get("priority") or 0)) for one in nodes
    )


def _rules(placement: Mapping[str, Any], names: Mapping[str, str]) -> list[Rule]:
    rules = [
        Rule(
            name=one["name"],
            kind="nodes",
            vms=tuple(names[sid] for sid in one["services"] if sid in names),
            nodes=_choices(one["nodes"]),
            strict=bool(one.get("strict")),
        )
        for one in placement.get("node_rules") or ()
    ]
    rules += [
        Rule(
            name=one["name"],
            kind=one["kind"],
            vms=tuple(names[sid] for sid in one["services"] if sid in names),
        )
        for one in placement.get("service_rules") or ()
    ]
    return rules


def _groups(placement: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    groups = placement.get("groups") or {}
    if isinstance(groups, Mapping):
        return dict(groups)
    return {one["name"]: one for one in groups}


def _service(
    sid: str,
    one: Mapping[str, Any],
    names: Mapping[str, str],
    groups: Mapping[str, Mapping[str, Any]],
    hosts: Mapping[str, Host],
) -> Service:
    group = groups.get(one.get("group") or "", {})
    load, faults = one.get("load") or {}, one.get("faults") or {}
    kind = one.get("type", "vm")
    settings = HaVm(
        vm=names[sid],
        requested=Requested(one.get("requested") or "disabled"),
        nodes=_choices(group.get("nodes") or ()),
        restricted=bool(group.get("restricted")) and bool(group.get("nodes")),
        failback=bool(one.get("failback", True)) and not group.get("nofailback"),
        max_restart=int(one.get("max_restart", 1)),
        max_relocate=int(one.get("max_relocate", 1)),
        moves="live" if kind == "vm" else "cold",
        isolation=one.get("isolation") or "leave",
    )
    memory_mib, vcpus = sizes(load, hosts.get(one["node"]))
    return Service(
        id=sid,
        vm=names[sid],
        node=one["node"],
        settings=settings,
        memory_mib=memory_mib,
        vcpus=vcpus,
        faults=Faults(
            start_failures=int(faults.get("start_failures_per_cycle") or 0),
            move_failures=int(faults.get("move_failures_per_cycle") or 0),
            never_stops=bool(faults.get("stop_always_fails")),
            only_on=faults.get("start_and_move_faults_only_on") or "",
        ),
    )


def sizes(load: Mapping[str, Any], host: Host | None) -> tuple[int, int]:
    """(MiB, vCPUs): what is measured wins over what is configured. No CPU limit: a whole host."""
    memory = load.get("memory_used") or load.get("memory")
    cpus = load.get("cpu_used") or load.get("cpus")
    if cpus == 0:
        cpus = (host.cpus if host is not None else NODE_CPUS * ROOM) // ROOM
    memory_mib = max(16, int(memory) // MIB) if memory else VM_MEMORY_MIB
    return memory_mib, min(512, max(1, round(float(cpus or 1))))


def vm_of(name: str, node: str, number: int, memory_mib: int, vcpus: int) -> Vm:
    """A VM with one disk."""
    volume = Volume(pool=POOL, name=f"{name}.root")
    return Vm(
        name=name,
        id=f"00000000-0000-4000-8000-{number:012x}",
        node=node,
        vcpus=vcpus,
        vcpus_max=512,
        memory_mib=memory_mib,
        memory_max_mib=memory_mib,
        graphics=False,
        disks=(Disk(name="root", target="vda", volume=volume, size_bytes=MIB, boot=1),),
    )
