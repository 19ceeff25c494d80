"""Who may use the cluster over the network: users, tokens, the audit log."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from .. import files, render, sizes
from ..options import AsJson, Description, DryRun, Wait, Yes
from ..session import ask_and_do, cluster, run, show_all, show_done
from .group import noun

if TYPE_CHECKING:
    from vorch import Quota, UserStatus

UserName = Annotated[str, typer.Argument(metavar="USER", help="Name of the user.")]
RoleOption = Annotated[
    str | None,
    typer.Option(
        "--role",
        metavar="viewer|user|operator|admin",
        help="What the user may do; each may do all that those before it may.",
    ),
]
Scopes = Annotated[
    list[str] | None,
    typer.Option(
        "--scope",
        metavar="TAG",
        help="The user sees and uses VMs with this tag; repeatable. '*': all VMs.",
    ),
]
QuotaOption = Annotated[
    str,
    typer.Option(
        "--quota",
        metavar="NAME=N,...",
        help="How much those VMs may be together, as in vms=5,vcpus=20,memory=64G,disk=1T.",
    ),
]
PasswordFile = Annotated[
    str | None,
    typer.Option(
        "--password-file",
        metavar="FILE",
        help="Its first line is the password ('-': stdin). Else VORCH_PASSWORD, if that is set.",
    ),
]
AskPassword = Annotated[
    bool, typer.Option("--password", help="Ask for a password at the terminal, twice.")
]
External = Annotated[
    str | None,
    typer.Option(
        "--external",
        metavar="ID",
        help="Who the user is at the provider of logins: ISSUER|SUBJECT. '': nobody there.",
    ),
]


def add_to(app: typer.Typer) -> None:
    group = noun(app, "user", "Who may use the cluster over the network, and how much of it.")
    group.command("add")(user_add)
    group.command("change")(user_change)
    group.command("list")(user_list)
    group.command("show")(user_show)
    group.command("remove")(user_remove)
    tokens = noun(app, "token", "Keys with which programs come in as a user.")
    tokens.command("create")(token_create)
    tokens.command("list")(token_list)
    tokens.command("revoke")(token_revoke)
    log = noun(app, "audit", "Who did what, from where, and how it ended.")
    log.command("list")(audit_list)


def user_add(
    name: Annotated[
        str, typer.Argument(metavar="USER", help="Its name: of a-z, 0-9, '.', '_' and '-'.")
    ],
    role: RoleOption = None,
    scope: Scopes = None,
    quota: QuotaOption = "",
    password: AskPassword = False,
    password_file: PasswordFile = None,
    external: External = None,
    description: Description = None,
    dry_run: DryRun = False,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """Let somebody in, as `user` with VMs of the own if nothing else is said.

    Without a password the user comes in by tokens, or by the provider of logins.
    """
    limits, secret = _quota(quota), _password(name, password, password_file)
    run(
        lambda found: found.user_add(
            name,
            role=role or "user",
            scopes=scope,
            quota=limits,
            password=secret,
            external=external or "",
            description=description or "",
            dry_run=dry_run,
            wait_s=wait,
        ),
        as_json,
    )


def user_change(
    name: UserName,
    role: RoleOption = None,
    scope: Scopes = None,
    quota: QuotaOption = "",
    no_quota: Annotated[bool, typer.Option("--no-quota", help="As much as there is.")] = False,
    disabled: Annotated[
        bool | None,
        typer.Option("--disable/--enable", help="Let the user in no more, or again."),
    ] = None,
    password: AskPassword = False,
    password_file: PasswordFile = None,
    no_password: Annotated[
        bool, typer.Option("--no-password", help="The user has no password any more.")
    ] = False,
    external: External = None,
    description: Description = None,
    dry_run: DryRun = False,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """Change what a user may do, or the password, which ends all logins of the user.

    It holds from the next request on.
    """
    from vorch import Quota

    limits = Quota() if no_quota else _quota(quota)
    secret = "" if no_password else _password(name, password, password_file)
    run(
        lambda found: found.user_change(
            name,
            role=role,
            scopes=scope,
            quota=limits,
            disabled=disabled,
            password=secret,
            external=external,
            description=description,
            dry_run=dry_run,
            wait_s=wait,
        ),
        as_json,
    )


def user_list(as_json: AsJson = False) -> None:
    """All users, with what they have in use."""
    with cluster(as_json) as found:
        users = found.user_list()

    def table() -> None:
        render.table(
            ("NAME", "ROLE", "SCOPES", "VMS", "VCPUS", "MEMORY", "DISKS", "TOKENS", "LOGIN"),
            [
                (
                    one.user.name,
                    one.user.role,
                    ", ".join(one.user.scopes),
                    *_used(one),
                    one.tokens,
                    _login(one),
                )
                for one in users
            ],
            right=("VMS", "VCPUS", "MEMORY", "DISKS", "TOKENS"),
        )

    show_all(users, as_json, table, "There is no user yet: `vorch user add` adds one.")


def user_show(name: UserName, as_json: AsJson = False) -> None:
    """One user: role, scopes, quota and what is in use of it."""
    with cluster(as_json) as found:
        status = found.user_show(name)
    if as_json:
        render.print_json(status)
        return
    user = status.user
    vms, vcpus, memory, disks = _used(status)
    render.facts(
        [
            ("name", user.name),
            ("role", user.role),
            ("scopes", ", ".join(user.scopes)),
            ("VMs", vms),
            ("vCPUs", vcpus),
            ("memory", memory),
            ("disks", disks),
            ("login", _login(status)),
            ("external", user.external),
            ("tokens", status.tokens),
            ("description", user.description),
            ("added", render.moment(user.created_at)),
        ]
    )


def user_remove(
    name: UserName,
    yes: Yes = False,
    dry_run: DryRun = False,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """Let a user in no more: tokens and logins end. VMs stay as they are."""
    with cluster(as_json) as found:
        done = ask_and_do(
            lambda *, dry_run: found.user_remove(name, dry_run=dry_run, wait_s=wait),
            dry_run=dry_run,
            yes=yes,
        )
    show_done(done, as_json)


def token_create(
    user: UserName,
    role: RoleOption = None,
    days: Annotated[
        float | None,
        typer.Option("--days", metavar="N", help="How long it lasts (default: token_days, 90)."),
    ] = None,
    description: Description = None,
    dry_run: DryRun = False,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """A key for a program, which is that user until it expires; --role: with less rights.

    It is shown now and never again.
    """
    with cluster(as_json) as found:
        made = found.token_create(
            user,
            role=role,
            days=days,
            description=description or "",
            dry_run=dry_run,
            wait_s=wait,
        )
    if as_json:
        # The one answer that has a secret in it.
        render.print_json({"token": made.token, "secret": made.secret})
    elif dry_run:
        render.out(f"token for {user}, until {render.moment(made.token.expires_at)}")
    else:
        until = render.moment(made.token.expires_at)
        sys.stderr.write(f"token {made.token.id} for {user}, until {until}; keep it well:\n")
        render.out(made.secret)


def token_list(
    user: Annotated[
        str | None, typer.Option("--user", metavar="USER", help="Those of this user.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """All tokens, the newest first. What opens doors is not shown."""
    with cluster(as_json) as found:
        tokens = found.token_list(user)

    def table() -> None:
        render.table(
            ("ID", "USER", "ROLE", "CREATED", "EXPIRES", "DESCRIPTION"),
            [
                (
                    one.id,
                    one.user,
                    one.role or "",
                    render.moment(one.created_at),
                    render.moment(one.expires_at),
                    one.description,
                )
                for one in tokens
            ],
        )

    show_all(tokens, as_json, table, "There is no token yet: `vorch token create` makes one.")


def token_revoke(
    token: Annotated[
        str, typer.Argument(metavar="TOKEN", help="Its id; `vorch token list` shows all.")
    ],
    dry_run: DryRun = False,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """Let nobody in by this token any more."""
    run(lambda found: found.token_revoke(token, dry_run=dry_run, wait_s=wait), as_json)


def audit_list(
    who: Annotated[
        str | None, typer.Option("--who", metavar="NAME", help="What this user did.")
    ] = None,
    verb: Annotated[
        str | None, typer.Option("--verb", metavar="VERB", help="This verb, as in 'disk attach'.")
    ] = None,
    result: Annotated[
        str | None,
        typer.Option(
            "--result",
            metavar="done|failed|undone|cancelled|stuck|refused",
            help="What ended so.",
        ),
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", metavar="N", min=1, help="The newest so many.")
    ] = 100,
    as_json: AsJson = False,
) -> None:
    """Each change, and each that was refused: who, from where, what, when, how it ended."""
    with cluster(as_json) as found:
        entries = found.audit_list(who=who, verb=verb, result=result, limit=limit)

    def table() -> None:
        render.table(
            ("WHEN", "WHO", "FROM", "WHAT", "RESULT", "WHY"),
            [
                (
                    render.moment(one.at),
                    one.who,
                    one.source,
                    f"{one.verb} {one.subject}".strip(),
                    one.result,
                    one.message,
                )
                for one in entries
            ],
        )

    show_all(entries, as_json, table, "Nothing was changed yet.")


# ---------------------------------------------------------------------------------------------


_QUOTA = {"vms": "vms", "vcpus": "vcpus", "memory": "memory_mib", "disk": "disk_gib"}


def _quota(text: str) -> Quota | None:
    """ "vms=5,memory=64G"; nothing: nothing was said."""
    from vorch import Invalid, Quota

    if not text:
        return None
    found: dict[str, int] = {}
    for part in text.split(","):
        name, _, value = part.strip().partition("=")
        if name == "memory":
            found[_QUOTA[name]] = sizes.memory_mib(value)
        elif name == "disk":
            found[_QUOTA[name]] = sizes.disk_gib(value)
        elif name in _QUOTA and value.isascii() and value.isdecimal() and len(value) < 10:
            found[_QUOTA[name]] = int(value)
        else:
            raise Invalid(
                f"cannot use {part.strip()!r} as a quota: write a name and a number, as in vms=5;"
                f" the names are {', '.join(_QUOTA)}"
            )
    return Quota(**found)


def _password(user: str, ask: bool, file: str | None) -> str | None:
    """From a file, the terminal or the environment; never from the command line itself."""
    from vorch import Invalid

    if file is not None:
        return files.read_text(file, "the password in").partition("\n")[0].rstrip("\r")
    if not ask:
        return os.environ.get("VORCH_PASSWORD") or None
    if sys.stdin is None or not sys.stdin.isatty():
        raise Invalid(
            f"cannot ask for the password of user {user!r}: there is no terminal; give it as"
            " --password-file"
        )
    from getpass import getpass

    first = getpass(f"Password for {user}: ")
    if first != getpass("Once more: "):
        raise Invalid(f"cannot set the password of user {user!r}: the two differ; try again")
    return first


def _used(status: UserStatus) -> tuple[str, str, str, str]:
    """What is in use, of how much it may be."""
    used, quota = status.used, status.user.quota
    return (
        _of(str(used.vms), None if quota.vms is None else str(quota.vms)),
        _of(str(used.vcpus), None if quota.vcpus is None else str(quota.vcpus)),
        _of(
            sizes.shown_mib(used.memory_mib),
            None if quota.memory_mib is None else sizes.shown_mib(quota.memory_mib),
        ),
        _of(
            sizes.shown_mib(used.disk_gib * 1024),
            None if quota.disk_gib is None else sizes.shown_mib(quota.disk_gib * 1024),
        ),
    )


def _of(used: str, limit: str | None) -> str:
    return used if limit is None else f"{used} of {limit}"


def _login(status: UserStatus) -> str:
    user = status.user
    ways = [
        word
        for word, there in (
            ("password", user.password_at is not None),
            ("provider", bool(user.external)),
        )
        if there
    ]
    return "disabled" if user.disabled else ", ".join(ways)
