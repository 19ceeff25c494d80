"""Rules made one, and what becomes of those that contradict each other."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from vorch.availability import HaVm, NodeChoice, Rule
from vorch.decide.rules import Hosts, Placement, resolve
from vorch.errors import Invalid

NODES = ("h1", "h2", "h3")


def on(*names: str) -> tuple[NodeChoice, ...]:
    return tuple(NodeChoice(node=name) for name in names)


def together(name: str, *vms: str, strict: bool = True) -> Rule:
    return Rule(name=name, kind="together", vms=vms, strict=strict)


def apart(name: str, *vms: str, strict: bool = True) -> Rule:
    return Rule(name=name, kind="apart", vms=vms, strict=strict)


def nodes(name: str, vms: tuple[str, ...], *where: str, strict: bool = False) -> Rule:
    return Rule(name=name, kind="nodes", vms=vms, nodes=on(*where), strict=strict)


def resolved(*rules: Rule, own: dict[str, tuple[str, ...]] | None = None) -> Placement:
    vms = {name: HaVm(vm=name, nodes=on(*where)) for name, where in (own or {}).items()}
    return resolve(vms, {rule.name: rule for rule in rules}, NODES)


def test_sets_that_overlap_are_one() -> None:
    placement = resolved(together("r1", "a", "b"), together("r2", "b", "c"), apart("r3", "a", "x"))
    assert placement.mates["a"] == {"b", "c"}
    # Whom one must be apart from, all of the set must, and the other way round.
    assert placement.rivals["c"] == {"x"}
    assert placement.rivals["x"] == {"a", "b", "c"}
    assert placement.dropped == {}


def test_the_hosts_of_one_are_the_hosts_of_its_set() -> None:
    placement = resolved(together("r1", "a", "b"), nodes("r2", ("a",), "h2", strict=True))
    assert placement.hosts["b"] == Hosts(priority={"h2": 0}, strict=True)


def test_wishes_bind_nobody() -> None:
    near, far = together("r1", "a", "b", strict=False), apart("r2", "a", "c", strict=False)
    placement = resolved(near, far)
    assert placement.mates == {}
    assert placement.rivals == {}
    assert placement.near["a"] == {"b"}
    assert placement.far["a"] == {"c"}


RANKED = Rule(
    name="r1",
    kind="nodes",
    vms=("a",),
    nodes=(NodeChoice(node="h1", priority=1), NodeChoice(node="h2")),
)


@pytest.mark.parametrize(
    ("rules", "own", "dropped"),
    [
        ((apart("r1", "a", "b", "c", "d"),), {}, {"r1"}),
        ((together("r1", "a", "b"), apart("r2", "a", "b")), {}, {"r1", "r2"}),
        ((nodes("r1", ("a",), "h1"), nodes("r2", ("a",), "h2")), {}, {"r1", "r2"}),
        ((nodes("r1", ("a",), "h1"),), {"a": ("h2",)}, {"r1"}),
        ((nodes("r1", ("a", "b"), "h1", strict=True), apart("r2", "a", "b")), {}, {"r2"}),
        ((RANKED, together("r2", "a", "b")), {}, {"r1"}),
    ],
)
def test_what_contradicts_is_dropped(
    rules: tuple[Rule, ...], own: dict[str, tuple[str, ...]], dropped: set[str]
) -> None:
    placement = resolved(*rules, own=own)
    assert set(placement.dropped) == dropped
    assert all(placement.dropped.values())


def test_classes_of_hosts() -> None:
    ranked = Hosts(priority={"h1": 1, "h2": 5}, strict=False)
    assert ranked.classes(NODES) == [["h2"], ["h1"], ["h3"]]
    assert ranked.classes(("h1", "h3")) == [["h1"], ["h3"]]
    assert Hosts(priority={"h1": 1, "h2": 5}, strict=True).classes(("h1", "h3")) == [["h1"]]
    assert Hosts(priority={"h1": 1}, strict=True).classes(("h3",)) == []


@pytest.mark.parametrize(
    "make",
    [
        lambda: Rule(name="r", kind="apart", vms=("a",)),
        lambda: Rule(name="r", kind="nodes", vms=("a",)),
        lambda: Rule(name="r", kind="together", vms=("a", "a")),
        lambda: HaVm(vm="a", restricted=True),
        lambda: HaVm(vm="a", nodes=on("h1", "h1")),
        lambda: HaVm(vm="a", max_restart=-1),
    ],
)
def test_settings_that_make_no_sense_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(Invalid):
        make()
