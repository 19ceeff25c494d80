"""An image that VMs are made of while its data come in: what is left when somebody dies."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator

import pytest

import vorch
from tests.boot_sector import SLEEPS
from tests.execute.scenarios import leaks
from tests.range_server import RangeServer
from vorch import Done, Orchestrator
from vorch.drivers.memory import MemoryWorld, ProcessDied
from vorch.errors import Conflict, Invalid, StepFailed, Unsupported
from vorch.execute import Hook
from vorch.plan import FillVolume, Journal
from vorch.ports import World

MIB = 1024**2
_numbers = itertools.count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RangeServer]:
    folder = tmp_path_factory.mktemp("web")
    (folder / "disk.raw").write_bytes(SLEEPS + os.urandom(2 * MIB))
    server = RangeServer(folder)
    yield server
    server.stop()


class Place:
    """A world in memory, into which each connection is a process of its own."""

    def __init__(self, hosts: int = 2, *, live: bool = True) -> None:
        self.world = MemoryWorld(f"at-once-{next(_numbers)}", hosts=hosts, live_snapshots=live)

    def connect(self) -> Orchestrator:
        ports, prepare = self.world.connection()
        cluster = Orchestrator(ports, vorch.Settings(uri="memory:"))
        prepare(cluster)
        return cluster


@pytest.fixture
def place() -> Place:
    return Place()


def begin(cluster: Orchestrator, server: RangeServer, sha256: str = "") -> Done:
    return cluster.image_import("debian", server.url("disk.raw"), at_once=True, sha256=sha256)


def make(cluster: Orchestrator, name: str, **options: object) -> object:
    return cluster.create(
        name,
        image="debian",
        memory_mib=32,
        graphics=False,
        networks=(),
        **options,  # type: ignore[arg-type]
    )


def when_filling(act: Callable[[], object]) -> Hook:
    """A hook that does something once, between two steps, when the data begin to come."""
    done: list[bool] = []

    def hook(point: str, journal: Journal) -> None:
        step = journal.plan.steps[journal.position : journal.position + 1]
        if point == "before" and step and isinstance(step[0], FillVolume) and not done:
            done.append(True)
            act()

    return hook


def die_at(number: int, world: MemoryWorld, ports: World) -> Hook:
    seen = itertools.count()

    def hook(point: str, journal: Journal) -> None:
        if next(seen) == number:
            world.kill(ports)
            raise ProcessDied

    return hook


def in_turn(first: Hook, second: Hook) -> Hook:
    def hook(point: str, journal: Journal) -> None:
        first(point, journal)
        second(point, journal)

    return hook


def test_vms_start_while_the_data_come_in(place: Place, server: RangeServer) -> None:
    cluster, other = place.connect(), place.connect()

    def meanwhile() -> None:
        image = other.image_show("debian")
        assert image.arriving
        assert image.size_bytes
        make(other, "web", start=True)
        assert other.show("web").power.value == "running"
        acts: list[Callable[[], object]] = [
            lambda: make(other, "whole", linked=False),
            lambda: other.image_delete("debian"),
            lambda: other.image_export("debian", "/nowhere/out"),
        ]
        for act in acts:
            with pytest.raises(Conflict, match="still coming in"):
                act()

    cluster.executor.hook = when_filling(meanwhile)
    done = begin(cluster, server)
    assert done.task is not None
    assert done.task.state.value == "done"
    assert "VMs can be made of it from here on" in done.task.log
    assert not cluster.image_show("debian").arriving
    make(cluster, "whole", linked=False)
    assert leaks(cluster) == []


@pytest.mark.parametrize("with_vm", [False, True])
def test_a_death_at_any_point_leaves_nothing(server: RangeServer, *, with_vm: bool) -> None:
    outcomes = set()
    for number in itertools.count():
        place = Place()
        victim, other = place.connect(), place.connect()
        hook = die_at(number, place.world, victim.world)
        meanwhile = when_filling(lambda other=other: make(other, "web"))  # type: ignore[misc]

        victim.executor.hook = in_turn(meanwhile, hook) if with_vm else hook
        try:
            begin(victim, server)
        except ProcessDied:
            pass
        else:
            break
        where = f"killed at point {number}"
        # Who comes for something else neither waits for the data, nor loses the image.
        heir = place.connect()
        heir.recover(force=False)
        heir.recover()
        assert not place.world.connect().state.read(["plan", "claim"]), where
        assert leaks(heir) == [], where
        there = {image.name: image.arriving for image in heir.image_list()}
        outcomes.add(bool(there))
        assert not any(there.values()), where
        if with_vm and other.look().vms:
            assert there, where
        if not there:
            begin(heir, server)
        make(heir, "later")
        assert leaks(heir) == []
    assert outcomes == {True, False}


def test_only_who_has_time_brings_the_data_in(place: Place, server: RangeServer) -> None:
    victim = place.connect()

    def die() -> None:
        place.world.kill(victim.world)
        raise ProcessDied

    victim.executor.hook = when_filling(die)
    with pytest.raises(ProcessDied):
        begin(victim, server)
    heir = place.connect()
    assert heir.recover(force=False) == ()
    make(heir, "web")
    (task,) = heir.recover(force=False, lasting=True)
    assert task.state.value == "done"
    assert not heir.image_show("debian").arriving


def test_a_cancel_undoes_it_until_vms_stand_on_it(place: Place, server: RangeServer) -> None:
    cluster, other = place.connect(), place.connect()

    def cancel() -> None:
        (task,) = [task for task in other.task_list() if not task.over]
        other.task_cancel(task.id)

    cluster.executor.hook = when_filling(cancel)
    with pytest.raises(vorch.VorchError, match="cancelled"):
        begin(cluster, server)
    assert cluster.image_list() == ()
    assert leaks(cluster) == []

    def refused() -> None:
        make(other, "web")
        with pytest.raises(Conflict, match="'web'"):
            cancel()

    cluster.executor.hook = when_filling(refused)
    begin(cluster, server)
    assert not cluster.image_show("debian").arriving


def test_wrong_data_are_kept_for_the_vms_that_have_them(place: Place, server: RangeServer) -> None:
    cluster, other = place.connect(), place.connect()
    with pytest.raises(Invalid, match="SHA-256"):
        begin(cluster, server, sha256="0" * 64)
    assert leaks(cluster) == []
    assert cluster.image_list() == ()
    cluster.executor.hook = when_filling(lambda: make(other, "web"))
    with pytest.raises(StepFailed, match="cannot finish"):
        begin(cluster, server, sha256="0" * 64)
    with pytest.raises(Conflict, match="still coming"):
        make(other, "next")
    cluster.recover()
    assert cluster.image_show("debian").arriving
    # Without those VMs nothing needs it, and it goes.
    other.delete("web", purge=True)
    cluster.recover()
    assert cluster.image_list() == ()
    assert leaks(cluster) == []


def test_every_host_must_reach_the_source(place: Place, server: RangeServer) -> None:
    cluster = place.connect()
    place.world.host("h2").reaches_web = False
    with pytest.raises(Unsupported, match=r"h2: .*does not answer"):
        begin(cluster, server)
    assert cluster.image_list() == ()
    assert leaks(cluster) == []


@pytest.mark.parametrize(
    ("location", "options", "words"),
    [
        ("/srv/disk.raw", {}, "not theirs"),
        ("file:///srv/disk.raw", {}, "not theirs"),
        ("http://x/cd.iso", {"kind": "iso"}, "for disks"),
    ],
)
def test_what_cannot_be_is_refused_before_anything(
    place: Place, location: str, options: dict[str, str], words: str
) -> None:
    cluster = place.connect()
    with pytest.raises(Unsupported, match=words):
        cluster.image_import("debian", location, at_once=True, **options)  # type: ignore[arg-type]
    assert "image import" not in [task.verb for task in cluster.task_list()]


def test_a_pool_that_cannot_says_so(server: RangeServer) -> None:
    cluster = Place(live=False).connect()
    with pytest.raises(Unsupported, match="without --at-once"):
        begin(cluster, server)
    assert leaks(cluster) == []
