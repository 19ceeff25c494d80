"""VMs that are moved for evenness, on the world in memory: by the verb, and by whoever watches."""

from __future__ import annotations

import itertools

import pytest

from tests.execute.scenarios import leaks
from vorch.availability import NodeChoice
from vorch.config import Settings
from vorch.drivers.memory import MemoryWorld
from vorch.drivers.memory_time import ProcessDied
from vorch.errors import Conflict, Invalid
from vorch.model import Power
from vorch.orchestrator import Orchestrator
from vorch.orchestrator.turns import ALONE_S, BALANCE, Turn, holder
from vorch.plan import Journal, MigrateDomain
from vorch.watch import Watch

SETTINGS = Settings(uri="memory:")
NAMES = tuple(f"v{number}" for number in range(6))


@pytest.fixture
def world() -> MemoryWorld:
    return MemoryWorld(hosts=3)


@pytest.fixture
def cluster(world: MemoryWorld) -> Orchestrator:
    """Six VMs on the first of three hosts, of which each has more to do than the next."""
    made = Orchestrator(world.connect(), SETTINGS)
    for name in ("h1", "h2", "h3"):
        made.node_add(name, f"memory:{name}")
    made.pool_add("fast", "memory:fast")
    for number, name in enumerate(NAMES):
        made.create(name, disk_gib=1, vcpus=2, networks=(), node="h1", start=True)
        world.behave(name, cpu_load=0.9 - 0.1 * number)
    world.clock.sleep(10)
    return made


def homes(world: MemoryWorld) -> dict[str, str]:
    """Where each runs; one that ran twice would be missed in the sum."""
    found = [
        (guest.vm.name, name)
        for name, machine in world.machines.items()
        for guest in machine.settled().values()
    ]
    assert len(found) == len(dict(found))
    return dict(found)


def counts(world: MemoryWorld) -> list[int]:
    where = list(homes(world).values())
    return [where.count(name) for name in ("h1", "h2", "h3")]


def test_a_dry_run_says_it_and_does_nothing(world: MemoryWorld, cluster: Orchestrator) -> None:
    came = cluster.balance(dry_run=True)
    assert counts(world) == [6, 0, 0]
    assert came.done == ()
    plan = came.plan
    assert 3 <= len(plan.moves) <= 5
    assert plan.after.figure < plan.before.figure
    assert sum(move.gain for move in plan.moves) == pytest.approx(plan.gain)
    assert all(move.memory_mib == 1024 and move.why for move in plan.moves)
    # Loads were measured, so the busiest ones are told from the idle ones.
    assert dict(plan.before.highest)["load"] == pytest.approx((9 + 8 + 7 + 6 + 5 + 4) / 5 / 16)
    assert came.measured == "measured for 5 s"


def test_it_is_even_and_a_second_run_moves_nothing(
    world: MemoryWorld, cluster: Orchestrator
) -> None:
    came = cluster.balance()
    assert not came.skipped
    assert len(came.done) == len(came.plan.moves)
    assert {name: vm.node for name, vm in cluster.look().vms.items()} == homes(world)
    assert sorted(counts(world)) == [2, 2, 2]
    assert leaks(cluster) == []
    again = cluster.balance()
    assert not again.plan.moves, again.plan.why
    # Nor does it when all has become a little different.
    for number, name in enumerate(NAMES):
        world.behave(name, cpu_load=(0.9 - 0.1 * number) * (1.2 if number % 2 else 0.8))
    assert not cluster.balance().plan.moves


def test_limits_are_kept(cluster: Orchestrator) -> None:
    assert len(cluster.balance(moves_max=2, dry_run=True).plan.moves) == 2
    plan = cluster.balance(memory_max_mib=2100, dry_run=True).plan
    assert 0 < plan.memory_mib <= 2100
    assert cluster.balance(moves_max=0, dry_run=True).plan.moves == ()
    quick = cluster.balance(time_max_s=2.5, dry_run=True).plan
    assert 0 < quick.seconds <= 2.5
    with pytest.raises(Invalid, match="no metric"):
        cluster.balance(metric="luck")
    with pytest.raises(Invalid):
        cluster.balance(moves_max=-1)


