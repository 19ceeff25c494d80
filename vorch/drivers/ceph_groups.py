"""Which placement group an object falls into, reckoned here: Ceph's hash of names.

Whoever wants an answer of every placement group of a pool needs an object name in each, and a pool
may have thousands: to ask the monitors for each (`osd map`) would take seconds.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator

_MASK = 0xFFFFFFFF
_GOLDEN = 0x9E3779B9
# The shifts of Robert Jenkins' mix of 1996 ("lookup2"), in its order; negative: to the left.
_SHIFTS = (13, -8, 13, 12, -16, 5, 3, -10, 15)


def _mixed(a: int, b: int, c: int) -> tuple[int, int, int]:
    for shift in _SHIFTS:
        a = (a - b - c) & _MASK
        a ^= c >> shift if shift > 0 else (c << -shift) & _MASK
        # The next one is in turn.
        a, b, c = b, c, a
    return a, b, c


def name_hash(name: bytes) -> int:
    """Ceph's `rjenkins`, the hash of all pools since 2010 (object_hash 2)."""
    a, b, c = _GOLDEN, _GOLDEN, 0
    whole = len(name) - len(name) % 12
    for start in range(0, whole, 12):
        words = [int.from_bytes(name[start + i : start + i + 4], "little") for i in (0, 4, 8)]
        a, b, c = _mixed((a + words[0]) & _MASK, (b + words[1]) & _MASK, (c + words[2]) & _MASK)
    rest = name[whole:]
    a = (a + int.from_bytes(rest[:4], "little")) & _MASK
    b = (b + int.from_bytes(rest[4:8], "little")) & _MASK
    # The lowest byte of the last word is for the length.
    c = (c + (int.from_bytes(rest[8:], "little") << 8) + len(name)) & _MASK
    return _mixed(a, b, c)[2]


def group_of(name: str, groups: int) -> int:
    """The placement group, of so many, that an object without a namespace is in."""
    mask = (1 << (groups - 1).bit_length()) - 1
    found = name_hash(name.encode())
    # While a pool's groups are no power of two, the upper ones are not split yet.
    return found & mask if found & mask < groups else found & (mask >> 1)


@functools.lru_cache(maxsize=32)
def name_in_each(groups: int, prefix: str) -> tuple[str, ...]:
    """One object name for each of that many placement groups, by the group's number."""
    found: dict[int, str] = {}
    for name in _names(prefix):
        found.setdefault(group_of(name, groups), name)
        if len(found) == groups:
            break
    return tuple(found[number] for number in range(groups))


def _names(prefix: str) -> Iterator[str]:
    return (f"{prefix}{number}" for number in itertools.count())
