"""Uploads in pieces by tus, what becomes of them, and downloads that are gone on with."""

from __future__ import annotations

import base64
import hashlib
import os
import random
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from vorch import Conflict, NoRoom, NotFound, Orchestrator, Settings, Unreachable, connect
from vorch.drivers import memory
from vorch.drivers.uploads import FolderUploads
from vorch_api import create_app

TOKEN = "t" * 43
TUS = {"Authorization": f"Bearer {TOKEN}", "Tus-Resumable": "1.0.0"}
PIECE = {**TUS, "Content-Type": "application/offset+octet-stream"}
DATA = random.Random(7).randbytes(3 * 1024**2) + bytes(1024**2)


@pytest.fixture
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Orchestrator]:
    name = re.sub(r"\W+", "-", f"uploads-{request.node.name}")
    settings = Settings(
        uri=f"memory:{name}", upload_path=str(tmp_path / "uploads"), upload_limit_gib=1 / 64
    )
    with connect(settings.uri, settings=settings) as found:
        yield found
    memory.forget(name)


@pytest.fixture
def client(cluster: Orchestrator) -> Iterator[TestClient]:
    with TestClient(create_app(cluster, token=TOKEN), raise_server_exceptions=False) as found:
        yield found


def encoded(**said: str) -> str:
    return ",".join(
        f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in said.items()
    )


def begun(client: TestClient, size: int = len(DATA), **said: str) -> str:
    """Its path."""
    headers = {**TUS, "Upload-Length": str(size), "Upload-Metadata": encoded(**said)}
    answer = client.post("/v1/uploads", headers=headers)
    assert answer.status_code == 201, answer.text
    path: str = answer.headers["location"]
    assert re.fullmatch(r"/v1/uploads/[0-9a-f]{32}", path)
    return path


def sent(client: TestClient, path: str, data: bytes, offset: int = 0, checksum: str = "") -> Any:
    headers = {**PIECE, "Upload-Offset": str(offset), "Upload-Checksum": checksum}
    return client.patch(path, headers=headers, content=data)


def offset_of(client: TestClient, path: str) -> int:
    answer = client.head(path, headers=TUS)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    return int(answer.headers["upload-offset"])


# ---------------------------------------------------------------------------------------------
# Coming


def test_it_says_what_it_takes(client: TestClient) -> None:
    answer = client.options("/v1/uploads", headers=TUS)
    assert answer.status_code == 204
    assert answer.headers["tus-version"] == "1.0.0"
    assert answer.headers["tus-max-size"] == str(16 * 1024**2)
    assert "checksum" in answer.headers["tus-extension"].split(",")


def test_an_image_comes_in_pieces(
    client: TestClient, cluster: Orchestrator, tmp_path: Path
) -> None:
    whole = hashlib.sha256(DATA).hexdigest()
    path = begun(client, filename="débian.raw", sha256=whole)
    answer = sent(client, path, DATA[:1_000_000])
    assert (answer.status_code, answer.headers["upload-offset"]) == (204, "1000000")
    assert offset_of(client, path) == 1_000_000
    with pytest.raises(Conflict, match="1000000 of 4194304 bytes"):
        cluster.image_import("debian", f"upload:{path.rpartition('/')[2]}")
    assert sent(client, path, DATA[1_000_000:], 1_000_000).status_code == 204
    shown = client.get(path, headers=TUS).json()
    assert (shown["name"], shown["sha256"]) == ("débian.raw", whole)
    assert [one["id"] for one in client.get("/v1/uploads", headers=TUS).json()] == [shown["id"]]
    done = cluster.image_import("debian", f"upload:{shown['id']}")
    assert done.task is not None
    assert cluster.image_show("debian").size_bytes == len(DATA)
    # It is an image now, and lies there once.
    assert client.get(path, headers=TUS).status_code == 404
    assert list((tmp_path / "uploads").iterdir()) == []