def test_without_measuring_a_vcpu_is_a_vcpu(cluster: Orchestrator) -> None:
    came = cluster.balance(measure_s=0, dry_run=True)
    assert came.measured == "not measured"
    assert came.plan.moves


def measured_calls(world: MemoryWorld) -> int:
    return sum(
        len(world.faults.calls(f"host:{name}", "write_rate_mib_s")) for name in ("h1", "h2", "h3")
    )


def test_who_writes_much_is_dearer_to_move(world: MemoryWorld, cluster: Orchestrator) -> None:
    """Only guests that a plan would move are measured, and no more than once in an hour."""
    cluster.balance(moves_max=1, dry_run=True, measure_s=0)
    assert measured_calls(world) == 0
    first = cluster.balance(moves_max=1, dry_run=True).plan.moves[0].guest
    world.behave(first, writes_mib_s=900.0)
    # So that it is measured anew.
    world.clock.sleep(3700)
    before = measured_calls(world)
    plan = cluster.balance(moves_max=1, dry_run=True).plan
    assert [one.guest for one in plan.moves] != [first]
    calls = measured_calls(world)
    assert 1 <= calls - before < len(NAMES)
    kept = world.connect("reader").state.get("writes/vms")
    assert kept is not None
    assert kept.body["rates"][first]["mib_s"] == 900.0
    assert cluster.balance(moves_max=1, dry_run=True).plan.moves == plan.moves
    assert measured_calls(world) == calls
    assert cluster.dump().writes[first] == 900.0
    # It is not for ever.
    world.clock.sleep(3700)
    cluster.balance(moves_max=1, dry_run=True)
    assert measured_calls(world) > calls


def test_where_nothing_can_be_measured_it_goes_on(
    world: MemoryWorld, cluster: Orchestrator
) -> None:
    for name in ("h1", "h2", "h3"):
        world.faults.fail(f"host:{name}", "write_rate_mib_s")
    came = cluster.balance()
    assert came.plan.moves
    assert len(came.done) == len(came.plan.moves)


def test_what_is_not_right_any_more_is_left_out(world: MemoryWorld, cluster: Orchestrator) -> None:
    """One fails, one was stopped meanwhile by somebody else: the others move."""
    planned = cluster.balance(dry_run=True).plan.moves
    first, second = planned[0].guest, planned[1].guest
    other = Orchestrator(world.connect(), SETTINGS)

    def meanwhile(point: str, journal: object) -> None:
        if other.show(second).power is Power.RUNNING:
            other.stop(second, force=True)

    cluster.executor.hook = meanwhile
    came = cluster.balance()
    assert list(came.skipped) == [second]
    assert "does not run any more" in came.skipped[second]
    assert homes(world)[first] != "h1"
    assert len(came.done) == len(planned) - 1


def test_a_move_that_fails_stops_no_other(world: MemoryWorld, cluster: Orchestrator) -> None:
    world.faults.fail("host:h1", "migrate", times=1)
    came = cluster.balance()
    (failed,) = came.skipped
    assert homes(world)[failed] == "h1"
    assert len(came.done) == len(came.plan.moves) - 1
    assert leaks(cluster) == []


def test_rules_and_lists_of_hosts_are_kept(world: MemoryWorld, cluster: Orchestrator) -> None:
    cluster.ha_set("v0", nodes=[NodeChoice(node="h1", priority=2), NodeChoice(node="h2")])
    cluster.ha_set("v1", nodes=[NodeChoice(node="h1"), NodeChoice(node="h3")], restricted=True)
    cluster.balance()
    assert homes(world)["v0"] == "h1"
    assert homes(world)["v1"] in ("h1", "h3")


def test_nothing_goes_where_nothing_may(world: MemoryWorld, cluster: Orchestrator) -> None:
    cluster.node_cordon("h2")
    cluster.balance()
    assert counts(world)[1] == 0
    assert counts(world)[2] >= 2


