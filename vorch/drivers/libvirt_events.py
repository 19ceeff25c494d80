"""Being told by libvirt what happens on a host. Its event loop is `libvirt_connection`'s part."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

from vorch.drivers.libvirt_connection import Connection, Handle, libvirt


class LibvirtEvents:
    """The life of all domains of one host, told to all who want to hear of it.

    libvirt takes each kind of event once for a connection, so this is what listens to it.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.RLock()
        self._tells: dict[object, Callable[[str], None]] = {}
        self._registered: tuple[Handle, int] | None = None
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
        if registered is not None and registered[0] is handle:
            with contextlib.suppress(libvirt.libvirtError):
                handle.domainEventDeregisterAny(registered[1])

    def _heard(self, handle: Handle, domain: Handle, event: int, detail: int, _: object) -> None:
        """Called by libvirt's event loop, which must not be held up."""
        vm_id = domain.UUIDString()
        with self._lock:
            for tell in list(self._tells.values()):
                tell(vm_id)

    def _lost(self) -> None:
        with self._lock:
            tells, self._tells = self._tells, {}
            for tell in tells.values():
                tell("")


class LibvirtSubscription:
    """The Subscription port."""

    def __init__(self, events: LibvirtEvents) -> None:
        self._events = events

    def close(self) -> None:
        self._events.unsubscribe(self)
