"""Writes the table of who may do what in docs/users.md: `python -m vorch_cli.rights_page FILE`."""

from __future__ import annotations

import sys
from pathlib import Path

from vorch import NEEDS, Need, Role

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
        "| Verb | " + " | ".join(roles) + " | Takes more |",
        "| --- |" + " --- |" * (len(roles) + 1),
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
        lines.append(f"| `{verb}` | {cells} | {more} |")
    return "\n".join(lines)


def page(text: str) -> str:
    """The page with the table as it is now."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}"


if __name__ == "__main__":
    file = Path(sys.argv[1])
    file.write_text(page(file.read_text(encoding="utf-8")), encoding="utf-8")
