"""Judges placements afresh, from the values alone: by other code than the one that decides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from vorch.decide.room.fleet import Apart, Fleet, Guest, Host, Rule, Spread, Together


def memory_free(fleet: Fleet, host: Host, where: Mapping[str, str]) -> int:
    used = sum(one.takes_mib for one in fleet.guests if where.get(one.name) == host.name)
    return host.memory_mib - host.reserve_mib - host.other_memory_mib - host.pages_mib - used


def vcpus_free(fleet: Fleet, host: Host, where: Mapping[str, str]) -> float:
    ratio = fleet.policy.cpu_ratio if host.cpu_ratio is None else host.cpu_ratio
    used = sum(one.vcpus for one in fleet.guests if where.get(one.name) == host.name)
    return host.cpus * ratio - host.other_vcpus - used


def domain(fleet: Fleet, name: str, key: str) -> str | None:
    if key == "host":
        return name
    found = sorted(tag for tag in fleet.host(name).tags if tag.startswith(f"{key}:"))
    return found[0].partition(":")[2] if found else None


def barred(fleet: Fleet, rule: Rule, guest: str, host: str, where: Mapping[str, str]) -> bool:
    """Whether a rule keeps the guest off this host, as the others of it are."""
    others = [where[one] for one in rule.guests if one != guest and where.get(one)]
    here = domain(fleet, host, rule.over)
    domains = [domain(fleet, one, rule.over) for one in others]
    if isinstance(rule, Spread):
        if here is None:
            return True
        counted = {domain(fleet, one.name, rule.over) for one in fleet.hosts if not one.closed}
        counts = Counter(domains)
        counts[here] += 1
        lowest = min((counts[one] for one in counted if one is not None), default=0)
        return counts[here] - lowest > rule.max_skew
    same = [
        one is not None and one == here if here is not None else other == host
        for one, other in zip(domains, others, strict=True)
    ]
    return any(same) if isinstance(rule, Apart) else bool(others) and not any(same)


def true_reason(fleet: Fleet, guest: Guest, host: Host, where: Mapping[str, str], why: str) -> bool:
    """Whether what is said of a host is so."""
    if host.closed:
        return why == host.closed
    if "tag" in why and "rule" not in why:
        return not set(guest.needs.tags) <= host.tags
    if why.startswith("rule "):
        name = why.split("'")[1]
        rule = next(one for one in fleet.rules if one.name == name)
        return barred(fleet, rule, guest.name, host.name, where)
    if "MiB of memory are short" in why:
        free = memory_free(fleet, host, where)
        return int(why.split()[0]) == guest.takes_mib - max(free, 0) > 0
    if "vCPUs are short" in why:
        left = vcpus_free(fleet, host, where)
        return float(why.split()[0]) == guest.vcpus - max(left, 0.0) > 0
    return False


def wrong(
    fleet: Fleet, lost: Iterable[str], refuges: Mapping[str, str], looked_after: Iterable[str]
) -> str | None:
    """What is wrong with where guests of lost hosts go; None: nothing."""
    gone = set(lost)
    where = {one.name: one.host for one in fleet.guests if one.host and one.host not in gone}
    where.update(refuges)
    if set(refuges) != set(looked_after):
        return "somebody is missing"
    for name, target in refuges.items():
        host, guest = fleet.host(target), fleet.guest(name)
        if target in gone or host.closed or not set(guest.needs.tags) <= host.tags:
            return f"{name} may not be on {target}"
    for target in set(refuges.values()):
        host = fleet.host(target)
        if memory_free(fleet, host, where) < 0 or vcpus_free(fleet, host, where) < 0:
            return f"{target} is over"
    for rule in fleet.rules:
        if rule.hard and _broken(fleet, rule, gone, where, set(refuges)):
            return f"rule {rule.name} is broken"
    return None


def _broken(
    fleet: Fleet, rule: Rule, gone: set[str], where: Mapping[str, str], moved: set[str]
) -> bool:
    there = [one for one in rule.guests if one in where]
    new = [one for one in there if one in moved]

    def place(one: str) -> str:
        found = domain(fleet, where[one], rule.over)
        return f"domain {found}" if found is not None else f"host {where[one]}"

    if isinstance(rule, Apart):
        return any(place(one) == place(other) for one in new for other in there if one != other)
    if isinstance(rule, Together):
        stay = {place(one) for one in there if one not in moved}
        return not {place(one) for one in new} <= stay if stay else len(set(map(place, new))) > 1
    open_hosts = [one for one in fleet.hosts if not one.closed and one.name not in gone]
    counted = {found for one in open_hosts if (found := domain(fleet, one.name, rule.over))}
    counts = Counter(domain(fleet, where[one], rule.over) for one in there)
    lowest = min((counts[one] for one in counted), default=0)
    return any(
        domain(fleet, where[one], rule.over) is None
        or counts[domain(fleet, where[one], rule.over)] - lowest > rule.max_skew
        for one in new
    )
