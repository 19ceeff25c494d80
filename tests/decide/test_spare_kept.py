"""Room for the loss of a host: what a person's placements may not take away, and what they may."""

from __future__ import annotations

import dataclasses
import itertools
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.decide import worlds
from tests.decide.worlds import FRESH, OVERHEAD
from vorch.availability import Availability, HaPolicy, HaVm, NodeChoice
from vorch.decide.lifecycle import NewVm, create, start
from vorch.decide.move import migrate
from vorch.decide.place import Keeping, place, refusal
from vorch.errors import NoRoom, Unsupported
from vorch.model import Cluster, Domain, Node, Pool, Power, Vm
from vorch.plan import MigrateDomain, Plan

SHARED = {"local": Pool(name="local", url="rbd://vms")}
# Two of these fill a host: 4096 - 512 - 3 * 64 is less than three of them.
SIZE = 1600


def guest(name: str, number: int, node: str, **other: object) -> Vm:
    fields: dict[str, object] = {
        "memory_mib": SIZE,
        "memory_max_mib": SIZE,
        "wanted": "running",
        **other,
    }
    return worlds.vm(name, number, node=node, **fields)


def hosts(*names: str) -> tuple[Node, ...]:
    return tuple(
        dataclasses.replace(worlds.node(name, memory_mib=4096), uri=f"qemu+tls://{name}/system")
        for name in names or ("h1", "h2", "h3")
    )


def seen(*vms: Vm, **other: object) -> Cluster:
    fields: dict[str, object] = {"power": Power.RUNNING, "nodes": hosts(), "pools": SHARED}
    return worlds.cluster(*vms, **{**fields, **other})  # type: ignore[arg-type]


def after(*names: str, force: bool = False, **policy: object) -> Keeping:
    """Those are looked after."""
    return Keeping(
        ha=Availability(
            policy=HaPolicy(**policy),  # type: ignore[arg-type]
            vms={name: HaVm(vm=name) for name in names},
        ),
        force=force,
    )


# A host may be lost while no more than four of six places are taken.
FOUR = (guest("a", 1, "h1"), guest("b", 2, "h2"), guest("c", 3, "h3"), guest("d", 4, "h1"))
NEW = guest("new", 9, "h1")


def test_what_takes_the_last_room_is_refused_with_the_reason_of_each_host() -> None:
    with pytest.raises(NoRoom, match="could not be lost any more") as caught:
        place(seen(*FOUR), NEW, overhead_mib=OVERHEAD, keeping=after("a", "b", "c", "d"))
    refused = caught.value.fields["refused"]
    assert isinstance(refused, dict)
    assert sorted(refused) == ["h1", "h2", "h3"]
    assert "MiB of memory are short" in refused["h1"]
    assert "--force" in refused["h2"]


def test_force_and_the_policy_overrule_that_and_say_so() -> None:
    for keeping in (after(*"abcd", force=True), after(*"abcd", spare="warn")):
        choice = place(seen(*FOUR), NEW, overhead_mib=OVERHEAD, keeping=keeping)
        assert choice.node == "h2"
        assert "the room for the loss of a host is gone by that" in choice.why
    choice = place(seen(*FOUR), NEW, overhead_mib=OVERHEAD, keeping=after(*"abcd", spare="ignore"))
    assert choice.why == "it has 1920 MiB free"


def test_the_policy_may_ask_for_two_hosts_or_a_rack() -> None:
    """Six places, four of them taken, is enough for one host, and not for two or a rack of two."""
    two = (guest("a", 1, "h1"), guest("b", 2, "h2"))
    wanted = after("a", "b", spare_hosts=2)
    # One more, and all three are in the two places of whichever host is left.
    with pytest.raises(NoRoom, match="could not be lost at once any more") as caught:
        place(seen(*two), NEW, overhead_mib=OVERHEAD, keeping=wanted)
    assert "--force" in caught.value.message
    assert place(seen(*two), NEW, overhead_mib=OVERHEAD, keeping=after("a", "b")).node == "h3"
    racked = tuple(
        dataclasses.replace(one, tags=(f"rack:{rack}",))
        for one, rack in zip(hosts(), ("r1", "r1", "r2"), strict=True)
    )
    keeping = after("a", "b", spare_over="rack")
    with pytest.raises(NoRoom, match="rack:r1 could not be lost at once any more"):
        place(seen(*two, nodes=racked), NEW, overhead_mib=OVERHEAD, only="h3", keeping=keeping)
    warned = after("a", "b", spare_over="rack", spare="warn")
    choice = place(seen(*two, nodes=racked), NEW, overhead_mib=OVERHEAD, only="h3", keeping=warned)
    assert "gone by that" in choice.why


