"""A place on this machine that a VNC viewer goes to, and that leads to the screen of a VM."""

from __future__ import annotations

import contextlib
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from vorch import Console

# How often it is looked whether the other side has ended.
LOOK_S = 0.2
CHUNK_BYTES = 65536
# Viewers at a time.
WAITING = 8


class Listener:
    """Each viewer that comes gets a stream of its own."""

    def __init__(self, opened: Callable[[], Console], port: int | None) -> None:
        """`port`: of 127.0.0.1; None: a socket in a folder that nobody else may enter."""
        from vorch import Unreachable

        self._opened = opened
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []
        self._folder: str | None = None
        try:
            if port is None:
                self._folder = tempfile.mkdtemp(prefix="vorch-display-")
                self.address = str(Path(self._folder, "vnc.sock"))
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                self._socket.bind(self.address)
            else:
                self._socket = socket.create_server(("127.0.0.1", port))
                self.address = f"vnc://127.0.0.1:{self._socket.getsockname()[1]}"
        except OSError as exc:
            raise Unreachable(
                f"cannot wait for a viewer: {exc.strerror}; choose another port (--port)"
            ) from exc
        self._socket.listen(WAITING)
        self._socket.settimeout(LOOK_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._over.set()
        self._socket.close()
        for thread in self._threads:
            thread.join(2.0)
        if self._folder is not None:
            with contextlib.suppress(OSError):
                Path(self.address).unlink()
                Path(self._folder).rmdir()

    def serve(self, *, limit_s: float | None = None) -> None:
        until = None if limit_s is None else time.monotonic() + limit_s
        while not self._over.is_set() and (until is None or time.monotonic() < until):
            try:
                viewer, _ = self._socket.accept()
            except TimeoutError:
                continue
            except OSError:
                # It was closed, or this process has all the files open that it may.
                self._over.wait(LOOK_S)
                continue
            self._threads = [one for one in self._threads if one.is_alive()]
            if len(self._threads) >= 2 * WAITING:
                viewer.close()
                continue
            self._begin(lambda viewer=viewer: self._show(viewer))  # type: ignore[misc]

    def _begin(self, act: Callable[[], None]) -> None:
        thread = threading.Thread(target=act, name="vorch-display", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _show(self, viewer: socket.socket) -> None:
        from vorch import VorchError

        with viewer:
            try:
                stream = self._opened()
            except VorchError as exc:
                print(f"vorch: {exc.code}: {exc.message}", file=sys.stderr, flush=True)
                return
            over = threading.Event()
            self._begin(lambda: _from_viewer(viewer, stream, over))
            try:
                while not (over.is_set() or self._over.is_set()):
                    data = stream.read(LOOK_S)
                    if data:
                        viewer.sendall(data)
            except (VorchError, OSError):
                # The viewer is told by the end of its connection, and may come again.
                pass
            finally:
                over.set()
                with contextlib.suppress(OSError):
                    viewer.shutdown(socket.SHUT_RDWR)
                stream.close()


def _from_viewer(viewer: socket.socket, stream: Console, over: threading.Event) -> None:
    from vorch import VorchError

    try:
        while data := viewer.recv(CHUNK_BYTES):
            stream.write(data)
    except (VorchError, OSError):
        pass
    over.set()
