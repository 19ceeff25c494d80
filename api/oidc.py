"""Logging in at a provider (OpenID Connect): the code flow with PKCE, and nothing else of it.

What has to be remembered between going there and coming back is in a cookie of the browser that
goes, so any process of the service can go on with it. The provider says who it is; what that one
may do is the user's here who has that identity (`vorch user change --external`).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vorch import BadConfig, Denied, Settings, Unreachable

TIMEOUT_S = 10.0
ANSWER_LIMIT_BYTES = 1024 * 1024
# What the provider says of itself, and its keys, are asked for again after this.
KNOWN_FOR_S = 3600.0
# A key that nobody knows is looked for no more often than this.
KEYS_EVERY_S = 30.0
# Signed by the provider's private key; what is signed by a shared secret, or not at all, is not it.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA")
# Clocks may differ by so much.
LEEWAY_S = 60
# A person may take so long at the provider.
PATIENCE_S = 600


@dataclass(frozen=True, slots=True)
class Going:
    """What the browser remembers on its way."""

    state: str
    nonce: str
    verifier: str

    def cookie(self) -> str:
        return f"{self.state}.{self.nonce}.{self.verifier}"


def going_of(cookie: str) -> Going | None:
    parts = cookie.split(".")
    return Going(*parts) if len(parts) == 3 and all(len(part) >= 32 for part in parts) else None


def provider_of(settings: Settings) -> Provider | None:
    """None: nobody is let in that way."""
    if not settings.oidc_issuer:
        return None
    if not settings.oidc_client_id or not settings.oidc_redirect_url:
        raise BadConfig(
            "cannot use the provider of logins: oidc_client_id and oidc_redirect_url are missing;"
            " set both as they are registered there"
        )
    _check_url(settings.oidc_issuer, "oidc_issuer")
    _check_url(settings.oidc_redirect_url, "oidc_redirect_url")
    try:
        import jwt  # noqa: F401 - whether it is there
    except ImportError as exc:
        raise BadConfig(
            "cannot use the provider of logins: PyJWT is not installed; install vorch[oidc]"
        ) from exc
    return Provider(
        settings.oidc_issuer.rstrip("/"),
        settings.oidc_client_id,
        _secret(settings.oidc_client_secret_file),
        settings.oidc_redirect_url,
    )


def _secret(file: str) -> str:
    if not file:
        return ""
    try:
        return Path(file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise BadConfig(
            f"cannot read oidc_client_secret_file {file!r}: {exc}; name a file of text"
        ) from exc


class Provider:
    """One provider, as this service is known to it. Safe to use from several threads."""

    def __init__(self, issuer: str, client: str, secret: str, redirect: str) -> None:
        self.issuer = issuer
        self._client = client
        self._secret = secret
        self._redirect = redirect
        self._lock = threading.Lock()
        self._about: dict[str, Any] = {}
        self._about_until = 0.0
        self._keys: dict[str, Any] = {}
        self._keys_at = float("-inf")

    def go(self) -> tuple[str, Going]:
        """Where the browser is to go, and what it is to remember."""
        going = Going(*(secrets.token_urlsafe(32) for _ in range(3)))
        digest = hashlib.sha256(going.verifier.encode()).digest()
        query = {
            "response_type": "code",
            "scope": "openid",
            "client_id": self._client,
            "redirect_uri": self._redirect,
            "state": going.state,
            "nonce": going.nonce,
            "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
        }
        place = self._endpoint("authorization_endpoint")
        joined = "&" if "?" in place else "?"
        return f"{place}{joined}{urllib.parse.urlencode(query)}", going

    def came_back(self, going: Going, state: str, code: str) -> str:
        """Who it is, as a user's `external` has it: ISSUER|SUBJECT."""
        if not hmac.compare_digest(state.encode(), going.state.encode()):
            raise Denied("cannot log in: that is not the login that this browser began; try again")
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._redirect,
            "code_verifier": going.verifier,
        }
        headers = {}
        if self._secret:
            quoted = ":".join(urllib.parse.quote(one, "") for one in (self._client, self._secret))
            headers["Authorization"] = f"Basic {base64.b64encode(quoted.encode()).decode()}"
        else:
            form["client_id"] = self._client
        answer = _fetch(self._endpoint("token_endpoint"), form, headers)
        claims = self._claims(str(answer.get("id_token", "")), going)
        return f"{self.issuer}|{claims['sub']}"

    def _claims(self, token: str, going: Going) -> dict[str, Any]:
        import jwt

        try:
            key = self._key(str(jwt.get_unverified_header(token).get("kid", "")))
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=ALGORITHMS,
                audience=self._client,
                issuer=self._said("issuer"),
                leeway=LEEWAY_S,
                options={"require": ["exp", "iat", "iss", "aud", "sub"]},
            )
        except jwt.PyJWTError as exc:
            raise Denied(
                f"cannot log in: what the provider of logins has sent does not hold ({exc}); try"
                " again, or ask an admin"
            ) from exc
        whose = claims.get("azp", self._client)
        if whose != self._client or not hmac.compare_digest(
            str(claims.get("nonce", "")).encode(), going.nonce.encode()
        ):
            raise Denied("cannot log in: the provider's answer is to another login; try again")
        return claims

    def _key(self, kid: str) -> Any:
        import jwt

        with self._lock:
            age_s = time.monotonic() - self._keys_at
            stale = age_s > KNOWN_FOR_S or (kid not in self._keys and age_s > KEYS_EVERY_S)
        if stale:
            found = jwt.PyJWKSet.from_dict(_fetch(self._endpoint("jwks_uri")))
            with self._lock:
                self._keys = {one.key_id or "": one for one in found.keys}
                self._keys_at = time.monotonic()
        with self._lock:
            key = self._keys.get(kid)
        if key is None:
            raise jwt.InvalidKeyError("it is signed by a key that the provider does not show")
        return key

    def _endpoint(self, name: str) -> str:
        place = self._said(name)
        _check_url(place, f"the provider's {name}")
        return place

    def _said(self, name: str) -> str:
        """What the provider says of itself."""
        with self._lock:
            about = self._about if time.monotonic() < self._about_until else {}
        if not about:
            about = _fetch(f"{self.issuer}/.well-known/openid-configuration")
            if str(about.get("issuer", "")).rstrip("/") != self.issuer:
                raise BadConfig(
                    f"cannot use the provider of logins: it calls itself {about.get('issuer')!r};"
                    " set oidc_issuer to exactly that"
                )
            with self._lock:
                self._about, self._about_until = about, time.monotonic() + KNOWN_FOR_S
        return str(about.get(name, ""))