def test_a_plan_leaves_it_there(client: TestClient, cluster: Orchestrator) -> None:
    path = begun(client)
    sent(client, path, DATA)
    cluster.image_import("debian", f"upload:{path.rpartition('/')[2]}", dry_run=True)
    assert offset_of(client, path) == len(DATA)


def test_one_that_is_not_what_it_should_be_is_no_image(
    client: TestClient, cluster: Orchestrator
) -> None:
    path = begun(client, sha256="0" * 64)
    sent(client, path, DATA)
    with pytest.raises(Exception, match="SHA-256"):
        cluster.image_import("debian", f"upload:{path.rpartition('/')[2]}")
    assert cluster.image_list() == ()
    assert offset_of(client, path) == len(DATA)


def test_a_piece_begins_where_it_stands(client: TestClient) -> None:
    path = begun(client)
    sent(client, path, DATA[:100])
    for offset in (0, 99, 101):
        answer = sent(client, path, DATA[offset : offset + 10], offset)
        assert answer.status_code == 409
        assert answer.json()["fields"]["offset_bytes"] == 100
    assert offset_of(client, path) == 100


def test_a_piece_with_a_checksum_is_taken_whole_or_not(client: TestClient) -> None:
    path = begun(client)
    digest = base64.b64encode(hashlib.sha256(DATA[:500]).digest()).decode()
    answer = sent(client, path, DATA[:499] + b"?", checksum=f"sha256 {digest}")
    assert answer.status_code == 460
    assert answer.headers["content-type"] == "application/problem+json"
    assert offset_of(client, path) == 0
    answer = sent(client, path, DATA[:500], checksum=f"sha256 {digest}")
    assert answer.status_code == 204
    assert offset_of(client, path) == 500
    for wrong in ("sha256 x", "md5 AAAA", digest):
        assert sent(client, path, b"x", 500, checksum=wrong).status_code == 422


def test_what_is_too_much_is_refused_while_it_comes(client: TestClient) -> None:
    path = begun(client, size=2 * 1024**2)
    answer = sent(client, path, bytes(4 * 1024**2))
    assert answer.status_code == 413
    assert answer.json()["code"] == "invalid"
    assert offset_of(client, path) <= 2 * 1024**2


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Upload-Length": str(16 * 1024**2 + 1)}, 422),
        ({"Upload-Length": "0"}, 422),
        ({"Upload-Length": "-1"}, 422),
        ({"Upload-Length": "1_0"}, 422),
        ({"Upload-Length": "9" * 40}, 422),
        ({}, 422),
        ({"Upload-Length": "5", "Tus-Resumable": "0.2.2"}, 412),
        ({"Upload-Length": "5", "Upload-Metadata": "filename !!"}, 422),
        ({"Upload-Length": "5", "Upload-Metadata": encoded(filename="a\nb")}, 422),
        ({"Upload-Length": "5", "Upload-Metadata": encoded(filename="x" * 256)}, 422),
        ({"Upload-Length": "5", "Upload-Metadata": encoded(sha256="../etc")}, 422),
    ],
)
def test_nonsense_begins_nothing(
    client: TestClient, headers: dict[str, str], status: int, tmp_path: Path
) -> None:
    answer = client.post("/v1/uploads", headers={**TUS, **headers})
    assert answer.status_code == status, answer.text
    assert client.get("/v1/uploads", headers=TUS).json() == []


def test_a_piece_of_another_type_or_version_is_refused(client: TestClient) -> None:
    path = begun(client)
    other = {**PIECE, "Upload-Offset": "0", "Content-Type": "text/plain"}
    assert client.patch(path, headers=other, content=b"x").status_code == 415
    old = {**PIECE, "Upload-Offset": "0", "Tus-Resumable": "0.9"}
    answer = client.patch(path, headers=old, content=b"x")
    assert (answer.status_code, answer.headers["tus-version"]) == (412, "1.0.0")
    assert client.patch(path, headers=PIECE, content=b"x").status_code == 422
    assert offset_of(client, path) == 0


