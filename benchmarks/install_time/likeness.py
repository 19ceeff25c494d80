"""Whether runs may be compared: everything that differs and is not what is compared. Pure.

Hypervisor, storage, networks and method are what the benchmark is about. Anything else that is not
the same is a difference that nobody can tell from the one that was looked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from .results import Results

# What a host is by its hypervisor: compared among hosts that have the same one.
OF_THE_HYPERVISOR = ("hypervisor version",)
# What differs from host to host and does not matter.
OWN_TO_A_HOST = ("hypervisor",)
OF_THE_STORAGE = ("kind", "format", "networks")


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Something that is not the same everywhere."""

    what: str
    # Each value, and who has it.
    values: tuple[tuple[str, tuple[str, ...]], ...]

    def __str__(self) -> str:
        sides = "; ".join(f"{value or 'unknown'} ({', '.join(who)})" for value, who in self.values)
        return f"{self.what}: {sides}"


def differences(results: Sequence[Results]) -> tuple[Difference, ...]:
    """Of all of them together; () when they are alike."""
    found: list[Difference] = []
    several = len(results) > 1
    names = [f"result {number}" for number in range(1, len(results) + 1)]
    found += _among(
        "", [(name, one.setup) for name, one in zip(names, results, strict=True)], lambda _: True
    )
    hosts = [
        (f"{host} of {name}" if several else host, facts)
        for name, one in zip(names, results, strict=True)
        for host, facts in one.hosts.items()
        if any(run.host == host for run in one.runs) or not one.runs
    ]
    found += _among("hosts: ", hosts, lambda fact: fact not in (*OF_THE_HYPERVISOR, *OWN_TO_A_HOST))
    for hypervisor in sorted({facts.get("hypervisor", "") for _, facts in hosts}):
        same = [one for one in hosts if one[1].get("hypervisor", "") == hypervisor]
        found += _among(f"{hypervisor} hosts: ", same, lambda fact: fact in OF_THE_HYPERVISOR)
    pools = [
        (f"{pool} of {name}" if several else pool, facts)
        for name, one in zip(names, results, strict=True)
        for pool, facts in one.pools.items()
        if any(run.pool == pool for run in one.runs) or not one.runs
    ]
    for kind in sorted({facts.get("kind", "") for _, facts in pools}):
        same = [one for one in pools if one[1].get("kind", "") == kind]
        found += _among(f"{kind} pools: ", same, lambda fact: fact not in OF_THE_STORAGE)
    return tuple(found)


def _among(
    where: str,
    things: Sequence[tuple[str, Mapping[str, str]]],
    counts: Callable[[str], bool],
) -> Iterable[Difference]:
    facts = sorted({fact for _, own in things for fact in own if counts(fact)})
    for fact in facts:
        values: dict[str, list[str]] = {}
        for name, own in things:
            values.setdefault(own.get(fact, ""), []).append(name)
        if len(values) > 1:
            yield Difference(
                what=f"{where}{fact}",
                values=tuple((value, tuple(who)) for value, who in sorted(values.items())),
            )
