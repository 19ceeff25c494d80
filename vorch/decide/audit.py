"""What the audit log says of a task that is over."""

from __future__ import annotations

from vorch.model import Task
from vorch.rights import AuditEntry, AuditResult

# Of more words than this an entry keeps the beginning.
MESSAGE_LIMIT = 1024


def entry_id(at: float, token: str) -> str:
    """Ids in the order of their times."""
    return f"{max(0, int(at * 1000)):015d}.{token}"


def source_of(who: str) -> tuple[str, str]:
    """(who, from where), of whoever a task names: users of vorch come from an address."""
    name, apart, source = who.partition(" from ")
    return (name, source) if apart else (who, "local")


def of_task(task: Task) -> AuditEntry:
    at = task.started_at if task.finished_at is None else task.finished_at
    who, source = source_of(task.who)
    error = task.error or {}
    return AuditEntry(
        id=entry_id(at, task.id),
        at=at,
        who=who,
        source=source,
        verb=task.verb,
        subject=task.subject,
        result=result_of(task),
        code=str(error.get("code", "")),
        message=str(error.get("message", ""))[:MESSAGE_LIMIT],
        task=task.id,
    )


def result_of(task: Task) -> AuditResult:
    match task.state.value:
        case "failed" | "undone" | "cancelled" | "stuck" as state:
            return state
        case _:
            return "done"
