"""Whether there is room for the loss of a host, as whoever leads says it.

It is looked at while all rests and something has changed, aside, so that no look at the hosts has
to wait for it, and never for more than a small part of the time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future

from vorch.aside import begin
from vorch.availability import Availability, Report
from vorch.decide import spared
from vorch.decide.ha_status import SPARE
from vorch.model import Cluster
from vorch.ports import World

# At the least so long from one time to the next, and so many times as long as it takes.
EVERY_S = 10.0
REST = 20.0


class SpareWatch:
    """Of one process that watches. Not for several threads at once."""

    # For tests: told of each look that was not taken, with what was said in its place.
    skipped: Callable[[str, Cluster, Availability, int], bool] | None = None

    def __init__(self, world: World, overhead_mib: int, *, wake: Callable[[], None]) -> None:
        self._world = world
        self._overhead_mib = overhead_mib
        self._wake = wake
        self._next_at = float("-inf")
        self._look: object = None
        # What was looked at last, and what there was to say.
        self._stood: tuple[object, str] | None = None
        # None: it was not looked at yet.
        self._says: str | None = None
        # What a thread comes to, and how long that takes it.
        self._coming: Future[tuple[str, float]] | None = None

    def says(
        self,
        look: object,
        cluster: Cluster,
        ha: Availability,
        report: Report | None,
        *,
        rests: bool,
    ) -> str:
        """What there is to say now; "" where there is nothing to be kept.

        `look`: what it rests on, without what changes all the time. `rests`: nobody is at work.
        """
        now = self._world.clock.now()
        if self._coming is not None and self._coming.done():
            says, took_s = self._coming.result()
            self._coming = None
            self._take(says, took_s, now)
        if rests and self._coming is None and now >= self._next_at and look != self._look:
            self._look = look
            self._begin(cluster, ha, now)
        if self._says is None:
            # What the leader before this one has said holds until then.
            told = None if report is None else report.said.get(SPARE)
            return "" if told is None else told.text
        return self._says

    def _begin(self, cluster: Cluster, ha: Availability, now: float) -> None:
        if not self._world.threads:
            self._take(self._standing(cluster, ha), 0.0, now)
            return

        def run() -> tuple[str, float]:
            began = time.monotonic()
            says = self._standing(cluster, ha)
            return says, time.monotonic() - began

        self._coming = begin(run, name="vorch-spare")
        self._coming.add_done_callback(lambda _: self._wake())

    def _standing(self, cluster: Cluster, ha: Availability) -> str:
        """By one at a time: no second look begins while one is under way."""
        rests_on = spared.rests_on(cluster, ha)
        if self._stood is not None and self._stood[0] == rests_on:
            # Nothing has changed that it looks at. Tests ask all the same, and compare.
            says = self._stood[1]
            assert self.skipped is None or self.skipped(says, cluster, ha, self._overhead_mib)
            return says
        says = spared.standing(cluster, ha, self._overhead_mib)
        self._stood = (rests_on, says)
        return says

    def _take(self, says: str, took_s: float, now: float) -> None:
        self._says = says
        # Where there is nothing to keep it costs nothing to look again.
        self._next_at = now + max(EVERY_S, REST * took_s) if says else now
