"""What systemd is told of this process, where it was started as a service of Type=notify."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress


def notify(*words: str) -> None:
    """Nothing happens where nobody listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    where = "\0" + address[1:] if address.startswith("@") else address
    # Whether systemd hears it or not, the service goes on.
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto("\n".join(words).encode(), where)


async def keep_alive() -> None:
    """Tells it, twice as often as it wants, that the loop still turns. For ever."""
    every_s = int(os.environ.get("WATCHDOG_USEC") or 0) / 2e6
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        every_s = 0
    while every_s:
        notify("WATCHDOG=1")
        await asyncio.sleep(every_s)