@pytest.mark.parametrize("place", range(1, 16, 2))
def test_a_process_that_dies_in_the_middle_is_made_up_for(
    world: MemoryWorld, cluster: Orchestrator, place: int
) -> None:
    """The next process finishes or undoes the move that was begun, and begins no other."""
    ports, seen = world.connect("doomed"), itertools.count()

    def die(point: str, journal: Journal) -> None:
        if next(seen) == place:
            world.kill(ports)
            raise ProcessDied

    doomed = Orchestrator(ports, SETTINGS, hook=die)
    with pytest.raises(ProcessDied):
        doomed.balance()
    before = counts(world)
    cluster.recover()
    assert sum(abs(one - other) for one, other in zip(before, counts(world), strict=True)) <= 2
    assert {name: vm.node for name, vm in cluster.look().vms.items()} == homes(world)
    assert all(task.over for task in cluster.task_list())
    assert leaks(cluster) == []
    cluster.balance()
    assert sorted(counts(world)) == [2, 2, 2]


def test_ctrl_c_ends_it(world: MemoryWorld, cluster: Orchestrator) -> None:
    moves = 0

    def press(point: str, journal: Journal) -> None:
        nonlocal moves
        moves += point == "before" and isinstance(
            journal.plan.steps[journal.position], MigrateDomain
        )
        if moves == 2:
            moves += 1
            raise KeyboardInterrupt

    cluster.executor.hook = press
    with pytest.raises(KeyboardInterrupt):
        cluster.balance()
    cluster.executor.hook = None
    assert counts(world)[0] == 5
    assert leaks(cluster) == []


def test_one_balances_at_a_time(world: MemoryWorld, cluster: Orchestrator) -> None:
    """Whoever comes in the middle of it is told who is at it; a plan alone hurts nobody."""
    other, refused = Orchestrator(world.connect("other"), SETTINGS), []

    def meanwhile(point: str, journal: Journal) -> None:
        assert other.balance(dry_run=True).done == ()
        with pytest.raises(Conflict, match=r"cannot balance: .* is just doing it") as caught:
            other.balance()
        refused.append(caught.value.fields["holder"])

    cluster.executor.hook = meanwhile
    came = cluster.balance()
    cluster.executor.hook = None
    assert len(came.done) == len(came.plan.moves)
    assert set(refused) == {cluster.world.who}
    # It is over with the moves, also when they end badly.
    assert not other.balance().plan.moves
    assert holder(world.connect("reader"), BALANCE) == ""


def test_who_lost_its_turn_begins_no_more(world: MemoryWorld, cluster: Orchestrator) -> None:
    """It stood still for so long that somebody else balances by now."""
    other = Orchestrator(world.connect("other"), SETTINGS)
    turns: list[Turn | None] = []

    def sleep(point: str, journal: Journal) -> None:
        if not turns:
            world.clock.sleep(ALONE_S + 1)
            turns.append(Turn.take(other.world, BALANCE))

    cluster.executor.hook = sleep
    came = cluster.balance()
    (taken,) = turns
    assert taken is not None
    assert taken.held
    assert len(came.done) == 1
    assert set(came.skipped.values()) == {"another process does this by now"}


# ---------------------------------------------------------------------------------------------
# By whoever watches


class Leader:
    """A process that watches, and is moved on by hand."""

    def __init__(self, world: MemoryWorld) -> None:
        self.world = world
        self.said: list[str] = []
        self.watch = Watch(world.connect("leader"), SETTINGS, say=self._say)

    def _say(self, sentences: dict[str, str]) -> None:
        if "balance" in sentences and sentences["balance"] not in self.said[-1:]:
            self.said.append(sentences["balance"])

    def on(self, minutes: float = 0.1) -> None:
        until = self.world.clock.now() + 60 * minutes
        while self.world.clock.now() < until:
            pace = self.watch.step()
            assert not pace.trouble, pace.trouble
            self.world.clock.sleep(SETTINGS.ha_every_s)


@pytest.fixture
def leader(world: MemoryWorld, cluster: Orchestrator) -> Leader:
    made = Leader(world)
    made.on()
    return made


def loads(world: MemoryWorld) -> dict[str, float]:
    document = world.connect("reader").state.get("load/vms")
    return {} if document is None else document.body["cores"]


