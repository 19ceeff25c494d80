"""How the lab's daemon is spoken to: one request per connection of a unix socket, in lines of JSON.

A request is {"verb", "arguments"}; the answer is any number of {"say"} lines and then one
{"result"} or {"error"}. The socket lies in the lab's folder, which is closed to all but root.
"""

from __future__ import annotations

import json
import socket
import socketserver
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vorch.errors import StepFailed, Unreachable, VorchError, from_dict

# Every wait of the daemon ends before that, or says something.
SILENCE_LIMIT_S = 300.0
Say = Callable[[str], None]
Handler = Callable[[str, dict[str, Any], Say], Any]


def call(path: str | Path, verb: str, *, say: Say | None = None, **arguments: Any) -> Any:
    """What the daemon answers. Raises what it raised."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
            link.settimeout(SILENCE_LIMIT_S)
            link.connect(str(path))
            link.sendall(json.dumps({"verb": verb, "arguments": arguments}).encode() + b"\n")
            for line in link.makefile("r", encoding="utf-8"):
                answer = json.loads(line)
                if "say" in answer:
                    if say is not None:
                        say(answer["say"])
                elif "error" in answer:
                    raise from_dict(answer["error"])
                else:
                    return answer["result"]
    except TimeoutError as exc:
        raise Unreachable(
            f"cannot {_words(verb)}: the lab's daemon has not said a word for"
            f" {SILENCE_LIMIT_S:.0f} s; what it is at stands in"
            f" {Path(path).parent / 'log' / 'daemon.log'}"
        ) from exc
    except OSError as exc:
        raise Unreachable(
            f"cannot reach the daemon of lab {Path(path).parent.name!r} to {_words(verb)}:"
            f" {exc.strerror or exc}; clear the lab away with vorch lab down --name"
            f" {Path(path).parent.name}, and make it anew"
        ) from exc
    raise Unreachable(
        f"cannot {_words(verb)}: the lab's daemon ended while it was at it; its last words are in"
        f" {Path(path).parent / 'log' / 'daemon.log'}"
    )


def _words(verb: str) -> str:
    return {"status": "ask how it is"}.get(verb, verb.replace("_", " "))


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Answers each request in a thread of its own."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, path: Path, handler: Handler) -> None:
        self.handler = handler
        # It gets its name when somebody listens: who sees the file may call at once.
        unnamed = path.with_name(f"{path.name}.new")
        unnamed.unlink(missing_ok=True)
        super().__init__(str(unnamed), _Request)
        unnamed.chmod(0o600)
        unnamed.replace(path)


class _Request(socketserver.StreamRequestHandler):
    server: Server

    def setup(self) -> None:
        super().setup()
        # Several threads of one act may have something to say.
        self._turn = threading.Lock()

    def handle(self) -> None:
        line = self.rfile.readline(1 << 20)
        if not line:
            return
        try:
            request = json.loads(line)
            result = self.server.handler(request["verb"], request["arguments"], self._say)
            self._send({"result": result})
        except VorchError as exc:
            self._send({"error": exc.as_dict()})
        except Exception as exc:  # noqa: BLE001 - a bug in one act must not end the lab
            traceback.print_exc()
            words = f"cannot go on: {type(exc).__name__}: {exc}; the lab's daemon.log says where"
            self._send({"error": StepFailed(words).as_dict()})

    def _say(self, text: str) -> None:
        print(f"{threading.current_thread().name}: {text}", file=sys.stderr, flush=True)
        self._send({"say": text})

    def _send(self, answer: dict[str, Any]) -> None:
        data = json.dumps(answer).encode() + b"\n"
        try:
            with self._turn:
                self.request.sendall(data)
        except OSError:
            # Whoever asked has gone; what was begun is still brought to its end.
            return
