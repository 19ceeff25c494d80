"""Long tasks on real files: their progress grows, and cancelled they leave nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import vorch
from tests.execute.scenarios import leaks
from tests.real.guests import PREFIX, embedded_cluster, eventually, files_of, settings
from vorch import Cancelled, Orchestrator, Task

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(600)]

MIB = 1024**2
# Large enough to be still on its way when the wish to cancel it comes.
SIZE_MIB = 2048


class Trickle(BaseHTTPRequestHandler):
    """Serves an image without end: a MiB, and then a few bytes at a time until it is let go."""

    enough = threading.Event()

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(4 * MIB))
        self.end_headers()
        self.wfile.write(bytes(MIB))
        sent = MIB
        try:
            while sent < 3 * MIB and not self.enough.wait(0.1):
                self.wfile.write(bytes(65536))
                sent += 65536
            self.enough.wait(120)
        except OSError:
            # The other side has hung up, as it should.
            return

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def trickle() -> Iterator[str]:
    Trickle.enough.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Trickle) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/disk.raw"
        Trickle.enough.set()
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def cluster(libvirt_system: str) -> Iterator[Orchestrator]:
    with embedded_cluster() as cluster:
        yield cluster


def folder_of(cluster: Orchestrator) -> Path:
    return Path(cluster.settings.uri.removeprefix("sqlite://")).parent


class Cancelling:
    """Runs a verb in one connection and cancels it from another when it has come some way."""

    def __init__(self, cluster: Orchestrator) -> None:
        self.cluster = cluster
        self.seen: list[float] = []
        self.raised: list[BaseException] = []
        self.wished = threading.Event()

    def _watch(self, task: Task) -> None:
        self.seen.append(task.percent)
        # The work is held up here until the wish is there: a fast disk would be done before it.
        if self._on_its_way():
            self.wished.wait(60)

    def _on_its_way(self) -> bool:
        return len({percent for percent in self.seen if percent}) > 2

    def _run(self, act: Callable[[Orchestrator], object]) -> None:
        folder = folder_of(self.cluster)
        with vorch.connect(settings=settings(folder), watch=self._watch) as mine:
            try:
                act(mine)
            except BaseException as exc:  # noqa: BLE001 it is looked at by the test
                self.raised.append(exc)

    def __call__(self, verb: str, act: Callable[[Orchestrator], object]) -> Task:
        before = {task.id for task in self.cluster.task_list()}
        thread = threading.Thread(target=self._run, args=(act,))
        thread.start()
        try:
            # What a connection finds changed of its hosts is written down as a task, too.
            (task,) = eventually(
                lambda: [
                    one
                    for one in self.cluster.task_list()
                    if one.verb == verb and one.id not in before
                ],
                bool,
            )
            eventually(self._on_its_way, bool)
            self.cluster.task_cancel(task.id)
        finally:
            self.wished.set()
            thread.join()
        return self.cluster.task_show(task.id)


def test_a_cancelled_import_leaves_nothing(cluster: Orchestrator, trickle: str) -> None:
    cancelling = Cancelling(cluster)
    task = cancelling("image import", lambda mine: mine.image_import(PREFIX + "slow", trickle))
    assert [type(one) for one in cancelling.raised] == [Cancelled]
    assert task.state.value == "cancelled"
    assert cancelling.seen == sorted(cancelling.seen)
    assert cluster.image_list() == ()
    assert leaks(cluster) == []
    assert files_of(folder_of(cluster) / "disks") == []


def test_a_full_clone_tells_its_progress_and_cancelled_leaves_nothing(
    cluster: Orchestrator, tmp_path: Path
) -> None:
    source, copy = PREFIX + "large", PREFIX + "copy"
    disk = tmp_path / "large.raw"
    with disk.open("wb") as file:
        block = bytes(range(256)) * (MIB // 256)
        for _ in range(SIZE_MIB):
            file.write(block)
    seen: list[float] = []
    with vorch.connect(
        settings=settings(folder_of(cluster)), watch=lambda task: seen.append(task.percent)
    ) as mine:
        mine.image_import("large", str(disk))
    disk.unlink()
    assert seen == sorted(seen)
    assert len(set(seen)) > 5
    assert seen[-1] == 100
    cluster.create(source, image="large", networks=())
    before = set(files_of(folder_of(cluster) / "disks"))
    cancelling = Cancelling(cluster)
    task = cancelling("clone", lambda mine: mine.clone(source, copy))
    assert [type(one) for one in cancelling.raised] == [Cancelled], cancelling.seen
    assert task.state.value == "cancelled"
    assert leaks(cluster) == []
    assert [one.name for one in cluster.list()] == [source]
    assert set(files_of(folder_of(cluster) / "disks")) == before
