"""Bringing disk images of strangers into an RBD pool: fetch, judge, convert, upload, put in place.

They are judged and checked just as for a local pool. A raw file of this host is uploaded straight
from where it is. What has to be converted is converted to a sparse raw file in a scratch folder of
this host, and that is uploaded through librbd: the process that opens a stranger's image has no
way to Ceph and no key, and a conversion that is killed leaves nothing in the pool.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from vorch.drivers.disk_formats import Judged, is_cd, judge_disk
from vorch.drivers.fetch import Origin, origin, pour
from vorch.drivers.image_import import _check_sum, _check_whole, _span, _state_of
from vorch.drivers.os_errors import translated
from vorch.drivers.pool_folder import PoolFolder, opened
from vorch.drivers.qemu_img import cpu_limit_s, qemu_img
from vorch.drivers.rbd_content import upload
from vorch.drivers.rbd_pool import RbdPool
from vorch.errors import BadConfig, Invalid
from vorch.ports import Imported, Progress

_SCRATCH_RESERVE_BYTES = 256 * 1024**2


def import_file(
    pool: RbdPool,
    location: str,
    volume: str,
    content: Literal["disk", "iso", "file"],
    sha256: str,
    progress: Progress,
) -> Imported:
    what = f"import {location!r}"
    with translated(what), origin(location) as source:
        if content == "disk" and source.file is not None:
            # What cannot be taken is refused before it is copied.
            judged = judge_disk(source.file, what)
            if judged.format != "raw":
                with _scratch(what) as scratch:
                    return _fetched(
                        pool, scratch, source, location, volume, content, sha256, progress
                    )
        if source.file is not None:
            return _take(pool, source.file, location, volume, content, sha256, "", progress)
        with _scratch(what) as scratch:
            return _fetched(pool, scratch, source, location, volume, content, sha256, progress)


def _fetched(
    pool: RbdPool,
    scratch: PoolFolder,
    source: Origin,
    location: str,
    volume: str,
    content: Literal["disk", "iso", "file"],
    sha256: str,
    progress: Progress,
) -> Imported:
    """By way of a copy that nobody else can change between judgement and opening."""
    what = f"import {location!r}"
    with scratch.work_file() as copy:
        digest = pour(source, copy, what, _span(progress, 0, 40), scratch.room_for(what))
        _check_sum(what, sha256, digest)
        with opened(copy) as file:
            rest = _span(progress, 40, 100)
            judged = judge_disk(file, what) if content == "disk" else None
            if judged is None or judged.format == "raw":
                return _take(pool, file, location, volume, content, "", digest, rest)
            return _converted(pool, scratch, copy, judged, location, volume, digest, rest)


def _converted(
    pool: RbdPool,
    scratch: PoolFolder,
    copy: Path,
    judged: Judged,
    location: str,
    volume: str,
    digest: str,
    progress: Progress,
) -> Imported:
    what = f"import {location!r}"
    progress(0, f"it is a {judged.format} image of {judged.size_bytes} bytes")
    _check_whole(judged, copy, what)
    with scratch.work_file() as flat:
        qemu_img(
            ["convert", "-p", "-f", judged.format, "-O", "raw", str(copy), str(flat)],
            what,
            cpu_s=cpu_limit_s(judged.size_bytes),
            progress=_span(progress, 0, 50),
            fault=Invalid,
        )
        with opened(flat) as file:
            state = os.fstat(file)
            pool.check_room(state.st_blocks * 512, what)
            with pool.work_image(volume, state.st_size, what) as work:
                upload(file, work.image, _span(progress, 50, 100), digest=False)
                pool.place(work, volume, what)
    return Imported(state.st_size, judged.format, digest)


def _take(
    pool: RbdPool,
    file: int,
    location: str,
    volume: str,
    content: Literal["disk", "iso", "file"],
    sha256: str,
    digest: str,
    progress: Progress,
) -> Imported:
    """Byte for byte. A disk is filled up to a whole sector with zeros."""
    what = f"import {location!r}"
    state, before = os.fstat(file), _state_of(file)
    size, format_ = state.st_size, "raw"
    if content == "disk":
        size = judge_disk(file, what).size_bytes
    elif content == "iso":
        format_ = "iso"
        if not is_cd(file):
            raise Invalid(
                f"cannot {what}: it is not a CD image (ISO 9660 or UDF); a disk image is imported"
                " as a disk"
            )
    progress(0, f"it is {format_}, of {size} bytes")
    pool.check_room(state.st_blocks * 512, what)
    with pool.work_image(volume, size, what) as work:
        found = upload(file, work.image, progress, digest=not digest) or digest
        _check_sum(what, sha256, found)
        if _state_of(file) != before:
            raise Invalid(f"cannot {what}: it changed meanwhile; import it when nobody writes it")
        pool.place(work, volume, what)
    return Imported(size, format_, found)


@contextmanager
def _scratch(what: str) -> Iterator[PoolFolder]:
    """A folder of this user's own; what a process that died left in it is swept by the next."""
    path = Path(os.environ.get("TMPDIR") or "/var/tmp") / f"vorch-{os.geteuid()}"  # noqa: S108
    path.mkdir(0o700, exist_ok=True)
    state = path.lstat()
    if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.geteuid() or state.st_mode & 0o022:
        raise BadConfig(
            f"cannot {what}: '{path}' is not this user's own folder; remove it, or name another"
            " place for temporary files with TMPDIR"
        )
    yield PoolFolder("scratch", path, _SCRATCH_RESERVE_BYTES)
