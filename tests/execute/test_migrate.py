"""Live migration on the memory world: wherever it breaks, one copy runs, where it is recorded."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable

import pytest

import vorch
from tests.execute.scenarios import leaks
from vorch import Orchestrator
from vorch.drivers.memory import MemoryClock, MemoryGuest, MemoryWorld, ProcessDied
from vorch.plan import Journal, MigrateDomain

_numbers = itertools.count()
LOST = vorch.Unreachable("cannot hear its answer: it came too late; look again")


class Two:
    """Two hosts that share their pool, and a VM that runs on h1 and writes."""

    def __init__(self) -> None:
        self.world = MemoryWorld(f"migrate-{next(_numbers)}", hosts=2)
        self.world.behaviour.writes_per_s = 5.0
        self.world.behaviour.migrate_s = 5.0
        self.cluster = self.connect()
        self.cluster.create("web", disk_gib=1, networks=(), node="h1", start=True)
        assert self.where() == (["h1"], "h1")

    def connect(self) -> Orchestrator:
        ports, prepare = self.world.connection()
        orchestrator = Orchestrator(ports, vorch.Settings(uri="memory:"))
        prepare(orchestrator)
        return orchestrator

    def where(self) -> tuple[list[str], str]:
        """Hosts on which it runs, and the one that is recorded."""
        found = [
            name
            for name, machine in self.world.machines.items()
            for guest in machine.settled().values()
            if guest.power.value == "running"
        ]
        return found, self.connect().look().vm("web").node

    def once(self, point: str, error: BaseException, act: Callable[[], object] = int) -> None:
        """At that point of the migration something happens, and its caller meets an error."""
        left = [error]

        def hook(here: str, journal: Journal) -> None:
            if here == point and left:
                act()
                raise left.pop()

        self.cluster.executor.hook = hook

    def in_the_middle(self, act: Callable[[], None], after_s: float = 2.0) -> None:
        """`act` when a migration has been under way for so long."""

        def meddle(point: str, journal: Journal) -> None:
            if point == "before" and journal.plan.steps[journal.position].kind == "migrate-domain":
                clock = self.world.clock
                assert isinstance(clock, MemoryClock)
                clock.at(clock.now() + after_s, act)

        self.cluster.executor.hook = meddle


@pytest.fixture
def two() -> Two:
    return Two()


def test_it_runs_on_elsewhere(two: Two) -> None:
    guest = two.world.guest("web")
    guest.write("root", 1 << 20, b"before")
    done = two.cluster.migrate("web")
    assert done.task is not None
    assert two.where() == (["h2"], "h2")
    assert two.world.guest("web").boots == 1
    assert two.world.guest("web").read("root", 1 << 20, 6) == b"before"
    assert done.task.result["power"] == "running"
    assert leaks(two.cluster) == []
    two.cluster.migrate("web", "h1")
    assert two.where() == (["h1"], "h1")


def test_it_is_told_how_far_it_is(two: Two) -> None:
    seen: list[float] = []
    two.cluster.executor.watch = lambda task: (
        seen.append(task.percent or 0.0) if task.verb == "migrate" else None
    )
    two.cluster.migrate("web", "h2")
    assert seen == sorted(seen)
    assert len([one for one in seen if 0 < one < 100]) >= 3


def test_a_paused_one_stays_paused(two: Two) -> None:
    two.cluster.pause("web")
    two.cluster.migrate("web", "h2")
    assert two.world.guest("web").host == "h2"
    assert two.world.guest("web").power.value == "paused"
    assert two.cluster.look().vm("web").node == "h2"


def test_on_its_way_it_is_shown_where_it_runs(two: Two) -> None:
    other = two.connect()
    seen: list[tuple[str, str]] = []

    def look() -> None:
        (status,) = other.list()
        assert status.vm.node == "h1"
        seen.append((status.power.value, other.show("web").power.value))
        with pytest.raises(vorch.Conflict, match="migrate 'web'"):
            other.stop("web", force=True)

    two.in_the_middle(look)
    two.cluster.migrate("web", "h2")
    assert seen == [("running", "running")]


def test_limits_come_from_the_settings(two: Two) -> None:
    two.cluster.settings = dataclasses.replace(
        two.cluster.settings, migration_pause_limit_ms=50, migration_bandwidth_mib_s=7
    )
    plan = two.cluster.migrate("web", dry_run=True).plan
    (step,) = [step for step in plan.steps if isinstance(step, MigrateDomain)]
    assert (step.pause_limit_ms, step.bandwidth_mib_s) == (50, 7)
    assert two.where() == (["h1"], "h1")


@pytest.mark.parametrize("after_s", [0.5, 2.0, 3.5])
def test_a_cancel_leaves_it_where_it_is(two: Two, after_s: float) -> None:
    other = two.connect()

    def cancel() -> None:
        (task,) = [task for task in other.task_list() if not task.over]
        other.task_cancel(task.id)

    two.in_the_middle(cancel, after_s)
    with pytest.raises(vorch.VorchError) as caught:
        two.cluster.migrate("web", "h2")
    assert caught.value.code == "cancelled"
    assert two.where() == (["h1"], "h1")
    assert leaks(other) == []
    assert two.world.machines["h2"].guests == {}


def test_a_cancel_that_comes_too_late_changes_nothing(two: Two) -> None:
    other = two.connect()

    def cancel(point: str, journal: Journal) -> None:
        if point == "after":
            other.task_cancel(journal.id)

    two.cluster.executor.hook = cancel
    done = two.cluster.migrate("web", "h2")
    assert done.task is not None
    assert done.task.state.value == "done"
    assert two.where() == (["h2"], "h2")
    assert leaks(other) == []


def test_ctrl_c_when_it_has_arrived_does_not_lose_it(two: Two) -> None:
    two.once("after", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        two.cluster.migrate("web", "h2")
    assert two.where() == (["h2"], "h2")
    assert leaks(two.connect()) == []


def test_the_source_dies_on_the_way(two: Two) -> None:
    two.in_the_middle(two.world.machines["h1"].power_off)
    with pytest.raises(vorch.VorchError):
        two.cluster.migrate("web", "h2")
    assert two.where() == ([], "h1")
    two.world.machines["h1"].power_on()
    two.connect().recover()
    assert two.where() == ([], "h1")
    assert leaks(two.connect()) == []
    two.connect().start("web")
    assert two.where() == (["h1"], "h1")


def test_the_target_dies_on_the_way(two: Two) -> None:
    two.in_the_middle(two.world.machines["h2"].power_off)
    with pytest.raises(vorch.Conflict, match="goes on on 'h1'"):
        two.cluster.migrate("web", "h2")
    assert two.where() == (["h1"], "h1")
    two.world.machines["h2"].power_on()
    assert leaks(two.connect()) == []


def test_a_lost_state_ends_it_on_its_way(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing has come of it, so it is a refusal; that Ceph was silent is told besides."""
    state = two.cluster.world.state

    def lose() -> None:
        def silent(*args: object, **more: object) -> None:
            monkeypatch.undo()
            raise LOST

        monkeypatch.setattr(state, "commit", silent)
        monkeypatch.setattr(state, "get", silent)

    two.in_the_middle(lose)
    with pytest.raises(vorch.Conflict, match="goes on on 'h1'") as refused:
        two.cluster.migrate("web", "h2")
    assert refused.value.fields["cause"]["code"] == "unreachable"
    assert two.where() == (["h1"], "h1")
    assert leaks(two.connect()) == []