@pytest.mark.parametrize("name", ["0" * 32, "..%2f..%2fetc%2fpasswd", "x", "A" * 32, "0" * 31])
def test_what_is_not_there_is_not_found(client: TestClient, name: str) -> None:
    for method in ("GET", "HEAD", "DELETE"):
        assert client.request(method, f"/v1/uploads/{name}", headers=TUS).status_code == 404
    assert sent(client, f"/v1/uploads/{name}", b"x").status_code == 404


def test_a_stranger_learns_nothing(client: TestClient) -> None:
    path = begun(client)
    for method in ("GET", "HEAD", "PATCH", "DELETE", "OPTIONS"):
        assert client.request(method, path).status_code == 401
    assert client.post("/v1/uploads", headers={"Upload-Length": "1"}).status_code == 401


def test_one_that_is_thrown_away_is_gone(client: TestClient, tmp_path: Path) -> None:
    path = begun(client)
    sent(client, path, b"x")
    assert client.delete(path, headers=TUS).status_code == 204
    assert client.delete(path, headers=TUS).status_code == 404
    assert list((tmp_path / "uploads").iterdir()) == []


# ---------------------------------------------------------------------------------------------
# The folder


@pytest.fixture
def folder(tmp_path: Path) -> FolderUploads:
    return FolderUploads(tmp_path / "there", limit_bytes=2**60, keep_s=3600.0)


def made(folder: FolderUploads, size: int = 100) -> str:
    return folder.create(name="a", size_bytes=size, sha256="", owner="me").id


def test_only_one_at_a_time(folder: FolderUploads) -> None:
    one = made(folder)
    with folder.append(one, 0) as piece:
        piece.write(b"abc")
        with pytest.raises(Conflict, match="somebody else"), folder.append(one, 3):
            pass
    with folder.append(one, 3) as piece:
        piece.write(b"def")
    assert folder.find(one).offset_bytes == 6


def test_what_has_come_stays_when_it_breaks(folder: FolderUploads) -> None:
    one = made(folder)

    def broken(offset: int, data: bytes, checksum: str) -> None:
        with folder.append(one, offset, checksum) as piece:
            piece.write(data)
            raise ConnectionError

    with pytest.raises(Unreachable):
        broken(0, b"abc", "")
    assert folder.find(one).offset_bytes == 3
    with pytest.raises(Unreachable):
        broken(3, b"def", "0" * 64)
    assert folder.find(one).offset_bytes == 3


def test_what_is_still_to_come_is_spoken_for(folder: FolderUploads, tmp_path: Path) -> None:
    room = os.statvfs(tmp_path)
    most_of_it = int(room.f_bavail * room.f_frsize * 0.7)
    made(folder, most_of_it)
    with pytest.raises(NoRoom, match="free for uploads"):
        made(folder, most_of_it)


def test_old_ones_go(folder: FolderUploads, tmp_path: Path) -> None:
    old, new = made(folder), made(folder)
    os.utime(tmp_path / "there" / f"{old}.data", (1.0, 1.0))
    (tmp_path / "there" / "of-somebody-else").touch()
    os.utime(tmp_path / "there" / "of-somebody-else", (1.0, 1.0))
    folder.expire()
    folder.expire()
    assert [one.id for one in folder.list()] == [new]
    with pytest.raises(NotFound):
        folder.find(old)
    assert sorted(one.name for one in (tmp_path / "there").iterdir()) == sorted(
        [f"{new}.data", f"{new}.json", "of-somebody-else"]
    )


def test_nobody_else_may_read_them(folder: FolderUploads, tmp_path: Path) -> None:
    one = made(folder)
    assert (tmp_path / "there").stat().st_mode & 0o077 == 0
    for ending in ("json", "data"):
        assert (tmp_path / "there" / f"{one}.{ending}").stat().st_mode & 0o077 == 0


