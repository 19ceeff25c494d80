"""Running qemu-img: as a list of arguments, with limits, with progress, and ended when cancelled.

Images from strangers go through here, so a process gets bounded memory and processor time: a
crafted image may make qemu-img loop or allocate without end. Callers pass paths that vorch chose
itself, never what a person typed, because qemu-img understands far more than paths in their place
(`json:`, `nbd:`).
"""

from __future__ import annotations

import os
import re
import resource
import selectors
import subprocess
from collections.abc import Sequence
from contextlib import suppress

from vorch.errors import BadConfig, Conflict, Denied, Invalid, NoRoom, StepFailed, VorchError
from vorch.ports import Progress

MEMORY_LIMIT_BYTES = 4 * 1024**3
SHORT_CPU_LIMIT_S = 60
# What comes on stderr beyond this says nothing new.
_KEEP_BYTES = 64 * 1024
_PERCENT = re.compile(rb"\((\d+(?:\.\d+)?)/100%\)")

# What qemu-img says → (kind of error, what to do). The first that is found in its message counts.
_MESSAGES: tuple[tuple[str, type[VorchError], str], ...] = (
    ("No space left on device", NoRoom, "free some space, or use another pool"),
    ("Disk quota exceeded", NoRoom, "raise the quota, or use another pool"),
    ("File too large", NoRoom, "the file system takes no files that large; use another pool"),
    ("Cannot allocate memory", NoRoom, "this image needs more memory than is allowed for it"),
    ('Failed to get "write" lock', Conflict, "a running VM uses it; stop that first"),
    ('Failed to get shared "write" lock', Conflict, "a running VM writes it; stop that first"),
    ('Failed to get "consistent read" lock', Conflict, "a running VM uses it; stop that first"),
    ("Permission denied", Denied, "see that this user may use the pool, or run as root"),
    ("Read-only file system", BadConfig, "remount the file system, or use another pool"),
)


def cpu_limit_s(size_bytes: int) -> int:
    """Processor time that a conversion may take: far more than any sound image needs."""
    return 600 + 120 * (size_bytes // 1024**3 + 1)


def qemu_img(
    arguments: Sequence[str],
    what: str,
    *,
    cpu_s: int = SHORT_CPU_LIMIT_S,
    progress: Progress | None = None,
    pass_files: Sequence[int] = (),
    fault: type[VorchError] = StepFailed,
    accept: Sequence[int] = (0,),
) -> str:
    """Run it to its end and return what it printed. `what` completes "cannot …" in messages.

    With `progress`, percents are reported as they come; when that raises, the process is ended
    before the exception goes on. `fault` is raised for failures that the table does not know.
    """
    environment = {**os.environ, "LC_ALL": "C", "MALLOC_ARENA_MAX": "4"}
    try:
        process = subprocess.Popen(
            ["qemu-img", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            pass_fds=tuple(pass_files),
        )
    except FileNotFoundError as exc:
        raise BadConfig(
            f"cannot {what}: qemu-img is not installed; install the package qemu-utils (Debian,"
            " Ubuntu) or qemu-img (Fedora, EL)"
        ) from exc
    with process:
        try:
            _limit(process.pid, cpu_s)
            output, errors = _follow(process, progress)
        except BaseException:
            process.terminate()
            try:
                process.wait(3)
            except subprocess.TimeoutExpired:
                process.kill()
            raise
    if process.returncode in accept:
        return output.decode("utf-8", "replace")
    raise _failure(what, process.returncode, errors.decode("utf-8", "replace"), fault)


def _limit(pid: int, cpu_s: int) -> None:
    """Set from outside, right after the start: code between fork and exec is unsafe in threads."""
    wanted = (
        (resource.RLIMIT_AS, MEMORY_LIMIT_BYTES),
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_CORE, 0),
    )
    for kind, limit in wanted:
        with suppress(ProcessLookupError, PermissionError):
            _, hard = resource.prlimit(pid, kind)
            if hard == resource.RLIM_INFINITY or hard > limit:
                resource.prlimit(pid, kind, (limit, limit))


def _follow(process: subprocess.Popen[bytes], progress: Progress | None) -> tuple[bytes, bytes]:
    assert process.stdout is not None
    assert process.stderr is not None
    output, errors = bytearray(), bytearray()
    percent = -1.0
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ, output)
        selector.register(process.stderr, selectors.EVENT_READ, errors)
        while selector.get_map():
            ready = selector.select(0.5)
            for key, _ in ready:
                part = os.read(key.fd, 65536)
                if not part:
                    selector.unregister(key.fileobj)
                    continue
                key.data.extend(part)
                if key.data is errors or progress is not None:
                    # Of a stream without end, the beginning or the last percents are enough.
                    del key.data[_KEEP_BYTES if key.data is errors else 0 : -256]
            if progress is not None:
                found = _PERCENT.findall(bytes(output))
                newest = float(found[-1]) if found else percent
                if newest > percent:
                    percent = newest
                    progress(percent)
                elif not ready:
                    # Nothing new, but somebody may have cancelled.
                    progress()
    process.wait()
    return bytes(output), bytes(errors)


def _failure(what: str, code: int, errors: str, fault: type[VorchError]) -> VorchError:
    message = " ".join(errors.replace("qemu-img: ", "").split())[:500] or f"exit code {code}"
    for words, kind, remedy in _MESSAGES:
        if words in errors:
            return kind(f"cannot {what}: {words}; {remedy}", detail=message)
    if code < 0:
        return fault(
            f"cannot {what}: qemu-img was ended by signal {-code}, as happens when an image needs"
            " more time or memory than any sound one does; check the image",
            detail=message,
        )
    remedy = "check the image" if fault is Invalid else "see what it says"
    return fault(f"cannot {what}: qemu-img says: {message}; {remedy}", detail=message)
