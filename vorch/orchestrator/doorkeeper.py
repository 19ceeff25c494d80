"""Who somebody is that comes from outside: by a token, a login, or what a login left behind."""

from __future__ import annotations

import contextlib
import dataclasses
import hmac
import ipaddress
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import TypeVar

from vorch.codec import decode, encode
from vorch.decide import audit, login
from vorch.errors import Conflict, Denied, Stale, TooMany, VorchError
from vorch.orchestrator.core import Core
from vorch.orchestrator.people import SECRET_BYTES, sha256
from vorch.ports import Change
from vorch.rights import (
    AuditEntry,
    AuditResult,
    Failures,
    Principal,
    Role,
    Session,
    Token,
    User,
    check_id,
    token_parts,
)

T = TypeVar("T")

# What was found out of somebody counts for so long: a token that is revoked by another process is
# known here until then.
KNOWN_FOR_S = 2.0
# Names and addresses that are remembered at a time.
MOST_KNOWN = 4096
# Logins of one user at a time; the oldest ends when there is one more.
SESSIONS_MOST = 50
# Passwords that are looked at at the same time: each takes `password_memory_mib`, by design.
AT_ONCE = 4
# How long a token is listed that has expired.
TOKENS_LISTED_S = 7 * 86400.0
EXPIRED_AT_ONCE = 100
# Entries about strangers that the log takes in a minute; the rest are counted.
REFUSED_PER_MINUTE = 60


