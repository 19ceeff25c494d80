"""The one loop that acts: open the journal, do each step, close; on failure undo what was done.

The journal is a document per plan ("plan/…"). It is opened in one commit together with the claims
on everything the plan works on, so of two processes that want the same VM one gets `Conflict`. Each
step's end is a commit, too, that holds only if this process still owns the plan. A process that
dies leaves the journal behind; the next one takes it over and finishes or undoes it.
"""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from vorch.acting import Acting, now_acting
from vorch.acts import DO, UNDO, CameToPass
from vorch.codec import Coded, encode
from vorch.config import Settings
from vorch.decide import audit
from vorch.errors import (
    BadConfig,
    Cancelled,
    Conflict,
    Denied,
    Invalid,
    NoRoom,
    NotFound,
    Stale,
    StepFailed,
    Unreachable,
    Unsupported,
    VorchError,
)
from vorch.frozen import replace
from vorch.model import TASK_LOG_LINES, Node, Task, TaskState
from vorch.plan import FenceNode, Journal, Plan, Save, Step
from vorch.ports import Change, Document, Fencer, Lease, Progress, State, World

# Progress reaches the store at most this often, so that a fast copy is not slowed by it.
PROGRESS_EVERY_S = 1.0
# A plan that could not be finished is tried again by itself no more often than this.
RETRY_STUCK_AFTER_S = 30.0
# Old tasks are cleared away once in about this many plans.
TRIM_EVERY = 16
# And old entries of the audit log, of which there are more.
TRIM_AUDIT_EVERY = 64

# Errors that say: this was looked at and not done. Others leave it open whether it was.
REFUSALS = (Conflict, Invalid, NotFound, NoRoom, Unsupported, Denied, BadConfig)

Watcher = Callable[[Task], None]
# Called with a name and the journal at each point where a crash could fall; for tests and tracing.
Hook = Callable[[str, Journal], None]

# What else is to be written in the commit that writes these documents.
Beside = Callable[[Sequence[tuple[Save, dict[str, Any] | None]]], Sequence[Change]]


# Plans that a thread of this process is at, by their ids.
_at_work: set[str] = set()
# The one that this thread is at, for its log.
_current: ContextVar[str] = ContextVar("vorch-task", default="")


@contextmanager
def _working_on(plan_id: str) -> Iterator[None]:
    _at_work.add(plan_id)
    token = _current.set(plan_id)
    try:
        yield
    finally:
        _current.reset(token)
        _at_work.discard(plan_id)


def current_task() -> str:
    """The id of the task that this thread is at; "" when it is at none."""
    return _current.get()


def await_tasks(timeout_s: float) -> tuple[str, ...]:
    """Waits until this process is at no task any more. Those that it still is at, by their ids."""
    until = time.monotonic() + timeout_s
    while _at_work and time.monotonic() < until:
        time.sleep(0.05)
    return tuple(sorted(_at_work))


class _Lost(Conflict):
    """Another process has taken this plan over; this one must not touch anything any more."""


def claim_key(key: str) -> str:
    return "claim/" + key.replace("/", ".", 1)


def trim_audit(state: State, kept: int) -> None:
    """The oldest go."""
    for surplus in batched(by_time(state.read(["audit"]))[: -kept or None], 500):
        state.commit([Change(key, None, None) for key in surplus])


def by_time(documents: Mapping[str, Document]) -> list[str]:
    """Ids begin with the time; in the same thousandth of a second, what was written first."""
    return sorted(documents, key=lambda key: (key.partition(".")[0], documents[key].version))


