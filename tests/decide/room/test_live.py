"""The living cluster as a fleet: what counts, where, and what keeps a guest off a host."""

from __future__ import annotations

import dataclasses
from typing import Any

from tests.decide import worlds
from tests.decide.worlds import OVERHEAD
from vorch.availability import (
    Availability,
    HaVm,
    HostOrder,
    NodeChoice,
    NodeRecord,
    NodeState,
    Requested,
    Rule,
    VmRecord,
    VmState,
)
from vorch.decide.room.fleet import Apart, Fleet, Spread, Together
from vorch.decide.room.live import fleet_of, needs_of
from vorch.decide.room.pick import place
from vorch.decide.room.table import Table, unmet
from vorch.decide.rules import resolve
from vorch.model import Cluster, Domain, HugePages, Node, NumaCell, Pool, Power, Vm, Watchdog

SHARED = {"local": Pool(name="local", url="rbd://vms")}
A, B = worlds.vm("a", 1, node="h1"), worlds.vm("b", 2, node="h2")


def nodes(*names: str, **changes: object) -> tuple[Node, ...]:
    return tuple(
        dataclasses.replace(worlds.node(name), **changes)  # type: ignore[arg-type]
        for name in names or ("h1", "h2", "h3")
    )


def seen(*vms: Vm, **other: object) -> Cluster:
    fields: dict[str, object] = {
        "power": Power.RUNNING,
        "nodes": nodes(),
        "pools": SHARED,
        **other,
    }
    return worlds.cluster(*vms, **fields)  # type: ignore[arg-type]


def fleet(cluster: Cluster, ha: Availability | None = None, **other: object) -> Fleet:
    return fleet_of(cluster, ha, overhead_mib=OVERHEAD, **other)  # type: ignore[arg-type]


def test_hosts_and_those_that_run() -> None:
    found = fleet(
        seen(A, B, worlds.vm("off", 3), nodes=nodes(tags=("rack:r1", "gpu"), cpu_ratio=2.0)),
        loads={"a": 1.5},
    )
    host = found.host("h1")
    assert (host.cpus, host.memory_mib, host.reserve_mib, host.cpu_ratio) == (8, 8192, 512, 2.0)
    assert host.domain("rack") == "r1"
    assert host.pools is None
    guest = found.guest("a")
    assert (guest.host, guest.memory_mib, guest.overhead_mib, guest.vcpus) == ("h1", 1024, 64, 1)
    assert (guest.cpu_load, guest.ha, guest.moves) == (1.5, False, "live")
    assert found.guest("b").cpu_load is None
    # `worlds` has all of them run.
    assert found.guest("off").host == "h1"


def test_off_and_not_to_run_is_no_guest() -> None:
    found = fleet(seen(A, power=None))
    assert found.guests == ()
    kept = Availability(vms={"a": HaVm(vm="a", start_order=3)})
    guest = fleet(seen(A, power=None), kept).guest("a")
    assert (guest.host, guest.ha, guest.priority, guest.moves) == ("h1", True, -3, "cold")


def test_who_waits_for_room_is_nowhere_and_who_was_given_up_is_no_guest() -> None:
    ha = Availability(
        vms={name: HaVm(vm=name) for name in "ab"},
        vm_records={
            "a": VmRecord(vm="a", state=VmState.AWAITING_ROOM),
            "b": VmRecord(vm="b", state=VmState.ERROR),
        },
    )
    found = fleet(seen(A, B, power=None), ha)
    assert [(guest.name, guest.host) for guest in found.guests] == [("a", "")]


def test_one_that_is_to_be_off_is_not_started_elsewhere() -> None:
    ha = Availability(vms={"a": HaVm(vm="a", requested=Requested.STOPPED)})
    assert fleet(seen(A), ha).guest("a").ha is False


def test_guests_of_others_and_of_a_move_under_way_take_room() -> None:
    cluster = seen(A)
    stray = Domain(
        id="cccccccc-0000-4000-8000-000000000001",
        name="theirs",
        node="h2",
        power=Power.RUNNING,
        vcpus=2,
        memory_mib=2000,
        ours=False,
    )
    cluster = dataclasses.replace(cluster, domains={**cluster.domains, stray.id: stray})
    found = fleet(cluster, Availability(vms={"a": HaVm(vm="a")}, busy={"a": "h3"}))
    assert found.host("h2").other_memory_mib == 2000 + OVERHEAD
    assert found.host("h2").other_vcpus == 2
    assert found.host("h3").other_memory_mib == 1024 + OVERHEAD
    assert found.guest("a").moves == "pinned"


def test_why_nothing_may_go_to_a_host() -> None:
    hosts = (*nodes("h1"), *nodes("h2", cordoned=True), *nodes("h3", "h4", "h5"))
    ha = Availability(
        orders={"h3": HostOrder(node="h3", maintenance=True)},
        node_records={"h4": NodeRecord(node="h4", state=NodeState.FENCED)},
    )
    found = fleet(seen(A, nodes=hosts, silent={"h5": "no route"}), ha)
    closed = {host.name: host.closed for host in found.hosts}
    assert closed["h1"] == ""
    assert "cordoned" in closed["h2"]
    assert "maintenance" in closed["h3"]
    assert "fenced" in closed["h4"]
    assert closed["h5"] == "it does not answer: no route"


def test_a_host_that_was_never_asked_is_as_large_as_what_is_on_it() -> None:
    found = fleet(seen(A, nodes=(Node(name="h1", uri="qemu:///system"), *nodes("h2"))))
    table = Table(found)
    assert table.free_mib[table.host("h1")] == 0
    assert "how large" in found.host("h1").closed


