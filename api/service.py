"""The service in the foreground: one process on one address of this machine, until it is ended."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import logging
import signal
import socket
import threading
import traceback
from collections.abc import Callable, Generator

import uvicorn

from vorch import (
    Conflict,
    Denied,
    Invalid,
    Orchestrator,
    StepFailed,
    Unreachable,
    VorchError,
    WatchLoop,
    await_tasks,
    state_path,
)

from . import systemd
from .app import create_app
from .auth import token_of
from .metrics import Metrics
from .tls import tls_for

TOKEN_FILE = "token"  # noqa: S105 - the file's name
# How long requests may take to end when the service does.
PATIENCE_S = 5
# Of one message of a websocket: a viewer's longest is the text of a clipboard.
MESSAGE_BYTES = 256 * 1024

log = logging.getLogger(__name__)


class Service:
    """What `vorch serve` runs. Listens from the moment it is made, so that the address is known."""

    def __init__(
        self,
        cluster: Orchestrator,
        *,
        host: str | None = None,
        port: int | None = None,
        watch: Callable[[str], None] | None = None,
        counted: Metrics | None = None,
    ) -> None:
        """`watch`: high availability is looked after as well, and its log goes there.

        `counted`: what has been counted of the connection until now.
        """
        settings = cluster.settings
        where = settings.listen_host if host is None else host
        self._notice_s, self._patience_s = settings.stop_notice_s, settings.stop_patience_s
        self._end: Callable[[], None] = lambda: None
        self._vigil = None if watch is None else Vigil(cluster, watch)
        self._socket = _listen(where, settings.listen_port if port is None else port)
        try:
            self.tls = tls_for(settings, where, loopback=_is_loopback(self._socket))
            file = None
            if settings.uri.startswith("sqlite:"):
                file = state_path(settings.uri).with_name(TOKEN_FILE)
            self.token = token_of(file)
            self._app = create_app(cluster, token=self.token, counted=counted)
        except BaseException:
            self._socket.close()
            raise

    def end(self) -> None:
        """Let `run` return, from another thread."""
        self._end()

    @property
    def address(self) -> str:
        """As one can call it: of all addresses at once, this machine's name."""
        host, port = self._socket.getsockname()[:2]
        if ipaddress.ip_address(host.partition("%")[0]).is_unspecified:
            host = socket.gethostname()
        scheme = "http" if self.tls is None else "https"
        return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"

    def run(self, ready: Callable[[], None] = lambda: None) -> None:
        """Serve until SIGTERM or Ctrl-C. `ready` is called once it answers."""
        config = uvicorn.Config(
            self._app,
            log_level="warning",
            access_log=False,
            log_config=None,
            server_header=False,
            timeout_graceful_shutdown=PATIENCE_S,
            # It reads no more than it can pass on, and writes no more than is taken.
            ws="websockets-sansio",
            ws_max_size=MESSAGE_BYTES,
            # Screens are compressed already, and what is compressed can be made to swell.
            ws_per_message_deflate=False,
            ssl_certfile=None if self.tls is None else self.tls.certificate,
            ssl_keyfile=None if self.tls is None else self.tls.key,
        )
        server = _Server(config, self._app.state.let_go)
        server.ending, server.notice_s = self._app.state.ending, self._notice_s

        def end() -> None:
            server.ending.set()
            server.should_exit = True

        self._end = end

        with contextlib.closing(self._socket), self._vigil or contextlib.nullcontext() as vigil:
            if vigil is not None:
                vigil.on_crash(end)
            asyncio.run(_until_ended(server, self._socket, ready))
        self._finish_tasks(0.0 if server.force_exit else self._patience_s)

    @staticmethod
    def _finish_tasks(patience_s: float) -> None:
        """What is not over then ends with the process; its journal is for others to carry on."""
        left = await_tasks(patience_s)
        if left:
            log.warning(
                "ends while it is at %d tasks (%s); another vorch finishes or undoes them",
                len(left),
                ", ".join(left),
            )


