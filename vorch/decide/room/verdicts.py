"""What is to be said of every host when a guest is placed: why not, or the parts of its score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vorch.decide.room import cells
from vorch.decide.room.score import DIGITS, EVEN
from vorch.decide.room.table import Bools, Group, Table, unmet

if TYPE_CHECKING:
    from vorch.decide.room.pick import Picker


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Of one host. Refused: the reason; else its score, lower is better, and what it is made of."""

    host: str
    refused: str = ""
    score: float = 0.0
    parts: dict[str, float] = field(default_factory=dict)


def verdicts(picker: Picker, guests: Sequence[int]) -> tuple[Verdict, ...]:
    """Of all hosts: first those that can take them, best first, then the refused, by name."""
    table = picker.table
    even, crowd = picker.score.even(guests)
    wishes = [found for row in guests if (found := picker.score.wishes(row)) is not None]
    fit = picker.fitting(guests)
    keep = picker.spare is not None and table.policy.spare == "keep"
    answers: list[Verdict] = []
    for host, name in enumerate(table.host_names):
        refused = "" if fit[host] else refusal(table, guests, host)
        if not refused and table.celled[list(guests)].any():
            refused = cell_refusal(table, guests, host) or ""
        if not refused and keep and picker.spare is not None:
            refused = picker.spare.admits(guests, host)[1]
        if refused:
            answers.append(Verdict(host=name, refused=refused))
            continue
        parts = {what: round(float(even[n, host]), DIGITS) for n, what in enumerate(EVEN)}
        parts["crowd"] = round(float(crowd[host]), DIGITS)
        parts["wishes"] = round(float(sum(one[host] for one in wishes)), DIGITS)
        score = round(sum(parts.values()), DIGITS)
        answers.append(Verdict(host=name, score=score, parts=parts))
    return tuple(sorted(answers, key=lambda one: (one.refused != "", one.score, one.host)))


def refusal(table: Table, guests: Sequence[int], host: int) -> str:
    """Why this host cannot take them. Only for one that cannot."""
    what = table.hosts[host]
    if what.closed:
        return what.closed
    for row in guests:
        why = unmet(what, table.needs[table.kind[row]])
        if why is not None:
            return why
    for row in guests:
        for number in table.groups_of[row]:
            group = table.groups[number]
            if group.hard:
                off = table.barred_by(group, row)
                if off is not None and off[host]:
                    return _rule(table, group, row, host)
    rows = list(guests)
    memory, free = int(table.memory[rows].sum()), int(table.free_mib[host])
    if memory > free:
        kept = f", {what.reserve_mib} kept for the host" if what.reserve_mib else ""
        return (
            f"{memory - max(free, 0)} MiB of memory are short ({memory} wanted, {max(free, 0)}"
            f" free{kept})"
        )
    vcpus, left = float(table.vcpus[rows].sum()), float(table.free_vcpus[host])
    if vcpus > left:
        return (
            f"{vcpus - max(left, 0.0):g} vCPUs are short ({vcpus:g} wanted, {max(left, 0.0):g}"
            f" free at {table.ratio(host):g} per CPU)"
        )
    return _clash(table, rows)


def _clash(table: Table, rows: Sequence[int]) -> str:
    for number in sorted({number for row in rows for number in table.groups_of[row]}):
        group = table.groups[number]
        both = sorted(set(rows) & set(group.members))
        if group.hard and group.kind != "together" and len(both) > 1:
            names = " and ".join(repr(table.guest_names[one]) for one in both)
            return f"rule {group.name!r}: {names} are to be on one host, and may not by it"
    return "it cannot take them"


def _rule(table: Table, group: Group, guest: int, host: int) -> str:
    domain = table.domain(group.over)
    place = "there" if group.over == "host" else f"in its {group.over}"
    others = [row for row in group.members if row != guest and table.at[row] >= 0]
    if group.kind == "spread":
        names = table.domain_names(group.over)
        if domain[host] >= len(names):
            return f"rule {group.name!r}: it has no tag '{group.over}:…'"
        count = int(table.counts(group, guest)[domain[host]])
        return (
            f"rule {group.name!r}: {group.over} {names[domain[host]]!r} holds {count} of them"
            f" already, and no {group.over} may hold over {group.max_skew} more than another"
        )
    here: Bools = domain == domain[host]
    if group.kind == "apart":
        rivals = [table.guest_names[row] for row in others if here[table.at[row]]]
        return f"rule {group.name!r}: {', '.join(sorted(rivals))} is {place}, and it must be apart"
    away = [
        f"{table.guest_names[row]} on {table.host_names[table.at[row]]}"
        for row in others
        if not here[table.at[row]]
    ]
    return f"rule {group.name!r}: it must be together with {', '.join(sorted(away))}"


def cell_refusal(table: Table, guests: Sequence[int], host: int) -> str | None:
    """Why its NUMA cells or huge pages cannot take them; None: they can, or none is asked for."""
    there = [table.guests[int(row)] for row in table.on(host)]
    for row in guests:
        why = cells.refusal(table.hosts[host], table.ratio(host), there, table.guests[row])
        if why is not None:
            return why
        there.append(table.guests[row])
    return None
