"""TLS: its own certificate or one that was set, and nothing in the clear for others to hear."""

from __future__ import annotations

import datetime
import hashlib
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from cryptography import x509

from vorch import Settings, connect
from vorch.errors import BadConfig, Denied, Unreachable
from vorch_api import Service, tls

VORCH = (sys.executable, "-c", "import sys; from vorch_cli.main import main; sys.exit(main())")
HOSTS = ("localhost", "127.0.0.1", "h1.example")


@contextmanager
def serving(config: Path) -> Iterator[tuple[str, str]]:
    """(its address, what it has printed)"""
    program = subprocess.Popen(
        [*VORCH, "--uri", "memory:", "serve", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "VORCH_CONFIG": str(config)},
    )
    assert program.stdout is not None
    try:
        said = ""
        while "image debian\n" not in said:
            line = program.stdout.readline()
            assert line, program.communicate()
            said += line
        address = re.search(r"serves on (\S+) ", said)
        assert address is not None
        yield address[1], said
    finally:
        program.kill()
        program.communicate()


def test_it_is_served_with_its_own_certificate(tmp_path: Path) -> None:
    config = tmp_path / "vorch.toml"
    config.write_text('tls = "on"\n')
    with serving(config) as (address, said):
        assert address.startswith("https://127.0.0.1:")
        file = re.search(r"Its own certificate: (\S+)", said)
        assert file is not None
        trusting = ssl.create_default_context(cafile=file[1])
        assert f"--cacert {file[1]}" in said
        printed = hashlib.sha256(ssl.PEM_cert_to_DER_cert(Path(file[1]).read_text())).digest()
        assert printed.hex(":").upper() in said
        answer = httpx.get(f"{address}/health", verify=trusting)
        assert answer.status_code == 200
        assert answer.headers["strict-transport-security"].startswith("max-age=")
        # Whoever does not know it is not let down silently, and nothing is said in the clear.
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{address}/health")
        with pytest.raises(httpx.HTTPError):
            httpx.get(address.replace("https:", "http:") + "/health")
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        port = int(address.rpartition(":")[2])
        raw = socket.create_connection(("127.0.0.1", port))
        with old.wrap_socket(raw) as spoken:
            assert spoken.version() in ("TLSv1.2", "TLSv1.3")
    # Of a world in memory it is kept in a folder of its own.
    shutil.rmtree(Path(file[1]).parent)


def test_an_own_certificate_is_made_once(tmp_path: Path) -> None:
    made = tls.own(tmp_path / "new", HOSTS)
    assert made.own
    assert made.key.stat().st_mode & 0o777 == 0o600
    assert sorted(one.name for one in (tmp_path / "new").iterdir()) == ["tls.crt", "tls.key"]
    again = tls.own(tmp_path / "new", HOSTS)
    assert again == made
    found = x509.load_pem_x509_certificate(made.certificate.read_bytes())
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {str(one.value) for one in names} == set(HOSTS)
    assert not found.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert made.fingerprint.count(":") == 31


def test_it_is_made_anew_when_it_will_not_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = tls.own(tmp_path, HOSTS)
    # Another address.
    second = tls.own(tmp_path, (*HOSTS, "10.0.0.7"))
    assert second.fingerprint != first.fingerprint
    # Fewer names than it has are no reason.
    assert tls.own(tmp_path, HOSTS) == second
    monkeypatch.setattr(tls, "LASTS", datetime.timedelta(days=20))
    third = tls.own(tmp_path, (*HOSTS, "10.0.0.8"))
    monkeypatch.undo()
    assert tls.own(tmp_path, (*HOSTS, "10.0.0.8")).fingerprint != third.fingerprint


def test_two_that_start_at_once_have_the_same(tmp_path: Path) -> None:
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda: found.append(tls.own(tmp_path, HOSTS).fingerprint))
        for _ in range(6)
    ]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(found) == 6
    assert len(set(found)) == 1


def test_what_is_no_pair(tmp_path: Path) -> None:
    one, other = tls.own(tmp_path / "a", HOSTS), tls.own(tmp_path / "b", HOSTS)

    def given(certificate: Path | str, key: Path | str) -> Settings:
        return Settings(uri="memory:", tls_certificate=str(certificate), tls_key=str(key))

    for wrong in (
        given(one.certificate, other.key),
        given(one.key, one.certificate),
        given(tmp_path / "nosuch", one.key),
        given(one.certificate, ""),
        given("", one.key),
    ):
        with pytest.raises((BadConfig, Denied)):
            tls.tls_for(wrong, "127.0.0.1", loopback=True)
    one.key.chmod(0o644)
    with pytest.raises(Denied, match="everybody on this machine may read it"):
        tls.tls_for(given(one.certificate, one.key), "127.0.0.1", loopback=True)
    # Its own are told how to be had anew.
    (tmp_path / "b" / "tls.crt").write_text("no certificate")
    with pytest.raises(BadConfig, match="remove both"):
        tls.own(tmp_path / "b", HOSTS)


def test_when_there_is_tls(tmp_path: Path) -> None:
    uri = f"sqlite://{tmp_path}/vorch.db"
    for word, loopback, there in (
        ("auto", True, False),
        ("auto", False, True),
        ("on", True, True),
        ("on", False, True),
        ("off", True, False),
    ):
        found = tls.tls_for(Settings(uri=uri, tls=word), "127.0.0.1", loopback=loopback)
        assert (found is not None) == there, (word, loopback)
    with pytest.raises(Denied, match="others on the network would see"):
        tls.tls_for(Settings(uri=uri, tls="off"), "0.0.0.0", loopback=False)
    with pytest.raises(BadConfig, match="auto, on, off"):
        Settings(uri=uri, tls="maybe")


def test_a_folder_that_cannot_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Unreachable, match="cannot keep a certificate"):
        tls.own(tmp_path / "file", HOSTS)


def test_on_all_addresses_it_is_called_by_the_machines_name() -> None:
    with connect("memory:") as cluster:
        service = Service(cluster, host="0.0.0.0", port=0)
        assert service.tls is not None
        assert service.address.startswith(f"https://{socket.gethostname()}:")
        found = x509.load_pem_x509_certificate(service.tls.certificate.read_bytes())
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert {socket.gethostname(), "localhost"} <= {str(one.value) for one in names}
        shutil.rmtree(service.tls.certificate.parent)