def test_the_source_dies_when_it_has_arrived(two: Two) -> None:
    """Where it runs is recorded all the same, so that nobody starts it a second time."""

    two.once("after", LOST, two.world.machines["h1"].power_off)
    assert two.cluster.migrate("web", "h2").task is not None
    assert two.where() == (["h2"], "h2")


@pytest.mark.parametrize("after_s", [0.5, 2.5, 4.5])
@pytest.mark.parametrize("heir_after_s", [0.0, 10.0])
def test_the_process_dies_on_the_way(two: Two, after_s: float, heir_after_s: float) -> None:
    """The hosts go on by themselves; the next process waits for them, or finds it there."""
    ports = two.cluster.world
    two.in_the_middle(lambda: two.world.kill(ports), after_s)
    with pytest.raises(ProcessDied):
        two.cluster.migrate("web", "h2")
    two.world.clock.sleep(heir_after_s)
    heir = two.connect()
    (task,) = heir.recover()
    assert task.state.value == "done"
    assert two.where() == (["h2"], "h2")
    assert leaks(heir) == []
    assert len(two.world.faults.calls("host:h1", "migrate")) <= 2


def test_the_process_and_the_target_die_on_the_way(two: Two) -> None:
    ports = two.cluster.world

    def both() -> None:
        two.world.kill(ports)
        two.world.machines["h2"].power_off()

    two.in_the_middle(both)
    with pytest.raises(ProcessDied):
        two.cluster.migrate("web", "h2")
    heir = two.connect()
    heir.recover()
    assert two.where() == (["h1"], "h1")
    two.world.machines["h2"].power_on()
    heir.recover()
    assert leaks(heir) == []
    assert len(two.where()[0]) == 1


