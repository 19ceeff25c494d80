"""Taking a device out of a running guest, which has to let go of it first."""

from __future__ import annotations

import time
from collections.abc import Callable

from vorch.domain_xml import Element
from vorch.drivers.libvirt_connection import Handle
from vorch.errors import TimedOut

POLL_S = 0.2
# A guest that was still booting when it was asked has not heard of it.
ASK_AGAIN_S = 3.0


def unplug(
    what: str,
    find: Callable[[], tuple[Handle, Element] | None],
    ask: Callable[[Handle, Element, bool], None],
    timeout_s: float,
) -> None:
    """Ask, wait until the device is off the list, and ask again now and then.

    `find` gives the domain, and the device as it is in there, while it is. `ask` is told whether it
    was asked before.
    """
    deadline = time.monotonic() + timeout_s
    ask_at = 0.0
    while (found := find()) is not None:
        now = time.monotonic()
        if ask_at and now >= deadline:
            raise TimedOut(
                f"cannot {what}: the guest has not let go of it in {timeout_s:g} s; see that"
                " nothing in the guest uses it, and that the guest has booted",
                timeout_s=timeout_s,
            )
        if now < ask_at:
            time.sleep(max(0.0, min(POLL_S, deadline - now)))
            continue
        ask(*found, ask_at > 0)
        ask_at = now + ASK_AGAIN_S
