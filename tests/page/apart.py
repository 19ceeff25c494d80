"""A network of the browser's own, in which nothing changes while other tests make theirs.

Chromium gives up whatever it is fetching when the addresses of its machine change, as they do while
labs come and go. So it runs in a network namespace with nothing but loopback; what it asks there of
a port of 127.0.0.1 is passed on to the same port of this machine.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import socket
import subprocess
import tempfile
import threading
from pathlib import Path

_CLONE_NEWNET = 0x40000000
_LOOPBACK = "127.0.0.1"


def can_be() -> bool:
    return os.geteuid() == 0 and all(map(shutil.which, ("unshare", "nsenter", "ip")))


class Apart:
    def __init__(self) -> None:
        # It is there as long as somebody is in it: until its input ends, with this process at last.
        self._holder = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "ip link set lo up && echo up && exec cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"up\n"
        self._space = f"/proc/{self._holder.pid}/ns/net"
        self._folder = tempfile.TemporaryDirectory(prefix="vorch-apart-")
        self._listening: dict[int, socket.socket] = {}

    def program(self, path: str) -> str:
        """A program that runs that one in here."""
        script = Path(self._folder.name) / Path(path).name
        script.write_text(f'#!/bin/sh\nexec nsenter --net={self._space} -- {path} "$@"\n')
        script.chmod(0o755)
        return str(script)

    def pass_on(self, port: int) -> None:
        """From in here to this machine's port of that number."""
        if port not in self._listening:
            thread = threading.Thread(target=self._listen, args=(port,))
            thread.start()
            thread.join()
            threading.Thread(target=self._accept, args=(port,), daemon=True).start()

    def close(self) -> None:
        for one in self._listening.values():
            # Whoever waits in `accept` comes back by this alone.
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        assert self._holder.stdin is not None
        self._holder.stdin.close()
        self._holder.wait(10)
        self._folder.cleanup()

    def _listen(self, port: int) -> None:
        """In a thread that ends with it: a thread has the namespace, and a socket keeps it."""
        libc = ctypes.CDLL(None, use_errno=True)
        with Path(self._space).open("rb") as space:
            if libc.setns(space.fileno(), _CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")
        self._listening[port] = socket.create_server((_LOOPBACK, port), backlog=64)

    def _accept(self, port: int) -> None:
        while True:
            try:
                inside, _ = self._listening[port].accept()
            except OSError:
                return
            try:
                outside = socket.create_connection((_LOOPBACK, port))
            except OSError:
                inside.close()
                continue
            for one, other in ((inside, outside), (outside, inside)):
                threading.Thread(target=_pump, args=(one, other), daemon=True).start()


def _pump(one: socket.socket, other: socket.socket) -> None:
    """Until one side ends; its end is passed on, and the other may still speak."""
    try:
        while data := one.recv(65536):
            other.sendall(data)
        other.shutdown(socket.SHUT_WR)
    except OSError:
        for end in (one, other):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
