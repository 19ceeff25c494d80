"""Questions about room of a cluster that is a file, as they are typed."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Vorch
from tests.decide.room.fleets import FOLDER, NO_DATA, data


def node(name: str, rack: str, mem_gib: int = 32) -> dict[str, Any]:
    return {
        "name": name,
        "cpus": 16,
        "mem_mib": mem_gib * 1024,
        "reserved_mem_mib": 1024,
        "tags": [f"rack:{rack}"],
    }


def vm(name: str, where: str | None, mem_gib: int = 4, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "vcpus": 2,
        "mem_mib": mem_gib * 1024,
        "load": {"cpu": 0.5, "net": 0.1},
        "node": where,
        "anti_affinity": [],
        "affinity": [],
        **more,
    }


def cluster() -> dict[str, Any]:
    """Four hosts: one that is nearly full, with two that should be apart, and one that is empty."""
    return {
        "format": "vorch-placement/1",
        "name": "small",
        "policy": {"cpu_ratio": 4.0},
        "nodes": [node("n1", "a"), node("n2", "a"), node("n3", "b"), node("n4", "b")],
        "vms": [
            *(vm(f"a{number}", "n1") for number in range(5)),
            vm("svc1", "n1", anti_affinity=["svc"]),
            vm("svc2", "n1", anti_affinity=["svc"]),
            *(vm(f"b{number}", "n2", 2) for number in range(3)),
            *(vm(f"c{number}", "n3", 2) for number in range(3)),
        ],
    }


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "small.json.gz"
    path.write_bytes(gzip.compress(json.dumps(cluster()).encode()))
    return str(path)


def played(document: dict[str, Any], moves: list[list[str]]) -> dict[str, str]:
    """Where all are after the moves; each has to fit when it is made."""
    where = {one["name"]: one["node"] for one in document["vms"]}
    size = {one["name"]: one["mem_mib"] for one in document["vms"]}
    room = {one["name"]: one["mem_mib"] - one["reserved_mem_mib"] for one in document["nodes"]}
    for name, source, target in moves:
        assert where[name] == source
        used = sum(size[other] for other, host in where.items() if host == target)
        assert used + size[name] <= room[target], (name, target)
        where[name] = target
    return where


def test_balance_moves_what_is_worth_it_and_then_no_more(
    vorch: Vorch, file: str, tmp_path: Path
) -> None:
    document = cluster()
    found = vorch.well("simulate", "balance", file, "--json").json
    where = played(document, found["moves"])
    assert where["svc1"] != where["svc2"]
    assert found["before"]["broken"] == 2
    assert found["after"]["broken"] == 0
    assert found["any_host_may_die"] == {"before": "yes", "after": "yes"}
    assert found["after"]["figure"] < found["before"]["figure"]
    assert found["rounds"] == max(step["round"] for step in found["steps"])
    assert all(step["why"] for step in found["steps"])
    assert 0 <= found["engine_s"] < 60
    for one in document["vms"]:
        one["node"] = where[one["name"]]
    after = tmp_path / "after.json"
    after.write_text(json.dumps(document))
    assert vorch.well("simulate", "balance", str(after), "--json").json["moves"] == []
    shown = vorch.well("simulate", "balance", file)
    assert "rule 'apart:svc' is broken" in shown.out
    assert "highest memory" in shown.out


@pytest.mark.parametrize("metric", ["vorch", "norm", "htools"])
def test_limits_of_a_balance_are_kept(vorch: Vorch, file: str, metric: str) -> None:
    one = vorch.well(
        *("simulate", "balance", file, "--json", "--moves-max", "1", "--metric", metric)
    )
    assert len(one.json["moves"]) == 1
    four = vorch.well(
        *("simulate", "balance", file, "--json", "--memory-max-gib", "4", "--metric", metric)
    )
    assert four.json["memory_mib"] <= 4096
    none = vorch.well("simulate", "balance", file, "--json", "--memory-max-gib", "0")
    assert none.json["moves"] == []


def test_a_host_and_a_rack_are_emptied(vorch: Vorch, file: str) -> None:
    document = cluster()
    found = vorch.well("simulate", "evacuate", file, "--node", "n1", "--json").json
    assert found["complete"]
    assert "n1" not in played(document, found["moves"]).values()
    rack = vorch.well("simulate", "evacuate", file, "--domain", "rack:b", "--json").json
    assert rack["hosts"] == ["n3", "n4"]
    assert {"n3", "n4"} & set(played(document, rack["moves"]).values()) == set()
    assert "'n1' is to be empty" in vorch.well("simulate", "evacuate", file, "--node", "n1").out


def test_who_has_to_stay_is_named(vorch: Vorch, tmp_path: Path) -> None:
    document = cluster()
    document["nodes"] = document["nodes"][:2]
    document["vms"] = [vm("big", "n1", 20), vm("other", "n2", 20)]
    path = tmp_path / "full.json"
    path.write_text(json.dumps(document))
    found = vorch.well("simulate", "evacuate", str(path), "--node", "n1", "--json").json
    assert not found["complete"]
    assert found["proven"]
    assert [name for name, _ in found["left"]] == ["big"]
    shown = vorch.well("simulate", "evacuate", str(path), "--node", "n1").out
    assert "These would stay; no other way exists" in shown


def test_new_vms_are_placed_and_written_down(vorch: Vorch, file: str, tmp_path: Path) -> None:
    out = tmp_path / "more.json"
    found = vorch.well(
        *("simulate", "place", file, "--vcpus", "2", "--memory-mib", "4096", "--count", "3"),
        *("--json", "--explain", "-o", str(out)),
    ).json
    assert sorted(found["assignment"]) == ["new-1", "new-2", "new-3"]
    assert found["left"] == []
    for one in found["placed"]:
        verdicts = found["hosts"][one["guest"]]
        assert len(verdicts) == 4
        for verdict in verdicts:
            assert verdict["refused"] or verdict["score"] == pytest.approx(
                sum(verdict["parts"].values())
            )
    written = json.loads(out.read_text())
    where = {one["name"]: one["node"] for one in written["vms"]}
    assert {name: where[name] for name in found["assignment"]} == found["assignment"]
    shown = vorch.well(
        *("simulate", "place", file, "--vcpus", "2", "--memory-mib", "30000", "--explain")
    ).out
    assert "MiB of memory are short" in shown


def test_without_a_size_those_that_are_nowhere_are_placed(vorch: Vorch, tmp_path: Path) -> None:
    document = cluster()
    document["vms"].append(vm("waits", None, require_tags=["rack:b"]))
    path = tmp_path / "waits.json"
    path.write_text(json.dumps(document))
    found = vorch.well("simulate", "place", str(path), "--json").json
    assert found["assignment"] == {"waits": "n4"}


def test_capacity_of_a_file(vorch: Vorch, file: str) -> None:
    found = vorch.well(
        *("capacity", "--file", file, "--json", "--over", "rack"),
        *("--vcpus", "2", "--memory-mib", "4096"),
    ).json
    assert found["verdict"] == "yes"
    assert found["verdicts"] == {"n1": "yes", "n2": "yes", "n3": "yes", "n4": "yes"}
    assert found["worst"]["hosts"] == ["n1"]
    assert sorted(found["domains"]) == ["a", "b"]
    # By hand: 31 GiB a host, in fours, beside what is there.
    assert found["growth"]["fit"] == (31 - 28) // 4 + (31 - 6) // 4 * 2 + 31 // 4
    assert 0 < found["growth"]["with_spare"] < found["growth"]["fit"]
    shown = vorch.well("capacity", "--file", file, "--vcpus", "2", "--memory-mib", "4096").out
    assert "any one host may die:" in shown
    assert "with the spare room for losses kept" in shown
    assert "there are rack" in vorch("capacity", "--file", file, "--over", "room").err


def test_what_if_on_a_file(vorch: Vorch, file: str) -> None:
    lost = vorch.well("whatif", "fail", "n1", "--file", file, "--json").json
    assert lost["left"] == []
    assert set(lost["placed"]) == {*(f"a{number}" for number in range(5)), "svc1", "svc2"}
    assert lost["after"]["hosts"] == 3
    more = vorch.well(
        *("whatif", "add-host", "n5", "--cpus", "16", "--memory-mib", "32768"),
        *("--tag", "rack:c", "--file", file, "--json"),
    ).json
    assert more["after"]["hosts"] == 5
    assert more["memory_mib"] > 0
    assert more["seconds"] > 0
    less = vorch.well("whatif", "remove-host", "n1", "--file", file, "--json").json
    assert "n1" not in played(cluster(), less["moves"]).values()
    assert less["after"]["hosts"] == 3
    vms = vorch.well(
        *("whatif", "add-vms", "--count", "2", "--vcpus", "2", "--memory-mib", "4096"),
        *("--file", file, "--json"),
    ).json
    assert sorted(vms["placed"]) == ["new-1", "new-2"]
    for words in (
        ("fail", "n1"),
        ("add-host", "n5", "--cpus", "16", "--memory-mib", "32768"),
        ("remove-host", "n1"),
        ("add-vms", "--count", "9", "--vcpus", "2", "--memory-mib", "16384"),
    ):
        shown = vorch.well("whatif", *words, "--file", file).out
        assert "any one host may die: now: yes" in shown


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("simulate", "evacuate", "FILE"), "cannot empty no host"),
        (("simulate", "evacuate", "FILE", "--node", "n9"), "cannot find host 'n9'"),
        (("simulate", "evacuate", "FILE", "--domain", "rack"), "as in rack:r01"),
        (("simulate", "evacuate", "FILE", "--domain", "rack:z"), "there are a, b"),
        (("simulate", "place", "FILE", "--vcpus", "1"), "give both"),
        (("simulate", "place", "FILE", "--count", "2"), "give --vcpus and --memory-mib"),
        (("simulate", "place", "FILE", "--spare", "no"), "keep, warn, ignore"),
        (("simulate", "balance", "/nowhere/x.json"), "there is no such file"),
        (("simulate", "balance", "/"), "Is a directory"),
        (("capacity", "--file", "FILE", "--vcpus", "1"), "give both"),
        (("whatif", "add-host", "n1", "--cpus", "1", "--memory-mib", "1", "--file", "FILE"), "one"),
        (("whatif", "fail", "n9", "--file", "FILE"), "cannot find host 'n9'"),
        (("import-htools", "FILE"), "not the text format of htools"),
        (("dump", "-o", "/nowhere/x.json"), "cannot write"),
    ],
)
def test_what_makes_no_sense_is_said_in_words(
    vorch: Vorch, file: str, words: tuple[str, ...], says: str
) -> None:
    ended = vorch(*(file if word == "FILE" else word for word in words))
    assert ended.code not in (0, 1), ended.err
    assert says in ended.err
    assert "Traceback" not in ended.err


QUESTIONS = (
    ("simulate", "balance", "FILE"),
    ("simulate", "place", "FILE", "--vcpus", "1", "--memory-mib", "1", "--explain"),
    ("simulate", "place", "FILE"),
    ("capacity", "--file", "FILE", "--vcpus", "1", "--memory-mib", "1"),
    ("capacity", "--file", "FILE", "--hosts-lost", "2"),
    ("whatif", "add-host", "x", "--cpus", "1", "--memory-mib", "4096", "--file", "FILE"),
    ("whatif", "add-vms", "--vcpus", "1", "--memory-mib", "1", "--file", "FILE"),
    ("whatif", "remove-host", "n1", "--file", "FILE"),
    ("whatif", "fail", "n1", "--file", "FILE"),
    ("simulate", "evacuate", "FILE", "--node", "n1"),
)


@pytest.mark.parametrize("words", QUESTIONS, ids=lambda words: " ".join(words))
@pytest.mark.parametrize(
    "nodes",
    [[], [node("n1", "a")], [{**node("n1", "a", 2), "closed": "it is cordoned"}]],
    ids=["none", "one", "one that is full and closed"],
)
def test_the_smallest_clusters_have_answers(
    vorch: Vorch, tmp_path: Path, nodes: list[dict[str, Any]], words: tuple[str, ...]
) -> None:
    vms = [vm("v1", "n1" if nodes else None), vm("v2", None)]
    path = tmp_path / "tiny.json"
    path.write_text(json.dumps({"format": "vorch-placement/1", "nodes": nodes, "vms": vms}))
    for more in ((), ("--json",)):
        ended = vorch(*(str(path) if word == "FILE" else word for word in words), *more)
        # Of no host, a host cannot be named.
        assert (ended.code in (2, 3)) == (not nodes and "n1" in words), ended.err
        assert ended.code == 0 or "cannot find" in ended.err


def test_a_dump_goes_where_a_placement_file_goes(web: Vorch, tmp_path: Path) -> None:
    web.well("ha", "set", "web")
    file = tmp_path / "dump.json"
    assert f"is in {file}" in web.well("dump", "-o", str(file)).out
    assert web.well("dump").json["format"] == web.well("dump", "--json").json["format"]
    name = web.well("node", "list", "--json").json[0]["node"]["name"]
    living = web.well("capacity", "--vcpus", "1", "--memory-mib", "512", "--json").json
    filed = web.well(
        *("capacity", "--file", str(file), "--vcpus", "1", "--memory-mib", "512", "--json")
    ).json
    assert filed.pop("engine_s") >= 0
    assert filed == living
    assert living["worst"]["left_out"] == ["web"]
    for words in (
        ("fail", name),
        ("add-host", "h9", "--cpus", "4", "--memory-mib", "8192"),
        ("remove-host", name),
        ("add-vms", "--count", "2", "--vcpus", "1", "--memory-mib", "512"),
    ):
        here = web.well("whatif", *words, "--json").json
        there = web.well("whatif", *words, "--file", str(file), "--json").json
        assert here == there
    assert web.well("simulate", "balance", str(file), "--json").json["moves"] == []
    packed = tmp_path / "dump.json.gz"
    packed.write_bytes(gzip.compress(file.read_bytes()))
    assert web.well("simulate", "balance", str(packed), "--json").json["moves"] == []
    torn = json.loads(file.read_text())
    torn["cluster"]["vms"]["web"]["memory_mib"] = "much"
    file.write_text(json.dumps(torn))
    ended = web("whatif", "fail", name, "--file", str(file))
    assert "cluster.vms.web.memory_mib" in ended.err


HTOOLS = """\
blue|uuid-1|preferred||

