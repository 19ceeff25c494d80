"""Users and tokens: who is added, changed, removed, and what that does to the others."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

from vorch.decide.records import reads_of, save
from vorch.errors import Conflict, Denied, Invalid, NotFound
from vorch.plan import Plan, Step
from vorch.rights import EVERYTHING, Quota, Role, Token, User, own_scope

DAY_S = 24 * 3600.0
# A key that lasts longer than this is one that nobody remembers.
DAYS_MOST = 3650.0
# Of one user. Those that have expired count until they are revoked.
TOKENS_MOST = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class People:
    """All users and tokens as the store has them."""

    users: Mapping[str, User] = field(default_factory=dict)
    tokens: Mapping[str, Token] = field(default_factory=dict)
    versions: Mapping[str, int] = field(default_factory=dict)

    def user(self, name: str) -> User:
        if name not in self.users:
            raise NotFound(
                f"cannot find user {name!r}: there is none of that name; `vorch user list` shows"
                " all",
                user=name,
            )
        return self.users[name]

    def token(self, token_id: str) -> Token:
        if token_id not in self.tokens:
            raise NotFound(
                f"cannot find token {token_id[:80]!r}: there is none of that id; `vorch token list`"
                " shows all",
                token=token_id[:80],
            )
        return self.tokens[token_id]

    @property
    def reserved(self) -> frozenset[str]:
        """Tags that are somebody's scope."""
        return frozenset(tag for user in self.users.values() for tag in user.scopes) - {EVERYTHING}


def default_scopes(name: str, role: Role) -> tuple[str, ...]:
    """A user has the own VMs; whoever only looks, or looks after all, has them all."""
    return (own_scope(name),) if role is Role.USER else (EVERYTHING,)


def user_add(people: People, user: User) -> Plan:
    if user.name in people.users:
        raise Conflict(
            f"cannot add user {user.name!r}: there is one of that name; change that one (vorch user"
            " change), or choose another name",
            user=user.name,
        )
    _check_external(people, user)
    return Plan(
        verb="user add",
        subject=user.name,
        why=_sentence(user),
        steps=(save("user", user.name, None, user),),
        claims=(f"user/{user.name}",),
        reads=reads_of(people.versions, f"user/{user.name}"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class UserChanges:
    """What is to be different. None: as it is."""

    role: Role | None = None
    scopes: tuple[str, ...] | None = None
    quota: Quota | None = None
    disabled: bool | None = None
    # 0: it has none any more.
    password_at: float | None = None
    external: str | None = None
    description: str | None = None


def user_change(people: People, name: str, changes: UserChanges) -> Plan:
    before = people.user(name)
    wanted = {
        item.name: getattr(changes, item.name)
        for item in dataclasses.fields(changes)
        if getattr(changes, item.name) is not None
    }
    if changes.password_at == 0:
        wanted["password_at"] = None
    after = dataclasses.replace(before, **wanted)
    # Scopes that nobody chose go with the role that they came with.
    if changes.scopes is None and before.scopes == default_scopes(name, before.role):
        after = dataclasses.replace(after, scopes=default_scopes(name, after.role))
    _check_external(people, after)
    return Plan(
        verb="user change",
        subject=name,
        why=_sentence(after) if after != before else "it is so already",
        steps=(save("user", name, before, after),) if after != before else (),
        claims=(f"user/{name}",),
        reads=reads_of(people.versions, f"user/{name}"),
    )


def user_remove(people: People, name: str) -> Plan:
    """Its tokens go with it. Its VMs stay, with their tags."""
    user = people.user(name)
    tokens = [one for one in people.tokens.values() if one.user == name]
    steps: list[Step] = [save("token", one.id, one, None) for one in tokens]
    keys = [f"user/{name}", *(f"token/{one.id}" for one in tokens)]
    return Plan(
        verb="user remove",
        subject=name,
        why=f"with {len(tokens)} tokens; VMs in its scopes stay",
        steps=(*steps, save("user", name, user, None)),
        claims=tuple(keys),
        reads=reads_of(people.versions, *keys),
    )


def token_create(people: People, token: Token) -> Plan:
    user = people.user(token.user)
    if user.disabled:
        raise Conflict(
            f"cannot create a token for user {user.name!r}: the user is disabled; enable it first"
            f" (vorch user change {user.name} --enable)",
            user=user.name,
        )
    if token.role is not None and not user.role.covers(token.role):
        raise Denied(
            f"cannot create a token of role {token.role} for user {user.name!r}: the user is"
            f" {user.role}, and a token has no more rights than its user; leave the role away",
            user=user.name,
        )
    if sum(one.user == user.name for one in people.tokens.values()) >= TOKENS_MOST:
        raise Conflict(
            f"cannot create a token for user {user.name!r}: the user has {TOKENS_MOST} already;"
            " revoke some (vorch token revoke)",
            user=user.name,
        )
    days = (token.expires_at - token.created_at) / DAY_S
    if not 0 < days <= DAYS_MOST:
        raise Invalid(
            f"cannot create a token for {days:g} days: it may be for more than 0 and at most"
            f" {DAYS_MOST:g}; choose a time in that range"
        )
    return Plan(
        verb="token create",
        subject=token.id,
        why=f"for user {user.name!r}, as {token.role or user.role}, for {days:g} days",
        steps=(save("token", token.id, None, token),),
        claims=(f"token/{token.id}",),
        reads=reads_of(people.versions, f"token/{token.id}", f"user/{user.name}"),
    )


def token_revoke(people: People, token_id: str) -> Plan:
    token = people.token(token_id)
    return Plan(
        verb="token revoke",
        subject=token_id,
        why=f"of user {token.user!r}; whoever uses it is let in no more",
        steps=(save("token", token_id, token, None),),
        claims=(f"token/{token_id}",),
        reads=reads_of(people.versions, f"token/{token_id}"),
    )


def _check_external(people: People, user: User) -> None:
    """One identity at a provider is one user here."""
    for other in people.users.values():
        if user.external and other.external == user.external and other.name != user.name:
            raise Conflict(
                f"cannot give user {user.name!r} that identity: user {other.name!r} has it; take it"
                " from that one first",
                user=user.name,
            )


def _sentence(user: User) -> str:
    if user.disabled:
        return f"as {user.role}, disabled"
    if user.role.covers(Role.OPERATOR) or EVERYTHING in user.scopes:
        return f"as {user.role}, of all VMs"
    return f"as {user.role}, of VMs with the tag {' or '.join(user.scopes) or 'none'}"
