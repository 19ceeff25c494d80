"""`vorch serve` is killed in the middle of twenty jobs; after its restart none of them is lost."""

from __future__ import annotations

import contextlib
import http.server
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from vorch import JobState, Orchestrator, TaskState, VorchError, connect
from vorch.codec import encode
from vorch.model import Node, Pool
from vorch.ports import Change

JOBS = 20
SIZE = 1024 * 1024
SERVE = "import sys; from vorch_cli.main import main; sys.exit(main())"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(shutil.which("qemu-img") is None, reason="there is no qemu-img here"),
]


class Source:
    """Images over HTTP. The odd ones stop halfway for as long as they are held up."""

    def __init__(self) -> None:
        self.goes_on = threading.Event()
        self.halfway = threading.Semaphore(0)
        source = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                number = int(re.findall(r"\d+", self.path)[0])
                self.send_response(200)
                self.send_header("Content-Length", str(SIZE))
                self.end_headers()
                if self.command == "HEAD":
                    return
                body = bytes([number + 1]) * SIZE
                self.wfile.write(body[: SIZE // 2])
                if number % 2 and not source.goes_on.is_set():
                    source.halfway.release()
                    source.goes_on.wait(200)
                self.wfile.write(body[SIZE // 2 :])

            do_HEAD = do_GET  # noqa: N815 - the name that the server looks for

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.goes_on.set()
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def source() -> Iterator[Source]:
    found = Source()
    yield found
    found.close()


@pytest.fixture
def uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store with a pool, and a host that nothing here asks for anything."""
    monkeypatch.setenv("VORCH_CONFIG", os.devnull)
    monkeypatch.delenv("VORCH_TOKEN", raising=False)
    found = f"sqlite://{tmp_path}/vorch.db"
    node = Node(name="h1", uri="qemu:///nosuch")
    pool = Pool(name="here", url=f"dir://{tmp_path}/disks", node="h1")
    with connect(found, prepare=False) as cluster:
        cluster.world.state.commit(
            [Change("node/h1", 0, encode(node)), Change("pool/here", 0, encode(pool))]
        )
    return found


@contextmanager
def served(uri: str, folder: Path) -> Iterator[tuple[subprocess.Popen[str], Orchestrator]]:
    program = subprocess.Popen(
        [sys.executable, "-c", SERVE, "--uri", uri, "serve", "--port", "0", "--no-watch"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        assert program.stdout is not None
        address = None
        while address is None:
            line = program.stdout.readline()
            assert line, program.wait(10)
            address = re.search(r"(https?://\S+) ", line)
        token = (folder / "token").read_text().strip()
        with connect(address[1], token=token) as far:
            yield program, far
    finally:
        program.kill()
        program.communicate()


def test_none_is_lost(
    uri: str, source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vorch.remote.far.AWAY_S", 0.0)
    with served(uri, tmp_path) as (program, far):

        def ask(number: int) -> None:
            # Half of them never hear how that ended.
            with contextlib.suppress(VorchError):
                far.image_import(f"i{number}", f"{source.address}/{number}", pool="here")

        asking = [
            threading.Thread(target=ask, args=(number,), daemon=True) for number in range(JOBS)
        ]
        for thread in asking:
            thread.start()
        for _ in range(JOBS // 2):
            assert source.halfway.acquire(timeout=120)
        while len(far.job_list()) < JOBS:
            time.sleep(0.05)
        begun = {job.id for job in far.job_list()}
        os.kill(program.pid, signal.SIGKILL)
        program.wait(10)

    source.goes_on.set()
    with served(uri, tmp_path) as (_, far):
        jobs = {job.id: job for job in far.job_list()}
        assert begun <= set(jobs)
        tasks = {task.id: task for task in far.task_list()}
        images = {image.name for image in far.image_list()}
        for job in jobs.values():
            assert job.over, job
            if job.state is JobState.DONE:
                assert job.subject in images
                assert tasks[job.tasks[-1]].state is TaskState.DONE
            else:
                assert job.error is not None
                assert job.subject not in images
        # What is in the pool is of an image, and of one that is there.
        kept = {disk.volume.name for image in far.image_list() for disk in image.disks}
        files = {file.name for file in (tmp_path / "disks").rglob("*") if file.is_file()}
        assert len(kept) == len(images)
        assert files - {".lock"} == {f"{name}.qcow2" for name in kept}