n1|8192|1024|5120|100|100|4|N|uuid-1|1|rack:a|N|0|0|1.0
n2|8192|1024|7168|100|100|4|N|uuid-1|1|rack:b|N|0|0|1.0

web|1024|10|1|running|Y|n1||ext||1
db|1024|10|1|running|Y|n1|n2|drbd||1

"""


def test_htools_become_a_placement_file(vorch: Vorch, tmp_path: Path) -> None:
    source = tmp_path / "ganeti.txt"
    source.write_text(HTOOLS)
    loads = tmp_path / "ganeti.util"
    loads.write_text("web 0.5 1 1 0.1\n")
    out = tmp_path / "cluster.json"
    told = vorch.well("import-htools", str(source), "--util", str(loads), "-o", str(out)).out
    assert told == f"2 hosts and 2 VMs are in {out}\n"
    written = json.loads(out.read_text())
    assert written["name"] == "ganeti"
    vms = {one["name"]: one for one in written["vms"]}
    # Shares of the mean node, and of a link of 10 Gbit/s.
    assert vms["web"]["load"] == {"cpu": 2.0, "net": 1.0}
    assert vms["db"]["hosts"] == ["n1", "n2"]
    assert vorch.well("import-htools", str(source)).json["nodes"][0]["name"] == "n1"
    assert vorch.well("simulate", "balance", str(out), "--json").json["moves"] is not None


# ---------------------------------------------------------------------------------------------
# The referee's own files


def referee(name: str, plan: dict[str, Any], tmp_path: Path) -> tuple[dict[str, Any], ...]:
    raw = data(name).read_bytes()
    cluster = tmp_path / "cluster.json"
    cluster.write_bytes(gzip.decompress(raw) if raw.startswith(b"\x1f\x8b") else raw)
    written = tmp_path / "plan.json"
    written.write_text(json.dumps(plan))
    told = subprocess.run(
        [sys.executable, str(FOLDER / "evaluate.py"), str(cluster), str(written)],
        capture_output=True,
        text=True,
        check=True,
    )
    return tuple(json.loads(line) for line in told.stdout.splitlines())


@pytest.mark.skipif(not (FOLDER / "evaluate.py").exists(), reason=NO_DATA)
@pytest.mark.parametrize("name", ["tight-n10-s1", "rules-n10-s1", "hotspot-n50-s1"])
def test_the_referee_finds_nothing_wrong(vorch: Vorch, name: str, tmp_path: Path) -> None:
    if not data(name).exists():
        pytest.skip(NO_DATA)
    for metric in ("vorch", "norm", "htools"):
        plan = vorch.well("simulate", "balance", str(data(name)), "--json", "--metric", metric).json
        before, after = referee(name, plan, tmp_path)
        assert after["bad_steps"] == 0
        assert after["over"] == 0
        assert after["rule_violations"] + after["conflicts"] <= (
            before["rule_violations"] + before["conflicts"]
        )
    out = vorch.well("simulate", "evacuate", str(data(name)), "--node", "n0001", "--json").json
    assert referee(name, out, tmp_path)[1]["bad_steps"] == 0
