"""/metrics: that it says what is so, who may read it, and that docs/grafana/ stands on it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from vorch import Conflict, Orchestrator, Settings, connect
from vorch.drivers import memory
from vorch.drivers.ceph_health import read_status
from vorch.drivers.memory_images import MemoryImages
from vorch.drivers.memory_state import MemoryState
from vorch.drivers.timed_state import TimedState
from vorch.ports import Change
from vorch_api import Metrics, create_app

GRAFANA = Path(__file__).parents[2] / "docs" / "grafana"
TOKEN = "t" * 43
BEARER = {"Authorization": f"Bearer {TOKEN}"}
MIB = 1024**2

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest.fixture
def name(request: pytest.FixtureRequest) -> Iterator[str]:
    found = re.sub(r"\W+", "-", f"metrics-{request.node.name}")
    yield found
    memory.forget(found)


@pytest.fixture
def counted() -> Metrics:
    return Metrics()


@pytest.fixture
def cluster(name: str, counted: Metrics) -> Iterator[Orchestrator]:
    uri = f"memory:{name}"
    with connect(uri, observe=counted.observe_state) as found:
        yield found


@pytest.fixture
def client(cluster: Orchestrator, counted: Metrics) -> Iterator[TestClient]:
    app = create_app(cluster, token=TOKEN, counted=counted)
    with TestClient(app, raise_server_exceptions=False) as found:
        yield found


def read(client: TestClient) -> Samples:
    answer = client.get("/metrics", headers=BEARER)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def measured(client: TestClient) -> Samples:
    """After a round of what a service does on the side, where time does not stand still."""
    sampler = client.app.state.sampler  # type: ignore[attr-defined]
    sampler.measure_hosts()
    sampler.measure_pools()
    return read(client)


def test_hosts_and_vms(client: TestClient, cluster: Orchestrator) -> None:
    (host,) = cluster.look().nodes
    cluster.create("web", disk_gib=1, start=True, memory_mib=2048)
    cluster.create("off", disk_gib=1)
    found = measured(client)
    of_host, of_web = (("host", host),), (("host", host), ("vm", "web"))
    assert found["vorch_host_up", of_host] == 1
    assert found["vorch_host_memory_given_bytes", of_host] == 2048 * MIB
    assert found["vorch_host_memory_used_bytes", of_host] == 2048 * MIB
    assert found["vorch_vm_up", of_web] == 1
    assert found["vorch_vm_up", (("host", host), ("vm", "off"))] == 0
    assert found["vorch_vm_memory_bytes", of_web] == 2048 * MIB
    assert ("vorch_vm_cpu_seconds_total", (("host", host), ("vm", "off"))) not in found
    assert found["vorch_vms", (("state", "running"),)] == 1
    assert found["vorch_vms", (("state", "stopped"),)] == 1
    assert found["vorch_tasks", (("state", "done"), ("verb", "create"))] == 2
    assert found["vorch_ha_watched", ()] == 0


def test_each_vm_by_itself_can_be_left_out(name: str) -> None:
    settings = Settings(uri=f"memory:{name}", metrics_vms=False)
    with connect(f"memory:{name}", settings=settings) as cluster:
        cluster.create("web", disk_gib=1)
        with TestClient(create_app(cluster, token=TOKEN)) as client:
            found = read(client)
    assert found["vorch_vms", (("state", "stopped"),)] == 1
    assert not [one for one, _ in found if one.startswith("vorch_vm_")]


def test_pools(client: TestClient, cluster: Orchestrator) -> None:
    cluster.create("web", disk_gib=3)
    found = measured(client)
    (pool, usage), *_ = cluster.pool_list()
    assert found["vorch_pool_capacity_bytes", (("pool", pool.name),)] == usage.capacity_bytes
    assert found["vorch_pool_provisioned_bytes", (("pool", pool.name),)] == 3 * 1024**3


# As a Ceph 16 writes it, the parts that are not read left out.
CEPH = {
    "fsid": "2f5f0a55-6a3b-4a42-9d52-3f4a7b6f1c11",
    "health": {
        "status": "HEALTH_WARN",
        "checks": {
            "OSD_DOWN": {
                "severity": "HEALTH_WARN",
                "summary": {"message": "1 osds down", "count": 1},
                "muted": False,
            },
            "POOL_NO_REDUNDANCY": {
                "severity": "HEALTH_WARN",
                "summary": {"message": "1 pool(s) have no replicas configured", "count": 1},
                "muted": True,
            },
        },
        "mutes": [],
    },
    "quorum": [0, 2],
    "quorum_names": ["a", "c"],
    "monmap": {"epoch": 1, "num_mons": 3},
    "osdmap": {"epoch": 30, "num_osds": 3, "num_up_osds": 2, "num_in_osds": 3},
    "pgmap": {"bytes_total": 3000, "bytes_avail": 2000, "degraded_objects": 7},
}


def test_ceph(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    said = read_status(CEPH)
    assert said.checks == {"OSD_DOWN": "1 osds down"}
    monkeypatch.setattr(MemoryImages, "health", lambda images: said)
    found = measured(client)
    name = ("cluster", said.cluster)
    assert found["vorch_ceph_health", (name,)] == 1
    assert found["vorch_ceph_check", (("check", "OSD_DOWN"), name)] == 1
    assert found["vorch_ceph_monitors", (name, ("state", "quorum"))] == 2
    assert found["vorch_ceph_monitors", (name, ("state", "all"))] == 3
    assert found["vorch_ceph_osds", (name, ("state", "up"))] == 2
    assert found["vorch_ceph_free_bytes", (name,)] == 2000
    assert found["vorch_ceph_degraded_objects", (name,)] == 7


def test_an_older_ceph_nests_its_osds() -> None:
    older = {**CEPH, "osdmap": {"osdmap": CEPH["osdmap"]}}
    assert read_status(older) == read_status(CEPH)


def test_it_measures_by_itself_where_time_goes_on(name: str) -> None:
    uri = f"memory:{name}?clock=system"
    settings = Settings(uri=uri, measure_every_s=0.01)
    rounds = threading.Semaphore(0)
    with connect(uri, settings=settings) as cluster:
        app = create_app(cluster, token=TOKEN)
        with TestClient(app) as client:
            app.state.sampler._taken = lambda figures: rounds.release()
            assert all(rounds.acquire(timeout=30) for _ in range(3))
            assert any(one == "vorch_host_cpu_seconds_total" for one, _ in read(client))
    assert "vorch-sampler" not in {thread.name for thread in threading.enumerate()}
    memory.forget(f"{name}?clock=system")


def test_requests_are_counted_by_route(client: TestClient) -> None:
    client.get("/v1/vms", headers=BEARER)
    client.get("/v1/vms")
    for name in ("web", "vms"):
        client.get(f"/v1/vms/{name}", headers=BEARER)
    client.get("/nosuch/a", headers=BEARER)
    client.get("/nosuch/b", headers=BEARER)
    client.request("BREW", "/nosuch/b", headers=BEARER)
    found = read(client)

    def count(method: str, route: str, status: str) -> float:
        labels = (("method", method), ("route", route), ("status", status))
        return found["vorch_http_request_seconds_count", labels]

    assert count("GET", "/v1/vms", "200") == 1
    assert count("GET", "/v1/vms/{name}", "404") == 2
    assert count("GET", "other", "401") == 1
    assert count("GET", "other", "404") == 2
    assert count("other", "other", "404") == 1


def test_the_store_is_timed(client: TestClient, cluster: Orchestrator) -> None:
    cluster.create("web", disk_gib=1)
    found = read(client)
    labels = (("answered", "yes"), ("operation", "commit"))
    assert found["vorch_state_seconds_count", labels] >= 2


def test_that_the_state_cannot_be_read_is_told(client: TestClient, cluster: Orchestrator) -> None:
    world = memory.world_named(cluster.settings.uri.partition(":")[2])
    assert read(client)["vorch_state_up", ()] == 1
    fault = world.faults.fail("state", "read")
    found = read(client)
    assert found["vorch_state_up", ()] == 0
    assert ("vorch_ha_watched", ()) not in found
    labels = (("answered", "no"), ("operation", "read"))
    assert read(client)["vorch_state_seconds_count", labels] >= 1
    world.faults.lift(fault)
    assert read(client)["vorch_state_up", ()] == 1


def test_a_store_that_is_timed_is_one_all_the_same() -> None:
    told: list[tuple[str, bool]] = []
    world = memory.MemoryWorld().connect()
    assert isinstance(world.state, MemoryState)
    state = TimedState(world.state, lambda what, seconds, well: told.append((what, well)))
    assert state.commit([Change("note/a", 0, {"x": 1})]) == 1
    with pytest.raises(Conflict):
        state.commit([Change("note/a", 0, {"x": 2})])
    document = state.get("note/a")
    assert document is not None
    assert state.read(["note"]) == {"note/a": document}
    lease = state.acquire("l", "me", 5.0, now=0.0)
    assert lease is not None
    assert state.renew(lease, 5.0, now=1.0) is not None
    assert state.lease("l") is not None
    state.release(lease)
    assert state.changes(0, 0.0) == (1, ("note/a",))
    assert told == [
        *(("commit", True), ("commit", True), ("get", True), ("read", True)),
        *(("lease", True), ("lease", True), ("lease", True), ("lease", True), ("changes", True)),
    ]


# ---------------------------------------------------------------------------------------------
# Who may read it


@pytest.mark.parametrize(
    ("open_", "address", "headers", "status"),
    [
        (False, "127.0.0.1", {}, 401),
        (True, "127.0.0.1", {}, 200),
        (True, "::1", {}, 200),
        (True, "192.0.2.7", {}, 401),
        # A proxy on this machine brings it from elsewhere.
        (True, "127.0.0.1", {"X-Forwarded-For": "192.0.2.7"}, 401),
        (True, "127.0.0.1", {"Forwarded": "for=192.0.2.7"}, 401),
        (True, "127.0.0.1", {"Via": "1.1 proxy"}, 401),
        (False, "192.0.2.7", BEARER, 200),
    ],
)
def test_who_may_read_it(
    name: str, open_: bool, address: str, headers: dict[str, str], status: int
) -> None:
    settings = Settings(uri=f"memory:{name}", metrics_open=open_)
    with connect(f"memory:{name}", settings=settings) as cluster:
        app = create_app(cluster, token=TOKEN)
        with TestClient(app, client=(address, 5000)) as client:
            assert client.get("/metrics", headers=headers).status_code == status
            assert client.post("/metrics", headers=headers).status_code == (
                405 if headers == BEARER else 401
            )
            if headers != BEARER:
                assert client.get("/v1/vms", headers=headers).status_code == 401


# ---------------------------------------------------------------------------------------------
# What stands on it


def names_in(expression: str) -> set[str]:
    return set(re.findall(r"\bvorch_\w+", expression))


def expressions() -> dict[str, str]:
    board = json.loads((GRAFANA / "vorch.json").read_text())
    rules = yaml.safe_load((GRAFANA / "alerts.yml").read_text())
    return {
        **{
            f"{panel['title']} {target['refId']}": target["expr"]
            for panel in board["panels"]
            for target in panel["targets"]
        },
        **{rule["alert"]: rule["expr"] for group in rules["groups"] for rule in group["rules"]},
    }


def test_dashboard_and_alerts_use_what_there_is(client: TestClient, cluster: Orchestrator) -> None:
    cluster.create("web", disk_gib=1, start=True)
    cluster.ha_set("web")
    text = client.get("/metrics", headers=BEARER).text
    there = set(re.findall(r"^# TYPE (\S+) ", text, re.MULTILINE))
    there |= {f"{one}{end}" for one in there for end in ("_bucket", "_count")}
    # Shown once there has been a drill.
    there |= {"vorch_ha_drill_timestamp_seconds", "vorch_ha_drill_passed"}
    used = {one for expression in expressions().values() for one in names_in(expression)}
    assert used - there == set()
    assert len(used) > 20


def test_states_in_alerts_are_states(cluster: Orchestrator) -> None:
    from vorch.availability import NodeState, VmState
    from vorch.model import TaskState

    known = {one.value for kind in (NodeState, VmState, TaskState) for one in kind}
    for title, expression in expressions().items():
        for words in re.findall(r'state=~?"([^"]+)"', expression):
            assert set(words.split("|")) <= known, title


def test_panels_have_a_place_of_their_own() -> None:
    panels = json.loads((GRAFANA / "vorch.json").read_text())["panels"]
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not taken & cells, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
    assert len({panel["id"] for panel in panels}) == len(panels)


def promtool() -> str:
    program = os.environ.get("PROMTOOL") or shutil.which("promtool")
    if program is None:
        pytest.skip("there is no promtool here (package prometheus)")
    return program


def test_promtool_takes_the_alerts() -> None:
    done = subprocess.run(
        [promtool(), "check", "rules", str(GRAFANA / "alerts.yml")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS" in done.stdout


def test_promtool_takes_the_figures(client: TestClient, cluster: Orchestrator) -> None:
    program = promtool()
    cluster.create("web", disk_gib=1, start=True)
    measured(client)
    text = client.get("/metrics", headers=BEARER).text
    done = subprocess.run(
        [program, "check", "metrics"], input=text, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""


def test_promtool_takes_the_expressions_of_the_dashboard(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel{number}", "expr": expression}
        for number, expression in enumerate(expressions().values())
    ]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run(
        [promtool(), "check", "rules", str(file)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
