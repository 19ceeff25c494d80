"""What hosts and VMs did of late, in one SQLite file of bounded size: the last hour, and the day.

A row holds what a sixty-fourth of all hosts and VMs did at one time. So to write a round takes few
rows, however many VMs there are, and to read one VM takes as many as there were rounds. It is for
plots: a crash may cost the last rounds, and an unsound file is begun anew.
"""

from __future__ import annotations

import contextlib
import sqlite3
import struct
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import astuple
from pathlib import Path

from vorch.errors import Unreachable, Unsupported
from vorch.model import History, HistoryPoint, Rates

FINE_STEP_S, FINE_KEPT_S = 15, 3600
COARSE_STEP_S, COARSE_KEPT_S = 300, 86400
# What is older than this is not said to be so now.
LATEST_S = 60
BUCKETS = 64
FORMAT = 1
# The number of who it is about, and what it did.
_RECORD = struct.Struct("<I6f")
BUSY_TIMEOUT_S = 5.0

_TABLES = """
CREATE TABLE IF NOT EXISTS series (
    number INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, name TEXT NOT NULL,
    seen INTEGER NOT NULL, UNIQUE (kind, name));
CREATE TABLE IF NOT EXISTS fine (
    bucket INTEGER NOT NULL, slot INTEGER NOT NULL, records BLOB NOT NULL,
    PRIMARY KEY (bucket, slot)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS coarse (
    bucket INTEGER NOT NULL, slot INTEGER NOT NULL, records BLOB NOT NULL,
    PRIMARY KEY (bucket, slot)) WITHOUT ROWID;
"""


