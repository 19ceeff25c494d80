"""Every verb on the memory world, with a death and with a failure at every point on its way."""

from __future__ import annotations

import contextlib
import itertools
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import vorch
from tests.boot_sector import SLEEPS
from tests.execute.scenarios import Story, leaks, stories
from tests.thorough import much
from vorch import Orchestrator
from vorch.drivers.memory import MemoryWorld, ProcessDied
from vorch.drivers.memory_faults import When
from vorch.drivers.memory_state import MemoryState
from vorch.plan import Journal
from vorch.ports import Change, World

_numbers = itertools.count()


def _raw_disk() -> bytes:
    """A disk as an installer leaves it: a boot sector with its mark, and room behind it."""
    return SLEEPS + bytes(1024 * 1024 - 512)


def _cd() -> bytes:
    descriptor = b"\x01CD001\x01" + bytes(2041)
    return bytes(16 * 2048) + descriptor + b"\xffCD001\x01" + bytes(2041) + struct.pack("<I", 1)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    folder = tmp_path_factory.mktemp("images")
    (folder / "disk.raw").write_bytes(_raw_disk())
    (folder / "cd.iso").write_bytes(_cd())
    yield str(folder / "disk.raw"), str(folder / "cd.iso")
    # Exports that were cut off.
    assert [path.name for path in folder.glob("*.part")] == []


ALL = stories("disk", "cd")


def story_named(name: str, images: tuple[str, str]) -> Story:
    return next(story for story in stories(*images) if story.name == name)


@pytest.fixture
def world() -> MemoryWorld:
    return MemoryWorld(f"points-{next(_numbers)}")


class Places:
    """Connections to one memory world, each a process of its own."""

    def __init__(self, world: MemoryWorld) -> None:
        self.world = world

    def connect(self, *, recover: bool = True) -> Orchestrator:
        ports, prepare = self.world.connection()
        orchestrator = Orchestrator(ports, vorch.Settings(uri="memory:"))
        prepare(orchestrator)
        if recover:
            orchestrator.recover(force=True)
        return orchestrator


@pytest.fixture
def places(world: MemoryWorld) -> Places:
    return Places(world)


def _names(cluster: Orchestrator) -> frozenset[str]:
    return frozenset(status.name for status in cluster.list())


def _die_at(number: int, world: MemoryWorld, ports: World) -> Callable[[str, Journal], None]:
    seen = itertools.count()

    def hook(point: str, journal: Journal) -> None:
        if next(seen) == number:
            world.kill(ports)
            raise ProcessDied

    return hook


@pytest.mark.parametrize("live", [True, False], ids=["as-in-rbd", "as-in-qcow2"])
@pytest.mark.parametrize("name", [story.name for story in ALL])
def test_a_death_at_any_point_leaves_nothing(
    name: str, live: bool, images: tuple[str, str]
) -> None:
    """Whatever the next process finds, it finishes or undoes, and nothing is left over.

    `live`: whether pools can snapshot a disk that is being written, or the host has to.
    """
    story = story_named(name, images)
    died_somewhere = False
    for number in itertools.count():
        world = MemoryWorld(f"death-{name}-{number}", hosts=story.hosts, live_snapshots=live)
        places = Places(world)
        first = places.connect()
        for act in story.before:
            act(first)
        assert leaks(first) == []
        victim = places.connect()
        victim.executor.hook = _die_at(number, world, victim.world)
        try:
            story.act(victim)
        except ProcessDied:
            died_somewhere = True
        else:
            assert _names(first) == story.done
            break
        heir = places.connect()
        assert leaks(heir) == [], f"after a death at point {number}"
        assert _names(heir) in (story.done, story.undone), f"after a death at point {number}"
        # Whether it was finished or undone, it can be done now.
        if _names(heir) == story.undone != story.done:
            story.act(heir)
            assert _names(heir) == story.done
            assert leaks(heir) == []
    assert died_somewhere


@pytest.mark.parametrize("how", ["refused", "answer-lost", "died-in-it", "died-half-way"])
@pytest.mark.parametrize("name", [story.name for story in ALL])
def test_a_failure_of_any_call_leaves_nothing(name: str, how: str, images: tuple[str, str]) -> None:
    """Each call to a host or pool goes wrong once, in turn: all is undone, or finished later."""
    story = story_named(name, images)
    calls = _calls_of(story)
    for target, verb, number in calls:
        world = MemoryWorld(f"failure-{name}-{how}-{target}-{verb}-{number}", hosts=story.hosts)
        places = Places(world)
        cluster = places.connect()
        for act in story.before:
            act(cluster)
        if how == "refused":
            world.faults.fail(target, verb, times=1, skip=number)
        elif how == "answer-lost":
            world.faults.lose_answer(target, verb, times=1, skip=number)
        else:
            when: When = "after" if how == "died-in-it" else "midway"
            world.faults.crash(target, verb, when=when, skip=number)
        try:
            story.act(cluster)
        except vorch.VorchError:
            pass
        except ProcessDied:
            cluster = places.connect()
        world.faults.clear()
        cluster.recover()
        where = f"after call {number} of {target}.{verb} had failed"
        assert leaks(cluster) == [], where
        assert _names(cluster) in (story.done, story.undone), where


