"""What a service does on the side, every minute: recovers, and clears away what is over."""

from __future__ import annotations

import logging
import threading

from vorch import Doorkeeper, Orchestrator

EVERY_S = 60.0
# How long an end of the service waits for a round that is on its way. One that takes longer is cut
# off with the process; its journal is carried on by whoever comes next.
PATIENCE_S = 5.0

log = logging.getLogger(__name__)


class Upkeep:
    """One thread, one round at a time."""

    def __init__(self, cluster: Orchestrator, *, every_s: float = EVERY_S) -> None:
        self._cluster = cluster
        self._every_s = every_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._rounds, name="vorch-upkeep", daemon=True)
        # What takes long is carried on beside the rounds, one at a time.
        self._lasting: threading.Thread | None = None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join(PATIENCE_S)

    def _rounds(self) -> None:
        while not self._over.wait(self._every_s):
            self.round()

    def round(self) -> None:
        """Nothing that goes wrong here ends the service: the next round tries again."""
        try:
            for task in self._cluster.recover(force=False):
                log.info("recovered %s %s: %s", task.verb, task.subject, task.state)
            for done in self._cluster.trash_purge():
                log.info("purged %s", done.plan.subject)
            if self._cluster.world.uploads is not None:
                self._cluster.world.uploads.expire()
            Doorkeeper(self._cluster).expire()
            if self._lasting is None or not self._lasting.is_alive():
                self._lasting = threading.Thread(
                    target=self._carry_on, name="vorch-lasting", daemon=True
                )
                self._lasting.start()
        except Exception as exc:  # noqa: BLE001 - a loop that must outlive any one failure
            log.warning("upkeep: %s", exc)

    def _carry_on(self) -> None:
        """What an import that was left has yet to bring in."""
        try:
            for task in self._cluster.recover(force=False, lasting=True):
                log.info("carried on %s %s: %s", task.verb, task.subject, task.state)
        except Exception as exc:  # noqa: BLE001 - as above
            log.warning("upkeep: %s", exc)
