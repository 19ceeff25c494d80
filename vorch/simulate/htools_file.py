"""Read a cluster from the text format of Ganeti's htools, and the loads of its `-U` files.

Five sections with an empty line between them: groups, nodes, instances, tags of the cluster,
policies. What is mirrored to a second node by DRBD runs on those two only; what is on a local disk
stays where it is.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from vorch.decide.room.fleet import NO_NEEDS, Apart, Fleet, Guest, Host, Needs, Policy, Rule
from vorch.errors import Invalid
from vorch.simulate.placement_file import MOST, grouped, read_text

# Disk templates whose disks every node of the group reaches, or that have none.
_SHARED = {"ext", "rbd", "sharedfile", "gluster", "blockdev", "diskless"}
_EXCLUSIVE = "htools:iextags:"


def read_htools(path: Path, util: Path | None = None) -> Fleet:
    """The cluster in a file that `hbal -t` reads; `util`: the loads that `hbal -U` reads."""
    sections = [
        [line.split("|") for line in section.splitlines() if line.strip()]
        for section in read_text(path).replace("\r", "").split("\n\n")
    ]
    # Empty sections are two more newlines; the first three are never empty in a sound file.
    sections = [section for section in sections if section] if len(sections) > 5 else sections
    try:
        groups, nodes, instances = sections[:3]
        tags = [line[0] for line in sections[3]] if len(sections) > 3 else []
        policies = sections[4] if len(sections) > 4 else []
        fleet = _fleet(groups, nodes, instances, tags, policies)
    except (IndexError, ValueError) as exc:
        raise Invalid(
            f"cannot read {str(path)!r}: it is not the text format of htools ({exc}); write it with"
            " `hscan` or `gnt-cluster`'s backend"
        ) from exc
    return fleet if util is None else _loaded(fleet, util)


def _fleet(
    groups: list[list[str]],
    nodes: list[list[str]],
    instances: list[list[str]],
    tags: list[str],
    policies: list[list[str]],
) -> Fleet:
    group_names = {line[1]: line[0] for line in groups}
    ratios = {line[0]: _number(line[4]) for line in policies if len(line) > 4}
    # The policy without a name is the cluster's.
    ratio = ratios.get("", 4.0)
    taken: dict[str, int] = {}
    for line in instances:
        if "offline" not in line[4].lower():
            taken[line[6]] = taken.get(line[6], 0) + _whole(line[1])
    several = len(group_names) > 1
    hosts = tuple(
        _host(line, taken.get(line[0], 0), group_names, ratios, several=several) for line in nodes
    )
    group_of = {line[0]: group_names.get(line[8], line[8]) for line in nodes}
    prefixes = tuple(tag.removeprefix(_EXCLUSIVE) for tag in tags if tag.startswith(_EXCLUSIVE))
    guests = []
    apart: dict[str, list[str]] = {}
    for line in instances:
        if "offline" in line[4].lower():
            continue
        guests.append(_guest(line, group_of if several else {}))
        for tag in line[9].split(",") if len(line) > 9 and line[9] else ():
            if any(tag.startswith(f"{prefix}:") for prefix in prefixes):
                apart.setdefault(tag, []).append(line[0])
    rules: list[Rule] = grouped("apart", Apart, apart)
    return Fleet(
        hosts=hosts, guests=tuple(guests), rules=tuple(rules), policy=Policy(cpu_ratio=ratio)
    )


def _host(
    line: list[str],
    taken: int,
    group_names: dict[str, str],
    ratios: dict[str, float],
    *,
    several: bool,
) -> Host:
    total, own, free = (_whole(word) for word in line[1:4])
    group = group_names.get(line[8], line[8])
    tags = {tag for tag in (line[10].split(",") if len(line) > 10 else ()) if tag}
    return Host(
        name=line[0],
        cpus=_whole(line[6]),
        memory_mib=total,
        reserve_mib=own,
        # Memory that neither the node nor an instance accounts for is gone all the same.
        other_memory_mib=max(0, total - own - free - taken),
        cpu_ratio=ratios.get(group),
        tags=frozenset(tags | ({f"group:{group}"} if several else set())),
        closed="it is offline" if line[7] == "Y" else "",
    )


def _guest(line: list[str], group_of: dict[str, str]) -> Guest:
    template = line[8] if len(line) > 8 else "ext"
    needs = NO_NEEDS
    if line[6] in group_of:
        needs = Needs(tags=(f"group:{group_of[line[6]]}",))
    if template == "drbd" and line[7]:
        needs = dataclasses.replace(needs, hosts=tuple(sorted((line[6], line[7]))))
    elif template not in _SHARED:
        needs = dataclasses.replace(needs, hosts=(line[6],))
    return Guest(
        name=line[0],
        memory_mib=_whole(line[1]),
        vcpus=_whole(line[3]),
        host=line[6],
        # What is not to be balanced by itself is not recovered by itself either.
        ha=line[5] != "N",
        moves="live" if template in _SHARED or template == "drbd" else "pinned",
        needs=needs,
    )


def _whole(word: str) -> int:
    return int(_number(word))


def _number(word: str) -> float:
    value = float(word)
    if not 0 <= value <= MOST:
        raise ValueError(f"{word!r} is no number from 0 to {MOST}")
    return value


def _loaded(fleet: Fleet, util: Path) -> Fleet:
    """`-U` has CPU, memory, disk and network by instance; CPU in shares of the mean node."""
    mean = sum(host.cpus for host in fleet.hosts) / max(1, len(fleet.hosts))
    loads: dict[str, tuple[float, float]] = {}
    for line in read_text(util).splitlines():
        words = line.split()
        if not words:
            continue
        try:
            loads[words[0]] = (_number(words[1]) * mean, _number(words[4]) * 10)
        except (IndexError, ValueError) as exc:
            raise Invalid(
                f"cannot read {str(util)!r}: {line!r} is not a name and four numbers; write it as"
                " `hbal -U` has it"
            ) from exc
    guests = tuple(
        dataclasses.replace(guest, cpu_load=loads[guest.name][0], net_load=loads[guest.name][1])
        if guest.name in loads
        else guest
        for guest in fleet.guests
    )
    return dataclasses.replace(fleet, guests=guests)
