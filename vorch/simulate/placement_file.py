"""Read a cluster for decisions about room from a file: `vorch-placement/1`, plain or gzipped.

The format knows hosts, sizes, loads and groups that are kept apart or together; storage is shared.
docs/placement.md has its fields.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

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
from vorch.errors import Invalid, NotFound, VorchError

T = TypeVar("T")
FORMAT = "vorch-placement/1"
_GZIP = b"\x1f\x8b"
# What a file may hold when it is unpacked: some hundred thousand guests.
LIMIT_BYTES = 1024**3
# No size or load in it is larger.
MOST = 10**12
_UNKNOWN: dict[str, Any] = {}


def read_placement(path: Path) -> Fleet:
    """The cluster in a file."""
    return checked(path, fleet_of, read_document(path))


def read_document(path: Path) -> dict[str, Any]:
    """The JSON object in a file that may be gzipped."""
    text = read_text(path)
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise Invalid(
            f"cannot read {str(path)!r}: it is not JSON ({exc}); give a file of the format {FORMAT}"
        ) from exc
    if not isinstance(document, dict):
        raise Invalid(
            f"cannot read {str(path)!r}: it holds no JSON object; give a file of the format"
            f" {FORMAT}"
        )
    return document


def checked(path: Path, make: Callable[[dict[str, Any]], T], document: dict[str, Any]) -> T:
    """What is made of a file's document; what is wrong with that names the file."""
    try:
        return make(document)
    except VorchError as exc:
        raise Invalid(f"cannot read {str(path)!r}: {exc.message}") from exc
    except (LookupError, TypeError, AttributeError, ValueError, OverflowError) as exc:
        what = f"{exc.args[0]!r} is missing" if isinstance(exc, KeyError) else str(exc)
        raise Invalid(
            f"cannot read {str(path)!r}: it is not as its format has it ({what}); compare it with a"
            " sound one"
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
    needs: dict[Needs, Needs] = {}
    policy = document.get("policy") or {}
    return Fleet(
        hosts=tuple(_host(node) for node in document["nodes"]),
        guests=tuple(_guest(vm, needs) for vm in document["vms"]),
        rules=(
            *grouped("apart", Apart, _groups(document["vms"], "anti_affinity")),
            *grouped("together", Together, _groups(document["vms"], "affinity")),
            *_spreads(document.get("spreads") or ()),
        ),
        policy=Policy(cpu_ratio=_number(policy.get("cpu_ratio", 4.0), "cpu_ratio", least=0.01)),
    )


def _host(node: Mapping[str, Any]) -> Host:
    ratio = node.get("cpu_ratio")
    return Host(
        name=_text(node["name"], "the name of a node"),
        cpus=_whole(node["cpus"], "cpus"),
        memory_mib=_whole(node["mem_mib"], "mem_mib"),
        reserve_mib=_whole(node.get("reserved_mem_mib", 0), "reserved_mem_mib"),
        cpu_ratio=None if ratio is None else _number(ratio, "cpu_ratio", least=0.01),
        tags=frozenset(_words(node.get("tags"), "tags")),
        hypervisor=_hypervisor(node.get("hypervisor")),
        closed=_text(node.get("closed") or "", "closed"),
    )


def _guest(vm: Mapping[str, Any], needs: dict[Needs, Needs]) -> Guest:
    load = vm.get("load") or _UNKNOWN
    cpu, net, dirty = load.get("cpu"), load.get("net"), vm.get("dirty_mib_s")
    moves = vm.get("moves", "live")
    if moves not in ("live", "cold", "pinned"):
        raise Invalid(f"moves is {moves!r}; write live, cold or pinned")
    wanted = NO_NEEDS
    hypervisor = _hypervisor(vm.get("hypervisor"))
    if vm.get("require_tags") or vm.get("hosts") is not None or hypervisor:
        hosts = vm.get("hosts")
        wanted = Needs(
            hypervisor=hypervisor,
            tags=tuple(sorted(_words(vm.get("require_tags"), "require_tags"))),
            hosts=None if hosts is None else tuple(sorted(_words(hosts, "hosts"))),
        )
        wanted = needs.setdefault(wanted, wanted)
    return Guest(
        name=_text(vm["name"], "the name of a VM"),
        memory_mib=_whole(vm["mem_mib"], "mem_mib"),
        vcpus=_whole(vm["vcpus"], "vcpus"),
        cpu_load=None if cpu is None else _number(cpu, "load.cpu"),
        net_load=0.0 if net is None else _number(net, "load.net"),
        dirty_mib_s=None if dirty is None else _number(dirty, "dirty_mib_s"),
        host=_text(vm.get("node") or "", "the node of a VM"),
        ha=bool(vm.get("ha", True)),
        priority=_whole(vm.get("priority", 0), "priority", least=-MOST),
        moves=moves,
        needs=wanted,
    )


def _hypervisor(value: object) -> str:
    """ "" where nobody says, which for a VM means: any."""
    if value in (None, "", "any"):
        return ""
    if value not in ("kvm", "xen"):
        raise Invalid(f"hypervisor is {value!r}; write kvm or xen, or for a VM any")
    return str(value)


def _whole(value: object, what: str, *, least: int = 0) -> int:
    # A yes or no is a number to Python, and none to anybody else.
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is not int or not least <= value <= MOST:
        raise Invalid(f"{what} is {value!r}; write a whole number from {least} to {MOST}")
    return value


def _number(value: object, what: str, *, least: float = 0.0) -> float:
    # Said so that what is no number at all is refused as well.
    if type(value) not in (int, float) or not least <= value <= MOST:  # type: ignore[operator]
        raise Invalid(f"{what} is {value!r}; write a number from {least:g} to {MOST}")
    return float(value)  # type: ignore[arg-type]


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise Invalid(f"{what} is {value!r}; write it as text")
    return value


def _words(value: object, what: str) -> list[str]:
    if not isinstance(value or (), list | tuple):
        raise Invalid(f"{what} is {value!r}; write a list of texts")
    return [_text(word, what) for word in value or ()]  # type: ignore[attr-defined]


def _groups(vms: Iterable[Mapping[str, Any]], field: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for vm in vms:
        for name in _words(vm[field], field) if vm.get(field) else ():
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
            name=f"spread:{_text(one['name'], 'the name of a spread')}",
            guests=tuple(_words(one["vms"], "vms")),
            over=_text(one["over"], "over"),
            max_skew=_whole(one.get("max_skew", 1), "max_skew", least=1),
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
                **({"hypervisor": host.hypervisor} if host.hypervisor else {}),
                **({"closed": host.closed} if host.closed else {}),
                **({} if host.cpu_ratio is None else {"cpu_ratio": host.cpu_ratio}),
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
                **({"hypervisor": guest.needs.hypervisor} if guest.needs.hypervisor else {}),
                **({"require_tags": list(guest.needs.tags)} if guest.needs.tags else {}),
                **({} if guest.needs.hosts is None else {"hosts": list(guest.needs.hosts)}),
                **({} if guest.ha else {"ha": False}),
                **({} if guest.moves == "live" else {"moves": guest.moves}),
                **({} if guest.dirty_mib_s is None else {"dirty_mib_s": guest.dirty_mib_s}),
                **({} if guest.priority == 0 else {"priority": guest.priority}),
            }
            for guest in fleet.guests
        ],
    }
    return document | ({"spreads": spreads} if spreads else {})
