"""Racks and rooms that Ceph knows of: which tags a host has by them, and which count."""

from __future__ import annotations

import dataclasses

import pytest

from tests.decide import worlds
from vorch.decide import racks
from vorch.decide.crush import check_of, tags_of
from vorch.decide.place import without_tags
from vorch.decide.room.live import fleet_of
from vorch.errors import Invalid
from vorch.model import CrushBucket, CrushTree, Node

TREE = CrushTree(
    buckets=(
        CrushBucket(-1, "default", "root", (-10,)),
        CrushBucket(-10, "east", "room", (-20, -21)),
        CrushBucket(-20, "r1", "rack", (-30,)),
        CrushBucket(-21, "r2", "rack", (-31, -32)),
        CrushBucket(-30, "h1", "host", (0, 1)),
        CrushBucket(-31, "store-2", "host", (2,)),
        CrushBucket(-32, "h4", "host", ()),
    ),
    addresses={0: ("10.0.0.1",), 1: ("10.0.0.1",), 2: ("fd00::2",), 9: ("10.0.0.9",)},
)


def host(name: str, **other: object) -> Node:
    return dataclasses.replace(worlds.node(name), **other)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("node", "tags"),
    [
        (host("h1"), ("rack:r1", "room:east")),
        # By another name, but with its OSDs.
        (host("two", storage_address="fd00:0::2"), ("rack:r2", "room:east")),
        # What runs there counts more than what it is called.
        (host("h4", storage_address="10.0.0.1"), ("rack:r1", "room:east")),
        # By the name at which it is reached.
        (host("four", uri="qemu+tls://h4.example.org/system"), ("rack:r2", "room:east")),
        (host("h3", storage_address="10.0.0.3"), ()),
        # An OSD that is nowhere in the tree.
        (host("h9", storage_address="10.0.0.9"), ()),
    ],
    ids=lambda value: value.name if isinstance(value, Node) else "",
)
def test_where_a_host_stands(node: Node, tags: tuple[str, ...]) -> None:
    assert tags_of(TREE, node) == tags


def test_without_a_tree_there_is_nothing() -> None:
    assert tags_of(CrushTree(), host("h1")) == ()


def test_what_is_no_tag_is_left_out_and_a_ring_ends() -> None:
    odd = CrushTree(
        buckets=(
            CrushBucket(-1, "x" * 80, "rack", (-2, -1)),
            CrushBucket(-2, "h1", "host", ()),
        )
    )
    assert tags_of(odd, host("h1")) == ()


def test_own_tags_of_a_key_come_first() -> None:
    node = host("h1", tags=("gpu", "rack:mine"), ceph_tags=("rack:r1", "room:east"))
    assert node.offered_tags == ("room:east",)
    assert node.all_tags == ("gpu", "rack:mine", "room:east")
    assert racks.domain(node, "rack") == "mine"
    assert racks.domain(node, "room") == "east"
    assert host("h2").all_tags == ()
    with pytest.raises(Invalid):
        host("h1", ceph_tags=("rack of mine",))


def test_they_count_wherever_tags_are_asked_for() -> None:
    node = host("h1", ceph_tags=("rack:r1",))
    assert without_tags(node, worlds.vm(require_tags=("rack:r1",))) is None
    fleet = fleet_of(worlds.cluster(nodes=(node,)), overhead_mib=0)
    assert fleet.host("h1").domain("rack") == "r1"


def test_the_trial_says_what_ceph_says() -> None:
    assert check_of(host("h1"), ()) == ()
    (plain,) = check_of(host("h1"), ("rack:r1", "room:east"))
    assert (plain.level, plain.detail) == ("ok", "rack:r1, room:east, from Ceph's CRUSH tree")
    (same,) = check_of(host("h1", tags=("rack:r1",)), ("rack:r1",))
    assert (same.level, same.remedy) == ("ok", "")
    (other,) = check_of(host("h1", tags=("rack:mine",)), ("rack:r1", "room:east"))
    assert other.level == "warning"
    assert "rack:mine is set, and Ceph says rack:r1" in other.detail
    assert "room:east, from Ceph" in other.detail