def _check_url(url: str, what: str) -> None:
    parts = urllib.parse.urlsplit(url)
    here = parts.hostname in ("127.0.0.1", "::1", "localhost")
    if not parts.hostname or (parts.scheme != "https" and not (parts.scheme == "http" and here)):
        raise BadConfig(f"cannot use {url!r} as {what}: it must begin with https://")


class _Straight(urllib.request.HTTPRedirectHandler):
    """What is asked for is there, or nowhere: secrets are not sent on."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _fetch(
    url: str, form: dict[str, str] | None = None, headers: dict[str, str] | None = None
) -> dict[str, Any]:
    """JSON from the provider. Its own words about what went wrong are shown to nobody."""
    data = None if form is None else urllib.parse.urlencode(form).encode()
    request = urllib.request.Request(  # noqa: S310 - each URL was checked by `_check_url`
        url, data=data, headers={"Accept": "application/json", **(headers or {})}
    )
    try:
        with urllib.request.build_opener(_Straight).open(request, timeout=TIMEOUT_S) as answer:
            text = answer.read(ANSWER_LIMIT_BYTES + 1)
        body = json.loads(text) if len(text) <= ANSWER_LIMIT_BYTES else None
    except urllib.error.HTTPError as exc:
        exc.close()
        if form is not None and exc.code in (400, 401, 403):
            raise Denied(
                "cannot log in: the provider of logins does not know that login (any more); try"
                " again"
            ) from exc
        raise Unreachable(
            f"cannot ask the provider of logins: it answers {exc.code}; see oidc_issuer"
        ) from exc
    except (OSError, ValueError) as exc:
        raise Unreachable(
            f"cannot ask the provider of logins: {exc}; see oidc_issuer, and whether it answers"
        ) from exc
    if not isinstance(body, dict):
        raise Unreachable("cannot ask the provider of logins: its answer makes no sense")
    return body
