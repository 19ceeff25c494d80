"""Which of a list are asked for: "state=running", "node=h1", "tag=db", "name~=web"."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from vorch.errors import Invalid
from vorch.model import Cluster, Power, Vm

# Of one question; more makes no sense, and costs time.
MOST = 16
LONGEST = 256
LIKE = "~"
VM_FILTERS = ("state", "node", "tag", "name", f"name{LIKE}")

# What was asked for by the name of each filter. Of several values of one any will do; all filters
# must be met.
Wanted = Mapping[str, Sequence[str]]


def checked(wanted: Wanted, known: Iterable[str]) -> Wanted:
    names = list(known)
    for name, values in wanted.items():
        if name not in names:
            raise Invalid(
                f"cannot filter by {name!r}: it is one of {', '.join(names)}", filter=name
            )
        if len(values) > MOST or any(len(value) > LONGEST for value in values):
            raise Invalid(
                f"cannot filter by that many values of {name!r}: at most {MOST} of"
                f" {LONGEST} characters each",
                filter=name,
            )
    return wanted


def check_fields(wanted: Wanted, fields: Iterable[str]) -> None:
    """Of any other list, with the fields that its values have."""
    known = sorted(fields)
    checked(wanted, [word for name in known for word in (name, name + LIKE)])


def check_vms(wanted: Wanted) -> None:
    checked(wanted, VM_FILTERS)
    states = [str(power) for power in Power]
    for state in wanted.get("state", ()):
        if state not in states:
            raise Invalid(
                f"cannot filter by state {state!r}: it is one of {', '.join(states)}",
                filter="state",
            )


def fitting(cluster: Cluster, vms: Iterable[Vm], wanted: Wanted) -> list[Vm]:
    """Those that meet all filters; only what is asked is looked at, the cheap questions first."""
    found = list(vms)
    if wanted.get("node"):
        nodes = {*wanted["node"]}
        found = [vm for vm in found if vm.node in nodes]
    if wanted.get("name"):
        names = {*wanted["name"]}
        found = [vm for vm in found if vm.name in names]
    patterns = wanted.get(f"name{LIKE}")
    if patterns:
        tests = [_test(pattern) for pattern in patterns]
        found = [vm for vm in found if any(test(vm.name.lower()) for test in tests)]
    if wanted.get("tag"):
        tags = {*wanted["tag"]}
        found = [vm for vm in found if tags & {*getattr(vm, "tags", ()), *vm.require_tags}]
    if wanted.get("state"):
        states = {Power(state) for state in wanted["state"]}
        found = [vm for vm in found if cluster.power(vm) in states]
    return found


def like(value: str, pattern: str) -> bool:
    """It contains that, in whatever case; or is of that form, where that has * or ? or [."""
    return _test(pattern)(value.lower())


def _test(pattern: str) -> Callable[[str], bool]:
    """The same, for many values in lower case."""
    pattern = pattern.lower()
    if not any(sign in pattern for sign in "*?["):
        return lambda value: pattern in value
    # Many stars in a row mean one, and take very long as several.
    while "**" in pattern:
        pattern = pattern.replace("**", "*")
    matches = re.compile(fnmatch.translate(pattern)).match
    return lambda value: matches(value) is not None


def fits(told: Mapping[str, Any], wanted: Wanted) -> bool:
    """Of any other list: by the fields that are shown, those one level down included."""
    for name, values in wanted.items():
        value = _value(told, name.removesuffix(LIKE))
        found = value if isinstance(value, list) else [value]
        words = [_word(one) for one in found]
        if name.endswith(LIKE):
            if not any(like(word, one) for word in words for one in values):
                return False
        elif not {*words} & {*values}:
            return False
    return True


def _value(told: Mapping[str, Any], name: str) -> Any:
    if name in told:
        return told[name]
    for inside in told.values():
        if isinstance(inside, dict) and name in inside:
            return inside[name]
    return None


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)
