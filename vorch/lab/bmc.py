"""A lab host's BMC: the controller that answers, and cuts the power, also while its host is off.

One process per host serves Redfish (vorch/lab/redfish.py) and, where pyghmi is installed, IPMI 2.0
(vorch/lab/ipmi.py) at one address. The acts themselves are somebody else's: a `Power`.

    python -m vorch.lab.bmc SETTINGS.json

SETTINGS.json holds the fields of `BmcSettings` and `control`, the path of the lab daemon's socket.
The process writes one line per request to standard error, the first one once it answers; SIGTERM
ends it with exit code 0.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.util
import json
import signal
import ssl
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal, Protocol

from vorch.errors import BadConfig, Unreachable, VorchError
from vorch.lab.redfish import RedfishServer

if TYPE_CHECKING:
    from vorch.lab.ipmi import IpmiServer

Log = Callable[[str], None]

# restart_soft and off_soft ask the operating system, button is a short press of the power button.
Act = Literal["on", "off", "restart", "button", "off_soft", "restart_soft"]

# done: the power was switched. already: it was so before, nothing was touched. host_off: there is
# nothing to restart, nothing was touched. unheard: the host was asked, and does not listen.
Outcome = Literal["done", "already", "host_off", "unheard"]

# IPMI has room for no more, and ipmitool takes no more.
LONGEST_IPMI_USER = 16
LONGEST_IPMI_PASSWORD = 20


class Power(Protocol):
    """The power of one host. Every method may raise VorchError; then nothing is said to be done."""

    def is_on(self) -> bool: ...

    def on(self) -> None: ...

    def off(self) -> None:
        """Cut the power. Returns only when nothing of the host runs any more."""

    def reset(self) -> None:
        """Cut the power and give it back. Asked for only while the host is on."""


@dataclass(frozen=True)
class BmcSettings:
    """What one BMC needs to know. Port 0 means any free one."""

    host: str
    address: str
    user: str
    password: str = dataclasses.field(repr=False)
    certificate: Path
    key: Path
    redfish_port: int = 443
    ipmi_port: int = 623
    # Asked to switch to where the power is already, an OpenBMC says 204 and an iDRAC 409; fencing
    # has to get along with both. True: as an iDRAC. For Redfish only: over IPMI all of them say ok.
    refuse_already: bool = False


class Chassis:
    """The host as its BMC sees it: one act at a time, whichever protocol it came by.

    The host has no ACPI, so nobody inside hears the power button. A real BMC cannot know that: it
    presses and reports that it pressed. So a soft act leaves a running host running (`unheard`); it
    is never quietly made a hard one, or fencing that asks softly would look as if it worked.

    Restarting a host that is off does not start it: iLO and iDRAC refuse, IPMI recommends to
    refuse, and a host that was fenced must not come back by a repeated restart.
    """

    def __init__(self, host: str, power: Power) -> None:
        self.host = host
        self.uuid = uuid.uuid5(uuid.NAMESPACE_URL, f"vorch-lab:{host}")
        # The IPMI number of the device to boot from; kept for whoever asks, a lab host has none.
        self.boot_device = 0
        self._power = power
        self._acting = threading.Lock()

    def is_on(self) -> bool:
        # Not under the lock: a slow act must not make the BMC look dead.
        return self._power.is_on()

    def perform(self, act: Act) -> Outcome:
        with self._acting:
            on = self._power.is_on()
            if act in ("on", "button") and not on:
                self._power.on()
                return "done"
            if act == "off" and on:
                self._power.off()
                return "done"
            if act == "restart" and on:
                self._power.reset()
                return "done"
            if act == "on" or (act in ("off", "off_soft") and not on):
                return "already"
            return "unheard" if on else "host_off"


class Bmc:
    """Redfish and IPMI of one host. Use `start` and `stop`, or `serve_forever`."""

    def __init__(
        self,
        settings: BmcSettings,
        power: Power,
        *,
        log: Log | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self._log = log if log is not None else _to_stderr
        self._clock = clock
        self._chassis = Chassis(settings.host, power)
        self._redfish: RedfishServer | None = None
        self._ipmi: IpmiServer | None = None
        self._ending = threading.Event()

    @property
    def redfish_port(self) -> int:
        """The port that Redfish answers on, once started."""
        assert self._redfish is not None
        return self._redfish.port

    @property
    def ipmi_port(self) -> int | None:
        """The port that IPMI answers on, once started; None when pyghmi is not installed."""
        return None if self._ipmi is None else self._ipmi.port

    def start(self) -> None:
        """Answer from now on. Raises BadConfig or Unreachable; then nothing is left open."""
        settings = self.settings
        tls = _tls_context(settings)
        try:
            with _binding("Redfish", settings.address, settings.redfish_port):
                self._redfish = RedfishServer(
                    settings, self._chassis, tls, log=self._say, clock=self._clock
                )
            self._redfish.start()
            self._ipmi = self._ipmi_server()
            if self._ipmi is not None:
                self._ipmi.start()
        except BaseException:
            self.stop()
            raise
        over_ipmi = "no IPMI, pyghmi is not installed"
        if self._ipmi is not None:
            over_ipmi = f"IPMI at port {self._ipmi.port}"
        self._say(
            f"answers at {settings.address}: Redfish at port {self.redfish_port}, {over_ipmi}"
        )

    def _ipmi_server(self) -> IpmiServer | None:
        if importlib.util.find_spec("pyghmi") is None:
            return None
        from vorch.lab.ipmi import IpmiServer

        settings = self.settings
        for what, text, longest in (
            ("user", settings.user, LONGEST_IPMI_USER),
            ("password", settings.password, LONGEST_IPMI_PASSWORD),
        ):
            if not 0 < len(text.encode()) <= longest:
                raise BadConfig(
                    f"cannot serve IPMI for host '{settings.host}': the {what} has "
                    f"{len(text.encode())} bytes; IPMI needs one to {longest}"
                )
        with _binding("IPMI", settings.address, settings.ipmi_port):
            return IpmiServer(settings, self._chassis, log=self._say, clock=self._clock)

    def stop(self) -> None:
        """End every connection and thread. A second time does nothing."""
        self._ending.set()
        if self._redfish is not None:
            self._redfish.stop()
        if self._ipmi is not None:
            self._ipmi.stop()

    def serve_forever(self) -> None:
        """Answer until `stop` is called, by another thread or by a signal's handler."""
        self.start()
        try:
            self._ending.wait()
        finally:
            self.stop()

    def end(self) -> None:
        """Have `serve_forever` return. Safe in a signal's handler, unlike `stop`."""
        self._ending.set()

    def _say(self, line: str) -> None:
        self._log(f"bmc {self.settings.host}: {line}")


