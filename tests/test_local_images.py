"""The local pool beyond the contract: its files, crashes, neighbours, downloads, and its speed."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.contract.imagestores import qemu_io
from vorch.drivers import fetch
from vorch.drivers.local import LocalImages
from vorch.errors import (
    BadConfig,
    Cancelled,
    Conflict,
    Denied,
    Invalid,
    NoRoom,
    NotFound,
    StepFailed,
    TimedOut,
    Unreachable,
    VorchError,
)
from vorch.ports import no_progress

MIB = 1024**2


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "pool"


@pytest.fixture
def pool(folder: Path) -> LocalImages:
    return LocalImages("local", folder)


def work_left(folder: Path) -> list[str]:
    return [one.name for one in (folder / ".work").iterdir() if one.suffix != ".lock"]


def qemu_info(path: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(
        subprocess.run(
            ["qemu-img", "info", "-U", "--output=json", "-f", "qcow2", path],
            capture_output=True,
            check=True,
        ).stdout
    )
    return found


# -- files


def test_what_qemu_img_says_of_our_volumes(pool: LocalImages, folder: Path) -> None:
    pool.create("base", 8 * MIB)
    pool.clone("base", "a", 9 * MIB + 1)
    pool.snapshot(["a"], "one")
    pool.snapshot(["a"], "two")
    said = qemu_info(str(folder / "a.qcow2"))
    ours = pool.info("a")
    # Up to the next sector.
    assert said["virtual-size"] == ours.size_bytes == 9 * MIB + 512
    # Named without a path, so that the pool can be moved as a whole; its format is said.
    assert said["backing-filename"] == "base.qcow2"
    assert said["backing-filename-format"] == "qcow2"
    assert said["actual-size"] == ours.used_bytes
    assert [one["name"] for one in said["snapshots"]] == list(ours.snapshots)  # type: ignore[attr-defined]
    assert said["format-specific"]["data"]["compat"] == "1.1"  # type: ignore[index]


def test_a_pool_can_be_moved(pool: LocalImages, folder: Path, tmp_path: Path) -> None:
    pool.create("base", MIB)
    qemu_io(str(folder / "base.qcow2"), "qcow2", "write -P 7 0 64k")
    pool.clone("base", "a", MIB)
    folder.rename(tmp_path / "elsewhere")
    moved = LocalImages("local", tmp_path / "elsewhere")
    qemu_io(moved.locate("a").path, "qcow2", "read -P 7 0 64k")
    assert moved.info("a").base == "base"


def test_a_clone_of_a_raw_volume(pool: LocalImages, folder: Path) -> None:
    pool.write_file("base", b"\x05" * 5000)
    pool.clone("base", "a", MIB)
    qemu_io(str(folder / "a.qcow2"), "qcow2", "read -P 5 0 4608", "read -P 0 5120 64k")
    assert qemu_info(str(folder / "a.qcow2"))["backing-filename-format"] == "raw"
    assert pool.info("a").base == "base"
    pool.purge("base")
    pool.purge("a")
    assert pool.list() == ()


def test_the_user_of_qemu_can_pass_and_nobody_can_list(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        pool = LocalImages("local", tmp_path / "new" / "pool")
        pool.create("a", MIB)
        pool.write_file("b", b"x")
    finally:
        os.umask(before)
    for path in (tmp_path / "new", tmp_path / "new/pool", tmp_path / "new/pool/.trash"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o711
    for path in (tmp_path / "new/pool/a.qcow2", tmp_path / "new/pool/b.raw"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_folder_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir(mode=0o700)
    LocalImages("local", tmp_path / "mine")
    assert stat.S_IMODE((tmp_path / "mine").stat().st_mode) == 0o700


def test_names_never_leave_the_pool(pool: LocalImages, tmp_path: Path) -> None:
    (tmp_path / "outside.raw").write_bytes(b"mine")
    for name in ("../outside", "a/b", ".lock", "", "a~2", "a" * 300, "a\0b", "-rf", "a\n"):
        for act in (
            lambda name=name: pool.create(name, MIB),
            lambda name=name: pool.write_file(name, b"x"),
            lambda name=name: pool.read_file(name, 100),
            lambda name=name: pool.trash(name),
            lambda name=name: pool.purge(name),
            lambda name=name: pool.locate(name),
        ):
            with pytest.raises(Invalid):
                act()
    assert (tmp_path / "outside.raw").read_bytes() == b"mine"


def test_links_in_the_pool_are_not_volumes(pool: LocalImages, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    (folder / "a.raw").symlink_to(tmp_path / "secret")
    assert pool.list() == ()
    with pytest.raises(NotFound):
        pool.read_file("a", 100)


def test_foreign_files_are_left_alone(pool: LocalImages, folder: Path) -> None:
    for name in ("notes.txt", "a.qcow2.bak", ".hidden.qcow2", "b~0.raw"):
        (folder / name).write_text("mine")
    assert pool.list() == ()
    pool.purge("a")
    assert len([one for one in folder.iterdir() if one.is_file() and one.name != ".lock"]) == 4


def test_one_bad_file_hides_no_other(pool: LocalImages, folder: Path) -> None:
    pool.create("good", MIB)
    (folder / "bad.qcow2").write_bytes(b"QFI\xfb rubbish")
    assert {(one.name, one.format) for one in pool.list()} == {
        ("good", "qcow2"),
        ("bad", "unreadable"),
    }
    assert pool.usage().provisioned_bytes == MIB
    with pytest.raises(StepFailed, match="bad"):
        pool.info("bad")
    pool.purge("bad")
    assert [one.name for one in pool.list()] == ["good"]


def test_sizes_that_make_no_sense(pool: LocalImages) -> None:
    pool.create("a", MIB)
    for size in (0, -1, 64 * 1024**4 + 1):
        with pytest.raises(Invalid):
            pool.create("b", size)
        with pytest.raises(Invalid):
            pool.clone("a", "b", size)
    pool.create("huge", 64 * 1024**4)
    assert pool.info("huge").used_bytes < 2 * MIB


def test_plain_files_are_no_disks(pool: LocalImages) -> None:
    pool.write_file("f", b"text")
    pool.create("d", MIB)
    for act in (
        lambda: pool.grow("f", MIB),
        lambda: pool.make_base("f", "b"),
        lambda: pool.snapshot(["f"], "s"),
        lambda: pool.read_file("d", 10 * MIB),
        lambda: pool.open_read("d"),
    ):
        with pytest.raises(Invalid):
            act()
    with pytest.raises(Conflict):
        pool.write_file("d", b"text")
    with pytest.raises(NotFound):
        pool.copy("f", "s", "g", no_progress)
    pool.copy("f", None, "g", no_progress)
    assert pool.read_file("g", 10) == b"text"


def test_another_content_takes_the_place_of_an_earlier_one(
    pool: LocalImages, folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "image"
    path.write_bytes(bytes(MIB))
    pool.import_file(str(path), "a", "disk", "", no_progress)
    pool.import_file(str(path), "a", "file", "", no_progress)
    assert pool.locate("a").format == "raw"
    pool.import_file(str(path), "a", "disk", "", no_progress)
    assert pool.locate("a").format == "qcow2"
    assert [one.name for one in pool.list()] == ["a"]


def test_a_large_empty_file_stays_sparse(pool: LocalImages, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "image"
    with path.open("wb") as file:
        file.truncate(96 * MIB)
        file.seek(50 * MIB)
        file.write(b"x")
    pool.import_file(str(path), "f", "file", "", no_progress)
    pool.import_file(str(path), "d", "disk", "", no_progress)
    pool.copy("f", None, "g", no_progress)
    for name in "fdg":
        assert pool.info(name).size_bytes == 96 * MIB
        assert pool.info(name).used_bytes < 4 * MIB


# -- a guest is running


@pytest.fixture
def running(pool: LocalImages, folder: Path) -> Iterator[Callable[[str], None]]:
    """Hold a volume open for writing, as a running guest does."""
    held: list[subprocess.Popen[str]] = []

    def run(volume: str) -> None:
        process = subprocess.Popen(
            ["qemu-io", "-f", "qcow2", str(folder / f"{volume}.qcow2")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        held.append(process)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("write -P 9 0 64k\n")
        process.stdin.flush()
        while "wrote" not in process.stdout.readline():
            pass

    yield run
    for process in held:
        process.communicate("quit\n")


def test_what_a_guest_writes_is_not_touched(
    pool: LocalImages, running: Callable[[str], None]
) -> None:
    pool.create("a", MIB)
    running("a")
    acts: list[Callable[[], object]] = [
        lambda: pool.snapshot(["a"], "s"),
        lambda: pool.grow("a", 2 * MIB),
        lambda: pool.copy("a", None, "b", no_progress),
    ]
    for act in acts:
        with pytest.raises(Conflict, match="running VM"):
            act()
    assert pool.info("a").snapshots == ()
    assert pool.info("a").size_bytes == MIB
    assert [one.name for one in pool.list()] == ["a"]


def test_a_snapshot_can_be_copied_while_the_guest_runs(
    pool: LocalImages, running: Callable[[str], None]
) -> None:
    pool.create("a", MIB)
    qemu_io(pool.locate("a").path, "qcow2", "write -P 4 0 64k")
    pool.snapshot(["a"], "s")
    running("a")
    pool.copy("a", "s", "b", no_progress)
    qemu_io(pool.locate("b").path, "qcow2", "read -P 4 0 64k")


def test_a_snapshot_larger_than_the_disk_is_now(pool: LocalImages) -> None:
    pool.create("a", MIB)
    pool.snapshot(["a"], "small")
    pool.grow("a", 2 * MIB)
    pool.snapshot(["a"], "large")
    pool.rollback(["a"], "small")
    with pytest.raises(VorchError, match="roll back"):
        pool.copy("a", "large", "b", no_progress)


def test_bases_are_never_written(pool: LocalImages) -> None:
    pool.create("base", MIB)
    pool.snapshot(["base"], "s")
    pool.clone("base", "a", MIB)
    acts: list[Callable[[], object]] = [
        lambda: pool.grow("base", 2 * MIB),
        lambda: pool.snapshot(["base"], "t"),
        lambda: pool.rollback(["base"], "s"),
        lambda: pool.make_base("base", "b"),
    ]
    for act in acts:
        with pytest.raises(Conflict):
            act()


# -- crashes


def test_make_base_after_a_crash_between_its_halves(pool: LocalImages, folder: Path) -> None:
    pool.create("a", MIB)
    qemu_io(str(folder / "a.qcow2"), "qcow2", "write -P 3 0 64k")
    # What is there when the process dies between the two renames.
    (folder / "b.qcow2").hardlink_to(folder / "a.qcow2")
    pool.make_base("a", "b")
    assert pool.info("a").base == "b"
    assert pool.info("b").base is None
    qemu_io(pool.locate("a").path, "qcow2", "read -P 3 0 64k")
    pool.unmake_base("a", "b")
    (folder / "b.qcow2").hardlink_to(folder / "a.qcow2")
    pool.unmake_base("a", "b")
    assert [one.name for one in pool.list()] == ["a"]
    qemu_io(pool.locate("a").path, "qcow2", "read -P 3 0 64k")


def test_marks_without_files_do_not_fall_on_new_volumes(pool: LocalImages, folder: Path) -> None:
    (folder / ".trash" / "a.qcow2").touch()
    (folder / ".hidden" / "b.qcow2").touch()
    pool.create("a", MIB)
    pool.create("b", MIB)
    assert not pool.info("a").trashed
    assert not pool.info("b").trashed
    (folder / ".trash" / "c.qcow2").touch()
    pool.purge("c")
    assert list((folder / ".trash").iterdir()) == []


def test_a_hidden_base_whose_last_clone_went_in_a_crash(pool: LocalImages, folder: Path) -> None:
    pool.create("base", MIB)
    pool.clone("base", "a", MIB)
    pool.purge("base")
    (folder / "a.qcow2").unlink()
    pool.purge("a")
    assert pool.list() == ()


WORKER = """
import os, signal, sys
from pathlib import Path
from vorch.drivers import qemu_img
from vorch.drivers.local import LocalImages
from vorch.ports import no_progress

