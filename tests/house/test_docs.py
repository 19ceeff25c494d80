"""What the pages say about files, settings and commands is so."""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.core import TyperCommand, TyperGroup

from vorch import Settings
from vorch_cli.main import command

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.rglob("*.md")])
# A default that depends on who runs vorch and where: the page names each in words.
IN_WORDS = {
    "uri": "`sqlite:///var/lib/vorch/vorch.db` for root",
    "hypervisor_uri": "`qemu:///system` for root",
    "pool_path": "folder `disks` beside the state file",
    "fence_command": "none",
    "audit_log": "none",
    "oidc_issuer": "none",
    "oidc_client_id": "none",
    "oidc_client_secret_file": "none",
    "oidc_redirect_url": "none",
    "tls_certificate": "none",
    "tls_key": "none",
    "history_path": "file `history.db` beside the state file",
    "upload_path": "folder `uploads` beside the state file",
    "token_file": "none",
    "ca_file": "none",
}


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> Iterator[list[str]]:
    """The lines of each ``` block."""
    for body in re.findall(r"^```\w*\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE):
        yield body.splitlines()


# ---------------------------------------------------------------------------------------------
# Settings


def listed_settings() -> dict[str, str]:
    """Each setting in the table of docs/configure.md, with its default as it is written there."""
    rows = re.findall(
        r"^\| `(\w+)` \| (.*?) \| .+ \|$", (DOCS / "configure.md").read_text(), re.MULTILINE
    )
    assert len(dict(rows)) == len(rows), "a setting stands there twice"
    return dict(rows)


def test_the_table_of_settings_is_whole() -> None:
    assert set(listed_settings()) == {item.name for item in dataclasses.fields(Settings)}


@pytest.mark.parametrize("item", dataclasses.fields(Settings), ids=lambda item: item.name)
def test_defaults_of_settings_are_right(item: dataclasses.Field[object]) -> None:
    written = listed_settings()[item.name]
    if item.name in IN_WORDS:
        assert written.startswith(IN_WORDS[item.name])
    elif isinstance(item.default, str):
        assert written == f"`{item.default}`"
    elif isinstance(item.default, bool):
        assert written == str(item.default).lower()
    else:
        assert isinstance(item.default, (int, float))
        assert float(written) == item.default


# ---------------------------------------------------------------------------------------------
# Links


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    missing = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        file, _, heading = target.partition("#")
        if re.match(r"[a-z]+:", file):
            continue
        found = page if not file else page.parent / file
        if not found.exists() or (heading and heading not in anchors(found)):
            missing.append(target)
    assert missing == []


def anchors(page: Path) -> set[str]:
    """What the headings of a page are called in a link to them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_all_decisions_are_in_the_index() -> None:
    listed = re.findall(r"^- \[.+\]\((.+)\)$", (DOCS / "adr/README.md").read_text(), re.MULTILINE)
    files = sorted(page.name for page in (DOCS / "adr").glob("[0-9]*.md"))
    assert listed == files


def test_the_index_calls_a_decision_what_it_calls_itself() -> None:
    index = (DOCS / "adr/README.md").read_text()
    for title, file in re.findall(r"^- \[(.+)\]\((.+)\)$", index, re.MULTILINE):
        assert (DOCS / "adr" / file).read_text().startswith(f"# {title}\n")


# ---------------------------------------------------------------------------------------------
# Commands


def shown_commands(page: Path) -> Iterator[str]:
    """The command lines in ``` blocks, the continued ones put together."""
    for lines in blocks(page):
        # Where there are prompts, the lines without one are output.
        prompt = "$ " if any(line.startswith("$ ") for line in lines) else ""
        rest = iter(lines)
        for line in rest:
            typed = line.removeprefix(prompt)
            if not line.startswith(f"{prompt}vorch "):
                continue
            while typed.endswith("\\"):
                typed = typed[:-1] + next(rest, "")
            yield typed


def calls(line: str) -> Iterator[list[str]]:
    """The arguments of each `vorch` in one line of shell: `vorch stop web && vorch start web`."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;<>")
    lexer.whitespace_split = True
    words: list[str] = []
    for word in [*lexer, ";"]:
        if set(word) <= set("&|;<>"):
            if words[:1] == ["vorch"]:
                yield words[1:]
            words = []
        else:
            words.append(word)


def understand(args: list[str]) -> None:
    """Read a command line as Typer would, all values included, and run nothing."""
    group: TyperCommand | TyperGroup = command()
    name = "vorch"
    context = None
    while True:
        context = group.make_context(name, list(args), parent=context)
        if not isinstance(group, TyperGroup):
            return
        rest = [*context._protected_args, *context.args]
        if not rest:
            return
        found_name, found, args = group.resolve_command(context, rest)
        assert isinstance(found, (TyperCommand, TyperGroup))
        group, name = found, str(found_name)


@pytest.mark.parametrize("page", [*PAGES], ids=named)
def test_commands_can_be_typed_as_they_are_shown(page: Path) -> None:
    for line in shown_commands(page):
        found = list(calls(line))
        assert found, line
        for args in found:
            try:
                understand(args)
            except typer.TyperException as exc:
                pytest.fail(f"{named(page)}: {line}: {exc.format_message()}")


def test_there_are_commands_to_be_looked_at() -> None:
    for name, fewest in (("README.md", 10), ("docs/tutorial.md", 20)):
        assert len(list(shown_commands(ROOT / name))) >= fewest


def test_a_command_that_is_wrong_is_noticed() -> None:
    for line in ("creat web", "create web --imag debian", "disk attach", "stop web --timeout soon"):
        with pytest.raises(Exception):  # noqa: B017, PT011 - Typer's errors and the library's
            understand(line.split())
