"""/v1/images/NAME/content: what an image holds, whole or from any byte on, to be gone on with."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Request, Response
from starlette.responses import StreamingResponse

from vorch import Content, Invalid, Orchestrator

from ..asking import let_in
from ..connection import connected
from ..problems import problem

PIECE_BYTES = 1024**2
NOT_SATISFIABLE = 416

router = APIRouter(prefix="/v1/images", tags=["images"])

Cluster = Annotated[Orchestrator, Depends(connected)]


@router.get("/{name}/content", summary="What an image holds, as raw", response_class=Response)
@router.head("/{name}/content", include_in_schema=False)
def image_content(
    request: Request,
    cluster: Cluster,
    name: str,
    disk: str | None = None,
    wanted: Annotated[str | None, Header(alias="Range")] = None,
    same: Annotated[str | None, Header(alias="If-Range")] = None,
) -> Response:
    """Takes a Range of one part, so that a broken download goes on where it stood."""
    # Before anything is looked up: whoever may not read it is told the same of any name.
    let_in(request, "image_content", name=name)
    image = cluster.image_show(name)
    opening = cluster.image_content(name, disk)
    content = opening.__enter__()
    try:
        # Its volumes are never written to, and never called the same again.
        tag = '"' + ".".join(part.volume.name for part in image.disks) + '"'
        headers = {
            "Accept-Ranges": "bytes",
            "ETag": tag,
            "Content-Disposition": f'attachment; filename="{name}.{_ending(image.kind)}"',
        }
        whole = content.size_bytes
        span = (0, whole) if same not in (None, tag) else _span(wanted, whole)
        if span is None:
            opening.__exit__(None, None, None)
            return problem(
                Invalid(f"cannot send {wanted!r} of image {name!r}: it has {whole} bytes"),
                status=NOT_SATISFIABLE,
                headers={"Content-Range": f"bytes */{whole}"},
            )
        start, end = span
        headers["Content-Length"] = str(end - start)
        if span != (0, whole):
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{whole}"
        if request.method == "HEAD":
            opening.__exit__(None, None, None)
            return Response(headers=headers, media_type="application/octet-stream")
        return StreamingResponse(
            _sent(opening, content, start, end),
            status_code=206 if span != (0, whole) else 200,
            headers=headers,
            media_type="application/octet-stream",
        )
    except BaseException:
        opening.__exit__(None, None, None)
        raise


def _ending(kind: str) -> str:
    return "iso" if kind == "iso" else "raw"


def _span(text: str | None, whole: int) -> tuple[int, int] | None:
    """From and up to which byte. What is no range of one part is as if it were not there."""
    found = re.fullmatch(r"bytes=([0-9]{0,18})-([0-9]{0,18})", text or "")
    if found is None or found[0] == "bytes=-":
        return 0, whole
    first, last = found[1], found[2]
    if not first:
        start, end = max(0, whole - int(last)), whole
    else:
        start, end = int(first), min(whole, int(last) + 1) if last else whole
        if last and int(last) < start:
            return 0, whole
    return (start, end) if start < end else None


def _sent(
    opening: AbstractContextManager[Content], content: Content, start: int, end: int
) -> Iterator[bytes]:
    """Holes are zeros, and are not read for that."""
    try:
        parts = iter(content.extents)
        offset, length = next(parts, (end, 0))
        at = start
        while at < end:
            while offset + length <= at and offset < end:
                offset, length = next(parts, (end, 0))
            upto = min(at + PIECE_BYTES, end)
            if at < offset:
                upto = min(upto, offset)
                yield bytes(upto - at)
            else:
                upto = min(upto, offset + length)
                data = content.read(at, upto - at)
                yield data + bytes(upto - at - len(data))
            at = upto
    finally:
        opening.__exit__(None, None, None)
