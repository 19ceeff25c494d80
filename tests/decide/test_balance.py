"""The plan for the living cluster, and when whoever watches may make one: values in, values out."""

from __future__ import annotations

import dataclasses

import pytest

from tests.decide import worlds
from tests.decide.worlds import OVERHEAD
from vorch.availability import (
    Availability,
    HaPolicy,
    HaVm,
    HostOrder,
    Limits,
    MoveOrder,
    NodeChoice,
    NodeRecord,
    NodeState,
    Rule,
    Sign,
    VmRecord,
    VmState,
)
from vorch.decide.balance import (
    Known,
    balanced_fleet,
    could,
    failed_at,
    link_mib_s,
    moved_at,
    need_same,
    planned,
    turn,
)
from vorch.decide.balance_auto import trouble
from vorch.decide.balance_settings import BalancePolicy, quiet_for, quiet_span
from vorch.decide.room.balance import BalancePlan, Move
from vorch.errors import Conflict, Invalid, NoRoom
from vorch.model import Cluster, Node, Pool, Power, Task, TaskState, Vm

SHARED = {"local": Pool(name="local", url="rbd://vms")}
NAMES = tuple("abcdef")
LOADS = {name: 1.8 - 0.2 * number for number, name in enumerate(NAMES)}
LIMITS = Limits(
    gone_after_s=3.0,
    storage_cut_after_s=20.0,
    hollow_after_s=10.0,
    silent_window_s=60.0,
    shutdown_grace_s=60.0,
    retry_after_s=10.0,
    fence_retry_after_s=5.0,
    vm_overhead_mib=OVERHEAD,
    migration_pause_limit_ms=300,
    migration_bandwidth_mib_s=0,
)


def nodes(**changes: object) -> tuple[Node, ...]:
    return tuple(
        dataclasses.replace(
            worlds.node(name),
            uri=f"qemu+tls://{name}/system",
            **changes,  # type: ignore[arg-type]
        )
        for name in ("h1", "h2", "h3")
    )


def cluster(*vms: Vm, **other: object) -> Cluster:
    given = vms or tuple(
        worlds.vm(name, number, vcpus=2, nics=()) for number, name in enumerate(NAMES, 1)
    )
    fields: dict[str, object] = {
        "power": Power.RUNNING,
        "nodes": nodes(),
        "pools": SHARED,
        **other,
    }
    return worlds.cluster(*given, **fields)  # type: ignore[arg-type]


def known(**changes: object) -> Known:
    fields: dict[str, object] = {"now": 5000.0, "overhead_mib": OVERHEAD, "loads": LOADS, **changes}
    return Known(**fields)  # type: ignore[arg-type]


def plan(found: Cluster, ha: Availability | None = None, **changes: object) -> BalancePlan:
    settled = ha or Availability()
    return planned(
        found, settled, known(**changes), lambda then, step: could(then, settled, step, LIMITS)
    )


def moved(found: BalancePlan) -> dict[str, str]:
    return {move.guest: move.target for move in found.moves}


# ---------------------------------------------------------------------------------------------
# The plan


def test_it_evens_out_what_is_measured() -> None:
    found = plan(cluster())
    assert 3 <= len(found.moves) <= 5
    assert found.after.figure < found.before.figure
    after = dict.fromkeys(NAMES, "h1") | moved(found)
    sums = [sum(LOADS[n] for n, host in after.items() if host == h) for h in ("h1", "h2", "h3")]
    assert max(sums) - min(sums) < 1.0


def test_who_cannot_move_while_it_runs_stays() -> None:
    ha = Availability(vms={"a": HaVm(vm="a", moves="cold")})
    fleet = balanced_fleet(cluster(), ha, known(busy=frozenset("b"), moved_at={"c": 4940.0}))
    assert fleet.guest("a").moves == "pinned"
    assert fleet.guest("b").moves == "pinned"
    assert fleet.guest("c").moves == "live"
    assert fleet.guest("c").moved_s_ago == 60.0
    assert fleet.guest("d").moved_s_ago is None
    assert not {"a", "b"} & moved(plan(cluster(), ha, busy=frozenset("b"))).keys()


def test_what_high_availability_is_about_to_do_is_left_to_it() -> None:
    ha = Availability(
        vms={name: HaVm(vm=name) for name in "ab"},
        vm_records={
            "a": VmRecord(vm="a", state=VmState.STARTING),
            "b": VmRecord(vm="b", state=VmState.RUNNING),
        },
    )
    fleet = balanced_fleet(cluster(), ha, known())
    assert (fleet.guest("a").moves, fleet.guest("b").moves) == ("pinned", "live")


def test_nobody_is_taken_to_a_host_that_it_likes_less() -> None:
    ha = Availability(
        vms={
            "a": HaVm(vm="a", nodes=(NodeChoice(node="h1", priority=2), NodeChoice(node="h2"))),
            "b": HaVm(vm="b", nodes=(NodeChoice(node="h3", priority=2), NodeChoice(node="h1"))),
        }
    )
    fleet = balanced_fleet(cluster(), ha, known())
    assert [host for host, _ in fleet.guest("a").needs.barred] == ["h2", "h3"]
    assert [host for host, _ in fleet.guest("b").needs.barred] == ["h2"]
    targets = moved(plan(cluster(), ha))
    assert "a" not in targets
    assert targets.get("b") in (None, "h3")