def _to_stderr(line: str) -> None:
    # One write per line: the threads of several requests share the stream.
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _tls_context(settings: BmcSettings) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(settings.certificate, settings.key)
    except OSError as error:  # ssl.SSLError is one
        raise BadConfig(
            f"cannot serve Redfish for host '{settings.host}': certificate "
            f"'{settings.certificate}' with key '{settings.key}' is of no use: {error}; "
            "both have to be there, in PEM form, and belong together"
        ) from error
    return context


@contextlib.contextmanager
def _binding(protocol: str, address: str, port: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unreachable(
            f"cannot serve {protocol} at '{address}' port {port}: {error.strerror or error}; "
            "the address has to be one of this network namespace, and the port free",
            address=address,
            port=port,
        ) from error


class _ControlledPower:
    """The power of a host, switched by the lab's daemon."""

    def __init__(self, call: Callable[..., Any], control: str, host: str) -> None:
        self._call = call
        self._control = control
        self._host = host

    def is_on(self) -> bool:
        state = self._ask("power_state")
        if not isinstance(state, bool):
            # Never guessed: "off" is what a fence is believed by.
            raise Unreachable(
                f"cannot tell the power of host '{self._host}': the lab's daemon answers "
                f"{state!r}; make the lab anew, with one version of vorch"
            )
        return state

    def on(self) -> None:
        self._ask("bmc_power_on")

    def off(self) -> None:
        self._ask("bmc_power_off")

    def reset(self) -> None:
        self._ask("bmc_power_reset")

    def _ask(self, verb: str) -> object:
        return self._call(self._control, verb, host=self._host)


def power_through(control: str, host: str) -> Power:
    """The power of `host`, switched by the lab's daemon behind the socket `control`."""
    # Late, and by name: the BMC itself stands without the lab's daemon.
    call: Callable[..., Any] = importlib.import_module("vorch.lab.control").call
    return _ControlledPower(call, control, host)


def read_settings(path: Path) -> tuple[BmcSettings, str]:
    """The settings in a file, and the path of the control socket. Raises BadConfig."""
    try:
        fields = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise BadConfig(
            f"cannot read the BMC's settings: '{path}': {error}; give a file of one JSON object"
        ) from error
    wanted: dict[str, type] = {
        field.name: {"int": int, "bool": bool}.get(str(field.type), str)
        for field in dataclasses.fields(BmcSettings)
    }
    optional = {
        field.name
        for field in dataclasses.fields(BmcSettings)
        if field.default is not dataclasses.MISSING
    }
    wanted["control"] = str
    problems = []
    if not isinstance(fields, dict):
        problems.append("it is no JSON object")
        fields = {}
    problems += [f"'{name}' is missing" for name in wanted.keys() - optional - fields.keys()]
    problems += [f"'{name}' is not known" for name in fields.keys() - wanted.keys()]
    problems += [
        f"'{name}' is no {wanted[name].__name__}"
        for name in fields.keys() & wanted.keys()
        if type(fields[name]) is not wanted[name]
    ]
    if problems:
        raise BadConfig(
            f"cannot read the BMC's settings: '{path}': {', '.join(sorted(problems))}; "
            f"it has to hold {', '.join(sorted(wanted))}"
        )
    control = fields.pop("control")
    for name in ("certificate", "key"):
        fields[name] = Path(fields[name])
    return BmcSettings(**fields), control


def main(
    arguments: Sequence[str] | None = None,
    power_for: Callable[[str, str], Power] = power_through,
) -> int:
    """Serve until SIGTERM or SIGINT. `power_for` makes the power of (control socket, host)."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if len(given) != 1:
        _to_stderr("usage: python -m vorch.lab.bmc SETTINGS.json")
        return BadConfig.exit_code
    try:
        settings, control = read_settings(Path(given[0]))
        bmc = Bmc(settings, power_for(control, settings.host))

        def ended(number: int, frame: FrameType | None) -> None:
            bmc.end()

        signal.signal(signal.SIGTERM, ended)
        signal.signal(signal.SIGINT, ended)
        bmc.serve_forever()
    except VorchError as error:
        _to_stderr(f"bmc: {error.message}")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
