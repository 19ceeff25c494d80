"""A small web server that gives parts of files, as slowly as it is told, and can fall silent."""

from __future__ import annotations

import http.server
import re
import threading
import time
from pathlib import Path


class RangeServer:
    """Files of one folder. `mib_s`: over all connections together; 0: as fast as it goes."""

    def __init__(self, folder: Path, host: str = "127.0.0.1", port: int = 0) -> None:
        self.folder = folder
        self.mib_s = 0.0
        self.ranges = True
        self.sent_bytes = 0
        # Parts that begin from here on are held back, but for the last MiB, until it is None.
        self.held_from: int | None = None
        self._lock = threading.Lock()
        self._free_at = 0.0
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                server.answer(self, body=False)

            def do_GET(self) -> None:
                server.answer(self, body=True)

            def log_message(self, *_: object) -> None:
                pass

        self._handler = Handler
        self.host, self.port = host, port
        self.start()

    def start(self) -> None:
        self._server = http.server.ThreadingHTTPServer((self.host, self.port), self._handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        self.silent = False

    def stop(self) -> None:
        """Nobody listens any more, and what is connected gets no further answer."""
        self.silent = True
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def url(self, name: str, host: str | None = None) -> str:
        return f"http://{host or self.host}:{self.port}/{name}"

    def answer(self, handler: http.server.BaseHTTPRequestHandler, *, body: bool) -> None:
        path = self.folder / handler.path.lstrip("/")
        if self.silent:
            handler.close_connection = True
            return
        if handler.path == "/elsewhere":
            self._say(handler, 302, {"Location": self.url("disk.raw"), "Content-Length": "0"})
            return
        if not path.is_file():
            self._say(handler, 404, {"Content-Length": "0"})
            return
        state = path.stat()
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", handler.headers.get("Range", ""))
        start, end, status = 0, state.st_size, 200
        headers = {"ETag": f'"{state.st_mtime_ns:x}-{state.st_size:x}"'}
        if asked and self.ranges:
            start, end, status = int(asked[1]), min(int(asked[2]) + 1, end), 206
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{state.st_size}"
        while (
            body and self.held_from is not None and self.held_from <= start < state.st_size - 2**20
        ):
            time.sleep(0.05)
        if body and self.mib_s:
            self._wait_for_turn(end - start)
        self._say(handler, status, {**headers, "Content-Length": str(end - start)})
        if body:
            with path.open("rb") as file:
                file.seek(start)
                handler.wfile.write(file.read(end - start))
            with self._lock:
                self.sent_bytes += end - start

    def _wait_for_turn(self, count: int) -> None:
        with self._lock:
            now = time.monotonic()
            self._free_at = max(now, self._free_at) + count / self.mib_s / 1024**2
            until = self._free_at
        time.sleep(max(0.0, until - now))

    @staticmethod
    def _say(
        handler: http.server.BaseHTTPRequestHandler, status: int, headers: dict[str, str]
    ) -> None:
        handler.send_response(status)
        for key, value in headers.items():
            handler.send_header(key, value)
        handler.end_headers()