def test_only_vms_that_are_looked_after_need_room() -> None:
    # With one of them alone a place is enough.
    choice = place(seen(*FOUR), NEW, overhead_mib=OVERHEAD, keeping=after("b"))
    assert choice.node == "h2"
    assert "gone" not in choice.why


def test_where_it_was_gone_before_nothing_is_refused_for_it() -> None:
    five = (*FOUR, guest("e", 5, "h2"))
    choice = place(seen(*five), NEW, overhead_mib=OVERHEAD, keeping=after(*"abcde"))
    assert (choice.node, choice.why) == ("h3", "it has 1920 MiB free")


def test_a_host_that_spoils_nothing_is_taken_before_a_better_one_that_does() -> None:
    # The only refuge of `pinned` is h2.
    only = (NodeChoice(node="h1"), NodeChoice(node="h2"))
    pinned = guest("pinned", 1, "h1", memory_mib=3000, memory_max_mib=3000)
    ha = Availability(vms={"pinned": HaVm(vm="pinned", nodes=only, restricted=True)})
    busy = guest("busy", 2, "h3")
    choice = place(seen(pinned, busy), NEW, overhead_mib=OVERHEAD, keeping=Keeping(ha=ha))
    assert choice.node == "h3"
    assert "on h2 it would take away the room for the loss of a host" in choice.why


def test_a_new_one_that_is_created_is_held_to_it() -> None:
    new = NewVm(name="new", memory_mib=SIZE, networks=(), start=True)
    with pytest.raises(NoRoom, match="could not be lost any more"):
        create(seen(*FOUR), new, FRESH, overhead_mib=OVERHEAD, keeping=after(*"abcd"))
    # Off it takes no room.
    off = dataclasses.replace(new, start=False)
    create(seen(*FOUR), off, FRESH, overhead_mib=OVERHEAD, keeping=after(*"abcd"))


def test_a_start_is_held_to_it_where_it_is() -> None:
    there = guest("there", 8, "h2", wanted="stopped")
    cluster = seen(*FOUR)
    cluster = dataclasses.replace(cluster, vms={**cluster.vms, "there": there})
    with pytest.raises(NoRoom, match=r"cannot start VM 'there' on 'h2': .* --force") as caught:
        start(cluster, "there", overhead_mib=OVERHEAD, keeping=after(*"abcd"))
    assert caught.value.fields["node"] == "h2"
    plan = start(cluster, "there", overhead_mib=OVERHEAD, keeping=after(*"abcd", force=True))
    assert "gone by that" in plan.why


def moved(cluster: Cluster, keeping: Keeping, target: str | None = None) -> Plan:
    return migrate(
        cluster,
        "d",
        target,
        overhead_mib=OVERHEAD,
        pause_limit_ms=300,
        bandwidth_mib_s=0,
        keeping=keeping,
    )


def target_of(plan: Plan) -> str:
    return next(step.target for step in plan.steps if isinstance(step, MigrateDomain))


def test_a_move_that_leaves_as_much_room_is_let_through() -> None:
    assert target_of(moved(seen(*FOUR), after(*"abcd"))) == "h2"


def test_a_move_that_packs_what_had_to_stay_apart_in_case_is_refused() -> None:
    # `x` takes a place that only h1 has, should h2 be lost.
    x = guest("x", 1, "h2", memory_mib=3300, memory_max_mib=3300)
    cluster = seen(x, guest("d", 4, "h3"), guest("e", 5, "h3"))
    with pytest.raises(NoRoom, match="'h2' could not be lost"):
        moved(cluster, after("x", "d", "e"), "h1")
    assert target_of(moved(cluster, after("x", "d", "e", force=True), "h1")) == "h1"


