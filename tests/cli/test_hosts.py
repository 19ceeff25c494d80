"""Hosts and racks, as they are typed."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Vorch
from vorch.model import CrushBucket, CrushTree


@pytest.fixture
def racks(vorch: Vorch) -> Vorch:
    """One VM on the first of four hosts, of which two and two stand in a rack."""
    for name in ("b", "c", "d"):
        vorch.world.add_host(name)
    first = next(iter(vorch.world.machines))
    vorch.well("create", "web", "--disk", "1G", "--no-network", "--node", first, "--start")
    for name, rack in ((first, "r1"), ("b", "r1"), ("c", "r2"), ("d", "r2")):
        vorch.well("node", "change", name, "--tag", f"rack:{rack}")
    return vorch


def test_a_rack_is_emptied_and_comes_back(racks: Vorch) -> None:
    first = next(iter(racks.world.machines))
    told = racks.well("node", "maintenance", "rack:r1", "on", "--json").json
    assert [one["plan"]["verb"] for one in told] == ["node cordon", "migrate"]
    assert racks.well("show", "web", "--json").json["vm"]["node"] in ("c", "d")
    states = {
        one["node"]["name"]: one["state"] for one in racks.well("node", "list", "--json").json
    }
    assert states == {first: "cordoned", "b": "cordoned", "c": "online", "d": "online"}
    assert "web" in racks.well("node", "maintenance", "rack:r1", "off").out
    assert racks.well("show", "web", "--json").json["vm"]["node"] == first
    refused = racks("node", "maintenance", "rack:r9", "on")
    assert refused.code != 0
    assert "none stands there" in refused.err


def test_what_ceph_says_is_shown_as_such(vorch: Vorch) -> None:
    first = next(iter(vorch.world.machines))
    vorch.world.ceph.crush = CrushTree(
        buckets=(CrushBucket(-2, "r1", "rack", (-3,)), CrushBucket(-3, first, "host", ()))
    )
    checks = vorch.well("node", "check", first).out
    assert "rack:r1, from Ceph's CRUSH tree" in checks
    assert "rack:r1 (from Ceph)" in vorch.well("node", "show", first).out
    assert "rack:r1 (ceph)" in vorch.well("node", "list").out
    vorch.well("node", "change", first, "--tag", "rack:mine")
    shown = vorch.well("node", "show", first).out
    assert "rack:mine" in shown
    assert "from Ceph" not in shown
    assert "rack:mine is set, and Ceph says rack:r1" in vorch.well("node", "check", first).out
