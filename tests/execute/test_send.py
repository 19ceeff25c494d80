"""To another cluster, on two memory worlds: whatever dies or is silent, one of them has the VM."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator

import pytest

import vorch
from tests.execute.scenarios import leaks
from vorch import Orchestrator
from vorch.drivers import memory
from vorch.drivers.memory import MemoryWorld, ProcessDied
from vorch.drivers.memory_faults import When
from vorch.model import Volume
from vorch.plan import Journal
from vorch.ports import Change

_numbers = itertools.count()
DATA, AT = b"written by the guest", 1 << 20
# Long enough for a plan that is stuck to be tried again.
LONG_S = 3600.0


class Two:
    """Cluster `here` with VM `web` on two disks and a seed, off; and `there`, which is empty."""

    def __init__(self, *, notes: bool = False) -> None:
        number = next(_numbers)
        self.names = (f"send-{number}-here", f"send-{number}-there")
        self.here, self.there = (memory.world_named(name) for name in self.names)
        if notes:
            for world in (self.here, self.there):
                world._pool_options["keeps_notes"] = True
        self.uri = f"memory:{self.names[1]}"
        self.cluster = self.connect()
        self.other = self.connect_there()
        self.cluster.create(
            "web",
            disk_gib=1,
            networks=("default",),
            cloud_init=vorch.CloudInit(user="alice"),
            start=True,
        )
        self.cluster.disk_attach("web", disk="data", size_gib=1)
        self.cluster.disk_limit("web", "data", iops=100)
        self.here.guest("web").write("root", AT, DATA)
        self.cluster.stop("web", force=True)
        assert leaks(self.cluster) == leaks(self.other) == []

    def connect(self) -> Orchestrator:
        return _connect(self.here)

    def connect_there(self) -> Orchestrator:
        return _connect(self.there)

    def send(self, **options: object) -> vorch.Done:
        return self.cluster.send("web", self.uri, **options)  # type: ignore[arg-type]

    def clear(self) -> None:
        self.here.faults.clear()
        self.there.faults.clear()

    def whose(self) -> str:
        """After both have recovered: which has it. It can be started there, and has its data."""
        heir, other = self.connect(), self.connect_there()
        heir.recover(force=True)
        other.recover(force=True)
        assert leaks(heir) == []
        assert leaks(other) == []
        for one in (heir, other):
            assert not one.world.state.read(["arrival", "plan", "claim"])
        having = [one for one in (heir, other) if "web" in one.look().vms]
        assert len(having) == 1
        (owner,) = having
        world = self.here if owner is heir else self.there
        owner.start("web")
        assert world.guest("web").power.value == "running"
        volume = owner.look().vm("web").disk("root").volume
        assert volume is not None
        assert world.pool(volume.pool)[volume.name].read(AT, len(DATA)) == DATA
        # What is left on the other side cannot come to life again.
        loser = other if owner is heir else heir
        with pytest.raises(vorch.NotFound):
            loser.undelete("web")
        return "here" if owner is heir else "there"

    def end(self) -> None:
        for name in self.names:
            memory.forget(name)


def _connect(world: MemoryWorld) -> Orchestrator:
    ports, prepare = world.connection()
    orchestrator = Orchestrator(ports, vorch.Settings(uri=f"memory:{world.name}"))
    prepare(orchestrator)
    return orchestrator


@pytest.fixture
def two() -> Iterator[Two]:
    made = Two()
    yield made
    made.end()


def test_it_goes_with_all_that_it_is(two: Two) -> None:
    before = two.cluster.look().vm("web")
    done = two.send()
    assert done.task is not None
    assert done.task.state.value == "done"
    after = two.other.look().vm("web")
    assert (after.id, after.nics, after.memory_mib) == (before.id, before.nics, before.memory_mib)
    assert [disk.name for disk in after.disks] == [disk.name for disk in before.disks]
    assert after.disk("data").limits.iops == 100
    assert {disk.volume for disk in after.disks}.isdisjoint(before.volumes)
    # What it was copied from can be had back.
    (trashed,) = two.cluster.trash_list()
    assert trashed.volumes == before.volumes
    assert trashed.vm is None
    assert two.whose() == "there"
    # And back again.
    two.other.stop("web", force=True)
    two.other.send("web", f"memory:{two.names[0]}")
    assert two.whose() == "here"


def test_a_dry_run_touches_neither(two: Two) -> None:
    done = two.send(dry_run=True)
    assert done.task is None
    assert "record web as a VM of" in str(done)
    assert two.whose() == "here"


def test_it_is_told_how_far_it_is(two: Two) -> None:
    seen: list[float] = []
    two.cluster.executor.watch = lambda task: seen.append(task.percent)
    two.send()
    assert seen == sorted(seen)
    assert seen[-1] == 100


def test_a_death_at_any_point_leaves_one_vm() -> None:
    ended = []
    for number in itertools.count():
        two = Two()
        two.cluster.executor.hook = _die_at(number, two)
        try:
            two.send()
        except ProcessDied:
            ended.append(two.whose())
            two.end()
        else:
            assert two.whose() == "there"
            two.end()
            break
    # Early deaths leave it where it was, later ones where it went.
    assert ended == sorted(ended)
    assert set(ended) == {"here", "there"}


def _die_at(number: int, two: Two) -> Callable[[str, Journal], None]:
    seen = itertools.count()

    def hook(point: str, journal: Journal) -> None:
        if next(seen) == number:
            two.here.kill(two.cluster.world)
            raise ProcessDied

    return hook


def _calls() -> list[tuple[str, str, str, int]]:
    """(cluster, host or pool or store, call, how many of its kind before) of all that are made."""
    two = Two()
    began = {"here": len(two.here.faults.trace), "there": len(two.there.faults.trace)}
    two.send()
    calls = []
    for side, world in (("here", two.here), ("there", two.there)):
        counts: dict[tuple[str, str], int] = {}
        for call in list(world.faults.trace)[began[side] :]:
            key = (call.target, call.name)
            if call.name != "close":
                calls.append((side, *key, counts.get(key, 0)))
            counts[key] = counts.get(key, 0) + 1
    two.end()
    return calls


@pytest.mark.parametrize("how", ["refused", "answer-lost", "died-in-it", "died-half-way"])
def test_a_failure_of_any_call_of_either_leaves_one_vm(how: str) -> None:
    """Each call to any host, pool or store of the two clusters goes wrong once, in turn."""
    ended = set()
    for side, target, call, number in _calls():
        two = Two()
        faults = (two.here if side == "here" else two.there).faults
        if how == "refused":
            faults.fail(target, call, times=1, skip=number)
        elif how == "answer-lost":
            faults.lose_answer(target, call, times=1, skip=number)
        else:
            when: When = "after" if how == "died-in-it" else "midway"
            faults.crash(target, call, when=when, skip=number)
        with contextlib.suppress(vorch.VorchError, ProcessDied):
            two.send()
        two.clear()
        ended.add(two.whose())
        two.end()
    assert "there" in ended


@pytest.mark.parametrize("side", ["here", "there"])
def test_a_cluster_that_falls_silent_at_any_point_and_comes_back(side: str) -> None:
    """From some point on nothing of it answers, until the process has given up."""
    ended = []
    for number in itertools.count():
        two = Two()
        seen = itertools.count()
        world = two.here if side == "here" else two.there

        def silence(
            point: str,
            journal: Journal,
            world: MemoryWorld = world,
            number: int = number,
            seen: Iterator[int] = seen,
        ) -> None:
            if next(seen) == number:
                world.faults.silence("*")

        two.cluster.executor.hook = silence
        with contextlib.suppress(vorch.VorchError):
            two.send()
        two.clear()
        two.cluster.executor.hook = None
        two.here.clock.sleep(LONG_S)
        two.cluster.recover(force=True)
        ended.append(two.whose())
        two.end()
        if next(seen) <= number:
            break
    assert ended[-1] == "there"


def test_while_the_other_is_silent_it_cannot_be_started_here(two: Two) -> None:
    """Recorded there or not: that is not known, so it is held until that can be asked."""
    two.there.faults.lose_answer("state", "commit", skip=1)
    # Six are asked for before that commit: the mark three times, its host, pool and network.
    two.there.faults.hang("state", float("inf"), "get", skip=6)
    with pytest.raises(vorch.StepFailed, match="tried again by itself"):
        two.send()
    with pytest.raises(vorch.Conflict, match="vorch recover"):
        two.cluster.start("web")
    two.clear()
    assert two.whose() == "there"


def test_a_recording_that_comes_late_is_refused(two: Two) -> None:
    """It was given up and called back; then what was on its way all the time gets there."""
    two.there.faults.hang("state", 500.0, "commit", late=True, skip=1, times=1)
    with pytest.raises(vorch.VorchError, match="undone"):
        two.send()
    two.there.clock.sleep(LONG_S)
    assert two.whose() == "here"


def test_its_name_is_taken_there_while_it_is_copied(two: Two) -> None:
    def meddle(point: str, journal: Journal) -> None:
        at = journal.plan.steps[min(journal.position, len(journal.plan.steps) - 1)]
        if point == "before" and at.kind == "record-arrival":
            two.other.create("web", disk_gib=1, networks=())

    two.cluster.executor.hook = meddle
    with pytest.raises(vorch.Conflict, match=r"of that name already.*undone"):
        two.send()
    two.cluster.executor.hook = None
    two.other.delete("web", purge=True)
    assert two.whose() == "here"


@pytest.mark.parametrize("dies", [False, True])
def test_what_it_needs_there_goes_while_it_is_copied(two: Two, dies: bool) -> None:
    def meddle(point: str, journal: Journal) -> None:
        at = journal.plan.steps[min(journal.position, len(journal.plan.steps) - 1)]
        if point == "before" and at.kind == "record-arrival":
            two.other.network_delete("default")
            if dies:
                two.here.kill(two.cluster.world)
                raise ProcessDied

    two.cluster.executor.hook = meddle
    with pytest.raises((vorch.NotFound, ProcessDied)):
        two.send()
    assert two.whose() == "here"


def test_one_that_came_up_meanwhile_is_not_sent(two: Two) -> None:
    """Somebody started it past vorch while its disks were copied: that is seen before the end."""

    def meddle(point: str, journal: Journal) -> None:
        at = journal.plan.steps[min(journal.position, len(journal.plan.steps) - 1)]
        if point == "before" and at.kind == "record-arrival":
            vm = two.cluster.look().vm("web")
            pools = two.cluster.world.images
            sources = {
                disk.name: pools(disk.volume.pool).locate(disk.volume.name)
                for disk in vm.disks
                if disk.volume is not None
            }
            networks = two.cluster.look().networks
            two.cluster.world.hypervisor(vm.node).start(vm, sources, networks)

    two.cluster.executor.hook = meddle
    with pytest.raises(vorch.Conflict, match="it is running on"):
        two.send()
    assert "web" not in two.other.look().vms
    two.cluster.executor.hook = None
    two.cluster.stop("web", force=True)
    assert two.whose() == "here"


def test_a_cancel_leaves_it_where_it_is(two: Two) -> None:
    other = two.connect()

    def cancel(point: str, journal: Journal) -> None:
        at = journal.plan.steps[min(journal.position, len(journal.plan.steps) - 1)]
        if point == "after" and at.kind == "send-volume":
            other.task_cancel(journal.id)

    two.cluster.executor.hook = cancel
    with pytest.raises(vorch.Cancelled):
        two.send()
    assert two.whose() == "here"


def test_a_cancel_that_comes_too_late_changes_nothing(two: Two) -> None:
    other = two.connect()

    def cancel(point: str, journal: Journal) -> None:
        at = journal.plan.steps[min(journal.position, len(journal.plan.steps) - 1)]
        if point == "after" and at.kind == "record-arrival":
            other.task_cancel(journal.id)

    two.cluster.executor.hook = cancel
    done = two.send()
    assert done.task is not None
    assert done.task.state.value == "done"
    assert two.whose() == "there"


def test_a_full_pool_is_no_place_to_go(two: Two) -> None:
    two.there.pool("local").full = True
    with pytest.raises(vorch.NoRoom):
        two.send()
    assert two.whose() == "here"


def test_a_linked_clone_stands_on_nothing_there(two: Two) -> None:
    two.cluster.clone("web", "copy", linked=True)
    two.cluster.send("copy", two.uri)
    volume = two.other.look().vm("copy").disk("root").volume
    assert volume is not None
    (info,) = [one for one in two.other.volume_list(volume.pool) if one.name == volume.name]
    assert info.base is None
    assert two.there.pool(volume.pool)[volume.name].read(AT, len(DATA)) == DATA
    assert leaks(two.cluster) == leaks(two.other) == []


def test_into_another_pool_and_network(two: Two) -> None:
    two.other.pool_add("bulk", "memory:bulk")
    two.other.network_create("lan", kind="isolated", subnet="10.81.7.0/24")
    two.send(pool="bulk", networks={"default": "lan"})
    vm = two.other.look().vm("web")
    assert {volume.pool for volume in vm.volumes} == {"bulk"}
    assert [nic.network for nic in vm.nics] == ["lan"]
    assert two.whose() == "there"


def test_its_definition_is_noted_there_too() -> None:
    two = Two(notes=True)
    two.send()
    # The next process there that does anything notes what it finds is to be noted.
    assert list(two.other.world.state.read(["note"])) == ["note/vm.web"]
    two.other.noter.wake()
    volume = two.other.look().vm("web").disk("root").volume
    assert volume is not None
    assert "vm" in two.other.world.images(volume.pool).notes(volume.name)
    two.end()


def test_a_cluster_that_was_moved_away_is_no_place_to_go(two: Two) -> None:
    """Nobody looks into that store any more."""
    moved = Change("cluster/moved", 0, {"to": "rados://vms", "id": "1"})
    two.other.world.state.commit([moved])
    with pytest.raises(vorch.BadConfig, match="moved to 'rados://vms'"):
        two.send()
    two.other.world.state.commit([Change("cluster/moved", None, None)])
    assert two.whose() == "here"


@pytest.mark.parametrize("uri", ["memory:", "sqlite:///nowhere/at/all.db", "nonsense"])
def test_what_is_no_other_cluster_is_refused(two: Two, uri: str) -> None:
    with pytest.raises(vorch.Invalid):
        two.cluster.send("web", uri)
    assert two.whose() == "here"


def test_to_itself_is_refused(two: Two) -> None:
    with pytest.raises(vorch.Conflict, match="this same cluster"):
        two.cluster.send("web", f"memory:{two.names[0]}")
    assert two.whose() == "here"


def test_volumes_there_are_named_for_it(two: Two) -> None:
    two.send()
    for volume in two.other.look().vm("web").volumes:
        assert isinstance(volume, Volume)
        assert volume.name.startswith("web.")
