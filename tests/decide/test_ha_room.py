"""A host is lost and room is tight: its VMs are decided on together, the most important first."""

from __future__ import annotations

import subprocess
import sys

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.decide import worlds
from vorch.availability import (
    Availability,
    Evidence,
    HaVm,
    NodeChoice,
    NodeRecord,
    NodeState,
    Requested,
    Rule,
    VmRecord,
    VmState,
)
from vorch.config import Settings
from vorch.decide import ha
from vorch.decide.choose import Board, Scene
from vorch.decide.errands import Round
from vorch.decide.rules import resolve
from vorch.model import Cluster, Pool
from vorch.orchestrator.limits import limits_of

LIMITS = limits_of(Settings())
OVERHEAD = LIMITS.vm_overhead_mib
NOW = 1000.0
SHARED = {"local": Pool(name="local", url="rbd://vms")}


def waiting(*, sizes: dict[str, int], free: dict[str, int], **other: object) -> Round:
    """VMs of h1, which is cut off, and what the other hosts have free (in places of VMs)."""
    vms = [
        worlds.vm(name, n, node="h1", memory_mib=mib, memory_max_mib=mib)
        for n, (name, mib) in enumerate(sizes.items(), 1)
    ]
    cluster = worlds.cluster(
        *vms,
        nodes=(
            worlds.node("h1", 65536),
            *(worlds.node(name, mib + 512) for name, mib in free.items()),
        ),
        pools=SHARED,
    )
    fields: dict[str, object] = {
        "vms": {name: HaVm(vm=name) for name in sizes},
        "evidence": {name: Evidence(node=name, libvirt=True) for name in free},
        "vm_records": {name: VmRecord(vm=name, state=VmState.RUNNING) for name in sizes},
        "node_records": {
            "h1": NodeRecord(node="h1", state=NodeState.FENCED, why="its power is off")
        },
        **other,
    }
    return ha.decide(cluster, Availability(**fields), LIMITS, NOW)  # type: ignore[arg-type]


def goes(found: Round) -> dict[str, str]:
    return {one.vm: one.node for one in found.errands if one.plan.verb == "recover"}


def mib(*guests: int) -> int:
    """Room for guests of these sizes."""
    return sum(one + OVERHEAD for one in guests)


def test_a_small_one_gives_the_large_one_its_host() -> None:
    found = waiting(sizes={"a": 1000, "z": 5000}, free={"h2": mib(1000), "h3": mib(5000)})
    assert goes(found) == {"a": "h2", "z": "h3"}
    record = found.vm_records["a"]
    assert record is not None
    assert record.state is VmState.RECOVERING
    assert "so that more of those that wait find room" in record.why


def test_who_comes_first_in_the_start_order_has_room_first() -> None:
    orders = {
        "a": HaVm(vm="a", start_order=2),
        "b": HaVm(vm="b", start_order=1),
        "c": HaVm(vm="c", start_order=1),
    }
    found = waiting(
        sizes={"a": 3000, "b": 1000, "c": 2500},
        free={"h2": mib(1000), "h3": mib(2500)},
        vms=orders,
    )
    assert goes(found) == {"b": "h2", "c": "h3"}
    record = found.vm_records["a"]
    assert record is not None
    assert record.state is VmState.AWAITING_ROOM
    assert "MiB of memory are short" in record.why


def test_rules_hold_for_all_together() -> None:
    rules = {"pair": Rule(name="pair", kind="apart", vms=("a", "b"))}
    only = {name: HaVm(vm=name, nodes=(NodeChoice(node="h2"),), restricted=True) for name in ("c",)}
    found = waiting(
        sizes={"a": 1000, "b": 1000, "c": 1000},
        free={"h2": mib(1000, 1000), "h3": mib(1000)},
        rules=rules,
        vms={name: HaVm(vm=name) for name in "ab"} | only,
    )
    hosts = goes(found)
    assert hosts["c"] == "h2"
    assert {hosts["a"], hosts["b"]} == {"h2", "h3"}


def test_one_that_is_to_be_off_takes_no_room() -> None:
    found = waiting(
        sizes={"a": 1000, "z": 5000},
        free={"h2": mib(1000), "h3": mib(5000)},
        vms={"a": HaVm(vm="a", requested=Requested.STOPPED), "z": HaVm(vm="z")},
    )
    assert goes(found)["z"] == "h3"


def test_where_one_after_the_other_does_no_engine_is_loaded() -> None:
    code = """
import sys
from tests.decide.test_ha_room import goes, mib, waiting
assert len(goes(waiting(sizes={'a': 1000, 'b': 900}, free={'h2': 9999, 'h3': 9999}))) == 2
# And where nobody has room, there is nothing to share out.
assert not goes(waiting(sizes={'a': 1000, 'b': 900}, free={'h2': 99, 'h3': 99}))
assert 'vorch.decide.room.recover' not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


SIZES = st.integers(1, 8)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(SIZES, st.integers(0, 2)), min_size=1, max_size=6),
    st.lists(st.integers(0, 12), min_size=1, max_size=4),
    st.sets(st.integers(0, 5), max_size=3),
)
def test_never_over_memory_and_never_two_that_are_apart(
    asked: list[tuple[int, int]], rooms: list[int], rivals: set[int]
) -> None:
    sizes = {f"v{n}": 512 * size for n, (size, _) in enumerate(asked)}
    free = {f"h{n}": 512 * room + 100 for n, room in enumerate(rooms, 2)}
    apart = tuple(f"v{n}" for n in sorted(rivals) if n < len(asked))
    rules = {"r": Rule(name="r", kind="apart", vms=apart)} if len(apart) > 1 else {}
    found = waiting(
        sizes=sizes,
        free=free,
        rules=rules,
        vms={f"v{n}": HaVm(vm=f"v{n}", start_order=order) for n, (_, order) in enumerate(asked)},
    )
    hosts = goes(found)
    for host, room in free.items():
        assert sum(mib(sizes[name]) for name, at in hosts.items() if at == host) <= room
    if rules and "r" not in resolve({}, rules, [*free, "h1"]).dropped:
        assert len({hosts[name] for name in apart if name in hosts}) == len(
            [name for name in apart if name in hosts]
        )


def test_of_what_does_not_all_fit_the_rest_is_packed() -> None:
    # Here, so that the engine is not loaded with this file.
    from vorch.decide.room.recover import recovered

    vms = [
        worlds.vm(name, n, memory_mib=size, memory_max_mib=size, node="h1")
        for n, (name, size) in enumerate({"a": 900, "b": 800, "c": 700, "d": 1500}.items(), 1)
    ]
    cluster: Cluster = worlds.cluster(
        *vms,
        nodes=(worlds.node("h2", mib(900, 700) + 512), worlds.node("h3", mib(800) + 512)),
        pools=SHARED,
    )
    scene = Scene(
        cluster=cluster,
        placement=resolve({}, {}, cluster.nodes),
        open=frozenset(cluster.nodes),
        overhead_mib=OVERHEAD,
    )
    known = Availability(
        vms={one.name: HaVm(vm=one.name, start_order=9 * (one.name == "d")) for one in vms}
    )
    hosts = recovered(scene, Board(), known, vms)
    assert hosts == {"a": "h2", "b": "h3", "c": "h2"}
