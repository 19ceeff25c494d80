"""Who may use a cluster: users, their tokens and sessions, what they may have, and what they did.

Secrets are no part of these values. Of a password the store keeps an argon2 hash, of a token or a
session a SHA-256 of what is random in it, in documents of their own that are never shown.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from vorch.errors import Invalid
from vorch.model import check_range, check_tags, check_text

# A scope that is everything.
EVERYTHING = "*"
# The user that whoever holds the service's own token is.
SERVICE = "service"
TOKEN_PREFIX = "vorch"  # noqa: S105 - how tokens begin, so that scanners for leaks know them
_ID = re.compile(r"[0-9a-f]{12}")
_USER = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
PASSWORD_SHORTEST = 12
PASSWORD_LONGEST = 1024


class Role(StrEnum):
    """What somebody may do at the most; each may do all that those before it may."""

    # Sees.
    VIEWER = "viewer"
    # And makes, uses and deletes VMs of its own.
    USER = "user"
    # And all VMs, images, networks, and what hosts need for their maintenance.
    OPERATOR = "operator"
    # And everything else: hosts, pools, users, policy, state.
    ADMIN = "admin"

    def covers(self, other: Role) -> bool:
        return _RANK[self] >= _RANK[other]


_RANK = {role: number for number, role in enumerate(Role)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """How much the VMs in a user's scopes may be together; None: as much as there is."""

    vms: int | None = None
    vcpus: int | None = None
    memory_mib: int | None = None
    disk_gib: int | None = None

    def __post_init__(self) -> None:
        for what, value in (
            ("VMs", self.vms),
            ("vCPUs", self.vcpus),
            ("MiB of memory", self.memory_mib),
            ("GiB of disks", self.disk_gib),
        ):
            if value is not None:
                check_range(value, 0, 2**40, f"quota of {what}")

    @property
    def none(self) -> bool:
        return self == Quota()


def check_user_name(name: str) -> str:
    """Small letters only, so that no two users look alike."""
    if not _USER.fullmatch(name) or name == SERVICE:
        raise Invalid(
            f"cannot use {name!r} as user name: it must be 1 to 63 of a-z, 0-9, '.', '_' and '-',"
            f" beginning with a letter or digit, and not {SERVICE!r}; choose another name",
            user=name,
        )
    return name


def check_scopes(scopes: tuple[str, ...], whose: str) -> tuple[str, ...]:
    """Tags of VMs, or "*" for all of them."""
    check_tags(tuple(one for one in scopes if one != EVERYTHING), whose)
    if EVERYTHING in scopes and len(scopes) > 1:
        raise Invalid(
            f"cannot use scope '*' together with others for {whose}: it is all VMs already; leave"
            " the others away"
        )
    return scopes


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    name: str
    role: Role
    # Tags: the VMs that bear one of them are the user's. Of no weight from operator on.
    scopes: tuple[str, ...] = ()
    quota: Quota = field(default_factory=Quota)
    disabled: bool = False
    # When its password was set; None: it has none, and cannot log in by itself.
    password_at: float | None = None
    # Who it is at the provider of logins: its issuer and subject.
    external: str = ""
    description: str = ""
    created_at: float = 0.0

    def __post_init__(self) -> None:
        check_user_name(self.name)
        check_scopes(self.scopes, f"user {self.name!r}")
        check_text(self.external, "identity at the provider", 1024)
        check_text(self.description, "description")


def own_scope(name: str) -> str:
    """The tag of a user's own VMs, where nothing else was said."""
    return f"owner:{name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A key for a program. It is its user, perhaps with less rights, until it expires."""

    id: str
    user: str
    # None: as the user has it. A higher role than the user's is of no use.
    role: Role | None = None
    created_at: float
    expires_at: float
    description: str = ""

    def __post_init__(self) -> None:
        check_id(self.id, "token id")
        check_user_name(self.user)
        check_text(self.description, "description")


