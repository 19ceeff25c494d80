"""Jobs: written down before they begin, done once, and none lost with the process that had them."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from vorch import (
    CloudInit,
    Desk,
    Invalid,
    JobState,
    NotFound,
    Orchestrator,
    Stale,
    TaskState,
    TooMany,
    connect,
)
from vorch.codec import decode
from vorch.decide.left_jobs import settled
from vorch.drivers import memory
from vorch.drivers.memory_time import ProcessDied
from vorch.execute import Executor
from vorch.model import Job, Task
from vorch.orchestrator import jobs as jobs_module
from vorch.plan import Journal


@pytest.fixture
def name(request: pytest.FixtureRequest) -> Iterator[str]:
    found = re.sub(r"\W+", "-", f"jobs-{request.node.name}")
    yield found
    memory.forget(found)


@pytest.fixture
def cluster(name: str) -> Iterator[Orchestrator]:
    with connect(f"memory:{name}") as found:
        yield found


@pytest.fixture
def desk(cluster: Orchestrator) -> Iterator[Desk]:
    found = Desk(cluster, at_once=4)
    yield found
    found.close(10)


class Gate:
    """A hook that holds plans up before their steps until it is opened."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.reached = threading.Event()

    def __call__(self, point: str, journal: Journal) -> None:
        if point == "before":
            self.reached.set()
            assert self.open.wait(20)


def test_a_job_ends_with_what_the_verb_returned(cluster: Orchestrator, desk: Desk) -> None:
    begun = desk.take("create", {"name": "web", "disk_gib": 1}, who="ann")
    assert begun.state is JobState.RUNNING
    ended = desk.wait(begun.id, 20)
    assert ended.state is JobState.DONE
    (task_id,) = ended.tasks
    task = cluster.task_show(task_id)
    assert (task.who, task.job, task.state) == ("ann", ended.id, TaskState.DONE)
    assert isinstance(ended.result, dict)
    assert ended.result["task"]["id"] == task_id
    assert cluster.show("web").vm.name == "web"
    assert cluster.job_show(ended.id) == ended
    assert [job.id for job in cluster.job_list()] == [ended.id]


def test_what_goes_wrong_stands_in_the_job(cluster: Orchestrator, desk: Desk) -> None:
    ended = desk.wait(desk.take("start", {"name": "nosuch"}, who="ann").id, 20)
    assert ended.state is JobState.FAILED
    assert ended.error is not None
    assert ended.error["code"] == NotFound.code


