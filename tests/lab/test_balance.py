"""Real VMs under load: a host is drained, hosts are evened out by hand and by itself, and rest."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from tests.lab.clusters import cluster_on
from tests.real.guests import READY, GuestConsole
from vorch import Orchestrator
from vorch.codec import decode
from vorch.decide.room.loads import Loads
from vorch.lab import Lab, guest
from vorch.watch import Watch

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(1800)]

# What each guest does: all of a processor, a part of one, next to nothing.
BURN = {
    "b0": "while :; do :; done",
    "b1": "while :; do i=0; while [ $i -lt 9000 ]; do i=$((i+1)); done; sleep 1; done",
}
NAMES = ("b0", "b1", "b2", "b3")
HOSTS = ("h1", "h2", "h3")
# Two cores emulate all of it.
BOOT_TIMEOUT_S = 300.0
PATIENCE_S = 420.0
EVERY_S = 60.0
LOAD_MEAN_S = 40.0


def places(cluster: Orchestrator) -> dict[str, str]:
    return {one.name: one.vm.node for one in cluster.list()}


def really(lab: Lab) -> dict[str, str]:
    """Past vorch: which host runs the QEMU of each. One that ran twice would fail here."""
    pairs = [(name, host.name) for host in lab.status().hosts for name in host.vms]
    assert len(dict(pairs)) == len(pairs), pairs
    return dict(pairs)


def counts(cluster: Orchestrator) -> list[int]:
    where = list(places(cluster).values())
    return sorted(where.count(host) for host in HOSTS)


def moves(cluster: Orchestrator) -> int:
    return sum(task.verb == "migrate" for task in cluster.task_list())


def start_all(cluster: Orchestrator) -> None:
    """All on one host; those that are to have something to do are told so by their consoles."""
    with ExitStack() as stack:
        consoles: dict[str, GuestConsole] = {}
        for name in NAMES:
            cluster.create(name, image="tiny", networks=(), node="h1", start=True)
            if name in BURN:
                consoles[name] = stack.enter_context(GuestConsole(cluster, name))
        for name, console in consoles.items():
            console.expect(READY, BOOT_TIMEOUT_S)
            console.log_in()
            console.run(f"( {BURN[name]} ) </dev/null >/dev/null 2>&1 & true", timeout_s=120)


class Watching:
    """The loop, moved on by the test."""

    def __init__(self, cluster: Orchestrator) -> None:
        self.cluster = cluster
        self.said: list[str] = []
        # On a busy machine a guest that boots burns, too, and one that burns gets a part of a core:
        # what a guest does now is to outweigh soon what it did then.
        settings = dataclasses.replace(cluster.settings, load_mean_s=LOAD_MEAN_S)
        self.watch = Watch(cluster.world, settings, say=self._say)

    def _say(self, sentences: dict[str, str]) -> None:
        sentence = sentences.get("balance", "")
        if sentence and sentence not in self.said[-1:]:
            self.said.append(sentence)

    def until(self, reached: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + PATIENCE_S
        while not reached():
            pace = self.watch.step()
            assert time.monotonic() < end, (what, self.said, pace, loads(self.cluster))
            self.watch.rest(1.0)

    def on(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        self.until(lambda: time.monotonic() >= end, "time passes")


def loads(cluster: Orchestrator) -> dict[str, float]:
    document = cluster.world.state.get("load/vms")
    return {} if document is None else decode(Loads, document.body).cores


@pytest.mark.thorough
def test_hosts_are_drained_and_evened_out_under_load(fresh_lab: Lab) -> None:
    lab = fresh_lab
    image = guest.build("tiny")
    with cluster_on(lab) as cluster:
        cluster.image_import("tiny", str(image.path), pool="fast", memory_mib=image.memory_mib)
        start_all(cluster)
        _drained(lab, cluster)
        _by_hand(lab, cluster)
        _by_itself(lab, cluster)
        for name in NAMES:
            cluster.delete(name, force=True, purge=True)
        cluster.image_delete("tiny")


def _drained(lab: Lab, cluster: Orchestrator) -> None:
    cluster.node_maintenance("h1", True)
    assert "h1" not in places(cluster).values()
    assert really(lab) == places(cluster)
    cluster.node_maintenance("h1", False)
    assert set(places(cluster).values()) == {"h1"}
    assert really(lab) == places(cluster)


def _by_hand(lab: Lab, cluster: Orchestrator) -> None:
    planned = cluster.balance(measure_s=10, dry_run=True)
    assert planned.measured == "measured for 10 s"
    assert places(cluster) == dict.fromkeys(NAMES, "h1")
    came = cluster.balance(measure_s=10)
    assert not came.skipped
    assert len(came.done) == len(came.plan.moves) >= 2
    assert counts(cluster) == [1, 1, 2], places(cluster)
    assert really(lab) == places(cluster)
    before = places(cluster)
    again = cluster.balance(measure_s=10)
    assert not again.plan.moves, again.plan.why
    assert places(cluster) == before


def _by_itself(lab: Lab, cluster: Orchestrator) -> None:
    for name in NAMES:
        cluster.migrate(name, "h1")
    watching = Watching(cluster)
    try:
        # So long as nobody has switched it on, loads are measured and nothing else.
        watching.until(lambda: loads(cluster).keys() == set(NAMES), "loads are known")
        assert set(places(cluster).values()) == {"h1"}
        # What is known of the first look grows truer with the next ones.
        watching.until(
            lambda: loads(cluster).get("b0", 0.0) > loads(cluster).get("b2", 1.0) + 0.1,
            "who burns is told from who does not",
        )
        cluster.ha_balance(auto=True, every_s=EVERY_S, moves_max=0)
        watching.until(lambda: counts(cluster) == [1, 1, 2], "hosts are even")
        watching.until(
            lambda: any("VMs were moved" in said for said in watching.said), "the plan is over"
        )
        assert really(lab) == places(cluster)
        made = moves(cluster)
        watching.on(3 * EVERY_S)
        assert moves(cluster) == made, watching.said
        assert "nothing is worth a move" in watching.said, watching.said
        assert any("balance: " in note for note in cluster.ha_status().notes)
        cluster.ha_balance(auto=False)
    finally:
        watching.watch.close()
