"""One lasting connection to a libvirt daemon, and the one table from its errors to vorch's.

The connection is opened when it is first needed and opened again, once, when it turns out to be
lost. Keepalive ends calls to a daemon that hangs; it and console streams need libvirt's event loop,
which one thread of the process runs.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar
from urllib.parse import urlsplit

from vorch.errors import (
    BadConfig,
    Conflict,
    Denied,
    Invalid,
    NoRoom,
    NotFound,
    StepFailed,
    TimedOut,
    Unreachable,
    Unsupported,
    VorchError,
)

try:
    import libvirt
except ImportError as exc:
    raise BadConfig(
        f"cannot reach any libvirt host: the Python package libvirt-python does not load ({exc});"
        " install it (pip install libvirt-python, or the distribution's python3-libvirt)",
        package="libvirt-python",
    ) from exc

__all__ = [
    "Connection",
    "Handle",
    "code_of",
    "leave_behind",
    "libvirt",
    "reason_of",
    "silences_borne",
    "translate",
]

T = TypeVar("T")
# libvirt-python carries no types: connections, domains and the like are known by their names only.
Handle: TypeAlias = Any

# A daemon that does not answer three times in a row, this many seconds each, is given up.
KEEPALIVE_INTERVAL_S = 3
KEEPALIVE_COUNT = 3
# Authentication and all, on a busy machine far away; unless the settings say otherwise.
OPEN_TIMEOUT_S = 10.0
# A daemon that hangs takes no leave.
CLOSE_TIMEOUT_S = 0.3
# A host that was silent is tried again by whoever asks, more and more rarely and not for long.
RETRY_AFTER_S = 5.0
RETRY_TIMEOUT_S = 1.0
MOST_OPENINGS = 6

_LOOK_AT_HOST = "look at the host's libvirt log"

# libvirt's code → what it is to vorch, and what to do about it.
_BY_CODE: dict[int, tuple[type[VorchError], str]] = {
    libvirt.VIR_ERR_NO_DOMAIN: (NotFound, "it is not running on that host; start it"),
    libvirt.VIR_ERR_NO_NETWORK: (NotFound, "make the network first"),
    libvirt.VIR_ERR_NO_STORAGE_POOL: (NotFound, "make the pool first"),
    libvirt.VIR_ERR_NO_STORAGE_VOL: (NotFound, "look at the pool"),
    libvirt.VIR_ERR_DEVICE_MISSING: (NotFound, "look at `vorch show`"),
    libvirt.VIR_ERR_OPERATION_INVALID: (Conflict, "see its state with `vorch show`"),
    libvirt.VIR_ERR_DOM_EXIST: (Conflict, "choose another name"),
    libvirt.VIR_ERR_NETWORK_EXIST: (Conflict, "choose another name"),
    libvirt.VIR_ERR_RESOURCE_BUSY: (Conflict, "wait until it is free"),
    libvirt.VIR_ERR_NO_SUPPORT: (Unsupported, "a newer libvirt may"),
    libvirt.VIR_ERR_OPERATION_UNSUPPORTED: (Unsupported, "do it while the VM is stopped"),
    libvirt.VIR_ERR_CONFIG_UNSUPPORTED: (Unsupported, "change the VM's settings"),
    libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED: (Unsupported, "a newer libvirt may"),
    libvirt.VIR_ERR_XML_ERROR: (Invalid, "change the VM's settings"),
    libvirt.VIR_ERR_XML_DETAIL: (Invalid, "change the VM's settings"),
    libvirt.VIR_ERR_XML_INVALID_SCHEMA: (Invalid, "change the VM's settings"),
    libvirt.VIR_ERR_INVALID_ARG: (Invalid, "ask for something that fits"),
    libvirt.VIR_ERR_OS_TYPE: (Unsupported, "choose another machine type"),
    libvirt.VIR_ERR_NO_OS: (Unsupported, "choose another machine type"),
    libvirt.VIR_ERR_CPU_INCOMPATIBLE: (Unsupported, "choose the CPU model 'default'"),
    libvirt.VIR_ERR_OPERATION_TIMEOUT: (TimedOut, "try again"),
    libvirt.VIR_ERR_AGENT_UNRESPONSIVE: (TimedOut, "look whether the guest's agent runs"),
    libvirt.VIR_ERR_AGENT_UNSYNCED: (TimedOut, "look whether the guest's agent runs"),
    libvirt.VIR_ERR_OPERATION_DENIED: (Denied, "run it as root or as a member of group libvirt"),
    libvirt.VIR_ERR_ACCESS_DENIED: (Denied, "ask the host's administrator"),
    libvirt.VIR_ERR_AUTH_FAILED: (Denied, "run it as root or as a member of group libvirt"),
    libvirt.VIR_ERR_AUTH_CANCELLED: (Denied, "run it as root or as a member of group libvirt"),
    libvirt.VIR_ERR_AUTH_UNAVAILABLE: (Denied, "run it as root or as a member of group libvirt"),
    libvirt.VIR_ERR_NO_MEMORY: (NoRoom, "stop another VM, or ask for less"),
    libvirt.VIR_ERR_INVALID_CONN: (Unreachable, "see whether libvirtd runs there"),
    libvirt.VIR_ERR_NO_CONNECT: (Unreachable, "check the host's URI"),
    libvirt.VIR_ERR_NO_SERVER: (Unreachable, "see whether libvirtd runs there"),
    libvirt.VIR_ERR_NO_CLIENT: (Unreachable, "see whether libvirtd runs there"),
    libvirt.VIR_ERR_RPC: (Unreachable, "see whether libvirtd runs there"),
    libvirt.VIR_ERR_GNUTLS_ERROR: (Unreachable, "check the host's certificates"),
    libvirt.VIR_ERR_LIBSSH: (Unreachable, "check that ssh gets there without a password"),
}

# Many errors have no code of their own: libvirt passes on what QEMU or the kernel said.
# The first that is found counts.
_BY_TEXT: tuple[tuple[str, type[VorchError], str], ...] = (
    (
        r"connect socket.*Permission denied",
        Denied,
        "run it as root or as a member of group libvirt",
    ),
    (r"connect socket|socket is closed", Unreachable, "see whether libvirtd runs there"),
    (r"Connection (refused|reset)|No route to host", Unreachable, "see whether the host runs"),
    (
        r"keepalive timeout|Cannot (recv|write) data|End of file while reading",
        Unreachable,
        "see whether libvirtd runs there",
    ),
    (r"Failed to get .* lock", Conflict, "another VM or process has that disk open; end it first"),
    (r"Cannot allocate memory", NoRoom, "stop another VM, or ask for less memory"),
    (r"No space left", NoRoom, "free some space in that pool"),
    (r"already in use by interface", Conflict, "choose another subnet"),
    (r"bridge name .* already in use", Conflict, "choose another bridge name"),
    (r"[Aa]ctive (console session|channel stream) exists", Conflict, "close the other one first"),
    (
        r"Permission denied",
        Denied,
        "let the host's QEMU user read that file and enter every folder above it",
    ),
    (r"No such device", NotFound, "look at the host's network interfaces"),
    (r"No such file or directory", NotFound, "look at the host's pools and programs"),
)

# What libvirt and QEMU put before the words that matter.
_NOISE = re.compile(
    r"^(internal error: |operation failed: |unsupported configuration: |"
    r"Requested operation is not valid: |invalid argument: )?"
    r"((process exited while connecting to monitor|qemu unexpectedly closed the monitor): )?"
    r"(unable to execute QEMU command '[^']*': )?"
    r"(\d{4}-\d\d-\d\dT[\d:.]+Z )?(qemu-system-\S+: )?(-(blockdev|device|netdev) \{.*?\}: )?"
)
_WHY_LIMIT = 400


def code_of(exc: Any) -> int:
    return int(exc.get_error_code() or 0)


def reason_of(exc: Any) -> str:
    """What libvirt says, without the words that say nothing to the person who asked."""
    lines = [line.strip() for line in str(exc.get_error_message() or exc).splitlines()]
    # QEMU's warnings may come before its error; the last line that is not a question says it.
    told = [line for line in lines if line and "warning:" not in line] or lines
    text = _NOISE.sub("", " ".join(told)).strip().rstrip(".;") or "libvirt gave no reason"
    return text if len(text) <= _WHY_LIMIT else text[:_WHY_LIMIT] + "…"


def translate(exc: Any, what: str) -> VorchError:
    """A libvirt error as vorch's own. `what` completes "cannot …"."""
    text, code = str(exc.get_error_message() or exc), code_of(exc)
    kind, remedy = _BY_CODE.get(code, (StepFailed, _LOOK_AT_HOST))
    for pattern, kind_by_text, remedy_by_text in _BY_TEXT:
        if re.search(pattern, text):
            kind, remedy = kind_by_text, remedy_by_text
            break
    return kind(f"cannot {what}: {reason_of(exc)}; {remedy}", libvirt_code=code)