def test_tags_and_vcpus_are_told() -> None:
    node = dataclasses.replace(hosts()[0], tags=("gpu",), cpu_ratio=0.25)
    cluster = seen(guest("a", 1, "h1"), nodes=(node,))
    asking = guest("new", 9, "h1", require_tags=("gpu", "fast"))
    assert refusal(cluster, node, asking, OVERHEAD) == "it has no tag 'fast', which the VM asks for"
    many = guest("new", 9, "h1", vcpus=2)
    assert refusal(cluster, node, many, OVERHEAD) == (
        "1 vCPUs are short (2 wanted, 1 free at 0.25 per CPU)"
    )
    with pytest.raises(NoRoom):
        place(cluster, many, overhead_mib=OVERHEAD)
    with pytest.raises(Unsupported):
        place(cluster, asking, overhead_mib=OVERHEAD)


def survives(cluster: Cluster, ha: Availability) -> bool:
    """Whether any host could be lost, found by going through all that its VMs could do."""
    free = {
        name: node.facts.memory_mib - node.reserve_mib
        for name, node in cluster.nodes.items()
        if node.facts is not None
    }
    for domain in cluster.domains.values():
        free[domain.node] -= domain.memory_mib + OVERHEAD
    room = {name: max(mib, 0) for name, mib in free.items()}
    for lost in cluster.nodes:
        sizes = [
            domain.memory_mib + OVERHEAD
            for domain in cluster.domains.values()
            if domain.node == lost and domain.name in ha.vms
        ]
        others = [name for name in cluster.nodes if name != lost]
        if not any(
            all(
                sum(size for size, at in zip(sizes, hosts, strict=True) if at == name) <= room[name]
                for name in others
            )
            for hosts in itertools.product(others, repeat=len(sizes))
        ):
            return False
    return True


@settings(max_examples=80)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(1, 6), st.booleans()), max_size=6),
    st.integers(1, 6),
    st.booleans(),
)
def test_what_could_be_lost_before_can_be_lost_after(
    there: list[tuple[int, int, bool]], size: int, moves: bool
) -> None:
    vms = [
        guest(f"v{n}", n, f"h{host + 1}", memory_mib=500 * mib, memory_max_mib=500 * mib)
        for n, (host, mib, _) in enumerate(there, 1)
    ]
    cluster = seen(*vms)
    keeping = after(*(f"v{n}" for n, (_, _, kept) in enumerate(there, 1) if kept))
    moves = moves and bool(vms)
    new = (
        vms[0] if moves else guest("new", 9, "h1", memory_mib=500 * size, memory_max_mib=500 * size)
    )
    among = [name for name in cluster.nodes if not moves or name != new.node]
    before = survives(cluster, keeping.ha)
    try:
        choice = place(cluster, new, overhead_mib=OVERHEAD, among=among, keeping=keeping)
    except NoRoom as exc:
        refused = exc.fields["refused"]
        assert isinstance(refused, dict)
        if any("lost" in why for why in refused.values()):
            assert before
        return
    domain = Domain(
        id=new.id,
        name=new.name,
        node=choice.node,
        power=Power.RUNNING,
        vcpus=new.vcpus,
        memory_mib=new.memory_mib,
    )
    cluster = dataclasses.replace(
        cluster,
        vms={**cluster.vms, new.name: new},
        domains={**cluster.domains, new.id: domain},
    )
    assert survives(cluster, keeping.ha) or not before


def test_one_host_or_nobody_looked_after_loads_no_engine() -> None:
    code = """
import sys
from tests.decide.test_spare_kept import FOUR, NEW, after, hosts, seen
from vorch.decide.place import place
for cluster, keeping in ((seen(*FOUR), after()), (seen(nodes=hosts('h1')), after('a'))):
    place(cluster, NEW, overhead_mib=64, keeping=keeping)
assert 'numpy' not in sys.modules
place(seen(*FOUR[:3]), NEW, overhead_mib=64, keeping=after('a'))
assert 'numpy' in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
