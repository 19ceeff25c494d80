"""Files of this machine that a person asked for: exports get their name when they are whole."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from vorch.drivers.os_errors import translated
from vorch.errors import Conflict, NotFound


class OwnFiles:
    """The `Files` port."""

    def place(self, source: str, path: str) -> None:
        partial, whole = Path(source), Path(path)
        with translated(f"write {path!r}"):
            if not os.path.lexists(partial):
                if not os.path.lexists(whole):
                    raise NotFound(
                        f"cannot write {path!r}: what was to become it is gone; do it again"
                    )
                return
            try:
                # Unlike a renaming this never falls on a file that is there.
                whole.hardlink_to(partial)
            except FileExistsError as exc:
                if not partial.samefile(whole):
                    raise _taken(path) from exc
            except OSError as exc:
                # Not every file system has links.
                if exc.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
                    raise
                if os.path.lexists(whole):
                    raise _taken(path) from exc
                partial.rename(whole)
                return
            partial.unlink()

    def take_back(self, source: str, path: str) -> None:
        partial, whole = Path(source), Path(path)
        with translated(f"take {path!r} back"):
            if not os.path.lexists(partial):
                if os.path.lexists(whole):
                    whole.rename(partial)
            elif os.path.lexists(whole) and partial.samefile(whole):
                whole.unlink()

    def remove(self, path: str) -> None:
        with translated(f"remove {path!r}"):
            Path(path).unlink(missing_ok=True)


def _taken(path: str) -> Conflict:
    return Conflict(
        f"cannot write {path!r}: there is a file of that name; remove it, or name another",
        path=path,
    )
