"""What moves do to the figure: exactly for chosen ones, and nearly for all pairs at once."""

from __future__ import annotations

import numpy as np

from vorch.decide.room.evenness import Term
from vorch.decide.room.table import Floats, Ints

# Of all pairs so many are judged exactly.
CLOSER = 256
# As many rows have one of these.
ROWS = 40
# What looks worse than this is not looked at again.
HOPELESS = 1e6
# Multiplications in one piece.
_PIECE = 250_000


def product(left: Floats, right: Floats) -> Floats:
    """left @ right, in pieces so small that no threads are set to work on them."""
    rows = max(1, _PIECE // max(1, right.size))
    if rows >= len(left):
        found: Floats = left @ right
        return found
    total: Floats = np.empty((len(left), right.shape[1]))
    for start in range(0, len(left), rows):
        np.matmul(left[start : start + rows], right, out=total[start : start + rows])
    return total


def lowest(values: Floats) -> tuple[Ints, Ints]:
    """Rows and columns of the lowest few hundred that are worth a closer look."""
    each = values.min(axis=1, initial=np.inf)
    bar = HOPELESS
    if len(each) > ROWS:
        bar = min(bar, float(np.partition(each, ROWS)[ROWS]))
    flat = values.ravel()
    chosen = np.flatnonzero(flat <= bar)
    if len(chosen) > CLOSER:
        chosen = np.sort(chosen[np.argpartition(flat[chosen], CLOSER)[:CLOSER]])
    row, column = np.divmod(chosen, values.shape[1])
    return row, column


def meetings(wanted: Ints, there: Ints) -> tuple[Ints, Ints]:
    """All pairs of an index into `wanted` and one into `there` at which the same stands."""
    order = np.argsort(there, kind="stable")
    ordered = there[order]
    start = np.searchsorted(ordered, wanted)
    count = np.searchsorted(ordered, wanted, side="right") - start
    one = np.repeat(np.arange(len(wanted)), count)
    number = np.arange(len(one)) - np.repeat(np.cumsum(count) - count, count)
    return one, order[start[one] + number]


def change(
    term: Term,
    share: Floats,
    count: int,
    added: Floats,
    here: Floats,
    taken: Floats,
    was: Floats,
) -> Floats:
    """A term's change when one host gets `added` on top of `here`, another loses `taken`.

    Not of a spread; those are judged together.
    """
    found: Floats
    if term.kind == "peak":
        all_of_them = float(eighth(share).sum())
        found = eighth(here + added)
        found += eighth(was - taken) - eighth(was) + (all_of_them - eighth(here))
        found /= count
        np.maximum(found, 0.0, out=found)
        for _ in range(3):
            np.sqrt(found, out=found)
        found -= (all_of_them / count) ** 0.125
    else:
        limit = term.limit
        found = np.maximum(here + added - limit, 0.0)
        found -= np.maximum(here - limit, 0.0)
        found += np.maximum(was - taken - limit, 0.0) - np.maximum(was - limit, 0.0)
        found /= count
    if term.weight != 1.0:
        found *= term.weight
    return found


def eighth(values: Floats) -> Floats:
    """The eighth power, which takes three products."""
    found: Floats = values * values
    found *= found
    found *= found
    return found


def spreads(
    weight: Floats,
    share: Floats,
    count: int,
    added: Floats,
    here: Floats,
    taken: Floats,
    was: Floats,
) -> Floats:
    """The change of all spreads together: shares and what changes them by quantity, in rows."""
    total = np.add.reduce(share, axis=1)[:, None]
    squares = np.einsum("ij,ij->i", share, share)[:, None]
    now = np.sqrt(np.maximum(squares / count - (total / count) ** 2, 0.0))
    found = here * 2.0
    found += added
    found *= added
    less = was * -2.0
    less += taken
    less *= taken
    found += less
    found += squares
    found /= count
    mean = added - taken
    mean += total
    mean /= count
    mean *= mean
    found -= mean
    np.maximum(found, 0.0, out=found)
    np.sqrt(found, out=found)
    found -= now
    summed: Floats = weight @ found
    return summed


def spreads_bend(weight: Floats, usual: Floats, share: Floats, count: int) -> tuple[Floats, Floats]:
    """What a little more on each host changes, and how that rises with what is added."""
    mean = np.add.reduce(share, axis=1) / count
    variance = np.maximum(np.einsum("ij,ij->i", share, share) / count - mean * mean, 0.0)
    # Where all is even already, a tangent would be far too steep: a guest of mean size counts.
    bend = np.sqrt(variance) + np.sqrt(variance + 2 * usual * usual / count)
    bend = 2 * weight / (count * np.maximum(bend, 1e-6))
    return (share - mean[:, None]) * bend[:, None], bend / 2


def slope_of(term: Term, share: Floats, count: int) -> Floats:
    """What a little more on each host changes, of a term that is no spread."""
    found: Floats
    if term.kind == "peak":
        # What a guest of mean size changes when it leaves: the curve is too steep for a tangent.
        step = max(term.usual, 1e-9)
        powers = eighth(share)
        total = max(1e-12, float(powers.sum()) / count)
        less = total - (powers - eighth(np.maximum(share - step, 0.0))) / count
        lower = np.sqrt(np.sqrt(np.sqrt(np.maximum(less, 0.0))))
        found = term.weight * (total**0.125 - lower) / step
    else:
        found = term.weight * (share > term.limit) / count
    return found
