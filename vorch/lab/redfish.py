"""The Redfish side of a lab host's BMC: what DSP0266 asks of a small service, over HTTPS.

One system with its power, one manager, one chassis, and sessions. Requests come in threads of
their own, the TLS handshake included, so that a client that says nothing holds up nobody else.
"""

from __future__ import annotations

import base64
import contextlib
import hmac
import http.server
import json
import secrets
import socket
import socketserver
import ssl
import threading
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from vorch.errors import VorchError

if TYPE_CHECKING:
    from vorch.lab.bmc import Act, BmcSettings, Chassis, Log

# A client that sends nothing for this long is cut off, in the handshake and after it.
SILENCE_SECONDS = 20.0
SESSION_SECONDS = 1800.0
MOST_SESSIONS = 16
LARGEST_BODY = 64 * 1024
# Of a body that is too large this much is still taken off the wire, so that the client gets to
# read the answer instead of a broken connection.
DISCARDED_BODY = 4 * 1024 * 1024

ROOT = "/redfish/v1"
SESSIONS = f"{ROOT}/SessionService/Sessions"
REGISTRY = "Base.1.18"

# What each ResetType comes to; see Chassis for the soft ones. A restart is the same as a power
# cycle here: lab hosts have no power supply that would want a pause.
RESET_TYPES: Mapping[str, Act] = {
    "On": "on",
    "ForceOn": "on",
    "ForceOff": "off",
    "GracefulShutdown": "off_soft",
    "ForceRestart": "restart",
    "GracefulRestart": "restart_soft",
    "PowerCycle": "restart",
    "PushPowerButton": "button",
}

# IPMI's numbers of boot devices, in Redfish's words.
BOOT_TARGETS = {1: "Pxe", 2: "Hdd", 5: "Cd", 6: "BiosSetup", 15: "Usb"}

Body = dict[str, Any]
PLAIN_HEADERS = {"OData-Version": "4.0", "Cache-Control": "no-cache"}


@dataclass(frozen=True)
class Request:
    method: str
    target: str
    headers: Mapping[str, str]
    content: bytes = b""


@dataclass(frozen=True)
class Answer:
    status: HTTPStatus
    body: Body | str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    # For the log: what was asked for, beyond method and path.
    note: str = ""


class Refusal(Exception):
    """A request that gets an error for an answer."""

    def __init__(
        self,
        status: HTTPStatus,
        key: str,
        message: str,
        resolution: str,
        headers: Mapping[str, str] | None = None,
        note: str = "",
    ) -> None:
        super().__init__(message)
        self.answer = Answer(
            status, _messages(key, message, resolution, "Critical"), headers or {}, note
        )


def _messages(key: str, message: str, resolution: str, severity: str) -> Body:
    return {
        "error": {
            "code": f"{REGISTRY}.{key}",
            "message": message,
            "@Message.ExtendedInfo": [
                {
                    "@odata.type": "#Message.v1_1_2.Message",
                    "MessageId": f"{REGISTRY}.{key}",
                    "Message": message,
                    "MessageSeverity": severity,
                    "Resolution": resolution,
                }
            ],
        }
    }


@dataclass
class _Session:
    identifier: str
    token: str
    user: str
    used: float


