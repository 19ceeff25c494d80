"""Reads ranges of a raw file, a qcow2 file or an RBD image, without root and without nbd."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vorch.errors import Invalid, NotFound, Unreachable, Unsupported
from vorch.lab.writer_log import Read

QCOW2_MAGIC = b"QFI\xfb"
# A piece of a qcow2 file is taken out with one program start, whatever is read of it later.
PIECE = 64 << 20
CEPH_TIMEOUT_S = 30


@contextlib.contextmanager
def open_disk(
    disk: str, *, conf: str | Path | None = None, user: str | None = None
) -> Iterator[Read]:
    """`read(offset, length)` over a file's path or `rbd:POOL/IMAGE[@SNAPSHOT]`."""
    opened = _rbd(disk, conf, user) if disk.startswith("rbd:") else _file(Path(disk))
    with opened as read:
        yield read


@contextlib.contextmanager
def _file(path: Path) -> Iterator[Read]:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        raise NotFound(
            f"cannot read the disk '{path}': there is no such file; "
            "give a file, or rbd:POOL/IMAGE for an image in Ceph"
        ) from None
    except OSError as error:
        raise Unreachable(
            f"cannot read the disk '{path}': {error.strerror}; mend that and try again"
        ) from error
    try:
        if os.pread(descriptor, 4, 0) == QCOW2_MAGIC:
            with _qcow2(path.resolve()) as read:
                yield read
        else:
            yield lambda offset, length: os.pread(descriptor, length, offset)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _qcow2(path: Path) -> Iterator[Read]:
    # Not `qemu-img dd`: before QEMU 10 its count= also counts what skip= leaves out.
    size = json.loads(_qemu_img(path, "info", "--output=json", str(path)))["virtual-size"]
    with tempfile.TemporaryDirectory(prefix="vorch-verify-") as folder:
        pieces: dict[int, Path] = {}

        def piece(start: int) -> Path:
            if start not in pieces:
                target = Path(folder) / str(start)
                source = {
                    "driver": "raw",
                    "offset": start,
                    "size": min(PIECE, size - start),
                    "file": {"driver": "qcow2", "file": {"driver": "file", "filename": str(path)}},
                }
                _qemu_img(path, "convert", "-O", "raw", f"json:{json.dumps(source)}", str(target))
                pieces[start] = target
            return pieces[start]

        def read(offset: int, length: int) -> bytes:
            data = b""
            end = min(offset + length, size)
            while offset < end:
                start = offset - offset % PIECE
                with piece(start).open("rb") as file:
                    file.seek(offset - start)
                    part = file.read(min(end, start + PIECE) - offset)
                if not part:
                    break
                data += part
                offset += len(part)
            return data

        yield read


def _qemu_img(path: Path, command: str, *arguments: str) -> str:
    # -U: a running guest holds the lock of its disk, which reading does not need.
    try:
        done = subprocess.run(
            ["qemu-img", command, "-U", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
        )
    except FileNotFoundError:
        raise Unsupported(
            f"cannot read the disk '{path}': it is a qcow2 file and qemu-img is not found; "
            "apt-get install qemu-utils"
        ) from None
    if done.returncode:
        raise Unreachable(
            f"cannot read the disk '{path}': {done.stderr.strip()}; mend that and try again"
        )
    return done.stdout


@contextlib.contextmanager
def _rbd(disk: str, conf: str | Path | None, user: str | None) -> Iterator[Read]:
    pool, slash, name = disk.removeprefix("rbd:").partition("/")
    image_name, _, snapshot = name.partition("@")
    if not pool or not slash or not image_name:
        raise Invalid(f"cannot read the disk '{disk}': no image is named; give rbd:POOL/IMAGE")
    try:
        import rados
        import rbd
    except ImportError:
        raise Unsupported(
            f"cannot read the disk '{disk}': Ceph's Python modules are missing; "
            "apt-get install python3-rados python3-rbd"
        ) from None
    with contextlib.ExitStack() as held:
        cluster = _cluster(rados, disk, conf, user)
        held.callback(cluster.shutdown)
        try:
            pool_handle = cluster.open_ioctx(pool)
            held.callback(pool_handle.close)
            image = rbd.Image(pool_handle, image_name, snapshot=snapshot or None, read_only=True)
            held.callback(image.close)
        except (rados.ObjectNotFound, rbd.ImageNotFound) as error:
            raise NotFound(
                f"cannot read the disk '{disk}': {error}; look with `rbd ls {pool}` what is there"
            ) from error
        except (rados.Error, rbd.Error) as error:
            raise _silent(disk, error) from error

        def read(offset: int, length: int) -> bytes:
            try:
                return bytes(image.read(offset, length))
            except rbd.Error as error:
                raise _silent(disk, error) from error

        yield read


def _cluster(rados: Any, disk: str, conf: str | Path | None, user: str | None) -> Any:
    limits = {
        "rados_osd_op_timeout": str(CEPH_TIMEOUT_S),
        "client_mount_timeout": str(CEPH_TIMEOUT_S),
    }
    try:
        # An empty name has librados look in the usual places.
        cluster = rados.Rados(conffile=str(conf or ""), rados_id=user, conf=limits)
    except rados.Error as error:
        raise Invalid(
            f"cannot read the disk '{disk}': {error}; give a ceph.conf that exists"
        ) from error
    try:
        cluster.connect(timeout=CEPH_TIMEOUT_S)
    except rados.Error as error:
        cluster.shutdown()
        raise _silent(disk, error) from error
    return cluster


def _silent(disk: str, error: Exception) -> Unreachable:
    return Unreachable(
        f"cannot read the disk '{disk}': Ceph answers {error}; "
        "look whether its monitors and OSDs run and the key is the right one"
    )