def test_a_guest_that_ends_on_the_way_is_stopped_and_starts_again(two: Two) -> None:
    two.in_the_middle(two.world.guest("web").shut_down_by_itself)
    with pytest.raises(vorch.NotFound, match="it is stopped, start it"):
        two.cluster.migrate("web", "h2")
    assert two.where() == ([], "h1")
    assert leaks(two.cluster) == []
    two.cluster.executor.hook = None
    two.cluster.start("web")


def test_two_writers_are_still_refused(two: Two) -> None:
    """That a disk is handed over on the way opens no door for anybody else."""
    vm = two.cluster.look().vm("web")
    pool = two.cluster.world.images("local")
    volume = vm.disks[0].volume
    assert volume is not None
    sources = {"root": pool.locate(volume.name)}
    seen: list[vorch.VorchError] = []
    other = dataclasses.replace(vm, name="other", id="bbbbbbbb-0000-4000-8000-000000000001")

    def start_second() -> None:
        try:
            two.world.connect().hypervisor("h2").start(other, sources, {})
        except vorch.VorchError as exc:
            seen.append(exc)

    two.in_the_middle(start_second)
    two.cluster.migrate("web", "h2")
    assert [one.code for one in seen] == ["conflict"]
    assert two.where() == (["h2"], "h2")


def test_a_second_copy_is_ended(two: Two) -> None:
    """A source that took a lost answer for a failure lets its VM go on: two run. One must end."""
    machine, guest = two.world.machines["h1"], two.world.guest("web")

    def revive() -> None:
        client = two.world.ceph.client(machine)
        machine.guests[guest.vm.id] = MemoryGuest(
            guest.vm, "h1", two.world.clock, guest.behaviour, client
        )

    two.once("after", LOST, revive)
    two.cluster.migrate("web", "h2")
    assert two.where() == (["h2"], "h2")


def test_what_never_arrived_is_cleared_away(two: Two) -> None:
    """A domain that waits on the target for somebody who sends no more."""
    machine, guest = two.world.machines["h2"], two.world.guest("web")
    client = two.world.ceph.client(machine)
    left = MemoryGuest(guest.vm, "h2", two.world.clock, guest.behaviour, client)
    left.hold("it is being migrated")
    machine.guests[guest.vm.id] = left
    two.cluster.migrate("web", "h2")
    assert two.where() == (["h2"], "h2")
    assert two.world.guest("web") is guest


def test_relocated_it_starts_elsewhere(two: Two) -> None:
    with pytest.raises(vorch.Conflict, match="vorch migrate"):
        two.cluster.relocate("web", "h2")
    two.cluster.stop("web", force=True)
    two.cluster.relocate("web", "h2")
    assert two.where() == ([], "h2")
    two.cluster.start("web")
    assert two.where() == (["h2"], "h2")


# -- going over with the rest of its memory behind it


@pytest.fixture
def over(two: Two) -> Two:
    """Whoever moves goes over after two of its five seconds."""
    two.cluster.settings = dataclasses.replace(two.cluster.settings, migration_converge_s=2.0)
    return two


def test_it_goes_over_where_that_is_allowed(over: Two) -> None:
    assert over.cluster.settings.migration_postcopy is False
    assert over.cluster.migrate("web", "h2").task is not None
    done = over.cluster.migrate("web", "h1", postcopy=True)
    assert done.task is not None
    assert done.task.result["postcopy"] is True
    assert over.where() == (["h1"], "h1")
    assert leaks(over.cluster) == []