@pytest.mark.parametrize("silent_for", much([1, 4, 1000], [4]))
@pytest.mark.parametrize("how", ["refused", "answer-lost"])
@pytest.mark.parametrize("name", [story.name for story in ALL])
def test_a_silent_store_corrupts_nothing(
    name: str, how: str, silent_for: int, images: tuple[str, str]
) -> None:
    """The store falls silent at each commit in turn, for a while; the process goes on after."""
    story = story_named(name, images)
    for number in range(_commits_of(story)):
        world = MemoryWorld(f"silent-{name}-{how}-{silent_for}-{number}", hosts=story.hosts)
        cluster = Places(world).connect()
        for act in story.before:
            act(cluster)
        fault = world.faults.fail if how == "refused" else world.faults.lose_answer
        fault("state", "commit", times=silent_for, skip=number)
        with contextlib.suppress(vorch.VorchError):
            story.act(cluster)
        world.faults.clear()
        cluster.recover()
        where = f"after commit {number} had failed"
        assert leaks(cluster) == [], where
        assert _names(cluster) in (story.done, story.undone), where
        assert not world.connect().state.read(["plan", "claim"]), where


def _commits_of(story: Story) -> int:
    world = MemoryWorld(f"commits-{story.name}", hosts=story.hosts)
    cluster = Places(world).connect()
    for act in story.before:
        act(cluster)
    before = len(world.faults.trace)
    story.act(cluster)
    calls = list(world.faults.trace)[before:]
    return sum((call.target, call.name) == ("state", "commit") for call in calls)


def _calls_of(story: Story) -> list[tuple[str, str, int]]:
    """(host or pool, call, how many of its kind came before) of all calls that the verb makes."""
    world = MemoryWorld(f"trace-{story.name}", hosts=story.hosts)
    cluster = Places(world).connect()
    for act in story.before:
        act(cluster)
    before = len(world.faults.trace)
    story.act(cluster)
    counts: dict[tuple[str, str], int] = {}
    calls = []
    for call in list(world.faults.trace)[before:]:
        if call.target == "state":
            continue
        key = (call.target, call.name)
        calls.append((call.target, call.name, counts.get(key, 0)))
        counts[key] = counts.get(key, 0) + 1
    return calls


def test_two_at_once_one_wins(images: tuple[str, str], world: MemoryWorld, places: Places) -> None:
    """While one process works on a VM, another gets `conflict`, with the task that is at it."""
    first, second = places.connect(), places.connect()
    first.image_import("debian", images[0])
    first.create("web", image="debian", networks=())
    seen: list[vorch.Conflict] = []

    def meddle(point: str, journal: Journal) -> None:
        if point == "before" and not seen:
            with pytest.raises(vorch.Conflict) as caught:
                second.delete("web")
            seen.append(caught.value)

    first.executor.hook = meddle
    first.start("web")
    assert seen[0].fields["vm"] == "web"
    assert "task" in seen[0].fields
    assert [status.power.value for status in second.list()] == ["running"]


def test_waiting_when_asked_to(images: tuple[str, str], world: MemoryWorld, places: Places) -> None:
    """The other one's claim goes away while this one waits."""
    first, second = places.connect(), places.connect()
    first.image_import("debian", images[0])
    first.create("web", image="debian", networks=())
    waited: list[float] = []

    def meddle(point: str, journal: Journal) -> None:
        if point == "before" and not waited:
            began = world.clock.now()
            with pytest.raises(vorch.Conflict):
                second.start("web", wait_s=5)
            waited.append(world.clock.now() - began)

    first.executor.hook = meddle
    first.start("web")
    assert 4.5 <= waited[0] <= 6
    second.stop("web", force=True, wait_s=5)


def test_a_process_that_was_taken_over_does_nothing_more(
    images: tuple[str, str], world: MemoryWorld, places: Places
) -> None:
    """One that cannot be seen is taken over after its silence; waking up, it stops at once."""
    sleeper, heir = places.connect(), places.connect()
    sleeper.image_import("debian", images[0])
    slept: list[bool] = []

    def sleep(point: str, journal: Journal) -> None:
        if point == "before" and not slept:
            slept.append(True)
            world.processes.hide(sleeper.world.processes.me())
            world.clock.sleep(sleeper.settings.runner_silent_after_s + 1)
            recovered = heir.recover(force=False)
            assert [task.state.value for task in recovered] == ["undone"]

    sleeper.executor.hook = sleep
    with pytest.raises(vorch.Conflict, match="taken"):
        sleeper.create("web", image="debian", networks=(), disk_gib=1)
    heir.trash_purge()
    assert _names(heir) == frozenset()