def test_a_vm_on_a_silent_host_is_still_there() -> None:
    gone = dataclasses.replace(A, wanted="running")
    found = fleet(seen(gone, power=None, silent={"h1": "no route"}))
    assert (found.guest("a").host, found.guest("a").moves) == ("h1", "pinned")


def test_disks_on_one_host_pin_it() -> None:
    found = fleet(seen(A, pools={"local": Pool(name="local", url="dir:///pool", node="h1")}))
    assert found.guest("a").moves == "pinned"
    assert unmet(found.host("h2"), found.guest("a").needs) == "it does not reach pool 'local'"
    assert unmet(found.host("h1"), found.guest("a").needs) is None


def test_rules_in_force() -> None:
    rules = {
        "near": Rule(name="near", kind="together", vms=("a", "b"), over="rack"),
        "far": Rule(name="far", kind="apart", vms=("a", "b"), strict=False, weight=3.0),
        "even": Rule(name="even", kind="spread", vms=("a", "b"), over="rack", max_skew=2),
        "few": Rule(name="few", kind="apart", vms=("a", "nobody")),
    }
    found = fleet(seen(A, B), Availability(rules=rules))
    assert found.rules == (
        Spread(name="even", guests=("a", "b"), over="rack", max_skew=2),
        Apart(name="far", guests=("a", "b"), hard=False, weight=3.0),
        Together(name="near", guests=("a", "b"), over="rack"),
    )


def test_hosts_that_settings_name() -> None:
    choices = (NodeChoice(node="h2", priority=2), NodeChoice(node="h3", priority=1))
    ha = Availability(
        vms={
            "a": HaVm(vm="a", nodes=choices, restricted=True),
            "b": HaVm(vm="b", nodes=choices),
        }
    )
    found = fleet(seen(A, B), ha)
    assert found.guest("a").needs.hosts == ("h2", "h3")
    assert found.guest("b").needs.hosts is None
    assert found.guest("b").needs.preferred == (("h2", 2), ("h3", 1))


def test_one_to_be_placed_is_nowhere_yet_and_will_be_looked_after() -> None:
    ha = Availability(vms={"a": HaVm(vm="a", requested=Requested.STOPPED)})
    found = fleet(seen(A, B), ha, more=[A])
    assert (found.guest("a").host, found.guest("a").ha) == ("", True)
    assert found.host("h1").other_memory_mib == 0


def test_one_that_runs_goes_only_to_hosts_like_its_own() -> None:
    hosts = (worlds.node("h1", cpu_model="big"), worlds.node("h2", cpu_model="small"))
    other = worlds.node("h3")
    assert other.facts is not None
    slow = dataclasses.replace(other, facts=dataclasses.replace(other.facts, accelerator="tcg"))
    found = fleet(seen(dataclasses.replace(A, cpu="host"), nodes=(*hosts, slow)))
    needs = found.guest("a").needs
    assert unmet(found.host("h1"), needs) is None
    assert "CPU of its host" in str(unmet(found.host("h2"), needs))
    assert "accelerator" in str(unmet(found.host("h3"), needs))


def test_cells_and_huge_pages() -> None:
    cell = NumaCell(
        number=0, cpus=8, memory_mib=8192, pages=(HugePages(size_kib=2048, memory_mib=2048),)
    )
    asked = dataclasses.replace(
        A, huge_pages="2M", one_numa_cell=True, require_tags=("gpu",), node="h2"
    )
    hosts = (
        dataclasses.replace(worlds.node("h1", cells=(cell,)), tags=("gpu",)),
        *nodes("h2", tags=("gpu",)),
        *nodes("h3"),
    )
    found = fleet(seen(asked, power=None, nodes=hosts), more=[asked])
    answer = place(found, ["a"])
    assert answer.hosts == {"a": "h1"}
    refused = {one.host: one.refused for one in answer.explain("a")}
    assert refused["h2"] == "it has no huge pages of 2048 KiB"
    assert refused["h3"] == "it has no tag 'gpu'"


def test_what_vms_have_in_common_is_what_each_alone_asks_for() -> None:
    """The look shares needs of VMs that are alike; `needs_of` knows nothing of that."""
    kinds: list[dict[str, Any]] = [
        {},
        {},
        {},
        {"cpu": "host"},
        {"cpu": "host"},
        {"machine": "pc"},
        {"tpm": True},
        {"require_tags": ("gpu",)},
        {"require_tags": ("ssd",)},
        {"nics": ()},
        {"disks": ()},
        {"one_numa_cell": True},
        {"hypervisor": "any"},
        {"hypervisor": "any", "xen_kind": "pvh"},
        {"hypervisor": "any", "xen_loader": "pvgrub"},
        {"hypervisor": "any", "watchdog": Watchdog.RESET},
        {"hypervisor": "xen"},
    ]
    many = [
        dataclasses.replace(worlds.vm(f"v{n}", n + 1, node=f"h{n % 3 + 1}"), **changes)
        for n, changes in enumerate(kinds)
    ]
    # The first two are alike, and rules are about one of them.
    ha = Availability(
        vms={"v0": HaVm(vm="v0", nodes=(NodeChoice(node="h2"),), restricted=True)},
    )
    cluster = seen(*many, nodes=nodes(tags=("gpu",)))
    found = fleet(cluster, ha)
    placement = resolve(ha.vms, ha.rules, cluster.nodes)
    for vm in many:
        asked = needs_of(cluster, placement, vm, cluster.domains.get(vm.id))
        assert found.guest(vm.name).needs == asked
    assert found.guest("v0").needs != found.guest("v1").needs
