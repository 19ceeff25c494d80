"""Keep the state in one SQLite file: the embedded default, for one machine.

Many processes and threads may use the file at once. A commit is on the disk when it returns (WAL
with synchronous=FULL). Readers never wait for a writer. The file must be on a local file system:
WAL needs shared memory, which NFS and its like do not offer.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import stat
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from vorch.drivers import documents
from vorch.drivers.os_errors import translate
from vorch.errors import (
    BadConfig,
    Denied,
    Invalid,
    NoRoom,
    TimedOut,
    Unreachable,
    VorchError,
)
from vorch.ports import Change, Document, Lease

# "vrch": marks the file as vorch's, for this driver and for file(1).
APPLICATION_ID = 0x76726368

# How long a write waits for another process's; commits take milliseconds.
BUSY_TIMEOUT_S = 10.0

# How often a waiting reader looks for another process's commits. One look costs microseconds.
POLL_S = 0.03

# One page at least.
SMALLEST_BYTES = 512

# How many deletions are remembered for watchers. One that slept through more reads all again.
KEPT_DELETIONS = 10_000


# ---------------------------------------------------------------------------------------------
# The file's format. Its number stands in the file (user_version).


def _from_0_to_1(connection: sqlite3.Connection) -> None:
    """Format 0 is an empty file, or nothing but a table of documents."""
    for statement in (
        "CREATE TABLE IF NOT EXISTS documents"
        " (key TEXT PRIMARY KEY NOT NULL, version INTEGER NOT NULL, body TEXT NOT NULL)",
        "CREATE INDEX IF NOT EXISTS documents_by_version ON documents (version)",
        # Tombstones: what is gone, and since when.
        "CREATE TABLE IF NOT EXISTS deletions (key TEXT PRIMARY KEY NOT NULL,"
        " version INTEGER NOT NULL)",
        "CREATE INDEX IF NOT EXISTS deletions_by_version ON deletions (version)",
        # Rows of leases are never deleted: the epoch of a name must not go back.
        "CREATE TABLE IF NOT EXISTS leases (name TEXT PRIMARY KEY NOT NULL, holder TEXT NOT NULL,"
        " epoch INTEGER NOT NULL, expires_at REAL NOT NULL)",
        # Deletions up to revision `forgotten` are no longer known.
        "CREATE TABLE IF NOT EXISTS head (one INTEGER PRIMARY KEY CHECK (one = 1),"
        " revision INTEGER NOT NULL, forgotten INTEGER NOT NULL)",
        "INSERT OR IGNORE INTO head SELECT 1, latest, latest FROM"
        " (SELECT coalesce(max(version), 0) AS latest FROM documents)",
    ):
        connection.execute(statement)


Migration = Callable[[sqlite3.Connection], None]

# The one at place N brings a file from format N to N + 1. A new file goes through all of them.
MIGRATIONS: tuple[Migration, ...] = (_from_0_to_1,)


# ---------------------------------------------------------------------------------------------
# SQLite's errors in vorch's words, by primary result code.

_TRANSLATIONS: dict[int, tuple[type[VorchError], str]] = {
    sqlite3.SQLITE_BUSY: (
        TimedOut,
        "another process has been writing to it for too long; find it with `fuser` and try again",
    ),
    sqlite3.SQLITE_LOCKED: (TimedOut, "it is locked; try again"),
    sqlite3.SQLITE_PERM: (Denied, "permission is denied; run as the user whose file it is"),
    sqlite3.SQLITE_AUTH: (Denied, "permission is denied; run as the user whose file it is"),
    sqlite3.SQLITE_READONLY: (
        Denied,
        "it, its folder or its file system is read-only for this user; run as the user whose file"
        " it is, or give another path",
    ),
    sqlite3.SQLITE_CANTOPEN: (
        Denied,
        "it or the files beside it (-wal, -shm) cannot be opened or made; check who owns them and"
        " that its folder can be written to",
    ),
    sqlite3.SQLITE_IOERR: (
        Unreachable,
        "reading or writing failed; check the disk with `dmesg`, and that the file is on a local"
        " file system",
    ),
    sqlite3.SQLITE_PROTOCOL: (
        Unreachable,
        "locking does not work; put the file on a local file system",
    ),
    sqlite3.SQLITE_NOLFS: (Unreachable, "it is too large for its file system; move it"),
    sqlite3.SQLITE_FULL: (NoRoom, "its file system is full; make room and try again"),
    sqlite3.SQLITE_NOMEM: (NoRoom, "there is no memory left; make room and try again"),
    sqlite3.SQLITE_TOOBIG: (Invalid, "a document is too large; make it smaller"),
    sqlite3.SQLITE_CORRUPT: (
        BadConfig,
        "it is damaged; keep it for a look at it, and put a backup in its place",
    ),
    sqlite3.SQLITE_NOTADB: (
        BadConfig,
        "it is not an SQLite file, or damaged; give another path, or put a backup in its place",
    ),
    sqlite3.SQLITE_ERROR: (
        BadConfig,
        "its tables are not those of vorch; give another path, or put a backup in its place",
    ),
}


def _translated(what: str, path: Path, exc: sqlite3.Error | OSError) -> VorchError:
    what = f"{what} state file '{path}'"
    if isinstance(exc, OSError):
        return translate(what, exc)
    code: int = getattr(exc, "sqlite_errorcode", 0)
    kind, rest = _TRANSLATIONS.get(
        code & 0xFF, (Unreachable, "SQLite failed in an unexpected way; try again")
    )
    return kind(
        f"cannot {what}: {rest} (SQLite: {exc})",
        path=str(path),
        sqlite=getattr(exc, "sqlite_errorname", type(exc).__name__),
    )


# ---------------------------------------------------------------------------------------------
# Forks. SQLite's locks belong to a process, but its books about them are memory, which a fork
# copies: a child that went on with them would write without a lock. So nothing is open while the
# process forks; parent and child both open the file again when they next need it.

_states: weakref.WeakSet[SqliteState] = weakref.WeakSet()
_making = threading.Lock()
_forking = threading.Lock()
_held: list[SqliteState] = []


def _before_fork() -> None:
    _forking.acquire()
    for state in list(_states):
        state._hold()
        _held.append(state)


def _after_fork() -> None:
    while _held:
        _held.pop()._go_on()
    _forking.release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)


class _Link:
    """One connection, used by one thread at a time, opened when it is needed."""

    def __init__(self, open_it: Callable[[], sqlite3.Connection]) -> None:
        self.lock = threading.RLock()
        self._open_it = open_it
        self._connection: sqlite3.Connection | None = None
        # How many connections this has been.
        self.count = 0

    def get(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = self._open_it()
            self.count += 1
        return self._connection

    def drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            # Nothing is lost when this fails: what was committed is on the disk already.
            with contextlib.suppress(sqlite3.Error):
                connection.close()


class SqliteState:
    """The State port on the file at `path`, which is made if it is not there."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        busy_timeout_s: float = BUSY_TIMEOUT_S,
        poll_s: float = POLL_S,
        kept_deletions: int = KEPT_DELETIONS,
        migrations: Sequence[Migration] = MIGRATIONS,
    ) -> None:
        self.path = Path(path).absolute()
        self._busy_timeout_s = busy_timeout_s
        self._poll_s = poll_s
        self._kept_deletions = kept_deletions
        self._migrations = tuple(migrations)
        self._closed = False
        # Which file it was when it was opened, to notice when another one takes its place.
        self._identity: tuple[int, int] | None = None
        self._writer = _Link(self._open)
        self._reader = _Link(self._open)
        self._committed = threading.Condition()
        # Closing any handle of a file gives up all locks that this process has on it, so no other
        # thread may have got as far as SQLite while the new file's first handle is open.
        with _making:
            self._make_file()
        with self._using(self._writer, "open") as connection:
            self._bring_up_to_date(connection)
        _states.add(self)

    # -- opening

    def _make_file(self) -> None:
        """Make what is missing of the path. The file is its owner's alone: it holds secrets.

        Folders can be passed through but not listed, because QEMU, as another user, must reach the
        disks that lie in folders beside the file.
        """
        if "\0" in str(self.path):
            raise BadConfig("cannot open a state file: there is a NUL in its path; take it out")
        try:
            missing = []
            folder = self.path.parent
            while not folder.is_dir():
                missing.append(folder)
                folder = folder.parent
            for folder in reversed(missing):
                with contextlib.suppress(FileExistsError):
                    folder.mkdir(0o700)
                    # Not left to mkdir, whose mode the umask cuts down.
                    folder.chmod(0o711)
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            with contextlib.suppress(FileExistsError):
                os.close(os.open(self.path, flags, 0o600))
            found = self.path.stat()
            if not stat.S_ISREG(found.st_mode):
                raise BadConfig(
                    f"cannot open state file '{self.path}': it is a folder, device or pipe, not a"
                    " regular file; give another path",
                    path=str(self.path),
                )
            if 0 < found.st_size < SMALLEST_BYTES:
                # SQLite would take it for an empty one, and write over it.
                kind, rest = _TRANSLATIONS[sqlite3.SQLITE_NOTADB]
                raise kind(f"cannot open state file '{self.path}': {rest}", path=str(self.path))
            if not os.access(self.path, os.R_OK | os.W_OK, effective_ids=True):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            self._identity = (found.st_dev, found.st_ino)
        except OSError as exc:
            raise _translated("open", self.path, exc) from exc

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path,
            timeout=self._busy_timeout_s,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            # First of all, so that nothing in a file that is not ours is changed.
            self._format(connection)
            self._use_wal(connection)
            connection.execute("PRAGMA synchronous = FULL")
        except BaseException:
            connection.close()
            raise
        return connection

    def _use_wal(self, connection: sqlite3.Connection) -> None:
        # Several processes may be making the same new file. SQLite does not wait by itself here.
        give_up = time.monotonic() + self._busy_timeout_s
        mode = ""
        while not mode:
            try:
                (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
            except sqlite3.OperationalError as exc:
                busy = exc.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
                if not busy or time.monotonic() > give_up:
                    raise
                time.sleep(0.005)
        if mode != "wal":
            raise BadConfig(
                f"cannot open state file '{self.path}': its file system cannot do what a journal in"
                " WAL mode needs; put it on a local disk",
                path=str(self.path),
            )

    def _bring_up_to_date(self, connection: sqlite3.Connection) -> None:
        if self._format(connection) == len(self._migrations):
            return
        with _writing(connection):
            # Again, under the lock: another process may have been at it meanwhile.
            for number in range(self._format(connection), len(self._migrations)):
                self._migrations[number](connection)
                connection.execute(f"PRAGMA user_version = {number + 1:d}")
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID:d}")

    def _format(self, connection: sqlite3.Connection) -> int:
        """The number of the file's format. Refuses a file that this vorch cannot use."""
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (number,) = connection.execute("PRAGMA user_version").fetchone()
        if application != APPLICATION_ID:
            tables = {
                name
                for (name,) in connection.execute(
                    "SELECT name FROM sqlite_schema WHERE type = 'table'"
                )
            }
            if application != 0 or number != 0 or tables - {"documents"}:
                raise BadConfig(
                    f"cannot open state file '{self.path}': it is the SQLite file of another"
                    " program; give another path",
                    path=str(self.path),
                )
        if not 0 <= number <= len(self._migrations):
            raise BadConfig(
                f"cannot open state file '{self.path}': it has format {number}, and this vorch"
                f" ({_version()}) knows formats up to {len(self._migrations)}; use the vorch that"
                " wrote it, or a newer one",
                path=str(self.path),
                format=number,
                known=len(self._migrations),
                vorch=_version(),
            )
        return int(number)

    # -- using

    @contextlib.contextmanager
    def _using(self, link: _Link, what: str) -> Iterator[sqlite3.Connection]:
        with link.lock:
            try:
                if self._closed:
                    raise Unreachable(
                        f"cannot {what} state file '{self.path}': it was closed; connect again",
                        path=str(self.path),
                    )
                self._check_same_file(what)
                yield link.get()
            except (sqlite3.Error, OSError) as exc:
                raise _translated(what, self.path, exc) from exc

    def _check_same_file(self, what: str) -> None:
        # SQLite goes on writing to a file that was deleted, and all that would be lost.
        try:
            found = self.path.stat()
            same = (found.st_dev, found.st_ino) == self._identity
        except FileNotFoundError:
            same = False
        if not same:
            raise Unreachable(
                f"cannot {what} state file '{self.path}': it was removed or replaced since it was"
                " opened; put it back, or start again",
                path=str(self.path),
            )

    def _hold(self) -> None:
        """Before a fork: wait for what runs, let nothing begin, and have nothing open."""
        self._committed.acquire()
        for link in (self._writer, self._reader):
            link.lock.acquire()
            link.drop()

    def _go_on(self) -> None:
        for link in (self._reader, self._writer):
            link.lock.release()
        self._committed.release()

    def close(self) -> None:
        self._closed = True
        for link in (self._writer, self._reader):
            with link.lock:
                link.drop()
        with self._committed:
            self._committed.notify_all()

    # -- documents

    def get(self, key: str) -> Document | None:
        documents.check_key(key)
        with self._using(self._reader, "read") as connection:
            row = connection.execute(
                "SELECT version, body FROM documents WHERE key = ?", (key,)
            ).fetchone()
        return None if row is None else Document(key, row[0], documents.from_text(key, row[1]))

    def read(self, kinds: Sequence[str]) -> dict[str, Document]:
        if not kinds:
            return {}
        # '0' is the character after '/': all keys that begin with "kind/". One statement, so that
        # all are from one moment.
        where = " OR ".join("key >= ? AND key < ?" for _ in kinds)
        bounds = [documents.check_kind(kind) + mark for kind in kinds for mark in ("/", "0")]
        with self._using(self._reader, "read") as connection:
            rows = connection.execute(
                f"SELECT key, version, body FROM documents WHERE {where} ORDER BY key",  # noqa: S608
                bounds,
            ).fetchall()
        return {
            key: Document(key, version, documents.from_text(key, text))
            for key, version, text in rows
        }

    def commit(self, changes: Sequence[Change], *, lease: Lease | None = None) -> int:
        texts = documents.check_changes(changes)
        with self._using(self._writer, "write to") as connection, _writing(connection):
            if lease is not None:
                documents.check_lease(lease, _lease(connection, lease.name))
            versions = {}
            for change in changes:
                row = connection.execute(
                    "SELECT version FROM documents WHERE key = ?", (change.key,)
                ).fetchone()
                versions[change.key] = 0 if row is None else int(row[0])
                documents.check_version(change, versions[change.key])
            before, forgotten = connection.execute(
                "SELECT revision, forgotten FROM head"
            ).fetchone()
            revision = int(before) + 1
            written = [(key, revision, text) for key, text in texts.items() if text is not None]
            gone = [
                (key, revision)
                for key, text in texts.items()
                if text is None and versions[key] != 0
            ]
            if not written and not gone:
                return int(before)
            connection.executemany(
                "INSERT INTO documents VALUES (?, ?, ?) ON CONFLICT (key)"
                " DO UPDATE SET version = excluded.version, body = excluded.body",
                written,
            )
            connection.executemany(
                "DELETE FROM deletions WHERE key = ?",
                [(key,) for key, _, _ in written if versions[key] == 0],
            )
            connection.executemany("DELETE FROM documents WHERE key = ?", [row[:1] for row in gone])
            connection.executemany("REPLACE INTO deletions VALUES (?, ?)", gone)
            if gone:
                forgotten = self._forget(connection, revision, forgotten)
            connection.execute("UPDATE head SET revision = ?, forgotten = ?", (revision, forgotten))
        with self._committed:
            self._committed.notify_all()
        return revision

    def _forget(self, connection: sqlite3.Connection, revision: int, forgotten: int) -> int:
        """Now and then drop the oldest tombstones; up to which revision they are dropped."""
        if revision % max(1, self._kept_deletions // 10):
            return forgotten
        row = connection.execute(
            "SELECT version FROM deletions ORDER BY version DESC LIMIT 1 OFFSET ?",
            (self._kept_deletions,),
        ).fetchone()
        if row is None:
            return forgotten
        connection.execute("DELETE FROM deletions WHERE version <= ?", row)
        return int(row[0])

    # -- leases

    def acquire(
        self, name: str, holder: str, ttl_s: float, *, now: float, over: Lease | None = None
    ) -> Lease | None:
        with self._using(self._writer, "write to") as connection, _writing(connection):
            last = _lease(connection, name)
            lease = documents.acquired(last, name, holder, ttl_s, now, over)
            _write_lease(connection, lease)
        return lease

    def renew(self, lease: Lease, ttl_s: float, *, now: float) -> Lease | None:
        with self._using(self._writer, "write to") as connection, _writing(connection):
            later = documents.renewed(_lease(connection, lease.name), lease, ttl_s, now)
            _write_lease(connection, later)
        return later

    def release(self, lease: Lease) -> None:
        with self._using(self._writer, "write to") as connection, _writing(connection):
            last = _lease(connection, lease.name)
            _write_lease(connection, documents.released(last, lease))

    def lease(self, name: str) -> Lease | None:
        with self._using(self._reader, "read") as connection:
            return _lease(connection, name)

    # -- changes

    def changes(self, since: int, timeout_s: float) -> tuple[int, tuple[str, ...]]:
        give_up = time.monotonic() + timeout_s
        revision, seen = 0, (0, -1)
        while True:
            with self._committed:
                # `data_version` is a number in shared memory that other connections' commits
                # change: much cheaper than a query.
                with self._using(self._reader, "read") as connection:
                    (mark,) = connection.execute("PRAGMA data_version").fetchone()
                    now = (self._reader.count, mark)
                    if now != seen:
                        seen = now
                        revision, keys = _changes(connection, since)
                        if keys:
                            return revision, keys
                left = give_up - time.monotonic()
                if left <= 0:
                    return revision, ()
                # Commits of this process end the wait at once, those of others at the next look.
                self._committed.wait(min(self._poll_s, left))


@contextlib.contextmanager
def _writing(connection: sqlite3.Connection) -> Iterator[None]:
    """One transaction that has the write lock from its beginning: it never has to start again."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # Some errors have rolled back already.
        if connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
        raise


def _lease(connection: sqlite3.Connection, name: str) -> Lease | None:
    row = connection.execute(
        "SELECT name, holder, epoch, expires_at FROM leases WHERE name = ?", (name,)
    ).fetchone()
    return None if row is None else Lease(*row)


def _write_lease(connection: sqlite3.Connection, lease: Lease | None) -> None:
    if lease is not None:
        connection.execute(
            "REPLACE INTO leases VALUES (?, ?, ?, ?)",
            (lease.name, lease.holder, lease.epoch, lease.expires_at),
        )


def _changes(connection: sqlite3.Connection, since: int) -> tuple[int, tuple[str, ...]]:
    connection.execute("BEGIN")
    try:
        revision, forgotten = connection.execute("SELECT revision, forgotten FROM head").fetchone()
        rows: list[Any] = []
        if since < revision:
            rows = connection.execute(
                "SELECT key FROM documents WHERE version > ?"
                " UNION ALL SELECT key FROM deletions WHERE version > ?",
                (since, since),
            ).fetchall()
    finally:
        connection.execute("COMMIT")
    keys = sorted(key for (key,) in rows)
    # After a revision that this store has not reached, or long ago: its past is not known here.
    if since > revision or since < forgotten:
        keys.insert(0, documents.EVERYTHING)
    return int(revision), tuple(keys)


def _version() -> str:
    # Imported here because it takes longer than opening the file, and is rarely needed.
    from importlib import metadata

    try:
        return metadata.version("vorch")
    except metadata.PackageNotFoundError:
        return "not installed"
