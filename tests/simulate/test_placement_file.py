"""Clusters read from files: vorch's own format, plain or gzipped, and Ganeti's text format."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from tests.decide.room.fleets import FOLDER, NO_DATA, data
from vorch.decide.room.fleet import Apart, Needs, Together
from vorch.decide.room.table import Table
from vorch.errors import Invalid, NotFound
from vorch.simulate.htools_file import read_htools
from vorch.simulate.placement_file import document_of, fleet_of, read_placement

SOUND: dict[str, Any] = {
    "format": "vorch-placement/1",
    "policy": {"cpu_ratio": 3.0},
    "nodes": [
        {"name": "n1", "cpus": 8, "mem_mib": 16384, "reserved_mem_mib": 1024, "tags": ["rack:a"]},
        {"name": "n2", "cpus": 8, "mem_mib": 16384, "reserved_mem_mib": 1024, "tags": []},
    ],
    "vms": [
        {
            "name": f"v{n}",
            "vcpus": 2,
            "mem_mib": 2048,
            "load": {"cpu": 0.5, "net": 0.1},
            "node": "n1" if n < 3 else None,
            "anti_affinity": ["svc"] if n < 2 else [],
            "affinity": ["pair"] if n in (2, 3) else ["lone"] if n == 0 else [],
            "require_tags": ["rack:a"] if n == 2 else [],
        }
        for n in range(4)
    ],
}


def test_all_of_it_is_read() -> None:
    fleet = fleet_of(SOUND)
    assert fleet.policy.cpu_ratio == 3.0
    assert [one.host for one in fleet.guests] == ["n1", "n1", "n1", ""]
    assert fleet.guest("v2").needs == Needs(tags=("rack:a",))
    # A group of one is no rule.
    assert fleet.rules == (
        Apart(name="apart:svc", guests=("v0", "v1")),
        Together(name="together:pair", guests=("v2", "v3")),
    )
    table = Table(fleet)
    assert table.free_mib.tolist() == [16384 - 1024 - 3 * 2048, 16384 - 1024]


def test_what_is_written_reads_the_same(tmp_path: Path) -> None:
    fleet = fleet_of(SOUND)
    packed = tmp_path / "cluster.json"
    # It is judged by its content, not by its name.
    packed.write_bytes(gzip.compress(json.dumps(document_of(fleet)).encode()))
    assert read_placement(packed) == fleet


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"{", "it is not JSON"),
        (b'{"format": "other/1"}', "'vorch-placement/1' is known"),
        (b'{"format": "vorch-placement/1"}', "'nodes' is missing"),
        (b"\x1f\x8bnot gzip at all", "give a text file"),
        (b"[]", "it holds no JSON object"),
    ],
)
def test_a_bad_file_says_what_is_wrong(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    with pytest.raises(Invalid, match=says):
        read_placement(path)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no such file"):
        read_placement(tmp_path / "none.json")


HTOOLS = """\
blue|uuid-1|preferred||
green|uuid-2|preferred||

n1|8192|1024|1024|100|100|4|M|uuid-1|1|rack:a|N|0|0|1.0
n2|8192|1024|7168|100|100|4|N|uuid-1|1||N|0|0|1.0
n3|8192|1024|7168|100|100|4|Y|uuid-2|1||N|0|0|1.0

a|2048|10|1|running|Y|n1||ext|svc:web|1|-|N
b|1024|10|2|running|N|n1|n2|drbd|svc:web,other:x|1|-|N
c|1024|10|1|running|Y|n1||plain||1|-|N
d|1024|10|1|ADMIN_offline|Y|n1||ext||1|-|N

htools:iextags:svc

|x|y|ext|4.0|32.0
blue|x|y|ext|2.0|32.0
"""


def test_ganetis_text_format(tmp_path: Path) -> None:
    path, util = tmp_path / "cluster.txt", tmp_path / "cluster.util"
    path.write_text(HTOOLS)
    util.write_text("a 0.5 0 0 0.02\n")
    fleet = read_htools(path, util)
    first = fleet.host("n1")
    # 8192 - 1024 of the node - 1024 free - 4096 of instances.
    assert (first.reserve_mib, first.other_memory_mib, first.cpu_ratio) == (1024, 2048, 2.0)
    assert first.tags == {"rack:a", "group:blue"}
    assert fleet.host("n3").closed == "it is offline"
    assert fleet.guest("a").cpu_load == 2.0
    assert fleet.guest("b").needs.hosts == ("n1", "n2")
    assert not fleet.guest("b").ha
    assert fleet.guest("c").moves == "pinned"
    assert {one.name for one in fleet.guests} == {"a", "b", "c"}
    assert fleet.rules == (Apart(name="apart:svc:web", guests=("a", "b")),)


def test_what_is_no_text_of_htools(tmp_path: Path) -> None:
    path = tmp_path / "cluster.txt"
    path.write_text("no such thing\n\nat all\n\nin here\n")
    with pytest.raises(Invalid, match="it is not the text format of htools"):
        read_htools(path)


@pytest.mark.skipif(not data("tight-n10-s1").exists(), reason=NO_DATA)
@pytest.mark.parametrize("name", ["tight-n10-s1", "drift-n50-s1", "newnodes-n10-s1"])
def test_both_formats_give_the_same(name: str) -> None:
    ours = Table(read_placement(data(name)))
    theirs = Table(read_htools(FOLDER / f"{name}.txt", FOLDER / f"{name}.util"))
    assert ours.guest_names == theirs.guest_names
    assert ours.free_mib.tolist() == theirs.free_mib.tolist()
    assert ours.free_vcpus.tolist() == theirs.free_vcpus.tolist()
    assert abs(ours.used_load - theirs.used_load).max() < 0.001
    assert [group.members for group in ours.groups] == [group.members for group in theirs.groups]


@pytest.mark.parametrize("word", ["1e400", "nan", "-1", "99999999999999999999999", "x", ""])
@pytest.mark.parametrize("field", [1, 6])
def test_odd_numbers_of_htools_are_refused(tmp_path: Path, word: str, field: int) -> None:
    path = tmp_path / "odd.txt"
    lines = HTOOLS.splitlines()
    row = next(number for number, line in enumerate(lines) if line.startswith("n1|"))
    words = lines[row].split("|")
    words[field] = word
    lines[row] = "|".join(words)
    path.write_text("\n".join(lines))
    with pytest.raises(Invalid, match="it is not the text format of htools"):
        read_htools(path)
