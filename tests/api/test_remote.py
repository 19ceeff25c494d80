"""`connect("http://…")`: the library's own verbs, through a service; and the stream of events."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator

import httpx
import pytest

import vorch_api.service
from tests.api.serving import cluster_in, served
from vorch import (
    BadConfig,
    Conflict,
    Denied,
    Invalid,
    JobState,
    NotFound,
    Orchestrator,
    Task,
    TaskState,
    Unsupported,
    connect,
)
from vorch.drivers import memory
from vorch.plan import Journal
from vorch_api import Service
from vorch_cli.main import main


@pytest.fixture(scope="module")
def cluster() -> Iterator[Orchestrator]:
    with cluster_in("api-remote") as found:
        yield found


@pytest.fixture(scope="module")
def service(cluster: Orchestrator) -> Iterator[Service]:
    with served(cluster) as found:
        yield found


@pytest.fixture
def far(service: Service) -> Iterator[Orchestrator]:
    with connect(service.address, token=service.token) as found:
        yield found


@pytest.fixture
def gate(cluster: Orchestrator) -> Iterator[threading.Event]:
    opened = threading.Event()

    def wait(point: str, journal: Journal) -> None:
        if point == "before":
            assert opened.wait(20)

    cluster.executor.hook = wait
    yield opened
    opened.set()
    cluster.executor.hook = None


def test_the_same_life(far: Orchestrator, cluster: Orchestrator) -> None:
    done = far.create("web", disk_gib=1, networks=(), tpm=False)
    assert done.task is not None
    assert done.task.state is TaskState.DONE
    assert far.show("web") == cluster.show("web")
    far.start("web")
    assert [one.name for one in far.list()] == [one.name for one in cluster.list()]
    assert far.list()[0].power == "running"
    assert far.node_list() == cluster.node_list()
    assert far.pool_list() == cluster.pool_list()
    assert far.image_list() == cluster.image_list()
    assert far.task_show(done.task.id) == cluster.task_show(done.task.id)
    moved = far.migrate("web", dry_run=True)
    assert moved.task is None
    assert moved.plan.steps == cluster.migrate("web", dry_run=True).plan.steps
    assert far.capacity().verdict == cluster.capacity().verdict
    assert sorted(far.dump().cluster.vms) == ["web"]
    (stayed,) = far.disk_move("web", pool=cluster.pool_list()[0][0].name)
    assert stayed.task is None
    far.ha_set("web", requested="started", max_restart=3)
    assert far.ha_show("web").settings.max_restart == 3
    far.stop("web", force=True)
    far.delete("web", purge=True)
    with pytest.raises(NotFound) as missing:
        far.show("web")
    with pytest.raises(NotFound) as here:
        cluster.show("web")
    assert missing.value.as_dict() == here.value.as_dict()


def test_errors_are_those_of_the_library(far: Orchestrator) -> None:
    with pytest.raises(Invalid):
        far.create("no such name!")
    far.create("twice", disk_gib=1, networks=())
    with pytest.raises(Conflict):
        far.create("twice", disk_gib=1, networks=())
    far.delete("twice", purge=True)
    with pytest.raises(TypeError):
        far.create()  # type: ignore[call-arg]


def test_what_it_has_no_way_for_is_said(far: Orchestrator) -> None:
    for act in (far.look, far.picture, lambda: far.console("web"), lambda: far.display("web")):
        with pytest.raises(Unsupported, match="through its service"):
            act()


def test_progress_is_told_on_the_way(service: Service, gate: threading.Event) -> None:
    told: list[Task] = []

    def watch(task: Task) -> None:
        told.append(task)
        # It is held up until its progress was told once.
        gate.set()

    with connect(service.address, token=service.token, watch=watch) as far:
        done = far.create("slow", disk_gib=1, networks=())
        assert done.task is not None
        assert done.task.id == told[-1].id
        assert told[0].state is TaskState.RUNNING
        assert told[-1].state is TaskState.DONE
        far.delete("slow", purge=True)


def test_ctrl_c_undoes_it_over_there(
    service: Service, cluster: Orchestrator, gate: threading.Event
) -> None:
    def interrupt(task: Task) -> None:
        if task.state is TaskState.RUNNING and not cluster.world.state.read(["cancel"]):
            # When it is asked to end, and not before, it goes on to where it can.
            threading.Thread(target=open_when_cancelled, daemon=True).start()
            raise KeyboardInterrupt

    def open_when_cancelled() -> None:
        while not cluster.world.state.read(["cancel"]):
            time.sleep(0.01)
        gate.set()

    with connect(service.address, token=service.token, watch=interrupt) as far:
        with pytest.raises(KeyboardInterrupt):
            far.create("never", disk_gib=1, networks=())
        job = next(one for one in far.job_list() if one.subject == "never")
        assert job.state is JobState.CANCELLED
        with pytest.raises(NotFound):
            far.show("never")


def test_watching_a_task(far: Orchestrator, gate: threading.Event, cluster: Orchestrator) -> None:
    threading.Thread(target=lambda: cluster.create("one", disk_gib=1, networks=())).start()
    while not any(task.subject == "one" for task in cluster.task_list()):
        time.sleep(0.01)
    task = next(task for task in cluster.task_list() if task.subject == "one")
    told: list[Task] = []

    def show(one: Task) -> None:
        told.append(one)
        gate.set()

    assert far.task_watch(task.id, show).state is TaskState.DONE
    assert told[0].state is TaskState.RUNNING
    far.delete("one", purge=True)


@pytest.mark.parametrize(
    "uri",
    ["http://vorch.example.org:1", "https://", "https://u:p@h", "https://h:x", "https://h/?a=b"],
)
def test_addresses_that_are_none(uri: str) -> None:
    with pytest.raises(BadConfig):
        connect(uri, token="t" * 43)


def test_a_wrong_token(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VORCH_TOKEN", raising=False)
    with pytest.raises(BadConfig, match="needs a token"):
        connect(service.address)
    with connect(service.address, token="x" * 43) as far, pytest.raises(Denied):
        far.list()


def test_the_command_line_is_the_same_there(
    service: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VORCH_TOKEN", service.token)
    monkeypatch.setenv("VORCH_CONFIG", os.devnull)
    words = ["--uri", service.address]
    assert main([*words, "create", "cli", "--disk", "1"]) == 0
    assert main([*words, "list"]) == 0
    assert "cli" in capsys.readouterr().out
    assert main([*words, "show", "nosuch"]) == 3
    assert main([*words, "delete", "cli", "--yes", "--purge"]) == 0
    assert main([*words, "job", "list"]) == 0


# ---------------------------------------------------------------------------------------------
# Events


def events(service: Service, until: str, **headers: str) -> Iterator[dict[str, str]]:
    """Each event as its fields, up to the first of that kind."""
    given = {"Authorization": f"Bearer {service.token}", **headers}
    with httpx.stream("GET", f"{service.address}/v1/events", headers=given, timeout=30) as answer:
        assert answer.status_code == 200
        event: dict[str, str] = {}
        for line in answer.iter_lines():
            word, _, rest = line.partition(": ")
            if line == "" and "event" in event:
                yield event
                if event["event"] == until:
                    return
                event = {}
            elif word in ("id", "event", "data"):
                event[word] = rest


def test_what_happens_is_told_and_can_be_caught_up_with(
    service: Service, cluster: Orchestrator
) -> None:
    (ready,) = events(service, "ready")
    assert int(ready["id"]) == json.loads(ready["data"])["revision"]
    cluster.create("told", disk_gib=1, networks=())
    heard = list(events(service, "ready", **{"Last-Event-ID": ready["id"]}))
    vms = [json.loads(one["data"]) for one in heard if one["event"] == "vm"]
    assert [one["name"] for one in vms] == ["told"]
    assert any(one["event"] == "task" for one in heard)
    assert int(heard[-1]["id"]) > int(ready["id"])

    threading.Timer(1.0, lambda: cluster.start("told")).start()
    live = list(events(service, "power"))
    assert json.loads(live[-1]["data"])["power"] in ("running", "paused")
    cluster.stop("told", force=True)
    cluster.delete("told", purge=True)
    gone = list(events(service, "ready", **{"Last-Event-ID": live[0]["id"]}))
    told = [json.loads(one["data"]) for one in gone if one["event"] == "vm"]
    assert told == [{"kind": "vm", "name": "told", "deleted": True}]
    assert not {one["event"] for one in gone} & {"secret", "plan", "claim", "cancel"}


def test_an_id_that_is_none(service: Service) -> None:
    headers = {"Authorization": f"Bearer {service.token}", "Last-Event-ID": "x"}
    assert httpx.get(f"{service.address}/v1/events", headers=headers).status_code == 422


def test_an_open_stream_does_not_hold_the_end_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vorch_api.service, "PATIENCE_S", 100)
    with cluster_in("api-remote-end") as other, served(other) as service:
        stream = events(service, "nosuch")
        assert next(stream)["event"] == "ready"
        began = time.monotonic()
        service.end()
        assert list(stream) == []
        # Without that it would be the patience of the server.
        assert time.monotonic() - began < 50


def test_what_an_image_holds_is_read_from_afar(far: Orchestrator, cluster: Orchestrator) -> None:
    whole = bytes(range(256)) * 16384
    world = memory.world_named("api-remote")
    world.files.made_up["https://images.example/odd"] = whole
    cluster.image_import("odd", "https://images.example/odd")
    with far.image_content("odd") as content:
        assert content.size_bytes == len(whole)
        assert list(content.extents) == [(0, len(whole))]
        read = b"".join(content.read(at, 300_000) for at in range(0, len(whole), 300_000))
        assert read == whole
        # Back again, past the end, and after the connection has broken.
        assert content.read(1000, 10) == whole[1000:1010]
        download = content.read.__self__  # type: ignore[attr-defined]
        download._open[0].sock.close()
        download._open[1].close()
        assert content.read(1010, 4096) == whole[1010:5106]
        assert content.read(len(whole) - 3, 100) == whole[-3:]
    cluster.image_delete("odd")
    with pytest.raises(NotFound), far.image_content("odd"):
        pass
