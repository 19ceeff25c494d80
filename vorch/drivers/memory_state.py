"""Keep the state in this process's memory: for tests, simulations and trying things out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from vorch.codec import decode, decode_text
from vorch.drivers import documents
from vorch.drivers.memory_faults import Gate, gated, gated_waiting
from vorch.drivers.memory_time import wait
from vorch.errors import Unreachable
from vorch.ports import Change, Document, Lease

T = TypeVar("T")

KEPT_DELETIONS = 10_000


class _TextDocument(Document):
    """Most who ask want to know whether it is there, or have read this version before."""

    __slots__ = ("_text",)

    def __init__(self, key: str, version: int, text: str) -> None:
        self.key = key
        self.version = version
        self._text = text

    @property
    def body(self) -> dict[str, Any]:
        return documents.from_text(self.key, self._text)

    def read(self, kind: type[T]) -> T:
        value = decode_text(kind, self._text)
        return decode(kind, self.body) if value is None else value


class MemoryStore:
    """What is kept, shared by all connections of a world. Bodies are text: nobody can change them
    by changing what was given or got.
    """

    def __init__(self, kept_deletions: int = KEPT_DELETIONS) -> None:
        self.revision = 0
        self.texts: dict[str, tuple[int, str]] = {}
        # The same as whoever asks gets it: a text is read out for each of them anew.
        self._documents: dict[str, Document] = {}
        # The keys of these by their kinds.
        self.kinds: dict[str, set[str]] = {}
        self.deletions: dict[str, int] = {}
        self.forgotten = 0
        self.kept_deletions = kept_deletions
        self.leases: dict[str, Lease] = {}
        # What has changed since when, as long as nothing else does: many ask for the same.
        self._changed: dict[int, tuple[str, ...]] = {}

    def version(self, key: str) -> int:
        return self.texts.get(key, (0, ""))[0]

    def document(self, key: str) -> Document:
        return self._documents[key]

    def documents(self, keys: Sequence[str]) -> dict[str, Document]:
        there = self._documents
        return {key: there[key] for key in keys}

    def write(self, texts: dict[str, str | None]) -> int:
        effective = {
            key: text for key, text in texts.items() if text is not None or key in self.texts
        }
        if not effective:
            return self.revision
        self.revision += 1
        self._changed.clear()
        for key, text in effective.items():
            # Taken out first, so that both are in the order of their versions.
            self.texts.pop(key, None)
            self.deletions.pop(key, None)
            keys = self.kinds.setdefault(key.partition("/")[0], set())
            if text is None:
                self.deletions[key] = self.revision
                self._documents.pop(key, None)
                keys.discard(key)
            else:
                self.texts[key] = (self.revision, text)
                self._documents[key] = _TextDocument(key, self.revision, text)
                keys.add(key)
        while len(self.deletions) > self.kept_deletions:
            oldest = next(iter(self.deletions))
            self.forgotten = self.deletions.pop(oldest)
        return self.revision

    def put_back(self, *lost: str) -> None:
        """As out of an older copy, which lacks these: what it said of changes counts no more."""
        for key in lost:
            self.texts.pop(key, None)
            self._documents.pop(key, None)
            self.kinds.get(key.partition("/")[0], set()).discard(key)
        self.revision += 1
        self.forgotten = self.revision
        self._changed.clear()

    def changed(self, since: int) -> tuple[str, ...]:
        if since == self.revision:
            return ()
        known = self._changed.get(since)
        if known is None:
            known = self._changed[since] = self._changed_since(since)
        return known

    def _changed_since(self, since: int) -> tuple[str, ...]:
        keys = set()
        for key, (version, _) in reversed(self.texts.items()):
            if version <= since:
                break
            keys.add(key)
        for key, version in reversed(self.deletions.items()):
            if version <= since:
                break
            keys.add(key)
        unknown = since > self.revision or since < self.forgotten
        return (*((documents.EVERYTHING,) if unknown else ()), *sorted(keys))


class MemoryState:
    """The State port, as one process of the world sees it."""

    def __init__(self, store: MemoryStore, gate: Gate) -> None:
        self._store = store
        self._gate = gate
        self._closed = False

    def _check_open(self) -> None:
        if self._closed:
            raise Unreachable("cannot use the state in memory: it was closed; connect again")

    @gated
    def get(self, key: str) -> Document | None:
        self._check_open()
        documents.check_key(key)
        return self._store.document(key) if key in self._store.texts else None

    @gated
    def read(self, kinds: Sequence[str]) -> dict[str, Document]:
        self._check_open()
        wanted = {documents.check_kind(kind) for kind in kinds}
        found: set[str] = set()
        for kind in wanted & self._store.kinds.keys():
            found |= self._store.kinds[kind]
        return self._store.documents(sorted(found))

    @gated
    def commit(self, changes: Sequence[Change], *, lease: Lease | None = None) -> int:
        self._check_open()
        texts = documents.check_changes(changes)
        if lease is not None:
            documents.check_lease(lease, self._store.leases.get(lease.name))
        for change in changes:
            documents.check_version(change, self._store.version(change.key))
        return self._store.write(texts)

    @gated
    def acquire(
        self, name: str, holder: str, ttl_s: float, *, now: float, over: Lease | None = None
    ) -> Lease | None:
        self._check_open()
        last = self._store.leases.get(name)
        return self._keep(documents.acquired(last, name, holder, ttl_s, now, over))

    @gated
    def renew(self, lease: Lease, ttl_s: float, *, now: float) -> Lease | None:
        self._check_open()
        last = self._store.leases.get(lease.name)
        return self._keep(documents.renewed(last, lease, ttl_s, now))

    @gated
    def release(self, lease: Lease) -> None:
        self._check_open()
        self._keep(documents.released(self._store.leases.get(lease.name), lease))

    @gated
    def lease(self, name: str) -> Lease | None:
        self._check_open()
        return self._store.leases.get(name)

    @gated_waiting
    def changes(self, since: int, timeout_s: float) -> tuple[int, tuple[str, ...]]:
        if timeout_s <= 0:
            with self._gate.faults.lock:
                self._check_open()
                return self._store.revision, self._store.changed(since)
        found: tuple[int, tuple[str, ...]] = (0, ())

        def look() -> bool:
            nonlocal found
            with self._gate.faults.lock:
                self._check_open()
                found = (self._store.revision, self._store.changed(since))
            return bool(found[1])

        wait(self._gate.faults.clock, timeout_s, look)
        return found

    def close(self) -> None:
        self._closed = True

    def _keep(self, lease: Lease | None) -> Lease | None:
        if lease is not None:
            self._store.leases[lease.name] = lease
        return lease