def test_it_is_off_and_loads_are_known_all_the_same(
    world: MemoryWorld, cluster: Orchestrator, leader: Leader
) -> None:
    leader.on(minutes=20)
    assert leader.said == []
    assert counts(world) == [6, 0, 0]
    found = loads(world)
    assert found.keys() == set(NAMES)
    assert found["v0"] == pytest.approx(1.8, abs=0.1)
    before = world.clock.now()
    came = cluster.balance(dry_run=True)
    assert came.measured == "measured by whoever watches"
    # Only what those write that are to move is not known yet: a second for each, and kept.
    assert world.clock.now() - before <= len(came.plan.moves) + 1
    before = world.clock.now()
    assert cluster.balance(dry_run=True).plan.moves
    assert world.clock.now() == before
    # Nothing changes, so that little is written.
    state = world.connect("reader").state
    at = [document.body["at"] for document in state.read(["load"]).values()]
    for _ in range(30):
        leader.on(minutes=1)
        at += [document.body["at"] for document in state.read(["load"]).values()]
    assert len(set(at)) <= 4


def test_switched_on_it_moves_what_is_worth_it_and_rests(
    world: MemoryWorld, cluster: Orchestrator, leader: Leader
) -> None:
    cluster.ha_set("v0")
    done = cluster.ha_balance(auto=True, every_s=600.0)
    assert "every 10 min" in done.plan.why
    assert cluster.ha_balance(auto=True).plan.empty
    leader.on(minutes=5)
    assert sorted(counts(world)) == [2, 2, 2]
    assert {name: vm.node for name, vm in cluster.look().vms.items()} == homes(world)
    assert any(said.startswith("it moves") for said in leader.said), leader.said
    assert "VMs were moved" in leader.said[-1]
    moved = [task for task in cluster.task_list() if task.verb == "migrate"]
    assert moved
    leader.on(minutes=60)
    assert [task for task in cluster.task_list() if task.verb == "migrate"] == moved
    assert leader.said[-1] == "nothing is worth a move"
    assert any("balance: nothing is worth" in note for note in cluster.ha_status().notes)
    assert leaks(cluster) == []
    cluster.ha_balance(auto=False)
    leader.on()
    assert not any("balance" in note for note in cluster.ha_status().notes)


def test_moves_are_made_within_its_limits(
    world: MemoryWorld, cluster: Orchestrator, leader: Leader
) -> None:
    cluster.ha_balance(auto=True, every_s=600.0, moves_max=1)
    leader.on(minutes=5)
    assert counts(world)[0] == 5
    leader.on(minutes=10)
    assert counts(world)[0] == 4


def test_what_gains_too_little_is_left(
    world: MemoryWorld, cluster: Orchestrator, leader: Leader
) -> None:
    cluster.ha_balance(auto=True, least_gain=50.0)
    leader.on(minutes=10)
    assert counts(world) == [6, 0, 0]
    assert leader.said[-1] == "nothing is worth a move"


def test_in_quiet_hours_nothing_is_begun(
    world: MemoryWorld, cluster: Orchestrator, leader: Leader
) -> None:
    now = world.clock.now()
    of_day = int(now % 86400) // 60
    begin, end = of_day % 1440, (of_day + 90) % 1440
    # By clocks that are an hour ahead, and never are set back.
    ahead = [(one + 60) % 1440 for one in (begin, end)]
    quiet = "-".join(f"{one // 60:02}:{one % 60:02}" for one in ahead)
    cluster.ha_balance(auto=True, every_s=60.0, quiet=[quiet], zone="Etc/GMT-1")
    leader.on(minutes=80)
    assert counts(world) == [6, 0, 0]
    assert "it is quiet until" in leader.said[-1]
    leader.on(minutes=20)
    assert sorted(counts(world)) == [2, 2, 2]


def test_it_waits_while_something_is_wrong(
    world: MemoryWorld, cluster: Orchestrator, leader: Leader
) -> None:
    world.host("h3").power_off()
    leader.on(minutes=2)
    cluster.ha_balance(auto=True, every_s=60.0)
    leader.on(minutes=10)
    assert counts(world)[0] == 6
    assert leader.said[-1].startswith("it waits: h3 is ")
    world.host("h3").power_on()
    leader.on(minutes=10)
    assert sorted(counts(world)) == [2, 2, 2]