_events_lock = threading.Lock()
_events_running = False


def _run_events() -> None:
    while True:
        libvirt.virEventRunDefaultImpl()


def _start_events() -> None:
    """libvirt's event loop, once for the process, before its first connection."""
    global _events_running
    with _events_lock:
        if _events_running:
            return
        # libvirt would print each error to stderr as well as raise it.
        libvirt.registerErrorHandler(lambda _context, _error: None, None)
        libvirt.virEventRegisterDefaultImpl()
        threading.Thread(target=_run_events, name="libvirt-events", daemon=True).start()
        _events_running = True


def leave_behind(act: Callable[[], None]) -> None:
    """Do what a daemon that hangs would hold up, and go on without it after a moment."""
    leaving = threading.Thread(target=act, name="libvirt-close", daemon=True)
    leaving.start()
    leaving.join(CLOSE_TIMEOUT_S)


class _Opening:
    """One try to open a URI, in a thread of its own: libvirt sets it no limit.

    A host without power lets the kernel try for a minute, and a daemon that hangs takes the
    connection and never goes on with it. No call of libvirt's can be ended from outside.
    """

    def __init__(self, uri: str, patience_s: float) -> None:
        _start_events()
        self.uri = uri
        self.began = time.monotonic()
        self.until = self.began + patience_s
        self.done = threading.Event()
        self.handle: Handle = None
        self.error: Any = None
        self._lock = threading.Lock()
        self._forgotten = False
        threading.Thread(target=self._run, name="libvirt-open", daemon=True).start()

    def _run(self) -> None:
        try:
            handle = libvirt.open(self.uri)
        except libvirt.libvirtError as exc:
            self.error = exc
        else:
            with self._lock:
                if self._forgotten:
                    handle.close()
                else:
                    self.handle = handle
        finally:
            self.done.set()

    def forget(self) -> None:
        """What it comes to is of no use any more."""
        with self._lock:
            self._forgotten = True
            if self.handle is not None:
                self.handle.close()


