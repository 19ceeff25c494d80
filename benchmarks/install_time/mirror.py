"""A mirror for guests that may not go out: what this machine's apt can reach, kept and served.

`/debian/…` is this machine's own archive: what is asked for the first time is fetched by apt's own
ways, with its settings, and kept. `/short/…` is a small archive of a few of its packages. A run
that made the mirror fetch anything waited for somebody else's network: it does not count.
"""

from __future__ import annotations

import gzip
import hashlib
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Sequence
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from vorch import StepFailed, Unsupported
from vorch.lab import guest

from . import media

Say = Callable[[str], None]
APT_HELPER = "/usr/lib/apt/apt-helper"
# Never in a file's path on an archive; anything else could lead out of the folder.
PLAIN_PATH = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~+:-]*(/[A-Za-z0-9][A-Za-z0-9._~+:-]*)*")
CHUNK = 1 << 20


class Mirror:
    """Serves until it is closed. `url` is what guests are told."""

    def __init__(self, cache: Path, address: str, port: int, say: Say) -> None:
        self.site, self.suite = guest.own_archive()
        self._folder = cache / "mirror"
        self._say = say
        self._lock = threading.Lock()
        self.fetched = 0
        # What the archive has not, or could not be had just now: asked for once while this serves.
        self._missing: set[str] = set()
        self._fresh_indices()
        handler = partial(_Handler, self)
        try:
            self._server = ThreadingHTTPServer((address, port), handler)
        except OSError as exc:
            raise Unsupported(
                f"cannot serve packages on {address}:{port}: {exc.strerror}; name an address of"
                " this machine that the guests reach, and a free port"
            ) from exc
        self.url = f"http://{address}:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Mirror:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    @property
    def digest(self) -> str:
        """Of what the archive offers now: two mirrors with the same one hold the same packages."""
        file = self._folder / "debian" / "dists" / self.suite / "InRelease"
        return hashlib.sha256(file.read_bytes()).hexdigest()[:16]

    def _fresh_indices(self) -> None:
        """Indices of an archive that has changed since would name packages that are gone."""
        dists = self._folder / "debian" / "dists"
        kept = dists / self.suite / "InRelease"
        latest = self._folder / "InRelease.new"
        latest.parent.mkdir(parents=True, exist_ok=True)
        self._fetch(f"dists/{self.suite}/InRelease", latest)
        if not kept.exists() or kept.read_bytes() != latest.read_bytes():
            shutil.rmtree(dists, ignore_errors=True)
            kept.parent.mkdir(parents=True)
            latest.replace(kept)
        latest.unlink(missing_ok=True)

    def _fetch(self, path: str, target: Path) -> bool:
        """By apt's own ways: its proxies, certificates and passwords are its matter."""
        part = target.with_name(f".{target.name}.part")
        part.unlink(missing_ok=True)
        done = subprocess.run(
            [APT_HELPER, "download-file", f"{self.site.rstrip('/')}/{path}", str(part)],
            capture_output=True,
            text=True,
            errors="replace",
        )
        if done.returncode or not part.exists():
            part.unlink(missing_ok=True)
            return False
        part.replace(target)
        return True

    def file(self, path: str) -> Path | None:
        """Where that is on this machine; None where the archive has none."""
        area, _, rest = path.partition("/")
        if not PLAIN_PATH.fullmatch(path) or area not in ("debian", "short") or not rest:
            return None
        kept = self._folder / area / rest
        if area == "short" or kept.is_file():
            return kept if kept.is_file() else None
        with self._lock:
            if kept.is_file():
                return kept
            if path in self._missing:
                return None
            kept.parent.mkdir(parents=True, exist_ok=True)
            self.fetched += 1
            if self._fetch(rest, kept):
                return kept
            self._missing.add(path)
            return None

    def make_short(self) -> str:
        """The small archive, of packages that apt brings; what its kernel's package is there."""
        kernel, version = media.kernel_package(self._say)
        names = (*media.SHORT_BASE, kernel)
        versions = guest.versions_of(names) | {kernel: version}
        marked = hashlib.sha256(repr(sorted(versions.items())).encode()).hexdigest()[:12]
        folder = self._folder / "short"
        note = folder / "made-of"
        stand = folder / "dists" / "short"
        if not (note.exists() and note.read_text().startswith(marked)):
            self._say("making a small archive for the short set")
            shutil.rmtree(folder, ignore_errors=True)
            packages = self._folder.parent / "packages"
            pool = folder / "pool"
            pool.mkdir(parents=True)
            packages.mkdir(exist_ok=True)
            guest.run(["apt-get", "download", *names], cwd=packages)
            index = []
            kernel_path = ""
            for name in names:
                found = packages / (
                    f"{name}_{versions[name].replace(':', '%3a')}_"
                    f"{'all' if not list(packages.glob(f'{name}_*_amd64.deb')) else 'amd64'}.deb"
                )
                if not found.exists():
                    raise StepFailed(
                        f"cannot make the small archive: apt-get brought no {found.name}; run"
                        " apt-get update and try again"
                    )
                target = pool / found.name.replace("%3a", "-")
                shutil.copy(found, target)
                if name == kernel:
                    kernel_path = f"pool/{target.name}"
                index.append(_entry(target, required=name != kernel))
            _write_index(stand, "\n".join(index))
            note.write_text(f"{marked} {kernel_path}\n")
        return note.read_text().split()[1]


def _entry(package: Path, *, required: bool) -> str:
    """A paragraph of an archive's index."""
    fields = guest.run(["dpkg-deb", "--field", str(package)]).splitlines()
    kept = [line for line in fields if not line.startswith(("Priority:", "Essential:"))]
    data = package.read_bytes()
    return "\n".join(
        [
            *kept,
            f"Priority: {'required' if required else 'optional'}",
            f"Filename: pool/{package.name}",
            f"Size: {len(data)}",
            f"SHA256: {hashlib.sha256(data).hexdigest()}",
            "",
        ]
    )


def _write_index(folder: Path, text: str) -> None:
    binaries = folder / "main" / "binary-amd64"
    binaries.mkdir(parents=True)
    lines = []
    for name, data in (
        ("Packages", text.encode()),
        ("Packages.gz", gzip.compress(text.encode(), mtime=0)),
    ):
        (binaries / name).write_bytes(data)
        lines.append(f" {hashlib.sha256(data).hexdigest()} {len(data)} main/binary-amd64/{name}")
    (folder / "Release").write_text(
        "Origin: vorch\nLabel: short\nSuite: short\nCodename: short\nArchitectures: amd64\n"
        "Components: main\nDate: Thu, 01 Jan 2026 00:00:00 UTC\nSHA256:\n" + "\n".join(lines) + "\n"
    )


class _Handler(BaseHTTPRequestHandler):
    """GET and HEAD of files; connections are kept, as an installer asks hundreds of times."""

    protocol_version = "HTTP/1.1"
    timeout = 60

    def __init__(self, mirror: Mirror, *args: object) -> None:
        self._mirror = mirror
        super().__init__(*args)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        # "a//b" is what some clients make of a base that ends with a slash.
        file = self._mirror.file(re.sub(r"/+", "/", path).strip("/"))
        if file is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(file.stat().st_size))
        self.send_header("Content-Type", "application/octet-stream")
        self.end_headers()
        if with_body:
            with file.open("rb") as data:
                shutil.copyfileobj(data, self.wfile, CHUNK)

    def log_message(self, format: str, *args: object) -> None:
        """What is asked for is the guests' business; what is missing shows in them."""


__all__: Sequence[str] = ("Mirror",)
