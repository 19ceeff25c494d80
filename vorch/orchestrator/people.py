"""Users, their tokens, and the log of what they did."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Sequence

from vorch.codec import decode
from vorch.decide import people, quota
from vorch.decide.people import DAY_S, People, UserChanges
from vorch.decide.quota import Use
from vorch.errors import Invalid, Unsupported
from vorch.execute import by_time
from vorch.model import Cluster
from vorch.orchestrator.core import Core, Done
from vorch.orchestrator.words import one_of
from vorch.ports import Change, Passwords
from vorch.rights import (
    TOKEN_PREFIX,
    AuditEntry,
    Minted,
    Principal,
    Quota,
    Role,
    Token,
    User,
    check_password,
)

# What is random in a token or a cookie: far more than anybody can try out.
SECRET_BYTES = 32


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class UserStatus:
    """A user, and what it comes to."""

    user: User
    # What the VMs in its scopes take together; of those who have all, what all take.
    used: Use
    tokens: int


def sha256(secret: str) -> str:
    """Enough for what is random; passwords take more."""
    return hashlib.sha256(secret.encode()).hexdigest()


class Users(Core):
    def user_add(
        self,
        name: str,
        *,
        role: Role | str = Role.USER,
        scopes: Sequence[str] | None = None,
        quota: Quota | None = None,
        password: str | None = None,
        external: str = "",
        description: str = "",
        dry_run: bool = False,
        wait_s: float | None = None,
    ) -> Done:
        """Somebody who may come in. Without a password: by a token, or by the provider of logins.

        `scopes`: tags of the VMs that are the user's; "*": all. Where nobody says, a `user` has
        those with the tag `owner:NAME`, and a `viewer` sees all.
        """
        wanted = one_of(Role, role, "role")
        user = User(
            name=name,
            role=wanted,
            scopes=people.default_scopes(name, wanted) if scopes is None else tuple(scopes),
            quota=quota or Quota(),
            password_at=self.world.clock.now() if password else None,
            external=external,
            description=description,
            created_at=self.world.clock.now(),
        )
        hashed = self._hashed(password, name)
        done = self._do(
            lambda cluster: people.user_add(self._people(), user), dry_run=dry_run, wait_s=wait_s
        )
        if not dry_run:
            self._keep_hash(name, hashed)
        return done

    def user_change(
        self,
        name: str,
        *,
        role: Role | str | None = None,
        scopes: Sequence[str] | None = None,
        quota: Quota | None = None,
        disabled: bool | None = None,
        password: str | None = None,
        external: str | None = None,
        description: str | None = None,
        dry_run: bool = False,
        wait_s: float | None = None,
    ) -> Done:
        """It holds from the next request on. A new password ends all logins of the user.

        `quota` is all that is limited from then on. A password of "" takes it away.
        """
        changes = UserChanges(
            role=None if role is None else one_of(Role, role, "role"),
            scopes=None if scopes is None else tuple(scopes),
            quota=quota,
            disabled=disabled,
            password_at=None if password is None else (self.world.clock.now() if password else 0.0),
            external=external,
            description=description,
        )
        hashed = self._hashed(password, name)
        done = self._do(
            lambda cluster: people.user_change(self._people(), name, changes),
            dry_run=dry_run,
            wait_s=wait_s,
        )
        if not dry_run:
            if hashed is not None:
                self._keep_hash(name, hashed)
            if hashed is not None or disabled:
                self._end_sessions(name)
        return done

    def user_remove(self, name: str, *, dry_run: bool = False, wait_s: float | None = None) -> Done:
        """Its tokens and logins end with it. VMs in its scopes stay as they are."""
        tokens = [one.id for one in self._people().tokens.values() if one.user == name]
        done = self._do(
            lambda cluster: people.user_remove(self._people(), name),
            dry_run=dry_run,
            wait_s=wait_s,
        )
        if not dry_run:
            self._end_sessions(name)
            keys = [f"secret/user.{name}", f"login/{name}", *map("secret/token.{}".format, tokens)]
            self.world.state.commit([Change(key, None, None) for key in keys])
        return done

    def user_list(self) -> tuple[UserStatus, ...]:
        cluster, found = self.look(), self._people()
        return tuple(self._status(cluster, found, found.users[one]) for one in sorted(found.users))

    def user_show(self, name: str) -> UserStatus:
        found = self._people()
        return self._status(self.look(), found, found.user(name))

    def _status(self, cluster: Cluster, found: People, user: User) -> UserStatus:
        return UserStatus(
            user=user,
            used=quota.in_use(
                Principal(name=user.name, role=user.role, scopes=user.scopes), cluster.vms, ()
            ),
            tokens=sum(one.user == user.name for one in found.tokens.values()),
        )

    # -- tokens

    def token_create(
        self,
        user: str,
        *,
        role: Role | str | None = None,
        days: float | None = None,
        description: str = "",
        dry_run: bool = False,
        wait_s: float | None = None,
    ) -> Minted:
        """A key for a program, which is let in as that user until it expires.

        Its secret is in the answer and nowhere else; nobody can see it again.
        """
        now, chance = self.world.clock.now(), self.world.chance
        token = Token(
            id=chance.take(6).hex(),
            user=user,
            role=None if role is None else one_of(Role, role, "role"),
            created_at=now,
            expires_at=now + (self.settings.token_days if days is None else days) * DAY_S,
            description=description,
        )
        secret = chance.take(SECRET_BYTES).hex()
        self._do(
            lambda cluster: people.token_create(self._people(), token),
            dry_run=dry_run,
            wait_s=wait_s,
        )
        if dry_run:
            return Minted(token=token, secret="")
        # What it is known by goes past the plan, as all secrets do.
        body = {"hash": sha256(secret)}
        self.world.state.commit([Change(f"secret/token.{token.id}", None, body)])
        return Minted(token=token, secret=f"{TOKEN_PREFIX}_{token.id}_{secret}")

    def token_list(self, user: str | None = None) -> tuple[Token, ...]:
        """All tokens, or those of one user; the newest first."""
        found = self._people()
        if user is not None:
            found.user(user)
        tokens = [one for one in found.tokens.values() if user in (None, one.user)]
        return tuple(sorted(tokens, key=lambda one: (-one.created_at, one.id)))

    def token_revoke(
        self, token: str, *, dry_run: bool = False, wait_s: float | None = None
    ) -> Done:
        """It lets nobody in any more."""
        done = self._do(
            lambda cluster: people.token_revoke(self._people(), token),
            dry_run=dry_run,
            wait_s=wait_s,
        )
        if not dry_run:
            self.world.state.commit([Change(f"secret/token.{token}", None, None)])
        return done

    # -- the log

    def audit_list(
        self,
        *,
        who: str | None = None,
        verb: str | None = None,
        result: str | None = None,
        limit: int = 100,
    ) -> tuple[AuditEntry, ...]:
        """Who did what, from where, when, and how it ended: the newest first."""
        if limit < 1:
            raise Invalid(f"cannot list {limit} entries: ask for at least 1")
        documents = self.world.state.read(["audit"])
        newest = (decode(AuditEntry, documents[key].body) for key in by_time(documents)[::-1])
        wanted = (
            entry
            for entry in newest
            if who in (None, entry.who)
            and verb in (None, entry.verb)
            and result in (None, entry.result)
        )
        return tuple(itertools.islice(wanted, limit))

    # -- inside

    def _people(self) -> People:
        users, tokens, versions = {}, {}, {}
        for key, document in self.world.state.read(["user", "token"]).items():
            kind, _, name = key.partition("/")
            versions[key] = document.version
            if kind == "user":
                users[name] = decode(User, document.body)
            else:
                tokens[name] = decode(Token, document.body)
        return People(users=users, tokens=tokens, versions=versions)

    def _passwords(self) -> Passwords:
        if self.world.passwords is None:
            raise Unsupported("cannot use passwords: this world has nothing to hash them with")
        return self.world.passwords

    def _hashed(self, password: str | None, user: str) -> str | None:
        """None: nothing was said; "": there is to be none."""
        if not password:
            return password
        return self._passwords().hash(check_password(password, user))

    def _keep_hash(self, name: str, hashed: str | None) -> None:
        body = {"password": hashed} if hashed else None
        self.world.state.commit(
            [Change(f"secret/user.{name}", None, body), Change(f"login/{name}", None, None)]
        )

    def _end_sessions(self, name: str) -> None:
        ended = [
            Change(key, None, None)
            for key, document in self.world.state.read(["session"]).items()
            if document.body.get("user") == name
        ]
        if ended:
            self.world.state.commit(ended)