def test_several_begin_at_once(folder: FolderUploads) -> None:
    begun = [threading.Thread(target=made, args=[folder]) for _ in range(8)]
    for thread in begun:
        thread.start()
    for thread in begun:
        thread.join()
    assert len(folder.list()) == 8


# ---------------------------------------------------------------------------------------------
# Downloads


@pytest.fixture
def image(cluster: Orchestrator, tmp_path: Path) -> bytes:
    """Image `debian`, with holes at its begin, in the middle and at its end."""
    body = random.Random(3).randbytes
    data = bytes(1024**2) + body(100_000) + bytes(2 * 1024**2) + body(5000) + bytes(1024**2)
    data += bytes(-len(data) % 512)
    (tmp_path / "debian.raw").write_bytes(data)
    cluster.image_import("debian", str(tmp_path / "debian.raw"))
    assert cluster.image_show("debian").size_bytes == len(data)
    return data


def test_an_image_is_sent(client: TestClient, image: bytes) -> None:
    answer = client.get("/v1/images/debian/content", headers=TUS)
    assert answer.status_code == 200
    assert answer.content == image
    assert answer.headers["content-length"] == str(len(image))
    assert answer.headers["content-disposition"] == 'attachment; filename="debian.raw"'
    head = client.head("/v1/images/debian/content", headers=TUS)
    assert head.content == b""
    assert head.headers["content-length"] == str(len(image))
    assert head.headers["etag"] == answer.headers["etag"]


@pytest.mark.parametrize(
    "wanted",
    ["0-0", "5-", "1048570-1148600", "1000000-3500000", "-1", "-999999999", "3000000-999999999"],
)
def test_a_part_of_it_is_sent(client: TestClient, image: bytes, wanted: str) -> None:
    answer = client.get("/v1/images/debian/content", headers={**TUS, "Range": f"bytes={wanted}"})
    first, _, last = wanted.partition("-")
    start = int(first) if first else max(0, len(image) - int(last))
    end = min(len(image), int(last) + 1) if first and last else len(image)
    assert answer.content == image[start:end]
    assert answer.status_code == (206 if (start, end) != (0, len(image)) else 200)
    if answer.status_code == 206:
        assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{len(image)}"


@pytest.mark.parametrize("wanted", ["bytes=0-1,5-6", "lines=0-5", "bytes=-", "bytes=5-2", "x"])
def test_what_is_no_range_gets_all(client: TestClient, image: bytes, wanted: str) -> None:
    answer = client.get("/v1/images/debian/content", headers={**TUS, "Range": wanted})
    assert (answer.status_code, len(answer.content)) == (200, len(image))


def test_what_is_beyond_the_end_is_refused(client: TestClient, image: bytes) -> None:
    for wanted in (f"bytes={len(image)}-", "bytes=-0"):
        answer = client.get("/v1/images/debian/content", headers={**TUS, "Range": wanted})
        assert answer.status_code == 416
        assert answer.headers["content-range"] == f"bytes */{len(image)}"


def test_another_image_is_not_gone_on_with(client: TestClient, image: bytes) -> None:
    part = {**TUS, "Range": "bytes=5-9"}
    tag = client.head("/v1/images/debian/content", headers=TUS).headers["etag"]
    answer = client.get("/v1/images/debian/content", headers={**part, "If-Range": tag})
    assert answer.status_code == 206
    answer = client.get("/v1/images/debian/content", headers={**part, "If-Range": '"other"'})
    assert (answer.status_code, len(answer.content)) == (200, len(image))


def test_what_is_no_image_is_told(client: TestClient, image: bytes) -> None:
    assert client.get("/v1/images/nosuch/content", headers=TUS).status_code == 404
    answer = client.get("/v1/images/debian/content?disk=nosuch", headers=TUS)
    assert answer.status_code == 422
    assert client.get("/v1/images/debian/content").status_code == 401
