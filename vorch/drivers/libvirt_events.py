"""Being told by libvirt what happens on a host. Its event loop is `libvirt_connection`'s part."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping

from vorch.availability import Ending
from vorch.drivers.libvirt_connection import Connection, Handle, libvirt

# So many that ended last are remembered: of a host with many guests that come and go.
MOST_ENDINGS = 1000

# libvirt's numbers for what becomes of a domain, in words.
_SHUT = {1: "its guest powered itself off", 2: "its host ended it"}
_STOPPED = {
    0: "QEMU ended",
    1: "QEMU was destroyed",
    2: "the guest crashed",
    3: "it moved away",
    4: "it was saved",
    5: "QEMU died",
    6: "it was rolled back",
}


class LibvirtEvents:
    """The life of all domains of one host, told to all who want to hear of it.

    libvirt takes each kind of event once for a connection, so this is what listens to it.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.RLock()
        self._tells: dict[object, Callable[[str], None]] = {}
        self._registered: tuple[Handle, int] | None = None
        self._endings: dict[str, Ending] = {}
        # Domains that are about to end, and what was said of that first: their guest is done, or
        # their host ends them.
        self._ending: dict[str, int] = {}
        connection.on_loss = self._lost
        connection.on_drop = self._deregister

    def subscribe(self, what: str, tell: Callable[[str], None]) -> LibvirtSubscription:
        self._connection.call(what, self._register)
        subscription = LibvirtSubscription(self)
        with self._lock:
            self._tells[subscription] = tell
            here = self._registered is not None
        if not here:
            # Lost again at once.
            self._lost()
        return subscription

    def endings(self, what: str) -> Mapping[str, Ending]:
        """How domains ended since this listens to the host without a gap; it does from now on."""
        self._connection.call(what, self._register)
        with self._lock:
            return dict(self._endings)

    def unsubscribe(self, subscription: LibvirtSubscription) -> None:
        """Whoever is being told at this moment is waited for."""
        with self._lock:
            self._tells.pop(subscription, None)

    def _register(self, handle: Handle) -> None:
        with self._lock:
            if self._registered is not None and self._registered[0] is handle:
                return
        number = handle.domainEventRegisterAny(
            None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._heard, None
        )
        with self._lock:
            self._registered = (handle, number)

    def _deregister(self, handle: Handle) -> None:
        """Called before a handle is closed: libvirt would keep it open for what listens to it."""
        with self._lock:
            registered, self._registered = self._registered, None
            self._forget_endings()
        if registered is not None and registered[0] is handle:
            with contextlib.suppress(libvirt.libvirtError):
                handle.domainEventDeregisterAny(registered[1])

    def _heard(self, handle: Handle, domain: Handle, event: int, detail: int, _: object) -> None:
        """Called by libvirt's event loop, which must not be held up."""
        vm_id = domain.UUIDString()
        with self._lock:
            self._note(vm_id, event, detail)
            for tell in list(self._tells.values()):
                tell(vm_id)

    def _note(self, vm_id: str, event: int, detail: int) -> None:
        """A guest that powers itself off and a QEMU that is told to end look alike at the end, and
        are told apart by what comes before it.
        """
        if event == libvirt.VIR_DOMAIN_EVENT_STARTED:
            self._endings.pop(vm_id, None)
            self._ending.pop(vm_id, None)
        elif event == libvirt.VIR_DOMAIN_EVENT_SHUTDOWN:
            if detail in (
                libvirt.VIR_DOMAIN_EVENT_SHUTDOWN_GUEST,
                libvirt.VIR_DOMAIN_EVENT_SHUTDOWN_HOST,
            ):
                # What libvirt then does to have QEMU gone may come as a second one, on a busy host.
                self._ending.setdefault(vm_id, detail)
        elif event == libvirt.VIR_DOMAIN_EVENT_STOPPED:
            # On a busy host libvirt has to destroy a QEMU whose guest has ended long before.
            before = self._ending.pop(vm_id, None)
            by_guest = (
                detail == libvirt.VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN
                if before is None
                else before == libvirt.VIR_DOMAIN_EVENT_SHUTDOWN_GUEST
            )
            told = " and ".join(
                [*([] if before is None else [_SHUT.get(before, "")]), _STOPPED.get(detail, "")]
            )
            self._endings.pop(vm_id, None)
            self._endings[vm_id] = Ending(time.time(), by_guest, told)
            while len(self._endings) > MOST_ENDINGS:
                del self._endings[next(iter(self._endings))]

    def _forget_endings(self) -> None:
        """What ends while nobody listens is not known, so what was known before is no whole."""
        self._endings.clear()
        self._ending.clear()

    def _lost(self) -> None:
        with self._lock:
            self._forget_endings()
            tells, self._tells = self._tells, {}
            for tell in tells.values():
                tell("")


class LibvirtSubscription:
    """The Subscription port."""

    def __init__(self, events: LibvirtEvents) -> None:
        self._events = events

    def close(self) -> None:
        self._events.unsubscribe(self)
