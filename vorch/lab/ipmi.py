"""The IPMI side of a lab host's BMC: IPMI 2.0 over UDP (RMCP+), enough for power and boot device.

pyghmi does the handshake of a session and its encryption (RAKP, cipher suite 3: HMAC-SHA1 and
AES-128). Its own server is not used: there two stray packets from anybody end the listener, a
session is never forgotten, and a request that is repeated because the answer took long is carried
out again, so that a host is reset twice. Socket, sessions and commands are therefore in here.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pyghmi.ipmi.private.constants import payload_types
from pyghmi.ipmi.private.serversession import ServerSession
from pyghmi.ipmi.private.session import Session

from vorch.errors import VorchError

if TYPE_CHECKING:
    from vorch.lab.bmc import Act, BmcSettings, Chassis, Log

# The standard's own figure, and one that any number of clients in a lab fit into.
SESSION_SECONDS = 60.0
MOST_SESSIONS = 64

BMC_ADDRESS = 0x20
NETFN_CHASSIS, NETFN_APP = 0x00, 0x06
# Extensions of other bodies: ipmitool asks for three of them each time it is run.
NETFN_GROUP = 0x2C
OPERATOR, USER = 3, 2

OK = 0x00
PARAMETER_NOT_SUPPORTED = 0x80
UNKNOWN_COMMAND = 0xC1
TOO_SHORT = 0xC7
INVALID_FIELD = 0xCC
NOT_PRIVILEGED = 0xD4
NOT_IN_THIS_STATE = 0xD5
FAILED = 0xFF

CONTROLS: dict[int, tuple[str, Act]] = {
    0: ("off", "off"),
    1: ("on", "on"),
    2: ("cycle", "restart"),
    3: ("reset", "restart"),
    # Asks the operating system by ACPI, which no lab host has: accepted, and nothing happens.
    5: ("soft off", "off_soft"),
}

SET_IN_PROGRESS, BOOT_FLAGS = 0, 5
# Of boot options: partition, valid bits, what the BIOS has taken note of. Nothing hangs on them.
IGNORED_BOOT_OPTIONS = (1, 2, 3, 4)

OPEN_REQUEST, RAKP1 = payload_types["rmcpplusopenreq"], payload_types["rakp1"]
HEADER = b"\x06\x00\xff\x07"  # RMCP 1.0, no acknowledgement wanted, class IPMI


@dataclass
class _Conversation:
    session: Any
    used: float
    # The last request and its answer, for when the client has not seen the answer and repeats it.
    request: tuple[Any, ...] = ()
    answer: tuple[int, bytes] = (OK, b"")


class IpmiServer:
    """Answers on one UDP socket. Bound when made; answers from `start` to `stop`."""

    def __init__(
        self, settings: BmcSettings, chassis: Chassis, *, log: Log, clock: Callable[[], float]
    ) -> None:
        self._passwords = {settings.user: settings.password}
        self._chassis = chassis
        self._log = log
        self._clock = clock
        self._conversations: dict[Any, _Conversation] = {}
        self._boot_flags = bytes(5)
        self._thread: threading.Thread | None = None
        family, _, _, _, where = socket.getaddrinfo(
            settings.address, settings.ipmi_port, type=socket.SOCK_DGRAM
        )[0]
        with contextlib.ExitStack() as undo:
            self._socket = undo.enter_context(socket.socket(family, socket.SOCK_DGRAM))
            self._socket.bind(where)
            undo.pop_all()
        self.port = int(self._socket.getsockname()[1])  # pyghmi's sessions read it too
        self._wake, self._woken = socket.socketpair()

    def start(self) -> None:
        self._thread = threading.Thread(target=self._listen, name="ipmi", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        if self._thread is not None:
            self._wake.send(b"x")
            # An act that takes longer ends with the process.
            self._thread.join(timeout=2)
            self._thread = None
        for client in list(self._conversations):
            self._forget(client)
        for one in (self._socket, self._wake, self._woken):
            one.close()

    def _listen(self) -> None:
        while True:
            ready, _, _ = select.select([self._socket, self._woken], [], [])
            if self._woken in ready:
                return
            try:
                packet, client = self._socket.recvfrom(4096, socket.MSG_DONTWAIT)
            except OSError:
                continue  # a packet with a wrong checksum, or word of a client that is gone
            try:
                self._receive(packet, client)
            except Exception as error:  # noqa: BLE001 - anybody can send anything
                self._say(client, f"packet of no use: {error!r}")

    def _say(self, client: Any, line: str) -> None:
        self._log(f"{client[0]} ipmi {line}".encode("unicode_escape").decode())

    # -- packets and sessions

    def _receive(self, packet: bytes, client: Any) -> None:
        if len(packet) < 16 or packet[0] != HEADER[0] or packet[3] != HEADER[3]:
            return
        if packet[4] == 0:  # IPMI 1.5's form; without a session it asks what this BMC can do
            self._without_session(packet, client, begin=14)
            return
        if packet[4] != 6:
            return
        kind = packet[5] & 0x3F
        if kind == OPEN_REQUEST:
            self._open(packet, client)
        elif kind == payload_types["ipmi"] and not packet[5] & 0x40:
            self._without_session(packet, client, begin=16)
        elif client in self._conversations:
            conversation = self._conversations[client]
            conversation.used = self._clock()
            if kind == RAKP1 and not self._knows_user(packet, conversation.session, client):
                return
            conversation.session._handle_ipmi2_packet(bytearray(packet))

    def _open(self, packet: bytes, client: Any) -> None:
        if len(packet) < 16 + 32:
            return
        self._forget_idle()
        self._forget(client)
        session = ServerSession(
            self._passwords,
            None,
            client,
            self._socket,
            packet[16:],
            self._chassis.uuid,
            bmc=self,
        )
        session.close_server_session = lambda: self._forget(client)
        self._conversations[client] = _Conversation(session, self._clock())

    def _forget_idle(self) -> None:
        idle = sorted(self._conversations.items(), key=lambda item: item[1].used)
        oldest = self._clock() - SESSION_SECONDS
        spare = len(idle) - MOST_SESSIONS + 1
        for number, (client, conversation) in enumerate(idle):
            if number < spare or conversation.used < oldest:
                self._forget(client)

    def _forget(self, client: Any) -> None:
        self._conversations.pop(client, None)
        # Where pyghmi enters every session, and never takes one out.
        Session.bmc_handlers.pop(client, None)

    def _knows_user(self, packet: bytes, session: Any, client: Any) -> bool:
        """Whether a RAKP 1 names our user; says no to the client, where pyghmi says nothing."""
        length = packet[16 + 27]
        name = packet[16 + 28 : 16 + 28 + length]
        if name.decode("utf-8", "replace") in self._passwords:
            return True
        self._say(client, f"user {name!r} refused")
        refused = bytearray([packet[16], 0x0D, 0, 0]) + session.clientsessionid
        session.send_payload(refused, payload_types["rakp2"], retry=False)
        return False

    def _without_session(self, packet: bytes, client: Any, begin: int) -> None:
        """The two questions that come before a session: how to log in, and with which ciphers."""
        if len(packet) < begin + 7:
            return
        to, netfn, _, asker, sequence, command = packet[begin : begin + 6]
        given = packet[begin + 6 : -1]
        if to != BMC_ADDRESS or netfn >> 2 != NETFN_APP:
            return
        if command == 0x38:  # channel 1, RMCP+ only, users with names, IPMI 2.0
            data = bytes([OK, 1, 0x80, 0x04, 0x02, 0, 0, 0, 0])
        elif command == 0x54:  # channel 1; suite 3 is all of the list's first sixteen bytes
            first = len(given) < 3 or given[2] & 0x3F == 0
            data = bytes([OK, 1]) + (b"\xc0\x03\x01\x41\x81" if first else b"")
        else:
            data = bytes([NOT_PRIVILEGED])
        head = bytes([asker, (NETFN_APP + 1) << 2 | sequence & 3])
        body = bytes([to, sequence & 0xFC | netfn & 3, command]) + data
        payload = head + _checksum(head) + body + _checksum(body)
        if begin == 14:
            wrapped = packet[4:5] + bytes(8) + bytes([len(payload)])
        else:
            wrapped = packet[4:5] + bytes(9) + struct.pack("<H", len(payload))
        self._socket.sendto(HEADER + wrapped + payload, client)

    # -- commands

    def handle_raw_request(self, request: dict[str, Any], session: Any) -> None:
        """Called by a session with every request that has come in authenticated."""
        conversation = self._conversations[session.sockaddr]
        netfn, command, data = request["netfn"], request["command"], bytes(request["data"])
        same = (session.seqlun, netfn, command, data)
        if conversation.request != same:
            conversation.answer = self._answer(netfn, command, data, session)
            conversation.request = same
        code, content = conversation.answer
        session.send_ipmi_response(data=content, code=code)

    def _answer(self, netfn: int, command: int, data: bytes, session: Any) -> tuple[int, bytes]:
        client = session.sockaddr
        if (netfn, command) == (NETFN_APP, 0x01):
            # Firmware 1.0, IPMI 2.0, a chassis device, no maker.
            return OK, bytes([BMC_ADDRESS, 0, 1, 0, 0x02, 0x80, 0, 0, 0, 0, 0])
        if (netfn, command) in ((NETFN_APP, 0x08), (NETFN_APP, 0x37)):
            return OK, self._chassis.uuid.bytes_le
        if netfn != NETFN_CHASSIS or command not in (0x01, 0x02, 0x08, 0x09):
            if netfn != NETFN_GROUP:
                self._say(client, f"command {netfn:#04x} {command:#04x} is not known")
            return UNKNOWN_COMMAND, b""
        if command == 0x01:
            return self._status(client)
        if command in (0x02, 0x08) and getattr(session, "clientpriv", USER) < OPERATOR:
            self._say(client, f"command {netfn:#04x} {command:#04x} refused: no operator")
            return NOT_PRIVILEGED, b""
        if not data:
            return TOO_SHORT, b""
        if command == 0x02:
            return self._control(data[0] & 0x0F, client)
        if command == 0x08:
            return self._set_boot_option(data[0] & 0x7F, data[1:], client)
        return self._boot_option(data[0] & 0x7F)

    def _status(self, client: Any) -> tuple[int, bytes]:
        try:
            on = self._chassis.is_on()
        except VorchError as error:
            self._say(client, f"power status failed: {error.message}")
            return FAILED, b""
        self._say(client, f"power status: {'on' if on else 'off'}")
        return OK, bytes([0x01 if on else 0x00, 0, 0])

    def _control(self, control: int, client: Any) -> tuple[int, bytes]:
        if control not in CONTROLS:
            self._say(client, f"power control {control} is not known")
            return INVALID_FIELD, b""
        name, act = CONTROLS[control]
        try:
            outcome = self._chassis.perform(act)
        except VorchError as error:
            self._say(client, f"power {name} failed: {error.message}")
            return FAILED, b""
        self._say(client, f"power {name} {outcome}")
        return (NOT_IN_THIS_STATE if outcome == "host_off" else OK), b""

    def _set_boot_option(self, option: int, data: bytes, client: Any) -> tuple[int, bytes]:
        if option == BOOT_FLAGS:
            if len(data) < 5:
                return TOO_SHORT, b""
            self._boot_flags = data[:5]
            valid = data[0] & 0x80
            self._chassis.boot_device = data[1] >> 2 & 0x0F if valid else 0
            self._say(client, f"boot device {self._chassis.boot_device}")
            return OK, b""
        if option == SET_IN_PROGRESS or option in IGNORED_BOOT_OPTIONS:
            return OK, b""
        return PARAMETER_NOT_SUPPORTED, b""

    def _boot_option(self, option: int) -> tuple[int, bytes]:
        if option == BOOT_FLAGS:
            return OK, bytes([1, option]) + self._boot_flags
        if option == SET_IN_PROGRESS:
            return OK, bytes([1, option, 0])
        return PARAMETER_NOT_SUPPORTED, b""


def _checksum(content: bytes) -> bytes:
    return bytes([-sum(content) & 0xFF])
