"""/v1/uploads: files that come in pieces, by the protocol tus 1.0.0 (https://tus.io).

They are of this service and its machine, not of the cluster: `image_import` of "upload:ID" is what
makes an image of one. So whoever may import images may send them, and sees those of others, too.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from collections.abc import AsyncIterator
from email.utils import formatdate
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from vorch import Invalid, TimedOut, Unsupported, Upload, Uploads, VorchError

from ..asking import let_in, on_behalf, principal
from ..problems import problem

VERSION = "1.0.0"
EXTENSIONS = "creation,checksum,expiration,termination"
PIECE = "application/offset+octet-stream"
# Bytes reach the disk in pieces of this size.
BLOCK_BYTES = 1024**2
# Whoever sends nothing for so long gives way to others.
SILENT_S = 60.0
# What the protocol has numbers of its own for.
WRONG_VERSION = 412
WRONG_TYPE = 415
CHECKSUM_MISMATCH = 460

router = APIRouter(prefix="/v1/uploads", tags=["uploads"])


def _uploads(request: Request, what: str) -> Uploads:
    """Where they are, for whom the table of rights lets `what`."""
    let_in(request, what, **request.path_params)
    found: Uploads | None = request.app.state.cluster.world.uploads
    if found is None:
        raise Unsupported("cannot take uploads: this service has no folder for them")
    return found


def _to_look(request: Request) -> Uploads:
    return _uploads(request, "upload_list")


def _to_send(request: Request) -> Uploads:
    return _uploads(request, "upload_create")


def _to_delete(request: Request) -> Uploads:
    return _uploads(request, "upload_delete")


There = Annotated[Uploads, Depends(_to_look)]
Taking = Annotated[Uploads, Depends(_to_send)]
Version = Annotated[str | None, Header(alias="Tus-Resumable")]


@router.options("", summary="What this service takes", status_code=204)
def upload_options(there: There) -> Response:
    return _answer(
        204,
        {
            "Tus-Version": VERSION,
            "Tus-Extension": EXTENSIONS,
            "Tus-Max-Size": str(there.limit_bytes),
            "Tus-Checksum-Algorithm": "sha256",
        },
    )


@router.get("", summary="All that are there, or on their way")
def upload_list(there: There) -> list[Upload]:
    return [*there.list()]


@router.post("", summary="Begin one", status_code=201)
def upload_create(
    request: Request,
    there: Taking,
    version: Version = None,
    length: Annotated[str | None, Header(alias="Upload-Length")] = None,
    metadata: Annotated[str, Header(alias="Upload-Metadata")] = "",
) -> Response:
    """Upload-Metadata may have `filename` and `sha256` (64 hexadecimal digits), in Base64 each."""
    if version != VERSION:
        return _wrong_version()
    said = _metadata(metadata)
    made = there.create(
        name=said.get("filename", "upload"),
        size_bytes=_number(length, "Upload-Length"),
        sha256=said.get("sha256", "").lower(),
        owner=principal(request).name,
    )
    on_behalf(request).noted("upload_create", upload_id=made.id)
    return _answer(201, {"Location": f"/v1/uploads/{made.id}", **_state(made)})


@router.get("/{upload_id}", summary="One, and how far it is")
def upload_show(there: There, upload_id: str) -> Upload:
    return there.find(upload_id)


@router.head("/{upload_id}", summary="How far it is, as tus asks", status_code=200)
def upload_head(there: There, upload_id: str) -> Response:
    return _answer(200, {**_state(there.find(upload_id)), "Cache-Control": "no-store"})


@router.patch("/{upload_id}", summary="Send on from where it stands", status_code=204)
async def upload_append(
    request: Request,
    there: Taking,
    upload_id: str,
    version: Version = None,
    offset: Annotated[str | None, Header(alias="Upload-Offset")] = None,
    checksum: Annotated[str, Header(alias="Upload-Checksum")] = "",
    kind: Annotated[str, Header(alias="Content-Type")] = "",
) -> Response:
    """What has come stays when the connection breaks; with Upload-Checksum all of it or nothing."""
    if version != VERSION:
        return _wrong_version()
    if kind != PIECE:
        wrong = Invalid(f"cannot take a piece of type {kind!r}: it must be {PIECE}")
        return problem(wrong, status=WRONG_TYPE)
    wanted = _checksum(checksum)
    appending = there.append(upload_id, _number(offset, "Upload-Offset"), wanted)
    piece = await run_in_threadpool(appending.__enter__)
    try:
        try:
            async for block in _blocks(request):
                await run_in_threadpool(piece.write, block)
        except BaseException as exc:
            await run_in_threadpool(appending.__exit__, type(exc), exc, exc.__traceback__)
            raise
        await run_in_threadpool(appending.__exit__, None, None, None)
    except ClientDisconnect:
        # Nobody is there to read it.
        return Response(status_code=400)
    except VorchError as exc:
        if "checksum" in exc.fields:
            return problem(exc, status=CHECKSUM_MISMATCH)
        raise
    now = await run_in_threadpool(there.find, upload_id)
    return _answer(204, _state(now))


@router.delete("/{upload_id}", summary="Throw it away", status_code=204)
def upload_delete(
    request: Request, there: Annotated[Uploads, Depends(_to_delete)], upload_id: str
) -> Response:
    there.remove(upload_id)
    on_behalf(request).noted("upload_delete", upload_id=upload_id)
    return _answer(204, {})


async def _blocks(request: Request) -> AsyncIterator[bytes]:
    """The body in pieces worth a write, for as long as something comes."""
    kept = bytearray()
    stream = request.stream().__aiter__()
    while True:
        try:
            kept += await asyncio.wait_for(anext(stream), SILENT_S)
        except StopAsyncIteration:
            break
        except ClientDisconnect:
            # What came before is kept.
            if kept:
                yield bytes(kept)
            raise
        except TimeoutError as exc:
            if kept:
                yield bytes(kept)
            raise TimedOut(
                f"cannot take the upload: nothing came for {SILENT_S:g} s; send the rest again"
            ) from exc
        if len(kept) >= BLOCK_BYTES:
            yield bytes(kept)
            kept.clear()
    if kept:
        yield bytes(kept)


def _answer(status: int, headers: dict[str, str]) -> Response:
    return Response(status_code=status, headers={"Tus-Resumable": VERSION, **headers})


def _wrong_version() -> Response:
    wrong = Unsupported(f"cannot take the upload: Tus-Resumable must be {VERSION}")
    return problem(wrong, status=WRONG_VERSION, headers={"Tus-Version": VERSION})


def _state(one: Upload) -> dict[str, str]:
    named = base64.b64encode(one.name.encode()).decode()
    return {
        "Upload-Length": str(one.size_bytes),
        "Upload-Offset": str(one.offset_bytes),
        "Upload-Metadata": f"filename {named}",
        "Upload-Expires": formatdate(one.expires_at, usegmt=True),
    }


def _number(text: str | None, header: str) -> int:
    # More digits than any file has bytes; int() takes signs, spaces and other scripts as well.
    if text is None or not re.fullmatch(r"[0-9]{1,18}", text):
        raise Invalid(f"cannot take the upload: the header {header} must be a number of bytes")
    return int(text)


def _metadata(text: str) -> dict[str, str]:
    """Pairs of a key and Base64, with commas between them."""
    found: dict[str, str] = {}
    for pair in filter(None, (part.strip() for part in text.split(","))):
        key, _, value = pair.partition(" ")
        try:
            said = base64.b64decode(value, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise Invalid(
                f"cannot read Upload-Metadata: {key!r} is no UTF-8 text in Base64"
            ) from None
        if len(said) > 255 or not said.isprintable():
            raise Invalid(f"cannot use {key!r} of Upload-Metadata: 255 printable signs at most")
        found[key] = said
    return found


def _checksum(text: str) -> str:
    if not text:
        return ""
    algorithm, _, value = text.partition(" ")
    try:
        raw = base64.b64decode(value, validate=True)
    except binascii.Error:
        raw = b""
    if algorithm != "sha256" or len(raw) != 32:
        raise Invalid("cannot use Upload-Checksum: it must be 'sha256' and the sum in Base64")
    return raw.hex()
