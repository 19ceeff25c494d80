"""A small provider of logins for tests: what one code flow of OpenID Connect needs, and lies."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

CLIENT, SECRET = "vorch-here", "s3cret: with odd/signs"


class Provider:
    """Its people have one consent each: `consent` answers what their browser would bring back."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.kid = "first"
        self.shown = {"first": self.key}
        self.codes: dict[str, dict[str, str]] = {}
        self.asked: list[str] = []
        # What is said otherwise than is right.
        self.lies: dict[str, Any] = {}
        self.issuer = ""

    def consent(self, place: str, subject: str) -> dict[str, str]:
        """What a person's browser does there: `place` is where it was led."""
        query = {name: values[0] for name, values in parse_qs(urlsplit(place).query).items()}
        assert place.startswith(f"{self.issuer}/authorize?")
        assert query["response_type"] == "code"
        assert query["client_id"] == CLIENT
        assert query["code_challenge_method"] == "S256"
        assert "openid" in query["scope"].split()
        code = f"code-{len(self.codes)}"
        self.codes[code] = {**query, "subject": subject}
        return {"code": code, "state": query["state"]}

    def token(self, form: dict[str, str], authorization: str) -> tuple[int, dict[str, Any]]:
        kept = self.codes.pop(form.get("code", ""), None)
        name, _, secret = base64.b64decode(authorization.partition(" ")[2]).decode().partition(":")
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        known = (name, secret) == (CLIENT, "s3cret%3A%20with%20odd%2Fsigns")
        if kept is None or not known or kept["code_challenge"] != challenge:
            return 400, {"error": "invalid_grant"}
        if form["redirect_uri"] != kept["redirect_uri"]:
            return 400, {"error": "invalid_grant"}
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "sub": kept["subject"],
            "aud": CLIENT,
            "iat": now,
            "exp": now + 300,
            "nonce": kept["nonce"],
        }
        lies = dict(self.lies)
        key, algorithm = lies.pop("key", self.key), lies.pop("algorithm", "ES256")
        claims = {name: one for name, one in {**claims, **lies}.items() if one is not None}
        signed = jwt.encode(claims, key, algorithm=algorithm, headers={"kid": self.kid})
        return 200, {"id_token": signed, "access_token": "unused", "token_type": "Bearer"}

    def answer(self, path: str) -> dict[str, Any]:
        self.asked.append(path)
        if path == "/keys":
            keys = [
                {**json.loads(jwt.algorithms.ECAlgorithm.to_jwk(key.public_key())), "kid": kid}
                for kid, key in self.shown.items()
            ]
            return {"keys": keys}
        return {
            "issuer": self.lies.get("called", self.issuer),
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/keys",
        }


@contextmanager
def provider() -> Iterator[Provider]:
    found = Provider()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._say(200, found.answer(self.path))

        def do_POST(self) -> None:
            text = self.rfile.read(int(self.headers["Content-Length"])).decode()
            form = {name: values[0] for name, values in parse_qs(text).items()}
            self._say(*found.token(form, self.headers.get("Authorization", "")))

        def _say(self, status: int, body: dict[str, Any]) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Tests are quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.issuer = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
