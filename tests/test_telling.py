"""Values told to those outside are what `shown` says, by whichever way they are written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from vorch import VERBS, CloudInit, Invalid, Orchestrator, call_of, connect, shown
from vorch.decide import filters
from vorch.drivers import memory
from vorch.model import Job, Task, VmStatus
from vorch.telling import chosen_fields, filter_names, from_json, has_hidden, item_of, to_json

ANN = CloudInit(user="ann", password_hash="$6$salt$verysecret" + "x" * 80)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Orchestrator]:
    memory.forget("telling")
    with connect("memory:telling") as found:
        memory.world_named("telling")
        found.create("web", disk_gib=1, networks=(), start=True)
        found.ha_set("web")
        yield found
    memory.forget("telling")


def looks(cluster: Orchestrator) -> list[tuple[Any, Any]]:
    """(a value, the type that its verb returns) of all that can be looked at here."""
    found = []
    for verb in ("list", "node_list", "pool_list", "task_list", "class_list", "ha_list"):
        found.append((getattr(cluster, verb)(), call_of(verb).returns))
    for verb in ("show", "figures", "disk_list", "snapshot_list", "ha_show"):
        found.append((getattr(cluster, verb)("web"), call_of(verb).returns))
    for verb in ("capacity", "ha_status"):
        found.append((getattr(cluster, verb)(), call_of(verb).returns))
    plan = cluster.create("db", disk_gib=1, cloud_init=ANN, networks=(), dry_run=True)
    found.append((plan, call_of("create").returns))
    return found


def test_it_is_what_is_shown(cluster: Orchestrator) -> None:
    for value, kind in looks(cluster):
        assert json.loads(to_json(value, kind)) == json.loads(json.dumps(shown(value)))


def test_it_can_be_read_again(cluster: Orchestrator) -> None:
    for value, kind in looks(cluster)[:-1]:
        assert from_json(json.loads(to_json(value, kind)), kind) == value


def test_secrets_are_left_out_and_can_be_read_as_not_there(cluster: Orchestrator) -> None:
    plan = cluster.create("db", disk_gib=1, cloud_init=ANN, networks=(), dry_run=True)
    told = to_json(plan, call_of("create").returns)
    assert b"verysecret" not in told
    assert len(from_json(json.loads(told), call_of("create").returns).plan.steps) == len(
        plan.plan.steps
    )


def test_which_types_keep_something_hidden() -> None:
    assert has_hidden(call_of("create").returns)
    assert has_hidden(Job)
    assert not has_hidden(VmStatus)
    assert not has_hidden(Task)


def test_every_type_can_be_told_apart() -> None:
    for verb in VERBS:
        returns = call_of(verb).returns
        has_hidden(returns)
        if verb.endswith("list") and item_of(returns) is not None:
            assert filter_names(item_of(returns)), verb


@pytest.mark.parametrize(
    ("paths", "told"),
    [
        (["power"], {"power": "running"}),
        (["vm.name", "vm.disks.name"], {"vm": {"name": "web", "disks": [{"name": "root"}]}}),
        (["vm.name", "vm.name"], {"vm": {"name": "web"}}),
        (["domain.power"], {"domain": {"power": "running"}}),
    ],
)
def test_fields(cluster: Orchestrator, paths: list[str], told: object) -> None:
    chosen = chosen_fields(VmStatus, paths)
    assert json.loads(to_json(cluster.show("web"), VmStatus, chosen)) == told


def test_fields_of_what_keeps_something_hidden(cluster: Orchestrator) -> None:
    job = Job(id="a", verb="start", subject="web", who="ann", started_at=1.0, key="k")
    assert json.loads(to_json(job, Job, chosen_fields(Job, ["id", "key"]))) == {
        "id": "a",
        "key": "(not shown)",
    }


@pytest.mark.parametrize("path", ["nosuch", "vm.nosuch", "vm.disks.nosuch", "", "vm."])
def test_fields_that_are_none(path: str) -> None:
    with pytest.raises(Invalid, match="cannot choose field"):
        chosen_fields(VmStatus, [path])


@pytest.mark.parametrize(
    ("value", "pattern", "is_like"),
    [
        ("web01", "WEB", True),
        ("web01", "eb0", True),
        ("web01", "web*", True),
        ("web01", "w?b0[12]", True),
        ("web01", "b*", False),
        ("a" * 60, "*" * 200 + "b", False),
        ("a" * 60, "a*" * 100 + "b", False),
        ("", "x", False),
    ],
)
def test_like(value: str, pattern: str, is_like: bool) -> None:
    assert filters.like(value, pattern) is is_like


def test_filters_have_limits() -> None:
    for wanted in ({"name": ["x"] * 17}, {"name~": ["x" * 257]}, {"nosuch": ["x"]}):
        with pytest.raises(Invalid, match="cannot filter"):
            filters.check_vms(wanted)


def test_fits_looks_one_level_down() -> None:
    told = {"state": None, "on": True, "node": {"name": "h1", "tags": ["a", "b"]}}
    assert filters.fits(told, {"name": ["h1", "h2"], "tags": ["b"]})
    assert filters.fits(told, {"on": ["true"], "state": [""], "name~": ["H"]})
    assert not filters.fits(told, {"tags": ["c"]})
    assert not filters.fits(told, {"nosuch": ["x"]})