class Vigil:
    """The watch beside a service, or alone. A crash of it is the end of the whole process."""

    def __init__(self, cluster: Orchestrator, say: Callable[[str], None]) -> None:
        self._loop = WatchLoop(cluster, say=say, crashed=self._crashed)
        self._crash: BaseException | None = None
        self._tell: Callable[[], None] = lambda: None

    def on_crash(self, tell: Callable[[], None]) -> None:
        self._tell = tell
        if self._crash is not None:
            tell()

    def __enter__(self) -> Vigil:
        self._loop.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.stop()
        if self._crash is not None:
            raise StepFailed(
                f"cannot go on watching: {type(self._crash).__name__}: {self._crash}; this is a"
                " mistake in vorch: start it again, and report what stands above"
            ) from self._crash

    def run(self) -> None:
        """Nothing else, until SIGTERM, Ctrl-C or a crash."""
        # A signal may be given to any thread, and a main thread that waits for a lock sleeps on;
        # what it reads from wakes it, whoever was given the signal.
        hears, tells = socket.socketpair()
        tells.setblocking(False)
        with hears, tells:

            def wake() -> None:
                with contextlib.suppress(OSError):
                    tells.send(b"!")

            self.on_crash(wake)
            woken = signal.set_wakeup_fd(tells.fileno(), warn_on_full_buffer=False)
            before = {
                number: signal.signal(number, lambda *_: None)
                for number in (signal.SIGTERM, signal.SIGINT)
            }
            try:
                with self:
                    hears.recv(1)
            finally:
                for number, handler in before.items():
                    signal.signal(number, handler)
                signal.set_wakeup_fd(woken)

    def _crashed(self, exc: BaseException) -> None:
        self._crash = exc
        traceback.print_exception(exc)
        self._tell()


class _Server(uvicorn.Server):
    ending: threading.Event
    notice_s: float

    def __init__(self, config: uvicorn.Config, let_go: Callable[[], None]) -> None:
        super().__init__(config)
        self._let_go = let_go

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Whoever listens to a stream is let go first: it would be waited for.
        self._let_go()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Signals are taken below: uvicorn would raise them again, and end with their number."""
        yield


async def _until_ended(
    server: _Server, listening: socket.socket, ready: Callable[[], None]
) -> None:
    loop = asyncio.get_running_loop()

    def end() -> None:
        # A second one waits for nothing: neither for answers under way, nor for tasks.
        if server.ending.is_set():
            server.force_exit = server.should_exit = True
            return
        server.ending.set()
        systemd.notify("STOPPING=1")
        # Proxies that ask /ready send no more by then.
        loop.call_later(server.notice_s, setattr, server, "should_exit", True)

    for number in (signal.SIGTERM, signal.SIGINT):
        # Only a main thread hears signals; elsewhere (tests) somebody else ends it.
        with contextlib.suppress(ValueError, RuntimeError):
            loop.add_signal_handler(number, end)
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    while not server.started and not serving.done():
        await asyncio.sleep(0.01)
    if server.started:
        ready()
        systemd.notify("READY=1")
    alive = asyncio.create_task(systemd.keep_alive())
    await serving
    alive.cancel()


def _listen(host: str, port: int) -> socket.socket:
    if not 0 <= port <= 65535:
        raise Invalid(f"cannot serve on port {port}: ports are 0 to 65535; choose one of them")
    where = f"{host!r}, port {port}"
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as exc:
        raise Invalid(
            f"cannot serve on {where}: that is no address of this machine; use 127.0.0.1"
        ) from exc
    family, _, _, _, address = found[0]
    # With its protocol named: asyncio takes the delay (Nagle's) from such sockets only, and small
    # answers would wait for 40 ms.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(128)
    except OSError as exc:
        listening.close()
        raise _refused(exc, where) from exc
    return listening


def _is_loopback(listening: socket.socket) -> bool:
    """Nobody listens between whoever comes to that address and this process."""
    address = str(listening.getsockname()[0]).partition("%")[0]
    return ipaddress.ip_address(address).is_loopback


def _refused(exc: OSError, where: str) -> VorchError:
    if exc.errno == errno.EADDRINUSE:
        return Conflict(
            f"cannot serve on {where}: another program listens there, perhaps another `vorch"
            " serve`; end that one, or choose another with --port"
        )
    if exc.errno in (errno.EACCES, errno.EPERM):
        return Denied(
            f"cannot serve on {where}: this user may not; choose a port above 1023 with --port"
        )
    return Unreachable(f"cannot serve on {where}: {exc.strerror}; choose another with --host")
