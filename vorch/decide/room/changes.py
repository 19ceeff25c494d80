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


def change(
    term: Term,
    share: Floats,
    count: int,
    added: Floats,
    here: Floats,
    taken: Floats,
    was: Floats,
) -> Floats:
    """The term's change when one host gets `added` on top of `here`, another loses `taken`."""
    found: Floats
    if term.kind == "spread":
        total = float(share.sum())
        squares = float((share * share).sum())
        now = max(0.0, squares / count - (total / count) ** 2) ** 0.5
        found = here * 2.0 + added
        found *= added
        found += (taken - 2.0 * was) * taken + squares
        found /= count
        mean = (added - (taken - total)) / count
        mean *= mean
        found -= mean
        np.maximum(found, 0.0, out=found)
        np.sqrt(found, out=found)
        found -= now
    elif term.kind == "peak":
        powers = share**8
        all_of_them = float(powers.sum())
        found = here + added
        for _ in range(3):
            found *= found
        less = was - taken
        found += less**8 - was**8 + (all_of_them - here**8)
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


def slope_of(term: Term, share: Floats, count: int) -> tuple[Floats, float]:
    """What a little more on each host changes, and how that rises with what is added."""
    if term.kind == "spread":
        mean = float(share.sum()) / count
        variance = max(0.0, float((share * share).sum()) / count - mean * mean)
        # Where all is even already, a tangent would be far too steep: a guest of mean size counts.
        usual = 2 * term.usual**2 / count
        bend = 2 * term.weight / (count * max(1e-6, variance**0.5 + (variance + usual) ** 0.5))
        return (share - mean) * bend, bend / 2
    if term.kind == "peak":
        # What a guest of mean size changes when it leaves: the curve is too steep for a tangent.
        step = max(term.usual, 1e-9)
        total = max(1e-12, float((share**8).sum()) / count)
        less = total - (share**8 - np.maximum(share - step, 0.0) ** 8) / count
        lower = np.sqrt(np.sqrt(np.sqrt(np.maximum(less, 0.0))))
        return term.weight * (total**0.125 - lower) / step, 0.0
    return term.weight * (share > term.limit) / count, 0.0
