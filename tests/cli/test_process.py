"""`vorch` as a process: what it loads, how fast it is there, how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

VORCH = (sys.executable, "-c", "import sys; from vorch_cli.main import main; sys.exit(main())")


def vorch(
    *words: str | bytes, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*VORCH, "--uri", "memory:", *words],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **(env or {})},
    )


@pytest.mark.parametrize(
    ("words", "absent"),
    [
        ("['--help']", {"vorch", "rich", "fastapi", "uvicorn", "libvirt", "pydantic"}),
        ("['create', '--help']", {"vorch", "rich", "fastapi", "uvicorn", "libvirt"}),
        ("['--uri', 'memory:', 'list']", {"rich", "fastapi", "uvicorn", "libvirt"}),
    ],
)
def test_only_what_is_needed_is_loaded(words: str, absent: set[str]) -> None:
    program = (
        "import sys; from vorch_cli.main import main; main("
        + words
        + "); print(*{name.split('.')[0] for name in sys.modules}, file=sys.stderr)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    loaded = set(answer.stderr.splitlines()[-1].split())
    assert loaded & absent == set()


def test_numpy_starts_no_threads() -> None:
    program = (
        "import sys; sys.argv = ['vorch', 'version']; from vorch_cli.main import main; main();"
        " import os, numpy; print(len(os.listdir('/proc/self/task')))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert answer.stdout.splitlines()[-1] == "1"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("version",), 0),
        (("list",), 0),
        (("show", "nosuch"), 3),
        (("nosuch",), 2),
        (("create", "-"), 2),
        (("--uri", "nosuch:", "list"), 12),
    ],
)
def test_exit_codes(words: tuple[str, ...], code: int) -> None:
    answer = vorch(*words)
    assert answer.returncode == code
    assert "Traceback" not in answer.stderr


@pytest.mark.parametrize("odd", [b"\xff", b"a\x80b", b"--memory=\xfe", b"--\xff"])
def test_odd_bytes_are_invalid(odd: bytes) -> None:
    answer = vorch("create", odd)
    assert answer.returncode == 2
    assert answer.stderr.startswith("vorch: invalid: ")


def test_a_reader_that_goes_away_is_no_failure(tmp_path: Path) -> None:
    """Nobody reads, from the start: every write fails."""
    reader, writer = os.pipe()
    os.close(reader)
    for words in (["node", "list"], ["--help"], ["list", "--json"]):
        program = subprocess.run(
            [*VORCH, "--uri", "memory:", *words],
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        assert program.returncode in (1, 141)
        assert "Traceback" not in program.stderr
        assert "Exception" not in program.stderr
        assert "BrokenPipe" not in program.stderr
    os.close(writer)


def test_closed_streams_are_no_failure() -> None:
    for closed in ("0<&-", "2>&-", "1>&-", "0<&- 1>&- 2>&-"):
        line = f'exec "$@" {closed}'
        program = subprocess.run(
            ["sh", "-c", line, "sh", *VORCH, "--uri", "memory:", "list"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert program.returncode == 0, (closed, program.stderr)
        assert "Traceback" not in program.stderr


def test_a_full_disk_is_told() -> None:
    with Path("/dev/full").open("w") as full:
        program = subprocess.run(
            [*VORCH, "--uri", "memory:", "node", "list"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert program.returncode == 1
    assert "No space left on device" in program.stderr
    assert "Traceback" not in program.stderr


def test_any_locale_will_do() -> None:
    answer = vorch("show", "ü", env={"LC_ALL": "C", "PYTHONIOENCODING": "ascii"})
    assert answer.returncode == 2
    assert "Traceback" not in answer.stderr


# It stops halfway through a plan until it gets a signal.
HALFWAY = """
import sys, time
from vorch.drivers.memory_host import MemoryHost
from vorch_cli.main import main

def vorch(*words):
    return main(["--uri", "memory:halfway", *words])

def slow(*_, **__):
    print("halfway", flush=True)
    # Python hears of a signal before it begins to sleep, or when the sleep ends: not in between.
    for _ in range(600):
        time.sleep(0.1)

with open(sys.argv[1], "wb") as file:
    file.write(bytes(1024**2))
assert vorch("image", "import", "debian", sys.argv[1], "--json") == 0
before = MemoryHost.start
MemoryHost.start = slow
try:
    code = vorch("create", "web", "--image", "debian")
except SystemExit as ended:
    code = ended.code
MemoryHost.start = before
vorch("volume", "list")
print("----")
vorch("task", "list", "--json")
sys.exit(code)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_undoes_what_was_begun(tmp_path: Path, number: int, code: int) -> None:
    program = subprocess.Popen(
        [sys.executable, "-c", HALFWAY, str(tmp_path / "disk.raw")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert program.stdout is not None
    for line in program.stdout:
        if line == "halfway\n":
            break
    program.send_signal(number)
    out, err = program.communicate(timeout=30)
    assert program.returncode == code, err
    assert "Traceback" not in err
    volumes, tasks = out.split("----")
    assert "image.debian" in volumes
    assert "web.root" not in volumes
    assert '"state": "cancelled"' in tasks
