"""One table from what the operating system says about files to what vorch says."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from vorch.errors import (
    BadConfig,
    Conflict,
    Denied,
    Invalid,
    NoRoom,
    NotFound,
    TimedOut,
    Unreachable,
    VorchError,
)

# errno → (kind of error, what to do about it)
_TABLE: dict[int, tuple[type[VorchError], str]] = {
    errno.ENOSPC: (NoRoom, "free some space, or use another pool"),
    errno.EDQUOT: (NoRoom, "raise the quota, or use another pool"),
    errno.EFBIG: (NoRoom, "the file system takes no files that large; use another pool"),
    errno.ENOENT: (NotFound, "see that it is there"),
    errno.ENOTDIR: (BadConfig, "see that the path leads through folders only"),
    errno.EACCES: (Denied, "see that this user may use it, or run as root"),
    errno.EPERM: (Denied, "see that this user may use it, or run as root"),
    errno.EROFS: (BadConfig, "the file system is read-only; remount it, or use another pool"),
    errno.EEXIST: (Conflict, "another operation made it at the same time; try again"),
    errno.EBUSY: (Conflict, "something uses it; stop that first"),
    errno.ETXTBSY: (Conflict, "something uses it; stop that first"),
    errno.EISDIR: (Invalid, "name a file, not a folder"),
    errno.ELOOP: (Invalid, "the path leads in a circle; name the file itself"),
    errno.ENAMETOOLONG: (Invalid, "choose a shorter name"),
    errno.EMFILE: (NoRoom, "too many files are open; raise the limit (ulimit -n)"),
    errno.ENFILE: (NoRoom, "too many files are open on this host; raise fs.file-max"),
    errno.ENOMEM: (NoRoom, "this host has no memory left; stop something"),
    errno.ETIMEDOUT: (TimedOut, "see that the storage answers"),
    errno.ESTALE: (Unreachable, "the network file system went away; mount it again"),
    errno.EIO: (Unreachable, "the storage fails; look at the kernel's log"),
}


def translate(what: str, exc: OSError) -> VorchError:
    """The error to raise, `from exc`, when `what` could not be done."""
    kind, remedy = _TABLE.get(exc.errno or 0, (Unreachable, "look at the kernel's log"))
    where = f" ({exc.filename})" if exc.filename else ""
    return kind(f"cannot {what}: {exc.strerror or exc}{where}; {remedy}", errno=exc.errno)


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Within it, an `OSError` becomes the `VorchError` that the table says."""
    try:
        yield
    except OSError as exc:
        raise translate(what, exc) from exc
