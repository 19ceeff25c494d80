"""The service's own token: whoever may read its file may do everything."""

from __future__ import annotations

import os
import re
import secrets
import stat
from contextlib import suppress
from pathlib import Path

from vorch import BadConfig, Denied, Unreachable

TOKEN_BYTES = 32
SHORTEST = 32
_SOUND = re.compile(rf"[!-~]{{{SHORTEST},512}}")


def token_of(file: Path | None) -> str:
    """The token in the file, which is made when it is not there. None: a token for this run."""
    if file is None:
        return secrets.token_urlsafe(TOKEN_BYTES)
    try:
        _make(file)
        with file.open("rb") as opened:
            mode = os.fstat(opened.fileno()).st_mode
            token = opened.read(1024).decode("ascii", "replace").strip()
    except OSError as exc:
        raise Unreachable(
            f"cannot read the login token in {str(file)!r}: {exc.strerror}; see to it that this"
            " user may",
            file=str(file),
        ) from exc
    if stat.S_IMODE(mode) & 0o077:
        raise Denied(
            f"cannot use the login token in {str(file)!r}: others may read that file, so it may be"
            " known; remove it, and a new one is made",
            file=str(file),
        )
    if not _SOUND.fullmatch(token):
        raise BadConfig(
            f"cannot use the login token in {str(file)!r}: it is not one that vorch has made;"
            " remove it, and a new one is made",
            file=str(file),
        )
    return token


def _make(file: Path) -> None:
    """Whole or not at all, and only if there is none: two services that start at once share it."""
    if file.exists():
        return
    draft = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(handle, "w") as opened:
            opened.write(secrets.token_urlsafe(TOKEN_BYTES) + "\n")
            opened.flush()
            os.fsync(opened.fileno())
        with suppress(FileExistsError):
            os.link(draft, file)
    finally:
        draft.unlink()
