"""What it looks like where somebody looks: tables, progress and questions on a pseudo-terminal."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from vorch_cli.progress import shortened

# A world in memory lives inside one process: what came before is done in there, unseen.
PROGRAM = """
import os, sys
from vorch_cli.main import main

def vorch(*words):
    return main(["--uri", "memory:terminal", *words])

shown = os.dup(1), os.dup(2)
nowhere = os.open("/dev/null", os.O_WRONLY)
os.dup2(nowhere, 1), os.dup2(nowhere, 2)
vorch("image", "import", "debian", sys.argv[1])
vorch("create", "web", "--image", "debian")
vorch("change", "web", "--description", "[red]not red[/red]")
os.dup2(shown[0], 1), os.dup2(shown[1], 2)
sys.exit(vorch(*sys.argv[2:]))
"""


def on_a_terminal(
    file: Path, *words: str, typed: str = "", term: str = "xterm", columns: int = 100
) -> tuple[int, str]:
    """(exit code, everything that was shown)"""
    file.write_bytes(bytes(1024**2))
    user, program = pty.openpty()
    shown = bytearray()

    def look() -> None:
        while True:
            try:
                data = os.read(user, 65536)
            except OSError:
                return
            if not data:
                return
            shown.extend(data)

    running = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(file), *words],
        stdin=program,
        stdout=program,
        stderr=program,
        env={**os.environ, "TERM": term, "COLUMNS": str(columns)},
        start_new_session=True,
    )
    os.close(program)
    reader = threading.Thread(target=look)
    reader.start()
    os.write(user, typed.encode())
    code = running.wait(30)
    reader.join(30)
    os.close(user)
    return code, shown.decode()


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "disk.raw"


def test_tables_have_colours(file: Path) -> None:
    code, shown = on_a_terminal(file, "list")
    assert code == 0
    assert "\x1b[32mrunning\x1b[0m" in shown


def test_a_dumb_terminal_gets_none(file: Path) -> None:
    _, shown = on_a_terminal(file, "list", term="dumb")
    assert "\x1b" not in shown


def test_progress_is_a_bar_that_goes_away(file: Path) -> None:
    code, shown = on_a_terminal(file, "create", "db", "--image", "debian")
    assert code == 0
    assert "━" in shown
    assert "[ 50%]" not in shown
    assert shown.rstrip().endswith("because it is the only host")


def test_a_narrow_terminal_costs_words_and_not_the_bar(tmp_path: Path) -> None:
    code, shown = on_a_terminal(
        tmp_path / f"{'long' * 30}.raw",
        "image",
        "import",
        "b",
        str(tmp_path / f"{'long' * 30}.raw"),
        columns=70,
    )
    assert code == 0
    drawn = [plain(line) for line in re.split(r"[\r\n]", shown)]
    bars = [line for line in drawn if "━" in line]
    assert bars
    assert all(len(line) <= 70 and "━" * 10 in line and "0:00:0" in line for line in bars)
    assert any("…" in line for line in bars)


@pytest.mark.parametrize(
    ("words", "room", "shown"),
    [
        ("start web", 20, "start web"),
        ("import /a/long/path/disk.raw as b", 21, "import /a/…k.raw as b"),
        ("no room for anything", 1, "no roo…thing"),
    ],
)
def test_words_are_shortened_in_the_middle(words: str, room: int, shown: str) -> None:
    assert shortened(words, room) == shown


def test_dates_stay_whole_where_it_is_narrow(file: Path) -> None:
    code, shown = on_a_terminal(file, "volume", "list", columns=60)
    assert code == 0
    code, shown = on_a_terminal(file, "task", "list", columns=80)
    assert code == 0
    assert re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", shown)


def test_a_question_shows_the_plan(file: Path) -> None:
    code, shown = on_a_terminal(file, "delete", "web", "--force", typed="n\n")
    assert code == 9
    assert "  1. cut the power of web on h1" in shown
    assert "Go on? [y/N]" in shown
    code, shown = on_a_terminal(file, "delete", "web", "--force", typed="y\n")
    assert code == 0


def test_names_are_no_markup(file: Path) -> None:
    _, shown = on_a_terminal(file, "show", "web")
    assert "[red]not red[/red]" in shown


def test_an_empty_list_is_a_sentence(file: Path) -> None:
    _, shown = on_a_terminal(file, "trash", "list")
    assert shown.strip() == "The trash is empty."