def test_one_that_has_gone_over_is_not_called_back(over: Two) -> None:
    def cancel() -> None:
        assert over.where() == (["h2"], "h1")
        (task,) = [task for task in other.task_list() if not task.over]
        other.task_cancel(task.id)

    other = over.connect()
    over.in_the_middle(cancel, after_s=3.0)
    done = over.cluster.migrate("web", "h2", postcopy=True)
    assert done.task is not None
    assert done.task.state.value == "done"
    assert over.where() == (["h2"], "h2")
    assert leaks(over.cluster) == []


@pytest.mark.parametrize("dead", ["h1", "h2"])
def test_half_a_vm_is_ended(over: Two, dead: str) -> None:
    """Its memory is in two parts then, and one is lost."""
    machine = over.world.host(dead)
    over.in_the_middle(machine.power_off, after_s=3.0)
    with pytest.raises(vorch.VorchError):
        over.cluster.migrate("web", "h2", postcopy=True)
    assert over.where()[0] == []
    machine.power_on()
    over.cluster.recover()
    assert over.where() == ([], "h1")
    assert all(not one.settled() for one in over.world.machines.values())
    over.cluster.start("web")
    assert over.where() == (["h1"], "h1")
    assert leaks(over.cluster) == []


def tear(over: Two) -> None:
    over.world.host("h1").moves[over.cluster.look().vm("web").id].tear()


def test_halves_are_joined_again(over: Two) -> None:
    over.in_the_middle(lambda: tear(over), after_s=3.0)
    assert over.cluster.migrate("web", "h2", postcopy=True).task is not None
    assert over.where() == (["h2"], "h2")
    assert leaks(over.cluster) == []


def test_halves_that_cannot_be_joined_are_both_ended(over: Two) -> None:
    over.world.behaviour.joins = False
    over.in_the_middle(lambda: tear(over), after_s=3.0)
    with pytest.raises(vorch.NotFound, match="it is stopped, start it"):
        over.cluster.migrate("web", "h2", postcopy=True)
    assert over.where() == ([], "h1")
    assert all(not one.settled() for one in over.world.machines.values())
    over.cluster.start("web")
    assert leaks(over.cluster) == []


def test_an_heir_waits_for_one_that_has_gone_over(over: Two) -> None:
    def die() -> None:
        over.world.kill(over.cluster.world)

    over.in_the_middle(die, after_s=3.0)
    with pytest.raises((ProcessDied, vorch.VorchError)):
        over.cluster.migrate("web", "h2", postcopy=True)
    heir = over.connect()
    heir.recover()
    assert over.where() == (["h2"], "h2")
    assert leaks(heir) == []


# -- with its disks


@pytest.fixture
def apart(two: Two) -> Two:
    """A VM whose disk is on its own host alone."""
    two.cluster.pool_add("here", "memory:here", node="h1")
    two.cluster.pool_add("there", "memory:there", node="h2")
    two.cluster.create("db", disk_gib=1, pool="here", networks=(), node="h1", start=True)
    return two


def disk_of(two: Two) -> str:
    return str(two.connect().look().vm("db").disk("root").volume)


def test_disks_go_along(apart: Two) -> None:
    guest = apart.world.guest("db")
    guest.write("root", 1 << 20, b"before")
    old = disk_of(apart)
    apart.in_the_middle(lambda: guest.write("root", 2 << 20, b"meanwhile"))
    done = apart.cluster.migrate("db", "h2", pool="there")
    assert done.task is not None
    assert done.task.result["copied_mib"] == 1
    assert disk_of(apart).startswith("there/")
    there = apart.world.guest("db")
    assert there.host == "h2"
    assert there.read("root", 1 << 20, 6) == b"before"
    assert there.read("root", 2 << 20, 9) == b"meanwhile"
    # What it writes now is in the new volume alone.
    there.write("root", 3 << 20, b"after")
    (trashed,) = apart.cluster.trash_list()
    assert [str(volume) for volume in trashed.volumes] == [old]
    assert leaks(apart.cluster) == []
    apart.cluster.stop("db", force=True)
    apart.cluster.start("db")
    assert apart.world.guest("db").read("root", 3 << 20, 5) == b"after"