def test_what_the_verb_refuses_is_not_planned() -> None:
    """The hosts are told apart by more than the engine knows: one is not reached by others."""
    two = tuple(
        dataclasses.replace(one, uri="qemu:///system") if one.name == "h2" else one
        for one in nodes()
    )
    found = plan(cluster(nodes=two))
    assert set(moved(found).values()) == {"h3"}
    assert any("cannot go to 'h2'" in note for note in found.notes)


def test_a_plan_that_is_always_refused_is_none() -> None:
    def never(then: Cluster, step: Move) -> object:
        raise NoRoom("cannot move: no")

    assert planned(cluster(), Availability(), known(), never).moves == ()


def test_moves_are_tried_on_what_those_before_have_made() -> None:
    seen: list[tuple[Move, set[str]]] = []

    def look(then: Cluster, step: Move) -> object:
        assert then.vms[step.guest].node == step.source
        assert then.domains[then.vms[step.guest].id].node == step.source
        there = {one.name for one in then.domains.values() if one.node == step.target}
        assert there <= then.vms.keys()
        assert {then.vms[name].node for name in there} <= {step.target}
        seen.append((step, there))
        return None

    found = planned(cluster(), Availability(), known(), look)
    assert [step for step, _ in seen] == list(found.moves)
    for number, (step, there) in enumerate(seen):
        before = {one.guest for one, _ in seen[:number] if one.target == step.target}
        assert there == before


def test_rules_are_kept() -> None:
    rules = {
        "pair": Rule(name="pair", kind="apart", vms=("a", "b")),
        "home": Rule(
            name="home", kind="nodes", vms=("c",), nodes=(NodeChoice(node="h1"),), strict=True
        ),
    }
    found = moved(plan(cluster(), Availability(rules=rules)))
    after = dict.fromkeys(NAMES, "h1") | found
    assert after["a"] != after["b"]
    assert after["c"] == "h1"


def test_room_for_the_loss_of_a_host_is_kept() -> None:
    """Three hosts of 4 GiB. The refuge of a large VM is the third one, as long as that is empty."""
    hosts = tuple(
        dataclasses.replace(
            worlds.node(name, memory_mib=4096), uri=f"qemu+tls://{name}/system", reserve_mib=0
        )
        for name in ("h1", "h2", "h3")
    )
    sizes = (("a", "h1", 3000), ("c", "h2", 1200), ("d", "h2", 1200))
    vms = [
        worlds.vm(name, number, node=node, memory_mib=mib, memory_max_mib=mib, nics=())
        for number, (name, node, mib) in enumerate(sizes, 1)
    ]
    found = cluster(*vms, nodes=hosts)
    looked_after = {"a": HaVm(vm="a")}
    free = plan(found, Availability(policy=HaPolicy(spare="ignore"), vms=looked_after), loads={})
    assert moved(free) in ({"c": "h3"}, {"d": "h3"})
    kept = plan(found, Availability(vms=looked_after), loads={})
    assert not moved(kept)
    assert any("'h1' could not be lost any more" in note for note in kept.notes)


def test_what_moves_have_shown_of_links_and_when_they_were() -> None:
    def task(number: int, **changes: object) -> Task:
        fields: dict[str, object] = {
            "id": f"t{number}",
            "verb": "migrate",
            "subject": "a",
            "why": "",
            "who": "",
            "started_at": 10.0 * number,
            "finished_at": 10.0 * number + 5,
            "state": TaskState.DONE,
            "result": {"speed_mib_s": 100.0 * number, "sent_mib": 500},
            **changes,
        }
        return Task(**fields)  # type: ignore[arg-type]

    tasks = [
        task(1),
        task(2),
        task(3, subject="b"),
        task(4, verb="stop"),
        task(5, state=TaskState.FAILED),
        task(6, result={}, finished_at=None),
    ]
    assert moved_at(tasks) == {"a": 60.0, "b": 35.0}
    # A later success makes up for a failure, as a cancel does.
    assert failed_at(tasks) == {}
    assert failed_at([*tasks, task(7, state=TaskState.UNDONE)]) == {"a": 75.0}
    assert failed_at([*tasks, task(7, state=TaskState.CANCELLED)]) == {}
    assert link_mib_s(tasks, 0) == 200.0
    assert link_mib_s(tasks, 50) == 50.0
    assert link_mib_s([], 0) == 0.0
    assert any("guessed" in note for note in plan(cluster()).notes)
    assert not plan(cluster(), link_mib_s=100.0).notes


# ---------------------------------------------------------------------------------------------
# The turn of a move

STEP = Move(guest="a", source="h1", target="h2", gain=1.0, memory_mib=1, seconds=1.0, why="so")


