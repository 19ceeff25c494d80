"""TLS for the service: the certificate that was set, or one of its own, made at the first start.

An own one is signed by nobody. Whoever connects compares its fingerprint once, or gets its file.
It is made anew when its time is nearly over, or when the service has another address than it says.
"""

from __future__ import annotations

import datetime
import fcntl
import ipaddress
import os
import secrets
import socket
import ssl
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from vorch import BadConfig, Denied, Settings, Unreachable, state_path

CERTIFICATE, KEY = "tls.crt", "tls.key"
LASTS = datetime.timedelta(days=397)
RENEWED_BEFORE = datetime.timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Tls:
    """Files that are sound: the certificate with its chain, and its key."""

    certificate: Path
    key: Path
    # SHA-256 of the certificate, to be compared by people.
    fingerprint: str
    # Made here, so nobody else vouches for it.
    own: bool


def tls_for(settings: Settings, host: str, *, loopback: bool) -> Tls | None:
    """None: it is served without. Only on loopback, where nobody listens between."""
    if settings.tls == "off" and not loopback:
        raise Denied(
            f"cannot serve on {host!r} without TLS: others on the network would see passwords and"
            ' tokens; leave tls = "off" away, or serve on 127.0.0.1 behind a proxy'
        )
    given = (settings.tls_certificate, settings.tls_key)
    if any(given) and not all(given):
        raise BadConfig("cannot use TLS: tls_certificate and tls_key go together; set both")
    if settings.tls == "off" or (settings.tls == "auto" and loopback and not any(given)):
        return None
    if all(given):
        return _checked(Path(given[0]), Path(given[1]), own=False)
    return own(folder_of(settings), names_of(host))


def folder_of(settings: Settings) -> Path:
    """Where the service keeps what is its own: beside the state, or where that would be."""
    if settings.uri.startswith("sqlite:"):
        return state_path(settings.uri).parent
    if settings.uri.startswith("memory:"):
        # It ends with the process, and so may what belongs to it.
        return Path(tempfile.mkdtemp(prefix="vorch-tls-"))
    if os.geteuid() == 0:
        return Path("/var/lib/vorch")
    data = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(data) / "vorch"


def names_of(host: str) -> tuple[str, ...]:
    """What this service may be called by those who come."""
    names = ["localhost", "127.0.0.1", "::1", socket.gethostname(), socket.getfqdn(), host]
    wildcard = host in ("0.0.0.0", "::", "")  # noqa: S104 - compared, not listened on
    if wildcard:
        names.remove(host)
        with suppress(OSError):
            found = socket.getaddrinfo(socket.gethostname(), None)
            names += [str(one[4][0]).partition("%")[0] for one in found]
    sound = [name for name in names if name and name.isascii() and len(name) < 254]
    return tuple(dict.fromkeys(sound))


def own(folder: Path, names: Sequence[str]) -> Tls:
    """The one that is there, if it will do; else a new one."""
    certificate, key = folder / CERTIFICATE, folder / KEY
    with _alone(folder):
        if certificate.exists() and key.exists():
            found = _checked(certificate, key, own=True)
            if _will_do(certificate, names):
                return found
        _make(certificate, key, names)
        return _checked(certificate, key, own=True)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Of two services that start at once one makes the pair, and the other finds it whole."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as exc:
        raise Unreachable(
            f"cannot keep a certificate in {str(folder)!r}: {exc.strerror}; see to it that this"
            " user may, or set tls_certificate and tls_key",
            file=str(folder),
        ) from exc
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _will_do(file: Path, names: Sequence[str]) -> bool:
    certificate = x509.load_pem_x509_certificate(file.read_bytes())
    now = datetime.datetime.now(datetime.UTC)
    if certificate.not_valid_after_utc - now < RENEWED_BEFORE:
        return False
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {_general(name) for name in names} <= set(found)


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _make(certificate: Path, key: Path, names: Sequence[str]) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    called = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"vorch on {names[-1]}"[:64])])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(called)
        .issuer_name(called)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        # A machine whose clock is a little behind is let in as well.
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + LASTS)
        .add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(private, hashes.SHA256())
    )
    secret = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    _write(key, secret, 0o600)
    _write(certificate, made.public_bytes(serialization.Encoding.PEM), 0o644)


def _write(file: Path, content: bytes, mode: int) -> None:
    """Whole or not at all."""
    draft = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    try:
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
        with os.fdopen(handle, "wb") as opened:
            opened.write(content)
            opened.flush()
            os.fsync(opened.fileno())
        draft.replace(file)
    except OSError as exc:
        raise Unreachable(
            f"cannot write {str(file)!r}: {exc.strerror}; see to it that this user may, or set"
            " tls_certificate and tls_key",
            file=str(file),
        ) from exc


def _checked(certificate: Path, key: Path, *, own: bool) -> Tls:
    """They can be read, belong together, and nobody else reads the key."""
    try:
        mode = key.stat().st_mode
        text = certificate.read_bytes()
        if stat.S_IMODE(mode) & 0o007:
            raise Denied(
                f"cannot use the key {str(key)!r}: everybody on this machine may read it, so it may"
                " be known; have a new one made, with mode 0600",
                file=str(key),
            )
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
        found = x509.load_pem_x509_certificate(text)
    except (OSError, ValueError) as exc:
        # A wrong pair is an SSLError, which is an OSError.
        remedy = "remove both, and new ones are made" if own else "see tls_certificate and tls_key"
        raise BadConfig(
            f"cannot use the certificate {str(certificate)!r} with the key {str(key)!r}:"
            f" {exc}; {remedy}",
            file=str(certificate),
        ) from exc
    return Tls(certificate, key, found.fingerprint(hashes.SHA256()).hex(":").upper(), own)
