"""A guest's serial port and screen as two-way streams over libvirt, so that both work from afar.

Where libvirt is on this machine it hands over a socket of the screen, and several may look at once;
elsewhere a screen is a stream as the serial port is, of one at a time.
"""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections.abc import Callable

from vorch.drivers.libvirt_connection import Handle, libvirt, translate
from vorch.errors import Unreachable

# What may wait to be read before the guest's output is held back.
BUFFER_LIMIT_BYTES = 1024 * 1024
WRITE_TIMEOUT_S = 10.0
_CHUNK_BYTES = 65536
_WOULD_BLOCK = -2


class StreamConsole:
    """Obeys `ports.Console`. libvirt's event thread fills a buffer; `read` empties it."""

    def __init__(
        self, handle: Handle, name: str, connect: Callable[[Handle], None], what: str = "console"
    ) -> None:
        """`connect`: makes a new stream one to a device of the guest."""
        self._name = f"the {what} of {name!r}"
        self._changed = threading.Condition()
        self._buffer = bytearray()
        self._ended = ""
        self._listening = True
        self._closed = False
        self._stream = handle.newStream(libvirt.VIR_STREAM_NONBLOCK)
        connect(self._stream)
        self._stream.eventAddCallback(self._interest(True), self._on_event, None)

    @staticmethod
    def _interest(reading: bool) -> int:
        ends = libvirt.VIR_STREAM_EVENT_ERROR | libvirt.VIR_STREAM_EVENT_HANGUP
        return int(ends | (libvirt.VIR_STREAM_EVENT_READABLE if reading else 0))

    def _on_event(self, stream: Handle, events: int, _opaque: object) -> None:
        data: bytes | int = _WOULD_BLOCK
        ended = ""
        try:
            if events & libvirt.VIR_STREAM_EVENT_READABLE:
                data = stream.recv(_CHUNK_BYTES)
        except libvirt.libvirtError as exc:
            ended = str(exc)
        if data == b"" or (
            data == _WOULD_BLOCK
            and events & (libvirt.VIR_STREAM_EVENT_ERROR | libvirt.VIR_STREAM_EVENT_HANGUP)
        ):
            ended = "its VM has ended"
        with self._changed:
            if isinstance(data, bytes):
                self._buffer += data
            if ended and not self._ended:
                self._ended = ended
            self._listen()
            self._changed.notify_all()

    def _listen(self) -> None:
        """Hear more as long as there is room. Holds the lock."""
        if self._closed:
            return
        wanted = not self._ended and len(self._buffer) < BUFFER_LIMIT_BYTES
        try:
            if self._ended:
                self._closed = True
                self._stream.eventRemoveCallback()
                self._stream.abort()
            elif wanted != self._listening:
                self._stream.eventUpdateCallback(self._interest(wanted))
                self._listening = wanted
        except libvirt.libvirtError as exc:
            self._ended = self._ended or str(exc)

    def read(self, timeout_s: float) -> bytes:
        with self._changed:
            self._changed.wait_for(lambda: self._buffer or self._ended, timeout_s)
            data = bytes(self._buffer)
            if not data and self._ended:
                raise Unreachable(
                    f"cannot read {self._name}: {self._ended}; start the VM, or open it again"
                )
            self._buffer.clear()
            self._listen()
            return data

    def write(self, data: bytes) -> None:
        deadline = time.monotonic() + WRITE_TIMEOUT_S
        while data:
            if self._ended:
                raise Unreachable(f"cannot write to {self._name}: {self._ended}; open it again")
            try:
                sent = self._stream.send(data)
            except libvirt.libvirtError as exc:
                raise translate(exc, f"write to {self._name}") from exc
            if sent > 0:
                data = data[sent:]
            elif time.monotonic() > deadline:
                raise Unreachable(
                    f"cannot write to {self._name}: it took nothing for"
                    f" {WRITE_TIMEOUT_S:g} s; reset the VM"
                )
            else:
                time.sleep(0.01)

    def close(self) -> None:
        """Safe to repeat."""
        with self._changed:
            if not self._ended:
                self._ended = "it was closed"
            self._listen()
            self._changed.notify_all()


class SocketConsole:
    """Obeys `ports.Console`: one end of a socket, whose other one the hypervisor has."""

    def __init__(self, descriptor: int, name: str) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._socket.setblocking(False)
        self._name = f"the screen of {name!r}"
        self._closed = False
        # Who waits in `read` is woken by it: a socket that is closed meanwhile wakes nobody.
        self._woken, self._wake = os.pipe()
        # Not `select`, which knows the first thousand descriptors of a process only.
        self._waiting = select.poll()
        for one in (self._socket.fileno(), self._woken):
            self._waiting.register(one, select.POLLIN)
        self._lock = threading.Lock()

    def read(self, timeout_s: float) -> bytes:
        with self._lock:
            if self._closed:
                raise self._over("it was closed")
            ready = self._waiting.poll(max(0.0, timeout_s) * 1000)
            if self._closed:
                raise self._over("it was closed")
            if not ready:
                return b""
            try:
                data = self._socket.recv(_CHUNK_BYTES)
            except BlockingIOError:
                return b""
            except OSError as exc:
                raise self._over(exc.strerror or str(exc)) from exc
        if not data:
            raise self._over("its VM has ended")
        return data

    def write(self, data: bytes) -> None:
        deadline = time.monotonic() + WRITE_TIMEOUT_S
        while data:
            if self._closed:
                raise self._over("it was closed")
            try:
                data = data[self._socket.send(data) :]
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise self._over(f"it took nothing for {WRITE_TIMEOUT_S:g} s") from None
                time.sleep(0.01)
            except OSError as exc:
                raise self._over(exc.strerror or str(exc)) from exc

    def close(self) -> None:
        """Safe to repeat."""
        if self._closed:
            return
        self._closed = True
        os.write(self._wake, b"x")
        with self._lock:
            self._socket.close()
            os.close(self._wake)
            os.close(self._woken)

    def _over(self, why: str) -> Unreachable:
        return Unreachable(f"cannot use {self._name}: {why}; open it again")
