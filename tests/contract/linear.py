"""Judges a history of operations by several processes: can each have happened at one moment?

An operation has a time before it began and a time after it had ended, by one clock for all. What
was killed, or got no answer, has no end: it may have happened once at any later time, or never.
What was refused, since somebody else had come first, or was left undone for lack of an answer must
not have happened at all.

`register_findings` searches for an order of all operations that the times allow and the results
agree with (the search of Wing and Gong, with the memo of Lowe: a state that was reached once by the
same set of operations is not looked into again). `counter_findings` and `set_findings` need no
search, since their results tell the order.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

Outcome = Literal["done", "refused", "undone", "unknown"]


@dataclass(frozen=True, slots=True)
class Operation:
    """`name`: "read", "write", "swap", "count" or "add"."""

    process: str
    name: str
    start: int
    # None: it never ended.
    end: int | None
    outcome: Outcome
    # What was to be written; for a swap also what had to be there.
    value: Hashable = None
    expected: Hashable = None
    # What was read, or counted to.
    result: Hashable = None

    def before(self, other: Operation) -> bool:
        return self.end is not None and self.end < other.start


# ---------------------------------------------------------------------------------------------
# A register: read, write, and swap if a certain value is there. All values written differ.


def _after(value: Hashable, operation: Operation) -> tuple[bool, Hashable]:
    """Whether its result fits where `value` is in the register, and what is in it then."""
    if operation.name == "read":
        return operation.result == value, value
    if operation.name == "write":
        return True, operation.value
    if operation.outcome == "refused":
        return value != operation.expected, value
    return value == operation.expected, operation.value


def register_findings(history: Sequence[Operation], initial: Hashable = None) -> list[str]:
    # What was left undone must have left nothing, so it has no place in the order, nor has a read
    # without a result; a swap that was refused has seen another value.
    placed = [
        one
        for one in history
        if one.outcome != "undone" and not (one.name == "read" and one.outcome == "unknown")
    ]
    order = sorted(placed, key=lambda one: one.start)
    ends = [one.end if one.outcome != "unknown" else None for one in order]
    needed = sum(1 << number for number, end in enumerate(ends) if end is not None)

    def candidates(done: int) -> list[int]:
        """What may come next: all that began before the first of the others had ended."""
        found: list[int] = []
        # The lowest bit that is not set.
        number = (~done & (done + 1)).bit_length() - 1
        limit: int | None = None
        while number < len(order):
            if limit is not None and order[number].start > limit:
                break
            if not done >> number & 1:
                found.append(number)
                end = ends[number]
                if end is not None and (limit is None or end < limit):
                    limit = end
            number += 1
        found = [one for one in found if limit is None or order[one].start <= limit]
        # What has an end must be placed; what has none comes last.
        return sorted(found, key=lambda one: (ends[one] is None, ends[one] or 0), reverse=True)

    seen = {(0, initial)}
    stack: list[tuple[int, Hashable, list[int]]] = [(0, initial, candidates(0))]
    furthest = 0
    while stack:
        done, value, rest = stack[-1]
        if done & needed == needed:
            return []
        if not rest:
            stack.pop()
            continue
        number = rest.pop()
        fits, after = _after(value, order[number])
        state = (done | 1 << number, after)
        if not fits or state in seen:
            continue
        seen.add(state)
        furthest = max(furthest, (state[0] & needed).bit_count())
        stack.append((*state, candidates(state[0])))
    return [
        f"no order of the {len(order)} operations agrees with their times and results; at most"
        f" {furthest} of {needed.bit_count()} could be placed"
    ]


# ---------------------------------------------------------------------------------------------
# A counter: "count" adds one, and its result is what it counted to.


def counter_findings(history: Sequence[Operation], final: int) -> list[str]:
    findings = []
    told = [one for one in history if one.outcome == "done"]
    unknown = sum(one.outcome == "unknown" for one in history)
    results = [one.result for one in told if isinstance(one.result, int)]
    if len(results) != len(told):
        findings.append("some counted to nothing")
    doubled = {result for result in results if results.count(result) > 1}
    if doubled:
        findings.append(f"several counted to {sorted(doubled)[:5]}: updates were lost")
    if not len(told) <= final <= len(told) + unknown:
        findings.append(
            f"it ended at {final}, after {len(told)} acknowledged and {unknown} unclear additions"
        )
    if any(not 0 < result <= final for result in results):
        findings.append("some counted past the end")
    latest, highest = sorted(told, key=lambda one: one.end or 0), 0
    position = 0
    for one in sorted(told, key=lambda one: one.start):
        while position < len(latest) and latest[position].before(one):
            highest = max(highest, int(str(latest[position].result)))
            position += 1
        if int(str(one.result)) <= highest:
            findings.append(f"{one} came after {highest} had been counted to")
            break
    return findings


# ---------------------------------------------------------------------------------------------
# A set, kept as a list in the order of coming: "add" adds a value that nobody else adds.


def set_findings(history: Sequence[Operation], final: Sequence[Hashable]) -> list[str]:
    findings = []
    places = {value: place for place, value in enumerate(final)}
    if len(places) != len(final):
        findings.append("something is in it twice")
    by_value = {one.value: one for one in history}
    strangers = [value for value in final if value not in by_value]
    if strangers:
        findings.append(f"nobody added {strangers[:5]}")
    lost = [one.value for one in history if one.outcome == "done" and one.value not in places]
    if lost:
        findings.append(f"{lost[:5]} ({len(lost)} in all) were acknowledged and are gone")
    risen = [
        one.value for one in history if one.outcome in ("refused", "undone") and one.value in places
    ]
    if risen:
        findings.append(f"{risen[:5]} were not to be done and are there")
    # Nothing that had ended before another began may stand behind it.
    earliest: int | None = None
    for value in reversed(final):
        one = by_value.get(value)
        if one is None:
            continue
        if earliest is not None and one.start > earliest:
            findings.append(f"{value} stands before what had been added before it began")
            break
        if one.end is not None and one.outcome == "done":
            earliest = one.end if earliest is None else min(earliest, one.end)
    return findings
