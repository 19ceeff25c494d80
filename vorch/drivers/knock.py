"""Is anybody at home? A TCP connection that is only begun, with a limit that holds.

Whether it is accepted or refused, somebody was there to say so. Names are looked up beside it: a
dead name server must not make living hosts look dead, so then nobody can say.
"""

from __future__ import annotations

import errno
import ipaddress
import selectors
import socket
import threading
import time

from vorch.availability import Knock

# Our own network is missing, or a rule of this machine forbids it: that tells nothing of the host.
_OURS = {errno.ENETUNREACH, errno.ENETDOWN, errno.EACCES, errno.EPERM, errno.EADDRNOTAVAIL}
NAMES_KEPT_S = 300.0


def knock(address: str, port: int, timeout_s: float) -> Knock | None:
    """None: nobody can say. `address` is an IP address."""
    ip = ipaddress.ip_address(address)
    family = socket.AF_INET6 if ip.version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as end, selectors.DefaultSelector() as ready:
        end.setblocking(False)
        status = end.connect_ex((address, port))
        if status == errno.EINPROGRESS:
            ready.register(end, selectors.EVENT_WRITE)
            if not ready.select(timeout_s):
                return Knock.SILENCE
            status = end.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if status == 0:
        return Knock.ANSWER
    if status in (errno.ECONNREFUSED, errno.ECONNRESET):
        return Knock.RESET
    if status in _OURS:
        return None
    # What a router says for it (no such host), or nobody at all.
    return Knock.SILENCE


class Names:
    """Host names to IP addresses, kept for a while and used beyond that when nobody answers."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, tuple[float, str]] = {}

    def address(self, host: str, timeout_s: float) -> str | None:
        try:
            return str(ipaddress.ip_address(host))
        except ValueError:
            pass
        with self._lock:
            known = self._known.get(host)
        if known is not None and time.monotonic() - known[0] < NAMES_KEPT_S:
            return known[1]
        # The look-up itself cannot be given a limit, nor ended.
        asking = threading.Thread(target=self._ask, args=(host,), daemon=True)
        asking.start()
        asking.join(timeout_s)
        with self._lock:
            found = self._known.get(host)
        return None if found is None else found[1]

    def _ask(self, host: str) -> None:
        try:
            found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except OSError:
            return
        with self._lock:
            self._known[host] = (time.monotonic(), str(found[0][4][0]))