def test_a_move_is_the_verb_with_its_reason() -> None:
    found = cluster()
    made = turn(found, Availability(), STEP, found.vms, LIMITS)
    assert (made.verb, made.subject, made.why) == ("migrate", "a", "to h2 because so")


def test_one_that_is_away_for_a_maintenance_still_has_its_home() -> None:
    away = worlds.vm("a", 1, nics=(), home="h3")
    made = turn(cluster(away), Availability(), STEP, {"a": away}, LIMITS)
    saved = next(step for step in made.steps if getattr(step, "key", "") == "vm/a")
    assert saved.after is not None  # type: ignore[union-attr]
    assert saved.after["home"] == "h3"  # type: ignore[union-attr]


def _elsewhere(found: Cluster) -> Cluster:
    vm = dataclasses.replace(found.vms["a"], node="h3")
    return dataclasses.replace(found, vms={**found.vms, "a": vm})


def _larger(found: Cluster) -> Cluster:
    vm = dataclasses.replace(found.vms["a"], memory_mib=2048, memory_max_mib=2048)
    return dataclasses.replace(found, vms={**found.vms, "a": vm})


def _closed(found: Cluster) -> Cluster:
    node = dataclasses.replace(found.nodes["h2"], cordoned=True)
    return dataclasses.replace(found, nodes={**found.nodes, "h2": node})


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (_elsewhere, "it is on 'h3' by now"),
        (_larger, "it was changed meanwhile"),
        (_closed, "nothing may go there now: it is cordoned"),
        (lambda c: dataclasses.replace(c, domains={}), "does not run any more"),
        (lambda c: dataclasses.replace(c, vms={}), "no VM of that name"),
        (
            lambda c: dataclasses.replace(c, nodes={"h1": c.nodes["h1"]}),
            "that host is not there any more",
        ),
    ],
)
def test_what_is_not_right_any_more_is_refused(change: object, why: str) -> None:
    found = cluster()
    with pytest.raises(Conflict, match=why):
        need_same(change(found), Availability(), STEP, found.vms)  # type: ignore[operator]


# ---------------------------------------------------------------------------------------------
# By itself


def well(**changes: object) -> Availability:
    fields: dict[str, object] = {
        "node_records": {name: NodeRecord(node=name) for name in ("h1", "h2", "h3")},
        **changes,
    }
    return Availability(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ha", "why"),
    [
        (well(), ""),
        (Availability(), "h1 was not looked at yet"),
        (well(policy=HaPolicy(disarmed_until=9000.0)), "high availability is disarmed"),
        (well(policy=HaPolicy(disarmed_until=900.0)), ""),
        (
            well(
                node_records={
                    **well().node_records,
                    "h2": NodeRecord(node="h2", state=NodeState.SUSPECT),
                }
            ),
            "h2 is suspect",
        ),
        (
            well(
                node_records={
                    **well().node_records,
                    "h2": NodeRecord(node="h2", sign=Sign.DAEMON_SILENT),
                }
            ),
            "h2 is not well: daemon-silent",
        ),
        (well(orders={"h3": HostOrder(node="h3", maintenance=True)}), "h3 is to be emptied"),
        (well(moves={"a": MoveOrder(vm="a", target="h2")}), "a is to be moved"),
        (
            well(
                vms={"a": HaVm(vm="a")},
                vm_records={"a": VmRecord(vm="a", state=VmState.RECOVERING)},
            ),
            "a is recovering",
        ),
        (
            well(vms={"a": HaVm(vm="a")}, vm_records={"a": VmRecord(vm="a", state=VmState.ERROR)}),
            "",
        ),
    ],
)
def test_it_is_done_only_where_all_is_well(ha: Availability, why: str) -> None:
    assert trouble(cluster(), ha, 5000.0) == why


@pytest.mark.parametrize(
    ("spans", "of_day", "left"),
    [
        (("22:00-06:00",), 21 * 3600 + 3599, None),
        (("22:00-06:00",), 22 * 3600, 8 * 3600),
        (("22:00-06:00",), 3600, 5 * 3600),
        (("22:00-06:00",), 6 * 3600, None),
        (("09:00-17:30",), 12 * 3600, 5.5 * 3600),
        (("9:00-10:00", "09:30-11:00"), 9.75 * 3600, 1.25 * 3600),
        ((), 12 * 3600, None),
    ],
)
def test_quiet_hours(spans: tuple[str, ...], of_day: float, left: float | None) -> None:
    policy = BalancePolicy(quiet=spans)
    day = 20_000 * 86400
    found = quiet_for(policy, day + of_day, 0.0)
    assert (None if found is None else found[0]) == left
    # By clocks that are two hours ahead.
    found = quiet_for(policy, day + of_day - 7200, 7200.0)
    assert (None if found is None else found[0]) == left


@pytest.mark.parametrize("text", ["", "22-6", "24:00-01:00", "22:00", "22:00-22:00", "22:60-23:00"])
def test_quiet_hours_that_are_none(text: str) -> None:
    with pytest.raises(Invalid):
        quiet_span(text)
