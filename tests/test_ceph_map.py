"""What Ceph says of its daemons, as it is read."""

from __future__ import annotations

import pytest

from vorch.drivers import ceph_map
from vorch.drivers.ceph_map import Services


@pytest.mark.parametrize(
    ("written", "host"),
    [
        ("10.0.0.3:6800/12", "10.0.0.3"),
        ("v2:10.0.0.3:0/12", "10.0.0.3"),
        ("[fd00::3]:0/12", "fd00::3"),
        ("v1:[fd00::3]:0/12", "fd00::3"),
    ],
)
def test_the_host_of_an_address(written: str, host: str) -> None:
    assert str(ceph_map.host_of(written)) == host


@pytest.mark.parametrize("blank", ["-", ":/0", "", "(unrecognized address family 0)/0"])
def test_a_daemon_that_has_no_address_yet_is_nowhere(
    blank: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = {"x": {"addr": blank}, "y": {"addr": "10.0.0.3:0/7"}, "summary": ""}
    said = {
        "mgr dump": {"active_name": "x", "active_addrs": {"addrvec": [{"addr": blank}]}},
        "service dump": {"services": {"rgw": {"daemons": there}}},
        "fs dump": {"filesystems": []},
    }
    monkeypatch.setattr(ceph_map, "ask", lambda cluster, what: said[what])
    found = ceph_map.services(cluster=None)  # type: ignore[arg-type]
    assert isinstance(found, Services)
    assert {str(address): names for address, names in found.at.items()} == {"10.0.0.3": ("rgw.y",)}


def test_the_crush_tree_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [
        {"id": -1, "name": "default", "type": "root", "type_id": 11, "children": [-2]},
        {"id": -2, "name": "r1", "type": "rack", "type_id": 3, "children": [-3]},
        {"id": -3, "name": "h1", "type": "host", "type_id": 1, "children": [0]},
        {"id": 0, "name": "osd.0", "type": "osd", "type_id": 0, "status": "up"},
    ]
    addresses = {"addrvec": [{"type": "v2", "addr": "10.0.0.3:6800", "nonce": 7}]}
    said = {
        "osd tree": {"nodes": nodes, "stray": []},
        "osd dump": {
            "epoch": 3,
            "blocklist": {},
            "osds": [{"osd": 0, "up": 1, "public_addrs": addresses}],
            "pools": [],
        },
    }
    monkeypatch.setattr(ceph_map, "ask", lambda cluster, what: said[what])
    found = ceph_map.crush_tree(cluster=None)  # type: ignore[arg-type]
    assert [(one.name, one.type, one.children) for one in found.buckets] == [
        ("default", "root", (-2,)),
        ("r1", "rack", (-3,)),
        ("h1", "host", (0,)),
    ]
    assert found.addresses == {0: ("10.0.0.3",)}
