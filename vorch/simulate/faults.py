"""Random schedules of faults: made by a number, played through, judged, and cut down to the least.

A schedule is a scenario with more kinds of commands, so what failed is a file that plays again.
"""

from __future__ import annotations

import dataclasses
import functools
import gc
import multiprocessing
import random
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from vorch.availability import HaPolicy, HaVm
from vorch.config import Settings
from vorch.simulate.judge import Violation
from vorch.simulate.player import ANSWER_S, Played, play
from vorch.simulate.scenario import Batch, Faults, Host, Scenario, Service

HOUR_S = 3600.0
# Everything is mended by then, and the rest of the time is there to come to rest.
MENDED_AT_S = 2900.0
FIRST_FAULT_AT_S = 60.0
# How many things go wrong in an hour.
FEWEST, MOST = 4, 12
CUTTINGS = 200
# Seeds that a process is given at once.
CHUNK = 8

Op = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A seed that came to what never may be, and the shortest schedule found that does so, too."""

    seed: int
    what: str
    scenario: Scenario

    @property
    def script(self) -> dict[str, Any]:
        """The schedule as a file of `vorch simulate ha`."""
        return as_file(self.scenario)


def schedule(seed: int, *, hosts: int = 5, vms: int = 20) -> Scenario:
    """One hour of trouble, the same for the same numbers."""
    chance = random.Random(f"{seed}/{hosts}/{vms}")  # noqa: S311 - it has to be foreseeable
    names = [f"h{number}" for number in range(1, hosts + 1)]
    services = {f"vm:{number:03d}": chance.choice(names) for number in range(1, vms + 1)}
    timed: list[tuple[float, Op]] = []
    for _ in range(chance.randint(FEWEST, MOST)):
        timed += _trouble(chance, names, sorted(services))
    timed += [(MENDED_AT_S, op) for op in _mended(names)]
    timed.sort(key=lambda one: one[0])
    return _scenario(f"seed-{seed}", chance, names, services, timed)


def _scenario(
    name: str,
    chance: random.Random,
    names: list[str],
    services: Mapping[str, str],
    timed: list[tuple[float, Op]],
) -> Scenario:
    vm_names = {sid: sid.replace(":", "-") for sid in services}
    return Scenario(
        name=name,
        hosts={
            host: Host(
                name=host,
                powered=True,
                connected=True,
                cpus=64,
                memory_mib=65536,
                watches=True,
                # Where nothing else is set up, the addresses of the clients have to do.
                bmc=chance.choice(["well", "well", ""]),
                address_known=chance.random() < 0.7,
            )
            for host in names
        },
        policy=HaPolicy(silent_share=chance.choice([0.5, 0.5, 1.0])),
        rules=(),
        services={
            sid: Service(
                id=sid,
                vm=vm_names[sid],
                node=node,
                settings=HaVm(
                    vm=vm_names[sid], max_restart=100, isolation=chance.choice(ISOLATION)
                ),
                faults=Faults(),
            )
            for sid, node in services.items()
        },
        steps=tuple(Batch(at=at, ops=(op,)) for at, op in timed),
        ends_at=HOUR_S,
        names=vm_names,
        seeded_hosts={},
        seeded_services={},
        running=True,
    )


ISOLATION: tuple[Any, ...] = ("leave", "leave", "leave", "fence")


def _trouble(
    chance: random.Random, hosts: list[str], services: list[str]
) -> Iterator[tuple[float, Op]]:
    """One thing that goes wrong, or that a person does, and mostly its end."""
    at = round(chance.uniform(FIRST_FAULT_AT_S, MENDED_AT_S - 400.0), 1)
    until = round(at + chance.choice([3.0, 10.0, 40.0, 90.0, 300.0]), 1)
    host, service = chance.choice(hosts), chance.choice(services)
    match chance.choice(KINDS):
        case "power":
            yield at, {"op": "power", "node": host, "to": "off"}
            yield until, {"op": "power", "node": host, "to": "on"}
        case "network":
            which = chance.choice(["both", "management", "storage"])
            yield at, {"op": "network", "node": host, "which": which, "to": "off"}
            yield until, {"op": "network", "node": host, "which": which, "to": "on"}
        case "hang":
            what = chance.choice(["host", "libvirt"])
            yield at, {"op": "hang", "node": host, "what": what, "to": "on"}
            yield until, {"op": "hang", "node": host, "what": what, "to": "off"}
        case "bmc":
            yield at, {"op": "bmc", "node": host, "to": chance.choice(["hangs", "fails", "lies"])}
        case "mons":
            yield at, {"op": "mons", "to": "off"}
            yield until, {"op": "mons", "to": "on"}
        case "osds":
            yield at, {"op": "osds", "to": "off"}
            yield until, {"op": "osds", "to": "on"}
        case "clock":
            yield from _clock(chance, at, until, host)
        case "sleeper":
            yield from _sleeper(chance, at, host, hosts)
        case "newcomer":
            # It has moved there while it ran, so its client is another one than at its start.
            yield at, {"op": "move", "service": service, "to": host, "live": True}
            yield at + 30.0, {"op": "network", "node": host, "which": "management", "to": "off"}
            yield at + 200.0, {"op": "network", "node": host, "which": "management", "to": "on"}
        case "vorch":
            yield at, _on_the_way(chance)
            # So that there is something on the way.
            yield at, {"op": "power", "node": host, "to": "off"}
            yield until, {"op": "power", "node": host, "to": "on"}
        case "calls":
            how = chance.choice(["lost", "refused", "slow"])
            target = chance.choice([f"host:{host}", "state", "pool:vms"])
            times = chance.randint(1, 4)
            yield at, {"op": "calls", "target": target, "how": how, "times": times}
            yield at, {"op": "move", "service": service, "to": host, "live": True}
        case "guest":
            yield at, {"op": "guest_dies", "service": service}
        case "person":
            yield from _person(chance, at, until, host, service)


KINDS = (
    "power",
    "power",
    "network",
    "network",
    "hang",
    "bmc",
    "mons",
    "vorch",
    "vorch",
    "sleeper",
    "newcomer",
    "clock",
    "osds",
    "calls",
    "guest",
    "person",
    "person",
)


def _on_the_way(chance: random.Random) -> Op:
    """The one that leads dies or stands still, at a point of a plan or before any call."""
    where = chance.choice(list(PLACES))
    laid: Op = {"where": where, "after": chance.randint(0, PLACES[where])}
    if chance.random() < 0.5:
        return {"op": "crash", **laid}
    return {"op": "pause", **laid, **_nap(chance, [5.0, 20.0, 60.0])}


# Of how many such places one is chosen.
PLACES = {"plan": 30, "act": 60, "call": 400}


def _nap(chance: random.Random, seconds: list[float]) -> Op:
    return {"seconds": chance.choice(seconds), "clock_stands": chance.random() < 0.5}


def _clock(chance: random.Random, at: float, until: float, host: str) -> Iterator[tuple[float, Op]]:
    """A host's clock jumps, or runs too fast or too slow."""
    ahead_s = round(chance.choice([-1, 1]) * chance.choice([0.5, 5.0, 30.0, 120.0]), 1)
    gains = chance.choice([0.0, 0.0, 0.01, -0.01])
    yield at, {"op": "clock", "node": host, "ahead_s": ahead_s, "gains": gains}
    yield until, {"op": "clock", "node": host, "ahead_s": 0.0}


