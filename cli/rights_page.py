"""Writes the table of who may do what in docs/users.md: `python -m vorch_cli.rights_page FILE`."""

from __future__ import annotations

import sys
from pathlib import Path

from vorch import NEEDS, VERBS, Need, Role

BEGIN = "<!-- from here on: made by `make docs` -->"
END = "<!-- up to here -->"
# What a role has of a verb whose least role it covers, while it does not see all VMs.
_SCOPED = {
    "vm": "in scope",
    "new-vm": "in scope",
    "trashed": "in scope",
    "list": "in scope",
    "task": "in scope",
    "shared": "yes",
    "cluster": "with `*`",
    "self": "oneself",
}

# Of what is no verb, or has a route of another form than verbs have.
ROUTES = {
    "image_content": ("GET", "/v1/images/{name}/content"),
    "metrics": ("GET", "/metrics"),
    "upload_create": ("POST", "/v1/uploads"),
    "upload_delete": ("DELETE", "/v1/uploads/{upload_id}"),
    "upload_list": ("GET", "/v1/uploads"),
}
# By the right to something else; the words say whose.
ALSO = {
    ("OPTIONS", "/v1/uploads"): "as `upload_list`",
    ("GET", "/v1/uploads/{upload_id}"): "as `upload_list`",
    ("HEAD", "/v1/uploads/{upload_id}"): "as `upload_list`",
    ("PATCH", "/v1/uploads/{upload_id}"): "as `upload_create`",
    ("GET", "/v1/events"): "whoever is known: events of what `list` and `task_list` show",
    ("GET", "/v1/self"): "whoever is known: of oneself",
    ("POST", "/v1/logout"): "whoever is known: the own login",
    ("POST", "/v1/login"): "everybody",
    ("GET", "/v1/login/oidc"): "everybody, where a provider of logins is set",
    ("GET", "/v1/login/oidc/done"): "everybody, where a provider of logins is set",
    ("GET", "/health"): "everybody",
    ("GET", "/ready"): "everybody",
}


def route(verb: str) -> tuple[str, str] | None:
    """None: over HTTP there is none."""
    if verb in VERBS:
        return VERBS[verb].method, VERBS[verb].path
    return ROUTES.get(verb)


def cell(need: Need, role: Role) -> str:
    """What this role has of a verb."""
    if not role.covers(need.role):
        return "–"
    if role is Role.ADMIN or (role is Role.OPERATOR and need.about != "self"):
        return "yes"
    return _SCOPED[need.about]


def table() -> str:
    roles = list(Role)
    lines = [
        "| Verb | Route | " + " | ".join(roles) + " | Takes more |",
        "| --- |" + " --- |" * (len(roles) + 2),
    ]
    for verb in sorted(NEEDS):
        need = NEEDS[verb]
        above = dict(need.above)
        more = ", ".join(f"`{name}`: {role}" for name, role in sorted(above.items()))
        if verb == "image_import":
            more = "a file of the serving machine: admin"
        if verb == "user_change":
            more = "all but the password: admin"
        cells = " | ".join(cell(need, role) for role in roles)
        where = route(verb)
        shown = "" if where is None else f"`{' '.join(where)}`"
        lines.append(f"| `{verb}` | {shown} | {cells} | {more} |")
    lines += ["", "| Other routes | For |", "| --- | --- |"]
    lines += [f"| `{method} {path}` | {words} |" for (method, path), words in ALSO.items()]
    return "\n".join(lines)


def page(text: str) -> str:
    """The page with the table as it is now."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}"


if __name__ == "__main__":
    file = Path(sys.argv[1])
    file.write_text(page(file.read_text(encoding="utf-8")), encoding="utf-8")
