"""`vorch serve` is killed amid twenty jobs with real VMs: none is lost, nothing remains."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.boot_sector import SLEEPS
from tests.execute.scenarios import leaks
from tests.real.guests import PREFIX, embedded_cluster, virsh
from vorch import JobState, Orchestrator, TaskState, VorchError, connect
from vorch.model import Power

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(600)]

SERVE = "import sys; from vorch_cli.main import main; sys.exit(main())"
MIB = 1024**2
OF_EACH = 5
OVER = {TaskState.DONE, TaskState.UNDONE, TaskState.FAILED, TaskState.CANCELLED}


@contextmanager
def served(cluster: Orchestrator) -> Iterator[tuple[subprocess.Popen[str], Orchestrator]]:
    uri = cluster.settings.uri
    folder = Path(uri.removeprefix("sqlite://")).parent
    environment = {
        **os.environ,
        "PYTHONUNBUFFERED": "1",
        "VORCH_CONFIG": os.devnull,
        "VORCH_POOL_PATH": cluster.settings.pool_path,
        "VORCH_HYPERVISOR_URI": cluster.settings.hypervisor_uri,
    }
    program = subprocess.Popen(
        [sys.executable, "-c", SERVE, "--uri", uri, "serve", "--port", "0", "--no-watch"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    )
    try:
        assert program.stdout is not None
        address = None
        while address is None:
            line = program.stdout.readline()
            assert line, program.wait(10)
            address = re.search(r"(https?://\S+) ", line)
        token = (folder / "token").read_text(encoding="utf-8").strip()
        with connect(address[1], token=token) as far:
            yield program, far
    finally:
        program.kill()
        program.communicate()


@pytest.fixture(scope="module")
def cluster(libvirt_system: str) -> Iterator[Orchestrator]:
    with embedded_cluster() as found:
        folder = Path(found.settings.uri.removeprefix("sqlite://")).parent
        disk = folder / "disk.raw"
        disk.write_bytes(SLEEPS + bytes(16 * MIB - len(SLEEPS)))
        found.image_import("tiny", str(disk))
        disk.unlink()
        yield found


def furnish(cluster: Orchestrator, word: str) -> None:
    """VMs that are off, to be started, cloned and kept as they are."""
    for number in range(OF_EACH):
        for kind in ("start", "clone", "snap"):
            name = f"{PREFIX}{word}-{kind}{number}"
            cluster.create(
                name, image="tiny", memory_mib=64, networks=(), graphics=False, agent=False
            )


def acts(far: Orchestrator, word: str) -> list[Callable[[], object]]:
    """Twenty, of four kinds in turn."""
    found: list[Callable[[], object]] = []
    for number in range(OF_EACH):
        base = f"{PREFIX}{word}"
        found += [
            lambda base=base, number=number: far.create(  # type: ignore[misc]
                f"{base}-new{number}",
                image="tiny",
                memory_mib=64,
                networks=(),
                graphics=False,
                agent=False,
                start=True,
            ),
            lambda base=base, number=number: far.start(f"{base}-start{number}"),  # type: ignore[misc]
            lambda base=base, number=number: far.clone(  # type: ignore[misc]
                f"{base}-clone{number}", f"{base}-copy{number}"
            ),
            lambda base=base, number=number: far.snapshot_create(  # type: ignore[misc]
                f"{base}-snap{number}", "before"
            ),
        ]
    return found


@pytest.mark.parametrize("ended", [0, 8], ids=["when all have begun", "when some are over"])
def test_none_is_lost(cluster: Orchestrator, ended: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vorch.remote.far.AWAY_S", 0.0)
    word = f"k{ended}"
    furnish(cluster, word)
    with served(cluster) as (program, far):
        before = {job.id for job in far.job_list()}

        def ask(act: Callable[[], object]) -> None:
            # Many of them never hear how that ended.
            with contextlib.suppress(VorchError):
                act()

        asking = [threading.Thread(target=ask, args=(act,), daemon=True) for act in acts(far, word)]
        for thread in asking:
            thread.start()

        def jobs() -> list[JobState]:
            # Past the service, which has enough to do.
            return [job.state for job in cluster.job_list() if job.id not in before]

        until = time.monotonic() + 300
        while len(states := jobs()) < len(asking) or (
            sum(one is not JobState.RUNNING for one in states) < ended
        ):
            assert time.monotonic() < until, states
            time.sleep(0.02)
        os.kill(program.pid, signal.SIGKILL)
        program.wait(10)
        begun = {job.id for job in cluster.job_list()} - before
        left = sum(job.state is JobState.RUNNING for job in cluster.job_list())
    assert left > 0, "all were over before it was killed"

    with served(cluster) as (_, far):
        found = {job.id: job for job in far.job_list() if job.id in begun}
        assert set(found) == begun
        assert len(found) == len(asking)
        tasks = {task.id: task for task in far.task_list()}
        for job in found.values():
            assert job.over, job
            assert job.state is JobState.DONE or job.error is not None, job
            assert {tasks[one].state for one in job.tasks} <= OVER, job
        vms = {one.vm.name: one for one in far.list()}
        for job in found.values():
            done = job.state is JobState.DONE
            number = job.subject[-1]
            if job.verb == "create":
                assert (f"{PREFIX}{word}-new{number}" in vms) is done, job
            elif job.verb == "clone":
                assert (f"{PREFIX}{word}-copy{number}" in vms) is done, job
            elif job.verb == "start":
                assert (vms[job.subject].power is Power.RUNNING) is done, job
            else:
                kept = far.snapshot_list(job.subject)
                assert ([one.name for one in kept] == ["before"]) is done, job
    # The host runs what the state says, and no more.
    assert leaks(cluster) == []
    running = {one.vm.name for one in cluster.list() if one.power is Power.RUNNING}
    on_host = {name for name in virsh("list", "--name").split() if name.startswith(PREFIX + word)}
    assert on_host == {name for name in running if name.startswith(PREFIX + word)}
    for name in list(vms):
        cluster.delete(name, force=True, purge=True)
