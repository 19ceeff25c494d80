"""How long others wait for whoever has a lease: what they saw of it, by their own watch.

The end that stands in a lease is by its holder's clock, which may be wrong. So nobody compares it
with his own: who sees a lease unrenewed for its whole time takes it over (docs/adr/0021).
"""

from __future__ import annotations

import math

from vorch.ports import Clock, Lease


class Patience:
    """Since when one process has seen a lease as it is."""

    def __init__(self, clock: Clock, ttl_s: float) -> None:
        self._clock = clock
        self._ttl_s = ttl_s
        self.last: Lease | None = None
        self._over_at = -math.inf

    def look(self, last: Lease | None) -> None:
        """`last`: the lease as it stands in the store now."""
        if last == self.last:
            return
        wait_s = self._ttl_s
        if last is None or last.given_back:
            wait_s = 0.0
        elif self.last is None:
            # At first sight nobody knows for how long it has been so. One that ended long ago by
            # its own word has nobody who renews it, and a cluster that starts waits for nobody.
            wait_s = min(wait_s, max(0.0, last.expires_at - self._clock.now()))
        self.last = last
        self._over_at = self._clock.monotonic() + wait_s

    @property
    def left_s(self) -> float:
        """How much longer it is its holder's."""
        return max(0.0, self._over_at - self._clock.monotonic())
