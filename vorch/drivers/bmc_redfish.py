"""A host's power through its BMC by Redfish (redfish+https://USER@BMC[/redfish/v1/Systems/ID]).

Plain HTTPS with a password at each request: no session that could be left open, and nothing to log
in to anew when the BMC has restarted. `?ca=FILE` names the CA of its certificate, `?verify=no`
takes any certificate.
"""

from __future__ import annotations

import base64
import http.client
import json
import ssl
from typing import Any
from urllib.parse import parse_qs, urlsplit

from vorch.errors import BadConfig, Conflict, Denied, NotFound, Unreachable, VorchError

TIMEOUT_S = 5.0
SYSTEMS = "/redfish/v1/Systems"
# What a BMC may say of a machine that still has power.
_ON = {"On", "PoweringOff", "Paused"}
_OFF = {"Off", "PoweringOn"}


class RedfishSwitch:
    def __init__(self, node: str, url: str, password: str, *, timeout_s: float = TIMEOUT_S) -> None:
        self.node = node
        parts = urlsplit(url)
        options = parse_qs(parts.query)
        self._host, self._port = parts.hostname or "", parts.port or 443
        self._system = parts.path.rstrip("/")
        self._timeout_s = timeout_s
        token = base64.b64encode(f"{parts.username or ''}:{password}".encode()).decode()
        self._headers = {"Authorization": f"Basic {token}", "Accept": "application/json"}
        try:
            self._tls = ssl.create_default_context(cafile=options.get("ca", [None])[0])
        except OSError as exc:
            raise BadConfig(
                f"cannot use the BMC of {node!r}: its CA file cannot be read ({exc}); name another"
                " (?ca=FILE)",
                node=node,
            ) from exc
        if options.get("verify") == ["no"]:
            self._tls.check_hostname = False
            self._tls.verify_mode = ssl.CERT_NONE

    def is_on(self) -> bool:
        what = "read the power state"
        state = self._ask("GET", self._path(what), what).get("PowerState")
        if state in _ON:
            return True
        if state in _OFF:
            # One that is just getting power runs nothing of before.
            return False
        raise self._unclear(what, f"it says {state!r}")

    def off(self) -> None:
        self._switch("ForceOff", "cut the power")

    def on(self) -> None:
        self._switch("On", "switch the power on")

    def close(self) -> None:
        """Nothing is held open."""

    def _switch(self, how: str, what: str) -> None:
        try:
            self._ask(
                "POST",
                f"{self._path(what)}/Actions/ComputerSystem.Reset",
                what,
                {"ResetType": how},
            )
        except Conflict:
            # Some refuse what is so already.
            if self.is_on() != (how == "On"):
                raise

    def _path(self, what: str) -> str:
        if not self._system:
            members = self._ask("GET", SYSTEMS, what).get("Members", [])
            paths = [one.get("@odata.id", "") for one in members]
            if len(paths) != 1 or not paths[0]:
                raise NotFound(
                    f"cannot {what} of {self.node!r}: its BMC has {len(paths)} systems; say which"
                    f" in its URL, as in redfish+https://USER@BMC{SYSTEMS}/1",
                    node=self.node,
                    systems=paths,
                )
            self._system = paths[0].rstrip("/")
        return self._system

    def _ask(
        self, method: str, path: str, what: str, body: dict[str, str] | None = None
    ) -> dict[str, Any]:
        line = http.client.HTTPSConnection(
            self._host, self._port, timeout=self._timeout_s, context=self._tls
        )
        headers = dict(self._headers)
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            line.request(method, path, None if body is None else json.dumps(body), headers)
            answer = line.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as exc:
            raise Unreachable(
                f"cannot {what} of {self.node!r}: its BMC at {self._host} does not answer:"
                f" {str(exc) or type(exc).__name__}; see that it is reached, and that its URL is"
                " right",
                node=self.node,
            ) from exc
        finally:
            line.close()
        if answer.status >= 300:
            raise self._refused(what, answer.status, text)
        if not text:
            return {}
        try:
            found = json.loads(text)
        except ValueError as exc:
            raise self._unclear(what, "its answer is no JSON") from exc
        return found if isinstance(found, dict) else {}

    def _refused(self, what: str, status: int, text: bytes) -> VorchError:
        said = _words(text)
        if status in (401, 403):
            return Denied(
                f"cannot {what} of {self.node!r}: its BMC does not take the password ({status});"
                " set another (vorch node change --bmc-password-file)",
                node=self.node,
            )
        kind = NotFound if status == 404 else Conflict if status < 500 else Unreachable
        return kind(
            f"cannot {what} of {self.node!r}: its BMC says {status}{said}; see its own log",
            node=self.node,
        )

    def _unclear(self, what: str, why: str) -> Unreachable:
        return Unreachable(
            f"cannot {what} of {self.node!r}: its BMC's answer is of no use, {why}; see its own"
            " log",
            node=self.node,
        )


def _words(text: bytes) -> str:
    try:
        found = json.loads(text)
        said = found["error"].get("@Message.ExtendedInfo", [{}])[0].get("Message")
        return f": {said or found['error'].get('message', '')}"[:200].replace("\n", " ")
    except (ValueError, LookupError, TypeError, AttributeError):
        return ""
