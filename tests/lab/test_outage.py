"""Ceph falls silent for a minute, all of it or its only monitor, while vorch is at work.

What is asked of it meanwhile waits or fails with `unreachable`; guests stand still and lose
nothing; afterwards all goes on, and nothing is left half done.
"""

from __future__ import annotations

import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.lab import bare
from tests.lab.acks import Acks
from tests.lab.clusters import cluster_on, import_writer, slow_down, start_writer, verdict
from tests.lab.remains import remains
from tests.thorough import much
from vorch import Orchestrator
from vorch.errors import Conflict, StepFailed, Unreachable, VorchError
from vorch.lab import Lab

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(900)]

OUTAGE_S = much(60.0, 25.0)
HOSTS = ("h1", "h2")


class Worker:
    """Somebody who goes on asking for the same few things, whatever comes of them."""

    def __init__(self, name: str, acts: Callable[[], None]) -> None:
        self.name = name
        self.acts = acts
        self.done = 0
        self.problems: list[VorchError] = []
        self.surprise: BaseException | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while not self._over.is_set():
            try:
                self.acts()
                self.done += 1
            except VorchError as exc:
                self.problems.append(exc)
                self._over.wait(0.5)
            except BaseException as exc:  # noqa: BLE001 told by the test
                self.surprise = exc
                return

    def end(self) -> None:
        self._over.set()
        self._thread.join(300)
        assert not self._thread.is_alive(), f"{self.name} hangs"
        if self.surprise is not None:
            raise self.surprise


def coming_and_going(cluster: Orchestrator, name: str) -> Callable[[], None]:
    """A VM of the template, started, copied, and both deleted; from wherever it got to."""

    def acts() -> None:
        there = cluster.look().vms
        for one in (name, f"{name}-copy"):
            if one in there:
                cluster.delete(one, force=True, purge=True, wait_s=60)
        cluster.create(name, image="writer", memory_mib=64, networks=(), node="h1", agent=False)
        cluster.clone(name, f"{name}-copy", linked=True)
        cluster.start(f"{name}-copy")
        cluster.stop(f"{name}-copy", force=True)

    return acts


def to_and_fro(cluster: Orchestrator, name: str) -> Callable[[], None]:
    def acts() -> None:
        at = cluster.look().vm(name).node
        cluster.migrate(name, HOSTS[HOSTS.index(at) - 1])

    return acts


def recording(cluster: Orchestrator) -> Callable[[], None]:
    """The state alone."""

    def acts() -> None:
        for name in [one.name for one in cluster.network_list() if one.name != "lan"]:
            cluster.network_delete(name, wait_s=60)
        cluster.network_create("other", kind="bridge", bridge="br0")

    return acts


def allowed(problem: VorchError) -> bool:
    """Ceph's silence, or its consequence: a plan that could not go on nor back until it is over.

    Who finds its own VM taken by such a plan is told so.
    """
    if isinstance(problem, Unreachable):
        return True
    if isinstance(problem, (StepFailed, Conflict)) and "cause" in problem.fields:
        cause = problem.fields["cause"]
        return isinstance(cause, dict) and cause.get("code") == "unreachable"
    return problem.code == "conflict" and "was left unfinished" in problem.message


def states(lab: Lab) -> list[str]:
    """What each QEMU says of its guest, for whoever has to find out why one stands still."""
    lines = (
        "for vm in $(virsh list --all --name); do echo $vm: $(virsh domstate --reason $vm)"
        " $(virsh qemu-monitor-command --hmp $vm 'info status')"
        " $(virsh domblkerror $vm) $(virsh domblkstat --human $vm vda); done"
    )
    said = [
        subprocess.run(
            lab.command(host, ["sh", "-c", lines]),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ).stdout
        for host in HOSTS
    ]
    return [f"{host}: {words}" for host, words in zip(HOSTS, said, strict=True)]


@pytest.mark.parametrize("lost", ["monitor", "osds"])
def test_a_while_without_ceph(fresh_lab: Lab, lost: str) -> None:
    lab = fresh_lab
    acks = Acks(lab.spec.own_management)
    try:
        with cluster_on(lab, HOSTS) as cluster:
            memory_mib = import_writer(cluster)
            slow_down(lab, cluster, 1)
            writers = ("moves", "stays")
            for name in writers:
                start_writer(cluster, name, memory_mib, "h1")
            acks.await_writers(len(writers), 300)
            workers = [
                Worker("comes and goes", coming_and_going(cluster, "guest")),
                Worker("moves", to_and_fro(cluster, "moves")),
                Worker("records", recording(cluster)),
            ]
            bare.eventually(lambda: all(one.done for one in workers), "all work")
            before = [one.done for one in workers]
            if lost == "monitor":
                lab.mon_kill()
            else:
                with ThreadPoolExecutor(4) as pool:
                    list(pool.map(lab.osd_kill, lab.spec.osd_numbers))
            time.sleep(OUTAGE_S)
            lab.heal()
            # Each has gone on by itself, without anybody's help.
            now = [one.done for one in workers]
            bare.eventually(
                lambda: all(one.done > then + 1 for one, then in zip(workers, now, strict=True)),
                "all go on",
                300,
                lambda: "".join(
                    f"; {one.name}: {one.done} done, {then} when it was healed,"
                    f" lately {[str(problem) for problem in one.problems[-3:]]}"
                    for one, then in zip(workers, now, strict=True)
                ),
            )
            for one in workers:
                one.end()
            problems = [problem for one in workers for problem in one.problems]
            wrong = [problem for problem in problems if not allowed(problem)]
            assert not wrong, wrong
            if lost == "osds":
                # Nothing can be done without them, so somebody was told so.
                assert problems, before
            short = acks.short_of(3, bare.TIMEOUT_S)
            assert not short, (short, states(lab))
            cluster.recover()
            for name in writers:
                cluster.stop(name, force=True)
            assert remains(lab, cluster) == [], Counter(one.code for one in problems)
            for name in writers:
                boots = [epoch.boot for epoch in verdict(lab, cluster, name).epochs]
                seen = verdict(lab, cluster, name, acks.of(boots))
                assert seen.ok, (name, seen.findings)
                assert len(seen.epochs) == 1, name
                assert seen.acks >= 10
    finally:
        acks.close()
