"""Who has RBD images open, asked again and again: images are opened once and kept.

To open an image takes librbd some ten questions to the OSDs, to list its watchers one. A name can
come to belong to another image (a base is made of a volume, a deleted one's name is used again), so
which image has the name is asked anew each time, for all of them in one flight.
"""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from vorch.drivers.rados_connection import CephAddress, RadosCluster, abandon, translate, translated
from vorch.drivers.rbd_pool import librbd

# Kept at most. Each costs some hundred kilobytes.
KEPT_LIMIT = 1000
THREADS = 16
_NAME_BYTES = 256


class RbdWatch:
    """The watchers of one pool's images. Threads may share it."""

    def __init__(self, cluster: RadosCluster, address: CephAddress) -> None:
        self._cluster = cluster
        self._address = address
        self._lock = threading.Lock()
        self._generation = -1
        # By the image's id.
        self._images: OrderedDict[str, Any] = OrderedDict()

    def watchers(self, names: Sequence[str], timeout_s: float) -> dict[str, tuple[str, ...]]:
        """Addresses by volume. Volumes that are not there, or whose OSD is silent, are left out.

        `Unreachable` when none of them could be asked.
        """
        rbd = librbd()
        ids = self._ids(names, timeout_s)

        def look(name: str) -> tuple[str, ...] | Exception:
            try:
                return self._watchers(ids[name])
            except rbd.ImageNotFound:
                self._forget(ids[name])
                return ()
            except rbd.Error as exc:
                return exc  # type: ignore[no-any-return]

        there = sorted(ids)
        if not there:
            return {}
        with ThreadPoolExecutor(min(THREADS, len(there))) as threads:
            answers = dict(zip(there, threads.map(look, there), strict=True))
        found = {name: one for name, one in answers.items() if isinstance(one, tuple)}
        if not found:
            problem = next(one for one in answers.values() if isinstance(one, Exception))
            raise translate(f"see who uses volumes of {self._address.pool!r}", problem) from problem
        return found

    def close(self) -> None:
        with self._lock:
            images, self._images = list(self._images.values()), OrderedDict()
        for image in images:
            image.close()

    def _ids(self, names: Sequence[str], timeout_s: float) -> dict[str, str]:
        import rados

        answers: dict[str, tuple[int, bytes]] = {}
        news = threading.Condition()

        def answered(name: str, completion: Any, output: bytes | None) -> None:
            with news:
                answers[name] = (int(completion.get_return_value()), output or b"")
                news.notify()

        asked = list(dict.fromkeys(names))
        with translated(f"find volumes of {self._address.pool!r}"):
            ioctx = self._cluster.ioctx(self._address.pool, self._address.namespace)
            for name in asked:
                ioctx.aio_read(
                    f"rbd_id.{name}",
                    _NAME_BYTES,
                    0,
                    lambda completion, output, name=name: answered(name, completion, output),
                )
            with news:
                news.wait_for(lambda: len(answers) == len(asked), timeout_s)
                found = dict(answers)
            if asked and not any(status >= 0 or status == -2 for status, _ in found.values()):
                raise rados.TimedOut("no OSD has answered")
        # The id, with its length before it.
        return {name: text[4:].decode() for name, (status, text) in found.items() if status > 4}

    def _watchers(self, image_id: str) -> tuple[str, ...]:
        return tuple(sorted({str(one["addr"]) for one in self._image(image_id).watchers_list()}))

    def _image(self, image_id: str) -> Any:
        with self._lock:
            if self._generation != self._cluster.generation:
                # They hang on a connection that was given up.
                for image in self._images.values():
                    abandon(image)
                self._images = OrderedDict()
                self._generation = self._cluster.generation
            image = self._images.get(image_id)
            if image is not None:
                self._images.move_to_end(image_id)
                return image
        ioctx = self._cluster.ioctx(self._address.pool, self._address.namespace)
        # For reading, so that we are not among them.
        image = librbd().Image(ioctx, image_id=image_id, read_only=True)
        with self._lock:
            other = self._images.setdefault(image_id, image)
            spare = [] if other is image else [image]
            while len(self._images) > KEPT_LIMIT:
                # Somebody may be asking it just now: it is closed when nobody has it any more.
                self._images.popitem(last=False)
        for one in spare:
            one.close()
        return other

    def _forget(self, image_id: str) -> None:
        with self._lock, contextlib.suppress(KeyError):
            del self._images[image_id]