def batched(keys: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for first in range(0, len(keys), size):
        yield keys[first : first + size]


class Executor:
    """Carries out plans in one world. Thread-safe: each run keeps its own state."""

    def __init__(
        self,
        world: World,
        settings: Settings,
        *,
        watch: Watcher | None = None,
        hook: Hook | None = None,
        lease: Callable[[], Lease | None] = lambda: None,
        beside: Beside = lambda saves: [],
    ) -> None:
        self.world = world
        self.settings = settings
        self.watch = watch
        self.hook = hook
        # Of a leader: every commit holds only while nobody else leads.
        self.lease = lease
        self.beside = beside

    def run(self, plan: Plan) -> Task:
        """Do all of it or none of it, and say so. Raises what went wrong, after undoing."""
        one = now_acting()
        if one is not None and one.job:
            self.check_job(one.job, plan.verb, plan.subject)
        if one is not None and one.expected:
            plan = replace(plan, reads={**plan.reads, **one.expected})
        run = _Run(self, plan)
        with _working_on(run.journal.id):
            try:
                run.open()
            except Conflict as exc:
                if one is not None and exc.fields.get("key") in one.expected:
                    raise stale(str(exc.fields["key"])) from exc
                raise
            if one is not None:
                one.expected = {}
                one.tasks.append(run.journal.id)
            return run.go()

    def check_job(self, job: str, verb: str, subject: str) -> None:
        """Of a job that was cancelled no further plan begins."""
        if self.world.state.get(f"cancel/{job}") is not None:
            raise Cancelled(f"cannot {verb} {subject!r}: job {job!r} was cancelled", job=job)

    # -- recovery -----------------------------------------------------------------------------

    def recover(self, *, force: bool = False, lasting: bool = False) -> tuple[Task, ...]:
        """Finish or undo every plan whose process has ended. `force`: stuck ones at once, too.

        `lasting`: also those of which only such a step is left as takes long and holds up nobody.
        """
        done = []
        for document in self.world.state.read(["plan"]).values():
            journal = document.read(Journal)
            if not lasting and self._lasts(journal):
                continue
            if self.abandoned(journal, force=force):
                task = self.take_over(document, journal)
                if task is not None:
                    done.append(task)
        return tuple(done)

    def _lasts(self, journal: Journal) -> bool:
        steps = journal.plan.steps[journal.position :]
        return (
            journal.direction == "forward"
            and bool(steps)
            and hasattr(steps[0], "lasting")
            # One that was cancelled is undone by whoever comes.
            and self.world.state.get(f"cancel/{journal.id}") is None
        )

    def abandoned(self, journal: Journal, *, force: bool = False) -> bool:
        silent_s = self.world.clock.now() - journal.beat_at
        if not journal.runner:
            return force or silent_s >= RETRY_STUCK_AFTER_S
        if journal.runner == self.world.processes.me():
            # The store was silent for so long that even this process had to let go of it.
            return journal.id not in _at_work
        alive = self.world.processes.alive(journal.runner)
        if alive is False:
            return True
        lease = self.lease()
        if lease is not None and 0 < journal.epoch < lease.epoch:
            # Its process led once, and can write nothing any more: it stands still, or hears
            # nothing of the store.
            return silent_s >= min(self.settings.runner_silent_after_s, self.settings.ha_lease_s)
        return alive is None and silent_s >= self.settings.runner_silent_after_s

    def take_over(self, document: Document, journal: Journal) -> Task | None:
        """Carry a plan on; None when another process was quicker."""
        run = _Run(self, journal.plan, journal=journal, version=document.version)
        with _working_on(journal.id):
            try:
                run.adopt()
            except Conflict:
                return None
            return run.carry_on()

    def holder(self, key: str) -> tuple[Document, Journal] | None:
        """The plan that has a claim on this document, if any."""
        claim = self.world.state.get(claim_key(key))
        if claim is None:
            return None
        document = self.world.state.get(f"plan/{claim.body['plan']}")
        return None if document is None else (document, document.read(Journal))

    def request_cancel(self, task_id: str) -> None:
        """Ask the process that runs the task to undo it. Only what runs can be cancelled."""
        document = self.world.state.get(f"task/{task_id}")
        if document is None:
            raise NotFound(
                f"cannot cancel task {task_id!r}: there is none of that id; `vorch task list` shows"
                " all",
                task=task_id,
            )
        task = document.read(Task)
        if task.over:
            raise Conflict(
                f"cannot cancel task {task_id!r}: it is {task.state.value} already", task=task_id
            )
        self.world.state.commit([Change(f"cancel/{task_id}", None, {})])


def stale(key: str) -> Stale:
    kind, _, name = key.partition("/")
    return Stale(
        f"cannot change {kind} {name!r}: it was changed since you looked at it; look again, and"
        " decide anew",
        **{kind: name},
    )


class _Run:
    """One plan on its way. Also the `Progress` that its acts report to."""

    def __init__(
        self,
        executor: Executor,
        plan: Plan,
        *,
        journal: Journal | None = None,
        version: int = 0,
    ) -> None:
        self.executor = executor
        self.world = executor.world
        # The one that it was begun under, even if this process leads again later.
        self.lease = executor.lease()
        now = self.world.clock.now()
        self.journal = journal or Journal(
            id=self.world.chance.take(6).hex(),
            plan=plan,
            runner=self.world.processes.me(),
            beat_at=now,
            epoch=0 if self.lease is None else self.lease.epoch,
        )
        self.plan = plan
        self.version = version
        one = now_acting() or Acting(who=self.world.who)
        self.task = Task(
            id=self.journal.id,
            verb=plan.verb,
            subject=plan.subject,
            why=plan.why,
            who=one.who,
            job=one.job,
            started_at=now,
        )
        # The journal of a commit that this process has not seen the end of.
        self.tried: tuple[Journal | None] | None = None
        self.closed = False
        self.lock = threading.RLock()
        self.reported_at = now
        self.undoing = False
        # It was too late to undo, so a cancel is too late, too.
        self.turned = False

    # -- the journal --------------------------------------------------------------------------

    @property
    def plan_key(self) -> str:
        return f"plan/{self.journal.id}"

    @property
    def task_key(self) -> str:
        return f"task/{self.journal.id}"

    def open(self) -> None:
        """One commit: all claims, the versions the plan was decided from, the journal, the task."""
        claims = [
            Change(claim_key(key), 0, {"plan": self.journal.id, "key": key})
            for key in self.plan.claims
        ]
        reads = [Change(key, version, check_only=True) for key, version in self.plan.reads.items()]
        turns = [
            Change(key, version, {"plan": self.journal.id})
            for key, version in self.plan.turns.items()
        ]
        self._say()
        task = Change(self.task_key, 0, Coded(self.task))
        self._commit(self.journal, *claims, *reads, *turns, task)
        self._hook("opened")

    def _commit(self, journal: Journal | None, *changes: Change) -> None:
        """A commit that leaves the journal so, None: gone. Ours only while we own it."""
        self._look_back()
        body = None if journal is None else encode(journal)
        self.tried = (journal,)
        try:
            self.version = self.world.state.commit(
                [*changes, Change(self.plan_key, self.version, body)], lease=self.lease
            )
        except Unreachable:
            if not self._look_back():
                raise
        except Conflict:
            self.tried = None
            raise
        else:
            self._kept(journal)

    def _look_back(self) -> bool:
        """Whether the last commit whose end this process did not see has come to pass.

        Its answer was lost, or Ctrl-C came amid it. It is looked up, not guessed: else the version
        known here would be wrong from then on, and this process would take its own write for that
        of another one.
        """
        if self.tried is None:
            return False
        (journal,) = self.tried
        document = self.world.state.get(self.plan_key)
        if document is None:
            came_to_pass = journal is None
        else:
            came_to_pass = journal is not None and document.read(Journal) == journal
        if came_to_pass:
            self.version = self.version if document is None else document.version
            self._kept(journal)
        self.tried = None
        return came_to_pass

    def _kept(self, journal: Journal | None) -> None:
        self.closed = journal is None
        self.journal = journal or self.journal
        self.tried = None

    def adopt(self) -> None:
        """Become the one who works on an abandoned plan."""
        document = self.world.state.get(self.task_key)
        if document is not None:
            self.task = document.read(Task)
        self.task = replace(self.task, state=TaskState.RUNNING, error=None)
        epoch = 0 if self.lease is None else self.lease.epoch
        self._write(runner=self.world.processes.me(), epoch=epoch)

    def _write(self, *extra: Change, **changed: Any) -> None:
        """Commit the journal with what changed in it, and the task. Ours only while we own it."""
        with self.lock:
            journal = replace(self.journal, **{"beat_at": self.world.clock.now(), **changed})
            try:
                self._commit(journal, *extra, Change(self.task_key, None, Coded(self.task)))
            except Conflict as exc:
                if exc.fields.get("key") == self.plan_key or "lease" in exc.fields:
                    raise _Lost(
                        f"cannot go on with {self.plan.verb} {self.plan.subject!r}: another process"
                        " has taken it over since this one was silent too long",
                        task=self.task.id,
                        key=self.plan_key,
                    ) from exc
                raise

    def _close(self, state: TaskState, *extra: Change) -> None:
        """The last commit: the journal and the claims go, the task says how it ended."""
        with self.lock:
            self.task = replace(
                self.task,
                state=state,
                finished_at=self.world.clock.now(),
                percent=100.0 if state is TaskState.DONE else self.task.percent,
                doing="",
                result=dict(self.journal.outcomes),
            )
            self._hook("closing")
            entry = audit.of_task(self.task)
            cancel = self.world.state.get(f"cancel/{self.task.id}")
            self._commit(
                None,
                *extra,
                *(Change(claim_key(key), None, None) for key in self.plan.claims),
                *([Change(cancel.key, None, None)] if cancel is not None else []),
                Change(self.task_key, None, Coded(self.task)),
                # In the same commit: what was done is in the log, whoever ended it.
                Change(f"audit/{entry.id}", None, Coded(entry)),
            )
        self.world.audit(entry)
        if int(self.journal.id[:4], 16) % TRIM_EVERY == 0:
            self._trim()
        self._tell()

    def _trim(self) -> None:
        found = self.world.state.read(["task"])
        if len(found) <= self.executor.settings.tasks_kept:
            return
        tasks = [document.read(Task) for document in found.values()]
        over = sorted((t for t in tasks if t.over), key=lambda t: (t.started_at, t.id))
        surplus = over[: max(0, len(over) - self.executor.settings.tasks_kept)]
        if surplus:
            self.world.state.commit([Change(f"task/{task.id}", None, None) for task in surplus])
        if int(self.journal.id[:4], 16) % TRIM_AUDIT_EVERY == 0:
            trim_audit(self.world.state, self.executor.settings.audit_kept)

    # -- forward ------------------------------------------------------------------------------

    def go(self) -> Task:
        """Forward from where the journal stands; on failure back, if that can be."""
        with self._heartbeat():
            try:
                self._forward()
            except _Lost:
                raise
            except (Exception, KeyboardInterrupt, SystemExit) as exc:
                seen = self._failed(exc)
                if seen is not None:
                    raise seen from exc
        return self.task

    def _forward(self) -> None:
        steps = self.plan.steps
        while self.journal.position < len(steps):
            position = self.journal.position
            step = steps[position]
            outcomes: dict[str, Any] = {}
            if not isinstance(step, Save):
                self._say()
                self._check_cancel()
                self._hook("before")
                self._check_lease()
                outcomes = self._act(step)
                self._hook("after")
                # A cancel that was accepted while this step ran is kept, however quick it was.
                self._check_cancel()
                position += 1
            # Documents are written in the same commit that says so, together with the end of the
            # step before them.
            outcomes = {**self.journal.outcomes, **outcomes}
            saved = []
            while position < len(steps) and isinstance(saving := steps[position], Save):
                saved.append((saving, _filled(saving, outcomes)))
                position += 1
            saves = [Change(saving.key, None, body) for saving, body in saved]
            saves += self.executor.beside(saved)
            if position == len(steps):
                # The position stays until the commit has come to pass: a journal that were kept
                # after a failure would say that its documents are written.
                self.journal = replace(self.journal, outcomes=outcomes)
                self._close(TaskState.DONE, *saves)
                return
            self._write(*saves, position=position, outcomes=outcomes)
        self._close(TaskState.DONE)

    def _act(self, step: Step) -> dict[str, Any]:
        """Do a step. One that cannot be undone, and of which one cannot tell whether it happened,
        is done again: it is safe to repeat, and to go back would be to guess.
        """
        world = self._world_for(step)
        try:
            return DO[type(step)](step, world, self) or {}
        except Exception as exc:
            if step.undoable or isinstance(exc, REFUSALS):
                raise
            return DO[type(step)](step, world, self) or {}

    def _world_for(self, step: Step) -> World:
        """A fence has several ways: whoever fell asleep over the first must not go the second."""
        if self.lease is None or not isinstance(step, FenceNode):
            return self.world
        asking = tuple(_AskingFencer(fencer, self._check_lease) for fencer in self.world.fencers)
        return replace(self.world, fencers=asking)

    # -- backward -----------------------------------------------------------------------------

    def _can_undo(self) -> bool:
        return all(step.undoable for step in self.plan.steps[: self.journal.position + 1])

    def _failed(self, exc: BaseException) -> BaseException | None:
        """Undo and record; the exception that the caller should see.

        None when it could only be finished, and is.
        """
        with self.lock:
            self._look_back()
        if self.closed:
            # What came, came after its end.
            self._tell()
            return exc
        error = self._as_error(exc)
        # A step that was refused has not happened, so what was before it can go back, unless that
        # is of the kind that cannot. Of one that failed in another way nobody knows.
        begun = self.journal.position + (not isinstance(exc, REFUSALS))
        if not all(step.undoable for step in self.plan.steps[:begun]):
            self._stuck(error)
        # It may have been about to be closed as done.
        self.task = replace(
            self.task, error=error.as_dict(), state=TaskState.RUNNING, finished_at=None
        )
        done = self.plan.steps[: self.journal.position]
        self._backward(
            TaskState.CANCELLED if isinstance(error, Cancelled) else TaskState.FAILED,
            problem=error,
        )
        if not isinstance(exc, Exception):
            return exc
        if self.task.state is TaskState.DONE:
            return None
        left = [leaves for step in done if (leaves := getattr(step, "leaves", ""))]
        undone = "; what had been done was undone" if done else ""
        if left:
            undone += f", but {' and '.join(left)}"
        return type(error)(error.message + undone, **{**error.fields, "task": self.task.id})

    def _as_error(self, exc: BaseException) -> VorchError:
        if isinstance(exc, VorchError):
            return exc
        what = f"{self.plan.verb} {self.plan.subject!r}"
        if not isinstance(exc, Exception):
            return Cancelled(f"cannot finish {what}: it was interrupted")
        steps = self.plan.steps
        step = steps[min(self.journal.position, len(steps) - 1)]
        return StepFailed(
            f"cannot {what}: it failed to {step}: {type(exc).__name__}: {exc}", step=step.kind
        )

    def _backward(self, state: TaskState, *, problem: VorchError | None) -> None:
        self.undoing = True
        steps = self.plan.steps
        position = min(self.journal.position, len(steps) - 1)
        if self.journal.direction == "forward":
            self._write(
                direction="backward",
                position=position,
                problem=problem.as_dict() if problem else None,
            )
        try:
            while self.journal.position >= 0:
                step = steps[self.journal.position]
                before: list[Change] = []
                if isinstance(step, Save):
                    if self._saved(step):
                        before = [Change(step.key, None, step.before)]
                        before += self.executor.beside([(step, step.before)])
                elif step.undoable:
                    self._hook("undoing")
                    try:
                        UNDO[type(step)](step, self.world, self)
                    except CameToPass:
                        self._turn()
                        return
                    self._hook("undone")
                if self.journal.position == 0:
                    self._close(state, *before)
                    return
                self._write(*before, position=self.journal.position - 1)
            self._close(state)
        except _Lost:
            raise
        except Exception as exc:  # noqa: BLE001 whatever it was, the journal must say where it stands
            self._stuck(self._as_error(exc), problem)

    def _turn(self) -> None:
        """Forward again: what was to be undone has come to pass for good."""
        self.undoing, self.turned = False, True
        self.task = replace(self.task, error=None)
        self._write(direction="forward", problem=None)
        self._forward()

    def _saved(self, step: Save) -> bool:
        """Whether a Save came to pass. Its document is claimed, so nobody else wrote it."""
        document = self.world.state.get(step.key)
        wanted = _filled(step, self.journal.outcomes)
        return (document.body if document else None) == wanted

    def _stuck(self, error: VorchError, first: VorchError | None = None) -> None:
        """Neither back nor forth now: leave the journal for `recover`, and say what is open."""
        where = "undo" if self.undoing else "finish"
        original = first or error
        self.task = replace(
            self.task,
            state=TaskState.STUCK,
            error={**original.as_dict(), "open": f"cannot {where} it yet: {error.message}"},
        )
        self._write(runner={})
        self._tell()
        raise StepFailed(
            f"cannot {where} {self.plan.verb} {self.plan.subject!r}: {error.message}; it is kept"
            " as it is and tried again by itself, or now with `vorch recover`",
            task=self.task.id,
            cause=original.as_dict(),
        ) from error

    # -- carrying on what another process left ----------------------------------------------------

    def carry_on(self) -> Task:
        """Back if everything so far can be undone by vorch alone, else forward."""
        ended = StepFailed(
            f"cannot finish {self.plan.verb} {self.plan.subject!r}: the process that ran it ended;"
            " what had been done was undone"
        )
        with self._heartbeat():
            try:
                if self._goes_forward():
                    self._log("carried on after the process that ran it had ended")
                    try:
                        self._forward()
                        return self.task
                    except _Lost:
                        raise
                    except Exception as exc:  # noqa: BLE001 as above
                        if not (self._can_undo() and isinstance(exc, (*REFUSALS, Cancelled))):
                            self._stuck(self._as_error(exc))
                self.task = replace(self.task, error=self.journal.problem or ended.as_dict())
                self._backward(TaskState.UNDONE, problem=None)
            except StepFailed:
                # Recorded as stuck; others may still be recovered.
                pass
        return self.task

    def _goes_forward(self) -> bool:
        if self.journal.direction == "backward":
            return False
        begun = self.plan.steps[: self.journal.position + 1]
        return not self._can_undo() or any(
            hasattr(s, "undo_needs_guest") or hasattr(s, "goes_on_alone") for s in begun
        )

    # -- saying how far it is ---------------------------------------------------------------------

    def __call__(self, percent: float | None = None, line: str | None = None) -> None:
        """Progress of the step at hand, from inside an act."""
        steps = max(1, len(self.plan.steps))
        with self.lock:
            if percent is not None and not self.undoing:
                part = min(100.0, max(0.0, percent)) / 100.0
                overall = 100.0 * (self.journal.position + part) / steps
                self.task = replace(self.task, percent=round(overall, 1))
            if line is not None:
                self._log(line)
            now = self.world.clock.now()
            if now - self.reported_at >= PROGRESS_EVERY_S:
                self.reported_at = now
                self._write()
                self._check_cancel()
            self._tell()

    def _say(self) -> None:
        steps = self.plan.steps
        if self.journal.position < len(steps):
            doing = str(steps[self.journal.position])
            percent = round(100.0 * self.journal.position / len(steps), 1)
            self._log(doing, doing=doing, percent=percent)
            self._tell()

    def _log(self, line: str, **changed: Any) -> None:
        """Also with what else of the task is `changed`."""
        if not self.task.log or self.task.log[-1] != line:
            changed["log"] = (*self.task.log, line)[-TASK_LOG_LINES:]
        if changed:
            self.task = replace(self.task, **changed)

    def _tell(self) -> None:
        if self.executor.watch is not None:
            self.executor.watch(self.task)

    def _hook(self, point: str) -> None:
        if self.executor.hook is not None:
            self.executor.hook(point, self.journal)

    def _check_cancel(self) -> None:
        if self.undoing or self.turned or not self._can_undo():
            return
        if self.world.state.get(f"cancel/{self.task.id}") is not None:
            raise Cancelled(
                f"cannot finish {self.plan.verb} {self.plan.subject!r}: it was cancelled",
                task=self.task.id,
            )

    def _check_lease(self) -> None:
        """A leader that was stopped for a while, and wakes up, finds its time over."""
        if self.lease is None:
            return
        now = self.executor.lease()
        valid = (
            now is not None
            and now.epoch == self.lease.epoch
            and now.expires_at > self.world.clock.now()
        )
        # The clock of a machine that stood still may have done so, too. So the store is asked.
        last = self.world.state.lease(self.lease.name) if valid else None
        if last is None or last.epoch != self.lease.epoch:
            raise _Lost(
                f"cannot go on with {self.plan.verb} {self.plan.subject!r}: this process led when"
                " it began, and does not any more",
                key=self.plan_key,
            )

    def _heartbeat(self) -> _Heartbeat:
        return _Heartbeat(self)


class _AskingFencer:
    """A fencer that asks whether this process still leads before it does anything to a host."""

    def __init__(self, fencer: Fencer, ask: Callable[[], None]) -> None:
        self._fencer = fencer
        self._ask = ask
        self.name = fencer.name
        self.by_address = fencer.by_address
        self.covers = fencer.covers
        self.unfence = fencer.unfence
        self.drill = fencer.drill

    def fence(self, node: Node, clients: Sequence[str], progress: Progress) -> str:
        self._ask()
        return self._fencer.fence(node, clients, progress)


class _Heartbeat:
    """Keeps `beat_at` fresh during long steps, for processes that cannot look at this one."""

    def __init__(self, run: _Run) -> None:
        self.run = run
        self.every_s = max(0.5, run.executor.settings.runner_silent_after_s / 3)
        self.over = threading.Event()
        self.thread: threading.Thread | None = None

    def __enter__(self) -> None:
        if self.run.world.threads:
            self.thread = threading.Thread(target=self._beat, name="vorch-beat", daemon=True)
            self.thread.start()

    def __exit__(self, *exc: object) -> None:
        self.over.set()

    def _beat(self) -> None:
        while not self.over.wait(self.every_s):
            try:
                with self.run.lock:
                    if not self.over.is_set():
                        self.run._write()
            except _Lost:
                # The run itself meets it at its next commit.
                return
            except VorchError:
                # A store that was silent once must not make this process silent for good.
                continue


def _filled(step: Save, outcomes: dict[str, Any]) -> dict[str, Any] | None:
    """The document of a Save with the outcomes of earlier steps put into it."""
    if step.after is None or not step.fill:
        return step.after
    body = copy.deepcopy(step.after)
    for path, name in step.fill.items():
        *parents, last = path.split(".")
        place: Any = body
        for part in parents:
            place = place[int(part)] if isinstance(place, list) else place[part]
        if name in outcomes:
            place[int(last) if isinstance(place, list) else last] = outcomes[name]
    return body
