"""A guest that writes faster than its memory travels, on real hosts: it goes over by post-copy.

From then on each host has what the other one lacks, so whatever breaks then, the VM must run once
or be stopped and fit to start.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import libvirt
import pytest

import vorch
from tests.lab import bare
from tests.lab.places import Place, place_on
from vorch.lab import Lab

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(900)]

LATE = {"migration_bandwidth_mib_s": 8, "migration_pause_limit_ms": 1, "migration_converge_s": 1.0}
GONE_OVER = [libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_POSTCOPY]


@pytest.fixture
def place(fresh_lab: Lab, tmp_path: Path) -> Iterator[Place]:
    with place_on(fresh_lab, tmp_path) as found:
        found.settle(**LATE)
        found.load(48)
        yield found


def await_late(place: Place, source: str) -> None:
    """Until it has gone over, and a part of its memory has not."""

    def late() -> bool:
        with bare.connected(place.lab, source) as connection:
            return bool(connection.lookupByName("writer").state() == GONE_OVER)

    bare.eventually(late, "the VM has gone over")


def late_and_then(place: Place, target: str, act: Callable[[], object]) -> vorch.VorchError | None:
    """What a move ends with when this happens after the VM has gone over."""
    source = place.recorded()

    def later() -> None:
        await_late(place, source)
        act()

    thread = threading.Thread(target=later)
    thread.start()
    try:
        with place.slowly(**LATE) as slow:
            slow.migrate("writer", target, postcopy=True, force=True)
    except vorch.VorchError as exc:
        return exc
    finally:
        thread.join()
    return None


def test_it_goes_over_and_is_followed_by_its_heirs(place: Place) -> None:
    with place.slowly(**LATE) as slow:
        plan = slow.migrate("writer", "h2", dry_run=True, force=True).plan
        assert plan.expected["speed_mib_s"] == 8
        assert plan.expected["takes_s"] >= 20
        done = slow.migrate("writer", "h2", postcopy=True, force=True)
    assert done.task is not None
    told = done.task.result
    assert told["postcopy"] is True
    assert told["sent_mib"] != 0
    assert told["pause_ms"] in range(1, 60_000)
    place.check_on("h2")
    # Killed when it has gone over, and asked to end then: it arrives all the same.
    process = place.run("migrate", "writer", "h1", "--postcopy", "--force")
    await_late(place, "h2")
    process.kill()
    process.communicate()
    heir = place.run("recover")
    output, _ = heir.communicate(timeout=120)
    assert heir.returncode == 0, output
    place.check_on("h1")
    assert late_and_then(place, "h2", lambda: _cancel(place)) is None
    place.check_on("h2")
    assert all(task.over for task in place.cluster.task_list())
    place.cluster.stop("writer", force=True)
    place.verify()


def _cancel(place: Place) -> None:
    (task,) = [task for task in place.cluster.task_list() if not task.over]
    place.cluster.task_cancel(task.id)


@pytest.mark.thorough
def test_either_half_dies(place: Place) -> None:
    problem = late_and_then(place, "h2", lambda: place.lab.kill_qemu("h2", "writer"))
    assert isinstance(problem, vorch.NotFound)
    assert place.seen() == {}
    place.cluster.start("writer")
    place.check_on("h1")
    place.load(48)
    late_and_then(place, "h2", lambda: place.lab.power_off("h1"))
    bare.eventually(lambda: place.seen() == {}, "the half without its source has ended")
    place.lab.heal()
    place.cluster.recover(force=True)
    assert place.seen() == {}
    assert all(task.over for task in place.cluster.task_list())
    place.cluster.start("writer")
    place.check_on("h1")
    place.cluster.stop("writer", force=True)
    place.verify()


@pytest.mark.thorough
def test_the_link_breaks_and_mends(place: Place) -> None:
    """It stands still meanwhile, and goes on by itself."""
    healed = threading.Event()

    def heal() -> None:
        place.lab.heal()
        healed.set()

    def cut() -> None:
        place.lab.cut("h2", "management")
        threading.Timer(5.0, heal).start()

    late_and_then(place, "h2", cut)
    assert healed.wait(60)
    bare.eventually(lambda: len(place.seen()) == 1, "one of the two is left")
    place.cluster.recover(force=True)
    place.check_on("h2")
    assert all(task.over for task in place.cluster.task_list())
    place.cluster.stop("writer", force=True)
    place.verify()
