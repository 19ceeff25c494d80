"""What services of a scenario do wrong, and what is locked: put in at the points of a plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from vorch.errors import Conflict, StepFailed, TimedOut
from vorch.plan import AskToStop, CutDomain, Journal, MigrateDomain, Save, StartDomain, Step
from vorch.simulate.scenario import Faults

# Locks that end with the host of whoever had them.
DIE_WITH_HOST = (
    "backup",
    "snapshot",
    "snapshot-delete",
    "migrate",
    "clone",
    "rollback",
    "suspending",
    "suspended",
    "mounted",
)
NO_FAULTS = Faults()
MOVES = ("migrate", "relocate")


class Doubles:
    """Counts tries over all hosts together, as the format has it."""

    def __init__(self, faults: Mapping[str, Faults], is_lost: Callable[[str], bool]) -> None:
        self._faults = dict(faults)
        self._is_lost = is_lost
        self._tries: dict[tuple[str, str], int] = {}
        # (what kind, on which host) of each VM.
        self._locks: dict[str, tuple[str, str]] = {}

    def lock(self, vm: str, kind: str, host: str) -> None:
        self._locks[vm] = (kind, host)

    def unlock(self, vm: str) -> None:
        self._locks.pop(vm, None)

    def hook(self, point: str, journal: Journal) -> None:
        """Raises where something is to go wrong."""
        if journal.direction != "forward" or point not in ("before", "closing"):
            return
        plan = journal.plan
        faults = self._faults.get(plan.subject, NO_FAULTS)
        alone = all(isinstance(step, Save) for step in plan.steps)
        if plan.verb in MOVES and (journal.position == 0 if point == "before" else alone):
            self._check_lock(plan.subject)
            self._try("move", plan.subject, _source(journal), faults.move_failures, faults)
        if point == "before":
            self._act(plan.steps[journal.position], plan.subject, faults)

    def _act(self, step: Step, vm: str, faults: Faults) -> None:
        if isinstance(step, StartDomain):
            self._check_lock(vm)
            self._try("start", vm, step.vm.node, faults.start_failures, faults)
        elif isinstance(step, (AskToStop, CutDomain)):
            self._check_lock(vm)
            if faults.never_stops:
                raise TimedOut(f"cannot stop VM {vm!r}: it never does")

    def _try(self, what: str, vm: str, host: str, failures: int, faults: Faults) -> None:
        if not failures or faults.only_on not in ("", host):
            return
        number = self._tries.get((what, vm), 0)
        self._tries[what, vm] = number + 1
        if number % (failures + 1) < failures:
            raise StepFailed(f"cannot {what} VM {vm!r} on {host!r}: it fails for now")

    def _check_lock(self, vm: str) -> None:
        kind, host = self._locks.get(vm, ("", ""))
        if kind in DIE_WITH_HOST and self._is_lost(host):
            self.unlock(vm)
        elif kind:
            raise Conflict(f"cannot work on VM {vm!r}: it is locked for {kind}")


def _source(journal: Journal) -> str:
    """The host that the VM is leaving."""
    for step in journal.plan.steps:
        if isinstance(step, (MigrateDomain, AskToStop, CutDomain)):
            return step.vm.node
        if isinstance(step, Save) and step.before is not None and "node" in step.before:
            return str(step.before["node"])
    return ""
