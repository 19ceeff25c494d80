"""How many wrong passwords lock a user out, and for how long."""

from __future__ import annotations

from vorch.rights import Failures

# A user that was left alone for so long begins anew.
FORGOTTEN_AFTER_S = 3600.0
LONGEST_S = 900.0


def failed(before: Failures, now: float, *, lock_after: int, lock_s: float) -> Failures:
    """After so many wrong ones in a row each further one locks for twice as long as the last."""
    count = 1 if now - before.last_at > FORGOTTEN_AFTER_S else before.count + 1
    over = count - lock_after
    locked_s = 0.0 if over < 0 else min(lock_s * 2.0 ** min(over, 30), max(lock_s, LONGEST_S))
    return Failures(count=count, last_at=now, locked_until=now + locked_s if locked_s else 0.0)


def locked_for(failures: Failures, now: float) -> float:
    """How long nobody gets in any more, whatever password is given; 0: not at all."""
    return max(0.0, failures.locked_until - now)
