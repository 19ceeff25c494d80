"""Images that VMs are made of while their data still come in: librbd's migration import.

The image is there under its name at once. Whoever opens it, or a clone of it, reads from the URL
what is not in the pool yet, and cannot open it at all while the server is silent. Some things
about librbd 16.2 make this what it is:

- `migration_execute` can be neither watched nor ended. Reading a byte of an object with
  copy-on-read brings in the whole object; that is done first, and what it leaves is little.
- `migration_abort` of an image with clones fails, but has forgotten the source by then: from there
  on the clones show zeros. So clones are looked for just before, past librbd, which could not tell
  while the server is silent.
- An image whose making was killed half-way, or whose abort was, cannot be opened: librbd looks at
  it again and again, for ever. Such a one is known by the note that it lacks.
- Copies read the wrong extents of what stands on such an image; `check_whole` refuses them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import struct
import time
from contextlib import suppress
from dataclasses import dataclass

from vorch.drivers.fetch import origin, pour
from vorch.drivers.http_ranges import Mark
from vorch.drivers.linkable import check_same, judge_at
from vorch.drivers.rbd_bases import NOTE
from vorch.drivers.rbd_content import PIECE_BYTES
from vorch.drivers.rbd_pool import (
    BASE_SNAPSHOT,
    LAPSE_S,
    RbdPool,
    checked,
    features,
    librbd,
    parent_id,
)
from vorch.errors import Conflict, Invalid, NotFound
from vorch.ports import Imported, Progress

LINK = "link"
SUM = "sum"
# In so many objects at a time data come in: after each lot it is seen whether to go on.
_LOT = 4
_EXECUTED = 4
MIGRATING = 512
# Where librbd keeps the note.
_TOLD = f"metadata_{NOTE}{LINK}"


@dataclass(frozen=True, slots=True)
class Header:
    """What stands on an image in RADOS, read past librbd."""

    id: str
    size_bytes: int
    linked: bool
    has_clones: bool
    # What was noted when it was linked. A linked one without this is only half made or half
    # removed, and who opened it would wait for ever.
    told: bytes


def header_of(pool: RbdPool, image: str, image_id: str | None = None) -> Header | None:
    """None when there is no such image."""
    import rados

    ioctx = pool.ioctx()
    try:
        if image_id is None:
            image_id = pool.id_past_librbd(image)
        with rados.ReadOpCtx() as operation:
            fields, _ = ioctx.get_omap_vals_by_keys(operation, ("size", "features", _TOLD))
            clones, _ = ioctx.get_omap_vals(operation, "", "snap_children_", 1)
            ioctx.operate_read_op(operation, f"rbd_header.{image_id}")
            found, has_clones = dict(fields), bool(list(clones))
    except (rados.ObjectNotFound, UnicodeDecodeError):
        return None
    if not {"size", "features"} <= found.keys():
        return None
    size, bits = (struct.unpack("<Q", found[key])[0] for key in ("size", "features"))
    return Header(image_id, size, bool(bits & MIGRATING), has_clones, found.get(_TOLD, b""))


def link(pool: RbdPool, location: str, volume: str, progress: Progress) -> Imported:
    what = f"import {location!r} at once"
    judged, mark = judge_at(location, what, progress)
    discard(pool, volume, what)
    if pool.check_replaceable(volume, what) is not None:
        pool.remove(volume)
    # What is there now; how much of a raw file is zeros shows only when it comes.
    pool.check_room(0 if judged.format == "raw" else mark.size_bytes, what)
    progress(100, f"it is a {judged.format} image of {judged.size_bytes} bytes")
    kind = {"raw": "raw", "qcow2": "qcow"}[judged.format]
    spec = {"type": kind, "stream": {"type": "http", "url": location}}
    librbd().RBD().migration_prepare_import(
        json.dumps(spec), pool.ioctx(), checked(volume), features=features()
    )
    with pool.opened(volume, what, read_only=False) as image:
        told = {"url": location, "format": judged.format, "mark": dataclasses.asdict(mark)}
        image.metadata_set(NOTE + LINK, json.dumps(told))
        # It never changes: clones can be made as long as this stands.
        image.create_snap(BASE_SNAPSHOT)
    return Imported(judged.size_bytes, judged.format, "")


def fill(pool: RbdPool, volume: str, sha256: str, progress: Progress) -> None:
    what = f"bring in the data of volume {volume!r}"
    header = header_of(pool, volume)
    if header is None:
        raise pool.not_found(volume, what)
    if not header.linked:
        _tidy(pool, volume)
        return
    if not header.told:
        raise Conflict(f"cannot {what}: it was never wholly linked; delete it", volume=volume)
    told = json.loads(header.told)
    url, mark, size = str(told["url"]), Mark(**told["mark"]), header.size_bytes
    try:
        check_same(url, mark, what)
        if librbd().RBD().migration_status(pool.ioctx(), volume)["state"] != _EXECUTED:
            _draw(pool, volume, size, what, progress)
            librbd().RBD().migration_execute(pool.ioctx(), volume)
        check_same(url, mark, what)
        if sha256:
            _check_sum(pool, volume, url, str(told["format"]), sha256, what, progress)
    except librbd().Error:
        # Was it the server that failed, and not Ceph?
        check_same(url, mark, what)
        raise
    except Invalid:
        # Nothing more is to be made of data that are wrong.
        with suppress(librbd().Error):
            close_off(pool, volume, what)
        raise
    librbd().RBD().migration_commit(pool.ioctx(), volume)
    _tidy(pool, volume)
    progress(100, "all data are there")


def _draw(pool: RbdPool, volume: str, size: int, what: str, progress: Progress) -> None:
    """Object by object. What fails here without a word, `migration_execute` meets again."""
    rbd = librbd()
    with pool.apart(rbd_clone_copy_on_read="true") as ioctx, rbd.Image(ioctx, volume) as image:
        image.lock_acquire(rbd.RBD_LOCK_MODE_EXCLUSIVE)
        step = int(image.stat()["obj_size"])
        for start in range(0, size, _LOT * step):
            end = min(size, start + _LOT * step)
            for offset in range(start, end, step):
                image.read(offset, 1)
            image.flush()
            progress(min(95.0, 95 * end / size))


def _check_sum(
    pool: RbdPool,
    volume: str,
    url: str,
    format_: str,
    sha256: str,
    what: str,
    progress: Progress,
) -> None:
    """Of a raw image what the pool holds; of another one the file, which is fetched once more."""
    with pool.opened(volume, what) as image:
        found = dict(image.metadata_list()).get(NOTE + SUM, "")
    if not found and format_ == "raw":
        digest = hashlib.sha256()
        with pool.opened(volume, what) as image:
            size = int(image.size())
            for offset in range(0, size, PIECE_BYTES):
                digest.update(image.read(offset, min(PIECE_BYTES, size - offset)))
                progress(95 + 4 * offset / size)
        found = digest.hexdigest()
    elif not found:
        with origin(url) as source:
            found = pour(source, None, what, lambda *_: progress(95), lambda _: None)
    pool.set_metadata(volume, NOTE + SUM, found)
    if found != sha256.lower():
        raise Invalid(
            f"cannot {what}: its SHA-256 is {found}, not {sha256.lower()} as it should be; delete"
            " what was made of it, get it again, or correct the checksum",
            expected=sha256.lower(),
            found=found,
        )


def _tidy(pool: RbdPool, volume: str) -> None:
    for one in (LINK, SUM):
        pool.set_metadata(volume, NOTE + one, "")


def withdraw(pool: RbdPool, volume: str) -> None:
    what = f"take back volume {volume!r}"
    header = header_of(pool, volume)
    if header is None:
        return
    _check_no_clones(header, volume, what)
    if not header.linked or not header.told:
        return
    # With a silent server it cannot be opened, so that nobody can clone it either.
    with suppress(librbd().OSError):
        close_off(pool, volume, what)
    after = header_of(pool, volume)
    if after is not None and after.has_clones:
        with pool.opened(volume, what, read_only=False) as image:
            image.create_snap(BASE_SNAPSHOT)
        _check_no_clones(after, volume, what)


def close_off(pool: RbdPool, volume: str, what: str) -> None:
    with pool.opened(volume, what, read_only=False) as image, suppress(librbd().ImageNotFound):
        image.remove_snap(BASE_SNAPSHOT)


def _check_no_clones(header: Header, volume: str, what: str) -> None:
    if header.has_clones:
        raise Conflict(
            f"cannot {what}: VMs were made of it, and need its data; delete those first",
            volume=volume,
        )


def discard(pool: RbdPool, volume: str, what: str) -> bool:
    """Remove an image that takes its data from elsewhere. False: it is none."""
    header = header_of(pool, volume)
    if header is None or not header.linked:
        return False
    _check_no_clones(header, volume, what)
    if header.told:
        withdraw(pool, volume)
        with suppress(librbd().OSError), pool.opened(volume, what) as image:
            pool.check_unused(image, volume, what)
        _forget(pool, header)
    last = header_of(pool, volume)
    if last is not None:
        _check_no_clones(last, volume, what)
        _abort(pool, volume)
    return True


def _abort(pool: RbdPool, volume: str) -> None:
    """Who died with it open counts among its users for a while, and cannot be asked past librbd."""
    deadline = time.monotonic() + LAPSE_S
    while True:
        try:
            librbd().RBD().migration_abort(pool.ioctx(), volume)
        except librbd().ImageBusy:
            if time.monotonic() >= deadline:
                raise
            time.sleep(1.0)
        else:
            return


def _forget(pool: RbdPool, header: Header) -> None:
    """From here on nobody opens it any more. Past librbd, which could not while it is silent."""
    import rados

    with rados.WriteOpCtx() as operation:
        pool.ioctx().remove_omap_keys(operation, (_TOLD,))
        pool.ioctx().operate_write_op(operation, f"rbd_header.{header.id}")


def is_shut(pool: RbdPool, volume: str) -> bool:
    """It is there, but librbd opens it for nobody, since the source below is silent.

    librbd moves and removes it all the same, and not while somebody has it open.
    """
    header = header_of(pool, volume)
    if header is None:
        return False
    try:
        librbd().Image(pool.ioctx(), checked(volume), read_only=True).close()
    except librbd().ImageNotFound:
        return False
    except librbd().OSError:
        return True
    return False


def check_whole(pool: RbdPool, volume: str, what: str) -> None:
    """`Conflict` when it, or what it stands on, takes data from elsewhere yet."""
    header = header_of(pool, volume)
    while header is not None:
        if header.linked:
            raise Conflict(
                f"cannot {what}: the data of the image that it stands on are still coming in; wait"
                " until that import has ended (`vorch task list`)",
                volume=volume,
            )
        try:
            with pool.opened(volume, what, image_id=header.id) as image:
                above = parent_id(image)
        except NotFound:
            return
        header = None if above is None else header_of(pool, "", above)