def silences_borne(usual: int, timeout_s: float) -> int:
    """Who lets hosts be slower to answer lets them be silent for longer in the same measure."""
    return round(usual * max(1.0, timeout_s / OPEN_TIMEOUT_S))


class Connection:
    """A libvirt URI that stays open. Safe to use from many threads."""

    def __init__(
        self,
        uri: str,
        *,
        open_timeout_s: float = OPEN_TIMEOUT_S,
        keepalive_count: int = KEEPALIVE_COUNT,
    ) -> None:
        self.uri = uri
        self.open_timeout_s = open_timeout_s
        self._keepalive_count = silences_borne(keepalive_count, open_timeout_s)
        parts = urlsplit(uri)
        # Files and addresses of this machine are the host's own.
        self.local = not parts.netloc
        self.session = parts.path.rstrip("/").endswith("/session")
        self._lock = threading.Lock()
        self._handle: Handle = None
        self._tries: list[_Opening] = []
        # Grows with each opening, so that what was learnt from an earlier daemon can be dropped.
        self.opened = 0
        # Called when what was open is lost or given back; and with a handle before it is closed.
        self.on_loss: Callable[[], None] = lambda: None
        self.on_drop: Callable[[Handle], None] = lambda handle: None

    def _open(self) -> Handle:
        """A new handle. A host that says nothing costs its time once, however many ask for it."""
        handle = self._opened()
        # A driver inside this process has no wire that could break, and refuses.
        with contextlib.suppress(libvirt.libvirtError):
            handle.setKeepAlive(KEEPALIVE_INTERVAL_S, self._keepalive_count)
            handle.registerCloseCallback(self._closed_by_the_other_side, None)
        self.opened += 1
        return handle

    def _closed_by_the_other_side(self, handle: Handle, reason: int, _: object) -> None:
        """Called by libvirt's event loop, which must not be held up."""
        self.on_loss()

    def _opened(self) -> Handle:
        tries, now = self._tries, time.monotonic()
        if not tries:
            tries.append(_Opening(self.uri, self.open_timeout_s))
        elif len(tries) < MOST_OPENINGS and now > tries[-1].began + RETRY_AFTER_S * len(tries):
            # It may be back; the earlier try does not notice that, or late.
            tries.append(_Opening(self.uri, RETRY_TIMEOUT_S))
        tries[-1].done.wait(max(0.0, tries[-1].until - now))
        over = next((one for one in tries if one.done.is_set()), None)
        if over is None:
            raise Unreachable(
                f"cannot reach libvirt at {self.uri!r}: no answer came in"
                f" {self.open_timeout_s:g} s; see whether the host and its libvirtd run",
                uri=self.uri,
            )
        for one in tries:
            if one is not over:
                one.forget()
        tries.clear()
        exc = over.error
        if exc is not None:
            error = translate(exc, f"reach libvirt at {self.uri!r}")
            if isinstance(error, (Denied, Unreachable)):
                raise error from exc
            raise Unreachable(error.message, uri=self.uri, **error.fields) from exc
        return over.handle

    def handle(self) -> Handle:
        with self._lock:
            if self._handle is not None and not self._alive(self._handle):
                self._drop()
            if self._handle is None:
                self._handle = self._open()
            return self._handle

    @staticmethod
    def _alive(handle: Handle) -> bool:
        try:
            return bool(handle.isAlive())
        except libvirt.libvirtError:
            return False

    def _drop(self) -> None:
        handle, self._handle = self._handle, None
        self.on_loss()
        self.on_drop(handle)
        with contextlib.suppress(libvirt.libvirtError):
            handle.unregisterCloseCallback()
        with contextlib.suppress(libvirt.libvirtError):
            handle.close()

    def call(self, what: str, work: Callable[[Handle], T]) -> T:
        """`work` with the connection; once more when the connection broke under it.

        All that vorch asks of a host is safe to repeat, and `work` looks before it acts.
        """
        handle = self.handle()
        try:
            return work(handle)
        except libvirt.libvirtError as exc:
            if self._alive(handle):
                raise translate(exc, what) from exc
        handle = self.handle()
        try:
            return work(handle)
        except libvirt.libvirtError as exc:
            raise translate(exc, what) from exc

    def close(self) -> None:
        """Safe to repeat; the next call opens it again. Not held up by a daemon that hangs."""

        def leave() -> None:
            with self._lock:
                if self._handle is not None:
                    self._drop()

        leave_behind(leave)
