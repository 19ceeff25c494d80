"""Fleets out of files, of any format that is known, and what questions about them need beside.

A placement file and a dump of a living cluster are told apart by what they say that they are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from vorch.decide.room.fleet import HOST, Fleet
from vorch.errors import Invalid, NotFound
from vorch.simulate import placement_file

if TYPE_CHECKING:
    from vorch.decide.room.pick import Answer
    from vorch.dumped import Dump

DUMP = "vorch-dump/1"
SPARE: tuple[Literal["keep", "warn", "ignore"], ...] = ("keep", "warn", "ignore")


def read_fleet(path: str | Path, *, to_balance: bool = False) -> Fleet:
    """The hosts and guests in a file, plain or gzipped.

    `to_balance`: of a living cluster, as somebody has it who moves VMs for evenness alone.
    """
    return fleet_in(read_input(path), path, to_balance=to_balance)


def fleet_in(found: Fleet | Dump, path: str | Path, *, to_balance: bool = False) -> Fleet:
    """The hosts and guests of what was read."""
    if isinstance(found, Fleet):
        return found
    fleet = found.balanced_fleet if to_balance else found.fleet
    # What a host showed of a guest is bounded by nobody.
    sizes = [guest.memory_mib + guest.overhead_mib for guest in fleet.guests]
    sizes += [host.other_memory_mib + host.memory_mib for host in fleet.hosts]
    if max(sizes, default=0) > placement_file.MOST:
        raise Invalid(
            f"cannot use {str(path)!r}: a host or VM in it has {max(sizes)} MiB of memory; mend it"
        )
    return fleet


def read_input(path: str | Path) -> Fleet | Dump:
    """What is in a file: hosts and guests alone, or all that was known of a living cluster."""
    file = Path(path)
    document = placement_file.read_document(file)
    if document.get("format") == DUMP:
        # With all that a living cluster is made of: not loaded for placement files.
        from vorch.dumped import dump_of

        return placement_file.checked(file, dump_of, document)
    return placement_file.checked(file, placement_file.fleet_of, document)


def placed_fleet(fleet: Fleet, answer: Answer) -> Fleet:
    """The fleet with its guests where an answer put them."""
    hosts = answer.hosts
    guests = (
        dataclasses.replace(guest, host=hosts[guest.name]) if guest.name in hosts else guest
        for guest in fleet.guests
    )
    return dataclasses.replace(fleet, guests=tuple(guests))


def with_spare(fleet: Fleet, spare: str | None) -> Fleet:
    """The fleet under another word about spare room; None: as it is."""
    if spare is None:
        return fleet
    for word in SPARE:
        if word == spare:
            return dataclasses.replace(fleet, policy=dataclasses.replace(fleet.policy, spare=word))
    raise Invalid(f"cannot use spare = {spare!r}: it must be one of {', '.join(SPARE)}")


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
