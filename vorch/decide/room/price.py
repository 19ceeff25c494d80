"""What a move costs: memory to copy, time on the links, and how lately the guest was moved.

A guest that writes to its memory has to be copied more than once; the arithmetic is that of a
single live migration. A price is in moves of a quiet guest of mean size, so that it can be weighed
against what a move brings.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vorch.decide.estimate import needed_slowdown, rounds
from vorch.decide.room.fleet import Guest
from vorch.decide.room.table import Floats, Table

# The pause at the end of a live migration; whatever is left by then goes over while it lasts.
PAUSE_LIMIT_MS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Pricing:
    """How moves are weighed against each other."""

    # What each move costs whatever its size, and what a guest of mean size costs beside that.
    each: float = 0.5
    memory: float = 0.5
    # A guest that was moved just now costs so many times more; from `rest_s` on it is as any other.
    restless: float = 4.0
    rest_s: float = 3600.0
    # However much a guest writes, it costs no more than so many times a quiet one.
    most_stretch: float = 4.0


@dataclass(frozen=True, slots=True)
class Bound:
    """What all moves together may come to: by rows of guests, what a move of each counts for."""

    price: Floats
    most: float


def copied_mib(guest: Guest) -> int:
    """What goes over the link once. A guest that is stopped for it leaves its memory behind."""
    return 0 if guest.moves == "cold" else guest.memory_mib


def link_mib_s(table: Table, source: int, target: int) -> float:
    """The slower of both ends."""
    plain = table.policy.link_mib_s
    return min(table.hosts[row].link_mib_s or plain for row in (source, target) if row >= 0)


def seconds(guest: Guest, speed_mib_s: float) -> float:
    """How long the move takes on a link of that speed."""
    if speed_mib_s <= 0:
        return 0.0
    dirty = guest.dirty_mib_s or 0.0
    dirty *= (100 - needed_slowdown(dirty, speed_mib_s)) / 100
    took, left = rounds(copied_mib(guest), dirty, speed_mib_s, PAUSE_LIMIT_MS)
    return took + left / speed_mib_s


def prices(table: Table, pricing: Pricing) -> Floats:
    """The price of moving each guest."""
    memory = np.array([guest.memory_mib for guest in table.guests], dtype=np.float64)
    mean = float(memory.mean()) if len(memory) else 0.0
    found: Floats = np.full(len(memory), float(pricing.each))
    found += pricing.memory * memory / (mean or 1.0)
    for row, guest in enumerate(table.guests):
        if guest.dirty_mib_s:
            speed = table.policy.link_mib_s
            plain = copied_mib(guest) / speed if speed > 0 else 0.0
            if plain > 0:
                found[row] *= min(pricing.most_stretch, seconds(guest, speed) / plain)
        if guest.moved_s_ago is not None and guest.moved_s_ago < pricing.rest_s:
            found[row] *= 1 + pricing.restless * (1 - guest.moved_s_ago / pricing.rest_s)
    return found
