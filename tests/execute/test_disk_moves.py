"""Disks that move to another pool on the memory world: whatever dies, nothing written is lost."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

import vorch
from tests.execute.scenarios import leaks
from vorch import Orchestrator
from vorch.drivers.memory import MemoryClock, MemoryWorld, ProcessDied
from vorch.plan import Journal

_numbers = itertools.count()
BEFORE, MEANWHILE, AFTER = b"before", b"meanwhile", b"after"
AT = 1 << 20


class Place:
    """A VM that runs, with its disk in `local`, and a second pool `bulk`."""

    def __init__(self) -> None:
        self.world = MemoryWorld(f"disk-move-{next(_numbers)}")
        self.world.behaviour.copy_disk_s = 4.0
        self.cluster = self.connect()
        self.cluster.pool_add("bulk", "memory:bulk")
        self.cluster.create("web", disk_gib=1, networks=(), start=True)
        self.world.guest("web").write("root", AT, BEFORE)

    def connect(self) -> Orchestrator:
        ports, prepare = self.world.connection()
        orchestrator = Orchestrator(ports, vorch.Settings(uri="memory:"))
        prepare(orchestrator)
        return orchestrator

    def in_the_middle(self, act: Callable[[], None], after_s: float = 2.0) -> None:
        def meddle(point: str, journal: Journal) -> None:
            if point == "before" and journal.plan.steps[journal.position].kind == "move-disk":
                clock = self.world.clock
                assert isinstance(clock, MemoryClock)
                clock.at(clock.now() + after_s, act)

        self.cluster.executor.hook = meddle

    def recorded(self) -> str:
        volume = self.connect().look().vm("web").disk("root").volume
        assert volume is not None
        return volume.pool

    def check(self, *written: bytes) -> None:
        """It runs, writes to the volume that is recorded, and has all that was written."""
        heir = self.connect()
        heir.recover()
        assert leaks(heir) == []
        volume = heir.look().vm("web").disk("root").volume
        assert volume is not None
        guest = self.world.guest("web")
        assert guest.power.value == "running"
        guest.write("root", 9 * AT, AFTER)
        stored = self.world.pool(volume.pool)[volume.name]
        assert stored.read(9 * AT, len(AFTER)) == AFTER
        for number, data in enumerate(written, 1):
            assert stored.read(number * AT, len(data)) == data


@pytest.fixture
def place() -> Place:
    return Place()


def _write_meanwhile(place: Place) -> Callable[[], None]:
    return lambda: place.world.guest("web").write("root", 2 * AT, MEANWHILE)


def test_it_goes_on_elsewhere_with_all_that_was_written(place: Place) -> None:
    place.in_the_middle(_write_meanwhile(place))
    (done,) = place.cluster.disk_move("web", pool="bulk")
    assert done.task is not None
    assert place.recorded() == "bulk"
    assert place.world.guest("web").boots == 1
    place.check(BEFORE, MEANWHILE)
    # What it was copied from can be had back.
    (trashed,) = place.cluster.trash_list()
    assert [volume.pool for volume in trashed.volumes] == ["local"]


def test_it_is_told_how_far_it_is(place: Place) -> None:
    seen: list[float] = []
    place.cluster.executor.watch = lambda task: seen.append(task.percent)
    place.cluster.disk_move("web", pool="bulk")
    assert seen == sorted(seen)
    assert len([one for one in seen if 20 < one < 60]) >= 2


def test_a_death_at_any_point_keeps_it_running_and_whole() -> None:
    ended: set[str] = set()
    for number in itertools.count():
        place = Place()
        place.in_the_middle(_write_meanwhile(place))
        hook, seen = place.cluster.executor.hook, itertools.count()
        assert hook is not None

        def die(
            point: str,
            journal: Journal,
            place: Place = place,
            number: int = number,
            seen: itertools.count[int] = seen,
            hook: Callable[[str, Journal], None] = hook,
        ) -> None:
            hook(point, journal)
            if next(seen) == number:
                place.world.kill(place.cluster.world)
                raise ProcessDied

        place.cluster.executor.hook = die
        try:
            place.cluster.disk_move("web", pool="bulk")
        except ProcessDied:
            place.world.clock.sleep(3.0)
            place.check(BEFORE)
            ended.add(place.recorded())
        else:
            break
    # Early deaths leave it where it was, later ones where it went.
    assert ended == {"local", "bulk"}


@pytest.mark.parametrize("call", ["copy_disk", "switch_disk", "pause", "resume", "has_disk_at"])
@pytest.mark.parametrize("when", ["before", "midway", "after"])
def test_a_death_inside_a_call_keeps_it_whole(call: str, when: str) -> None:
    place = Place()
    place.world.faults.crash("host:*", call, when=when)  # type: ignore[arg-type]
    try:
        place.cluster.disk_move("web", pool="bulk")
    except ProcessDied:
        place.world.faults.clear()
        place.check(BEFORE)


def test_the_vm_dies_while_its_process_does(place: Place) -> None:
    """Paused between the two volumes: both hold the same, and the record decides."""

    def die(point: str, journal: Journal) -> None:
        at = journal.plan.steps[min(journal.position, len(journal.plan.steps) - 1)]
        if point == "after" and at.kind == "move-disk":
            place.world.guest("web").crash()
            place.world.kill(place.cluster.world)
            raise ProcessDied

    place.cluster.executor.hook = die
    with pytest.raises(ProcessDied):
        place.cluster.disk_move("web", pool="bulk")
    heir = place.connect()
    heir.recover()
    assert leaks(heir) == []
    heir.start("web")
    place.check(BEFORE)


@pytest.mark.parametrize("after_s", [0.5, 1.5, 2.8])
def test_a_cancel_leaves_it_where_it_is(place: Place, after_s: float) -> None:
    other = place.connect()

    def cancel() -> None:
        (task,) = [task for task in other.task_list() if not task.over]
        other.task_cancel(task.id)

    place.in_the_middle(cancel, after_s)
    with pytest.raises(vorch.VorchError) as caught:
        place.cluster.disk_move("web", pool="bulk")
    assert caught.value.code == "cancelled"
    assert place.recorded() == "local"
    place.check(BEFORE)


def test_a_cancel_that_comes_too_late_changes_nothing(place: Place) -> None:
    other = place.connect()

    def cancel(point: str, journal: Journal) -> None:
        if point == "after" and journal.plan.steps[journal.position].kind == "move-disk":
            other.task_cancel(journal.id)

    place.cluster.executor.hook = cancel
    (done,) = place.cluster.disk_move("web", pool="bulk")
    assert done.task is not None
    assert done.task.state.value == "done"
    place.check(BEFORE)
    assert place.recorded() == "bulk"


def test_the_guest_ends_on_the_way(place: Place) -> None:
    place.in_the_middle(lambda: place.world.guest("web").shut_down_by_itself())
    with pytest.raises(vorch.Conflict):
        place.cluster.disk_move("web", pool="bulk")
    assert place.recorded() == "local"
    assert leaks(place.connect()) == []
    # Off it moves as well.
    place.cluster.executor.hook = None
    place.cluster.disk_move("web", pool="bulk")
    place.cluster.start("web")
    place.check(BEFORE)


def test_a_full_pool_is_no_place_to_go(place: Place) -> None:
    place.world.pool("bulk").full = True
    with pytest.raises(vorch.NoRoom):
        place.cluster.disk_move("web", pool="bulk")
    assert place.recorded() == "local"
    place.check(BEFORE)


def test_all_disks_move_one_after_the_other(place: Place) -> None:
    place.cluster.disk_attach("web", disk="data", size_gib=1)
    done = place.cluster.disk_move("web", pool="bulk")
    assert len(done) == 2
    assert place.recorded() == "bulk"
    place.check(BEFORE)
    # Again there is nothing to do.
    assert [one.task for one in place.cluster.disk_move("web", pool="bulk")] == [None, None]
