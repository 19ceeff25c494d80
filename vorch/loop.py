"""The watch as `vorch serve` runs it: step after step, for as long as the process lives.

What there is to say about hosts, VMs and rules is said once, when it changes. That is the log.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

from vorch.errors import VorchError
from vorch.orchestrator import Orchestrator, kept
from vorch.watch import ENDING_S, Pace, Watch

# Beside what plans under way are given, so long may the lease take to be given back.
RELEASE_S = 5.0
# Between two steps at the least.
BREATH_S = 0.25


def why_no_watch(cluster: Orchestrator) -> str:
    """Why nothing can be watched over here; "" when it can."""
    if cluster.world.witness is None:
        return "nothing here can look at hosts but their libvirt"
    if not cluster.settings.uri.startswith("rados:"):
        return "its state is on this machine alone, so nobody could take over from it"
    return ""


class WatchLoop:
    """One vorch process that watches, on a cluster that its owner closes after it."""

    def __init__(
        self,
        cluster: Orchestrator,
        *,
        say: Callable[[str], None],
        crashed: Callable[[BaseException], None],
    ) -> None:
        """`say` is told each line of the log. After `crashed` nobody watches here any more."""
        self._say = say
        self._crashed = crashed
        self._said: dict[str, str] = {}
        self._over = threading.Event()
        self._state = cluster.world.state
        self._every_s = cluster.settings.ha_every_s
        self._clock = cluster.world.clock
        self._watch = Watch(cluster.world, cluster.settings, say=self._changed)
        # A daemon, since what it waits for may never come; its end is waited for in `stop`.
        self._thread = threading.Thread(target=self._run, name="vorch-watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End in good order: whoever else there is can lead at once."""
        self._over.set()
        self._watch.wake()
        self._thread.join(ENDING_S + RELEASE_S)

    def join(self, seconds: float | None = None) -> bool:
        """Whether it has ended; waits that long for it."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while not self._over.is_set():
                pace = self._watch.step()
                self._tell(pace)
                self._rest(pace)
        except BaseException as exc:  # noqa: BLE001 - whatever it is, nobody watches any more
            with contextlib.suppress(VorchError):
                self._watch.close()
            self._crashed(exc)
            return
        try:
            self._watch.close()
        except VorchError as exc:
            self._say(f"the lease is not given back: {exc.message}")

    def _rest(self, pace: Pace) -> None:
        """Until the next look. One that takes its time begins before something is due."""
        if self._over.is_set():
            return
        seconds = self._every_s
        if pace.leading and pace.due_at is not None:
            left_s = pace.due_at - self._clock.now() - self._watch.look_s
            seconds = min(seconds, max(BREATH_S, left_s))
        self._watch.rest(seconds)

    # -- what there is to say

    def _changed(self, sentences: dict[str, str]) -> None:
        for about, sentence in sorted(sentences.items()):
            self._say_of(about, sentence)

    def _say_of(self, about: str, sentence: str) -> None:
        if self._said.get(about) != sentence:
            self._said[about] = sentence
            kind, _, name = about.partition("/")
            self._say(f"{kind} {name}: {sentence}" if name else sentence)

    def _tell(self, pace: Pace) -> None:
        """Who leads, and what is in the way."""
        if pace.trouble:
            self._say_of("watch", pace.trouble)
        elif pace.leading and self._watch.lease is not None:
            self._say_of("watch", f"this vorch leads, as number {self._watch.lease.epoch}")
        else:
            # What was said while this one led may not hold any more when it leads again.
            self._said = {"watch": self._said.get("watch", "")}
            self._say_of("watch", f"this vorch stands by: {self._who_leads()}")

    def _who_leads(self) -> str:
        with contextlib.suppress(VorchError):
            lease = kept.leader(self._state, self._clock.now())
            if lease is not None:
                return f"{lease.holder.partition(' ')[0]} leads, as number {lease.epoch}"
        return "nobody leads"