def _sleeper(
    chance: random.Random, at: float, host: str, hosts: list[str]
) -> Iterator[tuple[float, Op]]:
    """The leader falls asleep over a failover; when it wakes up, all is different."""
    yield at, {"op": "power", "node": host, "to": "off"}
    where = chance.choice(list(PLACES))
    # Before the fence, or over the first starts.
    after = chance.randint(0, PLACES[where] // 4)
    yield at, {"op": "pause", "where": where, "after": after, **_nap(chance, [60.0, 120.0, 180.0])}
    yield round(at + chance.uniform(15.0, 60.0), 1), {"op": "power", "node": host, "to": "on"}
    other, since = chance.choice(hosts), round(at + chance.uniform(20.0, 90.0), 1)
    yield since, {"op": "maintenance", "node": other, "to": "on"}
    yield since + 200.0, {"op": "maintenance", "node": other, "to": "off"}


def _person(
    chance: random.Random, at: float, until: float, host: str, service: str
) -> Iterator[tuple[float, Op]]:
    match chance.choice(["move", "request", "maintenance", "shutdown"]):
        case "move":
            yield at, {"op": "move", "service": service, "to": host, "live": chance.random() < 0.8}
        case "request":
            yield at, {"op": "request", "service": service, "state": "stopped"}
            if chance.random() < 0.7:
                yield until, {"op": "request", "service": service, "state": "started"}
        case "maintenance":
            yield at, {"op": "maintenance", "node": host, "to": "on"}
            yield until, {"op": "maintenance", "node": host, "to": "off"}
        case _:
            yield at, {"op": "shutdown", "node": host}
            yield max(until, at + 30.0), {"op": "power", "node": host, "to": "on"}


def _mended(hosts: list[str]) -> Iterator[Op]:
    yield {"op": "mons", "to": "on"}
    yield {"op": "osds", "to": "on"}
    yield {"op": "calls", "target": "", "how": "well", "times": 0}
    for host in hosts:
        yield {"op": "bmc", "node": host, "to": "well"}
        yield {"op": "hang", "node": host, "what": "host", "to": "off"}
        yield {"op": "hang", "node": host, "what": "libvirt", "to": "off"}
        yield {"op": "maintenance", "node": host, "to": "off"}
        yield {"op": "clock", "node": host, "ahead_s": 0.0}
    # Twice: a host may be switched off by a fence that came late.
    for host in hosts:
        yield {"op": "power", "node": host, "to": "on"}


def settings() -> Settings:
    return Settings(uri="memory:", ha_answer_s=ANSWER_S)


def play_seed(seed: int, *, hosts: int = 5, vms: int = 20) -> Failure | None:
    """Play a seed; None when nothing happened that never may."""
    scenario = schedule(seed, hosts=hosts, vms=vms)
    what = trouble_with(scenario)
    return None if what is None else Failure(seed=seed, what=what, scenario=_cut(scenario, what))


def play_seeds(
    seeds: Iterable[int],
    *,
    hosts: int = 5,
    vms: int = 20,
    jobs: int = 1,
    told: Callable[[int], None] = lambda played: None,
) -> Failure | None:
    """The first of them, in their order, that comes to what never may be. `jobs`: processes.

    `told`: how many of them have come to nothing of the kind, after each.
    """
    play_one = functools.partial(play_seed, hosts=hosts, vms=vms)
    if jobs == 1:
        return _first(map(play_one, seeds), told)
    # Nothing is shared with what the calling process may have open.
    with ProcessPoolExecutor(
        jobs, mp_context=multiprocessing.get_context("spawn"), initializer=_leave_ending
    ) as pool:
        try:
            return _first(pool.map(play_one, seeds, chunksize=CHUNK), told)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _first(came: Iterable[Failure | None], told: Callable[[int], None]) -> Failure | None:
    for number, found in enumerate(came, 1):
        if found is not None:
            return found
        told(number)
    return None


def _leave_ending() -> None:
    """A Ctrl-C reaches every process of a terminal. The one that asked them ends the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def trouble_with(scenario: Scenario) -> str | None:
    """What went wrong in it that never may, if anything."""
    try:
        with _collecting_later():
            played = play(scenario, settings(), mends=True)
    except Violation as exc:
        return exc.message
    return next(iter(unrest(played)), None)


@contextmanager
def _collecting_later() -> Iterator[None]:
    """What an hour makes goes with it; to look through it all the while takes a seventh of it."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def unrest(played: Played) -> Iterator[str]:
    """What is not as it was asked for, long after everything was mended."""
    for sid, one in sorted(played.result["services"].items()):
        wanted = "running" if one["requested"] == "started" else "stopped"
        if one["state"] != wanted:
            yield f"{sid} is {one['state']} in the end, and should be {wanted}"
        elif (one["running_on"] is not None) is not (wanted == "running"):
            yield f"{sid} is {wanted} by its record, and runs on {one['running_on']}"
        elif one["running_on"] not in (None, one["node"]):
            yield f"{sid} is recorded on {one['node']}, and runs on {one['running_on']}"


def _cut(scenario: Scenario, what: str) -> Scenario:
    """Leave out what is not needed for it, as far as that is found out quickly."""
    left = CUTTINGS
    number = 0
    while number < len(scenario.steps) and left:
        step = scenario.steps[number]
        if step.at <= FIRST_FAULT_AT_S or step.at >= MENDED_AT_S:
            number += 1
            continue
        left -= 1
        shorter = dataclasses.replace(
            scenario, steps=(*scenario.steps[:number], *scenario.steps[number + 1 :])
        )
        if trouble_with(shorter) is not None:
            scenario = shorter
        else:
            number += 1
    return scenario


def as_file(scenario: Scenario) -> dict[str, Any]:
    return {
        "format": "ha-scenario/1",
        "name": scenario.name,
        "cluster": {
            "nodes": {
                name: {
                    "power": "on",
                    "network": "on",
                    "bmc": host.bmc,
                    "address_known": host.address_known,
                }
                for name, host in scenario.hosts.items()
            },
            "shutdown_policy": scenario.policy.shutdown,
            "silent_share": scenario.policy.silent_share,
        },
        "services": {
            sid: {
                "type": "vm",
                "node": one.node,
                "requested": "started",
                "max_restart": one.settings.max_restart,
                "isolation": one.settings.isolation,
            }
            for sid, one in scenario.services.items()
        },
        "steps": [{"at": step.at, "ops": [dict(op) for op in step.ops]} for step in scenario.steps],
        "ends_at": scenario.ends_at,
        "running": scenario.running,
    }
