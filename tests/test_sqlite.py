"""The state file itself: making and opening it, rights, format, damage, threads and forks."""

from __future__ import annotations

import functools
import os
import sqlite3
import stat
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from vorch.drivers.sqlite import APPLICATION_ID, MIGRATIONS, SqliteState
from vorch.errors import (
    BadConfig,
    Conflict,
    Denied,
    Invalid,
    NoRoom,
    NotFound,
    TimedOut,
    Unreachable,
    VorchError,
)
from vorch.ports import Change, Document

NOBODY = 65534


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def in_child(act: Callable[[], object]) -> None:
    """Do it in a forked process, and fail when it does."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            act()
            code = 0
        except BaseException as exc:  # noqa: BLE001  (whatever it is, the child ends here)
            os.write(2, f"{type(exc).__name__}: {exc}\n".encode())
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def as_nobody(act: Callable[[], object]) -> None:
    """Do it as a user without rights: root, who may do all, in a process of its own."""
    if os.geteuid() != 0:
        act()
        return

    def change_and_act() -> None:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        act()

    in_child(change_and_act)


def refusal(kind: type[VorchError], path: Path, *words: str) -> Callable[[], None]:
    def check() -> None:
        with pytest.raises(kind) as caught:
            SqliteState(path)
        message = str(caught.value)
        for word in ("cannot open state file", str(path), ";", *words):
            assert word in message, message

    return check


# ---------------------------------------------------------------------------------------------
# Making it


def test_the_file_is_its_owners_alone_and_folders_can_be_passed_through(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        path = tmp_path / "a" / "b" / "state.db"
        state = SqliteState(path)
        state.commit([Change("vm/a", 0, {})])
    finally:
        os.umask(before)
    assert {mode(one) for one in path.parent.iterdir()} == {0o600}
    assert {one.name for one in path.parent.iterdir()} == {
        "state.db",
        "state.db-wal",
        "state.db-shm",
    }
    assert mode(tmp_path / "a") == mode(tmp_path / "a" / "b") == 0o711
    state.close()


def test_a_strict_umask_does_not_keep_others_from_passing(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        SqliteState(tmp_path / "a" / "state.db").close()
    finally:
        os.umask(before)
    assert mode(tmp_path / "a") == 0o711


def test_a_folder_that_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir(0o750)
    SqliteState(folder / "state.db").close()
    assert mode(folder) == 0o750


def test_what_was_committed_is_there_after_opening_again(path: Path) -> None:
    first = SqliteState(path)
    version = first.commit([Change("vm/a", 0, {"n": 1})])
    first.acquire("leader", "a", 10, now=1000)
    first.close()
    assert {one.name for one in path.parent.iterdir()} == {"state.db"}
    second = SqliteState(path)
    assert second.get("vm/a") == Document("vm/a", version, {"n": 1})
    taken = second.acquire("leader", "b", 10, now=2000, over=second.lease("leader"))
    assert taken is not None
    assert taken.epoch == 2
    second.close()


def test_commits_are_on_the_disk_when_they_return(path: Path) -> None:
    state = SqliteState(path)
    state.commit([Change("vm/a", 0, {})])
    connection = state._writer.get()
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    state.close()


def test_opening_is_quick(path: Path) -> None:
    state = SqliteState(path)
    state.commit([Change(f"vm/v{number}", 0, {"n": number}) for number in range(1000)])
    state.close()
    times = []
    for _ in range(5):
        began = time.perf_counter()
        state = SqliteState(path)
        times.append(time.perf_counter() - began)
        state.close()
    assert min(times) < 0.010


# ---------------------------------------------------------------------------------------------
# What cannot be opened


def test_a_folder(tmp_path: Path) -> None:
    refusal(BadConfig, tmp_path, "folder")()


def test_a_path_through_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    refusal(BadConfig, tmp_path / "file" / "state.db", "folder")()
    refusal(BadConfig, tmp_path / "file" / "deeper" / "state.db", "folder")()


def test_a_pipe(path: Path) -> None:
    os.mkfifo(path)
    refusal(BadConfig, path, "regular file")()


def test_links_that_run_in_a_circle(path: Path) -> None:
    path.symlink_to(path)
    refusal(Invalid, path, "circle")()


def test_a_link_that_leads_nowhere(path: Path) -> None:
    path.symlink_to(path.parent / "nowhere")
    refusal(NotFound, path)()


def test_a_name_that_is_too_long(tmp_path: Path) -> None:
    refusal(Invalid, tmp_path / ("x" * 300), "shorter")()


def test_a_path_with_a_nul() -> None:
    with pytest.raises(BadConfig, match="NUL"):
        SqliteState("/tmp/a\0b")


@pytest.mark.parametrize("content", [b"hello, this is no database\n" * 100, b"\x00" * 5000, b"x"])
def test_a_file_that_is_no_database(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    refusal(BadConfig, path, "not an SQLite file")()
    assert path.read_bytes() == content


def test_a_damaged_file(path: Path) -> None:
    state = SqliteState(path)
    state.commit([Change(f"vm/v{number}", 0, {"pad": "x" * 500}) for number in range(200)])
    state.close()
    content = bytearray(path.read_bytes())
    for page in range(4096, len(content), 4096):
        content[page : page + 2048] = b"\xa5" * 2048
    path.write_bytes(content)
    with pytest.raises(BadConfig, match="damaged") as caught:
        SqliteState(path).read(["vm"])
    assert isinstance(caught.value.__cause__, sqlite3.DatabaseError)


def test_a_file_that_was_cut_off(path: Path) -> None:
    state = SqliteState(path)
    state.commit([Change(f"vm/v{number}", 0, {"pad": "x" * 500}) for number in range(200)])
    state.close()
    path.write_bytes(path.read_bytes()[:6000])
    with pytest.raises(BadConfig, match="damaged"):
        SqliteState(path).read(["vm"])


def test_a_document_that_somebody_broke_by_hand(path: Path) -> None:
    state = SqliteState(path)
    state.commit([Change("vm/a", 0, {}), Change("vm/b", 0, {})])
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE documents SET body = '{oops' WHERE key = 'vm/a'")
        connection.execute("UPDATE documents SET body = '[1]' WHERE key = 'vm/b'")
    connection.close()
    for key in ("vm/a", "vm/b"):
        with pytest.raises(BadConfig, match=key):
            state.get(key)
    state.close()


def test_another_programs_database_is_left_alone(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE bookmarks (url TEXT)")
    connection.close()
    before = path.read_bytes()
    refusal(BadConfig, path, "another program")()
    assert path.read_bytes() == before
    assert {one.name for one in path.parent.iterdir()} == {"state.db"}


def test_a_file_of_our_mark_without_our_tables(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
    connection.close()
    state = SqliteState(path)
    with pytest.raises(BadConfig, match="tables"):
        state.commit([Change("vm/a", 0, {})])
    state.close()


def test_no_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    for parent in list(tmp_path.parents)[:-2]:
        if parent.stat().st_uid == os.geteuid():
            parent.chmod(parent.stat().st_mode | 0o011)
    closed = tmp_path / "closed"
    closed.mkdir(0o711)
    SqliteState(closed / "state.db").close()
    (closed / "state.db").chmod(0o600 if os.geteuid() == 0 else 0o000)
    closed.chmod(0o711 if os.geteuid() == 0 else 0o555)
    as_nobody(refusal(Denied, closed / "state.db", "Permission denied"))
    as_nobody(refusal(Denied, closed / "new.db", "Permission denied"))
    as_nobody(refusal(Denied, closed / "folder" / "new.db", "Permission denied"))
    (closed / "state.db").chmod(0o444)
    as_nobody(refusal(Denied, closed / "state.db", "Permission denied"))
    # The file could be written, but SQLite has no place for its journal.
    (closed / "state.db").chmod(0o666)
    as_nobody(refusal(Denied, closed / "state.db", "its folder"))
    closed.chmod(0o755)


def test_a_full_file_system(path: Path) -> None:
    state = SqliteState(path)
    state.commit([Change("vm/a", 0, {})])
    (pages,) = state._writer.get().execute("PRAGMA page_count").fetchone()
    state._writer.get().execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(NoRoom, match="full"):
        state.commit([Change("vm/b", 0, {"pad": "x" * 100_000})])
    assert list(state.read(["vm"])) == ["vm/a"]
    state._writer.get().execute("PRAGMA max_page_count = 100000")
    state.commit([Change("vm/b", 0, {"pad": "x" * 100_000})])
    state.close()


def test_a_file_that_was_removed_or_replaced_meanwhile(path: Path) -> None:
    state = SqliteState(path)
    state.commit([Change("vm/a", 0, {})])
    path.unlink()
    for act in (
        lambda: state.commit([Change("vm/b", 0, {})]),
        lambda: state.get("vm/a"),
        lambda: state.changes(0, 0),
    ):
        with pytest.raises(Unreachable, match="removed or replaced"):
            act()
    state.close()


def test_another_process_that_does_not_let_go(path: Path) -> None:
    state = SqliteState(path, busy_timeout_s=0.05)
    state.commit([Change("vm/a", 0, {})])
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    with pytest.raises(TimedOut, match="another process"):
        state.commit([Change("vm/b", 0, {})])
    # Readers do not care.
    assert list(state.read(["vm"])) == ["vm/a"]
    blocker.execute("ROLLBACK")
    state.commit([Change("vm/b", 0, {})])
    blocker.close()
    state.close()


# ---------------------------------------------------------------------------------------------
# The format


def test_a_file_of_format_0_is_migrated(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(
            "CREATE TABLE documents"
            " (key TEXT PRIMARY KEY NOT NULL, version INTEGER NOT NULL, body TEXT NOT NULL)"
        )
        connection.execute("INSERT INTO documents VALUES ('vm/old', 41, '{\"n\": 1}')")
    connection.close()
    state = SqliteState(path)
    assert state.get("vm/old") == Document("vm/old", 41, {"n": 1})
    assert state.commit([Change("vm/old", 41, {"n": 2}), Change("vm/new", 0, {})]) == 42
    assert state.acquire("leader", "a", 1, now=10) is not None
    # What was deleted before is not known.
    assert state.changes(3, 0) == (42, ("*", "vm/new", "vm/old"))
    assert state.changes(41, 0) == (42, ("vm/new", "vm/old"))
    state.close()
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
        assert connection.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
    connection.close()


def _rename_kind(connection: sqlite3.Connection) -> None:
    connection.execute(
        "UPDATE documents SET key = 'machine' || substr(key, 3) WHERE key LIKE 'vm/%'"
    )


def _fail(connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM documents")
    raise sqlite3.OperationalError("power went out")


def test_a_newer_vorch_migrates_and_this_one_then_refuses(path: Path) -> None:
    state = SqliteState(path)
    state.commit([Change("vm/a", 0, {"n": 1})])
    state.close()
    newer = SqliteState(path, migrations=(*MIGRATIONS, _rename_kind))
    assert list(newer.read(["vm", "machine"])) == ["machine/a"]
    newer.close()
    known = len(MIGRATIONS)
    refusal(BadConfig, path, f"format {known + 1}", f"formats up to {known}", "vorch (")()
    # Refused, and not touched.
    SqliteState(path, migrations=(*MIGRATIONS, _rename_kind)).close()


def test_a_file_is_refused_by_those_who_have_it_open_when_it_is_migrated(path: Path) -> None:
    SqliteState(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    refusal(BadConfig, path, "format 99")()


def test_a_migration_that_fails_leaves_the_file_as_it_was(path: Path) -> None:
    state = SqliteState(path)
    state.commit([Change("vm/a", 0, {"n": 1})])
    state.close()
    with pytest.raises(VorchError, match="power went out"):
        SqliteState(path, migrations=(*MIGRATIONS, _rename_kind, _fail))
    state = SqliteState(path)
    assert list(state.read(["vm", "machine"])) == ["vm/a"]
    state.close()


def test_an_empty_file_becomes_a_store(path: Path) -> None:
    path.touch(0o600)
    state = SqliteState(path)
    assert state.commit([Change("vm/a", 0, {})]) == 1
    state.close()


# ---------------------------------------------------------------------------------------------
# Deletions


def test_old_deletions_are_forgotten_and_watchers_told_so(path: Path) -> None:
    state = SqliteState(path, kept_deletions=10)
    revision = 0
    for number in range(50):
        state.commit([Change(f"vm/v{number}", 0, {})])
        revision = state.commit([Change(f"vm/v{number}", None, None)])
    (rows,) = state._reader.get().execute("SELECT count(*) FROM deletions").fetchone()
    assert 10 <= rows <= 11
    assert state.changes(revision - 4, 0) == (revision, ("vm/v48", "vm/v49"))
    assert state.changes(0, 0)[1][0] == "*"
    state.close()


# ---------------------------------------------------------------------------------------------
# Threads and forks


def test_threads_share_a_connection(path: Path) -> None:
    state = SqliteState(path)
    state.commit([Change("counter/one", 0, {"n": 0})])

    def count(_: int) -> None:
        while True:
            found = state.get("counter/one")
            assert found is not None
            try:
                state.commit([Change("counter/one", found.version, {"n": found.body["n"] + 1})])
                return
            except Conflict:
                continue

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(count, range(200)))
    found = state.get("counter/one")
    assert found is not None
    assert found.body == {"n": 200}
    state.close()


def test_a_waiting_thread_does_not_hold_up_the_others(path: Path) -> None:
    state = SqliteState(path)
    found = []
    watcher = threading.Thread(target=lambda: found.append(state.changes(0, 20)))
    watcher.start()
    assert state.read(["vm"]) == {}
    state.commit([Change("vm/a", 0, {})])
    watcher.join(10)
    assert found == [(1, ("vm/a",))]
    state.close()


def test_closing_ends_the_wait_of_another_thread(path: Path) -> None:
    state = SqliteState(path)
    began = threading.Event()
    ended = []

    def watch() -> None:
        began.set()
        with pytest.raises(Unreachable):
            state.changes(0, 20)
        ended.append(True)

    watcher = threading.Thread(target=watch)
    watcher.start()
    assert began.wait(10)
    state.close()
    watcher.join(10)
    assert ended == [True]


def test_waiting_costs_next_to_nothing(path: Path) -> None:
    state = SqliteState(path)
    began = time.process_time()
    state.changes(0, 0.5)
    assert time.process_time() - began < 0.1
    state.close()


def test_parent_and_child_go_on_after_a_fork(path: Path) -> None:
    state = SqliteState(path)
    state.commit([Change("vm/before", 0, {})])
    state.read(["vm"])

    def child() -> None:
        assert list(state.read(["vm"])) == ["vm/before"]
        for number in range(20):
            state.commit([Change(f"child/{number}", 0, {})])
        state.close()

    in_child(child)
    for number in range(20):
        state.commit([Change(f"parent/{number}", 0, {})])
    assert len(state.read(["child", "parent"])) == 40
    assert state._writer.get().execute("PRAGMA integrity_check").fetchone() == ("ok",)
    state.close()


def test_forks_while_threads_write(path: Path) -> None:
    state = SqliteState(path)
    over = threading.Event()
    written = []

    def write(name: str) -> None:
        number = 0
        while not over.is_set():
            state.commit([Change(f"{name}/{number}", 0, {})])
            number += 1
        written.append((name, number))

    writers = [threading.Thread(target=write, args=(name,)) for name in ("x", "y")]
    for writer in writers:
        writer.start()

    def child(number: int) -> None:
        for part in range(5):
            state.commit([Change(f"child/{number}-{part}", 0, {})])
            state.read(["child"])

    try:
        for number in range(6):
            in_child(functools.partial(child, number))
    finally:
        over.set()
    for writer in writers:
        writer.join(20)
    assert len(written) == 2
    assert len(state.read(["child"])) == 30
    for name, number in written:
        assert len(state.read([name])) == number > 0
    assert state._writer.get().execute("PRAGMA integrity_check").fetchone() == ("ok",)
    state.close()
