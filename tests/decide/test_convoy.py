"""Several VMs that move at once: who may begin, and where each goes."""

from __future__ import annotations

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from tests.decide.worlds import OVERHEAD, node, vm
from vorch.decide import convoy
from vorch.decide.convoy import Limits, Trip
from vorch.decide.place import place
from vorch.model import Cluster, Domain, Power

HOSTS = st.sampled_from(["h1", "h2", "h3", "h4"])
TRIPS = st.lists(st.tuples(HOSTS, HOSTS).filter(lambda one: one[0] != one[1]), max_size=12).map(
    lambda pairs: [Trip(f"vm{number}", *pair) for number, pair in enumerate(pairs)]
)


@given(TRIPS, TRIPS, st.integers(0, 4), st.integers(0, 4))
def test_no_limit_is_passed_and_no_room_is_left(
    waiting: list[Trip], under_way: list[Trip], per_host: int, per_link: int
) -> None:
    limits = Limits(per_host=per_host, per_link=per_link)
    begin = convoy.ready(waiting, under_way, limits)

    def busy(trips: list[Trip], host: str) -> int:
        return sum(host in trip.link for trip in trips)

    def full(trip: Trip, trips: list[Trip]) -> bool:
        return bool(
            (per_host and any(busy(trips, host) >= per_host for host in trip.link))
            or (per_link and sum(one.link == trip.link for one in trips) >= per_link)
        )

    seen = list(under_way)
    for trip in begin:
        assert not full(trip, seen)
        seen.append(trip)
    assert all(full(trip, seen) for trip in waiting if trip not in begin)


def test_one_that_waits_holds_up_none_behind_it() -> None:
    waiting = [Trip("a", "h1", "h2"), Trip("b", "h1", "h2"), Trip("c", "h3", "h4")]
    begun = convoy.ready(waiting, [], Limits(per_host=1, per_link=0))
    assert [trip.vm for trip in begun] == ["a", "c"]
    # Back and forth is the same wire.
    back = convoy.ready([Trip("d", "h2", "h1")], [waiting[0]], Limits(per_host=0, per_link=1))
    assert back == ()


def test_they_do_not_all_go_to_the_emptiest_host() -> None:
    nodes = {name: node(memory_mib=8192) for name in ("h1", "h2", "h3")}
    nodes = {name: dataclasses.replace(one, name=name) for name, one in nodes.items()}
    vms = {
        name: vm(name, number, memory_mib=1024, memory_max_mib=1024, disks=(), nics=())
        for number, name in enumerate(("a", "b", "c", "d"), 1)
    }
    domains = {
        one.id: Domain(
            id=one.id, name=one.name, node="h1", power=Power.RUNNING, memory_mib=one.memory_mib
        )
        for one in vms.values()
    }
    cluster = Cluster(vms=vms, nodes=nodes, domains=domains)

    def choose(seen: Cluster, name: str) -> str:
        others = {key: one for key, one in seen.nodes.items() if key != "h1"}
        left = dataclasses.replace(seen, nodes=others)
        return place(left, seen.vm(name), overhead_mib=OVERHEAD).node

    going, stay = convoy.trips(cluster, vms, choose)
    assert [trip.target for trip in going] == ["h2", "h3", "h2", "h3"]
    assert stay == {}


def test_who_fits_nowhere_stays_and_says_why() -> None:
    cluster = Cluster(
        vms={"web": vm(memory_mib=1024, memory_max_mib=1024, disks=(), nics=())},
        nodes={"h1": node()},
    )

    def choose(seen: Cluster, name: str) -> str:
        return place(dataclasses.replace(seen, nodes={}), seen.vm(name), overhead_mib=OVERHEAD).node

    going, stay = convoy.trips(cluster, ["web"], choose)
    assert going == ()
    assert "the cluster has no host" in stay["web"]
