"""A list of VMs that hears of changes, as `list --watch` needs it, through a service."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NoReturn

from vorch.errors import Unreachable, Unsupported
from vorch.model import Cluster, VmStatus
from vorch.orchestrator import Picture
from vorch.remote.link import Link

# All that a list of VMs shows; `power` is a VM that runs, ends or moves.
EVENTS = "/v1/events?kind=vm,power,node"
AGAIN_S = 1.0


class FarPicture(Picture):
    """The part of `Picture` that lists VMs. The service's events say when to ask anew."""

    def __init__(self, link: Link, listed: Callable[[], tuple[VmStatus, ...]]) -> None:
        self._link = link
        self._listed = listed
        self._turn = threading.Condition()
        self._count = 0
        self._over = threading.Event()
        # It waits for the service, which says something every few seconds: nobody waits for it.
        threading.Thread(target=self._hear, name="vorch-far-picture", daemon=True).start()

    def close(self) -> None:
        self._over.set()

    def list(self, max_age_s: float | None = None) -> tuple[VmStatus, ...]:
        return self._listed()

    @property
    def changes(self) -> int:
        return self._count

    def wait(self, seen_changes: int, timeout_s: float) -> int:
        with self._turn:
            self._turn.wait_for(lambda: self._count != seen_changes, timeout_s)
            return self._count

    def look(self, max_age_s: float | None = None) -> Cluster:
        self._not_here()

    def _hear(self) -> None:
        while not self._over.is_set():
            try:
                for _ in self._link.events(EVENTS):
                    if self._over.is_set():
                        return
                    self._told()
            except Unreachable:
                self._told()
            self._over.wait(AGAIN_S)

    def _told(self) -> None:
        with self._turn:
            self._count += 1
            self._turn.notify_all()

    @staticmethod
    def _not_here() -> NoReturn:
        raise Unsupported(
            "cannot look at all of a cluster through its service: it has no verb for that; do that"
            " on a machine that has the cluster's state"
        )