def test_a_mistake_inside_is_not_told(
    cluster: Orchestrator, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mistaken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("inside")

    monkeypatch.setattr(Orchestrator, "start", mistaken)
    ended = desk.wait(desk.take("start", {"name": "web"}, who="ann").id, 20)
    assert ended.error is not None
    assert ended.error["code"] == "error"
    assert "inside" not in str(ended.error)


def test_secrets_are_not_written_down(cluster: Orchestrator, desk: Desk) -> None:
    given: dict[str, Any] = {
        "name": "web",
        "cloud_init": CloudInit(user="ann", password_hash="$6$salt$verysecret" + "x" * 80),
        "image": "nosuch",
    }
    job = desk.wait(desk.take("create", given, who="ann").id, 20)
    change = {"name": "h9", "bmc": "ipmi://ann:verysecret@h9", "bmc_password": "verysecret"}
    other = desk.wait(desk.take("node_change", change, who="ann").id, 20)
    for one in (job, other):
        document = cluster.world.state.get(f"job/{one.id}")
        assert document is not None
        assert "verysecret" not in str(document.body)
        assert "not shown" in str(document.body)


# ---------------------------------------------------------------------------------------------
# Once


def test_the_same_key_is_the_same_job(cluster: Orchestrator, desk: Desk) -> None:
    given = {"name": "web", "disk_gib": 1}
    first = desk.take("create", given, who="ann", key="k1")
    again = desk.take("create", given, who="ann", key="k1")
    assert again.id == first.id
    assert desk.wait(first.id, 20).state is JobState.DONE
    assert desk.take("create", given, who="ann", key="k1").result is not None
    assert len(cluster.job_list()) == 1
    # Keys of others are others.
    other = desk.wait(desk.take("create", given, who="bob", key="k1").id, 20)
    assert other.state is JobState.FAILED
    assert other.error is not None
    assert other.error["code"] == "conflict"


@pytest.mark.parametrize("verb", ["create", "delete"])
def test_a_key_is_for_one_thing(cluster: Orchestrator, desk: Desk, verb: str) -> None:
    desk.take("create", {"name": "web", "disk_gib": 1}, who="ann", key="k1")
    with pytest.raises(Invalid, match="used for something else"):
        desk.take(verb, {"name": "web"}, who="ann", key="k1")


def test_a_key_that_makes_no_sense(desk: Desk) -> None:
    for key in ("x" * 256, "a\nb"):
        with pytest.raises(Invalid, match="Idempotency-Key"):
            desk.take("create", {"name": "web"}, who="ann", key=key)


# ---------------------------------------------------------------------------------------------
# What was looked at


def version(cluster: Orchestrator, key: str) -> int:
    document = cluster.world.state.get(key)
    assert document is not None
    return document.version


def test_what_was_changed_since_is_not_changed(cluster: Orchestrator, desk: Desk) -> None:
    cluster.create("web", disk_gib=1)
    seen = {"vm/web": version(cluster, "vm/web")}
    cluster.change("web", description="other")
    with pytest.raises(Stale, match="look again"):
        desk.take("change", {"name": "web", "vcpus": 2}, who="ann", expected=seen)
    assert cluster.show("web").vm.vcpus == 1
    seen = {"vm/web": version(cluster, "vm/web")}
    job = desk.take("change", {"name": "web", "vcpus": 2}, who="ann", expected=seen)
    assert desk.wait(job.id, 20).state is JobState.DONE
    assert cluster.show("web").vm.vcpus == 2


def test_nor_when_it_is_changed_in_the_last_moment(
    cluster: Orchestrator, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look of a plan and the commit that opens its journal."""
    cluster.create("web", disk_gib=1)
    seen = {"vm/web": version(cluster, "vm/web")}
    before = Executor.run
    done: list[Any] = []

    def run(executor: Executor, plan: Any) -> Task:
        if not done:
            done.append(plan)
            # In a context without a job, as another process would.
            other = threading.Thread(target=lambda: cluster.change("web", description="other"))
            other.start()
            other.join()
        return before(executor, plan)

    monkeypatch.setattr(Executor, "run", run)
    job = desk.take("change", {"name": "web", "vcpus": 2}, who="ann", expected=seen)
    ended = desk.wait(job.id, 20)
    assert ended.error is not None
    assert ended.error["code"] == "stale"
    assert cluster.show("web").vm.vcpus == 1


# ---------------------------------------------------------------------------------------------
# Too many, and the end


def test_more_than_can_wait_are_refused(cluster: Orchestrator) -> None:
    gate = Gate()
    cluster.executor.hook = gate
    desk = Desk(cluster, at_once=1, waiting=1)
    try:
        first = desk.take("create", {"name": "a", "disk_gib": 1}, who="ann")
        second = desk.take("create", {"name": "b", "disk_gib": 1}, who="ann")
        with pytest.raises(TooMany) as refused:
            desk.take("create", {"name": "c", "disk_gib": 1}, who="ann")
        assert refused.value.fields["retry_after_s"] > 0
        gate.open.set()
        assert desk.wait(first.id, 20).over
        assert desk.wait(second.id, 20).state is JobState.DONE
    finally:
        gate.open.set()
        desk.close(10)
    assert len(cluster.job_list()) == 2


def test_an_end_waits_for_what_is_at_work_and_not_for_what_has_not_begun(
    cluster: Orchestrator,
) -> None:
    gate = Gate()
    cluster.executor.hook = gate
    desk = Desk(cluster, at_once=1)
    first = desk.take("create", {"name": "a", "disk_gib": 1}, who="ann")
    assert gate.reached.wait(20)
    second = desk.take("create", {"name": "b", "disk_gib": 1}, who="ann")
    told: list[Job] = []
    waiter = threading.Thread(target=lambda: told.append(desk.wait(second.id, 100)))
    waiter.start()
    threading.Timer(0.2, gate.open.set).start()
    began = time.monotonic()
    # The second is left to whoever recovers.
    assert not desk.close(100)
    waiter.join(50)
    assert time.monotonic() - began < 50
    assert cluster.job_show(first.id).state is JobState.DONE
    assert [one.state for one in told] == [JobState.RUNNING]
    assert second.id not in jobs_module.held
    assert [one.name for one in cluster.list()] == ["a"]
    cluster.recover()
    assert cluster.job_show(second.id).over


def test_old_jobs_and_their_keys_are_cleared_away(cluster: Orchestrator) -> None:
    cluster.settings = dataclasses.replace(cluster.settings, tasks_kept=5)
    desk = Desk(cluster, at_once=1)
    for number in range(32):
        job = desk.take("start", {"name": f"vm{number}"}, who="ann", key=f"k{number}")
        assert desk.wait(job.id, 20).over
        cluster.world.clock.sleep(1.0)
    assert desk.close(20)
    kept = cluster.job_list()
    assert len(kept) == 5
    assert "vm31" in {job.subject for job in kept}
    assert len(cluster.world.state.read(["idem"])) == 5


def test_cancel(cluster: Orchestrator, desk: Desk) -> None:
    gate = Gate()
    cluster.executor.hook = gate
    job = desk.take("create", {"name": "web", "disk_gib": 1}, who="ann")
    assert gate.reached.wait(20)
    assert cluster.job_show(job.id).tasks != ()
    cluster.job_cancel(job.id)
    gate.open.set()
    ended = desk.wait(job.id, 20)
    assert ended.state is JobState.CANCELLED
    with pytest.raises(NotFound):
        cluster.show("web")
    assert cluster.world.state.read(["cancel"]) == {}


def test_watch(cluster: Orchestrator, desk: Desk) -> None:
    gate = Gate()
    cluster.executor.hook = gate
    job = desk.take("create", {"name": "web", "disk_gib": 1}, who="ann")
    assert gate.reached.wait(20)
    told: list[Job | Task] = []

    def show(one: Job | Task) -> None:
        told.append(one)
        gate.open.set()

    ended = cluster.job_watch(job.id, show)
    assert told[-1] == ended
    assert {type(one) for one in told} == {Job, Task}


# ---------------------------------------------------------------------------------------------
# Death


def left_by_the_dead(name: str, point: str, verb: str, given: dict[str, Any]) -> str:
    """A service on its own connection takes a job and is killed at that point of it."""
    with connect(f"memory:{name}") as dying:
        reached = threading.Event()

        def die(at: str, journal: Journal) -> None:
            if at == point:
                dying.world.processes.die()  # type: ignore[attr-defined]
                reached.set()
                raise ProcessDied

        dying.executor.hook = die
        desk = Desk(dying)
        job = desk.take(verb, given, who="ann")
        assert reached.wait(20)
        with contextlib.suppress(BaseException):
            desk.close(1)
        # What a thread of the dead process wrote is nothing: it can write no more.
        jobs_module.held.discard(job.id)
        return job.id


@pytest.mark.parametrize("point", ["opened", "before", "after", "closing"])
def test_jobs_of_the_dead_end_as_their_tasks_do(
    cluster: Orchestrator, name: str, point: str
) -> None:
    job_id = left_by_the_dead(name, point, "create", {"name": "web", "disk_gib": 1})
    assert cluster.job_show(job_id).state is JobState.RUNNING
    (task,) = cluster.recover(force=False)
    ended = cluster.job_show(job_id)
    assert ended.over
    assert ended.tasks == (task.id,)
    assert (ended.state is JobState.DONE) == (task.state is TaskState.DONE)
    if ended.state is JobState.DONE:
        assert cluster.show("web").vm.name == "web"
    else:
        assert ended.error is not None
        with pytest.raises(NotFound):
            cluster.show("web")


def test_a_job_that_had_not_begun_is_reported(cluster: Orchestrator) -> None:
    job = Job(id="aa", verb="create", subject="web", who="ann", started_at=1.0)
    ended = settled(job, (), 2.0)
    assert ended.state is JobState.FAILED
    assert ended.error is not None
    assert "before it began" in str(ended.error["message"])


@pytest.mark.parametrize(
    ("verb", "state", "ends"),
    [
        ("create", TaskState.DONE, JobState.DONE),
        ("create", TaskState.CANCELLED, JobState.FAILED),
        ("balance", TaskState.DONE, JobState.FAILED),
    ],
)
def test_several_plans_do_not_tell_whether_there_were_more(
    verb: str, state: TaskState, ends: JobState
) -> None:
    job = Job(id="aa", verb=verb, subject="web", who="ann", started_at=1.0)
    task = Task(id="bb", verb=verb, subject="web", why="", who="ann", started_at=1.0, state=state)
    ended = settled(job, (task,), 2.0)
    assert ended.state is ends
    assert ended.tasks == ("bb",)
    assert (ended.error is None) == (ends is JobState.DONE)


def test_jobs_of_the_living_are_left_alone(cluster: Orchestrator, name: str, desk: Desk) -> None:
    gate = Gate()
    cluster.executor.hook = gate
    job = desk.take("create", {"name": "web", "disk_gib": 1}, who="ann")
    assert gate.reached.wait(20)
    with connect(f"memory:{name}") as other:
        other.recover(force=False)
    cluster.recover(force=False)
    assert cluster.job_show(job.id).state is JobState.RUNNING
    gate.open.set()
    assert desk.wait(job.id, 20).state is JobState.DONE
    document = cluster.world.state.get(f"job/{job.id}")
    assert document is not None
    assert decode(Job, document.body).state is JobState.DONE