def test_cancel_undoes(images: tuple[str, str], world: MemoryWorld, places: Places) -> None:
    first, second = places.connect(), places.connect()
    first.image_import("debian", images[0])

    def cancel(point: str, journal: Journal) -> None:
        if point == "opened":
            second.task_cancel(journal.id)

    first.executor.hook = cancel
    with pytest.raises(vorch.VorchError) as caught:
        first.create("web", image="debian", networks=())
    assert caught.value.code == "cancelled"
    assert leaks(second) == []
    task = second.task_show(caught.value.fields["task"])
    assert task.state.value == "cancelled"
    with pytest.raises(vorch.Conflict):
        second.task_cancel(task.id)


def test_ctrl_c_undoes(images: tuple[str, str], places: Places) -> None:
    cluster = places.connect()
    cluster.image_import("debian", images[0])

    def interrupt(point: str, journal: Journal) -> None:
        if point == "after":
            raise KeyboardInterrupt

    cluster.executor.hook = interrupt
    with pytest.raises(KeyboardInterrupt):
        cluster.create("web", image="debian", networks=())
    cluster.executor.hook = None
    assert leaks(cluster) == []
    assert _names(cluster) == frozenset()


@pytest.mark.parametrize("written", [True, False], ids=["after", "before"])
def test_ctrl_c_amid_a_commit_is_no_other_process(
    images: tuple[str, str], places: Places, monkeypatch: pytest.MonkeyPatch, written: bool
) -> None:
    """A signal comes while the store writes; what was written then is known all the same."""
    cluster = places.connect()
    cluster.image_import("debian", images[0])
    # What a first VM brings along, as the host's record, is there.
    cluster.create("web", image="debian", networks=(), start=True)
    cluster.recover()
    cluster.delete("web", force=True, purge=True)
    commit = MemoryState.commit
    left = 0

    def interrupted(self: MemoryState, changes: Sequence[Change], **more: Any) -> int:
        nonlocal left
        left -= any(change.key.startswith("plan/") for change in changes)
        if left == 0 and not written:
            raise KeyboardInterrupt
        version = commit(self, changes, **more)
        if left == 0:
            raise KeyboardInterrupt
        return version

    monkeypatch.setattr(MemoryState, "commit", interrupted)
    ends = []
    # The first commit is the one that opens the task: what is cut off there was never begun here.
    for number in itertools.count(2):
        before = {task.id for task in cluster.task_list()}
        left = number
        try:
            cluster.create("web", image="debian", networks=(), start=True)
        except KeyboardInterrupt:
            left = 0
        if left > 0:
            break
        (task,) = (task for task in cluster.task_list() if task.id not in before)
        ends.append(task.state.value)
        there = task.state.value == "done"
        assert _names(cluster) == (frozenset({"web"}) if there else frozenset())
        assert leaks(cluster) == []
        if there:
            cluster.delete("web", force=True, purge=True)
    assert ends == ["cancelled", "done" if written else "cancelled"]


def test_an_answer_that_was_lost_is_asked_for_again(
    images: tuple[str, str], world: MemoryWorld, places: Places
) -> None:
    """Whether a purge happened is not guessed: it is done again, and the verb comes to its end."""
    cluster = places.connect()
    cluster.image_import("debian", images[0])
    cluster.create("web", image="debian", networks=())
    world.faults.lose_answer("pool:*", "purge", times=1)
    assert cluster.delete("web", purge=True).task is not None
    assert leaks(cluster) == []


def test_what_cannot_be_undone_is_said(
    images: tuple[str, str], world: MemoryWorld, places: Places
) -> None:
    """A restart whose start fails leaves the VM off, and does not claim otherwise."""
    cluster = places.connect()
    cluster.image_import("debian", images[0])
    cluster.create("web", image="debian", networks=(), start=True)
    world.faults.fail("host:*", "start", times=1)
    with pytest.raises(vorch.VorchError, match="undone, but the VM is off now"):
        cluster.restart("web")
    assert [status.power.value for status in cluster.list()] == ["stopped"]


def test_old_tasks_are_trimmed(places: Places, tmp_path: Path, images: tuple[str, str]) -> None:
    cluster = places.connect()
    cluster.settings = vorch.Settings(uri="memory:", tasks_kept=10)
    cluster.executor.settings = cluster.settings
    cluster.image_import("debian", images[0])
    cluster.create("web", image="debian", networks=())
    for number in range(200):
        cluster.rename(*(("web", "wob") if number % 2 == 0 else ("wob", "web")))
    assert len(cluster.task_list()) < 100
