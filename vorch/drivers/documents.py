"""What every store of documents agrees on: keys, JSON text, and who may have a lease.

Pure functions, so that the drivers of the State port differ only in where they keep things.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Sequence
from typing import Any

from pydantic_core import from_json, to_json

from vorch.codec import Coded, Plain
from vorch.errors import BadConfig, Conflict, Invalid
from vorch.frozen import replace
from vorch.ports import GIVEN_BACK, Change, Lease

# Among the keys of `State.changes`: deletions were forgotten since, read everything again.
EVERYTHING = "*"

KEY_LIMIT = 512

# ASCII only, so that no odd character can be refused or changed by what keeps the text. What holds
# itself goes too deep, which is seen without looking for it.
_TEXT = json.JSONEncoder(separators=(",", ":"), allow_nan=False, check_circular=False)


# These are asked for the same few words again and again; what is refused is not kept.
@functools.lru_cache(1024)
def check_kind(kind: str) -> str:
    if not kind or "/" in kind or EVERYTHING in kind or not kind.isprintable():
        raise Invalid(f"cannot use {kind!r} as kind of a document: it is one word, as in 'vm'")
    return kind


@functools.lru_cache(4096)
def check_key(key: str) -> str:
    kind, slash, name = key.partition("/")
    if not slash or not name or len(key) > KEY_LIMIT or not key.isprintable():
        raise Invalid(
            f"cannot use {key[:80]!r} as key of a document: it is a kind and a name of together at"
            f" most {KEY_LIMIT} characters, as in 'vm/web'",
            key=key,
        )
    check_kind(kind)
    return key


def check_changes(changes: Sequence[Change]) -> dict[str, str | None]:
    """The JSON text of each document that is written (None: deleted), if all of it is sound."""
    texts: dict[str, str | None] = {}
    seen: set[str] = set()
    for change in changes:
        check_key(change.key)
        if change.key in seen:
            raise Invalid(
                f"cannot commit {change.key!r} twice at once: which one counts would depend on"
                " their order; make one change of them",
                key=change.key,
            )
        seen.add(change.key)
        if not change.check_only:
            texts[change.key] = None if change.body is None else to_text(change.key, change.body)
    return texts


def to_text(key: str, body: dict[str, Any] | Coded) -> str:
    try:
        if isinstance(body, Coded):
            return _coded_text(body) or to_text(key, body.body)
        return _quick_text(body) or _TEXT.encode(body)
    except (TypeError, ValueError, RecursionError) as exc:
        raise Invalid(
            f"cannot write {key!r} down: it is not plain JSON data ({exc}); encode it first",
            key=key,
        ) from exc


def _coded_text(body: Coded) -> str:
    """As `_quick_text`, of the value itself."""
    try:
        text = body.text
    except ValueError:
        return ""
    return "" if "NaN" in text or "Infinity" in text else text


def _quick_text(body: dict[str, Any]) -> str:
    """The same, of what an encoder has made, several times as fast; "" where it had better not."""
    if type(body) is not Plain:
        return ""
    try:
        text = to_json(body, ensure_ascii=True).decode()
    except ValueError:
        # It knows no half of a surrogate pair.
        return ""
    # What is no number in JSON is refused by the other one.
    return "" if "NaN" in text or "Infinity" in text else text


def _parsed(text: str) -> object:
    try:
        # Several times as fast, and it is asked thousands of times a minute.
        return from_json(text)
    except ValueError:
        # It knows no half of a surrogate pair, and a string may hold one.
        return json.loads(text)


def from_text(key: str, text: str) -> dict[str, Any]:
    try:
        body = _parsed(text)
    except (TypeError, ValueError, RecursionError) as exc:
        raise BadConfig(
            f"cannot read {key!r} in the state: it is not JSON ({exc}); the store was damaged or"
            " written to by hand; restore it from a backup",
            key=key,
        ) from exc
    if not isinstance(body, dict):
        raise BadConfig(
            f"cannot read {key!r} in the state: it is not a JSON object; the store was damaged or"
            " written to by hand; restore it from a backup",
            key=key,
        )
    return body


def check_version(change: Change, version: int) -> None:
    """`version` is that of the document in the store, 0 when there is none."""
    if change.version is not None and change.version != version:
        now = f"at version {version}" if version else "absent"
        then = f"at version {change.version}" if change.version else "absent"
        raise Conflict(
            f"cannot commit {change.key!r}: it is {now}, and this change was made for it {then};"
            " look again and decide anew",
            key=change.key,
            version=version,
            expected=change.version,
        )


# ---------------------------------------------------------------------------------------------
# Leases. The store keeps the last of each name for ever, so that its epoch can only grow.


def check_lease(lease: Lease, last: Lease | None) -> None:
    """For a commit under `lease`: refused once a newer epoch exists."""
    if last is None or last.epoch != lease.epoch:
        held = f"epoch {last.epoch}, of {last.holder!r}," if last else "none of that name"
        raise Conflict(
            f"cannot commit under epoch {lease.epoch} of lease {lease.name!r}: there is {held} now;"
            " stop acting as its holder",
            key=f"lease/{lease.name}",
            lease=lease.name,
            epoch=last.epoch if last else 0,
        )


def check_claim(name: str, holder: str, ttl_s: float) -> None:
    if not name or not holder or not name.isprintable() or not holder.isprintable():
        raise Invalid(f"cannot claim lease {name!r} for {holder!r}: both need a name")
    if not 0 < ttl_s < float("inf"):
        raise Invalid(f"cannot claim lease {name!r} for {ttl_s!r} s: a time above 0 s is needed")


def acquired(
    last: Lease | None,
    name: str,
    holder: str,
    ttl_s: float,
    now: float,
    over: Lease | None = None,
) -> Lease | None:
    """`over`: the one that the claimant has seen abandoned. It counts only as it was seen."""
    check_claim(name, holder, ttl_s)
    if last is None:
        return Lease(name, holder, 1, now + ttl_s)
    if last.holder == holder and last.expires_at > now:
        return replace(last, expires_at=_other_end(last, now + ttl_s))
    if last.holder == holder or last.given_back or last == over:
        return Lease(name, holder, last.epoch + 1, now + ttl_s)
    return None


def renewed(last: Lease | None, lease: Lease, ttl_s: float, now: float) -> Lease | None:
    """Also after its end, as long as nobody else came; not once it was given back."""
    check_claim(lease.name, lease.holder, ttl_s)
    if last is None or (last.epoch, last.holder) != (lease.epoch, lease.holder):
        return None
    if last.given_back:
        return None
    return replace(last, expires_at=_other_end(last, now + ttl_s))


def _other_end(last: Lease, end: float) -> float:
    """Whoever looks sees each renewal, also those of a holder whose clock stands still."""
    return end if end != last.expires_at else math.nextafter(end, math.inf)


def released(last: Lease | None, lease: Lease) -> Lease | None:
    """What to write down; None when there is nothing of this holder's to give back."""
    if last is None or (last.epoch, last.holder) != (lease.epoch, lease.holder):
        return None
    return replace(last, expires_at=GIVEN_BACK)
