"""Read a cluster for decisions about room from a file: `vorch-placement/1`, plain or gzipped.

The format knows hosts, sizes, loads and groups that are kept apart or together; storage is shared.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from vorch.decide.room.fleet import (
    HOST,
    NO_NEEDS,
    Apart,
    Fleet,
    Guest,
    Host,
    Needs,
    Policy,
    Rule,
    Spread,
    Together,
)
from vorch.errors import Invalid, NotFound

FORMAT = "vorch-placement/1"
_GZIP = b"\x1f\x8b"
# What a file may hold when it is unpacked: some hundred thousand guests.
LIMIT_BYTES = 1024**3


def read_placement(path: Path) -> Fleet:
    """The cluster in a file."""
    text = read_text(path)
    try:
        document = json.loads(text)
    except ValueError as exc:
        raise Invalid(
            f"cannot read {str(path)!r}: it is not JSON ({exc}); give a file of the format {FORMAT}"
        ) from exc
    try:
        return fleet_of(document)
    except (KeyError, TypeError, AttributeError, ValueError) as exc:
        raise Invalid(
            f"cannot read {str(path)!r}: it is not as {FORMAT} has it"
            f" ({type(exc).__name__}: {exc}); compare it with a sound one"
        ) from exc


def read_text(path: Path) -> str:
    """The text of a file that may be gzipped; judged by its first bytes, not by its name."""
    try:
        raw = path.read_bytes()
        if raw.startswith(_GZIP):
            with gzip.open(path) as packed:
                raw = packed.read(LIMIT_BYTES + 1)
        if len(raw) > LIMIT_BYTES:
            raise Invalid(
                f"cannot read {str(path)!r}: it holds more than {LIMIT_BYTES // 1024**2} MiB; give"
                " a smaller one"
            )
        return raw.decode()
    except FileNotFoundError as exc:
        raise NotFound(f"cannot read {str(path)!r}: there is no such file; check its name") from exc
    except (OSError, EOFError, UnicodeDecodeError) as exc:
        raise Invalid(
            f"cannot read {str(path)!r}: {exc}; give a text file, plain or gzipped"
        ) from exc


def fleet_of(document: Mapping[str, Any]) -> Fleet:
    """The cluster in a document of that format."""
    if document.get("format") != FORMAT:
        raise Invalid(
            f"cannot use that cluster: its format is {document.get('format')!r}, and {FORMAT!r} is"
            " known; give a file of that format"
        )
    needs: dict[tuple[str, ...], Needs] = {}
    return Fleet(
        hosts=tuple(
            Host(
                name=node["name"],
                cpus=node["cpus"],
                memory_mib=node["mem_mib"],
                reserve_mib=node.get("reserved_mem_mib", 0),
                tags=frozenset(node.get("tags", ())),
                closed=node.get("closed", ""),
            )
            for node in document["nodes"]
        ),
        guests=tuple(_guest(vm, needs) for vm in document["vms"]),
        rules=(
            *grouped("apart", Apart, _groups(document["vms"], "anti_affinity")),
            *grouped("together", Together, _groups(document["vms"], "affinity")),
            *_spreads(document.get("spreads", ())),
        ),
        policy=Policy(cpu_ratio=float(document.get("policy", {}).get("cpu_ratio", 4.0))),
    )


def _guest(vm: Mapping[str, Any], needs: dict[tuple[str, ...], Needs]) -> Guest:
    load = vm.get("load") or {}
    tags = tuple(sorted(vm.get("require_tags", ())))
    return Guest(
        name=vm["name"],
        memory_mib=vm["mem_mib"],
        vcpus=vm["vcpus"],
        cpu_load=load.get("cpu"),
        net_load=load.get("net", 0.0),
        dirty_mib_s=vm.get("dirty_mib_s"),
        host=vm.get("node") or "",
        ha=vm.get("ha", True),
        needs=needs.setdefault(tags, Needs(tags=tags)) if tags else NO_NEEDS,
    )


def _groups(vms: Iterable[Mapping[str, Any]], field: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for vm in vms:
        for name in vm.get(field, ()):
            found.setdefault(name, []).append(vm["name"])
    return found


def grouped(what: str, kind: type[Apart | Together], groups: Mapping[str, list[str]]) -> list[Rule]:
    """Rules of groups by name; a group of one is none."""
    return [
        kind(name=f"{what}:{name}", guests=tuple(groups[name]))
        for name in sorted(groups)
        if len(groups[name]) > 1
    ]


def _spreads(found: Iterable[Mapping[str, Any]]) -> list[Rule]:
    return [
        Spread(
            name=f"spread:{one['name']}",
            guests=tuple(one["vms"]),
            over=one["over"],
            max_skew=one.get("max_skew", 1),
        )
        for one in found
    ]


def document_of(fleet: Fleet, name: str = "") -> dict[str, Any]:
    """A fleet as a document of the format, as far as the format goes."""
    groups: dict[str, dict[str, list[str]]] = {"apart": {}, "together": {}}
    spreads = []
    for rule in fleet.rules:
        if isinstance(rule, Spread):
            spreads.append(
                {
                    "name": rule.name.removeprefix("spread:"),
                    "vms": list(rule.guests),
                    "over": rule.over,
                    "max_skew": rule.max_skew,
                }
            )
        elif rule.hard and rule.over == HOST:
            what = "apart" if isinstance(rule, Apart) else "together"
            for guest in rule.guests:
                groups[what].setdefault(guest, []).append(rule.name.removeprefix(f"{what}:"))
    document: dict[str, Any] = {
        "format": FORMAT,
        "name": name,
        "policy": {"cpu_ratio": fleet.policy.cpu_ratio},
        "nodes": [
            {
                "name": host.name,
                "cpus": host.cpus,
                "mem_mib": host.memory_mib,
                "reserved_mem_mib": host.reserve_mib + host.other_memory_mib,
                "tags": sorted(host.tags),
                **({"closed": host.closed} if host.closed else {}),
            }
            for host in fleet.hosts
        ],
        "vms": [
            {
                "name": guest.name,
                "vcpus": guest.vcpus,
                "mem_mib": guest.memory_mib + guest.overhead_mib,
                "load": {"cpu": guest.cpu_load, "net": guest.net_load},
                "node": guest.host or None,
                "anti_affinity": groups["apart"].get(guest.name, []),
                "affinity": groups["together"].get(guest.name, []),
                **({"require_tags": list(guest.needs.tags)} if guest.needs.tags else {}),
                **({} if guest.ha else {"ha": False}),
            }
            for guest in fleet.guests
        ],
    }
    return document | ({"spreads": spreads} if spreads else {})