class Doorkeeper:
    """For a service that lets people in. Safe to use from several threads."""

    def __init__(self, cluster: Core) -> None:
        self._world = cluster.world
        self._settings = cluster.settings
        self._passwords = cluster.world.passwords
        self._lock = threading.Lock()
        self._known: OrderedDict[str, tuple[float, Principal, str]] = OrderedDict()
        self._tries: OrderedDict[str, list[float]] = OrderedDict()
        # Of users that are not there, whose doors must look like those of users that are.
        self._strangers: OrderedDict[str, Failures] = OrderedDict()
        self._refused: list[float] = []
        self._unsaid = 0
        self._dummy = ""
        self._at_once = threading.BoundedSemaphore(AT_ONCE)

    # -- recognizing

    def by_token(self, text: str, source: str) -> Principal | None:
        """Whoever that token lets in; None: it is no token, or one no more."""
        parts = token_parts(text)
        if parts is None:
            return None
        token_id, secret = parts
        return self._remembered(
            f"token {token_id}", sha256(secret), source, lambda: self._token(token_id, source)
        )

    def by_session(self, cookie: str, source: str) -> tuple[Principal, str] | None:
        """Whoever has logged in, and what its page must send along with changes."""
        session_id, _, secret = cookie.partition(".")
        try:
            check_id(session_id, "session id")
        except VorchError:
            return None
        document = self._world.state.get(f"session/{session_id}")
        if document is None:
            return None
        session = decode(Session, document.body)
        if not hmac.compare_digest(session.hash, sha256(secret)):
            return None
        if session.expires_at <= self._world.clock.now():
            return None
        found = self._principal(session.user, None, source, "session", session.id)
        return None if found is None else (found, session.csrf)

    def _remembered(
        self, what: str, hashed: str, source: str, find: Callable[[], tuple[Principal, str] | None]
    ) -> Principal | None:
        """A program that asks often is looked up once in a while."""
        with self._lock:
            known = self._known.get(what)
        if known is None or known[0] < time.monotonic():
            found = find()
            if found is None:
                with self._lock:
                    self._known.pop(what, None)
                return None
            known = (time.monotonic() + KNOWN_FOR_S, *found)
            with self._lock:
                _put(self._known, what, known)
        _, principal, right = known
        if not hmac.compare_digest(right, hashed):
            return None
        return dataclasses.replace(principal, source=source)

    def _token(self, token_id: str, source: str) -> tuple[Principal, str] | None:
        state = self._world.state
        document, secret = state.get(f"token/{token_id}"), state.get(f"secret/token.{token_id}")
        if document is None or secret is None:
            return None
        token = decode(Token, document.body)
        if token.expires_at <= self._world.clock.now():
            return None
        found = self._principal(token.user, token.role, source, "token", token.id)
        return None if found is None else (found, str(secret.body["hash"]))

    def _principal(
        self, name: str, role: Role | None, source: str, via: str, by: str
    ) -> Principal | None:
        document = self._world.state.get(f"user/{name}")
        user = None if document is None else decode(User, document.body)
        if user is None or user.disabled:
            return None
        least = user.role if role is None or role.covers(user.role) else role
        return Principal(
            name=user.name,
            role=least,
            scopes=user.scopes,
            quota=user.quota,
            source=source,
            via="token" if via == "token" else "session",
            id=by,
        )

    # -- logging in and out

    def log_in(self, name: str, password: str, source: str) -> tuple[Session, str]:
        """A session and what its cookie holds. Refused in the same words and the same time,
        whether the user is not there, is disabled, has no password or has another one.
        """
        self.check_pace(source)
        document = self._world.state.get(f"user/{name}") if _plain(name) else None
        user = None if document is None else decode(User, document.body)
        now = self._world.clock.now()
        failures = self._failures(name, known=user is not None)
        locked_s = login.locked_for(failures, now)
        if locked_s > 0:
            self.note(
                "login", name, source, "refused", "locked out after wrong passwords", stranger=True
            )
            raise TooMany(
                "cannot log in: there were too many wrong passwords; try again in"
                f" {max(1, round(locked_s))} s",
                retry_after_s=max(1, round(locked_s)),
            )
        secret = self._world.state.get(f"secret/user.{name}") if user is not None else None
        right = self._matches("" if secret is None else str(secret.body["password"]), password)
        if user is None or user.disabled or secret is None or not right:
            self._keep_failures(
                name,
                login.failed(
                    failures,
                    now,
                    lock_after=self._settings.login_lock_after,
                    lock_s=self._settings.login_lock_s,
                ),
                known=user is not None,
            )
            self.note("login", name, source, "refused", "wrong user or password", stranger=True)
            raise Denied("cannot log in: user or password is wrong; try again")
        changes = [Change(f"login/{name}", None, None)]
        if self._passwords is not None and self._passwords.outdated(str(secret.body["password"])):
            stronger = {"password": self._passwords.hash(password)}
            changes.append(Change(secret.key, None, stronger))
        self._world.state.commit(changes)
        return self._open(user, source)

    def log_in_as(self, external: str, source: str) -> tuple[Session, str]:
        """For whoever the provider of logins has recognized: the user with that identity."""
        for document in self._world.state.read(["user"]).values():
            user = decode(User, document.body)
            if external and user.external == external and not user.disabled:
                return self._open(user, source)
        self.note("login", external, source, "refused", "no user has that identity", stranger=True)
        raise Denied(
            f"cannot log in: no user here is {external!r} at the provider of logins; ask an admin"
            " (vorch user change NAME --external)"
        )

    def log_out(self, principal: Principal) -> None:
        """The session ends everywhere. Safe to repeat."""
        if principal.via == "session":
            self._world.state.commit([Change(f"session/{principal.id}", None, None)])
            self.note("logout", principal.name, principal.source, "done")

    def _open(self, user: User, source: str) -> tuple[Session, str]:
        now, chance = self._world.clock.now(), self._world.chance
        secret = chance.take(SECRET_BYTES).hex()
        session = Session(
            id=chance.take(6).hex(),
            user=user.name,
            created_at=now,
            expires_at=now + self._settings.session_h * 3600,
            csrf=chance.take(SECRET_BYTES).hex(),
            hash=sha256(secret),
        )
        documents = self._world.state.read(["session"])
        sessions = {key: decode(Session, one.body) for key, one in documents.items()}
        over = {key for key, one in sessions.items() if one.expires_at <= now}
        mine = [key for key, one in sessions.items() if one.user == user.name and key not in over]
        mine.sort(key=lambda key: documents[key].version)
        over.update(mine[: max(0, len(mine) + 1 - SESSIONS_MOST)])
        ended = [Change(key, None, None) for key in sorted(over)]
        self._world.state.commit([*ended, Change(f"session/{session.id}", 0, encode(session))])
        self.note("login", user.name, source, "done")
        return session, f"{session.id}.{secret}"

    def expire(self) -> int:
        """What lets nobody in any more is cleared away: how much it was. Safe to repeat.

        A token that has expired is listed for some days, so that one sees why it is of no use.
        """
        state, now = self._world.state, self._world.clock.now()
        changes = []
        for key, document in state.read(["session", "token", "login"]).items():
            kind, _, name = key.partition("/")
            if kind == "session":
                over = decode(Session, document.body).expires_at <= now
            elif kind == "token":
                over = decode(Token, document.body).expires_at + TOKENS_LISTED_S <= now
                if over:
                    changes.append(Change(f"secret/token.{name}", None, None))
            else:
                failures = decode(Failures, document.body)
                over = now - failures.last_at > login.FORGOTTEN_AFTER_S
            if over:
                changes.append(Change(key, document.version, None))
        for begin in range(0, len(changes), EXPIRED_AT_ONCE):
            # What has changed meanwhile is looked at again the next time.
            with contextlib.suppress(Conflict, Stale):
                state.commit(changes[begin : begin + EXPIRED_AT_ONCE])
        return len(changes)

    def _matches(self, hashed: str, password: str) -> bool:
        """As costly without a hash as with one, so that nobody can tell by the clock."""
        if self._passwords is None or len(password) > 1024:
            return False
        with self._at_once:
            if not self._dummy:
                self._dummy = self._passwords.hash(self._world.chance.take(SECRET_BYTES).hex())
            return self._passwords.matches(hashed or self._dummy, password) and bool(hashed)

    # -- against those who try out passwords

    def check_pace(self, source: str) -> None:
        """Refused when that address has tried to log in too often."""
        now, source = time.monotonic(), _network_of(source)
        with self._lock:
            tries = [at for at in self._tries.get(source, []) if now - at < 60.0]
            allowed = len(tries) < self._settings.login_tries_per_minute
            if allowed:
                tries.append(now)
            _put(self._tries, source, tries)
        if not allowed:
            wait_s = max(1, round(60.0 - (now - tries[0]))) if tries else 60
            raise TooMany(
                f"cannot log in: that address has tried too often; try again in {wait_s} s",
                retry_after_s=wait_s,
            )

    def _failures(self, name: str, *, known: bool) -> Failures:
        if not known:
            with self._lock:
                return self._strangers.get(name[:80], Failures())
        document = self._world.state.get(f"login/{name}")
        return Failures() if document is None else decode(Failures, document.body)

    def _keep_failures(self, name: str, failures: Failures, *, known: bool) -> None:
        if known:
            self._world.state.commit([Change(f"login/{name}", None, encode(failures))])
            return
        with self._lock:
            _put(self._strangers, name[:80], failures)

    # -- the log

    def note(
        self,
        verb: str,
        who: str,
        source: str,
        result: AuditResult,
        message: str = "",
        *,
        subject: str = "",
        code: str = "",
        stranger: bool = False,
    ) -> None:
        """One line of the audit log that no task writes. Of strangers only so many a minute.

        It never fails what it speaks of: a store that does not answer is told by others.
        """
        if stranger:
            now = time.monotonic()
            with self._lock:
                self._refused = [at for at in self._refused if now - at < 60.0]
                if len(self._refused) >= REFUSED_PER_MINUTE:
                    self._unsaid += 1
                    return
                self._refused.append(now)
                unsaid, self._unsaid = self._unsaid, 0
            if unsaid:
                message += f" (and {unsaid} more that were not noted)"
        at = self._world.clock.now()
        entry = AuditEntry(
            id=audit.entry_id(at, self._world.chance.take(6).hex()),
            at=at,
            who=_clean(who),
            source=source,
            verb=verb,
            subject=_clean(subject),
            result=result,
            code=code,
            message=message[: audit.MESSAGE_LIMIT],
        )
        self._world.audit(entry)
        try:
            self._world.state.commit([Change(f"audit/{entry.id}", 0, encode(entry))])
        except VorchError:
            return


def _put(kept: OrderedDict[str, T], key: str, value: T) -> None:
    """The oldest go when there are too many."""
    kept[key] = value
    kept.move_to_end(key)
    while len(kept) > MOST_KNOWN:
        kept.popitem(last=False)


def _network_of(source: str) -> str:
    """Of IPv6, where one machine has as many addresses as it likes, the network that it is in."""
    try:
        address = ipaddress.ip_address(source.partition("%")[0])
    except ValueError:
        return source
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False))


def _plain(name: str) -> bool:
    """It can be the name of a user, and so part of a document's key."""
    return 0 < len(name) <= 63 and name.isascii() and name.isprintable() and "/" not in name


def _clean(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text[:200])
