"""A guest's serial port as a two-way stream over libvirt, so that it works from afar as well."""

from __future__ import annotations

import threading
import time

from vorch.drivers.libvirt_connection import Handle, libvirt, translate
from vorch.errors import Unreachable

# What may wait to be read before the guest's output is held back.
BUFFER_LIMIT_BYTES = 1024 * 1024
WRITE_TIMEOUT_S = 10.0
_CHUNK_BYTES = 65536
_WOULD_BLOCK = -2


class StreamConsole:
    """Obeys `ports.Console`. libvirt's event thread fills a buffer; `read` empties it."""

    def __init__(self, handle: Handle, domain: Handle, name: str) -> None:
        self._name = name
        self._changed = threading.Condition()
        self._buffer = bytearray()
        self._ended = ""
        self._listening = True
        self._closed = False
        self._stream = handle.newStream(libvirt.VIR_STREAM_NONBLOCK)
        domain.openConsole(None, self._stream, 0)
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
                    f"cannot read the console of {self._name!r}: {self._ended}; start the VM, or"
                    " open its console again"
                )
            self._buffer.clear()
            self._listen()
            return data

    def write(self, data: bytes) -> None:
        deadline = time.monotonic() + WRITE_TIMEOUT_S
        while data:
            if self._ended:
                raise Unreachable(
                    f"cannot write to the console of {self._name!r}: {self._ended}; open it again"
                )
            try:
                sent = self._stream.send(data)
            except libvirt.libvirtError as exc:
                raise translate(exc, f"write to the console of {self._name!r}") from exc
            if sent > 0:
                data = data[sent:]
            elif time.monotonic() > deadline:
                raise Unreachable(
                    f"cannot write to the console of {self._name!r}: it took nothing for"
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