def test_a_cancel_leaves_the_old_disks_and_no_others(apart: Two) -> None:
    def cancel() -> None:
        (task,) = [task for task in other.task_list() if not task.over]
        other.task_cancel(task.id)

    other, old = apart.connect(), disk_of(apart)
    apart.in_the_middle(cancel)
    with pytest.raises(vorch.Cancelled):
        apart.cluster.migrate("db", "h2", pool="there")
    assert disk_of(apart) == old
    assert apart.world.guest("db").host == "h1"
    assert apart.cluster.volume_list("there") == ()
    assert leaks(apart.cluster) == []


def test_the_target_dies_under_the_copies(apart: Two) -> None:
    old = disk_of(apart)
    apart.in_the_middle(apart.world.host("h2").power_off)
    with pytest.raises(vorch.VorchError):
        apart.cluster.migrate("db", "h2", pool="there")
    apart.world.host("h2").power_on()
    apart.cluster.recover(force=True)
    assert disk_of(apart) == old
    assert apart.world.guest("db").host == "h1"
    assert leaks(apart.cluster) == []


# -- what it will come to


def loaded(two: Two, writes_mib_s: float, **settings: object) -> None:
    two.world.behaviour.writes_mib_s = writes_mib_s
    two.cluster.settings = dataclasses.replace(
        two.cluster.settings,
        migration_bandwidth_mib_s=100,
        **settings,  # type: ignore[arg-type]
    )


def test_a_dry_run_tells_the_figures(two: Two) -> None:
    loaded(two, 50.0)
    plan = two.cluster.migrate("web", "h2", dry_run=True).plan
    memory = two.cluster.look().vm("web").memory_mib
    assert plan.expected["memory_mib"] == memory
    assert plan.expected["writes_mib_s"] == 50.0
    assert memory / 100 < plan.expected["takes_s"] <= 2 * memory / 100
    assert "MiB/s" in plan.why
    assert two.where() == (["h1"], "h1")


def test_a_hopeless_move_is_refused(two: Two) -> None:
    loaded(two, 5000.0)
    with pytest.raises(vorch.Conflict, match="slowed down by 99 %") as caught:
        two.cluster.migrate("web", "h2")
    assert caught.value.fields["writes_mib_s"] == 5000.0
    assert two.where() == (["h1"], "h1")
    assert leaks(two.cluster) == []
    # It ends where it may go over, and where somebody insists.
    assert two.cluster.migrate("web", "h2", postcopy=True).task is not None
    assert two.cluster.migrate("web", "h1", force=True).task is not None


def test_short_moves_are_not_measured(two: Two) -> None:
    loaded(two, 5000.0, migration_estimate_above_s=1000.0)
    assert two.cluster.migrate("web", "h2").plan.expected == {}
    assert two.world.faults.calls("host:h1", "write_rate_mib_s") == []


def test_earlier_moves_tell_the_speed(two: Two) -> None:
    before = two.cluster.migrate("web", "h2", dry_run=True).plan.expected
    assert before["speed_mib_s"] is None
    assert before["takes_s"] is None
    two.cluster.migrate("web", "h2")
    two.cluster.migrate("web", "h1")
    after = two.cluster.migrate("web", "h2", dry_run=True).plan.expected
    memory = two.cluster.look().vm("web").memory_mib
    assert after["speed_mib_s"] == pytest.approx(memory / 5.0, rel=0.1)


def test_one_that_is_not_to_go_on_stands_still_until_it_is_there(two: Two) -> None:
    seen: list[str] = []
    two.in_the_middle(lambda: seen.append(two.world.guest("web").power.value))
    done = two.cluster.migrate("web", "h2", still=True)
    assert seen == ["paused"]
    assert two.where() == (["h2"], "h2")
    assert two.world.guest("web").boots == 1
    assert done.task is not None
    assert done.task.result["pause_ms"] == 5000


def test_one_that_stood_still_goes_on_when_it_breaks(two: Two) -> None:
    two.in_the_middle(lambda: two.world.machines["h2"].power_off())
    with pytest.raises(vorch.VorchError):
        two.cluster.migrate("web", "h2", still=True)
    assert two.where() == (["h1"], "h1")
    assert two.world.guest("web").power.value == "running"
