"""Live migration on real hosts: a guest that writes loses nothing, and never runs twice."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator

import libvirt
import pytest

import vorch
from tests.lab import bare
from tests.lab.places import Kept, Place
from tests.thorough import much
from vorch.domain_xml import read_domain
from vorch.lab import Lab

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(900)]

RUNNING, PAUSED = libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_PAUSED


@pytest.fixture(scope="module")
def kept(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    found = Kept(lab, tmp_path_factory.mktemp("place"))
    yield found
    found.close()


@pytest.fixture
def place(kept: Kept) -> Place:
    return kept.ready()


def test_a_guest_that_writes_goes_round_the_hosts(place: Place) -> None:
    for host in ("h2", "h3", "h1"):
        done = place.cluster.migrate("writer", host)
        assert done.task is not None
        assert done.task.result["power"] == "running"
        place.check_on(host)
        with bare.connected(place.lab, host) as connection:
            mark = read_domain(connection.lookupByName("writer").XMLDesc(0)).mark
            assert mark is not None
            assert (mark.vm, mark.node) == ("writer", host)
    # Without a name it goes where the most memory is free.
    place.cluster.migrate("writer")
    host = place.recorded()
    assert host in ("h2", "h3")
    place.check_on(host)
    place.cluster.stop("writer", force=True)
    place.verify()


def test_a_paused_guest_stays_paused(place: Place) -> None:
    place.cluster.pause("writer")
    place.cluster.migrate("writer", "h2")
    assert place.seen() == {"h2": PAUSED}
    place.cluster.resume("writer")
    place.check_on("h2")


def test_progress_and_cancel(place: Place) -> None:
    seen: list[tuple[float, str]] = []
    with place.slowly() as slow:
        slow.executor.watch = lambda task: seen.append((task.percent or 0.0, task.log[-1]))
        other = threading.Thread(target=lambda: _cancel_soon(place))
        other.start()
        with pytest.raises(vorch.Cancelled):
            slow.migrate("writer", "h2")
        other.join()
    assert any("MiB left" in line for _, line in seen)
    assert any(0 < percent < 100 for percent, _ in seen)
    place.check_on("h1")
    place.cluster.stop("writer", force=True)
    place.verify()


def _cancel_soon(place: Place) -> None:
    place.await_way("h1")
    (task,) = [task for task in place.cluster.task_list() if not task.over]
    place.cluster.task_cancel(task.id)


def test_ctrl_c_leaves_it_where_it_is(place: Place) -> None:
    process = place.run("migrate", "writer", "h2")
    place.await_way("h1")
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode not in (0, -signal.SIGKILL), output
    place.check_on("h1")


@pytest.mark.thorough
def test_killed_at_several_moments(place: Place) -> None:
    """The hosts go on by themselves. The next process waits for them, or finds it there."""
    here, there = "h1", "h2"
    for delay_s in (0.0, 0.5, 2.0, 5.0, 9.0):
        process = place.run("migrate", "writer", there)
        place.await_way(here)
        time.sleep(delay_s)
        process.kill()
        process.communicate()
        heir = place.run("recover")
        output, _ = heir.communicate(timeout=120)
        assert heir.returncode == 0, output
        assert len(place.seen()) == 1, (delay_s, place.seen())
        place.check_on(place.recorded())
        (left,) = place.seen()
        here, there = left, here if left == there else there
    assert all(task.over for task in place.cluster.task_list())
    place.cluster.stop("writer", force=True)
    place.verify()


@pytest.mark.thorough
def test_killed_before_it_began(place: Place) -> None:
    for delay_s in much((0.3, 0.6, 0.9, 1.2, 1.5), (0.3, 0.9, 1.2)):
        process = place.run("migrate", "writer", "h2" if place.recorded() == "h1" else "h1")
        time.sleep(delay_s)
        process.kill()
        process.communicate()
        heir = place.run("recover")
        output, _ = heir.communicate(timeout=120)
        assert heir.returncode == 0, output
        assert list(place.seen()) == [place.recorded()], delay_s
    place.check_on(place.recorded())


def _in_the_middle(place: Place, act: Callable[[], object]) -> vorch.VorchError:
    """What a migration from h1 to h2 ends with when this happens on its way."""

    def later() -> None:
        place.await_way("h1")
        time.sleep(1.0)
        act()

    thread = threading.Thread(target=later)
    thread.start()
    with place.slowly() as slow, pytest.raises(vorch.VorchError) as caught:
        slow.migrate("writer", "h2")
    thread.join()
    return caught.value


def test_the_target_loses_its_power(place: Place) -> None:
    _in_the_middle(place, lambda: place.lab.power_off("h2"))
    place.check_on("h1")
    place.lab.heal()
    place.cluster.recover()
    place.check_on("h1")
    assert all(task.over for task in place.cluster.task_list())
    place.cluster.migrate("writer", "h2")
    place.check_on("h2")


@pytest.mark.thorough
def test_the_source_loses_its_power(place: Place) -> None:
    _in_the_middle(place, lambda: place.lab.power_off("h1"))
    bare.eventually(lambda: PAUSED not in place.seen().values(), "the target has made up its mind")
    assert place.seen() in ({}, {"h2": RUNNING})
    place.lab.heal()
    place.cluster.recover()
    assert all(task.over for task in place.cluster.task_list())
    assert list(place.seen()) in ([], [place.recorded()])
    if not place.seen():
        place.cluster.start("writer")
    place.check_on(place.recorded())
    place.cluster.stop("writer", force=True)
    place.verify()


@pytest.mark.thorough
def test_qemu_dies_on_either_side(place: Place) -> None:
    _in_the_middle(place, lambda: place.lab.kill_qemu("h2", "writer"))
    place.check_on("h1")
    problem = _in_the_middle(place, lambda: place.lab.kill_qemu("h1", "writer"))
    assert isinstance(problem, vorch.NotFound)
    assert place.seen() == {}
    place.cluster.start("writer")
    place.check_on("h1")
