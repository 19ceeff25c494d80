"""Marks on the serial console, and the phases of an install that lie between them. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

# What guests print; the figure is their own uptime. A carriage return or other words may be around.
MARK = re.compile(rb"vorch-bench mark ([a-z-]{1,20}) ([0-9]{1,7}\.[0-9]{2})")
FAILED = re.compile(rb"vorch-bench failed: ([^\r\n]{0,200})")
# What tells that a system is up which knows nothing of the benchmark.
READY = re.compile(rb"vorch-guest ready| login: ")
UP, INSTALLED, FAILURE = "up", "installed", "failed"
# A line that is longer than this is noise; what came before its end is forgotten.
LONGEST_LINE = 4096

# Which phases each method has, in their order: phase → what its end is marked by. "running": the
# domain is there; "asked": vorch's verb has ended. What is not marked by the guest, the host sees.
PHASES: Mapping[str, Sequence[tuple[str, str]]] = {
    "debootstrap": (
        ("start", "running"),
        ("kernel", "kernel"),
        ("partitioning", "partitioning"),
        ("base system", "base"),
        ("packages", "packages"),
        ("first boot", UP),
    ),
    "installer": (
        ("start", "running"),
        ("kernel", "kernel"),
        ("installer's parts", "installer"),
        ("partitioning", "partitioning"),
        ("base system", "base"),
        ("packages", "packages"),
        ("finish", INSTALLED),
        ("first boot", UP),
    ),
    "import": (("import", "imported"), ("disk", "asked"), ("first boot", UP)),
    "clone": (("clone", "asked"), ("first boot", UP)),
}
METHODS = tuple(PHASES)
INSTALLS = ("debootstrap", "installer")


@dataclass(slots=True)
class Reader:
    """Finds marks in what a console gives, however it is cut into pieces."""

    rest: bytes = b""
    # Mark → when it was seen first, by the clock of whoever reads.
    seen: dict[str, float] = field(default_factory=dict)
    # Mark → the guest's uptime.
    uptime: dict[str, float] = field(default_factory=dict)
    failure: str = ""

    def feed(self, data: bytes, now: float) -> None:
        text = self.rest + data
        *lines, rest = text.split(b"\n")
        for line in lines:
            self._line(line[-LONGEST_LINE:], now)
        self.rest = rest[-LONGEST_LINE:]
        if READY.search(self.rest):
            # A prompt has no end of line.
            self.seen.setdefault(UP, now)

    def _line(self, line: bytes, now: float) -> None:
        for found in MARK.finditer(line):
            name = found[1].decode()
            if name not in self.seen:
                self.seen[name] = now
                self.uptime[name] = float(found[2])
        said = FAILED.search(line)
        if said and not self.failure:
            self.failure = said[1].decode(errors="replace")
        if READY.search(line):
            self.seen.setdefault(UP, now)


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    name: str
    seconds: float


def phases(
    method: str, began: float, marks: Mapping[str, float], start_again: float
) -> tuple[Phase, ...]:
    """How long each phase took; ValueError names a mark that never came.

    `began`: when the first verb was asked for. `start_again`: when the installed system was
    started; what lies before it (the installer's power off, its files' removal) is nobody's phase.
    """
    found, at = [], began
    for name, mark in PHASES[method]:
        if mark not in marks:
            raise ValueError(f"the end of {name!r} was never seen")
        if mark == UP:
            at = start_again
        # Two that came in one piece have one time; nothing is ever negative.
        found.append(Phase(name=name, seconds=max(0.0, marks[mark] - at)))
        at = max(at, marks[mark])
    return tuple(found)
