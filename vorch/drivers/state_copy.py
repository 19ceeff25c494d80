"""Move all documents of a cluster from one store to another, so that only one of them is in use.

Two marks see to that, whatever is killed when: the target bears `cluster/arriving` until everything
is in it, and the source `cluster/moved` from before that moment on. A store with either is not
connected to.
"""

from __future__ import annotations

import contextlib
import json
import secrets
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from vorch.drivers.documents import EVERYTHING
from vorch.errors import BadConfig, Conflict, Invalid, NotFound, VorchError
from vorch.ports import Change, Document, State

MOVED = "cluster/moved"
ARRIVING = "cluster/arriving"

# While there are any, somebody is at work on the cluster, or died at it. Arrivals are at work from
# another cluster, which sends a VM to this one.
AT_WORK = ("plan", "claim", "arrival")

# What is written at once: below what any store takes.
BATCH_DOCUMENTS = 500
BATCH_BYTES = 4 * 1024**2


@dataclass(frozen=True, slots=True)
class StateCopy:
    """What was moved: how many documents of each kind, and the size of their text."""

    source: str
    target: str
    documents: int
    size_bytes: int
    kinds: dict[str, int]


def check_in_use(state: State, uri: str) -> None:
    """Refuses a store that was left, or that is not whole yet."""
    marks = state.read(["cluster"])
    if MOVED in marks:
        now = marks[MOVED].body["to"]
        raise BadConfig(
            f"cannot connect to {uri!r}: the cluster was moved to {now!r}; set uri to that, or run"
            f" `vorch state reopen {uri}` if you mean to go on with the old one",
            moved_to=now,
        )
    if ARRIVING in marks:
        origin = marks[ARRIVING].body["from"]
        raise BadConfig(
            f"cannot connect to {uri!r}: copying the cluster into it from {origin!r} is not"
            f" finished; run `vorch state copy --force {origin} {uri}`",
            copied_from=origin,
        )


def reopen(state: State, uri: str) -> None:
    """Take the mark off a store that was left."""
    mark = state.get(MOVED)
    if mark is None:
        raise NotFound(f"cannot reopen {uri!r}: it is not marked as moved; there is nothing to do")
    state.commit([Change(MOVED, mark.version, None)])


def copy_documents(
    source: State, target: State, *, source_uri: str, target_uri: str, force: bool
) -> StateCopy:
    """`force`: what is in the target is deleted first."""
    what = f"copy the state from {source_uri!r} to {target_uri!r}"
    moved, arriving = source.get(MOVED), target.get(ARRIVING)
    if moved is not None:
        if arriving is None or arriving.body["id"] != moved.body["id"]:
            raise Conflict(
                f"cannot {what}: the cluster was moved to {moved.body['to']!r} already; copy it"
                " from there",
                moved_to=moved.body["to"],
            )
        # An earlier copy was cut short just before its end.
        found = _all(source)
        _verify(what, found, target)
        target.commit([Change(ARRIVING, arriving.version, None)])
        return _copied(source_uri, target_uri, found)
    revision, _ = source.changes(0, 0)
    found = _all(source)
    _check_source(what, source_uri, source, found)
    old = _all(target)
    if (old or target.read(["cluster"])) and not force:
        raise Conflict(
            f"cannot {what}: the target holds {len(old)} documents already; name an empty one, or"
            " say --force to have them deleted",
            documents=len(old),
        )
    id = secrets.token_hex(8)
    target.commit([Change(ARRIVING, None, {"from": source_uri, "id": id})])
    mark = source.get(ARRIVING)
    if mark is not None and mark.body["id"] == id:
        target.commit([Change(ARRIVING, None, None)])
        raise Invalid(f"cannot {what}: both are the same store; name another target")
    try:
        _delete(target, (*old, MOVED))
        for batch in _batches(found.values()):
            target.commit([Change(one.key, 0, one.body) for one in batch])
        _verify(what, found, target)
        _leave(what, source, revision, found, {"to": target_uri, "id": id})
    except BaseException:
        if source.get(MOVED) is None:
            # Where this fails, too, its mark keeps it from being used.
            with contextlib.suppress(VorchError):
                _delete(target, (*found, ARRIVING))
        raise
    target.commit([Change(ARRIVING, None, None)])
    return _copied(source_uri, target_uri, found)


def _all(state: State) -> dict[str, Document]:
    """All documents but the two marks, as of one moment."""
    # Whatever was ever written after the very beginning names every kind that there is.
    _, keys = state.changes(0, 0)
    kinds = sorted({key.partition("/")[0] for key in keys if key != EVERYTHING})
    found = state.read(kinds)
    return {key: one for key, one in found.items() if key not in (MOVED, ARRIVING)}


def _check_source(what: str, uri: str, source: State, found: dict[str, Document]) -> None:
    if source.get(ARRIVING) is not None:
        raise Conflict(f"cannot {what}: the copy into {uri!r} was not finished; repeat that first")
    if not found:
        raise NotFound(f"cannot {what}: there is nothing in {uri!r}; see that it is the right one")
    busy = sorted(key for key in found if key.partition("/")[0] in AT_WORK)
    if busy:
        raise Conflict(
            f"cannot {what}: a task is at work or was cut short ({', '.join(busy[:3])}); wait for"
            " it, or run `vorch recover` on the source",
            busy=busy,
        )


def _leave(
    what: str, source: State, revision: int, found: dict[str, Document], mark: dict[str, Any]
) -> None:
    """Mark the source, if it is still as it was read."""
    seen = [Change(one.key, one.version, check_only=True) for one in found.values()]
    try:
        marked = source.commit([*seen, Change(MOVED, 0, mark)])
    except Conflict as exc:
        raise Conflict(
            f"cannot {what}: somebody wrote to the source meanwhile ({exc.fields.get('key')}); stop"
            " `vorch serve` and what else uses it, and try again",
            **exc.fields,
        ) from exc
    _, keys = source.changes(revision, 0)
    if set(keys) - {MOVED}:
        # Something new, which no version could tell of.
        source.commit([Change(MOVED, marked, None)])
        raise Conflict(
            f"cannot {what}: somebody wrote to the source meanwhile ({', '.join(keys[:3])}); stop"
            " `vorch serve` and what else uses it, and try again"
        )


def _verify(what: str, found: dict[str, Document], target: State) -> None:
    there = _all(target)
    wrong = sorted(
        key
        for key in found.keys() | there.keys()
        if key not in found or key not in there or found[key].body != there[key].body
    )
    if wrong:
        raise Conflict(
            f"cannot {what}: what was written does not come back as it was"
            f" ({', '.join(wrong[:3])}); see that nobody else writes to the target, and try again",
            keys=wrong,
        )


def _delete(state: State, keys: Iterable[str]) -> None:
    todo = list(keys)
    for start in range(0, len(todo), BATCH_DOCUMENTS):
        batch = todo[start : start + BATCH_DOCUMENTS]
        state.commit([Change(key, None, None) for key in batch])


def _size(document: Document) -> int:
    return len(document.key) + len(json.dumps(document.body, separators=(",", ":")))


def _batches(found: Iterable[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    size = 0
    for one in found:
        if batch and (len(batch) >= BATCH_DOCUMENTS or size + _size(one) > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(one)
        size += _size(one)
    if batch:
        yield batch


def _copied(source_uri: str, target_uri: str, found: dict[str, Document]) -> StateCopy:
    kinds = Counter(key.partition("/")[0] for key in found)
    size = sum(_size(one) for one in found.values())
    return StateCopy(source_uri, target_uri, len(found), size, dict(sorted(kinds.items())))
