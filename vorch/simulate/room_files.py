"""Fleets out of files, of any format that is known, and what questions about them need beside.

A placement file and a dump of a living cluster are told apart by what they say that they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vorch.decide.room.fleet import HOST, NO_NEEDS, Fleet, Guest, Needs
from vorch.errors import Invalid, NotFound
from vorch.simulate import placement_file

# More than any answer is worth waiting for.
MOST_NEW = 100_000


def read_fleet(path: str | Path) -> Fleet:
    """The hosts and guests in a file, plain or gzipped."""
    file = Path(path)
    document = placement_file.read_document(file)
    return placement_file.checked(file, placement_file.fleet_of, document)


def newcomers(
    fleet: Fleet, *, count: int, vcpus: int, memory_mib: int, tags: Sequence[str] = ()
) -> tuple[Fleet, tuple[str, ...]]:
    """The fleet with so many new guests of one size that are nowhere yet, and their names."""
    if not 1 <= count <= MOST_NEW:
        raise Invalid(f"cannot place {count} guests: give 1 to {MOST_NEW}")
    if vcpus < 1 or memory_mib < 1:
        raise Invalid(
            f"cannot place guests with {vcpus} vCPUs and {memory_mib} MiB of memory: give 1 or more"
            " of both"
        )
    taken = {guest.name for guest in fleet.guests}
    names: list[str] = []
    number = 0
    while len(names) < count:
        number += 1
        if (name := f"new-{number:0{len(str(count))}}") not in taken:
            names.append(name)
    needs = Needs(tags=tuple(sorted(set(tags)))) if tags else NO_NEEDS
    new = tuple(Guest(name=name, vcpus=vcpus, memory_mib=memory_mib, needs=needs) for name in names)
    return with_guests(fleet, (*fleet.guests, *new)), tuple(names)


def with_guests(fleet: Fleet, guests: tuple[Guest, ...]) -> Fleet:
    return Fleet(hosts=fleet.hosts, guests=guests, rules=fleet.rules, policy=fleet.policy)


def hosts_in(fleet: Fleet, names: Sequence[str] = (), domains: Sequence[str] = ()) -> list[str]:
    """Hosts by their own names and by those of failure domains, each as KEY:NAME."""
    found = {fleet.host(name).name for name in names}
    for domain in domains:
        key, colon, name = domain.partition(":")
        if not (key and colon and name):
            raise Invalid(
                f"cannot use the domain {domain!r}: write a key and a name, as in rack:r01"
            )
        inside = [host.name for host in fleet.hosts if host.domain(key) == name]
        if not inside:
            there = sorted({one for host in fleet.hosts if (one := host.domain(key)) is not None})
            raise NotFound(
                f"cannot find the domain {domain!r}: no host stands in it; {_listed(key, there)}"
            )
        found.update(inside)
    if not found:
        raise Invalid("cannot empty no host: name one, or a domain")
    return sorted(found)


def _listed(key: str, names: Sequence[str]) -> str:
    if not names or key == HOST:
        return f"no tag of a host begins with {key + ':'!r}" if key != HOST else "check its name"
    few = ", ".join(names[:8])
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return f"of the key {key!r} there are {few}{more}"
