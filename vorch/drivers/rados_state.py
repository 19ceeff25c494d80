"""Keep the state in Ceph: all documents in the omap of one RADOS object.

Many processes on many hosts may use it at once. A commit is on the disks of several OSDs when it
returns. What is guaranteed:

- Reads and commits are linearizable: RADOS carries out all that is asked of one object one after
  the other, and each commit is a single operation that holds only if the head is still as it was
  when the commit was checked. docs/adr/0006-state-in-rados.md says why it is one object.
- A commit was refused, or done, or `Unreachable` is raised. The last has the field `outcome`:
  "not done", or "unknown" when Ceph was still silent after twice the timeout. Also then nothing
  happens behind anybody's back: before this State answers anything else, it makes sure that the
  commit has either happened already or never will.
- Leases: the epoch of a name never goes back, and a commit under a lease is refused, in the same
  operation, once a newer epoch exists. That needs no clocks, and no clock decides who may have a
  lease: it is taken over by whoever has seen it unrenewed for its time, if it still is as it was
  seen. Whoever acts on the world outside under a lease asks right before whether it is still the
  last one.

A process that is killed leaves nothing but a watch, which Ceph drops half a minute later.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import json
import os
import random
import secrets
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from vorch.drivers import documents
from vorch.drivers.rados_connection import (
    DEFAULT_CONF,
    DEFAULT_USER,
    TIMEOUT_S,
    abandon,
    kept_cluster,
    translate,
)
from vorch.errors import (
    BadConfig,
    Invalid,
    NoRoom,
    NotFound,
    TimedOut,
    Unreachable,
    VorchError,
)
from vorch.ports import Change, Document, Lease

DEFAULT_NAMESPACE = "vorch"

# The one object. What its omap holds:
#   head          what `_Head` says; each commit replaces it
#   d/KIND/NAME   a document: its version, a space, its JSON text
#   c/REVISION    what that commit changed, and the commit's id
#   l/NAME        the last lease of that name
#   e/NAME        its epoch alone, for a commit to compare with
OBJECT = "vorch.state"
HEAD = "head"
PROGRAM = "vorch state"

# How many commits are remembered for watchers. One that slept through more reads all again. An OSD
# gives out at most 1024 entries at once (osd_max_omap_entries_per_request).
KEPT_COMMITS = 1000

# Up to here a kind is read as one range; a larger one in steps that leave room for new documents.
RANGE_LIMIT = 1000
RANGE_STEPS = (800, 400, 200, 100, 50)

# An OSD takes at most 90 MiB in one write (osd_max_write_size).
COMMIT_LIMIT_BYTES = 64 * 1024**2

# Ceph warns of an omap with 200,000 entries or 1 GiB in it, because such an object takes long to
# recover.
DOCUMENTS_LIMIT = 150_000
BYTES_LIMIT = 512 * 1024**2

# How often a waiting reader looks even though nobody told it of a commit; and when it cannot be
# told. One look costs a fraction of a millisecond.
POLL_WATCHING_S = 2.0
POLL_BLIND_S = 0.25
# How long after a failed try to watch the next one comes.
WATCH_AGAIN_S = 5.0

# A dead watcher keeps a notification open until its time is over, so there may be some of them.
NOTIFIES_LIMIT = 8
NOTIFY_TIMEOUT_MS = 5000
# How long closing waits for them; after that the connection is left to the end of the process.
NOTIFIED_AT_CLOSE_S = 1.0
# How long the end of a process waits for what its threads have asked of a silent Ceph.
AT_EXIT_S = 2.0

# Two writers that met go on after a random time up to this.
LONGEST_PAUSE_S = 0.05

# With these an operation was certainly not done. All others leave it open.
_REFUSALS = {
    errno.ECANCELED,
    errno.ENOENT,
    errno.EEXIST,
    errno.EACCES,
    errno.EPERM,
    errno.EINVAL,
    errno.EMSGSIZE,
    errno.E2BIG,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EOPNOTSUPP,
}


@dataclass(frozen=True, slots=True)
class _Head:
    """What stands under "head": small, and never the same twice, because of its id."""

    text: str
    format: int
    revision: int = 0
    # Commits up to this revision are no longer remembered.
    forgotten: int = 0
    # How many documents there are of each kind, by which a reader knows that it has them all.
    kinds: dict[str, int] | None = None
    # What all documents take up.
    bytes: int = 0

    @staticmethod
    def made(
        id: str, format: int, revision: int, forgotten: int, kinds: dict[str, int], bytes: int
    ) -> _Head:
        text = json.dumps(
            {
                "program": PROGRAM,
                "format": format,
                "id": id,
                "revision": revision,
                "forgotten": forgotten,
                "kinds": kinds,
                "bytes": bytes,
            }
        )
        return _Head(text, format, revision, forgotten, kinds, bytes)

    def again(self) -> _Head:
        """The same with another id: what was meant to follow on the old one no longer can."""
        kinds = dict(self.kinds or {})
        return _Head.made(_new_id(), self.format, self.revision, self.forgotten, kinds, self.bytes)


@dataclass(frozen=True, slots=True)
class _Attempt:
    """A commit that was sent: as this id, to follow on this head."""

    id: str
    on: _Head


# ---------------------------------------------------------------------------------------------
# The format. Its number stands in the head.

# Gets the omap as it is and says what to set (None: to remove). The one at place N brings a store
# from format N to N + 1; a new one goes through all of them. Format 0 is no object at all.
Migration = Callable[[dict[str, bytes]], dict[str, bytes | None]]


def _from_0_to_1(entries: dict[str, bytes]) -> dict[str, bytes | None]:
    return {HEAD: _Head.made(_new_id(), 1, 0, 0, {}, 0).text.encode()}


MIGRATIONS: tuple[Migration, ...] = (_from_0_to_1,)


_states: weakref.WeakSet[RadosState] = weakref.WeakSet()


@atexit.register
def _end_all() -> None:
    # A callback of librados that comes when Python is gone would bring the process down.
    for state in list(_states):
        state._close(AT_EXIT_S)


def _after_fork_in_child() -> None:
    for state in list(_states):
        state._forked()


os.register_at_fork(after_in_child=_after_fork_in_child)


class RadosState:
    """The State port on namespace `namespace` of pool `pool`."""

    def __init__(
        self,
        pool: str,
        namespace: str = DEFAULT_NAMESPACE,
        *,
        conf: str = DEFAULT_CONF,
        user: str = DEFAULT_USER,
        timeout_s: float = TIMEOUT_S,
        kept_commits: int = KEPT_COMMITS,
        poll_watching_s: float = POLL_WATCHING_S,
        migrations: Sequence[Migration] = MIGRATIONS,
    ) -> None:
        self.pool = pool
        self.namespace = namespace
        self._timeout_s = timeout_s
        self._kept_commits = min(kept_commits, KEPT_COMMITS)
        self._poll_watching_s = poll_watching_s
        self._migrations = tuple(migrations)
        self._closed = False
        # One commit of this process at a time, so that its threads need not get in each other's
        # way; what may still be under way of an earlier one.
        self._turn = threading.Lock()
        self._unsettled: _Attempt | None = None
        # Ceph did not answer the last time.
        self._silent = False
        # Behind which documents the ranges of a large kind begin.
        self._starts: dict[str, tuple[str, ...]] = {}
        # Ended waits: how often there was news, who is inside, and what tells of other processes.
        self._news = threading.Condition()
        self._heard = 0
        self._inside = 0
        self._watching = threading.Lock()
        self._watch: Any = None
        self._watch_generation = 0
        self._watch_lost = False
        self._watch_again_at = 0.0
        self._notifies = 0
        self._notify_again = False
        self._cluster = kept_cluster(conf, user, timeout_s)
        try:
            with self._using():
                self._bring_up_to_date()
        except BaseException:
            self._closed = True
            self._cluster.release()
            raise
        _states.add(self)

    def __str__(self) -> str:
        return f"state 'rados://{self.pool}/{self.namespace}'"

    # -- opening

    def _bring_up_to_date(self) -> None:
        looked_anew = False
        while True:
            entries = self._entries()
            found = self._parsed(entries).format if entries else 0
            if found == len(self._migrations):
                return
            changes = self._migrations[found](entries)
            import rados

            with rados.WriteOpCtx() as operation:
                if found == 0:
                    operation.new(rados.LIBRADOS_CREATE_EXCLUSIVE)
                else:
                    operation.omap_cmp(HEAD, entries[HEAD].decode())
                # Another process may have been at it meanwhile: then look again.
                try:
                    self._send("make", operation, changes, expected=(errno.EEXIST, errno.ECANCELED))
                except NotFound:
                    if looked_anew:
                        raise
                    # The pool was removed and made anew, and this process, idle since, still went
                    # by the number of the old one.
                    looked_anew = True
                    self._cluster.forget(self.pool)

    def _entries(self) -> dict[str, bytes]:
        """The head alone when it is of a format that needs no migration, else the whole omap."""
        try:
            found = self._ask("open", (HEAD,))
        except _Missing:
            return {}
        if self._parsed(found).format == len(self._migrations):
            return found
        last = ""
        while True:
            page = self._ask("open", (), (("", last, RANGE_LIMIT),))
            if not page:
                return found
            found.update(page)
            last = max(page, key=str.encode)

    def _parsed(self, entries: dict[str, bytes]) -> _Head:
        """The head, refused when this vorch cannot use the store."""
        try:
            text = entries[HEAD].decode()
            body = json.loads(text)
            if body["program"] != PROGRAM or body["format"] < 1:
                raise ValueError
            number = int(body["format"])
        except (KeyError, TypeError, ValueError) as exc:
            raise BadConfig(
                f"cannot open {self}: its object {OBJECT!r} is damaged or not of vorch; give"
                " another namespace, or restore it",
                pool=self.pool,
                namespace=self.namespace,
            ) from exc
        if number > len(self._migrations):
            raise BadConfig(
                f"cannot open {self}: it has format {number}, and this vorch knows formats up to"
                f" {len(self._migrations)}; use the vorch that wrote it, or a newer one",
                format=number,
                known=len(self._migrations),
            )
        return _Head(
            text, number, body["revision"], body["forgotten"], body["kinds"], body["bytes"]
        )

    # -- using

    @contextlib.contextmanager
    def _using(self) -> Iterator[None]:
        with self._news:
            if self._closed:
                raise Unreachable(f"cannot use {self}: it was closed; connect again")
            self._inside += 1
        try:
            yield
        finally:
            with self._news:
                self._inside -= 1
                self._news.notify_all()

    def close(self) -> None:
        self._close(self._timeout_s)

    def _close(self, patience_s: float) -> None:
        with self._news:
            if self._closed:
                return
            self._closed = True
            self._news.notify_all()
            # What librados is still busy with must not be taken apart under its hands.
            idle = self._news.wait_for(lambda: not self._inside, patience_s)
            # Nor a notification that is on its way, though a dead watcher can hold it up.
            idle = idle and self._news.wait_for(lambda: not self._notifies, NOTIFIED_AT_CLOSE_S)
        if not idle or self._silent:
            # To end a watch would take as long again; Ceph drops it by itself.
            self._cluster.drop(self._cluster.generation)
        self._end_watch()
        self._cluster.release()

    def _forked(self) -> None:
        """In a child: it has none of the other threads, and what they held is free."""
        self._turn, self._watching = threading.Lock(), threading.Lock()
        self._news = threading.Condition()
        self._inside = 0
        self._notifies = 0
        if self._watch is not None:
            abandon(self._watch)
            self._watch = None
        # The parent sees to it.
        self._unsettled = None

    def _ask(
        self,
        what: str,
        keys: Sequence[str],
        ranges: Sequence[tuple[str, str, int]] = (),
    ) -> dict[str, bytes]:
        """These entries, and those of (prefix, behind, at most): all as of one moment."""
        import rados

        generation = self._cluster.generation
        ioctx = self._cluster.ioctx(self.pool, self.namespace)
        try:
            with rados.ReadOpCtx() as operation:
                found = []
                if keys:
                    found.append(ioctx.get_omap_vals_by_keys(operation, tuple(keys))[0])
                for prefix, behind, limit in ranges:
                    found.append(ioctx.get_omap_vals(operation, behind, prefix, limit)[0])
                ioctx.operate_read_op(operation, OBJECT)
                self._silent = False
                return {key: value for one in found for key, value in one}
        except rados.ObjectNotFound as exc:
            raise _Missing(
                f"cannot {what} {self}: its object {OBJECT!r} is not there; it was removed since it"
                " was opened: put it back, or connect again to make a new, empty one",
                pool=self.pool,
                namespace=self.namespace,
            ) from exc
        except rados.Error as exc:
            raise self._failed(what, exc, generation) from exc

    def _send(
        self,
        what: str,
        operation: Any,
        changes: dict[str, bytes | None],
        *,
        expected: Sequence[int] = (errno.ECANCELED,),
    ) -> bool:
        """Whether it was done; False for the errors that are `expected`."""
        import rados

        generation = self._cluster.generation
        ioctx = self._cluster.ioctx(self.pool, self.namespace)
        written = {key: value for key, value in changes.items() if value is not None}
        removed = tuple(key for key, value in changes.items() if value is None)
        try:
            if removed:
                ioctx.remove_omap_keys(operation, removed)
            if written:
                ioctx.set_omap(operation, tuple(written), tuple(written.values()))
            ioctx.operate_write_op(operation, OBJECT)
            return True
        except rados.Error as exc:
            if exc.errno in expected:
                return False
            raise self._failed(what, exc, generation) from exc

    def _failed(self, what: str, exc: Any, generation: int) -> VorchError:
        self._silent = exc.errno == errno.ETIMEDOUT
        if exc.errno == errno.ESHUTDOWN:
            # A blocklisted client stays so; one that connects anew is another.
            self._cluster.drop(generation)
        return translate(f"{what} {self}", exc)

    def _look(
        self,
        what: str,
        keys: Sequence[str] = (),
        ranges: Sequence[tuple[str, str, int]] = (),
    ) -> tuple[_Head, dict[str, bytes]]:
        """Entries together with the head of the same moment."""
        found = self._ask(what, (HEAD, *keys), ranges)
        head = self._parsed(found)
        if head.format != len(self._migrations):
            raise BadConfig(f"cannot {what} {self}: its format was changed; connect again")
        return head, found

    @contextlib.contextmanager
    def _my_turn(self) -> Iterator[None]:
        if not self._turn.acquire(timeout=2 * self._timeout_s):
            raise Unreachable(
                f"cannot write to {self}: a commit of this process still waits for Ceph; look at"
                " `ceph status`",
                outcome="not done",
            )
        try:
            yield
        finally:
            self._turn.release()

    # -- what is left open

    def _settle(self) -> None:
        """Before anything is answered: what may still be under way has happened, or never will."""
        # Looked at without the lock first, since it nearly never is anything.
        if self._unsettled is not None:
            with self._my_turn():
                self._settle_mine()

    def _settle_mine(self) -> None:
        """The same in one's turn. That nobody can say any more what happened is no hindrance."""
        if self._unsettled is not None:
            try:
                self._resolve(self._unsettled)
            except Unreachable:
                if self._unsettled is not None:
                    raise

    def _resolve(self, attempt: _Attempt) -> bool:
        """Whether this commit was done; if it was not, it cannot be any more."""
        import rados

        while True:
            head, found = self._look("look into", (_commit_key(attempt.on.revision + 1),))
            if head.text != attempt.on.text:
                # Whatever comes of it, there is no more to find out.
                self._unsettled = None
                return self._was_done(attempt, head, found)
            # It may still be on its way to the OSD: change what it wants to follow on.
            with rados.WriteOpCtx() as operation:
                operation.omap_cmp(HEAD, head.text)
                if self._send("write to", operation, {HEAD: head.again().text.encode()}):
                    self._unsettled = None
                    return False

    def _was_done(self, attempt: _Attempt, head: _Head, found: dict[str, bytes]) -> bool:
        """When the head is another than it was to follow on: was it this commit that came next?"""
        revision = attempt.on.revision + 1
        if head.revision < revision:
            return False
        entry = found.get(_commit_key(revision))
        if entry is None:
            raise Unreachable(
                f"cannot find out whether revision {revision} of {self} is this commit: so many"
                " came after it that it is no longer remembered; look at the documents",
                outcome="unknown",
            )
        return bool(json.loads(entry)["id"] == attempt.id)

    # -- documents

    def get(self, key: str) -> Document | None:
        entry = _document_key(documents.check_key(key))
        with self._using():
            self._settle()
            _, found = self._look("read", (entry,))
        return _document(key, found[entry]) if entry in found else None

    def read(self, kinds: Sequence[str]) -> dict[str, Document]:
        wanted = sorted({documents.check_kind(kind) for kind in kinds})
        if not wanted:
            return {}
        with self._using():
            self._settle()
            found = self._whole(wanted)
        keys = sorted(entry[2:] for entry in found)
        return {key: _document(key, found[_document_key(key)]) for key in keys}

    def _whole(self, kinds: Sequence[str]) -> dict[str, bytes]:
        """All documents of these kinds, by one operation, whose head says how many there are."""
        for step in RANGE_STEPS:
            ranges = [
                (f"d/{kind}/", behind, RANGE_LIMIT)
                for kind in kinds
                for behind in self._starts.get(kind, ("",))
            ]
            head, found = self._look("read", (), ranges)
            del found[HEAD]
            there: dict[str, int] = dict.fromkeys(kinds, 0)
            for entry in found:
                there[entry[2:].partition("/")[0]] += 1
            counts = head.kinds or {}
            short = [kind for kind in kinds if there[kind] != counts.get(kind, 0)]
            if not short:
                for kind in kinds:
                    if there[kind] < RANGE_LIMIT // 2:
                        self._starts.pop(kind, None)
                return found
            # Not all of it fits into one range: find out where to begin further ones, and take all
            # of them anew, together.
            for kind in short:
                self._starts[kind] = self._found_starts(kind, step)
        raise TimedOut(
            f"cannot read all of {', '.join(kinds)} in {self} at one moment: too many new ones came"
            " while it was tried; try again"
        )

    def _found_starts(self, kind: str, step: int) -> tuple[str, ...]:
        prefix, behind = f"d/{kind}/", ""
        starts, count = [""], 0
        while page := self._ask("read", (), ((prefix, behind, RANGE_LIMIT),)):
            for behind in sorted(page, key=str.encode):
                count += 1
                if count % step == 0:
                    starts.append(behind)
        return tuple(starts)

    def commit(self, changes: Sequence[Change], *, lease: Lease | None = None) -> int:
        texts = documents.check_changes(changes)
        size = sum(len(key) + len(text or "") for key, text in texts.items())
        if size > COMMIT_LIMIT_BYTES:
            raise Invalid(
                f"cannot commit {len(texts)} documents of {size >> 20} MiB at once: Ceph takes"
                f" {COMMIT_LIMIT_BYTES >> 20} MiB in one write; commit them in parts",
                size_bytes=size,
                limit_bytes=COMMIT_LIMIT_BYTES,
            )
        with self._using(), self._my_turn():
            self._settle_mine()
            revision, wrote = self._commit(changes, texts, lease)
        if wrote:
            with self._news:
                self._heard += 1
                self._news.notify_all()
            self._tell()
        return revision

    def _commit(
        self, changes: Sequence[Change], texts: dict[str, str | None], lease: Lease | None
    ) -> tuple[int, bool]:
        give_up = time.monotonic() + self._timeout_s
        attempt: _Attempt | None = None
        pause = 0.001
        keys = [_document_key(change.key) for change in changes]
        if lease is not None:
            keys.append(_lease_key(lease.name))
        while True:
            asked = keys if attempt is None else [*keys, _commit_key(attempt.on.revision + 1)]
            try:
                head, found = self._look("write to", asked)
            except Unreachable as exc:
                self._unsettled = attempt
                exc.fields["outcome"] = "not done" if attempt is None else "unknown"
                raise
            # Ceph may say that a commit was refused which it had done before, when it had to be
            # sent twice and the first answer was lost.
            if attempt is not None and self._was_done(attempt, head, found):
                return attempt.on.revision + 1, True
            if lease is not None:
                documents.check_lease(lease, _lease(lease.name, found))
            versions = {key: _version(found.get(_document_key(key))) for key in _keys(changes)}
            for change in changes:
                documents.check_version(change, versions[change.key])
            effective = {
                key: text for key, text in texts.items() if text is not None or versions[key]
            }
            if not effective:
                return head.revision, False
            attempt = _Attempt(_new_id(), head)
            if self._try(attempt, effective, found, lease):
                return head.revision + 1, True
            if time.monotonic() > give_up:
                raise TimedOut(
                    f"cannot write to {self}: others were quicker for {self._timeout_s:.0f} s; try"
                    " again",
                    outcome="not done",
                )
            time.sleep(random.uniform(0, pause))  # noqa: S311 - nothing secret
            pause = min(2 * pause, LONGEST_PAUSE_S)

    def _try(
        self,
        attempt: _Attempt,
        effective: dict[str, str | None],
        found: dict[str, bytes],
        lease: Lease | None,
    ) -> bool:
        """Whether it was done; False when somebody else's commit came first."""
        import rados

        head = attempt.on
        revision = head.revision + 1
        forgotten = max(head.forgotten, revision - self._kept_commits)
        entries: dict[str, bytes | None] = {
            _commit_key(number): None for number in range(head.forgotten + 1, forgotten + 1)
        }
        kinds = dict(head.kinds or {})
        size = head.bytes
        for key, text in effective.items():
            entry, kind = _document_key(key), key.partition("/")[0]
            before = found.get(entry)
            value = None if text is None else f"{revision} {text}".encode()
            entries[entry] = value
            kinds[kind] = kinds.get(kind, 0) + (value is not None) - (before is not None)
            size += len(value or b"") - len(before or b"")
        entries[_commit_key(revision)] = json.dumps(
            {"id": attempt.id, "keys": sorted(effective)}
        ).encode()
        kinds = {kind: count for kind, count in kinds.items() if count}
        self._check_room(head, kinds, size)
        after = _Head.made(attempt.id, head.format, revision, forgotten, kinds, size)
        entries[HEAD] = after.text.encode()
        with rados.WriteOpCtx() as operation:
            operation.omap_cmp(HEAD, head.text)
            if lease is not None:
                operation.omap_cmp(_epoch_key(lease.name), str(lease.epoch))
            try:
                return self._send("write to", operation, entries)
            except Exception as exc:
                if getattr(exc, "fields", {}).get("errno") in _REFUSALS:
                    raise
                return self._find_out(attempt, exc)
            except BaseException:
                # Interrupted from outside, as by Ctrl-C.
                self._unsettled = attempt
                raise

    def _find_out(self, attempt: _Attempt, exc: Exception) -> bool:
        """After an error that leaves open what happened: True if it was done, else an error."""
        self._unsettled = attempt
        try:
            done = self._resolve(attempt)
        except Unreachable as later:
            raise Unreachable(
                f"cannot write to {self}: Ceph stopped answering, and whether the commit was done"
                f" is not known; look again when it answers ({later})",
                outcome="unknown",
            ) from exc
        if not done:
            raise Unreachable(
                f"cannot write to {self}: Ceph stopped answering for a while; the commit was not"
                f" done, try again ({exc})",
                outcome="not done",
            ) from exc
        return True

    def _check_room(self, head: _Head, kinds: dict[str, int], size: int) -> None:
        count, before = sum(kinds.values()), sum((head.kinds or {}).values())
        if (count > DOCUMENTS_LIMIT and count > before) or (
            size > BYTES_LIMIT and size > head.bytes
        ):
            raise NoRoom(
                f"cannot write to {self}: it would hold {count} documents of {size >> 20} MiB; the"
                f" limit is {DOCUMENTS_LIMIT} of {BYTES_LIMIT >> 20} MiB; delete some of them",
                documents=count,
                size_bytes=size,
            )

    # -- leases

    def acquire(
        self, name: str, holder: str, ttl_s: float, *, now: float, over: Lease | None = None
    ) -> Lease | None:
        return self._change_lease(
            name, lambda last: documents.acquired(last, name, holder, ttl_s, now, over)
        )

    def renew(self, lease: Lease, ttl_s: float, *, now: float) -> Lease | None:
        return self._change_lease(
            lease.name, lambda last: documents.renewed(last, lease, ttl_s, now)
        )

    def release(self, lease: Lease) -> None:
        self._change_lease(lease.name, lambda last: documents.released(last, lease))

    def lease(self, name: str) -> Lease | None:
        if not name.isprintable():
            return None
        with self._using():
            return _lease(name, self._look("read", (_lease_key(name),))[1])

    def _change_lease(
        self, name: str, decide: Callable[[Lease | None], Lease | None]
    ) -> Lease | None:
        """Leases have nothing to do with the head, so renewals and commits never meet."""
        import rados

        give_up = time.monotonic() + self._timeout_s
        with self._using():
            while True:
                _, found = self._look("write to", (_lease_key(name),))
                lease = decide(_lease(name, found))
                if lease is None:
                    return None
                text = json.dumps(
                    {
                        "holder": lease.holder,
                        "epoch": lease.epoch,
                        "expires_at": lease.expires_at,
                        # Never the same text twice: what comes too late cannot pass for the newest.
                        "id": _new_id(),
                    }
                )
                with rados.WriteOpCtx() as operation:
                    operation.omap_cmp(_lease_key(name), found.get(_lease_key(name), b"").decode())
                    entries: dict[str, bytes | None] = {
                        _lease_key(name): text.encode(),
                        _epoch_key(name): str(lease.epoch).encode(),
                    }
                    if self._send("write to", operation, entries):
                        return lease
                if time.monotonic() > give_up:
                    raise TimedOut(f"cannot write to {self}: others were quicker; try again")

    # -- changes

    def changes(self, since: int, timeout_s: float) -> tuple[int, tuple[str, ...]]:
        give_up = time.monotonic() + timeout_s
        with self._using():
            self._settle()
            while True:
                with self._news:
                    heard = self._heard
                revision, keys = self._changed(since)
                left = give_up - time.monotonic()
                if keys or left <= 0:
                    return revision, keys
                if self._start_watch():
                    # What was written before the watch stood, nobody told of.
                    continue
                poll_s = POLL_BLIND_S if self._watch is None else self._poll_watching_s
                with self._news:
                    self._news.wait_for(
                        lambda heard=heard: self._closed or self._heard != heard,  # type: ignore[misc]
                        min(poll_s, left),
                    )
                    if self._closed:
                        raise Unreachable(f"cannot use {self}: it was closed; connect again")

    def _changed(self, since: int) -> tuple[int, tuple[str, ...]]:
        head, found = self._look("read", (), (("c/", _commit_key(max(0, since)), RANGE_LIMIT),))
        del found[HEAD]
        keys = {key for entry in found.values() for key in json.loads(entry)["keys"]}
        unknown = since > head.revision or since < head.forgotten
        if since < head.forgotten:
            # All that is there may have been written since. What goes or comes while this is
            # looked at is a change after the revision that is given out.
            keys.update(self._all_keys())
        # After a revision that this store has not reached, or long ago: its past is not known here.
        return head.revision, (*((documents.EVERYTHING,) if unknown else ()), *sorted(keys))

    def _all_keys(self) -> Iterator[str]:
        behind = ""
        while page := self._ask("read", (), (("d/", behind, RANGE_LIMIT),)):
            behind = max(page, key=str.encode)
            yield from (entry[2:] for entry in page)

    def _start_watch(self) -> bool:
        """Whether a watch was begun just now. Without one the fall-back poll has to do."""
        import rados

        with self._watching:
            if self._watch is not None and not self._stale():
                return False
            self._end_watch()
            now = time.monotonic()
            if now < self._watch_again_at:
                return False
            self._watch_again_at = now + WATCH_AGAIN_S
            self._watch_lost = False
            generation = self._cluster.generation
            with contextlib.suppress(rados.Error):
                ioctx = self._cluster.ioctx(self.pool, self.namespace)
                self._watch = ioctx.watch(OBJECT, self._notified, self._on_watch_error)
                self._watch_generation = generation
            return self._watch is not None

    def _stale(self) -> bool:
        import rados

        if self._watch_lost or self._watch_generation != self._cluster.generation:
            return True
        try:
            self._watch.check()
        except rados.Error:
            return True
        return False

    def _end_watch(self) -> None:
        import rados

        watch, self._watch = self._watch, None
        if watch is None:
            return
        if self._watch_generation != self._cluster.generation:
            # It hangs on a connection that was given up.
            abandon(watch)
            return
        try:
            watch.close()
        except rados.Error:
            # When it is freed it would try again, and wait for as long again.
            abandon(watch)

    def _notified(self, *told: object) -> None:
        """Called by a thread of librados: no work here."""
        with self._news:
            self._heard += 1
            self._news.notify_all()

    def _on_watch_error(self, *told: object) -> None:
        self._watch_lost = True
        self._notified()

    def _tell(self) -> None:
        """Tell all watchers, without waiting for them: those who miss it look by themselves."""
        import rados

        with self._news:
            if self._closed:
                return
            if self._notifies >= NOTIFIES_LIMIT:
                self._notify_again = True
                return
            self._notifies += 1
        try:
            ioctx = self._cluster.ioctx(self.pool, self.namespace)
            ioctx.aio_notify(OBJECT, self._told, "", NOTIFY_TIMEOUT_MS)
        except (rados.Error, Unreachable):
            self._told()

    def _told(self, *outcome: object) -> None:
        with self._news:
            self._notifies -= 1
            again, self._notify_again = self._notify_again, False
            self._news.notify_all()
        if again:
            self._tell()


class _Missing(Unreachable):
    """There is no such object."""


def _new_id() -> str:
    return secrets.token_hex(8)


def _keys(changes: Sequence[Change]) -> list[str]:
    return [change.key for change in changes]


def _document_key(key: str) -> str:
    return f"d/{key}"


def _commit_key(revision: int) -> str:
    # Of one length, so that they are in order.
    return f"c/{revision:016d}"


def _lease_key(name: str) -> str:
    return f"l/{name}"


def _epoch_key(name: str) -> str:
    return f"e/{name}"


def _version(value: bytes | None) -> int:
    return 0 if value is None else int(value.partition(b" ")[0])


def _document(key: str, value: bytes) -> Document:
    _, _, text = value.partition(b" ")
    return Document(key, _version(value), documents.from_text(key, text.decode()))


def _lease(name: str, found: dict[str, bytes]) -> Lease | None:
    value = found.get(_lease_key(name))
    if value is None:
        return None
    body = json.loads(value)
    return Lease(name, body["holder"], body["epoch"], body["expires_at"])