class RedfishService:
    """Answers requests; knows nothing of sockets."""

    def __init__(self, settings: BmcSettings, chassis: Chassis, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._chassis = chassis
        self._clock = clock
        self._sessions: dict[str, _Session] = {}
        self._sessions_guard = threading.Lock()
        system = f"{ROOT}/Systems/{settings.host}"
        self._system = system
        self._reset = f"{system}/Actions/ComputerSystem.Reset"
        self._readable: dict[str, Callable[[], Body | str]] = {
            "/redfish": lambda: {"v1": f"{ROOT}/"},
            ROOT: self._service_root,
            f"{ROOT}/odata": self._odata,
            f"{ROOT}/$metadata": self._metadata,
            f"{ROOT}/Systems": lambda: _collection("Systems", "ComputerSystem", [system]),
            system: self._computer_system,
            f"{ROOT}/Managers": lambda: _collection("Managers", "Manager", [_MANAGER]),
            _MANAGER: self._manager,
            f"{ROOT}/Chassis": lambda: _collection("Chassis", "Chassis", [_CHASSIS]),
            _CHASSIS: self._enclosure,
            f"{ROOT}/SessionService": self._session_service,
            SESSIONS: self._session_collection,
        }
        # What the standard wants readable before anybody has logged in.
        self._open = {"/redfish", ROOT, f"{ROOT}/odata", f"{ROOT}/$metadata"}

    def answer(self, request: Request) -> Answer:
        """The answer to any request; never raises."""
        try:
            return self._answer(request)
        except Refusal as refusal:
            return refusal.answer
        except VorchError as error:
            return Refusal(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "GeneralError",
                error.message,
                "See what the lab says of this host, then ask again.",
                note=f"failed: {error.message}",
            ).answer
        except Exception as error:  # noqa: BLE001 - a mistake in here must not cut the connection
            return Refusal(
                HTTPStatus.INTERNAL_SERVER_ERROR,
                "InternalError",
                f"the BMC failed over this request: {error!r}",
                "This is a defect of vorch lab: report it.",
                note=f"failed: {error!r}",
            ).answer

    def _answer(self, request: Request) -> Answer:
        parts = urllib.parse.urlsplit(request.target)
        path = urllib.parse.unquote(parts.path).rstrip("/")
        if path == f"{SESSIONS}/Members" and request.method == "POST":
            path = SESSIONS  # the standard's other name for it
        if request.headers.get("OData-Version", "4.0") != "4.0":
            raise Refusal(
                HTTPStatus.PRECONDITION_FAILED,
                "HeaderInvalid",
                "only version 4.0 of OData is spoken here",
                "Send OData-Version: 4.0, or no such header.",
            )
        allowed = self._allowed(path)
        if path not in self._open and (request.method, path) != ("POST", SESSIONS):
            self._authenticate(request.headers)
        if not allowed:
            raise _not_found(path)
        if request.method not in allowed:
            raise Refusal(
                HTTPStatus.METHOD_NOT_ALLOWED,
                "OperationNotAllowed",
                f"{request.method} is not possible on '{path}'",
                f"Use {' or '.join(allowed)}.",
                {"Allow": ", ".join(allowed)},
            )
        if any(name.startswith("$") for name in urllib.parse.parse_qs(parts.query, True)):
            raise Refusal(
                HTTPStatus.NOT_IMPLEMENTED,
                "QueryNotSupported",
                f"query '{parts.query}' is not supported",
                "Ask without it.",
            )
        if request.method == "POST":
            given = _json_object(request)
            return self._log_in(given) if path == SESSIONS else self._switch(given)
        if request.method == "DELETE":
            return self._log_out(path)
        body = self._readable[path]() if path in self._readable else self._session(path)
        return Answer(HTTPStatus.OK, body, {"Allow": ", ".join(allowed), **_described(body)})

    def _allowed(self, path: str) -> tuple[str, ...]:
        if path == self._reset:
            return ("POST",)
        if path == SESSIONS:
            return ("GET", "HEAD", "POST")
        if path in self._readable:
            return ("GET", "HEAD")
        if path.startswith(f"{SESSIONS}/"):
            return ("GET", "HEAD", "DELETE")
        return ()

    # -- who asks

    def _authenticate(self, headers: Mapping[str, str]) -> None:
        token = headers.get("X-Auth-Token")
        if token is not None:
            if self._session_of(token) is not None:
                return
        elif self._basic_is_right(headers.get("Authorization", "")):
            return
        raise _unauthorised()

    def _basic_is_right(self, header: str) -> bool:
        scheme, _, value = header.partition(" ")
        if scheme.lower() != "basic":
            return False
        try:
            user, colon, password = base64.b64decode(value, validate=True).partition(b":")
        except ValueError:
            return False
        return bool(colon) and self._is_right(user, password)

    def _is_right(self, user: bytes, password: bytes) -> bool:
        # Both in full, whatever the first one says: the time it takes tells nothing.
        user_is_right = hmac.compare_digest(user, self._settings.user.encode())
        password_is_right = hmac.compare_digest(password, self._settings.password.encode())
        return user_is_right and password_is_right

    def _session_of(self, token: str) -> _Session | None:
        with self._sessions_guard:
            self._forget_expired()
            for session in self._sessions.values():
                if hmac.compare_digest(session.token.encode(), token.encode()):
                    session.used = self._clock()
                    return session
        return None

    def _forget_expired(self) -> None:
        oldest = self._clock() - SESSION_SECONDS
        for session in [one for one in self._sessions.values() if one.used < oldest]:
            del self._sessions[session.identifier]

    def _log_in(self, given: Body) -> Answer:
        user, password = given.get("UserName"), given.get("Password")
        if not isinstance(user, str) or not isinstance(password, str):
            raise Refusal(
                HTTPStatus.BAD_REQUEST,
                "PropertyMissing",
                "UserName and Password are needed, both of them text",
                "Send both.",
            )
        if not self._is_right(user.encode("utf-8", "replace"), password.encode("utf-8", "replace")):
            raise _unauthorised()
        with self._sessions_guard:
            self._forget_expired()
            if len(self._sessions) >= MOST_SESSIONS:
                raise Refusal(
                    HTTPStatus.SERVICE_UNAVAILABLE,
                    "SessionLimitExceeded",
                    f"all {MOST_SESSIONS} sessions of this BMC are in use",
                    "Delete one, or wait until one has expired.",
                )
            session = _Session(secrets.token_hex(8), secrets.token_urlsafe(32), user, self._clock())
            self._sessions[session.identifier] = session
        path = f"{SESSIONS}/{session.identifier}"
        return Answer(
            HTTPStatus.CREATED,
            self._session(path),
            {"Location": path, "X-Auth-Token": session.token},
        )

    def _log_out(self, path: str) -> Answer:
        with self._sessions_guard:
            if self._sessions.pop(path.rpartition("/")[2], None) is None:
                raise _not_found(path)
        return Answer(HTTPStatus.NO_CONTENT)

    # -- the act

    def _switch(self, given: Body) -> Answer:
        # The standard lets a client leave it out, and the service choose: rather not, here.
        wanted = given.get("ResetType")
        if wanted is None:
            raise Refusal(
                HTTPStatus.BAD_REQUEST,
                "ActionParameterMissing",
                "action ComputerSystem.Reset needs a ResetType",
                f"Send one of {', '.join(RESET_TYPES)}.",
            )
        if not isinstance(wanted, str) or wanted not in RESET_TYPES:
            raise Refusal(
                HTTPStatus.BAD_REQUEST,
                "ActionParameterValueNotInList",
                f"ResetType {json.dumps(wanted)[:80]} is not possible",
                f"Send one of {', '.join(RESET_TYPES)}.",
            )
        try:
            outcome = self._chassis.perform(RESET_TYPES[wanted])
        except VorchError as error:
            raise Refusal(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "GeneralError",
                error.message,
                "See what the lab says of this host, then ask again.",
                note=f"{wanted} failed: {error.message}",
            ) from error
        note = f"{wanted} {outcome}"
        if outcome == "unheard":
            return Answer(
                HTTPStatus.OK,
                _messages(
                    "Success",
                    "the power button was pressed; this host does not listen to it and stays on",
                    "Use ForceOff or ForceRestart.",
                    "Warning",
                ),
                note=note,
            )
        if outcome == "host_off" or (outcome == "already" and self._settings.refuse_already):
            state = "on" if outcome == "already" and RESET_TYPES[wanted] == "on" else "off"
            raise Refusal(
                HTTPStatus.CONFLICT,
                "ResourceInUse" if state == "on" else "ResourceInStandby",
                f"{wanted} is not possible: the host is {state}",
                "Read PowerState first."
                if outcome == "already"
                else "Switch it on with ResetType On.",
                note=note,
            )
        return Answer(HTTPStatus.NO_CONTENT, note=note)

    # -- what can be read

    def _service_root(self) -> Body:
        return {
            **_head(f"{ROOT}/", "ServiceRoot.v1_15_0.ServiceRoot", "RootService", "BMC"),
            "RedfishVersion": "1.18.0",
            "Vendor": "vorch lab",
            "UUID": str(self._chassis.uuid),
            "Systems": _link(f"{ROOT}/Systems"),
            "Managers": _link(f"{ROOT}/Managers"),
            "Chassis": _link(f"{ROOT}/Chassis"),
            "SessionService": _link(f"{ROOT}/SessionService"),
            "Links": {"Sessions": _link(SESSIONS)},
        }

    def _odata(self) -> Body:
        names = ("Systems", "Managers", "Chassis", "SessionService")
        services = [{"name": name, "kind": "Singleton", "url": f"{ROOT}/{name}"} for name in names]
        return {
            "@odata.context": f"{ROOT}/$metadata",
            "value": [
                {"name": "Service", "kind": "Singleton", "url": f"{ROOT}/"},
                *services,
                {"name": "Sessions", "kind": "Singleton", "url": SESSIONS},
            ],
        }

    def _metadata(self) -> str:
        schemas = {
            "ServiceRoot": "ServiceRoot.v1_15_0",
            "ComputerSystemCollection": "ComputerSystemCollection",
            "ComputerSystem": "ComputerSystem.v1_20_0",
            "ManagerCollection": "ManagerCollection",
            "Manager": "Manager.v1_17_0",
            "ChassisCollection": "ChassisCollection",
            "Chassis": "Chassis.v1_22_0",
            "SessionService": "SessionService.v1_1_8",
            "SessionCollection": "SessionCollection",
            "Session": "Session.v1_6_0",
        }
        references = "".join(
            f'<edmx:Reference Uri="http://redfish.dmtf.org/schemas/v1/{name}_v1.xml">'
            f'<edmx:Include Namespace="{name}"/>'
            + (f'<edmx:Include Namespace="{version}"/>' if version != name else "")
            + "</edmx:Reference>"
            for name, version in schemas.items()
        )
        return (
            '<?xml version="1.0" encoding="UTF-8"?>'
            '<edmx:Edmx xmlns:edmx="http://docs.oasis-open.org/odata/ns/edmx" Version="4.0">'
            f"{references}<edmx:DataServices>"
            '<Schema xmlns="http://docs.oasis-open.org/odata/ns/edm" Namespace="Service">'
            '<EntityContainer Name="Service" Extends="ServiceRoot.v1_15_0.ServiceContainer"/>'
            "</Schema></edmx:DataServices></edmx:Edmx>"
        )

    def _computer_system(self) -> Body:
        on = self._chassis.is_on()
        boot = BOOT_TARGETS.get(self._chassis.boot_device)
        return {
            **_head(
                self._system,
                "ComputerSystem.v1_20_0.ComputerSystem",
                self._settings.host,
                self._settings.host,
            ),
            "SystemType": "Physical",
            "Manufacturer": "vorch lab",
            "HostName": self._settings.host,
            "UUID": str(self._chassis.uuid),
            "PowerState": "On" if on else "Off",
            "Status": {"State": "Enabled" if on else "Disabled", "Health": "OK"},
            "Boot": {
                "BootSourceOverrideEnabled": "Once" if boot else "Disabled",
                "BootSourceOverrideTarget": boot or "None",
            },
            "Links": {"Chassis": [_link(_CHASSIS)], "ManagedBy": [_link(_MANAGER)]},
            "Actions": {
                "#ComputerSystem.Reset": {
                    "target": self._reset,
                    "ResetType@Redfish.AllowableValues": list(RESET_TYPES),
                }
            },
        }

    def _manager(self) -> Body:
        return {
            **_head(_MANAGER, "Manager.v1_17_0.Manager", "bmc", f"BMC of {self._settings.host}"),
            "ManagerType": "BMC",
            "Status": {"State": "Enabled", "Health": "OK"},
            "Links": {
                "ManagerForServers": [_link(self._system)],
                "ManagerForChassis": [_link(_CHASSIS)],
            },
        }

    def _enclosure(self) -> Body:
        return {
            **_head(_CHASSIS, "Chassis.v1_22_0.Chassis", "chassis", self._settings.host),
            "ChassisType": "RackMount",
            "PowerState": "On" if self._chassis.is_on() else "Off",
            "Status": {"State": "Enabled", "Health": "OK"},
            "Links": {"ComputerSystems": [_link(self._system)], "ManagedBy": [_link(_MANAGER)]},
        }

    def _session_service(self) -> Body:
        return {
            **_head(
                f"{ROOT}/SessionService",
                "SessionService.v1_1_8.SessionService",
                "SessionService",
                "Sessions of this BMC",
            ),
            "ServiceEnabled": True,
            "SessionTimeout": int(SESSION_SECONDS),
            "Sessions": _link(SESSIONS),
        }

    def _session_collection(self) -> Body:
        with self._sessions_guard:
            self._forget_expired()
            paths = [f"{SESSIONS}/{identifier}" for identifier in self._sessions]
        return _collection("SessionService/Sessions", "Session", paths)

    def _session(self, path: str) -> Body:
        identifier = path.rpartition("/")[2]
        with self._sessions_guard:
            self._forget_expired()
            session = self._sessions.get(identifier)
        if session is None:
            raise _not_found(path)
        return {
            **_head(path, "Session.v1_6_0.Session", identifier, "Session"),
            "UserName": session.user,
            # The standard: never given out again, but there.
            "Password": None,
        }


_MANAGER = f"{ROOT}/Managers/bmc"
_CHASSIS = f"{ROOT}/Chassis/chassis"


def _head(path: str, kind: str, identifier: str, name: str) -> Body:
    return {"@odata.id": path, "@odata.type": f"#{kind}", "Id": identifier, "Name": name}


def _described(body: Body | str) -> dict[str, str]:
    """The header that says where a resource's schema is to be read."""
    if isinstance(body, str) or "@odata.type" not in body:
        return {}
    schema = body["@odata.type"].lstrip("#").rpartition(".")[0]
    return {"Link": f"<http://redfish.dmtf.org/schemas/v1/{schema}.json>; rel=describedby"}


def _link(path: str) -> Body:
    return {"@odata.id": path}


def _collection(where: str, kind: str, members: list[str]) -> Body:
    return {
        "@odata.id": f"{ROOT}/{where}",
        "@odata.type": f"#{kind}Collection.{kind}Collection",
        "Name": f"{kind} collection",
        "Members@odata.count": len(members),
        "Members": [_link(member) for member in members],
    }


def _not_found(path: str) -> Refusal:
    return Refusal(
        HTTPStatus.NOT_FOUND,
        "ResourceMissingAtURI",
        f"there is nothing at '{path}'",
        f"Begin at {ROOT}/ and follow the links.",
    )


def _unauthorised() -> Refusal:
    return Refusal(
        HTTPStatus.UNAUTHORIZED,
        "NoValidSession",
        "user and password, or the token of a session, are missing or wrong",
        "Log in, with HTTP's basic authentication or at the session service.",
        {"WWW-Authenticate": 'Basic realm="vorch lab BMC"'},
    )


def _json_object(request: Request) -> Body:
    kind = request.headers.get("Content-Type")
    if kind is not None and kind.partition(";")[0].strip().lower() != "application/json":
        raise Refusal(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "UnsupportedMediaType",
            f"a body of type '{kind[:80]}' is not understood",
            "Send application/json.",
        )
    try:
        given = json.loads(request.content)
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict):
        raise Refusal(
            HTTPStatus.BAD_REQUEST,
            "MalformedJSON",
            "the body is no JSON object",
            "Send one JSON object.",
        )
    return given