class FileHistory:
    """The `Past` port. `path` None: of this process alone, in memory."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._numbers: dict[tuple[str, str], int] = {}

    def write(self, at: float, vms: Mapping[str, Rates], nodes: Mapping[str, Rates]) -> None:
        slot = int(at // FINE_STEP_S)
        rates = {("vm", name): one for name, one in vms.items()}
        rates |= {("node", name): one for name, one in nodes.items()}
        with self._opened(make=True) as connection, connection:
            last = connection.execute("SELECT max(slot) FROM fine").fetchone()[0]
            self._number(connection, rates, slot)
            buckets: dict[int, bytearray] = {}
            for key, one in rates.items():
                number = self._numbers[key]
                records = buckets.setdefault(number % BUCKETS, bytearray())
                records += _RECORD.pack(number, *astuple(one))
            connection.executemany(
                "INSERT OR REPLACE INTO fine VALUES (?, ?, ?)",
                [(bucket, slot, bytes(records)) for bucket, records in buckets.items()],
            )
            per_coarse = COARSE_STEP_S // FINE_STEP_S
            if last is not None and last // per_coarse != slot // per_coarse:
                self._sum_up(connection, last // per_coarse, slot)

    def _number(
        self, connection: sqlite3.Connection, rates: Mapping[tuple[str, str], Rates], slot: int
    ) -> None:
        new = [key for key in rates if key not in self._numbers]
        if not new:
            return
        connection.executemany(
            "INSERT OR IGNORE INTO series (kind, name, seen) VALUES (?, ?, ?)",
            [(kind, name, slot) for kind, name in new],
        )
        found = connection.execute("SELECT kind, name, number FROM series")
        self._numbers = {(kind, name): number for kind, name, number in found}

    def _sum_up(self, connection: sqlite3.Connection, coarse: int, slot: int) -> None:
        """The means of a stretch that is over; then what is too old goes."""
        per_coarse = COARSE_STEP_S // FINE_STEP_S
        for bucket in range(BUCKETS):
            sums: dict[int, list[float]] = {}
            counts: dict[int, int] = {}
            rows = connection.execute(
                "SELECT records FROM fine WHERE bucket = ? AND slot >= ? AND slot < ?",
                (bucket, coarse * per_coarse, (coarse + 1) * per_coarse),
            )
            for (records,) in rows:
                for number, *values in _RECORD.iter_unpack(records):
                    before = sums.get(number)
                    if before is not None:
                        values = [a + b for a, b in zip(before, values, strict=True)]
                    sums[number] = values
                    counts[number] = counts.get(number, 0) + 1
            if sums:
                means = b"".join(
                    _RECORD.pack(number, *(value / counts[number] for value in values))
                    for number, values in sums.items()
                )
                connection.execute(
                    "INSERT OR REPLACE INTO coarse VALUES (?, ?, ?)", (bucket, coarse, means)
                )
                connection.executemany(
                    "UPDATE series SET seen = ? WHERE number = ?",
                    [(slot, number) for number in sums],
                )
        oldest = slot - COARSE_KEPT_S // FINE_STEP_S
        for bucket in range(BUCKETS):
            connection.execute(
                "DELETE FROM fine WHERE bucket = ? AND slot < ?",
                (bucket, slot - FINE_KEPT_S // FINE_STEP_S),
            )
            connection.execute(
                "DELETE FROM coarse WHERE bucket = ? AND slot < ?", (bucket, oldest // per_coarse)
            )
        if connection.execute("DELETE FROM series WHERE seen < ?", (oldest,)).rowcount:
            self._numbers = {}

    def read(self, kind: str, name: str, *, now: float, for_s: float) -> History:
        fine = for_s <= FINE_KEPT_S
        table, step_s = ("fine", FINE_STEP_S) if fine else ("coarse", COARSE_STEP_S)
        points = []
        with self._opened(make=False) as connection:
            found = connection.execute(
                "SELECT number FROM series WHERE kind = ? AND name = ?", (kind, name)
            ).fetchone()
            if found is not None:
                rows = connection.execute(
                    f"SELECT slot, records FROM {table} WHERE bucket = ? AND slot >= ?"  # noqa: S608 - one of two names
                    " AND slot <= ? ORDER BY slot",
                    (found[0] % BUCKETS, int((now - for_s) // step_s) + 1, int(now // step_s)),
                ).fetchall()
                for slot, records in rows:
                    for number, *values in _RECORD.iter_unpack(records):
                        if number == found[0]:
                            points.append(_point(slot * step_s, values))
        return History(step_s=step_s, points=tuple(points))

    def latest(self, kind: str, *, now: float) -> dict[str, HistoryPoint]:
        found: dict[str, HistoryPoint] = {}
        with self._opened(make=False) as connection:
            rows = connection.execute("SELECT number, name FROM series WHERE kind = ?", (kind,))
            names = dict(rows.fetchall())
            rows = connection.execute(
                "SELECT slot, records FROM fine WHERE slot > ? AND slot <= ? ORDER BY slot",
                (int((now - LATEST_S) // FINE_STEP_S), int(now // FINE_STEP_S)),
            )
            for slot, records in rows:
                for number, *values in _RECORD.iter_unpack(records):
                    if number in names:
                        found[names[number]] = _point(slot * FINE_STEP_S, values)
        return found

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
            self._connection = None

    # -- the file

    @contextmanager
    def _opened(self, *, make: bool) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                if self._path is not None and not self._path.exists():
                    # Somebody has removed it, and what is written to it now nobody would see.
                    self._begin_anew()
                if self._connection is None:
                    self._connection = self._open(make)
                yield self._connection
            except sqlite3.DatabaseError as exc:
                if not isinstance(exc, sqlite3.OperationalError):
                    self._begin_anew()
                raise Unreachable(
                    f"cannot use the history in {str(self._path)!r}: {exc}; remove the file if that"
                    " stays so"
                ) from exc

    def _open(self, make: bool) -> sqlite3.Connection:
        if self._path is None:
            return _prepared(sqlite3.connect(":memory:", check_same_thread=False))
        if not self._path.exists():
            if not make:
                raise Unsupported(
                    "cannot show what was before: no service measures on this machine (or it has"
                    " only begun); start `vorch serve`, or ask where it runs"
                )
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._path.touch(mode=0o600)
        connection = sqlite3.connect(self._path, timeout=BUSY_TIMEOUT_S, check_same_thread=False)
        try:
            return _prepared(connection)
        except BaseException:
            connection.close()
            raise

    def _begin_anew(self) -> None:
        """It is no history, or one of another format: nothing of worth is lost."""
        if self._connection is not None:
            self._connection.close()
        self._connection, self._numbers = None, {}
        if self._path is not None:
            for ending in ("", "-wal", "-shm"):
                with contextlib.suppress(OSError):
                    self._path.with_name(self._path.name + ending).unlink(missing_ok=True)


def _prepared(connection: sqlite3.Connection) -> sqlite3.Connection:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = OFF")
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    if found not in (0, FORMAT):
        raise sqlite3.DatabaseError(f"it is of format {found}, and this vorch writes {FORMAT}")
    connection.executescript(_TABLES)
    connection.execute(f"PRAGMA user_version = {FORMAT}")
    return connection


def _point(at: float, values: list[float]) -> HistoryPoint:
    return HistoryPoint(at=float(at), rates=Rates(*values))
