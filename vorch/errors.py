"""Every exception that vorch raises, and the two tables that name them outside.

    VorchError
    ├── NotFound       not-found     no such VM, image, disk, network, node, task
    ├── Conflict       conflict      somebody else is at it, or it is not in the state this needs
    ├── Stale          stale         it was changed since the caller looked at it
    ├── NoRoom         no-room       no host or pool has the memory, CPUs or space
    ├── Invalid        invalid       what was asked for makes no sense; nothing was touched
    ├── Unsupported    unsupported   this host, pool or guest cannot do it
    ├── Unreachable    unreachable   a host, daemon or store does not answer
    ├── TimedOut       timed-out     it did not happen in the time that was given
    ├── Cancelled      cancelled     somebody cancelled the task; it was undone
    ├── StepFailed     step-failed   a step of a plan failed; says what was undone
    ├── FenceFailed    fence-failed  a host could not be proven cut off
    ├── BadConfig      bad-config    vorch.toml, a URI or the environment is wrong
    ├── Denied         denied        the caller may not do this
    └── TooMany        too-many      more is asked for at once than is taken; try again later

Messages read *cannot WHAT: WHY; WHAT TO DO*. The code is part of the interface and never changes;
the words may. Fields carry the same facts for programs.
"""

from __future__ import annotations

from typing import Any, ClassVar


class VorchError(Exception):
    """The root: catch this to catch everything that vorch raises on purpose."""

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500

    def __init__(self, message: str, **fields: Any) -> None:
        super().__init__(message)
        self.message = message
        self.fields: dict[str, Any] = fields

    def as_dict(self) -> dict[str, Any]:
        """The error as plain data, the same on the command line (--json) and in the API."""
        return {"code": self.code, "message": self.message, "fields": self.fields}


class NotFound(VorchError):
    code = "not-found"
    exit_code = 3
    http_status = 404


class Conflict(VorchError):
    code = "conflict"
    exit_code = 4
    http_status = 409


class Stale(VorchError):
    code = "stale"
    exit_code = 14
    http_status = 412


class NoRoom(VorchError):
    code = "no-room"
    exit_code = 5
    http_status = 507


class Invalid(VorchError):
    code = "invalid"
    exit_code = 2
    http_status = 422


class Unsupported(VorchError):
    code = "unsupported"
    exit_code = 6
    http_status = 501


class Unreachable(VorchError):
    code = "unreachable"
    exit_code = 7
    http_status = 503


class TimedOut(VorchError):
    code = "timed-out"
    exit_code = 8
    http_status = 504


class Cancelled(VorchError):
    code = "cancelled"
    exit_code = 9
    http_status = 409


class StepFailed(VorchError):
    code = "step-failed"
    exit_code = 10
    http_status = 500


class FenceFailed(VorchError):
    code = "fence-failed"
    exit_code = 11
    http_status = 500


class BadConfig(VorchError):
    code = "bad-config"
    exit_code = 12
    http_status = 500


class Denied(VorchError):
    code = "denied"
    exit_code = 13
    http_status = 403


class TooMany(VorchError):
    """`retry_after_s` among its fields says when it is worth another try."""

    code = "too-many"
    exit_code = 15
    http_status = 429


ALL: tuple[type[VorchError], ...] = (
    NotFound,
    Conflict,
    Stale,
    NoRoom,
    Invalid,
    Unsupported,
    Unreachable,
    TimedOut,
    Cancelled,
    StepFailed,
    FenceFailed,
    BadConfig,
    Denied,
    TooMany,
)


def from_dict(body: dict[str, Any]) -> VorchError:
    """The exception that `as_dict` wrote down, so that a task's error can be raised again."""
    for kind in ALL:
        if kind.code == body.get("code"):
            return kind(str(body.get("message", "")), **body.get("fields", {}))
    return VorchError(str(body.get("message", "")), **body.get("fields", {}))


def table() -> dict[str, int]:
    """Each code with the number that it has over HTTP."""
    return {kind.code: kind.http_status for kind in ALL}