def check_id(value: str, what: str) -> str:
    if not _ID.fullmatch(value):
        raise Invalid(f"cannot use {value[:80]!r} as {what}: it is 12 of 0-9 and a-f")
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Minted:
    """A new token, and the one time that its secret is seen."""

    token: Token
    # To be sent as "Authorization: Bearer SECRET". "" after a dry run.
    secret: str = field(repr=False)


# A verb whose answer is a stream, which a ticket opens.
Stream = Literal["console", "display"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleTicket:
    """Opens one console, once and soon: of a VM its serial port, or its screen."""

    vm: str
    kind: Stream
    expires_at: float
    # To be offered as WebSocket protocol "vorch.ticket.SECRET". It is not seen again.
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """What the store keeps of a ticket until it is used or over."""

    id: str
    user: str
    # As `Principal.known_by`: it is of no use any more when that is gone.
    known_by: str
    vm: str
    kind: Stream
    # Whoever has the console is sent away.
    force: bool = False
    expires_at: float
    # SHA-256 of what is random in it.
    hash: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A person that has logged in."""

    id: str
    user: str
    created_at: float
    expires_at: float
    # What a page sends along with each change, to show that it is the one that logged in.
    csrf: str = field(repr=False)
    # SHA-256 of what the cookie holds.
    hash: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failures:
    """Wrong passwords for one user since the last right one."""

    count: int = 0
    last_at: float = 0.0
    locked_until: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Somebody who was recognized, and from where: what rights are decided from."""

    name: str
    role: Role
    scopes: tuple[str, ...] = ()
    quota: Quota = field(default_factory=Quota)
    # The address that it came from; "local" for whoever runs a command on this machine.
    source: str = "local"
    via: Literal["service", "token", "session"] = "service"
    # Of a token or a session.
    id: str = ""

    @property
    def sees_all(self) -> bool:
        return self.role.covers(Role.OPERATOR) or EVERYTHING in self.scopes

    @property
    def who(self) -> str:
        """As tasks name whoever began them; NAME@HOST is a user of a machine, not of vorch."""
        return f"{self.name} from {self.source}"

    @property
    def known_by(self) -> str:
        """The document that lets it in; "" where a file of the service's own machine does."""
        return f"{self.via} {self.id}" if self.id else ""

    def has(self, tags: tuple[str, ...]) -> bool:
        """Whether a VM with these tags is in its scopes."""
        return self.sees_all or not set(self.scopes).isdisjoint(tags)


AuditResult = Literal["done", "failed", "undone", "cancelled", "stuck", "refused"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One change, or one that was refused: who, from where, what, when, with which end."""

    id: str
    at: float
    who: str
    source: str
    verb: str
    subject: str = ""
    result: AuditResult
    # Of an error, its code and what it said.
    code: str = ""
    message: str = ""
    task: str = ""


def check_password(password: str, user: str) -> str:
    """Long rather than odd: length is what counts, and what a person can remember."""
    if not PASSWORD_SHORTEST <= len(password) <= PASSWORD_LONGEST:
        raise Invalid(
            f"cannot use that password for user {user!r}: it has {len(password)} characters; choose"
            f" one of {PASSWORD_SHORTEST} to {PASSWORD_LONGEST}, such as a few words",
            user=user,
        )
    if len(set(password)) < 5 or user in password.lower():
        raise Invalid(
            f"cannot use that password for user {user!r}: it is easily guessed; choose one with"
            " more different characters, and without the user's name",
            user=user,
        )
    return password


def token_parts(text: str) -> tuple[str, str] | None:
    """(id, what is random in it) of a token's text; None: it is none of ours."""
    prefix, _, rest = text.partition("_")
    found, _, secret = rest.partition("_")
    if prefix != TOKEN_PREFIX or not _ID.fullmatch(found) or not 32 <= len(secret) <= 128:
        return None
    return found, secret
