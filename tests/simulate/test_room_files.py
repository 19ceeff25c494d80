"""What people and programs may do to a placement file: each is refused in words, or read."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vorch.decide.room.fleet import Fleet
from vorch.decide.room.table import Table
from vorch.errors import Invalid
from vorch.simulate.room_files import read_fleet

SOUND: dict[str, Any] = {
    "format": "vorch-placement/1",
    "name": "small",
    "policy": {"cpu_ratio": 4.0},
    "nodes": [
        {"name": "n1", "cpus": 8, "mem_mib": 16384, "reserved_mem_mib": 1024, "tags": ["rack:a"]},
        {"name": "n2", "cpus": 8, "mem_mib": 16384, "tags": [], "cpu_ratio": 2, "closed": "off"},
    ],
    "vms": [
        {
            "name": "v1",
            "vcpus": 2,
            "mem_mib": 2048,
            "load": {"cpu": 0.5, "net": 0.1},
            "node": "n1",
            "anti_affinity": ["svc"],
            "affinity": [],
            "require_tags": ["rack:a"],
            "hosts": ["n1", "n2"],
            "ha": False,
            "moves": "cold",
            "priority": -3,
            "dirty_mib_s": 3.5,
        },
        {"name": "v2", "vcpus": 1, "mem_mib": 512, "load": None, "node": None},
    ],
    "spreads": [{"name": "even", "vms": ["v1", "v2"], "over": "rack", "max_skew": 2}],
}
# One part of the document, by the way to it.
Way = tuple[str | int, ...]


def ways(value: Any, so_far: Way = ()) -> list[Way]:
    inner = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    return [so_far, *(way for key, one in inner for way in ways(one, (*so_far, key)))]


def changed(way: Way, value: Any) -> Any:
    document = copy.deepcopy(SOUND)
    if not way:
        return value
    place = document
    for key in way[:-1]:
        place = place[key]  # type: ignore[index]
    place[way[-1]] = value  # type: ignore[index]
    return document


ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([10**30, -1, 0, 1.5, 1e308, float("inf"), float("nan"), "", "n1", "\ud800"]),
    st.lists(st.one_of(st.none(), st.integers(), st.text(max_size=3)), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(way=st.sampled_from(ways(SOUND)), value=ODD)
def test_odd_values_are_refused_or_of_use(tmp_path: Path, way: Way, value: Any) -> None:
    path = tmp_path / "odd.json"
    path.write_text(json.dumps(changed(way, value)))
    told = ""
    try:
        fleet: Fleet | None = read_fleet(path)
    except Invalid as exc:
        fleet, told = None, exc.message
    if fleet is None:
        assert str(path) in told
    else:
        # What was read can be counted with.
        Table(fleet)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(cut=st.integers(0, 400), junk=st.binary(max_size=8))
def test_torn_files_are_refused(tmp_path: Path, cut: int, junk: bytes) -> None:
    path = tmp_path / "torn.json"
    path.write_bytes(json.dumps(SOUND).encode()[:cut] + junk)
    with pytest.raises(Invalid):
        read_fleet(path)


@pytest.mark.parametrize(
    ("way", "value", "says"),
    [
        (("nodes", 0, "cpus"), "8", "cpus is '8'; write a whole number"),
        (("nodes", 0, "cpus"), True, "cpus is True; write a whole number"),
        (("nodes", 0, "cpus"), 0, "give sizes above zero"),
        (("nodes", 0, "mem_mib"), 10**30, "write a whole number from 0 to"),
        (("nodes", 1, "name"), "n1", "'n1' twice"),
        (("nodes", 0, "tags"), "rack:a", "write a list of texts"),
        (("vms", 0, "load", "cpu"), "much", "load.cpu is 'much'"),
        (("vms", 0, "node"), "n9", "its host 'n9' is not there"),
        (("vms", 0, "moves"), "fast", "write live, cold or pinned"),
        (("policy", "cpu_ratio"), 0, "cpu_ratio is 0"),
        (("spreads", 0, "vms"), ["v9"], "its guest 'v9' is not there"),
        (("format",), "vorch-placement/2", "'vorch-placement/1' is known"),
    ],
)
def test_it_says_what_is_wrong(tmp_path: Path, way: Way, value: Any, says: str) -> None:
    path = tmp_path / "odd.json"
    path.write_text(json.dumps(changed(way, value)))
    with pytest.raises(Invalid) as caught:
        read_fleet(path)
    assert says in caught.value.message
    assert str(path) in caught.value.message


def test_deep_nesting_is_no_traceback(tmp_path: Path) -> None:
    path = tmp_path / "deep.json"
    path.write_text("[" * 200_000)
    with pytest.raises(Invalid, match="it is not JSON"):
        read_fleet(path)


def test_all_fields_are_read(tmp_path: Path) -> None:
    path = tmp_path / "sound.json"
    path.write_text(json.dumps(SOUND))
    fleet = read_fleet(path)
    one = fleet.guest("v1")
    assert (one.ha, one.moves, one.priority, one.dirty_mib_s) == (False, "cold", -3, 3.5)
    assert one.needs.hosts == ("n1", "n2")
    assert (fleet.host("n2").cpu_ratio, fleet.host("n2").closed) == (2.0, "off")
    assert fleet.guest("v2").cpu_load is None
