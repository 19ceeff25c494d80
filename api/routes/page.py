"""The web page: its files, as they lie in api/page/, and the one document that begins it.

All files are read once. Their addresses bear a digest over all of them, so browsers may keep them
for good, and a new version is taken whole or not at all. To strangers the page shows how to log in
and nothing else: all that it knows comes from /v1.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from importlib.resources.abc import Traversable

from fastapi import APIRouter, Request, Response

from vorch import NotFound, __version__

from ..steady import Steady, answer, steady

# What a browser may do with the page. No script stands in a document, nothing comes from elsewhere.
# Consoles are websockets to this service, which 'self' covers.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "font-src 'self'",
        "connect-src 'self'",
        "manifest-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
    ".woff2": "font/woff2",
}
SQUEEZED = (".css", ".html", ".js", ".json", ".svg", ".txt")
FIRST = "index.html"
# No module, and one that is loaded with the first console.
LATER = ("js/theme.js", "js/consoles.js")
FOREVER = "public, max-age=31536000, immutable"
ASK_AGAIN = "no-cache"

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, slots=True)
class Page:
    """All files of the page by their paths."""

    files: Mapping[str, Steady]
    digest: str
    first: Steady


def page_of(*, oidc: bool, root: Traversable | None = None) -> Page:
    """`oidc`: logins at a provider are set up, so the page offers them."""
    found = dict(_read(root or files(__package__.partition(".")[0]) / "page", ""))
    whole = hashlib.sha256()
    for path in sorted(found):
        whole.update(path.encode() + b"\0" + hashlib.sha256(found[path]).digest())
    digest = whole.hexdigest()[:16]
    words = {"base": f"page/{digest}", "version": __version__, "oidc": "yes" if oidc else "no"}
    text = found.pop(FIRST).decode("utf-8")
    for word, value in words.items():
        text = text.replace(f"{{{{{word}}}}}", escape(value))
    text = text.replace("{{modules}}", "\n".join(_asked_for_at_once(found, words["base"])))
    return Page(
        files={path: _file(path, body) for path, body in found.items()},
        digest=digest,
        first=_file(FIRST, text.encode()),
    )


def _asked_for_at_once(paths: Iterable[str], base: str) -> Iterator[str]:
    """Else a browser learns of each module only when another that imports it has come."""
    for path in paths:
        if path.startswith("js/") and path not in LATER:
            yield f'<link rel="modulepreload" href="{escape(base)}/{escape(path)}">'


def _read(folder: Traversable, prefix: str) -> list[tuple[str, bytes]]:
    found = []
    for one in sorted(folder.iterdir(), key=lambda one: one.name):
        if one.is_dir():
            found += _read(one, f"{prefix}{one.name}/")
        elif _suffix(one.name) in TYPES:
            found.append((prefix + one.name, one.read_bytes()))
    return found


def _suffix(path: str) -> str:
    return "." + path.rpartition(".")[2]


def _file(path: str, body: bytes) -> Steady:
    suffix = _suffix(path)
    return steady(body, TYPES[suffix], squeeze=suffix in SQUEEZED)


def is_of_the_page(method: str, path: str) -> bool:
    """Whether it may be asked for by anybody: the page itself knows nothing."""
    return method in ("GET", "HEAD") and (path == "/" or path.startswith("/page/"))


@router.get("/")
@router.head("/")
def first(request: Request) -> Response:
    return _answer(request, _page(request).first, ASK_AGAIN)


@router.get("/page/{digest}/{path:path}")
@router.head("/page/{digest}/{path:path}")
def file(request: Request, digest: str, path: str) -> Response:
    page = _page(request)
    found = page.files.get(path)
    if found is None:
        raise NotFound("cannot find that part of the page: it is not there; load the page again")
    # Of another version of the service: it is let in, and not kept.
    return _answer(request, found, FOREVER if digest == page.digest else ASK_AGAIN)


def _page(request: Request) -> Page:
    page = request.app.state.page
    assert isinstance(page, Page)
    return page


def _answer(request: Request, found: Steady, keep: str) -> Response:
    return answer(request, found, {"Cache-Control": keep, "Content-Security-Policy": POLICY})
