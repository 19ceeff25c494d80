"""Storage classes: which pool a new volume goes to."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.decide.worlds import GIB, cluster, kinds, node
from vorch.decide import hosts, storage
from vorch.errors import Conflict, Invalid, NoRoom, NotFound, Unsupported
from vorch.model import Cluster, Pool, Room, StorageClass

POOLS = {
    "a": Pool(name="a", url="rbd://a"),
    "b": Pool(name="b", url="rbd://b"),
    "here": Pool(name="here", url="dir:///here", node="h1"),
    "there": Pool(name="there", url="dir:///there", node="h2"),
}


def room(free_gib: float) -> Room:
    return Room(capacity_bytes=100 * GIB, free_bytes=int(free_gib * GIB))


def world(*classes: StorageClass) -> Cluster:
    named = {one.name: one for one in classes}
    return cluster(nodes=(node("h1"), node("h2")), pools=POOLS, classes=named)


FAST = StorageClass(name="fast", pools=("a", "b"))
LOCAL = StorageClass(name="local", pools=("here", "there"))


def test_where_most_is_free_and_ties_go_by_name() -> None:
    assert storage.choose(world(), FAST, {"a": room(5), "b": room(6)}) == "b"
    assert storage.choose(world(), FAST, {"a": room(6), "b": room(6)}) == "a"


def test_beside_what_it_is_made_of_when_there_is_room() -> None:
    rooms = {"a": room(5), "b": room(60)}
    assert storage.choose(world(), FAST, rooms, beside="a") == "a"
    assert storage.choose(world(), FAST, rooms, beside="a", needed_bytes=6 * GIB) == "b"
    assert storage.choose(world(), FAST, rooms, beside="here") == "b"


def test_a_folder_is_for_its_host() -> None:
    rooms = {"here": room(5), "there": room(60)}
    assert storage.choose(world(), LOCAL, rooms) == "there"
    assert storage.choose(world(), LOCAL, rooms, node="h1") == "here"
    cordoned = (node("h1"), dataclasses.replace(node("h2"), cordoned=True))
    with_one = cluster(nodes=cordoned, pools=POOLS)
    assert storage.choose(with_one, LOCAL, rooms) == "here"
    only = dataclasses.replace(LOCAL, pools=("there",))
    with pytest.raises(Unsupported, match="only 'h2' reaches it"):
        storage.choose(world(), only, rooms, node="h1")


def test_pools_that_cannot_take_it_are_passed_over_and_named() -> None:
    rooms: dict[str, Room | str] = {
        "a": "cannot look at pool 'a': it is silent; wait",
        "b": room(1),
    }
    assert storage.choose(world(), FAST, rooms) == "b"
    with pytest.raises(NoRoom, match="it is silent") as caught:
        storage.choose(world(), FAST, rooms, needed_bytes=2 * GIB)
    assert set(caught.value.fields["refused"]) == {"a", "b"}


@given(st.dictionaries(st.sampled_from(["a", "b"]), st.integers(1, 50), min_size=1))
def test_the_choice_has_the_most_room(free: dict[str, int]) -> None:
    chosen = storage.choose(world(), FAST, {name: room(gib) for name, gib in free.items()})
    assert free[chosen] == max(free.values())


def test_a_new_default_takes_the_place_of_the_one_before() -> None:
    first = dataclasses.replace(FAST, default=True)
    plan = storage.class_add(world(first), "bulk", ["a"], default=True, description="")
    assert kinds(plan) == ["save", "save"]
    assert set(plan.claims) == {"class/bulk", "class/fast"}
    assert storage.default_class(world(first)) == first
    assert storage.default_class(world(FAST)) is None


def test_a_class_has_pools_that_are_there() -> None:
    with pytest.raises(NotFound):
        storage.class_add(world(), "fast", ["nowhere"], default=False, description="")
    with pytest.raises(Invalid, match="twice"):
        storage.class_add(world(), "fast", ["a", "a"], default=False, description="")
    with pytest.raises(Invalid, match="no pool"):
        storage.class_add(world(), "fast", [], default=False, description="")
    with pytest.raises(Conflict):
        storage.class_add(world(FAST), "fast", ["a"], default=False, description="")


def test_a_pool_of_a_class_is_not_removed() -> None:
    with pytest.raises(Conflict, match="class 'fast' has it"):
        hosts.remove_pool(world(FAST), "a")
    assert kinds(storage.class_remove(world(FAST), "fast")) == ["save"]
    with pytest.raises(NotFound):
        storage.class_remove(world(), "fast")
