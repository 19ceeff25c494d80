"""Everything that reaches stdout: JSON for programs, tables for people, plain columns for pipes."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from . import sizes

if TYPE_CHECKING:
    from vorch import Rates

# What the states of VMs, tasks and checks look like on a terminal that has colours.
STYLES = {
    "running": "green",
    "done": "green",
    "ok": "green",
    "paused": "yellow",
    "stopping": "yellow",
    "unknown": "yellow",
    "warning": "yellow",
    "undone": "yellow",
    "cancelled": "yellow",
    "crashed": "red",
    "failed": "red",
    "stuck": "red",
    "error": "red",
}

# What a host or VM does, as columns; their cells are those of `rates`.
RATES = ("PROCESSORS", "MEMORY", "READS", "WRITES", "GETS", "SENDS")

# A date and a time of day.
SHORT_CELL = len("2025-03-01 14:05:09")


def clean(text: object) -> str:
    """Text that cannot steer a terminal: what comes from guests and files is not to be trusted."""
    return "".join(
        char if char.isprintable() or char == "\n" else repr(char)[1:-1] for char in str(text)
    )


def out(text: str, *, end: str = "\n") -> None:
    """One piece of result. A reader that has gone away (`| head`) is no error worth a word."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.write(text + end)
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes once more at its end, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None


def page(show: Callable[[], None]) -> None:
    """On a terminal in place of what stood there; elsewhere below it, after the time."""
    if is_terminal(sys.stdout):
        out("\x1b[H\x1b[2J", end="")
    else:
        out(time.strftime("-- %H:%M:%S"))
    show()


def is_terminal(stream: TextIO | None) -> bool:
    """Somebody looks at it, and it understands more than lines."""
    return stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"


# ---------------------------------------------------------------------------------------------
# JSON


def plain_data(value: Any) -> Any:
    """Values of the library, and lists, tuples and dicts of them, as JSON has them."""
    from vorch import shown

    return shown(value)


def print_json(value: Any, *, one_line: bool = False) -> None:
    import json

    data = plain_data(value)
    out(json.dumps(data, ensure_ascii=False, default=str, indent=None if one_line else 2))


# ---------------------------------------------------------------------------------------------
# Tables


def table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: Sequence[str] = ()
) -> None:
    """`right`: the columns that hold numbers."""
    cells = [[clean(cell).replace("\n", " ") for cell in row] for row in rows]
    if is_terminal(sys.stdout):
        _rich_table(columns, cells, right)
        return
    # One word for "nothing", so that a column can be counted on.
    cells = [list(columns), *([cell or "-" for cell in row] for row in cells)]
    widths = [max(len(row[index]) for row in cells) for index in range(len(columns))]
    lines = []
    for row in cells:
        parts = [
            cell.rjust(width) if name in right else cell.ljust(width)
            for name, cell, width in zip(columns, row, widths, strict=True)
        ]
        lines.append("  ".join(parts).rstrip())
    out("\n".join(lines))


def _rich_table(
    columns: Sequence[str], cells: Sequence[Sequence[str]], right: Sequence[str]
) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=None, pad_edge=False, header_style="bold")
    for index, name in enumerate(columns):
        longest = max((len(row[index]) for row in cells), default=0)
        grid.add_column(
            name,
            justify="right" if name in right else "left",
            overflow="fold",
            # Where it gets narrow, long cells give way and not dates, sizes and states.
            no_wrap=longest <= SHORT_CELL,
        )
    for row in cells:
        # As Text: square brackets in names are not rich's markup.
        grid.add_row(*(Text(cell, style=STYLES.get(cell, "")) for cell in row))
    Console(highlight=False).print(grid)


def facts(pairs: Iterable[tuple[str, object]]) -> None:
    """One thing in detail: a line each, what is empty left out."""
    shown = [(name, clean(value)) for name, value in pairs if value not in (None, "", ())]
    width = max((len(name) for name, _ in shown), default=0) + 2
    lines = []
    for name, value in shown:
        first, *more = value.split("\n")
        lines.append(f"{name + ':':<{width}}{first}")
        lines += [" " * width + line for line in more]
    out("\n".join(lines))


def moment(at: float | None) -> str:
    """A time of day where this runs: "2025-03-01 14:05:09"."""
    return "" if not at else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def yes_no(value: bool) -> str:
    return "yes" if value else "no"


def rates(found: Rates) -> tuple[str, ...]:
    """The cells under `RATES`."""
    a_second = (
        found.disk_read_bytes_s,
        found.disk_written_bytes_s,
        found.received_bytes_s,
        found.sent_bytes_s,
    )
    return (
        f"{found.cpu:.2f}",
        sizes.shown_mib(round(found.memory_mib)),
        *(f"{sizes.shown_bytes(int(count))}/s" for count in a_second),
    )