def test_it_waits_while_it_is_disarmed(
    world: MemoryWorld, cluster: Orchestrator, leader: Leader
) -> None:
    cluster.ha_balance(auto=True, every_s=60.0)
    cluster.ha_disarm(1800.0)
    leader.on(minutes=25)
    assert counts(world) == [6, 0, 0]
    assert leader.said[-1] == "it waits: high availability is disarmed"
    leader.on(minutes=10)
    assert sorted(counts(world)) == [2, 2, 2]


def test_what_goes_wrong_on_the_way_ends_it(
    world: MemoryWorld, cluster: Orchestrator, leader: Leader
) -> None:
    """A host is switched off while VMs move: what is left of the plan is not carried out."""
    cluster.ha_balance(auto=True, every_s=3600.0)
    done = 0

    def fall(point: str, journal: Journal) -> None:
        nonlocal done
        done += point == "closing"
        if done == 1 and point == "closing":
            world.host("h3").power_off()

    leader.watch.executor.hook = fall
    leader.on(minutes=5)
    assert any("left out" in said for said in leader.said), leader.said
    assert counts(world)[0] >= 4
    assert all(task.over for task in cluster.task_list())


def test_what_could_not_be_moved_is_not_tried_again_and_again(
    world: MemoryWorld, cluster: Orchestrator, leader: Leader
) -> None:
    world.faults.fail("host:h1", "migrate")
    cluster.ha_balance(auto=True, every_s=60.0, moves_max=1)
    leader.on(minutes=30)
    tried = [task.subject for task in cluster.task_list() if task.verb == "migrate"]
    assert 0 < len(tried) == len(set(tried)) <= len(NAMES)
    assert counts(world) == [6, 0, 0]


def test_it_waits_while_a_person_balances(
    world: MemoryWorld, cluster: Orchestrator, leader: Leader
) -> None:
    turn = Turn.take(cluster.world, BALANCE)
    assert turn is not None
    cluster.ha_balance(auto=True, every_s=60.0, moves_max=1)
    leader.on(minutes=3)
    assert counts(world) == [6, 0, 0]
    assert leader.said[-1] == f"it waits: {cluster.world.who} balances"
    turn.give_back()
    leader.on(minutes=3)
    assert counts(world)[0] < 6
    # And gives its own turn back.
    cluster.ha_balance(auto=False)
    leader.on()
    cluster.balance()


def test_whoever_leads_next_does_not_begin_anew(
    world: MemoryWorld, cluster: Orchestrator, leader: Leader
) -> None:
    cluster.ha_balance(auto=True, every_s=1800.0, moves_max=1)
    leader.on(minutes=3)
    assert counts(world)[0] == 5
    leader.watch.close()
    heir = Leader(world)
    heir.on(minutes=10)
    assert counts(world)[0] == 5
    heir.on(minutes=25)
    assert counts(world)[0] == 4


@pytest.mark.parametrize(
    "wrong",
    [
        {"every_s": 5.0},
        {"quiet": ["22-6"]},
        {"quiet": ["22:00-22:00"]},
        {"zone": "Middle/Earth"},
        {"zone": "../../etc/passwd"},
        {"least_gain": -1.0},
        {"moves_max": -3},
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(cluster: Orchestrator, wrong: dict[str, object]) -> None:
    with pytest.raises(Invalid):
        cluster.ha_balance(auto=True, **wrong)  # type: ignore[arg-type]
    assert "`vorch balance` alone" in cluster.ha_balance().plan.why


@pytest.mark.parametrize("hosts", [0, 1, 2])
def test_where_there_is_nothing_to_even_out_nothing_is_done(hosts: int) -> None:
    world = MemoryWorld(hosts=hosts)
    made = Orchestrator(world.connect(), SETTINGS)
    for number in range(hosts):
        made.node_add(f"h{number + 1}", f"memory:h{number + 1}")
    came = made.balance()
    assert (came.plan.moves, came.done, came.skipped) == ((), (), {})
    assert came.plan.why.startswith("nothing is to be moved")


def test_a_silent_host_is_left_alone(world: MemoryWorld, cluster: Orchestrator) -> None:
    world.host("h3").power_off()
    came = cluster.balance()
    assert not came.skipped
    assert counts(world)[:2] == [3, 3]
