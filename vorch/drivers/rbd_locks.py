"""Who holds the exclusive locks of many RBD images, in one flight of questions, and breaking them.

librbd has to open an image before it tells, which takes eight round trips for each. The lock is an
attribute of the image's header that one call to the OSD reads (`lock.get_info`) and one takes away
(`lock.break_lock`), the same calls that librbd makes in the end. Breaking is safe only when the
owner can write no more: who calls this has seen to that.
"""

from __future__ import annotations

import contextlib
import ipaddress
import struct
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from vorch.drivers.rados_connection import translated
from vorch.errors import Unsupported

_LOCK = "rbd_lock"
# librbd's own lock; any other one on an image is a person's and keeps nobody out.
_OWN = "auto "
_REPLY_BYTES = 64 * 1024
_AF_INET, _AF_INET6 = 2, 10


@dataclass(frozen=True, slots=True)
class LockOwner:
    """The client that holds an image's lock. `entity` is its name as Ceph's messages have it."""

    address: str
    entity: bytes
    cookie: str


def lock_owners(ioctx: Any, image_ids: Iterable[str], timeout_s: float) -> dict[str, LockOwner]:
    """Of these images, those that are locked, by id. One that is gone is left out."""
    import rados

    ids = list(image_ids)
    answers: dict[str, tuple[int, bytes]] = {}
    news = threading.Condition()

    def answered(image_id: str, completion: Any, output: bytes | None) -> None:
        with news:
            answers[image_id] = (completion.get_return_value(), output or b"")
            news.notify()

    question = _encoded(_text(_LOCK))
    with translated("see who holds the locks of volumes"):
        for image_id in ids:
            ioctx.aio_execute(
                f"rbd_header.{image_id}",
                "lock",
                "get_info",
                question,
                _REPLY_BYTES,
                lambda completion, output, image_id=image_id: answered(
                    image_id, completion, output
                ),
            )
        with news:
            if not news.wait_for(lambda: len(answers) == len(ids), timeout_s):
                raise rados.TimedOut("not every OSD has answered")
        owners = {}
        for image_id, (status, output) in answers.items():
            with contextlib.suppress(rados.ObjectNotFound):
                if status < 0:
                    raise rados.errno_to_exception[-status](f"lock of {image_id}", errno=status)
                owner = _owner(output)
                if owner is not None:
                    owners[image_id] = owner
    return owners


def break_lock(ioctx: Any, image_id: str, owner: LockOwner) -> None:
    """Take the lock from just this owner. Safe to repeat: one that is gone already is fine."""
    import rados

    order = _encoded(_text(_LOCK) + owner.entity + _text(owner.cookie))
    with (
        translated(f"break the lock of image {image_id!r}"),
        contextlib.suppress(rados.ObjectNotFound),
    ):
        ioctx.execute(f"rbd_header.{image_id}", "lock", "break_lock", order)


# ---------------------------------------------------------------------------------------------
# Ceph's encoding: each structure with its version, the oldest version that can read it, its length


def _encoded(content: bytes) -> bytes:
    return struct.pack("<BBI", 1, 1, len(content)) + content


def _text(text: str) -> bytes:
    return struct.pack("<I", len(text.encode())) + text.encode()


class _Reader:
    def __init__(self, content: bytes) -> None:
        self.content = content
        self.at = 0

    def take(self, length: int) -> bytes:
        found = self.content[self.at : self.at + length]
        if len(found) < length:
            raise Unsupported(
                "cannot read the lock of a volume: this Ceph says it in another way than those that"
                " vorch knows; see docs/fencing.md for the versions that it was tried with"
            )
        self.at += length
        return found

    def number(self, length: int = 4) -> int:
        return int.from_bytes(self.take(length), "little")

    def text(self) -> str:
        return self.take(self.number()).decode(errors="replace")

    def structure(self) -> _Reader:
        """What stands in the next structure; parts that newer versions add are left unread."""
        self.take(2)
        return _Reader(self.take(self.number()))


def _owner(content: bytes) -> LockOwner | None:
    reply = _Reader(content).structure()
    for _ in range(reply.number()):
        name = reply.structure()
        # Kind and number of the client.
        entity, cookie = name.take(9), name.text()
        info = reply.structure()
        # When it expires: never.
        info.take(8)
        address = _address(info)
        if cookie.startswith(_OWN):
            return LockOwner(address, entity, cookie)
    return None


def _address(info: _Reader) -> str:
    if info.number(1) != 1:
        raise Unsupported(
            "cannot read the lock of a volume: its owner is a client older than Ceph 14; use newer"
            " ones"
        )
    address = info.structure()
    # Whether of version 1 or 2 of the protocol.
    address.take(4)
    nonce = address.number()
    socket = _Reader(address.take(address.number()))
    family, port = socket.number(2), int.from_bytes(socket.take(2), "big")
    if family == _AF_INET:
        return f"{ipaddress.IPv4Address(socket.take(4))}:{port}/{nonce}"
    if family != _AF_INET6:
        return f":/{nonce}"
    socket.take(4)
    return f"[{ipaddress.IPv6Address(socket.take(16))}]:{port}/{nonce}"
