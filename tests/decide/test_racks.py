"""Rules over racks: what they leave to a VM, in the engine and everywhere else the same."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.decide import worlds
from vorch.availability import Availability, HaVm, Rule
from vorch.decide import racks
from vorch.decide.barred import ruled
from vorch.decide.choose import Board, Scene, choose
from vorch.decide.place import place
from vorch.decide.room.live import fleet_of
from vorch.decide.room.score import Score
from vorch.decide.room.table import Table
from vorch.decide.rule_settings import rule_add, statuses
from vorch.decide.rules import resolve
from vorch.errors import Conflict, Invalid
from vorch.model import Cluster, Node, Pool, Power, Vm

SHARED = {"local": Pool(name="local", url="rbd://vms")}


def hosts(*domains: str) -> tuple[Node, ...]:
    return tuple(
        dataclasses.replace(worlds.node(f"h{n}"), tags=(f"rack:{rack}",) if rack else ())
        for n, rack in enumerate(domains, 1)
    )


def seen(nodes: tuple[Node, ...], **where: str) -> Cluster:
    vms = [worlds.vm(name, n, node=node) for n, (name, node) in enumerate(where.items(), 1)]
    return worlds.cluster(*vms, nodes=nodes, pools=SHARED, power=Power.RUNNING)


def rule(kind: str, *vms: str, **other: object) -> Rule:
    fields: dict[str, object] = {"name": "r", "kind": kind, "vms": vms, "over": "rack", **other}
    return Rule(**fields)  # type: ignore[arg-type]


def runs(cluster: Cluster, name: str) -> tuple[str, ...]:
    return tuple(d.node for d in cluster.domains.values() if d.name == name)


@given(
    st.lists(st.sampled_from(["r1", "r2", "r3", ""]), min_size=1, max_size=6),
    st.lists(st.integers(0, 5), min_size=1, max_size=7),
    st.sampled_from(["together", "apart", "spread"]),
    st.integers(1, 3),
    st.sets(st.integers(0, 5), max_size=2),
)
@example(where=["r1"], at=[0], kind="spread", skew=1, cordoned={0})
def test_the_engine_and_the_cluster_say_the_same(
    where: list[str], at: list[int], kind: str, skew: int, cordoned: set[int]
) -> None:
    nodes = tuple(
        dataclasses.replace(node, cordoned=n in cordoned) for n, node in enumerate(hosts(*where))
    )
    placed = {f"v{n}": f"h{host % len(nodes) + 1}" for n, host in enumerate(at)}
    cluster = seen(nodes, **placed)
    new = worlds.vm("new", 99)
    for strict in (True, False):
        asked = rule(kind, "new", *placed, max_skew=skew, strict=strict, weight=2.0)
        ha = Availability(rules={"r": asked})
        table = Table(fleet_of(cluster, ha, overhead_mib=0, more=[new]))
        row, taking = table.guest("new"), [one.name for one in nodes if not one.cordoned]
        if strict:
            off = table.barred(row)
            found = racks.barred(asked, "new", cluster.nodes, lambda o: runs(cluster, o), taking)
            engine = (
                [] if off is None else [name for n, name in enumerate(table.host_names) if off[n]]
            )
            assert sorted(found) == engine
        else:
            wishes = Score(table).wishes(row)
            assert wishes is not None
            for number, name in enumerate(table.host_names):
                assert wishes[number] == racks.disliked(
                    asked,
                    "new",
                    cluster.nodes[name],
                    cluster.nodes,
                    lambda o: runs(cluster, o),
                    taking,
                )


FOUR = hosts("r1", "r1", "r2", "r2")


def test_a_start_by_a_person_keeps_to_it() -> None:
    cluster = seen(FOUR, a="h1", b="h3")
    off = worlds.vm("c", 9, node="h2")
    cluster = dataclasses.replace(cluster, vms={**cluster.vms, "c": off})
    apart = Availability(rules={"r": rule("apart", "a", "c")})
    with pytest.raises(Conflict, match=r"apart from VMs in rack 'r1'.*--force"):
        place(ruled(cluster, apart, "c"), off, overhead_mib=0, only="h2")
    assert place(ruled(cluster, apart, "c"), off, overhead_mib=0).node == "h4"
    near = Availability(rules={"r": rule("together", "b", "c", strict=False, weight=3.0)})
    # A wish, which comes before the most room.
    assert place(ruled(cluster, near, "c"), off, overhead_mib=0).node == "h4"


def choice(cluster: Cluster, asked: Rule, vm: Vm, *, stays: bool = False) -> tuple[str | None, str]:
    board = Board()
    for domain in cluster.domains.values():
        if not stays or domain.name != vm.name:
            board.put(cluster.vms[domain.name], domain.node, 0)
    vms = {name: HaVm(vm=name) for name in asked.vms}
    scene = Scene(
        cluster=cluster,
        placement=resolve(vms, {"r": asked}, cluster.nodes),
        open=frozenset(cluster.nodes),
        overhead_mib=0,
    )
    pick = choose(scene, board, vm, stays=stays)
    return pick.node, pick.why


def test_high_availability_keeps_to_it_where_it_starts_something() -> None:
    cluster = seen(FOUR, a="h1", b="h3", c="h1")
    lost = worlds.vm("new", 9, node="gone")
    assert choice(cluster, rule("apart", "a", "new"), lost)[0] == "h4"
    assert choice(cluster, rule("together", "b", "new"), lost)[0] == "h4"
    assert choice(cluster, rule("spread", "a", "c", "new"), lost)[0] == "h4"
    assert choice(cluster, rule("apart", "a", "new", strict=False), lost)[0] == "h4"
    node, why = choice(cluster, rule("apart", "a", "b", "new"), lost)
    assert node is None
    assert "h4: rule 'r' keeps it apart from VMs in rack 'r2'" in why


def test_the_weightier_wish_counts() -> None:
    cluster = seen(hosts("r1", "r2"), a="h1", b="h2")
    lost = worlds.vm("new", 9, node="gone")
    for weight, node in ((3.0, "h2"), (0.5, "h1")):
        rules = {
            "x": rule("apart", "a", "new", name="x", over="", strict=False, weight=weight),
            "y": rule("apart", "b", "new", name="y", over="", strict=False),
        }
        ha = Availability(rules=rules)
        scene = Scene(
            cluster=cluster,
            placement=resolve({}, rules, cluster.nodes),
            open=frozenset(cluster.nodes),
            overhead_mib=0,
        )
        board = Board()
        for domain in cluster.domains.values():
            board.put(cluster.vms[domain.name], domain.node, 0)
        assert choose(scene, board, lost).node == node
        known = dataclasses.replace(cluster, vms={**cluster.vms, "new": lost})
        assert place(ruled(known, ha, "new"), lost, overhead_mib=0).node == node


def test_nobody_is_moved_for_it() -> None:
    cluster = seen(FOUR, a="h1", b="h2")
    assert choice(cluster, rule("apart", "a", "b"), cluster.vms["b"], stays=True)[0] == "h2"


def test_rules_that_contradict_each_other() -> None:
    vms = {name: HaVm(vm=name) for name in "ab"}

    def dropped(one: Rule, other: Rule) -> set[str]:
        rules = {"x": dataclasses.replace(one, name="x"), "y": dataclasses.replace(other, name="y")}
        return set(resolve(vms, rules, ["h1", "h2"]).dropped)

    on_one = rule("together", "a", "b", over="")
    assert dropped(on_one, rule("apart", "a", "b")) == {"x", "y"}
    assert dropped(rule("together", "a", "b"), rule("apart", "a", "b")) == {"x", "y"}
    assert dropped(rule("together", "a", "b"), rule("apart", "a", "b", over="")) == set()
    assert dropped(rule("together", "a", "b", over="room"), rule("apart", "a", "b")) == set()


def test_what_no_rule_can_be() -> None:
    cluster, ha = seen(FOUR, a="h1", b="h3", c="h1"), Availability()
    with pytest.raises(Invalid, match="over what its VMs are spread"):
        rule_add(cluster, ha, "r", "spread", ["a", "b"], strict=True)
    with pytest.raises(Invalid, match="no host has a tag 'room:…'"):
        rule_add(cluster, ha, "r", "spread", ["a", "b"], strict=True, over="room")
    with pytest.raises(Invalid, match="3 VMs cannot be apart over 2"):
        rule_add(cluster, ha, "r", "apart", ["a", "b", "c"], strict=True, over="rack")
    with pytest.raises(Invalid, match="skew"):
        rule_add(cluster, ha, "r", "spread", ["a", "b"], strict=True, over="rack", max_skew=0)
    with pytest.raises(Invalid, match="weight"):
        rule_add(cluster, ha, "r", "apart", ["a", "b"], strict=False, weight=0)


def test_how_it_is_broken_is_told() -> None:
    cluster = seen(FOUR, a="h1", b="h2", c="h3")
    for one, words in (
        (rule("apart", "a", "b", "c"), "a, b in rack r1"),
        (rule("together", "a", "c"), "a in rack r1; c in rack r2"),
        (rule("spread", "a", "b", "c"), ""),
        (rule("spread", "a", "b"), "a, b in rack r1"),
    ):
        assert statuses(cluster, Availability(rules={"r": one}))[0].broken == words
    plan = rule_add(cluster, Availability(), "r", "apart", ["a", "b"], strict=True, over="rack")
    assert plan.why.startswith("a, b are to be apart over rack")
    assert "now a, b in rack r1" in plan.why
