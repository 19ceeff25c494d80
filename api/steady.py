"""Answers that stay the same as long as the process lives: squeezed once, and known by an ETag."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from fastapi import Request, Response

# Less than this is as quick as it is.
SQUEEZED_FROM = 1024


@dataclass(frozen=True, slots=True)
class Steady:
    body: bytes
    # The same in fewer bytes; none where that is not worth it.
    squeezed: bytes
    media_type: str
    etag: str


def steady(body: bytes, media_type: str, *, squeeze: bool = True) -> Steady:
    squeezed = gzip.compress(body, mtime=0) if squeeze and len(body) >= SQUEEZED_FROM else b""
    return Steady(body, squeezed, media_type, f'"{hashlib.sha256(body).hexdigest()[:32]}"')


def answer(request: Request, found: Steady, headers: Mapping[str, str]) -> Response:
    """All of it, or that whoever asks has it already."""
    given = {**headers, "ETag": found.etag, "Vary": "Accept-Encoding"}
    known = [one.strip() for one in request.headers.get("if-none-match", "").split(",")]
    if found.etag in known or f"W/{found.etag}" in known:
        return Response(status_code=304, headers=given)
    body = found.body
    if found.squeezed and "gzip" in request.headers.get("accept-encoding", ""):
        body, given["Content-Encoding"] = found.squeezed, "gzip"
    return Response(body, media_type=found.media_type, headers=given)
