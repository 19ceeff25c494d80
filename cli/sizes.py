"""What people write for sizes, times and addresses, turned into the numbers that the library takes.

Used as parsers of options: what makes no sense raises `Invalid` before anything is connected.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vorch import IoLimits, NodeChoice, StaticAddress

# In MiB. No MB or GB: nobody knows whether those who write them mean 1000 or 1024.
UNITS_MIB = {
    "m": 1,
    "mib": 1,
    "g": 1024,
    "gib": 1024,
    "t": 1024**2,
    "tib": 1024**2,
}
LONGEST_S = 7 * 24 * 3600
_SIZE = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?) ?([A-Za-z]{0,3})")


def memory_mib(text: str) -> int:
    """ "2G" → 2048. A plain number is MiB."""
    size = _mib(text, "MiB", 1, "memory")
    if size.denominator != 1:
        raise _invalid(text, "memory", "it is not a whole number of MiB; round it")
    return int(size)


def disk_gib(text: str) -> int:
    """ "1T" → 1024. A plain number is GiB, and so are all sizes of disks: whole ones."""
    size = _mib(text, "GiB", 1024, "the size of a disk") / 1024
    if size.denominator != 1:
        raise _invalid(text, "the size of a disk", "it is not a whole number of GiB; round it up")
    return int(size)


def _mib(text: str, plain: str, factor: int, what: str) -> Fraction:
    found = _SIZE.fullmatch(text.strip())
    unit = found[2].lower() if found else ""
    if found is None or (unit and unit not in UNITS_MIB):
        raise _invalid(
            text, what, f"write a number and M, G or T, as in 2G (a plain number is {plain})"
        )
    return Fraction(found[1]) * (UNITS_MIB[unit] if unit else factor)


LIMITS = (
    "iops",
    "read-iops",
    "write-iops",
    "mib-s",
    "read-mib-s",
    "write-mib-s",
    "burst-iops",
    "burst-mib-s",
    "burst-s",
)


def io_limits(text: str) -> IoLimits | None:
    """ "iops=500,mib-s=50" """
    from vorch import Invalid, IoLimits

    if not text:
        return None
    limits: dict[str, int] = {}
    for part in text.split(","):
        name, _, value = part.strip().partition("=")
        if name not in LIMITS or not re.fullmatch(r"[0-9]{1,9}", value):
            raise Invalid(
                f"cannot use {part.strip()!r} as a limit: write a name and a whole number, as in"
                f" iops=500; the names are {', '.join(LIMITS)}"
            )
        limits[name.replace("-", "_")] = int(value)
    return IoLimits(**limits)


def seconds(text: str) -> float:
    """ "90" or "1.5", up to a week."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= LONGEST_S:
        raise _invalid(text, "a time", f"write seconds, from 0 to {LONGEST_S}")
    return value


_SPAN_S = {"": 1, "s": 1, "min": 60, "h": 3600, "d": 86400}


def span(text: str) -> float:
    """ "2h" → 7200. A plain number is seconds."""
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,3})?) ?(s|min|h|d|)", text.strip())
    value = float(found[1]) * _SPAN_S[found[2]] if found else math.nan
    if not 0 < value <= LONGEST_S:
        raise _invalid(text, "a time", "write a number and s, min, h or d, as in 2h, up to 7d")
    return value


def node_choices(text: str) -> tuple[NodeChoice, ...]:
    """ "h1:2,h2" → host h1 with priority 2, h2 with 0. Nothing → no hosts."""
    from vorch import NodeChoice

    choices = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, colon, priority = part.partition(":")
        if colon and not re.fullmatch(r"[0-9]{1,4}", priority):
            raise _invalid(part, "a host", "write its name, and its priority if it has one: h1:2")
        choices.append(NodeChoice(node=name, priority=int(priority or 0)))
    return tuple(choices)


def address(text: str) -> StaticAddress | None:
    """ "dhcp" → None; "10.0.0.5/24,10.0.0.1,9.9.9.9" → address, gateway, name servers."""
    from vorch import StaticAddress

    if text.strip().lower() == "dhcp":
        return None
    first, *others = (part.strip() for part in text.split(","))
    gateway = others[0] if others and others[0] else None
    dns = tuple(part for part in others[1:] if part)
    return StaticAddress(address=first, gateway=gateway, dns=dns)


def _invalid(text: str, what: str, why: str) -> Exception:
    from vorch import Invalid

    return Invalid(f"cannot use {text!r} as {what}: {why}")


# ---------------------------------------------------------------------------------------------
# And back, for people to read.


def shown_bytes(size: float) -> str:
    """1536 MiB in bytes → "1.5 GiB"."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:
            return f"{size:.4g} {unit}" if unit != "B" else f"{size:.0f} B"
        size /= 1024
    return f"{size:,.4g} TiB"


def shown_mib(mib: float) -> str:
    return shown_bytes(mib * 1024**2)


def shown_span(span_s: float) -> str:
    """How long something took or will take: "0.4 s", "3 min 20 s", "2 h 5 min", "3 d 4 h"."""
    if span_s < 10:
        return f"{max(0.0, span_s):.1f} s"
    minutes, rest_s = divmod(round(span_s), 60)
    hours, rest_min = divmod(minutes, 60)
    days, rest_h = divmod(hours, 24)
    for high, unit, low, part in (
        (days, "d", rest_h, "h"),
        (hours, "h", rest_min, "min"),
        (minutes, "min", rest_s, "s"),
    ):
        if high:
            return f"{high} {unit}" + (f" {low} {part}" if low else "")
    return f"{rest_s} s"
