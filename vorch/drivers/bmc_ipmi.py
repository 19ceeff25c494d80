"""A host's power through its BMC by IPMI 2.0 (ipmi://USER@BMC[:PORT]), with the program ipmitool.

There is no binding: pyghmi's client falls over BMCs that answer with another cipher suite than it
has asked for. The password goes by the environment, never by the command line. `?cipher=3` asks for
that suite, where a BMC does not take ipmitool's own choice.
"""

from __future__ import annotations

import os
import subprocess
from urllib.parse import parse_qs, urlsplit

from vorch.errors import BadConfig, Denied, Unreachable

TIMEOUT_S = 10.0
_BAD_PASSWORD = ("rakp 2 hmac", "password", "unauthorized", "insufficient privilege")


class IpmiSwitch:
    def __init__(self, node: str, url: str, password: str, *, timeout_s: float = TIMEOUT_S) -> None:
        self.node = node
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._password = password
        self._timeout_s = timeout_s
        self._command = ["ipmitool", "-I", "lanplus", "-H", self._host, "-E"]
        self._command += ["-p", str(parts.port or 623), "-U", parts.username or ""]
        self._command += ["-N", "1", "-R", "3"]
        for cipher in parse_qs(parts.query).get("cipher", [])[:1]:
            self._command += ["-C", cipher]

    def is_on(self) -> bool:
        what = "read the power state"
        said = self._run(what, "status")
        for word, on in (("Chassis Power is on", True), ("Chassis Power is off", False)):
            if word in said:
                return on
        raise self._unreachable(what, f"it says {said.strip()[:80]!r}")

    def off(self) -> None:
        self._run("cut the power", "off")

    def on(self) -> None:
        self._run("switch the power on", "on")

    def close(self) -> None:
        """Each request has a session of its own."""

    def _run(self, what: str, act: str) -> str:
        try:
            done = subprocess.run(
                [*self._command, "chassis", "power", act],
                env={**os.environ, "IPMI_PASSWORD": self._password, "LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=self._timeout_s,
                check=False,
            )
        except FileNotFoundError as exc:
            raise BadConfig(
                "cannot use IPMI: the program ipmitool is not there; install the package ipmitool,"
                " or use Redfish"
            ) from exc
        except subprocess.TimeoutExpired as exc:
            raise self._unreachable(what, f"nothing came in {self._timeout_s:g} s") from exc
        if done.returncode == 0:
            return done.stdout
        said = " ".join(done.stderr.split())[:200] or f"ipmitool ended with {done.returncode}"
        if any(words in said.lower() for words in _BAD_PASSWORD):
            raise Denied(
                f"cannot {what} of {self.node!r}: its BMC does not take the password ({said}); set"
                " another (vorch node change --bmc-password-file)",
                node=self.node,
            )
        raise self._unreachable(what, said)

    def _unreachable(self, what: str, why: str) -> Unreachable:
        return Unreachable(
            f"cannot {what} of {self.node!r}: its BMC at {self._host} does not do it: {why}; see"
            " that it is reached, that IPMI over LAN is switched on there, and its password",
            node=self.node,
        )