class _Handler(http.server.BaseHTTPRequestHandler):
    """Takes requests off one connection and hands them to the service."""

    server: RedfishServer
    protocol_version = "HTTP/1.1"
    # Of the answers: headers and body in one packet instead of two.
    wbufsize = -1

    def version_string(self) -> str:
        return "vorch-lab-bmc"

    def do_GET(self) -> None:
        self._serve()

    # http.server looks them up by these names.
    do_HEAD = do_POST = do_PATCH = do_PUT = do_DELETE = do_OPTIONS = do_GET  # noqa: N815

    def _serve(self) -> None:
        try:
            content = self._content()
        except Refusal as refusal:
            self.close_connection = True
            self._send(refusal.answer)
            return
        # A plain mapping would lose that names of headers have no case: Message has what is needed.
        headers: Any = self.headers
        self._send(self.server.service.answer(Request(self.command, self.path, headers, content)))

    def _content(self) -> bytes:
        if self.headers.get("Transfer-Encoding") is not None:
            raise Refusal(
                HTTPStatus.LENGTH_REQUIRED,
                "HeaderMissing",
                "a body in chunks is not understood",
                "Send its length in Content-Length.",
            )
        given = self.headers.get("Content-Length")
        if given is None:
            if self.command == "POST":
                raise Refusal(
                    HTTPStatus.LENGTH_REQUIRED,
                    "HeaderMissing",
                    "header Content-Length is missing",
                    "Send it.",
                )
            return b""
        if not given.isascii() or not given.isdigit() or len(given) > 18:
            raise Refusal(
                HTTPStatus.BAD_REQUEST,
                "HeaderInvalid",
                "header Content-Length is no number",
                "Send the body's length in bytes.",
            )
        length = int(given)
        if length > LARGEST_BODY:
            self._discard(min(length, DISCARDED_BODY))
            raise Refusal(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                "PayloadTooLarge",
                f"the body has {length} bytes",
                f"Send {LARGEST_BODY} at most.",
            )
        return self.rfile.read(length)

    def _discard(self, length: int) -> None:
        while length > 0:
            taken = self.rfile.read(min(length, LARGEST_BODY))
            if not taken:
                return
            length -= len(taken)

    def _send(self, answer: Answer) -> None:
        content, kind = b"", ""
        if isinstance(answer.body, str):
            content, kind = answer.body.encode(), "application/xml"
        elif answer.body is not None:
            content, kind = json.dumps(answer.body).encode(), "application/json; charset=utf-8"
        self.send_response(answer.status)
        for name, value in {**PLAIN_HEADERS, **answer.headers}.items():
            self.send_header(name, value)
        if kind:
            self.send_header("Content-Type", kind)
        if answer.status is not HTTPStatus.NO_CONTENT:
            self.send_header("Content-Length", str(len(content)))
        if self.close_connection:
            self.send_header("Connection", "close")
        # Before the answer is out: who has read it finds it in the log.
        self._report(answer)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
        self.wfile.flush()

    def _report(self, answer: Answer) -> None:
        asked = f"{self.command or '?'} {getattr(self, 'path', '?')}"
        line = f"{self.client_address[0]} redfish {asked} {int(answer.status)} {answer.note}"
        # What a client sends must not be able to write lines of its own.
        self.server.log(line.strip().encode("unicode_escape").decode())

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What http.server itself finds wrong with a request, in Redfish's form."""
        self.close_connection = True
        self._send(
            Refusal(
                HTTPStatus(code),
                "GeneralError",
                message or HTTPStatus(code).phrase,
                "Send a proper HTTP request.",
            ).answer
        )

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Nothing: every answer has a line of its own already."""

    def log_message(self, format: str, *args: Any) -> None:
        """What http.server has to say besides: that a client was silent for too long."""
        self.server.log(f"{self.client_address[0]} redfish {format % args}")


class RedfishServer(socketserver.ThreadingMixIn, http.server.HTTPServer):
    """HTTPS in front of the service. Bound when made; answers from `start` to `stop`."""

    allow_reuse_address = True
    request_queue_size = 64

    def __init__(
        self,
        settings: BmcSettings,
        chassis: Chassis,
        tls: ssl.SSLContext,
        *,
        log: Log,
        clock: Callable[[], float],
        silence_seconds: float = SILENCE_SECONDS,
    ) -> None:
        self.log = log
        self.service = RedfishService(settings, chassis, clock)
        self._tls = tls
        self._silence_seconds = silence_seconds
        self._connections: dict[threading.Thread, socket.socket] = {}
        self._connections_guard = threading.Lock()
        self._accepting: threading.Thread | None = None
        self.address_family = socket.AF_INET6 if ":" in settings.address else socket.AF_INET
        super().__init__((settings.address, settings.redfish_port), _Handler)
        self.port = int(self.server_address[1])

    def server_bind(self) -> None:
        # Not HTTPServer's: that one asks DNS for a name, which a lab host's network may not have.
        socketserver.TCPServer.server_bind(self)
        self.server_name = str(self.server_address[0])
        self.server_port = int(self.server_address[1])

    def start(self) -> None:
        self._accepting = threading.Thread(target=self.serve_forever, name="redfish", daemon=True)
        self._accepting.start()

    def stop(self) -> None:
        if self._accepting is not None:
            # Wakes the thread that waits for clients, which looks up twice a second only.
            self.socket.shutdown(socket.SHUT_RDWR)
            self.shutdown()
            self._accepting.join()
            self._accepting = None
        self.server_close()
        with self._connections_guard:
            connections = dict(self._connections)
        for connection in connections.values():
            # Of the socket itself, past TLS: its own thread is in the middle of that.
            with contextlib.suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)
        for thread in connections:
            # An act that takes longer ends with the process; its client is gone already.
            thread.join(timeout=2)

    def process_request(self, request: Any, client_address: Any) -> None:
        thread = threading.Thread(
            target=self.process_request_thread,
            args=(request, client_address),
            name="redfish client",
            daemon=True,
        )
        with self._connections_guard:
            self._connections[thread] = request
        thread.start()

    def finish_request(self, request: Any, client_address: Any) -> None:
        """One client, from its handshake on, in its own thread."""
        thread = threading.current_thread()
        client = client_address[0]
        try:
            request.settimeout(self._silence_seconds)
            # Else each connection begins with 40 ms of waiting, for what comes after the handshake.
            request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # The handshake apart from the wrapping: from here on `stop` can end it.
            with self._tls.wrap_socket(
                request, server_side=True, do_handshake_on_connect=False
            ) as connection:
                with self._connections_guard:
                    self._connections[thread] = connection
                try:
                    connection.do_handshake()
                except OSError as error:  # ssl.SSLError and a timeout are ones
                    self.log(f"{client} redfish no TLS: {error}")
                    return
                try:
                    _Handler(connection, client_address, self)
                finally:
                    # Say goodbye as TLS wants it, without waiting for the same from the client.
                    with contextlib.suppress(OSError, ValueError):
                        connection.settimeout(0)
                        connection.unwrap()
        except OSError as error:
            self.log(f"{client} redfish connection lost: {error}")
        finally:
            with self._connections_guard:
                self._connections.pop(thread, None)
