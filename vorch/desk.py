"""The desk of a service: takes what is asked for, writes it down as a job, has it done.

A job stands in the store before anything of it begins, so that none is lost with the process:
`Orchestrator.recover` ends those of the dead as their tasks ended.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import json
import logging
import re
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from functools import partial
from typing import Any

from vorch.acting import Acting, acting
from vorch.aside import Workers
from vorch.codec import HIDDEN, decode, encode, shown
from vorch.decide.left_jobs import failed
from vorch.errors import Conflict, Invalid, TooMany, VorchError
from vorch.execute import stale
from vorch.model import Job, JobState
from vorch.orchestrator import Orchestrator
from vorch.orchestrator.jobs import held
from vorch.ports import Change
from vorch.verbs import ENTRIES

# So many are done at once, and so many more may wait for their turn.
AT_ONCE = 32
WAITING = 256
RETRY_AFTER_S = 5
# How often somebody who waits for the job of another process looks again.
POLL_S = 0.2
# Old jobs are cleared away once in so many.
TRIM_EVERY = 16
KEY_LIMIT = 255

log = logging.getLogger(__name__)


class Desk:
    """Safe to use from several threads."""

    def __init__(
        self, cluster: Orchestrator, *, at_once: int = AT_ONCE, waiting: int = WAITING
    ) -> None:
        self._cluster = cluster
        self._most = at_once + waiting
        self._workers = Workers(at_once, name="vorch-job")
        self._running: dict[str, Future[Job]] = {}
        self._lock = threading.Lock()
        self._taken = 0
        self._over = threading.Event()
        self._beat: threading.Thread | None = None

    def take(
        self,
        verb: str,
        arguments: Mapping[str, Any],
        *,
        who: str,
        cluster: Orchestrator | None = None,
        key: str = "",
        expected: Mapping[str, int] | None = None,
    ) -> Job:
        """Write it down and let it begin. With the `key` of an earlier one: that one.

        `cluster`: the verbs as whoever asks has them. `expected`: documents that must still be at
        these versions (`Stale`). Raises `TooMany` when too many are waiting already.
        """
        self.check(expected or {})
        job = self._new(verb, arguments, who, key)
        with self._lock:
            if self._over.is_set() or len(self._running) >= self._most:
                raise TooMany(
                    f"cannot {verb}: {len(self._running)} jobs are at work or waiting; try again"
                    " in a while",
                    retry_after_s=RETRY_AFTER_S,
                )
            future: Future[Job] = Future()
            self._running[job.id] = future
            # Before it is written down: what is of this process and not held is of the dead.
            held.add(job.id)
        try:
            earlier = self._write_down(job)
        except BaseException:
            self._let_go(job.id)
            raise
        if earlier is not None:
            self._let_go(job.id)
            if not _same(earlier, verb, arguments):
                raise Invalid(
                    f"cannot {verb}: that Idempotency-Key was used for something else before (job"
                    f" {earlier.id}); use a new one for each thing that is asked for",
                    job=earlier.id,
                )
            return earlier
        self._keep_beating()
        one = Acting(who=who, job=job.id, expected=dict(expected or {}))
        work = (job, cluster or self._cluster, dict(arguments), one, future)
        self._workers.submit(partial(self._work, *work))
        return job

    def check(self, expected: Mapping[str, int]) -> None:
        for key, version in expected.items():
            document = self._cluster.world.state.get(key)
            if document is None or document.version != version:
                raise stale(key)

    def version(self, verb: str, arguments: Mapping[str, Any]) -> int | None:
        """Of the document that this verb is about; None if there is none."""
        entry = ENTRIES[verb]
        document = self._cluster.world.state.get(f"{entry.document}/{arguments[entry.named]}")
        return None if document is None else document.version

    def wait(self, job_id: str, timeout_s: float) -> Job:
        """The job when it is over, or as it is when the time is."""
        with self._lock:
            future = self._running.get(job_id)
        if future is not None:
            wait_for([future], timeout_s)
            if future.done() and not future.cancelled():
                return future.result()
            return self._cluster.job_show(job_id)
        # Of another process, or over.
        clock = self._cluster.world.clock
        until = clock.now() + timeout_s
        while True:
            job = self._cluster.job_show(job_id)
            if job.over or clock.now() >= until or self._over.is_set():
                return job
            clock.sleep(POLL_S)

    def future(self, job_id: str) -> Future[Job] | None:
        """Of a job of this process that is not over, what tells of its end."""
        with self._lock:
            return self._running.get(job_id)

    @property
    def busy(self) -> int:
        """How many are at work or waiting."""
        return len(self._running)

    def close(self, timeout_s: float = 0.0) -> bool:
        """Take no more, and wait for those at work; whether all are over.

        What is not, as what has not begun, is carried on by whoever recovers.
        """
        self._over.set()
        with self._lock:
            begun = {job_id: one for job_id, one in self._running.items() if not one.cancel()}
            never = self._running.keys() - begun.keys()
            for job_id in never:
                # Whoever waits for it is told.
                self._running[job_id].set_running_or_notify_cancel()
        for job_id in never:
            self._let_go(job_id)
        self._workers.end()
        return not wait_for(begun.values(), timeout_s).not_done and not never

    # -- inside

    def _new(self, verb: str, arguments: Mapping[str, Any], who: str, key: str) -> Job:
        entry = ENTRIES[verb]
        world = self._cluster.world
        now = world.clock.now()
        subject = str(arguments.get(entry.named, "")) if entry.named else ""
        job = Job(
            id=world.chance.take(8).hex(),
            verb=verb,
            subject=subject,
            who=who,
            started_at=now,
            arguments=without_secrets(verb, arguments),
            runner=world.processes.me(),
            beat_at=now,
        )
        if not key:
            return job
        if len(key) > KEY_LIMIT or not key.isprintable():
            raise Invalid(
                f"cannot use that Idempotency-Key: it is up to {KEY_LIMIT} printable characters"
            )
        return dataclasses.replace(
            job,
            key=f"idem/{_digest(who, key)}",
            fingerprint=_fingerprint(world.chance.take(16).hex(), verb, arguments),
        )

    def _write_down(self, job: Job) -> Job | None:
        """None: it stands there now. Else the one that was asked for with the same key before."""
        state = self._cluster.world.state
        changes = [Change(f"job/{job.id}", 0, encode(job))]
        if not job.key:
            state.commit(changes)
            return None
        try:
            state.commit([Change(job.key, 0, {"job": job.id}), *changes])
        except Conflict as exc:
            if exc.fields.get("key") != job.key:
                raise
            earlier = state.get(job.key)
            if earlier is None:
                raise
            return self._cluster.job_show(str(earlier.body["job"]))
        return None

    def _work(
        self,
        job: Job,
        cluster: Orchestrator,
        arguments: dict[str, Any],
        one: Acting,
        future: Future[Job],
    ) -> None:
        with self._lock:
            if future.cancelled():
                return
            future.set_running_or_notify_cancel()
        clock = self._cluster.world.clock
        try:
            with acting(one):
                self._cluster.executor.check_job(job.id, job.verb, job.subject)
                value = getattr(cluster, job.verb)(**arguments)
            ended = dataclasses.replace(
                job,
                state=JobState.DONE,
                finished_at=clock.now(),
                tasks=tuple(one.tasks),
                result=shown(value),
            )
        except VorchError as exc:
            ended = failed(job, exc, one.tasks, clock.now())
        except Exception:
            # What went wrong inside is for the log; whoever asked is told that it did.
            log.exception("job %s: a mistake in %s", job.id, job.verb)
            mistake = VorchError(
                f"cannot {job.verb}: a mistake in vorch itself; the service's log has more",
                job=job.id,
            )
            ended = failed(job, mistake, one.tasks, clock.now())
        except BaseException:  # noqa: BLE001 - nobody is there to hear of it
            # The process ends: whoever recovers finds the job as it stands.
            self._let_go(job.id)
            return
        self._record_end(ended)
        future.set_result(ended)
        self._let_go(job.id)

    def _record_end(self, job: Job) -> None:
        state = self._cluster.world.state
        try:
            state.commit(
                [
                    Change(f"job/{job.id}", None, encode(job)),
                    Change(f"cancel/{job.id}", None, None),
                ]
            )
            self._taken += 1
            if self._taken % TRIM_EVERY == 0:
                self._trim()
        except VorchError as exc:
            # It is let go of, so the next round of `recover` writes down how its tasks ended.
            log.warning("job %s: its end cannot be written down: %s", job.id, exc)

    def _trim(self) -> None:
        """As many are kept as tasks are, and a key as long as its job."""
        state = self._cluster.world.state
        jobs = [decode(Job, document.body) for document in state.read(["job"]).values()]
        over = sorted((job for job in jobs if job.over), key=lambda job: (job.started_at, job.id))
        surplus = over[: max(0, len(over) - self._cluster.settings.tasks_kept)]
        keys = [key for job in surplus for key in (f"job/{job.id}", job.key) if key]
        if keys:
            state.commit([Change(key, None, None) for key in keys])

    def _let_go(self, job_id: str) -> None:
        with self._lock:
            self._running.pop(job_id, None)
        held.discard(job_id)

    def _keep_beating(self) -> None:
        """A sign of life for those who cannot see this process."""
        if not self._cluster.world.threads:
            return
        with self._lock:
            if self._beat is None:
                self._beat = threading.Thread(target=self._beats, name="vorch-jobs", daemon=True)
                self._beat.start()

    def _beats(self) -> None:
        every_s = max(0.5, self._cluster.settings.runner_silent_after_s / 3)
        state = self._cluster.world.state
        while not self._over.wait(every_s):
            with self._lock:
                ours = list(self._running)
            for job_id in ours:
                try:
                    document = state.get(f"job/{job_id}")
                    if document is None or document.body.get("state") != "running":
                        continue
                    body = {**document.body, "beat_at": self._cluster.world.clock.now()}
                    state.commit([Change(document.key, document.version, body)])
                except VorchError:
                    # It has just ended, or the store is away: the next beat tries again.
                    continue


def _digest(*words: str) -> str:
    return hashlib.sha256("\0".join(words).encode()).hexdigest()


def _same(job: Job, verb: str, arguments: Mapping[str, Any]) -> bool:
    """Whether its key was used for just this."""
    salt = job.fingerprint.partition(":")[0]
    return hmac.compare_digest(_fingerprint(salt, verb, arguments), job.fingerprint)


def without_secrets(verb: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments as they may be seen by others."""
    entry = ENTRIES[verb]
    told: dict[str, Any] = {}
    for name, value in arguments.items():
        if name in entry.secrets:
            told[name] = HIDDEN if value else value
        elif name in entry.places and isinstance(value, str):
            told[name] = re.sub(r"//[^/@]*@", "//", value)
        else:
            told[name] = shown(value)
    return told


def _fingerprint(salt: str, verb: str, arguments: Mapping[str, Any]) -> str:
    text = json.dumps([verb, dict(arguments)], sort_keys=True, default=_plain)
    return f"{salt}:{_digest(salt, text)}"


def _plain(value: Any) -> Any:
    return encode(value) if dataclasses.is_dataclass(value) else str(value)