pool, source, stop = sys.argv[1:]

def halt(pid, cpu_s):
    words = []
    while len(words) < 2:
        # Empty for a moment, while the process begins.
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\\0")
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            # A short one has ended already, and is empty for good.
            return
    if stop.encode() in words:
        os.kill(pid, signal.SIGSTOP)
        print(pid, flush=True)

qemu_img._limit = halt
LocalImages("local", pool).import_file(source, "a", "disk", "", no_progress)
"""


def test_what_a_killed_process_leaves_is_cleaned_up_and_nothing_else(
    pool: LocalImages, folder: Path, tmp_path: Path
) -> None:
    image = tmp_path / "image"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, "64M"], check=True)
    # Enough that the conversion is still under way when it is halted.
    qemu_io(str(image), "qcow2", "write -P 1 0 64M")
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(folder), str(image), "convert"],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        for _ in range(2)
    ]
    orphans = []
    try:
        for worker in workers:
            assert worker.stdout is not None
            orphans.append(int(worker.stdout.readline()))
        # Each has a copy of the image and the beginning of a volume.
        assert len(work_left(folder)) == 4
        pool.create("b", MIB)
        pool.purge("b")
        assert len(work_left(folder)) == 4
        workers[0].kill()
        workers[0].wait()
        pool.purge("a")
        assert len(work_left(folder)) == 2
        # The other one's qemu-img goes on; the dead one's would write into nothing for ever.
        assert not alive(orphans[0])
        assert alive(orphans[1])
        os.kill(orphans[1], signal.SIGCONT)
        assert workers[1].wait(20) == 0
        assert [one.name for one in pool.list()] == ["a"]
        assert work_left(folder) == []
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()


def alive(pid: int) -> bool:
    for _ in range(50):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return False
        if state == "Z":
            return False
        if state in "Tt":
            return True
        time.sleep(0.01)
    return True


def test_a_name_is_given_once(pool: LocalImages, folder: Path) -> None:
    others = [LocalImages("local", folder) for _ in range(4)]
    pool.create("base", MIB)
    pool.create("base2", MIB)
    outcomes: list[str] = []

    def clone(number: int) -> None:
        try:
            others[number].clone("base" if number % 2 else "base2", "a", MIB)
            outcomes.append("made")
        except Conflict:
            outcomes.append("conflict")

    threads = [threading.Thread(target=clone, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Those who wanted the same as the winner may have found it done.
    assert outcomes.count("conflict") >= 2
    assert pool.info("a").base in ("base", "base2")
    assert work_left(folder) == []


def test_a_fork_that_ends_leaves_its_parents_work_alone(pool: LocalImages, folder: Path) -> None:
    pool.create("a", MIB)
    locks = sorted((folder / ".work").iterdir())
    assert len(locks) == 1
    subprocess.run(
        [sys.executable, "-c",
         "import os, sys\nfrom vorch.drivers.local import LocalImages\n"
         "pool = LocalImages('local', sys.argv[1])\npool.create('b', 512)\n"
         "before = len(os.listdir(sys.argv[1] + '/.work'))\n"
         "if os.fork() == 0: sys.exit(0)\n"
         "os.wait()\nassert len(os.listdir(sys.argv[1] + '/.work')) == before\n",
         str(folder)],
        check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert sorted((folder / ".work").iterdir()) == locks


# -- when the world fails


@pytest.fixture
def qemu_img_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def say(words: str) -> None:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        script = folder / "qemu-img"
        script.write_text(f"#!/bin/sh\necho 'qemu-img: {words}' >&2\nexit 1\n")
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    return say


def test_failures_of_qemu_img(
    pool: LocalImages, folder: Path, qemu_img_says: Callable[[str], None]
) -> None:
    for words, kind in (
        ("error while writing sector 1: No space left on device", NoRoom),
        ("x: Permission denied", Denied),
        ('Failed to get "write" lock', Conflict),
        ("something new", StepFailed),
    ):
        qemu_img_says(words)
        with pytest.raises(kind, match="cannot create volume 'a'"):
            pool.create("a", MIB)
    assert pool.list() == ()
    assert work_left(folder) == []


def test_without_qemu_img(pool: LocalImages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(BadConfig, match="qemu-utils"):
        pool.create("a", MIB)


def test_a_disk_that_is_full_in_the_middle(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", small], capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("file systems cannot be mounted here")
    try:
        folder = small / "pool"
        # Nothing kept back and nothing checked: it must come to the real end.
        pool = LocalImages("small", folder, reserve_bytes=-(2**40))
        image = tmp_path / "image"
        image.write_bytes(os.urandom(16 * MIB))
        for content in ("disk", "file"):
            with pytest.raises(NoRoom):
                pool.import_file(str(image), "a", content, "", no_progress)
        with pytest.raises(NoRoom):
            pool.write_file("a", image.read_bytes())
        assert pool.list() == ()
        assert work_left(folder) == []
        # And with the checks, it is known before.
        careful = LocalImages("small", folder, reserve_bytes=0)
        with pytest.raises(NoRoom, match="MiB"):
            careful.import_file(str(image), "a", "disk", "", no_progress)
    finally:
        subprocess.run(["umount", "-l", small], check=True)


def test_a_compressed_image_that_would_fill_the_pool(folder: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.write_bytes(b"\x01" * 64 * MIB)
    image = tmp_path / "image"
    subprocess.run(
        ["qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", raw, image], check=True
    )
    assert image.stat().st_size < 2 * MIB
    room = os.statvfs(tmp_path)
    free = room.f_bavail * room.f_frsize
    pool = LocalImages("local", folder, reserve_bytes=free - 32 * MIB)
    with pytest.raises(NoRoom):
        pool.import_file(str(image), "a", "disk", "", no_progress)
    assert pool.list() == ()


def test_cancelling_ends_qemu_img_and_leaves_nothing(
    pool: LocalImages, folder: Path, tmp_path: Path
) -> None:
    image = tmp_path / "image"
    image.write_bytes(os.urandom(64 * MIB))
    began = []

    def cancel(percent: float | None = None, line: str | None = None) -> None:
        # Beyond 40 it is qemu-img that works.
        if percent is not None and percent > 41:
            began.append(percent)
            raise Cancelled("cannot go on: somebody cancelled")

    def children() -> set[str]:
        thread = Path("/proc/self/task") / str(threading.get_native_id())
        return set((thread / "children").read_text().split())

    # The lab of a whole run is one of them.
    before = children()
    with pytest.raises(Cancelled):
        pool.import_file(str(image), "a", "disk", "", cancel)
    assert len(began) == 1
    assert pool.list() == ()
    assert work_left(folder) == []
    assert children() <= before


def test_a_source_that_vanishes_is_still_read(pool: LocalImages, tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(b"\x06" * MIB)

    def vanish(percent: float | None = None, line: str | None = None) -> None:
        image.unlink(missing_ok=True)

    # Its name is gone, the open file is not; but it is not the same any more, by its times.
    with pytest.raises(Invalid, match="changed"):
        pool.import_file(str(image), "a", "disk", "", vanish)
    assert pool.list() == ()


def test_a_file_that_shrinks_while_it_is_read(pool: LocalImages, tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(b"\x06" * 4 * MIB)

    def shrink(percent: float | None = None, line: str | None = None) -> None:
        os.truncate(image, MIB)

    with pytest.raises(Unreachable, match="ended after"):
        pool.import_file(str(image), "a", "file", "", shrink)
    assert pool.list() == ()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may do everything")
def test_without_permission(tmp_path: Path) -> None:
    (tmp_path / "shut").mkdir(mode=0o500)
    with pytest.raises(Denied):
        LocalImages("local", tmp_path / "shut" / "pool")


def test_a_path_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(VorchError, match="cannot open pool"):
        LocalImages("local", tmp_path / "file" / "pool")


# -- from the network


class Handler(BaseHTTPRequestHandler):
    image = b""

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        kind = self.path.strip("/")
        if kind in ("403", "404", "500"):
            self.send_error(int(kind))
            return
        if kind.startswith("to=") or kind == "again":
            self.send_response(302)
            self.send_header("Location", kind[3:] if kind != "again" else "/again")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        if kind == "packed":
            self.send_header("Content-Encoding", "gzip")
        if kind != "endless":
            self.send_header("Content-Length", str(len(self.image)))
        self.end_headers()
        if kind == "short":
            self.wfile.write(self.image[: len(self.image) // 2])
        elif kind == "silent":
            self.wfile.flush()
            time.sleep(0.6)
        else:
            # Who refuses the answer does not listen to its end.
            with suppress(ConnectionError):
                self.wfile.write(self.image)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    path = tmp_path / "served"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "8M"], check=True)
    qemu_io(str(path), "qcow2", "write -P 8 0 4M")
    Handler.image = path.read_bytes()
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_address[1]}"
    httpd.shutdown()
    httpd.server_close()
    thread.join()


def test_a_disk_from_the_network(server: str, pool: LocalImages) -> None:
    percents: list[float] = []

    def hear(percent: float | None = None, line: str | None = None) -> None:
        if percent is not None:
            percents.append(percent)

    digest = hashlib.sha256(Handler.image).hexdigest()
    found = pool.import_file(f"{server}/image", "a", "disk", digest, hear)
    assert (found.format, found.size_bytes, found.sha256) == ("qcow2", 8 * MIB, digest)
    assert percents == sorted(percents)
    assert len(percents) > 4
    assert percents[-1] == 100
    qemu_io(pool.locate("a").path, "qcow2", "read -P 8 0 4M")
    # A server need not say how much will come, and may send us on.
    assert pool.import_file(f"{server}/endless", "a", "disk", digest, no_progress) == found
    again = pool.import_file(f"{server}/to={server}/image", "b", "disk", digest, no_progress)
    assert again == found


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("404", NotFound),
        ("403", Denied),
        ("500", Unreachable),
        ("short", Unreachable),
        ("packed", Invalid),
        ("to=file:///etc/passwd", Invalid),
        ("to=ftp://127.0.0.1/x", Invalid),
        ("to=data:text/plain,x", Invalid),
        ("again", Unreachable),
        ("to=/to=/to=/to=/to=/to=/to=/image", Unreachable),
    ],
)
def test_downloads_that_fail_leave_nothing(
    path: str, kind: type[VorchError], server: str, pool: LocalImages, folder: Path
) -> None:
    with pytest.raises(kind, match=r"^cannot import"):
        pool.import_file(f"{server}/{path}", "a", "file", "", no_progress)
    assert pool.list() == ()
    assert work_left(folder) == []


def test_a_silent_server(server: str, pool: LocalImages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "SILENCE_LIMIT_S", 0.1)
    with pytest.raises(TimedOut):
        pool.import_file(f"{server}/silent", "a", "file", "", no_progress)
    assert pool.list() == ()


def test_addresses_that_are_none(pool: LocalImages) -> None:
    for url in (
        "http://",
        "http:///x",
        "http://user:pass@127.0.0.1/x",
        "http://127.0.0.1:99999/x",
        "http://127.0.0.1:0/x",
        "http://127.0.0.1/a b",
        "http://127.0.0.1/\r\nHost: x",
        "http://[::1/x",
        "file://elsewhere/etc/passwd",
        "file:relative",
        "ssh://host/x",
        "rbd:pool/image",
        "fd:3",
        "a\0b",
    ):
        with pytest.raises(Invalid):
            pool.import_file(url, "a", "file", "", no_progress)
    with pytest.raises(Unreachable):
        pool.import_file("http://127.0.0.1:1/x", "a", "file", "", no_progress)
    for checksum in ("abc", "g" * 64, "0" * 63):
        with pytest.raises(Invalid, match="SHA-256"):
            pool.import_file("/etc/hostname", "a", "file", checksum, no_progress)


def test_a_path_as_url_with_signs(pool: LocalImages, tmp_path: Path) -> None:
    path = tmp_path / "two words é%.img"
    path.write_bytes(b"text")
    pool.import_file(path.as_uri(), "a", "file", "", no_progress)
    pool.import_file(str(path), "b", "file", "", no_progress)
    assert pool.read_file("a", 10) == pool.read_file("b", 10) == b"text"


# -- speed


def test_looking_at_hundreds_of_volumes_is_quick(pool: LocalImages, folder: Path) -> None:
    pool.create("base", MIB)
    pool.clone("base", "a", MIB)
    body = (folder / "a.qcow2").read_bytes()
    for number in range(300):
        (folder / f"v{number}.qcow2").write_bytes(body)
    begin = time.perf_counter()
    assert len(pool.list()) == 302
    pool.usage()
    pool.purge("v0")
    # A process for each would take seconds.
    assert time.perf_counter() - begin < 1.0
