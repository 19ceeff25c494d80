"""The audit log beside the state: a line of JSON for each entry, in a file or to syslog."""

from __future__ import annotations

import json
import logging
import os
import syslog
from collections.abc import Callable
from pathlib import Path

from vorch.codec import encode
from vorch.errors import BadConfig
from vorch.ports import no_audit
from vorch.rights import AuditEntry

log = logging.getLogger(__name__)

Audit = Callable[[AuditEntry], None]


def audit_log(target: str) -> Audit:
    """Where `audit_log` of the settings says."""
    if not target:
        return no_audit
    if target == "syslog":
        return _to_syslog
    path = Path(target)
    if not path.is_absolute():
        raise BadConfig(
            f"cannot use audit_log = {target!r}: it must be a file by its whole path, or 'syslog'"
        )
    return lambda entry: _to_file(path, entry)


def _line(entry: AuditEntry) -> str:
    # ASCII alone: nothing in it can begin a line of its own, or steer a terminal.
    return json.dumps(encode(entry), sort_keys=True)


def _to_file(path: Path, entry: AuditEntry) -> None:
    """Opened anew each time, so that whoever rotates logs need not tell anybody.

    One write for a line: several processes may have the same file.
    """
    try:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        handle = os.open(path, flags, 0o600)
        try:
            os.write(handle, (_line(entry) + "\n").encode())
        finally:
            os.close(handle)
    except OSError as exc:
        # It is in the state, so what was asked for does not fail for it.
        log.warning("audit log %s: %s", path, exc)


def _to_syslog(entry: AuditEntry) -> None:
    syslog.openlog("vorch-audit", syslog.LOG_PID, syslog.LOG_AUTHPRIV)
    level = syslog.LOG_WARNING if entry.result == "refused" else syslog.LOG_INFO
    syslog.syslog(level, _line(entry))
