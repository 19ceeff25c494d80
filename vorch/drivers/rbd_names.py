"""The name of an RBD image, put in order again where an operation on it ended half-way.

Which image has a name stands in three places: in the object `rbd_id.NAME`, in the directory of the
pool, and for what was thrown away in the trash. librbd changes them one after the other, and when
OSDs are silent, or the process dies, it stays at some of them:

    rename    rbd_id of the new name · directory · rbd_id of the old one
    to trash  trash · rbd_id · directory
    restore   rbd_id · directory · trash

A rename even reports success when only its last part failed. The image can then be opened by two
names, or is in no list. Whoever goes on by what he opens takes one image for two: so `settle` comes
before any look from which it is concluded what was done. It reads each of these objects, and what
this process asked for earlier and gave up waiting for is done before that: RADOS keeps the order
of one client's operations on an object.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

_DIRECTORY = "rbd_directory"
_TRASH = "rbd_trash"


def settle(ioctx: Any, names: Iterable[str]) -> None:
    """Each of these names is an image's, and that image's only one, or nobody's.

    Nobody else may be renaming or throwing away these images meanwhile.
    """
    for name in names:
        _settle(ioctx, name)


def _settle(ioctx: Any, name: str) -> None:
    opens, listed = id_of(ioctx, name), _asked(ioctx, _DIRECTORY, "dir_get_id", name)
    if listed is not None and _is_trashed(ioctx, listed):
        if opens == listed:
            # It had only begun to go there, or all but come back.
            _call(ioctx, _TRASH, "trash_remove", listed)
            return
        # Half-way into the trash.
        _call(ioctx, _DIRECTORY, "dir_remove_image", name, listed)
        listed = None
    if opens == listed:
        return
    if opens is None:
        if listed is not None and _exists(ioctx, f"rbd_header.{listed}"):
            _write_id(ioctx, name, listed)
        return
    if listed is not None:
        # Some other image has the name, and `opens` has another one or none.
        return
    own = _asked(ioctx, _DIRECTORY, "dir_get_name", opens)
    if own is not None and own != name:
        # A rename to this name that was not done, or one from it that was.
        if id_of(ioctx, own) is None:
            _write_id(ioctx, own, opens)
        _remove(ioctx, _id_object(name))
    elif own is None and _is_trashed(ioctx, opens):
        # Half-way out of the trash.
        _remove(ioctx, _id_object(name))


def id_of(ioctx: Any, name: str) -> str | None:
    """The image that is opened by this name."""
    import rados

    try:
        # Before the id stands its length.
        return str(ioctx.read(_id_object(name), 256)[4:].decode("ascii")) or None
    except (rados.ObjectNotFound, UnicodeDecodeError):
        return None


def packed(text: str) -> bytes:
    """As Ceph encodes a string."""
    data = text.encode()
    return struct.pack("<I", len(data)) + data


def _id_object(name: str) -> str:
    return f"rbd_id.{name}"


def _write_id(ioctx: Any, name: str, image_id: str) -> None:
    ioctx.write_full(_id_object(name), packed(image_id))


def _remove(ioctx: Any, key: str) -> None:
    import rados

    try:
        ioctx.remove_object(key)
    except rados.ObjectNotFound:
        return


def _exists(ioctx: Any, key: str) -> bool:
    import rados

    try:
        ioctx.stat(key)
    except rados.ObjectNotFound:
        return False
    return True


def _asked(ioctx: Any, key: str, method: str, word: str) -> str | None:
    answer = _call(ioctx, key, method, word)
    return None if answer is None else str(answer[4:].decode())


def _is_trashed(ioctx: Any, image_id: str) -> bool:
    """Also what librbd put there only to remove it, which it leaves out when it lists the trash."""
    return _call(ioctx, _TRASH, "trash_get", image_id) is not None


def _call(ioctx: Any, key: str, method: str, *words: str) -> bytes | None:
    """The same calls to the OSD that librbd makes. None: there is no such thing."""
    import rados

    try:
        _, answer = ioctx.execute(key, "rbd", method, b"".join(map(packed, words)))
    except rados.ObjectNotFound:
        return None
    return bytes(answer)
