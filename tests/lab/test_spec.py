"""What a lab is made of, before anything is made: names, sizes, addresses, ranges."""

from __future__ import annotations

import ipaddress
import json
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vorch.errors import Invalid, NoRoom, NotFound
from vorch.lab import ranges
from vorch.lab.spec import MOST_HOSTS, MOST_XEN_HOSTS, LabSpec


@pytest.mark.parametrize(
    "name", ["", "-a", "a-", "A", "1a", "a_b", "a/b", "..", "elevenchars", "ä"]
)
def test_a_name_that_cannot_stand_in_a_link_is_refused(name: str) -> None:
    with pytest.raises(Invalid, match="cannot make lab"):
        LabSpec(name=name)


@pytest.mark.parametrize("name", ["a", "lab", "a-1", "tencharsxx"])
def test_links_have_names_that_the_kernel_takes(name: str) -> None:
    assert all(len(link) <= 15 for link in LabSpec(name=name).own_links)


@pytest.mark.parametrize(
    "wrong",
    [
        *({"hosts": 0}, {"hosts": 31}, {"xen": -1}, {"xen": 9}),
        *({"osds": -1}, {"osds": 61}, {"mons": 0}, {"mons": 2}),
    ],
    ids=str,
)
def test_sizes_have_limits(wrong: dict[str, int]) -> None:
    with pytest.raises(Invalid, match="cannot make lab 'lab'"):
        LabSpec(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("hyperconverged", [False, True])
def test_no_address_is_given_twice(hyperconverged: bool) -> None:
    spec = LabSpec(
        hosts=MOST_HOSTS, xen=MOST_XEN_HOSTS, mons=3, osds=60, hyperconverged=hyperconverged
    )
    hosts = spec.host_names
    management = [spec.own_management, spec.dhcp_address]
    management += [spec.management_address(host) for host in hosts]
    management += [spec.bmc_address(host) for host in hosts]
    first, last = map(ipaddress.IPv4Address, spec.guest_range)
    management += [str(ipaddress.IPv4Address(one)) for one in range(int(first), int(last) + 1)]
    storage = [spec.own_storage, spec.ceph_address]
    storage += [spec.storage_address(host) for host in hosts]
    apart = [mon for mon in spec.mon_names if spec.host_of_mon(mon) is None]
    storage += [spec.mon_address(mon) for mon in apart]
    for addresses, subnet in ((management, spec.management), (storage, spec.storage)):
        assert len(set(addresses)) == len(addresses)
        assert all(ipaddress.IPv4Address(one) in IPv4Network(subnet) for one in addresses)


def test_osds_are_spread_over_the_hosts() -> None:
    spec = LabSpec(hosts=3, osds=7, hyperconverged=True)
    assert [spec.osds_of(host) for host in spec.host_names] == [(0, 3, 6), (1, 4), (2, 5)]
    assert spec.osd_address(4) == spec.storage_address("h2")
    beside = replace(spec, hyperconverged=False)
    assert beside.host_of_osd(4) is None
    assert beside.osd_address(4) == beside.ceph_address


def test_no_part_of_ceph_lives_on_a_xen_host() -> None:
    spec = LabSpec(hosts=2, xen=2, osds=4, mons=3, hyperconverged=True)
    assert spec.host_names == ("h1", "h2", "x1", "x2")
    assert [spec.osds_of(host) for host in spec.host_names] == [(0, 2), (1, 3), (), ()]
    assert [spec.host_of_mon(mon) for mon in spec.mon_names] == ["h1", "h2", None]


def test_a_host_s_uri_names_what_runs_there() -> None:
    spec = LabSpec(hosts=1, xen=1)
    assert spec.uri("h1").startswith("qemu+tls://10.77.0.11/system?")
    assert spec.uri("x1").startswith("xen+tls://10.77.0.51/system?")


def test_a_hypervisor_for_live_moves_wants_a_host_to_run_it() -> None:
    with pytest.raises(Invalid, match="say how many"):
        LabSpec(xen_live=True)
    assert LabSpec(xen=2, xen_live=True).xen_names == ("x1", "x2")


def test_two_hosts_have_a_monitor_each_and_the_third_is_apart() -> None:
    spec = LabSpec(hosts=2, osds=4, mons=3, hyperconverged=True)
    assert [spec.host_of_mon(mon) for mon in spec.mon_names] == ["h1", "h2", None]
    assert spec.mons_of("h2") == ("b",)
    assert spec.mon_address("b") == spec.storage_address("h2")
    assert spec.mon_address("c") not in (spec.mon_address("a"), spec.ceph_address)
    # A single one is apart, or its host's end would be that of all of Ceph.
    assert replace(spec, mons=1).host_of_mon("a") is None
    assert replace(spec, hyperconverged=False).host_of_mon("a") is None


def test_hosts_of_different_labs_are_different_hosts() -> None:
    one, other = LabSpec(name="one"), LabSpec(name="other")
    assert len({one.host_uuid("h1"), one.host_uuid("h2"), other.host_uuid("h1")}) == 3


def test_a_host_that_is_not_there_is_named() -> None:
    with pytest.raises(NotFound, match=r"cannot find host 'h9'.* has h1, h2, h3"):
        LabSpec().known_host("h9")


def test_what_is_saved_is_found_again(tmp_path: Path) -> None:
    spec = LabSpec(name="keep", hosts=5, mons=3, home=str(tmp_path))
    spec.folder.mkdir()
    spec.save()
    assert LabSpec.load("keep", tmp_path) == spec


def test_a_lab_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="cannot find lab 'none'"):
        LabSpec.load("none", tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", json.dumps({"name": "x", "colour": "red"})])
def test_a_damaged_file_is_said_so(tmp_path: Path, text: str) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x/lab.json").write_text(text)
    with pytest.raises(Invalid, match=r"damaged.* vorch lab down --name x"):
        LabSpec.load("x", tmp_path)


# --- ranges -----------------------------------------------------------------------------------


def test_two_free_networks_are_taken() -> None:
    taken = [IPv4Network("10.77.0.0/24"), IPv4Network("10.77.2.128/25")]
    assert ranges.choose("10.77.0.0/16", taken) == ("10.77.1.0/24", "10.77.3.0/24")


def test_a_wide_route_takes_all_that_is_in_it() -> None:
    with pytest.raises(NoRoom, match="choose another range with --range"):
        ranges.choose("10.77.0.0/16", [IPv4Network("10.0.0.0/8")])


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        ("10.77.0.0/24", "a lab takes two /24"),
        ("8.8.0.0/16", "it is not private"),
        ("0.0.0.0/0", "it is not private"),
        ("10.77.0.1/16", "host bits set"),
        ("fd00::/64", "write it as"),
        ("x", "write it as"),
    ],
)
def test_ranges_that_make_no_sense(wanted: str, why: str) -> None:
    with pytest.raises(Invalid, match=why):
        ranges.choose(wanted, [])


@given(
    st.lists(
        st.builds(
            lambda third, bits: IPv4Network(f"10.77.{third}.0/{bits}", strict=False),
            st.integers(0, 15),
            st.integers(20, 28),
        )
    )
)
def test_what_is_chosen_never_clashes(taken: list[IPv4Network]) -> None:
    try:
        chosen = [IPv4Network(one) for one in ranges.choose("10.77.0.0/20", taken)]
    except NoRoom:
        free = [
            one
            for one in IPv4Network("10.77.0.0/20").subnets(new_prefix=24)
            if not any(one.overlaps(other) for other in taken)
        ]
        assert len(free) < 2
        return
    assert not chosen[0].overlaps(chosen[1])
    assert not any(one.overlaps(other) for one in chosen for other in taken)


def test_this_machine_has_networks_of_its_own() -> None:
    assert IPv4Network("127.0.0.0/8") in ranges.taken_here()
