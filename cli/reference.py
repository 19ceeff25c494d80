"""Writes docs/cli.md out of the commands themselves: python -m vorch_cli.reference docs/cli.md"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from vorch import Orchestrator

from .main import command

HEAD = """\
# The command line

<!-- Written by `make docs` out of the commands themselves: change those, not this file. -->

    vorch [--uri URI] [--verbose] COMMAND ...

- **`--dry-run`**: what changes VMs, images, networks or the trash can print its plan instead, step
  by step.
- **`--wait SECONDS`**: two tasks never work on the same thing. The second ends with `conflict` at
  once, or waits for so long.
- **`--json`**: the result as JSON on stdout, and an error as JSON on stderr: `code`, `message`,
  `fields`. What it holds are the library's own values, field by field.
- **`--yes`**: what deletes something, or cannot be taken back, shows its plan and asks. Where stdin
  is no terminal, it asks nobody and ends with `invalid`, unless `--yes` says that it is meant.
- **Sizes** are written as in `512M`, `2G`, `1T` (also MiB, GiB, TiB). A plain number is MiB for
  memory and GiB for disks. Times are seconds.
- **Output**: the result goes to stdout, progress and errors to stderr. In a pipe, tables are plain
  columns, whole and without colours, with `-` where there is nothing.
- **Ctrl-C and SIGTERM**: what has been begun is undone first; then it ends with 130 or 143.
- **Exit codes**: 0 is success, 2 a command that makes no sense, 1 an unexpected end; the others
  are in [errors.md](errors.md).
- **Completion**: `vorch --install-completion` teaches your shell all commands and options, and the
  names of VMs, images, networks, hosts and pools.
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """One command, by the words that one types."""

    path: tuple[str, ...]
    command: TyperCommand

    @property
    def verb(self) -> str:
        """The same in the library: `disk attach` is `disk_attach`."""
        return "_".join(self.path).replace("-", "_")

    @property
    def words(self) -> str:
        return "vorch " + " ".join(self.path)

    @property
    def sentences(self) -> list[str]:
        return [" ".join(part.split()) for part in (self.command.help or "").split("\n\n")]


def entries() -> list[Entry]:
    """All commands, in the order of `vorch --help`."""
    root = command()
    assert isinstance(root, TyperGroup)
    return list(_walk(root, ()))


def _walk(group: TyperGroup, path: tuple[str, ...]) -> Iterator[Entry]:
    for name, one in group.commands.items():
        if isinstance(one, TyperGroup):
            yield from _walk(one, (*path, name))
        elif isinstance(one, TyperCommand) and not one.hidden:
            yield Entry((*path, name), one)


def text() -> str:
    found = entries()
    parts = [HEAD, _verbs(found)]
    parts += [_section(entry) for entry in found]
    return "\n".join(parts)


def _verbs(found: list[Entry]) -> str:
    lines = [
        "## Verbs",
        "",
        "One verb, one word: the same in the library and here.",
        "",
        "| `Orchestrator.` | `vorch` | |",
        "|---|---|---|",
    ]
    for entry in found:
        method = f"`{entry.verb}`" if hasattr(Orchestrator, entry.verb) else ""
        lines.append(f"| {method} | `{' '.join(entry.path)}` | {_cell(entry.sentences[0])} |")
    return "\n".join(lines) + "\n"


def _section(entry: Entry) -> str:
    arguments = [p for p in entry.command.params if isinstance(p, TyperArgument)]
    options = [p for p in entry.command.params if isinstance(p, TyperOption) and not p.hidden]
    usage = [entry.words]
    usage += [
        str(one.metavar or one.name) if one.required else f"[{one.metavar}]" for one in arguments
    ]
    usage += ["[OPTIONS]"] if options else []
    lines = [f"## `{entry.words}`", "", *_between(entry.sentences), "", f"    {' '.join(usage)}"]
    rows = [(str(one.metavar or one.name), one.help or "") for one in arguments]
    rows += [(_spelling(one), (one.help or "") + _default(one)) for one in options]
    if rows:
        lines += ["", "| | |", "|---|---|"]
        lines += [f"| `{_cell(left)}` | {_cell(right)} |" for left, right in rows]
    return "\n".join(lines) + "\n"


def _between(sentences: list[str]) -> list[str]:
    return "\n\n".join(sentences).split("\n")


def _spelling(option: TyperOption) -> str:
    names = ", ".join(option.opts)
    if option.secondary_opts:
        names += " / " + ", ".join(option.secondary_opts)
    return names if option.is_flag else f"{names} {option.metavar or 'TEXT'}"


def _default(option: TyperOption) -> str:
    default = option.default
    if option.is_flag:
        chosen = option.opts if default else option.secondary_opts
        return f" (default: `{chosen[0]}`)" if chosen and default is not None else ""
    return f" (default: `{default}`)" if default not in (None, "") else ""


def _cell(words: str) -> str:
    return words.replace("|", "\\|").replace("\n", " ")


def write(target: Path) -> None:
    target.write_text(text(), encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        write(Path(sys.argv[1]))
    else:
        print(text(), end="")
