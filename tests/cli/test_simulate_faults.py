"""`vorch simulate faults`: how far it is, and what a Ctrl-C leaves of it."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time

import pytest

from vorch_cli.commands.simulate import _Count

# More than anybody waits for, of small clusters.
ENDLESS = ["--seeds", "1000000", "--first", "5"]
PLAYED = re.compile(r"(\d+) of 1000000 schedules: nothing was lost so far")


def _until(terminal: int, pattern: re.Pattern[str]) -> None:
    """Read what a process writes to a terminal, until that has come."""
    shown, ends_at = "", time.monotonic() + 60.0
    while not pattern.search(shown):
        ready, _, _ = select.select([terminal], [], [], max(0.0, ends_at - time.monotonic()))
        assert ready, f"it showed only {shown!r}"
        shown += os.read(terminal, 4096).decode()


def _broken_off(*options: str) -> tuple[int, str]:
    """Begun on a terminal, and broken off there when it has shown that it plays."""
    ours, its = pty.openpty()
    command = [sys.executable, "-m", "vorch_cli", "simulate", "faults", *ENDLESS, *options]
    # In a group of its own, so that the Ctrl-C goes to all of its processes, and to no others.
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=its,
        text=True,
        start_new_session=True,
        env={**os.environ, "TERM": "xterm"},
    )
    os.close(its)
    try:
        _until(ours, PLAYED)
        os.killpg(process.pid, signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    return process.returncode, out


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--jobs", "2")], ids=["one", "two processes"])
def test_what_was_played_until_a_ctrl_c_is_said(options: tuple[str, ...]) -> None:
    code, out = _broken_off(*options)
    found = re.fullmatch(
        r"broken off: (\d+) of 1000000 schedule\(s\) from 5 on were played, and nothing was lost"
        r" in them; `--first (\d+)` goes on\n",
        out,
    )
    assert found is not None, out
    assert int(found[1]) > 0
    assert int(found[2]) == 5 + int(found[1])
    assert code == 130


@pytest.mark.slow
def test_a_program_is_told_so_too() -> None:
    code, out = _broken_off("--json")
    told = json.loads(out)
    assert (told["failures"], told["broken_off"], told["first"]) == ([], True, 5)
    assert told["seeds"] > 0
    assert code == 130


def test_where_nobody_looks_nothing_is_drawn() -> None:
    command = [sys.executable, "-m", "vorch_cli", "simulate", "faults", "--seeds", "2"]
    done = subprocess.run(
        [*command, "--hosts", "2", "--vms", "2"], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert done.stdout == "2 schedule(s) from 0 on, 2 hosts, 2 VMs: nothing was lost\n"


def test_one_that_was_taken_for_a_fault_of_the_game_counts_when_that_is_over() -> None:
    count = _Count(10)
    with count.heard():
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            count(1)
    assert count.played == 0
    # Afterwards it is whose it was before.
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
