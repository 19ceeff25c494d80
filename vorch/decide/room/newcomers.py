"""New guests of one size that are nowhere yet, for questions about more of them."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

from vorch.decide.room.fleet import NO_NEEDS, Fleet, Guest, Needs
from vorch.errors import Invalid

# More than any answer is worth waiting for.
MOST_NEW = 100_000


def newcomers(
    fleet: Fleet, *, count: int, vcpus: int, memory_mib: int, tags: Sequence[str] = ()
) -> tuple[Fleet, tuple[str, ...]]:
    """The fleet with so many new guests of one size that are nowhere yet, and their names."""
    if not 1 <= count <= MOST_NEW:
        raise Invalid(f"cannot place {count} guests: give 1 to {MOST_NEW}")
    taken = {guest.name for guest in fleet.guests}
    names: list[str] = []
    number = 0
    while len(names) < count:
        number += 1
        if (name := f"new-{number:0{len(str(count))}}") not in taken:
            names.append(name)
    size = sized(fleet, vcpus=vcpus, memory_mib=memory_mib, tags=tags)
    new = (dataclasses.replace(size, name=name) for name in names)
    return dataclasses.replace(fleet, guests=(*fleet.guests, *new)), tuple(names)


def sized(fleet: Fleet, *, vcpus: int, memory_mib: int, tags: Sequence[str] = ()) -> Guest:
    """A guest of that size which takes of its host what the others take beside their memory."""
    if vcpus < 1 or memory_mib < 1:
        raise Invalid(
            f"cannot place guests with {vcpus} vCPUs and {memory_mib} MiB of memory: give 1 or more"
            " of both"
        )
    return Guest(
        name="new",
        vcpus=vcpus,
        memory_mib=memory_mib,
        overhead_mib=usual([guest.overhead_mib for guest in fleet.guests]),
        needs=Needs(tags=tuple(sorted(set(tags)))) if tags else NO_NEEDS,
    )


def usual(values: list[int]) -> int:
    """The most frequent; of several the smallest."""
    counts = Counter(values)
    return min(counts, key=lambda value: (-counts[value], value), default=0)
